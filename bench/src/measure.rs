//! CPU time of this thread, in rounds: medians with the spread beside them.

use std::time::Duration;

use serde::Serialize;

/// Median, lowest and highest of several rounds.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Spread {
    /// Middle value.
    pub median: f64,
    /// Lowest.
    pub low: f64,
    /// Highest.
    pub high: f64,
}

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
        Self { median: rounds[last / 2], low: rounds[0], high: rounds[last] }
    }
}

/// Returns the CPU time that this thread has used.
#[must_use]
pub fn thread_cpu() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    let seconds = u64::try_from(time.tv_sec).expect("CPU time is not negative");
    let nanoseconds = u32::try_from(time.tv_nsec).expect("below a second");
    Duration::new(seconds, nanoseconds)
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
