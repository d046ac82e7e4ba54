//! Modules that would keep a compiler busy for ever, or take all memory: refused within limits, by each command
//! that compiles, and by a host that goes on serving.

use std::process::{Child, Stdio};

use midge_tests::guests::HELLO;
use midge_tests::host::Setup;
use midge_tests::program::{Ended, command, midge};
use midge_tests::wait::{wait_for, wait_for_some};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

/// A sound guest that holds a function more.
fn with_function(body: &str) -> String {
    with(&format!("(func {body})"))
}

fn with(part: &str) -> String {
    let end = HELLO.rfind(')').expect("a module ends");
    format!("{} {part})", &HELLO[..end])
}

/// Minutes of work: the compiler's time grows with the square of the depth.
fn deep() -> String {
    const DEPTH: usize = 500_000;
    with_function(&("block ".repeat(DEPTH) + &"end ".repeat(DEPTH)))
}

/// Hundreds of megabytes: each element becomes an expression of its own.
fn wide() -> String {
    with(&format!("(func $f) (elem func {})", "$f ".repeat(500_000)))
}

/// Calls that pass a thousand values on: each call is a thousand loads and stores.
fn calls() -> String {
    const VALUES: usize = 1000;
    let types = "i32 ".repeat(VALUES);
    let all: String = (0..VALUES).map(|local| format!("local.get {local} ")).collect();
    let first = format!("(func $pass (param {types}) (result {types}) {all})");
    let chain =
        "i32.const 1 ".repeat(VALUES) + &"call $pass ".repeat(3000) + &"drop ".repeat(VALUES);
    with(&format!("{first} (func {chain})"))
}

/// Values that meet at the heads of many loops.
fn phis() -> String {
    const LOOPS: usize = 3_000;
    let set =
        (0..LOOPS).map(|local| format!("local.get {local} local.set {} ", (local + 1) % LOOPS));
    let body = "loop ".repeat(LOOPS) + &set.collect::<String>();
    let ends = "local.get 0 br_if 0 end ".repeat(LOOPS);
    with_function(&format!("(local {}) {body} {ends}", "i32 ".repeat(LOOPS)))
}

fn folder(bomb: &str) -> TempDir {
    let folder = tempfile::tempdir().expect("a temporary folder");
    std::fs::write(folder.path().join("bomb.wat"), bomb).expect("the folder takes files");
    folder
}

const LEAST_TIME: [&str; 2] = ["--build-time", "1s"];
const LEAST_MEMORY: [&str; 2] = ["--build-memory", "64 MiB"];

#[track_caller]
fn check_refused(ended: &Ended, limit: &str, flag: &str) {
    assert_eq!((ended.code, ended.stdout.as_str()), (Some(1), ""), "{}", ended.stderr);
    let lines: Vec<_> = ended.stderr.lines().collect();
    let [what, next] = lines[..] else { panic!("two lines: {}", ended.stderr) };
    assert!(what.contains("cannot build `bomb.wat`: compiling it takes "), "{what}");
    assert!(what.ends_with(limit), "{limit}: {what}");
    assert!(next.starts_with("next: ") && next.contains(flag), "{next}");
}

#[test]
fn a_module_that_takes_too_long_is_refused() {
    for bomb in [deep(), calls(), phis()] {
        let folder = folder(&bomb);
        let ended =
            midge(folder.path(), &["build", "bomb.wat", "--build-time", "1s", "-o", "out.midge"]);
        check_refused(&ended, "longer than 1s, the limit `build.time`", "--build-time");
        assert!(!folder.path().join("out.midge").exists());
    }
}

#[test]
fn a_module_that_takes_too_much_memory_is_refused() {
    let folder = folder(&wide());
    let ended = midge(folder.path(), &[&["build", "bomb.wat"][..], &LEAST_MEMORY].concat());
    check_refused(&ended, "more than 64 MiB of memory, the limit `build.memory`", "--build-memory");
}

#[test]
fn a_sound_module_needs_no_more_than_the_least_limits() {
    let folder = folder(HELLO);
    let limits = [LEAST_MEMORY, ["--build-time", "1m"]].concat();
    let ended = midge(folder.path(), &[&["build", "bomb.wat"][..], &limits].concat());
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
}

#[test]
fn each_command_that_compiles_has_the_limits() {
    let folder = folder(&deep());
    let addresses = ["--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"];
    for arguments in [
        [&["inspect", "bomb.wat"][..], &LEAST_TIME].concat(),
        [&["invoke", "bomb.wat"][..], &LEAST_TIME].concat(),
        [&["run", "bomb.wat", "--log-level", "off"][..], &addresses, &LEAST_TIME].concat(),
    ] {
        let ended = midge(folder.path(), &arguments);
        check_refused(&ended, "the limit `build.time`", "--build-time");
    }
}

#[test]
fn limits_outside_their_bounds_are_wrong_usage() {
    let folder = folder(HELLO);
    for (flag, value, bounds) in [
        ("--build-time", "0s", "expected 1s to 1h"),
        ("--build-time", "2h", "expected 1s to 1h"),
        ("--build-memory", "1 MiB", "expected 64 MiB to 64 GiB"),
        ("--build-memory", "much", "does not start with a whole number"),
    ] {
        let ended = midge(folder.path(), &["build", "bomb.wat", flag, value]);
        assert_eq!(ended.code, Some(2), "{flag} {value}");
        assert!(ended.stderr.contains(bounds), "{}", ended.stderr);
    }
}

#[test]
fn a_host_that_reads_a_bomb_goes_on_serving_what_it_had() {
    let limits = "[build]\ntime = \"2s\"\n";
    let function = |file: &str| {
        format!("{limits}[[function]]\nname = \"f\"\nmodule = \"{file}\"\nroute = \"/*\"\n")
    };
    let setup = Setup::new().file("hello.wat", HELLO).file("bomb.wat", deep());
    let host = setup.serve(&function("hello.wat"));
    host.write_settings(&function("bomb.wat"));
    host.signal(Signal::HUP);
    let mut client = host.client();
    let mut answers = 0;
    while !host.log().contains("everything stays as it was") {
        assert_eq!(client.get("/").text(), "hello\n");
        answers += 1;
    }
    let line = host.wait_for_line(&["everything stays as it was"]);
    assert!(line.contains("takes longer than 2s, the limit `build.time`"), "{line}");
    assert!(10 <= answers, "{answers} answers while the bomb was being compiled");
    assert_eq!(host.client().get("/").text(), "hello\n");
}

/// Starts a build that takes long, and waits for its child.
fn long_build(folder: &TempDir) -> (Child, Pid) {
    let mut command = command(["build", "bomb.wat"]);
    command.current_dir(folder.path()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let build = command.spawn().expect("midge can be run");
    let path = format!("/proc/{0}/task/{0}/children", build.id());
    let child = wait_for_some("the compiler is started", || {
        let children = std::fs::read_to_string(&path).ok()?;
        Pid::from_raw(children.split_whitespace().next()?.parse().ok()?)
    });
    (build, child)
}

/// True if the process runs this program as a compiler: its id may be another's by now.
fn compiles(process: Pid) -> bool {
    let path = format!("/proc/{}/cmdline", process.as_raw_nonzero());
    std::fs::read_to_string(path).is_ok_and(|line| line.contains("compile-child"))
}

#[test]
fn no_compiler_outlives_its_parent() {
    let folder = folder(&deep());
    let (mut build, compiler) = long_build(&folder);
    wait_for("it is the compiler", || compiles(compiler));
    // What dies with its parent has asked for it, which it does first of all: it reads the module after that.
    wait_for("it has bounded itself", || is_bounded(compiler));
    build.kill().unwrap();
    build.wait().unwrap();
    wait_for("the compiler is gone", || !compiles(compiler));
}

fn is_bounded(process: Pid) -> bool {
    let path = format!("/proc/{}/limits", process.as_raw_nonzero());
    let limits = std::fs::read_to_string(path).unwrap_or_default();
    let data = limits.lines().find(|line| line.starts_with("Max data size"));
    data.is_some_and(|line| !line.contains("unlimited"))
}

#[test]
fn a_compiler_that_dies_is_told_in_two_lines() {
    let folder = folder(&deep());
    let (build, compiler) = long_build(&folder);
    wait_for("it is the compiler", || compiles(compiler));
    kill_process(compiler, Signal::KILL).unwrap();
    let ended = Ended::from(build.wait_with_output().unwrap());
    assert_eq!(ended.code, Some(1));
    assert!(ended.stderr.contains("the compiler ended without an answer (signal: 9"), "{ended:?}");
    assert!(ended.stderr.contains("\nnext: do not serve this module"), "{ended:?}");
}

#[test]
fn names_of_a_module_do_not_steer_the_terminal() {
    let import = "(func (import \"\\1b[2Jenv\" \"\\07bell\"))";
    let steering = HELLO.replacen("(module", &format!("(module {import}"), 1);
    let folder = folder(&steering);
    for verb in ["build", "inspect", "invoke"] {
        let ended = midge(folder.path(), &[verb, "bomb.wat"]);
        assert_eq!(ended.code, Some(1));
        assert!(ended.stderr.contains("`\\u{1b}[2Jenv.\\u{7}bell`"), "{}", ended.stderr);
        assert!(!ended.stderr.contains(['\x1b', '\x07']), "{}", ended.stderr);
    }
    let folder = self::folder(&with("(global (export \"\\1b[2J\") (mut i32) (i32.const 0))"));
    let ended = midge(folder.path(), &["inspect", "bomb.wat"]);
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    assert!(ended.stdout.contains("\\u{1b}[2J") && !ended.stdout.contains('\x1b'));
}
