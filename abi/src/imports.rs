//! What a guest may call: module, names and limits of the imports.
//!
//! All of them are the host's to control (which clock, which chance), so that a run can be replayed.

/// Module name of all imports of the contract.
pub const MODULE: &str = "midge";
/// `log(level: i32, pointer: i32, size: i32)`: one line for the host's log.
pub const LOG: &str = "log";
/// `clock_wall_ns() -> i64`: nanoseconds since 1970-01-01 UTC, in steps of [`CLOCK_STEP_NS`].
pub const CLOCK_WALL_NS: &str = "clock_wall_ns";
/// `clock_monotonic_ns() -> i64`: nanoseconds since the request began, in steps of [`CLOCK_STEP_NS`].
pub const CLOCK_MONOTONIC_NS: &str = "clock_monotonic_ns";
/// `random(pointer: i32, size: i32)`: fills the region with random bytes, other ones for every request.
pub const RANDOM: &str = "random";

/// Guests see no finer clock: a coarse one is a weaker tool for timing attacks (DESIGN, trust).
pub const CLOCK_STEP_NS: u64 = 1_000;
/// A log line is cut here.
pub const LOG_LINE_BYTES_MAX: usize = 1024;
/// Lines that one request may log; further ones are counted, not kept.
pub const LOG_LINES_PER_REQUEST_MAX: u32 = 32;
/// The most random bytes that one call gives; a larger request traps.
pub const RANDOM_BYTES_MAX: u32 = 64 * 1024;

/// Levels of [`LOG`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Level {
    /// Something failed.
    Error = 1,
    /// Something is odd.
    Warn = 2,
    /// Worth a line.
    Info = 3,
    /// For whoever looks for a fault.
    Debug = 4,
}

impl Level {
    /// Returns the level of a guest's number; unknown ones count as `Info`.
    #[must_use]
    pub const fn from_guest(level: i32) -> Self {
        match level {
            1 => Self::Error,
            2 => Self::Warn,
            4 => Self::Debug,
            _ => Self::Info,
        }
    }

    /// Returns the level's name in lower case.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warn => "warn",
            Self::Info => "info",
            Self::Debug => "debug",
        }
    }
}
