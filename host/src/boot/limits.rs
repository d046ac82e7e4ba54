//! What the kernel allows: the list of `tuning.rs`, and limits of this process that its children inherit.

use std::fs;
use std::path::Path;

use rustix::process::{Resource, Rlimit, setrlimit};
use rustix::thread::{CpuSet, sched_setaffinity};

use super::console::Console;
use crate::config::unit::cpu_list;
use crate::doctor::Machine;
use crate::tuning::{SETTINGS, State, Tuning};

/// Descriptors of one process: a connection is one.
const DESCRIPTORS_MAX: u64 = 4 << 20;
/// Memory that a process may lock: rings register their buffers, and processes without root have 8 MiB.
const LOCKED_BYTES_MAX: u64 = 1 << 30;

pub(super) fn set(console: &Console) {
    let machine = Machine::this();
    for tuning in SETTINGS {
        // What is absent is of a part that this kernel does not have.
        if let State::Other(_) = tuning.state(&machine) {
            let Tuning { file, value, why, .. } = tuning;
            if let Err(error) = fs::write(Path::new("/").join(file), value) {
                console.say(&format!("cannot set {file} to {value} ({why}): {error}"));
            }
        }
    }
    for (resource, most) in
        [(Resource::Nofile, DESCRIPTORS_MAX), (Resource::Memlock, LOCKED_BYTES_MAX)]
    {
        if let Err(error) = setrlimit(resource, Rlimit { current: Some(most), maximum: Some(most) })
        {
            console.say(&format!("the limit {resource:?} stays as it is: {error}"));
        }
    }
    // CPUs that were isolated on the kernel's command line are taken from process 1 as well, and from its children:
    // workers could not be pinned to the very CPUs that are theirs.
    let online = machine.text("sys/devices/system/cpu/online").unwrap_or_default();
    let mut all = CpuSet::new();
    for cpu in cpu_list(&online).unwrap_or_default() {
        let cpu = usize::try_from(cpu).expect("64-bit targets alone");
        if cpu < CpuSet::MAX_CPU {
            all.set(cpu);
        }
    }
    if let Err(error) = sched_setaffinity(None, &all) {
        console.say(&format!("workers may not have all CPUs: {error}"));
    }
    // Nobody here may become more than they are.
    if let Err(error) = rustix::thread::set_no_new_privs(true) {
        console.say(&format!("new privileges cannot be forbidden: {error}"));
    }
}
