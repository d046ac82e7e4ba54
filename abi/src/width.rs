//! Lossless conversions between the wire's widths and `usize`.

const _: () = assert!(size_of::<usize>() == 8, "midge runs on 64-bit targets alone");

/// Widens a wire width to an index.
#[must_use]
pub const fn index(value: u32) -> usize {
    value as usize
}

/// Narrows a length that was bounded before to the wire's width.
///
/// # Panics
/// If the length is above `u32::MAX`: every buffer that reaches the wire is bounded far below.
#[must_use]
pub fn wire(length: usize) -> u32 {
    u32::try_from(length).expect("bounded by AREA_SIZE_MAX or a memory of at most 4 GiB")
}
