//! What the kernel allows: settings of a machine that serves and does nothing else.

use std::fs;

use rustix::process::{Resource, Rlimit, setrlimit};

use super::console::Console;

/// Descriptors of one process: a connection is one.
const DESCRIPTORS_MAX: u64 = 4 << 20;
/// Memory that a process may lock: rings register their buffers, and processes without root have 8 MiB.
const LOCKED_BYTES_MAX: u64 = 1 << 30;

/// File, value, why.
const SETTINGS: [(&str, &str, &str); 12] = [
    ("/proc/sys/kernel/panic", "10", "a kernel that fails starts anew"),
    ("/proc/sys/vm/max_map_count", "4194304", "each slot takes mappings, and more when written to"),
    ("/proc/sys/vm/overcommit_memory", "1", "address space is kept, not memory"),
    ("/proc/sys/vm/unprivileged_userfaultfd", "1", "`pool-scan` protects pages by it"),
    ("/proc/sys/vm/swappiness", "0", "a page that comes from a disk takes longer than a request"),
    ("/proc/sys/vm/stat_interval", "120", "fewer wake-ups of workers' CPUs"),
    ("/proc/sys/fs/nr_open", "4194304", "connections are descriptors"),
    ("/proc/sys/net/core/somaxconn", "65535", "connections that wait to be accepted"),
    ("/proc/sys/net/ipv4/ip_nonlocal_bind", "1", "listening before the address has come"),
    ("/proc/sys/net/ipv6/ip_nonlocal_bind", "1", "the same"),
    ("/proc/sys/net/ipv4/ip_unprivileged_port_start", "0", "port 80 without root"),
    ("/sys/kernel/mm/transparent_hugepage/enabled", "madvise", "one write must not fetch 2 MiB"),
];

pub(super) fn set(console: &Console) {
    for (file, value, why) in SETTINGS {
        match fs::read_to_string(file) {
            // Of a part that this kernel does not have.
            Err(_) => {}
            Ok(found) if found.trim() == value || found.contains(&format!("[{value}]")) => {}
            Ok(_) => {
                if let Err(error) = fs::write(file, value) {
                    console.say(&format!("cannot set {file} to {value} ({why}): {error}"));
                }
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
    // Nobody here may become more than they are.
    if let Err(error) = rustix::thread::set_no_new_privs(true) {
        console.say(&format!("new privileges cannot be forbidden: {error}"));
    }
}
