//! `midge-lab density`: instances, each of which has served a request, until a limit of the machine stops them.
//!
//! A process for each row starts one instance after the other and keeps it, as an idle slot where the technique keeps
//! slots, until one cannot be started or the machine's memory falls below what is to be left. Then it looks at what is
//! used up: the mappings of a process, its address space, or memory.

use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use midge_abi::manifest::Isolation;
use midge_bench::guests;
use midge_bench::harness::{Harness, artifact_isolated, function};
use midge_bench::measure::Spread;
use midge_loader::engine::{Engines, POOL_INSTANCES_MAX};
use midge_loader::function::Function;
use midge_loader::slot::Used;
use midge_loader::start::Technique;
use midge_loader::start::choose::{Machine, check};
use serde::{Deserialize, Serialize};

use crate::processes::{field_kib, own_proportional_bytes};

/// Instances are started by so many between two looks at the machine's memory.
const LOOK_EVERY: usize = 64;
/// What is given up before the process is looked at, so that it has room for that.
const SPARE: usize = 32;
/// Address space of a process on x86-64, in KiB: 47 bits.
const ADDRESS_SPACE_KIB: u64 = 1 << 37;

/// Options of `midge-lab density`.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Techniques.
    #[arg(long, value_delimiter = ',', default_values_t = ["cow".to_owned(), "pool".into(), "restore".into()])]
    techniques: Vec<String>,
    /// What keeps guests inside their memory: guard-pages, bounds-checked.
    #[arg(long, value_delimiter = ',', default_values_t = ["guard-pages".to_owned(), "bounds-checked".into()])]
    isolations: Vec<String>,
    /// Pages of 4 KiB that a request writes to.
    #[arg(long, value_delimiter = ',', default_values_t = [3, 64])]
    pages: Vec<u32>,
    /// Functions in files, in place of those.
    #[arg(long, value_name = "FILE,FILE", value_delimiter = ',')]
    modules: Vec<PathBuf>,
    /// Instances at most.
    #[arg(long, default_value_t = 1_000_000)]
    most: usize,
    /// Memory of the machine that is left to others, in MiB.
    #[arg(long, value_name = "MIB", default_value_t = 2048)]
    leave: u64,
    /// Prints one JSON object.
    #[arg(long)]
    json: bool,
}

/// Options of the process that starts them.
#[derive(Debug, clap::Args)]
pub(crate) struct PackArguments {
    technique: String,
    isolation: String,
    guest: PathBuf,
    most: usize,
    leave: u64,
}

#[derive(Debug, Serialize)]
struct Report {
    schema: &'static str,
    leave_mib: u64,
    rows: Vec<Row>,
    left_out: Vec<String>,
}

#[derive(Debug, Serialize)]
struct Row {
    technique: String,
    isolation: String,
    guest: String,
    instances: Spread,
    kib_each: Spread,
    page_table_kib_each: Spread,
    mappings_each: Spread,
    address_space_mib_each: Spread,
    /// Wall time of starting one and serving its first request.
    start_us: Spread,
    limit: Limit,
}

/// What stopped it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Limit {
    what: String,
    /// What would let more of them be.
    change: String,
}

/// What a process measured.
#[derive(Debug, Serialize, Deserialize)]
struct Packed {
    instances: usize,
    bytes: u64,
    page_table_kib: u64,
    mappings: u64,
    address_space_kib: u64,
    seconds: f64,
    limit: Limit,
}

/// Runs the comparison.
///
/// # Errors
/// If the guests cannot be written.
pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let mut guests = Vec::new();
    if arguments.modules.is_empty() {
        for pages in &arguments.pages {
            ensure!(
                (1..=guests::DIRTY_PAGES_MAX).contains(pages),
                "--pages: 1 to {}",
                guests::DIRTY_PAGES_MAX
            );
            let file = folder.path().join(format!("{pages}.wat"));
            std::fs::write(&file, guests::synthetic(*pages, 2))?;
            guests.push((format!("{pages} dirty pages"), file));
        }
    }
    for file in &arguments.modules {
        let name = file.file_name().unwrap_or_default().to_string_lossy().into_owned();
        guests.push((name, std::path::absolute(file)?));
    }
    let (mut rows, mut left_out) = (Vec::new(), Vec::new());
    for (guest, file) in &guests {
        for technique in &arguments.techniques {
            for isolation in &arguments.isolations {
                match packed(arguments, technique, isolation, file) {
                    Ok(packed) => rows.push(Row::of(technique, isolation, guest, packed)),
                    Err(error) => {
                        left_out.push(format!("{technique}, {isolation}, {guest}: {error:#}"));
                    }
                }
            }
        }
    }
    let leave_mib = arguments.leave;
    let report = Report { schema: "midge-lab/density/1", leave_mib, rows, left_out };
    if arguments.json { crate::print_json(&report) } else { print_table(&report) }
}

/// Has a process of its own start them: what it used up goes with it.
fn packed(
    arguments: &Arguments,
    technique: &str,
    isolation: &str,
    guest: &std::path::Path,
) -> Result<Packed> {
    let mut command = Command::new(std::env::current_exe()?);
    command.args(["pack", technique, isolation]).arg(guest);
    command.args([arguments.most.to_string(), arguments.leave.to_string()]);
    let ended = command.stdin(Stdio::null()).stderr(Stdio::piped()).output()?;
    let why = String::from_utf8_lossy(&ended.stderr);
    let why = why.trim().trim_start_matches("midge-lab: ");
    ensure!(ended.status.success(), "{}", if why.is_empty() { "it was killed" } else { why });
    Ok(serde_json::from_slice(&ended.stdout)?)
}

impl Row {
    fn of(technique: &str, isolation: &str, guest: &str, packed: Packed) -> Self {
        #[expect(clippy::cast_precision_loss, reason = "figures for people")]
        let (count, numbers) = (
            packed.instances.max(1) as f64,
            [packed.bytes, packed.page_table_kib, packed.mappings, packed.address_space_kib]
                .map(|number| number as f64),
        );
        let [bytes, page_tables, mappings, address_space] = numbers;
        let each = |sum: f64| Spread::of(vec![sum / count]);
        Self {
            technique: technique.to_owned(),
            isolation: isolation.to_owned(),
            guest: guest.to_owned(),
            instances: Spread::of(vec![count]),
            kib_each: each(bytes / 1024.0),
            page_table_kib_each: each(page_tables),
            mappings_each: each(mappings),
            address_space_mib_each: each(address_space / 1024.0),
            start_us: each(packed.seconds * 1e6),
            limit: packed.limit,
        }
    }
}

/// An instance that is kept: as an idle slot, or as it was behind its request.
#[expect(dead_code, reason = "kept, and never looked at")]
enum Kept {
    Slot(Harness),
    Instance(Used),
}

/// Starts instances until a limit stops them, and prints what they took.
///
/// # Errors
/// If there is no such technique, or the guest may not use it.
pub(crate) fn pack(arguments: &PackArguments) -> Result<()> {
    let technique = Technique::from_name(&arguments.technique).context("no such technique")?;
    let isolation = Isolation::from_name(&arguments.isolation).context("no such isolation")?;
    ensure!(
        isolation == Isolation::GuardPages
            || matches!(technique, Technique::Restore | Technique::Reuse),
        "the engine's own memories have guard pages"
    );
    let engines = Engines::new();
    let guest = artifact_isolated(&std::fs::read(&arguments.guest)?, isolation, &engines)?;
    check(technique, guest.manifest(), Machine::of_this_process())
        .map_err(|obstacle| anyhow::anyhow!("{}", obstacle.reason))?;
    let function = function(&guest, technique, &engines)?;
    // Its room is made at once: growing it is what would fail first.
    let mut kept: Vec<Kept> = Vec::with_capacity(arguments.most);
    let before = Taken::now()?;
    let began = Instant::now();
    let stopped = loop {
        if kept.len() == arguments.most {
            break Stopped::Most;
        }
        if kept.len().is_multiple_of(LOOK_EVERY) && available_mib()? < arguments.leave {
            break Stopped::Memory;
        }
        match one(&function) {
            Ok(instance) => kept.push(instance),
            Err(error) => break Stopped::Failed(format!("{error:#}")),
        }
    };
    let seconds = began.elapsed().as_secs_f64();
    let instances = kept.len();
    let mappings = mappings()?;
    let limit = limit(&stopped, technique, mappings, address_space_kib()?, arguments.leave);
    // What follows needs memory itself.
    kept.truncate(instances.saturating_sub(SPARE).max(1));
    let after = Taken::now()?;
    let counted = kept.len();
    let packed = Packed {
        instances,
        bytes: scaled(after.bytes.saturating_sub(before.bytes), instances, counted),
        page_table_kib: scaled(after.page_table_kib - before.page_table_kib, instances, counted),
        mappings: mappings.saturating_sub(before.mappings),
        address_space_kib: scaled(
            after.address_space_kib - before.address_space_kib,
            instances,
            counted,
        ),
        seconds,
        limit,
    };
    midge_load::output::line(format_args!("{}", serde_json::to_string(&packed)?))?;
    Ok(())
}

/// What was measured of so many instances, for all of them.
fn scaled(sum: u64, instances: usize, counted: usize) -> u64 {
    sum * instances as u64 / counted.max(1) as u64
}

/// Starts an instance, and has it serve a request.
fn one(function: &Arc<Function>) -> Result<Kept> {
    let mut harness = Harness::of(function, 1);
    let (_, used) = harness.try_serve()?;
    if !matches!(function.technique(), Technique::Restore | Technique::Reuse) {
        return Ok(Kept::Instance(used));
    }
    match harness.give(used) {
        None => Ok(Kept::Slot(harness)),
        Some(discard) => anyhow::bail!("its slot was given up: {}", discard.name()),
    }
}

/// Why no more are started.
#[derive(Debug)]
enum Stopped {
    Most,
    Memory,
    Failed(String),
}

/// Says what is used up.
fn limit(
    stopped: &Stopped,
    technique: Technique,
    mappings: u64,
    address_space_kib: u64,
    leave: u64,
) -> Limit {
    let text = |what: String, change: &str| Limit { what, change: change.to_owned() };
    let error = match stopped {
        Stopped::Most => return text("as many as --most says".into(), "--most"),
        Stopped::Memory => {
            return text(
                format!("memory: less than {leave} MiB is left"),
                "more of it, or --leave",
            );
        }
        Stopped::Failed(error) => error,
    };
    let mappings_max = std::fs::read_to_string("/proc/sys/vm/max_map_count").unwrap_or_default();
    let mappings_max: u64 = mappings_max.trim().parse().unwrap_or(u64::MAX);
    if matches!(technique, Technique::Pool | Technique::PoolScan) && error.contains("limit") {
        let what = format!("the engine's pool holds {POOL_INSTANCES_MAX}");
        return text(what, "POOL_INSTANCES_MAX");
    }
    // The last few are those that an instance would have needed.
    if mappings_max.saturating_sub(16) <= mappings {
        let what = format!("mappings: vm.max_map_count is {mappings_max}");
        return text(what, "sysctl -w vm.max_map_count=1048576");
    }
    if ADDRESS_SPACE_KIB / 64 * 63 <= address_space_kib {
        let what = "address space: a process has 128 TiB".to_owned();
        return text(what, "isolation = \"bounds-checked\", or more processes");
    }
    text(error.clone(), "")
}

/// What this process takes.
#[derive(Debug, Clone, Copy)]
struct Taken {
    bytes: u64,
    page_table_kib: u64,
    mappings: u64,
    address_space_kib: u64,
}

impl Taken {
    fn now() -> Result<Self> {
        let status = std::fs::read_to_string("/proc/self/status")?;
        let field = |name: &str| field_kib(&status, name).with_context(|| format!("no {name}"));
        Ok(Self {
            bytes: own_proportional_bytes()?,
            page_table_kib: field("VmPTE:")?,
            mappings: mappings()?,
            address_space_kib: field("VmSize:")?,
        })
    }
}

fn address_space_kib() -> Result<u64> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    field_kib(&status, "VmSize:").context("no VmSize")
}

/// Counts the mappings of this process, line by line: their text may be of several MiB, and no memory be left.
fn mappings() -> Result<u64> {
    let mut file = BufReader::new(std::fs::File::open("/proc/self/maps")?);
    let (mut count, mut line) = (0, Vec::with_capacity(512));
    while file.read_until(b'\n', &mut line)? > 0 {
        line.clear();
        count += 1;
    }
    Ok(count)
}

fn available_mib() -> Result<u64> {
    let text = std::fs::read_to_string("/proc/meminfo")?;
    Ok(field_kib(&text, "MemAvailable:").context("no MemAvailable")? / 1024)
}

fn print_table(report: &Report) -> Result<()> {
    say!("instances that have served a request, until {} MiB of memory are left", report.leave_mib);
    say!(
        "{:<10} {:<15} {:<16} {:>9} {:>9} {:>11} {:>9} {:>9} {:>9}  {}",
        "technique",
        "isolation",
        "guest",
        "instances",
        "KiB each",
        "tables KiB",
        "mappings",
        "MiB space",
        "start us",
        "what stopped it, and what to change"
    );
    for row in &report.rows {
        let Limit { what, change } = &row.limit;
        let change = if change.is_empty() { String::new() } else { format!("; {change}") };
        say!(
            "{:<10} {:<15} {:<16} {:>9.0} {:>9.1} {:>11.1} {:>9.1} {:>9.0} {:>9.0}  {what}{change}",
            row.technique,
            row.isolation,
            row.guest,
            row.instances.median,
            row.kib_each.median,
            row.page_table_kib_each.median,
            row.mappings_each.median,
            row.address_space_mib_each.median,
            row.start_us.median,
        );
    }
    crate::print_left_out(&report.left_out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_used_up_is_named_with_what_to_change() {
        let failed = || Stopped::Failed("no instance: limit of 1000 reached".into());
        let of = |stopped: &Stopped, technique, mappings, address_space| {
            limit(stopped, technique, mappings, address_space, 100)
        };
        let restore = Technique::Restore;
        assert!(of(&Stopped::Memory, restore, 0, 0).what.contains("100 MiB"));
        assert!(of(&failed(), Technique::Pool, 0, 0).what.contains("1000"));
        let mappings = of(&failed(), restore, u64::MAX, 0);
        assert!(mappings.change.contains("max_map_count="), "{mappings:?}");
        let space = of(&failed(), restore, 0, ADDRESS_SPACE_KIB);
        assert!(space.change.contains("bounds-checked"), "{space:?}");
        assert!(of(&failed(), restore, 0, 0).what.contains("no instance"), "else what failed");
    }

    #[test]
    fn an_instance_of_each_technique_is_kept() {
        let engines = Engines::new();
        let source = guests::synthetic(3, 2);
        let of = |isolation| artifact_isolated(source.as_bytes(), isolation, &engines).unwrap();
        let guest = of(Isolation::GuardPages);
        for technique in [Technique::Restore, Technique::Cow] {
            let function = function(&guest, technique, &engines).unwrap();
            assert!(one(&function).is_ok(), "{technique}");
        }
        assert!(mappings().unwrap() > 10 && available_mib().unwrap() > 0);
    }
}
