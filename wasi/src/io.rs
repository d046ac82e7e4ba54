//! `wasi:io`: streams, pollables and errors.
//!
//! A response to the guest's client is always ready to be written to, for what the client has not read is kept, and
//! beyond that a write waits.

use crate::body::Source;
use crate::fetch::{Pollables, WAIT_BODY, WAIT_PIECE, WAIT_ROOM};
use crate::handles::{Entry, Kind};
use crate::own::Span;
use crate::{Wasi, World, index, wire};

/// A read gives so much at most.
pub const READ_BYTES_MAX: u32 = 64 * 1024;
/// `check-write` allows so much.
pub const WRITE_BYTES: u64 = 64 * 1024;
/// A line of the log is cut here, as the host does.
const LINE_BYTES_MAX: u32 = 1024;

/// Whether a function may wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum May {
    /// It blocks.
    Wait,
    /// It takes what is there.
    NotWait,
}

const INPUT: &[Kind] = &[Kind::Input, Kind::Nothing, Kind::File];
const OUTPUT: &[Kind] = &[Kind::Output, Kind::Line, Kind::FileOutput];

impl<W: World> Wasi<'_, W> {
    /// `[method]input-stream.read` and `blocking-read`
    pub fn input_read(&mut self, this: u32, size: u64, target: u32, may: May) {
        let entry = *self.get(this, INPUT);
        self.place_for(target, 12, 4);
        if entry.kind == Kind::File {
            if !self.file_stream_read(this, size, target) {
                self.lower_closed(target, 4);
            }
            return;
        }
        match self.piece_of(entry, size, may) {
            Ok(Some(piece)) => {
                self.world.write_u8(target, 0);
                self.lower_own(target + 4, piece);
            }
            Ok(None) => self.lower_closed(target, 4),
            Err(error) => self.lower_failed(target, 4, error),
        }
    }

    /// `[method]input-stream.skip` and `blocking-skip`
    pub fn input_skip(&mut self, this: u32, size: u64, target: u32, may: May) {
        let entry = *self.get(this, INPUT);
        self.place_for(target, 16, 8);
        if entry.kind == Kind::File {
            let Some(skipped) = self.file_stream_skip(this, size) else {
                return self.lower_closed(target, 8);
            };
            self.world.write_u8(target, 0);
            return self.world.write_u64(target + 8, u64::from(skipped));
        }
        match self.piece_of(entry, size, may) {
            Ok(Some(piece)) => {
                self.world.write_u8(target, 0);
                self.world.write_u64(target + 8, u64::from(piece.size));
            }
            Ok(None) => self.lower_closed(target, 8),
            Err(error) => self.lower_failed(target, 8, error),
        }
    }

    /// Takes the next bytes of a stream; an empty piece where there is none yet, `None` at its end.
    fn piece_of(&mut self, entry: Entry, size: u64, may: May) -> Result<Option<Span>, u32> {
        if entry.kind == Kind::Input && entry.a != 0 {
            let size = u32::try_from(size).unwrap_or(u32::MAX);
            return self.read_fetch(entry.a, size, may == May::Wait);
        }
        if may == May::NotWait && size > 0 && !self.has_input() && !self.is_input_there() {
            return Ok(Some(Span::default()));
        }
        Ok(self.next_piece(entry.kind, size))
    }

    /// True if the guest's own request has bytes at hand, or is at its end.
    pub(crate) const fn has_input(&self) -> bool {
        self.state.input.at != self.state.input.end || !self.state.input.has_more
    }

    /// Takes the next bytes of the request's body; `None` at its end.
    pub fn next_piece(&mut self, kind: Kind, size: u64) -> Option<Span> {
        let size = u32::try_from(size).unwrap_or(u32::MAX).min(READ_BYTES_MAX);
        if kind == Kind::Nothing {
            return None;
        }
        if size == 0 {
            return Some(Span::default());
        }
        if self.state.input.at == self.state.input.end {
            if !self.state.input.has_more {
                return None;
            }
            self.fill_input();
        }
        let input = &mut self.state.input;
        let piece = Span { at: input.at, size: size.min(input.end - input.at) };
        input.at += piece.size;
        (piece.size > 0).then_some(piece)
    }

    fn fill_input(&mut self) {
        self.wait_for_input();
        self.read_input();
    }

    fn read_input(&mut self) {
        if self.state.scratch.size == 0 {
            self.state.scratch = self.take(READ_BYTES_MAX);
        }
        let scratch = self.state.scratch;
        let size = wire(self.world.body_read(&mut self.bytes[scratch.range()]));
        let input = &mut self.state.input;
        input.at = scratch.at;
        input.end = scratch.at + size.min(scratch.size);
        input.has_more = size > 0;
    }

    /// True if nothing of the request's body is still to come, whatever of it was read.
    pub(crate) const fn is_input_over(&self) -> bool {
        !self.state.input.has_more
    }

    /// Passes over a piece of the request's body, which is there.
    pub(crate) fn skip_piece(&mut self) {
        self.read_input();
        self.state.input.at = self.state.input.end;
    }

    /// Passes over what has come of the request's body; true at its end.
    pub(crate) fn skip_input(&mut self) -> bool {
        self.state.input.at = self.state.input.end;
        while !self.is_input_over() {
            if !self.is_input_there() {
                return false;
            }
            self.skip_piece();
        }
        true
    }

    /// `[method]input-stream.subscribe`, and of other things that are always ready
    pub fn subscribe(&mut self, this: u32, kinds: &[Kind]) -> u32 {
        self.get(this, kinds);
        self.push_child(this, Entry { kind: Kind::Pollable, ..Entry::default() })
    }

    /// `[method]input-stream.subscribe`
    pub fn input_subscribe(&mut self, this: u32) -> u32 {
        let Entry { kind, a, .. } = *self.get(this, INPUT);
        let (flags, a) = match (kind, a) {
            (Kind::Input, 0) => (WAIT_BODY, 0),
            (Kind::Input, _) => (WAIT_PIECE, a),
            _ => (0, 0),
        };
        self.push_child(this, Entry { kind: Kind::Pollable, flags, a, ..Entry::default() })
    }

    /// `[method]output-stream.subscribe`
    pub fn output_subscribe(&mut self, this: u32) -> u32 {
        let Entry { kind, a, .. } = *self.get(this, OUTPUT);
        let (flags, a) = if kind == Kind::Output { (WAIT_ROOM, a) } else { (0, 0) };
        self.push_child(this, Entry { kind: Kind::Pollable, flags, a, ..Entry::default() })
    }

    /// `[method]output-stream.check-write`
    pub fn output_check(&mut self, this: u32, target: u32) {
        let entry = *self.get(this, OUTPUT);
        self.place_for(target, 16, 8);
        if entry.kind == Kind::Output && self.is_closed(entry.a) {
            return self.lower_closed(target, 8);
        }
        let room = if entry.kind == Kind::Output {
            u64::from(self.body_room(entry.a))
        } else {
            WRITE_BYTES
        };
        self.world.write_u8(target, 0);
        self.world.write_u64(target + 8, room);
    }

    /// `[method]output-stream.write` and `blocking-write-and-flush`
    pub fn output_write(&mut self, this: u32, address: u32, size: u32, target: u32) {
        self.place_for(address, size, 1);
        self.output(this, Source::Guest(address), size, target);
    }

    /// `[method]output-stream.write-zeroes` and `blocking-write-zeroes-and-flush`
    pub fn output_zeros(&mut self, this: u32, size: u64, target: u32) {
        let Ok(size) = u32::try_from(size) else {
            self.trap("wasi: more zeros than a memory holds")
        };
        self.output(this, Source::Zeros, size, target);
    }

    fn output(&mut self, this: u32, source: Source, size: u32, target: u32) {
        let entry = *self.get(this, OUTPUT);
        self.place_for(target, 12, 4);
        match self.write_to(this, entry, source, size) {
            Written::Ok => self.world.write_u8(target, 0),
            Written::Closed => self.lower_closed(target, 4),
            Written::Failed(error) => self.lower_failed(target, 4, error),
        }
    }

    fn write_to(&mut self, this: u32, entry: Entry, source: Source, size: u32) -> Written {
        if entry.kind == Kind::FileOutput {
            return match self.file_stream_write(this, source, size) {
                Ok(()) => Written::Ok,
                Err(error) => Written::Failed(error),
            };
        }
        if entry.kind == Kind::Line {
            self.write_lines(entry.a, source, size);
            return Written::Ok;
        }
        if self.is_closed(entry.a) {
            return Written::Closed;
        }
        if self.state.is_command && entry.a == 0 {
            self.write_stdout(source, size);
            return Written::Ok;
        }
        match self.write_body(entry.a, source, size) {
            Ok(()) => Written::Ok,
            Err(error) => Written::Failed(error),
        }
    }

    /// The second half of functions that flush and wait for it: of the body of a request alone, for others go out
    /// before anybody waits.
    pub fn output_drain(&mut self, this: u32) {
        if !self.has_fetches() {
            return;
        }
        let Entry { kind, a, .. } = *self.get(this, OUTPUT);
        if kind == Kind::Output {
            self.drain_body(a);
        }
    }

    /// `[method]output-stream.flush` and `blocking-flush`
    pub fn output_flush(&mut self, this: u32, target: u32) {
        let Entry { kind, a, .. } = *self.get(this, OUTPUT);
        if kind == Kind::Output {
            self.flush_body(a);
        }
        self.place_for(target, 12, 4);
        self.world.write_u8(target, 0);
    }

    /// `[method]output-stream.splice` and `blocking-splice`
    pub fn output_splice(&mut self, this: u32, from: u32, size: u64, target: u32, may: May) {
        let entry = *self.get(this, OUTPUT);
        let source = *self.get(from, INPUT);
        self.place_for(target, 16, 8);
        let room = if entry.kind == Kind::Output && may == May::NotWait {
            u64::from(self.body_room(entry.a))
        } else {
            WRITE_BYTES
        };
        let found = if source.kind == Kind::File {
            Ok(self.next_of_file(from, size.min(room)))
        } else {
            let piece = self.piece_of(source, size.min(room), may);
            piece.map(|piece| piece.map(|piece| (Source::Own(piece.at), piece.size)))
        };
        let (piece, size) = match found {
            Ok(Some(found)) => found,
            Ok(None) => return self.lower_closed(target, 8),
            Err(error) => return self.lower_failed(target, 8, error),
        };
        match self.write_to(this, entry, piece, size) {
            Written::Ok => {
                self.world.write_u8(target, 0);
                self.world.write_u64(target + 8, u64::from(size));
            }
            Written::Closed => self.lower_closed(target, 8),
            Written::Failed(error) => self.lower_failed(target, 8, error),
        }
    }

    /// Lowers the `stream-error` `closed`; `offset` is where the payload of the result lies.
    fn lower_closed(&mut self, target: u32, offset: u32) {
        self.world.write_u8(target, 1);
        self.world.write_u8(target + offset, 1);
    }

    fn lower_failed(&mut self, target: u32, offset: u32, error: u32) {
        let handle = self.push(Entry { kind: Kind::Error, a: error, ..Entry::default() });
        self.world.write_u8(target, 1);
        self.world.write_u8(target + offset, 0);
        self.world.write_u32(target + offset + 4, handle);
    }

    /// Writes to the log, line by line.
    pub(crate) fn write_lines(&mut self, stream: u32, source: Source, size: u32) {
        let Source::Guest(address) = source else {
            // A splice, or zeros: nobody reads that in a log.
            return;
        };
        if self.state.lines[index(stream)].buffer.size == 0 {
            self.state.lines[index(stream)].buffer = self.take(LINE_BYTES_MAX);
        }
        let mut done = 0;
        while done < size {
            let Line { buffer, filled } = self.state.lines[index(stream)];
            let piece =
                Span { at: buffer.at + filled, size: (buffer.size - filled).min(size - done) };
            self.world.read(address + done, &mut self.bytes[piece.range()]);
            let end = self.own(piece).iter().position(|&byte| byte == b'\n');
            let taken = end.map_or(piece.size, |end| wire(end) + 1);
            self.state.lines[index(stream)].filled += taken;
            done += taken;
            if end.is_some() || filled + taken == buffer.size {
                self.end_line(stream);
            }
        }
    }

    fn end_line(&mut self, stream: u32) {
        let Line { buffer, filled } = self.state.lines[index(stream)];
        let line = &self.bytes[Span { size: filled, ..buffer }.range()];
        let line = line.strip_suffix(b"\n").unwrap_or(line);
        // Levels of the contract: 3 is info, 2 is warn.
        self.world.log(if stream == 0 { 3 } else { 2 }, line);
        self.state.lines[index(stream)].filled = 0;
    }

    /// Writes what has no line's end.
    pub fn end_lines(&mut self) {
        for stream in 0..2 {
            if self.state.lines[index(stream)].filled > 0 {
                self.end_line(stream);
            }
        }
    }

    /// `[method]pollable.ready`
    pub fn pollable_ready(&mut self, this: u32) -> u32 {
        let now = self.wait_for(Pollables::One(this), false);
        u32::from(self.is_ready(this, now))
    }

    /// `[method]pollable.block`
    pub fn pollable_block(&mut self, this: u32) {
        self.wait_for(Pollables::One(this), true);
    }

    /// `poll`
    pub fn poll(&mut self, list: u32, count: u32, target: u32) {
        if count == 0 {
            self.trap("wasi: poll of an empty list");
        }
        self.lift_list(list, count, 4, 4);
        self.place_for(target, 8, 4);
        let pollables = Pollables::List(list, count);
        let now = self.wait_for(pollables, true);
        let mut ready = 0;
        for number in 0..count {
            let handle = self.pollable(pollables, number);
            ready += u32::from(self.is_ready(handle, now));
        }
        let answer = self.allocate(ready * 4, 4);
        let mut row = answer;
        for number in 0..count {
            let handle = self.pollable(pollables, number);
            if row < answer + ready * 4 && self.is_ready(handle, now) {
                self.world.write_u32(row, number);
                row += 4;
            }
        }
        self.world.write_u32(target, answer);
        self.world.write_u32(target + 4, ready);
    }

    /// Makes a pollable that is ready from a time on.
    pub fn pollable_at(&mut self, time: u64) -> u32 {
        let [a, b, c, d, e, f, g, h] = time.to_le_bytes();
        let (a, b) = (u32::from_le_bytes([a, b, c, d]), u32::from_le_bytes([e, f, g, h]));
        self.push(Entry { kind: Kind::Pollable, a, b, ..Entry::default() })
    }

    pub(crate) fn wait_until(&mut self, time: u64) {
        if time == 0 {
            return;
        }
        while let left @ 1.. = time.saturating_sub(self.world.monotonic_ns()) {
            self.send_pending();
            self.world.sleep_ns(left);
        }
    }

    /// `[method]error.to-debug-string`
    pub fn error_text(&mut self, this: u32, target: u32) {
        let error = self.get(this, &[Kind::Error]).a;
        self.place_for(target, 8, 4);
        let of_file = crate::filesystem::file_error_name(error);
        let name = of_file.unwrap_or_else(|| crate::http::error_name(error));
        self.lower(target, name.as_bytes());
    }

    /// Drops any resource.
    pub fn drop_resource(&mut self, this: u32, kinds: &[Kind]) {
        let entry = self.remove(this, kinds);
        match entry.kind {
            Kind::OutgoingBody => self.abandon_body(entry.a),
            Kind::Descriptor | Kind::Entries | Kind::File | Kind::FileOutput => {
                self.release(entry.a);
            }
            _ => self.dropped(entry),
        }
    }
}

/// How a write went.
enum Written {
    Ok,
    Closed,
    Failed(u32),
}

/// A line that has not ended yet.
#[derive(Debug, Clone, Copy, Default)]
pub struct Line {
    buffer: Span,
    filled: u32,
}

impl Line {
    pub(crate) const NONE: Self = Self { buffer: Span { at: 0, size: 0 }, filled: 0 };
}
