//! `midge-lab restore`: what a pristine call costs over dirty pages, over slots that rest between their
//! calls, and over threads that start at the same time.

use std::sync::{Arc, Barrier};
use std::time::Duration;

use anyhow::{Context, Result};
use core_affinity::CoreId;
use midge_abi::manifest::Isolation;
use midge_bench::guests;
use midge_bench::harness::{Called, Harness, artifact, artifact_isolated, function};
use midge_bench::measure::{Spread, calibrate, cpu_ns_each};
use midge_load::plot::{Line, Titles, svg};
use midge_loader::engine::Engines;
use midge_loader::function::Function;
use midge_loader::start::Technique;
use midge_loader::start::choose::{Machine, check};
use serde::Serialize;

/// CPU time of one row in one round.
const ROUND: Duration = Duration::from_millis(40);
/// Mappings that a slot takes, with room (`host/src/plan.rs` says which).
const MAPPINGS_PER_SLOT: usize = 8;
/// Address space of all slots, of 128 TiB that a process has; each reserves 4 GiB and a guard.
const SLOTS_BY_ADDRESS_SPACE: usize = 30_000;
/// The same where each reserves 256 MiB.
const SLOTS_CHECKED_BY_ADDRESS_SPACE: usize = 500_000;

/// Options of `midge-lab restore`.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Rounds; rows alternate within a round.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// CPU to be pinned to.
    #[arg(long, default_value_t = 0)]
    cpu: usize,
    /// Dirty pages of the guest.
    #[arg(long, value_delimiter = ',', default_values_t = [1, 3, 16, 64, 256, 1024, 4096])]
    pages: Vec<u32>,
    /// Slots that are called in turn: more of them rest longer.
    #[arg(long, value_delimiter = ',', default_values_t = [1, 100, 1000, 5000])]
    slots: Vec<usize>,
    /// What keeps the guest inside its memory: guard-pages (4 GiB of address space for each slot), or
    /// bounds-checked (256 MiB, so that more slots fit).
    #[arg(long, default_value = "guard-pages", value_parser = isolation)]
    isolation: Isolation,
    /// Techniques that threads start at the same time.
    #[arg(long, value_delimiter = ',', default_values_t = ["mmap".to_owned(), "cow".into(), "pool".into(), "pool-scan".into(), "restore".into()])]
    contended: Vec<String>,
    /// Writes a plot of the first table, as SVG.
    #[arg(long, value_name = "FILE")]
    svg: Option<std::path::PathBuf>,
    /// Prints one JSON object.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Serialize)]
struct Report {
    schema: &'static str,
    isolation: &'static str,
    rounds: usize,
    rows: Vec<Row>,
    contention: Vec<Contention>,
    left_out: Vec<String>,
}

#[derive(Debug, Serialize)]
struct Row {
    technique: &'static str,
    dirty_pages: u32,
    slots: usize,
    tier: &'static str,
    cpu_ns: Spread,
    cpu_ns_per_page: f64,
}

#[derive(Debug, Serialize)]
struct Contention {
    technique: &'static str,
    threads: usize,
    cpu_ns: Spread,
    ratio_to_one: f64,
}

/// Slots of one function, each kept by a technique of its own, so that they are called in turn.
struct Ring {
    dirty_pages: u32,
    slots: Vec<Harness>,
    next: usize,
    count: u32,
    rounds: Vec<f64>,
}

impl Ring {
    fn new(function: &Arc<Function>, dirty_pages: u32, count: usize) -> Self {
        let slots = (0..count).map(|_| Harness::of(function, 1)).collect();
        let mut ring = Self { dirty_pages, slots, next: 0, count: 0, rounds: Vec::new() };
        // Twice: the first call learns the pages, the second is like all that follow.
        for _ in 0..2 * count {
            ring.call();
        }
        ring.count = calibrate(ROUND, || {
            ring.call();
        });
        ring
    }

    fn call(&mut self) -> Called {
        let called = self.slots[self.next].call();
        self.next = (self.next + 1) % self.slots.len();
        std::hint::black_box(called)
    }

    fn round(&mut self) {
        let count = self.count;
        let took = cpu_ns_each(count, || {
            self.call();
        });
        self.rounds.push(took);
    }
}

/// Runs the comparison.
///
/// # Errors
/// If the CPU or an engine cannot be had.
pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    // Asked before this thread is pinned: afterwards it is the one CPU.
    let cpus = core_affinity::get_core_ids().context("the CPUs of this process are unknown")?;
    pin(arguments.cpu)?;
    let engines = Engines::new();
    let mut left_out = Vec::new();
    let mut rows = Vec::new();
    let slots_max = slots_max(arguments.isolation);
    for &slots in &arguments.slots {
        if slots_max < slots {
            left_out.push(format!("{slots} slots: this process has mappings for {slots_max}"));
            continue;
        }
        // One ring at a time: slots of another would take its mappings and its cache.
        for &pages in &arguments.pages {
            match row(arguments, &engines, pages, slots.max(1)) {
                Ok(row) => rows.push(row),
                Err(error) => left_out.push(format!("{pages} pages, {slots} slots: {error:#}")),
            }
        }
    }
    let mut contention = Vec::new();
    for name in &arguments.contended {
        match contended(arguments, &engines, name, &cpus) {
            Ok(rows) => contention.extend(rows),
            Err(error) => left_out.push(format!("contention of {name}: {error:#}")),
        }
    }
    let report = Report {
        schema: "midge-lab/restore/1",
        isolation: arguments.isolation.name(),
        rounds: arguments.rounds,
        rows,
        contention,
        left_out,
    };
    if let Some(file) = &arguments.svg {
        std::fs::write(file, plot(&report))
            .with_context(|| format!("cannot write `{}`", file.display()))?;
    }
    if arguments.json { crate::print_json(&report) } else { print_table(&report) }
}

fn plot(report: &Report) -> String {
    let mut lines: Vec<Line> = Vec::new();
    for row in &report.rows {
        let name = match row.slots {
            1 => "1 slot".to_owned(),
            slots => format!("{slots} slots in turn"),
        };
        let point = (f64::from(row.dirty_pages), row.cpu_ns.median);
        match lines.last_mut() {
            Some(line) if line.name == name => line.points.push(point),
            _ => lines.push(Line { name, points: vec![point] }),
        }
    }
    let titles = Titles {
        title: "A pristine call under `restore`",
        x: "dirty pages of 4 KiB",
        y: "CPU time in nanoseconds, median",
    };
    svg(&titles, &lines)
}

fn pin(cpu: usize) -> Result<()> {
    let pinned = core_affinity::set_for_current(CoreId { id: cpu });
    anyhow::ensure!(pinned, "cannot be pinned to CPU {cpu}");
    Ok(())
}

fn isolation(name: &str) -> Result<Isolation> {
    Isolation::from_name(name).context("guard-pages or bounds-checked")
}

fn slots_max(isolation: Isolation) -> usize {
    let text = std::fs::read_to_string("/proc/sys/vm/max_map_count").unwrap_or_default();
    let mappings: usize = text.trim().parse().unwrap_or(usize::MAX);
    let by_address_space = match isolation {
        Isolation::GuardPages => SLOTS_BY_ADDRESS_SPACE,
        Isolation::BoundsChecked => SLOTS_CHECKED_BY_ADDRESS_SPACE,
    };
    (mappings / MAPPINGS_PER_SLOT).min(by_address_space)
}

fn row(arguments: &Arguments, engines: &Engines, pages: u32, slots: usize) -> Result<Row> {
    let technique = Technique::Restore;
    let bytes = slots as u64 * u64::from(pages) * 4096;
    anyhow::ensure!(bytes <= memory_available() / 2, "{} MiB of pages", bytes >> 20);
    let source = guests::synthetic(pages, 2);
    let guest = artifact_isolated(source.as_bytes(), arguments.isolation, engines)?;
    let function = function(&guest, technique, engines)?;
    let mut ring = Ring::new(&function, pages, slots);
    for _ in 0..arguments.rounds.max(1) {
        ring.round();
    }
    let tier = ring.call().tier.name();
    let cpu_ns = Spread::of(std::mem::take(&mut ring.rounds));
    let cpu_ns_per_page = cpu_ns.median / f64::from(ring.dirty_pages);
    Ok(Row {
        technique: technique.name(),
        dirty_pages: pages,
        slots,
        tier,
        cpu_ns,
        cpu_ns_per_page,
    })
}

fn memory_available() -> u64 {
    let text = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"));
    let kib = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
    kib.map_or(u64::MAX, |kib| kib << 10)
}

/// One thread alone, then one on each CPU at the same time, round by round.
fn contended(
    arguments: &Arguments,
    engines: &Engines,
    name: &str,
    cpus: &[CoreId],
) -> Result<Vec<Contention>> {
    let technique = Technique::from_name(name).context("there is no such technique")?;
    let guest = artifact(guests::synthetic(3, 2).as_bytes(), engines)?;
    check(technique, guest.manifest(), Machine::of_this_process())
        .map_err(|obstacle| anyhow::anyhow!("{}", obstacle.reason))?;
    let function = function(&guest, technique, engines)?;
    let count = calibrate(ROUND, {
        let mut harness = Harness::of(&function, 1);
        move || {
            std::hint::black_box(harness.call());
        }
    });
    let together = |cpus: &[CoreId]| {
        let barrier = Barrier::new(cpus.len());
        std::thread::scope(|scope| {
            let threads: Vec<_> = cpus
                .iter()
                .map(|cpu| {
                    scope.spawn(|| {
                        core_affinity::set_for_current(*cpu);
                        let mut harness = Harness::of(&function, 1);
                        harness.call();
                        barrier.wait();
                        cpu_ns_each(count, || {
                            std::hint::black_box(harness.call());
                        })
                    })
                })
                .collect();
            let ended = threads.into_iter().map(|thread| thread.join().expect("it measures"));
            ended.sum::<f64>() / cpus.len() as f64
        })
    };
    let (mut alone, mut all, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..arguments.rounds.max(1) {
        let one = together(&cpus[..1]);
        let every = together(cpus);
        alone.push(one);
        all.push(every);
        ratios.push(every / one);
    }
    let row = |threads, rounds, ratio_to_one| Contention {
        technique: technique.name(),
        threads,
        cpu_ns: Spread::of(rounds),
        ratio_to_one,
    };
    Ok(vec![row(1, alone, 1.0), row(cpus.len(), all, Spread::of(ratios).median)])
}

fn print_table(report: &Report) -> Result<()> {
    say!(
        "{:<10} {:>6} {:>7} {:<5} {:>11} {:>22} {:>9}",
        "technique",
        "dirty",
        "slots",
        "tier",
        "CPU ns",
        "low..high",
        "ns/page"
    );
    for row in &report.rows {
        let Spread { median, low, high, .. } = row.cpu_ns;
        say!(
            "{:<10} {:>6} {:>7} {:<5} {:>11.0} {:>22} {:>9.0}",
            row.technique,
            row.dirty_pages,
            row.slots,
            row.tier,
            median,
            format!("{low:.0}..{high:.0}"),
            row.cpu_ns_per_page,
        );
    }
    say!("");
    say!(
        "{:<10} {:>7} {:>11} {:>22} {:>9}",
        "technique",
        "threads",
        "CPU ns",
        "low..high",
        "x one"
    );
    for row in &report.contention {
        let Spread { median, low, high, .. } = row.cpu_ns;
        say!(
            "{:<10} {:>7} {:>11.0} {:>22} {:>9.2}",
            row.technique,
            row.threads,
            median,
            format!("{low:.0}..{high:.0}"),
            row.ratio_to_one,
        );
    }
    crate::print_left_out(&report.left_out)
}
