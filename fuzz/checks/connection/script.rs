//! A script: settings, then for each peer what it sends, how it is cut, and how the peer behaves.
//!
//! ```text
//!   seed, 4 bytes of settings | step argument.. | step argument.. | ..
//! ```
//!
//! A step's low half says what, its high half is a small number. Any bytes are a script.

use std::time::Duration;

use crate::settings::Settings;

const PEERS_MAX: usize = 4;
/// Bytes that one peer sends: below what a lingering connection takes, so nobody is reset.
const STREAM_BYTES_MAX: usize = 6 * 1024;

/// See the file's head.
#[derive(Debug)]
pub(super) struct Script {
    pub(super) seed: u64,
    pub(super) settings: Settings,
    pub(super) peers: Vec<PeerScript>,
}

/// What one peer does.
#[derive(Debug, Default)]
pub(super) struct PeerScript {
    pub(super) stream: Vec<u8>,
    /// Places in the stream where it waits a moment, growing.
    pub(super) cuts: Vec<usize>,
    /// It leaves its side open until it has all it can get.
    pub(super) stays: bool,
    /// It resets the connection in the end, whatever it has read.
    pub(super) resets: bool,
    /// Bytes it reads at a time; 0 for all there are.
    pub(super) pace: usize,
}

/// Where a request is sent to: the letter says how it is answered (`host.rs`).
const PATHS: [&str; 16] = [
    "/e",
    "/l",
    "/m",
    "/r",
    "/s",
    "/c",
    "/x",
    "/g/900",
    "/e?q",
    "/l/later",
    "/b/5000",
    "/a/3000",
    "/w/70",
    "http://h/s/u",
    "/g/70000",
    "/m/x",
];

/// The path of the largest answer.
const LARGE: usize = 14;

/// What is wrong, or rarely seen.
const ODD: [&[u8]; 16] = [
    b"\r\n",
    b"\r\n\r\n\r\n",
    b"GET /e HTTP/1.1\r\nHost : a\r\n\r\n",
    b"HEAD /e HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n",
    b"POST /e HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
    b"POST /s HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\nx",
    b"PUT /x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n3\r\nabcd\r\n",
    b"POST /s HTTP/1.1\r\nHost: a\r\nContent-Length: 500\r\n\r\nabc",
    b"GET /e HTTP/1.1\r\nHost: a\r\nExpect: something\r\n\r\n",
    b"GET /e HTTP/1.1\nHost: a\n\n",
    b"OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n",
    b"GET /e HTTP/2.0\r\n\r\n",
    b"POST /e HTTP/1.1\r\nHost: a\r\nContent-Length: 99999999999999999999\r\n\r\n",
    b"POST /m HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n14\r\n01234567890123456789\r\n",
    b"GET /e HTTP/1.1\r\nHost: a\r\nX: ",
    b"POST /r HTTP/1.1\r\nHost: a\r\nContent-Length: 40\r\n\r\nabc",
];

impl Script {
    pub(super) fn read(bytes: &[u8]) -> Self {
        let mut bytes = Bytes(bytes.iter());
        let seed = u64::from(bytes.next());
        let hour = Duration::from_secs(3600);
        let (size, limits, window, counts) =
            (bytes.next(), bytes.next(), bytes.next(), bytes.next());
        let settings = Settings {
            header_timeout: hour,
            body_grace: hour,
            idle_timeout: hour,
            write_timeout: hour,
            linger_timeout: hour,
            shed_after: hour,
            connections_max: 1 + u32::from(size & 3),
            buffers: 1 << (size >> 2 & 3),
            buffer_bytes: [64, 100, 150, 1000][usize::from(size >> 4 & 3)],
            completions_per_turn: [1, 2, 3, 256][usize::from(size >> 6)],
            unsent_bytes_max: 1 << (limits & 15),
            pipelined_bytes_max: 1 << (limits >> 4),
            body_window_bytes: 1024 + 64 * usize::from(window),
            discard_bytes_max: u64::from(window & 15) * 30,
            head_bytes_max: 1024,
            requests_per_connection_max: if counts & 1 == 0 {
                1_000_000
            } else {
                1 + u32::from(counts >> 4)
            },
            ..Settings::default()
        };
        let mut peers = vec![PeerScript::default()];
        while let Some(step) = bytes.0.next() {
            let (what, number) = (step & 15, usize::from(step >> 4));
            if what == 0 && peers.len() < PEERS_MAX {
                peers.push(PeerScript::default());
            }
            let peer = peers.last_mut().expect("one at least");
            peer.step(what, number, &mut bytes);
            peer.stream.truncate(STREAM_BYTES_MAX);
        }
        Self { seed, settings, peers }
    }
}

impl PeerScript {
    fn step(&mut self, what: u8, number: usize, bytes: &mut Bytes<'_>) {
        // One answer larger than what waits of an answer: each takes as long as all else.
        let is_again = number == LARGE && self.stream.len() > PATHS[LARGE].len();
        let path = if is_again { PATHS[0] } else { PATHS[number] };
        match what {
            0 => {}
            1 => {
                let size = usize::from(bytes.next());
                self.stream.extend(bytes.0.by_ref().take(size).copied());
            }
            2 => self.head("GET", path, "1.1", ""),
            3 => self.head("HEAD", path, "1.1", ""),
            4 => self.head("GET", path, "1.1", "Connection: close\r\n"),
            5 => self.head("GET", path, "1.0", "Connection: keep-alive\r\n"),
            6 | 7 => {
                let body = bytes.body(if what == 6 { 1 } else { 16 });
                self.head("POST", path, "1.1", &format!("Content-Length: {}\r\n", body.len()));
                self.stream.extend(body);
            }
            8 => {
                let body = bytes.body(1);
                let lines = format!("Expect: 100-continue\r\nContent-Length: {}\r\n", body.len());
                self.head("PUT", path, "1.1", &lines);
                self.cut();
                self.stream.extend(body);
            }
            9 | 10 => {
                let (body, size) = (bytes.body(8), usize::from(bytes.next()));
                self.head("PUT", path, "1.1", "Transfer-Encoding: chunked\r\n");
                for chunk in body.chunks(1 + size) {
                    self.stream.extend(format!("{:x};x=\"y\"\r\n", chunk.len()).bytes());
                    self.stream.extend_from_slice(chunk);
                    self.stream.extend(b"\r\n");
                }
                self.stream.extend(b"0\r\n");
                if what == 10 {
                    let lines = format!("Content-Length: 3\r\nx-{size}:\t{size} \r\nT:\r\n");
                    self.stream.extend(lines.bytes());
                }
                self.stream.extend(b"t: u\r\n\r\n");
            }
            11 => {
                let pad = "x".repeat(16 * usize::from(bytes.next()));
                self.head("GET", path, "1.1", &format!("X: {pad}\r\n"));
            }
            12 => self.stream.extend_from_slice(ODD[number]),
            13 => self.cut(),
            14 => {
                let end = self.stream.len().saturating_sub(number);
                self.stream.truncate(end);
            }
            _ => {
                self.stays = number & 1 == 1;
                self.resets = number & 14 == 14;
                self.pace = [0, 40, 300, 3000][number >> 1 & 3];
            }
        }
    }

    fn head(&mut self, method: &str, path: &str, version: &str, lines: &str) {
        let head = format!("{method} {path} HTTP/{version}\r\nHost: a\r\n{lines}\r\n");
        self.stream.extend(head.bytes());
    }

    fn cut(&mut self) {
        self.cuts.push(self.stream.len());
    }
}

struct Bytes<'a>(std::slice::Iter<'a, u8>);

impl Bytes<'_> {
    /// Returns the next byte, or 0 at the end.
    fn next(&mut self) -> u8 {
        self.0.next().copied().unwrap_or(0)
    }

    /// Returns a body of so many times the next byte's bytes, which tell their place.
    fn body(&mut self, unit: usize) -> Vec<u8> {
        let size = usize::from(self.next()) * unit;
        b"ab\r\n0;c\n".iter().copied().cycle().take(size).collect()
    }
}
