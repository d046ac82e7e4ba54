//! Guests for the lab: a real function, and one that dirties as many pages and globals as asked.

use std::fmt::Write;

/// The hello function of the examples, as it is served.
pub const HELLO: &[u8] = include_bytes!("../../examples/hello/hello.wasm");

/// Most dirty pages of a synthetic guest.
pub const DIRTY_PAGES_MAX: u32 = 16_384;

/// A guest with chosen state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Synthetic {
    /// Pages of 4 KiB that each request writes to, its own among them.
    pub dirty_pages: u32,
    /// Globals that each request changes.
    pub globals: u32,
    /// Size of what its memory holds when a request begins, beyond a page, in KiB.
    pub image_kib: u32,
    /// Elements of its table.
    pub table_elements: u32,
    /// Functions of the host that it imports, and does not call.
    pub imports: u32,
}

/// Size of an image: what a memory may hold.
pub const IMAGE_KIB_MAX: u32 = 64 * 1024;

/// Globals that a function may change.
pub const GLOBALS_MAX: u32 = 256;

/// Elements of a table.
pub const ELEMENTS_MAX: u32 = 10_000;

/// Imports: an engine binds each of them to each instance.
pub const IMPORTS_MAX: u32 = 1000;

/// Returns a guest that writes to so many pages and changes so many globals ([`Synthetic`]).
///
/// # Panics
/// If it has no dirty page, or too many.
#[must_use]
pub fn synthetic(dirty_pages: u32, globals: u32) -> String {
    Synthetic { dirty_pages, globals, ..Synthetic::SMALL }.text()
}

impl Synthetic {
    /// The guest that others differ from: three dirty pages, two globals, and nothing else.
    pub const SMALL: Self =
        Self { dirty_pages: 3, globals: 2, image_kib: 0, table_elements: 0, imports: 0 };

    /// Returns its text.
    ///
    /// # Panics
    /// If it has no dirty page, or anything of it is beyond its limit.
    #[must_use]
    pub fn text(self) -> String {
        let Self { dirty_pages, globals, image_kib, table_elements, imports } = self;
        assert!(
            (1..=DIRTY_PAGES_MAX).contains(&dirty_pages),
            "up to {DIRTY_PAGES_MAX} dirty pages"
        );
        assert!(image_kib <= IMAGE_KIB_MAX, "an image of up to {IMAGE_KIB_MAX} KiB");
        assert!(globals <= GLOBALS_MAX, "up to {GLOBALS_MAX} globals");
        assert!(table_elements <= ELEMENTS_MAX, "up to {ELEMENTS_MAX} elements");
        assert!(imports <= IMPORTS_MAX, "up to {IMPORTS_MAX} imports");
        // The image lies behind the pages that are written.
        let image_start = (dirty_pages + 1).div_ceil(16).max(17) * 65_536;
        let memory_pages = image_start / 65_536 + image_kib.div_ceil(64);
        let mut text = String::from("(module\n");
        for _ in 0..imports {
            text.push_str("  (import \"midge\" \"clock_monotonic_ns\" (func (result i64)))\n");
        }
        write!(text, "  (memory (export \"memory\") {memory_pages})").expect("a string");
        text.push_str(
            r#"
  (data (i32.const 32) "MDGE\01\00\00\00\00\10\00\00\00\10\00\00")
  (data (i32.const 1024) "sixteen bytes ok")
  (data (i32.const 1040) "\c8\00\00\00\00\00\00\00\00\00\00\00\00\04\00\00\10\00\00\00")
  (func (export "midge_contract") (result i32) i32.const 32)
"#,
        );
        if image_kib > 0 {
            // Runs when the artifact is built.
            let bytes = image_kib * 1024;
            writeln!(
                text,
                "  (func $fill (memory.fill (i32.const {image_start}) (i32.const 109) (i32.const {bytes})))\n  (start $fill)"
            )
            .expect("a string");
        }
        if table_elements > 0 {
            let elements = "$element ".repeat(table_elements as usize);
            writeln!(
                text,
                "  (func $element)\n  (table {table_elements} funcref)\n  (elem (i32.const 0) func {elements})"
            )
            .expect("a string");
        }
        let mut body = String::new();
        for global in 0..globals {
            writeln!(text, "  (global $g{global} (mut i32) (i32.const {global}))")
                .expect("a string");
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

/// Answers a body of so many bytes with itself, piece by piece; its front may be in the request's block already.
#[must_use]
pub fn passer(bytes: u64) -> String {
    streaming(
        bytes,
        "(if (i32.load offset=68 (local.get $block)) (then
          (call $write
            (i32.add (local.get $block) (i32.load offset=64 (local.get $block)))
            (i32.load offset=68 (local.get $block)))))
        (loop $more
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
  (func (export "midge_handle") (param $block i32) (param i32) (result i32)
    (local $left i64) (local $size i32)
    (local.set $left (i64.const {bytes}))
    (call $start (i32.const 1024))
    {body}
    (i32.const 0)))
"#,
        length.len()
    )
}

#[cfg(test)]
mod tests {
    use wasmparser::{Parser, Payload};

    use super::*;

    #[test]
    fn guests_of_bodies_are_modules() {
        for text in [writer(1), writer(1 << 40), passer(1 << 30)] {
            wasmparser::validate(&wat::parse_str(text).unwrap()).unwrap();
        }
    }

    #[test]
    fn a_guest_imports_as_many_functions_as_asked() {
        for imports in [0, 1, IMPORTS_MAX] {
            let bytes = wat::parse_str(Synthetic { imports, ..Synthetic::SMALL }.text()).unwrap();
            wasmparser::validate(&bytes).unwrap();
            let counts = Parser::new(0).parse_all(&bytes).map(|payload| match payload.unwrap() {
                Payload::ImportSection(section) => section.into_imports().count(),
                _ => 0,
            });
            assert_eq!(counts.sum::<usize>(), imports as usize);
        }
    }
}
