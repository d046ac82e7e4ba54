//! `midge-lab balance`: how evenly two workers share a few kept connections, by the kernel's hash alone and with
//! messages between their rings.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use midge_bench::guests;
use midge_bench::measure::Spread;
use serde::Serialize;

use crate::servers::{Server, find_midge, free_address};

/// How long the workers may take to count their connections.
const COUNT_MAX: Duration = Duration::from_secs(5);
/// Ways to the kernel: with messages between rings, and without.
const WAYS: [(&str, &str); 2] = [("hash and messages", "a"), ("hash alone", "b")];

/// Options of `midge-lab balance`.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Connections.
    #[arg(long, value_delimiter = ',', default_values_t = [4, 8, 16, 64])]
    connections: Vec<usize>,
    /// Starts of midge for each number of connections.
    #[arg(long, default_value_t = 12)]
    starts: usize,
    /// CPUs of the workers.
    #[arg(long, default_value = "0-1")]
    workers: String,
    /// Prints one JSON object.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Serialize)]
struct Report {
    schema: &'static str,
    rows: Vec<Row>,
}

#[derive(Debug, Serialize)]
struct Row {
    way: &'static str,
    ring_tier: &'static str,
    connections: usize,
    /// Share of the connections that the fullest worker holds.
    fullest: Spread,
}

/// Runs the comparison.
///
/// # Errors
/// If midge is missing, cannot have two workers, or does not answer.
pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let midge = find_midge()?;
    let mut rows = Vec::new();
    for &connections in &arguments.connections {
        for (way, tier) in WAYS {
            let shares: Result<Vec<f64>> = (0..arguments.starts)
                .map(|_| share(&midge, arguments, tier, connections))
                .collect();
            let fullest = Spread::of(shares.with_context(|| format!("ring tier {tier}"))?);
            rows.push(Row { way, ring_tier: tier, connections, fullest });
        }
    }
    let report = Report { schema: "midge-lab/balance/1", rows };
    if arguments.json { crate::print_json(&report) } else { print_table(&report) }
}

/// Returns the share of connections that the fullest worker of a fresh midge holds.
fn share(midge: &Path, arguments: &Arguments, tier: &str, connections: usize) -> Result<f64> {
    let (address, admin) = (free_address()?, free_address()?);
    let folder = tempfile::tempdir()?;
    std::fs::write(folder.path().join("guest.wat"), guests::synthetic(3, 2))?;
    let mut command = Command::new(midge);
    command.arg("run").arg(folder.path().join("guest.wat"));
    command.args(["--listen", &address.to_string(), "--admin", &admin.to_string()]);
    command.args(["--workers", &arguments.workers, "--ring-tier", tier, "--log-level", "error"]);
    let server = Server::start_anywhere("midge", address, "/", command, folder)?;
    // What looked whether it accepts has gone.
    settled(admin, 0)?;
    let mut held = Vec::new();
    for _ in 0..connections {
        let mut stream = TcpStream::connect(address)?;
        stream.set_read_timeout(Some(COUNT_MAX))?;
        stream.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")?;
        let size = stream.read(&mut [0; 1024])?;
        anyhow::ensure!(size > 0, "midge closed a connection");
        held.push(stream);
    }
    let counts = settled(admin, connections as u64)?;
    anyhow::ensure!(counts.len() > 1, "one worker has nobody to share with: --workers 0-1");
    drop((held, server));
    #[expect(clippy::cast_precision_loss, reason = "a quotient for people")]
    let share = counts.into_iter().max().unwrap_or(0) as f64 / connections as f64;
    Ok(share)
}

/// Waits until the workers have so many connections in all; returns how many each has.
fn settled(admin: SocketAddr, wanted: u64) -> Result<Vec<u64>> {
    let until = Instant::now() + COUNT_MAX;
    loop {
        // The address of its figures may listen a moment later than the one it serves on.
        match counts(admin) {
            Ok(counts) if counts.iter().sum::<u64>() == wanted => return Ok(counts),
            Err(error) if Instant::now() >= until => return Err(error),
            Ok(counts) if Instant::now() >= until => {
                anyhow::bail!("the workers count {counts:?}, not {wanted}")
            }
            _ => {}
        }
        std::thread::park_timeout(Duration::from_millis(5));
    }
}

fn counts(admin: SocketAddr) -> Result<Vec<u64>> {
    let mut stream = TcpStream::connect(admin)?;
    stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    let lines = text.lines().filter_map(|line| line.strip_prefix("midge_connections{"));
    let numbers = lines.map(|line| line.rsplit(' ').next().unwrap_or_default().parse::<u64>());
    Ok(numbers.collect::<Result<_, _>>()?)
}

fn print_table(report: &Report) -> Result<()> {
    say!("share of the connections that the fullest worker holds");
    say!(
        "{:<18} {:>5} {:>12} {:>8} {:>8} {:>8}",
        "",
        "tier",
        "connections",
        "median",
        "least",
        "most"
    );
    for Row { way, ring_tier, connections, fullest } in &report.rows {
        let percent = |share: f64| format!("{:.0} %", share * 100.0);
        say!(
            "{way:<18} {ring_tier:>5} {connections:>12} {:>8} {:>8} {:>8}",
            percent(fullest.median),
            percent(fullest.low),
            percent(fullest.high)
        );
    }
    Ok(())
}
