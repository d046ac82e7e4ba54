//! Fuzzes `checks/module.rs`.
#![no_main]

#[path = "../checks/module.rs"]
mod check;
#[path = "../../loader/src/link.rs"]
#[allow(dead_code, reason = "the file is built here alone, without the engine")]
mod link;
#[path = "../../loader/src/module.rs"]
#[allow(dead_code, reason = "the file is built here alone, without the engine")]
mod module;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| check::check(bytes));
