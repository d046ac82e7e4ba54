//! Responses of functions made smaller, for those who take them so, by a thread of the pool.
//!
//! Only what a function answers as a whole: pieces of a stream leave as they are written. The body is copied, so
//! the slot is restored at once; the connection waits.

use std::io::{self, Write};

use midge_net::{ConnectionId, RequestView};

use crate::files::encoding::{Accepted, Encoding};

/// Shorter bodies are not worth it: they fit one packet as they are.
const BODY_BYTES_MIN: usize = 1024;

/// gzip's effort, 1 to 9.
const GZIP_LEVEL: u32 = 5;
/// Zstandard's, 1 to 22.
const ZSTD_LEVEL: i32 = 3;
/// Brotli's, 0 to 11, with a window of 2^18 bytes.
const BROTLI_QUALITY: u32 = 4;
const BROTLI_WINDOW_BITS: u32 = 18;

/// The line of every response of a function whose responses are made smaller.
pub const VARY: (&[u8], &[u8]) = (b"vary", b"accept-encoding");

/// A response on its way to become smaller.
#[derive(Debug)]
pub struct Compressing {
    /// Its connection.
    pub connection: ConnectionId,
    /// Its status.
    pub status: u16,
    /// Its header lines.
    pub headers: Vec<(Vec<u8>, Vec<u8>)>,
    /// Its body.
    pub body: Vec<u8>,
    encoding: Encoding,
}

/// Returns what the client of a request takes.
#[must_use]
pub fn accepted(view: &RequestView<'_>) -> Accepted {
    Accepted::of(view.values(b"accept-encoding"))
}

impl Compressing {
    /// Copies a response that is worth it, and may be changed; `None` for others.
    pub fn of<'a>(
        accepted: Accepted,
        connection: ConnectionId,
        status: u16,
        headers: impl Iterator<Item = (&'a [u8], &'a [u8])>,
        body: &[u8],
    ) -> Option<Self> {
        if body.len() < BODY_BYTES_MIN || status != 200 {
            return None;
        }
        let encoding = accepted.in_order().next()?;
        let mut is_text = false;
        let mut copied = Vec::new();
        for (name, value) in headers {
            match name {
                b"content-encoding" | b"content-range" => return None,
                // RFC 9111, 5.2.2.6.
                b"cache-control" if has_word(value, b"no-transform") => return None,
                b"content-type" => is_text = is_worth_it(value),
                _ => {}
            }
            copied.push((name.to_vec(), value.to_vec()));
        }
        let body = body.to_vec();
        is_text.then_some(Self { connection, status, headers: copied, body, encoding })
    }

    /// Makes the body smaller. One that does not become so stays as it is.
    pub fn run(&mut self) {
        self.headers.push((VARY.0.to_vec(), VARY.1.to_vec()));
        let Ok(smaller) = encode(self.encoding, &self.body) else { return };
        if smaller.len() >= self.body.len() {
            return;
        }
        self.body = smaller;
        let name = self.encoding.name().as_bytes();
        self.headers.push((b"content-encoding".to_vec(), name.to_vec()));
        // Other bytes than the function's tag stands for: the same in meaning alone (RFC 9110, 8.8.1).
        for (name, value) in &mut self.headers {
            if name == b"etag" && value.starts_with(b"\"") {
                value.splice(..0, *b"W/");
            }
        }
    }

    /// Returns the header lines.
    pub fn lines(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        self.headers.iter().map(|(name, value)| (name.as_slice(), value.as_slice()))
    }
}

fn encode(encoding: Encoding, body: &[u8]) -> io::Result<Vec<u8>> {
    let target = Vec::with_capacity(body.len() / 2);
    match encoding {
        Encoding::Gzip => {
            let mut writer =
                flate2::write::GzEncoder::new(target, flate2::Compression::new(GZIP_LEVEL));
            writer.write_all(body)?;
            writer.finish()
        }
        Encoding::Zstd => zstd::bulk::compress(body, ZSTD_LEVEL),
        Encoding::Brotli => {
            let size = body.len();
            let mut writer =
                brotli::CompressorWriter::new(target, size, BROTLI_QUALITY, BROTLI_WINDOW_BITS);
            writer.write_all(body)?;
            Ok(writer.into_inner())
        }
    }
}

/// Tells whether a type is of those that become smaller.
fn is_worth_it(content_type: &[u8]) -> bool {
    let end = content_type.iter().position(|byte| *byte == b';').unwrap_or(content_type.len());
    let kind = content_type[..end].trim_ascii().to_ascii_lowercase();
    let is_listed = matches!(
        &kind[..],
        b"application/json"
            | b"application/javascript"
            | b"application/xml"
            | b"application/wasm"
            | b"application/x-ndjson"
            | b"image/svg+xml"
    );
    // Not an event stream, which is read as it comes.
    let is_text = kind.starts_with(b"text/") && kind != b"text/event-stream";
    is_listed || is_text || kind.ends_with(b"+json") || kind.ends_with(b"+xml")
}

fn has_word(list: &[u8], word: &[u8]) -> bool {
    list.split(|byte| *byte == b',').any(|found| found.trim_ascii().eq_ignore_ascii_case(word))
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    fn of(accepts: &str, headers: &[(&str, &str)], body: &[u8]) -> Option<Compressing> {
        let accepted = Accepted::of([accepts.as_bytes()].into_iter());
        let headers = headers.iter().map(|(name, value)| (name.as_bytes(), value.as_bytes()));
        Compressing::of(accepted, ConnectionId::from_u64(0), 200, headers, body)
    }

    const TEXT: (&str, &str) = ("content-type", "text/plain; charset=utf-8");

    #[test]
    fn what_may_be_changed_and_is_worth_it() {
        let body = [b'a'; 5000];
        assert!(of("gzip", &[TEXT], &body).is_some());
        assert!(of("identity", &[TEXT], &body).is_none());
        assert!(of("gzip", &[TEXT], &body[..1023]).is_none());
        assert!(of("gzip", &[], &body).is_none(), "of no type");
        for (name, value, is_taken) in [
            ("content-type", "application/problem+json", true),
            ("content-type", "IMAGE/SVG+XML", true),
            ("content-type", "image/png", false),
            ("content-type", "text/event-stream", false),
            ("content-encoding", "gzip", false),
            ("content-range", "bytes 0-1/2", false),
            ("cache-control", "public, No-Transform", false),
            ("cache-control", "public", true),
        ] {
            assert_eq!(
                of("gzip", &[TEXT, (name, value)], &body).is_some(),
                is_taken,
                "{name}: {value}"
            );
        }
    }

    #[test]
    fn what_was_encoded_is_decoded_to_the_same() {
        let body: Vec<u8> =
            (0..9000_u32).flat_map(|number| number.to_string().into_bytes()).collect();
        for name in ["gzip", "zstd", "br"] {
            let mut response = of(name, &[TEXT, ("etag", "\"x\"")], &body).unwrap();
            response.run();
            assert!(response.body.len() < body.len() / 2, "{name}");
            let line = |name: &[u8]| response.lines().find(|(found, _)| *found == name).unwrap().1;
            assert_eq!(line(b"content-encoding"), name.as_bytes());
            assert_eq!(line(b"etag"), b"W/\"x\"");
            let mut decoded = Vec::new();
            match name {
                "gzip" => {
                    flate2::read::GzDecoder::new(&response.body[..]).read_to_end(&mut decoded)
                }
                "zstd" => zstd::stream::read::Decoder::new(&response.body[..])
                    .unwrap()
                    .read_to_end(&mut decoded),
                _ => brotli::Decompressor::new(&response.body[..], 4096).read_to_end(&mut decoded),
            }
            .unwrap();
            assert!(decoded == body, "{name}");
        }
    }

    #[test]
    fn what_does_not_become_smaller_stays() {
        let mut state = 1_u64;
        let noise: Vec<u8> = std::iter::repeat_with(|| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            state.to_be_bytes()[0]
        })
        .take(4000)
        .collect();
        let mut response = of("br", &[TEXT, ("etag", "\"x\"")], &noise).unwrap();
        response.run();
        assert!(response.body == noise);
        assert!(response.lines().all(|(name, _)| name != b"content-encoding"));
        assert!(response.lines().any(|line| line == (&b"etag"[..], &b"\"x\""[..])));
        assert!(response.lines().any(|line| line == (&b"vary"[..], &b"accept-encoding"[..])));
    }
}
