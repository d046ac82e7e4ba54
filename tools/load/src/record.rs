//! What was measured.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use hdrhistogram::Histogram;

/// Times above this count as this: an hour.
pub const TIME_NS_MAX: u64 = 3_600_000_000_000;

/// Digits that histograms keep: a thousandth.
const DIGITS: u8 = 3;

/// Size of the excerpt of a wrong response that is kept.
pub const EXAMPLE_BYTES_MAX: usize = 200;

/// What may be wrong with a request's answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Wrong {
    /// No connection could be made.
    Connect,
    /// The connection ended before the response did.
    Closed,
    /// Nothing came in time.
    Timeout,
    /// What came is no response of HTTP/1.1.
    Malformed,
    /// Bytes came that no request had asked for.
    Unexpected,
    /// Another status than expected.
    Status,
    /// Another size of the body than expected.
    Length,
    /// Other bytes in the body than expected.
    Body,
    /// The connection stayed open though its end was asked for.
    NotClosed,
}

impl Wrong {
    /// All of them.
    pub const ALL: [Self; 9] = [
        Self::Connect,
        Self::Closed,
        Self::Timeout,
        Self::Malformed,
        Self::Unexpected,
        Self::Status,
        Self::Length,
        Self::Body,
        Self::NotClosed,
    ];

    /// Returns its name in reports.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Connect => "connect",
            Self::Closed => "closed",
            Self::Timeout => "timeout",
            Self::Malformed => "malformed",
            Self::Unexpected => "unexpected",
            Self::Status => "status",
            Self::Length => "length",
            Self::Body => "body",
            Self::NotClosed => "not-closed",
        }
    }
}

/// What one thread measured, or all together.
#[derive(Debug, Clone)]
pub struct Record {
    /// From when a request was due to the end of its response, in nanoseconds.
    pub latency: Histogram<u64>,
    /// From when it was sent to the end of its response: without the wait for a connection.
    pub service: Histogram<u64>,
    /// From when it was due to when the generator came to it.
    pub lag: Histogram<u64>,
    /// Right responses within the time that counts.
    pub responses: u64,
    /// Bytes of their bodies.
    pub body_bytes: u64,
    /// Wrong ones, at any time, by [`Wrong`].
    pub wrong: [u64; Wrong::ALL.len()],
    /// The first wrong one.
    pub example: Option<String>,
    /// Connections made.
    pub connections: u64,
    /// Requests that were due and were not sent, because the server did not keep up.
    pub unsent: u64,
    /// Requests that waited for a connection at a time, at most.
    pub waiting_max: u64,
    /// CPU time of the thread, within the time that counts.
    pub cpu: Duration,
    /// System calls that entered the ring, the same.
    pub enters: u64,
}

impl Default for Record {
    fn default() -> Self {
        Self::new()
    }
}

impl Record {
    /// Makes an empty record.
    #[must_use]
    pub fn new() -> Self {
        Self {
            latency: histogram(),
            service: histogram(),
            lag: histogram(),
            responses: 0,
            body_bytes: 0,
            wrong: [0; Wrong::ALL.len()],
            example: None,
            connections: 0,
            unsent: 0,
            waiting_max: 0,
            cpu: Duration::ZERO,
            enters: 0,
        }
    }

    /// Counts something wrong, and keeps the first example.
    #[cold]
    pub fn count_wrong(&mut self, wrong: Wrong, example: impl FnOnce() -> String) {
        self.wrong[wrong as usize] += 1;
        if self.example.is_none() {
            self.example = Some(format!("{}: {}", wrong.name(), example()));
        }
    }

    /// Returns how many answers were wrong.
    #[must_use]
    pub fn wrong_total(&self) -> u64 {
        self.wrong.iter().sum()
    }

    /// Adds what another thread measured.
    pub fn add(&mut self, other: &Self) {
        self.latency += &other.latency;
        self.service += &other.service;
        self.lag += &other.lag;
        self.responses += other.responses;
        self.body_bytes += other.body_bytes;
        for (sum, count) in self.wrong.iter_mut().zip(other.wrong) {
            *sum += count;
        }
        if self.example.is_none() {
            self.example.clone_from(&other.example);
        }
        self.connections += other.connections;
        self.unsent += other.unsent;
        self.waiting_max += other.waiting_max;
        self.cpu += other.cpu;
        self.enters += other.enters;
    }
}

fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, TIME_NS_MAX, DIGITS).expect("bounds that hdrhistogram takes")
}

/// Returns the CPU time that this thread has used.
#[must_use]
pub fn thread_cpu() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    let seconds = u64::try_from(time.tv_sec).expect("CPU time is not negative");
    let nanoseconds = u32::try_from(time.tv_nsec).expect("below a second");
    Duration::new(seconds, nanoseconds)
}

/// Counts that are read while threads run.
#[derive(Debug, Default)]
pub struct Progress {
    responses: AtomicU64,
    wrong: AtomicU64,
}

impl Progress {
    /// Adds what came since the last time.
    pub fn add(&self, responses: u64, wrong: u64) {
        // Counts for people; nothing else hangs on them.
        self.responses.fetch_add(responses, Ordering::Relaxed);
        self.wrong.fetch_add(wrong, Ordering::Relaxed);
    }

    /// Returns responses and wrong answers so far.
    #[must_use]
    pub fn read(&self) -> (u64, u64) {
        (self.responses.load(Ordering::Relaxed), self.wrong.load(Ordering::Relaxed))
    }
}
