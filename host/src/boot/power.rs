//! The power button, the watchdog, and the end of the machine.

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write};
use std::path::Path;
use std::sync::mpsc::Sender;
use std::thread;
use std::time::Duration;

use rustix::system::{RebootCommand, reboot};

use super::console::Console;
use super::supervise::Event;
use super::words::{Off, Words};

/// How the machine ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    /// It is switched off.
    Off,
    /// It starts anew.
    Restart,
}

/// How often the watchdog is told that this process lives: far below what devices wait for, ten seconds and more.
pub(super) const FEED_EVERY: Duration = Duration::from_secs(2);
/// Tells a watchdog that its end is meant (Linux, `watchdog/watchdog-api`, magic close).
const FAREWELL: &[u8] = b"V";

/// A device that starts the machine anew if it hears nothing.
#[derive(Debug)]
pub(super) struct Watchdog(Option<File>);

impl Watchdog {
    /// Opens it, if there is one: from then on it waits.
    pub(super) fn open(console: &Console) -> Self {
        let device = OpenOptions::new().write(true).open("/dev/watchdog").ok();
        if device.is_some() {
            console.say("the watchdog is on");
        }
        Self(device)
    }

    /// Tells it that all is well.
    pub(super) fn feed(&mut self) {
        if let Some(device) = &mut self.0 {
            // It can only bark.
            drop(device.write_all(b"."));
        }
    }

    /// Ends it.
    pub(super) fn close(self) {
        if let Some(mut device) = self.0 {
            drop(device.write_all(FAREWELL));
        }
    }
}

/// Ends the machine.
pub(super) fn end(console: &Console, words: &Words, end: End) -> ! {
    let has_acpi = Path::new("/sys/firmware/acpi/tables").exists();
    let command = match (end, words.off) {
        (End::Off, Off::Acpi) => RebootCommand::PowerOff,
        (End::Off, Off::Auto) if has_acpi => RebootCommand::PowerOff,
        // A machine that cannot switch itself off is a microVM, and a restart is what ends that.
        _ => RebootCommand::Restart,
    };
    rustix::fs::sync();
    let what = if end == End::Off { "off" } else { "starting anew" };
    console.say(what);
    console.flush();
    if let Err(error) = reboot(command) {
        console.say(&format!("the machine does not end: {error}"));
    }
    loop {
        thread::park();
    }
}

/// A key's number, its event's kind, and that it went down (Linux, `input-event-codes.h`).
const KEY_POWER: u16 = 116;
const KIND_KEY: u16 = 1;
const DOWN: u32 = 1;
/// An event: 16 bytes of time, kind, code, value.
const EVENT_BYTES: usize = 24;
/// Devices that are looked at.
const DEVICES_MAX: usize = 32;

/// Watches every device that has a power button, a thread each.
pub(super) fn watch_buttons(console: &Console, events: &Sender<Event>) {
    let devices = fs::read_dir("/sys/class/input").into_iter().flatten().flatten();
    let names = devices.filter_map(|device| device.file_name().into_string().ok());
    for name in names.filter(|name| name.starts_with("event")).take(DEVICES_MAX) {
        let keys = format!("/sys/class/input/{name}/device/capabilities/key");
        if !fs::read_to_string(keys).is_ok_and(|keys| has_key(&keys, KEY_POWER)) {
            continue;
        }
        let Ok(device) = File::open(format!("/dev/input/{name}")) else { continue };
        let events = events.clone();
        let started = thread::Builder::new().name("midge-button".into()).spawn(move || {
            if is_pressed(device) {
                // Nobody listens any more when the machine is ending.
                drop(events.send(Event::Button));
            }
        });
        if let Err(error) = started {
            console.say(&format!("the power button is not watched: {error}"));
        }
    }
}

/// Waits until a power button is pressed; false if the device is gone.
fn is_pressed(mut device: impl Read) -> bool {
    let mut event = [0; EVENT_BYTES];
    while device.read_exact(&mut event).is_ok() {
        let short = |at: usize| u16::from_ne_bytes([event[at], event[at + 1]]);
        let value = u32::from_ne_bytes([event[20], event[21], event[22], event[23]]);
        if (short(16), short(18), value) == (KIND_KEY, KEY_POWER, DOWN) {
            return true;
        }
    }
    false
}

/// Looks a key up in the kernel's list: words of 64 bits in hexadecimal, the highest first.
fn has_key(list: &str, key: u16) -> bool {
    let word = list.split_whitespace().rev().nth(usize::from(key / 64));
    let word = word.and_then(|word| u64::from_str_radix(word, 16).ok());
    word.is_some_and(|word| word >> (key % 64) & 1 == 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_power_button_is_known_by_its_keys() {
        assert!(has_key("10000000000000 0\n", KEY_POWER));
        assert!(has_key("3f 0 10000000000000 0", KEY_POWER));
        assert!(!has_key("10000000000000", KEY_POWER));
        assert!(!has_key("10000000000000 0 0", KEY_POWER));
        assert!(!has_key("", KEY_POWER) && !has_key("x y", KEY_POWER));
    }

    #[test]
    fn only_its_way_down_counts() {
        let event = |kind: u16, code: u16, value: u32| {
            let parts =
                [&[0; 16][..], &kind.to_ne_bytes(), &code.to_ne_bytes(), &value.to_ne_bytes()];
            parts.concat()
        };
        let others = [event(1, 30, 1), event(1, KEY_POWER, 0), event(0, KEY_POWER, 1)].concat();
        assert!(!is_pressed(others.as_slice()));
        assert!(is_pressed([others, event(1, KEY_POWER, 1)].concat().as_slice()));
    }
}
