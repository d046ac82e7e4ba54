//! Which technique a module may use, which it gets, and why.

use midge_abi::manifest::{Isolation, Manifest, Metering};

use crate::engine::{POOL_MEMORIES_MAX, POOL_MEMORY_BYTES_MAX, POOL_TABLES_MAX};
use crate::start::Technique;

/// What of the machine decides over techniques.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Machine {
    /// Anonymous pages may be swapped out: PAGEMAP_SCAN misses those (wasmtime issue 14357).
    pub has_swap: bool,
    /// The kernel has PAGEMAP_SCAN (6.7).
    pub has_pagemap_scan: bool,
}

impl Machine {
    /// Looks at the machine that this process runs on.
    #[must_use]
    pub fn of_this_process() -> Self {
        let swaps = std::fs::read_to_string("/proc/swaps").unwrap_or_default();
        let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
        Self {
            // Without /proc nothing is known: the safe side is that there is swap.
            has_swap: swaps.is_empty() || swaps.lines().count() > 1,
            has_pagemap_scan: (6, 7) <= version(&release),
        }
    }
}

/// Which technique a function gets, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Choice {
    /// The technique.
    pub technique: Technique,
    /// The reason, as a sentence without a full stop.
    pub reason: String,
}

/// A technique was asked for by name and the module may not use it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("technique `{technique}` cannot be used for this module: {reason}")]
pub struct NotEligible {
    /// The technique.
    pub technique: Technique,
    /// Why not.
    pub reason: String,
}

/// Says whether a technique may be used for a module.
///
/// # Errors
/// [`NotEligible`] with the reason.
pub fn check(
    technique: Technique,
    manifest: &Manifest,
    machine: Machine,
) -> Result<(), NotEligible> {
    match obstacle(technique, manifest, machine) {
        None => Ok(()),
        Some(reason) => Err(NotEligible { technique, reason }),
    }
}

/// Chooses a technique: `restore` where it is exact, else a pool of the engine's.
#[must_use]
pub fn choose(manifest: &Manifest, machine: Machine) -> Choice {
    let Some(obstacle) = obstacle(Technique::Restore, manifest, machine) else {
        let reason = "every state that the module can change is held exactly".to_owned();
        return Choice { technique: Technique::Restore, reason };
    };
    let fallbacks = if !manifest.form().needs_template() {
        [Technique::PoolScan, Technique::Pool, Technique::Cow].as_slice()
    } else {
        &[Technique::Mmap]
    };
    let technique = fallbacks
        .iter()
        .copied()
        .find(|technique| check(*technique, manifest, machine).is_ok())
        .unwrap_or(fallbacks[fallbacks.len() - 1]);
    Choice { technique, reason: format!("`restore` is not exact here: {obstacle}") }
}

fn obstacle(technique: Technique, manifest: &Manifest, machine: Machine) -> Option<String> {
    let makes_new = matches!(technique, Technique::Cow | Technique::Pool | Technique::PoolScan);
    if let Some(refused) = manifest.unlinked.as_ref().filter(|_| !makes_new) {
        return Some(format!("the engine's component runtime runs it: {refused}"));
    }
    let needs_template = technique.uses_templates() && !manifest.is_preinitialised;
    if needs_template {
        return Some(
            "its start-up changes tables, segments or references, which a template cannot hold"
                .into(),
        );
    }
    if manifest.isolation == Isolation::BoundsChecked && !technique.uses_templates() {
        return Some(
            "it is isolated by bounds checks, which the code of `jit`, `cow` and the pools has not"
                .into(),
        );
    }
    if manifest.metering == Metering::Fuel && !technique.uses_templates() {
        return Some(
            "it is metered by fuel, which the code of `jit`, `cow` and the pools is not".into(),
        );
    }
    match technique {
        Technique::Restore => state_obstacle(manifest),
        Technique::PoolScan if machine.has_swap => Some(
            "this machine has swap, and PAGEMAP_SCAN misses pages that were swapped out; \
             swapoff -a, or use `pool`"
                .into(),
        ),
        Technique::PoolScan if !machine.has_pagemap_scan => {
            Some("PAGEMAP_SCAN needs Linux 6.7".into())
        }
        Technique::PoolScan | Technique::Pool => pool_obstacle(manifest),
        _ => None,
    }
}

fn state_obstacle(manifest: &Manifest) -> Option<String> {
    let state = &manifest.state;
    let classes = [
        (state.tables, "table.set, table.fill, table.copy or table.init"),
        (state.table_growth, "table.grow"),
        (state.data_drop, "data.drop"),
        (state.elem_drop, "elem.drop"),
    ];
    let present: Vec<_> =
        classes.iter().filter(|(is_present, _)| *is_present).map(|(_, name)| *name).collect();
    if present.is_empty() { None } else { Some(format!("its code has {}", present.join(", "))) }
}

fn pool_obstacle(manifest: &Manifest) -> Option<String> {
    if manifest.memories.len() > midge_abi::width::index(POOL_MEMORIES_MAX) {
        return Some(format!("the pool holds {POOL_MEMORIES_MAX} memories for each instance"));
    }
    if manifest.table_count > POOL_TABLES_MAX {
        return Some(format!("the pool holds {POOL_TABLES_MAX} tables for each instance"));
    }
    let bytes = manifest.memories.iter().map(|memory| memory.bytes).max().unwrap_or(0);
    let is_too_large = POOL_MEMORY_BYTES_MAX as u64 <= bytes;
    is_too_large.then(|| format!("the pool holds memories of {POOL_MEMORY_BYTES_MAX} bytes"))
}

fn version(release: &str) -> (u32, u32) {
    let mut parts =
        release.split(|c: char| !c.is_ascii_digit()).map(|part| part.parse().unwrap_or(0));
    (parts.next().unwrap_or(0), parts.next().unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use midge_abi::manifest::{MemoryRow, StateClasses, Traces};

    use super::*;

    const QUIET: Machine = Machine { has_swap: false, has_pagemap_scan: true };

    fn manifest(state: StateClasses) -> Manifest {
        let memory = MemoryRow { bytes: 65536, bytes_max: None, image_start: 0, image_bytes: 4096 };
        Manifest {
            source_name: String::new(),
            source_hash: [0; 32],
            contract: 1,
            area: 1024,
            area_size: 4096,
            memories: vec![memory],
            globals: Vec::new(),
            state,
            is_preinitialised: true,
            imports: Vec::new(),
            exports: Vec::new(),
            table_count: 0,
            engine_name: String::new(),
            machine: String::new(),
            isolation: Isolation::GuardPages,
            files: None,
            unlinked: None,
            metering: Metering::Epochs,
            scratch: None,
            traces: Traces::Functions,
        }
    }

    #[test]
    fn restore_is_chosen_where_it_is_exact() {
        let state = StateClasses { memory_growth: true, globals: true, ..StateClasses::default() };
        assert_eq!(choose(&manifest(state), QUIET).technique, Technique::Restore);
    }

    #[test]
    fn changed_tables_fall_back_with_a_reason() {
        let state = StateClasses { tables: true, elem_drop: true, ..StateClasses::default() };
        let choice = choose(&manifest(state), QUIET);
        assert_eq!(choice.technique, Technique::PoolScan);
        assert!(choice.reason.contains("table.set") && choice.reason.contains("elem.drop"));
    }

    #[test]
    fn the_scan_is_not_used_where_pages_can_be_swapped() {
        let state = StateClasses { data_drop: true, ..StateClasses::default() };
        let swapping = Machine { has_swap: true, ..QUIET };
        assert_eq!(choose(&manifest(state), swapping).technique, Technique::Pool);
    }

    #[test]
    fn start_up_in_each_instance_excludes_templates() {
        let mut manifest = manifest(StateClasses::default());
        manifest.is_preinitialised = false;
        for technique in Technique::ALL {
            let is_allowed = check(technique, &manifest, QUIET).is_ok();
            assert_eq!(is_allowed, !technique.uses_templates(), "{technique}");
        }
    }

    #[test]
    fn a_third_memory_does_not_fit_the_pool() {
        let mut manifest = manifest(StateClasses { tables: true, ..StateClasses::default() });
        manifest.memories.push(manifest.memories[0].clone());
        assert_eq!(choose(&manifest, QUIET).technique, Technique::PoolScan);
        manifest.memories.push(manifest.memories[0].clone());
        assert_eq!(choose(&manifest, QUIET).technique, Technique::Cow);
    }

    #[test]
    fn releases_are_read() {
        assert_eq!(version("6.18.44-fc"), (6, 18));
        assert_eq!(version(""), (0, 0));
    }
}
