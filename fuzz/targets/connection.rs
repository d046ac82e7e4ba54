//! Fuzzes `checks/connection.rs` on the simulated kernel.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| midge_net::endpoint::check::check(bytes));
