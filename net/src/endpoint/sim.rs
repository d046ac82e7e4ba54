//! The endpoint against a kernel, a host and peers that are all played from one seed.
//!
//! Goal: whatever order things happen in, every request is answered once and in order, or its connection
//! closes; no buffer, slot or descriptor is lost; nobody is stuck. Method: after each turn the invariants of
//! ring and endpoint are checked; what each peer reads is compared byte by byte with what it asked for; in
//! the end everybody goes and nothing may be left. Some seeds have short limits, where connections may be cut
//! off; in all others every well-behaved peer must have got every answer.
//!
//! `MIDGE_SEED=n` replays one seed, `MIDGE_SEEDS=n` runs the first n.

use std::time::Duration;

use super::*;
use crate::listen::{self, ListenOptions, Listener};
use crate::ring::fake::FakeClock;
use crate::ring::sim::{Random, SimRing, WIRE_BYTES_MAX};
use crate::stream::{Unread, Written};
use crate::width::byte;

const SEEDS_DEFAULT: u64 = 300;

/// Turns in which peers come and act.
const TURNS: usize = 300;

/// Turns that closing everything may take.
const TURNS_END_MAX: usize = 20_000;

type Sim = Endpoint<SimRing, FakeClock>;

/// What a peer waits for.
#[derive(Debug, Clone)]
struct Expected {
    is_head: bool,
    status: u16,
    body: Vec<u8>,
    must_close: bool,
    may_close: bool,
}

/// One peer: what it sends, and what it should read.
#[derive(Debug)]
struct Peer {
    wire: usize,
    script: Vec<u8>,
    sent: usize,
    expected: Vec<Expected>,
    read: Vec<u8>,
    answered: usize,
    /// How many of its requests the host has seen.
    seen: usize,
    /// It was told that the connection ends.
    is_told_close: bool,
    is_done: bool,
    habit: Habit,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Habit {
    /// Ends its side after its last request and reads to the end.
    Ends,
    /// Leaves its side open and reads to the end.
    Stays,
    /// Reads nothing.
    Deaf,
    /// Resets the connection at some time.
    Resets,
}

/// The host's side.
#[derive(Debug, Default)]
struct Host {
    deferred: Vec<(ConnectionId, usize)>,
    streams: Vec<Stream>,
    /// Bodies that were read, and responses that were written, piece by piece to their end.
    streamed: u64,
}

/// An exchange in pieces: the host reads the body as it comes, then writes what is expected.
#[derive(Debug)]
struct Stream {
    id: ConnectionId,
    path: Vec<u8>,
    body: Vec<u8>,
    expected: Expected,
    /// What was written of the response, once it has begun.
    written: Option<usize>,
    /// The host asked and waits for an event.
    is_waiting: bool,
}

struct World {
    seed: u64,
    endpoint: Sim,
    random: Random,
    peers: Vec<Peer>,
    host: Host,
    /// Connections may be cut off: limits are short, or the worker drains.
    is_harsh: bool,
}

impl Drop for World {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("replay with MIDGE_SEED={}", self.seed);
        }
    }
}

#[test]
#[expect(clippy::disallowed_methods, reason = "seeds are a test's own setting")]
fn every_request_is_answered_in_order_or_its_connection_closes() {
    let number = |name| std::env::var(name).ok().map(|text| text.parse::<u64>().unwrap());
    let seeds = match number("MIDGE_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("MIDGE_SEEDS").unwrap_or(SEEDS_DEFAULT),
    };
    let is_whole = seeds.end - seeds.start >= SEEDS_DEFAULT;
    let mut seen = [0; 14];
    for seed in seeds {
        let mut world = World::new(seed);
        world.run();
        for (total, count) in seen.iter_mut().zip(world.what_happened()) {
            *total += count;
        }
    }
    // What never happens isn't tested.
    assert!(!is_whole || seen.iter().all(|&total| total > 0), "{seen:?}");
}

impl World {
    fn new(seed: u64) -> Self {
        let mut random = Random::new(seed);
        let is_harsh = random.once_in(4);
        let hour = Duration::from_secs(3600);
        let mut limit = || match is_harsh {
            true => Duration::from_millis(u64::try_from(random.size(4000)).unwrap()),
            false => hour,
        };
        let settings = Settings {
            header_timeout: limit(),
            body_grace: limit(),
            idle_timeout: limit(),
            write_timeout: limit(),
            linger_timeout: limit(),
            shed_after: limit(),
            // Peers of the simulation come from one address or from none.
            connections_per_source_max: if is_harsh { 2 } else { crate::settings::CONNECTIONS_MAX },
            connections_max: 1 + u32::try_from(random.below(8)).unwrap(),
            listeners: 1 + u32::from(random.once_in(3)),
            buffers: 1 << random.below(4),
            buffer_bytes: [64, 150, 1000][random.below(3)],
            completions_per_turn: [1, 3, 256][random.below(3)],
            unsent_bytes_max: random.size(8000),
            pipelined_bytes_max: random.size(8000),
            body_window_bytes: random.size(3000) + 1023,
            discard_bytes_max: u64::try_from(random.size(300)).unwrap(),
            ..Settings::default()
        };
        let clock = FakeClock::default();
        let ring = SimRing::new(
            seed,
            clock.clone(),
            settings.slots(),
            settings.buffers,
            settings.buffer_bytes,
        );
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        let listener = listen::bind(any, &ListenOptions::default()).unwrap();
        // The second is behind a proxy on the same machine.
        let local = socket2::Socket::new(socket2::Domain::UNIX, socket2::Type::STREAM, None);
        let local = std::os::unix::net::UnixListener::from(local.unwrap());
        let mut listeners =
            vec![Listener::from(listener), Listener::from(local).with_preface(true)];
        listeners.truncate(index(settings.listeners));
        let endpoint = Endpoint::new(ring, clock, listeners, settings).unwrap();
        Self { seed, endpoint, random, peers: Vec::new(), host: Host::default(), is_harsh }
    }

    fn run(&mut self) {
        let drains_at = if self.random.once_in(8) { self.random.below(TURNS) } else { TURNS };
        for turn in 0..TURNS {
            if turn == drains_at {
                self.is_harsh = true;
                self.endpoint.stop_accepting();
                self.endpoint.drain();
                self.endpoint.close_idle();
            }
            if self.random.once_in(12) {
                self.arrive();
            }
            self.turn();
        }
        // Nobody comes any more; those who are here finish, then time passes until all is closed.
        let mut turns = 0;
        while !self.is_over() {
            let ring = &self.endpoint.ring;
            let is_idle = |peer: &Peer| peer.is_done || ring.is_waiting(peer.wire);
            self.endpoint.ring.may_sleep = self.peers.iter().all(is_idle);
            self.turn();
            turns += 1;
            assert!(turns < TURNS_END_MAX, "somebody is stuck: {:?}", self.stuck());
        }
        self.endpoint.ring.check_quiet();
        assert!(self.host.deferred.is_empty(), "the host heard of all who went");
        assert!(self.host.streams.is_empty(), "and of those in the middle of a body");
        assert_eq!(self.endpoint.bodies_bytes, 0, "nobody holds a share of the budget");
        let counters = self.endpoint.counters();
        assert_eq!(counters.accepted, counters.closed);
        for peer in &self.peers {
            let must_hear_all = matches!(peer.habit, Habit::Ends | Habit::Stays) && !self.is_harsh;
            if must_hear_all && !peer.is_told_close {
                assert_eq!(peer.answered, peer.expected.len(), "{peer:?}");
            }
        }
    }

    /// Counts what the simulation is there for.
    fn what_happened(&self) -> [u64; 14] {
        let counters = self.endpoint.counters();
        [
            counters.responses,
            counters.accept_failed,
            counters.accept_paused,
            counters.completions_stale,
            counters.buffers_starved,
            counters.receives_paused,
            counters.connections_broken,
            counters.timeouts_header,
            counters.timeouts_body,
            counters.timeouts_idle,
            counters.timeouts_write,
            counters.timeouts_linger,
            counters.responses_cut,
            self.host.streamed,
        ]
    }

    fn is_over(&self) -> bool {
        let is_closed = self.endpoint.connection_count() == 0
            && self.endpoint.ring.socket_count() == 0
            && !self.endpoint.ring.has_untold();
        is_closed && (self.is_harsh || self.peers.iter().all(|peer| peer.is_done))
    }

    fn stuck(&self) -> Vec<&Connection> {
        let connections = self.endpoint.connections.iter();
        connections.filter(|connection| connection.phase != Phase::Free).collect()
    }

    fn arrive(&mut self) {
        let listener = self.random.below(index(self.endpoint.settings.listeners));
        let wire = self.endpoint.ring.connect_to(byte(listener));
        let habit = match self.random.below(8) {
            0..=3 => Habit::Ends,
            4 | 5 => Habit::Stays,
            6 => Habit::Deaf,
            _ => Habit::Resets,
        };
        let mut peer = Peer {
            wire,
            script: Vec::new(),
            sent: 0,
            expected: Vec::new(),
            read: Vec::new(),
            answered: 0,
            seen: 0,
            is_told_close: false,
            is_done: false,
            habit,
        };
        if listener == 1 {
            peer.write_preface(&mut self.random);
        }
        for number in 0..self.random.below(12) {
            peer.write_request(number, &mut self.random);
        }
        if self.random.once_in(4) {
            // Never finished, in the middle of its head or of its body.
            let text = b"POST /never HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nabc";
            let end = if self.random.once_in(2) { text.len() } else { 1 + self.random.below(50) };
            peer.script.extend_from_slice(&text[..end]);
        }
        self.peers.push(peer);
    }

    fn turn(&mut self) {
        for place in 0..self.peers.len() {
            if self.random.once_in(2) {
                self.peers[place].act(&mut self.endpoint.ring, &mut self.random, self.is_harsh);
            }
        }
        if self.random.once_in(3) {
            self.answer_deferred();
        }
        if self.random.once_in(2) {
            self.go_on_with_a_stream();
        }
        let wait = if self.random.once_in(5) { Wait::Poll } else { Wait::Block };
        self.endpoint.turn(wait).unwrap();
        while let Some(event) = self.endpoint.next_event() {
            self.handle(event);
        }
        self.endpoint.check_between_turns();
    }

    fn handle(&mut self, event: Event) {
        match event {
            Event::Request(id) => {
                let wire = self.endpoint.ring.wire_of(id);
                let view = self.endpoint.request(id);
                let path = view.head.path.of(view.bytes).to_vec();
                let answer = [&path, view.body].concat();
                let peer = &mut self.peers[wire];
                let expected = &peer.expected[peer.seen];
                let is_known = path == b"/nowhere"
                    || answer.starts_with(&expected.body)
                    || path.starts_with(b"/big");
                assert!(is_known, "another request than was sent: {expected:?}");
                peer.seen += 1;
                if path != b"/nowhere" && self.random.once_in(4) {
                    self.begin_stream(id, wire);
                } else if self.random.once_in(3) {
                    if self.random.once_in(2) {
                        self.endpoint.defer(id);
                    }
                    self.host.deferred.push((id, wire));
                } else {
                    self.answer(id, wire);
                }
            }
            Event::Head(id) => {
                let view = self.endpoint.request(id);
                if view.head.path.of(view.bytes) == b"/nowhere" {
                    let wire = self.endpoint.ring.wire_of(id);
                    self.peers[wire].seen += 1;
                    self.endpoint.respond(id, 404, std::iter::empty(), b"none");
                } else if view.head.path.of(view.bytes) != b"/never" && self.random.once_in(2) {
                    let wire = self.endpoint.ring.wire_of(id);
                    self.peers[wire].seen += 1;
                    self.begin_stream(id, wire);
                } else {
                    self.endpoint.admit(id, 10_000);
                }
            }
            Event::Refused(id, refusal) => {
                self.host.streams.retain(|stream| stream.id != id);
                self.endpoint.respond(id, refusal.status(), std::iter::empty(), b"refused");
            }
            Event::Gone(id) => {
                let count = self.host.deferred.len() + self.host.streams.len();
                self.host.deferred.retain(|(other, _)| *other != id);
                self.host.streams.retain(|stream| stream.id != id);
                let left = self.host.deferred.len() + self.host.streams.len();
                assert_eq!(left, count - 1, "who vanished was owed an answer");
            }
            Event::Body(id) | Event::Room(id) => {
                let place = self.host.streams.iter().position(|stream| stream.id == id);
                let place = place.expect("an event for a stream that ended");
                assert!(self.host.streams[place].is_waiting, "nobody asked");
                self.host.streams[place].is_waiting = false;
                self.drive(place);
            }
            Event::Woken | Event::Fetch(_) => unreachable!("nothing is watched, or fetched"),
        }
    }

    /// Takes some of a body, or nothing, and means to read the rest as it comes.
    fn begin_stream(&mut self, id: ConnectionId, wire: usize) {
        let view = self.endpoint.request(id);
        let taken = self.random.below(view.body.len() + 1);
        let peer = &self.peers[wire];
        let stream = Stream {
            id,
            path: view.head.path.of(view.bytes).to_vec(),
            body: view.body[..taken].to_vec(),
            expected: peer.expected[peer.seen - 1].clone(),
            written: None,
            is_waiting: false,
        };
        self.endpoint.stream(id, 10_000, taken);
        self.host.streams.push(stream);
        self.drive(self.host.streams.len() - 1);
    }

    fn go_on_with_a_stream(&mut self) {
        if !self.host.streams.is_empty() {
            let place = self.random.below(self.host.streams.len());
            if !self.host.streams[place].is_waiting {
                self.drive(place);
            }
        }
    }

    /// Reads and writes until the host is tired of it or has to wait.
    fn drive(&mut self, place: usize) {
        while !self.random.once_in(6) {
            let stream = &mut self.host.streams[place];
            let id = stream.id;
            let Some(written) = stream.written else {
                match self.endpoint.unread(id) {
                    // Short limits may cut anything; only there the body may be left unread.
                    Unread::Bytes(_) if self.is_harsh && self.random.once_in(20) => {
                        self.begin_reply(place);
                    }
                    Unread::Bytes(size) => {
                        let start = stream.body.len();
                        stream.body.resize(start + self.random.size(size).max(1), 0);
                        self.endpoint.read_body(id, &mut stream.body[start..]);
                    }
                    Unread::Later => return stream.is_waiting = true,
                    Unread::End => {
                        let found = [&stream.path[..], &stream.body].concat();
                        let expected = &stream.expected.body;
                        assert!(found == *expected || stream.path == b"/big", "another body");
                        self.begin_reply(place);
                    }
                }
                continue;
            };
            let left = &stream.expected.body[written..];
            if left.is_empty() {
                assert!(self.endpoint.end_response(id), "all of it was written");
                self.host.streams.swap_remove(place);
                self.host.streamed += 1;
                return;
            }
            if self.is_harsh && self.random.once_in(40) {
                self.endpoint.abort(id);
                self.host.streams.swap_remove(place);
                return;
            }
            let piece = &left[..self.random.size(left.len()).max(1)];
            match self.endpoint.write_response(id, piece) {
                Written::Bytes(size) => stream.written = Some(written + size),
                Written::Later => return stream.is_waiting = true,
                Written::TooLong => panic!("no more than was told"),
            }
        }
    }

    fn begin_reply(&mut self, place: usize) {
        let stream = &mut self.host.streams[place];
        let expected = &stream.expected;
        let length = self.random.once_in(2).then_some(expected.body.len() as u64);
        let none = std::iter::empty();
        self.endpoint.begin_response(stream.id, expected.status, none, length).unwrap();
        stream.written = Some(0);
    }

    /// Answers the last request that the host has seen of a peer.
    fn answer(&mut self, id: ConnectionId, wire: usize) {
        let peer = &self.peers[wire];
        let expected = &peer.expected[peer.seen - 1];
        let stale_count = self.endpoint.counters().responses_stale;
        self.endpoint.respond(id, expected.status, std::iter::empty(), &expected.body);
        assert_eq!(self.endpoint.counters().responses_stale, stale_count, "nobody has vanished");
    }

    fn answer_deferred(&mut self) {
        if !self.host.deferred.is_empty() {
            let place = self.random.below(self.host.deferred.len());
            let (id, wire) = self.host.deferred.swap_remove(place);
            self.answer(id, wire);
        }
    }
}

impl Peer {
    fn write_preface(&mut self, random: &mut Random) {
        let last = random.below(3);
        match random.below(4) {
            0 => self.script.extend_from_slice(b"PROXY UNKNOWN\r\n"),
            1 | 2 => {
                let line = format!("PROXY TCP4 192.0.2.{last} 192.0.2.9 4711 80\r\n");
                self.script.extend_from_slice(line.as_bytes());
            }
            _ => {
                self.script.extend_from_slice(b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c");
                let addresses = [192, 0, 2, byte(last), 192, 0, 2, 9, 0x12, 0x67, 0, 80];
                self.script.extend_from_slice(&addresses);
            }
        }
    }

    fn write_request(&mut self, number: usize, random: &mut Random) {
        let path = format!("/{}-{number}", self.wire);
        let size = random.size(700);
        let body: Vec<u8> = (0..size).map(|_| b"ab\r\n0"[random.below(5)]).collect();
        let mut expected = Expected {
            is_head: false,
            status: 200,
            body: path.clone().into_bytes(),
            must_close: false,
            may_close: false,
        };
        let length = format!("Content-Length: {}\r\n\r\n", body.len());
        let mut text = Vec::new();
        match random.below(14) {
            0..=3 => text.extend(format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n").bytes()),
            4 | 5 => {
                text.extend(format!("POST {path} HTTP/1.1\r\nHost: a\r\n{length}").bytes());
                text.extend_from_slice(&body);
                expected.body.extend_from_slice(&body);
            }
            6 => {
                let head =
                    format!("PUT {path} HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\n{length}");
                text.extend(head.bytes());
                text.extend_from_slice(&body);
                expected.body.extend_from_slice(&body);
            }
            7 | 8 => {
                let head =
                    format!("PUT {path} HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n");
                text.extend(head.bytes());
                // So that all extensions together stay within their limit (`EXTENSIONS_BYTES_MAX`).
                let size = (1 + random.below(200)).max(body.len().div_ceil(500));
                for chunk in body.chunks(size) {
                    text.extend(format!("{:x};x=\"y\"\r\n", chunk.len()).bytes());
                    text.extend_from_slice(chunk);
                    text.extend_from_slice(b"\r\n");
                }
                text.extend_from_slice(b"0\r\nt: u\r\n\r\n");
                expected.body.extend_from_slice(&body);
            }
            9 => {
                text.extend(format!("HEAD {path} HTTP/1.1\r\nHost: a\r\n\r\n").bytes());
                expected.is_head = true;
            }
            10 => {
                text.extend(format!("POST /nowhere HTTP/1.1\r\nHost: a\r\n{length}").bytes());
                text.extend_from_slice(&body);
                expected.status = 404;
                expected.body = b"none".to_vec();
                // If the rest of it is too long to be skipped.
                expected.may_close = true;
            }
            11 => {
                let pad = "x".repeat(random.size(6000));
                text.extend(format!("GET /big HTTP/1.1\r\nHost: a\r\nX: {pad}\r\n\r\n").bytes());
                expected.body = (0..=250).cycle().take(random.size(20_000)).collect();
            }
            12 if random.once_in(2) => {
                let head = format!("GET {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
                text.extend(head.bytes());
                expected.must_close = true;
            }
            13 if random.once_in(3) => {
                text.extend_from_slice(b"GET / HTTP/1.1\r\nHost : a\r\n\r\n");
                expected.status = 400;
                expected.body = b"refused".to_vec();
                expected.must_close = true;
            }
            _ => return,
        }
        self.script.extend_from_slice(&text);
        self.expected.push(expected);
    }

    fn act(&mut self, ring: &mut SimRing, random: &mut Random, is_harsh: bool) {
        if self.is_done {
            return;
        }
        let wire = &mut ring.wires[self.wire];
        if self.sent < self.script.len() && !wire.is_cut {
            let room = WIRE_BYTES_MAX - wire.inbound.len();
            let most = room.min(self.script.len() - self.sent);
            if most > 0 {
                let size = if random.once_in(2) { random.size(most) } else { most };
                wire.inbound.extend(&self.script[self.sent..self.sent + size]);
                self.sent += size;
            }
        } else if self.habit == Habit::Ends {
            wire.has_peer_ended = true;
        }
        match self.habit {
            Habit::Resets if random.once_in(30) => {
                wire.is_reset = true;
                self.is_done = true;
                return;
            }
            Habit::Deaf => {
                self.is_done = self.sent == self.script.len() || wire.has_ended;
                // What it does not read keeps the rest of its requests from being read.
                self.is_done |= random.once_in(100);
                return;
            }
            _ => {}
        }
        let size = wire.outbound.len();
        let size = if size > 0 && random.once_in(2) { random.size(size) } else { size };
        self.read.extend(wire.outbound.drain(..size));
        let is_at_end = wire.has_ended && wire.outbound.is_empty();
        self.understand(is_harsh);
        let wire = &mut ring.wires[self.wire];
        if is_at_end {
            assert!(self.read.is_empty() || is_harsh, "closed in the middle of a response");
            wire.has_peer_ended = true;
            self.is_done = true;
        } else if self.habit == Habit::Stays && self.answered == self.expected.len() {
            self.is_done = self.sent == self.script.len();
        }
    }

    /// Compares complete responses with what was asked for.
    fn understand(&mut self, is_harsh: bool) {
        while let Some(end) = self.read.windows(4).position(|window| window == b"\r\n\r\n") {
            let head = String::from_utf8(self.read[..end + 4].to_vec()).unwrap();
            let status: u16 = head["HTTP/1.1 ".len()..][..3].parse().unwrap();
            if status == 100 {
                self.read.drain(..end + 4);
                continue;
            }
            assert!(!self.is_told_close, "a response after the last: {head}");
            let is_late = status == 408 && is_harsh;
            let length: usize = head
                .lines()
                .find_map(|line| line.strip_prefix("Content-Length: "))
                .map_or(0, |length| length.parse().unwrap());
            let expected = self.expected.get(self.answered);
            let is_head = expected.is_some_and(|expected| expected.is_head) && !is_late;
            let is_chunked = head.contains("Transfer-Encoding: chunked\r\n");
            let (body, length) = if is_chunked && !is_head {
                let Some((body, size)) = dechunk(&self.read[end + 4..]) else { return };
                self.read.drain(..end + 4 + size);
                let length = body.len();
                (body, length)
            } else {
                let total = end + 4 + if is_head { 0 } else { length };
                if self.read.len() < total {
                    return;
                }
                (self.read.drain(..total).skip(end + 4).collect(), length)
            };
            let tells_length = head.contains("Content-Length: ") || !is_head;
            let closes = head.contains("Connection: close\r\n");
            if !is_late {
                let expected = expected.expect("a response was asked for");
                assert_eq!(status, expected.status, "{expected:?}");
                if tells_length {
                    assert_eq!(length, expected.body.len(), "{expected:?}");
                }
                assert!(is_head || body == expected.body, "another body: {expected:?}");
                assert!(closes || !expected.must_close, "{expected:?}");
                let may_close = expected.must_close || expected.may_close || is_harsh;
                assert!(!closes || may_close, "{expected:?}");
            }
            self.is_told_close = closes;
            self.answered += 1;
        }
    }
}

/// Returns a whole body in chunks and the size of its coded form, once all of it is there.
fn dechunk(mut bytes: &[u8]) -> Option<(Vec<u8>, usize)> {
    let (whole, mut body) = (bytes.len(), Vec::new());
    loop {
        let line = bytes.windows(2).position(|window| window == b"\r\n")?;
        let size = usize::from_str_radix(std::str::from_utf8(&bytes[..line]).unwrap(), 16).unwrap();
        bytes = &bytes[line + 2..];
        let piece = bytes.get(..size + 2)?;
        assert_eq!(&piece[size..], b"\r\n", "a chunk of another size");
        body.extend_from_slice(&piece[..size]);
        bytes = &bytes[size + 2..];
        if size == 0 {
            return Some((body, whole - bytes.len()));
        }
    }
}
