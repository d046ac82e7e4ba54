//! A body in chunks, decoded where it lies.
//!
//! ```text
//!   size [;extension] CRLF data CRLF ... 0 CRLF [trailer CRLF]... CRLF
//!   before:  | 5 CRLF hello CRLF 0 CRLF CRLF |
//!   after:   | hello |  what was between is gone
//! ```
//!
//! A state machine over bytes, so any split gives the same body. Lines end in CRLF and nothing else (RFC 9112,
//! 7.1, and the rejected erratum 7633). Extensions are checked, bounded and dropped; trailers are checked, bounded
//! and kept beside the body (`trailers.rs`). Where there are none, nothing is allocated for them.

use super::characters::{NAME, is_value};
use super::refusal::Refusal;
use super::trailers::{TRAILER_BYTES_MAX, TRAILERS_MAX, Trailers};
use crate::width::wide;

/// Size of one chunk's extensions: nobody sends them but attackers.
pub const EXTENSION_BYTES_MAX: u32 = 256;

/// Size of all extensions of a body (CVE-2023-39326 read a gigabyte of them).
pub const EXTENSIONS_BYTES_MAX: u32 = 4 * 1024;

/// Hexadecimal digits in a chunk's size.
const SIZE_DIGITS_MAX: u8 = 16;

/// How far a decoding came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Decoded {
    /// Bytes read, from where reading started.
    pub read: usize,
    /// Bytes of body written, from where writing started.
    pub written: usize,
    /// True if the body and its trailers are complete.
    pub is_complete: bool,
}

/// What is expected next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Size,
    BlankBeforeExtension,
    ExtensionName,
    Extension,
    Quoted,
    QuotedPair,
    SizeLineFeed,
    Data,
    DataReturn,
    DataLineFeed,
    TrailerStart,
    TrailerName,
    TrailerValue,
    TrailerLineFeed,
    EndLineFeed,
    End,
}

/// Where the decoder stands between two pieces of a body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decoder {
    /// Bytes left of the chunk; its size while that is being read.
    size: u64,
    extension_bytes: u32,
    extensions_bytes: u32,
    trailer_bytes: u32,
    /// Lines of trailers, with those that were left out.
    trailer_lines: u8,
    digits: u8,
    state: State,
    trailers: Trailers,
}

impl Default for Decoder {
    fn default() -> Self {
        Self::new()
    }
}

impl Decoder {
    /// Makes a decoder that expects a first chunk.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            size: 0,
            extension_bytes: 0,
            extensions_bytes: 0,
            trailer_bytes: 0,
            trailer_lines: 0,
            digits: 0,
            state: State::Size,
            trailers: Trailers::new(),
        }
    }

    /// Returns what came behind the body, so far.
    #[must_use]
    pub const fn trailers(&self) -> &Trailers {
        &self.trailers
    }

    /// Takes what came behind the body away.
    #[must_use]
    pub fn take_trailers(&mut self) -> Trailers {
        std::mem::take(&mut self.trailers)
    }

    /// Reads `bytes` from `read_start` on and writes the body it finds from `write_start` on.
    ///
    /// # Errors
    /// [`Refusal::Chunk`] for malformed chunks, [`Refusal::ChunkOverhead`] beyond the limits.
    ///
    /// # Panics
    /// If writing would start behind reading.
    pub fn decode(
        &mut self,
        bytes: &mut [u8],
        write_start: usize,
        read_start: usize,
    ) -> Result<Decoded, Refusal> {
        assert!(write_start <= read_start, "the body grows into what was read");
        let mut read = read_start;
        let mut write = write_start;
        while self.state != State::End && read < bytes.len() {
            if self.state == State::Data {
                let left = usize::try_from(self.size).unwrap_or(usize::MAX);
                let size = left.min(bytes.len() - read);
                bytes.copy_within(read..read + size, write);
                read += size;
                write += size;
                self.size -= wide(size);
                if self.size == 0 {
                    self.state = State::DataReturn;
                }
                continue;
            }
            self.state = self.step(bytes[read])?;
            read += 1;
        }
        Ok(Decoded {
            read: read - read_start,
            written: write - write_start,
            is_complete: self.state == State::End,
        })
    }

    /// Takes one byte that is not data.
    fn step(&mut self, byte: u8) -> Result<State, Refusal> {
        match (self.state, byte) {
            (State::Size, _) => self.size_digit(byte),
            (State::BlankBeforeExtension | State::ExtensionName, b' ' | b'\t')
            | (State::QuotedPair, _)
                if is_value(byte) =>
            {
                self.count_extension()?;
                Ok(if self.state == State::QuotedPair { State::Quoted } else { self.state })
            }
            // A name has to follow (RFC 9112, 7.1.1).
            (State::BlankBeforeExtension | State::Extension, b';') => {
                self.extension(State::ExtensionName)
            }
            (State::ExtensionName, _) if NAME[usize::from(byte)] != 0 => {
                self.extension(State::Extension)
            }
            (State::Extension, b'\r') => Ok(State::SizeLineFeed),
            (State::Extension, b'"') => self.extension(State::Quoted),
            (State::Quoted, b'"') => self.extension(State::Extension),
            (State::Quoted, b'\\') => self.extension(State::QuotedPair),
            (State::Extension | State::Quoted, _) if is_value(byte) => self.extension(self.state),
            (State::SizeLineFeed, b'\n') if self.size == 0 => Ok(State::TrailerStart),
            (State::SizeLineFeed, b'\n') => Ok(State::Data),
            (State::DataReturn, b'\r') => Ok(State::DataLineFeed),
            (State::DataLineFeed, b'\n') => {
                self.digits = 0;
                self.extension_bytes = 0;
                Ok(State::Size)
            }
            (State::TrailerStart, b'\r') => Ok(State::EndLineFeed),
            (State::TrailerStart | State::TrailerName, _) if NAME[usize::from(byte)] != 0 => {
                if self.state == State::TrailerStart {
                    self.count_trailer()?;
                }
                self.trailer(NAME[usize::from(byte)], State::TrailerName)
            }
            (State::TrailerName, b':') => self.trailer(byte, State::TrailerValue),
            (State::TrailerValue, b'\r') => Ok(State::TrailerLineFeed),
            (State::TrailerValue, _) if is_value(byte) => self.trailer(byte, State::TrailerValue),
            (State::TrailerLineFeed, b'\n') => {
                self.trailers.end_line();
                Ok(State::TrailerStart)
            }
            (State::EndLineFeed, b'\n') => Ok(State::End),
            _ => Err(Refusal::Chunk),
        }
    }

    fn size_digit(&mut self, byte: u8) -> Result<State, Refusal> {
        let digit = match byte {
            b'0'..=b'9' => byte - b'0',
            b'a'..=b'f' => byte - b'a' + 10,
            b'A'..=b'F' => byte - b'A' + 10,
            _ if self.digits == 0 => return Err(Refusal::Chunk),
            b'\r' => return Ok(State::SizeLineFeed),
            b';' => return self.extension(State::ExtensionName),
            b' ' | b'\t' => return self.extension(State::BlankBeforeExtension),
            _ => return Err(Refusal::Chunk),
        };
        if self.digits == SIZE_DIGITS_MAX {
            return Err(Refusal::Chunk);
        }
        self.size = if self.digits == 0 { 0 } else { self.size << 4 } | u64::from(digit);
        self.digits += 1;
        Ok(State::Size)
    }

    fn extension(&mut self, next: State) -> Result<State, Refusal> {
        self.count_extension()?;
        Ok(next)
    }

    fn count_extension(&mut self) -> Result<(), Refusal> {
        self.extension_bytes += 1;
        self.extensions_bytes += 1;
        if self.extension_bytes > EXTENSION_BYTES_MAX
            || self.extensions_bytes > EXTENSIONS_BYTES_MAX
        {
            return Err(Refusal::ChunkOverhead);
        }
        Ok(())
    }

    fn count_trailer(&mut self) -> Result<(), Refusal> {
        if self.trailer_lines == TRAILERS_MAX {
            return Err(Refusal::ChunkOverhead);
        }
        self.trailer_lines += 1;
        Ok(())
    }

    fn trailer(&mut self, byte: u8, next: State) -> Result<State, Refusal> {
        self.trailer_bytes += 1;
        if self.trailer_bytes > TRAILER_BYTES_MAX {
            return Err(Refusal::ChunkOverhead);
        }
        self.trailers.push(byte);
        Ok(next)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{any, prop, prop_assert_eq, proptest};

    use super::*;
    use crate::http::trailers::may_be_trailer;

    /// Body and rest, if the body is complete.
    type Outcome = Result<Option<(Vec<u8>, Vec<u8>)>, Refusal>;

    /// Feeds the pieces one after the other, as an endpoint would; returns the body and what is left.
    fn decode(pieces: &[&[u8]]) -> Outcome {
        let mut decoder = Decoder::new();
        let mut bytes = Vec::new();
        let mut body_size = 0;
        let mut rest = Vec::new();
        let mut is_complete = false;
        for piece in pieces {
            if is_complete {
                rest.extend_from_slice(piece);
                continue;
            }
            bytes.truncate(body_size);
            bytes.extend_from_slice(piece);
            let decoded = decoder.decode(&mut bytes, body_size, body_size)?;
            rest.extend_from_slice(&bytes[body_size + decoded.read..]);
            body_size += decoded.written;
            is_complete = decoded.is_complete;
        }
        bytes.truncate(body_size);
        Ok(is_complete.then_some((bytes, rest)))
    }

    fn check(text: &str, expected: Result<Option<(&str, &str)>, Refusal>) {
        let bytes = text.replace('|', "\r\n").into_bytes();
        let expected = expected.map(|complete| {
            complete.map(|(body, rest)| (body.as_bytes().to_vec(), rest.as_bytes().to_vec()))
        });
        assert_eq!(decode(&[&bytes]), expected, "{text}");
        let single: Vec<&[u8]> = bytes.chunks(1).collect();
        assert_eq!(decode(&single), expected, "{text}, byte by byte");
    }

    #[test]
    fn well_formed_bodies_are_decoded() {
        check("0||", Ok(Some(("", ""))));
        check("5|hello|0||", Ok(Some(("hello", ""))));
        check("5|hello|6| world|0||GET", Ok(Some(("hello world", "GET"))));
        check("00000A|0123456789|000||", Ok(Some(("0123456789", ""))));
        check("a;x=y;z=\"q;\\\" \"|0123456789|0||", Ok(Some(("0123456789", ""))));
        check("1 \t;x|a|0||", Ok(Some(("a", ""))));
        check("1|a|0|x-sum: 7|y:|||rest", Ok(Some(("a", "|rest".replace('|', "\r\n").as_str()))));
    }

    #[test]
    fn an_unfinished_body_waits() {
        for text in ["", "5", "5|", "5|hel", "5|hello", "5|hello|", "5|hello|0|", "0|a: b|"] {
            check(text, Ok(None));
        }
    }

    #[test]
    fn malformed_chunks_are_refused() {
        for text in [
            "|",
            "x|",
            "-1|",
            "+1|",
            "0x1|a|",
            "1_0|",
            " 1|a|",
            "1 |a|",
            "1\na",
            "1|a\n",
            "1|ab|",
            "00000000000000001|",
            "5|hello0||",
            "1;\n|",
            "1;\"\r|",
            "0|a b: c||",
            "0| a: b||",
            "0|:b||",
            "0|a: b\n|",
            "0|a|",
            "0|\r\r",
            "1\r\r",
        ] {
            check(text, Err(Refusal::Chunk));
        }
    }

    /// Returns the fields behind a body that comes in pieces of this size.
    fn trailers(text: &str, piece_size: usize) -> Result<String, Refusal> {
        let mut bytes = text.replace('|', "\r\n").into_bytes();
        let mut decoder = Decoder::new();
        let mut is_complete = false;
        for piece in bytes.chunks_mut(piece_size) {
            assert!(!is_complete, "nothing follows");
            is_complete = decoder.decode(piece, 0, 0)?.is_complete;
        }
        assert!(is_complete, "{text}");
        let trailers = decoder.take_trailers();
        assert!(decoder.trailers().is_empty(), "they were taken");
        assert_eq!(trailers.is_empty(), trailers.iter().len() == 0);
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        Ok(trailers.iter().map(|(name, value)| text(name) + "=" + &text(value) + ";").collect())
    }

    #[test]
    fn trailers_are_kept_beside_the_body() {
        for (text, expected) in [
            ("0||", ""),
            ("5|hello|0|X-Sum: 7||", "x-sum=7;"),
            ("0|y:|Y: \t a:b;c \t |z:z||", "y=;y=a:b;c;z=z;"),
            ("0|Content-Length: 50|a: b|Transfer-Encoding: chunked|HOST: x|c: d||", "a=b;c=d;"),
            ("0|host: x||", ""),
        ] {
            for piece_size in 1..text.len() {
                assert_eq!(trailers(text, piece_size).as_deref(), Ok(expected), "{text}");
            }
        }
    }

    #[test]
    fn no_trailers_take_no_memory() {
        let mut bytes = b"5\r\nhello\r\n0\r\n\r\n".to_vec();
        let mut decoder = Decoder::new();
        assert!(decoder.decode(&mut bytes, 0, 0).unwrap().is_complete);
        assert_eq!(decoder.trailers().bytes(), 0);
    }

    #[test]
    fn trailers_are_bounded_in_lines_and_bytes() {
        let lines = |count: u8| format!("0|{}|", "a: b|".repeat(count.into()));
        assert_eq!(trailers(&lines(TRAILERS_MAX), 7).unwrap(), "a=b;".repeat(64));
        // Those that are left out count: a peer may send no more of them.
        let hosts = format!("0|{}|", "host: b|".repeat(65));
        for text in [lines(TRAILERS_MAX + 1), hosts] {
            assert_eq!(trailers(&text, 7), Err(Refusal::ChunkOverhead));
        }
        let size = crate::width::index(TRAILER_BYTES_MAX) - 2;
        let long = |size| format!("0|a:{}||", "b".repeat(size));
        assert_eq!(trailers(&long(size), 100).unwrap().len(), size + 3);
        assert_eq!(trailers(&long(size + 1), 100), Err(Refusal::ChunkOverhead));
    }

    #[test]
    fn overhead_is_bounded() {
        let long = "x".repeat(300);
        check(&format!("1;{long}|a|0||"), Err(Refusal::ChunkOverhead));
        let many = format!("1;{}|a|", "x".repeat(200)).repeat(30);
        check(&format!("{many}0||"), Err(Refusal::ChunkOverhead));
        check(&format!("0|{}", "a: b|".repeat(4000)), Err(Refusal::ChunkOverhead));
    }

    proptest! {
        #[test]
        fn a_body_does_not_depend_on_its_chunks(
            body in prop::collection::vec(any::<u8>(), 0..600),
            sizes in prop::collection::vec(1_usize..90, 1..20),
            piece_size in 1_usize..50,
        ) {
            let mut encoded = Vec::new();
            let mut rest = body.as_slice();
            for size in sizes.iter().cycle() {
                if rest.is_empty() {
                    break;
                }
                let (chunk, after) = rest.split_at((*size).min(rest.len()));
                encoded.extend_from_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
                encoded.extend_from_slice(chunk);
                encoded.extend_from_slice(b"\r\n");
                rest = after;
            }
            encoded.extend_from_slice(b"0\r\n\r\n");
            let pieces: Vec<&[u8]> = encoded.chunks(piece_size).collect();
            prop_assert_eq!(decode(&pieces), Ok(Some((body, Vec::new()))));
        }

        #[test]
        fn trailers_do_not_depend_on_their_pieces(
            lines in prop::collection::vec(("[A-Za-z-]{1,9}|[Hh]ost|TE", "[ -~\t]{0,20}"), 0..20),
            piece_size in 1_usize..50,
        ) {
            let section = lines.iter().map(|(name, value)| format!("{name}:{value}\r\n"));
            let text = format!("0\r\n{}\r\n", section.collect::<String>());
            let mut decoder = Decoder::new();
            let mut bytes = text.into_bytes();
            let mut ends = bytes.chunks_mut(piece_size).map(|piece| {
                decoder.decode(piece, 0, 0).expect("well formed").is_complete
            }).collect::<Vec<_>>();
            prop_assert_eq!(ends.pop(), Some(true));
            let kept = lines.iter().filter(|(name, _)| may_be_trailer(name.as_bytes()));
            let kept = kept.map(|(name, value)| {
                (name.to_ascii_lowercase().into_bytes(), value.trim().as_bytes().to_vec())
            });
            let found = decoder.trailers().iter();
            let found = found.map(|(name, value)| (name.to_vec(), value.to_vec()));
            prop_assert_eq!(found.collect::<Vec<_>>(), kept.collect::<Vec<_>>());
        }

        #[test]
        fn any_bytes_have_one_outcome(
            bytes in prop::collection::vec(
                prop::sample::select(b"0123aF;\"\\ \r\n:x".to_vec()), 0..60),
            split in 0_usize..60,
        ) {
            let (front, back) = bytes.split_at(split.min(bytes.len()));
            prop_assert_eq!(decode(&[front, back]), decode(&[&bytes]));
        }

        #[test]
        fn the_size_line_agrees_with_httparse(
            bytes in prop::collection::vec(
                prop::sample::select(b"0123456789abcdefABCDEF\r\n".to_vec()), 1..24),
        ) {
            // Where we take a size line, so does httparse, with the same size.
            let mut decoder = Decoder::new();
            let mut copy = bytes.clone();
            let line_end = bytes.windows(2).position(|pair| pair == b"\r\n");
            if let Some(end) = line_end {
                let line = &mut copy[..end + 2];
                if decoder.decode(line, 0, 0).is_ok() {
                    let oracle = httparse::parse_chunk_size(&bytes);
                    prop_assert_eq!(oracle, Ok(httparse::Status::Complete((end + 2, decoder.size))));
                }
            }
        }
    }
}
