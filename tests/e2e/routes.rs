//! Which function answers a request, and what is refused before one does.

use midge_tests::guests::{HELLO, example};
use midge_tests::host::{Host, Setup};
use midge_tests::http::Request;

/// Guests that answer their own name.
fn named(name: &str) -> String {
    assert!(name.len() <= 5, "the guest's body has room for five letters");
    HELLO.replace("\"hello\\0a\"", &format!("\"{name:5}\\0a\""))
}

const SETTINGS: &str = r#"
[[function]]
name = "exact"
module = "exact.wat"
route = "/a"

[[function]]
name = "below"
module = "below.wat"
route = "/a/*"
methods = ["GET", "POST"]
body = "64 B"

[[function]]
name = "deep"
module = "deep.wat"
route = "/a/b/*"

[[function]]
name = "host"
module = "host.wat"
route = "/a"
host = "api.example.org"
"#;

fn host() -> Host {
    let setup = ["exact", "below", "deep", "host"]
        .into_iter()
        .fold(Setup::new(), |setup, name| setup.file(&format!("{name}.wat"), named(name)));
    setup.serve(SETTINGS)
}

#[test]
fn exact_prefix_and_host_routes_find_their_function() {
    let host = host();
    let mut client = host.client();
    for (target, name, expected) in [
        ("/a", "localhost", "exact"),
        ("/a?b/c", "localhost", "exact"),
        ("/a/", "localhost", "below"),
        ("/a/x/y", "localhost", "below"),
        ("/a/b/c", "localhost", "deep"),
        ("/a", "api.example.org", "host"),
        ("/a", "API.example.org:8080", "host"),
        ("/a/x", "api.example.org", "below"),
        ("/a", "other.example.org", "exact"),
        ("http://api.example.org/a", "api.example.org", "host"),
    ] {
        let response = client.ask(&Request::get(target).with("host", name));
        assert_eq!((response.status, response.text().trim()), (200, expected), "{name}{target}");
    }
}

#[test]
fn what_no_function_takes_is_refused_with_a_problem() {
    let host = host();
    let mut client = host.client();
    let missing = client.get("/b").problem(404, "not-found");
    let again = client.get("/ab").problem(404, "not-found");
    assert_ne!(missing, again, "each request has its own id");

    let refused = client.ask(&Request::of("DELETE /a/x"));
    let _id = refused.problem(405, "method-not-allowed");
    assert_eq!(refused.header("allow"), Some("GET, POST"));

    assert_eq!(client.post("/a/x", &[b'x'; 64]).status, 200);
    let _id = client.post("/a/x", &[b'x'; 65]).problem(413, "body-too-large");
    // The refusal comes before the body, whose length was announced.
    let mut client = host.client();
    client.send(b"POST /a/x HTTP/1.1\r\nhost: x\r\ncontent-length: 1000000\r\n\r\n");
    let _id = client.receive().problem(413, "body-too-large");
}

#[test]
fn malformed_requests_are_refused_and_the_connection_is_closed() {
    let host = host();
    for (bytes, status, slug) in [
        (&b"GET /a HTTP/1.1\r\n\r\n"[..], 400, "bad-request"),
        (b"GET  /a HTTP/1.1\r\nhost: x\r\n\r\n", 400, "bad-request"),
        (b"GET /a HTTP/1.1\r\nhost: x\r\nbad name: y\r\n\r\n", 400, "bad-request"),
        (
            b"POST /a HTTP/1.1\r\nhost: x\r\ncontent-length: 3\r\ntransfer-encoding: chunked\r\n\r\n",
            400,
            "bad-request",
        ),
        (b"GET /a HTTP/2.0\r\nhost: x\r\n\r\n", 505, "version-not-supported"),
        (b"BREW /a HTTP/1.1\r\nhost: x\r\n\r\n", 501, "not-implemented"),
    ] {
        let mut client = host.client();
        client.send(bytes);
        let response = client.receive();
        let _id = response.problem(status, slug);
        assert_eq!(response.header("connection"), Some("close"), "{slug}");
        assert!(client.is_ended());
    }
}

#[test]
fn bodies_arrive_chunked_and_with_expect() {
    let host = Setup::new().file("json.wasm", example("json")).function("json.wasm");
    let mut client = host.client();
    client.send(
        b"POST /json HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n1\r\n[\r\n1\r\n]\r\n0\r\n\r\n",
    );
    assert_eq!(client.receive().text(), r#"{"count":0,"rows":[],"sums":{}}"#);
    client.send(
        b"POST /json HTTP/1.1\r\nhost: x\r\nexpect: 100-continue\r\ncontent-length: 2\r\n\r\n",
    );
    assert_eq!(client.receive_head().status, 100);
    client.send(b"[]");
    assert_eq!(client.receive().text(), r#"{"count":0,"rows":[],"sums":{}}"#);
}
