//! One thread of load: due requests go onto connections, responses come off them.
//!
//! ```text
//!   schedule --due--> waiting --a connection has room--> flight --response--> record
//!                       (never held back: a request waits, and its latency grows)
//! ```
//!
//! A connection's life: idle (no socket) -> open -> ending (nothing more is sent, and its operations are waited
//! for) -> closing -> idle.
//!
//! Invariants: requests of a connection are answered in order; a slot is used again only after its socket was
//! closed and every operation on it has completed.

mod answers; // responses, matched and compared
mod connect; // a socket to the server

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::io;
use std::time::{Duration, Instant};

use midge_net::ring::{Completed, Completion, ConnectionId, Operation, Ring, Wait};
use midge_net::settings::{BUFFERS_DEFAULT, BUFFERS_MAX};
use midge_net::uring::{Uring, UringError};
use midge_net::{RingTier, Settings};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;
use rand_distr::Distribution;
use rand_distr::weighted::WeightedAliasIndex;

use self::answers::{Answers, Current, Flight};
use self::connect::{Connect, SLOW_READ_BYTES, open};
use crate::plan::{Choice, Fields, Pace, Plan};
use crate::record::{EXAMPLE_BYTES_MAX, Progress, Record, Wrong, thread_cpu};
use crate::response::{ReadError, Reader};
use crate::schedule::{Due, Piece, Schedule};
use crate::trace::Work;

/// Requests that wait for a connection, of one thread; more are counted as not sent.
pub const WAITING_MAX: usize = 1 << 20;

/// A thread that has less time than this until a request is due does not go to sleep.
const SLEEP_NS_MIN: u64 = 200_000;

/// So much earlier than the next request it wakes.
const WAKE_EARLY_NS: u64 = 100_000;

/// How often deadlines are looked after.
const HOUSEKEEPING_NS: u64 = 10_000_000;

/// No receive buffer was free (Linux, errno-base.h).
const ENOBUFS: i32 = 105;

/// The operation was cancelled.
const ECANCELED: i32 = 125;

/// Which part of the plan a thread does.
#[derive(Debug, Clone, Copy)]
pub struct Share {
    /// Number of the thread.
    pub thread: usize,
    /// Threads in all.
    pub threads: usize,
}

impl Share {
    /// Returns how many of `total` are this thread's.
    #[must_use]
    pub const fn of(self, total: usize) -> usize {
        total / self.threads + if self.thread < total % self.threads { 1 } else { 0 }
    }
}

/// One thread of load.
pub struct Client<'a> {
    plan: &'a Plan,
    share: Share,
    ring: Uring,
    peers: Vec<Peer>,
    /// Connections with room for a request, each once.
    ready: VecDeque<u32>,
    /// Connections with bytes to send.
    unsent: Vec<u32>,
    spare: Vec<Vec<u8>>,
    /// Requests that are due.
    waiting: VecDeque<Due>,
    /// Connections that rest between two pieces, and until when.
    resting: BinaryHeap<Reverse<(u64, u32, Rest)>>,
    schedule: Option<std::iter::Peekable<Schedule>>,
    popularity: Option<WeightedAliasIndex<f64>>,
    random: ChaCha8Rng,
    /// Requests made so far.
    count: u64,
    under_way: usize,
    began: Instant,
    window: std::ops::Range<u64>,
    record: Record,
    marks: Marks,
}

/// What a connection rests from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Rest {
    Reading,
    Writing,
}

/// Where the window's counts began.
#[derive(Debug, Default)]
struct Marks {
    is_open: bool,
    is_over: bool,
    cpu: Duration,
    enters: u64,
    next_housekeeping: u64,
    /// What was told so far: responses of any time, and wrong answers.
    answered: u64,
    told: (u64, u64),
}

struct Peer {
    id: ConnectionId,
    life: Life,
    /// True while it is in the list of those with room.
    is_ready: bool,
    is_receiving: bool,
    is_sending: bool,
    /// True once the request was made that asks for the connection's end.
    is_last_made: bool,
    is_in_unsent: bool,
    /// True until the next part of a request may be sent.
    is_resting: bool,
    made: u32,
    flight: VecDeque<Flight>,
    output: Vec<u8>,
    /// How much of the output has left, when it leaves in parts.
    output_at: usize,
    sending_bytes: usize,
    sent_bytes: usize,
    reader: Reader,
    current: Current,
    /// When it began to end.
    ending_since: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Life {
    Idle,
    Open,
    Ending,
    Closing,
}

impl<'a> Client<'a> {
    /// Makes the ring of the calling thread and the connections that are there from the start.
    ///
    /// # Errors
    /// If the kernel has no ring, or the server takes no connections.
    pub fn new(plan: &'a Plan, share: Share) -> Result<Self, ClientError> {
        let connections = share.of(plan.connections).max(1);
        let buffers = connections.next_power_of_two().clamp(BUFFERS_DEFAULT.into(), 4096);
        let settings = Settings {
            connections_max: u32::try_from(connections).unwrap_or(u32::MAX),
            buffers: u16::try_from(buffers).unwrap_or(BUFFERS_MAX),
            ..Settings::default()
        };
        let ring = if plan.read_rate == 0 {
            Uring::new(&settings)?
        } else {
            // One receive for each piece: the next begins when its time has come.
            let settings = Settings { buffer_bytes: SLOW_READ_BYTES, ..settings };
            Uring::of_tier(&settings, RingTier::C)?
        };
        let warmup = nanoseconds(plan.warmup);
        let window = warmup..warmup + nanoseconds(plan.duration);
        let popularity = match &plan.choice {
            Choice::InTurn => None,
            Choice::Zipf(exponent) => Some(zipf(plan.targets.len(), *exponent)),
            Choice::Weighted(weights) => {
                assert_eq!(weights.len(), plan.targets.len(), "a weight for each target");
                Some(weighted(weights.to_vec()))
            }
        };
        let mut client = Self {
            plan,
            share,
            ring,
            peers: Vec::with_capacity(connections),
            ready: VecDeque::with_capacity(connections),
            unsent: Vec::with_capacity(connections),
            spare: Vec::new(),
            waiting: VecDeque::new(),
            resting: BinaryHeap::new(),
            schedule: schedule(plan, share).map(Iterator::peekable),
            popularity,
            random: ChaCha8Rng::seed_from_u64(plan.seed ^ 0x7a69_7066 ^ share.thread as u64),
            count: 0,
            under_way: 0,
            began: Instant::now(),
            window,
            record: Record::new(),
            marks: Marks::default(),
        };
        for slot in 0..connections {
            client.peers.push(Peer::new(slot as u64));
            // One that carries one request is made when that is due: making it is a part of its latency.
            if plan.requests_per_connection != Some(1) {
                client.connect(slot, Connect::Wait)?;
            }
            client.make_ready(slot);
        }
        Ok(client)
    }

    /// Runs to the end of the plan; `began` is when all threads began.
    ///
    /// # Errors
    /// If the ring fails.
    pub fn run(mut self, began: Instant, progress: &Progress) -> Result<Record, ClientError> {
        self.began = began;
        loop {
            let now = self.now();
            self.keep_marks(now, progress);
            self.wake(now);
            self.release(now);
            self.dispatch(now);
            if self.is_done(now) {
                break;
            }
            let (wait, timeout) = self.patience(now);
            self.ring.enter(wait, timeout).map_err(ClientError::Ring)?;
            let now = self.now();
            while let Some(completion) = self.ring.next_completion() {
                self.completed(completion, now);
            }
        }
        self.give_up();
        self.tell(progress);
        Ok(self.record)
    }

    #[inline]
    fn now(&self) -> u64 {
        nanoseconds(self.began.elapsed())
    }

    /// Notes where the time that counts begins and ends, and looks after deadlines.
    fn keep_marks(&mut self, now: u64, progress: &Progress) {
        if !self.marks.is_open && self.window.start <= now {
            self.marks.is_open = true;
            self.marks.cpu = thread_cpu();
            self.marks.enters = self.ring.enters();
        }
        if !self.marks.is_over && self.window.end <= now {
            self.marks.is_over = true;
            self.record.cpu = thread_cpu() - self.marks.cpu;
            self.record.enters = self.ring.enters() - self.marks.enters;
        }
        if self.marks.next_housekeeping <= now {
            self.marks.next_housekeeping = now + HOUSEKEEPING_NS;
            self.tell(progress);
            self.end_late(now);
        }
    }

    fn tell(&mut self, progress: &Progress) {
        let counts = (self.marks.answered, self.record.wrong_total());
        progress.add(counts.0 - self.marks.told.0, counts.1 - self.marks.told.1);
        self.marks.told = counts;
    }

    /// Goes on with connections that have rested.
    #[inline]
    fn wake(&mut self, now: u64) {
        while let Some(Reverse((until, slot, rest))) = self.resting.peek().copied() {
            if now < until {
                return;
            }
            self.resting.pop();
            let slot = slot as usize;
            let peer = &mut self.peers[slot];
            match rest {
                Rest::Reading if peer.life == Life::Open && !peer.is_receiving => {
                    self.receive(slot)
                }
                Rest::Reading => {}
                Rest::Writing => {
                    peer.is_resting = false;
                    self.flush(slot, now);
                }
            }
        }
    }

    /// Takes from the schedule what is due.
    #[inline]
    fn release(&mut self, now: u64) {
        let Some(schedule) = &mut self.schedule else { return };
        while let Some(due) = schedule.next_if(|due| due.ns <= now) {
            if self.window.contains(&due.ns) {
                self.record.lag.saturating_record(now - due.ns);
            }
            if self.waiting.len() < WAITING_MAX {
                self.waiting.push_back(due);
            } else {
                self.record.unsent += 1;
            }
        }
    }

    /// Puts requests onto connections while there are both.
    #[inline]
    fn dispatch(&mut self, now: u64) {
        let is_closed_loop = self.schedule.is_none();
        if is_closed_loop && self.marks.is_over {
            self.ready.clear();
        }
        while let Some(&slot) = self.ready.front() {
            let due = if is_closed_loop {
                Due { ns: now, call: None }
            } else {
                match self.waiting.pop_front() {
                    Some(due) => due,
                    None => break,
                }
            };
            self.ready.pop_front();
            self.peers[slot as usize].is_ready = false;
            self.send(slot as usize, due, now);
        }
        if !is_closed_loop {
            self.record.waiting_max = self.record.waiting_max.max(self.waiting.len() as u64);
        }
        while let Some(slot) = self.unsent.pop() {
            self.peers[slot as usize].is_in_unsent = false;
            self.flush(slot as usize, now);
        }
    }

    /// Makes a request on a connection that has room.
    fn send(&mut self, slot: usize, due: Due, now: u64) {
        let number = self.count * self.share.threads as u64 + self.share.thread as u64;
        self.count += 1;
        let count = self.plan.targets.len();
        let target = match (due.call, &self.popularity) {
            (Some((function, _)), _) => function as usize % count,
            (None, Some(popularity)) => popularity.sample(&mut self.random),
            (None, None) => usize::try_from(number).unwrap_or(0) % count,
        };
        if self.peers[slot].life == Life::Idle
            && let Err(error) = self.connect(slot, Connect::Go)
        {
            // It is tried again after a while (`end_late`).
            self.record.count_wrong(Wrong::Connect, || format!("{:#}", anyhow::Error::from(error)));
            return;
        }
        let peer = &mut self.peers[slot];
        peer.made += 1;
        let of = &self.plan.targets[target];
        let is_last = self.plan.requests_per_connection.is_some_and(|count| count <= peer.made);
        let request = if is_last { &of.last_request } else { &of.request };
        let work = due.call.map_or(Work::default(), |(_, work)| work);
        let fields = Fields { number, work };
        request.write(&fields, &mut peer.output);
        peer.is_last_made = is_last;
        #[expect(clippy::cast_possible_truncation, reason = "targets are fewer than 2^32")]
        let target = target as u32;
        peer.flight.push_back(Flight { due: due.ns, sent: now, fields, target });
        self.under_way += 1;
        self.mark_unsent(slot);
        self.make_ready(slot);
    }

    #[inline]
    fn mark_unsent(&mut self, slot: usize) {
        let peer = &mut self.peers[slot];
        if !peer.is_in_unsent && !peer.is_sending {
            peer.is_in_unsent = true;
            self.unsent.push(narrow(slot));
        }
    }

    /// Lists a connection if it has room.
    #[inline]
    fn make_ready(&mut self, slot: usize) {
        let peer = &mut self.peers[slot];
        let has_room = match peer.life {
            Life::Idle => true,
            Life::Open => !peer.is_last_made && peer.flight.len() < self.plan.depth,
            Life::Ending | Life::Closing => false,
        };
        if has_room && !peer.is_ready {
            peer.is_ready = true;
            // A pipeline is filled before another connection is taken; else connections take turns.
            if peer.flight.is_empty() {
                self.ready.push_back(narrow(slot));
            } else {
                self.ready.push_front(narrow(slot));
            }
        }
    }

    fn connect(&mut self, slot: usize, how: Connect) -> Result<(), ClientError> {
        let address = &self.plan.address;
        let is_slow = self.plan.read_rate > 0;
        let socket = open(address, how, is_slow).map_err(ClientError::Connect)?;
        let peer = &mut self.peers[slot];
        self.ring.adopt(peer.id, socket).map_err(ClientError::Ring)?;
        peer.open();
        self.record.connections += 1;
        self.receive(slot);
        Ok(())
    }

    fn receive(&mut self, slot: usize) {
        let peer = &mut self.peers[slot];
        peer.is_receiving = true;
        self.ring.push(Operation::Receive(peer.id));
    }

    /// Sends what a connection has, or the next part of it.
    fn flush(&mut self, slot: usize, now: u64) {
        let peer = &mut self.peers[slot];
        let has_none = peer.output.len() == peer.output_at;
        if peer.is_sending || peer.is_resting || peer.life != Life::Open || has_none {
            return;
        }
        let mut output = self.spare.pop().unwrap_or_default();
        match self.plan.split {
            Some(size) if size < peer.output.len() - peer.output_at => {
                output.extend_from_slice(&peer.output[peer.output_at..peer.output_at + size]);
                peer.output_at += size;
            }
            Some(_) => {
                output.extend_from_slice(&peer.output[peer.output_at..]);
                peer.output.clear();
                peer.output_at = 0;
            }
            None => std::mem::swap(&mut output, &mut peer.output),
        }
        peer.is_sending = true;
        peer.sending_bytes = output.len();
        peer.sent_bytes = 0;
        if self.plan.write_rate > 0 {
            peer.is_resting = true;
            let until = now + rest_ns(output.len(), self.plan.write_rate);
            self.resting.push(Reverse((until, narrow(slot), Rest::Writing)));
        }
        self.ring.push(Operation::Send { id: peer.id, output, offset: 0, is_last: false });
    }

    fn completed(&mut self, completion: Completion, now: u64) {
        let slot = completion.id.slot() as usize;
        let is_known = self.peers.get(slot).is_some_and(|peer| peer.id == completion.id);
        match completion.completed {
            Completed::Receive if is_known => self.received(slot, completion, now),
            Completed::Send if is_known => self.sent(slot, completion, now),
            Completed::Close if is_known => {
                let peer = &mut self.peers[slot];
                peer.id = peer.id.next();
                peer.life = Life::Idle;
                self.make_ready(slot);
            }
            _ => {
                if let Some(buffer) = completion.buffer {
                    self.ring.recycle(buffer);
                }
            }
        }
    }

    fn sent(&mut self, slot: usize, completion: Completion, now: u64) {
        let mut output = self.ring.reclaim(completion.id);
        let peer = &mut self.peers[slot];
        peer.is_sending = false;
        match usize::try_from(completion.result) {
            Ok(size) => {
                peer.sent_bytes += size;
                if peer.sent_bytes < peer.sending_bytes && peer.life == Life::Open {
                    peer.is_sending = true;
                    let (id, offset) = (peer.id, peer.sent_bytes);
                    self.ring.push(Operation::Send { id, output, offset, is_last: false });
                    return;
                }
            }
            Err(_) => self.fail(slot, completion.result, now),
        }
        output.clear();
        self.spare.push(output);
        self.flush(slot, now);
        self.close_if_quiet(slot);
    }

    fn received(&mut self, slot: usize, completion: Completion, now: u64) {
        if !completion.has_more {
            self.peers[slot].is_receiving = false;
        }
        if let Some(buffer) = completion.buffer {
            let size = usize::try_from(completion.result).unwrap_or(0);
            let peer = &mut self.peers[slot];
            if peer.life == Life::Open {
                let Peer { flight, current, reader, .. } = peer;
                let mut answers = Answers::new(
                    flight,
                    current,
                    &self.plan.targets,
                    &mut self.record,
                    &self.window,
                    now,
                );
                let bytes = &mut self.ring.bytes_mut(buffer)[..size];
                let result = reader.read(bytes, &mut answers);
                let (ended, has_last) = (answers.ended, answers.has_last);
                self.under_way -= ended;
                self.marks.answered += ended as u64;
                if let Err(error) = result {
                    let bytes = &self.ring.bytes(buffer)[..size.min(EXAMPLE_BYTES_MAX)];
                    let text = bytes.escape_ascii().to_string();
                    let wrong = match error {
                        ReadError::Malformed(_) => Wrong::Malformed,
                        ReadError::Unexpected => Wrong::Unexpected,
                    };
                    self.record.count_wrong(wrong, || text);
                    self.abort(slot, now);
                } else {
                    let peer = &mut self.peers[slot];
                    // The server says that it closes: its end is waited for.
                    peer.is_last_made |= has_last;
                    if peer.is_last_made && peer.flight.is_empty() {
                        peer.ending_since = now;
                    }
                }
                self.make_ready(slot);
            }
            self.ring.recycle(buffer);
        }
        match completion.result {
            1.. => {}
            0 => self.ended(slot, now),
            error if error == -ENOBUFS => {
                self.ring.offer_more();
            }
            error if error == -ECANCELED => {}
            error => self.fail(slot, error, now),
        }
        let peer = &self.peers[slot];
        if peer.life == Life::Open && !peer.is_receiving {
            let size = usize::try_from(completion.result).unwrap_or(0);
            if self.plan.read_rate > 0 && size > 0 {
                let until = now + rest_ns(size, self.plan.read_rate);
                self.resting.push(Reverse((until, narrow(slot), Rest::Reading)));
            } else {
                self.receive(slot);
            }
        }
        self.close_if_quiet(slot);
    }

    /// The server has ended the connection.
    fn ended(&mut self, slot: usize, now: u64) {
        let peer = &mut self.peers[slot];
        if peer.life != Life::Open {
            return;
        }
        let Peer { flight, current, reader, .. } = peer;
        let mut answers =
            Answers::new(flight, current, &self.plan.targets, &mut self.record, &self.window, now);
        reader.finish(&mut answers);
        let ended = answers.ended;
        self.under_way -= ended;
        self.marks.answered += ended as u64;
        self.fail_flight(slot, Wrong::Closed, "the server closed the connection");
        self.end(slot, now);
    }

    /// An operation of the connection failed.
    #[cold]
    fn fail(&mut self, slot: usize, error: i32, now: u64) {
        if self.peers[slot].life != Life::Open {
            return;
        }
        let error = io::Error::from_raw_os_error(-error);
        let is_new = self.peers[slot].made == 1;
        let wrong = match error.kind() {
            io::ErrorKind::ConnectionRefused
            | io::ErrorKind::HostUnreachable
            | io::ErrorKind::NetworkUnreachable
            | io::ErrorKind::TimedOut
                if is_new =>
            {
                Wrong::Connect
            }
            _ => Wrong::Closed,
        };
        self.fail_flight(slot, wrong, &error.to_string());
        self.abort(slot, now);
    }

    /// Counts every request under way on a connection as wrong.
    fn fail_flight(&mut self, slot: usize, wrong: Wrong, why: &str) {
        let peer = &mut self.peers[slot];
        self.under_way -= peer.flight.len();
        for flight in peer.flight.drain(..) {
            self.record.count_wrong(wrong, || format!("request {}: {why}", flight.fields.number));
        }
    }

    /// Ends a connection that is of no use any more.
    #[cold]
    fn abort(&mut self, slot: usize, now: u64) {
        self.fail_flight(slot, Wrong::Closed, "the connection was given up");
        self.end(slot, now);
        let peer = &self.peers[slot];
        if peer.is_receiving {
            self.ring.push(Operation::CancelReceive(peer.id));
        }
        if peer.is_sending {
            self.ring.push(Operation::CancelSend(peer.id));
        }
        self.close_if_quiet(slot);
    }

    fn end(&mut self, slot: usize, now: u64) {
        let peer = &mut self.peers[slot];
        if peer.life == Life::Open {
            peer.life = Life::Ending;
            peer.ending_since = now;
            peer.output.clear();
            peer.output_at = 0;
        }
    }

    fn close_if_quiet(&mut self, slot: usize) {
        let peer = &mut self.peers[slot];
        if peer.life == Life::Ending && !peer.is_receiving && !peer.is_sending {
            peer.life = Life::Closing;
            self.ring.push(Operation::Close(peer.id));
        }
    }

    /// Ends connections whose request, or whose end, is overdue.
    fn end_late(&mut self, now: u64) {
        let timeout = nanoseconds(self.plan.timeout);
        for slot in 0..self.peers.len() {
            let peer = &self.peers[slot];
            if peer.life == Life::Idle {
                self.make_ready(slot);
                continue;
            }
            if peer.life != Life::Open {
                continue;
            }
            match peer.flight.front() {
                Some(flight) if flight.sent + timeout < now => {
                    self.fail_flight(slot, Wrong::Timeout, "no response in time");
                    self.abort(slot, now);
                }
                None if peer.is_last_made && peer.ending_since + timeout < now => {
                    self.record.count_wrong(Wrong::NotClosed, || {
                        "the connection stays open after its last response".into()
                    });
                    self.abort(slot, now);
                }
                _ => {}
            }
        }
    }

    fn is_done(&self, now: u64) -> bool {
        let is_drained = self.under_way == 0 && self.waiting.is_empty();
        let patience = nanoseconds(self.plan.timeout);
        self.marks.is_over && (is_drained || self.window.end + patience < now)
    }

    /// Counts what was not answered to the end.
    fn give_up(&mut self) {
        self.record.unsent += self.waiting.len() as u64;
        for slot in 0..self.peers.len() {
            self.fail_flight(slot, Wrong::Timeout, "no response by the end of the run");
        }
    }

    /// Returns how long the ring may sleep.
    #[inline]
    fn patience(&mut self, now: u64) -> (Wait, Option<Duration>) {
        if self.plan.spins {
            return (Wait::Poll, None);
        }
        let housekeeping = self.marks.next_housekeeping.saturating_sub(now);
        let mut sleep = housekeeping.max(1);
        if let Some(Reverse((until, ..))) = self.resting.peek() {
            sleep = sleep.min(until.saturating_sub(now).max(1));
        }
        if !self.marks.is_over
            && let Some(schedule) = &mut self.schedule
        {
            let due = schedule.peek().map_or(self.window.end, |due| due.ns);
            let left = due.saturating_sub(now);
            if left < SLEEP_NS_MIN {
                return (Wait::Poll, None);
            }
            sleep = sleep.min(left - WAKE_EARLY_NS);
        }
        (Wait::Block, Some(Duration::from_nanos(sleep)))
    }
}

impl Peer {
    fn new(slot: u64) -> Self {
        Self {
            id: ConnectionId::from_u64(slot),
            life: Life::Idle,
            is_ready: false,
            is_receiving: false,
            is_sending: false,
            is_last_made: false,
            is_in_unsent: false,
            is_resting: false,
            made: 0,
            flight: VecDeque::new(),
            output: Vec::new(),
            output_at: 0,
            sending_bytes: 0,
            sent_bytes: 0,
            reader: Reader::new(),
            current: Current::default(),
            ending_since: 0,
        }
    }

    fn open(&mut self) {
        self.life = Life::Open;
        self.is_last_made = false;
        self.made = 0;
        self.output.clear();
        self.output_at = 0;
        self.reader.reset();
    }
}

/// Why a thread of load cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// There is no ring.
    #[error(transparent)]
    Uring(#[from] UringError),
    /// The ring failed.
    #[error("the ring fails")]
    Ring(#[source] io::Error),
    /// The server takes no connections.
    #[error("cannot connect")]
    Connect(#[source] io::Error),
}

fn schedule(plan: &Plan, share: Share) -> Option<Schedule> {
    match &plan.pace {
        Pace::Closed => None,
        Pace::Open { pieces, spacing } => {
            let first = pieces.first().copied().unwrap_or(Piece::level(0.0, 1.0));
            let warmup = Piece::level(plan.warmup.as_secs_f64(), first.from.max(1.0));
            let mut all = Vec::with_capacity(pieces.len() + 1);
            if !plan.warmup.is_zero() {
                all.push(warmup);
            }
            all.extend_from_slice(pieces);
            Some(Schedule::new(&all, *spacing, plan.seed, share.thread, share.threads))
        }
        Pace::Replay(calls) => Some(Schedule::replay(calls.clone(), share.thread, share.threads)),
    }
}

fn zipf(count: usize, exponent: f64) -> WeightedAliasIndex<f64> {
    #[expect(clippy::cast_precision_loss, reason = "ranks, far below 2^53")]
    weighted((1..=count).map(|rank| (rank as f64).powf(-exponent)).collect())
}

fn weighted(weights: Vec<f64>) -> WeightedAliasIndex<f64> {
    WeightedAliasIndex::new(weights).expect("weights above zero")
}

/// Returns how long a connection rests after so many bytes.
fn rest_ns(bytes: usize, rate: u64) -> u64 {
    (bytes as u64).saturating_mul(1_000_000_000) / rate
}

fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

#[inline]
fn narrow(slot: usize) -> u32 {
    u32::try_from(slot).expect("connections are fewer than 2^20")
}
