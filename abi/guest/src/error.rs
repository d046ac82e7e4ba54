//! What a function says when it does not answer.

use core::error::Error;
use core::fmt;

use crate::bytes::IntoBytes;

/// Why a function has no answer.
///
/// Mostly it failed: the client gets a 500, the message goes to the host's log. Every `core::error::Error` turns into
/// such a one by `?`; for that to be possible this is none itself. A [`FunctionError::refusal`] goes to the client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FunctionError {
    /// Of a refusal; 0 for a failure.
    status: u16,
    message: &'static [u8],
}

impl FunctionError {
    /// Returns a failure with this message; `format_args!` does as well as a literal.
    #[must_use]
    pub fn new(message: impl IntoBytes<'static>) -> Self {
        Self { status: 0, message: message.into_bytes() }
    }

    /// Returns what refuses a request that is at fault itself: the client gets this status, and the title as
    /// `application/problem+json` (RFC 9457). Nothing is logged.
    #[must_use]
    pub fn refusal(status: u16, title: &str) -> Self {
        let title = Escaped(title);
        let body = format_args!("{{\"status\":{status},\"title\":\"{title}\"}}\n");
        Self { status, message: body.into_bytes() }
    }

    /// Returns a [`FunctionError::refusal`] that says more of this request.
    #[must_use]
    pub fn refusal_with_detail(status: u16, title: &str, detail: &dyn fmt::Display) -> Self {
        let (title, detail) = (Escaped(title), Escaped(detail));
        let body =
            format_args!("{{\"status\":{status},\"title\":\"{title}\",\"detail\":\"{detail}\"}}\n");
        Self { status, message: body.into_bytes() }
    }

    /// Returns the message of a failure, or the body of a refusal.
    #[must_use]
    pub const fn message(&self) -> &[u8] {
        self.message
    }

    /// Returns the status that the client gets.
    #[must_use]
    pub const fn status(&self) -> u16 {
        if self.status == 0 { 500 } else { self.status }
    }

    /// True for what goes to the client.
    #[must_use]
    pub const fn is_refusal(&self) -> bool {
        self.status != 0
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

/// Text that stands in a JSON string (RFC 8259 7).
struct Escaped<T>(T);

impl<T: fmt::Display> fmt::Display for Escaped<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::write(&mut Escaping(f), format_args!("{}", self.0))
    }
}

struct Escaping<'f, 'g>(&'f mut fmt::Formatter<'g>);

impl fmt::Write for Escaping<'_, '_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        text.chars().try_for_each(|letter| match letter {
            '"' | '\\' => write!(self.0, "\\{letter}"),
            control @ '\0'..='\x1F' => write!(self.0, "\\u{:04x}", u32::from(control)),
            other => self.0.write_char(other),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_is_json_whatever_it_says() {
        let refusal = FunctionError::refusal(422, "no \"count\"\n");
        assert_eq!(refusal.message(), b"{\"status\":422,\"title\":\"no \\\"count\\\"\\u000a\"}\n");
        assert_eq!((refusal.status(), refusal.is_refusal()), (422, true));
        let refusal = FunctionError::refusal_with_detail(400, "a", &format_args!("b\\{}", 7));
        assert_eq!(refusal.message(), b"{\"status\":400,\"title\":\"a\",\"detail\":\"b\\\\7\"}\n");
        let failure = FunctionError::new("x");
        assert_eq!((failure.status(), failure.is_refusal()), (500, false));
    }
}
