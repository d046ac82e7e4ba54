//! What isn't taken: bytes, the status that answers them, and how the connection ends.

use std::net::Shutdown;

use midge_net::Settings;

use super::{Server, serve};

/// Sends `text` (with `|` for CRLF) and expects `status`, after which the connection closes or goes on.
fn check(server: &Server, text: &str, status: u16, closes: bool) {
    let bytes = text.replace('|', "\r\n");
    let shown = &text[..text.len().min(120)];
    for size in [bytes.len(), 7] {
        let mut client = server.connect();
        for piece in bytes.as_bytes().chunks(size) {
            client.send_anyway(piece);
        }
        let response = client.read();
        assert_eq!((response.status, response.closes()), (status, closes), "{shown}: {response:?}");
        if closes {
            client.expect_closed();
        } else {
            assert_eq!(client.get("/next").text(), "/next", "{shown}");
        }
    }
}

#[test]
fn malformed_requests_are_refused_and_close() {
    let server = serve();
    let post = |rest: &str| format!("POST / HTTP/1.1|Host: a|{rest}");
    let chunked = |rest: &str| post(&format!("Transfer-Encoding: chunked||{rest}"));
    let refused = [
        // Both framings, and lengths of every wrong kind.
        (post("Content-Length: 1|Transfer-Encoding: chunked||0||"), 400),
        (post("Transfer-Encoding: chunked|Content-Length: 1||0||"), 400),
        (post("Content-Length: 1|Content-Length: 1||a"), 400),
        (post("Content-Length: 1|Content-Length: 2||a"), 400),
        (post("Content-Length: 1, 1||a"), 400),
        (post("Content-Length: +1||a"), 400),
        (post("Content-Length: -1||a"), 400),
        (post("Content-Length: 0x1||a"), 400),
        (post("Content-Length: 1 1||a"), 400),
        (post("Content-Length: ||a"), 400),
        (post("Content-Length: 18446744073709551616||a"), 400),
        // Transfer codings.
        (post("Transfer-Encoding: chunked, chunked||0||"), 400),
        (post("Transfer-Encoding: chunked|Transfer-Encoding: chunked||0||"), 400),
        (post("Transfer-Encoding: chunked, gzip||0||"), 400),
        (post("Transfer-Encoding: ||0||"), 400),
        (post("Transfer-Encoding: chunked;q=1||0||"), 400),
        (post("Transfer-Encoding: xchunked||0||"), 501),
        (post("Transfer-Encoding: gzip, chunked||0||"), 501),
        (post("Transfer-Encoding: identity||"), 501),
        ("POST / HTTP/1.0|Transfer-Encoding: chunked||0||".into(), 400),
        // Header lines.
        ("GET / HTTP/1.1|Host : a||".into(), 400),
        ("GET / HTTP/1.1| Host: a||".into(), 400),
        ("GET / HTTP/1.1|Host: a|X: b| folded||".into(), 400),
        ("GET / HTTP/1.1|Host: a|: b||".into(), 400),
        ("GET / HTTP/1.1|Host: a|no colon||".into(), 400),
        ("GET / HTTP/1.1|Host: a|X: a\0b||".into(), 400),
        ("GET / HTTP/1.1|Host: a|X: a\rb||".into(), 400),
        ("GET / HTTP/1.1|Host: a|X: a\nb: c||".into(), 400),
        ("GET / HTTP/1.1|Host: a|X: a\x01||".into(), 400),
        ("GET / HTTP/1.1|Host: a|X\u{e9}: a||".into(), 400),
        ("GET / HTTP/1.1\nHost: a\n\n".into(), 400),
        ("GET / HTTP/1.1|Host: a\n|".into(), 400),
        // Chunks.
        (chunked("|"), 400),
        (chunked("1\na|0||"), 400),
        (chunked("1|a\n0||"), 400),
        (chunked("+1|a|0||"), 400),
        (chunked("0x1|a|0||"), 400),
        (chunked("1_0|a|0||"), 400),
        (chunked("00000000000000001|a|0||"), 400),
        (chunked("1|ab|0||"), 400),
        (chunked(&format!("1;{}|a|0||", "x".repeat(300))), 400),
        (chunked(&format!("{}0||", format!("1;{}|a|", "x".repeat(200)).repeat(30))), 400),
        (chunked("0|bad trailer||"), 400),
        (chunked("0|a: b\n|"), 400),
        (chunked(&format!("0|a: {}||", "x".repeat(9000))), 400),
        // Host.
        ("GET / HTTP/1.1||".into(), 400),
        ("GET / HTTP/1.1|Host: a|Host: a||".into(), 400),
        ("GET / HTTP/1.1|Host: a b||".into(), 400),
        ("GET / HTTP/1.1|Host: a, b||".into(), 400),
        ("GET / HTTP/1.1|Host: a:99999||".into(), 400),
        ("GET / HTTP/1.1|Host: u@a||".into(), 400),
        ("GET / HTTP/1.1|Host:||".into(), 400),
        // Targets.
        ("GET /#f HTTP/1.1|Host: a||".into(), 400),
        ("GET /a b HTTP/1.1|Host: a||".into(), 400),
        ("GET /\u{e9} HTTP/1.1|Host: a||".into(), 400),
        ("GET /\x01 HTTP/1.1|Host: a||".into(), 400),
        ("GET a HTTP/1.1|Host: a||".into(), 400),
        ("GET * HTTP/1.1|Host: a||".into(), 400),
        ("GET ftp://a/ HTTP/1.1|Host: a||".into(), 400),
        ("GET http:///x HTTP/1.1|Host: a||".into(), 400),
        ("CONNECT a:1 HTTP/1.1|Host: a||".into(), 501),
        // Request lines and versions.
        ("|||GET / HTTP/1.1|Host: a||".into(), 400),
        ("\nGET / HTTP/1.1|Host: a||".into(), 400),
        (" GET / HTTP/1.1|Host: a||".into(), 400),
        ("GET  / HTTP/1.1|Host: a||".into(), 400),
        ("GET /|".into(), 400),
        ("GET / HTTP/0.9|Host: a||".into(), 400),
        ("GET / http/1.1|Host: a||".into(), 400),
        ("GET / HTTP/1.1 |Host: a||".into(), 400),
        ("GET / HTTP/1.10|Host: a||".into(), 400),
        ("GET / HTTP/2.0|Host: a||".into(), 505),
        ("PRI * HTTP/2.0||SM||".into(), 505),
        ("get / HTTP/1.1|Host: a||".into(), 501),
        ("BREW / HTTP/1.1|Host: a||".into(), 501),
        // Expectations and limits.
        (post("Expect: 200-ok|Content-Length: 1||a"), 417),
        (format!("GET /{} HTTP/1.1|Host: a||", "x".repeat(8000)), 414),
        (format!("GET / HTTP/1.1|Host: a|{}|", "X: y|".repeat(100)), 431),
        (format!("GET / HTTP/1.1|Host: a|X: {}||", "x".repeat(33_000)), 431),
    ];
    for (text, status) in &refused {
        check(&server, text, *status, true);
    }
    let report = server.report();
    let count: u64 = report.counters.refused.iter().sum();
    assert_eq!(count, 2 * u64::try_from(refused.len()).unwrap());
    server.wait_until("all is closed", |report| report.connections == 0);
}

#[test]
fn what_looks_odd_but_is_right_is_served() {
    let server = serve();
    let chunked =
        |rest: &str| format!("POST / HTTP/1.1|Host: a|Transfer-Encoding: chunked||{rest}");
    for text in [
        "GET / HTTP/1.1|Host: a||".to_owned(),
        "||GET / HTTP/1.1|Host: a||".to_owned(),
        "GET / HTTP/1.9|Host: a||".to_owned(),
        "GET http://b:80/x?y HTTP/1.1|Host: a||".to_owned(),
        "GET http://b HTTP/1.1|Host: a||".to_owned(),
        "OPTIONS * HTTP/1.1|Host: a||".to_owned(),
        "DELETE / HTTP/1.1|Host: [::1]:80|Content-Length: 3||abc".to_owned(),
        "GET / HTTP/1.1|Host: a|Content-Length: 3||abc".to_owned(),
        "GET / HTTP/1.1|Host:a|X:|Y:\t b \t|Z: \u{e9}||".to_owned(),
        "GET / HTTP/1.1|Host: a|Upgrade: h2c|Connection: upgrade||".to_owned(),
        "POST / HTTP/1.1|Host: a|Content-Length: 00000000000000000000003||abc".to_owned(),
        "POST / HTTP/1.1|Host: a|Transfer-Encoding: CHUNKED||0||".to_owned(),
        chunked("0000A;n=v;q=\"\\\";\"|0123456789|0|x: y||"),
        format!("GET /{} HTTP/1.1|Host: a||", "x".repeat(7999)),
        format!("GET / HTTP/1.1|Host: a|{}|", "X: y|".repeat(99)),
    ] {
        check(&server, &text, 200, false);
    }
}

#[test]
fn a_refusal_survives_what_the_peer_still_sends() {
    let server = serve();
    let mut client = server.connect();
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: nonsense\r\n\r\n");
    client.send_anyway(vec![b'x'; 50_000]);
    let response = client.read();
    assert_eq!((response.status, response.text()), (400, "content-length"));
    client.send_anyway("more");
    client.expect_closed();
}

#[test]
fn a_refused_head_request_gets_no_body() {
    let server = serve();
    let mut client = server.connect();
    client.send("HEAD / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nx\r\n");
    assert_eq!(client.read_head().0, 400);
    client.expect_closed();
}

#[test]
fn what_lies_behind_the_limit_of_a_head_does_not_decide() {
    let server = Server::start(Settings { head_bytes_max: 1024, ..Settings::default() });
    let head = format!("GET / HTTP/1.1\r\nHost: a\r\nX: {}\x01\r\n\r\n", "x".repeat(1010));
    for size in [head.len(), 100] {
        let mut client = server.connect();
        for piece in head.as_bytes().chunks(size) {
            client.send_anyway(piece);
        }
        client.expect(431, "head-too-large");
    }
}

#[test]
fn a_refusal_of_empty_lines_has_a_body_whatever_follows() {
    let server = serve();
    for text in ["\r\n\r\n\r\nHEAD / HTTP/1.1\r\n", "\nHEAD / HTTP/1.1\r\n"] {
        let mut client = server.connect();
        client.send(text);
        let response = client.read();
        assert!(response.status == 400 && !response.body.is_empty(), "{response:?}");
    }
}

#[test]
fn a_head_that_went_wrong_before_the_peer_ended_is_refused() {
    let server = serve();
    let mut client = server.connect();
    let front = format!("GET / HTTP/1.1\r\nHost: a\r\nX: {}", "x".repeat(2000));
    client.send(&front);
    server.wait_until("the front has come", |report| {
        report.counters.bytes_received == front.len() as u64
    });
    // Too little to be looked at, if more were to come.
    client.send("\x01");
    client.stream.shutdown(Shutdown::Write).expect("the connection is open");
    client.expect(400, "header-value");
}
