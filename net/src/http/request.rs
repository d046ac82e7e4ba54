//! The head of a request: checked and measured where it lies.
//!
//! ```text
//!   GET /a?b HTTP/1.1 CRLF   Name:  value  CRLF   ...   CRLF
//!   method   target          name   value                  <- spans into the head, never copies
//! ```
//!
//! The parser reads from left to right, and every refusal depends on the bytes up to some point alone. So the
//! outcome doesn't depend on how the bytes were split: feeding growing prefixes gives, in the end, what
//! feeding all of them at once gives. Header names are lower-cased in place; a second look at the same bytes
//! finds them lower-cased already and comes to the same end.
//!
//! Where the standard leaves a choice, this is the strict side: a request that two readers could understand
//! in two ways is refused.
//!
//! Hot path: `parse`.

use super::characters::{HOST, NAME, TARGET, is_value};
use super::refusal::Refusal;
use crate::width::span;

/// Size of a head, from its method to its empty line: what large cookies need, and twice that.
pub const HEAD_BYTES_MAX: usize = 32 * 1024;

/// Size of a target: the floor that RFC 9112, 3 asks every server to take.
pub const TARGET_BYTES_MAX: usize = 8000;

/// Header lines in a head: twice what browsers behind several proxies send.
pub const HEADERS_MAX: usize = 100;

/// Empty lines that are skipped before a request line (RFC 9112, 2.2 asks for one at least).
pub const EMPTY_LINES_MAX: usize = 2;

/// Size of a method: above it no name is known.
const METHOD_BYTES_MAX: usize = 24;

const _: () = assert!(HEAD_BYTES_MAX <= 0xFFFF, "spans hold sixteen bits");
const _: () = assert!(TARGET_BYTES_MAX < HEAD_BYTES_MAX);

/// A region of the head.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Span {
    /// Bytes from the first byte of the head.
    pub offset: u16,
    /// Size in bytes.
    pub size: u16,
}

impl Span {
    /// Returns the bytes it stands for.
    ///
    /// # Panics
    /// If `head` is not the head that this span was found in.
    #[inline]
    #[must_use]
    pub fn of(self, head: &[u8]) -> &[u8] {
        let offset = usize::from(self.offset);
        &head[offset..offset + usize::from(self.size)]
    }

    #[inline]
    const fn between(start: usize, end: usize) -> Self {
        Self { offset: span(start), size: span(end - start) }
    }
}

/// One header line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct HeaderSpan {
    /// Its name, in lower case.
    pub name: Span,
    /// Its value, without the space around it.
    pub value: Span,
}

/// A method this server has heard of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Method {
    /// GET.
    Get,
    /// HEAD.
    Head,
    /// POST.
    Post,
    /// PUT.
    Put,
    /// DELETE.
    Delete,
    /// OPTIONS.
    Options,
    /// PATCH.
    Patch,
    /// TRACE.
    Trace,
}

/// How the end of a body is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framing {
    /// There is no body.
    None,
    /// The body has this many bytes.
    Length(u64),
    /// The body comes in chunks.
    Chunked,
}

/// Whether a head is complete.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// More bytes are needed.
    Partial,
    /// The head is complete and described.
    Complete,
}

/// What a head says. All spans are relative to its first byte, after skipped empty lines.
#[derive(Debug, Clone)]
pub struct Head {
    /// Method.
    pub method: Method,
    /// Method as sent.
    pub method_name: Span,
    /// Target as sent.
    pub target: Span,
    /// Path of the target; empty in the absolute form without a path (`http://host`), which means `/`.
    pub path: Span,
    /// Query of the target without `?`.
    pub query: Span,
    /// Host and port: from an absolute target, else from `Host`; empty in HTTP/1.0 without either.
    pub authority: Span,
    /// 0 for HTTP/1.0, else 1.
    pub version_minor: u8,
    /// How the body ends.
    pub framing: Framing,
    /// True if the peer wants to go on after this request.
    pub keep_alive: bool,
    /// True if the peer waits for `100 Continue` before it sends the body.
    pub expects_continue: bool,
    /// Size of the head with its empty line.
    pub bytes: u16,
    /// Size of the empty lines before it.
    pub bytes_skipped: u8,
    header_count: u8,
    headers: [HeaderSpan; HEADERS_MAX],
}

impl Default for Head {
    fn default() -> Self {
        Self {
            method: Method::Get,
            method_name: Span::default(),
            target: Span::default(),
            path: Span::default(),
            query: Span::default(),
            authority: Span::default(),
            version_minor: 1,
            framing: Framing::None,
            keep_alive: true,
            expects_continue: false,
            bytes: 0,
            bytes_skipped: 0,
            header_count: 0,
            headers: [HeaderSpan::default(); HEADERS_MAX],
        }
    }
}

impl Head {
    /// Returns the header lines in the order they were sent.
    #[inline]
    #[must_use]
    pub fn headers(&self) -> &[HeaderSpan] {
        &self.headers[..usize::from(self.header_count)]
    }

    /// Returns the size of head and skipped lines together: where the body starts.
    #[inline]
    #[must_use]
    pub fn bytes_total(&self) -> usize {
        usize::from(self.bytes) + usize::from(self.bytes_skipped)
    }
}

/// Reads a head from the front of `bytes` and describes it in `head`.
///
/// Lower-cases header names in `bytes`. On `Partial` and on a refusal `head` holds nothing of use.
///
/// # Errors
/// The first thing wrong, from left to right.
///
/// # Cost
/// One pass, a table look-up per byte, eight bytes at a time in values. No allocation.
pub fn parse(bytes: &mut [u8], head: &mut Head) -> Result<Progress, Refusal> {
    let Some(skipped) = skip_empty_lines(bytes)? else { return Ok(Progress::Partial) };
    let end = bytes.len().min(skipped + HEAD_BYTES_MAX);
    let region = &mut bytes[skipped..end];
    head.header_count = 0;
    head.bytes_skipped = crate::width::low_byte(crate::width::wide(skipped));

    let outcome = match request_line(region, head)? {
        Some(position) => header_lines(region, position, head)?,
        None => Progress::Partial,
    };
    if outcome == Progress::Partial && region.len() == HEAD_BYTES_MAX {
        return Err(Refusal::HeadTooLarge);
    }
    Ok(outcome)
}

/// Returns how many bytes of empty lines stand in front, or `None` if that can't be told yet.
#[inline]
fn skip_empty_lines(bytes: &[u8]) -> Result<Option<usize>, Refusal> {
    let mut position = 0;
    loop {
        match bytes.get(position..) {
            None | Some([]) => return Ok(None),
            Some([b'\r', ..]) if position == 2 * EMPTY_LINES_MAX => {
                return Err(Refusal::EmptyLines);
            }
            Some([b'\r']) => return Ok(None),
            Some([b'\r', b'\n', ..]) => position += 2,
            Some([b'\r', ..]) => return Err(Refusal::RequestLine),
            Some(_) => return Ok(Some(position)),
        }
    }
}

/// Reads the request line; returns the position behind it.
#[inline]
fn request_line(region: &[u8], head: &mut Head) -> Result<Option<usize>, Refusal> {
    let mut position = 0;
    loop {
        let Some(&byte) = region.get(position) else { return Ok(None) };
        if NAME[usize::from(byte)] == 0 {
            break;
        }
        position += 1;
        if position > METHOD_BYTES_MAX {
            return Err(Refusal::MethodUnknown);
        }
    }
    if position == 0 || region[position] != b' ' {
        return Err(Refusal::RequestLine);
    }
    let method_end = position;

    let target_start = position + 1;
    position = target_start;
    loop {
        let Some(&byte) = region.get(position) else { return Ok(None) };
        if !TARGET[usize::from(byte)] {
            break;
        }
        position += 1;
        if position > target_start + TARGET_BYTES_MAX {
            return Err(Refusal::TargetTooLong);
        }
    }
    match region[position] {
        b' ' if position == target_start => return Err(Refusal::RequestLine),
        b' ' => {}
        b'\r' | b'\n' => return Err(Refusal::RequestLine),
        _ => return Err(Refusal::Target),
    }
    let target_end = position;

    let version = match region.get(target_end + 1..target_end + 11) {
        Some(b"HTTP/1.1\r\n") => Version { major: 1, minor: 1 },
        _ => match version(&region[target_end + 1..])? {
            Some(version) => version,
            None => return Ok(None),
        },
    };
    head.version_minor = match version {
        Version { major: 1, minor } => minor.min(1),
        Version { major: 0, .. } => return Err(Refusal::RequestLine),
        Version { .. } => return Err(Refusal::VersionUnsupported),
    };
    head.method_name = Span::between(0, method_end);
    head.method = method(&region[..method_end]).ok_or(Refusal::MethodUnknown)?;
    head.target = Span::between(target_start, target_end);
    read_target(region, head)?;
    Ok(Some(target_end + 11))
}

struct Version {
    major: u8,
    minor: u8,
}

/// Reads `HTTP/x.y CRLF`, byte by byte: the way for what is not exactly HTTP/1.1, or not all here.
#[cold]
#[inline(never)]
fn version(bytes: &[u8]) -> Result<Option<Version>, Refusal> {
    const PATTERN: &[u8; 10] = b"HTTP/0.0\r\n";
    for (position, &expected) in PATTERN.iter().enumerate() {
        let Some(&byte) = bytes.get(position) else { return Ok(None) };
        let fits = if expected == b'0' { byte.is_ascii_digit() } else { byte == expected };
        if !fits {
            return Err(Refusal::RequestLine);
        }
    }
    Ok(Some(Version { major: bytes[5] - b'0', minor: bytes[7] - b'0' }))
}

#[inline]
fn method(name: &[u8]) -> Option<Method> {
    Some(match name {
        b"GET" => Method::Get,
        b"HEAD" => Method::Head,
        b"POST" => Method::Post,
        b"PUT" => Method::Put,
        b"DELETE" => Method::Delete,
        b"OPTIONS" => Method::Options,
        b"PATCH" => Method::Patch,
        b"TRACE" => Method::Trace,
        _ => return None,
    })
}

/// Splits the target into path, query and, in the absolute form, authority (RFC 9112, 3.2).
#[inline]
fn read_target(region: &[u8], head: &mut Head) -> Result<(), Refusal> {
    let start = usize::from(head.target.offset);
    let end = start + usize::from(head.target.size);
    head.authority = Span::default();
    let path_start = match &region[start..end] {
        [b'/', ..] => start,
        b"*" if head.method == Method::Options => start,
        absolute => start + absolute_authority(absolute, start, head)?,
    };
    let path_end = region[path_start..end]
        .iter()
        .position(|&byte| byte == b'?')
        .map_or(end, |position| path_start + position);
    head.path = Span::between(path_start, path_end);
    head.query = Span::between((path_end + 1).min(end), end);
    Ok(())
}

/// Reads `http://authority` of an absolute target; returns where its path starts, relative to the target.
#[cold]
fn absolute_authority(target: &[u8], start: usize, head: &mut Head) -> Result<usize, Refusal> {
    let scheme_size = [&b"http://"[..], b"https://"]
        .into_iter()
        .find(|scheme| {
            target.get(..scheme.len()).is_some_and(|front| front.eq_ignore_ascii_case(scheme))
        })
        .map(<[u8]>::len)
        .ok_or(Refusal::Target)?;
    let rest = &target[scheme_size..];
    let size = rest.iter().position(|&byte| byte == b'/' || byte == b'?').unwrap_or(rest.len());
    if !is_authority(&rest[..size]) {
        return Err(Refusal::Target);
    }
    head.authority = Span::between(start + scheme_size, start + scheme_size + size);
    Ok(scheme_size + size)
}

/// What the header lines said about framing and connection.
struct Notes {
    host: Option<Span>,
    length: Option<u64>,
    coding: Coding,
    close: bool,
    keep_alive: bool,
    expects_continue: bool,
}

/// What `Transfer-Encoding` lines said so far.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Coding {
    Absent,
    /// `chunked` was the last, and the only one.
    Chunked,
}

/// Reads the header lines from `position` on, up to the empty line.
#[inline]
fn header_lines(
    region: &mut [u8],
    mut position: usize,
    head: &mut Head,
) -> Result<Progress, Refusal> {
    let mut notes = Notes {
        host: None,
        length: None,
        coding: Coding::Absent,
        close: false,
        keep_alive: false,
        expects_continue: false,
    };
    let mut count = 0;
    loop {
        match region.get(position) {
            None => return Ok(Progress::Partial),
            Some(b'\r') => match region.get(position + 1) {
                None => return Ok(Progress::Partial),
                Some(b'\n') => break,
                Some(_) => return Err(Refusal::HeaderName),
            },
            Some(_) if count == HEADERS_MAX => return Err(Refusal::HeadersTooMany),
            Some(_) => {}
        }

        let name_start = position;
        loop {
            let Some(byte) = region.get_mut(position) else { return Ok(Progress::Partial) };
            let lower = NAME[usize::from(*byte)];
            if lower == 0 {
                break;
            }
            *byte = lower;
            position += 1;
        }
        if position == name_start || region[position] != b':' {
            return Err(Refusal::HeaderName);
        }
        let name = Span::between(name_start, position);
        position += 1;

        while let Some(b' ' | b'\t') = region.get(position) {
            position += 1;
        }
        let value_start = position;
        position = skip_value(region, position);
        let mut value_end = position;
        match region.get(position..) {
            None | Some([] | [b'\r']) => return Ok(Progress::Partial),
            Some([b'\r', b'\n', ..]) => position += 2,
            Some(_) => return Err(Refusal::HeaderValue),
        }
        while value_end > value_start && matches!(region[value_end - 1], b' ' | b'\t') {
            value_end -= 1;
        }
        let value = Span::between(value_start, value_end);
        head.headers[count] = HeaderSpan { name, value };
        count += 1;
        note(region, name, value, head.version_minor, &mut notes)?;
    }

    head.header_count = crate::width::low_byte(crate::width::wide(count));
    head.bytes = span(position + 2);
    conclude(head, &notes)?;
    Ok(Progress::Complete)
}

/// Returns the first position from `position` on whose byte may not stand in a value, or the end.
#[inline]
fn skip_value(region: &[u8], mut position: usize) -> usize {
    const ONES: u64 = 0x0101_0101_0101_0101;
    const HIGH: u64 = 0x8080_8080_8080_8080;
    // Eight at a time: a byte below 0x20 or equal to 0x7F raises the high bit of its place. Borrows can
    // raise further bits, but only above the first true one.
    while let Some(chunk) = region.get(position..position + 8) {
        let word = u64::from_le_bytes(chunk.try_into().expect("eight bytes were asked for"));
        let low = word.wrapping_sub(ONES * 0x20) & !word;
        let delete = word ^ (ONES * 0x7F);
        let delete = delete.wrapping_sub(ONES) & !delete;
        let hits = (low | delete) & HIGH;
        if hits == 0 {
            position += 8;
            continue;
        }
        position += crate::width::index(hits.trailing_zeros() / 8);
        if region[position] != b'\t' {
            return position;
        }
        position += 1;
    }
    while region.get(position).is_some_and(|&byte| is_value(byte)) {
        position += 1;
    }
    position
}

/// Takes note of a header line that says something about framing or the connection.
#[inline]
fn note(
    region: &[u8],
    name: Span,
    value: Span,
    version_minor: u8,
    notes: &mut Notes,
) -> Result<(), Refusal> {
    match name.of(region) {
        b"host" => {
            if notes.host.is_some() || !is_authority(value.of(region)) {
                return Err(Refusal::Host);
            }
            notes.host = Some(value);
        }
        b"connection" => {
            for token in value.of(region).split(|&byte| byte == b',') {
                let token = token.trim_ascii();
                notes.close |= token.eq_ignore_ascii_case(b"close");
                notes.keep_alive |= token.eq_ignore_ascii_case(b"keep-alive");
            }
        }
        b"content-length" => {
            if notes.length.is_some() {
                return Err(Refusal::ContentLength);
            }
            notes.length = Some(number(value.of(region)).ok_or(Refusal::ContentLength)?);
        }
        b"transfer-encoding" => {
            if version_minor == 0 {
                return Err(Refusal::TransferEncoding);
            }
            notes.coding = coding(value.of(region), notes.coding)?;
        }
        // HTTP/1.0 knows no expectation (RFC 9110, 10.1.1).
        b"expect" if version_minor > 0 => {
            if !value.of(region).eq_ignore_ascii_case(b"100-continue") {
                return Err(Refusal::Expectation);
            }
            notes.expects_continue = true;
        }
        _ => {}
    }
    Ok(())
}

/// Reads one `Transfer-Encoding` line after what earlier lines said.
#[cold]
fn coding(value: &[u8], earlier: Coding) -> Result<Coding, Refusal> {
    let mut coding = earlier;
    for token in value.split(|&byte| byte == b',') {
        let token = token.trim_ascii();
        if token.is_empty() || coding == Coding::Chunked {
            return Err(Refusal::TransferEncoding);
        }
        if token.eq_ignore_ascii_case(b"chunked") {
            coding = Coding::Chunked;
        } else if token.iter().all(|&byte| NAME[usize::from(byte)] != 0) {
            return Err(Refusal::CodingUnknown);
        } else {
            return Err(Refusal::TransferEncoding);
        }
    }
    Ok(coding)
}

/// Draws the conclusions that need the whole head.
#[inline]
fn conclude(head: &mut Head, notes: &Notes) -> Result<(), Refusal> {
    match notes.host {
        None if head.version_minor > 0 => return Err(Refusal::Host),
        // An absolute target's authority replaces the header's (RFC 9112, 3.2.2).
        Some(host) if head.authority.size == 0 => head.authority = host,
        _ => {}
    }
    head.framing = match (notes.coding, notes.length) {
        (Coding::Chunked, Some(_)) => return Err(Refusal::FramingTwice),
        (Coding::Chunked, None) => Framing::Chunked,
        (Coding::Absent, Some(0) | None) => Framing::None,
        (Coding::Absent, Some(length)) => Framing::Length(length),
    };
    head.keep_alive = !notes.close && (head.version_minor > 0 || notes.keep_alive);
    head.expects_continue = notes.expects_continue && head.framing != Framing::None;
    Ok(())
}

/// Reads a number made of digits alone.
fn number(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() {
        return None;
    }
    digits.iter().try_fold(0_u64, |number, &byte| {
        let digit = byte.is_ascii_digit().then(|| u64::from(byte - b'0'))?;
        number.checked_mul(10)?.checked_add(digit)
    })
}

/// Tells whether this is `host [":" port]` with a host that isn't empty (RFC 9110, 4.2.1).
fn is_authority(authority: &[u8]) -> bool {
    let port = if authority.first() == Some(&b'[') {
        let Some(end) = authority.iter().position(|&byte| byte == b']') else { return false };
        let inside = &authority[1..end];
        let is_address = inside.len() >= 2
            && inside.iter().all(|&byte| byte.is_ascii_hexdigit() || byte == b':' || byte == b'.');
        if !is_address {
            return false;
        }
        &authority[end + 1..]
    } else {
        let size =
            authority.iter().position(|&byte| !HOST[usize::from(byte)]).unwrap_or(authority.len());
        if size == 0 {
            return false;
        }
        &authority[size..]
    };
    match port {
        [] => true,
        [b':', digits @ ..] => {
            digits.len() <= 5
                && digits.iter().all(u8::is_ascii_digit)
                && number(digits).unwrap_or(0) <= 0xFFFF
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests;
