//! The one place that prints: data to stdout, everything else to stderr, errors in two lines.
//!
//!   midge: WHAT failed on WHICH: cause
//!   next: what to do
//!
//! Colour is used only towards a terminal and only without `NO_COLOR` (https://no-color.org).

use std::{
    borrow::Cow,
    env, error, fmt,
    io::{self, IsTerminal, Write},
};

use serde::Serialize;

/// The name under which the program reports.
pub const PROGRAM: &str = "midge";

/// An error with the step that follows it.
#[derive(Debug, thiserror::Error)]
#[error("{what}")]
pub struct Failure {
    /// What failed, on what.
    pub what: String,
    /// What to do about it.
    pub next: String,
    /// True if the command was wrong, not the world.
    pub is_usage: bool,
    /// The cause, if it adds something.
    #[source]
    pub cause: Option<Box<dyn error::Error + Send + Sync>>,
}

/// A colour by its meaning.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tone {
    /// As the terminal has it.
    Plain,
    /// Less important.
    Dim,
    /// As it should be.
    Good,
    /// To be looked at.
    Odd,
    /// To be mended.
    Bad,
}

/// A cell of a table.
#[derive(Debug, Clone)]
pub struct Cell {
    text: String,
    tone: Tone,
}

/// Rows whose columns are aligned, two spaces apart.
#[derive(Debug)]
pub struct Table {
    rows: Vec<Vec<Cell>>,
    is_colourful: bool,
}

/// Writes to stdout.
///
/// # Errors
/// Those of stdout; `main` takes a broken pipe for the end of the reader's interest.
pub fn print(text: &str) -> io::Result<()> {
    print_bytes(text.as_bytes())
}

/// Writes bytes to stdout, for a program.
///
/// # Errors
/// As [`print`].
pub fn print_bytes(bytes: &[u8]) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(bytes)?;
    out.flush()
}

/// Writes an object to stdout, indented.
///
/// # Errors
/// Those of stdout.
pub fn print_json(object: &impl Serialize) -> io::Result<()> {
    let text = serde_json::to_string_pretty(object).map_err(io::Error::from)?;
    print(&(text + "\n"))
}

/// Writes to stderr.
pub fn complain(text: &str) {
    // Nobody is left to be told that stderr is gone.
    drop(io::stderr().lock().write_all(text.as_bytes()));
}

/// Returns an error as the two lines, the second only if there is a next step.
#[must_use]
pub fn error_text(error: &anyhow::Error) -> String {
    let causes: Vec<String> = error.chain().map(ToString::to_string).collect();
    let mut text = format!("{PROGRAM}: {}\n", printable(&causes.join(": ")));
    if let Some(failure) = error.downcast_ref::<Failure>() {
        text += &format!("next: {}\n", failure.next);
    }
    text
}

/// Returns a text with its control characters escaped, but for ends of lines and tabs: names in a module are
/// its author's, and must not steer the terminal of whoever looks into it.
#[must_use]
pub fn printable(text: &str) -> Cow<'_, str> {
    let is_steering = |letter: char| letter.is_control() && !matches!(letter, '\n' | '\t');
    if !text.contains(is_steering) {
        return text.into();
    }
    let escaped = text.chars().map(|letter| match is_steering(letter) {
        true => letter.escape_default().to_string(),
        false => letter.to_string(),
    });
    escaped.collect::<String>().into()
}

/// Returns true if stdout takes colours.
#[must_use]
pub fn stdout_is_colourful() -> bool {
    io::stdout().is_terminal() && may_colour()
}

/// Returns true if stderr takes colours.
#[must_use]
pub fn stderr_is_colourful() -> bool {
    io::stderr().is_terminal() && may_colour()
}

fn may_colour() -> bool {
    env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

impl Failure {
    /// Makes one for a cause.
    pub fn new(
        what: impl Into<String>,
        next: impl Into<String>,
        cause: impl Into<Box<dyn error::Error + Send + Sync>>,
    ) -> Self {
        let cause = Some(cause.into());
        Self { what: what.into(), next: next.into(), is_usage: false, cause }
    }
}

impl Cell {
    /// Makes a cell.
    pub fn new(text: impl Into<String>, tone: Tone) -> Self {
        let text = text.into();
        Self { text: printable(&text).replace('\n', "\\n"), tone }
    }
}

impl Table {
    /// Makes a table with a row of headings.
    #[must_use]
    pub fn new(headings: &[&str], is_colourful: bool) -> Self {
        let headings = headings.iter().map(|heading| Cell::new(*heading, Tone::Dim)).collect();
        Self { rows: vec![headings], is_colourful }
    }

    /// Appends a row.
    pub fn push(&mut self, row: Vec<Cell>) {
        self.rows.push(row);
    }
}

impl fmt::Display for Table {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let column_count = self.rows.iter().map(Vec::len).max().unwrap_or(0);
        let width_of = |column: usize| {
            let cells = self.rows.iter().filter_map(|row| row.get(column));
            cells.map(|cell| cell.text.chars().count()).max().unwrap_or(0)
        };
        let widths: Vec<usize> = (0..column_count).map(width_of).collect();
        for row in &self.rows {
            for (column, Cell { text, tone }) in row.iter().enumerate() {
                write!(formatter, "{}", coloured(text, *tone, self.is_colourful))?;
                if column + 1 < row.len() {
                    let gap = widths[column] - text.chars().count() + 2;
                    write!(formatter, "{:gap$}", "")?;
                }
            }
            writeln!(formatter)?;
        }
        Ok(())
    }
}

fn coloured(text: &str, tone: Tone, is_colourful: bool) -> String {
    let code = match tone {
        Tone::Plain => return text.to_owned(),
        Tone::Dim => 2,
        Tone::Good => 32,
        Tone::Odd => 33,
        Tone::Bad => 31,
    };
    if is_colourful { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned_with_and_without_colour() {
        for (is_colourful, expected) in [
            (false, "a     b\nlong  ü\n"),
            (true, "\x1b[2ma\x1b[0m     \x1b[2mb\x1b[0m\nlong  \x1b[31mü\x1b[0m\n"),
        ] {
            let mut table = Table::new(&["a", "b"], is_colourful);
            table.push(vec![Cell::new("long", Tone::Plain), Cell::new("ü", Tone::Bad)]);
            assert_eq!(table.to_string(), expected);
        }
    }

    #[test]
    fn names_do_not_steer_a_terminal() {
        for (text, expected) in [
            ("plain ü\n\t", "plain ü\n\t"),
            ("\x1b[2J\r\0\x7f", "\\u{1b}[2J\\r\\u{0}\\u{7f}"),
            ("\u{9b}2J", "\\u{9b}2J"),
        ] {
            assert_eq!(printable(text), expected);
        }
        let cell = Cell::new("a\nb\x1b", Tone::Plain);
        assert_eq!(cell.text, "a\\nb\\u{1b}");
    }

    #[test]
    fn an_error_says_what_why_and_what_next() {
        let cause = io::Error::from(io::ErrorKind::NotFound);
        let failure = Failure::new("cannot read `a`", "make it", cause);
        assert_eq!(
            error_text(&anyhow::Error::new(failure)),
            "midge: cannot read `a`: entity not found\nnext: make it\n"
        );
        assert_eq!(error_text(&anyhow::anyhow!("odd")), "midge: odd\n");
    }
}
