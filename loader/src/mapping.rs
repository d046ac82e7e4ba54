//! Memory maps that unmap themselves: of files, and of reserved address space.
#![expect(unsafe_code, reason = "mmap and munmap; the safe face is Mapping")]

use std::fs::File;
use std::io::{self, Write};
use std::ops::Range;
use std::os::fd::{AsRawFd, FromRawFd};
use std::ptr::NonNull;

/// Size of a page of the machine. Other sizes exist on other architectures; this host is for x86-64.
pub const PAGE_SIZE: usize = 4096;

/// Reserved address space that is ours until it is dropped.
#[derive(Debug)]
pub struct Mapping {
    // INVARIANT: `length` bytes from `base` were mapped by this type and by nobody else.
    base: NonNull<u8>,
    length: usize,
}

// SAFETY: a mapping is an address range of the process; no thread owns it. Shared access reads alone.
unsafe impl Send for Mapping {}
// SAFETY: as above.
unsafe impl Sync for Mapping {}

/// What a file's pages may be used for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Read.
    Read,
    /// Read and execute.
    ReadExecute,
}

impl Mapping {
    /// Reserves address space without memory: nothing can be read or written there.
    ///
    /// # Errors
    /// Those of mmap.
    pub fn reserve(length: usize) -> io::Result<Self> {
        // SAFETY: a new anonymous mapping at an address that the kernel chooses overlaps nothing.
        let base = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                length,
                libc::PROT_NONE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE,
                -1,
                0,
            )
        };
        Self::from_mmap(base, length)
    }

    fn from_mmap(base: *mut libc::c_void, length: usize) -> io::Result<Self> {
        if base == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let base = NonNull::new(base.cast()).expect("mmap returns no null without MAP_FIXED");
        Ok(Self { base, length })
    }

    /// Frees the pages of a range and takes every access away.
    ///
    /// # Errors
    /// Those of mmap.
    ///
    /// # Panics
    /// If the range lies outside or is not of whole pages.
    pub(crate) fn close(&self, range: Range<usize>) -> io::Result<()> {
        assert!(range.start <= range.end && range.end <= self.length, "of this mapping");
        assert!(range.start.is_multiple_of(PAGE_SIZE) && range.end.is_multiple_of(PAGE_SIZE));
        // SAFETY: MAP_FIXED replaces pages of our own mapping (asserted). Whoever holds references into
        // them is bound by the base's owner, as for every access.
        let result = unsafe {
            libc::mmap(
                self.base.as_ptr().add(range.start).cast(),
                range.len(),
                libc::PROT_NONE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE | libc::MAP_FIXED,
                -1,
                0,
            )
        };
        if result == libc::MAP_FAILED { Err(io::Error::last_os_error()) } else { Ok(()) }
    }

    /// Returns the first byte's address.
    #[must_use]
    pub const fn base(&self) -> NonNull<u8> {
        self.base
    }

    /// Returns the size in bytes.
    #[must_use]
    pub const fn length(&self) -> usize {
        self.length
    }

    /// Returns first and last address.
    #[must_use]
    pub fn range(&self) -> Range<usize> {
        let start = self.base.as_ptr().addr();
        start..start + self.length
    }
}

/// A region of a file, readable until it is dropped.
#[derive(Debug)]
pub struct FileMapping(Mapping);

impl FileMapping {
    /// Maps a file from `offset`, a multiple of [`PAGE_SIZE`], privately.
    ///
    /// The file must keep its length while it is mapped: a page behind its end raises SIGBUS. Artifacts
    /// are therefore replaced by renaming, as programs are.
    ///
    /// # Errors
    /// Those of mmap.
    ///
    /// # Panics
    /// If `length` is 0 or `offset` is not on a page.
    pub fn new(file: &File, offset: u64, length: usize, access: Access) -> io::Result<Self> {
        assert!(length > 0, "an empty section is not mapped");
        assert!(offset.is_multiple_of(PAGE_SIZE as u64), "the writer aligns what is mapped");
        let protection = match access {
            Access::Read => libc::PROT_READ,
            Access::ReadExecute => libc::PROT_READ | libc::PROT_EXEC,
        };
        let offset = i64::try_from(offset).map_err(|_| io::ErrorKind::InvalidInput)?;
        // SAFETY: a new private mapping at an address that the kernel chooses overlaps nothing; the
        // descriptor is open for the call.
        let base = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                length,
                protection,
                libc::MAP_PRIVATE,
                file.as_raw_fd(),
                offset,
            )
        };
        Mapping::from_mmap(base, length).map(Self)
    }

    /// Returns the bytes.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        // SAFETY: the range is mapped readable for as long as `self` lives, and private: nobody writes.
        unsafe { std::slice::from_raw_parts(self.0.base.as_ptr(), self.0.length) }
    }

    /// Returns the bytes as the engine takes code.
    #[must_use]
    pub fn code(&self) -> NonNull<[u8]> {
        NonNull::slice_from_raw_parts(self.0.base, self.0.length)
    }

    /// Returns first and last address.
    #[must_use]
    pub fn range(&self) -> Range<usize> {
        self.0.range()
    }
}

/// Makes a file that has no name and lives in memory, with these bytes, sealed against every change.
///
/// # Errors
/// Those of memfd_create, write and fcntl.
pub fn sealed_file(bytes: &[u8]) -> io::Result<File> {
    // SAFETY: the name is a constant C string; the call touches no memory of ours.
    let descriptor = unsafe {
        libc::memfd_create(c"midge".as_ptr(), libc::MFD_CLOEXEC | libc::MFD_ALLOW_SEALING)
    };
    if descriptor < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the descriptor was just made and belongs to nobody else.
    let mut file = unsafe { File::from_raw_fd(descriptor) };
    file.write_all(bytes)?;
    let seals = libc::F_SEAL_WRITE | libc::F_SEAL_SHRINK | libc::F_SEAL_GROW | libc::F_SEAL_SEAL;
    // SAFETY: F_ADD_SEALS takes an integer and touches no memory.
    let result = unsafe { libc::fcntl(file.as_raw_fd(), libc::F_ADD_SEALS, seals) };
    if result == 0 { Ok(file) } else { Err(io::Error::last_os_error()) }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: the range is ours by the invariant, and nothing borrowed from `self` is left.
        let result = unsafe { libc::munmap(self.base.as_ptr().cast(), self.length) };
        assert_eq!(result, 0, "unmapping a range of our own cannot fail");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mapped_file_is_read_where_it_was_asked_for() {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&[1; PAGE_SIZE]).unwrap();
        file.write_all(&[2; 100]).unwrap();
        let mapping = FileMapping::new(&file, PAGE_SIZE as u64, 100, Access::Read).unwrap();
        assert_eq!(mapping.bytes(), [2; 100]);
        assert_eq!(mapping.range().len(), 100);
    }

    #[test]
    fn a_sealed_file_cannot_be_changed() {
        let mut file = sealed_file(b"bytes").unwrap();
        assert!(file.write_all(b"other").is_err());
        assert!(file.set_len(0).is_err());
    }

    #[test]
    fn address_space_can_be_reserved_beyond_the_memory_of_the_machine() {
        let mapping = Mapping::reserve(1 << 40).unwrap();
        assert_eq!(mapping.length(), 1 << 40);
    }
}
