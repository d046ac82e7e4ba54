//! Ways of plain Linux to make memory, or a whole process, pristine again: small and fair, without an engine, so
//! that what an engine adds can be told from what the kernel takes.
//!
//! A way keeps some slots, each of which begins as a copy of one image. A cycle writes a word to some pages of a
//! slot and makes it pristine again; between cycles every slot holds the image and nothing else, which
//! [`Way::is_pristine`] shows.
//!
//! ```text
//!   mapping      mappings of this process, and the calls on them
//!   copying      the image is copied back: all of it, or the pages that are known
//!   discarding   the kernel is told to forget what was written
//!   protecting   writes fault, and the fault handler notes the page (mprotect)
//!   watching     writes are noted by userfaultfd, in three manners
//!   processes    a new process for each cycle
//!   usage        CPU time and faults, children included
//! ```
//!
//! Not here: rounds, tables, comparisons; that is `midge-lab ways`.

mod copying; // memcpy, of all or of what is known
mod discarding; // MADV_DONTNEED and MAP_FIXED
mod mapping; // memory of this process
mod processes; // fork, spawn, namespaces
mod protecting; // mprotect and SIGSEGV
pub mod usage; // CPU time and faults
mod watching; // userfaultfd

use std::io;

pub use crate::processes::write_and_exit;

/// Size of a page.
pub const PAGE_BYTES: usize = 4096;

/// So many pages are protected again together rather than one by one.
const FEW_PAGES: usize = 16;

/// What is written to a page.
const WRITTEN: u64 = 0x6d69_6467_6521_2121;

/// A way to a pristine state.
pub trait Way {
    /// Writes a word to each of these pages of a slot, then makes the slot pristine again.
    ///
    /// # Errors
    /// If a call of the kernel fails.
    fn cycle(&mut self, slot: usize, pages: &[usize]) -> io::Result<()>;

    /// Tells whether a slot holds the image; true where a cycle leaves nothing that could be looked at.
    fn is_pristine(&self, slot: usize) -> bool;
}

/// What is known of a way before it is made.
#[derive(Debug, Clone, Copy)]
pub struct Kind {
    /// Its name.
    pub name: &'static str,
    /// What it does, in a line.
    pub about: &'static str,
    /// True if it keeps slots; else each cycle makes something new.
    pub has_slots: bool,
    /// Makes it.
    pub make: fn(&Plan) -> io::Result<Box<dyn Way>>,
}

/// What a way is made for.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The image, in whole pages.
    pub image: Vec<u8>,
    /// Slots.
    pub slots: usize,
    /// True if slots lie as far apart as memories that need no checks of bounds.
    pub is_spread: bool,
    /// The program that a new process is to run, with its first words.
    pub program: Vec<std::ffi::CString>,
}

impl Plan {
    /// Makes a plan with an image whose words all differ.
    #[must_use]
    pub fn new(pages: usize, slots: usize, program: Vec<std::ffi::CString>) -> Self {
        let words = 0..(pages * PAGE_BYTES / 8) as u64;
        let image = words.flat_map(|word| word.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes());
        Self { image: image.collect(), slots, is_spread: false, program }
    }

    /// Returns the pages of the image.
    #[must_use]
    pub fn pages(&self) -> usize {
        self.image.len() / PAGE_BYTES
    }
}

/// All ways, in the order in which they are told.
#[must_use]
pub fn all() -> Vec<Kind> {
    let kind = |name, about, make| Kind { name, about, has_slots: true, make };
    let process = |name, about, make| Kind { name, about, has_slots: false, make };
    vec![
        kind(
            "known pages",
            "copies the written pages back, which somebody else knows",
            copying::known,
        ),
        kind(
            "map in stores",
            "each write sets a byte of a map of pages; marked pages are copied back",
            copying::mapped,
        ),
        kind(
            "kept list",
            "a page faults once and stays writable; listed pages are compared by line and set back",
            protecting::kept,
        ),
        kind(
            "mprotect",
            "written pages fault each time, are copied back, and the range is made read-only",
            protecting::each_time,
        ),
        kind(
            "uffd kept",
            "the kept list, by userfaultfd in place of mprotect: no mapping is split",
            watching::kept,
        ),
        kind("uffd sigbus", "userfaultfd write-protect; the fault is a signal", watching::signal),
        kind(
            "uffd thread",
            "userfaultfd write-protect; a thread takes the faults",
            watching::thread,
        ),
        kind(
            "uffd scan",
            "userfaultfd write-protect without faults; PAGEMAP_SCAN tells (Linux 6.7)",
            watching::scan,
        ),
        kind("memcpy", "copies the whole image back", copying::whole),
        kind("madvise", "MADV_DONTNEED on a private mapping of a file", discarding::advise),
        kind("mmap", "maps the file over it again", discarding::remap),
        process("fork", "a child of this process for each cycle", processes::fork),
        process(
            "namespaces",
            "a child in mount, PID, network, IPC and UTS namespaces of its own",
            processes::namespaces,
        ),
        process(
            "fork and exec",
            "a new process of this program, by fork and exec",
            processes::exec,
        ),
        process("spawn", "a new process of this program, by posix_spawn", processes::spawn),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every way is pristine after every cycle, hot and cold, for pages in any order.
    #[test]
    fn every_way_leaves_slots_pristine() {
        let packed = Plan::new(40, 3, vec![c"/bin/true".into()]);
        every_way_leaves(&packed);
        every_way_leaves(&Plan { is_spread: true, ..packed });
    }

    fn every_way_leaves(plan: &Plan) {
        for kind in all() {
            let mut way = match (kind.make)(plan) {
                Ok(way) => way,
                Err(error) => {
                    // A kernel without it, or a sandbox: the lab leaves it out by the same error.
                    println!("left out: {}: {error}", kind.name);
                    continue;
                }
            };
            let all_pages: Vec<usize> = (0..plan.pages()).rev().collect();
            for pages in [&[][..], &[7], &[0, 39, 20], &all_pages, &[7], &[]] {
                for slot in 0..if kind.has_slots { 3 } else { 1 } {
                    way.cycle(slot, pages)
                        .unwrap_or_else(|error| panic!("{}: {pages:?}: {error}", kind.name));
                    assert!(way.is_pristine(slot), "{}: {pages:?} of slot {slot}", kind.name);
                }
            }
        }
    }
}
