//! A socket becomes a connection.
//!
//! A few accepts are under way at a time, each for one socket and into a free slot of the ring's table (direct
//! descriptors, Linux 5.19); the slot is the connection's. A multishot accept would save their entries, but one
//! enter of it takes all that waits in the kernel's queue, and the kernel drops a socket that finds no slot:
//! no margin below the limit is safe, for the queue may be longer. So accepts and connections together never
//! exceed the table, and above the limit peers wait in the kernel's queue.
//!
//! Each listener has an accept under way while there is room, so that none is kept waiting by another; the table
//! has a slot more for each listener after the first, for accepts that are under way when the limit is reached.

use crate::clock::Clock;
use crate::connection::{Connection, Exchange, Phase};
use crate::endpoint::Endpoint;
use crate::listen::{Family, Listener};
use crate::ring::{Completion, Operation, Ring};
use crate::settings::ACCEPTS_MAX;
use crate::timers::Tick;
use crate::width::{byte, index, narrow, result_size};

/// Where accepting stands.
#[derive(Debug)]
pub(crate) struct Acceptor {
    doors: Vec<Door>,
    /// Accepts under way, of all listeners.
    armed_count: u32,
    is_stopped: bool,
    /// Nothing is accepted because there is no room.
    is_full: bool,
    /// Nothing is armed before this.
    retry: Tick,
}

/// One listener.
#[derive(Debug)]
struct Door {
    /// Accepts under way.
    armed_count: u32,
    family: Family,
    has_preface: bool,
}

impl Acceptor {
    pub(crate) fn new(listeners: &[Listener]) -> Self {
        let door = |listener: &Listener| Door {
            armed_count: 0,
            family: listener.family(),
            has_preface: listener.has_preface(),
        };
        let doors = listeners.iter().map(door).collect();
        Self { doors, armed_count: 0, is_stopped: false, is_full: false, retry: 0 }
    }

    pub(crate) const fn is_stopped(&self) -> bool {
        self.is_stopped
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
        let room = self.settings.connections_max.saturating_sub(self.connection_count);
        if room > 0 {
            let each = 1 + (room - 1) / self.settings.listeners;
            let free = self.settings.slots() - self.connection_count;
            for (number, door) in acceptor.doors.iter_mut().enumerate() {
                while door.armed_count < each.min(ACCEPTS_MAX) && acceptor.armed_count < free {
                    door.armed_count += 1;
                    acceptor.armed_count += 1;
                    self.ring.push(Operation::Accept(byte(number)));
                }
            }
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

    /// Stops all accepts for good; the listeners close after the last of them.
    pub(crate) fn stop_accepts(&mut self) {
        if self.acceptor.is_stopped {
            return;
        }
        self.acceptor.is_stopped = true;
        self.publish_load();
        if self.acceptor.armed_count == 0 {
            return self.ring.unlisten();
        }
        for (number, door) in self.acceptor.doors.iter().enumerate() {
            if door.armed_count > 0 {
                self.ring.push(Operation::CancelAccepts(byte(number)));
            }
        }
    }

    /// A socket was accepted, or could not be.
    pub(crate) fn accepted(&mut self, completion: Completion) {
        let number = index(completion.id.slot());
        self.acceptor.armed_count -= 1;
        self.acceptor.doors[number].armed_count -= 1;
        match -completion.result {
            ..=0 => {
                let slot = result_size(completion.result);
                let peer = self.ring.peer(completion);
                self.open(slot, number);
                self.connections[slot].peer = peer;
                // A socket that all workers share finds who is free by itself.
                let is_own = self.acceptor.doors[number].family == Family::Internet;
                if !(is_own && self.pass_on(slot, number)) {
                    self.identified(slot);
                }
            }
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

    fn open(&mut self, slot: usize, number: usize) {
        let slots = index(self.settings.slots());
        assert!(slot < slots, "the kernel's table has as many slots as ours");
        // Within its capacity, so nothing moves.
        while self.connections.len() <= slot {
            self.connections.push(Connection::free(narrow(self.connections.len())));
        }
        if self.connections[slot].phase == Phase::Closing {
            // The kernel has closed the socket and used the slot again before it said so.
            self.release(slot);
        }
        let connection = &mut self.connections[slot];
        assert!(connection.phase == Phase::Free, "the kernel accepts into free slots");
        let door = &self.acceptor.doors[number];
        connection.is_local = door.family == Family::Local;
        connection.since = self.now;
        if door.has_preface {
            connection.exchange = Exchange::Preface;
        }
        self.connection_count += 1;
        self.counters.accepted += 1;
    }

    /// A connection of another worker's has come: who its peer is, this one must ask.
    #[cold]
    pub(crate) fn arrived(&mut self, completion: Completion) {
        let slot = result_size(completion.result);
        self.open(slot, index(completion.id.slot()));
        let connection = &mut self.connections[slot];
        connection.phase = Phase::Opening;
        connection.is_asking = true;
        self.ring.push(Operation::Install(connection.id));
    }

    /// A plain descriptor of the socket is there: ask it for the peer, then go on without it.
    #[cold]
    pub(crate) fn installed(&mut self, completion: Completion) {
        let peer = self.ring.peer(completion);
        let Some(slot) = self.live(completion.id) else { return };
        let connection = &mut self.connections[slot];
        connection.is_asking = false;
        connection.peer = peer;
        self.identified(slot);
    }

    /// Goes on with a connection whose peer is known, as far as it can be.
    pub(crate) fn identified(&mut self, slot: usize) {
        let connection = &mut self.connections[slot];
        connection.phase = Phase::Open;
        // The permissions of a local socket are the trust.
        if connection.exchange == Exchange::Preface && !connection.is_local {
            let is_trusted = connection
                .peer
                .is_some_and(|peer| self.settings.trusted_proxies.contains(peer.ip()));
            if !is_trusted {
                self.counters.prefaces_refused += 1;
                return self.end(slot);
            }
        } else if !self.count_in(slot) {
            return;
        }
        self.settle(slot);
    }

    /// Counts a connection for its source, if that is known. One too many is ended, and the answer false.
    pub(crate) fn count_in(&mut self, slot: usize) -> bool {
        let connection = &mut self.connections[slot];
        let Some(peer) = connection.peer else { return true };
        connection.is_counted = true;
        if self.sources.enter(peer) {
            return true;
        }
        self.counters.connections_crowded += 1;
        self.end(slot);
        false
    }
}
