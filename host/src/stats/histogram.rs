//! Durations counted in buckets, by one writer, read while it writes.
//!
//! Buckets are log-linear: eight to each power of two, so a value is known to an eighth of itself.
//!
//!   0 1 2 .. 7 | 8 9 .. 15 | 16 18 .. 30 | 32 36 .. 60 | ...        lower bounds, in nanoseconds
//!    octave 0      octave 1     octave 2      octave 3
//!
//! Invariant: one thread writes. It loads and stores, it never reads, modifies and writes in one locked
//! operation; readers see each bucket as it was at some moment and the sum about then.
//! Hot path: `record`.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use midge_abi::width;

use super::Counter;

/// Buckets of one power of two.
const SUB_BUCKETS: usize = 1 << SUB_BUCKET_BITS;
const SUB_BUCKET_BITS: u32 = 3;
/// Values of this many bits are told apart; larger ones (above 68 s) fall into the last bucket.
const VALUE_BITS: u32 = 36;
/// How many buckets there are.
pub const BUCKET_COUNT: usize = SUB_BUCKETS * width::index(VALUE_BITS - SUB_BUCKET_BITS + 1);
const _: () = assert!(BUCKET_COUNT == 272);
const _: () = assert!(bucket_of((1 << VALUE_BITS) - 1) == BUCKET_COUNT - 1);

/// A histogram of nanoseconds that one thread writes.
#[derive(Debug)]
pub struct Histogram {
    buckets: [AtomicU64; BUCKET_COUNT],
    sum_ns: Counter,
}

/// What a histogram held at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HistogramSnapshot {
    buckets: [u64; BUCKET_COUNT],
    sum_ns: u64,
}

impl Histogram {
    /// Counts one duration. For the one writer alone.
    pub(super) fn record(&self, nanoseconds: u64) {
        let bucket = &self.buckets[bucket_of(nanoseconds)];
        bucket.store(bucket.load(Relaxed).wrapping_add(1), Relaxed);
        self.sum_ns.add(nanoseconds);
    }

    /// Returns what it holds now.
    #[must_use]
    pub fn snapshot(&self) -> HistogramSnapshot {
        let buckets = std::array::from_fn(|index| self.buckets[index].load(Relaxed));
        HistogramSnapshot { buckets, sum_ns: self.sum_ns.get() }
    }
}

impl Default for Histogram {
    fn default() -> Self {
        let buckets = std::array::from_fn(|_| AtomicU64::new(0));
        Self { buckets, sum_ns: Counter::default() }
    }
}

impl HistogramSnapshot {
    /// Adds the counts of another one.
    pub fn add(&mut self, other: &Self) {
        for (mine, theirs) in self.buckets.iter_mut().zip(&other.buckets) {
            *mine += theirs;
        }
        self.sum_ns = self.sum_ns.wrapping_add(other.sum_ns);
    }

    /// Returns how many durations were counted.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.buckets.iter().sum()
    }

    /// Returns their sum.
    #[must_use]
    pub const fn sum_ns(&self) -> u64 {
        self.sum_ns
    }

    /// Returns how many were shorter than `2^bits` nanoseconds.
    #[must_use]
    pub fn count_below_power(&self, bits: u32) -> u64 {
        let end = if bits >= VALUE_BITS { BUCKET_COUNT } else { bucket_of(1 << bits) };
        self.buckets[..end].iter().sum()
    }

    /// Returns an upper bound of the quantile, at most an eighth above it; 0 if nothing was counted.
    /// `per_mille` is 500 for the median, 999 for p99.9.
    #[must_use]
    pub fn quantile_ns(&self, per_mille: u64) -> u64 {
        let rank = (self.count() * per_mille.min(1000)).div_ceil(1000).max(1);
        let mut seen = 0;
        for (bucket, count) in self.buckets.iter().enumerate() {
            seen += count;
            if seen >= rank {
                return upper_bound_of(bucket);
            }
        }
        0
    }
}

impl Default for HistogramSnapshot {
    fn default() -> Self {
        Self { buckets: [0; BUCKET_COUNT], sum_ns: 0 }
    }
}

#[expect(clippy::cast_possible_truncation, reason = "a shift that leaves four bits")]
const fn bucket_of(nanoseconds: u64) -> usize {
    if nanoseconds >= 1 << VALUE_BITS {
        return BUCKET_COUNT - 1;
    }
    if nanoseconds < SUB_BUCKETS as u64 {
        return nanoseconds as usize;
    }
    let shift = nanoseconds.ilog2() - SUB_BUCKET_BITS;
    let within = (nanoseconds >> shift) as usize; // SUB_BUCKETS to 2 * SUB_BUCKETS - 1
    width::index(shift) * SUB_BUCKETS + within
}

/// Returns the largest value of a bucket.
fn upper_bound_of(bucket: usize) -> u64 {
    if bucket < SUB_BUCKETS {
        return bucket as u64;
    }
    let shift = bucket / SUB_BUCKETS - 1;
    let within = bucket - shift * SUB_BUCKETS;
    ((within as u64 + 1) << shift) - 1
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(values: &[u64]) -> HistogramSnapshot {
        let histogram = Histogram::default();
        for value in values {
            histogram.record(*value);
        }
        histogram.snapshot()
    }

    #[test]
    fn an_empty_histogram_has_no_quantiles() {
        assert_eq!((of(&[]).count(), of(&[]).quantile_ns(500)), (0, 0));
    }

    #[test]
    fn values_beyond_the_last_bucket_are_counted_in_it() {
        assert_eq!(of(&[u64::MAX]).quantile_ns(500), (1 << VALUE_BITS) - 1);
        assert_eq!(of(&[u64::MAX]).count_below_power(VALUE_BITS), 1);
    }

    #[test]
    fn powers_of_two_are_bounds_of_buckets() {
        let snapshot = of(&[1023, 1024, 2047, 2048]);
        assert_eq!(snapshot.count_below_power(10), 1);
        assert_eq!(snapshot.count_below_power(11), 3);
        assert_eq!(snapshot.count_below_power(12), 4);
        assert_eq!(snapshot.sum_ns(), 6142);
    }
}

#[cfg(test)]
mod props {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_value_lies_within_an_eighth_of_its_buckets_bound(value in 0..1u64 << VALUE_BITS) {
            let bound = upper_bound_of(bucket_of(value));
            prop_assert!(value <= bound && bound - value <= value / 8, "{} {}", value, bound);
            prop_assert!(bucket_of(bound) == bucket_of(value));
        }

        #[test]
        fn quantiles_bound_the_sorted_values(
            mut values in proptest::collection::vec(0..1u64 << 30, 1..200),
            per_mille in 0..=1000u64,
        ) {
            let histogram = Histogram::default();
            values.iter().for_each(|value| histogram.record(*value));
            values.sort_unstable();
            let count = values.len() as u64;
            let rank = (count * per_mille).div_ceil(1000).max(1);
            let exact = values[usize::try_from(rank - 1).unwrap()];
            let found = histogram.snapshot().quantile_ns(per_mille);
            prop_assert!(exact <= found && found - exact <= exact / 8);
        }
    }
}
