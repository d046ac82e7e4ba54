//! Conversions between widths that the compiler cannot prove harmless, each with its reason.

const _: () = assert!(size_of::<usize>() == 8, "midge runs on 64-bit targets alone");

/// Widens an id or a size of the kernel's to an index.
#[inline]
pub(crate) const fn index(value: u32) -> usize {
    value as usize
}

/// Widens a size to the width of a counter.
#[inline]
pub(crate) const fn wide(size: usize) -> u64 {
    size as u64
}

/// Narrows a size that one of the limits in `settings.rs` bounds far below 4 GiB.
#[inline]
pub(crate) fn narrow(size: usize) -> u32 {
    u32::try_from(size).expect("bounded by a limit of settings.rs, all below 4 GiB")
}

/// Narrows an offset into a head, which `HEAD_BYTES_MAX` keeps below 64 KiB.
#[inline]
pub(crate) const fn span(offset: usize) -> u16 {
    debug_assert!(offset <= 0xFFFF);
    (wide(offset) & 0xFFFF) as u16
}

/// The size in a completion's result, for results that are not errors.
#[inline]
pub(crate) fn result_size(result: i32) -> usize {
    usize::try_from(result).unwrap_or(0)
}

/// The number of a listener, which `LISTENERS_MAX` bounds.
#[inline]
pub(crate) fn byte(number: usize) -> u8 {
    u8::try_from(number).expect("bounded by LISTENERS_MAX, far below 256")
}

/// The lower half of a word.
#[inline]
pub(crate) const fn low(word: u64) -> u32 {
    (word & 0xFFFF_FFFF) as u32
}

/// The lowest byte of a word.
#[inline]
pub(crate) const fn low_byte(word: u64) -> u8 {
    (word & 0xFF) as u8
}
