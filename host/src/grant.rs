//! What a function may reach: nothing, but for what its settings grant.
//!
//! ```text
//!   [function.grant]
//!   http     = ["https://api.example.com", "http://*.shop.example:8080", "http://10.0.0.5"]
//!   networks = ["10.0.0.0/8"]        where names may lead besides public addresses
//! ```
//!
//! A grant is looked at twice: by name before anything is resolved, and by address before anything is connected
//! to. The address that was looked at is the one that is connected to, so a name that changes its address between
//! the two gains nothing (DNS rebinding); and connections that rest are looked at anew before they are used again.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;
use std::sync::LazyLock;

use midge_net::{Networks, Origin};

/// Most entries of one list.
pub const ENTRIES_MAX: usize = 256;
/// Longest name of a host (RFC 1035, 2.3.4).
const NAME_BYTES_MAX: usize = 253;
/// Longest part of one.
const LABEL_BYTES_MAX: usize = 63;

/// What one function is granted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Grant {
    /// Servers.
    pub http: Vec<GrantedOrigin>,
    /// Networks that their names may lead to, besides public addresses.
    pub networks: Networks,
}

/// One entry of `http`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GrantedOrigin {
    /// Its host without its `*.`, if it had one.
    origin: Origin,
    has_wildcard: bool,
}

/// A text that names no server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum OriginError {
    /// Another scheme, or none.
    #[error("it begins with neither `http://` nor `https://`")]
    Scheme,
    /// A path, a query, or a user.
    #[error("only a host and a port may follow the scheme")]
    Rest,
    /// No name and no address.
    #[error("its host is no name and no address")]
    Host,
    /// No port.
    #[error("its port is no number from 1 to 65535")]
    Port,
}

impl Grant {
    /// Tells whether nothing is granted.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.http.is_empty()
    }

    /// Tells whether any server is reached by TLS.
    #[must_use]
    pub fn needs_tls(&self) -> bool {
        self.http.iter().any(|granted| granted.origin.is_tls)
    }

    /// Tells whether a server may be asked.
    #[must_use]
    pub fn allows(&self, origin: &Origin) -> bool {
        self.http.iter().any(|granted| granted.is(origin))
    }

    /// Tells whether a server that may be asked may be connected to at an address.
    #[must_use]
    pub fn may_connect(&self, origin: &Origin, address: IpAddr) -> bool {
        // An address that the grant itself names needs no other word.
        let is_named = origin.host.parse() == Ok(address);
        is_named || is_public(address) || self.networks.contains(address)
    }
}

impl GrantedOrigin {
    fn is(&self, origin: &Origin) -> bool {
        let Origin { is_tls, host, port } = &self.origin;
        let is_host = if self.has_wildcard {
            let front = origin.host.strip_suffix(host);
            front.is_some_and(|front| front.len() > 1 && front.ends_with('.'))
        } else {
            *host == origin.host
        };
        is_host && *is_tls == origin.is_tls && *port == origin.port
    }
}

impl FromStr for GrantedOrigin {
    type Err = OriginError;

    fn from_str(text: &str) -> Result<Self, OriginError> {
        let (is_tls, rest) = match text.split_once("://") {
            Some(("https", rest)) => (true, rest),
            Some(("http", rest)) => (false, rest),
            _ => return Err(OriginError::Scheme),
        };
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        if rest.contains(['/', '?', '#', '@']) {
            return Err(OriginError::Rest);
        }
        let (has_wildcard, rest) = match rest.strip_prefix("*.") {
            Some(rest) => (true, rest),
            None => (false, rest),
        };
        let origin = parse_origin(is_tls, rest)?;
        if has_wildcard && origin.host.parse::<IpAddr>().is_ok() {
            return Err(OriginError::Host);
        }
        Ok(Self { origin, has_wildcard })
    }
}

impl fmt::Display for GrantedOrigin {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let wildcard = if self.has_wildcard { "*." } else { "" };
        write!(formatter, "{}://{wildcard}{}", scheme(&self.origin), authority(&self.origin))
    }
}

/// Reads host and port as an authority has them. A user in it is refused: nobody means that.
///
/// # Errors
/// What is neither name nor address, and no port.
pub fn parse_origin(is_tls: bool, authority: &str) -> Result<Origin, OriginError> {
    let default = if is_tls { 443 } else { 80 };
    let (host, port) = if let Some(rest) = authority.strip_prefix('[') {
        let (host, rest) = rest.split_once(']').ok_or(OriginError::Host)?;
        let address = Ipv6Addr::from_str(host).map_err(|_| OriginError::Host)?;
        // One that stands for an address of IPv4 is that address.
        (address.to_canonical().to_string(), rest)
    } else {
        let end = authority.find(':').unwrap_or(authority.len());
        let (host, rest) = authority.split_at(end);
        (name(host).ok_or(OriginError::Host)?, rest)
    };
    let port = match port.strip_prefix(':') {
        None if port.is_empty() => default,
        Some(digits) if digits.bytes().all(|byte| byte.is_ascii_digit()) => {
            digits.parse().ok().filter(|&port| port > 0).ok_or(OriginError::Port)?
        }
        _ => return Err(OriginError::Port),
    };
    Ok(Origin { is_tls, host, port })
}

/// Returns a name or an address of IPv4 in its one form.
fn name(text: &str) -> Option<String> {
    let text = text.strip_suffix('.').unwrap_or(text).to_ascii_lowercase();
    let is_label = |label: &str| {
        (1..=LABEL_BYTES_MAX).contains(&label.len())
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
    };
    if text.len() > NAME_BYTES_MAX || !text.split('.').all(is_label) {
        return None;
    }
    // `127.1`, `0x7f000001` and `2130706433` are addresses to some resolvers, and names to those who read a grant.
    let last = text.rsplit('.').next()?;
    let is_number = last.bytes().next().is_some_and(|byte| byte.is_ascii_digit());
    (!is_number || text.parse::<Ipv4Addr>().is_ok()).then_some(text)
}

/// Returns host and port as they stand in `Host`.
#[must_use]
pub fn authority(origin: &Origin) -> String {
    let Origin { is_tls, host, port } = origin;
    let default = if *is_tls { 443 } else { 80 };
    let host = if host.contains(':') { format!("[{host}]") } else { host.clone() };
    if *port == default { host } else { format!("{host}:{port}") }
}

/// Returns a server as a grant names it.
#[must_use]
pub fn url(origin: &Origin) -> String {
    format!("{}://{}", scheme(origin), authority(origin))
}

const fn scheme(origin: &Origin) -> &'static str {
    if origin.is_tls { "https" } else { "http" }
}

/// Networks of which no name of the public speaks: the special-purpose registries of IANA for IPv4 and IPv6 (RFC
/// 6890 and what has followed it), and multicast.
static SPECIAL: LazyLock<Networks> = LazyLock::new(|| {
    let networks = [
        "0.0.0.0/8",
        "10.0.0.0/8",
        "100.64.0.0/10",
        "127.0.0.0/8",
        // Where clouds answer their machines; that of Azure beside it has a public number.
        "169.254.0.0/16",
        "168.63.129.16/32",
        "172.16.0.0/12",
        "192.0.0.0/24",
        "192.0.2.0/24",
        "192.88.99.0/24",
        "192.168.0.0/16",
        "198.18.0.0/15",
        "198.51.100.0/24",
        "203.0.113.0/24",
        "224.0.0.0/3",
        "::/96",
        "64:ff9b:1::/48",
        "100::/64",
        "2001::/23",
        "2001:db8::/32",
        "3fff::/20",
        "5f00::/16",
        "fc00::/7",
        "fe80::/10",
        "fec0::/10",
        "ff00::/8",
    ];
    Networks::parse(networks).expect("they are networks")
});

/// Tells whether an address belongs to the public network. One that carries another is as public as that.
#[must_use]
pub fn is_public(address: IpAddr) -> bool {
    if SPECIAL.contains(address) {
        return false;
    }
    match address.to_canonical() {
        IpAddr::V4(_) => true,
        // Beside those two, 2000::/3 is what has been given out (IANA, IPv6 address space).
        IpAddr::V6(address) => match (address.segments(), address.octets()) {
            // Translated (RFC 6052), and 6to4 (RFC 3056).
            ([0x64, 0xFF9B, 0, 0, 0, 0, ..], [.., a, b, c, d])
            | ([0x2002, ..], [_, _, a, b, c, d, ..]) => is_public(Ipv4Addr::new(a, b, c, d).into()),
            ([first, ..], _) => first & 0xE000 == 0x2000,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn grant(http: &[&str], networks: &[&str]) -> Grant {
        Grant {
            http: http.iter().map(|text| text.parse().unwrap()).collect(),
            networks: Networks::parse(networks.iter().copied()).unwrap(),
        }
    }

    #[test]
    fn what_is_granted_is_granted_and_nothing_else() {
        let grant = grant(
            &["https://api.example.com", "http://*.shop.example:8080", "http://[2001:DB8::1]"],
            &[],
        );
        for (is_tls, authority, is_granted) in [
            (true, "api.example.com", true),
            (true, "API.Example.com.", true),
            (true, "api.example.com:443", true),
            (true, "api.example.com:444", false),
            (false, "api.example.com:443", false),
            (true, "xapi.example.com", false),
            (true, "api.example.com.evil.net", false),
            (false, "a.shop.example:8080", true),
            (false, "a.b.shop.example:8080", true),
            (false, "shop.example:8080", false),
            (false, ".shop.example:8080", false),
            (false, "xshop.example:8080", false),
            (false, "a.shop.example", false),
            (false, "[2001:db8:0::1]", true),
            (false, "[2001:db8::2]", false),
        ] {
            let origin = parse_origin(is_tls, authority);
            let found = origin.is_ok_and(|origin| grant.allows(&origin));
            assert_eq!(found, is_granted, "{authority}");
        }
        assert!(!Grant::default().allows(&parse_origin(true, "api.example.com").unwrap()));
    }

    #[test]
    fn what_is_no_server_is_refused() {
        use OriginError::{Host, Port, Rest, Scheme};
        for (text, error) in [
            ("api.example.com", Scheme),
            ("ftp://a", Scheme),
            ("https://a/b", Rest),
            ("https://a?b", Rest),
            ("https://user@a", Rest),
            ("https://", Host),
            ("https://a..b", Host),
            ("https://*", Host),
            ("https://a*.b", Host),
            ("https://*.10.0.0.1", Host),
            ("https://127.1", Host),
            ("https://0x7f000001", Host),
            ("https://2130706433", Host),
            ("https://[::1", Host),
            ("https://[1.2.3.4]", Host),
            ("https://a b", Host),
            ("https://a:0", Port),
            ("https://a:65536", Port),
            ("https://a:+1", Port),
            ("https://a:", Port),
            ("https://[::1]x", Port),
        ] {
            assert_eq!(text.parse::<GrantedOrigin>().unwrap_err(), error, "{text}");
        }
        for text in ["https://a.b", "http://*.a.b:81", "http://[::1]:8080", "http://10.0.0.1"] {
            assert_eq!(text.parse::<GrantedOrigin>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn private_addresses_need_a_word() {
        let named = grant(&["http://10.0.0.5", "http://db.internal"], &["192.168.7.0/24"]);
        let may = |host: &str, address: &str| {
            let origin = parse_origin(false, host).unwrap();
            named.may_connect(&origin, address.parse().unwrap())
        };
        assert!(may("10.0.0.5", "10.0.0.5"));
        assert!(!may("db.internal", "10.0.0.5"));
        assert!(may("db.internal", "192.168.7.9"));
        assert!(may("db.internal", "::ffff:192.168.7.9"));
        assert!(may("db.internal", "93.184.215.14"));
        assert!(!may("db.internal", "127.0.0.1"));
    }

    #[test]
    fn addresses_that_carry_another_are_as_public_as_that() {
        for (address, expected) in [
            ("8.8.8.8", true),
            ("127.0.0.1", false),
            ("169.254.169.254", false),
            ("100.64.0.1", false),
            ("255.255.255.255", false),
            ("::1", false),
            ("::", false),
            ("::ffff:127.0.0.1", false),
            ("::ffff:8.8.8.8", true),
            ("::127.0.0.1", false),
            ("64:ff9b::7f00:1", false),
            ("64:ff9b::808:808", true),
            ("2002:7f00:1::", false),
            ("2002:808:808::", true),
            ("2001:0:53aa:64c:0:fbff:80ff:fffe", false),
            ("2606:4700::1", true),
            ("fd00::1", false),
            ("fe80::1", false),
            ("ff02::1", false),
            ("::ffff:0:7f00:1", false),
            ("4000::1", false),
            ("168.63.129.16", false),
        ] {
            assert_eq!(is_public(address.parse().unwrap()), expected, "{address}");
        }
    }
}
