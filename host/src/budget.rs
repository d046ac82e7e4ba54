//! The memory that clients may make the host take, from its settings, beside what there is.
//!
//! Not here: what instances take. Their number and memory are bounded by `slots`, `concurrency` and `memory`.

use serde::Serialize;

use crate::config::{ByteSize, Quantity, Settings};
use crate::doctor::Machine;

/// The bound of one worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Budget {
    /// Whatever clients do.
    pub fixed_bytes: u64,
    /// Request bodies and streams.
    pub bodies_bytes: u64,
    /// A connection whose client sends ahead and does not read.
    pub connection_bytes: u64,
    /// Connections.
    pub connections: u64,
    /// The longest response of a function, kept by each connection until it is read.
    pub response_bytes: u64,
    /// All of it, without responses of functions.
    pub network_bytes: u64,
    /// All of it.
    pub total_bytes: u64,
}

impl Budget {
    /// Computes it.
    #[must_use]
    pub fn of(settings: &Settings, listeners: usize) -> Self {
        let bound = crate::host::network(settings, listeners).memory_bound();
        let responses = settings.functions.iter().map(|function| function.response.value.0);
        let response_bytes = responses.max().unwrap_or(0);
        Self {
            fixed_bytes: bound.fixed_bytes,
            bodies_bytes: bound.bodies_bytes,
            connection_bytes: bound.connection_bytes,
            connections: bound.connections,
            response_bytes,
            network_bytes: bound.total_bytes(0),
            total_bytes: bound.total_bytes(response_bytes),
        }
    }

    /// Returns it for people.
    #[must_use]
    pub fn text(&self) -> String {
        let show = |bytes: u64| ByteSize(bytes.div_ceil(1 << 10) << 10).show();
        let rounded = |bytes: u64| ByteSize(bytes.div_ceil(1 << 20) << 20).show();
        format!(
            "memory that clients may make one worker take, at most:\n  \
             {} fixed + {} bodies + {} connections x {} = {}\n  \
             {} with a response of {} on each that nobody reads\n",
            rounded(self.fixed_bytes),
            rounded(self.bodies_bytes),
            self.connections,
            show(self.connection_bytes),
            rounded(self.network_bytes),
            rounded(self.total_bytes),
            show(self.response_bytes),
        )
    }

    /// Returns a warning if all workers together may take more than there is.
    #[must_use]
    pub fn warning(&self, workers: usize, available_bytes: u64) -> Option<String> {
        let all = self.network_bytes.saturating_mul(workers as u64);
        let show = |bytes: u64| ByteSize(bytes >> 20 << 20).show();
        (available_bytes < all).then(|| {
            format!(
                "clients may make the network take {} and there are {}: lower `limits.bodies`, \
                 `limits.unsent`, `limits.pipelined` or `limits.connections_per_worker` (midge check --explain)",
                show(all),
                show(available_bytes),
            )
        })
    }
}

/// Returns the memory that this process may have: of the machine, or of its tightest cgroup.
#[must_use]
pub fn available_bytes(machine: &Machine) -> Option<u64> {
    let total = machine.memory_bytes("MemTotal");
    machine.memory_limit().into_iter().chain(total).min()
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config::Overrides;

    #[test]
    fn a_machine_too_small_is_warned_of() {
        let settings = Settings::of_one(Path::new("x.wasm"), &Overrides::default());
        let budget = Budget::of(&settings, 1);
        assert!(budget.network_bytes < budget.total_bytes);
        assert_eq!(budget.warning(1, budget.network_bytes), None);
        let warning = budget.warning(2, budget.network_bytes).unwrap();
        assert!(warning.contains("`limits.bodies`"), "{warning}");
    }

    #[test]
    fn the_tightest_limit_counts() {
        let root = tempfile::tempdir().unwrap();
        let write = |path: &str, text: &str| {
            let path = root.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        };
        let machine = Machine { root: root.path().into(), probe: None };
        assert_eq!(available_bytes(&machine), None);
        write("proc/meminfo", "MemTotal:  2048 kB\nMemFree: 1 kB\n");
        assert_eq!(available_bytes(&machine), Some(2 << 20));
        write("proc/self/cgroup", "0::/a\n");
        write("sys/fs/cgroup/a/memory.max", "1048576\n");
        assert_eq!(available_bytes(&machine), Some(1 << 20));
    }
}
