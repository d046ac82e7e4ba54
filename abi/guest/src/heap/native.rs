//! Outside of wasm std's heap serves, and what is handed out is leaked.

use core::fmt;
use std::vec::Vec;

pub(crate) fn fill<'a>(size_max: usize, write: impl FnOnce(&mut [u8]) -> usize) -> &'a [u8] {
    let mut bytes = std::vec![0; size_max];
    let size = write(&mut bytes);
    bytes.truncate(size);
    keep(bytes)
}

/// As much as a test can want.
const REST_BYTES: usize = 64 * 1024;

pub(crate) fn fill_rest<'a>(size_max: usize, write: impl FnOnce(&mut [u8]) -> usize) -> &'a [u8] {
    fill(size_max.min(REST_BYTES), write)
}

pub(crate) fn format<'a>(text: fmt::Arguments<'_>) -> &'a str {
    std::fmt::format(text).leak()
}

pub(crate) fn keep<'a>(bytes: Vec<u8>) -> &'a [u8] {
    bytes.leak()
}
