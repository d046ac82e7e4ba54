//! The heap's arithmetic: numbers without memory behind them, so that it can be tested anywhere.
//!
//!   start                 next ->                        <- limit        end
//!   | taken during a call | free                         | kept for good |
//!
//! Invariant: `next <= limit`.

/// What is taken, and what is free.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Bump {
    next: usize,
    limit: usize,
}

impl Bump {
    /// Returns a region that is free from `start` to `end`.
    pub(crate) const fn new(start: usize, end: usize) -> Self {
        Self { next: if start < end { start } else { end }, limit: end }
    }

    /// Takes `size` bytes for the time of a call; `align` is a power of two.
    pub(crate) fn take(&mut self, size: usize, align: usize) -> Option<usize> {
        let address = self.next.checked_next_multiple_of(align)?;
        let next = address.checked_add(size)?;
        if next > self.limit {
            return None;
        }
        self.next = next;
        Some(address)
    }

    /// Takes `size` bytes for good, from the far end.
    #[cfg(any(test, feature = "alloc"))]
    pub(crate) fn take_for_good(&mut self, size: usize, align: usize) -> Option<usize> {
        let address = self.limit.checked_sub(size)? & !(align - 1);
        if address < self.next {
            return None;
        }
        self.limit = address;
        Some(address)
    }

    /// Changes the size of what was taken at `address`, if nothing was taken after it.
    pub(crate) fn resize(&mut self, address: usize, old_size: usize, new_size: usize) -> bool {
        let Some(next) = address.checked_add(new_size) else { return false };
        let fits = address + old_size == self.next && next <= self.limit;
        if fits {
            self.next = next;
        }
        fits
    }

    /// Returns the start of what is free.
    #[cfg(target_arch = "wasm32")]
    pub(crate) const fn next(&self) -> usize {
        self.next
    }

    /// Returns the end of what is free.
    pub(crate) const fn limit(&self) -> usize {
        self.limit
    }
}

#[cfg(test)]
mod props {
    use std::vec::Vec;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Whatever is taken: inside the region, aligned, and apart from everything taken before.
        #[test]
        fn nothing_is_handed_out_twice(
            start in 0usize..200,
            takes in proptest::collection::vec((0usize..90, 0u32..6, 0u8..3, 0usize..90), 0..60),
        ) {
            let mut bump = Bump::new(start, 1000);
            let mut taken: Vec<(usize, usize)> = Vec::new();
            for (size, align, how, new_size) in takes {
                let align = 1 << align;
                let address = match how {
                    0 => bump.take(size, align),
                    1 => bump.take_for_good(size, align),
                    _ => {
                        if let Some(last) = taken.last_mut()
                            && bump.resize(last.0, last.1, new_size)
                        {
                            last.1 = new_size;
                        }
                        None
                    }
                };
                if let Some(address) = address {
                    prop_assert!(address.is_multiple_of(align));
                    taken.push((address, size));
                }
                prop_assert!(bump.limit() <= 1000);
                for (index, &(address, size)) in taken.iter().enumerate() {
                    prop_assert!(start <= address && address + size <= 1000);
                    for &(other, other_size) in &taken[..index] {
                        prop_assert!(
                            address + size <= other || other + other_size <= address
                                || size == 0 || other_size == 0
                        );
                    }
                }
            }
        }
    }
}
