//! Threads, put together: learn what the server answers, load it, add up what was measured.

use std::io::{Read, Write};
use std::sync::Barrier;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use socket2::{SockAddr, Socket, Type};

use crate::client::{Client, Share};
use crate::plan::{Body, Expected, Field, Fields, Numbered, Pace, Plan, Target};
use crate::record::{Progress, Record};
use crate::response::{Facts, Reader, Sink, Unexpected};
use crate::trace::Work;

/// Size of a body that is kept to compare others with; larger ones are compared by their hash.
pub const LEARNED_BYTES_MAX: u64 = 1 << 20;

/// Lag that no result is refused for.
const LAG_NS_FREE: u64 = 100_000;

/// Share of a latency that may be the generator's own lag.
const LAG_SHARE_MAX: f64 = 0.1;

/// Share of a thread's time above which a closed loop waits for the generator and not for the server.
const BUSY_SHARE_MAX: f64 = 0.95;

/// What a run measured.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// Of all threads.
    pub record: Record,
    /// CPU time of the busiest thread, as a share of the time that counts.
    pub busy: f64,
    /// Why the result says more of the generator than of the server, if it does.
    pub limit: Option<String>,
}

impl Outcome {
    /// Returns right responses per second.
    #[must_use]
    pub fn rate(&self, plan: &Plan) -> f64 {
        #[expect(clippy::cast_precision_loss, reason = "a figure for people")]
        let responses = self.record.responses as f64;
        responses / plan.duration.as_secs_f64()
    }
}

/// Runs a plan to its end. `watch` is called each second with what came so far.
///
/// # Errors
/// If a thread cannot go on: no ring, no connection.
pub fn run(plan: &Plan, mut watch: impl FnMut(Duration, &Progress)) -> Result<Outcome> {
    let threads = plan.cpus.len();
    ensure!(threads > 0, "a run needs a thread");
    let progress = Progress::default();
    let barrier = Barrier::new(threads);
    let began = Instant::now();
    let records = std::thread::scope(|scope| {
        let (done, over) = std::sync::mpsc::channel::<()>();
        let handles: Vec<_> = (0..threads)
            .map(|thread| {
                let (progress, barrier, done) = (&progress, &barrier, done.clone());
                scope.spawn(move || {
                    let _done = done;
                    one(plan, Share { thread, threads }, barrier, progress)
                })
            })
            .collect();
        drop(done);
        // Disconnected when the last thread has ended.
        while over.recv_timeout(Duration::from_secs(1))
            == Err(std::sync::mpsc::RecvTimeoutError::Timeout)
        {
            watch(began.elapsed(), &progress);
        }
        let join = |handle: std::thread::ScopedJoinHandle<'_, Result<Record>>| {
            handle.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        };
        handles.into_iter().map(join).collect::<Result<Vec<_>>>()
    })?;
    let window = plan.duration.as_secs_f64();
    let busy = records.iter().map(|record| record.cpu.as_secs_f64() / window).fold(0.0, f64::max);
    let mut sum = Record::new();
    for record in &records {
        sum.add(record);
    }
    let limit = limit(plan, &sum, busy);
    Ok(Outcome { record: sum, busy, limit })
}

fn one(plan: &Plan, share: Share, barrier: &Barrier, progress: &Progress) -> Result<Record> {
    if let Some(id) = plan.cpus[share.thread] {
        let pinned = core_affinity::set_for_current(core_affinity::CoreId { id });
        if !pinned {
            barrier.wait();
            bail!("cannot use CPU {id}: take one of `nproc`'s with --cpus");
        }
    }
    let client = Client::new(plan, share);
    // All begin at once, and one that cannot keeps none waiting.
    barrier.wait();
    Ok(client?.run(Instant::now(), progress)?)
}

/// Tells why a result says more of the generator than of the server.
fn limit(plan: &Plan, record: &Record, busy: f64) -> Option<String> {
    if plan.pace == Pace::Closed {
        let is_limit = !plan.spins && BUSY_SHARE_MAX < busy;
        return is_limit.then(|| {
            format!(
                "a thread of the generator was busy for {:.0} % of the time: the rate is a lower bound, \
                 and latencies are its own; add a CPU with --cpus",
                busy * 100.0
            )
        });
    }
    let lag = record.lag.value_at_quantile(0.99);
    let latency = record.latency.value_at_quantile(0.99);
    #[expect(clippy::cast_precision_loss, reason = "a share for people")]
    let share = lag as f64 / latency.max(1) as f64;
    (LAG_NS_FREE < lag && LAG_SHARE_MAX < share).then(|| {
        format!(
            "the generator sent late: its lag has a p99 of {} us, {:.0} % of the latency's; \
             lower the rate, add a CPU with --cpus, or take --spin",
            lag / 1000,
            share * 100.0
        )
    })
}

/// The fields of the two requests by which an answer is learned: no two are written alike, and small, so that a function
/// that works as it is told is soon done.
const LEARNING: [Fields; 2] = [
    Fields { number: 1, work: Work { us: 3, kib: 64, pages: 7 } },
    Fields { number: 2, work: Work { us: 4, kib: 128, pages: 8 } },
];

/// Asks for a target twice and returns what its responses must be from then on: the status, and of the body what
/// both have in common (its bytes, else its size, else nothing).
///
/// # Errors
/// If the server does not answer, or not as `wanted_status` says.
pub fn learn(
    address: &SockAddr,
    target: &Target,
    wanted_status: Option<u16>,
    timeout: Duration,
) -> Result<Expected> {
    let first = ask(address, target, &LEARNING[0], timeout)?;
    let second = ask(address, target, &LEARNING[1], timeout)?;
    let status = wanted_status.unwrap_or(first.status);
    for answer in [&first, &second] {
        ensure!(
            answer.status == status && (wanted_status.is_some() || answer.status < 400),
            "the server answers {} to {}: {}",
            answer.status,
            target.request.bytes.split(|byte| *byte == b'\r').next().unwrap_or(b"").escape_ascii(),
            String::from_utf8_lossy(&answer.start).lines().next().unwrap_or("")
        );
    }
    let body = if first.size != second.size {
        Body::Any
    } else if first.hash != second.hash {
        match common(&first, &second) {
            Some(numbered) => Body::Bytes(numbered),
            None => Body::Length(first.size),
        }
    } else if first.size <= LEARNED_BYTES_MAX {
        Body::Bytes(Numbered { bytes: first.start, places: Vec::new() })
    } else {
        Body::Hash { length: first.size, hash: first.hash }
    };
    Ok(Expected { status: Some(status), body })
}

/// Finds the bytes of two bodies that differ by their requests' fields alone.
fn common(first: &Answer, second: &Answer) -> Option<Numbered> {
    if LEARNED_BYTES_MAX < first.size {
        return None;
    }
    let mut text = String::from_utf8(first.start.clone()).ok()?;
    for field in Field::ALL {
        text = text.replace(&LEARNING[0].text(field), field.name());
    }
    let numbered = Numbered::new(text.as_bytes());
    (!numbered.places.is_empty() && numbered.holds(&LEARNING[1], 0, &second.start))
        .then_some(numbered)
}

#[derive(Debug)]
struct Answer {
    status: u16,
    size: u64,
    hash: blake3::Hash,
    /// The body, or its beginning.
    start: Vec<u8>,
}

#[derive(Default)]
struct Learner {
    status: u16,
    size: u64,
    hasher: blake3::Hasher,
    start: Vec<u8>,
    is_head: bool,
    is_over: bool,
}

impl Sink for Learner {
    fn head(&mut self, facts: Facts) -> Result<bool, Unexpected> {
        self.status = facts.status;
        Ok(!self.is_head)
    }

    fn body(&mut self, bytes: &[u8]) {
        self.size += bytes.len() as u64;
        self.hasher.update(bytes);
        if self.size <= LEARNED_BYTES_MAX {
            self.start.extend_from_slice(bytes);
        }
    }

    fn end(&mut self) {
        self.is_over = true;
    }
}

fn ask(address: &SockAddr, target: &Target, fields: &Fields, timeout: Duration) -> Result<Answer> {
    let mut socket = Socket::new(address.domain(), Type::STREAM, None)?;
    socket.connect(address).context("cannot connect")?;
    socket.set_read_timeout(Some(timeout))?;
    let mut request = Vec::new();
    target.last_request.write(fields, &mut request);
    // A large request and a large response may need each other's room.
    let sender = socket.try_clone()?;
    std::thread::scope(|scope| {
        scope.spawn(move || {
            let mut sender = sender;
            // A server that refuses early closes; what it answers says why.
            drop(sender.write_all(&request));
        });
        let mut learner = Learner { is_head: target.is_head, ..Learner::default() };
        let mut reader = Reader::new();
        let mut buffer = vec![0; 256 * 1024];
        while !learner.is_over {
            let size = socket.read(&mut buffer).context("the server does not answer")?;
            if size == 0 {
                ensure!(
                    reader.finish(&mut learner),
                    "the server closed the connection without a whole response"
                );
                break;
            }
            let result = reader.read(&mut buffer[..size], &mut learner);
            result.map_err(|error| anyhow::anyhow!("no response of HTTP/1.1: {error:?}"))?;
        }
        let hash = learner.hasher.finalize();
        Ok(Answer { status: learner.status, size: learner.size, hash, start: learner.start })
    })
}
