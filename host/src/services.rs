//! What the host gives its guests: the system's clocks, random bytes from a key that is new with every
//! start of the host, and a way into the log.

use std::io::{self, Read};
use std::time::{SystemTime, UNIX_EPOCH};

use midge_abi::imports::Level;
use midge_loader::context::Services;

use crate::deadline::CoarseClock;
use crate::log::{Event, GuestLog, Line};
use crate::route::FunctionIndex;

/// The key of all random bytes. Drawn once from the system.
#[derive(Clone)]
pub struct RandomKey([u8; 32]);

impl RandomKey {
    /// Draws a key.
    ///
    /// # Errors
    /// If the system's generator cannot be read.
    pub fn draw() -> io::Result<Self> {
        let mut key = [0; 32];
        std::fs::File::open("/dev/urandom")?.read_exact(&mut key)?;
        Ok(Self(key))
    }

    /// Returns bytes that depend on the key and a label, and tell neither.
    #[must_use]
    pub fn derive(&self, label: &[u8]) -> [u8; 32] {
        *blake3::keyed_hash(&self.0, label).as_bytes()
    }
}

/// The services of one function's guests.
pub struct HostServices {
    /// Which function.
    pub function: FunctionIndex,
    /// The host's clock.
    pub clock: CoarseClock,
    /// The key of random bytes.
    pub key: RandomKey,
    /// Where guests' lines go.
    pub log: GuestLog,
}

impl Services for HostServices {
    fn log(&self, request_id: &[u8; 16], level: Level, line: &[u8]) {
        self.log.line(Line {
            request_id: *request_id,
            wall_ns: self.wall_ns(),
            function: self.function,
            event: Event::guest(level, line),
        });
    }

    fn wall_ns(&self) -> u64 {
        wall_ns()
    }

    fn monotonic_ns(&self) -> u64 {
        self.clock.precise_ns()
    }

    fn seed(&self, request_id: &[u8; 16]) -> [u8; 32] {
        self.key.derive(request_id)
    }
}

/// Returns nanoseconds since 1970-01-01 UTC.
#[must_use]
pub fn wall_ns() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}
