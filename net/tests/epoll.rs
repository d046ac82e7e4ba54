//! The suite of `endpoint.rs` over epoll: the same bytes are to come of it.

#[path = "endpoint.rs"]
mod endpoint;
