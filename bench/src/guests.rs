//! Guests for the lab: a real function, and one that dirties as many pages and globals as asked.

use std::fmt::Write;

/// The hello function of the examples, as it is served.
pub const HELLO: &[u8] = include_bytes!("../../examples/hello/hello.wasm");

/// Most dirty pages of a synthetic guest.
pub const DIRTY_PAGES_MAX: u32 = 16_384;

/// Returns a guest in text form, of 17 pages of memory or as many as it needs, that writes to `dirty_pages` pages of 4 KiB (the
/// request's own page is one of them) and changes `globals` globals, then answers 200 with 16 bytes.
///
/// # Panics
/// If more than [`DIRTY_PAGES_MAX`] pages are asked for, or none.
#[must_use]
pub fn synthetic(dirty_pages: u32, globals: u32) -> String {
    assert!((1..=DIRTY_PAGES_MAX).contains(&dirty_pages), "up to {DIRTY_PAGES_MAX} dirty pages");
    let memory_pages = (dirty_pages + 1).div_ceil(16).max(17);
    let mut text = format!("(module\n  (memory (export \"memory\") {memory_pages})");
    text.push_str(
        r#"
  (data (i32.const 32) "MDGE\01\00\00\00\00\10\00\00\00\10\00\00")
  (data (i32.const 1024) "sixteen bytes ok")
  (data (i32.const 1040) "\c8\00\00\00\00\00\00\00\00\00\00\00\00\04\00\00\10\00\00\00")
  (func (export "midge_contract") (result i32) i32.const 32)
"#,
    );
    let mut body = String::new();
    for global in 0..globals {
        writeln!(text, "  (global $g{global} (mut i32) (i32.const {global}))").expect("a string");
        writeln!(
            body,
            "    (global.set $g{global} (i32.add (global.get $g{global}) (i32.const 1)))"
        )
        .expect("a string");
    }
    // The area is the second page; the others follow it.
    for page in 2..=dirty_pages {
        writeln!(body, "    (i32.store (i32.const {}) (i32.const -1))", page * 4096 + 64)
            .expect("a string");
    }
    write!(
        text,
        "  (func (export \"midge_handle\") (param i32 i32) (result i32)\n{body}    i32.const 1040))"
    )
    .expect("a string");
    text
}

/// Writes a response of so many bytes `m`, told by its length, in pieces of 64 KiB.
#[must_use]
pub fn writer(bytes: u64) -> String {
    streaming(
        bytes,
        "(memory.fill (i32.const 131072) (i32.const 109) (i32.const 65536))
        (loop $more
          (call $write (i32.const 131072)
            (i32.wrap_i64 (select (local.get $left) (i64.const 65536)
              (i64.lt_u (local.get $left) (i64.const 65536)))))
          (local.set $left (i64.sub (local.get $left) (i64.const 65536)))
          (br_if $more (i64.gt_s (local.get $left) (i64.const 0))))",
    )
}

/// Answers a body of so many bytes with itself, piece by piece.
#[must_use]
pub fn passer(bytes: u64) -> String {
    streaming(
        bytes,
        "(loop $more
          (local.set $size (call $read (i32.const 131072) (i32.const 65536)))
          (if (local.get $size) (then
            (call $write (i32.const 131072) (local.get $size))
            (br $more))))",
    )
}

fn streaming(bytes: u64, body: &str) -> String {
    let length = bytes.to_string();
    format!(
        r#"(module
  (import "midge" "body_read" (func $read (param i32 i32) (result i32)))
  (import "midge" "response_start" (func $start (param i32)))
  (import "midge" "response_write" (func $write (param i32 i32)))
  (memory (export "memory") 4)
  ;; The contract's record: magic, version 1, the area at 64 KiB, of 64 KiB.
  (data (i32.const 64) "MDGE\01\00\00\00\00\00\01\00\00\00\01\00")
  ;; The response: status 200, one header at 2048, which tells the length.
  (data (i32.const 1024) "\c8\00\00\00\01\00\00\00\00\08\00\00\00\00\00\00\00\00\00\00")
  (data (i32.const 2048) "\00\0c\00\00\0e\00\00\00\10\0c\00\00\{:02x}\00\00\00")
  (data (i32.const 3072) "content-length\00\00{length}")
  (func (export "midge_contract") (result i32) (i32.const 64))
  (func (export "midge_handle") (param i32 i32) (result i32)
    (local $left i64) (local $size i32)
    (local.set $left (i64.const {bytes}))
    (call $start (i32.const 1024))
    {body}
    (i32.const 0)))
"#,
        length.len()
    )
}
