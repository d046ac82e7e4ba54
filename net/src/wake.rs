//! Waking a worker that sleeps in its ring, from another thread.
#![expect(unsafe_code, reason = "makes an eventfd; the safe face is Waker")]

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{FromRawFd, OwnedFd};

/// An eventfd. The worker's endpoint watches a duplicate of it.
#[derive(Debug)]
pub struct Waker {
    event: File,
}

impl Waker {
    /// Makes an event that was not signalled yet.
    ///
    /// # Errors
    /// If the process has no descriptor left.
    pub fn new() -> io::Result<Self> {
        // SAFETY: takes two numbers, touches no memory.
        let descriptor = unsafe { libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) };
        if descriptor < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the descriptor was just made, is valid, and nobody else owns it.
        let event = unsafe { OwnedFd::from_raw_fd(descriptor) };
        Ok(Self { event: File::from(event) })
    }

    /// Returns a second handle of the same event, for another thread.
    ///
    /// # Errors
    /// If the process has no descriptor left.
    pub fn try_clone(&self) -> io::Result<Self> {
        Ok(Self { event: self.event.try_clone()? })
    }

    /// Returns a duplicate for [`crate::Endpoint::watch`].
    ///
    /// # Errors
    /// If the process has no descriptor left.
    pub fn descriptor(&self) -> io::Result<OwnedFd> {
        Ok(OwnedFd::from(self.event.try_clone()?))
    }

    /// Wakes the worker. Several calls before it wakes are one.
    pub fn wake(&self) {
        match (&self.event).write_all(&1_u64.to_ne_bytes()) {
            Ok(()) => {}
            // The counter is full: the worker has been told 2^64 - 2 times and will wake.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => unreachable!("an eventfd takes eight bytes: {error}"),
        }
    }
}
