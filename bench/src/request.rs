//! `midge-lab request`: a request through HTTP, servers side by side, in rounds that alternate.
//!
//! Each server is pinned to one CPU, the load to another. The figure is the server's CPU time for each
//! verified response; the ratio is taken to the yardstick of the same round, for the speed of a shared
//! machine moves between rounds.

use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};
use midge_bench::guests;
use midge_bench::measure::Spread;
use serde::Serialize;

use crate::cpus::Cpus;
use crate::load::{Load, Plan};
use crate::servers::{NGINX_MISSING, Server, find, free_address};

/// Connections that nginx has room for.
const NGINX_CONNECTIONS: usize = 4096;

/// Options of `midge-lab request`.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Rounds; servers alternate within a round.
    #[arg(long, default_value_t = 7)]
    rounds: usize,
    /// Seconds of load for each server in a round.
    #[arg(long, default_value_t = 1.0)]
    seconds: f64,
    /// Connections.
    #[arg(long, default_value_t = 64)]
    connections: usize,
    /// Requests sent at once on a connection.
    #[arg(long, value_delimiter = ',', default_values_t = [1, 16])]
    pipeline: Vec<usize>,
    /// The CPUs.
    #[command(flatten)]
    cpus: Cpus,
    /// Prints one JSON object.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Serialize)]
struct Report {
    schema: &'static str,
    rows: Vec<Row>,
    left_out: Vec<String>,
}

#[derive(Debug, Serialize)]
struct Row {
    server: &'static str,
    connections: usize,
    pipeline: usize,
    cpu_ns_per_request: Spread,
    ratio_to_yardstick: Ratio,
    requests_per_second: f64,
    errors: u64,
}

#[derive(Debug, Serialize)]
struct Ratio {
    median: f64,
    low: f64,
    high: f64,
}

#[derive(Debug, Default)]
struct Lane {
    cpu_ns: Vec<f64>,
    ratio: Vec<f64>,
    rate: Vec<f64>,
    errors: u64,
}

/// Runs the comparison.
///
/// # Errors
/// If a server of ours cannot be started.
pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    arguments.cpus.check()?;
    let (servers, left_out) = start_all(arguments)?;
    arguments.cpus.take_load()?;
    let mut rows = Vec::new();
    for pipeline in &arguments.pipeline {
        rows.extend(compare(arguments, &servers, *pipeline)?);
    }
    let report = Report { schema: "midge-lab/request/1", rows, left_out };
    if arguments.json { crate::print_json(&report) } else { print_table(&report) }
}

fn compare(arguments: &Arguments, servers: &[Server], pipeline: usize) -> Result<Vec<Row>> {
    let duration = Duration::from_secs_f64(arguments.seconds);
    let mut lanes: Vec<Lane> = servers.iter().map(|_| Lane::default()).collect();
    let plan = |server: &Server| Plan {
        address: server.address,
        target: server.target.to_owned(),
        connections: arguments.connections,
        pipeline,
    };
    for server in servers {
        let plan = plan(server);
        Load::connect(&plan)
            .and_then(|mut load| load.run(&plan, duration / 4))
            .with_context(|| format!("warming {} up", server.name))?;
    }
    for _ in 0..arguments.rounds {
        let mut yardstick = None;
        for (server, lane) in servers.iter().zip(&mut lanes) {
            let plan = plan(server);
            let mut load = Load::connect(&plan)?;
            let before = server.cpu_time()?;
            let tally =
                load.run(&plan, duration).with_context(|| format!("load on {}", server.name))?;
            #[expect(clippy::cast_precision_loss, reason = "a quotient for people")]
            let responses = tally.responses.max(1) as f64;
            let cpu_ns = (server.cpu_time()? - before).as_secs_f64() * 1e9 / responses;
            let floor = *yardstick.get_or_insert(cpu_ns);
            lane.cpu_ns.push(cpu_ns);
            lane.ratio.push(cpu_ns / floor);
            lane.rate.push(responses / arguments.seconds);
            lane.errors += tally.errors;
        }
    }
    let rows = servers.iter().zip(lanes).map(|(server, lane)| {
        let Spread { median, low, high } = Spread::of(lane.ratio);
        Row {
            server: server.name,
            connections: arguments.connections,
            pipeline,
            cpu_ns_per_request: Spread::of(lane.cpu_ns),
            ratio_to_yardstick: Ratio { median, low, high },
            requests_per_second: Spread::of(lane.rate).median,
            errors: lane.errors,
        }
    });
    Ok(rows.collect())
}

fn start_all(arguments: &Arguments) -> Result<(Vec<Server>, Vec<String>)> {
    let cpu = arguments.cpus.servers;
    let mut servers = Vec::new();
    let mut left_out = Vec::new();
    for (name, command) in [("yardstick", "yardstick"), ("midge fixed response", "fixed")] {
        let address = free_address()?;
        let mut own = Command::new(std::env::current_exe()?);
        own.args([command, &address.to_string()]);
        servers.push(Server::start(name, address, "/", cpu, own, tempfile::tempdir()?)?);
    }
    match find("midge") {
        Some(midge) => {
            for (name, technique) in
                [("midge restore", "restore"), ("midge pool", "pool"), ("midge reuse", "reuse")]
            {
                servers.push(start_midge(&midge, name, technique, cpu, "")?);
            }
        }
        None => left_out.push("midge: cargo build --release builds it beside this program".into()),
    }
    match find("nginx") {
        Some(nginx) => servers.push(start_nginx(&nginx, cpu, NGINX_CONNECTIONS)?),
        None => left_out.push(NGINX_MISSING.into()),
    }
    servers.push(start_hyper(cpu)?);
    Ok((servers, left_out))
}

/// Starts midge with one function; `limits` is a part of its settings file.
pub(crate) fn start_midge(
    midge: &std::path::Path,
    name: &'static str,
    technique: &str,
    cpu: usize,
    limits: &str,
) -> Result<Server> {
    let (address, admin) = (free_address()?, free_address()?);
    let folder = tempfile::tempdir()?;
    let guest = folder.path().join("guest.wat");
    std::fs::write(&guest, guests::synthetic(3, 2))?;
    let settings = folder.path().join("midge.toml");
    let text = format!(
        "listen = \"{address}\"\nadmin = \"{admin}\"\nworkers = \"{cpu}-{cpu}\"\n\n[log]\nlevel = \"error\"\n\n{limits}\n\
         [[function]]\nname = \"guest\"\nmodule = \"guest.wat\"\nroute = \"/\"\ntechnique = \"{technique}\"\n"
    );
    std::fs::write(&settings, text)?;
    let mut command = Command::new(midge);
    command.arg("serve").arg(&settings);
    Server::start(name, address, "/", cpu, command, folder)
}

/// Starts hyper with a fixed response.
pub(crate) fn start_hyper(cpu: usize) -> Result<Server> {
    let address = free_address()?;
    let mut own = Command::new(std::env::current_exe()?);
    own.args(["hyper", &address.to_string()]);
    Server::start(
        "hyper, one thread",
        address,
        crate::hyper::TARGET,
        cpu,
        own,
        tempfile::tempdir()?,
    )
}

/// Starts nginx with a fixed response.
pub(crate) fn start_nginx(
    nginx: &std::path::Path,
    cpu: usize,
    connections: usize,
) -> Result<Server> {
    let address = free_address()?;
    let folder = tempfile::tempdir()?;
    let settings = folder.path().join("nginx.conf");
    let text = format!(
        "daemon off; master_process off; pid nginx.pid; error_log stderr crit;\n\
         events {{ worker_connections {connections}; }}\n\
         http {{ access_log off; keepalive_requests 100000000;\n\
         server {{ listen {address} reuseport; location / {{ default_type text/plain; \
         return 200 \"sixteen bytes ok\"; }} }} }}\n"
    );
    std::fs::write(&settings, text)?;
    let mut command = Command::new(nginx);
    command.arg("-p").arg(folder.path()).arg("-c").arg(&settings);
    Server::start("nginx return 200", address, "/", cpu, command, folder)
}

#[expect(clippy::print_stdout, reason = "the command's result")]
fn print_table(report: &Report) -> Result<()> {
    println!(
        "{:<22} {:>5} {:>5} {:>10} {:>16} {:>12} {:>14} {:>10} {:>7}",
        "server",
        "conns",
        "depth",
        "CPU ns",
        "low..high",
        "x yardstick",
        "low..high",
        "req/s",
        "errors"
    );
    for row in &report.rows {
        let Spread { median, low, high } = row.cpu_ns_per_request;
        let ratio = &row.ratio_to_yardstick;
        println!(
            "{:<22} {:>5} {:>5} {:>10.0} {:>16} {:>12.3} {:>14} {:>10.0} {:>7}",
            row.server,
            row.connections,
            row.pipeline,
            median,
            format!("{low:.0}..{high:.0}"),
            ratio.median,
            format!("{:.2}..{:.2}", ratio.low, ratio.high),
            row.requests_per_second,
            row.errors
        );
    }
    for line in &report.left_out {
        println!("left out: {line}");
    }
    Ok(())
}
