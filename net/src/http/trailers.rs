//! Fields behind a body (RFC 9110, 6.5): kept apart from those of the head, whoever sent them.
//!
//! ```text
//!   as kept:  | name : value LF | name : value LF |        names in lower case
//!   as sent:  0 CRLF | name: value CRLF |... CRLF          the last chunk begins the section
//! ```
//!
//! Invariant: a field that has to be known before the body, or that says who speaks and where a message ends, is
//! left out both ways: what a head must say, nothing behind a body says in its stead.
//! Not here: the grammar (`chunked.rs`).

use super::characters::{NAME, is_value};
use super::response::Unsendable;

/// Size of a body's trailers, names and values with what is between them.
pub const TRAILER_BYTES_MAX: u32 = 8 * 1024;

/// Trailers of a body: as many lines as a response of a guest may have, so that what came can be passed on.
pub const TRAILERS_MAX: u8 = 64;

/// The fields behind a body, as far as they may stand there.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Trailers {
    // INVARIANT: whole lines, but for the last one while it arrives; each has a colon before anything else that a
    // name may not have, and no line feed but its last.
    lines: Vec<u8>,
    count: u8,
}

impl Trailers {
    /// Returns none. Takes no memory.
    #[must_use]
    pub const fn new() -> Self {
        Self { lines: Vec::new(), count: 0 }
    }

    /// Returns names in lower case, and values without the space around them, in the order of their arrival.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&[u8], &[u8])> + Clone {
        Lines { rest: &self.lines, left: self.count.into() }
    }

    /// True if there are none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Returns the memory that they take.
    #[must_use]
    pub(crate) const fn bytes(&self) -> usize {
        self.lines.capacity()
    }

    /// Takes a byte of a line: of its name, the colon, or of its value.
    pub(super) fn push(&mut self, byte: u8) {
        self.lines.push(byte);
    }

    /// Ends a line. One that may not be a trailer is forgotten.
    pub(super) fn end_line(&mut self) {
        let start = self.lines.iter().rposition(|&byte| byte == b'\n').map_or(0, |end| end + 1);
        let name = self.lines[start..].split(|&byte| byte == b':').next().unwrap_or_default();
        if may_be_trailer(name) {
            self.lines.push(b'\n');
            self.count += 1;
        } else {
            self.lines.truncate(start);
        }
    }
}

/// Goes through lines as they are kept.
#[derive(Debug, Clone)]
struct Lines<'a> {
    rest: &'a [u8],
    left: usize,
}

impl<'a> Iterator for Lines<'a> {
    type Item = (&'a [u8], &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        self.left = self.left.checked_sub(1)?;
        let end = self.rest.iter().position(|&byte| byte == b'\n')?;
        let (line, rest) = self.rest.split_at(end);
        self.rest = &rest[1..];
        let colon = line.iter().position(|&byte| byte == b':')?;
        Some((&line[..colon], line[colon + 1..].trim_ascii()))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.left, Some(self.left))
    }
}

impl ExactSizeIterator for Lines<'_> {}

/// Tells whether a field may stand behind a body.
///
/// RFC 9110, 6.5.1 keeps out what a message's framing, its way, its sender's rights, its conditions and controls,
/// and its content's form depend on, and leaves the rest to each field's definition. Those that are unknown here
/// pass, for that is what trailers are used for: checksums, signatures, times, the status of gRPC. `Content-Digest`
/// passes by its own definition (RFC 9530, 6.2). `Forwarded` and its like say who the client is, which a proxy has
/// checked in the head alone.
#[must_use]
pub fn may_be_trailer(name: &[u8]) -> bool {
    const NAMES: [&[u8]; 33] = [
        // Framing and connection.
        b"connection",
        b"http2-settings",
        b"keep-alive",
        b"proxy-connection",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
        // The way.
        b"forwarded",
        b"host",
        b"max-forwards",
        b"x-real-ip",
        // Rights.
        b"authorization",
        b"cookie",
        b"proxy-authenticate",
        b"proxy-authorization",
        b"set-cookie",
        b"www-authenticate",
        // Conditions and controls of requests.
        b"cache-control",
        b"expect",
        b"if-match",
        b"if-modified-since",
        b"if-none-match",
        b"if-range",
        b"if-unmodified-since",
        b"pragma",
        b"range",
        // Controls of responses.
        b"age",
        b"expires",
        b"location",
        b"retry-after",
        b"vary",
        b"warning",
    ];
    const PREFIXES: [&[u8]; 2] = [b"content-", b"x-forwarded-"];
    let begins = |prefix: &&[u8]| {
        name.get(..prefix.len()).is_some_and(|front| front.eq_ignore_ascii_case(prefix))
    };
    let is = |other: &&[u8]| name.eq_ignore_ascii_case(other);
    !NAMES.iter().any(is)
        && (!PREFIXES.iter().any(begins) || name.eq_ignore_ascii_case(b"content-digest"))
}

/// Returns the most bytes that [`write_last_chunk`] writes.
pub(crate) fn last_chunk_bytes<'a>(trailers: impl Iterator<Item = (&'a [u8], &'a [u8])>) -> usize {
    const FRAME: usize = b"0\r\n\r\n".len();
    const LINE: usize = b": \r\n".len();
    trailers.fold(FRAME, |size, (name, value)| size + name.len() + value.len() + LINE)
}

/// Writes the end of a body in chunks, with the fields behind it (RFC 9112, 7.1.2). Those that may not be trailers
/// are left out.
///
/// # Errors
/// [`Unsendable`] if a name or a value has a byte that could break out of its place; `output` is as it was then.
pub(crate) fn write_last_chunk<'a>(
    output: &mut Vec<u8>,
    trailers: impl Iterator<Item = (&'a [u8], &'a [u8])>,
) -> Result<(), Unsendable> {
    let start = output.len();
    output.extend_from_slice(b"0\r\n");
    for (name, value) in trailers {
        let is_token = !name.is_empty() && name.iter().all(|&byte| NAME[usize::from(byte)] != 0);
        if !is_token || !value.iter().all(|&byte| is_value(byte)) {
            output.truncate(start);
            return Err(Unsendable);
        }
        if may_be_trailer(name) {
            for part in [name, b": ", value, b"\r\n"] {
                output.extend_from_slice(part);
            }
        }
    }
    output.extend_from_slice(b"\r\n");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_head_must_say_is_no_trailer() {
        for name in [
            "Content-Length",
            "transfer-encoding",
            "HOST",
            "Trailer",
            "te",
            "Authorization",
            "set-cookie",
            "content-type",
            "Content-Encoding",
            "content-range",
            "cache-control",
            "Expect",
            "max-forwards",
            "if-none-match",
            "location",
            "X-Forwarded-For",
        ] {
            assert!(!may_be_trailer(name.as_bytes()), "{name}");
        }
        for name in
            ["grpc-status", "Server-Timing", "etag", "Content-Digest", "digest", "x", "content"]
        {
            assert!(may_be_trailer(name.as_bytes()), "{name}");
        }
    }

    fn write(trailers: &[(&str, &str)]) -> Result<String, Unsendable> {
        let lines = trailers.iter().map(|(name, value)| (name.as_bytes(), value.as_bytes()));
        let mut output = b"5\r\nhello\r\n".to_vec();
        let written = write_last_chunk(&mut output, lines.clone());
        assert!(output.len() <= 10 + last_chunk_bytes(lines));
        assert!(written.is_ok() || output == b"5\r\nhello\r\n");
        written.map(|()| String::from_utf8(output).unwrap().split_off(10).replace("\r\n", "|"))
    }

    #[test]
    fn the_last_chunk_carries_what_it_may() {
        assert_eq!(write(&[]).unwrap(), "0||");
        assert_eq!(write(&[("grpc-status", "0"), ("x", "")]).unwrap(), "0|grpc-status: 0|x: ||");
        assert_eq!(write(&[("Content-Length", "7"), ("x", "y")]).unwrap(), "0|x: y||");
        for bad in
            [("a", "b\r\nc: d"), ("a\r\nb", "c"), ("", "c"), ("a b", "c"), ("a", "\0"), ("a:", "b")]
        {
            assert_eq!(write(&[("x", "y"), bad]), Err(Unsendable), "{bad:?}");
        }
    }
}
