//! What the kernel says of network interfaces, in `/sys/class/net`.

use std::fs;
use std::path::Path;

const FOLDER: &str = "/sys/class/net";
/// Most that are looked at.
const INTERFACES_MAX: usize = 64;
/// A hardware address of Ethernet.
pub(super) type Hardware = [u8; 6];

/// One with a device behind it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Interface {
    pub(super) name: String,
    pub(super) index: u32,
    pub(super) hardware: Hardware,
    pub(super) has_carrier: bool,
}

/// Returns those that have a device, in the order of their names.
pub(super) fn all() -> Vec<Interface> {
    let entries = fs::read_dir(FOLDER).into_iter().flatten().flatten().take(INTERFACES_MAX);
    let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
    let mut found: Vec<_> = names.filter_map(read).collect();
    found.sort_by(|one, other| one.name.cmp(&other.name));
    found
}

fn read(name: String) -> Option<Interface> {
    let folder = Path::new(FOLDER).join(&name);
    if !folder.join("device").exists() {
        return None;
    }
    let text = |file| fs::read_to_string(folder.join(file)).ok();
    Some(Interface {
        index: text("ifindex")?.trim().parse().ok()?,
        hardware: hardware(text("address")?.trim())?,
        // An interface that is off refuses to tell.
        has_carrier: text("carrier").is_some_and(|carrier| carrier.trim() == "1"),
        name,
    })
}

/// Returns the one that is meant: by name or hardware address, or the first with a carrier.
pub(super) fn choose(all: Vec<Interface>, asked: Option<&str>) -> Option<Interface> {
    let is_meant = |interface: &Interface| match asked {
        Some(asked) => interface.name == asked || hardware(asked) == Some(interface.hardware),
        None => interface.has_carrier,
    };
    all.into_iter().find(is_meant)
}

fn hardware(text: &str) -> Option<Hardware> {
    let mut parts = text.split(':').map(|part| u8::from_str_radix(part, 16).ok());
    let mut address = Hardware::default();
    for byte in &mut address {
        *byte = parts.next()??;
    }
    parts.next().is_none().then_some(address)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_with_a_carrier_is_meant_unless_another_is_named() {
        let interface = |index: u32, has_carrier| Interface {
            name: format!("eth{index}"),
            index,
            hardware: [2, 0, 0, 0, 0, u8::try_from(index).unwrap()],
            has_carrier,
        };
        let all = || vec![interface(0, false), interface(1, true), interface(2, true)];
        for (asked, expected) in [
            (None, Some(1)),
            (Some("eth0"), Some(0)),
            (Some("02:00:00:00:00:02"), Some(2)),
            (Some("eth3"), None),
            (Some("02:00:00:00:00"), None),
        ] {
            let chosen = choose(all(), asked).map(|interface| interface.index);
            assert_eq!(chosen, expected, "{asked:?}");
        }
    }
}
