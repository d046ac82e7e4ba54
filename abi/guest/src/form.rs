//! Queries and forms: `a=b&c=d`, with `%41` and `+` undone (WHATWG URL, application/x-www-form-urlencoded).

use crate::heap;

/// Returns the decoded value of the first parameter of that name.
pub(crate) fn parameter<'a>(query: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    query.split(|&byte| byte == b'&').find_map(|pair| match pair.strip_prefix(name)? {
        [] => Some(&[][..]),
        [b'=', value @ ..] => Some(decode(value)),
        _ => None,
    })
}

/// Decodes into the heap; borrows where nothing is encoded. Malformed escapes stay as they are.
fn decode(text: &[u8]) -> &[u8] {
    if !text.iter().any(|byte| matches!(byte, b'%' | b'+')) {
        return text;
    }
    heap::fill(text.len(), |decoded| {
        let (mut read, mut written) = (0, 0);
        while read < text.len() {
            let (byte, size) = match text[read..] {
                [b'%', high, low, ..] if let Some(byte) = hex(high, low) => (byte, 3),
                [b'+', ..] => (b' ', 1),
                _ => (text[read], 1),
            };
            decoded[written] = byte;
            (read, written) = (read + size, written + 1);
        }
        written
    })
}

fn hex(high: u8, low: u8) -> Option<u8> {
    let digit = |byte: u8| char::from(byte).to_digit(16);
    u8::try_from(digit(high)? * 16 + digit(low)?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_found_and_decoded() {
        let check = |query: &[u8], value: Option<&[u8]>| {
            assert_eq!(parameter(query, b"name"), value, "{}", query.escape_ascii());
        };
        check(b"", None);
        check(b"name", Some(b""));
        check(b"name=", Some(b""));
        check(b"names=x", None);
        check(b"a=name&name=b&name=c", Some(b"b"));
        check(b"name=a+b%21%C3%a9", Some(b"a b!\xC3\xA9"));
        check(b"name=%", Some(b"%"));
        check(b"name=%4", Some(b"%4"));
        check(b"name=%4g+", Some(b"%4g "));
        check(b"name=a=b", Some(b"a=b"));
    }
}
