//! This module's own memory: a region that the request's block begins, taken piece by piece behind it.
//!
//! Nothing is given back: the instance is restored after the call. What repeats without end (pieces of a body)
//! has a buffer that it uses again.

use crate::{Wasi, World, index, wire};

/// Bytes in the region.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Span {
    /// First byte.
    pub at: u32,
    /// How many.
    pub size: u32,
}

impl Span {
    /// Returns the range of indices.
    #[must_use]
    pub const fn range(self) -> core::ops::Range<usize> {
        index(self.at)..index(self.at) + index(self.size)
    }
}

/// What is taken of the region.
#[derive(Debug, Default)]
pub struct Own {
    next: u32,
}

impl Own {
    /// Returns one of which nothing is taken.
    #[must_use]
    pub const fn new() -> Self {
        Self { next: 0 }
    }

    /// Begins behind the request's block.
    pub const fn begin(&mut self, block_size: u32) {
        self.next = block_size.next_multiple_of(8);
    }
}

impl<W: World> Wasi<'_, W> {
    /// Takes bytes on a boundary of eight.
    pub fn take(&mut self, size: u32) -> Span {
        let at = self.state.own.next;
        let end = at.checked_add(size).and_then(|end| end.checked_next_multiple_of(8));
        match end {
            Some(end) if index(end) <= self.bytes.len() => {
                self.state.own.next = end;
                Span { at, size }
            }
            _ => self.trap(
                "wasi: the request makes more headers, lists and buffers than there is room for",
            ),
        }
    }

    /// Makes a piece larger in its place, if nothing was taken behind it and there is room.
    pub fn extend(&mut self, span: Span, size: u32) -> Option<Span> {
        let is_last = (span.at + span.size).next_multiple_of(8) == self.state.own.next;
        let end = span.at.checked_add(size)?.checked_next_multiple_of(8)?;
        if !is_last || index(end) > self.bytes.len() {
            return None;
        }
        self.state.own.next = end;
        Some(Span { size, ..span })
    }

    /// Returns bytes of the region.
    #[must_use]
    pub fn own(&self, span: Span) -> &[u8] {
        &self.bytes[span.range()]
    }

    /// Copies bytes of the guest's to a new piece.
    pub fn copy_in(&mut self, address: u32, size: u32) -> Span {
        let span = self.take(size);
        self.world.read(address, &mut self.bytes[span.range()]);
        span
    }

    /// Reads a number of the region.
    #[must_use]
    pub fn own_u32(&self, at: u32) -> u32 {
        let bytes = self.bytes[index(at)..].first_chunk().expect("in the region");
        u32::from_le_bytes(*bytes)
    }

    /// Writes a number of the region.
    pub fn set_own_u32(&mut self, at: u32, value: u32) {
        self.bytes[index(at)..index(at) + 4].copy_from_slice(&value.to_le_bytes());
    }

    /// Returns the address of a place of the region in this module's memory.
    #[must_use]
    pub const fn address(&self, at: u32) -> u32 {
        self.base + at
    }

    /// Puts bytes of ours into a new piece.
    pub fn keep(&mut self, bytes: &[u8]) -> Span {
        let span = self.take(wire(bytes.len()));
        self.bytes[span.range()].copy_from_slice(bytes);
        span
    }
}
