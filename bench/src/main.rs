//! `midge-lab`: figures that others can rerun.
#![forbid(unsafe_code)]

mod start; // techniques side by side in one process

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Measures cold starts and requests, midge and its peers side by side.
#[derive(Debug, Parser)]
#[command(name = "midge-lab", version, about)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Compares the start techniques in this process: CPU time of a whole call with a pristine instance.
    Start(start::Arguments),
}

fn main() -> ExitCode {
    let result = match Arguments::parse().command {
        Command::Start(arguments) => start::run(&arguments),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            report(&error);
            ExitCode::FAILURE
        }
    }
}

#[expect(clippy::print_stderr, reason = "the program's one place for errors")]
fn report(error: &anyhow::Error) {
    eprintln!("midge-lab: {error:#}");
}
