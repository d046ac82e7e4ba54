//! `midge-lab`: figures that others can rerun.
#![forbid(unsafe_code)]

/// Prints a line of a result; the function returns an error that is none of a reader's that has seen enough.
macro_rules! say {
    ($($text:tt)*) => { midge_load::output::line(format_args!($($text)*))? };
}

mod all; // every comparison, and the page of them
mod answer; // one response off a socket that waits
mod balance; // connections over workers
mod boot; // from the start of a process to its first response
mod compare; // two reports
mod cpus; // one for servers, one for clients
mod crowd; // a good client beside thousands of slow ones
mod fixed; // the network layer with a fixed response
mod density; // instances until a limit stops them
mod functions; // many functions, called as a cloud's are
mod hyper; // a peer made of hyper
mod image; // machines that run nothing else
mod import; // results of other generators
mod instructions; // what requests take, against a baseline
mod html; // reports as one page
mod lambda; // a peer by the runtime interface of AWS Lambda
mod load; // servers under midge-load's client
mod on_connection; // a program that begins with a connection
mod machine; // what a figure was taken on
mod peers; // the servers that are compared
mod processes; // CPU time and memory of a process and its children
mod request; // servers side by side through HTTP
mod restore; // dirty pages, cold slots, threads at once
mod servers; // servers as child processes
mod forward; // functions that ask another server
mod stream; // large bodies
mod tail; // latencies under an open loop
mod start; // techniques side by side in one process
mod ways; // plain Linux: pristine memory and pristine processes
mod yardstick; // a server that does nothing

use std::net::SocketAddr;
use std::path::PathBuf;
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
    /// Runs every comparison, and writes one page of them.
    All(all::Arguments),
    /// Compares the start techniques in this process: CPU time of a whole call with a pristine instance.
    Start(start::Arguments),
    /// Tells what `restore` costs over dirty pages and resting slots, and starts on all CPUs at once.
    Restore(restore::Arguments),
    /// Tells what a request costs where a host has many functions, called as a cloud's are.
    Functions(functions::Arguments),
    /// Starts instances until a limit stops them, and tells which, and what each of them takes.
    Density(density::Arguments),
    /// Compares what plain Linux has to make memory, or a process, pristine: without an engine.
    Ways(ways::Arguments),
    /// Compares servers through HTTP: CPU time of each request, beside a server that does nothing.
    Request(request::Arguments),
    /// Compares cold starts of whole systems: from the start of a process to its first response.
    Boot(boot::Arguments),
    /// Compares machines of `midge image` by their kernels: from the start of QEMU to the first response.
    Image(image::Arguments),
    /// Tells what a good client notices of thousands that never finish their heads.
    Crowd(crowd::Arguments),
    /// Compares servers by their latencies under an open loop, beside the server that does nothing.
    Tail(tail::Arguments),
    /// Compares servers by large bodies: files, functions that write them, and one that passes them on.
    Stream(stream::Arguments),
    /// Compares functions that ask another server for each request with a proxy.
    Forward(forward::Arguments),
    /// Tells how evenly two workers share a few kept connections.
    Balance(balance::Arguments),
    /// Compares two reports of the same command, and tells differences from noise.
    Compare(compare::Arguments),
    /// Reads results of wrk, h2load, oha and `midge load`.
    Import(import::Arguments),
    /// Makes one page of several reports, that opens from disk.
    Report(html::Arguments),
    /// Counts instructions of what runs for each request, and fails if they have grown beyond the baseline.
    Check(instructions::Arguments),
    /// Repeats a bench of `check`.
    #[command(hide = true)]
    Count {
        /// Its name.
        name: String,
        /// How often.
        repetitions: u32,
    },
    /// Holds instances and prints the memory that each of them adds.
    #[command(hide = true)]
    Hold {
        /// The technique.
        technique: String,
        /// The module.
        guest: PathBuf,
    },
    /// Starts instances until a limit stops them: a row of `density`.
    #[command(hide = true)]
    Pack(density::PackArguments),
    /// Calls a guest so often, and ends.
    #[command(hide = true)]
    Call {
        /// The technique.
        technique: String,
        /// The module.
        guest: PathBuf,
        /// How often.
        count: u32,
    },
    /// Maps an image, writes to some pages, and ends: a cycle of the ways that start a process.
    #[command(hide = true)]
    WaysChild {
        /// Pages of the image.
        image_pages: usize,
        /// How many of them are written.
        count: usize,
    },
    /// Becomes a program with the first connection as its input and output.
    #[command(hide = true)]
    OnConnection {
        /// Where to listen.
        address: SocketAddr,
        /// The program and its arguments.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true, required = true)]
        words: Vec<std::ffi::OsString>,
    },
    /// Serves as the yardstick: finds blank lines and sends a constant.
    #[command(hide = true)]
    Yardstick {
        /// Where to listen.
        address: SocketAddr,
    },
    /// Serves a fixed response by hyper.
    #[command(hide = true)]
    Hyper {
        /// Where to listen.
        address: SocketAddr,
    },
    /// Serves by a program that asks for requests.
    #[command(hide = true)]
    Lambda {
        /// Where to listen.
        address: SocketAddr,
    },
    /// Asks for requests and answers them.
    #[command(hide = true)]
    LambdaProgram {
        /// Where requests are offered.
        api: SocketAddr,
    },
    /// Serves a fixed response by midge's network layer alone.
    #[command(hide = true)]
    Fixed {
        /// Where to listen.
        address: SocketAddr,
    },
}

impl Command {
    /// Tells whether what it prints depends on the machine.
    fn is_measured(&self) -> bool {
        matches!(
            self,
            Self::Start(_)
                | Self::Restore(_)
                | Self::Functions(_)
                | Self::Density(_)
                | Self::Ways(_)
                | Self::Request(_)
                | Self::Boot(_)
                | Self::Image(_)
                | Self::Tail(_)
                | Self::Crowd(_)
                | Self::Stream(_)
                | Self::Forward(_)
        )
    }
}

fn main() -> ExitCode {
    let command = Arguments::parse().command;
    if command.is_measured() {
        machine::begin();
    }
    let result = match command {
        Command::All(arguments) => all::run(&arguments),
        Command::Start(arguments) => start::run(&arguments),
        Command::Restore(arguments) => restore::run(&arguments),
        Command::Functions(arguments) => functions::run(&arguments),
        Command::Density(arguments) => density::run(&arguments),
        Command::Pack(arguments) => density::pack(&arguments),
        Command::Ways(arguments) => ways::run(&arguments),
        Command::Import(arguments) => import::run(&arguments),
        Command::Report(arguments) => html::run(&arguments),
        Command::Compare(arguments) => compare::run(&arguments),
        Command::Check(arguments) => instructions::run(&arguments),
        Command::Hold { technique, guest } => start::hold(&technique, &guest),
        Command::Call { technique, guest, count } => start::call(&technique, &guest, count),
        Command::Count { name, repetitions } => instructions::count(&name, repetitions),
        Command::WaysChild { image_pages, count } => {
            midge_ways::write_and_exit(image_pages, count).map_err(Into::into)
        }
        Command::Request(arguments) => request::run(&arguments),
        Command::Boot(arguments) => boot::run(&arguments),
        Command::Image(arguments) => image::run(&arguments),
        Command::Crowd(arguments) => crowd::run(&arguments),
        Command::Tail(arguments) => tail::run(&arguments),
        Command::Stream(arguments) => stream::run(&arguments),
        Command::Forward(arguments) => forward::run(&arguments),
        Command::Balance(arguments) => balance::run(&arguments),
        Command::OnConnection { address, words } => on_connection::run(address, &words),
        Command::Yardstick { address } => yardstick::serve(address),
        Command::Fixed { address } => fixed::serve(address),
        Command::Hyper { address } => hyper::serve(address),
        Command::Lambda { address } => lambda::serve(address),
        Command::LambdaProgram { api } => lambda::program::run(api),
    };
    match result {
        Ok(()) => {
            machine::tell();
            ExitCode::SUCCESS
        }
        Err(error) => {
            report(&error);
            ExitCode::FAILURE
        }
    }
}

/// Says below a table what it does not have, with the reasons.
fn print_left_out(left_out: &[String]) -> anyhow::Result<()> {
    for line in left_out {
        say!("left out: {line}");
    }
    Ok(())
}

/// Prints a report as one JSON object.
fn print_json(report: &impl serde::Serialize) -> anyhow::Result<()> {
    let mut report = serde_json::to_value(report)?;
    if let Some(fields) = report.as_object_mut() {
        fields.insert("machine".into(), serde_json::to_value(machine::end())?);
    }
    say!("{}", serde_json::to_string_pretty(&report)?);
    Ok(())
}

#[expect(clippy::print_stderr, reason = "the program's one place for errors")]
fn report(error: &anyhow::Error) {
    eprintln!("midge-lab: {error:#}");
}
