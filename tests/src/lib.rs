//! midge from the outside: helpers to start the built program, to talk to it byte by byte, and to stop it.
//!
//! ```text
//!   program   finds or builds the program, runs a command to its end
//!   host      a running host with a folder of its own and free ports, killed when dropped
//!   http      a client that sends what it is told and reads what comes
//!   machine   the program as the first process of a machine, in namespaces
//!   metrics   the numbers of `/metrics`
//!   wait      waiting for a condition, with a bound
//! ```
//!
//! Tests go through these alone, so that a change of the program's face is made in one place.

#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a test tells what it skips, and what a host said"
)]

pub mod console; // what a machine says
pub mod guests; // the guests of these tests, and the examples
pub mod host; // a running host
pub mod http; // requests and responses as bytes
pub mod machine; // the program as the first process of a machine
pub mod metrics; // the numbers of `/metrics`
pub mod program; // the program and its commands
pub mod wait; // waiting with a bound

/// Says what a test has measured: shown with `--nocapture`.
pub fn tell(figures: &str) {
    println!("{figures}");
}

/// Says that a test, or a part of it, cannot run on this machine, and why.
pub fn skip(reason: &str) {
    println!("skipped: {reason}");
}
