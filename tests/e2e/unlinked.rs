//! Components that linking does not hold, served by the engine's component runtime: to their clients they are functions
//! like any other.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::thread;

use midge_tests::host::{Host, Setup};
use midge_tests::program::midge;
use midge_tests::wait::PATIENCE;

#[path = "../../loader/tests/wit/guests.rs"]
mod guests;

/// Serves one function of that name.
fn serve(setup: Setup, name: &str, component: impl AsRef<[u8]>, more: &str) -> Host {
    let file = format!("{name}.wasm");
    setup.file(&file, component).serve(&format!(
        "[[function]]\nname = \"{name}\"\nmodule = \"{file}\"\nroute = \"/*\"\n{more}\n"
    ))
}

#[test]
fn composed_components_and_services_answer() {
    let host = serve(Setup::new(), "composed", guests::COMPOSED, "");
    let _line = host.wait_for_line(&["resources of its own", "composed"]);
    let mut client = host.client();
    for _ in 0..3 {
        assert_eq!(client.get("/a?b=c").text(), "AIXTEEN BYTES OK");
    }
    let host = serve(Setup::new(), "hello", guests::hello(), "");
    let mut client = host.client();
    for _ in 0..3 {
        assert_eq!(client.get("/").text(), "hello1", "its memory is new each time");
    }
    let metrics = host.metrics();
    assert_eq!(metrics.sum("midge_requests_total", &[]), 3);
}

#[test]
fn bodies_pass_both_ways_as_they_come() {
    for tier in ["a", "d"] {
        let setup = Setup::new().argument("--ring-tier").argument(tier);
        let host = serve(setup, "echo", guests::echo(), "");
        let mut client = host.client();
        for size in [0u32, 1, 4096, 100_000, 3_000_001] {
            let body: Vec<u8> = (0..size).map(|place| place.to_le_bytes()[0]).collect();
            let response = client.post("/", &body);
            assert_eq!(response.status, 200);
            assert!(response.body == body, "{} of {size}", response.body.len());
        }
        // The first chunk comes back before the second is sent.
        let head = b"POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n";
        client.send(head);
        client.send(b"5\r\nfirst\r\n");
        assert_eq!(client.receive_head().status, 200);
        client.receive_text("5\r\nfirst\r\n");
        client.send(b"6\r\nsecond\r\n0\r\n\r\n");
        client.receive_text("6\r\nsecond\r\n0\r\n\r\n");
    }
}

#[test]
fn a_service_asks_other_servers_by_its_grant() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let authority = listener.local_addr().unwrap().to_string();
    thread::spawn(move || {
        for connection in listener.incoming().flatten() {
            connection.set_read_timeout(Some(PATIENCE)).expect("a time");
            let mut writer = connection.try_clone().expect("a second handle");
            let mut reader = BufReader::new(connection);
            let mut line = String::new();
            while line != "\r\n" {
                line.clear();
                if reader.read_line(&mut line).unwrap_or(0) == 0 {
                    return;
                }
            }
            let head = "HTTP/1.1 203 OK\r\ncontent-length: 200000\r\n\r\n";
            writer.write_all(head.as_bytes()).expect("the host reads");
            writer.write_all(&vec![b'x'; 200_000]).expect("the host reads");
            // Its body may end after that: what is unread when a connection is closed breaks it.
            let _rest = reader.read_to_end(&mut Vec::new());
        }
    });
    let grant = format!("[function.grant]\nhttp = [\"http://{authority}\"]");
    let host = serve(Setup::new(), "sender", guests::sender(&authority), &grant);
    let response = host.client().get("/");
    assert_eq!((response.status, response.body.len()), (203, 200_000));
    let host = serve(Setup::new(), "sender", guests::sender(&authority), "");
    let response = host.client().get("/");
    assert_eq!(response.status, 500);
    let _line = host.wait_for_line(&["denied", &format!("http = [\"http://{authority}\"]")]);
    let _line = host.wait_for_line(&["sender", "HttpRequestDenied"]);
}

#[test]
fn what_goes_wrong_costs_one_request() {
    let spin = guests::service("(loop $more (br $more)) (i32.const 0)", "unreachable");
    let host = serve(Setup::new(), "spin", spin, "deadline = \"50ms\"");
    for _ in 0..2 {
        let _detail = host.client().get("/").problem(504, "deadline-exceeded");
    }
    let host = serve(Setup::new(), "trap", guests::service("unreachable", "unreachable"), "");
    for _ in 0..2 {
        let _detail = host.client().get("/").problem(502, "trapped");
    }
    // A client that goes leaves nothing behind: one instance at a time is enough for the next.
    let more = "concurrency = 1\ndeadline = \"5s\"";
    let host = serve(Setup::new(), "echo", guests::echo(), more);
    for _ in 0..3 {
        let mut client = host.client();
        client.send(b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 1000000\r\n\r\nbegin");
        assert_eq!(client.receive_head().status, 200);
        drop(client);
        host.wait_for_metrics("the call to be given up", |metrics| {
            metrics.sum("midge_calls_parked", &[]) == 0
        });
    }
    assert_eq!(host.client().post("/", b"again").text(), "again");
}

#[test]
fn the_command_line_says_why() {
    let setup =
        Setup::new().file("composed.wat", guests::COMPOSED).file("hello.wasm", guests::hello());
    let folder = setup.folder();
    let inspected = midge(folder, &["inspect", "composed.wat"]);
    assert!(
        inspected.stdout.contains("component has resources of its own, which cannot be linked")
    );
    let built = midge(folder, &["build", "hello.wasm"]);
    assert!(built.stdout.contains("the engine's component runtime runs it"), "{}", built.stdout);
    let invoked = midge(folder, &["invoke", "hello.midge"]);
    assert!(invoked.stdout.contains("hello1"), "{}", invoked.stdout);
    for module in ["hello.midge", "hello.wasm"] {
        let proven = midge(folder, &["prove", module]);
        assert!(proven.stderr.contains("there is nothing to prove"), "{}", proven.stderr);
    }
    let checked = midge(folder, &["build", "hello.wasm", "--isolation", "bounds-checked"]);
    assert!(checked.stderr.contains("guard pages"), "{}", checked.stderr);
    let with_files = midge(folder, &["build", "hello.wasm", "--files", ".:/data"]);
    assert!(with_files.stderr.contains("have no place"), "{}", with_files.stderr);
}
