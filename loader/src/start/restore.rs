//! `restore`: the slot stays, its state goes back to the template's.
//!
//! Slots are taken last-used-first: their pages are the likeliest to be in a near cache, and slots that a
//! quiet function no longer needs stay untouched at the bottom.
//!
//! Hot path: `take`, `give`.

use std::sync::Arc;

use crate::function::Function;
use crate::instance::StartError;
use crate::slot::{Discard, Pristine, Used};
use crate::start::{StartTechnique, Started, Tier};

/// A slot with more dirty pages is not kept: an idle slot would hold more than 16 MiB. To set them back
/// would be cheaper than a new slot at any number, 0.1 us a page against 4 (`midge lab restore`).
pub const DIRTY_PAGES_MAX: usize = 4096;

/// Keeps slots and restores them.
pub struct Restore {
    function: Arc<Function>,
    /// By when they were given back, the latest last. Grows with the first that are kept: most functions of many
    /// never keep as many as they may.
    pub(super) idle: Vec<Pristine>,
    slots_max: usize,
}

impl Restore {
    /// Makes the technique; it keeps up to `slots_max` slots.
    #[must_use]
    pub fn new(function: Arc<Function>, slots_max: usize) -> Self {
        Self { function, idle: Vec::new(), slots_max }
    }
}

impl StartTechnique for Restore {
    fn take(&mut self) -> Result<Started, StartError> {
        match self.idle.pop() {
            Some(pristine) => Ok(Started { pristine, tier: Tier::T3 }),
            None => Ok(Started { pristine: self.function.start()?, tier: Tier::T2 }),
        }
    }

    fn give(&mut self, used: Used) -> Option<Discard> {
        if used.is_exhausted() {
            return Some(Discard::Exhausted);
        }
        if used.watch().is_err() {
            return Some(Discard::RestoreFailed);
        }
        if DIRTY_PAGES_MAX < used.dirty_page_count() {
            return Some(Discard::Heavy);
        }
        match used.restore() {
            Ok(pristine) if self.idle.len() < self.slots_max => {
                self.idle.push(pristine);
                None
            }
            Ok(surplus) => {
                drop(surplus);
                Some(Discard::ByTechnique)
            }
            Err(reason) => Some(reason),
        }
    }
}
