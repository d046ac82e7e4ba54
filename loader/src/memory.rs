//! A slot's linear memory: it can be made pristine again without a system call.
//!
//! ```text
//!   template   | page 0 | page 1 | page 2 | ...            shared, never written
//!   slot       |   R    |   RW   |   R    | ... | none |   page 1 is on the dirty list
//!              0                          size   reservation and guard
//! ```
//!
//! The memory is mapped privately over its template, readable. The first write to a page faults; the fault
//! handler makes that page writable and puts it on the dirty list (`fault.rs`). Pages stay writable and on
//! the list for the life of the slot, so later requests fault no more, and a restore copies the listed
//! pages back from the template.
//!
//! Growth is virtual: grown pages are given back at the restore, and the size with them.
//!
//! Invariant: within the template's size a page is writable if and only if it is marked, and it is on the
//! dirty list if and only if it is marked.
//!
//! Fields that the fault handler changes are atomics, since it interrupts whoever holds a reference; they
//! are used by one thread at a time, so relaxed loads and stores cost what plain ones do.
//!
//! Hot path: `mark`, `restore`.
#![expect(unsafe_code, reason = "maps and copies pages of guests; the safe face is SlotMemory")]

use std::cell::RefCell;
use std::io;
use std::os::fd::AsRawFd;
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering::Relaxed};

use wasmtime::{LinearMemory, MemoryCreator, MemoryType};

use crate::image::MemoryImage;
use crate::mapping::{Mapping, PAGE_SIZE};
use crate::page::{Page, set_back};

/// Bits of one word of the marks.
const WORD_BITS: usize = u64::BITS as usize;

/// One linear memory of a slot.
#[derive(Debug)]
pub struct SlotMemory {
    reservation: Mapping,
    image: Arc<MemoryImage>,
    size: AtomicUsize,
    bytes_max: usize,
    marks: Box<[AtomicU64]>,
    // INVARIANT: the first `dirty_count` entries are distinct page indices below the template's page count.
    dirty: Box<[AtomicU32]>,
    dirty_count: AtomicUsize,
    is_exhausted: AtomicBool,
}

impl SlotMemory {
    fn new(image: &Arc<MemoryImage>, reserved: usize, bytes_max: usize) -> io::Result<Self> {
        let page_count = image.bytes() / PAGE_SIZE;
        let memory = Self {
            reservation: Mapping::reserve(reserved)?,
            image: Arc::clone(image),
            size: AtomicUsize::new(image.bytes()),
            bytes_max,
            marks: (0..page_count.div_ceil(WORD_BITS)).map(|_| AtomicU64::new(0)).collect(),
            dirty: (0..page_count).map(|_| AtomicU32::new(0)).collect(),
            dirty_count: AtomicUsize::new(0),
            is_exhausted: AtomicBool::new(false),
        };
        memory.map_template()?;
        Ok(memory)
    }

    /// Returns the current size in bytes.
    #[must_use]
    pub fn size(&self) -> usize {
        self.size.load(Relaxed)
    }

    /// Returns the number of pages that a restore copies.
    #[must_use]
    pub fn dirty_page_count(&self) -> usize {
        self.dirty_count.load(Relaxed)
    }

    /// True if a page could not be made writable since the last restore: the machine is out of mappings
    /// (`vm.max_map_count`) or memory, and the guest trapped for it.
    #[must_use]
    pub fn is_exhausted(&self) -> bool {
        self.is_exhausted.load(Relaxed)
    }

    pub(crate) fn base(&self) -> NonNull<u8> {
        self.reservation.base()
    }

    /// Takes a fault at `address`: true if it was the first write to a page of ours, which is now
    /// writable.
    ///
    /// Async-signal-safe: it reads and writes atomics of `self` and calls mprotect.
    pub(crate) fn first_write(&self, address: usize) -> bool {
        let offset = address.wrapping_sub(self.base().as_ptr().addr());
        offset < self.image.bytes() && !self.is_marked(offset / PAGE_SIZE) && {
            let is_writable = self.mark(offset / PAGE_SIZE);
            if !is_writable {
                self.is_exhausted.store(true, Relaxed);
            }
            is_writable
        }
    }

    /// Makes every page of a range writable and puts it on the dirty list, for a write by the host while
    /// no call is active: such a write would not reach the fault handler.
    ///
    /// Returns false if the machine is out of mappings or memory.
    ///
    /// # Panics
    /// If the range lies outside the template's size.
    #[must_use]
    pub fn mark_range(&self, range: std::ops::Range<usize>) -> bool {
        assert!(
            range.start <= range.end && range.end <= self.image.bytes(),
            "checked by the caller"
        );
        let pages = range.start / PAGE_SIZE..range.end.div_ceil(PAGE_SIZE);
        pages.into_iter().all(|page| self.is_marked(page) || self.mark(page))
    }

    fn is_marked(&self, page: usize) -> bool {
        self.marks[page / WORD_BITS].load(Relaxed) & (1 << (page % WORD_BITS)) != 0
    }

    fn mark(&self, page: usize) -> bool {
        if self.make_writable(page * PAGE_SIZE, PAGE_SIZE) {
            self.list(page);
            return true;
        }
        self.mark_all()
    }

    /// Each writable run costs mappings, and their number is bounded. When one page is refused, the whole
    /// memory becomes one run, which needs fewer than there are now.
    #[cold]
    fn mark_all(&self) -> bool {
        if !self.make_writable(0, self.image.bytes()) {
            return false;
        }
        for page in 0..self.dirty.len() {
            if !self.is_marked(page) {
                self.list(page);
            }
        }
        true
    }

    fn list(&self, page: usize) {
        let count = self.dirty_count.load(Relaxed);
        // Not `expect`: this runs in a signal handler, where a panic's message could not be made. The
        // index is in range, since a page is listed once.
        #[expect(clippy::cast_possible_truncation, reason = "a memory of 4 GiB has 2^20 pages")]
        self.dirty[count].store(page as u32, Relaxed);
        self.dirty_count.store(count + 1, Relaxed);
        let word = &self.marks[page / WORD_BITS];
        word.store(word.load(Relaxed) | 1 << (page % WORD_BITS), Relaxed);
    }

    /// Copies the dirty pages back and undoes growth. Returns true if the size changed, so that the
    /// engine's copy of it has to be renewed.
    ///
    /// # Errors
    /// Those of the system calls that give grown pages back; the slot is to be discarded then.
    ///
    /// # Cost
    /// Linear in dirty pages (`bench/benches/restore.rs`). No fault and no system call, unless the memory
    /// grew.
    pub(crate) fn restore(&self) -> io::Result<bool> {
        self.is_exhausted.store(false, Relaxed);
        let count = self.dirty_count.load(Relaxed);
        for page in &self.dirty[..count] {
            self.restore_page(page.load(Relaxed) as usize);
        }
        if self.size() == self.image.bytes() {
            return Ok(false);
        }
        self.shrink()?;
        Ok(true)
    }

    fn restore_page(&self, page: usize) {
        assert!(page < self.dirty.len(), "the list holds pages of the template");
        // SAFETY: `page` lies in the template's size (asserted), which lies in the reservation; it is
        // writable, for it is on the dirty list; the caller holds the slot, so the guest is not running.
        let target = unsafe { &mut *self.base().as_ptr().add(page * PAGE_SIZE).cast::<Page>() };
        set_back(target, self.image.page(page));
    }

    #[cold]
    fn shrink(&self) -> io::Result<()> {
        let start = self.image.bytes();
        let length = self.size() - start;
        // SAFETY: the range lies in the reservation and behind the template: only grown pages are in it.
        let target = unsafe { self.base().as_ptr().add(start) };
        // A new reservation over the grown pages frees them and takes every access away in one call.
        // SAFETY: MAP_FIXED replaces exactly pages of our own reservation; the guest is not running.
        let result = unsafe {
            libc::mmap(
                target.cast(),
                length,
                libc::PROT_NONE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE | libc::MAP_FIXED,
                -1,
                0,
            )
        };
        if result == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        self.size.store(start, Relaxed);
        Ok(())
    }

    fn map_template(&self) -> io::Result<()> {
        if self.image.bytes() == 0 {
            return Ok(());
        }
        // SAFETY: the range is the start of our own reservation, which nobody uses yet.
        let result = unsafe {
            libc::mprotect(self.base().as_ptr().cast(), self.image.bytes(), libc::PROT_READ)
        };
        if result != 0 {
            return Err(io::Error::last_os_error());
        }
        let placement = self.image.placement();
        if placement.length == 0 {
            return Ok(());
        }
        let offset = i64::try_from(placement.offset).map_err(|_| io::ErrorKind::InvalidInput)?;
        // SAFETY: `start + length` is at most the memory's size (`MemoryImage::all` checked the row), so
        // MAP_FIXED replaces pages of our own reservation alone.
        let result = unsafe {
            libc::mmap(
                self.base().as_ptr().add(placement.start).cast(),
                placement.length,
                libc::PROT_READ,
                libc::MAP_PRIVATE | libc::MAP_FIXED,
                placement.file.as_raw_fd(),
                offset,
            )
        };
        if result == libc::MAP_FAILED { Err(io::Error::last_os_error()) } else { Ok(()) }
    }

    /// Async-signal-safe, and leaves `errno` as it was: a fault can interrupt any code.
    fn make_writable(&self, offset: usize, length: usize) -> bool {
        // SAFETY: errno's location is valid for the thread's life.
        let errno = unsafe { *libc::__errno_location() };
        // SAFETY: callers pass whole pages inside the reservation. Making pages writable changes no byte.
        let result = unsafe {
            libc::mprotect(
                self.base().as_ptr().add(offset).cast(),
                length,
                libc::PROT_READ | libc::PROT_WRITE,
            )
        };
        // SAFETY: as above.
        unsafe { *libc::__errno_location() = errno };
        result == 0
    }
}

/// The engine's handle of a slot's memory.
struct Handle(Arc<SlotMemory>);

// SAFETY: `as_ptr` is constant for the memory's life; the bytes up to `byte_size` are accessible (readable at
// once, writable through the fault handler), those up to the reservation's end fault, as reserve and guard
// were asked for in full.
unsafe impl LinearMemory for Handle {
    fn byte_size(&self) -> usize {
        self.0.size()
    }

    fn byte_capacity(&self) -> usize {
        self.0.bytes_max
    }

    fn grow_to(&mut self, size: usize) -> wasmtime::Result<()> {
        let memory = &*self.0;
        let current = memory.size();
        if size > memory.bytes_max {
            return Err(io::Error::from(io::ErrorKind::OutOfMemory).into());
        }
        if current < size && !memory.make_writable(current, size - current) {
            return Err(io::Error::last_os_error().into());
        }
        memory.size.store(size, Relaxed);
        Ok(())
    }

    fn as_ptr(&self) -> *mut u8 {
        self.0.base().as_ptr()
    }
}

/// The memories of one instance, in index order; empty where the engine allocates them.
pub type SlotMemories = Arc<[Arc<SlotMemory>]>;

/// Makes memories over the templates that [`with_templates`] names.
#[derive(Debug)]
pub struct SlotMemoryCreator;

/// The memories to be made on this thread.
struct Wanted {
    images: Arc<[Arc<MemoryImage>]>,
    made: Vec<Arc<SlotMemory>>,
}

thread_local! {
    // The engine's callback knows the type of a memory and not the instance it is for.
    static WANTED: RefCell<Option<Wanted>> = const { RefCell::new(None) };
}

/// Runs `instantiate`, whose memories are mapped over these templates, and returns the memories in order.
///
/// # Panics
/// If called within itself.
pub(crate) fn with_templates<R>(
    images: &Arc<[Arc<MemoryImage>]>,
    instantiate: impl FnOnce() -> R,
) -> (R, SlotMemories) {
    let made = Vec::with_capacity(images.len());
    let outer = WANTED.replace(Some(Wanted { images: Arc::clone(images), made }));
    assert!(outer.is_none(), "an instance is not made within another's making");
    let result = instantiate();
    let wanted = WANTED.take().expect("set above");
    (result, wanted.made.into())
}

// SAFETY: a memory made here has the reservation and the guard that were asked for, all of it reserved and
// none of it accessible beyond the memory's size; it is aligned to a page.
unsafe impl MemoryCreator for SlotMemoryCreator {
    fn new_memory(
        &self,
        _type: MemoryType,
        minimum: usize,
        maximum: Option<usize>,
        reserved: Option<usize>,
        guard: usize,
    ) -> Result<Box<dyn LinearMemory>, String> {
        WANTED.with_borrow_mut(|wanted| {
            let wanted = wanted.as_mut().ok_or("no template is named for this memory")?;
            let image =
                wanted.images.get(wanted.made.len()).ok_or("more memories than templates")?;
            if image.bytes() != minimum {
                return Err(format!(
                    "memory of {minimum} bytes, its template has {}",
                    image.bytes()
                ));
            }
            let capacity = reserved.unwrap_or(minimum).max(minimum);
            let bytes_max = maximum.unwrap_or(capacity).min(capacity);
            let memory = SlotMemory::new(image, capacity + guard, bytes_max)
                .map_err(|error| format!("memory cannot be mapped: {error}"))?;
            let memory = Arc::new(memory);
            wanted.made.push(Arc::clone(&memory));
            Ok(Box::new(Handle(memory)) as Box<dyn LinearMemory>)
        })
    }
}
