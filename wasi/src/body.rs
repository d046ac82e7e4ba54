//! What the guest answers: bodies that it writes, and the one response that they belong to.
//!
//! A body is collected. It goes to the host as a whole when the call ends, or in pieces once it is larger than
//! [`PIECE_BYTES`] or the guest waits for something: so small responses cost no call of the host's, and
//! events reach their reader before the guest rests.

use crate::fields::Line;
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
/// The same of a request's.
pub const ERROR_REQUEST_BODY_SIZE: u32 = 17;
/// `error-code`: more or longer trailers of a response than the host takes.
const ERROR_RESPONSE_TRAILERS: u32 = 29;
/// The same of a request's.
const ERROR_REQUEST_TRAILERS: u32 = 23;

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
    length: Length,
    written: u64,
    /// The host's handle of the request that it belongs to, once that was sent; 0 for none.
    fetch: u32,
    /// What that has taken of the buffer.
    sent: u32,
    /// That knows of its end.
    is_ended: bool,
    /// It was one of a request that was sent.
    was_sent: bool,
    /// The guest holds it no more.
    is_released: bool,
    /// The first of the fields behind it.
    trailers: u32,
}

// One page has to do for the state and what a small request is made of.
const _: () = assert!(size_of::<Body>() == 48);

/// A length and one more, or 0 for none: it has fewer than 20 digits.
#[derive(Debug, Clone, Copy, Default)]
struct Length(u64);

impl Length {
    const fn of(length: Option<u64>) -> Self {
        match length {
            Some(length) => Self(length.saturating_add(1)),
            None => Self(0),
        }
    }

    const fn get(self) -> Option<u64> {
        self.0.checked_sub(1)
    }
}

impl Body {
    const fn error_of_size(&self) -> u32 {
        if self.was_sent { ERROR_REQUEST_BODY_SIZE } else { ERROR_RESPONSE_BODY_SIZE }
    }
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
        length: Length(0),
        written: 0,
        fetch: 0,
        sent: 0,
        is_ended: false,
        was_sent: false,
        is_released: false,
        trailers: 0,
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
    pub(crate) fn advance(self, size: u32) -> Self {
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
        // Those of requests that are over give their places to others.
        let is_over = |body: &Body| body.was_sent && body.fetch == 0 && body.is_released;
        let count = usize::from(self.state.bodies.count);
        if let Some(place) = self.state.bodies.bodies[..count].iter().position(is_over) {
            let buffer = self.state.bodies.bodies[place].buffer;
            self.state.bodies.bodies[place] =
                Body { length: Length::of(length), buffer, ..Body::default() };
            return crate::wire(place);
        }
        let number = self.state.bodies.count;
        if usize::from(number) == BODIES_MAX {
            self.trap("wasi: more bodies were begun for one request than there is room for");
        }
        self.state.bodies.count += 1;
        self.state.bodies.bodies[usize::from(number)] =
            Body { length: Length::of(length), ..Body::default() };
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
        if state.length.get().is_some_and(|length| length < written) {
            state.stage = Stage::Failed;
            let code = state.error_of_size();
            let fetch = state.fetch;
            self.fail_fetch(fetch);
            return Err(code);
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
        if self.body(body).fetch != 0 {
            self.drain_body(body);
            return true;
        }
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
            let record = self.record(piece, Place::Start);
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

    /// True if a request was sent that may have a body.
    pub(crate) const fn has_fetches(&self) -> bool {
        self.state.has_fetches
    }

    /// Returns how many bodies were begun.
    pub(crate) fn body_count(&self) -> u32 {
        self.state.bodies.count.into()
    }

    /// Returns the host's handle of the request that a body belongs to, if that was sent.
    pub(crate) fn body_fetch(&mut self, body: u32) -> u32 {
        self.body(body).fetch
    }

    /// From now on a body goes to the host.
    pub(crate) fn set_body_fetch(&mut self, body: u32, handle: u32) {
        let state = self.body(body);
        (state.fetch, state.was_sent) = (handle, true);
        self.state.has_fetches = true;
    }

    /// Returns a body's length, if it was told or the body is whole.
    pub(crate) fn body_length(&mut self, body: u32) -> Option<u64> {
        let state = self.body(body);
        // What stands behind a body goes out with the last of its chunks.
        let is_counted = state.stage == Stage::Finished && state.trailers == 0;
        if is_counted { Some(state.written) } else { state.length.get() }
    }

    /// True if a body waits for the host to take it.
    pub(crate) fn body_is_pending(&mut self, body: u32) -> bool {
        let state = self.body(body);
        state.fetch != 0 && state.sent < state.filled
    }

    /// Returns how much may be written to a body without waiting.
    pub(crate) fn body_room(&mut self, body: u32) -> u32 {
        if self.body(body).fetch == 0 {
            return PIECE_BYTES;
        }
        if self.body(body).filled >= PIECE_BYTES {
            self.flush_body(body);
        }
        PIECE_BYTES.saturating_sub(self.body(body).filled)
    }

    /// Gives the host what a body has for a request, as much as it takes. Returns whether that was all.
    pub(crate) fn flush_body(&mut self, body: u32) -> bool {
        if self.body(body).fetch == 0 {
            return true;
        }
        while self.body_is_pending(body) {
            let Body { buffer, filled, fetch, sent, .. } = *self.body(body);
            let rest = Span { at: buffer.at + sent, size: filled - sent };
            match self.world.fetch_write(fetch, &self.bytes[rest.range()]) {
                crate::fetch::LATER => return false,
                taken @ 1.. => self.body(body).sent += taken.unsigned_abs().min(rest.size),
                // It has failed: whoever asks for the response is told.
                _ => {
                    let state = self.body(body);
                    state.stage = Stage::Failed;
                    state.sent = state.filled;
                }
            }
        }
        let state = self.body(body);
        (state.filled, state.sent) = (0, 0);
        if state.stage == Stage::Finished && !state.is_ended {
            state.is_ended = true;
            let Body { fetch, trailers, .. } = *state;
            // Whoever asks for the response is told if that has failed.
            match self.trailer_rows(trailers) {
                Some((rows, count)) => self.world.trailers_write(fetch, rows, count),
                None => self.world.fetch_finish(fetch),
            };
        }
        true
    }

    /// Says what stands behind a body.
    pub(crate) fn set_trailers(&mut self, body: u32, trailers: u32) {
        self.body(body).trailers = trailers;
    }

    /// Makes the table of trailers. Returns its address and how many rows it has, if there are any.
    fn trailer_rows(&mut self, trailers: u32) -> Option<(u32, u32)> {
        if trailers == 0 {
            return None;
        }
        let (rows, count) = self.rows_of(trailers, Place::Trailers);
        (count > 0).then(|| (self.address(rows), count))
    }

    /// Returns the `error-code` of trailers beyond the host's limits.
    pub(crate) fn error_of_trailers(&mut self, body: u32) -> u32 {
        if self.body(body).was_sent { ERROR_REQUEST_TRAILERS } else { ERROR_RESPONSE_TRAILERS }
    }

    /// Lets everybody have what there is: the guest is about to wait. Returns whether that was all.
    pub(crate) fn flush_all(&mut self) -> bool {
        self.send_pending();
        if !self.has_fetches() {
            return true;
        }
        let mut is_all = true;
        for body in 0..self.body_count() {
            is_all &= self.flush_body(body);
        }
        is_all
    }

    /// The host knows this handle no more.
    pub(crate) fn forget_fetch(&mut self, handle: u32) {
        for body in 0..self.body_count() {
            let state = self.body(body);
            if state.fetch == handle {
                state.fetch = 0;
                (state.filled, state.sent) = (0, 0);
                if state.stage == Stage::Open {
                    state.stage = Stage::Failed;
                }
            }
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
        state.length = Length::of(length);
        if length.is_some_and(|length| length < state.written) {
            state.stage = Stage::Failed;
        }
    }

    /// Ends a body.
    ///
    /// # Errors
    /// How much was written, if that is not what was said.
    pub fn finish_body(&mut self, body: u32) -> Result<(), u64> {
        let Body { stage, length, written, .. } = *self.body(body);
        // The answer to a HEAD may tell a length that it does not have (RFC 9110, 9.3.2); so may a 304.
        let is_short = length.get().is_some_and(|length| length != written);
        let is_bare = is_short && written == 0 && self.has_no_body(body);
        let state = self.body(body);
        state.is_released = true;
        if stage == Stage::Failed || is_short && !is_bare {
            state.stage = Stage::Failed;
            let (written, fetch) = (state.written, state.fetch);
            self.fail_fetch(fetch);
            return Err(written);
        }
        state.stage = Stage::Finished;
        self.flush_body(body);
        Ok(())
    }

    /// True if a body is that of a response that has none, whatever its headers say.
    fn has_no_body(&self, body: u32) -> bool {
        let output = &self.state.output;
        let is_response = output.is_set && u32::from(output.body) == body + 1;
        is_response && (self.is_head_request() || output.status == 304)
    }

    /// Gives a body up.
    pub fn abandon_body(&mut self, body: u32) {
        let state = self.body(body);
        state.stage = Stage::Failed;
        state.is_released = true;
        let fetch = state.fetch;
        self.fail_fetch(fetch);
    }

    /// Returns the `error-code` of a body of another size than was told.
    pub(crate) fn error_of_size(&mut self, body: u32) -> u32 {
        self.body(body).error_of_size()
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
            return self.record(Span::default(), Place::Response);
        };
        let Body { buffer, filled, stage, trailers, .. } = *self.body(body);
        let piece = Span { size: filled, ..buffer };
        match (stage, is_started) {
            (Stage::Finished, false) if filled == 0 && self.is_told_alone(body) => {
                let record = self.record(piece, Place::Start);
                self.world.response_start(record);
                0
            }
            (Stage::Finished, false) if self.has_place_for_trailers(body) => {
                let record = self.record(piece, Place::Start);
                self.world.response_start(record);
                self.end_response(trailers)
            }
            (Stage::Finished, false) => self.record(piece, Place::Response),
            (Stage::Finished, true) => {
                if filled > 0 {
                    self.world.response_write(&self.bytes[piece.range()]);
                }
                self.end_response(trailers)
            }
            (_, false) => self.failed("the component did not finish the body of its response"),
            (_, true) => self.trap("wasi: the component did not finish the body of its response"),
        }
    }

    /// True if there is something behind a body, and the response would have a place for it: a length that is told, or
    /// HTTP/1.0, leaves none (RFC 9110, 6.5.1).
    fn has_place_for_trailers(&mut self, body: u32) -> bool {
        let Body { trailers, length, .. } = *self.body(body);
        trailers != 0 && length.get().is_none() && self.knows_chunks()
    }

    /// Ends a response that was started, with what stands behind it.
    fn end_response(&mut self, trailers: u32) -> u32 {
        if let Some((rows, count)) = self.trailer_rows(trailers) {
            self.world.trailers_write(0, rows, count);
        }
        0
    }

    /// True if a response tells the length of a body that it does not have.
    fn is_told_alone(&mut self, body: u32) -> bool {
        self.has_no_body(body) && self.body(body).length.get().is_some()
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
    fn record(&mut self, body: Span, place: Place) -> u32 {
        let Output { status, headers, .. } = self.state.output;
        let (rows, count) = self.rows_of(headers, place);
        let record = self.take(32).at;
        let (rows, body_at) = (self.address(rows), self.address(body.at));
        let numbers = [u32::from(status), count, rows, body_at, body.size];
        for (offset, number) in (0..).step_by(4).zip(numbers) {
            self.set_own_u32(record + offset, number);
        }
        self.end_of_record(record);
        self.address(record)
    }

    /// Makes the table of a request's headers. Returns where it lies, and its rows.
    pub(crate) fn header_rows(&mut self, headers: u32) -> (u32, u32) {
        self.rows_of(headers, Place::Request)
    }

    fn rows_of(&mut self, headers: u32, place: Place) -> (u32, u32) {
        let (mut count, mut at) = (0, headers);
        while let Some(line) = self.line(at) {
            count += u32::from(!self.is_the_hosts(line, place));
            at = line.next;
        }
        let rows = self.take(count * 16).at;
        let (mut row, mut at) = (rows, headers);
        while let Some(line) = self.line(at) {
            if !self.is_the_hosts(line, place) {
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
        (rows, count)
    }

    fn end_of_record(&mut self, record: u32) {
        for offset in [20, 24, 28] {
            self.set_own_u32(record + offset, 0);
        }
    }

    /// True for headers that the host writes by itself.
    fn is_the_hosts(&self, line: Line, place: Place) -> bool {
        match self.own(line.name) {
            b"content-length" => place != Place::Start,
            b"trailer" => !matches!(place, Place::Start | Place::Request),
            // A coding of transfer is nothing that the host could undo.
            b"te" => {
                place != Place::Request || !self.own(line.value).eq_ignore_ascii_case(b"trailers")
            }
            b"date" => true,
            _ => false,
        }
    }
}

/// Where fields stand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    /// In front of a body that is whole, whose length the host counts.
    Response,
    /// In front of a body that is to come.
    Start,
    /// In a request.
    Request,
    /// Behind a body.
    Trailers,
}
