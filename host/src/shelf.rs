//! The slots of all functions on one worker, and the bound on those that lie idle.
//!
//! Where functions ask for more slots than the process has mappings for ([`crate::plan`]), they share what there is:
//! a slot that is given back beyond the bound takes the place of one whose function was called longest ago. So of a
//! hundred thousand functions those keep a slot that are called, and nobody has to know beforehand which.
//!
//! Invariant: no more slots lie idle than the bound says. Invariant: a function with idle slots is listed.
//! Hot path: `take`, `give`.

mod recency; // by when functions were called last

use midge_loader::instance::StartError;
use midge_loader::slot::{Discard, Used};
use midge_loader::start::Started;

use self::recency::Recency;
use crate::deployment::Deployment;
use crate::slots::{Slots, TakeError};

/// Slots of all functions on one worker.
pub struct Shelf {
    slots: Vec<Slots>,
    /// Nothing is counted where all that was asked for fits.
    bound: Option<Bound>,
}

struct Bound {
    idle: usize,
    idle_max: usize,
    recency: Recency,
}

/// What became of a slot that was given back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Given {
    /// Why it was given up, if it was.
    pub discard: Option<Discard>,
    /// The function that lost an idle slot for it.
    pub gave_way: Option<usize>,
}

impl Shelf {
    /// Makes the slots of a deployment's functions; none is started yet.
    #[must_use]
    pub fn new(deployment: &Deployment) -> Self {
        Self::of(deployment.functions.iter().map(Slots::new).collect(), deployment.idle_max)
    }

    fn of(slots: Vec<Slots>, idle_max: Option<usize>) -> Self {
        let bound = idle_max.map(|idle_max| Bound {
            idle: 0,
            idle_max,
            recency: Recency::new(slots.len()),
        });
        Self { slots, bound }
    }

    /// Takes an instance of a function for a request. If none can be made, most likely the machine is short of memory
    /// or mappings: slots that lie idle give way, of every function, and the start is tried once more.
    ///
    /// # Errors
    /// [`TakeError`]: the caller answers 503.
    #[inline]
    pub fn take(&mut self, function: usize) -> Result<Started, TakeError> {
        let slots = &mut self.slots[function];
        let before = slots.idle_count();
        let taken = slots.take();
        if let Some(bound) = &mut self.bound {
            bound.idle -= before - slots.idle_count();
        }
        match taken {
            // Not for a start-up that trapped: a function must not cost the others their slots.
            Err(TakeError::Start(error @ StartError::Instantiate(_))) => {
                self.take_after_shedding(function, error)
            }
            taken => taken,
        }
    }

    #[cold]
    #[inline(never)]
    fn take_after_shedding(
        &mut self,
        function: usize,
        error: StartError,
    ) -> Result<Started, TakeError> {
        let shed: usize = self.slots.iter_mut().map(Slots::shed).sum();
        if let Some(bound) = &mut self.bound {
            bound.idle = 0;
        }
        if shed == 0 {
            return Err(TakeError::Start(error));
        }
        self.slots[function].take()
    }

    /// Takes an instance back.
    ///
    /// # Cost
    /// Without a bound that of [`Slots::give`]. With one, a few words of the function's neighbours in the list; and
    /// where a slot gives way, what taking it down costs.
    #[inline]
    pub fn give(&mut self, function: usize, used: Used) -> Given {
        let slots = &mut self.slots[function];
        let Some(bound) = &mut self.bound else {
            return Given { discard: slots.give(used), gave_way: None };
        };
        let before = slots.idle_count();
        let discard = slots.give(used);
        bound.idle += slots.idle_count() - before;
        bound.recency.called(function);
        let gave_way = if bound.idle_max < bound.idle { self.give_way() } else { None };
        Given { discard, gave_way }
    }

    /// Drops a slot of the function that was called longest ago, of those that have one.
    fn give_way(&mut self) -> Option<usize> {
        let bound = self.bound.as_mut()?;
        while let Some(function) = bound.recency.earliest() {
            if self.slots[function].shed_one() {
                bound.idle -= 1;
                return Some(function);
            }
            // Its slots are all in use; it is listed again when one comes back.
            bound.recency.forget(function);
        }
        None
    }

    /// Counts an instance out that does not come back.
    pub fn lost(&mut self, function: usize) {
        self.slots[function].lost();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use midge_abi::imports::Level;
    use midge_abi::manifest::{CodeForm, Isolation};
    use midge_loader::artifact::Artifact;
    use midge_loader::build::build_as;
    use midge_loader::context::{RequestContext, Services};
    use midge_loader::engine::Engines;
    use midge_loader::function::{Function, FunctionLimits};
    use midge_loader::slot::Progress;
    use midge_loader::start::{Technique, Tier};

    use super::*;

    const HELLO: &[u8] = include_bytes!("../../tests/guests/hello.wat");

    /// Says nothing and knows nothing.
    struct Silent;

    impl Services for Silent {
        fn log(&self, _request_id: &[u8; 16], _level: Level, _line: &[u8]) {}

        fn wall_ns(&self) -> u64 {
            0
        }

        fn monotonic_ns(&self) -> u64 {
            0
        }

        fn seed(&self, _request_id: &[u8; 16]) -> [u8; 32] {
            [0; 32]
        }
    }

    /// Functions of one module that would keep two slots each, of which so many may lie idle in all.
    fn shelf(count: usize, idle_max: Option<usize>) -> Shelf {
        let engines = Engines::new();
        let form = CodeForm { isolation: Isolation::BoundsChecked, ..CodeForm::PLAIN };
        let built = build_as("hello", HELLO, form, &engines).unwrap();
        let artifact = Artifact::from_bytes(&built.bytes, &engines).unwrap();
        let limits = FunctionLimits::of_memory(1 << 20);
        let slots = |_| {
            let services = Arc::new(Silent);
            let restore = Technique::Restore;
            let function = Function::register(&artifact, restore, &engines, services, limits);
            Slots::of(Arc::new(function.unwrap()), 2, 4)
        };
        Shelf::of((0..count).map(slots).collect(), idle_max)
    }

    fn serve(started: Started) -> Used {
        let context = RequestContext { request_id: [0; 16], began_ns: 0, time_ns: u64::MAX };
        match started.pristine.call(context, 65_536, 0) {
            Progress::Done(used) => used,
            _ => panic!("it answers at once"),
        }
    }

    fn call(shelf: &mut Shelf, function: usize) -> (Tier, Given) {
        let started = shelf.take(function).unwrap();
        let tier = started.tier;
        (tier, shelf.give(function, serve(started)))
    }

    fn idle(shelf: &Shelf) -> Vec<usize> {
        shelf.slots.iter().map(Slots::idle_count).collect()
    }

    #[test]
    fn those_that_were_called_last_keep_their_slots() {
        let mut shelf = shelf(4, Some(2));
        let none = Given { discard: None, gave_way: None };
        assert_eq!(call(&mut shelf, 0), (Tier::T2, none));
        assert_eq!(call(&mut shelf, 1), (Tier::T2, none));
        assert_eq!(call(&mut shelf, 0), (Tier::T3, none));
        let way_of = |function| Given { discard: None, gave_way: Some(function) };
        assert_eq!(call(&mut shelf, 2), (Tier::T2, way_of(1)), "called before 0");
        assert_eq!(call(&mut shelf, 0), (Tier::T3, none));
        assert_eq!(call(&mut shelf, 1), (Tier::T2, way_of(2)));
        assert_eq!(idle(&shelf), [1, 1, 0, 0]);
    }

    #[test]
    fn a_function_whose_slots_are_in_use_is_passed_over() {
        let mut shelf = shelf(3, Some(1));
        call(&mut shelf, 0);
        let in_use = shelf.take(0).unwrap();
        assert_eq!(call(&mut shelf, 1).1.gave_way, None, "there is room while it is in use");
        let given = shelf.give(0, serve(in_use));
        assert_eq!(given, Given { discard: None, gave_way: Some(1) });
        assert_eq!(idle(&shelf), [1, 0, 0]);
    }

    #[test]
    fn without_room_nothing_is_kept_and_all_is_served() {
        let mut shelf = shelf(2, Some(0));
        for _ in 0..3 {
            assert_eq!(call(&mut shelf, 1).0, Tier::T2);
        }
        assert_eq!(idle(&shelf), [0, 0]);
    }

    #[test]
    fn where_all_fit_each_keeps_its_own() {
        let mut shelf = shelf(3, None);
        let both = [shelf.take(0).unwrap(), shelf.take(0).unwrap()];
        for started in both {
            assert_eq!(shelf.give(0, serve(started)), Given { discard: None, gave_way: None });
        }
        call(&mut shelf, 1);
        call(&mut shelf, 2);
        assert_eq!(idle(&shelf), [2, 1, 1]);
    }
}
