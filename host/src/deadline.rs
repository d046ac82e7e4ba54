//! The clock of slices and deadlines: one housekeeping thread moves it for all workers.
//!
//! Every [`TICK`] the thread moves the engines' epoch, so that calls which have used up their slice yield,
//! and publishes the time. Workers read the published time instead of the system's: a load and no system
//! call. It tells when a request began; deadlines and guests that ask for the time get the system's.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread::{Builder, JoinHandle};
use std::time::{Duration, Instant};

use midge_loader::engine::Engines;

/// Length of a tick, and of the slice that a call may use before others have their turn.
pub const TICK: Duration = Duration::from_millis(1);

/// Time since the host started, in nanoseconds, as of the last tick.
#[derive(Debug, Clone)]
pub struct CoarseClock {
    began: Instant,
    published_ns: Arc<AtomicU64>,
}

/// The running thread; it ends when this is dropped.
#[derive(Debug)]
pub struct Ticker {
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl CoarseClock {
    /// Starts a clock at 0.
    #[must_use]
    pub fn new() -> Self {
        Self { began: Instant::now(), published_ns: Arc::default() }
    }

    /// Returns the time of the last tick.
    #[must_use]
    pub fn coarse_ns(&self) -> u64 {
        self.published_ns.load(Ordering::Relaxed)
    }

    /// Returns the time now: a read of the system's clock.
    #[must_use]
    pub fn precise_ns(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_nanos()).expect("580 years fit")
    }

    fn publish(&self) {
        self.published_ns.store(self.precise_ns(), Ordering::Relaxed);
    }
}

impl Default for CoarseClock {
    fn default() -> Self {
        Self::new()
    }
}

impl Ticker {
    /// Starts ticking.
    ///
    /// # Errors
    /// If the system has no thread left.
    pub fn start(engines: Arc<Engines>, clock: CoarseClock) -> std::io::Result<Self> {
        let (stop, stopped) = channel::<()>();
        let thread = Builder::new().name("midge-tick".into()).spawn(move || {
            while stopped.recv_timeout(TICK) == Err(RecvTimeoutError::Timeout) {
                clock.publish();
                engines.tick();
            }
        })?;
        Ok(Self { stop: Some(stop), thread: Some(thread) })
    }
}

impl Drop for Ticker {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            thread.join().expect("ticking does not panic");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_published_time_follows_the_real_one() {
        let clock = CoarseClock::new();
        let ticker = Ticker::start(Arc::new(Engines::new()), clock.clone()).unwrap();
        let limit = Instant::now() + Duration::from_secs(10);
        while clock.coarse_ns() < 5_000_000 && Instant::now() < limit {
            std::thread::yield_now();
        }
        drop(ticker);
        assert!(clock.coarse_ns() >= 5_000_000, "it ticked");
        assert!(clock.coarse_ns() <= clock.precise_ns(), "it is not ahead");
    }
}
