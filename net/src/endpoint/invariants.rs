//! What must hold of an endpoint on a simulated kernel whenever it has nothing at hand.

use super::*;
use crate::ring::sim::SimRing;

impl<C: Clock> Endpoint<SimRing, C> {
    /// Checks ring and connections.
    ///
    /// # Panics
    /// If something does not hold.
    pub(crate) fn check_between_turns(&self) {
        self.ring.check();
        let used = self.connections.iter().filter(|other| other.phase != Phase::Free);
        assert_eq!(used.count(), index(self.connection_count()));
        for connection in &self.connections {
            let is_alive = connection.is_receiving
                || connection.is_sending
                || connection.is_asking
                || connection.is_starved
                || connection.is_queued
                || connection.exchange.is_owed()
                || matches!(connection.phase, Phase::Free | Phase::Closing);
            assert!(is_alive, "nothing will ever happen to {connection:?}");
            let keeps_trailers = matches!(&connection.body,
                crate::connection::Body::Chunked(decoder) if decoder.trailers().bytes() > 0);
            assert!(
                !keeps_trailers || connection.reserved_bytes > 0,
                "trailers outlive their exchange: {connection:?}"
            );
            assert!(
                !connection.exchange.is_owed()
                    || matches!(connection.exchange, Exchange::Deferred | Exchange::Streaming)
                        && connection.phase == Phase::Open,
                "what the host owes between two turns is deferred: {connection:?}"
            );
        }
    }
}
