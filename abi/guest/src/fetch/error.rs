//! Why a request has no response.

use core::error::Error;
use core::fmt;

use crate::layout::ERRORS_FROM;

/// Why a request has no response, or no whole one. Numbered as the host numbers it, and `wasi:http` its
/// `error-code`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
#[repr(u8)]
pub enum FetchError {
    /// The name was not resolved in time.
    DnsTimeout = 0,
    /// The name has no address.
    Dns = 1,
    /// No connection, for another reason than those below.
    Unavailable = 3,
    /// None of its addresses may be connected to.
    Prohibited = 4,
    /// No way to its address.
    Unroutable = 5,
    /// Nobody listens there.
    Refused = 6,
    /// It closed the connection in place of an answer.
    Terminated = 7,
    /// It did not take the connection in time.
    ConnectTimeout = 8,
    /// It stopped in the middle of its response.
    ReadTimeout = 9,
    /// It does not take the request's body.
    WriteTimeout = 10,
    /// There are as many requests under way as may be.
    Limit = 11,
    /// TLS failed.
    Tls = 12,
    /// The server's certificate is not good.
    Certificate = 13,
    /// The server ended TLS.
    Alert = 14,
    /// It may not be asked for: the function's grant does not name it. The host's log says what would.
    Denied = 15,
    /// The request's body has another length than was told.
    BodySize = 17,
    /// The method cannot be sent.
    Method = 18,
    /// The URL cannot be sent.
    Uri = 19,
    /// The response ended before its end.
    Incomplete = 25,
    /// The response's head is too long, for the host or for what is free of the heap.
    HeadTooLong = 26,
    /// The response's body is longer than the function takes. Said by this crate, never by the host.
    BodyTooLong = 28,
    /// A transfer coding other than chunked.
    TransferCoding = 31,
    /// The response did not begin in time.
    ResponseTimeout = 33,
    /// What came is no HTTP.
    Protocol = 35,
    /// The host's own fault; also whatever this crate has no name for.
    Internal = 38,
}

impl FetchError {
    /// All of them, in the order of their numbers.
    pub const ALL: [Self; 25] = [
        Self::DnsTimeout,
        Self::Dns,
        Self::Unavailable,
        Self::Prohibited,
        Self::Unroutable,
        Self::Refused,
        Self::Terminated,
        Self::ConnectTimeout,
        Self::ReadTimeout,
        Self::WriteTimeout,
        Self::Limit,
        Self::Tls,
        Self::Certificate,
        Self::Alert,
        Self::Denied,
        Self::BodySize,
        Self::Method,
        Self::Uri,
        Self::Incomplete,
        Self::HeadTooLong,
        Self::BodyTooLong,
        Self::TransferCoding,
        Self::ResponseTimeout,
        Self::Protocol,
        Self::Internal,
    ];

    /// Returns the error of a negative answer.
    pub(super) fn from_answer(answer: i32) -> Self {
        let code = ERRORS_FROM.wrapping_sub(answer);
        let mut all = Self::ALL.into_iter();
        all.find(|error| i32::from(*error as u8) == code).unwrap_or(Self::Internal)
    }

    /// Returns what to tell: half a sentence.
    #[must_use]
    pub const fn text(self) -> &'static str {
        match self {
            Self::DnsTimeout => "the name was not resolved in time",
            Self::Dns => "the name has no address",
            Self::Unavailable => "the server cannot be reached",
            Self::Prohibited => "the address is not one that may be connected to",
            Self::Unroutable => "there is no way to the address",
            Self::Refused => "nobody listens there",
            Self::Terminated => "the connection was closed before the response",
            Self::ConnectTimeout => "no connection in time",
            Self::ReadTimeout => "the response stopped",
            Self::WriteTimeout => "the request's body is not taken",
            Self::Limit => "as many outgoing requests are under way as may be",
            Self::Tls => "TLS failed",
            Self::Certificate => "the server's certificate is not trusted",
            Self::Alert => "the server refused TLS",
            Self::Denied => "the request is not granted",
            Self::BodySize => "the request's body has another length than was told",
            Self::Method => "the method cannot be sent",
            Self::Uri => "the target cannot be sent",
            Self::Incomplete => "the response is not whole",
            Self::HeadTooLong => "the response's head is too long",
            Self::BodyTooLong => "the response's body is longer than is taken",
            Self::TransferCoding => "the response has an unknown transfer coding",
            Self::ResponseTimeout => "no response in time",
            Self::Protocol => "the response is no HTTP",
            Self::Internal => "a fault of the host's",
        }
    }
}

impl fmt::Display for FetchError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.text())
    }
}

impl Error for FetchError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_of_the_hosts_names_its_error() {
        for error in FetchError::ALL {
            assert_eq!(FetchError::from_answer(-2 - i32::from(error as u8)), error);
        }
        for unknown in [-4, -1000, i32::MIN] {
            assert_eq!(FetchError::from_answer(unknown), FetchError::Internal);
        }
    }
}
