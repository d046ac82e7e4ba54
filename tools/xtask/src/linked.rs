//! `cargo xtask static`: the program midge, linked with nothing that is to be found when it runs.
//!
//! With the C library of this machine (GNU's). Names of other servers are found by what is built into it since its
//! release 2.34: `/etc/hosts` and the servers of `/etc/resolv.conf`; `/etc/nsswitch.conf` should not name more.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::Context;

/// Named so that the flags are for the program alone: plug-ins of the compiler must stay shared libraries.
const TARGET: &str = "x86_64-unknown-linux-gnu";
const FLAG: &str = "-C target-feature=+crt-static";

pub(crate) fn run(root: &Path) -> anyhow::Result<ExitCode> {
    println!("{}", build(root)?.display());
    Ok(ExitCode::SUCCESS)
}

/// Builds it, and returns where it lies.
pub(crate) fn build(root: &Path) -> anyhow::Result<PathBuf> {
    let mut flags = std::env::var_os("RUSTFLAGS").unwrap_or_default();
    if !flags.is_empty() {
        flags.push(" ");
    }
    flags.push(FLAG);
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| OsString::from("cargo"));
    let mut command = Command::new(cargo);
    command.args(["build", "--release", "--package", "midge", "--target", TARGET]);
    let status = command.current_dir(root).env("RUSTFLAGS", flags).status();
    let status = status.context("cannot start `cargo`")?;
    anyhow::ensure!(status.success(), "the program was not built");
    Ok(PathBuf::from(format!("target/{TARGET}/release/midge")))
}
