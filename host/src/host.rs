//! The running host: workers, ticker, admin listener and log, started together, reloaded and stopped
//! together.
//!
//! ```text
//!   main thread   settings -> deployment -> assignments ----+---> worker 0 (CPU a): ring, slots
//!                 signals  -> drain, stop, reload           +---> worker 1 (CPU b): ring, slots
//!   midge-tick    epoch and coarse clock                    |
//!   midge-admin   /healthz /metrics                         |
//!   midge-log     drains the workers' records  <------------+
//!   midge-syslog, midge-push    tell servers of logs and metrics, if the settings name any
//! ```
//!
//! Invariant: a worker's thread touches nothing of another's; messages go through a bounded queue and an
//! eventfd that the worker's ring watches.

use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::sync::{Arc, OnceLock};
use std::thread::{Builder, JoinHandle};
use std::time::Duration;

use anyhow::{Context, Result};
use core_affinity::CoreId;
use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};
use midge_loader::engine::Engines;
use midge_net::Listener;
use midge_net::balance::{Load, Neighbours};
use midge_net::clock::MonotonicClock;
use midge_net::endpoint::Endpoint;
use midge_net::epoll::Epoll;
use midge_net::ring::Ring;
use midge_net::uring::Uring;
use midge_net::wake::Waker;
use midge_net::{RingTier, tier};

use crate::admin::Admin;
use crate::budget::{self, Budget};
use crate::config::{PushSettings, RingChoice, Settings, Workers};
use crate::deadline::{CoarseClock, Ticker};
use crate::deployment::{Deployment, Open, Shared};
use crate::doctor::Machine;
use crate::listeners::Places;
use crate::log::{DataLog, LogSender, remote};
use crate::plan;
use crate::push::Pusher;
use crate::services::RandomKey;
use crate::stats::{HostStats, Stats, StatsWriter};
use crate::tuning::SPARE_FROM;
use crate::worker::{Assignment, Message, RequestIds, Worker};

/// Messages that wait for one worker: a reload, a drain and a stop, with room.
const INBOX_MESSAGES_MAX: usize = 8;
/// How long a worker may take to make its ring.
const WORKER_START_MAX: Duration = Duration::from_secs(10);

/// A running host.
pub struct Host {
    workers: Vec<WorkerHandle>,
    ended: Receiver<Ended>,
    serving: Serving,
    admin: Admin,
    stats: Arc<HostStats>,
    /// With what it was started from.
    pusher: (PushSettings, Option<Pusher>),
    shared: Shared,
    places: Places,
    ring_tier: RingTier,
    ticker: Ticker,
}

/// What a reload replaces.
struct Serving {
    deployment: Arc<Deployment>,
    stats: Arc<Stats>,
    log: DataLog,
}

struct WorkerHandle {
    inbox: Sender<Message>,
    waker: Waker,
    thread: JoinHandle<()>,
    cpu: usize,
    task: PathBuf,
    /// By which other workers send it connections.
    ring: Option<OwnedFd>,
}

/// What a worker tells of itself once it can serve.
struct Started {
    task: PathBuf,
    ring: Option<OwnedFd>,
}

/// A worker's thread has ended.
pub struct Ended {
    /// Which.
    pub worker: usize,
    /// Why, if it failed.
    pub result: Result<()>,
}

impl Host {
    /// Starts everything, and returns when all workers accept.
    ///
    /// # Errors
    /// The first thing that cannot be had, with what to do about it.
    pub fn start(settings: &Settings, open: Open<'_>) -> Result<Self> {
        raise_descriptor_limit();
        do_without_huge_pages();
        let cpus = cpus(&settings.workers.value)?;
        let shared = Shared {
            engines: Arc::new(Engines::of(settings.build.processor.value)),
            clock: CoarseClock::new(),
            key: RandomKey::draw().context("the system gives no random bytes")?,
            files: OnceLock::new(),
            names: OnceLock::new(),
        };
        let ticker = Ticker::start(Arc::clone(&shared.engines), shared.clock.clone())
            .context("cannot start the ticker's thread")?;
        let ring_tier = ring_tier(settings.ring_tier.value)?;
        let (serving, assignments) = Serving::load(settings, &shared, cpus.len(), open)?;
        let (places, listeners) = Places::open(settings, &cpus)?;
        let budget = Budget::of(settings, places.count());
        let available = budget::available_bytes(&Machine::this());
        if let Some(warning) = available.and_then(|bytes| budget.warning(cpus.len(), bytes)) {
            tracing::warn!("{warning}");
        }
        let stats = Arc::new(HostStats::default());
        let admin = Admin::start(
            settings.admin.value,
            Arc::clone(&serving.stats),
            Arc::clone(&stats),
            ring_tier,
        )?;
        let (ended_sender, ended) = bounded(cpus.len());
        let mut starting = Vec::with_capacity(cpus.len());
        let each = cpus.into_iter().zip(listeners).zip(assignments).enumerate();
        for (index, ((cpu, listeners), assignment)) in each {
            let seed = Seed {
                index,
                cpu,
                network: network(settings, listeners.len()),
                listeners,
                assignment,
                ring_tier,
                clock: shared.clock.clone(),
                prefix: request_prefix(&shared.key, index),
                ended: ended_sender.clone(),
            };
            starting.push(WorkerHandle::start(seed)?);
        }
        let workers = starting.into_iter().map(|wait| wait()).collect::<Result<Vec<_>>>()?;
        introduce(&workers)?;
        let pusher = Pusher::start(&settings.push, admin.pushed(), Arc::clone(&stats))
            .context("cannot start the thread that pushes metrics")?;
        let pusher = (settings.push.clone(), pusher);
        Ok(Self {
            workers,
            ended,
            serving,
            admin,
            stats,
            pusher,
            shared,
            places,
            ticker,
            ring_tier,
        })
    }

    /// Returns where functions are served.
    #[must_use]
    pub const fn places(&self) -> &Places {
        &self.places
    }

    /// Returns where health and metrics are served.
    #[must_use]
    pub const fn admin_address(&self) -> SocketAddr {
        self.admin.address()
    }

    /// Returns the way to the kernel that the workers take.
    #[must_use]
    pub const fn ring_tier(&self) -> RingTier {
        self.ring_tier
    }

    /// Returns the counters.
    #[must_use]
    pub const fn stats(&self) -> &Arc<Stats> {
        &self.serving.stats
    }

    /// Returns what is served.
    #[must_use]
    pub const fn deployment(&self) -> &Arc<Deployment> {
        &self.serving.deployment
    }

    /// Returns the CPU of each worker.
    pub fn cpus(&self) -> impl Iterator<Item = usize> {
        self.workers.iter().map(|worker| worker.cpu)
    }

    /// Returns the CPU time that all workers have used, as the kernel counts it.
    #[must_use]
    pub fn cpu_time(&self) -> Duration {
        self.workers.iter().map(WorkerHandle::cpu_time).sum()
    }

    /// Returns where ends of workers are told: one of them ending by itself is a failure.
    #[must_use]
    pub const fn ended(&self) -> &Receiver<Ended> {
        &self.ended
    }

    /// Serves these settings from now on. Connections stay, calls that are under way are finished by
    /// what they began with. Addresses, workers and limits of the network are not changed.
    ///
    /// # Errors
    /// If the settings cannot be served: everything stays as it was.
    pub fn reload(&mut self, settings: &Settings, open: Open<'_>) -> Result<()> {
        let (serving, assignments) =
            Serving::load(settings, &self.shared, self.workers.len(), open)?;
        self.admin.serve(Arc::clone(&serving.stats));
        for (worker, assignment) in self.workers.iter().zip(assignments) {
            worker.tell(Message::Assign(Box::new(assignment)));
        }
        let old = std::mem::replace(&mut self.serving, serving);
        // Ends when the last worker has dropped its sender, so no record of an old call is lost.
        old.log.stop_when_unused();
        self.report_to(settings);
        Ok(())
    }

    /// Tells others what the settings say from now on. The functions are served already, so what fails is no reason
    /// to go back.
    fn report_to(&mut self, settings: &Settings) {
        if let Err(error) = remote::point(settings.log.syslog.value.as_ref()) {
            tracing::error!("the server of logs is not told anything: {error}");
        }
        let (before, _) = &self.pusher;
        if (&before.url.value, before.every.value)
            == (&settings.push.url.value, settings.push.every.value)
        {
            return;
        }
        let started = Pusher::start(&settings.push, self.admin.pushed(), Arc::clone(&self.stats));
        let pusher = started.unwrap_or_else(|error| {
            tracing::error!("metrics are not pushed: {error}");
            None
        });
        self.pusher = (settings.push.clone(), pusher);
    }

    /// Accepts no more and answers what is there. [`Host::ended`] tells each worker that is done.
    pub fn drain(&self) {
        self.stats.is_draining.store(true, Ordering::Relaxed);
        for worker in &self.workers {
            worker.tell(Message::Drain);
        }
    }

    /// Ends all workers now, or waits for those that have drained, and stops everything else.
    ///
    /// # Errors
    /// If the admin listener had failed.
    pub fn stop(self) -> Result<()> {
        for worker in &self.workers {
            worker.tell(Message::Stop);
        }
        for worker in self.workers {
            let name = worker.cpu;
            worker.thread.join().map_err(|_| anyhow::anyhow!("worker on CPU {name} panicked"))?;
        }
        drop(self.ticker);
        self.serving.log.stop();
        // All that was counted is there by now.
        if let (_, Some(pusher)) = self.pusher {
            pusher.stop();
        }
        self.admin.stop()?;
        Ok(())
    }
}

impl Serving {
    fn load(
        settings: &Settings,
        shared: &Shared,
        worker_count: usize,
        open: Open<'_>,
    ) -> Result<(Self, Vec<Assignment>)> {
        let names: Vec<_> = settings.target_names().map(str::to_owned).collect();
        let (stats, writers) = Stats::new(worker_count, &names);
        let (log, senders) =
            DataLog::start(&settings.log, Arc::clone(&stats), Box::new(std::io::stderr()))
                .context("cannot start the log's thread")?;
        let mut deployment = Deployment::load(settings, shared, log.guests(), open)?;
        if let Some(cut) = plan::fit(&deployment.functions, worker_count) {
            deployment.idle_max = Some(cut.idle_max(worker_count));
            tracing::warn!("{cut}");
        }
        let deployment = Arc::new(deployment);
        let assign = |(stats, log): (StatsWriter, LogSender)| Assignment {
            deployment: Arc::clone(&deployment),
            stats,
            log,
        };
        let assignments = writers.into_iter().zip(senders).map(assign).collect();
        Ok((Self { deployment, stats, log }, assignments))
    }
}

/// All that a worker's thread starts from.
struct Seed {
    index: usize,
    cpu: CoreId,
    listeners: Vec<Listener>,
    assignment: Assignment,
    network: midge_net::settings::Settings,
    ring_tier: RingTier,
    clock: CoarseClock,
    prefix: [u8; 8],
    ended: Sender<Ended>,
}

impl WorkerHandle {
    /// Starts its thread. What is returned waits until it can serve: others may start meanwhile.
    fn start(seed: Seed) -> Result<impl FnOnce() -> Result<Self>> {
        let (inbox, messages) = bounded(INBOX_MESSAGES_MAX);
        let waker = Waker::new().context("no descriptor left for a worker's eventfd")?;
        let event = waker.descriptor().context("no descriptor left for a worker's eventfd")?;
        let desk = waker.try_clone().context("no descriptor left for a worker's eventfd")?;
        let (started, starts) = bounded(1);
        let (index, cpu) = (seed.index, seed.cpu.id);
        let thread = Builder::new()
            .name(format!("midge-worker-{index}"))
            .spawn(move || {
                let ended = seed.ended.clone();
                let result = run(seed, event, desk, messages, &started);
                // Nobody listens any more when the host itself is about to end.
                let _ignored = ended.send(Ended { worker: index, result });
            })
            .context("cannot start a worker's thread")?;
        Ok(move || match starts.recv_timeout(WORKER_START_MAX) {
            Ok(Ok(Started { task, ring })) => Ok(Self { inbox, waker, thread, cpu, task, ring }),
            Ok(Err(error)) => Err(error),
            Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {
                anyhow::bail!("worker {index} did not start")
            }
        })
    }

    fn tell(&self, message: Message) {
        // A worker that has ended by itself no longer reads; its end is reported elsewhere.
        let _ignored = self.inbox.send_timeout(message, WORKER_START_MAX);
        self.waker.wake();
    }

    /// Reads what the scheduler counts for the thread (Linux, Documentation/scheduler/sched-stats).
    fn cpu_time(&self) -> Duration {
        let text = std::fs::read_to_string(self.task.join("schedstat")).unwrap_or_default();
        let ns = text.split(' ').next().and_then(|number| number.parse().ok());
        Duration::from_nanos(ns.unwrap_or(0))
    }
}

/// Lets workers share new connections, if the way to the kernel has it. For those of addresses that each has a
/// socket of its own for, the kernel's hash decides, and it is unfair with few connections.
fn introduce(workers: &[WorkerHandle]) -> Result<()> {
    let rings: Vec<_> = workers.iter().filter_map(|worker| worker.ring.as_ref()).collect();
    if workers.len() < 2 || rings.len() < workers.len() {
        return Ok(());
    }
    let loads: Arc<[Load]> = workers.iter().map(|_| Load::default()).collect();
    for (own, worker) in workers.iter().enumerate() {
        let rings = rings.iter().map(|ring| ring.try_clone()).collect::<std::io::Result<_>>();
        let rings = rings.context("no descriptors left for the workers' rings")?;
        worker.tell(Message::Join(Neighbours::new(own, Arc::clone(&loads)), rings));
    }
    Ok(())
}

/// Decides on the way to the kernel, once for all workers.
fn ring_tier(asked: RingChoice) -> Result<RingTier> {
    if let Some(tier) = asked.tier() {
        tier::check(tier).with_context(|| {
            format!("tier {tier} ({}) is not to be had here", tier.description())
        })?;
        return Ok(tier);
    }
    let chosen = tier::choose()?;
    if let Some(hindrance) = chosen.hindrance {
        tracing::warn!("served by epoll, a system call for each operation: {hindrance}");
    }
    Ok(chosen.tier)
}

fn run(
    seed: Seed,
    event: OwnedFd,
    desk: Waker,
    messages: Receiver<Message>,
    started: &Sender<Result<Started>>,
) -> Result<()> {
    match seed.ring_tier {
        RingTier::D => {
            let make = |settings: &_| Epoll::new(settings).context("cannot make an epoll instance");
            run_on(make, seed, event, desk, messages, started)
        }
        tier => {
            let make = move |settings: &_| Ok(Uring::of_tier(settings, tier)?);
            run_on(make, seed, event, desk, messages, started)
        }
    }
}

fn run_on<R: Ring>(
    make_ring: impl FnOnce(&midge_net::settings::Settings) -> Result<R>,
    seed: Seed,
    event: OwnedFd,
    desk: Waker,
    messages: Receiver<Message>,
    started: &Sender<Result<Started>>,
) -> Result<()> {
    let made = (|| {
        anyhow::ensure!(
            core_affinity::set_for_current(seed.cpu),
            "cannot pin a worker to CPU {}; name others with --workers",
            seed.cpu.id
        );
        let ring = make_ring(&seed.network)?;
        let clock = MonotonicClock::new();
        let mut endpoint = Endpoint::new(ring, clock, seed.listeners, seed.network)?;
        endpoint.watch(event);
        let task = std::fs::canonicalize("/proc/thread-self").context("/proc is not mounted")?;
        let ring = endpoint.ring_descriptor();
        anyhow::Ok((endpoint, Started { task, ring }))
    })();
    let (endpoint, made) = match made {
        Ok(made) => made,
        Err(error) => {
            // The starter waits for this; if it has given up, its own error is the one that counts.
            let _ignored = started.send(Err(error));
            return Ok(());
        }
    };
    let _ignored = started.send(Ok(made));
    let request_ids = RequestIds::new(seed.prefix);
    let mut worker =
        Worker::new(endpoint, seed.assignment, messages, desk, seed.clock, request_ids);
    worker.run().context("the ring failed")
}

/// Returns the CPUs that workers are pinned to.
fn cpus(workers: &Workers) -> Result<Vec<CoreId>> {
    let allowed = core_affinity::get_core_ids().context("the CPUs of this process are unknown")?;
    let chosen = match workers {
        Workers::Auto if SPARE_FROM <= allowed.len() => allowed[1..].to_vec(),
        Workers::Auto => allowed,
        Workers::Count(count) => {
            let count = usize::try_from(*count).expect("64-bit targets alone");
            anyhow::ensure!(
                count <= allowed.len(),
                "{count} workers asked for, this process may use {} CPUs",
                allowed.len()
            );
            allowed[..count].to_vec()
        }
        Workers::Cpus(wanted) => {
            let mut chosen = Vec::with_capacity(wanted.len());
            for cpu in wanted {
                let id = usize::try_from(*cpu).expect("64-bit targets alone");
                let found = allowed.iter().find(|core| core.id == id);
                chosen.push(*found.with_context(|| format!("this process may not use CPU {cpu}"))?);
            }
            chosen
        }
    };
    anyhow::ensure!(!chosen.is_empty(), "there is no CPU for a worker");
    Ok(chosen)
}

/// Returns what the settings say of the network.
///
/// # Panics
/// If there are more listeners than settings allow.
#[must_use]
pub fn network(settings: &Settings, listeners: usize) -> midge_net::settings::Settings {
    let limits = &settings.limits;
    midge_net::settings::Settings {
        listeners: u32::try_from(listeners).expect("bounded by LISTENS_MAX"),
        trusted_proxies: settings.trusted_proxies.value.networks.clone(),
        connections_max: limits.connections_per_worker.value,
        connections_per_source_max: limits.connections_per_source.value,
        requests_per_connection_max: limits.requests_per_connection.value,
        head_bytes_max: limits.head_bytes.value.bytes(),
        header_timeout: limits.header_deadline.value,
        idle_timeout: limits.idle.value,
        shed_after: limits.shed_after.value,
        body_grace: limits.body_grace.value,
        body_bytes_per_second_min: limits.body_rate.value.0,
        unsent_bytes_max: limits.unsent.value.bytes(),
        pipelined_bytes_max: limits.pipelined.value.bytes(),
        body_window_bytes: limits.body_window.value.bytes(),
        bodies_bytes_max: limits.bodies.value.0,
        write_timeout: limits.write_stall.value,
        linger_timeout: limits.linger.value,
        outgoing_max: limits.outgoing_connections.value,
        ..midge_net::settings::Settings::default()
    }
}

/// Returns the part of its request ids that no other worker of this or another run has.
fn request_prefix(key: &RandomKey, worker: usize) -> [u8; 8] {
    let derived = key.derive(format!("request ids of worker {worker}").as_bytes());
    *derived.first_chunk().expect("32 bytes")
}

/// A first write to a slot would fetch and zero 2 MiB, and a restore would look at all of it. Where huge pages
/// are given to those who ask alone, this changes nothing.
fn do_without_huge_pages() {
    if let Err(error) = rustix::thread::disable_transparent_huge_pages(true) {
        tracing::warn!("huge pages stay as the machine gives them: {error}");
    }
}

/// Connections are descriptors: the soft limit is raised to the hard one, as servers do.
fn raise_descriptor_limit() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

    let limit = getrlimit(Resource::Nofile);
    let raised = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit });
    if raised.is_err() {
        tracing::warn!("the limit of open files stays at {:?}", limit.current);
    }
}
