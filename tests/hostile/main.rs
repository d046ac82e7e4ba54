//! Guests and clients that mean harm: each is bounded, and nobody else notices.

mod bombs; // modules that a compiler does not survive
mod claims; // responses that are not true
mod clients; // connections that are dropped
mod long; // all of it, over and over: nothing is left behind
mod modules; // modules that are not built
mod running; // loops, recursion, memory, traps, floods
