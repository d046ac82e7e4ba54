//! The heap's region and what is taken from it.
//!
//! Invariant: a region given to `begin` is the heap's alone until the next `begin`.
#![expect(unsafe_code, reason = "hands out the region behind the request")]

use core::cell::Cell;
use core::{fmt, ptr, slice, str};

use crate::bump::Bump;
use crate::error::FunctionError;

#[derive(Clone, Copy)]
pub(super) struct State {
    // INVARIANT: every address that `bump` gives lies in the region that `base` points into.
    pub(super) bump: Bump,
    pub(super) base: *mut u8,
    #[cfg_attr(not(feature = "alloc"), expect(dead_code, reason = "only the allocator asks"))]
    pub(super) is_call: bool,
    // Pieces that the global allocator gave out during this call and did not get back.
    pub(super) live_count: usize,
}

pub(super) struct Heap(pub(super) Cell<State>);

// SAFETY: without the `atomics` feature wasm32 has one thread, so no two of them share the cell.
unsafe impl Sync for Heap {}
#[cfg(target_feature = "atomics")]
compile_error!("the heap is written for one thread");

// The region is empty, but not all of this is zero, and `used` keeps the optimiser from taking the record
// apart: so the linker lays the whole of it with the data before the area, and not with the zeros behind
// it, where it would cost each request a page of its own.
#[used]
#[cfg_attr(feature = "alloc", global_allocator)]
static HEAP: Heap = Heap(Cell::new(State {
    bump: Bump::new(1, 1),
    base: ptr::null_mut(),
    is_call: false,
    live_count: 0,
}));

/// A piece of memory that will be the heap's.
pub(crate) struct Region {
    pub(crate) base: *mut u8,
    /// Offsets from `base`.
    pub(crate) start: usize,
    pub(crate) end: usize,
}

/// Begins a call: the heap is empty but for what was taken for good.
///
/// # Errors
/// If values of an earlier call are alive, for their memory would be given out again.
///
/// # Safety
/// - `base + start` to `base + end` is initialised memory that lives forever.
/// - Until the next `begin` nobody else reads or writes it.
/// - `end` is the same in every call.
pub(crate) unsafe fn begin(region: &Region) -> Result<(), FunctionError> {
    let state = HEAP.0.get();
    if state.live_count != 0 {
        return Err(FunctionError::new(
            "values of an earlier request are alive: functions of this kind cannot run with `reuse`",
        ));
    }
    let end =
        if state.base.is_null() { region.base.addr() + region.end } else { state.bump.limit() };
    let bump = Bump::new(region.base.addr() + region.start, end);
    HEAP.0.set(State { bump, base: region.base, is_call: true, live_count: 0 });
    Ok(())
}

/// Lets `warm_up` take memory for good, before the first call.
///
/// # Safety
/// As for [`begin`].
pub(crate) unsafe fn initialize(region: &Region, warm_up: fn()) {
    let address = region.base.addr();
    let bump = Bump::new(address + region.start, address + region.end);
    HEAP.0.set(State { bump, base: region.base, is_call: false, live_count: 0 });
    warm_up();
}

/// Takes at most `size_max` bytes, lets `write` say how many it wrote, and keeps those.
pub(crate) fn fill<'a>(size_max: usize, write: impl FnOnce(&mut [u8]) -> usize) -> &'a [u8] {
    let start = take(size_max, 1);
    // SAFETY: `take` gave this piece of the initialised region to nobody else.
    let bytes: &'a mut [u8] = unsafe { slice::from_raw_parts_mut(start, size_max) };
    let size = write(bytes);
    &bytes[..size]
}

/// Lends `write` all that is free, `size_max` at most, and keeps as much as it says it wrote.
pub(crate) fn fill_rest<'a>(size_max: usize, write: impl FnOnce(&mut [u8]) -> usize) -> &'a [u8] {
    let free = {
        let bump = HEAP.0.get().bump;
        bump.limit().saturating_sub(bump.next())
    };
    let lent = size_max.min(free);
    let bytes = fill(lent, write);
    let mut state = HEAP.0.get();
    // Refused if `write` took memory itself: then all of it stays taken.
    if state.bump.resize(bytes.as_ptr().addr(), lent, bytes.len()) {
        HEAP.0.set(state);
    }
    bytes
}

/// Formats into the heap; a constant is returned as it is.
pub(crate) fn format<'a>(text: fmt::Arguments<'_>) -> &'a str {
    if let Some(constant) = text.as_str() {
        return constant;
    }
    let mut growing = Growing { start: take(0, 1), size: 0 };
    fmt::write(&mut growing, text).expect("a Display failed");
    // SAFETY: `Growing` owns these bytes and wrote each of them, from `str`s one after the other.
    unsafe { str::from_utf8_unchecked(slice::from_raw_parts(growing.start, growing.size)) }
}

/// Makes a vector's bytes live until the next call, which then does not count it as alive.
#[cfg(feature = "alloc")]
pub(crate) fn keep<'a>(bytes: alloc::vec::Vec<u8>) -> &'a [u8] {
    let mut state = HEAP.0.get();
    if bytes.capacity() != 0 && bytes.as_ptr().addr() < state.bump.limit() {
        state.live_count -= 1;
        HEAP.0.set(state);
    }
    bytes.leak()
}

fn take(size: usize, align: usize) -> *mut u8 {
    let mut state = HEAP.0.get();
    let Some(address) = state.bump.take(size, align) else { used_up(size) };
    HEAP.0.set(state);
    state.base.with_addr(address)
}

#[cold]
#[inline(never)]
fn used_up(size: usize) -> ! {
    panic!("the heap is used up: {size} bytes more do not fit; give the function a larger `heap`")
}

/// Text at the end of the heap. Moves when a Display took memory of its own meanwhile.
struct Growing {
    start: *mut u8,
    size: usize,
}

impl fmt::Write for Growing {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let size = self.size + text.len();
        let mut state = HEAP.0.get();
        if state.bump.resize(self.start.addr(), self.size, size) {
            HEAP.0.set(state);
        } else {
            let moved = take(size, 1);
            // SAFETY: `moved` is a fresh piece of `size` bytes, so it overlaps neither the old text,
            // which has `self.size` bytes, nor anything else.
            unsafe { ptr::copy_nonoverlapping(self.start, moved, self.size) };
            self.start = moved;
        }
        // SAFETY: the piece at `start` now has `size` bytes, ours alone; `text` is a borrow of others.
        unsafe {
            let end = self.start.add(self.size);
            ptr::copy_nonoverlapping(text.as_ptr(), end, text.len());
        }
        self.size = size;
        Ok(())
    }
}
