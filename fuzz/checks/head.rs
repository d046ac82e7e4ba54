//! The head of a request: whole, in growing pieces, and as httparse reads it.
//!
//! The crate that includes this file has `cuts` at its root.

use httparse::Status;
use midge_net::http::refusal::Refusal;
use midge_net::http::request::{
    HEAD_BYTES_MAX, HEADERS_MAX, Head, Progress, TARGET_BYTES_MAX, parse,
};

use crate::cuts::cuts;

/// A head that was taken: what it says, and its bytes with names in lower case.
struct Taken {
    head: Box<Head>,
    bytes: Vec<u8>,
}

type Outcome = Result<Option<Taken>, Refusal>;

/// Reads the bytes as a head.
pub(crate) fn check(bytes: &[u8]) {
    let whole = read(bytes);
    if let Ok(Some(taken)) = &whole {
        look_at(taken);
    }
    grow(bytes, &whole);
    compare(bytes, &whole);
}

fn read(bytes: &[u8]) -> Outcome {
    let (mut bytes, mut head) = (bytes.to_vec(), Box::<Head>::default());
    Ok(match parse(&mut bytes, &mut head)? {
        Progress::Partial => None,
        Progress::Complete => {
            bytes.truncate(head.bytes_total());
            Some(Taken { head, bytes })
        }
    })
}

/// What is handed out is what the grammar allows.
fn look_at(taken: &Taken) {
    let head = &taken.head;
    let bytes = &taken.bytes[usize::from(head.bytes_skipped)..];
    assert!(bytes.len() == usize::from(head.bytes) && bytes.len() <= HEAD_BYTES_MAX);
    assert!(bytes.ends_with(b"\r\n\r\n"));
    let target = head.target.of(bytes);
    assert!(!target.is_empty() && target.iter().all(u8::is_ascii_graphic));
    let (path, query) = (head.path.of(bytes), head.query.of(bytes));
    let rest = [path, if target.contains(&b'?') { b"?" } else { b"" }, query].concat();
    assert!(target.ends_with(&rest) && !path.contains(&b'?'));
    assert!(path.first().is_none_or(|&first| first == b'/') || path == b"*");
    assert!(head.version_minor == 0 || !head.authority.of(bytes).is_empty());
    for line in head.headers() {
        let (name, value) = (line.name.of(bytes), line.value.of(bytes));
        assert!(!name.is_empty() && name.iter().all(u8::is_ascii_graphic));
        assert!(!name.iter().any(|byte| byte.is_ascii_uppercase() || *byte == b':'));
        assert!(!value.iter().any(|byte| matches!(byte, b'\r' | b'\n' | 0 | 0x7F)));
        assert!(value == value.trim_ascii());
    }
}

/// Feeds growing fronts, as an endpoint does: in place, with what was said of another head lying about.
fn grow(bytes: &[u8], whole: &Outcome) {
    let (mut front, mut head) = (Vec::with_capacity(bytes.len()), Box::<Head>::default());
    for end in cuts(bytes) {
        front.extend_from_slice(&bytes[front.len()..end]);
        match (parse(&mut front, &mut head), whole) {
            (Ok(Progress::Partial), _) => {}
            (Ok(Progress::Complete), Ok(Some(taken))) => {
                assert_eq!(said(&head), said(&taken.head));
                assert_eq!(front[..head.bytes_total()], taken.bytes);
                return;
            }
            (Err(refusal), whole) => {
                assert_eq!(whole.as_ref().err(), Some(&refusal), "refused at {end}");
                return;
            }
            (Ok(Progress::Complete), _) => panic!("complete at {end}, and not as a whole"),
        }
    }
    assert!(matches!(whole, Ok(None)), "a whole in pieces is the whole");
}

/// All that a head says, to be compared.
fn said(head: &Head) -> impl PartialEq + std::fmt::Debug + '_ {
    let spans = (head.method_name, head.target, head.path, head.query, head.authority);
    let sizes = (head.bytes, head.bytes_skipped, head.version_minor);
    let meaning = (head.method, head.framing, head.keep_alive, head.expects_continue);
    (spans, sizes, meaning, head.headers())
}

/// What we take httparse takes alike. What it takes and we do not has a rule that says why.
fn compare(bytes: &[u8], ours: &Outcome) {
    let mut lines = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut theirs = httparse::Request::new(&mut lines);
    match (ours, theirs.parse(bytes)) {
        (Ok(Some(taken)), Ok(Status::Complete(size))) => {
            let head = &taken.head;
            assert_eq!(size, head.bytes_total());
            let bytes = &bytes[usize::from(head.bytes_skipped)..];
            assert_eq!(theirs.method.map(str::as_bytes), Some(head.method_name.of(bytes)));
            assert_eq!(theirs.path.map(str::as_bytes), Some(head.target.of(bytes)));
            assert_eq!(theirs.version, Some(head.version_minor));
            assert_eq!(theirs.headers.len(), head.headers().len());
            for (theirs, ours) in theirs.headers.iter().zip(head.headers()) {
                assert!(theirs.name.as_bytes().eq_ignore_ascii_case(ours.name.of(bytes)));
                assert_eq!(theirs.value, ours.value.of(bytes));
            }
        }
        // A later minor version is read as 1.1 (RFC 9110, 2.5); httparse knows two.
        (Ok(Some(taken)), Err(httparse::Error::Version)) => {
            let version = 1
                + usize::from(taken.head.bytes_skipped)
                + usize::from(taken.head.target.offset)
                + usize::from(taken.head.target.size);
            let version = &taken.bytes[version..];
            assert!(version.starts_with(b"HTTP/1.") && matches!(version[7], b'2'..=b'9'));
        }
        // We look at a version once all of it is there.
        (Ok(None), Err(httparse::Error::Version)) => {}
        (Ok(Some(_)), theirs) => panic!("taken, and httparse says {theirs:?}"),
        (Ok(None), theirs) => assert_eq!(theirs, Ok(Status::Partial)),
        (Err(refusal), Ok(Status::Complete(size))) => {
            let is_ruled = is_stricter(*refusal, &theirs, &bytes[..size]);
            assert!(is_ruled, "refused for `{refusal}`, and httparse sees nothing of it");
        }
        (Err(_), _) => {}
    }
}

/// Tells whether the rule of a refusal that httparse does not have applies to a head that it took.
fn is_stricter(refusal: Refusal, head: &httparse::Request<'_, '_>, bytes: &[u8]) -> bool {
    let target = head.path.unwrap_or_default().as_bytes();
    let is_old = head.version == Some(0);
    let of = |name: &str| -> Vec<&[u8]> {
        let lines = head.headers.iter().filter(|line| line.name.eq_ignore_ascii_case(name));
        lines.map(|line| line.value).collect()
    };
    match refusal {
        // A line ends in CRLF, and a bare LF ends nothing (RFC 9112, 2.2 leaves the choice). Behind as many lines as
        // there may be it begins one too many.
        Refusal::RequestLine
        | Refusal::HeaderName
        | Refusal::HeaderValue
        | Refusal::HeadersTooMany => {
            let is_bare = |at: usize| bytes[at] == b'\n' && (at == 0 || bytes[at - 1] != b'\r');
            (0..bytes.len()).any(is_bare)
        }
        Refusal::EmptyLines => bytes.starts_with(b"\r\n\r\n\r"),
        Refusal::Target => {
            let is_plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"/?&=%.-_~".contains(byte);
            target.first() != Some(&b'/') || !target.iter().all(is_plain)
        }
        Refusal::TargetTooLong => target.len() > TARGET_BYTES_MAX,
        Refusal::MethodUnknown => {
            let known = ["GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH", "TRACE"];
            !known.contains(&head.method.unwrap_or_default())
        }
        Refusal::Host => match of("host")[..] {
            [] => !is_old,
            [value] => {
                let is_plain = |byte: &u8| byte.is_ascii_alphanumeric() || b".-".contains(byte);
                value.is_empty() || !value.iter().all(is_plain)
            }
            _ => true,
        },
        Refusal::ContentLength => match of("content-length")[..] {
            [value] => !matches!(value.len(), 1..=19) || !value.iter().all(u8::is_ascii_digit),
            ref several => several.len() > 1,
        },
        Refusal::TransferEncoding | Refusal::CodingUnknown => match of("transfer-encoding")[..] {
            [value] => is_old || !value.eq_ignore_ascii_case(b"chunked"),
            ref several => several.len() > 1,
        },
        Refusal::FramingTwice => {
            !of("content-length").is_empty() && !of("transfer-encoding").is_empty()
        }
        Refusal::Expectation => {
            of("expect").iter().any(|value| !value.eq_ignore_ascii_case(b"100-continue"))
        }
        Refusal::HeadTooLarge => bytes.len() > HEAD_BYTES_MAX,
        _ => false,
    }
}
