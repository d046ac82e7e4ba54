//! `midge-lab functions`: what a request costs where a host has many functions, of which a few get nearly all calls.
//!
//! For each number of functions there is a host of its own, all on one CPU; functions share one module, so what grows is
//! what each function has to itself: its route, its counters, its slots. Rounds alternate. In a round each host is asked
//! as fast as it answers, each function as often as a cloud's are; ratios are taken to the host of fewest functions, in
//! the same round. Then every function is called once, and once more, in turn: the worst that can happen to caches and to
//! slots. What a request found, a slot or none, the host's own counters say.

use std::fmt::Write;
use std::io::Read;
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use midge_abi::manifest::Isolation;
use midge_bench::guests;
use midge_bench::measure::Spread;
use midge_load::plan::{Choice, Pace, Plan, Request};
use midge_load::trace::{Call, Shape, Work};
use serde::Serialize;

use crate::cpus::Cpus;
use crate::load;
use crate::processes::proportional_bytes;
use crate::servers::{Server, find_midge, free_address, serving};

/// Functions that a settings file may hold.
const FUNCTIONS_MAX: usize = 100_000;

/// How long calling every function once may take.
const SWEEP_MAX: Duration = Duration::from_secs(300);

/// Options of `midge-lab functions`.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Numbers of functions; ratios are taken to the first.
    #[arg(long, value_delimiter = ',', default_values_t = [1, 100, 10_000, 100_000])]
    functions: Vec<usize>,
    /// How often each is called: as those of azure-2019, azure-2021, huawei-2023 or huawei-2025.
    #[arg(long, default_value = "azure-2019", value_parser = shape)]
    shape: Shape,
    /// Pages of 4 KiB that a call writes to.
    #[arg(long, default_value_t = 3)]
    pages: u32,
    /// What keeps a function inside its memory: guard-pages or bounds-checked, of whose slots more fit.
    #[arg(long, default_value = "guard-pages", value_parser = isolation)]
    isolation: Isolation,
    /// Rounds; hosts alternate within a round.
    #[arg(long, default_value_t = 9)]
    rounds: usize,
    /// Seconds of load on each host in a round.
    #[arg(long, default_value_t = 0.5)]
    seconds: f64,
    /// Connections.
    #[arg(long, default_value_t = 64)]
    connections: usize,
    /// The CPUs.
    #[command(flatten)]
    cpus: Cpus,
    /// Prints one JSON object.
    #[arg(long)]
    json: bool,
}

fn shape(name: &str) -> Result<Shape> {
    let names = || Shape::ALL.map(Shape::name).join(", ");
    Shape::from_name(name).with_context(|| format!("one of {}", names()))
}

fn isolation(name: &str) -> Result<Isolation> {
    Isolation::from_name(name).context("guard-pages or bounds-checked")
}

#[derive(Debug, Serialize)]
struct Report {
    schema: &'static str,
    shape: &'static str,
    isolation: &'static str,
    dirty_pages: u32,
    connections: usize,
    rows: Vec<Row>,
    left_out: Vec<String>,
}

#[derive(Debug, Serialize)]
struct Row {
    functions: usize,
    /// From the start of the process until it accepts.
    start_seconds: Spread,
    /// The first round: no slot is there.
    first_cpu_ns: Spread,
    cpu_ns_per_request: Spread,
    /// Over that of the fewest functions, in the same round.
    ratio: Spread,
    requests_per_second: Spread,
    rate_ratio: Spread,
    p99_us: Spread,
    /// Share of all requests of the rounds that found a slot.
    found_share: Spread,
    generator_busy: Spread,
    /// All functions called once in turn, the second time.
    in_turn: InTurn,
    /// Memory of the host before the first request, and behind everything else, its part of what processes share.
    pss_mib_idle: Spread,
    pss_mib_used: Spread,
    /// What each function beyond those of the first row adds to the first of these.
    kib_per_function: Option<Spread>,
    /// What each slot that is kept adds to it.
    kib_per_slot: Spread,
    /// Slots that are kept at the end.
    slots_kept: Spread,
}

#[derive(Debug, Serialize)]
struct InTurn {
    cpu_ns_per_request: Spread,
    found_share: Spread,
}

/// One number of functions.
struct Lane {
    functions: usize,
    server: Server,
    admin: SocketAddr,
    start: Duration,
    pss_idle: u64,
    plan: Plan,
    cpu_ns: Vec<f64>,
    ratio: Vec<f64>,
    rate: Vec<f64>,
    rate_ratio: Vec<f64>,
    p99_us: Vec<f64>,
    busy: Vec<f64>,
}

/// Starts by what they found, as a host counts them.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
struct Starts {
    anew: f64,
    found: f64,
    discarded: f64,
}

impl Starts {
    fn read(metrics: &str) -> Self {
        let sum = |name: &str, label: &str| -> f64 {
            let lines =
                metrics.lines().filter(|line| line.starts_with(name) && line.contains(label));
            lines.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
        };
        let starts = |tier: &str| sum("midge_function_starts_total{", &format!("tier=\"{tier}\""));
        Self {
            anew: starts("T1") + starts("T2"),
            found: starts("T3"),
            discarded: sum("midge_function_discards_total{", ""),
        }
    }

    /// Returns the share of those since `before` that found a slot.
    fn found_share(self, before: Self) -> f64 {
        let (found, anew) = (self.found - before.found, self.anew - before.anew);
        found / (found + anew).max(1.0)
    }
}

/// Runs the comparison.
///
/// # Errors
/// If midge is missing, or a host does not answer as it should.
pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    arguments.cpus.check()?;
    ensure!(!arguments.functions.is_empty(), "--functions: a number at least");
    for functions in &arguments.functions {
        ensure!((1..=FUNCTIONS_MAX).contains(functions), "--functions: 1 to {FUNCTIONS_MAX}");
    }
    ensure!(
        (1..=guests::DIRTY_PAGES_MAX).contains(&arguments.pages),
        "--pages: 1 to {}",
        guests::DIRTY_PAGES_MAX
    );
    let midge = find_midge()?;
    let module = tempfile::tempdir()?;
    build(arguments, &midge, module.path())?;
    let (mut lanes, mut left_out) = (Vec::new(), Vec::new());
    for functions in &arguments.functions {
        match Lane::start(arguments, &midge, module.path(), *functions) {
            Ok(lane) => lanes.push(lane),
            Err(error) if lanes.is_empty() => return Err(error),
            Err(error) => left_out.push(format!("{error:#}")),
        }
    }
    arguments.cpus.take_load()?;
    for _ in 0..arguments.rounds.max(1) {
        for lane in &mut lanes {
            lane.round()?;
        }
        let last = |lane: &Lane| (lane.cpu_ns.last().copied(), lane.rate.last().copied());
        let (Some(cpu_ns), Some(rate)) = last(&lanes[0]) else { continue };
        for lane in &mut lanes {
            if let (Some(own_ns), Some(own_rate)) = last(lane) {
                lane.ratio.push(own_ns / cpu_ns);
                lane.rate_ratio.push(own_rate / rate);
            }
        }
    }
    let base = (lanes[0].functions, lanes[0].pss_idle);
    let rows = lanes.into_iter().map(|lane| lane.end(base)).collect::<Result<Vec<_>>>()?;
    let report = Report {
        schema: "midge-lab/functions/1",
        shape: arguments.shape.name(),
        isolation: arguments.isolation.name(),
        dirty_pages: arguments.pages,
        connections: arguments.connections,
        rows,
        left_out,
    };
    if arguments.json { crate::print_json(&report) } else { print_table(&report) }
}

/// Builds the artifact that all functions are made of.
fn build(arguments: &Arguments, midge: &Path, folder: &Path) -> Result<()> {
    let source = folder.join("guest.wat");
    std::fs::write(&source, guests::synthetic(arguments.pages, 2))?;
    let mut build = Command::new(midge);
    build.arg("build").arg(&source).arg("--output").arg(folder.join("guest.midge"));
    let built = build.args(["--isolation", arguments.isolation.name()]).output()?;
    ensure!(built.status.success(), "midge build: {}", String::from_utf8_lossy(&built.stderr));
    Ok(())
}

impl Lane {
    fn start(arguments: &Arguments, midge: &Path, module: &Path, functions: usize) -> Result<Self> {
        let (address, admin) = (free_address()?, free_address()?);
        let folder = tempfile::tempdir()?;
        let cpu = arguments.cpus.servers;
        let mut text = String::new();
        for function in 0..functions {
            write!(
                text,
                "[[function]]\nname = \"f{function}\"\nmodule = \"{}\"\nroute = \"/f{function}\"\n\
                 technique = \"restore\"\nisolation = \"{}\"\n",
                module.join("guest.midge").display(),
                arguments.isolation.name()
            )?;
        }
        let command = serving(midge, folder.path(), [address, admin], cpu, &text)?;
        let began = Instant::now();
        let server = Server::start("midge", address, "/f0", cpu, command, folder)
            .with_context(|| format!("a host of {functions} functions"))?;
        let start = began.elapsed();
        let pss_idle = proportional_bytes(server.process())?;
        let mut plan = load::plan(&server, arguments.connections)?;
        let expected = plan.targets[0].expected.clone();
        let host = address.to_string();
        let target = |function: usize| {
            let target = format!("/f{function}");
            let request =
                Request { method: "GET", target: &target, host: &host, headers: &[], body: b"" };
            // All are of one module: what one answers, the others must.
            request.target(expected.clone())
        };
        plan.targets = (0..functions).map(target).collect();
        plan.choice = Choice::Weighted(arguments.shape.rates(functions).into());
        plan.duration = Duration::from_secs_f64(arguments.seconds);
        let (cpu_ns, ratio, rate) = (Vec::new(), Vec::new(), Vec::new());
        let (rate_ratio, p99_us, busy) = (Vec::new(), Vec::new(), Vec::new());
        Ok(Self {
            functions,
            server,
            admin,
            start,
            pss_idle,
            plan,
            cpu_ns,
            ratio,
            rate,
            rate_ratio,
            p99_us,
            busy,
        })
    }

    fn round(&mut self) -> Result<()> {
        let (outcome, cpu_ns) = load::run_timed(&self.server, &self.plan)?;
        #[expect(clippy::cast_precision_loss, reason = "a figure for people")]
        let p99_ns = outcome.record.latency.value_at_quantile(0.99) as f64;
        self.cpu_ns.push(cpu_ns);
        self.rate.push(outcome.rate(&self.plan));
        self.p99_us.push(p99_ns / 1000.0);
        self.busy.push(outcome.busy);
        Ok(())
    }

    /// Calls every function once, in turn, as fast as the host answers; returns its CPU time for each.
    fn sweep(&mut self) -> Result<f64> {
        let calls: Arc<[Call]> = (0..self.functions)
            .map(|function| {
                let function = u32::try_from(function).expect("bounded by FUNCTIONS_MAX");
                Call { due_ns: 0, function, work: Work::default() }
            })
            .collect();
        // Few functions are called several times, so that there is something to be measured.
        let times = (1000 / self.functions).max(1);
        let calls = std::iter::repeat_n(calls.iter().copied(), times).flatten().collect();
        let plan = Plan {
            pace: Pace::Replay(calls),
            duration: Duration::from_millis(1),
            timeout: SWEEP_MAX,
            ..self.plan.clone()
        };
        let (outcome, cpu_ns) = load::run_timed(&self.server, &plan)?;
        let wanted = (self.functions * times) as u64;
        let responses = outcome.record.responses;
        ensure!(responses == wanted, "{responses} of {wanted} functions answered");
        Ok(cpu_ns)
    }

    fn starts(&self) -> Result<Starts> {
        let mut text = String::new();
        let mut stream = TcpStream::connect(self.admin).context("reading the host's counters")?;
        std::io::Write::write_all(&mut stream, b"GET /metrics HTTP/1.0\r\nHost: lab\r\n\r\n")?;
        stream.read_to_string(&mut text).context("reading the host's counters")?;
        Ok(Starts::read(&text))
    }

    fn end(mut self, (base_functions, base_bytes): (usize, u64)) -> Result<Row> {
        let none = Starts::default();
        let rounds = self.starts()?;
        self.sweep()?;
        let before = self.starts()?;
        let in_turn = self.sweep()?;
        let after = self.starts()?;
        let pss_used = proportional_bytes(self.server.process())?;
        let kept = (after.anew - after.discarded).max(0.0);
        let one = |value: f64| Spread::of(vec![value]);
        #[expect(clippy::cast_precision_loss, reason = "figures for people")]
        let (idle, used, base, more) = (
            self.pss_idle as f64,
            pss_used as f64,
            base_bytes as f64,
            self.functions.saturating_sub(base_functions) as f64,
        );
        Ok(Row {
            functions: self.functions,
            start_seconds: one(self.start.as_secs_f64()),
            first_cpu_ns: one(self.cpu_ns[0]),
            cpu_ns_per_request: Spread::of(self.cpu_ns),
            ratio: Spread::of(self.ratio),
            requests_per_second: Spread::of(self.rate),
            rate_ratio: Spread::of(self.rate_ratio),
            p99_us: Spread::of(self.p99_us),
            found_share: one(rounds.found_share(none)),
            generator_busy: Spread::of(self.busy),
            in_turn: InTurn {
                cpu_ns_per_request: one(in_turn),
                found_share: one(after.found_share(before)),
            },
            pss_mib_idle: one(idle / MIB),
            pss_mib_used: one(used / MIB),
            kib_per_function: (more > 0.0).then(|| one((idle - base).max(0.0) / 1024.0 / more)),
            kib_per_slot: one((used - idle).max(0.0) / 1024.0 / kept.max(1.0)),
            slots_kept: one(kept),
        })
    }
}

const MIB: f64 = 1024.0 * 1024.0;

fn print_table(report: &Report) -> Result<()> {
    say!(
        "functions of one module that write to {} pages, {}, called as those of {}",
        report.dirty_pages,
        report.isolation,
        report.shape
    );
    say!(
        "{:>9} {:>8} {:>8} {:>16} {:>6} {:>12} {:>9} {:>6} {:>8} {:>6} {:>11} {:>6} {:>8} {:>8} {:>8} {:>8}",
        "functions",
        "start s",
        "CPU ns",
        "low..high",
        "x one",
        "low..high",
        "req/s",
        "x one",
        "p99 us",
        "found",
        "in turn ns",
        "found",
        "MiB",
        "KiB each",
        "slots",
        "KiB each"
    );
    for row in &report.rows {
        let range = |spread: &Spread| format!("{:.2}..{:.2}", spread.low, spread.high);
        let cpu_ns = &row.cpu_ns_per_request;
        say!(
            "{:>9} {:>8.2} {:>8.0} {:>16} {:>6.2} {:>12} {:>9.0} {:>6.2} {:>8.0} {:>5.1}% {:>11.0} {:>5.1}% {:>8.1} \
             {:>8} {:>8.0} {:>8.1}",
            row.functions,
            row.start_seconds.median,
            cpu_ns.median,
            format!("{:.0}..{:.0}", cpu_ns.low, cpu_ns.high),
            row.ratio.median,
            range(&row.ratio),
            row.requests_per_second.median,
            row.rate_ratio.median,
            row.p99_us.median,
            row.found_share.median * 100.0,
            row.in_turn.cpu_ns_per_request.median,
            row.in_turn.found_share.median * 100.0,
            row.pss_mib_used.median,
            row.kib_per_function.map_or("-".into(), |kib| format!("{:.1}", kib.median)),
            row.slots_kept.median,
            row.kib_per_slot.median
        );
    }
    crate::print_left_out(&report.left_out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn starts_are_read_from_the_counters_of_all_functions() {
        let metrics = "# TYPE midge_function_starts_total counter\n\
            midge_function_starts_total{function=\"a\",tier=\"T2\"} 3\n\
            midge_function_starts_total{function=\"a\",tier=\"T3\"} 5\n\
            midge_function_starts_total{function=\"b\",tier=\"T2\"} 1\n\
            midge_function_discards_total{function=\"b\",reason=\"gave_way\"} 2\n\
            midge_function_requests_total{function=\"b\"} 9\n";
        let starts = Starts::read(metrics);
        assert_eq!(starts, Starts { anew: 4.0, found: 5.0, discarded: 2.0 });
        let before = Starts { anew: 3.0, found: 2.0, discarded: 0.0 };
        assert!((starts.found_share(before) - 0.75).abs() < 1e-9);
    }
}
