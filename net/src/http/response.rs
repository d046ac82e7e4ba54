//! The head of a response, written behind whatever the connection sends already.
//!
//! ```text
//!   HTTP/1.1 200 OK CRLF  Date: .. CRLF  [Connection: .. CRLF]  the host's lines  Content-Length: n CRLF CRLF body
//! ```
//!
//! Invariants: the framing is ours alone, so lines that say something about it are left out; a line that
//! could break out of its place (CR, LF, NUL and other controls) makes the whole response a 500.
//!
//! Hot path: `encode`.

use super::characters::{NAME, is_value};
use super::status;

/// Room for status line, date, length and connection: what a head takes besides the host's lines.
const HEAD_ROOM: usize = 192;

/// What a response's framing depends on besides its status.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Circumstances {
    /// True if the request was a HEAD: the body is measured, not sent.
    pub is_head: bool,
    /// Minor version of the request.
    pub version_minor: u8,
    /// True if the connection goes on after this response.
    pub keep_alive: bool,
    /// True if the body follows in chunks, behind which there may be fields.
    pub is_chunked: bool,
}

/// The host's response had a line or a status that may not be sent; a 500 was written in its stead.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unsendable;

/// Writes a response behind `output`.
///
/// # Errors
/// [`Unsendable`] if a header or the status is not allowed; `output` then holds a bare 500.
///
/// # Cost
/// One copy of every byte; a table look-up per byte of the host's lines.
pub fn encode<'a>(
    output: &mut Vec<u8>,
    date: &DateLine,
    circumstances: Circumstances,
    status: u16,
    headers: impl Iterator<Item = (&'a [u8], &'a [u8])>,
    body: &[u8],
) -> Result<(), Unsendable> {
    let start = output.len();
    output.reserve(HEAD_ROOM + body.len());
    if try_encode(output, date, circumstances, status, headers, body).is_some() {
        return Ok(());
    }
    output.truncate(start);
    let bare = try_encode(output, date, circumstances, 500, std::iter::empty(), b"");
    assert!(bare.is_some(), "a response without lines of the host's can be sent");
    Err(Unsendable)
}

#[inline]
fn try_encode<'a>(
    output: &mut Vec<u8>,
    date: &DateLine,
    circumstances: Circumstances,
    status: u16,
    headers: impl Iterator<Item = (&'a [u8], &'a [u8])>,
    body: &[u8],
) -> Option<()> {
    let length_of_get = write_lines(output, date, circumstances, status, headers)?;
    let is_bodiless = status::is_bodiless(status);
    // A HEAD and a 304 may tell the length that a GET would have had (RFC 9110, 8.6).
    match length_of_get {
        Some(length)
            if body.is_empty()
                && (status == 304 || (circumstances.is_head && !is_bodiless))
                && !length.is_empty()
                && length.iter().all(u8::is_ascii_digit) =>
        {
            output.extend_from_slice(b"Content-Length: ");
            output.extend_from_slice(length);
            output.extend_from_slice(b"\r\n\r\n");
        }
        _ if is_bodiless => output.extend_from_slice(b"\r\n"),
        _ => {
            output.extend_from_slice(b"Content-Length: ");
            write_number(output, crate::width::wide(body.len()));
            output.extend_from_slice(b"\r\n\r\n");
        }
    }
    if !is_bodiless && !circumstances.is_head {
        output.extend_from_slice(body);
    }
    Some(())
}

/// Writes the head of a response whose body follows in pieces.
///
/// # Errors
/// [`Unsendable`] if a header or the status is not allowed; `output` is as it was then.
pub fn encode_head<'a>(
    output: &mut Vec<u8>,
    date: &DateLine,
    circumstances: Circumstances,
    status: u16,
    headers: impl Iterator<Item = (&'a [u8], &'a [u8])>,
    length: Option<u64>,
) -> Result<(), Unsendable> {
    let start = output.len();
    output.reserve(HEAD_ROOM);
    if write_lines(output, date, circumstances, status, headers).is_none() {
        output.truncate(start);
        return Err(Unsendable);
    }
    let may_tell_length = !status::is_bodiless(status) || status == 304;
    match length {
        Some(length) if may_tell_length => {
            output.extend_from_slice(b"Content-Length: ");
            write_number(output, length);
            output.extend_from_slice(b"\r\n");
        }
        _ if circumstances.is_chunked => {
            output.extend_from_slice(b"Transfer-Encoding: chunked\r\n")
        }
        _ => {}
    }
    output.extend_from_slice(b"\r\n");
    Ok(())
}

/// Writes a chunk (RFC 9112, 7.1). An empty one would end the body.
///
/// # Panics
/// If `piece` is empty.
pub fn write_chunk(output: &mut Vec<u8>, piece: &[u8]) {
    assert!(!piece.is_empty(), "an empty chunk is the last");
    let size = crate::width::wide(piece.len());
    let digits = (u64::BITS - size.leading_zeros()).div_ceil(4);
    for digit in (0..digits).rev() {
        let value = crate::width::low_byte(size >> (digit * 4) & 0xF);
        output.push(if value < 10 { b'0' + value } else { b'a' + value - 10 });
    }
    output.extend_from_slice(b"\r\n");
    output.extend_from_slice(piece);
    output.extend_from_slice(b"\r\n");
}

/// Writes all but the framing; returns the length that the host told.
#[inline]
fn write_lines<'a>(
    output: &mut Vec<u8>,
    date: &DateLine,
    circumstances: Circumstances,
    status: u16,
    headers: impl Iterator<Item = (&'a [u8], &'a [u8])>,
) -> Option<Option<&'a [u8]>> {
    write_status(output, status)?;
    output.extend_from_slice(date.bytes());
    if !circumstances.keep_alive {
        output.extend_from_slice(b"Connection: close\r\n");
    } else if circumstances.version_minor == 0 {
        output.extend_from_slice(b"Connection: keep-alive\r\n");
    }
    let mut length_of_get = None;
    for (name, value) in headers {
        match line_kind(name) {
            LineKind::Other => {}
            LineKind::Length => {
                length_of_get = Some(value);
                continue;
            }
            LineKind::Announcement if circumstances.is_chunked => {}
            LineKind::Announcement | LineKind::Ours => continue,
        }
        if name.is_empty()
            || !name.iter().all(|&byte| NAME[usize::from(byte)] != 0)
            || !value.iter().all(|&byte| is_value(byte))
        {
            return None;
        }
        output.reserve(name.len() + value.len() + 4);
        output.extend_from_slice(name);
        output.extend_from_slice(b": ");
        output.extend_from_slice(value);
        output.extend_from_slice(b"\r\n");
    }
    Some(length_of_get)
}

#[inline]
fn write_status(output: &mut Vec<u8>, status: u16) -> Option<()> {
    if let Some(line) = status::line(status) {
        output.extend_from_slice(line);
        return Some(());
    }
    if !(200..1000).contains(&status) {
        return None;
    }
    output.extend_from_slice(b"HTTP/1.1 ");
    write_number(output, u64::from(status));
    output.extend_from_slice(b" \r\n");
    Some(())
}

/// Who answers for a header line.
enum LineKind {
    /// The host: sent as it is.
    Other,
    /// A length: of use for HEAD and 304 only.
    Length,
    /// Names of trailers: of use where there may be some.
    Announcement,
    /// This crate: the host's version is left out.
    Ours,
}

#[inline]
fn line_kind(name: &[u8]) -> LineKind {
    let is = |ours: &[u8]| name.eq_ignore_ascii_case(ours);
    match name.len() {
        14 if is(b"content-length") => LineKind::Length,
        4 if is(b"date") => LineKind::Ours,
        7 if is(b"trailer") => LineKind::Announcement,
        7 if is(b"upgrade") => LineKind::Ours,
        10 if is(b"connection") || is(b"keep-alive") => LineKind::Ours,
        16 if is(b"proxy-connection") => LineKind::Ours,
        17 if is(b"transfer-encoding") => LineKind::Ours,
        _ => LineKind::Other,
    }
}

fn write_number(output: &mut Vec<u8>, number: u64) {
    let mut digits = [0; 20];
    let mut start = digits.len();
    let mut rest = number;
    loop {
        start -= 1;
        digits[start] = b'0' + crate::width::low_byte(rest % 10);
        rest /= 10;
        if rest == 0 {
            break;
        }
    }
    output.extend_from_slice(&digits[start..]);
}

/// The `Date` line, written once a second.
#[derive(Debug)]
pub struct DateLine {
    seconds: u64,
    line: [u8; DATE_LINE_SIZE],
}

const DATE_LINE_SIZE: usize = b"Date: Thu, 01 Jan 1970 00:00:00 GMT\r\n".len();

impl DateLine {
    /// Makes the line of a moment, in seconds since 1970.
    #[must_use]
    pub fn new(unix_seconds: u64) -> Self {
        let mut date = Self { seconds: 0, line: *b"Date: Thu, 01 Jan 1970 00:00:00 GMT\r\n" };
        date.update(unix_seconds);
        date
    }

    /// Brings the line up to date.
    pub fn update(&mut self, unix_seconds: u64) {
        if unix_seconds != self.seconds {
            self.write(unix_seconds);
        }
    }

    /// Returns the line with its end.
    #[inline]
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.line
    }

    fn write(&mut self, unix_seconds: u64) {
        const WEEKDAYS: [&[u8; 3]; 7] = [b"Thu", b"Fri", b"Sat", b"Sun", b"Mon", b"Tue", b"Wed"];
        const MONTHS: [&[u8; 3]; 12] = [
            b"Jan", b"Feb", b"Mar", b"Apr", b"May", b"Jun", b"Jul", b"Aug", b"Sep", b"Oct", b"Nov",
            b"Dec",
        ];
        self.seconds = unix_seconds;
        let days = unix_seconds / 86_400;
        let second = unix_seconds % 86_400;
        let civil = Civil::from_days(days);
        let weekday = WEEKDAYS[crate::width::index(crate::width::low(days % 7))];
        let month = MONTHS[crate::width::index(crate::width::low(civil.month - 1))];
        self.line[6..9].copy_from_slice(weekday);
        self.two_digits(11, civil.day);
        self.line[14..17].copy_from_slice(month);
        self.two_digits(18, civil.year / 100);
        self.two_digits(20, civil.year % 100);
        self.two_digits(23, second / 3600);
        self.two_digits(26, second / 60 % 60);
        self.two_digits(29, second % 60);
    }

    fn two_digits(&mut self, offset: usize, number: u64) {
        self.line[offset] = b'0' + crate::width::low_byte(number / 10 % 10);
        self.line[offset + 1] = b'0' + crate::width::low_byte(number % 10);
    }
}

/// A date of the Gregorian calendar.
struct Civil {
    year: u64,
    month: u64,
    day: u64,
}

impl Civil {
    /// Days since 1970 to a date, counted in eras of 400 years that start in March (H. Hinnant's method).
    const fn from_days(days: u64) -> Self {
        let shifted = days + 719_468;
        let era = shifted / 146_097;
        let day_of_era = shifted % 146_097;
        let year_of_era =
            (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
        let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let march_month = (5 * day_of_year + 2) / 153;
        let month = if march_month < 10 { march_month + 3 } else { march_month - 9 };
        Self {
            year: era * 400 + year_of_era + if month <= 2 { 1 } else { 0 },
            month,
            day: day_of_year - (153 * march_month + 2) / 5 + 1,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAIN: Circumstances =
        Circumstances { is_head: false, version_minor: 1, keep_alive: true, is_chunked: false };

    fn check(
        circumstances: Circumstances,
        status: u16,
        headers: &[(&str, &str)],
        body: &str,
        expected: &str,
    ) -> Result<(), Unsendable> {
        let mut output = Vec::new();
        let lines = headers.iter().map(|(name, value)| (name.as_bytes(), value.as_bytes()));
        let date = DateLine::new(784_111_777);
        let outcome = encode(&mut output, &date, circumstances, status, lines, body.as_bytes());
        let expected =
            expected.replace("DATE", "Date: Sun, 06 Nov 1994 08:49:37 GMT").replace('|', "\r\n");
        assert_eq!(String::from_utf8(output).unwrap(), expected);
        outcome
    }

    #[test]
    fn a_response_has_date_and_length() {
        let expected = "HTTP/1.1 200 OK|DATE|a: b|Content-Length: 2||hi";
        check(PLAIN, 200, &[("a", "b")], "hi", expected).unwrap();
    }

    #[test]
    fn connection_is_told_where_it_is_not_the_default() {
        let close = Circumstances { keep_alive: false, ..PLAIN };
        let old = Circumstances { version_minor: 0, ..PLAIN };
        check(close, 200, &[], "", "HTTP/1.1 200 OK|DATE|Connection: close|Content-Length: 0||")
            .unwrap();
        check(old, 200, &[], "", "HTTP/1.1 200 OK|DATE|Connection: keep-alive|Content-Length: 0||")
            .unwrap();
    }

    #[test]
    fn head_and_bodiless_statuses_send_no_body() {
        let head = Circumstances { is_head: true, ..PLAIN };
        check(head, 200, &[], "hi", "HTTP/1.1 200 OK|DATE|Content-Length: 2||").unwrap();
        let told = [("Content-Length", "77")];
        check(head, 200, &told, "", "HTTP/1.1 200 OK|DATE|Content-Length: 77||").unwrap();
        check(PLAIN, 204, &told, "hi", "HTTP/1.1 204 No Content|DATE||").unwrap();
        check(head, 204, &told, "", "HTTP/1.1 204 No Content|DATE||").unwrap();
        check(PLAIN, 304, &told, "", "HTTP/1.1 304 Not Modified|DATE|Content-Length: 77||")
            .unwrap();
    }

    #[test]
    fn framing_lines_of_the_host_are_left_out() {
        let headers = [
            ("transfer-encoding", "chunked"),
            ("Content-Length", "9"),
            ("CONNECTION", "upgrade"),
            ("x", "y"),
        ];
        let expected = "HTTP/1.1 200 OK|DATE|x: y|Content-Length: 0||";
        check(PLAIN, 200, &headers, "", expected).unwrap();
    }

    #[test]
    fn trailers_are_announced_where_there_may_be_some() {
        let head = |is_chunked| {
            let mut output = Vec::new();
            let lines = [(&b"Trailer"[..], &b"x"[..])].into_iter();
            let circumstances = Circumstances { is_chunked, ..PLAIN };
            let date = DateLine::new(784_111_777);
            encode_head(&mut output, &date, circumstances, 200, lines, None).unwrap();
            String::from_utf8(output).unwrap()
        };
        assert!(head(true).ends_with("Trailer: x\r\nTransfer-Encoding: chunked\r\n\r\n"));
        assert!(!head(false).contains("Trailer"));
        check(PLAIN, 200, &[("trailer", "x")], "", "HTTP/1.1 200 OK|DATE|Content-Length: 0||")
            .unwrap();
    }

    #[test]
    fn a_line_that_breaks_out_becomes_a_500() {
        let expected = "HTTP/1.1 500 Internal Server Error|DATE|Content-Length: 0||";
        for header in [("a", "b\r\nc: d"), ("a\r\nb", "c"), ("", "c"), ("a b", "c"), ("a", "\0")] {
            assert_eq!(check(PLAIN, 200, &[header], "hi", expected), Err(Unsendable));
        }
        for status in [0, 100, 101, 199, 1000] {
            assert_eq!(check(PLAIN, status, &[], "hi", expected), Err(Unsendable));
        }
    }

    #[test]
    fn an_unusual_status_has_an_empty_reason() {
        check(PLAIN, 299, &[], "", "HTTP/1.1 299 |DATE|Content-Length: 0||").unwrap();
    }

    #[test]
    fn dates_follow_the_calendar() {
        for (seconds, expected) in [
            (0, "Thu, 01 Jan 1970 00:00:00 GMT"),
            (951_782_399, "Mon, 28 Feb 2000 23:59:59 GMT"),
            (951_782_400, "Tue, 29 Feb 2000 00:00:00 GMT"),
            (1_735_689_599, "Tue, 31 Dec 2024 23:59:59 GMT"),
            (4_107_542_400, "Mon, 01 Mar 2100 00:00:00 GMT"),
        ] {
            let line = DateLine::new(seconds);
            assert_eq!(line.bytes(), format!("Date: {expected}\r\n").as_bytes());
        }
    }
}
