//! Fetches against servers and a kernel that do anything, in any order, from a seed.
//!
//! Judged: an answer belongs to its request, and is whole or an error; what may not be sent twice is not; sockets,
//! buffers and fetches all come back.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;

use super::{
    BodyLength, FetchError, FetchId, FetchRequest, Io, Origin, Outgoing, Owner, Piece, Timeouts,
};
use crate::counters::Counters;
use crate::endpoint::Event;
use crate::ring::fake::{FakeRing, More};
use crate::ring::sim::Random;
use crate::ring::{Completed, ConnectionId, Operation, Ring};

/// Slot of the first socket, and how many there are.
const FIRST: u32 = 10;
const SOCKETS: u32 = 3;
const BUFFERS: usize = 4;
const STEPS: usize = 400;
const SEEDS: u64 = 400;

/// A server's side of one socket.
#[derive(Debug, Default)]
struct Peer {
    received: Vec<u8>,
    outbound: VecDeque<u8>,
    has_ended: bool,
    is_receiving: bool,
    sending: Option<Vec<u8>>,
    has_connected: bool,
}

/// A fetch as its owner sees it.
#[derive(Debug)]
struct Mine {
    id: FetchId,
    number: u64,
    left: Option<usize>,
    is_chunked: bool,
    has_head: bool,
    body: Vec<u8>,
    end: Option<Result<(), FetchError>>,
}

struct World {
    random: Random,
    ring: FakeRing,
    outgoing: Outgoing,
    events: VecDeque<Event>,
    counters: Counters,
    now: Duration,
    peers: BTreeMap<u64, Peer>,
    /// Numbers of requests that a server has read as a whole, and which of them may be there twice.
    seen: BTreeSet<u64>,
    idempotent: BTreeSet<u64>,
    mine: Vec<Mine>,
    next: u64,
    good: usize,
    /// Answers that had trailers.
    with_trailers: usize,
    address: SocketAddr,
}

/// Returns what is answered to a request.
fn answer(number: u64) -> Vec<u8> {
    let size = usize::try_from(number * 37 % 900).expect("small");
    number.to_string().into_bytes().into_iter().cycle().take(size).collect()
}

impl World {
    fn new(seed: u64, address: SocketAddr) -> Self {
        Self {
            random: Random::new(seed),
            ring: FakeRing::new(BUFFERS, (FIRST + SOCKETS) as usize),
            outgoing: Outgoing::new(FIRST, SOCKETS),
            events: VecDeque::new(),
            counters: Counters::default(),
            now: Duration::from_secs(1),
            peers: BTreeMap::new(),
            seen: BTreeSet::new(),
            idempotent: BTreeSet::new(),
            mine: Vec::new(),
            next: 0,
            good: 0,
            with_trailers: 0,
            address,
        }
    }

    fn with<T>(&mut self, action: impl FnOnce(&mut Outgoing, &mut Io<'_, FakeRing>) -> T) -> T {
        let mut io = Io {
            ring: &mut self.ring,
            events: &mut self.events,
            counters: &mut self.counters,
            now: self.now,
        };
        action(&mut self.outgoing, &mut io)
    }

    fn step(&mut self) {
        self.now += Duration::from_millis(1);
        match self.random.below(12) {
            0 => self.begin(),
            1 | 2 => self.write(),
            3 | 4 => self.read(),
            5 if self.random.once_in(4) => self.close(),
            _ => self.kernel(),
        }
        self.take_pushed();
        self.take_completions();
        self.with(|outgoing, io| outgoing.serve_starved(io));
        self.take_pushed();
    }

    fn begin(&mut self) {
        while let Some(place) = self.mine.iter().position(|mine| mine.end.is_some()) {
            let mine = self.mine.swap_remove(place);
            self.good += usize::from(mine.end == Some(Ok(())));
            self.with(|outgoing, io| outgoing.close(io, mine.id));
        }
        if self.mine.len() == 4 {
            return;
        }
        let number = self.next;
        self.next += 1;
        let size = self.random.below(3000);
        let body = match self.random.below(3) {
            0 => BodyLength::None,
            1 => BodyLength::Known(size as u64),
            _ => BodyLength::Unknown,
        };
        let method: &[u8] = if body == BodyLength::None { b"GET" } else { b"POST" };
        if body == BodyLength::None {
            self.idempotent.insert(number);
        }
        let target = format!("/{number}");
        #[expect(clippy::disallowed_methods, reason = "what the host shares with an endpoint")]
        let origin = Arc::new(Origin { is_tls: false, host: "a".to_owned(), port: 80 });
        let time = Duration::from_secs(5);
        let timeouts = Timeouts { connect: time, first_byte: time, between_bytes: time };
        let request = FetchRequest {
            method,
            target: target.as_bytes(),
            authority: b"a",
            headers: std::iter::empty(),
            body,
        };
        let owner = Owner { call: number, group: number % 2 };
        let begun = self
            .with(|outgoing, io| outgoing.begin(io, owner, origin, timeouts, request, |_| true));
        let id = begun.expect("fewer than there is room for");
        if self.with(|outgoing, _| outgoing.needs_address(id)) {
            let addresses = vec![self.address; 1 + self.random.below(2)];
            self.with(|outgoing, io| outgoing.connect(io, id, &addresses));
        }
        let left = (body != BodyLength::None).then_some(size);
        let is_chunked = body == BodyLength::Unknown;
        let mine =
            Mine { id, number, left, is_chunked, has_head: false, body: Vec::new(), end: None };
        self.mine.push(mine);
    }

    fn any_mine(&mut self) -> Option<usize> {
        (!self.mine.is_empty()).then(|| self.random.below(self.mine.len()))
    }

    fn write(&mut self) {
        let Some(place) = self.any_mine() else { return };
        let Mine { id, left: Some(left), is_chunked, .. } = self.mine[place] else { return };
        if left == 0 || is_chunked && self.random.once_in(4) {
            let number = self.mine[place].number.to_string();
            let trailers = [(&b"content-length"[..], &b"1"[..]), (b"n", number.as_bytes())];
            let finished = self.with(|outgoing, io| outgoing.finish(io, id, trailers.into_iter()));
            self.mine[place].left = None;
            if let Err(error) = finished {
                assert_ne!(error, FetchError::BodySize, "all of it was written");
            }
            return;
        }
        let piece = vec![b'x'; self.random.size(left)];
        match self.with(|outgoing, io| outgoing.write(io, id, &piece)) {
            Ok(size) => self.mine[place].left = Some(left - size),
            Err(error) => {
                assert_ne!(error, FetchError::BodySize, "no more was written than was told");
                self.mine[place].left = None;
            }
        }
    }

    fn read(&mut self) {
        let Some(place) = self.any_mine() else { return };
        let Mine { id, number, has_head, .. } = self.mine[place];
        if self.mine[place].end.is_some() {
            return;
        }
        if !has_head {
            let status = self
                .with(|outgoing, _| outgoing.head(id).map(|head| head.map(|head| head.status())));
            match status {
                Ok(Some(status)) => {
                    assert_eq!(status, 200);
                    self.mine[place].has_head = true;
                }
                Ok(None) => {}
                Err(error) => self.mine[place].end = Some(Err(error)),
            }
            return;
        }
        match self.with(|outgoing, _| outgoing.piece(id)) {
            Ok(Piece::Bytes(size)) => {
                let mut target = vec![0; self.random.size(size)];
                self.with(|outgoing, io| outgoing.read(io, id, &mut target));
                let body = &mut self.mine[place].body;
                body.extend(target);
                // Bytes that come late, when the next request is under way, are its answer for all anybody can
                // tell: a server may lie to those who ask it.
                let is_lie = b"evil".starts_with(&body[..]);
                assert!(answer(number).starts_with(body) || is_lie, "another's answer");
            }
            Ok(Piece::Later) => {}
            Ok(Piece::End) => {
                let mine = &mut self.mine[place];
                let is_whole = mine.body == answer(number) || mine.body == b"evil";
                assert!(is_whole, "a part was taken for the whole");
                mine.end = Some(Ok(()));
                let trailers =
                    self.with(|outgoing, _| outgoing.trailers(id).map(|found| found.cloned()));
                let trailers = trailers.expect("it is whole").expect("it was read");
                let number = number.to_string();
                let mine = [(&b"t"[..], number.as_bytes())];
                assert!(trailers.is_empty() || trailers.iter().eq(mine), "another's: {trailers:?}");
                self.with_trailers += usize::from(!trailers.is_empty());
            }
            Err(error) => self.mine[place].end = Some(Err(error)),
        }
    }

    fn close(&mut self) {
        let Some(place) = self.any_mine() else { return };
        let id = self.mine.swap_remove(place).id;
        self.with(|outgoing, io| outgoing.close(io, id));
        assert!(self.with(|outgoing, _| outgoing.head(id).is_err()), "it names nothing any more");
    }

    /// Lets the kernel do something.
    fn kernel(&mut self) {
        let count = self.peers.len();
        if count == 0 {
            return;
        }
        let key = *self.peers.keys().nth(self.random.below(count)).expect("in bounds");
        let id = ConnectionId::from_u64(key);
        let peer = self.peers.get_mut(&key).expect("just found");
        if self.random.once_in(2) && peer.sending.is_some() {
            let fails = self.random.once_in(if peer.has_connected { 40 } else { 10 });
            let bytes = peer.sending.take().expect("just seen");
            if fails {
                let error = if peer.has_connected { libc::ECONNRESET } else { libc::ECONNREFUSED };
                self.ring.complete(Completed::Send, id, -error, More::Last);
                peer.has_ended = true;
                return;
            }
            peer.has_connected = true;
            let size = self.random.size(bytes.len());
            peer.received.extend_from_slice(&bytes[..size]);
            let result = i32::try_from(size).expect("small");
            self.ring.complete(Completed::Send, id, result, More::Last);
            return self.serve(key);
        }
        if !peer.is_receiving {
            return;
        }
        if !peer.outbound.is_empty() {
            let size = self.random.size(peer.outbound.len().min(256));
            let bytes: Vec<u8> = peer.outbound.iter().take(size).copied().collect();
            let more = if self.random.once_in(3) { More::Last } else { More::Follows };
            if self.ring.deliver(id, &bytes, more) {
                peer.outbound.drain(..size);
                peer.is_receiving = more == More::Follows;
            } else {
                self.ring.complete(Completed::Receive, id, -libc::ENOBUFS, More::Last);
                peer.is_receiving = false;
            }
        } else if peer.has_ended {
            peer.is_receiving = false;
            let result = if self.random.once_in(3) { -libc::ECONNRESET } else { 0 };
            self.ring.complete(Completed::Receive, id, result, More::Last);
        }
    }

    /// Lets a server answer what it has read as a whole.
    fn serve(&mut self, key: u64) {
        let peer = self.peers.get_mut(&key).expect("it is there");
        while !peer.has_ended {
            let Some((number, size)) = request(&peer.received) else { return };
            peer.received.drain(..size);
            let is_first = self.seen.insert(number);
            assert!(is_first || self.idempotent.contains(&number), "{number} was sent twice");
            if self.random.once_in(12) {
                peer.has_ended = true;
                return;
            }
            let body = answer(number);
            let mut said = Vec::new();
            if self.random.once_in(4) {
                said.extend_from_slice(b"HTTP/1.1 100 Continue\r\n\r\n");
            }
            said.extend_from_slice(b"HTTP/1.1 200 OK\r\n");
            let ends = self.random.once_in(6);
            if ends {
                said.extend_from_slice(b"connection: close\r\n");
            }
            if self.random.once_in(2) {
                said.extend_from_slice(
                    format!("content-length: {}\r\n\r\n", body.len()).as_bytes(),
                );
                said.extend_from_slice(&body);
            } else {
                said.extend_from_slice(b"transfer-encoding: chunked\r\n\r\n");
                for piece in body.chunks(100) {
                    said.extend_from_slice(format!("{:x}\r\n", piece.len()).as_bytes());
                    said.extend_from_slice(piece);
                    said.extend_from_slice(b"\r\n");
                }
                said.extend_from_slice(b"0\r\n");
                if self.random.once_in(2) {
                    said.extend_from_slice(format!("Host: evil\r\nT:  {number} \r\n").as_bytes());
                }
                said.extend_from_slice(b"\r\n");
            }
            if self.random.once_in(15) {
                said.extend_from_slice(b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nevil");
            }
            if self.random.once_in(15) {
                said.truncate(self.random.below(said.len()));
                peer.has_ended = true;
            }
            peer.has_ended |= ends;
            peer.outbound.extend(said);
        }
    }

    fn take_pushed(&mut self) {
        for operation in self.ring.take_pushed() {
            match operation {
                Operation::Send { id, output, offset, .. } => {
                    let peer = self.peers.entry(id.to_u64()).or_default();
                    assert!(peer.sending.is_none(), "one send at a time");
                    peer.sending = Some(output[offset..].to_vec());
                }
                Operation::Receive(id) => {
                    let peer = self.peers.get_mut(&id.to_u64()).expect("it was sent to first");
                    assert!(!peer.is_receiving, "one receive at a time");
                    peer.is_receiving = true;
                }
                Operation::CancelReceive(id) => {
                    let peer = self.peers.get_mut(&id.to_u64()).expect("it was received from");
                    if std::mem::take(&mut peer.is_receiving) {
                        self.ring.complete(Completed::Receive, id, -libc::ECANCELED, More::Last);
                    }
                }
                Operation::CancelSend(id) => {
                    let peer = self.peers.get_mut(&id.to_u64()).expect("it was sent to");
                    if peer.sending.take().is_some() {
                        self.ring.complete(Completed::Send, id, -libc::ECANCELED, More::Last);
                    }
                }
                Operation::Close(id) => {
                    if let Some(peer) = self.peers.remove(&id.to_u64()) {
                        assert!(!peer.is_receiving && peer.sending.is_none(), "closed in use");
                    }
                    self.ring.complete(Completed::Close, id, 0, More::Last);
                }
                other => panic!("not of a client: {other:?}"),
            }
        }
    }

    fn take_completions(&mut self) {
        while let Some(completion) = self.ring.next_completion() {
            self.with(|outgoing, io| outgoing.complete(io, completion));
            self.take_pushed();
        }
        assert_eq!(self.ring.lent_count(), 0, "a buffer is not kept");
    }

    /// Ends everything, and looks whether all of it came back.
    fn end(mut self) -> (usize, u64, usize) {
        for _ in 0..STEPS * 4 {
            self.kernel();
            self.take_pushed();
            self.take_completions();
            self.with(|outgoing, io| outgoing.serve_starved(io));
            self.take_pushed();
            self.read();
        }
        let good = self.mine.iter().filter(|mine| mine.end == Some(Ok(()))).count();
        for mine in std::mem::take(&mut self.mine) {
            self.with(|outgoing, io| outgoing.close(io, mine.id));
        }
        self.take_pushed();
        self.take_completions();
        self.now += Duration::from_secs(3600);
        self.with(|outgoing, io| outgoing.tick(io));
        self.take_pushed();
        self.take_completions();
        assert_eq!(self.outgoing.free.len(), SOCKETS as usize, "sockets come back");
        assert!(self.outgoing.fetches.iter().all(|fetch| !fetch.is_used), "fetches come back");
        assert!(self.outgoing.idle.is_empty() && self.peers.is_empty());
        (self.good + good, self.counters.fetches_reused, self.with_trailers)
    }
}

/// Returns number and size of a request, if it is whole.
fn request(bytes: &[u8]) -> Option<(u64, usize)> {
    let head = bytes.windows(4).position(|window| window == b"\r\n\r\n")? + 4;
    let text = std::str::from_utf8(&bytes[..head]).expect("a head of ours is text");
    let target = text.split(' ').nth(1).expect("a target");
    let number = target[1..].parse().expect("a number");
    if let Some((_, rest)) = text.split_once("content-length: ") {
        let size: usize = rest.split("\r\n").next()?.parse().expect("a size");
        return (head + size <= bytes.len()).then_some((number, head + size));
    }
    if !text.contains("transfer-encoding: chunked") {
        return Some((number, head));
    }
    let mut at = head;
    loop {
        let line = bytes[at..].windows(2).position(|window| window == b"\r\n")?;
        let size = std::str::from_utf8(&bytes[at..at + line]).expect("digits");
        let size = usize::from_str_radix(size, 16).expect("a size");
        at += line + 2;
        if size == 0 {
            let end = bytes[at..].windows(4).position(|window| window == b"\r\n\r\n")?;
            assert_eq!(bytes[at..at + end], *format!("n: {number}").as_bytes(), "its own trailers");
            return Some((number, at + end + 4));
        }
        at += size + 2;
        if bytes.len() < at {
            return None;
        }
    }
}

#[test]
fn whatever_servers_and_the_kernel_do_answers_belong_to_their_requests() {
    // Nobody accepts: the kernel's side is the test's.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let (mut good, mut reused, mut with_trailers) = (0, 0, 0);
    for seed in 0..SEEDS {
        let mut world = World::new(seed, address);
        for _ in 0..STEPS {
            world.step();
        }
        let (whole, again, trailers) = world.end();
        good += whole;
        reused += again;
        with_trailers += trailers;
    }
    // The test tests something.
    assert!(good > 100 && reused > 50 && with_trailers > 20, "{good} {reused} {with_trailers}");
}

#[test]
fn a_response_is_the_same_in_any_pieces() {
    let whole = b"HTTP/1.1 103 x\r\n\r\nHTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n\
        5\r\nhello\r\n6;a=b\r\n world\r\n0\r\nt: u\r\n\r\n";
    for size in 1..whole.len() {
        let mut fetch = super::Fetch::free();
        for piece in whole.chunks(size) {
            fetch.input.extend_from_slice(piece);
            fetch.advance().unwrap();
        }
        assert!(matches!(fetch.receiving, super::Receiving::Whole), "{size}");
        assert_eq!(fetch.input, b"hello world", "{size}");
        assert!(fetch.trailers.iter().eq([(&b"t"[..], &b"u"[..])]), "{size}");
        assert_eq!(fetch.head.unwrap().status(), 200);
    }
}

/// A reader that always leaves something is held to the window as any other.
#[test]
fn what_was_read_is_not_kept() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut world = World::new(1, listener.local_addr().unwrap());
    let id = loop {
        world.begin();
        let mine = world.mine.last().expect("just begun");
        if mine.left.is_none() {
            break mine.id;
        }
        world.close();
    };
    let slot = id.slot;
    let head = b"HTTP/1.1 200 OK\r\ncontent-length: 100000000\r\n\r\n";
    let mut largest = 0;
    for piece in 0..200 {
        let bytes = if piece == 0 { head.to_vec() } else { vec![b'x'; 16 * 1024] };
        world.outgoing.fetches[slot as usize].input.extend_from_slice(&bytes);
        world.with(|outgoing, io| outgoing.take_plain(io, slot, b""));
        if let Ok(Piece::Bytes(size)) = world.with(|outgoing, _| outgoing.piece(id)) {
            let mut target = vec![0; size - 1];
            world.with(|outgoing, io| outgoing.read(io, id, &mut target));
        }
        largest = largest.max(world.outgoing.fetches[slot as usize].input.len());
    }
    assert!(largest <= 3 * super::WINDOW_BYTES, "{largest}");
}
