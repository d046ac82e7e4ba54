//! The library hyper with its defaults, on one thread of tokio: a hidden command of this program.

use std::process::Command;

use anyhow::Result;

use super::{Comparison, Need, Row, System};
use crate::hyper::TARGET;
use crate::servers::{Server, free_address};

const NAME: &str = "hyper, one thread";

pub(super) const SYSTEM: System = System {
    name: "hyper",
    needs: &[Need {
        program: "midge-lab",
        npm: &[],
        install: "cargo build --release -p midge-bench",
    }],
    rows: &[Row {
        name: NAME,
        within: &[Comparison::Request, Comparison::Tail, Comparison::Boot],
        target: TARGET,
        launch: |place| {
            let mut command = Command::new(place.program());
            command.args(["hyper", &place.address.to_string()]);
            Ok(command.into())
        },
    }],
};

/// Starts hyper with a fixed response.
///
/// # Errors
/// If it does not start.
pub(crate) fn start_hyper(cpu: usize) -> Result<Server> {
    let (address, folder) = (free_address()?, tempfile::tempdir()?);
    let mut own = Command::new(std::env::current_exe()?);
    own.args(["hyper", &address.to_string()]);
    Server::start(NAME, address, TARGET, cpu, own, folder)
}
