//! The one place that prints results, of the generator and of the lab.

use std::fmt::Arguments;
use std::io::{self, ErrorKind, Write};

/// Prints a line. A reader that has seen enough is no error: `| head -1` closes the pipe.
///
/// # Errors
/// Those of writing, but for that.
pub fn line(text: Arguments<'_>) -> io::Result<()> {
    let mut out = io::stdout().lock();
    match writeln!(out, "{text}") {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        written => written,
    }
}
