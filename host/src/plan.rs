//! Fits the slots that workers keep into the mappings that the kernel gives a process.
//!
//! Every slot splits its reservation into mappings, and `vm.max_map_count` bounds them for the process. When
//! they run out in a request, starts fail and pages stay read-only. So the slots that are kept are planned
//! when the functions are loaded, and what does not fit is not kept: calls beyond start their slots anew,
//! which costs time and no error.

use crate::deployment::Deployed;

/// Mappings of a slot whose written pages form one run: of its memory what lies before, in and behind the
/// run, the image's end, and the rest of the reservation; of its fiber the guard and the stack; one spare.
pub const MAPPINGS_PER_SLOT: u64 = 8;
/// Mappings of a function that all workers share: artifact, template, code in its protections.
const MAPPINGS_PER_FUNCTION: u64 = 6;
/// Of all mappings, the part that kept slots may take, in quarters: the rest is for the program, rings,
/// and the slots of calls in flight beyond those kept.
const QUARTERS_FOR_SLOTS: u64 = 3;

/// What became of the slots that were asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cut {
    /// Slots that all workers would keep by the settings.
    pub asked: u64,
    /// Slots that they keep.
    pub kept: u64,
    /// `vm.max_map_count`.
    pub mappings_max: u64,
    /// What it would have to be.
    pub mappings_wanted: u64,
}

/// Lowers the functions' slots so that they fit. `None` if they do, or if the limit is not known.
pub fn fit(functions: &mut [Deployed], workers: usize) -> Option<Cut> {
    let text = std::fs::read_to_string("/proc/sys/vm/max_map_count").ok()?;
    let mappings_max = text.trim().parse().ok()?;
    let asked: Vec<u32> = functions.iter().map(|function| function.slots).collect();
    let kept = plan(&asked, workers as u64, mappings_max);
    for (function, slots) in functions.iter_mut().zip(&kept) {
        function.slots = *slots;
    }
    let sum = |slots: &[u32]| slots.iter().copied().map(u64::from).sum::<u64>() * workers as u64;
    let (asked_sum, kept_sum) = (sum(&asked), sum(&kept));
    let shared = asked.len() as u64 * MAPPINGS_PER_FUNCTION;
    let mappings_wanted = (asked_sum * MAPPINGS_PER_SLOT).div_ceil(QUARTERS_FOR_SLOTS) * 4 + shared;
    let cut = Cut { asked: asked_sum, kept: kept_sum, mappings_max, mappings_wanted };
    (kept_sum < asked_sum).then_some(cut)
}

/// Returns the slots that each function keeps on each worker: those asked for, or the same part of each.
fn plan(asked: &[u32], workers: u64, mappings_max: u64) -> Vec<u32> {
    let shared = asked.len() as u64 * MAPPINGS_PER_FUNCTION;
    let budget = mappings_max.saturating_sub(shared) / 4 * QUARTERS_FOR_SLOTS;
    let most = budget / (MAPPINGS_PER_SLOT * workers.max(1));
    let sum: u64 = asked.iter().copied().map(u64::from).sum();
    if sum <= most {
        return asked.to_vec();
    }
    let part = |slots: u32| u64::from(slots) * most / sum;
    asked.iter().map(|slots| u32::try_from(part(*slots)).expect("less than was asked")).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_fits_is_kept_as_asked() {
        assert_eq!(plan(&[64, 16], 2, 65_530), [64, 16]);
        assert!(plan(&[], 2, 65_530).is_empty());
    }

    #[test]
    fn what_does_not_fit_is_cut_in_proportion() {
        // 3/4 of 65 518 mappings are 49 137, which are 3071 slots for each of two workers.
        assert_eq!(plan(&[4000, 2000], 2, 65_530), [2047, 1023]);
        assert_eq!(plan(&[5, 5], 1, 10), [0, 0], "none, and the host still serves");
    }

    proptest! {
        #[test]
        fn a_plan_fits_and_gives_no_more_than_asked(
            asked in prop::collection::vec(0..100_000u32, 0..50),
            workers in 1..256u64,
            mappings_max in 0..2_000_000u64,
        ) {
            let kept = plan(&asked, workers, mappings_max);
            prop_assert!(kept.iter().zip(&asked).all(|(kept, asked)| kept <= asked));
            let sum: u64 = kept.iter().copied().map(u64::from).sum();
            prop_assert!(sum * workers * MAPPINGS_PER_SLOT <= mappings_max);
        }
    }
}
