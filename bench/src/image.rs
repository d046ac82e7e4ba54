//! `midge-lab image`: machines of `midge image` side by side, from the start of QEMU to the first response, kernels in
//! turn; and the first process alone, natively, from its `main` until it listens.
//!
//! ```text
//!   settings, artifacts, program -- midge image --+-- initrd, unpacked --> namespaces --> /init as process 1
//!                                                 +-- run --once, for each kernel --> QEMU
//!                                                 +-- uki, for each kernel: its size
//! ```
//!
//! What a machine says of itself on its console stands beside what is seen from here.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use midge_bench::guests;
use midge_bench::measure::Spread;
use serde::Serialize;
use serde_json::Value;
use tempfile::TempDir;

use crate::boot::Running;
use crate::servers::{find_midge, free_address, output_of};

/// Becomes the first process of a machine.
const ENTER: &str = include_str!("../../tools/first-process.sh");
/// Functions of a machine whose settings nobody named.
const FUNCTIONS: u32 = 10;
/// Dirty pages and globals of each.
const DIRTY_PAGES: u32 = 3;
const GLOBALS: u32 = 2;
/// What code of images is compiled for, so that artifacts are taken as they are.
const PROCESSOR: &str = "x86-64-v3";
/// How long the first process may take natively.
const NATIVE_MAX: Duration = Duration::from_secs(60);
/// How often its console is read.
const LOOK_EVERY: Duration = Duration::from_millis(2);

/// Options of `midge-lab image`.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// The settings to serve; otherwise ten small functions.
    settings: Option<PathBuf>,
    /// The program, static (`cargo xtask static`).
    #[arg(
        long,
        value_name = "FILE",
        default_value = "target/x86_64-unknown-linux-gnu/release/midge"
    )]
    binary: PathBuf,
    /// A kernel for a PC (q35); ratios are taken to the last of several.
    #[arg(long = "kernel", value_name = "FILE")]
    kernels: Vec<PathBuf>,
    /// A kernel for a microVM.
    #[arg(long, value_name = "FILE")]
    microvm: Option<PathBuf>,
    /// Who computes: `tcg` or `kvm`.
    #[arg(long, default_value = "tcg")]
    accel: String,
    /// Rounds, after one that is not counted; each machine is started once in a round.
    #[arg(long, default_value_t = 10)]
    rounds: usize,
    /// Prints one JSON object.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Serialize)]
struct Report {
    schema: &'static str,
    accelerator: String,
    rows: Vec<Row>,
    left_out: Vec<String>,
}

#[derive(Debug, Serialize)]
struct Row {
    machine: String,
    /// Wall time from the start of QEMU until something answered.
    first_response_ms: Option<Spread>,
    /// That of the last kernel in the same round is 1.
    ratio_to_last: Option<Spread>,
    /// From the first process's start, as its console tells.
    listening_ms: Option<Spread>,
    /// From the server's.
    server_ms: Option<Spread>,
    /// When it began to serve; natively it would be this machine's.
    memory_mib: Option<Spread>,
    /// As a program for firmware, compressed.
    image_bytes: Option<u64>,
}

/// One start.
#[derive(Debug, Clone, Copy)]
struct Start {
    first_response_ms: Option<f64>,
    /// Nothing if the machine was ended before it had told: a response may be first.
    serving: Option<Serving>,
}

/// What a console tells when its server is ready.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Serving {
    server_us: f64,
    listening_us: f64,
    memory_mib: f64,
}

impl Serving {
    fn of(console: &str) -> Option<Self> {
        let (_, line) = console.lines().find_map(|line| line.split_once(" serving, "))?;
        let mut numbers = line.split(|sign: char| !sign.is_ascii_digit()).flat_map(str::parse);
        let mut next = || numbers.next();
        Some(Self { server_us: next()?, listening_us: next()?, memory_mib: next()? })
    }
}

/// A machine that is started in each round.
struct Lane {
    name: String,
    what: What,
    starts: Vec<Start>,
    to_last: Vec<f64>,
    image_bytes: Option<u64>,
}

enum What {
    /// The first process in namespaces, from this folder.
    Native(PathBuf),
    /// QEMU with a kernel, in this form of `midge image run`.
    Emulated { kernel: PathBuf, format: &'static str },
}

/// Runs the comparison.
///
/// # Errors
/// If an image cannot be made, or a machine does not serve.
pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let maker = Maker::new(arguments, &folder)?;
    let (mut lanes, mut left_out) = (Vec::new(), Vec::new());
    match maker.unpacked(folder.path()) {
        Ok(root) => lanes.push(Lane::new("process 1, natively".into(), What::Native(root))),
        Err(error) => left_out.push(format!("process 1, natively: {error:#}")),
    }
    for kernel in &arguments.kernels {
        let (version, bytes) = maker.measured(kernel, folder.path())?;
        let what = What::Emulated { kernel: kernel.clone(), format: "initrd" };
        lanes.push(Lane { image_bytes: bytes, ..Lane::new(format!("q35, {version}"), what) });
    }
    if let Some(kernel) = &arguments.microvm {
        let what = What::Emulated { kernel: kernel.clone(), format: "microvm" };
        lanes.push(Lane::new("microVM".into(), what));
    }
    for round in 0..=arguments.rounds.max(1) {
        let starts = lanes.iter().map(|lane| maker.start(&lane.what).context(lane.name.clone()));
        let starts = starts.collect::<Result<Vec<_>>>()?;
        // Files are in memory after the first one.
        if round > 0 {
            note(&mut lanes, &starts);
        }
    }
    let rows = lanes.into_iter().map(Lane::row).collect();
    let accelerator = arguments.accel.clone();
    let report = Report { schema: "midge-lab/image/1", accelerator, rows, left_out };
    if arguments.json { crate::print_json(&report) } else { print_table(&report) }
}

/// Keeps a round.
fn note(lanes: &mut [Lane], starts: &[Start]) {
    let is_pc = |lane: &Lane| matches!(lane.what, What::Emulated { format: "initrd", .. });
    let last = lanes.iter().rposition(is_pc).and_then(|last| starts[last].first_response_ms);
    for (lane, start) in lanes.iter_mut().zip(starts) {
        lane.starts.push(*start);
        lane.to_last.extend(start.first_response_ms.zip(last).map(|(own, last)| own / last));
    }
}

impl Lane {
    fn new(name: String, what: What) -> Self {
        Self { name, what, starts: Vec::new(), to_last: Vec::new(), image_bytes: None }
    }

    fn row(self) -> Row {
        let is_native = matches!(self.what, What::Native(_));
        let some = |values: Vec<f64>| (!values.is_empty()).then(|| Spread::of(values));
        let told = |field: fn(Serving) -> f64| {
            some(self.starts.iter().filter_map(|start| start.serving.map(field)).collect())
        };
        Row {
            first_response_ms: some(
                self.starts.iter().filter_map(|start| start.first_response_ms).collect(),
            ),
            listening_ms: told(|serving| serving.listening_us / 1e3),
            server_ms: told(|serving| serving.server_us / 1e3),
            memory_mib: told(|serving| serving.memory_mib).filter(|_| !is_native),
            ratio_to_last: some(self.to_last),
            image_bytes: self.image_bytes,
            machine: self.name,
        }
    }
}

/// Who makes images and starts them.
struct Maker<'a> {
    midge: PathBuf,
    settings: PathBuf,
    arguments: &'a Arguments,
}

impl<'a> Maker<'a> {
    fn new(arguments: &'a Arguments, folder: &TempDir) -> Result<Self> {
        let midge = find_midge()?;
        let settings = match &arguments.settings {
            Some(settings) => settings.clone(),
            None => write_functions(&midge, folder.path())?,
        };
        Ok(Self { midge, settings, arguments })
    }

    /// Begins a command that makes an image.
    fn image(&self, words: &[&str]) -> Command {
        let mut command = Command::new(&self.midge);
        command.arg("image").args(words).arg(&self.settings);
        command.arg("--binary").arg(&self.arguments.binary).stdin(Stdio::null());
        command
    }

    /// Makes an initramfs and unpacks it; returns the folder.
    fn unpacked(&self, folder: &Path) -> Result<PathBuf> {
        ensure!(rustix::process::getuid().is_root(), "only root has namespaces for it");
        let (archive, root) = (folder.join("initrd"), folder.join("root"));
        let mut command = self.image(&[]);
        command.args(["--format", "initrd", "--compress", "none", "--append", "midge.ip=none"]);
        output_of(command.arg("--output").arg(&archive))?;
        fs::create_dir(&root)?;
        let mut unpack = Command::new("cpio");
        unpack.args(["--extract", "--quiet"]).current_dir(&root).stdin(File::open(&archive)?);
        output_of(&mut unpack).context("apt-get install cpio")?;
        Ok(root)
    }

    /// Makes a program for firmware; returns the kernel's version, and its size, if this machine has the stub for it.
    fn measured(&self, kernel: &Path, folder: &Path) -> Result<(String, Option<u64>)> {
        let mut command = self.image(&[]);
        command.args(["--format", "uki", "--json", "--kernel"]).arg(kernel);
        command.arg("--output").arg(folder.join("image.efi"));
        let Ok(made) = output_of(&mut command) else {
            return Ok((kernel.display().to_string(), None));
        };
        let report: Value = serde_json::from_slice(&made.stdout)?;
        let version = report["kernel"].as_str().unwrap_or("a kernel without a version");
        Ok((version.split(' ').next().unwrap_or(version).to_owned(), report["bytes"].as_u64()))
    }

    fn start(&self, what: &What) -> Result<Start> {
        match what {
            What::Native(root) => natively(root),
            What::Emulated { kernel, format } => self.emulated(kernel, format),
        }
    }

    fn emulated(&self, kernel: &Path, format: &str) -> Result<Start> {
        let port = free_address()?.port();
        let mut command = self.image(&["run"]);
        command.args(["--once", "--json", "--accel", &self.arguments.accel, "--format", format]);
        command.args(["--port", &format!("{port}:8080")]).arg("--kernel").arg(kernel);
        let ended = output_of(&mut command)?;
        let report: Value = serde_json::from_slice(&ended.stdout)?;
        let first_response_ms = report["first_response_ms"].as_f64();
        let serving = Serving::of(&String::from_utf8_lossy(&ended.stderr));
        Ok(Start { first_response_ms, serving })
    }
}

/// Writes ten functions with an artifact each, and settings that serve them; returns these.
fn write_functions(midge: &Path, folder: &Path) -> Result<PathBuf> {
    let mut settings = "listen = \"0.0.0.0:8080\"\n".to_owned();
    for number in 0..FUNCTIONS {
        let (source, artifact) = (format!("f{number}.wat"), format!("f{number}.midge"));
        fs::write(folder.join(&source), guests::synthetic(DIRTY_PAGES + number, GLOBALS))?;
        let mut build = Command::new(midge);
        build.current_dir(folder).args(["build", &source, "--output", &artifact]);
        output_of(build.args(["--build-processor", PROCESSOR]))?;
        let route = if number == 0 { "/".to_owned() } else { format!("/f{number}") };
        settings += &format!(
            "[[function]]\nname = \"f{number}\"\nmodule = \"{artifact}\"\nroute = \"{route}\"\n"
        );
    }
    let file = folder.join("midge.toml");
    fs::write(&file, settings)?;
    Ok(file)
}

/// Starts the first process, waits until it listens, and ends it.
fn natively(root: &Path) -> Result<Start> {
    let folder = tempfile::tempdir()?;
    let (script, console) = (folder.path().join("enter"), folder.path().join("console"));
    fs::write(&script, ENTER)?;
    let file = File::create(&console)?;
    let mut command = Command::new("unshare");
    command.args(["--pid", "--net", "--mount", "--fork", "--kill-child", "--", "sh"]);
    command.arg(script).arg(root).stdin(Stdio::null());
    command.stdout(file.try_clone()?).stderr(file);
    let child = command.spawn().context("cannot start unshare")?;
    // With unshare all in its namespace ends.
    let mut machine = Running { child, cleans_up: false };
    let until = Instant::now() + NATIVE_MAX;
    loop {
        let said = fs::read(&console)?;
        let said = String::from_utf8_lossy(&said);
        if let Some(serving) = Serving::of(&said) {
            return Ok(Start { first_response_ms: None, serving: Some(serving) });
        }
        if Instant::now() > until || machine.child.try_wait()?.is_some() {
            bail!("it does not serve: {}", said.trim());
        }
        std::thread::park_timeout(LOOK_EVERY);
    }
}

fn print_table(report: &Report) -> Result<()> {
    say!(
        "{:<28} {:>9} {:>16} {:>7} {:>10} {:>16} {:>9} {:>7} {:>9}",
        "machine",
        "first ms",
        "low..high",
        "x last",
        "listens ms",
        "low..high",
        "server ms",
        "MiB",
        "image MiB"
    );
    for row in &report.rows {
        let median = |spread: Option<Spread>, digits: usize| {
            spread.map_or(String::new(), |spread| format!("{:.digits$}", spread.median))
        };
        let range = |spread: Option<Spread>, digits: usize| {
            spread.map_or(String::new(), |Spread { low, high, .. }| {
                format!("{low:.digits$}..{high:.digits$}")
            })
        };
        #[expect(clippy::cast_precision_loss, reason = "a size for people")]
        let image = row
            .image_bytes
            .map_or(String::new(), |bytes| format!("{:.1}", bytes as f64 / f64::from(1 << 20)));
        say!(
            "{:<28} {:>9} {:>16} {:>7} {:>10} {:>16} {:>9} {:>7} {image:>9}",
            row.machine,
            median(row.first_response_ms, 0),
            range(row.first_response_ms, 0),
            median(row.ratio_to_last, 2),
            median(row.listening_ms, 1),
            range(row.listening_ms, 1),
            median(row.server_ms, 1),
            median(row.memory_mib, 0),
        );
    }
    crate::print_left_out(&report.left_out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_console_tells_is_read() {
        let console = "SeaBIOS\r\nmidge[1]: 1.122 serving, 283387 us after the server's start and \
             353006 us after that of this process; 43 MiB of memory in use\r\n";
        let serving = Serving { server_us: 283_387.0, listening_us: 353_006.0, memory_mib: 43.0 };
        assert_eq!(Serving::of(console), Some(serving));
        assert_eq!(Serving::of("midge[1]: 1.122 serving, soon\n"), None);
        assert_eq!(Serving::of(""), None);
    }
}
