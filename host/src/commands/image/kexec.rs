//! `midge image kexec`: from the system that runs here into a machine of midge, without firmware and without a disk.
//!
//! What would be done is said first: kernel, command line, the network that is taken along. Only `--yes` does it, by
//! the program `kexec` (Debian's kexec-tools), which loads, and the service manager, which ends what runs.
//!
//! Not here: networks of IPv6 with fixed addresses, several addresses, VLANs; `--append` says what is not found.

use std::fs;
use std::net::{Ipv4Addr, UdpSocket};
use std::path::Path;
use std::process::{Command, ExitCode};

use anyhow::{Context, Result, ensure};
use midge_image::kernel;
use rustix::system::{RebootCommand, reboot};

use super::{Machine, Purpose, put};
use crate::cli::ImageKexecArgs;
use crate::output::{self, Failure};

const PROGRAM: &str = "kexec";
/// The folder that is there where systemd is the first process.
const SYSTEMD: &str = "/run/systemd/system";
/// Name servers that are taken along.
const NAMES_MAX: usize = 3;

/// Runs the command.
///
/// # Errors
/// The image cannot be made, or the kernel does not take it: the system runs on.
pub(super) fn run(args: &ImageKexecArgs) -> Result<ExitCode> {
    let mut parts = args.parts.clone();
    let own = if parts.append.contains("midge.ip=") { None } else { Network::of_this_machine() };
    if let Some(network) = &own {
        parts.append = format!("{} {}", network.words(), parts.append).trim_end().to_owned();
    }
    let machine = Machine::new(&parts, Purpose::Pc)?;
    output::print(&plan(&machine, own.as_ref())?)?;
    if !args.yes {
        output::print("Nothing was done. --yes does it.\n")?;
        return Ok(ExitCode::SUCCESS);
    }
    load(&machine)?;
    if Path::new(SYSTEMD).is_dir() {
        let status = Command::new("systemctl").arg("kexec").status();
        ensure!(status.context("`systemctl` cannot be started")?.success(), "systemctl refused");
        return Ok(ExitCode::SUCCESS);
    }
    rustix::fs::sync();
    reboot(RebootCommand::Kexec).context("the kernel does not change")?;
    Ok(ExitCode::SUCCESS)
}

fn plan(machine: &Machine, own: Option<&Network>) -> Result<String> {
    let version = kernel::version(machine.kernel()?).unwrap_or("of unknown version");
    let network = match own {
        Some(network) => {
            format!("{} ({}), taken from {}", network.words(), network.hardware, network.name)
        }
        None => "as --append says, or by DHCP".to_owned(),
    };
    Ok(format!(
        "This machine will run midge and nothing else, until it is switched off:\n\
         \x20 kernel        {version}\n\
         \x20 initramfs     {} bytes, {} modules\n\
         \x20 command line  {}\n\
         \x20 network       {network}\n\
         Every process here ends, with every login. Disks are not touched: a restart by the button or the hoster's\n\
         panel brings back what is installed.\n",
        machine.initrd.len(),
        machine.modules.len(),
        machine.command_line,
    ))
}

fn load(machine: &Machine) -> Result<()> {
    let folder = tempfile::tempdir().context("there is no room for the image")?;
    let (kernel, initrd) = (folder.path().join("kernel"), folder.path().join("initrd"));
    put(&kernel, machine.kernel()?)?;
    put(&initrd, &machine.initrd)?;
    let mut command = Command::new(PROGRAM);
    command.arg("--kexec-file-syscall").arg("--load").arg(&kernel);
    command.arg(format!("--initrd={}", initrd.display()));
    command.arg(format!("--command-line={}", machine.command_line));
    let output = command.output().map_err(|error| {
        let next = "install it: Debian's package kexec-tools";
        Failure::new(format!("`{PROGRAM}` cannot be started"), next, error)
    })?;
    ensure!(
        output.status.success(),
        "the kernel does not take the image: {}",
        String::from_utf8_lossy(&output.stderr).trim()
    );
    Ok(())
}

/// How this machine reaches others.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Network {
    name: String,
    hardware: String,
    address: Ipv4Addr,
    prefix: u32,
    gateway: Ipv4Addr,
    names: Vec<String>,
}

impl Network {
    fn of_this_machine() -> Option<Self> {
        let routes = Route::read(&fs::read_to_string("/proc/net/route").ok()?);
        let way = routes.iter().find(|route| route.mask == 0 && !route.gateway.is_unspecified())?;
        // The address that the kernel would send from; nothing is sent.
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).ok()?;
        socket.connect((way.gateway, 9)).ok()?;
        let std::net::IpAddr::V4(address) = socket.local_addr().ok()?.ip() else { return None };
        let near = |route: &&Route| route.name == way.name && route.has(address);
        let prefix = routes.iter().filter(near).map(|route| route.mask.count_ones()).max();
        let hardware = fs::read_to_string(format!("/sys/class/net/{}/address", way.name)).ok()?;
        let names = fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
        Some(Self {
            name: way.name.clone(),
            hardware: hardware.trim().to_owned(),
            address,
            prefix: prefix.unwrap_or(32),
            gateway: way.gateway,
            names: name_servers(&names),
        })
    }

    /// Returns the words that set the same up again.
    fn words(&self) -> String {
        let Self { hardware, address, prefix, gateway, names, .. } = self;
        let names = if names.is_empty() {
            String::new()
        } else {
            format!(" midge.dns={}", names.join(","))
        };
        format!("midge.ip={address}/{prefix},{gateway} midge.dev={hardware}{names}")
    }
}

/// Returns the name servers that another machine can ask: not one that runs here.
fn name_servers(text: &str) -> Vec<String> {
    let named = text.lines().filter_map(|line| line.strip_prefix("nameserver "));
    let addresses = named.filter_map(|name| name.trim().parse::<std::net::IpAddr>().ok());
    addresses
        .filter(|name| !name.is_loopback())
        .take(NAMES_MAX)
        .map(|name| name.to_string())
        .collect()
}

/// A route of IPv4, as the kernel lists it.
#[derive(Debug)]
struct Route {
    name: String,
    target: u32,
    gateway: Ipv4Addr,
    mask: u32,
}

impl Route {
    /// Reads `/proc/net/route`: columns with tabs between them, numbers in hexadecimal as they lie in memory.
    fn read(text: &str) -> Vec<Self> {
        let read = |line: &str| {
            let fields: Vec<&str> = line.split_whitespace().collect();
            let number = |index: usize| u32::from_str_radix(fields.get(index)?, 16).ok();
            Some(Self {
                name: (*fields.first()?).to_owned(),
                target: number(1)?,
                gateway: Ipv4Addr::from(number(2)?.to_ne_bytes()),
                mask: number(7)?,
            })
        };
        text.lines().skip(1).filter_map(read).collect()
    }

    /// True for a network that an address lies in; not for the way to all others.
    fn has(&self, address: Ipv4Addr) -> bool {
        let number = u32::from_ne_bytes(address.octets());
        self.mask != 0 && self.gateway.is_unspecified() && number & self.mask == self.target
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn routes_are_read_as_the_kernel_lists_them() {
        let text = "Iface\tDestination\tGateway\tFlags\tRefCnt\tUse\tMetric\tMask\tMTU\tWindow\tIRTT\n\
                    eth0\t00000000\t0202000A\t0003\t0\t0\t0\t00000000\t0\t0\t0\n\
                    eth0\t0002000A\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0\nodd\n";
        let routes = Route::read(text);
        assert_eq!(routes.len(), 2);
        assert_eq!(routes[0].gateway, Ipv4Addr::new(10, 0, 2, 2));
        assert!(routes[1].has(Ipv4Addr::new(10, 0, 2, 15)));
        assert!(!routes[1].has(Ipv4Addr::new(10, 0, 3, 15)));
        assert!(!routes[0].has(Ipv4Addr::new(10, 0, 2, 15)));
    }

    #[test]
    fn a_network_is_taken_along_in_words() {
        let names = name_servers("# a\nnameserver 127.0.0.53\nnameserver 10.0.2.3\nnameserver x\n");
        assert_eq!(names, ["10.0.2.3"]);
        let network = Network {
            name: "eth0".into(),
            hardware: "02:00:00:00:00:01".into(),
            address: Ipv4Addr::new(192, 0, 2, 7),
            prefix: 32,
            gateway: Ipv4Addr::new(192, 0, 2, 1),
            names,
        };
        assert_eq!(
            network.words(),
            "midge.ip=192.0.2.7/32,192.0.2.1 midge.dev=02:00:00:00:00:01 midge.dns=10.0.2.3"
        );
    }
}
