//! The partition for data, by its name in the table of partitions: mounted at `/data`, read-only, if there is one.
//! And how partitions are found.

use std::fs;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use rustix::mount::{MountFlags, UnmountFlags};

use super::console::Console;
use super::words::{Data, Words};

/// Where it is mounted.
const TARGET: &str = "/data";
/// Its name in the table.
const NAME: &str = midge_image::disk::DATA_NAME;
/// How long its driver may take.
const WAIT_MAX: Duration = Duration::from_secs(5);
const LOOK_EVERY: Duration = Duration::from_millis(2);
/// Nothing here writes to it: a power cut finds it whole, and whoever broke out of a guest leaves nothing behind for
/// the next start. Execution is allowed, for the code of artifacts is mapped from their files.
const FLAGS: MountFlags = MountFlags::RDONLY
    .union(MountFlags::NOSUID)
    .union(MountFlags::NODEV)
    .union(MountFlags::NOATIME);

/// Mounts it, and returns where.
pub(super) fn mount(console: &Console, words: &Words) -> Option<PathBuf> {
    let device = match words.data {
        Data::None => return None,
        Data::IfThere => find(NAME)?,
        Data::Wait => match wait_for(NAME) {
            Some(device) => device,
            None => {
                console.say(&format!("there is no partition `{NAME}`: nothing will be kept"));
                return None;
            }
        },
    };
    let mounted = fs::create_dir_all(TARGET).and_then(|()| {
        Ok(rustix::mount::mount(&device, TARGET, "vfat", FLAGS, c"errors=continue")?)
    });
    match mounted {
        Ok(()) => Some(TARGET.into()),
        Err(error) => {
            console.say(&format!("cannot mount {}: {error}", device.display()));
            None
        }
    }
}

/// Takes it off.
pub(super) fn unmount(console: &Console, target: Option<&Path>) {
    let Some(target) = target else { return };
    if let Err(error) = rustix::mount::unmount(target, UnmountFlags::empty()) {
        console.say(&format!("cannot unmount {}: {error}", target.display()));
    }
}

/// Waits for a partition of this name: its driver may take a moment.
pub(super) fn wait_for(name: &str) -> Option<PathBuf> {
    let until = Instant::now() + WAIT_MAX;
    loop {
        match find(name) {
            Some(device) => return Some(device),
            None if until <= Instant::now() => return None,
            None => thread::park_timeout(LOOK_EVERY),
        }
    }
}

fn find(name: &str) -> Option<PathBuf> {
    let wanted = format!("PARTNAME={name}");
    let devices = fs::read_dir("/sys/class/block").ok()?;
    let mut names = devices.flatten().map(|device| device.file_name()).filter(|name| {
        let event = Path::new("/sys/class/block").join(name).join("uevent");
        fs::read_to_string(event).is_ok_and(|event| event.lines().any(|line| line == wanted))
    });
    names.next().map(|name| Path::new("/dev").join(name))
}
