//! What a machine that serves and does nothing else is set to: one list, which the first process of a machine image
//! applies (`boot/limits.rs`), and `midge doctor` compares others with.
//!
//! Each has what is known of its effect on midge. "unmeasured" says that it is taken from the kernel's documentation
//! and from others' practice.

use crate::doctor::Machine;

/// From so many CPUs on, the first is left to housekeeping and the kernel: `workers = "auto"` takes the others, and
/// queues are steered to those.
pub const SPARE_FROM: usize = 4;

/// A setting of the kernel.
#[derive(Debug, Clone, Copy)]
pub struct Tuning {
    /// Its file, below the root.
    pub file: &'static str,
    /// What it is set to.
    pub value: &'static str,
    /// A larger number is as good.
    pub is_least: bool,
    /// What for.
    pub why: &'static str,
    /// What is known of its effect.
    pub effect: &'static str,
}

/// A word of the kernel's command line, for which a machine has to be booted anew.
#[derive(Debug, Clone, Copy)]
pub struct Word {
    /// Its name.
    pub name: &'static str,
    /// What it is set to, with `CPUS` for those of the workers.
    pub value: &'static str,
    /// What for.
    pub why: &'static str,
    /// What is known of its effect.
    pub effect: &'static str,
}

/// Nobody has measured it.
const UNMEASURED: &str = "unmeasured";

const fn exactly(file: &'static str, value: &'static str, why: &'static str) -> Tuning {
    Tuning { file, value, is_least: false, why, effect: UNMEASURED }
}

const fn at_least(file: &'static str, value: &'static str, why: &'static str) -> Tuning {
    Tuning { is_least: true, ..exactly(file, value, why) }
}

/// Settings that can be written while the machine runs.
pub const SETTINGS: [Tuning; 13] = [
    at_least(
        "proc/sys/vm/max_map_count",
        "4194304",
        "each slot takes mappings, and more when written to",
    )
    .known("a slot takes 8 mappings: 65530 hold 8191, the rest is started anew (decision 032)"),
    exactly("proc/sys/vm/overcommit_memory", "1", "address space is kept, not memory"),
    exactly(
        "proc/sys/vm/swappiness",
        "0",
        "a page that comes from a disk takes longer than a request",
    )
    .known("none without swap, as on a machine image; `pool-scan` is not used beside any"),
    at_least("proc/sys/vm/stat_interval", "120", "fewer wake-ups of workers' CPUs"),
    exactly("proc/sys/kernel/timer_migration", "0", "timers stay on the CPU that set them"),
    exactly(
        "proc/sys/kernel/nmi_watchdog",
        "0",
        "no interrupt each second, and a counter to spare",
    ),
    at_least("proc/sys/fs/nr_open", "4194304", "connections are descriptors")
        .known("the limit of descriptors cannot be above it: 1048576 as kernels come"),
    at_least("proc/sys/net/core/somaxconn", "4096", "connections that wait to be accepted")
        .known("the queue of 4096 that midge asks for is cut to it; Linux before 5.4 has 128"),
    exactly("proc/sys/net/ipv4/ip_nonlocal_bind", "1", "listening before the address has come")
        .known("without it a start fails while the address is missing (EADDRNOTAVAIL)"),
    exactly("proc/sys/net/ipv6/ip_nonlocal_bind", "1", "the same for IPv6").known("as for IPv4"),
    exactly("proc/sys/net/ipv4/ip_unprivileged_port_start", "0", "port 80 without root")
        .known("without it port 80 is refused to whoever serves as nobody (EACCES)"),
    exactly(
        "sys/kernel/mm/transparent_hugepage/enabled",
        "madvise",
        "one write must not fetch 2 MiB",
    )
    .known("none on midge, which does without huge pages by itself (PR_SET_THP_DISABLE)"),
    at_least("proc/sys/kernel/panic", "10", "a kernel that fails starts anew").known(
        "starts anew after 10 s, and the loader takes the image before; else it stands still",
    ),
];

/// Words that take effect with a boot alone.
pub const WORDS: [Word; 4] = [
    Word {
        name: "isolcpus",
        value: "managed_irq,domain,CPUS",
        why: "no other process and no interrupt on the workers' CPUs",
        effect: UNMEASURED,
    },
    Word {
        name: "nohz_full",
        value: "CPUS",
        why: "no tick while a worker runs alone; every system call takes longer",
        effect: UNMEASURED,
    },
    Word {
        name: "rcu_nocbs",
        value: "CPUS",
        why: "the kernel's own clean-up runs elsewhere",
        effect: UNMEASURED,
    },
    Word {
        name: "irqaffinity",
        value: "0",
        why: "interrupts that nobody steers go to the CPU for housekeeping",
        effect: UNMEASURED,
    },
];

/// How a setting is on a machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum State {
    /// The kernel does not have it.
    Absent,
    /// As it should be.
    Applied(String),
    /// Something else.
    Other(String),
}

impl Tuning {
    const fn known(self, effect: &'static str) -> Self {
        Self { effect, ..self }
    }

    /// Looks at a machine.
    #[must_use]
    pub fn state(&self, machine: &Machine) -> State {
        let Some(text) = machine.text(self.file) else { return State::Absent };
        // Of a choice the one in force stands in brackets.
        let found = text.split(['[', ']']).nth(1).unwrap_or(&text).to_owned();
        let number = |text: &str| text.parse::<u64>().ok();
        let is_enough = match (self.is_least, number(&found), number(self.value)) {
            (true, Some(found), Some(wanted)) => wanted <= found,
            _ => found == self.value,
        };
        if is_enough { State::Applied(found) } else { State::Other(found) }
    }

    /// Returns the line that applies it.
    #[must_use]
    pub fn line(&self) -> String {
        match self.file.strip_prefix("proc/sys/") {
            Some(name) => format!("sysctl -w {}={}", name.replace('/', "."), self.value),
            None => format!("echo {} > /{}", self.value, self.file),
        }
    }
}

impl Word {
    /// Looks at the command line that a machine was booted with.
    #[must_use]
    pub fn state(&self, machine: &Machine) -> State {
        let Some(line) = machine.text("proc/cmdline") else { return State::Absent };
        let mut values = line.split_whitespace().filter_map(|word| word.split_once('='));
        match values.find(|(name, _)| *name == self.name) {
            Some((_, value)) => State::Applied(value.to_owned()),
            None => State::Other("not set".into()),
        }
    }

    /// Returns what has to be added to the command line.
    #[must_use]
    pub fn line(&self) -> String {
        format!("{}={}", self.name, self.value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::tests::tree;

    #[test]
    fn a_setting_is_applied_if_it_is_as_good() {
        let state = |file: &str, text: &str| {
            let folder = tree(&[(file, text)]);
            let tuning = SETTINGS.iter().find(|tuning| tuning.file == file).unwrap();
            tuning.state(&Machine { root: folder.path().into(), probe: None })
        };
        for (file, text, expected) in [
            ("proc/sys/vm/max_map_count", "9999999\n", State::Applied("9999999".into())),
            ("proc/sys/vm/max_map_count", "65530\n", State::Other("65530".into())),
            ("proc/sys/vm/swappiness", "60\n", State::Other("60".into())),
            (
                "sys/kernel/mm/transparent_hugepage/enabled",
                "always [madvise] never\n",
                State::Applied("madvise".into()),
            ),
        ] {
            assert_eq!(state(file, text), expected, "{file}");
        }
        let nowhere = tree(&[]);
        let machine = Machine { root: nowhere.path().into(), probe: None };
        assert!(SETTINGS.iter().all(|tuning| tuning.state(&machine) == State::Absent));
        assert_eq!(SETTINGS[0].line(), "sysctl -w vm.max_map_count=4194304");
    }

    #[test]
    fn words_are_looked_for_on_the_line() {
        let folder = tree(&[("proc/cmdline", "quiet nohz_full=1-3\n")]);
        let machine = Machine { root: folder.path().into(), probe: None };
        let states: Vec<_> = WORDS.iter().map(|word| word.state(&machine)).collect();
        assert_eq!(states[1], State::Applied("1-3".into()));
        assert_eq!(states[0], State::Other("not set".into()));
    }
}
