//! The table of resources, as the component model's: one for the instance, from index 1, the index that was
//! freed last given first.

use crate::{Wasi, World};

/// Handles that the state has room for: more are kept apart, so that few make few pages dirty.
pub const NEAR: usize = 24;
/// Most handles that are alive at once.
pub const HANDLES_MAX: usize = 16 * 1024;

/// What a handle stands for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// Nothing.
    #[default]
    Free,
    /// `fields`: `a` is the first of its lines, `b` the last; with [`IMMUTABLE`].
    Fields,
    /// `incoming-request`; with [`TAKEN`].
    Request,
    /// `response-outparam`.
    Outparam,
    /// `incoming-body`: `a` is the host's handle of the request that it answers, 0 for the body of the guest's own;
    /// with [`TAKEN`].
    IncomingBody,
    /// `input-stream` of such a body; `a` as there.
    Input,
    /// `input-stream` that has ended.
    Nothing,
    /// `future-trailers`; `a` as an `incoming-body`'s; with [`TAKEN`].
    Trailers,
    /// `outgoing-response`: `a` is the first of its headers, `b` its status, and its body behind it.
    Response,
    /// `outgoing-body`: `a` is its index; with [`TAKEN`].
    OutgoingBody,
    /// `output-stream` of a body: `a` is its index.
    Output,
    /// `output-stream` to the log: `a` is 0 or 1.
    Line,
    /// `pollable`: its flags say what it waits for; `a` and `b` are the time from which it is ready, or `a` is the
    /// host's handle, or the body's index.
    Pollable,
    /// `error`: `a` says which.
    Error,
    /// `outgoing-request`: `a` is its record.
    OutgoingRequest,
    /// `request-options`: `a` is its record.
    Options,
    /// `future-incoming-response`: `a` is the host's handle; with [`TAKEN`].
    FutureResponse,
    /// `incoming-response`: `a` is the first of its headers, `b` its status above the host's handle; with [`TAKEN`].
    IncomingResponse,
    /// `network`.
    Network,
    /// `descriptor`: `a` is its node, `flags` what it is open for.
    Descriptor,
    /// `directory-entry-stream`: `a` is the folder's node, `b` the cookie of the next entry.
    Entries,
    /// `input-stream` of a file: `a` is its node, `b` where the next read begins.
    File,
    /// `output-stream` of a file: `a` is its node, `b` where the next write begins; with [`APPENDS`].
    FileOutput,
}

/// The object cannot be changed any more.
pub const IMMUTABLE: u8 = 1;
/// What it gives once has been given.
pub const TAKEN: u8 = 2;

/// Each write begins at the end.
pub const APPENDS: u8 = 4;

/// One place of the table.
#[derive(Debug, Clone, Copy, Default)]
pub struct Entry {
    /// What it is.
    pub kind: Kind,
    /// Bits of its state.
    pub flags: u8,
    /// How many others hang on it: it cannot be dropped before them.
    pub children: u16,
    /// What it hangs on; the next free place where it is free.
    pub parent: u16,
    /// As its kind says.
    pub a: u32,
    /// As its kind says.
    pub b: u32,
}

/// The table.
#[derive(Debug, Default)]
pub struct Handles {
    near: [Entry; NEAR],
    count: u16,
    free: u16,
}

impl Entry {
    /// A free place.
    pub const FREE: Self = Self { kind: Kind::Free, flags: 0, children: 0, parent: 0, a: 0, b: 0 };
}

impl Handles {
    /// Returns an empty table.
    #[must_use]
    pub const fn new() -> Self {
        Self { near: [Entry::FREE; NEAR], count: 0, free: 0 }
    }

    /// Returns how many places were ever used.
    #[must_use]
    pub const fn count(&self) -> u16 {
        self.count
    }
}

impl<W: World> Wasi<'_, W> {
    fn place(&mut self, handle: u16) -> &mut Entry {
        let place = usize::from(handle) - 1;
        match place.checked_sub(NEAR) {
            None => &mut self.state.handles.near[place],
            Some(far) => &mut self.more[far],
        }
    }

    /// Makes a handle.
    pub fn push(&mut self, entry: Entry) -> u32 {
        let free = self.state.handles.free;
        let handle = if free == 0 {
            if usize::from(self.state.handles.count) == HANDLES_MAX {
                self.trap("wasi: more handles are alive than the table holds");
            }
            self.state.handles.count += 1;
            self.state.handles.count
        } else {
            self.state.handles.free = self.place(free).parent;
            free
        };
        if entry.parent != 0 {
            let parent = self.place(entry.parent);
            parent.children = parent.children.checked_add(1).expect("fewer than handles");
        }
        *self.place(handle) = entry;
        u32::from(handle)
    }

    /// Makes a handle of an object that is its kind and nothing else.
    pub fn push_kind(&mut self, kind: Kind) -> u32 {
        self.push(Entry { kind, ..Entry::default() })
    }

    /// Finds a handle of one of these kinds; traps for any other.
    pub fn get(&mut self, handle: u32, kinds: &[Kind]) -> &mut Entry {
        let known = u16::try_from(handle)
            .ok()
            .filter(|&handle| 0 < handle && handle <= self.state.handles.count);
        let Some(handle) = known else { self.trap("wasi: unknown handle") };
        let kind = self.place(handle).kind;
        if !kinds.contains(&kind) {
            let is_free = kind == Kind::Free;
            self.trap(if is_free {
                "wasi: handle was dropped"
            } else {
                "wasi: handle of another type"
            });
        }
        self.place(handle)
    }

    /// Takes a handle out of the table: the guest has given it away, or dropped it.
    pub fn remove(&mut self, handle: u32, kinds: &[Kind]) -> Entry {
        let entry = *self.get(handle, kinds);
        if entry.children > 0 {
            self.trap("wasi: resource has children that are still alive");
        }
        if entry.parent != 0 {
            self.place(entry.parent).children -= 1;
        }
        let next = self.state.handles.free;
        let handle = u16::try_from(handle).expect("`get` found it");
        *self.place(handle) = Entry { parent: next, ..Entry::default() };
        self.state.handles.free = handle;
        entry
    }

    /// Makes a handle that hangs on another.
    pub fn push_child(&mut self, parent: u32, entry: Entry) -> u32 {
        let parent = u16::try_from(parent).expect("a handle that `get` found");
        self.push(Entry { parent, ..entry })
    }
}

const _: () = assert!(HANDLES_MAX < u16::MAX as usize);
const _: () = assert!(size_of::<Entry>() == 16);
