//! Addresses, routes and name servers, set while the server starts already: it may listen before its address has
//! come (`limits.rs`).

mod dhcp; // asking for an address
mod interface; // what the kernel says of interfaces
mod netlink; // telling the kernel
mod queues; // interrupts to the CPUs of the workers

use std::fs;
use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use ipnet::IpNet;

use self::dhcp::Lease;
use self::interface::Interface;
use self::netlink::Netlink;
use super::console::Console;
use super::words::{Addresses, Words};

/// How long drivers and cables may take before it is said that nothing is there.
const PATIENCE: Duration = Duration::from_secs(5);
const LOOK_EVERY: Duration = Duration::from_millis(1);
/// The file that the C library reads.
const RESOLV_CONF: &str = "/etc/resolv.conf";
/// Where the kernel tells what it was told by DHCP.
const KERNEL_CONF: &str = "/proc/net/pnp";
/// The number of the interface that leads to the machine itself.
const LOOPBACK: u32 = 1;

/// Sets the network up, in a thread that goes on as long as a lease has to be renewed.
pub(super) fn start(console: &Arc<Console>, words: &Words) {
    let netlink = match Netlink::open() {
        Ok(netlink) => netlink,
        Err(error) => return console.say(&format!("there is no network: {error}")),
    };
    if let Err(error) = netlink.up(LOOPBACK) {
        console.say(&format!("the machine does not reach itself: {error}"));
    }
    if words.addresses == Addresses::None {
        return name_servers(console, &words.names);
    }
    let (own, words) = (Arc::clone(console), words.clone());
    let started = thread::Builder::new()
        .name("midge-network".into())
        .spawn(move || set_up(&own, &words, &netlink));
    if let Err(error) = started {
        console.say(&format!("there is no network: {error}"));
    }
}

fn set_up(console: &Console, words: &Words, netlink: &Netlink) {
    let interface = wait_for_interface(console, words, netlink);
    let name = &interface.name;
    let steered = queues::steer(&interface);
    if 0 < steered {
        console.say(&format!("{name}: {steered} interrupts to the CPUs of the workers"));
    }
    let failed = |what: &str, error: io::Error| console.say(&format!("{name}: {what}: {error}"));
    match &words.addresses {
        Addresses::None => {}
        Addresses::Kernel => {
            let said = fs::read_to_string(KERNEL_CONF).unwrap_or_default();
            let names = said.lines().filter_map(|line| line.strip_prefix("nameserver "));
            let names = names.filter_map(|name| name.trim().parse().ok());
            let names: Vec<IpAddr> = words.names.iter().copied().chain(names).collect();
            name_servers(console, &names);
        }
        Addresses::Fixed(fixed) => {
            for one in fixed {
                let set = netlink.add_address(interface.index, one.address, None);
                let routed = set.and_then(|()| match one.gateway {
                    Some(gateway) => netlink.add_gateway(interface.index, gateway, one.address),
                    None => Ok(()),
                });
                match routed {
                    Ok(()) => console.say(&format!("{name}: {}", one.address)),
                    Err(error) => failed("its address cannot be set", error),
                }
            }
            name_servers(console, &words.names);
        }
        Addresses::Dhcp => {
            let mut last = None;
            dhcp::keep(&interface, |lease| {
                if let Err(error) = apply(netlink, &interface, lease) {
                    failed("its lease cannot be set", error);
                }
                let network = network(lease);
                let told = Some((network, lease.names.clone()));
                if last != told {
                    console.say(&format!("{name}: {network} by DHCP"));
                    let given = lease.names.iter().map(|&name| name.into());
                    let names: Vec<_> = words.names.iter().copied().chain(given).collect();
                    name_servers(console, &names);
                    last = told;
                }
            });
        }
    }
}

/// Switches on what there is, and returns the interface that is meant.
fn wait_for_interface(console: &Console, words: &Words, netlink: &Netlink) -> Interface {
    let began = Instant::now();
    let mut has_complained = false;
    let mut seen = Vec::new();
    loop {
        let all = interface::all();
        for interface in &all {
            if !seen.contains(&interface.index) {
                seen.push(interface.index);
                if let Err(error) = netlink.up(interface.index) {
                    console.say(&format!("{}: cannot be switched on: {error}", interface.name));
                }
            }
        }
        if let Some(found) = interface::choose(all, words.interface.as_deref()) {
            return found;
        }
        if !has_complained && PATIENCE <= began.elapsed() {
            has_complained = true;
            console.say("no network interface has a carrier yet");
        }
        // Looked for rarely once it is late: a cable may be plugged in after years.
        let is_late = has_complained;
        thread::park_timeout(if is_late { PATIENCE / 5 } else { LOOK_EVERY });
    }
}

fn network(lease: &Lease) -> IpNet {
    let found = IpNet::with_netmask(lease.address.into(), lease.mask.into());
    found.unwrap_or_else(|_| IpAddr::from(lease.address).into())
}

fn apply(netlink: &Netlink, interface: &Interface, lease: &Lease) -> io::Result<()> {
    let network = network(lease);
    netlink.add_address(interface.index, network, Some(lease.seconds))?;
    match lease.gateway {
        Some(gateway) => netlink.add_gateway(interface.index, gateway.into(), network),
        None => Ok(()),
    }
}

/// Writes the file that names are resolved by, unless there is nothing to say: the image may have one.
fn name_servers(console: &Console, names: &[IpAddr]) {
    if names.is_empty() {
        return;
    }
    let text: String = names.iter().map(|name| format!("nameserver {name}\n")).collect();
    if let Err(error) = fs::write(RESOLV_CONF, text) {
        console.say(&format!("{RESOLV_CONF}: {error}"));
    }
}
