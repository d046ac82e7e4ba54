//! A new instance for each request: `jit`, `aot`, `mmap`, `cow`, `pool`, `pool-scan`.

use std::sync::Arc;

use crate::function::Function;
use crate::instance::StartError;
use crate::slot::{Discard, Used};
use crate::start::{StartTechnique, Started, Technique, Tier};

/// Starts an instance for each request and drops it afterwards.
pub struct Fresh {
    function: Arc<Function>,
}

impl Fresh {
    /// Makes the technique.
    #[must_use]
    pub const fn new(function: Arc<Function>) -> Self {
        Self { function }
    }
}

impl StartTechnique for Fresh {
    fn take(&mut self) -> Result<Started, StartError> {
        let tier = match self.function.technique() {
            Technique::Jit | Technique::Aot | Technique::Mmap => Tier::T1,
            _ => Tier::T2,
        };
        Ok(Started { pristine: self.function.start()?, tier })
    }

    fn give(&mut self, used: Used) -> Option<Discard> {
        drop(used);
        Some(Discard::ByTechnique)
    }
}
