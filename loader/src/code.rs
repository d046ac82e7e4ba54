//! Makes compiled code executable, or finds that it is already.
//!
//! An artifact's code section is mapped read-execute when the file is opened. Publishing it once more
//! would cost a system call and a broadcast to all cores; so the engine asks here, and regions that are
//! known to be executable are left as they are. All other code (compiled or copied at start) is protected
//! the usual way.
#![expect(
    unsafe_code,
    reason = "changes the protection of code pages; the safe face is PublishedCode"
)]

use std::ops::Range;
use std::sync::{Arc, PoisonError, RwLock};

use wasmtime::CustomCodeMemory;

use crate::mapping::PAGE_SIZE;

/// Address ranges that were mapped executable by us.
#[derive(Debug, Clone, Default)]
pub struct PublishedCode {
    ranges: Arc<RwLock<Vec<Range<usize>>>>,
}

impl PublishedCode {
    /// Notes that a range is mapped read-execute.
    pub fn add(&self, range: Range<usize>) {
        self.ranges.write().unwrap_or_else(PoisonError::into_inner).push(range);
    }

    /// Forgets a range before it is unmapped.
    pub fn remove(&self, range: &Range<usize>) {
        self.ranges.write().unwrap_or_else(PoisonError::into_inner).retain(|known| known != range);
    }

    fn contains(&self, start: usize, length: usize) -> bool {
        let ranges = self.ranges.read().unwrap_or_else(PoisonError::into_inner);
        ranges.iter().any(|range| range.start <= start && start + length <= range.end)
    }
}

impl CustomCodeMemory for PublishedCode {
    fn required_alignment(&self) -> usize {
        PAGE_SIZE
    }

    fn publish_executable(&self, pointer: *const u8, length: usize) -> wasmtime::Result<()> {
        if self.contains(pointer.addr(), length) {
            return Ok(());
        }
        protect(pointer, length, libc::PROT_READ | libc::PROT_EXEC)
    }

    fn unpublish_executable(&self, pointer: *const u8, length: usize) -> wasmtime::Result<()> {
        if self.contains(pointer.addr(), length) {
            return Ok(());
        }
        protect(pointer, length, libc::PROT_READ | libc::PROT_WRITE)
    }
}

fn protect(pointer: *const u8, length: usize, protection: i32) -> wasmtime::Result<()> {
    // SAFETY: the engine calls this on code memory that it owns, page-aligned by `required_alignment`, that
    // nobody executes while its protection changes. mprotect does not touch the bytes.
    let result = unsafe { libc::mprotect(pointer.cast_mut().cast(), length, protection) };
    if result == 0 { Ok(()) } else { Err(std::io::Error::last_os_error().into()) }
}
