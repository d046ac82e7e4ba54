//! What a host tells whoever started it, in the protocol of `sd_notify` (systemd): that it is ready, that it
//! stops, that it lives. The first process of a midge machine (`boot.rs`) listens to the same.
//!
//! A message is a datagram with lines `NAME=VALUE`, sent to the socket that the environment names.

use std::env;
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::{Duration, Instant};

/// The variable that names the socket: a path, or an abstract name behind `@`.
pub const SOCKET: &str = "NOTIFY_SOCKET";
/// The variable that says how often a sign of life is expected, in microseconds.
pub const WATCHDOG: &str = "WATCHDOG_USEC";
/// It serves.
pub const READY: &str = "READY=1";
/// It begins to end.
pub const STOPPING: &str = "STOPPING=1";
/// It lives.
pub const ALIVE: &str = "WATCHDOG=1";

/// The way to whoever started this process; leads nowhere if nobody asked.
#[derive(Debug, Default)]
pub struct Notify {
    target: Option<(UnixDatagram, SocketAddr)>,
    alive_every: Option<Duration>,
    told: Option<Instant>,
}

impl Notify {
    /// Reads the environment.
    ///
    /// # Errors
    /// If the socket that it names cannot be spoken to.
    pub fn from_environment() -> io::Result<Self> {
        let Some(name) = env::var_os(SOCKET).filter(|name| !name.is_empty()) else {
            return Ok(Self::default());
        };
        let address = match name.as_bytes().split_first() {
            Some((b'@', name)) => SocketAddr::from_abstract_name(name)?,
            _ => SocketAddr::from_pathname(&name)?,
        };
        let within = env::var_os(WATCHDOG).and_then(|text| text.to_str()?.parse().ok());
        // Twice as often as asked, as the protocol advises.
        let alive_every = within.map(|microseconds: u64| Duration::from_micros(microseconds) / 2);
        Ok(Self { target: Some((UnixDatagram::unbound()?, address)), alive_every, told: None })
    }

    /// Tells something.
    pub fn tell(&self, what: &str) {
        if let Some((socket, address)) = &self.target {
            // Whoever asked may be gone; a server serves on.
            drop(socket.send_to_addr(what.as_bytes(), address));
        }
    }

    /// Gives a sign of life, if one is expected and the last was long ago.
    pub fn is_alive(&mut self) {
        let Some(every) = self.alive_every else { return };
        let now = Instant::now();
        if self.told.is_none_or(|told| every <= now.duration_since(told)) {
            self.tell(ALIVE);
            self.told = Some(now);
        }
    }
}
