//! Where people look: every console that the kernel has, serial lines and the screen.

use std::fs::{self, File, OpenOptions};
use std::io::Write;

use rustix::time::{ClockId, clock_gettime};

use crate::output::{self, printable};

/// Consoles that are active: one line, names with spaces between them.
const ACTIVE: &str = "/sys/class/tty/console/active";
/// Most of them.
const CONSOLES_MAX: usize = 8;

/// Takes lines for people.
#[derive(Debug, Default)]
pub(super) struct Console {
    /// None of them: stderr, which the kernel has opened.
    devices: Vec<File>,
}

impl Console {
    /// What there is before anything is mounted.
    pub(super) fn first() -> Self {
        Self::default()
    }

    /// All that the kernel has, once it can be asked.
    pub(super) fn with_all(&self) -> Self {
        let active = fs::read_to_string(ACTIVE).unwrap_or_default();
        let names = active.split_whitespace().take(CONSOLES_MAX);
        let open = |name| OpenOptions::new().write(true).open(format!("/dev/{name}")).ok();
        Self { devices: names.filter_map(open).collect() }
    }

    /// Says something, with the time since the kernel began.
    pub(super) fn say(&self, text: &str) {
        let now = clock_gettime(ClockId::Boottime);
        let (seconds, milliseconds) = (now.tv_sec, now.tv_nsec / 1_000_000);
        let line = format!("midge[1]: {seconds}.{milliseconds:03} {}\n", printable(text));
        if self.devices.is_empty() {
            output::complain(&line);
        }
        for mut device in &self.devices {
            // A console that is gone cannot be told so.
            drop(device.write_all(line.as_bytes()));
        }
    }
}
