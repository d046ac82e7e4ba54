//! The heap as Rust's global allocator.
#![expect(unsafe_code, reason = "implements GlobalAlloc over the heap")]

use core::alloc::{GlobalAlloc, Layout};
use core::ptr;

use super::wasm::Heap;

// SAFETY: `Bump` gives out aligned pieces that do not overlap (its property test), of a region that
// is this heap's alone (`begin`). A piece is given out again only after `dealloc`, or after `begin`
// found that none is alive. When nothing fits the answer is null; nothing unwinds.
unsafe impl GlobalAlloc for Heap {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let mut state = self.0.get();
        let taken = if state.is_call {
            state.live_count += 1;
            state.bump.take(layout.size(), layout.align())
        } else {
            state.bump.take_for_good(layout.size(), layout.align())
        };
        let Some(address) = taken else { return ptr::null_mut() };
        self.0.set(state);
        state.base.with_addr(address)
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        let mut state = self.0.get();
        if pointer.addr() < state.bump.limit() {
            state.live_count -= 1;
            state.bump.resize(pointer.addr(), layout.size(), 0);
            self.0.set(state);
        }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        let mut state = self.0.get();
        if state.bump.resize(pointer.addr(), layout.size(), new_size) {
            self.0.set(state);
            return pointer;
        }
        if new_size <= layout.size() {
            return pointer;
        }
        // SAFETY: the caller promises that `new_size` is not zero and does not overflow when
        // rounded up to the alignment, which was a valid one.
        let new_layout = unsafe { Layout::from_size_align_unchecked(new_size, layout.align()) };
        // SAFETY: `new_layout` has a size above that of `layout`, so it is not zero.
        let moved = unsafe { self.alloc(new_layout) };
        if !moved.is_null() {
            // SAFETY: both pieces are at least `layout.size()` long and apart from each other; the
            // old one was allocated with `layout`, as the caller promises.
            unsafe {
                ptr::copy_nonoverlapping(pointer, moved, layout.size());
                self.dealloc(pointer, layout);
            }
        }
        moved
    }
}
