//! The imports behind safe faces. Outside of wasm each has a stand-in that always does the same.
#![cfg_attr(
    target_arch = "wasm32",
    expect(unsafe_code, reason = "calls the host's imports; safe faces")
)]

use crate::log::Level;

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
    }
}

#[cfg(target_arch = "wasm32")]
pub(crate) use import::{clock_monotonic_ns, clock_wall_ns, sleep_ns};

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
