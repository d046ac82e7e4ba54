//! The guest's memory: strings and lists lifted from it, results lowered to it.
//!
//! What the canonical ABI checks is checked here: bounds and alignment of every pointer, UTF-8 of every
//! string, and that what `cabi_realloc` returns is aligned and lies inside.

use crate::own::Span;
use crate::{Wasi, World, wire};

/// Longest string or list that is lifted as a whole: names and values of headers, paths.
pub const LIFTED_BYTES_MAX: u32 = 128 * 1024;

impl<W: World> Wasi<'_, W> {
    /// Checks that a region for a result is aligned and lies inside.
    pub fn place_for(&mut self, address: u32, size: u32, align: u32) {
        if !address.is_multiple_of(align) {
            self.trap("wasi: pointer not aligned");
        }
        if u64::from(address) + u64::from(size) > self.world.memory_size() {
            self.trap("wasi: pointer out of bounds of memory");
        }
    }

    /// Lifts bytes.
    pub fn lift_bytes(&mut self, address: u32, size: u32) -> Span {
        self.place_for(address, size, 1);
        if size > LIFTED_BYTES_MAX {
            self.trap("wasi: string or list is too long");
        }
        self.copy_in(address, size)
    }

    /// Lifts a string.
    pub fn lift_string(&mut self, address: u32, size: u32) -> Span {
        let span = self.lift_bytes(address, size);
        if core::str::from_utf8(self.own(span)).is_err() {
            self.trap("wasi: string is not UTF-8");
        }
        span
    }

    /// Checks a list that is read element by element.
    pub fn lift_list(&mut self, address: u32, count: u32, element_size: u32, align: u32) {
        match count.checked_mul(element_size) {
            Some(size) => self.place_for(address, size, align),
            None => self.trap("wasi: list is too long"),
        }
    }

    /// Reads a number of the guest's, whose bounds were checked.
    pub fn guest_u32(&mut self, address: u32) -> u32 {
        self.world.read_u32(address)
    }

    /// Lets the guest make room.
    pub fn allocate(&mut self, size: u32, align: u32) -> u32 {
        let address = self.world.realloc(0, 0, align, size);
        if !address.is_multiple_of(align) {
            self.trap("wasi: cabi_realloc returned a pointer that is not aligned");
        }
        if u64::from(address) + u64::from(size) > self.world.memory_size() {
            self.trap("wasi: cabi_realloc returned a pointer out of bounds of memory");
        }
        address
    }

    /// Lowers bytes of our region as a string or a list of bytes; writes pointer and length at `target`.
    pub fn lower_own(&mut self, target: u32, span: Span) {
        let address = self.allocate(span.size, 1);
        self.world.write(address, &self.bytes[span.range()]);
        self.world.write_u32(target, address);
        self.world.write_u32(target + 4, span.size);
    }

    /// As [`Wasi::lower_own`], of bytes that lie elsewhere.
    pub fn lower(&mut self, target: u32, bytes: &[u8]) {
        let size = wire(bytes.len());
        let address = self.allocate(size, 1);
        self.world.write(address, bytes);
        self.world.write_u32(target, address);
        self.world.write_u32(target + 4, size);
    }

    /// Lowers an empty `result`: 0 is `ok`.
    pub fn lower_ok_u32(&mut self, target: u32, value: u32) {
        self.place_for(target, 8, 4);
        self.world.write_u8(target, 0);
        self.world.write_u32(target + 4, value);
    }

    /// Lowers a `result` without payloads' error where the `ok` is a handle.
    pub fn lower_err_empty(&mut self, target: u32) {
        self.place_for(target, 8, 4);
        self.world.write_u8(target, 1);
    }
}
