//! A disk that firmware starts from: a partition with a boot loader and an image, and room for the next one; and a
//! partition for data.
//!
//! ```text
//!   table | at 1 MiB: FAT, `midge-boot`                | FAT, empty, `midge-data` | table
//!             EFI/BOOT/BOOTX64.EFI    systemd-boot
//!             loader/loader.conf
//!             EFI/Linux/midge-1-ID.efi                   (`entry.rs`)
//! ```

use std::io::{Seek, Write};

use sha2::{Digest, Sha256};

use crate::entry::{self, Entry};
use crate::fat::{self, FatError, Place};
use crate::gpt::{self, BACKUP_SECTORS, Partition, SECTOR_BYTES, TYPE_DATA, TYPE_EFI};

/// Where partitions begin and end: whole MiB, as tools and drives like it.
const ALIGNMENT_BYTES: u64 = 1 << 20;
/// What firmware looks for on a disk that it knows nothing of (UEFI specification, 3.5.1.1).
pub const DEFAULT_PATH: &str = "EFI/BOOT/BOOTX64.EFI";
/// The partition that firmware looks at, by the name in the table.
pub const BOOT_NAME: &str = "midge-boot";
/// The partition for data, by the name in the table.
pub const DATA_NAME: &str = "midge-data";
/// Least size of the partition for data.
pub const DATA_BYTES_MIN: u64 = fat::BYTES_MIN;
/// Room beside the image and one that replaces it: the loader, and what the file system takes itself.
const BOOT_SPARE_BYTES: u64 = 8 << 20;
/// Settings of the loader: nobody is asked, and nobody changes the kernel's words at the keyboard.
const LOADER_SETTINGS: &[u8] = b"timeout 0\neditor no\n";
const LOADER_SETTINGS_PATH: &str = "loader/loader.conf";

/// What a disk starts.
#[derive(Debug, Clone, Copy)]
pub struct Boot<'a> {
    /// The boot loader.
    pub loader: &'a [u8],
    /// The image.
    pub image: &'a [u8],
    /// Which it is ([`entry::id`]).
    pub id: &'a str,
}

/// Where things lie on a disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Layout {
    boot_bytes: u64,
    data_bytes: u64,
}

impl Layout {
    /// Lays out a disk for an image of this size, with so much room for data.
    #[must_use]
    pub fn new(image_bytes: u64, data_bytes: u64) -> Self {
        let boot = (2 * image_bytes + BOOT_SPARE_BYTES).max(fat::BYTES_MIN);
        Self {
            boot_bytes: boot.next_multiple_of(ALIGNMENT_BYTES),
            data_bytes: data_bytes.max(DATA_BYTES_MIN).next_multiple_of(ALIGNMENT_BYTES),
        }
    }

    /// Returns the size of the whole disk.
    #[must_use]
    pub const fn bytes(self) -> u64 {
        let backup = (BACKUP_SECTORS * SECTOR_BYTES).next_multiple_of(ALIGNMENT_BYTES);
        ALIGNMENT_BYTES + self.boot_bytes + self.data_bytes + backup
    }
}

/// Writes a disk that is [`Layout::bytes`] long and all zeros.
///
/// # Errors
/// [`FatError`]: those of the disk, or more than a file system holds.
pub fn write<T: Write + Seek>(mut disk: T, layout: Layout, own: Boot<'_>) -> Result<(), FatError> {
    let Layout { boot_bytes, data_bytes } = layout;
    let (boot, data) = (ALIGNMENT_BYTES, ALIGNMENT_BYTES + boot_bytes);
    let sectors = |start: u64, bytes: u64| start / SECTOR_BYTES..(start + bytes) / SECTOR_BYTES;
    let partitions = [
        Partition { kind: TYPE_EFI, sectors: sectors(boot, boot_bytes), name: BOOT_NAME },
        Partition { kind: TYPE_DATA, sectors: sectors(data, data_bytes), name: DATA_NAME },
    ];
    let seed = Sha256::digest(own.image);
    let id = u32::from_le_bytes(*seed.first_chunk().expect("32 bytes"));
    gpt::write(&mut disk, layout.bytes() / SECTOR_BYTES, &seed, &partitions)?;
    let place = Place { offset: boot, bytes: boot_bytes };
    let name = Entry { number: 1, id: own.id.to_owned(), trial: None };
    let path = format!("{}/{name}", entry::FOLDER);
    let files = [
        (DEFAULT_PATH, own.loader),
        (LOADER_SETTINGS_PATH, LOADER_SETTINGS),
        (path.as_str(), own.image),
    ];
    fat::write(&mut disk, place, *b"MIDGE-BOOT ", id, &files)?;
    let place = Place { offset: data, bytes: data_bytes };
    fat::write(&mut disk, place, *b"MIDGE-DATA ", !id, &[])?;
    Ok(disk.flush()?)
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;
    use std::process::Command;

    use super::*;

    #[test]
    fn both_partitions_are_what_tools_expect() {
        let (loader, image) = (vec![0x11; 1000], vec![0x5a; 3 << 20]);
        let id = entry::id(&[&image]);
        let own = Boot { loader: &loader, image: &image, id: &id };
        let layout = Layout::new(image.len() as u64, 0);
        let make = || {
            let mut disk = Cursor::new(vec![0; usize::try_from(layout.bytes()).unwrap()]);
            write(&mut disk, layout, own).unwrap();
            disk.into_inner()
        };
        let disk = make();
        assert_eq!(disk, make());
        let folder = tempfile::tempdir().unwrap();
        let image = folder.path().join("disk");
        std::fs::write(&image, &disk).unwrap();
        let run = |program: &str, arguments: &[&str]| {
            let output = Command::new(program).args(arguments).output().ok()?;
            Some(String::from_utf8_lossy(&output.stdout).into_owned())
        };
        let path = image.to_str().unwrap();
        if let Some(said) = run("sgdisk", &["--verify", path]) {
            assert!(said.contains("No problems found"), "{said}");
        }
        let (boot, data) = (ALIGNMENT_BYTES, ALIGNMENT_BYTES + layout.boot_bytes);
        if let Some(said) = run("mdir", &["-i", &format!("{path}@@{boot}"), "::/EFI/BOOT"]) {
            assert!(said.contains("BOOTX64  EFI      1000"), "{said}");
        }
        if let Some(said) = run("mdir", &["-i", &format!("{path}@@{boot}"), "::/EFI/Linux"]) {
            assert!(
                said.contains("3145728") && said.contains(&format!("midge-1-{id}.efi")),
                "{said}"
            );
        }
        if let Some(said) = run("mdir", &["-i", &format!("{path}@@{data}"), "::"]) {
            assert!(said.contains("MIDGE-DATA"), "{said}");
        }
    }
}
