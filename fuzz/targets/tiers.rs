//! Fuzzes `checks/connection.rs` on the simulated kernel, over epoll and over a ring. Takes the corpus of `connection`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| midge_net::endpoint::check::check_tiers(bytes));
