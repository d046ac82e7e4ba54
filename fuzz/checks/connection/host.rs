//! The host: the first letter of a request's path says how it is answered.

use crate::clock::Clock;
use crate::endpoint::{Endpoint, Event};
use crate::http::refusal::Refusal;
use crate::ring::sim::Random;
use crate::ring::{ConnectionId, Ring};
use crate::stream::{Unread, Written};

/// Largest body of a request that is answered in one piece, or read piece by piece.
pub(super) const BODY_BYTES_MAX: u64 = 1 << 20;
/// Largest body of [`Way::Small`].
pub(super) const SMALL_BYTES_MAX: usize = 16;
/// Largest body of an answer whose size a path asks for.
const GIVEN_BYTES_MAX: usize = 70_000;

/// How a request is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    /// At once, with its path and body.
    Echo,
    /// The same in a later turn.
    Later,
    /// In a later turn, and not at all if the peer has gone.
    Watched,
    /// The same with a small limit for bodies.
    Small,
    /// From its head.
    Refuse,
    /// At once, with so many bytes as it asks for.
    Big,
    /// The body is read piece by piece, then answered with a length.
    Whole,
    /// The same, answered without a length, and with the request's trailers behind it.
    Chunks,
    /// The answer begins before the body is read.
    Eager,
    /// Piece by piece, without a look at the body.
    Given,
    /// The same, and cut off.
    Abort,
}

/// What is to be done about a request.
#[derive(Debug, Clone)]
pub(super) struct Plan {
    pub(super) way: Way,
    path: Vec<u8>,
}

impl Plan {
    pub(super) fn of(path: &[u8]) -> Self {
        let way = match path.get(1) {
            Some(b'l') => Way::Later,
            Some(b'w') => Way::Watched,
            Some(b'm') => Way::Small,
            Some(b'r') => Way::Refuse,
            Some(b'b') => Way::Big,
            Some(b's') => Way::Whole,
            Some(b'c') => Way::Chunks,
            Some(b'x') => Way::Eager,
            Some(b'g') => Way::Given,
            Some(b'a') => Way::Abort,
            _ => Way::Echo,
        };
        Self { way, path: path.to_vec() }
    }

    /// Returns status and body of the answer to a body.
    pub(super) fn answer(&self, body: &[u8]) -> (u16, Vec<u8>) {
        match self.way {
            Way::Refuse => (404, b"none".to_vec()),
            Way::Big | Way::Given | Way::Abort => {
                let digits = self.path.get(3..).unwrap_or_default();
                let size = std::str::from_utf8(digits).ok().and_then(|digits| digits.parse().ok());
                let size = size.unwrap_or(500).min(GIVEN_BYTES_MAX);
                let places: Vec<u8> = (0..=250).collect();
                let mut body = places.repeat(1 + size / places.len());
                body.truncate(size);
                (200, body)
            }
            _ => (200, [&self.path, body].concat()),
        }
    }

    pub(super) const fn is_streamed(&self) -> bool {
        matches!(self.way, Way::Whole | Way::Chunks | Way::Eager | Way::Given | Way::Abort)
    }
}

/// A request that the host has and did not answer yet.
#[derive(Debug)]
struct Call {
    id: ConnectionId,
    plan: Plan,
    status: u16,
    /// The answer to what was read so far.
    answer: Vec<u8>,
    is_reading: bool,
    /// What was written of the answer, once it has begun.
    written: Option<usize>,
    /// An event is to come first.
    is_waiting: bool,
}

impl Call {
    fn new(id: ConnectionId, plan: Plan, body: &[u8]) -> Self {
        let (status, answer) = plan.answer(body);
        Self { id, plan, status, answer, is_reading: false, written: None, is_waiting: false }
    }
}

/// See the file's head.
#[derive(Debug)]
pub(super) struct Host {
    random: Random,
    calls: Vec<Call>,
}

impl Host {
    pub(super) fn new(random: Random) -> Self {
        Self { random, calls: Vec::new() }
    }

    pub(super) fn is_idle(&self) -> bool {
        self.calls.is_empty()
    }

    pub(super) fn handle<R: Ring, C: Clock>(
        &mut self,
        endpoint: &mut Endpoint<R, C>,
        event: Event,
    ) {
        match event {
            Event::Request(id) => self.begin(endpoint, id, true),
            Event::Head(id) => self.begin(endpoint, id, false),
            Event::Refused(id, refusal) => {
                self.calls.retain(|call| call.id != id);
                refuse(endpoint, id, refusal);
            }
            Event::Gone(id) => {
                let count = self.calls.len();
                self.calls.retain(|call| call.id != id);
                assert_eq!(self.calls.len() + 1, count, "who vanished was owed an answer");
            }
            Event::Body(id) | Event::Room(id) => {
                let place = self.calls.iter().position(|call| call.id == id);
                let place = place.expect("an event is for a call that waits");
                assert!(self.calls[place].is_waiting, "nobody asked");
                self.calls[place].is_waiting = false;
                self.drive(endpoint, place);
            }
            Event::Woken | Event::Fetch(_) => unreachable!("nothing is watched, or fetched"),
        }
    }

    fn begin<R: Ring, C: Clock>(
        &mut self,
        endpoint: &mut Endpoint<R, C>,
        id: ConnectionId,
        is_complete: bool,
    ) {
        let view = endpoint.request(id);
        let plan = Plan::of(view.head.path.of(view.bytes));
        let mut body = view.body.to_vec();
        assert!(self.calls.iter().all(|call| call.id != id), "one request at a time");
        if plan.way == Way::Refuse {
            let (status, answer) = plan.answer(&body);
            return respond(endpoint, id, status, &answer);
        }
        if plan.is_streamed() {
            let taken = self.random.below(body.len() + 1);
            body.truncate(taken);
            endpoint.stream(id, BODY_BYTES_MAX, taken);
            let mut call = Call::new(id, plan, &body);
            call.is_reading = !matches!(call.plan.way, Way::Given | Way::Abort);
            self.calls.push(call);
            return self.drive(endpoint, self.calls.len() - 1);
        }
        match plan.way {
            Way::Small if !is_complete => endpoint.admit(id, SMALL_BYTES_MAX as u64),
            _ if !is_complete => endpoint.admit(id, BODY_BYTES_MAX),
            Way::Small if body.len() > SMALL_BYTES_MAX => {
                refuse(endpoint, id, Refusal::BodyTooLarge);
            }
            Way::Later | Way::Watched => {
                // A request that is neither answered nor deferred counts as deferred.
                if plan.way == Way::Watched || self.random.once_in(2) {
                    endpoint.defer(id);
                }
                let is_watched = plan.way == Way::Watched;
                self.calls.push(Call::new(id, plan, &body));
                if is_watched {
                    endpoint.watch_peer(id, true);
                }
            }
            _ => {
                let (status, answer) = plan.answer(&body);
                respond(endpoint, id, status, &answer);
            }
        }
    }

    /// Goes on with a call that no event is to come for.
    pub(super) fn go_on<R: Ring, C: Clock>(&mut self, endpoint: &mut Endpoint<R, C>) {
        if self.calls.is_empty() || !self.random.once_in(2) {
            return;
        }
        let place = self.random.below(self.calls.len());
        if self.calls[place].plan.is_streamed() {
            if !self.calls[place].is_waiting {
                self.drive(endpoint, place);
            }
        } else {
            let call = self.calls.swap_remove(place);
            respond(endpoint, call.id, call.status, &call.answer);
        }
    }

    /// Reads and writes until the host is tired of it or has to wait.
    fn drive<R: Ring, C: Clock>(&mut self, endpoint: &mut Endpoint<R, C>, place: usize) {
        while !self.random.once_in(6) {
            let call = &mut self.calls[place];
            let id = call.id;
            let may_begin = !call.is_reading || call.plan.way == Way::Eager;
            let whole = &call.answer;
            let Some(written) = call.written.filter(|_| may_begin) else {
                if may_begin {
                    let length = (call.plan.way == Way::Whole).then_some(whole.len() as u64);
                    let begun =
                        endpoint.begin_response(id, call.status, std::iter::empty(), length);
                    begun.expect("a head without lines of the host's can be sent");
                    call.written = Some(0);
                } else if self.read(endpoint, place) {
                    return;
                }
                continue;
            };
            let left = &whole[written..];
            if left.is_empty() {
                if call.is_reading {
                    if self.read(endpoint, place) {
                        return;
                    }
                    continue;
                }
                if call.plan.way == Way::Chunks && !give_trailers_back(endpoint, id) {
                    return call.is_waiting = true;
                }
                assert!(endpoint.end_response(id), "all of it was written");
                self.calls.swap_remove(place);
                return;
            }
            if call.plan.way == Way::Abort && written > 0 {
                endpoint.abort(id);
                self.calls.swap_remove(place);
                return;
            }
            let size = self.random.size(left.len());
            match endpoint.write_response(id, &left[..size]) {
                Written::Bytes(size) => call.written = Some(written + size),
                Written::Later => return call.is_waiting = true,
                Written::TooLong => panic!("no more than was told"),
            }
        }
    }

    /// Reads some of a body; returns true if the call has to wait.
    fn read<R: Ring, C: Clock>(&mut self, endpoint: &mut Endpoint<R, C>, place: usize) -> bool {
        let call = &mut self.calls[place];
        match endpoint.unread(call.id) {
            Unread::Bytes(size) => {
                assert!(endpoint.trailers(call.id).is_none(), "they come behind the body");
                let start = call.answer.len();
                call.answer.resize(start + self.random.size(size), 0);
                endpoint.read_body(call.id, &mut call.answer[start..]);
            }
            Unread::Later => call.is_waiting = true,
            Unread::End => call.is_reading = false,
        }
        call.is_waiting
    }
}

/// Ends a body with what came behind the request's; false if there is no room yet.
fn give_trailers_back<R: Ring, C: Clock>(endpoint: &mut Endpoint<R, C>, id: ConnectionId) -> bool {
    // A peer that has gone takes its trailers along; the event about that is on its way.
    let Some(trailers) = endpoint.trailers(id).cloned() else { return false };
    let written = endpoint.write_trailers(id, trailers.iter());
    written.expect("what was taken can be sent") != Written::Later
}

fn respond<R: Ring, C: Clock>(
    endpoint: &mut Endpoint<R, C>,
    id: ConnectionId,
    status: u16,
    body: &[u8],
) {
    let stale_count = endpoint.counters().responses_stale;
    endpoint.respond(id, status, std::iter::empty(), body);
    assert_eq!(endpoint.counters().responses_stale, stale_count, "nobody has vanished");
}

fn refuse<R: Ring, C: Clock>(endpoint: &mut Endpoint<R, C>, id: ConnectionId, refusal: Refusal) {
    endpoint.respond(id, refusal.status(), std::iter::empty(), refusal.name().as_bytes());
}
