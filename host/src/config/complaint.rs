//! What is wrong with a settings file: every fault at once, each with its place and its remedy.
//!
//!   midge.toml:7:13: `restor` is no technique
//!     7 | technique = "restor"
//!       |             ^^^^^^^^
//!   write: "restore"

use std::{error, fmt, ops::Range};

use super::source::{Place, QUOTE_CHARS_MAX, Source};

/// The most complaints that are shown; a count of the rest follows.
pub const COMPLAINTS_SHOWN_MAX: usize = 100;

/// One fault.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Complaint {
    /// Bytes of the file that are at fault.
    pub span: Range<usize>,
    /// What is wrong, with the offending text in backticks.
    pub what: String,
    /// What to write or do.
    pub instead: String,
}

/// All faults of one file, in the order of their places. Never empty.
#[derive(Debug)]
pub struct Complaints {
    source: Source,
    list: Vec<Complaint>,
}

impl Complaints {
    /// Sorts them by place.
    ///
    /// # Panics
    /// If there are none: a file without faults gives settings.
    #[must_use]
    pub fn new(source: Source, mut list: Vec<Complaint>) -> Self {
        assert!(!list.is_empty(), "complaints come from at least one fault");
        list.sort_by_key(|complaint| complaint.span.start);
        Self { source, list }
    }

    /// Returns them with their places.
    pub fn placed(&self) -> impl Iterator<Item = (Place, &Complaint)> {
        self.list.iter().map(|complaint| (self.source.place(complaint.span.start), complaint))
    }

    /// Returns how many there are, at least one.
    #[must_use]
    pub fn count(&self) -> usize {
        self.list.len()
    }

    /// Returns the text at fault, as far as it lies on its first line.
    #[must_use]
    pub fn text_of(&self, complaint: &Complaint) -> &str {
        self.source.first_line_of(&complaint.span)
    }

    fn write_one(&self, out: &mut impl fmt::Write, complaint: &Complaint) -> fmt::Result {
        let place = self.source.place(complaint.span.start);
        let Place { line, column } = place;
        writeln!(out, "{}:{line}:{column}: {}", self.source.path.display(), complaint.what)?;
        let number = line.to_string();
        let quote = quotable(self.source.line(line));
        writeln!(out, "  {number} | {quote}")?;
        if column <= QUOTE_CHARS_MAX {
            let width = self.text_of(complaint).chars().count().max(1);
            let carets = "^".repeat(width.min(QUOTE_CHARS_MAX + 1 - column));
            let margin = " ".repeat(number.len());
            writeln!(out, "  {margin} | {}{carets}", " ".repeat(column - 1))?;
        }
        writeln!(out, "  write: {}", complaint.instead)
    }
}

impl fmt::Display for Complaints {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for complaint in self.list.iter().take(COMPLAINTS_SHOWN_MAX) {
            self.write_one(formatter, complaint)?;
        }
        match self.count().saturating_sub(COMPLAINTS_SHOWN_MAX) {
            0 => Ok(()),
            more => writeln!(formatter, "and {more} more"),
        }
    }
}

impl error::Error for Complaints {}

/// Returns a line as it may be shown: one column per character, no control characters, not endless.
fn quotable(line: &str) -> String {
    let plain = |letter: char| if letter.is_control() { ' ' } else { letter };
    line.chars().take(QUOTE_CHARS_MAX).map(plain).collect()
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn shown(text: &str, span: Range<usize>) -> String {
        let source = Source::new(Path::new("m.toml"), text.into());
        let complaint = Complaint { span, what: "it is odd".into(), instead: "it right".into() };
        Complaints::new(source, vec![complaint]).to_string()
    }

    #[test]
    fn carets_stand_below_the_fault() {
        assert_eq!(
            shown("a = 1\n\tb = \"é\"\n", 11..15),
            "m.toml:2:6: it is odd\n  2 |  b = \"é\"\n    |      ^^^\n  write: it right\n"
        );
    }

    #[test]
    fn a_long_line_is_cut() {
        let text = shown(&format!("{}x", " ".repeat(500)), 500..501);
        assert!(text.lines().all(|line| line.len() < QUOTE_CHARS_MAX + 20), "{text}");
    }

    #[test]
    fn many_faults_are_counted_not_shown() {
        let source = Source::new(Path::new("m.toml"), "a".into());
        let one = Complaint { span: 0..1, what: "odd".into(), instead: "b".into() };
        let text = Complaints::new(source, vec![one; COMPLAINTS_SHOWN_MAX + 7]).to_string();
        assert!(text.ends_with("and 7 more\n"));
    }
}
