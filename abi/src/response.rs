//! Guest to host: a response read out of the guest's memory.
//!
//! Every number in a response is a claim by a hostile party. [`Response::read`] checks all of them before
//! it hands out a byte, so whoever holds a [`Response`] can copy it to the wire as it is.
//!
//! Hot path: `read`, `headers`.

use std::mem::offset_of;
use std::ops::Range;

use crate::contract::{
    HEADER_SIZE, RESPONSE_ERROR, RESPONSE_RECORD_SIZE, ResponseHeader, ResponseRecord, u16_at,
    u32_at,
};
use crate::width::index;

/// The most header lines a response may have: what clients and proxies accept, with room.
pub const HEADER_COUNT_MAX: u32 = 64;
/// The most bytes that names and values of a response's headers may have together.
pub const HEADER_BYTES_MAX: usize = 16 * 1024;
/// A guest's error message is cut here before it is logged.
pub const ERROR_MESSAGE_BYTES_MAX: usize = 1024;

/// A region a guest claims to own. Says nothing about validity until `within` has run.
#[derive(Debug, Clone, Copy)]
pub struct GuestRange {
    /// First byte.
    pub address: u32,
    /// Size in bytes.
    pub size: u32,
}

impl GuestRange {
    /// Returns the range as indices, if it lies inside a memory of `memory_bytes`.
    #[must_use]
    pub fn within(self, memory_bytes: usize) -> Option<Range<usize>> {
        let start = index(self.address);
        let end = start + index(self.size);
        (end <= memory_bytes).then_some(start..end)
    }
}

/// What a guest did wrong in its response. `Copy`, without heap: it is made on the request path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
#[non_exhaustive]
#[repr(u8)]
pub enum GuestFault {
    /// The function returned 0 instead of a response.
    #[error("the function returned no response")]
    NoResponse,
    /// The record lies outside the memory.
    #[error("the response record lies outside the memory")]
    RecordOutOfBounds,
    /// An unknown flag or a reserved field is set.
    #[error("a reserved field of the response record is not zero")]
    Reserved,
    /// A status that an answer cannot have.
    #[error("the status is not between 200 and 599")]
    Status,
    /// More headers than [`HEADER_COUNT_MAX`], or more bytes than [`HEADER_BYTES_MAX`].
    #[error("the response has too many or too long headers")]
    HeadersTooLarge,
    /// The header table or one of its strings lies outside the memory.
    #[error("the header table or a string of it lies outside the memory")]
    HeaderOutOfBounds,
    /// A name that is no token (RFC 9110 5.1).
    #[error("a header name is not a token")]
    HeaderName,
    /// A value with a control character (RFC 9110 5.5).
    #[error("a header value holds a control character")]
    HeaderValue,
    /// A header that the host alone may write: framing and the connection's own fields.
    #[error("the response sets a header that belongs to the host")]
    HeaderReserved,
    /// A length that is no number, or two of them.
    #[error("the content-length is not one number")]
    Length,
    /// A method that is no token, or too long.
    #[error("the method is no token of at most 32 bytes")]
    Method,
    /// An authority or a target that has no place in a request.
    #[error(
        "the authority or the target is empty, too long, or has characters that are not visible ASCII"
    )]
    Target,
    /// The body lies outside the memory.
    #[error("the body lies outside the memory")]
    BodyOutOfBounds,
    /// A body longer than the function's limit.
    #[error("the body is longer than the function's response limit")]
    BodyTooLarge,
}

impl GuestFault {
    /// Returns the short name under which faults are counted.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::NoResponse => "no_response",
            Self::RecordOutOfBounds => "record_out_of_bounds",
            Self::Reserved => "reserved",
            Self::Status => "status",
            Self::HeadersTooLarge => "headers_too_large",
            Self::HeaderOutOfBounds => "header_out_of_bounds",
            Self::HeaderName => "header_name",
            Self::HeaderValue => "header_value",
            Self::HeaderReserved => "header_reserved",
            Self::Length => "length",
            Self::Method => "method",
            Self::Target => "target",
            Self::BodyOutOfBounds => "body_out_of_bounds",
            Self::BodyTooLarge => "body_too_large",
        }
    }
}

/// A checked response, still in the guest's memory.
#[derive(Debug, Clone, Copy)]
pub struct Response<'m> {
    memory: &'m [u8],
    status: u16,
    // INVARIANT: `read` walked the whole table: each string lies in `memory` and has legal characters.
    table: &'m [[u8; HEADER_SIZE]],
    body: &'m [u8],
}

/// What a guest answered.
#[derive(Debug, Clone, Copy)]
pub enum Answer<'m> {
    /// A response for the client.
    Response(Response<'m>),
    /// The guest failed and says why: for the log, the client gets a 500.
    Error(&'m [u8]),
}

impl<'m> Response<'m> {
    /// Reads and checks the response at `address`.
    ///
    /// # Errors
    /// [`GuestFault`] names the first claim that does not hold.
    ///
    /// # Cost
    /// Touches the record, the table and the header strings; the body is not read
    /// (`bench/benches/request.rs`, `decode`).
    pub fn read(
        memory: &'m [u8],
        address: u32,
        body_bytes_max: usize,
    ) -> Result<Answer<'m>, GuestFault> {
        Self::read_as(memory, address, body_bytes_max, Place::Response)
    }

    /// Reads the start of a response that is written piece by piece. Its headers may tell the length of the
    /// whole.
    ///
    /// # Errors
    /// As [`Response::read`]; an error of the guest's is a fault here.
    pub fn read_start(
        memory: &'m [u8],
        address: u32,
        body_bytes_max: usize,
    ) -> Result<(Self, Option<u64>), GuestFault> {
        let Answer::Response(response) =
            Self::read_as(memory, address, body_bytes_max, Place::Start)?
        else {
            return Err(GuestFault::Reserved);
        };
        let mut lengths = response.headers().filter(|(name, _)| is_length(name));
        let Some((_, value)) = lengths.next() else {
            return Ok((response, None));
        };
        let is_number = !value.is_empty() && value.iter().all(u8::is_ascii_digit);
        let number = std::str::from_utf8(value).ok().and_then(|text| text.parse().ok());
        match number {
            Some(length) if is_number && lengths.next().is_none() => Ok((response, Some(length))),
            _ => Err(GuestFault::Length),
        }
    }

    #[inline]
    fn read_as(
        memory: &'m [u8],
        address: u32,
        body_bytes_max: usize,
        place: Place,
    ) -> Result<Answer<'m>, GuestFault> {
        if address == 0 {
            return Err(GuestFault::NoResponse);
        }
        let record: &[u8; RESPONSE_RECORD_SIZE] = memory
            .get(index(address)..)
            .and_then(|rest| rest.first_chunk())
            .ok_or(GuestFault::RecordOutOfBounds)?;
        let flags = u16_at(record, offset_of!(ResponseRecord, flags));
        let reserved = &record[offset_of!(ResponseRecord, reserved)..];
        if flags & !RESPONSE_ERROR != 0 || reserved.iter().any(|&byte| byte != 0) {
            return Err(GuestFault::Reserved);
        }
        let body = read_body(memory, record)?;
        if flags & RESPONSE_ERROR != 0 {
            return Ok(Answer::Error(&body[..body.len().min(ERROR_MESSAGE_BYTES_MAX)]));
        }
        if body.len() > body_bytes_max {
            return Err(GuestFault::BodyTooLarge);
        }
        let status = u16_at(record, offset_of!(ResponseRecord, status));
        if !(200..=599).contains(&status) {
            return Err(GuestFault::Status);
        }
        let table = read_table(memory, record)?;
        check_headers(memory, table, place)?;
        Ok(Answer::Response(Self { memory, status, table, body }))
    }

    /// Returns the status code, 200 to 599.
    #[must_use]
    pub const fn status(&self) -> u16 {
        self.status
    }

    /// Returns the body.
    #[must_use]
    pub const fn body(&self) -> &'m [u8] {
        self.body
    }

    /// Returns names and values, checked: tokens, and values without control characters.
    pub fn headers(&self) -> impl ExactSizeIterator<Item = (&'m [u8], &'m [u8])> + use<'m> {
        rows(self.memory, self.table)
    }
}

/// Checked fields for behind a body, still in the guest's memory. Which of them may stand there is the network's to
/// know.
#[derive(Debug, Clone, Copy)]
pub struct Trailers<'m> {
    memory: &'m [u8],
    // INVARIANT: as that of a response.
    table: &'m [[u8; HEADER_SIZE]],
}

impl<'m> Trailers<'m> {
    /// Reads and checks the table of so many rows at `address`.
    ///
    /// # Errors
    /// The first claim that does not hold: limits and rules are those of a response's headers.
    pub fn read(memory: &'m [u8], address: u32, count: u32) -> Result<Self, GuestFault> {
        let table = table(memory, address, count)?;
        check_headers(memory, table, Place::Response)?;
        Ok(Self { memory, table })
    }

    /// Returns names and values, checked.
    pub fn rows(&self) -> impl ExactSizeIterator<Item = (&'m [u8], &'m [u8])> + Clone + use<'m> {
        rows(self.memory, self.table)
    }
}

/// Returns names and values of a table that was checked.
pub(crate) fn rows<'m>(
    memory: &'m [u8],
    table: &'m [[u8; HEADER_SIZE]],
) -> impl ExactSizeIterator<Item = (&'m [u8], &'m [u8])> + Clone + use<'m> {
    table
        .iter()
        .map(move |row| header(memory, row).expect("both strings were found inside this memory"))
}

fn read_body<'m>(
    memory: &'m [u8],
    record: &[u8; RESPONSE_RECORD_SIZE],
) -> Result<&'m [u8], GuestFault> {
    let range = GuestRange {
        address: u32_at(record, offset_of!(ResponseRecord, body)),
        size: u32_at(record, offset_of!(ResponseRecord, body_size)),
    };
    range.within(memory.len()).map(|range| &memory[range]).ok_or(GuestFault::BodyOutOfBounds)
}

fn read_table<'m>(
    memory: &'m [u8],
    record: &[u8; RESPONSE_RECORD_SIZE],
) -> Result<&'m [[u8; HEADER_SIZE]], GuestFault> {
    let count = u32_at(record, offset_of!(ResponseRecord, header_count));
    table(memory, u32_at(record, offset_of!(ResponseRecord, headers)), count)
}

pub(crate) fn table(
    memory: &[u8],
    address: u32,
    count: u32,
) -> Result<&[[u8; HEADER_SIZE]], GuestFault> {
    if count > HEADER_COUNT_MAX {
        return Err(GuestFault::HeadersTooLarge);
    }
    let size = count * crate::width::wire(HEADER_SIZE);
    let range = GuestRange { address, size }.within(memory.len());
    let bytes = &memory[range.ok_or(GuestFault::HeaderOutOfBounds)?];
    Ok(bytes.as_chunks().0)
}

/// Where fields stand: it decides which of the host's own a guest may write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    /// The head of a whole response, or trailers: none.
    Response,
    /// The head of a response in pieces: it may tell the length of the whole, and names of trailers.
    Start,
    /// The head of a request: it may tell names of trailers, and that it takes them.
    Request,
}

impl Place {
    fn allows(self, name: &[u8], value: &[u8]) -> bool {
        let is = |other: &[u8]| name.eq_ignore_ascii_case(other);
        match self {
            Self::Response => false,
            Self::Start => is_length(name) || is(b"trailer"),
            Self::Request => is(b"trailer") || is(b"te") && value.eq_ignore_ascii_case(b"trailers"),
        }
    }
}

pub(crate) fn check_headers(
    memory: &[u8],
    table: &[[u8; HEADER_SIZE]],
    place: Place,
) -> Result<(), GuestFault> {
    let mut bytes = 0;
    for row in table {
        let (name, value) = header(memory, row).ok_or(GuestFault::HeaderOutOfBounds)?;
        bytes += name.len() + value.len();
        if bytes > HEADER_BYTES_MAX {
            return Err(GuestFault::HeadersTooLarge);
        }
        if name.is_empty() || !all(name, TOKEN) {
            return Err(GuestFault::HeaderName);
        }
        if !all(value, VALUE) {
            return Err(GuestFault::HeaderValue);
        }
        if is_reserved(name) && !place.allows(name, value) {
            return Err(GuestFault::HeaderReserved);
        }
    }
    Ok(())
}

pub(crate) fn header<'m>(
    memory: &'m [u8],
    row: &[u8; HEADER_SIZE],
) -> Option<(&'m [u8], &'m [u8])> {
    let name = GuestRange {
        address: u32_at(row, offset_of!(ResponseHeader, name)),
        size: u32_at(row, offset_of!(ResponseHeader, name_size)),
    };
    let value = GuestRange {
        address: u32_at(row, offset_of!(ResponseHeader, value)),
        size: u32_at(row, offset_of!(ResponseHeader, value_size)),
    };
    Some((&memory[name.within(memory.len())?], &memory[value.within(memory.len())?]))
}

/// Bit of [`CLASSES`]: the byte may stand in a name.
const TOKEN: u8 = 1;
/// Bit of [`CLASSES`]: the byte may stand in a value.
const VALUE: u8 = 2;

/// What each byte may be part of.
const CLASSES: [u8; 256] = {
    let mut classes = [0; 256];
    let mut byte: u8 = 0;
    loop {
        let token = if is_token(byte) { TOKEN } else { 0 };
        let value = if is_value(byte) { VALUE } else { 0 };
        classes[byte as usize] = token | value;
        if byte == u8::MAX {
            break;
        }
        byte += 1;
    }
    classes
};

/// True if every byte is of the class. Looks at all of them: most headers are good, and no branch is
/// cheaper than an early end.
fn all(bytes: &[u8], class: u8) -> bool {
    bytes.iter().fold(class, |left, &byte| left & CLASSES[usize::from(byte)]) != 0
}

/// RFC 9110 5.6.2: the characters of a token.
pub(crate) const fn is_token(byte: u8) -> bool {
    matches!(byte,
        b'!' | b'#' | b'$' | b'%' | b'&' | b'\'' | b'*' | b'+' | b'-' | b'.' | b'^' | b'_' | b'`' | b'|'
        | b'~' | b'0'..=b'9' | b'a'..=b'z' | b'A'..=b'Z')
}

/// RFC 9110 5.5: a field value holds tab, visible characters, space and bytes above 127.
const fn is_value(byte: u8) -> bool {
    byte == b'\t' || (byte >= b' ' && byte != 0x7F)
}

fn is_length(name: &[u8]) -> bool {
    name.eq_ignore_ascii_case(b"content-length")
}

/// Framing and connection fields: written by the host, which knows the connection (RFC 9110 7.6.1).
fn is_reserved(name: &[u8]) -> bool {
    const NAMES: [&[u8]; 9] = [
        b"connection",
        b"content-length",
        b"date",
        b"keep-alive",
        b"proxy-connection",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
    ];
    NAMES.iter().any(|reserved| name.eq_ignore_ascii_case(reserved))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A memory with a good response at 64, which `change` then spoils.
    fn read(change: impl FnOnce(&mut Vec<u8>)) -> Result<(u16, usize), GuestFault> {
        let mut memory = vec![0u8; 4096];
        let put = |memory: &mut Vec<u8>, at: usize, value: u32| {
            memory[at..at + 4].copy_from_slice(&value.to_le_bytes());
        };
        memory[64] = 200;
        put(&mut memory, 68, 1);
        put(&mut memory, 72, 128);
        put(&mut memory, 76, 512);
        put(&mut memory, 80, 5);
        for (at, value) in [(128, 256), (132, 12), (136, 300), (140, 10)] {
            put(&mut memory, at, value);
        }
        memory[256..268].copy_from_slice(b"content-type");
        memory[300..310].copy_from_slice(b"text/plain");
        memory[512..517].copy_from_slice(b"hello");
        change(&mut memory);
        match Response::read(&memory, 64, 1000)? {
            Answer::Response(response) => Ok((response.status(), response.headers().len())),
            Answer::Error(message) => Ok((0, message.len())),
        }
    }

    fn set(at: usize, value: u32) -> impl FnOnce(&mut Vec<u8>) {
        move |memory| memory[at..at + 4].copy_from_slice(&value.to_le_bytes())
    }

    #[test]
    fn a_good_response_is_read() {
        assert_eq!(read(|_| ()), Ok((200, 1)));
    }

    #[test]
    fn an_error_is_read_whatever_its_status() {
        assert_eq!(read(|memory| memory[64..68].copy_from_slice(&[0, 0, 1, 0])), Ok((0, 5)));
    }

    #[test]
    fn each_lie_has_its_fault() {
        use GuestFault::*;
        type Change = Box<dyn FnOnce(&mut Vec<u8>)>;
        let fault = |change: Change| read(change).unwrap_err();
        assert_eq!(fault(Box::new(set(76, 4092))), BodyOutOfBounds);
        assert_eq!(fault(Box::new(set(80, u32::MAX))), BodyOutOfBounds);
        assert_eq!(fault(Box::new(set(80, 1001))), BodyTooLarge);
        assert_eq!(fault(Box::new(set(68, 65))), HeadersTooLarge);
        assert_eq!(fault(Box::new(set(72, u32::MAX))), HeaderOutOfBounds);
        assert_eq!(fault(Box::new(set(132, 5000))), HeaderOutOfBounds);
        assert_eq!(fault(Box::new(set(136, u32::MAX))), HeaderOutOfBounds);
        assert_eq!(fault(Box::new(set(132, 0))), HeaderName);
        assert_eq!(fault(Box::new(|m| m[256] = b' ')), HeaderName);
        assert_eq!(fault(Box::new(|m| m[301] = b'\r')), HeaderValue);
        assert_eq!(fault(Box::new(|m| m[301] = 0)), HeaderValue);
        assert_eq!(fault(Box::new(|m| m[256..268].copy_from_slice(b"kEEp-alive\0\0"))), HeaderName);
        assert_eq!(fault(Box::new(|m| m[66] = 2)), Reserved);
        assert_eq!(fault(Box::new(|m| m[95] = 1)), Reserved);
        assert_eq!(fault(Box::new(|m| m[64] = 100)), Status);
        assert_eq!(fault(Box::new(|m| m[65] = 9)), Status);
    }

    #[test]
    fn the_hosts_own_headers_are_refused() {
        let spoil = |m: &mut Vec<u8>| {
            m[256..273].copy_from_slice(b"Transfer-Encoding");
            m[132] = 17;
        };
        assert_eq!(read(spoil), Err(GuestFault::HeaderReserved));
    }

    #[test]
    fn a_record_at_the_end_of_memory_is_refused() {
        let memory = vec![0; 4096];
        for address in [4065, 4096, u32::MAX] {
            let fault = Response::read(&memory, address, 0).err();
            assert_eq!(fault, Some(GuestFault::RecordOutOfBounds));
        }
        assert_eq!(Response::read(&memory, 0, 0).err(), Some(GuestFault::NoResponse));
    }
}

#[cfg(test)]
mod props {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Whatever stands in the memory: no panic, and what is accepted obeys the limits.
        #[test]
        fn any_memory_is_read_or_refused(
            memory in proptest::collection::vec(any::<u8>(), 0..2048),
            address in any::<u32>(),
        ) {
            if let Ok(Answer::Response(response)) = Response::read(&memory, address % 2100, 512) {
                prop_assert!(response.body().len() <= 512);
                for (name, value) in response.headers() {
                    prop_assert!(!name.is_empty() && name.iter().all(|&byte| is_token(byte)));
                    prop_assert!(!value.contains(&b'\n'));
                }
            }
        }

        /// Small numbers make most claims plausible, so that deep checks are reached too.
        #[test]
        fn plausible_claims_are_read_or_refused(
            words in proptest::collection::vec(0u32..700, 128),
            address in 1u32..600,
        ) {
            let mut memory: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
            let at = index(address);
            if at + 32 <= memory.len() {
                memory[at + 2..at + 4].fill(0);
                memory[at + 20..at + 32].fill(0);
            }
            if let Ok(Answer::Response(response)) = Response::read(&memory, address, 512) {
                prop_assert!(response.headers().len() <= 64);
            }
        }
    }
}
