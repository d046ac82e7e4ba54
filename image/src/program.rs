//! A program for an image: static, for there is no C library beside it, and without what only debuggers read.
//!
//! An ELF file holds segments, which the kernel maps, and sections, which linkers and debuggers read. What
//! lies behind the last segment is of the second kind: it goes, and with it the table of sections.

use crate::bytes::{put, u16_at, u32_at, u64_at};

const MAGIC: &[u8] = b"\x7fELF\x02\x01";
const HEADER_BYTES: usize = 64;
const MACHINE_X86_64: u16 = 62;
/// Most segments of a program; linkers write a dozen.
pub const SEGMENTS_MAX: u16 = 256;
const SEGMENT_BYTES: usize = 56;
/// A segment that names the program's interpreter: the dynamic linker.
const INTERPRETER: u32 = 3;

/// Why a file is no program for an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ProgramError {
    /// Another format.
    #[error("it is no program for 64-bit Linux (ELF)")]
    NoElf,
    /// Another machine.
    #[error("it is a program for another processor than x86-64")]
    Machine,
    /// Its headers lead out of it.
    #[error("it is damaged: its headers lead out of the file")]
    Damaged,
    /// It needs a dynamic linker and libraries.
    #[error("it is linked with shared libraries, which an image does not have")]
    Dynamic,
}

/// Returns the program without what the kernel does not map.
///
/// # Errors
/// [`ProgramError`] says why it cannot be in an image.
pub fn bare(file: &[u8]) -> Result<Vec<u8>, ProgramError> {
    if !file.starts_with(MAGIC) || file.len() < HEADER_BYTES {
        return Err(ProgramError::NoElf);
    }
    if u16_at(file, 18) != Some(MACHINE_X86_64) {
        return Err(ProgramError::Machine);
    }
    let size = |number: u64| usize::try_from(number).map_err(|_| ProgramError::Damaged);
    let table = size(u64_at(file, 32).ok_or(ProgramError::Damaged)?)?;
    let count = u16_at(file, 56).ok_or(ProgramError::Damaged)?;
    if u16_at(file, 54).map(usize::from) != Some(SEGMENT_BYTES) || count > SEGMENTS_MAX {
        return Err(ProgramError::Damaged);
    }
    let mut end = HEADER_BYTES;
    for index in 0..usize::from(count) {
        let at = table.checked_add(index * SEGMENT_BYTES).ok_or(ProgramError::Damaged)?;
        let kind = u32_at(file, at).ok_or(ProgramError::Damaged)?;
        if kind == INTERPRETER {
            return Err(ProgramError::Dynamic);
        }
        let field = |offset| u64_at(file, at.saturating_add(offset)).ok_or(ProgramError::Damaged);
        let last = field(8)?.checked_add(field(32)?).ok_or(ProgramError::Damaged)?;
        end = end.max(size(last)?).max(at.saturating_add(SEGMENT_BYTES));
    }
    let mut program = file.get(..end).ok_or(ProgramError::Damaged)?.to_vec();
    // Offset of the table of sections, and how many there are, and where their names are.
    put(&mut program, 40, &0_u64.to_le_bytes());
    put(&mut program, 60, &[0; 4]);
    Ok(program)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;
    use std::process::Command;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn this_test_is_linked_with_libraries() {
        let own = std::fs::read(std::env::current_exe().unwrap()).unwrap();
        let expected =
            if cfg!(target_feature = "crt-static") { None } else { Some(ProgramError::Dynamic) };
        assert_eq!(bare(&own).err(), expected);
        assert_eq!(bare(b"#!/bin/sh\n"), Err(ProgramError::NoElf));
    }

    #[test]
    fn a_static_program_still_runs_without_its_sections() {
        let folder = tempfile::tempdir().unwrap();
        let source = folder.path().join("a.rs");
        std::fs::write(&source, "fn main() { print!(\"{}\", std::env::args().count()); }").unwrap();
        let built = folder.path().join("a");
        let mut command = Command::new("rustc");
        command.args(["-g", "-C", "target-feature=+crt-static", "-o"]).arg(&built).arg(&source);
        let output = command.output().expect("tests are run by cargo, so there is rustc");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let whole = std::fs::read(&built).unwrap();
        let less = bare(&whole).unwrap();
        assert!(less.len() < whole.len());
        assert_eq!(bare(&less).unwrap(), less, "there is nothing more to take");
        let stripped = folder.path().join("b");
        std::fs::write(&stripped, &less).unwrap();
        std::fs::set_permissions(&stripped, PermissionsExt::from_mode(0o755)).unwrap();
        let output = Command::new(&stripped).arg("x").output().unwrap();
        assert_eq!(output.stdout, b"2");
    }

    proptest! {
        #[test]
        fn damaged_headers_are_refused_or_read(tail in prop::collection::vec(any::<u8>(), 58..300)) {
            let mut file = MAGIC.to_vec();
            file.extend(tail);
            put(&mut file, 18, &MACHINE_X86_64.to_le_bytes());
            drop(bare(&file));
            put(&mut file, 54, &56_u16.to_le_bytes());
            put(&mut file, 56, &2_u16.to_le_bytes());
            put(&mut file, 32, &64_u64.to_le_bytes());
            drop(bare(&file));
        }
    }
}
