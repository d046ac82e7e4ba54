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
use crate::peers::{Comparison, NGINX, Peer, Selection, YARDSTICK, start_all};
use crate::processes::proportional_bytes;

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
    /// What is compared.
    #[command(flatten)]
    selection: Selection,
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
    /// Memory of the server behind the rounds, its part of what processes share.
    pss_mib: Spread,
}

#[derive(Debug, Default)]
struct Lane {
    /// Why there are no more rounds.
    failure: Option<String>,
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
    let (peers, mut left_out) =
        start_all(&arguments.selection, Comparison::Request, arguments.cpus)?;
    arguments.cpus.take_load()?;
    let mut rows = Vec::new();
    for shape in &arguments.shapes {
        rows.extend(compare(arguments, &peers, *shape, &mut left_out)?);
    }
    let report = Report { schema: "midge-lab/request/2", rows, left_out };
    if arguments.json { crate::print_json(&report) } else { print_table(&report) }
}

fn compare(
    arguments: &Arguments,
    peers: &[Peer],
    shape: Shape,
    left_out: &mut Vec<String>,
) -> Result<Vec<Row>> {
    let duration = Duration::from_secs_f64(arguments.seconds);
    let mut lanes: Vec<Lane> = peers.iter().map(|_| Lane::default()).collect();
    let mut plans = Vec::with_capacity(peers.len());
    for (peer, lane) in peers.iter().zip(&mut lanes) {
        plans.push(peer.keep(&mut lane.failure, || {
            let plan = load::plan(&peer.server, arguments.connections)?;
            let plan = load::shaped(&plan, shape, duration);
            load::run(&peer.server, &load::shaped(&plan, shape, duration / 4))?;
            Ok(plan)
        })?);
    }
    for _ in 0..arguments.rounds {
        let mut round = Vec::with_capacity(peers.len());
        for ((peer, lane), plan) in peers.iter().zip(&mut lanes).zip(&plans) {
            let measured = match plan {
                Some(plan) => peer.keep(&mut lane.failure, || {
                    let (outcome, cpu_ns) = load::run_timed(&peer.server, plan)?;
                    Ok((cpu_ns, outcome.rate(plan), outcome.busy))
                })?,
                None => None,
            };
            round.push(measured.map(|(cpu_ns, ..)| cpu_ns));
            if let Some((cpu_ns, rate, busy)) = measured {
                lane.cpu_ns.push(cpu_ns);
                lane.rate.push(rate);
                lane.busy.push(busy);
            }
        }
        let of = |name: &str| {
            let of_name = peers.iter().zip(&round).find(|(peer, _)| peer.server.name == name);
            of_name.and_then(|(_, ns)| *ns)
        };
        let (floor, nginx) = (of(YARDSTICK), of(NGINX));
        for (lane, cpu_ns) in lanes.iter_mut().zip(&round) {
            let over = |base: Option<f64>| cpu_ns.zip(base).map(|(cpu_ns, base)| cpu_ns / base);
            lane.to_yardstick.extend(over(floor));
            lane.to_nginx.extend(over(nginx));
        }
    }
    let mut rows = Vec::with_capacity(peers.len());
    for (peer, lane) in peers.iter().zip(lanes) {
        let server = peer.server.name;
        if let Some(failure) = lane.failure {
            left_out.push(format!("{server}, {}: {failure}", shape.name()));
            continue;
        }
        #[expect(clippy::cast_precision_loss, reason = "a size for people")]
        let pss_mib = proportional_bytes(peer.server.process())? as f64 / f64::from(1 << 20);
        rows.push(Row {
            server,
            connections: arguments.connections,
            pipeline: if let Shape::Kept(depth) = shape { depth } else { 1 },
            closes: shape == Shape::Close,
            cpu_ns_per_request: Spread::of(lane.cpu_ns),
            ratio_to_yardstick: Spread::of(lane.to_yardstick),
            ratio_to_nginx: (!lane.to_nginx.is_empty()).then(|| Spread::of(lane.to_nginx)),
            requests_per_second: Spread::of(lane.rate).median,
            generator_busy: Spread::of(lane.busy).median,
            pss_mib: Spread::of(vec![pss_mib]),
        });
    }
    Ok(rows)
}

fn print_table(report: &Report) -> Result<()> {
    say!(
        "{:<24} {:>5} {:>6} {:>8} {:>16} {:>12} {:>14} {:>8} {:>14} {:>9} {:>5} {:>7}",
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
        "busy",
        "Pss MiB"
    );
    let range = |Spread { low, high, .. }: Spread| format!("{low:.2}..{high:.2}");
    for row in &report.rows {
        let Spread { median, low, high, .. } = row.cpu_ns_per_request;
        let shape = if row.closes { "close".to_owned() } else { row.pipeline.to_string() };
        let nginx = row.ratio_to_nginx;
        say!(
            "{:<24} {:>5} {shape:>6} {median:>8.0} {:>16} {:>12.2} {:>14} {:>8} {:>14} {:>9.0} {:>4.0}% {:>7.1}",
            row.server,
            row.connections,
            format!("{low:.0}..{high:.0}"),
            row.ratio_to_yardstick.median,
            range(row.ratio_to_yardstick),
            nginx.map_or(String::new(), |spread| format!("{:.2}", spread.median)),
            nginx.map_or(String::new(), range),
            row.requests_per_second,
            row.generator_busy * 100.0,
            row.pss_mib.median,
        );
    }
    crate::print_left_out(&report.left_out)
}
