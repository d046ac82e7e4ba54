//! Lines for the host's log: `midge_guest::log!(Level::Info, "took {count}")`. Dropped outside of wasm.

use core::fmt;

use crate::host;

/// A line is cut here: the host would do so anyhow.
pub const LOG_LINE_BYTES_MAX: usize = 1024;

/// How much a line matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Level {
    /// Something failed.
    Error = 1,
    /// Something is odd.
    Warn = 2,
    /// Worth a line.
    Info = 3,
    /// For whoever looks for a fault.
    Debug = 4,
}

/// Writes one line, formatted on the stack: this works when the heap is used up too.
pub fn line(level: Level, message: fmt::Arguments<'_>) {
    if let Some(constant) = message.as_str() {
        return host::log(level, constant.as_bytes());
    }
    let mut text = Line { bytes: [0; LOG_LINE_BYTES_MAX], size: 0 };
    // An error means that the rest was cut or a Display failed: what there is goes to the log.
    let _cut = fmt::write(&mut text, message);
    host::log(level, &text.bytes[..text.size]);
}

/// Writes a formatted line: `log!(Level::Warn, "no item {id}")`.
#[macro_export]
macro_rules! log {
    ($level:expr, $($message:tt)+) => {
        $crate::log::line($level, ::core::format_args!($($message)+))
    };
}

struct Line {
    bytes: [u8; LOG_LINE_BYTES_MAX],
    size: usize,
}

impl fmt::Write for Line {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let free = &mut self.bytes[self.size..];
        let size = text.len().min(free.len());
        free[..size].copy_from_slice(&text.as_bytes()[..size]);
        self.size += size;
        if size < text.len() { Err(fmt::Error) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use core::fmt::Write;

    use super::*;

    #[test]
    fn a_long_line_is_cut() {
        let mut text = Line { bytes: [0; LOG_LINE_BYTES_MAX], size: 0 };
        assert!(write!(text, "{:1000}", "").is_ok());
        assert!(write!(text, "{:100}", "").is_err());
        assert_eq!(text.size, LOG_LINE_BYTES_MAX);
    }
}
