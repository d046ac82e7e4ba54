//! `midge-lab start`: every technique, in rounds that alternate, on one pinned CPU.

mod counters; // system calls and instructions, as other programs count them

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use midge_bench::guests::{self, Synthetic};
use midge_bench::harness::{Harness, artifact};
use midge_bench::measure::{Spread, calibrate, cpu_ns_each};
use midge_loader::engine::Engines;
use midge_loader::start::Technique;
use midge_loader::start::choose::{Machine, check};
use midge_ways::usage::Usage;
use serde::Serialize;

use self::counters::Counters;
use crate::processes::own_proportional_bytes;

/// CPU time of one technique in one round.
const ROUND: Duration = Duration::from_millis(60);

/// Options of `midge-lab start`.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Rounds; techniques alternate within a round.
    #[arg(long, default_value_t = 7)]
    rounds: usize,
    /// CPU to be pinned to.
    #[arg(long, default_value_t = 0)]
    cpu: usize,
    /// Dirty pages of the synthetic guests.
    #[arg(long, value_delimiter = ',', default_values_t = [3, 32])]
    pages: Vec<u32>,
    /// Guests of 3 dirty pages and 2 globals with images of so many KiB.
    #[arg(long, value_name = "KIB,KIB", value_delimiter = ',')]
    images: Vec<u32>,
    /// Guests of 3 dirty pages with so many globals.
    #[arg(long, value_name = "N,M", value_delimiter = ',')]
    globals: Vec<u32>,
    /// Guests of 3 dirty pages and 2 globals with tables of so many elements.
    #[arg(long, value_name = "N,M", value_delimiter = ',')]
    tables: Vec<u32>,
    /// Guests of 3 dirty pages and 2 globals that import so many functions.
    #[arg(long, value_name = "N,M", value_delimiter = ',')]
    imports: Vec<u32>,
    /// Guests in files: functions, components and programs, as modules or artifacts.
    #[arg(long, value_name = "FILE,FILE", value_delimiter = ',')]
    modules: Vec<PathBuf>,
    /// These techniques alone; `restore` is needed for the ratio.
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
    /// Prints one JSON object.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Serialize)]
struct Report {
    schema: &'static str,
    rounds: usize,
    cpu: usize,
    rows: Vec<Row>,
    left_out: Vec<String>,
}

#[derive(Debug, Serialize)]
struct Row {
    technique: &'static str,
    /// `hello`, `synthetic`, or a file's name.
    guest: String,
    #[serde(flatten)]
    state: State,
    tier: &'static str,
    /// Pages on the slot's dirty lists: with a fraction, for it is measured.
    dirty_pages: f64,
    cpu_ns: Spread,
    wall_ns: Spread,
    /// Of the CPU time, as the kernel's ticks sample it.
    system_share: Spread,
    faults: Spread,
    /// Where strace counts them.
    system_calls: Option<Spread>,
    /// Where the processor counts them.
    instructions: Option<Spread>,
    /// Where `restore` is among the techniques.
    ratio_to_restore: Option<f64>,
    /// Wall time of the part that gives the instance back: sets it back, or takes it down.
    give_ns: Spread,
    /// Memory of each of some instances that have served a request, their part of what they share.
    pss_kib_per_instance: Spread,
}

/// What a synthetic guest has; nothing of others.
#[derive(Debug, Clone, Default, Serialize)]
struct State {
    pages: Option<u32>,
    globals: Option<u32>,
    image_kib: Option<u32>,
    table_elements: Option<u32>,
    imports: Option<u32>,
}

impl State {
    const fn of(guest: Synthetic) -> Self {
        Self {
            pages: Some(guest.dirty_pages),
            globals: Some(guest.globals),
            image_kib: Some(guest.image_kib),
            table_elements: Some(guest.table_elements),
            imports: Some(guest.imports),
        }
    }
}

/// A guest: its name, what it has, and its source.
struct Guest {
    name: String,
    state: State,
    source: Vec<u8>,
}

impl Guest {
    /// Returns what it is called in the table.
    fn label(name: &str, state: &State) -> String {
        let State { pages: Some(pages), globals: Some(globals), .. } = state else {
            return name.to_owned();
        };
        let mut label = format!("{pages} pages, {globals} globals");
        for (number, unit) in [
            (state.image_kib, "KiB"),
            (state.table_elements, "elements"),
            (state.imports, "imports"),
        ] {
            if let Some(number) = number.filter(|number| *number > 0) {
                label.push_str(&format!(", {number} {unit}"));
            }
        }
        label
    }
}

struct Lane {
    technique: Technique,
    guest: String,
    state: State,
    harness: Harness,
    count: u32,
    rounds: Vec<f64>,
    wall_ns: Vec<f64>,
    system_share: Vec<f64>,
    faults: Vec<f64>,
    give_ns: Vec<f64>,
    pss_kib: f64,
    system_calls: Option<f64>,
    instructions: Option<f64>,
}

/// Instances that are held, and so many again, to see what one takes.
const HELD: u64 = 16;

/// Calls of a round in which giving back is timed, of those that a round else has.
const GIVE_ONE_IN: u32 = 8;

impl Lane {
    /// A round of calls: CPU and wall time, the kernel's part, and faults.
    fn round(&mut self) {
        let Self { harness, count, .. } = self;
        let (before, began) = (Usage::now(), Instant::now());
        let cpu_ns = cpu_ns_each(*count, || {
            std::hint::black_box(harness.call());
        });
        let (wall, used) = (began.elapsed(), Usage::now().since(before));
        let each = |sum: f64| sum / f64::from(*count);
        let (user, system) = (used.user.as_secs_f64(), used.system.as_secs_f64());
        #[expect(clippy::cast_precision_loss, reason = "a count for people")]
        let faults = each(used.faults as f64);
        let wall_ns = each(wall.as_secs_f64() * 1e9);
        self.rounds.push(cpu_ns);
        self.wall_ns.push(wall_ns);
        self.system_share.push(system / (user + system).max(1e-9));
        self.faults.push(faults);
    }

    /// Calls, and returns the nanoseconds that giving the instance back took of each call. Wall time, for a reading of
    /// CPU time takes longer than what is measured.
    fn give(&mut self) -> f64 {
        let count = (self.count / GIVE_ONE_IN).max(1);
        let (mut given, mut nothing) = (Duration::ZERO, Duration::ZERO);
        for _ in 0..count {
            let (_, used) = self.harness.serve();
            let began = Instant::now();
            std::hint::black_box(self.harness.give(used));
            let ended = Instant::now();
            given += ended - began;
            // What the clock itself takes.
            nothing += ended.elapsed();
        }
        given.saturating_sub(nothing).as_secs_f64() * 1e9 / f64::from(count)
    }
}

/// Returns the KiB that each further instance adds to the memory of a process that holds some, after a request.
/// That is a process of its own: what one technique takes down, the loader keeps for the next.
fn weigh(technique: Technique, guest: &Path) -> Result<f64> {
    let mut command = Command::new(std::env::current_exe()?);
    command.arg("hold").arg(technique.name()).arg(guest).stdin(Stdio::null());
    let ended = command.output()?;
    ensure!(ended.status.success(), "{}", String::from_utf8_lossy(&ended.stderr).trim());
    let bytes: f64 = String::from_utf8(ended.stdout)?.trim().parse()?;
    Ok(bytes / 1024.0)
}

/// Calls so often, and ends: what [`Counters`] counts.
///
/// # Errors
/// If the guest or the technique cannot be had.
pub(crate) fn call(technique: &str, guest: &Path, count: u32) -> Result<()> {
    let technique = Technique::from_name(technique).context("no such technique")?;
    let engines = Engines::new();
    let artifact = artifact(&std::fs::read(guest)?, &engines)?;
    let mut harness = Harness::new(&artifact, technique, &engines)?;
    for _ in 0..count {
        std::hint::black_box(harness.call());
    }
    Ok(())
}

/// Holds instances and prints what each adds ([`weigh`]).
///
/// # Errors
/// If the guest or the technique cannot be had.
pub(crate) fn hold(technique: &str, guest: &Path) -> Result<()> {
    say!("{}", bytes_of_each(technique, &std::fs::read(guest)?)?);
    Ok(())
}

fn bytes_of_each(technique: &str, guest: &[u8]) -> Result<u64> {
    let technique = Technique::ALL.into_iter().find(|known| known.name() == technique);
    let technique = technique.context("no such technique")?;
    let engines = Engines::new();
    let mut harness = Harness::new(&artifact(guest, &engines)?, technique, &engines)?;
    let mut serve = || -> Vec<_> { (0..HELD).map(|_| harness.serve().1).collect() };
    let _first = serve();
    let before = own_proportional_bytes()?;
    let _second = serve();
    let after = own_proportional_bytes()?;
    Ok(after.saturating_sub(before) / HELD)
}

/// Runs the comparison.
///
/// # Errors
/// If the CPU or an engine cannot be had.
pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let pinned = core_affinity::set_for_current(core_affinity::CoreId { id: arguments.cpu });
    anyhow::ensure!(pinned, "cannot be pinned to CPU {}", arguments.cpu);
    let engines = Engines::new();
    let (mut lanes, left_out) = lanes(arguments, &engines)?;
    for _ in 0..arguments.rounds.max(1) {
        lanes.iter_mut().for_each(Lane::round);
    }
    for _ in 0..arguments.rounds.max(1) {
        for lane in &mut lanes {
            let ns = lane.give();
            lane.give_ns.push(ns);
        }
    }
    let report = report(arguments, &mut lanes, left_out);
    if arguments.json { crate::print_json(&report) } else { print_table(&report) }
}

/// Returns the guests with chosen state, one for each number that was named.
fn synthetics(arguments: &Arguments) -> Result<Vec<Synthetic>> {
    let base = Synthetic::SMALL;
    let pages = arguments.pages.iter().map(|&dirty_pages| Synthetic { dirty_pages, ..base });
    let images = arguments.images.iter().map(|&image_kib| Synthetic { image_kib, ..base });
    let globals = arguments.globals.iter().map(|&globals| Synthetic { globals, ..base });
    let tables =
        arguments.tables.iter().map(|&table_elements| Synthetic { table_elements, ..base });
    let imports = arguments.imports.iter().map(|&imports| Synthetic { imports, ..base });
    let all: Vec<_> = pages.chain(images).chain(globals).chain(tables).chain(imports).collect();
    for guest in &all {
        anyhow::ensure!(
            (1..=guests::DIRTY_PAGES_MAX).contains(&guest.dirty_pages),
            "--pages: 1 to {}",
            guests::DIRTY_PAGES_MAX
        );
        anyhow::ensure!(
            guest.image_kib <= guests::IMAGE_KIB_MAX,
            "--images: up to {}",
            guests::IMAGE_KIB_MAX
        );
        anyhow::ensure!(
            guest.globals <= guests::GLOBALS_MAX,
            "--globals: up to {}",
            guests::GLOBALS_MAX
        );
        anyhow::ensure!(
            guest.table_elements <= guests::ELEMENTS_MAX,
            "--tables: up to {}",
            guests::ELEMENTS_MAX
        );
        anyhow::ensure!(
            guest.imports <= guests::IMPORTS_MAX,
            "--imports: up to {}",
            guests::IMPORTS_MAX
        );
    }
    Ok(all)
}

fn lanes(arguments: &Arguments, engines: &Engines) -> Result<(Vec<Lane>, Vec<String>)> {
    let machine = Machine::of_this_process();
    let mut guests = vec![Guest {
        name: "hello".to_owned(),
        state: State::default(),
        source: guests::HELLO.to_vec(),
    }];
    for guest in synthetics(arguments)? {
        let source = guest.text().into_bytes();
        guests.push(Guest { name: "synthetic".to_owned(), state: State::of(guest), source });
    }
    for file in &arguments.modules {
        let name = file.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let source = std::fs::read(file).with_context(|| file.display().to_string())?;
        guests.push(Guest { name, state: State::default(), source });
    }
    let (mut lanes, mut left_out) = (Vec::new(), Vec::new());
    let mut counters = Counters::find();
    for Guest { name, state, source } in guests {
        let guest = Guest::label(&name, &state);
        let artifact = artifact(&source, engines).with_context(|| guest.clone())?;
        let mut file = tempfile::NamedTempFile::new()?;
        file.write_all(&source)?;
        let is_wanted = |technique: &Technique| {
            arguments.only.is_empty() || arguments.only.iter().any(|name| name == technique.name())
        };
        for technique in Technique::ALL.into_iter().filter(is_wanted) {
            if let Err(obstacle) = check(technique, artifact.manifest(), machine) {
                left_out.push(format!("{technique} for {guest}: {}", obstacle.reason));
                continue;
            }
            let mut harness = match Harness::new(&artifact, technique, engines) {
                Ok(harness) => harness,
                Err(error) => {
                    left_out.push(format!("{technique} for {guest}: {error:#}"));
                    continue;
                }
            };
            if let Err(error) = harness.check() {
                let why = format!("{error:#}");
                let why = why.lines().next().unwrap_or_default();
                left_out.push(format!("{technique} for {guest}: {why}"));
                continue;
            }
            let count = calibrate(ROUND, || {
                std::hint::black_box(harness.call());
            });
            lanes.push(Lane {
                technique,
                guest: name.clone(),
                state: state.clone(),
                harness,
                count,
                rounds: Vec::new(),
                wall_ns: Vec::new(),
                system_share: Vec::new(),
                faults: Vec::new(),
                give_ns: Vec::new(),
                pss_kib: weigh(technique, file.path())
                    .with_context(|| format!("weighing {technique}"))?,
                system_calls: counters.system_calls(technique, file.path())?,
                instructions: counters.instructions(technique, file.path())?,
            });
        }
    }
    left_out.extend(counters.left_out);
    Ok((lanes, left_out))
}

fn report(arguments: &Arguments, lanes: &mut [Lane], left_out: Vec<String>) -> Report {
    let mut rows: Vec<Row> = Vec::with_capacity(lanes.len());
    for lane in lanes {
        let called = lane.harness.call();
        #[expect(clippy::cast_precision_loss, reason = "a count for people")]
        let dirty_pages = called.dirty_pages as f64;
        rows.push(Row {
            technique: lane.technique.name(),
            guest: lane.guest.clone(),
            state: lane.state.clone(),
            tier: called.tier.name(),
            dirty_pages,
            cpu_ns: Spread::of(std::mem::take(&mut lane.rounds)),
            wall_ns: Spread::of(std::mem::take(&mut lane.wall_ns)),
            system_share: Spread::of(std::mem::take(&mut lane.system_share)),
            faults: Spread::of(std::mem::take(&mut lane.faults)),
            system_calls: lane.system_calls.map(|count| Spread::of(vec![count])),
            instructions: lane.instructions.map(|count| Spread::of(vec![count])),
            ratio_to_restore: None,
            give_ns: Spread::of(std::mem::take(&mut lane.give_ns)),
            pss_kib_per_instance: Spread::of(vec![lane.pss_kib]),
        });
    }
    let restores: Vec<(String, f64)> = rows
        .iter()
        .filter(|row| row.technique == Technique::Restore.name())
        .map(|row| (Guest::label(&row.guest, &row.state), row.cpu_ns.median))
        .collect();
    for row in &mut rows {
        let label = Guest::label(&row.guest, &row.state);
        let restore = restores.iter().find(|(guest, _)| *guest == label);
        row.ratio_to_restore = restore.map(|(_, median)| row.cpu_ns.median / median);
    }
    Report {
        schema: "midge-lab/start/2",
        rounds: arguments.rounds,
        cpu: arguments.cpu,
        rows,
        left_out,
    }
}

fn print_table(report: &Report) -> Result<()> {
    say!(
        "{:<10} {:<36} {:<6} {:>6} {:>11} {:>22} {:>9} {:>11} {:>7} {:>7} {:>7} {:>9} {:>8}",
        "technique",
        "guest",
        "tier",
        "dirty",
        "CPU ns",
        "low..high",
        "x restore",
        "wall ns",
        "system",
        "faults",
        "calls",
        "give ns",
        "KiB each"
    );
    for row in &report.rows {
        let Spread { median, low, high, .. } = row.cpu_ns;
        let ratio = row.ratio_to_restore.map_or("-".into(), |ratio| format!("{ratio:.1}"));
        let calls = row.system_calls.map_or("-".into(), |calls| format!("{:.1}", calls.median));
        say!(
            "{:<10} {:<36} {:<6} {:>6} {:>11.0} {:>22} {ratio:>9} {:>11.0} {:>6.0}% {:>7.1} {calls:>7} {:>9.0} {:>8.0}",
            row.technique,
            Guest::label(&row.guest, &row.state),
            row.tier,
            row.dirty_pages,
            median,
            format!("{low:.0}..{high:.0}"),
            row.wall_ns.median,
            row.system_share.median * 100.0,
            row.faults.median,
            row.give_ns.median,
            row.pss_kib_per_instance.median
        );
    }
    crate::print_left_out(&report.left_out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_instance_weighs_what_it_wrote_at_least() {
        let guest = Synthetic { dirty_pages: 256, ..Synthetic::SMALL }.text();
        // Other tests of this process use memory too, but not in mebibytes.
        let bytes = bytes_of_each("cow", guest.as_bytes()).unwrap();
        assert!((512 << 10..4 << 20).contains(&bytes), "{bytes}");
        assert!(bytes_of_each("none", guest.as_bytes()).is_err());
    }
}
