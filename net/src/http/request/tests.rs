//! One rule each. What holds for any bytes is checked by `tests/mutation.rs`: one outcome however they are split, and
//! whatever we take, httparse takes alike.

use super::*;

/// The head's bytes and what they say, if the head is complete.
type Outcome = Result<Option<(Vec<u8>, Head)>, Refusal>;

/// Parses `text`, in which `|` stands for a line end, whole and in growing prefixes; both must agree.
fn outcome(text: &str) -> Outcome {
    let bytes = text.replace('|', "\r\n").into_bytes();
    let whole = parse_once(&bytes);
    let mut growing = Vec::new();
    let mut last = Ok(None);
    for &byte in &bytes {
        growing.push(byte);
        // In place, on bytes that earlier calls have lower-cased already.
        let mut head = Head::default();
        match parse(&mut growing, &mut head) {
            Ok(Progress::Partial) => last = Ok(None),
            Ok(Progress::Complete) => last = Ok(Some((growing.clone(), head))),
            Err(refusal) => last = Err(refusal),
        }
        if !matches!(last, Ok(None)) {
            break;
        }
    }
    assert_eq!(said(&whole), said(&last), "{text}");
    whole
}

fn parse_once(bytes: &[u8]) -> Outcome {
    let mut bytes = bytes.to_vec();
    let mut head = Head::default();
    Ok(match parse(&mut bytes, &mut head)? {
        Progress::Partial => None,
        Progress::Complete => {
            bytes.truncate(head.bytes_total());
            Some((bytes, head))
        }
    })
}

/// What a head says, comparable.
fn said(outcome: &Outcome) -> String {
    match outcome {
        Err(refusal) => format!("refused: {refusal}"),
        Ok(None) => "partial".into(),
        Ok(Some((bytes, head))) => format!(
            "{bytes:?} {:?} {:?} {:?} {:?} {:?} {} {:?} {} {} {:?}",
            head.method,
            head.target,
            head.path,
            head.query,
            head.authority,
            head.version_minor,
            head.framing,
            head.keep_alive,
            head.expects_continue,
            head.headers(),
        ),
    }
}

fn check_refused(text: &str, expected: Refusal) {
    match outcome(text) {
        Err(refusal) => assert_eq!(refusal, expected, "{text}"),
        other => panic!("{text}: {}", said(&other)),
    }
}

fn taken(text: &str) -> (Vec<u8>, Head) {
    match outcome(text) {
        Ok(Some(taken)) => taken,
        other => panic!("{text}: {}", said(&other)),
    }
}

/// Method's name, path, query, authority.
fn check_target(text: &str, expected: [&str; 4]) {
    let (bytes, head) = taken(text);
    let bytes = &bytes[usize::from(head.bytes_skipped)..];
    let found = [head.method_name, head.path, head.query, head.authority]
        .map(|span| String::from_utf8_lossy(span.of(bytes)).into_owned());
    assert_eq!(found, expected, "{text}");
}

#[test]
fn targets_are_split() {
    check_target("GET / HTTP/1.1|Host: a||", ["GET", "/", "", "a"]);
    check_target("GET /a/b?c=d?e HTTP/1.1|Host: a:80||", ["GET", "/a/b", "c=d?e", "a:80"]);
    check_target("PUT /? HTTP/1.1|Host: [::1]:8080||", ["PUT", "/", "", "[::1]:8080"]);
    check_target("OPTIONS * HTTP/1.1|Host: a||", ["OPTIONS", "*", "", "a"]);
    check_target("GET http://b:1/x?y HTTP/1.1|Host: a||", ["GET", "/x", "y", "b:1"]);
    check_target("GET HTTPS://b?y HTTP/1.1|Host: a||", ["GET", "", "y", "b"]);
    check_target("GET http://b HTTP/1.1|Host: a||", ["GET", "", "", "b"]);
    check_target("GET / HTTP/1.0||", ["GET", "/", "", ""]);
    check_target("||GET / HTTP/1.1|Host: a||", ["GET", "/", "", "a"]);
}

#[test]
fn malformed_request_lines_are_refused() {
    for text in [
        " GET / HTTP/1.1|",
        "GET  / HTTP/1.1|",
        "GET /  HTTP/1.1|",
        "GET / HTTP/1.1 |",
        "GET /|",
        "GET / http/1.1|",
        "GET / HTTP/1.1\n",
        "GET / HTTP/1.1\rx",
        "GET / HTTP/11|",
        "GET / HTTP/0.9|",
        "GET\t/ HTTP/1.1|",
        "GE(T / HTTP/1.1|",
        "\nGET",
        "\rGET",
        "\0",
        "\x16\x03\x01",
        "GET / HTTX",
        "GET / HTTP/1.10|",
    ] {
        check_refused(text, Refusal::RequestLine);
    }
    check_refused("|||", Refusal::EmptyLines);
}

#[test]
fn targets_of_no_known_form_are_refused() {
    for text in [
        "GET a HTTP/1.1|",
        "GET * HTTP/1.1|",
        "GET /a#b HTTP/1.1|",
        "GET /\u{e9} HTTP/1.1|",
        "GET /\x01 HTTP/1.1|",
        "GET /\t HTTP/1.1|",
        "GET http:///a HTTP/1.1|",
        "GET http://a@b/ HTTP/1.1|",
        "GET ftp://a/ HTTP/1.1|",
        "GET a:80 HTTP/1.1|",
        "GET http://a:99999/ HTTP/1.1|",
        "GET /<a> HTTP/1.1|",
    ] {
        check_refused(text, Refusal::Target);
    }
}

#[test]
fn methods_and_versions_nobody_knows_have_their_own_status() {
    for text in ["get / HTTP/1.1|", "FOO / HTTP/1.1|", "CONNECT a:80 HTTP/1.1|", "GETX / HTTP/1.1|"]
    {
        check_refused(text, Refusal::MethodUnknown);
    }
    check_refused(&"A".repeat(25), Refusal::MethodUnknown);
    for text in ["GET / HTTP/2.0|", "PRI * HTTP/2.0|", "GET / HTTP/9.9|"] {
        check_refused(text, Refusal::VersionUnsupported);
    }
    assert_eq!(taken("GET / HTTP/1.7|host: a||").1.version_minor, 1);
}

#[test]
fn malformed_header_lines_are_refused() {
    for line in
        ["a : b|", " a: b|", "\ta: b|", ": b|", "a|", "a\0: b|", "a: b| c|", "(a): b|", "\ra"]
    {
        check_refused(&format!("GET / HTTP/1.1|Host: a|{line}"), Refusal::HeaderName);
    }
    for line in ["a: b\n", "a: b\rc", "a: \0", "a: \x7f", "a: b\x0bc", "a: 12345678\x01", "a: \r\r"]
    {
        check_refused(&format!("GET / HTTP/1.1|Host: a|{line}"), Refusal::HeaderValue);
    }
    check_refused("GET / HTTP/1.1|Host: a|\rx", Refusal::HeaderName);
}

#[test]
fn names_are_lower_cased_and_values_trimmed() {
    let (bytes, head) =
        taken("GET / HTTP/1.1|HoSt: a|X-Empty:|X-Tab:\t a\tb \t|X-Upper: \u{e9}Z||");
    let lines: Vec<(String, String)> = head
        .headers()
        .iter()
        .map(|line| {
            let text = |span: Span| String::from_utf8_lossy(span.of(&bytes)).into_owned();
            (text(line.name), text(line.value))
        })
        .collect();
    let expected = [("host", "a"), ("x-empty", ""), ("x-tab", "a\tb"), ("x-upper", "\u{e9}Z")];
    assert_eq!(lines, expected.map(|(name, value)| (name.into(), value.into())));
}

#[test]
fn a_host_is_asked_for_once() {
    check_refused("GET / HTTP/1.1||", Refusal::Host);
    check_refused("GET / HTTP/1.1|Host: a|Host: a|", Refusal::Host);
    check_refused("GET / HTTP/1.0|Host: a|Host: a|", Refusal::Host);
    check_refused("GET http://b/ HTTP/1.1||", Refusal::Host);
    for host in [
        "", "a b", "a,b", "a/b", "u@a", "a?b", "a:b", "a:1:2", "[::1", "[]", "[g]", "a:65536",
        ":80", "[::1]x", "http://a", "\u{e9}",
    ] {
        check_refused(&format!("GET / HTTP/1.1|Host: {host}|"), Refusal::Host);
    }
}

#[test]
fn framing_is_told_in_one_way() {
    let framing = |lines: &str| taken(&format!("POST / HTTP/1.1|Host: a|{lines}|")).1.framing;
    assert_eq!(framing(""), Framing::None);
    assert_eq!(framing("Content-Length: 0|"), Framing::None);
    assert_eq!(framing("Content-Length: 007|"), Framing::Length(7));
    assert_eq!(framing(&format!("content-length: {}|", u64::MAX)), Framing::Length(u64::MAX));
    assert_eq!(framing("Transfer-Encoding: Chunked|"), Framing::Chunked);
    for value in ["+3", "-1", "0x1", "1 1", "3, 3", "", "18446744073709551616", "1.0", "1_0"] {
        let text = format!("POST / HTTP/1.1|Host: a|Content-Length: {value}|");
        check_refused(&text, Refusal::ContentLength);
    }
    let check = |lines: &str, expected| {
        check_refused(&format!("POST / HTTP/1.1|Host: a|{lines}"), expected);
    };
    check("Content-Length: 3|Content-Length: 3|", Refusal::ContentLength);
    check("Transfer-Encoding: chunked|Content-Length: 3||", Refusal::FramingTwice);
    check("Content-Length: 3|Transfer-Encoding: chunked||", Refusal::FramingTwice);
    check("Transfer-Encoding: chunked|Transfer-Encoding: chunked|", Refusal::TransferEncoding);
    for value in
        ["chunked, chunked", "chunked, gzip", "", ", chunked", "chunked;q=1", "\"chunked\""]
    {
        check(&format!("Transfer-Encoding: {value}|"), Refusal::TransferEncoding);
    }
    for value in ["gzip, chunked", "gzip", "xchunked", "identity", "chunke"] {
        check(&format!("Transfer-Encoding: {value}|"), Refusal::CodingUnknown);
    }
    let old = "POST / HTTP/1.0|Transfer-Encoding: chunked|";
    check_refused(old, Refusal::TransferEncoding);
}

#[test]
fn the_connection_goes_on_as_both_sides_want() {
    let keep_alive = |version: &str, line: &str| {
        taken(&format!("GET / HTTP/1.{version}|Host: a|{line}|")).1.keep_alive
    };
    assert!(keep_alive("1", ""));
    assert!(!keep_alive("1", "Connection: close|"));
    assert!(!keep_alive("1", "Connection: x , CLOSE,y|"));
    assert!(!keep_alive("1", "Connection: keep-alive|Connection: close|"));
    assert!(keep_alive("1", "Connection: closed|"));
    assert!(!keep_alive("0", ""));
    assert!(keep_alive("0", "Connection: Keep-Alive|"));
    assert!(!keep_alive("0", "Connection: keep-alive, close|"));
}

#[test]
fn an_expectation_is_known_or_refused() {
    let expects = |text: &str| taken(text).1.expects_continue;
    assert!(expects("PUT / HTTP/1.1|Host: a|Expect: 100-Continue|Content-Length: 1||"));
    assert!(!expects("PUT / HTTP/1.1|Host: a|Expect: 100-continue||"));
    assert!(!expects("PUT / HTTP/1.0|Expect: 100-continue|Content-Length: 1||"));
    assert!(!expects("PUT / HTTP/1.0|Expect: other|Content-Length: 1||"));
    check_refused("PUT / HTTP/1.1|Host: a|Expect: 200-ok|", Refusal::Expectation);
}

#[test]
fn limits_are_exact() {
    let target = |size: usize| format!("GET /{} HTTP/1.1|Host: a||", "a".repeat(size - 1));
    taken(&target(TARGET_BYTES_MAX));
    check_refused(&target(TARGET_BYTES_MAX + 1), Refusal::TargetTooLong);

    let lines = |count: usize| format!("GET / HTTP/1.1|Host: a|{}|", "a: b|".repeat(count - 1));
    assert_eq!(taken(&lines(HEADERS_MAX)).1.headers().len(), HEADERS_MAX);
    check_refused(&lines(HEADERS_MAX + 1), Refusal::HeadersTooMany);
}

#[test]
fn a_head_may_have_exactly_its_limit() {
    let head = |size: usize| {
        let frame = "GET / HTTP/1.1\r\nHost: a\r\nx: \r\n\r\n".len();
        format!("GET / HTTP/1.1\r\nHost: a\r\nx: {}\r\n\r\n", "y".repeat(size - frame)).into_bytes()
    };
    assert!(matches!(parse_once(&head(HEAD_BYTES_MAX)), Ok(Some(_))));
    assert_eq!(parse_once(&head(HEAD_BYTES_MAX + 1)).unwrap_err(), Refusal::HeadTooLarge);
    let endless = &head(HEAD_BYTES_MAX + 100)[..HEAD_BYTES_MAX];
    assert_eq!(parse_once(endless).unwrap_err(), Refusal::HeadTooLarge);
    assert!(matches!(parse_once(&endless[..HEAD_BYTES_MAX - 1]), Ok(None)));
}
