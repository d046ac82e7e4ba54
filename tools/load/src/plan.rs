//! What is sent, and what must come back.
//!
//! A request is made once, as bytes. Where its target or body holds `{number}`, the request's number is written in
//! before it leaves, always as wide; a body that is expected to hold the same number shows that each response belongs
//! to its request. `{us}`, `{kib}` and `{pages}` stand for what a call of a trace takes, in the same way.

use std::time::Duration;

use socket2::SockAddr;

use crate::schedule::{Piece, Spacing};
use crate::trace::{Call, Work};

/// Requests that may be under way on one connection.
pub const DEPTH_MAX: usize = 1024;

/// Connections of a run.
pub const CONNECTIONS_MAX: usize = 1 << 20;

/// Everything that a run does.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The server.
    pub address: SockAddr,
    /// What is asked for.
    pub targets: Vec<Target>,
    /// How often each target is asked for.
    pub choice: Choice,
    /// When requests are due.
    pub pace: Pace,
    /// Connections, in all.
    pub connections: usize,
    /// Requests under way on a connection at most.
    pub depth: usize,
    /// Requests after which a connection is closed and another made.
    pub requests_per_connection: Option<u32>,
    /// Bytes of a request that are sent at once; the rest follows when they have left.
    pub split: Option<usize>,
    /// Bytes per second that a connection is read at; 0 for as they come.
    pub read_rate: u64,
    /// Bytes per second that a connection is written at, in parts of `split`; 0 for as they leave.
    pub write_rate: u64,
    /// Time before what counts.
    pub warmup: Duration,
    /// Time that counts.
    pub duration: Duration,
    /// Time after which a request that was sent counts as unanswered.
    pub timeout: Duration,
    /// Where each thread runs; as many threads as entries.
    pub cpus: Vec<Option<usize>>,
    /// True if threads never sleep: less lag, and a CPU each.
    pub spins: bool,
    /// Seed of all that is random.
    pub seed: u64,
}

/// How often each target is asked for.
#[derive(Debug, Clone, PartialEq)]
pub enum Choice {
    /// All alike, in turn.
    InTurn,
    /// The k-th as often as k to the power of minus this.
    Zipf(f64),
    /// Each by its weight, of those that stand here.
    Weighted(std::sync::Arc<[f64]>),
}

/// When requests are due.
#[derive(Debug, Clone, PartialEq)]
pub enum Pace {
    /// When the response before has come: a closed loop.
    Closed,
    /// By a schedule, come what may: an open loop.
    Open {
        /// Rates, after the warm-up; it runs at the first one.
        pieces: Vec<Piece>,
        /// How arrivals are spaced.
        spacing: Spacing,
    },
    /// These calls, of functions that are the targets; without a warm-up.
    Replay(std::sync::Arc<[Call]>),
}

/// A request, and the response that it must get.
#[derive(Debug, Clone)]
pub struct Target {
    /// The request, for a connection that stays.
    pub request: Numbered,
    /// The request that asks for the connection's end.
    pub last_request: Numbered,
    /// True if the response has no body whatever its head says.
    pub is_head: bool,
    /// What must come back.
    pub expected: Expected,
}

/// What a response must be.
#[derive(Debug, Clone)]
pub struct Expected {
    /// Status, or any.
    pub status: Option<u16>,
    /// Body.
    pub body: Body,
}

/// What a body must be.
#[derive(Debug, Clone)]
pub enum Body {
    /// Anything.
    Any,
    /// So many bytes of anything.
    Length(u64),
    /// These bytes.
    Bytes(Numbered),
    /// So many bytes with this hash.
    Hash {
        /// Size in bytes.
        length: u64,
        /// BLAKE3.
        hash: blake3::Hash,
    },
}

/// A number that differs from request to request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Field {
    /// The request's number.
    Number,
    /// How long its call lasts, in microseconds.
    Us,
    /// Its call's heap, in KiB.
    Kib,
    /// Pages that its call writes to.
    Pages,
}

impl Field {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Number, Self::Us, Self::Kib, Self::Pages];

    /// Returns what stands for it in a text.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Number => "{number}",
            Self::Us => "{us}",
            Self::Kib => "{kib}",
            Self::Pages => "{pages}",
        }
    }

    /// Returns how many digits it is written with.
    #[must_use]
    pub const fn digits(self) -> usize {
        match self {
            Self::Number => DIGITS_MAX,
            Self::Us | Self::Kib | Self::Pages => 10,
        }
    }
}

/// Digits of the longest field.
const DIGITS_MAX: usize = 16;

/// The fields of one request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fields {
    /// The request's number.
    pub number: u64,
    /// What its call takes.
    pub work: Work,
}

impl Fields {
    fn of(&self, field: Field) -> u64 {
        match field {
            Field::Number => self.number,
            Field::Us => self.work.us.into(),
            Field::Kib => self.work.kib.into(),
            Field::Pages => self.work.pages.into(),
        }
    }

    /// Returns a field's text.
    #[must_use]
    pub fn text(&self, field: Field) -> String {
        format!("{:0width$}", self.of(field), width = field.digits())
    }
}

/// Bytes with places for fields.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Numbered {
    /// The bytes, with zeros in those places.
    pub bytes: Vec<u8>,
    /// Where the places begin, ascending, and what stands there.
    pub places: Vec<(usize, Field)>,
}

impl Numbered {
    /// Makes bytes of `text`, in which a field's name is a place.
    #[must_use]
    pub fn new(text: &[u8]) -> Self {
        let mut numbered = Self::default();
        let mut rest = text;
        while let Some(at) = rest.iter().position(|byte| *byte == b'{') {
            let (before, from) = rest.split_at(at);
            numbered.bytes.extend_from_slice(before);
            let field =
                Field::ALL.into_iter().find(|field| from.starts_with(field.name().as_bytes()));
            let Some(field) = field else {
                numbered.bytes.push(b'{');
                rest = &from[1..];
                continue;
            };
            numbered.places.push((numbered.bytes.len(), field));
            numbered.bytes.extend(std::iter::repeat_n(b'0', field.digits()));
            rest = &from[field.name().len()..];
        }
        numbered.bytes.extend_from_slice(rest);
        numbered
    }

    /// True if something of it is what a call of a trace takes.
    #[must_use]
    pub fn tells_work(&self) -> bool {
        self.places.iter().any(|(_, field)| *field != Field::Number)
    }

    /// Appends the bytes with the fields in their places.
    #[inline]
    pub fn write(&self, fields: &Fields, into: &mut Vec<u8>) {
        let start = into.len();
        into.extend_from_slice(&self.bytes);
        for (place, field) in &self.places {
            let width = field.digits();
            let digits = digits(fields.of(*field));
            into[start + place..start + place + width]
                .copy_from_slice(&digits[DIGITS_MAX - width..]);
        }
    }

    /// Tells whether `piece` is what stands from `offset` on, with the fields in their places.
    #[inline]
    #[must_use]
    pub fn holds(&self, fields: &Fields, offset: usize, piece: &[u8]) -> bool {
        let Some(wanted) = self.bytes.get(offset..offset + piece.len()) else { return false };
        let mut at = 0;
        for (place, field) in &self.places {
            let width = field.digits();
            // The part of the place that lies in the piece.
            let from = place.saturating_sub(offset).min(piece.len()).max(at);
            let to = (place + width).saturating_sub(offset).min(piece.len()).max(from);
            if wanted[at..from] != piece[at..from] {
                return false;
            }
            if from < to {
                let first = DIGITS_MAX - width + (offset + from - place);
                let digits = digits(fields.of(*field));
                if piece[from..to] != digits[first..first + (to - from)] {
                    return false;
                }
            }
            at = to;
        }
        wanted[at..] == piece[at..]
    }
}

fn digits(mut number: u64) -> [u8; DIGITS_MAX] {
    let mut digits = [b'0'; DIGITS_MAX];
    for digit in digits.iter_mut().rev() {
        let value = (number % 10) as u8;
        *digit = b'0' + value;
        number /= 10;
    }
    digits
}

/// Parts of a request, from which [`Target`] is made.
#[derive(Debug, Clone)]
pub struct Request<'a> {
    /// Method.
    pub method: &'a str,
    /// Target, as it stands in the first line.
    pub target: &'a str,
    /// Value of Host.
    pub host: &'a str,
    /// Further headers, as `name: value`.
    pub headers: &'a [String],
    /// Body.
    pub body: &'a [u8],
}

impl Request<'_> {
    /// Makes the bytes of both requests.
    #[must_use]
    pub fn target(&self, expected: Expected) -> Target {
        Target {
            request: self.encode(false),
            last_request: self.encode(true),
            is_head: self.method == "HEAD",
            expected,
        }
    }

    fn encode(&self, is_last: bool) -> Numbered {
        let mut head = format!(
            "{} {} HTTP/1.1\r\nHost: {}\r\nUser-Agent: midge-load\r\n",
            self.method, self.target, self.host
        );
        for header in self.headers {
            head.push_str(header);
            head.push_str("\r\n");
        }
        let body = Numbered::new(self.body);
        if !self.body.is_empty() || matches!(self.method, "POST" | "PUT" | "PATCH") {
            head.push_str(&format!("Content-Length: {}\r\n", body.bytes.len()));
        }
        if is_last {
            head.push_str("Connection: close\r\n");
        }
        head.push_str("\r\n");
        let mut request = Numbered::new(head.as_bytes());
        let shift = request.bytes.len();
        request.bytes.extend_from_slice(&body.bytes);
        request.places.extend(body.places.iter().map(|(place, field)| (place + shift, *field)));
        request
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(number: u64) -> Fields {
        Fields { number, work: Work { us: 1500, kib: 64, pages: 3 } }
    }

    #[test]
    fn fields_stand_in_their_places() {
        let numbered = Numbered::new(b"a{number}b{number}{us}{x}{");
        let mut bytes = Vec::new();
        numbered.write(&fields(42), &mut bytes);
        assert_eq!(bytes, b"a0000000000000042b00000000000000420000001500{x}{");
        assert!(numbered.tells_work() && !Numbered::new(b"{number}").tells_work());
        let text = fields(42).text(Field::Kib);
        assert_eq!((text.as_str(), fields(42).text(Field::Number).len()), ("0000000064", 16));
    }

    #[test]
    fn a_body_is_compared_in_any_pieces() {
        let numbered = Numbered::new(b"x{number}yz{pages}w{number}");
        let mut right = Vec::new();
        numbered.write(&fields(1_234_567), &mut right);
        for from in 0..right.len() {
            for to in from..=right.len() {
                let piece = &right[from..to];
                assert!(numbered.holds(&fields(1_234_567), from, piece), "{from}..{to}");
                for at in 0..piece.len() {
                    let mut wrong = piece.to_vec();
                    wrong[at] ^= 1;
                    let is_held = numbered.holds(&fields(1_234_567), from, &wrong);
                    assert!(!is_held, "{from}..{to}, byte {at}");
                }
            }
        }
        assert!(!numbered.holds(&fields(1_234_568), 0, &right), "another request's response");
        assert!(!numbered.holds(&fields(1_234_567), right.len(), b"x"), "more than was expected");
    }

    #[test]
    fn a_request_says_its_length_and_its_end() {
        let request = Request {
            method: "POST",
            target: "/a?{number}",
            host: "h",
            headers: &["X: 1".into()],
            body: b"{number}!",
        };
        let target = request.target(Expected { status: None, body: Body::Any });
        let mut bytes = Vec::new();
        target.last_request.write(&fields(7), &mut bytes);
        let text = String::from_utf8(bytes).unwrap();
        assert_eq!(
            text,
            "POST /a?0000000000000007 HTTP/1.1\r\nHost: h\r\nUser-Agent: midge-load\r\nX: 1\r\n\
             Content-Length: 17\r\nConnection: close\r\n\r\n0000000000000007!"
        );
        assert!(!String::from_utf8_lossy(&target.request.bytes).contains("close"));
    }
}
