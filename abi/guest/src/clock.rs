//! Time, as coarse as the host gives it. Outside of wasm it stands still at zero, so that tests repeat.

use core::time::Duration;

use crate::host;

/// Lets the call rest for a time. The client waits, the host serves others.
pub fn sleep(time: Duration) {
    host::sleep_ns(i64::try_from(time.as_nanos()).unwrap_or(i64::MAX));
}

/// Returns the time since 1970-01-01 UTC.
#[must_use]
pub fn wall() -> Duration {
    Duration::from_nanos(u64::try_from(host::clock_wall_ns()).unwrap_or(0))
}

/// Returns the time since the request began.
#[must_use]
pub fn since_start() -> Duration {
    Duration::from_nanos(u64::try_from(host::clock_monotonic_ns()).unwrap_or(0))
}
