//! Requests that the guest makes, once they are sent, and all waiting.
//!
//! ```text
//!   handle --> future-incoming-response --get--> incoming-response --consume--> incoming-body --stream--> bytes
//!     body: buffer --fetch_write--> host            each of them holds the host's handle, one after the other
//! ```
//!
//! The host's functions for requests do not wait; `wait` does, for any of several things. What the guest has
//! written goes out whenever it waits.
//!
//! Invariant: a handle of the host's is closed by whoever holds it last, and its body then knows none: the host
//! gives the number to another request.

use crate::body::{ERROR_REQUEST_BODY_SIZE, PIECE_BYTES};
use crate::fields::is_forbidden;
use crate::handles::{Entry, Kind, TAKEN};
use crate::own::Span;
use crate::{Wasi, World, index, wire};

/// The host's answer where something is not there yet (`midge_abi::fetch`).
pub const LATER: i32 = -1;
/// It answers this less an error's code.
const ERRORS_FROM: i32 = -2;
/// Bits of a request's record.
const TLS: u32 = 1;
const BODY: u32 = 2;
const RECORD_SIZE: u32 = 72;
/// What the host takes of headers.
const HEADER_COUNT_MAX: u32 = 64;
const HEADER_BYTES_MAX: u32 = 16 * 1024;
const METHOD_BYTES_MAX: u32 = 32;
const AUTHORITY_BYTES_MAX: u32 = 261;
const TARGET_BYTES_MAX: u32 = 16 * 1024;
/// Heads of responses, with their rows, and pieces of bodies are read into this.
const SCRATCH_BYTES: u32 = 72 * 1024;
/// Rows of one `wait`: each request has three at most, and the guest's own one.
const ROWS_MAX: u32 = 64;
const ROW_SIZE: u32 = 8;

/// What a pollable waits for, in its flags: 0 is a time.
pub const WAIT_BODY: u8 = 1;
/// The head of a response.
pub const WAIT_HEAD: u8 = 2;
/// More of a response.
pub const WAIT_PIECE: u8 = 3;
/// Room in a body, whose index is kept.
pub const WAIT_ROOM: u8 = 4;
/// The end of a response, or for the handle 0 of the guest's own request: of this module's own, no row of the host's.
pub const WAIT_TRAILERS: u8 = 5;

// Cases of `error-code`.
const REQUEST_METHOD_INVALID: u32 = 18;
const REQUEST_URI_INVALID: u32 = 19;
const REQUEST_URI_TOO_LONG: u32 = 20;
const REQUEST_HEADERS_TOO_LONG: u32 = 21;
const PROTOCOL_ERROR: u32 = 35;

const FUTURE: &[Kind] = &[Kind::FutureResponse];
const RESPONSE: &[Kind] = &[Kind::IncomingResponse];
const TRAILERS: &[Kind] = &[Kind::Trailers];

/// What is asked for, as the guest has put it together.
#[derive(Debug, Clone, Copy)]
pub struct Asked {
    /// The first of its headers.
    pub headers: u32,
    /// Its method, if it is none of those with a name.
    pub method: Result<&'static [u8], Span>,
    /// 0 HTTP, 1 HTTPS, others are something else.
    pub scheme: u32,
    /// Host and port.
    pub authority: Span,
    /// Path and query; none for `/`.
    pub path: Option<Span>,
    /// The body's index, if it has one.
    pub body: Option<u32>,
    /// Times for connection, head, and between pieces in nanoseconds; 0 where none was set.
    pub times: [u64; 3],
}

/// Pollables that are waited for.
#[derive(Debug, Clone, Copy)]
pub enum Pollables {
    /// One.
    One(u32),
    /// A list of the guest's, which was checked.
    List(u32, u32),
}

/// When a pollable is ready.
enum Need {
    Ready,
    At(u64),
    Row(u8, u32),
}

impl<W: World> Wasi<'_, W> {
    /// Sends a request. Returns the host's handle, or the `error-code`.
    pub fn send_request(&mut self, asked: Asked) -> Result<u32, u32> {
        if asked.scheme > 1 {
            return Err(PROTOCOL_ERROR);
        }
        let method = match asked.method {
            Ok(name) => self.keep(name),
            Err(name) if name.size <= METHOD_BYTES_MAX => name,
            Err(_) => return Err(REQUEST_METHOD_INVALID),
        };
        let target = self.target_of(asked.path)?;
        let is_visible = |text: &[u8]| text.iter().all(u8::is_ascii_graphic);
        if asked.authority.size == 0
            || asked.authority.size > AUTHORITY_BYTES_MAX
            || !is_visible(self.own(asked.authority))
            || !is_visible(self.own(target))
        {
            return Err(REQUEST_URI_INVALID);
        }
        if target.size > TARGET_BYTES_MAX {
            return Err(REQUEST_URI_TOO_LONG);
        }
        if !self.has_room_for_fields(asked.headers) {
            return Err(REQUEST_HEADERS_TOO_LONG);
        }
        let (rows, count) = self.header_rows(asked.headers);
        let length = asked.body.map(|body| self.body_length(body).unwrap_or(u64::MAX));
        let flags = (asked.scheme * TLS) | if asked.body.is_some() { BODY } else { 0 };
        let record = self.take(RECORD_SIZE).at;
        let [method_at, authority_at, target_at, rows_at] =
            [method.at, asked.authority.at, target.at, rows].map(|at| self.address(at));
        let numbers = [
            flags,
            method_at,
            method.size,
            authority_at,
            asked.authority.size,
            target_at,
            target.size,
            count,
            rows_at,
            0,
        ];
        for (offset, number) in (record..).step_by(4).zip(numbers) {
            self.set_own_u32(offset, number);
        }
        let [connect, first_byte, between_bytes] = asked.times;
        let wide = [length.unwrap_or(0), connect, first_byte, between_bytes];
        for (offset, number) in (record + 40..).step_by(8).zip(wide) {
            self.bytes[index(offset)..index(offset) + 8].copy_from_slice(&number.to_le_bytes());
        }
        let record = self.address(record);
        let handle = answer(self.world.fetch(record))?;
        if let Some(body) = asked.body {
            self.set_body_fetch(body, handle);
            self.flush_body(body);
        }
        Ok(handle)
    }

    /// Returns path and query as a request line has them.
    fn target_of(&mut self, path: Option<Span>) -> Result<Span, u32> {
        let path = path.unwrap_or_default();
        let text = self.own(path);
        // A fragment is nobody's business but the guest's.
        let size = wire(text.iter().position(|&byte| byte == b'#').unwrap_or(text.len()));
        let path = Span { size, ..path };
        match self.own(path).first() {
            Some(b'/') => Ok(path),
            Some(b'*') if size == 1 => Ok(path),
            None => Ok(self.keep(b"/")),
            Some(b'?') => {
                let whole = self.take(size + 1);
                self.bytes[index(whole.at)] = b'/';
                self.bytes.copy_within(path.range(), index(whole.at) + 1);
                Ok(whole)
            }
            Some(_) => Err(REQUEST_URI_INVALID),
        }
    }

    /// `[method]future-incoming-response.subscribe`
    pub fn future_subscribe(&mut self, this: u32) -> u32 {
        let a = self.get(this, FUTURE).a;
        let entry = Entry { kind: Kind::Pollable, flags: WAIT_HEAD, a, ..Entry::default() };
        self.push_child(this, entry)
    }

    /// `[method]future-incoming-response.get`
    pub fn future_get(&mut self, this: u32, target: u32) {
        let Entry { a: handle, flags, .. } = *self.get(this, FUTURE);
        self.place_for(target, 56, 8);
        if flags & TAKEN != 0 {
            self.world.write_u8(target, 1);
            return self.world.write_u8(target + 8, 1);
        }
        self.flush_all();
        let scratch = self.scratch();
        let is_failed = self.has_failed(handle);
        let size = if is_failed {
            ERRORS_FROM - ERROR_REQUEST_BODY_SIZE.cast_signed()
        } else {
            self.world.fetch_head(handle, &mut self.bytes[scratch.range()])
        };
        if size == LATER {
            return self.world.write_u8(target, 0);
        }
        self.get(this, FUTURE).flags |= TAKEN;
        for offset in [0, 8, 16] {
            self.world.write_u8(target + offset, u8::from(offset == 0));
        }
        match answer(size) {
            Err(code) => {
                self.close_fetch(handle);
                self.lower_error(target + 16, 8, code);
            }
            Ok(size) => {
                let response = self.read_head(handle, size.min(SCRATCH_BYTES));
                self.world.write_u32(target + 24, response);
            }
        }
    }

    /// Tells whether the host takes so many fields.
    pub(crate) fn has_room_for_fields(&self, fields: u32) -> bool {
        let (mut count, mut size, mut at) = (0, 0u32, fields);
        while let Some(line) = self.line(at) {
            count += 1;
            size = size.saturating_add(line.name.size).saturating_add(line.value.size);
            at = line.next;
        }
        count <= HEADER_COUNT_MAX && size <= HEADER_BYTES_MAX
    }

    /// Makes a response of a head that lies in the scratch. Returns its handle.
    fn read_head(&mut self, handle: u32, size: u32) -> u32 {
        let (status, fields) = self.read_fields(size);
        let a = self.take_fields(fields);
        let b = status << 16 | handle;
        self.push(Entry { kind: Kind::IncomingResponse, a, b, ..Entry::default() })
    }

    /// Makes fields of what lies in the scratch. Returns the number in front of them, and their handle.
    fn read_fields(&mut self, size: u32) -> (u32, u32) {
        let block = self.take(size);
        let scratch = self.scratch();
        self.bytes.copy_within(Span { size, ..scratch }.range(), index(block.at));
        let (status, count) = (self.own_u32(block.at), self.own_u32(block.at + 4));
        let fields = self.push_kind(Kind::Fields);
        for row in (block.at + 8..).step_by(16).take(index(count)) {
            let [name, value] = [row, row + 8]
                .map(|at| Span { at: block.at + self.own_u32(at), size: self.own_u32(at + 4) });
            if !is_forbidden(self.own(name)) {
                self.link(fields, name, value);
            }
        }
        (status, fields)
    }

    /// Reads what came behind a body: that of a response, or for 0 of the guest's own request. Returns the handle of
    /// its fields, if there are any; `None` before the end of the body.
    pub(crate) fn read_trailers(&mut self, handle: u32) -> Option<Result<Option<u32>, u32>> {
        let is_over = if handle == 0 { Ok(self.skip_input()) } else { self.drain_fetch(handle) };
        match is_over {
            Ok(false) => return None,
            Ok(true) => {}
            Err(code) => return Some(Err(code)),
        }
        let scratch = self.scratch();
        let size = self.world.trailers_read(handle, &mut self.bytes[scratch.range()]);
        if size == LATER {
            return None;
        }
        Some(answer(size).map(|size| {
            let size = size.min(SCRATCH_BYTES);
            (size > 0).then(|| self.read_fields(size).1)
        }))
    }

    /// Passes over what has come of a response whose body nobody reads any more; true at its end.
    ///
    /// # Errors
    /// The `error-code`.
    fn drain_fetch(&mut self, handle: u32) -> Result<bool, u32> {
        while let Some(piece) = self.read_fetch(handle, PIECE_BYTES, false)? {
            if piece.size == 0 {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// `[method]incoming-response.status`
    pub fn response_in_status(&mut self, this: u32) -> u32 {
        self.get(this, RESPONSE).b >> 16
    }

    /// `[method]incoming-response.headers`
    pub fn response_in_headers(&mut self, this: u32) -> u32 {
        let first = self.get(this, RESPONSE).a;
        self.show_fields(first)
    }

    /// `[method]incoming-response.consume`
    pub fn response_in_consume(&mut self, this: u32, target: u32) {
        if !self.take_once(this, RESPONSE) {
            return self.lower_err_empty(target);
        }
        let a = self.get(this, RESPONSE).b & 0xFFFF;
        let body = self.push(Entry { kind: Kind::IncomingBody, a, ..Entry::default() });
        self.lower_ok_u32(target, body);
    }

    /// The guest has dropped what held a handle of the host's.
    pub fn dropped(&mut self, entry: Entry) {
        let is_taken = entry.flags & TAKEN != 0;
        match entry.kind {
            Kind::FutureResponse if !is_taken => self.close_fetch(entry.a),
            Kind::IncomingResponse if !is_taken => self.close_fetch(entry.b & 0xFFFF),
            Kind::IncomingBody if entry.a != 0 => self.close_fetch(entry.a),
            Kind::Trailers if entry.a != 0 && !is_taken => self.close_fetch(entry.a),
            _ => {}
        }
    }

    /// The body of a request will never be whole: whoever waits for its response is told, and its end ends it.
    pub(crate) fn fail_fetch(&mut self, handle: u32) {
        if handle != 0 {
            self.state.failed_fetches |= 1 << (handle % 32);
        }
    }

    const fn has_failed(&self, handle: u32) -> bool {
        self.state.failed_fetches & 1 << (handle % 32) != 0
    }

    pub(crate) fn close_fetch(&mut self, handle: u32) {
        self.state.failed_fetches &= !(1 << (handle % 32));
        self.world.fetch_close(handle);
        self.forget_fetch(handle);
    }

    /// Returns where heads and pieces are read into.
    fn scratch(&mut self) -> Span {
        if self.state.fetch_scratch.size == 0 {
            self.state.fetch_scratch = self.take(SCRATCH_BYTES);
        }
        self.state.fetch_scratch
    }

    /// Reads on in a response. An empty piece is none yet; `None` is its end.
    ///
    /// # Errors
    /// The `error-code`.
    pub fn read_fetch(
        &mut self,
        handle: u32,
        size: u32,
        is_blocking: bool,
    ) -> Result<Option<Span>, u32> {
        let scratch = self.scratch();
        let piece = Span { size: size.min(PIECE_BYTES), ..scratch };
        if piece.size == 0 {
            return Ok(Some(piece));
        }
        loop {
            let read = self.world.fetch_read(handle, &mut self.bytes[piece.range()]);
            if read != LATER {
                let size = answer(read)?.min(piece.size);
                return Ok((size > 0).then_some(Span { size, ..piece }));
            }
            if !is_blocking {
                return Ok(Some(Span { size: 0, ..piece }));
            }
            self.wait_for_row(WAIT_PIECE, handle);
        }
    }

    /// Waits for one thing of a request's; what the guest has written goes out meanwhile.
    fn wait_for_row(&mut self, kind: u8, handle: u32) {
        loop {
            self.flush_all();
            self.begin_rows();
            let row = self.add_row(kind, handle);
            self.add_pending_rows();
            self.wait_rows(-1);
            if self.is_row_ready(row) {
                return;
            }
        }
    }

    /// Sends all of a body that was written to a request.
    pub fn drain_body(&mut self, body: u32) {
        while !self.flush_body(body) {
            let handle = self.body_fetch(body);
            self.wait_for_row(WAIT_ROOM, handle);
        }
    }

    /// Waits for more of the guest's own request, if its bodies wait as well.
    pub fn wait_for_input(&mut self) {
        while !self.flush_all() {
            self.begin_rows();
            let row = self.add_row(WAIT_BODY, 0);
            self.add_pending_rows();
            self.wait_rows(-1);
            if self.is_row_ready(row) {
                return;
            }
        }
    }

    /// Waits for more of the guest's own request, or its end, until a time; the end of time is none. Returns whether
    /// it is there.
    pub fn wait_for_input_until(&mut self, time: u64) -> bool {
        let left = match time {
            u64::MAX => -1,
            0 => 0,
            _ => i64::try_from(time.saturating_sub(self.world.monotonic_ns())).unwrap_or(i64::MAX),
        };
        if left != 0 {
            self.flush_all();
        }
        self.begin_rows();
        let row = self.add_row(WAIT_BODY, 0);
        self.wait_rows(left);
        self.is_row_ready(row)
    }

    /// Tells whether there is more of the guest's own request, or its end.
    pub fn is_input_there(&mut self) -> bool {
        self.wait_for_input_until(0)
    }

    /// Waits until one of the pollables is ready. Returns the time by which readiness is told.
    pub fn wait_for(&mut self, pollables: Pollables, may_wait: bool) -> u64 {
        let count = match pollables {
            Pollables::One(_) => 1,
            Pollables::List(_, count) => count,
        };
        loop {
            self.begin_rows();
            let (mut first, mut is_any_ready) = (u64::MAX, false);
            for number in 0..count {
                let pollable = self.pollable(pollables, number);
                match self.need(pollable) {
                    Need::Ready => is_any_ready = true,
                    Need::At(time) => first = first.min(time),
                    Need::Row(kind, handle) => {
                        self.add_row(kind, handle);
                    }
                }
            }
            let asked = self.state.row_count;
            // What was written goes out even if the guest only looks, again and again.
            if !is_any_ready && !self.flush_all() && may_wait {
                self.add_pending_rows();
            }
            if self.state.row_count == 0 {
                if !is_any_ready && may_wait {
                    self.wait_until(first);
                }
                let is_timed = first != u64::MAX;
                return if is_timed { self.world.monotonic_ns() } else { 0 };
            }
            let now = if first == u64::MAX { 0 } else { self.world.monotonic_ns() };
            let time = match (is_any_ready || !may_wait || first <= now, first) {
                (true, _) => 0,
                (false, u64::MAX) => -1,
                (false, _) => i64::try_from(first - now).unwrap_or(i64::MAX),
            };
            self.wait_rows(time);
            let is_one_there = (0..asked).any(|row| self.is_row_ready(row));
            let now = if first == u64::MAX { 0 } else { self.world.monotonic_ns() };
            // A row may stand for a piece of a body whose end is waited for.
            let is_over = time == 0 || first <= now;
            if is_over || is_one_there && self.is_any_ready(pollables, count, now) {
                return now;
            }
        }
    }

    /// Returns the handle of one of the pollables.
    pub fn pollable(&mut self, pollables: Pollables, number: u32) -> u32 {
        match pollables {
            Pollables::One(handle) => handle,
            Pollables::List(list, _) => self.guest_u32(list + number * 4),
        }
    }

    fn is_any_ready(&mut self, pollables: Pollables, count: u32, now: u64) -> bool {
        (0..count).any(|number| {
            let pollable = self.pollable(pollables, number);
            self.is_ready(pollable, now)
        })
    }

    /// Tells whether a pollable is ready, after [`Wasi::wait_for`] returned this time.
    pub fn is_ready(&mut self, pollable: u32, now: u64) -> bool {
        let is_for_end = self.get(pollable, &[Kind::Pollable]).flags == WAIT_TRAILERS;
        match self.need(pollable) {
            Need::Ready => true,
            Need::At(time) => time <= now,
            Need::Row(kind, handle) => {
                let row = self.find_row(kind, handle).filter(|&row| self.is_row_ready(row));
                match row {
                    // That there is more says nothing of the end, which is looked for piece by piece: of a response
                    // above, of the guest's own request here. The row holds for one piece.
                    Some(row) if is_for_end => {
                        if handle == 0 {
                            self.set_own_u32(self.row_at(row), u32::from(kind));
                            self.skip_piece();
                        }
                        handle == 0 && self.is_input_over()
                    }
                    found => found.is_some(),
                }
            }
        }
    }

    fn need(&mut self, pollable: u32) -> Need {
        let Entry { flags, a, b, parent, .. } = *self.get(pollable, &[Kind::Pollable]);
        match flags {
            WAIT_BODY if self.has_input() => Need::Ready,
            WAIT_HEAD if self.get(u32::from(parent), FUTURE).flags & TAKEN != 0 => Need::Ready,
            WAIT_HEAD if self.has_failed(a) => Need::Ready,
            WAIT_ROOM => match self.body_fetch(a) {
                handle if handle != 0 && self.body_room(a) == 0 => Need::Row(WAIT_ROOM, handle),
                _ => Need::Ready,
            },
            WAIT_TRAILERS if self.get(u32::from(parent), TRAILERS).flags & TAKEN != 0 => {
                Need::Ready
            }
            WAIT_TRAILERS if a == 0 && self.is_input_over() => Need::Ready,
            WAIT_TRAILERS if a == 0 => Need::Row(WAIT_BODY, 0),
            WAIT_TRAILERS => match self.drain_fetch(a) {
                Ok(false) => Need::Row(WAIT_PIECE, a),
                // What went wrong is told by who asks for them.
                Ok(true) | Err(_) => Need::Ready,
            },
            WAIT_BODY => Need::Row(WAIT_BODY, 0),
            WAIT_HEAD | WAIT_PIECE => Need::Row(flags, a),
            _ => match u64::from(a) | u64::from(b) << 32 {
                0 => Need::Ready,
                time => Need::At(time),
            },
        }
    }

    fn begin_rows(&mut self) {
        self.state.row_count = 0;
    }

    fn row_at(&self, row: u32) -> u32 {
        self.state.rows.at + row * ROW_SIZE
    }

    fn find_row(&self, kind: u8, handle: u32) -> Option<u32> {
        (0..self.state.row_count).find(|&row| {
            let at = self.row_at(row);
            self.own_u32(at) & 0xFFFF == u32::from(kind) && self.own_u32(at + 4) == handle
        })
    }

    fn add_row(&mut self, kind: u8, handle: u32) -> u32 {
        if let Some(row) = self.find_row(kind, handle) {
            return row;
        }
        if self.state.rows.size == 0 {
            self.state.rows = self.take(ROWS_MAX * ROW_SIZE);
        }
        let row = self.state.row_count;
        if row == ROWS_MAX {
            self.trap("wasi: more is waited for at once than there is room for");
        }
        self.state.row_count += 1;
        let at = self.row_at(row);
        self.set_own_u32(at, u32::from(kind));
        self.set_own_u32(at + 4, handle);
        row
    }

    /// Adds a row for each body that has something to send and no room to.
    fn add_pending_rows(&mut self) {
        for body in 0..self.body_count() {
            if self.body_is_pending(body) {
                let handle = self.body_fetch(body);
                self.add_row(WAIT_ROOM, handle);
            }
        }
    }

    fn wait_rows(&mut self, time: i64) {
        let rows = Span { size: self.state.row_count * ROW_SIZE, ..self.state.rows };
        self.world.wait(&mut self.bytes[rows.range()], time);
    }

    fn is_row_ready(&self, row: u32) -> bool {
        self.own_u32(self.row_at(row)) >> 16 != 0
    }
}

/// Splits the host's answer.
fn answer(number: i32) -> Result<u32, u32> {
    u32::try_from(number).map_err(|_| ERRORS_FROM.wrapping_sub(number).unsigned_abs())
}

#[cfg(test)]
mod tests {
    use midge_abi::fetch::{self, WaitFor};
    use midge_abi::response;

    /// This module is built without the host's crates: its numbers are held against theirs here.
    #[test]
    fn the_numbers_are_the_contracts() {
        assert_eq!(super::LATER, fetch::LATER);
        assert_eq!(super::ERRORS_FROM, fetch::ERRORS_FROM);
        assert_eq!([super::TLS, super::BODY], [fetch::FETCH_TLS, fetch::FETCH_BODY]);
        assert_eq!(crate::index(super::RECORD_SIZE), fetch::FETCH_RECORD_SIZE);
        assert_eq!(super::METHOD_BYTES_MAX, fetch::METHOD_BYTES_MAX);
        assert_eq!(super::AUTHORITY_BYTES_MAX, fetch::AUTHORITY_BYTES_MAX);
        assert_eq!(super::TARGET_BYTES_MAX, fetch::TARGET_BYTES_MAX);
        assert_eq!(super::HEADER_COUNT_MAX, response::HEADER_COUNT_MAX);
        assert_eq!(crate::index(super::HEADER_BYTES_MAX), response::HEADER_BYTES_MAX);
        assert_eq!(super::ROWS_MAX, fetch::WAIT_ROWS_MAX);
        assert_eq!(crate::index(super::ROW_SIZE), fetch::WAIT_ROW_SIZE);
        let kinds = [super::WAIT_BODY, super::WAIT_HEAD, super::WAIT_PIECE, super::WAIT_ROOM];
        let hosts = [WaitFor::Body, WaitFor::FetchHead, WaitFor::FetchBody, WaitFor::FetchRoom];
        assert_eq!(kinds.map(|kind| WaitFor::from_code(kind.into())), hosts.map(Some));
    }
}
