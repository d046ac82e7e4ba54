//! `midge-lab request`: a request through HTTP, servers side by side, in rounds that alternate.
//!
//! Each server is pinned to one CPU, the load to another. The figure is the server's CPU time for each
//! verified response; ratios are taken to the yardstick and to nginx of the same round, for the speed of a shared
//! machine moves between rounds.

use std::time::Duration;

use anyhow::Result;
use midge_bench::measure::Spread;
use serde::Serialize;

use crate::cpus::Cpus;
use crate::load::{self, Shape};
use crate::peers::{NGINX, YARDSTICK, start_all};
use crate::servers::Server;

/// Options of `midge-lab request`.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Rounds; servers alternate within a round.
    #[arg(long, default_value_t = 15)]
    rounds: usize,
    /// Seconds of load for each server in a round.
    #[arg(long, default_value_t = 0.4)]
    seconds: f64,
    /// Connections.
    #[arg(long, default_value_t = 64)]
    connections: usize,
    /// Requests under way on a connection that stays, or `close` for a connection for each request.
    #[arg(long, value_name = "SHAPE,SHAPE", value_delimiter = ',', default_value = "1,16,close",
          value_parser = Shape::parse)]
    shapes: Vec<Shape>,
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
    closes: bool,
    cpu_ns_per_request: Spread,
    ratio_to_yardstick: Spread,
    ratio_to_nginx: Option<Spread>,
    requests_per_second: f64,
    generator_busy: f64,
}

#[derive(Debug, Default)]
struct Lane {
    cpu_ns: Vec<f64>,
    to_yardstick: Vec<f64>,
    to_nginx: Vec<f64>,
    rate: Vec<f64>,
    busy: Vec<f64>,
}

/// Runs the comparison.
///
/// # Errors
/// If a server of ours cannot be started.
pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    arguments.cpus.check()?;
    let (servers, left_out) = start_all(arguments.cpus)?;
    arguments.cpus.take_load()?;
    let mut rows = Vec::new();
    for shape in &arguments.shapes {
        rows.extend(compare(arguments, &servers, *shape)?);
    }
    let report = Report { schema: "midge-lab/request/2", rows, left_out };
    if arguments.json { crate::print_json(&report) } else { print_table(&report) }
}

fn compare(arguments: &Arguments, servers: &[Server], shape: Shape) -> Result<Vec<Row>> {
    let duration = Duration::from_secs_f64(arguments.seconds);
    let mut lanes = Vec::with_capacity(servers.len());
    for server in servers {
        let plan = load::shaped(&load::plan(server, arguments.connections)?, shape, duration);
        load::run(server, &load::shaped(&plan, shape, duration / 4))?;
        lanes.push((plan, Lane::default()));
    }
    for _ in 0..arguments.rounds {
        let mut round = Vec::with_capacity(servers.len());
        for (server, (plan, lane)) in servers.iter().zip(&mut lanes) {
            let before = server.cpu_time()?;
            let outcome = load::run(server, plan)?;
            #[expect(clippy::cast_precision_loss, reason = "a quotient for people")]
            let responses = outcome.record.responses as f64;
            let cpu_ns = (server.cpu_time()? - before).as_secs_f64() * 1e9 / responses;
            lane.cpu_ns.push(cpu_ns);
            lane.rate.push(outcome.rate(plan));
            lane.busy.push(outcome.busy);
            round.push(cpu_ns);
        }
        let of = |name: &str| {
            servers.iter().zip(&round).find(|(server, _)| server.name == name).map(|(_, ns)| *ns)
        };
        let (floor, nginx) = (of(YARDSTICK), of(NGINX));
        for ((_, lane), cpu_ns) in lanes.iter_mut().zip(&round) {
            lane.to_yardstick.extend(floor.map(|floor| cpu_ns / floor));
            lane.to_nginx.extend(nginx.map(|nginx| cpu_ns / nginx));
        }
    }
    let rows = servers.iter().zip(lanes).map(|(server, (_, lane))| Row {
        server: server.name,
        connections: arguments.connections,
        pipeline: if let Shape::Kept(depth) = shape { depth } else { 1 },
        closes: shape == Shape::Close,
        cpu_ns_per_request: Spread::of(lane.cpu_ns),
        ratio_to_yardstick: Spread::of(lane.to_yardstick),
        ratio_to_nginx: (!lane.to_nginx.is_empty()).then(|| Spread::of(lane.to_nginx)),
        requests_per_second: Spread::of(lane.rate).median,
        generator_busy: Spread::of(lane.busy).median,
    });
    Ok(rows.collect())
}

#[expect(clippy::print_stdout, reason = "the command's result")]
fn print_table(report: &Report) -> Result<()> {
    println!(
        "{:<22} {:>5} {:>6} {:>8} {:>14} {:>12} {:>12} {:>8} {:>12} {:>9} {:>5}",
        "server",
        "conns",
        "shape",
        "CPU ns",
        "low..high",
        "x yardstick",
        "low..high",
        "x nginx",
        "low..high",
        "req/s",
        "busy"
    );
    let range = |Spread { low, high, .. }: Spread| format!("{low:.2}..{high:.2}");
    for row in &report.rows {
        let Spread { median, low, high, .. } = row.cpu_ns_per_request;
        let shape = if row.closes { "close".to_owned() } else { row.pipeline.to_string() };
        let nginx = row.ratio_to_nginx;
        println!(
            "{:<22} {:>5} {shape:>6} {median:>8.0} {:>14} {:>12.2} {:>12} {:>8} {:>12} {:>9.0} {:>4.0}%",
            row.server,
            row.connections,
            format!("{low:.0}..{high:.0}"),
            row.ratio_to_yardstick.median,
            range(row.ratio_to_yardstick),
            nginx.map_or(String::new(), |spread| format!("{:.2}", spread.median)),
            nginx.map_or(String::new(), range),
            row.requests_per_second,
            row.generator_busy * 100.0,
        );
    }
    for line in &report.left_out {
        println!("left out: {line}");
    }
    Ok(())
}
