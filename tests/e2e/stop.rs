//! SIGTERM: what is under way is answered, then the host ends.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use midge_tests::guests::{HARM, HELLO};
use midge_tests::host::{Host, Setup};
use midge_tests::http::Client;
use midge_tests::wait::wait_for;
use rustix::process::Signal;

/// A host whose function `/harm?b` runs until its deadline.
fn host(deadline: &str) -> Host {
    let settings = format!(
        r#"
drain_timeout = "60s"
[[function]]
name = "hello"
module = "hello.wat"
route = "/hello"
[[function]]
name = "harm"
module = "harm.wat"
route = "/harm"
deadline = "{deadline}"
"#
    );
    Setup::new().file("hello.wat", HELLO).file("harm.wat", HARM).serve(&settings)
}

/// Sends a request that takes until its deadline, and waits until it is under way.
fn under_way(host: &Host) -> Client {
    let mut client = host.client();
    client.send_get("/harm?b");
    host.wait_for_metrics("the call is under way", |metrics| {
        metrics.sum("midge_queue_depth", &[]) == 1
    });
    client
}

#[test]
fn an_idle_host_ends_at_once() {
    for signal in [Signal::TERM, Signal::INT] {
        let mut host = host("100ms");
        let mut idle = host.client();
        assert_eq!(idle.get("/hello").status, 200);
        host.signal(signal);
        assert!(host.wait_for_end().success());
        assert!(idle.is_ended(), "an idle connection is closed");
    }
}

#[test]
fn a_request_in_flight_is_answered_before_the_end() {
    let mut host = host("3s");
    let mut idle = host.client();
    assert_eq!(idle.get("/hello").status, 200);
    let mut client = under_way(&host);
    host.signal(Signal::TERM);
    wait_for("health says so", || Client::connect(host.admin).get("/healthz").status == 503);
    assert_eq!(host.metrics().sum("midge_draining", &[]), 1);
    assert!(idle.is_ended(), "an idle connection is closed while others are answered");
    wait_for("nobody accepts any more", || std::net::TcpStream::connect(host.listen).is_err());
    let response = client.receive();
    let _id = response.problem(504, "deadline-exceeded");
    assert_eq!(response.header("connection"), Some("close"));
    assert!(client.is_ended());
    assert!(host.wait_for_end().success());
}

#[test]
fn a_second_signal_stops_without_waiting() {
    let mut host = host("60s");
    let mut client = under_way(&host);
    host.signal(Signal::TERM);
    let _line = host.wait_for_line(&["draining"]);
    host.signal(Signal::TERM);
    assert!(host.wait_for_end().success());
    assert!(client.is_ended(), "no answer, and no half of one");
}

#[test]
fn a_signal_counts_from_the_moment_that_the_host_is_ready() {
    for _ in 0..10 {
        let mut host = Setup::new().file("hello.wat", HELLO).function("hello.wat");
        host.signal(Signal::HUP);
        let mut client = host.client();
        assert_eq!(client.get("/").status, 200);
        drop(client);
        host.signal(Signal::TERM);
        assert!(host.wait_for_end().success());
    }
    let mut host = Setup::new().file("hello.wat", HELLO).function("hello.wat");
    host.signal(Signal::TERM);
    assert!(host.wait_for_end().success());
}

#[test]
fn a_stop_under_load_answers_whole_or_not_at_all() {
    let mut host = host("100ms");
    let listen = host.listen;
    let answered = Arc::new(AtomicU64::new(0));
    let clients = (0..4).map(|_| {
        let (mut client, answered) = (host.client(), Arc::clone(&answered));
        std::thread::spawn(move || {
            // Ends with the connection. `try_get` fails on half an answer.
            while let Some(response) = client.try_get("/hello") {
                assert_eq!(response.text(), "hello\n");
                answered.fetch_add(1, Ordering::Relaxed);
            }
        })
    });
    let clients: Vec<_> = clients.collect();
    wait_for("all are busy", || 200 < answered.load(Ordering::Relaxed));
    host.signal(Signal::TERM);
    for client in clients {
        client.join().expect("each answer was whole");
    }
    assert!(host.wait_for_end().success());
    assert!(std::net::TcpStream::connect(listen).is_err());
}
