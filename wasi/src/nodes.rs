//! What a guest does with files, wherever they lie: in the bundle, which is read, or in memory.
//!
//! ```text
//!   descriptors.rs (preview 1)  filesystem.rs (0.2)
//!                 \               /
//!                  nodes, by number
//!                 /               \
//!   bundle.rs  0 ..               scratch.rs, content.rs  FIRST ..
//! ```
//!
//! A path never leads from one to the other, for it stays beneath the folder that it begins in. What would change the
//! bundle answers as a file system does that is mounted read-only; so does the folder in memory while a module starts
//! up, for it begins with a request.

use crate::body::Source;
use crate::bundle::{Bundle, TIME_SECONDS};
use crate::content::Piece;
use crate::own::Span;
use crate::preview1::Errno;
use crate::scratch::{FIRST, Listed, Name, Node, ROOT, Scratch, View};
use crate::walk::{NAME_BYTES_MAX, Spot, Tree, Type, walk};
use crate::{Wasi, World, index, wire};

/// Flags of `path_open` and `open-at`: both have them in this order.
pub(crate) mod open {
    pub(crate) const CREATE: u32 = 1;
    pub(crate) const DIRECTORY: u32 = 2;
    pub(crate) const EXCLUSIVE: u32 = 4;
    pub(crate) const TRUNCATE: u32 = 8;
}

/// Cookie of a folder's first name: two are those of `.` and `..`.
pub(crate) const FIRST_COOKIE: u32 = 2;
/// Zeros that a file has no content for are given in pieces of this.
static ZEROS: [u8; 512] = [0; 512];

/// What is told of a node.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Facts {
    pub(crate) kind: Type,
    /// Which file system it is of.
    pub(crate) device: u64,
    /// No other node of that has it, and it is not 0.
    pub(crate) inode: u64,
    pub(crate) links: u64,
    /// Bytes of its content.
    pub(crate) size: u64,
    /// Read, written, changed: nanoseconds since 1970.
    pub(crate) times: [u64; 3],
    /// Is another after each change.
    pub(crate) version: u64,
}

/// Where a path leads, and what it names there.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Place {
    pub(crate) found: Option<u32>,
    pub(crate) folder: u32,
    name: Name,
    is_slashed: bool,
}

/// How a path is to be opened.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Opening {
    /// A link in its last part is followed.
    pub(crate) follows: bool,
    /// Those of [`open`].
    pub(crate) flags: u32,
    /// To be written to.
    pub(crate) is_written: bool,
}

/// What a time is to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NewTime {
    /// As it was.
    Kept,
    /// That of the call.
    Now,
    /// Nanoseconds since 1970.
    At(u64),
}

impl Place {
    fn of(spot: &Spot<'_>) -> Self {
        let Spot { found, folder, name, is_slashed } = *spot;
        Self { found, folder, name: Name::new(name), is_slashed }
    }

    /// Returns the name, if it is one that can be given and taken away.
    fn name(&self) -> Result<&Name, Errno> {
        match self.name.get() {
            b"." => Err(Errno::Invalid),
            b".." => Err(Errno::NotEmpty),
            _ => Ok(&self.name),
        }
    }
}

pub(crate) const fn is_scratch(node: u32) -> bool {
    FIRST <= node
}

impl<W: World> Wasi<'_, W> {
    pub(crate) fn bundle(&self) -> Bundle<'static> {
        Bundle::new(self.world.files())
    }

    fn view(&self) -> View<'_, W> {
        View { head: self.scratch, blocks: &self.world }
    }

    /// Returns the node of a folder that is open from the start, by its place.
    pub(crate) fn start_node(&self, place: u32) -> u32 {
        match self.bundle().node(place) {
            Ok(node) if node.is_scratch => ROOT,
            _ => place,
        }
    }

    /// Returns the folder in memory to be changed, if the node is in it.
    fn writable(&mut self, node: u32) -> Result<Scratch<'_, W>, Errno> {
        if !is_scratch(node) || !self.state.descriptors.has_begun() {
            return Err(Errno::ReadOnly);
        }
        let bundle = self.bundle();
        let mut folders = (0..bundle.folder_count()).rev();
        let now = self.world.wall_ns();
        let mut scratch = Scratch { head: self.scratch, blocks: &mut self.world, now };
        if !scratch.head.is_made() {
            let bytes = folders.find_map(|place| {
                let node = bundle.node(place).ok()?;
                node.is_scratch.then_some(node.size)
            });
            scratch.begin(bytes.unwrap_or(0))?;
            self.state.descriptors.note_written();
        }
        Ok(scratch)
    }

    pub(crate) fn kind_of(&self, node: u32) -> Result<Type, Errno> {
        if is_scratch(node) { self.view().kind(node) } else { self.bundle().kind(node) }
    }

    /// Returns a node if it is of a kind.
    pub(crate) fn needs(&self, node: u32, kind: Type, otherwise: Errno) -> Result<u32, Errno> {
        if self.kind_of(node)? == kind { Ok(node) } else { Err(otherwise) }
    }

    pub(crate) fn facts(&self, node: u32) -> Result<Facts, Errno> {
        if is_scratch(node) {
            let node = self.view().node(node);
            return Ok(Facts {
                kind: node.kind,
                device: 2,
                inode: node.serial.into(),
                links: node.links.into(),
                size: if node.kind == Type::Folder { 0 } else { node.size.into() },
                times: node.times,
                version: node.version.into(),
            });
        }
        let facts = self.bundle().node(node)?;
        Ok(Facts {
            kind: facts.kind,
            device: 1,
            inode: u64::from(node) + 1,
            links: 1,
            size: if facts.kind == Type::Folder { 0 } else { facts.size.into() },
            times: [TIME_SECONDS * 1_000_000_000; 3],
            // It never changes.
            version: 0,
        })
    }

    fn walk(&self, base: u32, path: Span, follows: bool) -> Result<Spot<'_>, Errno> {
        let path = self.own(path);
        if is_scratch(base) {
            walk(self.view(), base, path, follows)
        } else {
            walk(self.bundle(), base, path, follows)
        }
    }

    /// Finds where a path leads that was lifted.
    pub(crate) fn resolve(&self, base: u32, path: Span, follows: bool) -> Result<u32, Errno> {
        self.walk(base, path, follows)?.found.ok_or(Errno::NoEntry)
    }

    /// As [`Wasi::resolve`], with what a change of the name needs to know.
    pub(crate) fn resolve_name(
        &self,
        base: u32,
        path: Span,
        follows: bool,
    ) -> Result<Place, Errno> {
        self.walk(base, path, follows).map(|spot| Place::of(&spot))
    }

    /// Opens what a path leads to. Returns its node.
    ///
    /// # Errors
    /// Those of `open`, and in the bundle those of a file system that is mounted read-only.
    pub(crate) fn open_node(
        &mut self,
        base: u32,
        path: Span,
        opening: Opening,
    ) -> Result<u32, Errno> {
        let Opening { follows, flags, is_written } = opening;
        let changes = open::CREATE | open::EXCLUSIVE | open::TRUNCATE;
        if flags & open::DIRECTORY != 0 && flags & changes != 0 {
            return Err(Errno::Invalid);
        }
        let has = |flag| flags & flag != 0;
        let is_new = has(open::CREATE) && has(open::EXCLUSIVE);
        let spot = self.walk(base, path, follows && !is_new)?;
        let Some(node) = spot.found else {
            if !has(open::CREATE) {
                return Err(Errno::NoEntry);
            }
            let place = Place::of(&spot);
            let mut scratch = self.writable(place.folder)?;
            if place.is_slashed {
                return Err(Errno::IsFolder);
            }
            return scratch.make(place.folder, &place.name, Type::File);
        };
        if is_new {
            return Err(Errno::Exists);
        }
        let is_changed = is_written || has(open::TRUNCATE);
        match self.kind_of(node)? {
            Type::Link => Err(Errno::Loop),
            Type::Folder if is_changed || has(open::CREATE) => Err(Errno::IsFolder),
            Type::File if has(open::DIRECTORY) => Err(Errno::NotFolder),
            Type::File if is_changed && !is_scratch(node) => Err(Errno::ReadOnly),
            Type::File if has(open::TRUNCATE) => {
                self.writable(node)?.resize(node, 0)?;
                Ok(node)
            }
            Type::Folder | Type::File => Ok(node),
        }
    }

    /// Says that a node is in use: it outlives its names.
    pub(crate) fn hold(&mut self, node: u32) {
        if is_scratch(node) {
            Scratch { head: self.scratch, blocks: &mut self.world, now: 0 }.open(node);
        }
    }

    /// Ends what [`Wasi::hold`] began.
    pub(crate) fn release(&mut self, node: u32) {
        if is_scratch(node) {
            Scratch { head: self.scratch, blocks: &mut self.world, now: 0 }.close(node);
        }
    }

    /// Makes a folder.
    pub(crate) fn make_folder(&mut self, base: u32, path: Span) -> Result<(), Errno> {
        let place = self.resolve_name(base, path, false)?;
        if place.found.is_some() {
            return Err(Errno::Exists);
        }
        self.writable(base)?.make(place.folder, place.name()?, Type::Folder).map(drop)
    }

    /// Makes a link at a place that leads to `target`, which lies in our region.
    pub(crate) fn make_link(&mut self, place: &Place, target: Span) -> Result<(), Errno> {
        let text = &self.bytes[target.range()];
        if text.first() == Some(&b'/') {
            return Err(Errno::NotPermitted);
        }
        if place.found.is_some() {
            return Err(Errno::Exists);
        }
        let (is_nothing, has_zero) = (text.is_empty() || place.is_slashed, text.contains(&0));
        let mut scratch = self.writable(place.folder)?;
        if is_nothing {
            return Err(Errno::NoEntry);
        }
        if has_zero {
            return Err(Errno::Invalid);
        }
        let link = scratch.make(place.folder, place.name()?, Type::Link)?;
        let written = self.write_node(link, 0, Source::Own(target.at), target.size);
        if written.is_err() {
            // The name that was just made.
            self.writable(place.folder)?.unlink(place.folder, &place.name)?;
        }
        written.map(drop)
    }

    /// Gives a file another name.
    pub(crate) fn link_node(&mut self, node: u32, base: u32, path: Span) -> Result<(), Errno> {
        let place = self.resolve_name(base, path, false)?;
        if place.found.is_some() {
            return Err(Errno::Exists);
        }
        if place.is_slashed {
            return Err(Errno::NoEntry);
        }
        if is_scratch(base) && !is_scratch(node) {
            return Err(Errno::OtherDevice);
        }
        if self.kind_of(node)? == Type::Folder {
            return Err(Errno::NotPermitted);
        }
        self.writable(base)?.add_name(place.folder, place.name()?, node)
    }

    /// Gives what a place names another name.
    pub(crate) fn rename(&mut self, from: &Place, base: u32, path: Span) -> Result<(), Errno> {
        let node = from.found.ok_or(Errno::NoEntry)?;
        let to = self.resolve_name(base, path, false)?;
        if is_scratch(node) != is_scratch(base) {
            return Err(if is_scratch(base) { Errno::OtherDevice } else { Errno::ReadOnly });
        }
        let busy = |place: &Place| place.name().is_err();
        if is_scratch(base) && (busy(from) || busy(&to)) {
            return Err(Errno::Busy);
        }
        let is_folder = self.kind_of(node)? == Type::Folder;
        if to.is_slashed && !is_folder && is_scratch(base) {
            return Err(Errno::NotFolder);
        }
        self.writable(base)?.rename((from.folder, &from.name), (to.folder, &to.name))
    }

    /// Removes a file or a link.
    pub(crate) fn remove_file(&mut self, base: u32, path: Span) -> Result<(), Errno> {
        let place = self.resolve_name(base, path, false)?;
        match self.kind_of(place.found.ok_or(Errno::NoEntry)?)? {
            Type::Folder => Err(Errno::IsFolder),
            _ => self.writable(base)?.unlink(place.folder, &place.name),
        }
    }

    /// Removes a folder.
    pub(crate) fn remove_folder(&mut self, base: u32, path: Span) -> Result<(), Errno> {
        let place = self.resolve_name(base, path, false)?;
        match self.kind_of(place.found.ok_or(Errno::NoEntry)?)? {
            Type::Folder => self.writable(base)?.remove_folder(place.folder, place.name()?),
            _ => Err(Errno::NotFolder),
        }
    }

    /// Sets the times of reading and writing.
    pub(crate) fn set_node_times(&mut self, node: u32, new: [NewTime; 2]) -> Result<(), Errno> {
        let mut scratch = self.writable(node)?;
        let now = scratch.now;
        scratch.change(node, |node| {
            for (time, new) in node.times.iter_mut().zip(new) {
                match new {
                    NewTime::Kept => {}
                    NewTime::Now => *time = now,
                    NewTime::At(at) => *time = at,
                }
            }
            node.times[2] = now;
            node.version = node.version.wrapping_add(1);
        });
        Ok(())
    }

    /// Makes a file as long as is said.
    pub(crate) fn resize(&mut self, node: u32, size: u64) -> Result<(), Errno> {
        self.writable(node)?.resize(node, size)
    }

    /// Makes room in a file.
    pub(crate) fn allocate_node(&mut self, node: u32, offset: u64, size: u64) -> Result<(), Errno> {
        if size == 0 {
            return Err(Errno::Invalid);
        }
        self.writable(node)?.allocate(node, offset, size)
    }

    /// Writes to a file. Returns how much it took: less than all where there is no room for more.
    ///
    /// # Errors
    /// [`Errno::NoSpace`] or [`Errno::TooLarge`] where nothing was written.
    pub(crate) fn write_node(
        &mut self,
        node: u32,
        offset: u64,
        mut source: Source,
        size: u32,
    ) -> Result<u32, Errno> {
        let scratch = self.writable(node)?;
        let (mut value, now) = (scratch.view().node(node), scratch.now);
        if size == 0 {
            return Ok(0);
        }
        let offset = u32::try_from(offset).map_err(|_| Errno::TooLarge)?;
        let size = size.min(u32::MAX - offset);
        let (mut written, mut ended) = (0, Errno::TooLarge);
        while written < size {
            let mut scratch = Scratch { head: self.scratch, blocks: &mut self.world, now };
            match scratch.room_at(&mut value, offset + written, size - written) {
                Ok(piece) => {
                    let length = wire(piece.range.len());
                    self.fill(&piece, source);
                    source = source.advance(length);
                    written += length;
                }
                Err(errno) => {
                    ended = errno;
                    break;
                }
            }
        }
        if written > 0 {
            value.size = value.size.max(offset + written);
            value.touch(now);
        }
        // Also where nothing was written: what was made of its tree is the file's.
        Scratch { head: self.scratch, blocks: &mut self.world, now }.store(node, &value);
        if written > 0 { Ok(written) } else { Err(ended) }
    }

    fn fill(&mut self, piece: &Piece, source: Source) {
        let Piece { block, range } = piece.clone();
        match source {
            Source::Guest(at) => self.world.read_to_block(at, piece),
            Source::Own(at) => {
                let span = Span { at, size: wire(range.len()) };
                self.world.block_mut(block)[range].copy_from_slice(&self.bytes[span.range()]);
            }
            Source::File(bytes) => {
                let bytes = &bytes[..range.len()];
                self.world.block_mut(block)[range].copy_from_slice(bytes);
            }
            Source::Zeros => self.world.block_mut(block)[range].fill(0),
        }
    }

    /// Returns what is in a file.
    pub(crate) fn content(&self, node: u32) -> Result<Content, Errno> {
        if is_scratch(node) {
            return Ok(Content::Scratch(self.view().node(node)));
        }
        let bundle = self.bundle();
        bundle.content(bundle.node(node)?).map(Content::Bundle)
    }

    /// Copies of a file to the guest's memory, which was checked. Returns how much.
    pub(crate) fn give_content(
        &mut self,
        content: &Content,
        offset: u64,
        [address, size]: [u32; 2],
    ) -> u32 {
        let node = match content {
            Content::Scratch(node) => node,
            Content::Bundle(bytes) => {
                let rest = &bytes[start_of(bytes, offset)..];
                let piece = &rest[..rest.len().min(index(size))];
                self.world.write(address, piece);
                return wire(piece.len());
            }
        };
        let mut given = 0;
        while given < size {
            let at = offset.saturating_add(given.into());
            let piece = self.view().piece(node, at, size - given);
            let length = wire(piece.range.len());
            if length == 0 {
                break;
            }
            if piece.block == 0 {
                let mut zeros = 0;
                while zeros < length {
                    let part = (length - zeros).min(wire(ZEROS.len()));
                    self.world.write(address + given + zeros, &ZEROS[..index(part)]);
                    zeros += part;
                }
            } else {
                self.world.write_from_block(address + given, &piece);
            }
            given += length;
        }
        given
    }

    /// Returns a piece of a file to be written elsewhere; `None` at its end.
    pub(crate) fn source_of(
        &mut self,
        node: u32,
        offset: u64,
        size: u32,
    ) -> Result<Option<(Source, u32)>, Errno> {
        let content = match self.content(node)? {
            Content::Scratch(node) => node,
            Content::Bundle(bytes) => {
                let rest = &bytes[start_of(bytes, offset)..];
                let piece = &rest[..rest.len().min(index(size))];
                return Ok((!rest.is_empty()).then_some((Source::File(piece), wire(piece.len()))));
            }
        };
        if content.size == 0 || u64::from(content.size) <= offset {
            return Ok(None);
        }
        let room = self.path_room();
        let piece = self.view().piece(&content, offset, size.min(room.size));
        let length = wire(piece.range.len());
        if piece.block == 0 {
            return Ok(Some((Source::Zeros, length)));
        }
        let span = Span { size: length, ..room };
        self.bytes[span.range()].copy_from_slice(&self.world.block(piece.block)[piece.range]);
        Ok(Some((Source::Own(span.at), length)))
    }

    /// Returns where a link leads.
    pub(crate) fn link_text(&mut self, node: u32) -> Result<Span, Errno> {
        self.needs(node, Type::Link, Errno::Invalid)?;
        let room = self.path_room();
        let text = if is_scratch(node) {
            View { head: self.scratch, blocks: &self.world }.target(node)?
        } else {
            self.bundle().target(node)?
        };
        // One of a bundle that nobody has checked may be longer than a path.
        let span = Span { size: room.size.min(wire(text.len())), ..room };
        self.bytes[span.range()].copy_from_slice(&text[..index(span.size)]);
        Ok(span)
    }

    /// Returns the first of a folder's names that a cookie leaves.
    pub(crate) fn listed(&self, folder: u32, cookie: u32) -> Result<Option<Listed>, Errno> {
        if is_scratch(folder) {
            return Ok(self.view().listed(folder, cookie));
        }
        let bundle = self.bundle();
        let node = bundle.node(folder)?;
        let place = cookie.max(FIRST_COOKIE) - FIRST_COOKIE;
        if place >= node.size {
            return Ok(None);
        }
        let child = node.at.saturating_add(place);
        let name = bundle.name(bundle.node(child)?)?;
        let name = Name::new(&name[..name.len().min(NAME_BYTES_MAX)]);
        Ok(Some(Listed { name, node: child, next: place + FIRST_COOKIE + 1 }))
    }

    /// Returns the folder that a folder lies in.
    pub(crate) fn parent_of(&self, folder: u32) -> Result<u32, Errno> {
        if is_scratch(folder) { self.view().parent(folder) } else { self.bundle().parent(folder) }
    }
}

/// What is in a file.
pub(crate) enum Content {
    /// Of the bundle.
    Bundle(&'static [u8]),
    /// In memory.
    Scratch(Node),
}

fn start_of(bytes: &[u8], offset: u64) -> usize {
    u32::try_from(offset).map_or(bytes.len(), index).min(bytes.len())
}
