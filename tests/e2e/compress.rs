//! Responses of functions made smaller for those who take them so.

use std::io::Read;

use midge_tests::guests::{ECHO, example};
use midge_tests::host::{Host, Setup};
use midge_tests::http::{Request, Response};

const SETTINGS: &str = "[[function]]\nname = \"echo\"\nmodule = \"echo.wat\"\nroute = \"/*\"\n\
    compress = true\n\
    [[function]]\nname = \"plain\"\nmodule = \"echo.wat\"\nroute = \"/plain\"\n\
    [[function]]\nname = \"events\"\nmodule = \"events.wasm\"\nroute = \"/events\"\ncompress = true\n";

fn host() -> Host {
    Setup::new().file("echo.wat", ECHO).file("events.wasm", example("events")).serve(SETTINGS)
}

fn ask(host: &Host, line: &str, accepted: &str, body: &[u8]) -> Response {
    let headers = vec![("accept-encoding".into(), accepted.into())];
    host.client().ask(&Request { line: line.into(), headers, body: body.to_vec() })
}

#[test]
fn a_client_gets_what_it_takes() {
    let host = host();
    let body = b"many words, many words, ".repeat(100);
    let small = ask(&host, "POST /", "gzip", &body);
    assert_eq!((small.status, small.header("content-encoding")), (200, Some("gzip")));
    assert_eq!(small.header("vary"), Some("accept-encoding"));
    assert!(small.body.len() < body.len() / 4);
    let mut decoded = Vec::new();
    flate2::read::GzDecoder::new(&small.body[..]).read_to_end(&mut decoded).unwrap();
    assert!(decoded == body);
    for accepted in ["br", "zstd", "gzip, br;q=0.1"] {
        let small = ask(&host, "POST /", accepted, &body);
        let expected = accepted.split(',').next();
        assert_eq!(small.header("content-encoding"), expected, "{accepted}");
    }
    for (line, accepted, body) in [
        ("POST /", "identity", &body[..]),
        ("POST /", "gzip;q=0", &body[..]),
        ("POST /", "gzip", &body[..100]),
        ("POST /plain", "gzip", &body[..]),
    ] {
        let whole = ask(&host, line, accepted, body);
        assert_eq!(whole.header("content-encoding"), None, "{line} {accepted}");
        assert!(whole.body == body, "{line} {accepted}");
    }
}

#[test]
fn a_timed_response_is_made_smaller_as_any() {
    let settings = SETTINGS.replace("compress = true", "compress = true\nserver_timing = true");
    let setup = Setup::new().file("echo.wat", ECHO).file("events.wasm", example("events"));
    let body = b"many words, many words, ".repeat(100);
    let host = setup.serve(&settings);
    let small = ask(&host, "POST /", "gzip", &body);
    assert_eq!(small.header("content-encoding"), Some("gzip"));
    assert!(small.header("server-timing").is_some_and(|value| value.starts_with("tier;")));
    let whole = ask(&host, "POST /", "identity", &body);
    assert_eq!((whole.header("vary"), whole.body.len()), (Some("accept-encoding"), body.len()));
}

#[test]
fn answers_keep_their_order_in_a_pipeline() {
    let host = host();
    let body = b"0123456789".repeat(300);
    let one = |accepted: &str, body: &[u8]| {
        let headers = vec![("accept-encoding".into(), accepted.into())];
        Request { line: "POST /".into(), headers, body: body.to_vec() }.bytes()
    };
    let mut client = host.client();
    client.send(&[one("gzip", &body), one("identity", b"second"), one("br", &body)].concat());
    let encodings = [Some("gzip"), None, Some("br")];
    for expected in encodings {
        assert_eq!(client.receive().header("content-encoding"), expected);
    }
}

#[test]
fn a_stream_is_left_as_it_is() {
    let answer = ask(&host(), "GET /events?count=200&every=0", "gzip", b"");
    assert_eq!((answer.status, answer.header("content-encoding")), (200, None));
    assert!(answer.text().len() > 2000);
}
