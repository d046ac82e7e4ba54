//! Bytes become requests.
//!
//! ```text
//!   receive buffer --nothing left over?--> parse in place ----> Event::Request, answered, buffer recycled
//!        |                                     | incomplete
//!        +--leftover--> append to input <------+                 buffer recycled in the same turn
//!                          | head complete, body missing: Event::Head, admit
//!                          +--> input holds | head | decoded body | next request |
//! ```
//!
//! Invariant: no receive buffer is held when `next_event` returns `None`.
//! Hot path: `received`, `proceed`, `begin_request`.

use crate::clock::Clock;
use crate::connection::{Body, Exchange, Phase};
use crate::endpoint::{Current, Endpoint, Event, Source};
use crate::http::refusal::Refusal;
use crate::http::request::{self, EMPTY_LINES_MAX, Framing, HEAD_BYTES_MAX, Progress};
use crate::ring::{BufferId, Completion, ConnectionId, Operation, Ring};
use crate::width::{index, narrow, result_size, wide};

/// Input below which a growing head is parsed again at every piece. Above, only when a line has ended or the
/// head has grown by an eighth, so that a head sent in tiny pieces doesn't cost the square of its size.
const EAGER_BYTES_MAX: usize = 512;

pub(crate) const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

impl<R: Ring, C: Clock> Endpoint<R, C> {
    /// Bytes arrived, or a receive ended.
    #[inline]
    pub(crate) fn received(&mut self, completion: Completion) {
        let Some(slot) = self.live(completion.id) else {
            if let Some(buffer) = completion.buffer {
                self.recycle(buffer);
            }
            return;
        };
        let connection = &mut self.connections[slot];
        if !completion.has_more {
            connection.is_receiving = false;
            connection.is_receive_cancelled = false;
        }
        match completion.buffer {
            Some(buffer) if completion.result > 0 => {
                let size = result_size(completion.result);
                self.counters.bytes_received += wide(size);
                self.take_bytes(slot, buffer, size);
            }
            buffer => {
                if let Some(buffer) = buffer {
                    self.recycle(buffer);
                }
                self.receive_ended(slot, completion.result);
            }
        }
    }

    #[cold]
    fn receive_ended(&mut self, slot: usize, result: i32) {
        let connection = &mut self.connections[slot];
        match -result {
            0 => {
                connection.has_peer_ended = true;
                if connection.is_peer_watched && connection.exchange.is_owed() {
                    return self.end(slot);
                }
                // Nothing more comes that the rest of a head could wait for: it is looked at now.
                if connection.phase == Phase::Open
                    && connection.exchange == Exchange::Head
                    && connection.input.len() > index(connection.head_bytes)
                {
                    let (id, size) = (connection.id, connection.input.len());
                    self.current = Some(Current::new(id, Source::Input, size));
                    return;
                }
            }
            libc::ENOBUFS => {
                self.counters.buffers_starved += 1;
                self.recycled_count += self.ring.offer_more();
                let connection = &mut self.connections[slot];
                if !connection.is_receiving && !connection.is_starved {
                    connection.is_starved = true;
                    self.starved.push_back(connection.id);
                }
            }
            libc::ECANCELED | libc::EAGAIN | libc::EINTR => {}
            _ => {
                connection.has_peer_ended = true;
                if matches!(connection.phase, Phase::Open | Phase::Lingering) {
                    self.counters.connections_broken += 1;
                    self.end(slot);
                    return;
                }
            }
        }
        self.settle(slot);
    }

    /// Arms the receives that found no buffer: as many as buffers came back, one in any case, and once a tick
    /// as many as there are buffers. Not all of them each time: those that find none again cost the others
    /// their share of the turn.
    #[inline]
    pub(crate) fn serve_starved(&mut self) {
        if !self.starved.is_empty() {
            let mut count = self.recycled_count.max(1);
            if self.starved_served < self.now {
                self.starved_served = self.now;
                count = count.max(self.settings.buffers.into());
            }
            for _ in 0..count {
                let Some(id) = self.starved.pop_front() else { break };
                let connection = &mut self.connections[index(id.slot())];
                if connection.id == id && connection.is_starved {
                    connection.is_starved = false;
                    self.settle(index(id.slot()));
                }
            }
        }
        self.recycled_count = 0;
    }

    /// Decides what to do with received bytes.
    #[inline]
    fn take_bytes(&mut self, slot: usize, buffer: BufferId, size: usize) {
        let connection = &mut self.connections[slot];
        let is_wanted = connection.phase == Phase::Open && !connection.is_last;
        match connection.exchange {
            _ if !is_wanted => {
                if connection.phase == Phase::Lingering {
                    connection.add_body(size);
                }
                self.recycle(buffer);
                self.settle(slot);
            }
            Exchange::Idle | Exchange::Preface | Exchange::Discard
                if connection.input.is_empty() =>
            {
                self.current = Some(Current::new(connection.id, Source::Buffer(buffer), size));
            }
            Exchange::Streaming if !connection.is_body_complete => {
                self.take_piece(slot, buffer, size);
            }
            exchange => {
                self.keep(slot, buffer, size);
                let connection = &mut self.connections[slot];
                let is_due = match exchange {
                    Exchange::Head => {
                        is_worth_parsing(&connection.input, size, index(connection.head_bytes))
                    }
                    Exchange::Preface | Exchange::Body | Exchange::Discard => true,
                    _ => false,
                };
                if is_due {
                    self.current =
                        Some(Current::new(connection.id, Source::Input, connection.input.len()));
                } else {
                    self.settle(slot);
                }
            }
        }
    }

    /// Appends the front of a receive buffer to the connection's input.
    fn keep(&mut self, slot: usize, buffer: BufferId, size: usize) {
        let connection = &mut self.connections[slot];
        if connection.input.capacity() == 0 {
            connection.input = self.areas.take();
        }
        connection.input.extend_from_slice(&self.ring.bytes(buffer)[..size]);
        self.recycle(buffer);
    }

    /// Goes on with a connection that was answered late or has drained.
    pub(crate) fn resume(&mut self, id: ConnectionId) {
        let slot = index(id.slot());
        let connection = &mut self.connections[slot];
        if connection.id != id {
            return;
        }
        connection.is_queued = false;
        if connection.phase == Phase::Open
            && matches!(connection.exchange, Exchange::Idle | Exchange::Discard)
            && !connection.input.is_empty()
        {
            let size = connection.input.len();
            self.current = Some(Current::new(id, Source::Input, size));
        } else {
            self.settle(slot);
        }
    }

    /// Goes on with the bytes at hand until they are used up or an event is found.
    #[inline]
    pub(crate) fn proceed(&mut self, mut current: Current) -> Option<Event> {
        let slot = index(current.id.slot());
        loop {
            let connection = &mut self.connections[slot];
            let is_open = connection.id == current.id && connection.phase == Phase::Open;
            match connection.exchange {
                _ if !is_open => return self.leave(current),
                Exchange::Handed => {
                    connection.exchange = Exchange::Deferred;
                    return self.leave(current);
                }
                Exchange::Offered => {
                    self.current = Some(current);
                    self.admit(current.id, 0);
                    return None;
                }
                Exchange::Deferred | Exchange::Refused => return self.leave(current),
                Exchange::Streaming => {
                    self.leave_piece(current);
                    return None;
                }
                Exchange::Body => return self.add_to_body(slot),
                Exchange::Discard => {
                    if current.next == current.end {
                        return self.leave(current);
                    }
                    self.skip(slot, &mut current);
                }
                Exchange::Preface => {
                    if !self.read_preface(slot, &mut current) {
                        return self.leave(current);
                    }
                }
                Exchange::Idle | Exchange::Head => {
                    if current.next == current.end || !connection.may_go_on(&self.settings) {
                        return self.leave(current);
                    }
                    if let Some(event) = self.begin_request(slot, current) {
                        return Some(event);
                    }
                    return None;
                }
            }
        }
    }

    /// Looks for a request in the bytes at hand.
    #[inline]
    fn begin_request(&mut self, slot: usize, mut current: Current) -> Option<Event> {
        let connection = &mut self.connections[slot];
        let bytes = match current.source {
            Source::Buffer(buffer) => self.ring.bytes_mut(buffer),
            Source::Input => connection.input.as_mut_slice(),
        };
        // No further than a head may reach: what lies behind its limit must not decide how it is refused.
        let limit = self.settings.head_bytes_max;
        let end = current.end.min(current.next + limit);
        let bytes = &mut bytes[current.next..end];
        let refusal = match request::parse(bytes, &mut self.head) {
            Ok(Progress::Complete) => None,
            Ok(Progress::Partial) if bytes.len() < limit => {
                if connection.exchange == Exchange::Idle {
                    connection.exchange = Exchange::Head;
                    connection.since = self.now;
                }
                connection.head_bytes = narrow(bytes.len());
                return self.leave(current);
            }
            Ok(Progress::Partial) => Some(Refusal::HeadTooLarge),
            Err(refusal) => Some(refusal),
        };
        if let Some(refusal) = refusal {
            let is_head = is_head(bytes);
            return self.refuse_head(slot, current, refusal, is_head);
        }
        let connection = &mut self.connections[slot];
        connection.begin(&self.head, &self.settings);
        // From here on a refusal answers this head: its method and version count.
        connection.exchange = Exchange::Offered;
        current.start = current.next + usize::from(self.head.bytes_skipped);
        current.head_end = current.next + self.head.bytes_total();
        current.body_end = current.head_end;
        current.next = current.head_end;
        let available = current.end - current.head_end;
        let (is_complete, trailer_bytes) = match &mut connection.body {
            Body::Length(left) => {
                let size = available.min(usize::try_from(*left).unwrap_or(usize::MAX));
                *left -= wide(size);
                current.body_end += size;
                current.next += size;
                (*left == 0, 0)
            }
            Body::Chunked(decoder) => {
                let start = current.head_end;
                let bytes = match current.source {
                    Source::Buffer(buffer) => self.ring.bytes_mut(buffer),
                    Source::Input => connection.input.as_mut_slice(),
                };
                match decoder.decode(&mut bytes[..current.end], start, start) {
                    Ok(decoded) => {
                        current.body_end += decoded.written;
                        current.next += decoded.read;
                        (decoded.is_complete, decoder.trailers().bytes())
                    }
                    Err(refusal) => return self.refuse_current(slot, current, refusal),
                }
            }
        };
        connection.add_body(current.body_end - current.head_end);
        if trailer_bytes > 0 && !self.reserve_up_to(slot, wide(trailer_bytes)) {
            return self.refuse_current(slot, current, Refusal::BodiesFull);
        }
        let connection = &mut self.connections[slot];
        self.current = Some(current);
        if is_complete {
            connection.exchange = Exchange::Handed;
            self.counters.requests += 1;
            Some(Event::Request(current.id))
        } else {
            Some(Event::Head(current.id))
        }
    }

    /// Lets the body of an [`Event::Head`] come, up to `body_bytes_max`. Sends `100 Continue` if the peer
    /// waits for it. A longer body is refused.
    ///
    /// # Panics
    /// If `id` isn't that of the last event.
    pub fn admit(&mut self, id: ConnectionId, body_bytes_max: u64) {
        let current = self.current.take().expect("a head is at hand until it was settled");
        assert!(current.id == id, "the head at hand is another connection's");
        let slot = index(id.slot());
        let connection = &mut self.connections[slot];
        assert!(connection.exchange == Exchange::Offered, "a body is admitted once");
        let bytes_known = match (&connection.body, self.head.framing) {
            (_, Framing::Length(length)) => length,
            _ => connection.body_bytes,
        };
        if bytes_known > body_bytes_max {
            self.refuse_current(slot, current, Refusal::BodyTooLarge);
            return;
        }
        // Of a body in chunks only what has come is known; the rest is taken note of as it comes.
        if self.bodies_bytes + bytes_known > self.settings.bodies_bytes_max {
            self.refuse_current(slot, current, Refusal::BodiesFull);
            return;
        }
        self.reserve(slot, bytes_known);
        let connection = &mut self.connections[slot];
        match current.source {
            Source::Buffer(buffer) => {
                if connection.input.capacity() == 0 {
                    connection.input = self.areas.take();
                }
                let bytes = &self.ring.bytes(buffer)[current.start..current.body_end];
                connection.input.extend_from_slice(bytes);
                self.recycle(buffer);
            }
            Source::Input => {
                connection.input.truncate(current.body_end);
                connection.input.drain(..current.start);
            }
        }
        let connection = &mut self.connections[slot];
        connection.head_bytes = narrow(current.head_end - current.start);
        connection.body_bytes_max = body_bytes_max;
        connection.exchange = Exchange::Body;
        connection.since = self.now;
        if connection.expects_continue && connection.body_bytes == 0 {
            if connection.output.capacity() == 0 {
                connection.output = self.areas.take();
            }
            connection.output.extend_from_slice(CONTINUE);
        }
        self.settle(slot);
    }

    /// Takes the new bytes of an admitted body; they lie at the end of the input.
    fn add_to_body(&mut self, slot: usize) -> Option<Event> {
        let connection = &mut self.connections[slot];
        let end = connection.input.len();
        let body_start = index(connection.head_bytes);
        let old_end = connection.input_body_end();
        let next;
        let (written, is_complete, trailer_bytes) = match &mut connection.body {
            Body::Length(left) => {
                let size = (end - old_end).min(usize::try_from(*left).unwrap_or(usize::MAX));
                *left -= wide(size);
                next = old_end + size;
                (size, *left == 0, 0)
            }
            Body::Chunked(decoder) => {
                match decoder.decode(&mut connection.input, old_end, old_end) {
                    Ok(decoded) => {
                        next = old_end + decoded.read;
                        (decoded.written, decoded.is_complete, decoder.trailers().bytes())
                    }
                    Err(refusal) => {
                        self.refuse(slot, refusal);
                        return None;
                    }
                }
            }
        };
        connection.add_body(written);
        if connection.body_bytes > connection.body_bytes_max {
            self.refuse(slot, Refusal::BodyTooLarge);
            return None;
        }
        let kept_bytes = connection.body_bytes + wide(trailer_bytes);
        if !self.reserve_up_to(slot, kept_bytes) {
            self.refuse(slot, Refusal::BodiesFull);
            return None;
        }
        let connection = &mut self.connections[slot];
        let body_end = connection.input_body_end();
        if !is_complete {
            connection.input.truncate(body_end);
            self.settle(slot);
            return None;
        }
        // The head was overwritten by those of other connections: read it again, once per long body.
        let head = &mut connection.input[..body_start];
        let again = request::parse(head, &mut self.head);
        assert!(again == Ok(Progress::Complete), "a head that was taken once is taken again");
        connection.exchange = Exchange::Handed;
        self.current = Some(Current {
            id: connection.id,
            source: Source::Input,
            start: 0,
            head_end: body_start,
            body_end,
            next,
            end,
        });
        self.counters.requests += 1;
        Some(Event::Request(connection.id))
    }

    /// Passes over what came of an unwanted body.
    fn skip(&mut self, slot: usize, current: &mut Current) {
        let connection = &mut self.connections[slot];
        let Body::Length(left) = &mut connection.body else {
            unreachable!("a body in chunks is not skipped: its connection is closed");
        };
        let available = current.end - current.next;
        let size = available.min(usize::try_from(*left).unwrap_or(usize::MAX));
        *left -= wide(size);
        current.next += size;
        if *left == 0 {
            connection.exchange = Exchange::Idle;
            connection.since = self.now;
        }
        connection.add_body(size);
    }

    /// Lets go of the bytes at hand; what was not looked at is kept in the input.
    #[inline]
    pub(crate) fn leave(&mut self, current: Current) -> Option<Event> {
        let slot = index(current.id.slot());
        let connection = &mut self.connections[slot];
        let is_wanted = connection.id == current.id
            && connection.phase == Phase::Open
            && !connection.is_last
            && current.next < current.end;
        match current.source {
            Source::Buffer(buffer) => {
                if is_wanted {
                    if connection.input.capacity() == 0 {
                        connection.input = self.areas.take();
                    }
                    let rest = &self.ring.bytes(buffer)[current.next..current.end];
                    connection.input.extend_from_slice(rest);
                }
                self.recycle(buffer);
            }
            Source::Input if is_wanted => {
                connection.input.drain(..current.next);
            }
            Source::Input => {
                let input = std::mem::take(&mut connection.input);
                self.areas.give(input);
            }
        }
        self.settle(slot);
        None
    }

    /// Refuses a head that does not come to its end. One of a HEAD gets no body, as far as can be told.
    #[cold]
    pub(crate) fn refuse_late_head(&mut self, slot: usize) {
        let is_head_method = is_head(&self.connections[slot].input);
        self.refuse(slot, Refusal::RequestTimeout);
        self.connections[slot].is_head_method = is_head_method;
    }

    /// Refuses a request for its head.
    #[cold]
    fn refuse_head(
        &mut self,
        slot: usize,
        current: Current,
        refusal: Refusal,
        is_head_method: bool,
    ) -> Option<Event> {
        let event = self.refuse_current(slot, current, refusal);
        // Before the answer is written: that is done by whoever takes the event.
        self.connections[slot].is_head_method = is_head_method;
        event
    }

    /// Refuses the request at hand.
    #[cold]
    fn refuse_current(
        &mut self,
        slot: usize,
        mut current: Current,
        refusal: Refusal,
    ) -> Option<Event> {
        current.next = current.end;
        self.refuse(slot, refusal);
        self.leave(current)
    }

    /// Refuses the request that a connection is in the middle of.
    #[cold]
    pub(crate) fn refuse(&mut self, slot: usize, refusal: Refusal) {
        let connection = &mut self.connections[slot];
        if matches!(connection.exchange, Exchange::Idle | Exchange::Head) {
            connection.is_head_method = false;
            connection.version_minor = 1;
        }
        connection.exchange = Exchange::Refused;
        connection.is_last = true;
        connection.unread_bytes = 0;
        connection.unread_start = 0;
        connection.is_body_awaited = false;
        let input = std::mem::take(&mut connection.input);
        self.areas.give(input);
        if self.connections[slot].reserved_bytes > 0 {
            self.unreserve(slot);
        }
        let connection = &mut self.connections[slot];
        self.counters.refused[refusal.index()] += 1;
        self.pending.push_back(Event::Refused(connection.id, refusal));
        self.settle(slot);
    }

    /// Arms the receive.
    pub(crate) fn arm_receive(&mut self, slot: usize) {
        let connection = &mut self.connections[slot];
        connection.is_receiving = true;
        self.ring.push(Operation::Receive(connection.id));
    }
}

/// Tells whether a request that was refused is a HEAD: its refusal has no body either (RFC 9110, 9.3.2).
///
/// Looks at no more than the parser does, for what lies behind may not have come.
#[cold]
fn is_head(bytes: &[u8]) -> bool {
    let mut line = bytes;
    for _ in 0..EMPTY_LINES_MAX {
        line = line.strip_prefix(b"\r\n").unwrap_or(line);
    }
    line.starts_with(b"HEAD ")
}

/// Tells whether a head that grew by `size` bytes may have come to a conclusion, `parsed_bytes` of it having
/// been looked at already.
fn is_worth_parsing(input: &[u8], size: usize, parsed_bytes: usize) -> bool {
    input.len() <= EAGER_BYTES_MAX
        || input.len() >= HEAD_BYTES_MAX
        || input.len() - parsed_bytes >= input.len() / 8
        || input[input.len() - size..].contains(&b'\n')
}
