//! `wasi:http/types`: the request that came, and the response that goes.
//!
//! The request is read where the host wrote it, in its block at the start of our region (`abi/src/contract.rs`).

use crate::body::Output;
use crate::fetch::WAIT_TRAILERS;
use crate::fields::is_forbidden;
use crate::handles::{Entry, Kind, TAKEN};
use crate::own::Span;
use crate::{Input, Wasi, World, index};

// Offsets in a request's head (`RequestHead`).
const METHOD: u32 = 4;
const FLAGS: u32 = 8;
const HEADER_COUNT: u32 = 12;
const HEADERS: u32 = 16;
const METHOD_NAME: u32 = 24;
const TARGET: u32 = 32;
const AUTHORITY: u32 = 56;
const BODY: u32 = 64;
/// `flags::HTTP_1_0`.
const HTTP_1_0: u32 = 1;
/// `flags::BODY_PARTIAL`.
const BODY_PARTIAL: u32 = 2;
const HEADER_SIZE: u32 = 16;

const REQUEST: &[Kind] = &[Kind::Request];
const RESPONSE: &[Kind] = &[Kind::Response];
const INCOMING_BODY: &[Kind] = &[Kind::IncomingBody];
const OUTGOING_BODY: &[Kind] = &[Kind::OutgoingBody];
const TRAILERS: &[Kind] = &[Kind::Trailers];
const OUTPARAM: &[Kind] = &[Kind::Outparam];

/// A response's entry keeps status, and its body's index and one more, in `b`.
const STATUS_BITS: u32 = 16;

/// The last of the `error-code`s.
const INTERNAL_ERROR: u8 = 38;
/// Size of `result<_, error-code>`, and where its error lies.
const ERROR_RESULT: (u32, u32) = (40, 8);

/// Returns the name of an `error-code`.
#[must_use]
pub fn error_name(code: u32) -> &'static str {
    const NAMES: [&str; 39] = [
        "DNS-timeout",
        "DNS-error",
        "destination-not-found",
        "destination-unavailable",
        "destination-IP-prohibited",
        "destination-IP-unroutable",
        "connection-refused",
        "connection-terminated",
        "connection-timeout",
        "connection-read-timeout",
        "connection-write-timeout",
        "connection-limit-reached",
        "TLS-protocol-error",
        "TLS-certificate-error",
        "TLS-alert-received",
        "HTTP-request-denied",
        "HTTP-request-length-required",
        "HTTP-request-body-size",
        "HTTP-request-method-invalid",
        "HTTP-request-URI-invalid",
        "HTTP-request-URI-too-long",
        "HTTP-request-header-section-size",
        "HTTP-request-header-size",
        "HTTP-request-trailer-section-size",
        "HTTP-request-trailer-size",
        "HTTP-response-incomplete",
        "HTTP-response-header-section-size",
        "HTTP-response-header-size",
        "HTTP-response-body-size",
        "HTTP-response-trailer-section-size",
        "HTTP-response-trailer-size",
        "HTTP-response-transfer-coding",
        "HTTP-response-content-coding",
        "HTTP-response-timeout",
        "HTTP-upgrade-failed",
        "HTTP-protocol-error",
        "loop-detected",
        "configuration-error",
        "internal-error",
    ];
    NAMES.get(index(code)).unwrap_or(&"unknown error-code")
}

impl<W: World> Wasi<'_, W> {
    /// Takes up a request whose block has this size. Returns the handles of request and `response-outparam`.
    pub fn begin(&mut self, block_size: u32) -> (u32, u32) {
        self.take_up(block_size);
        (self.push_kind(Kind::Request), self.push_kind(Kind::Outparam))
    }

    /// Forgets the last request, and takes up the next.
    pub(crate) fn take_up(&mut self, block_size: u32) {
        let state = &mut *self.state;
        state.own.begin(block_size);
        // The table of handles is empty in a pristine instance. Where one is used again as it is (`reuse`), its guest
        // still holds what it holds.
        state.bodies.clear();
        state.output = Output::default();
        state.lines = Default::default();
        state.scratch = Span::default();
        state.descriptors.begin();
        state.request_headers = 0;
        state.is_command = false;
        state.has_fetches = false;
        state.failed_fetches = 0;
        state.fetch_scratch = Span::default();
        state.rows = Span::default();
        let body = self.span(BODY);
        let has_more = self.own_u32(FLAGS) & BODY_PARTIAL != 0;
        self.state.input = Input { at: body.at, end: body.at + body.size, has_more };
    }

    fn span(&self, at: u32) -> Span {
        Span { at: self.own_u32(at), size: self.own_u32(at + 4) }
    }

    /// Lowers a part of the request as a string. The host takes no request line but one of ASCII.
    fn lower_part(&mut self, target: u32, part: Span) {
        let is_text = core::str::from_utf8(self.own(part)).is_ok();
        self.lower_own(target, if is_text { part } else { Span { size: 0, ..part } });
    }

    /// `[method]incoming-request.method`
    pub fn request_method(&mut self, this: u32, target: u32) {
        self.get(this, REQUEST);
        self.place_for(target, 12, 4);
        // The contract's codes are in another order than the cases here: get, head, post, put, delete, connect,
        // options, trace, patch, other.
        let code = match self.own_u32(METHOD) >> 16 {
            code @ 1..=5 => code - 1,
            6 => 6,
            7 => 8,
            8 => 7,
            9 => 5,
            _ => 9,
        };
        self.world.write_u8(target, u8::try_from(code).expect("a case"));
        if code == 9 {
            let name = self.span(METHOD_NAME);
            self.lower_part(target + 4, name);
        }
    }

    /// `[method]incoming-request.path-with-query`
    pub fn request_path(&mut self, this: u32, target: u32) {
        self.get(this, REQUEST);
        self.place_for(target, 12, 4);
        let part = self.path_with_query();
        self.world.write_u8(target, 1);
        self.lower_part(target + 4, part);
    }

    /// True if the guest answers a HEAD.
    pub(crate) fn is_head_request(&self) -> bool {
        self.own_u32(METHOD) >> 16 == 2
    }

    /// The target without scheme and authority, if it has those (RFC 9112 3.2.2).
    fn path_with_query(&self) -> Span {
        let target = self.span(TARGET);
        let text = self.own(target);
        let skipped =
            text.windows(3).position(|part| part == b"://").filter(|_| text[0] != b'/').map(|at| {
                let rest = &text[at + 3..];
                at + 3 + rest.iter().position(|&byte| byte == b'/').unwrap_or(rest.len())
            });
        let skipped = crate::wire(skipped.unwrap_or(0));
        Span { at: target.at + skipped, size: target.size - skipped }
    }

    /// `[method]incoming-request.scheme`
    pub fn request_scheme(&mut self, this: u32, target: u32) {
        self.get(this, REQUEST);
        self.place_for(target, 16, 4);
        self.world.write_u8(target, 1);
        self.world.write_u8(target + 4, 0);
    }

    /// `[method]incoming-request.authority`
    pub fn request_authority(&mut self, this: u32, target: u32) {
        self.get(this, REQUEST);
        self.place_for(target, 12, 4);
        let part = self.span(AUTHORITY);
        if part.size == 0 {
            return self.world.write_u8(target, 0);
        }
        self.world.write_u8(target, 1);
        self.lower_part(target + 4, part);
    }

    /// `[method]incoming-request.headers`
    pub fn request_headers(&mut self, this: u32) -> u32 {
        self.get(this, REQUEST);
        let first = self.state.request_headers;
        if first != 0 {
            return self.show_fields(first);
        }
        let fields = self.push_kind(Kind::Fields);
        let (rows, count) = (self.own_u32(HEADERS), self.own_u32(HEADER_COUNT));
        for row in (rows..).step_by(index(HEADER_SIZE)).take(index(count)) {
            let (name, value) = (self.span(row), self.span(row + 8));
            // Names with a colon are rows of the host's for programs (`cgi.rs`).
            if !is_forbidden(self.own(name)) && !self.own(name).starts_with(b":") {
                self.link(fields, name, value);
            }
        }
        self.state.request_headers = self.take_fields(fields);
        self.show_fields(self.state.request_headers)
    }

    /// `[method]incoming-request.consume`
    pub fn request_consume(&mut self, this: u32, target: u32) {
        if self.take_once(this, REQUEST) {
            let body = self.push_kind(Kind::IncomingBody);
            self.lower_ok_u32(target, body);
        } else {
            self.lower_err_empty(target);
        }
    }

    /// True the first time.
    pub(crate) fn take_once(&mut self, this: u32, kinds: &[Kind]) -> bool {
        let entry = self.get(this, kinds);
        let is_first = entry.flags & TAKEN == 0;
        entry.flags |= TAKEN;
        is_first
    }

    /// `[method]incoming-body.stream`
    pub fn incoming_stream(&mut self, this: u32, target: u32) {
        if self.take_once(this, INCOMING_BODY) {
            let a = self.get(this, INCOMING_BODY).a;
            let stream = self.push_child(this, Entry { kind: Kind::Input, a, ..Entry::default() });
            self.lower_ok_u32(target, stream);
        } else {
            self.lower_err_empty(target);
        }
    }

    /// `[static]incoming-body.finish`
    pub fn incoming_finish(&mut self, this: u32) -> u32 {
        // A handle of the host's goes on with the trailers.
        let a = self.remove(this, INCOMING_BODY).a;
        self.push(Entry { kind: Kind::Trailers, a, ..Entry::default() })
    }

    /// `[method]future-trailers.subscribe`
    pub fn trailers_subscribe(&mut self, this: u32) -> u32 {
        let a = self.get(this, TRAILERS).a;
        let entry = Entry { kind: Kind::Pollable, flags: WAIT_TRAILERS, a, ..Entry::default() };
        self.push_child(this, entry)
    }

    /// `[method]future-trailers.get`. What was not read of the body is passed over.
    pub fn trailers_get(&mut self, this: u32, target: u32) {
        let Entry { a: handle, flags, .. } = *self.get(this, TRAILERS);
        self.place_for(target, 56, 8);
        if flags & TAKEN != 0 {
            self.world.write_u8(target, 1);
            return self.world.write_u8(target + 8, 1);
        }
        self.flush_all();
        let Some(found) = self.read_trailers(handle) else {
            return self.world.write_u8(target, 0);
        };
        self.get(this, TRAILERS).flags |= TAKEN;
        if handle != 0 {
            self.close_fetch(handle);
        }
        self.world.write_u8(target, 1);
        self.world.write_u8(target + 8, 0);
        match found {
            Ok(fields) => {
                self.world.write_u8(target + 16, 0);
                self.world.write_u8(target + 24, u8::from(fields.is_some()));
                self.world.write_u32(target + 28, fields.unwrap_or(0));
            }
            Err(code) => self.lower_error(target + 16, 8, code),
        }
    }

    /// True if a response may go out in chunks.
    pub(crate) fn knows_chunks(&self) -> bool {
        self.own_u32(FLAGS) & HTTP_1_0 == 0
    }

    /// `[constructor]outgoing-response`
    pub fn response_new(&mut self, headers: u32) -> u32 {
        let a = self.take_fields(headers);
        self.push(Entry { kind: Kind::Response, a, b: 200, ..Entry::default() })
    }

    /// `[method]outgoing-response.status-code`
    pub fn response_status(&mut self, this: u32) -> u32 {
        self.get(this, RESPONSE).b & ((1 << STATUS_BITS) - 1)
    }

    /// `[method]outgoing-response.set-status-code`
    pub fn response_set_status(&mut self, this: u32, status: u32) -> u32 {
        let status = status & 0xFFFF;
        let entry = self.get(this, RESPONSE);
        if !(100..=999).contains(&status) {
            return 1;
        }
        entry.b = entry.b >> STATUS_BITS << STATUS_BITS | status;
        0
    }

    /// `[method]outgoing-response.headers`
    pub fn response_headers(&mut self, this: u32) -> u32 {
        let first = self.get(this, RESPONSE).a;
        self.show_fields(first)
    }

    /// `[method]outgoing-response.body`
    pub fn response_body(&mut self, this: u32, target: u32) {
        if !self.take_once(this, RESPONSE) {
            return self.lower_err_empty(target);
        }
        let first = self.get(this, RESPONSE).a;
        let length = self.length_of(first);
        let body = self.begin_body(length);
        self.get(this, RESPONSE).b |= (body + 1) << STATUS_BITS;
        let handle = self.push(Entry { kind: Kind::OutgoingBody, a: body, ..Entry::default() });
        self.lower_ok_u32(target, handle);
    }

    /// Returns what `content-length` says.
    pub(crate) fn length_of(&self, headers: u32) -> Option<u64> {
        let line = self.find_bytes(headers, b"content-length")?;
        // Checked when it was put there: digits, fewer than 20.
        let digits = self.own(line.value).iter();
        Some(digits.fold(0u64, |number, digit| number * 10 + u64::from(digit - b'0')))
    }

    /// `[method]outgoing-body.write`
    pub fn outgoing_write(&mut self, this: u32, target: u32) {
        if !self.take_once(this, OUTGOING_BODY) {
            return self.lower_err_empty(target);
        }
        let a = self.get(this, OUTGOING_BODY).a;
        let stream = self.push_child(this, Entry { kind: Kind::Output, a, ..Entry::default() });
        self.lower_ok_u32(target, stream);
    }

    /// `[static]outgoing-body.finish`. Where a message has no place for trailers, the host leaves them out.
    pub fn outgoing_finish(&mut self, this: u32, has_trailers: u32, trailers: u32, target: u32) {
        let body = self.remove(this, OUTGOING_BODY).a;
        let trailers = if self.bool(has_trailers) { self.take_fields(trailers) } else { 0 };
        let (size, error) = ERROR_RESULT;
        self.place_for(target, size, 8);
        if !self.has_room_for_fields(trailers) {
            let code = self.error_of_trailers(body);
            self.abandon_body(body);
            return self.lower_error(target, error, code);
        }
        self.set_trailers(body, trailers);
        match self.finish_body(body) {
            Ok(()) => self.world.write_u8(target, 0),
            Err(written) => {
                self.world.write_u8(target, 1);
                let code = self.error_of_size(body);
                self.lower_body_size(target + error, code, written);
            }
        }
    }

    /// Lowers `HTTP-response-body-size(some(size))`.
    fn lower_body_size(&mut self, target: u32, code: u32, size: u64) {
        self.world.write_u8(target, u8::try_from(code).expect("a case"));
        self.world.write_u8(target + 8, 1);
        self.world.write_u64(target + 16, size);
    }

    /// Lifts a discriminant of two cases.
    pub fn bool(&mut self, value: u32) -> bool {
        match value {
            0 => false,
            1 => true,
            _ => self.trap("wasi: invalid discriminant"),
        }
    }

    /// `[static]response-outparam.set`
    pub fn outparam_set(&mut self, this: u32, is_error: u32, value: u32) {
        let is_error = self.bool(is_error);
        if is_error && value > 38 {
            self.trap("wasi: invalid discriminant");
        }
        let output = if is_error {
            let error = u8::try_from(value + 1).expect("at most 39");
            Output { is_set: true, error, ..Output::default() }
        } else {
            let Entry { a, b, .. } = self.remove(value, RESPONSE);
            let status = u16::try_from(b & 0xFFFF).expect("16 bits");
            let body = u8::try_from(b >> STATUS_BITS).expect("an index of few");
            Output { is_set: true, status, headers: a, body, ..Output::default() }
        };
        self.remove(this, OUTPARAM);
        self.state.output = output;
    }

    /// `http-error-code`
    pub fn error_code(&mut self, error: u32, target: u32) {
        let code = self.get(error, &[Kind::Error]).a;
        self.place_for(target, 40, 8);
        self.lower_error(target, 8, code);
    }

    /// Lowers the error of a result, whose place was checked; what an `error-code` may tell besides its case is
    /// none.
    pub(crate) fn lower_error(&mut self, target: u32, offset: u32, code: u32) {
        self.world.write_u8(target, 1);
        for place in (target + offset..).step_by(8).take(4) {
            self.world.write_u64(place, 0);
        }
        let code = u8::try_from(code).unwrap_or(INTERNAL_ERROR).min(INTERNAL_ERROR);
        self.world.write_u8(target + offset, code);
    }
}
