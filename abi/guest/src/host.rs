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
    }
}

#[cfg(target_arch = "wasm32")]
pub(crate) use import::{clock_monotonic_ns, clock_wall_ns};

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
