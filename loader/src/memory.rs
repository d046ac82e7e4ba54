//! A slot's linear memory: it can be made pristine again without a system call.
//!
//! ```text
//!   template   | page 0 | page 1 | page 2 | ...            shared, never written
//!   slot       |   R    |   RW   |   R    | ... | none |   page 1 is on the dirty list
//!              0                          size   reservation and guard
//! ```
//!
//! The memory is mapped privately over its template, and open at first: the first call writes where it
//! likes, at the price of the kernel's own faults. When the slot is to be restored for the first time the
//! kernel is asked which pages were written (`pagemap.rs`); they go on the dirty list, and all others
//! become read-only. From then on the memory is watched: the first write to a page faults, the fault handler
//! makes that page writable and puts it on the list (`fault.rs`). Pages stay writable and on the list for
//! the life of the slot, so later requests fault no more, and a restore sets the listed pages back.
//!
//! Files that lie behind a memory's own bytes (`image.rs`) are readable from the start and never writable: they are
//! no pages of the list.
//!
//! Growth is virtual: the size goes back at the restore, and what was written beyond the template is zero again.
//! A guest that grows does so for each request, and touches the same pages behind the template each time. So these
//! stay with the slot, out of reach until it grows again:
//!
//! ```text
//!   grown      | opened: writable, zeroed at the restore | readable, a first write opens all up to it | none |
//!              template's size                                                                      size
//! ```
//!
//! Invariant: in a watched memory a page within the template's writable bytes is writable if and only if it is marked,
//! and it is on the dirty list if and only if it is marked. Behind the template a page below `opened` and below the
//! size is writable; whatever lies behind the size is zero, and accessible to nobody.
//!
//! Fields that the fault handler changes are atomics, since it interrupts whoever holds a reference; they
//! are used by one thread at a time, so relaxed loads and stores cost what plain ones do.
//!
//! Hot path: `mark`, `restore`.
#![expect(unsafe_code, reason = "maps and copies pages of guests; the safe face is SlotMemory")]

use std::cell::RefCell;
use std::io;
use std::mem::ManuallyDrop;
use std::ops::Range;
use std::os::fd::AsRawFd;
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering::Relaxed};

use wasmtime::{LinearMemory, MemoryCreator, MemoryType};

use crate::image::{MemoryImage, Placement};
use crate::mapping::{Mapping, PAGE_SIZE};
use crate::page::{Page, set_back};
use crate::pagemap;

/// Bits of one word of the marks.
const WORD_BITS: usize = u64::BITS as usize;

/// One linear memory of a slot.
#[derive(Debug)]
pub struct SlotMemory {
    // INVARIANT: there until `drop` takes it.
    reservation: ManuallyDrop<Mapping>,
    image: Arc<MemoryImage>,
    size: AtomicUsize,
    bytes_max: usize,
    marks: Box<[AtomicU64]>,
    // INVARIANT: the first `dirty_count` entries are distinct page indices below the template's writable pages.
    dirty: Box<[AtomicU32]>,
    dirty_count: AtomicUsize,
    /// Bytes behind the template that are writable once the memory has grown over them.
    opened: AtomicUsize,
    is_watched: AtomicBool,
    is_exhausted: AtomicBool,
}

/// So much behind the template stays with a slot; a request that writes further gives all of it back.
const OPENED_BYTES_MAX: usize = 1 << 20;

impl SlotMemory {
    fn new(image: &Arc<MemoryImage>, reserved: usize, bytes_max: usize) -> io::Result<Self> {
        let page_count = image.writable_bytes() / PAGE_SIZE;
        let memory = Self {
            reservation: ManuallyDrop::new(take_reservation(reserved, image.bytes())?),
            image: Arc::clone(image),
            size: AtomicUsize::new(image.bytes()),
            bytes_max,
            // SAFETY: an atomic that is zero has no byte but zero.
            marks: unsafe { Box::new_zeroed_slice(page_count.div_ceil(WORD_BITS)).assume_init() },
            // SAFETY: as above.
            dirty: unsafe { Box::new_zeroed_slice(page_count).assume_init() },
            dirty_count: AtomicUsize::new(0),
            opened: AtomicUsize::new(0),
            is_watched: AtomicBool::new(false),
            is_exhausted: AtomicBool::new(false),
        };
        memory.map_template(libc::PROT_READ | libc::PROT_WRITE)?;
        Ok(memory)
    }

    /// Returns the current size in bytes.
    #[must_use]
    pub fn size(&self) -> usize {
        self.size.load(Relaxed)
    }

    /// Returns the number of pages that a restore sets back. For a memory that is not watched yet the kernel
    /// is asked; 0 if it is too old to tell.
    #[must_use]
    pub fn dirty_page_count(&self) -> usize {
        if self.is_watched.load(Relaxed) {
            return self.dirty_count.load(Relaxed) + self.opened.load(Relaxed) / PAGE_SIZE;
        }
        let runs = self.written().unwrap_or_default();
        runs.iter().map(|run| run.len() / PAGE_SIZE).sum()
    }

    /// Returns the runs of bytes whose pages were written, by the kernel's account.
    fn written(&self) -> io::Result<Vec<Range<usize>>> {
        let base = self.base().as_ptr().addr();
        let runs = pagemap::written(base..base + self.image.writable_bytes())?;
        Ok(runs.into_iter().map(|run| run.start - base..run.end - base).collect())
    }

    /// Begins to watch the memory, if that is not done yet: what was written goes on the list, and all else
    /// becomes read-only. Where the kernel cannot tell, the template is mapped anew.
    ///
    /// # Errors
    /// Those of the system calls; the slot is to be discarded then.
    pub(crate) fn watch(&self) -> io::Result<()> {
        if self.is_watched.load(Relaxed) {
            return Ok(());
        }
        match self.written() {
            Ok(runs) => self.close_all_but(&runs)?,
            Err(_) => self.map_template(libc::PROT_READ)?,
        }
        // Nobody has seen which grown pages were written: all of them may have been.
        self.opened.store(self.size() - self.image.bytes(), Relaxed);
        self.is_watched.store(true, Relaxed);
        Ok(())
    }

    fn close_all_but(&self, runs: &[Range<usize>]) -> io::Result<()> {
        let mut closed = 0;
        let end = self.image.writable_bytes();
        let behind_all = end..end;
        for run in runs.iter().chain(std::iter::once(&behind_all)) {
            if closed < run.start && !self.protect(closed, run.start - closed, libc::PROT_READ) {
                return Err(io::Error::last_os_error());
            }
            closed = run.end;
            for page in run.start / PAGE_SIZE..run.end / PAGE_SIZE {
                self.list(page);
            }
        }
        Ok(())
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
        if !self.is_watched.load(Relaxed) || self.size() <= offset {
            return false;
        }
        let is_writable = match offset.checked_sub(self.image.bytes()) {
            None if self.image.writable_bytes() <= offset => return false,
            None if self.is_marked(offset / PAGE_SIZE) => return false,
            None => self.mark(offset / PAGE_SIZE),
            Some(behind) if behind < self.opened.load(Relaxed) => return false,
            Some(behind) => self.open_to(behind + 1),
        };
        if !is_writable {
            self.is_exhausted.store(true, Relaxed);
        }
        is_writable
    }

    /// Makes what the memory has grown by writable up to a place behind the template.
    fn open_to(&self, behind: usize) -> bool {
        let (start, opened) = (self.image.bytes(), self.opened.load(Relaxed));
        let end = behind.next_multiple_of(PAGE_SIZE);
        if end <= opened {
            return true;
        }
        let is_open = self.make_writable(start + opened, end - opened);
        if is_open {
            self.opened.store(end, Relaxed);
        }
        is_open
    }

    /// Makes every page of a range writable and puts it on the dirty list, for a write by the host while
    /// no call is active: such a write would not reach the fault handler.
    ///
    /// Returns false if the machine is out of mappings or memory.
    ///
    /// # Panics
    /// If the range lies outside the memory.
    #[must_use]
    pub fn mark_range(&self, range: Range<usize>) -> bool {
        assert!(range.start <= range.end && range.end <= self.size(), "checked by the caller");
        let (files, template) = (self.image.writable_bytes(), self.image.bytes());
        if range.start < template && files < range.end.min(template) {
            // No module that was linked here asks for that; a forged one is refused as if there were no room.
            return false;
        }
        if !self.is_watched.load(Relaxed) {
            return true;
        }
        let pages =
            range.start.min(template) / PAGE_SIZE..range.end.min(template).div_ceil(PAGE_SIZE);
        pages.into_iter().all(|page| self.is_marked(page) || self.mark(page))
            && (range.end <= template || self.open_to(range.end - template))
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
        if !self.make_writable(0, self.image.writable_bytes()) {
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

    /// Sets the dirty pages back and undoes growth. Returns true if the size changed, so that the
    /// engine's copy of it has to be renewed.
    ///
    /// # Errors
    /// Those of the system calls that give grown pages back, or of [`SlotMemory::watch`]; the slot is to be
    /// discarded then.
    ///
    /// # Cost
    /// Linear in dirty pages (`bench/benches/restore.rs`). No fault and no system call, unless the memory
    /// grew, or this is its first restore.
    pub(crate) fn restore(&self) -> io::Result<bool> {
        self.watch()?;
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

    /// Takes growth back.
    fn shrink(&self) -> io::Result<()> {
        let (start, end) = (self.image.bytes(), self.size());
        let opened = self.opened.load(Relaxed);
        if opened > OPENED_BYTES_MAX {
            // Frees the grown pages and takes every access away in one call.
            self.reservation.close(start..end.max(start + opened))?;
            self.opened.store(0, Relaxed);
        } else {
            for offset in (start..end.min(start + opened)).step_by(PAGE_SIZE) {
                // SAFETY: the page lies below size and `opened`, so it is in the reservation and writable;
                // the caller holds the slot, so the guest is not running.
                let target = unsafe { &mut *self.base().as_ptr().add(offset).cast::<Page>() };
                set_back(target, None);
            }
            if !self.protect(start, end - start, libc::PROT_NONE) {
                return Err(io::Error::last_os_error());
            }
        }
        self.size.store(start, Relaxed);
        Ok(())
    }

    /// Makes what the memory grows by accessible.
    fn grow(&self, size: usize) -> bool {
        let current = self.size();
        if !self.is_watched.load(Relaxed) {
            return self.make_writable(current, size - current);
        }
        let opened = self.image.bytes() + self.opened.load(Relaxed);
        let writable = current..size.min(opened).max(current);
        let readable = writable.end..size;
        (writable.is_empty() || self.make_writable(writable.start, writable.len()))
            && (readable.is_empty()
                || self.protect(readable.start, readable.len(), libc::PROT_READ))
    }

    /// Maps the template over the memory: what was written there is gone.
    fn map_template(&self, protection: i32) -> io::Result<()> {
        if self.image.bytes() == 0 {
            return Ok(());
        }
        // SAFETY: MAP_FIXED replaces the start of our own reservation; the guest is not running.
        let result = unsafe {
            libc::mmap(
                self.base().as_ptr().cast(),
                self.image.bytes(),
                protection,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE | libc::MAP_FIXED,
                -1,
                0,
            )
        };
        if result == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        self.image.placements().try_for_each(|placement| self.map(&placement, protection))?;
        let (start, end) = (self.image.writable_bytes(), self.image.bytes());
        if start < end && !self.protect(start, end - start, libc::PROT_READ) {
            return Err(io::Error::last_os_error());
        }
        Ok(())
    }

    fn map(&self, placement: &Placement<'_>, protection: i32) -> io::Result<()> {
        let offset = i64::try_from(placement.offset).map_err(|_| io::ErrorKind::InvalidInput)?;
        // SAFETY: `start + length` is at most the memory's size (`MemoryImage::all` checked the rows), so
        // MAP_FIXED replaces pages of our own reservation alone.
        let result = unsafe {
            libc::mmap(
                self.base().as_ptr().add(placement.start).cast(),
                placement.length,
                protection,
                libc::MAP_PRIVATE | libc::MAP_FIXED,
                placement.file.as_raw_fd(),
                offset,
            )
        };
        if result == libc::MAP_FAILED { Err(io::Error::last_os_error()) } else { Ok(()) }
    }

    fn make_writable(&self, offset: usize, length: usize) -> bool {
        // SAFETY: errno's location is valid for the thread's life.
        let errno = unsafe { *libc::__errno_location() };
        let is_done = self.protect(offset, length, libc::PROT_READ | libc::PROT_WRITE);
        // SAFETY: as above. A fault can interrupt any code, which finds errno as it was.
        unsafe { *libc::__errno_location() = errno };
        is_done
    }

    /// Async-signal-safe.
    fn protect(&self, offset: usize, length: usize, protection: i32) -> bool {
        // SAFETY: callers pass whole pages inside the reservation. Their protection changes, and no byte.
        let result =
            unsafe { libc::mprotect(self.base().as_ptr().add(offset).cast(), length, protection) };
        result == 0
    }
}

impl Drop for SlotMemory {
    fn drop(&mut self) {
        let accessible = self.size().max(self.image.bytes() + self.opened.load(Relaxed));
        // SAFETY: taken here alone, and the value is not used again.
        let reservation = unsafe { ManuallyDrop::take(&mut self.reservation) };
        keep_reservation(KeptReservation { reservation, accessible });
    }
}

/// A reservation of an instance that is gone. Its pages are as they were left, and are replaced or closed
/// before anybody can look at them again.
struct KeptReservation {
    reservation: Mapping,
    accessible: usize,
}

/// Reservations that a thread keeps. To make and to drop one costs two calls of the kernel and the tables
/// of its pages, which are as large for 4 GiB that hold one page.
const RESERVATIONS_KEPT_MAX: usize = 16;
/// Those with more accessible bytes are not kept: their pages are worth more than the calls.
const KEPT_BYTES_MAX: usize = 4 << 20;

thread_local! {
    static KEPT: RefCell<Vec<KeptReservation>> = const { RefCell::new(Vec::new()) };
}

fn keep_reservation(kept: KeptReservation) {
    if kept.accessible <= KEPT_BYTES_MAX {
        // A thread that ends has no place for it any more; the mapping unmaps itself then.
        let _gone = KEPT.try_with(|all| {
            let mut all = all.borrow_mut();
            if all.len() < RESERVATIONS_KEPT_MAX {
                all.push(kept);
            }
        });
    }
}

/// Returns a reservation of which at most the first `replaced` bytes are accessible: the caller maps them
/// anew.
fn take_reservation(length: usize, replaced: usize) -> io::Result<Mapping> {
    let fits = |kept: &KeptReservation| kept.reservation.length() == length;
    let kept = KEPT.with_borrow_mut(|all| all.pop_if(|kept| fits(kept)));
    let Some(KeptReservation { reservation, accessible }) = kept else {
        return Mapping::reserve(length);
    };
    if replaced < accessible {
        reservation.close(replaced..accessible)?;
    }
    Ok(reservation)
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
        if current < size && !memory.grow(size) {
            let error = io::Error::last_os_error();
            // Some of it may be accessible by now, and what lies behind the size must not be.
            memory.reservation.close(current..size).expect("access can be taken away");
            return Err(error.into());
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

#[cfg(test)]
mod tests {
    use midge_abi::manifest::{FilesRow, MemoryRow};

    use super::*;
    use crate::mapping::{Access, FileMapping, sealed_file};

    const WASM_PAGE: usize = 65536;
    const RESERVED: usize = 16 << 20;

    /// A memory of so many pages of WebAssembly, the first filled with a byte.
    fn memory(pages: usize, byte: u8) -> SlotMemory {
        let file = Arc::new(sealed_file(&vec![byte; WASM_PAGE]).unwrap());
        let view = Arc::new(FileMapping::new(&file, 0, WASM_PAGE, Access::Read).unwrap());
        let bytes = (pages * WASM_PAGE) as u64;
        let row =
            MemoryRow { bytes, bytes_max: None, image_start: 0, image_bytes: WASM_PAGE as u64 };
        let images = MemoryImage::all(&file, &view, 0..WASM_PAGE as u64, &[row], None).unwrap();
        SlotMemory::new(&images[0], RESERVED, RESERVED).unwrap()
    }

    #[test]
    fn files_are_read_and_never_written() {
        let content = [vec![1; WASM_PAGE], vec![7; 2 * PAGE_SIZE]].concat();
        let file = Arc::new(sealed_file(&content).unwrap());
        let view = Arc::new(FileMapping::new(&file, 0, content.len(), Access::Read).unwrap());
        let image_bytes = WASM_PAGE as u64;
        let bytes = 4 * image_bytes;
        let row = MemoryRow { bytes, bytes_max: Some(bytes), image_start: 0, image_bytes };
        let files = FilesRow { start: 2 * image_bytes, bytes: 5000, folders: Vec::new() };
        let section = 0..content.len() as u64;
        let images = MemoryImage::all(&file, &view, section, &[row], Some(&files)).unwrap();
        let memory = SlotMemory::new(&images[0], RESERVED, 4 * WASM_PAGE).unwrap();
        for watched in [false, true] {
            if watched {
                assert!(!memory.restore().unwrap());
            }
            let at = |offset: usize| memory.base().as_ptr().addr() + offset;
            for offset in [2 * WASM_PAGE, 2 * WASM_PAGE + 5000, 4 * WASM_PAGE - 1] {
                let expected = if offset < 2 * WASM_PAGE + 2 * PAGE_SIZE { 7 } else { 0 };
                assert_eq!(byte_at(&memory, offset), Some(expected));
                assert!(!memory.first_write(at(offset)) && !memory.is_exhausted());
                assert!(!memory.mark_range(offset..offset + 1));
            }
            assert!(!memory.mark_range(2 * WASM_PAGE - 1..2 * WASM_PAGE + 1));
            write(&memory, 2 * WASM_PAGE - 1, 9);
            assert_eq!(memory.first_write(at(5)), watched, "the first of this page");
        }
        assert!(!memory.restore().unwrap());
        assert_eq!(byte_at(&memory, 2 * WASM_PAGE - 1), Some(0));
        assert_eq!(memory.dirty_page_count(), 2);
        assert_eq!(memory.dirty.len(), 2 * WASM_PAGE / PAGE_SIZE);
    }

    /// Reads a byte by way of the kernel: `None` if nobody may.
    fn byte_at(memory: &SlotMemory, offset: usize) -> Option<u8> {
        let mut byte = [0u8];
        let local = libc::iovec { iov_base: byte.as_mut_ptr().cast(), iov_len: 1 };
        let address = memory.base().as_ptr().wrapping_add(offset);
        let remote = libc::iovec { iov_base: address.cast(), iov_len: 1 };
        // SAFETY: both lists have one entry; the kernel checks the remote address itself.
        let read = unsafe {
            libc::process_vm_readv(libc::getpid(), &raw const local, 1, &raw const remote, 1, 0)
        };
        (read == 1).then_some(byte[0])
    }

    fn write(memory: &SlotMemory, offset: usize, byte: u8) {
        assert!(memory.mark_range(offset..offset + 1));
        // SAFETY: inside the memory, writable since it was marked, and nobody else looks at it.
        unsafe { memory.base().as_ptr().add(offset).write_volatile(byte) };
    }

    #[test]
    fn a_first_restore_finds_what_was_written_before_it_watched() {
        let memory = memory(4, 3);
        for offset in [0, 5 * PAGE_SIZE, 3 * WASM_PAGE + 9] {
            write(&memory, offset, 99);
        }
        assert_eq!(memory.dirty_page_count(), 3, "by the kernel's account");
        assert!(!memory.restore().unwrap());
        assert_eq!(memory.dirty_page_count(), 3, "by our own");
        assert_eq!(byte_at(&memory, 0), Some(3));
        assert_eq!(byte_at(&memory, 5 * PAGE_SIZE), Some(3));
        assert_eq!(byte_at(&memory, 3 * WASM_PAGE + 9), Some(0));
        write(&memory, 7 * PAGE_SIZE, 99);
        memory.restore().unwrap();
        assert_eq!((memory.dirty_page_count(), byte_at(&memory, 7 * PAGE_SIZE)), (4, Some(3)));
    }

    #[test]
    fn huge_pages_and_swapped_ones_are_set_back() {
        let memory = memory(128, 3);
        let advise = |advice| {
            // SAFETY: advice for the memory's own range; its content stays.
            unsafe { libc::madvise(memory.base().as_ptr().cast(), memory.size(), advice) }
        };
        // Refused where the kernel has none: then the pages are small, and the test shows less.
        let _refused = advise(libc::MADV_HUGEPAGE);
        let last = 127 * WASM_PAGE + 5;
        for round in 0..3 {
            for offset in [0, 40 * WASM_PAGE + 1, 90 * WASM_PAGE, last] {
                assert!(memory.dirty_page_count() <= 128 * WASM_PAGE / PAGE_SIZE);
                write(&memory, offset, 99);
            }
            if round == 1 {
                assert_eq!(advise(libc::MADV_PAGEOUT), 0);
            }
            memory.restore().unwrap();
            for offset in 0..WASM_PAGE {
                assert_eq!(byte_at(&memory, offset), Some(3), "round {round}, byte {offset}");
            }
            for offset in [40 * WASM_PAGE + 1, 90 * WASM_PAGE, last] {
                assert_eq!(byte_at(&memory, offset), Some(0), "round {round}, byte {offset}");
            }
        }
    }

    #[test]
    fn more_runs_than_a_scan_returns_are_set_back() {
        let memory = memory(32, 3);
        let offsets = || (0..32 * WASM_PAGE).step_by(2 * PAGE_SIZE);
        for offset in offsets() {
            write(&memory, offset, 99);
        }
        memory.restore().unwrap();
        assert_eq!(memory.dirty_page_count(), 256);
        for offset in offsets() {
            let fresh = if offset < WASM_PAGE { 3 } else { 0 };
            assert_eq!(byte_at(&memory, offset), Some(fresh), "byte {offset}");
        }
    }

    #[test]
    fn a_kept_reservation_shows_nothing_of_its_last_user() {
        let large = memory(8, 3);
        let base = large.base();
        write(&large, 9, 99);
        write(&large, 7 * WASM_PAGE, 99);
        drop(large);
        let small = memory(2, 4);
        assert_eq!(small.base(), base, "kept");
        assert_eq!(byte_at(&small, 9), Some(4), "the new template");
        assert_eq!(byte_at(&small, WASM_PAGE), Some(0));
        assert_eq!(byte_at(&small, 2 * WASM_PAGE), None, "behind its end");
        assert_eq!(byte_at(&small, 7 * WASM_PAGE), None, "where the other one wrote");
    }

    #[test]
    fn growth_is_zero_and_out_of_reach_after_each_restore() {
        let memory = Arc::new(memory(1, 3));
        let mut handle = Handle(Arc::clone(&memory));
        memory.restore().unwrap();
        let far = 20 * WASM_PAGE;
        for (pages, places) in [
            (3, vec![0, 9000]),
            (2, vec![WASM_PAGE - 1]),
            (5, vec![3 * WASM_PAGE + 1, 100]),
            (5, vec![]),
            (30, vec![far + 7]),
            (3, vec![4, 5000]),
        ] {
            handle.grow_to(pages * WASM_PAGE).unwrap();
            for behind in (0..(pages - 1) * WASM_PAGE).step_by(1024) {
                assert_eq!(byte_at(&memory, WASM_PAGE + behind), Some(0), "{pages}: {behind}");
            }
            for &behind in &places {
                let address = memory.base().as_ptr().addr() + WASM_PAGE + behind;
                // As a guest's write: it faults where nothing was written before.
                let _is_first = memory.first_write(address);
                write(&memory, WASM_PAGE + behind, 99);
                assert_eq!(byte_at(&memory, WASM_PAGE + behind), Some(99));
            }
            assert!(memory.restore().unwrap(), "the size changed");
            assert_eq!(memory.size(), WASM_PAGE);
            for behind in (0..35 * WASM_PAGE).step_by(PAGE_SIZE) {
                assert_eq!(byte_at(&memory, WASM_PAGE + behind), None, "{pages}: {behind}");
            }
        }
    }

    #[test]
    fn growth_is_closed_for_the_next_user_too() {
        let grown = Arc::new(memory(1, 3));
        Handle(Arc::clone(&grown)).grow_to(5 * WASM_PAGE).unwrap();
        assert_eq!(byte_at(&grown, 4 * WASM_PAGE), Some(0));
        drop(grown);
        let next = memory(1, 3);
        assert_eq!(byte_at(&next, 4 * WASM_PAGE), None);
    }
}
