//! New connections go to a less loaded worker, where the kernel's hash is unfair.
//!
//! ```text
//!   accepted --> here it is fuller than elsewhere by two? --no--> open
//!                   | yes: the socket is sent to that ring (Linux 6.3, IORING_MSG_SEND_FD)
//!                   v
//!                 Opening --taken--> our slot is closed; there it arrives like an accept
//!                   | refused
//!                   +--> open
//! ```
//!
//! A few kept connections, as load generators and proxies have, hash badly: of 16 over 4 workers one may get 8.
//! Who has arrived so is not passed on again.
//!
//! Invariant: a worker is sent sockets only while less than half of its table is full, so that accepts under way
//! there find slots.
//! Off the hot path: once for each connection.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use crate::clock::Clock;
use crate::connection::Phase;
use crate::endpoint::Endpoint;
use crate::ring::{Completion, Operation, Ring};
use crate::settings::ACCEPTS_MAX;
use crate::width::byte;

/// Difference of connections from which on one is passed: with less, nothing is gained.
const GAP: u32 = 2;

/// A worker's open connections, on a cache line of their own: it writes, others read.
#[derive(Debug, Default)]
#[repr(align(64))]
pub struct Load(AtomicU32);

/// The workers that share addresses, as one of them sees them.
#[derive(Debug)]
pub struct Neighbours {
    own: usize,
    loads: Arc<[Load]>,
    /// What each load was when it was last looked at, and how many were passed there since.
    seen: Vec<(u32, u32)>,
}

impl Neighbours {
    /// Takes the loads of all workers, and which of them is one's own.
    #[must_use]
    pub fn new(own: usize, loads: Arc<[Load]>) -> Self {
        let seen = vec![(0, 0); loads.len()];
        Self { own, loads, seen }
    }

    fn publish(&self, count: u32) {
        let own = &self.loads[self.own].0;
        if own.load(Ordering::Relaxed) != count {
            own.store(count, Ordering::Relaxed);
        }
    }

    /// Returns who should have the newest of `count` connections, if that is another.
    fn better(&mut self, count: u32, connections_max: u32, accepts_max: u32) -> Option<usize> {
        let mut best = None;
        for (worker, seen) in self.seen.iter_mut().enumerate() {
            if worker == self.own {
                continue;
            }
            let load = self.loads[worker].0.load(Ordering::Relaxed);
            if load != seen.0 {
                *seen = (load, 0);
            }
            let expected = load.saturating_add(seen.1);
            if best.is_none_or(|(_, least)| expected < least) {
                best = Some((worker, expected));
            }
        }
        let (worker, load) = best?;
        // What arrives has a slot though accepts are under way there, and half of the table fills meanwhile.
        let has_room = load.saturating_add(accepts_max) < connections_max / 2;
        let is_worth_it = load.saturating_add(GAP) <= count && has_room;
        is_worth_it.then(|| {
            self.seen[worker].1 += 1;
            worker
        })
    }
}

impl<R: Ring, C: Clock> Endpoint<R, C> {
    /// Returns a descriptor by which other rings reach this one; `None` if this kind cannot be sent sockets.
    #[must_use]
    pub fn ring_descriptor(&self) -> Option<OwnedFd> {
        self.ring.descriptor()
    }

    /// From now on connections are shared with the neighbours; their rings come in the loads' order.
    pub fn join(&mut self, neighbours: Neighbours, rings: Vec<OwnedFd>) {
        self.ring.join(rings);
        self.neighbours = Some(neighbours);
        self.publish_load();
    }

    /// Tells the neighbours how many connections there are.
    #[inline]
    pub(crate) fn publish_load(&self) {
        if let Some(neighbours) = &self.neighbours {
            // Who is about to end takes none.
            let is_open = !self.acceptor.is_stopped();
            neighbours.publish(if is_open { self.connection_count } else { u32::MAX });
        }
    }

    /// Sends a connection that was just accepted to a less loaded worker, if there is one. Returns true if it is
    /// on its way.
    pub(crate) fn pass_on(&mut self, slot: usize, listener: usize) -> bool {
        if self.acceptor.is_stopped() {
            return false;
        }
        let Some(neighbours) = &mut self.neighbours else { return false };
        let most = self.settings.connections_max;
        let accepts = self.settings.listeners * ACCEPTS_MAX;
        let Some(worker) = neighbours.better(self.connection_count, most, accepts) else {
            return false;
        };
        let connection = &mut self.connections[slot];
        connection.phase = Phase::Opening;
        connection.is_asking = true;
        let (id, to, listener) = (connection.id, byte(worker), byte(listener));
        self.ring.push(Operation::Pass { id, to, listener });
        true
    }

    /// A connection was taken by another worker, or not.
    #[cold]
    pub(crate) fn passed(&mut self, completion: Completion) {
        let Some(slot) = self.live(completion.id) else { return };
        let connection = &mut self.connections[slot];
        connection.is_asking = false;
        if completion.result >= 0 {
            self.counters.connections_passed += 1;
            connection.phase = Phase::Closing;
            self.ring.push(Operation::Close(connection.id));
        } else {
            // This kernel, or that ring, takes none: it stays, and so do the next.
            self.neighbours = None;
            self.identified(slot);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_least_loaded_is_found_and_not_flooded() {
        let loads: Arc<[Load]> = (0..3).map(|_| Load::default()).collect();
        let mut own = Neighbours::new(1, Arc::clone(&loads));
        loads[0].0.store(5, Ordering::Relaxed);
        loads[2].0.store(3, Ordering::Relaxed);
        let passed: Vec<_> = (0..7).map(|_| own.better(8, 1000, 32)).collect();
        assert_eq!(passed, [Some(2), Some(2), Some(0), Some(2), Some(0), Some(2), None]);
        loads[2].0.store(4, Ordering::Relaxed);
        assert_eq!(own.better(8, 1000, 32), Some(2), "news count from their own");
        assert_eq!(own.better(8, 72, 32), None, "half of its table is full, or spoken for");
        own.publish(8);
        assert_eq!(loads[1].0.load(Ordering::Relaxed), 8);
    }

    #[test]
    fn one_alone_keeps_all() {
        let loads: Arc<[Load]> = [Load::default()].into();
        assert_eq!(Neighbours::new(0, loads).better(100, 1000, 32), None);
    }
}
