//! What is said here, to a server of logs: each line a message of RFC 5424 in a datagram of its own (RFC 5426).
//!
//! ```text
//!   process 1 says --\
//!                     queue --thread--> UDP
//!   the server's log-/
//! ```
//!
//! Invariants: whoever says something never waits for the network. Lines wait until the network is there, as many as
//! the queue holds; what finds no room is counted, and told once there is room again. No answer is read.
//!
//! Not here: TCP and TLS, and proof that anything arrived: UDP has none.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::thread;
use std::time::{Duration, SystemTime};

use crate::output::printable;

/// Lines that wait: those of a boot and of the network's start, many times over.
const LINES_MAX: usize = 4096;
/// Longest message, what receivers should take (RFC 5424, section 6.1).
const MESSAGE_BYTES_MAX: usize = 2048;
/// How long a line waits for the network before it is tried again.
const AGAIN_AFTER: Duration = Duration::from_millis(500);
/// How often one line is tried before it is given up: the others would wait for it for ever.
const TRIES_MAX: u32 = 240;
/// How long the end of the machine waits for the last lines.
const LAST_LINES_MAX: Duration = Duration::from_millis(500);
/// The source of all messages: daemons (RFC 5424, table 1).
const FACILITY: u8 = 3;

/// How grave a message is (RFC 5424, table 2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Severity {
    /// Something failed.
    Error = 3,
    /// Something is odd.
    Warning = 4,
    /// What goes on.
    Informational = 6,
}

impl Severity {
    /// Reads it from a line of the server's log, which has its level behind the time.
    pub(super) fn of_line(line: &str) -> Self {
        match line.split_whitespace().nth(1) {
            Some("ERROR" | "trap") => Self::Error,
            Some("WARN") => Self::Warning,
            _ => Self::Informational,
        }
    }
}

#[derive(Debug)]
enum Item {
    Line(String),
    /// Whoever holds the other end waits for the lines before it.
    Flush(#[expect(dead_code, reason = "its end is the message")] SyncSender<()>),
}

/// The way to the server of logs.
#[derive(Debug, Clone)]
pub(super) struct Syslog {
    items: SyncSender<Item>,
    dropped: Arc<AtomicU64>,
}

impl Syslog {
    /// Starts the thread that sends.
    ///
    /// # Errors
    /// No socket, or no thread.
    pub(super) fn start(target: SocketAddr) -> std::io::Result<Self> {
        let any: SocketAddr = match target {
            SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
            SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
        };
        let socket = UdpSocket::bind(any)?;
        let (items, source) = sync_channel(LINES_MAX);
        let dropped = Arc::new(AtomicU64::new(0));
        let own = Arc::clone(&dropped);
        let work =
            move || send_all(&source, &own, |message| socket.send_to(message, target).is_ok());
        thread::Builder::new().name("midge-syslog".into()).spawn(work)?;
        Ok(Self { items, dropped })
    }

    /// Sends a line of a process.
    pub(super) fn send(&self, severity: Severity, process: u32, line: &str) {
        let line = message(SystemTime::now(), severity, process, line);
        if let Err(TrySendError::Full(_)) = self.items.try_send(Item::Line(line)) {
            self.dropped.fetch_add(1, Relaxed);
        }
    }

    /// Waits for a moment until all lines before this are sent.
    pub(super) fn flush(&self) {
        let (sender, done) = sync_channel(0);
        if self.items.try_send(Item::Flush(sender)).is_ok() {
            // It ends, for the other end is dropped; or time is up.
            let _ended = done.recv_timeout(LAST_LINES_MAX);
        }
    }
}

fn send_all(source: &Receiver<Item>, dropped: &AtomicU64, send: impl Fn(&[u8]) -> bool) {
    for item in source {
        let Item::Line(line) = item else { continue };
        let mut tries = 0;
        while !send(line.as_bytes()) && tries < TRIES_MAX {
            tries += 1;
            thread::park_timeout(AGAIN_AFTER);
        }
        let lost = dropped.swap(0, Relaxed);
        if 0 < lost {
            let text = format!("{lost} lines before this found no room and were dropped");
            send(message(SystemTime::now(), Severity::Warning, 1, &text).as_bytes());
        }
    }
}

/// Returns a message: priority, version, time, the names of host, program, process and message, and no data.
fn message(now: SystemTime, severity: Severity, process: u32, line: &str) -> String {
    let priority = FACILITY * 8 + severity as u8;
    let time = humantime::format_rfc3339_millis(now);
    let line = printable(line.trim_end());
    let mut message = format!("<{priority}>1 {time} - midge {process} - - {line}");
    message.truncate(message.floor_char_boundary(MESSAGE_BYTES_MAX));
    message
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::time::UNIX_EPOCH;

    use super::*;

    #[test]
    fn a_message_is_one_of_rfc_5424() {
        let now = UNIX_EPOCH + Duration::from_millis(1_767_225_600_250);
        let said = message(now, Severity::Warning, 7, "a\u{1b}b\n");
        assert_eq!(said, "<28>1 2026-01-01T00:00:00.250Z - midge 7 - - a\\u{1b}b");
        let long = message(now, Severity::Error, 1, &"é".repeat(MESSAGE_BYTES_MAX));
        assert!((MESSAGE_BYTES_MAX - 1..=MESSAGE_BYTES_MAX).contains(&long.len()));
    }

    #[test]
    fn the_level_of_a_line_is_its_severity() {
        for (line, severity) in [
            ("2026-11-29T05:54:41.302530Z  WARN clients may", Severity::Warning),
            ("2026-11-29T05:54:41.302530Z ERROR it", Severity::Error),
            ("2026-11-29T05:54:41.302530Z trap hello", Severity::Error),
            ("WARN", Severity::Informational),
            ("", Severity::Informational),
        ] {
            assert_eq!(Severity::of_line(line), severity, "{line}");
        }
    }

    #[test]
    fn what_was_dropped_is_told() {
        let (items, source) = sync_channel(8);
        items.send(Item::Line("one".into())).unwrap();
        let (flushed, done) = sync_channel(0);
        items.send(Item::Flush(flushed)).unwrap();
        drop(items);
        let sent = RefCell::new(Vec::new());
        let send = |line: &[u8]| {
            sent.borrow_mut().push(String::from_utf8(line.to_vec()).unwrap());
            true
        };
        send_all(&source, &AtomicU64::new(3), send);
        assert_eq!(sent.borrow()[0], "one");
        assert!(sent.borrow()[1].ends_with("3 lines before this found no room and were dropped"));
        assert!(done.recv().is_err(), "whoever waits goes on");
    }
}
