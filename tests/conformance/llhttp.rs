//! The fixtures of llhttp, the parser of Node.js, against the built program. They are not part of this tree:
//!
//! ```sh
//! git clone https://github.com/nodejs/llhttp /tmp/llhttp
//! MIDGE_LLHTTP_FIXTURES=/tmp/llhttp/test/request \
//!   cargo test -p midge-tests --test conformance llhttp -- --ignored --nocapture
//! ```
//!
//! A fixture is a request and what the parser says of it. Whether it takes the request is compared; what it takes
//! and midge refuses is listed, for midge is stricter on purpose; what it refuses and midge takes is a fault.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::path::Path;

use midge_tests::tell;
use midge_tests::wait::PATIENCE;

use crate::host;

struct Fixture {
    name: String,
    request: Vec<u8>,
    /// The parser comes to an error.
    is_refused: bool,
    /// It comes to the end of a request.
    is_whole: bool,
}

#[test]
#[ignore = "needs the fixtures of llhttp: see the head of this file"]
#[expect(clippy::disallowed_methods, reason = "the folder is this test's own setting")]
fn the_fixtures_of_llhttp() {
    let folder = std::env::var("MIDGE_LLHTTP_FIXTURES").expect("MIDGE_LLHTTP_FIXTURES is set");
    let fixtures = fixtures(Path::new(&folder));
    assert!(!fixtures.is_empty(), "there are fixtures in {folder}");
    let host = host();
    let (mut same, mut stricter, mut faults) = (0, Vec::new(), Vec::new());
    for fixture in &fixtures {
        let statuses = ask(host.listen, &fixture.request);
        let is_refused = statuses.iter().any(|status| *status >= 400 && *status != 405);
        let row = format!("| {} | {statuses:?} |", fixture.name);
        match (fixture.is_refused, is_refused) {
            (true, false) if !statuses.is_empty() => faults.push(row),
            (false, true) if fixture.is_whole => stricter.push(row),
            _ => same += 1,
        }
    }
    tell(&format!(
        "{} fixtures: {same} same, {} stricter here, {} taken here alone",
        fixtures.len(),
        stricter.len(),
        faults.len()
    ));
    for row in stricter.iter().chain(&faults) {
        tell(row);
    }
}

/// Returns the statuses that come back for a request, after which nothing more is sent.
fn ask(address: SocketAddr, request: &[u8]) -> Vec<u16> {
    let mut stream = TcpStream::connect(address).expect("the host listens");
    stream.set_read_timeout(Some(PATIENCE)).expect("a socket takes its options");
    // A host that has refused takes no more.
    drop(stream.write_all(request));
    drop(stream.shutdown(Shutdown::Write));
    let mut answer = Vec::new();
    drop(stream.read_to_end(&mut answer));
    let text = String::from_utf8_lossy(&answer);
    let heads = text.match_indices("HTTP/1.1 ").filter_map(|(at, _)| text.get(at + 9..at + 12));
    heads.filter_map(|status| status.parse().ok()).filter(|status| *status >= 200).collect()
}

fn fixtures(folder: &Path) -> Vec<Fixture> {
    let entries = std::fs::read_dir(folder).expect("the folder can be read");
    let mut files: Vec<_> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
    files.retain(|file| file.extension().is_some_and(|ending| ending == "md"));
    files.sort();
    let mut all = Vec::new();
    for file in files {
        let text = std::fs::read_to_string(&file).expect("a fixture is text");
        let stem = file.file_stem().expect("a file has a name").to_string_lossy().into_owned();
        let mut title = "";
        let mut is_strict = false;
        let mut request = None;
        let mut rest = text.as_str();
        while let Some((line, tail)) = rest.split_once('\n') {
            rest = tail;
            if let Some(heading) = line.strip_prefix('#') {
                title = heading.trim_start_matches('#').trim();
            } else if line.starts_with("<!-- meta=") {
                is_strict = line.contains("\"type\": \"request\"") && !line.contains("pause");
            } else if line == "```http" || line == "```log" {
                let (block, tail) = rest.split_once("\n```").unwrap_or((rest, ""));
                rest = tail;
                if line == "```http" {
                    request = Some(with_host(unescaped(block)));
                } else if let (Some(request), true) = (request.take(), is_strict) {
                    all.push(Fixture {
                        name: format!("{stem}: {title}"),
                        request,
                        // To be paused, by an upgrade as well, is no refusal.
                        is_refused: block
                            .lines()
                            .any(|line| line.contains("error code=") && !line.contains("Pause")),
                        is_whole: block.contains("message complete"),
                    });
                }
            }
        }
    }
    all
}

/// Names a host where none is: a parser does not miss it, and a server has to (RFC 9112, 3.2).
fn with_host(request: Vec<u8>) -> Vec<u8> {
    let text: String = request.iter().map(|byte| char::from(*byte)).collect();
    if text.to_ascii_lowercase().contains("\r\nhost:") {
        return request;
    }
    let text = text.replace(" HTTP/1.1\r\n", " HTTP/1.1\r\nHost: a\r\n");
    text.chars().filter_map(|letter| u8::try_from(letter).ok()).collect()
}

/// Takes a block for what it stands for: lines end in CRLF, those with a backslash at the end go on, and escapes
/// are bytes.
fn unescaped(block: &str) -> Vec<u8> {
    let block = block.replace("\\\n", "").replace('\n', "\r\n");
    let mut bytes = Vec::new();
    let mut rest = block.as_str();
    while let Some((plain, tail)) = rest.split_once('\\') {
        bytes.extend_from_slice(plain.as_bytes());
        let (byte, size) = match tail.as_bytes() {
            [b'r', ..] => (b'\r', 1),
            [b'n', ..] => (b'\n', 1),
            [b't', ..] => (b'\t', 1),
            [b'f', ..] => (0x0C, 1),
            [b'x', high, low, ..] => {
                let digit = |byte: u8| char::from(byte).to_digit(16).unwrap_or(0);
                let byte = digit(*high) << 4 | digit(*low);
                (u8::try_from(byte).unwrap_or(0), 3)
            }
            _ => (b'\\', 0),
        };
        bytes.push(byte);
        rest = &tail[size..];
    }
    bytes.extend_from_slice(rest.as_bytes());
    bytes
}
