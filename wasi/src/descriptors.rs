//! Descriptors of preview 1: the standard streams, and folders and files (`nodes.rs`).
//!
//! ```text
//!   0 1 2 | 3 .. one for each folder that is open from the start | what the program opens
//! ```
//!
//! A number that was closed is given again, the highest first, as by the engine whose answers these are held
//! against (`wasmtime run --dir`); so are the rights and the errors.
//!
//! The table lies in this module's memory and outside the region of a request, so that what a module opens while it
//! starts up is open for each request.
//!
//! Invariant: a descriptor's node is held as long as it is open.

use crate::body::Source;
use crate::nodes::{NewTime, Opening, is_scratch};
use crate::own::Span;
use crate::preview1::{Errno, STDIN, VECTORS_MAX};
use crate::scratch::{Listed, Name, ROOT};
use crate::walk::{PATH_BYTES_MAX, Type};
use crate::{Wasi, World, index, wire};

/// Descriptors that the state has room for: those of a program that opens a file or two.
pub const DESCRIPTORS_NEAR: usize = 8;
/// Most descriptors that are open at once.
pub const DESCRIPTORS_MAX: usize = 1024;
/// The standard ones.
const STANDARD_COUNT: u32 = 3;
/// Bytes of a `dirent` before its name.
const DIRENT_BYTES: u32 = 24;

/// `fdflags`
mod flag {
    pub(super) const APPEND: u32 = 1;
    pub(super) const DSYNC: u32 = 2;
    pub(super) const RSYNC: u32 = 8;
    pub(super) const SYNC: u32 = 16;
    pub(super) const ANY_SYNC: u32 = DSYNC | RSYNC | SYNC;
    /// Beside these, as a descriptor keeps them: it may be read, and written.
    pub(super) const READ: u32 = 1 << 6;
    pub(super) const WRITE: u32 = 1 << 7;
}

/// `rights`, as the engine shows them.
mod right {
    const SEEK: u64 = 1 << 2;
    pub(super) const READ: u64 = 1 << 1;
    pub(super) const WRITE: u64 = 1 << 6;
    const PATH_SET_SIZE: u64 = 1 << 19;
    const SET_SIZE: u64 = 1 << 22;
    /// What goes with being open for reading.
    pub(super) const READS: u64 = READ | 1 << 14;
    const ALL: u64 = (1 << 30) - 1;
    /// Of a file that is open for neither reading nor writing.
    pub(super) const FILE: u64 = ALL & !(READS | WRITE);
    /// Of a folder that was opened.
    pub(super) const FOLDER: u64 = ALL & !(SEEK | SET_SIZE | PATH_SET_SIZE | WRITE);
    /// Of a folder that is open from the start, and of what is opened in it: those that programs expect.
    pub(super) const START: u64 =
        0x1FF << 9 | 1 << 18 | 1 << 20 | 1 << 21 | 1 << 23 | 1 << 24 | 1 << 25 | 1 << 26;
    pub(super) const INHERITED: u64 = START | 0x1FF | 1 << 22 | 1 << 27;
}

/// What a descriptor stands for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[repr(u8)]
pub enum Stands {
    /// Nothing: it was closed.
    #[default]
    Closed,
    /// One of the standard streams, by its number at the start.
    Stream,
    /// A folder that is open from the start.
    Start,
    /// A folder that was opened.
    Folder,
    /// A file.
    File,
}

/// An open descriptor.
#[derive(Debug, Clone, Copy, Default)]
pub struct Descriptor {
    stands: Stands,
    /// `fdflags`, and what it is open for.
    flags: u8,
    /// The stream, or the node.
    which: u32,
    /// Where the next read or write begins.
    position: u64,
}

impl Descriptor {
    /// A place of the table that was not used yet.
    pub const CLOSED: Self = Self { stands: Stands::Closed, flags: 0, which: 0, position: 0 };

    const fn is_folder(self) -> bool {
        matches!(self.stands, Stands::Start | Stands::Folder)
    }

    const fn has(self, flag: u32) -> bool {
        self.flags as u32 & flag != 0
    }

    /// True if a node is held for it.
    const fn holds(self) -> bool {
        matches!(self.stands, Stands::Folder | Stands::File)
    }
}

/// The table.
#[derive(Debug, Default)]
pub struct Descriptors {
    near: [Descriptor; DESCRIPTORS_NEAR],
    /// Numbers that were ever given; 0 until something else than the standard streams is asked for.
    count: u16,
    closed: u16,
    /// Room for one path.
    path: Span,
    /// A request has begun: what is in memory may be written.
    has_begun: bool,
    /// Something was.
    is_written: bool,
}

impl Descriptors {
    /// Returns a table that nobody has used.
    #[must_use]
    pub const fn new() -> Self {
        let path = Span { at: 0, size: 0 };
        let near = [Descriptor::CLOSED; DESCRIPTORS_NEAR];
        Self { near, count: 0, closed: 0, path, has_begun: false, is_written: false }
    }

    /// Forgets what lies in the region of a request, which begins.
    pub const fn begin(&mut self) {
        self.path = Span { at: 0, size: 0 };
        self.has_begun = true;
    }

    /// Forgets all. Returns true if something was written to the folder in memory.
    pub const fn clear(&mut self) -> bool {
        self.count = 0;
        self.closed = 0;
        self.begin();
        core::mem::replace(&mut self.is_written, false)
    }

    /// True once a request has begun.
    #[must_use]
    pub const fn has_begun(&self) -> bool {
        self.has_begun
    }

    /// Notes that something was written to the folder in memory.
    pub const fn note_written(&mut self) {
        self.is_written = true;
    }

    /// True if the standard streams are where they are at the start, which is all that most programs use.
    #[must_use]
    pub const fn is_standard(&self) -> bool {
        self.count == 0
    }
}

impl<W: World> Wasi<'_, W> {
    fn place_of(&mut self, number: u32) -> &mut Descriptor {
        let place = index(number);
        match place.checked_sub(DESCRIPTORS_NEAR) {
            None => &mut self.state.descriptors.near[place],
            Some(far) => &mut self.descriptors[far],
        }
    }

    /// Makes the table as it is at the start, unless it is there.
    fn make_table(&mut self) {
        if self.state.descriptors.count > 0 {
            return;
        }
        let most = wire(DESCRIPTORS_MAX) - STANDARD_COUNT;
        let folders = self.bundle().folder_count().min(most);
        for number in 0..STANDARD_COUNT + folders {
            *self.place_of(number) = match number.checked_sub(STANDARD_COUNT) {
                None => Descriptor { stands: Stands::Stream, which: number, ..Descriptor::CLOSED },
                Some(place) => {
                    let which = self.start_node(place);
                    Descriptor { stands: Stands::Start, which, ..Descriptor::CLOSED }
                }
            };
        }
        let count = u16::try_from(STANDARD_COUNT + folders).expect("at most DESCRIPTORS_MAX");
        self.state.descriptors.count = count;
    }

    /// Finds an open descriptor.
    fn descriptor(&mut self, number: u32) -> Result<Descriptor, Errno> {
        // Programs look for folders before anything else, and most have none: no table is made for that.
        if self.state.descriptors.is_standard() {
            if number >= STANDARD_COUNT.saturating_add(self.bundle().folder_count()) {
                return Err(Errno::BadFd);
            }
            self.make_table();
        }
        if number >= u32::from(self.state.descriptors.count) {
            return Err(Errno::BadFd);
        }
        let descriptor = *self.place_of(number);
        if descriptor.stands == Stands::Closed { Err(Errno::BadFd) } else { Ok(descriptor) }
    }

    /// Finds a descriptor that is none of the standard streams.
    fn opened(&mut self, number: u32) -> Result<Descriptor, Errno> {
        let descriptor = self.descriptor(number)?;
        if descriptor.stands == Stands::Stream { Err(Errno::BadFd) } else { Ok(descriptor) }
    }

    fn file(&mut self, number: u32) -> Result<Descriptor, Errno> {
        let descriptor = self.descriptor(number)?;
        if descriptor.stands == Stands::File { Ok(descriptor) } else { Err(Errno::BadFd) }
    }

    /// Returns the node of a folder.
    fn folder(&mut self, number: u32) -> Result<u32, Errno> {
        let descriptor = self.descriptor(number)?;
        if descriptor.is_folder() { Ok(descriptor.which) } else { Err(Errno::BadFd) }
    }

    /// Returns which standard stream a number is; another kind of descriptor is none.
    pub(crate) fn stream_of(&mut self, number: u32) -> Result<u32, Errno> {
        if self.state.descriptors.is_standard() && number < STANDARD_COUNT {
            return Ok(number);
        }
        let descriptor = self.descriptor(number)?;
        if descriptor.stands == Stands::Stream { Ok(descriptor.which) } else { Err(Errno::BadFd) }
    }

    /// Sees to it that a number can be given.
    fn needs_number(&mut self) -> Result<(), Errno> {
        self.make_table();
        let Descriptors { count, closed, .. } = self.state.descriptors;
        let is_full = closed == 0 && usize::from(count) == DESCRIPTORS_MAX;
        if is_full { Err(Errno::TooManyOpen) } else { Ok(()) }
    }

    /// Gives a number to what is open, and holds its node.
    fn give(&mut self, descriptor: Descriptor) -> u32 {
        let count = u32::from(self.state.descriptors.count);
        let mut number = count;
        if self.state.descriptors.closed > 0 {
            self.state.descriptors.closed -= 1;
            while number > 0 && self.place_of(number - 1).stands != Stands::Closed {
                number -= 1;
            }
            number = number.saturating_sub(1);
        } else {
            self.state.descriptors.count += 1;
        }
        *self.place_of(number) = descriptor;
        self.hold(descriptor.which);
        number
    }

    fn close(&mut self, number: u32) {
        let closed = core::mem::take(self.place_of(number));
        self.state.descriptors.closed += 1;
        if closed.holds() {
            self.release(closed.which);
        }
    }

    /// Returns the room for one path, and what is as long.
    pub(crate) fn path_room(&mut self) -> Span {
        if self.state.descriptors.path.size == 0 {
            self.state.descriptors.path = self.take(PATH_BYTES_MAX + 1);
        }
        self.state.descriptors.path
    }

    /// Lifts a path. Its room is used again by the next.
    pub(crate) fn lift_path(&mut self, path: [u32; 2]) -> Result<Span, Errno> {
        let [address, size] = path;
        self.place_for(address, size, 1);
        if size > PATH_BYTES_MAX {
            return Err(Errno::NameTooLong);
        }
        let span = Span { size, ..self.path_room() };
        self.world.read(address, &mut self.bytes[span.range()]);
        match core::str::from_utf8(self.own(span)) {
            Ok(_) => Ok(span),
            Err(_) => Err(Errno::IllegalBytes),
        }
    }

    fn path_node(&mut self, fd: u32, path: [u32; 2], follows: bool) -> Result<u32, Errno> {
        let base = self.folder(fd)?;
        let path = self.lift_path(path)?;
        self.resolve(base, path, follows)
    }

    /// `fd_read` of what is no standard stream
    pub fn file_read(&mut self, fd: u32, vectors: u32, count: u32, target: u32) -> Errno {
        self.told(|wasi| {
            let descriptor = wasi.file(fd)?;
            let position = descriptor.position;
            let read = wasi.read_vectors(descriptor, position, [vectors, count], target)?;
            wasi.place_of(fd).position = position + u64::from(read);
            Ok(())
        })
    }

    /// `fd_pread`
    pub fn fd_pread(&mut self, fd: u32, vectors: [u32; 2], offset: u64, target: u32) -> Errno {
        self.told(|wasi| {
            let descriptor = wasi.descriptor(fd)?;
            match descriptor.stands {
                Stands::File => wasi.read_vectors(descriptor, offset, vectors, target).map(drop),
                Stands::Stream if descriptor.which == STDIN => Err(Errno::Pipe),
                _ => Err(Errno::BadFd),
            }
        })
    }

    /// `fd_write` of what is no standard stream
    pub fn file_write(&mut self, fd: u32, vectors: [u32; 2], target: u32) -> Errno {
        self.told(|wasi| {
            let descriptor = wasi.file(fd)?;
            let position = wasi.written_at(descriptor, descriptor.position)?;
            let written = wasi.write_vectors(descriptor, position, vectors, target)?;
            wasi.place_of(fd).position = position + u64::from(written);
            Ok(())
        })
    }

    /// Returns where a write goes: what is written to its end is written there wherever it was asked for.
    fn written_at(&self, descriptor: Descriptor, offset: u64) -> Result<u64, Errno> {
        if descriptor.has(flag::APPEND) {
            return Ok(self.facts(descriptor.which)?.size);
        }
        Ok(offset)
    }

    /// `fd_pwrite`: what is written to its end is written there all the same, as Linux does.
    pub fn fd_pwrite(&mut self, fd: u32, vectors: [u32; 2], offset: u64, target: u32) -> Errno {
        self.told(|wasi| {
            let descriptor = wasi.descriptor(fd)?;
            match descriptor.stands {
                Stands::File => {
                    let offset = wasi.written_at(descriptor, offset)?;
                    wasi.write_vectors(descriptor, offset, vectors, target).map(drop)
                }
                Stands::Stream if descriptor.which != STDIN => Err(Errno::Pipe),
                _ => Err(Errno::BadFd),
            }
        })
    }

    /// Checks the list of a guest's buffers, and the offset of what is to be done with them.
    fn lift_vectors(
        &mut self,
        [vectors, count]: [u32; 2],
        offset: u64,
        target: u32,
    ) -> Result<(), Errno> {
        if count > VECTORS_MAX {
            return Err(Errno::Invalid);
        }
        self.lift_list(vectors, count, 8, 4);
        self.place_for(target, 4, 4);
        if i64::try_from(offset).is_err() { Err(Errno::Invalid) } else { Ok(()) }
    }

    /// Fills a guest's buffers from a file; returns how much that was.
    fn read_vectors(
        &mut self,
        descriptor: Descriptor,
        offset: u64,
        [vectors, count]: [u32; 2],
        target: u32,
    ) -> Result<u32, Errno> {
        self.lift_vectors([vectors, count], offset, target)?;
        if !descriptor.has(flag::READ) {
            return Err(Errno::BadFd);
        }
        let content = self.content(descriptor.which)?;
        let mut read = 0u32;
        for row in (vectors..).step_by(8).take(index(count)) {
            let (address, size) = (self.guest_u32(row), self.guest_u32(row + 4));
            self.place_for(address, size, 1);
            // What is read does not fit a number, of a file that is given to one buffer many times.
            let size = size.min(u32::MAX - read);
            read += self.give_content(&content, offset + u64::from(read), [address, size]);
        }
        self.world.write_u32(target, read);
        Ok(read)
    }

    /// Writes a guest's buffers to a file; returns how much that was.
    fn write_vectors(
        &mut self,
        descriptor: Descriptor,
        offset: u64,
        [vectors, count]: [u32; 2],
        target: u32,
    ) -> Result<u32, Errno> {
        self.lift_vectors([vectors, count], offset, target)?;
        if !descriptor.has(flag::WRITE) {
            return Err(Errno::BadFd);
        }
        let mut written = 0u32;
        for row in (vectors..).step_by(8).take(index(count)) {
            let (address, size) = (self.guest_u32(row), self.guest_u32(row + 4));
            self.place_for(address, size, 1);
            let place = offset + u64::from(written);
            let size = size.min(u32::MAX - written);
            match self.write_node(descriptor.which, place, Source::Guest(address), size) {
                Ok(some) => written += some,
                Err(errno) if written == 0 => return Err(errno),
                Err(_) => break,
            }
        }
        self.world.write_u32(target, written);
        Ok(written)
    }

    /// `fd_seek`
    pub fn fd_seek(&mut self, fd: u32, offset: i64, whence: u32, target: u32) -> Errno {
        self.place_for(target, 8, 8);
        self.told(|wasi| {
            let Descriptor { which, position, .. } = wasi.seekable(fd)?;
            let from = match whence {
                0 => 0,
                1 => position,
                2 => wasi.facts(which)?.size,
                _ => return Err(Errno::Invalid),
            };
            let position = from.checked_add_signed(offset).ok_or(Errno::Invalid)?;
            wasi.place_of(fd).position = position;
            wasi.world.write_u64(target, position);
            Ok(())
        })
    }

    /// `fd_tell`
    pub fn fd_tell(&mut self, fd: u32, target: u32) -> Errno {
        self.place_for(target, 8, 8);
        self.told(|wasi| {
            let position = wasi.seekable(fd)?.position;
            wasi.world.write_u64(target, position);
            Ok(())
        })
    }

    fn seekable(&mut self, fd: u32) -> Result<Descriptor, Errno> {
        let descriptor = self.descriptor(fd)?;
        match descriptor.stands {
            Stands::File => Ok(descriptor),
            Stands::Stream => Err(Errno::Pipe),
            _ => Err(Errno::BadFd),
        }
    }

    /// `fd_fdstat_get` of what is no standard stream
    pub fn file_stat(&mut self, fd: u32, target: u32) -> Errno {
        self.told(|wasi| {
            let descriptor = wasi.opened(fd)?;
            let (kind, rights, inherited) = match descriptor.stands {
                Stands::Start => (Type::Folder, right::START, right::INHERITED),
                Stands::Folder => (Type::Folder, right::FOLDER, right::FOLDER),
                _ => {
                    let read = if descriptor.has(flag::READ) { right::READS } else { 0 };
                    let write = if descriptor.has(flag::WRITE) { right::WRITE } else { 0 };
                    let rights = right::FILE | read | write;
                    (Type::File, rights, rights)
                }
            };
            wasi.place_for(target, 24, 8);
            let flags = u64::from(descriptor.flags & KEPT_FLAGS);
            wasi.world.write_u64(target, file_type(kind) | flags << 16);
            wasi.world.write_u64(target + 8, rights);
            wasi.world.write_u64(target + 16, inherited);
            Ok(())
        })
    }

    /// `fd_fdstat_set_flags`: a standard stream stays as it is.
    pub fn fd_set_flags(&mut self, fd: u32, flags: u32) -> Errno {
        self.told(|wasi| {
            if wasi.stream_of(fd).is_ok() {
                return Ok(());
            }
            let descriptor = wasi.file(fd)?;
            if flags & flag::ANY_SYNC != 0 {
                return Err(Errno::Invalid);
            }
            wasi.place_of(fd).flags = kept_flags(flags) | descriptor.flags & !KEPT_FLAGS;
            Ok(())
        })
    }

    /// `fd_fdstat_set_rights`
    pub fn fd_set_rights(&mut self, fd: u32) -> Errno {
        self.told(|wasi| match wasi.stream_of(fd) {
            Ok(_) => Ok(()),
            Err(_) => wasi.opened(fd).and(Err(Errno::NotSupported)),
        })
    }

    /// `fd_advise`: nothing comes of it.
    pub fn fd_advise(&mut self, fd: u32, advice: u32) -> Errno {
        self.told(|wasi| {
            wasi.file(fd)?;
            if advice > 5 { Err(Errno::Invalid) } else { Ok(()) }
        })
    }

    /// `fd_allocate`
    pub fn fd_allocate(&mut self, fd: u32, offset: u64, size: u64) -> Errno {
        self.told(|wasi| {
            let descriptor = wasi.file(fd)?;
            if !descriptor.has(flag::WRITE) {
                return Err(if is_scratch(descriptor.which) {
                    Errno::BadFd
                } else {
                    Errno::NotSupported
                });
            }
            wasi.allocate_node(descriptor.which, offset, size)
        })
    }

    /// `fd_filestat_set_size`
    pub fn set_size(&mut self, fd: u32, size: u64) -> Errno {
        self.told(|wasi| {
            let descriptor = wasi.file(fd)?;
            if !descriptor.has(flag::WRITE) {
                return Err(Errno::Invalid);
            }
            wasi.resize(descriptor.which, size)
        })
    }

    /// `fd_filestat_set_times`
    pub fn set_times(&mut self, fd: u32, times: [u64; 2], flags: u32) -> Errno {
        self.told(|wasi| {
            let node = wasi.opened(fd)?.which;
            wasi.set_node_times(node, new_times(times, flags)?)
        })
    }

    /// `fd_sync` and `fd_datasync`: what is in memory is where it stays, and a stream goes out by itself.
    pub fn fd_sync(&mut self, fd: u32) -> Errno {
        self.told(|wasi| match wasi.stream_of(fd) {
            Ok(_) => Ok(()),
            Err(_) => wasi.file(fd).map(drop),
        })
    }

    /// `fd_close`
    pub fn fd_close(&mut self, fd: u32) -> Errno {
        self.told(|wasi| {
            wasi.descriptor(fd)?;
            wasi.close(fd);
            Ok(())
        })
    }

    /// `fd_renumber`
    pub fn fd_renumber(&mut self, from: u32, to: u32) -> Errno {
        self.told(|wasi| {
            let moved = wasi.descriptor(from)?;
            wasi.descriptor(to)?;
            if from != to {
                let replaced = core::mem::replace(wasi.place_of(to), moved);
                *wasi.place_of(from) = Descriptor::CLOSED;
                wasi.state.descriptors.closed += 1;
                if replaced.holds() {
                    wasi.release(replaced.which);
                }
            }
            Ok(())
        })
    }

    /// `fd_prestat_get`
    pub fn prestat(&mut self, fd: u32, target: u32) -> Errno {
        self.told(|wasi| {
            let name = wasi.start_name(fd)?.ok_or(Errno::BadFd)?;
            wasi.place_for(target, 8, 4);
            wasi.world.write_u32(target, 0);
            wasi.world.write_u32(target + 4, wire(name.len()));
            Ok(())
        })
    }

    /// `fd_prestat_dir_name`
    pub fn prestat_name(&mut self, fd: u32, path: u32, size: u32) -> Errno {
        self.told(|wasi| {
            let name = wasi.start_name(fd)?.ok_or(Errno::NotFolder)?;
            if name.len() > index(size) {
                return Err(Errno::NameTooLong);
            }
            wasi.place_for(path, wire(name.len()), 1);
            wasi.world.write(path, name);
            Ok(())
        })
    }

    /// Returns the name of a folder that is open from the start.
    fn start_name(&mut self, fd: u32) -> Result<Option<&'static [u8]>, Errno> {
        let descriptor = self.descriptor(fd)?;
        if descriptor.stands != Stands::Start {
            return Ok(None);
        }
        let bundle = self.bundle();
        let mut places = 0..bundle.folder_count();
        let place = match descriptor.which {
            ROOT => places.find(|&place| self.start_node(place) == ROOT).ok_or(Errno::Io)?,
            place => place,
        };
        bundle.name(bundle.node(place)?).map(Some)
    }

    /// `fd_readdir`
    pub fn fd_readdir(
        &mut self,
        fd: u32,
        [buffer, size]: [u32; 2],
        cookie: u64,
        target: u32,
    ) -> Errno {
        self.place_for(buffer, size, 1);
        self.place_for(target, 4, 4);
        self.told(|wasi| {
            let folder = wasi.folder(fd)?;
            let mut written = 0;
            let mut place = u32::try_from(cookie).unwrap_or(u32::MAX);
            while written < size {
                let Some(Listed { name, node, next }) = wasi.listed_with_dots(folder, place)?
                else {
                    break;
                };
                let facts = wasi.facts(node)?;
                let name = name.get();
                let mut row = [0; index(DIRENT_BYTES)];
                row[..8].copy_from_slice(&u64::from(next).to_le_bytes());
                row[8..16].copy_from_slice(&facts.inode.to_le_bytes());
                row[16..20].copy_from_slice(&wire(name.len()).to_le_bytes());
                [row[20], ..] = file_type(facts.kind).to_le_bytes();
                // What has no room for its end is cut: the program sees a full buffer, and asks again.
                for piece in [&row[..], name] {
                    let piece = &piece[..piece.len().min(index(size - written))];
                    wasi.world.write(buffer + written, piece);
                    written += wire(piece.len());
                }
                place = next;
            }
            wasi.world.write_u32(target, written);
            Ok(())
        })
    }

    /// As `listed`, with `.` and `..` before all others.
    fn listed_with_dots(&self, folder: u32, cookie: u32) -> Result<Option<Listed>, Errno> {
        let dots = &[b'.'; 2][..index(cookie + 1).min(2)];
        let node = match cookie {
            0 => folder,
            1 => self.parent_of(folder)?,
            _ => return self.listed(folder, cookie),
        };
        Ok(Some(Listed { name: Name::new(dots), node, next: cookie + 1 }))
    }

    /// `fd_filestat_get` of what is no standard stream
    pub fn file_facts(&mut self, fd: u32, target: u32) -> Errno {
        self.told(|wasi| {
            let node = wasi.opened(fd)?.which;
            wasi.lower_facts(node, target)
        })
    }

    /// `path_filestat_get`
    pub fn path_facts(&mut self, fd: u32, flags: u32, path: [u32; 2], target: u32) -> Errno {
        self.told(|wasi| {
            let node = wasi.path_node(fd, path, flags & 1 != 0)?;
            wasi.lower_facts(node, target)
        })
    }

    /// Lowers a `filestat`.
    fn lower_facts(&mut self, node: u32, target: u32) -> Result<(), Errno> {
        let facts = self.facts(node)?;
        self.place_for(target, 64, 8);
        let [read, written, changed] = facts.times;
        let kind = file_type(facts.kind);
        let (device, inode) = (facts.device, facts.inode);
        let numbers = [device, inode, kind, facts.links, facts.size, read, written, changed];
        for (offset, number) in (0..).step_by(8).zip(numbers) {
            self.world.write_u64(target + offset, number);
        }
        Ok(())
    }

    /// `path_open`
    pub fn path_open(
        &mut self,
        fd: u32,
        [dir_flags, open_flags, fd_flags]: [u32; 3],
        path: [u32; 2],
        rights: u64,
        target: u32,
    ) -> Errno {
        self.place_for(target, 4, 4);
        self.told(|wasi| {
            let path = wasi.lift_path(path)?;
            let base = match wasi.descriptor(fd)? {
                found if found.is_folder() => found.which,
                Descriptor { stands: Stands::File, .. } => return Err(Errno::NotFolder),
                _ => return Err(Errno::BadFd),
            };
            // What is in memory is in order whenever it was written.
            if fd_flags & flag::ANY_SYNC != 0 && !is_scratch(base) {
                return Err(Errno::NotSupported);
            }
            wasi.needs_number()?;
            let is_written = rights & right::WRITE != 0;
            let follows = dir_flags & 1 != 0;
            let opening = Opening { follows, flags: open_flags, is_written };
            let node = wasi.open_node(base, path, opening)?;
            let stands = match wasi.kind_of(node)? {
                Type::Folder => Stands::Folder,
                _ => Stands::File,
            };
            let flags = match stands {
                Stands::File => kept_flags(fd_flags) | access_flags(rights),
                _ => 0,
            };
            let number = wasi.give(Descriptor { stands, flags, which: node, position: 0 });
            wasi.world.write_u32(target, number);
            Ok(())
        })
    }

    /// `path_readlink`
    pub fn path_readlink(
        &mut self,
        fd: u32,
        path: [u32; 2],
        [buffer, size]: [u32; 2],
        target: u32,
    ) -> Errno {
        self.place_for(buffer, size, 1);
        self.place_for(target, 4, 4);
        self.told(|wasi| {
            let node = wasi.path_node(fd, path, false)?;
            let text = wasi.link_text(node)?;
            let text = Span { size: text.size.min(size), ..text };
            wasi.world.write(buffer, &wasi.bytes[text.range()]);
            wasi.world.write_u32(target, text.size);
            Ok(())
        })
    }

    /// `path_create_directory`
    pub fn path_make(&mut self, fd: u32, path: [u32; 2]) -> Errno {
        self.told(|wasi| {
            let base = wasi.folder(fd)?;
            let path = wasi.lift_path(path)?;
            wasi.make_folder(base, path)
        })
    }

    /// `path_symlink`
    pub fn path_symlink(&mut self, target: [u32; 2], fd: u32, path: [u32; 2]) -> Errno {
        self.told(|wasi| {
            let base = wasi.folder(fd)?;
            let path = wasi.lift_path(path)?;
            let place = wasi.resolve_name(base, path, false)?;
            let target = wasi.lift_path(target)?;
            wasi.make_link(&place, target)
        })
    }

    /// `path_unlink_file`
    pub fn path_unlink(&mut self, fd: u32, path: [u32; 2]) -> Errno {
        self.told(|wasi| {
            let base = wasi.folder(fd)?;
            let path = wasi.lift_path(path)?;
            wasi.remove_file(base, path)
        })
    }

    /// `path_remove_directory`
    pub fn path_remove_folder(&mut self, fd: u32, path: [u32; 2]) -> Errno {
        self.told(|wasi| {
            let base = wasi.folder(fd)?;
            let path = wasi.lift_path(path)?;
            wasi.remove_folder(base, path)
        })
    }

    /// `path_filestat_set_times`
    pub fn path_times(
        &mut self,
        fd: u32,
        path_flags: u32,
        path: [u32; 2],
        times: [u64; 2],
        flags: u32,
    ) -> Errno {
        self.told(|wasi| {
            let node = wasi.path_node(fd, path, path_flags & 1 != 0)?;
            wasi.set_node_times(node, new_times(times, flags)?)
        })
    }

    /// `path_link`
    pub fn path_link(&mut self, flags: u32, from: (u32, [u32; 2]), to: (u32, [u32; 2])) -> Errno {
        self.told(|wasi| {
            let node = wasi.path_node(from.0, from.1, flags & 1 != 0)?;
            let base = wasi.folder(to.0)?;
            let path = wasi.lift_path(to.1)?;
            wasi.link_node(node, base, path)
        })
    }

    /// `path_rename`
    pub fn path_rename(&mut self, from: (u32, [u32; 2]), to: (u32, [u32; 2])) -> Errno {
        self.told(|wasi| {
            let (from_base, to_base) = (wasi.folder(from.0)?, wasi.folder(to.0)?);
            let path = wasi.lift_path(from.1)?;
            let place = wasi.resolve_name(from_base, path, false)?;
            let path = wasi.lift_path(to.1)?;
            wasi.rename(&place, to_base, path)
        })
    }

    /// What a subscription to a descriptor tells of it: bytes, and whether they have ended.
    pub(crate) fn readiness(&mut self, fd: u32, is_read: bool) -> Result<[u64; 2], Errno> {
        if let Ok(stream) = self.stream_of(fd) {
            return if (stream == STDIN) == is_read { Ok([1, 0]) } else { Err(Errno::BadFd) };
        }
        let Descriptor { which, position, .. } = self.file(fd)?;
        let has_ended = is_read && self.facts(which)?.size <= position;
        Ok([1, u64::from(has_ended)])
    }

    /// `sock_send` and its like: there are no sockets.
    pub fn fd_socket(&mut self, fd: u32) -> Errno {
        self.told(|wasi| wasi.descriptor(fd).and(Err(Errno::NotSocket)))
    }

    fn told(&mut self, action: impl FnOnce(&mut Self) -> Result<(), Errno>) -> Errno {
        action(self).err().unwrap_or(Errno::Success)
    }
}

/// `fdflags`, of what a descriptor keeps.
const KEPT_FLAGS: u8 = 0x1F;

/// Returns the flags that a file keeps.
fn kept_flags(flags: u32) -> u8 {
    u8::try_from(flags & u32::from(KEPT_FLAGS)).expect("five low bits")
}

/// Returns what a file is open for: where nothing is asked for, to be read.
const fn access_flags(rights: u64) -> u8 {
    let is_written = rights & right::WRITE != 0;
    let is_read = rights & right::READ != 0 || !is_written;
    let write = if is_written { flag::WRITE } else { 0 };
    let read = if is_read { flag::READ } else { 0 };
    let [flags, ..] = (read | write).to_le_bytes();
    flags
}

/// Reads `fstflags`.
fn new_times([accessed, modified]: [u64; 2], flags: u32) -> Result<[NewTime; 2], Errno> {
    let new = |at, flags| match flags & 3 {
        0 => Ok(NewTime::Kept),
        1 => Ok(NewTime::At(at)),
        2 => Ok(NewTime::Now),
        _ => Err(Errno::Invalid),
    };
    Ok([new(accessed, flags)?, new(modified, flags >> 2)?])
}

/// `filetype`
const fn file_type(kind: Type) -> u64 {
    match kind {
        Type::Folder => 3,
        Type::File => 4,
        Type::Link => 7,
    }
}

const _: () = assert!(size_of::<Descriptor>() == 16);
const _: () = assert!(DESCRIPTORS_NEAR < DESCRIPTORS_MAX && DESCRIPTORS_MAX <= u16::MAX as usize);
