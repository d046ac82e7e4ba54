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
const PEER_ADDRESS: usize = 96;
const PEER_PORT: usize = 112;
const HTTP_1_0: u32 = 1;
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
    use core::fmt::Write;

    struct Text<'w, 'a>(&'w mut Writer<'a>);
    impl Write for Text<'_, '_> {
        fn write_str(&mut self, text: &str) -> core::fmt::Result {
            self.0.put(text.as_bytes());
            Ok(())
        }
    }

    let Some(address) = block.get(PEER_ADDRESS..).and_then(|rest| rest.first_chunk::<16>()) else {
        return;
    };
    let address = core::net::Ipv6Addr::from(*address);
    writer.put(b"REMOTE_ADDR=");
    let text = &mut Text(writer);
    let written = match address.to_ipv4_mapped() {
        Some(address) => write!(text, "{address}"),
        None => write!(text, "{address}"),
    };
    // Writing to memory does not fail; what has no room is told by `size`.
    debug_assert!(written.is_ok());
    writer.end();
    writer.put(b"REMOTE_PORT=");
    let text = &mut Text(writer);
    let written = write!(text, "{}", number(block, PEER_PORT) & 0xFFFF);
    debug_assert!(written.is_ok());
    writer.end();
}
