//! When requests are due.
//!
//! Arrivals of rate one are stretched by a profile of rates: the k-th request is due when the area under the
//! profile reaches the k-th arrival. So any process (fixed, Poisson, gamma) follows any profile (level, steps,
//! ramps) exactly, and a seed gives the same times again.

use std::sync::Arc;

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};
use rand_distr::{Distribution, Exp1, Gamma};

use crate::trace::{Call, Work};

/// How arrivals of rate one are spaced.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Spacing {
    /// All alike.
    Fixed,
    /// A Poisson process: spaces are exponential.
    Poisson,
    /// Gamma with this coefficient of variation: above 1 arrivals come in bursts.
    Gamma(f64),
}

/// A piece of a profile: the rate goes evenly from one value to the other.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Piece {
    /// How long, in seconds.
    pub seconds: f64,
    /// Requests per second at its start.
    pub from: f64,
    /// Requests per second at its end.
    pub to: f64,
}

impl Piece {
    /// Makes a piece of one rate.
    #[must_use]
    pub const fn level(seconds: f64, rate: f64) -> Self {
        Self { seconds, from: rate, to: rate }
    }

    /// Returns how many requests are due in it.
    #[must_use]
    pub fn area(&self) -> f64 {
        self.seconds * (self.from + self.to) / 2.0
    }

    /// Returns after which time so many of its requests are due.
    fn time_of(&self, area: f64) -> f64 {
        let slope = (self.to - self.from) / self.seconds;
        if slope.abs() < 1e-9 {
            return area / self.from;
        }
        // area = from * t + slope / 2 * t^2, in the form that does not cancel.
        let root = (self.from * self.from + 2.0 * slope * area).max(0.0).sqrt();
        2.0 * area / (self.from + root)
    }
}

/// A request that is due.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Due {
    /// When, in nanoseconds from the start.
    pub ns: u64,
    /// Which function it is of, and what it takes, if the schedule says.
    pub call: Option<(u32, Work)>,
}

/// One thread's requests.
#[derive(Debug, Clone)]
pub struct Schedule {
    way: Way,
}

#[derive(Debug, Clone)]
enum Way {
    Profile(Box<Profile>),
    Replay { calls: Arc<[Call]>, next: usize, step: usize },
}

#[derive(Debug, Clone)]
struct Profile {
    pieces: Vec<Piece>,
    spacing: Spacing,
    random: ChaCha8Rng,
    /// Piece that is gone through, when it began, and arrivals before it.
    piece: usize,
    began: f64,
    area_before: f64,
    /// Position of the next arrival on the axis of rate one.
    arrival: f64,
}

impl Schedule {
    /// Makes the schedule of thread `thread` of `threads`, which together follow `pieces`.
    ///
    /// # Panics
    /// If there is no thread, or a gamma spacing has no positive coefficient.
    #[must_use]
    pub fn new(
        pieces: &[Piece],
        spacing: Spacing,
        seed: u64,
        thread: usize,
        threads: usize,
    ) -> Self {
        assert!(thread < threads, "a thread of those there are");
        #[expect(clippy::cast_precision_loss, reason = "a handful of threads")]
        let (share, shift) = (1.0 / threads as f64, thread as f64 / threads as f64);
        let share_of = |piece: &Piece| Piece {
            seconds: piece.seconds,
            from: piece.from * share,
            to: piece.to * share,
        };
        let random = ChaCha8Rng::seed_from_u64(seed.wrapping_add(thread as u64));
        let mut profile = Profile {
            pieces: pieces.iter().map(share_of).collect(),
            spacing,
            random,
            piece: 0,
            began: 0.0,
            area_before: 0.0,
            arrival: 0.0,
        };
        profile.arrival = match spacing {
            // Fixed arrivals of several threads interleave; random ones need no shift.
            Spacing::Fixed => shift,
            Spacing::Poisson => profile.space(),
            Spacing::Gamma(variation) => profile.rest_of_a_space(variation),
        };
        Self { way: Way::Profile(Box::new(profile)) }
    }

    /// Makes the schedule of a thread that takes every `threads`-th of these calls, whose times ascend.
    #[must_use]
    pub fn replay(calls: Arc<[Call]>, thread: usize, threads: usize) -> Self {
        Self { way: Way::Replay { calls, next: thread, step: threads } }
    }
}

impl Iterator for Schedule {
    type Item = Due;

    #[inline]
    fn next(&mut self) -> Option<Due> {
        match &mut self.way {
            Way::Profile(profile) => profile.next().map(|ns| Due { ns, call: None }),
            Way::Replay { calls, next, step } => {
                let call = calls.get(*next).copied();
                *next += *step;
                call.map(|call| Due { ns: call.due_ns, call: Some((call.function, call.work)) })
            }
        }
    }
}

impl Profile {
    fn space(&mut self) -> f64 {
        match self.spacing {
            Spacing::Fixed => 1.0,
            Spacing::Poisson => Exp1.sample(&mut self.random),
            Spacing::Gamma(variation) => {
                let shape = 1.0 / (variation * variation);
                let gamma = Gamma::new(shape, 1.0 / shape).expect("a coefficient above zero");
                gamma.sample(&mut self.random)
            }
        }
    }

    /// Returns what is left of a space into which a moment falls that has nothing to do with it: the longer a space, the
    /// likelier. A run that began with an arrival would begin with a burst, and have more of them than its rate says, by
    /// half of the variation's square.
    fn rest_of_a_space(&mut self, variation: f64) -> f64 {
        let shape = 1.0 / (variation * variation);
        let longer = Gamma::new(shape + 1.0, 1.0 / shape).expect("a coefficient above zero");
        let part = f64::from(self.random.next_u32()) / f64::from(u32::MAX);
        part * longer.sample(&mut self.random)
    }

    fn next(&mut self) -> Option<u64> {
        loop {
            let piece = self.pieces.get(self.piece)?;
            let within = self.arrival - self.area_before;
            // The last arrival of a piece belongs to the next one: a second at rate 10 holds ten.
            if within < piece.area() {
                let seconds = self.began + piece.time_of(within);
                self.arrival += self.space();
                #[expect(
                    clippy::cast_possible_truncation,
                    clippy::cast_sign_loss,
                    reason = "nanoseconds of a run: below 2^63 and not negative"
                )]
                return Some((seconds * 1e9) as u64);
            }
            self.area_before += piece.area();
            self.began += piece.seconds;
            self.piece += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn times(pieces: &[Piece], spacing: Spacing, threads: usize) -> Vec<u64> {
        let mut all: Vec<u64> = (0..threads)
            .flat_map(|thread| Schedule::new(pieces, spacing, 7, thread, threads))
            .map(|due| due.ns)
            .collect();
        all.sort_unstable();
        all
    }

    #[test]
    fn fixed_arrivals_are_as_far_apart_as_the_rate_says() {
        for threads in [1, 3] {
            let all = times(&[Piece::level(1.0, 30.0)], Spacing::Fixed, threads);
            assert_eq!(all.len(), 30, "{threads} threads");
            for (index, time) in all.iter().enumerate() {
                let wanted = index as u64 * 1_000_000_000 / 30;
                assert!(time.abs_diff(wanted) < 100, "{index}: {time}, not {wanted}");
            }
        }
    }

    #[test]
    fn a_ramp_holds_the_area_under_it() {
        let ramp = Piece { seconds: 2.0, from: 0.0, to: 1000.0 };
        let all = times(&[ramp], Spacing::Fixed, 1);
        assert_eq!(all.len(), 1000);
        // Half of the time holds a quarter of the area.
        let first_half = all.iter().filter(|time| **time < 1_000_000_000).count();
        assert!(first_half.abs_diff(250) <= 1, "{first_half}");
        let down = Piece { seconds: 2.0, from: 1000.0, to: 0.0 };
        let first_half =
            times(&[down], Spacing::Fixed, 1).iter().filter(|time| **time < 1_000_000_000).count();
        assert!(first_half.abs_diff(750) <= 1, "{first_half}");
    }

    #[test]
    fn steps_follow_one_another() {
        let steps = [Piece::level(1.0, 10.0), Piece::level(1.0, 100.0)];
        let all = times(&steps, Spacing::Fixed, 1);
        assert_eq!(all.iter().filter(|time| **time < 1_000_000_000).count(), 10);
        assert_eq!(all.len(), 110);
    }

    #[test]
    fn random_arrivals_have_their_rate_and_their_variation() {
        for (spacing, variation) in [(Spacing::Poisson, 1.0), (Spacing::Gamma(4.0), 4.0)] {
            let all = times(&[Piece::level(100.0, 1000.0)], spacing, 1);
            #[expect(clippy::cast_precision_loss, reason = "statistics of a test")]
            let spaces: Vec<f64> =
                all.windows(2).map(|pair| (pair[1] - pair[0]) as f64 / 1e6).collect();
            #[expect(clippy::cast_precision_loss, reason = "statistics of a test")]
            let count = spaces.len() as f64;
            let mean = spaces.iter().sum::<f64>() / count;
            let variance = spaces.iter().map(|space| (space - mean).powi(2)).sum::<f64>() / count;
            assert!((mean - 1.0).abs() < 0.1, "{spacing:?}: mean {mean} ms");
            let measured = variance.sqrt() / mean;
            assert!((measured / variation - 1.0).abs() < 0.15, "{spacing:?}: {measured}");
        }
    }

    #[test]
    fn bursts_keep_their_rate_however_short_the_run() {
        let count = |seed| {
            let pieces = [Piece::level(1.0, 1.0)];
            Schedule::new(&pieces, Spacing::Gamma(10.0), seed, 0, 1).count()
        };
        // Runs in which one arrival is due, on average: most have none, a few have many.
        let sum: usize = (0..20_000).map(count).sum();
        assert!((16_000..24_000).contains(&sum), "{sum} of 20 000");
    }

    #[test]
    fn a_seed_gives_the_same_times_again() {
        let pieces = [Piece::level(1.0, 500.0)];
        assert_eq!(times(&pieces, Spacing::Poisson, 2), times(&pieces, Spacing::Poisson, 2));
    }

    #[test]
    fn a_replay_is_shared_by_threads() {
        let call = |due_ns, function| Call { due_ns, function, work: Work::default() };
        let calls: Arc<[Call]> = [call(1, 7), call(5, 8), call(9, 7), call(12, 9)].into();
        let due = |ns, function| Due { ns, call: Some((function, Work::default())) };
        let odd: Vec<Due> = Schedule::replay(calls.clone(), 1, 2).collect();
        assert_eq!(odd, [due(5, 8), due(12, 9)]);
        assert_eq!(Schedule::replay(calls, 0, 1).count(), 4);
    }
}
