//! `midge-lab crowd`: what a good client notices of thousands that never finish their heads (slowloris).
//!
//! Each round measures the good client twice: alone, then beside the crowd, of which each connection has sent
//! half a head and goes on with a byte now and then; or, with `--idle`, has had an answer and stays. The client is a closed loop on one connection; every
//! response is checked.

use std::io::{ErrorKind, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use hdrhistogram::Histogram;
use midge_bench::measure::Spread;
use serde::Serialize;

use crate::answer::Answer;
use crate::cpus::Cpus;
use crate::peers::{start_hyper, start_midge, start_nginx};
use crate::servers::{NGINX_MISSING, Server, find_midge, find_other};

/// Latencies above this count as this.
const LATENCY_NS_MAX: u64 = 60_000_000_000;
/// Bytes of the crowd that are sent between two requests at most, so that the client's pace is its own.
const BYTES_AT_ONCE_MAX: usize = 4;

/// Options of `midge-lab crowd`.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Connections of the crowd.
    #[arg(long, default_value_t = 10_000)]
    connections: usize,
    /// Lets each of them have one request answered and then be silent, in place of half a head.
    #[arg(long)]
    idle: bool,
    /// Seconds in which each of them sends one byte; silent ones send none.
    #[arg(long, default_value_t = 5.0)]
    period: f64,
    /// Rounds; servers alternate within a round.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Seconds of each measurement.
    #[arg(long, default_value_t = 2.0)]
    seconds: f64,
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
    idle: bool,
    rows: Vec<Row>,
    left_out: Vec<String>,
}

#[derive(Debug, Serialize)]
struct Row {
    server: &'static str,
    alone: Latency,
    beside: Latency,
    /// p99 beside the crowd over p99 alone, of the same round.
    p99_ratio: Spread,
    /// Connections of the crowd that were closed meanwhile, in all rounds.
    closed: usize,
    /// Growth of the server's resident memory for each connection of the crowd, in the first round.
    bytes_per_connection: u64,
    /// The server's whole resident memory then, its tables for connections included.
    resident_bytes: u64,
}

#[derive(Debug, Serialize)]
struct Latency {
    p50_us: Spread,
    p99_us: Spread,
}

#[derive(Debug, Default)]
struct Lane {
    alone: [Vec<f64>; 2],
    beside: [Vec<f64>; 2],
    ratio: Vec<f64>,
    closed: usize,
    bytes_per_connection: Option<u64>,
    resident_bytes: u64,
}

/// Runs the comparison.
///
/// # Errors
/// If midge is missing, or a server does not answer as it should.
pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    arguments.cpus.check()?;
    raise_descriptor_limit()?;
    let midge = find_midge()?;
    // nginx closes idle connections once less than a sixteenth is free; none of them shall be short.
    let room = arguments.connections + arguments.connections / 4 + 64;
    let limits = format!("[limits]\nconnections_per_worker = {room}\n");
    let mut servers =
        vec![start_midge(&midge, "midge restore", "restore", arguments.cpus.servers, &limits)?];
    let mut left_out = Vec::new();
    match find_other("nginx") {
        Some(nginx) => servers.push(start_nginx(&nginx, arguments.cpus.servers, room)?),
        None => left_out.push(NGINX_MISSING.into()),
    }
    servers.push(start_hyper(arguments.cpus.servers)?);
    arguments.cpus.take_load()?;
    let mut lanes: Vec<Lane> = servers.iter().map(|_| Lane::default()).collect();
    for _ in 0..arguments.rounds {
        for (server, lane) in servers.iter().zip(&mut lanes) {
            round(arguments, server, lane).with_context(|| format!("measuring {}", server.name))?;
        }
    }
    let rows = servers.iter().zip(lanes).map(|(server, lane)| Row {
        server: server.name,
        alone: latency(lane.alone),
        beside: latency(lane.beside),
        p99_ratio: Spread::of(lane.ratio),
        closed: lane.closed,
        bytes_per_connection: lane.bytes_per_connection.unwrap_or(0),
        resident_bytes: lane.resident_bytes,
    });
    let connections = arguments.connections;
    let rows = rows.collect();
    let idle = arguments.idle;
    let report = Report { schema: "midge-lab/crowd/1", connections, idle, rows, left_out };
    if arguments.json { crate::print_json(&report) } else { print_table(&report) }
}

/// Connections are descriptors, and servers inherit the limit.
fn raise_descriptor_limit() -> Result<()> {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, ..limit };
    setrlimit(Resource::Nofile, raised).context("cannot raise the limit of open files")
}

fn latency([p50_us, p99_us]: [Vec<f64>; 2]) -> Latency {
    Latency { p50_us: Spread::of(p50_us), p99_us: Spread::of(p99_us) }
}

fn round(arguments: &Arguments, server: &Server, lane: &mut Lane) -> Result<()> {
    let mut client = TcpStream::connect(server.address)?;
    client.set_nodelay(true)?;
    client.set_read_timeout(Some(Duration::from_secs(60)))?;
    let _warm = measure(arguments, server, &mut client, None)?;
    let alone = measure(arguments, server, &mut client, None)?;
    let before = server.resident_bytes()?;
    let mut crowd = Crowd::gather(server, arguments)?;
    let beside = measure(arguments, server, &mut client, Some(&mut crowd))?;
    let resident = server.resident_bytes()?;
    let growth = resident.saturating_sub(before);
    if lane.bytes_per_connection.is_none() {
        lane.resident_bytes = resident;
    }
    lane.bytes_per_connection.get_or_insert(growth / arguments.connections.max(1) as u64);
    lane.closed += crowd.closed;
    for (lane, [p50, p99]) in [(&mut lane.alone, alone), (&mut lane.beside, beside)] {
        lane[0].push(p50);
        lane[1].push(p99);
    }
    lane.ratio.push(beside[1] / alone[1]);
    Ok(())
}

/// Measures the good client; returns its p50 and p99 in microseconds.
fn measure(
    arguments: &Arguments,
    server: &Server,
    client: &mut TcpStream,
    mut crowd: Option<&mut Crowd>,
) -> Result<[f64; 2]> {
    let request = format!("GET {} HTTP/1.1\r\nhost: {}\r\n\r\n", server.target, server.address);
    let mut histogram: Histogram<u64> = Histogram::new_with_bounds(1, LATENCY_NS_MAX, 3)?;
    let began = Instant::now();
    let duration = Duration::from_secs_f64(arguments.seconds);
    while began.elapsed() < duration {
        if let Some(crowd) = &mut crowd {
            crowd.go_on(began.elapsed().as_secs_f64() / arguments.period);
        }
        let sent = Instant::now();
        client.write_all(request.as_bytes()).context("the server does not read")?;
        receive(client)?;
        let ns = u64::try_from(sent.elapsed().as_nanos()).unwrap_or(LATENCY_NS_MAX);
        histogram.saturating_record(ns);
    }
    #[expect(clippy::cast_precision_loss, reason = "figures for people")]
    Ok([0.5, 0.99].map(|quantile| histogram.value_at_quantile(quantile) as f64 / 1000.0))
}

/// Reads one response, which must be right.
fn receive(client: &TcpStream) -> Result<()> {
    Answer::read(client).context("the server does not answer the good client")?.check()
}

/// Connections that send heads and never finish them.
struct Crowd {
    is_idle: bool,
    streams: Vec<TcpStream>,
    next: usize,
    sent: usize,
    closed: usize,
}

impl Crowd {
    fn gather(server: &Server, arguments: &Arguments) -> Result<Self> {
        let mut streams = Vec::with_capacity(arguments.connections);
        for _ in 0..arguments.connections {
            let mut stream = TcpStream::connect(server.address)
                .context("cannot connect the crowd: raise `ulimit -n`, or lower --connections")?;
            let half = format!("GET {} HTTP/1.1\r\nhost: x\r\nx-slow: ", server.target);
            stream.write_all(half.as_bytes())?;
            if arguments.idle {
                stream.write_all(b"no\r\n\r\n")?;
                receive(&stream).context("the first answer to one of the crowd")?;
            }
            stream.set_nonblocking(true)?;
            streams.push(stream);
        }
        Ok(Self { is_idle: arguments.idle, streams, next: 0, sent: 0, closed: 0 })
    }

    /// Sends what is due of `rounds` bytes from each.
    fn go_on(&mut self, rounds: f64) {
        if self.is_idle {
            return;
        }
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            clippy::cast_precision_loss,
            reason = "a count of bytes, far below 2^53"
        )]
        let due = (rounds * self.streams.len() as f64) as usize;
        for _ in 0..due.saturating_sub(self.sent).min(BYTES_AT_ONCE_MAX) {
            self.sent += 1;
            let index = self.next % self.streams.len();
            self.next += 1;
            match self.streams[index].write(b"x") {
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(_) => {
                    self.closed += 1;
                    self.streams.swap_remove(index);
                    if self.streams.is_empty() {
                        return;
                    }
                }
            }
        }
    }
}

#[expect(clippy::cast_precision_loss, reason = "a figure for people")]
fn mib(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

fn print_table(report: &Report) -> Result<()> {
    let what = if report.idle { "are silent after one request" } else { "never finish a head" };
    say!("one client, alone and beside {} that {what}", report.connections);
    say!(
        "{:<18} {:>9} {:>9} {:>9} {:>9} {:>9} {:>12} {:>8} {:>10} {:>8}",
        "server",
        "p50 us",
        "p99 us",
        "p50 us +",
        "p99 us +",
        "x p99",
        "low..high",
        "closed",
        "bytes each",
        "MiB"
    );
    for row in &report.rows {
        let Spread { median, low, high, .. } = row.p99_ratio;
        say!(
            "{:<18} {:>9.1} {:>9.1} {:>9.1} {:>9.1} {:>9.2} {:>12} {:>8} {:>10} {:>8.1}",
            row.server,
            row.alone.p50_us.median,
            row.alone.p99_us.median,
            row.beside.p50_us.median,
            row.beside.p99_us.median,
            median,
            format!("{low:.2}..{high:.2}"),
            row.closed,
            row.bytes_per_connection,
            mib(row.resident_bytes)
        );
    }
    crate::print_left_out(&report.left_out)
}
