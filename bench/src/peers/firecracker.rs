//! A virtual machine with Linux and the static program as its only process: Firecracker.
//!
//! As with QEMU (`microvm.rs`) the program speaks HTTP on the machine's serial line, so that the kernel needs no driver
//! beyond its own. Firecracker shows that line as its own input and output. So the lab waits for the first connection, and
//! becomes Firecracker with the connection in place of both (`on_connection.rs`): no third process stands between.
//!
//! Firecracker has no processor of its own, and needs one that lends itself (KVM).

use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::json;

use super::{Comparison, Launch, Need, Place, Row, System, microvm, program};

/// How long it may take.
const START_MAX: Duration = Duration::from_secs(5);

/// What a file of the only kind that it boots begins with.
const ELF: &[u8; 4] = b"\x7fELF";

pub(super) const SYSTEM: System = System {
    name: "firecracker",
    needs: &[
        Need {
            program: "firecracker",
            npm: &[],
            install: "the program of https://github.com/firecracker-microvm/firecracker/releases on the path, named \
                      firecracker, and an uncompressed kernel: --kernel vmlinux",
        },
        program::COMPILER,
    ],
    rows: &[Row { name: "Firecracker", within: &[Comparison::Boot], target: "/", launch }],
};

fn launch(place: &Place<'_>) -> Result<Launch> {
    let kernel = place.kernel.context("it needs an uncompressed kernel: --kernel vmlinux")?;
    // Where there is no such file, Firecracker says so.
    let mut start = [0; ELF.len()];
    if std::fs::File::open(kernel).is_ok_and(|mut file| file.read_exact(&mut start).is_ok()) {
        ensure!(
            start == *ELF,
            "{} is no uncompressed kernel, and Firecracker boots no other: `make vmlinux`, or Linux's \
             scripts/extract-vmlinux",
            kernel.display()
        );
    }
    let program = std::fs::read(program::build(&place.programs[1], place.folder)?)?;
    let image = place.folder.join("image.cpio");
    std::fs::write(&image, microvm::archive(&program))?;
    let settings = place.write("machine.json", &settings(&std::path::absolute(kernel)?, &image))?;
    let mut command = Command::new(std::env::current_exe()?);
    command.arg("on-connection").arg(place.address.to_string()).arg(place.program());
    command.args(["--no-api", "--level", "Error", "--config-file"]).arg(settings);
    Ok(Launch { greets: true, start_max: START_MAX, ..Launch::from(command) })
}

/// Writes the settings of the machine.
fn settings(kernel: &Path, image: &PathBuf) -> String {
    let settings = json!({
        "boot-source": {
            "kernel_image_path": kernel,
            "initrd_path": image,
            "boot_args": format!("{} reboot=k pci=off {}", microvm::QUIET, microvm::FIRST_PROCESS),
        },
        "drives": [],
        "machine-config": {"vcpu_count": 1, "mem_size_mib": microvm::MEMORY_MIB},
    });
    settings.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machine_has_its_kernel_and_the_program_as_its_first_process() {
        let text = settings(Path::new("/k/vmlinux"), &"/f/image.cpio".into());
        let settings: serde_json::Value = serde_json::from_str(&text).unwrap();
        let source = &settings["boot-source"];
        assert_eq!(source["kernel_image_path"], "/k/vmlinux");
        assert_eq!(source["initrd_path"], "/f/image.cpio");
        let arguments = source["boot_args"].as_str().unwrap();
        assert!(arguments.ends_with("rdinit=/init -- serial"), "{arguments}");
        assert_eq!(settings["machine-config"]["mem_size_mib"], 256);
    }

    #[test]
    fn a_compressed_kernel_is_refused_with_what_makes_another() {
        let folder = tempfile::tempdir().unwrap();
        let kernel = folder.path().join("vmlinuz");
        std::fs::write(&kernel, b"MZ and so on").unwrap();
        let programs = [PathBuf::from("firecracker"), PathBuf::from("cc")];
        let address = "127.0.0.1:1".parse().unwrap();
        let place =
            |kernel| Place { programs: &programs, address, cpu: 0, folder: folder.path(), kernel };
        let refused = launch(&place(Some(kernel.as_path()))).unwrap_err().to_string();
        assert!(refused.contains("extract-vmlinux"), "{refused}");
        let without = launch(&place(None)).unwrap_err().to_string();
        assert!(without.contains("--kernel"), "{without}");
    }
}
