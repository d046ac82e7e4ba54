//! Components and programs of WASI, linked into core modules: what they get, and what becomes of those that break
//! the rules of the canonical ABI.
//!
//! The guests are core modules with the names that tools make components of (`link.rs`), in text form. Each runs
//! twice: what the first call did must not be seen by the second. And it is made a component and run by the engine's
//! own runtime, which must come to the same end.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use midge_abi::imports::Level;
use midge_loader::artifact::Artifact;
use midge_loader::build::{BuildError, build, build_unlinked};
use midge_loader::context::Services;
use midge_loader::embed::{EmbedError, Embedded, Limits, Output};
use midge_loader::engine::Engines;
use midge_loader::link::attach;
use midge_loader::start::Technique;
use midge_wasi::pack;

#[path = "wit/guests.rs"]
mod guests;
use guests::handler;

/// What every guest has: the imports that these tests use, a stack of memory, a bump allocator, and helpers.
const PRELUDE: &str = r#"
  (import "wasi:http/types@0.2.12" "[constructor]fields" (func $fields (result i32)))
  (import "wasi:http/types@0.2.12" "[method]fields.append" (func $append (param i32 i32 i32 i32 i32 i32)))
  (import "wasi:http/types@0.2.12" "[method]fields.set" (func $fset (param i32 i32 i32 i32 i32 i32)))
  (import "wasi:http/types@0.2.12" "[method]fields.get" (func $get (param i32 i32 i32 i32)))
  (import "wasi:http/types@0.2.12" "[method]fields.entries" (func $entries (param i32 i32)))
  (import "wasi:http/types@0.2.12" "[resource-drop]fields" (func $drop_fields (param i32)))
  (import "wasi:http/types@0.2.12" "[method]incoming-request.headers" (func $headers (param i32) (result i32)))
  (import "wasi:http/types@0.2.12" "[method]incoming-request.path-with-query" (func $path (param i32 i32)))
  (import "wasi:http/types@0.2.12" "[method]incoming-request.consume" (func $consume (param i32 i32)))
  (import "wasi:http/types@0.2.12" "[resource-drop]incoming-request" (func $drop_request (param i32)))
  (import "wasi:http/types@0.2.12" "[method]incoming-body.stream" (func $in_stream (param i32 i32)))
  (import "wasi:http/types@0.2.12" "[static]incoming-body.finish" (func $in_finish (param i32) (result i32)))
  (import "wasi:http/types@0.2.12" "[constructor]outgoing-response" (func $resp (param i32) (result i32)))
  (import "wasi:http/types@0.2.12" "[method]outgoing-response.set-status-code" (func $status (param i32 i32) (result i32)))
  (import "wasi:http/types@0.2.12" "[method]outgoing-response.body" (func $body (param i32 i32)))
  (import "wasi:http/types@0.2.12" "[method]outgoing-body.write" (func $write (param i32 i32)))
  (import "wasi:http/types@0.2.12" "[static]outgoing-body.finish" (func $finish (param i32 i32 i32 i32)))
  (import "wasi:http/types@0.2.12" "[resource-drop]outgoing-body" (func $drop_body (param i32)))
  (import "wasi:http/types@0.2.12" "[static]response-outparam.set"
    (func $set (param i32 i32 i32 i32 i64 i32 i32 i32 i32)))
  (import "wasi:http/types@0.2.12" "[resource-drop]response-outparam" (func $drop_outparam (param i32)))
  (import "wasi:io/streams@0.2.12" "[method]output-stream.blocking-write-and-flush"
    (func $out (param i32 i32 i32 i32)))
  (import "wasi:io/streams@0.2.12" "[method]output-stream.check-write" (func $check (param i32 i32)))
  (import "wasi:io/streams@0.2.12" "[method]output-stream.subscribe" (func $out_sub (param i32) (result i32)))
  (import "wasi:io/streams@0.2.12" "[resource-drop]output-stream" (func $drop_out (param i32)))
  (import "wasi:io/streams@0.2.12" "[method]input-stream.blocking-read" (func $in (param i32 i64 i32)))
  (import "wasi:io/streams@0.2.12" "[resource-drop]input-stream" (func $drop_in (param i32)))
  (import "wasi:io/poll@0.2.12" "poll" (func $poll (param i32 i32 i32)))
  (import "wasi:io/poll@0.2.12" "[resource-drop]pollable" (func $drop_poll (param i32)))
  (import "wasi:clocks/monotonic-clock@0.2.12" "now" (func $now (result i64)))
  (import "wasi:clocks/monotonic-clock@0.2.12" "subscribe-duration" (func $after (param i64) (result i32)))
  (import "wasi:random/random@0.2.12" "get-random-u64" (func $random (result i64)))
  (import "wasi:random/random@0.2.12" "get-random-bytes" (func $random_bytes (param i64 i32)))
  (import "wasi:cli/stdout@0.2.12" "get-stdout" (func $stdout (result i32)))
  (import "wasi:cli/exit@0.2.12" "exit" (func $exit (param i32)))
  (import "wasi:filesystem/types@0.2.12" "[method]descriptor.stat" (func $fstat (param i32 i32)))
  (import "wasi:sockets/instance-network@0.2.12" "instance-network" (func $network (result i32)))
  (memory (export "memory") 2)
  (global $heap (mut i32) (i32.const 65536))
  (global $lie (mut i32) (i32.const 0))
  (global $calls (mut i32) (i32.const 0))
  (data (i32.const 1024) "hello")
  (data (i32.const 1040) "x-name")
  (data (i32.const 1056) "value")
  (data (i32.const 1072) "content-length")
  (data (i32.const 1088) "a\r\nb: c")
  (data (i32.const 1104) "\ff\fe")
  (data (i32.const 1120) "connection")
  (data (i32.const 1136) "5")
  ;; What it returns is moved by $lie.
  (func $realloc (export "cabi_realloc") (param i32 i32 i32 i32) (result i32) (local $at i32)
    (local.set $at (i32.and (i32.add (global.get $heap) (i32.const 15)) (i32.const -16)))
    (global.set $heap (i32.add (local.get $at) (local.get 3)))
    (if (i32.eq (global.get $lie) (i32.const 99)) (then (drop (call $fields))))
    (i32.add (local.get $at) (global.get $lie)))
  ;; Begins a response: its body's handle is at 0, its stream's at 4, itself at 8.
  (func $begin (param $fields i32)
    (i32.store (i32.const 8) (call $resp (local.get $fields)))
    (call $body (i32.load (i32.const 8)) (i32.const 16))
    (if (i32.load8_u (i32.const 16)) (then unreachable))
    (i32.store (i32.const 0) (i32.load (i32.const 20)))
    (call $write (i32.load (i32.const 0)) (i32.const 16))
    (if (i32.load8_u (i32.const 16)) (then unreachable))
    (i32.store (i32.const 4) (i32.load (i32.const 20))))
  (func $answer (param $out i32)
    (call $set (local.get $out) (i32.const 0) (i32.load (i32.const 8))
      (i32.const 0) (i64.const 0) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0)))
  ;; Returns 0, or 1 for an error.
  (func $say (param $at i32) (param $size i32) (result i32)
    (call $out (i32.load (i32.const 4)) (local.get $at) (local.get $size) (i32.const 16))
    (i32.load8_u (i32.const 16)))
  (func $end (result i32)
    (call $drop_out (i32.load (i32.const 4)))
    (call $finish (i32.load (i32.const 0)) (i32.const 0) (i32.const 0) (i32.const 64))
    (i32.load8_u (i32.const 64)))
  ;; Answers with five bytes.
  (func $hello (param $out i32)
    (call $begin (call $fields))
    (call $answer (local.get $out))
    (drop (call $say (i32.const 1024) (i32.const 5)))
    (drop (call $end)))
"#;

const HANDLE: &str = "wasi:http/incoming-handler@0.2.12#handle";

fn guest(code: &str) -> String {
    format!(
        "(module {PRELUDE} (func (export \"{HANDLE}\") (param $request i32) (param $out i32) {code}))"
    )
}

/// A clock that goes, chance for each request, and a log that is kept.
struct Kept {
    lines: Mutex<Vec<String>>,
    began: Instant,
}

impl Services for Kept {
    fn log(&self, _: &[u8; 16], level: Level, line: &[u8]) {
        let line = format!("{}: {}", level.name(), String::from_utf8_lossy(line));
        self.lines.lock().unwrap_or_else(std::sync::PoisonError::into_inner).push(line);
    }

    fn wall_ns(&self) -> u64 {
        1_700_000_000_000_000_000
    }

    fn monotonic_ns(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_nanos()).expect("a test is short")
    }

    fn seed(&self, request_id: &[u8; 16]) -> [u8; 32] {
        let mut seed = [7; 32];
        seed[..16].copy_from_slice(request_id);
        seed
    }
}

struct Guest {
    embedded: Embedded,
    services: Arc<Kept>,
}

impl Guest {
    fn of(module: &str) -> Self {
        Self::try_of(module).expect("the guest is linked")
    }

    fn try_of(module: &str) -> Result<Self, BuildError> {
        Self::try_of_bytes(module.as_bytes())
    }

    fn try_of_bytes(module: &[u8]) -> Result<Self, BuildError> {
        let engines = Arc::new(Engines::new());
        let built = build("guest.wat", module, &engines)?;
        let artifact = Artifact::from_bytes(&built.bytes, &engines).expect("just built");
        let guest = Self::of_artifact(&artifact, &engines);
        assert_eq!(guest.embedded.technique(), Technique::Restore);
        Ok(guest)
    }

    fn of_artifact(artifact: &Arc<Artifact>, engines: &Arc<Engines>) -> Self {
        let services = Arc::new(Kept { lines: Mutex::default(), began: Instant::now() });
        let limits = Limits { deadline: Duration::from_millis(200), ..Limits::default() };
        let embedded = Embedded::of_artifact(artifact, engines, Arc::clone(&services) as _, limits);
        Self { embedded: embedded.expect("an instance can be had"), services }
    }

    /// The same guest as a component, run by the engine's own runtime.
    fn unlinked(module: &str) -> Self {
        let engines = Arc::new(Engines::new());
        let built = build_unlinked("guest.wasm", &handler(module), &engines);
        let artifact = Artifact::from_bytes(&built.expect("the engine runs it").bytes, &engines);
        Self::of_artifact(&artifact.expect("just built"), &engines)
    }

    fn call(&mut self, body: &[u8]) -> Result<Output, EmbedError> {
        self.embedded.call(body)
    }

    fn log(&self) -> String {
        let mut lines =
            self.services.lines.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        std::mem::take(&mut *lines).join("\n")
    }
}

/// Runs code twice, and returns what both calls gave.
fn text(code: &str, body: &[u8]) -> String {
    let call_of = |guest: &mut Guest| {
        let output = guest.call(body).unwrap_or_else(|error| panic!("{error:?}\n{code}"));
        format!("{} {}", output.status, String::from_utf8_lossy(&output.body))
    };
    let mut linked = Guest::of(&guest(code));
    let (first, second) = (call_of(&mut linked), call_of(&mut linked));
    assert_eq!(first, second, "the second call sees nothing of the first");
    let unlinked = call_of(&mut Guest::unlinked(&self::guest(code)));
    assert_eq!(unlinked, first, "the engine's runtime comes to the same end: {code}");
    first
}

/// Runs code twice, which traps both times, and returns what the log says.
fn trap(code: &str) -> String {
    let mut guest = Guest::of(&guest(code));
    let mut call = || {
        let error = guest.call(b"body").expect_err(code);
        assert!(matches!(error, EmbedError::Trapped(_)), "{error:?}\n{code}");
        guest.log()
    };
    let (first, second) = (call(), call());
    assert_eq!(first, second, "the second call sees nothing of the first");
    let unlinked = Guest::unlinked(&self::guest(code)).call(b"body");
    assert!(matches!(unlinked, Err(EmbedError::Trapped(_))), "{unlinked:?}\n{code}");
    first
}

/// Runs code twice, which fails with a message both times.
fn failure(code: &str) -> String {
    let mut guest = Guest::of(&guest(code));
    let mut call = || match guest.call(b"body") {
        Err(EmbedError::Failed(message)) => message,
        other => panic!("{other:?}\n{code}"),
    };
    let (first, second) = (call(), call());
    assert_eq!(first, second);
    let unlinked = Guest::unlinked(&self::guest(code)).call(b"body");
    assert!(matches!(unlinked, Err(EmbedError::Failed(_))), "{unlinked:?}\n{code}");
    first
}

#[test]
fn a_handler_answers() {
    assert_eq!(text("(call $hello (local.get $out))", b""), "200 hello");
    let with_status = "(call $begin (call $fields)) (drop (call $status (i32.load (i32.const 8)) (i32.const 404)))
        (call $answer (local.get $out)) (drop (call $say (i32.const 1024) (i32.const 5))) (drop (call $end))";
    assert_eq!(text(with_status, b""), "404 hello");
    let without_body = "(call $set (local.get $out) (i32.const 0) (call $resp (call $fields))
        (i32.const 0) (i64.const 0) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0))";
    assert_eq!(text(without_body, b""), "200 ");
}

/// Sends the body back in pieces of `size`.
fn echo(size: u32) -> String {
    format!(
        "(local $in i32)
         (call $begin (call $fields)) (call $answer (local.get $out))
         (call $consume (local.get $request) (i32.const 32))
         (call $in_stream (i32.load (i32.const 36)) (i32.const 40))
         (local.set $in (i32.load (i32.const 44)))
         (block $done (loop $more
           (global.set $heap (i32.const 65536))
           (call $in (local.get $in) (i64.const {size}) (i32.const 48))
           (br_if $done (i32.load8_u (i32.const 48)))
           (br_if $done (call $say (i32.load (i32.const 52)) (i32.load (i32.const 56))))
           (br $more)))
         (call $drop_in (local.get $in))
         (drop (call $in_finish (i32.load (i32.const 36))))
         (drop (call $end))"
    )
}

#[test]
fn bodies_of_any_size_pass() {
    for size in [1, 5, 1000, 70_000, 200_000] {
        let body: Vec<u8> = (0..size).map(|place| u8::try_from(place % 251).unwrap()).collect();
        for piece in [if size < 2000 { 1 } else { 1000 }, 16_384, 60_000] {
            let module = guest(&echo(piece));
            let mut guests = vec![Guest::of(&module)];
            // The engine's crates take no more at once (wasi:io, `blocking-write-and-flush`).
            guests.extend((piece <= 4096).then(|| Guest::unlinked(&module)));
            for mut guest in guests {
                for _ in 0..2 {
                    let output = guest.call(&body).unwrap();
                    assert_eq!(output.body.len(), body.len(), "{size} in pieces of {piece}");
                    assert_eq!(output.body, body);
                }
            }
        }
    }
}

#[test]
fn headers_follow_their_rules() {
    // The codes that `append` gives, as digits: 0 for success, else 1 + header-error.
    let code = |name: (u32, u32), value: (u32, u32)| {
        let code = format!(
            "(local $fields i32) (local.set $fields (call $fields))
             (call $append (local.get $fields) (i32.const {}) (i32.const {}) (i32.const {}) (i32.const {})
               (i32.const 128))
             (i32.store8 (i32.const 1024) (i32.add (i32.const 48) (i32.load8_u (i32.const 128))))
             (i32.store8 (i32.const 1025) (i32.add (i32.const 48) (i32.load8_u (i32.const 129))))
             (call $begin (local.get $fields)) (call $answer (local.get $out))
             (drop (call $say (i32.const 1024) (i32.const 2))) (drop (call $end))",
            name.0, name.1, value.0, value.1
        );
        text(&code, b"")
    };
    let value = (1056, 5);
    assert_eq!(code((1040, 6), value), "200 00");
    assert_eq!(code((1088, 4), value), "200 10", "a name with CR LF is no name");
    assert_eq!(code((1040, 0), value), "200 10", "an empty name");
    assert_eq!(code((1040, 6), (1088, 7)), "200 10", "a value with CR LF would be two headers");
    assert_eq!(code((1120, 10), value), "200 11", "connection is the host's");
    assert_eq!(code((1072, 14), value), "200 10", "a length that is no number");
    let immutable = "(local $fields i32) (local.set $fields (call $headers (local.get $request)))
        (call $append (local.get $fields) (i32.const 1040) (i32.const 6) (i32.const 1056) (i32.const 5)
          (i32.const 128))
        (i32.store8 (i32.const 1024) (i32.add (i32.const 48) (i32.load8_u (i32.const 129))))
        (call $begin (call $fields)) (call $answer (local.get $out))
        (drop (call $say (i32.const 1024) (i32.const 1))) (drop (call $end))";
    assert_eq!(text(immutable, b""), "200 2");
}

#[test]
fn a_body_keeps_what_its_length_promises() {
    let with_length = |writes: u32| {
        format!(
            "(local $fields i32) (local.set $fields (call $fields))
             (call $append (local.get $fields) (i32.const 1072) (i32.const 14) (i32.const 1136) (i32.const 1)
               (i32.const 128))
             (call $begin (local.get $fields)) (call $answer (local.get $out))
             (if (call $say (i32.const 1024) (i32.const {writes})) (then (drop (call $end)) (return)))
             (drop (call $end))"
        )
    };
    assert_eq!(text(&with_length(5), b""), "200 hello");
    let unfinished = "the component did not finish the body of its response";
    assert_eq!(failure(&with_length(4)), unfinished);
    assert_eq!(failure(&with_length(6)), unfinished);
}

#[test]
fn a_response_that_is_not_whole_is_none() {
    assert_eq!(failure(""), "the component returned without setting a response");
    assert_eq!(
        failure("(call $begin (call $fields)) (call $answer (local.get $out))"),
        "the component did not finish the body of its response"
    );
    let dropped = "(call $begin (call $fields)) (call $answer (local.get $out))
        (call $drop_out (i32.load (i32.const 4))) (call $drop_body (i32.load (i32.const 0)))";
    assert_eq!(failure(dropped), "the component did not finish the body of its response");
    let error = "(call $set (local.get $out) (i32.const 1) (i32.const 38)
        (i32.const 0) (i64.const 0) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0))";
    assert_eq!(failure(error), "internal-error");
    assert_eq!(
        failure("(call $drop_outparam (local.get $out))"),
        "the component returned without setting a response"
    );
    // Once it has begun there is no other answer any more.
    let begun = "(local $n i32) (call $begin (call $fields)) (call $answer (local.get $out))
        (loop $more (drop (call $say (i32.const 0) (i32.const 65536)))
          (br_if $more (i32.lt_u (local.tee $n (i32.add (local.get $n) (i32.const 1))) (i32.const 4))))";
    assert!(trap(begun).contains("did not finish the body"));
}

#[test]
fn handles_are_checked() {
    let cases = [
        ("(call $drop_fields (i32.const 9))", "unknown handle"),
        ("(call $drop_fields (i32.const 0))", "unknown handle"),
        ("(call $drop_fields (i32.const -1))", "unknown handle"),
        ("(call $drop_fields (local.get $request))", "handle of another type"),
        (
            "(call $drop_request (local.get $request)) (call $drop_request (local.get $request))",
            "handle was dropped",
        ),
        ("(call $hello (local.get $out)) (call $hello (local.get $out))", "handle of another type"),
        (
            "(local $f i32) (local.set $f (call $fields)) (drop (call $resp (local.get $f)))
          (drop (call $resp (local.get $f)))",
            "handle of another type",
        ),
        ("(call $begin (call $fields)) (call $drop_body (i32.load (i32.const 0)))", "children"),
        (
            "(call $begin (call $fields)) (drop (call $out_sub (i32.load (i32.const 4))))
          (call $drop_out (i32.load (i32.const 4)))",
            "children",
        ),
        (
            "(call $begin (call $fields)) (call $finish (i32.load (i32.const 0)) (i32.const 0) (i32.const 0) (i32.const 64))",
            "children",
        ),
        (
            "(call $begin (call $fields)) (drop (call $end)) (drop (call $say (i32.const 1024) (i32.const 1)))",
            "handle was dropped",
        ),
        ("(loop $more (drop (call $fields)) (br $more))", "more handles"),
        ("(loop $more (drop (call $resp (call $fields))) (br $more))", "more handles"),
        ("(drop (call $fields)) (call $fstat (i32.const 1) (i32.const 64))", "another type"),
    ];
    for (code, reason) in cases {
        let log = trap(code);
        assert!(log.contains(reason), "{log}\n{code}");
    }
    let mut guest = Guest::of(&guest("(drop (call $network))"));
    assert!(matches!(guest.call(b""), Err(EmbedError::Trapped(_))));
    assert!(guest.log().contains("not offered"));
}

#[test]
fn pointers_are_checked() {
    let cases = [
        ("(call $path (local.get $request) (i32.const 131072))", "out of bounds"),
        ("(call $path (local.get $request) (i32.const -4))", "out of bounds"),
        ("(call $path (local.get $request) (i32.const 66))", "not aligned"),
        (
            "(call $get (call $fields) (i32.const 131070) (i32.const 5) (i32.const 64))",
            "out of bounds",
        ),
        (
            "(call $get (call $fields) (i32.const -1) (i32.const -1) (i32.const 64))",
            "out of bounds",
        ),
        ("(call $get (call $fields) (i32.const 1104) (i32.const 2) (i32.const 64))", "not UTF-8"),
        (
            "(call $fset (call $fields) (i32.const 1040) (i32.const 6) (i32.const 4) (i32.const 536870912) (i32.const 64))",
            "too long",
        ),
        (
            "(call $fset (call $fields) (i32.const 1040) (i32.const 6) (i32.const 2) (i32.const 1) (i32.const 64))",
            "not aligned",
        ),
        (
            "(call $begin (call $fields)) (drop (call $say (i32.const 131000) (i32.const 1000)))",
            "out of bounds",
        ),
        (
            "(global.set $lie (i32.const 131072)) (call $path (local.get $request) (i32.const 64))",
            "cabi_realloc",
        ),
        (
            "(global.set $lie (i32.const -65536)) (call $path (local.get $request) (i32.const 64))",
            "",
        ),
        (
            "(global.set $lie (i32.const 1)) (call $entries (call $headers (local.get $request)) (i32.const 64))",
            "not aligned",
        ),
        (
            "(global.set $lie (i32.const 99)) (call $path (local.get $request) (i32.const 64))",
            "cannot leave",
        ),
        ("(call $poll (i32.const 0) (i32.const 0) (i32.const 64))", "empty list"),
        (
            "(i32.store (i32.const 0) (local.get $request)) (call $poll (i32.const 0) (i32.const 1) (i32.const 64))",
            "another type",
        ),
        ("(call $random_bytes (i64.const 0x100000000) (i32.const 64))", "random bytes"),
        (
            "(call $set (local.get $out) (i32.const 2) (i32.const 0)
          (i32.const 0) (i64.const 0) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0))",
            "discriminant",
        ),
        (
            "(call $set (local.get $out) (i32.const 1) (i32.const 39)
          (i32.const 0) (i64.const 0) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0))",
            "discriminant",
        ),
    ];
    for (code, reason) in cases {
        // A pointer into the guest's own data is the guest's own loss.
        if reason.is_empty() {
            let code =
                format!("{code} (global.set $lie (i32.const 0)) (call $hello (local.get $out))");
            assert!(text(&code, b"").starts_with("200"));
            continue;
        }
        let log = trap(code);
        assert!(log.contains(reason), "{log}\n{code}");
    }
}

#[test]
fn what_grows_without_end_is_bounded() {
    let writes = "(call $begin (call $fields)) (loop $more (drop (call $say (i32.const 0) (i32.const 65536))) (br $more))";
    assert!(trap(writes).contains("before its response was set"));
    let headers = "(local $f i32) (local.set $f (call $fields))
        (loop $more (call $append (local.get $f) (i32.const 1040) (i32.const 6) (i32.const 0) (i32.const 1000)
          (i32.const 128)) (br_if $more (i32.eqz (i32.load8_u (i32.const 128)))) unreachable)";
    let log = trap(headers);
    assert!(log.is_empty() || log.contains("room"), "{log}");
    let mut guest = Guest::of(&guest("(loop $more (br $more))"));
    assert!(matches!(guest.call(b""), Err(EmbedError::DeadlineExceeded)));
    let reads = "(loop $more (drop (call $now)) (br $more))";
    let mut guest = Guest::of(&self::guest(reads));
    assert!(matches!(guest.call(b""), Err(EmbedError::DeadlineExceeded)));
}

#[test]
fn time_passes_and_chance_differs() {
    let module = guest(
        "(i64.store (i32.const 1024) (call $random)) (i64.store (i32.const 1032) (call $now))
         (i32.store (i32.const 0) (call $after (i64.const 5000000)))
         (call $poll (i32.const 0) (i32.const 1) (i32.const 16))
         (i64.store (i32.const 1040) (call $now))
         (i32.store (i32.const 1048) (i32.load (i32.const 20)))
         (call $drop_poll (i32.load (i32.const 0)))
         (call $begin (call $fields)) (call $answer (local.get $out))
         (drop (call $say (i32.const 1024) (i32.const 32))) (drop (call $end))",
    );
    for mut guest in [Guest::of(&module), Guest::unlinked(&module)] {
        let mut randoms = std::collections::HashSet::new();
        for _ in 0..50 {
            let output = guest.call(b"").unwrap();
            let number = |at: usize| u64::from_le_bytes(*output.body[at..].first_chunk().unwrap());
            assert!(randoms.insert(number(0)), "no two requests get the same random bytes");
            assert!(number(8) + 5_000_000 <= number(16), "the time was waited for");
            assert_eq!(number(24) & 0xFFFF_FFFF, 1, "one pollable was ready");
        }
    }
}

#[test]
fn a_program_that_exits_early_has_answered() {
    let module = r#"(module
        (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
        (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))
        (import "wasi_snapshot_preview1" "args_sizes_get" (func $args (param i32 i32) (result i32)))
        (memory (export "memory") 1)
        (global $calls (mut i32) (i32.const 0))
        (data (i32.const 0) "\10\00\00\00\06\00\00\00")
        (data (i32.const 16) "early0")
        (func (export "_start")
          (global.set $calls (i32.add (global.get $calls) (i32.const 1)))
          (i32.store8 (i32.const 21) (i32.add (i32.const 48) (global.get $calls)))
          (drop (call $write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 8)))
          (call $exit (i32.const CODE))
          unreachable))"#;
    let mut guest = Guest::of(&module.replace("CODE", "0"));
    for _ in 0..3 {
        let output = guest.call(b"").unwrap();
        assert_eq!((output.status, output.body.as_slice()), (200, &b"early1"[..]));
    }
    let headed = module.replace("\\06\\00\\00\\00\")", "\\17\\00\\00\\00\")");
    let headed = headed.replace("(i32.const 21)", "(i32.const 37)");
    let headed =
        headed.replace("\"early0\"", "\"Status: 404\\0a\\0aearly00000\"").replace("CODE", "7");
    let mut guest = Guest::of(&headed);
    for _ in 0..2 {
        let output = guest.call(b"").unwrap();
        assert_eq!(output.status, 404, "who writes a header has answered");
    }
    let mut guest = Guest::of(&module.replace("CODE", "7"));
    for _ in 0..2 {
        assert!(
            matches!(guest.call(b""), Err(EmbedError::Failed(message)) if message.contains("exit code"))
        );
    }
}

#[test]
fn what_cannot_be_linked_is_refused_with_its_reason() {
    let refused = |module: &str| match Guest::try_of(module) {
        Err(error) => error.to_string(),
        Ok(_) => panic!("linked: {module}"),
    };
    let handler = format!("(func (export \"{HANDLE}\") (param i32 i32))");
    let unknown = format!(
        "(module (import \"example:own/thing@1.0.0\" \"f\" (func)) (memory (export \"memory\") 1) {handler})"
    );
    assert!(
        refused(&unknown).contains("imports `example:own/thing@1.0.0#f`"),
        "{}",
        refused(&unknown)
    );
    let newer = format!(
        "(module (import \"wasi:clocks/wall-clock@0.3.0\" \"now\" (func)) (memory (export \"memory\") 1) {handler})"
    );
    assert!(refused(&newer).contains("in version 0.2"));
    let other_type = format!(
        "(module (import \"wasi:io/poll@0.2.0\" \"poll\" (func (param i64))) (memory (export \"memory\") 1) {handler})"
    );
    assert!(refused(&other_type).contains("another type"));
    let two_memories = format!("(module (memory (export \"memory\") 1) (memory 1) {handler})");
    assert!(refused(&two_memories).contains("has 2 memories"));
    assert!(refused("(component)").contains("exports nothing"));
    let own = "(component (type $r (resource (rep i32))) (core func $d (canon resource.drop $r)))";
    assert!(refused(own).contains("resources of its own"));
    let import = "(component (import \"a:b/c\" (instance)))";
    assert!(refused(import).contains("imports `a:b/c`"));
    let broken = "(component (core module (func (result i32))))";
    assert!(refused(broken).contains("not valid at offset"));
}

/// The host writes to memory that the guest has grown: where it never wrote before, and where it did.
#[test]
fn a_body_is_read_into_grown_memory() {
    let module = r#"(module
        (import "midge" "body_read" (func $read (param i32 i32) (result i32)))
        (memory (export "memory") 2)
        (data (i32.const 64) "MDGE\01\00\00\00\00\00\01\00\00\10\00\00")
        (data (i32.const 1024) "\c8\00\00\00\00\00\00\00\00\00\00\00\00\00\02\00\00\00\00\00")
        (func (export "midge_contract") (result i32) (i32.const 64))
        (func (export "midge_handle") (param i32 i32) (result i32) (local $n i32) (local $at i32)
          (if (i32.ne (memory.grow (i32.const 20)) (i32.const 2)) (then unreachable))
          (local.set $at (i32.const 131072))
          (block $end (loop $more
            (local.set $n (call $read (local.get $at) (i32.const 100000)))
            (br_if $end (i32.eqz (local.get $n)))
            (local.set $at (i32.add (local.get $at) (local.get $n)))
            (br $more)))
          (i32.store (i32.const 1040) (i32.sub (local.get $at) (i32.const 131072)))
          (i32.const 1024)))"#;
    let mut guest = Guest::of(module);
    for size in [5_000, 200_000, 10_000, 900_000, 70_000] {
        let body: Vec<u8> = (0..size).map(|place| u8::try_from(place % 251).unwrap()).collect();
        let output = guest.call(&body).unwrap();
        // What the block holds of the body is not read.
        let read = output.body.len();
        assert!(size - 4096 < read + 4096 && body.ends_with(&output.body), "{read} of {size}");
    }
}

/// What a C compiler makes for `wasi:http` before a component is made of it: a reactor, whose library imports
/// preview 1.
#[test]
fn a_reactor_is_initialised_before_its_template() {
    let printing = PRELUDE.to_owned()
        + r#"(global $ready (mut i32) (i32.const 0))
          (func (export "_initialize")
            (if (global.get $ready) (then unreachable))
            (global.set $ready (i32.const 1)))
          (data (i32.const 2048) "\00\04\00\00\05\00\00\00")"#;
    let import = r#"(import "wasi_snapshot_preview1" "fd_write"
        (func $fd_write (param i32 i32 i32 i32) (result i32)))"#;
    let module = format!(
        "(module {import} {printing} (func (export \"{HANDLE}\") (param $request i32) (param $out i32)
           (if (i32.eqz (global.get $ready)) (then unreachable))
           (drop (call $fd_write (i32.const 1) (i32.const 2048) (i32.const 1) (i32.const 2056)))
           (call $hello (local.get $out))))"
    );
    let mut guest = Guest::of(&module);
    for _ in 0..3 {
        assert_eq!(guest.call(b"body").unwrap().body, b"hello");
        assert_eq!(guest.log(), "info: hello", "a handler's stdout is no response");
    }
}

/// What a module opens while it starts up is open for each request, at the place where start-up left it: the template
/// has it. A file that a request opens is closed for the next.
#[test]
fn what_start_up_has_opened_stays_open() {
    let imports = r#"
      (import "wasi_snapshot_preview1" "path_open"
        (func $open (param i32 i32 i32 i32 i32 i64 i64 i32 i32) (result i32)))
      (import "wasi_snapshot_preview1" "fd_read" (func $read (param i32 i32 i32 i32) (result i32)))"#;
    let opened = "(if (call $open (i32.const 3) (i32.const 0) (i32.const 1024) (i32.const 5) (i32.const 0)
                    (i64.const 2) (i64.const 0) (i32.const 0) (i32.const 2064)) (then unreachable))";
    // Reads so many bytes of a descriptor to 3000.
    let read = |fd: &str, size: u32| {
        format!(
            "(i32.store (i32.const 2048) (i32.const 3000)) (i32.store (i32.const 2052) (i32.const {size}))
             (if (call $read {fd} (i32.const 2048) (i32.const 1) (i32.const 2056)) (then unreachable))"
        )
    };
    let module = format!(
        "(module {imports} {PRELUDE}
           (func (export \"_initialize\") {opened} {})
           (func (export \"{HANDLE}\") (param $request i32) (param $out i32)
             {}
             {opened} (if (i32.ne (i32.load (i32.const 2064)) (i32.const 5)) (then unreachable))
             (call $begin (call $fields)) (call $answer (local.get $out))
             (drop (call $say (i32.const 3000) (i32.load (i32.const 2056))))
             (drop (call $end))))",
        read("(i32.const 4)", 3),
        read("(i32.load (i32.const 2064))", 100),
    );
    let file = ("hello".to_owned(), pack::Entry::File(b"content".to_vec()));
    let files = pack::pack(&[("/".into(), [file].into())], None).unwrap();
    let mut guest = Guest::try_of_bytes(&attach(module.as_bytes(), &files)).unwrap();
    for _ in 0..3 {
        assert_eq!(guest.call(b"body").unwrap().body, b"tent");
    }
}

#[test]
fn files_that_are_no_bundle_are_refused() {
    let module = guest("(call $hello (local.get $out))");
    let refused = |files: &[u8]| {
        let error = Guest::try_of_bytes(&attach(module.as_bytes(), files)).err();
        let error = error.expect("they are no bundle");
        error.to_string()
    };
    let whole = pack::pack(&[("/".into(), pack::Folder::new())], None).unwrap();
    let reason = "its files are no bundle of this version of midge: ";
    assert_eq!(refused(b"garbage"), format!("{reason}it does not begin as one"));
    assert_eq!(
        refused(&whole[..whole.len() - 1]),
        format!("{reason}it has another size than it says")
    );
    let mut broken = whole.clone();
    broken[16] = 7;
    assert!(refused(&broken).starts_with(reason));
    assert!(Guest::try_of_bytes(&attach(module.as_bytes(), &whole)).is_ok());
    // None at all, and twice: what was attached last counts.
    assert!(Guest::try_of_bytes(&attach(module.as_bytes(), &[])).is_ok());
    let twice = attach(&attach(module.as_bytes(), b"garbage"), &whole);
    assert!(Guest::try_of_bytes(&twice).is_ok());
}
