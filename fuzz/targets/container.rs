//! Fuzzes `checks/container.rs`.
#![no_main]

#[path = "../checks/container.rs"]
mod check;
#[path = "../../loader/src/container.rs"]
#[allow(dead_code, reason = "the file is built here alone, without the engine")]
mod container;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| check::check(bytes));
