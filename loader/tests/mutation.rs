//! Goal: no artifact and no module makes a reader panic, whoever computed its hashes.
//! Method: the checks of the fuzz targets (`fuzz/README.md`), on mutated inputs of their corpora.

use midge_loader::{container, lines, link, module};

#[path = "../../fuzz/checks/container.rs"]
mod check_container;
#[path = "../../fuzz/checks/lines.rs"]
mod check_lines;
#[path = "../../fuzz/checks/link.rs"]
mod check_link;
#[path = "../../fuzz/checks/module.rs"]
mod check_module;
#[path = "../../fuzz/checks/mutate.rs"]
mod mutate;

/// Mutated inputs for each reader: a second or two.
const ROUNDS: u32 = 20_000;

#[test]
fn mutated_containers_are_read_or_refused() {
    mutate::rounds("container", ROUNDS, check_container::check);
}

#[test]
fn mutated_modules_are_read_or_refused() {
    mutate::rounds("module", ROUNDS, check_module::check);
}

#[test]
fn mutated_components_are_linked_or_refused() {
    mutate::rounds("link", ROUNDS, check_link::check);
}

#[test]
fn mutated_debug_information_is_read_or_left_out() {
    mutate::rounds("lines", ROUNDS, check_lines::check);
}
