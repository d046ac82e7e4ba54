//! Components for tests, made of modules in text form as tools make them of a compiler's.
#![expect(dead_code, reason = "each test that includes this needs some of it")]

use wit_component::{ComponentEncoder, StringEncoding, embed_component_metadata};
use wit_parser::Resolve;

/// Makes a component of a module with the names of the canonical ABI.
fn encode(module: &[u8], wit: &str, world: &str) -> Vec<u8> {
    let mut resolve = Resolve::default();
    let package = resolve.push_str("tests.wit", wit).expect("it is sound");
    let world = resolve.select_world(&[package], Some(world)).expect("it is there");
    let mut module = wat::parse_bytes(module).expect("it is sound").into_owned();
    embed_component_metadata(&mut module, &resolve, world, StringEncoding::UTF8)
        .expect("it is a module");
    let mut encoder = ComponentEncoder::default().validate(true).module(&module);
    encoder.as_mut().expect("it fits its world").encode().expect("it is a component")
}

/// Makes a handler of WASI 0.2 of a module.
pub(crate) fn handler(module: &str) -> Vec<u8> {
    handler_of(module.as_bytes())
}

/// The same of a module in either form.
pub(crate) fn handler_of(module: &[u8]) -> Vec<u8> {
    encode(module, include_str!("p2.wit"), "handler")
}

/// A handler beside a component that gives it its text, as a resource of its own: what tools for composing make of two.
pub(crate) const COMPOSED: &str = include_str!("composed.wat");

/// What the guests of WASI 0.3 have, and a handler that takes one step after the other.
pub(crate) fn service(handle: &str, event: &str) -> Vec<u8> {
    service_with(handle, event, "")
}

fn service_with(handle: &str, event: &str, more: &str) -> Vec<u8> {
    let module = format!(
        r#"(module
  (import "wasi:http/types@0.3.0" "[constructor]fields" (func $fields (result i32)))
  (import "wasi:http/types@0.3.0" "[static]response.new"
    (func $response (param i32 i32 i32 i32 i32)))
  (import "wasi:http/types@0.3.0" "[static]request.consume-body" (func $consume (param i32 i32 i32)))
  (import "wasi:http/types@0.3.0" "[resource-drop]request" (func $drop-request (param i32)))
  (import "wasi:http/types@0.3.0" "[stream-new-0][static]response.new" (func $stream (result i64)))
  (import "wasi:http/types@0.3.0" "[async-lower][stream-write-0][static]response.new"
    (func $write (param i32 i32 i32) (result i32)))
  (import "wasi:http/types@0.3.0" "[stream-drop-writable-0][static]response.new"
    (func $drop-stream (param i32)))
  (import "wasi:http/types@0.3.0" "[future-new-1][static]response.new" (func $future (result i64)))
  (import "wasi:http/types@0.3.0" "[async-lower][future-write-1][static]response.new"
    (func $complete (param i32 i32) (result i32)))
  (import "wasi:http/types@0.3.0" "[future-drop-writable-1][static]response.new"
    (func $drop-future (param i32)))
  (import "wasi:http/types@0.3.0" "[future-drop-readable-2][static]response.new"
    (func $drop-result (param i32)))
  (import "wasi:http/types@0.3.0" "[future-new-0][static]request.consume-body" (func $read-result (result i64)))
  (import "wasi:http/types@0.3.0" "[async-lower][future-write-0][static]request.consume-body"
    (func $tell (param i32 i32) (result i32)))
  (import "wasi:http/types@0.3.0" "[static]request.new"
    (func $request (param i32 i32 i32 i32 i32 i32 i32)))
  (import "wasi:http/types@0.3.0" "[method]request.set-authority"
    (func $authority (param i32 i32 i32 i32) (result i32)))
  (import "wasi:http/types@0.3.0" "[method]request.set-path-with-query"
    (func $path (param i32 i32 i32 i32) (result i32)))
  (import "wasi:http/types@0.3.0" "[method]request.set-scheme"
    (func $scheme (param i32 i32 i32 i32 i32) (result i32)))
  (import "wasi:http/types@0.3.0" "[future-drop-readable-2][static]request.new"
    (func $drop-sent (param i32)))
  (import "wasi:http/client@0.3.0" "[async-lower]send" (func $send (param i32 i32) (result i32)))
  (import "wasi:clocks/monotonic-clock@0.3.0" "now" (func $now (result i64)))
  (import "wasi:clocks/monotonic-clock@0.3.0" "[async-lower]wait-for"
    (func $wait (param i64) (result i32)))
  (import "wasi:random/random@0.3.0" "get-random-u64" (func $random (result i64)))
  (import "[export]wasi:http/handler@0.3.0" "[task-return]handle"
    (func $return (param i32 i32 i32 i64 i32 i32 i32 i32)))
  (import "$root" "[waitable-set-new]" (func $set (result i32)))
  (import "$root" "[waitable-join]" (func $join (param i32 i32)))
  (import "$root" "[subtask-drop]" (func $drop-subtask (param i32)))
  (memory (export "memory") 4)
  (global $waits (mut i32) (i32.const 0))
  (global $step (mut i32) (i32.const 0))
  (global $calls (mut i32) (i32.const 0))
  (global $out (mut i32) (i32.const 0))
  (global $trailers (mut i32) (i32.const 0))
  (global $left (mut i32) (i32.const 0))
  (data (i32.const 1024) "hello0")
  (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32) (i32.const 65536))
  ;; Waits for one thing, in the set that there is.
  (func $await (param $what i32) (result i32)
    (call $join (local.get $what) (global.get $waits))
    (i32.or (i32.const 2) (i32.shl (global.get $waits) (i32.const 4))))
  (func $both (param $pair i64) (result i32 i32)
    (i32.wrap_i64 (local.get $pair)) (i32.wrap_i64 (i64.shr_u (local.get $pair) (i64.const 32))))
  ;; Answers with a stream, whose writable end is kept.
  (func $answer (local $stream i32) (local $future i32)
    (call $both (call $stream)) (global.set $out) (local.set $stream)
    (call $both (call $future)) (global.set $trailers) (local.set $future)
    (call $response (call $fields) (i32.const 1) (local.get $stream) (local.get $future) (i32.const 256))
    (call $drop-result (i32.load (i32.const 260)))
    (call $return (i32.const 0) (i32.load (i32.const 256)) (i32.const 0) (i64.const 0) (i32.const 0)
      (i32.const 0) (i32.const 0) (i32.const 0)))
  (func $finish (result i32)
    (call $drop-stream (global.get $out))
    ;; No trailers: ok(none).
    (i64.store (i32.const 512) (i64.const 0)) (i64.store (i32.const 520) (i64.const 0))
    (if (i32.ne (call $complete (global.get $trailers) (i32.const 512)) (i32.const -1))
      (then (return (i32.const 0))))
    (global.set $step (i32.const 99))
    (call $await (global.get $trailers)))
  (func (export "[async-lift]wasi:http/handler@0.3.0#handle") (param $request i32) (result i32)
    (local $a i32) (local $b i32)
    (global.set $calls (i32.add (global.get $calls) (i32.const 1)))
    (i32.store8 (i32.const 1029) (i32.add (i32.const 48) (global.get $calls)))
    (global.set $waits (call $set))
    {handle})
  (func (export "[callback][async-lift]wasi:http/handler@0.3.0#handle")
    (param $event i32) (param $what i32) (param $how i32) (result i32)
    (if (i32.eq (global.get $step) (i32.const 99)) (then (return (i32.const 0))))
    {event})
  {more})"#
    );
    encode(module.as_bytes(), include_str!("p3.wit"), "service")
}

/// Waits a moment, answers, writes once, ends.
pub(crate) fn hello() -> Vec<u8> {
    service(
        "(call $drop-request (local.get $request))
         (local.set $a (call $wait (i64.const 2000000)))
         (if (i32.ne (i32.and (local.get $a) (i32.const 15)) (i32.const 1)) (then unreachable))
         (call $await (i32.shr_u (local.get $a) (i32.const 4)))",
        "(if (i32.eqz (global.get $step)) (then
           (if (i32.ne (local.get $how) (i32.const 2)) (then unreachable))
           (call $drop-subtask (local.get $what))
           (call $answer)
           (global.set $step (i32.const 1))
           (if (i32.ne (call $write (global.get $out) (i32.const 1024) (i32.const 6)) (i32.const -1))
             (then unreachable))
           (return (call $await (global.get $out)))))
         (call $finish)",
    )
}

/// Sends the body back as it comes.
pub(crate) fn echo() -> Vec<u8> {
    service(
        "(call $both (call $read-result)) (local.set $b) (local.set $a)
         (call $consume (local.get $request) (local.get $a) (i32.const 256))
         (call $response (call $fields) (i32.const 1) (i32.load (i32.const 256))
           (i32.load (i32.const 260)) (i32.const 264))
         (call $drop-result (i32.load (i32.const 268)))
         (call $return (i32.const 0) (i32.load (i32.const 264)) (i32.const 0) (i64.const 0) (i32.const 0)
           (i32.const 0) (i32.const 0) (i32.const 0))
         (i64.store (i32.const 512) (i64.const 0))
         (if (i32.ne (call $tell (local.get $b) (i32.const 512)) (i32.const -1))
           (then (return (i32.const 0))))
         (global.set $step (i32.const 99))
         (call $await (local.get $b))",
        "unreachable",
    )
}

/// Answers with what the server at this authority answers, headers left out.
pub(crate) fn sender(authority: &str) -> Vec<u8> {
    let more = format!(
        "(data (i32.const 2048) \"{authority}\")
         (func $ended (param $how i32) (param $what i32) (result i32)
           (if (i32.ne (local.get $how) (i32.const 2)) (then unreachable))
           (if (local.get $what) (then (call $drop-subtask (local.get $what))))
           ;; The result of `send`, at 1536: its response, or the code of an error.
           (if (i32.load8_u (i32.const 1536)) (then
             (call $return (i32.const 1) (i32.load8_u (i32.const 1544)) (i32.const 0) (i64.const 0)
               (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0))
             (return (i32.const 0))))
           (call $return (i32.const 0) (i32.load (i32.const 1544)) (i32.const 0) (i64.const 0)
             (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0))
           (i32.const 0))"
    );
    let handle = format!(
        "(call $both (call $future)) (local.set $b) (local.set $a)
         (call $request (call $fields) (i32.const 0) (i32.const 0) (local.get $a) (i32.const 0)
           (i32.const 0) (i32.const 256))
         (call $drop-sent (i32.load (i32.const 260)))
         (drop (call $authority (i32.load (i32.const 256)) (i32.const 1) (i32.const 2048)
           (i32.const {})))
         (i32.store8 (i32.const 1100) (i32.const 47))
         (drop (call $path (i32.load (i32.const 256)) (i32.const 1) (i32.const 1100) (i32.const 1)))
         (drop (call $scheme (i32.load (i32.const 256)) (i32.const 1) (i32.const 0) (i32.const 0)
           (i32.const 0)))
         (i64.store (i32.const 512) (i64.const 0)) (i64.store (i32.const 520) (i64.const 0))
         (drop (call $complete (local.get $b) (i32.const 512)))
         (local.set $a (call $send (i32.load (i32.const 256)) (i32.const 1536)))
         (if (i32.eq (i32.and (local.get $a) (i32.const 15)) (i32.const 2))
           (then (return (call $ended (i32.const 2) (i32.shr_u (local.get $a) (i32.const 4))))))
         (call $await (i32.shr_u (local.get $a) (i32.const 4)))",
        authority.len()
    );
    let event = "(if (i32.ne (local.get $event) (i32.const 1)) (then
           (return (i32.or (i32.const 2) (i32.shl (global.get $waits) (i32.const 4))))))
         (call $ended (local.get $how) (local.get $what))";
    let handle = format!("(call $drop-request (local.get $request)) {handle}");
    service_with(&handle, event, &more)
}
