//! What needs a few lines each: `wasi:clocks`, `wasi:random`, `wasi:cli`, and the refusals of `wasi:sockets`.

use crate::handles::{Entry, Kind};
use crate::own::Span;
use crate::preview1::Which;
use crate::{Wasi, World, wire};

const SECOND_NS: u64 = 1_000_000_000;
/// Clocks go in steps of this (`CLOCK_STEP_NS`).
pub(crate) const RESOLUTION_NS: u64 = 1_000;
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
        self.fill_random(address, size);
        self.world.write_u32(target, address);
        self.world.write_u32(target + 4, size);
    }

    /// Fills a region of the guest's, which was checked.
    pub(crate) fn fill_random(&mut self, address: u32, size: u32) {
        let mut piece = [0; PIECE_BYTES as usize];
        let mut done = 0;
        while done < size {
            let taken = PIECE_BYTES.min(size - done);
            let piece = &mut piece[..crate::index(taken)];
            self.world.random(piece);
            self.world.write(address + done, piece);
            done += taken;
        }
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

    /// `wasi:cli/environment` `get-environment` and `get-arguments`
    pub fn strings_list(&mut self, which: Which, target: u32) {
        if !self.state.is_command {
            return self.empty_list(target);
        }
        self.place_for(target, 8, 4);
        let strings = self.strings(which);
        let row_size = if which == Which::Environment { 16 } else { 8 };
        let list = self.allocate(strings.count * row_size, 4);
        let mut rest = strings.text;
        for row in (list..).step_by(crate::index(row_size)).take(crate::index(strings.count)) {
            let bytes = self.own(rest);
            let end = wire(bytes.iter().position(|&byte| byte == 0).unwrap_or(bytes.len()));
            let text = Span { size: end, ..rest };
            rest = Span { at: rest.at + end + 1, size: rest.size - end - 1 };
            if which == Which::Arguments {
                self.lower_text(row, text);
                continue;
            }
            let equals = self.own(text).iter().position(|&byte| byte == b'=').map_or(end, wire);
            let behind = (equals + 1).min(end);
            self.lower_text(row, Span { size: equals, ..text });
            self.lower_text(row + 8, Span { at: text.at + behind, size: end - behind });
        }
        self.world.write_u32(target, list);
        self.world.write_u32(target + 4, strings.count);
    }

    /// Lowers a string, empty where it is no text: what a client sends as a header may be any bytes.
    fn lower_text(&mut self, target: u32, text: Span) {
        let is_text = core::str::from_utf8(self.own(text)).is_ok();
        self.lower_own(target, if is_text { text } else { Span { size: 0, ..text } });
    }

    /// Lists that are empty: preopened folders, and what only programs have.
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
        self.push_kind(if self.state.is_command { Kind::Input } else { Kind::Nothing })
    }

    /// `wasi:cli/exit` `exit` and `exit-with-code`, and `proc_exit`
    pub fn exit(&mut self, code: u32) -> ! {
        let record = if self.state.is_command { self.end_command(code) } else { self.end() };
        self.world.exit(record)
    }

    /// `wasi:cli/stdout` `get-stdout` and `wasi:cli/stderr` `get-stderr`
    pub fn line_stream(&mut self, stream: u32) -> u32 {
        if self.state.is_command && stream == 0 {
            return self.push_kind(Kind::Output);
        }
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
