//! An artifact's manifest: what is decoded is encoded to the same value.

use midge_abi::manifest::Manifest;

/// Decodes the bytes.
pub(crate) fn check(bytes: &[u8]) {
    if let Ok(manifest) = Manifest::decode(bytes) {
        // Compared as bytes, and once more decoded: the encoding is one to one.
        let again = Manifest::decode(&manifest.encode()).expect("what was encoded is decoded");
        assert_eq!(again, manifest);
    }
}
