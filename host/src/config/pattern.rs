//! Routes and host names as settings write them.
//!
//! `/x` is exact: that path alone. `/x/*` is a prefix: every path that starts with `/x/`, so not `/x`.
//! Paths are compared as the raw bytes of the request, without decoding: `/caf%C3%A9` and `/caf%c3%a9` are
//! two routes, and `/a/../b` is no way to `/b`. A host that decoded for routing and handed the raw path to
//! the function would let the two disagree about which path it is.

use std::fmt;

/// The longest route.
pub const ROUTE_BYTES_MAX: usize = 1024;
/// The longest host name (RFC 1035, section 2.3.4).
pub const HOST_BYTES_MAX: usize = 253;

/// Which paths a function answers.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Pattern {
    /// This path.
    Exact(String),
    /// Every path that starts so. Ends in a slash.
    Prefix(String),
}

/// Why a text is no route.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PatternError {
    /// Not a path.
    #[error("a route starts with `/`")]
    NoSlash,
    /// Longer than [`ROUTE_BYTES_MAX`].
    #[error("a route has at most {ROUTE_BYTES_MAX} bytes")]
    TooLong,
    /// A star that is not the whole last segment.
    #[error("`*` stands at the end alone, behind a `/`")]
    Star,
    /// A byte that no request's path can hold.
    #[error("a path cannot hold `{}`", .letter.escape_default())]
    Letter {
        /// What was found.
        letter: char,
    },
}

impl Pattern {
    /// Reads a route.
    ///
    /// # Errors
    /// [`PatternError`] says what is wrong with the text.
    pub fn parse(text: &str) -> Result<Self, PatternError> {
        if !text.starts_with('/') {
            return Err(PatternError::NoSlash);
        }
        if text.len() > ROUTE_BYTES_MAX {
            return Err(PatternError::TooLong);
        }
        let (path, is_prefix) = match text.strip_suffix("/*") {
            Some(_) => (&text[..text.len() - 1], true),
            None => (text, false),
        };
        if path.contains('*') {
            return Err(PatternError::Star);
        }
        if let Some(letter) = path.chars().find(|letter| !may_stand_in_path(*letter)) {
            return Err(PatternError::Letter { letter });
        }
        Ok(if is_prefix { Self::Prefix(path.into()) } else { Self::Exact(path.into()) })
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exact(path) => formatter.write_str(path),
            Self::Prefix(path) => write!(formatter, "{path}*"),
        }
    }
}

/// Returns the name as it is compared, or nothing if it is no host name (RFC 1123, or a literal address).
#[must_use]
pub fn host_name(text: &str) -> Option<String> {
    let name = text.strip_suffix('.').unwrap_or(text);
    let is_literal = name.starts_with('[') && name.ends_with(']');
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    let inside = if is_literal { &name[1..name.len() - 1] } else { name };
    let fits = !inside.is_empty()
        && name.len() <= HOST_BYTES_MAX
        && inside.bytes().all(|byte| plain(byte) || (is_literal && byte == b':'));
    fits.then(|| name.to_ascii_lowercase())
}

/// Characters of a path (RFC 3986, section 3.3), the star apart; `%` begins an encoded byte.
fn may_stand_in_path(letter: char) -> bool {
    letter.is_ascii_alphanumeric() || "-._~!$&'()+,;=:@/%".contains(letter)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn routes_are_exact_or_prefixes() {
        for (text, expected) in [
            ("/", Ok(Pattern::Exact("/".into()))),
            ("/hello", Ok(Pattern::Exact("/hello".into()))),
            ("/*", Ok(Pattern::Prefix("/".into()))),
            ("/files/*", Ok(Pattern::Prefix("/files/".into()))),
            ("hello", Err(PatternError::NoSlash)),
            ("/files*", Err(PatternError::Star)),
            ("/*/a", Err(PatternError::Star)),
            ("/a?b", Err(PatternError::Letter { letter: '?' })),
            ("/é", Err(PatternError::Letter { letter: 'é' })),
            ("/a b", Err(PatternError::Letter { letter: ' ' })),
        ] {
            assert_eq!(Pattern::parse(text), expected, "{text}");
            if let Ok(pattern) = expected {
                assert_eq!(pattern.to_string(), text);
            }
        }
        assert_eq!(Pattern::parse(&"/".repeat(2000)), Err(PatternError::TooLong));
    }

    #[test]
    fn host_names_are_compared_in_lower_case_without_final_dot() {
        for (text, expected) in [
            ("API.Example.Org.", Some("api.example.org")),
            ("[::1]", Some("[::1]")),
            ("example.org:80", None),
            ("a b", None),
            ("", None),
        ] {
            assert_eq!(host_name(text).as_deref(), expected, "{text}");
        }
    }
}
