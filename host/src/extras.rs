//! Arguments and environment of a program, as rows behind the headers of each request.
//!
//! ```text
//!   header rows: ..received.. | ":argument", value | ":environment", "NAME=value"
//! ```
//!
//! No client can send such a header, for a name has no colon. What the WASI module makes of them is in
//! `wasi/src/cgi.rs`.

use midge_abi::request::{HeadSpan, HeaderSpan};

/// Arguments and environment of one function have so many bytes together, names counted: with the longest
/// head they are in reach of a span.
pub const BYTES_MAX: usize = 16 * 1024;
/// Most arguments and variables of one function.
pub const COUNT_MAX: usize = 256;

const _: () = assert!(midge_net::http::request::HEAD_BYTES_MAX + BYTES_MAX < u16::MAX as usize);

const ARGUMENT: &str = ":argument";
const ENVIRONMENT: &str = ":environment";

/// The rows, relative to their own text.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Extras {
    text: Vec<u8>,
    rows: Vec<HeaderSpan>,
}

/// There are more than [`BYTES_MAX`] or [`COUNT_MAX`] of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("arguments and environment have more than {COUNT_MAX} entries or {BYTES_MAX} bytes")]
pub struct TooMuch;

/// No arguments and no variables.
pub static NONE: Extras = Extras { text: Vec::new(), rows: Vec::new() };

impl Extras {
    /// Lays them out.
    ///
    /// # Errors
    /// [`TooMuch`].
    pub fn new(arguments: &[String], environment: &[String]) -> Result<Self, TooMuch> {
        let mut extras = Self::default();
        let arguments = arguments.iter().map(|value| (ARGUMENT, value));
        let environment = environment.iter().map(|value| (ENVIRONMENT, value));
        for (name, value) in arguments.chain(environment) {
            if extras.rows.len() == COUNT_MAX {
                return Err(TooMuch);
            }
            let row = HeaderSpan { name: extras.put(name)?, value: extras.put(value)? };
            extras.rows.push(row);
        }
        Ok(extras)
    }

    fn put(&mut self, text: &str) -> Result<HeadSpan, TooMuch> {
        let offset = self.text.len();
        self.text.extend_from_slice(text.as_bytes());
        if self.text.len() > BYTES_MAX {
            return Err(TooMuch);
        }
        let span = |number: usize| u16::try_from(number).expect("within the limit");
        Ok(HeadSpan { offset: span(offset), size: span(text.len()) })
    }

    /// Returns the text, to lie behind a head.
    #[must_use]
    pub fn text(&self) -> &[u8] {
        &self.text
    }

    /// Returns how many rows there are.
    #[must_use]
    pub const fn count(&self) -> usize {
        self.rows.len()
    }

    /// Returns the rows behind a head of so many bytes.
    pub fn rows(&self, head_bytes: usize) -> impl ExactSizeIterator<Item = HeaderSpan> + '_ {
        let base = u16::try_from(head_bytes).expect("heads are bounded");
        let moved = move |span: HeadSpan| HeadSpan { offset: base + span.offset, ..span };
        self.rows
            .iter()
            .map(move |row| HeaderSpan { name: moved(row.name), value: moved(row.value) })
    }
}

/// True for `NAME=value` with a name that programs can ask for.
#[must_use]
pub fn is_variable(text: &str) -> bool {
    let name = text.split_once('=').map_or("", |(name, _)| name);
    !name.is_empty() && !text.contains('\0')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_lie_behind_the_head() {
        let extras = Extras::new(&["a".into()], &["B=c d".into()]).unwrap();
        let text = |head: &[u8], span: HeadSpan| {
            let all = [head, extras.text()].concat();
            let start = usize::from(span.offset);
            String::from_utf8(all[start..start + usize::from(span.size)].to_vec()).unwrap()
        };
        let rows: Vec<_> = extras.rows(5).collect();
        let of = |row: &HeaderSpan| (text(b"HEAD.", row.name), text(b"HEAD.", row.value));
        assert_eq!(of(&rows[0]), (":argument".into(), "a".into()));
        assert_eq!(of(&rows[1]), (":environment".into(), "B=c d".into()));
    }

    #[test]
    fn too_much_is_refused() {
        assert_eq!(Extras::new(&["x".repeat(BYTES_MAX)], &[]), Err(TooMuch));
        assert_eq!(Extras::new(&vec![String::new(); COUNT_MAX + 1], &[]), Err(TooMuch));
        assert!(Extras::new(&vec![String::new(); COUNT_MAX], &[]).is_ok());
    }

    #[test]
    fn variables_have_names() {
        assert!(is_variable("A=b") && is_variable("A=") && is_variable("a.b=c=d"));
        assert!(!is_variable("=b") && !is_variable("A") && !is_variable("A=\0"));
    }
}
