//! Lines: what is read of a module's DWARF, and of the table that is made of it.
//!
//! The crate that includes this file has `lines` at its root.

use crate::lines::{Lines, NoLines, Origin, read};

/// Reads a module as if it had been linked as it is, then looks places up.
pub(crate) fn check(bytes: &[u8]) {
    let origins = [Origin { module: bytes, first_function: 0 }];
    match read(bytes, &origins) {
        Ok(table) => {
            look(&table);
            // The same each time: an artifact has a hash.
            assert_eq!(read(bytes, &origins).ok(), Some(table), "the same table");
        }
        // What is refused is told in a line.
        Err(NoLines::Broken(error)) => assert!(!error.to_string().contains('\n')),
        Err(_) => {}
    }
    // A table is trusted no further than its artifact, which has a hash; still nothing of it may hurt.
    look(bytes);
}

fn look(table: &[u8]) {
    let Some(lines) = Lines::view(table) else { return };
    for function in 0..32 {
        for offset in (0..256).step_by(5) {
            let mut frames = 0;
            for frame in lines.frames(function, offset) {
                frames += 1;
                assert!(frame.place.is_none_or(|place| place.file.len() <= table.len()));
            }
            assert!(frames <= table.len(), "each has a row");
        }
    }
}
