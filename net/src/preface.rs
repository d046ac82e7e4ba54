//! What a proxy says of the client before the first request: the PROXY protocol, versions 1 and 2
//! (haproxy.org, doc/proxy-protocol.txt, sections 2.1 and 2.2).
//!
//! It stands on a listener that was told so and on no other: bytes that anybody may send are not guessed at.
//! What is no preface ends the connection without an answer, as the specification asks for.
//!
//! Invariant: a preface that is cut anywhere is read as the whole one is.
//! Off the hot path: once for each connection of such a listener.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::str::FromStr;

use crate::clock::Clock;
use crate::connection::Exchange;
use crate::endpoint::{Current, Endpoint, Source};
use crate::ring::Ring;

/// Longest line of version 1, its end included (2.1).
const LINE_BYTES_MAX: usize = 107;
/// What version 2 begins with.
const SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";
/// Signature, version and command, family and protocol, length.
const FIXED_BYTES: usize = 16;
/// Longest preface of version 2 with all that it tells besides addresses, certificates' names among it.
pub(crate) const PREFACE_BYTES_MAX: usize = 4096;

/// What the bytes so far say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Preface {
    /// It may be one, and is not whole.
    Partial,
    /// It is one.
    Whole {
        /// Its length.
        size: usize,
        /// The client; `None` if the proxy speaks for itself, or does not know.
        client: Option<SocketAddr>,
    },
    /// It is none, or one that is too long.
    Malformed,
}

/// Reads a preface from the front of `bytes`.
pub(crate) fn read(bytes: &[u8]) -> Preface {
    if bytes.first() == Some(&b'P') {
        return read_line(bytes);
    }
    let shared = bytes.len().min(SIGNATURE.len());
    match bytes[..shared] == SIGNATURE[..shared] {
        true => read_binary(bytes),
        false => Preface::Malformed,
    }
}

/// Version 1: `PROXY TCP4 source destination port port CR LF`.
fn read_line(bytes: &[u8]) -> Preface {
    let window = &bytes[..bytes.len().min(LINE_BYTES_MAX)];
    let Some(end) = window.windows(2).position(|pair| pair == b"\r\n") else {
        let begins = window.iter().zip(b"PROXY ").all(|(found, wanted)| found == wanted);
        let is_partial = begins && window.len() < LINE_BYTES_MAX;
        return if is_partial { Preface::Partial } else { Preface::Malformed };
    };
    let size = end + 2;
    let whole = |client| Preface::Whole { size, client };
    let Ok(line) = std::str::from_utf8(&bytes[..end]) else { return Preface::Malformed };
    let mut words = line.split(' ');
    match (words.next(), words.next()) {
        (Some("PROXY"), Some("UNKNOWN")) => whole(None),
        (Some("PROXY"), Some("TCP4")) => {
            addresses::<Ipv4Addr>(words).map_or(Preface::Malformed, whole)
        }
        (Some("PROXY"), Some("TCP6")) => {
            addresses::<Ipv6Addr>(words).map_or(Preface::Malformed, whole)
        }
        _ => Preface::Malformed,
    }
}

/// Reads two addresses and two ports, and nothing more. The outer `None` means that they are something else.
fn addresses<'a, A>(mut words: impl Iterator<Item = &'a str>) -> Option<Option<SocketAddr>>
where
    A: FromStr + Into<IpAddr>,
{
    let source = words.next()?.parse::<A>().ok()?;
    words.next()?.parse::<A>().ok()?;
    let source_port = port(words.next()?)?;
    port(words.next()?)?;
    words.next().is_none().then(|| Some(SocketAddr::new(source.into(), source_port)))
}

/// A port in decimal, without sign and leading zeros.
fn port(word: &str) -> Option<u16> {
    let is_plain = word.bytes().all(|byte| byte.is_ascii_digit());
    let is_short = word == "0" || !word.starts_with('0');
    (is_plain && is_short).then(|| word.parse().ok())?
}

/// Version 2: signature, version and command, family and protocol, length, addresses, what else there is.
fn read_binary(bytes: &[u8]) -> Preface {
    const LOCAL: u8 = 0x20;
    const PROXY: u8 = 0x21;
    let Some(fixed) = bytes.first_chunk::<FIXED_BYTES>() else { return Preface::Partial };
    let [.., command, family, high, low] = *fixed;
    let size = FIXED_BYTES + usize::from(u16::from_be_bytes([high, low]));
    if !matches!(command, LOCAL | PROXY) || size > PREFACE_BYTES_MAX {
        return Preface::Malformed;
    }
    let Some(rest) = bytes.get(FIXED_BYTES..size) else { return Preface::Partial };
    let client = match (command, family) {
        (PROXY, 0x11) => {
            rest.first_chunk().map(|&[a, b, c, d, _, _, _, _, high, low, _, _]: &[u8; 12]| {
                SocketAddr::from(([a, b, c, d], u16::from_be_bytes([high, low])))
            })
        }
        (PROXY, 0x21) => rest.first_chunk::<36>().and_then(|addresses| {
            let source = *addresses.first_chunk::<16>()?;
            let port = u16::from_be_bytes([addresses[32], addresses[33]]);
            Some(SocketAddr::from((source, port)))
        }),
        // The proxy itself; datagrams, Unix sockets and unspecified: to be taken as from the proxy (2.2).
        (LOCAL, _) | (PROXY, 0x00 | 0x12 | 0x22 | 0x31 | 0x32) => {
            return Preface::Whole { size, client: None };
        }
        _ => None,
    };
    match client {
        Some(client) => Preface::Whole { size, client: Some(client) },
        None => Preface::Malformed,
    }
}

impl<R: Ring, C: Clock> Endpoint<R, C> {
    /// Reads the preface in the bytes at hand. Tells whether requests may follow in them.
    pub(crate) fn read_preface(&mut self, slot: usize, current: &mut Current) -> bool {
        let connection = &self.connections[slot];
        let bytes = match current.source {
            Source::Buffer(buffer) => &self.ring.bytes(buffer)[current.next..current.end],
            Source::Input => &connection.input[current.next..current.end],
        };
        match read(bytes) {
            Preface::Partial => false,
            Preface::Malformed => {
                current.next = current.end;
                self.counters.prefaces_refused += 1;
                self.end(slot);
                false
            }
            Preface::Whole { size, client } => {
                current.next += size;
                let connection = &mut self.connections[slot];
                connection.exchange = Exchange::Idle;
                connection.peer = client.or(connection.peer);
                let is_welcome = self.count_in(slot);
                if !is_welcome {
                    current.next = current.end;
                }
                is_welcome
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn binary(command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
        let mut bytes = SIGNATURE.to_vec();
        bytes.extend([command, family]);
        bytes.extend(u16::try_from(rest.len()).expect("short").to_be_bytes());
        bytes.extend(rest);
        bytes
    }

    fn client(bytes: &[u8]) -> String {
        match read(bytes) {
            Preface::Whole { size, client } => {
                let rest = String::from_utf8_lossy(&bytes[size..]).into_owned();
                format!("{client:?} then {rest:?}")
            }
            other => format!("{other:?}"),
        }
    }

    #[test]
    fn lines_are_read_strictly() {
        for (line, expected) in [
            ("PROXY TCP4 192.0.2.1 192.0.2.2 5000 80\r\nGET", "Some(192.0.2.1:5000) then \"GET\""),
            ("PROXY TCP6 2001:db8::1 ::1 5000 80\r\n", "Some([2001:db8::1]:5000) then \"\""),
            ("PROXY UNKNOWN\r\nGET", "None then \"GET\""),
            ("PROXY UNKNOWN what ever\r\n", "None then \"\""),
            ("PROXY TCP4 192.0.2.1 192.0.2.2 5000 80", "Partial"),
            ("PROXY TCP4 192.0.2.1 192.0.2.2 5000 80\r", "Partial"),
            ("P", "Partial"),
            ("PRO", "Partial"),
            ("POST / HTTP/1.1", "Malformed"),
            ("GET / HTTP/1.1\r\n", "Malformed"),
            ("PROXY TCP4 192.0.2.1 192.0.2.2 5000\r\n", "Malformed"),
            ("PROXY TCP4 192.0.2.1 192.0.2.2 5000 80 \r\n", "Malformed"),
            ("PROXY TCP4  192.0.2.1 192.0.2.2 5000 80\r\n", "Malformed"),
            ("PROXY TCP4 192.0.2.1 192.0.2.2 +5000 80\r\n", "Malformed"),
            ("PROXY TCP4 192.0.2.1 192.0.2.2 05000 80\r\n", "Malformed"),
            ("PROXY TCP4 192.0.2.1 192.0.2.2 65536 80\r\n", "Malformed"),
            ("PROXY TCP4 ::1 192.0.2.2 5000 80\r\n", "Malformed"),
            ("PROXY TCP5 192.0.2.1 192.0.2.2 5000 80\r\n", "Malformed"),
            ("PROXYTCP4 192.0.2.1 192.0.2.2 5000 80\r\n", "Malformed"),
            ("PROXY TCP4 192.0.2.1 192.0.2.2 5000 80\n", "Partial"),
        ] {
            assert_eq!(client(line.as_bytes()), expected, "{line:?}");
        }
        let long = [b"PROXY UNKNOWN ".as_slice(), &[b'x'; 120], b"\r\n"].concat();
        assert_eq!(read(&long), Preface::Malformed);
        let longest = [b"PROXY UNKNOWN ".as_slice(), &[b'x'; 91], b"\r\n"].concat();
        assert_eq!(read(&longest), Preface::Whole { size: LINE_BYTES_MAX, client: None });
    }

    #[test]
    fn the_binary_form_is_read_strictly() {
        let four = [192, 0, 2, 1, 192, 0, 2, 2, 0x13, 0x88, 0, 80];
        let mut six = [0; 36];
        six[..4].copy_from_slice(&[0x20, 1, 0xd, 0xb8]);
        six[32..34].copy_from_slice(&5000_u16.to_be_bytes());
        let with_more = [four.as_slice(), &[4, 0, 1, 0]].concat();
        for (bytes, expected) in [
            (binary(0x21, 0x11, &four), "Some(192.0.2.1:5000) then \"\""),
            (binary(0x21, 0x11, &with_more), "Some(192.0.2.1:5000) then \"\""),
            (binary(0x21, 0x21, &six), "Some([2001:db8::]:5000) then \"\""),
            (binary(0x20, 0x00, &[]), "None then \"\""),
            (binary(0x20, 0x11, &four), "None then \"\""),
            (binary(0x21, 0x31, &[0; 216]), "None then \"\""),
            (binary(0x21, 0x11, &four[..11]), "Malformed"),
            (binary(0x21, 0x21, &four), "Malformed"),
            (binary(0x22, 0x11, &four), "Malformed"),
            (binary(0x11, 0x11, &four), "Malformed"),
            (binary(0x21, 0x41, &four), "Malformed"),
            (binary(0x21, 0x11, &[0; 5000]), "Malformed"),
        ] {
            assert_eq!(client(&bytes), expected, "{bytes:02x?}");
        }
    }

    mod props {
        use ppp::{HeaderResult, v1, v2};
        use proptest::prelude::*;

        use super::*;

        fn oracle(bytes: &[u8]) -> Option<(usize, Option<SocketAddr>)> {
            match HeaderResult::parse(bytes) {
                HeaderResult::V1(Ok(header)) => {
                    let client = match header.addresses {
                        v1::Addresses::Unknown => None,
                        v1::Addresses::Tcp4(four) => {
                            Some((four.source_address, four.source_port).into())
                        }
                        v1::Addresses::Tcp6(six) => {
                            Some((six.source_address, six.source_port).into())
                        }
                    };
                    Some((header.header.len(), client))
                }
                HeaderResult::V2(Ok(header)) => {
                    let is_stream = header.protocol == v2::Protocol::Stream;
                    let is_proxy = header.command == v2::Command::Proxy;
                    let client = match header.addresses {
                        v2::Addresses::IPv4(four) if is_stream && is_proxy => {
                            Some((four.source_address, four.source_port).into())
                        }
                        v2::Addresses::IPv6(six) if is_stream && is_proxy => {
                            Some((six.source_address, six.source_port).into())
                        }
                        _ => None,
                    };
                    Some((header.len(), client))
                }
                _ => None,
            }
        }

        #[expect(clippy::disallowed_methods, reason = "the macro shares its parts")]
        fn prefaces() -> impl Strategy<Value = Vec<u8>> {
            let line = (any::<SocketAddr>(), any::<SocketAddr>(), any::<bool>()).prop_map(
                |(source, destination, is_honest)| {
                    let family = if source.is_ipv4() == is_honest { "TCP4" } else { "TCP6" };
                    let (from, to) = (source.ip(), destination.ip());
                    let (port, at) = (source.port(), destination.port());
                    format!("PROXY {family} {from} {to} {port} {at}\r\n").into_bytes()
                },
            );
            let commands = prop::sample::select(vec![0x20_u8, 0x21, 0x21, 0x21, 0x22]);
            let families =
                prop::sample::select(vec![0x00_u8, 0x11, 0x11, 0x21, 0x21, 0x12, 0x31, 0x41]);
            let rest = prop::collection::vec(any::<u8>(), 0..300);
            let binary = (commands, families, rest)
                .prop_map(|(command, family, rest)| binary(command, family, &rest));
            prop_oneof![line, binary]
        }

        proptest! {
            /// Whole in one piece, or partial until it is; the rest of the bytes changes nothing.
            #[test]
            fn pieces_are_read_as_the_whole(
                preface in prefaces(),
                place in any::<prop::sample::Index>(),
                flip in prop::option::of(1_u8..),
            ) {
                let mut bytes = preface;
                if let Some(flip) = flip {
                    let at = place.index(bytes.len());
                    bytes[at] ^= flip;
                }
                let whole = read(&bytes);
                for end in 0..=bytes.len() {
                    match (read(&bytes[..end]), whole) {
                        (Preface::Partial, _) => {}
                        (found, whole) => prop_assert_eq!(found, whole, "{} bytes", end),
                    }
                }
                if let Preface::Whole { size, .. } = whole {
                    prop_assert_eq!(read(&bytes[..size - 1]), Preface::Partial);
                    let more = [bytes.as_slice(), b"GET / HTTP/1.1\r\n\r\n"].concat();
                    prop_assert_eq!(read(&more), whole);
                }
            }

            /// A client that is taken here is taken elsewhere, and is the same.
            #[test]
            fn another_reader_agrees(preface in prefaces()) {
                if let Preface::Whole { size, client } = read(&preface) {
                    let other = oracle(&preface[..size]);
                    // What is ignored anyway, for the proxy speaks of itself, may look as it likes.
                    prop_assert!(other == Some((size, client)) || (client, other) == (None, None));
                }
            }
        }
    }
}
