//! Sockets that the service manager made and handed to this process (`sd_listen_fds(3)`).
//!
//! They are the descriptors from 3 on, as many as `LISTEN_FDS` says, if `LISTEN_PID` is this process.

#![expect(unsafe_code, reason = "a descriptor is known by its number alone")]

use std::io;
use std::os::fd::{FromRawFd, IntoRawFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};

use socket2::Socket;

use crate::listen::Listener;

/// The first of them.
const FIRST: i32 = 3;
/// More are not looked at.
const COUNT_MAX: i32 = 64;

static IS_TAKEN: AtomicBool = AtomicBool::new(false);

/// What the manager says of its sockets.
#[derive(Debug, Clone, Copy)]
pub struct Handover<'a> {
    /// `LISTEN_PID`.
    pub pid: Option<&'a str>,
    /// `LISTEN_FDS`.
    pub count: Option<&'a str>,
    /// `LISTEN_FDNAMES`: names with a colon between them.
    pub names: Option<&'a str>,
}

/// Takes the sockets, each with its name. A process takes them once; later calls find none.
///
/// # Errors
/// If one of them does not listen for streams.
pub fn take(handover: Handover<'_>) -> io::Result<Vec<(String, Listener)>> {
    let count = count(handover, std::process::id());
    if count == 0 || IS_TAKEN.swap(true, Ordering::SeqCst) {
        return Ok(Vec::new());
    }
    let mut names = handover.names.unwrap_or_default().split(':');
    let mut listeners = Vec::new();
    for number in FIRST..FIRST + count {
        // SAFETY: the manager says in the variables meant for this process that it left the descriptor for it,
        // and `IS_TAKEN` hands it out once. Whether it is open at all the duplication below finds out.
        let descriptor = unsafe { OwnedFd::from_raw_fd(number) };
        // Not inherited any further: a child that compiles has no business with it.
        let socket = match rustix::io::fcntl_setfd(&descriptor, rustix::io::FdFlags::CLOEXEC) {
            Ok(()) => Socket::from(descriptor),
            Err(error) => {
                // Not ours to close.
                let _number = descriptor.into_raw_fd();
                return Err(error.into());
            }
        };
        let name = names.next().filter(|name| !name.is_empty()).unwrap_or("unknown");
        listeners.push((name.to_owned(), Listener::from_socket(socket)?));
    }
    Ok(listeners)
}

fn count(handover: Handover<'_>, own: u32) -> i32 {
    let is_ours = handover.pid.and_then(|pid| pid.parse().ok()) == Some(own);
    let count = handover.count.and_then(|count| count.parse().ok()).unwrap_or(0);
    if is_ours { count.clamp(0, COUNT_MAX) } else { 0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_meant_for_this_process_counts() {
        let of = |pid, found| count(Handover { pid, count: found, names: None }, 7);
        assert_eq!(of(Some("7"), Some("2")), 2);
        assert_eq!(of(Some("8"), Some("2")), 0);
        assert_eq!(of(None, Some("2")), 0);
        assert_eq!(of(Some("7"), None), 0);
        assert_eq!(of(Some("7"), Some("-1")), 0);
        assert_eq!(of(Some("7"), Some("100000")), COUNT_MAX);
    }

    #[test]
    fn without_a_manager_there_are_none() {
        let handover = Handover { pid: None, count: None, names: None };
        assert!(take(handover).unwrap().is_empty());
    }
}
