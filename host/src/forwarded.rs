//! The client behind proxies, from what they write into a request's head.
//!
//! A proxy appends the address of its own peer. So the list is read from its end: as long as the one who wrote
//! an entry is trusted, the entry is, and the first that names somebody who is not trusted names the client.
//! What stands before it anybody may have written.

use std::net::{IpAddr, SocketAddr};

use midge_net::RequestView;

use crate::config::{ClientAddress, Trusted};

/// Entries that are looked at: a chain of more proxies is none.
const HOPS_MAX: usize = 32;

/// How a client's address is found.
#[derive(Debug, Clone)]
pub struct Clients {
    trusted: Trusted,
    header: &'static [u8],
    entry: fn(&[u8]) -> Option<SocketAddr>,
}

impl Clients {
    /// Returns how, if not by the connection alone.
    #[must_use]
    pub fn new(source: ClientAddress, trusted: Trusted) -> Option<Self> {
        match source {
            ClientAddress::Peer => None,
            ClientAddress::XForwardedFor => {
                Some(Self { trusted, header: b"x-forwarded-for", entry: address })
            }
            ClientAddress::Forwarded => {
                Some(Self { trusted, header: b"forwarded", entry: forwarded_for })
            }
        }
    }

    /// Returns the client of a request; `None` if it has hidden, or nobody knows.
    #[must_use]
    pub fn of(&self, view: &RequestView<'_>) -> Option<SocketAddr> {
        let values = view.values(self.header).rev();
        self.find(
            view.peer,
            view.is_local,
            values.flat_map(|value| value.rsplit(|byte| *byte == b',')),
        )
    }

    fn find<'a>(
        &self,
        peer: Option<SocketAddr>,
        is_local: bool,
        entries: impl Iterator<Item = &'a [u8]>,
    ) -> Option<SocketAddr> {
        let mut last = peer;
        // Empty elements of a list say nothing (RFC 9110, 5.6.1.2).
        let entries = entries.map(<[u8]>::trim_ascii).filter(|entry| !entry.is_empty());
        for entry in entries.take(HOPS_MAX) {
            let is_trusted = match last {
                Some(last) => self.trusted.networks.contains(last.ip()),
                None => is_local && self.trusted.local,
            };
            if !is_trusted {
                break;
            }
            // A trusted proxy that does not say whom it speaks for: nobody knows.
            last = Some((self.entry)(entry)?);
        }
        last
    }
}

/// Reads an address with or without a port: `192.0.2.1`, `192.0.2.1:80`, `2001:db8::1`, `[2001:db8::1]:80`.
fn address(text: &[u8]) -> Option<SocketAddr> {
    let text = std::str::from_utf8(text).ok()?;
    let bare = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
    let without_port = || bare.parse::<IpAddr>().ok().map(|ip| SocketAddr::new(ip, 0));
    text.parse().ok().or_else(without_port)
}

/// Reads the `for` of one element (RFC 7239, 4): a token, or a quoted string, for IPv6 with its brackets.
fn forwarded_for(element: &[u8]) -> Option<SocketAddr> {
    let pairs = element.split(|byte| *byte == b';');
    let values = pairs.filter_map(|pair| {
        let equals = pair.iter().position(|byte| *byte == b'=')?;
        let (name, value) = (pair[..equals].trim_ascii(), pair[equals + 1..].trim_ascii());
        name.eq_ignore_ascii_case(b"for").then_some(value)
    });
    let mut values = values.fuse();
    let value = values.next()?;
    if values.next().is_some() {
        return None;
    }
    let inner = value.strip_prefix(b"\"").and_then(|value| value.strip_suffix(b"\""));
    // An obfuscated name and `unknown` (6.2, 6.3) are no addresses, and neither is what has escapes.
    address(inner.unwrap_or(value))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(source: ClientAddress, trusted: &[&str], peer: &str, value: &str) -> String {
        let clients = Clients::new(source, Trusted::parse(trusted).unwrap()).unwrap();
        let peer = (peer != "unix").then(|| SocketAddr::new(peer.parse().unwrap(), 9));
        let entries = value.as_bytes().rsplit(|byte| *byte == b',').filter(|_| !value.is_empty());
        clients
            .find(peer, peer.is_none(), entries)
            .map_or_else(|| "nobody".into(), |found| found.to_string())
    }

    #[test]
    fn the_first_untrusted_from_the_end_is_the_client() {
        let of = |peer, value| client(ClientAddress::XForwardedFor, &["10.0.0.0/8"], peer, value);
        for (peer, value, expected) in [
            ("10.0.0.1", "192.0.2.7", "192.0.2.7:0"),
            ("10.0.0.1", "1.1.1.1, 192.0.2.7, 10.0.0.2", "192.0.2.7:0"),
            ("10.0.0.1", "10.9.9.9, 10.0.0.2", "10.9.9.9:0"),
            ("10.0.0.1", "", "10.0.0.1:9"),
            ("192.0.2.9", "10.0.0.2, 1.1.1.1", "192.0.2.9:9"),
            ("10.0.0.1", "192.0.2.7:4711", "192.0.2.7:4711"),
            ("10.0.0.1", "2001:db8::1", "[2001:db8::1]:0"),
            ("10.0.0.1", "[2001:db8::1]", "[2001:db8::1]:0"),
            ("10.0.0.1", "[2001:db8::1]:80", "[2001:db8::1]:80"),
            ("10.0.0.1", "unknown", "nobody"),
            ("10.0.0.1", ", 192.0.2.7,,", "192.0.2.7:0"),
            ("10.0.0.1", "unknown, 192.0.2.7", "192.0.2.7:0"),
            ("unix", "192.0.2.7", "nobody"),
        ] {
            assert_eq!(of(peer, value), expected, "{peer}: {value}");
        }
        let local = client(ClientAddress::XForwardedFor, &["unix"], "unix", "192.0.2.7, 10.0.0.1");
        assert_eq!(local, "10.0.0.1:0");
    }

    #[test]
    fn elements_are_read_as_rfc_7239_has_them() {
        let of = |value| client(ClientAddress::Forwarded, &["10.0.0.0/8"], "10.0.0.1", value);
        for (value, expected) in [
            ("for=192.0.2.7", "192.0.2.7:0"),
            ("For=\"[2001:db8:cafe::17]:4711\"", "[2001:db8:cafe::17]:4711"),
            ("for=192.0.2.60;proto=http;by=203.0.113.43", "192.0.2.60:0"),
            ("proto=http; for=\"192.0.2.60:80\" ;by=203.0.113.43", "192.0.2.60:80"),
            ("for=1.1.1.1, for=192.0.2.43, for=\"10.0.0.2\"", "192.0.2.43:0"),
            ("for=_hidden", "nobody"),
            ("for=unknown", "nobody"),
            ("for=192.0.2.7;for=192.0.2.8", "nobody"),
            ("proto=https", "nobody"),
            ("for=\"192.0.2.7", "nobody"),
        ] {
            assert_eq!(of(value), expected, "{value}");
        }
    }

    #[test]
    fn a_long_chain_ends_somewhere() {
        let value = ["10.0.0.2"; 100].join(",");
        let found = client(ClientAddress::XForwardedFor, &["10.0.0.0/8"], "10.0.0.1", &value);
        assert_eq!(found, "10.0.0.2:0");
    }
}
