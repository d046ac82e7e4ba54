//! What goes to a server and what comes from it, as bytes (RFC 9112).

use std::ops::Range;

use super::FetchError;
use crate::http::chunked::Decoder;

/// Longest head of a response, and most of its lines.
pub(super) const HEAD_BYTES_MAX: usize = 64 * 1024;
/// As [`HEAD_BYTES_MAX`].
pub(super) const HEADER_LINES_MAX: usize = 128;

/// How a request's body is told of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BodyLength {
    /// There is none.
    None,
    /// It has so many bytes.
    Known(u64),
    /// Its end tells: it goes out in chunks.
    Unknown,
}

/// What is asked for. Whoever makes one has checked it: a method is a token, names are tokens, and nothing holds a
/// control character or, but for values, a space.
#[derive(Debug, Clone, Copy)]
pub struct FetchRequest<'a, H> {
    /// Method.
    pub method: &'a [u8],
    /// Path and query.
    pub target: &'a [u8],
    /// Host and port, as they stand in `Host`.
    pub authority: &'a [u8],
    /// Headers; none of framing and connection, which are written here, but for `te: trailers`, and `trailer`, which
    /// is left out where there is no place for trailers.
    pub headers: H,
    /// Its body, that is written piece by piece.
    pub body: BodyLength,
}

impl<'a, H: Iterator<Item = (&'a [u8], &'a [u8])>> FetchRequest<'a, H> {
    /// Returns the head.
    pub(crate) fn encode(self) -> Vec<u8> {
        let mut head = Vec::with_capacity(512);
        for part in [self.method, b" ", self.target, b" HTTP/1.1\r\nhost: ", self.authority] {
            head.extend_from_slice(part);
        }
        head.extend_from_slice(b"\r\n");
        for (name, value) in self.headers {
            if name.eq_ignore_ascii_case(b"trailer") && self.body != BodyLength::Unknown {
                continue;
            }
            for part in [name, b": ", value, b"\r\n"] {
                head.extend_from_slice(part);
            }
            // It is for the next hop alone, which has to be told so (RFC 9110, 10.1.4).
            if name.eq_ignore_ascii_case(b"te") {
                head.extend_from_slice(b"connection: te\r\n");
            }
        }
        match self.body {
            BodyLength::Known(size) => {
                head.extend_from_slice(format!("content-length: {size}\r\n").as_bytes());
            }
            BodyLength::Unknown => head.extend_from_slice(b"transfer-encoding: chunked\r\n"),
            // A server may wait for a length where the method has a body as a rule (RFC 9110, 8.6).
            BodyLength::None if [&b"POST"[..], b"PUT", b"PATCH"].contains(&self.method) => {
                head.extend_from_slice(b"content-length: 0\r\n");
            }
            BodyLength::None => {}
        }
        head.extend_from_slice(b"\r\n");
        head
    }
}

/// Tells whether a request may be sent a second time when a kept connection turns out to be closed (RFC 9110, 9.2.2).
pub(crate) fn is_idempotent(method: &[u8]) -> bool {
    [&b"GET"[..], b"HEAD", b"OPTIONS", b"TRACE", b"PUT", b"DELETE"].contains(&method)
}

/// How a response's body ends.
#[derive(Debug)]
pub(crate) enum Framing {
    /// After so many bytes.
    Length(u64),
    /// By its last chunk.
    Chunked(Decoder),
    /// With the connection.
    UntilClose,
}

/// A response's head. Its lines are ranges of its bytes.
#[derive(Debug)]
pub struct ResponseHead {
    bytes: Vec<u8>,
    status: u16,
    lines: Vec<(Range<usize>, Range<usize>)>,
}

impl ResponseHead {
    /// Returns the status.
    #[must_use]
    pub const fn status(&self) -> u16 {
        self.status
    }

    /// Returns names, as the server wrote them, and values.
    pub fn headers(&self) -> impl ExactSizeIterator<Item = (&[u8], &[u8])> + Clone {
        self.lines
            .iter()
            .map(|(name, value)| (&self.bytes[name.clone()], &self.bytes[value.clone()]))
    }
}

/// A head that was read, and what follows from it.
#[derive(Debug)]
pub(crate) struct Parsed {
    /// The head.
    pub(crate) head: ResponseHead,
    /// Its size.
    pub(crate) size: usize,
    /// How its body ends.
    pub(crate) framing: Framing,
    /// The connection stays.
    pub(crate) keep_alive: bool,
}

/// Reads a head at the start of `bytes`; `None` if it is not whole. Interim responses are heads too.
///
/// # Errors
/// What is no response, or too long, or told in a manner that leaves its end open.
pub(crate) fn parse(bytes: &[u8], is_head_method: bool) -> Result<Option<Parsed>, FetchError> {
    let mut headers = [httparse::EMPTY_HEADER; HEADER_LINES_MAX];
    let mut response = httparse::Response::new(&mut headers);
    let size = match response.parse(bytes) {
        Ok(httparse::Status::Complete(size)) if size <= HEAD_BYTES_MAX => size,
        Ok(httparse::Status::Partial) if bytes.len() <= HEAD_BYTES_MAX => return Ok(None),
        Ok(_) | Err(httparse::Error::TooManyHeaders) => return Err(FetchError::HeadTooLong),
        Err(_) => return Err(FetchError::Protocol),
    };
    let status = response.code.ok_or(FetchError::Protocol)?;
    let minor = response.version.ok_or(FetchError::Protocol)?;
    let of = |part: &[u8]| {
        // Each part is a slice of `bytes`: its place is told by its address.
        let start = part.as_ptr().addr() - bytes.as_ptr().addr();
        start..start + part.len()
    };
    let lines: Vec<_> =
        response.headers.iter().map(|line| (of(line.name.as_bytes()), of(line.value))).collect();
    let mut keep_alive = minor == 1;
    let mut closes = false;
    let (mut length, mut coding) = (None, None);
    for line in response.headers.iter() {
        if line.name.eq_ignore_ascii_case("content-length") {
            let number = number(line.value).ok_or(FetchError::Protocol)?;
            // The same number twice is one (RFC 9112, 6.3); two numbers are an attack.
            if *length.get_or_insert(number) != number {
                return Err(FetchError::Protocol);
            }
        } else if line.name.eq_ignore_ascii_case("transfer-encoding") {
            if coding.is_some() || minor == 0 {
                return Err(FetchError::TransferCoding);
            }
            coding = Some(line.value);
        } else if line.name.eq_ignore_ascii_case("connection") {
            for word in line.value.split(|&byte| byte == b',').map(<[u8]>::trim_ascii) {
                keep_alive |= word.eq_ignore_ascii_case(b"keep-alive");
                closes |= word.eq_ignore_ascii_case(b"close");
            }
        }
    }
    let framing = match (coding, length) {
        _ if is_head_method || status < 200 || [204, 304].contains(&status) => Framing::Length(0),
        // Both together are how responses are smuggled (RFC 9112, 6.3).
        (Some(_), Some(_)) => return Err(FetchError::Protocol),
        (Some(coding), None) if coding.trim_ascii().eq_ignore_ascii_case(b"chunked") => {
            Framing::Chunked(Decoder::new())
        }
        (Some(_), None) => return Err(FetchError::TransferCoding),
        (None, Some(length)) => Framing::Length(length),
        (None, None) => Framing::UntilClose,
    };
    let keep_alive = keep_alive && !closes && !matches!(framing, Framing::UntilClose);
    let head = ResponseHead { bytes: bytes[..size].to_vec(), status, lines };
    Ok(Some(Parsed { head, size, framing, keep_alive }))
}

fn number(digits: &[u8]) -> Option<u64> {
    let is_number = !digits.is_empty() && digits.iter().all(u8::is_ascii_digit);
    std::str::from_utf8(digits).ok().filter(|_| is_number)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn framing(head: &str) -> Result<String, FetchError> {
        let parsed = parse(head.replace('\n', "\r\n").as_bytes(), false)?.expect("whole");
        let framing = match parsed.framing {
            Framing::Length(size) => size.to_string(),
            Framing::Chunked(_) => "chunked".to_owned(),
            Framing::UntilClose => "close".to_owned(),
        };
        Ok(format!("{framing} {}", parsed.keep_alive))
    }

    #[test]
    fn the_end_of_a_body_is_told_in_one_way() {
        use FetchError::{Protocol, TransferCoding};
        for (head, expected) in [
            ("HTTP/1.1 200 OK\ncontent-length: 5\n\n", Ok("5 true")),
            ("HTTP/1.1 200 OK\ncontent-length: 5\nContent-Length: 5\n\n", Ok("5 true")),
            ("HTTP/1.1 200 OK\ncontent-length: 5\ncontent-length: 6\n\n", Err(Protocol)),
            ("HTTP/1.1 200 OK\ncontent-length: 5, 5\n\n", Err(Protocol)),
            ("HTTP/1.1 200 OK\ncontent-length: +5\n\n", Err(Protocol)),
            ("HTTP/1.1 200 OK\ncontent-length: 99999999999999999999\n\n", Err(Protocol)),
            ("HTTP/1.1 200 OK\nTransfer-Encoding: Chunked\n\n", Ok("chunked true")),
            ("HTTP/1.1 200 OK\ntransfer-encoding: gzip, chunked\n\n", Err(TransferCoding)),
            ("HTTP/1.0 200 OK\ntransfer-encoding: chunked\n\n", Err(TransferCoding)),
            ("HTTP/1.1 200 OK\ntransfer-encoding: chunked\ncontent-length: 5\n\n", Err(Protocol)),
            ("HTTP/1.1 200 OK\n\n", Ok("close false")),
            ("HTTP/1.1 204 No\ncontent-length: 5\n\n", Ok("0 true")),
            ("HTTP/1.1 304 No\ntransfer-encoding: chunked\n\n", Ok("0 true")),
            ("HTTP/1.0 200 OK\ncontent-length: 5\n\n", Ok("5 false")),
            ("HTTP/1.0 200 OK\nconnection: Keep-Alive\ncontent-length: 5\n\n", Ok("5 true")),
            ("HTTP/1.1 200 OK\nconnection: x, close\ncontent-length: 5\n\n", Ok("5 false")),
            (
                "HTTP/1.1 200 OK\nconnection: close, keep-alive\ncontent-length: 5\n\n",
                Ok("5 false"),
            ),
            ("HTTP/2.0 200 OK\n\n", Err(Protocol)),
            ("SSH-2.0-server\n\n", Err(Protocol)),
        ] {
            assert_eq!(framing(head), expected.map(str::to_owned), "{head}");
        }
    }

    #[test]
    fn a_head_of_any_size_ends() {
        let long = format!("HTTP/1.1 200 OK\r\nx: {}", "y".repeat(HEAD_BYTES_MAX));
        assert_eq!(parse(long.as_bytes(), false).unwrap_err(), FetchError::HeadTooLong);
        let lines = format!("HTTP/1.1 200 OK\r\n{}\r\n", "x: y\r\n".repeat(HEADER_LINES_MAX + 1));
        assert_eq!(parse(lines.as_bytes(), false).unwrap_err(), FetchError::HeadTooLong);
        assert!(parse(b"HTTP/1.1 200 OK\r\nx: y\r\n", false).unwrap().is_none());
    }

    #[test]
    fn a_head_is_written_with_its_framing() {
        let encode = |method: &'static str, body| {
            let headers = [(&b"accept"[..], &b"*/*"[..])].into_iter();
            let request = FetchRequest {
                method: method.as_bytes(),
                target: b"/a?b",
                authority: b"host:81",
                headers,
                body,
            };
            String::from_utf8(request.encode()).unwrap()
        };
        assert_eq!(
            encode("GET", BodyLength::None),
            "GET /a?b HTTP/1.1\r\nhost: host:81\r\naccept: */*\r\n\r\n"
        );
        assert!(encode("POST", BodyLength::None).ends_with("\r\ncontent-length: 0\r\n\r\n"));
        assert!(encode("PUT", BodyLength::Known(7)).ends_with("\r\ncontent-length: 7\r\n\r\n"));
        assert!(encode("PUT", BodyLength::Unknown).ends_with("chunked\r\n\r\n"));
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_break_the_parser(
            bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..512),
            start in proptest::prelude::any::<bool>(),
        ) {
            let mut all = if start { b"HTTP/1.1 200 OK\r\n".to_vec() } else { Vec::new() };
            all.extend_from_slice(&bytes);
            if let Ok(Some(parsed)) = parse(&all, false) {
                proptest::prop_assert!(parsed.size <= all.len());
                for (name, value) in parsed.head.headers() {
                    proptest::prop_assert!(!name.is_empty());
                    proptest::prop_assert!(!value.contains(&b'\n'));
                }
            }
        }
    }
}
