//! A socket becomes a connection.
//!
//! While there is plenty of room, one multishot accept puts every new socket into a free slot of the ring's
//! table (Linux 5.19, direct descriptors), and the slot is the connection's. Near the limit sockets are
//! accepted one by one, never more than there is room for: one enter may accept all that wait in the
//! kernel's queue, and the kernel drops a socket that finds no slot. So the limit is exact, and above it peers
//! wait in the kernel's queue.

use crate::clock::Clock;
use crate::connection::Phase;
use crate::endpoint::Endpoint;
use crate::ring::{Completed, Completion, Operation, Ring};
use crate::settings::{ACCEPT_ROOM_MIN, ACCEPTS_MAX};
use crate::timers::Tick;
use crate::width::index;

/// Where accepting stands.
#[derive(Debug)]
pub(crate) struct Acceptor {
    /// The multishot accept is armed.
    is_armed: bool,
    /// It was asked to stop.
    is_cancelled: bool,
    /// Accepts of one socket under way.
    ones: u32,
    is_stopped: bool,
    /// Nothing is accepted because there is no room.
    is_full: bool,
    /// Nothing is armed before this.
    retry: Tick,
}

impl Acceptor {
    pub(crate) const fn new() -> Self {
        Self {
            is_armed: false,
            is_cancelled: false,
            ones: 0,
            is_stopped: false,
            is_full: false,
            retry: 0,
        }
    }

    pub(crate) fn stop(&mut self) {
        self.is_stopped = true;
    }
}

impl<R: Ring, C: Clock> Endpoint<R, C> {
    /// Arms what the room allows, and stops the multishot accept when it gets scarce.
    #[inline]
    pub(crate) fn accept_if_due(&mut self) {
        let taken = self.connection_count + self.acceptor.ones;
        let room = self.settings.connections_max.saturating_sub(taken);
        if self.acceptor.is_armed {
            if room < ACCEPT_ROOM_MIN && !self.acceptor.is_cancelled {
                self.acceptor.is_cancelled = true;
                self.ring.push(Operation::CancelAccept);
            }
        } else if !self.acceptor.is_stopped && self.acceptor.retry <= self.now {
            self.arm_accept(room);
        }
    }

    #[cold]
    fn arm_accept(&mut self, mut room: u32) {
        let acceptor = &mut self.acceptor;
        if room >= 2 * ACCEPT_ROOM_MIN {
            acceptor.is_armed = true;
            self.ring.push(Operation::Accept);
            return;
        }
        while acceptor.ones < ACCEPTS_MAX && room > 0 {
            acceptor.ones += 1;
            room -= 1;
            self.ring.push(Operation::AcceptOne);
        }
        let is_full = acceptor.ones == 0;
        if is_full && !acceptor.is_full {
            self.counters.accept_paused += 1;
        }
        acceptor.is_full = is_full;
    }

    /// Returns when accepting is to be tried again, if it waits for a moment.
    pub(crate) fn accept_retry(&self) -> Option<Tick> {
        let acceptor = &self.acceptor;
        let waits = !acceptor.is_stopped && self.now < acceptor.retry;
        waits.then_some(acceptor.retry)
    }

    /// Stops all accepts; the listener closes after the last of them.
    pub(crate) fn stop_accepts(&mut self) {
        if self.acceptor.is_armed && !self.acceptor.is_cancelled {
            self.acceptor.is_cancelled = true;
            self.ring.push(Operation::CancelAccept);
        }
        if self.acceptor.ones > 0 {
            self.ring.push(Operation::CancelAcceptOnes);
        }
        self.unlisten_if_quiet();
    }

    fn unlisten_if_quiet(&mut self) {
        let acceptor = &self.acceptor;
        if acceptor.is_stopped && !acceptor.is_armed && acceptor.ones == 0 {
            self.ring.unlisten();
        }
    }

    /// A socket was accepted, or accepting ended.
    pub(crate) fn accepted(&mut self, completion: Completion) {
        if completion.completed == Completed::AcceptOne {
            self.acceptor.ones -= 1;
        } else if !completion.has_more {
            self.acceptor.is_armed = false;
            self.acceptor.is_cancelled = false;
        }
        match -completion.result {
            ..=0 => self.open(crate::width::result_size(completion.result)),
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
        self.unlisten_if_quiet();
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
        self.settle(index(completion.id.slot()));
    }
}
