//! Room for newcomers: who gives way at the limit of connections, and how many one source may hold.
//!
//! At the limit nobody is accepted, so a crowd that connects and says nothing would keep everybody else out
//! until its deadlines come. Instead those go who have waited longest for a request or for the rest of its
//! head; a request that was taken is never given up for a newcomer.
//!
//! Invariant: the sources' counts sum up to the connections that are counted.
//! Not here: deadlines (`connection.rs`). Off the hot path: a table that is not full costs nothing.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use crate::clock::Clock;
use crate::connection::{Connection, Exchange, Phase};
use crate::endpoint::Endpoint;
use crate::ring::Ring;
use crate::settings::ACCEPTS_MAX;
use crate::timers::Tick;
use crate::width::index;

/// Slots looked at in one go: a quarter of a millisecond at most. A larger table is looked at in turns.
const WINDOW_SLOTS: usize = 4096;
/// Ticks until the next part of a table is looked at that is larger than one look, after one that found nobody.
const PAUSE: Tick = 5;
/// Bits of an IPv6 address that make a source: what one customer is given (RFC 6177).
const IPV6_SOURCE_BITS: u32 = 64;

/// Where the search for connections to give up stands.
#[derive(Debug, Default)]
pub(crate) struct Shedder {
    /// Slot that the next look begins with.
    hand: usize,
    /// Nobody is looked for before this.
    pub(crate) due: Tick,
    /// Those found: since when they have waited, and their slot.
    found: Vec<(Tick, u32)>,
}

/// How many connections each source holds, where that is limited.
#[derive(Debug)]
pub(crate) struct Sources {
    counts: HashMap<IpAddr, u32>,
    max: u32,
}

impl Sources {
    /// Limits each source to `max` connections; one that the table can't exceed anyway is not counted.
    pub(crate) fn new(max: u32, connections_max: u32) -> Self {
        Self { counts: HashMap::new(), max: if max < connections_max { max } else { u32::MAX } }
    }

    /// Counts a connection in. Tells whether the source may hold it.
    pub(crate) fn enter(&mut self, peer: SocketAddr) -> bool {
        if self.max == u32::MAX {
            return true;
        }
        let count = self.counts.entry(source(peer.ip())).or_insert(0);
        *count += 1;
        *count <= self.max
    }

    /// Counts a connection out that was counted in, whatever the answer was.
    pub(crate) fn leave(&mut self, peer: SocketAddr) {
        let source = source(peer.ip());
        if let Some(count) = self.counts.get_mut(&source) {
            *count -= 1;
            if *count == 0 {
                self.counts.remove(&source);
            }
        }
    }
}

/// Returns what counts as one source: an IPv4 address, or the network of an IPv6 address.
fn source(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => {
            let network = address.to_bits() >> (128 - IPV6_SOURCE_BITS) << (128 - IPV6_SOURCE_BITS);
            IpAddr::V6(Ipv6Addr::from_bits(network))
        }
        address => address,
    }
}

/// Tells whether a connection may be given up: it waits for its peer, and nothing of it was taken.
fn may_go(connection: &Connection) -> bool {
    let waits = match connection.exchange {
        Exchange::Idle => connection.input.is_empty(),
        Exchange::Preface | Exchange::Head => true,
        _ => false,
    };
    waits
        && connection.phase == Phase::Open
        && connection.output.is_empty()
        && !connection.is_sending
        && !connection.is_queued
}

impl<R: Ring, C: Clock> Endpoint<R, C> {
    /// Ends the connections that have waited longest, as many as are accepted at a time.
    #[cold]
    pub(crate) fn shed(&mut self) {
        let slots = self.connections.len();
        let mut found = std::mem::take(&mut self.shedder.found);
        // Who begins to wait now is the next who may go, where nobody waits yet.
        let mut next = self.now + self.limits.shed_after;
        for step in 0..slots.min(WINDOW_SLOTS) {
            let connection = &self.connections[(self.shedder.hand + step) % slots];
            let is_at_hand = self.current.is_some_and(|current| current.id == connection.id);
            if !may_go(connection) || is_at_hand {
                continue;
            }
            let due = connection.since + self.limits.shed_after;
            if due <= self.now {
                found.push((connection.since, connection.id.slot()));
            } else {
                next = next.min(due);
            }
        }
        self.shedder.hand = (self.shedder.hand + WINDOW_SLOTS.min(slots)) % slots;
        self.shedder.due = match (found.is_empty(), slots <= WINDOW_SLOTS) {
            (false, _) => self.now + 1,
            (true, true) => next.max(self.now + 1),
            (true, false) => self.now + PAUSE,
        };
        found.sort_unstable();
        for (_, slot) in found.iter().take(index(ACCEPTS_MAX)) {
            self.counters.connections_shed += 1;
            self.end(index(*slot));
        }
        found.clear();
        self.shedder.found = found;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{any, prop, prop_assert_eq, proptest};

    use super::*;

    fn peer(text: &str) -> SocketAddr {
        SocketAddr::new(text.parse().expect("an address"), 1)
    }

    #[test]
    fn a_source_is_an_address_or_a_network() {
        let mut sources = Sources::new(1, 8);
        assert!(sources.enter(peer("192.0.2.1")));
        assert!(sources.enter(peer("192.0.2.2")));
        assert!(!sources.enter(peer("::ffff:192.0.2.1")), "the same address, as IPv6 has it");
        assert!(sources.enter(peer("2001:db8::1")));
        assert!(!sources.enter(peer("2001:db8::ffff:1")), "one network");
        assert!(sources.enter(peer("2001:db8:0:1::1")));
    }

    #[test]
    fn a_limit_above_the_table_counts_nothing() {
        let mut sources = Sources::new(8, 8);
        assert!((0..20).all(|_| sources.enter(peer("192.0.2.1"))));
        assert!(sources.counts.is_empty());
    }

    proptest! {
        #[test]
        fn counts_are_those_of_a_list(steps in prop::collection::vec((0_u8..4, any::<bool>()), 1..60)) {
            let mut sources = Sources::new(2, 100);
            let mut list = Vec::new();
            for (last, enters) in steps {
                let peer = SocketAddr::from(([10, 0, 0, last], 1));
                if enters {
                    list.push(peer);
                    let held = list.iter().filter(|held| **held == peer).count();
                    prop_assert_eq!(sources.enter(peer), held <= 2);
                } else if let Some(position) = list.iter().position(|held| *held == peer) {
                    list.swap_remove(position);
                    sources.leave(peer);
                }
            }
            for peer in list.drain(..) {
                sources.leave(peer);
            }
            prop_assert_eq!(sources.counts.len(), 0);
        }
    }
}
