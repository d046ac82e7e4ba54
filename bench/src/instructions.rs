//! `midge-lab check`: instructions of what runs for each request, against a committed baseline.
//!
//! Each bench runs under valgrind's callgrind twice, with few and with many repetitions: the difference over the
//! repetitions is what one takes, without start and compilation. It is the same on a busy machine, and moves by
//! a few instructions for each thousand where hash seeds and addresses differ; so it can be held to a few per cent
//! where a clock could not. Instructions are no time: a change that passes here still wants a bench.

use std::collections::BTreeMap;
use std::hint::black_box;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail, ensure};
use midge_bench::guests;
use midge_bench::harness::{BROWSER, HEAD, Harness, artifact};
use midge_bench::hot::{decoded, encoded, parsed, read, written};
use midge_loader::engine::Engines;
use midge_loader::files::{self, SCRATCH_PATH_DEFAULT, Scratch, of_texts};
use midge_loader::link::attach;
use midge_loader::start::Technique;
use serde::{Deserialize, Serialize};

use crate::peers::COMPONENT;
use crate::servers::find;

/// The committed baseline, as it was when this program was built.
const BASELINE: &str = include_str!("../instructions.json");

/// Where the baseline lies in the tree.
const BASELINE_FILE: &str = "bench/instructions.json";

/// A program of WASI preview 1.
const PROGRAM: &[u8] = include_bytes!("../../examples/cgi/cgi.wasm");

/// A program that looks for the request's query in a file of its own.
const READER: &[u8] = include_bytes!("../../examples/lookup/lookup.wasm");
/// That file, in which it is found.
const READ: &str =
    concat!(include_str!("../../examples/lookup/data/ports.tsv"), "name=Ada\t1815\ttcp\n");

/// A program that makes a file, writes 1000 bytes to it and reads them.
const WRITER: &str = include_str!("guests/writer.wat");

/// One thing that is counted.
struct Bench {
    name: &'static str,
    /// Repetitions of the second run beyond those of the first.
    repetitions: u32,
    run: fn(u32) -> Result<()>,
}

/// Repetitions of the first run: enough to be past what happens once.
const FIRST: u32 = 100;

const BENCHES: [Bench; 13] = [
    Bench { name: "parse a small request", repetitions: 10_000, run: |count| parsed(HEAD, count) },
    Bench {
        name: "parse a browser's request",
        repetitions: 10_000,
        run: |count| parsed(BROWSER, count),
    },
    Bench { name: "decode 1 KiB in 16 chunks", repetitions: 10_000, run: decoded },
    Bench { name: "encode a response", repetitions: 10_000, run: encoded },
    Bench { name: "write the contract's request", repetitions: 10_000, run: written },
    Bench { name: "read the contract's response", repetitions: 10_000, run: read },
    Bench {
        name: "call hello, restore",
        repetitions: 2000,
        run: |count| called(Technique::Restore, guests::HELLO, count),
    },
    Bench {
        name: "call 3 pages, restore",
        repetitions: 2000,
        run: |count| called(Technique::Restore, three_pages().as_bytes(), count),
    },
    Bench {
        name: "call 3 pages, reuse",
        repetitions: 2000,
        run: |count| called(Technique::Reuse, three_pages().as_bytes(), count),
    },
    Bench {
        name: "call a component, restore",
        repetitions: 2000,
        run: |count| called(Technique::Restore, COMPONENT.as_bytes(), count),
    },
    Bench {
        name: "call a program, restore",
        repetitions: 2000,
        run: |count| called(Technique::Restore, PROGRAM, count),
    },
    Bench {
        name: "call a program with a file",
        repetitions: 2000,
        run: |count| called(Technique::Restore, &reader()?, count),
    },
    Bench {
        name: "call a program that writes",
        repetitions: 2000,
        run: |count| called(Technique::Restore, &writer()?, count),
    },
];

/// Options of `midge-lab check`.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Per cent that a count may grow by.
    #[arg(long, value_name = "PERCENT", default_value_t = 5.0)]
    tolerance: f64,
    /// Another baseline than the one that was committed when this program was built.
    #[arg(long, value_name = "FILE")]
    baseline: Option<PathBuf>,
    /// Writes the counts to a file, as the next baseline.
    #[arg(long, value_name = "FILE")]
    write: Option<PathBuf>,
    /// Prints one JSON object.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Serialize, Deserialize)]
struct Baseline {
    schema: String,
    /// Instructions of one repetition.
    instructions: BTreeMap<String, f64>,
}

const BASELINE_SCHEMA: &str = "midge-lab/instructions/1";

#[derive(Debug, Serialize)]
struct Report {
    schema: &'static str,
    tolerance_percent: f64,
    rows: Vec<Row>,
    verdict: &'static str,
}

#[derive(Debug, Serialize)]
struct Row {
    bench: &'static str,
    instructions: f64,
    baseline: Option<f64>,
    change_percent: Option<f64>,
    has_grown: bool,
}

/// Counts, compares, and fails if something has grown.
///
/// # Errors
/// If valgrind is missing, or a count has grown by more than the tolerance.
pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    ensure!(
        std::arch::is_x86_feature_detected!("avx2"),
        "this CPU has no AVX2: another path runs here, and the baseline says nothing of it"
    );
    let valgrind = find("valgrind").context("valgrind is missing: apt-get install valgrind")?;
    let text = match &arguments.baseline {
        None => BASELINE.to_owned(),
        Some(file) => std::fs::read_to_string(file)
            .with_context(|| format!("cannot read {}", file.display()))?,
    };
    let baseline: Baseline = serde_json::from_str(&text).context("the baseline is damaged")?;
    ensure!(
        baseline.schema == BASELINE_SCHEMA,
        "the baseline is of another kind: {}",
        baseline.schema
    );
    let mut rows = Vec::new();
    for bench in &BENCHES {
        let few = count_of(&valgrind, bench.name, FIRST)?;
        let many = count_of(&valgrind, bench.name, FIRST + bench.repetitions)?;
        #[expect(clippy::cast_precision_loss, reason = "below 2^53")]
        let instructions = many.saturating_sub(few) as f64 / f64::from(bench.repetitions);
        let known = baseline.instructions.get(bench.name).copied();
        let change = known.map(|known| (instructions / known - 1.0) * 100.0);
        rows.push(Row {
            bench: bench.name,
            instructions: (instructions * 10.0).round() / 10.0,
            baseline: known,
            change_percent: change,
            has_grown: change.is_none_or(|change| arguments.tolerance < change),
        });
    }
    if let Some(file) = &arguments.write {
        let instructions =
            rows.iter().map(|row| (row.bench.to_owned(), row.instructions)).collect();
        let next = Baseline { schema: BASELINE_SCHEMA.into(), instructions };
        std::fs::write(file, serde_json::to_string_pretty(&next)? + "\n")
            .with_context(|| format!("cannot write {}", file.display()))?;
    }
    let grown: Vec<_> = rows.iter().filter(|row| row.has_grown).map(|row| row.bench).collect();
    let verdict = if grown.is_empty() { "held" } else { "grown" };
    let failure = grown.join(", ");
    let tolerance_percent = arguments.tolerance;
    let report = Report { schema: "midge-lab/check/1", tolerance_percent, rows, verdict };
    if arguments.json {
        crate::print_json(&report)?
    } else {
        print_table(&report)?;
    }
    if verdict == "held" || arguments.write.is_some() {
        return Ok(());
    }
    bail!(
        "more instructions than the baseline's by over {tolerance_percent} %: {failure}. If that is meant, \
         `midge-lab check --write {BASELINE_FILE}` and say why in the commit"
    )
}

/// Runs this program under callgrind; returns the instructions of the whole run.
fn count_of(valgrind: &std::path::Path, name: &str, repetitions: u32) -> Result<u64> {
    let mut command = Command::new(valgrind);
    command.args(["--tool=callgrind", "--callgrind-out-file=/dev/null"]);
    command.arg(std::env::current_exe()?).args(["count", name, &repetitions.to_string()]);
    let output = command.stdin(Stdio::null()).output().context("cannot run valgrind")?;
    let text = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{name} fails under valgrind: {text}");
    let line = text.lines().find_map(|line| line.split_once("Collected :"));
    let number = line.and_then(|(_, number)| number.trim().parse().ok());
    number.with_context(|| format!("valgrind tells no count: {text}"))
}

/// Repeats one bench; what runs under valgrind.
///
/// # Errors
/// If there is no such bench.
pub(crate) fn count(name: &str, repetitions: u32) -> Result<()> {
    let bench = BENCHES.iter().find(|bench| bench.name == name);
    (bench.with_context(|| format!("no bench `{name}`"))?.run)(repetitions)
}

fn three_pages() -> String {
    guests::synthetic(3, 2)
}

fn called(technique: Technique, source: &[u8], count: u32) -> Result<()> {
    let engines = Engines::new();
    let artifact = artifact(source, &engines)?;
    let mut harness = Harness::new(&artifact, technique, &engines)?;
    for _ in 0..count {
        black_box(harness.call());
    }
    Ok(())
}

/// Returns the program with its file.
fn reader() -> Result<Vec<u8>> {
    Ok(attach(READER, &of_texts("/data", &[("ports.tsv", READ)])?))
}

/// Returns the program with a folder to write to.
fn writer() -> Result<Vec<u8>> {
    let scratch = Scratch { guest: SCRATCH_PATH_DEFAULT.into(), bytes: 1 << 20 };
    Ok(attach(WRITER.as_bytes(), &files::read(&[], Some(&scratch))?))
}

fn print_table(report: &Report) -> Result<()> {
    say!("{:<30} {:>13} {:>10} {:>9}", "bench", "instructions", "baseline", "change");
    for row in &report.rows {
        let baseline = row.baseline.map_or("-".into(), |known| format!("{known:.1}"));
        let change = row.change_percent.map_or("new".into(), |change| format!("{change:+.1} %"));
        let mark = if row.has_grown { "  grown" } else { "" };
        say!("{:<30} {:>13.1} {baseline:>10} {change:>9}{mark}", row.bench, row.instructions);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_bench_runs_and_has_a_baseline() {
        let baseline: Baseline = serde_json::from_str(BASELINE).unwrap();
        let names: Vec<_> = baseline.instructions.keys().cloned().collect();
        let mut benches: Vec<_> = BENCHES.iter().map(|bench| bench.name.to_owned()).collect();
        benches.sort();
        assert_eq!(names, benches);
        for bench in &BENCHES {
            count(bench.name, 3).unwrap();
        }
    }
}
