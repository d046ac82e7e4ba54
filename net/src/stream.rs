//! Bodies piece by piece, both ways.
//!
//! ```text
//!   request:   receive buffer --decode--> read by the host where it lies ----------------> guest
//!                    |  the host isn't waiting, or leaves a rest
//!                    +--> input | read already | unread | next request |  above the window the receive stops
//!
//!   response:  guest --> output, one area at most --> send --> Event::Room when the output is empty again
//! ```
//!
//! So a connection that streams holds a window of its request and two areas of its response, whatever passes
//! through; all bodies of an endpoint together have a budget.
//!
//! Invariants: while a streamed body is incomplete, the input holds nothing behind its unread part; the events
//! of this file are sent to a host that asked for them, once for each time.
//! Hot path: `take_piece`, `read_body`, `write_response`.

use crate::clock::Clock;
use crate::connection::{Body, Connection, Exchange, Phase, Reply};
use crate::endpoint::{Current, Endpoint, Event, Source};
use crate::http::chunked::Decoded;
use crate::http::refusal::Refusal;
use crate::http::response::{self, Circumstances, Unsendable};
use crate::http::status;
use crate::http::trailers::{self, Trailers};
use crate::receive::CONTINUE;
use crate::ring::{BufferId, ConnectionId, Ring};
use crate::width::{index, wide};

/// Bytes of a response that wait while others are being sent: a whole area, so that it is kept for the next.
const REPLY_BYTES_MAX: usize = crate::areas::AREA_BYTES_KEPT_MAX;
/// Size of a chunk's frame: sixteen digits at most, and two line ends.
const CHUNK_FRAME_BYTES: usize = 20;
/// What ends a body in chunks.
const LAST_CHUNK: &[u8] = b"0\r\n\r\n";

/// What there is of a body to read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unread {
    /// So many bytes, one at least.
    Bytes(usize),
    /// Nothing, and nothing will come.
    End,
    /// Nothing yet: [`Event::Body`] tells when.
    Later,
}

/// What became of a piece of a response.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Written {
    /// So many bytes were taken, one at least, or none of an empty piece.
    Bytes(usize),
    /// None: [`Event::Room`] tells when there is room.
    Later,
    /// It has more bytes than the response's head told.
    TooLong,
}

impl<R: Ring, C: Clock> Endpoint<R, C> {
    /// Tells whether the budget of bodies has room for another exchange in pieces.
    #[must_use]
    pub fn can_stream(&self) -> bool {
        self.bodies_bytes + self.stream_bytes() <= self.settings.bodies_bytes_max
    }

    /// Lets the host read the body of the request at hand as it comes, up to `body_bytes_max`. It has taken
    /// the first `taken` bytes of the view's body already. A body that turns out longer is refused, by an
    /// event.
    ///
    /// # Panics
    /// If `id` isn't that of the last event, or fewer than `taken` bytes are at hand.
    pub fn stream(&mut self, id: ConnectionId, body_bytes_max: u64, taken: usize) {
        let current = self.current.take().expect("a request is at hand until it was settled");
        assert!(current.id == id, "the request at hand is another connection's");
        let slot = index(id.slot());
        let unread = current.head_end + taken..current.body_end;
        assert!(unread.start <= unread.end, "what was taken was at hand");
        let rest = current.next..current.end;
        let connection = &mut self.connections[slot];
        match current.source {
            Source::Buffer(buffer) => {
                if unread.is_empty() && rest.is_empty() {
                    self.ring.recycle(buffer);
                } else {
                    if connection.input.capacity() == 0 {
                        connection.input = self.areas.take();
                    }
                    let bytes = self.ring.bytes(buffer);
                    connection.input.extend_from_slice(&bytes[unread.clone()]);
                    connection.input.extend_from_slice(&bytes[rest]);
                    self.ring.recycle(buffer);
                }
                self.recycled_count += 1;
            }
            Source::Input => {
                connection.input.truncate(rest.end);
                connection.input.drain(unread.end..rest.start);
                connection.input.drain(..unread.start);
            }
        }
        let connection = &mut self.connections[slot];
        connection.is_body_complete = connection.exchange == Exchange::Handed;
        connection.unread_start = 0;
        connection.unread_bytes = unread.len();
        connection.body_bytes_max = body_bytes_max;
        connection.credit_bytes = self.limits.credit_bytes_max();
        connection.is_body_awaited = false;
        connection.exchange = Exchange::Streaming;
        self.reserve(slot, self.stream_bytes());
        self.settle(slot);
    }

    /// Says whether the connection shall end, with [`Event::Gone`], when its peer sends nothing more: for a
    /// response that pauses. Otherwise a peer that has ended its half is answered like any other.
    pub fn watch_peer(&mut self, id: ConnectionId, is_watched: bool) {
        let slot = index(id.slot());
        let connection = &mut self.connections[slot];
        if connection.id == id && connection.phase == Phase::Open {
            connection.is_peer_watched = is_watched;
            if is_watched && connection.has_peer_ended && connection.exchange.is_owed() {
                self.end(slot);
            }
        }
    }

    /// Tells what there is to read of a request's body. Where it is [`Unread::Later`], the peer is asked for
    /// it, and an event follows.
    pub fn unread(&mut self, id: ConnectionId) -> Unread {
        let slot = index(id.slot());
        let connection = &mut self.connections[slot];
        if connection.id != id || connection.phase != Phase::Open {
            return Unread::Later;
        }
        if connection.exchange != Exchange::Streaming {
            return Unread::End;
        }
        let at_hand = self.current.as_ref().filter(|current| current.id == id);
        let at_hand = at_hand.map_or(0, |current| current.body_end - current.head_end);
        let size = connection.unread_bytes + at_hand;
        if size > 0 {
            return Unread::Bytes(size);
        }
        if connection.is_body_complete {
            connection.exchange = Exchange::Deferred;
            return Unread::End;
        }
        connection.is_body_awaited = true;
        connection.awaited_since = self.now;
        if connection.expects_continue && !connection.reply.has_begun() {
            connection.expects_continue = false;
            if connection.output.capacity() == 0 {
                connection.output = self.areas.take();
            }
            connection.output.extend_from_slice(CONTINUE);
        }
        if self.current.is_none_or(|current| current.id != id) {
            self.settle(slot);
        }
        Unread::Later
    }

    /// Reads the next bytes of a body, as many as fit the target and [`Endpoint::unread`] told of.
    ///
    /// # Panics
    /// If there are fewer.
    pub fn read_body(&mut self, id: ConnectionId, target: &mut [u8]) {
        let slot = index(id.slot());
        let connection = &mut self.connections[slot];
        if connection.unread_bytes == 0 {
            let current = self.current.as_mut().expect("told of by `unread`");
            let Source::Buffer(buffer) = current.source else {
                unreachable!("a piece in the input is unread there");
            };
            let bytes = &self.ring.bytes(buffer)[current.head_end..current.body_end];
            target.copy_from_slice(&bytes[..target.len()]);
            current.head_end += target.len();
            return;
        }
        let (piece, start) = (target.len(), connection.unread_start);
        assert!(piece <= connection.unread_bytes, "no more than `unread` told of");
        target.copy_from_slice(&connection.input[start..start + piece]);
        connection.unread_start += piece;
        connection.unread_bytes -= piece;
        if connection.unread_bytes == 0 {
            drop_read(connection);
            if connection.input.is_empty() {
                let input = std::mem::take(&mut connection.input);
                self.areas.give(input);
            }
        }
        if !self.connections[slot].is_receiving {
            self.settle_receive(slot);
        }
    }

    /// Returns what came behind the body of a request, once that was read to its end; a body that came as a whole
    /// counts as read.
    #[must_use]
    pub fn trailers(&self, id: ConnectionId) -> Option<&Trailers> {
        static NONE: Trailers = Trailers::new();
        let connection = &self.connections[index(id.slot())];
        if connection.id != id || connection.phase != Phase::Open {
            return None;
        }
        let at_hand = self.current.as_ref().filter(|current| current.id == id);
        let at_hand = at_hand.map_or(0, |current| current.body_end - current.head_end);
        let is_read = match connection.exchange {
            Exchange::Streaming => {
                connection.is_body_complete && connection.unread_bytes + at_hand == 0
            }
            Exchange::Handed | Exchange::Deferred => true,
            _ => false,
        };
        is_read.then(|| match &connection.body {
            Body::Chunked(decoder) => decoder.trailers(),
            Body::Length(_) => &NONE,
        })
    }

    /// Takes received bytes of a streamed body.
    #[inline]
    pub(crate) fn take_piece(&mut self, slot: usize, buffer: BufferId, size: usize) {
        let connection = &mut self.connections[slot];
        let is_direct = connection.is_body_awaited && connection.input.is_empty();
        let decoded = if is_direct {
            decode(&mut connection.body, &mut self.ring.bytes_mut(buffer)[..size], 0)
        } else {
            drop_read(connection);
            let start = connection.unread_bytes;
            debug_assert_eq!(connection.input.len(), start, "nothing lies behind");
            if connection.input.capacity() == 0 {
                connection.input = self.areas.take();
            }
            connection.input.extend_from_slice(&self.ring.bytes(buffer)[..size]);
            self.recycle(buffer);
            let connection = &mut self.connections[slot];
            decode(&mut connection.body, &mut connection.input, start)
        };
        let connection = &mut self.connections[slot];
        let decoded = decoded.and_then(|decoded| {
            connection.add_body(decoded.written);
            if connection.body_bytes > connection.body_bytes_max {
                return Err(Refusal::BodyTooLarge);
            }
            Ok(decoded)
        });
        let decoded = match decoded {
            Ok(decoded) => decoded,
            Err(refusal) => {
                if is_direct {
                    self.recycle(buffer);
                }
                return self.break_stream(slot, refusal);
            }
        };
        if let Body::Chunked(decoder) = &self.connections[slot].body
            && decoder.trailers().bytes() > 0
            && !self.reserve_trailers(slot)
        {
            if is_direct {
                self.recycle(buffer);
            }
            return self.break_stream(slot, Refusal::BodiesFull);
        }
        self.renew_credit(slot, size);
        let connection = &mut self.connections[slot];
        connection.is_body_complete = decoded.is_complete;
        if is_direct {
            self.current = Some(Current {
                id: connection.id,
                source: Source::Buffer(buffer),
                start: 0,
                head_end: 0,
                body_end: decoded.written,
                next: decoded.read,
                end: size,
            });
        } else {
            let start = connection.unread_bytes;
            connection.unread_bytes += decoded.written;
            connection.input.drain(start + decoded.written..start + decoded.read);
        }
        if connection.is_body_awaited && (decoded.written > 0 || decoded.is_complete) {
            connection.is_body_awaited = false;
            self.pending.push_back(Event::Body(connection.id));
        }
        if !is_direct {
            self.settle(slot);
        }
    }

    /// Keeps what the host left of a piece.
    pub(crate) fn leave_piece(&mut self, current: Current) {
        let slot = index(current.id.slot());
        let connection = &mut self.connections[slot];
        let Source::Buffer(buffer) = current.source else {
            unreachable!("a piece in the input is unread there");
        };
        let bytes = self.ring.bytes(buffer);
        let unread = &bytes[current.head_end..current.body_end];
        let rest = &bytes[current.next..current.end];
        if !unread.is_empty() || !rest.is_empty() {
            if connection.input.capacity() == 0 {
                connection.input = self.areas.take();
            }
            connection.input.extend_from_slice(unread);
            connection.input.extend_from_slice(rest);
        }
        connection.unread_bytes += unread.len();
        self.recycle(buffer);
        self.settle(slot);
    }

    /// Ends an exchange whose body cannot be read on.
    #[cold]
    pub(crate) fn break_stream(&mut self, slot: usize, refusal: Refusal) {
        if self.connections[slot].reply.has_begun() {
            self.counters.refused[refusal.index()] += 1;
            self.end(slot);
        } else {
            self.refuse(slot, refusal);
        }
    }

    /// Waiting has used up credit, bytes have renewed it.
    fn renew_credit(&mut self, slot: usize, size: usize) {
        let connection = &mut self.connections[slot];
        if connection.is_body_awaited {
            let waited = self.now.saturating_sub(connection.awaited_since);
            let used = waited.saturating_mul(self.limits.body_bytes_per_tick_min);
            connection.credit_bytes = connection.credit_bytes.saturating_sub(used);
            connection.awaited_since = self.now;
        }
        let credit = connection.credit_bytes.saturating_add(wide(size));
        connection.credit_bytes = credit.min(self.limits.credit_bytes_max());
    }

    /// Begins a response whose body follows in pieces, `length` bytes in all or, without it, as many as come.
    /// As with [`Endpoint::respond`], framing and date are this crate's.
    ///
    /// # Errors
    /// [`Unsendable`] if a header or the status is not allowed; nothing was sent then.
    ///
    /// # Panics
    /// If a response has begun already.
    pub fn begin_response<'a>(
        &mut self,
        id: ConnectionId,
        status: u16,
        headers: impl Iterator<Item = (&'a [u8], &'a [u8])>,
        length: Option<u64>,
    ) -> Result<(), Unsendable> {
        let slot = index(id.slot());
        let connection = &mut self.connections[slot];
        if connection.id != id || connection.phase != Phase::Open || !connection.exchange.is_owed()
        {
            self.counters.responses_stale += 1;
            return Ok(());
        }
        assert!(!connection.reply.has_begun(), "a response begins once");
        let reply = match length {
            _ if status::is_bodiless(status) || connection.is_head_method => Reply::Bodiless,
            Some(length) => Reply::Length(length),
            None if connection.version_minor == 0 => Reply::UntilClose,
            None => Reply::Chunked,
        };
        connection.keep_alive &= !self.is_draining && reply != Reply::UntilClose;
        let circumstances = Circumstances {
            is_head: connection.is_head_method,
            version_minor: connection.version_minor,
            keep_alive: connection.keep_alive,
            is_chunked: reply == Reply::Chunked,
        };
        if connection.output.capacity() == 0 {
            connection.output = self.areas.take();
        }
        let (output, date) = (&mut connection.output, &self.date);
        response::encode_head(output, date, circumstances, status, headers, length)?;
        connection.reply = reply;
        if connection.exchange != Exchange::Streaming {
            self.reserve(slot, self.stream_bytes());
        }
        self.queue(slot);
        Ok(())
    }

    /// Sends a piece of a response that has begun, or the front of it.
    ///
    /// # Cost
    /// One copy. No system call: the next turn sends.
    pub fn write_response(&mut self, id: ConnectionId, piece: &[u8]) -> Written {
        let slot = index(id.slot());
        let connection = &mut self.connections[slot];
        if connection.id != id || connection.phase != Phase::Open || connection.reply == Reply::None
        {
            // Nobody is there who could read it; the event about that is on its way.
            return Written::Later;
        }
        if connection.reply == Reply::Bodiless || piece.is_empty() {
            return Written::Bytes(piece.len());
        }
        match connection.reply {
            Reply::Length(left) if left < wide(piece.len()) => return Written::TooLong,
            Reply::Ended => return Written::TooLong,
            _ => {}
        }
        let Some(size) = self.make_room(slot, piece.len()) else { return Written::Later };
        let connection = &mut self.connections[slot];
        let output = &mut connection.output;
        let piece = &piece[..size];
        match &mut connection.reply {
            Reply::Chunked => {
                response::write_chunk(output, piece);
            }
            Reply::Length(left) => {
                *left -= wide(size);
                output.extend_from_slice(piece);
            }
            _ => output.extend_from_slice(piece),
        }
        self.queue(slot);
        Written::Bytes(size)
    }

    /// Lets `fill` write up to `size_max` bytes of a response that has begun with its length: it gets room for
    /// them, and says how many it wrote. Less if there is less room.
    ///
    /// # Errors
    /// Those of `fill`; nothing was added then.
    ///
    /// # Cost
    /// The room is zeroed. No system call but those of `fill`: the next turn sends.
    pub fn fill_response<E>(
        &mut self,
        id: ConnectionId,
        size_max: usize,
        fill: impl FnOnce(&mut [u8]) -> Result<usize, E>,
    ) -> Result<Written, E> {
        let slot = index(id.slot());
        let connection = &mut self.connections[slot];
        let is_there = connection.id == id && connection.phase == Phase::Open;
        let Reply::Length(left) = connection.reply else { return Ok(Written::Later) };
        if !is_there {
            return Ok(Written::Later);
        }
        if left == 0 {
            return Ok(Written::TooLong);
        }
        let size = size_max.min(usize::try_from(left).unwrap_or(usize::MAX));
        let Some(size) = self.make_room(slot, size) else { return Ok(Written::Later) };
        let connection = &mut self.connections[slot];
        let output = &mut connection.output;
        let start = output.len();
        output.resize(start + size, 0);
        let filled = fill(&mut output[start..]);
        output.truncate(start + filled.as_ref().map_or(0, |filled| *filled));
        let filled = filled?;
        if let Reply::Length(left) = &mut connection.reply {
            *left -= wide(filled);
        }
        self.queue(slot);
        Ok(Written::Bytes(filled))
    }

    /// Makes room for a piece behind what a connection sends, and for its frame as a chunk. Returns how much of it
    /// has room; if none has, the host is told when there is some.
    fn make_room(&mut self, slot: usize, size: usize) -> Option<usize> {
        let connection = &mut self.connections[slot];
        let room = REPLY_BYTES_MAX.saturating_sub(connection.output.len() + CHUNK_FRAME_BYTES);
        let size = size.min(room);
        if size == 0 {
            connection.is_room_awaited = true;
            return None;
        }
        if connection.output.capacity() == 0 {
            connection.output = self.areas.take();
        }
        let output = &mut connection.output;
        if output.capacity() - output.len() < size + CHUNK_FRAME_BYTES {
            // One growth to the full size instead of several to beyond it.
            output.reserve_exact(REPLY_BYTES_MAX - output.len());
        }
        Some(size)
    }

    /// Ends the body of a response that has begun, with fields behind it. One that goes out in chunks carries those
    /// that may be trailers; others have no place for any (RFC 9110, 6.5.1), and for them this does nothing. The
    /// exchange is ended by [`Endpoint::end_response`].
    ///
    /// # Errors
    /// [`Unsendable`] if a name or a value has a byte that it cannot have; nothing was sent then.
    pub fn write_trailers<'a>(
        &mut self,
        id: ConnectionId,
        trailers: impl Iterator<Item = (&'a [u8], &'a [u8])> + Clone,
    ) -> Result<Written, Unsendable> {
        let slot = index(id.slot());
        let connection = &mut self.connections[slot];
        if connection.id != id || connection.phase != Phase::Open || connection.reply == Reply::None
        {
            // As in `write_response`.
            return Ok(Written::Later);
        }
        if connection.reply != Reply::Chunked {
            return Ok(Written::Bytes(0));
        }
        let size = trailers::last_chunk_bytes(trailers.clone());
        // What is longer than may ever wait goes out alone.
        if !connection.output.is_empty() && REPLY_BYTES_MAX < connection.output.len() + size {
            connection.is_room_awaited = true;
            return Ok(Written::Later);
        }
        if connection.output.capacity() == 0 {
            connection.output = self.areas.take();
        }
        trailers::write_last_chunk(&mut connection.output, trailers)?;
        connection.reply = Reply::Ended;
        self.queue(slot);
        Ok(Written::Bytes(size))
    }

    /// Ends a response that has begun. One that lacks bytes of the length that it told is cut, with its
    /// connection; returns false then.
    pub fn end_response(&mut self, id: ConnectionId) -> bool {
        let slot = index(id.slot());
        let connection = &mut self.connections[slot];
        if connection.id != id || connection.phase != Phase::Open || connection.reply == Reply::None
        {
            self.counters.responses_stale += 1;
            return true;
        }
        match connection.reply {
            Reply::Length(left) if left > 0 => {
                self.abort(id);
                return false;
            }
            Reply::Chunked => {
                if connection.output.capacity() == 0 {
                    connection.output = self.areas.take();
                }
                connection.output.extend_from_slice(LAST_CHUNK);
            }
            _ => {}
        }
        let keep_alive = connection.keep_alive && self.can_skip_body(slot);
        self.counters.responses += 1;
        self.settle_exchange(slot, keep_alive);
        true
    }

    /// Cuts a connection off in the middle of its response, so that its peer takes it for what it is.
    pub fn abort(&mut self, id: ConnectionId) {
        let slot = index(id.slot());
        let connection = &mut self.connections[slot];
        if connection.id == id && connection.phase == Phase::Open {
            // The host knows: no event is due.
            connection.exchange = Exchange::Idle;
            self.counters.responses_cut += 1;
            self.end(slot);
        }
    }

    /// Tells whether the connection can be kept although its request's body was not read to the end.
    pub(crate) fn can_skip_body(&self, slot: usize) -> bool {
        let connection = &self.connections[slot];
        match connection.exchange {
            Exchange::Refused => false,
            // A body that nobody wants: skipped if it is short and on its way, else the connection ends.
            Exchange::Streaming if connection.is_body_complete => true,
            Exchange::Offered | Exchange::Streaming => match connection.body {
                Body::Length(left) => {
                    left <= self.settings.discard_bytes_max && !connection.expects_continue
                }
                Body::Chunked(_) => false,
            },
            _ => true,
        }
    }

    /// A response was given as a whole: what follows in the exchange.
    #[inline]
    pub(crate) fn settle_exchange(&mut self, slot: usize, keep_alive: bool) {
        let connection = &mut self.connections[slot];
        let exchange = connection.exchange;
        let is_skipping = match exchange {
            Exchange::Offered => keep_alive,
            Exchange::Streaming => {
                drop_read(connection);
                connection.input.drain(..connection.unread_bytes);
                connection.unread_bytes = 0;
                connection.is_body_awaited = false;
                keep_alive && !connection.is_body_complete
            }
            _ => false,
        };
        connection.is_last = !keep_alive;
        connection.since = self.now;
        connection.body_bytes = 0;
        connection.reply = Reply::None;
        connection.is_peer_watched = false;
        connection.is_room_awaited = false;
        connection.exchange = if is_skipping { Exchange::Discard } else { Exchange::Idle };
        let id = connection.id;
        if connection.reserved_bytes > 0 {
            self.unreserve(slot);
        }
        if self.current.is_none_or(|current| current.id != id) {
            self.queue(slot);
        }
    }

    /// Tells a host that waits for it that there is room.
    #[inline]
    pub(crate) fn tell_room(&mut self, slot: usize) {
        let connection = &mut self.connections[slot];
        if connection.is_room_awaited && connection.output.is_empty() {
            connection.is_room_awaited = false;
            self.pending.push_back(Event::Room(connection.id));
        }
    }

    /// Returns what an exchange in pieces may hold.
    const fn stream_bytes(&self) -> u64 {
        (self.settings.body_window_bytes + 2 * REPLY_BYTES_MAX) as u64
    }

    /// Takes what the trailers of a stream need of the budget, beside what it has; false if that has no room.
    #[cold]
    fn reserve_trailers(&mut self, slot: usize) -> bool {
        let Body::Chunked(decoder) = &self.connections[slot].body else { return true };
        let bytes = wide(decoder.trailers().bytes());
        self.reserve_up_to(slot, self.stream_bytes() + bytes)
    }

    /// Takes as much of the budget of bodies as a connection keeps; false if that has no room.
    pub(crate) fn reserve_up_to(&mut self, slot: usize, bytes: u64) -> bool {
        let missing = bytes.saturating_sub(self.connections[slot].reserved_bytes);
        if missing == 0 {
            return true;
        }
        if self.bodies_bytes + missing > self.settings.bodies_bytes_max {
            return false;
        }
        self.reserve(slot, missing);
        true
    }

    /// Takes bytes of the budget of bodies.
    pub(crate) fn reserve(&mut self, slot: usize, bytes: u64) {
        self.connections[slot].reserved_bytes += bytes;
        self.bodies_bytes += bytes;
        self.counters.bodies_bytes = self.bodies_bytes;
    }

    /// Gives a connection's share of the budget back. Trailers, which have a part of it, are gone then.
    pub(crate) fn unreserve(&mut self, slot: usize) {
        let connection = &mut self.connections[slot];
        if let Body::Chunked(decoder) = &mut connection.body {
            drop(decoder.take_trailers());
        }
        self.bodies_bytes -= std::mem::take(&mut connection.reserved_bytes);
        self.counters.bodies_bytes = self.bodies_bytes;
    }
}

/// Drops what was read from the front of the input.
fn drop_read(connection: &mut Connection) {
    if connection.unread_start > 0 {
        let start = std::mem::take(&mut connection.unread_start);
        connection.input.drain(..start);
    }
}

/// Decodes a body where it lies, from `start` to the end of `bytes`.
fn decode(body: &mut Body, bytes: &mut [u8], start: usize) -> Result<Decoded, Refusal> {
    match body {
        Body::Length(left) => {
            let size = (bytes.len() - start).min(usize::try_from(*left).unwrap_or(usize::MAX));
            *left -= wide(size);
            Ok(Decoded { read: size, written: size, is_complete: *left == 0 })
        }
        Body::Chunked(decoder) => decoder.decode(bytes, start, start),
    }
}
