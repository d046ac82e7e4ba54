//! Goal: no bytes of a guest or an artifact make a decoder panic, or hand out what is not there.
//! Method: the checks of the fuzz targets (`fuzz/README.md`), on mutated inputs of their corpora.

#[path = "../../fuzz/checks/contract.rs"]
mod contract;
#[path = "../../fuzz/checks/manifest.rs"]
mod manifest;
#[path = "../../fuzz/checks/mutate.rs"]
mod mutate;
#[path = "../../fuzz/checks/response.rs"]
mod response;

/// Mutated inputs for each decoder: a second or two.
const ROUNDS: u32 = 100_000;

#[test]
fn mutated_contract_records_are_read_or_refused() {
    mutate::rounds("contract", ROUNDS, contract::check);
}

#[test]
fn mutated_manifests_are_read_or_refused() {
    mutate::rounds("manifest", ROUNDS, manifest::check);
}

#[test]
fn mutated_responses_are_read_or_refused() {
    mutate::rounds("response", ROUNDS, response::check);
}
