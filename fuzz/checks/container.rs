//! An artifact's container, by somebody who can compute hashes: damaged as it is, and with hashes that match.
//!
//! The crate that includes this file has `container` at its root.

use crate::container::{self, ROW_SIZE, SECTION_COUNT_MAX, SectionBytes, encode};

/// Reads the bytes as they are, and once more with hashes that match.
pub(crate) fn check(bytes: &[u8]) {
    read(bytes);
    let mut resealed = bytes.to_vec();
    if reseal(&mut resealed).is_some() {
        read(&resealed);
    }
}

fn read(bytes: &[u8]) {
    let Ok((engine, sections)) = container::read(bytes) else { return };
    let mut end = 0;
    for section in &sections {
        assert!(end <= section.range.start && section.range.start < section.range.end);
        assert!(section.range.end <= bytes.len());
        end = section.range.end;
    }
    let sections: Vec<_> = sections
        .iter()
        .map(|section| SectionBytes {
            kind: section.kind,
            bytes: bytes[section.range.clone()].to_vec(),
        })
        .collect();
    // The encoder leaves the smallest gaps; a file with larger ones is another file that says the same.
    let again = encode(engine, &sections);
    assert!(again.len() <= bytes.len());
    let (_, read) = container::read(&again).expect("what was encoded is sound");
    assert_eq!(read.len(), sections.len());
}

/// Makes size, hashes of sections and hash of the head match what is there, as far as the table can be followed.
fn reseal(bytes: &mut [u8]) -> Option<()> {
    let size = u64::try_from(bytes.len()).ok()?;
    bytes.get_mut(0..8)?.copy_from_slice(&container::MAGIC);
    bytes.get_mut(8..12)?.copy_from_slice(&container::FORMAT.to_le_bytes());
    bytes.get_mut(32..40)?.copy_from_slice(&size.to_le_bytes());
    let count = usize::from(bytes[12]) % (SECTION_COUNT_MAX + 2);
    bytes[12..16].copy_from_slice(&u32::try_from(count).ok()?.to_le_bytes());
    let head = ROW_SIZE * (1 + count);
    let start = |bytes: &[u8], index: usize| {
        let field = bytes.get(ROW_SIZE * (1 + index) + 8..)?.first_chunk()?;
        usize::try_from(u64::from_le_bytes(*field)).ok()
    };
    for index in 0..count {
        let from = start(bytes, index)?;
        let to = if index + 1 < count { start(bytes, index + 1)? } else { bytes.len() };
        let hash = blake3::hash(bytes.get(from..to)?);
        let row = ROW_SIZE * (1 + index);
        bytes.get_mut(row + 24..row + 56)?.copy_from_slice(hash.as_bytes());
    }
    let first = if count == 0 { bytes.len() } else { start(bytes, 0)? };
    let mut hasher = blake3::Hasher::new();
    hasher.update(bytes.get(..head)?).update(bytes.get(head + 32..first)?);
    let hash = *hasher.finalize().as_bytes();
    bytes.get_mut(head..head + 32)?.copy_from_slice(&hash);
    Some(())
}
