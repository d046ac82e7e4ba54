//! Fuzzes `checks/chunked.rs`.
#![no_main]

#[path = "../checks/chunked.rs"]
mod check;
#[path = "../checks/cuts.rs"]
mod cuts;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| check::check(bytes));
