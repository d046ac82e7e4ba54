//! A virtual machine with Linux and the static program as its only process: QEMU's machine `microvm`.
//!
//! The program speaks HTTP on the machine's serial line, which QEMU shows as a port, so that the kernel needs no
//! driver beyond its own. That a machine has `/dev/kvm` does not say that a kernel boots by it: that row is tried
//! under a deadline, and the row of QEMU's own processor stands beside it.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};

use super::{Comparison, Launch, Need, Place, Row, System, program};

/// How long a kernel may take where the processor runs it.
const KVM_START_MAX: Duration = Duration::from_secs(5);

/// Memory of the machine, in MiB: room for the kernel of any distribution.
pub(super) const MEMORY_MIB: u32 = 256;

/// Words for the kernel: what it has to say would stand before the response, and where it fails it ends the machine.
pub(super) const QUIET: &str = "console=null quiet loglevel=0 panic=-1";

/// Words for it that make the program its first process, and tell the program where to speak.
pub(super) const FIRST_PROCESS: &str = "rdinit=/init -- serial";

pub(super) const SYSTEM: System = System {
    name: "qemu",
    needs: &[
        Need {
            program: "qemu-system-x86_64",
            npm: &[],
            install: "apt-get install --no-install-recommends qemu-system-x86",
        },
        program::COMPILER,
    ],
    rows: &[
        Row {
            name: "QEMU microvm, kvm",
            within: &[Comparison::Boot],
            target: "/",
            launch: |place| {
                let launch = launch(place, &["-accel", "kvm", "-cpu", "host"])?;
                Ok(Launch { start_max: KVM_START_MAX, ..launch })
            },
        },
        Row {
            name: "QEMU microvm, tcg",
            within: &[Comparison::Boot],
            target: "/",
            launch: |place| launch(place, &["-accel", "tcg", "-cpu", "max"]),
        },
    ],
};

fn launch(place: &Place<'_>, processor: &[&str]) -> Result<Launch> {
    let kernel = match place.kernel {
        Some(kernel) => kernel.to_owned(),
        None => newest_kernel(Path::new("/boot"))
            .context("no kernel in /boot: apt-get install linux-image-cloud-amd64, or --kernel")?,
    };
    let program = std::fs::read(program::build(&place.programs[1], place.folder)?)?;
    let image = place.folder.join("image.cpio");
    std::fs::write(&image, archive(&program))?;
    let mut command = Command::new(place.program());
    command.args(processor).args(["-m", &MEMORY_MIB.to_string(), "-smp", "1"]);
    command.args(["-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"]);
    // Without ACPI; a timer that works without the help of KVM.
    command.args(["-M", "microvm,acpi=off,pit=on,pic=on,rtc=on"]);
    let port = place.address.port();
    command.arg("-serial").arg(format!("tcp:127.0.0.1:{port},server=on,wait=off"));
    command.arg("-kernel").arg(kernel).arg("-initrd").arg(image);
    command.arg("-append").arg(format!("{QUIET} reboot=t {FIRST_PROCESS}"));
    Ok(Launch { greets: true, ..Launch::from(command) })
}

/// Finds the kernel that was installed last.
fn newest_kernel(folder: &Path) -> Option<PathBuf> {
    let files = std::fs::read_dir(folder).ok()?.flatten();
    let kernels = files.filter(|file| file.file_name().to_string_lossy().starts_with("vmlinuz"));
    let newest = kernels.max_by_key(|file| file.metadata().and_then(|data| data.modified()).ok());
    Some(newest?.path())
}

/// Makes the machine's first files: the program as `/init`, and the devices that it and the kernel open.
pub(super) fn archive(program: &[u8]) -> Vec<u8> {
    const FOLDER: u32 = 0o040_755;
    const DEVICE: u32 = 0o020_600;
    const PROGRAM: u32 = 0o100_755;
    let mut out = Vec::with_capacity(program.len() + 1024);
    entry(&mut out, "dev", FOLDER, (0, 0), b"");
    entry(&mut out, "dev/console", DEVICE, (5, 1), b"");
    entry(&mut out, "dev/ttyS0", DEVICE, (4, 64), b"");
    entry(&mut out, "init", PROGRAM, (0, 0), program);
    entry(&mut out, "TRAILER!!!", 0, (0, 0), b"");
    out
}

/// Adds a file in the form that Linux unpacks (its documentation, `initramfs-buffer-format`): thirteen numbers in
/// hexadecimal, the name, the bytes, each of them up to the next multiple of four.
fn entry(out: &mut Vec<u8>, name: &str, mode: u32, device: (u32, u32), bytes: &[u8]) {
    let size = |length: usize| u32::try_from(length).expect("a program of some MiB");
    out.extend_from_slice(b"070701");
    // Number, mode, user, group, links, time, size, device of the file system, device, length of the name, sum.
    let number = size(out.len());
    let (major, minor) = device;
    let fields =
        [number, mode, 0, 0, 1, 0, size(bytes.len()), 0, 0, major, minor, size(name.len() + 1), 0];
    for field in fields {
        out.extend_from_slice(format!("{field:08x}").as_bytes());
    }
    out.extend_from_slice(name.as_bytes());
    out.push(0);
    pad(out);
    out.extend_from_slice(bytes);
    pad(out);
}

fn pad(out: &mut Vec<u8>) {
    out.resize(out.len().next_multiple_of(4), 0);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, PartialEq)]
    struct Entry {
        name: String,
        mode: u32,
        device: (u32, u32),
        bytes: Vec<u8>,
    }

    impl Entry {
        fn of(name: &str, mode: u32, device: (u32, u32), bytes: &[u8]) -> Self {
            Self { name: name.to_owned(), mode, device, bytes: bytes.to_vec() }
        }
    }

    /// Reads an archive back.
    fn entries(mut archive: &[u8]) -> Vec<Entry> {
        let mut all = Vec::new();
        while !archive.is_empty() {
            assert!(archive.starts_with(b"070701"));
            let field = |index: usize| {
                let digits = &archive[6 + index * 8..14 + index * 8];
                u32::from_str_radix(std::str::from_utf8(digits).unwrap(), 16).unwrap()
            };
            let (size, length) = (field(6) as usize, field(11) as usize);
            let name = std::str::from_utf8(&archive[110..110 + length - 1]).unwrap();
            let start = (110 + length).next_multiple_of(4);
            let bytes = &archive[start..start + size];
            all.push(Entry::of(name, field(1), (field(9), field(10)), bytes));
            archive = &archive[(start + size).next_multiple_of(4)..];
        }
        all
    }

    #[test]
    fn an_archive_holds_the_program_and_its_devices() {
        let archive = archive(b"five!");
        assert_eq!(archive.len() % 4, 0);
        let wanted = [
            Entry::of("dev", 0o040_755, (0, 0), b""),
            Entry::of("dev/console", 0o020_600, (5, 1), b""),
            Entry::of("dev/ttyS0", 0o020_600, (4, 64), b""),
            Entry::of("init", 0o100_755, (0, 0), b"five!"),
            Entry::of("TRAILER!!!", 0, (0, 0), b""),
        ];
        assert_eq!(entries(&archive), wanted);
    }

    #[test]
    fn the_newest_kernel_is_taken_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(newest_kernel(folder.path()), None);
        let hours_ago =
            |hours: u64| std::time::SystemTime::now() - Duration::from_secs(3600 * hours);
        for (name, age) in [("vmlinuz-2", 1), ("vmlinuz-10", 2), ("config-3", 0)] {
            let file = std::fs::File::create(folder.path().join(name)).unwrap();
            file.set_modified(hours_ago(age)).unwrap();
        }
        assert_eq!(newest_kernel(folder.path()), Some(folder.path().join("vmlinuz-2")));
        assert_eq!(newest_kernel(&folder.path().join("none")), None);
    }
}
