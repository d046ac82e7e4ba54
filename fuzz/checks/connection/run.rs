//! Peers, host and endpoint take turns until all have gone.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::Duration;

use super::StillClock;
use super::host::Host;
use super::model::Model;
use super::script::{PeerScript, Script};
use crate::endpoint::Endpoint;
use crate::ring::fake::FakeClock;
use crate::ring::sim::{Random, SimRing, WIRE_BYTES_MAX};
use crate::ring::{Ring, Wait};

/// Turns without a byte or an event that a run may take.
const TURNS_QUIET_MAX: u32 = 3000;
/// Turns without a byte after which a peer that stays expects nothing more.
const TURNS_QUIET: u32 = 60;

/// What lies between peers and an endpoint.
pub(super) trait Network<R: Ring> {
    /// A peer connects.
    fn connect(&mut self, ring: &mut R, address: SocketAddr);
    /// Sends some of the bytes; returns how many.
    fn send(&mut self, ring: &mut R, peer: usize, bytes: &[u8]) -> usize;
    /// The peer sends nothing more.
    fn finish(&mut self, ring: &mut R, peer: usize);
    /// The peer resets the connection.
    fn reset(&mut self, ring: &mut R, peer: usize);
    /// Reads so many bytes at most, behind `read`; returns true at the end.
    fn receive(&mut self, ring: &mut R, peer: usize, most: usize, read: &mut Vec<u8>) -> bool;
    /// How the endpoint waits when nothing has happened for so many turns.
    fn wait(&self, turns_quiet: u32) -> (Wait, Option<Duration>);
    /// Checks the endpoint between two turns.
    fn check(_endpoint: &Endpoint<R, StillClock>) {}
    /// Tells whether the kernel has nothing left to tell.
    fn is_over(_ring: &R) -> bool {
        true
    }
    /// Checks the kernel when all have gone.
    fn check_quiet(_ring: &R) {}
}

/// A peer in the middle of its script.
struct Peer<'a> {
    script: &'a PeerScript,
    /// Answers that it hopes for.
    hopes: usize,
    sent: usize,
    cuts_passed: usize,
    turns_quiet: u32,
    has_finished: bool,
    is_done: bool,
    read: Vec<u8>,
}

/// Runs a script; returns what each peer has read.
pub(super) fn run<R: Ring, N: Network<R>>(
    script: &Script,
    ring: R,
    time: FakeClock,
    mut network: N,
) -> Vec<Vec<u8>> {
    let listener = super::bind();
    let address = listener.local_addr().expect("a listener has an address");
    let clock = StillClock(time.clone());
    let endpoint = Endpoint::new(ring, clock, listener, script.settings.clone());
    let mut endpoint = endpoint.expect("settings are in bounds");
    let mut random = super::random(script);
    let mut host = Host::new(Random::new(script.seed));
    let mut peers: Vec<Peer<'_>> =
        script.peers.iter().map(|peer| Peer::new(peer, &script.settings)).collect();
    for _ in &peers {
        network.connect(&mut endpoint.ring, address);
    }
    let (mut turns_quiet, mut bytes_received) = (0, 0);
    loop {
        let mut has_moved = bytes_received < endpoint.counters().bytes_received;
        bytes_received = endpoint.counters().bytes_received;
        for (place, peer) in peers.iter_mut().enumerate() {
            has_moved |= peer.act(&mut network, &mut endpoint.ring, place, &mut random);
        }
        host.go_on(&mut endpoint);
        let (wait, limit) = network.wait(turns_quiet);
        endpoint.turn_within(wait, limit).expect("the ring works");
        while let Some(event) = endpoint.next_event() {
            has_moved = true;
            host.handle(&mut endpoint, event);
        }
        N::check(&endpoint);
        let is_over = peers.iter().all(|peer| peer.is_done)
            && endpoint.connection_count() == 0
            && N::is_over(&endpoint.ring);
        if is_over {
            break;
        }
        turns_quiet = if has_moved { 0 } else { turns_quiet + 1 };
        if turns_quiet > 0 {
            // For what waits for the next moment: an accept that failed, a receive without a buffer.
            time.pass(Duration::from_millis(20));
        }
        assert!(turns_quiet < TURNS_QUIET_MAX, "somebody is stuck: {:?}", endpoint.counters());
    }
    N::check_quiet(&endpoint.ring);
    assert!(host.is_idle(), "the host heard of all who went");
    assert_eq!(endpoint.bodies_bytes, 0, "nobody holds a share of the budget");
    let counters = endpoint.counters();
    assert_eq!(counters.accepted, counters.closed);
    peers.into_iter().map(|peer| peer.read).collect()
}

impl<'a> Peer<'a> {
    fn new(script: &'a PeerScript, settings: &crate::settings::Settings) -> Self {
        Self {
            script,
            hopes: Model::of(&script.stream, settings).count(),
            sent: 0,
            cuts_passed: 0,
            turns_quiet: 0,
            has_finished: false,
            is_done: false,
            read: Vec::new(),
        }
    }

    /// Sends, reads, and ends its side, as its script says. Returns true if bytes have moved.
    fn act<R: Ring, N: Network<R>>(
        &mut self,
        network: &mut N,
        ring: &mut R,
        place: usize,
        random: &mut Random,
    ) -> bool {
        if self.is_done {
            return false;
        }
        let size = self.read.len();
        let most = match self.script.pace {
            0 => usize::MAX,
            pace => 1 + random.below(pace),
        };
        let is_at_end = network.receive(ring, place, most, &mut self.read);
        let mut has_moved = self.read.len() > size;
        let stream = &self.script.stream;
        if is_at_end {
            self.is_done = true;
            if !self.has_finished {
                network.finish(ring, place);
            }
            return true;
        }
        if self.sent < stream.len() {
            let cuts = &self.script.cuts;
            self.cuts_passed +=
                cuts[self.cuts_passed..].iter().take_while(|cut| **cut <= self.sent).count();
            let cut = cuts.get(self.cuts_passed).copied();
            let end = cut.map_or(stream.len(), |cut| cut.min(stream.len()));
            let sent = network.send(ring, place, &stream[self.sent..end]);
            self.sent += sent;
            has_moved |= sent > 0;
        }
        self.turns_quiet = if has_moved { 0 } else { self.turns_quiet + 1 };
        if self.sent == stream.len() && !self.has_finished {
            if self.script.resets && random.once_in(8) {
                network.reset(ring, place);
                self.is_done = true;
            } else if !self.script.stays || self.hopes == 0 || self.turns_quiet > TURNS_QUIET {
                network.finish(ring, place);
                self.has_finished = true;
            }
        }
        has_moved
    }
}

/// The simulated kernel: what happens follows from the seed.
pub(super) struct Simulated;

impl Network<SimRing> for Simulated {
    fn connect(&mut self, ring: &mut SimRing, _address: SocketAddr) {
        ring.connect();
    }

    fn send(&mut self, ring: &mut SimRing, peer: usize, bytes: &[u8]) -> usize {
        let wire = &mut ring.wires[peer];
        if wire.is_cut {
            return bytes.len();
        }
        let size = bytes.len().min(WIRE_BYTES_MAX - wire.inbound.len());
        wire.inbound.extend(&bytes[..size]);
        size
    }

    fn finish(&mut self, ring: &mut SimRing, peer: usize) {
        ring.wires[peer].has_peer_ended = true;
    }

    fn reset(&mut self, ring: &mut SimRing, peer: usize) {
        ring.wires[peer].is_reset = true;
    }

    fn receive(
        &mut self,
        ring: &mut SimRing,
        peer: usize,
        most: usize,
        read: &mut Vec<u8>,
    ) -> bool {
        let wire = &mut ring.wires[peer];
        let size = most.min(wire.outbound.len());
        read.extend_from_slice(&wire.outbound.make_contiguous()[..size]);
        wire.outbound.drain(..size);
        wire.has_ended && wire.outbound.is_empty()
    }

    fn wait(&self, _turns_quiet: u32) -> (Wait, Option<Duration>) {
        (Wait::Block, None)
    }

    fn check(endpoint: &Endpoint<SimRing, StillClock>) {
        endpoint.check_between_turns();
    }

    fn is_over(ring: &SimRing) -> bool {
        ring.socket_count() == 0 && !ring.has_untold()
    }

    fn check_quiet(ring: &SimRing) {
        ring.check_quiet();
    }
}

/// Sockets over loopback.
#[derive(Default)]
pub(super) struct Loopback {
    streams: Vec<TcpStream>,
}

impl<R: Ring> Network<R> for Loopback {
    fn connect(&mut self, _ring: &mut R, address: SocketAddr) {
        let stream = TcpStream::connect(address).expect("the endpoint listens");
        stream.set_nodelay(true).expect("a socket has options");
        stream.set_nonblocking(true).expect("a socket has options");
        self.streams.push(stream);
    }

    fn send(&mut self, _ring: &mut R, peer: usize, bytes: &[u8]) -> usize {
        match self.streams[peer].write(bytes) {
            Ok(size) => size,
            Err(error) if error.kind() == ErrorKind::WouldBlock => 0,
            // Nobody reads it any more.
            Err(_) => bytes.len(),
        }
    }

    fn finish(&mut self, _ring: &mut R, peer: usize) {
        // Fails where the other side has gone altogether, which reading tells.
        drop(self.streams[peer].shutdown(Shutdown::Write));
    }

    fn reset(&mut self, _ring: &mut R, peer: usize) {
        let socket = socket2::SockRef::from(&self.streams[peer]);
        socket.set_linger(Some(Duration::ZERO)).expect("a socket has options");
        // Closed by putting another in its place: a socket that is connected to nothing.
        let other = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None);
        self.streams[peer] = other.expect("a descriptor is free").into();
    }

    fn receive(&mut self, _ring: &mut R, peer: usize, most: usize, read: &mut Vec<u8>) -> bool {
        let mut bytes = [0; 8192];
        let most = most.min(bytes.len());
        match self.streams[peer].read(&mut bytes[..most]) {
            Ok(0) => true,
            Ok(size) => {
                read.extend_from_slice(&bytes[..size]);
                false
            }
            Err(error) => !matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted),
        }
    }

    fn wait(&self, turns_quiet: u32) -> (Wait, Option<Duration>) {
        match turns_quiet {
            0..=8 => (Wait::Poll, None),
            _ => (Wait::Block, Some(Duration::from_millis(1))),
        }
    }
}
