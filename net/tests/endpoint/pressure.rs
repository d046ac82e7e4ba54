//! Peers that don't read, pools that run dry, many connections.

use std::net::TcpStream;

use midge_net::Settings;

use super::{Client, Command, GET, Server, has_paused, until};

#[test]
fn a_peer_that_only_sends_is_not_read_from_for_long() {
    let settings = Settings {
        unsent_bytes_max: 64 * 1024,
        pipelined_bytes_max: 16 * 1024,
        ..Settings::default()
    };
    let unsent_max = u64::try_from(settings.unsent_bytes_max).unwrap();
    let server = Server::start(settings);
    let mut client = server.connect();
    let requests = GET.repeat(1000);
    let mut sent = 0;
    // The socket has not taken a byte over several looks: the worker reads no more.
    let mut stalls = 0;
    until("the worker stops reading", || {
        let offset = sent % requests.len();
        let size = client.send_some(&requests.as_bytes()[offset..]);
        sent += size;
        let report = server.report();
        let is_stalled = size == 0 && has_paused(&report);
        stalls = if is_stalled { stalls + 1 } else { 0 };
        stalls == 50
    });
    let before = server.report().counters;
    let after = server.report().counters;
    assert_eq!(before.bytes_received, after.bytes_received);

    // Now it reads after all: every complete request has its answer, in order.
    let rest = requests.len() - sent % requests.len();
    let mut sender = client.second();
    let writer = std::thread::spawn(move || {
        sender.send(&requests.as_bytes()[requests.len() - rest..]);
    });
    let count = (sent + rest) / GET.len();
    let mut response_size = 0;
    for _ in 0..count {
        let response = client.read();
        assert_eq!(response.text(), "/x");
        response_size = u64::try_from(response.head.len() + response.body.len()).unwrap();
    }
    writer.join().unwrap();
    let unsent = before.responses * response_size - before.bytes_sent;
    assert!(unsent <= unsent_max + response_size, "{unsent} bytes were kept for it");
    assert_eq!(server.report().counters.requests, u64::try_from(count).unwrap());
}

#[test]
fn requests_wait_while_one_is_deferred_but_not_without_bound() {
    let settings = Settings { pipelined_bytes_max: 8 * 1024, ..Settings::default() };
    let server = Server::start(settings);
    let mut client = server.connect();
    client.send("GET /later HTTP/1.1\r\nHost: a\r\n\r\n");
    server.wait_until("the request is deferred", |report| report.deferred == 1);
    let mut sender = client.second();
    let writer = std::thread::spawn(move || sender.send(GET.repeat(100_000)));
    server.wait_until("reading stops", has_paused);
    server.tell(Command::Answer);
    assert_eq!(client.read().text(), "later");
    for _ in 0..100_000 {
        assert_eq!(client.read().text(), "/x");
    }
    writer.join().unwrap();
}

#[test]
fn a_starved_peer_that_is_silent_keeps_nobody_waiting() {
    let settings = Settings { buffers: 2, buffer_bytes: 64, ..Settings::default() };
    let server = Server::start(settings);
    let mut clients: Vec<Client> = (0..200).map(|_| server.connect()).collect();
    for client in &mut clients {
        client.send(GET);
    }
    for client in &mut clients {
        assert_eq!(client.read().status, 200);
    }
    // Whoever is still parked is armed again, though no buffer comes back meanwhile.
    for client in clients.iter_mut().rev() {
        assert_eq!(client.get("/x").status, 200);
    }
}

#[test]
fn connections_that_come_and_go_at_once_are_accounted_for() {
    let server = Server::start(Settings { connections_max: 64, ..Settings::default() });
    for _ in 0..2000 {
        drop(TcpStream::connect(server.address).unwrap());
    }
    server.wait_until("all slots are free", |report| {
        report.counters.accepted >= 2000 - 64 && report.connections == 0
    });
    assert_eq!(server.connect().get("/x").status, 200);
}

#[test]
fn a_burst_beyond_the_limit_loses_nobody() {
    // All of it waits in the kernel's queue before the server looks: more than there is room for.
    // Clients ask one after the other: on a busy machine the last of them are silent for long.
    let shed_after = std::time::Duration::from_secs(3600);
    let settings = Settings { connections_max: 2048, shed_after, ..Settings::default() };
    let server = Server::start(settings);
    server.report();
    let (end, stall) = std::sync::mpsc::channel();
    server.tell(Command::Stall(stall));
    let clients: Vec<Client> = (0..3500).map(|_| server.connect()).collect();
    drop(end);
    for mut client in clients {
        assert_eq!(client.get("/x").status, 200);
    }
    let report = server.wait_until("the end of all", |report| report.connections == 0);
    assert_eq!((report.counters.accepted, report.counters.accept_failed), (3500, 0));
}
