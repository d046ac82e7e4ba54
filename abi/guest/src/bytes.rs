//! What can become a body or a header value.

use core::fmt;

use crate::heap;

/// Bytes that live until the response was read: borrowed, owned, or formatted into the heap.
pub trait IntoBytes<'a> {
    /// Returns the bytes.
    fn into_bytes(self) -> &'a [u8];
}

impl<'a> IntoBytes<'a> for &'a [u8] {
    fn into_bytes(self) -> &'a [u8] {
        self
    }
}

impl<'a, const SIZE: usize> IntoBytes<'a> for &'a [u8; SIZE] {
    fn into_bytes(self) -> &'a [u8] {
        self
    }
}

impl<'a> IntoBytes<'a> for &'a str {
    fn into_bytes(self) -> &'a [u8] {
        self.as_bytes()
    }
}

impl<'a> IntoBytes<'a> for fmt::Arguments<'_> {
    fn into_bytes(self) -> &'a [u8] {
        heap::format(self).as_bytes()
    }
}

#[cfg(feature = "alloc")]
impl<'a> IntoBytes<'a> for alloc::vec::Vec<u8> {
    fn into_bytes(self) -> &'a [u8] {
        heap::keep(self)
    }
}

#[cfg(feature = "alloc")]
impl<'a> IntoBytes<'a> for alloc::string::String {
    fn into_bytes(self) -> &'a [u8] {
        heap::keep(self.into_bytes())
    }
}
