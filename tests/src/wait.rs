//! Waiting for a condition. Nothing in these tests waits for a time to pass.

use std::time::{Duration, Instant};

/// How long a condition may take: far longer than a busy machine needs.
pub const PATIENCE: Duration = Duration::from_secs(20);
/// How often a condition is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(2);

/// Looks at a condition until it holds, for at most [`PATIENCE`].
///
/// # Panics
/// If it does not hold by then; `what` says what was waited for.
pub fn wait_for(what: &str, mut holds: impl FnMut() -> bool) {
    wait_for_some(what, || holds().then_some(()));
}

/// Looks for a value until there is one, for at most [`PATIENCE`].
///
/// # Panics
/// If there is none by then.
pub fn wait_for_some<T>(what: &str, look: impl FnMut() -> Option<T>) -> T {
    look_until(Instant::now() + PATIENCE, look)
        .unwrap_or_else(|| panic!("{what}: not within {PATIENCE:?}"))
}

/// Looks for a value until there is one, or until `until`.
pub fn look_until<T>(until: Instant, mut look: impl FnMut() -> Option<T>) -> Option<T> {
    loop {
        if let Some(found) = look() {
            return Some(found);
        }
        if until <= Instant::now() {
            return None;
        }
        pause();
    }
}

#[expect(clippy::disallowed_methods, reason = "this is how waiting for a condition is done")]
fn pause() {
    std::thread::sleep(LOOK_EVERY);
}
