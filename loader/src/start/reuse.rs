//! `reuse`: the slot stays, and so does whatever the request left in it. No isolation between requests.
//!
//! What other hosts call warm. Offered where a function's configuration asks for it by name, and for
//! comparison; never chosen by itself.

use std::sync::Arc;

use crate::drive::CallEnd;
use crate::function::Function;
use crate::instance::StartError;
use crate::slot::{Discard, Pristine, Used};
use crate::start::{StartTechnique, Started, Tier};

/// Keeps slots and hands them out as they are.
pub struct Reuse {
    function: Arc<Function>,
    /// By when they were given back, the latest last. Grows with the first that are kept: most functions of many
    /// never keep as many as they may.
    pub(super) idle: Vec<Pristine>,
    slots_max: usize,
}

impl Reuse {
    /// Makes the technique; it keeps up to `slots_max` slots.
    #[must_use]
    pub fn new(function: Arc<Function>, slots_max: usize) -> Self {
        Self { function, idle: Vec::new(), slots_max }
    }
}

impl StartTechnique for Reuse {
    fn take(&mut self) -> Result<Started, StartError> {
        match self.idle.pop() {
            Some(pristine) => Ok(Started { pristine, tier: Tier::Reuse }),
            None => Ok(Started { pristine: self.function.start()?, tier: Tier::T2 }),
        }
    }

    /// A trapped instance is not used again: its stack pointer and its data are where the trap left them.
    fn give(&mut self, used: Used) -> Option<Discard> {
        let has_returned = matches!(used.end(), CallEnd::Returned(_));
        if !has_returned || used.is_exhausted() || self.slots_max <= self.idle.len() {
            return Some(Discard::Abandoned);
        }
        // Nothing is restored here; it is watched so that its dirty pages are told at no cost.
        if used.watch().is_err() {
            return Some(Discard::RestoreFailed);
        }
        self.idle.push(used.keep());
        None
    }
}
