//! A million hostile calls, and the host is as it was.
//!
//! Goal: nothing that a guest can do costs memory, descriptors or mappings for good.
//! Method: every kind of harm in turn, over HTTP, in batches; resident memory before and after. The short run is
//! part of every test run, the long one is asked for (CONTRIBUTING.md).

use std::fmt::Write;

use midge_tests::guests::{CLAIMS, EDGE, HARM};
use midge_tests::host::{Host, Setup};
use midge_tests::http::{Client, Request};

/// Calls before memory is looked at for the first time: pools and histograms have their sizes then.
const WARM_UP: usize = 6_000;
/// Calls of the short run.
const SHORT: usize = 6_000;
/// Calls of the long run.
const LONG: usize = 1_000_000;
/// Growth that is no leak, in KiB: pages that an allocator keeps. A byte for each call of the long run would be a
/// megabyte, so this finds a leak of 16.
const GROWTH_KIB_MAX: u64 = 16 * 1024;
/// Requests that are sent before the first answer is read.
const BATCH: usize = 50;
/// One in so many batches holds what takes long: a loop to its deadline, all memory, a flood of lines.
const HEAVY_ONE_IN: usize = 100;

/// Functions by technique: what is set back, what is thrown away, what the engine pools.
const TECHNIQUES: [&str; 3] = ["restore", "cow", "pool"];

fn host() -> Host {
    // Without the log, which this test would have to hold: floods of lines are another test's (`running.rs`).
    let mut settings = String::from("[log]\nlevel = \"off\"\n");
    for technique in TECHNIQUES {
        for (module, limits) in [
            ("claims", "response = \"1 KiB\"\n"),
            ("harm", "deadline = \"20ms\"\nmemory = \"4 MiB\"\n"),
            ("edge", ""),
        ] {
            writeln!(
                settings,
                "[[function]]\nname = \"{module}-{technique}\"\nmodule = \"{module}.wat\"\n\
                 route = \"/{module}/{technique}\"\ntechnique = \"{technique}\"\n{limits}"
            )
            .expect("a string takes what is written");
        }
    }
    let setup = Setup::new().file("claims.wat", CLAIMS).file("harm.wat", HARM);
    setup.file("edge.wat", EDGE).serve(&settings)
}

/// The harm of one batch: a request, and the statuses that it may get. The deadline is short, for loops run to it;
/// so on a busy machine any of these may meet it.
fn harm(technique: &str, number: usize) -> (Request, &'static [u16]) {
    let get = |letter: &str| Request::get(&format!("/harm/{technique}?{letter}"));
    let post = |path: &str, words: &[u32]| {
        let body: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
        Request::post(&format!("/{path}/{technique}"), &body)
    };
    if number.is_multiple_of(HEAVY_ONE_IN) {
        return match number / HEAVY_ONE_IN % 3 {
            0 => (get("b"), &[504]),
            1 => (get("f"), &[200, 504]),
            _ => (get("g"), &[200, 504]),
        };
    }
    match number % 8 {
        0 => (get("c"), &[502, 504]),
        1 => (get("d"), &[502, 504]),
        2 => (get("e"), &[502, 504]),
        3 => (get("h"), &[201, 504]),
        // Deep in the stack a memory grows, or does not.
        4 => (post("edge", &[4_000, 5]), &[200]),
        // A body at the last address; a header table of a wrong size; no response.
        5 => (post("claims", &[1024, 1036, u32::MAX]), &[502]),
        6 => (post("claims", &[1024, 1028, 1 << 28]), &[502]),
        _ => (post("claims", &[0]), &[502]),
    }
}

fn do_harm(client: &mut Client, calls: usize) {
    for number in 0..calls / BATCH {
        let technique = TECHNIQUES[number % TECHNIQUES.len()];
        let (request, expected) = harm(technique, number);
        let count = if number.is_multiple_of(HEAVY_ONE_IN) { 1 } else { BATCH };
        client.send(&request.bytes().repeat(count));
        for _ in 0..count {
            let status = client.receive().status;
            assert!(expected.contains(&status), "{status} for {}", request.line);
        }
    }
}

fn check(calls: usize) {
    let host = host();
    let mut client = host.client();
    do_harm(&mut client, WARM_UP);
    let (before, descriptors) = (host.resident_kib(), host.descriptor_count());
    let mappings = host.proc("maps").lines().count();
    do_harm(&mut client, calls);
    let after = host.resident_kib();
    let mappings_after = host.proc("maps").lines().count();
    midge_tests::tell(&format!(
        "{calls} calls: {before} KiB before, {after} after; {mappings} mappings before, {mappings_after} after"
    ));
    assert!(after < before + GROWTH_KIB_MAX, "from {before} to {after} KiB");
    assert!(mappings_after < mappings + 1000, "from {mappings} to {mappings_after} mappings");
    assert_eq!(host.descriptor_count(), descriptors);
    for technique in TECHNIQUES {
        assert_eq!(client.get(&format!("/claims/{technique}")).text(), "ok\n");
        assert_eq!(client.get(&format!("/harm/{technique}?a")).status, 200);
    }
    assert_eq!(host.metrics().sum("midge_queue_depth", &[]), 0);
}

#[test]
fn thousands_of_hostile_calls_leave_nothing_behind() {
    check(SHORT);
}

#[test]
#[ignore = "minutes: cargo test --release -p midge-tests --test hostile a_million -- --ignored --nocapture"]
fn a_million_hostile_calls_leave_nothing_behind() {
    check(LONG);
}
