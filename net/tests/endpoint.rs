//! A real endpoint on a real ring, spoken to over loopback in raw bytes. `MIDGE_TEST_RING_TIER` names a tier other
//! than the machine's best; `epoll.rs` runs all of it on epoll.
//!
//! One server thread per test runs a small host: it echoes bodies, answers `/big/N` with N bytes, and defers
//! `/later` until the test says so. Tests wait for bytes or for counters, with a bound, and never sleep.

#[path = "endpoint/ends.rs"]
mod ends; // deadlines, caps, draining
#[path = "endpoint/exchanges.rs"]
mod exchanges; // requests of every shape
#[path = "endpoint/pressure.rs"]
mod pressure; // peers that don't read, pools that run dry
#[path = "endpoint/refusals.rs"]
mod refusals; // what isn't taken, and how the connection ends

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use midge_net::clock::MonotonicClock;
use midge_net::counters::Counters;
use midge_net::epoll::Epoll;
use midge_net::ring::Ring;
use midge_net::uring::Uring;
use midge_net::wake::Waker;
use midge_net::{ConnectionId, Endpoint, Event, ListenOptions, RingTier, Settings, Wait, listen};

/// Longest wait for anything: far above what a loaded machine takes.
const PATIENCE: Duration = Duration::from_secs(20);

const BODY_BYTES_MAX: u64 = 1 << 20;

const GET: &str = "GET /x HTTP/1.1\r\nHost: a\r\n\r\n";

enum Command {
    Answer,
    /// Stop accepting, drain, close what is idle.
    Drain,
    DrainOnly,
    StopAccepting,
    CloseIdle,
    /// Do nothing until the other end is dropped.
    Stall(Receiver<()>),
    Report,
    Stop,
}

struct Report {
    counters: Counters,
    connections: u32,
    /// Requests that the host owes a response.
    deferred: usize,
}

struct Server {
    address: SocketAddr,
    waker: Waker,
    commands: Sender<Command>,
    reports: Receiver<Report>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    fn start(settings: Settings) -> Self {
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        let listener = listen::bind(any, &ListenOptions::default()).expect("a port is free");
        let address = listener.local_addr().expect("a listener has an address");
        let waker = Waker::new().expect("a descriptor is free");
        let event = waker.descriptor().expect("a descriptor is free");
        let (commands, inbox) = channel();
        let (outbox, reports) = channel();
        let thread = std::thread::spawn(move || match tier() {
            Some(RingTier::D) => {
                let ring = Epoll::new(&settings).expect("epoll can be had");
                host(ring, listener, settings, event, &inbox, &outbox);
            }
            tier => {
                let ring = tier
                    .map_or_else(|| Uring::new(&settings), |tier| Uring::of_tier(&settings, tier));
                let ring = ring.expect("a ring can be made");
                host(ring, listener, settings, event, &inbox, &outbox);
            }
        });
        Self { address, waker, commands, reports, thread: Some(thread) }
    }

    fn tell(&self, command: Command) {
        self.commands.send(command).expect("the server runs");
        self.waker.wake();
    }

    fn report(&self) -> Report {
        self.tell(Command::Report);
        self.reports.recv_timeout(PATIENCE).expect("the server reports")
    }

    /// Asks for reports until one is as wanted.
    fn wait_until(&self, what: &str, is_wanted: impl Fn(&Report) -> bool) -> Report {
        let start = Instant::now();
        loop {
            let report = self.report();
            if is_wanted(&report) {
                return report;
            }
            let counters = &report.counters;
            assert!(start.elapsed() < PATIENCE, "{what}: {} {counters:?}", report.connections);
            std::thread::yield_now();
        }
    }

    fn connect(&self) -> Client {
        let stream = TcpStream::connect(self.address).expect("the server listens");
        stream.set_read_timeout(Some(PATIENCE)).expect("a socket has options");
        stream.set_nodelay(true).expect("a socket has options");
        Client { stream, received: Vec::new() }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // A server that failed does not listen to this any more; its join tells.
        drop(self.commands.send(Command::Stop));
        self.waker.wake();
        let outcome = self.thread.take().expect("joined once").join();
        assert!(outcome.is_ok() || std::thread::panicking(), "the server thread failed");
    }
}

/// The tier that these tests run on, if it isn't the best.
#[expect(clippy::disallowed_methods, reason = "the tier is a test's own setting")]
fn tier() -> Option<RingTier> {
    if env!("CARGO_CRATE_NAME") == "epoll" {
        return Some(RingTier::D);
    }
    let name = std::env::var("MIDGE_TEST_RING_TIER").ok()?;
    Some(RingTier::from_name(&name).expect("a tier is a, b, c or d"))
}

/// True if a receive was stopped. One that is for a single piece needs no stopping: it is not armed again.
fn has_paused(report: &Report) -> bool {
    report.counters.receives_paused > 0
        || (tier() == Some(RingTier::C) && report.counters.bytes_received > 0)
}

fn host(
    ring: impl Ring,
    listener: TcpListener,
    settings: Settings,
    event: OwnedFd,
    inbox: &Receiver<Command>,
    outbox: &Sender<Report>,
) {
    let clock = MonotonicClock::new();
    let mut endpoint =
        Endpoint::new(ring, clock, listener, settings).expect("settings are in bounds");
    endpoint.watch(event);
    run(&mut endpoint, inbox, outbox);
}

/// The host's loop.
fn run<R: Ring>(
    endpoint: &mut Endpoint<R, MonotonicClock>,
    inbox: &Receiver<Command>,
    outbox: &Sender<Report>,
) {
    let mut deferred: Vec<(ConnectionId, Vec<u8>)> = Vec::new();
    loop {
        endpoint.turn(Wait::Block).expect("the ring works");
        while let Some(event) = endpoint.next_event() {
            match event {
                Event::Request(id) => answer(endpoint, id, &mut deferred),
                Event::Head(id) => {
                    let request = endpoint.request(id);
                    match request.head.path.of(request.bytes) {
                        b"/nowhere" => endpoint.respond(id, 404, std::iter::empty(), b""),
                        b"/undecided" => {}
                        b"/small" => endpoint.admit(id, 16),
                        _ => endpoint.admit(id, BODY_BYTES_MAX),
                    }
                }
                Event::Refused(id, refusal) => {
                    let name = refusal.name().as_bytes();
                    endpoint.respond(id, refusal.status(), std::iter::empty(), name);
                }
                Event::Gone(id) => deferred.retain(|(other, _)| *other != id),
                Event::Body(_) | Event::Room(_) => unreachable!("nothing is streamed"),
                Event::Fetch(_) => unreachable!("nothing is fetched"),
                Event::Woken => {
                    for command in inbox.try_iter() {
                        match command {
                            Command::Answer => {
                                // The last one first: order is the endpoint's business.
                                for (id, body) in deferred.drain(..).rev() {
                                    endpoint.respond(id, 200, std::iter::empty(), &body);
                                }
                            }
                            Command::Drain => {
                                endpoint.stop_accepting();
                                endpoint.drain();
                                endpoint.close_idle();
                            }
                            Command::DrainOnly => endpoint.drain(),
                            Command::StopAccepting => endpoint.stop_accepting(),
                            Command::CloseIdle => endpoint.close_idle(),
                            Command::Stall(end) => {
                                assert!(end.recv_timeout(PATIENCE).is_err(), "nothing is sent");
                            }
                            Command::Report => {
                                let counters = endpoint.counters().clone();
                                let connections = endpoint.connection_count();
                                let deferred = deferred.len();
                                let report = Report { counters, connections, deferred };
                                outbox.send(report).expect("a reader");
                            }
                            Command::Stop => return,
                        }
                    }
                }
            }
        }
    }
}

fn answer<R: Ring>(
    endpoint: &mut Endpoint<R, MonotonicClock>,
    id: ConnectionId,
    deferred: &mut Vec<(ConnectionId, Vec<u8>)>,
) {
    let request = endpoint.request(id);
    assert!(request.peer.is_some(), "the peer is known before its first request");
    let path = request.head.path.of(request.bytes);
    if path.starts_with(b"/later") {
        deferred.push((id, path[1..].to_vec()));
        endpoint.defer(id);
        return;
    }
    if path == b"/silent" {
        // Neither answered nor deferred, which means deferred.
        deferred.push((id, path[1..].to_vec()));
        return;
    }
    let body = match path.strip_prefix(b"/big/") {
        Some(digits) => {
            let digits = std::str::from_utf8(digits).expect("a number");
            pattern(digits.parse().expect("a number"))
        }
        None if request.body.is_empty() => path.to_vec(),
        None => request.body.to_vec(),
    };
    endpoint.respond(id, 200, std::iter::empty(), &body);
}

/// Bytes that tell their place, so that a loss or a swap is seen.
fn pattern(size: usize) -> Vec<u8> {
    (0..=250).cycle().take(size).collect()
}

struct Client {
    stream: TcpStream,
    received: Vec<u8>,
}

#[derive(Debug)]
struct Response {
    status: u16,
    head: String,
    body: Vec<u8>,
}

impl Response {
    fn text(&self) -> &str {
        std::str::from_utf8(&self.body).expect("text was asked for")
    }

    fn closes(&self) -> bool {
        self.head.contains("Connection: close\r\n")
    }
}

impl Client {
    fn get(&mut self, path: &str) -> Response {
        self.send(format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n"));
        self.read()
    }

    /// Sends, not minding a connection that was closed in between.
    fn send_anyway(&mut self, bytes: impl AsRef<[u8]>) {
        if let Err(error) = self.stream.write_all(bytes.as_ref()) {
            let kind = error.kind();
            let is_closed =
                matches!(kind, io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset);
            assert!(is_closed, "{error}");
        }
    }

    /// Sends what the socket takes without waiting; returns how much that was.
    fn send_some(&mut self, bytes: &[u8]) -> usize {
        self.stream.set_nonblocking(true).expect("a socket has options");
        let outcome = self.stream.write(bytes);
        self.stream.set_nonblocking(false).expect("a socket has options");
        match outcome {
            Ok(size) => size,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => 0,
            Err(error) => panic!("the server keeps the connection: {error}"),
        }
    }

    /// Returns a second handle of the same connection, to send from another thread.
    fn second(&self) -> Self {
        let stream = self.stream.try_clone().expect("a descriptor is free");
        Self { stream, received: Vec::new() }
    }

    fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.stream.write_all(bytes.as_ref()).expect("the server reads");
    }

    fn fill(&mut self) -> io::Result<usize> {
        let mut bytes = [0; 16 * 1024];
        let size = self.stream.read(&mut bytes)?;
        self.received.extend_from_slice(&bytes[..size]);
        Ok(size)
    }

    /// Reads up to the end of a head.
    fn read_head(&mut self) -> (u16, String) {
        let head_end = loop {
            if let Some(place) = self.received.windows(4).position(|bytes| bytes == b"\r\n\r\n") {
                break place + 4;
            }
            assert_ne!(self.fill().expect("an answer"), 0, "closed before a head was complete");
        };
        let head: Vec<u8> = self.received.drain(..head_end).collect();
        let head = String::from_utf8(head).expect("heads are ASCII");
        let status = head["HTTP/1.1 ".len()..][..3].parse().expect("a status");
        (status, head)
    }

    fn read(&mut self) -> Response {
        let (status, head) = self.read_head();
        let length = head
            .lines()
            .find_map(|line| line.strip_prefix("Content-Length: "))
            .map_or(0, |length| length.parse().expect("a length"));
        while self.received.len() < length {
            assert_ne!(self.fill().expect("an answer"), 0, "closed before a body was complete");
        }
        Response { status, head, body: self.received.drain(..length).collect() }
    }

    fn expect(&mut self, status: u16, body: impl AsRef<[u8]>) -> Response {
        let response = self.read();
        assert_eq!(response.status, status, "{}", response.head);
        let (found, expected) = (&response.body, body.as_ref());
        assert!(found == expected, "{} bytes, not {}", found.len(), expected.len());
        response
    }

    fn expect_closed(&mut self) {
        let size = self.fill().expect("an end without a reset");
        assert_eq!(size, 0);
        assert!(self.received.is_empty(), "{}", String::from_utf8_lossy(&self.received));
    }

    /// Makes the end of this client a reset.
    fn will_reset(&self) {
        let socket = socket2::SockRef::from(&self.stream);
        socket.set_linger(Some(Duration::ZERO)).expect("a socket has options");
    }
}

/// Waits until `condition` holds.
fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < PATIENCE, "{what} did not come true");
        std::thread::yield_now();
    }
}

fn serve() -> Server {
    Server::start(Settings::default())
}

#[test]
fn a_connection_serves_one_request_after_the_other() {
    let server = serve();
    let mut client = server.connect();
    for _ in 0..100 {
        client.send(GET);
        let response = client.expect(200, "/x");
        assert!(!response.head.contains("Connection"), "{}", response.head);
        assert!(response.head.contains("Date: "), "{}", response.head);
    }
    let report = server.report();
    assert_eq!((report.counters.requests, report.counters.accepted), (100, 1));
}

#[test]
fn sixty_four_requests_in_a_pipeline_are_answered_in_order() {
    let server = serve();
    let mut client = server.connect();
    let request = |number| format!("GET /{number} HTTP/1.1\r\nHost: a\r\n\r\n");
    client.send((0..64).map(request).collect::<String>());
    for number in 0..64 {
        client.expect(200, format!("/{number}"));
    }
}

#[test]
fn a_request_may_be_split_anywhere() {
    let server = serve();
    let mut client = server.connect();
    let request = "POST /p?q HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello";
    let mut sent = 0;
    for place in 1..request.len() {
        client.send(&request[..place]);
        // The second part goes when the first has surely been seen.
        let expected = u64::try_from(sent + place).unwrap();
        server.wait_until("the first part", |report| report.counters.bytes_received == expected);
        client.send(&request[place..]);
        client.expect(200, "hello");
        sent += request.len();
    }
    for byte in request.as_bytes().chunks(1) {
        client.send(byte);
    }
    client.expect(200, "hello");
}

#[test]
fn a_body_in_chunks_is_put_together() {
    let server = serve();
    let mut client = server.connect();
    let head = "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
    client.send(format!("{head}5;x=y\r\nhello\r\n6\r\n world\r\n0\r\nt: u\r\n\r\n{GET}"));
    client.expect(200, "hello world");
    client.expect(200, "/x");
    let body = pattern(300_000);
    client.send(head);
    for chunk in body.chunks(7777) {
        client.send(format!("{:x}\r\n", chunk.len()));
        client.send(chunk);
        client.send("\r\n");
    }
    client.send(format!("0\r\n\r\n{GET}"));
    client.expect(200, &body);
    client.expect(200, "/x");
}

#[test]
fn a_long_body_arrives_whole() {
    let server = serve();
    let mut client = server.connect();
    let body = pattern(1_000_000);
    let head = format!("PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n", body.len());
    client.send([head.as_bytes(), &body, GET.as_bytes()].concat());
    client.expect(200, &body);
    client.expect(200, "/x");
}

#[test]
fn head_tells_the_length_alone() {
    let server = serve();
    let mut client = server.connect();
    client.send(format!("HEAD /big/1000 HTTP/1.1\r\nHost: a\r\n\r\n{GET}"));
    let (status, head) = client.read_head();
    assert_eq!(status, 200);
    assert!(head.contains("Content-Length: 1000\r\n"), "{head}");
    client.expect(200, "/x");
}

#[test]
fn a_body_is_called_for_when_the_peer_waits() {
    let server = serve();
    let mut client = server.connect();
    let head = "PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n";
    client.send(head);
    assert_eq!(client.read_head().1, "HTTP/1.1 100 Continue\r\n\r\n");
    client.send("hello");
    client.expect(200, "hello");
    // Not where the answer is known already.
    client.send(head.replace("PUT /", "PUT /nowhere"));
    client.expect(404, "");
    client.expect_closed();
}

#[test]
fn a_body_beyond_the_limit_is_refused_before_it_is_sent() {
    let server = serve();
    let mut client = server.connect();
    client.send("PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 1048577\r\n\r\n");
    client.expect(413, "body-too-large");
    client.expect_closed();
}

#[test]
fn an_unwanted_short_body_does_not_cost_the_connection() {
    let server = serve();
    let mut client = server.connect();
    client.send("PUT /nowhere HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhe");
    client.expect(404, "");
    client.send(format!("llo{GET}"));
    client.expect(200, "/x");
}

#[test]
fn a_connection_closes_when_either_side_wants() {
    let server = serve();
    for request in [
        "GET /x HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n".to_owned(),
        format!("GET /x HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n{GET}"),
        "GET /x HTTP/1.0\r\n\r\n".to_owned(),
    ] {
        let mut client = server.connect();
        client.send(request);
        let response = client.expect(200, "/x");
        assert!(response.head.contains("Connection: close\r\n"), "{}", response.head);
        client.expect_closed();
    }
    let mut client = server.connect();
    client.send("GET /x HTTP/1.0\r\nConnection: keep-alive\r\n\r\n");
    let response = client.expect(200, "/x");
    assert!(response.head.contains("Connection: keep-alive\r\n"), "{}", response.head);
    client.send(GET);
    client.expect(200, "/x");
}

#[test]
fn refusals_have_their_status_and_close() {
    let server = serve();
    let long_target = format!("GET /{}", "a".repeat(9000));
    let long_head = format!("GET / HTTP/1.1\r\nHost: a\r\nx: {}", "a".repeat(40_000));
    for (request, status) in [
        ("BAD\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: a\r\nA : b\r\n\r\n", 400),
        ("GET / HTTP/1.1\nHost: a\n\n", 400),
        ("\x16\x03\x01\x02", 400),
        ("FOO / HTTP/1.1\r\nHost: a\r\n\r\n", 501),
        ("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505),
        ("PUT / HTTP/1.1\r\nHost: a\r\nExpect: tea\r\n\r\n", 417),
        ("PUT / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nx\r\n", 400),
        ("PUT / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n", 501),
        (&long_target, 414),
        (&long_head, 431),
    ] {
        let mut client = server.connect();
        client.send(request);
        let response = client.read();
        let front = &request[..request.len().min(60)];
        assert_eq!(response.status, status, "{front}");
        assert!(response.head.contains("Connection: close\r\n"), "{}", response.head);
        client.expect_closed();
    }
}

#[test]
fn answers_before_a_refusal_are_not_lost() {
    let server = serve();
    let mut client = server.connect();
    // More than is read before the refusal: without lingering a reset would eat the answers.
    client.send(format!("{GET}{GET}BAD\r\n\r\n{}", "x".repeat(50_000)));
    client.expect(200, "/x");
    client.expect(200, "/x");
    client.expect(400, "request-line");
    client.expect_closed();
}

#[test]
fn a_half_closed_peer_gets_its_answers() {
    let server = serve();
    let mut client = server.connect();
    client.send(format!("GET /later HTTP/1.1\r\nHost: a\r\n\r\n{GET}"));
    client.stream.shutdown(Shutdown::Write).unwrap();
    server.wait_until("the request", |report| report.counters.requests == 1);
    server.tell(Command::Answer);
    client.expect(200, "later");
    client.expect(200, "/x");
    client.expect_closed();
}

#[test]
fn a_big_response_reaches_a_slow_reader() {
    let server = serve();
    let mut client = server.connect();
    let size = 8_000_000;
    client.send(format!("GET /big/{size} HTTP/1.1\r\nHost: a\r\n\r\n{GET}"));
    // The first answer doesn't fit into the socket, and nobody reads yet.
    let report = server.wait_until("the first", |report| report.counters.requests > 0);
    assert_eq!(report.counters.requests, 1, "the second waits until the first was taken");
    client.expect(200, pattern(size));
    client.expect(200, "/x");
}

#[test]
fn a_peer_that_only_writes_is_stopped_and_then_served() {
    let server = serve();
    let mut client = server.connect();
    // A hundred answers of 100 kB are far more than sockets and the limit for unsent bytes hold.
    let count = 100;
    client.send("GET /big/100000 HTTP/1.1\r\nHost: a\r\n\r\n".repeat(count));
    let report = server.wait_until("the pause", has_paused);
    assert!(report.counters.requests < u64::try_from(count).unwrap());
    let body = pattern(100_000);
    for _ in 0..count {
        client.expect(200, &body);
    }
}

#[test]
fn a_vanished_peer_is_told_to_the_host() {
    let server = serve();
    let mut client = server.connect();
    client.send("GET /later HTTP/1.1\r\nHost: a\r\n\r\n");
    server.wait_until("the request", |report| report.counters.requests == 1);
    client.will_reset();
    drop(client);
    let report = server.wait_until("the end", |report| report.connections == 0);
    assert_eq!(report.counters.connections_broken, 1);
    server.tell(Command::Answer);
    assert_eq!(server.report().counters.responses_stale, 0, "the host forgot it in time");
}

#[test]
fn two_thousand_connections_come_and_go() {
    let server = serve();
    let mut clients: Vec<Client> = (0..2000).map(|_| server.connect()).collect();
    server.wait_until("all of them", |report| report.counters.accepted == 2000);
    // They go silently, after an answer, in the middle of a head, with a reset.
    for (number, client) in clients.iter_mut().enumerate() {
        match number % 4 {
            0 => {}
            1 => {
                client.send(GET);
                client.expect(200, "/x");
            }
            2 => client.send("GET /x HT"),
            _ => client.will_reset(),
        }
    }
    drop(clients);
    let report = server.wait_until("the end of all", |report| report.connections == 0);
    assert_eq!(report.counters.closed, 2000);
    let mut client = server.connect();
    client.send(GET);
    client.expect(200, "/x");
}

#[test]
fn slots_and_buffers_survive_many_rounds_of_reuse() {
    let settings =
        Settings { connections_max: 4, buffers: 4, buffer_bytes: 64, ..Settings::default() };
    let server = Server::start(settings);
    for _ in 0..50 {
        let mut clients: Vec<Client> = (0..4).map(|_| server.connect()).collect();
        for client in &mut clients {
            client.send("GET /x HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
        }
        for client in &mut clients {
            client.expect(200, "/x");
            client.expect_closed();
        }
    }
    let report = server.wait_until("the end of all", |report| report.connections == 0);
    assert_eq!((report.counters.accepted, report.counters.closed), (200, 200));
}

#[test]
fn connections_beyond_the_limit_are_served_when_slots_are_free() {
    let server = Server::start(Settings { connections_max: 4, ..Settings::default() });
    // Those above the limit wait in the kernel's queue.
    let mut clients: Vec<Client> = (0..300).map(|_| server.connect()).collect();
    for mut client in clients.drain(..) {
        client.send("GET /x HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
        client.expect(200, "/x");
        client.expect_closed();
    }
    let report = server.wait_until("the end of all", |report| report.connections == 0);
    assert_eq!(report.counters.accepted, 300);
    assert!(report.counters.accept_paused > 0);
}

#[test]
fn two_buffers_are_enough_for_a_hundred_connections() {
    let server = Server::start(Settings { buffers: 2, buffer_bytes: 64, ..Settings::default() });
    let mut clients: Vec<Client> = (0..100).map(|_| server.connect()).collect();
    let body = pattern(2000);
    let head = format!("PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n", body.len());
    for _ in 0..5 {
        for client in &mut clients {
            client.send([head.as_bytes(), &body].concat());
        }
        for client in &mut clients {
            client.expect(200, &body);
        }
    }
    let report = server.report();
    assert!(report.counters.buffers_starved > 0, "the pool was too small, as meant");
    drop(clients);
    server.wait_until("the end of all", |report| report.connections == 0);
}

#[test]
fn a_tiny_ring_still_serves() {
    let settings = Settings { entries: 8, completions_per_turn: 3, ..Settings::default() };
    let server = Server::start(settings);
    let mut clients: Vec<Client> = (0..100).map(|_| server.connect()).collect();
    for _ in 0..5 {
        for client in &mut clients {
            client.send(GET.repeat(3));
        }
        for client in &mut clients {
            for _ in 0..3 {
                client.expect(200, "/x");
            }
        }
    }
}

#[test]
fn silence_is_ended_in_time() {
    let short = Duration::from_millis(100);
    let settings = Settings { header_timeout: short, idle_timeout: short, ..Settings::default() };
    let server = Server::start(settings);
    let mut silent = server.connect();
    let mut slow = server.connect();
    slow.send("GET / HTTP/1.1\r\n");
    let mut idle = server.connect();
    idle.send(GET);
    idle.expect(200, "/x");
    slow.expect(408, "request-timeout");
    slow.expect_closed();
    idle.expect_closed();
    silent.expect_closed();
    drop((slow, idle, silent));
    let report = server.wait_until("the end of all", |report| report.connections == 0);
    assert_eq!((report.counters.timeouts_idle, report.counters.timeouts_header), (2, 1));
}

#[test]
fn draining_answers_what_came_and_ends_the_rest() {
    let server = serve();
    let mut idle = server.connect();
    idle.send(GET);
    idle.expect(200, "/x");
    let mut busy = server.connect();
    busy.send("GET /later HTTP/1.1\r\nHost: a\r\n\r\n");
    server.wait_until("both", |report| report.counters.requests == 2);
    server.tell(Command::Drain);
    idle.expect_closed();
    server.tell(Command::Answer);
    let response = busy.expect(200, "later");
    assert!(response.head.contains("Connection: close\r\n"), "{}", response.head);
    busy.expect_closed();
    drop((idle, busy));
    server.wait_until("the end of all", |report| report.connections == 0);
    assert!(TcpStream::connect(server.address).is_err(), "nobody listens any more");
}

#[test]
fn a_thousand_requests_in_a_pipeline_take_few_enters() {
    let server = serve();
    let mut client = server.connect();
    client.send(GET.repeat(1000));
    for _ in 0..1000 {
        client.expect(200, "/x");
    }
    let enters = server.report().counters.enters;
    assert!(enters < 100, "{enters} enters for 1000 requests");
}
