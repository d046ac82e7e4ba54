//! Time, passed in: read once a turn, so that everything in a turn happens at one moment.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Tells the time.
pub trait Clock {
    /// Returns the time since some fixed moment; never goes back.
    fn elapsed(&mut self) -> Duration;
    /// Returns the seconds since 1970, for the `Date` line.
    fn unix_seconds(&mut self) -> u64;
}

/// The system's clocks.
#[derive(Debug)]
pub struct MonotonicClock {
    start: Instant,
}

impl MonotonicClock {
    /// Starts at zero.
    #[must_use]
    pub fn new() -> Self {
        Self { start: Instant::now() }
    }
}

impl Default for MonotonicClock {
    fn default() -> Self {
        Self::new()
    }
}

impl Clock for MonotonicClock {
    #[inline]
    fn elapsed(&mut self) -> Duration {
        self.start.elapsed()
    }

    fn unix_seconds(&mut self) -> u64 {
        #[expect(clippy::disallowed_methods, reason = "this is the clock that is passed in")]
        let now = SystemTime::now();
        now.duration_since(UNIX_EPOCH).map_or(0, |duration| duration.as_secs())
    }
}
