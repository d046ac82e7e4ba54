//! Linking: what is made of a component, or of a module for WASI.
//!
//! The crate that includes this file has `link` at its root.

use wasmparser::Validator;

use crate::link::{is_linked, link};

/// Links what can be linked. What comes of it is valid, and the same each time.
pub(crate) fn check(bytes: &[u8]) {
    if !is_linked(bytes) {
        return;
    }
    if let Ok(linked) = link(bytes) {
        let fault = Validator::new().validate_all(&linked).err();
        assert!(fault.is_none(), "{fault:?}");
        assert_eq!(link(bytes).ok().as_ref(), Some(&linked), "the same bytes");
    }
}
