//! A module's facts: validation, and what is read off it before it is compiled.
#![no_main]

use libfuzzer_sys::fuzz_target;

#[path = "../../loader/src/module.rs"]
#[allow(dead_code, reason = "the file is built here alone, without the engine")]
mod module;

use module::{MEMORY_COUNT_MAX, MUTABLE_GLOBAL_COUNT_MAX, ModuleFacts, SECTION_COUNT_MAX};

fuzz_target!(|bytes: &[u8]| {
    if let Ok(facts) = ModuleFacts::read(bytes) {
        assert!(facts.memories.len() <= MEMORY_COUNT_MAX);
        assert!(facts.globals.len() <= MUTABLE_GLOBAL_COUNT_MAX);
        assert!(facts.sections.len() <= SECTION_COUNT_MAX);
        assert!(facts.exports.iter().any(|export| export.name == "memory"));
    }
});
