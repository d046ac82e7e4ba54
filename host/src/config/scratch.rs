//! `scratch` of a function: the folder in memory that a program or a component may write to.

use std::fmt;

use midge_loader::files::{SCRATCH_PATH_DEFAULT, Scratch};

use super::keys;
use super::unit::{ByteSize, Quantity};

/// A folder in memory, or none.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ScratchFolder(pub Option<Scratch>);

impl fmt::Display for ScratchFolder {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            None => formatter.pad("none"),
            Some(Scratch { guest, bytes }) => {
                formatter.pad(&format!("{}:{guest}", ByteSize((*bytes).into()).show()))
            }
        }
    }
}

/// Reads `SIZE` or `SIZE:GUEST-PATH`.
///
/// # Errors
/// What is wrong with it.
pub fn scratch(text: &str) -> Result<Scratch, String> {
    let (size, guest) = text.split_once(':').unwrap_or((text, SCRATCH_PATH_DEFAULT));
    if !Scratch::is_guest_path(guest) {
        return Err("the path has 1 to 255 bytes, and no control character".into());
    }
    let bytes = keys::SCRATCH.read(size)?.0;
    let bytes = u32::try_from(bytes).map_err(|_| "it is too large".to_owned())?;
    Ok(Scratch { guest: guest.to_owned(), bytes })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_size_and_a_path_are_read() {
        let of = |bytes, guest: &str| Ok(Scratch { guest: guest.into(), bytes });
        assert_eq!(scratch("64 MiB"), of(64 << 20, "/tmp"));
        assert_eq!(scratch("64KiB:/var/work"), of(64 << 10, "/var/work"));
        assert_eq!(scratch("1MiB:a:b"), of(1 << 20, "a:b"));
        assert_eq!(ScratchFolder(scratch("1MiB").ok()).to_string(), "1 MiB:/tmp");
        for wrong in ["", "64", "63KiB", "513MiB", "1TiB", "1MiB:", "1MiB:\n", ":/tmp"] {
            assert!(scratch(wrong).is_err(), "{wrong:?}");
        }
        assert!(scratch(&format!("1MiB:{}", "x".repeat(256))).is_err());
    }
}
