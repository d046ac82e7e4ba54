//! `wasi:filesystem` 0.2: the bundle's folders and files as descriptors of the component model.
//!
//! A descriptor is a handle on a node and has no place of its own: each read names its offset. The errors are those
//! of preview 1 under other names, for both look through the same bundle; what would write answers `read-only`.

use crate::bundle::{Found, NAME_BYTES_MAX, TIME_SECONDS, Type};
use crate::descriptors::{Needs, bytes_of, inode};
use crate::handles::{Entry, Kind};
use crate::io::READ_BYTES_MAX;
use crate::preview1::Errno;
use crate::{Wasi, World, index, wire};

const DESCRIPTOR: &[Kind] = &[Kind::Descriptor];
const ENTRIES: &[Kind] = &[Kind::Entries];
const FILE: &[Kind] = &[Kind::File];
/// `descriptor-flags`: `read`; it is what every descriptor here is open for.
const FLAG_READ: u8 = 1;
/// `descriptor-flags`: `write`. A folder that may be changed is asked for by guests that only look into it.
const FLAG_WRITE: u32 = 2;
/// `descriptor-flags` about syncing.
const FLAGS_SYNC: u32 = 4 | 8 | 16;
/// `path-flags`: `symlink-follow`.
const FOLLOW: u32 = 1;

/// A path in a folder, as the guest names both.
#[derive(Debug, Clone, Copy)]
pub struct At {
    /// The folder's handle.
    pub this: u32,
    /// The path's address and length.
    pub path: [u32; 2],
}

/// How `open-at` is to open.
#[derive(Debug, Clone, Copy)]
pub struct OpenFlags {
    /// `path-flags`
    pub path: u32,
    /// `open-flags`
    pub open: u32,
    /// `descriptor-flags`
    pub descriptor: u32,
}

impl<W: World> Wasi<'_, W> {
    /// `wasi:filesystem/preopens` `get-directories`
    pub fn directories(&mut self, target: u32) {
        self.place_for(target, 8, 4);
        let bundle = self.bundle();
        let count = bundle.folder_count();
        let Some(size) = count.checked_mul(12) else { self.trap("wasi: the bundle is broken") };
        let list = self.allocate(size, 4);
        for (node, row) in (0..count).zip((list..).step_by(12)) {
            let name = bundle.node(node).and_then(|node| bundle.name(node));
            let Ok(name) = name else { self.trap("wasi: the bundle is broken") };
            let handle = self.push(Entry { kind: Kind::Descriptor, a: node, ..Entry::default() });
            self.world.write_u32(row, handle);
            self.lower(row + 4, name);
        }
        self.world.write_u32(target, list);
        self.world.write_u32(target + 4, count);
    }

    fn node_of(&mut self, this: u32) -> u32 {
        self.get(this, DESCRIPTOR).a
    }

    fn kind_of(&mut self, node: u32) -> Result<Type, Errno> {
        self.bundle().node(node).map(|node| node.kind)
    }

    fn needs(&mut self, node: u32, kind: Type, otherwise: Errno) -> Result<u32, Errno> {
        if self.kind_of(node)? == kind { Ok(node) } else { Err(otherwise) }
    }

    /// Finds the folder that a path begins in.
    fn base(&mut self, this: u32) -> Result<u32, Errno> {
        let node = self.node_of(this);
        self.needs(node, Type::Folder, Errno::NotFolder)
    }

    fn node_at(&mut self, at: At, path_flags: u32) -> Result<u32, Errno> {
        let base = self.base(at.this)?;
        let path = self.lift_path_02(at.path)?;
        match self.find_path(base, path, path_flags & FOLLOW != 0)? {
            Found::Node(node) => Ok(node),
            Found::Absent => Err(Errno::NoEntry),
        }
    }

    /// Lifts a path as a string of the component model: one that is not UTF-8 breaks its rules.
    fn lift_path_02(&mut self, path: [u32; 2]) -> Result<crate::own::Span, Errno> {
        match self.lift_path(path) {
            Err(Errno::IllegalBytes) => self.trap("wasi: string is not UTF-8"),
            lifted => lifted,
        }
    }

    /// Lowers the tag of a result, and its error; `offset` is where the payload lies.
    fn told_02<T>(&mut self, target: u32, offset: u32, result: Result<T, Errno>) -> Option<T> {
        match result {
            Ok(value) => {
                self.world.write_u8(target, 0);
                Some(value)
            }
            Err(errno) => {
                self.world.write_u8(target, 1);
                self.world.write_u8(target + offset, error_code(errno));
                None
            }
        }
    }

    fn told_nothing(&mut self, target: u32, result: Result<(), Errno>) {
        self.place_for(target, 2, 1);
        self.told_02(target, 1, result);
    }

    fn told_byte(&mut self, target: u32, result: Result<u8, Errno>) {
        self.place_for(target, 2, 1);
        if let Some(value) = self.told_02(target, 1, result) {
            self.world.write_u8(target + 1, value);
        }
    }

    fn told_handle(&mut self, target: u32, result: Result<Entry, Errno>) {
        self.place_for(target, 8, 4);
        if let Some(entry) = self.told_02(target, 4, result) {
            let handle = self.push(entry);
            self.world.write_u32(target + 4, handle);
        }
    }

    /// `[method]descriptor.read-via-stream`
    pub fn read_via_stream(&mut self, this: u32, offset: u64, target: u32) {
        let node = self.node_of(this);
        let entry = self.needs(node, Type::File, Errno::IsFolder).map(|node| {
            // What lies behind a file of 4 GiB at the most ends it all the same.
            let offset = u32::try_from(offset).unwrap_or(u32::MAX);
            Entry { kind: Kind::File, a: node, b: offset, ..Entry::default() }
        });
        self.told_handle(target, entry);
    }

    /// `[method]descriptor.write-via-stream` and `append-via-stream`
    pub fn write_via_stream(&mut self, this: u32, target: u32) {
        let refused = self.refuse_write(this);
        self.told_handle(target, Err(refused));
    }

    /// `[method]descriptor.write`
    pub fn descriptor_write(&mut self, this: u32, buffer: [u32; 2], target: u32) {
        self.place_for(buffer[0], buffer[1], 1);
        self.place_for(target, 16, 8);
        let refused = self.refuse_write(this);
        self.told_02::<()>(target, 8, Err(refused));
    }

    /// `[method]descriptor.set-size`
    pub fn descriptor_set_size(&mut self, this: u32, target: u32) {
        let refused = self.refuse_write(this);
        self.told_nothing(target, Err(refused));
    }

    /// `[method]descriptor.set-times`
    pub fn descriptor_set_times(&mut self, this: u32, target: u32) {
        self.node_of(this);
        self.told_nothing(target, Err(Errno::ReadOnly));
    }

    fn refuse_write(&mut self, this: u32) -> Errno {
        let node = self.node_of(this);
        self.needs(node, Type::File, Errno::BadFd).err().unwrap_or(Errno::ReadOnly)
    }

    /// `[method]descriptor.advise`
    pub fn descriptor_advise(&mut self, this: u32, target: u32) {
        let node = self.node_of(this);
        let known = self.needs(node, Type::File, Errno::BadFd).map(drop);
        self.told_nothing(target, known);
    }

    /// `[method]descriptor.sync` and `sync-data`
    pub fn descriptor_sync(&mut self, this: u32, target: u32) {
        self.node_of(this);
        self.told_nothing(target, Ok(()));
    }

    /// `[method]descriptor.get-flags`
    pub fn descriptor_flags(&mut self, this: u32, target: u32) {
        self.node_of(this);
        self.told_byte(target, Ok(FLAG_READ));
    }

    /// `[method]descriptor.get-type`
    pub fn descriptor_type(&mut self, this: u32, target: u32) {
        let node = self.node_of(this);
        let kind = self.kind_of(node).map(descriptor_type);
        self.told_byte(target, kind);
    }

    /// `[method]descriptor.read`
    pub fn descriptor_read(&mut self, this: u32, size: u64, offset: u64, target: u32) {
        let node = self.node_of(this);
        self.place_for(target, 16, 4);
        let bundle = self.bundle();
        let content = self.needs(node, Type::File, Errno::BadFd).and_then(|node| {
            if i64::try_from(offset).is_err() {
                return Err(Errno::Invalid);
            }
            bundle.content_from(bundle.node(node)?, offset)
        });
        if let Some(content) = self.told_02(target, 4, content) {
            let piece = &content[..content.len().min(piece_size(size))];
            self.lower(target + 4, piece);
            self.world.write_u8(target + 12, u8::from(piece.is_empty()));
        }
    }

    /// `[method]descriptor.read-directory`
    pub fn read_directory(&mut self, this: u32, target: u32) {
        let node = self.base(this);
        let entry = node.map(|a| Entry { kind: Kind::Entries, a, ..Entry::default() });
        self.told_handle(target, entry);
    }

    /// `[method]directory-entry-stream.read-directory-entry`
    pub fn read_directory_entry(&mut self, this: u32, target: u32) {
        let Entry { a, b, .. } = *self.get(this, ENTRIES);
        self.place_for(target, 20, 4);
        let bundle = self.bundle();
        let entry = bundle.node(a).and_then(|folder| {
            if b >= folder.size {
                return Ok(None);
            }
            let child = bundle.node(folder.at.saturating_add(b))?;
            Ok(Some((child.kind, bundle.name(child)?)))
        });
        let Some(entry) = self.told_02(target, 4, entry) else { return };
        self.world.write_u8(target + 4, u8::from(entry.is_some()));
        if let Some((kind, name)) = entry {
            self.get(this, ENTRIES).b += 1;
            self.world.write_u8(target + 8, descriptor_type(kind));
            self.lower(target + 12, &name[..name.len().min(NAME_BYTES_MAX)]);
        }
    }

    /// `[method]descriptor.stat`
    pub fn descriptor_stat(&mut self, this: u32, target: u32) {
        let node = self.node_of(this);
        self.lower_stat(Ok(node), target);
    }

    /// `[method]descriptor.stat-at`
    pub fn stat_at(&mut self, at: At, path_flags: u32, target: u32) {
        let node = self.node_at(at, path_flags);
        self.lower_stat(node, target);
    }

    fn lower_stat(&mut self, node: Result<u32, Errno>, target: u32) {
        self.place_for(target, 104, 8);
        let bundle = self.bundle();
        let facts = node.and_then(|node| bundle.node(node));
        let Some(facts) = self.told_02(target, 8, facts) else { return };
        self.world.write_u8(target + 8, descriptor_type(facts.kind));
        self.world.write_u64(target + 16, 1);
        self.world.write_u64(target + 24, bytes_of(facts));
        for time in [32, 56, 80] {
            self.world.write_u8(target + time, 1);
            self.world.write_u64(target + time + 8, TIME_SECONDS);
            self.world.write_u32(target + time + 16, 0);
        }
    }

    /// `[method]descriptor.metadata-hash`
    pub fn metadata_hash(&mut self, this: u32, target: u32) {
        let node = self.node_of(this);
        self.lower_hash(Ok(node), target);
    }

    /// `[method]descriptor.metadata-hash-at`
    pub fn metadata_hash_at(&mut self, at: At, path_flags: u32, target: u32) {
        let node = self.node_at(at, path_flags);
        self.lower_hash(node, target);
    }

    /// A bundle never changes, so which node it is says all that the hash is to tell.
    fn lower_hash(&mut self, node: Result<u32, Errno>, target: u32) {
        self.place_for(target, 24, 8);
        if let Some(node) = self.told_02(target, 8, node) {
            self.world.write_u64(target + 8, inode(node));
            self.world.write_u64(target + 16, 0);
        }
    }

    /// `[method]descriptor.is-same-object`
    pub fn is_same_object(&mut self, this: u32, other: u32) -> u32 {
        u32::from(self.node_of(this) == self.node_of(other))
    }

    /// `[method]descriptor.open-at`
    pub fn open_at(&mut self, at: At, flags: OpenFlags, target: u32) {
        let node = self.base(at.this).and_then(|base| {
            let path = self.lift_path_02(at.path)?;
            if flags.descriptor & FLAGS_SYNC != 0 {
                return Err(Errno::NotSupported);
            }
            let is_written = flags.descriptor & FLAG_WRITE != 0;
            self.open_node(base, path, flags.path & FOLLOW != 0, flags.open, is_written)
        });
        let entry = node.map(|a| Entry { kind: Kind::Descriptor, a, ..Entry::default() });
        self.told_handle(target, entry);
    }

    /// `[method]descriptor.readlink-at`
    pub fn readlink_at(&mut self, at: At, target: u32) {
        self.place_for(target, 12, 4);
        let text = self.node_at(at, 0).and_then(|node| self.link_target(node));
        if let Some(text) = self.told_02(target, 4, text) {
            self.lower(target + 4, text);
        }
    }

    /// `[method]descriptor.create-directory-at`, and `symlink-at` by its second path
    pub fn make_at(&mut self, at: At, target: u32) {
        let refused = self.base(at.this).and_then(|base| {
            let path = self.lift_path_02(at.path)?;
            self.refuse_new(base, path)
        });
        self.told_nothing(target, refused);
    }

    /// `[method]descriptor.unlink-file-at`, `remove-directory-at` and `set-times-at`
    pub fn change_at(&mut self, at: At, needs: Needs, target: u32) {
        let refused = self.base(at.this).and_then(|base| {
            let path = self.lift_path_02(at.path)?;
            self.refuse_change(base, path, needs)
        });
        self.told_nothing(target, refused);
    }

    /// `[method]descriptor.link-at` and `rename-at`
    pub fn move_at(&mut self, from: At, to: At, target: u32) {
        let refused = self.node_at(from, 0).and_then(|_| {
            let base = self.base(to.this)?;
            let path = self.lift_path_02(to.path)?;
            self.find_path(base, path, false).and(Err(Errno::ReadOnly))
        });
        self.told_nothing(target, refused);
    }

    /// `filesystem-error-code`: no stream here fails for a reason of a file's.
    pub fn file_error_code(&mut self, error: u32, target: u32) {
        self.get(error, &[Kind::Error]);
        self.none(target, 2, 1);
    }

    /// Takes the next bytes of a file's stream; `None` at its end.
    pub(crate) fn next_of_file(&mut self, this: u32, size: u64) -> Option<&'static [u8]> {
        let Entry { a, b, .. } = *self.get(this, FILE);
        let bundle = self.bundle();
        let node = bundle.node(a).ok()?;
        let content = bundle.content_from(node, b.into()).ok()?;
        if content.is_empty() {
            return None;
        }
        let piece = &content[..content.len().min(piece_size(size))];
        self.get(this, FILE).b += wire(piece.len());
        Some(piece)
    }

    /// `[method]input-stream.read` of a file; the place of the result was checked.
    pub(crate) fn file_stream_read(&mut self, this: u32, size: u64, target: u32) -> bool {
        let Some(piece) = self.next_of_file(this, size) else { return false };
        self.world.write_u8(target, 0);
        self.lower(target + 4, piece);
        true
    }
}

/// Returns how much of a file is given at once.
fn piece_size(size: u64) -> usize {
    index(u32::try_from(size).unwrap_or(u32::MAX).min(READ_BYTES_MAX))
}

/// `descriptor-type`
const fn descriptor_type(kind: Type) -> u8 {
    match kind {
        Type::Folder => 3,
        Type::Link => 5,
        Type::File => 6,
    }
}

/// `error-code`
const fn error_code(errno: Errno) -> u8 {
    match errno {
        Errno::BadFd => 3,
        Errno::Exists => 7,
        Errno::IllegalBytes => 9,
        Errno::Invalid => 12,
        Errno::IsFolder => 14,
        Errno::Loop => 15,
        Errno::NameTooLong => 18,
        Errno::NoEntry => 20,
        Errno::NotFolder => 24,
        Errno::NotSupported => 27,
        Errno::Overflow => 30,
        Errno::NotPermitted => 31,
        Errno::ReadOnly => 33,
        Errno::Pipe => 34,
        Errno::TooManyOpen => 22,
        Errno::Io | Errno::NotSocket | Errno::Success => 13,
    }
}
