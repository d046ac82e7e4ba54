//! Names of images on a disk that boots one of several: what systemd-boot sorts by, and counts tries in
//! (systemd, Automatic Boot Assessment).
//!
//! ```text
//!   midge-7-0123456789abcdef.efi         it has served; of those the highest number is started
//!   midge-8-fedcba9876543210+2.efi       it is on trial: two starts are left
//!   midge-8-fedcba9876543210+0-2.efi     it has failed: the others come first
//! ```
//!
//! The loader counts down, by a new name, before it starts one; what runs takes the count away once it serves.

use std::fmt::{self, Display, Formatter};

use sha2::{Digest, Sha256};

use crate::bytes::hexadecimal;

/// The folder that the loader looks into.
pub const FOLDER: &str = "EFI/Linux";
/// How often an image may fail before the one before it is started again: once can be chance.
pub const TRIES: u32 = 2;

const START: &str = "midge-";
const END: &str = ".efi";
const ID_BYTES: usize = 8;

/// A name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Higher than that of the image which it was installed over.
    pub number: u64,
    /// Which image ([`id`]).
    pub id: String,
    /// Starts that are left and starts that were made, until it has served.
    pub trial: Option<(u32, u32)>,
}

impl Entry {
    /// Reads a name; `None` for files of others.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        let (number, rest) = name.strip_prefix(START)?.strip_suffix(END)?.split_once('-')?;
        let (id, counts) = match rest.split_once('+') {
            Some((id, counts)) => (id, Some(counts)),
            None => (rest, None),
        };
        let trial = match counts.map(|counts| counts.split_once('-').unwrap_or((counts, "0"))) {
            Some((left, done)) => Some((left.parse().ok()?, done.parse().ok()?)),
            None => None,
        };
        is_id(id).then_some(Self { number: number.parse().ok()?, id: id.to_owned(), trial })
    }
}

impl Display for Entry {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> fmt::Result {
        let Self { number, id, trial } = self;
        write!(formatter, "{START}{number}-{id}")?;
        match trial {
            None => {}
            Some((left, 0)) => write!(formatter, "+{left}")?,
            Some((left, done)) => write!(formatter, "+{left}-{done}")?,
        }
        formatter.write_str(END)
    }
}

/// Returns true for what [`id`] returns.
#[must_use]
pub fn is_id(text: &str) -> bool {
    text.len() == 2 * ID_BYTES && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

/// Names an image by what it is made of.
#[must_use]
pub fn id(parts: &[&[u8]]) -> String {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update((part.len() as u64).to_le_bytes());
        hash.update(part);
    }
    hexadecimal(&hash.finalize()[..ID_BYTES])
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn names_of_others_are_none_of_ours() {
        let read = Entry::parse("midge-8-fedcba9876543210+1-1.efi").unwrap();
        assert_eq!((read.number, read.trial), (8, Some((1, 1))));
        for name in [
            "",
            "midge.efi",
            "midge-1-0123.efi",
            "midge-1-0123456789ABCDEF.efi",
            "midge-x-0123456789abcdef.efi",
            "midge-1-0123456789abcdef+x.efi",
            "midge-1-0123456789abcdef.efi.new",
            "midge-1-../../../../../a.efi",
        ] {
            assert_eq!(Entry::parse(name), None, "{name}");
        }
    }

    #[test]
    fn an_id_tells_parts_apart() {
        let one = id(&[b"ab", b"c"]);
        assert!(is_id(&one));
        assert_ne!(one, id(&[b"a", b"bc"]));
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(number: u64, content: Vec<u8>, trial: Option<(u32, u32)>) {
            let entry = Entry { number, id: id(&[&content]), trial };
            prop_assert_eq!(Entry::parse(&entry.to_string()), Some(entry));
        }

        #[test]
        fn no_name_is_too_odd(name in "(midge-)?[-+0-9a-f]{0,30}(.efi)?") {
            if let Some(entry) = Entry::parse(&name) {
                prop_assert_eq!(Entry::parse(&entry.to_string()), Some(entry));
            }
        }
    }
}
