//! Drives one instance: owns its store, and runs what it is ordered to run on a fiber.
//!
//! The engine's asynchronous call borrows the store while it is suspended. So the store lives inside one
//! long-lived future, made with the instance, that takes orders from a mailbox:
//!
//! ```text
//!   worker                     mailbox                    future
//!   order + poll  ----------->  order  ---------------->  call on a fiber, under epochs
//!                 <-----------  end    <----------------  returned | trapped | deadline
//!                 (or no end: the call used up its slice and is polled again later)
//! ```
//!
//! No allocation of ours is made for a call. The engine makes one, for the fiber's entry.
//!
//! Invariant: guest code runs inside `poll` alone. So whoever holds a [`Driver`] by reference may look at
//! the guest's memory.
//!
//! Hot path: `call`, `resume`, `reset`, `memory`.
#![expect(unsafe_code, reason = "views the guest's memory; the safe face is Driver")]

use std::cell::Cell;
use std::future::poll_fn;
use std::pin::Pin;
use std::ptr::NonNull;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use midge_abi::width::{index, wire};

use crate::component::Served;
use crate::context::RequestContext;
use crate::instance::{Instance, Sizes, StartError, StateSnapshot};
use crate::memory::{SlotMemories, SlotMemory};
use crate::wait::{Ask, AskCell, AskFault};

/// A trap with its backtrace: `{:?}` shows both.
pub type Trap = wasmtime::Error;

/// How a call ended.
#[derive(Debug)]
pub enum CallEnd {
    /// The guest returned the address of its response.
    Returned(u32),
    /// The guest trapped.
    Trapped(Trap),
    /// The guest ran past its deadline and was stopped.
    DeadlineExceeded,
    /// It used up the instructions that it may run.
    FuelExhausted,
    /// The machine had no stack for the call, which did not begin.
    NoStack,
}

/// What the future is to do when it is polled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Order {
    Call,
    Inspect,
}

/// What became of the order; nothing while a call is suspended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Returned,
    Trapped,
    DeadlineExceeded,
    FuelExhausted,
    NoStack,
    Inspected,
}

/// Worker and future hand each other single words: a structure that is written in one width and moved in
/// another waits for the store buffer, and several such moves cost more than the guest's entry.
#[derive(Default)]
struct Mailbox {
    order: Cell<Option<Order>>,
    /// A reset that was put off is done with the next order: the guest cannot tell the difference, and a
    /// restore costs no round through the future.
    is_reset_due: Cell<bool>,
    have_sizes_changed: Cell<bool>,
    request_id: Cell<[u8; 16]>,
    began_ns: Cell<u64>,
    time_ns: Cell<u64>,
    address: Cell<u32>,
    size: Cell<u32>,

    end: Cell<Option<End>>,
    response: Cell<u32>,
    /// Instructions that the call ran, where they are counted.
    fuel_used: Cell<Option<u64>>,
    trap: Cell<Option<Trap>>,
    snapshot: Cell<Option<StateSnapshot>>,

    base: Cell<Option<NonNull<u8>>>,
    /// Of the first memory, where the engine allocates it.
    memory_bytes: Cell<usize>,
    failure: Cell<Option<StartError>>,
}

impl Mailbox {
    /// Waits for an order.
    async fn order(&self) -> Order {
        poll_fn(|_| self.order.take().map_or(Poll::Pending, Poll::Ready)).await
    }

    /// Returns the request of a call.
    fn request(&self) -> RequestContext {
        RequestContext {
            request_id: self.request_id.get(),
            began_ns: self.began_ns.get(),
            time_ns: self.time_ns.get(),
        }
    }

    /// Leaves how a call ended.
    fn end_of(&self, called: CallEnd) -> End {
        match called {
            CallEnd::Returned(response) => {
                self.response.set(response);
                End::Returned
            }
            CallEnd::Trapped(trap) => {
                self.trap.set(Some(trap));
                End::Trapped
            }
            CallEnd::DeadlineExceeded => End::DeadlineExceeded,
            CallEnd::FuelExhausted => End::FuelExhausted,
            CallEnd::NoStack => End::NoStack,
        }
    }
}

/// One instance and the future that owns it.
pub(crate) struct Driver {
    future: Pin<Box<dyn Future<Output = ()>>>,
    mailbox: Rc<Mailbox>,
    // INVARIANT: the address of the guest's first memory, which never moves (`memory_may_move(false)`, and
    // our own reservations), and lives as long as the store inside `future`.
    base: NonNull<u8>,
    memories: SlotMemories,
    asks: Option<Arc<AskCell>>,
    is_idle: bool,
}

impl Driver {
    /// Starts an instance. Start-up code that the instance has to run itself runs here, bounded by
    /// [`crate::instance::START_DEADLINE_NS`].
    ///
    /// # Errors
    /// [`StartError`] of the instance.
    pub(crate) fn start(
        memories: SlotMemories,
        asks: Option<Arc<AskCell>>,
        start: impl Future<Output = Result<Instance, StartError>> + 'static,
    ) -> Result<Self, StartError> {
        let mailbox = Rc::new(Mailbox::default());
        let mut future: Pin<Box<dyn Future<Output = ()>>> =
            Box::pin(drive(Rc::clone(&mailbox), memories.is_empty(), start));
        // Pending without a base: start-up has used up a slice. The instance's own deadline bounds this.
        let base = loop {
            let polled = future.as_mut().poll(&mut Context::from_waker(Waker::noop()));
            match (mailbox.base.get(), mailbox.failure.take()) {
                (Some(base), _) => break base,
                (None, Some(failure)) => return Err(failure),
                (None, None) => assert!(polled.is_pending(), "a start ends with one of both"),
            }
        };
        Ok(Self { future, mailbox, base, memories, asks, is_idle: true })
    }

    /// Takes a component that the engine runs, of which nothing runs before its call.
    pub(crate) fn of_component(component: Served, asks: Arc<AskCell>) -> Self {
        let mailbox = Rc::new(Mailbox::default());
        mailbox.memory_bytes.set(component.memory_bytes());
        let base = component.memory_base();
        let future = Box::pin(drive_component(Rc::clone(&mailbox), component));
        Self { future, mailbox, base, memories: Arc::new([]), asks: Some(asks), is_idle: true }
    }

    /// Calls the guest's function. `None` means that the call is suspended: [`Driver::resume`] goes on.
    pub(crate) fn call(
        &mut self,
        request: RequestContext,
        address: u32,
        size: usize,
    ) -> Option<CallEnd> {
        assert!(self.is_idle, "one call at a time");
        self.is_idle = false;
        if let Some(asks) = &self.asks {
            asks.clear();
        }
        let mailbox = &*self.mailbox;
        mailbox.request_id.set(request.request_id);
        mailbox.began_ns.set(request.began_ns);
        mailbox.time_ns.set(request.time_ns);
        mailbox.address.set(address);
        mailbox.size.set(wire(size));
        mailbox.order.set(Some(Order::Call));
        self.resume()
    }

    /// Runs a suspended call for another slice.
    pub(crate) fn resume(&mut self) -> Option<CallEnd> {
        assert!(!self.is_idle, "only a call that is under way is resumed");
        let end = match self.poll()? {
            End::Returned => CallEnd::Returned(self.mailbox.response.get()),
            End::Trapped => CallEnd::Trapped(self.mailbox.trap.take().expect("left with the end")),
            End::DeadlineExceeded => CallEnd::DeadlineExceeded,
            End::FuelExhausted => CallEnd::FuelExhausted,
            End::NoStack => CallEnd::NoStack,
            End::Inspected => unreachable!("the order was a call"),
        };
        self.is_idle = true;
        Some(end)
    }

    /// Returns how many instructions the last call ran, where they are counted.
    pub(crate) fn fuel_used(&self) -> Option<u64> {
        self.mailbox.fuel_used.get()
    }

    /// Returns what a suspended call waits for; nothing if it only used up its slice.
    pub(crate) fn ask(&self) -> Option<Ask> {
        let (ask, memory_bytes) = self.asks.as_ref()?.get()?;
        if self.memories.is_empty() {
            self.mailbox.memory_bytes.set(memory_bytes);
        }
        Some(ask)
    }

    /// Answers what a call waits for; it goes on with the next [`Driver::resume`].
    pub(crate) fn answer(&self, answer: Result<u32, AskFault>) {
        self.asks.as_ref().expect("there was an ask").answer(answer);
    }

    /// True if no call is under way, or the one that is waits.
    fn is_at_rest(&self) -> bool {
        self.is_idle || self.asks.as_ref().is_some_and(|asks| asks.get().is_some())
    }

    /// Lets the next order set the mutable globals to the template's values first, and take up sizes that
    /// changed.
    pub(crate) fn reset_later(&mut self, sizes: Sizes) {
        assert!(self.is_idle, "no reset while a call is under way");
        self.mailbox.is_reset_due.set(true);
        if sizes == Sizes::Changed {
            self.mailbox.have_sizes_changed.set(true);
        }
    }

    /// Returns all observable state.
    pub(crate) fn inspect(&mut self) -> StateSnapshot {
        assert!(self.is_idle, "no look while a call is under way");
        self.mailbox.order.set(Some(Order::Inspect));
        loop {
            match self.poll() {
                Some(End::Inspected) => break,
                // A probe of a segment was preempted: it is a few instructions, the next slice ends it.
                None => {}
                Some(_) => unreachable!("the order was a look"),
            }
        }
        self.mailbox.snapshot.take().expect("left with the end")
    }

    /// Returns the guest's first memory.
    pub(crate) fn memory(&self) -> &[u8] {
        assert!(self.is_at_rest(), "the guest is not running");
        // SAFETY: the first `size` bytes from `base` are readable as long as the store lives, which `self`
        // owns. Guest code runs in `poll` alone, which takes `&mut self`: nobody writes while this borrow
        // lasts.
        unsafe { std::slice::from_raw_parts(self.base.as_ptr(), self.size()) }
    }

    /// Returns the region of the first memory where a request is written, its pages writable.
    ///
    /// Returns `None` if the machine is out of mappings or memory.
    ///
    /// # Panics
    /// If the region lies outside the memory: the contract's area was checked when it was built.
    pub(crate) fn area(&mut self, address: u32, size: usize) -> Option<&mut [u8]> {
        assert!(self.is_at_rest(), "the guest is not running");
        let start = index(address);
        assert!(start + size <= self.size(), "the area lies inside the memory");
        if let Some(memory) = self.memories.first()
            && !memory.mark_range(start..start + size)
        {
            return None;
        }
        // SAFETY: as in `memory`; `&mut self` excludes every other borrow. The pages are writable: marked
        // just now, or of a memory that the engine made writable as a whole.
        Some(unsafe { std::slice::from_raw_parts_mut(self.base.as_ptr().add(start), size) })
    }

    /// Returns the memories that were made by us; empty for an instance of the engine's own allocators.
    pub(crate) fn memories(&self) -> &[Arc<SlotMemory>] {
        &self.memories
    }

    fn size(&self) -> usize {
        self.memories
            .first()
            .map_or_else(|| self.mailbox.memory_bytes.get(), |memory| memory.size())
    }

    fn poll(&mut self) -> Option<End> {
        let polled = self.future.as_mut().poll(&mut Context::from_waker(Waker::noop()));
        assert!(polled.is_pending(), "a driver takes orders for ever");
        self.mailbox.end.take()
    }
}

async fn drive(
    mailbox: Rc<Mailbox>,
    is_memory_the_engines: bool,
    start: impl Future<Output = Result<Instance, StartError>>,
) {
    let mut instance = match start.await {
        Ok(instance) => instance,
        Err(failure) => return mailbox.failure.set(Some(failure)),
    };
    mailbox.memory_bytes.set(instance.memory_bytes());
    mailbox.base.set(Some(instance.memory_base()));
    loop {
        let order = mailbox.order().await;
        if mailbox.have_sizes_changed.replace(false) {
            instance.read_sizes_again();
        }
        let is_reset_due = mailbox.is_reset_due.replace(false);
        let end = match order {
            Order::Call => {
                if is_reset_due {
                    instance.reset_for_call();
                }
                let request = mailbox.request();
                let called =
                    instance.call(request, mailbox.address.get(), mailbox.size.get()).await;
                if is_memory_the_engines {
                    mailbox.memory_bytes.set(instance.memory_bytes());
                }
                if instance.is_fueled() {
                    mailbox.fuel_used.set(instance.fuel_used());
                }
                mailbox.end_of(called)
            }
            Order::Inspect => {
                if is_reset_due {
                    instance.reset_globals();
                }
                mailbox.snapshot.set(Some(instance.inspect().await));
                End::Inspected
            }
        };
        mailbox.end.set(Some(end));
    }
}

async fn drive_component(mailbox: Rc<Mailbox>, mut component: Served) {
    loop {
        let end = match mailbox.order().await {
            Order::Call => {
                let request = mailbox.request();
                let called =
                    component.call(request, mailbox.address.get(), mailbox.size.get()).await;
                mailbox.end_of(called)
            }
            Order::Inspect => {
                // There is an instance during its call alone.
                mailbox.snapshot.set(Some(StateSnapshot::default()));
                End::Inspected
            }
        };
        mailbox.end.set(Some(end));
    }
}
