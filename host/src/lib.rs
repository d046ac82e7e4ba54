//! The parts of the `midge` program.
//!
//! A library only so that the program's own tests and its generated documentation can reach them: nothing
//! else depends on this package.
#![forbid(unsafe_code)]

pub mod admin; // health and metrics over HTTP
pub mod cli; // the command line
pub mod commands; // one file for each command
pub mod config; // midge.toml, environment and flags become settings, each with its origin
pub mod doctor; // what the machine offers
pub mod log; // the host's own log, and that of the data plane
pub mod output; // the one place that prints
pub mod route; // host and path to a function
pub mod stats; // counters: a worker writes, the admin thread reads
