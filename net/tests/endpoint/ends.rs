//! Deadlines, caps, draining: how connections end.

use std::net::TcpStream;
use std::time::{Duration, Instant};

use midge_net::Settings;

use super::{Command, GET, PATIENCE, Server, serve, until};

/// A limit that a test waits for.
const SHORT: Duration = Duration::from_millis(100);

#[test]
fn a_head_in_drops_has_no_more_time_than_any_other() {
    let server = Server::start(Settings { header_timeout: 5 * SHORT, ..Settings::default() });
    let mut client = server.connect();
    client.send("GET / HTTP/1.1\r\nX: ");
    let start = Instant::now();
    // Fewer than make it too large, which is another refusal.
    let mut drops = 0..8000;
    until("the head is refused", || {
        if drops.next().is_some() {
            client.send_anyway("x");
        }
        server.report().counters.timeouts_header == 1
    });
    assert!(start.elapsed() >= 4 * SHORT);
    assert_eq!(client.read().status, 408);
}

#[test]
fn a_late_head_of_a_head_request_gets_no_body() {
    let server = Server::start(Settings { header_timeout: SHORT, ..Settings::default() });
    let mut client = server.connect();
    client.send("HEAD / HTTP/1.1\r\nX: ");
    assert_eq!(client.read_head().0, 408);
    client.expect_closed();
}

#[test]
fn an_empty_line_after_a_request_is_not_a_late_head() {
    let server = Server::start(Settings { header_timeout: SHORT, ..Settings::default() });
    let mut client = server.connect();
    client.send(GET.to_owned() + "\r\n");
    assert_eq!(client.read().status, 200);
    client.expect_closed();
    let counters = server.report().counters;
    assert_eq!((counters.timeouts_idle, counters.timeouts_header), (1, 0));
}

#[test]
fn a_body_that_stalls_is_answered_with_408() {
    let server = Server::start(Settings { body_grace: SHORT, ..Settings::default() });
    let mut client = server.connect();
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhi");
    let response = client.read();
    assert_eq!((response.status, response.closes()), (408, true));
    client.expect_closed();
    assert_eq!(server.report().counters.timeouts_body, 1);
}

#[test]
fn a_peer_that_takes_no_bytes_is_closed() {
    let server = Server::start(Settings { write_timeout: SHORT, ..Settings::default() });
    let mut client = server.connect();
    client.send("GET /big/4000000 HTTP/1.1\r\nHost: a\r\n\r\n".repeat(16));
    let report = server.wait_until("the slot is free", |report| {
        report.counters.accepted == 1 && report.connections == 0
    });
    assert_eq!(report.counters.timeouts_write, 1);
}

/// The end after the first response is the server's wish, of which the peer may not know yet.
fn last(linger_timeout: Duration) -> Settings {
    Settings { linger_timeout, requests_per_connection_max: 1, ..Settings::default() }
}

#[test]
fn a_peer_that_asked_for_the_end_is_not_waited_for() {
    let server = Server::start(Settings { linger_timeout: PATIENCE, ..Settings::default() });
    let mut client = server.connect();
    client.send("GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
    assert_eq!(client.read().status, 200);
    client.expect_closed();
    server.wait_until("the slot is free", |report| report.connections == 0);
}

#[test]
fn a_peer_that_stays_after_the_end_is_left() {
    let server = Server::start(last(SHORT));
    let mut client = server.connect();
    client.send(GET);
    assert_eq!(client.read().status, 200);
    client.expect_closed();
    let report = server.wait_until("the slot is free", |report| report.connections == 0);
    assert_eq!(report.counters.timeouts_linger, 1);
}

#[test]
fn a_peer_that_sends_on_after_the_end_is_left() {
    let server = Server::start(last(PATIENCE));
    let mut client = server.connect();
    client.send(GET);
    assert_eq!(client.read().status, 200);
    until("the slot is free", || {
        client.send_anyway([b'x'; 4096]);
        server.report().connections == 0
    });
    assert_eq!(server.report().counters.timeouts_linger, 0);
}

#[test]
fn a_connection_has_a_cap_of_requests() {
    let server = Server::start(Settings { requests_per_connection_max: 3, ..Settings::default() });
    let mut client = server.connect();
    client.send(GET.repeat(5));
    assert!(!client.read().closes());
    assert!(!client.read().closes());
    assert!(client.read().closes());
    client.expect_closed();
}

#[test]
fn draining_ends_each_connection_with_its_next_response() {
    let server = serve();
    let mut waiting = server.connect();
    let mut active = server.connect();
    waiting.send("GET /later HTTP/1.1\r\nHost: a\r\n\r\n".to_owned() + GET);
    assert!(!active.get("/x").closes());
    server.wait_until("the request is deferred", |report| report.deferred == 1);
    server.tell(Command::DrainOnly);
    assert!(active.get("/x").closes());
    active.expect_closed();
    server.tell(Command::Answer);
    let response = waiting.read();
    assert_eq!((response.text(), response.closes()), ("later", true));
    waiting.expect_closed();
    server.wait_until("all is closed", |report| report.connections == 0);
}

#[test]
fn accepting_stops_and_what_is_connected_goes_on() {
    let server = serve();
    let mut client = server.connect();
    assert_eq!(client.get("/x").status, 200);
    server.tell(Command::StopAccepting);
    server.tell(Command::StopAccepting);
    until("connecting is refused", || TcpStream::connect(server.address).is_err());
    assert_eq!(client.get("/x").status, 200);
}

#[test]
fn only_idle_connections_are_closed_when_told_to() {
    let server = serve();
    let mut idle = server.connect();
    let mut fresh = server.connect();
    let mut begun = server.connect();
    let mut owed = server.connect();
    assert_eq!(idle.get("/x").status, 200);
    begun.send(&GET[..9]);
    owed.send("GET /later HTTP/1.1\r\nHost: a\r\n\r\n");
    let sizes =
        u64::try_from(GET.len() + 9 + "GET /later HTTP/1.1\r\nHost: a\r\n\r\n".len()).unwrap();
    server.wait_until("all is received", |report| {
        report.counters.accepted == 4 && report.counters.bytes_received == sizes
    });
    server.tell(Command::CloseIdle);
    idle.expect_closed();
    fresh.expect_closed();
    begun.send(&GET[9..]);
    assert_eq!(begun.read().status, 200);
    server.tell(Command::Answer);
    assert_eq!(owed.read().status, 200);
    drop((idle, fresh));
    server.wait_until("the idle are gone", |report| report.connections == 2);
}

#[test]
fn a_worker_may_end_with_everything_under_way() {
    let server = serve();
    let mut reading = server.connect();
    let mut sending = server.connect();
    let mut waiting = server.connect();
    reading.send("GET /big/4000000 HTTP/1.1\r\nHost: a\r\n\r\n".repeat(16));
    sending.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\n");
    sending.send(vec![0; 1000]);
    waiting.send("GET /later HTTP/1.1\r\nHost: a\r\n\r\n");
    server.wait_until("the request is deferred", |report| report.deferred == 1);
    drop(server);
    waiting.expect_closed();
}
