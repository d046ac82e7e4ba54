//! Conditions and ranges of a request for a file (RFC 9110, sections 13 and 14).

use std::time::{Duration, SystemTime};

use super::encoding::Encoding;

/// What tells one content of a file from another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Validators {
    /// The entity tag, strong, with its quotes.
    pub tag: String,
    /// When it was changed, in whole seconds as HTTP tells it.
    pub modified: SystemTime,
}

/// The conditions of a request.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Conditions {
    if_match: Option<Vec<u8>>,
    if_none_match: Option<Vec<u8>>,
    if_modified_since: Option<SystemTime>,
    if_unmodified_since: Option<SystemTime>,
    if_range: Option<Vec<u8>>,
    range: Option<Vec<u8>>,
}

/// What is to be answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// All of it: 200.
    Whole,
    /// A part, from the first offset to before the second: 206.
    Part(u64, u64),
    /// The client has it: 304.
    NotModified,
    /// It is not what the client thinks: 412.
    Failed,
    /// It has no such part: 416.
    NoSuchPart,
}

impl Validators {
    /// Returns those of a file that was changed so long after 1970.
    #[must_use]
    pub fn of(bytes: u64, since: Duration, inode: u64) -> Self {
        let tag = format!("\"{:x}-{bytes:x}-{inode:x}\"", since.as_nanos());
        let modified = SystemTime::UNIX_EPOCH + Duration::from_secs(since.as_secs());
        Self { tag, modified }
    }

    /// Returns those of an encoded variant: other bytes, so another tag, even if the files were one.
    #[must_use]
    pub fn of_variant(mut self, encoding: Option<Encoding>) -> Self {
        if let Some(encoding) = encoding {
            self.tag.truncate(self.tag.len() - 1);
            self.tag = format!("{}-{}\"", self.tag, encoding.name());
        }
        self
    }
}

impl Conditions {
    /// Reads them from the lines of a head.
    pub fn of<'a, L: Iterator<Item = &'a [u8]>>(lines: impl Fn(&'static [u8]) -> L) -> Self {
        let joined = |name| {
            let all: Vec<&[u8]> = lines(name).collect();
            (!all.is_empty()).then(|| all.join(&b", "[..]))
        };
        // A field that has one value and comes twice says nothing.
        let single = |name| {
            let mut lines = lines(name);
            lines.next().filter(|_| lines.next().is_none()).map(<[u8]>::to_vec)
        };
        let date = |name| single(name).and_then(|value| date(&value));
        Self {
            if_match: joined(b"if-match"),
            if_none_match: joined(b"if-none-match"),
            if_modified_since: date(b"if-modified-since"),
            if_unmodified_since: date(b"if-unmodified-since"),
            if_range: single(b"if-range"),
            range: single(b"range"),
        }
    }

    /// Decides, in the order of RFC 9110, 13.2.2.
    #[must_use]
    pub fn judge(&self, validators: &Validators, bytes: u64) -> Verdict {
        let tag = validators.tag.as_bytes();
        match (&self.if_match, self.if_unmodified_since) {
            (Some(tags), _) if !has_tag(tags, tag, Comparison::Strong) => return Verdict::Failed,
            (None, Some(date)) if validators.modified > date => return Verdict::Failed,
            _ => {}
        }
        match (&self.if_none_match, self.if_modified_since) {
            (Some(tags), _) if has_tag(tags, tag, Comparison::Weak) => return Verdict::NotModified,
            (None, Some(date)) if validators.modified <= date => return Verdict::NotModified,
            _ => {}
        }
        let Some(range) = &self.range else { return Verdict::Whole };
        if !self.may_give_part(validators) {
            return Verdict::Whole;
        }
        match read_range(range, bytes) {
            Range::Ignored => Verdict::Whole,
            Range::Part(start, end) => Verdict::Part(start, end),
            Range::Beyond => Verdict::NoSuchPart,
        }
    }

    /// `If-Range` (13.1.5): a part of what the client has the rest of, or the whole.
    fn may_give_part(&self, validators: &Validators) -> bool {
        match &self.if_range {
            None => true,
            Some(value) if value.starts_with(b"\"") => value == validators.tag.as_bytes(),
            // A weak tag never matches, and a date only exactly.
            Some(value) => date(value) == Some(validators.modified),
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Comparison {
    Strong,
    Weak,
}

/// Tells whether a list of tags, or `*`, has a tag (8.8.3.2). What is no tag is passed over.
fn has_tag(list: &[u8], tag: &[u8], comparison: Comparison) -> bool {
    if list.trim_ascii() == b"*" {
        return true;
    }
    let mut rest = list;
    while let Some(start) = rest.iter().position(|byte| *byte == b'"') {
        let is_weak = rest[..start].ends_with(b"W/");
        let Some(size) = rest[start + 1..].iter().position(|byte| *byte == b'"') else {
            return false;
        };
        let end = start + 1 + size + 1;
        if &rest[start..end] == tag && (comparison == Comparison::Weak || !is_weak) {
            return true;
        }
        rest = &rest[end..];
    }
    false
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Range {
    /// No range that we give: several, or none of bytes (14.2 leaves that open).
    Ignored,
    Part(u64, u64),
    Beyond,
}

/// Reads one range of bytes (14.1.2).
fn read_range(value: &[u8], bytes: u64) -> Range {
    let spec = value.split_at_checked(6).filter(|(unit, _)| unit.eq_ignore_ascii_case(b"bytes="));
    let Some((_, spec)) = spec else { return Range::Ignored };
    let spec = spec.trim_ascii();
    let Some(dash) = spec.iter().position(|byte| *byte == b'-') else { return Range::Ignored };
    let (first, last) = (&spec[..dash], &spec[dash + 1..]);
    match (number(first), number(last)) {
        (Some(first), Some(last)) if first <= last => {
            if first < bytes {
                Range::Part(first, bytes.min(last.saturating_add(1)))
            } else {
                Range::Beyond
            }
        }
        (Some(first), None) if last.is_empty() => {
            if first < bytes {
                Range::Part(first, bytes)
            } else {
                Range::Beyond
            }
        }
        (None, Some(0)) if first.is_empty() => Range::Beyond,
        (None, Some(size)) if first.is_empty() => match bytes {
            0 => Range::Beyond,
            bytes => Range::Part(bytes.saturating_sub(size), bytes),
        },
        _ => Range::Ignored,
    }
}

/// Reads digits; a number beyond 64 bits is as large as can be.
fn number(text: &[u8]) -> Option<u64> {
    let is_digits = !text.is_empty() && text.iter().all(u8::is_ascii_digit);
    let text = std::str::from_utf8(text).ok().filter(|_| is_digits)?;
    Some(text.parse().unwrap_or(u64::MAX))
}

fn date(value: &[u8]) -> Option<SystemTime> {
    httpdate::parse_http_date(std::str::from_utf8(value).ok()?).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const DATE: &str = "Sun, 06 Nov 1994 08:49:37 GMT";
    const LATER: &str = "Sun, 06 Nov 1994 08:49:38 GMT";
    const EARLIER: &str = "Sun, 06 Nov 1994 08:49:36 GMT";

    fn validators() -> Validators {
        let modified = date(DATE.as_bytes()).unwrap().duration_since(SystemTime::UNIX_EPOCH);
        let modified = modified.unwrap() + Duration::from_millis(700);
        let found = Validators::of(1000, modified, 7);
        Validators { tag: "\"tag\"".into(), ..found }
    }

    #[track_caller]
    fn check(lines: &[(&str, &str)], expected: Verdict) {
        let conditions = Conditions::of(|name| {
            let named = lines.iter().filter(move |(found, _)| found.as_bytes() == name);
            named.map(|(_, value)| value.as_bytes())
        });
        assert_eq!(conditions.judge(&validators(), 1000), expected, "{lines:?}");
    }

    #[test]
    fn conditions_are_judged_in_their_order() {
        check(&[], Verdict::Whole);
        for (name, value, expected) in [
            ("if-none-match", "\"tag\"", Verdict::NotModified),
            ("if-none-match", "W/\"tag\"", Verdict::NotModified),
            ("if-none-match", "\"a\", W/\"b\",\"tag\"", Verdict::NotModified),
            ("if-none-match", "\"a,\\\"tag\"", Verdict::Whole),
            ("if-none-match", "*", Verdict::NotModified),
            ("if-none-match", "\"other\"", Verdict::Whole),
            ("if-none-match", "tag", Verdict::Whole),
            ("if-match", "\"tag\"", Verdict::Whole),
            ("if-match", "*", Verdict::Whole),
            ("if-match", "W/\"tag\"", Verdict::Failed),
            ("if-match", "\"other\"", Verdict::Failed),
            ("if-modified-since", DATE, Verdict::NotModified),
            ("if-modified-since", LATER, Verdict::NotModified),
            ("if-modified-since", EARLIER, Verdict::Whole),
            ("if-modified-since", "yesterday", Verdict::Whole),
            ("if-unmodified-since", DATE, Verdict::Whole),
            ("if-unmodified-since", EARLIER, Verdict::Failed),
        ] {
            check(&[(name, value)], expected);
        }
        // A tag decides where both stand.
        check(&[("if-none-match", "\"other\""), ("if-modified-since", DATE)], Verdict::Whole);
        check(&[("if-match", "\"tag\""), ("if-unmodified-since", EARLIER)], Verdict::Whole);
        check(&[("if-match", "\"x\""), ("if-none-match", "\"tag\"")], Verdict::Failed);
        check(&[("if-none-match", "\"a\""), ("if-none-match", "\"tag\"")], Verdict::NotModified);
        check(&[("if-none-match", "\"tag\""), ("range", "bytes=0-1")], Verdict::NotModified);
    }

    #[test]
    fn one_range_is_given() {
        for (value, expected) in [
            ("bytes=0-0", Verdict::Part(0, 1)),
            ("bytes=0-499", Verdict::Part(0, 500)),
            ("bytes=500-", Verdict::Part(500, 1000)),
            ("bytes=-1", Verdict::Part(999, 1000)),
            ("bytes=-5000", Verdict::Part(0, 1000)),
            ("bytes=999-5000", Verdict::Part(999, 1000)),
            ("BYTES=0-0", Verdict::Part(0, 1)),
            ("bytes=1000-", Verdict::NoSuchPart),
            ("bytes=1000-1001", Verdict::NoSuchPart),
            ("bytes=-0", Verdict::NoSuchPart),
            ("bytes=99999999999999999999999-", Verdict::NoSuchPart),
            ("bytes=0-99999999999999999999999", Verdict::Part(0, 1000)),
            ("bytes=2-1", Verdict::Whole),
            ("bytes=0-1,4-5", Verdict::Whole),
            ("bytes=", Verdict::Whole),
            ("bytes=-", Verdict::Whole),
            ("bytes=a-b", Verdict::Whole),
            ("bytes=+1-2", Verdict::Whole),
            ("lines=0-1", Verdict::Whole),
            ("", Verdict::Whole),
        ] {
            check(&[("range", value)], expected);
        }
        check(&[("range", "bytes=0-0"), ("range", "bytes=1-1")], Verdict::Whole);
    }

    #[test]
    fn a_part_is_given_of_what_the_client_has() {
        for (value, expected) in [
            ("\"tag\"", Verdict::Part(0, 1)),
            ("\"other\"", Verdict::Whole),
            ("W/\"tag\"", Verdict::Whole),
            (DATE, Verdict::Part(0, 1)),
            (LATER, Verdict::Whole),
            ("what", Verdict::Whole),
        ] {
            check(&[("range", "bytes=0-0"), ("if-range", value)], expected);
        }
    }

    proptest! {
        #[test]
        fn a_part_lies_in_the_file(value in "bytes=[0-9,a-]{0,12}", bytes in 0_u64..2000) {
            if let Range::Part(start, end) = read_range(value.as_bytes(), bytes) {
                prop_assert!(start < end && end <= bytes);
            }
        }
    }
}
