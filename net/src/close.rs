//! How a connection ends.
//!
//! ```text
//!   politely:  last response sent - shutdown - drop what comes until the peer closes - close
//!   at once:   cancel receive and send - wait for their last completions - close; also where the peer asked for
//!              the end, for then it sends no more
//! ```
//!
//! A close does not reach the wire while a receive holds the socket, so every way ends in cancelling it and
//! waiting. Closing with unread bytes would send a reset, which can take the last response away from the
//! peer (RFC 9112, 9.6); hence the polite way, bounded in time and bytes.

use crate::clock::Clock;
use crate::connection::{Body, Exchange, Phase};
use crate::endpoint::{Endpoint, Event};
use crate::ring::{Completion, Operation, Ring};
use crate::width::index;

impl<R: Ring, C: Clock> Endpoint<R, C> {
    /// Ends a connection politely: everything was sent.
    pub(crate) fn shut(&mut self, slot: usize) {
        let connection = &mut self.connections[slot];
        // Who has asked for the end has sent all it will, and all of it was read: nothing can take its answer
        // away, and the ring's shutdown, which the kernel hands to a thread, is saved.
        let is_done = connection.has_asked_for_end
            && connection.exchange == Exchange::Idle
            && connection.input.is_empty()
            && matches!(connection.body, Body::Length(0));
        if connection.has_peer_ended || is_done {
            self.end(slot);
            return;
        }
        connection.phase = Phase::Lingering;
        connection.exchange = Exchange::Idle;
        connection.since = self.now;
        connection.body_bytes = 0;
        connection.is_asking = true;
        let input = std::mem::take(&mut connection.input);
        self.areas.give(input);
        self.ring.push(Operation::Shutdown(connection.id));
        self.settle_ending(slot);
    }

    /// Our end is shut.
    pub(crate) fn shut_down(&mut self, completion: Completion) {
        let Some(slot) = self.live(completion.id) else { return };
        self.connections[slot].is_asking = false;
        self.settle(slot);
    }

    /// Ends a connection at once.
    pub(crate) fn end(&mut self, slot: usize) {
        let connection = &mut self.connections[slot];
        if matches!(connection.exchange, Exchange::Deferred | Exchange::Streaming) {
            self.pending.push_back(Event::Gone(connection.id));
        }
        connection.phase = Phase::Ending;
        connection.exchange = Exchange::Idle;
        connection.since = self.now;
        if connection.is_receiving {
            connection.is_receive_cancelled = true;
            self.ring.push(Operation::CancelReceive(connection.id));
        }
        if connection.is_sending {
            self.ring.push(Operation::CancelSend(connection.id));
        }
        self.settle_ending(slot);
    }

    /// Goes on with ending: closes as soon as nothing of the kernel's refers to the socket.
    pub(crate) fn settle_ending(&mut self, slot: usize) {
        let connection = &mut self.connections[slot];
        if connection.phase == Phase::Lingering {
            let is_over =
                connection.has_peer_ended || connection.body_bytes > self.settings.linger_bytes_max;
            if is_over {
                self.end(slot);
                return;
            }
            self.settle_receive(slot);
        } else if connection.is_quiet() {
            connection.phase = Phase::Closing;
            self.ring.push(Operation::Close(connection.id));
        }
        self.settle_deadline(slot);
    }

    /// The socket is closed, its slot free.
    pub(crate) fn closed(&mut self, completion: Completion) {
        // Not an error: the slot may have been used again already (see `open`).
        let slot = index(completion.id.slot());
        let connection = &self.connections[slot];
        if connection.id == completion.id && connection.phase == Phase::Closing {
            self.release(slot);
        }
    }

    /// Frees a slot.
    pub(crate) fn release(&mut self, slot: usize) {
        let connection = &mut self.connections[slot];
        self.wheel.clear(connection.id.slot());
        if let (Some(peer), true) = (connection.peer, connection.is_counted) {
            self.sources.leave(peer);
        }
        if connection.reserved_bytes > 0 {
            self.unreserve(slot);
        }
        let connection = &mut self.connections[slot];
        for area in connection.release() {
            self.areas.give(area);
        }
        self.connection_count -= 1;
        self.counters.closed += 1;
    }
}
