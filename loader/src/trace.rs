//! What a trap says to a person: its cause, and the functions that led to it.
//!
//! ```text
//!   wasm trap: integer divide by zero
//!   shop::price          the innermost first
//!   shop::handle
//!   midge_handle
//! ```
//!
//! Names are a guest's claims: cut, and control characters are whoever shows them to escape. Rust's are written as
//! in its sources, without the hash that follows them.
//! Not here: lines. The engine keeps no map from code to offsets (`engine.rs`), and those of a module that was
//! linked or rewritten are not its compiler's.

use std::fmt::{self, Write};

use wasmtime::WasmBacktrace;

use crate::drive::Trap;

/// A name is cut here. Of a longer one nothing is undone: the work is bounded by what is shown.
const NAME_BYTES_MAX: usize = 512;

/// Tells why a call trapped: a line for the cause, and one for each function, the innermost first.
#[must_use]
pub fn describe(trap: &Trap) -> String {
    let mut text = trap.root_cause().to_string();
    let Some(trace) = trap.downcast_ref::<WasmBacktrace>() else { return text };
    let frames = trace.frames();
    // The outermost is mostly the entry that a rewritten module has got, which has no name (`rewrite.rs`).
    let is_entry = frames.len() > 1 && frames.last().is_some_and(|last| last.func_name().is_none());
    for frame in &frames[..frames.len() - usize::from(is_entry)] {
        text.push('\n');
        match frame.func_name() {
            Some(name) => push_name(&mut text, name),
            // A string has room for all of it.
            None => drop(write!(text, "function {}", frame.func_index())),
        }
    }
    text
}

fn push_name(text: &mut String, name: &str) {
    let mut target = Bounded { text, left: NAME_BYTES_MAX };
    let undone = rustc_demangle::try_demangle(name).ok().filter(|_| name.len() <= NAME_BYTES_MAX);
    // An error says that the bound was reached.
    let _cut = match undone {
        Some(undone) => write!(target, "{undone:#}"),
        None => target.write_str(name),
    };
}

/// Takes so many bytes and refuses the rest, so that nobody goes on to make it.
struct Bounded<'t> {
    text: &'t mut String,
    left: usize,
}

impl Write for Bounded<'_> {
    fn write_str(&mut self, piece: &str) -> fmt::Result {
        let size = piece.floor_char_boundary(self.left);
        self.text.push_str(&piece[..size]);
        self.left -= size;
        if size < piece.len() { Err(fmt::Error) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(name: &str) -> String {
        let mut text = String::new();
        push_name(&mut text, name);
        text
    }

    #[test]
    fn names_are_those_of_the_sources() {
        assert_eq!(
            shown("_ZN4core9panicking9panic_fmt17h0123456789abcdefE"),
            "core::panicking::panic_fmt"
        );
        assert_eq!(shown("_RNvCs1234_7mycrate3foo"), "mycrate::foo");
        assert_eq!(shown("main"), "main");
        assert_eq!(shown("_ZN"), "_ZN");
    }

    #[test]
    fn a_long_name_is_cut() {
        assert_eq!(shown(&"é".repeat(400)).len(), NAME_BYTES_MAX);
        // One of few bytes that stands for a great many.
        let mut name = String::from("_RINvC1a1b");
        name.push_str(&"T".repeat(40));
        name.push_str(&"NtC1c1d".repeat(50));
        assert!(shown(&name).len() <= NAME_BYTES_MAX);
    }
}
