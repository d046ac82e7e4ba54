//! Stacks for fibers, kept for the next instance when one goes.
//!
//! ```text
//!   | guard, no access | stack ............. top |
//!   0                  GUARD_BYTES
//! ```
//!
//! A new stack costs two calls of the kernel and a fault for each page that is touched; a kept one costs
//! nothing. What an earlier fiber left in it cannot be read by a guest: compiled code reads no stack slot
//! that it has not written.
#![expect(unsafe_code, reason = "maps stacks for the engine; the safe face is Stacks")]

use std::cell::RefCell;
use std::io;
use std::ops::Range;

use wasmtime::{StackCreator, StackMemory};

use crate::mapping::{Mapping, PAGE_SIZE};

/// Inaccessible bytes under each stack: an overflow faults there.
const GUARD_BYTES: usize = PAGE_SIZE;
/// Stacks that a thread keeps: with 512 KiB each, all of them touched, 8 MiB.
const STACKS_KEPT_MAX: usize = 16;

thread_local! {
    static KEPT: RefCell<Vec<Mapping>> = const { RefCell::new(Vec::new()) };
}

/// Gives the engine its stacks.
#[derive(Debug)]
pub(crate) struct Stacks;

/// A stack, given back when it is dropped.
struct Stack(Option<Mapping>);

impl Stack {
    fn mapping(&self) -> &Mapping {
        self.0.as_ref().expect("there until it is dropped")
    }
}

impl Drop for Stack {
    fn drop(&mut self) {
        let mapping = self.0.take().expect("dropped once");
        // A thread that ends has no place for it any more; the mapping unmaps itself then.
        let _gone = KEPT.try_with(|kept| {
            let mut kept = kept.borrow_mut();
            if kept.len() < STACKS_KEPT_MAX {
                kept.push(mapping);
            }
        });
    }
}

/// The machine has no memory or no mapping for a stack: the call did not begin.
#[derive(Debug, thiserror::Error)]
#[error("fiber has no stack")]
pub(crate) struct NoStack(#[source] io::Error);

fn new_stack(bytes: usize) -> io::Result<Mapping> {
    let mapping = Mapping::reserve(GUARD_BYTES + bytes)?;
    // SAFETY: the range is the new mapping's own, behind its guard.
    let result = unsafe {
        let stack = mapping.base().as_ptr().add(GUARD_BYTES);
        libc::mprotect(stack.cast(), bytes, libc::PROT_READ | libc::PROT_WRITE)
    };
    if result == 0 { Ok(mapping) } else { Err(io::Error::last_os_error()) }
}

// SAFETY: each stack is a mapping of its own, page-aligned, writable above a guard of a whole page, and
// handed out to one fiber at a time: it is kept again when its owner has dropped it.
unsafe impl StackCreator for Stacks {
    fn new_stack(&self, size: usize, zeroed: bool) -> wasmtime::Result<Box<dyn StackMemory>> {
        let bytes = size.next_multiple_of(PAGE_SIZE);
        let fits = |mapping: &Mapping| !zeroed && mapping.length() == GUARD_BYTES + bytes;
        let kept = KEPT.with_borrow_mut(|kept| kept.pop_if(|mapping| fits(mapping)));
        let mapping = kept.map_or_else(|| new_stack(bytes).map_err(NoStack), Ok)?;
        Ok(Box::new(Stack(Some(mapping))))
    }
}

// SAFETY: the addresses are those of the mapping, which lives as long as the value.
unsafe impl StackMemory for Stack {
    fn top(&self) -> *mut u8 {
        let mapping = self.mapping();
        mapping.base().as_ptr().wrapping_add(mapping.length())
    }

    fn range(&self) -> Range<usize> {
        let range = self.mapping().range();
        range.start + GUARD_BYTES..range.end
    }

    fn guard_range(&self) -> Range<*mut u8> {
        let base = self.mapping().base().as_ptr();
        base..base.wrapping_add(GUARD_BYTES)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIZE: usize = 64 * 1024;

    #[test]
    fn a_stack_is_used_again_by_one_owner_at_a_time() {
        let first = Stacks.new_stack(SIZE, false).unwrap();
        let second = Stacks.new_stack(SIZE, false).unwrap();
        let range = first.range();
        assert!(range != second.range() && range.len() == SIZE);
        assert_eq!(first.top().addr(), range.end);
        assert_eq!(first.guard_range().end.addr(), range.start);
        drop(first);
        assert_eq!(Stacks.new_stack(SIZE, false).unwrap().range(), range, "kept");
    }

    #[test]
    fn another_size_and_zeroed_ones_are_new() {
        let small = Stacks.new_stack(SIZE, false).unwrap();
        // SAFETY: the last byte of a stack that nobody else uses.
        unsafe { *small.top().sub(1) = 7 };
        drop(small);
        let large = Stacks.new_stack(2 * SIZE, false).unwrap();
        assert_eq!(large.range().len(), 2 * SIZE);
        let zeroed = Stacks.new_stack(SIZE, true).unwrap();
        // SAFETY: as above.
        assert_eq!(unsafe { *zeroed.top().sub(1) }, 0);
    }

    #[test]
    fn no_more_are_kept_than_the_bound() {
        let many: Vec<_> =
            (0..2 * STACKS_KEPT_MAX).map(|_| Stacks.new_stack(SIZE, false)).collect();
        drop(many);
        assert_eq!(KEPT.with_borrow(Vec::len), STACKS_KEPT_MAX);
    }
}
