//! Asks the kernel which pages of a private mapping have been written: PAGEMAP_SCAN, since Linux 6.7.
//!
//! A page of a private mapping that was written is anonymous: present, or swapped out. One that was only
//! read belongs to the file, or is the kernel's page of zeros. Swapped pages count: a scan that leaves them
//! out lets the next request read them.
#![expect(unsafe_code, reason = "one ioctl; the safe face is `written`")]

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::fd::AsRawFd;
use std::sync::OnceLock;

/// `_IOWR('f', 16, struct pm_scan_arg)` of linux/fs.h.
const PAGEMAP_SCAN: libc::c_ulong = 0xC060_6610;
const PAGE_IS_FILE: u64 = 1 << 2;
const PAGE_IS_PRESENT: u64 = 1 << 3;
const PAGE_IS_SWAPPED: u64 = 1 << 4;
const PAGE_IS_PFNZERO: u64 = 1 << 5;
/// Regions that one call returns; a longer answer takes more calls.
const REGIONS_PER_CALL: usize = 64;

/// `struct pm_scan_arg` of linux/fs.h.
#[repr(C)]
#[derive(Default)]
struct ScanArguments {
    size: u64,
    flags: u64,
    start: u64,
    end: u64,
    walk_end: u64,
    vec: u64,
    vec_len: u64,
    max_pages: u64,
    category_inverted: u64,
    category_mask: u64,
    category_anyof_mask: u64,
    return_mask: u64,
}

const _: () = assert!(size_of::<ScanArguments>() == 96, "the size is part of the ioctl's number");

/// `struct page_region` of linux/fs.h.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct Region {
    start: u64,
    end: u64,
    categories: u64,
}

/// Returns the address ranges, in order, whose pages have been written since they were mapped.
///
/// `addresses` are those of private mappings of this process, from page to page.
///
/// # Errors
/// The kernel's: it is older, or /proc is not there.
pub(crate) fn written(addresses: Range<usize>) -> io::Result<Vec<Range<usize>>> {
    static PAGEMAP: OnceLock<Option<File>> = OnceLock::new();
    let file = PAGEMAP.get_or_init(|| File::open("/proc/self/pagemap").ok());
    let file = file.as_ref().ok_or(io::ErrorKind::Unsupported)?;
    let mut regions = [Region::default(); REGIONS_PER_CALL];
    let mut found: Vec<Range<usize>> = Vec::new();
    let mut start = addresses.start;
    while start < addresses.end {
        let mut arguments = ScanArguments {
            size: size_of::<ScanArguments>() as u64,
            start: start as u64,
            end: addresses.end as u64,
            vec: regions.as_mut_ptr().addr() as u64,
            vec_len: REGIONS_PER_CALL as u64,
            category_inverted: PAGE_IS_FILE | PAGE_IS_PFNZERO,
            category_mask: PAGE_IS_FILE | PAGE_IS_PFNZERO,
            category_anyof_mask: PAGE_IS_PRESENT | PAGE_IS_SWAPPED,
            return_mask: PAGE_IS_PRESENT,
            ..ScanArguments::default()
        };
        // SAFETY: the arguments have the layout and the size of the kernel's, and `vec` points to
        // `vec_len` regions that live across the call.
        let count = unsafe { libc::ioctl(file.as_raw_fd(), PAGEMAP_SCAN, &raw mut arguments) };
        let count = usize::try_from(count).map_err(|_| io::Error::last_os_error())?;
        let walked = to_address(arguments.walk_end)?;
        if walked <= start {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        start = walked;
        for region in regions.get(..count).ok_or(io::ErrorKind::InvalidData)? {
            let region = to_address(region.start)?..to_address(region.end)?;
            match found.last_mut() {
                Some(last) if last.end == region.start => last.end = region.end,
                _ => found.push(region),
            }
        }
    }
    Ok(found)
}

fn to_address(value: u64) -> io::Result<usize> {
    usize::try_from(value).map_err(|_| io::ErrorKind::InvalidData.into())
}

#[cfg(test)]
mod tests {
    use std::ptr::NonNull;

    use super::*;
    use crate::mapping::{PAGE_SIZE, sealed_file};

    const PAGES: usize = 400;

    /// A private mapping of a file, followed by as many anonymous pages, all of it writable.
    fn mapping() -> NonNull<u8> {
        let file = sealed_file(&[1; PAGES * PAGE_SIZE]).unwrap();
        let access = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: a new mapping, whose second half is replaced by one of the file.
        let base = unsafe {
            let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
            let base =
                libc::mmap(std::ptr::null_mut(), 2 * PAGES * PAGE_SIZE, access, flags, -1, 0);
            let flags = libc::MAP_PRIVATE | libc::MAP_FIXED;
            libc::mmap(base, PAGES * PAGE_SIZE, access, flags, file.as_raw_fd(), 0)
        };
        assert_ne!(base, libc::MAP_FAILED);
        NonNull::new(base.cast()).unwrap()
    }

    fn addresses(base: NonNull<u8>) -> Range<usize> {
        let start = base.as_ptr().addr();
        start..start + 2 * PAGES * PAGE_SIZE
    }

    fn pages_found(base: NonNull<u8>) -> Vec<usize> {
        let start = base.as_ptr().addr();
        let runs = written(addresses(base)).expect("Linux 6.7 or newer");
        runs.into_iter()
            .flat_map(|run| (run.start - start) / PAGE_SIZE..(run.end - start) / PAGE_SIZE)
            .collect()
    }

    #[test]
    fn pages_that_were_only_read_do_not_count() {
        let base = mapping();
        for page in 0..2 * PAGES {
            // SAFETY: inside the mapping.
            assert!(unsafe { base.as_ptr().add(page * PAGE_SIZE).read_volatile() } <= 1);
        }
        assert_eq!(pages_found(base), Vec::<usize>::new());
    }

    #[test]
    fn more_runs_than_one_call_returns_are_all_found() {
        let base = mapping();
        let pages: Vec<usize> = (0..2 * PAGES).step_by(2).collect();
        assert!(REGIONS_PER_CALL < pages.len());
        for page in &pages {
            // SAFETY: inside the mapping.
            unsafe { base.as_ptr().add(page * PAGE_SIZE).write_volatile(7) };
        }
        assert_eq!(pages_found(base), pages);
    }

    #[test]
    fn pages_that_were_swapped_out_count() {
        let base = mapping();
        let pages = [0, 1, 2, PAGES - 1, PAGES, PAGES + 7];
        for page in pages {
            // SAFETY: inside the mapping.
            unsafe { base.as_ptr().add(page * PAGE_SIZE).write_volatile(7) };
        }
        // Without swap the pages stay where they are: then the test shows less, and nothing false.
        // SAFETY: asks the kernel to reclaim pages of this mapping; their content stays.
        let result = unsafe {
            libc::madvise(base.as_ptr().cast(), 2 * PAGES * PAGE_SIZE, libc::MADV_PAGEOUT)
        };
        assert_eq!(result, 0);
        assert_eq!(pages_found(base), pages);
    }
}
