//! Fuzzes `checks/contract.rs`.
#![no_main]

#[path = "../checks/contract.rs"]
mod check;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| check::check(bytes));
