//! A body in chunks: whole, in pieces, by a decoder of a few lines, and as an encoder writes it.
//!
//! The crate that includes this file has `cuts` at its root.

use midge_net::http::chunked::{Decoder, EXTENSION_BYTES_MAX, EXTENSIONS_BYTES_MAX};
use midge_net::http::refusal::Refusal;
use midge_net::http::trailers::{TRAILER_BYTES_MAX, TRAILERS_MAX, may_be_trailer};

use crate::cuts::{Numbers, cuts};

/// A complete body: its bytes, how many it took, and the fields behind it.
type Complete = (Vec<u8>, usize, Vec<(Vec<u8>, Vec<u8>)>);
type Outcome = Result<Option<Complete>, Refusal>;

/// What fills the place before a piece: it must be overwritten or left alone.
const FILL: u8 = b'?';

/// Decodes the bytes, then what an encoder makes of them.
pub(crate) fn check(bytes: &[u8]) {
    drop(decode(bytes));
    let (body, encoded) = encode(bytes);
    let (found, size, _) = decode(&encoded).expect("well formed").expect("complete");
    assert_eq!((found, size), (body, encoded.len()));
}

/// Decodes in every way there is; all must agree.
fn decode(bytes: &[u8]) -> Outcome {
    let whole = in_pieces(bytes, &[bytes.len()]);
    assert_eq!(in_pieces(bytes, &cuts(bytes)), whole);
    let complete = whole.as_ref().ok().and_then(Option::as_ref);
    assert_eq!(complete, reference(bytes).as_ref());
    whole
}

/// Feeds the pieces as an endpoint does: each behind the body so far, or a little further on.
fn in_pieces(bytes: &[u8], ends: &[usize]) -> Outcome {
    let mut numbers = Numbers::of(bytes);
    let mut decoder = Decoder::new();
    let mut place = Vec::new();
    let (mut body_size, mut start) = (0, 0);
    for &end in ends {
        let gap = numbers.below(3);
        place.truncate(body_size);
        place.resize(body_size + gap, FILL);
        place.extend_from_slice(&bytes[start..end]);
        let before = place[..body_size].to_vec();
        let decoded = decoder.decode(&mut place, body_size, body_size + gap)?;
        assert!(decoded.written <= decoded.read && decoded.read <= end - start);
        assert!(place[..body_size] == before, "what was decoded stays");
        body_size += decoded.written;
        if decoded.is_complete {
            place.truncate(body_size);
            let trailers = decoder.trailers().iter();
            let trailers = trailers.map(|(name, value)| (name.to_vec(), value.to_vec()));
            return Ok(Some((place, start + decoded.read, trailers.collect())));
        }
        assert_eq!(decoded.read, end - start, "all is read until the end is found");
        start = end;
    }
    Ok(None)
}

/// The grammar of RFC 9112, 7.1, over all of the bytes, with our limits.
fn reference(bytes: &[u8]) -> Option<Complete> {
    let (mut body, mut rest, mut extensions_size) = (Vec::new(), bytes, 0);
    loop {
        let line = line(&mut rest)?;
        let digits = line.iter().take_while(|byte| byte.is_ascii_hexdigit()).count();
        let (digits, extension) = line.split_at(digits);
        let digits = std::str::from_utf8(digits).ok().filter(|digits| digits.len() <= 16)?;
        let size = usize::from_str_radix(digits, 16).ok()?;
        extensions_size += extension.len();
        let is_short = extension.len() <= usize::try_from(EXTENSION_BYTES_MAX).ok()?
            && extensions_size <= usize::try_from(EXTENSIONS_BYTES_MAX).ok()?;
        if !is_short || !is_extension(extension) {
            return None;
        }
        if size == 0 {
            break;
        }
        body.extend_from_slice(rest.get(..size)?);
        rest = rest[size..].strip_prefix(b"\r\n")?;
    }
    let (mut trailer_size, mut trailer_count, mut trailers) = (0, 0, Vec::new());
    loop {
        let line = line(&mut rest)?;
        trailer_size += line.len();
        if line.is_empty() {
            return Some((body, bytes.len() - rest.len(), trailers));
        }
        let colon = line.iter().position(|&byte| byte == b':')?;
        let (name, value) = (&line[..colon], line[colon + 1..].trim_ascii());
        let is_token =
            |byte: &u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(byte);
        let is_trailer = !name.is_empty() && name.iter().all(is_token) && is_text(line);
        trailer_count += 1;
        if !is_trailer
            || trailer_size > usize::try_from(TRAILER_BYTES_MAX).ok()?
            || trailer_count > TRAILERS_MAX
        {
            return None;
        }
        if may_be_trailer(name) {
            trailers.push((name.to_ascii_lowercase(), value.to_vec()));
        }
    }
}

/// Takes a line without its end.
fn line<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let size = rest.iter().position(|&byte| byte == b'\r')?;
    let line = &rest[..size];
    *rest = rest[size..].strip_prefix(b"\r\n")?;
    Some(line)
}

fn is_text(bytes: &[u8]) -> bool {
    bytes.iter().all(|&byte| byte == b'\t' || (byte >= b' ' && byte != 0x7F))
}

/// Nothing, or blanks, a semicolon, and text whose quotes are closed, with a name behind each semicolon outside
/// of them.
fn is_extension(bytes: &[u8]) -> bool {
    if bytes.is_empty() {
        return true;
    }
    let text = bytes.trim_ascii_start();
    if text.first() != Some(&b';') {
        return false;
    }
    let (mut rest, mut is_quoted) = (text.iter(), false);
    while let Some(&byte) = rest.next() {
        match byte {
            b';' if !is_quoted => {
                let mut name =
                    rest.as_slice().iter().skip_while(|byte| matches!(byte, b' ' | b'\t'));
                let is_name =
                    |byte: &u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(byte);
                if !name.next().is_some_and(is_name) {
                    return false;
                }
            }
            b'"' => is_quoted = !is_quoted,
            b'\\' if is_quoted => drop(rest.next()),
            _ => {}
        }
    }
    is_text(bytes) && !is_quoted
}

/// Takes the bytes for sizes, styles and data in turn; returns the body and its chunks.
fn encode(mut bytes: &[u8]) -> (Vec<u8>, Vec<u8>) {
    let (mut body, mut encoded) = (Vec::new(), Vec::new());
    let mut extensions_left = 40;
    while let Some((&[size, style], rest)) = bytes.split_first_chunk() {
        let size = (usize::from(size) << (style >> 5)).min(rest.len());
        if size == 0 {
            break;
        }
        let (data, rest) = rest.split_at(size);
        bytes = rest;
        let width = usize::from(style & 15).max(1);
        let digits = match style & 16 {
            0 => format!("{size:0width$x}"),
            _ => format!("{size:0width$X}"),
        };
        encoded.extend_from_slice(digits.as_bytes());
        if style & 3 == 3 && extensions_left > 0 {
            extensions_left -= 1;
            encoded.extend_from_slice(b" ;a;b=\"c\\\";\"");
        }
        body.extend_from_slice(data);
        encoded.extend_from_slice(&[b"\r\n", data, b"\r\n"].concat());
    }
    let end: &[u8] = if bytes.len().is_multiple_of(2) {
        b"0\r\n\r\n"
    } else {
        b"00\r\nA: b\r\nHost: c\r\n-:\t \r\na:::\r\n\r\n"
    };
    encoded.extend_from_slice(end);
    (body, encoded)
}
