//! The machine that a figure was taken on, and how steady it was.
//!
//! A loop that does the same arithmetic each time is timed when a command begins and when it ends: where its times
//! differ, the clock of the processor did, or somebody else ran. Figures of such a run are to be read as ratios.

use std::io::Write;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use midge_bench::measure::Spread;
use serde::Serialize;

/// Times that the loop is run at each end.
const SAMPLES: usize = 25;

/// Steps of the loop: some milliseconds.
const STEPS: u64 = 2_000_000;

static BEGIN: OnceLock<Vec<f64>> = OnceLock::new();

/// True once it was told, as a part of a JSON object.
static IS_TOLD: AtomicBool = AtomicBool::new(false);

/// What stands beside a result.
#[derive(Debug, Serialize)]
pub(crate) struct Machine {
    command: Vec<String>,
    version: &'static str,
    kernel: String,
    cpu: String,
    cpus: usize,
    /// Milliseconds of the reference loop, before and after.
    reference_ms: Spread,
}

/// Times the loop before the command.
pub(crate) fn begin() {
    BEGIN.get_or_init(sample);
}

/// Times the loop after the command, and looks at the machine.
pub(crate) fn end() -> Machine {
    IS_TOLD.store(true, Ordering::Relaxed);
    let mut samples = sample();
    samples.extend(BEGIN.get().into_iter().flatten());
    let read = |file: &str| std::fs::read_to_string(file).unwrap_or_default();
    let info = read("/proc/cpuinfo");
    let model = info.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    Machine {
        command: command(),
        version: env!("CARGO_PKG_VERSION"),
        kernel: read("/proc/sys/kernel/osrelease").trim().to_owned(),
        cpu: model.map_or_else(String::new, |(_, name)| name.trim().to_owned()),
        // Not those that this thread is pinned to.
        cpus: info.lines().filter(|line| line.starts_with("processor")).count(),
        reference_ms: Spread::of(samples),
    }
}

/// Returns the words of this command; of the program's path, its name.
fn command() -> Vec<String> {
    let mut words: Vec<String> = std::env::args().collect();
    if let Some(name) = words.first_mut() {
        *name = name.rsplit('/').next().unwrap_or_default().to_owned();
    }
    words
}

/// Says it behind a table, if the command was measured.
pub(crate) fn tell() {
    if BEGIN.get().is_some() && !IS_TOLD.load(Ordering::Relaxed) {
        // A reader that has seen enough is no error.
        drop(writeln!(std::io::stdout(), "{}", end().text()));
    }
}

impl Machine {
    fn text(&self) -> String {
        let Spread { median, low, high, .. } = self.reference_ms;
        format!(
            "machine: {}, Linux {}; reference loop {median:.1} ms ({low:.1}..{high:.1}): {}",
            self.cpu,
            self.kernel,
            if high < low * STEADY { "steady" } else { "not steady, read the ratios" }
        )
    }
}

/// A machine whose reference loop stays within this factor is steady.
const STEADY: f64 = 1.1;

fn sample() -> Vec<f64> {
    let one = || {
        let began = Instant::now();
        let mut state = 1u64;
        for step in 0..STEPS {
            state = std::hint::black_box(state.wrapping_mul(0x5851_f42d_4c95_7f2d) ^ step);
        }
        std::hint::black_box(state);
        began.elapsed().as_secs_f64() * 1000.0
    };
    std::iter::repeat_with(one).take(SAMPLES).collect()
}
