//! A slot and its life, in types: serving from a slot that is not pristine does not compile.
//!
//! ```text
//!              Template                      call              resume
//!                 | start                  +------- Running <--------+
//!                 v          call          |           |             |
//!              Pristine -------------------+           +--(a slice)--+  or Waiting, until it is answered
//!                 ^                        |           |
//!                 |                        v           v
//!                 +------- restore ------ Used <-------+
//!                                          | discard (a state that cannot be undone, or a failed restore)
//!                                          v
//!                                         gone
//! ```
//!
//! Invariant: a [`Pristine`] is made by a start and by [`Used::restore`] alone; its state is that of a fresh
//! instance by everything a guest can observe.
//!
//! Hot path: `area`, `call`, `memory`, `restore`.

use crate::context::RequestContext;
use crate::drive::{CallEnd, Driver};
use crate::instance::{Sizes, StateSnapshot};
use crate::wait::{Ask, AskFault};

use midge_abi::response::GuestRange;

/// Why a slot is not used again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
#[repr(u8)]
pub enum Discard {
    /// The technique makes a new instance for every request: nothing is wrong.
    ByTechnique,
    /// The restore failed: a system call or the engine refused.
    RestoreFailed,
    /// The call was given up while it was suspended: its fiber cannot be undone.
    Abandoned,
    /// The machine refused to make a page writable: mappings or memory are short.
    Exhausted,
    /// The slot has become heavy: it holds more dirty pages than its pool keeps.
    Heavy,
    /// It was idle, and gave its place to a slot of a function that was called later.
    GaveWay,
}

impl Discard {
    /// All reasons, in order.
    pub const ALL: [Self; 6] = [
        Self::ByTechnique,
        Self::RestoreFailed,
        Self::Abandoned,
        Self::Exhausted,
        Self::Heavy,
        Self::GaveWay,
    ];

    /// Returns the name under which the reason is counted.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::ByTechnique => "by_technique",
            Self::RestoreFailed => "restore_failed",
            Self::Abandoned => "abandoned",
            Self::Exhausted => "exhausted",
            Self::Heavy => "heavy",
            Self::GaveWay => "gave_way",
        }
    }

    /// Returns the position in [`Discard::ALL`].
    #[must_use]
    pub const fn index(self) -> usize {
        self as usize
    }
}

/// A slot in the state of a fresh instance.
pub struct Pristine(Box<Driver>);

/// A slot whose call used up its slice and waits to go on.
pub struct Running(Box<Driver>);

/// A slot whose call waits for its request or its client.
pub struct Waiting(Box<Driver>, Ask);

/// A slot that has served: its memory holds the response, and whatever the guest left.
pub struct Used {
    // Dropped before the driver: a trap's backtrace refers to the module, whose code may lie in a mapping
    // that goes with the instance.
    end: CallEnd,
    driver: Box<Driver>,
}

/// Where a call has got to.
pub enum Progress {
    /// It ended.
    Done(Used),
    /// It goes on later.
    Suspended(Running),
    /// It goes on when it is answered.
    Waiting(Waiting),
}

impl Pristine {
    pub(crate) fn new(driver: Driver) -> Self {
        Self(Box::new(driver))
    }

    /// Returns the region where a request is written: `size` bytes from the area's address on.
    ///
    /// Returns `None` if the machine is out of mappings or memory.
    pub fn area(&mut self, address: u32, size: usize) -> Option<&mut [u8]> {
        self.0.area(address, size)
    }

    /// Calls the guest's function for a request that was written to the area.
    #[must_use]
    pub fn call(mut self, request: RequestContext, address: u32, size: usize) -> Progress {
        let end = self.0.call(request, address, size);
        progress(self.0, end)
    }

    /// Returns all observable state, for proofs.
    pub fn inspect(&mut self) -> StateSnapshot {
        self.0.inspect()
    }
}

impl Running {
    /// Lets the call go on for a slice.
    #[must_use]
    pub fn resume(mut self) -> Progress {
        let end = self.0.resume();
        progress(self.0, end)
    }
}

impl Waiting {
    /// Returns what the call waits for.
    #[must_use]
    pub const fn ask(&self) -> Ask {
        self.1
    }

    /// Returns the guest's memory, every byte a claim.
    #[must_use]
    pub fn memory(&self) -> &[u8] {
        self.0.memory()
    }

    /// Returns the region where what is read goes to.
    ///
    /// Returns `None` if the machine is out of mappings or memory.
    ///
    /// # Panics
    /// If the region lies outside the memory; that of an ask lies inside.
    pub fn region(&mut self, region: GuestRange, size: usize) -> Option<&mut [u8]> {
        self.0.area(region.address, size.min(midge_abi::width::index(region.size)))
    }

    /// Answers, and lets the call go on for a slice.
    #[must_use]
    pub fn answer(mut self, answer: Result<u32, AskFault>) -> Progress {
        self.0.answer(answer);
        let end = self.0.resume();
        progress(self.0, end)
    }
}

#[inline]
fn progress(driver: Box<Driver>, end: Option<CallEnd>) -> Progress {
    if let Some(end) = end {
        return Progress::Done(Used { end, driver });
    }
    match driver.ask() {
        Some(ask) => Progress::Waiting(Waiting(driver, ask)),
        None => Progress::Suspended(Running(driver)),
    }
}

impl Used {
    /// Returns how the call ended.
    #[must_use]
    pub const fn end(&self) -> &CallEnd {
        &self.end
    }

    /// Returns the guest's memory: the response is in it, every byte a claim.
    #[must_use]
    pub fn memory(&self) -> &[u8] {
        self.driver.memory()
    }

    /// Returns the number of pages that the slot has on its dirty lists; 0 where the engine keeps them.
    #[must_use]
    pub fn dirty_page_count(&self) -> usize {
        self.driver.memories().iter().map(|memory| memory.dirty_page_count()).sum()
    }

    /// Returns how many instructions the call ran, where its code counts them.
    #[must_use]
    pub fn fuel_used(&self) -> Option<u64> {
        self.driver.fuel_used()
    }

    /// True if a trap came from the machine being out of mappings, not from the guest.
    #[must_use]
    pub fn is_exhausted(&self) -> bool {
        self.driver.memories().iter().any(|memory| memory.is_exhausted())
    }

    /// Returns all observable state, for proofs.
    pub fn inspect(&mut self) -> StateSnapshot {
        self.driver.inspect()
    }

    /// Begins to watch which pages are written, if that is not done yet: the first call of a slot is not.
    ///
    /// # Errors
    /// Those of the system calls.
    pub(crate) fn watch(&self) -> std::io::Result<()> {
        self.driver.memories().iter().try_for_each(|memory| memory.watch())
    }

    /// Makes the slot pristine: dirty pages, sizes and globals as the template has them.
    ///
    /// # Errors
    /// [`Discard::RestoreFailed`] if a system call or the engine refused; the slot is gone then.
    ///
    /// # Cost
    /// See `SlotMemory::restore`; a few nanoseconds for each mutable global on top.
    pub(crate) fn restore(mut self) -> Result<Pristine, Discard> {
        let mut sizes = Sizes::Kept;
        for memory in self.driver.memories() {
            if memory.restore().map_err(|_| Discard::RestoreFailed)? {
                sizes = Sizes::Changed;
            }
        }
        self.driver.reset_later(sizes);
        Ok(Pristine(self.driver))
    }

    /// Hands the slot out again as it is. For `reuse` alone, which promises no isolation.
    pub(crate) fn keep(self) -> Pristine {
        Pristine(self.driver)
    }
}
