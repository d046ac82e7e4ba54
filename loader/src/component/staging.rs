//! The memory by which a component's call and its embedder exchange bytes, laid out as a guest's would be.
//!
//! ```text
//!   0          AREA              RECORDS                      PIECE               BYTES
//!   | nothing  | request block   | records, rows, texts       | a piece of a body |
//! ```
//!
//! A guest that follows the contract hands out addresses in its own memory. The engine's component runtime has none
//! of those, so what a request or a response is made of is laid down here for the same embedder.
//!
//! Invariant: it is written by the future of the call and by its embedder, never by both at once: one of them stands
//! still (`drive.rs`).

use std::cell::{Cell, RefCell};
use std::ptr::NonNull;
use std::rc::Rc;

use http::HeaderMap;
use http::header::{CONTENT_LENGTH, DATE, HeaderName, HeaderValue, TE, TRAILER};
use midge_abi::contract::{HEADER_SIZE, RESPONSE_ERROR, RESPONSE_RECORD_SIZE};
use midge_abi::fetch::{FETCH_RECORD_SIZE, WAIT_ROW_SIZE};
use midge_abi::response::GuestRange;
use midge_abi::width::{index, wire};

/// Where a request is written. Not 0, which stands for no response.
pub(super) const AREA: u32 = 4096;
/// Its size: the longest head with its rows, and the beginning of a body.
pub(super) const AREA_BYTES: u32 = 128 * 1024;
const RECORDS: u32 = AREA + AREA_BYTES;
/// A request for another server is the largest: 16 KiB each of target and headers, and its rows.
const RECORDS_BYTES: u32 = 48 * 1024;
/// Where a piece of a body lies, or the head of a response from another server.
const PIECE: u32 = RECORDS + RECORDS_BYTES;
const PIECE_ROOM: u32 = 72 * 1024;
const BYTES: usize = index(PIECE + PIECE_ROOM);
/// Most bytes of a body that move at once.
pub(super) const PIECE_BYTES: usize = 64 * 1024;

/// Where fields stand: it decides which of the embedder's own may be there (`midge_abi::response`), of those that the
/// engine's crates let through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// The head of a whole response, or behind a body.
    Whole,
    /// The head of a response in pieces.
    Start,
    /// The head of a request.
    Request,
}

impl Place {
    fn allows(self, name: &HeaderName, value: &HeaderValue) -> bool {
        match *name {
            DATE => false,
            TE => self == Self::Request && value.as_bytes().eq_ignore_ascii_case(b"trailers"),
            TRAILER => self != Self::Whole,
            CONTENT_LENGTH => self == Self::Start,
            _ => true,
        }
    }
}

const _: () = assert!(PIECE_BYTES <= index(PIECE_ROOM));

/// Memories that a thread keeps for the calls to come: a new one costs more than many a call.
const KEPT_MAX: usize = 64;

thread_local! {
    static KEPT: RefCell<Vec<Rc<[Cell<u8>]>>> = const { RefCell::new(Vec::new()) };
}

/// The memory. What an earlier call left in it stays there until it is written over: nothing is read that was not
/// written for this call.
pub(super) struct Staging(Rc<[Cell<u8>]>);

/// There is more than fits the records.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the headers are more than this host sends")]
pub(super) struct TooMuch;

impl Staging {
    pub(super) fn new() -> Self {
        let kept = KEPT.with_borrow_mut(Vec::pop);
        Self(kept.unwrap_or_else(|| vec![Cell::new(0); BYTES].into()))
    }

    /// Returns the first byte's address; it stays as long as `self` does.
    pub(super) fn base(&self) -> NonNull<u8> {
        NonNull::from(&*self.0).cast()
    }

    pub(super) fn size(&self) -> usize {
        self.0.len()
    }

    /// Returns a copy of a range.
    ///
    /// # Panics
    /// If it reaches beyond the end.
    pub(super) fn copy(&self, range: GuestRange) -> Vec<u8> {
        let range = range.within(self.size()).expect("inside the staging memory");
        self.0[range].iter().map(Cell::get).collect()
    }

    /// Returns the whole room for a piece.
    pub(super) const fn piece_room() -> GuestRange {
        GuestRange { address: PIECE, size: PIECE_ROOM }
    }

    /// Lays a piece down; what has no room is left out. Returns where it lies.
    pub(super) fn put_piece(&self, bytes: &[u8]) -> GuestRange {
        let size = bytes.len().min(PIECE_BYTES);
        self.write(PIECE, &bytes[..size]);
        GuestRange { address: PIECE, size: wire(size) }
    }

    /// Lays a response's record down, its body being a piece that lies there. Returns its address.
    pub(super) fn put_response(
        &self,
        status: u16,
        headers: &HeaderMap,
        place: Place,
        body: GuestRange,
    ) -> Result<u32, TooMuch> {
        let mut writer = self.writer();
        let record = writer.take(wire(RESPONSE_RECORD_SIZE))?;
        let (rows, count) = writer.put_rows(headers, place)?;
        let numbers = [u32::from(status), count, rows, body.address, body.size];
        self.write_numbers(record, &numbers);
        Ok(record)
    }

    /// Lays down that the guest failed, and why. Returns the record's address.
    pub(super) fn put_failure(&self, message: &str) -> u32 {
        let body = self.put_piece(message.as_bytes());
        self.write(RECORDS, &[0; RESPONSE_RECORD_SIZE]);
        let numbers = [u32::from(RESPONSE_ERROR) << 16, 0, 0, body.address, body.size];
        self.write_numbers(RECORDS, &numbers);
        RECORDS
    }

    /// Lays the fields behind a body down. Returns their rows.
    pub(super) fn put_trailers(&self, trailers: &HeaderMap) -> Result<GuestRange, TooMuch> {
        let (address, count) = self.writer().put_rows(trailers, Place::Whole)?;
        Ok(GuestRange { address, size: count * wire(HEADER_SIZE) })
    }

    /// Lays rows down that are waited for: kind and handle of each.
    pub(super) fn put_wait(&self, rows: impl Iterator<Item = (u16, u32)>) -> GuestRange {
        let mut size = 0;
        for (kind, handle) in rows {
            self.write_numbers(RECORDS + size, &[u32::from(kind), handle]);
            size += wire(WAIT_ROW_SIZE);
        }
        GuestRange { address: RECORDS, size }
    }

    /// Tells of the rows that were laid down which are ready.
    pub(super) fn ready_rows(&self, rows: GuestRange) -> Vec<bool> {
        self.copy(rows).chunks_exact(WAIT_ROW_SIZE).map(|row| row[2] != 0).collect()
    }

    /// Lays a request for another server down. Returns its record's address.
    pub(super) fn put_fetch(&self, asked: &super::fetch::Asked) -> Result<u32, TooMuch> {
        let mut writer = self.writer();
        let record = writer.take(wire(FETCH_RECORD_SIZE))?;
        let (method, method_size) = writer.put(asked.method.as_str().as_bytes())?;
        let (authority, authority_size) = writer.put(asked.authority.as_bytes())?;
        let (target, target_size) = writer.put(asked.target.as_bytes())?;
        let (rows, count) = writer.put_rows(&asked.headers, Place::Request)?;
        let numbers = [
            asked.flags,
            method,
            method_size,
            authority,
            authority_size,
            target,
            target_size,
            count,
            rows,
            0,
        ];
        self.write_numbers(record, &numbers);
        let [connect, first_byte, between_bytes] = asked.times_ns;
        let wide = [asked.body_size, connect, first_byte, between_bytes];
        for (at, number) in (record + wire(numbers.len()) * 4..).step_by(8).zip(wide) {
            self.write(at, &number.to_le_bytes());
        }
        Ok(record)
    }

    fn writer(&self) -> Writer<'_> {
        Writer { staging: self, at: RECORDS }
    }

    fn write_numbers(&self, at: u32, numbers: &[u32]) {
        for (at, number) in (at..).step_by(4).zip(numbers) {
            self.write(at, &number.to_le_bytes());
        }
    }

    fn write(&self, at: u32, bytes: &[u8]) {
        let cells = &self.0[index(at)..][..bytes.len()];
        for (cell, byte) in cells.iter().zip(bytes) {
            cell.set(*byte);
        }
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        // A thread that ends has no place for it any more.
        let _gone = KEPT.try_with(|kept| {
            let mut kept = kept.borrow_mut();
            if kept.len() < KEPT_MAX {
                kept.push(Rc::clone(&self.0));
            }
        });
    }
}

/// Fills the records from their start.
struct Writer<'s> {
    staging: &'s Staging,
    at: u32,
}

impl Writer<'_> {
    /// Takes zeroed bytes.
    fn take(&mut self, size: u32) -> Result<u32, TooMuch> {
        let at = self.at.next_multiple_of(8);
        if PIECE - at < size {
            return Err(TooMuch);
        }
        self.at = at + size;
        for cell in &self.staging.0[index(at)..index(self.at)] {
            cell.set(0);
        }
        Ok(at)
    }

    fn put(&mut self, text: &[u8]) -> Result<(u32, u32), TooMuch> {
        let size = u32::try_from(text.len()).map_err(|_| TooMuch)?;
        let at = self.take(size)?;
        self.staging.write(at, text);
        Ok((at, size))
    }

    /// Puts a table of headers. Returns its address and how many rows it has.
    fn put_rows(&mut self, headers: &HeaderMap, place: Place) -> Result<(u32, u32), TooMuch> {
        let fields = || headers.iter().filter(|(name, value)| place.allows(name, value));
        let count = u32::try_from(fields().count()).map_err(|_| TooMuch)?;
        let rows = self.take(count.checked_mul(wire(HEADER_SIZE)).ok_or(TooMuch)?)?;
        for (row, (name, value)) in (rows..).step_by(HEADER_SIZE).zip(fields()) {
            let (name, name_size) = self.put(name.as_str().as_bytes())?;
            let (value, value_size) = self.put(value.as_bytes())?;
            self.staging.write_numbers(row, &[name, name_size, value, value_size]);
        }
        Ok((rows, count))
    }
}

#[cfg(test)]
mod tests {
    use midge_abi::response::{Answer, Response};

    use super::*;

    fn memory(staging: &Staging) -> Vec<u8> {
        staging.copy(GuestRange { address: 0, size: wire(BYTES) })
    }

    fn headers(rows: &[(&'static str, &str)]) -> HeaderMap {
        let row = |(name, value): &(&'static str, &str)| {
            (HeaderName::from_static(name), HeaderValue::from_str(value).unwrap())
        };
        rows.iter().map(row).collect()
    }

    #[test]
    fn a_response_is_read_as_a_guests() {
        let staging = Staging::new();
        let body = staging.put_piece(b"hello");
        let headers = headers(&[("x-a", "1"), ("x-b", ""), ("date", "now"), ("trailer", "x-c")]);
        let record = staging.put_response(201, &headers, Place::Whole, body).unwrap();
        let memory = memory(&staging);
        let Ok(Answer::Response(response)) = Response::read(&memory, record, 100) else {
            panic!("it is one");
        };
        assert_eq!((response.status(), response.body()), (201, &b"hello"[..]));
        assert!(response.headers().eq([(&b"x-a"[..], &b"1"[..]), (b"x-b", b"")]));
    }

    #[test]
    fn a_failure_after_a_response_is_a_failure() {
        let staging = Staging::new();
        let body = staging.put_piece(b"hello");
        staging.put_response(200, &headers(&[("x", "y")]), Place::Start, body).unwrap();
        let record = staging.put_failure("no");
        let memory = memory(&staging);
        assert!(matches!(Response::read(&memory, record, 9), Ok(Answer::Error(b"no"))));
    }

    #[test]
    fn too_many_headers_are_refused() {
        let value = "v".repeat(1024);
        let headers = headers(&[("name", value.as_str()); 64]);
        // The same name over and over is one of many values.
        let mut many = HeaderMap::new();
        for (name, value) in &headers {
            for _ in 0..64 {
                many.append(name.clone(), value.clone());
            }
        }
        let staging = Staging::new();
        let none = staging.put_piece(b"");
        assert_eq!(staging.put_response(200, &many, Place::Whole, none), Err(TooMuch));
    }
}
