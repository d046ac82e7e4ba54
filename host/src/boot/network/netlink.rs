//! Telling the kernel: interfaces on, addresses, routes, by messages of rtnetlink (Linux, `netlink/specs`).
//!
//! ```text
//!   length 4 | kind 2 | flags 2 | number 4 | sender 4 | fixed part | attributes: length 2, kind 2, value, to 4
//! ```
//!
//! Each message is answered by an error number, nought if it was done.

use std::io;
use std::net::IpAddr;
use std::os::fd::OwnedFd;

use ipnet::IpNet;
use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, bind, recv, sendto, socket_with,
};

const HEADER_BYTES: usize = 16;
const REQUEST: u16 = 1;
const ACKNOWLEDGE: u16 = 4;
const REPLACE: u16 = 0x100;
const CREATE: u16 = 0x400;
const KIND_ERROR: u16 = 2;
const NEW_LINK: u16 = 16;
const NEW_ADDRESS: u16 = 20;
const NEW_ROUTE: u16 = 24;
const UP: u32 = 1;
const FAMILY_IPV4: u8 = 2;
const FAMILY_IPV6: u8 = 10;
const TABLE_MAIN: u8 = 254;
const PROTOCOL_BOOT: u8 = 3;
const UNICAST: u8 = 1;
/// The gateway is on this link whatever the networks say: hosters give addresses without a network around them.
const ON_LINK: u32 = 4;

/// A socket to the kernel's network.
#[derive(Debug)]
pub(super) struct Netlink(OwnedFd);

impl Netlink {
    pub(super) fn open() -> io::Result<Self> {
        // Protocol 0 is that of routes.
        let protocol = None;
        let (family, flags) = (AddressFamily::NETLINK, SocketFlags::CLOEXEC);
        let socket = socket_with(family, SocketType::RAW, flags, protocol)?;
        bind(&socket, &SocketAddrNetlink::new(0, 0))?;
        Ok(Self(socket))
    }

    /// Switches an interface on.
    pub(super) fn up(&self, index: u32) -> io::Result<()> {
        let mut message = Message::new(NEW_LINK, 0);
        message.fixed(&[0; 4]).number(index).number(UP).number(UP);
        self.tell(message)
    }

    /// Gives an interface an address, for ever or so many seconds.
    pub(super) fn add_address(
        &self,
        index: u32,
        address: IpNet,
        seconds: Option<u32>,
    ) -> io::Result<()> {
        let mut message = Message::new(NEW_ADDRESS, CREATE | REPLACE);
        message.fixed(&[family(address.addr()), address.prefix_len(), 0, 0]).number(index);
        let bytes = bytes(address.addr());
        message.attribute(2, &bytes).attribute(1, &bytes);
        if let Some(seconds) = seconds {
            // Preferred, valid, and two times that the kernel fills in.
            let [a, b, c, d] = seconds.to_ne_bytes();
            message.attribute(6, &[a, b, c, d, a, b, c, d, 0, 0, 0, 0, 0, 0, 0, 0]);
        }
        self.tell(message)
    }

    /// Sends all that is not near by way of a gateway.
    pub(super) fn add_gateway(&self, index: u32, gateway: IpAddr, own: IpNet) -> io::Result<()> {
        let mut message = Message::new(NEW_ROUTE, CREATE | REPLACE);
        message.fixed(&[family(gateway), 0, 0, 0, TABLE_MAIN, PROTOCOL_BOOT, 0, UNICAST]);
        message.number(if own.contains(&gateway) { 0 } else { ON_LINK });
        message.attribute(4, &index.to_ne_bytes()).attribute(5, &bytes(gateway));
        self.tell(message)
    }

    fn tell(&self, message: Message) -> io::Result<()> {
        let message = message.finished();
        sendto(&self.0, &message, SendFlags::empty(), &SocketAddrNetlink::new(0, 0))?;
        let mut answer = [0; 1024];
        let (_, size) = recv(&self.0, &mut answer[..], RecvFlags::empty())?;
        outcome(answer.get(..size).unwrap_or(&answer))
    }
}

/// Reads the kernel's answer.
fn outcome(answer: &[u8]) -> io::Result<()> {
    let short =
        |offset: usize| answer.get(offset..)?.first_chunk().map(|two| u16::from_ne_bytes(*two));
    let number = answer.get(HEADER_BYTES..).and_then(|rest| rest.first_chunk());
    match (short(4), number.map(|four| i32::from_ne_bytes(*four))) {
        (Some(KIND_ERROR), Some(0)) => Ok(()),
        (Some(KIND_ERROR), Some(number)) => {
            Err(io::Error::from_raw_os_error(number.saturating_neg()))
        }
        _ => Err(io::Error::other("the kernel's answer is not understood")),
    }
}

struct Message(Vec<u8>);

impl Message {
    fn new(kind: u16, flags: u16) -> Self {
        let mut header = vec![0; HEADER_BYTES];
        header[4..6].copy_from_slice(&kind.to_ne_bytes());
        header[6..8].copy_from_slice(&(REQUEST | ACKNOWLEDGE | flags).to_ne_bytes());
        Self(header)
    }

    fn fixed(&mut self, bytes: &[u8]) -> &mut Self {
        self.0.extend_from_slice(bytes);
        self
    }

    fn number(&mut self, number: u32) -> &mut Self {
        self.fixed(&number.to_ne_bytes())
    }

    fn attribute(&mut self, kind: u16, value: &[u8]) -> &mut Self {
        let size = u16::try_from(4 + value.len()).expect("addresses and numbers alone");
        self.fixed(&size.to_ne_bytes()).fixed(&kind.to_ne_bytes()).fixed(value);
        self.0.resize(self.0.len().next_multiple_of(4), 0);
        self
    }

    fn finished(mut self) -> Vec<u8> {
        let size = u32::try_from(self.0.len()).expect("addresses and numbers alone");
        self.0[..4].copy_from_slice(&size.to_ne_bytes());
        self.0
    }
}

const fn family(address: IpAddr) -> u8 {
    match address {
        IpAddr::V4(_) => FAMILY_IPV4,
        IpAddr::V6(_) => FAMILY_IPV6,
    }
}

fn bytes(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_refuses_what_is_not_there() {
        let netlink = Netlink::open().unwrap();
        // It looks for the interface, or for our right to ask, before it changes anything.
        let refused = netlink.up(u32::MAX >> 1).unwrap_err();
        assert!(refused.raw_os_error().is_some(), "{refused}");
        let address = "192.0.2.1/24".parse().unwrap();
        assert!(netlink.add_address(u32::MAX >> 1, address, Some(60)).is_err());
        let gateway = "192.0.2.2".parse().unwrap();
        assert!(netlink.add_gateway(u32::MAX >> 1, gateway, address).is_err());
    }

    #[test]
    fn answers_are_read_within_their_bytes() {
        assert!(outcome(&[0; 3]).is_err() && outcome(&[0; 40]).is_err());
        let mut answer = [0; 36];
        answer[4] = 2;
        assert!(outcome(&answer).is_ok());
        answer[16..20].copy_from_slice(&(-17_i32).to_ne_bytes());
        assert_eq!(outcome(&answer).unwrap_err().raw_os_error(), Some(17));
    }
}
