//! A static program that answers every request: what starting a process takes at least.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};

use super::{Comparison, Need, Row, System};

/// The row that ratios of cold starts are taken to.
pub(crate) const PROGRAM: &str = "static program";

const SOURCE: &str = include_str!("program.c");

/// What compiles it.
pub(super) const COMPILER: Need =
    Need { program: "cc", npm: &[], install: "apt-get install gcc libc6-dev" };

pub(super) const SYSTEM: System = System {
    name: "program",
    needs: &[COMPILER],
    rows: &[Row {
        name: PROGRAM,
        within: &[Comparison::Boot],
        target: "/",
        launch: |place| {
            let program = build(place.program(), place.folder)?;
            let mut command = Command::new(program);
            command.arg(place.address.port().to_string());
            Ok(command.into())
        },
    }],
};

/// Compiles it into a folder; returns the program, which needs no other file.
pub(super) fn build(compiler: &Path, folder: &Path) -> Result<PathBuf> {
    let (source, program) = (folder.join("program.c"), folder.join("program"));
    std::fs::write(&source, SOURCE)?;
    let mut command = Command::new(compiler);
    command.args(["-O2", "-static", "-o"]).arg(&program).arg(&source).stdin(Stdio::null());
    let ended = command.output().context("cannot start the C compiler")?;
    let why = String::from_utf8_lossy(&ended.stderr);
    ensure!(ended.status.success(), "cc -static: {}", why.lines().next().unwrap_or(""));
    Ok(program)
}
