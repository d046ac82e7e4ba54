//! Descriptors of preview 1: the standard streams, and folders and files of the bundle.
//!
//! ```text
//!   0 1 2 | 3 .. one for each folder that is open from the start | what the program opens
//! ```
//!
//! A number that was closed is given again, the highest first, as by the engine whose answers these are held
//! against (`wasmtime run --dir`); so are the rights and the errors, but for writing: the files are read-only, and
//! what would change them answers as a file system does that is mounted so.
//!
//! The table lies in this module's memory and outside the region of a request, so that what a module opens while it
//! starts up is open for each request.
//!
//! Invariant: a descriptor's node is one that the bundle had when it was opened; bundles never change.

use crate::bundle::{Bundle, Found, Node, PATH_BYTES_MAX, TIME_SECONDS, Type};
use crate::own::Span;
use crate::preview1::{Errno, STDERR, STDIN, STDOUT, VECTORS_MAX};
use crate::{Wasi, World, index, wire};

/// Descriptors that the state has room for: those of a program that opens a file or two.
pub const DESCRIPTORS_NEAR: usize = 8;
/// Most descriptors that are open at once.
pub const DESCRIPTORS_MAX: usize = 1024;
/// The standard ones.
const STANDARD_COUNT: u32 = 3;
/// Bytes of a `dirent` before its name.
const DIRENT_BYTES: u32 = 24;

/// Flags of `path_open` and `open-at`: both have them in this order.
pub(crate) mod open {
    pub(crate) const CREATE: u32 = 1;
    pub(crate) const DIRECTORY: u32 = 2;
    pub(crate) const EXCLUSIVE: u32 = 4;
    pub(crate) const TRUNCATE: u32 = 8;
}

/// `fdflags`
mod flag {
    pub(super) const APPEND: u32 = 1;
    pub(super) const DSYNC: u32 = 2;
    pub(super) const NONBLOCK: u32 = 4;
    pub(super) const RSYNC: u32 = 8;
    pub(super) const SYNC: u32 = 16;
    pub(super) const ANY_SYNC: u32 = DSYNC | RSYNC | SYNC;
}

/// `rights`, as the engine shows them.
mod right {
    const SEEK: u64 = 1 << 2;
    pub(super) const WRITE: u64 = 1 << 6;
    const PATH_SET_SIZE: u64 = 1 << 19;
    const SET_SIZE: u64 = 1 << 22;
    const ALL: u64 = (1 << 30) - 1;
    /// Of a file that is open for reading.
    pub(super) const FILE: u64 = ALL & !WRITE;
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
    /// `fdflags`.
    flags: u8,
    /// The stream, or the node.
    which: u32,
    /// Where the next read begins.
    position: u64,
}

impl Descriptor {
    /// A place of the table that was not used yet.
    pub const CLOSED: Self = Self { stands: Stands::Closed, flags: 0, which: 0, position: 0 };

    const fn is_folder(self) -> bool {
        matches!(self.stands, Stands::Start | Stands::Folder)
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
}

impl Descriptors {
    /// Returns a table that nobody has used.
    #[must_use]
    pub const fn new() -> Self {
        let path = Span { at: 0, size: 0 };
        Self { near: [Descriptor::CLOSED; DESCRIPTORS_NEAR], count: 0, closed: 0, path }
    }

    /// Forgets what lies in the region of a request.
    pub const fn begin(&mut self) {
        self.path = Span { at: 0, size: 0 };
    }

    /// Forgets all.
    pub const fn clear(&mut self) {
        self.count = 0;
        self.closed = 0;
        self.begin();
    }

    /// True if the standard streams are where they are at the start, which is all that most programs use.
    #[must_use]
    pub const fn is_standard(&self) -> bool {
        self.count == 0
    }
}

impl<W: World> Wasi<'_, W> {
    pub(crate) fn bundle(&self) -> Bundle<'static> {
        Bundle::new(self.world.files())
    }

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
                Some(node) => {
                    Descriptor { stands: Stands::Start, which: node, ..Descriptor::CLOSED }
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

    fn give(&mut self, descriptor: Descriptor) -> Result<u32, Errno> {
        self.make_table();
        let count = u32::from(self.state.descriptors.count);
        let mut number = count;
        if self.state.descriptors.closed > 0 {
            self.state.descriptors.closed -= 1;
            while number > 0 && self.place_of(number - 1).stands != Stands::Closed {
                number -= 1;
            }
            number = number.saturating_sub(1);
        } else if index(count) == DESCRIPTORS_MAX {
            return Err(Errno::TooManyOpen);
        } else {
            self.state.descriptors.count += 1;
        }
        *self.place_of(number) = descriptor;
        Ok(number)
    }

    fn close(&mut self, number: u32) {
        *self.place_of(number) = Descriptor::CLOSED;
        self.state.descriptors.closed += 1;
    }

    /// Lifts a path. Its room is used again by the next.
    pub(crate) fn lift_path(&mut self, path: [u32; 2]) -> Result<Span, Errno> {
        let [address, size] = path;
        self.place_for(address, size, 1);
        if size > PATH_BYTES_MAX {
            return Err(Errno::NameTooLong);
        }
        if self.state.descriptors.path.size == 0 {
            self.state.descriptors.path = self.take(PATH_BYTES_MAX + 1);
        }
        let span = Span { size, ..self.state.descriptors.path };
        self.world.read(address, &mut self.bytes[span.range()]);
        match core::str::from_utf8(self.own(span)) {
            Ok(_) => Ok(span),
            Err(_) => Err(Errno::IllegalBytes),
        }
    }

    /// Finds where a path leads that was lifted.
    pub(crate) fn find_path(&self, base: u32, path: Span, follows: bool) -> Result<Found, Errno> {
        self.bundle().resolve(base, self.own(path), follows)
    }

    fn path_node(&mut self, fd: u32, path: [u32; 2], follows: bool) -> Result<u32, Errno> {
        let base = self.folder(fd)?;
        let path = self.lift_path(path)?;
        match self.find_path(base, path, follows)? {
            Found::Node(node) => Ok(node),
            Found::Absent => Err(Errno::NoEntry),
        }
    }

    /// Opens what a path leads to, to be read. Returns its node.
    ///
    /// # Errors
    /// As on a file system that is mounted read-only.
    pub(crate) fn open_node(
        &self,
        base: u32,
        path: Span,
        follows: bool,
        flags: u32,
        is_written: bool,
    ) -> Result<u32, Errno> {
        let changes = open::CREATE | open::EXCLUSIVE | open::TRUNCATE;
        if flags & open::DIRECTORY != 0 && flags & changes != 0 {
            return Err(Errno::Invalid);
        }
        let has = |flag| flags & flag != 0;
        let is_new = has(open::CREATE) && has(open::EXCLUSIVE);
        let found = self.find_path(base, path, follows && !is_new)?;
        let Found::Node(node) = found else {
            return Err(if has(open::CREATE) { Errno::ReadOnly } else { Errno::NoEntry });
        };
        if is_new {
            return Err(Errno::Exists);
        }
        match self.bundle().node(node)?.kind {
            Type::Link => Err(Errno::Loop),
            Type::Folder if is_written || has(open::CREATE | open::TRUNCATE) => {
                Err(Errno::IsFolder)
            }
            Type::File if has(open::DIRECTORY) => Err(Errno::NotFolder),
            Type::File if is_written || has(open::TRUNCATE) => Err(Errno::ReadOnly),
            Type::Folder | Type::File => Ok(node),
        }
    }

    /// `fd_read` of what is no standard stream
    pub fn file_read(&mut self, fd: u32, vectors: u32, count: u32, target: u32) -> Errno {
        self.told(|wasi| {
            let Descriptor { which, position, .. } = wasi.file(fd)?;
            let read = wasi.read_vectors(which, position, [vectors, count], target)?;
            wasi.place_of(fd).position = position + u64::from(read);
            Ok(())
        })
    }

    /// `fd_pread`
    pub fn fd_pread(&mut self, fd: u32, vectors: [u32; 2], offset: u64, target: u32) -> Errno {
        self.told(|wasi| {
            let descriptor = wasi.descriptor(fd)?;
            match descriptor.stands {
                Stands::File => {
                    wasi.read_vectors(descriptor.which, offset, vectors, target).map(drop)
                }
                Stands::Stream if descriptor.which == STDIN => Err(Errno::Pipe),
                _ => Err(Errno::BadFd),
            }
        })
    }

    /// `fd_pwrite`: the streams have no places, and the files are not written.
    pub fn fd_pwrite(&mut self, fd: u32) -> Errno {
        self.told(|wasi| match wasi.stream_of(fd)? {
            STDOUT | STDERR => Err(Errno::Pipe),
            _ => Err(Errno::BadFd),
        })
    }

    /// Fills a guest's buffers from a file; returns how much that was.
    fn read_vectors(
        &mut self,
        node: u32,
        offset: u64,
        [vectors, count]: [u32; 2],
        target: u32,
    ) -> Result<u32, Errno> {
        if count > VECTORS_MAX {
            return Err(Errno::Invalid);
        }
        self.lift_list(vectors, count, 8, 4);
        self.place_for(target, 4, 4);
        if i64::try_from(offset).is_err() {
            return Err(Errno::Invalid);
        }
        let bundle = self.bundle();
        let mut rest = bundle.content_from(bundle.node(node)?, offset)?;
        let mut read = 0;
        for row in (vectors..).step_by(8).take(index(count)) {
            let (address, size) = (self.guest_u32(row), self.guest_u32(row + 4));
            self.place_for(address, size, 1);
            let (piece, behind) = rest.split_at(rest.len().min(index(size)));
            self.world.write(address, piece);
            read += wire(piece.len());
            rest = behind;
        }
        self.world.write_u32(target, read);
        Ok(read)
    }

    /// `fd_seek`
    pub fn fd_seek(&mut self, fd: u32, offset: i64, whence: u32, target: u32) -> Errno {
        self.place_for(target, 8, 8);
        self.told(|wasi| {
            let Descriptor { which, position, .. } = wasi.seekable(fd)?;
            let from = match whence {
                0 => 0,
                1 => position,
                2 => u64::from(wasi.bundle().node(which)?.size),
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
            let Descriptor { stands, flags, .. } = wasi.opened(fd)?;
            let (kind, rights, inherited) = match stands {
                Stands::Start => (Type::Folder, right::START, right::INHERITED),
                Stands::Folder => (Type::Folder, right::FOLDER, right::FOLDER),
                _ => (Type::File, right::FILE, right::FILE),
            };
            wasi.place_for(target, 24, 8);
            wasi.world.write_u64(target, file_type(kind) | u64::from(flags) << 16);
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
            wasi.file(fd)?;
            if flags & flag::ANY_SYNC != 0 {
                return Err(Errno::Invalid);
            }
            wasi.place_of(fd).flags = kept_flags(flags);
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
    pub fn fd_allocate(&mut self, fd: u32) -> Errno {
        self.told(|wasi| wasi.file(fd).and(Err(Errno::NotSupported)))
    }

    /// `fd_filestat_set_size`: no descriptor is open for writing.
    pub fn set_size(&mut self, fd: u32) -> Errno {
        self.told(|wasi| wasi.file(fd).and(Err(Errno::Invalid)))
    }

    /// `fd_filestat_set_times`
    pub fn set_times(&mut self, fd: u32) -> Errno {
        self.told(|wasi| wasi.opened(fd).and(Err(Errno::ReadOnly)))
    }

    /// `fd_sync` and `fd_datasync`: what is read-only is in order, and a stream goes out by itself.
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
                wasi.close(from);
                *wasi.place_of(to) = moved;
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
        bundle.name(bundle.node(descriptor.which)?).map(Some)
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
            let node = wasi.folder(fd)?;
            let bundle = wasi.bundle();
            let folder = bundle.node(node)?;
            let mut written = 0;
            let first = u32::try_from(cookie).unwrap_or(u32::MAX);
            for place in first..folder.size.saturating_add(2) {
                let (entry, name): (u32, &[u8]) = match place {
                    0 => (node, b"."),
                    1 => (folder.parent, b".."),
                    _ => {
                        let child = folder.at.saturating_add(place - 2);
                        (child, bundle.name(bundle.node(child)?)?)
                    }
                };
                let mut row = [0; index(DIRENT_BYTES)];
                row[..8].copy_from_slice(&(u64::from(place) + 1).to_le_bytes());
                row[8..16].copy_from_slice(&inode(entry).to_le_bytes());
                row[16..20].copy_from_slice(&wire(name.len()).to_le_bytes());
                [row[20], ..] = file_type(bundle.node(entry)?.kind).to_le_bytes();
                // What has no room for its end is cut: the program sees a full buffer, and asks again.
                for piece in [&row[..], name] {
                    let piece = &piece[..piece.len().min(index(size - written))];
                    wasi.world.write(buffer + written, piece);
                    written += wire(piece.len());
                }
                if written == size {
                    break;
                }
            }
            wasi.world.write_u32(target, written);
            Ok(())
        })
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
        let facts = self.bundle().node(node)?;
        self.place_for(target, 64, 8);
        let time = TIME_SECONDS * 1_000_000_000;
        let numbers = [1, inode(node), file_type(facts.kind), 1, bytes_of(facts), time, time, time];
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
            if fd_flags & flag::ANY_SYNC != 0 {
                return Err(Errno::NotSupported);
            }
            let is_written = rights & right::WRITE != 0;
            let node = wasi.open_node(base, path, dir_flags & 1 != 0, open_flags, is_written)?;
            let stands = match wasi.bundle().node(node)?.kind {
                Type::Folder => Stands::Folder,
                _ => Stands::File,
            };
            let flags = if stands == Stands::File { kept_flags(fd_flags) } else { 0 };
            let number = wasi.give(Descriptor { stands, flags, which: node, position: 0 })?;
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
            let text = wasi.link_target(node)?;
            let text = &text[..text.len().min(index(size))];
            wasi.world.write(buffer, text);
            wasi.world.write_u32(target, wire(text.len()));
            Ok(())
        })
    }

    /// Returns where a link leads.
    pub(crate) fn link_target(&self, node: u32) -> Result<&'static [u8], Errno> {
        let bundle = self.bundle();
        let link = bundle.node(node)?;
        if link.kind == Type::Link { bundle.content(link) } else { Err(Errno::Invalid) }
    }

    /// `path_create_directory` and what else makes a name: it is there, or there is no way to make it.
    pub fn path_make(&mut self, fd: u32, path: [u32; 2]) -> Errno {
        self.told(|wasi| {
            let base = wasi.folder(fd)?;
            let path = wasi.lift_path(path)?;
            wasi.refuse_new(base, path)
        })
    }

    pub(crate) fn refuse_new(&self, base: u32, path: Span) -> Result<(), Errno> {
        match self.find_path(base, path, false)? {
            Found::Node(_) => Err(Errno::Exists),
            Found::Absent => Err(Errno::ReadOnly),
        }
    }

    /// `path_unlink_file`, `path_remove_directory` and `path_filestat_set_times`
    pub fn path_change(&mut self, fd: u32, path: [u32; 2], needs: Needs) -> Errno {
        self.told(|wasi| {
            let base = wasi.folder(fd)?;
            let path = wasi.lift_path(path)?;
            wasi.refuse_change(base, path, needs)
        })
    }

    pub(crate) fn refuse_change(&self, base: u32, path: Span, needs: Needs) -> Result<(), Errno> {
        let Found::Node(node) = self.find_path(base, path, needs == Needs::Followed)? else {
            return Err(Errno::NoEntry);
        };
        let is_folder = self.bundle().node(node)?.kind == Type::Folder;
        match needs {
            Needs::NoFolder if is_folder => Err(Errno::IsFolder),
            Needs::Folder if !is_folder => Err(Errno::NotFolder),
            _ => Err(Errno::ReadOnly),
        }
    }

    /// `path_link` and `path_rename`: from one name to another.
    pub fn path_move(&mut self, from: (u32, [u32; 2]), to: (u32, [u32; 2])) -> Errno {
        self.told(|wasi| {
            let (from_base, to_base) = (wasi.folder(from.0)?, wasi.folder(to.0)?);
            let path = wasi.lift_path(from.1)?;
            let Found::Node(_) = wasi.find_path(from_base, path, false)? else {
                return Err(Errno::NoEntry);
            };
            let path = wasi.lift_path(to.1)?;
            wasi.find_path(to_base, path, false)?;
            Err(Errno::ReadOnly)
        })
    }

    /// What a subscription to a descriptor tells of it: bytes, and whether they have ended.
    pub(crate) fn readiness(&mut self, fd: u32, is_read: bool) -> Result<[u64; 2], Errno> {
        if let Ok(stream) = self.stream_of(fd) {
            return if (stream == STDIN) == is_read { Ok([1, 0]) } else { Err(Errno::BadFd) };
        }
        let Descriptor { which, position, .. } = self.file(fd)?;
        let has_ended = is_read && u64::from(self.bundle().node(which)?.size) <= position;
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

/// What a change to a name asks of what is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Needs {
    /// Nothing.
    Any,
    /// Nothing, of what a link leads to.
    Followed,
    /// That it is a folder.
    Folder,
    /// That it is none.
    NoFolder,
}

impl Needs {
    /// Returns what `lookupflags` and `path-flags` ask for.
    #[must_use]
    pub const fn by_flags(flags: u32) -> Self {
        if flags & 1 == 0 { Self::Any } else { Self::Followed }
    }
}

/// Returns the flags that a file keeps.
fn kept_flags(flags: u32) -> u8 {
    u8::try_from(flags & (flag::APPEND | flag::NONBLOCK)).expect("two low bits")
}

/// `filetype`
const fn file_type(kind: Type) -> u64 {
    match kind {
        Type::Folder => 3,
        Type::File => 4,
        Type::Link => 7,
    }
}

/// Returns a number that no other node has, and that is not 0.
pub(crate) fn inode(node: u32) -> u64 {
    u64::from(node) + 1
}

/// Returns what a `filestat` has as size.
pub(crate) fn bytes_of(node: Node) -> u64 {
    if node.kind == Type::Folder { 0 } else { u64::from(node.size) }
}

const _: () = assert!(size_of::<Descriptor>() == 16);
const _: () = assert!(DESCRIPTORS_NEAR < DESCRIPTORS_MAX && DESCRIPTORS_MAX <= u16::MAX as usize);
