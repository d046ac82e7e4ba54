//! Bodies piece by piece: what passes, who waits for whom, and what is left when one of them goes.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use midge_tests::guests::{STREAMS, example};
use midge_tests::host::{Host, Setup};
use midge_tests::http::Request;
use midge_tests::wait::{PATIENCE, wait_for};

/// Far above what may wait of a stream, and of what the kernel's buffers on both sides hold.
const LARGE: usize = 64 << 20;

/// Serves the examples and the guest that does it badly.
fn host(limits: &str, of_each: &str) -> Host {
    let mut setup = Setup::new().file("streams.wat", STREAMS);
    let mut settings = format!("[limits]\n{limits}\n");
    for name in ["pass", "digest", "events"] {
        setup = setup.file(&format!("{name}.wasm"), example(name));
        settings += &function(name, "wasm", of_each);
    }
    settings += &function("streams", "wat", of_each);
    setup.serve(&settings)
}

fn function(name: &str, kind: &str, more: &str) -> String {
    format!(
        "[[function]]\nname = \"{name}\"\nmodule = \"{name}.{kind}\"\nroute = \"/{name}\"\n{more}\n"
    )
}

/// Bytes that repeat nowhere near.
fn noise(size: usize) -> Vec<u8> {
    let mut state = 1u64;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        state.to_le_bytes()[7]
    };
    (0..size).map(|_| next()).collect()
}

/// The example's digest, over again.
fn digest(bytes: &[u8]) -> String {
    let words = bytes.chunks(8).map(|chunk| {
        let mut word = [0; 8];
        word[..chunk.len()].copy_from_slice(chunk);
        u64::from_le_bytes(word)
    });
    let mut value = words.fold(14_695_981_039_346_656_037_u64, |value, word| {
        (value ^ word).wrapping_mul(1_099_511_628_211)
    });
    if bytes.len().is_multiple_of(8) {
        // The rest of a word, which there is none of, is hashed as well.
        value = value.wrapping_mul(1_099_511_628_211);
    }
    format!("{} bytes, digest {value:016x}\n", bytes.len())
}

fn chunked(target: &str, body: &[u8], chunk_bytes: usize) -> Vec<u8> {
    let head = format!("POST {target} HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n");
    let mut bytes = head.into_bytes();
    for chunk in body.chunks(chunk_bytes) {
        bytes.extend(format!("{:x}\r\n", chunk.len()).bytes());
        bytes.extend_from_slice(chunk);
        bytes.extend_from_slice(b"\r\n");
    }
    bytes.extend_from_slice(b"0\r\n\r\n");
    bytes
}

#[test]
fn a_body_of_any_size_and_framing_reaches_the_function() {
    let host = host("", "");
    let mut client = host.client();
    for size in [0, 1, 7, 8, 100, 4_000, 4_096, 60_000, 65_536, 65_537, 200_000, 3_000_001] {
        let body = noise(size);
        assert_eq!(client.post("/digest", &body).text(), digest(&body), "{size} bytes");
        client.send(&chunked("/digest", &body, 1 + size / 7));
        assert_eq!(client.receive().text(), digest(&body), "{size} bytes in chunks");
    }
}

#[test]
fn what_passes_through_is_the_same() {
    let host = host("", "");
    let mut client = host.client();
    for size in [1, 5_000, 70_000, 150_000] {
        let body = noise(size);
        let response = client.post("/pass", &body);
        assert_eq!(response.header("content-length"), Some(size.to_string().as_str()));
        assert!(response.body == body, "{size} bytes by length");
        client.send(&chunked("/pass", &body, 1000));
        let response = client.receive();
        assert_eq!(response.header("transfer-encoding"), Some("chunked"));
        assert!(response.body == body, "{size} bytes in chunks");
    }
}

#[test]
fn requests_may_follow_before_the_stream_has_ended() {
    let host = host("", "");
    let mut client = host.client();
    let body = noise(100_000);
    let mut bytes = chunked("/digest", &body, 999);
    bytes.extend(Request::post("/digest", b"short").bytes());
    bytes.extend(Request::get("/digest?bytes=70000").bytes());
    bytes.extend(Request::post("/pass", b"last").bytes());
    client.send(&bytes);
    assert_eq!(client.receive().text(), digest(&body));
    assert_eq!(client.receive().text(), digest(b"short"));
    assert_eq!(client.receive().body.len(), 70_000);
    assert_eq!(client.receive().text(), "last");
}

#[test]
fn an_old_client_gets_a_stream_until_the_end() {
    let host = host("", "");
    let mut client = host.client();
    client.send(b"GET /events?count=2&every=1 HTTP/1.0\r\n\r\n");
    let head = client.receive_head();
    assert_eq!((head.status, head.header("connection")), (200, Some("close")));
    assert_eq!(head.header("transfer-encoding"), None);
    assert_eq!(client.receive_to_end(), b"data: event 1 of 2\n\ndata: event 2 of 2\n\n");
}

#[test]
fn a_head_has_no_body_even_if_one_is_written() {
    let host = host("", "");
    let mut client = host.client();
    let head = client.ask(&Request::of("HEAD /events?count=2&every=1"));
    assert_eq!((head.status, head.header("content-type")), (200, Some("text/event-stream")));
    assert_eq!(client.post("/pass", b"next").text(), "next");
}

#[test]
fn an_event_arrives_when_it_is_written() {
    let host = host("", "");
    let mut client = host.client();
    client.send_get("/events?count=2&every=60000");
    assert_eq!(client.receive_head().status, 200);
    // The second is written in a minute: this would be too late for a test's patience.
    client.receive_text("14\r\ndata: event 1 of 2\n\n\r\n");
    drop(client);
    host.wait_for_metrics("the call went with its client", |metrics| {
        metrics.sum("midge_calls_parked", &[]) == 0
            && metrics.sum("midge_function_discards_total", &["abandoned"]) == 1
    });
    assert_eq!(host.client().post("/pass", b"x").text(), "x");
}

#[test]
fn a_client_that_does_not_read_makes_the_function_wait() {
    let host = host("write_stall = \"5m\"", "");
    let before = host.resident_kib();
    let mut client = host.client();
    client.send_get(&format!("/digest?bytes={LARGE}"));
    let written = || host.metrics().sum("midge_response_written_bytes_total", &[]);
    let (mut last, mut looks) = (0, 0);
    wait_for("the function waits", || {
        let now = written();
        looks = if now > 0 && now == last { looks + 1 } else { 0 };
        last = now;
        looks == 10
    });
    assert!(written() < LARGE as u64 / 4, "{} bytes were written", written());
    assert_eq!(host.metrics().sum("midge_calls_parked", &[]), 1);
    assert!(host.resident_kib() < before + 4096, "grown from {before} to {}", host.resident_kib());
    assert_eq!(client.receive().body.len(), LARGE);
    assert!(host.resident_kib() < before + 4096, "grown from {before} to {}", host.resident_kib());
}

#[test]
fn a_function_that_does_not_read_makes_the_client_wait() {
    let host = host("", "");
    let mut stream = TcpStream::connect(host.listen).unwrap();
    stream.set_write_timeout(Some(Duration::from_millis(300))).unwrap();
    let head = format!("POST /streams?h HTTP/1.1\r\nhost: x\r\ncontent-length: {LARGE}\r\n\r\n");
    stream.write_all(head.as_bytes()).unwrap();
    let piece = [0; 65536];
    let mut sent = 0;
    while sent < LARGE
        && let Ok(size) = stream.write(&piece[..piece.len().min(LARGE - sent)])
    {
        sent += size;
    }
    assert!(sent < LARGE / 2, "{sent} bytes were taken of a body that nobody reads");
    assert_eq!(host.metrics().sum("midge_body_read_bytes_total", &[]), 0);
    assert_eq!(host.metrics().sum("midge_calls_parked", &[]), 1);
}

#[test]
fn a_lazy_function_gets_all_of_it_in_the_end() {
    let host = host("body_window = \"4 KiB\"", "");
    let mut client = host.client();
    for _ in 0..2 {
        assert_eq!(client.post("/streams?l", &noise(1_000_000)).text(), "begun");
    }
}

#[test]
fn an_answer_may_come_before_the_body() {
    let host = host("", "");
    let mut client = host.client();
    // What is missing is short: it is dropped, and the connection goes on.
    assert_eq!(client.post("/streams?n", &noise(20_000)).text(), "begun");
    assert_eq!(client.post("/streams?r", &noise(20_000)).text(), "begun");
    client.send(
        format!("POST /streams?n HTTP/1.1\r\nhost: x\r\ncontent-length: {LARGE}\r\n\r\nabc")
            .as_bytes(),
    );
    let response = client.receive();
    assert_eq!((response.text(), response.header("connection")), ("begun", Some("close")));
    assert!(client.is_ended());
}

#[test]
fn a_client_is_told_to_go_on_when_its_body_is_wanted() {
    let host = host("", "");
    let mut client = host.client();
    let head = "host: x\r\nexpect: 100-continue\r\ncontent-length: 5\r\n\r\n";
    client.send(format!("POST /digest HTTP/1.1\r\n{head}").as_bytes());
    assert_eq!(client.receive_head().status, 100);
    client.send(b"hello");
    assert_eq!(client.receive().text(), digest(b"hello"));
    client.send(format!("POST /streams?n HTTP/1.1\r\n{head}").as_bytes());
    assert_eq!(client.receive().text(), "begun", "not asked for: not told to go on");
    assert!(client.is_ended(), "whether the body follows is not known");
}

#[test]
fn a_client_that_goes_takes_its_call_along() {
    let host = host("", "concurrency = 1");
    for _ in 0..3 {
        let mut client = host.client();
        client.send(b"POST /digest HTTP/1.1\r\nhost: x\r\ncontent-length: 100000\r\n\r\nabc");
        host.wait_for_metrics("the call waits", |metrics| {
            metrics.sum("midge_calls_parked", &[]) == 1
        });
        drop(client);
        host.wait_for_metrics("it went", |metrics| metrics.sum("midge_calls_parked", &[]) == 0);
    }
    assert_eq!(host.client().post("/digest", b"hello").text(), digest(b"hello"));
    let metrics = host.metrics();
    assert_eq!(metrics.sum("midge_function_discards_total", &["abandoned"]), 3);
    assert_eq!(metrics.sum("midge_bodies_reserved_bytes", &[]), 0);
}

#[test]
fn a_broken_body_is_refused_in_the_middle() {
    let host = host("", "");
    let mut client = host.client();
    let head = "POST /digest HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n";
    client.send(format!("{head}5\r\nhello\r\n").as_bytes());
    host.wait_for_metrics("the call waits", |metrics| metrics.sum("midge_calls_parked", &[]) == 1);
    client.send(b"no size\r\n");
    let _id = client.receive().problem(400, "bad-request");
    assert!(client.is_ended());
    host.wait_for_metrics("it went", |metrics| metrics.sum("midge_calls_parked", &[]) == 0);

    // The answer has begun: what is left is to cut it off.
    let mut client = host.client();
    client.send(head.replace("/digest", "/pass").as_bytes());
    client.send(b"5\r\nhello\r\n");
    assert_eq!(client.receive_head().status, 200);
    client.receive_text("5\r\nhello\r\n");
    client.send(b"no size\r\n");
    assert_eq!(client.receive_to_end(), b"", "no last chunk");
}

#[test]
fn a_body_that_comes_too_slowly_is_refused() {
    let host = host("body_grace = \"100ms\"\nbody_rate = \"1 MiB\"", "");
    let mut client = host.client();
    client.send(b"POST /digest HTTP/1.1\r\nhost: x\r\ncontent-length: 100000\r\n\r\nabc");
    let _id = client.receive().problem(408, "request-timeout");
    assert!(client.is_ended());
}

#[test]
fn a_streamed_body_has_a_limit_of_its_own() {
    let host = host("", "stream_body = \"10 kB\"");
    let mut client = host.client();
    assert_eq!(client.post("/digest", &noise(10_000)).text(), digest(&noise(10_000)));
    let _id = client.post("/digest", &noise(10_001)).problem(413, "body-too-large");
    let mut client = host.client();
    client.send(&chunked("/digest", &noise(30_000), 1000));
    let _id = client.receive().problem(413, "body-too-large");
}

#[test]
fn streams_share_a_budget() {
    let host = host("bodies = \"1 MiB\"", "");
    let head = b"POST /digest HTTP/1.1\r\nhost: x\r\ncontent-length: 10000\r\n\r\nabc";
    let mut clients: Vec<_> = (0..5).map(|_| host.client()).collect();
    for client in &mut clients {
        client.send(head);
    }
    host.wait_for_metrics("they wait", |metrics| metrics.sum("midge_calls_parked", &[]) == 5);
    let mut late = host.client();
    late.send(head);
    let response = late.receive();
    let _id = response.problem(503, "overloaded");
    assert_eq!(response.header("retry-after"), Some("1"));
    drop(clients);
    host.wait_for_metrics("they went", |metrics| {
        metrics.sum("midge_bodies_reserved_bytes", &[]) == 0
    });
    assert_eq!(host.client().post("/digest", b"hello").text(), digest(b"hello"));
}

#[test]
fn a_call_does_not_last_for_ever() {
    let host = host("", "stream_time = \"300ms\"\nconcurrency = 1");
    let _id = host.client().get("/streams?z").problem(504, "deadline-exceeded");
    let mut client = host.client();
    client.send_get("/streams?f");
    assert_eq!(client.receive_head().status, 200);
    let _cut = client.receive_to_end();
    assert_eq!(host.client().post("/streams?r", b"x").text(), "begun");
}

#[test]
fn a_response_that_breaks_off_does_not_look_whole() {
    let host = host("", "deadline = \"200ms\"");
    for (letter, begun) in [
        ("s", &b"beg"[..]),
        ("t", b""),
        ("x", b"5\r\nbegun\r\n"),
        ("e", b"5\r\nbegun\r\n"),
        ("a", b"5\r\nbegun\r\n"),
        ("2", b"5\r\nbegun\r\n"),
        ("c", b"5\r\nbegun\r\n"),
    ] {
        let mut client = host.client();
        client.send_get(&format!("/streams?{letter}"));
        let Some(head) = client.try_receive_head() else { continue };
        assert_eq!(head.status, 200, "{letter}");
        let end = client.receive_to_end();
        assert!(begun.starts_with(&end) || end == begun, "{letter}: {:?}", end.escape_ascii());
    }
    for letter in ["w", "m", "b"] {
        let _id = host.client().get(&format!("/streams?{letter}")).problem(502, "trapped");
    }
    assert_eq!(host.client().post("/streams?r", b"x").text(), "begun");
}

#[test]
fn a_call_under_way_outlives_a_reload() {
    let host = host("", "");
    let mut client = host.client();
    client.send(
        b"POST /pass HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n",
    );
    assert_eq!(client.receive_head().status, 200);
    client.receive_text("5\r\nhello\r\n");
    host.signal(rustix::process::Signal::HUP);
    let _line = host.wait_for_line(&["serving", "settings"]);
    client.send(b"6\r\n again\r\n0\r\n\r\n");
    client.receive_text("6\r\n again\r\n0\r\n\r\n");
    assert_eq!(client.post("/digest", b"hello").text(), digest(b"hello"));
}

#[test]
fn two_streams_share_a_worker() {
    let host = host("", "");
    let body = noise(2_000_000);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let mut stream = TcpStream::connect(host.listen).unwrap();
                stream.set_read_timeout(Some(PATIENCE)).unwrap();
                let mut reader = stream.try_clone().unwrap();
                let size = body.len();
                let head = format!("PUT /pass HTTP/1.1\r\nhost: x\r\ncontent-length: {size}\r\nconnection: close\r\n\r\n");
                let sender = scope.spawn({
                    let body = &body;
                    move || {
                        stream.write_all(head.as_bytes()).unwrap();
                        stream.write_all(body).unwrap();
                        stream
                    }
                });
                let mut received = Vec::new();
                reader.read_to_end(&mut received).unwrap();
                assert!(received.ends_with(&body), "what was sent");
                drop(sender.join().unwrap());
            });
        }
    });
}
