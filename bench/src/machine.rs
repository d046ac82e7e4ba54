//! The machine that a figure was taken on, and how steady it was.
//!
//! A loop that does the same arithmetic each time is timed when a command begins and when it ends: where its times
//! differ, the clock of the processor did, or somebody else ran. Figures of such a run are to be read as ratios.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};
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

/// What other programs that take part say of their version, by name.
static PROGRAMS: Mutex<BTreeMap<String, String>> = Mutex::new(BTreeMap::new());

/// Settings of the kernel that starts or servers depend on. A file that is not there is left out.
const SETTINGS: [&str; 8] = [
    "/proc/sys/vm/max_map_count",
    "/proc/sys/vm/overcommit_memory",
    "/proc/sys/net/core/somaxconn",
    "/proc/sys/net/ipv4/tcp_congestion_control",
    "/sys/kernel/mm/transparent_hugepage/enabled",
    "/sys/devices/system/clocksource/clocksource0/current_clocksource",
    "/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor",
    "/sys/devices/system/cpu/smt/control",
];

/// The longest version that is kept, in bytes: programs print what they like.
const VERSION_MAX: usize = 200;

/// What stands beside a result.
#[derive(Debug, Serialize)]
pub(crate) struct Machine {
    command: Vec<String>,
    version: &'static str,
    kernel: String,
    cpu: String,
    cpus: usize,
    cpu_flags: Vec<String>,
    /// By file.
    settings: BTreeMap<&'static str, String>,
    programs: BTreeMap<String, String>,
    /// Milliseconds of the reference loop, before and after.
    reference_ms: Spread,
}

/// Times the loop before the command.
pub(crate) fn begin() {
    BEGIN.get_or_init(sample);
}

/// Asks a program for its version, to say it beside the result.
pub(crate) fn note_version(name: &str, program: &Path) {
    // nginx alone knows no long options.
    let argument = if name == "nginx" { "-v" } else { "--version" };
    let mut programs = PROGRAMS.lock().unwrap_or_else(PoisonError::into_inner);
    if !programs.contains_key(name) {
        let asked = Command::new(program).arg(argument).stdin(Stdio::null()).output();
        let version = asked.ok().and_then(|output| first_line(&output.stdout, &output.stderr));
        programs.insert(name.to_owned(), version.unwrap_or_else(|| "not told".to_owned()));
    }
}

/// Returns the first line that says something; some programs say their version as an error.
fn first_line(output: &[u8], errors: &[u8]) -> Option<String> {
    let line = |bytes: &[u8]| {
        let text = String::from_utf8_lossy(&bytes[..bytes.len().min(VERSION_MAX)]).into_owned();
        text.lines().map(str::trim).find(|line| !line.is_empty()).map(str::to_owned)
    };
    line(output).or_else(|| line(errors))
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
        cpu_flags: flags(&info),
        settings: SETTINGS
            .into_iter()
            .map(|file| (file, read(file).trim().to_owned()))
            .filter(|(_, value)| !value.is_empty())
            .collect(),
        programs: PROGRAMS.lock().unwrap_or_else(PoisonError::into_inner).clone(),
        // Not those that this thread is pinned to.
        cpus: info.lines().filter(|line| line.starts_with("processor")).count(),
        reference_ms: Spread::of(samples),
    }
}

/// Returns what the first processor can do, in the kernel's words.
fn flags(info: &str) -> Vec<String> {
    let line = info.lines().find_map(|line| line.strip_prefix("flags")?.split_once(':'));
    line.map_or_else(Vec::new, |(_, words)| words.split_whitespace().map(str::to_owned).collect())
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_is_the_first_line_that_says_something() {
        let line = |output: &str, errors: &str| first_line(output.as_bytes(), errors.as_bytes());
        assert_eq!(line("\n some 1.2 \nbuilt by", "").unwrap(), "some 1.2");
        assert_eq!(line("", "nginx version: 3\n").unwrap(), "nginx version: 3");
        assert_eq!(line("", "\n"), None);
        assert_eq!(line(&"x".repeat(1 << 20), "").unwrap().len(), VERSION_MAX);
    }

    #[test]
    fn flags_are_those_of_the_first_processor() {
        assert_eq!(flags("processor: 0\nflags\t\t: fpu avx2\nflags\t\t: other\n"), ["fpu", "avx2"]);
        assert!(flags("").is_empty());
    }

    #[test]
    fn programs_say_their_versions_and_what_cannot_run_is_told() {
        note_version("midge-test-cargo", Path::new(env!("CARGO")));
        note_version("midge-test-missing", Path::new("no/such/program"));
        let programs = PROGRAMS.lock().unwrap();
        assert!(programs["midge-test-cargo"].starts_with("cargo "), "{programs:?}");
        assert_eq!(programs["midge-test-missing"], "not told");
    }
}
