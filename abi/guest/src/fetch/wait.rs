//! Waiting for any of several things.

use core::marker::PhantomData;
use core::time::Duration;

use crate::host;
use crate::layout::{WAIT_BODY, WAIT_ROWS_MAX, WaitRow};

/// One thing that [`wait`] waits for: made by `Pending::head`, `Pending::room`, `Answer::more`, `Answer::room` and
/// `BodyReader::more`, which it borrows.
#[derive(Debug)]
pub struct Wait<'h> {
    row: WaitRow,
    /// The host need not be asked.
    is_at_hand: bool,
    holder: PhantomData<&'h ()>,
}

impl Wait<'_> {
    pub(super) const fn fetch(kind: u16, handle: u32) -> Self {
        let row = WaitRow { kind, is_ready: 0, handle };
        Self { row, is_at_hand: false, holder: PhantomData }
    }

    pub(crate) const fn body(is_at_hand: bool) -> Self {
        let row = WaitRow { kind: WAIT_BODY, is_ready: 0, handle: 0 };
        Self { row, is_at_hand, holder: PhantomData }
    }

    /// True, after a [`wait`], if it is there or never will be: what it is for does not wait now.
    #[must_use]
    pub const fn is_ready(&self) -> bool {
        self.is_at_hand || self.row.is_ready != 0
    }
}

/// Waits until one of these is there, or the time is over; without a time, for as long as the call may last. The
/// client waits, the host serves others.
///
/// ```no_run
/// use core::time::Duration;
/// use midge_guest::fetch::{Fetch, FetchError, wait};
/// # use midge_guest::Request;
/// # fn first<'a>(request: &Request<'a>) -> Result<(), FetchError> {
/// let one = Fetch::get(request, "https://one.example.com/").start()?;
/// let other = Fetch::get(request, "https://other.example.com/").start()?;
/// let mut waits = [one.head(), other.head()];
/// wait(&mut waits, Some(Duration::from_millis(200)));
/// let [has_one, has_other] = waits.map(|wait| wait.is_ready());
/// # Ok(())
/// # }
/// ```
///
/// # Panics
/// If there are more than [`WAIT_ROWS_MAX`].
pub fn wait(waits: &mut [Wait<'_>], time: Option<Duration>) {
    let mut rows = [WaitRow::default(); WAIT_ROWS_MAX];
    assert!(waits.len() <= WAIT_ROWS_MAX, "more than {WAIT_ROWS_MAX} things are waited for");
    let rows = &mut rows[..waits.len()];
    for (row, wait) in rows.iter_mut().zip(waits.iter()) {
        *row = wait.row;
    }
    let time_ns = match time {
        // What is at hand needs no wait, but the others are looked at.
        _ if waits.iter().any(|wait| wait.is_at_hand) => 0,
        Some(time) => i64::try_from(time.as_nanos()).unwrap_or(i64::MAX),
        None => -1,
    };
    host::wait(rows, time_ns);
    for (row, wait) in rows.iter().zip(waits) {
        wait.row = *row;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_at_hand_is_ready_before_anybody_waits() {
        assert!(Wait::body(true).is_ready());
        let mut waits = [Wait::body(false)];
        assert!(!waits[0].is_ready());
        wait(&mut waits, None);
        assert!(waits[0].is_ready());
    }

    #[test]
    #[should_panic(expected = "more than 64")]
    fn no_more_than_the_host_takes() {
        let mut waits = [const { Wait::body(true) }; WAIT_ROWS_MAX + 1];
        wait(&mut waits, None);
    }
}
