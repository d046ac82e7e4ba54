//! A request as environment variables (RFC 3875 4.1), read from its block.

use crate::index;

// Offsets in a request's head (`RequestHead`).
const FLAGS: usize = 8;
const HEADER_COUNT: usize = 12;
const HEADERS: usize = 16;
const METHOD_NAME: usize = 24;
const TARGET: usize = 32;
const PATH: usize = 40;
const QUERY: usize = 48;
const AUTHORITY: usize = 56;
const BODY: usize = 64;
const PEER_ADDRESS: usize = 96;
const PEER_PORT: usize = 112;
const HTTP_1_0: u32 = 1;
const BODY_PARTIAL: u32 = 2;
/// Names of rows that are no headers: no client can send them, for `:` is no part of a name.
const ROW_ARGUMENT: &[u8] = b":argument";
const ROW_ENVIRONMENT: &[u8] = b":environment";

/// Writes strings, each with a zero behind it.
#[derive(Debug)]
pub struct Writer<'a> {
    target: &'a mut [u8],
    size: Option<usize>,
    count: u32,
}

impl<'a> Writer<'a> {
    /// Makes one of a region.
    #[must_use]
    pub const fn new(target: &'a mut [u8]) -> Self {
        Self { target, size: Some(0), count: 0 }
    }

    /// Returns the size of all, if all had room.
    #[must_use]
    pub const fn size(&self) -> Option<usize> {
        self.size
    }

    /// Returns how many strings there are.
    #[must_use]
    pub const fn count(&self) -> u32 {
        self.count
    }

    fn put(&mut self, bytes: &[u8]) {
        self.size = self.size.and_then(|size| {
            self.target.get_mut(size..size + bytes.len())?.copy_from_slice(bytes);
            Some(size + bytes.len())
        });
    }

    fn end(&mut self) {
        self.put(&[0]);
        self.count += 1;
    }

    /// Writes a string. What stands behind a zero in it would be lost, so it ends there.
    fn string(&mut self, bytes: &[u8]) {
        let end = bytes.iter().position(|&byte| byte == 0).unwrap_or(bytes.len());
        self.put(&bytes[..end]);
        self.end();
    }

    fn variable(&mut self, name: &[u8], value: &[u8]) {
        self.put(name);
        self.put(b"=");
        self.string(value);
    }
}

fn number(block: &[u8], at: usize) -> u32 {
    let bytes = block.get(at..).and_then(|rest| rest.first_chunk());
    bytes.map_or(0, |bytes| u32::from_le_bytes(*bytes))
}

fn span(block: &[u8], at: usize) -> &[u8] {
    let (start, size) = (index(number(block, at)), index(number(block, at + 4)));
    block.get(start..start + size).unwrap_or_default()
}

fn rows(block: &[u8]) -> impl Iterator<Item = (&[u8], &[u8])> {
    let (start, count) = (index(number(block, HEADERS)), index(number(block, HEADER_COUNT)));
    (0..count).map(move |row| (span(block, start + row * 16), span(block, start + row * 16 + 8)))
}

/// Writes the arguments: the program's name, and those that the host was given.
pub fn arguments(block: &[u8], writer: &mut Writer<'_>) {
    writer.string(b"program");
    for (_, value) in rows(block).filter(|(name, _)| *name == ROW_ARGUMENT) {
        writer.string(value);
    }
}

/// Writes the environment.
pub fn environment(block: &[u8], writer: &mut Writer<'_>) {
    let path = span(block, PATH);
    writer.variable(b"GATEWAY_INTERFACE", b"CGI/1.1");
    writer.variable(b"SERVER_SOFTWARE", b"midge");
    let is_1_0 = number(block, FLAGS) & HTTP_1_0 != 0;
    writer.variable(b"SERVER_PROTOCOL", if is_1_0 { b"HTTP/1.0" } else { b"HTTP/1.1" });
    writer.variable(b"REQUEST_METHOD", span(block, METHOD_NAME));
    writer.variable(b"REQUEST_URI", span(block, TARGET));
    writer.variable(b"SCRIPT_NAME", b"");
    writer.put(b"PATH_INFO=");
    decoded(path, writer);
    writer.end();
    writer.variable(b"QUERY_STRING", span(block, QUERY));
    let is_told = rows(block).any(|(name, _)| name == b"content-length");
    let (body_size, is_partial) =
        (number(block, BODY + 4), number(block, FLAGS) & BODY_PARTIAL != 0);
    if body_size > 0 && !is_told && !is_partial {
        writer.put(b"CONTENT_LENGTH=");
        decimal(body_size, writer);
        writer.end();
    }
    server(span(block, AUTHORITY), writer);
    peer(block, writer);
    for (name, value) in rows(block) {
        match name {
            b"content-length" => writer.variable(b"CONTENT_LENGTH", value),
            b"content-type" => writer.variable(b"CONTENT_TYPE", value),
            ROW_ENVIRONMENT => writer.string(value),
            // RFC 3875 4.1.18 and 9.2: what authenticates stays with the server. HTTP_PROXY would be taken for
            // a setting of the program's own.
            b"authorization" | b"proxy-authorization" | b"proxy" | ROW_ARGUMENT => {}
            _ if is_second(block, name, value) => {}
            _ => header(block, name, writer),
        }
    }
}

/// True if the row is not the first of its name.
fn is_second(block: &[u8], name: &[u8], value: &[u8]) -> bool {
    rows(block)
        .find(|(other, _)| *other == name)
        .is_some_and(|(_, first)| first.as_ptr() != value.as_ptr())
}

/// Writes `HTTP_NAME=value`; several headers of a name become one (RFC 3875 4.1.18).
fn header(block: &[u8], name: &[u8], writer: &mut Writer<'_>) {
    writer.put(b"HTTP_");
    for byte in name {
        writer.put(&[if *byte == b'-' { b'_' } else { byte.to_ascii_uppercase() }]);
    }
    writer.put(b"=");
    let between: &[u8] = if name == b"cookie" { b"; " } else { b", " };
    for (place, (_, value)) in rows(block).filter(|(other, _)| *other == name).enumerate() {
        if place > 0 {
            writer.put(between);
        }
        writer.put(value);
    }
    writer.end();
}

/// Writes a path with its percent signs decoded; a zero would end the string, and is left as it is.
fn decoded(path: &[u8], writer: &mut Writer<'_>) {
    let mut rest = path;
    while let Some((&byte, behind)) = rest.split_first() {
        let escaped = (byte == b'%').then(|| behind.first_chunk::<2>()).flatten();
        let value = escaped.and_then(|digits| {
            let digits = core::str::from_utf8(digits).ok()?;
            u8::from_str_radix(digits, 16)
                .ok()
                .filter(|value| *value != 0 && !digits.starts_with('+'))
        });
        writer.put(&[value.unwrap_or(byte)]);
        rest = if value.is_some() { &behind[2..] } else { behind };
    }
}

/// Writes name and port of the server, as the client named them.
fn server(authority: &[u8], writer: &mut Writer<'_>) {
    let colon = authority.iter().rposition(|&byte| byte == b':');
    let port = colon
        .map(|colon| &authority[colon + 1..])
        .filter(|port| !port.is_empty() && port.iter().all(u8::is_ascii_digit));
    let name = match (port, colon) {
        (Some(_), Some(colon)) => &authority[..colon],
        _ => authority,
    };
    writer.variable(b"SERVER_NAME", name);
    writer.variable(b"SERVER_PORT", port.unwrap_or(b"80"));
}

/// Writes the client's address.
fn peer(block: &[u8], writer: &mut Writer<'_>) {
    let Some(address) = block.get(PEER_ADDRESS..).and_then(|rest| rest.first_chunk::<16>()) else {
        return;
    };
    let address = core::net::Ipv6Addr::from(*address);
    writer.put(b"REMOTE_ADDR=");
    match address.to_ipv4_mapped() {
        Some(address) => {
            for (place, octet) in address.octets().into_iter().enumerate() {
                if place > 0 {
                    writer.put(b".");
                }
                decimal(octet.into(), writer);
            }
        }
        None => groups(address.segments(), writer),
    }
    writer.end();
    writer.put(b"REMOTE_PORT=");
    decimal(number(block, PEER_PORT) & 0xFFFF, writer);
    writer.end();
}

/// Writes an address of IPv6 in its recommended form (RFC 5952 4): the first of the longest runs of two zeros
/// or more is left out. Without the standard library's formatting, which would double this module's size.
fn groups(groups: [u16; 8], writer: &mut Writer<'_>) {
    let run = |start: usize| groups[start..].iter().take_while(|&&group| group == 0).count();
    // The first of equal ones: the last that is largest, from the end.
    let longest = (0..8).rev().max_by_key(|&start| run(start)).unwrap_or(0);
    let (start, size) = if run(longest) > 1 { (longest, run(longest)) } else { (8, 0) };
    for (place, group) in groups.into_iter().enumerate() {
        if place == start {
            writer.put(if place == 0 { b"::" } else { b":" });
        }
        if (start..start + size).contains(&place) {
            continue;
        }
        let digits = (1..4).rev().find(|digit| group >> (digit * 4) != 0).unwrap_or(0);
        for digit in (0..=digits).rev() {
            let value = group >> (digit * 4) & 15;
            writer.put(&[b"0123456789abcdef"[usize::from(value)]]);
        }
        if place < 7 {
            writer.put(b":");
        }
    }
}

fn decimal(number: u32, writer: &mut Writer<'_>) {
    let mut digits = [0; 10];
    let (mut rest, mut start) = (number, digits.len());
    loop {
        start -= 1;
        digits[start] = b'0' + (rest % 10).to_le_bytes()[0];
        rest /= 10;
        if rest == 0 {
            return writer.put(&digits[start..]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(write: impl FnOnce(&mut Writer<'_>)) -> String {
        let mut bytes = [0; 256];
        let mut writer = Writer::new(&mut bytes);
        write(&mut writer);
        let size = writer.size().unwrap();
        String::from_utf8(bytes[..size].to_vec()).unwrap()
    }

    proptest::proptest! {
        #[test]
        fn addresses_are_written_as_the_standard_library_does(
            segments: [u16; 8],
            zeros: u8,
        ) {
            let mut segments = segments;
            for (place, segment) in segments.iter_mut().enumerate() {
                if zeros & 1 << place != 0 {
                    *segment = 0;
                }
            }
            let address = core::net::Ipv6Addr::from(segments);
            // Those the standard library writes with dots at the end.
            let is_mixed = address.to_ipv4_mapped().is_some();
            if !is_mixed {
                assert_eq!(text(|writer| groups(segments, writer)), address.to_string());
            }
        }

        #[test]
        fn numbers_are_written_as_the_standard_library_does(number: u32) {
            assert_eq!(text(|writer| decimal(number, writer)), number.to_string());
        }
    }

    #[test]
    fn percent_signs_are_decoded_once() {
        let decoded = |path: &str| text(|writer| decoded(path.as_bytes(), writer));
        assert_eq!(decoded("/a%20b%2Fc"), "/a b/c");
        assert_eq!(decoded("/%2525%zz%4%00%+1"), "/%25%zz%4%00%+1");
    }

    #[test]
    fn servers_have_their_port() {
        let of = |authority: &str| text(|writer| server(authority.as_bytes(), writer));
        assert_eq!(of("a.b:81"), "SERVER_NAME=a.b\0SERVER_PORT=81\0");
        assert_eq!(of("[::1]:8080"), "SERVER_NAME=[::1]\0SERVER_PORT=8080\0");
        assert_eq!(of("[::1]"), "SERVER_NAME=[::1]\0SERVER_PORT=80\0");
        assert_eq!(of(""), "SERVER_NAME=\0SERVER_PORT=80\0");
    }

    #[test]
    fn what_has_no_room_is_told() {
        let mut bytes = [0; 4];
        let mut writer = Writer::new(&mut bytes);
        writer.string(b"abcd");
        assert_eq!(writer.size(), None);
        writer.string(b"");
        assert_eq!(writer.size(), None);
    }
}
