//! Fields behind a body: what a client sends reaches its function, what a function sends reaches the client, and both
//! reach other servers; what may not stand there does not, and nothing of it is seen by the next request.

use midge_loader::build::build_unlinked;
use midge_loader::engine::Engines;
use midge_tests::guests::{STREAMS, example};
use midge_tests::host::{Host, Setup};
use midge_tests::http::{Client, Request, Response};

use super::outgoing::Upstream;

/// Serves functions of the contract that take trailers, in C and in text form.
fn host() -> Host {
    host_of(&[("pass", "wasm", "/pass"), ("streams", "wat", "/streams")])
}

/// The same and a component, which a debug build takes its time to compile.
fn host_with_component() -> Host {
    host_of(&[
        ("pass", "wasm", "/pass"),
        ("streams", "wat", "/streams"),
        ("component", "wasm", "/component/*"),
    ])
}

/// The component again, run by the engine's own runtime.
fn host_unlinked() -> Host {
    let built = build_unlinked("component.wasm", &example("component"), &Engines::new());
    let artifact = built.expect("it is a component").bytes;
    Setup::new().file("component.midge", artifact).serve(
        "[[function]]\nname = \"component\"\nmodule = \"component.midge\"\n\
         route = \"/component/*\"\ndeadline = \"10s\"\n",
    )
}

/// Those that send a body back with its trailers.
fn echoes() -> [(Host, &'static str); 3] {
    let (contract, linked) = ((host(), "/pass"), (host_with_component(), "/component/echo"));
    [contract, linked, (host_unlinked(), "/component/echo")]
}

fn host_of(functions: &[(&str, &str, &str)]) -> Host {
    let setup = Setup::new()
        .file("component.wasm", example("component"))
        .file("pass.wasm", example("pass"))
        .file("streams.wat", STREAMS);
    let settings: String = functions
        .iter()
        .map(|(name, kind, route)| {
            format!(
                "[[function]]\nname = \"{name}\"\nmodule = \"{name}.{kind}\"\n\
                 route = \"{route}\"\ndeadline = \"10s\"\n"
            )
        })
        .collect();
    setup.serve(&settings)
}

/// Returns all that a client of HTTP/1.0 gets.
fn ask_old(host: &Host, line: &str, more: &str) -> String {
    let mut client = host.client();
    client.send(format!("{line} HTTP/1.0\r\n{more}").as_bytes());
    String::from_utf8(client.receive_to_end()).expect("a text")
}

/// Returns a request whose body is one chunk, with these lines behind it; a bar ends a line.
fn chunked(target: &str, body: &str, trailers: &str) -> Vec<u8> {
    let head = format!("POST {target} HTTP/1.1|host: x|te: trailers|transfer-encoding: chunked||");
    let chunk = if body.is_empty() { String::new() } else { format!("{:x}|{body}|", body.len()) };
    format!("{head}{chunk}0|{trailers}|").replace('|', "\r\n").into_bytes()
}

fn ask(client: &mut Client, target: &str, body: &str, trailers: &str) -> Response {
    client.send(&chunked(target, body, trailers));
    client.receive()
}

#[test]
fn trailers_go_through_a_component_and_a_function() {
    for (host, target) in echoes() {
        let mut client = host.client();
        for (body, trailers, expected) in [
            ("hello", "grpc-status: 0|", "grpc-status: 0\n"),
            ("", "X-Sum: a:b \tc |x-sum: again|empty:|", "x-sum: a:b \tc\nx-sum: again\nempty: \n"),
            // Nothing of the last request is there.
            ("hello", "", ""),
            (
                "hello",
                "Content-Length: 3|Transfer-Encoding: x|Host: y|a: b|Set-Cookie: z|",
                "a: b\n",
            ),
            ("hello", "authorization: x|", ""),
        ] {
            let response = ask(&mut client, target, body, trailers);
            assert_eq!((response.status, response.text()), (200, body), "{target}");
            assert_eq!(response.trailer_text(), expected, "{target}: {trailers}");
        }
        // The connection has served all of them, and goes on with a body whose length is told.
        let plain = client.post(target, b"plain");
        assert_eq!((plain.text(), plain.trailer_text().as_str()), ("plain", ""), "{target}");
    }
}

#[test]
fn trailers_may_come_byte_by_byte_and_behind_large_bodies() {
    for (host, target) in echoes() {
        let mut client = host.client();
        let body = "0123456789abcdef".repeat(20_000);
        let response = ask(&mut client, target, &body, "x-sum: 7|");
        assert!(response.text() == body, "{target}");
        assert_eq!(response.trailer_text(), "x-sum: 7\n", "{target}");
        for byte in chunked(target, "hello", "a: b|c: d|") {
            client.send(&[byte]);
        }
        let response = client.receive();
        assert_eq!((response.text(), response.trailer_text().as_str()), ("hello", "a: b\nc: d\n"));
        // Two requests in one piece, of which the second has other fields.
        let both = [chunked(target, "one", "a: 1|"), chunked(target, "two", "b: 2|")].concat();
        client.send(&both);
        assert_eq!(client.receive().trailer_text(), "a: 1\n", "{target}");
        assert_eq!(client.receive().trailer_text(), "b: 2\n", "{target}");
    }
}

#[test]
fn trailers_have_limits() {
    let host = host();
    let lines = |count: usize| "a: b|".repeat(count);
    let long = |size: usize| format!("a:{}|", "b".repeat(size));
    for target in ["/pass", "/streams?r"] {
        let mut client = host.client();
        assert_eq!(ask(&mut client, target, "x", &lines(64)).status, 200, "{target}");
        assert_eq!(ask(&mut client, target, "x", &long(8190)).status, 200, "{target}");
        for trailers in [lines(65), long(8191), "a b: c|".to_owned(), "a|".to_owned()] {
            let mut client = host.client();
            client.send(&chunked(target, "", &trailers));
            let _id = client.receive().problem(400, "bad-request");
            assert!(client.is_ended(), "{target}");
        }
    }
    host.wait_for_metrics("nothing of them is kept", |metrics| {
        metrics.sum("midge_bodies_reserved_bytes", &[]) == 0
    });
}

/// What has no chunks has no place for trailers: HTTP/1.0, a length that was told, an answer without a body.
#[test]
fn trailers_are_left_out_where_there_is_no_place_for_them() {
    let host = host_with_component();
    for letter in ["g", "o"] {
        let old = ask_old(&host, &format!("GET /streams?{letter}"), "\r\n");
        assert!(old.starts_with("HTTP/1.1 200 ") && old.ends_with("\r\n\r\nbegun"), "{old}");
        assert!(!old.contains("x-end") && !old.contains("ransfer-"), "{old}");
    }
    let old = ask_old(&host, "POST /component/echo", "content-length: 5\r\n\r\nhello");
    assert!(old.starts_with("HTTP/1.1 200 ") && old.ends_with("\r\n\r\nhello"), "{old}");
    let mut client = host.client();
    let told = client.get("/streams?o");
    assert_eq!((told.text(), told.header("content-length")), ("begun", Some("5")));
    let head = b"HEAD /component/echo HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n\
        5\r\nhello\r\n0\r\na: b\r\n\r\n";
    client.send(head);
    assert_eq!(client.receive_head().status, 200);
    client.send(b"HEAD /streams?g HTTP/1.1\r\nhost: x\r\n\r\n");
    assert_eq!(client.receive_head().status, 200);
    let next = client.get("/streams?g");
    assert_eq!((next.text(), next.trailer_text().as_str()), ("begun", "x-end: 1\n"));
    assert_eq!(client.post("/pass", b"next").text(), "next", "nothing stands behind a head");
}

/// What any host of the component does.
pub(super) fn announced_trailers_come_back(client: &mut Client) {
    let request = String::from_utf8(chunked("/component/echo", "x", "a: b|Content-Length: 7|"));
    let request = request.expect("a text").replace("te: trailers", "te: trailers\r\ntrailer: a");
    client.send(request.as_bytes());
    let response = client.receive();
    assert_eq!((response.text(), response.header("trailer")), ("x", Some("a")));
    assert_eq!(response.trailer_text(), "a: b\n");
}

#[test]
fn a_component_announces_its_trailers_if_it_wants_to() {
    let host = host_with_component();
    let mut client = host.client();
    announced_trailers_come_back(&mut client);
    let request = Request::post("/component/echo", b"x").with("trailer", "a");
    assert_eq!(client.ask(&request).header("trailer"), Some("a"), "its body is in chunks as well");
}

#[test]
fn a_function_reads_trailers_as_they_are_laid_out() {
    let host = host();
    let mut client = host.client();
    client.send(
        b"POST /streams?p HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n",
    );
    let head = client.receive_head();
    assert_eq!(head.status, 200);
    client.receive_text("5\r\nbegun\r\n5\r\nearly\r\n");
    client.send(b"0\r\n\r\n");
    // There are none, and then it answers a second time.
    assert_eq!(client.receive_to_end(), b"");
    // All of it at once: the block has the body, and nothing is to be waited for.
    let response = ask(&mut host.client(), "/streams?p", "abc", "Ab: c|d:e|");
    let block: Vec<u8> = [0u32, 2, 40, 2, 42, 1, 43, 1, 44, 1].map(u32::to_le_bytes).concat();
    assert_eq!(response.body, [&b"begun"[..], &block, b"abcde"].concat());
    assert_eq!(response.trailer_text(), "x-end: 1\n");
}

#[test]
fn a_function_that_ends_its_body_badly_is_cut_off() {
    let host = host();
    for letter in ["k", "5", "y", "d"] {
        let mut client = host.client();
        client.send_get(&format!("/streams?{letter}"));
        if client.try_receive_head().is_some() {
            let end = client.receive_to_end();
            assert!(!end.ends_with(b"0\r\n\r\n"), "{letter}: {:?}", end.escape_ascii());
        }
        let _line = host.wait_for_line(&["trailers_write"]);
    }
    let _id = host.client().get("/streams?j").problem(502, "trapped");
    // What comes behind the end goes nowhere; the connection does not go on.
    for letter in ["i", "u"] {
        let mut client = host.client();
        client.send_get(&format!("/streams?{letter}"));
        if client.try_receive_head().is_some() {
            let end = client.receive_to_end();
            let whole = b"5\r\nbegun\r\n0\r\nx-end: 1\r\n\r\n";
            assert!(whole.starts_with(&end), "{letter}: {:?}", end.escape_ascii());
        }
    }
    assert_eq!(host.client().post("/streams?r", b"x").text(), "begun");
}

/// Serves what asks other servers, with one that tells what it was asked.
fn asking(upstream: &Upstream) -> Host {
    let function = |name: &str, route: &str| {
        format!(
            "[[function]]\nname = \"{name}\"\nmodule = \"{name}.wasm\"\nroute = \"{route}\"\n\
             deadline = \"10s\"\n[function.grant]\nhttp = [\"{}\"]\n",
            upstream.origin()
        )
    };
    let settings =
        [function("forward", "/forward/*"), function("relay", "/relay/*"), function("ask", "/ask")];
    ["forward", "relay", "ask"]
        .into_iter()
        .fold(Setup::new(), |setup, name| setup.file(&format!("{name}.wasm"), example(name)))
        .serve(&settings.concat())
}

fn telling() -> Upstream {
    Upstream::answering(|asked| {
        let has_te =
            asked.head.contains("te: trailers\r\n") && asked.head.contains("connection: te\r\n");
        let trailers = asked.trailers.trim_end().replace('\n', ";");
        let text = format!("{}|{trailers}|{has_te}", String::from_utf8_lossy(&asked.body));
        let mut said = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n".to_vec();
        said.extend(format!("{:x}\r\n{text}\r\n0\r\n", text.len()).bytes());
        if !asked.head.contains("/none") {
            said.extend_from_slice(b"Grpc-Status: 7\r\ncontent-length: 3\r\nx:\r\n");
        }
        said.extend_from_slice(b"\r\n");
        said
    })
}

#[test]
fn trailers_go_to_other_servers_and_come_back() {
    let upstream = telling();
    let host = asking(&upstream);
    let origin = upstream.origin();
    let mut client = host.client();
    // A component.
    let mut forward = |path: &str, trailers: &str| {
        let request = chunked(path, "hello", trailers);
        let request = String::from_utf8(request).unwrap();
        let line = format!("te: trailers\r\nx-origin: {origin}");
        client.send(request.replace("te: trailers", &line).as_bytes());
        client.receive()
    };
    let response = forward("/forward/a", "a: b|host: evil|");
    assert_eq!(response.text(), "hello|a: b|true");
    assert_eq!(response.trailer_text(), "grpc-status: 7\nx: \n");
    let response = forward("/forward/none", "");
    assert_eq!((response.text(), response.trailer_text().as_str()), ("hello||true", ""));
    assert_eq!(forward("/forward/a", "c: d|").text(), "hello|c: d|true");
    // A function in Rust, and one in C, which only reads them.
    let target = format!("/relay/louder?to={origin}/a");
    let response = ask(&mut client, &target, "hello", "a: b|");
    assert_eq!(response.text(), "HELLO|A: B|TRUE");
    assert_eq!(response.trailer_text(), "grpc-status: 7\nx: \n");
    let response = client.get(&format!("/ask?url={origin}/a"));
    assert_eq!(
        (response.text(), response.trailer_text().as_str()),
        ("||true", "grpc-status: 7\nx: \n")
    );
    let response = client.get(&format!("/ask?url={origin}/none"));
    assert_eq!(response.trailer_text(), "");
    let metrics = host.metrics();
    assert_eq!(metrics.sum("midge_outgoing_failed_total", &[]), 0);
}

#[test]
fn trailers_of_other_servers_have_limits() {
    let many: &'static [u8] = Box::leak(
        format!(
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n0\r\n{}\r\n",
            "a: b\r\n".repeat(65)
        )
        .into_bytes()
        .into(),
    );
    let upstream = Upstream::saying(many);
    let host = asking(&upstream);
    let mut client = host.client();
    client.send_get(&format!("/ask?url={}/", upstream.origin()));
    if client.try_receive_head().is_some_and(|head| head.status == 200) {
        assert!(!client.receive_to_end().ends_with(b"0\r\n\r\n"), "a part is no whole");
    }
    assert_eq!(host.metrics().sum("midge_outgoing_failed_total", &[]), 1);
}
