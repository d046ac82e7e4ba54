//! Requests as clouds see them: many functions, of which a few get nearly all of the calls.
//!
//! A trace is a list of times with the function that is called; functions are the targets of a run. It is made
//! from the published shape of the Azure Functions trace of 2019, or read from the files of 2019 and 2021
//! (<https://github.com/Azure/AzurePublicDataset>).
//!
//! The shape, after Shahrad et al., "Serverless in the Wild" (ATC 2020), and what was read from the files since:
//! 45 % of applications are called once an hour or less, 81 % once a minute or less; the others make 99.6 % of
//! all calls, over eight orders of magnitude. Of the functions 16 % are timers, evenly spaced; 17 % are called by
//! queues and events, in bursts; the rest by people and programs, independently.

use std::collections::HashMap;
use std::sync::Arc;

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};

use crate::schedule::{Piece, Schedule, Spacing};

/// A call: when it is due, in nanoseconds from the start, and which function it is of.
pub type Call = (u64, u32);

/// Calls of a trace: what fits into memory with room to spare.
pub const CALLS_MAX: usize = 1 << 27;

/// Shares of functions, by how they are called.
const TIMERS: f64 = 0.16;
const BURSTS: f64 = 0.17;

/// Coefficient of variation of bursts.
const BURSTS_VARIATION: f64 = 4.0;

/// Points of the distribution of rates: share of functions, and calls per minute that they stay below.
const RATES: [(f64, f64); 3] = [(0.0, 1.0 / 20_160.0), (0.45, 1.0 / 60.0), (0.81, 1.0)];

/// Above the last point rates follow a Pareto distribution with this exponent, up to this many a minute: so the
/// fifth of the functions that lies there makes 99.6 % of the calls.
const TAIL_EXPONENT: f64 = 0.5;
const TAIL_MAX: f64 = 20_000.0;

/// Returns the mean calls per minute of the function at this share of all, from 0 to 1, by rising rate.
#[must_use]
pub fn rate_at(share: f64) -> f64 {
    for pair in RATES.windows(2) {
        let [(from, low), (to, high)] = [pair[0], pair[1]];
        if share < to {
            let part = (share - from) / (to - from);
            return low * (high / low).powf(part);
        }
    }
    let (start, base) = RATES[RATES.len() - 1];
    let left = ((1.0 - share) / (1.0 - start)).max(f64::MIN_POSITIVE);
    (base * left.powf(-1.0 / TAIL_EXPONENT)).min(TAIL_MAX)
}

/// Makes a trace of so many functions with `rate` calls a second in all, for so many seconds.
///
/// # Panics
/// If there is no function.
#[must_use]
pub fn azure_2019(functions: usize, rate: f64, seconds: f64, seed: u64) -> Arc<[Call]> {
    assert!(functions > 0, "a trace is of some functions");
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    #[expect(clippy::cast_precision_loss, reason = "functions are far fewer than 2^53")]
    let share = |index: usize| (index as f64 + 0.5) / functions as f64;
    // By falling rate, as targets by Zipf are.
    let rates: Vec<f64> = (0..functions).rev().map(|index| rate_at(share(index))).collect();
    let scale = rate / rates.iter().sum::<f64>();
    let mut calls = Vec::new();
    for (function, each) in rates.iter().enumerate() {
        let spacing = match unit(&mut random) {
            kind if kind < TIMERS => Spacing::Fixed,
            kind if kind < TIMERS + BURSTS => Spacing::Gamma(BURSTS_VARIATION),
            _ => Spacing::Poisson,
        };
        let rate = each * scale;
        let seed = random.next_u64();
        // Timers do not all begin with the run.
        let shift = if spacing == Spacing::Fixed { unit(&mut random) / rate } else { 0.0 };
        let piece = Piece::level(seconds, rate);
        let end = nanoseconds(seconds);
        for (time, _) in Schedule::new(&[piece], spacing, seed, 0, 1) {
            let due = time.saturating_add(nanoseconds(shift));
            if due < end {
                calls.push((due, narrow(function)));
            }
        }
    }
    sorted(calls)
}

/// Why a file is no trace.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {why}")]
pub struct Faulty {
    /// Line, from 1.
    pub line: usize,
    /// What is wrong with it.
    pub why: &'static str,
}

/// Reads a trace: times with the number of a function (`12.5,3`), times alone, or a file of the Azure traces, which
/// is known by its first line. Times are divided by `speed`; calls due after `seconds` are left out.
///
/// # Errors
/// [`Faulty`] with the first line that is none of its kind.
pub fn read(text: &str, speed: f64, seconds: f64, seed: u64) -> Result<Arc<[Call]>, Faulty> {
    let first = text.lines().next().unwrap_or_default();
    let calls = if first.starts_with("HashOwner,HashApp,HashFunction,Trigger,") {
        by_minute(text, speed, seconds, seed)?
    } else if first.starts_with("app,func,end_timestamp,duration") {
        by_call(text, speed, seconds)?
    } else {
        plain(text, speed, seconds)?
    };
    if calls.is_empty() {
        return Err(Faulty { line: 1, why: "there is no call within the time" });
    }
    Ok(sorted(calls))
}

/// The trace of 2019: a line for each function, with a count for each minute of a day.
fn by_minute(text: &str, speed: f64, seconds: f64, seed: u64) -> Result<Vec<Call>, Faulty> {
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let mut calls = Vec::new();
    for (function, (at, line)) in text.lines().enumerate().skip(1).enumerate() {
        for (minute, count) in line.split(',').skip(4).enumerate() {
            #[expect(clippy::cast_precision_loss, reason = "minutes of a day")]
            let begins = minute as f64 * 60.0;
            if seconds <= begins / speed {
                break;
            }
            let why = "a count of calls is no number";
            let count: u32 = count.trim().parse().map_err(|_| Faulty { line: at + 1, why })?;
            for _ in 0..count {
                // Where in its minute a call was, nobody knows.
                let time = (begins + unit(&mut random) * 60.0) / speed;
                push(&mut calls, time, seconds, narrow(function), at + 1)?;
            }
        }
    }
    Ok(calls)
}

/// The trace of 2021: a line for each call, with its end and its duration in seconds.
fn by_call(text: &str, speed: f64, seconds: f64) -> Result<Vec<Call>, Faulty> {
    let mut functions: HashMap<(&str, &str), u32> = HashMap::new();
    let mut starts = Vec::new();
    for (at, line) in text.lines().enumerate().skip(1) {
        if line.trim().is_empty() {
            continue;
        }
        let faulty = |why| Faulty { line: at + 1, why };
        let mut fields = line.split(',');
        let (Some(app), Some(function)) = (fields.next(), fields.next()) else {
            return Err(faulty("app, func, end_timestamp, duration are wanted"));
        };
        let mut number = || {
            let text = fields.next().map(str::trim);
            text.and_then(|text| text.parse::<f64>().ok()).filter(|number| number.is_finite())
        };
        let (Some(end), Some(duration)) = (number(), number()) else {
            return Err(faulty("end or duration is no number"));
        };
        let next = narrow(functions.len());
        let function = *functions.entry((app, function)).or_insert(next);
        starts.push((end - duration, function, at + 1));
    }
    let first = starts.iter().map(|(start, ..)| *start).fold(f64::MAX, f64::min);
    let mut calls = Vec::new();
    for (start, function, line) in starts {
        push(&mut calls, (start - first) / speed, seconds, function, line)?;
    }
    Ok(calls)
}

fn plain(text: &str, speed: f64, seconds: f64) -> Result<Vec<Call>, Faulty> {
    let mut calls = Vec::new();
    for (at, line) in text.lines().enumerate() {
        if line.trim().is_empty() {
            continue;
        }
        let faulty = |why| Faulty { line: at + 1, why };
        let (time, function) = line.split_once(',').unwrap_or((line, "0"));
        let time: f64 = time.trim().parse().map_err(|_| faulty("no time in seconds"))?;
        let function = function.trim().parse().map_err(|_| faulty("no number of a function"))?;
        if !(0.0..1e9).contains(&time) {
            return Err(faulty("a time is 0 or more, and below 10^9 seconds"));
        }
        push(&mut calls, time / speed, seconds, function, at + 1)?;
    }
    Ok(calls)
}

fn push(
    calls: &mut Vec<Call>,
    time: f64,
    seconds: f64,
    function: u32,
    line: usize,
) -> Result<(), Faulty> {
    if time < seconds {
        if calls.len() == CALLS_MAX {
            return Err(Faulty { line, why: "more calls than a run can hold" });
        }
        calls.push((nanoseconds(time), function));
    }
    Ok(())
}

fn sorted(mut calls: Vec<Call>) -> Arc<[Call]> {
    calls.sort_unstable();
    calls.into()
}

/// Returns a number from 0 to below 1.
fn unit(random: &mut ChaCha8Rng) -> f64 {
    f64::from(random.next_u32()) / (f64::from(u32::MAX) + 1.0)
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "nanoseconds of a run: below 2^63; what is negative becomes 0"
)]
fn nanoseconds(seconds: f64) -> u64 {
    (seconds * 1e9) as u64
}

fn narrow(function: usize) -> u32 {
    u32::try_from(function).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_have_the_published_shares() {
        let count = 100_000;
        let rates: Vec<f64> =
            (0..count).map(|index| rate_at((f64::from(index) + 0.5) / f64::from(count))).collect();
        let share = |most: f64| {
            let below = rates.iter().filter(|rate| **rate <= most).count();
            f64::from(u32::try_from(below).unwrap()) / f64::from(count)
        };
        assert!((share(1.0 / 60.0) - 0.45).abs() < 0.01, "once an hour");
        assert!((share(1.0) - 0.81).abs() < 0.01, "once a minute");
        let all: f64 = rates.iter().sum();
        let busy: f64 = rates.iter().filter(|rate| **rate > 1.0).sum();
        assert!((busy / all - 0.996).abs() < 0.003, "{}", busy / all);
        let orders = (rates[rates.len() - 1] / rates[0]).log10();
        assert!((8.0..9.0).contains(&orders), "{orders} orders of magnitude");
    }

    #[test]
    fn a_made_trace_has_its_rate_and_its_skew() {
        let calls = azure_2019(1000, 5000.0, 10.0, 1);
        assert!(calls.len().abs_diff(50_000) < 10_000, "{} calls", calls.len());
        assert!(calls.is_sorted() && calls[calls.len() - 1].0 < 10_000_000_000);
        let mut counts = vec![0u32; 1000];
        for (_, function) in calls.iter() {
            counts[*function as usize] += 1;
        }
        let most: u32 = counts[..10].iter().sum();
        assert!(calls.len() / 3 < most as usize, "ten of a thousand get {most}");
        assert!(counts.iter().filter(|count| **count == 0).count() > 100, "and some none");
        assert_eq!(calls, azure_2019(1000, 5000.0, 10.0, 1), "a seed gives the same again");
    }

    #[test]
    fn the_trace_of_2019_is_read() {
        let text =
            "HashOwner,HashApp,HashFunction,Trigger,1,2,3\na,b,c,http,2,0,1\na,b,d,timer,1,1,1\n";
        let calls = read(text, 60.0, 100.0, 1).unwrap();
        assert_eq!(calls.len(), 6);
        // At sixty times its speed a minute is a second.
        let second = |index: u64| {
            let range = index * 1_000_000_000..(index + 1) * 1_000_000_000;
            calls.iter().filter(|(time, _)| range.contains(time)).count()
        };
        assert_eq!((second(0), second(1), second(2)), (3, 1, 2));
        assert_eq!(read(text, 60.0, 2.0, 1).unwrap().len(), 4, "two minutes of it");
        let faulty = read("HashOwner,HashApp,HashFunction,Trigger,1\na,b,c,http,x\n", 1.0, 9.0, 1);
        assert_eq!(faulty, Err(Faulty { line: 2, why: "a count of calls is no number" }));
    }

    #[test]
    fn the_trace_of_2021_is_read_by_starts() {
        let text = "app,func,end_timestamp,duration\na,f,10.5,0.5\na,g,11.0,3.0\nb,f,12.0,1.0\n";
        let calls = read(text, 1.0, 100.0, 1).unwrap();
        assert_eq!(&calls[..], [(0, 1), (2_000_000_000, 0), (3_000_000_000, 2)]);
        assert!(read("app,func,end_timestamp,duration\na,f,x,1\n", 1.0, 9.0, 1).is_err());
    }

    #[test]
    fn times_alone_and_with_functions_are_read() {
        let calls = read("1.5,2\n0.5\n\n", 0.5, 100.0, 1).unwrap();
        assert_eq!(&calls[..], [(1_000_000_000, 0), (3_000_000_000, 2)]);
        for text in ["x", "1,y", "-1", "nan", ""] {
            assert!(read(text, 1.0, 10.0, 1).is_err(), "{text}");
        }
    }
}
