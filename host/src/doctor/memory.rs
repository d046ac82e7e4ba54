//! Mappings, swap, huge pages, and the limit of the process's cgroup.

use super::{Finding, Machine};
use crate::config::{ByteSize, Quantity};
use crate::plan::MAPPINGS_PER_SLOT;

/// Enough for 130 000 slots.
const MAPPINGS_GOOD: u64 = 1_048_576;
/// Below it a host with a few workers does not start.
const MAPPINGS_MIN: u64 = 4096;
/// Room for the program, its templates and a few thousand slots.
const CGROUP_BYTES_GOOD: u64 = 512 << 20;

pub(super) fn examine(machine: &Machine) -> Vec<Finding> {
    vec![mappings(machine), swap(machine), huge_pages(machine), cgroup(machine)]
}

fn mappings(machine: &Machine) -> Finding {
    let what = "mappings";
    let why = "each run of a slot's written pages splits a mapping; the limit bounds the slots";
    let better = format!("sysctl -w vm.max_map_count={MAPPINGS_GOOD}");
    let Some(most) = machine.number("proc/sys/vm/max_map_count") else {
        return Finding::unknown(what, why);
    };
    let found = format!("{most}, about {} slots", most / MAPPINGS_PER_SLOT);
    match most {
        0..MAPPINGS_MIN => Finding::bad(what, found, why, better),
        MAPPINGS_MIN..MAPPINGS_GOOD => Finding::warn(what, found, why, better),
        _ => Finding::ok(what, found, why),
    }
}

fn swap(machine: &Machine) -> Finding {
    let what = "swap";
    let why = "a slot that was swapped out answers late, and `pool-scan` would not clean it";
    match machine.text("proc/swaps").map(|text| text.lines().skip(1).count()) {
        None => Finding::unknown(what, why),
        Some(0) => Finding::ok(what, "none", why),
        Some(count) => Finding::warn(what, format!("{count} in use"), why, "swapoff -a"),
    }
}

fn huge_pages(machine: &Machine) -> Finding {
    let what = "huge pages";
    let why = "given to everyone, they make first writes slow and small slots large";
    let path = "sys/kernel/mm/transparent_hugepage/enabled";
    let Some(text) = machine.text(path) else { return Finding::unknown(what, why) };
    let chosen = text.split(['[', ']']).nth(1).unwrap_or("unknown");
    match chosen {
        "always" => Finding::warn(what, chosen, why, format!("echo madvise > /{path}")),
        _ => Finding::ok(what, chosen, why),
    }
}

fn cgroup(machine: &Machine) -> Finding {
    let what = "memory limit";
    let why = "beyond the cgroup's limit the kernel ends the process";
    match machine.memory_limit() {
        None => Finding::ok(what, "none", why),
        Some(bytes) => {
            let found = ByteSize(bytes >> 20 << 20).show();
            if bytes < CGROUP_BYTES_GOOD {
                Finding::warn(what, found, why, "raise memory.max of the cgroup")
            } else {
                Finding::ok(what, found, why)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::doctor::tests::check;

    #[test]
    fn mappings_bound_the_slots() {
        for (most, expected) in [
            ("65530\n", "warn 65530, about 8191 slots"),
            ("1048576\n", "ok 1048576, about 131072 slots"),
            ("100\n", "bad 100, about 12 slots"),
        ] {
            check(&[("proc/sys/vm/max_map_count", most)], "mappings", expected);
        }
    }

    #[test]
    fn swap_is_named() {
        let head = "Filename Type Size Used Priority\n";
        check(&[("proc/swaps", head)], "swap", "ok none");
        check(&[("proc/swaps", &format!("{head}/swap file 1 0 -2\n"))], "swap", "warn 1 in use");
    }

    #[test]
    fn huge_pages_for_everyone_are_named() {
        let path = "sys/kernel/mm/transparent_hugepage/enabled";
        check(&[(path, "[always] madvise never\n")], "huge pages", "warn always");
        check(&[(path, "always [madvise] never\n")], "huge pages", "ok madvise");
    }

    #[test]
    fn the_tightest_cgroup_counts() {
        let files = [
            ("proc/self/cgroup", "0::/a/b\n"),
            ("sys/fs/cgroup/a/b/memory.max", "max\n"),
            ("sys/fs/cgroup/a/memory.max", "268435456\n"),
        ];
        check(&files, "memory limit", "warn 256 MiB");
        check(&files[..2], "memory limit", "ok none");
    }
}
