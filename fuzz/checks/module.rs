//! A module's facts: validation, and what is read off it before it is compiled.
//!
//! The crate that includes this file has `module` at its root.

use crate::module::{
    EXPORT_PREFIX, MEMORY_COUNT_MAX, MUTABLE_GLOBAL_COUNT_MAX, ModuleFacts, SECTION_COUNT_MAX,
};

/// Reads the facts, and compares them with their limits.
pub(crate) fn check(bytes: &[u8]) {
    if let Ok(facts) = ModuleFacts::read(bytes) {
        assert!(facts.memories.len() <= MEMORY_COUNT_MAX);
        assert!(facts.globals.len() <= MUTABLE_GLOBAL_COUNT_MAX);
        assert!(facts.sections.len() <= SECTION_COUNT_MAX);
        assert!(facts.exports.iter().any(|export| export.name == "memory"));
        assert!(!facts.exports.iter().any(|export| export.name.starts_with(EXPORT_PREFIX)));
    }
}
