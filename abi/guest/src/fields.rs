//! Fields as the host lays them out, of a head or from behind a body:
//!
//! ```text
//!   status: u32 | count: u32 | rows of name and value, offset and size each | their bytes
//! ```

use crate::layout::RequestHeader;

/// In front of the rows: a status, and their count.
const ROWS_START: usize = 8;

/// A block of fields.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Fields<'a> {
    // INVARIANT: empty, or as `midge_abi::fetch::write_head` lays a head out.
    bytes: &'a [u8],
}

impl<'a> Fields<'a> {
    /// Takes a block that the host has written; an empty one has no fields.
    pub(crate) const fn new(bytes: &'a [u8]) -> Self {
        Self { bytes }
    }

    /// Returns the status, or 0 behind a body.
    pub(crate) fn status(&self) -> u16 {
        // It has three digits, which the host checked.
        u16::try_from(self.number(0)).unwrap_or(0)
    }

    /// Returns names, in lower case, and values in the order of their arrival.
    pub(crate) fn rows(&self) -> impl ExactSizeIterator<Item = (&'a [u8], &'a [u8])> + use<'a> {
        let fields = *self;
        let count = if self.bytes.is_empty() { 0 } else { self.number(4) };
        (0..count).map(move |row| {
            let row = ROWS_START + row * size_of::<RequestHeader>();
            (fields.part(row), fields.part(row + 8))
        })
    }

    /// Returns the value of the first field of that name, given in lower case.
    pub(crate) fn get(&self, name: &str) -> Option<&'a [u8]> {
        self.rows().find(|(found, _)| *found == name.as_bytes()).map(|(_, value)| value)
    }

    /// Returns the bytes that offset and size at `at` name.
    fn part(&self, at: usize) -> &'a [u8] {
        let start = self.number(at);
        &self.bytes[start..start + self.number(at + 4)]
    }

    fn number(&self, at: usize) -> usize {
        let bytes = self.bytes[at..].first_chunk().expect("the host wrote whole numbers");
        index(u32::from_le_bytes(*bytes))
    }
}

/// Widens a width of the wire to an index.
const fn index(value: u32) -> usize {
    value as usize
}

#[cfg(test)]
mod tests {
    use std::vec::Vec;

    use super::*;

    #[test]
    fn fields_are_read_where_they_lie() {
        let mut bytes = Vec::new();
        for number in [404, 2, 40, 4, 44, 3, 47, 1, 48, 0_u32] {
            bytes.extend(number.to_le_bytes());
        }
        bytes.extend(b"hosta/bx");
        let fields = Fields::new(&bytes);
        assert_eq!(fields.status(), 404);
        assert!(fields.rows().eq([(&b"host"[..], &b"a/b"[..]), (b"x", b"")]));
        assert_eq!(fields.get("x"), Some(&b""[..]));
        assert_eq!(fields.get("y"), None);
        assert_eq!(Fields::new(&[]).rows().len(), 0);
    }
}
