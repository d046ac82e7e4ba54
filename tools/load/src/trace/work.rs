//! What a call takes: time, memory, and pages that it writes to.

use rand_chacha::ChaCha8Rng;
use rand_distr::{Distribution, StandardNormal};

use super::unit;

/// What a call takes. A target tells it to its function where it holds `{us}`, `{kib}` and `{pages}`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Work {
    /// How long it lasts, in microseconds.
    pub us: u32,
    /// Its heap, in KiB.
    pub kib: u32,
    /// Pages of 4 KiB of it that the call writes to.
    pub pages: u32,
}

/// What durations and heaps are divided by: guests run for microseconds where a cloud's functions run for seconds.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Scale {
    /// Of durations.
    pub duration: f64,
    /// Of heaps.
    pub heap: f64,
}

impl Scale {
    /// As they are.
    pub const ONE: Self = Self { duration: 1.0, heap: 1.0 };

    pub(super) fn us(self, seconds: f64) -> u32 {
        whole(seconds * 1e6 / self.duration, u32::MAX)
    }

    pub(super) fn kib(self, mib: f64) -> u32 {
        whole(mib * 1024.0 / self.heap, HEAP_KIB_MAX)
    }
}

/// Largest heap that is asked for.
pub(super) const HEAP_KIB_MAX: u32 = 64 * 1024;

/// Heaps of applications in MB: a Burr distribution (Shahrad et al., "Serverless in the Wild", ATC 2020, figure 8).
const HEAP_C: f64 = 11.652;
const HEAP_K: f64 = 0.221;
const HEAP_LAMBDA: f64 = 107.083;

/// Pages that a call writes to: log-normal, by its median and its 99th percentile. No cloud has published any; the
/// median is that of small functions here (`midge inspect`), the tail is wide enough to matter.
const PAGES_MEDIAN: f64 = 5.0;
const PAGES_P99: f64 = 300.0;

/// Standard deviations from the median to the 99th percentile of a normal distribution.
const P99_SIGMA: f64 = 2.326_347_9;

/// Returns a heap in MB.
pub(super) fn heap_mb(random: &mut ChaCha8Rng) -> f64 {
    let left = (1.0 - unit(random)).max(f64::MIN_POSITIVE);
    HEAP_LAMBDA * (left.powf(-1.0 / HEAP_K) - 1.0).powf(1.0 / HEAP_C)
}

/// Returns a number of pages, one at least, that lie in a heap of so many KiB.
pub(super) fn pages(random: &mut ChaCha8Rng, kib: u32) -> u32 {
    let sigma = (PAGES_P99 / PAGES_MEDIAN).ln() / P99_SIGMA;
    whole(log_normal(random, PAGES_MEDIAN.ln(), sigma), (kib / 4).max(1)).max(1)
}

/// Returns a number whose logarithm is normal.
pub(super) fn log_normal(random: &mut ChaCha8Rng, mu: f64, sigma: f64) -> f64 {
    let normal: f64 = StandardNormal.sample(random);
    (mu + sigma * normal).exp()
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "from 0 to the bound, which is a u32"
)]
fn whole(value: f64, most: u32) -> u32 {
    value.round().clamp(0.0, f64::from(most)) as u32
}

#[cfg(test)]
mod tests {
    use rand_chacha::rand_core::SeedableRng;

    use super::*;

    fn quantiles(mut values: Vec<f64>) -> impl Fn(f64) -> f64 {
        values.sort_unstable_by(f64::total_cmp);
        move |share| {
            #[expect(
                clippy::cast_precision_loss,
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "a place in a list of a test"
            )]
            let place = (values.len() as f64 * share) as usize;
            values[place]
        }
    }

    #[test]
    fn heaps_have_the_published_quantiles() {
        let mut random = ChaCha8Rng::seed_from_u64(1);
        let at = quantiles((0..20_000).map(|_| heap_mb(&mut random)).collect());
        // "50 % of the applications allocate at most 170 MB, and 90 % never consume more than 400 MB", section 3.5;
        // the fit is of averages, whose tail lies a little lower.
        assert!((100.0..180.0).contains(&at(0.5)), "{}", at(0.5));
        assert!((200.0..420.0).contains(&at(0.9)), "{}", at(0.9));
    }

    #[test]
    fn pages_have_their_median_and_their_tail_and_lie_in_the_heap() {
        let mut random = ChaCha8Rng::seed_from_u64(1);
        let at = quantiles((0..20_000).map(|_| f64::from(pages(&mut random, 65_536))).collect());
        assert!((4.0..=6.0).contains(&at(0.5)), "{}", at(0.5));
        assert!((240.0..380.0).contains(&at(0.99)), "{}", at(0.99));
        assert!((0..1000).all(|_| pages(&mut random, 12) <= 3));
        assert_eq!(pages(&mut random, 0), 1);
    }

    #[test]
    fn scales_divide_and_heaps_are_clipped() {
        let scale = Scale { duration: 1000.0, heap: 16.0 };
        assert_eq!((scale.us(1.5), scale.kib(32.0)), (1500, 2048));
        assert_eq!((Scale::ONE.us(1e9), Scale::ONE.kib(170.0)), (u32::MAX, HEAP_KIB_MAX));
    }
}
