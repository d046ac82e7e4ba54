//! What the guest answers: bodies that it writes, and the one response that they belong to.
//!
//! A body is collected. It goes to the host as a whole when the call ends, or in pieces once it is larger than
//! [`PIECE_BYTES`] or the guest waits for something: so small responses cost no call of the host's, and
//! events reach their reader before the guest rests.

use crate::own::Span;
use crate::{Wasi, World, index};

/// A buffer of this size goes out.
pub const PIECE_BYTES: u32 = 64 * 1024;
/// So much of a body is kept while there is no response that it belongs to.
pub const UNSET_BYTES_MAX: u32 = 1024 * 1024;
/// A body's first buffer.
const FIRST_BYTES: u32 = 256;
/// Most bodies that are begun during one request.
pub const BODIES_MAX: usize = 16;
/// `error-code`: the response's body has another size than its header says.
pub const ERROR_RESPONSE_BODY_SIZE: u32 = 28;

/// How far a body is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Stage {
    /// It is written.
    #[default]
    Open,
    /// It is whole.
    Finished,
    /// It will never be whole.
    Failed,
}

/// A body.
#[derive(Debug, Clone, Copy, Default)]
pub struct Body {
    buffer: Span,
    filled: u32,
    stage: Stage,
    /// What `content-length` says.
    length: Option<u64>,
    written: u64,
}

/// All bodies.
#[derive(Debug, Default)]
pub struct Bodies {
    bodies: [Body; BODIES_MAX],
    count: u8,
}

impl Body {
    const NONE: Self = Self {
        buffer: Span { at: 0, size: 0 },
        filled: 0,
        stage: Stage::Open,
        length: None,
        written: 0,
    };
}

impl Bodies {
    /// Returns none.
    #[must_use]
    pub const fn new() -> Self {
        Self { bodies: [Body::NONE; BODIES_MAX], count: 0 }
    }

    /// Forgets all.
    pub const fn clear(&mut self) {
        self.count = 0;
    }
}

/// The response.
#[derive(Debug, Default)]
pub struct Output {
    /// True once `response-outparam.set` was called.
    pub is_set: bool,
    /// The `error-code` that it was set to, and one more; 0 for a response.
    pub error: u8,
    /// Its head was sent.
    pub is_started: bool,
    /// Its body's index, and one more; 0 for none.
    pub body: u8,
    /// Its status.
    pub status: u16,
    /// The first of its headers.
    pub headers: u32,
}

impl Output {
    /// Returns one that is not set.
    #[must_use]
    pub const fn new() -> Self {
        Self { is_set: false, error: 0, is_started: false, body: 0, status: 0, headers: 0 }
    }
}

/// Where bytes to be written come from.
#[derive(Debug, Clone, Copy)]
pub enum Source {
    /// The guest's memory, checked.
    Guest(u32),
    /// Our region.
    Own(u32),
    /// Bytes of a file of the bundle, as many as are written.
    File(&'static [u8]),
    /// Zeros.
    Zeros,
}

impl Source {
    fn advance(self, size: u32) -> Self {
        match self {
            Self::Guest(at) => Self::Guest(at + size),
            Self::Own(at) => Self::Own(at + size),
            Self::File(bytes) => Self::File(&bytes[index(size)..]),
            Self::Zeros => Self::Zeros,
        }
    }
}

impl<W: World> Wasi<'_, W> {
    /// Begins a body of a length, if it is known. Returns its index.
    pub fn begin_body(&mut self, length: Option<u64>) -> u32 {
        let number = self.state.bodies.count;
        if usize::from(number) == BODIES_MAX {
            self.trap("wasi: more bodies were begun for one request than there is room for");
        }
        self.state.bodies.count += 1;
        self.state.bodies.bodies[usize::from(number)] = Body { length, ..Body::default() };
        u32::from(number)
    }

    fn body(&mut self, body: u32) -> &mut Body {
        &mut self.state.bodies.bodies[index(body)]
    }

    /// True if nothing can be written any more.
    pub fn is_closed(&mut self, body: u32) -> bool {
        self.body(body).stage != Stage::Open
    }

    /// Writes to a body. Fails if it is longer than was said.
    ///
    /// # Errors
    /// The `error-code`.
    pub fn write_body(&mut self, body: u32, mut source: Source, size: u32) -> Result<(), u32> {
        let state = self.body(body);
        let written = state.written + u64::from(size);
        if state.length.is_some_and(|length| length < written) {
            state.stage = Stage::Failed;
            return Err(ERROR_RESPONSE_BODY_SIZE);
        }
        state.written = written;
        let mut left = size;
        while left > 0 {
            let room = self.room(body, left);
            let piece = Span { size: room.size.min(left), ..room };
            match source {
                Source::Guest(at) => self.world.read(at, &mut self.bytes[piece.range()]),
                Source::Own(at) => {
                    self.bytes.copy_within(Span { at, size: piece.size }.range(), index(piece.at));
                }
                Source::File(bytes) => {
                    self.bytes[piece.range()].copy_from_slice(&bytes[..index(piece.size)]);
                }
                Source::Zeros => self.bytes[piece.range()].fill(0),
            }
            self.body(body).filled += piece.size;
            source = source.advance(piece.size);
            left -= piece.size;
        }
        Ok(())
    }

    /// Returns the free part of a body's buffer; makes room if there is none.
    fn room(&mut self, body: u32, wanted: u32) -> Span {
        let Body { buffer, filled, .. } = *self.body(body);
        if filled < buffer.size {
            return Span { at: buffer.at + filled, size: buffer.size - filled };
        }
        if buffer.size >= PIECE_BYTES && self.send(body) {
            return self.body(body).buffer;
        }
        if buffer.size >= UNSET_BYTES_MAX {
            self.trap("wasi: the body was written before its response was set, and is too large to be kept");
        }
        let size = (filled + wanted).max(buffer.size * 2).max(FIRST_BYTES);
        let most = if buffer.size < PIECE_BYTES { PIECE_BYTES } else { UNSET_BYTES_MAX };
        let size = size.min(most);
        let larger = self.extend(buffer, size).unwrap_or_else(|| {
            let larger = self.take(size);
            let kept = Span { size: filled, ..buffer };
            self.bytes.copy_within(kept.range(), index(larger.at));
            larger
        });
        self.body(body).buffer = larger;
        Span { at: larger.at + filled, size: larger.size - filled }
    }

    /// Sends what a body has collected, if it is the response's. Returns whether it was.
    fn send(&mut self, body: u32) -> bool {
        if u32::from(self.state.output.body) != body + 1 {
            return false;
        }
        let state = self.body(body);
        let piece = Span { size: state.filled, ..state.buffer };
        state.filled = 0;
        if self.state.output.is_started {
            self.world.response_write(&self.bytes[piece.range()]);
        } else {
            self.state.output.is_started = true;
            let record = self.record(piece, Lengths::Sent);
            self.world.response_start(record);
        }
        true
    }

    /// Lets the client have what there is: the guest is about to wait.
    pub fn send_pending(&mut self) {
        let Some(body) = u32::from(self.state.output.body).checked_sub(1) else { return };
        if self.body(body).stage == Stage::Open && self.body(body).filled > 0 {
            self.send(body);
        }
    }

    /// Returns what a body has collected and nobody has sent.
    pub(crate) fn collected(&mut self, body: u32) -> Span {
        let Body { buffer, filled, .. } = *self.body(body);
        Span { size: filled, ..buffer }
    }

    /// Takes the front of a body away: it was no part of it.
    pub(crate) fn drop_front(&mut self, body: u32, size: u32) {
        let state = self.body(body);
        state.buffer.at += size;
        state.buffer.size -= size;
        state.filled -= size;
        state.written -= u64::from(size);
    }

    /// Says how long a body will be that was begun without a length.
    pub(crate) fn expect_length(&mut self, body: u32, length: Option<u64>) {
        let state = self.body(body);
        state.length = length;
        if length.is_some_and(|length| length < state.written) {
            state.stage = Stage::Failed;
        }
    }

    /// Ends a body.
    ///
    /// # Errors
    /// How much was written, if that is not what was said.
    pub fn finish_body(&mut self, body: u32) -> Result<(), u64> {
        let state = self.body(body);
        if state.stage == Stage::Failed
            || state.length.is_some_and(|length| length != state.written)
        {
            state.stage = Stage::Failed;
            return Err(state.written);
        }
        state.stage = Stage::Finished;
        Ok(())
    }

    /// Gives a body up.
    pub fn abandon_body(&mut self, body: u32) {
        self.body(body).stage = Stage::Failed;
    }

    /// Ends the call. Returns the address of the response's record, or 0 where it was written already.
    pub fn end(&mut self) -> u32 {
        self.end_lines();
        let Output { is_set, error, is_started, body, .. } = self.state.output;
        if !is_set {
            return self.failed("the component returned without setting a response");
        }
        if error != 0 {
            return self.failed(crate::http::error_name(u32::from(error) - 1));
        }
        let Some(body) = u32::from(body).checked_sub(1) else {
            return self.record(Span::default(), Lengths::Left);
        };
        let Body { buffer, filled, stage, .. } = *self.body(body);
        let piece = Span { size: filled, ..buffer };
        match (stage, is_started) {
            (Stage::Finished, false) => self.record(piece, Lengths::Left),
            (Stage::Finished, true) => {
                if filled > 0 {
                    self.world.response_write(&self.bytes[piece.range()]);
                }
                0
            }
            (_, false) => self.failed("the component did not finish the body of its response"),
            (_, true) => self.trap("wasi: the component did not finish the body of its response"),
        }
    }

    /// Makes the record of an error.
    pub fn failed(&mut self, message: &str) -> u32 {
        let message = self.keep(message.as_bytes());
        let record = self.take(32).at;
        let body = self.address(message.at);
        // Flags: RESPONSE_ERROR.
        for (offset, number) in [(0, 1 << 16), (4, 0), (8, 0), (12, body), (16, message.size)] {
            self.set_own_u32(record + offset, number);
        }
        self.end_of_record(record);
        self.address(record)
    }

    /// Makes the record of the response.
    fn record(&mut self, body: Span, lengths: Lengths) -> u32 {
        let Output { status, headers, .. } = self.state.output;
        let (mut count, mut at) = (0, headers);
        while let Some(line) = self.line(at) {
            count += u32::from(!self.is_the_hosts(line.name, lengths));
            at = line.next;
        }
        let rows = self.take(count * 16).at;
        let (mut row, mut at) = (rows, headers);
        while let Some(line) = self.line(at) {
            if !self.is_the_hosts(line.name, lengths) {
                let numbers = [
                    self.address(line.name.at),
                    line.name.size,
                    self.address(line.value.at),
                    line.value.size,
                ];
                for number in numbers {
                    self.set_own_u32(row, number);
                    row += 4;
                }
            }
            at = line.next;
        }
        let record = self.take(32).at;
        let (rows, body_at) = (self.address(rows), self.address(body.at));
        let numbers = [u32::from(status), count, rows, body_at, body.size];
        for (offset, number) in (0..).step_by(4).zip(numbers) {
            self.set_own_u32(record + offset, number);
        }
        self.end_of_record(record);
        self.address(record)
    }

    fn end_of_record(&mut self, record: u32) {
        for offset in [20, 24, 28] {
            self.set_own_u32(record + offset, 0);
        }
    }

    /// True for headers that the host writes by itself.
    fn is_the_hosts(&self, name: Span, lengths: Lengths) -> bool {
        match self.own(name) {
            b"content-length" => lengths == Lengths::Left,
            b"date" | b"te" | b"trailer" => true,
            _ => false,
        }
    }
}

/// What becomes of `content-length`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Lengths {
    /// The body is whole, and the host counts it.
    Left,
    /// The body is to come, and the host is told.
    Sent,
}
