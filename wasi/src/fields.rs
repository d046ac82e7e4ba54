//! `fields`: headers and trailers.
//!
//! A set of fields is a chain of lines in our region, in the order in which they were made:
//!
//! ```text
//!   next: u32 | name: Span | value: Span     name in lower case
//! ```
//!
//! Chains that cannot change any more are shared by all handles that show them.

use crate::handles::{Entry, IMMUTABLE, Kind};
use crate::own::Span;
use crate::{Wasi, World, index};

const LINE_SIZE: u32 = 20;
const FIELDS: &[Kind] = &[Kind::Fields];

/// `header-error`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum HeaderError {
    /// A name or a value that no header can have.
    InvalidSyntax = 0,
    /// A header that the host alone may write.
    Forbidden = 1,
    /// The fields cannot be changed.
    Immutable = 2,
}

/// One line of a chain.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Line {
    pub(crate) next: u32,
    pub(crate) name: Span,
    pub(crate) value: Span,
}

/// Headers that belong to a connection and not to its messages (RFC 9110 7.6.1), and `host`, which is the
/// authority: guests neither see nor set them.
#[must_use]
pub fn is_forbidden(name: &[u8]) -> bool {
    const NAMES: [&[u8]; 9] = [
        b"connection",
        b"host",
        b"http2-settings",
        b"keep-alive",
        b"proxy-authenticate",
        b"proxy-authorization",
        b"proxy-connection",
        b"transfer-encoding",
        b"upgrade",
    ];
    NAMES.contains(&name)
}

/// RFC 9110 5.6.2.
pub(crate) fn is_token(name: &[u8]) -> bool {
    let is_tchar = |byte: &u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(byte);
    !name.is_empty() && name.iter().all(is_tchar)
}

/// RFC 9110 5.5.
fn is_value(value: &[u8]) -> bool {
    value.iter().all(|&byte| byte == b'\t' || (byte >= b' ' && byte != 0x7F))
}

fn is_number(value: &[u8]) -> bool {
    !value.is_empty() && value.len() < 20 && value.iter().all(u8::is_ascii_digit)
}

impl<W: World> Wasi<'_, W> {
    /// `[constructor]fields`
    pub fn fields_new(&mut self) -> u32 {
        self.push_kind(Kind::Fields)
    }

    /// `[static]fields.from-list`
    pub fn fields_from_list(&mut self, list: u32, count: u32, target: u32) {
        self.lift_list(list, count, 16, 4);
        self.place_for(target, 8, 4);
        let handle = self.push_kind(Kind::Fields);
        for row in (list..).step_by(16).take(index(count)) {
            let [name, name_size, value, value_size] =
                [0, 4, 8, 12].map(|offset| self.guest_u32(row + offset));
            let (name, value) =
                (self.lift_string(name, name_size), self.lift_bytes(value, value_size));
            if let Err(error) = self.append(handle, name, value) {
                self.remove(handle, FIELDS);
                self.world.write_u8(target, 1);
                return self.world.write_u8(target + 4, error as u8);
            }
        }
        self.world.write_u8(target, 0);
        self.world.write_u32(target + 4, handle);
    }

    /// `[method]fields.get`
    pub fn fields_get(&mut self, this: u32, name: u32, name_size: u32, target: u32) {
        let first = self.get(this, FIELDS).a;
        let name = self.lift_name(name, name_size);
        self.place_for(target, 8, 4);
        let (mut count, mut at) = (0, first);
        while let Some(line) = self.line(at) {
            count += u32::from(self.own(line.name) == self.own(name));
            at = line.next;
        }
        let list = self.allocate(count * 8, 4);
        let (mut row, mut at) = (list, first);
        while let Some(line) = self.line(at) {
            if self.own(line.name) == self.own(name) {
                self.lower_own(row, line.value);
                row += 8;
            }
            at = line.next;
        }
        self.world.write_u32(target, list);
        self.world.write_u32(target + 4, count);
    }

    /// `[method]fields.has`
    pub fn fields_has(&mut self, this: u32, name: u32, name_size: u32) -> u32 {
        let first = self.get(this, FIELDS).a;
        let name = self.lift_name(name, name_size);
        u32::from(self.find(first, name).is_some())
    }

    /// `[method]fields.set`
    pub fn fields_set(&mut self, this: u32, name: [u32; 2], list: [u32; 2], target: u32) {
        let name = self.lift_string(name[0], name[1]);
        let [list, count] = list;
        self.lift_list(list, count, 8, 4);
        let result = self.set(this, name, list, count);
        self.lower_header_result(target, result);
    }

    fn set(&mut self, this: u32, name: Span, list: u32, count: u32) -> Result<(), HeaderError> {
        self.check(this, name)?;
        let is_length = self.own(name) == b"content-length";
        let first = self.take(count * 8);
        for number in 0..count {
            let row = list + number * 8;
            let (address, size) = (self.guest_u32(row), self.guest_u32(row + 4));
            let value = self.lift_bytes(address, size);
            let value = self.check_value(name, value)?;
            self.set_own_u32(first.at + number * 8, value.at);
            self.set_own_u32(first.at + number * 8 + 4, value.size);
        }
        if is_length && count > 1 {
            return Err(HeaderError::InvalidSyntax);
        }
        self.unlink(this, name);
        for number in 0..count {
            let row = first.at + number * 8;
            let value = Span { at: self.own_u32(row), size: self.own_u32(row + 4) };
            self.link(this, name, value);
        }
        Ok(())
    }

    /// `[method]fields.delete`
    pub fn fields_delete(&mut self, this: u32, name: u32, name_size: u32, target: u32) {
        let name = self.lift_string(name, name_size);
        let result = self.check(this, name).map(|()| self.unlink(this, name));
        self.lower_header_result(target, result);
    }

    /// `[method]fields.append`
    pub fn fields_append(&mut self, this: u32, name: [u32; 2], value: [u32; 2], target: u32) {
        let name = self.lift_string(name[0], name[1]);
        let value = self.lift_bytes(value[0], value[1]);
        let result = self.append(this, name, value);
        self.lower_header_result(target, result);
    }

    /// `[method]fields.entries`
    pub fn fields_entries(&mut self, this: u32, target: u32) {
        let first = self.get(this, FIELDS).a;
        self.place_for(target, 8, 4);
        let (mut count, mut at) = (0, first);
        while let Some(line) = self.line(at) {
            count += 1;
            at = line.next;
        }
        let list = self.allocate(count * 16, 4);
        let (mut row, mut at) = (list, first);
        while let Some(line) = self.line(at) {
            self.lower_own(row, line.name);
            self.lower_own(row + 8, line.value);
            row += 16;
            at = line.next;
        }
        self.world.write_u32(target, list);
        self.world.write_u32(target + 4, count);
    }

    /// `[method]fields.clone`
    pub fn fields_clone(&mut self, this: u32) -> u32 {
        let mut at = self.get(this, FIELDS).a;
        let clone = self.push_kind(Kind::Fields);
        while let Some(line) = self.line(at) {
            self.link(clone, line.name, line.value);
            at = line.next;
        }
        clone
    }

    /// Makes a handle that shows a chain which cannot change any more.
    pub(crate) fn show_fields(&mut self, first: u32) -> u32 {
        self.push(Entry { kind: Kind::Fields, flags: IMMUTABLE, a: first, ..Entry::default() })
    }

    /// Takes fields that the guest gave away. Returns the first of their lines.
    pub(crate) fn take_fields(&mut self, handle: u32) -> u32 {
        self.remove(handle, FIELDS).a
    }

    /// Returns a line of a chain; `None` at its end.
    pub(crate) fn line(&self, at: u32) -> Option<Line> {
        let [next, name, name_size, value, value_size] = if at == 0 {
            return None;
        } else {
            [0, 4, 8, 12, 16].map(|offset| self.own_u32(at + offset))
        };
        let name = Span { at: name, size: name_size };
        Some(Line { next, name, value: Span { at: value, size: value_size } })
    }

    /// Finds the first line of a name.
    pub(crate) fn find(&self, first: u32, name: Span) -> Option<Line> {
        self.find_bytes(first, self.own(name))
    }

    /// Finds the first line of a name.
    pub(crate) fn find_bytes(&self, first: u32, name: &[u8]) -> Option<Line> {
        let mut at = first;
        while let Some(line) = self.line(at) {
            if self.own(line.name) == name {
                return Some(line);
            }
            at = line.next;
        }
        None
    }

    /// Puts a line at the end of a chain.
    pub(crate) fn link(&mut self, fields: u32, name: Span, value: Span) {
        let line = self.take(LINE_SIZE).at;
        for (offset, number) in (0..).step_by(4).zip([0, name.at, name.size, value.at, value.size])
        {
            self.set_own_u32(line + offset, number);
        }
        let entry = self.get(fields, FIELDS);
        let last = core::mem::replace(&mut entry.b, line);
        if last == 0 {
            entry.a = line;
        } else {
            self.set_own_u32(last, line);
        }
    }

    /// Takes all lines of a name out of a chain.
    fn unlink(&mut self, fields: u32, name: Span) {
        let (mut before, mut at) = (0, self.get(fields, FIELDS).a);
        while let Some(line) = self.line(at) {
            if self.own(line.name) == self.own(name) {
                if before == 0 {
                    self.get(fields, FIELDS).a = line.next;
                } else {
                    self.set_own_u32(before, line.next);
                }
            } else {
                before = at;
            }
            at = line.next;
        }
        self.get(fields, FIELDS).b = before;
    }

    pub(crate) fn append(
        &mut self,
        fields: u32,
        name: Span,
        value: Span,
    ) -> Result<(), HeaderError> {
        self.check(fields, name)?;
        let value = self.check_value(name, value)?;
        let is_second_length = self.own(name) == b"content-length" && {
            let first = self.get(fields, FIELDS).a;
            self.find(first, name).is_some()
        };
        if is_second_length {
            return Err(HeaderError::InvalidSyntax);
        }
        self.link(fields, name, value);
        Ok(())
    }

    /// Lifts a name to look for: in lower case, whatever else is in it.
    fn lift_name(&mut self, address: u32, size: u32) -> Span {
        let name = self.lift_string(address, size);
        self.bytes[name.range()].make_ascii_lowercase();
        name
    }

    /// Checks that a line of this name may be changed, and makes the name lower case.
    fn check(&mut self, fields: u32, name: Span) -> Result<(), HeaderError> {
        let is_immutable = self.get(fields, FIELDS).flags & IMMUTABLE != 0;
        if !is_token(self.own(name)) {
            return Err(HeaderError::InvalidSyntax);
        }
        self.bytes[name.range()].make_ascii_lowercase();
        if is_forbidden(self.own(name)) {
            return Err(HeaderError::Forbidden);
        }
        if is_immutable { Err(HeaderError::Immutable) } else { Ok(()) }
    }

    /// Checks a value (RFC 9110 5.5).
    fn check_value(&self, name: Span, value: Span) -> Result<Span, HeaderError> {
        let bytes = self.own(value);
        let is_length = self.own(name) == b"content-length";
        if !is_value(bytes) || (is_length && !is_number(bytes)) {
            return Err(HeaderError::InvalidSyntax);
        }
        Ok(value)
    }

    fn lower_header_result(&mut self, target: u32, result: Result<(), HeaderError>) {
        self.place_for(target, 2, 1);
        match result {
            Ok(()) => self.world.write_u8(target, 0),
            Err(error) => {
                self.world.write_u8(target, 1);
                self.world.write_u8(target + 1, error as u8);
            }
        }
    }
}
