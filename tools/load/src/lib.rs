//! Load for HTTP/1.1 servers on a ring of its own: requests are due by a schedule that no server can delay,
//! latency counts from when a request was due, and every byte that comes back is checked.
//!
//! ```text
//!   schedule   when requests are due
//!   plan       what is sent, and what must come back
//!   client     one thread: due requests onto connections, responses off them
//!   response   bytes become responses
//!   record     what was measured
//!   run        threads, put together
//! ```
//!
//! Invariants: a request that was due is answered, failed, or counted as unanswered, and latencies of none are
//! left out; a run says whether the generator itself was its limit.
//!
//! Not here: what a server costs. `midge-lab` starts servers and reads their CPU time.
#![forbid(unsafe_code)]

pub mod client; // one thread of load
pub mod output; // the one place that prints results
pub mod plan; // what is sent, and what must come back
pub mod plot; // lines over logarithmic axes, as SVG
pub mod record; // what was measured
pub mod response; // bytes become responses
pub mod run; // threads, put together
pub mod schedule; // when requests are due
pub mod trace; // many functions, as clouds see them
