//! What needs a few lines each: `wasi:clocks`, `wasi:random`, `wasi:cli`, and the refusals of `wasi:sockets`.

use crate::handles::{Entry, Kind};
use crate::{Wasi, World};

const SECOND_NS: u64 = 1_000_000_000;
/// Clocks go in steps of this (`CLOCK_STEP_NS`).
const RESOLUTION_NS: u64 = 1_000;
/// Random bytes are made in pieces of this size.
const PIECE_BYTES: u32 = 1024;

impl<W: World> Wasi<'_, W> {
    /// `wasi:clocks/wall-clock` `now`
    pub fn wall_now(&mut self, target: u32) {
        let now = self.world.wall_ns();
        self.lower_time(target, now);
    }

    /// `wasi:clocks/wall-clock` `resolution`
    pub fn wall_resolution(&mut self, target: u32) {
        self.lower_time(target, RESOLUTION_NS);
    }

    fn lower_time(&mut self, target: u32, ns: u64) {
        self.place_for(target, 16, 8);
        self.world.write_u64(target, ns / SECOND_NS);
        let ns = u32::try_from(ns % SECOND_NS).expect("below a second");
        self.world.write_u32(target + 8, ns);
    }

    /// `wasi:clocks/monotonic-clock` `now`
    pub fn monotonic_now(&mut self) -> u64 {
        self.world.monotonic_ns()
    }

    /// `wasi:clocks/monotonic-clock` `resolution`
    pub const fn monotonic_resolution(&mut self) -> u64 {
        RESOLUTION_NS
    }

    /// `wasi:clocks/monotonic-clock` `subscribe-duration`
    pub fn subscribe_duration(&mut self, ns: u64) -> u32 {
        let time = self.world.monotonic_ns().saturating_add(ns);
        self.pollable_at(time)
    }

    /// `wasi:random/random` `get-random-bytes`
    pub fn random_bytes(&mut self, size: u64, target: u32) {
        self.place_for(target, 8, 4);
        let Ok(size) = u32::try_from(size) else {
            self.trap("wasi: more random bytes than a memory holds")
        };
        let address = self.allocate(size, 1);
        let mut piece = [0; PIECE_BYTES as usize];
        let mut done = 0;
        while done < size {
            let taken = PIECE_BYTES.min(size - done);
            let piece = &mut piece[..crate::index(taken)];
            self.world.random(piece);
            self.world.write(address + done, piece);
            done += taken;
        }
        self.world.write_u32(target, address);
        self.world.write_u32(target + 4, size);
    }

    /// `wasi:random/random` `get-random-u64`
    pub fn random_u64(&mut self) -> u64 {
        let mut bytes = [0; 8];
        self.world.random(&mut bytes);
        u64::from_le_bytes(bytes)
    }

    /// `wasi:random/insecure-seed` `insecure-seed`
    pub fn insecure_seed(&mut self, target: u32) {
        self.place_for(target, 16, 8);
        for offset in [0, 8] {
            let number = self.random_u64();
            self.world.write_u64(target + offset, number);
        }
    }

    /// Lists that are empty: environment, arguments, preopened folders.
    pub fn empty_list(&mut self, target: u32) {
        self.place_for(target, 8, 4);
        let address = self.allocate(0, 4);
        self.world.write_u32(target, address);
        self.world.write_u32(target + 4, 0);
    }

    /// Options that are none: the working directory, terminals.
    pub fn none(&mut self, target: u32, size: u32, align: u32) {
        self.place_for(target, size, align);
        self.world.write_u8(target, 0);
    }

    /// `wasi:cli/stdin` `get-stdin`
    pub fn stdin(&mut self) -> u32 {
        self.push_kind(Kind::Nothing)
    }

    /// `wasi:cli/stdout` `get-stdout` and `wasi:cli/stderr` `get-stderr`
    pub fn line_stream(&mut self, stream: u32) -> u32 {
        self.push(Entry { kind: Kind::Line, a: stream, ..Entry::default() })
    }

    /// A result whose error is `access-denied` of `wasi:sockets/network`; sockets are not to be had.
    pub fn denied(&mut self, target: u32) {
        self.place_for(target, 8, 4);
        self.world.write_u8(target, 1);
        // `unknown` is 0.
        self.world.write_u8(target + 4, 1);
    }

    /// Says that an interface is not offered, and ends the call.
    pub fn absent(&mut self) -> ! {
        self.trap("wasi: this function is not offered here; the backtrace names it")
    }
}
