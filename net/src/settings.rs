//! Every limit of an endpoint: default, bounds, reason.

use std::time::Duration;

use crate::trust::Networks;

/// Connections of one worker. Each costs under 1 KiB while it idles.
pub const CONNECTIONS_DEFAULT: u32 = 4096;
/// Fewer than this can't even be tested.
pub const CONNECTIONS_MIN: u32 = 1;
/// What a worker's slot numbers are sized for; `RLIMIT_NOFILE` bounds them too.
pub const CONNECTIONS_MAX: u32 = 1 << 20;

/// Most connections of one worker to other servers.
pub const OUTGOING_MAX: u32 = 65_536;

/// Listening sockets of one worker.
pub const LISTENERS_MAX: u32 = 16;

/// Accepts of one listener under way at a time: what one turn takes of a burst. The rest waits in the kernel's queue.
pub const ACCEPTS_MAX: u32 = 32;

/// Receive buffers of one worker. None is held by an idle connection, so this follows the load of one turn.
pub const BUFFERS_DEFAULT: u16 = 512;
/// One buffer still works, slowly.
pub const BUFFERS_MIN: u16 = 1;
/// The kernel's limit for a buffer ring.
pub const BUFFERS_MAX: u16 = 32_768;

/// Size of a receive buffer: a browser's head, many small requests in a pipeline, or what wakes a function that
/// reads a body.
pub const BUFFER_BYTES_DEFAULT: u32 = 16 * 1024;
/// Below this even small heads are copied.
pub const BUFFER_BYTES_MIN: u32 = 64;
/// Larger pieces gain nothing: the kernel copies them anyway.
pub const BUFFER_BYTES_MAX: u32 = 1 << 20;

/// Submission entries: what one turn may queue before an extra enter is needed.
pub const ENTRIES_DEFAULT: u32 = 1024;
/// The least that lets a turn make progress.
pub const ENTRIES_MIN: u32 = 8;
/// The kernel's limit.
pub const ENTRIES_MAX: u32 = 32_768;

/// Completions handled in a turn, so that timers and suspended work get their share.
pub const COMPLETIONS_PER_TURN_DEFAULT: u32 = 256;

/// Bytes of responses that a peer may leave unread before we stop reading from it: multishot receive has no
/// backpressure of its own.
pub const UNSENT_BYTES_DEFAULT: usize = 256 * 1024;

/// Bytes of later requests that are kept while an earlier one is being answered.
pub const PIPELINED_BYTES_DEFAULT: usize = 64 * 1024;

/// Bytes of a streamed body that are kept ahead of the guest's reading: what hides the way to the client.
pub const BODY_WINDOW_BYTES_DEFAULT: usize = 64 * 1024;
/// Least that moves a body at all.
pub const BODY_WINDOW_BYTES_MIN: usize = 1024;

/// Bytes of request bodies that one worker keeps at a time.
pub const BODIES_BYTES_DEFAULT: u64 = 256 * 1024 * 1024;

/// Bytes of a refused body that are read and dropped to save the connection.
pub const DISCARD_BYTES_DEFAULT: u64 = 64 * 1024;

/// Bytes that are read and dropped after our end of the connection was shut.
pub const LINGER_BYTES_DEFAULT: u64 = 64 * 1024;

/// Requests on one connection: after that the peer reconnects, and load spreads again.
pub const REQUESTS_PER_CONNECTION_DEFAULT: u32 = 1_000_000;

/// Longest head, with its request line: what browsers and proxies send, with room.
pub const HEAD_BYTES_DEFAULT: usize = 16 * 1024;
/// Least that may be asked for: a request line of usual length and some headers.
pub const HEAD_BYTES_MIN: usize = 1024;

/// Whole time of a head, from its first byte (and of the first head, from accept).
pub const HEADER_TIMEOUT_DEFAULT: Duration = Duration::from_secs(10);
/// Time before a body's rate is judged.
pub const BODY_GRACE_DEFAULT: Duration = Duration::from_secs(5);
/// Rate of a body after the grace.
pub const BODY_BYTES_PER_SECOND_MIN_DEFAULT: u64 = 1024;
/// Time between two requests.
pub const IDLE_TIMEOUT_DEFAULT: Duration = Duration::from_secs(30);
/// Time without progress of a response.
pub const WRITE_TIMEOUT_DEFAULT: Duration = Duration::from_secs(15);
/// Time that a connection without a request is safe from giving way to newcomers.
pub const SHED_AFTER_DEFAULT: Duration = Duration::from_secs(1);
/// Time for the peer to close after we shut our end.
pub const LINGER_TIMEOUT_DEFAULT: Duration = Duration::from_secs(2);
/// Time until accepting is tried again after the system ran out of something.
pub const ACCEPT_RETRY_DEFAULT: Duration = Duration::from_millis(200);

/// The limits of an endpoint and its ring.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Connections at a time.
    pub connections_max: u32,
    /// Listening sockets. Each always has an accept under way, so up to as many less one are held beyond
    /// `connections_max`.
    pub listeners: u32,
    /// Connections to other servers, that stand beside those.
    pub outgoing_max: u32,
    /// Whose PROXY protocol is believed.
    pub trusted_proxies: Networks,
    /// Connections of one source, an IPv4 address or an IPv6 network of 64 bits.
    pub connections_per_source_max: u32,
    /// Receive buffers; a power of two.
    pub buffers: u16,
    /// Size of a receive buffer.
    pub buffer_bytes: u32,
    /// Submission entries; a power of two.
    pub entries: u32,
    /// Completions handled in a turn.
    pub completions_per_turn: u32,
    /// Unsent bytes above which reading from a connection stops.
    pub unsent_bytes_max: usize,
    /// Unprocessed received bytes above which reading from a connection stops.
    pub pipelined_bytes_max: usize,
    /// Bytes of a streamed body kept ahead of its reader; above it, receiving stops.
    pub body_window_bytes: usize,
    /// Bytes of all request bodies at a time; above it requests with bodies are refused.
    pub bodies_bytes_max: u64,
    /// Rest of a body that is dropped to keep a connection.
    pub discard_bytes_max: u64,
    /// Bytes dropped after our end was shut.
    pub linger_bytes_max: u64,
    /// Requests on one connection.
    pub requests_per_connection_max: u32,
    /// Longest head.
    pub head_bytes_max: usize,
    /// Whole time of a head.
    pub header_timeout: Duration,
    /// Time before a body's rate is judged.
    pub body_grace: Duration,
    /// Least rate of a body.
    pub body_bytes_per_second_min: u64,
    /// Time between two requests.
    pub idle_timeout: Duration,
    /// Time without progress of a response.
    pub write_timeout: Duration,
    /// Time without a request after which a connection gives way to newcomers, when all slots are taken.
    pub shed_after: Duration,
    /// Time for the peer to close after us.
    pub linger_timeout: Duration,
    /// Time until accepting is tried again.
    pub accept_retry: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            connections_max: CONNECTIONS_DEFAULT,
            listeners: 1,
            outgoing_max: 0,
            trusted_proxies: Networks::default(),
            connections_per_source_max: CONNECTIONS_MAX,
            buffers: BUFFERS_DEFAULT,
            buffer_bytes: BUFFER_BYTES_DEFAULT,
            entries: ENTRIES_DEFAULT,
            completions_per_turn: COMPLETIONS_PER_TURN_DEFAULT,
            unsent_bytes_max: UNSENT_BYTES_DEFAULT,
            pipelined_bytes_max: PIPELINED_BYTES_DEFAULT,
            body_window_bytes: BODY_WINDOW_BYTES_DEFAULT,
            bodies_bytes_max: BODIES_BYTES_DEFAULT,
            discard_bytes_max: DISCARD_BYTES_DEFAULT,
            linger_bytes_max: LINGER_BYTES_DEFAULT,
            requests_per_connection_max: REQUESTS_PER_CONNECTION_DEFAULT,
            head_bytes_max: HEAD_BYTES_DEFAULT,
            header_timeout: HEADER_TIMEOUT_DEFAULT,
            body_grace: BODY_GRACE_DEFAULT,
            body_bytes_per_second_min: BODY_BYTES_PER_SECOND_MIN_DEFAULT,
            idle_timeout: IDLE_TIMEOUT_DEFAULT,
            write_timeout: WRITE_TIMEOUT_DEFAULT,
            shed_after: SHED_AFTER_DEFAULT,
            linger_timeout: LINGER_TIMEOUT_DEFAULT,
            accept_retry: ACCEPT_RETRY_DEFAULT,
        }
    }
}

/// A setting outside its bounds.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{name}` is {found}, allowed is {allowed}")]
pub struct SettingsError {
    /// Its field in [`Settings`].
    pub name: &'static str,
    /// What it was set to.
    pub found: u64,
    /// What it may be, in words.
    pub allowed: &'static str,
}

impl Settings {
    /// Returns the number of slots for sockets that are accepted.
    pub(crate) fn slots(&self) -> u32 {
        self.connections_max + self.listeners - 1
    }

    /// Returns the size of the table of sockets.
    pub(crate) fn table_size(&self) -> u32 {
        self.slots() + self.outgoing_max
    }

    /// Checks every setting against its bounds.
    ///
    /// # Errors
    /// The first setting outside them.
    pub fn check(&self) -> Result<(), SettingsError> {
        let within = |name, found: u64, is_allowed, allowed| {
            if is_allowed { Ok(()) } else { Err(SettingsError { name, found, allowed }) }
        };
        within(
            "connections_max",
            self.connections_max.into(),
            (CONNECTIONS_MIN..=CONNECTIONS_MAX).contains(&self.connections_max),
            "1 to 1048576",
        )?;
        within(
            "listeners",
            self.listeners.into(),
            (1..=LISTENERS_MAX).contains(&self.listeners),
            "1 to 16",
        )?;
        within(
            "outgoing_max",
            self.outgoing_max.into(),
            self.outgoing_max <= OUTGOING_MAX,
            "0 to 65536",
        )?;
        within(
            "buffers",
            self.buffers.into(),
            self.buffers.is_power_of_two() && self.buffers <= BUFFERS_MAX,
            "a power of two up to 32768",
        )?;
        within(
            "buffer_bytes",
            self.buffer_bytes.into(),
            (BUFFER_BYTES_MIN..=BUFFER_BYTES_MAX).contains(&self.buffer_bytes),
            "64 to 1048576",
        )?;
        within(
            "entries",
            self.entries.into(),
            self.entries.is_power_of_two() && (ENTRIES_MIN..=ENTRIES_MAX).contains(&self.entries),
            "a power of two from 8 to 32768",
        )?;
        within(
            "head_bytes_max",
            self.head_bytes_max as u64,
            (HEAD_BYTES_MIN..=crate::http::request::HEAD_BYTES_MAX).contains(&self.head_bytes_max),
            "1024 to 32768",
        )?;
        within(
            "body_window_bytes",
            self.body_window_bytes as u64,
            self.body_window_bytes >= BODY_WINDOW_BYTES_MIN,
            "1024 or more",
        )?;
        within(
            "completions_per_turn",
            self.completions_per_turn.into(),
            self.completions_per_turn > 0,
            "1 or more",
        )?;
        within(
            "body_bytes_per_second_min",
            self.body_bytes_per_second_min,
            self.body_bytes_per_second_min > 0,
            "1 or more",
        )
    }
}

/// The most memory that one endpoint takes, by what it is for. Sockets' buffers in the kernel come beside it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MemoryBound {
    /// Receive buffers, the table of connections, the ring, pooled areas: whatever clients do.
    pub fixed_bytes: u64,
    /// All bodies and streams.
    pub bodies_bytes: u64,
    /// One connection: a head or pipelined requests that wait, and responses that are not read, but for the
    /// rest of the last of them.
    pub connection_bytes: u64,
    /// Connections.
    pub connections: u64,
}

impl MemoryBound {
    /// Returns the sum, with `response_bytes_max` for the last response of each connection.
    #[must_use]
    pub fn total_bytes(&self, response_bytes_max: u64) -> u64 {
        let each = self.connection_bytes.saturating_add(response_bytes_max);
        let connections = each.saturating_mul(self.connections);
        connections.saturating_add(self.fixed_bytes).saturating_add(self.bodies_bytes)
    }
}

impl Settings {
    /// Returns the bound on memory that these settings set.
    #[must_use]
    pub fn memory_bound(&self) -> MemoryBound {
        /// Of one slot besides its connection: wheel, queues, the ring's table and its output.
        const SLOT_BYTES: u64 = 128;
        /// Of one entry of the submission queue with its completions.
        const ENTRY_BYTES: u64 = 64 + 4 * 16;
        let slots = u64::from(self.slots());
        let connection = crate::connection::CONNECTION_SIZE_MAX as u64 + SLOT_BYTES;
        let buffers = u64::from(self.buffers) * u64::from(self.buffer_bytes);
        // Received bytes are appended by whole buffers, to memory that grows by doubling.
        let waiting = self.head_bytes_max.max(self.pipelined_bytes_max) as u64;
        let input = 2 * (waiting + u64::from(self.buffer_bytes));
        MemoryBound {
            fixed_bytes: buffers
                + slots * connection
                + u64::from(self.outgoing_max) * crate::outgoing::SOCKET_BYTES_MAX
                + u64::from(self.entries) * ENTRY_BYTES
                + crate::areas::POOL_BYTES_MAX,
            bodies_bytes: self.bodies_bytes_max,
            connection_bytes: input + self.unsent_bytes_max as u64,
            connections: slots,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_within_their_bounds() {
        Settings::default().check().unwrap();
    }

    #[test]
    fn the_bound_grows_with_each_limit() {
        let of = |settings: Settings| settings.memory_bound().total_bytes(0);
        let least = Settings { connections_max: 1, bodies_bytes_max: 0, ..Settings::default() };
        let base = of(least.clone());
        for more in [
            Settings { connections_max: 2, ..least.clone() },
            Settings { buffers: 1024, ..least.clone() },
            Settings { unsent_bytes_max: 1 << 20, ..least.clone() },
            Settings { pipelined_bytes_max: 1 << 20, ..least.clone() },
            Settings { bodies_bytes_max: 1, ..least.clone() },
        ] {
            assert!(base < of(more.clone()), "{more:?}");
        }
        let huge = Settings { bodies_bytes_max: u64::MAX, ..least };
        assert_eq!(of(huge), u64::MAX);
    }

    #[test]
    fn a_setting_outside_its_bounds_is_named() {
        let settings = Settings { buffers: 3, ..Settings::default() };
        assert_eq!(settings.check().unwrap_err().name, "buffers");
        let settings = Settings { connections_max: 0, ..Settings::default() };
        assert_eq!(settings.check().unwrap_err().name, "connections_max");
    }
}
