//! Asking for an address (DHCP, RFC 2131), and keeping it.
//!
//! ```text
//!   DISCOVER -> OFFER -> REQUEST -> ACK: a lease
//!   half of its time later: REQUEST to all, with the address that is held -> ACK; NAK or its end: from the start
//! ```
//!
//! Invariant: of a message that came from the network nothing is believed but fields of the right size within it,
//! and only if it answers what was asked, for this interface. Not here: routes by option 121, names of hosts.

use std::io::{self, Read};
use std::net::{Ipv4Addr, SocketAddrV4};
use std::thread;
use std::time::{Duration, Instant};

use rustix::rand::{GetRandomFlags, getrandom};
use socket2::{Domain, Protocol, SockAddr, Socket, Type};

use super::interface::{Hardware, Interface};

const SERVER_PORT: u16 = 67;
const CLIENT_PORT: u16 = 68;
/// Name servers that are kept, the C library's limit.
const NAMES_MAX: usize = 3;
/// First wait for an answer; each try doubles it.
const WAIT_MIN: Duration = Duration::from_millis(250);
/// Longest wait: RFC 2131 has 64 s, and a machine that nobody answers is better found within a quarter of that.
const WAIT_MAX: Duration = Duration::from_secs(16);
/// Shortest time of a lease that is believed, so that no server makes us ask all the time.
const LEASE_SECONDS_MIN: u32 = 60;
/// A lease without a time.
const LEASE_SECONDS_DEFAULT: u32 = 3600;
/// Longest message that is read: what Ethernet carries.
const MESSAGE_BYTES_MAX: usize = 1500;

const FIXED_BYTES: usize = 236;
const COOKIE: [u8; 4] = [99, 130, 83, 99];
const DISCOVER: u8 = 1;
const OFFER: u8 = 2;
const REQUEST: u8 = 3;
const ACK: u8 = 5;
const NAK: u8 = 6;

/// What a server gave.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Lease {
    pub(super) address: Ipv4Addr,
    pub(super) mask: Ipv4Addr,
    pub(super) gateway: Option<Ipv4Addr>,
    pub(super) names: Vec<Ipv4Addr>,
    pub(super) seconds: u32,
    server: Ipv4Addr,
}

/// A server's message.
#[derive(Debug, PartialEq, Eq)]
struct Reply {
    kind: u8,
    lease: Lease,
}

/// What is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Question {
    /// Whoever has an address.
    Discover,
    /// This one, of this server.
    Take(Ipv4Addr, Ipv4Addr),
    /// To keep this one.
    Keep(Ipv4Addr),
}

/// Gets a lease and keeps it, for ever; each one, new or renewed, is handed over.
pub(super) fn keep(interface: &Interface, mut taken: impl FnMut(&Lease)) {
    let mut held: Option<Lease> = None;
    let mut wait = WAIT_MIN;
    loop {
        let asked = match &held {
            Some(lease) => ask(interface, Question::Keep(lease.address), wait),
            None => ask(interface, Question::Discover, wait).and_then(|offer| match offer {
                Some(Reply { kind: OFFER, lease }) => {
                    ask(interface, Question::Take(lease.address, lease.server), wait)
                }
                other => Ok(other),
            }),
        };
        match asked {
            Ok(Some(Reply { kind: ACK, lease })) => {
                taken(&lease);
                wait = WAIT_MIN;
                rest(Duration::from_secs(u64::from(lease.seconds) / 2));
                held = Some(lease);
            }
            Ok(Some(_)) => held = None,
            // No answer, or no way to ask: the same again, a little later. The kernel takes an address away by
            // itself when its time is over; then its holder asks in vain, and starts anew.
            Ok(None) | Err(_) => {
                if wait == WAIT_MAX {
                    held = None;
                }
                rest(wait);
                wait = (wait * 2).min(WAIT_MAX);
            }
        }
    }
}

fn rest(time: Duration) {
    let until = Instant::now() + time;
    while let Some(left) =
        until.checked_duration_since(Instant::now()).filter(|left| !left.is_zero())
    {
        thread::park_timeout(left);
    }
}

/// Asks, and returns the first answer within a time.
fn ask(interface: &Interface, question: Question, wait: Duration) -> io::Result<Option<Reply>> {
    let mut number = [0; 4];
    getrandom(&mut number[..], GetRandomFlags::empty())?;
    let mut socket = Socket::new(Domain::IPV4, Type::DGRAM, Some(Protocol::UDP))?;
    socket.set_broadcast(true)?;
    socket.set_reuse_address(true)?;
    socket.bind_device(Some(interface.name.as_bytes()))?;
    let at = |ip, port| SockAddr::from(SocketAddrV4::new(ip, port));
    socket.bind(&at(Ipv4Addr::UNSPECIFIED, CLIENT_PORT))?;
    let message = message(number, interface.hardware, question);
    socket.send_to(&message, &at(Ipv4Addr::BROADCAST, SERVER_PORT))?;
    let until = Instant::now() + wait;
    let mut bytes = [0; MESSAGE_BYTES_MAX];
    while let Some(left) =
        until.checked_duration_since(Instant::now()).filter(|left| !left.is_zero())
    {
        socket.set_read_timeout(Some(left))?;
        let size = match socket.read(&mut bytes) {
            Ok(size) => size,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(None),
            Err(error) => return Err(error),
        };
        let reply = parse(&bytes[..size], number, interface.hardware);
        if let Some(reply) = reply.filter(|reply| answers(question, reply)) {
            return Ok(Some(reply));
        }
    }
    Ok(None)
}

fn answers(question: Question, reply: &Reply) -> bool {
    match question {
        Question::Discover => reply.kind == OFFER,
        Question::Take(..) | Question::Keep(_) => matches!(reply.kind, ACK | NAK),
    }
}

fn message(number: [u8; 4], hardware: Hardware, question: Question) -> Vec<u8> {
    let mut message = vec![0; FIXED_BYTES];
    // A request, by Ethernet, with addresses of 6 bytes.
    message[..3].copy_from_slice(&[1, 1, 6]);
    message[4..8].copy_from_slice(&number);
    if let Question::Keep(address) = question {
        message[12..16].copy_from_slice(&address.octets());
    } else {
        // Answers are to go to all, for no address is ours yet.
        message[10] = 0x80;
    }
    message[28..34].copy_from_slice(&hardware);
    message.extend(COOKIE);
    match question {
        Question::Discover => message.extend([53, 1, DISCOVER]),
        Question::Keep(_) => message.extend([53, 1, REQUEST]),
        Question::Take(address, server) => {
            message.extend([53, 1, REQUEST, 50, 4]);
            message.extend(address.octets());
            message.extend([54, 4]);
            message.extend(server.octets());
        }
    }
    // Mask, router, name servers, time; the end.
    message.extend([55, 4, 1, 3, 6, 51, 255]);
    // Some servers do not answer what is shorter than BOOTP's messages were.
    message.resize(message.len().max(300), 0);
    message
}

/// Reads a server's message; none if it is another's or makes no sense.
fn parse(bytes: &[u8], number: [u8; 4], hardware: Hardware) -> Option<Reply> {
    let (fixed, options) = bytes.split_at_checked(FIXED_BYTES)?;
    let is_ours = fixed[0] == 2 && fixed[4..8] == number && fixed[28..34] == hardware;
    if !is_ours {
        return None;
    }
    let mut options = options.strip_prefix(&COOKIE)?;
    let address = address(&fixed[16..20])?;
    let mut kind = None;
    let mut lease = Lease {
        address,
        mask: Ipv4Addr::new(255, 255, 255, 0),
        gateway: None,
        names: Vec::new(),
        seconds: LEASE_SECONDS_DEFAULT,
        server: Ipv4Addr::UNSPECIFIED,
    };
    while let Some((&code, rest)) = options.split_first() {
        match code {
            0 => {
                options = rest;
                continue;
            }
            255 => break,
            _ => {}
        }
        let (&size, rest) = rest.split_first()?;
        let (value, rest) = rest.split_at_checked(usize::from(size))?;
        options = rest;
        match code {
            53 => kind = value.first().copied(),
            1 => lease.mask = self::address(value)?,
            3 => lease.gateway = self::address(value),
            6 => {
                lease.names =
                    value.chunks_exact(4).filter_map(self::address).take(NAMES_MAX).collect()
            }
            51 => lease.seconds = u32::from_be_bytes(*value.first_chunk()?).max(LEASE_SECONDS_MIN),
            54 => lease.server = self::address(value)?,
            _ => {}
        }
    }
    let kind = kind?;
    let is_one = !address.is_unspecified() && !address.is_broadcast() && !address.is_multicast();
    (is_one || kind == NAK).then_some(Reply { kind, lease })
}

fn address(bytes: &[u8]) -> Option<Ipv4Addr> {
    bytes.first_chunk().map(|four| Ipv4Addr::from(*four))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const NUMBER: [u8; 4] = [1, 2, 3, 4];
    const OWN: Hardware = [2, 0, 0, 0, 0, 1];

    fn reply(options: &[u8]) -> Vec<u8> {
        let mut bytes = vec![0; FIXED_BYTES];
        bytes[0] = 2;
        bytes[4..8].copy_from_slice(&NUMBER);
        bytes[16..20].copy_from_slice(&[10, 0, 2, 15]);
        bytes[28..34].copy_from_slice(&OWN);
        bytes.extend(COOKIE);
        bytes.extend(options);
        bytes
    }

    #[test]
    fn an_offer_is_read() {
        let options = [
            0, 53, 1, OFFER, 1, 4, 255, 255, 0, 0, 3, 4, 10, 0, 2, 2, 6, 8, 10, 0, 2, 3, 10, 0, 2,
            4, 51, 4, 0, 1, 81, 128, 54, 4, 10, 0, 2, 2, 255,
        ];
        let Reply { kind, lease } = parse(&reply(&options), NUMBER, OWN).unwrap();
        assert_eq!(kind, OFFER);
        assert_eq!(lease.address, Ipv4Addr::new(10, 0, 2, 15));
        assert_eq!(lease.mask, Ipv4Addr::new(255, 255, 0, 0));
        assert_eq!(lease.gateway, Some(Ipv4Addr::new(10, 0, 2, 2)));
        assert_eq!(lease.names, [Ipv4Addr::new(10, 0, 2, 3), Ipv4Addr::new(10, 0, 2, 4)]);
        assert_eq!(lease.seconds, 86_400);
        assert_eq!(lease.server, Ipv4Addr::new(10, 0, 2, 2));
    }

    #[test]
    fn what_is_anothers_or_cut_is_no_answer() {
        let good = reply(&[53, 1, ACK, 255]);
        assert!(parse(&good, NUMBER, OWN).is_some());
        assert_eq!(parse(&good, [0; 4], OWN), None);
        assert_eq!(parse(&good, NUMBER, [0; 6]), None);
        assert_eq!(parse(&reply(&[53, 1]), NUMBER, OWN), None);
        assert_eq!(parse(&reply(&[53, 1, ACK, 1, 2, 0]), NUMBER, OWN), None);
        assert_eq!(parse(&reply(&[1, 4, 255, 0, 0, 0]), NUMBER, OWN), None);
        let short = parse(&reply(&[53, 1, ACK, 51, 4, 0, 0, 0, 1]), NUMBER, OWN).unwrap();
        assert_eq!(short.lease.seconds, LEASE_SECONDS_MIN);
    }

    #[test]
    fn questions_say_whose_they_are() {
        let server = Ipv4Addr::new(10, 0, 2, 2);
        let held = Ipv4Addr::new(10, 0, 2, 15);
        for question in [Question::Discover, Question::Take(held, server), Question::Keep(held)] {
            let message = message(NUMBER, OWN, question);
            assert!(message.len() >= 300 && message[FIXED_BYTES..].starts_with(&COOKIE));
            assert_eq!(message[4..8], NUMBER);
            assert_eq!(message[28..34], OWN);
            let is_held = message[12..16] == held.octets();
            assert_eq!(is_held, question == Question::Keep(held));
        }
    }

    proptest! {
        #[test]
        fn no_message_is_too_odd(options in prop::collection::vec(any::<u8>(), 0..80), cut in 0_usize..340) {
            let bytes = reply(&options);
            drop(parse(&bytes, NUMBER, OWN));
            drop(parse(&bytes[..cut.min(bytes.len())], NUMBER, OWN));
        }
    }
}
