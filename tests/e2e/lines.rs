//! Lines of the source in traps: in artifacts that were built with them, and by `midge run` and `midge invoke`.
//!
//! The guests are compiled from `tests/guests/lines`, with DWARF (`fuzz/README.md`). `midge dev` has its own test,
//! with a compiler (`dev.rs`).

use midge_tests::guests::HELLO;
use midge_tests::host::{Host, Setup};
use midge_tests::program::midge;
use midge_tests::wait::wait_for_some;

const CONTRACT: &[u8] = include_bytes!("../../fuzz/corpus/lines/seed-contract");
const PROGRAM: &[u8] = include_bytes!("../../fuzz/corpus/lines/seed-program");
const IN_LINES: &str = "integer divide by zero in half at contract.c:5:18 < price at contract.c:10:12 < handle \
                        at contract.c:16:9 < midge_handle at contract.c:20:1 request=";

/// Makes a request, and returns what the log says of its trap.
fn trapped(host: &Host) -> String {
    assert_eq!(host.client().get("/").status, 502);
    wait_for_some("the trap is told", || {
        host.log().lines().find(|line| line.contains("wasm trap")).map(str::to_owned)
    })
}

#[test]
fn an_artifact_with_lines_tells_them_wherever_it_is_served() {
    let setup = Setup::new().file("guest.wasm", CONTRACT);
    let built = midge(setup.folder(), &["build", "--lines", "guest.wasm"]);
    assert_eq!(built.code, Some(0), "{built:?}");
    let line = trapped(&setup.function("guest.midge"));
    assert!(line.contains(IN_LINES), "{line}");
}

#[test]
fn run_tells_lines_if_it_is_asked_to() {
    let host = Setup::new().file("guest.wasm", CONTRACT).argument("--lines").run("guest.wasm");
    let line = trapped(&host);
    assert!(line.contains(IN_LINES), "{line}");
    let line = trapped(&Setup::new().file("guest.wasm", CONTRACT).run("guest.wasm"));
    assert!(line.contains("integer divide by zero in price < midge_handle request="), "{line}");
}

#[test]
fn invoke_tells_lines_of_a_program_in_every_form_of_code() {
    let setup = Setup::new().file("guest.wasm", PROGRAM);
    let expected = "integer divide by zero\n  in divided at program.c:5:18\n  in share at program.c:9:12\n  \
                    in start at program.c:16:13\n";
    for form in
        [&[][..], &["--technique", "cow"], &["--isolation", "bounds-checked", "--metering", "fuel"]]
    {
        let arguments = [&["invoke", "--lines", "guest.wasm"], form].concat();
        let ended = midge(setup.folder(), &arguments);
        assert_eq!(ended.code, Some(1), "{ended:?}");
        assert!(ended.stderr.contains(expected), "{}", ended.stderr);
    }
}

#[test]
fn a_build_says_why_there_are_no_lines() {
    let setup = Setup::new().file("hello.wat", HELLO).file("guest.wasm", CONTRACT);
    let built = midge(setup.folder(), &["build", "--lines", "hello.wat"]);
    assert_eq!(built.code, Some(0), "{built:?}");
    assert!(built.stdout.contains("no lines: the module has no DWARF"), "{}", built.stdout);
    let object = |file| -> serde_json::Value {
        let built = midge(setup.folder(), &["build", "--json", "--lines", file]);
        serde_json::from_str(&built.stdout).expect("one JSON object")
    };
    assert!(object("hello.wat")["no_lines"].as_str().is_some_and(|reason| reason.contains("-g")));
    assert_eq!(object("guest.wasm").get("no_lines"), None);
}
