//! The ring's stand-in where there is none: epoll, and a system call for each operation.
//!
//! ```text
//!   push --> queued --enter: begin--> armed, in a socket's place --readiness--> tried --> completion
//!                                          ^                          |
//!                                          +--- would block ----------+
//! ```
//!
//! Readiness is told once for each change (edge-triggered), so a socket is added to the epoll instance once and
//! keeps two flags: an operation is tried while its flag is set, and the flag falls when the kernel has nothing
//! more. A send is tried when it is pushed, for it almost always goes through.
//!
//! Invariants: what was asked for completes as it does on the ring, error numbers included; an enter makes a
//! bounded number of system calls; nothing is allocated after the start but by the sockets themselves.
//! Not here: what an operation means for a connection.
//! Hot path: `push`, `enter`, `next_completion`.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, ErrorKind, Read};
use std::net::{Shutdown, SocketAddr};
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use rustix::buffer::spare_capacity;
use rustix::event::{Timespec, epoll};
use socket2::Socket as Stream;

use crate::ring::{BufferId, Completed, Completion, ConnectionId, Operation, Ring, Wait};
use crate::settings::{LISTENERS_MAX, Settings};
use crate::width::{index, narrow, wide};

/// Events taken by one wait.
const EVENTS_MAX: usize = 256;
/// Pieces that one socket may receive before others have their turn.
const PIECES_PER_VISIT: u32 = 4;

/// What the watched event is told by, and from where on listeners are; sockets are told by their slot.
const EVENT: u64 = u64::MAX;
const LISTENERS: u64 = 1 << 32;
const LISTENERS_END: u64 = LISTENERS + LISTENERS_MAX as u64;

/// A queue of operations over epoll.
pub struct Epoll {
    epoll: OwnedFd,
    doors: Vec<Door>,
    event: Option<File>,
    is_event_ready: bool,
    is_wake_armed: bool,
    sockets: Vec<Socket>,
    /// Slots without a socket, for those that are accepted.
    free: Vec<u32>,
    /// The slots behind these are for sockets of ours.
    accepted_slots: u32,
    pool: Pool,
    /// Operations since the last enter.
    queued: Vec<Operation>,
    /// Slots with an operation that may go on.
    work: VecDeque<u32>,
    completions: VecDeque<Completion>,
    events: Vec<epoll::Event>,
    /// The last enter found completions and did not look for events.
    has_skipped: bool,
    enters: u64,
}

/// One listener.
#[derive(Debug)]
struct Door {
    listener: Stream,
    is_ready: bool,
    /// Accepts that are armed.
    accepts: u32,
}

/// One slot.
#[derive(Debug)]
struct Socket {
    stream: Option<Stream>,
    receive: Option<ConnectionId>,
    send: Option<ConnectionId>,
    output: Vec<u8>,
    offset: usize,
    is_readable: bool,
    is_writable: bool,
    /// The peer has ended its half or the connection: a short read says nothing then.
    has_ended: bool,
    is_in_work: bool,
    peer: Option<SocketAddr>,
}

/// Receive buffers, last given first taken.
#[derive(Debug)]
struct Pool {
    memory: Vec<u8>,
    size: usize,
    free: Vec<u16>,
    is_lent: Vec<bool>,
}

impl std::fmt::Debug for Epoll {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Epoll").field("enters", &self.enters).finish_non_exhaustive()
    }
}

impl Epoll {
    /// Makes one for the calling thread.
    ///
    /// # Errors
    /// If a setting is out of bounds, or the system has no descriptor left.
    pub fn new(settings: &Settings) -> io::Result<Self> {
        settings.check().map_err(|error| io::Error::new(ErrorKind::InvalidInput, error))?;
        let slots = settings.slots();
        Ok(Self {
            epoll: epoll::create(epoll::CreateFlags::CLOEXEC)?,
            doors: Vec::new(),
            event: None,
            is_event_ready: false,
            is_wake_armed: false,
            sockets: (0..slots + settings.outgoing_max).map(|_| Socket::free()).collect(),
            free: (0..slots).rev().collect(),
            accepted_slots: slots,
            pool: Pool::new(settings.buffers, index(settings.buffer_bytes)),
            queued: Vec::with_capacity(index(settings.entries)),
            work: VecDeque::with_capacity(index(slots)),
            completions: VecDeque::with_capacity(index(settings.entries)),
            events: Vec::with_capacity(EVENTS_MAX),
            has_skipped: false,
            enters: 0,
        })
    }

    fn complete(&mut self, completed: Completed, id: ConnectionId, result: i32) {
        let completion = Completion { completed, id, result, buffer: None, has_more: false };
        self.completions.push_back(completion);
    }

    fn begin(&mut self, operation: Operation) {
        match operation {
            Operation::Accept(number) => self.doors[usize::from(number)].accepts += 1,
            Operation::CancelAccepts(number) => self.fail_accepts(number, -libc::ECANCELED),
            Operation::Install(_) | Operation::Pass { .. } => {
                unreachable!("epoll has no ring to send to, and nothing arrives")
            }
            Operation::Receive(id) => {
                self.socket(id).receive = Some(id);
                self.try_later(id.slot());
            }
            Operation::Send { id, output, offset, is_last: _ } => {
                let socket = self.socket(id);
                assert!(socket.output.capacity() == 0, "one send of a connection is under way");
                socket.output = output;
                socket.offset = offset;
                socket.send = Some(id);
                self.try_later(id.slot());
            }
            Operation::Shutdown(id) => {
                self.enters += 1;
                let stream = self.socket(id).stream.as_ref();
                let result = stream.map_or(Ok(()), |stream| stream.shutdown(Shutdown::Write));
                self.complete(
                    Completed::Shutdown,
                    id,
                    result.map_or_else(|error| code(&error), |()| 0),
                );
            }
            Operation::CancelReceive(id) => {
                if self.socket(id).receive.take_if(|armed| *armed == id).is_some() {
                    self.complete(Completed::Receive, id, -libc::ECANCELED);
                }
            }
            Operation::CancelSend(id) => {
                if self.socket(id).send.take_if(|armed| *armed == id).is_some() {
                    self.complete(Completed::Send, id, -libc::ECANCELED);
                }
            }
            Operation::Close(id) => {
                self.enters += 1;
                let socket = self.socket(id);
                let (output, is_in_work) = (std::mem::take(&mut socket.output), socket.is_in_work);
                *socket = Socket { output, is_in_work, ..Socket::free() };
                if id.slot() < self.accepted_slots {
                    self.free.push(id.slot());
                }
                self.complete(Completed::Close, id, 0);
            }
            Operation::Wake => self.is_wake_armed = true,
        }
    }

    fn socket(&mut self, id: ConnectionId) -> &mut Socket {
        &mut self.sockets[index(id.slot())]
    }

    /// Puts a slot into the list of those to try, if there is something to try.
    fn try_later(&mut self, slot: u32) {
        let socket = &mut self.sockets[index(slot)];
        if socket.can_try() && !socket.is_in_work {
            socket.is_in_work = true;
            self.work.push_back(slot);
        }
    }

    /// Tries what may go on, each slot once.
    fn try_all(&mut self) {
        // First: what another thread said before a peer sent something is to be heard before it.
        if self.is_event_ready && self.is_wake_armed {
            self.take_event();
        }
        for _ in 0..self.work.len() {
            let Some(slot) = self.work.pop_front() else { break };
            self.sockets[index(slot)].is_in_work = false;
            self.try_send(slot);
            self.try_receive(slot);
            self.try_later(slot);
        }
        for number in 0..self.doors.len() {
            self.try_accept(number);
        }
    }

    fn try_send(&mut self, slot: u32) {
        let socket = &mut self.sockets[index(slot)];
        let (Some(id), true) = (socket.send, socket.is_writable) else { return };
        let Some(stream) = &mut socket.stream else { return };
        self.enters += 1;
        // A peer that has gone is an error and no signal, whoever the process is of.
        let rest = &socket.output[socket.offset..];
        match stream.send_with_flags(rest, libc::MSG_NOSIGNAL) {
            Ok(size) => {
                socket.send = None;
                self.complete(Completed::Send, id, narrow_result(size));
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => socket.is_writable = false,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => {
                socket.send = None;
                self.complete(Completed::Send, id, code(&error));
            }
        }
    }

    fn try_receive(&mut self, slot: u32) {
        for _ in 0..PIECES_PER_VISIT {
            let socket = &mut self.sockets[index(slot)];
            let (Some(id), true) = (socket.receive, socket.is_readable) else { return };
            let Some(stream) = &mut socket.stream else { return };
            let Some(buffer) = self.pool.take() else {
                socket.receive = None;
                return self.complete(Completed::Receive, id, -libc::ENOBUFS);
            };
            self.enters += 1;
            let target = self.pool.bytes_mut(buffer);
            let room = target.len();
            match stream.read(target) {
                Ok(size) if size > 0 => {
                    // Less than there was room for: that was all, and news will be told.
                    socket.is_readable = size == room || socket.has_ended;
                    self.completions.push_back(Completion {
                        completed: Completed::Receive,
                        id,
                        result: narrow_result(size),
                        buffer: Some(buffer),
                        has_more: true,
                    });
                }
                read => {
                    self.pool.give(buffer);
                    match read {
                        Err(error) if error.kind() == ErrorKind::WouldBlock => {
                            socket.is_readable = false;
                        }
                        Err(error) if error.kind() == ErrorKind::Interrupted => {}
                        read => {
                            socket.receive = None;
                            let result = read.map_or_else(|error| code(&error), |_| 0);
                            self.complete(Completed::Receive, id, result);
                        }
                    }
                }
            }
        }
    }

    fn try_accept(&mut self, number: usize) {
        let id = ConnectionId::new(narrow(number), 0);
        while self.doors[number].accepts > 0 && self.doors[number].is_ready {
            self.enters += 2;
            let accepted = self.doors[number].listener.accept();
            let accepted =
                accepted.and_then(|(stream, peer)| self.install(stream, peer.as_socket()));
            let door = &mut self.doors[number];
            match accepted {
                Ok(slot) => {
                    door.accepts -= 1;
                    self.complete(Completed::Accept, id, slot);
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => door.is_ready = false,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::ConnectionAborted => {
                    door.accepts -= 1;
                    self.complete(Completed::Accept, id, code(&error));
                }
                // Out of something: the next would fail as well.
                Err(error) => self.fail_accepts(crate::width::byte(number), code(&error)),
            }
        }
    }

    /// Ends all accepts of a listener.
    fn fail_accepts(&mut self, number: u8, result: i32) {
        let door = &mut self.doors[usize::from(number)];
        for _ in 0..std::mem::take(&mut door.accepts) {
            self.complete(Completed::Accept, ConnectionId::new(number.into(), 0), result);
        }
    }

    /// Gives a socket its slot.
    fn install(&mut self, stream: Stream, peer: Option<SocketAddr>) -> io::Result<i32> {
        stream.set_nonblocking(true)?;
        let slot = *self.free.last().expect("accepts and connections fit the table together");
        self.put(slot, stream, peer)?;
        self.free.pop();
        Ok(i32::try_from(slot).unwrap_or(i32::MAX))
    }

    /// Puts a socket that does not block into a slot.
    fn put(&mut self, slot: u32, stream: Stream, peer: Option<SocketAddr>) -> io::Result<()> {
        let wanted = epoll::EventFlags::IN
            | epoll::EventFlags::OUT
            | epoll::EventFlags::RDHUP
            | epoll::EventFlags::ET;
        epoll::add(&self.epoll, &stream, epoll::EventData::new_u64(slot.into()), wanted)?;
        let socket = &mut self.sockets[index(slot)];
        let is_in_work = socket.is_in_work;
        *socket = Socket { stream: Some(stream), is_in_work, peer, ..Socket::free() };
        Ok(())
    }

    fn take_event(&mut self) {
        let mut count = [0; 8];
        self.enters += 1;
        let read = self.event.as_mut().map(|event| event.read(&mut count));
        self.is_event_ready = false;
        self.is_wake_armed = false;
        let result = match read {
            Some(Err(error)) if error.kind() == ErrorKind::WouldBlock => {
                self.is_wake_armed = true;
                return;
            }
            Some(Err(error)) => code(&error),
            _ => 8,
        };
        self.complete(Completed::Wake, ConnectionId::new(0, 0), result);
    }

    /// Asks what has become ready, and sleeps for it if there is time.
    fn look(&mut self, timeout: Option<Duration>) -> io::Result<()> {
        self.enters += 1;
        let timeout = timeout.map(whole_milliseconds);
        self.events.clear();
        match epoll::wait(&self.epoll, spare_capacity(&mut self.events), timeout.as_ref()) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        for place in 0..self.events.len() {
            let event = self.events[place];
            let (flags, data) = (event.flags, event.data.u64());
            match data {
                EVENT => self.is_event_ready = true,
                LISTENERS..LISTENERS_END => {
                    let number = index(crate::width::low(data - LISTENERS));
                    self.doors[number].is_ready = true;
                }
                slot => {
                    let slot = crate::width::low(slot);
                    let socket = &mut self.sockets[index(slot)];
                    let ended =
                        epoll::EventFlags::RDHUP | epoll::EventFlags::HUP | epoll::EventFlags::ERR;
                    let has_ended = flags.intersects(ended);
                    socket.has_ended |= has_ended;
                    socket.is_readable |= has_ended || flags.contains(epoll::EventFlags::IN);
                    socket.is_writable |= flags.intersects(
                        epoll::EventFlags::OUT | epoll::EventFlags::HUP | epoll::EventFlags::ERR,
                    );
                    self.try_later(slot);
                }
            }
        }
        Ok(())
    }
}

impl Ring for Epoll {
    fn listen(&mut self, listener: Stream) {
        let data = epoll::EventData::new_u64(LISTENERS + wide(self.doors.len()));
        let added = listener.set_nonblocking(true).and_then(|()| {
            let wanted = epoll::EventFlags::IN | epoll::EventFlags::ET;
            Ok(epoll::add(&self.epoll, &listener, data, wanted)?)
        });
        added.expect("a new epoll instance takes a listener");
        self.doors.push(Door { listener, is_ready: true, accepts: 0 });
    }

    fn unlisten(&mut self) {
        self.doors.clear();
    }

    fn watch(&mut self, event: OwnedFd) {
        assert!(self.event.is_none(), "a ring watches one event");
        let wanted = epoll::EventFlags::IN | epoll::EventFlags::ET;
        epoll::add(&self.epoll, event.as_fd(), epoll::EventData::new_u64(EVENT), wanted)
            .expect("a new epoll instance takes an event");
        self.event = Some(event.into());
    }

    #[inline]
    fn push(&mut self, operation: Operation) {
        self.queued.push(operation);
    }

    fn enter(&mut self, wait: Wait, timeout: Option<Duration>) -> io::Result<()> {
        let mut queued = std::mem::take(&mut self.queued);
        for operation in queued.drain(..) {
            self.begin(operation);
        }
        self.queued = queued;
        self.try_all();
        // What is done already needs no other events to go on with, but those must not wait for ever.
        if !self.completions.is_empty() && !self.has_skipped {
            self.has_skipped = true;
            return Ok(());
        }
        self.has_skipped = false;
        let can_sleep = wait == Wait::Block && self.completions.is_empty() && self.work.is_empty();
        self.look(if can_sleep { timeout } else { Some(Duration::ZERO) })?;
        self.try_all();
        Ok(())
    }

    #[inline]
    fn next_completion(&mut self) -> Option<Completion> {
        self.completions.pop_front()
    }

    #[inline]
    fn has_completion(&mut self) -> bool {
        !self.completions.is_empty()
    }

    #[inline]
    fn bytes(&self, buffer: BufferId) -> &[u8] {
        self.pool.bytes(buffer)
    }

    #[inline]
    fn bytes_mut(&mut self, buffer: BufferId) -> &mut [u8] {
        self.pool.bytes_mut(buffer)
    }

    #[inline]
    fn recycle(&mut self, buffer: BufferId) {
        self.pool.give(buffer);
    }

    #[inline]
    fn reclaim(&mut self, id: ConnectionId) -> Vec<u8> {
        std::mem::take(&mut self.socket(id).output)
    }

    fn peer(&mut self, completion: Completion) -> Option<SocketAddr> {
        let slot = usize::try_from(completion.result).ok()?;
        self.sockets.get(slot)?.peer
    }

    fn adopt(&mut self, id: ConnectionId, socket: OwnedFd) -> io::Result<()> {
        let place = self.sockets.get(index(id.slot()));
        if id.slot() < self.accepted_slots || place.is_none_or(|socket| socket.stream.is_some()) {
            return Err(ErrorKind::InvalidInput.into());
        }
        self.enters += 1;
        self.put(id.slot(), socket.into(), None)
    }

    fn enters(&self) -> u64 {
        self.enters
    }
}

impl Socket {
    const fn free() -> Self {
        Self {
            stream: None,
            receive: None,
            send: None,
            output: Vec::new(),
            offset: 0,
            is_readable: false,
            // Until the kernel says otherwise: a new socket has room.
            is_writable: true,
            has_ended: false,
            is_in_work: false,
            peer: None,
        }
    }

    const fn can_try(&self) -> bool {
        (self.receive.is_some() && self.is_readable) || (self.send.is_some() && self.is_writable)
    }
}

impl Pool {
    fn new(count: u16, size: usize) -> Self {
        Self {
            memory: vec![0; usize::from(count) * size],
            size,
            free: (0..count).rev().collect(),
            is_lent: vec![false; usize::from(count)],
        }
    }

    fn take(&mut self) -> Option<BufferId> {
        let buffer = self.free.pop()?;
        self.is_lent[usize::from(buffer)] = true;
        Some(BufferId(buffer))
    }

    fn give(&mut self, buffer: BufferId) {
        let is_lent = &mut self.is_lent[usize::from(buffer.0)];
        assert!(std::mem::take(is_lent), "a buffer is given back once");
        self.free.push(buffer.0);
    }

    fn bytes(&self, buffer: BufferId) -> &[u8] {
        assert!(self.is_lent[usize::from(buffer.0)], "a buffer is read while it is lent");
        let start = usize::from(buffer.0) * self.size;
        &self.memory[start..start + self.size]
    }

    fn bytes_mut(&mut self, buffer: BufferId) -> &mut [u8] {
        assert!(self.is_lent[usize::from(buffer.0)], "a buffer is read while it is lent");
        let start = usize::from(buffer.0) * self.size;
        &mut self.memory[start..start + self.size]
    }
}

/// Returns an error as the ring has it: a negative number.
fn code(error: &io::Error) -> i32 {
    -error.raw_os_error().unwrap_or(libc::EIO)
}

/// Returns the size of one system call as a result; the kernel moves no more than 31 bits at a time.
fn narrow_result(size: usize) -> i32 {
    i32::try_from(size).unwrap_or(i32::MAX)
}

/// Rounds up to what every kernel's wait can tell: rounded down, it would return early again and again.
fn whole_milliseconds(time: Duration) -> Timespec {
    let milliseconds = wide(time.as_nanos().div_ceil(1_000_000).try_into().unwrap_or(usize::MAX));
    Timespec {
        tv_sec: i64::try_from(milliseconds / 1000).unwrap_or(i64::MAX),
        tv_nsec: i64::from(narrow(usize::try_from(milliseconds % 1000).unwrap_or(0))) * 1_000_000,
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn a_wait_is_never_shorter_than_asked_for() {
        let of = |time| {
            let Timespec { tv_sec, tv_nsec } = whole_milliseconds(time);
            (tv_sec, tv_nsec)
        };
        assert_eq!(of(Duration::ZERO), (0, 0));
        assert_eq!(of(Duration::from_nanos(1)), (0, 1_000_000));
        assert_eq!(of(Duration::from_millis(1500)), (1, 500_000_000));
    }

    #[test]
    #[should_panic(expected = "given back once")]
    fn a_buffer_given_back_twice_is_a_bug() {
        let mut pool = Pool::new(2, 64);
        let buffer = pool.take().unwrap();
        pool.give(buffer);
        pool.give(buffer);
    }

    #[test]
    fn an_empty_pool_ends_the_receive() {
        let settings = Settings { connections_max: 2, buffers: 1, ..Settings::default() };
        let mut ring = Epoll::new(&settings).unwrap();
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        ring.listen(listener.into());
        ring.push(Operation::Accept(0));
        let mut peer = std::net::TcpStream::connect(address).unwrap();
        peer.write_all(b"hello").unwrap();
        let next = |ring: &mut Epoll| loop {
            if let Some(completion) = ring.next_completion() {
                return completion;
            }
            ring.enter(Wait::Block, None).unwrap();
        };
        assert_eq!((next(&mut ring)).result, 0, "the first slot");
        let id = ConnectionId::new(0, 0);
        ring.push(Operation::Receive(id));
        let received = next(&mut ring);
        let buffer = received.buffer.unwrap();
        assert_eq!(&ring.bytes(buffer)[..5], b"hello");
        peer.write_all(b"more").unwrap();
        let starved = next(&mut ring);
        assert_eq!((starved.result, starved.has_more), (-libc::ENOBUFS, false));
        ring.recycle(buffer);
        ring.push(Operation::Receive(id));
        let received = next(&mut ring);
        assert_eq!(received.result, 4);
        ring.recycle(received.buffer.unwrap());
        drop(peer);
        assert_eq!(next(&mut ring).result, 0, "the end");
        ring.push(Operation::Close(id));
        assert_eq!(next(&mut ring).completed, Completed::Close);
    }
}
