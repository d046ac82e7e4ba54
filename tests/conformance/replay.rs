//! Sends a case to a server and tells what came back, whatever it is.
//!
//! A server that is asked for nothing says nothing, so whether a connection stays open is found by one more
//! request on it, which asks for its end. Nothing here fails: what a server does is a finding.

use std::fmt;
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::Duration;

use crate::corpus::{After, Case};

/// The request that shows that a connection is open.
const PROBE: &[u8] = b"GET / HTTP/1.1\r\nHost: probe\r\nConnection: close\r\n\r\n";

/// The line by which a server tells that it ends the connection.
const CLOSE: &str = "connection: close";

/// How a case's bytes are cut.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Cut {
    /// As the case says.
    Whole,
    /// In two at this byte.
    At(usize),
    /// Byte by byte.
    Bytes,
}

/// What came back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Outcome {
    /// The answers in their order.
    pub(crate) answers: Vec<Answer>,
    /// What became of the connection; `None` if the server fell silent.
    pub(crate) after: Option<After>,
    /// What came besides, if it is no HTTP.
    pub(crate) noise: usize,
}

/// One answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Answer {
    /// Its status.
    pub(crate) status: u16,
    /// Its header lines, in lower case.
    pub(crate) headers: Vec<String>,
    /// Its body.
    pub(crate) body: Vec<u8>,
}

/// Replays a case.
pub(crate) fn replay(
    address: SocketAddr,
    case: &Case,
    cut: Cut,
    patience: Duration,
) -> std::io::Result<Outcome> {
    let mut peer = Peer::connect(address, case, patience)?;
    for (index, send) in case.sends().iter().enumerate() {
        if index > 0 {
            peer.read_answers(index);
        }
        match cut {
            Cut::Whole => peer.send(send),
            Cut::At(position) => {
                let (front, back) = send.split_at(position.min(send.len()));
                peer.send(front);
                peer.send(back);
            }
            Cut::Bytes => send.chunks(1).for_each(|byte| peer.send(byte)),
        }
    }
    let expected = case.answers.len();
    if case.after == After::Open {
        peer.read_answers(expected);
        peer.send(PROBE);
    }
    peer.read_answers(usize::MAX);
    Ok(peer.outcome(case, expected))
}

struct Peer<'c> {
    stream: TcpStream,
    case: &'c Case,
    received: Vec<u8>,
    answers: Vec<Answer>,
    is_ended: bool,
    is_silent: bool,
}

impl<'c> Peer<'c> {
    fn connect(address: SocketAddr, case: &'c Case, patience: Duration) -> std::io::Result<Self> {
        let stream = TcpStream::connect(address)?;
        stream.set_read_timeout(Some(patience))?;
        stream.set_write_timeout(Some(patience))?;
        stream.set_nodelay(true)?;
        Ok(Self {
            stream,
            case,
            received: Vec::new(),
            answers: Vec::new(),
            is_ended: false,
            is_silent: false,
        })
    }

    fn send(&mut self, bytes: &[u8]) {
        // A server that has refused may be gone already; what it said is read afterwards.
        let _ignored = self.stream.write_all(bytes);
    }

    /// Reads until there are this many answers, or no more come.
    fn read_answers(&mut self, count: usize) {
        while self.answers.len() < count {
            if let Some(answer) = self.take_answer() {
                // A 100 that the case does not name is no answer of its own.
                if answer.status != 100 || self.case.answers.contains(&100) {
                    self.answers.push(answer);
                }
            } else if self.is_ended || self.is_silent {
                return;
            } else {
                self.read_more();
            }
        }
    }

    /// Takes one answer out of what has come, if it is complete.
    fn take_answer(&mut self) -> Option<Answer> {
        let end = self.received.windows(4).position(|window| window == b"\r\n\r\n")?;
        let head = String::from_utf8_lossy(&self.received[..end]).into_owned();
        let mut lines = head.split("\r\n");
        let status = lines.next()?.strip_prefix("HTTP/1.")?.get(2..5)?.parse().ok()?;
        let headers: Vec<String> = lines.map(str::to_ascii_lowercase).collect();
        let is_bodiless = (100..200).contains(&status)
            || status == 204
            || status == 304
            || self.case.to_head.contains(&self.answers.len());
        let length = headers.iter().find_map(|line| line.strip_prefix("content-length:"));
        let rest = &self.received[end + 4..];
        let (body, size) = match length {
            _ if is_bodiless => (Vec::new(), 0),
            Some(length) => {
                let length = length.trim().parse().ok()?;
                (rest.get(..length)?.to_vec(), length)
            }
            None if headers.iter().any(|line| line == "transfer-encoding: chunked") => {
                let size = rest.windows(5).position(|window| window == b"0\r\n\r\n")? + 5;
                (rest[..size].to_vec(), size)
            }
            None if self.is_ended => (rest.to_vec(), rest.len()),
            None => return None,
        };
        self.received.drain(..end + 4 + size);
        Some(Answer { status, headers, body })
    }

    fn read_more(&mut self) {
        let mut piece = [0; 16 * 1024];
        match self.stream.read(&mut piece) {
            Ok(0) => {
                self.is_ended = true;
                // The server waits for our end, once it has shut its own.
                let _ignored = self.stream.shutdown(Shutdown::Write);
            }
            Ok(size) => self.received.extend_from_slice(&piece[..size]),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                self.is_silent = true;
            }
            Err(_) => self.is_ended = true,
        }
    }

    fn outcome(mut self, case: &Case, expected: usize) -> Outcome {
        let is_probed = case.after == After::Open && self.answers.len() > expected;
        if is_probed {
            self.answers.pop();
        }
        let after = match (is_probed, self.is_ended) {
            (true, _) => Some(After::Open),
            (false, true) => Some(After::Ends),
            (false, false) => None,
        };
        Outcome { answers: self.answers, after, noise: self.received.len() }
    }
}

impl Outcome {
    /// Returns the statuses.
    /// Takes out what differs from one moment to the next: dates, and the names of requests.
    pub(crate) fn without_its_moment(mut self) -> Self {
        const NAME: &str = "urn:midge:request:";
        for answer in &mut self.answers {
            answer.headers.retain(|line| !line.starts_with("date:"));
            let text = String::from_utf8_lossy(&answer.body).into_owned();
            if let Some(start) = text.find(NAME) {
                let (front, back) = text.split_at(start);
                let rest = back.get(NAME.len() + 32..).unwrap_or_default();
                answer.body = format!("{front}{rest}").into_bytes();
            }
        }
        self
    }

    pub(crate) fn statuses(&self) -> Vec<u16> {
        self.answers.iter().map(|answer| answer.status).collect()
    }

    /// Tells whether the specification leaves this open: other statuses that the case permits, or an end of
    /// the connection that was told, or comes where it need not (RFC 9112, 9.5).
    pub(crate) fn is_permitted(&self, case: &Case) -> bool {
        let statuses = self.statuses();
        let says_close = |answer: &Answer| answer.headers.iter().any(|line| line == CLOSE);
        let ends = self.after == Some(After::Ends) || self.answers.last().is_some_and(says_close);
        let is_same = statuses == case.answers && self.after != Some(case.after);
        self.noise == 0 && (case.permits.contains(&statuses) || (is_same && ends))
    }

    /// Returns what differs from the case, or nothing. Bodies are compared if the server echoes.
    pub(crate) fn fault(&self, case: &Case, echoes: bool) -> Option<String> {
        if self.statuses() != case.answers || self.noise > 0 {
            return Some("other answers".to_owned());
        }
        if self.after != Some(case.after) {
            return Some("the connection".to_owned());
        }
        let last = self.answers.last()?;
        let has = |wanted: &str| {
            last.headers.iter().any(|line| {
                line == wanted || line.split(':').next().is_some_and(|name| name == wanted)
            })
        };
        if let Some(missing) = case.has.iter().find(|wanted| !has(wanted)) {
            return Some(format!("no `{missing}`"));
        }
        if let Some(found) = case.lacks.iter().find(|unwanted| has(unwanted)) {
            return Some(format!("a `{found}`"));
        }
        match &case.body {
            Some(body) if echoes && crate::corpus::bytes(body) != last.body => {
                Some(format!("the body {:?}", String::from_utf8_lossy(&last.body)))
            }
            _ => None,
        }
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}", summary(&self.statuses(), self.after))?;
        match self.noise {
            0 => Ok(()),
            size => write!(formatter, ", {size} bytes that are no answer"),
        }
    }
}

/// Returns answers and end in a few words.
pub(crate) fn summary(statuses: &[u16], after: Option<After>) -> String {
    let statuses: Vec<String> = statuses.iter().map(u16::to_string).collect();
    let statuses = if statuses.is_empty() { "nothing".to_owned() } else { statuses.join(" ") };
    let after = match after {
        Some(After::Open) => "open",
        Some(After::Ends) => "ends",
        None => "silent",
    };
    format!("{statuses}, {after}")
}
