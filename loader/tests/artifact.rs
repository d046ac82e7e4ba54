//! Goal: nothing of an artifact that is not exactly what the builder wrote is ever mapped to be run.
//! Method: a small artifact, with every byte changed and every end cut off in turn.

use midge_abi::manifest::Traces;
use midge_loader::artifact::{Artifact, ArtifactError};
use midge_loader::build::build;
use midge_loader::container::{ContainerError, FORMAT, Section, SectionBytes, SectionKind, encode};
use midge_loader::engine::{EngineKind, Engines};

const GUEST: &str = r#"(module
  (memory (export "memory") 2)
  (data (i32.const 64) "MDGE\01\00\00\00\00\00\01\00\00\00\01\00")
  (func (export "midge_contract") (result i32) (i32.const 64))
  (func (export "midge_handle") (param i32 i32) (result i32) (i32.const 0)))"#;

fn built() -> (Engines, Vec<u8>) {
    let engines = Engines::new();
    let bytes = build("small.wat", GUEST.as_bytes(), &engines).expect("the guest is sound").bytes;
    (engines, bytes)
}

fn refused(bytes: &[u8], engines: &Engines) -> ArtifactError {
    Artifact::from_bytes(bytes, engines).expect_err("it is not what was built")
}

#[test]
fn every_changed_byte_is_found() {
    let (engines, whole) = built();
    Artifact::from_bytes(&whole, &engines).unwrap();
    let mut changed = whole.clone();
    for position in 0..whole.len() {
        // One bit of each byte, another one each time, and all bits of it.
        for mask in [1 << (position % 8), 0xFF] {
            changed[position] ^= mask;
            let accepted = Artifact::from_bytes(&changed, &engines).is_ok();
            assert!(!accepted, "byte {position} of {}, changed by {mask:#x}", whole.len());
            changed[position] ^= mask;
        }
    }
}

#[test]
fn every_truncation_is_found() {
    let (engines, whole) = built();
    for length in 0..whole.len() {
        let error = refused(&whole[..length], &engines);
        let is_told = match error {
            ArtifactError::Container(ContainerError::Magic) => length < 64,
            ArtifactError::Container(ContainerError::Truncated { expected_bytes, found_bytes }) => {
                expected_bytes == whole.len() as u64 && found_bytes == length as u64
            }
            _ => false,
        };
        assert!(is_told, "{length} bytes: {error}");
    }
    let longer = [&whole[..], &[0]].concat();
    assert!(matches!(
        refused(&longer, &engines),
        ArtifactError::Container(ContainerError::Truncated { .. })
    ));
}

#[test]
fn a_newer_format_is_refused_by_its_number() {
    let (engines, mut bytes) = built();
    bytes[8..12].copy_from_slice(&(FORMAT + 1).to_le_bytes());
    let error = refused(&bytes, &engines);
    assert!(
        matches!(error, ArtifactError::Container(ContainerError::Format { found }) if found == FORMAT + 1),
        "{error}"
    );
    assert!(error.to_string().contains("build it with this version of midge"), "{error}");
}

/// Returns the sections of an artifact, to be put together anew.
fn sections(bytes: &[u8], engines: &Engines) -> Vec<SectionBytes> {
    let artifact = Artifact::from_bytes(bytes, engines).expect("just built");
    let section = |section: &Section| SectionBytes {
        kind: section.kind,
        bytes: bytes[section.range.clone()].to_vec(),
    };
    artifact.sections().iter().map(section).collect()
}

#[test]
fn another_engines_artifact_is_refused_with_the_command_that_builds_it() {
    let (engines, bytes) = built();
    let foreign = encode([7; 16], &sections(&bytes, &engines));
    let error = refused(&foreign, &engines);
    assert!(matches!(error, ArtifactError::EngineMismatch { .. }), "{error}");
    assert!(error.to_string().ends_with("midge build small.wat"), "{error}");
}

#[test]
fn sections_that_lie_with_right_hashes_are_refused() {
    let (engines, bytes) = built();
    let with = |change: &dyn Fn(&mut Vec<SectionBytes>)| {
        let mut sections = sections(&bytes, &engines);
        change(&mut sections);
        refused(
            &encode(engines.get(EngineKind::Mapped, Traces::Functions).unwrap().id().0, &sections),
            &engines,
        )
    };
    let manifest = |sections: &mut Vec<SectionBytes>| {
        sections.iter().position(|section| section.kind == SectionKind::Manifest).unwrap()
    };
    let error = with(&|sections| {
        let position = manifest(sections);
        sections.remove(position);
    });
    assert!(
        matches!(error, ArtifactError::Container(ContainerError::Table { .. })),
        "no manifest: {error}"
    );
    let error = with(&|sections| {
        let position = manifest(sections);
        sections[position].bytes[0] ^= 0xFF;
    });
    assert!(matches!(error, ArtifactError::Manifest(_)), "another schema: {error}");
    let error = with(&|sections| {
        let position = manifest(sections);
        let half = sections[position].bytes.len() / 2;
        sections[position].bytes.truncate(half);
    });
    assert!(matches!(error, ArtifactError::Manifest(_)), "half a manifest: {error}");
    let error = with(&|sections| {
        let is_image = |section: &SectionBytes| section.kind == SectionKind::Image;
        let position = sections.iter().position(is_image).unwrap();
        sections[position].bytes.truncate(100);
    });
    assert!(matches!(error, ArtifactError::Image(_)), "an image too short: {error}");
    let error = with(&|sections| sections.iter_mut().for_each(|section| section.bytes.clear()));
    assert!(
        matches!(error, ArtifactError::Container(ContainerError::Table { .. })),
        "empty sections: {error}"
    );
}
