//! Goal: what the specification's test suite does to an instance is undone. Method: every module of the
//! suite that validation accepts becomes a function whose requests call its exports, each twice.

use crate::drive::{Tally, Workbench};
use crate::modules;
use crate::wrap::{STEP_BYTES, Variant, wrap};

/// Functions of a module that are called.
const FUNCTIONS_MAX: u8 = 64;

#[test]
fn the_specifications_modules_are_pristine() {
    let bench = Workbench::new();
    let mut tally = Tally::default();
    let modules = modules::of_specification();
    assert!(1000 < modules.len(), "the suite is there: {}", modules.len());
    for (name, module) in &modules {
        let Ok(whole) = wrap(module, Variant::Whole) else { continue };
        let tame = wrap(module, Variant::Tame).expect("what was read once is read again");
        // Most have nothing to be tamed.
        let variants = if whole == tame { vec![whole] } else { vec![whole, tame] };
        for wasm in variants {
            tally.add(bench.prove_or_panic(name, &wasm, requests(&wasm).into_iter()));
        }
    }
    println!("{tally}");
    assert!(500 < tally.modules && 5000 < tally.compared.calls, "{tally}");
}

/// Returns a request for each function, twice in a row, and all of them in one.
fn requests(wasm: &[u8]) -> Vec<Vec<u8>> {
    let count = function_count(wasm).min(FUNCTIONS_MAX);
    let step = |function: u8| {
        let mut step = vec![0; STEP_BYTES];
        step[0] = function;
        // Arguments that are addresses in the first page, and no zeros.
        for argument in step[1..].chunks_mut(4) {
            argument[0] = 8;
        }
        step
    };
    let each = (0..count).flat_map(|function| [step(function), step(function)]);
    let all = (0..count).flat_map(step).collect();
    each.chain([all]).collect()
}

fn function_count(wasm: &[u8]) -> u8 {
    let mut count = 0;
    for payload in wasmparser::Parser::new(0).parse_all(wasm).flatten() {
        if let wasmparser::Payload::FunctionSection(section) = payload {
            count = section.count();
        }
    }
    u8::try_from(count).unwrap_or(u8::MAX)
}
