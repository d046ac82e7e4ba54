//! A peer's address as an accept tells it.

use std::net::SocketAddr;

use crate::width::{index, narrow};

/// Size of a `sockaddr_in6`; a `sockaddr_in` is smaller, and of others the beginning is enough to know them.
const ADDRESS_BYTES: usize = size_of::<libc::sockaddr_in6>();

/// What the kernel writes: it reads the room from `size` and puts the address's size there.
#[derive(Debug, Clone, Copy)]
#[repr(C, align(8))]
pub(crate) struct PeerAddress {
    pub(crate) bytes: [u8; ADDRESS_BYTES],
    pub(crate) size: u32,
}

impl PeerAddress {
    pub(crate) fn new() -> Self {
        Self { bytes: [0; ADDRESS_BYTES], size: narrow(ADDRESS_BYTES) }
    }

    /// Reads the address (ip(7), ipv6(7)): family, port, then the address, in IPv6 behind its flow information.
    pub(crate) fn read(&self) -> Option<SocketAddr> {
        let bytes = self.bytes.get(..index(self.size)).unwrap_or(&self.bytes);
        let family = i32::from(u16::from_ne_bytes(*bytes.first_chunk()?));
        let port = u16::from_be_bytes(*bytes.get(2..)?.first_chunk()?);
        match family {
            libc::AF_INET => {
                let address: [u8; 4] = *bytes.get(4..)?.first_chunk()?;
                Some((address, port).into())
            }
            libc::AF_INET6 => {
                let address: [u8; 16] = *bytes.get(8..)?.first_chunk()?;
                Some((address, port).into())
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Writes an address as the kernel does, by the library that lays them out.
    fn told(address: &socket2::SockAddr) -> PeerAddress {
        let mut peer = PeerAddress::new();
        let text = address.as_socket();
        let family = address.family();
        peer.bytes[..2].copy_from_slice(&family.to_ne_bytes());
        match text {
            Some(SocketAddr::V4(address)) => {
                peer.bytes[2..4].copy_from_slice(&address.port().to_be_bytes());
                peer.bytes[4..8].copy_from_slice(&address.ip().octets());
            }
            Some(SocketAddr::V6(address)) => {
                peer.bytes[2..4].copy_from_slice(&address.port().to_be_bytes());
                peer.bytes[8..24].copy_from_slice(&address.ip().octets());
            }
            None => {}
        }
        peer.size = address.len();
        peer
    }

    #[test]
    fn addresses_are_read_as_they_are_laid_out() {
        for text in ["127.0.0.1:80", "[::1]:65535", "[2001:db8::7]:1"] {
            let address: SocketAddr = text.parse().unwrap();
            assert_eq!(told(&address.into()).read(), Some(address));
        }
        let local = socket2::SockAddr::unix("/a/path/that/is/longer/than/an/address").unwrap();
        assert_eq!(told(&local).read(), None);
    }

    #[test]
    fn a_size_that_lies_is_no_address_or_a_whole_one() {
        let mut peer = told(&SocketAddr::from(([1, 2, 3, 4], 5)).into());
        for size in 0..ADDRESS_BYTES {
            peer.size = narrow(size);
            assert_eq!(peer.read().is_some(), 8 <= size, "{size} bytes");
        }
        peer.size = u32::MAX;
        assert!(peer.read().is_some());
    }
}
