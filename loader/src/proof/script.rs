//! Clock, chance and log that depend on a seed and on how often they were asked, so that two instances can
//! be given the same answers; and a record of all of them.

use std::sync::{Mutex, MutexGuard, PoisonError};

use midge_abi::imports::Level;

use crate::context::Services;

/// What the deadline's clock moves by each time that a slice ends: about as long as a slice is.
pub(super) const SLICE_NS: u64 = 1_000_000;
/// The wall clock's first answer: 2026-01-01.
const EPOCH_NS: u64 = 1_767_225_600_000_000_000;
/// What the guests' clocks move by from answer to answer: not a multiple of their step.
const STEP_NS: u64 = 1_234_567;
/// Records kept of one call; a guest can ask for the time in a loop.
const RECORDS_MAX: usize = 4096;

/// What passed between a guest and the host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Record {
    /// A line that the guest logged.
    Line {
        /// The request it belongs to.
        request_id: [u8; 16],
        /// Its level.
        level: &'static str,
        /// Its bytes.
        line: Vec<u8>,
    },
    /// An answer of the wall clock.
    Wall(u64),
    /// An answer of the other clock.
    Monotonic(u64),
    /// A generator of random bytes was seeded.
    Seeded {
        /// The request it is for.
        request_id: [u8; 16],
    },
    /// Records beyond the number that is kept.
    More {
        /// How many.
        count: u64,
    },
}

/// The services of one side of a proof.
#[derive(Debug)]
pub struct Script {
    seed: u64,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    // Start-up is not stopped: the build has seen it end.
    is_starting: bool,
    call: u64,
    answers: u64,
    slices: u64,
    records: Vec<Record>,
    records_beyond: u64,
}

impl Script {
    /// Makes the services for a seed.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self { seed, state: Mutex::default() }
    }

    /// An instance is started next.
    pub(super) fn begin_start(&self) {
        self.state().is_starting = true;
    }

    /// This call is next: what start-up asked for is forgotten.
    pub(super) fn begin_call(&self, call: u64) {
        *self.state() = State { call, ..State::default() };
    }

    /// Returns what passed since the call began.
    pub(super) fn take(&self) -> Vec<Record> {
        let mut state = self.state();
        let mut records = std::mem::take(&mut state.records);
        if 0 < state.records_beyond {
            records.push(Record::More { count: state.records_beyond });
        }
        records
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn record(&mut self, record: Record) {
        if self.records.len() < RECORDS_MAX {
            self.records.push(record);
        } else {
            self.records_beyond += 1;
        }
    }

    fn next_ns(&mut self) -> u64 {
        self.answers += 1;
        self.answers.wrapping_mul(STEP_NS)
    }
}

impl Services for Script {
    fn log(&self, request_id: &[u8; 16], level: Level, line: &[u8]) {
        let (request_id, level) = (*request_id, level.name());
        self.state().record(Record::Line { request_id, level, line: line.to_vec() });
    }

    fn wall_ns(&self) -> u64 {
        let mut state = self.state();
        let since = state.call.wrapping_mul(1_000_000_000).wrapping_add(state.next_ns());
        let wall_ns = EPOCH_NS.wrapping_add(since);
        state.record(Record::Wall(wall_ns));
        wall_ns
    }

    fn monotonic_ns(&self) -> u64 {
        let mut state = self.state();
        let now_ns = state.next_ns();
        state.record(Record::Monotonic(now_ns));
        now_ns
    }

    fn seed(&self, request_id: &[u8; 16]) -> [u8; 32] {
        self.state().record(Record::Seeded { request_id: *request_id });
        let mut hasher = blake3::Hasher::new();
        hasher.update(&self.seed.to_le_bytes()).update(request_id);
        *hasher.finalize().as_bytes()
    }

    fn deadline_clock_ns(&self) -> u64 {
        let mut state = self.state();
        state.slices += u64::from(!state.is_starting);
        state.slices * SLICE_NS
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_scripts_of_one_seed_answer_alike() {
        let scripts = [7, 7, 8].map(Script::new);
        let answers = scripts.each_ref().map(|script| {
            script.begin_call(1);
            let times = [script.wall_ns(), script.monotonic_ns(), script.wall_ns()];
            (times, script.seed(&[1; 16]), script.take())
        });
        assert_eq!(answers[0], answers[1]);
        assert_eq!(answers[0].2.len(), 4);
        assert_ne!(answers[0].1, answers[2].1, "another seed, other random bytes");
    }

    #[test]
    fn ends_of_slices_do_not_move_the_guests_clock() {
        let scripts = [Script::new(1), Script::new(1)];
        for script in &scripts {
            script.begin_call(0);
        }
        assert_eq!(scripts[0].deadline_clock_ns(), SLICE_NS);
        assert_eq!(scripts[0].monotonic_ns(), scripts[1].monotonic_ns());
    }

    #[test]
    fn records_are_bounded_and_counted() {
        let script = Script::new(1);
        script.begin_call(1);
        for _ in 0..RECORDS_MAX + 3 {
            script.wall_ns();
        }
        let records = script.take();
        assert_eq!(records.len(), RECORDS_MAX + 1);
        assert_eq!(records.last(), Some(&Record::More { count: 3 }));
    }
}
