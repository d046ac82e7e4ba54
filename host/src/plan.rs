//! Fits the slots that workers keep into what the kernel gives a process.
//!
//! Every slot splits its reservation into mappings, and `vm.max_map_count` bounds them for the process; the
//! reservations themselves are bounded by its address space. When either runs out in a request, starts fail and pages
//! stay read-only. So when the functions are loaded, it is planned how many slots may lie idle. Where that is less
//! than they ask for, functions share it ([`crate::shelf`]): those that were called last keep theirs, and calls of
//! others start their slots anew, which costs time and no error.

use std::collections::BTreeSet;
use std::sync::Arc;

use midge_abi::manifest::Isolation;
use midge_loader::engine::{
    CHECKED_GUARD_BYTES, CHECKED_RESERVATION_BYTES, MEMORY_GUARD_BYTES, MEMORY_RESERVATION_BYTES,
};

use crate::deployment::Deployed;

/// Mappings of a slot whose written pages form one run: of its memory what lies before, in and behind the
/// run, the image's end, and the rest of the reservation; of its fiber the guard and the stack; one spare.
pub const MAPPINGS_PER_SLOT: u64 = 8;
/// Mappings of a module that all functions and workers share: artifact, template, code in its protections.
const MAPPINGS_PER_MODULE: u64 = 6;
/// Of all mappings, and of the address space, the part that idle slots may take, in quarters: the rest is for the
/// program, rings, and the slots of calls in flight beyond those kept.
const QUARTERS_FOR_SLOTS: u64 = 3;
/// What a process may map on x86-64 (Linux, Documentation/arch/x86/x86_64/mm.rst: 47 bits without asking for more).
const ADDRESS_SPACE_BYTES: u64 = 1 << 47;

/// Slots that were asked for and cannot all lie idle.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cut {
    /// Slots that all workers would keep by the settings.
    pub asked: u64,
    /// Slots that they keep.
    pub kept: u64,
    /// What bounds them.
    pub bound: Bound,
}

/// What bounds idle slots.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bound {
    /// `vm.max_map_count`: what it is, and what it would have to be.
    Mappings {
        /// It is.
        max: u64,
        /// It would have to be.
        wanted: u64,
    },
    /// The address space of a process.
    AddressSpace,
}

impl Cut {
    /// Returns how many slots may lie idle on each of so many workers.
    #[must_use]
    pub fn idle_max(&self, workers: usize) -> usize {
        usize::try_from(self.kept / (workers as u64).max(1)).expect("64-bit targets alone")
    }
}

impl std::fmt::Display for Cut {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { asked, kept, bound } = self;
        write!(
            formatter,
            "workers keep {kept} idle slots, not {asked}, those of the functions called last: "
        )?;
        match bound {
            Bound::Mappings { max, wanted } => write!(
                formatter,
                "vm.max_map_count is {max}; other calls start slots anew; sysctl -w \
                 vm.max_map_count={wanted}"
            ),
            Bound::AddressSpace => formatter.write_str(
                "a process has 128 TiB of address space; other calls start slots anew; isolation = \
                 \"bounds-checked\" takes a sixteenth of it",
            ),
        }
    }
}

/// Returns what is cut of the slots that functions ask for; `None` if all fit, or if the limit is not known.
#[must_use]
pub fn fit(functions: &[Deployed], workers: usize) -> Option<Cut> {
    let text = std::fs::read_to_string("/proc/sys/vm/max_map_count").ok()?;
    let mappings_max = text.trim().parse().ok()?;
    let modules: BTreeSet<_> =
        functions.iter().map(|function| Arc::as_ptr(function.function.artifact())).collect();
    let wants = functions.iter().map(|function| {
        let manifest = function.function.artifact().manifest();
        let reserved = match manifest.isolation {
            Isolation::GuardPages => MEMORY_RESERVATION_BYTES + MEMORY_GUARD_BYTES,
            Isolation::BoundsChecked => CHECKED_RESERVATION_BYTES + CHECKED_GUARD_BYTES,
        };
        Want { slots: function.slots, bytes: reserved * manifest.memories.len().max(1) as u64 }
    });
    plan(wants, modules.len(), workers, mappings_max)
}

/// Slots of a function on a worker, and the address space of each.
#[derive(Debug, Clone, Copy)]
struct Want {
    slots: u32,
    bytes: u64,
}

fn plan(
    wants: impl Iterator<Item = Want> + Clone,
    modules: usize,
    workers: usize,
    mappings_max: u64,
) -> Option<Cut> {
    let workers = workers as u64;
    let asked = wants.clone().map(|want| u64::from(want.slots)).sum::<u64>() * workers;
    // Any function may come to hold all of them.
    let bytes_each = wants.map(|want| want.bytes).max().unwrap_or(1);
    let shared = modules as u64 * MAPPINGS_PER_MODULE;
    let part = |whole: u64| whole / 4 * QUARTERS_FOR_SLOTS;
    let by_mappings = part(mappings_max.saturating_sub(shared)) / MAPPINGS_PER_SLOT;
    let by_address_space = part(ADDRESS_SPACE_BYTES) / bytes_each;
    let kept = by_mappings.min(by_address_space);
    if asked <= kept {
        return None;
    }
    let bound = if by_mappings <= by_address_space {
        let wanted = asked.min(by_address_space) * MAPPINGS_PER_SLOT;
        let wanted = wanted.div_ceil(QUARTERS_FOR_SLOTS) * 4 + shared;
        Bound::Mappings { max: mappings_max, wanted }
    } else {
        Bound::AddressSpace
    };
    // The same number on each worker.
    Some(Cut { asked, kept: kept / workers.max(1) * workers, bound })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const GUARDED: u64 = MEMORY_RESERVATION_BYTES + MEMORY_GUARD_BYTES;
    const CHECKED: u64 = CHECKED_RESERVATION_BYTES + CHECKED_GUARD_BYTES;

    fn wants(slots: &[u32], bytes: u64) -> impl Iterator<Item = Want> + Clone {
        slots.iter().map(move |slots| Want { slots: *slots, bytes })
    }

    #[test]
    fn what_fits_is_kept_as_asked() {
        assert_eq!(plan(wants(&[64, 16], GUARDED), 2, 2, 65_530), None);
        assert_eq!(plan(wants(&[], GUARDED), 0, 2, 65_530), None);
    }

    #[test]
    fn what_does_not_fit_is_shared() {
        // 3/4 of 65 518 mappings are 49 137, which are 6142 slots, 3071 for each of two workers.
        let cut = plan(wants(&[4000, 2000], GUARDED), 2, 2, 65_530).unwrap();
        assert_eq!((cut.asked, cut.kept, cut.idle_max(2)), (12_000, 6142, 3071));
        let Bound::Mappings { max: 65_530, wanted } = cut.bound else { panic!("{cut:?}") };
        assert_eq!(plan(wants(&[4000, 2000], GUARDED), 2, 2, wanted), None, "what it says helps");
        let none = plan(wants(&[5, 5], GUARDED), 2, 1, 10).unwrap();
        assert_eq!(none.idle_max(1), 0, "none, and the host still serves");
    }

    #[test]
    fn functions_of_one_module_share_its_mappings() {
        let many = vec![1; 100_000];
        let of = |modules| plan(wants(&many, CHECKED), modules, 1, 500_000).unwrap().kept;
        assert!(of(1) > 46_000 && of(80_000) < 5000, "{} and {}", of(1), of(80_000));
    }

    #[test]
    fn memories_that_reserve_much_are_bounded_by_the_address_space() {
        let many = vec![1; 100_000];
        let cut = plan(wants(&many, GUARDED), 1, 1, 4_000_000).unwrap();
        assert_eq!(cut.bound, Bound::AddressSpace);
        assert!((20_000..25_000).contains(&cut.kept), "{cut:?}");
        assert!(cut.to_string().contains("bounds-checked"), "{cut}");
        assert_eq!(plan(wants(&many, CHECKED), 1, 1, 4_000_000), None);
    }

    proptest! {
        #[test]
        fn a_plan_fits(
            asked in prop::collection::vec(0..100_000u32, 0..50),
            is_checked: bool,
            workers in 1..256usize,
            mappings_max in 0..2_000_000u64,
        ) {
            let bytes = if is_checked { CHECKED } else { GUARDED };
            let sum = asked.iter().copied().map(u64::from).sum::<u64>() * workers as u64;
            let cut = plan(wants(&asked, bytes), asked.len(), workers, mappings_max);
            let kept = cut.map_or(sum, |cut| (cut.idle_max(workers) * workers) as u64);
            prop_assert!(kept <= sum);
            prop_assert!(kept * MAPPINGS_PER_SLOT <= mappings_max);
            prop_assert!(kept * bytes <= ADDRESS_SPACE_BYTES);
        }
    }
}
