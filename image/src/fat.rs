//! A FAT32 file system with these files: what firmware reads, and what a partition for data is to begin with
//! (Microsoft's specification of FAT, 1.03).
//!
//! ```text
//!   32 sectors: boot sector, information, copies | table | table | clusters: root, folders, files, nothing
//! ```
//!
//! Every file and folder lies in one piece, for nothing was there before. Names of eight capital letters and three
//! are entries of their own; others have long names in front of them. The crate `fatfs` was tried first: folders of its release 0.3.6 have entries `.` and `..`
//! with long names, which `fsck.vfat` takes for damage.

use std::collections::BTreeMap;
use std::io::{self, Seek, SeekFrom, Write};

use crate::bytes::put;

/// Least size: a file system with fewer clusters is FAT16 to whoever reads it, whatever its header says.
pub const BYTES_MIN: u64 = 33 << 20;
/// Largest size: sectors are counted in 32 bits.
pub const BYTES_MAX: u64 = (u32::MAX as u64) * SECTOR_BYTES;
/// A label: what `blkid` shows.
pub type Label = [u8; 11];

const SECTOR: usize = 512;
const SECTOR_BYTES: u64 = SECTOR as u64;
const CLUSTERS_MIN: u64 = 65_525;
const RESERVED: u64 = 32;
/// The sectors of a cluster, up to a size of the whole: small enough for the least count of clusters, and large
/// enough for a table of a few MiB.
const SECTORS_PER_CLUSTER: [(u64, u8); 3] = [(260 << 20, 1), (8 << 30, 8), (BYTES_MAX, 64)];
const ENTRY_BYTES: usize = 32;
/// Entries of a folder, so that each folder fits into one cluster of one sector.
pub const FOLDER_ENTRIES_MAX: usize = SECTOR / ENTRY_BYTES;
/// Longest name: its entries and some others fit into a folder.
const NAME_BYTES_MAX: usize = 52;
/// Letters in an entry of a long name.
const LONG_LETTERS: usize = 13;
const ROOT: u32 = 2;
const LAST: u32 = 0x0fff_ffff;
const FOLDER: u8 = 0x10;
const FILE: u8 = 0x20;
const LABEL: u8 = 0x08;
const LONG: u8 = 0x0f;

/// A file system cannot be made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FatError {
    /// Its size.
    #[error("a FAT32 file system has {BYTES_MIN} to {BYTES_MAX} bytes, not {bytes}")]
    Size {
        /// What was asked for.
        bytes: u64,
    },
    /// A name.
    #[error("`{name}` is no name of 1 to {NAME_BYTES_MAX} letters, digits, `_`, `-`, `+` and dots")]
    Name {
        /// Which.
        name: String,
    },
    /// The files are larger than it, or a folder has more than [`FOLDER_ENTRIES_MAX`] entries.
    #[error("there is no room for `{path}`")]
    NoRoom {
        /// For which.
        path: String,
    },
    /// The disk refused.
    #[error("the file system cannot be written")]
    Write(#[from] io::Error),
}

/// Where a file system lies on its disk.
#[derive(Debug, Clone, Copy)]
pub struct Place {
    /// Offset of its first byte.
    pub offset: u64,
    /// Its size; a rest that is no sector is left alone.
    pub bytes: u64,
}

/// Sizes that follow from that of the whole.
struct Layout {
    sectors: u32,
    table_sectors: u32,
    sectors_per_cluster: u8,
    clusters: u32,
}

impl Layout {
    fn new(bytes: u64) -> Result<Self, FatError> {
        let refused = FatError::Size { bytes };
        if !(BYTES_MIN..=BYTES_MAX).contains(&bytes) {
            return Err(refused);
        }
        let sizes = SECTORS_PER_CLUSTER.iter().find(|(most, _)| bytes <= *most);
        let sectors_per_cluster = sizes.map_or(1, |(_, sectors)| *sectors);
        let sectors = bytes / SECTOR_BYTES;
        let each = u64::from(sectors_per_cluster);
        // The tables make room for a few clusters that they take themselves.
        let table = ((sectors - RESERVED) / each + 2).div_ceil(SECTOR_BYTES / 4);
        let clusters = (sectors - RESERVED - 2 * table) / each;
        let number = |number: u64| u32::try_from(number).expect("bounded by BYTES_MAX");
        match clusters < CLUSTERS_MIN {
            true => Err(refused),
            false => Ok(Self {
                sectors: number(sectors),
                table_sectors: number(table),
                sectors_per_cluster,
                clusters: number(clusters),
            }),
        }
    }

    fn cluster_bytes(&self) -> u64 {
        u64::from(self.sectors_per_cluster) * SECTOR_BYTES
    }

    fn offset_of(&self, cluster: u32) -> u64 {
        let data = RESERVED + 2 * u64::from(self.table_sectors);
        data * SECTOR_BYTES + u64::from(cluster - ROOT) * self.cluster_bytes()
    }
}

/// Makes a file system, and puts files into it, each with its folders. What is not written must be zeros already.
///
/// # Errors
/// [`FatError`].
pub fn write<T: Write + Seek>(
    mut disk: T,
    place: Place,
    label: Label,
    id: u32,
    files: &[(&str, &[u8])],
) -> Result<(), FatError> {
    let layout = Layout::new(place.bytes)?;
    let mut write_at = |offset: u64, bytes: &[u8]| {
        disk.seek(SeekFrom::Start(place.offset + offset))?;
        disk.write_all(bytes)
    };
    let mut table = vec![0x0fff_fff8, LAST];
    let mut folders: BTreeMap<&str, Folder> = BTreeMap::new();
    folders.insert("", Folder::root(&mut table, label));
    for (path, content) in files {
        let no_room = || FatError::NoRoom { path: (*path).to_owned() };
        for (at, _) in path.match_indices('/') {
            let (above, own) = split(&path[..at]);
            if !folders.contains_key(own) {
                let made = Folder::below(&mut table, folders[above].cluster);
                let above = folders.get_mut(above).expect("folders come first");
                above.push(path_end(own), FOLDER, made.cluster, 0, no_room)?;
                folders.insert(own, made);
            }
        }
        let size = u32::try_from(content.len()).map_err(|_| no_room())?;
        let first = take(&mut table, (content.len() as u64).div_ceil(layout.cluster_bytes()));
        if table.len() as u64 > u64::from(layout.clusters) + u64::from(ROOT) {
            return Err(no_room());
        }
        let above = folders.get_mut(split(path).0).expect("it was made");
        above.push(path_end(path), FILE, first, size, no_room)?;
        if first != 0 {
            write_at(layout.offset_of(first), content)?;
        }
    }
    for folder in folders.values() {
        write_at(layout.offset_of(folder.cluster), &folder.entries.concat())?;
    }
    let used = u32::try_from(table.len()).map_err(|_| FatError::Size { bytes: place.bytes })?;
    let bytes: Vec<u8> = table.iter().flat_map(|entry| entry.to_le_bytes()).collect();
    let table_bytes = u64::from(layout.table_sectors) * SECTOR_BYTES;
    for copy in 0..2 {
        write_at(RESERVED * SECTOR_BYTES + copy * table_bytes, &bytes)?;
    }
    // The boot sector and what is free, and a copy of both.
    let hidden = u32::try_from(place.offset / SECTOR_BYTES).unwrap_or(0);
    let head = [boot_sector(&layout, label, id, hidden), information(&layout, used)].concat();
    write_at(0, &head)?;
    write_at(6 * SECTOR_BYTES, &head)?;
    Ok(())
}

/// A folder's entries, and where they are to lie.
struct Folder {
    cluster: u32,
    entries: Vec<[u8; ENTRY_BYTES]>,
}

impl Folder {
    fn root(table: &mut Vec<u32>, label: Label) -> Self {
        Self { cluster: take(table, 1), entries: vec![entry(label, LABEL, 0, 0)] }
    }

    fn below(table: &mut Vec<u32>, above: u32) -> Self {
        let cluster = take(table, 1);
        // The root is called 0 from below.
        let above = if above == ROOT { 0 } else { above };
        let (own, up) = (*b".          ", *b"..         ");
        Self { cluster, entries: vec![entry(own, FOLDER, cluster, 0), entry(up, FOLDER, above, 0)] }
    }

    fn push(
        &mut self,
        name: &str,
        kind: u8,
        cluster: u32,
        size: u32,
        no_room: impl Fn() -> FatError,
    ) -> Result<(), FatError> {
        let short = match short(name) {
            Some(short) => short,
            None => {
                check_long(name)?;
                let short = alias(name, self.entries.len());
                self.entries.extend(long(name, short));
                short
            }
        };
        self.entries.push(entry(short, kind, cluster, size));
        if self.entries.len() > FOLDER_ENTRIES_MAX { Err(no_room()) } else { Ok(()) }
    }
}

/// Takes so many clusters in a row, and returns the first; 0 if there are to be none.
fn take(table: &mut Vec<u32>, count: u64) -> u32 {
    let first = u32::try_from(table.len()).unwrap_or(LAST);
    for left in (0..count).rev() {
        let next = u32::try_from(table.len() + 1).unwrap_or(LAST);
        table.push(if left == 0 { LAST } else { next });
    }
    if count == 0 { 0 } else { first }
}

/// Splits a path into the folder's and itself.
fn split(path: &str) -> (&str, &str) {
    (path.rsplit_once('/').map_or("", |(above, _)| above), path)
}

fn path_end(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}

/// Returns a name as an entry has it, if it has no more than eight letters and three.
fn short(text: &str) -> Option<Label> {
    let (stem, ending) = text.split_once('.').unwrap_or((text, ""));
    let is_letter = |byte: u8| byte.is_ascii_uppercase() || byte.is_ascii_digit() || byte == b'_';
    let fits = (1..=8).contains(&stem.len()) && ending.len() <= 3;
    if !fits || !stem.bytes().chain(ending.bytes()).all(is_letter) {
        return None;
    }
    let mut name = [b' '; 11];
    put(&mut name, 0, stem.as_bytes());
    put(&mut name, 8, ending.as_bytes());
    Some(name)
}

fn check_long(text: &str) -> Result<(), FatError> {
    let is_letter = |byte: u8| byte.is_ascii_alphanumeric() || b"_-+.".contains(&byte);
    let is_long = (1..=NAME_BYTES_MAX).contains(&text.len()) && text.bytes().all(is_letter);
    if is_long && !text.starts_with('.') && !text.ends_with('.') {
        return Ok(());
    }
    Err(FatError::Name { name: text.chars().take(40).collect() })
}

/// Returns the short name behind a long one, which nothing else in the folder has: it holds the entry's number.
fn alias(text: &str, number: usize) -> Label {
    let (stem, ending) = text.rsplit_once('.').unwrap_or((text, ""));
    let letters = |text: &str, most: usize| -> String {
        let plain = text.chars().filter(char::is_ascii_alphanumeric).take(most);
        plain.map(|letter| letter.to_ascii_uppercase()).collect()
    };
    let mut name = [b' '; 11];
    put(&mut name, 0, format!("{}~{number}", letters(stem, 5)).as_bytes());
    put(&mut name, 8, letters(ending, 3).as_bytes());
    name
}

/// Returns the entries of a long name, the last part first.
fn long(text: &str, short: Label) -> Vec<[u8; ENTRY_BYTES]> {
    let sum = short.iter().fold(0_u8, |sum, &byte| sum.rotate_right(1).wrapping_add(byte));
    let parts: Vec<&[u8]> = text.as_bytes().chunks(LONG_LETTERS).collect();
    let make = |(index, part): (usize, &&[u8])| {
        let is_last = index + 1 == parts.len();
        let mut entry = [0xff; ENTRY_BYTES];
        entry[0] =
            u8::try_from(index + 1).expect("names are short") | if is_last { 0x40 } else { 0 };
        put(&mut entry, 11, &[LONG, 0, sum]);
        put(&mut entry, 26, &[0; 2]);
        // Letters of 16 bits, in the three places that an entry has left for them; a zero ends a name.
        let places = (1..11).chain(14..26).chain(28..32).step_by(2);
        for (at, &letter) in places.zip(part.iter().chain(&[0])) {
            put(&mut entry, at, &u16::from(letter).to_le_bytes());
        }
        entry
    };
    parts.iter().enumerate().rev().map(|part| make((part.0, part.1))).collect()
}

fn entry(name: Label, kind: u8, cluster: u32, size: u32) -> [u8; ENTRY_BYTES] {
    let mut entry = [0; ENTRY_BYTES];
    let [low, high] = [cluster & 0xffff, cluster >> 16].map(u32::to_le_bytes);
    put(&mut entry, 0, &name);
    entry[11] = kind;
    // 1 January 1980 is the first day that there is: it was made, read and changed then.
    for at in [16, 18, 24] {
        put(&mut entry, at, &[0x21, 0]);
    }
    put(&mut entry, 20, &high[..2]);
    put(&mut entry, 26, &low[..2]);
    put(&mut entry, 28, &size.to_le_bytes());
    entry
}

fn boot_sector(layout: &Layout, label: Label, id: u32, hidden: u32) -> [u8; SECTOR] {
    let mut sector = [0; SECTOR];
    put(&mut sector, 0, b"\xeb\x58\x90midge   ");
    put(&mut sector, 11, &[0, 2, layout.sectors_per_cluster, 32, 0, 2]);
    put(&mut sector, 21, &[0xf8, 0, 0, 63, 0, 255, 0]);
    put(&mut sector, 28, &hidden.to_le_bytes());
    put(&mut sector, 32, &layout.sectors.to_le_bytes());
    put(&mut sector, 36, &layout.table_sectors.to_le_bytes());
    put(&mut sector, 44, &ROOT.to_le_bytes());
    // Where information and the copy of this sector are.
    put(&mut sector, 48, &[1, 0, 6, 0]);
    put(&mut sector, 64, &[0x80, 0, 0x29]);
    put(&mut sector, 67, &id.to_le_bytes());
    put(&mut sector, 71, &label);
    put(&mut sector, 82, b"FAT32   ");
    put(&mut sector, 510, &[0x55, 0xaa]);
    sector
}

fn information(layout: &Layout, used: u32) -> [u8; SECTOR] {
    let mut sector = [0; SECTOR];
    put(&mut sector, 0, b"RRaA");
    put(&mut sector, 484, b"rrAa");
    put(&mut sector, 488, &(layout.clusters + ROOT - used).to_le_bytes());
    put(&mut sector, 492, &used.to_le_bytes());
    put(&mut sector, 510, &[0x55, 0xaa]);
    sector
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::process::Command;

    use super::*;

    fn run(program: &str, arguments: &[&str]) -> Option<(bool, String)> {
        let output = Command::new(program).args(arguments).output().ok()?;
        let said = [output.stdout, output.stderr].concat();
        Some((output.status.success(), String::from_utf8_lossy(&said).into_owned()))
    }

    #[test]
    fn the_tools_of_others_find_the_files_and_no_fault() {
        let folder = tempfile::tempdir().unwrap();
        let image = folder.path().join("fat");
        let path = image.to_str().unwrap();
        let content: Vec<u8> = (0..70_000_u32).map(|number| (number % 251) as u8).collect();
        let files: [(&str, &[u8]); 6] = [
            ("EFI/BOOT/BOOTX64.EFI", &content),
            ("EFI/MIDGE/A.B", b"text"),
            ("EMPTY", b""),
            ("EFI/BOOT/C", &content[..513]),
            ("EFI/Linux/midge-1-0123456789abcdef.efi", b"long"),
            ("loader/thirteen-of.13", b"a name that fills its entry"),
        ];
        for bytes in [BYTES_MIN, 260 << 20, 261 << 20, 8 << 30, (8 << 30) + 512] {
            let disk = File::create(&image).unwrap();
            disk.set_len(bytes).unwrap();
            let place = Place { offset: 0, bytes };
            write(&disk, place, *b"MIDGE-DATA ", 0x1234_5678, &files).unwrap();
            if let Some((is_whole, said)) = run("fsck.vfat", &["-n", "-v", path]) {
                assert!(is_whole && said.contains("12 files"), "{bytes} bytes: {said}");
            }
            let copied = folder.path().join("copy");
            let target = copied.to_str().unwrap();
            for (name, content) in [files[0], files[4], files[5]] {
                let copy = ["-n", "-i", path, &format!("::/{name}"), target];
                if let Some((is_done, said)) = run("mcopy", &copy) {
                    assert!(is_done, "{said}");
                    assert_eq!(std::fs::read(&copied).unwrap(), content);
                    std::fs::remove_file(&copied).unwrap();
                }
            }
        }
    }

    #[test]
    fn what_cannot_be_is_refused() {
        let make = |bytes: u64, files: &[(&str, &[u8])]| {
            let mut disk = io::Cursor::new(Vec::new());
            write(&mut disk, Place { offset: 0, bytes }, *b"X          ", 0, files)
        };
        let content = vec![1; usize::try_from(BYTES_MIN).unwrap()];
        assert!(matches!(make(BYTES_MIN - 1, &[]), Err(FatError::Size { .. })));
        assert!(matches!(make(BYTES_MAX + 1, &[]), Err(FatError::Size { .. })));
        assert!(matches!(make(BYTES_MIN, &[("A", &content)]), Err(FatError::NoRoom { .. })));
        let long = "x".repeat(NAME_BYTES_MAX + 1);
        for name in ["a b", "A?", ".hidden", "end.", &long, "A/../B", "", "A//B"] {
            let refused = make(BYTES_MIN, &[(name, b"")]);
            assert!(matches!(refused, Err(FatError::Name { .. })), "`{name}`");
        }
        let many: Vec<String> = (0..FOLDER_ENTRIES_MAX).map(|index| format!("F{index}")).collect();
        let many: Vec<(&str, &[u8])> = many.iter().map(|name| (name.as_str(), &b""[..])).collect();
        assert!(matches!(make(BYTES_MIN, &many), Err(FatError::NoRoom { .. })));
    }
}
