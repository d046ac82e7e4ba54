//! The imports behind safe faces. Outside of wasm each has a stand-in that always does the same.
#![cfg_attr(
    target_arch = "wasm32",
    expect(unsafe_code, reason = "calls the host's imports; safe faces")
)]

use crate::layout::WaitRow;
use crate::log::Level;

/// What a request to another server asks for, still as slices.
#[cfg_attr(not(target_arch = "wasm32"), expect(dead_code, reason = "there is no network"))]
pub(crate) struct Asked<'p> {
    pub(crate) flags: u32,
    pub(crate) method: &'p [u8],
    pub(crate) authority: &'p [u8],
    pub(crate) target: &'p [u8],
    pub(crate) headers: &'p [(&'p [u8], &'p [u8])],
    pub(crate) body_size: u64,
    /// For the connection, the head, and between two pieces.
    pub(crate) times_ns: [u64; 3],
}

#[cfg(target_arch = "wasm32")]
mod import {
    #[link(wasm_import_module = "midge")]
    unsafe extern "C" {
        pub(crate) safe fn clock_wall_ns() -> i64;
        pub(crate) safe fn clock_monotonic_ns() -> i64;
        pub(super) fn log(level: i32, line: *const u8, size: usize);
        pub(super) fn random(target: *mut u8, size: usize);
        pub(super) fn body_read(target: *mut u8, size: usize) -> usize;
        pub(super) fn response_start(record: *const crate::layout::ResponseRecord);
        pub(super) fn response_write(piece: *const u8, size: usize);
        pub(crate) safe fn sleep_ns(time: i64);
        pub(super) fn fetch(record: *const crate::layout::FetchRecord) -> i32;
        pub(super) fn fetch_write(handle: u32, piece: *const u8, size: usize) -> i32;
        pub(crate) safe fn fetch_finish(handle: u32) -> i32;
        pub(super) fn fetch_head(handle: u32, target: *mut u8, size: usize) -> i32;
        pub(super) fn fetch_read(handle: u32, target: *mut u8, size: usize) -> i32;
        pub(crate) safe fn fetch_close(handle: u32);
        pub(super) fn trailers_read(handle: u32, target: *mut u8, size: usize) -> i32;
        pub(super) fn trailers_write(
            handle: u32,
            rows: *const crate::layout::ResponseHeader,
            count: usize,
        ) -> i32;
        pub(super) fn wait(rows: *mut crate::layout::WaitRow, count: usize, time: i64) -> i32;
    }
}

#[cfg(target_arch = "wasm32")]
pub(crate) use import::{clock_monotonic_ns, clock_wall_ns, fetch_close, fetch_finish, sleep_ns};

#[cfg(target_arch = "wasm32")]
pub(crate) fn log(level: Level, line: &[u8]) {
    // SAFETY: the import reads `size` bytes at `line` during the call alone: exactly the borrowed slice.
    unsafe { import::log(level as i32, line.as_ptr(), line.len()) }
}

#[cfg(target_arch = "wasm32")]
pub(crate) fn random(target: &mut [u8]) {
    // SAFETY: the import writes `size` bytes at `target` during the call alone: exactly the slice that is
    // borrowed mutably here. Any byte is a valid u8.
    unsafe { import::random(target.as_mut_ptr(), target.len()) }
}

#[cfg(target_arch = "wasm32")]
pub(crate) fn body_read(target: &mut [u8]) -> usize {
    // SAFETY: as for `random`; the host says how many of the bytes it wrote, no more than there are.
    unsafe { import::body_read(target.as_mut_ptr(), target.len()) }
}

#[cfg(target_arch = "wasm32")]
pub(crate) fn response_start(record: &crate::layout::ResponseRecord) {
    // SAFETY: the import reads the record, and what it refers to, during the call alone. The caller borrows
    // the response that the record was made of for as long.
    unsafe { import::response_start(core::ptr::from_ref(record)) }
}

#[cfg(target_arch = "wasm32")]
pub(crate) fn response_write(piece: &[u8]) {
    // SAFETY: the import reads exactly the borrowed slice, during the call alone.
    unsafe { import::response_write(piece.as_ptr(), piece.len()) }
}

#[cfg(target_arch = "wasm32")]
pub(crate) fn fetch(asked: &Asked<'_>) -> i32 {
    use crate::export::{address, header_row, size};
    use crate::fetch::FETCH_HEADERS_MAX;
    use crate::layout::{FetchRecord, ResponseHeader};

    let mut rows = [ResponseHeader::default(); FETCH_HEADERS_MAX];
    for (row, &(name, value)) in rows.iter_mut().zip(asked.headers) {
        *row = header_row(name, value);
    }
    let [connect_ns, first_byte_ns, between_bytes_ns] = asked.times_ns;
    let record = FetchRecord {
        flags: asked.flags,
        method: address(asked.method.as_ptr()),
        method_size: size(asked.method.len()),
        authority: address(asked.authority.as_ptr()),
        authority_size: size(asked.authority.len()),
        target: address(asked.target.as_ptr()),
        target_size: size(asked.target.len()),
        header_count: size(asked.headers.len()),
        headers: address(rows.as_ptr()),
        reserved: 0,
        body_size: asked.body_size,
        connect_ns,
        first_byte_ns,
        between_bytes_ns,
    };
    // SAFETY: the import reads the record, and what it refers to, during the call alone. `asked` borrows all of
    // it for as long, and the rows lie on this stack.
    unsafe { import::fetch(core::ptr::from_ref(&record)) }
}

#[cfg(target_arch = "wasm32")]
pub(crate) fn fetch_write(handle: u32, piece: &[u8]) -> i32 {
    // SAFETY: the import reads exactly the borrowed slice, during the call alone.
    unsafe { import::fetch_write(handle, piece.as_ptr(), piece.len()) }
}

#[cfg(target_arch = "wasm32")]
pub(crate) fn fetch_head(handle: u32, target: &mut [u8]) -> i32 {
    // SAFETY: as for `random`.
    unsafe { import::fetch_head(handle, target.as_mut_ptr(), target.len()) }
}

#[cfg(target_arch = "wasm32")]
pub(crate) fn fetch_read(handle: u32, target: &mut [u8]) -> i32 {
    // SAFETY: as for `random`.
    unsafe { import::fetch_read(handle, target.as_mut_ptr(), target.len()) }
}

#[cfg(target_arch = "wasm32")]
pub(crate) fn trailers_read(handle: u32, target: &mut [u8]) -> i32 {
    // SAFETY: as for `random`.
    unsafe { import::trailers_read(handle, target.as_mut_ptr(), target.len()) }
}

#[cfg(target_arch = "wasm32")]
pub(crate) fn trailers_write(handle: u32, trailers: &[(&str, &[u8])]) -> i32 {
    use crate::export::header_row;
    use crate::layout::ResponseHeader;
    use crate::trailers::TRAILERS_MAX;

    let mut rows = [ResponseHeader::default(); TRAILERS_MAX];
    for (row, &(name, value)) in rows.iter_mut().zip(trailers) {
        *row = header_row(name.as_bytes(), value);
    }
    // SAFETY: the import reads the rows, and what they refer to, during the call alone: the rows lie on this stack,
    // as many as the caller has found to fit, and the texts are borrowed for as long.
    unsafe { import::trailers_write(handle, rows.as_ptr(), trailers.len()) }
}

#[cfg(target_arch = "wasm32")]
pub(crate) fn wait(rows: &mut [WaitRow], time_ns: i64) {
    // SAFETY: the import reads and writes exactly the borrowed rows, during the call alone. It writes whole
    // fields of them, for which any number is valid.
    unsafe { import::wait(rows.as_mut_ptr(), rows.len(), time_ns) };
}

/// It is as if nothing was granted: `HTTP-request-denied`.
#[cfg(not(target_arch = "wasm32"))]
pub(crate) const fn fetch(_asked: &Asked<'_>) -> i32 {
    crate::layout::ERRORS_FROM - crate::fetch::FetchError::Denied as i32
}

/// Nothing comes behind a body.
#[cfg(not(target_arch = "wasm32"))]
pub(crate) const fn trailers_read(_handle: u32, _target: &mut [u8]) -> i32 {
    0
}

#[cfg(not(target_arch = "wasm32"))]
pub(crate) const fn trailers_write(_handle: u32, _trailers: &[(&str, &[u8])]) -> i32 {
    0
}

// Without a fetch there is no handle, and these are not reached.

#[cfg(not(target_arch = "wasm32"))]
pub(crate) const fn fetch_write(_handle: u32, _piece: &[u8]) -> i32 {
    0
}

#[cfg(not(target_arch = "wasm32"))]
pub(crate) const fn fetch_finish(_handle: u32) -> i32 {
    0
}

#[cfg(not(target_arch = "wasm32"))]
pub(crate) const fn fetch_head(_handle: u32, _target: &mut [u8]) -> i32 {
    0
}

#[cfg(not(target_arch = "wasm32"))]
pub(crate) const fn fetch_read(_handle: u32, _target: &mut [u8]) -> i32 {
    0
}

#[cfg(not(target_arch = "wasm32"))]
pub(crate) const fn fetch_close(_handle: u32) {}

/// The body of the request is all there.
#[cfg(not(target_arch = "wasm32"))]
pub(crate) fn wait(rows: &mut [WaitRow], _time_ns: i64) {
    rows.iter_mut().for_each(|row| row.is_ready = 1);
}

#[cfg(not(target_arch = "wasm32"))]
pub(crate) const fn body_read(_target: &mut [u8]) -> usize {
    0
}

#[cfg(not(target_arch = "wasm32"))]
pub(crate) const fn response_write(_piece: &[u8]) {}

#[cfg(not(target_arch = "wasm32"))]
pub(crate) const fn sleep_ns(_time: i64) {}

#[cfg(not(target_arch = "wasm32"))]
pub(crate) const fn clock_wall_ns() -> i64 {
    0
}

#[cfg(not(target_arch = "wasm32"))]
pub(crate) const fn clock_monotonic_ns() -> i64 {
    0
}

#[cfg(not(target_arch = "wasm32"))]
pub(crate) const fn log(_level: Level, _line: &[u8]) {}

#[cfg(not(target_arch = "wasm32"))]
pub(crate) fn random(target: &mut [u8]) {
    target.fill(0);
}
