//! The highest rate with a bounded p99: halved down from what a closed loop reaches.

use anyhow::Result;

use crate::report::Run;

/// How near the result is to the knee.
const PRECISION: f64 = 0.03;

/// Runs of a search at most.
const RUNS_MAX: usize = 24;

/// What was found.
pub(crate) struct Found {
    /// The highest rate that stayed below the bound; 0 if none did.
    pub(crate) rate: f64,
    /// All runs, by rate.
    pub(crate) runs: Vec<Run>,
}

/// Searches between nothing and what a closed loop reached.
///
/// # Errors
/// If a run fails.
pub(crate) fn knee(
    closed: Run,
    p99_ns: u64,
    mut run_at: impl FnMut(f64) -> Result<Run>,
) -> Result<Found> {
    let (mut low, mut high) = (0.0, closed.rate());
    let mut runs = Vec::new();
    let mut rate = high / 2.0;
    while runs.len() < RUNS_MAX && high - low > PRECISION * high && rate >= 1.0 {
        // At a rate that is not reached the latency is that of a queue that grows.
        let holds = |run: &Run| run.is_right() && run.is_the_servers() && run.p99_ns() <= p99_ns;
        let mut run = run_at(rate)?;
        if !holds(&run) {
            // Once may be somebody else's doing: only what fails twice is too much.
            runs.push(run);
            run = run_at(rate)?;
        }
        if holds(&run) {
            low = rate;
        } else {
            high = rate;
        }
        runs.push(run);
        rate = f64::midpoint(low, high);
    }
    runs.sort_by(|one, other| f64::total_cmp(&one.rate_due(), &other.rate_due()));
    Ok(Found { rate: low, runs })
}
