//! One worker's network: take a turn, pull events, respond.
//!
//! ```text
//!   turn:        submit what is queued --- one enter --- what time is it --- whose deadline came
//!   next_event:  the connection at hand, then those to go on with, then deadlines, then completions
//!                one by one, until one of them is the host's business
//! ```
//!
//! Completions are taken one at a time, so a request is looked at in the buffer it was received in, and that
//! buffer is back in the pool when the host asks for what comes next.
//!
//! Invariants: at most one connection is at hand; a turn handles a bounded number of completions; nothing is
//! sent or armed but by `settle` (in `send.rs`), which derives it from the connection's state.
//! Not here: sockets (`accept.rs`), parsing (`receive.rs`), sending (`send.rs`), ending (`close.rs`).
//! Hot path: `turn`, `next_event`, `request`, `respond`.

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::time::Duration;

use crate::accept::Acceptor;
use crate::areas::Areas;
use crate::balance::Neighbours;
use crate::clock::Clock;
use crate::connection::{Connection, Exchange, Phase, Ticks};
use crate::counters::Counters;
use crate::http::refusal::Refusal;
use crate::http::request::Head;
use crate::http::response::{self, Circumstances, DateLine};
use crate::listen::Listeners;
use crate::outgoing::{self, Outgoing};
use crate::ring::{BufferId, Completed, Completion, ConnectionId, Operation, Ring, Wait};
use crate::settings::Settings;
use crate::shed::{Shedder, Sources};
use crate::timers::{TICK, Tick, Wheel, tick_at};
use crate::width::index;

/// What happened that the host must know of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// A request is complete. The host responds or defers before it asks for the next event; if it does
    /// neither, the request counts as deferred.
    Request(ConnectionId),
    /// A head is complete, its body is not. The host admits a body or responds before it asks for the next
    /// event; if it does neither, no body is admitted.
    Head(ConnectionId),
    /// A request was refused. The host responds; the connection closes afterwards.
    Refused(ConnectionId, Refusal),
    /// The peer vanished while the host owed it a response.
    Gone(ConnectionId),
    /// There is more of a body that the host waits for, or its end.
    Body(ConnectionId),
    /// There is room for more of a response that the host waits for.
    Room(ConnectionId),
    /// The event of [`Endpoint::watch`] was signalled.
    Woken,
    /// What a fetch of this owner was waited for may be there.
    Fetch(u64),
}

/// A request, where it was received.
#[derive(Debug, Clone, Copy)]
pub struct RequestView<'a> {
    /// The head's bytes, from the method to the empty line; header names are in lower case.
    pub bytes: &'a [u8],
    /// What they say.
    pub head: &'a Head,
    /// The decoded body; what has arrived of it, for [`Event::Head`].
    pub body: &'a [u8],
    /// Address of the peer, where it is known; of the client, where a proxy told it.
    pub peer: Option<SocketAddr>,
    /// The connection came over a Unix socket.
    pub is_local: bool,
}

impl<'a> RequestView<'a> {
    /// Returns the values of the header lines of a name, which is in lower case.
    pub fn values(&self, name: &'a [u8]) -> impl DoubleEndedIterator<Item = &'a [u8]> + use<'a> {
        let bytes = self.bytes;
        let lines = self.head.headers().iter();
        lines.filter(move |line| line.name.of(bytes) == name).map(move |line| line.value.of(bytes))
    }
}

/// Where the bytes at hand lie.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Source {
    /// In the receive buffer that the kernel filled.
    Buffer(BufferId),
    /// In the connection's own input.
    Input,
}

/// The connection at hand and how far its bytes were understood.
///
/// ```text
///   | done | head | body | gap | not looked at yet |
///          start  head_end     next                end
///                        body_end
/// ```
#[derive(Debug, Clone, Copy)]
pub(crate) struct Current {
    pub(crate) id: ConnectionId,
    pub(crate) source: Source,
    pub(crate) start: usize,
    pub(crate) head_end: usize,
    pub(crate) body_end: usize,
    pub(crate) next: usize,
    pub(crate) end: usize,
}

impl Current {
    pub(crate) const fn new(id: ConnectionId, source: Source, end: usize) -> Self {
        Self { id, source, start: 0, head_end: 0, body_end: 0, next: 0, end }
    }
}

/// One worker's network.
#[derive(Debug)]
pub struct Endpoint<R: Ring, C: Clock> {
    pub(crate) ring: R,
    pub(crate) clock: C,
    pub(crate) settings: Settings,
    pub(crate) limits: Ticks,
    /// Those that the slots had so far: memory of slots that nobody needs is not touched.
    pub(crate) connections: Vec<Connection>,
    pub(crate) connection_count: u32,
    pub(crate) acceptor: Acceptor,
    pub(crate) shedder: Shedder,
    pub(crate) sources: Sources,
    pub(crate) wheel: Wheel,
    elapsed: Duration,
    pub(crate) now: Tick,
    pub(crate) date: DateLine,
    pub(crate) areas: Areas,
    /// The head of the request at hand.
    pub(crate) head: Box<Head>,
    pub(crate) current: Option<Current>,
    /// Events that were found on the way to another.
    pub(crate) pending: VecDeque<Event>,
    /// Connections to go on with: answered late, or drained.
    pub(crate) ready: VecDeque<ConnectionId>,
    /// Connections whose receive found no buffer.
    pub(crate) starved: VecDeque<ConnectionId>,
    /// Buffers given back since the starved were last served.
    pub(crate) recycled_count: u32,
    /// When those were served who stood in line first, whatever had come back.
    pub(crate) starved_served: Tick,
    expired: Vec<u32>,
    completions_left: u32,
    pub(crate) is_draining: bool,
    /// Taken of the budget of bodies.
    pub(crate) bodies_bytes: u64,
    pub(crate) counters: Counters,
    /// Workers that share the addresses.
    pub(crate) neighbours: Option<Neighbours>,
    /// Requests to other servers, and the slot from which on sockets are theirs.
    pub(crate) outgoing: Outgoing,
    outgoing_start: u32,
}

impl<R: Ring, C: Clock> Endpoint<R, C> {
    /// Makes an endpoint that accepts from `listeners`.
    ///
    /// # Errors
    /// If a setting is out of bounds, or there are other listeners than it says.
    pub fn new(
        mut ring: R,
        mut clock: C,
        listeners: impl Into<Listeners>,
        settings: Settings,
    ) -> io::Result<Self> {
        settings.check().map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))?;
        let Listeners(listeners) = listeners.into();
        if listeners.len() != index(settings.listeners) {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "another number of listeners"));
        }
        let slots = settings.slots();
        let elapsed = clock.elapsed();
        let now = tick_at(elapsed);
        let date = DateLine::new(clock.unix_seconds());
        let acceptor = Acceptor::new(&listeners);
        for listener in listeners {
            ring.listen(listener.into_socket());
        }
        Ok(Self {
            ring,
            clock,
            limits: Ticks::new(&settings),
            connections: Vec::with_capacity(index(slots)),
            connection_count: 0,
            acceptor,
            shedder: Shedder::default(),
            sources: Sources::new(settings.connections_per_source_max, slots),
            wheel: Wheel::new(slots, now),
            elapsed,
            now,
            date,
            areas: Areas::new(),
            head: Box::default(),
            current: None,
            pending: VecDeque::with_capacity(index(slots)),
            ready: VecDeque::with_capacity(index(slots)),
            starved: VecDeque::with_capacity(index(slots)),
            recycled_count: 0,
            starved_served: now,
            expired: Vec::with_capacity(index(slots)),
            completions_left: 0,
            is_draining: false,
            bodies_bytes: 0,
            counters: Counters::default(),
            neighbours: None,
            outgoing: Outgoing::new(slots, settings.outgoing_max),
            outgoing_start: slots,
            settings,
        })
    }

    /// Watches an eventfd: whenever another thread signals it, [`Event::Woken`] follows.
    ///
    /// # Panics
    /// If an event is watched already.
    pub fn watch(&mut self, event: OwnedFd) {
        self.ring.watch(event);
        self.ring.push(Operation::Wake);
    }

    /// Submits what is queued and lets the kernel run; sleeps if asked to and nothing is left to do.
    ///
    /// # Errors
    /// If the ring fails: nothing can be done then but to end the worker.
    ///
    /// # Cost
    /// At most one system call, but where the submission queue overflowed.
    pub fn turn(&mut self, wait: Wait) -> io::Result<()> {
        self.turn_within(wait, None)
    }

    /// Takes a turn that sleeps no longer than `limit`.
    ///
    /// # Errors
    /// As [`Endpoint::turn`].
    pub fn turn_within(&mut self, wait: Wait, limit: Option<Duration>) -> io::Result<()> {
        for position in 0..self.ready.len() {
            self.flush(index(self.ready[position].slot()));
        }
        self.accept_if_due();
        self.publish_load();
        self.serve_starved();
        if self.outgoing.is_starved() {
            self.serve_outgoing(Outgoing::serve_starved);
        }
        let wait = if self.has_work() { Wait::Poll } else { wait };
        let timeout = match wait {
            Wait::Poll => None,
            Wait::Block => match (self.time_to_deadline(), limit) {
                (Some(deadline), Some(limit)) => Some(deadline.min(limit)),
                (deadline, limit) => deadline.or(limit),
            },
        };
        self.ring.enter(wait, timeout)?;
        self.counters.enters = self.ring.enters();
        self.completions_left = self.settings.completions_per_turn;
        self.elapsed = self.clock.elapsed();
        let now = tick_at(self.elapsed);
        if now != self.now {
            self.now = now;
            self.date.update(self.clock.unix_seconds());
            self.wheel.advance(now, &mut self.expired);
            self.serve_outgoing(Outgoing::tick);
        }
        Ok(())
    }

    /// Returns the next event of this turn.
    pub fn next_event(&mut self) -> Option<Event> {
        loop {
            if let Some(event) = self.pending.pop_front() {
                return Some(event);
            }
            if let Some(current) = self.current.take() {
                if let Some(event) = self.proceed(current) {
                    return Some(event);
                }
            } else if let Some(id) = self.ready.pop_front() {
                self.resume(id);
            } else if let Some(slot) = self.expired.pop() {
                self.expire(index(slot));
            } else if self.completions_left > 0
                && let Some(completion) = self.ring.next_completion()
            {
                self.completions_left -= 1;
                self.counters.completions += 1;
                if let Some(event) = self.complete(completion) {
                    return Some(event);
                }
            } else {
                return None;
            }
        }
    }

    /// Returns the request at hand.
    ///
    /// # Panics
    /// If `id` isn't that of the last [`Event::Request`] or [`Event::Head`], or it was responded to,
    /// deferred or admitted since.
    #[must_use]
    pub fn request(&self, id: ConnectionId) -> RequestView<'_> {
        let current = self.current.as_ref().expect("a request is at hand until it was settled");
        assert!(current.id == id, "the request at hand is another connection's");
        let connection = &self.connections[index(id.slot())];
        let bytes = match current.source {
            Source::Buffer(buffer) => self.ring.bytes(buffer),
            Source::Input => connection.input.as_slice(),
        };
        RequestView {
            bytes: &bytes[current.start..current.head_end],
            head: &self.head,
            body: &bytes[current.head_end..current.body_end],
            peer: connection.peer,
            is_local: connection.is_local,
        }
    }

    /// Gives the bytes of a request back; its response comes in a later turn.
    pub fn defer(&mut self, id: ConnectionId) {
        let connection = &mut self.connections[index(id.slot())];
        if connection.id == id && connection.exchange == Exchange::Handed {
            connection.exchange = Exchange::Deferred;
        }
    }

    /// Answers a request, a head or a refusal.
    ///
    /// Date, length and connection are told by this crate, and the host's lines about them left out. A
    /// connection that has gone is passed over; that is counted.
    ///
    /// # Cost
    /// Copies head and body behind what the connection has to send. No system call: the next turn sends.
    pub fn respond<'a>(
        &mut self,
        id: ConnectionId,
        status: u16,
        headers: impl Iterator<Item = (&'a [u8], &'a [u8])>,
        body: &[u8],
    ) {
        let slot = index(id.slot());
        let connection = &mut self.connections[slot];
        let exchange = connection.exchange;
        if connection.id != id || connection.phase != Phase::Open || !exchange.is_owed() {
            self.counters.responses_stale += 1;
            return;
        }
        assert!(!connection.reply.has_begun(), "a response that has begun is ended in its own way");
        let can_go_on = self.can_skip_body(slot);
        let connection = &mut self.connections[slot];
        let keep_alive = can_go_on && connection.keep_alive && !self.is_draining;
        let circumstances = Circumstances {
            is_head: connection.is_head_method,
            version_minor: connection.version_minor,
            keep_alive,
            is_chunked: false,
        };
        if connection.output.capacity() == 0 {
            connection.output = self.areas.take();
        }
        let output = &mut connection.output;
        let encoded = response::encode(output, &self.date, circumstances, status, headers, body);
        if encoded.is_err() {
            self.counters.responses_unsendable += 1;
        }
        self.counters.responses += 1;
        self.settle_exchange(slot, keep_alive);
    }

    /// Stops accepting for good and closes the listeners.
    pub fn stop_accepting(&mut self) {
        self.stop_accepts();
    }

    /// Closes the connections that are between two requests.
    pub fn close_idle(&mut self) {
        for slot in 0..self.connections.len() {
            let connection = &self.connections[slot];
            if connection.phase == Phase::Open
                && matches!(connection.exchange, Exchange::Idle | Exchange::Preface)
                && connection.input.is_empty()
                && connection.output.is_empty()
                && !connection.is_sending
                && self.current.is_none_or(|current| current.id != connection.id)
            {
                self.shut(slot);
            }
        }
    }

    /// From now on every response says `Connection: close` and ends its connection.
    pub fn drain(&mut self) {
        self.is_draining = true;
    }

    /// Returns how many connections there are, in whatever state.
    #[must_use]
    pub fn connection_count(&self) -> u32 {
        self.connection_count
    }

    /// Returns the numbers counted so far.
    #[must_use]
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// Returns the ring.
    #[must_use]
    pub fn ring(&self) -> &R {
        &self.ring
    }

    /// Lends the requests to other servers what they work with.
    pub(crate) fn serve_outgoing<T>(
        &mut self,
        action: impl FnOnce(&mut Outgoing, &mut outgoing::Io<'_, R>) -> T,
    ) -> T {
        let mut io = outgoing::Io {
            ring: &mut self.ring,
            events: &mut self.pending,
            counters: &mut self.counters,
            now: self.elapsed,
        };
        action(&mut self.outgoing, &mut io)
    }

    fn complete(&mut self, completion: Completion) -> Option<Event> {
        match completion.completed {
            Completed::Receive | Completed::Send | Completed::Close
                if completion.id.slot() >= self.outgoing_start =>
            {
                self.serve_outgoing(|outgoing, io| outgoing.complete(io, completion));
            }
            Completed::Receive => self.received(completion),
            Completed::Send => self.sent(completion),
            Completed::Accept => self.accepted(completion),
            Completed::Arrive => self.arrived(completion),
            Completed::Pass => self.passed(completion),
            Completed::Install => self.installed(completion),
            Completed::Shutdown => self.shut_down(completion),
            Completed::Close => self.closed(completion),
            Completed::Wake => {
                self.ring.push(Operation::Wake);
                self.counters.wakes += 1;
                return Some(Event::Woken);
            }
            Completed::Nothing => {}
        }
        None
    }

    /// Tells whether there is something to do without the kernel's help.
    fn has_work(&mut self) -> bool {
        self.current.is_some()
            || !self.pending.is_empty()
            || !self.ready.is_empty()
            || !self.expired.is_empty()
            || self.ring.has_completion()
    }

    /// Returns how long a turn may sleep.
    fn time_to_deadline(&self) -> Option<Duration> {
        let mut next = self.wheel.next_tick();
        if let Some(retry) = self.accept_retry() {
            next = Some(next.map_or(retry, |next| next.min(retry)));
        }
        if !self.starved.is_empty() {
            next = Some(self.now + 1);
        }
        let ticks = next.map(|ticks| TICK * u32::try_from(ticks).unwrap_or(u32::MAX));
        let next = match (ticks, self.outgoing.next_due()) {
            // A tick later, for it is looked after once a tick.
            (ticks, Some(due)) => ticks.map_or(due + TICK, |ticks| ticks.min(due + TICK)),
            (ticks, None) => ticks?,
        };
        Some(next.saturating_sub(self.elapsed))
    }

    /// Takes note that a connection can go on.
    pub(crate) fn queue(&mut self, slot: usize) {
        let connection = &mut self.connections[slot];
        if !connection.is_queued {
            connection.is_queued = true;
            self.ready.push_back(connection.id);
        }
    }

    /// Gives a receive buffer back.
    #[inline]
    pub(crate) fn recycle(&mut self, buffer: BufferId) {
        self.ring.recycle(buffer);
        self.recycled_count += 1;
    }

    /// Returns the slot that a completion is about, if it still has that connection.
    #[inline]
    pub(crate) fn live(&mut self, id: ConnectionId) -> Option<usize> {
        let slot = index(id.slot());
        let connection = self.connections.get(slot);
        if connection
            .is_some_and(|connection| connection.id == id && connection.phase != Phase::Free)
        {
            return Some(slot);
        }
        self.counters.completions_stale += 1;
        None
    }

    /// Does what a passed deadline asks for.
    #[cold]
    fn expire(&mut self, slot: usize) {
        let connection = &mut self.connections[slot];
        let Some(deadline) = connection.deadline(&self.limits) else { return };
        if deadline > self.now {
            self.wheel.set(connection.id.slot(), deadline);
            return;
        }
        match (connection.phase, connection.exchange) {
            (Phase::Lingering, _) => {
                self.counters.timeouts_linger += 1;
                self.end(slot);
            }
            (Phase::Open, Exchange::Streaming)
                if connection
                    .is_body_late_at(&self.limits)
                    .is_some_and(|late| late <= self.now) =>
            {
                self.counters.timeouts_body += 1;
                self.break_stream(slot, Refusal::RequestTimeout);
            }
            (Phase::Open, _) if connection.is_sending => {
                self.counters.timeouts_write += 1;
                self.end(slot);
            }
            (Phase::Open, Exchange::Preface) => {
                self.counters.timeouts_header += 1;
                self.end(slot);
            }
            (Phase::Open, Exchange::Idle) => {
                self.counters.timeouts_idle += 1;
                self.end(slot);
            }
            // An empty line after a request (RFC 9112, 2.2) doesn't begin another that could be answered.
            (Phase::Open, Exchange::Head)
                if connection.input.iter().all(|byte| b"\r\n".contains(byte)) =>
            {
                self.counters.timeouts_idle += 1;
                self.end(slot);
            }
            (Phase::Open, Exchange::Head) => {
                self.counters.timeouts_header += 1;
                self.refuse_late_head(slot);
            }
            (Phase::Open, Exchange::Body) => {
                self.counters.timeouts_body += 1;
                self.refuse(slot, Refusal::RequestTimeout);
            }
            _ => self.end(slot),
        }
    }
}

#[cfg(any(test, fuzzing))]
#[path = "../../fuzz/checks/connection.rs"]
pub mod check; // whole scripts against the machine, for `fuzz/`
#[cfg(any(test, fuzzing))]
mod invariants; // what holds between two turns
#[cfg(test)]
mod mutation;
#[cfg(test)]
mod sim;
#[cfg(test)]
mod tests;
