//! Deadlines and clocks of a component that the engine runs.
//!
//! The engine's own clocks wait by a runtime with threads of its own. Here time is something that the embedder is
//! asked for, like everything else (`desk.rs`).

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use midge_abi::imports::CLOCK_STEP_NS;
use wasmtime::component::{Accessor, HasData, Linker, Resource};
use wasmtime_wasi::p2::bindings::clocks::monotonic_clock as p2;
use wasmtime_wasi::p2::{DynPollable, Pollable, subscribe};
use wasmtime_wasi::p3::bindings::clocks::monotonic_clock as p3;
use wasmtime_wasi::{HostMonotonicClock, HostWallClock, ResourceTable};

use super::context::ComponentContext;
use super::desk::Desk;
use crate::context::{RequestContext, Services};

/// How long a call may compute, and the time that its guest sees.
pub(super) struct Clock {
    services: Arc<dyn Services>,
    began_ns: u64,
    time_ns: u64,
    ends_ns: AtomicU64,
    /// How often a slice was used up.
    slices: AtomicU64,
}

impl Clock {
    /// Makes the clock of a call that begins now.
    pub(super) fn new(services: Arc<dyn Services>, request: RequestContext) -> Self {
        let RequestContext { began_ns, time_ns, .. } = request;
        let (ends_ns, slices) = (AtomicU64::new(0), AtomicU64::new(0));
        let clock = Self { services, began_ns, time_ns, ends_ns, slices };
        clock.renew();
        clock
    }

    /// Lets the deadline begin anew: bytes have moved.
    pub(super) fn renew(&self) {
        self.set_left_ns(self.time_ns);
    }

    /// Returns what is left of the deadline.
    pub(super) fn left_ns(&self) -> u64 {
        self.ends_ns.load(Relaxed).saturating_sub(self.services.deadline_clock_ns())
    }

    /// Lets so much be left from now on: what passed was the client's time.
    pub(super) fn set_left_ns(&self, left_ns: u64) {
        let now_ns = self.services.deadline_clock_ns();
        self.ends_ns.store(now_ns.saturating_add(left_ns), Relaxed);
    }

    /// Notes that a slice was used up. True if the call's time is up.
    pub(super) fn slice_ended(&self) -> bool {
        self.slices.store(self.slices() + 1, Relaxed);
        self.left_ns() == 0
    }

    pub(super) fn slices(&self) -> u64 {
        self.slices.load(Relaxed)
    }

    /// Returns nanoseconds since the request began, whole.
    pub(super) fn now_ns(&self) -> u64 {
        self.services.monotonic_ns().saturating_sub(self.began_ns)
    }

    const fn step(ns: u64) -> u64 {
        ns - ns % CLOCK_STEP_NS
    }
}

/// The clock as the guest sees it, coarsened.
pub(super) struct Seen(pub(super) Arc<Clock>);

impl HostMonotonicClock for Seen {
    fn resolution(&self) -> u64 {
        CLOCK_STEP_NS
    }

    fn now(&self) -> u64 {
        Clock::step(self.0.now_ns())
    }
}

impl HostWallClock for Seen {
    fn resolution(&self) -> Duration {
        Duration::from_nanos(CLOCK_STEP_NS)
    }

    fn now(&self) -> Duration {
        Duration::from_nanos(Clock::step(self.0.services.wall_ns()))
    }
}

/// Stands for our clock where interfaces are bound.
struct Timed;

/// What our clock needs of a store.
struct TimedView<'a> {
    clock: &'a Arc<Clock>,
    desk: &'a Desk,
    table: &'a mut ResourceTable,
}

impl HasData for Timed {
    type Data<'a> = TimedView<'a>;
}

fn view(context: &mut ComponentContext) -> TimedView<'_> {
    TimedView { clock: &context.clock, desk: &context.desk, table: &mut context.table }
}

/// Binds both clocks that can be waited for, in place of the engine's.
pub(super) fn add_to_linker(linker: &mut Linker<ComponentContext>) -> wasmtime::Result<()> {
    linker.allow_shadowing(true);
    p2::add_to_linker::<_, Timed>(linker, view)?;
    p3::add_to_linker::<_, Timed>(linker, view)?;
    linker.allow_shadowing(false);
    Ok(())
}

/// A time that a guest polls for.
struct Moment {
    desk: Desk,
    clock: Arc<Clock>,
    at_ns: u64,
}

#[wasmtime_wasi::async_trait]
impl Pollable for Moment {
    async fn ready(&mut self) {
        if self.clock.now_ns() < self.at_ns {
            self.desk.until(self.at_ns).await;
        }
    }
}

impl TimedView<'_> {
    fn subscribe(&mut self, at_ns: u64) -> wasmtime::Result<Resource<DynPollable>> {
        let (desk, clock) = (self.desk.clone(), Arc::clone(self.clock));
        let moment = self.table.push(Moment { desk, clock, at_ns })?;
        subscribe(self.table, moment)
    }

    fn seen_ns(&self) -> u64 {
        Clock::step(self.clock.now_ns())
    }
}

impl p2::Host for TimedView<'_> {
    fn now(&mut self) -> wasmtime::Result<p2::Instant> {
        Ok(self.seen_ns())
    }

    fn resolution(&mut self) -> wasmtime::Result<p2::Duration> {
        Ok(CLOCK_STEP_NS)
    }

    fn subscribe_instant(&mut self, when: p2::Instant) -> wasmtime::Result<Resource<DynPollable>> {
        self.subscribe(when)
    }

    fn subscribe_duration(
        &mut self,
        duration: p2::Duration,
    ) -> wasmtime::Result<Resource<DynPollable>> {
        let at_ns = self.clock.now_ns().saturating_add(duration);
        self.subscribe(at_ns)
    }
}

impl p3::Host for TimedView<'_> {
    fn now(&mut self) -> wasmtime::Result<p3::Mark> {
        Ok(self.seen_ns())
    }

    fn get_resolution(&mut self) -> wasmtime::Result<p3::Duration> {
        Ok(CLOCK_STEP_NS)
    }
}

impl p3::HostWithStore<ComponentContext> for Timed {
    async fn wait_until(
        store: &Accessor<ComponentContext, Self>,
        when: p3::Mark,
    ) -> wasmtime::Result<()> {
        let moment = store.with(|mut access| {
            let view = access.get();
            Moment { desk: view.desk.clone(), clock: Arc::clone(view.clock), at_ns: when }
        });
        let mut moment = moment;
        moment.ready().await;
        Ok(())
    }

    async fn wait_for(
        store: &Accessor<ComponentContext, Self>,
        duration: p3::Duration,
    ) -> wasmtime::Result<()> {
        let when = store.with(|mut access| access.get().clock.now_ns().saturating_add(duration));
        Self::wait_until(store, when).await
    }
}
