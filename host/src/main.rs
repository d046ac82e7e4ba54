//! The program `midge`: reads the command line, runs the command, turns an error into text once. As the first
//! process of a machine there is no command: then it runs the machine.
#![forbid(unsafe_code)]

use std::{env, io, process::ExitCode};

use clap::ArgMatches;
use midge_host::{
    boot,
    cli::{Cli, Command, External},
    commands, compile,
    output::{self, Failure},
};

/// Exit status of wrong usage.
const USAGE: u8 = 2;

fn main() -> ExitCode {
    if boot::is_first() {
        boot::run();
    }
    let (cli, matches) = match Cli::read(env::args_os()) {
        Ok(read) => read,
        Err(refused) => {
            // Help goes to stdout, whose reader may have left; nobody else could be told.
            drop(refused.print());
            return ExitCode::from(u8::try_from(refused.exit_code()).unwrap_or(USAGE));
        }
    };
    run(cli.command, &matches).unwrap_or_else(|error| report(&error))
}

fn run(command: Command, matches: &ArgMatches) -> anyhow::Result<ExitCode> {
    match command {
        Command::Demo(args) => commands::demo::run(&args, matches),
        Command::New(args) => commands::new::run(&args),
        Command::Dev(args) => commands::dev::run(&args, matches),
        Command::Run(args) => commands::serve::run_one(&args, matches),
        Command::Serve(args) => commands::serve::run(&args, matches),
        Command::Build(args) => commands::build::run(&args),
        Command::Inspect(args) => commands::inspect::run(&args),
        Command::Invoke(args) => commands::invoke::run(&args),
        Command::Prove(args) => commands::prove::run(&args),
        Command::Check(args) => commands::check::run(&args, matches),
        Command::Doctor(args) => commands::doctor::run(&args),
        Command::Image(args) => commands::image::run(&args),
        Command::CompileChild(args) => compile::child(&args),
        Command::External(words) => match External::find(&words)?.become_it()? {},
    }
}

fn report(error: &anyhow::Error) -> ExitCode {
    let mut causes = error.chain().filter_map(|cause| cause.downcast_ref::<io::Error>());
    if causes.any(|cause| cause.kind() == io::ErrorKind::BrokenPipe) {
        return ExitCode::SUCCESS; // The reader has seen enough.
    }
    output::complain(&output::error_text(error));
    match error.downcast_ref::<Failure>() {
        Some(failure) if failure.is_usage => ExitCode::from(USAGE),
        _ => ExitCode::FAILURE,
    }
}
