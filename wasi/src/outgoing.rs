//! Outgoing requests of `wasi:http`, as the guest puts them together.
//!
//! A request is a record in our region:
//!
//! ```text
//!   method: u32 | name: Span | path: u32, Span | scheme: u32, u32, Span | authority: u32, Span | body: u32
//! ```
//!
//! Options begin with 0 for none. What is sent is in `fetch.rs`.

use crate::fetch::Asked;
use crate::handles::{Entry, Kind};
use crate::own::Span;
use crate::{Wasi, World, index};

const REQUEST: &[Kind] = &[Kind::OutgoingRequest];
const OPTIONS: &[Kind] = &[Kind::Options];

const METHOD: u32 = 0;
const PATH: u32 = 12;
const SCHEME: u32 = 24;
const AUTHORITY: u32 = 40;
const BODY: u32 = 52;
const RECORD_SIZE: u32 = 56;
/// Cases of `method` and `scheme` that have a name.
const METHOD_OTHER: u32 = 9;
const SCHEME_OTHER: u32 = 2;
/// Three options of sixteen bytes.
const OPTIONS_SIZE: u32 = 48;
/// `method`, by its cases.
const METHODS: [&[u8]; 9] =
    [b"GET", b"HEAD", b"POST", b"PUT", b"DELETE", b"CONNECT", b"OPTIONS", b"TRACE", b"PATCH"];
/// `scheme`: where the guest says none, as other hosts have it.
const HTTPS: u32 = 1;

/// An option of a string, as the canonical ABI passes it.
#[derive(Debug, Clone, Copy)]
pub struct OptionalText {
    /// 0 or 1.
    pub is_some: u32,
    /// Pointer and size.
    pub text: [u32; 2],
}

impl<W: World> Wasi<'_, W> {
    fn record_of(&mut self, this: u32) -> u32 {
        self.get(this, REQUEST).b
    }

    /// `[constructor]outgoing-request`
    pub fn outgoing_new(&mut self, headers: u32) -> u32 {
        let a = self.take_fields(headers);
        let record = self.take(RECORD_SIZE);
        self.bytes[record.range()].fill(0);
        self.push(Entry { kind: Kind::OutgoingRequest, a, b: record.at, ..Entry::default() })
    }

    /// `[method]outgoing-request.headers`
    pub fn outgoing_headers(&mut self, this: u32) -> u32 {
        let first = self.get(this, REQUEST).a;
        self.show_fields(first)
    }

    /// `[method]outgoing-request.body`
    pub fn outgoing_body(&mut self, this: u32, target: u32) {
        let record = self.record_of(this);
        if self.own_u32(record + BODY) != 0 {
            return self.lower_err_empty(target);
        }
        let first = self.get(this, REQUEST).a;
        let length = self.length_of(first);
        let body = self.begin_body(length);
        self.set_own_u32(record + BODY, body + 1);
        let handle = self.push(Entry { kind: Kind::OutgoingBody, a: body, ..Entry::default() });
        self.lower_ok_u32(target, handle);
    }

    fn put_span(&mut self, at: u32, span: Span) {
        self.set_own_u32(at, span.at);
        self.set_own_u32(at + 4, span.size);
    }

    fn get_span(&self, at: u32) -> Span {
        Span { at: self.own_u32(at), size: self.own_u32(at + 4) }
    }

    /// `[method]outgoing-request.method`
    pub fn outgoing_method(&mut self, this: u32, target: u32) {
        let record = self.record_of(this);
        self.place_for(target, 12, 4);
        let case = self.own_u32(record + METHOD);
        self.world.write_u8(target, u8::try_from(case).expect("a case"));
        if case == METHOD_OTHER {
            let name = self.get_span(record + METHOD + 4);
            self.lower_own(target + 4, name);
        }
    }

    /// `[method]outgoing-request.set-method`
    pub fn outgoing_set_method(&mut self, this: u32, case: u32, name: [u32; 2]) -> u32 {
        let record = self.record_of(this);
        if case > METHOD_OTHER {
            self.trap("wasi: invalid discriminant");
        }
        let mut span = Span::default();
        if case == METHOD_OTHER {
            span = self.lift_string(name[0], name[1]);
            if !crate::fields::is_token(self.own(span)) {
                return 1;
            }
        }
        self.set_own_u32(record + METHOD, case);
        self.put_span(record + METHOD + 4, span);
        0
    }

    /// `[method]outgoing-request.path-with-query` and `authority`
    fn lower_text_option(&mut self, at: u32, target: u32) {
        self.place_for(target, 12, 4);
        let is_some = self.own_u32(at) != 0;
        self.world.write_u8(target, u8::from(is_some));
        if is_some {
            let text = self.get_span(at + 4);
            self.lower_own(target + 4, text);
        }
    }

    fn set_text_option(&mut self, at: u32, value: OptionalText) -> u32 {
        let mut span = Span::default();
        let is_some = self.bool(value.is_some);
        if is_some {
            span = self.lift_string(value.text[0], value.text[1]);
            // What would end a request line, or be no part of it. A fragment is left to whoever sends.
            if self.own(span).iter().any(|&byte| byte <= b' ' || byte == 0x7F) {
                return 1;
            }
        }
        self.set_own_u32(at, u32::from(is_some));
        self.put_span(at + 4, span);
        0
    }

    /// `[method]outgoing-request.path-with-query`
    pub fn outgoing_path(&mut self, this: u32, target: u32) {
        let record = self.record_of(this);
        self.lower_text_option(record + PATH, target);
    }

    /// `[method]outgoing-request.set-path-with-query`
    pub fn outgoing_set_path(&mut self, this: u32, path: OptionalText) -> u32 {
        let record = self.record_of(this);
        self.set_text_option(record + PATH, path)
    }

    /// `[method]outgoing-request.authority`
    pub fn outgoing_authority(&mut self, this: u32, target: u32) {
        let record = self.record_of(this);
        self.lower_text_option(record + AUTHORITY, target);
    }

    /// `[method]outgoing-request.set-authority`
    pub fn outgoing_set_authority(&mut self, this: u32, authority: OptionalText) -> u32 {
        let record = self.record_of(this);
        self.set_text_option(record + AUTHORITY, authority)
    }

    /// `[method]outgoing-request.scheme`
    pub fn outgoing_scheme(&mut self, this: u32, target: u32) {
        let record = self.record_of(this);
        self.place_for(target, 16, 4);
        let is_some = self.own_u32(record + SCHEME) != 0;
        self.world.write_u8(target, u8::from(is_some));
        if !is_some {
            return;
        }
        let case = self.own_u32(record + SCHEME + 4);
        self.world.write_u8(target + 4, u8::try_from(case).expect("a case"));
        if case == SCHEME_OTHER {
            let name = self.get_span(record + SCHEME + 8);
            self.lower_own(target + 8, name);
        }
    }

    /// `[method]outgoing-request.set-scheme`
    pub fn outgoing_set_scheme(
        &mut self,
        this: u32,
        is_some: u32,
        case: u32,
        name: [u32; 2],
    ) -> u32 {
        let record = self.record_of(this);
        let is_some = self.bool(is_some);
        if is_some && case > SCHEME_OTHER {
            self.trap("wasi: invalid discriminant");
        }
        let mut span = Span::default();
        if is_some && case == SCHEME_OTHER {
            span = self.lift_string(name[0], name[1]);
            let is_scheme = |byte: &u8| byte.is_ascii_alphanumeric() || b"+-.".contains(byte);
            let text = self.own(span);
            // That the first is a letter is not asked: other hosts do not either.
            if text.is_empty() || !text.iter().all(is_scheme) {
                return 1;
            }
        }
        self.set_own_u32(record + SCHEME, u32::from(is_some));
        self.set_own_u32(record + SCHEME + 4, case);
        self.put_span(record + SCHEME + 8, span);
        0
    }

    /// `[constructor]request-options`
    pub fn options_new(&mut self) -> u32 {
        let record = self.take(OPTIONS_SIZE);
        self.bytes[record.range()].fill(0);
        self.push(Entry { kind: Kind::Options, b: record.at, ..Entry::default() })
    }

    /// A getter of `request-options`; 0 for the first of its times.
    pub fn options_get(&mut self, this: u32, which: u32, target: u32) {
        let at = self.get(this, OPTIONS).b + which * 16;
        self.place_for(target, 16, 8);
        self.world.write_u8(target, u8::from(self.own_u32(at) != 0));
        let low = u64::from(self.own_u32(at + 8));
        let value = low | u64::from(self.own_u32(at + 12)) << 32;
        self.world.write_u64(target + 8, value);
    }

    /// A setter of `request-options`.
    pub fn options_set(&mut self, this: u32, which: u32, is_some: u32, time: u64) -> u32 {
        let at = self.get(this, OPTIONS).b + which * 16;
        let is_some = self.bool(is_some);
        self.set_own_u32(at, u32::from(is_some));
        let [low, high] = [time & 0xFFFF_FFFF, time >> 32];
        self.set_own_u32(at + 8, u32::try_from(low).expect("32 bits"));
        self.set_own_u32(at + 12, u32::try_from(high).expect("32 bits"));
        0
    }

    /// `wasi:http/outgoing-handler` `handle`
    pub fn outgoing_handle(&mut self, request: u32, has_options: u32, options: u32, target: u32) {
        let Entry { a: headers, b: record, .. } = self.remove(request, REQUEST);
        let mut times = [0; 3];
        if self.bool(has_options) {
            let options = self.remove(options, OPTIONS).b;
            for (which, time) in (0..).zip(&mut times) {
                let at = options + which * 16;
                if self.own_u32(at) != 0 {
                    let [low, high] = [at + 8, at + 12].map(|at| u64::from(self.own_u32(at)));
                    // 0 is the host's own; a time of nothing is the least there is.
                    *time = (high << 32 | low).max(1);
                }
            }
        }
        self.place_for(target, 40, 8);
        let case = self.own_u32(record + METHOD);
        let has_scheme = self.own_u32(record + SCHEME) != 0;
        let asked = Asked {
            headers,
            method: METHODS
                .get(index(case))
                .copied()
                .ok_or_else(|| self.get_span(record + METHOD + 4)),
            scheme: if has_scheme { self.own_u32(record + SCHEME + 4) } else { HTTPS },
            authority: self.get_span(record + AUTHORITY + 4),
            path: (self.own_u32(record + PATH) != 0).then(|| self.get_span(record + PATH + 4)),
            body: self.own_u32(record + BODY).checked_sub(1),
            times,
        };
        match self.send_request(asked) {
            Ok(a) => {
                let future = self.push(Entry { kind: Kind::FutureResponse, a, ..Entry::default() });
                self.world.write_u8(target, 0);
                self.world.write_u32(target + 8, future);
            }
            Err(code) => self.lower_error(target, 8, code),
        }
    }
}
