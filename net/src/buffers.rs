//! Receive buffers lent to the kernel through a buffer ring (Linux 5.19).
//!
//! ```text
//!   entries   | address size id | address size id | ... |      read by the kernel up to `tail`
//!   memory    |  buffer 0  |  buffer 1  |  buffer 2  | ...     one mapping, `size` bytes each
//!
//!   kernel's --(completion: lent)--> ours --(recycle, then publish)--> kernel's
//! ```
//!
//! The kernel takes them in the order of the queue, so all that are in it are gone through in turn, however few
//! are needed at a time, and each is cold when it is filled. Hence only some are offered at first, and twice as
//! many each time that a receive finds none.
//!
//! Invariant: every buffer is the kernel's or ours, as `lent` says; a slice is only made of one that is ours.
//! Not here: which connection holds a buffer.
//! Hot path: `bytes`, `recycle`, `publish`.
#![expect(unsafe_code, reason = "shares memory with the kernel; the safe face is Buffers")]

use std::io;
use std::ptr::{self, NonNull};
use std::slice;
use std::sync::atomic::{AtomicU16, Ordering};

use io_uring::Submitter;
use io_uring::types::BufRingEntry;

use crate::ring::BufferId;
use crate::width::index;

/// Pages of the machine: what mappings are aligned to.
const PAGE_SIZE: usize = 4096;

/// A private anonymous mapping.
#[derive(Debug)]
struct Mapping {
    start: NonNull<u8>,
    size: usize,
}

impl Mapping {
    fn new(size: usize) -> io::Result<Self> {
        let size = size.next_multiple_of(PAGE_SIZE);
        // SAFETY: an anonymous mapping at an address of the kernel's choice touches no memory of ours.
        let address = unsafe {
            libc::mmap(
                ptr::null_mut(),
                size,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
                -1,
                0,
            )
        };
        if address == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let start = NonNull::new(address.cast::<u8>()).ok_or(io::ErrorKind::OutOfMemory)?;
        Ok(Self { start, size })
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: `start` and `size` are those of our mapping, which nobody else unmaps. The owner of
        // `Buffers` drops it only after the ring has no operation left that could write to it.
        let result = unsafe { libc::munmap(self.start.as_ptr().cast(), self.size) };
        debug_assert_eq!(result, 0, "our own mapping can be unmapped");
    }
}

/// All receive buffers of one ring.
#[derive(Debug)]
pub(crate) struct Buffers {
    // INVARIANT: page-aligned, `count` entries of 16 bytes.
    entries: Mapping,
    // INVARIANT: `count` times `size` bytes.
    memory: Mapping,
    /// A bit per buffer: set while it is ours.
    lent: Vec<u64>,
    count: u16,
    size: u32,
    tail: u16,
    /// Those below this number have been in the queue; the others were never offered, and count as ours.
    offered: u16,
}

/// Buffers that are offered at first: few enough to stay in a processor's cache, small requests being in their
/// first lines.
const OFFERED_FIRST: u16 = 64;

/// The group that receives name.
pub(crate) const GROUP: u16 = 0;

impl Buffers {
    /// Maps `count` buffers of `size` bytes; `count` is a power of two.
    pub(crate) fn new(count: u16, size: u32) -> io::Result<Self> {
        assert!(count.is_power_of_two(), "the kernel masks positions");
        let entries = Mapping::new(usize::from(count) * size_of::<BufRingEntry>())?;
        let memory = Mapping::new(usize::from(count) * index(size))?;
        let lent = vec![u64::MAX; usize::from(count).div_ceil(64)];
        let mut buffers = Self { entries, memory, lent, count, size, tail: 0, offered: 0 };
        buffers.offer(OFFERED_FIRST.min(count));
        Ok(buffers)
    }

    /// Offers as many as are offered already, as long as there are some. Returns how many.
    pub(crate) fn offer_more(&mut self) -> u32 {
        let more = self.offered.min(self.count - self.offered);
        self.offer(more);
        more.into()
    }

    fn offer(&mut self, more: u16) {
        for buffer in self.offered..self.offered + more {
            self.recycle(BufferId(buffer));
        }
        self.offered += more;
        self.publish();
    }

    /// Tells the kernel about the buffers.
    ///
    /// # Safety
    /// `self` must not be dropped before the ring has been closed or has no receive left.
    pub(crate) unsafe fn register(&self, submitter: &Submitter<'_>) -> io::Result<()> {
        let address = self.entries.start.as_ptr().expose_provenance();
        // SAFETY: the mapping is page-aligned, has `count` entries, and lives as long as the caller
        // promises. The memory behind the entries is the kernel's to write until it is lent to us.
        unsafe {
            submitter.register_buf_ring_with_flags(
                crate::width::wide(address),
                self.count,
                GROUP,
                0,
            )
        }
    }

    /// Takes note that the kernel has filled this buffer: it is ours until recycled.
    #[inline]
    pub(crate) fn lend(&mut self, buffer: BufferId) {
        let (word, bit) = self.place(buffer);
        assert!(self.lent[word] & bit == 0, "the kernel fills buffers of its own alone");
        self.lent[word] |= bit;
    }

    /// Returns the bytes of a buffer that is ours.
    #[inline]
    pub(crate) fn bytes(&self, buffer: BufferId) -> &[u8] {
        let offset = self.lent_offset(buffer);
        // SAFETY: `offset` is that of a whole buffer inside the mapping, which was zeroed at birth and lives
        // as long as `self`. The buffer is lent: the kernel has consumed its entry and writes to it no
        // more until it is published again. Changing it takes `&mut self`.
        unsafe { slice::from_raw_parts(self.memory.start.as_ptr().add(offset), index(self.size)) }
    }

    /// Returns the bytes of a buffer that is ours, to be changed.
    #[inline]
    pub(crate) fn bytes_mut(&mut self, buffer: BufferId) -> &mut [u8] {
        let offset = self.lent_offset(buffer);
        // SAFETY: as in `bytes`; the exclusive borrow of `self` keeps others from making a second slice.
        unsafe {
            slice::from_raw_parts_mut(self.memory.start.as_ptr().add(offset), index(self.size))
        }
    }

    #[inline]
    fn lent_offset(&self, buffer: BufferId) -> usize {
        let (word, bit) = self.place(buffer);
        assert!(self.lent[word] & bit != 0, "a buffer is read while it is lent");
        usize::from(buffer.0) * index(self.size)
    }

    /// Puts a buffer of ours into the queue; the kernel sees it after [`Buffers::publish`].
    #[inline]
    pub(crate) fn recycle(&mut self, buffer: BufferId) {
        let (word, bit) = self.place(buffer);
        assert!(self.lent[word] & bit != 0, "a buffer is given back once");
        self.lent[word] &= !bit;
        let position = usize::from(self.tail & (self.count - 1));
        let offset = usize::from(buffer.0) * index(self.size);
        // SAFETY: `position < count` and `offset` is inside the memory mapping. The entry at `position` is
        // not the kernel's to read: at most `count` buffers are queued at a time, since each is queued
        // only when it was ours, so the kernel's head has passed it. The tail overlaps the reserved
        // field of entry 0 and is not touched by the setters.
        unsafe {
            let address = self.memory.start.as_ptr().add(offset).expose_provenance();
            let entry = self.entries.start.as_ptr().cast::<BufRingEntry>().add(position);
            (*entry).set_addr(crate::width::wide(address));
            (*entry).set_len(self.size);
            (*entry).set_bid(buffer.0);
        }
        self.tail = self.tail.wrapping_add(1);
    }

    /// Lets the kernel see what was recycled.
    #[inline]
    pub(crate) fn publish(&mut self) {
        let entries = self.entries.start.as_ptr().cast::<BufRingEntry>();
        // SAFETY: `entries` points to the first entry of the ring, in a mapping that lives as long as `self`.
        // The tail is a `u16` that the kernel reads with acquire; nobody but us writes it.
        let tail = unsafe { AtomicU16::from_ptr(BufRingEntry::tail(entries).cast_mut()) };
        tail.store(self.tail, Ordering::Release);
    }

    #[inline]
    fn place(&self, buffer: BufferId) -> (usize, u64) {
        assert!(buffer.0 < self.count, "buffer ids are below the count");
        (usize::from(buffer.0 / 64), 1 << (buffer.0 % 64))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_do_not_overlap() {
        let mut buffers = Buffers::new(8, 100).unwrap();
        for id in 0..8 {
            buffers.lend(BufferId(id));
            buffers.bytes_mut(BufferId(id)).fill(u8::try_from(id).unwrap());
        }
        for id in 0..8 {
            let expected = u8::try_from(id).unwrap();
            assert!(buffers.bytes(BufferId(id)).iter().all(|&byte| byte == expected));
        }
    }

    #[test]
    fn more_are_offered_until_all_are() {
        let mut buffers = Buffers::new(256, 64).unwrap();
        assert_eq!(buffers.tail, OFFERED_FIRST);
        assert_eq!(
            [buffers.offer_more(), buffers.offer_more(), buffers.offer_more()],
            [64, 128, 0]
        );
        assert_eq!(buffers.tail, 256);
        assert_eq!(Buffers::new(8, 64).unwrap().tail, 8);
    }

    #[test]
    #[should_panic(expected = "given back once")]
    fn a_buffer_given_back_twice_is_a_bug() {
        let mut buffers = Buffers::new(2, 64).unwrap();
        buffers.lend(BufferId(1));
        buffers.recycle(BufferId(1));
        buffers.recycle(BufferId(1));
    }

    #[test]
    #[should_panic(expected = "while it is lent")]
    fn the_kernels_buffer_is_not_read() {
        Buffers::new(2, 64).unwrap().bytes(BufferId(0));
    }
}
