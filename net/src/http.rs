//! HTTP/1.1 as bytes: requests in, responses out, no socket in sight.

pub(crate) mod characters; // which byte may stand where
pub mod chunked; // a body in chunks
pub mod refusal; // why a request was not taken, and its status
pub mod request; // the head of a request
pub mod response; // the head of a response
pub mod status; // status lines
pub mod trailers; // fields behind a body
