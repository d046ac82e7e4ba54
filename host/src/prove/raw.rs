//! A request as it stands in a file: read by the network's own parser, kept in parts, written again.

use midge_net::endpoint::RequestView;
use midge_net::http::chunked::Decoder;
use midge_net::http::request::{Framing, Head, Progress, Span, parse};

use crate::call::{self, Facts};

/// A request in parts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RawRequest {
    /// The method.
    pub method: Vec<u8>,
    /// The target.
    pub target: Vec<u8>,
    /// Header lines, without those that tell the body's length.
    pub headers: Vec<(Vec<u8>, Vec<u8>)>,
    /// The body, decoded.
    pub body: Vec<u8>,
}

impl RawRequest {
    /// Reads one request, all of the bytes. Line ends of the head may have lost their CR, as they do in an
    /// editor.
    ///
    /// # Errors
    /// A sentence that says what is wrong.
    pub fn read(bytes: &[u8]) -> Result<Self, String> {
        let mut bytes = with_line_ends(bytes);
        let mut head = Head::default();
        match parse(&mut bytes, &mut head) {
            Ok(Progress::Complete) => {}
            Ok(Progress::Partial) => {
                return Err("the head does not end: an empty line is missing".into());
            }
            Err(refusal) => return Err(format!("not a request of HTTP/1.1: {refusal}")),
        }
        let start = head.bytes_total();
        let body = body(&mut bytes, start, head.framing)?;
        let head_bytes = &bytes[usize::from(head.bytes_skipped)..start];
        let part = |span: Span| span.of(head_bytes).to_vec();
        let headers = head.headers().iter().map(|line| (part(line.name), part(line.value)));
        let is_framing = |name: &[u8]| matches!(name, b"content-length" | b"transfer-encoding");
        Ok(Self {
            method: part(head.method_name),
            target: part(head.target),
            headers: headers.filter(|(name, _)| !is_framing(name)).collect(),
            body,
        })
    }

    /// Returns the request as it goes over the wire.
    #[must_use]
    pub fn bytes(&self) -> Vec<u8> {
        let mut bytes = [&self.method[..], b" ", &self.target, b" HTTP/1.1\r\n"].concat();
        for (name, value) in &self.headers {
            bytes.extend_from_slice(&[&name[..], b": ", value, b"\r\n"].concat());
        }
        if !self.body.is_empty() {
            bytes.extend_from_slice(format!("content-length: {}\r\n", self.body.len()).as_bytes());
        }
        bytes.extend_from_slice(b"\r\n");
        bytes.extend_from_slice(&self.body);
        bytes
    }

    /// Returns the request without what makes it long: no body, no header but the first, a plain target.
    #[must_use]
    pub fn without_its_length(&self) -> Self {
        let headers = self.headers.iter().take(1).cloned().collect();
        Self { method: self.method.clone(), target: b"/".to_vec(), headers, body: Vec::new() }
    }

    /// Returns the block that a guest finds in its area.
    ///
    /// # Errors
    /// A sentence that says why the network would refuse it.
    pub fn block(&self, facts: Facts<'_>) -> Result<Vec<u8>, String> {
        let mut bytes = self.bytes();
        let mut head = Head::default();
        match parse(&mut bytes, &mut head) {
            Ok(Progress::Complete) => {}
            Ok(Progress::Partial) => return Err("the head does not end".into()),
            Err(refusal) => return Err(format!("not a request of HTTP/1.1: {refusal}")),
        }
        let (bytes, body) = bytes.split_at(head.bytes_total());
        let view = RequestView { bytes, head: &head, body, peer: None, is_local: false };
        let mut block = vec![0; call::block_bytes(&view, facts.extras)];
        call::lay_out(&mut block, &view, facts);
        Ok(block)
    }
}

/// Returns the decoded body, which takes all that is left.
fn body(bytes: &mut [u8], start: usize, framing: Framing) -> Result<Vec<u8>, String> {
    let left = bytes.len() - start;
    let behind = |count: usize| Err(format!("{count} bytes follow the end of the request"));
    match framing {
        // An editor ends a file with a line end.
        Framing::None if matches!(&bytes[start..], b"" | b"\n" | b"\r\n") => Ok(Vec::new()),
        Framing::None => behind(left),
        Framing::Length(length) => {
            let length = usize::try_from(length).unwrap_or(usize::MAX);
            if left < length {
                return Err(format!("the body has {left} bytes, Content-Length says {length}"));
            }
            if length < left {
                return behind(left - length);
            }
            Ok(bytes[start..].to_vec())
        }
        Framing::Chunked => {
            let decoded = Decoder::new()
                .decode(bytes, start, start)
                .map_err(|refusal| format!("the body's chunks are malformed: {refusal}"))?;
            if !decoded.is_complete {
                return Err("the body's last chunk is missing".into());
            }
            if decoded.read < left {
                return behind(left - decoded.read);
            }
            Ok(bytes[start..start + decoded.written].to_vec())
        }
    }
}

/// Gives the head its CRs back if it has none.
fn with_line_ends(bytes: &[u8]) -> Vec<u8> {
    let end = bytes.windows(2).position(|pair| pair == b"\n\n");
    let Some(end) = end.filter(|&end| !bytes[..end].contains(&b'\r')) else {
        return bytes.to_vec();
    };
    let head = bytes[..end].split(|&byte| byte == b'\n').collect::<Vec<_>>().join(&b"\r\n"[..]);
    [&head[..], b"\r\n\r\n", &bytes[end + 2..]].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    const FACTS: Facts<'_> =
        Facts { request_id: [1; 16], deadline_ns: 5, extras: &crate::extras::NONE };

    #[test]
    fn a_capture_is_read_and_written_again() {
        let text = b"POST /a?b HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc";
        let request = RawRequest::read(text).unwrap();
        assert_eq!((&request.method[..], &request.target[..]), (&b"POST"[..], &b"/a?b"[..]));
        assert_eq!(request.headers, [(b"host".to_vec(), b"x".to_vec())]);
        assert_eq!(request.body, b"abc");
        assert_eq!(RawRequest::read(&request.bytes()).unwrap(), request);
        let block = request.block(FACTS).unwrap();
        assert!(block.ends_with(b"abc"));
    }

    #[test]
    fn line_ends_of_an_editor_are_understood() {
        let request = RawRequest::read(b"GET / HTTP/1.1\nHost: x\n\n").unwrap();
        assert_eq!(request.body, b"");
        let request =
            RawRequest::read(b"PUT / HTTP/1.1\nHost: x\nContent-Length: 4\n\na\n\nb").unwrap();
        assert_eq!(request.body, b"a\n\nb", "a body is left alone");
    }

    #[test]
    fn chunks_are_decoded() {
        let text = b"PUT / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n1\r\nc\r\n0\r\n\r\n";
        assert_eq!(RawRequest::read(text).unwrap().body, b"abc");
    }

    #[test]
    fn bad_files_are_refused_in_a_sentence() {
        let check = |text: &str, expected: &str| {
            let refused = RawRequest::read(text.as_bytes()).unwrap_err();
            assert!(refused.contains(expected), "{text}: {refused}");
        };
        check("", "empty line is missing");
        check("GET / HTTP/1.1\r\nHost: x\r\n", "empty line is missing");
        check("hello\r\n\r\n", "not a request");
        check("GET / HTTP/1.1\r\n\r\n", "host");
        check("GET / HTTP/1.1\r\nHost: x\r\n\r\nabc", "3 bytes follow");
        check("PUT / HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\nabc", "Content-Length says 4");
        check("PUT / HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\nabc", "1 bytes follow");
        let chunked = "PUT / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n";
        check(&format!("{chunked}z"), "chunks are malformed");
        check(&format!("{chunked}1\r\na\r\n"), "last chunk is missing");
        check(&format!("{chunked}0\r\n\r\nab"), "2 bytes follow");
    }
}
