//! Requests that a guest makes of other servers: the records both ways.
//!
//! ```text
//!   guest: fetch(record) -> handle     the host: connects, sends the head
//!          fetch_write, fetch_finish             sends the body
//!          fetch_head(handle, region)            | status, count | rows 16 B each | names and values |
//!          fetch_read(handle, region)            the body
//! ```
//!
//! None of these waits; `wait` does, for any of several things ([`WaitRow`]). All numbers of a guest's are claims.

use std::mem::offset_of;

use crate::contract::{HEADER_SIZE, u32_at, u64_at};
use crate::response::{GuestFault, GuestRange, Place, check_headers, header, is_token, rows};
use crate::width::{index, wire};

/// What the fetching imports return where something is not there yet.
pub const LATER: i32 = -1;
/// They return this less an error's code.
pub const ERRORS_FROM: i32 = -2;
/// Requests that one call may have under way, or answered and not closed.
pub const FETCHES_PER_CALL_MAX: usize = 16;
/// Longest method, authority, and path with query.
pub const METHOD_BYTES_MAX: u32 = 32;
/// As [`METHOD_BYTES_MAX`].
pub const AUTHORITY_BYTES_MAX: u32 = 261;
/// As [`METHOD_BYTES_MAX`].
pub const TARGET_BYTES_MAX: u32 = 16 * 1024;
/// Most rows of one `wait`.
pub const WAIT_ROWS_MAX: u32 = 64;
/// Size of a [`WaitRow`].
pub const WAIT_ROW_SIZE: usize = size_of::<WaitRow>();

/// The code of a request that nothing grants.
pub const DENIED: u8 = 15;
/// The code of fields for which a region has no room.
pub const HEAD_TOO_LONG: u8 = 26;
/// Why there is no response: codes, which are those of `error-code` in `wasi:http`, and what the libraries for guests
/// call them.
pub const ERRORS: [(u8, &str); 24] = [
    (0, "DnsTimeout"),
    (1, "Dns"),
    (3, "Unavailable"),
    (4, "Prohibited"),
    (5, "Unroutable"),
    (6, "Refused"),
    (7, "Terminated"),
    (8, "ConnectTimeout"),
    (9, "ReadTimeout"),
    (10, "WriteTimeout"),
    (11, "Limit"),
    (12, "Tls"),
    (13, "Certificate"),
    (14, "Alert"),
    (DENIED, "Denied"),
    (17, "BodySize"),
    (18, "Method"),
    (19, "Uri"),
    (25, "Incomplete"),
    (HEAD_TOO_LONG, "HeadTooLong"),
    (31, "TransferCoding"),
    (33, "ResponseTimeout"),
    (35, "Protocol"),
    (38, "Internal"),
];

/// Bit of [`FetchRecord::flags`]: by TLS.
pub const FETCH_TLS: u32 = 1;
/// Bit of [`FetchRecord::flags`]: a body follows, by `fetch_write` and `fetch_finish`.
pub const FETCH_BODY: u32 = 2;
/// [`FetchRecord::body_size`] of a body whose end tells its length.
pub const BODY_SIZE_UNKNOWN: u64 = u64::MAX;

/// What is asked for. Pointers are addresses in the guest's memory.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FetchRecord {
    /// Bits.
    pub flags: u32,
    /// Method.
    pub method: u32,
    /// Its size.
    pub method_size: u32,
    /// Host, and port if it is not the scheme's.
    pub authority: u32,
    /// Its size.
    pub authority_size: u32,
    /// Path and query.
    pub target: u32,
    /// Its size.
    pub target_size: u32,
    /// Rows of the header table.
    pub header_count: u32,
    /// The header table, as a response's.
    pub headers: u32,
    /// Zero.
    pub reserved: u32,
    /// Size of the body, or [`BODY_SIZE_UNKNOWN`].
    pub body_size: u64,
    /// Longest time for a connection; 0 for the host's own.
    pub connect_ns: u64,
    /// Longest time for the response's head; 0 for the host's own.
    pub first_byte_ns: u64,
    /// Longest time between two pieces of its body; 0 for the host's own.
    pub between_bytes_ns: u64,
}

/// Size of a [`FetchRecord`].
pub const FETCH_RECORD_SIZE: usize = size_of::<FetchRecord>();

/// One thing that is waited for.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WaitRow {
    /// A [`WaitFor`].
    pub kind: u16,
    /// The host writes 1 where it is there, or never will be.
    pub is_ready: u16,
    /// Which fetch; 0 for the request's own body.
    pub handle: u32,
}

/// What may be waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u16)]
pub enum WaitFor {
    /// More of the request's body.
    Body = 1,
    /// The head of a fetch's response.
    FetchHead = 2,
    /// More of the body of a fetch's response.
    FetchBody = 3,
    /// Room for more of a fetch's body.
    FetchRoom = 4,
}

impl WaitFor {
    /// Returns what a number stands for.
    #[must_use]
    pub const fn from_code(code: u16) -> Option<Self> {
        match code {
            1 => Some(Self::Body),
            2 => Some(Self::FetchHead),
            3 => Some(Self::FetchBody),
            4 => Some(Self::FetchRoom),
            _ => None,
        }
    }
}

/// A checked request, still in the guest's memory.
#[derive(Debug, Clone, Copy)]
pub struct Fetch<'m> {
    memory: &'m [u8],
    /// By TLS.
    pub is_tls: bool,
    /// A token.
    pub method: &'m [u8],
    /// Visible ASCII.
    pub authority: &'m [u8],
    /// Visible ASCII, from a `/` on, or `*`.
    pub target: &'m [u8],
    // INVARIANT: `read` walked the whole table.
    table: &'m [[u8; HEADER_SIZE]],
    /// A body follows; its size if that is known.
    pub body: Option<Option<u64>>,
    /// Times for connection, head, and between pieces; 0 for the host's own.
    pub times_ns: [u64; 3],
}

impl<'m> Fetch<'m> {
    /// Reads and checks the record at `address`.
    ///
    /// # Errors
    /// The first claim that does not hold.
    pub fn read(memory: &'m [u8], address: u32) -> Result<Self, GuestFault> {
        let record: &[u8; FETCH_RECORD_SIZE] = memory
            .get(index(address)..)
            .and_then(|rest| rest.first_chunk())
            .ok_or(GuestFault::RecordOutOfBounds)?;
        let flags = u32_at(record, offset_of!(FetchRecord, flags));
        if flags & !(FETCH_TLS | FETCH_BODY) != 0
            || u32_at(record, offset_of!(FetchRecord, reserved)) != 0
        {
            return Err(GuestFault::Reserved);
        }
        let text = |at: usize, most: u32, is_good: fn(u8) -> bool, fault| {
            let range = GuestRange { address: u32_at(record, at), size: u32_at(record, at + 4) };
            let text = range.within(memory.len()).map(|range| &memory[range]);
            let text = text.ok_or(GuestFault::HeaderOutOfBounds)?;
            let is_good = !text.is_empty()
                && wire(text.len()) <= most
                && text.iter().all(|&byte| is_good(byte));
            if is_good { Ok(text) } else { Err(fault) }
        };
        let visible = |byte: u8| byte.is_ascii_graphic();
        let method =
            text(offset_of!(FetchRecord, method), METHOD_BYTES_MAX, is_token, GuestFault::Method)?;
        let authority = text(
            offset_of!(FetchRecord, authority),
            AUTHORITY_BYTES_MAX,
            visible,
            GuestFault::Target,
        )?;
        let target =
            text(offset_of!(FetchRecord, target), TARGET_BYTES_MAX, visible, GuestFault::Target)?;
        if !(target.starts_with(b"/") || target == b"*") || target.contains(&b'#') {
            return Err(GuestFault::Target);
        }
        let count = u32_at(record, offset_of!(FetchRecord, header_count));
        let table = crate::response::table(
            memory,
            u32_at(record, offset_of!(FetchRecord, headers)),
            count,
        )?;
        check_headers(memory, table, Place::Request)?;
        let is_host =
            |row| header(memory, row).is_some_and(|(name, _)| name.eq_ignore_ascii_case(b"host"));
        if table.iter().any(is_host) {
            return Err(GuestFault::HeaderReserved);
        }
        let size = u64_at(record, offset_of!(FetchRecord, body_size));
        let size = (size != BODY_SIZE_UNKNOWN).then_some(size);
        Ok(Self {
            memory,
            is_tls: flags & FETCH_TLS != 0,
            method,
            authority,
            target,
            table,
            body: (flags & FETCH_BODY != 0).then_some(size),
            times_ns: [
                u64_at(record, offset_of!(FetchRecord, connect_ns)),
                u64_at(record, offset_of!(FetchRecord, first_byte_ns)),
                u64_at(record, offset_of!(FetchRecord, between_bytes_ns)),
            ],
        })
    }

    /// Returns names and values, checked.
    pub fn headers(&self) -> impl ExactSizeIterator<Item = (&'m [u8], &'m [u8])> + use<'m> {
        rows(self.memory, self.table)
    }
}

/// Returns the size of what [`write_head`] writes.
#[must_use]
pub fn head_size<'h>(headers: impl ExactSizeIterator<Item = (&'h [u8], &'h [u8])>) -> usize {
    let rows = HEAD_START + headers.len() * HEADER_SIZE;
    headers.fold(rows, |size, (name, value)| size + name.len() + value.len())
}

/// Status and count, in front of the rows.
const HEAD_START: usize = 8;

/// Writes the head of a response: status and count, rows of name and value as offsets and sizes, their bytes.
/// Names go in lower case. Returns its size; `None` if the target has no room.
pub fn write_head<'h>(
    target: &mut [u8],
    status: u16,
    headers: impl ExactSizeIterator<Item = (&'h [u8], &'h [u8])>,
) -> Option<usize> {
    let count = headers.len();
    let mut at = HEAD_START + count * HEADER_SIZE;
    let start = target.get_mut(..at)?;
    start[..4].copy_from_slice(&u32::from(status).to_le_bytes());
    start[4..HEAD_START].copy_from_slice(&wire(count).to_le_bytes());
    for (row, (name, value)) in headers.enumerate() {
        let row = HEAD_START + row * HEADER_SIZE;
        for (field, part) in [(row, name), (row + 8, value)] {
            let end = at + part.len();
            target.get_mut(at..end)?.copy_from_slice(part);
            target[field..field + 4].copy_from_slice(&wire(at).to_le_bytes());
            target[field + 4..field + 8].copy_from_slice(&wire(part.len()).to_le_bytes());
            if field == row {
                target[at..end].make_ascii_lowercase();
            }
            at = end;
        }
    }
    Some(at)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Reads a good record that `change` has spoiled; returns its one header.
    fn record(change: impl FnOnce(&mut Vec<u8>)) -> Result<(String, String), GuestFault> {
        let mut memory = vec![0u8; 4096];
        let text = |memory: &mut Vec<u8>, field: usize, at: usize, text: &str| {
            memory[at..at + text.len()].copy_from_slice(text.as_bytes());
            memory[64 + field..68 + field].copy_from_slice(&wire(at).to_le_bytes());
            memory[68 + field..72 + field].copy_from_slice(&wire(text.len()).to_le_bytes());
        };
        text(&mut memory, offset_of!(FetchRecord, method), 512, "GET");
        text(&mut memory, offset_of!(FetchRecord, authority), 600, "example.com");
        text(&mut memory, offset_of!(FetchRecord, target), 700, "/a?b");
        memory[64 + offset_of!(FetchRecord, header_count)] = 1;
        memory[64 + offset_of!(FetchRecord, headers) + 1] = 4;
        for (at, number) in [(1024, 800u32), (1028, 6), (1032, 820), (1036, 3)] {
            memory[at..at + 4].copy_from_slice(&number.to_le_bytes());
        }
        memory[800..806].copy_from_slice(b"accept");
        memory[820..823].copy_from_slice(b"*/*");
        change(&mut memory);
        let fetch = Fetch::read(&memory, 64)?;
        assert_eq!((fetch.method, fetch.target), (&b"GET"[..], &b"/a?b"[..]));
        let (name, value) = fetch.headers().next().expect("it has one header");
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        Ok((text(name), text(value)))
    }

    #[test]
    fn each_lie_has_its_fault() {
        type Change = fn(&mut Vec<u8>);
        let changes: [(Change, GuestFault); 10] = [
            (|memory| memory[64] = 4, GuestFault::Reserved),
            (|memory| memory[64 + offset_of!(FetchRecord, reserved)] = 1, GuestFault::Reserved),
            (|memory| memory[513] = b' ', GuestFault::Method),
            (|memory| memory[601] = b'\r', GuestFault::Target),
            (|memory| memory[701] = b' ', GuestFault::Target),
            (|memory| memory[701] = b'#', GuestFault::Target),
            (|memory| memory[700] = b'a', GuestFault::Target),
            (|memory| memory[821] = b'\n', GuestFault::HeaderValue),
            (
                |memory| memory[64 + offset_of!(FetchRecord, target) + 3] = 1,
                GuestFault::HeaderOutOfBounds,
            ),
            (
                |memory| {
                    memory[800..804].copy_from_slice(b"host");
                    memory[1028] = 4;
                },
                GuestFault::HeaderReserved,
            ),
        ];
        assert_eq!(record(|_| ()), Ok(("accept".into(), "*/*".into())));
        for (number, (change, fault)) in changes.into_iter().enumerate() {
            assert_eq!(record(change), Err(fault), "{number}");
        }
        assert_eq!(Fetch::read(&[0; 64], 60).unwrap_err(), GuestFault::RecordOutOfBounds);
    }

    /// The connection's own fields are the host's, but for what tells a server that trailers are welcome.
    #[test]
    fn a_request_may_take_trailers_and_name_its_own() {
        let with = |name: &str, value: &str| {
            record(|memory| {
                memory[800..800 + name.len()].copy_from_slice(name.as_bytes());
                memory[820..820 + value.len()].copy_from_slice(value.as_bytes());
                memory[1028] = u8::try_from(name.len()).unwrap();
                memory[1036] = u8::try_from(value.len()).unwrap();
            })
        };
        for (name, value) in [("TE", "Trailers"), ("te", "trailers"), ("trailer", "a, b")] {
            assert_eq!(with(name, value), Ok((name.to_owned(), value.to_owned())));
        }
        for (name, value) in
            [("te", "gzip"), ("te", ""), ("te", "trailers, gzip"), ("upgrade", "trailers")]
        {
            assert_eq!(with(name, value), Err(GuestFault::HeaderReserved), "{name}: {value}");
        }
    }

    #[test]
    fn a_head_fits_or_is_not_written() {
        let headers = [(&b"Content-Type"[..], &b"text/plain"[..]), (b"x", b"")];
        let mut target = [0; 128];
        let size = write_head(&mut target, 404, headers.into_iter()).unwrap();
        assert_eq!(size, 8 + 2 * 16 + 12 + 10 + 1);
        assert_eq!(head_size(headers.into_iter()), size);
        assert_eq!(target[..8], [148, 1, 0, 0, 2, 0, 0, 0]);
        assert_eq!(&target[40..52], b"content-type");
        for room in 0..size {
            assert!(write_head(&mut target[..room], 404, headers.into_iter()).is_none());
        }
    }
}
