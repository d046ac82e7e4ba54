//! What a URL asks for, cut into what a request has of it. Whether its parts are good the host says.

use crate::heap;

/// The parts of a URL.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Url<'a> {
    pub(super) is_tls: bool,
    pub(super) authority: &'a [u8],
    /// Path and query, from a `/` on.
    pub(super) target: &'a [u8],
}

/// The longest that the host takes (`midge_abi::fetch`).
const AUTHORITY_BYTES_MAX: usize = 261;
const TARGET_BYTES_MAX: usize = 16 * 1024;

/// Takes a URL apart. `None` for what is none: relative, of another scheme, or with characters that no URL has. A
/// user name and password are refused; a fragment is nobody's business but the function's.
pub(super) fn parse(url: &[u8]) -> Option<Url<'_>> {
    let (is_tls, rest) = match (strip(url, b"http://"), strip(url, b"https://")) {
        (Some(rest), _) => (false, rest),
        (_, Some(rest)) => (true, rest),
        _ => return None,
    };
    let end = |stops: &[u8]| rest.iter().position(|byte| stops.contains(byte));
    let rest = &rest[..end(b"#").unwrap_or(rest.len())];
    let (authority, target) = rest.split_at(end(b"/?#").unwrap_or(rest.len()));
    let target = match target {
        [] => b"/",
        [b'?', ..] => heap::fill(target.len() + 1, |whole| {
            whole[0] = b'/';
            whole[1..].copy_from_slice(target);
            whole.len()
        }),
        _ => target,
    };
    let is_good = !authority.is_empty()
        && authority.len() <= AUTHORITY_BYTES_MAX
        && target.len() <= TARGET_BYTES_MAX
        && !authority.contains(&b'@')
        && rest.iter().all(u8::is_ascii_graphic);
    is_good.then_some(Url { is_tls, authority, target })
}

/// Schemes are read in either case.
fn strip<'a>(url: &'a [u8], scheme: &[u8]) -> Option<&'a [u8]> {
    let (start, rest) = url.split_at_checked(scheme.len())?;
    start.eq_ignore_ascii_case(scheme).then_some(rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_taken_apart() {
        for (url, is_tls, authority, target) in [
            ("http://a", false, "a", "/"),
            ("HTTPS://A.example:8443", true, "A.example:8443", "/"),
            ("http://a?b", false, "a", "/?b"),
            ("http://a/b/c?d=/e?f", false, "a", "/b/c?d=/e?f"),
            ("http://[::1]:80/x#y/z", false, "[::1]:80", "/x"),
            ("http://a#b?c", false, "a", "/"),
        ] {
            let (authority, target) = (authority.as_bytes(), target.as_bytes());
            assert_eq!(parse(url.as_bytes()), Some(Url { is_tls, authority, target }), "{url}");
        }
    }

    #[test]
    fn what_is_no_url_is_refused() {
        let long = std::format!("http://{}", "a".repeat(262));
        let deep = std::format!("http://a/{}", "b".repeat(16 * 1024));
        for url in [
            "",
            "http",
            "http:/a",
            "http://",
            "http:///a",
            "ftp://a",
            "/a",
            "http://a b/",
            "http://a/\r\nx: y",
            "http://b@a/",
            "http://ä/",
            &long,
            &deep,
        ] {
            assert_eq!(parse(url.as_bytes()), None, "{url}");
        }
    }
}
