//! `cargo xtask TASK`: what a developer does to this tree, as a program.
//!
//! Invariant: it does not depend on the engine, so that it builds in seconds.
#![forbid(unsafe_code)]
#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a program that prints is all this is"
)]

mod ci; // what .ci/run runs
mod deb; // a package for Debian
mod guests; // rebuilds the examples
mod linked; // the program without libraries
mod tidy; // what no lint sees

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(name = "cargo xtask", about = "The developer's tasks")]
struct Arguments {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Runs what a change must pass.
    Ci,
    /// Makes a Debian package of the static program, with a unit for systemd.
    Deb(deb::Options),
    /// Rebuilds the example functions from source and replaces the committed ones.
    Guests(guests::Options),
    /// Builds the program without shared libraries, for images and containers.
    Static,
    /// Looks for what no lint sees: head comments, leftovers, broken links, machine paths.
    Tidy,
}

fn main() -> ExitCode {
    let root = tree_root();
    let result = match Arguments::parse().task {
        Task::Ci => ci::run(&root),
        Task::Deb(options) => deb::run(&root, &options),
        Task::Guests(options) => guests::run(&root, &options),
        Task::Static => linked::run(&root),
        Task::Tidy => tidy::run(&root),
    };
    match result {
        Ok(code) => code,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// The folder of the workspace: two above this package, wherever the tree was moved to since.
fn tree_root() -> PathBuf {
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    package.ancestors().nth(2).unwrap_or(package).to_path_buf()
}
