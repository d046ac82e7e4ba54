//! What is sent, and what must come back.
//!
//! A request is made once, as bytes. Where its target or body holds `{number}`, the request's number is written in
//! before it leaves, always [`NUMBER_DIGITS`] wide; a body that is expected to hold the same number shows that
//! each response belongs to its request.

use std::time::Duration;

use socket2::SockAddr;

use crate::schedule::{Piece, Spacing};
use crate::trace::Call;

/// What stands for the request's number.
pub const NUMBER: &str = "{number}";

/// Digits of a request's number.
pub const NUMBER_DIGITS: usize = 16;

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
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Choice {
    /// All alike, in turn.
    InTurn,
    /// The k-th as often as k to the power of minus this.
    Zipf(f64),
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

/// Bytes with places for the request's number.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Numbered {
    /// The bytes, with zeros in those places.
    pub bytes: Vec<u8>,
    /// Where the places begin.
    pub places: Vec<usize>,
}

impl Numbered {
    /// Makes bytes of `text`, in which [`NUMBER`] is a place.
    #[must_use]
    pub fn new(text: &[u8]) -> Self {
        let mut numbered = Self::default();
        let mut rest = text;
        while let Some(at) = find(rest, NUMBER.as_bytes()) {
            numbered.bytes.extend_from_slice(&rest[..at]);
            numbered.places.push(numbered.bytes.len());
            numbered.bytes.extend_from_slice(&[b'0'; NUMBER_DIGITS]);
            rest = &rest[at + NUMBER.len()..];
        }
        numbered.bytes.extend_from_slice(rest);
        numbered
    }

    /// Appends the bytes with `number` in their places.
    #[inline]
    pub fn write(&self, number: u64, into: &mut Vec<u8>) {
        let start = into.len();
        into.extend_from_slice(&self.bytes);
        if !self.places.is_empty() {
            let digits = digits(number);
            for place in &self.places {
                into[start + place..start + place + NUMBER_DIGITS].copy_from_slice(&digits);
            }
        }
    }

    /// Tells whether `piece` is what stands from `offset` on, with `number` in the places.
    #[inline]
    #[must_use]
    pub fn holds(&self, number: u64, offset: usize, piece: &[u8]) -> bool {
        let Some(wanted) = self.bytes.get(offset..offset + piece.len()) else { return false };
        if self.places.is_empty() {
            return wanted == piece;
        }
        let digits = digits(number);
        let mut at = 0;
        for place in &self.places {
            // The part of the place that lies in the piece.
            let from = place.saturating_sub(offset).min(piece.len()).max(at);
            let to = (place + NUMBER_DIGITS).saturating_sub(offset).min(piece.len()).max(from);
            if wanted[at..from] != piece[at..from] {
                return false;
            }
            if from < to {
                let first = offset + from - place;
                if piece[from..to] != digits[first..first + (to - from)] {
                    return false;
                }
            }
            at = to;
        }
        wanted[at..] == piece[at..]
    }
}

fn find(bytes: &[u8], needle: &[u8]) -> Option<usize> {
    bytes.windows(needle.len()).position(|window| window == needle)
}

fn digits(mut number: u64) -> [u8; NUMBER_DIGITS] {
    let mut digits = [b'0'; NUMBER_DIGITS];
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
        request.places.extend(body.places.iter().map(|place| place + shift));
        request
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_stand_in_their_places() {
        let numbered = Numbered::new(b"a{number}b{number}");
        let mut bytes = Vec::new();
        numbered.write(42, &mut bytes);
        assert_eq!(bytes, b"a0000000000000042b0000000000000042");
    }

    #[test]
    fn a_body_is_compared_in_any_pieces() {
        let numbered = Numbered::new(b"x{number}yz{number}");
        let mut right = Vec::new();
        numbered.write(1_234_567, &mut right);
        for from in 0..right.len() {
            for to in from..=right.len() {
                let piece = &right[from..to];
                assert!(numbered.holds(1_234_567, from, piece), "{from}..{to}");
                for at in 0..piece.len() {
                    let mut wrong = piece.to_vec();
                    wrong[at] ^= 1;
                    assert!(!numbered.holds(1_234_567, from, &wrong), "{from}..{to}, byte {at}");
                }
            }
        }
        assert!(!numbered.holds(1_234_568, 0, &right), "another request's response");
        assert!(!numbered.holds(1_234_567, right.len(), b"x"), "more than was expected");
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
        target.last_request.write(7, &mut bytes);
        let text = String::from_utf8(bytes).unwrap();
        assert_eq!(
            text,
            "POST /a?0000000000000007 HTTP/1.1\r\nHost: h\r\nUser-Agent: midge-load\r\nX: 1\r\n\
             Content-Length: 17\r\nConnection: close\r\n\r\n0000000000000007!"
        );
        assert!(!String::from_utf8_lossy(&target.request.bytes).contains("close"));
    }
}
