//! Mappings of this process, and the calls on them.
#![expect(unsafe_code, reason = "maps, protects and writes memory; the safe face is Slots")]

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd};
use std::ptr;

use crate::{PAGE_BYTES, Plan, WRITTEN};

/// How far apart slots are that are spread: a memory of 4 GiB and its guard.
const SPREAD_BYTES: usize = 6 << 30;

/// Slots in one reservation, side by side or spread, each as large as the image.
#[derive(Debug)]
pub(crate) struct Slots {
    // INVARIANT: a mapping of `count * stride` bytes, ours until drop; the first `size` bytes of each stride are
    // readable at all times, and any others inaccessible.
    start: *mut u8,
    size: usize,
    stride: usize,
    count: usize,
    image: Vec<u8>,
}

impl Slots {
    /// Makes anonymous slots, each filled with the image.
    pub(crate) fn filled(plan: &Plan) -> io::Result<Self> {
        let slots = Self::map(plan, None)?;
        for slot in 0..slots.count {
            slots.copy_back(slot, 0, slots.size);
        }
        Ok(slots)
    }

    /// Makes slots that are private mappings of a file.
    pub(crate) fn of_file(plan: &Plan, file: &File) -> io::Result<Self> {
        Self::map(plan, Some(file))
    }

    fn map(plan: &Plan, file: Option<&File>) -> io::Result<Self> {
        let (size, count) = (plan.image.len(), plan.slots);
        assert!(size > 0 && size.is_multiple_of(PAGE_BYTES), "an image is whole pages");
        let stride = if plan.is_spread { SPREAD_BYTES.max(size) } else { size };
        let length = stride.checked_mul(count).ok_or(io::ErrorKind::OutOfMemory)?;
        let access = libc::PROT_READ | libc::PROT_WRITE;
        let protection = if plan.is_spread { libc::PROT_NONE } else { access };
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
        // SAFETY: a new mapping at an address of the kernel's choice touches no memory of ours.
        let start = unsafe { libc::mmap(ptr::null_mut(), length, protection, flags, -1, 0) };
        if start == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let slots = Self { start: start.cast(), size, stride, count, image: plan.image.clone() };
        // Huge pages would make a write to one page dirty many.
        // SAFETY: the range is our own mapping; the advice changes no byte.
        unsafe { libc::madvise(start, length, libc::MADV_NOHUGEPAGE) };
        for slot in 0..if plan.is_spread { count } else { 0 } {
            // SAFETY: the range is a slot of our own mapping.
            check(unsafe { libc::mprotect(slots.page(slot, 0).cast(), size, access) })?;
        }
        if let Some(file) = file {
            for slot in 0..count {
                slots.map_over(slot, file)?;
            }
        }
        Ok(slots)
    }

    /// Maps the file over a slot, privately: what was written there is gone.
    pub(crate) fn map_over(&self, slot: usize, file: &File) -> io::Result<()> {
        let at = self.page(slot, 0).cast();
        let flags = libc::MAP_PRIVATE | libc::MAP_FIXED;
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: the range is a slot of our own mapping, and no reference to its bytes is held.
        let result = unsafe { libc::mmap(at, self.size, protection, flags, file.as_raw_fd(), 0) };
        if result == libc::MAP_FAILED { Err(io::Error::last_os_error()) } else { Ok(()) }
    }

    /// Makes the kernel forget what was written to a slot that is a private mapping of a file.
    pub(crate) fn forget(&self, slot: usize) -> io::Result<()> {
        // SAFETY: the range is a slot of our own mapping; its bytes become those of the file.
        let result =
            unsafe { libc::madvise(self.page(slot, 0).cast(), self.size, libc::MADV_DONTNEED) };
        check(result)
    }

    /// Makes a slot read-only.
    pub(crate) fn protect(&self, slot: usize) -> io::Result<()> {
        // SAFETY: the range is a slot of our own mapping.
        let result =
            unsafe { libc::mprotect(self.page(slot, 0).cast(), self.size, libc::PROT_READ) };
        check(result)
    }

    /// Makes a page of a slot read-only.
    pub(crate) fn protect_page(&self, slot: usize, page: usize) -> io::Result<()> {
        // SAFETY: the page is one of our own mapping.
        let result =
            unsafe { libc::mprotect(self.page(slot, page).cast(), PAGE_BYTES, libc::PROT_READ) };
        check(result)
    }

    /// Returns where a page of a slot begins.
    pub(crate) fn page(&self, slot: usize, page: usize) -> *mut u8 {
        assert!(slot < self.count && page * PAGE_BYTES < self.size, "a page of a slot");
        // SAFETY: within the mapping, by the assertion.
        unsafe { self.start.add(slot * self.stride + page * PAGE_BYTES) }
    }

    /// Returns the first byte and the size of all slots.
    pub(crate) fn range(&self) -> (usize, usize) {
        (self.start.addr(), self.stride * self.count)
    }

    /// Returns the first byte and the size of a slot.
    pub(crate) fn slot_range(&self, slot: usize) -> (usize, usize) {
        (self.page(slot, 0).addr(), self.size)
    }

    /// Returns the page of a slot in which an address lies.
    pub(crate) fn page_of(&self, slot: usize, address: usize) -> usize {
        (address - self.page(slot, 0).addr()) / PAGE_BYTES
    }

    /// Writes a word to each of these pages.
    #[inline]
    pub(crate) fn write(&self, slot: usize, pages: &[usize]) {
        for &page in pages {
            // SAFETY: in the mapping, aligned; a fault is handled by whoever has protected the page.
            unsafe { self.page(slot, page).add(64).cast::<u64>().write_volatile(WRITTEN) };
        }
    }

    /// Copies the image to so many bytes of a slot.
    #[inline]
    pub(crate) fn copy_back(&self, slot: usize, offset: usize, size: usize) {
        assert!(offset + size <= self.size, "bytes of a slot");
        let image = self.image[offset..offset + size].as_ptr();
        // SAFETY: both ranges have `size` bytes by the assertions, in different mappings; the slot's is
        // writable here, or its faults are handled.
        unsafe {
            ptr::copy_nonoverlapping(image, self.page(slot, 0).add(offset), size);
        }
    }

    /// Copies a page of the image back.
    #[inline]
    pub(crate) fn copy_page(&self, slot: usize, page: usize) {
        self.copy_back(slot, page * PAGE_BYTES, PAGE_BYTES);
    }

    /// Sets back the lines of a page that differ from the image.
    #[inline]
    pub(crate) fn set_lines_back(&self, slot: usize, page: usize) {
        const LINE_BYTES: usize = 64;
        for line in 0..PAGE_BYTES / LINE_BYTES {
            let offset = page * PAGE_BYTES + line * LINE_BYTES;
            if self.bytes(slot)[offset..offset + LINE_BYTES]
                != self.image[offset..offset + LINE_BYTES]
            {
                self.copy_back(slot, offset, LINE_BYTES);
            }
        }
    }

    /// Tells whether a slot holds the image.
    pub(crate) fn is_pristine(&self, slot: usize) -> bool {
        self.bytes(slot) == self.image
    }

    fn bytes(&self, slot: usize) -> &[u8] {
        // SAFETY: a slot's bytes are mapped and readable; nobody writes while the slice is held, for writes go
        // through `&self` methods that hold none.
        unsafe { std::slice::from_raw_parts(self.page(slot, 0), self.size) }
    }
}

impl Drop for Slots {
    fn drop(&mut self) {
        // SAFETY: our own mapping; nobody refers to it any more.
        let result = unsafe { libc::munmap(self.start.cast(), self.stride * self.count) };
        debug_assert_eq!(result, 0, "our own mapping can be unmapped");
    }
}

/// Makes a file in memory that holds the image.
pub(crate) fn file_of(plan: &Plan) -> io::Result<File> {
    use std::io::Write;
    // SAFETY: the name is a string with its end; the call touches no other memory.
    let descriptor = unsafe { libc::memfd_create(c"image".as_ptr(), libc::MFD_CLOEXEC) };
    check(descriptor)?;
    // SAFETY: the descriptor is new, open, and ours alone.
    let mut file = unsafe { File::from_raw_fd(descriptor) };
    file.write_all(&plan.image)?;
    Ok(file)
}

/// Turns a result of -1 into the error it stands for.
pub(crate) fn check(result: i32) -> io::Result<()> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
