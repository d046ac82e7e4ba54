//! Writes are noted by userfaultfd (ioctl_userfaultfd(2), Linux 5.7; pagemap_scan, 6.7).
#![expect(unsafe_code, reason = "ioctls; the safe face is the ways")]

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsRawFd, FromRawFd};
use std::sync::mpsc::{Receiver, channel};

use crate::mapping::{Slots, check};
use crate::protecting::{EachTime, Kept, Shield, Shielded};
use crate::{FEW_PAGES, PAGE_BYTES, Plan, Way};

/// `UFFD_API` and the features that are asked for (linux/userfaultfd.h).
const API: u64 = 0xaa;
const FEATURE_WRITE_PROTECT: u64 = 1 << 0;
const FEATURE_SIGBUS: u64 = 1 << 7;
const FEATURE_ASYNC: u64 = 1 << 15;
const FEATURE_UNPOPULATED: u64 = 1 << 13;

/// `_IOWR(0xaa, number, size)`.
const fn request(number: u64, size: usize) -> u64 {
    3 << 30 | (size as u64) << 16 | API << 8 | number
}
const API_REQUEST: u64 = request(0x3f, size_of::<Api>());
const REGISTER: u64 = request(0x00, size_of::<Register>());
const WRITE_PROTECT: u64 = request(0x06, size_of::<WriteProtect>());
const REGISTER_WRITE_PROTECT: u64 = 1 << 1;
const MODE_PROTECT: u64 = 1 << 0;

/// `_IOWR('f', 16, struct pm_scan_arg)` (linux/fs.h).
const PAGEMAP_SCAN: u64 = 3 << 30 | (size_of::<Scan>() as u64) << 16 | (b'f' as u64) << 8 | 16;
const SCAN_CHECK: u64 = 2;
const PAGE_WRITTEN: u64 = 1 << 1;

/// Ranges that one scan tells.
const RANGES_MAX: usize = 512;

#[repr(C)]
struct Api {
    api: u64,
    features: u64,
    ioctls: u64,
}

#[repr(C)]
struct Register {
    start: u64,
    size: u64,
    mode: u64,
    ioctls: u64,
}

#[repr(C)]
struct WriteProtect {
    start: u64,
    size: u64,
    mode: u64,
}

#[repr(C)]
#[derive(Clone, Copy, Default)]
struct Range {
    start: u64,
    end: u64,
    categories: u64,
}

#[repr(C)]
struct Scan {
    size: u64,
    flags: u64,
    start: u64,
    end: u64,
    walk_end: u64,
    ranges: u64,
    ranges_size: u64,
    pages_max: u64,
    inverted: u64,
    mask: u64,
    any_of: u64,
    returned: u64,
}

/// Sets or takes write protection.
fn write_protect(descriptor: i32, start: usize, size: usize, mode: u64) -> io::Result<()> {
    let mut what = WriteProtect { start: start as u64, size: size as u64, mode };
    // SAFETY: the ioctl reads a `WriteProtect`; what it changes is how writes to our own pages are handled.
    check(unsafe { libc::ioctl(descriptor, WRITE_PROTECT, &raw mut what) })
}

/// Makes pages writable again. Async-signal-safe.
pub(crate) fn unprotect(descriptor: i32, start: usize, size: usize) -> io::Result<()> {
    write_protect(descriptor, start, size, 0)
}

/// Makes a userfaultfd with these features, which watches the slots.
fn open(slots: &Slots, features: u64) -> io::Result<File> {
    // SAFETY: the call takes flags and touches no memory.
    let descriptor = unsafe { libc::syscall(libc::SYS_userfaultfd, libc::O_CLOEXEC) };
    let descriptor = i32::try_from(descriptor).unwrap_or(-1);
    check(descriptor)?;
    // SAFETY: the descriptor is new, open, and ours alone.
    let file = unsafe { File::from_raw_fd(descriptor) };
    let mut api = Api { api: API, features, ioctls: 0 };
    // SAFETY: the ioctl reads and writes an `Api`.
    check(unsafe { libc::ioctl(descriptor, API_REQUEST, &raw mut api) })?;
    let (start, size) = slots.range();
    let mode = REGISTER_WRITE_PROTECT;
    let mut register = Register { start: start as u64, size: size as u64, mode, ioctls: 0 };
    // SAFETY: the ioctl reads and writes a `Register`; the range is our own mapping.
    check(unsafe { libc::ioctl(descriptor, REGISTER, &raw mut register) })?;
    Ok(file)
}

/// Protects a range.
pub(crate) fn protect(file: &File, (start, size): (usize, usize)) -> io::Result<()> {
    write_protect(file.as_raw_fd(), start, size, MODE_PROTECT)
}

/// Protects again what was written: page by page while those are few, else the whole slot at once.
pub(crate) fn protect_again(
    file: &File,
    slots: &Slots,
    slot: usize,
    written: &[usize],
) -> io::Result<()> {
    if written.len() < FEW_PAGES {
        let page = |page: &usize| (slots.page(slot, *page).addr(), PAGE_BYTES);
        return written.iter().try_for_each(|written| protect(file, page(written)));
    }
    protect(file, slots.slot_range(slot))
}

/// Makes the way in which a write to a protected page is a signal to its thread.
pub(crate) fn signal(plan: &Plan) -> io::Result<Box<dyn Way>> {
    Ok(EachTime::over(signalling(plan)?))
}

/// Makes the way in which a page is a signal once and is not protected again: a kept list that splits no mapping.
pub(crate) fn kept(plan: &Plan) -> io::Result<Box<dyn Way>> {
    Ok(Kept::over(signalling(plan)?, plan.slots))
}

fn signalling(plan: &Plan) -> io::Result<Shielded> {
    let slots = Slots::filled(plan)?;
    let file = open(&slots, FEATURE_WRITE_PROTECT | FEATURE_SIGBUS)?;
    Shield::Userfaultfd(file).raise(slots, plan.slots)
}

struct Thread {
    noted: Receiver<usize>,
    written: Vec<usize>,
    file: File,
    slots: Slots,
}

/// Makes the way in which a thread is told of writes to protected pages. It ends when the descriptor does, with
/// the process at the latest.
pub(crate) fn thread(plan: &Plan) -> io::Result<Box<dyn Way>> {
    let slots = Slots::filled(plan)?;
    let file = open(&slots, FEATURE_WRITE_PROTECT)?;
    for slot in 0..plan.slots {
        protect(&file, slots.slot_range(slot))?;
    }
    let mut messages = file.try_clone()?;
    let (note, noted) = channel();
    std::thread::spawn(move || {
        // `struct uffd_msg`: 32 bytes, of a fault the event, its flags at 8, its address at 16.
        let mut message = [0; 32];
        while messages.read_exact(&mut message).is_ok() {
            let bytes = message[16..24].try_into().expect("eight bytes");
            let page = usize::try_from(u64::from_ne_bytes(bytes)).unwrap_or(0) & !(PAGE_BYTES - 1);
            let is_wanted = note.send(page).is_ok();
            // The writer goes on when its page was noted.
            if unprotect(messages.as_raw_fd(), page, PAGE_BYTES).is_err() || !is_wanted {
                return;
            }
        }
    });
    Ok(Box::new(Thread { noted, written: Vec::new(), file, slots }))
}

impl Way for Thread {
    fn cycle(&mut self, slot: usize, pages: &[usize]) -> io::Result<()> {
        self.slots.write(slot, pages);
        self.written.clear();
        self.written.extend(self.noted.try_iter().map(|address| self.slots.page_of(slot, address)));
        for &page in &self.written {
            self.slots.copy_page(slot, page);
        }
        protect_again(&self.file, &self.slots, slot, &self.written)
    }

    fn is_pristine(&self, slot: usize) -> bool {
        self.slots.is_pristine(slot)
    }
}

struct Scanning {
    pagemap: File,
    file: File,
    slots: Slots,
    ranges: Vec<Range>,
    pages: Vec<usize>,
}

/// Makes the way in which writes are noted in the page tables, and asked for afterwards.
pub(crate) fn scan(plan: &Plan) -> io::Result<Box<dyn Way>> {
    let slots = Slots::filled(plan)?;
    let file = open(&slots, FEATURE_WRITE_PROTECT | FEATURE_ASYNC | FEATURE_UNPOPULATED)?;
    for slot in 0..plan.slots {
        protect(&file, slots.slot_range(slot))?;
    }
    let pagemap = File::open("/proc/self/pagemap")?;
    let ranges = vec![Range::default(); RANGES_MAX];
    Ok(Box::new(Scanning { pagemap, file, slots, ranges, pages: Vec::new() }))
}

impl Scanning {
    /// Finds written pages from `start` on; returns how many ranges, and where it ended.
    fn written(&mut self, start: usize, end: usize) -> io::Result<(usize, usize)> {
        let mut scan = Scan {
            size: size_of::<Scan>() as u64,
            flags: SCAN_CHECK,
            start: start as u64,
            end: end as u64,
            walk_end: 0,
            ranges: self.ranges.as_mut_ptr().expose_provenance() as u64,
            ranges_size: self.ranges.len() as u64,
            pages_max: 0,
            inverted: 0,
            mask: PAGE_WRITTEN,
            any_of: 0,
            returned: PAGE_WRITTEN,
        };
        // SAFETY: the ioctl reads and writes a `Scan`, and at most `ranges_size` ranges where `ranges` has them.
        let count = unsafe { libc::ioctl(self.pagemap.as_raw_fd(), PAGEMAP_SCAN, &raw mut scan) };
        check(count)?;
        Ok((usize::try_from(count).unwrap_or(0), usize::try_from(scan.walk_end).unwrap_or(end)))
    }
}

impl Way for Scanning {
    fn cycle(&mut self, slot: usize, pages: &[usize]) -> io::Result<()> {
        self.slots.write(slot, pages);
        let (mut start, size) = self.slots.slot_range(slot);
        let end = start + size;
        self.pages.clear();
        while start < end {
            let (count, next) = self.written(start, end)?;
            for range in &self.ranges[..count] {
                let from = usize::try_from(range.start).unwrap_or(0);
                let to = usize::try_from(range.end).unwrap_or(0);
                for address in (from..to).step_by(PAGE_BYTES) {
                    self.pages.push(self.slots.page_of(slot, address));
                }
            }
            start = next.max(start + PAGE_BYTES);
        }
        for &page in &self.pages {
            self.slots.copy_page(slot, page);
        }
        protect_again(&self.file, &self.slots, slot, &self.pages)
    }

    fn is_pristine(&self, slot: usize) -> bool {
        self.slots.is_pristine(slot)
    }
}

const _: () = assert!(size_of::<Scan>() == 96, "struct pm_scan_arg");
