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
/// `body_read(pointer: i32, size: i32) -> i32`: waits for more of the request's body and puts up to `size`
/// bytes of it into the region. Returns how many; 0 once the body has ended. The client is asked for no more
/// than a window beyond what was read, so a guest that reads slowly slows its client.
pub const BODY_READ: &str = "body_read";
/// `response_start(record: i32)`: sends the head of the response, and the record's body as its first piece.
/// A `content-length` among the headers tells the length of the whole, and binds; without it the pieces go out
/// in chunks. Once for each request; `midge_handle` then returns 0.
pub const RESPONSE_START: &str = "response_start";
/// `response_write(pointer: i32, size: i32)`: sends a piece of the body. Waits while the client has too much
/// of it unread.
pub const RESPONSE_WRITE: &str = "response_write";
/// `sleep_ns(time: i64)`: lets the call rest for a time, between two events of a stream for example.
pub const SLEEP_NS: &str = "sleep_ns";
/// `exit(record: i32)`: ends the call as if `midge_handle` had returned this, and does not return.
pub const EXIT: &str = "exit";

/// `fetch(record: i32) -> i32`: begins a request to another server, described by a
/// [`FetchRecord`](crate::fetch::FetchRecord). Returns its handle, or [`ERRORS_FROM`](crate::fetch::ERRORS_FROM)
/// less the code of an error; so do the others that have a result.
pub const FETCH: &str = "fetch";
/// `fetch_write(handle: i32, pointer: i32, size: i32) -> i32`: sends a piece of the request's body. Returns how
/// much was taken; [`LATER`](crate::fetch::LATER) where there is no room.
pub const FETCH_WRITE: &str = "fetch_write";
/// `fetch_finish(handle: i32) -> i32`: ends the request's body.
pub const FETCH_FINISH: &str = "fetch_finish";
/// `fetch_head(handle: i32, pointer: i32, size: i32) -> i32`: writes the head of the response. Returns its size,
/// or [`LATER`](crate::fetch::LATER).
pub const FETCH_HEAD: &str = "fetch_head";
/// `fetch_read(handle: i32, pointer: i32, size: i32) -> i32`: reads on in the response's body. Returns how much, 0
/// at its end, or [`LATER`](crate::fetch::LATER).
pub const FETCH_READ: &str = "fetch_read";
/// `fetch_close(handle: i32)`: forgets a request and its response.
pub const FETCH_CLOSE: &str = "fetch_close";
/// `wait(rows: i32, count: i32, time: i64) -> i32`: waits until one of these is there
/// ([`WaitRow`](crate::fetch::WaitRow)), or the time is over; a negative one never is. Returns how many are.
pub const WAIT: &str = "wait";

/// `trailers_read(handle: i32, pointer: i32, size: i32) -> i32`: writes what came behind a body that was read to its
/// end: of the response to a request, or, for the handle 0, of the request that is answered. Laid out as the head of a
/// response, with 0 in place of a status. Returns its size, 0 where there are none, or
/// [`LATER`](crate::fetch::LATER) before the end of the body.
pub const TRAILERS_READ: &str = "trailers_read";
/// `trailers_write(handle: i32, rows: i32, count: i32) -> i32`: ends a body, with these fields behind it: of a request,
/// or, for the handle 0, of the response that was started. Returns 0, or as the fetching imports an error. Where a
/// message has no place for trailers, they are left out.
pub const TRAILERS_WRITE: &str = "trailers_write";

/// Guests see no finer clock: a coarse one is a weaker tool for timing attacks (DESIGN, trust).
pub const CLOCK_STEP_NS: u64 = 1_000;
/// A log line is cut here.
pub const LOG_LINE_BYTES_MAX: usize = 1024;
/// Lines that one request may log; further ones are counted, not kept.
pub const LOG_LINES_PER_REQUEST_MAX: u32 = 32;
/// The most random bytes that one call gives; a larger request traps.
pub const RANDOM_BYTES_MAX: u32 = 64 * 1024;
/// The longest rest that one call of [`SLEEP_NS`] gives; a longer one is cut.
pub const SLEEP_NS_MAX: u64 = 3_600_000_000_000;

/// Tells whether an import lets a call wait: the engine runs such modules on fibers from the start.
#[must_use]
pub fn may_wait(name: &str) -> bool {
    const NAMES: [&str; 13] = [
        BODY_READ,
        RESPONSE_START,
        RESPONSE_WRITE,
        SLEEP_NS,
        FETCH,
        FETCH_WRITE,
        FETCH_FINISH,
        FETCH_HEAD,
        FETCH_READ,
        FETCH_CLOSE,
        WAIT,
        TRAILERS_READ,
        TRAILERS_WRITE,
    ];
    NAMES.contains(&name)
}

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
