//! Bytes in, requests out: one worker's network on one ring.
//!
//! A worker owns an [`endpoint::Endpoint`] and pulls events from it: it takes a turn of the ring, then asks
//! for the next event until there is none. Sockets are accepted, read and written by the ring alone; a
//! request is parsed where the kernel put it, and the answer leaves with the next turn.
//!
//! Invariants: an endpoint is used by the thread that made it and shares nothing; on the way of a request
//! there is no lock, no allocation once its pools are warm, and no system call but the ring's enter; every
//! receive buffer has one owner; every byte that a peer makes us keep is bounded by a named limit.
//!
//! Not here: what a request means. This crate knows nothing of WebAssembly, routes or functions.

mod accept; // a socket becomes a connection
mod areas; // pooled bytes for what outlives a turn
pub mod balance; // new connections to a less loaded worker
mod buffers; // receive buffers lent to the kernel
pub mod clock; // time, passed in
mod close; // how a connection ends
mod connection; // the state of one connection, and what follows from it
pub mod counters; // what an endpoint counts
pub mod epoll; // the ring's stand-in where there is none
pub mod endpoint; // turn, next event, respond
pub mod http; // requests and responses as bytes
pub mod inherited; // sockets that the service manager made
pub mod listen; // where connections come from
mod outgoing; // requests to other servers
mod peer; // a peer's address as an accept tells it
mod preface; // what a proxy says of the client before the first request
mod receive; // bytes become requests
pub mod ring; // what the endpoint asks of a ring, and the ids that travel through it
mod send; // responses become bytes on the wire
pub mod settings; // every limit, with its default, its bounds and its reason
mod stream; // bodies piece by piece, both ways
mod shed; // who gives way at the limit of connections
pub mod tier; // which way to the kernel
mod timers; // deadlines on one wheel
pub mod trust; // whose word on a client's address counts
pub mod uring; // the kernel's ring
pub mod wake; // waking a worker from another thread
mod width; // conversions between widths

pub use crate::endpoint::{Endpoint, Event, RequestView};
pub use crate::http::refusal::Refusal;
pub use crate::http::request::{Framing, Head, HeaderSpan, Method, Span};
pub use crate::http::trailers::Trailers;
pub use crate::listen::{ListenOptions, Listener};
pub use crate::outgoing::{
    BodyLength, FetchError, FetchId, FetchRequest, Origin, Owner, Piece, ResponseHead, Timeouts,
    Want,
};
pub use crate::ring::{ConnectionId, Wait};
pub use crate::settings::Settings;
pub use crate::stream::{Unread, Written};
pub use crate::tier::RingTier;
pub use crate::trust::Networks;
