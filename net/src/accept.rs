//! A socket becomes a connection.
//!
//! A few accepts are under way at a time, each for one socket and into a free slot of the ring's table (direct
//! descriptors, Linux 5.19); the slot is the connection's. A multishot accept would save their entries, but one
//! enter of it takes all that waits in the kernel's queue, and the kernel drops a socket that finds no slot:
//! no margin below the limit is safe, for the queue may be longer. So accepts and connections together never
//! exceed the limit, and above it peers wait in the kernel's queue.

use crate::clock::Clock;
use crate::connection::Phase;
use crate::endpoint::Endpoint;
use crate::ring::{Completion, Operation, Ring};
use crate::settings::ACCEPTS_MAX;
use crate::timers::Tick;
use crate::width::{index, result_size};

/// Where accepting stands.
#[derive(Debug)]
pub(crate) struct Acceptor {
    /// Accepts under way.
    armed_count: u32,
    is_stopped: bool,
    /// Nothing is accepted because there is no room.
    is_full: bool,
    /// Nothing is armed before this.
    retry: Tick,
}

impl Acceptor {
    pub(crate) const fn new() -> Self {
        Self { armed_count: 0, is_stopped: false, is_full: false, retry: 0 }
    }
}

impl<R: Ring, C: Clock> Endpoint<R, C> {
    /// Arms what the room allows.
    #[inline]
    pub(crate) fn accept_if_due(&mut self) {
        let acceptor = &mut self.acceptor;
        if acceptor.is_stopped || self.now < acceptor.retry {
            return;
        }
        let room = self.settings.connections_max - self.connection_count;
        while acceptor.armed_count < room.min(ACCEPTS_MAX) {
            acceptor.armed_count += 1;
            self.ring.push(Operation::Accept);
        }
        if room == 0 && !acceptor.is_full {
            self.counters.accept_paused += 1;
        }
        acceptor.is_full = room == 0;
        if room == 0 && self.shedder.due <= self.now {
            self.shed();
        }
    }

    /// Returns when accepting, or making room for it, is to be tried again, if it waits for a moment.
    pub(crate) fn accept_retry(&self) -> Option<Tick> {
        let acceptor = &self.acceptor;
        if acceptor.is_stopped {
            return None;
        }
        let waits = self.now < acceptor.retry;
        waits.then_some(acceptor.retry).or(acceptor.is_full.then_some(self.shedder.due))
    }

    /// Stops all accepts for good; the listener closes after the last of them.
    pub(crate) fn stop_accepts(&mut self) {
        if self.acceptor.is_stopped {
            return;
        }
        self.acceptor.is_stopped = true;
        if self.acceptor.armed_count > 0 {
            self.ring.push(Operation::CancelAccepts);
        } else {
            self.ring.unlisten();
        }
    }

    /// A socket was accepted, or could not be.
    pub(crate) fn accepted(&mut self, completion: Completion) {
        self.acceptor.armed_count -= 1;
        match -completion.result {
            ..=0 => self.open(result_size(completion.result)),
            libc::ECANCELED => {}
            // The peer went before it was accepted.
            libc::ECONNABORTED => self.counters.accept_failed += 1,
            // No descriptors or no memory: give the system time to breathe.
            _ => {
                self.counters.accept_failed += 1;
                self.counters.accept_paused += 1;
                self.acceptor.retry = self.now + self.limits.accept_retry;
            }
        }
        if self.acceptor.is_stopped && self.acceptor.armed_count == 0 {
            self.ring.unlisten();
        }
    }

    fn open(&mut self, slot: usize) {
        assert!(slot < self.connections.len(), "the kernel's table has as many slots as ours");
        if self.connections[slot].phase == Phase::Closing {
            // The kernel has closed the socket and used the slot again before it said so.
            self.release(slot);
        }
        let connection = &mut self.connections[slot];
        assert!(connection.phase == Phase::Free, "the kernel accepts into free slots");
        connection.since = self.now;
        self.connection_count += 1;
        self.counters.accepted += 1;
        if self.settings.wants_peer && self.ring.can_install() {
            connection.phase = Phase::Opening;
            connection.is_asking = true;
            self.ring.push(Operation::Install(connection.id));
        } else {
            connection.phase = Phase::Open;
            self.settle(slot);
        }
    }

    /// A plain descriptor of the socket is there: ask it for the peer, then go on without it.
    pub(crate) fn installed(&mut self, completion: Completion) {
        let peer = self.ring.peer(completion.result);
        let Some(slot) = self.live(completion.id) else { return };
        let connection = &mut self.connections[slot];
        connection.is_asking = false;
        connection.peer = peer;
        connection.phase = Phase::Open;
        if peer.is_some_and(|peer| !self.sources.enter(peer)) {
            self.counters.connections_crowded += 1;
            return self.end(slot);
        }
        self.settle(index(completion.id.slot()));
    }
}
