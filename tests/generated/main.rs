//! Generated evidence that a restored instance cannot be told from a fresh one: modules that nobody wrote,
//! built, started and called as functions are, each call against a fresh instance (`midge_loader::proof`).
//!
//! ```text
//!   modules   a seed becomes a module full of state, by wasm-smith (`tests/modules`)
//!   wrap      any module becomes a function: what the contract asks for is added around it
//!   drive     a function and a seed become calls, compared; a difference becomes files for the corpus
//!   spec      the modules of the WebAssembly specification's test suite
//! ```
//!
//! `cargo test -p midge-tests --release --test prove_generated -- --ignored --nocapture` goes on for
//! `MIDGE_PROVE_CALLS` calls, 10 million if it is not set, from the seed `MIDGE_PROVE_SEED` on.

mod corpus; // every difference that was ever found, and what is likely to become one
mod drive; // calls, compared
mod modules; // where modules come from
mod spec; // the specification's modules
mod wrap; // any module becomes a function

use drive::{Tally, Workbench};

/// Modules of the default test, and calls of each.
const MODULES: u64 = 16;
const CALLS: u64 = 40;
/// Calls of each module in the long run: compiling it costs about as much as these.
const CALLS_LONG: u64 = 2000;
/// Calls of the long run if the environment does not say.
const CALLS_TOTAL_DEFAULT: u64 = 10_000_000;
/// Modules that are generated at once.
const SEEDS_AT_ONCE: usize = 20;
/// Calls between two lines of progress.
const PROGRESS_CALLS: u64 = 100_000;

#[test]
fn generated_modules_are_pristine() {
    let bench = Workbench::new();
    let tally = bench.prove_seeds(0, MODULES, CALLS);
    println!("{tally}");
    // What was driven must be worth it: a generator that makes modules of one kind shows nothing.
    let Tally { compared, modules, changing, .. } = tally;
    assert!(MODULES <= modules, "most modules are accepted, and driven in two variants: {modules}");
    assert!(compared.calls / 2 <= compared.changes, "most calls leave something");
    assert!(20 * MODULES <= compared.calls && compared.calls / 3 <= compared.restores);
    assert!(compared.calls / 20 <= compared.traps && compared.traps <= compared.calls * 19 / 20);
    assert!(0 < compared.records && 0 < compared.segments && 0 < compared.table_elements);
    assert!(changing.tables && changing.growth && changing.globals && changing.drops);
}

#[test]
#[ignore = "minutes to hours: see the head of this file for the command"]
fn generated_modules_are_pristine_for_long() {
    let number = |name: &str, default| match std::env::var_os(name) {
        None => default,
        Some(text) => text.to_str().and_then(|text| text.parse().ok()).expect("a number"),
    };
    let calls_total: u64 = number("MIDGE_PROVE_CALLS", CALLS_TOTAL_DEFAULT);
    let first_seed: u64 = number("MIDGE_PROVE_SEED", MODULES);
    let bench = Workbench::new();
    let mut tally = Tally::default();
    let mut shown = 0;
    for seed in (first_seed..).step_by(SEEDS_AT_ONCE) {
        tally.add(bench.prove_seeds(seed, SEEDS_AT_ONCE as u64, CALLS_LONG));
        let calls = tally.compared.calls;
        if shown + PROGRESS_CALLS <= calls || calls_total <= calls {
            shown = calls;
            println!("seed {seed}: {tally}");
        }
        if calls_total <= calls {
            return;
        }
    }
}
