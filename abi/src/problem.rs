//! Refusals on the data plane: `application/problem+json` (RFC 9457), one table.
//!
//! A row says what happened and what the caller can do. Tenants see neither paths nor addresses; the log
//! has the details under the request id that stands in `instance`.

use std::fmt;

/// What a refusal's body is (RFC 9457, section 3).
pub const MEDIA_TYPE: &str = "application/problem+json";

/// Why a request got no answer of its function.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Problem {
    /// The bytes are no HTTP request that we accept.
    BadRequest,
    /// No route has this path.
    NotFound,
    /// The method is known and not allowed here.
    MethodNotAllowed,
    /// The head did not arrive in time.
    RequestTimeout,
    /// The file is not what the client thinks it is.
    PreconditionFailed,
    /// The body is longer than the function takes.
    BodyTooLarge,
    /// The target is too long.
    TargetTooLong,
    /// The file has no such part.
    RangeNotSatisfiable,
    /// An expectation other than 100-continue.
    ExpectationFailed,
    /// Too many headers, or too long ones.
    HeadersTooLarge,
    /// A file could not be read.
    FileFailed,
    /// The guest said that it failed.
    FunctionFailed,
    /// A method or transfer coding that we do not have.
    NotImplemented,
    /// The guest trapped.
    Trapped,
    /// The guest's response breaks the contract.
    BadResponse,
    /// The worker has no slot free for this function.
    Overloaded,
    /// The host is about to stop.
    Draining,
    /// No instance could be started.
    StartFailed,
    /// The function ran past its deadline.
    DeadlineExceeded,
    /// HTTP/2 or another version.
    VersionNotSupported,
}

/// One row of the table.
#[derive(Debug, Clone, Copy)]
pub struct Row {
    /// Last part of the type: `urn:midge:problem:SLUG`, and the name under which it is counted.
    pub slug: &'static str,
    /// Status code.
    pub status: u16,
    /// What happened.
    pub title: &'static str,
    /// What the caller can do.
    pub detail: &'static str,
}

impl Problem {
    /// All rows, for the manual and for counters.
    pub const ALL: [Self; 20] = [
        Self::BadRequest,
        Self::NotFound,
        Self::MethodNotAllowed,
        Self::RequestTimeout,
        Self::PreconditionFailed,
        Self::BodyTooLarge,
        Self::TargetTooLong,
        Self::RangeNotSatisfiable,
        Self::ExpectationFailed,
        Self::HeadersTooLarge,
        Self::FileFailed,
        Self::FunctionFailed,
        Self::NotImplemented,
        Self::Trapped,
        Self::BadResponse,
        Self::Overloaded,
        Self::Draining,
        Self::StartFailed,
        Self::DeadlineExceeded,
        Self::VersionNotSupported,
    ];

    /// Returns the row.
    #[must_use]
    pub const fn row(self) -> Row {
        let (slug, status, title, detail) = match self {
            Self::BadRequest => (
                "bad-request",
                400,
                "The request is malformed",
                "send a request that follows RFC 9112; the connection is closed",
            ),
            Self::NotFound => {
                ("not-found", 404, "Nothing has this path", "check the path and the host")
            }
            Self::MethodNotAllowed => (
                "method-not-allowed",
                405,
                "The method is not allowed here",
                "use a method that the Allow header names",
            ),
            Self::RequestTimeout => (
                "request-timeout",
                408,
                "The request did not arrive in time",
                "send the whole request without long pauses",
            ),
            Self::PreconditionFailed => (
                "precondition-failed",
                412,
                "The file is not what the request asks for",
                "fetch it anew; it was changed",
            ),
            Self::BodyTooLarge => (
                "body-too-large",
                413,
                "The body is longer than the function takes",
                "send less, or raise the function's `body` limit or its request area",
            ),
            Self::TargetTooLong => {
                ("target-too-long", 414, "The target is too long", "shorten path and query")
            }
            Self::RangeNotSatisfiable => (
                "range-not-satisfiable",
                416,
                "The file has no such part",
                "ask for a range within the size that Content-Range tells",
            ),
            Self::ExpectationFailed => (
                "expectation-failed",
                417,
                "The expectation cannot be met",
                "only 100-continue is known; leave the Expect header out",
            ),
            Self::HeadersTooLarge => (
                "headers-too-large",
                431,
                "The headers are too many or too long",
                "send fewer or shorter headers",
            ),
            Self::FileFailed => (
                "file-failed",
                500,
                "The file could not be read",
                "the cause stands in the host's log under this request id",
            ),
            Self::FunctionFailed => (
                "function-failed",
                500,
                "The function reported an error",
                "its message stands in the host's log under this request id",
            ),
            Self::NotImplemented => (
                "not-implemented",
                501,
                "The method or transfer coding is not implemented",
                "use a registered method and no transfer coding but chunked",
            ),
            Self::Trapped => (
                "trapped",
                502,
                "The function trapped",
                "the backtrace stands in the host's log under this request id",
            ),
            Self::BadResponse => (
                "bad-response",
                502,
                "The function's response breaks the contract",
                "the fault stands in the host's log under this request id",
            ),
            Self::Overloaded => (
                "overloaded",
                503,
                "All slots of this function are busy",
                "try again later, or raise the function's `concurrency`",
            ),
            Self::Draining => {
                ("draining", 503, "The host is about to stop", "try again on another connection")
            }
            Self::StartFailed => (
                "start-failed",
                503,
                "No instance could be started",
                "the cause stands in the host's log under this request id",
            ),
            Self::DeadlineExceeded => (
                "deadline-exceeded",
                504,
                "The function ran past its deadline",
                "raise the function's `deadline` or do less per request",
            ),
            Self::VersionNotSupported => (
                "version-not-supported",
                505,
                "The protocol version is not supported",
                "speak HTTP/1.1",
            ),
        };
        Row { slug, status, title, detail }
    }

    /// Returns the position in [`Problem::ALL`].
    #[must_use]
    pub const fn index(self) -> usize {
        self as usize
    }

    /// Writes the JSON body for one request.
    ///
    /// # Errors
    /// Those of `out`.
    pub fn write_json(self, out: &mut impl fmt::Write, request_id: &[u8; 16]) -> fmt::Result {
        let Row { slug, status, title, detail } = self.row();
        writeln!(
            out,
            "{{\"type\":\"urn:midge:problem:{slug}\",\"status\":{status},\"title\":\"{title}\",\
             \"detail\":\"{detail}\",\"instance\":\"urn:midge:request:{}\"}}",
            Hex(request_id)
        )
    }
}

/// Bytes shown in lower-case hexadecimal.
#[derive(Debug, Clone, Copy)]
pub struct Hex<'a>(pub &'a [u8]);

impl fmt::Display for Hex<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(formatter, "{byte:02x}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_complete_and_in_order() {
        for (position, problem) in Problem::ALL.into_iter().enumerate() {
            assert_eq!(problem.index(), position);
            let row = problem.row();
            assert!((400..600).contains(&row.status));
            let plain = [row.slug, row.title, row.detail].concat();
            assert!(
                !plain.contains(['"', '\\']),
                "the text is written into JSON as it is: {plain}"
            );
        }
    }

    #[test]
    fn slugs_are_unique() {
        let mut slugs: Vec<_> = Problem::ALL.iter().map(|problem| problem.row().slug).collect();
        slugs.sort_unstable();
        slugs.dedup();
        assert_eq!(slugs.len(), Problem::ALL.len());
    }

    #[test]
    fn the_body_names_the_request() {
        let mut body = String::new();
        Problem::Overloaded.write_json(&mut body, &[0xAB; 16]).unwrap();
        assert!(body.starts_with("{\"type\":\"urn:midge:problem:overloaded\",\"status\":503,"));
        assert!(body.ends_with("urn:midge:request:abababababababababababababababab\"}\n"));
    }
}
