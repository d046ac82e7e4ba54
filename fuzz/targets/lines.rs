//! Fuzzes `checks/lines.rs`.
#![no_main]

#[path = "../checks/lines.rs"]
mod check;
#[path = "../../loader/src/lines.rs"]
#[allow(dead_code, reason = "the file is built here alone, without the engine")]
mod lines;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| check::check(bytes));
