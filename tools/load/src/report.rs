//! What a run measured, for people and for programs.

use std::time::Duration;

use anyhow::{Context, Result};
use hdrhistogram::Histogram;
use hdrhistogram::serialization::V2DeflateSerializer;
use hdrhistogram::serialization::interval_log::IntervalLogWriterBuilder;
use midge_load::output::line;
use midge_load::plan::{Body, Choice, Pace, Plan};
use midge_load::plot::{Line, Titles, svg};
use midge_load::record::Wrong;
use midge_load::run::Outcome;
use midge_load::trace::Call;
use serde::Serialize;

/// The quantiles that are shown.
const QUANTILES: [(&str, f64); 6] =
    [("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("p99.9", 0.999), ("p99.99", 0.9999), ("max", 1.0)];

/// Where the plot by percentile has its points: one in so many is slower.
const ONE_IN: [f64; 12] =
    [1.25, 2.0, 4.0, 10.0, 20.0, 50.0, 100.0, 200.0, 1000.0, 10_000.0, 100_000.0, 1_000_000.0];

#[derive(Debug, Serialize)]
pub(crate) struct Report {
    schema: &'static str,
    version: &'static str,
    command: Vec<String>,
    connections: usize,
    pipeline: usize,
    threads: usize,
    duration_s: f64,
    verified: Verified,
    runs: Vec<Run>,
    #[serde(skip_serializing_if = "Option::is_none")]
    knee: Option<Knee>,
    verdict: Verdict,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Verdict {
    /// All is right.
    Right,
    /// A response was wrong or missing.
    Wrong,
    /// The generator was the limit.
    Generator,
}

#[derive(Debug, Serialize)]
pub(crate) struct Knee {
    /// Milliseconds: the bound on the p99.
    p99_ms: f64,
    /// Highest rate that stayed below it; 0 if none did.
    rate: f64,
}

/// How many targets are compared by what.
#[derive(Debug, Default, Serialize)]
struct Verified {
    targets: usize,
    by_bytes: usize,
    by_number: usize,
    by_hash: usize,
    by_length: usize,
    by_status: usize,
}

#[derive(Debug, Serialize)]
pub(crate) struct Run {
    /// Requests per second that were due; null in a closed loop.
    rate_due: Option<f64>,
    rate: f64,
    responses: u64,
    body_bytes: u64,
    latency_us: Times,
    service_us: Times,
    lag_us: Option<Times>,
    wrong: std::collections::BTreeMap<&'static str, u64>,
    example: Option<String>,
    unsent: u64,
    waiting_max: u64,
    connections_made: u64,
    generator_busy: f64,
    generator_cpu_us: f64,
    generator_enters: f64,
    limit: Option<String>,
    #[serde(skip)]
    outcome: Option<Outcome>,
}

#[derive(Debug, Clone, Serialize)]
struct Times {
    mean: f64,
    #[serde(flatten)]
    quantiles: std::collections::BTreeMap<&'static str, f64>,
}

impl Times {
    fn of(histogram: &Histogram<u64>) -> Self {
        let quantiles =
            QUANTILES.iter().map(|(name, at)| (*name, us(histogram.value_at_quantile(*at))));
        Self { mean: histogram.mean() / 1000.0, quantiles: quantiles.collect() }
    }
}

impl Run {
    pub(crate) fn new(plan: &Plan, rate_due: Option<f64>, outcome: Outcome) -> Self {
        let record = &outcome.record;
        let responses = count(record.responses.max(1));
        let wrong = Wrong::ALL.iter().zip(record.wrong).filter(|(_, count)| *count > 0);
        Self {
            rate_due,
            rate: outcome.rate(plan),
            responses: record.responses,
            body_bytes: record.body_bytes,
            latency_us: Times::of(&record.latency),
            service_us: Times::of(&record.service),
            lag_us: (plan.pace != Pace::Closed).then(|| Times::of(&record.lag)),
            wrong: wrong.map(|(wrong, count)| (wrong.name(), count)).collect(),
            example: record.example.clone(),
            unsent: record.unsent,
            waiting_max: record.waiting_max,
            connections_made: record.connections,
            generator_busy: outcome.busy,
            generator_cpu_us: record.cpu.as_secs_f64() * 1e6 / responses,
            generator_enters: count(record.enters) / responses,
            limit: outcome.limit.clone(),
            outcome: Some(outcome),
        }
    }

    pub(crate) fn rate(&self) -> f64 {
        self.rate
    }

    pub(crate) fn rate_due(&self) -> f64 {
        self.rate_due.unwrap_or(0.0)
    }

    /// Tells whether every request that was due got a right response.
    pub(crate) fn is_right(&self) -> bool {
        self.wrong.is_empty() && self.unsent == 0 && self.responses > 0
    }

    /// Tells whether the figures are the server's.
    pub(crate) fn is_the_servers(&self) -> bool {
        self.limit.is_none()
    }

    /// Returns the 99th percentile of the latency, in nanoseconds.
    pub(crate) fn p99_ns(&self) -> u64 {
        self.outcome.as_ref().map_or(0, |outcome| outcome.record.latency.value_at_quantile(0.99))
    }
}

impl Report {
    pub(crate) fn new(plan: &Plan, runs: Vec<Run>, knee: Option<(u64, f64)>) -> Self {
        // A search goes beyond what the server can do: its verdict is that of what it found.
        let verdict = match &knee {
            Some((_, rate)) if *rate > 0.0 => Verdict::Right,
            Some(_) => Verdict::Wrong,
            None if !runs.iter().all(Run::is_right) => Verdict::Wrong,
            None if !runs.iter().all(Run::is_the_servers) => Verdict::Generator,
            None => Verdict::Right,
        };
        Self {
            schema: "midge/load/1",
            version: env!("CARGO_PKG_VERSION"),
            command: std::env::args().collect(),
            connections: plan.connections,
            pipeline: plan.depth,
            threads: plan.cpus.len(),
            duration_s: plan.duration.as_secs_f64(),
            verified: Verified::of(plan),
            runs,
            knee: knee.map(|(p99, rate)| Knee { p99_ms: us(p99) / 1000.0, rate }),
            verdict,
        }
    }

    pub(crate) fn verdict(&self) -> Verdict {
        self.verdict
    }

    pub(crate) fn print(&self, is_json: bool) -> Result<()> {
        let text = if is_json { serde_json::to_string_pretty(self)? } else { self.text() };
        Ok(line(format_args!("{text}"))?)
    }

    fn text(&self) -> String {
        let mut lines = vec![self.verified.text()];
        let has_rates = self.runs.iter().any(|run| run.rate_due.is_some());
        let due = if has_rates { format!("{:>11}", "due/s") } else { String::new() };
        let mut head = format!("{due}{:>13}{:>10}", "responses/s", "wrong");
        for (name, _) in QUANTILES {
            head.push_str(&format!("{:>11}", format!("{name} us")));
        }
        lines.push(head);
        for run in &self.runs {
            let due = match run.rate_due {
                Some(rate) => format!("{rate:>11.0}"),
                None if has_rates => format!("{:>11}", "-"),
                None => String::new(),
            };
            let wrong = run.wrong.values().sum::<u64>() + run.unsent;
            let mut line = format!("{due}{:>13.0}{wrong:>10}", run.rate);
            for (name, _) in QUANTILES {
                line.push_str(&format!("{:>11.1}", run.latency_us.quantiles[name]));
            }
            lines.push(line);
        }
        for run in &self.runs {
            run.notes(&mut lines);
        }
        if let Some(Knee { p99_ms, rate }) = &self.knee {
            lines.push(format!("highest rate with a p99 below {p99_ms} ms: {rate:.0} requests/s"));
        }
        lines.join("\n")
    }

    /// Draws the one run's latency over its percentiles, or several runs' over their rates.
    pub(crate) fn svg(&self) -> String {
        if let [run] = self.runs.as_slice() {
            let points = |histogram: &Histogram<u64>| {
                let value = |part: &f64| {
                    let at = 1.0 - 1.0 / part;
                    (*part, us(histogram.value_at_quantile(at).max(1)))
                };
                ONE_IN.iter().filter(|part| **part <= count(run.responses)).map(value).collect()
            };
            let Some(outcome) = &run.outcome else { return String::new() };
            let lines = [
                Line { name: "latency".into(), points: points(&outcome.record.latency) },
                Line { name: "service".into(), points: points(&outcome.record.service) },
            ];
            let x = "one request in so many takes longer (100: p99, 1 k: p99.9)";
            return svg(&Titles { title: "latency by percentile", x, y: "us" }, &lines);
        }
        let line = |name: &'static str, at: f64| {
            let point = |run: &Run| {
                let outcome = run.outcome.as_ref()?;
                let rate = run.rate_due.filter(|rate| *rate > 0.0)?;
                Some((rate, us(outcome.record.latency.value_at_quantile(at).max(1))))
            };
            Line { name: name.into(), points: self.runs.iter().filter_map(point).collect() }
        };
        let lines = [line("p50", 0.5), line("p99", 0.99), line("p99.9", 0.999)];
        svg(&Titles { title: "latency by rate", x: "requests per second, due", y: "us" }, &lines)
    }

    /// Writes the latencies of all runs, as an HdrHistogram log (V2, deflated).
    pub(crate) fn hdr_log(&self) -> Result<Vec<u8>> {
        let mut bytes = Vec::new();
        let mut serializer = V2DeflateSerializer::new();
        let mut writer = IntervalLogWriterBuilder::new()
            .add_comment("midge-load: latency in ns, from when a request was due")
            .begin_log_with(&mut bytes, &mut serializer)
            .context("cannot begin the log")?;
        let mut start = Duration::ZERO;
        let length = Duration::from_secs_f64(self.duration_s);
        for run in &self.runs {
            let Some(outcome) = &run.outcome else { continue };
            writer
                .write_histogram(&outcome.record.latency, start, length, None)
                .map_err(|error| anyhow::anyhow!("cannot write the histogram: {error:?}"))?;
            start += length;
        }
        Ok(bytes)
    }
}

impl Run {
    fn notes(&self, lines: &mut Vec<String>) {
        let at = self.rate_due.map_or(String::new(), |rate| format!("at {rate:.0}/s: "));
        for (name, count) in &self.wrong {
            lines.push(format!("{at}{count} {name}"));
        }
        if self.unsent > 0 {
            lines.push(format!(
                "{at}{} were due and never sent: the server did not keep up",
                self.unsent
            ));
        }
        if let Some(example) = &self.example {
            lines.push(format!("{at}the first: {example}"));
        }
        let lag = self.lag_us.as_ref().map_or(String::new(), |lag| {
            format!(", lag p99 {:.1} us, max {:.1}", lag.quantiles["p99"], lag.quantiles["max"])
        });
        lines.push(format!(
            "{at}generator: {:.2} us of CPU and {:.2} enters a request, busy {:.0} %{lag}",
            self.generator_cpu_us,
            self.generator_enters,
            self.generator_busy * 100.0
        ));
        if let Some(limit) = &self.limit {
            lines.push(format!("{at}REFUSED: {limit}"));
        }
    }
}

impl Verified {
    fn of(plan: &Plan) -> Self {
        let mut verified = Self { targets: plan.targets.len(), ..Self::default() };
        for target in &plan.targets {
            match &target.expected.body {
                _ if target.is_head => verified.by_status += 1,
                Body::Any => verified.by_status += 1,
                Body::Length(_) => verified.by_length += 1,
                Body::Bytes(bytes) if bytes.places.is_empty() => verified.by_bytes += 1,
                Body::Bytes(_) => verified.by_number += 1,
                Body::Hash { .. } => verified.by_hash += 1,
            }
        }
        verified
    }

    fn text(&self) -> String {
        let parts = [
            (self.by_bytes, "every byte"),
            (self.by_number, "every byte and the request's number"),
            (self.by_hash, "length and hash"),
            (self.by_length, "length"),
            (self.by_status, "status alone"),
        ];
        let parts = parts.iter().filter(|(count, _)| *count > 0);
        let parts: Vec<_> = match self.targets {
            1 => parts.map(|(_, what)| (*what).to_owned()).collect(),
            _ => parts.map(|(count, what)| format!("{what} ({count} targets)")).collect(),
        };
        format!("verified: {}", parts.join(", "))
    }
}

/// Says in a line what is going to be done.
pub(crate) fn headline(plan: &Plan, url: &str) -> String {
    let pace = match &plan.pace {
        Pace::Closed => "closed loop".to_owned(),
        Pace::Open { pieces, spacing } => match pieces.as_slice() {
            [piece] if (piece.from - piece.to).abs() < 1e-9 => {
                format!("open loop, {:.0} a second, {spacing:?}", piece.from)
            }
            [piece] => format!("open loop, {:.0} to {:.0} a second", piece.from, piece.to),
            _ => "open loop".to_owned(),
        },
        Pace::Replay(calls) => {
            format!("{} requests of {} functions, replayed", calls.len(), functions(calls))
        }
    };
    let choice = match &plan.choice {
        Choice::InTurn | Choice::Weighted(_) => String::new(),
        Choice::Zipf(exponent) => format!(", {} targets by Zipf {exponent}", plan.targets.len()),
    };
    format!("{url}: {} connections, {pace}{choice}", plan.connections)
}

fn functions(calls: &[Call]) -> usize {
    let mut all: Vec<u32> = calls.iter().map(|call| call.function).collect();
    all.sort_unstable();
    all.dedup();
    all.len()
}

#[expect(clippy::cast_precision_loss, reason = "figures for people")]
fn us(ns: u64) -> f64 {
    ns as f64 / 1000.0
}

#[expect(clippy::cast_precision_loss, reason = "figures for people")]
fn count(number: u64) -> f64 {
    number as f64
}
