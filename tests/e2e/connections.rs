//! What a connection keeps and what it must not keep.

use midge_tests::guests::example;
use midge_tests::host::{Host, Setup};
use midge_tests::http::{Client, Request};
use midge_tests::program::midge;

fn counter() -> Host {
    Setup::new().file("counter.wasm", example("counter")).function("counter.wasm")
}

#[test]
fn no_request_finds_what_another_left_behind() {
    let host = counter();
    let mut clients: Vec<Client> = (0..5).map(|_| host.client()).collect();
    for round in 0..60 {
        for client in &mut clients {
            assert_eq!(client.get("/").text(), "1\n", "round {round}");
        }
    }
    for round in 0..40 {
        for client in &mut clients {
            client.send(&Request::get("/").bytes().repeat(4));
        }
        for client in &mut clients {
            for _ in 0..4 {
                assert_eq!(client.receive().text(), "1\n", "pipelined, round {round}");
            }
        }
    }
    let metrics = host.metrics();
    let requests = metrics.sum("midge_function_requests_total", &[]);
    assert_eq!(requests, 5 * 60 + 5 * 40 * 4);
    assert!(metrics.starts("counter", "T3") > 0, "slots were used again");
}

#[test]
fn pipelined_requests_are_answered_in_their_order() {
    let host = Setup::new().file("hello.wasm", example("hello")).function("hello.wasm");
    let mut client = host.client();
    let requests = (0..32).flat_map(|number| Request::get(&format!("/?name=n{number}")).bytes());
    client.send(&requests.collect::<Vec<u8>>());
    for number in 0..32 {
        assert_eq!(client.receive().text(), format!("Hello, n{number}!\n"));
    }
}

#[test]
fn a_request_may_arrive_byte_by_byte() {
    let host = Setup::new().file("hello.wasm", example("hello")).function("hello.wasm");
    let mut client = host.client();
    for byte in Request::get("/?name=slow").bytes() {
        client.send(&[byte]);
    }
    assert_eq!(client.receive().text(), "Hello, slow!\n");
}

#[test]
fn head_is_answered_with_the_length_and_without_the_body() {
    let host = counter();
    let mut client = host.client();
    let head = client.ask(&Request::of("HEAD /"));
    assert_eq!((head.status, head.header("content-length")), (200, Some("2")));
    assert_eq!(client.get("/").text(), "1\n", "the connection is at the next response");
}

#[test]
fn the_peer_decides_how_long_a_connection_lives() {
    let host = counter();
    let mut client = host.client();
    let last = client.ask(&Request::get("/").with("connection", "close"));
    assert_eq!(last.header("connection"), Some("close"));
    assert!(client.is_ended());

    let mut client = host.client();
    client.send(b"GET / HTTP/1.0\r\n\r\n");
    assert_eq!(client.receive().text(), "1\n");
    assert!(client.is_ended(), "HTTP/1.0 does not keep a connection unless asked to");

    let mut client = host.client();
    for _ in 0..2 {
        client.send(b"GET / HTTP/1.0\r\nconnection: keep-alive\r\n\r\n");
        assert_eq!(client.receive().header("connection"), Some("keep-alive"));
    }
}

#[test]
fn two_workers_serve_side_by_side() {
    let cpus = std::thread::available_parallelism().map_or(1, usize::from);
    if cpus < 2 {
        midge_tests::skip("two workers need two CPUs");
        return;
    }
    let setup = Setup::new().file("counter.wasm", example("counter"));
    let host = setup.argument("--workers").argument("2").function("counter.wasm");
    assert_eq!(host.ready["cpus"].as_array().map(Vec::len), Some(2));
    let mut clients: Vec<Client> = (0..64).map(|_| host.client()).collect();
    for _ in 0..4 {
        for client in &mut clients {
            assert_eq!(client.get("/").text(), "1\n");
        }
    }
    let metrics = host.metrics();
    for worker in ["worker=\"0\"", "worker=\"1\""] {
        // The kernel spreads connections by a hash: of 64 each worker gets some.
        assert!(metrics.sum("midge_requests_total", &[worker]) > 0, "{worker} serves");
    }
    assert_eq!(metrics.sum("midge_requests_total", &[]), 4 * 64);
}

#[test]
fn an_address_that_another_host_serves_is_refused() {
    let first = counter();
    let listen = first.listen.to_string();
    let arguments = ["run", "counter.wasm", "--listen", &listen, "--admin", "127.0.0.1:0"];
    let second = midge(first.folder(), &arguments);
    assert_eq!(second.code, Some(1), "{}", second.stderr);
    assert!(second.stderr.contains("cannot listen on"), "{}", second.stderr);
    assert_eq!(first.client().get("/").text(), "1\n");
}
