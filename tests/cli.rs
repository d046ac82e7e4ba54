//! The command line as people see it: snapshots of stdout, stderr and exit status.
//!
//! What differs between machines and runs is replaced: paths, processors, sizes of compiled code, times.
//! `INSTA_UPDATE=always cargo test -p midge-tests --test cli` writes the snapshots anew.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use midge_tests::guests::{HARM, HELLO};
use midge_tests::program::{Ended, command, midge};
use serde_json::Value;
use tempfile::TempDir;

const SETTINGS: &str = r#"
workers = 1

[[function]]
name = "hello"
module = "hello.wat"
route = "/hello"
deadline = "50ms"
"#;

const FAULTY: &str = r#"
workers = 0
listen = "here"

[[function]]
name = "hello"
modul = "hello.wat"
route = "hello"
deadline = "50"
technique = "restor"
"#;

/// A folder with everything that the commands are given.
fn folder() -> TempDir {
    let folder = tempfile::tempdir().expect("a temporary folder");
    for (name, content) in [
        ("hello.wat", HELLO.as_bytes()),
        ("harm.wat", HARM.as_bytes()),
        ("midge.toml", SETTINGS.as_bytes()),
        ("faulty.toml", FAULTY.as_bytes()),
        ("component.wasm", b"\0asm\x0d\0\x01\0"),
        ("noise.wasm", b"\0asm\x01\0\0\0\xFF\xFF"),
        ("text.wat", b"(module (func"),
    ] {
        std::fs::write(folder.path().join(name), content).expect("the folder takes files");
    }
    folder
}

/// Runs a command, and returns what a snapshot holds of it.
fn shown(folder: &Path, arguments: &[&str]) -> String {
    let Ended { code, stdout, stderr } = midge(folder, arguments);
    let code = code.map_or("a signal".to_owned(), |code| code.to_string());
    let text = format!(
        "$ midge {}\n--- exit {code}\n--- stdout\n{stdout}--- stderr\n{stderr}",
        arguments.join(" ")
    );
    filtered(&text.replace(&folder.display().to_string(), "[folder]"))
}

/// Replaces what depends on the machine.
fn filtered(text: &str) -> String {
    let lines = text.lines().map(|line| {
        let mut line = line.trim_end().to_owned();
        let is_machine = |word: &str| word.starts_with(std::env::consts::ARCH);
        line = replace_words(&line, is_machine, "[machine]");
        if line.starts_with("pool-scan ") {
            line = "pool-scan  [depends on kernel and swap]".to_owned();
        }
        line
    });
    lines.map(|line| line + "\n").collect()
}

fn replace_words(line: &str, is_wanted: impl Fn(&str) -> bool, with: &str) -> String {
    let words = line.split(' ').map(|word| if is_wanted(word) { with } else { word });
    words.collect::<Vec<_>>().join(" ")
}

/// Replaces every number of a line that starts with one of these words, and the gaps that depend on them.
fn without_numbers(text: &str, starts: &[&str]) -> String {
    let lines = text.lines().map(|line| {
        if !starts.iter().any(|start| line.trim_start().starts_with(start)) {
            return format!("{line}\n");
        }
        let words = line.split_whitespace().map(|word| match word.parse::<u64>() {
            Ok(_) => "[number]",
            Err(_) => word,
        });
        format!("{}\n", words.collect::<Vec<_>>().join(" "))
    });
    lines.collect()
}

#[test]
fn help_reads_like_a_manual_page() {
    let folder = folder();
    insta::assert_snapshot!("help", shown(folder.path(), &["--help"]));
    for command in
        ["demo", "run", "serve", "build", "inspect", "invoke", "prove", "check", "doctor"]
    {
        let name = format!("help_{command}");
        insta::assert_snapshot!(name, shown(folder.path(), &[command, "--help"]));
    }
}

#[test]
fn the_version_is_one_line() {
    let ended = midge(Path::new("/"), &["--version"]);
    let expected = format!("midge {}\n", env!("CARGO_PKG_VERSION"));
    assert_eq!((ended.code, ended.stdout), (Some(0), expected));
}

#[test]
fn build_says_what_it_made() {
    let folder = folder();
    let text = shown(folder.path(), &["build", "hello.wat"]);
    insta::assert_snapshot!("build", without_numbers(&text, &["artifact", "hello.midge"]));
    assert!(folder.path().join("hello.midge").exists());

    let ended = midge(folder.path(), &["build", "hello.wat", "-o", "other.midge", "--json"]);
    let report: Value = serde_json::from_str(&ended.stdout).unwrap();
    assert_eq!(report["schema"], "midge/build/1");
    assert_eq!(report["artifact"], "other.midge");
    assert_eq!(report["technique"], "restore");
    let bytes = folder.path().join("other.midge").metadata().unwrap().len();
    assert_eq!(report["bytes"], bytes);
    assert_eq!(
        keys(&report),
        ["artifact", "build_ms", "bytes", "reason", "schema", "source", "startup_log", "technique"]
    );
}

#[test]
fn prove_says_what_was_compared_or_what_differs() {
    let folder = folder();
    let pristine = ["prove", "hello.wat", "--rounds", "5", "--seed", "1"];
    insta::assert_snapshot!("prove", shown(folder.path(), &pristine));
    let differs = ["prove", "harm.wat", "--rounds", "9", "--seed", "1", "--technique", "reuse"];
    insta::assert_snapshot!("prove_differs", shown(folder.path(), &differs));

    let ended = midge(folder.path(), &[&differs[..], &["--json"]].concat());
    let report: Value = serde_json::from_str(&ended.stdout).unwrap();
    assert_eq!((&report["schema"], ended.code), (&"midge/prove/1".into(), Some(3)));
    assert_eq!(
        keys(&report),
        ["compared", "difference", "reason", "requests", "schema", "seed", "technique", "verdict"]
    );
}

#[test]
fn prove_refuses_a_bad_file_of_a_request() {
    let folder = folder();
    let requests = folder.path().join("requests");
    std::fs::create_dir(&requests).unwrap();
    let arguments = ["prove", "hello.wat", "--requests", "requests", "--rounds", "0"];
    insta::assert_snapshot!("error_prove_no_requests", shown(folder.path(), &arguments));
    std::fs::write(requests.join("1.http"), "GET / HTTP/1.1\nHost: x\n\n").unwrap();
    assert_eq!(midge(folder.path(), &arguments).code, Some(0));
    std::fs::write(requests.join("2.http"), "hello\r\n\r\n").unwrap();
    insta::assert_snapshot!("error_prove_bad_request", shown(folder.path(), &arguments));
}

#[test]
fn inspect_shows_module_and_artifact() {
    let folder = folder();
    insta::assert_snapshot!("inspect_module", shown(folder.path(), &["inspect", "harm.wat"]));
    assert_eq!(midge(folder.path(), &["build", "harm.wat"]).code, Some(0));
    let text = shown(folder.path(), &["inspect", "harm.midge"]);
    let text = without_numbers(&text, &["harm.midge", "manifest", "module", "image", "code"]);
    insta::assert_snapshot!("inspect_artifact", text);

    let ended = midge(folder.path(), &["inspect", "harm.midge", "--json"]);
    let report: Value = serde_json::from_str(&ended.stdout).unwrap();
    assert_eq!(report["schema"], "midge/inspect/1");
    assert_eq!(report["imports"], serde_json::json!(["midge.log"]));
    assert_eq!(report["chosen"], "restore");
}

#[test]
fn invoke_shows_the_response_and_the_phases() {
    let folder = folder();
    let text = shown(folder.path(), &["invoke", "hello.wat", "--technique", "restore"]);
    let starts =
        ["map", "register", "template", "slot", "enter", "guest", "restore", "total of a call"];
    let text = without_numbers(&text, &starts);
    let is_heading = |line: &str| line.starts_with("phase ");
    let lines = text.lines().map(|line| match is_heading(line) {
        true => "phase median ns p99 ns\n".to_owned(),
        false => format!("{line}\n"),
    });
    let text = lines.collect::<String>();
    insta::assert_snapshot!("invoke", text);
}

#[test]
fn invoke_sends_and_shows_what_stands_behind_a_body() {
    let folder = folder();
    let pass = midge_tests::guests::example("pass");
    std::fs::write(folder.path().join("pass.wasm"), pass).expect("the folder is writable");
    let given = ["--trailer", "X-Sum: 7", "--trailer", "empty:"];
    let arguments = [&["invoke", "pass.wasm", "--json", "--data", "hello"][..], &given].concat();
    let ended = midge(folder.path(), &arguments);
    assert_eq!((ended.code, ended.stderr.as_str()), (Some(0), ""));
    let report: Value = serde_json::from_str(&ended.stdout).unwrap();
    assert_eq!(report["response"]["body"], "hello");
    assert_eq!(report["response"]["trailers"], serde_json::json!([["x-sum", "7"], ["empty", ""]]));
    let told = [&arguments[..], &["--header", "content-length: 5"]].concat();
    let report: Value = serde_json::from_str(&midge(folder.path(), &told).stdout).unwrap();
    assert_eq!(report["response"]["trailers"], Value::Null, "it was not asked for");
}

#[test]
fn invoke_json_has_the_documented_schema() {
    let folder = folder();
    let arguments = ["invoke", "hello.wat", "--json", "--repeat", "20", "--technique", "restore"];
    let ended = midge(folder.path(), &arguments);
    assert_eq!((ended.code, ended.stderr.as_str()), (Some(0), ""));
    let report: Value = serde_json::from_str(&ended.stdout).unwrap();
    assert_eq!(
        keys(&report),
        ["dirty_pages", "phases_ns", "response", "schema", "technique", "tier", "total_ns"]
    );
    assert_eq!(report["schema"], "midge/invoke/1");
    assert_eq!(report["technique"], "restore");
    assert_eq!(report["tier"], "T3");
    assert!(report["dirty_pages"].is_u64());
    let response = &report["response"];
    assert_eq!(keys(response), ["body", "headers", "status"]);
    assert_eq!(response["status"], 200);
    assert_eq!(response["headers"], serde_json::json!([["content-type", "text/plain"]]));
    assert_eq!(response["body"], "hello\n");
    let phases = &report["phases_ns"];
    let mut expected = ["map", "register", "template", "slot", "enter", "guest", "restore"];
    expected.sort_unstable();
    assert_eq!(keys(phases), expected);
    for quantiles in expected.iter().map(|phase| &phases[phase]).chain([&report["total_ns"]]) {
        assert_eq!(keys(quantiles), ["median", "p99"]);
        let (median, p99) = (quantiles["median"].as_u64(), quantiles["p99"].as_u64());
        assert!(median.is_some() && median <= p99, "{quantiles}");
    }
}

#[test]
fn invoke_passes_method_path_headers_and_body() {
    let folder = folder();
    let ended = midge(folder.path(), &["invoke", "harm.wat", "--path", "/?c"]);
    assert_eq!(ended.code, Some(1));
    assert!(ended.stderr.contains("the function trapped"), "{}", ended.stderr);
    assert!(ended.stderr.contains("inner_failure"), "{}", ended.stderr);
    let ended = midge(folder.path(), &["invoke", "harm.wat", "--path", "/?i"]);
    assert_eq!((ended.code, ended.stderr.as_str()), (Some(0), "warn: one line of a guest\n"));
}

#[test]
fn check_shows_faults_with_their_places() {
    let folder = folder();
    insta::assert_snapshot!("check", shown(folder.path(), &["check"]));
    insta::assert_snapshot!("check_explain", shown(folder.path(), &["check", "--explain"]));
    insta::assert_snapshot!("check_faulty", shown(folder.path(), &["check", "faulty.toml"]));
    insta::assert_snapshot!(
        "check_faulty_json",
        shown(folder.path(), &["check", "faulty.toml", "--json"])
    );
}

#[test]
fn failures_say_what_and_what_next() {
    let folder = folder();
    for (name, arguments) in [
        ("build_missing", &["build", "missing.wat"][..]),
        ("build_component", &["build", "component.wasm"]),
        ("build_noise", &["build", "noise.wasm"]),
        ("build_text", &["build", "text.wat"]),
        ("inspect_missing", &["inspect", "missing.midge"]),
        ("invoke_unknown_technique", &["invoke", "hello.wat", "--technique", "magic"]),
        ("invoke_component", &["invoke", "component.wasm"]),
        ("run_missing", &["run", "missing.wasm"]),
        ("serve_missing", &["serve", "missing.toml"]),
        ("serve_faulty", &["serve", "faulty.toml"]),
        ("check_missing", &["check", "missing.toml"]),
        ("unknown_command", &["sirve"]),
        ("unknown_flag", &["serve", "--fast"]),
        ("no_command", &[]),
        ("repeat_zero", &["invoke", "hello.wat", "--repeat", "0"]),
        ("path_without_slash", &["invoke", "hello.wat", "--path", "x"]),
    ] {
        insta::assert_snapshot!(format!("error_{name}"), shown(folder.path(), arguments));
    }
}

#[test]
fn the_environment_wins_over_the_file_and_a_flag_over_both() {
    let folder = folder();
    let explained = |arguments: &[&str]| {
        let mut command = command(arguments);
        command.env("MIDGE_WORKERS", "2").current_dir(folder.path());
        let ended = Ended::from(command.output().unwrap());
        let line = ended.stdout.lines().find(|line| line.starts_with("workers "));
        line.unwrap().split_whitespace().map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(explained(&["check", "--explain"]), ["workers", "2", "MIDGE_WORKERS"]);
    let flag = explained(&["check", "--explain", "--workers", "3"]);
    assert_eq!(flag, ["workers", "3", "--workers"]);
}

#[test]
fn another_word_runs_the_program_of_that_name() {
    let folder = folder();
    let script = folder.path().join("midge-greet");
    std::fs::write(&script, "#!/bin/sh\necho \"hello $*\"\nexit 7\n").unwrap();
    std::fs::set_permissions(&script, std::fs::Permissions::from_mode(0o755)).unwrap();
    let mut command = command(["greet", "a", "--b"]);
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::iter::once(folder.path().to_owned()).chain(std::env::split_paths(&path));
    command.env("PATH", std::env::join_paths(folders).unwrap());
    let ended = Ended::from(command.output().unwrap());
    assert_eq!((ended.code, ended.stdout.as_str()), (Some(7), "hello a --b\n"));
}

#[test]
fn a_reader_that_has_left_is_no_failure() {
    let folder = folder();
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let mut command = command(["check", "--explain"]);
    let ended = command.current_dir(folder.path()).stdout(writer).output().unwrap();
    assert_eq!((ended.status.code(), ended.stderr.as_slice()), (Some(0), &b""[..]));
}

/// Returns an object's keys, sorted.
fn keys(object: &Value) -> Vec<&str> {
    let mut keys: Vec<_> =
        object.as_object().expect("an object").keys().map(String::as_str).collect();
    keys.sort_unstable();
    keys
}
