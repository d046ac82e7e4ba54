//! The server of logs that hears what this process writes to stderr, if the settings name one.
//!
//! Invariant: there is one for the process, as there is one subscriber of `tracing`, one stderr. It is replaced by a
//! reload, and lines of calls that began before go to the new one.
//!
//! Not here: how messages look and travel (`syslog.rs`).

use std::io::{self, Write};
use std::process;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, LazyLock, Mutex, PoisonError};

use tracing::{Level, Metadata};
use tracing_subscriber::fmt::MakeWriter;

use crate::syslog::{Severity, Syslog, Target, host_name};

/// Locked by a reload, by housekeeping threads, and by what they say; never by a worker.
static REMOTE: Mutex<Option<(Target, Syslog)>> = Mutex::new(None);
static LOST: LazyLock<Arc<AtomicU64>> = LazyLock::new(Arc::default);

/// Tells another server of logs from now on, or none. One that is told already keeps its connection.
///
/// # Errors
/// The system has no thread left: nobody is told.
pub fn point(target: Option<&Target>) -> io::Result<()> {
    let mut remote = REMOTE.lock().unwrap_or_else(PoisonError::into_inner);
    if remote.as_ref().map(|(target, _)| target) == target {
        return Ok(());
    }
    *remote = None;
    let Some(target) = target else { return Ok(()) };
    let syslog = Syslog::start(target.clone(), &host_name(), Arc::clone(&LOST))?;
    *remote = Some((target.clone(), syslog));
    Ok(())
}

/// Returns the way to the server of logs.
#[must_use]
pub fn current() -> Option<Syslog> {
    let remote = REMOTE.lock().unwrap_or_else(PoisonError::into_inner);
    remote.as_ref().map(|(_, syslog)| syslog.clone())
}

/// Returns how many lines no server of logs was told.
#[must_use]
pub fn lost() -> u64 {
    LOST.load(Relaxed)
}

/// Tells a line that goes to stderr by no log: an error at the end.
pub fn tell(severity: Severity, text: &str) {
    if let Some(remote) = current() {
        remote.send(severity, process::id(), text);
    }
}

/// Waits for a moment until the server of logs was told everything.
pub fn flush() {
    if let Some(remote) = current() {
        remote.flush();
    }
}

/// Where the host's own log writes to beside stderr.
pub(super) struct HostLines;

/// One message of it.
pub(super) struct HostLine(Severity);

impl<'a> MakeWriter<'a> for HostLines {
    type Writer = HostLine;

    fn make_writer(&'a self) -> HostLine {
        HostLine(Severity::Informational)
    }

    fn make_writer_for(&'a self, message: &Metadata<'_>) -> HostLine {
        HostLine(match *message.level() {
            Level::ERROR => Severity::Error,
            Level::WARN => Severity::Warning,
            Level::INFO => Severity::Informational,
            _ => Severity::Debug,
        })
    }
}

/// The library writes a message at once, with its end of line.
impl Write for HostLine {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        tell(self.0, &String::from_utf8_lossy(line));
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
