//! Requests to other servers, on the same ring.
//!
//! ```text
//!   begin --idle socket--> given                        a fetch holds its request until it can't be needed again
//!     |                      ^
//!     +--connect--> next address --> socket --connected, handshake--> given
//!                        ^             |  failed before anything was sent, or a kept one was closed
//!                        +-------------+
//!   given --> head --> body, piece by piece --> done: the socket is kept, or ended
//! ```
//!
//! A *fetch* is one request and its response; a *socket* serves one fetch at a time, and rests between two. What a
//! fetch holds is bounded by a window in each direction.
//!
//! Invariants: a socket's slot lies behind those of accepted connections, and is freed after the last completion
//! of its socket; an answer is given to the fetch alone whose request it answers, for a socket that received
//! anything unasked is ended.
//! Not here: who may ask whom for what, and names (the host's).

mod socket; // connections: made, written to, read from, ended
mod wire; // heads

use std::collections::VecDeque;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use rustls::ClientConfig;

use self::socket::{Phase, Socket};
use self::wire::Framing;
pub use self::wire::{BodyLength, FetchRequest, ResponseHead};
use crate::clock::Clock;
use crate::counters::Counters;
use crate::endpoint::{Endpoint, Event};
use crate::http::trailers::{self, Trailers};
use crate::ring::{Completed, Completion, Ring};
use crate::width::{index, narrow, wide};

/// Bytes of a request or of a response that are kept ahead of whoever takes them.
pub(crate) const WINDOW_BYTES: usize = 64 * 1024;
/// A request that is kept for a second try is no longer than this: a head, and what a window lets through.
const KEPT_BYTES_MAX: usize = 4 * WINDOW_BYTES;
/// Fetches for each socket: one that was answered needs none.
const FETCHES_PER_SOCKET: usize = 4;
/// A socket rests no longer than this: most servers close theirs after a minute, some after five seconds.
const IDLE_MAX: Duration = Duration::from_secs(30);
/// Most memory of a socket and its fetches: windows both ways, what a turn may receive beyond one, and TLS.
pub(crate) const SOCKET_BYTES_MAX: u64 = 16 * WINDOW_BYTES as u64;
/// A head up to this size is read anew at every piece: what is no HTTP is known by its first bytes.
const EAGER_BYTES_MAX: usize = 512;
/// Interim responses that are read over.
const INTERIM_MAX: u8 = 8;

/// Names a fetch. One that was kept too long names nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct FetchId {
    slot: u32,
    generation: u32,
}

/// Why a request has no response, numbered as `wasi:http` numbers its `error-code`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[repr(u8)]
pub enum FetchError {
    /// The name was not resolved in time.
    #[error("the name was not resolved in time")]
    DnsTimeout = 0,
    /// The name has no address.
    #[error("the name has no address")]
    Dns = 1,
    /// No connection, for another reason than those below.
    #[error("the server cannot be reached")]
    Unavailable = 3,
    /// None of its addresses may be connected to.
    #[error("the address is not one that may be connected to")]
    Prohibited = 4,
    /// No way to its address.
    #[error("there is no way to the address")]
    Unroutable = 5,
    /// Nobody listens there.
    #[error("nobody listens there")]
    Refused = 6,
    /// It closed the connection in place of an answer.
    #[error("the connection was closed before the response")]
    Terminated = 7,
    /// It did not take the connection in time.
    #[error("no connection in time")]
    ConnectTimeout = 8,
    /// It stopped in the middle of its response.
    #[error("the response stopped")]
    ReadTimeout = 9,
    /// It does not take the request's body.
    #[error("the request's body is not taken")]
    WriteTimeout = 10,
    /// There are as many requests under way as may be.
    #[error("as many outgoing requests are under way as may be")]
    Limit = 11,
    /// TLS failed.
    #[error("TLS failed")]
    Tls = 12,
    /// The server's certificate is not good.
    #[error("the server's certificate is not trusted")]
    Certificate = 13,
    /// The server ended TLS.
    #[error("the server refused TLS")]
    Alert = 14,
    /// It may not be asked for.
    #[error("the request is not granted")]
    Denied = 15,
    /// The body has another length than was told.
    #[error("the request's body has another length than was told")]
    BodySize = 17,
    /// The method cannot be sent.
    #[error("the method cannot be sent")]
    Method = 18,
    /// The target cannot be sent.
    #[error("the target cannot be sent")]
    Uri = 19,
    /// The response ended before its end.
    #[error("the response is not whole")]
    Incomplete = 25,
    /// The response's head is too long.
    #[error("the response's head is too long")]
    HeadTooLong = 26,
    /// A transfer coding other than chunked.
    #[error("the response has an unknown transfer coding")]
    TransferCoding = 31,
    /// The response did not begin in time.
    #[error("no response in time")]
    ResponseTimeout = 33,
    /// What came is no HTTP.
    #[error("the response is no HTTP")]
    Protocol = 35,
    /// The host's own fault.
    #[error("a fault of the host's")]
    Internal = 38,
}

/// Whose a fetch is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Owner {
    /// Events name this.
    pub call: u64,
    /// Connections that rest are for fetches of the same group.
    pub group: u64,
}

/// What a server is known by. Sockets are kept for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin {
    /// By TLS.
    pub is_tls: bool,
    /// Name or address, in lower case, an address of IPv6 without its brackets.
    pub host: String,
    /// Port.
    pub port: u16,
}

/// How long a fetch waits for what.
#[derive(Debug, Clone, Copy)]
pub struct Timeouts {
    /// For a connection, its handshake included.
    pub connect: Duration,
    /// For the response's head, once the request is under way.
    pub first_byte: Duration,
    /// For the next bytes.
    pub between_bytes: Duration,
}

/// What is waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Want {
    /// The response's head.
    Head,
    /// Bytes of its body, or its end.
    Body,
    /// Room for more of the request's body.
    Room,
}

/// What there is of a response's body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Piece {
    /// So many bytes, one at least.
    Bytes(usize),
    /// Nothing, and nothing will come.
    End,
    /// Nothing yet.
    Later,
}

/// How far a request's body is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sending {
    Left(u64),
    Chunks,
    Whole,
}

/// How far the response is.
#[derive(Debug)]
enum Receiving {
    Head,
    Body(Framing),
    Whole,
}

/// One request and its response.
#[derive(Debug)]
struct Fetch {
    generation: u32,
    is_used: bool,
    owner: u64,
    group: u64,
    origin: Option<Arc<Origin>>,
    timeouts: Timeouts,
    socket: Option<u32>,
    /// Those that were not tried, the next one last.
    addresses: Vec<SocketAddr>,
    /// It was told its addresses.
    is_resolved: bool,
    /// The request so far, while it may have to be sent anew.
    kept: Vec<u8>,
    is_kept: bool,
    /// The socket has it.
    is_given: bool,
    is_idempotent: bool,
    is_head_method: bool,
    sending: Sending,
    receiving: Receiving,
    head: Option<ResponseHead>,
    /// What came behind its body.
    trailers: Trailers,
    interim: u8,
    /// Of the response: what was read, what is to be read, what was not decoded yet.
    input: Vec<u8>,
    read: usize,
    decoded: usize,
    keeps_alive: bool,
    error: Option<FetchError>,
    is_awaited: bool,
    /// When it last got on.
    since: Duration,
    began: Duration,
    /// Until when this address has time.
    attempt_ends: Duration,
    /// Bytes of a head that were looked at, in vain.
    scanned: usize,
}

/// Fetches and sockets of one endpoint.
#[derive(Debug)]
pub(crate) struct Outgoing {
    /// Slot of the first socket.
    first: u32,
    sockets: Vec<Socket>,
    free: Vec<u32>,
    /// Sockets that rest, the one that has rested longest first.
    idle: Vec<u32>,
    fetches: Vec<Fetch>,
    free_fetches: Vec<u32>,
    /// Fetches that wait for a free socket.
    waiting: VecDeque<FetchId>,
    /// Sockets whose receive found no buffer.
    starved: Vec<u32>,
    tls: Option<Arc<ClientConfig>>,
}

/// The parts of an endpoint that this one works with.
pub(crate) struct Io<'a, R> {
    pub(crate) ring: &'a mut R,
    pub(crate) events: &'a mut VecDeque<Event>,
    pub(crate) counters: &'a mut Counters,
    pub(crate) now: Duration,
}

impl Outgoing {
    /// Makes room for so many sockets, whose slots begin at `first`.
    pub(crate) fn new(first: u32, sockets: u32) -> Self {
        Self {
            first,
            sockets: (0..sockets).map(|place| Socket::free(first + place)).collect(),
            free: (0..sockets).rev().collect(),
            idle: Vec::new(),
            fetches: Vec::new(),
            free_fetches: Vec::new(),
            waiting: VecDeque::new(),
            starved: Vec::new(),
            tls: None,
        }
    }

    fn set_tls<R: Ring>(&mut self, io: &mut Io<'_, R>, tls: Arc<ClientConfig>) {
        self.tls = Some(tls);
        // Connections that rest were made under what was trusted before.
        let is_tls = |place: &u32| self.sockets[index(*place)].is_tls();
        let old: Vec<_> = self.idle.iter().copied().filter(is_tls).collect();
        for place in old {
            self.end(io, place);
        }
    }

    fn fetch(&mut self, id: FetchId) -> Option<&mut Fetch> {
        let fetch = self.fetches.get_mut(index(id.slot))?;
        (fetch.is_used && fetch.generation == id.generation).then_some(fetch)
    }

    fn id(&self, fetch: u32) -> FetchId {
        FetchId { slot: fetch, generation: self.fetches[index(fetch)].generation }
    }

    /// Begins a request, on a socket that rests if there is one whose address may be used.
    pub(crate) fn begin<'a, R: Ring>(
        &mut self,
        io: &mut Io<'_, R>,
        owner: Owner,
        origin: Arc<Origin>,
        timeouts: Timeouts,
        request: FetchRequest<'a, impl Iterator<Item = (&'a [u8], &'a [u8])>>,
        may_use: impl Fn(IpAddr) -> bool,
    ) -> Result<FetchId, FetchError> {
        if origin.is_tls && self.tls.is_none() {
            return Err(FetchError::Internal);
        }
        let used = self.fetches.len() - self.free_fetches.len();
        if used >= self.sockets.len() * FETCHES_PER_SOCKET {
            return Err(FetchError::Limit);
        }
        let slot = self.free_fetches.pop().unwrap_or_else(|| {
            self.fetches.push(Fetch::free());
            narrow(self.fetches.len() - 1)
        });
        let fetch = &mut self.fetches[index(slot)];
        *fetch = Fetch {
            generation: fetch.generation,
            is_used: true,
            owner: owner.call,
            group: owner.group,
            timeouts,
            is_idempotent: wire::is_idempotent(request.method),
            is_head_method: request.method == b"HEAD",
            sending: match request.body {
                BodyLength::None => Sending::Whole,
                BodyLength::Known(size) => Sending::Left(size),
                BodyLength::Unknown => Sending::Chunks,
            },
            kept: request.encode(),
            since: io.now,
            began: io.now,
            ..Fetch::free()
        };
        io.counters.fetches += 1;
        let rested = self.idle.iter().rposition(|&place| {
            let socket = &self.sockets[index(place)];
            socket.group == owner.group
                && socket.origin.as_ref().is_some_and(|its| *its == origin)
                && socket.address.is_some_and(|address| may_use(address.ip()))
                && io.now < socket.idle_since + IDLE_MAX
        });
        self.fetches[index(slot)].origin = Some(origin);
        if let Some(position) = rested {
            let place = self.idle.remove(position);
            io.counters.fetches_reused += 1;
            self.sockets[index(place)].is_reused = true;
            self.attach(slot, place);
            self.give_all(io, slot);
        }
        Ok(self.id(slot))
    }

    fn attach(&mut self, fetch: u32, place: u32) {
        self.sockets[index(place)].fetch = Some(fetch);
        self.fetches[index(fetch)].socket = Some(place);
    }

    /// Tells whether a fetch has no socket, and waits to be told addresses.
    pub(crate) fn needs_address(&mut self, id: FetchId) -> bool {
        self.fetch(id).is_some_and(|fetch| {
            fetch.socket.is_none() && !fetch.is_resolved && fetch.error.is_none()
        })
    }

    /// Connects to the first of these addresses that takes it.
    pub(crate) fn connect<R: Ring>(
        &mut self,
        io: &mut Io<'_, R>,
        id: FetchId,
        addresses: &[SocketAddr],
    ) {
        let Some(fetch) = self.fetch(id) else { return };
        if fetch.socket.is_some() || fetch.error.is_some() {
            return;
        }
        fetch.is_resolved = true;
        fetch.addresses = addresses.iter().rev().copied().collect();
        self.try_next(io, id.slot, FetchError::Unavailable);
    }

    /// Ends a fetch by an error, if it has not ended. One that had no connection in time tries its next address.
    pub(crate) fn fail<R: Ring>(&mut self, io: &mut Io<'_, R>, id: FetchId, error: FetchError) {
        let Some(fetch) = self.fetch(id) else { return };
        let socket = fetch.socket.filter(|_| error == FetchError::ConnectTimeout);
        match socket {
            Some(place) if !fetch.addresses.is_empty() => {
                self.end(io, place);
                self.try_next(io, id.slot, error);
            }
            _ => self.fail_at(io, id.slot, error),
        }
    }

    fn fail_at<R: Ring>(&mut self, io: &mut Io<'_, R>, slot: u32, error: FetchError) {
        let fetch = &mut self.fetches[index(slot)];
        if fetch.error.is_none() && !matches!(fetch.receiving, Receiving::Whole) {
            fetch.error = Some(error);
            io.counters.fetches_failed += 1;
        }
        let socket = fetch.socket;
        let id = self.id(slot);
        self.waiting.retain(|waiting| *waiting != id);
        if let Some(place) = socket {
            self.end(io, place);
        }
        self.notify(io, slot);
    }

    fn notify<R: Ring>(&mut self, io: &mut Io<'_, R>, slot: u32) {
        let fetch = &mut self.fetches[index(slot)];
        if std::mem::take(&mut fetch.is_awaited) {
            io.events.push_back(Event::Fetch(fetch.owner));
        }
    }

    /// Sends a piece of the request's body. Returns how much was taken; 0 where there is no room, or no piece.
    pub(crate) fn write<R: Ring>(
        &mut self,
        io: &mut Io<'_, R>,
        id: FetchId,
        bytes: &[u8],
    ) -> Result<usize, FetchError> {
        let waiting = self.waiting_bytes(id);
        let Some(fetch) = self.fetch(id) else { return Err(FetchError::Internal) };
        if let Some(error) = fetch.error {
            return Err(error);
        }
        if bytes.is_empty() || waiting >= WINDOW_BYTES {
            return Ok(0);
        }
        let piece = &bytes[..bytes.len().min(WINDOW_BYTES)];
        match &mut fetch.sending {
            Sending::Left(left) if *left >= wide(bytes.len()) => {
                *left -= wide(piece.len());
                self.give(io, id.slot, piece);
            }
            Sending::Chunks => {
                let mut chunk = format!("{:x}\r\n", piece.len()).into_bytes();
                chunk.extend_from_slice(piece);
                chunk.extend_from_slice(b"\r\n");
                self.give(io, id.slot, &chunk);
            }
            Sending::Left(_) | Sending::Whole => {
                self.fail_at(io, id.slot, FetchError::BodySize);
                return Err(FetchError::BodySize);
            }
        }
        Ok(piece.len())
    }

    /// Ends the request's body, with fields behind it if it goes out in chunks.
    pub(crate) fn finish<'a, R: Ring>(
        &mut self,
        io: &mut Io<'_, R>,
        id: FetchId,
        trailers: impl Iterator<Item = (&'a [u8], &'a [u8])>,
    ) -> Result<(), FetchError> {
        let Some(fetch) = self.fetch(id) else { return Err(FetchError::Internal) };
        if let Some(error) = fetch.error {
            return Err(error);
        }
        match std::mem::replace(&mut fetch.sending, Sending::Whole) {
            Sending::Left(0) | Sending::Whole => Ok(()),
            Sending::Left(_) => {
                self.fail_at(io, id.slot, FetchError::BodySize);
                Err(FetchError::BodySize)
            }
            Sending::Chunks => {
                let mut end = Vec::with_capacity(b"0\r\n\r\n".len());
                if trailers::write_last_chunk(&mut end, trailers).is_err() {
                    self.fail_at(io, id.slot, FetchError::Internal);
                    return Err(FetchError::Internal);
                }
                self.give(io, id.slot, &end);
                Ok(())
            }
        }
    }

    /// Returns the bytes of a request that its server has not taken.
    fn waiting_bytes(&mut self, id: FetchId) -> usize {
        let Some(fetch) = self.fetch(id) else { return 0 };
        let kept = fetch.kept.len();
        match fetch.socket.filter(|_| fetch.is_given) {
            Some(place) => self.sockets[index(place)].unsent_bytes(),
            None => kept,
        }
    }

    /// Passes bytes of a request on, or keeps them until there is a socket that takes them.
    fn give<R: Ring>(&mut self, io: &mut Io<'_, R>, slot: u32, bytes: &[u8]) {
        let fetch = &mut self.fetches[index(slot)];
        fetch.since = io.now;
        if fetch.is_kept {
            fetch.kept.extend_from_slice(bytes);
        }
        let Some(place) = fetch.socket.filter(|_| fetch.is_given) else { return };
        if fetch.kept.len() > KEPT_BYTES_MAX {
            fetch.forget();
        }
        self.push(io, place, bytes);
    }

    /// Gives the socket all there is of the request.
    fn give_all<R: Ring>(&mut self, io: &mut Io<'_, R>, slot: u32) {
        let fetch = &mut self.fetches[index(slot)];
        let Some(place) = fetch.socket else { return };
        fetch.is_given = true;
        fetch.since = io.now;
        let bytes = std::mem::take(&mut fetch.kept);
        self.push(io, place, &bytes);
        self.fetches[index(slot)].kept = bytes;
    }

    /// Returns the response's head, once it has come.
    pub(crate) fn head(&mut self, id: FetchId) -> Result<Option<&ResponseHead>, FetchError> {
        let fetch = self.fetch(id).ok_or(FetchError::Internal)?;
        match (&fetch.head, fetch.error) {
            (Some(head), _) => Ok(Some(head)),
            (None, Some(error)) => Err(error),
            (None, None) => Ok(None),
        }
    }

    /// Tells what there is of the body.
    pub(crate) fn piece(&mut self, id: FetchId) -> Result<Piece, FetchError> {
        let fetch = self.fetch(id).ok_or(FetchError::Internal)?;
        match (fetch.decoded - fetch.read, &fetch.receiving, fetch.error) {
            (0, Receiving::Whole, _) => Ok(Piece::End),
            (0, _, Some(error)) => Err(error),
            (0, _, None) => Ok(Piece::Later),
            (size, ..) => Ok(Piece::Bytes(size)),
        }
    }

    /// Returns what came behind the body, once that was read to its end.
    pub(crate) fn trailers(&mut self, id: FetchId) -> Result<Option<&Trailers>, FetchError> {
        let is_read = self.piece(id)? == Piece::End;
        let fetch = self.fetch(id).ok_or(FetchError::Internal)?;
        Ok(is_read.then_some(&fetch.trailers))
    }

    /// Reads the next bytes of the body.
    ///
    /// # Panics
    /// If there are fewer than the target takes.
    pub(crate) fn read<R: Ring>(&mut self, io: &mut Io<'_, R>, id: FetchId, target: &mut [u8]) {
        let fetch = self.fetch(id).expect("`piece` told of it");
        let end = fetch.read + target.len();
        assert!(end <= fetch.decoded, "no more than `piece` told of");
        target.copy_from_slice(&fetch.input[fetch.read..end]);
        fetch.read = end;
        fetch.since = io.now;
        // Not at each read, for the rest moves; and not only when nothing is left, which a guest may avoid.
        if fetch.read == fetch.decoded || WINDOW_BYTES <= fetch.read {
            fetch.input.drain(..fetch.read);
            fetch.decoded -= fetch.read;
            fetch.read = 0;
        }
        if let Some(place) = fetch.socket {
            self.settle(io, place);
        }
    }

    /// Tells whether what is wanted is there, or will never be. If not, an event follows once it may be.
    pub(crate) fn is_ready(&mut self, id: FetchId, want: Want) -> bool {
        let waiting = self.waiting_bytes(id);
        let Some(fetch) = self.fetch(id) else { return true };
        let is_there = match want {
            Want::Head => fetch.head.is_some(),
            Want::Body => fetch.decoded > fetch.read || matches!(fetch.receiving, Receiving::Whole),
            Want::Room => waiting < WINDOW_BYTES,
        };
        let is_ready = is_there || fetch.error.is_some();
        fetch.is_awaited |= !is_ready;
        is_ready
    }

    /// Returns how long a fetch may be waited for, and what it fails by then.
    pub(crate) fn patience(
        &mut self,
        id: FetchId,
        want: Want,
        now: Duration,
    ) -> Option<(Duration, FetchError)> {
        let socket = self.fetch(id)?.socket.map(|place| self.sockets[index(place)].phase);
        let fetch = self.fetch(id)?;
        let Timeouts { connect, first_byte, between_bytes } = fetch.timeouts;
        let left = |end: Duration| end.saturating_sub(now);
        let (time, error) = match (socket, fetch.is_given, want) {
            (None, ..) if !fetch.is_resolved => {
                return Some((left(fetch.began + connect), FetchError::DnsTimeout));
            }
            (None, ..) => return Some((left(fetch.began + connect), FetchError::ConnectTimeout)),
            (Some(Phase::Connecting), ..) | (_, false, _) => {
                return Some((left(fetch.attempt_ends), FetchError::ConnectTimeout));
            }
            (.., Want::Head) => (first_byte, FetchError::ResponseTimeout),
            (.., Want::Body) => (between_bytes, FetchError::ReadTimeout),
            (.., Want::Room) => (between_bytes, FetchError::WriteTimeout),
        };
        Some((left(fetch.since + time), error))
    }

    /// Forgets a fetch. What was not read of its response, and not sent of its request, ends its connection.
    pub(crate) fn close<R: Ring>(&mut self, io: &mut Io<'_, R>, id: FetchId) {
        let Some(fetch) = self.fetch(id) else { return };
        let socket = fetch.socket;
        let generation = fetch.generation.wrapping_add(1);
        *fetch = Fetch { generation, ..Fetch::free() };
        self.free_fetches.push(id.slot);
        self.waiting.retain(|waiting| *waiting != id);
        if let Some(place) = socket {
            self.end(io, place);
        }
    }

    /// Takes decrypted bytes of the response.
    fn take_plain<R: Ring>(&mut self, io: &mut Io<'_, R>, slot: u32, bytes: &[u8]) {
        let fetch = &mut self.fetches[index(slot)];
        fetch.since = io.now;
        fetch.forget();
        fetch.input.extend_from_slice(bytes);
        match fetch.advance() {
            Ok(()) => {}
            Err(error) => return self.fail_at(io, slot, error),
        }
        let fetch = &mut self.fetches[index(slot)];
        if matches!(fetch.receiving, Receiving::Whole) {
            self.release(io, slot);
        }
        self.notify(io, slot);
    }

    /// The response is whole: its socket rests, if it can.
    fn release<R: Ring>(&mut self, io: &mut Io<'_, R>, slot: u32) {
        let fetch = &mut self.fetches[index(slot)];
        let Some(place) = fetch.socket else { return };
        let is_good = fetch.keeps_alive && fetch.sending == Sending::Whole;
        let socket = &mut self.sockets[index(place)];
        if is_good && socket.can_rest() {
            fetch.socket = None;
            socket.fetch = None;
            socket.idle_since = io.now;
            self.idle.push(place);
            self.settle(io, place);
            // Somebody may have waited for a socket for longer than this one will rest.
            if !self.waiting.is_empty() {
                self.end(io, place);
            }
        } else {
            self.end(io, place);
        }
    }

    /// The server has ended its half, or the connection broke.
    fn ended<R: Ring>(&mut self, io: &mut Io<'_, R>, slot: u32, is_clean: bool) {
        let fetch = &mut self.fetches[index(slot)];
        let Some(place) = fetch.socket else { return };
        let is_reused = self.sockets[index(place)].is_reused;
        match &fetch.receiving {
            Receiving::Body(Framing::UntilClose) if is_clean => {
                fetch.receiving = Receiving::Whole;
                self.end(io, place);
                self.notify(io, slot);
            }
            Receiving::Head if fetch.input.is_empty() => {
                if is_reused && fetch.is_kept && fetch.is_idempotent {
                    // It was closed while it rested, and nobody knows of the request (RFC 9112, 9.3.1).
                    let address = self.sockets[index(place)].address;
                    fetch.addresses = address.into_iter().collect();
                    fetch.is_resolved = true;
                    self.end(io, place);
                    io.counters.fetches_repeated += 1;
                    return self.try_next(io, slot, FetchError::Terminated);
                }
                self.fail_at(io, slot, FetchError::Terminated);
            }
            _ => self.fail_at(io, slot, FetchError::Incomplete),
        }
    }

    /// Ends sockets that have rested long enough.
    pub(crate) fn tick<R: Ring>(&mut self, io: &mut Io<'_, R>) {
        while let Some(&place) = self.idle.first()
            && self.sockets[index(place)].idle_since + IDLE_MAX <= io.now
        {
            self.end(io, place);
        }
    }

    /// Returns when the next socket has rested long enough.
    pub(crate) fn next_due(&self) -> Option<Duration> {
        self.idle.first().map(|&place| self.sockets[index(place)].idle_since + IDLE_MAX)
    }

    /// Arms receives that found no buffer.
    pub(crate) fn serve_starved<R: Ring>(&mut self, io: &mut Io<'_, R>) {
        for place in std::mem::take(&mut self.starved) {
            self.settle(io, place);
        }
    }

    /// True if a receive waits for a buffer.
    pub(crate) fn is_starved(&self) -> bool {
        !self.starved.is_empty()
    }

    /// Takes a completion of one of its sockets.
    pub(crate) fn complete<R: Ring>(&mut self, io: &mut Io<'_, R>, completion: Completion) {
        let place = completion.id.slot() - self.first;
        let is_known =
            self.sockets.get(index(place)).is_some_and(|socket| socket.id == completion.id);
        match completion.completed {
            Completed::Receive if is_known => self.received(io, place, completion),
            Completed::Send if is_known => self.sent(io, place, completion),
            Completed::Close if is_known => self.closed(io, place),
            _ => {
                if let Some(buffer) = completion.buffer {
                    io.ring.recycle(buffer);
                }
            }
        }
    }
}

impl<R: Ring, C: Clock> Endpoint<R, C> {
    /// Sets how requests by TLS are made. Without it there are none.
    pub fn set_tls(&mut self, tls: Arc<ClientConfig>) {
        self.serve_outgoing(|outgoing, io| outgoing.set_tls(io, tls));
    }

    /// Begins a request to another server. Where [`Endpoint::fetch_needs_address`], it goes on with
    /// [`Endpoint::fetch_connect`]. An event names the owner's call whenever what was found missing may be there.
    ///
    /// # Errors
    /// [`FetchError::Limit`] for too many requests, [`FetchError::Internal`] for TLS that was not set.
    pub fn fetch<'a>(
        &mut self,
        owner: Owner,
        origin: Arc<Origin>,
        timeouts: Timeouts,
        request: FetchRequest<'a, impl Iterator<Item = (&'a [u8], &'a [u8])>>,
        may_use: impl Fn(IpAddr) -> bool,
    ) -> Result<FetchId, FetchError> {
        self.serve_outgoing(|outgoing, io| {
            outgoing.begin(io, owner, origin, timeouts, request, may_use)
        })
    }

    /// Tells whether a fetch waits for the addresses of its server.
    pub fn fetch_needs_address(&mut self, id: FetchId) -> bool {
        self.serve_outgoing(|outgoing, _| outgoing.needs_address(id))
    }

    /// Connects to the first of the addresses that takes it. They are the caller's to check.
    ///
    /// # Cost
    /// Three system calls for each address that is tried.
    pub fn fetch_connect(&mut self, id: FetchId, addresses: &[SocketAddr]) {
        self.serve_outgoing(|outgoing, io| outgoing.connect(io, id, addresses));
    }

    /// Ends a fetch by an error.
    pub fn fetch_fail(&mut self, id: FetchId, error: FetchError) {
        self.serve_outgoing(|outgoing, io| outgoing.fail(io, id, error));
    }

    /// Sends a piece of a request's body. Returns how much was taken: 0 where there is no room.
    ///
    /// # Errors
    /// Why the fetch has failed.
    pub fn fetch_write(&mut self, id: FetchId, bytes: &[u8]) -> Result<usize, FetchError> {
        self.serve_outgoing(|outgoing, io| outgoing.write(io, id, bytes))
    }

    /// Ends a request's body, with fields behind it. One that goes out in chunks carries those that may be trailers;
    /// one whose length was told has no place for any. Names are tokens, and values have no control characters: that
    /// is the caller's to check.
    ///
    /// # Errors
    /// Why the fetch has failed; also for a body of another length than was told.
    pub fn fetch_finish<'a>(
        &mut self,
        id: FetchId,
        trailers: impl Iterator<Item = (&'a [u8], &'a [u8])>,
    ) -> Result<(), FetchError> {
        self.serve_outgoing(|outgoing, io| outgoing.finish(io, id, trailers))
    }

    /// Returns what came behind the body of the response, once that was read to its end.
    ///
    /// # Errors
    /// Why the fetch has failed.
    pub fn fetch_trailers(&mut self, id: FetchId) -> Result<Option<&Trailers>, FetchError> {
        self.outgoing.trailers(id)
    }

    /// Returns the head of the response, once it has come.
    ///
    /// # Errors
    /// Why the fetch has failed.
    pub fn fetch_head(&mut self, id: FetchId) -> Result<Option<&ResponseHead>, FetchError> {
        self.outgoing.head(id)
    }

    /// Tells what there is of the response's body.
    ///
    /// # Errors
    /// Why the fetch has failed.
    pub fn fetch_piece(&mut self, id: FetchId) -> Result<Piece, FetchError> {
        self.serve_outgoing(|outgoing, _| outgoing.piece(id))
    }

    /// Reads the next bytes of the response's body.
    ///
    /// # Panics
    /// If there are fewer than [`Endpoint::fetch_piece`] told of.
    pub fn fetch_read(&mut self, id: FetchId, target: &mut [u8]) {
        self.serve_outgoing(|outgoing, io| outgoing.read(io, id, target));
    }

    /// Tells whether what is wanted is there, or never will be. If not, an event follows when it may be.
    pub fn fetch_is_ready(&mut self, id: FetchId, want: Want) -> bool {
        self.serve_outgoing(|outgoing, _| outgoing.is_ready(id, want))
    }

    /// Returns how much longer it should be waited for, and the error that then ends the fetch.
    pub fn fetch_patience(&mut self, id: FetchId, want: Want) -> Option<(Duration, FetchError)> {
        let now = self.clock.elapsed();
        self.serve_outgoing(|outgoing, _| outgoing.patience(id, want, now))
    }

    /// Forgets a fetch; what is not over ends with its connection.
    pub fn fetch_close(&mut self, id: FetchId) {
        self.serve_outgoing(|outgoing, io| outgoing.close(io, id));
    }
}

impl Fetch {
    fn free() -> Self {
        let none = Duration::ZERO;
        Self {
            generation: 0,
            is_used: false,
            owner: 0,
            group: 0,
            origin: None,
            timeouts: Timeouts { connect: none, first_byte: none, between_bytes: none },
            socket: None,
            addresses: Vec::new(),
            is_resolved: false,
            kept: Vec::new(),
            is_kept: true,
            is_given: false,
            is_idempotent: false,
            is_head_method: false,
            sending: Sending::Whole,
            receiving: Receiving::Head,
            head: None,
            trailers: Trailers::new(),
            interim: 0,
            input: Vec::new(),
            read: 0,
            decoded: 0,
            keeps_alive: false,
            error: None,
            is_awaited: false,
            since: none,
            began: none,
            attempt_ends: none,
            scanned: 0,
        }
    }

    /// The request will not be sent a second time.
    fn forget(&mut self) {
        self.is_kept = false;
        self.kept = Vec::new();
    }

    fn unread_bytes(&self) -> usize {
        self.input.len() - self.read
    }

    /// Reads on in what has come.
    fn advance(&mut self) -> Result<(), FetchError> {
        while matches!(self.receiving, Receiving::Head) {
            // A head ends with a line: one that comes in tiny pieces is not read anew for each of them.
            let is_on = self.input[self.scanned..].contains(&b'\n');
            let is_long = EAGER_BYTES_MAX < self.input.len();
            if !is_on && is_long && self.input.len() <= wire::HEAD_BYTES_MAX {
                self.scanned = self.input.len();
                return Ok(());
            }
            let Some(parsed) = wire::parse(&self.input, self.is_head_method)? else {
                self.scanned = self.input.len();
                return Ok(());
            };
            self.input.drain(..parsed.size);
            self.scanned = 0;
            match parsed.head.status() {
                // Nobody asked for another protocol, and there is no class below.
                0..=99 | 101 => return Err(FetchError::Protocol),
                100..=199 => {
                    self.interim += 1;
                    if self.interim > INTERIM_MAX {
                        return Err(FetchError::Protocol);
                    }
                }
                _ => {
                    self.head = Some(parsed.head);
                    self.keeps_alive = parsed.keep_alive;
                    self.receiving = Receiving::Body(parsed.framing);
                }
            }
        }
        let Receiving::Body(framing) = &mut self.receiving else { return Ok(()) };
        let is_whole = match framing {
            Framing::Length(left) => {
                let size = usize::try_from(*left).unwrap_or(usize::MAX);
                let size = size.min(self.input.len() - self.decoded);
                self.decoded += size;
                *left -= wide(size);
                *left == 0
            }
            Framing::Chunked(decoder) => {
                let decoded = decoder
                    .decode(&mut self.input, self.decoded, self.decoded)
                    .map_err(|_| FetchError::Protocol)?;
                let (start, end) = (self.decoded + decoded.written, self.decoded + decoded.read);
                self.input.drain(start..end);
                self.decoded = start;
                if decoded.is_complete {
                    self.trailers = decoder.take_trailers();
                }
                decoded.is_complete
            }
            Framing::UntilClose => {
                self.decoded = self.input.len();
                false
            }
        };
        if is_whole {
            self.receiving = Receiving::Whole;
            // What comes behind a response answers nothing.
            self.keeps_alive &= self.input.len() == self.decoded;
            self.input.truncate(self.decoded);
        }
        Ok(())
    }
}

/// Returns what a failed system call of a connection means.
fn reason(error: &io::Error) -> FetchError {
    match error.raw_os_error() {
        Some(libc::ECONNREFUSED) => FetchError::Refused,
        Some(libc::ETIMEDOUT) => FetchError::ConnectTimeout,
        Some(libc::EHOSTUNREACH | libc::ENETUNREACH | libc::EADDRNOTAVAIL) => {
            FetchError::Unroutable
        }
        Some(libc::EMFILE | libc::ENFILE) => FetchError::Limit,
        _ => FetchError::Unavailable,
    }
}

#[cfg(test)]
mod tests;
