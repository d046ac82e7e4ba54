//! File systems of the kernel's, where they are not mounted yet.

use std::ffi::CStr;
use std::fs;

use rustix::mount::{MountFlags, mount};

use super::console::Console;

struct Mount {
    target: &'static str,
    kind: &'static str,
    flags: MountFlags,
    options: &'static CStr,
}

const QUIET: MountFlags = MountFlags::NOSUID.union(MountFlags::NODEV);
const DATA: MountFlags = QUIET.union(MountFlags::NOEXEC);

/// In the order in which one lies on another. There are no groups of processes: nobody shares this machine, and the
/// mount alone takes the kernel eleven milliseconds.
const MOUNTS: [Mount; 5] = [
    Mount { target: "/proc", kind: "proc", flags: DATA, options: c"" },
    Mount { target: "/sys", kind: "sysfs", flags: DATA, options: c"" },
    Mount { target: "/dev", kind: "devtmpfs", flags: MountFlags::NOSUID, options: c"mode=755" },
    Mount { target: "/run", kind: "tmpfs", flags: DATA, options: c"mode=755,size=16m" },
    Mount { target: "/tmp", kind: "tmpfs", flags: DATA, options: c"mode=1777,size=25%" },
];

pub(super) fn mount_all(console: &Console) {
    for Mount { target, kind, flags, options } in MOUNTS {
        if let Err(error) = fs::create_dir_all(target) {
            console.say(&format!("cannot make the folder {target}: {error}"));
        }
        if is_mounted(target) {
            continue;
        }
        if let Err(error) = mount(kind, target, kind, flags, options) {
            console.say(&format!("cannot mount {target}: {error}"));
        }
    }
}

/// Returns true for a place where something is mounted, as far as `/proc` can tell.
fn is_mounted(target: &str) -> bool {
    let table = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    table.lines().any(|line| line.split(' ').nth(4) == Some(target))
}
