//! Random bytes from the host: other ones for each request. Outside of wasm all are zero, so that tests repeat.

use crate::host;

/// The most bytes that one call of the import gives.
pub const RANDOM_BYTES_MAX: usize = 64 * 1024;

/// Fills the slice.
pub fn fill(target: &mut [u8]) {
    for part in target.chunks_mut(RANDOM_BYTES_MAX) {
        host::random(part);
    }
}

/// Returns a random number.
#[must_use]
pub fn u64() -> u64 {
    let mut bytes = [0; 8];
    fill(&mut bytes);
    u64::from_le_bytes(bytes)
}
