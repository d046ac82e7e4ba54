//! Random bytes and the time of day: what keys and certificates depend on.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::io::Errno;
use rustix::rand::{GetRandomFlags, getrandom};

use super::console::Console;

/// Seconds from 1970 to 2026: a clock before it stands, or was never set.
const CLOCK_MIN: Duration = Duration::from_secs(1_767_225_600);

/// Waits until the kernel has random bytes, for those that it gives without waiting would be the same after each
/// start of a machine without a source; and tells of a clock that is wrong.
pub(super) fn wait(console: &Console) {
    let mut byte = [0];
    if getrandom(&mut byte[..], GetRandomFlags::NONBLOCK) == Err(Errno::AGAIN) {
        console.say("waiting for random bytes: a virtio-rng device or a processor with RDRAND has them at once");
        if let Err(error) = getrandom(&mut byte[..], GetRandomFlags::empty()) {
            console.say(&format!("there are no random bytes: {error}"));
        }
    }
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    if now < CLOCK_MIN {
        let now = humantime::format_rfc3339_seconds(UNIX_EPOCH + now);
        console.say(&format!(
            "the clock says {now}: certificates of other servers will be refused, and logs have wrong times"
        ));
    }
}
