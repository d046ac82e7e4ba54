//! What a trap says to a person: its cause, and the functions that led to it.
//!
//! ```text
//!   wasm trap: integer divide by zero
//!   shop::price          the innermost first
//!   shop::handle
//!   midge_handle
//! ```
//!
//! Of an artifact that was built with lines each function has its place behind it, and functions that the compiler
//! put into it are told too: `shop::price at src/lib.rs:12:37`.
//!
//! Names and paths are a guest's claims: cut, and control characters are whoever shows them to escape. Rust's are
//! written as in its sources, without the hash that follows them.
//! Not here: where lines come from (`lines.rs`).

use std::fmt::{self, Write};

use wasmtime::{FrameInfo, WasmBacktrace};

use crate::artifact::Artifact;
use crate::drive::Trap;
use crate::lines::{NAME_BYTES_MAX, PATH_BYTES_MAX, Place, SourceFrame};

/// No function is added to a text that is longer.
pub const TEXT_BYTES_MAX: usize = 16 << 10;
/// Most functions that are told for one that they were put into.
const INLINED_MAX: usize = 32;

/// Tells why a call of an artifact's function trapped: a line for the cause, and one for each function, the innermost
/// first.
#[must_use]
pub fn describe(trap: &Trap, artifact: &Artifact) -> String {
    let lines = artifact.lines();
    let mut text = trap.root_cause().to_string();
    let Some(trace) = trap.downcast_ref::<WasmBacktrace>() else { return text };
    let frames = trace.frames();
    // The outermost is mostly the entry that a rewritten module has got, which has no name (`rewrite.rs`).
    let is_entry = frames.len() > 1 && frames.last().is_some_and(|last| last.func_name().is_none());
    for frame in &frames[..frames.len() - usize::from(is_entry)] {
        if TEXT_BYTES_MAX < text.len() {
            break;
        }
        let offset = frame.func_offset().and_then(|offset| u32::try_from(offset).ok());
        let known = lines.zip(offset);
        let known = known.map(|(lines, offset)| lines.frames(frame.func_index(), offset));
        push_function(&mut text, frame, known.into_iter().flatten());
    }
    text
}

/// Adds a function of the engine's, behind those that were put into it.
fn push_function<'a>(
    text: &mut String,
    frame: &FrameInfo,
    known: impl Iterator<Item = SourceFrame<'a>>,
) {
    let own = push_inlined(text, known);
    text.push('\n');
    match frame.func_name().or(own.and_then(|own| own.name)) {
        Some(name) => push_name(text, name),
        // A string has room for all of it.
        None => drop(write!(text, "function {}", frame.func_index())),
    }
    push_place(text, own.and_then(|own| own.place));
}

/// Adds functions that were put into another, and returns what is known of that one.
fn push_inlined<'a>(
    text: &mut String,
    known: impl Iterator<Item = SourceFrame<'a>>,
) -> Option<SourceFrame<'a>> {
    for (told, frame) in known.enumerate() {
        if !frame.is_inlined {
            return Some(frame);
        }
        if told == INLINED_MAX {
            break;
        }
        text.push('\n');
        push_name(text, frame.name.unwrap_or("a function without a name"));
        push_place(text, frame.place);
    }
    None
}

fn push_place(text: &mut String, place: Option<Place<'_>>) {
    let Some(Place { file, line, column }) = place else { return };
    text.push_str(" at ");
    let _cut = Bounded { text, left: PATH_BYTES_MAX }.write_str(file);
    *text += &format!(":{line}");
    if column != 0 {
        *text += &format!(":{column}");
    }
}

/// Of a name longer than what is shown nothing is undone: that bounds the work.
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
    fn functions_put_into_another_come_before_it() {
        let place = |line, column| Some(Place { file: "shop.c", line, column });
        let inlined = |name, place| SourceFrame { name, place, is_inlined: true };
        let own = SourceFrame { name: Some("price"), place: place(9, 1), is_inlined: false };
        let mut text = String::new();
        let frames = [inlined(Some("half"), place(3, 0)), inlined(None, place(5, 2)), own];
        assert_eq!(push_inlined(&mut text, frames.into_iter()), Some(own));
        assert_eq!(text, "\nhalf at shop.c:3\na function without a name at shop.c:5:2");

        let mut text = String::new();
        let many = std::iter::repeat_n(inlined(Some("half"), None), 1000);
        assert_eq!(push_inlined(&mut text, many), None);
        assert_eq!(text.matches("half").count(), INLINED_MAX);
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
