//! What an endpoint counts. Plain numbers: one thread writes them, and reads them out.

use crate::http::refusal::Refusal;

/// Numbers since the endpoint was made.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Counters {
    /// Sockets accepted.
    pub accepted: u64,
    /// Times accepting failed.
    pub accept_failed: u64,
    /// Times accepting was paused, at the limit or after a failure.
    pub accept_paused: u64,
    /// Connections closed at the limit, to make room.
    pub connections_shed: u64,
    /// Connections closed because their source has as many as it may.
    pub connections_crowded: u64,
    /// Connections closed because what stood before their first request was no PROXY protocol, or came from
    /// somebody whose word does not count.
    pub prefaces_refused: u64,
    /// Connections sent to another worker; they count as accepted and closed here, and as accepted there.
    pub connections_passed: u64,
    /// Connections closed.
    pub closed: u64,
    /// Requests handed to the host.
    pub requests: u64,
    /// Responses the host gave.
    pub responses: u64,
    /// Responses that had to become a 500, for a line of theirs might have broken out of its place.
    pub responses_unsendable: u64,
    /// Responses in pieces that were cut off.
    pub responses_cut: u64,
    /// Bytes of the budget of bodies that are taken now.
    pub bodies_bytes: u64,
    /// Responses to connections that had gone.
    pub responses_stale: u64,
    /// Refusals, by [`Refusal::index`].
    pub refused: [u64; Refusal::COUNT],
    /// Bytes received.
    pub bytes_received: u64,
    /// Bytes sent.
    pub bytes_sent: u64,
    /// System calls that entered the ring.
    pub enters: u64,
    /// Completions handled.
    pub completions: u64,
    /// Completions of connections that were gone already.
    pub completions_stale: u64,
    /// Receives that found no buffer.
    pub buffers_starved: u64,
    /// Receives stopped because the peer did not read its responses or sent too far ahead.
    pub receives_paused: u64,
    /// Connections lost to an error of the socket.
    pub connections_broken: u64,
    /// Heads that took too long.
    pub timeouts_header: u64,
    /// Bodies that came too slowly.
    pub timeouts_body: u64,
    /// Connections closed for having idled.
    pub timeouts_idle: u64,
    /// Connections closed because the peer took no bytes.
    pub timeouts_write: u64,
    /// Connections closed because the peer did not close after us.
    pub timeouts_linger: u64,
    /// Requests to other servers.
    pub fetches: u64,
    /// Those that went out on a connection that had rested.
    pub fetches_reused: u64,
    /// Those that were sent anew, for that connection had been closed.
    pub fetches_repeated: u64,
    /// Those that had no response.
    pub fetches_failed: u64,
    /// Connections that were begun for them.
    pub fetches_connected: u64,
    /// Times another thread woke this one.
    pub wakes: u64,
}
