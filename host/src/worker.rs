//! One worker: a pinned thread with its own ring, connections, slots and counters. The way of a request,
//! top to bottom.
//!
//! ```text
//!   turn --> event --> route --> take --> write --> call --> answer --> respond --> give (restore)
//!                                                    |  ^
//!                                          suspended +--+ one slice in each turn
//! ```
//!
//! A slot is restored as soon as its response was copied to the connection's output, before the turn that
//! sends it. The other order needs a slot for each request of a turn, whose pages then come from a farther
//! cache (docs/decisions/004-restore-order.md).
//!
//! A function that reads its body itself is called as soon as there is a head; it and those that write their
//! responses piece by piece wait in `worker/stream.rs`.
//!
//! Invariant: nothing here is shared with another worker but the deployment, which nobody changes, and the
//! coarse clock, which the ticker publishes.
//! Hot path: everything but `assign`.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::fmt::Write;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::Receiver;
use midge_abi::imports::Level;
use midge_abi::problem::{MEDIA_TYPE, Problem};
use midge_loader::context::RequestContext;
use midge_loader::slot::{Discard, Progress, Running, Used, Waiting};
use midge_loader::start::{Started, Tier};
use midge_loader::trace;
use midge_net::balance::Neighbours;
use midge_net::clock::Clock;
use midge_net::endpoint::{Endpoint, Event, RequestView};
use midge_net::ring::{ConnectionId, Ring, Wait};
use midge_net::wake::Waker;

use crate::call::{self, Area, Facts, Outcome, Reason, WriteError};
use crate::compress::{self, Compressing, VARY};
use crate::config::Methods;
use crate::deadline::CoarseClock;
use crate::deployment::{Deployed, Deployment};
use crate::files::encoding::Accepted;
use crate::files::pool::Pool;
use crate::log::{Access, Event as LogEvent, Line, LogSender};
use crate::route::FunctionIndex;
use crate::services::wall_ns;
use crate::shelf::{Given, Shelf};
use crate::slots::TakeError;
use crate::stats::StatsWriter;

mod fetch; // requests that functions make
mod files; // files on their way
mod stream; // calls that wait

/// One request in so many is timed: two reads of the clock for each would cost more than a restore.
pub const TIMED_ONE_IN: u64 = 16;
/// Seconds after which a client that was answered 503 may try again.
const RETRY_AFTER: &[u8] = b"1";

const _: () = assert!(TIMED_ONE_IN.is_power_of_two(), "tested by a mask");

/// What a worker serves, and where it counts and logs.
pub struct Assignment {
    /// The functions and routes.
    pub deployment: Arc<Deployment>,
    /// Its counters.
    pub stats: StatsWriter,
    /// Its way into the log.
    pub log: LogSender,
}

/// What other threads tell a worker.
pub enum Message {
    /// Serve this from now on.
    Assign(Box<Assignment>),
    /// Share new connections with the workers of these rings.
    Join(Neighbours, Vec<OwnedFd>),
    /// Accept no more, answer what is there, then end.
    Drain,
    /// End now.
    Stop,
}

/// A worker's state.
pub struct Worker<R: Ring, C: Clock> {
    endpoint: Endpoint<R, C>,
    assignment: Assignment,
    shelf: Shelf,
    generation: u64,
    suspended: VecDeque<Suspended>,
    /// Calls that wait for their connection or for time, by the connection's slot.
    parked: Vec<Option<Box<stream::Parked>>>,
    parked_count: u64,
    /// Those that sleep: when they wake, and their connection.
    sleepers: BinaryHeap<Reverse<(u64, u64)>>,
    inbox: Receiver<Message>,
    files: files::Files,
    fetches: fetch::Fetches,
    clock: CoarseClock,
    request_ids: RequestIds,
    is_draining: bool,
    is_stopped: bool,
    text: String,
}

/// A call that waits for its next slice.
struct Suspended {
    paused: Paused,
    pending: Pending,
}

/// Why it waits.
enum Paused {
    /// It used up its slice.
    Slice(Running),
    /// It has asked for much in one turn.
    Ask(Waiting),
}

/// What is known of a request once its call began.
#[derive(Debug, Clone, Copy)]
struct Pending {
    connection: ConnectionId,
    function: FunctionIndex,
    /// The assignment under which it began; its slots are gone when that has been replaced.
    generation: u64,
    request_id: [u8; 16],
    method: midge_abi::contract::Method,
    tier: Tier,
    timing: Option<Timing>,
    /// The call gave its CPU away in between: its time is no measure of its work.
    was_suspended: bool,
    /// When it has lasted too long, waiting included.
    ends_ns: u64,
    /// The response that it writes piece by piece.
    reply: Option<stream::Reply>,
    /// What was sent of the piece at hand, if it had to wait.
    piece_bytes: Option<usize>,
    /// When it has waited long enough for one of several things.
    waits_until_ns: Option<u64>,
    /// The encodings that its client takes, where the function's responses are made smaller.
    accepted: Accepted,
}

/// Moments of a request that is timed, in nanoseconds of the precise clock.
#[derive(Debug, Clone, Copy)]
struct Timing {
    began_ns: u64,
    called_ns: u64,
}

impl<R: Ring, C: Clock> Worker<R, C> {
    /// Makes a worker.
    #[must_use]
    pub fn new(
        endpoint: Endpoint<R, C>,
        assignment: Assignment,
        inbox: Receiver<Message>,
        waker: Waker,
        clock: CoarseClock,
        request_ids: RequestIds,
    ) -> Self {
        let mut worker = Self {
            endpoint,
            shelf: Shelf::new(&assignment.deployment),
            assignment,
            generation: 0,
            suspended: VecDeque::with_capacity(64),
            parked: Vec::new(),
            parked_count: 0,
            sleepers: BinaryHeap::new(),
            inbox,
            files: files::Files::new(waker),
            fetches: fetch::Fetches::default(),
            clock,
            request_ids,
            is_draining: false,
            is_stopped: false,
            text: String::with_capacity(512),
        };
        worker.take_tls();
        worker
    }

    /// Serves until it is told to end.
    ///
    /// # Errors
    /// If the ring fails.
    pub fn run(&mut self) -> std::io::Result<()> {
        while !self.is_stopped {
            let wait = if self.suspended.is_empty() { Wait::Block } else { Wait::Poll };
            self.endpoint.turn_within(wait, self.time_to_sleeper())?;
            while let Some(event) = self.endpoint.next_event() {
                self.on_event(event);
            }
            self.wake_sleepers();
            self.resume_one();
            self.note_connections();
            if self.is_draining
                && self.suspended.is_empty()
                && self.endpoint.connection_count() == 0
            {
                break;
            }
        }
        Ok(())
    }

    fn on_event(&mut self, event: Event) {
        match event {
            Event::Request(connection) => self.serve(connection, Arrived::Whole),
            Event::Head(connection) => self.admit(connection),
            Event::Room(connection) if self.files.is_sending(connection) => {
                self.send_file(connection);
            }
            Event::Body(connection) | Event::Room(connection) => self.wake(connection),
            Event::Fetch(owner) => self.wake(ConnectionId::from_u64(owner)),
            Event::Refused(connection, refusal) => {
                // The body of a call under way broke off.
                self.abandon(connection);
                let problem = call::problem(refusal);
                let request_id = self.request_ids.next();
                self.assignment.stats.request_unrouted(problem);
                self.respond_problem(connection, problem, &request_id, None);
            }
            Event::Gone(connection) => {
                self.files.drop_sending(connection);
                self.abandon(connection);
            }
            Event::Woken => {
                self.read_inbox();
                self.read_files();
            }
        }
    }

    /// The way of a request.
    fn serve(&mut self, connection: ConnectionId, arrived: Arrived) {
        let request_id = self.request_ids.next();
        let mut view = self.endpoint.request(connection);
        if let Some(clients) = &self.assignment.deployment.clients {
            view.peer = clients.of(&view);
        }
        let body_bytes = match arrived {
            Arrived::Whole => view.body.len() as u64,
            Arrived::InPart => announced(&view).max(view.body.len() as u64),
        };
        let function = match route(&self.assignment.deployment, &view, body_bytes) {
            Ok(function) => function,
            Err(refused) => return self.refuse_routed(connection, &request_id, refused),
        };
        let stats = &self.assignment.stats;
        stats.request_routed(function);
        let index = usize::try_from(function.0).expect("64-bit targets alone");
        let Some(deployed) = self.assignment.deployment.functions.get(index) else {
            return self.serve_file(connection, function, request_id);
        };
        // What of the body goes with the head; the guest reads the rest.
        let area =
            Area { address: deployed.function.area(), bytes: deployed.function.area_bytes() };
        let is_streamed = deployed.function.reads_body()
            && (arrived == Arrived::InPart
                || call::block_bytes(&view, &deployed.extras) > area.bytes);
        if is_streamed && !self.endpoint.can_stream() {
            let problem = Problem::Overloaded;
            return self.refuse(connection, &request_id, Refused::by(function, problem));
        }
        let timing = self.request_ids.is_timed() || deployed.has_server_timing;
        let began_ns = if timing { self.clock.precise_ns() } else { 0 };

        let Started { mut pristine, tier } = match self.shelf.take(index) {
            Ok(started) => started,
            Err(error) => return self.refuse_take(connection, function, &request_id, &error),
        };
        stats.started(function, tier);
        let deadline_ns =
            u64::try_from(deployed.deadline.as_nanos()).expect("settings bound deadlines");
        let facts = Facts { request_id, deadline_ns, extras: &deployed.extras };
        let stream_ns = u64::try_from(deployed.stream_time.as_nanos()).unwrap_or(u64::MAX);
        let stream_bytes_max = deployed.stream_bytes_max;
        let accepted =
            if deployed.compresses { compress::accepted(&view) } else { Accepted::default() };
        let written = if is_streamed {
            call::write_start(&mut pristine, area, &view, facts)
        } else {
            let body_bytes = view.body.len();
            call::write(&mut pristine, area, &view, facts).map(|size| (size, body_bytes))
        };
        let (size, taken) = match written {
            Ok(written) => written,
            Err(error) => {
                self.shelf.lost(index);
                let problem = match error {
                    WriteError::TooLarge => Problem::BodyTooLarge,
                    WriteError::Exhausted => Problem::StartFailed,
                };
                return self.refuse(connection, &request_id, Refused::by(function, problem));
            }
        };
        let now_ns = self.clock.coarse_ns();
        let context = RequestContext { request_id, began_ns: now_ns, time_ns: deadline_ns };
        let pending = Pending {
            connection,
            function,
            generation: self.generation,
            request_id,
            method: call::method(view.head.method),
            tier,
            timing: timing.then(|| Timing { began_ns, called_ns: self.clock.precise_ns() }),
            was_suspended: false,
            ends_ns: now_ns.saturating_add(stream_ns),
            reply: None,
            piece_bytes: None,
            waits_until_ns: None,
            accepted,
        };
        if is_streamed {
            self.endpoint.stream(connection, stream_bytes_max, taken);
        }
        match pristine.call(context, area.address, size) {
            Progress::Done(used) => self.finish(pending, used),
            progress => self.go_on(pending, progress),
        }
    }

    /// Says how much body a function takes, before it has arrived.
    fn admit(&mut self, connection: ConnectionId) {
        let view = self.endpoint.request(connection);
        match route(&self.assignment.deployment, &view, announced(&view)) {
            Ok(function) => {
                let index = usize::try_from(function.0).expect("64-bit targets alone");
                let Some(deployed) = self.assignment.deployment.functions.get(index) else {
                    // Files are asked for without a body.
                    return self.endpoint.admit(connection, 0);
                };
                if deployed.function.reads_body() {
                    return self.serve(connection, Arrived::InPart);
                }
                let body_bytes_max = deployed.body_bytes_max;
                self.endpoint.admit(connection, body_bytes_max as u64);
            }
            Err(refused) => {
                let request_id = self.request_ids.next();
                self.refuse_routed(connection, &request_id, refused);
            }
        }
    }

    /// Gives one suspended call its next slice; the ring is looked at before another has its turn.
    fn resume_one(&mut self) {
        let Some(Suspended { paused, pending }) = self.suspended.pop_front() else {
            return;
        };
        let progress = match paused {
            Paused::Slice(running) => running.resume(),
            Paused::Ask(waiting) => Progress::Waiting(waiting),
        };
        self.go_on(pending, progress);
    }

    fn finish(&mut self, pending: Pending, used: Used) {
        self.end_fetches(pending.connection);
        if pending.generation != self.generation {
            return self.finish_replaced(pending, &used);
        }
        let index = usize::try_from(pending.function.0).expect("64-bit targets alone");
        let deployed = &self.assignment.deployment.functions[index];
        let returned_ns = pending.timing.map(|_| self.clock.precise_ns());
        let (status, problem, body_bytes) = match pending.reply {
            None => {
                let small = (&self.files, self.assignment.deployment.pool.as_ref());
                answer(
                    &mut self.endpoint,
                    &mut self.text,
                    deployed,
                    pending,
                    returned_ns,
                    &used,
                    small,
                )
            }
            Some(reply) => self.end_reply(&pending, reply, &used),
        };
        let deployed = &self.assignment.deployment.functions[index];
        if let Some(problem) = problem {
            self.assignment.stats.refused(pending.function, problem);
            log_failure(&self.assignment, deployed, pending, &used);
        }
        let answered_ns = pending.timing.map(|_| self.clock.precise_ns());
        let dirty_pages = used.dirty_page_count() as u64;
        let fuel_used = used.fuel_used();
        let Given { discard, gave_way } = self.shelf.give(index, used);
        let stats = &self.assignment.stats;
        stats.dirtied(pending.function, dirty_pages);
        if let Some(fuel) = fuel_used {
            stats.burnt(pending.function, fuel);
        }
        if let Some(reason) = discard {
            stats.discarded(pending.function, reason);
        }
        if let Some(other) = gave_way {
            let other = u32::try_from(other).expect("bounded by FUNCTIONS_MAX");
            stats.discarded(FunctionIndex(other), Discard::GaveWay);
        }
        let mut service_ns = 0;
        if let (Some(timing), Some(returned_ns), Some(answered_ns)) =
            (pending.timing, returned_ns, answered_ns)
        {
            service_ns = answered_ns - timing.began_ns;
            if !pending.was_suspended {
                stats.call_took(pending.function, returned_ns - timing.called_ns);
            }
            stats.service_took(pending.function, service_ns);
        }
        if self.assignment.log.has_access() {
            let access = Access {
                request_id: pending.request_id,
                wall_ns: wall_ns(),
                function: Some(pending.function),
                method: pending.method,
                status,
                problem,
                tier: Some(pending.tier),
                body_bytes,
                service_ns,
            };
            self.assignment.log.access(&self.assignment.stats, access);
        }
    }

    /// A call of a deployment that has been replaced: it is answered, its slot goes with the deployment.
    #[cold]
    fn finish_replaced(&mut self, pending: Pending, used: &Used) {
        let connection = pending.connection;
        if let Some(reply) = pending.reply {
            self.end_reply(&pending, reply, used);
            return;
        }
        match call::outcome(used, usize::MAX) {
            Outcome::Response(response) => {
                self.endpoint.respond(
                    connection,
                    response.status(),
                    response.headers(),
                    response.body(),
                );
            }
            Outcome::Problem(problem, _) => {
                self.respond_problem(connection, problem, &pending.request_id, None);
            }
        }
    }

    /// The peer of a suspended call has gone: nobody waits for the answer.
    #[cold]
    fn abandon(&mut self, connection: ConnectionId) {
        if self.drop_parked(connection) {
            return;
        }
        let waits = |suspended: &Suspended| suspended.pending.connection == connection;
        let Some(position) = self.suspended.iter().position(waits) else {
            return;
        };
        let abandoned = self.suspended.remove(position).expect("just found");
        self.lose(&abandoned.pending);
    }

    #[cold]
    #[inline(never)]
    fn refuse_take(
        &mut self,
        connection: ConnectionId,
        function: FunctionIndex,
        request_id: &[u8; 16],
        error: &TakeError,
    ) {
        let problem = match error {
            TakeError::Busy => Problem::Overloaded,
            TakeError::Start(error) => {
                let text = format!("no instance could be started: {:#}", chain(error));
                self.log_line(function, request_id, LogEvent::guest(Level::Error, text.as_bytes()));
                Problem::StartFailed
            }
        };
        self.refuse(connection, request_id, Refused::by(function, problem));
    }

    /// Refuses a request for what its head says.
    #[cold]
    #[inline(never)]
    fn refuse_routed(&mut self, connection: ConnectionId, request_id: &[u8; 16], refused: Refused) {
        let view = self.endpoint.request(connection);
        // Asks for the server in general, which is no function's business (RFC 9110, 9.3.7).
        if view.head.path.of(view.bytes) == b"*" {
            self.assignment.stats.request_for_all();
            return self.endpoint.respond(connection, 200, std::iter::empty(), b"");
        }
        if let Some(function) = refused.function {
            self.assignment.stats.request_routed(function);
        }
        self.refuse(connection, request_id, refused);
    }

    #[cold]
    #[inline(never)]
    fn refuse(&mut self, connection: ConnectionId, request_id: &[u8; 16], refused: Refused) {
        let stats = &self.assignment.stats;
        match refused.function {
            Some(function) => stats.refused(function, refused.problem),
            None => stats.request_unrouted(refused.problem),
        }
        self.respond_problem(connection, refused.problem, request_id, refused.hint);
        if self.assignment.log.has_access() {
            let access = Access {
                request_id: *request_id,
                wall_ns: wall_ns(),
                function: refused.function,
                method: midge_abi::contract::Method::Other,
                status: refused.problem.row().status,
                problem: Some(refused.problem),
                tier: None,
                body_bytes: self.text.len() as u64,
                service_ns: 0,
            };
            self.assignment.log.access(&self.assignment.stats, access);
        }
    }

    #[cold]
    #[inline(never)]
    fn respond_problem(
        &mut self,
        connection: ConnectionId,
        problem: Problem,
        request_id: &[u8; 16],
        hint: Option<Hint>,
    ) {
        let problem = if self.is_draining && problem == Problem::Overloaded {
            Problem::Draining
        } else {
            problem
        };
        problem_response(&mut self.endpoint, &mut self.text, connection, problem, request_id, hint);
    }

    fn log_line(&self, function: FunctionIndex, request_id: &[u8; 16], event: LogEvent) {
        let line = Line { request_id: *request_id, wall_ns: wall_ns(), function, event };
        self.assignment.log.line(&self.assignment.stats, line);
    }

    fn read_inbox(&mut self) {
        while let Ok(message) = self.inbox.try_recv() {
            match message {
                Message::Assign(assignment) => self.assign(*assignment),
                Message::Join(neighbours, rings) => self.endpoint.join(neighbours, rings),
                Message::Drain => {
                    self.is_draining = true;
                    self.endpoint.stop_accepting();
                    self.endpoint.drain();
                    self.endpoint.close_idle();
                }
                Message::Stop => self.is_stopped = true,
            }
        }
    }

    fn assign(&mut self, assignment: Assignment) {
        if self.parked_count > 0 || !self.suspended.is_empty() {
            let before = Arc::clone(&self.assignment.deployment);
            self.fetches.keep(self.generation, before);
        }
        self.assignment = assignment;
        self.generation += 1;
        self.shelf = Shelf::new(&self.assignment.deployment);
        self.take_tls();
    }

    fn take_tls(&mut self) {
        if let Some(tls) = &self.assignment.deployment.tls {
            self.endpoint.set_tls(Arc::clone(tls));
        }
    }

    fn note_connections(&self) {
        let counters = self.endpoint.counters();
        let open = u64::from(self.endpoint.connection_count());
        self.assignment.stats.connections(counters.accepted, open);
        let (shed, crowded) = (counters.connections_shed, counters.connections_crowded);
        self.assignment.stats.connections_given_up(shed, crowded, counters.prefaces_refused);
        self.assignment.stats.ring_entered(counters.enters);
        self.assignment.stats.queue_depth(self.suspended.len() as u64);
        self.assignment.stats.parked(self.parked_count);
        self.assignment.stats.bodies_held(counters.bodies_bytes);
        self.assignment.stats.connections_passed(counters.connections_passed);
        self.assignment.stats.fetched(counters);
    }
}

/// How much of a request is there when its function is called.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Arrived {
    /// All of it.
    Whole,
    /// Its head, and what has come of its body.
    InPart,
}

/// A request that no call is made for.
#[derive(Debug, Clone, Copy)]
struct Refused {
    function: Option<FunctionIndex>,
    problem: Problem,
    hint: Option<Hint>,
}

/// What a refusal tells in a header of its own.
#[derive(Debug, Clone, Copy)]
enum Hint {
    /// The methods that there are.
    Allow(Methods),
    /// The size that a range lies outside of.
    Size(u64),
}

impl Refused {
    fn by(function: impl Into<Option<FunctionIndex>>, problem: Problem) -> Self {
        Self { function: function.into(), problem, hint: None }
    }

    fn with(self, hint: Hint) -> Self {
        Self { hint: Some(hint), ..self }
    }
}

/// Finds the function of a request, and checks what can be refused before an instance is taken.
fn route(
    deployment: &Deployment,
    view: &RequestView<'_>,
    body_bytes: u64,
) -> Result<FunctionIndex, Refused> {
    let path = view.head.path.of(view.bytes);
    // The absolute form may have no path at all; it means the root (RFC 9110, 4.2.3).
    let path = if path.is_empty() { b"/" } else { path };
    let host = view.head.authority.of(view.bytes);
    let Some(function) = deployment.routes.route(host, path) else {
        return Err(Refused::by(None, Problem::NotFound));
    };
    let index = usize::try_from(function.0).expect("64-bit targets alone");
    let Some(deployed) = deployment.functions.get(index) else {
        return files::check(function, view, body_bytes);
    };
    if !deployed.methods.allows(call::method(view.head.method)) {
        let refused = Refused::by(function, Problem::MethodNotAllowed);
        return Err(refused.with(Hint::Allow(deployed.methods)));
    }
    if deployed.body_limit() < body_bytes {
        return Err(Refused::by(function, Problem::BodyTooLarge));
    }
    Ok(function)
}

/// Returns the length that a head announces for its body; 0 where it does not say.
fn announced(view: &RequestView<'_>) -> u64 {
    match view.head.framing {
        midge_net::http::request::Framing::Length(length) => length,
        _ => 0,
    }
}

/// Responds for a call that ended. Returns status, problem if it was one, and size of the body.
fn answer<R: Ring, C: Clock>(
    endpoint: &mut Endpoint<R, C>,
    text: &mut String,
    deployed: &Deployed,
    pending: Pending,
    returned_ns: Option<u64>,
    used: &Used,
    (files, pool): (&files::Files, Option<&Pool>),
) -> (u16, Option<Problem>, u64) {
    match call::outcome(used, deployed.response_bytes_max) {
        Outcome::Response(response) => {
            let body = response.body();
            let status = response.status();
            let connection = pending.connection;
            let timing = match (pending.timing, returned_ns) {
                (Some(timing), Some(returned_ns)) if deployed.has_server_timing => {
                    server_timing(text, pending.tier, timing, returned_ns);
                    Some((&b"server-timing"[..], text.as_bytes()))
                }
                _ => None,
            };
            let headers = || response.headers().chain(timing);
            let small = pool.filter(|_| deployed.compresses).and_then(|pool| {
                let accepted = pending.accepted;
                Some((pool, Compressing::of(accepted, connection, status, headers(), body)?))
            });
            if small.is_some_and(|(pool, small)| files.compress(pool, small)) {
                endpoint.defer(connection);
            } else {
                let vary = deployed.compresses.then_some(VARY);
                endpoint.respond(connection, status, headers().chain(vary), body);
            }
            (status, None, body.len() as u64)
        }
        Outcome::Problem(problem, _) => {
            let request_id = &pending.request_id;
            problem_response(endpoint, text, pending.connection, problem, request_id, None);
            (problem.row().status, Some(problem), text.len() as u64)
        }
    }
}

/// Writes a Server-Timing value (W3C Server Timing): tier, time before the call, and in it, in milliseconds.
fn server_timing(text: &mut String, tier: Tier, timing: Timing, returned_ns: u64) {
    let ms = |ns: u64| Duration::from_nanos(ns).as_secs_f64() * 1000.0;
    text.clear();
    let written = write!(
        text,
        "tier;desc={}, enter;dur={:.4}, guest;dur={:.4}",
        tier.name(),
        ms(timing.called_ns - timing.began_ns),
        ms(returned_ns - timing.called_ns),
    );
    written.expect("a string takes what it is given");
}

#[cold]
#[inline(never)]
fn problem_response<R: Ring, C: Clock>(
    endpoint: &mut Endpoint<R, C>,
    text: &mut String,
    connection: ConnectionId,
    problem: Problem,
    request_id: &[u8; 16],
    hint: Option<Hint>,
) {
    text.clear();
    problem.write_json(text, request_id).expect("a string takes what it is given");
    let hint = hint.map(|hint| match hint {
        Hint::Allow(methods) => (&b"allow"[..], methods.to_string()),
        Hint::Size(bytes) => (&b"content-range"[..], format!("bytes */{bytes}")),
    });
    let content_type = (&b"content-type"[..], MEDIA_TYPE.as_bytes());
    let retry = matches!(problem.row().status, 503).then_some((&b"retry-after"[..], RETRY_AFTER));
    let hint = hint.as_ref().map(|(name, value)| (*name, value.as_bytes()));
    let headers = std::iter::once(content_type).chain(retry).chain(hint);
    endpoint.respond(connection, problem.row().status, headers, text.as_bytes());
}

/// Tells the log why a call ended in a problem.
#[cold]
#[inline(never)]
fn log_failure(assignment: &Assignment, deployed: &Deployed, pending: Pending, used: &Used) {
    let event = match call::outcome(used, deployed.response_bytes_max) {
        Outcome::Response(_) => return,
        Outcome::Problem(_, reason) => match reason {
            Reason::Trap(trap) => {
                LogEvent::trap(&trace::describe(trap, deployed.function.artifact()))
            }
            Reason::Fault(fault) => LogEvent::guest(Level::Error, fault.to_string().as_bytes()),
            Reason::Message(message) => LogEvent::guest(Level::Error, message),
            Reason::Deadline => {
                let text = format!("stopped after its deadline of {:?}", deployed.deadline);
                LogEvent::guest(Level::Error, text.as_bytes())
            }
            Reason::Fuel => {
                LogEvent::guest(Level::Error, b"stopped after the instructions that `fuel` allows")
            }
            Reason::Exhausted => LogEvent::guest(
                Level::Error,
                b"no page could be made writable; raise vm.max_map_count or lower `slots`",
            ),
        },
    };
    let line = Line {
        request_id: pending.request_id,
        wall_ns: wall_ns(),
        function: pending.function,
        event,
    };
    assignment.log.line(&assignment.stats, line);
}

fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        write!(text, ": {cause}").expect("a string takes what it is given");
        source = cause.source();
    }
    text
}

/// Ids of a worker's requests: a part that is the worker's own, and a count.
#[derive(Debug)]
pub struct RequestIds {
    prefix: [u8; 8],
    count: u64,
}

impl RequestIds {
    /// Starts counting behind a prefix that no other worker has.
    #[must_use]
    pub const fn new(prefix: [u8; 8]) -> Self {
        Self { prefix, count: 0 }
    }

    fn next(&mut self) -> [u8; 16] {
        self.count += 1;
        let mut id = [0; 16];
        id[..8].copy_from_slice(&self.prefix);
        id[8..].copy_from_slice(&self.count.to_be_bytes());
        id
    }

    /// True if the request with the last id is one of those that are timed.
    const fn is_timed(&self) -> bool {
        self.count & (TIMED_ONE_IN - 1) == 0
    }
}
