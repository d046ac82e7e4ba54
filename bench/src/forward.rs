//! `midge-lab forward`: functions that ask another server for each request, beside a proxy.
//!
//! Every row passes requests on to one nginx, which answers sixteen bytes and shares the load's CPU. The figure is
//! the forwarding server's CPU time for each verified response; ratios are taken to nginx as a proxy, of the same
//! round.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};
use midge_bench::measure::Spread;
use serde::Serialize;

use crate::cpus::Cpus;
use crate::load::{self, Shape};
use crate::peers::start_nginx;
use crate::servers::{
    NGINX_MISSING, Server, find_midge, find_other, free_address, output_of, serving,
};

/// The component that forwards: the same for every host of components.
const FORWARD: &[u8] = include_bytes!("../../examples/forward/forward.wasm");
/// Room for connections of the proxy, both ways.
const CONNECTIONS: usize = 4096;
/// What ratios are taken to.
const PROXY: &str = "nginx proxy_pass";

/// Options of `midge-lab forward`.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Rounds; servers alternate within a round.
    #[arg(long, default_value_t = 15)]
    rounds: usize,
    /// Seconds of load for each server in a round.
    #[arg(long, default_value_t = 0.4)]
    seconds: f64,
    /// Connections.
    #[arg(long, default_value_t = 32)]
    connections: usize,
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
    connections: usize,
    rows: Vec<Row>,
    left_out: Vec<String>,
}

#[derive(Debug, Serialize)]
struct Row {
    server: &'static str,
    cpu_us_per_request: Spread,
    ratio_to_nginx: Spread,
    requests_per_second: f64,
}

#[derive(Debug, Default)]
struct Lane {
    cpu_us: Vec<f64>,
    to_nginx: Vec<f64>,
    rate: Vec<f64>,
}

/// Runs the comparison.
///
/// # Errors
/// If nginx is missing, or a server does not start or answers wrongly.
pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    arguments.cpus.check()?;
    let nginx = find_other("nginx").context(NGINX_MISSING)?;
    let cpu = arguments.cpus.servers;
    let upstream = start_nginx(&nginx, arguments.cpus.load, CONNECTIONS)?;
    let mut servers = vec![
        start_proxy(&nginx, cpu, upstream.address)?,
        start_midge(&find_midge()?, cpu, upstream.address)?,
    ];
    let mut left_out = Vec::new();
    match find_other("wasmtime").map(|wasmtime| start_wasmtime(&wasmtime, cpu)) {
        Some(Ok(server)) => servers.push(server),
        Some(Err(error)) => left_out.push(format!("wasmtime serve: {error:#}")),
        None => {
            left_out.push("wasmtime: cargo install wasmtime-cli --version ^48 --locked".to_owned())
        }
    }
    arguments.cpus.take_load()?;
    let origin = format!("http://{}", upstream.address);
    let duration = Duration::from_secs_f64(arguments.seconds);
    let mut plans = Vec::with_capacity(servers.len());
    for server in &servers {
        let headers = [format!("x-origin: {origin}")];
        let plan = load::plan_with(server, arguments.connections, &headers)?;
        let plan = load::shaped(&plan, Shape::Kept(1), duration);
        load::run(server, &load::shaped(&plan, Shape::Kept(1), duration / 2))?;
        plans.push(plan);
    }
    let mut lanes: Vec<Lane> = servers.iter().map(|_| Lane::default()).collect();
    for _ in 0..arguments.rounds {
        let mut proxy_us = None;
        for ((server, plan), lane) in servers.iter().zip(&plans).zip(&mut lanes) {
            let (outcome, cpu_ns) = load::run_timed(server, plan)?;
            let cpu_us = cpu_ns / 1000.0;
            let proxy_us = *proxy_us.get_or_insert(cpu_us);
            lane.cpu_us.push(cpu_us);
            lane.to_nginx.push(cpu_us / proxy_us);
            lane.rate.push(outcome.rate(plan));
        }
    }
    let rows = servers.iter().zip(lanes).map(|(server, lane)| Row {
        server: server.name,
        cpu_us_per_request: Spread::of(lane.cpu_us),
        ratio_to_nginx: Spread::of(lane.to_nginx),
        requests_per_second: Spread::of(lane.rate).median,
    });
    let report = Report {
        schema: "midge-lab/forward/1",
        connections: arguments.connections,
        rows: rows.collect(),
        left_out,
    };
    if arguments.json { crate::print_json(&report) } else { print_table(&report) }
}

fn start_proxy(nginx: &Path, cpu: usize, upstream: SocketAddr) -> Result<Server> {
    let (address, folder) = (free_address()?, tempfile::tempdir()?);
    let settings = folder.path().join("nginx.conf");
    let text = format!(
        "daemon off; master_process off; pid nginx.pid; error_log stderr crit;\n\
         events {{ worker_connections {CONNECTIONS}; }}\n\
         http {{ access_log off; keepalive_requests 100000000;\n\
         upstream origin {{ server {upstream}; keepalive 256; keepalive_requests 100000000; }}\n\
         server {{ listen {address} reuseport; location / {{ proxy_pass http://origin/; \
         proxy_http_version 1.1; proxy_set_header Connection \"\"; proxy_buffering on; }} }} }}\n"
    );
    std::fs::write(&settings, text)?;
    let mut command = Command::new(nginx);
    command.arg("-p").arg(folder.path()).arg("-c").arg(&settings);
    Server::start(PROXY, address, "/forward/", cpu, command, folder)
}

fn start_midge(midge: &Path, cpu: usize, upstream: SocketAddr) -> Result<Server> {
    let (address, admin, folder) = (free_address()?, free_address()?, tempfile::tempdir()?);
    std::fs::write(folder.path().join("forward.wasm"), FORWARD)?;
    let functions = format!(
        "[[function]]\nname = \"forward\"\nmodule = \"forward.wasm\"\nroute = \"/*\"\n\
         [function.grant]\nhttp = [\"http://{upstream}\"]\n"
    );
    let command = serving(midge, folder.path(), [address, admin], cpu, &functions)?;
    Server::start("midge, component", address, "/forward/", cpu, command, folder)
}

fn start_wasmtime(wasmtime: &Path, cpu: usize) -> Result<Server> {
    let (address, folder) = (free_address()?, tempfile::tempdir()?);
    let component = folder.path().join("forward.wasm");
    std::fs::write(&component, FORWARD)?;
    let compiled = folder.path().join("forward.cwasm");
    output_of(Command::new(wasmtime).arg("compile").arg(&component).arg("-o").arg(&compiled))?;
    let mut command = Command::new(wasmtime);
    command.args(["serve", "-S", "cli", "--allow-precompiled", "--addr", &address.to_string()]);
    command.arg(&compiled);
    Server::start("wasmtime serve, same component", address, "/forward/", cpu, command, folder)
}

fn print_table(report: &Report) -> Result<()> {
    say!(
        "{:<32} {:>8} {:>14} {:>8} {:>12} {:>9}",
        "server",
        "CPU us",
        "low..high",
        "x nginx",
        "low..high",
        "req/s"
    );
    for row in &report.rows {
        let (cpu, ratio) = (row.cpu_us_per_request, row.ratio_to_nginx);
        say!(
            "{:<32} {:>8.2} {:>14} {:>8.2} {:>12} {:>9.0}",
            row.server,
            cpu.median,
            format!("{:.1}..{:.1}", cpu.low, cpu.high),
            ratio.median,
            format!("{:.2}..{:.2}", ratio.low, ratio.high),
            row.requests_per_second,
        );
    }
    crate::print_left_out(&report.left_out)
}
