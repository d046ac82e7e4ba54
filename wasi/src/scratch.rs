//! The folder in memory: what a guest writes to, from empty, for as long as its request lasts.
//!
//! ```text
//!   name  --> node | its folder | next and previous of the folder's | next of its bucket     buckets find a name
//!   node      what it is, names, who has it open, times | folder: first and last name | file: content
//! ```
//!
//! Names of a folder are kept in the order in which they came, and each has a serial number, which is the cookie that
//! goes on behind it: what is added or removed meanwhile moves none of them. A node lives as long as it has a name, or
//! is open.
//!
//! Nothing of it exists before something is written: until then the folder is a node that lies nowhere.
//!
//! Invariants: the numbers of nodes come from here, and who keeps one has opened it ([`Scratch::open`]), or uses it up
//! before anything is removed. A folder without a name is empty, and nothing is made in it.
//!
//! What is in files is in `content.rs`, what the guest may do with all of it in `nodes.rs`.

use crate::blocks::{
    BLOCK_SIZE, Blocks, CELL_SIZE, Room, number_at, record, record_mut, set_number_at,
};
use crate::index;
use crate::preview1::Errno;
use crate::walk::{NAME_BYTES_MAX, Tree, Type};

/// Most names: files, folders and links, and further names of files. A cell or two each, so that a hostile guest's
/// are some megabytes.
pub const NAMES_MAX: u32 = 65_536;
/// The least that a folder may take: some blocks of names and of content.
pub const SCRATCH_BYTES_MIN: u32 = 64 << 10;
/// The most that a folder may take: what others give to a function's `/tmp`, and half of what a pool's memory holds.
pub const SCRATCH_BYTES_MAX: u32 = 512 << 20;
/// How deep folders lie in one another at the most.
pub const DEPTH_MAX: u32 = 1024;
/// Numbers of nodes begin here; those of the bundle are below.
pub const FIRST: u32 = 1 << 31;
/// The folder itself: the first record that is taken, of the first block.
pub const ROOT: u32 = FIRST + crate::blocks::CELLS;
/// Lists that names are found by.
const BUCKETS: usize = 512;
/// Cells of a node.
const NODE_CELLS: u32 = 2;
/// Bytes of a name's record before the name.
const NAME_AT: usize = 32;

/// What is kept of the folder beside its blocks. All zero is one that nothing was written to.
#[derive(Debug)]
pub struct Head {
    pub(crate) room: Room,
    is_made: bool,
    pub(crate) names: u32,
    serial: u32,
    buckets: [u32; BUCKETS],
}

impl Head {
    /// Returns one that nothing was written to.
    #[must_use]
    pub const fn new() -> Self {
        Self { room: Room::new(), is_made: false, names: 0, serial: 0, buckets: [0; BUCKETS] }
    }

    /// True if something was written.
    #[must_use]
    pub const fn is_made(&self) -> bool {
        self.is_made
    }

    /// Forgets all of it.
    pub const fn clear(&mut self) {
        self.is_made = false;
    }
}

impl Default for Head {
    fn default() -> Self {
        Self::new()
    }
}

/// A file, a folder or a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Node {
    /// What it is.
    pub kind: Type,
    /// How many numbers of blocks lie above one of its content.
    pub(crate) levels: u8,
    /// Names that it has; of a folder also itself and its folders, by their `.` and `..`.
    pub links: u32,
    /// How often it is open.
    opens: u32,
    /// No other node has it, of those that were ever made.
    pub serial: u32,
    /// Grows with each change.
    pub version: u32,
    /// Bytes of its content; of a folder, how many names.
    pub size: u32,
    /// The block of its content, or of the numbers of others; a folder's first name.
    pub(crate) first: u32,
    /// A folder's last name.
    last: u32,
    /// The folder that a folder lies in, and its name there.
    pub parent: u32,
    row: u32,
    /// Times since 1970 in nanoseconds: read, written, changed. Reading a file does not move the first.
    pub times: [u64; 3],
}

impl Node {
    /// The folder as long as nothing is in it.
    const UNMADE: Self = Self {
        kind: Type::Folder,
        levels: 0,
        links: 2,
        opens: 0,
        serial: 1,
        version: 0,
        size: 0,
        first: 0,
        last: 0,
        parent: ROOT,
        row: 0,
        times: [crate::bundle::TIME_SECONDS * 1_000_000_000; 3],
    };

    fn read(bytes: &[u8]) -> Self {
        let number = |at| number_at(bytes, at);
        let time = |at| u64::from(number(at)) | u64::from(number(at + 4)) << 32;
        let kind = match bytes[0] {
            0 => Type::Folder,
            1 => Type::File,
            _ => Type::Link,
        };
        Self {
            kind,
            levels: bytes[1],
            links: number(4),
            opens: number(8),
            serial: number(12),
            version: number(16),
            size: number(20),
            first: number(24),
            last: number(28),
            parent: number(32),
            row: number(36),
            times: [time(40), time(48), time(56)],
        }
    }

    fn write(&self, bytes: &mut [u8]) {
        let kind = match self.kind {
            Type::Folder => 0,
            Type::File => 1,
            Type::Link => 2,
        };
        bytes[..4].copy_from_slice(&[kind, self.levels, 0, 0]);
        let numbers = [
            self.links,
            self.opens,
            self.serial,
            self.version,
            self.size,
            self.first,
            self.last,
            self.parent,
            self.row,
        ];
        for (place, number) in bytes[4..40].chunks_exact_mut(4).zip(numbers) {
            place.copy_from_slice(&number.to_le_bytes());
        }
        for (place, time) in bytes[40..64].chunks_exact_mut(8).zip(self.times) {
            place.copy_from_slice(&time.to_le_bytes());
        }
    }

    /// Notes that it was written to.
    pub(crate) fn touch(&mut self, now: u64) {
        self.version = self.version.wrapping_add(1);
        (self.times[1], self.times[2]) = (now, now);
    }
}

/// A name, by itself.
#[derive(Debug, Clone, Copy)]
pub struct Name {
    bytes: [u8; NAME_BYTES_MAX],
    size: u8,
}

impl Name {
    /// Keeps a name.
    ///
    /// # Panics
    /// If it is longer than [`NAME_BYTES_MAX`]: `walk` returns none that is.
    #[must_use]
    pub fn new(name: &[u8]) -> Self {
        let mut kept = Self { bytes: [0; NAME_BYTES_MAX], size: 0 };
        kept.bytes[..name.len()].copy_from_slice(name);
        kept.size = u8::try_from(name.len()).expect("at most NAME_BYTES_MAX");
        kept
    }

    /// Returns it.
    #[must_use]
    pub fn get(&self) -> &[u8] {
        &self.bytes[..usize::from(self.size)]
    }
}

/// What a folder's list tells of one of its names.
#[derive(Debug, Clone, Copy)]
pub struct Listed {
    /// The name.
    pub name: Name,
    /// Its node.
    pub node: u32,
    /// The cookie that goes on behind it.
    pub next: u32,
}

/// A record of a name's.
#[derive(Debug, Clone, Copy)]
struct Row {
    node: u32,
    folder: u32,
    hash: u32,
    /// The next of its bucket.
    chain: u32,
    next: u32,
    previous: u32,
    serial: u32,
    size: u8,
}

impl Row {
    const fn cells(size: u8) -> u32 {
        1 + (size as u32).div_ceil(CELL_SIZE)
    }
}

/// The folder, to be looked at.
#[derive(Debug)]
pub struct View<'a, B> {
    pub(crate) head: &'a Head,
    pub(crate) blocks: &'a B,
}

impl<B> Clone for View<'_, B> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<B> Copy for View<'_, B> {}

impl<'a, B: Blocks> View<'a, B> {
    /// Returns a node.
    #[must_use]
    pub fn node(self, node: u32) -> Node {
        if node == ROOT && !self.head.is_made {
            return Node::UNMADE;
        }
        Node::read(record(self.blocks, node - FIRST, NODE_CELLS))
    }

    fn row(self, row: u32) -> Row {
        let bytes = record(self.blocks, row, 1);
        let number = |place: usize| number_at(bytes, place * 4);
        Row {
            node: number(0),
            folder: number(1),
            hash: number(2),
            chain: number(3),
            next: number(4),
            previous: number(5),
            serial: number(6),
            size: bytes[28],
        }
    }

    fn name(self, row: u32, size: u8) -> &'a [u8] {
        let bytes = record(self.blocks, row, Row::cells(size));
        &bytes[NAME_AT..NAME_AT + usize::from(size)]
    }

    fn find(self, folder: u32, name: &[u8]) -> Option<u32> {
        if !self.head.is_made {
            return None;
        }
        let hash = hash(folder, name);
        let mut open = self.head.buckets[bucket(hash)];
        // As many as there are names.
        while open != 0 {
            let row = self.row(open);
            if row.hash == hash && row.folder == folder && self.name(open, row.size) == name {
                return Some(open);
            }
            open = row.chain;
        }
        None
    }

    /// Returns the first of a folder's names that a cookie leaves.
    ///
    /// # Cost
    /// Linear in the names before it.
    #[must_use]
    pub fn listed(self, folder: u32, cookie: u32) -> Option<Listed> {
        let mut open = self.node(folder).first;
        while open != 0 {
            let row = self.row(open);
            if cookie <= row.serial {
                let name = Name::new(self.name(open, row.size));
                return Some(Listed { name, node: row.node, next: row.serial + 1 });
            }
            open = row.next;
        }
        None
    }

    /// Returns how many folders a folder lies in; `None` if it is `avoided`, or one of them is.
    fn depth(self, folder: u32, avoided: u32) -> Option<u32> {
        let (mut depth, mut open) = (0, folder);
        while open != avoided {
            let parent = self.node(open).parent;
            if parent == open {
                return Some(depth);
            }
            depth += 1;
            open = parent;
        }
        None
    }

    /// Returns how many folders lie in one another below a folder.
    ///
    /// # Cost
    /// Linear in the names below it.
    fn height(self, folder: u32) -> u32 {
        let (mut deepest, mut depth) = (0, 0);
        let (mut folder, mut row) = (folder, self.node(folder).first);
        loop {
            if row == 0 {
                if depth == 0 {
                    return deepest;
                }
                depth -= 1;
                let Node { parent, row: own, .. } = self.node(folder);
                (folder, row) = (parent, self.row(own).next);
                continue;
            }
            let Row { node, next, .. } = self.row(row);
            let Node { kind, first, .. } = self.node(node);
            if kind != Type::Folder {
                row = next;
                continue;
            }
            depth += 1;
            deepest = deepest.max(depth);
            (folder, row) = (node, first);
        }
    }
}

impl<'a, B: Blocks> Tree<'a> for View<'a, B> {
    fn kind(self, node: u32) -> Result<Type, Errno> {
        Ok(self.node(node).kind)
    }

    fn parent(self, folder: u32) -> Result<u32, Errno> {
        Ok(self.node(folder).parent)
    }

    /// # Cost
    /// A list of all names over [`BUCKETS`].
    fn child(self, folder: u32, name: &[u8]) -> Result<Option<u32>, Errno> {
        Ok(self.find(folder, name).map(|row| self.row(row).node))
    }

    fn target(self, link: u32) -> Result<&'a [u8], Errno> {
        let node = self.node(link);
        self.blocks.block(node.first).get(..index(node.size)).ok_or(Errno::Io)
    }
}

/// The folder, to be changed.
#[derive(Debug)]
pub struct Scratch<'a, B> {
    pub(crate) head: &'a mut Head,
    pub(crate) blocks: &'a mut B,
    /// The time of what is done.
    pub now: u64,
}

impl<B: Blocks> Scratch<'_, B> {
    /// Returns it to be looked at.
    #[must_use]
    pub fn view(&self) -> View<'_, B> {
        View { head: self.head, blocks: self.blocks }
    }

    /// Makes the folder itself, unless it is there, with so many bytes at the most.
    ///
    /// # Errors
    /// [`Errno::NoSpace`].
    pub fn begin(&mut self, bytes: u32) -> Result<(), Errno> {
        if self.head.is_made {
            return Ok(());
        }
        self.head.room.begin(bytes / BLOCK_SIZE);
        let first = self.head.room.take_record(self.blocks, NODE_CELLS)?;
        assert!(first == ROOT - FIRST, "the first record of all");
        (self.head.names, self.head.serial) = (0, 1);
        self.head.buckets = [0; BUCKETS];
        self.head.is_made = true;
        self.store(ROOT, &Node { times: [self.now; 3], ..Node::UNMADE });
        Ok(())
    }

    pub(crate) fn store(&mut self, node: u32, value: &Node) {
        value.write(record_mut(self.blocks, node - FIRST, NODE_CELLS));
    }

    pub(crate) fn change(&mut self, node: u32, action: impl FnOnce(&mut Node)) {
        let mut value = self.view().node(node);
        action(&mut value);
        self.store(node, &value);
    }

    fn set_number(&mut self, row: u32, place: usize, number: u32) {
        set_number_at(record_mut(self.blocks, row, 1), place * 4, number);
    }

    fn next_serial(&mut self) -> Result<u32, Errno> {
        // One less than all, for the cookie behind it.
        let next = self.head.serial.checked_add(1).filter(|&next| next < u32::MAX);
        self.head.serial = next.ok_or(Errno::NoSpace)?;
        Ok(self.head.serial)
    }

    /// Makes a node with a name, which its folder does not have. Returns it.
    ///
    /// # Errors
    /// [`Errno::NoSpace`], also where a limit is reached; [`Errno::NoEntry`] in a folder that was removed.
    pub fn make(&mut self, folder: u32, name: &Name, kind: Type) -> Result<u32, Errno> {
        // No folder has the number 0.
        let is_deep = || self.view().depth(folder, 0).is_some_and(|depth| depth >= DEPTH_MAX);
        if kind == Type::Folder && is_deep() {
            return Err(Errno::NoSpace);
        }
        let node = FIRST + self.head.room.take_record(self.blocks, NODE_CELLS)?;
        let made = self.next_serial().and_then(|serial| {
            let links = if kind == Type::Folder { 1 } else { 0 };
            let times = [self.now; 3];
            let value = Node { kind, links, serial, parent: folder, times, ..Node::UNMADE };
            self.store(node, &value);
            self.add_name(folder, name, node)
        });
        if let Err(errno) = made {
            self.head.room.give_record(self.blocks, node - FIRST, NODE_CELLS);
            return Err(errno);
        }
        Ok(node)
    }

    /// Gives a file or a link another name, which its folder does not have; a new folder its first.
    ///
    /// # Errors
    /// As [`Scratch::make`].
    pub fn add_name(&mut self, folder: u32, name: &Name, node: u32) -> Result<(), Errno> {
        if self.view().node(folder).links == 0 {
            return Err(Errno::NoEntry);
        }
        if self.head.names == NAMES_MAX {
            return Err(Errno::NoSpace);
        }
        let serial = self.next_serial()?;
        let at = self.head.room.take_record(self.blocks, Row::cells(name.size))?;
        self.head.names += 1;
        let hash = hash(folder, name.get());
        let chain = core::mem::replace(&mut self.head.buckets[bucket(hash)], at);
        let previous = self.view().node(folder).last;
        let numbers = [node, folder, hash, chain, 0, previous, serial, u32::from(name.size)];
        let bytes = record_mut(self.blocks, at, Row::cells(name.size));
        for (place, number) in bytes.chunks_exact_mut(4).zip(numbers) {
            place.copy_from_slice(&number.to_le_bytes());
        }
        bytes[NAME_AT..NAME_AT + name.get().len()].copy_from_slice(name.get());
        if previous != 0 {
            self.set_number(previous, 4, at);
        }
        let (now, is_folder) = (self.now, self.view().node(node).kind == Type::Folder);
        self.change(folder, |folder| {
            if previous == 0 {
                folder.first = at;
            }
            folder.last = at;
            folder.size += 1;
            folder.links += u32::from(is_folder);
            folder.touch(now);
        });
        self.change(node, |node| {
            node.links += 1;
            node.times[2] = now;
            if is_folder {
                (node.parent, node.row) = (folder, at);
            }
        });
        Ok(())
    }

    /// Takes a name away, which its folder has.
    fn remove_name(&mut self, at: u32) {
        let row = self.view().row(at);
        let mut before = 0;
        let mut open = self.head.buckets[bucket(row.hash)];
        while open != at {
            (before, open) = (open, self.view().row(open).chain);
        }
        if before == 0 {
            self.head.buckets[bucket(row.hash)] = row.chain;
        } else {
            self.set_number(before, 3, row.chain);
        }
        if row.previous != 0 {
            self.set_number(row.previous, 4, row.next);
        }
        if row.next != 0 {
            self.set_number(row.next, 5, row.previous);
        }
        let (now, is_folder) = (self.now, self.view().node(row.node).kind == Type::Folder);
        self.change(row.folder, |folder| {
            if folder.first == at {
                folder.first = row.next;
            }
            if folder.last == at {
                folder.last = row.previous;
            }
            folder.size -= 1;
            folder.links -= u32::from(is_folder);
            folder.touch(now);
        });
        self.change(row.node, |node| {
            node.links -= 1;
            node.times[2] = now;
        });
        self.head.names -= 1;
        self.head.room.give_record(self.blocks, at, Row::cells(row.size));
    }

    /// Takes a name away, and what had it if that is left without a name and is not open.
    fn remove(&mut self, at: u32) {
        let node = self.view().row(at).node;
        self.remove_name(at);
        self.change(node, |value| {
            if value.kind == Type::Folder {
                // Its `.`; and nothing is above it any more.
                (value.links, value.parent) = (0, node);
            }
        });
        self.free_unused(node);
    }

    /// Removes a file or a link by its name.
    ///
    /// # Errors
    /// [`Errno::NoEntry`], or [`Errno::IsFolder`].
    pub fn unlink(&mut self, folder: u32, name: &Name) -> Result<(), Errno> {
        let at = self.view().find(folder, name.get()).ok_or(Errno::NoEntry)?;
        let node = self.view().row(at).node;
        if self.view().node(node).kind == Type::Folder {
            return Err(Errno::IsFolder);
        }
        self.remove(at);
        Ok(())
    }

    /// Removes a folder by its name.
    ///
    /// # Errors
    /// [`Errno::NoEntry`], [`Errno::NotFolder`], or [`Errno::NotEmpty`].
    pub fn remove_folder(&mut self, folder: u32, name: &Name) -> Result<(), Errno> {
        let at = self.view().find(folder, name.get()).ok_or(Errno::NoEntry)?;
        let node = self.view().node(self.view().row(at).node);
        if node.kind != Type::Folder {
            return Err(Errno::NotFolder);
        }
        if node.size > 0 {
            return Err(Errno::NotEmpty);
        }
        self.remove(at);
        Ok(())
    }

    /// Gives what a name leads to another name, in place of what had that, as `rename` of POSIX does.
    ///
    /// # Errors
    /// Those of `rename`; nothing is changed then.
    pub fn rename(&mut self, from: (u32, &Name), to: (u32, &Name)) -> Result<(), Errno> {
        let at = self.view().find(from.0, from.1.get()).ok_or(Errno::NoEntry)?;
        let node = self.view().row(at).node;
        let is_folder = self.view().node(node).kind == Type::Folder;
        if is_folder {
            let view = self.view();
            let depth = view.depth(to.0, node).ok_or(Errno::Invalid)?;
            if from.0 != to.0 && depth + 1 + view.height(node) > DEPTH_MAX {
                return Err(Errno::NoSpace);
            }
        }
        let old = self.view().find(to.0, to.1.get());
        let replaced = old.map(|old| self.view().row(old).node);
        if replaced == Some(node) {
            return Ok(());
        }
        match replaced.map(|replaced| self.view().node(replaced)) {
            Some(old) if is_folder && old.kind != Type::Folder => return Err(Errno::NotFolder),
            Some(old) if is_folder && old.size > 0 => return Err(Errno::NotEmpty),
            Some(old) if !is_folder && old.kind == Type::Folder => return Err(Errno::IsFolder),
            _ => {}
        }
        // The new name first: where there is no room for it the old ones are as they were. For a moment the name that
        // is replaced is there twice, and the older is known by where it is.
        self.add_name(to.0, to.1, node)?;
        self.remove_name(at);
        if let Some(old) = old {
            self.remove(old);
        }
        Ok(())
    }

    /// Opens a node: it lives until it is closed.
    pub fn open(&mut self, node: u32) {
        if self.head.is_made {
            self.change(node, |node| node.opens += 1);
        }
    }

    /// Closes a node.
    pub fn close(&mut self, node: u32) {
        if self.head.is_made && self.view().node(node).opens > 0 {
            self.change(node, |node| node.opens -= 1);
            self.free_unused(node);
        }
    }

    fn free_unused(&mut self, node: u32) {
        let Node { links, opens, .. } = self.view().node(node);
        if links == 0 && opens == 0 {
            self.empty(node);
            self.head.room.give_record(self.blocks, node - FIRST, NODE_CELLS);
        }
    }
}

fn hash(folder: u32, name: &[u8]) -> u32 {
    // FNV-1a. A guest that makes names collide slows itself down.
    let folder = folder.to_le_bytes();
    let bytes = folder.iter().chain(name);
    bytes.fold(0x811C_9DC5, |hash, &byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193))
}

const fn bucket(hash: u32) -> usize {
    index(hash ^ hash >> 16) % BUCKETS
}

const _: () = assert!(
    NAME_AT + NAME_BYTES_MAX <= crate::blocks::RECORD_CELLS_MAX * crate::blocks::CELL_BYTES
);
