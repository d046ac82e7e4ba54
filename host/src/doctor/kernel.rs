//! The kernel, its rings, and its limits on processes and sockets.

use midge_net::RingTier;
use midge_net::tier::Chosen;

use super::{Finding, Machine};

/// Workers set up their rings with DEFER_TASKRUN (6.1); below they take an older way.
const KERNEL_FAST: (u32, u32) = (6, 1);
/// PAGEMAP_SCAN, which `pool-scan` needs, and socket options on direct descriptors.
const KERNEL_GOOD: (u32, u32) = (6, 7);
/// A few workers' connections.
const OPEN_FILES_GOOD: u64 = 65_536;
/// Below it not even one worker has room.
const OPEN_FILES_MIN: u64 = 256;
/// Registered buffers of a few workers.
const LOCKED_BYTES_GOOD: u64 = 64 << 20;
/// The backlog that workers ask for.
const BACKLOG_GOOD: u64 = 4096;

pub(super) fn examine(machine: &Machine) -> Vec<Finding> {
    vec![
        version(machine),
        ring(machine),
        open_files(machine),
        locked_memory(machine),
        backlog(machine),
    ]
}

fn version(machine: &Machine) -> Finding {
    let what = "kernel";
    let why = "workers want io_uring with DEFER_TASKRUN (6.1), `pool-scan` PAGEMAP_SCAN (6.7)";
    let Some(release) = machine.text("proc/sys/kernel/osrelease") else {
        return Finding::unknown(what, why);
    };
    let mut numbers = release.split(['.', '-']).map_while(|part| part.parse::<u32>().ok());
    match (numbers.next(), numbers.next()) {
        (Some(major), Some(minor)) if (major, minor) < KERNEL_FAST => {
            Finding::warn(what, release, why, "install Linux 6.1 or later")
        }
        (Some(major), Some(minor)) if (major, minor) < KERNEL_GOOD => {
            Finding::warn(what, release, why, "install Linux 6.7 or later")
        }
        _ => Finding::ok(what, release, why),
    }
}

fn ring(machine: &Machine) -> Finding {
    let what = "io_uring";
    let why = "workers do their input and output through a ring, or by a system call each (tier d)";
    let disabled = machine.number("proc/sys/kernel/io_uring_disabled");
    let allow = "sysctl -w kernel.io_uring_disabled=0";
    if let Some(probe) = machine.probe {
        return match (probe(), disabled) {
            (Err(error), _) => Finding::bad(
                what,
                error.to_string(),
                why,
                "do what the message says, or serve --ring-tier d",
            ),
            (Ok(Chosen { tier, hindrance: Some(_) }), Some(1 | 2)) => {
                Finding::warn(what, format!("disabled: tier {tier}"), why, allow)
            }
            (Ok(Chosen { tier, hindrance: Some(_) }), _) => {
                let better = "allow io_uring_setup, io_uring_enter and io_uring_register in the \
                              container's seccomp profile";
                Finding::warn(what, format!("forbidden or missing: tier {tier}"), why, better)
            }
            (Ok(_), Some(1)) => {
                Finding::warn(what, "works, but for the privileged alone", why, allow)
            }
            (Ok(Chosen { tier: RingTier::A, .. }), _) => Finding::ok(what, "works: tier a", why),
            (Ok(Chosen { tier, .. }), _) => {
                let found = format!("works: tier {tier}");
                Finding::warn(what, found, why, "install Linux 6.1 or later")
            }
        };
    }
    match disabled {
        Some(0) => Finding::ok(what, "enabled", why),
        Some(1) => Finding::warn(what, "for the privileged alone", why, allow),
        Some(_) => Finding::warn(what, "disabled: tier d", why, allow),
        None => Finding::unknown(what, why),
    }
}

fn open_files(machine: &Machine) -> Finding {
    let what = "open files";
    let why = "each connection is one; beyond the limit accepting pauses";
    let better = "ulimit -n 1048576";
    match limit(machine, "Max open files") {
        None => Finding::unknown(what, why),
        Some(Limit::None) => Finding::ok(what, "unlimited", why),
        Some(Limit::At(most)) if most < OPEN_FILES_MIN => {
            Finding::bad(what, most.to_string(), why, better)
        }
        Some(Limit::At(most)) if most < OPEN_FILES_GOOD => {
            Finding::warn(what, most.to_string(), why, better)
        }
        Some(Limit::At(most)) => Finding::ok(what, most.to_string(), why),
    }
}

fn locked_memory(machine: &Machine) -> Finding {
    let what = "locked memory";
    let why =
        "registered buffers are locked, and so is the pool of `pool-scan` where there is swap";
    match limit(machine, "Max locked memory") {
        None => Finding::unknown(what, why),
        Some(Limit::At(bytes)) if bytes < LOCKED_BYTES_GOOD => {
            Finding::warn(what, format!("{} KiB", bytes >> 10), why, "ulimit -l unlimited")
        }
        Some(Limit::At(bytes)) => Finding::ok(what, format!("{} MiB", bytes >> 20), why),
        Some(Limit::None) => Finding::ok(what, "unlimited", why),
    }
}

fn backlog(machine: &Machine) -> Finding {
    let what = "listen backlog";
    let why = "connections that arrive in one burst wait there; the others are refused";
    match machine.number("proc/sys/net/core/somaxconn") {
        None => Finding::unknown(what, why),
        Some(most) if most < BACKLOG_GOOD => {
            let better = format!("sysctl -w net.core.somaxconn={BACKLOG_GOOD}");
            Finding::warn(what, most.to_string(), why, better)
        }
        Some(most) => Finding::ok(what, most.to_string(), why),
    }
}

enum Limit {
    None,
    At(u64),
}

/// Returns the soft limit of this name.
fn limit(machine: &Machine, name: &str) -> Option<Limit> {
    let text = machine.text("proc/self/limits")?;
    let rest = text.lines().find_map(|line| line.strip_prefix(name))?;
    match rest.split_whitespace().next()? {
        "unlimited" => Some(Limit::None),
        number => number.parse().ok().map(Limit::At),
    }
}

#[cfg(test)]
mod tests {
    use crate::doctor::tests::check;

    #[test]
    fn the_kernels_version_decides() {
        for (release, expected) in [
            ("5.15.0-91-generic\n", "warn 5.15.0-91-generic"),
            ("6.1.0\n", "warn 6.1.0"),
            ("6.18-rc1\n", "ok 6.18-rc1"),
            ("7.0.1\n", "ok 7.0.1"),
            ("odd\n", "ok odd"),
        ] {
            check(&[("proc/sys/kernel/osrelease", release)], "kernel", expected);
        }
    }

    #[test]
    fn disabled_rings_leave_epoll() {
        for (disabled, expected) in [
            ("0", "ok enabled"),
            ("1", "warn for the privileged alone"),
            ("2", "warn disabled: tier d"),
        ] {
            check(&[("proc/sys/kernel/io_uring_disabled", disabled)], "io_uring", expected);
        }
    }

    #[test]
    fn limits_are_the_soft_ones() {
        let limits = "Limit                     Soft Limit           Hard Limit           Units     \n\
                      Max open files            1024                 1048576              files     \n\
                      Max locked memory         unlimited            unlimited            bytes     \n";
        let files = [("proc/self/limits", limits)];
        let finding = check(&files, "open files", "warn 1024");
        assert_eq!(finding.better.as_deref(), Some("ulimit -n 1048576"));
        check(&files, "locked memory", "ok unlimited");
        check(&[("proc/self/limits", "Max open files  64  64  files")], "open files", "bad 64");
    }

    #[test]
    fn a_short_backlog_is_named() {
        check(&[("proc/sys/net/core/somaxconn", "128\n")], "listen backlog", "warn 128");
        check(&[("proc/sys/net/core/somaxconn", "4096\n")], "listen backlog", "ok 4096");
    }
}
