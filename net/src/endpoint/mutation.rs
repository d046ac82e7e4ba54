//! Goal: whatever a peer sends, in whatever pieces, is answered as a reader of the whole says it must be, and with
//! the same bytes on every way to the kernel.
//! Method: the checks of the fuzz targets (`fuzz/README.md`), on mutated scripts of their corpus.

use super::check;

#[path = "../../../fuzz/checks/mutate.rs"]
mod mutate;

/// Mutated scripts on the simulated kernel: a few seconds.
const ROUNDS: u32 = 600;
/// And over loopback.
const ROUNDS_OF_TIERS: u32 = 100;

#[test]
fn mutated_scripts_are_answered_as_a_whole_is() {
    mutate::rounds("connection", ROUNDS, check::check);
}

#[test]
fn mutated_scripts_are_answered_alike_on_every_tier() {
    mutate::rounds("connection", ROUNDS_OF_TIERS, check::check_tiers);
}
