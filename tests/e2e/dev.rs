//! `midge new` and `midge dev`: from nothing to a function that is served, and served again with each change.

mod toolchain; // what builds a language here, or why nothing does

use std::time::Duration;

use midge_tests::guests::HELLO;
use midge_tests::host::Setup;
use midge_tests::program::midge;
use midge_tests::skip;
use midge_tests::wait::{wait_for, wait_for_some};

const LANGUAGES: [&str; 7] = ["rust", "c", "zig", "go", "js", "python", "assemblyscript"];
/// For a first build: compilers are fetched, and this unoptimised host compiles runtimes of tens of megabytes.
const BUILD_PATIENCE: Duration = Duration::from_secs(600);
/// A function that says something in two lines and traps in an inner function.
const TRAPPING: &str = r#"(module
  (import "midge" "log" (func $log (param i32 i32 i32)))
  (memory (export "memory") 2)
  (data (i32.const 64) "MDGE\01\00\00\00\00\00\01\00\00\00\01\00")
  (data (i32.const 128) "panicked at src/lib.rs:7:5:\0athe price is \1bmissing")
  (func $_ZN4shop5price17h0123456789abcdefE (result i32)
    (call $log (i32.const 1) (i32.const 128) (i32.const 49))
    unreachable)
  (func (export "midge_contract") (result i32) (i32.const 64))
  (func $midge_handle (export "midge_handle") (param i32 i32) (result i32)
    (call $_ZN4shop5price17h0123456789abcdefE)))"#;
/// Settings, with a route that a test can change.
const SETTINGS: &str = "[[function]]\nname = \"hello\"\nmodule = \"made.wat\"\nroute = \"/*\"\n";

#[test]
fn a_new_folder_has_settings_that_serve_its_module() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    for language in LANGUAGES {
        let name = format!("my-{language}");
        let new = ["new", "--lang", language, &name];
        let made = midge(folder.path(), &new);
        assert_eq!(made.code, Some(0), "{made:?}");
        let made = folder.path().join(&name);
        let makefile = std::fs::read_to_string(made.join("Makefile")).expect("it has a Makefile");
        assert!(makefile.contains(&format!("{name}.wasm:")), "{makefile}");
        for file in std::fs::read_dir(&made).expect("it is a folder") {
            let path = file.expect("it can be listed").path();
            let is_ours = path.ends_with("midge.h");
            if path.is_file() && !is_ours {
                let text = std::fs::read_to_string(&path).expect("it is text");
                assert!(!text.contains("NAME"), "{}: every place is filled", path.display());
            }
        }
        std::fs::write(made.join(format!("{name}.wasm")), HELLO).expect("it can be written");
        let checked = midge(&made, &["check"]);
        assert_eq!(checked.code, Some(0), "{checked:?}");
        let again = midge(folder.path(), &new);
        assert_eq!(again.code, Some(1), "what is there is not overwritten");
    }
}

#[test]
fn a_change_is_built_and_served_and_a_broken_one_is_not() {
    let host = Setup::new()
        .file("source.wat", HELLO)
        .file("midge.toml", SETTINGS)
        .argument("--build")
        .argument("! grep -q nonsense source.wat && cp source.wat made.wat")
        .dev();
    let mut client = host.client();
    assert_eq!(client.get("/").text(), "hello\n");
    let write = |text: &str| {
        std::fs::write(host.folder().join("source.wat"), text).expect("the folder is there");
    };
    write(&HELLO.replace("hello\\0a", "other\\0a"));
    wait_for("the change is served", || client.get("/").text() == "other\n");
    write("nonsense");
    wait_for("the failure is told", || host.log().contains("serving what was there before"));
    assert_eq!(client.get("/").text(), "other\n");
    write(HELLO);
    wait_for("the mended one is served", || client.get("/").text() == "hello\n");
}

/// A person reads this log: a panic's message and a trap's functions stand on lines of their own.
#[test]
fn panics_and_traps_are_told_in_lines() {
    let host = Setup::new()
        .file("made.wat", TRAPPING)
        .file("midge.toml", SETTINGS)
        .argument("--build")
        .argument("true")
        .dev();
    assert_eq!(host.client().get("/").status, 502);
    let said = "error hello: panicked at src/lib.rs:7:5: request=";
    let trapped = "trap hello: wasm trap: wasm `unreachable` instruction executed request=";
    let lines_behind = |what: &str| {
        let log = wait_for_some(what, || {
            let log = host.log();
            log.lines().skip_while(|line| !line.contains(what)).nth(1)?;
            Some(log)
        });
        let lines = log.lines().skip_while(|line| !line.contains(what)).skip(1);
        lines.take_while(|line| line.starts_with("    ")).map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(lines_behind(said), ["    the price is \\u{1b}missing"]);
    assert_eq!(lines_behind(trapped), ["    in shop::price", "    in midge_handle"]);
    let log = host.log();
    assert!(log.find(said) < log.find(trapped), "in the order in which it happened: {log}");
}

/// A compiler's own DWARF, and a change that moves the lines.
#[test]
fn traps_tell_the_lines_of_what_is_there_now() {
    let environment = match toolchain::of("c") {
        Ok(environment) => environment,
        Err(reason) => return skip(&format!("lines of C: {reason}")),
    };
    let source = include_str!("../guests/lines/contract.c");
    let host = Setup::new()
        .environment(environment)
        .file("guest.c", source)
        .file("midge.h", include_str!("../../abi/include/midge.h"))
        .file("midge.toml", SETTINGS.replace("made.wat", "made.wasm"))
        .argument("--build")
        .argument(
            "$CLANG --target=wasm32-unknown-unknown -std=c99 -O2 -g -ffreestanding -nostdlib -mbulk-memory \
             -Wl,--no-entry -Wl,--stack-first -Wl,-z,stack-size=9216 -o made.wasm guest.c",
        )
        .dev();
    let mut client = host.client();
    let told = |first: u32| {
        let line = |name: &str, line: u32, column: u32| {
            format!("\n    in {name} at guest.c:{}:{column}", first + line)
        };
        [
            line("half", 4, 18),
            line("price", 9, 12),
            line("handle", 15, 9),
            line("midge_handle", 19, 1),
        ]
        .concat()
    };
    assert_eq!(client.get("/").status, 502);
    wait_for("lines are told", || host.log().contains(&told(1)));
    std::fs::write(host.folder().join("guest.c"), format!("\n\n{source}"))
        .expect("the folder is there");
    wait_for("the lines of the change are told", || {
        assert_eq!(client.get("/").status, 502);
        host.log().contains(&told(3))
    });
}

/// From `midge new` to an answer, by the one command that the manual shows.
fn a_template_is_built_and_served(language: &str) {
    let wanted = std::env::var_os("MIDGE_TEMPLATES").unwrap_or_default();
    let is_wanted = wanted.to_string_lossy().split(' ').any(|wanted| wanted == language);
    // A registry that is slow or gone is no fault of a change's.
    if toolchain::is_fetched(language) && !is_wanted {
        let reason = "it fetches its compiler; MIDGE_TEMPLATES=LANGUAGE runs it";
        return skip(&format!("the template in {language}: {reason}"));
    }
    let environment = match toolchain::of(language) {
        Ok(environment) => environment,
        Err(reason) => {
            assert!(!is_wanted, "MIDGE_TEMPLATES wants {language}, and {reason}");
            return skip(&format!("the template in {language}: {reason}"));
        }
    };
    let setup = Setup::new().environment(environment).patience(BUILD_PATIENCE);
    let name = format!("my-{language}");
    let made = midge(setup.folder(), &["new", "--lang", language, &name]);
    assert_eq!(made.code, Some(0), "{made:?}");
    let host = setup.dev_in(&name);
    let mut client = host.client();
    for target in ["/", "/a/b?c=d"] {
        let answer = client.get(target);
        let expected = (200, format!("hello from {target}\n"));
        assert_eq!((answer.status, answer.text().to_owned()), expected, "{language}");
        let kind = answer.header("content-type").expect("it has a type");
        assert!(kind.starts_with("text/plain"), "{language}: {kind}");
    }
}

#[test]
fn the_template_in_rust_is_built_and_served() {
    a_template_is_built_and_served("rust");
}

#[test]
fn the_template_in_c_is_built_and_served() {
    a_template_is_built_and_served("c");
}

#[test]
fn the_template_in_zig_is_built_and_served() {
    a_template_is_built_and_served("zig");
}

#[test]
fn the_template_in_go_is_built_and_served() {
    a_template_is_built_and_served("go");
}

#[test]
fn the_template_in_javascript_is_built_and_served() {
    a_template_is_built_and_served("js");
}

#[test]
fn the_template_in_python_is_built_and_served() {
    a_template_is_built_and_served("python");
}

#[test]
fn the_template_in_assemblyscript_is_built_and_served() {
    a_template_is_built_and_served("assemblyscript");
}
