//! A ring on a kernel that is played from a seed.
//!
//! ```text
//!   peer --send--> inbound --(pieces of any size, buffers)--> endpoint
//!   peer <-read--- outbound <-(short sends, within a window)-- endpoint
//! ```
//!
//! Everything a kernel may do happens sooner or later, in any order: pieces of any size, short sends, a
//! multishot that ends early, no buffer where there is one, completions of connections long gone, a slot used
//! again before its close was told, no descriptors for an accept, cancels that come too late.
//!
//! Checks what the endpoint promises a kernel: one send of a socket at a time, one receive, nothing under way
//! at a close, every buffer with one owner, never more accepts than free slots.

use std::collections::VecDeque;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::fd::OwnedFd;
use std::time::Duration;

use super::fake::FakeClock;
use super::{BufferId, Completed, Completion, ConnectionId, Operation, Ring, Wait};
use crate::width::{index, wide};

/// Numbers from a seed (`SplitMix64`).
#[derive(Debug, Clone)]
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut word = self.0;
        word = (word ^ (word >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        word ^ (word >> 31)
    }

    /// Returns a number below `count`.
    pub(crate) fn below(&mut self, count: usize) -> usize {
        usize::try_from(self.next() % wide(count)).expect("below a `usize`")
    }

    /// Returns true once in `count` times.
    pub(crate) fn once_in(&mut self, count: usize) -> bool {
        self.below(count) == 0
    }

    /// Returns a number from 1 to `most`, small ones as often as large ones.
    pub(crate) fn size(&mut self, most: usize) -> usize {
        let bound = most >> self.below(most.ilog2() as usize + 1);
        1 + self.below(bound.max(1))
    }
}

/// What lies between a peer and the endpoint.
#[derive(Debug, Default)]
pub(crate) struct Wire {
    /// Number of the listener that the peer connected to.
    listener: u8,
    pub(crate) inbound: VecDeque<u8>,
    pub(crate) outbound: VecDeque<u8>,
    /// The peer sends no more.
    pub(crate) has_peer_ended: bool,
    /// The peer has reset the connection.
    pub(crate) is_reset: bool,
    /// The endpoint sends no more.
    pub(crate) has_ended: bool,
    /// The endpoint has closed while bytes lay unread, which resets the connection.
    pub(crate) is_cut: bool,
}

/// Bytes that lie in one direction at most.
pub(crate) const WIRE_BYTES_MAX: usize = 3000;

/// One slot of the kernel's table.
#[derive(Debug)]
struct Socket {
    wire: usize,
    receive: Option<Armed>,
    send: Option<Armed>,
    sending: Vec<u8>,
}

#[derive(Debug)]
struct Armed {
    id: ConnectionId,
    is_cancelled: bool,
}

#[derive(Debug, Clone, Copy)]
enum Step {
    Accept(u8),
    Receive(usize),
    Send(usize),
    Tell(usize),
    Stale,
}

/// Listeners at most.
const LISTENERS: usize = 2;

/// See the file's head.
#[derive(Debug)]
pub(crate) struct SimRing {
    pub(crate) random: Random,
    clock: FakeClock,
    /// Sleeping takes as long as the endpoint asked for; else a moment at most.
    pub(crate) may_sleep: bool,
    pub(crate) wires: Vec<Wire>,
    backlog: VecDeque<usize>,
    is_listening: bool,
    /// Accepts under way, by listener.
    accepts: [usize; LISTENERS],
    sockets: Vec<Option<Socket>>,
    pushed: VecDeque<Operation>,
    /// Completions that a peer's doing can't change any more, not told yet.
    untold: Vec<Completion>,
    completions: VecDeque<Completion>,
    /// Ids whose slot has been given up, as far as the endpoint knows.
    retired: Vec<ConnectionId>,
    buffers: Vec<Vec<u8>>,
    /// Buffers the kernel may fill, and those that it can't see yet.
    free: Vec<u16>,
    recycled: Vec<u16>,
    lent: Vec<bool>,
    outputs: Vec<Option<Vec<u8>>>,
    descriptors: Vec<i32>,
}

impl SimRing {
    pub(crate) fn new(seed: u64, clock: FakeClock, slots: u32, buffers: u16, size: u32) -> Self {
        let slots = index(slots);
        Self {
            random: Random::new(seed),
            clock,
            may_sleep: false,
            wires: Vec::new(),
            backlog: VecDeque::new(),
            is_listening: true,
            accepts: [0; LISTENERS],
            sockets: std::iter::repeat_with(|| None).take(slots).collect(),
            pushed: VecDeque::new(),
            untold: Vec::new(),
            completions: VecDeque::new(),
            retired: Vec::new(),
            buffers: vec![vec![0; index(size)]; usize::from(buffers)],
            free: (0..buffers).collect(),
            recycled: Vec::new(),
            lent: vec![false; usize::from(buffers)],
            outputs: vec![None; slots],
            descriptors: Vec::new(),
        }
    }

    /// A peer connects; returns its wire.
    pub(crate) fn connect(&mut self) -> usize {
        self.connect_to(0)
    }

    /// A peer connects to a listener; returns its wire.
    pub(crate) fn connect_to(&mut self, listener: u8) -> usize {
        self.wires.push(Wire { listener, ..Wire::default() });
        self.backlog.push_back(self.wires.len() - 1);
        self.wires.len() - 1
    }

    /// Tells whether a peer waits to be accepted.
    pub(crate) fn is_waiting(&self, wire: usize) -> bool {
        self.backlog.contains(&wire)
    }

    pub(crate) fn wire_of(&self, id: ConnectionId) -> usize {
        let socket = self.sockets[index(id.slot())].as_ref();
        socket.expect("a connection has a socket").wire
    }

    pub(crate) fn socket_count(&self) -> usize {
        self.sockets.iter().flatten().count()
    }

    /// Tells whether completions are still to be told.
    pub(crate) fn has_untold(&self) -> bool {
        !self.untold.is_empty() || !self.completions.is_empty() || !self.pushed.is_empty()
    }

    /// Checks what must hold whenever the endpoint has nothing at hand.
    pub(crate) fn check(&self) {
        let waiting = self.completions.iter().filter(|completion| completion.buffer.is_some());
        let lent = self.lent.iter().filter(|is_lent| **is_lent).count();
        assert_eq!(lent, 0, "no receive buffer is held between two turns");
        let owned = self.free.len() + self.recycled.len() + waiting.count();
        assert_eq!(owned, self.buffers.len(), "every buffer has one owner");
        assert!(
            self.accepts.iter().sum::<usize>() + self.socket_count() <= self.sockets.len(),
            "accepts under way have slots to go to"
        );
        assert!(self.descriptors.is_empty(), "descriptors of peers are closed");
    }

    /// Checks that nothing but accepts is under way.
    pub(crate) fn check_quiet(&self) {
        assert_eq!(self.socket_count(), 0);
        assert!(self.outputs.iter().all(Option::is_none));
        assert!(self.untold.is_empty() && self.completions.is_empty());
    }

    fn tell(&mut self, completed: Completed, id: ConnectionId, result: i32) {
        let completion = Completion { completed, id, result, buffer: None, has_more: false };
        self.completions.push_back(completion);
    }

    fn submit(&mut self, operation: Operation) {
        let slot = |id: ConnectionId| index(id.slot());
        let later = |completed, id, result| Completion {
            completed,
            id,
            result,
            buffer: None,
            has_more: false,
        };
        match operation {
            Operation::Accept(listener) => {
                assert!(self.is_listening, "accepts have a listener");
                self.accepts[usize::from(listener)] += 1;
            }
            Operation::CancelAccepts(listener) => {
                for _ in 0..std::mem::take(&mut self.accepts[usize::from(listener)]) {
                    let from = ConnectionId::new(listener.into(), 0);
                    self.untold.push(later(Completed::Accept, from, -libc::ECANCELED));
                }
            }
            Operation::Install(id) => {
                let descriptor = 1000 + number(index(id.slot()));
                let is_failing = self.random.once_in(8);
                let result = if is_failing { -libc::EMFILE } else { descriptor };
                self.untold.push(later(Completed::Install, id, result));
            }
            Operation::Pass { .. } => unreachable!("the simulation has one worker"),
            Operation::Receive(id) => {
                let receive = &mut self.socket(id).receive;
                assert!(receive.is_none(), "one receive of a connection is under way");
                *receive = Some(Armed { id, is_cancelled: false });
            }
            Operation::Send { id, output, offset, .. } => {
                let socket = self.socket(id);
                assert!(socket.send.is_none(), "one send of a connection is under way");
                socket.send = Some(Armed { id, is_cancelled: false });
                socket.sending = output[offset..].to_vec();
                assert!(!socket.sending.is_empty(), "there is something to send");
                self.outputs[slot(id)] = Some(output);
            }
            Operation::Shutdown(id) => {
                let wire = self.socket(id).wire;
                self.wires[wire].has_ended = true;
                let result = if self.wires[wire].is_reset { -libc::ENOTCONN } else { 0 };
                self.untold.push(later(Completed::Shutdown, id, result));
            }
            // A cancel finds what is under way under that id, or nothing.
            Operation::CancelReceive(id) => {
                let socket = self.sockets[slot(id)].as_mut();
                let armed = socket.and_then(|socket| socket.receive.as_mut());
                if let Some(armed) = armed.filter(|armed| armed.id == id) {
                    armed.is_cancelled = true;
                }
            }
            Operation::CancelSend(id) => {
                let socket = self.sockets[slot(id)].as_mut();
                let armed = socket.and_then(|socket| socket.send.as_mut());
                if let Some(armed) = armed.filter(|armed| armed.id == id) {
                    armed.is_cancelled = true;
                }
            }
            Operation::Close(id) => {
                let socket = self.sockets[slot(id)].take().expect("what is closed was open");
                assert!(socket.receive.is_none() && socket.send.is_none(), "closed while in use");
                let wire = &mut self.wires[socket.wire];
                wire.has_ended = true;
                wire.is_cut = !wire.inbound.is_empty() || !wire.has_peer_ended;
                self.untold.push(later(Completed::Close, id, 0));
            }
            Operation::Wake => {}
        }
    }

    fn socket(&mut self, id: ConnectionId) -> &mut Socket {
        let socket = self.sockets[index(id.slot())].as_mut();
        socket.expect("operations are on open sockets")
    }

    /// Does one thing that a kernel could do now; false if there is none.
    pub(crate) fn step(&mut self) -> bool {
        let mut steps = Vec::new();
        for (listener, accepts) in (0..).zip(self.accepts) {
            if accepts > 0 && self.next_of(listener).is_some() {
                steps.push(Step::Accept(listener));
            }
        }
        for (slot, socket) in self.sockets.iter().enumerate() {
            let Some(socket) = socket else { continue };
            let wire = &self.wires[socket.wire];
            if let Some(armed) = &socket.receive {
                let has_news = !wire.inbound.is_empty() || wire.has_peer_ended || wire.is_reset;
                if has_news || armed.is_cancelled {
                    steps.push(Step::Receive(slot));
                }
            }
            if let Some(armed) = &socket.send {
                let has_room = wire.outbound.len() < WIRE_BYTES_MAX;
                if has_room || wire.is_reset || armed.is_cancelled {
                    steps.push(Step::Send(slot));
                }
            }
        }
        steps.extend((0..self.untold.len()).map(Step::Tell));
        if steps.is_empty() {
            return false;
        }
        if !self.retired.is_empty() && self.random.once_in(50) {
            steps = vec![Step::Stale];
        }
        match steps[self.random.below(steps.len())] {
            Step::Accept(listener) => self.accept(listener),
            Step::Receive(slot) => self.receive(slot),
            Step::Send(slot) => self.send(slot),
            Step::Tell(place) => {
                let completion = self.untold.swap_remove(place);
                self.completions.push_back(completion);
            }
            Step::Stale => self.repeat_stale(),
        }
        true
    }

    /// Returns who has waited longest at a listener, by the place in the backlog.
    fn next_of(&self, listener: u8) -> Option<usize> {
        self.backlog.iter().position(|wire| self.wires[*wire].listener == listener)
    }

    fn accept(&mut self, listener: u8) {
        let from = ConnectionId::new(listener.into(), 0);
        self.accepts[usize::from(listener)] -= 1;
        if self.random.once_in(20) {
            return self.tell(Completed::Accept, from, -libc::EMFILE);
        }
        let place = self.next_of(listener).expect("somebody waits");
        let wire = self.backlog.remove(place).expect("a place in the backlog");
        if self.wires[wire].is_reset && self.random.once_in(2) {
            return self.tell(Completed::Accept, from, -libc::ECONNABORTED);
        }
        let free: Vec<usize> =
            (0..self.sockets.len()).filter(|&slot| self.sockets[slot].is_none()).collect();
        let slot = free[self.random.below(free.len())];
        self.sockets[slot] = Some(Socket { wire, receive: None, send: None, sending: Vec::new() });
        // Sometimes another worker has taken it and sends it here; an accept fails meanwhile, for the table's
        // other slots are spoken for.
        if self.random.once_in(8) {
            self.tell(Completed::Arrive, from, number(slot));
            return self.tell(Completed::Accept, from, -libc::ECONNABORTED);
        }
        self.tell(Completed::Accept, from, number(slot));
    }

    fn receive(&mut self, slot: usize) {
        let socket = self.sockets[slot].as_mut().expect("chosen among the open");
        let armed = socket.receive.take().expect("chosen among the armed");
        let id = armed.id;
        let wire = &mut self.wires[socket.wire];
        if armed.is_cancelled && self.random.once_in(2) {
            return self.tell(Completed::Receive, id, -libc::ECANCELED);
        }
        if wire.is_reset {
            wire.inbound.clear();
            return self.tell(Completed::Receive, id, -libc::ECONNRESET);
        }
        if self.random.once_in(40) {
            let error = [libc::ENOBUFS, libc::EINTR, libc::EAGAIN][self.random.below(3)];
            return self.tell(Completed::Receive, id, -error);
        }
        if wire.inbound.is_empty() {
            let result = if wire.has_peer_ended { 0 } else { -libc::ECANCELED };
            return self.tell(Completed::Receive, id, result);
        }
        if self.free.is_empty() {
            return self.tell(Completed::Receive, id, -libc::ENOBUFS);
        }
        let buffer = self.free.swap_remove(self.random.below(self.free.len()));
        let place = &mut self.buffers[usize::from(buffer)];
        let size = self.random.size(wire.inbound.len().min(place.len()));
        // What lay there before must not matter.
        place.fill(b'?');
        place[..size].copy_from_slice(&wire.inbound.make_contiguous()[..size]);
        wire.inbound.drain(..size);
        let has_more = !self.random.once_in(10);
        if has_more {
            socket.receive = Some(armed);
        }
        self.completions.push_back(Completion {
            completed: Completed::Receive,
            id,
            result: number(size),
            buffer: Some(BufferId(buffer)),
            has_more,
        });
    }

    fn send(&mut self, slot: usize) {
        let socket = self.sockets[slot].as_mut().expect("chosen among the open");
        let armed = socket.send.take().expect("chosen among the armed");
        let wire = &mut self.wires[socket.wire];
        let room = WIRE_BYTES_MAX - wire.outbound.len();
        let result = if armed.is_cancelled && self.random.once_in(2) {
            -libc::ECANCELED
        } else if wire.is_reset {
            [-libc::ECONNRESET, -libc::EPIPE][self.random.below(2)]
        } else if self.random.once_in(40) || room == 0 {
            [-libc::EINTR, -libc::EAGAIN][self.random.below(2)]
        } else {
            let most = room.min(socket.sending.len());
            let size = if self.random.once_in(3) { self.random.size(most) } else { most };
            wire.outbound.extend(&socket.sending[..size]);
            socket.sending.drain(..size);
            number(size)
        };
        self.tell(Completed::Send, armed.id, result);
    }

    /// Tells of a connection that has gone.
    fn repeat_stale(&mut self) {
        let id = self.retired[self.random.below(self.retired.len())];
        let completed = [
            Completed::Receive,
            Completed::Send,
            Completed::Shutdown,
            Completed::Close,
            Completed::Install,
            Completed::Nothing,
        ][self.random.below(6)];
        if completed == Completed::Receive
            && let Some(buffer) = self.free.pop()
        {
            let buffer = Some(BufferId(buffer));
            let completion = Completion { completed, id, result: 1, buffer, has_more: false };
            self.completions.push_back(completion);
        } else {
            self.tell(completed, id, -libc::ECANCELED);
        }
    }
}

impl Ring for SimRing {
    fn listen(&mut self, _listener: socket2::Socket) {}

    fn unlisten(&mut self) {
        assert_eq!(self.accepts, [0; LISTENERS], "listeners outlive their accepts");
        self.is_listening = false;
    }

    fn watch(&mut self, _event: OwnedFd) {}

    fn push(&mut self, operation: Operation) {
        self.pushed.push_back(operation);
    }

    fn enter(&mut self, wait: Wait, timeout: Option<Duration>) -> io::Result<()> {
        self.free.append(&mut self.recycled);
        while let Some(operation) = self.pushed.pop_front() {
            self.submit(operation);
        }
        for _ in 0..self.random.below(12) {
            self.step();
        }
        if wait == Wait::Block {
            while self.completions.is_empty() {
                if !self.step() {
                    let most =
                        if self.may_sleep { Duration::MAX } else { Duration::from_millis(20) };
                    self.clock.pass(timeout.unwrap_or_default().min(most));
                    break;
                }
            }
        }
        Ok(())
    }

    fn next_completion(&mut self) -> Option<Completion> {
        let completion = self.completions.pop_front()?;
        if let Some(BufferId(buffer)) = completion.buffer {
            assert!(!self.lent[usize::from(buffer)], "a buffer is filled once");
            self.lent[usize::from(buffer)] = true;
        }
        if completion.completed == Completed::Install && completion.result >= 0 {
            self.descriptors.push(completion.result);
        }
        if completion.completed == Completed::Close && !self.retired.contains(&completion.id) {
            self.retired.push(completion.id);
        }
        Some(completion)
    }

    fn has_completion(&mut self) -> bool {
        !self.completions.is_empty()
    }

    fn bytes(&self, buffer: BufferId) -> &[u8] {
        assert!(self.lent[usize::from(buffer.0)], "a buffer is read while it is lent");
        &self.buffers[usize::from(buffer.0)]
    }

    fn bytes_mut(&mut self, buffer: BufferId) -> &mut [u8] {
        assert!(self.lent[usize::from(buffer.0)], "a buffer is changed while it is lent");
        &mut self.buffers[usize::from(buffer.0)]
    }

    fn recycle(&mut self, buffer: BufferId) {
        let is_lent = &mut self.lent[usize::from(buffer.0)];
        assert!(*is_lent, "a buffer is given back once");
        *is_lent = false;
        self.recycled.push(buffer.0);
    }

    fn reclaim(&mut self, id: ConnectionId) -> Vec<u8> {
        let output = &mut self.outputs[index(id.slot())];
        output.take().expect("a send was under way")
    }

    fn peer(&mut self, completion: Completion) -> Option<SocketAddr> {
        if completion.completed == Completed::Install {
            let held = |&other: &i32| other == completion.result;
            let place = self.descriptors.iter().position(held)?;
            self.descriptors.swap_remove(place);
        }
        let port = u16::try_from(completion.result).expect("slots are few");
        Some(SocketAddr::from((Ipv4Addr::LOCALHOST, port)))
    }

    fn enters(&self) -> u64 {
        0
    }
}

/// Returns a size, a slot or a descriptor as a completion's result.
fn number(size: usize) -> i32 {
    i32::try_from(size).expect("a simulated kernel is small")
}
