//! Calls that wait: for more of a request's body, for a client that reads, for time to pass.
//!
//! ```text
//!   call --> asks --> satisfied at once: bytes copied to or from the guest's memory --> goes on
//!             |
//!             +--> parked, by its connection's slot --(Body, Room, time)--> asked again
//!             +--> gone, with the client or at the end of its time: the slot is lost, its fiber is unwound
//! ```
//!
//! A call that is satisfied again and again gives way to others after [`ASKS_PER_TURN`].
//!
//! Not here: what is kept of bodies, and when a client counts as slow (`midge-net`, `stream.rs`).

use std::cmp::Reverse;
use std::time::Duration;

use midge_abi::contract::{HEADER_SIZE, RESPONSE_WRITTEN};
use midge_abi::fetch::LATER;
use midge_abi::problem::Problem;
use midge_abi::response::{GuestRange, Response, Trailers};
use midge_abi::width::{index, wire};
use midge_loader::collect;
use midge_loader::drive::CallEnd;
use midge_loader::slot::{Discard, Progress, Used, Waiting};
use midge_loader::wait::{Ask, AskFault};
use midge_net::clock::Clock;
use midge_net::ring::{ConnectionId, Ring};
use midge_net::{Unread, Written};

use crate::call::{self, Outcome};

use super::{Paused, Pending, Suspended, Worker};

/// What a call may ask for in one turn before others have theirs.
const ASKS_PER_TURN: u32 = 64;
/// Times of calls that may be stale before they are looked through.
const SLEEPERS_MIN: usize = 1024;

/// A response that is being written.
#[derive(Debug, Clone, Copy)]
pub(super) struct Reply {
    /// Its status.
    pub(super) status: u16,
    /// Bytes of its body so far.
    pub(super) body_bytes: u64,
    /// Its trailers were written: nothing follows.
    pub(super) is_ended: bool,
}

/// A call that goes on when something happens.
pub(super) struct Parked {
    waiting: Waiting,
    pending: Pending,
    /// When it goes on by itself, if it sleeps.
    wakes_ns: u64,
}

/// What became of an ask.
pub(super) enum Satisfied {
    /// Answer it, and go on.
    Answer(Result<u32, AskFault>),
    /// An event of its connection tells when to look again.
    Later,
    /// At this time, by the precise clock.
    At(u64),
    /// As both of these.
    LaterOrAt(u64),
}

impl<R: Ring, C: Clock> Worker<R, C> {
    /// Takes a call as far as it goes.
    pub(super) fn go_on(&mut self, mut pending: Pending, mut progress: Progress) {
        let mut asks = 0;
        loop {
            let mut waiting = match progress {
                Progress::Done(used) => return self.finish(pending, used),
                Progress::Suspended(running) => {
                    // Epochs have a deadline of their own; instructions have no clock.
                    if self.is_out_of_time(&pending) {
                        drop(running);
                        return self.give_up(pending);
                    }
                    self.endpoint.defer(pending.connection);
                    let pending = Pending { was_suspended: true, ..pending };
                    let paused = Paused::Slice(running);
                    return self.suspended.push_back(Suspended { paused, pending });
                }
                Progress::Waiting(waiting) => waiting,
            };
            pending.was_suspended = true;
            self.endpoint.defer(pending.connection);
            if self.is_out_of_time(&pending) {
                drop(waiting);
                return self.give_up(pending);
            }
            if asks == ASKS_PER_TURN {
                let paused = Paused::Ask(waiting);
                return self.suspended.push_back(Suspended { paused, pending });
            }
            asks += 1;
            match self.satisfy(&mut pending, &mut waiting) {
                Satisfied::Answer(answer) => {
                    pending.piece_bytes = None;
                    pending.waits_until_ns = None;
                    progress = waiting.answer(answer);
                }
                Satisfied::Later => return self.park(pending, waiting, 0),
                Satisfied::At(wakes_ns) | Satisfied::LaterOrAt(wakes_ns) => {
                    return self.park(pending, waiting, wakes_ns);
                }
            }
        }
    }

    fn satisfy(&mut self, pending: &mut Pending, waiting: &mut Waiting) -> Satisfied {
        match waiting.ask() {
            Ask::Read(region) => self.read(pending.connection, waiting, region),
            Ask::Start(record) => self.start_response(pending, waiting, record),
            Ask::Write(region) => match pending.reply {
                None => Satisfied::Answer(Err(AskFault::NotStarted)),
                Some(reply) if reply.is_ended => Satisfied::Answer(Err(AskFault::Ended)),
                Some(_) => self.write_piece(pending, waiting, region),
            },
            Ask::Sleep(ns) => {
                let now_ns = self.clock.precise_ns();
                let until_ns = now_ns.saturating_add(ns);
                let until_ns = *pending.waits_until_ns.get_or_insert(until_ns);
                if until_ns <= now_ns {
                    return Satisfied::Answer(Ok(0));
                }
                // It may be woken by something that it waited for before; and no later than it may last.
                Satisfied::At(until_ns.min(pending.ends_ns).max(now_ns + 1))
            }
            Ask::Fetch(record) => self.fetch(pending, waiting, record),
            Ask::FetchWrite(handle, region) => self.fetch_write(pending, waiting, handle, region),
            Ask::FetchFinish(handle) => self.fetch_finish(pending, handle, std::iter::empty()),
            Ask::FetchHead(handle, region) => self.fetch_head(pending, waiting, handle, region),
            Ask::FetchRead(handle, region) => self.fetch_read(pending, waiting, handle, region),
            Ask::FetchClose(handle) => self.fetch_close(pending, handle),
            Ask::Wait(rows, ns) => self.wait(pending, waiting, rows, ns),
            Ask::TrailersRead(0, region) => self.read_trailers(pending, waiting, region),
            Ask::TrailersRead(handle, region) => {
                self.fetch_trailers(pending, waiting, handle, region)
            }
            Ask::TrailersWrite(handle, rows) => self.write_trailers(pending, waiting, handle, rows),
        }
    }

    fn read(
        &mut self,
        connection: ConnectionId,
        waiting: &mut Waiting,
        region: GuestRange,
    ) -> Satisfied {
        match self.endpoint.unread(connection) {
            Unread::Bytes(size) => {
                let size = size.min(index(region.size));
                let Some(target) = waiting.region(region, size) else {
                    return Satisfied::Answer(Err(AskFault::Exhausted));
                };
                self.endpoint.read_body(connection, target);
                self.assignment.stats.body_read(size as u64);
                Satisfied::Answer(Ok(wire(size)))
            }
            Unread::End => Satisfied::Answer(Ok(0)),
            Unread::Later => Satisfied::Later,
        }
    }

    fn start_response(
        &mut self,
        pending: &mut Pending,
        waiting: &Waiting,
        record: u32,
    ) -> Satisfied {
        let function = index(pending.function.0);
        let most = self.assignment.deployment.functions.get(function);
        let most = most.map_or(usize::MAX, |deployed| deployed.response_bytes_max);
        let Ok((response, length)) = Response::read_start(waiting.memory(), record, most) else {
            return Satisfied::Answer(Err(AskFault::Record));
        };
        if pending.piece_bytes.is_none() {
            if pending.reply.is_some() {
                return Satisfied::Answer(Err(AskFault::StartedTwice));
            }
            let (status, headers) = (response.status(), response.headers());
            let begun = self.endpoint.begin_response(pending.connection, status, headers, length);
            if begun.is_err() {
                return Satisfied::Answer(Err(AskFault::Record));
            }
            pending.reply = Some(Reply { status, body_bytes: 0, is_ended: false });
        }
        self.write_bytes(pending, response.body())
    }

    fn write_piece(
        &mut self,
        pending: &mut Pending,
        waiting: &Waiting,
        region: GuestRange,
    ) -> Satisfied {
        let memory = waiting.memory();
        let range = region.within(memory.len()).expect("checked when it was asked for");
        self.write_bytes(pending, &memory[range])
    }

    /// Sends what is left of a piece, as far as there is room.
    fn write_bytes(&mut self, pending: &mut Pending, piece: &[u8]) -> Satisfied {
        let mut done = pending.piece_bytes.unwrap_or(0);
        loop {
            if done == piece.len() {
                return Satisfied::Answer(Ok(0));
            }
            match self.endpoint.write_response(pending.connection, &piece[done..]) {
                Written::Bytes(size) => {
                    done += size;
                    self.assignment.stats.response_written(size as u64);
                    if let Some(reply) = &mut pending.reply {
                        reply.body_bytes += size as u64;
                    }
                }
                Written::Later => {
                    pending.piece_bytes = Some(done);
                    return Satisfied::Later;
                }
                Written::TooLong => return Satisfied::Answer(Err(AskFault::TooLong)),
            }
        }
    }

    /// Answers `trailers_read` for the request itself.
    #[cold]
    fn read_trailers(
        &self,
        pending: &Pending,
        waiting: &mut Waiting,
        region: GuestRange,
    ) -> Satisfied {
        Satisfied::Answer(match self.endpoint.trailers(pending.connection) {
            Some(trailers) => collect::write_fields(waiting, region, trailers.iter()),
            None => Ok(LATER.cast_unsigned()),
        })
    }

    /// Answers `trailers_write`.
    #[cold]
    fn write_trailers(
        &mut self,
        pending: &mut Pending,
        waiting: &Waiting,
        handle: u32,
        rows: GuestRange,
    ) -> Satisfied {
        let count = rows.size / wire(HEADER_SIZE);
        let Ok(trailers) = Trailers::read(waiting.memory(), rows.address, count) else {
            return Satisfied::Answer(Err(AskFault::Trailers));
        };
        if handle != 0 {
            return self.fetch_finish(pending, handle, trailers.rows());
        }
        let Some(reply) = &mut pending.reply else {
            return Satisfied::Answer(Err(AskFault::NotStarted));
        };
        if reply.is_ended {
            return Satisfied::Answer(Err(AskFault::Ended));
        }
        match self.endpoint.write_trailers(pending.connection, trailers.rows()) {
            Ok(Written::Later) => Satisfied::Later,
            Ok(_) => {
                reply.is_ended = true;
                Satisfied::Answer(Ok(0))
            }
            Err(_) => Satisfied::Answer(Err(AskFault::Trailers)),
        }
    }

    fn park(&mut self, pending: Pending, waiting: Waiting, wakes_ns: u64) {
        let connection = pending.connection;
        let slot = index(connection.slot());
        if self.parked.len() <= slot {
            self.parked.resize_with(slot + 1, || None);
        }
        if wakes_ns > 0 {
            self.forget_sleepers();
            self.sleepers.push(Reverse((wakes_ns, connection.to_u64())));
        }
        debug_assert!(self.parked[slot].is_none(), "a connection has one call at a time");
        self.parked[slot] = Some(Box::new(Parked { waiting, pending, wakes_ns }));
        self.parked_count += 1;
        if wakes_ns > 0 {
            // Nothing else would tell that there is nobody to sleep for.
            self.endpoint.watch_peer(connection, true);
        }
    }

    /// Calls that were woken by something else leave their times behind: those are cleared away once they are many.
    fn forget_sleepers(&mut self) {
        let parked = usize::try_from(self.parked_count).unwrap_or(usize::MAX);
        if self.sleepers.len() <= parked.saturating_mul(2) + SLEEPERS_MIN {
            return;
        }
        let parked = &self.parked;
        self.sleepers.retain(|Reverse((wakes_ns, connection))| {
            let connection = ConnectionId::from_u64(*connection);
            let call = parked.get(index(connection.slot())).and_then(Option::as_ref);
            call.is_some_and(|call| {
                call.pending.connection == connection && call.wakes_ns == *wakes_ns
            })
        });
    }

    /// Takes the parked call of a connection.
    fn unpark(&mut self, connection: ConnectionId) -> Option<Parked> {
        let place = self.parked.get_mut(index(connection.slot()))?;
        let parked = place.take_if(|parked| parked.pending.connection == connection)?;
        self.parked_count -= 1;
        Some(*parked)
    }

    /// Something happened that a call waits for.
    pub(super) fn wake(&mut self, connection: ConnectionId) {
        if let Some(Parked { waiting, pending, wakes_ns }) = self.unpark(connection) {
            if wakes_ns > 0 {
                self.endpoint.watch_peer(connection, false);
            }
            self.go_on(pending, Progress::Waiting(waiting));
        }
    }

    /// Lets those go on whose time has come.
    pub(super) fn wake_sleepers(&mut self) {
        if self.sleepers.is_empty() {
            return;
        }
        let now_ns = self.clock.precise_ns();
        while let Some(&Reverse((wakes_ns, connection))) = self.sleepers.peek()
            && wakes_ns <= now_ns
        {
            self.sleepers.pop();
            let connection = ConnectionId::from_u64(connection);
            let parked = self.parked.get(index(connection.slot()));
            let is_due = parked.is_some_and(|parked| {
                parked.as_ref().is_some_and(|parked| {
                    parked.pending.connection == connection && parked.wakes_ns == wakes_ns
                })
            });
            if is_due {
                self.wake(connection);
            }
        }
    }

    /// Returns how long a turn may sleep for the calls that do.
    pub(super) fn time_to_sleeper(&self) -> Option<Duration> {
        let Reverse((wakes_ns, _)) = self.sleepers.peek()?;
        Some(Duration::from_nanos(wakes_ns.saturating_sub(self.clock.precise_ns())))
    }

    /// Ends the response that a call has written. Returns status, problem if it was one, and size of the body.
    pub(super) fn end_reply(
        &mut self,
        pending: &Pending,
        reply: Reply,
        used: &Used,
    ) -> (u16, Option<Problem>, u64) {
        let is_whole = matches!(used.end(), CallEnd::Returned(RESPONSE_WRITTEN));
        let problem = if is_whole {
            let is_sent = self.endpoint.end_response(pending.connection);
            (!is_sent).then_some(Problem::BadResponse)
        } else {
            self.endpoint.abort(pending.connection);
            Some(match call::outcome(used, usize::MAX) {
                // One was written: a second is none.
                Outcome::Response(_) => Problem::BadResponse,
                Outcome::Problem(problem, _) => problem,
            })
        };
        (reply.status, problem, reply.body_bytes)
    }

    /// True if a call has lasted longer than its function's calls may, waiting included.
    fn is_out_of_time(&self, pending: &Pending) -> bool {
        self.clock.coarse_ns() >= pending.ends_ns
    }

    /// Ends a call that has lasted too long.
    #[cold]
    fn give_up(&mut self, pending: Pending) {
        self.lose(&pending);
        // Counters of a later deployment are other functions'.
        if pending.generation == self.generation {
            self.assignment.stats.refused(pending.function, Problem::DeadlineExceeded);
        }
        if pending.reply.is_some() {
            self.endpoint.abort(pending.connection);
        } else {
            let problem = Problem::DeadlineExceeded;
            self.respond_problem(pending.connection, problem, &pending.request_id, None);
        }
    }

    /// Drops the parked call of a connection; false if there is none.
    pub(super) fn drop_parked(&mut self, connection: ConnectionId) -> bool {
        let Some(parked) = self.unpark(connection) else {
            return false;
        };
        self.lose(&parked.pending);
        true
    }

    /// Counts a slot out whose call does not come to its end.
    pub(super) fn lose(&mut self, pending: &Pending) {
        self.end_fetches(pending.connection);
        if pending.generation == self.generation {
            self.shelf.lost(index(pending.function.0));
            self.assignment.stats.discarded(pending.function, Discard::Abandoned);
        }
    }
}
