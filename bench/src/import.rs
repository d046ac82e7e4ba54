//! `midge-lab import`: results of other generators, in the form of the lab's reports, to stand beside its own.
//!
//! Read are what `wrk --latency` and h2load print, the JSON of oha, and that of `midge load`. What they measure is
//! not the same: wrk and h2load are closed loops, whose latencies leave out what a server did not answer in time
//! (coordinated omission), and neither compares a byte of a body.

use std::path::PathBuf;

use anyhow::{Context, Result};
use midge_bench::measure::Spread;
use serde::Serialize;
use serde_json::Value;

use crate::compare::read_text;

/// Options of `midge-lab import`.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// What a generator printed.
    #[arg(required = true)]
    files: Vec<PathBuf>,
    /// Prints one JSON object, for `report` and `compare`.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Serialize)]
struct Report {
    schema: &'static str,
    rows: Vec<Row>,
}

#[derive(Debug, PartialEq, Serialize)]
struct Row {
    file: String,
    generator: &'static str,
    requests_per_second: Option<Spread>,
    #[serde(skip_serializing_if = "Option::is_none")]
    p50_us: Option<Spread>,
    #[serde(skip_serializing_if = "Option::is_none")]
    p90_us: Option<Spread>,
    #[serde(skip_serializing_if = "Option::is_none")]
    p99_us: Option<Spread>,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_us: Option<Spread>,
}

/// What was found in a result.
#[derive(Debug, Default)]
struct Found {
    generator: &'static str,
    rate: Option<f64>,
    p50: Option<f64>,
    p90: Option<f64>,
    p99: Option<f64>,
    max: Option<f64>,
}

/// Reads the results.
///
/// # Errors
/// If a file is none of a known generator.
pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let mut rows = Vec::new();
    for file in &arguments.files {
        let text = read_text(file)?;
        let found = read(&text).with_context(|| {
            format!(
                "{} is no result of wrk, h2load, oha (JSON) or `midge load --json`",
                file.display()
            )
        })?;
        let name = file.file_name().unwrap_or_default().to_string_lossy().into_owned();
        rows.push(Row::new(name, &found));
    }
    let report = Report { schema: "midge-lab/import/1", rows };
    if arguments.json { crate::print_json(&report) } else { print_table(&report) }
}

impl Row {
    fn new(file: String, found: &Found) -> Self {
        let one = |value: Option<f64>| value.map(|value| Spread::of(vec![value]));
        Self {
            file,
            generator: found.generator,
            requests_per_second: one(found.rate),
            p50_us: one(found.p50),
            p90_us: one(found.p90),
            p99_us: one(found.p99),
            max_us: one(found.max),
        }
    }
}

fn read(text: &str) -> Option<Found> {
    if let Ok(report) = serde_json::from_str::<Value>(text) {
        return if report.get("summary").is_some() { oha(&report) } else { ours(&report) };
    }
    if text.contains("Thread Stats") { wrk(text) } else { h2load(text) }
}

/// wrk: `Latency  251us ..`, `50%  251.00us` with --latency, `Requests/sec: 33544.48`.
fn wrk(text: &str) -> Option<Found> {
    let mut found = Found { generator: "wrk", ..Found::default() };
    for line in text.lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        match words.as_slice() {
            ["Requests/sec:", rate] => found.rate = rate.parse().ok(),
            ["Latency", _, _, max, _] => found.max = micros(max),
            ["50%", time] => found.p50 = micros(time),
            ["90%", time] => found.p90 = micros(time),
            ["99%", time] => found.p99 = micros(time),
            _ => {}
        }
    }
    found.rate.is_some().then_some(found)
}

/// h2load: `finished in 470.86ms, 42475.47 req/s, ..`, `time for request:  68us  4.87ms ..`. It tells no percentiles.
fn h2load(text: &str) -> Option<Found> {
    let mut found = Found { generator: "h2load", ..Found::default() };
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("finished in ") {
            let rate = rest.split(", ").nth(1)?.strip_suffix(" req/s")?;
            found.rate = rate.parse().ok();
        } else if let Some(rest) = line.strip_prefix("time for request:") {
            found.max = rest.split_whitespace().nth(1).and_then(micros);
        }
    }
    found.rate.is_some().then_some(found)
}

/// oha: times in seconds.
fn oha(report: &Value) -> Option<Found> {
    let quantile = |name: &str| report["latencyPercentiles"][name].as_f64().map(|time| time * 1e6);
    Some(Found {
        generator: "oha",
        rate: Some(report["summary"]["requestsPerSec"].as_f64()?),
        p50: quantile("p50"),
        p90: quantile("p90"),
        p99: quantile("p99"),
        max: report["summary"]["slowest"].as_f64().map(|time| time * 1e6),
    })
}

/// `midge load`: its last run.
fn ours(report: &Value) -> Option<Found> {
    let run = report["runs"].as_array()?.last()?;
    let quantile = |name: &str| run["latency_us"][name].as_f64();
    Some(Found {
        generator: "midge load",
        rate: Some(run["rate"].as_f64()?),
        p50: quantile("p50"),
        p90: quantile("p90"),
        p99: quantile("p99"),
        max: quantile("max"),
    })
}

/// Reads a time with its unit, in microseconds.
fn micros(text: &str) -> Option<f64> {
    let units = [("us", 1.0), ("ms", 1e3), ("ns", 1e-3), ("s", 1e6), ("m", 6e7)];
    let (number, factor) =
        units.iter().find_map(|(unit, factor)| Some((text.strip_suffix(unit)?, factor)))?;
    number.parse::<f64>().ok().map(|number| number * factor)
}

fn print_table(report: &Report) -> Result<()> {
    say!(
        "{:<24} {:<11} {:>12} {:>10} {:>10} {:>10} {:>10}",
        "file",
        "generator",
        "requests/s",
        "p50 us",
        "p90 us",
        "p99 us",
        "max us"
    );
    let figure = |spread: Option<Spread>| {
        spread.map_or_else(|| "-".to_owned(), |spread| format!("{:.1}", spread.median))
    };
    for row in &report.rows {
        say!(
            "{:<24} {:<11} {:>12} {:>10} {:>10} {:>10} {:>10}",
            row.file,
            row.generator,
            figure(row.requests_per_second),
            figure(row.p50_us),
            figure(row.p90_us),
            figure(row.p99_us),
            figure(row.max_us)
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const WRK: &str = "\
Running 1s test @ http://127.0.0.1:8095/hello
  1 threads and 16 connections
  Thread Stats   Avg      Stdev     Max   +/- Stdev
    Latency   251.44us  116.73us   1.50ms   58.35%
    Req/Sec    33.75k   416.06    34.42k    70.00%
  Latency Distribution
     50%  251.00us
     75%  349.00us
     90%  410.00us
     99%    1.20ms
  33584 requests in 1.00s, 4.20MB read
Requests/sec:  33544.48
Transfer/sec:      4.19MB
";

    const H2LOAD: &str = "\
finished in 470.86ms, 42475.47 req/s, 5.31MB/s
requests: 20000 total, 20000 started, 20000 done, 20000 succeeded, 0 failed, 0 errored, 0 timeout
                     min         max         mean         sd        +/- sd
time for request:       68us      4.87ms       375us       312us    98.32%
";

    #[test]
    fn results_of_every_generator_are_read() {
        let oha = r#"{"summary": {"requestsPerSec": 1000.5, "slowest": 0.25},
            "latencyPercentiles": {"p50": 0.0001, "p90": 0.0002, "p99": 0.001}}"#;
        let ours = r#"{"schema": "midge/load/1", "runs": [{"rate": 10.0, "latency_us":
            {"p50": 1.0, "p90": 2.0, "p99": 3.0, "max": 4.0}}]}"#;
        let cases = [
            (WRK, "wrk", 33544.48, [Some(251.0), Some(410.0), Some(1200.0), Some(1500.0)]),
            (H2LOAD, "h2load", 42475.47, [None, None, None, Some(4870.0)]),
            (oha, "oha", 1000.5, [Some(100.0), Some(200.0), Some(1000.0), Some(250_000.0)]),
            (ours, "midge load", 10.0, [Some(1.0), Some(2.0), Some(3.0), Some(4.0)]),
        ];
        for (text, generator, rate, times) in cases {
            let found = read(text).unwrap_or_else(|| panic!("{generator}"));
            assert_eq!((found.generator, found.rate), (generator, Some(rate)));
            let got = [found.p50, found.p90, found.p99, found.max];
            for (got, wanted) in got.into_iter().zip(times) {
                let is_near = match (got, wanted) {
                    (Some(got), Some(wanted)) => (got - wanted).abs() < wanted * 1e-9,
                    (None, None) => true,
                    _ => false,
                };
                assert!(is_near, "{generator}: {got:?}, not {wanted:?}");
            }
        }
        assert!(read("nothing of the kind").is_none() && read("{}").is_none());
    }
}
