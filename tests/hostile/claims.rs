//! Goal: no claim of a response is believed.
//! Method: a guest that answers what the request tells it to; one row for each lie.

use midge_tests::guests::CLAIMS;
use midge_tests::host::{Host, Setup};
use midge_tests::http::Request;

/// Where the guest has its sound response, its header table, and its strings.
const RECORD: u32 = 1024;
const TABLE: u32 = 2048;
const NAME: u32 = 3072;
const VALUE: u32 = 3088;
/// Its memory ends here.
const END: u32 = 131_072;

/// What a lie is called, the address that the guest returns, and the words that it writes before.
type Lie = (&'static str, u32, Vec<(u32, u32)>);

/// A body that makes the guest write words, and return an address.
fn told(returned: u32, words: &[(u32, u32)]) -> Vec<u8> {
    let pairs = words.iter().flat_map(|(address, word)| [*address, *word]);
    std::iter::once(returned).chain(pairs).flat_map(u32::to_le_bytes).collect()
}

/// Words that put a text (of up to eight bytes) in the place of the header's name or value.
fn text(address: u32, size_at: u32, text: &[u8]) -> Vec<(u32, u32)> {
    let mut bytes = [0; 8];
    bytes[..text.len()].copy_from_slice(text);
    let words = bytes.as_chunks::<4>().0.iter().map(|word| u32::from_le_bytes(*word));
    let mut words: Vec<_> = (address..).step_by(4).zip(words).collect();
    words.push((size_at, u32::try_from(text.len()).expect("at most eight bytes")));
    words
}

fn host() -> Host {
    let settings = "[[function]]\nname = \"claims\"\nmodule = \"claims.wat\"\nroute = \"/*\"\n\
                    response = \"1 KiB\"\n";
    Setup::new().file("claims.wat", CLAIMS).serve(settings)
}

#[test]
fn every_lie_is_a_bad_gateway_and_the_next_request_is_served() {
    let record = |offset: u32, word: u32| vec![(RECORD + offset, word)];
    let table = |offset: u32, word: u32| vec![(TABLE + offset, word)];
    let name = |name: &[u8]| text(NAME, TABLE + 4, name);
    let value = |value: &[u8]| text(VALUE, TABLE + 12, value);
    let lies: Vec<Lie> = vec![
        ("no response", 0, vec![]),
        ("record at the last address", u32::MAX, vec![]),
        ("record over the end", END - 31, vec![]),
        ("record behind the end", END, vec![]),
        ("status 0", RECORD, record(0, 0)),
        ("status 100", RECORD, record(0, 100)),
        ("status 99", RECORD, record(0, 99)),
        ("status 199", RECORD, record(0, 199)),
        ("status 600", RECORD, record(0, 600)),
        ("status 1000", RECORD, record(0, 1000)),
        ("status 65535", RECORD, record(0, 65_535)),
        ("unknown flag", RECORD, record(0, 200 | 2 << 16)),
        ("all flags", RECORD, record(0, 200 | 0xFFFF << 16)),
        ("reserved word", RECORD, record(20, 1)),
        ("last reserved word", RECORD, record(28, 0x8000_0000)),
        ("65 headers", RECORD, record(4, 65)),
        ("4 billion headers", RECORD, record(4, u32::MAX)),
        ("as many headers as wrap around", RECORD, record(4, 1 << 28)),
        ("header table behind the end", RECORD, record(8, END)),
        ("header table over the end", RECORD, record(8, END - 15)),
        ("header table at the last address", RECORD, record(8, u32::MAX)),
        ("header table over the record", RECORD, record(8, RECORD)),
        ("header table over itself", RECORD, vec![(TABLE, TABLE), (TABLE + 4, 16)]),
        ("record over the header table", TABLE, vec![]),
        ("record of zeros", 8192, vec![]),
        ("64 headers where there is one", RECORD, record(4, 64)),
        ("body at the last address", RECORD, record(12, u32::MAX)),
        ("body over the end", RECORD, record(12, END - 2)),
        ("body of 4 GiB", RECORD, record(16, u32::MAX)),
        ("body that wraps around", RECORD, vec![(RECORD + 12, u32::MAX - 15), (RECORD + 16, 32)]),
        ("body beyond the limit", RECORD, record(16, 1025)),
        ("name behind the end", RECORD, table(0, END)),
        ("name over the end", RECORD, table(0, END - 5)),
        ("name of 4 GiB", RECORD, table(4, u32::MAX)),
        ("name longer than all headers may be", RECORD, table(4, 20_000)),
        ("value behind the end", RECORD, table(8, END)),
        ("value that wraps around", RECORD, vec![(TABLE + 8, u32::MAX), (TABLE + 12, 2)]),
        ("value of 4 GiB", RECORD, table(12, u32::MAX)),
        ("value longer than all headers may be", RECORD, table(12, 17_000)),
        ("empty name", RECORD, table(4, 0)),
        ("name with a space", RECORD, name(b"x name")),
        ("name with a colon", RECORD, name(b"x:name")),
        ("name with a line end", RECORD, name(b"x\r\ny")),
        ("name with a high byte", RECORD, name(b"x\xFFy")),
        ("value that splits the response", RECORD, value(b"a\r\nb: c")),
        ("value with a line feed", RECORD, value(b"a\nb")),
        ("value with a zero", RECORD, value(b"a\0b")),
        ("value with a delete", RECORD, value(b"a\x7Fb")),
        ("the host's date", RECORD, name(b"date")),
        ("the host's date in capitals", RECORD, name(b"DATE")),
        ("te", RECORD, name(b"te")),
        ("trailer", RECORD, name(b"trailer")),
        ("upgrade", RECORD, name(b"Upgrade")),
    ];
    let host = host();
    let mut client = host.client();
    for (lie, returned, words) in &lies {
        let response = client.post("/", &told(*returned, words));
        assert_eq!(response.status, 502, "{lie}: {response:?}");
        let _id = response.problem(502, "bad-response");
        let honest = client.get("/");
        assert_eq!((honest.status, honest.text()), (200, "ok\n"), "after {lie}");
        assert_eq!(honest.header("x-name"), Some("value"), "after {lie}");
    }
    let refused = host.metrics().sum("midge_function_refused_total", &["bad-response"]);
    assert_eq!(refused, u64::try_from(lies.len()).unwrap());
}

#[test]
fn no_byte_that_frames_a_message_gets_into_a_header() {
    let host = host();
    let mut client = host.client();
    for byte in 0..=u8::MAX {
        let is_token = byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
        let is_value = byte == b'\t' || (b' ' <= byte && byte != 0x7F);
        let named = client.post("/", &told(RECORD, &text(NAME, TABLE + 4, &[b'x', byte, b'y'])));
        assert_eq!(named.status, if is_token { 200 } else { 502 }, "{byte:#x} in a name");
        let valued = told(RECORD, &text(VALUE, TABLE + 12, &[b'x', byte, b'y']));
        // As bytes: a value may hold what is no text.
        client.send(&Request::post("/", &valued).bytes());
        let status = client.receive_bytes_of_head();
        let expected: &[u8] = if is_value { b"HTTP/1.1 200 " } else { b"HTTP/1.1 502 " };
        assert!(status.starts_with(expected), "{byte:#x} in a value");
        client = host.client();
    }
}

#[test]
fn a_body_where_none_may_be_does_not_become_the_next_response() {
    let host = host();
    for status in [204, 205, 304] {
        let mut client = host.client();
        let first = client.post("/", &told(RECORD, &[(RECORD, status)]));
        assert_eq!(u32::from(first.status), status);
        for method in ["GET", "HEAD"] {
            let next = client.ask(&Request::of(&format!("{method} /")));
            assert_eq!(next.status, 200, "{method} after {status}: {next:?}");
            assert_eq!(next.header("x-name"), Some("value"));
        }
    }
}

#[test]
fn framing_headers_of_a_guest_are_refused() {
    // Longer names than the guest's own place has: they go where its memory is free.
    for name in ["connection", "content-length", "transfer-encoding", "keep-alive"] {
        let host = host();
        let mut words = vec![(TABLE, 8192), (TABLE + 4, u32::try_from(name.len()).unwrap())];
        for (piece, address) in name.as_bytes().chunks(4).zip((8192..).step_by(4)) {
            let mut word = [0; 4];
            word[..piece.len()].copy_from_slice(piece);
            words.push((address, u32::from_le_bytes(word)));
        }
        let mut client = host.client();
        let _id = client.post("/", &told(RECORD, &words)).problem(502, "bad-response");
        assert_eq!(client.get("/").text(), "ok\n", "{name}");
    }
}

#[test]
fn the_limits_themselves_are_no_lies() {
    let host = host();
    let mut client = host.client();
    for (what, words) in [
        ("status 599", vec![(RECORD, 599)]),
        ("the longest body", vec![(RECORD + 16, 1024)]),
        ("a body at the very end", vec![(RECORD + 12, END - 3)]),
        ("no headers, and their table nowhere", vec![(RECORD + 4, 0)]),
        ("an empty value", vec![(TABLE + 12, 0)]),
    ] {
        let response = client.post("/", &told(RECORD, &words));
        assert_ne!(response.status, 502, "{what}: {response:?}");
    }
}

#[test]
fn a_guests_own_message_is_for_the_log_alone() {
    let host = host();
    let mut client = host.client();
    let response = client.post("/", &told(RECORD, &[(RECORD, 1 << 16)]));
    let id = response.problem(500, "function-failed");
    assert!(!response.text().contains("ok"));
    let line = host.wait_for_line(&["error claims: ok", &id]);
    assert!(line.contains("ok\\n"), "control characters are escaped: {line}");
}
