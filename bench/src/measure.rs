//! CPU time of this thread, in rounds: medians with the spread beside them.

use std::time::Duration;

pub use midge_load::record::thread_cpu;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};
use serde::Serialize;

/// Median, lowest and highest of several rounds.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Spread {
    /// Middle value.
    pub median: f64,
    /// Lowest.
    pub low: f64,
    /// Highest.
    pub high: f64,
    /// Between which the median lies with 95 % confidence, by the bootstrap: rounds drawn again and again from
    /// those there are (Efron, 1979). Of a few rounds it is the range of them.
    pub ci95: [f64; 2],
}

/// Draws of the bootstrap.
const DRAWS: usize = 1000;

impl Spread {
    /// Sums up rounds.
    ///
    /// # Panics
    /// Without a round.
    #[must_use]
    pub fn of(mut rounds: Vec<f64>) -> Self {
        assert!(!rounds.is_empty(), "a spread needs a round");
        rounds.sort_unstable_by(f64::total_cmp);
        let last = rounds.len() - 1;
        let ci95 = confidence(&rounds);
        Self { median: rounds[last / 2], low: rounds[0], high: rounds[last], ci95 }
    }
}

/// Returns the 2.5th and the 97.5th percentile of the medians of rounds drawn from these, which are sorted. The same
/// rounds give the same answer.
fn confidence(rounds: &[f64]) -> [f64; 2] {
    let mut random = ChaCha8Rng::seed_from_u64(0);
    let mut next = || random.next_u32() as usize;
    let mut medians: Vec<usize> = (0..DRAWS)
        .map(|_| {
            // Rounds are sorted, so their places are drawn in place of them.
            let mut drawn: Vec<usize> = rounds.iter().map(|_| next() % rounds.len()).collect();
            drawn.sort_unstable();
            drawn[(drawn.len() - 1) / 2]
        })
        .collect();
    medians.sort_unstable();
    [rounds[medians[DRAWS * 25 / 1000]], rounds[medians[DRAWS * 975 / 1000 - 1]]]
}

/// Returns the CPU nanoseconds of one of `count` runs of `action`.
pub fn cpu_ns_each(count: u32, mut action: impl FnMut()) -> f64 {
    let before = thread_cpu();
    for _ in 0..count {
        action();
    }
    (thread_cpu() - before).as_secs_f64() * 1e9 / f64::from(count)
}

/// Returns how many runs of `action` take about `budget`, at least one.
pub fn calibrate(budget: Duration, mut action: impl FnMut()) -> u32 {
    let mut count = 1;
    loop {
        let took = cpu_ns_each(count, &mut action) * f64::from(count);
        let wanted = budget.as_secs_f64() * 1e9;
        if took * 4.0 >= wanted || count >= 1 << 24 {
            let scaled = f64::from(count) * wanted / took.max(1.0);
            #[expect(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "clamped to the range of u32 just before"
            )]
            return scaled.clamp(1.0, f64::from(1 << 26)) as u32;
        }
        count *= 4;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_spread_has_its_median_its_range_and_its_confidence() {
        let spread = Spread::of(vec![5.0, 1.0, 3.0, 100.0, 2.0]);
        assert_eq!((spread.low, spread.median, spread.high), (1.0, 3.0, 100.0));
        let one = Spread::of(vec![7.0]);
        assert_eq!((one.median, one.ci95), (7.0, [7.0, 7.0]));
    }

    #[test]
    fn more_rounds_are_surer_and_an_outlier_moves_little() {
        let rounds = |count: u32| -> Vec<f64> {
            (0..count).map(|round| f64::from(round * 7919 % count) / f64::from(count)).collect()
        };
        let width = |rounds: Vec<f64>| {
            let [low, high] = Spread::of(rounds).ci95;
            assert!(low <= 0.5 && 0.4 <= high, "{low}..{high}");
            high - low
        };
        let (few, many) = (width(rounds(10)), width(rounds(1000)));
        assert!(many < few / 3.0, "{many}, {few}");
        // Of a thousand even draws the median's standard error is a half over their root: 0.016.
        assert!((0.04..0.09).contains(&many), "{many}");
        let mut with_outlier = rounds(1000);
        with_outlier.push(1e9);
        assert!(width(with_outlier) < 0.1);
    }
}
