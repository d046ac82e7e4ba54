//! The slots of one function on one worker: a technique, and a bound on the calls in flight.
//!
//! Hot path: `take`, `give`.

use std::sync::Arc;

use midge_loader::function::Function;
use midge_loader::instance::StartError;
use midge_loader::slot::{Discard, Used};
use midge_loader::start::{AnyTechnique, StartTechnique, Started};

use crate::deployment::Deployed;

/// Why a request gets no instance.
#[derive(Debug)]
pub enum TakeError {
    /// As many calls as allowed are in flight.
    Busy,
    /// None can be started.
    Start(StartError),
}

/// Slots of one function.
pub struct Slots {
    technique: AnyTechnique,
    in_flight: u32,
    concurrency: u32,
}

impl Slots {
    /// Makes them; no slot is started yet.
    #[must_use]
    pub fn new(deployed: &Deployed) -> Self {
        Self::of(Arc::clone(&deployed.function), deployed.slots, deployed.concurrency)
    }

    /// Makes those of a function that keeps so many, and has so many calls in flight at most.
    #[must_use]
    pub fn of(function: Arc<Function>, kept: u32, concurrency: u32) -> Self {
        let kept = midge_abi::width::index(kept);
        Self { technique: AnyTechnique::new(function, kept), in_flight: 0, concurrency }
    }

    /// Takes an instance for a request.
    ///
    /// # Errors
    /// [`TakeError`]: the caller answers 503.
    pub fn take(&mut self) -> Result<Started, TakeError> {
        if self.in_flight >= self.concurrency {
            return Err(TakeError::Busy);
        }
        let started = self.technique.take().map_err(TakeError::Start)?;
        self.in_flight += 1;
        Ok(started)
    }

    /// Drops the slots that are kept and idle; returns how many there were.
    pub fn shed(&mut self) -> usize {
        self.technique.shed()
    }

    /// Returns how many slots are kept and idle.
    #[must_use]
    pub fn idle_count(&self) -> usize {
        self.technique.idle_count()
    }

    /// Drops the slot that has been idle longest; false if there is none.
    pub fn shed_one(&mut self) -> bool {
        self.technique.shed_one()
    }

    /// Takes an instance back. Says why it was given up, if it was.
    pub fn give(&mut self, used: Used) -> Option<Discard> {
        self.lost();
        self.technique.give(used)
    }

    /// Counts an instance out that does not come back.
    pub fn lost(&mut self) {
        self.in_flight = self.in_flight.checked_sub(1).expect("each one taken is given once");
    }
}
