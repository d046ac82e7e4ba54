//! `midge-lab tail`: latencies under an open loop, servers side by side at one rate.
//!
//! The rate is a share of what the slowest of them reaches in a closed loop, so that none is near its own limit
//! and all have the same to do. Requests are due at random times; latency counts from when they were due. The
//! generator spins on its own CPU, and its lag stands beside the figures.

use std::time::Duration;

use anyhow::{Result, ensure};
use midge_bench::measure::Spread;
use midge_load::plan::{Pace, Plan};
use midge_load::schedule::{Piece, Spacing};
use serde::Serialize;

use crate::cpus::Cpus;
use crate::load::{self, Shape};
use crate::peers::{Comparison, Peer, Selection, YARDSTICK, start_all};
use crate::servers::Server;

/// The quantiles that are compared.
const QUANTILES: [(&str, f64); 3] = [("p50", 0.5), ("p99", 0.99), ("p99.9", 0.999)];

/// Options of `midge-lab tail`.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Rounds; servers alternate within a round.
    #[arg(long, default_value_t = 15)]
    rounds: usize,
    /// Seconds of load for each server in a round.
    #[arg(long, default_value_t = 1.0)]
    seconds: f64,
    /// Connections.
    #[arg(long, default_value_t = 64)]
    connections: usize,
    /// Requests per second, in place of a share of what the slowest reaches.
    #[arg(long)]
    rate: Option<f64>,
    /// That share.
    #[arg(long, default_value_t = 0.5)]
    share: f64,
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
    connections: usize,
    rate: f64,
    rows: Vec<Row>,
    left_out: Vec<String>,
}

#[derive(Debug, Serialize)]
struct Row {
    server: &'static str,
    /// What it reached in a closed loop before.
    closed_loop_rate: f64,
    p50_us: Spread,
    p99_us: Spread,
    p999_us: Spread,
    /// Over the yardstick of the same round.
    p99_ratio: Spread,
    p999_ratio: Spread,
    /// The generator's own, at p99.
    lag_us: Spread,
    /// Rounds in which the generator was the limit.
    refused: usize,
}

#[derive(Debug)]
struct Lane {
    peer: Peer,
    plan: Plan,
    capacity: f64,
    us: [Vec<f64>; QUANTILES.len()],
    ratios: [Vec<f64>; QUANTILES.len()],
    lag_us: Vec<f64>,
    refused: usize,
    /// Why there are no more rounds.
    failure: Option<String>,
}

impl Lane {
    fn new(peer: Peer, plan: Plan, capacity: f64) -> Self {
        let (us, ratios) = Default::default();
        Self { peer, plan, capacity, us, ratios, lag_us: Vec::new(), refused: 0, failure: None }
    }
}

/// Says why a server has no row.
fn told(peer: &Peer, failure: Option<String>) -> Option<String> {
    failure.map(|failure| format!("{}: {failure}", peer.server.name))
}

/// Runs the comparison.
///
/// # Errors
/// If a server of ours cannot be started, or one answers wrongly.
pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    arguments.cpus.check()?;
    ensure!((0.01..1.0).contains(&arguments.share), "--share: above 0 and below 1");
    let (peers, mut left_out) = start_all(&arguments.selection, Comparison::Tail, arguments.cpus)?;
    arguments.cpus.take_load()?;
    let mut lanes = Vec::with_capacity(peers.len());
    for peer in peers {
        let mut failure = None;
        let closed = peer.keep(&mut failure, || {
            let plan = load::plan(&peer.server, arguments.connections)?;
            let closed = load::shaped(&plan, Shape::Kept(1), Duration::from_secs(1));
            let capacity = load::run(&peer.server, &closed)?.rate(&closed);
            Ok((plan, capacity))
        })?;
        match closed {
            Some((plan, capacity)) => lanes.push(Lane::new(peer, plan, capacity)),
            None => left_out.extend(told(&peer, failure)),
        }
    }
    let slowest = lanes.iter().map(|lane| lane.capacity).fold(f64::MAX, f64::min);
    let rate = arguments.rate.unwrap_or(slowest * arguments.share);
    for round in 0..arguments.rounds {
        let mut floor = None;
        for lane in &mut lanes {
            let plan = open(&lane.plan, rate, arguments.seconds, round as u64);
            let mut failure = lane.failure.take();
            let measured = lane.peer.keep(&mut failure, || measure(&lane.peer.server, &plan))?;
            lane.failure = failure;
            let Some(measured) = measured else { continue };
            lane.lag_us.push(measured.lag_us);
            lane.refused += usize::from(measured.is_refused);
            if lane.peer.server.name == YARDSTICK {
                floor = Some(measured.us);
            }
            let floor = floor.unwrap_or(measured.us);
            for (index, (us, floor)) in measured.us.into_iter().zip(floor).enumerate() {
                lane.us[index].push(us);
                lane.ratios[index].push(us / floor);
            }
        }
    }
    let mut rows = Vec::with_capacity(lanes.len());
    for lane in lanes {
        if lane.failure.is_some() {
            left_out.extend(told(&lane.peer, lane.failure));
            continue;
        }
        let [p50, p99, p999] = lane.us.map(Spread::of);
        let [_, p99_ratio, p999_ratio] = lane.ratios.map(Spread::of);
        rows.push(Row {
            server: lane.peer.server.name,
            closed_loop_rate: lane.capacity,
            p50_us: p50,
            p99_us: p99,
            p999_us: p999,
            p99_ratio,
            p999_ratio,
            lag_us: Spread::of(lane.lag_us),
            refused: lane.refused,
        });
    }
    let connections = arguments.connections;
    let report = Report { schema: "midge-lab/tail/1", connections, rate, rows, left_out };
    if arguments.json { crate::print_json(&report) } else { print_table(&report) }
}

fn open(plan: &Plan, rate: f64, seconds: f64, seed: u64) -> Plan {
    let pieces = vec![Piece::level(seconds, rate)];
    Plan {
        pace: Pace::Open { pieces, spacing: Spacing::Poisson },
        warmup: Duration::from_secs_f64(seconds / 8.0),
        duration: Duration::from_secs_f64(seconds),
        spins: true,
        // The same times for each server of a round.
        seed,
        ..plan.clone()
    }
}

struct Measured {
    us: [f64; QUANTILES.len()],
    lag_us: f64,
    is_refused: bool,
}

fn measure(server: &Server, plan: &Plan) -> Result<Measured> {
    let outcome = load::run(server, plan)?;
    let record = &outcome.record;
    ensure!(record.unsent == 0, "{} did not keep up: lower --share or --rate", server.name);
    #[expect(clippy::cast_precision_loss, reason = "figures for people")]
    let us = |ns: u64| ns as f64 / 1000.0;
    Ok(Measured {
        us: QUANTILES.map(|(_, at)| us(record.latency.value_at_quantile(at))),
        lag_us: us(record.lag.value_at_quantile(0.99)),
        is_refused: outcome.limit.is_some(),
    })
}

fn print_table(report: &Report) -> Result<()> {
    say!(
        "open loop, {:.0} requests a second at random times, {} connections",
        report.rate,
        report.connections
    );
    say!(
        "{:<24} {:>9} {:>8} {:>8} {:>9} {:>7} {:>12} {:>8} {:>12} {:>7} {:>8}",
        "server",
        "closed/s",
        "p50 us",
        "p99 us",
        "p99.9 us",
        "x p99",
        "low..high",
        "x p99.9",
        "low..high",
        "lag us",
        "refused"
    );
    let range = |Spread { low, high, .. }: Spread| format!("{low:.2}..{high:.2}");
    for row in &report.rows {
        say!(
            "{:<24} {:>9.0} {:>8.1} {:>8.1} {:>9.1} {:>7.2} {:>12} {:>8.2} {:>12} {:>7.1} {:>8}",
            row.server,
            row.closed_loop_rate,
            row.p50_us.median,
            row.p99_us.median,
            row.p999_us.median,
            row.p99_ratio.median,
            range(row.p99_ratio),
            row.p999_ratio.median,
            range(row.p999_ratio),
            row.lag_us.median,
            row.refused,
        );
    }
    crate::print_left_out(&report.left_out)
}
