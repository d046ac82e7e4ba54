//! A socket becomes a connection.
//!
//! One multishot accept puts every new socket into a free slot of the ring's table (Linux 5.19, direct
//! descriptors), and the slot is the connection's. At the limit accepting stops; the sockets that were
//! accepted until the kernel heard of it fit into spare slots, so none is dropped.

use crate::clock::Clock;
use crate::connection::Phase;
use crate::endpoint::Endpoint;
use crate::ring::{Completion, Operation, Ring};
use crate::timers::Tick;
use crate::width::index;

/// Where accepting stands.
#[derive(Debug)]
pub(crate) struct Acceptor {
    is_armed: bool,
    is_cancelled: bool,
    is_stopped: bool,
    /// Not armed again before this.
    retry: Tick,
}

impl Acceptor {
    pub(crate) const fn new() -> Self {
        Self { is_armed: false, is_cancelled: false, is_stopped: false, retry: 0 }
    }

    pub(crate) fn stop(&mut self) {
        self.is_stopped = true;
    }
}

impl<R: Ring, C: Clock> Endpoint<R, C> {
    /// Arms the accept if it should be and isn't.
    #[inline]
    pub(crate) fn accept_if_due(&mut self) {
        let acceptor = &mut self.acceptor;
        if !acceptor.is_armed
            && !acceptor.is_stopped
            && self.connection_count < self.settings.connections_max
            && acceptor.retry <= self.now
        {
            acceptor.is_armed = true;
            self.ring.push(Operation::Accept);
        }
    }

    /// Returns when accepting is to be tried again, if it waits for a moment.
    pub(crate) fn accept_retry(&self) -> Option<Tick> {
        let acceptor = &self.acceptor;
        let waits = !acceptor.is_armed
            && !acceptor.is_stopped
            && self.connection_count < self.settings.connections_max;
        waits.then_some(acceptor.retry)
    }

    pub(crate) fn cancel_accept(&mut self) {
        let acceptor = &mut self.acceptor;
        if acceptor.is_armed && !acceptor.is_cancelled {
            acceptor.is_cancelled = true;
            self.ring.push(Operation::CancelAccept);
        } else if !acceptor.is_armed && acceptor.is_stopped {
            self.ring.unlisten();
        }
    }

    /// A socket was accepted, or accepting ended.
    pub(crate) fn accepted(&mut self, completion: Completion) {
        let is_success = completion.result >= 0;
        if is_success {
            self.open(crate::width::result_size(completion.result));
        } else if !self.acceptor.is_cancelled {
            self.counters.accept_failed += 1;
        }
        if !completion.has_more {
            self.acceptor.is_armed = false;
            self.acceptor.is_cancelled = false;
            if self.acceptor.is_stopped {
                self.ring.unlisten();
            } else if !is_success && completion.result != -libc::ECANCELED {
                // No descriptors or no memory: give the system time to breathe.
                self.counters.accept_paused += 1;
                self.acceptor.retry = self.now + self.limits.accept_retry;
            }
        } else if self.connection_count >= self.settings.connections_max
            && !self.acceptor.is_cancelled
        {
            self.counters.accept_paused += 1;
            self.cancel_accept();
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
        self.settle(index(completion.id.slot()));
    }
}
