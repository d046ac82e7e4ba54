//! Files that were packed with the guest: folders, files and links, read where they lie.
//!
//! ```text
//!   head      magic | bytes in all | folders that are open from the start | nodes
//!   nodes     type | name | place | size | parent      the open folders first; those of a folder lie together,
//!             ..                                       sorted by their names
//!   names, targets of links, contents
//! ```
//!
//! The loader packs a bundle (`loader/src/files.rs`) and puts it behind this module's own memory, where nothing
//! writes: so it is part of the image, mapped from the artifact, shared by all instances, and clean.
//!
//! Behind the folders of files may stand one that is in memory (`scratch.rs`): the bundle has its path, and how many
//! bytes it may take.
//!
//! Invariant: no bytes are trusted. A bundle that contradicts itself gives [`Errno::Io`], and no read lies outside.
//! What the guest may do with it is elsewhere: `descriptors.rs` (preview 1), `filesystem.rs` (0.2).

use crate::index;
use crate::preview1::Errno;
use crate::walk::{Tree, Type, walk};

/// First bytes of a bundle.
pub const MAGIC: [u8; 4] = *b"MFB1";
/// Bytes before the nodes.
pub const HEAD_BYTES: u32 = 16;
/// Bytes of a node.
pub const NODE_BYTES: u32 = 24;
/// A node's number that says it is the folder in memory.
pub(crate) const SCRATCH: u32 = 3;
/// Seconds since 1970 that all times of all files show, the first day of 1980: the same files make the same
/// artifact, and formats that count from there can hold it.
pub const TIME_SECONDS: u64 = 315_532_800;

/// One of a bundle's folders, files or links.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Node {
    /// What it is: of a folder `at` is the first child and `size` their count, of others where the content lies, or
    /// the target, and how long it is.
    pub kind: Type,
    /// It is the folder in memory: `size` is how many bytes it may take.
    pub is_scratch: bool,
    name: [u32; 2],
    /// Where its content is, or its first child.
    pub at: u32,
    /// Bytes of its content, or how many children.
    pub size: u32,
    /// The folder that it lies in; its own index where it is open from the start.
    pub parent: u32,
}

/// A bundle; empty where there is none.
#[derive(Debug, Clone, Copy)]
pub struct Bundle<'a>(&'a [u8]);

impl<'a> Bundle<'a> {
    /// Takes bytes for a bundle. Bytes that are none are one without folders.
    #[must_use]
    pub fn new(bytes: &'a [u8]) -> Self {
        Self(if bytes.starts_with(&MAGIC) { bytes } else { &[] })
    }

    fn number(self, at: u32) -> Option<u32> {
        let bytes = self.0.get(index(at)..)?.first_chunk()?;
        Some(u32::from_le_bytes(*bytes))
    }

    fn bytes(self, at: u32, size: u32) -> Result<&'a [u8], Errno> {
        self.0.get(index(at)..).and_then(|rest| rest.get(..index(size))).ok_or(Errno::Io)
    }

    /// Returns how many folders are open from the start.
    #[must_use]
    pub fn folder_count(self) -> u32 {
        self.number(8).unwrap_or(0)
    }

    /// Returns a node.
    ///
    /// # Errors
    /// [`Errno::Io`] if the bundle does not have it.
    pub fn node(self, node: u32) -> Result<Node, Errno> {
        if node >= self.number(12).unwrap_or(0) {
            return Err(Errno::Io);
        }
        let at = node.checked_mul(NODE_BYTES).and_then(|at| at.checked_add(HEAD_BYTES));
        let numbers = at.map(|at| [0, 4, 8, 12, 16, 20].map(|offset| self.number(at + offset)));
        let Some([Some(kind), Some(name), Some(name_size), Some(at), Some(size), Some(parent)]) =
            numbers
        else {
            return Err(Errno::Io);
        };
        let is_scratch = kind == SCRATCH;
        let kind = match kind {
            0 | SCRATCH => Type::Folder,
            1 => Type::File,
            2 => Type::Link,
            _ => return Err(Errno::Io),
        };
        Ok(Node { kind, is_scratch, name: [name, name_size], at, size, parent })
    }

    /// Returns a node's name; of a folder that is open from the start the path by which the guest knows it.
    ///
    /// # Errors
    /// [`Errno::Io`].
    pub fn name(self, node: Node) -> Result<&'a [u8], Errno> {
        self.bytes(node.name[0], node.name[1])
    }

    /// Returns the content of a file, or a link's target.
    ///
    /// # Errors
    /// [`Errno::Io`] for a folder.
    pub fn content(self, node: Node) -> Result<&'a [u8], Errno> {
        if node.kind == Type::Folder {
            return Err(Errno::Io);
        }
        self.bytes(node.at, node.size)
    }

    /// Returns what is left of a file from an offset on.
    ///
    /// # Errors
    /// [`Errno::Io`].
    pub fn content_from(self, node: Node, offset: u64) -> Result<&'a [u8], Errno> {
        let content = self.content(node)?;
        let start = u32::try_from(offset).map_or(content.len(), index).min(content.len());
        Ok(&content[start..])
    }

    /// Finds where a path leads from a folder ([`walk`]).
    ///
    /// # Errors
    /// As there.
    pub fn resolve(self, base: u32, path: &'a [u8], follows: bool) -> Result<Option<u32>, Errno> {
        walk(self, base, path, follows).map(|spot| spot.found)
    }
}

impl<'a> Tree<'a> for Bundle<'a> {
    fn kind(self, node: u32) -> Result<Type, Errno> {
        self.node(node).map(|node| node.kind)
    }

    fn parent(self, folder: u32) -> Result<u32, Errno> {
        self.node(folder).map(|folder| folder.parent)
    }

    fn target(self, link: u32) -> Result<&'a [u8], Errno> {
        self.content(self.node(link)?)
    }

    /// # Cost
    /// A search among the folder's names, which are sorted.
    fn child(self, folder: u32, name: &[u8]) -> Result<Option<u32>, Errno> {
        let folder = self.node(folder)?;
        let (mut low, mut high) = (folder.at, folder.at.checked_add(folder.size).ok_or(Errno::Io)?);
        while low < high {
            let middle = low + (high - low) / 2;
            match self.name(self.node(middle)?)?.cmp(name) {
                core::cmp::Ordering::Less => low = middle + 1,
                core::cmp::Ordering::Greater => high = middle,
                core::cmp::Ordering::Equal => return Ok(Some(middle)),
            }
        }
        Ok(None)
    }
}
