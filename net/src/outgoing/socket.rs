//! Sockets of ours: made, written to, read from, kept, ended.
//!
//! ```text
//!   Free --open--> Connecting --first bytes went out--> Open <--> idle
//!    ^                  |                                 |
//!    +--- Closing <-- Ending (waits for the last completions)
//! ```
//!
//! Whoever connects speaks first, in HTTP as in TLS, so a connection is known to stand by its first send: the
//! kernel holds that back until the handshake of TCP is over, and fails it if there is none.

use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection};

use super::{FetchError, Io, Origin, Outgoing, Receiving, WINDOW_BYTES, reason};
use crate::ring::{Completion, ConnectionId, Operation, Ring};
use crate::width::{index, result_size, wide};

/// What a socket is good for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    Free,
    Connecting,
    Open,
    Ending,
    Closing,
}

/// One place of the table.
#[derive(Debug)]
pub(super) struct Socket {
    pub(super) id: ConnectionId,
    pub(super) phase: Phase,
    pub(super) origin: Option<Arc<Origin>>,
    /// Whose fetches may use it.
    pub(super) group: u64,
    pub(super) address: Option<SocketAddr>,
    /// Whom it serves; nobody while it rests.
    pub(super) fetch: Option<u32>,
    pub(super) idle_since: Duration,
    /// It has served another before.
    pub(super) is_reused: bool,
    tls: Option<Box<ClientConnection>>,
    output: Vec<u8>,
    sending_bytes: usize,
    sent_bytes: usize,
    is_sending: bool,
    is_receiving: bool,
    is_receive_cancelled: bool,
    /// Nothing more can be sent. What the server said before may still come.
    is_send_broken: bool,
    /// TLS has told that the server says no more.
    has_ended: bool,
}

impl Socket {
    pub(super) fn free(slot: u32) -> Self {
        Self::with_id(ConnectionId::new(slot, 0))
    }

    fn with_id(id: ConnectionId) -> Self {
        Self {
            id,
            phase: Phase::Free,
            origin: None,
            group: 0,
            address: None,
            fetch: None,
            idle_since: Duration::ZERO,
            is_reused: false,
            tls: None,
            output: Vec::new(),
            sending_bytes: 0,
            sent_bytes: 0,
            is_sending: false,
            is_receiving: false,
            is_receive_cancelled: false,
            is_send_broken: false,
            has_ended: false,
        }
    }

    pub(super) fn is_tls(&self) -> bool {
        self.tls.is_some()
    }

    /// True if another request may be sent on it.
    pub(super) fn can_rest(&self) -> bool {
        let is_quiet = self.unsent_bytes() == 0 && !self.is_send_broken && !self.has_ended;
        is_quiet && self.phase == Phase::Open
    }

    /// Bytes that the kernel has not taken.
    pub(super) fn unsent_bytes(&self) -> usize {
        self.output.len() + self.sending_bytes - self.sent_bytes
    }
}

impl Outgoing {
    /// Connects a fetch to its next address; fails it by `last` where there is none.
    pub(super) fn try_next<R: Ring>(
        &mut self,
        io: &mut Io<'_, R>,
        slot: u32,
        mut last: FetchError,
    ) {
        while !self.fetches[index(slot)].addresses.is_empty() {
            if self.free.is_empty() {
                // One that rests gives way; its slot is free once it is closed.
                if let Some(&rested) = self.idle.first() {
                    self.end(io, rested);
                }
                let id = self.id(slot);
                return self.waiting.push_back(id);
            }
            let Some(address) = self.fetches[index(slot)].addresses.pop() else { break };
            match self.open(io, slot, address) {
                Ok(()) => return,
                Err(error) => last = error,
            }
        }
        self.fail_at(io, slot, last);
    }

    fn open<R: Ring>(
        &mut self,
        io: &mut Io<'_, R>,
        slot: u32,
        address: SocketAddr,
    ) -> Result<(), FetchError> {
        let fetch = &mut self.fetches[index(slot)];
        let origin = fetch.origin.clone().ok_or(FetchError::Internal)?;
        let tls = origin.is_tls.then(|| greet(self.tls.as_ref(), &origin)).transpose()?;
        let descriptor = connect(address).map_err(|error| reason(&error))?;
        let Some(&place) = self.free.last() else { return Err(FetchError::Limit) };
        let socket = &mut self.sockets[index(place)];
        if io.ring.adopt(socket.id, descriptor).is_err() {
            return Err(FetchError::Internal);
        }
        self.free.pop();
        io.counters.fetches_connected += 1;
        socket.phase = Phase::Connecting;
        socket.origin = Some(origin);
        socket.group = fetch.group;
        socket.address = Some(address);
        socket.tls = tls;
        let is_plain = socket.tls.is_none();
        fetch.is_given = false;
        fetch.since = io.now;
        // What is left of the time is for this address and those that follow.
        let left = (fetch.began + fetch.timeouts.connect).saturating_sub(io.now);
        let addresses = u32::try_from(fetch.addresses.len()).unwrap_or(u32::MAX);
        fetch.attempt_ends = io.now + left / addresses.saturating_add(1);
        self.attach(slot, place);
        if is_plain {
            self.give_all(io, slot);
        } else {
            self.push(io, place, b"");
        }
        Ok(())
    }

    /// Sends bytes of a request.
    pub(super) fn push<R: Ring>(&mut self, io: &mut Io<'_, R>, place: u32, bytes: &[u8]) {
        let socket = &mut self.sockets[index(place)];
        match &mut socket.tls {
            None => socket.output.extend_from_slice(bytes),
            Some(tls) => {
                // Both write to memory, which takes everything.
                let written = tls.writer().write_all(bytes);
                debug_assert!(written.is_ok(), "no limit is set");
                seal(tls, &mut socket.output);
            }
        }
        self.settle(io, place);
    }

    /// Brings about what a socket's state asks for.
    pub(super) fn settle<R: Ring>(&mut self, io: &mut Io<'_, R>, place: u32) {
        let socket = &mut self.sockets[index(place)];
        match socket.phase {
            Phase::Free | Phase::Closing => return,
            Phase::Ending => {
                if !socket.is_receiving && !socket.is_sending {
                    socket.phase = Phase::Closing;
                    io.ring.push(Operation::Close(socket.id));
                }
                return;
            }
            Phase::Connecting | Phase::Open => {}
        }
        if !socket.is_sending && !socket.output.is_empty() && !socket.is_send_broken {
            let output = std::mem::take(&mut socket.output);
            socket.is_sending = true;
            (socket.sending_bytes, socket.sent_bytes) = (output.len(), 0);
            io.ring.push(Operation::Send { id: socket.id, output, offset: 0, is_last: false });
        }
        let fetch = socket.fetch.map(|fetch| &self.fetches[index(fetch)]);
        let has_room = fetch.is_none_or(|fetch| fetch.unread_bytes() < WINDOW_BYTES);
        let wants_bytes = socket.phase == Phase::Open && has_room;
        if wants_bytes && !socket.is_receiving {
            socket.is_receiving = true;
            io.ring.push(Operation::Receive(socket.id));
        } else if !wants_bytes && socket.is_receiving && !socket.is_receive_cancelled {
            socket.is_receive_cancelled = true;
            io.ring.push(Operation::CancelReceive(socket.id));
        }
    }

    /// A send has completed.
    pub(super) fn sent<R: Ring>(&mut self, io: &mut Io<'_, R>, place: u32, completion: Completion) {
        let output = io.ring.reclaim(completion.id);
        let socket = &mut self.sockets[index(place)];
        socket.is_sending = false;
        let size = result_size(completion.result);
        socket.sent_bytes += size;
        io.counters.bytes_sent += wide(size);
        let is_good = matches!(-completion.result, i32::MIN..=0 | libc::EAGAIN | libc::EINTR);
        if is_good
            && matches!(socket.phase, Phase::Connecting | Phase::Open)
            && socket.sent_bytes < socket.sending_bytes
        {
            let (id, offset) = (socket.id, socket.sent_bytes);
            socket.is_sending = true;
            io.ring.push(Operation::Send { id, output, offset, is_last: false });
            if size == 0 {
                return;
            }
        } else {
            (socket.sending_bytes, socket.sent_bytes) = (0, 0);
        }
        let (phase, fetch) = (socket.phase, socket.fetch);
        match (phase, is_good, fetch) {
            (Phase::Connecting, true, _) => {
                socket.phase = Phase::Open;
                let is_plain = socket.tls.is_none();
                if let Some(fetch) = fetch {
                    let fetch = &mut self.fetches[index(fetch)];
                    fetch.since = io.now;
                    fetch.addresses = Vec::new();
                    if is_plain {
                        fetch.forget();
                    }
                }
            }
            (Phase::Connecting, false, Some(fetch)) => {
                let error = io::Error::from_raw_os_error(-completion.result);
                self.end(io, place);
                return self.try_next(io, fetch, reason(&error));
            }
            // It may have answered before it closed; what is received tells.
            (Phase::Open, false, _) => {
                socket.is_send_broken = true;
                socket.output = Vec::new();
            }
            _ => {}
        }
        self.settle(io, place);
        if let Some(fetch) = self.sockets[index(place)].fetch
            && self.sockets[index(place)].unsent_bytes() < WINDOW_BYTES
        {
            self.fetches[index(fetch)].since = io.now;
            self.notify(io, fetch);
        }
    }

    /// Bytes arrived, or a receive ended.
    pub(super) fn received<R: Ring>(
        &mut self,
        io: &mut Io<'_, R>,
        place: u32,
        completion: Completion,
    ) {
        let socket = &mut self.sockets[index(place)];
        if !completion.has_more {
            socket.is_receiving = false;
            socket.is_receive_cancelled = false;
        }
        let Some(buffer) = completion.buffer.filter(|_| completion.result > 0) else {
            if let Some(buffer) = completion.buffer {
                io.ring.recycle(buffer);
            }
            return self.receive_ended(io, place, completion.result);
        };
        let size = result_size(completion.result);
        io.counters.bytes_received += wide(size);
        if socket.phase != Phase::Open {
            io.ring.recycle(buffer);
            return self.settle(io, place);
        }
        let Some(tls) = &mut socket.tls else {
            match socket.fetch {
                Some(fetch) => {
                    self.take(io, fetch, size, buffer);
                    io.ring.recycle(buffer);
                    self.settle(io, place);
                }
                None => {
                    io.ring.recycle(buffer);
                    self.end(io, place);
                }
            }
            return;
        };
        let mut plain = Vec::new();
        let opened = unseal(tls, &io.ring.bytes(buffer)[..size], &mut plain);
        io.ring.recycle(buffer);
        seal(tls, &mut socket.output);
        let is_greeted = !tls.is_handshaking();
        let Some(fetch) = socket.fetch else {
            // A ticket for the next session may come while it rests, and the end. Bytes may not.
            let is_good = plain.is_empty() && opened.is_ok_and(|has_ended| !has_ended);
            return if is_good { self.settle(io, place) } else { self.end(io, place) };
        };
        let has_ended = match opened {
            // Before its last bytes are taken: what it answered with them does not rest on it.
            Ok(has_ended) => {
                self.sockets[index(place)].has_ended = has_ended;
                has_ended
            }
            Err(error) => {
                self.settle(io, place);
                return self.fail_at(io, fetch, error);
            }
        };
        if is_greeted && !self.fetches[index(fetch)].is_given {
            self.give_all(io, fetch);
            self.fetches[index(fetch)].forget();
            self.notify(io, fetch);
        }
        if !plain.is_empty() {
            self.take_plain(io, fetch, &plain);
        }
        if has_ended && self.sockets[index(place)].fetch == Some(fetch) {
            self.ended(io, fetch, true);
        }
        self.settle(io, place);
    }

    fn receive_ended<R: Ring>(&mut self, io: &mut Io<'_, R>, place: u32, result: i32) {
        let socket = &mut self.sockets[index(place)];
        match -result {
            libc::ENOBUFS => {
                io.counters.buffers_starved += 1;
                io.ring.offer_more();
                self.starved.push(place);
            }
            libc::ECANCELED | libc::EAGAIN | libc::EINTR => self.settle(io, place),
            _ if socket.phase != Phase::Open => self.settle(io, place),
            code => {
                // The end of the connection is that of a response by TLS only if TLS said so.
                let is_clean = code == 0 && socket.tls.is_none();
                match socket.fetch {
                    Some(fetch) => self.ended(io, fetch, is_clean),
                    None => self.end(io, place),
                }
            }
        }
    }

    /// Takes bytes from where they were received.
    fn take<R: Ring>(
        &mut self,
        io: &mut Io<'_, R>,
        fetch: u32,
        size: usize,
        buffer: crate::ring::BufferId,
    ) {
        let input = &mut self.fetches[index(fetch)].input;
        input.extend_from_slice(&io.ring.bytes(buffer)[..size]);
        self.take_plain(io, fetch, b"");
    }

    /// Ends a socket at once. Its fetch has none then.
    pub(super) fn end<R: Ring>(&mut self, io: &mut Io<'_, R>, place: u32) {
        let socket = &mut self.sockets[index(place)];
        if !matches!(socket.phase, Phase::Connecting | Phase::Open) {
            return;
        }
        socket.phase = Phase::Ending;
        socket.tls = None;
        socket.output = Vec::new();
        if let Some(fetch) = socket.fetch.take() {
            let fetch = &mut self.fetches[index(fetch)];
            fetch.socket = None;
            fetch.is_given = false;
        } else {
            self.idle.retain(|&rested| rested != place);
        }
        if socket.is_receiving && !socket.is_receive_cancelled {
            socket.is_receive_cancelled = true;
            io.ring.push(Operation::CancelReceive(socket.id));
        }
        if socket.is_sending {
            io.ring.push(Operation::CancelSend(socket.id));
        }
        self.settle(io, place);
    }

    /// A socket is closed, its slot free.
    pub(super) fn closed<R: Ring>(&mut self, io: &mut Io<'_, R>, place: u32) {
        let socket = &mut self.sockets[index(place)];
        if socket.phase != Phase::Closing {
            return;
        }
        *socket = Socket::with_id(socket.id.next());
        self.free.push(place);
        // One whose connect fails at once leaves the place to the next.
        while !self.free.is_empty()
            && let Some(id) = self.waiting.pop_front()
        {
            let is_alive = self.fetch(id).is_some_and(|fetch| {
                fetch.error.is_none()
                    && fetch.socket.is_none()
                    && matches!(fetch.receiving, Receiving::Head)
            });
            if is_alive {
                self.try_next(io, id.slot, FetchError::Unavailable);
            }
        }
    }
}

/// Begins to connect.
fn connect(address: SocketAddr) -> io::Result<OwnedFd> {
    use socket2::{Domain, Protocol, Type};
    let kind = Type::STREAM.nonblocking().cloexec();
    let socket = socket2::Socket::new(Domain::for_address(address), kind, Some(Protocol::TCP))?;
    // What is small is not held back for an acknowledgement: the end of a body is.
    socket.set_tcp_nodelay(true)?;
    match socket.connect(&address.into()) {
        Err(error) if error.raw_os_error() != Some(libc::EINPROGRESS) => Err(error),
        _ => Ok(socket.into()),
    }
}

fn greet(
    config: Option<&Arc<ClientConfig>>,
    origin: &Origin,
) -> Result<Box<ClientConnection>, FetchError> {
    let config = config.ok_or(FetchError::Internal)?;
    let name = ServerName::try_from(origin.host.clone()).map_err(|_| FetchError::Uri)?;
    let mut tls = ClientConnection::new(Arc::clone(config), name).map_err(|_| FetchError::Tls)?;
    tls.set_buffer_limit(None);
    Ok(Box::new(tls))
}

/// Takes what TLS has to send.
fn seal(tls: &mut ClientConnection, output: &mut Vec<u8>) {
    while tls.wants_write() {
        if tls.write_tls(output).is_err() {
            break;
        }
    }
}

/// Gives received bytes to TLS, and takes what they say. Returns whether the server has ended.
fn unseal(
    tls: &mut ClientConnection,
    mut bytes: &[u8],
    plain: &mut Vec<u8>,
) -> Result<bool, FetchError> {
    let mut has_ended = false;
    while !bytes.is_empty() && !has_ended {
        tls.read_tls(&mut bytes).map_err(|_| FetchError::Tls)?;
        let state = tls.process_new_packets().map_err(|error| match error {
            rustls::Error::InvalidCertificate(_) | rustls::Error::NoCertificatesPresented => {
                FetchError::Certificate
            }
            rustls::Error::AlertReceived(_) => FetchError::Alert,
            _ => FetchError::Tls,
        })?;
        let (start, size) = (plain.len(), state.plaintext_bytes_to_read());
        plain.resize(start + size, 0);
        tls.reader().read_exact(&mut plain[start..]).map_err(|_| FetchError::Tls)?;
        has_ended = state.peer_has_closed();
    }
    Ok(has_ended)
}
