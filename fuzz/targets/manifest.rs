//! An artifact's manifest.
#![no_main]

use libfuzzer_sys::fuzz_target;
use midge_abi::manifest::Manifest;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(manifest) = Manifest::decode(bytes) {
        // Compared as bytes, and once more decoded: the encoding is one to one.
        let again = Manifest::decode(&manifest.encode()).expect("what was encoded is decoded");
        assert_eq!(again, manifest);
    }
});
