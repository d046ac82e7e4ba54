//! WASI over the midge contract: the interfaces that components import, as a module that is linked with them.
//!
//! ```text
//!   component's core modules --import--> this --import--> midge.log, random, body_read, ..   the host
//!        memory 1                       memory 0 "memory": area, handles, buffers
//! ```
//!
//! The loader links both into one core module (`loader/src/link.rs`). So what the canonical ABI asks for, from
//! the ownership of handles to the bounds of strings, is checked on the guest's side of the sandbox: a fault
//! here harms the one request, and the host still checks every byte of the response as that of any guest. And
//! so handles, streams and buffers are memory, which is restored, proven and isolated like all memory.
//!
//! Everything but `export.rs` is safe and builds for any machine; the tests run it over memories of their own.
//!
//! Invariant: [`Wasi`] is entered once at a time. A guest that calls in while its `cabi_realloc` runs traps,
//! as the canonical ABI has it (`may_leave`).
//!
//! Sources: the component model's canonical ABI; the WIT of WASI 0.2.12.
#![cfg_attr(target_arch = "wasm32", no_std)]

pub mod blocks; // memory of the folder that a guest may write to
pub mod bundle; // files that were packed with the guest
pub mod body; // bodies that are written, and the response they belong to
pub mod cgi; // a request as environment variables
pub mod content; // what is in its files
pub mod fetch; // requests that were sent, and waiting
pub mod descriptors; // descriptors of preview 1: files and folders
pub mod fields; // headers
pub mod filesystem; // wasi:filesystem
pub mod guest; // the guest's memory: what is lifted from it and lowered to it
pub mod handles; // the table of resources
pub mod http; // wasi:http
pub mod io; // wasi:io: streams, pollables, errors
pub mod nodes; // files and folders, wherever they lie
#[cfg(not(target_arch = "wasm32"))]
pub mod pack; // makes a bundle, on the host
pub mod preview1; // wasi_snapshot_preview1
pub mod outgoing; // requests that the guest makes
pub mod own; // this module's own memory
pub mod scratch; // the folder that a guest may write to
pub mod small; // clocks, chance, environment, standard streams
pub mod walk; // paths

#[cfg(target_arch = "wasm32")]
mod export; // the exported functions
#[cfg(test)]
mod model; // the folder in memory against a simple one
#[cfg(test)]
mod testing; // a guest and a host for tests

use crate::body::{Bodies, Output};
use crate::descriptors::Descriptors;
use crate::handles::Handles;
use crate::own::Own;

/// What this module asks of the two sides that it lies between, and the memory of the folder that may be written to.
pub trait World: blocks::Blocks {
    /// Returns the size of the guest's memory in bytes.
    fn memory_size(&self) -> u64;
    /// Copies bytes of the guest's memory; traps if they lie outside.
    fn read(&self, address: u32, target: &mut [u8]);
    /// Copies bytes to the guest's memory; traps if they lie outside.
    fn write(&mut self, address: u32, bytes: &[u8]);
    /// Copies bytes of the guest's memory to a piece of a block; traps if they lie outside.
    fn read_to_block(&mut self, address: u32, piece: &content::Piece);
    /// Copies a piece of a block to the guest's memory; traps if it lies outside.
    fn write_from_block(&mut self, address: u32, piece: &content::Piece);
    /// Writes one number to the guest's memory; traps if it lies outside.
    fn write_u8(&mut self, address: u32, value: u8) {
        self.write(address, &value.to_le_bytes());
    }
    /// Reads one number of the guest's memory; traps if it lies outside.
    fn read_u32(&self, address: u32) -> u32 {
        let mut bytes = [0; 4];
        self.read(address, &mut bytes);
        u32::from_le_bytes(bytes)
    }
    /// As [`World::write_u8`].
    fn write_u32(&mut self, address: u32, value: u32) {
        self.write(address, &value.to_le_bytes());
    }
    /// As [`World::write_u8`].
    fn write_u64(&mut self, address: u32, value: u64) {
        self.write(address, &value.to_le_bytes());
    }
    /// Calls the guest's `cabi_realloc`.
    fn realloc(&mut self, old: u32, old_size: u32, align: u32, size: u32) -> u32;

    /// Returns the bundle of files; empty where there is none.
    fn files(&self) -> &'static [u8];

    /// Writes a line to the host's log; levels as in the contract.
    fn log(&mut self, level: i32, line: &[u8]);
    /// Returns nanoseconds since 1970.
    fn wall_ns(&self) -> u64;
    /// Returns nanoseconds since the request began.
    fn monotonic_ns(&self) -> u64;
    /// Fills the region with random bytes.
    fn random(&mut self, target: &mut [u8]);
    /// Waits for more of the request's body. Returns how many bytes it put into the region; 0 at its end.
    fn body_read(&mut self, target: &mut [u8]) -> usize;
    /// Sends the head of the response whose record has this address in this module's memory.
    fn response_start(&mut self, record: u32);
    /// Sends a piece of the body.
    fn response_write(&mut self, piece: &[u8]);
    /// Rests.
    fn sleep_ns(&mut self, ns: u64);
    /// Begins the request whose record has this address in this module's memory. Answers are those of the
    /// contract, of this and of those that follow.
    fn fetch(&mut self, record: u32) -> i32;
    /// Sends a piece of its body.
    fn fetch_write(&mut self, handle: u32, piece: &[u8]) -> i32;
    /// Ends its body.
    fn fetch_finish(&mut self, handle: u32) -> i32;
    /// Writes the head of its response.
    fn fetch_head(&mut self, handle: u32, target: &mut [u8]) -> i32;
    /// Reads on in its response.
    fn fetch_read(&mut self, handle: u32, target: &mut [u8]) -> i32;
    /// Forgets it.
    fn fetch_close(&mut self, handle: u32);
    /// Writes what came behind the body of its response, or for 0 behind that of the guest's own request.
    fn trailers_read(&mut self, handle: u32, target: &mut [u8]) -> i32;
    /// Ends its body, or for 0 that of the response, with so many rows behind it, whose table has this address in this
    /// module's memory.
    fn trailers_write(&mut self, handle: u32, rows: u32, count: u32) -> i32;
    /// Waits for one of these rows, or this time in nanoseconds, if it is not negative.
    fn wait(&mut self, rows: &mut [u8], time: i64);
    /// Ends the call with the response whose record has this address; 0 where it was written already.
    fn exit(&mut self, record: u32) -> !;
    /// Ends the call: what the guest did cannot go on.
    fn trap(&mut self, reason: &str) -> !;
}

/// What is known of the request and not in its block.
#[derive(Debug, Default)]
pub struct Input {
    /// Where the block's body begins that was not read yet.
    at: u32,
    /// Where it ends.
    end: u32,
    /// True if the host has more of it.
    has_more: bool,
}

/// State between two calls of the guest's. All zero is a fresh one.
#[derive(Debug, Default)]
pub struct State {
    own: Own,
    input: Input,
    handles: Handles,
    descriptors: Descriptors,
    bodies: Bodies,
    output: Output,
    /// The first of the request's headers, once a guest has asked for them.
    request_headers: u32,
    /// What is read of the body beyond the request's block lies here.
    scratch: own::Span,
    /// So does what is read of other servers' responses.
    fetch_scratch: own::Span,
    /// What is waited for, and how many rows there are of it.
    rows: own::Span,
    row_count: u32,
    /// A body belongs to a request that was sent.
    has_fetches: bool,
    /// Bits of the host's handles of requests whose bodies will never be whole.
    failed_fetches: u32,
    /// Lines of stdout and stderr that have not ended yet.
    lines: [io::Line; 2],
    /// A program runs, whose stdout is the response.
    is_command: bool,
    /// Its output is beyond the header.
    is_header_over: bool,
    /// There was one.
    has_header: bool,
    environment: preview1::Strings,
    arguments: preview1::Strings,
}

impl State {
    /// Returns a fresh one.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            own: Own::new(),
            input: Input { at: 0, end: 0, has_more: false },
            handles: Handles::new(),
            descriptors: Descriptors::new(),
            bodies: Bodies::new(),
            output: Output::new(),
            request_headers: 0,
            scratch: own::Span { at: 0, size: 0 },
            fetch_scratch: own::Span { at: 0, size: 0 },
            rows: own::Span { at: 0, size: 0 },
            row_count: 0,
            has_fetches: false,
            failed_fetches: 0,
            lines: [io::Line::NONE; 2],
            is_command: false,
            is_header_over: false,
            has_header: false,
            environment: preview1::Strings::NONE,
            arguments: preview1::Strings::NONE,
        }
    }
}

/// One entry from the guest: state, memory of our own, both sides.
pub struct Wasi<'a, W> {
    /// What is kept.
    pub state: &'a mut State,
    /// Memory: the request's block, and behind it whatever is made for this request.
    pub bytes: &'a mut [u8],
    /// Handles beyond those that `state` has room for.
    pub more: &'a mut [handles::Entry],
    /// Descriptors beyond those that `state` has room for.
    pub descriptors: &'a mut [descriptors::Descriptor],
    /// The folder that may be written to.
    pub scratch: &'a mut scratch::Head,
    /// Address of `bytes` in this module's memory.
    pub base: u32,
    /// Guest and host.
    pub world: W,
}

impl<W: World> Wasi<'_, W> {
    /// Ends the call.
    pub fn trap(&mut self, reason: &str) -> ! {
        self.world.trap(reason)
    }
}

/// Returns a size as the guest's numbers are.
///
/// # Panics
/// Never where `usize` has 32 bits; elsewhere for more than 4 GiB.
#[must_use]
pub fn wire(size: usize) -> u32 {
    u32::try_from(size).expect("what lies in a memory of 32 bits")
}

/// Returns a guest's number as an index.
#[must_use]
pub const fn index(number: u32) -> usize {
    number as usize
}
