//! CPU time and faults of this process and of the children that it has waited for (getrusage(2)).
#![expect(unsafe_code, reason = "one call of the kernel; the safe face is Usage")]

use std::mem::MaybeUninit;
use std::time::Duration;

/// What was used so far.
#[derive(Debug, Clone, Copy, Default)]
pub struct Usage {
    /// CPU time, in programs.
    pub user: Duration,
    /// CPU time, in the kernel.
    pub system: Duration,
    /// Faults that needed no disk.
    pub faults: u64,
}

impl Usage {
    /// Reads the counts of all threads, and of children that have ended.
    #[must_use]
    pub fn now() -> Self {
        Self::of(&[libc::RUSAGE_SELF, libc::RUSAGE_CHILDREN])
    }

    /// Reads those of children that have ended and were waited for, with all their threads and their own children.
    #[must_use]
    pub fn of_children() -> Self {
        Self::of(&[libc::RUSAGE_CHILDREN])
    }

    fn of(whom: &[libc::c_int]) -> Self {
        let mut sum = Self::default();
        for &who in whom {
            let mut usage = MaybeUninit::<libc::rusage>::zeroed();
            // SAFETY: the kernel writes a `rusage` where one lies; zeroed bytes are one too.
            let usage = unsafe {
                let result = libc::getrusage(who, usage.as_mut_ptr());
                assert_eq!(result, 0, "both are known to every kernel");
                usage.assume_init()
            };
            sum.user += duration(usage.ru_utime);
            sum.system += duration(usage.ru_stime);
            sum.faults += u64::try_from(usage.ru_minflt).unwrap_or(0);
        }
        sum
    }

    /// Returns what was used since.
    #[must_use]
    pub fn since(self, before: Self) -> Self {
        Self {
            user: self.user.saturating_sub(before.user),
            system: self.system.saturating_sub(before.system),
            faults: self.faults - before.faults,
        }
    }
}

fn duration(time: libc::timeval) -> Duration {
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    Duration::from_secs(seconds) + Duration::from_micros(u64::try_from(time.tv_usec).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_is_used_by_working() {
        let before = Usage::now();
        let mut sum = 0u64;
        while Usage::now().since(before).user < Duration::from_millis(5) {
            for number in 0..100_000u64 {
                sum = std::hint::black_box(sum.wrapping_add(number));
            }
        }
        assert!(sum > 0);
    }

    #[test]
    fn a_child_counts_once_it_was_waited_for() {
        let before = Usage::of_children();
        let mut child = std::process::Command::new("true").spawn().unwrap();
        child.wait().unwrap();
        assert!(Usage::of_children().since(before).faults > 0);
    }
}
