//! Goal: `midge prove` finds every example pristine, by its own requests and by generated ones; and it can
//! find a difference where there is one.
//! Method: the pairs of `expected/` are written as raw requests, and the built program is run on them.

use std::path::Path;

use midge_tests::guests::example_folder;
use midge_tests::http::Request;
use midge_tests::program::{Ended, midge};
use serde_json::Value;

use crate::examples::{EXAMPLES, read_part, request_files};

/// Generated requests for each example: seconds for all of them in a debug build.
const ROUNDS: &str = "12";

/// Writes the requests that an example is tried with as they go over the wire. Returns their number.
fn write_requests(example: &str, folder: &Path) -> usize {
    let files = request_files(example);
    for file in &files {
        let part = read_part(file);
        let body = part.body.unwrap_or_default();
        let request = Request { line: part.line, headers: part.headers, body };
        let name = file.file_name().expect("a file has a name");
        std::fs::write(folder.join(name), request.bytes()).expect("the folder takes files");
    }
    files.len()
}

fn prove(example: &str, folder: &Path, technique: &str) -> (Ended, Value) {
    let module = example_folder(example).join(format!("{example}.wasm"));
    let requests = folder.display().to_string();
    let arguments = ["prove", &module.display().to_string(), "--requests", &requests];
    let more = ["--rounds", ROUNDS, "--seed", "7", "--technique", technique, "--json"];
    let data = example_folder(example).join("data");
    let files = format!("{}:/data", data.display());
    let files = if data.exists() { &["--files", &files][..] } else { &[] };
    let ended = midge(folder, &[&arguments[..], &more, files].concat());
    let report = serde_json::from_str(&ended.stdout)
        .unwrap_or_else(|_| panic!("{example}: {}", ended.stderr));
    (ended, report)
}

#[test]
fn every_example_is_pristine() {
    for example in EXAMPLES {
        let folder = tempfile::tempdir().unwrap();
        let given = write_requests(example, folder.path());
        let (ended, report) = prove(example, folder.path(), "auto");
        assert_eq!(ended.code, Some(0), "{example}: {report:#}");
        assert_eq!(report["verdict"], "pristine", "{example}: {report:#}");
        assert_eq!(report["technique"], "restore", "{example}");
        assert_eq!(report["requests"], given + 12, "{example}");
        assert_ne!(report["compared"]["changes"], 0, "{example}: there is something to be undone");
        assert_eq!(
            report["compared"]["restores"],
            given + 11,
            "{example}: each call after the first"
        );
    }
}

#[test]
fn an_example_that_keeps_state_differs_where_nothing_is_restored() {
    for example in ["counter", "notes"] {
        let folder = tempfile::tempdir().unwrap();
        write_requests(example, folder.path());
        let (ended, report) = prove(example, folder.path(), "reuse");
        assert_eq!((ended.code, &report["verdict"]), (Some(3), &"differs".into()), "{example}");
        let difference = &report["difference"];
        assert_eq!((&difference["request"], &difference["found"]), (&1.into(), &"before".into()));
        assert!(difference["writer"]["name"].is_string(), "{example}: {difference:#}");

        let command = difference["reproduce"].as_str().unwrap();
        let words: Vec<_> = command.split(' ').skip(1).chain(["--json"]).collect();
        let again = midge(folder.path(), &words);
        let again: Value = serde_json::from_str(&again.stdout).unwrap();
        assert_eq!(again["difference"], *difference, "{command}");
    }
}

#[test]
fn an_artifact_is_proven_as_it_is_under_every_technique() {
    let folder = tempfile::tempdir().unwrap();
    let module = example_folder("counter").join("counter.wasm").display().to_string();
    assert_eq!(midge(folder.path(), &["build", &module, "-o", "counter.midge"]).code, Some(0));
    for technique in ["jit", "aot", "mmap", "cow", "pool", "restore"] {
        let arguments =
            ["prove", "counter.midge", "--rounds", "5", "--seed", "1", "--technique", technique];
        let ended = midge(folder.path(), &arguments);
        assert!(ended.stdout.starts_with("pristine: 5 requests"), "{technique}: {}", ended.stdout);
    }
}
