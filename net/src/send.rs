//! Responses become bytes on the wire.
//!
//! What a connection has to say is gathered in its output; when nothing of it is under way, all of it goes to
//! the ring as one send. So pipelined answers leave together and in order, and a short send is continued
//! before anything else is sent.
//!
//! Invariant: one send of a connection is under way at a time.
//! Hot path: `settle`, `sent`.

use crate::clock::Clock;
use crate::connection::{Connection, Exchange, Phase};
use crate::endpoint::Endpoint;
use crate::ring::{Completion, Operation, Ring};
use crate::width::{result_size, wide};

impl<R: Ring, C: Clock> Endpoint<R, C> {
    /// Brings about what the connection's state asks for: send, end, go on, receive, and the deadline.
    ///
    /// The one place that decides; everybody who has changed something calls it.
    #[inline]
    pub(crate) fn settle(&mut self, slot: usize) {
        let connection = &mut self.connections[slot];
        match connection.phase {
            Phase::Open => {}
            Phase::Free | Phase::Opening | Phase::Closing => return,
            Phase::Lingering | Phase::Ending => return self.settle_ending(slot),
        }
        self.flush(slot);
        self.tell_room(slot);
        let connection = &mut self.connections[slot];
        if connection.exchange == Exchange::Streaming
            && connection.has_peer_ended
            && !connection.is_body_complete
        {
            // The rest of the body never comes.
            self.counters.connections_broken += 1;
            return self.end(slot);
        }
        if !connection.is_sending && !connection.exchange.is_owed() {
            let has_more = connection.exchange == Exchange::Idle
                && !connection.input.is_empty()
                && !connection.is_last;
            if connection.is_last {
                return self.shut(slot);
            }
            if has_more {
                self.queue(slot);
            } else if connection.has_peer_ended {
                return self.end(slot);
            }
        }
        self.settle_receive(slot);
        self.settle_deadline(slot);
    }

    /// Arms or stops the receive, as the connection's state asks for.
    #[inline]
    pub(crate) fn settle_receive(&mut self, slot: usize) {
        let connection = &mut self.connections[slot];
        let wants_bytes = connection.wants_bytes(&self.settings);
        if connection.is_receiving {
            if !wants_bytes && !connection.is_receive_cancelled && !connection.has_peer_ended {
                connection.is_receive_cancelled = true;
                self.counters.receives_paused += 1;
                self.ring.push(Operation::CancelReceive(connection.id));
            }
        } else if wants_bytes && !connection.is_starved {
            self.arm_receive(slot);
        }
    }

    #[inline]
    pub(crate) fn settle_deadline(&mut self, slot: usize) {
        let connection = &self.connections[slot];
        match connection.deadline(&self.limits) {
            Some(deadline) => self.wheel.set(connection.id.slot(), deadline),
            None => self.wheel.clear(connection.id.slot()),
        }
    }

    /// Gives the output to the ring, if there is any and nothing is under way.
    #[inline]
    pub(crate) fn flush(&mut self, slot: usize) {
        let connection = &mut self.connections[slot];
        if connection.phase != Phase::Open || connection.is_sending || connection.output.is_empty()
        {
            return;
        }
        let output = std::mem::take(&mut connection.output);
        connection.is_sending = true;
        connection.sending_bytes = output.len();
        connection.sent_bytes = 0;
        connection.since = self.now;
        let Connection { id, is_last, .. } = *connection;
        self.ring.push(Operation::Send { id, output, offset: 0, is_last });
    }

    /// A send has completed, in whole or in part.
    #[inline]
    pub(crate) fn sent(&mut self, completion: Completion) {
        let Some(slot) = self.live(completion.id) else { return };
        let output = self.ring.reclaim(completion.id);
        let connection = &mut self.connections[slot];
        connection.is_sending = false;
        let size = result_size(completion.result);
        connection.sent_bytes += size;
        connection.since = self.now;
        self.counters.bytes_sent += wide(size);
        let is_alive = connection.phase == Phase::Open
            && matches!(-completion.result, i32::MIN..=0 | libc::EAGAIN | libc::EINTR);
        if is_alive && connection.sent_bytes < connection.sending_bytes {
            connection.is_sending = true;
            let offset = connection.sent_bytes;
            let Connection { id, is_last, .. } = *connection;
            self.ring.push(Operation::Send { id, output, offset, is_last });
            self.settle_deadline(slot);
            return;
        }
        connection.sending_bytes = 0;
        connection.sent_bytes = 0;
        self.areas.give(output);
        if !is_alive && connection.phase == Phase::Open {
            self.counters.connections_broken += 1;
            self.end(slot);
            return;
        }
        self.settle(slot);
    }
}
