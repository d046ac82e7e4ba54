//! Addresses to listen on, and whose word on a client's address counts.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;

use midge_net::Networks;

/// Longest path of a Unix socket: what `sun_path` of unix(7) has room for, with its end.
pub const SOCKET_PATH_BYTES_MAX: usize = 107;
/// Permissions of a Unix socket: its owner and group connect, as a proxy in the group does.
pub const SOCKET_MODE_DEFAULT: u32 = 0o660;

/// Where one listener listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ListenAddress {
    /// An address of IPv4 or IPv6.
    Internet(SocketAddr),
    /// A Unix socket.
    Local(PathBuf),
    /// Sockets that the service manager made: those of a name, or all (`sd_listen_fds(3)`).
    Inherited(Option<String>),
}

/// One listener.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listen {
    /// Where.
    pub address: ListenAddress,
    /// Connections begin with the PROXY protocol.
    pub proxy_protocol: bool,
    /// Permissions of a Unix socket.
    pub mode: u32,
}

/// All of them, one at least.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listens(pub Vec<Listen>);

/// A text that names no place to listen at.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ListenError {
    /// None of the forms.
    #[error("`{0}` is no address with a port, no `unix:/path` and no `systemd:NAME`")]
    Form(String),
    /// A path that does not fit.
    #[error("the path of a Unix socket has 1 to {SOCKET_PATH_BYTES_MAX} bytes")]
    Path,
}

/// Whose word on a client's address counts.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Trusted {
    /// Peers of these networks.
    pub networks: Networks,
    /// Whoever reaches a Unix socket.
    pub local: bool,
}

/// What a client's address is taken from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClientAddress {
    /// The connection, or its PROXY protocol.
    Peer,
    /// `X-Forwarded-For`.
    XForwardedFor,
    /// `Forwarded` (RFC 7239).
    Forwarded,
}

impl FromStr for ListenAddress {
    type Err = ListenError;

    fn from_str(text: &str) -> Result<Self, ListenError> {
        if let Some(path) = text.strip_prefix("unix:") {
            let is_fit = (1..=SOCKET_PATH_BYTES_MAX).contains(&path.len()) && !path.contains('\0');
            return is_fit.then(|| Self::Local(path.into())).ok_or(ListenError::Path);
        }
        match text.strip_prefix("systemd").map(|rest| rest.strip_prefix(':').unwrap_or(rest)) {
            Some("") => Ok(Self::Inherited(None)),
            Some(name) if text.starts_with("systemd:") => Ok(Self::Inherited(Some(name.into()))),
            _ => text.parse().map(Self::Internet).map_err(|_| ListenError::Form(text.into())),
        }
    }
}

impl fmt::Display for ListenAddress {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Internet(address) => write!(formatter, "{address}"),
            Self::Local(path) => write!(formatter, "unix:{}", path.display()),
            Self::Inherited(None) => write!(formatter, "systemd"),
            Self::Inherited(Some(name)) => write!(formatter, "systemd:{name}"),
        }
    }
}

impl From<ListenAddress> for Listen {
    fn from(address: ListenAddress) -> Self {
        Self { address, proxy_protocol: false, mode: SOCKET_MODE_DEFAULT }
    }
}

impl fmt::Display for Listen {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}", self.address)?;
        if matches!(self.address, ListenAddress::Local(_)) && self.mode != SOCKET_MODE_DEFAULT {
            write!(formatter, " mode {:o}", self.mode)?;
        }
        if self.proxy_protocol { write!(formatter, " proxy_protocol") } else { Ok(()) }
    }
}

impl From<SocketAddr> for Listens {
    fn from(address: SocketAddr) -> Self {
        Self(vec![ListenAddress::Internet(address).into()])
    }
}

impl From<Vec<ListenAddress>> for Listens {
    fn from(addresses: Vec<ListenAddress>) -> Self {
        Self(addresses.into_iter().map(Listen::from).collect())
    }
}

impl Listens {
    /// Tells whether an address is among them.
    #[must_use]
    pub fn contains(&self, address: SocketAddr) -> bool {
        self.0.iter().any(|listen| listen.address == ListenAddress::Internet(address))
    }

    /// Tells whether an address of IPv6 leaves IPv4 to another of them: with the same port, for IPv4.
    #[must_use]
    pub fn leaves_v4(&self, address: SocketAddr) -> bool {
        address.is_ipv6()
            && self.0.iter().any(|listen| match listen.address {
                ListenAddress::Internet(other) => other.is_ipv4() && other.port() == address.port(),
                _ => false,
            })
    }
}

impl fmt::Display for Listens {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let all: Vec<_> = self.0.iter().map(ToString::to_string).collect();
        formatter.write_str(&all.join(", "))
    }
}

impl Trusted {
    /// Reads networks, and `unix` for whoever reaches a Unix socket.
    ///
    /// # Errors
    /// The first text that is neither.
    pub fn parse(texts: &[&str]) -> Result<Self, midge_net::trust::NetworkError> {
        let networks = texts.iter().copied().filter(|text| *text != "unix");
        Ok(Self { networks: Networks::parse(networks)?, local: texts.contains(&"unix") })
    }

    /// Tells whether nobody is.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.networks.is_empty() && !self.local
    }
}

impl fmt::Display for Trusted {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.networks.is_empty(), self.local) {
            (true, false) => write!(formatter, "none"),
            (true, true) => write!(formatter, "unix"),
            (false, false) => write!(formatter, "{}", self.networks),
            (false, true) => write!(formatter, "{}, unix", self.networks),
        }
    }
}

impl ClientAddress {
    /// All of them, in the order of the manual.
    pub const ALL: [Self; 3] = [Self::Peer, Self::XForwardedFor, Self::Forwarded];

    /// Returns the name that settings use.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Peer => "peer",
            Self::XForwardedFor => "x-forwarded-for",
            Self::Forwarded => "forwarded",
        }
    }
}

impl fmt::Display for ClientAddress {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name())
    }
}

/// Reads permissions in octal.
#[must_use]
pub fn mode(text: &str) -> Option<u32> {
    let is_octal = (3..=4).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit());
    is_octal.then(|| u32::from_str_radix(text, 8).ok()).flatten().filter(|mode| *mode <= 0o777)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_read_back() {
        for text in ["127.0.0.1:80", "[::]:8080", "unix:/run/midge/http", "systemd", "systemd:web"]
        {
            assert_eq!(text.parse::<ListenAddress>().unwrap().to_string(), text);
        }
        for text in ["localhost:80", "127.0.0.1", "unix:", "systemdx", "", "8080"] {
            text.parse::<ListenAddress>().unwrap_err();
        }
        let long = format!("unix:/{}", "x".repeat(SOCKET_PATH_BYTES_MAX));
        assert_eq!(long.parse::<ListenAddress>(), Err(ListenError::Path));
        assert_eq!("systemd:".parse(), Ok(ListenAddress::Inherited(None)));
    }

    #[test]
    fn permissions_are_octal() {
        assert_eq!((mode("0660"), mode("600")), (Some(0o660), Some(0o600)));
        for text in ["", "66", "0o660", "0680", "07777", "+660", "1777"] {
            assert_eq!(mode(text), None, "{text}");
        }
    }

    #[test]
    fn whoever_is_trusted_is_shown_as_it_was_set() {
        let trusted = Trusted::parse(&["10.0.0.0/8", "unix"]).unwrap();
        assert!(trusted.local && trusted.networks.contains("10.1.2.3".parse().unwrap()));
        assert_eq!(trusted.to_string(), "10.0.0.0/8, unix");
        assert_eq!(Trusted::default().to_string(), "none");
        Trusted::parse(&["local"]).unwrap_err();
    }
}
