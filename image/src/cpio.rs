//! A tree as the kernel's initramfs: the `newc` form of cpio (Linux, `driver-api/early-userspace/buffer-format`).
//!
//! ```text
//!   "070701" | 13 numbers, 8 hexadecimal digits each | name, NUL, to a multiple of 4 | content, to a multiple of 4
//! ```
//!
//! Archives may stand behind each other: the kernel unpacks all of them. Everything belongs to root, and was
//! changed in 1970.

use crate::bytes::pad;
use crate::tree::{Entry, Tree};

/// Largest file: the field for its size has 32 bits.
pub const FILE_BYTES_MAX: usize = u32::MAX as usize;

const FOLDER: u32 = 0o040_000;
const FILE: u32 = 0o100_000;
const CHARACTER_DEVICE: u32 = 0o020_000;
const TRAILER: &str = "TRAILER!!!";
/// What the kernel reads at a time, and the unit in which archives are written.
const BLOCK_BYTES: usize = 512;

/// A file is larger than [`FILE_BYTES_MAX`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{path}` has {bytes} bytes; a file of an initramfs has {FILE_BYTES_MAX} at the most")]
pub struct TooLarge {
    /// Which.
    pub path: String,
    /// Its size.
    pub bytes: usize,
}

/// Returns the archive.
///
/// # Errors
/// [`TooLarge`].
pub fn encode(tree: &Tree) -> Result<Vec<u8>, TooLarge> {
    let size = tree.iter().map(|(path, entry)| 256 + path.len() + entry.content().len()).sum();
    let mut archive = Vec::with_capacity(size);
    for ((path, entry), number) in tree.iter().zip(1..) {
        let bytes = entry.content().len();
        let size = u32::try_from(bytes).map_err(|_| TooLarge { path: path.into(), bytes })?;
        let (kind, links, device) = match entry {
            Entry::Folder => (FOLDER, 2, (0, 0)),
            Entry::File(_) | Entry::Program(_) => (FILE, 1, (0, 0)),
            Entry::Device { major, minor } => (CHARACTER_DEVICE, 1, (*major, *minor)),
        };
        let mode = kind | entry.permissions();
        header(&mut archive, Header { number, mode, links, size, device }, path);
        archive.extend_from_slice(entry.content());
        pad(&mut archive, 4);
    }
    let last = Header { number: 0, mode: 0, links: 1, size: 0, device: (0, 0) };
    header(&mut archive, last, TRAILER);
    pad(&mut archive, BLOCK_BYTES);
    Ok(archive)
}

struct Header {
    number: u32,
    mode: u32,
    links: u32,
    size: u32,
    device: (u32, u32),
}

fn header(archive: &mut Vec<u8>, header: Header, name: &str) {
    let Header { number, mode, links, size, device: (major, minor) } = header;
    let name_size = u32::try_from(name.len() + 1).expect("paths are bounded: PATH_BYTES_MAX");
    // Number, mode, user, group, links, time, size, two of the disk, two of the device, name, no checksum.
    let fields = [number, mode, 0, 0, links, 0, size, 0, 0, major, minor, name_size, 0];
    archive.extend_from_slice(b"070701");
    for field in fields {
        archive.extend_from_slice(format!("{field:08x}").as_bytes());
    }
    archive.extend_from_slice(name.as_bytes());
    archive.push(0);
    pad(archive, 4);
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::process::{Command, Stdio};

    use proptest::prelude::*;

    use super::*;

    fn small() -> Tree {
        let mut tree = Tree::new();
        tree.add("init", Entry::Program(b"run".to_vec())).unwrap();
        tree.add("dev/console", Entry::Device { major: 5, minor: 1 }).unwrap();
        tree.add("etc/a", Entry::File(Vec::new())).unwrap();
        tree
    }

    #[test]
    fn the_first_header_is_what_the_kernel_reads() {
        let archive = encode(&small()).unwrap();
        // Number, folder of 0755, user, group, links, time, size.
        let expected = b"07070100000001000041ed00000000000000000000000200000000";
        assert!(archive.starts_with(expected));
        assert_eq!(archive.len() % BLOCK_BYTES, 0);
        assert_eq!(archive, encode(&small()).unwrap());
    }

    /// Unpacks by the tool; None where there is none.
    fn unpacked(archive: &[u8]) -> Option<tempfile::TempDir> {
        let folder = tempfile::tempdir().unwrap();
        let mut command = Command::new("cpio");
        command.args(["-i", "--quiet", "--no-preserve-owner"]).current_dir(folder.path());
        let mut child = command.stdin(Stdio::piped()).stderr(Stdio::piped()).spawn().ok()?;
        child.stdin.take().unwrap().write_all(archive).unwrap();
        let output = child.wait_with_output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{said}");
        Some(folder)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(16))]
        #[test]
        fn cpio_unpacks_what_went_in(
            files in prop::collection::btree_map("[a-z]{1,8}(/[a-z.]{1,3}x){0,2}", prop::collection::vec(any::<u8>(), 0..2000), 0..8)
        ) {
            let mut tree = Tree::new();
            let mut kept = Vec::new();
            for (path, content) in files {
                if tree.add(&path, Entry::File(content.clone())).is_ok() {
                    kept.push((path, content));
                }
            }
            let Some(folder) = unpacked(&encode(&tree).unwrap()) else { return Ok(()) };
            for (path, content) in kept {
                prop_assert_eq!(std::fs::read(folder.path().join(path)).unwrap(), content);
            }
        }
    }
}
