//! What was published of clouds' functions: how often they are called, how their calls are spaced, how long they last.
//!
//! | shape | rates of functions | spacing | durations |
//! |---|---|---|---|
//! | `azure-2019` | Shahrad et al., ATC 2020, figure 5 | the same, figure 6, and triggers | a mean for each function: figure 7 |
//! | `azure-2021` | of its applications, from the file | bursts; the file | of calls, from the file |
//! | `huawei-2023` | Joosen et al., SoCC 2023: the ends alone | independent | the same: four orders |
//! | `huawei-2025` | Joosen et al., EuroSys 2025, figure 3a, region 2 | the same, figure 8 | figure 3b, region 2 |
//!
//! What of the file of Azure 2021 is told here was counted by others, two of whom agree: 1 980 951 calls of 424 functions
//! of 119 applications in 14 days. What was read off a figure of the paper of 2025 was taken from the curve's points in
//! the PDF, which agree with what its text says of them (a fifth of region 1 above one call a minute).
//!
//! Not here: days and weeks. A run is too short for them.

use std::sync::Arc;

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};

use super::curve::Curve;
use super::work::{Work, heap_mb, log_normal, pages};
use super::{Call, Wanted, nanoseconds, narrow, sorted, unit};
use crate::schedule::{Piece, Schedule, Spacing};

/// A cloud's functions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    /// The Azure Functions trace of 2019.
    Azure2019,
    /// The Azure Functions trace of 2021.
    Azure2021,
    /// Huawei's public cloud and its own, 2023.
    Huawei2023,
    /// Huawei's public cloud, 2025, region 2.
    Huawei2025,
}

/// Calls a minute of one in the two weeks of the Azure traces.
const ONE_IN_TWO_WEEKS: f64 = 1.0 / 20_160.0;
/// Calls a minute of one a day.
const ONE_A_DAY: f64 = 1.0 / 1440.0;

/// Azure 2019: "45 % of the applications are invoked once per hour or less, 81 % once per minute or less".
const RATES_2019: Curve = Curve(&[(0.0, ONE_IN_TWO_WEEKS), (0.45, 1.0 / 60.0), (0.81, 1.0)]);
/// Above that a Pareto distribution with this exponent, up to this many a minute: so the fifth of the functions that
/// lies there makes 99.6 % of the calls, over eight orders of magnitude, as the paper says.
const TAIL_START: f64 = 0.81;
const TAIL_EXPONENT: f64 = 0.5;
const TAIL_MAX: f64 = 20_000.0;

/// Azure 2021, its applications: the ten busiest by name; of the others that 12 are called more than once a minute, half
/// of them 415 times in all or less, and 42 fewer than 100 times. The rest is drawn so that the 2, 5, 10, 20 and 50 busiest
/// have the shares of all calls that were counted: 44, 72, 84, 92.5 and 99.4 %.
const RATES_2021: Curve = Curve(&[
    (0.0, ONE_IN_TWO_WEEKS),
    (0.353, 100.0 / 20_160.0),
    (0.5, 415.0 / 20_160.0),
    (0.58, 0.05),
    (0.83, 0.5),
    (0.9, 1.0),
    (0.92, 1.8),
    (0.945, 2.4),
    (0.957, 4.8),
    (0.97, 7.0),
    (0.979, 14.0),
    (0.987, 16.0),
    (1.0, 30.0),
]);

/// Huawei 2023: "requests vary by up to 9 orders of magnitude across functions, with some functions executed over
/// 1 billion times per day". What lies between was not published as figures: it is taken as even.
const RATES_2023: Curve = Curve(&[(0.0, ONE_A_DAY), (1.0, 1e9 * ONE_A_DAY)]);

/// Huawei 2025, figure 3a, region 2: calls on the median day. The busiest is that of the notebook beside the data,
/// 8.53 * 10^9 in 31 days.
const RATES_2025: Curve = Curve(&[
    (0.0, ONE_A_DAY),
    (0.2, ONE_A_DAY),
    (0.25, 2.0 * ONE_A_DAY),
    (0.4, 2.0 * ONE_A_DAY),
    (0.5, 3.0 * ONE_A_DAY),
    (0.6, 6.0 * ONE_A_DAY),
    (0.7, 19.0 * ONE_A_DAY),
    (0.75, 48.0 * ONE_A_DAY),
    (0.8, 129.0 * ONE_A_DAY),
    (0.85, 282.0 * ONE_A_DAY),
    (0.9, 661.0 * ONE_A_DAY),
    (0.95, 5.56e3 * ONE_A_DAY),
    (0.97, 3.8e4 * ONE_A_DAY),
    (0.98, 1.63e5 * ONE_A_DAY),
    (0.99, 8.93e5 * ONE_A_DAY),
    (0.995, 4.13e6 * ONE_A_DAY),
    (0.999, 3.38e7 * ONE_A_DAY),
    (1.0, 2.75e8 * ONE_A_DAY),
]);

/// Azure 2019: the logarithm of a function's mean duration in seconds is normal.
const DURATION_2019: (f64, f64) = (-0.38, 2.36);

/// Azure 2021: durations of calls in seconds. 8.6 % are told as 0, which stands for less than a millisecond.
const DURATION_2021: Curve = Curve(&[
    (0.0, 0.0005),
    (0.086, 0.001),
    (0.333, 0.001),
    (0.392, 0.010),
    (0.5, 0.031),
    (0.621, 0.1),
    (0.874, 1.0),
    (0.909, 2.3),
    (0.95, 14.4),
    (0.99, 72.2),
    (0.9991, 260.0),
    (1.0, 578.6),
]);

/// Huawei 2023: "execution time [...] vary across 2 to 4 orders of magnitude": 99.8 % of a log-normal distribution lie
/// within four. Its middle is that of 2025, for none was published.
const DURATION_2023: (f64, f64) = (-3.52, 1.49);

/// Huawei 2025, figure 3b, region 2: mean durations of a function's calls within a minute, in seconds.
const DURATION_2025: Curve = Curve(&[
    (0.0, 0.0003),
    (0.05, 0.0009),
    (0.1, 0.00113),
    (0.25, 0.0016),
    (0.3, 0.00187),
    (0.4, 0.0059),
    (0.5, 0.0295),
    (0.6, 0.0498),
    (0.7, 0.139),
    (0.75, 0.214),
    (0.8, 0.347),
    (0.85, 0.647),
    (0.9, 1.04),
    (0.95, 2.08),
    (0.97, 3.7),
    (0.98, 5.78),
    (0.99, 14.6),
    (0.995, 29.9),
    (0.999, 110.0),
    (1.0, 400.0),
]);

/// How functions are called, as shares of them; the rest is called independently.
#[derive(Debug, Clone, Copy)]
struct Kinds {
    /// By a timer, evenly.
    timers: f64,
    /// In bursts.
    bursts: f64,
    /// Coefficient of variation of those.
    variation: f64,
}

/// How long a function's calls last.
enum Lasting {
    /// Each as long as the function's mean, in seconds.
    Mean(f64),
    /// Each by itself.
    Drawn(Curve),
    /// Each by itself, its logarithm normal.
    LogNormal(f64, f64),
}

impl Shape {
    /// All of them.
    pub const ALL: [Self; 4] =
        [Self::Azure2019, Self::Azure2021, Self::Huawei2023, Self::Huawei2025];

    /// Returns its name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Azure2019 => "azure-2019",
            Self::Azure2021 => "azure-2021",
            Self::Huawei2023 => "huawei-2023",
            Self::Huawei2025 => "huawei-2025",
        }
    }

    /// Returns the shape of a name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|shape| shape.name() == name)
    }

    /// Returns the mean calls per minute of the function at this share of all, from 0 to 1, by rising rate.
    #[must_use]
    pub fn rate_at(self, share: f64) -> f64 {
        match self {
            Self::Azure2019 if TAIL_START <= share => {
                let left = ((1.0 - share) / (1.0 - TAIL_START)).max(f64::MIN_POSITIVE);
                left.powf(-1.0 / TAIL_EXPONENT).min(TAIL_MAX)
            }
            Self::Azure2019 => RATES_2019.at(share),
            Self::Azure2021 => RATES_2021.at(share),
            Self::Huawei2023 => RATES_2023.at(share),
            Self::Huawei2025 => RATES_2025.at(share),
        }
    }

    /// Returns the mean calls per minute of so many functions, by falling rate, as targets by Zipf are.
    #[must_use]
    pub fn rates(self, functions: usize) -> Vec<f64> {
        #[expect(clippy::cast_precision_loss, reason = "functions are far fewer than 2^53")]
        let share = |index: usize| (index as f64 + 0.5) / functions as f64;
        (0..functions).rev().map(|index| self.rate_at(share(index))).collect()
    }

    const fn kinds(self) -> Kinds {
        match self {
            // By triggers 16 % of functions are timers; queues and events, which come in bursts, call 17 %. CV 4: of the
            // two fifths of applications whose CV is above 1 (figure 6).
            Self::Azure2019 => Kinds { timers: 0.16, bursts: 0.17, variation: 4.0 },
            // Of the ten busiest applications one runs by a timer; the CV of the others' spaces is 39 to 361, but for one.
            Self::Azure2021 => Kinds { timers: 0.1, bursts: 0.9, variation: 39.0 },
            Self::Huawei2023 => Kinds { timers: 0.0, bursts: 0.0, variation: 1.0 },
            // "Timers account for almost 60 % of functions"; the others' spaces within a run were not published.
            Self::Huawei2025 => Kinds { timers: 0.6, bursts: 0.0, variation: 1.0 },
        }
    }

    fn lasting(self, random: &mut ChaCha8Rng) -> Lasting {
        match self {
            Self::Azure2019 => {
                let (mu, sigma) = DURATION_2019;
                Lasting::Mean(log_normal(random, mu, sigma))
            }
            Self::Azure2021 => Lasting::Drawn(DURATION_2021),
            Self::Huawei2023 => Lasting::LogNormal(DURATION_2023.0, DURATION_2023.1),
            Self::Huawei2025 => Lasting::Drawn(DURATION_2025),
        }
    }

    /// Returns what draws the work of one function's calls.
    pub(super) fn worker(self, wanted: &Wanted, random: &mut ChaCha8Rng) -> Worker {
        let lasting = self.lasting(random);
        let scale = wanted.scale;
        Worker { lasting, kib: scale.kib(heap_mb(random)), scale }
    }

    /// Makes a trace of so many functions with `rate` calls a second in all.
    ///
    /// # Panics
    /// If there is no function.
    #[must_use]
    pub fn calls(self, functions: usize, rate: f64, wanted: &Wanted) -> Arc<[Call]> {
        assert!(functions > 0, "a trace is of some functions");
        let mut random = ChaCha8Rng::seed_from_u64(wanted.seed);
        let rates = self.rates(functions);
        let scale = rate / rates.iter().sum::<f64>();
        let kinds = self.kinds();
        let end = nanoseconds(wanted.seconds);
        let mut calls = Vec::new();
        for (function, each) in rates.iter().enumerate() {
            let spacing = match unit(&mut random) {
                kind if kind < kinds.timers => Spacing::Fixed,
                kind if kind < kinds.timers + kinds.bursts => Spacing::Gamma(kinds.variation),
                _ => Spacing::Poisson,
            };
            let rate = each * scale;
            let seed = random.next_u64();
            // Timers do not all begin with the run, and one that is rarer than the run may not be due in it.
            let phase = if spacing == Spacing::Fixed { unit(&mut random) / rate } else { 0.0 };
            let worker = self.worker(wanted, &mut random);
            let piece = Piece::level(wanted.seconds, rate);
            for due in Schedule::new(&[piece], spacing, seed, 0, 1) {
                let due_ns = due.ns.saturating_add(nanoseconds(phase));
                if due_ns < end {
                    let work = worker.draw(&mut random);
                    calls.push(Call { due_ns, function: narrow(function), work });
                }
            }
        }
        sorted(calls)
    }
}

/// Draws the work of one function's calls.
pub(super) struct Worker {
    lasting: Lasting,
    kib: u32,
    scale: super::Scale,
}

impl Worker {
    pub(super) fn draw(&self, random: &mut ChaCha8Rng) -> Work {
        let seconds = match self.lasting {
            Lasting::Mean(seconds) => seconds,
            Lasting::Drawn(curve) => curve.at(unit(random)),
            Lasting::LogNormal(mu, sigma) => log_normal(random, mu, sigma),
        };
        Work { us: self.scale.us(seconds), kib: self.kib, pages: pages(random, self.kib) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trace::Scale;

    const WANTED: Wanted = Wanted { seconds: 10.0, speed: 1.0, scale: Scale::ONE, seed: 1 };

    /// Rates of many functions, and the share of them, and of all calls, that lies below so many calls a minute.
    fn shares(shape: Shape) -> (Vec<f64>, impl Fn(f64) -> (f64, f64)) {
        let rates = shape.rates(100_000);
        let all: f64 = rates.iter().sum();
        let of = rates.clone();
        let below = move |most: f64| {
            let below: Vec<_> = of.iter().filter(|rate| **rate <= most).collect();
            let count = f64::from(u32::try_from(below.len()).unwrap()) / 100_000.0;
            (count, below.into_iter().sum::<f64>() / all)
        };
        (rates, below)
    }

    #[test]
    fn rates_of_2019_have_the_published_shares() {
        let (rates, below) = shares(Shape::Azure2019);
        assert!((below(1.0 / 60.0).0 - 0.45).abs() < 0.01, "once an hour");
        assert!((below(1.0).0 - 0.81).abs() < 0.01, "once a minute");
        assert!((1.0 - below(1.0).1 - 0.996).abs() < 0.003, "{}", below(1.0).1);
        let orders = (rates[0] / rates[rates.len() - 1]).log10();
        assert!((8.0..9.0).contains(&orders), "{orders} orders of magnitude");
    }

    #[test]
    fn the_busiest_applications_of_2021_have_the_shares_that_were_counted() {
        let rates = Shape::Azure2021.rates(119);
        let all: f64 = rates.iter().sum();
        for (count, counted) in [(2, 0.436), (5, 0.723), (10, 0.839), (20, 0.925), (50, 0.994)] {
            let share = rates[..count].iter().sum::<f64>() / all;
            assert!((share - counted).abs() < 0.03, "{count} busiest: {share}, not {counted}");
        }
        // 1.64 calls a second.
        assert!((all / 60.0 - 1.64).abs() < 0.25, "{} a second", all / 60.0);
    }

    #[test]
    fn rates_of_2025_are_those_of_the_figure_and_of_2023_span_nine_orders() {
        let (rates, below) = shares(Shape::Huawei2025);
        assert!((below(1.0).0 - 0.92).abs() < 0.01, "{}: once a minute", below(1.0).0);
        assert!(below(1.0).1 < 1e-3, "the rest makes nearly all calls: {}", below(1.0).1);
        assert!((rates[rates.len() / 2] - 3.0 * ONE_A_DAY).abs() < 1e-4, "three on a median day");
        let (rates, _) = shares(Shape::Huawei2023);
        let orders = (rates[0] / rates[rates.len() - 1]).log10();
        assert!((orders - 9.0).abs() < 0.01, "{orders}");
    }

    #[test]
    fn durations_have_what_was_published() {
        let mut random = ChaCha8Rng::seed_from_u64(1);
        let seconds = |shape: Shape, random: &mut ChaCha8Rng| {
            let worker = shape.worker(&WANTED, random);
            f64::from(worker.draw(random).us) / 1e6
        };
        let mut draw = |shape: Shape| -> Vec<f64> {
            let mut all: Vec<_> = (0..20_000).map(|_| seconds(shape, &mut random)).collect();
            all.sort_unstable_by(f64::total_cmp);
            all
        };
        // Half of the functions run for less than a second on average, 96 % for less than a minute.
        let of_2019 = draw(Shape::Azure2019);
        assert!((0.4..1.0).contains(&of_2019[10_000]), "{}", of_2019[10_000]);
        assert!((35.0..70.0).contains(&of_2019[19_200]), "{}", of_2019[19_200]);
        // A median of 31 ms and a mean of 3.35 s, counted by others over the whole file.
        let of_2021 = draw(Shape::Azure2021);
        assert!((0.029..0.033).contains(&of_2021[10_000]), "{}", of_2021[10_000]);
        let mean = of_2021.iter().sum::<f64>() / 20_000.0;
        assert!((2.7..4.0).contains(&mean), "{mean}");
        let of_2023 = draw(Shape::Huawei2023);
        let orders = (of_2023[19_980] / of_2023[20]).log10();
        assert!((3.5..4.5).contains(&orders), "{orders}");
        let of_2025 = draw(Shape::Huawei2025);
        assert!((0.02..0.035).contains(&of_2025[10_000]), "{}", of_2025[10_000]);
    }

    #[test]
    fn a_made_trace_has_its_rate_and_its_skew() {
        for shape in Shape::ALL {
            let calls = shape.calls(1000, 5000.0, &WANTED);
            let name = shape.name();
            assert!(calls.len().abs_diff(50_000) < 20_000, "{name}: {} calls", calls.len());
            assert!(calls.is_sorted() && calls[calls.len() - 1].due_ns < 10_000_000_000, "{name}");
            let mut counts = vec![0u32; 1000];
            for call in calls.iter() {
                counts[call.function as usize] += 1;
            }
            let most: u32 = counts[..50].iter().sum();
            assert!(calls.len() / 3 < most as usize, "{name}: fifty of a thousand get {most}");
            assert!(counts.iter().filter(|count| **count == 0).count() > 100, "{name}: some none");
            assert_eq!(calls, shape.calls(1000, 5000.0, &WANTED), "a seed gives the same again");
        }
    }

    #[test]
    fn bursts_do_not_all_begin_with_the_run() {
        let calls = Shape::Azure2021.calls(1000, 5000.0, &WANTED);
        let first = calls.iter().filter(|call| call.due_ns < 1_000_000_000).count();
        assert!(first < calls.len() / 3, "{first} of {} in a tenth of the time", calls.len());
    }

    #[test]
    fn a_function_of_2019_has_one_duration_and_one_heap() {
        let calls = Shape::Azure2019.calls(10, 100.0, &WANTED);
        let busiest: Vec<_> = calls.iter().filter(|call| call.function == 0).collect();
        assert!(busiest.len() > 10, "{}", busiest.len());
        let work = busiest[0].work;
        assert!(busiest.iter().all(|call| (call.work.us, call.work.kib) == (work.us, work.kib)));
        assert!(busiest.iter().any(|call| call.work.pages != work.pages), "pages are each call's");
    }
}
