//! Why the network layer did not take a request.
//!
//! Small and without text: it maps to a status and to a counter. The body of the answer is the host's.

use std::fmt;

/// Why a request was refused before anything could be routed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Refusal {
    /// The request line is not `method SP target SP version CRLF` (RFC 9112, 3).
    RequestLine,
    /// More empty lines before the request line than [`super::request::EMPTY_LINES_MAX`].
    EmptyLines,
    /// The target has a byte or a form that is not allowed (RFC 9112, 3.2).
    Target,
    /// A header's name is empty or has a byte outside `token`; also folded lines (RFC 9112, 5).
    HeaderName,
    /// A header's value has a control character or a bare CR or LF (RFC 9110, 5.5).
    HeaderValue,
    /// `Host` is missing, repeated or not a host (RFC 9112, 3.2).
    Host,
    /// `Content-Length` is repeated or not a number (RFC 9112, 6.3).
    ContentLength,
    /// `Transfer-Encoding` is malformed, in HTTP/1.0, or does not end in one `chunked` (RFC 9112, 6.1).
    TransferEncoding,
    /// Both framings at once (RFC 9112, 6.3).
    FramingTwice,
    /// The body's chunks are malformed (RFC 9112, 7.1).
    Chunk,
    /// Chunk extensions or trailers beyond their limits.
    ChunkOverhead,
    /// The request did not arrive in time.
    RequestTimeout,
    /// The body is longer than the host admitted.
    BodyTooLarge,
    /// The target is longer than [`super::request::TARGET_BYTES_MAX`].
    TargetTooLong,
    /// `Expect` holds something other than `100-continue`.
    Expectation,
    /// The head is longer than [`super::request::HEAD_BYTES_MAX`].
    HeadTooLarge,
    /// More header lines than [`super::request::HEADERS_MAX`].
    HeadersTooMany,
    /// The method is not one of [`super::request::Method`].
    MethodUnknown,
    /// A transfer coding other than `chunked`.
    CodingUnknown,
    /// A major version other than 1.
    VersionUnsupported,
    /// All bodies together are as large as they may be.
    BodiesFull,
}

impl Refusal {
    /// How many there are.
    pub const COUNT: usize = 21;

    /// All of them, in the order of their numbers.
    pub const ALL: [Self; Self::COUNT] = [
        Self::RequestLine,
        Self::EmptyLines,
        Self::Target,
        Self::HeaderName,
        Self::HeaderValue,
        Self::Host,
        Self::ContentLength,
        Self::TransferEncoding,
        Self::FramingTwice,
        Self::Chunk,
        Self::ChunkOverhead,
        Self::RequestTimeout,
        Self::BodyTooLarge,
        Self::TargetTooLong,
        Self::Expectation,
        Self::HeadTooLarge,
        Self::HeadersTooMany,
        Self::MethodUnknown,
        Self::CodingUnknown,
        Self::VersionUnsupported,
        Self::BodiesFull,
    ];

    /// Returns the status that answers it.
    #[must_use]
    pub const fn status(self) -> u16 {
        match self {
            Self::RequestLine
            | Self::EmptyLines
            | Self::Target
            | Self::HeaderName
            | Self::HeaderValue
            | Self::Host
            | Self::ContentLength
            | Self::TransferEncoding
            | Self::FramingTwice
            | Self::Chunk
            | Self::ChunkOverhead => 400,
            Self::RequestTimeout => 408,
            Self::BodyTooLarge => 413,
            Self::TargetTooLong => 414,
            Self::Expectation => 417,
            Self::HeadTooLarge | Self::HeadersTooMany => 431,
            Self::MethodUnknown | Self::CodingUnknown => 501,
            Self::BodiesFull => 503,
            Self::VersionUnsupported => 505,
        }
    }

    /// Returns its name for metrics, in words joined by `-`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::RequestLine => "request-line",
            Self::EmptyLines => "empty-lines",
            Self::Target => "target",
            Self::HeaderName => "header-name",
            Self::HeaderValue => "header-value",
            Self::Host => "host",
            Self::ContentLength => "content-length",
            Self::TransferEncoding => "transfer-encoding",
            Self::FramingTwice => "framing-twice",
            Self::Chunk => "chunk",
            Self::ChunkOverhead => "chunk-overhead",
            Self::RequestTimeout => "request-timeout",
            Self::BodyTooLarge => "body-too-large",
            Self::TargetTooLong => "target-too-long",
            Self::Expectation => "expectation",
            Self::HeadTooLarge => "head-too-large",
            Self::HeadersTooMany => "headers-too-many",
            Self::MethodUnknown => "method-unknown",
            Self::CodingUnknown => "coding-unknown",
            Self::VersionUnsupported => "version-unsupported",
            Self::BodiesFull => "bodies-full",
        }
    }

    /// Returns its index in [`Refusal::ALL`] and in the counters.
    #[must_use]
    pub const fn index(self) -> usize {
        self as usize
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_index_names_the_refusal_it_came_from() {
        for (index, refusal) in Refusal::ALL.into_iter().enumerate() {
            assert_eq!(refusal.index(), index);
            assert!((400..600).contains(&refusal.status()));
        }
    }
}
