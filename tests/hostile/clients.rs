//! Clients that come in crowds and leave in the middle.

use midge_tests::guests::{HARM, HELLO};
use midge_tests::host::Setup;
use midge_tests::http::Client;

/// Connections in all.
const CONNECTIONS: usize = 10_000;
/// So many at a time: the test has to hold them too.
const BATCH: usize = 250;

#[test]
fn ten_thousand_connections_leave_nothing_behind() {
    let host = Setup::new().file("hello.wat", HELLO).function("hello.wat");
    assert_eq!(host.client().get("/").status, 200);
    host.wait_for_metrics("the first connection is closed", |metrics| {
        metrics.sum("midge_connections", &[]) == 0
    });
    let descriptors = host.descriptor_count();
    for _ in 0..CONNECTIONS / BATCH {
        let mut clients: Vec<_> = (0..BATCH).map(|_| host.client()).collect();
        for (number, client) in clients.iter_mut().enumerate() {
            match number % 5 {
                0 => {} // says nothing
                1 => client.send(b"GET / HTTP/1.1\r\nhos"),
                2 => client.send(b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 9\r\n\r\nhalf"),
                3 => client.send_get("/"), // leaves before the answer
                _ => assert_eq!(client.get("/").text(), "hello\n"),
            }
        }
    }
    let opened = u64::try_from(CONNECTIONS).unwrap() + 1;
    host.wait_for_metrics("all connections are closed", |metrics| {
        metrics.sum("midge_connections", &[]) == 0
            && metrics.sum("midge_connections_accepted_total", &[]) == opened
    });
    midge_tests::wait::wait_for("descriptors are given back", || {
        host.descriptor_count() <= descriptors
    });
    assert_eq!(host.client().get("/").text(), "hello\n");
}

#[test]
fn a_client_that_breaks_off_during_its_call_frees_the_slot() {
    let settings = "[[function]]\nname = \"harm\"\nmodule = \"harm.wat\"\nroute = \"/*\"\n\
                    deadline = \"60s\"\nconcurrency = 2\n";
    let host = Setup::new().file("harm.wat", HARM).serve(settings);
    for round in 1..=3 {
        let mut clients = [host.client(), host.client()];
        for client in &mut clients {
            client.send_get("/?a");
            client.send_get("/?b");
        }
        host.wait_for_metrics("both calls are under way", |metrics| {
            metrics.sum("midge_queue_depth", &[]) == 2
        });
        let busy = host.client().get("/?a");
        let _id = busy.problem(503, "overloaded");
        assert_eq!(busy.header("retry-after"), Some("1"));
        clients.into_iter().for_each(Client::leave_unread);
        host.wait_for_metrics("both calls are given up", |metrics| {
            metrics.sum("midge_queue_depth", &[]) == 0
                && metrics.sum("midge_function_discards_total", &["abandoned"]) == 2 * round
        });
        assert_eq!(host.client().get("/?a").status, 200);
    }
}

#[test]
fn a_client_that_has_said_all_still_gets_its_answer() {
    let settings = "[[function]]\nname = \"harm\"\nmodule = \"harm.wat\"\nroute = \"/*\"\n\
                    deadline = \"300ms\"\n";
    let host = Setup::new().file("harm.wat", HARM).serve(settings);
    let mut client = host.client();
    client.send_get("/?b");
    client.end_sending();
    let _id = client.receive().problem(504, "deadline-exceeded");
    assert!(client.is_ended());
    host.wait_for_metrics("the connection is closed", |metrics| {
        metrics.sum("midge_connections", &[]) == 0
    });
}
