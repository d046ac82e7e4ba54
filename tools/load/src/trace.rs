//! Requests as clouds see them: many functions, of which a few get nearly all of the calls.
//!
//! A trace is a list of calls: when each is due, which function it is of, and what it takes. Functions are the targets
//! of a run. It is made from what was published of a cloud's functions ([`Shape`]), or read from the files that clouds
//! have published ([`read`]).

mod curve; // a distribution by some of its quantiles
mod files; // the files that clouds have published
mod shape; // what was published of clouds' functions
mod work; // what a call takes

use std::sync::Arc;

pub use files::{Durations, Extras, Faulty, Heaps, read};
pub use shape::Shape;
pub use work::{Scale, Work};

/// A call of a trace.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Call {
    /// When it is due, in nanoseconds from the start.
    pub due_ns: u64,
    /// Which function it is of.
    pub function: u32,
    /// What it takes.
    pub work: Work,
}

/// Calls of a trace: what fits into memory with room to spare.
pub const CALLS_MAX: usize = 1 << 27;

/// What of a trace is wanted.
#[derive(Debug, Clone, Copy)]
pub struct Wanted {
    /// Seconds of the run: calls due later are left out.
    pub seconds: f64,
    /// What times between calls are divided by.
    pub speed: f64,
    /// What durations and heaps are divided by.
    pub scale: Scale,
    /// Seed of all that is random.
    pub seed: u64,
}

fn sorted(mut calls: Vec<Call>) -> Arc<[Call]> {
    calls.sort_unstable();
    calls.into()
}

/// Returns a number from 0 to below 1.
fn unit(random: &mut impl rand_chacha::rand_core::RngCore) -> f64 {
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
