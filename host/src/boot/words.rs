//! Settings of the boot: words of the kernel's command line, and behind them those that came with the image.
//!
//! ```text
//!   midge.ip=dhcp | none | kernel | ADDRESS/PREFIX[,GATEWAY]     may be given for IPv4 and for IPv6
//!   midge.dev=eth0 | MAC       the interface; otherwise the first with a carrier
//!   midge.dns=ADDRESS[,ADDRESS]
//!   midge.log=udp://ADDRESS:PORT                               a server of logs
//!   midge.off=auto | acpi | restart                              how the machine ends
//!   midge.user=ID              who serves
//!   midge.data=wait | none     the partition for data
//!   midge.image=ID midge.release=N                               which image this is; it says so itself
//!   midge.listen= midge.admin= midge.workers= midge.ring_tier=   as the variables MIDGE_..
//! ```
//!
//! A word that cannot be read is said on the console, and counts as not given.

use std::fs::File;
use std::io::Read;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;

use ipnet::IpNet;
use midge_image::entry::is_id;

use super::places::WORDS;

/// Bytes of them that are read; the kernel's own limit on its line is 4 KiB.
const WORDS_BYTES_MAX: u64 = 64 * 1024;
/// Name servers that are asked, the C library's limit.
const NAMES_MAX: usize = 3;
/// Who serves: nobody, as distributions number it.
const USER: u32 = 65_534;

/// The settings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Words {
    /// How addresses come.
    pub(super) addresses: Addresses,
    /// The interface, by name or hardware address.
    pub(super) interface: Option<String>,
    /// Name servers.
    pub(super) names: Vec<IpAddr>,
    /// Who is told what is said here.
    pub(super) log: Option<SocketAddr>,
    /// How the machine ends.
    pub(super) off: Off,
    /// Who serves.
    pub(super) user: u32,
    /// The partition for data.
    pub(super) data: Data,
    /// Which image runs, if it came from a disk that can have others.
    pub(super) image: Option<String>,
    /// Its release: one of a lower number is no update.
    pub(super) release: u64,
    /// Variables for the child that serves.
    pub(super) environment: Vec<(&'static str, String)>,
    /// What could not be read.
    pub(super) complaints: Vec<String>,
}

/// How addresses come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Addresses {
    /// IPv4 by DHCP, IPv6 by the kernel, if anybody advertises it.
    Dhcp,
    /// None but those of the machine itself.
    None,
    /// The kernel has set them already.
    Kernel,
    /// These.
    Fixed(Vec<Fixed>),
}

/// An address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Fixed {
    /// With its network.
    pub(super) address: IpNet,
    /// Who knows the way to others.
    pub(super) gateway: Option<IpAddr>,
}

/// How the machine ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Off {
    /// By ACPI where there is any.
    Auto,
    /// The power is switched off.
    Acpi,
    /// By a restart, which is what ends a microVM.
    Restart,
}

/// The partition for data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Data {
    /// Used if it is there.
    IfThere,
    /// Waited for: its driver may take a moment.
    Wait,
    /// Not used.
    None,
}

impl Default for Words {
    fn default() -> Self {
        Self {
            addresses: Addresses::Dhcp,
            interface: None,
            names: Vec::new(),
            log: None,
            off: Off::Auto,
            user: USER,
            data: Data::IfThere,
            image: None,
            release: 0,
            environment: Vec::new(),
            complaints: Vec::new(),
        }
    }
}

impl Words {
    /// Reads what the image says, and the kernel's line, which wins.
    pub(super) fn read() -> Self {
        let image = text(&Path::new("/").join(WORDS));
        let line = text(Path::new("/proc/cmdline"));
        let kernel_did_it = Path::new("/proc/net/pnp").exists();
        Self::parse(&format!("{image}\n{line}"), kernel_did_it)
    }

    pub(super) fn parse(text: &str, kernel_has_addresses: bool) -> Self {
        let mut words = Self::default();
        let mut fixed = Vec::new();
        let mut kernel_ip = None;
        for (name, value) in text.split_whitespace().filter_map(|word| word.split_once('=')) {
            let is_read = match name {
                "ip" => {
                    kernel_ip = Some(value);
                    true
                }
                "midge.ip" => words.read_address(value, &mut fixed),
                _ => words.read_word(name, value),
            };
            if !is_read {
                words.complaints.push(format!("`{name}={value}` is not understood"));
            }
        }
        if !fixed.is_empty() {
            words.addresses = Addresses::Fixed(fixed);
        } else if let (Some(ip), Addresses::Dhcp) = (kernel_ip, &words.addresses) {
            words.read_kernel_ip(ip, kernel_has_addresses);
        }
        words
    }

    fn read_address(&mut self, value: &str, fixed: &mut Vec<Fixed>) -> bool {
        let addresses = match value {
            "dhcp" => Addresses::Dhcp,
            "none" => Addresses::None,
            "kernel" => Addresses::Kernel,
            _ => {
                let read = read_fixed(value);
                fixed.extend(read);
                return read.is_some();
            }
        };
        // A later word takes the place of earlier ones.
        fixed.clear();
        self.addresses = addresses;
        true
    }

    fn read_word(&mut self, name: &str, value: &str) -> bool {
        match (name, value) {
            ("midge.dev", _) => self.interface = Some(value.to_owned()),
            ("midge.dns", _) => {
                let names: Result<Vec<_>, _> = value.split(',').map(str::parse).collect();
                let Ok(names) = names else { return false };
                self.names = names.into_iter().take(NAMES_MAX).collect();
            }
            ("midge.log", _) => {
                let address = value.strip_prefix("udp://").map(str::parse);
                let Some(Ok(address)) = address else { return false };
                self.log = Some(address);
            }
            ("midge.off", "auto") => self.off = Off::Auto,
            ("midge.off", "acpi") => self.off = Off::Acpi,
            ("midge.off", "restart") => self.off = Off::Restart,
            ("midge.data", "wait") => self.data = Data::Wait,
            ("midge.data", "none") => self.data = Data::None,
            ("midge.image", _) if is_id(value) => self.image = Some(value.to_owned()),
            ("midge.release", _) => {
                let Ok(release) = value.parse() else { return false };
                self.release = release;
            }
            ("midge.user", _) => {
                let Ok(user) = value.parse() else { return false };
                self.user = user;
            }
            ("midge.listen", _) => self.environment.push(("MIDGE_LISTEN", value.to_owned())),
            ("midge.admin", _) => self.environment.push(("MIDGE_ADMIN", value.to_owned())),
            ("midge.workers", _) => self.environment.push(("MIDGE_WORKERS", value.to_owned())),
            ("midge.ring_tier", _) => self.environment.push(("MIDGE_RING_TIER", value.to_owned())),
            // Words without our mark are others'.
            _ => return !name.starts_with("midge."),
        }
        true
    }

    /// Reads the kernel's own word (Linux, `admin-guide/nfs/nfsroot`), for kernels that leave it to us.
    fn read_kernel_ip(&mut self, value: &str, kernel_has_addresses: bool) {
        if kernel_has_addresses {
            self.addresses = Addresses::Kernel;
            return;
        }
        let parts: Vec<&str> = value.split(':').collect();
        let part = |index: usize| parts.get(index).copied().unwrap_or_default();
        if let ("off" | "none", 1) = (part(0), parts.len()) {
            self.addresses = Addresses::None;
        }
        if !part(5).is_empty() && self.interface.is_none() {
            self.interface = Some(part(5).to_owned());
        }
        let (Ok(address), Ok(mask)) = (part(0).parse(), part(3).parse()) else { return };
        if let Ok(address) = IpNet::with_netmask(address, mask) {
            let gateway = part(2).parse().ok();
            self.addresses = Addresses::Fixed(vec![Fixed { address, gateway }]);
        }
        if self.names.is_empty() {
            let names = [part(7), part(8)].into_iter().filter_map(|name| name.parse().ok());
            self.names = names.collect();
        }
    }
}

fn read_fixed(value: &str) -> Option<Fixed> {
    let (address, gateway) = match value.split_once(',') {
        Some((address, gateway)) => (address, Some(gateway.parse().ok()?)),
        None => (value, None),
    };
    let address: IpNet = address.parse().ok()?;
    let is_one_family =
        gateway.is_none_or(|gateway: IpAddr| gateway.is_ipv4() == address.addr().is_ipv4());
    is_one_family.then_some(Fixed { address, gateway })
}

fn text(path: &Path) -> String {
    let mut bytes = Vec::new();
    // What is not there says nothing.
    drop(File::open(path).and_then(|file| file.take(WORDS_BYTES_MAX).read_to_end(&mut bytes)));
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn addresses(text: &str) -> Addresses {
        Words::parse(text, false).addresses
    }

    fn fixed(address: &str, gateway: Option<&str>) -> Addresses {
        let gateway = gateway.map(|gateway| gateway.parse().unwrap());
        Addresses::Fixed(vec![Fixed { address: address.parse().unwrap(), gateway }])
    }

    #[test]
    fn addresses_are_asked_for_unless_told_otherwise() {
        for (text, expected) in [
            ("quiet console=ttyS0", Addresses::Dhcp),
            ("midge.ip=none", Addresses::None),
            ("midge.ip=10.0.0.2/24", fixed("10.0.0.2/24", None)),
            ("midge.ip=dhcp midge.ip=10.0.0.2/32,10.0.0.1", fixed("10.0.0.2/32", Some("10.0.0.1"))),
            ("midge.ip=10.0.0.2/24 midge.ip=dhcp", Addresses::Dhcp),
            ("ip=dhcp", Addresses::Dhcp),
            ("ip=off", Addresses::None),
            (
                "ip=10.0.0.2::10.0.0.1:255.255.255.0::eth1:off",
                fixed("10.0.0.2/24", Some("10.0.0.1")),
            ),
            ("ip=10.0.0.2::10.0.0.1:255.255.255.0 midge.ip=none", Addresses::None),
        ] {
            assert_eq!(addresses(text), expected, "{text}");
        }
        assert_eq!(Words::parse("ip=dhcp", true).addresses, Addresses::Kernel);
        let both = addresses("midge.ip=10.0.0.2/24 midge.ip=fd00::2/64,fd00::1");
        assert!(matches!(both, Addresses::Fixed(fixed) if fixed.len() == 2));
        let words = Words::parse("ip=10.0.0.2:::255.0.0.0::eth1::10.0.0.3", false);
        assert_eq!(words.interface.as_deref(), Some("eth1"));
        assert_eq!(words.names, ["10.0.0.3".parse::<IpAddr>().unwrap()]);
    }

    #[test]
    fn what_is_not_understood_is_said_and_does_nothing() {
        for text in [
            "midge.ip=10.0.0.2/33",
            "midge.ip=10.0.0.2/24,fd00::1",
            "midge.dns=10.0.0.1,here",
            "midge.off=never",
            "midge.user=root",
            "midge.colour=red",
            "midge.image=../a",
            "midge.log=udp://host:514",
            "midge.log=10.0.0.1:514",
            "midge.release=-1",
        ] {
            let words = Words::parse(text, false);
            assert_eq!(words.complaints, [format!("`{text}` is not understood")]);
            assert_eq!(Words { complaints: Vec::new(), ..words }, Words::default());
        }
    }

    #[test]
    fn the_rest_is_read() {
        let words = Words::parse(
            "midge.dev=eth1 midge.dns=1.1.1.1,::1 midge.off=restart midge.user=0 midge.listen=0.0.0.0:80 \
             midge.image=0123456789abcdef midge.release=7 midge.log=udp://[fd00::1]:514",
            false,
        );
        assert_eq!(words.interface.as_deref(), Some("eth1"));
        assert_eq!(words.names.len(), 2);
        assert_eq!((words.off, words.user), (Off::Restart, 0));
        assert_eq!(words.log, Some("[fd00::1]:514".parse().unwrap()));
        assert_eq!((words.image.as_deref(), words.release), (Some("0123456789abcdef"), 7));
        assert_eq!(words.environment, [("MIDGE_LISTEN", "0.0.0.0:80".to_owned())]);
    }

    proptest! {
        #[test]
        fn no_line_is_too_odd(text in "(midge\\.(ip|dns|user|dev)|ip)=[ -~]{0,60}") {
            Words::parse(&text, false);
        }
    }
}
