//! `wasi:filesystem` 0.2: folders and files (`nodes.rs`) as descriptors of the component model.
//!
//! A descriptor is a handle on a node and has no place of its own: each read names its offset. The errors are those
//! of preview 1 under other names.
//!
//! Invariant: each handle of a descriptor, of a list of entries and of a stream of a file holds its node.

use crate::body::Source;
use crate::handles::{APPENDS, Entry, Kind};
use crate::io::READ_BYTES_MAX;
use crate::nodes::{FIRST_COOKIE, NewTime, Opening, is_scratch};
use crate::own::Span;
use crate::preview1::Errno;
use crate::walk::Type;
use crate::{Wasi, World};

const DESCRIPTOR: &[Kind] = &[Kind::Descriptor];
const ENTRIES: &[Kind] = &[Kind::Entries];
const FILE: &[Kind] = &[Kind::File];
/// `descriptor-flags`: `read`.
const FLAG_READ: u8 = 1;
/// `descriptor-flags`: `write`.
const FLAG_WRITE: u8 = 2;
/// `descriptor-flags`: `mutate-directory`. It is asked for by guests that only look into a folder.
const FLAG_MUTATE: u8 = 32;
/// `descriptor-flags` about syncing.
const FLAGS_SYNC: u32 = 4 | 8 | 16;
/// Tag of an `error` of a stream's that is a file's; the others are `error-code`s of wasi:http.
const FILE_ERROR: u32 = 1 << 16;
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
        for (place, row) in (0..count).zip((list..).step_by(12)) {
            let name = bundle.node(place).and_then(|node| bundle.name(node));
            let Ok(name) = name else { self.trap("wasi: the bundle is broken") };
            let node = self.start_node(place);
            let entry = self.descriptor_of(node, FLAG_READ);
            let handle = self.push_holding(entry);
            self.world.write_u32(row, handle);
            self.lower(row + 4, name);
        }
        self.world.write_u32(target, list);
        self.world.write_u32(target + 4, count);
    }

    fn node_of(&mut self, this: u32) -> u32 {
        self.get(this, DESCRIPTOR).a
    }

    /// Makes what is kept of a descriptor.
    fn descriptor_of(&self, a: u32, flags: u8) -> Entry {
        let is_changing = is_scratch(a) && self.kind_of(a) == Ok(Type::Folder);
        let flags = if is_changing { FLAG_READ | FLAG_MUTATE } else { flags };
        Entry { kind: Kind::Descriptor, flags, a, ..Entry::default() }
    }

    /// Makes a handle of what has a node, and holds that.
    fn push_holding(&mut self, entry: Entry) -> u32 {
        self.hold(entry.a);
        self.push(entry)
    }

    /// Finds the folder that a path begins in.
    fn base(&mut self, this: u32) -> Result<u32, Errno> {
        let node = self.node_of(this);
        self.needs(node, Type::Folder, Errno::NotFolder)
    }

    /// Finds the file that may be read, or written, by a descriptor.
    fn file_for(&mut self, this: u32, flag: u8, otherwise: Errno) -> Result<u32, Errno> {
        let Entry { a, flags, .. } = *self.get(this, DESCRIPTOR);
        let node = self.needs(a, Type::File, otherwise)?;
        if flags & flag != 0 {
            return Ok(node);
        }
        Err(if is_scratch(node) { Errno::BadFd } else { Errno::ReadOnly })
    }

    fn node_at(&mut self, at: At, path_flags: u32) -> Result<u32, Errno> {
        let base = self.base(at.this)?;
        let path = self.lift_path_02(at.path)?;
        self.resolve(base, path, path_flags & FOLLOW != 0)
    }

    /// Lifts a path as a string of the component model: one that is not UTF-8 breaks its rules.
    fn lift_path_02(&mut self, path: [u32; 2]) -> Result<Span, Errno> {
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
            let handle = self.push_holding(entry);
            self.world.write_u32(target + 4, handle);
        }
    }

    /// `[method]descriptor.read-via-stream`
    pub fn read_via_stream(&mut self, this: u32, offset: u64, target: u32) {
        let entry = self.file_for(this, FLAG_READ, Errno::IsFolder).map(|node| {
            // What lies behind a file of 4 GiB at the most ends it all the same.
            let offset = u32::try_from(offset).unwrap_or(u32::MAX);
            Entry { kind: Kind::File, a: node, b: offset, ..Entry::default() }
        });
        self.told_handle(target, entry);
    }

    /// `[method]descriptor.write-via-stream`
    pub fn write_via_stream(&mut self, this: u32, offset: u64, target: u32) {
        let entry = self.file_for(this, FLAG_WRITE, Errno::BadFd).map(|node| {
            // No file has room there, so a write fails.
            let offset = u32::try_from(offset).unwrap_or(u32::MAX);
            Entry { kind: Kind::FileOutput, a: node, b: offset, ..Entry::default() }
        });
        self.told_handle(target, entry);
    }

    /// `[method]descriptor.append-via-stream`
    pub fn append_via_stream(&mut self, this: u32, target: u32) {
        let entry = self.file_for(this, FLAG_WRITE, Errno::BadFd).map(|node| Entry {
            kind: Kind::FileOutput,
            flags: APPENDS,
            a: node,
            ..Entry::default()
        });
        self.told_handle(target, entry);
    }

    /// `[method]descriptor.write`
    pub fn descriptor_write(&mut self, this: u32, buffer: [u32; 2], offset: u64, target: u32) {
        self.place_for(buffer[0], buffer[1], 1);
        self.place_for(target, 16, 8);
        let written = self
            .file_for(this, FLAG_WRITE, Errno::BadFd)
            .and_then(|node| self.write_node(node, offset, Source::Guest(buffer[0]), buffer[1]));
        if let Some(written) = self.told_02(target, 8, written) {
            self.world.write_u64(target + 8, written.into());
        }
    }

    /// `[method]descriptor.set-size`
    pub fn descriptor_set_size(&mut self, this: u32, size: u64, target: u32) {
        let node = self.file_for(this, FLAG_WRITE, Errno::BadFd);
        let resized = node.and_then(|node| self.resize(node, size));
        self.told_nothing(target, resized);
    }

    /// `[method]descriptor.set-times`
    pub fn descriptor_set_times(&mut self, this: u32, times: [Timestamp; 2], target: u32) {
        let node = self.node_of(this);
        let set = self.lift_times(times).and_then(|times| self.set_node_times(node, times));
        self.told_nothing(target, set);
    }

    /// `[method]descriptor.set-times-at`
    pub fn set_times_at(&mut self, at: At, path_flags: u32, times: [Timestamp; 2], target: u32) {
        let times = self.lift_times(times);
        let set = self
            .node_at(at, path_flags)
            .and_then(|node| times.and_then(|times| self.set_node_times(node, times)));
        self.told_nothing(target, set);
    }

    fn lift_times(&mut self, times: [Timestamp; 2]) -> Result<[NewTime; 2], Errno> {
        let [accessed, modified] = times.map(|time| self.lift_time(time));
        Ok([accessed?, modified?])
    }

    fn lift_time(&mut self, (case, seconds, nanoseconds): Timestamp) -> Result<NewTime, Errno> {
        match case {
            0 => Ok(NewTime::Kept),
            1 => Ok(NewTime::Now),
            2 => {
                let whole = seconds.checked_mul(SECOND_NS);
                let time = whole.and_then(|time| time.checked_add(nanoseconds.into()));
                time.map(NewTime::At).ok_or(Errno::Overflow)
            }
            _ => self.trap("wasi: a variant has a case that it does not have"),
        }
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
        let flags = self.get(this, DESCRIPTOR).flags;
        self.told_byte(target, Ok(flags));
    }

    /// `[method]descriptor.get-type`
    pub fn descriptor_type(&mut self, this: u32, target: u32) {
        let node = self.node_of(this);
        let kind = self.kind_of(node).map(descriptor_type);
        self.told_byte(target, kind);
    }

    /// `[method]descriptor.read`
    pub fn descriptor_read(&mut self, this: u32, size: u64, offset: u64, target: u32) {
        self.place_for(target, 16, 4);
        let file = self.file_for(this, FLAG_READ, Errno::BadFd).and_then(|node| {
            if i64::try_from(offset).is_err() { Err(Errno::Invalid) } else { Ok(node) }
        });
        let given = file.and_then(|node| self.lower_content(node, offset, size, target + 4));
        if let Some(given) = self.told_02(target, 4, given) {
            self.world.write_u8(target + 12, u8::from(given == 0));
        }
    }

    /// Lowers a piece of a file as a list. Returns its length.
    fn lower_content(
        &mut self,
        node: u32,
        offset: u64,
        size: u64,
        target: u32,
    ) -> Result<u32, Errno> {
        let content = self.content(node)?;
        let left = self.facts(node)?.size.saturating_sub(offset);
        let size = piece_size(size.min(left));
        let address = self.allocate(size, 1);
        let given = self.give_content(&content, offset, [address, size]);
        self.world.write_u32(target, address);
        self.world.write_u32(target + 4, given);
        Ok(given)
    }

    /// `[method]descriptor.read-directory`
    pub fn read_directory(&mut self, this: u32, target: u32) {
        let node = self.base(this);
        let b = FIRST_COOKIE;
        let entry = node.map(|a| Entry { kind: Kind::Entries, a, b, ..Entry::default() });
        self.told_handle(target, entry);
    }

    /// `[method]directory-entry-stream.read-directory-entry`
    pub fn read_directory_entry(&mut self, this: u32, target: u32) {
        let Entry { a, b, .. } = *self.get(this, ENTRIES);
        self.place_for(target, 20, 4);
        let entry = self.listed(a, b).and_then(|listed| {
            listed.map(|listed| Ok((self.kind_of(listed.node)?, listed))).transpose()
        });
        let Some(entry) = self.told_02(target, 4, entry) else { return };
        self.world.write_u8(target + 4, u8::from(entry.is_some()));
        if let Some((kind, listed)) = entry {
            self.get(this, ENTRIES).b = listed.next;
            self.world.write_u8(target + 8, descriptor_type(kind));
            self.lower(target + 12, listed.name.get());
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
        let facts = node.and_then(|node| self.facts(node));
        let Some(facts) = self.told_02(target, 8, facts) else { return };
        self.world.write_u8(target + 8, descriptor_type(facts.kind));
        self.world.write_u64(target + 16, facts.links);
        self.world.write_u64(target + 24, facts.size);
        for (at, time) in (target + 32..).step_by(24).zip(facts.times) {
            self.world.write_u8(at, 1);
            self.world.write_u64(at + 8, time / SECOND_NS);
            let part = u32::try_from(time % SECOND_NS).expect("below a second");
            self.world.write_u32(at + 16, part);
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

    /// Which node it is and how often it changed says all that the hash is to tell.
    fn lower_hash(&mut self, node: Result<u32, Errno>, target: u32) {
        self.place_for(target, 24, 8);
        let facts = node.and_then(|node| self.facts(node));
        if let Some(facts) = self.told_02(target, 8, facts) {
            self.world.write_u64(target + 8, facts.inode);
            self.world.write_u64(target + 16, facts.device << 32 | facts.version);
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
            if flags.descriptor & FLAGS_SYNC != 0 && !is_scratch(base) {
                return Err(Errno::NotSupported);
            }
            let is_written = flags.descriptor & u32::from(FLAG_WRITE) != 0;
            let follows = flags.path & FOLLOW != 0;
            self.open_node(base, path, Opening { follows, flags: flags.open, is_written })
        });
        let [asked, ..] = (flags.descriptor & u32::from(FLAG_READ | FLAG_WRITE)).to_le_bytes();
        let asked = if asked == 0 { FLAG_READ } else { asked };
        let entry = node.map(|node| self.descriptor_of(node, asked));
        self.told_handle(target, entry);
    }

    /// `[method]descriptor.readlink-at`
    pub fn readlink_at(&mut self, at: At, target: u32) {
        self.place_for(target, 12, 4);
        let text = self.node_at(at, 0).and_then(|node| self.link_text(node));
        if let Some(text) = self.told_02(target, 4, text) {
            self.lower_own(target + 4, text);
        }
    }

    /// Finds the folder that a path begins in, and lifts the path.
    fn based(&mut self, at: At) -> Result<(u32, Span), Errno> {
        let base = self.base(at.this)?;
        Ok((base, self.lift_path_02(at.path)?))
    }

    /// `[method]descriptor.create-directory-at`
    pub fn make_folder_at(&mut self, at: At, target: u32) {
        let made = self.based(at).and_then(|(base, path)| self.make_folder(base, path));
        self.told_nothing(target, made);
    }

    /// `[method]descriptor.symlink-at`
    pub fn symlink_at(&mut self, text: [u32; 2], at: At, target: u32) {
        let made = self.based(at).and_then(|(base, path)| {
            let place = self.resolve_name(base, path, false)?;
            let text = self.lift_path_02(text)?;
            self.make_link(&place, text)
        });
        self.told_nothing(target, made);
    }

    /// `[method]descriptor.unlink-file-at`
    pub fn unlink_at(&mut self, at: At, target: u32) {
        let removed = self.based(at).and_then(|(base, path)| self.remove_file(base, path));
        self.told_nothing(target, removed);
    }

    /// `[method]descriptor.remove-directory-at`
    pub fn remove_folder_at(&mut self, at: At, target: u32) {
        let removed = self.based(at).and_then(|(base, path)| self.remove_folder(base, path));
        self.told_nothing(target, removed);
    }

    /// `[method]descriptor.link-at`
    pub fn link_at(&mut self, path_flags: u32, from: At, to: At, target: u32) {
        let made = self.node_at(from, path_flags).and_then(|node| {
            let (base, path) = self.based(to)?;
            self.link_node(node, base, path)
        });
        self.told_nothing(target, made);
    }

    /// `[method]descriptor.rename-at`
    pub fn rename_at(&mut self, from: At, to: At, target: u32) {
        let renamed = self.based(from).and_then(|(base, path)| {
            let place = self.resolve_name(base, path, false)?;
            let (base, path) = self.based(to)?;
            self.rename(&place, base, path)
        });
        self.told_nothing(target, renamed);
    }

    /// `filesystem-error-code`
    pub fn file_error_code(&mut self, error: u32, target: u32) {
        let error = self.get(error, &[Kind::Error]).a;
        self.place_for(target, 2, 1);
        let code = error.checked_sub(FILE_ERROR);
        self.world.write_u8(target, u8::from(code.is_some()));
        if let Some([code, ..]) = code.map(u32::to_le_bytes) {
            self.world.write_u8(target + 1, code);
        }
    }

    /// Takes the next bytes of a file's stream, to be written elsewhere; `None` at its end.
    pub(crate) fn next_of_file(&mut self, this: u32, size: u64) -> Option<(Source, u32)> {
        let Entry { a, b, .. } = *self.get(this, FILE);
        let piece = self.source_of(a, b.into(), piece_size(size)).ok()??;
        self.get(this, FILE).b += piece.1;
        Some(piece)
    }

    /// `[method]input-stream.skip` of a file; `None` at its end.
    pub(crate) fn file_stream_skip(&mut self, this: u32, size: u64) -> Option<u32> {
        let Entry { a, b, .. } = *self.get(this, FILE);
        let left = self.facts(a).ok()?.size.saturating_sub(b.into());
        let skipped = piece_size(size.min(left));
        self.get(this, FILE).b += skipped;
        (left > 0).then_some(skipped)
    }

    /// `[method]input-stream.read` of a file; the place of the result was checked.
    pub(crate) fn file_stream_read(&mut self, this: u32, size: u64, target: u32) -> bool {
        let Entry { a, b, .. } = *self.get(this, FILE);
        if self.facts(a).is_ok_and(|facts| facts.size <= b.into()) {
            return false;
        }
        self.world.write_u8(target, 0);
        let Ok(given) = self.lower_content(a, b.into(), size, target + 4) else { return false };
        self.get(this, FILE).b += given;
        true
    }

    /// Writes to a file's stream, all of it.
    ///
    /// # Errors
    /// What an `error` has as its number.
    pub(crate) fn file_stream_write(
        &mut self,
        this: u32,
        mut source: Source,
        size: u32,
    ) -> Result<(), u32> {
        let Entry { a, b, flags, .. } = *self.get(this, &[Kind::FileOutput]);
        let failed = |errno| FILE_ERROR | u32::from(error_code(errno));
        let mut done = 0;
        while done < size {
            let begun = if flags & APPENDS != 0 {
                self.facts(a).map_err(failed)?.size
            } else {
                u64::from(b) + u64::from(done)
            };
            let written = self.write_node(a, begun, source, size - done).map_err(failed)?;
            source = source.advance(written);
            done += written;
            let place = self.get(this, &[Kind::FileOutput]);
            place.b = place.b.saturating_add(written);
        }
        Ok(())
    }
}

/// What an `error` of a stream's says, if it is a file's.
pub(crate) fn file_error_name(error: u32) -> Option<&'static str> {
    let [code, ..] = error.checked_sub(FILE_ERROR)?.to_le_bytes();
    Some(match code {
        8 => "file-too-large",
        23 => "insufficient-space",
        33 => "read-only",
        _ => "io",
    })
}

/// `new-timestamp`: its case, and what a `datetime` has.
pub type Timestamp = (u32, u64, u32);

const SECOND_NS: u64 = 1_000_000_000;

/// Returns how much of a file is given at once.
fn piece_size(size: u64) -> u32 {
    u32::try_from(size).unwrap_or(u32::MAX).min(READ_BYTES_MAX)
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
        Errno::Busy => 4,
        Errno::Exists => 7,
        Errno::TooLarge => 8,
        Errno::IllegalBytes => 9,
        Errno::Invalid => 12,
        Errno::IsFolder => 14,
        Errno::Loop => 15,
        Errno::NameTooLong => 18,
        Errno::NoEntry => 20,
        Errno::TooManyOpen => 22,
        Errno::NoSpace => 23,
        Errno::NotFolder => 24,
        Errno::NotEmpty => 25,
        Errno::NotSupported => 27,
        Errno::Overflow => 30,
        Errno::NotPermitted => 31,
        Errno::ReadOnly => 33,
        Errno::Pipe => 34,
        Errno::OtherDevice => 36,
        Errno::Io | Errno::NotSocket | Errno::Success => 13,
    }
}
