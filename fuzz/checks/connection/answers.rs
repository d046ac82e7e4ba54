//! What a peer read, taken apart into answers.

/// One answer.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Answer {
    pub(super) status: u16,
    /// Status line and header lines, but those that tell in which pieces the body came.
    pub(super) head: String,
    /// With the lines behind it.
    pub(super) body: Vec<u8>,
    pub(super) closes: bool,
    /// All of it is there.
    pub(super) is_whole: bool,
}

/// Takes apart all that was read; `is_head` says which answers are to HEAD. Interim answers are left out: whether
/// one is sent depends on what has come of the body.
pub(super) fn take_apart(mut bytes: &[u8], is_head: impl Fn(usize) -> bool) -> Vec<Answer> {
    let mut answers: Vec<Answer> = Vec::new();
    while !bytes.is_empty() {
        let Some(size) = bytes.windows(4).position(|four| four == b"\r\n\r\n") else {
            let start = b"HTTP/1.1 ";
            let size = start.len().min(bytes.len());
            assert_eq!(bytes[..size], start[..size], "an answer begins with its version");
            answers.push(Answer::cut());
            break;
        };
        let head = String::from_utf8(bytes[..size + 4].to_vec()).expect("heads are ASCII");
        bytes = &bytes[size + 4..];
        let status = head.strip_prefix("HTTP/1.1 ").and_then(|rest| rest.get(..3)?.parse().ok());
        let status: u16 = status.expect("a status line");
        if status == 100 {
            continue;
        }
        let length = head.lines().find_map(|line| line.strip_prefix("Content-Length: "));
        let length: Option<usize> = length.map(|text| text.parse().expect("a length"));
        let is_chunked = head.contains("Transfer-Encoding: chunked\r\n");
        assert!(length.is_none() || !is_chunked, "one framing: {head}");
        let closes = head.contains("Connection: close\r\n");
        let (body, is_whole) = if is_head(answers.len()) {
            (Vec::new(), true)
        } else if is_chunked {
            dechunk(&mut bytes)
        } else if let Some(length) = length {
            let (body, rest) = bytes.split_at(length.min(bytes.len()));
            bytes = rest;
            (body.to_vec(), body.len() == length)
        } else {
            assert!(closes, "a body without an end ends the connection: {head}");
            (std::mem::take(&mut bytes).to_vec(), true)
        };
        answers.push(Answer { status, head, body, closes, is_whole });
    }
    let whole = answers.iter().rev().skip(1);
    assert!(whole.into_iter().all(|answer| answer.is_whole), "an answer in the middle of another");
    answers
}

impl Answer {
    /// One whose head did not come to its end.
    fn cut() -> Self {
        Self { status: 0, head: String::new(), body: Vec::new(), closes: false, is_whole: false }
    }
}

/// Takes a body in chunks; returns what is there of it, and whether that is all.
fn dechunk(bytes: &mut &[u8]) -> (Vec<u8>, bool) {
    let mut body = Vec::new();
    while let Some(size) = bytes.windows(2).position(|two| two == b"\r\n") {
        let digits = std::str::from_utf8(&bytes[..size]).expect("digits are ASCII");
        let chunk = usize::from_str_radix(digits, 16).expect("a chunk's size");
        *bytes = &bytes[size + 2..];
        if chunk == 0 {
            let is_whole = take_trailers(bytes, &mut body);
            return (body, is_whole);
        }
        let (data, rest) = bytes.split_at(chunk.min(bytes.len()));
        body.extend_from_slice(data);
        *bytes = rest;
        let Some(rest) = bytes.strip_prefix(b"\r\n") else {
            assert!(b"\r\n".starts_with(bytes), "a chunk of another size");
            break;
        };
        *bytes = rest;
    }
    *bytes = &[];
    (body, false)
}

/// Puts the lines behind a body at its end; returns whether they have come to theirs.
fn take_trailers(bytes: &mut &[u8], body: &mut Vec<u8>) -> bool {
    while let Some(size) = bytes.windows(2).position(|two| two == b"\r\n") {
        let line = &bytes[..size];
        *bytes = &bytes[size + 2..];
        if line.is_empty() {
            return true;
        }
        body.extend_from_slice(line);
        body.push(b'\n');
    }
    *bytes = &[];
    false
}
