//! What the lab's program and the criterion benches share: guests, calls, and a way to measure.

pub mod guests; // guests with chosen state
pub mod hot; // what runs for each request beside the call
pub mod harness; // one function under one technique, called in process
pub mod measure; // CPU time, rounds, medians
