//! Clocks, mitigations, isolation, quota and nodes.

use std::collections::BTreeMap;

use super::{Finding, Machine};
use crate::config::{counted, unit::cpu_list};

/// Clock sources that are read without a system call.
const CLOCKS_FAST: [&str; 4] =
    ["tsc", "kvm-clock", "hyperv_clocksource_tsc_page", "arch_sys_counter"];
/// With fewer CPUs, isolating some leaves too few for the rest of the system.
const CPUS_TO_ISOLATE_MIN: usize = 4;

pub(super) fn examine(machine: &Machine) -> Vec<Finding> {
    vec![
        cpus(machine),
        governor(machine),
        mitigations(machine),
        isolated(machine),
        quota(machine),
        clock(machine),
        nodes(machine),
    ]
}

fn cpus(machine: &Machine) -> Finding {
    let what = "CPUs";
    let why = "one worker runs on each, housekeeping on one of its own if there are several";
    let Some(list) = machine.field("proc/self/status", "Cpus_allowed_list") else {
        return Finding::unknown(what, why);
    };
    match cpu_list(&list).map_or(0, |cpus| cpus.len()) {
        1 => Finding::warn(what, "1", why, "allow the process a second CPU: taskset -c 0-1 midge"),
        count => Finding::ok(what, format!("{count} ({list})"), why),
    }
}

fn governor(machine: &Machine) -> Finding {
    let what = "CPU governor";
    let why = "a clock that rises only under load makes the first requests slow";
    let folder = "sys/devices/system/cpu";
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    for name in machine.names(folder) {
        if let Some(found) = machine.text(&format!("{folder}/{name}/cpufreq/scaling_governor")) {
            *counts.entry(found).or_default() += 1;
        }
    }
    if counts.is_empty() {
        return Finding::ok(what, "none: the clock is set elsewhere", why);
    }
    let found = counts.keys().cloned().collect::<Vec<_>>().join(", ");
    if found == "performance" {
        return Finding::ok(what, found, why);
    }
    let better = format!("echo performance | tee /{folder}/cpu*/cpufreq/scaling_governor");
    Finding::warn(what, found, why, better)
}

fn mitigations(machine: &Machine) -> Finding {
    let what = "mitigations";
    let why = "without them a guest may read by side channels what is not its own";
    let folder = "sys/devices/system/cpu/vulnerabilities";
    let names = machine.names(folder);
    let is_open = |name: &&String| {
        let state = machine.text(&format!("{folder}/{name}")).unwrap_or_default();
        state.starts_with("Vulnerable")
    };
    let open: Vec<_> = names.iter().filter(is_open).cloned().collect();
    let line = machine.text("proc/cmdline").unwrap_or_default();
    if line.split_whitespace().any(|word| word == "mitigations=off") {
        let better = "take mitigations=off from the kernel's command line";
        return Finding::warn(what, "off", why, better);
    }
    match (names.is_empty(), open.is_empty()) {
        (true, _) => Finding::unknown(what, why),
        (false, true) => Finding::ok(what, "on", why),
        (false, false) => {
            let found = format!("vulnerable: {}", open.join(", "));
            Finding::warn(what, found, why, "update microcode and kernel")
        }
    }
}

fn isolated(machine: &Machine) -> Finding {
    let what = "isolated CPUs";
    let why = "on a CPU of its own a worker is not interrupted by other work";
    let Some(list) = machine.text("sys/devices/system/cpu/isolated") else {
        return Finding::unknown(what, why);
    };
    if !list.is_empty() {
        return Finding::ok(what, list, why);
    }
    let online = machine.text("sys/devices/system/cpu/online").unwrap_or_default();
    let count = cpu_list(&online).map_or(0, |cpus| cpus.len());
    if count < CPUS_TO_ISOLATE_MIN {
        return Finding::ok(what, "none, and too few CPUs to isolate some", why);
    }
    let cpus = format!("1-{}", count - 1);
    let better = format!(
        "add to the kernel's command line: isolcpus=managed_irq,domain,{cpus} nohz_full={cpus} \
         rcu_nocbs={cpus}"
    );
    Finding::warn(what, "none", why, better)
}

fn quota(machine: &Machine) -> Finding {
    let what = "CPU quota";
    let why = "a worker that used up the cgroup's quota stands still until the next period";
    let groups = machine.cgroups();
    let quotas = groups.iter().filter_map(|group| machine.text(&format!("{group}/cpu.max")));
    match quotas.into_iter().find(|text| !text.starts_with("max")) {
        None => Finding::ok(what, "none", why),
        Some(text) => {
            let found = format!("{} us", text.replace(' ', " of "));
            let better = "echo max > cpu.max in the cgroup, and use `workers` instead";
            Finding::warn(what, found, why, better)
        }
    }
}

fn clock(machine: &Machine) -> Finding {
    let what = "clock source";
    let why = "with a slow one every look at the clock is a system call";
    let folder = "sys/devices/system/clocksource/clocksource0";
    let Some(found) = machine.text(&format!("{folder}/current_clocksource")) else {
        return Finding::unknown(what, why);
    };
    if CLOCKS_FAST.contains(&found.as_str()) {
        return Finding::ok(what, found, why);
    }
    let better = format!("echo tsc > /{folder}/current_clocksource");
    Finding::warn(what, found, why, better)
}

fn nodes(machine: &Machine) -> Finding {
    let what = "NUMA nodes";
    let why = "a slot's pages on another node cost more to restore";
    let Some(list) = machine.text("sys/devices/system/node/online") else {
        return Finding::unknown(what, why);
    };
    let count = cpu_list(&list).map_or(0, |nodes| nodes.len());
    if count <= 1 {
        return Finding::ok(what, "1", why);
    }
    let cpus = machine.text("sys/devices/system/node/node0/cpulist").unwrap_or_default();
    let better = format!("one process for each node: --workers {cpus}");
    Finding::warn(what, counted(count, "node"), why, better)
}

#[cfg(test)]
mod tests {
    use crate::doctor::tests::check;

    #[test]
    fn a_governor_that_saves_power_is_named() {
        let path = |cpu: usize| format!("sys/devices/system/cpu/cpu{cpu}/cpufreq/scaling_governor");
        let (first, second) = (path(0), path(1));
        let fast = [(first.as_str(), "performance\n"), (second.as_str(), "performance\n")];
        check(&fast, "CPU governor", "ok performance");
        let mixed = [(first.as_str(), "performance\n"), (second.as_str(), "powersave\n")];
        check(&mixed, "CPU governor", "warn performance, powersave");
    }

    #[test]
    fn open_vulnerabilities_are_named() {
        let path = "sys/devices/system/cpu/vulnerabilities";
        let (a, b) = (format!("{path}/meltdown"), format!("{path}/srbds"));
        let good = [(a.as_str(), "Mitigation: PTI\n"), (b.as_str(), "Not affected\n")];
        check(&good, "mitigations", "ok on");
        let open = [(a.as_str(), "Vulnerable\n"), (b.as_str(), "Not affected\n")];
        check(&open, "mitigations", "warn vulnerable: meltdown");
        check(&[("proc/cmdline", "ro mitigations=off quiet")], "mitigations", "warn off");
    }

    #[test]
    fn isolation_is_advised_where_there_are_cpus_for_it() {
        let isolated = "sys/devices/system/cpu/isolated";
        let online = "sys/devices/system/cpu/online";
        check(&[(isolated, "1-7\n")], "isolated CPUs", "ok 1-7");
        let finding = check(&[(isolated, "\n"), (online, "0-7\n")], "isolated CPUs", "warn none");
        assert!(finding.better.unwrap().contains("nohz_full=1-7"));
        check(
            &[(isolated, "\n"), (online, "0-1\n")],
            "isolated CPUs",
            "ok none, and too few CPUs to isolate some",
        );
    }

    #[test]
    fn a_quota_above_the_process_counts_too() {
        let files = [
            ("proc/self/cgroup", "0::/a\n"),
            ("sys/fs/cgroup/a/cpu.max", "max 100000\n"),
            ("sys/fs/cgroup/cpu.max", "150000 100000\n"),
        ];
        check(&files, "CPU quota", "warn 150000 of 100000 us");
        check(&files[..2], "CPU quota", "ok none");
    }

    #[test]
    fn slow_clocks_and_several_nodes_are_named() {
        let clock = "sys/devices/system/clocksource/clocksource0/current_clocksource";
        check(&[(clock, "hpet\n")], "clock source", "warn hpet");
        check(&[(clock, "tsc\n")], "clock source", "ok tsc");
        let files = [
            ("sys/devices/system/node/online", "0-1\n"),
            ("sys/devices/system/node/node0/cpulist", "0-15\n"),
        ];
        let finding = check(&files, "NUMA nodes", "warn 2 nodes");
        assert_eq!(finding.better.as_deref(), Some("one process for each node: --workers 0-15"));
        check(&[("proc/self/status", "Name:\tx\nCpus_allowed_list:\t3\n")], "CPUs", "warn 1");
    }
}
