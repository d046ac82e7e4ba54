//! `midge-lab ways`: what plain Linux has to make memory, or a process, pristine, over dirty pages and over slots.
//!
//! Each cycle writes a word to some pages, spread over the image, and makes the slot pristine again. In each
//! round every way is made anew, warmed up, and measured; what is told is the CPU time of this process and of its
//! children, for a way may have a thread, or the kernel, work beside it.

use std::collections::BTreeMap;
use std::ffi::CString;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use midge_bench::measure::Spread;
use midge_load::plot::{Line, Titles, svg};
use midge_ways::usage::Usage;
use midge_ways::{Kind, PAGE_BYTES, Plan, Way};
use serde::Serialize;

/// CPU time of a measurement.
const BUDGET: Duration = Duration::from_millis(20);

/// Cycles of a measurement at most.
const CYCLES_MAX: u32 = 1 << 20;

/// Options of `midge-lab ways`.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Rounds; ways alternate within a round.
    #[arg(long, default_value_t = 7)]
    rounds: usize,
    /// Size of the image, in KiB.
    #[arg(long, value_name = "KIB", default_value_t = 1024)]
    image: usize,
    /// Pages that a cycle writes.
    #[arg(long, value_name = "N,M", value_delimiter = ',', default_values_t = [0, 1, 3, 16, 64, 256])]
    pages: Vec<usize>,
    /// Slots that take turns.
    #[arg(long, value_name = "N,M", value_delimiter = ',', default_values_t = [1, 256])]
    slots: Vec<usize>,
    /// Spreads slots as far apart as memories are that need no checks of bounds: 6 GiB.
    #[arg(long)]
    spread: bool,
    /// Only these ways.
    #[arg(long, value_name = "NAME,NAME", value_delimiter = ',')]
    only: Vec<String>,
    /// CPU that it is pinned to; a thread or a child of a way is too.
    #[arg(long, default_value_t = 0)]
    cpu: usize,
    /// Writes a plot of the first number of slots, as SVG.
    #[arg(long, value_name = "FILE")]
    svg: Option<PathBuf>,
    /// Prints one JSON object.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Serialize)]
struct Report {
    schema: &'static str,
    image_bytes: usize,
    spread: bool,
    rounds: usize,
    rows: Vec<Row>,
    left_out: Vec<String>,
}

#[derive(Debug, Serialize)]
struct Row {
    way: &'static str,
    slots: usize,
    pages: usize,
    cpu_us: Spread,
    /// Share of it in the kernel.
    system_share: f64,
    wall_us: Spread,
    /// A slot's first cycle, with the pages that no lower number had written.
    first_us: Spread,
    faults: f64,
    /// Mappings of the process for each slot, beyond those it has anyway.
    mappings_per_slot: f64,
}

#[derive(Debug, Default)]
struct Lane {
    cpu_us: Vec<f64>,
    system: Vec<f64>,
    wall_us: Vec<f64>,
    faults: Vec<f64>,
    first_us: Vec<f64>,
    mappings: Vec<f64>,
}

/// Runs the comparison.
///
/// # Errors
/// If the CPU cannot be used, or a way leaves something behind.
pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let pinned = core_affinity::set_for_current(core_affinity::CoreId { id: arguments.cpu });
    ensure!(pinned, "cannot use CPU {}", arguments.cpu);
    let image_pages = arguments.image * 1024 / PAGE_BYTES;
    ensure!(0 < image_pages && image_pages <= 1 << 16, "--image: 4 to 262144 KiB");
    let most = arguments.pages.iter().copied().max().unwrap_or(0);
    ensure!(most <= image_pages, "--pages: the image has {image_pages}");
    ensure!(
        arguments.slots.iter().all(|slots| (1..=65_536).contains(slots)),
        "--slots: 1 to 65536"
    );
    let all = midge_ways::all();
    for name in &arguments.only {
        let names: Vec<_> = all.iter().map(|kind| kind.name).collect();
        ensure!(names.contains(&name.as_str()), "--only: {name} is none of {}", names.join(", "));
    }
    let is_wanted = |kind: &Kind| {
        arguments.only.is_empty() || arguments.only.iter().any(|name| name == kind.name)
    };
    let kinds: Vec<Kind> = all.into_iter().filter(is_wanted).collect();
    let program = std::env::current_exe()?.into_os_string().into_vec();
    let program = [program, b"ways-child".to_vec(), image_pages.to_string().into_bytes()];
    let program = program.into_iter().map(CString::new).collect::<Result<Vec<_>, _>>()?;
    let mut lanes: BTreeMap<(usize, usize, usize), Lane> = BTreeMap::new();
    let mut left_out = BTreeMap::new();
    for _ in 0..arguments.rounds {
        for (slots_at, &slots) in arguments.slots.iter().enumerate() {
            let plan = Plan::new(image_pages, slots, program.clone());
            let plan = Plan { is_spread: arguments.spread, ..plan };
            for (kind_at, kind) in kinds.iter().enumerate() {
                if !kind.has_slots && slots_at > 0 {
                    continue;
                }
                let mappings = mappings()?;
                let mut way = match (kind.make)(&plan) {
                    Ok(way) => way,
                    Err(error) => {
                        left_out.insert(kind.name, format!("{}: {error}", kind.name));
                        continue;
                    }
                };
                let slots = if kind.has_slots { slots } else { 1 };
                for (pages_at, &count) in arguments.pages.iter().enumerate() {
                    let lane = lanes.entry((slots_at, kind_at, pages_at)).or_default();
                    let pages: Vec<usize> =
                        (0..count).map(|page| page * image_pages / count).collect();
                    measure(way.as_mut(), slots, &pages, lane).with_context(|| kind.name)?;
                    #[expect(clippy::cast_precision_loss, reason = "a quotient for people")]
                    lane.mappings.push((self::mappings()? as f64 - mappings as f64) / slots as f64);
                    for slot in 0..slots {
                        ensure!(way.is_pristine(slot), "{} leaves something behind", kind.name);
                    }
                }
            }
        }
    }
    let rows = lanes.into_iter().map(|((slots_at, kind_at, pages_at), lane)| Row {
        way: kinds[kind_at].name,
        slots: if kinds[kind_at].has_slots { arguments.slots[slots_at] } else { 0 },
        pages: arguments.pages[pages_at],
        cpu_us: Spread::of(lane.cpu_us),
        system_share: Spread::of(lane.system).median,
        wall_us: Spread::of(lane.wall_us),
        first_us: Spread::of(lane.first_us),
        faults: Spread::of(lane.faults).median,
        mappings_per_slot: Spread::of(lane.mappings).median,
    });
    let report = Report {
        schema: "midge-lab/ways/1",
        image_bytes: image_pages * PAGE_BYTES,
        spread: arguments.spread,
        rounds: arguments.rounds,
        rows: rows.collect(),
        left_out: left_out.into_values().collect(),
    };
    if let Some(file) = &arguments.svg {
        let drawn = plot(&report, arguments.slots[0]);
        std::fs::write(file, drawn).with_context(|| format!("cannot write {}", file.display()))?;
    }
    if arguments.json { crate::print_json(&report) } else { print_table(&report, &kinds) }
}

fn measure(way: &mut dyn Way, slots: usize, pages: &[usize], lane: &mut Lane) -> Result<()> {
    // Every slot has been here once, and has what it keeps.
    let began = Instant::now();
    for slot in 0..slots {
        way.cycle(slot, pages)?;
    }
    #[expect(clippy::cast_precision_loss, reason = "a quotient for people")]
    lane.first_us.push(began.elapsed().as_secs_f64() * 1e6 / slots as f64);
    let mut cycles: u32 = 1;
    loop {
        let (before, began) = (Usage::now(), Instant::now());
        for cycle in 0..cycles {
            way.cycle(cycle as usize % slots, pages)?;
        }
        let (used, wall) = (Usage::now().since(before), began.elapsed());
        let cpu = used.user + used.system;
        if wall < BUDGET && cycles < CYCLES_MAX {
            // As many as fill the budget, by what these took, and not too many at once.
            let factor = BUDGET.as_secs_f64() / wall.as_secs_f64().max(1e-7);
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "1 to 32")]
            let factor = factor.ceil().clamp(2.0, 32.0) as u32;
            cycles = cycles.saturating_mul(factor).min(CYCLES_MAX);
            continue;
        }
        let each = |time: Duration| time.as_secs_f64() * 1e6 / f64::from(cycles);
        lane.cpu_us.push(each(cpu));
        lane.wall_us.push(each(wall));
        lane.system.push(used.system.as_secs_f64() / cpu.as_secs_f64().max(1e-9));
        #[expect(clippy::cast_precision_loss, reason = "a quotient for people")]
        lane.faults.push(used.faults as f64 / f64::from(cycles));
        return Ok(());
    }
}

fn mappings() -> Result<usize> {
    let text = std::fs::read("/proc/self/maps").context("/proc is not mounted")?;
    Ok(text.iter().filter(|byte| **byte == b'\n').count())
}

fn plot(report: &Report, slots: usize) -> String {
    let mut lines: Vec<Line> = Vec::new();
    for row in report.rows.iter().filter(|row| row.slots == slots || row.slots == 0) {
        // A logarithmic axis has no place for none.
        #[expect(clippy::cast_precision_loss, reason = "a count of pages")]
        let point = (row.pages as f64, row.cpu_us.median);
        if row.pages == 0 {
            continue;
        }
        match lines.iter_mut().find(|line| line.name == row.way) {
            Some(line) => line.points.push(point),
            None => lines.push(Line { name: row.way.into(), points: vec![point] }),
        }
    }
    let title = format!("pristine again: an image of {} KiB", report.image_bytes / 1024);
    svg(&Titles { title: &title, x: "pages written", y: "us of CPU for each cycle" }, &lines)
}

fn print_table(report: &Report, kinds: &[Kind]) -> Result<()> {
    say!(
        "{:<15} {:>6} {:>6} {:>10} {:>18} {:>7} {:>10} {:>10} {:>8} {:>9}",
        "way",
        "slots",
        "pages",
        "CPU us",
        "low..high",
        "kernel",
        "wall us",
        "first us",
        "faults",
        "mappings"
    );
    for row in &report.rows {
        let Spread { median, low, high, .. } = row.cpu_us;
        let slots = if row.slots == 0 { "-".into() } else { row.slots.to_string() };
        say!(
            "{:<15} {slots:>6} {:>6} {median:>10.2} {:>18} {:>6.0}% {:>10.2} {:>10.1} {:>8.1} {:>9.1}",
            row.way,
            row.pages,
            format!("{low:.2}..{high:.2}"),
            row.system_share * 100.0,
            row.wall_us.median,
            row.first_us.median,
            row.faults,
            row.mappings_per_slot,
        );
    }
    for kind in kinds {
        say!("{}: {}", kind.name, kind.about);
    }
    crate::print_left_out(&report.left_out)
}
