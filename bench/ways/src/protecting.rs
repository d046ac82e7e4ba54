//! Writes fault, and the handler notes the page.
//!
//! A handler of signals has no arguments of ours, so what it needs stands in statics: where the slots of the one
//! protecting way of this process lie, and the list of addresses that were written.
#![expect(unsafe_code, reason = "handles signals; the safe face is Guard")]

use std::fs::File;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::AsRawFd;
use std::ptr;
use std::sync::atomic::{AtomicI32, AtomicUsize, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard};

use crate::mapping::{Slots, check};
use crate::watching::{protect, protect_again, unprotect};
use crate::{FEW_PAGES, PAGE_BYTES, Plan, Way};

/// Pages that one cycle may write.
const LIST_MAX: usize = 1 << 16;

static START: AtomicUsize = AtomicUsize::new(0);
static SIZE: AtomicUsize = AtomicUsize::new(0);
/// The userfaultfd that protects, or -1: then it is mprotect.
static DESCRIPTOR: AtomicI32 = AtomicI32::new(-1);
static COUNT: AtomicUsize = AtomicUsize::new(0);
static LIST: [AtomicUsize; LIST_MAX] = [const { AtomicUsize::new(0) }; LIST_MAX];
/// One way at a time has the handler.
static OWNER: Mutex<()> = Mutex::new(());

/// The handler, for one range of memory.
pub(crate) struct Guard {
    _owner: MutexGuard<'static, ()>,
}

impl Guard {
    /// Takes the handler for a range; `descriptor` is the userfaultfd that protects it, if one does.
    pub(crate) fn take((start, size): (usize, usize), descriptor: Option<i32>) -> io::Result<Self> {
        let owner = OWNER.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        START.store(start, Relaxed);
        SIZE.store(size, Relaxed);
        DESCRIPTOR.store(descriptor.unwrap_or(-1), Relaxed);
        COUNT.store(0, Relaxed);
        for signal in [libc::SIGSEGV, libc::SIGBUS] {
            let mut action = MaybeUninit::<libc::sigaction>::zeroed();
            // SAFETY: zeroed bytes are a `sigaction`; its handler is a function of the kind that SA_SIGINFO asks
            // for, lives as long as the program, and calls what is safe in signals alone.
            unsafe {
                let action = action.assume_init_mut();
                action.sa_sigaction = written as *const () as usize;
                action.sa_flags = libc::SA_SIGINFO | libc::SA_NODEFER | libc::SA_ONSTACK;
                check(libc::sigaction(signal, action, ptr::null_mut()))?;
            }
        }
        Ok(Self { _owner: owner })
    }

    /// Takes the addresses that were written since the last time.
    pub(crate) fn drain(&self) -> impl Iterator<Item = usize> {
        let count = COUNT.swap(0, Relaxed);
        LIST[..count].iter().map(|address| address.load(Relaxed))
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        SIZE.store(0, Relaxed);
    }
}

/// Notes the page and makes it writable. Async-signal-safe: atomics, mprotect and ioctl.
extern "C" fn written(
    signal: libc::c_int,
    info: *mut libc::siginfo_t,
    _context: *mut libc::c_void,
) {
    // SAFETY: the kernel passes the information of a fault, which has an address.
    let address = unsafe { (*info).si_addr() }.addr();
    let start = START.load(Relaxed);
    let count = COUNT.load(Relaxed);
    if address.wrapping_sub(start) >= SIZE.load(Relaxed) || count == LIST_MAX {
        // Not ours: it happens again, and ends the process as if we were not here.
        // SAFETY: the default action may be set from a handler.
        unsafe { libc::signal(signal, libc::SIG_DFL) };
        return;
    }
    let page = address & !(PAGE_BYTES - 1);
    LIST[count].store(page, Relaxed);
    COUNT.store(count + 1, Relaxed);
    let descriptor = DESCRIPTOR.load(Relaxed);
    let is_done = if descriptor < 0 {
        let at = ptr::with_exposed_provenance_mut(page);
        // SAFETY: a page of the slots, whose owner gave them to the handler.
        let result = unsafe { libc::mprotect(at, PAGE_BYTES, libc::PROT_READ | libc::PROT_WRITE) };
        result == 0
    } else {
        unprotect(descriptor, page, PAGE_BYTES).is_ok()
    };
    if !is_done {
        // SAFETY: ends the process: it could not go on.
        unsafe { libc::abort() };
    }
}

/// What makes writes fault.
#[derive(Debug)]
pub(crate) enum Shield {
    /// Protection of the mapping.
    Mprotect,
    /// Write protection of its pages; ends when the descriptor is closed.
    Userfaultfd(File),
}

impl Shield {
    /// Protects all slots, and takes the handler.
    pub(crate) fn raise(self, slots: Slots, count: usize) -> io::Result<Shielded> {
        let descriptor = match &self {
            Self::Mprotect => None,
            Self::Userfaultfd(file) => Some(file.as_raw_fd()),
        };
        let guard = Guard::take(slots.range(), descriptor)?;
        for slot in 0..count {
            self.protect(&slots, slot)?;
        }
        Ok(Shielded { guard, shield: self, slots })
    }

    fn protect(&self, slots: &Slots, slot: usize) -> io::Result<()> {
        match self {
            Self::Mprotect => slots.protect(slot),
            Self::Userfaultfd(file) => protect(file, slots.slot_range(slot)),
        }
    }

    /// Protects again what was written: page by page while those are few, else the whole slot at once.
    fn protect_again(&self, slots: &Slots, slot: usize, written: &[usize]) -> io::Result<()> {
        match self {
            Self::Mprotect if written.len() < FEW_PAGES => {
                written.iter().try_for_each(|page| slots.protect_page(slot, *page))
            }
            Self::Mprotect => slots.protect(slot),
            Self::Userfaultfd(file) => protect_again(file, slots, slot, written),
        }
    }
}

/// Slots whose first writes are noted.
pub(crate) struct Shielded {
    // Dropped before the slots: the handler is off then.
    guard: Guard,
    shield: Shield,
    slots: Slots,
}

impl Shielded {
    /// Returns the pages of a slot that were written since the last time.
    fn written(&self, slot: usize) -> impl Iterator<Item = usize> {
        self.guard.drain().map(move |address| self.slots.page_of(slot, address))
    }
}

/// A slot is protected again after each cycle.
pub(crate) struct EachTime {
    slots: Shielded,
    written: Vec<usize>,
}

impl EachTime {
    pub(crate) fn over(slots: Shielded) -> Box<dyn Way> {
        Box::new(Self { slots, written: Vec::new() })
    }
}

impl Way for EachTime {
    fn cycle(&mut self, slot: usize, pages: &[usize]) -> io::Result<()> {
        let Self { slots, written } = self;
        slots.slots.write(slot, pages);
        written.clear();
        written.extend(slots.written(slot));
        for &page in written.iter() {
            slots.slots.copy_page(slot, page);
        }
        slots.shield.protect_again(&slots.slots, slot, written)
    }

    fn is_pristine(&self, slot: usize) -> bool {
        self.slots.slots.is_pristine(slot)
    }
}

/// A page that was written once stays writable and on its slot's list: the way of `restore`.
pub(crate) struct Kept {
    slots: Shielded,
    lists: Vec<Vec<usize>>,
}

impl Kept {
    pub(crate) fn over(slots: Shielded, count: usize) -> Box<dyn Way> {
        Box::new(Self { slots, lists: vec![Vec::new(); count] })
    }
}

impl Way for Kept {
    fn cycle(&mut self, slot: usize, pages: &[usize]) -> io::Result<()> {
        self.slots.slots.write(slot, pages);
        let list = &mut self.lists[slot];
        list.extend(self.slots.written(slot));
        for &page in list.iter() {
            self.slots.slots.set_lines_back(slot, page);
        }
        Ok(())
    }

    fn is_pristine(&self, slot: usize) -> bool {
        self.slots.slots.is_pristine(slot)
    }
}

/// Makes the way in which a slot is made read-only after each cycle.
pub(crate) fn each_time(plan: &Plan) -> io::Result<Box<dyn Way>> {
    Ok(EachTime::over(Shield::Mprotect.raise(Slots::filled(plan)?, plan.slots)?))
}

/// Makes the way of the kept list.
pub(crate) fn kept(plan: &Plan) -> io::Result<Box<dyn Way>> {
    Ok(Kept::over(Shield::Mprotect.raise(Slots::filled(plan)?, plan.slots)?, plan.slots))
}
