//! The state of one connection, and what follows from it.
//!
//! Two machines side by side. The phase says what the socket is good for:
//!
//! ```text
//!   Free --accepted--> Opening --peer known--> Open --last response sent--> Lingering
//!    ^                                          |  error, deadline            | peer closed, limit, deadline
//!    |                                          v                             v
//!    +----- close completed --- Closing <---- Ending (waits for the last completions)
//! ```
//!
//! The exchange says where in a request we are, while the phase is `Open`:
//!
//! ```text
//!            +------------------------- respond -----------------------------+
//!            v                                                               |
//!   Idle --bytes--> Head --complete--> Handed ------ defer ------> Deferred -+
//!            |       |                   ^                                   |
//!            |       +--body missing--> Offered --admit--> Body --complete   |
//!            |       |                   |                  |  (to Handed)   |
//!            |       |                   +--respond--> Discard --skipped--> Idle
//!            |       |                   +--stream--> Streaming --body read--> Deferred
//!            |       +--malformed, late--+------------------+--> Refused ----+
//! ```
//!
//! While the host owes a response, it may give it in pieces; how far that has come stands beside ([`Reply`]).
//!
//! Invariants: one send is under way at a time; a slot is freed after the last completion of its socket; an
//! idle connection holds neither a receive buffer nor an area.

use std::net::SocketAddr;

use crate::http::chunked::Decoder;
use crate::http::request::{Framing, Head, Method};
use crate::ring::ConnectionId;
use crate::settings::Settings;
use crate::timers::Tick;
use crate::width::wide;

/// What the socket is good for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Phase {
    /// No socket.
    Free,
    /// Accepted; its peer is being asked for.
    Opening,
    /// Requests and responses.
    Open,
    /// Our end is shut; what still comes is dropped.
    Lingering,
    /// Nothing more is wanted; last completions are waited for.
    Ending,
    /// The close is under way.
    Closing,
}

/// Where in a request we are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Exchange {
    /// Between requests. Input, if there is any, was not looked at.
    Idle,
    /// A proxy says who the client is, before the first request.
    Preface,
    /// A head has begun.
    Head,
    /// The host was told of a head and decides about its body.
    Offered,
    /// An admitted body is arriving.
    Body,
    /// The host has the request, in this turn.
    Handed,
    /// The host owes the response and needs the bytes no more.
    Deferred,
    /// The host has the request, and reads the body as it comes.
    Streaming,
    /// The host owes the response to a refusal.
    Refused,
    /// The response was given; the rest of the body is skipped.
    Discard,
}

impl Exchange {
    /// True while the host owes a response.
    pub(crate) const fn is_owed(self) -> bool {
        matches!(
            self,
            Self::Offered | Self::Handed | Self::Deferred | Self::Streaming | Self::Refused
        )
    }
}

/// How far a response has come that is given in pieces.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reply {
    /// It hasn't begun.
    None,
    /// Its pieces are chunks.
    Chunked,
    /// So many bytes are missing of the length that its head told.
    Length(u64),
    /// It lasts until the connection ends.
    UntilClose,
    /// It has no body: what is written of one is dropped.
    Bodiless,
    /// Its last chunk was written, and the trailers with it.
    Ended,
}

impl Reply {
    pub(crate) const fn has_begun(self) -> bool {
        !matches!(self, Self::None)
    }
}

/// A body between two pieces.
#[derive(Debug)]
pub(crate) enum Body {
    /// Told by its length; bytes that are missing.
    Length(u64),
    /// In chunks.
    Chunked(Decoder),
}

/// One slot of the table.
#[derive(Debug)]
pub(crate) struct Connection {
    pub(crate) id: ConnectionId,
    pub(crate) phase: Phase,
    pub(crate) exchange: Exchange,

    /// A receive is armed.
    pub(crate) is_receiving: bool,
    /// That receive was asked to stop.
    pub(crate) is_receive_cancelled: bool,
    /// It found no buffer and waits for one.
    pub(crate) is_starved: bool,
    /// A send is under way; its bytes are with the ring.
    pub(crate) is_sending: bool,
    /// An install or a shutdown is under way.
    pub(crate) is_asking: bool,
    /// It stands in the queue of connections to go on with.
    pub(crate) is_queued: bool,
    /// It counts as one of its source.
    pub(crate) is_counted: bool,
    /// It came over a Unix socket.
    pub(crate) is_local: bool,
    /// The peer sends nothing more.
    pub(crate) has_peer_ended: bool,
    /// No request is taken after the present one.
    pub(crate) is_last: bool,

    /// The present request is a HEAD.
    pub(crate) is_head_method: bool,
    /// The peer asked for the end with the present request: it sends nothing behind it (RFC 9112, 9.6).
    pub(crate) has_asked_for_end: bool,
    /// The peer of the present request wants to go on.
    pub(crate) keep_alive: bool,
    /// The present request waits for `100 Continue`.
    pub(crate) expects_continue: bool,
    pub(crate) version_minor: u8,

    /// The streamed body has arrived as a whole.
    pub(crate) is_body_complete: bool,
    /// The host wants to be told when there is more of the streamed body.
    pub(crate) is_body_awaited: bool,
    /// The host wants to be told when there is room for more of its response.
    pub(crate) is_room_awaited: bool,
    /// The host wants the connection to end when its peer sends nothing more.
    pub(crate) is_peer_watched: bool,
    pub(crate) reply: Reply,
    /// Size of the streamed body in `input` that was not read yet, and where it starts.
    pub(crate) unread_bytes: usize,
    pub(crate) unread_start: usize,
    /// Share of the budget of bodies.
    pub(crate) reserved_bytes: u64,
    /// Bytes that a streamed body may come late by, and since when it is waited for.
    pub(crate) credit_bytes: u64,
    pub(crate) awaited_since: Tick,

    pub(crate) requests: u32,
    /// Size of the head at the start of `input`, while a body arrives; of what was parsed of it, before.
    pub(crate) head_bytes: u32,
    /// Start of what the present deadline is about: a head, a body, a linger, a send's last progress.
    pub(crate) since: Tick,
    /// Size of the body that has arrived; bytes dropped, while lingering.
    pub(crate) body_bytes: u64,
    /// Size of the body that the host admitted.
    pub(crate) body_bytes_max: u64,
    pub(crate) body: Body,

    /// Received bytes that outlive their turn.
    pub(crate) input: Vec<u8>,
    /// Responses not given to the ring yet.
    pub(crate) output: Vec<u8>,
    /// Bytes with the ring, and how many of them were sent.
    pub(crate) sending_bytes: usize,
    pub(crate) sent_bytes: usize,
    pub(crate) peer: Option<SocketAddr>,
}

/// Ten thousand idle connections fit 5 MiB; the goal for all of their memory is 1 KiB each.
pub(crate) const CONNECTION_SIZE_MAX: usize = 512;
const _: () = assert!(size_of::<Connection>() <= CONNECTION_SIZE_MAX);

impl Connection {
    /// A slot without a socket.
    pub(crate) fn free(slot: u32) -> Self {
        Self::with_id(ConnectionId::new(slot, 0))
    }

    fn with_id(id: ConnectionId) -> Self {
        Self {
            id,
            phase: Phase::Free,
            exchange: Exchange::Idle,
            is_receiving: false,
            is_receive_cancelled: false,
            is_starved: false,
            is_sending: false,
            is_asking: false,
            is_queued: false,
            is_counted: false,
            is_local: false,
            has_peer_ended: false,
            is_last: false,
            is_head_method: false,
            has_asked_for_end: false,
            keep_alive: true,
            expects_continue: false,
            version_minor: 1,
            is_body_complete: false,
            is_body_awaited: false,
            is_room_awaited: false,
            is_peer_watched: false,
            reply: Reply::None,
            unread_bytes: 0,
            unread_start: 0,
            reserved_bytes: 0,
            credit_bytes: 0,
            awaited_since: 0,
            requests: 0,
            head_bytes: 0,
            since: 0,
            body_bytes: 0,
            body_bytes_max: 0,
            body: Body::Length(0),
            input: Vec::new(),
            output: Vec::new(),
            sending_bytes: 0,
            sent_bytes: 0,
            peer: None,
        }
    }

    /// Frees the slot for its next socket; returns the areas it held.
    pub(crate) fn release(&mut self) -> [Vec<u8>; 2] {
        let old = std::mem::replace(self, Self::with_id(self.id.next()));
        [old.input, old.output]
    }

    /// Takes note of what a complete head says about its exchange.
    #[inline]
    pub(crate) fn begin(&mut self, head: &Head, settings: &Settings) {
        self.requests += 1;
        self.is_head_method = head.method == Method::Head;
        self.has_asked_for_end = !head.keep_alive;
        self.keep_alive = head.keep_alive && self.requests < settings.requests_per_connection_max;
        self.expects_continue = head.expects_continue;
        self.version_minor = head.version_minor;
        self.body_bytes = 0;
        self.body = match head.framing {
            Framing::None => Body::Length(0),
            Framing::Length(length) => Body::Length(length),
            Framing::Chunked => Body::Chunked(Decoder::new()),
        };
    }

    /// Returns the bytes of responses that the kernel has not taken.
    #[inline]
    pub(crate) fn unsent_bytes(&self) -> usize {
        self.output.len() + self.sending_bytes - self.sent_bytes
    }

    /// Tells whether the next request may be looked at.
    #[inline]
    pub(crate) fn may_go_on(&self, settings: &Settings) -> bool {
        !self.is_last && self.unsent_bytes() < settings.unsent_bytes_max
    }

    /// Tells whether more bytes from the peer are welcome.
    #[inline]
    pub(crate) fn wants_bytes(&self, settings: &Settings) -> bool {
        if self.has_peer_ended {
            return false;
        }
        match self.phase {
            Phase::Lingering => true,
            Phase::Open => match self.exchange {
                Exchange::Body | Exchange::Discard => true,
                Exchange::Streaming if !self.is_body_complete => {
                    self.unread_bytes < settings.body_window_bytes
                }
                // Bounded by their own limits, which may be above that of the next arm.
                Exchange::Preface | Exchange::Head => {
                    self.unsent_bytes() < settings.unsent_bytes_max
                }
                _ => {
                    self.unsent_bytes() < settings.unsent_bytes_max
                        && self.input.len() < settings.pipelined_bytes_max
                }
            },
            Phase::Free | Phase::Opening | Phase::Ending | Phase::Closing => false,
        }
    }

    /// Tells whether nothing of the kernel's refers to the socket any more.
    pub(crate) fn is_quiet(&self) -> bool {
        !self.is_receiving && !self.is_sending && !self.is_asking
    }

    /// Returns when the present state has lasted too long, or `None` if it may last.
    #[inline]
    pub(crate) fn deadline(&self, limits: &Ticks) -> Option<Tick> {
        match self.phase {
            Phase::Free | Phase::Closing | Phase::Opening => None,
            Phase::Ending => Some(self.since + limits.ending),
            Phase::Lingering => Some(self.since + limits.linger),
            Phase::Open if self.exchange == Exchange::Streaming => {
                let send = self.is_sending.then_some(self.since + limits.write);
                let body = self.is_body_late_at(limits);
                match (send, body) {
                    (Some(send), Some(body)) => Some(send.min(body)),
                    (send, body) => send.or(body),
                }
            }
            Phase::Open if self.is_sending => Some(self.since + limits.write),
            Phase::Open => match self.exchange {
                Exchange::Idle if self.requests > 0 => Some(self.since + limits.idle),
                Exchange::Idle | Exchange::Preface | Exchange::Head => {
                    Some(self.since + limits.header)
                }
                Exchange::Body | Exchange::Discard => {
                    let earned = self.body_bytes / limits.body_bytes_per_tick_min;
                    Some(self.since + limits.body_grace + earned)
                }
                Exchange::Offered
                | Exchange::Handed
                | Exchange::Deferred
                | Exchange::Streaming
                | Exchange::Refused => None,
            },
        }
    }

    /// Returns when a streamed body that is waited for comes too slowly: its peer has a credit that waiting
    /// uses up and bytes renew.
    pub(crate) fn is_body_late_at(&self, limits: &Ticks) -> Option<Tick> {
        let credit = self.credit_bytes / limits.body_bytes_per_tick_min;
        self.is_body_awaited.then_some(self.awaited_since + credit)
    }

    /// Returns the size of head and decoded body in `input`, while a body arrives.
    #[inline]
    pub(crate) fn input_body_end(&self) -> usize {
        let body = usize::try_from(self.body_bytes).expect("an admitted body lies in memory");
        crate::width::index(self.head_bytes) + body
    }

    /// Counts bytes of a body.
    pub(crate) fn add_body(&mut self, size: usize) {
        self.body_bytes += wide(size);
    }
}

/// The time limits, in ticks.
#[derive(Debug, Clone)]
pub(crate) struct Ticks {
    pub(crate) header: Tick,
    pub(crate) body_grace: Tick,
    pub(crate) body_bytes_per_tick_min: u64,
    pub(crate) idle: Tick,
    pub(crate) write: Tick,
    pub(crate) linger: Tick,
    pub(crate) shed_after: Tick,
    /// Time until cancelling is tried again.
    pub(crate) ending: Tick,
    pub(crate) accept_retry: Tick,
}

impl Ticks {
    /// Returns what a streamed body may be late by at most: the least rate, for as long as the grace lasts.
    pub(crate) const fn credit_bytes_max(&self) -> u64 {
        self.body_grace.saturating_mul(self.body_bytes_per_tick_min)
    }

    pub(crate) fn new(settings: &Settings) -> Self {
        use crate::timers::{TICK, ticks};
        let per_second = Tick::try_from(1000 / TICK.as_millis()).expect("ticks are coarse");
        Self {
            header: ticks(settings.header_timeout),
            body_grace: ticks(settings.body_grace),
            body_bytes_per_tick_min: settings.body_bytes_per_second_min.div_ceil(per_second),
            idle: ticks(settings.idle_timeout),
            write: ticks(settings.write_timeout),
            linger: ticks(settings.linger_timeout),
            shed_after: ticks(settings.shed_after),
            ending: per_second,
            accept_retry: ticks(settings.accept_retry),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open() -> Connection {
        let mut connection = Connection::free(3);
        connection.phase = Phase::Open;
        connection
    }

    #[test]
    fn each_state_has_its_deadline() {
        let limits = Ticks::new(&Settings::default());
        let check = |change: fn(&mut Connection), expected: Option<Tick>| {
            let mut connection = open();
            connection.since = 7;
            change(&mut connection);
            assert_eq!(connection.deadline(&limits), expected);
        };
        check(|_| {}, Some(7 + limits.header));
        check(|connection| connection.requests = 1, Some(7 + limits.idle));
        check(|connection| connection.exchange = Exchange::Deferred, None);
        check(|connection| connection.is_sending = true, Some(7 + limits.write));
        check(|connection| connection.phase = Phase::Lingering, Some(7 + limits.linger));
        check(|connection| connection.exchange = Exchange::Body, Some(7 + limits.body_grace));
        let slow = |connection: &mut Connection| {
            connection.exchange = Exchange::Body;
            connection.body_bytes = 2048;
        };
        check(slow, Some(7 + limits.body_grace + 2048 / limits.body_bytes_per_tick_min));
    }

    #[test]
    fn a_peer_that_does_not_read_is_not_read_from() {
        let settings = Settings { unsent_bytes_max: 10, ..Settings::default() };
        let mut connection = open();
        assert!(connection.wants_bytes(&settings));
        connection.output = vec![0; 10];
        assert!(!connection.wants_bytes(&settings));
        connection.exchange = Exchange::Body;
        assert!(connection.wants_bytes(&settings));
        connection.has_peer_ended = true;
        assert!(!connection.wants_bytes(&settings));
    }

    #[test]
    fn a_head_may_be_longer_than_what_is_kept_of_later_requests() {
        let settings = Settings { pipelined_bytes_max: 10, ..Settings::default() };
        let mut connection = open();
        connection.input = vec![b'x'; 10];
        assert!(!connection.wants_bytes(&settings));
        connection.exchange = Exchange::Head;
        assert!(connection.wants_bytes(&settings));
    }

    #[test]
    fn a_released_slot_has_another_id() {
        let mut connection = open();
        let id = connection.id;
        connection.input = vec![1];
        let [input, output] = connection.release();
        assert_eq!((input.len(), output.len()), (1, 0));
        assert_eq!(connection.phase, Phase::Free);
        assert_ne!(connection.id, id);
    }
}
