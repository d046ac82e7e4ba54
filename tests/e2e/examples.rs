//! Goal: each example gives the answers that it promises.
//! Method: every pair in `expected/` is replayed through one host that serves all examples, as
//! `examples/README.md` says that pairs are to be read.

use std::path::{Path, PathBuf};

use midge_tests::guests::example_folder;
use midge_tests::host::Setup;
use midge_tests::http::{Client, Request, Response};
use midge_tests::program::workspace;

pub(crate) const EXAMPLES: [&str; 18] = [
    "hello",
    "counter",
    "json",
    "markdown",
    "thumbnail",
    "hmac",
    "notes",
    "pass",
    "digest",
    "events",
    "component",
    "forward",
    "cgi",
    "lookup",
    "work",
    "receipt",
    "relay",
    "ask",
];

/// What an answer must have; `None` is not compared.
#[derive(Debug)]
struct Expected {
    status: u16,
    headers: Vec<(String, String)>,
    body: Option<Vec<u8>>,
}

/// One file of a pair: first line, header lines, and a body if there is one.
pub(crate) struct Part {
    pub(crate) line: String,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Option<Vec<u8>>,
}

#[test]
fn each_expected_request_gets_its_response() {
    let examples = workspace().join("examples");
    let settings = std::fs::read_to_string(examples.join("midge.toml")).unwrap();
    let settings =
        settings.replace("module    = \"", &format!("module = \"{}/", examples.display()));
    let settings = settings.replace("[\"lookup/", &format!("[\"{}/lookup/", examples.display()));
    // A debug build of the guests' compiler says nothing about their speed.
    let settings = settings.replace("\"100ms\"", "\"10s\"").replace("\"200ms\"", "\"10s\"");
    let host = Setup::new().serve(&settings);
    let mut client = host.client();
    let mut count = 0;
    for request_file in EXAMPLES.iter().flat_map(|name| request_files(name)) {
        let (request, expected) = pair(&request_file);
        check(&request_file, &client.ask(&request), &expected);
        count += 1;
    }
    assert!(30 <= count, "only {count} pairs were found");
}

/// Another host of components gives the same answers: `CONTRIBUTING.md` has the command.
#[test]
#[ignore = "needs another host: MIDGE_COMPONENT_TARGET"]
fn another_host_gives_the_components_answers() {
    let target = std::env::var_os("MIDGE_COMPONENT_TARGET").expect("MIDGE_COMPONENT_TARGET");
    let target = target.to_str().and_then(|target| target.parse().ok());
    let target = target.expect("MIDGE_COMPONENT_TARGET is an address and a port");
    for request_file in request_files("component") {
        let (request, expected) = pair(&request_file);
        let mut client = Client::connect(target);
        check(&request_file, &client.ask(&request), &expected);
    }
    super::trailers::announced_trailers_come_back(&mut Client::connect(target));
}

/// Reads a request and the answer that it must get.
fn pair(request_file: &Path) -> (Request, Expected) {
    let Part { line, headers, body } = read_part(request_file);
    let request = Request { line, headers, body: body.unwrap_or_default() };
    let Part { line, headers, body } = read_part(&request_file.with_extension("response"));
    let status = line.parse().expect("a response begins with its status");
    (request, Expected { status, headers, body })
}

fn check(file: &Path, response: &Response, expected: &Expected) {
    let shown = file.display();
    assert_eq!(response.status, expected.status, "{shown}: {response:?}");
    for (name, value) in &expected.headers {
        assert_eq!(response.header(name), Some(value.as_str()), "{shown}: {name}");
    }
    if let Some(body) = &expected.body {
        assert!(response.body == *body, "{shown}: {:?}", String::from_utf8_lossy(&response.body));
    }
}

pub(crate) fn request_files(example: &str) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(example_folder(example).join("expected"))
        .expect("each example has pairs");
    let files = entries.map(|entry| entry.expect("a folder can be listed").path());
    let is_request = |file: &PathBuf| file.extension().is_some_and(|ending| ending == "request");
    let mut files: Vec<_> = files.filter(is_request).collect();
    assert!(!files.is_empty(), "{example} has pairs");
    files.sort();
    files
}

pub(crate) fn read_part(file: &Path) -> Part {
    let text = std::fs::read_to_string(file).expect("a pair has both files");
    let (head, body) = match text.split_once("\n\n") {
        Some((head, body)) => (head, Some(body.strip_suffix('\n').unwrap_or(body))),
        None => (text.trim_end(), None),
    };
    let mut lines = head.lines();
    let line = lines.next().expect("a file has a first line").to_owned();
    let headers = lines.map(|line| {
        let (name, value) = line.split_once(": ").expect("a header has a name");
        (name.to_owned(), value.to_owned())
    });
    let body = body.map(|body| match body.strip_prefix('@') {
        Some(name) if !name.contains('\n') => {
            std::fs::read(file.with_file_name(name)).expect("the body's file is there")
        }
        _ => body.as_bytes().to_vec(),
    });
    Part { line, headers: headers.collect(), body }
}
