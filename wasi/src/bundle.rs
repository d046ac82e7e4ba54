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
//! A path is resolved as the kernel does beneath a folder (`openat2` with `RESOLVE_BENEATH`): part by part, links
//! where they stand, and nothing leads above the folder that the caller holds.
//!
//! Invariant: no bytes are trusted. A bundle that contradicts itself gives [`Errno::Io`], and no read lies outside.
//! What the guest may do with it is elsewhere: `descriptors.rs` (preview 1), `filesystem.rs` (0.2).

use crate::preview1::Errno;
use crate::{index, wire};

/// First bytes of a bundle.
pub const MAGIC: [u8; 4] = *b"MFB1";
/// Bytes before the nodes.
pub const HEAD_BYTES: u32 = 16;
/// Bytes of a node.
pub const NODE_BYTES: u32 = 24;
/// Longest path, as Linux has it: with the zero behind it, 4096.
pub const PATH_BYTES_MAX: u32 = 4095;
/// Longest part of a path.
pub const NAME_BYTES_MAX: usize = 255;
/// Most links on the way of one path.
pub const LINKS_MAX: usize = 40;
/// Seconds since 1970 that all times of all files show, the first day of 1980: the same files make the same
/// artifact, and formats that count from there can hold it.
pub const TIME_SECONDS: u64 = 315_532_800;

/// What a node is, by its number in the bundle.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Type {
    /// A folder: `at` is its first child, `size` their count.
    Folder,
    /// A file: `at` is where its content lies, `size` how long it is.
    File,
    /// A link: as a file, of its target.
    Link,
}

/// One of a bundle's folders, files or links.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Node {
    /// What it is.
    pub kind: Type,
    name: [u32; 2],
    /// Where its content is, or its first child.
    pub at: u32,
    /// Bytes of its content, or how many children.
    pub size: u32,
    /// The folder that it lies in; its own index where it is open from the start.
    pub parent: u32,
}

/// Where a path leads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Found {
    /// To a node.
    Node(u32),
    /// To a name that its folder does not have.
    Absent,
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
        let kind = match kind {
            0 => Type::Folder,
            1 => Type::File,
            2 => Type::Link,
            _ => return Err(Errno::Io),
        };
        Ok(Node { kind, name: [name, name_size], at, size, parent })
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

    /// Finds a folder's child.
    fn child(self, folder: Node, name: &[u8]) -> Result<Option<u32>, Errno> {
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

    /// Finds where a path leads from a folder. A link in its last part is followed if that is asked for.
    ///
    /// # Errors
    /// Those that the kernel gives, and [`Errno::NotPermitted`] for a path that would leave the folder.
    ///
    /// # Cost
    /// Per part, a search among the folder's names.
    pub fn resolve(self, base: u32, path: &[u8], follows: bool) -> Result<Found, Errno> {
        if wire(path.len()) > PATH_BYTES_MAX {
            return Err(Errno::NameTooLong);
        }
        if path.contains(&0) {
            return Err(Errno::Invalid);
        }
        match path.first() {
            None => return Err(Errno::NoEntry),
            Some(b'/') => return Err(Errno::NotPermitted),
            _ => {}
        }
        // What is still to be walked: the path, and in front of it what is left of the links on the way.
        let mut open: [&[u8]; LINKS_MAX + 1] = [&[]; LINKS_MAX + 1];
        let (mut depth, mut links) = (1usize, 0);
        open[0] = path;
        let mut current = base;
        while let Some(last) = depth.checked_sub(1) {
            let text = open[last];
            let rest = &text[text.iter().take_while(|&&byte| byte == b'/').count()..];
            let size = rest.iter().position(|&byte| byte == b'/').unwrap_or(rest.len());
            let (part, rest) = rest.split_at(size);
            let folder = self.node(current)?;
            if folder.kind != Type::Folder {
                return Err(Errno::NotFolder);
            }
            open[last] = rest;
            if rest.is_empty() {
                depth = last;
            }
            match part {
                b"" | b"." => continue,
                b".." if current == base => return Err(Errno::NotPermitted),
                b".." => {
                    current = folder.parent;
                    continue;
                }
                _ if part.len() > NAME_BYTES_MAX => return Err(Errno::NameTooLong),
                _ => {}
            }
            let is_last = open[..depth].iter().all(|rest| rest.iter().all(|&byte| byte == b'/'));
            let Some(child) = self.child(folder, part)? else {
                return if is_last { Ok(Found::Absent) } else { Err(Errno::NoEntry) };
            };
            let node = self.node(child)?;
            // Behind a link there is something, if only a slash: then it is followed in any case.
            if node.kind != Type::Link || (depth == 0 && !follows) {
                current = child;
                continue;
            }
            links += 1;
            let target = self.content(node)?;
            if links > LINKS_MAX || depth == open.len() {
                return Err(Errno::Loop);
            }
            if target.is_empty() {
                return Err(Errno::NoEntry);
            }
            if target.first() == Some(&b'/') {
                return Err(Errno::NotPermitted);
            }
            open[depth] = target;
            depth += 1;
        }
        Ok(Found::Node(current))
    }
}
