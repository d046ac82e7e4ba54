//! Networks whose word on a client's address counts.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use ipnet::IpNet;

/// Networks of one setting: a few, looked through from the front.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Networks(Vec<IpNet>);

/// A text that is neither an address nor a network.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no address and no network such as `10.0.0.0/8`")]
pub struct NetworkError(String);

impl Networks {
    /// Reads each as an address or a network in CIDR notation (RFC 4632, 3.1).
    ///
    /// # Errors
    /// The first that is neither.
    pub fn parse<'a>(texts: impl IntoIterator<Item = &'a str>) -> Result<Self, NetworkError> {
        let one = |text: &str| {
            let network = IpNet::from_str(text).ok();
            let address = || Some(IpNet::from(IpAddr::from_str(text).ok()?));
            network.or_else(address).ok_or_else(|| NetworkError(text.to_owned()))
        };
        texts.into_iter().map(one).collect::<Result<_, _>>().map(Self)
    }

    /// Tells whether an address is in one of them; one of IPv4 also in the form that IPv6 has for it.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.0.iter().any(|network| network.contains(&address))
    }

    /// Tells whether there is none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl fmt::Display for Networks {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let all: Vec<_> = self.0.iter().map(ToString::to_string).collect();
        formatter.write_str(&all.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_in_its_network() {
        let networks = Networks::parse(["10.0.0.0/8", "192.0.2.1", "2001:db8::/32"]).unwrap();
        for (address, is_in) in [
            ("10.255.0.1", true),
            ("11.0.0.1", false),
            ("192.0.2.1", true),
            ("192.0.2.2", false),
            ("::ffff:10.0.0.1", true),
            ("2001:db8::5", true),
            ("2001:db9::5", false),
        ] {
            assert_eq!(networks.contains(address.parse().unwrap()), is_in, "{address}");
        }
        assert_eq!(networks.to_string(), "10.0.0.0/8, 192.0.2.1/32, 2001:db8::/32");
    }

    #[test]
    fn what_is_no_network_is_named() {
        let error = Networks::parse(["10.0.0.0/8", "here"]).unwrap_err();
        assert_eq!(error.to_string(), "`here` is no address and no network such as `10.0.0.0/8`");
        Networks::parse(["10.0.0.0/33"]).unwrap_err();
    }
}
