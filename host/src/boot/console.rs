//! Where people look: every console that the kernel has, serial lines and the screen; and a server of logs, if the boot
//! names one.

use std::fs::{self, File, OpenOptions};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::SocketAddr;
use std::sync::Arc;
use std::thread;

use rustix::time::{ClockId, clock_gettime};

use crate::output::{self, printable};
use crate::syslog::{NIL, Severity, Syslog, Target};

/// Consoles that are active: one line, names with spaces between them.
const ACTIVE: &str = "/sys/class/tty/console/active";
/// Most of them.
const CONSOLES_MAX: usize = 8;
/// Bytes of a line of the server's log that are taken at once; what is longer is two.
const LINE_BYTES_MAX: u64 = 64 * 1024;

/// Takes lines for people.
#[derive(Debug, Default)]
pub(super) struct Console {
    /// None of them: stderr, which the kernel has opened.
    devices: Vec<File>,
    remote: Option<Syslog>,
}

impl Console {
    /// What there is before anything is mounted.
    pub(super) fn first() -> Self {
        Self::default()
    }

    /// All that the kernel has, once it can be asked; and a server of logs, if there is to be one.
    pub(super) fn all(log: Option<SocketAddr>) -> Self {
        let active = fs::read_to_string(ACTIVE).unwrap_or_default();
        let names = active.split_whitespace().take(CONSOLES_MAX);
        let open = |name| OpenOptions::new().write(true).open(format!("/dev/{name}")).ok();
        let mut console = Self { devices: names.filter_map(open).collect(), remote: None };
        // Nobody names such a machine; and nobody asks it for what was lost, but the server of logs is told.
        if let Some(log) = log {
            match Syslog::start(Target::udp(log), NIL, Arc::default()) {
                Ok(remote) => console.remote = Some(remote),
                Err(error) => {
                    console.say(&format!("the server of logs {log} is not told anything: {error}"));
                }
            }
        }
        console
    }

    /// Returns true if somebody else is told, too.
    pub(super) const fn has_remote(&self) -> bool {
        self.remote.is_some()
    }

    /// Passes on what a process says, in a thread that ends with it.
    pub(super) fn pass_on(
        self: &Arc<Self>,
        process: u32,
        source: impl Read + Send + 'static,
    ) -> std::io::Result<()> {
        let console = Arc::clone(self);
        let work = move || {
            let (mut source, mut line) = (BufReader::new(source), Vec::new());
            while matches!((&mut source).take(LINE_BYTES_MAX).read_until(b'\n', &mut line), Ok(1..))
            {
                console.write(&line);
                if let Some(remote) = &console.remote {
                    let text = String::from_utf8_lossy(&line);
                    remote.send(Severity::of_line(&text), process, &text);
                }
                line.clear();
            }
        };
        thread::Builder::new().name("midge-lines".into()).spawn(work).map(drop)
    }

    /// Waits for a moment until the server of logs was told everything.
    pub(super) fn flush(&self) {
        if let Some(remote) = &self.remote {
            remote.flush();
        }
    }

    /// Says something, with the time since the kernel began.
    pub(super) fn say(&self, text: &str) {
        let now = clock_gettime(ClockId::Boottime);
        let (seconds, milliseconds) = (now.tv_sec, now.tv_nsec / 1_000_000);
        let line = format!("midge[1]: {seconds}.{milliseconds:03} {}\n", printable(text));
        self.write(line.as_bytes());
        if let Some(remote) = &self.remote {
            remote.send(Severity::Informational, 1, text);
        }
    }

    fn write(&self, line: &[u8]) {
        if self.devices.is_empty() {
            output::complain(&String::from_utf8_lossy(line));
        }
        for mut device in &self.devices {
            // A console that is gone cannot be told so.
            drop(device.write_all(line));
        }
    }
}
