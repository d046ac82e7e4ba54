//! Linking: what is made of a component, or of a module for WASI.
//!
//! The crate that includes this file has `link` at its root.

use wasmparser::Validator;

use crate::link::{detach, is_linked, link};

/// Links what can be linked. What comes of it is valid, and the same each time.
pub(crate) fn check(bytes: &[u8]) {
    let (bytes, files) = detach(bytes);
    if !is_linked(bytes) {
        return;
    }
    if let Ok(linked) = link(bytes, files) {
        let fault = Validator::new().validate_all(&linked.wasm).err();
        assert!(fault.is_none(), "{fault:?}");
        let again = link(bytes, files).ok();
        assert_eq!(again.map(|again| again.wasm), Some(linked.wasm), "the same bytes");
    }
}
