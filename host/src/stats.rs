//! What happened, counted by each worker for itself and read by the admin thread.
//!
//!   Stats ── workers ─┬─ WorkerStats   written by worker 0 alone ── functions ─┬─ FunctionStats
//!                     ├─ WorkerStats   written by worker 1 alone               ├─ FunctionStats
//!                     ⋮                                                        ⋮
//!
//! Invariant: every number has one writer, the owner of the [`StatsWriter`]; it loads and stores, without a
//! lock and without a locked instruction. No two writers share a cache line. A reader sees each number as it
//! was at some moment, not all of the same one.
//!
//! Not here: how the numbers are shown (`admin/metrics.rs`).
//! Hot path: the methods of [`StatsWriter`].

pub mod histogram; // durations in log-linear buckets

use std::{
    cell::Cell,
    marker::PhantomData,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
};

use midge_abi::{problem::Problem, width};
use midge_loader::{slot::Discard, start::Tier};

use self::histogram::{Histogram, HistogramSnapshot};
use crate::route::FunctionIndex;

/// So many functions, the first of the settings, have histograms of their own; all are in their worker's.
/// A histogram takes 2 KiB for each worker and function.
pub const FUNCTION_HISTOGRAMS_MAX: usize = 256;

/// All counters of a host.
#[derive(Debug)]
pub struct Stats {
    workers: Box<[WorkerStats]>,
    function_names: Box<[String]>,
}

/// What no worker counts. It goes on over a reload.
#[derive(Debug, Default)]
pub struct HostStats {
    /// The host is about to stop.
    pub is_draining: AtomicBool,
    /// Metrics that were not pushed.
    pub pushes_failed: AtomicU64,
}

/// The counters of one worker. Two cache lines: the processor fetches them in pairs.
#[derive(Debug)]
#[repr(align(128))]
pub struct WorkerStats {
    /// Connections accepted.
    pub accepted: Counter,
    /// Connections closed at the limit, to make room.
    pub shed: Counter,
    /// Connections closed because their source had as many as it may.
    pub crowded: Counter,
    /// Connections sent to another worker.
    pub passed: Counter,
    /// Opens and reads of files that a thread did.
    pub file_waits: Counter,
    /// Connections closed for their preface.
    pub prefaces_refused: Counter,
    /// Connections open.
    pub connections: Gauge,
    /// System calls that entered the ring: the only ones on the way of a request.
    pub ring_enters: Counter,
    /// Calls that wait for their next slice.
    pub queue_depth: Gauge,
    /// Calls that wait for their client or for time to pass.
    pub parked: Gauge,
    /// Outgoing requests.
    pub fetches: Counter,
    /// Those that had no whole response.
    pub fetches_failed: Counter,
    /// Those on a connection that had rested.
    pub fetches_reused: Counter,
    /// Those that were sent anew.
    pub fetches_repeated: Counter,
    /// Connections for them that were begun.
    pub fetches_connected: Counter,
    /// Those that nothing grants.
    pub fetches_denied: Counter,
    /// Bytes that request bodies and streams have reserved.
    pub bodies_bytes: Gauge,
    /// Bytes of request bodies that functions read piece by piece.
    pub body_read_bytes: Counter,
    /// Bytes of response bodies that functions wrote piece by piece.
    pub response_written_bytes: Counter,
    /// Requests read, with those that no function got.
    pub requests: Counter,
    /// Refusals before a function was found, by [`Problem::index`].
    pub problems: [Counter; Problem::ALL.len()],
    /// Records of the log that found no room.
    pub log_dropped: Counter,
    /// CPU time of calls.
    pub cpu_ns: Histogram,
    /// From a request's last byte to its response's hand-over to the kernel.
    pub service_ns: Histogram,
    functions: Box<[FunctionStats]>,
}

/// The counters of one function on one worker.
#[derive(Debug, Default)]
#[repr(align(128))]
pub struct FunctionStats {
    /// Requests routed to it.
    pub requests: Counter,
    /// Refusals, by [`Problem::index`].
    pub problems: [Counter; Problem::ALL.len()],
    /// Instances started, by [`Tier`].
    pub starts: [Counter; Tier::ALL.len()],
    /// Pages that calls wrote to.
    pub dirty_pages: Counter,
    /// Instructions of calls, where they are counted.
    pub fuel: Counter,
    /// Requests that its calls made of other servers.
    pub fetches: Counter,
    /// Slots given up, by [`Discard`].
    pub discards: [Counter; Discard::ALL.len()],
    /// CPU time and service time, for the first [`FUNCTION_HISTOGRAMS_MAX`] functions.
    times: Option<Box<Times>>,
}

#[derive(Debug, Default)]
struct Times {
    cpu_ns: Histogram,
    service_ns: Histogram,
}

/// A number that only grows. One thread writes it.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

/// A number that goes up and down. One thread writes it.
#[derive(Debug, Default)]
pub struct Gauge(AtomicU64);

/// A worker's right to count: there is one for each worker, and it stays on its thread.
#[derive(Debug)]
pub struct StatsWriter {
    stats: Arc<Stats>,
    worker: usize,
    /// Not to be shared between threads: two writers would lose counts.
    alone: PhantomData<Cell<()>>,
}

impl Stats {
    /// Makes the counters, all zero, and a writer for each worker.
    #[must_use]
    pub fn new(worker_count: usize, function_names: &[String]) -> (Arc<Self>, Vec<StatsWriter>) {
        let workers = (0..worker_count).map(|_| WorkerStats::new(function_names.len())).collect();
        let stats = Arc::new(Self { workers, function_names: function_names.into() });
        let writer = |worker| StatsWriter { stats: stats.clone(), worker, alone: PhantomData };
        let writers = (0..worker_count).map(writer).collect();
        (stats, writers)
    }

    /// Returns the workers, by index.
    #[must_use]
    pub fn workers(&self) -> &[WorkerStats] {
        &self.workers
    }

    /// Returns the functions' names, by index.
    #[must_use]
    pub fn function_names(&self) -> &[String] {
        &self.function_names
    }

    /// Returns the sum over all workers of a number of one function.
    #[must_use]
    pub fn function_sum(
        &self,
        function: usize,
        number: impl Fn(&FunctionStats) -> &Counter,
    ) -> u64 {
        self.workers.iter().map(|worker| number(&worker.functions[function]).get()).sum()
    }

    /// Returns a function's service times over all workers, if it has a histogram of its own.
    #[must_use]
    pub fn function_service_ns(&self, function: usize) -> Option<HistogramSnapshot> {
        self.function_times(function, |times| &times.service_ns)
    }

    /// Returns the CPU times of a function's calls over all workers, if it has a histogram of its own.
    #[must_use]
    pub fn function_cpu_ns(&self, function: usize) -> Option<HistogramSnapshot> {
        self.function_times(function, |times| &times.cpu_ns)
    }

    fn function_times(
        &self,
        function: usize,
        which: impl Fn(&Times) -> &Histogram,
    ) -> Option<HistogramSnapshot> {
        let mut sum = HistogramSnapshot::default();
        for worker in &self.workers {
            sum.add(&which(worker.functions[function].times.as_ref()?).snapshot());
        }
        Some(sum)
    }
}

impl WorkerStats {
    fn new(function_count: usize) -> Self {
        let function = |index| FunctionStats {
            times: (index < FUNCTION_HISTOGRAMS_MAX).then(Box::default),
            ..FunctionStats::default()
        };
        Self {
            accepted: Counter::default(),
            shed: Counter::default(),
            crowded: Counter::default(),
            passed: Counter::default(),
            file_waits: Counter::default(),
            prefaces_refused: Counter::default(),
            connections: Gauge::default(),
            ring_enters: Counter::default(),
            queue_depth: Gauge::default(),
            parked: Gauge::default(),
            fetches: Counter::default(),
            fetches_failed: Counter::default(),
            fetches_reused: Counter::default(),
            fetches_repeated: Counter::default(),
            fetches_connected: Counter::default(),
            fetches_denied: Counter::default(),
            bodies_bytes: Gauge::default(),
            body_read_bytes: Counter::default(),
            response_written_bytes: Counter::default(),
            requests: Counter::default(),
            problems: Default::default(),
            log_dropped: Counter::default(),
            cpu_ns: Histogram::default(),
            service_ns: Histogram::default(),
            functions: (0..function_count).map(function).collect(),
        }
    }

    /// Returns the functions, by index.
    #[must_use]
    pub fn functions(&self) -> &[FunctionStats] {
        &self.functions
    }
}

impl StatsWriter {
    /// Notes how many connections were sent to other workers so far.
    pub fn connections_passed(&self, passed: u64) {
        self.mine().passed.raise_to(passed);
    }

    /// A file could not be opened or read without waiting.
    pub fn file_waits(&self) {
        self.mine().file_waits.add(1);
    }

    /// Notes how many connections were closed so far to make room, and for their source's having enough.
    pub fn connections_given_up(&self, shed: u64, crowded: u64, prefaces: u64) {
        self.mine().shed.raise_to(shed);
        self.mine().crowded.raise_to(crowded);
        self.mine().prefaces_refused.raise_to(prefaces);
    }

    /// Notes how many connections were accepted so far, and how many are open.
    pub fn connections(&self, accepted: u64, open: u64) {
        self.mine().accepted.raise_to(accepted);
        self.mine().connections.set(open);
    }

    /// Notes how often the ring was entered so far.
    pub fn ring_entered(&self, enters: u64) {
        self.mine().ring_enters.raise_to(enters);
    }

    /// Notes how many requests wait for a slot.
    pub fn queue_depth(&self, depth: u64) {
        self.mine().queue_depth.set(depth);
    }

    /// Notes how many calls wait for their client or for time to pass.
    pub fn parked(&self, count: u64) {
        self.mine().parked.set(count);
    }

    /// Notes what became of outgoing requests so far.
    pub fn fetched(&self, counters: &midge_net::counters::Counters) {
        let mine = self.mine();
        mine.fetches.raise_to(counters.fetches);
        mine.fetches_failed.raise_to(counters.fetches_failed);
        mine.fetches_reused.raise_to(counters.fetches_reused);
        mine.fetches_repeated.raise_to(counters.fetches_repeated);
        mine.fetches_connected.raise_to(counters.fetches_connected);
    }

    /// Counts an outgoing request that was begun.
    pub fn fetch_begun(&self, function: FunctionIndex) {
        self.function(function).fetches.add(1);
    }

    /// Counts an outgoing request that nothing grants.
    pub fn fetch_denied(&self) {
        self.mine().fetches_denied.add(1);
    }

    /// Notes how many bytes request bodies and streams have reserved.
    pub fn bodies_held(&self, bytes: u64) {
        self.mine().bodies_bytes.set(bytes);
    }

    /// Counts bytes of a body that a function read.
    pub fn body_read(&self, bytes: u64) {
        self.mine().body_read_bytes.add(bytes);
    }

    /// Counts bytes of a body that a function wrote.
    pub fn response_written(&self, bytes: u64) {
        self.mine().response_written_bytes.add(bytes);
    }

    /// Counts a request that was read and routed to `function`.
    pub fn request_routed(&self, function: FunctionIndex) {
        self.mine().requests.add(1);
        self.function(function).requests.add(1);
    }

    /// Counts a request about the server in general, which is answered.
    pub fn request_for_all(&self) {
        self.mine().requests.add(1);
    }

    /// Counts a request that no function got, with its refusal.
    pub fn request_unrouted(&self, problem: Problem) {
        self.mine().requests.add(1);
        self.mine().problems[problem.index()].add(1);
    }

    /// Counts a refusal of a request that was routed.
    pub fn refused(&self, function: FunctionIndex, problem: Problem) {
        self.function(function).problems[problem.index()].add(1);
    }

    /// Counts an instance that a request got.
    pub fn started(&self, function: FunctionIndex, tier: Tier) {
        self.function(function).starts[tier.index()].add(1);
    }

    /// Counts the pages that a call wrote to.
    pub fn dirtied(&self, function: FunctionIndex, pages: u64) {
        self.function(function).dirty_pages.add(pages);
    }

    /// Counts the instructions that a call ran.
    pub fn burnt(&self, function: FunctionIndex, fuel: u64) {
        self.function(function).fuel.add(fuel);
    }

    /// Counts a slot that was given up.
    pub fn discarded(&self, function: FunctionIndex, reason: Discard) {
        self.function(function).discards[reason.index()].add(1);
    }

    /// Counts the CPU time of a call.
    pub fn call_took(&self, function: FunctionIndex, cpu_ns: u64) {
        self.mine().cpu_ns.record(cpu_ns);
        if let Some(times) = &self.function(function).times {
            times.cpu_ns.record(cpu_ns);
        }
    }

    /// Counts the service time of a request.
    pub fn service_took(&self, function: FunctionIndex, service_ns: u64) {
        self.mine().service_ns.record(service_ns);
        if let Some(times) = &self.function(function).times {
            times.service_ns.record(service_ns);
        }
    }

    /// Counts a record of the log that found no room.
    pub fn log_dropped(&self) {
        self.mine().log_dropped.add(1);
    }

    /// Returns the worker's index.
    #[must_use]
    pub const fn worker(&self) -> usize {
        self.worker
    }

    fn mine(&self) -> &WorkerStats {
        &self.stats.workers[self.worker]
    }

    fn function(&self, function: FunctionIndex) -> &FunctionStats {
        &self.mine().functions[width::index(function.0)]
    }
}

impl Counter {
    /// Adds. For the one writer alone.
    fn add(&self, count: u64) {
        self.0.store(self.0.load(Relaxed).wrapping_add(count), Relaxed);
    }

    /// Takes over a count that is kept elsewhere. For the one writer alone.
    fn raise_to(&self, count: u64) {
        self.0.store(count, Relaxed);
    }

    /// Returns the count.
    #[must_use]
    pub fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

impl Gauge {
    /// Sets. For the one writer alone.
    fn set(&self, value: u64) {
        self.0.store(value, Relaxed);
    }

    /// Returns the value.
    #[must_use]
    pub fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    const HELLO: FunctionIndex = FunctionIndex(1);

    fn names(count: usize) -> Vec<String> {
        (0..count).map(|index| format!("f{index}")).collect()
    }

    #[test]
    fn indices_are_positions() {
        assert!(Tier::ALL.iter().enumerate().all(|(position, tier)| tier.index() == position));
        assert!(Discard::ALL.iter().enumerate().all(|(position, one)| one.index() == position));
    }

    #[test]
    fn workers_count_for_themselves_and_are_summed_when_read() {
        let (stats, writers) = Stats::new(4, &names(2));
        thread::scope(|scope| {
            for writer in writers {
                scope.spawn(move || {
                    for _ in 0..1000 {
                        writer.request_routed(HELLO);
                        writer.started(HELLO, Tier::T3);
                        writer.dirtied(HELLO, 3);
                        writer.service_took(HELLO, 5_000);
                    }
                    writer.refused(HELLO, Problem::Trapped);
                    writer.request_unrouted(Problem::NotFound);
                    writer.discarded(HELLO, Discard::Heavy);
                });
            }
        });
        assert_eq!(stats.function_sum(1, |function| &function.requests), 4000);
        assert_eq!(stats.function_sum(0, |function| &function.requests), 0);
        assert_eq!(stats.function_sum(1, |function| &function.dirty_pages), 12_000);
        let trapped = Problem::Trapped.index();
        assert_eq!(stats.function_sum(1, |function| &function.problems[trapped]), 4);
        assert_eq!(stats.function_service_ns(1).unwrap().count(), 4000);
        assert_eq!(stats.workers()[3].requests.get(), 1001);
    }

    #[test]
    fn connections_go_up_and_down() {
        let (stats, writers) = Stats::new(1, &[]);
        writers[0].connections(2, 2);
        writers[0].connections(2, 1);
        let worker = &stats.workers()[0];
        assert_eq!((worker.accepted.get(), worker.connections.get()), (2, 1));
    }

    #[test]
    fn only_the_first_functions_have_histograms_of_their_own() {
        let (stats, writers) = Stats::new(1, &names(FUNCTION_HISTOGRAMS_MAX + 1));
        let last = FunctionIndex(u32::try_from(FUNCTION_HISTOGRAMS_MAX).unwrap());
        writers[0].call_took(last, 100);
        assert_eq!(stats.function_cpu_ns(FUNCTION_HISTOGRAMS_MAX), None);
        assert_eq!(stats.workers()[0].cpu_ns.snapshot().count(), 1);
    }
}
