//! What a stream must be answered with: read as a whole, without buffers, turns or a kernel.

use super::answers::Answer;
use super::host::{BODY_BYTES_MAX, Plan, SMALL_BYTES_MAX, Way};
use crate::http::chunked::Decoder;
use crate::http::refusal::Refusal;
use crate::http::request::{self, Framing, Head, Method, Progress};
use crate::settings::Settings;

/// What one request must be answered with.
#[derive(Debug, Default)]
struct Expected {
    /// Status and body; several where it depends on how much of a body had come when the host was asked.
    either: Vec<(u16, Vec<u8>)>,
    is_head: bool,
    must_close: bool,
    /// The connection may end with it, for a body that nobody read.
    may_close: bool,
    /// It may do so without a word, for the head had been sent by then.
    may_end: bool,
}

/// What a stream must be answered with.
#[derive(Debug, Default)]
pub(super) struct Model {
    expected: Vec<Expected>,
    /// The connection is cut off somewhere: any front of the answers may have been read.
    is_cut: bool,
    /// The peer has asked for the end, and sent more.
    has_more_behind_end: bool,
}

/// How much there is of a body.
enum Body {
    /// All of it, how many bytes of the stream it took, and the lines behind it.
    Whole(Vec<u8>, usize, Vec<u8>),
    /// It lacks its end.
    Partial(Vec<u8>),
    /// It is wrong, behind so much.
    Malformed(Refusal, Vec<u8>),
}

impl Model {
    pub(super) fn of(stream: &[u8], settings: &Settings) -> Self {
        let mut model = Self::default();
        let (mut rest, mut head) = (stream.to_vec(), Head::default());
        let mut requests = 0;
        loop {
            let front = rest.len().min(settings.head_bytes_max);
            let refusal = match request::parse(&mut rest[..front], &mut head) {
                Ok(Progress::Complete) => None,
                Ok(Progress::Partial) if front == settings.head_bytes_max => {
                    Some(Refusal::HeadTooLarge)
                }
                Ok(Progress::Partial) => return model,
                Err(refusal) => Some(refusal),
            };
            if let Some(refusal) = refusal {
                let mut line = rest.as_slice();
                for _ in 0..request::EMPTY_LINES_MAX {
                    line = line.strip_prefix(b"\r\n").unwrap_or(line);
                }
                model.refuse(refusal, line.starts_with(b"HEAD "));
                return model;
            }
            requests += 1;
            let body = Body::of(&rest[head.bytes_total()..], head.framing);
            let path = head.path.of(&rest[usize::from(head.bytes_skipped)..]);
            let plan = Plan::of(path);
            let mut expected = Expected {
                is_head: head.method == Method::Head,
                must_close: !head.keep_alive || requests >= settings.requests_per_connection_max,
                ..Expected::default()
            };
            model.answer(&plan, &head, &body, &mut expected);
            let must_close = expected.must_close;
            if !expected.either.is_empty() {
                model.expected.push(expected);
            }
            let size = if let Body::Whole(_, size, _) = body {
                head.bytes_total() + size
            } else {
                rest.len()
            };
            note_end(&mut model, &head, rest.len() > size);
            match body {
                Body::Whole(_, size, _) if !must_close => {
                    rest.drain(..head.bytes_total() + size);
                }
                _ => return model,
            }
        }
    }

    fn refuse(&mut self, refusal: Refusal, is_head: bool) {
        let either = vec![answer(refusal)];
        self.expected.push(Expected { either, is_head, must_close: true, ..Expected::default() });
    }

    /// Says what the host and the endpoint make of a request.
    fn answer(&mut self, plan: &Plan, head: &Head, body: &Body, expected: &mut Expected) {
        let has_body = head.framing != Framing::None;
        let is_whole = matches!(body, Body::Whole(..));
        if let Body::Malformed(refusal, _) = body {
            expected.either.push(answer(*refusal));
            expected.must_close = true;
        }
        let most = if plan.way == Way::Small { SMALL_BYTES_MAX as u64 } else { BODY_BYTES_MAX };
        let is_told_too_large = matches!(head.framing, Framing::Length(length) if length > most);
        match (plan.way, body) {
            (Way::Refuse, _) => {
                expected.either.push(plan.answer(&[]));
                expected.may_close = has_body;
            }
            (_, Body::Partial(_)) if is_told_too_large && !plan.is_streamed() => {
                expected.either.push(answer(Refusal::BodyTooLarge));
                expected.must_close = true;
            }
            (Way::Given | Way::Abort, _) => {
                expected.either.push(plan.answer(&[]));
                expected.may_end = has_body;
                expected.must_close |= head.version_minor == 0;
                // A body that breaks or ends early takes the answer with it.
                self.is_cut |= plan.way == Way::Abort || !is_whole;
                // Where the response was complete by then, the connection goes on: of a HEAD with the head.
            }
            (Way::Small, Body::Whole(body, ..)) if body.len() > SMALL_BYTES_MAX => {
                expected.either.push(answer(Refusal::BodyTooLarge));
                expected.may_close = true;
            }
            (Way::Small, Body::Partial(body) | Body::Malformed(_, body)) => {
                if body.len() > SMALL_BYTES_MAX {
                    expected.either.push(answer(Refusal::BodyTooLarge));
                    expected.must_close = true;
                }
            }
            (way, Body::Whole(body, _, lines)) => {
                let (status, mut body) = plan.answer(body);
                // HTTP/1.0 has no chunks, and so no place behind a body.
                if way == Way::Chunks && head.version_minor > 0 {
                    body.extend_from_slice(lines);
                }
                expected.either.push((status, body));
                let is_endless = matches!(way, Way::Chunks | Way::Eager);
                expected.must_close |= is_endless && head.version_minor == 0;
                // The peer may be seen to go before it is answered.
                self.is_cut |= way == Way::Watched;
            }
            (Way::Eager, Body::Partial(body) | Body::Malformed(_, body)) => {
                expected.either.push(plan.answer(body));
                self.is_cut = true;
            }
            // The peer went in the middle of a body that the host was reading.
            (Way::Whole | Way::Chunks, Body::Partial(_)) => self.is_cut = true,
            (_, Body::Partial(_) | Body::Malformed(..)) => {}
        }
    }

    /// Takes it that a peer which sent more behind its end may be reset.
    pub(super) const fn allow_resets(&mut self) {
        self.is_cut |= self.has_more_behind_end;
    }

    pub(super) fn is_head(&self, place: usize) -> bool {
        self.expected.get(place).is_some_and(|expected| expected.is_head)
    }

    /// Tells whether the answers are the same however the stream was cut.
    pub(super) fn is_exact(&self) -> bool {
        let is_exact = |expected: &Expected| {
            let is_told = expected.must_close || !expected.may_close;
            expected.either.len() == 1 && is_told && !expected.may_end
        };
        !self.is_cut && self.expected.iter().all(is_exact)
    }

    /// Compares answers with what they must be.
    pub(super) fn judge(&self, answers: &[Answer], resets: bool) {
        let is_cut = self.is_cut || resets;
        let mut may_end = is_cut;
        for (place, answer) in answers.iter().enumerate() {
            if answer.status == 0 && is_cut {
                // Its head lacks its end; it may have been an interim one.
                break;
            }
            let expected = self.expected.get(place);
            let expected = expected.unwrap_or_else(|| panic!("nobody asked for {answer:?}"));
            let is_last = place + 1 == answers.len();
            let is_front = is_cut && is_last;
            assert!(answer.is_whole || is_front, "cut off: {answer:?}, {expected:?}");
            let fits = |(status, body): &(u16, Vec<u8>)| {
                let is_body = expected.is_head
                    || answer.body == *body
                    || is_front && body.starts_with(&answer.body);
                *status == answer.status && is_body
            };
            assert!(expected.either.iter().any(fits), "{answer:?}, and not {expected:?}");
            let must_close = expected.must_close && !is_front;
            assert!(answer.closes || !must_close, "goes on: {answer:?}, {expected:?}");
            let may_close = expected.must_close || expected.may_close;
            assert!(!answer.closes || may_close, "ends: {answer:?}, {expected:?}");
            assert!(!answer.closes || is_last, "an answer after the last: {answers:?}");
            may_end |= is_last && (answer.closes || expected.may_end);
        }
        let is_all = answers.len() == self.expected.len();
        assert!(is_all || may_end, "{answers:?}, and not {:?}", self.expected);
    }

    /// Returns how many answers a peer can hope for.
    pub(super) fn count(&self) -> usize {
        self.expected.len()
    }
}

/// Notes whether a request that asks for the end is the last of its stream.
const fn note_end(model: &mut Model, head: &Head, has_more: bool) {
    model.has_more_behind_end |= !head.keep_alive && has_more;
}

/// What a refusal is answered with.
fn answer(refusal: Refusal) -> (u16, Vec<u8>) {
    (refusal.status(), refusal.name().into())
}

impl Body {
    fn of(bytes: &[u8], framing: Framing) -> Self {
        match framing {
            Framing::None => Self::Whole(Vec::new(), 0, Vec::new()),
            Framing::Length(length) => {
                let size = usize::try_from(length).unwrap_or(usize::MAX);
                match bytes.get(..size) {
                    Some(body) => Self::Whole(body.to_vec(), size, Vec::new()),
                    None => Self::Partial(bytes.to_vec()),
                }
            }
            Framing::Chunked => Self::chunked(bytes),
        }
    }

    /// Byte by byte, so that it is known how much was decoded before what was wrong.
    fn chunked(bytes: &[u8]) -> Self {
        let (mut decoder, mut body) = (Decoder::new(), Vec::new());
        for (place, &byte) in bytes.iter().enumerate() {
            let mut byte = [byte];
            match decoder.decode(&mut byte, 0, 0) {
                Err(refusal) => return Self::Malformed(refusal, body),
                Ok(decoded) => {
                    body.extend_from_slice(&byte[..decoded.written]);
                    if decoded.is_complete {
                        let lines = decoder.trailers().iter();
                        let lines = lines.map(|(name, value)| [name, b": ", value, b"\n"].concat());
                        let lines = lines.collect::<Vec<_>>().concat();
                        return Self::Whole(body, place + 1, lines);
                    }
                }
            }
        }
        Self::Partial(body)
    }
}
