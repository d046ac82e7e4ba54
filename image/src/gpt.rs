//! A table of partitions (UEFI specification, chapter 5): a protective MBR, a header and 128 entries in front,
//! the same entries and header at the end.
//!
//! ```text
//!   0 MBR | 1 header | 2..34 entries | .. partitions .. | 33 before the end: entries | last: header
//! ```
//!
//! Names of the disk and of its partitions (GUIDs) are made of what the caller gives, not drawn.

use std::io::{self, Seek, SeekFrom, Write};
use std::ops::Range;

use sha2::{Digest, Sha256};

use crate::bytes::put;

/// Size of a sector, the unit of the table.
pub const SECTOR_BYTES: u64 = SECTOR as u64;
const SECTOR: usize = 512;
/// Sectors in front of the first partition, at the least.
pub const FIRST_USABLE: u64 = 2 + ENTRY_SECTORS;
/// Sectors at the end that the copy takes.
pub const BACKUP_SECTORS: u64 = ENTRY_SECTORS + 1;

const ENTRY_COUNT: u32 = 128;
const ENTRY_BYTES: u32 = 128;
const ENTRY_SECTORS: u64 = 32;
const HEADER_BYTES: u32 = 92;
/// Longest name, in units of UTF-16.
const NAME_UNITS_MAX: usize = 36;

const _: () = assert!(ENTRY_COUNT as u64 * ENTRY_BYTES as u64 == ENTRY_SECTORS * SECTOR_BYTES);

/// A GUID as it stands on a disk.
pub type Guid = [u8; 16];

/// The type of the partition that firmware starts programs from.
pub const TYPE_EFI: Guid = [
    0x28, 0x73, 0x2a, 0xc1, 0x1f, 0xf8, 0xd2, 0x11, 0xba, 0x4b, 0x00, 0xa0, 0xc9, 0x3e, 0xc9, 0x3b,
];
/// The type of a partition with data.
pub const TYPE_DATA: Guid = [
    0xa2, 0xa0, 0xd0, 0xeb, 0xe5, 0xb9, 0x33, 0x44, 0x87, 0xc0, 0x68, 0xb6, 0xb7, 0x26, 0x99, 0xc7,
];

/// A partition.
#[derive(Debug, Clone)]
pub struct Partition {
    /// What it is for.
    pub kind: Guid,
    /// Its sectors.
    pub sectors: Range<u64>,
    /// Its name.
    pub name: &'static str,
}

/// Writes a table for a disk of so many sectors. `seed` decides on the names of disk and partitions.
///
/// # Errors
/// Those of the disk.
///
/// # Panics
/// If a partition does not lie between the tables, or there are more than the table holds: the caller lays
/// them out.
pub fn write<T: Write + Seek>(
    mut disk: T,
    sectors: u64,
    seed: &[u8],
    partitions: &[Partition],
) -> io::Result<()> {
    let last = sectors - 1;
    let usable = FIRST_USABLE..sectors - BACKUP_SECTORS;
    let mut entries = vec![0; (ENTRY_COUNT * ENTRY_BYTES) as usize];
    assert!(partitions.len() <= ENTRY_COUNT as usize, "the table holds them");
    for (partition, entry) in partitions.iter().zip(entries.chunks_mut(ENTRY_BYTES as usize)) {
        let Range { start, end } = partition.sectors;
        assert!(usable.start <= start && start < end && end <= usable.end, "between the tables");
        put(entry, 0, &partition.kind);
        put(entry, 16, &guid(seed, partition.name));
        put(entry, 32, &start.to_le_bytes());
        put(entry, 40, &(end - 1).to_le_bytes());
        for (unit, at) in partition.name.encode_utf16().take(NAME_UNITS_MAX).zip(0..) {
            put(entry, 56 + 2 * at, &unit.to_le_bytes());
        }
    }
    let header = |own: u64, other: u64, table: u64| {
        let mut header = [0; SECTOR];
        put(&mut header, 0, b"EFI PART\0\0\x01\0");
        put(&mut header, 12, &HEADER_BYTES.to_le_bytes());
        put(&mut header, 24, &own.to_le_bytes());
        put(&mut header, 32, &other.to_le_bytes());
        put(&mut header, 40, &usable.start.to_le_bytes());
        put(&mut header, 48, &(usable.end - 1).to_le_bytes());
        put(&mut header, 56, &guid(seed, "disk"));
        put(&mut header, 72, &table.to_le_bytes());
        put(&mut header, 80, &ENTRY_COUNT.to_le_bytes());
        put(&mut header, 84, &ENTRY_BYTES.to_le_bytes());
        put(&mut header, 88, &crc32fast::hash(&entries).to_le_bytes());
        let sum = crc32fast::hash(&header[..HEADER_BYTES as usize]);
        put(&mut header, 16, &sum.to_le_bytes());
        header
    };
    let mut write_at = |sector: u64, bytes: &[u8]| {
        disk.seek(SeekFrom::Start(sector * SECTOR_BYTES))?;
        disk.write_all(bytes)
    };
    write_at(0, &protective(sectors))?;
    write_at(1, &header(1, last, 2))?;
    write_at(2, &entries)?;
    write_at(last - ENTRY_SECTORS, &entries)?;
    write_at(last, &header(last, 1, last - ENTRY_SECTORS))
}

/// Returns a boot record that tells tools which know nothing else that the disk is taken.
fn protective(sectors: u64) -> [u8; SECTOR] {
    let mut record = [0; SECTOR];
    let size = u32::try_from(sectors - 1).unwrap_or(u32::MAX);
    put(&mut record, 446, &[0, 0, 2, 0, 0xee, 0xff, 0xff, 0xff]);
    put(&mut record, 454, &1_u32.to_le_bytes());
    put(&mut record, 458, &size.to_le_bytes());
    put(&mut record, 510, &[0x55, 0xaa]);
    record
}

/// Returns a GUID of version 8 (RFC 9562), made of a seed and a word.
fn guid(seed: &[u8], word: &str) -> Guid {
    let digest = Sha256::new().chain_update(word).chain_update([0]).chain_update(seed).finalize();
    let mut guid: Guid = *digest.first_chunk().expect("32 bytes");
    // The version lies in the third field, which is little-endian on disks.
    guid[7] = guid[7] & 0x0f | 0x80;
    guid[8] = guid[8] & 0x3f | 0x80;
    guid
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;
    use std::process::Command;

    use super::*;

    #[test]
    fn sgdisk_finds_no_fault() {
        let sectors = 20 * 2048;
        let mut disk = Cursor::new(vec![0; 20 * 2048 * SECTOR]);
        let partitions = [
            Partition { kind: TYPE_EFI, sectors: 2048..4096, name: "one" },
            Partition { kind: TYPE_DATA, sectors: 4096..sectors - BACKUP_SECTORS, name: "two" },
        ];
        write(&mut disk, sectors, b"seed", &partitions).unwrap();
        let bytes = disk.into_inner();
        assert!(bytes[512..].starts_with(b"EFI PART"));
        let folder = tempfile::tempdir().unwrap();
        let image = folder.path().join("disk");
        std::fs::write(&image, bytes).unwrap();
        let sgdisk = |arguments: &[&str]| {
            let output = Command::new("sgdisk").args(arguments).arg(&image).output().ok()?;
            Some(String::from_utf8_lossy(&output.stdout).into_owned())
        };
        let Some(verified) = sgdisk(&["--verify"]) else { return };
        assert!(verified.contains("No problems found"), "{verified}");
        let listed = sgdisk(&["--print"]).unwrap();
        assert!(listed.contains("EF00") && listed.contains("two"), "{listed}");
    }

    #[test]
    fn names_depend_on_the_seed_alone() {
        assert_eq!(guid(b"a", "x"), guid(b"a", "x"));
        assert_ne!(guid(b"a", "x"), guid(b"b", "x"));
        assert_ne!(guid(b"a", "x"), guid(b"a", "y"));
    }
}
