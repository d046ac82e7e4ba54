//! Bytes become responses, in whatever pieces they come.
//!
//! Heads are read by httparse; bodies by length, in chunks, or to the end of the connection. What is read is
//! handed to a [`Sink`] at once, so a body needs no room here.

use midge_net::http::chunked::Decoder;

/// Size of a response's head.
pub const HEAD_BYTES_MAX: usize = 64 * 1024;

/// Headers of a response.
const HEADERS_MAX: usize = 96;

/// What a head says of what follows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Facts {
    /// Status code.
    pub status: u16,
    /// Content-Length, if it was sent.
    pub length: Option<u64>,
    /// True if this is the connection's last response.
    pub is_last: bool,
}

/// Why bytes are no response.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Malformed {
    /// The head is not HTTP/1.1, or larger than [`HEAD_BYTES_MAX`].
    Head,
    /// The length is not a number, or lengths differ, or chunks are mixed with a length.
    Length,
    /// Chunks are malformed.
    Chunk,
}

/// Who takes what is read.
pub trait Sink {
    /// Takes a head; returns false if no body follows whatever it says (HEAD).
    ///
    /// # Errors
    /// If no response is expected now.
    fn head(&mut self, facts: Facts) -> Result<bool, Unexpected>;

    /// Takes a piece of the body.
    fn body(&mut self, bytes: &[u8]);

    /// Takes the end of the response.
    fn end(&mut self);
}

/// No response was expected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unexpected;

/// Why reading ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReadError {
    /// The bytes are no response.
    Malformed(Malformed),
    /// Bytes came though every request had its response.
    Unexpected,
}

impl From<Malformed> for ReadError {
    fn from(malformed: Malformed) -> Self {
        Self::Malformed(malformed)
    }
}

impl From<Unexpected> for ReadError {
    fn from(Unexpected: Unexpected) -> Self {
        Self::Unexpected
    }
}

/// Where a connection stands between two pieces.
#[derive(Debug)]
pub struct Reader {
    state: State,
    /// The beginning of a head whose end has not come.
    partial: Vec<u8>,
}

#[derive(Debug)]
enum State {
    Head,
    Length(u64),
    Chunks(Decoder),
    ToTheEnd,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Framing {
    Length(Option<u64>),
    Chunks,
}

impl Default for Reader {
    fn default() -> Self {
        Self::new()
    }
}

impl Reader {
    /// Makes a reader that expects a head.
    #[must_use]
    pub const fn new() -> Self {
        Self { state: State::Head, partial: Vec::new() }
    }

    /// Forgets what was read: another connection begins.
    pub fn reset(&mut self) {
        self.state = State::Head;
        self.partial.clear();
    }

    /// Tells whether a response has begun and not ended.
    #[must_use]
    pub fn is_within(&self) -> bool {
        !matches!(self.state, State::Head) || !self.partial.is_empty()
    }

    /// Takes the end of the connection; returns true if it ended a response that goes to the end.
    pub fn finish(&mut self, sink: &mut impl Sink) -> bool {
        let is_end = matches!(self.state, State::ToTheEnd);
        if is_end {
            self.state = State::Head;
            sink.end();
        }
        is_end
    }

    /// Takes bytes, which it may change.
    ///
    /// # Errors
    /// [`ReadError`]; the connection is of no use then.
    pub fn read(&mut self, mut bytes: &mut [u8], sink: &mut impl Sink) -> Result<(), ReadError> {
        while !bytes.is_empty() {
            let read = match &mut self.state {
                State::Head => self.read_head(bytes, sink)?,
                State::Length(left) => {
                    let size = usize::try_from(*left).unwrap_or(usize::MAX).min(bytes.len());
                    sink.body(&bytes[..size]);
                    *left -= size as u64;
                    if *left == 0 {
                        self.state = State::Head;
                        sink.end();
                    }
                    size
                }
                State::Chunks(decoder) => {
                    let decoded = decoder.decode(bytes, 0, 0).map_err(|_| Malformed::Chunk)?;
                    sink.body(&bytes[..decoded.written]);
                    if decoded.is_complete {
                        self.state = State::Head;
                        sink.end();
                    }
                    decoded.read
                }
                State::ToTheEnd => {
                    sink.body(bytes);
                    bytes.len()
                }
            };
            bytes = &mut bytes[read..];
        }
        Ok(())
    }

    /// Reads a head, or keeps the beginning of one; returns how many bytes were taken.
    fn read_head(&mut self, bytes: &[u8], sink: &mut impl Sink) -> Result<usize, ReadError> {
        if self.partial.is_empty() {
            if let Some(size) = self.parse(bytes, sink)? {
                return Ok(size);
            }
            self.partial.extend_from_slice(bytes);
            return Ok(bytes.len());
        }
        let before = self.partial.len();
        let mut partial = std::mem::take(&mut self.partial);
        partial.extend_from_slice(bytes);
        let size = self.parse(&partial, sink)?;
        if size.is_some() {
            partial.clear();
        }
        self.partial = partial;
        Ok(size.map_or(bytes.len(), |size| {
            debug_assert!(before < size, "the end came with the last piece");
            size - before
        }))
    }

    /// Parses a head that starts at the first byte; returns its size if it is whole.
    fn parse(&mut self, bytes: &[u8], sink: &mut impl Sink) -> Result<Option<usize>, ReadError> {
        let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
        let mut response = httparse::Response::new(&mut headers);
        let size = match response.parse(bytes) {
            Ok(httparse::Status::Complete(size)) => size,
            Ok(httparse::Status::Partial) if bytes.len() <= HEAD_BYTES_MAX => return Ok(None),
            _ => return Err(Malformed::Head.into()),
        };
        let status = response.code.ok_or(Malformed::Head)?;
        if status / 100 == 1 && status != 101 {
            return Ok(Some(size));
        }
        let is_old = response.version == Some(0);
        let (framing, is_last) = framing(response.headers, is_old)?;
        let length = if let Framing::Length(length) = framing { length } else { None };
        let may_have_body = sink.head(Facts { status, length, is_last })?;
        let has_body = may_have_body && status != 204 && status != 304;
        self.state = match framing {
            _ if !has_body => State::Head,
            Framing::Length(Some(0)) => State::Head,
            Framing::Length(Some(length)) => State::Length(length),
            Framing::Chunks => State::Chunks(Decoder::new()),
            Framing::Length(None) => State::ToTheEnd,
        };
        if matches!(self.state, State::Head) {
            sink.end();
        }
        Ok(Some(size))
    }
}

/// Returns how the body is framed (RFC 9112, 6.3), and whether the connection ends with it.
fn framing(headers: &[httparse::Header<'_>], is_old: bool) -> Result<(Framing, bool), Malformed> {
    let mut length = None;
    let mut is_chunked = false;
    let mut is_last = is_old;
    for header in headers {
        let is = |name: &str| header.name.eq_ignore_ascii_case(name);
        match header.name.len() {
            10 if is("connection") => {
                if header.value.eq_ignore_ascii_case(b"close") {
                    is_last = true;
                } else if header.value.eq_ignore_ascii_case(b"keep-alive") {
                    is_last = false;
                }
            }
            14 if is("content-length") => {
                let text = std::str::from_utf8(header.value).map_err(|_| Malformed::Length)?;
                let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
                let value = text.parse::<u64>().ok().filter(|_| is_number);
                let value = value.ok_or(Malformed::Length)?;
                if length.replace(value).is_some_and(|before| before != value) {
                    return Err(Malformed::Length);
                }
            }
            17 if is("transfer-encoding") => {
                if !header.value.eq_ignore_ascii_case(b"chunked") {
                    return Err(Malformed::Length);
                }
                is_chunked = true;
            }
            _ => {}
        }
    }
    match (is_chunked, length) {
        (true, Some(_)) => Err(Malformed::Length),
        (true, None) => Ok((Framing::Chunks, is_last)),
        (false, length) => Ok((Framing::Length(length), is_last)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Default, Debug, PartialEq, Eq)]
    struct Log {
        responses: Vec<(u16, Vec<u8>, bool)>,
        open: Option<(u16, Vec<u8>, bool)>,
        heads_only: bool,
    }

    impl Sink for Log {
        fn head(&mut self, facts: Facts) -> Result<bool, Unexpected> {
            self.open = Some((facts.status, Vec::new(), facts.is_last));
            Ok(!self.heads_only)
        }

        fn body(&mut self, bytes: &[u8]) {
            self.open.as_mut().expect("a head came first").1.extend_from_slice(bytes);
        }

        fn end(&mut self) {
            self.responses.push(self.open.take().expect("a head came first"));
        }
    }

    /// Reads `text` in two pieces at every split, and whole; all must say the same.
    fn read(text: &[u8]) -> Result<Log, ReadError> {
        let whole = read_in(text, text.len());
        for split in 0..text.len() {
            assert_eq!(read_in(text, split), whole, "split at {split}");
        }
        whole
    }

    fn read_in(text: &[u8], split: usize) -> Result<Log, ReadError> {
        let mut log = Log::default();
        let mut reader = Reader::new();
        for piece in [&text[..split], &text[split..]] {
            reader.read(&mut piece.to_vec(), &mut log)?;
        }
        reader.finish(&mut log);
        Ok(log)
    }

    #[test]
    fn bodies_are_framed_as_heads_say() {
        type Wanted<'a> = &'a [(u16, &'a [u8], bool)];
        let cases: [(&[u8], Wanted<'_>); 6] = [
            (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nab", &[(200, b"ab", false)]),
            (
                b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\nHTTP/1.1 404 No\r\nContent-Length: 1\r\n\r\nx",
                &[(200, b"", false), (404, b"x", false)],
            ),
            (
                b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n1\r\nc\r\n0\r\n\r\n",
                &[(200, b"abc", false)],
            ),
            (b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nto the end", &[(200, b"to the end", true)]),
            (b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 204 No\r\n\r\n", &[(204, b"", false)]),
            (b"HTTP/1.0 200 OK\r\nContent-Length: 1\r\n\r\nx", &[(200, b"x", true)]),
        ];
        for (text, wanted) in cases {
            let log = read(text).expect("a response");
            let got: Vec<_> =
                log.responses.iter().map(|(s, b, l)| (*s, b.as_slice(), *l)).collect();
            assert_eq!(got, wanted, "{}", String::from_utf8_lossy(text));
        }
    }

    #[test]
    fn what_is_no_response_is_refused() {
        let cases: [(&[u8], Malformed); 5] = [
            (b"SSH-2.0-x\r\n", Malformed::Head),
            (b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n", Malformed::Length),
            (
                b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
                Malformed::Length,
            ),
            (
                b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
                Malformed::Length,
            ),
            (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", Malformed::Chunk),
        ];
        for (text, wanted) in cases {
            assert_eq!(read(text), Err(wanted.into()), "{}", String::from_utf8_lossy(text));
        }
    }

    #[test]
    fn a_response_to_head_has_no_body() {
        let mut log = Log { heads_only: true, ..Log::default() };
        let text = b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n";
        Reader::new().read(&mut text.to_vec(), &mut log).expect("two responses");
        assert_eq!(log.responses.len(), 2);
    }
}
