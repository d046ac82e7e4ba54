//! `cargo xtask ci`: runs the script that the server runs, so that desk and server cannot differ.

use std::path::Path;
use std::process::{Command, ExitCode};

use anyhow::Context;

/// Runs `.ci/run`.
pub(crate) fn run(root: &Path) -> anyhow::Result<ExitCode> {
    let script = root.join(".ci/run");
    let status = Command::new("bash").arg(&script).current_dir(root).status();
    let status = status.with_context(|| format!("cannot start {}", script.display()))?;
    Ok(if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
