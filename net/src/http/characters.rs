//! Which byte may stand where: one table of 256 entries for each question, built by the compiler.
//!
//! Hot path: the tables are read once per byte of a head.

/// Lower case of a `token` byte (RFC 9110, 5.6.2), or 0 where the byte may not stand in one.
pub(crate) static NAME: [u8; 256] = {
    let mut table = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        let character = crate::width::low_byte(byte as u64);
        if character.is_ascii_alphanumeric() || is_one_of(character, b"!#$%&'*+-.^_`|~") {
            table[byte] = character.to_ascii_lowercase();
        }
        byte += 1;
    }
    table
};

/// True where a byte may stand in a request target: visible ASCII but `#`, and what RFC 3986 excludes.
pub(crate) static TARGET: [bool; 256] = {
    let mut table = [false; 256];
    let mut byte = 0x21;
    while byte < 0x7F {
        table[byte] = !is_one_of(crate::width::low_byte(byte as u64), b"#\"<>\\^`{}");
        byte += 1;
    }
    // Sent raw by browsers in queries, harmless to every reader of a target, refused by none we know.
    let mut index = 0;
    while index < TOLERATED.len() {
        table[TOLERATED[index] as usize] = true;
        index += 1;
    }
    table
};

/// Bytes outside RFC 3986 that widely used clients leave unescaped in a query.
const TOLERATED: &[u8] = b"\"^`{}";

/// True where a byte may stand in a registered name (RFC 3986, 3.2.2). The comma is left out on purpose:
/// a list of two hosts is what a merged pair of `Host` lines looks like.
pub(crate) static HOST: [bool; 256] = {
    let mut table = [false; 256];
    let mut byte = 0;
    while byte < 256 {
        let character = crate::width::low_byte(byte as u64);
        table[byte] = character.is_ascii_alphanumeric() || is_one_of(character, b"-._~%!$&'()*+;=");
        byte += 1;
    }
    table
};

/// True where a byte may stand in a header's value: visible, space, tab, and the upper half.
pub(crate) const fn is_value(byte: u8) -> bool {
    (byte >= 0x20 && byte != 0x7F) || byte == b'\t'
}

const fn is_one_of(byte: u8, set: &[u8]) -> bool {
    let mut index = 0;
    while index < set.len() {
        if set[index] == byte {
            return true;
        }
        index += 1;
    }
    false
}
