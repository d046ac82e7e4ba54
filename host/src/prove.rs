//! The requests of `midge prove`: given ones, read from files, and generated ones, drawn from a seed.
//!
//! Invariant: which request is the nth depends on the seed, n and the given files alone, so that any can be
//! made again.

pub mod generate; // requests drawn from a seed
pub mod raw; // a request as bytes, taken apart and put together
