//! An image of a CD that firmware starts from (ISO 9660, El Torito), and that can be written to a USB stick as
//! well: the same FAT file system is a partition of its own.
//!
//! ```text
//!   sectors of 2048 bytes
//!   0..16 table of partitions | 16 volume | 17 boot record | 18 end | 19 boot catalogue | 20, 21 paths
//!   22 folder | 23.. EFI.IMG, the FAT file system | copy of the table of partitions
//! ```

use std::io::Cursor;

use sha2::{Digest, Sha256};

use crate::bytes::{pad, put};
use crate::disk::DEFAULT_PATH;
use crate::fat::{self, FatError, Place};
use crate::gpt::{self, BACKUP_SECTORS, Partition, SECTOR_BYTES, TYPE_EFI};

const SECTOR: usize = SECTOR_SHORT as usize;
const SECTOR_SHORT: u16 = 2048;
const VOLUME: usize = 16;
const BOOT_RECORD: usize = 17;
const END: usize = 18;
const CATALOGUE: usize = 19;
const PATHS_LITTLE: usize = 20;
const PATHS_BIG: usize = 21;
const FOLDER: usize = FOLDER_BYTE as usize;
const FOLDER_BYTE: u8 = 22;
const IMAGE: usize = 23;
const _: () = assert!(gpt::FIRST_USABLE * SECTOR_BYTES <= (VOLUME * SECTOR) as u64);

/// The file of the file system, as it stands in the folder.
const IMAGE_NAME: &[u8] = b"EFI.IMG;1";
/// The platform of a boot catalogue: UEFI.
const PLATFORM_EFI: u8 = 0xef;
/// Room in the file system beside the program.
const SPARE_BYTES: usize = 4 << 20;
/// Largest program: a file of ISO 9660 has 32 bits for its size.
pub const PROGRAM_BYTES_MAX: usize = 2 << 30;

/// Returns the image that starts this program of the firmware's.
///
/// # Errors
/// If the program is larger than [`PROGRAM_BYTES_MAX`], or the file system cannot be made.
pub fn encode(program: &[u8]) -> Result<Vec<u8>, FatError> {
    if program.len() > PROGRAM_BYTES_MAX {
        return Err(FatError::NoRoom { path: DEFAULT_PATH.to_owned() });
    }
    let seed = Sha256::digest(program);
    let id = u32::from_le_bytes(*seed.first_chunk().expect("32 bytes"));
    let least = usize::try_from(fat::BYTES_MIN).expect("64-bit targets alone");
    let mut system = vec![0; (program.len() + SPARE_BYTES).max(least).next_multiple_of(1 << 20)];
    let place = Place { offset: 0, bytes: system.len() as u64 };
    fat::write(Cursor::new(&mut system), place, *b"MIDGE-BOOT ", id, &[(DEFAULT_PATH, program)])?;

    let mut image = vec![0; IMAGE * SECTOR];
    let size = u32::try_from(system.len()).expect("bounded above");
    let sectors = IMAGE + system.len() / SECTOR;
    let backup = usize::try_from(BACKUP_SECTORS * SECTOR_BYTES).expect("a few KiB");
    let total = sectors + backup.div_ceil(SECTOR);
    volume(&mut image[VOLUME * SECTOR..][..SECTOR], total);
    let record = &mut image[BOOT_RECORD * SECTOR..];
    put(record, 0, b"\0CD001\x01EL TORITO SPECIFICATION");
    put(record, 71, &sector(CATALOGUE).to_le_bytes());
    put(&mut image[END * SECTOR..], 0, b"\xffCD001\x01");
    catalogue(&mut image[CATALOGUE * SECTOR..], system.len());
    // One path, the root's: length 1, no extension, where, its own parent, a name of one zero.
    let paths = [PATHS_LITTLE, PATHS_BIG].map(|at| at * SECTOR);
    put(&mut image[paths[0]..], 0, &[1, 0, FOLDER_BYTE, 0, 0, 0, 1, 0, 0, 0]);
    put(&mut image[paths[1]..], 0, &[1, 0, 0, 0, 0, FOLDER_BYTE, 0, 1, 0, 0]);
    let mut at = FOLDER * SECTOR;
    let own = sector(SECTOR);
    let entries: [(usize, u32, u8, &[u8]); 3] =
        [(FOLDER, own, 2, b"\0"), (FOLDER, own, 2, b"\x01"), (IMAGE, size, 0, IMAGE_NAME)];
    for (place, size, flags, name) in entries {
        at += entry(&mut image[at..], sector(place), size, flags, name);
    }
    image.extend_from_slice(&system);
    image.resize(total * SECTOR, 0);
    pad(&mut image, SECTOR);

    let disk_sectors = (image.len() as u64) / SECTOR_BYTES;
    let start = (IMAGE * SECTOR) as u64 / SECTOR_BYTES;
    let end = start + (system.len() as u64) / SECTOR_BYTES;
    let partition = Partition { kind: TYPE_EFI, sectors: start..end, name: "midge-boot" };
    gpt::write(Cursor::new(&mut image), disk_sectors, &seed, &[partition])?;
    Ok(image)
}

fn sector(number: usize) -> u32 {
    u32::try_from(number).expect("bounded by PROGRAM_BYTES_MAX")
}

/// Writes a number in both byte orders, as the format has them.
fn both(bytes: &mut [u8], offset: usize, number: u32) {
    put(bytes, offset, &number.to_le_bytes());
    put(bytes, offset + 4, &number.to_be_bytes());
}

fn both_short(bytes: &mut [u8], offset: usize, number: u16) {
    put(bytes, offset, &number.to_le_bytes());
    put(bytes, offset + 2, &number.to_be_bytes());
}

/// Writes the description of the volume (ECMA-119, 8.4).
fn volume(bytes: &mut [u8], total: usize) {
    put(bytes, 0, b"\x01CD001\x01\0");
    bytes[8..72].fill(b' ');
    put(bytes, 8, b"LINUX");
    put(bytes, 40, b"MIDGE");
    both(bytes, 80, sector(total));
    for (offset, number) in [(120, 1), (124, 1), (128, SECTOR_SHORT)] {
        both_short(bytes, offset, number);
    }
    both(bytes, 132, 10);
    put(bytes, 140, &sector(PATHS_LITTLE).to_le_bytes());
    put(bytes, 148, &sector(PATHS_BIG).to_be_bytes());
    entry(&mut bytes[156..], sector(FOLDER), sector(SECTOR), 2, b"\0");
    bytes[190..813].fill(b' ');
    // Four times that are not given: sixteen digits and an offset each.
    for at in [813, 830, 847, 864] {
        bytes[at..at + 16].fill(b'0');
    }
    bytes[881] = 1;
}

/// Writes an entry of a folder (ECMA-119, 9.1), and returns its length.
fn entry(bytes: &mut [u8], place: u32, size: u32, flags: u8, name: &[u8]) -> usize {
    let length = (33 + name.len()).next_multiple_of(2);
    bytes[0] = u8::try_from(length).expect("short names alone");
    both(bytes, 2, place);
    both(bytes, 10, size);
    // 1 January 1970.
    put(bytes, 18, &[70, 1, 1, 0, 0, 0, 0]);
    bytes[25] = flags;
    both_short(bytes, 28, 1);
    bytes[32] = u8::try_from(name.len()).expect("short names alone");
    put(bytes, 33, name);
    length
}

/// Writes the boot catalogue (El Torito, 2).
fn catalogue(bytes: &mut [u8], image_bytes: usize) {
    put(bytes, 0, &[1, PLATFORM_EFI, 0, 0]);
    put(bytes, 4, b"midge");
    put(bytes, 30, &[0x55, 0xaa]);
    let words = bytes[..32].chunks(2).map(|word| u16::from_le_bytes([word[0], word[1]]));
    let sum = words.fold(0_u16, u16::wrapping_add);
    put(bytes, 28, &sum.wrapping_neg().to_le_bytes());
    // Bootable, without emulation. More sectors than the field holds are written as nought: then firmware takes
    // all up to the end (UEFI specification, 13.3.2.1).
    bytes[32] = 0x88;
    let sectors = u16::try_from(image_bytes / 512).unwrap_or(0);
    put(bytes, 38, &sectors.to_le_bytes());
    put(bytes, 40, &sector(IMAGE).to_le_bytes());
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn xorriso_reads_it_and_finds_what_firmware_starts() {
        let program = vec![0x4d; 100_000];
        let image = encode(&program).unwrap();
        assert_eq!(image, encode(&program).unwrap());
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.iso");
        std::fs::write(&path, &image).unwrap();
        let xorriso = |arguments: &[&str]| {
            let mut command = Command::new("xorriso");
            command.args(["-indev"]).arg(&path).args(arguments);
            let output = command.output().ok()?;
            let said = [output.stdout, output.stderr].concat();
            Some(String::from_utf8_lossy(&said).into_owned())
        };
        let Some(said) = xorriso(&["-report_el_torito", "plain", "-find", "/"]) else { return };
        assert!(said.contains("UEFI") && said.contains("/EFI.IMG"), "{said}");
        assert!(!said.contains("SORRY") && !said.contains("FAILURE"), "{said}");
        if let Ok(checked) = Command::new("sgdisk").arg("--verify").arg(&path).output() {
            let said = String::from_utf8_lossy(&checked.stdout).into_owned();
            assert!(said.contains("No problems found"), "{said}");
        }
        let copied = folder.path().join("efi.img");
        let target = copied.to_str().unwrap();
        xorriso(&["-osirrox", "on", "-extract", "/EFI.IMG", target]).unwrap();
        let system = std::fs::read(&copied).unwrap();
        assert_eq!(system, image[IMAGE * SECTOR..][..system.len()]);
    }
}
