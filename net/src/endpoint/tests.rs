//! The endpoint on a ring without a kernel: what rarely happens on a real one, on demand.

use std::time::Duration;

use super::*;
use crate::listen::{self, ListenOptions, Listener};
use crate::ring::fake::{FakeClock, FakeRing, More};

const GET: &[u8] = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n";
const SLOTS: usize = 80;

struct World {
    endpoint: Endpoint<FakeRing, FakeClock>,
    clock: FakeClock,
}

impl World {
    fn new(buffers: usize) -> Self {
        Self::with(buffers, Settings { connections_max: 16, ..Settings::default() })
    }

    fn with(buffers: usize, settings: Settings) -> Self {
        let clock = FakeClock::default();
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        let listener = listen::bind(any, &ListenOptions::default()).unwrap();
        let ring = FakeRing::new(buffers, SLOTS);
        let endpoint = Endpoint::new(ring, clock.clone(), listener, settings).unwrap();
        let mut world = Self { endpoint, clock };
        assert_eq!(world.turn(), []);
        assert!(world.pushed().contains(&Operation::Accept(0)));
        world
    }

    fn ring(&mut self) -> &mut FakeRing {
        &mut self.endpoint.ring
    }

    /// What was pushed, but for the accepts that follow an accept.
    fn pushed(&mut self) -> Vec<Operation> {
        let mut pushed = self.ring().take_pushed();
        let is_first = self.endpoint.connection_count() == 0;
        pushed.retain(|operation| is_first || *operation != Operation::Accept(0));
        pushed
    }

    /// Takes a turn; returns its events without acting on them.
    fn turn(&mut self) -> Vec<Event> {
        self.turn_with(|_, _| {})
    }

    fn turn_with(
        &mut self,
        mut act: impl FnMut(&mut Endpoint<FakeRing, FakeClock>, Event),
    ) -> Vec<Event> {
        self.endpoint.turn(Wait::Block).unwrap();
        let mut events = Vec::new();
        while let Some(event) = self.endpoint.next_event() {
            events.push(event);
            act(&mut self.endpoint, event);
        }
        events
    }

    /// Takes a turn in which every request and refusal is answered.
    fn serve(&mut self) -> Vec<Event> {
        self.turn_with(|endpoint, event| match event {
            Event::Request(id) => respond(endpoint, id, 200),
            Event::Refused(id, refusal) => respond(endpoint, id, refusal.status()),
            Event::Head(id) => endpoint.admit(id, 100),
            Event::Gone(_) | Event::Woken | Event::Body(_) | Event::Room(_) | Event::Fetch(_) => {}
        })
    }

    /// Accepts into a slot; returns its connection, whose receive is armed.
    fn accept(&mut self, slot: i32) -> ConnectionId {
        let none = ConnectionId::new(0, 0);
        self.ring().complete(Completed::Accept, none, slot, More::Last);
        self.serve();
        let id = self.endpoint.connections[usize::try_from(slot).unwrap()].id;
        assert!(self.pushed().contains(&Operation::Receive(id)));
        id
    }

    fn finish_send(&mut self, id: ConnectionId) {
        let size = self.endpoint.connections[id.slot() as usize].sending_bytes;
        let sent = self.endpoint.connections[id.slot() as usize].sent_bytes;
        let left = i32::try_from(size - sent).unwrap();
        self.ring().complete(Completed::Send, id, left, More::Last);
    }

    /// Completes what a connection that is being closed waits for, until its slot is free.
    fn finish_close(&mut self, id: ConnectionId) {
        for _ in 0..8 {
            for operation in self.pushed() {
                match operation {
                    Operation::Shutdown(id) => {
                        self.ring().complete(Completed::Shutdown, id, 0, More::Last);
                        self.ring().complete(Completed::Receive, id, 0, More::Last);
                    }
                    Operation::CancelReceive(id) => {
                        let error = -libc::ECANCELED;
                        self.ring().complete(Completed::Receive, id, error, More::Last);
                    }
                    Operation::CancelSend(id) => {
                        self.ring().complete(Completed::Send, id, -libc::ECANCELED, More::Last);
                    }
                    Operation::Close(id) => {
                        self.ring().complete(Completed::Close, id, 0, More::Last);
                    }
                    _ => {}
                }
            }
            self.serve();
        }
        assert_ne!(self.endpoint.connections[id.slot() as usize].id, id, "the slot is free");
        assert_eq!(self.ring().lent_count(), 0);
    }
}

#[test]
fn at_the_limit_those_go_who_have_waited_longest() {
    let settings = Settings { connections_max: 3, ..Settings::default() };
    let mut world = World::with(64, settings);
    let [idle, begun, busy] = [0, 1, 2].map(|slot| world.accept(slot));
    assert!(world.ring().deliver(begun, b"GET / HTTP/1.1\r\nhos", More::Follows));
    assert!(world.ring().deliver(busy, GET, More::Follows));
    assert_eq!(world.turn(), [Event::Request(busy)], "which the host answers later");
    assert!(world.pushed().is_empty(), "nobody goes before their time");
    world.clock.pass(Duration::from_secs(2));
    assert_eq!(world.turn(), []);
    world.ring().complete(Completed::Receive, idle, 0, More::Last);
    let _now = world.turn();
    assert_eq!(world.endpoint.counters().connections_shed, 2);
    let phase = |id: ConnectionId| world.endpoint.connections[id.slot() as usize].phase;
    assert_eq!([idle, begun, busy].map(phase), [Phase::Closing, Phase::Ending, Phase::Open]);
}

#[test]
fn a_turn_at_the_limit_wakes_to_make_room() {
    let settings = Settings { connections_max: 1, ..Settings::default() };
    let mut world = World::with(64, settings);
    world.accept(0);
    assert_eq!(world.turn(), []);
    let timeout = world.endpoint.time_to_deadline().expect("it looks again");
    assert!(timeout <= Duration::from_millis(1020), "{timeout:?}");
}

fn respond(endpoint: &mut Endpoint<FakeRing, FakeClock>, id: ConnectionId, status: u16) {
    endpoint.respond(id, status, std::iter::empty(), b"ok");
}

#[test]
fn a_request_is_answered_by_one_send_and_its_buffer_is_back() {
    let mut world = World::new(4);
    let id = world.accept(3);
    assert!(world.ring().deliver(id, GET, More::Follows));
    assert_eq!(world.serve(), [Event::Request(id)]);
    assert_eq!(world.ring().lent_count(), 0);
    assert!(matches!(world.pushed()[..], [Operation::Send { offset: 0, .. }]));
    world.finish_send(id);
    assert_eq!(world.serve(), []);
    assert_eq!(world.pushed(), []);
    assert_eq!(
        world.endpoint.connections[3].output.capacity(),
        0,
        "an idle connection holds no area"
    );
    assert_eq!(world.endpoint.connections[3].input.capacity(), 0);
}

#[test]
fn pipelined_answers_leave_in_one_send() {
    let mut world = World::new(4);
    let id = world.accept(0);
    world.ring().deliver(id, &GET.repeat(5), More::Follows);
    assert_eq!(world.serve().len(), 5);
    let pushed = world.pushed();
    let [Operation::Send { output, .. }] = &pushed[..] else { panic!("{pushed:?}") };
    assert_eq!(output.windows(8).filter(|window| window == b"HTTP/1.1").count(), 5);
}

#[test]
fn a_receive_without_buffer_is_armed_again_when_buffers_are_back() {
    let mut world = World::new(1);
    let first = world.accept(0);
    let second = world.accept(1);
    assert!(world.ring().deliver(first, GET, More::Follows));
    assert!(!world.ring().deliver(second, GET, More::Follows));
    world.ring().complete(Completed::Receive, second, -libc::ENOBUFS, More::Last);
    world.serve();
    assert_eq!(world.endpoint.counters().buffers_starved, 1);
    assert!(!world.pushed().contains(&Operation::Receive(second)), "not in the same turn");
    world.turn();
    assert!(world.pushed().contains(&Operation::Receive(second)));
    world.ring().deliver(second, GET, More::Follows);
    assert_eq!(world.serve(), [Event::Request(second)]);
}

#[test]
fn starvation_that_lasts_does_not_spin() {
    let mut world = World::new(1);
    let id = world.accept(0);
    for _ in 0..3 {
        world.ring().complete(Completed::Receive, id, -libc::ENOBUFS, More::Last);
        world.turn();
        // One try a turn, and a turn that sleeps at least.
        assert_eq!(world.pushed(), []);
        world.turn();
        assert_eq!(world.pushed(), [Operation::Receive(id)]);
    }
    assert!(!world.ring().is_polled());
}

#[test]
fn all_who_found_no_buffer_are_armed_again_within_a_tick() {
    let mut world = World::new(1);
    let ids: Vec<ConnectionId> = (0..10).map(|slot| world.accept(slot)).collect();
    for &id in &ids {
        world.ring().complete(Completed::Receive, id, -libc::ENOBUFS, More::Last);
    }
    world.turn();
    assert_eq!(world.pushed(), []);
    // The clock is read in a turn, so the one after knows of the tick.
    world.clock.pass(TICK);
    world.turn();
    world.turn();
    let armed = world.pushed();
    assert!(ids.iter().all(|&id| armed.contains(&Operation::Receive(id))), "{armed:?}");
}

#[test]
fn a_multishot_that_ends_early_is_armed_again() {
    let mut world = World::new(4);
    let id = world.accept(0);
    world.ring().deliver(id, &GET[..9], More::Last);
    assert_eq!(world.serve(), []);
    assert_eq!(world.pushed(), [Operation::Receive(id)]);
    assert_eq!(world.ring().lent_count(), 0, "a fragment does not sit in a buffer");
    world.ring().deliver(id, &GET[9..], More::Follows);
    assert_eq!(world.serve(), [Event::Request(id)]);
}

#[test]
fn a_short_send_is_continued_before_later_answers() {
    let mut world = World::new(4);
    let id = world.accept(0);
    world.ring().deliver(id, GET, More::Follows);
    world.serve();
    let first = world.ring().sending(id).unwrap().to_vec();
    world.pushed();
    world.ring().deliver(id, GET, More::Follows);
    world.serve();
    assert_eq!(world.pushed(), [], "one send at a time");
    world.ring().complete(Completed::Send, id, 10, More::Last);
    world.serve();
    let expected = Operation::Send { id, output: first, offset: 10, is_last: false };
    assert_eq!(world.pushed(), [expected]);
    world.finish_send(id);
    world.serve();
    assert!(matches!(world.pushed()[..], [Operation::Send { offset: 0, .. }]));
}

#[test]
fn stale_completions_are_dropped() {
    let mut world = World::new(4);
    let id = world.accept(0);
    let stale = id.next();
    world.ring().deliver(stale, GET, More::Follows);
    world.ring().complete(Completed::Shutdown, stale, 0, More::Last);
    world.ring().complete(Completed::Send, stale, 7, More::Last);
    world.ring().complete(Completed::Close, stale, 0, More::Last);
    assert_eq!(world.serve(), []);
    assert_eq!(world.ring().lent_count(), 0);
    assert_eq!(world.endpoint.counters().completions_stale, 3);
    assert_eq!(world.endpoint.connection_count(), 1);
}

#[test]
fn a_slot_accepted_into_before_its_close_completed_is_the_new_connections() {
    let mut world = World::new(4);
    let old = world.accept(5);
    world.ring().complete(Completed::Receive, old, 0, More::Last);
    world.serve();
    assert_eq!(world.pushed(), [Operation::Close(old)]);
    let new = world.accept(5);
    assert_ne!(new, old);
    world.ring().complete(Completed::Close, old, 0, More::Last);
    world.ring().deliver(new, GET, More::Follows);
    assert_eq!(world.serve(), [Event::Request(new)]);
    assert_eq!(world.endpoint.connection_count(), 1);
}

#[test]
fn a_deferred_request_is_answered_later_and_in_order() {
    let mut world = World::new(4);
    let id = world.accept(0);
    world.ring().deliver(id, &GET.repeat(2), More::Follows);
    let events = world.turn_with(|endpoint, event| {
        if let Event::Request(id) = event {
            endpoint.defer(id);
        }
    });
    assert_eq!(events, [Event::Request(id)], "the second waits for the first");
    assert_eq!(world.ring().lent_count(), 0);
    respond(&mut world.endpoint, id, 200);
    assert_eq!(world.serve(), [Event::Request(id)]);
    world.finish_send(id);
    world.serve();
    world.finish_send(id);
    world.serve();
    assert_eq!(world.endpoint.counters().responses, 2);
    assert_eq!(world.endpoint.connections[0].unsent_bytes(), 0);
}

#[test]
fn a_peer_that_vanishes_takes_its_request_along() {
    let mut world = World::new(4);
    let id = world.accept(0);
    world.ring().deliver(id, GET, More::Follows);
    assert_eq!(world.turn(), [Event::Request(id)]);
    world.ring().complete(Completed::Receive, id, -libc::ECONNRESET, More::Last);
    assert_eq!(world.turn(), [Event::Gone(id)]);
    respond(&mut world.endpoint, id, 200);
    assert_eq!(world.endpoint.counters().responses_stale, 1);
    world.finish_close(id);
    respond(&mut world.endpoint, id, 200);
    assert_eq!(world.endpoint.counters().responses_stale, 2);
}

#[test]
fn a_half_closed_peer_still_gets_its_answer() {
    let mut world = World::new(4);
    let id = world.accept(0);
    world.ring().deliver(id, GET, More::Follows);
    assert_eq!(world.turn(), [Event::Request(id)]);
    world.ring().complete(Completed::Receive, id, 0, More::Last);
    assert_eq!(world.turn(), []);
    respond(&mut world.endpoint, id, 200);
    world.turn();
    assert!(matches!(world.pushed()[..], [Operation::Send { .. }]));
    world.finish_send(id);
    world.turn();
    assert_eq!(world.pushed(), [Operation::Close(id)]);
}

#[test]
fn a_refused_request_is_answered_then_the_connection_lingers_and_closes() {
    let mut world = World::new(4);
    let id = world.accept(0);
    world.ring().deliver(id, b"BAD\r\n\r\n", More::Follows);
    assert_eq!(world.serve(), [Event::Refused(id, Refusal::RequestLine)]);
    assert!(matches!(world.pushed()[..], [Operation::Send { .. }]));
    world.ring().deliver(id, GET, More::Follows);
    assert_eq!(world.serve(), [], "nothing is served after a refusal");
    world.finish_send(id);
    world.serve();
    assert_eq!(world.endpoint.connections[0].phase, Phase::Lingering);
    world.ring().deliver(id, &[b'x'; 200], More::Follows);
    world.serve();
    world.finish_close(id);
}

#[test]
fn a_refused_head_is_answered_without_a_body() {
    for (request, has_body) in [
        ("GET / HTTP/1.1\r\n\r\n", true),
        ("HEAD / HTTP/1.1\r\n\r\n", false),
        ("\r\nHEAD / HTTP/1.1\r\nHost : a\r\n\r\n", false),
        ("HEADER / HTTP/1.1\r\n\r\n", true),
    ] {
        let mut world = World::new(4);
        let id = world.accept(0);
        world.ring().deliver(id, request.as_bytes(), More::Follows);
        world.serve();
        let pushed = world.pushed();
        let [Operation::Send { output, .. }] = &pushed[..] else { panic!("{pushed:?}") };
        assert_eq!(output.ends_with(b"\r\n\r\nok"), has_body, "{request}");
        assert_eq!(output.ends_with(b"Content-Length: 2\r\n\r\n"), !has_body, "{request}");
    }
}

#[test]
fn lingering_is_bounded_in_bytes_and_time() {
    for by_time in [false, true] {
        let mut world = World::new(4);
        let id = world.accept(0);
        world.ring().deliver(id, b"BAD\r\n\r\n", More::Follows);
        world.serve();
        world.finish_send(id);
        world.serve();
        assert!(world.pushed().contains(&Operation::Shutdown(id)));
        world.ring().complete(Completed::Shutdown, id, 0, More::Last);
        world.serve();
        if by_time {
            world.clock.pass(Duration::from_millis(2100));
            world.serve();
            assert_eq!(world.endpoint.counters().timeouts_linger, 1);
        } else {
            for _ in 0..=64 * 1024 / 200 {
                world.ring().deliver(id, &[b'x'; 200], More::Follows);
                world.serve();
            }
        }
        assert_eq!(world.pushed(), [Operation::CancelReceive(id)]);
        world.ring().complete(Completed::Receive, id, -libc::ECANCELED, More::Last);
        world.serve();
        world.finish_close(id);
    }
}

#[test]
fn each_deadline_has_its_outcome() {
    // A head: refused.
    let mut world = World::new(4);
    let id = world.accept(0);
    world.ring().deliver(id, b"GET", More::Follows);
    world.serve();
    for _ in 0..9 {
        world.clock.pass(Duration::from_secs(1));
        world.ring().deliver(id, b"X", More::Follows);
        assert_eq!(world.serve(), [], "a slow head has ten seconds in all");
    }
    world.clock.pass(Duration::from_millis(1100));
    assert_eq!(world.serve(), [Event::Refused(id, Refusal::RequestTimeout)]);
    assert!(matches!(world.pushed()[..], [Operation::Send { .. }]));

    // A response that nobody takes: ended.
    world.clock.pass(Duration::from_millis(15_100));
    assert_eq!(world.serve(), []);
    assert_eq!(world.endpoint.counters().timeouts_write, 1);
    world.finish_close(id);

    // Silence between requests: closed without a word.
    let id = world.accept(1);
    world.ring().deliver(id, GET, More::Follows);
    world.serve();
    world.finish_send(id);
    world.serve();
    world.clock.pass(Duration::from_secs(29));
    world.serve();
    assert_eq!(world.endpoint.counters().timeouts_idle, 0);
    world.clock.pass(Duration::from_millis(1100));
    assert_eq!(world.serve(), []);
    assert_eq!(world.endpoint.counters().timeouts_idle, 1);
    world.finish_close(id);
}

#[test]
fn a_body_must_keep_its_rate() {
    let mut world = World::new(4);
    let id = world.accept(0);
    let head = b"PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\n12345";
    world.ring().deliver(id, head, More::Follows);
    assert_eq!(world.serve(), [Event::Head(id)]);
    world.clock.pass(Duration::from_millis(5500));
    assert_eq!(world.serve(), [Event::Refused(id, Refusal::RequestTimeout)]);
    assert_eq!(world.endpoint.counters().timeouts_body, 1);
}

#[test]
fn a_turn_sleeps_until_the_next_deadline() {
    let mut world = World::new(4);
    assert_eq!(world.ring().timeout(), None);
    world.accept(0);
    world.turn();
    let timeout = world.ring().timeout().unwrap();
    assert!((9900..=10_020).contains(&timeout.as_millis()), "{timeout:?}");
}

#[test]
fn a_body_longer_than_admitted_is_refused() {
    let mut world = World::new(4);
    let id = world.accept(0);
    let head = b"PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 101\r\n\r\n";
    world.ring().deliver(id, head, More::Follows);
    assert_eq!(world.serve(), [Event::Head(id), Event::Refused(id, Refusal::BodyTooLarge)]);

    let id = world.accept(1);
    let head = b"PUT / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
    world.ring().deliver(id, head, More::Follows);
    assert_eq!(world.serve(), [Event::Head(id)]);
    let chunk = [b"70\r\n".as_slice(), &[b'x'; 0x70]].concat();
    world.ring().deliver(id, &chunk, More::Follows);
    assert_eq!(world.serve(), [Event::Refused(id, Refusal::BodyTooLarge)]);
}

#[test]
fn a_short_unwanted_body_is_skipped_and_a_long_one_ends_the_connection() {
    let answer = |endpoint: &mut Endpoint<FakeRing, FakeClock>, event| {
        if let Event::Head(id) | Event::Request(id) = event {
            respond(endpoint, id, 404);
        }
    };
    let mut world = World::new(4);
    let id = world.accept(0);
    let head = b"PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\n123";
    world.ring().deliver(id, head, More::Follows);
    assert_eq!(world.turn_with(answer), [Event::Head(id)]);
    world.ring().deliver(id, &[b"4567890", GET].concat(), More::Follows);
    assert_eq!(world.turn_with(answer), [Event::Request(id)]);

    let id = world.accept(1);
    let head = b"PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\n123";
    world.ring().deliver(id, head, More::Follows);
    assert_eq!(world.turn_with(answer), [Event::Head(id)]);
    let sent = String::from_utf8(world.ring().sending(id).unwrap().to_vec()).unwrap();
    assert!(sent.contains("Connection: close"), "{sent}");
}

#[test]
fn a_peer_that_does_not_read_is_paused_then_goes_on() {
    let settings = Settings { connections_max: 16, unsent_bytes_max: 300, ..Settings::default() };
    let mut world = World::with(4, settings);
    let id = world.accept(0);
    world.ring().deliver(id, &GET.repeat(8), More::Follows);
    let served = world.serve().len();
    assert!(served < 8, "{served} of 8 were served");
    let pushed = world.pushed();
    assert!(pushed.contains(&Operation::CancelReceive(id)), "{pushed:?}");
    world.ring().complete(Completed::Receive, id, -libc::ECANCELED, More::Last);
    assert_eq!(world.serve(), []);
    let mut total = served;
    for _ in 0..8 {
        if world.endpoint.connections[0].is_sending {
            world.finish_send(id);
        }
        total += world.serve().len();
    }
    assert_eq!(total, 8);
    assert!(world.pushed().contains(&Operation::Receive(id)), "reading goes on");
}

fn accepts(world: &mut World) -> usize {
    let pushed = world.ring().take_pushed();
    pushed.iter().filter(|operation| **operation == Operation::Accept(0)).count()
}

#[test]
fn no_more_is_accepted_than_there_is_room_for() {
    let settings = Settings { connections_max: 2, ..Settings::default() };
    let mut world = World::with(4, settings);
    let none = ConnectionId::new(0, 0);
    for slot in [0, 1] {
        world.ring().complete(Completed::Accept, none, slot, More::Last);
    }
    world.serve();
    world.turn();
    assert_eq!((world.endpoint.connection_count(), accepts(&mut world)), (2, 0));
    assert_eq!(world.endpoint.counters().accept_paused, 1);
    let id = world.endpoint.connections[0].id;
    world.ring().complete(Completed::Receive, id, 0, More::Last);
    world.serve();
    world.ring().complete(Completed::Close, id, 0, More::Last);
    world.serve();
    world.turn();
    assert_eq!((world.endpoint.connection_count(), accepts(&mut world)), (1, 1));
}

#[test]
fn a_burst_is_taken_in_portions() {
    let clock = FakeClock::default();
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    let listener = listen::bind(any, &ListenOptions::default()).unwrap();
    let ring = FakeRing::new(1, 0);
    let endpoint = Endpoint::new(ring, clock.clone(), listener, Settings::default()).unwrap();
    let mut world = World { endpoint, clock };
    world.turn();
    assert_eq!(accepts(&mut world), 32);
    let none = ConnectionId::new(0, 0);
    for slot in 0..20 {
        world.ring().complete(Completed::Accept, none, slot, More::Last);
    }
    world.serve();
    world.turn();
    assert_eq!((world.endpoint.connection_count(), accepts(&mut world)), (20, 20));
}

#[test]
fn no_listener_waits_for_another() {
    let clock = FakeClock::default();
    let listener = || {
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        Listener::from(listen::bind(any, &ListenOptions::default()).unwrap())
    };
    let ring = FakeRing::new(1, 0);
    let settings = Settings { connections_max: 1, listeners: 2, ..Settings::default() };
    let listeners = vec![listener(), listener()];
    let endpoint = Endpoint::new(ring, clock.clone(), listeners, settings).unwrap();
    let mut world = World { endpoint, clock };
    let accepts = |world: &mut World| {
        let mut pushed = world.ring().take_pushed();
        pushed.retain(|operation| matches!(operation, Operation::Accept(_)));
        pushed
    };
    world.turn();
    assert_eq!(accepts(&mut world), [Operation::Accept(0), Operation::Accept(1)]);
    for (slot, number) in [(0, 1), (1, 0)] {
        let from = ConnectionId::new(number, 0);
        world.ring().complete(Completed::Accept, from, slot, More::Last);
    }
    world.serve();
    world.turn();
    assert_eq!((world.endpoint.connection_count(), accepts(&mut world)), (2, vec![]));
    let id = world.endpoint.connections[0].id;
    for step in [Completed::Receive, Completed::Close] {
        world.ring().complete(step, id, 0, More::Last);
        world.serve();
    }
    world.turn();
    assert_eq!((world.endpoint.connection_count(), accepts(&mut world)), (1, vec![]));
}

#[test]
fn accepting_backs_off_when_descriptors_run_out() {
    let settings = Settings { connections_max: 1, ..Settings::default() };
    let mut world = World::with(4, settings);
    let none = ConnectionId::new(0, 0);
    world.ring().complete(Completed::Accept, none, -libc::EMFILE, More::Last);
    world.serve();
    world.turn();
    assert_eq!(accepts(&mut world), 0);
    assert!(world.ring().timeout().is_some(), "it is tried again without being woken");
    world.clock.pass(Duration::from_millis(250));
    world.turn();
    world.turn();
    assert_eq!(accepts(&mut world), 1);
}

#[test]
fn a_turn_handles_a_bounded_number_of_completions() {
    let settings = Settings { completions_per_turn: 2, ..Settings::default() };
    let mut world = World::with(8, Settings { connections_max: 16, ..settings });
    let id = world.accept(0);
    for _ in 0..5 {
        world.ring().deliver(id, GET, More::Follows);
    }
    assert_eq!(world.serve().len(), 2);
    assert_eq!(world.serve().len(), 2);
    assert!(world.ring().is_polled(), "a turn with work left does not sleep");
    assert_eq!(world.serve().len(), 1);
}

#[test]
fn draining_ends_every_connection_with_its_next_response() {
    let mut world = World::new(4);
    let idle = world.accept(0);
    let busy = world.accept(1);
    world.ring().deliver(busy, GET, More::Follows);
    assert_eq!(world.turn(), [Event::Request(busy)]);
    world.endpoint.stop_accepting();
    world.endpoint.drain();
    world.endpoint.close_idle();
    let pushed = world.pushed();
    assert!(
        pushed.contains(&Operation::CancelAccepts(0))
            && pushed.contains(&Operation::Shutdown(idle))
    );
    respond(&mut world.endpoint, busy, 200);
    world.turn();
    let sent = String::from_utf8(world.ring().sending(busy).unwrap().to_vec()).unwrap();
    assert!(sent.contains("Connection: close"), "{sent}");
}

/// A body in chunks with this behind it.
fn with_trailers(trailers: &str) -> Vec<u8> {
    let head = "PUT / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
    format!("{head}2\r\nab\r\n0\r\n{trailers}\r\n").into_bytes()
}

#[test]
fn trailers_are_there_as_long_as_their_request() {
    let mut world = World::new(4);
    let id = world.accept(0);
    let both = [with_trailers("X: y\r\nhost: b\r\n"), with_trailers("")].concat();
    world.ring().deliver(id, &both, More::Follows);
    let mut seen = Vec::new();
    world.turn_with(|endpoint, event| {
        assert_eq!(event, Event::Request(id));
        let trailers = endpoint.trailers(id).expect("the body is there").clone();
        seen.push((trailers, endpoint.counters().bodies_bytes));
        respond(endpoint, id, 200);
        assert_eq!(endpoint.counters().bodies_bytes, 0);
    });
    let (first, second) = (&seen[0], &seen[1]);
    assert!(first.0.iter().eq([(&b"x"[..], &b"y"[..])]), "{first:?}");
    assert!(first.1 > 0, "they count against the budget of bodies");
    assert!(second.0.is_empty() && second.1 == 0, "{second:?}");
}

#[test]
fn trailers_beyond_the_budget_of_bodies_are_refused() {
    let settings = Settings { connections_max: 16, bodies_bytes_max: 100, ..Settings::default() };
    let mut world = World::with(4, settings);
    let long = with_trailers(&format!("a: {}\r\n", "b".repeat(120)));
    let id = world.accept(0);
    world.ring().deliver(id, &long, More::Follows);
    assert_eq!(world.serve(), [Event::Refused(id, Refusal::BodiesFull)]);
    // The same in two pieces, of which the second has them.
    let id = world.accept(1);
    let (front, back) = long.split_at(long.len() - 125);
    world.ring().deliver(id, front, More::Follows);
    assert_eq!(world.serve(), [Event::Head(id)]);
    world.ring().deliver(id, back, More::Follows);
    assert_eq!(world.serve(), [Event::Refused(id, Refusal::BodiesFull)]);
    assert_eq!(world.endpoint.counters().bodies_bytes, 0);
}

/// Streams the body of a request whose head is at hand, and begins a response in chunks.
fn begin(endpoint: &mut Endpoint<FakeRing, FakeClock>, event: Event) {
    if let Event::Head(id) | Event::Request(id) = event {
        endpoint.stream(id, 1000, 0);
        endpoint.begin_response(id, 200, std::iter::empty(), None).unwrap();
    }
}

#[test]
fn trailers_of_a_stream_come_behind_its_body_and_go_behind_its_response() {
    use crate::stream::{Unread, Written};
    let mut world = World::new(4);
    let id = world.accept(0);
    world.ring().deliver(
        id,
        &with_trailers("X: more than is left beside a frame\r\n"),
        More::Follows,
    );
    assert_eq!(world.turn_with(begin), [Event::Request(id)]);
    assert!(world.endpoint.trailers(id).is_none(), "the body was not read");
    assert_eq!(world.endpoint.unread(id), Unread::Bytes(2));
    world.endpoint.read_body(id, &mut [0; 2]);
    let trailers = world.endpoint.trailers(id).expect("it was read").clone();
    // As much as may wait: they have to wait, too.
    let large = vec![b'x'; 1 << 20];
    while world.endpoint.write_response(id, &large) != Written::Later {}
    assert_eq!(world.endpoint.write_trailers(id, trailers.iter()), Ok(Written::Later));
    world.turn();
    world.finish_send(id);
    assert!(world.turn().contains(&Event::Room(id)));
    let written = world.endpoint.write_trailers(id, trailers.iter());
    assert!(matches!(written, Ok(Written::Bytes(_))), "{written:?}");
    assert_eq!(world.endpoint.write_response(id, b"more"), Written::TooLong);
    assert!(world.endpoint.end_response(id));
    world.finish_send(id);
    world.turn();
    world.turn();
    let sent = String::from_utf8(world.ring().sending(id).unwrap().to_vec()).unwrap();
    assert_eq!(sent, "0\r\nx: more than is left beside a frame\r\n\r\n");
    assert_eq!(world.endpoint.counters().bodies_bytes, 0);
}
