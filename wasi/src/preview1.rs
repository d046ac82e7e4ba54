//! `wasi_snapshot_preview1`: programs that read stdin and write stdout answer requests, as those of CGI do.
//!
//! A program finds the request in its environment (RFC 3875 4.1) and the body on stdin. What it writes to stdout
//! is the response: with a header of CGI's before it (RFC 3875 6), or the body alone. stderr goes to the log.
//!
//! Files and folders are in `descriptors.rs`.

use crate::body::{Output, Source};
use crate::handles::{Handles, Kind};
use crate::own::Span;
use crate::{Wasi, World, index, wire};

/// `errno`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u16)]
pub enum Errno {
    /// No error.
    Success = 0,
    /// Bad file descriptor.
    BadFd = 8,
    /// A folder that is in use: the one that the path begins in.
    Busy = 10,
    /// It exists.
    Exists = 20,
    /// Larger than a file can be.
    TooLarge = 22,
    /// Not UTF-8.
    IllegalBytes = 25,
    /// Invalid argument.
    Invalid = 28,
    /// The bundle is broken.
    Io = 29,
    /// A folder where none may be.
    IsFolder = 31,
    /// Too many links, or one where none may be.
    Loop = 32,
    /// Too many descriptors are open.
    TooManyOpen = 33,
    /// A path or a part of it is too long.
    NameTooLong = 37,
    /// No such file.
    NoEntry = 44,
    /// There is no room for it, or a limit is reached.
    NoSpace = 51,
    /// No folder where one is needed.
    NotFolder = 54,
    /// A folder that is not empty.
    NotEmpty = 55,
    /// Not a socket.
    NotSocket = 57,
    /// Not supported.
    NotSupported = 58,
    /// A number is too large.
    Overflow = 61,
    /// A path leaves its folder.
    NotPermitted = 63,
    /// Files are read-only.
    ReadOnly = 69,
    /// Invalid seek.
    Pipe = 70,
    /// From one file system to another.
    OtherDevice = 75,
}

/// Standard descriptors.
pub(crate) const STDIN: u32 = 0;
pub(crate) const STDOUT: u32 = 1;
pub(crate) const STDERR: u32 = 2;
/// The header of a program's output has at most this size; more is taken for a body.
const CGI_HEADER_BYTES_MAX: u32 = 16 * 1024;
/// Most headers of a program's output.
const CGI_HEADERS_MAX: usize = 64;
/// Room for the environment.
const ENVIRONMENT_BYTES_MAX: usize = 64 * 1024;
/// Most buffers of one read or write.
pub(crate) const VECTORS_MAX: u32 = 1024;

/// What is written as text for arguments and environment: each ends with a zero.
#[derive(Debug, Clone, Copy, Default)]
pub struct Strings {
    pub(crate) text: Span,
    pub(crate) count: u32,
    is_made: bool,
}

impl Strings {
    pub(crate) const NONE: Self = Self { text: Span { at: 0, size: 0 }, count: 0, is_made: false };
}

impl<W: World> Wasi<'_, W> {
    /// Takes up a request for a program.
    pub fn begin_command(&mut self, block_size: u32) {
        self.take_up(block_size);
        // A program begins anew with each call, also in an instance that is used again.
        self.state.handles = Handles::new();
        if self.state.descriptors.clear() {
            self.scratch.clear();
        }
        self.state.is_command = true;
        self.state.environment = Strings::NONE;
        self.state.arguments = Strings::NONE;
        self.state.is_header_over = false;
        self.state.has_header = false;
        // The program's output is the first body, which no response has yet.
        self.begin_body(None);
    }

    /// Ends a program's call. Returns the address of the response's record, or 0 where it was written already.
    pub fn end_command(&mut self, code: u32) -> u32 {
        if !self.state.is_header_over {
            self.read_header(true);
        }
        // A program that wrote a header has said what its client gets.
        if code != 0 && !self.state.has_header && !self.state.output.is_started {
            self.end_lines();
            return self.failed(if code < 256 {
                "the program ended with an exit code that is not 0; stderr is in the log"
            } else {
                "the program ended with an error"
            });
        }
        if self.finish_body(0).is_err() {
            return self.failed("the program wrote another length than its Content-Length says");
        }
        self.end()
    }

    /// Writes to stdout.
    pub(crate) fn write_stdout(&mut self, source: Source, size: u32) {
        // A body of another length than was said fails when it ends.
        let _is_told_later = self.write_body(0, source, size);
        if !self.state.is_header_over {
            self.read_header(false);
        }
    }

    /// Looks whether what was written begins with a header, and makes the response.
    fn read_header(&mut self, is_end: bool) {
        let written = self.collected(0);
        let bytes = self.own(written);
        let front = &bytes[..bytes.len().min(index(CGI_HEADER_BYTES_MAX))];
        let size = if begins_header(front) { header_size(front) } else { Some(0) };
        let is_too_long = wire(front.len()) == CGI_HEADER_BYTES_MAX;
        let Some(size) = size.or((is_end || is_too_long).then_some(0)) else { return };
        self.state.is_header_over = true;
        let fields = self.push_kind(Kind::Fields);
        let mut status = 200;
        if size == 0 {
            let name = self.keep(b"content-type");
            let value = self.keep(b"text/plain; charset=utf-8");
            self.link(fields, name, value);
        } else {
            let header = Span { at: written.at, size: wire(size) };
            self.state.has_header = true;
            status = self.take_header(fields, header);
            self.drop_front(0, header.size);
        }
        let headers = self.take_fields(fields);
        let length = self.length_of(headers);
        self.expect_length(0, length);
        self.state.output = Output { is_set: true, status, headers, body: 1, ..Output::new() };
    }

    /// Reads the lines of a header. Returns the status.
    fn take_header(&mut self, fields: u32, header: Span) -> u16 {
        let (mut status, mut has_location) = (None, false);
        let mut rest = header;
        for _ in 0..CGI_HEADERS_MAX {
            let text = self.own(rest);
            let Some(end) = text.iter().position(|&byte| byte == b'\n') else { break };
            let line = text[..end].strip_suffix(b"\r").unwrap_or(&text[..end]);
            let colon = line.iter().position(|&byte| byte == b':');
            let line_size = wire(end) + 1;
            if let Some(colon) = colon {
                let value = line[colon + 1..].trim_ascii();
                let name = Span { at: rest.at, size: wire(colon) };
                let skipped =
                    wire(line[colon + 1..].len() - line[colon + 1..].trim_ascii_start().len());
                let value_span =
                    Span { at: rest.at + wire(colon) + 1 + skipped, size: wire(value.len()) };
                if line[..colon].eq_ignore_ascii_case(b"status") {
                    let digits = value.get(..3).unwrap_or_default();
                    let number =
                        core::str::from_utf8(digits).ok().and_then(|text| text.parse().ok());
                    status = number.filter(|number| (200..=599).contains(number));
                } else {
                    has_location |= line[..colon].eq_ignore_ascii_case(b"location");
                    // What no header may be is left out, as servers of CGI do.
                    let _left_out = self.append(fields, name, value_span);
                }
            }
            rest = Span { at: rest.at + line_size, size: rest.size - line_size };
        }
        status.unwrap_or(if has_location { 302 } else { 200 })
    }

    /// `fd_write`
    pub fn fd_write(&mut self, fd: u32, vectors: u32, count: u32, target: u32) -> Errno {
        let fd = match self.stream_of(fd) {
            Ok(fd @ (STDOUT | STDERR)) => fd,
            Ok(_) => return Errno::BadFd,
            Err(_) => return self.file_write(fd, [vectors, count], target),
        };
        if count > VECTORS_MAX {
            return Errno::Invalid;
        }
        self.lift_list(vectors, count, 8, 4);
        self.place_for(target, 4, 4);
        let mut written = 0u32;
        for number in 0..count {
            let row = vectors + number * 8;
            let (address, size) = (self.guest_u32(row), self.guest_u32(row + 4));
            self.place_for(address, size, 1);
            let Some(sum) = written.checked_add(size) else { return Errno::Invalid };
            if fd == STDOUT && self.state.is_command {
                self.write_stdout(Source::Guest(address), size);
            } else {
                // A handler's stdout is no response: it goes to the log, as stderr does.
                let stream = u32::from(fd == STDERR);
                self.write_lines(stream, Source::Guest(address), size);
            }
            written = sum;
        }
        self.world.write_u32(target, written);
        Errno::Success
    }

    /// `fd_read`
    pub fn fd_read(&mut self, fd: u32, vectors: u32, count: u32, target: u32) -> Errno {
        match self.stream_of(fd) {
            Ok(STDIN) => {}
            Ok(_) => return Errno::BadFd,
            Err(_) => return self.file_read(fd, vectors, count, target),
        }
        if count > VECTORS_MAX {
            return Errno::Invalid;
        }
        self.lift_list(vectors, count, 8, 4);
        self.place_for(target, 4, 4);
        let mut read = 0;
        for number in 0..count {
            let row = vectors + number * 8;
            let (address, size) = (self.guest_u32(row), self.guest_u32(row + 4));
            self.place_for(address, size, 1);
            // One piece: a read gives what there is, and waits for nothing once it has some.
            if size > 0 {
                let kind = if self.state.is_command { Kind::Input } else { Kind::Nothing };
                if let Some(piece) = self.next_piece(kind, u64::from(size)) {
                    self.world.write(address, &self.bytes[piece.range()]);
                    read = piece.size;
                }
                break;
            }
        }
        self.world.write_u32(target, read);
        Errno::Success
    }

    /// `fd_fdstat_get`: the standard descriptors are streams of bytes.
    pub fn fd_stat(&mut self, fd: u32, target: u32) -> Errno {
        let Ok(fd) = self.stream_of(fd) else { return self.file_stat(fd, target) };
        self.place_for(target, 24, 8);
        // File type 0 (unknown): neither a terminal, which would be flushed with each line, nor a file.
        self.world.write_u64(target, 0);
        let rights = if fd == STDIN { 1 << 1 } else { 1 << 6 };
        self.world.write_u64(target + 8, rights);
        self.world.write_u64(target + 16, 0);
        Errno::Success
    }

    /// `fd_filestat_get`
    pub fn fd_filestat(&mut self, fd: u32, target: u32) -> Errno {
        if self.stream_of(fd).is_err() {
            return self.file_facts(fd, target);
        }
        self.place_for(target, 64, 8);
        for offset in (0..64).step_by(8) {
            self.world.write_u64(target + offset, 0);
        }
        Errno::Success
    }

    /// `clock_time_get`
    pub fn clock_time(&mut self, clock: u32, target: u32) -> Errno {
        self.place_for(target, 8, 8);
        let now = match clock {
            0 => self.world.wall_ns(),
            1..=3 => self.world.monotonic_ns(),
            _ => return Errno::Invalid,
        };
        self.world.write_u64(target, now);
        Errno::Success
    }

    /// `clock_res_get`
    pub fn clock_resolution(&mut self, clock: u32, target: u32) -> Errno {
        if clock > 3 {
            return Errno::Invalid;
        }
        self.place_for(target, 8, 8);
        self.world.write_u64(target, crate::small::RESOLUTION_NS);
        Errno::Success
    }

    /// `random_get`
    pub fn random_get(&mut self, address: u32, size: u32) -> Errno {
        self.place_for(address, size, 1);
        self.fill_random(address, size);
        Errno::Success
    }

    /// `args_sizes_get` and `environ_sizes_get`
    pub fn strings_sizes(&mut self, which: Which, count: u32, size: u32) -> Errno {
        self.place_for(count, 4, 4);
        self.place_for(size, 4, 4);
        let strings = self.strings(which);
        self.world.write_u32(count, strings.count);
        self.world.write_u32(size, strings.text.size);
        Errno::Success
    }

    /// `args_get` and `environ_get`
    pub fn strings_get(&mut self, which: Which, list: u32, text: u32) -> Errno {
        let strings = self.strings(which);
        self.lift_list(list, strings.count, 4, 4);
        self.place_for(text, strings.text.size, 1);
        self.world.write(text, &self.bytes[strings.text.range()]);
        let (mut start, mut number) = (0, 0);
        for (place, &byte) in self.bytes[strings.text.range()].iter().enumerate() {
            if byte == 0 {
                self.world.write_u32(list + number * 4, text + start);
                start = wire(place) + 1;
                number += 1;
            }
        }
        Errno::Success
    }

    /// Returns arguments or environment, made when they are asked for first.
    pub(crate) fn strings(&mut self, which: Which) -> Strings {
        let known = match which {
            Which::Arguments => self.state.arguments,
            Which::Environment => self.state.environment,
        };
        if known.is_made {
            return known;
        }
        let room = self.take(wire(ENVIRONMENT_BYTES_MAX));
        let (front, behind) = self.bytes.split_at_mut(index(room.at));
        let mut writer = crate::cgi::Writer::new(&mut behind[..ENVIRONMENT_BYTES_MAX]);
        match which {
            Which::Arguments => crate::cgi::arguments(front, &mut writer),
            Which::Environment => crate::cgi::environment(front, &mut writer),
        }
        let (Some(size), count) = (writer.size(), writer.count()) else {
            self.trap("wasi: the environment is larger than there is room for")
        };
        let strings =
            Strings { text: Span { at: room.at, size: wire(size) }, count, is_made: true };
        match which {
            Which::Arguments => self.state.arguments = strings,
            Which::Environment => self.state.environment = strings,
        }
        strings
    }

    /// `poll_oneoff`: streams are ready, times are waited for.
    pub fn poll_oneoff(&mut self, list: u32, events: u32, count: u32, target: u32) -> Errno {
        if count == 0 {
            return Errno::Invalid;
        }
        self.lift_list(list, count, 48, 8);
        self.lift_list(events, count, 32, 8);
        self.place_for(target, 4, 4);
        let now = self.world.monotonic_ns();
        let wall = self.world.wall_ns();
        let mut first = u64::MAX;
        for number in 0..count {
            first = first.min(self.time_of_subscription(list + number * 48, now, wall));
        }
        let waits_for_input =
            (0..count).any(|number| self.waits_for_input(list + number * 48, now, wall));
        // Without a word on stdin there is nothing but time to wait for.
        let has_input = waits_for_input && self.wait_for_input_until(first);
        if !waits_for_input {
            self.wait_until(first);
        }
        // What became due while the body was waited for has happened as well.
        let first = if waits_for_input { self.world.monotonic_ns() } else { first };
        let mut happened = 0;
        for number in 0..count {
            let subscription = list + number * 48;
            let is_due = if self.waits_for_input(subscription, now, wall) {
                has_input
            } else {
                self.time_of_subscription(subscription, now, wall) <= first
            };
            if !is_due {
                continue;
            }
            let event = events + happened * 32;
            let user = self.guest_u64(subscription);
            let kind = self.guest_u32(subscription + 8) & 0xFF;
            let (errno, [bytes, flags]) = match kind {
                0 => (Errno::Success, [0, 0]),
                1 | 2 => {
                    let fd = self.guest_u32(subscription + 16);
                    match self.readiness(fd, kind == 1) {
                        Ok(ready) => (Errno::Success, ready),
                        Err(errno) => return errno,
                    }
                }
                _ => (Errno::NotSupported, [1, 0]),
            };
            self.world.write_u64(event, user);
            self.world.write_u64(event + 8, u64::from(errno as u32 | kind << 16));
            self.world.write_u64(event + 16, bytes);
            self.world.write_u64(event + 24, flags);
            happened += 1;
        }
        self.world.write_u32(target, happened);
        Errno::Success
    }

    /// True for a subscription to stdin, of which nothing is at hand.
    fn waits_for_input(&mut self, subscription: u32, now: u64, wall: u64) -> bool {
        self.time_of_subscription(subscription, now, wall) == u64::MAX
            && self.guest_u32(subscription + 8) & 0xFF == 1
    }

    /// When a subscription is due, by the monotonic clock; 0 for at once, and the end of time for what only the
    /// client can bring.
    fn time_of_subscription(&mut self, subscription: u32, now: u64, wall: u64) -> u64 {
        let kind = self.guest_u32(subscription + 8) & 0xFF;
        if kind == 1 && !self.has_input() && self.state.is_command {
            let fd = self.guest_u32(subscription + 16);
            if self.stream_of(fd) == Ok(STDIN) {
                return u64::MAX;
            }
        }
        if kind != 0 {
            return 0;
        }
        let clock = self.guest_u32(subscription + 16);
        let time = self.guest_u64(subscription + 24);
        let is_absolute = self.guest_u32(subscription + 40) & 1 != 0;
        match (is_absolute, clock) {
            (false, _) => now.saturating_add(time),
            (true, 0) => now.saturating_add(time.saturating_sub(wall)),
            (true, _) => time,
        }
    }

    fn guest_u64(&mut self, address: u32) -> u64 {
        u64::from(self.guest_u32(address)) | u64::from(self.guest_u32(address + 4)) << 32
    }
}

/// Which list of strings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Which {
    /// The program's arguments.
    Arguments,
    /// Its environment.
    Environment,
}

/// True if output begins as a header of CGI does: with one of the fields that belong to CGI (RFC 3875 6.3).
fn begins_header(bytes: &[u8]) -> bool {
    let names: [&[u8]; 3] = [b"content-type:", b"status:", b"location:"];
    names.iter().any(|name| {
        let size = name.len().min(bytes.len());
        bytes[..size].eq_ignore_ascii_case(&name[..size])
    })
}

/// Returns the size of a header with the empty line behind it.
fn header_size(bytes: &[u8]) -> Option<usize> {
    let mut start = 0;
    loop {
        let end = start + bytes[start..].iter().position(|&byte| byte == b'\n')?;
        let line = &bytes[start..end];
        if line.is_empty() || line == b"\r" {
            return Some(end + 1);
        }
        start = end + 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_is_told_from_a_body() {
        assert!(begins_header(b"Content-Type: text/html\r\n"));
        assert!(begins_header(b"STATUS: 404") && begins_header(b"Loc"));
        assert!(!begins_header(b"hello") && !begins_header(b"content: x"));
        assert_eq!(header_size(b"Status: 200\n\nbody"), Some(13));
        assert_eq!(header_size(b"Status: 200\r\nA: b\r\n\r\nbody"), Some(21));
        assert_eq!(header_size(b"Status: 200\nA: b\n"), None);
    }
}
