//! The parts of the `midge` program.
//!
//! A library only so that the program's own tests and its generated documentation can reach them: nothing
//! else depends on this package.
#![forbid(unsafe_code)]

pub mod config; // midge.toml, environment and flags become settings, each with its origin
pub mod route; // host and path to a function
pub mod stats; // counters: a worker writes, the admin thread reads
