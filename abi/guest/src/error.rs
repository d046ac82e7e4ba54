//! What a function says when it fails.

use core::error::Error;
use core::fmt;

use crate::bytes::IntoBytes;

/// Why a function failed: the client gets a 500, the message goes to the host's log.
///
/// Every `core::error::Error` turns into one by `?`. For that to be possible it is none itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FunctionError {
    message: &'static [u8],
}

impl FunctionError {
    /// Returns an error with this message; `format_args!` does as well as a literal.
    #[must_use]
    pub fn new(message: impl IntoBytes<'static>) -> Self {
        Self { message: message.into_bytes() }
    }

    /// Returns the message.
    #[must_use]
    pub const fn message(&self) -> &[u8] {
        self.message
    }
}

impl<E: Error> From<E> for FunctionError {
    fn from(error: E) -> Self {
        Self::new(format_args!("{error}"))
    }
}

impl fmt::Display for FunctionError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.message.escape_ascii())
    }
}
