//! The CPUs of a comparison: one for the servers, another for what loads them.

use anyhow::{Result, ensure};
use core_affinity::{CoreId, set_for_current};

/// Options of every comparison of servers.
#[derive(Debug, Clone, Copy, clap::Args)]
pub(crate) struct Cpus {
    /// CPU of the servers.
    #[arg(long = "server-cpu", value_name = "CPU", default_value_t = 0)]
    pub(crate) servers: usize,
    /// CPU of the clients.
    #[arg(long = "load-cpu", value_name = "CPU", default_value_t = 1)]
    pub(crate) load: usize,
}

impl Cpus {
    /// Checks that the two are two.
    ///
    /// # Errors
    /// If they are one: neither would be measured.
    pub(crate) fn check(&self) -> Result<()> {
        ensure!(
            self.servers != self.load,
            "servers and clients need a CPU each: --server-cpu, --load-cpu"
        );
        Ok(())
    }

    /// Takes the clients' CPU for this thread; the servers have theirs by then.
    ///
    /// # Errors
    /// If this process may not use it.
    pub(crate) fn take_load(&self) -> Result<()> {
        let pinned = set_for_current(CoreId { id: self.load });
        ensure!(pinned, "cannot use CPU {} for the clients", self.load);
        Ok(())
    }
}
