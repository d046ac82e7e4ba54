//! The built program and its commands.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::OnceLock;
use std::time::SystemTime;

/// Folders of the sources that the program is made of.
const SOURCES: [&str; 8] = [
    "abi/src",
    "image/src",
    "wasi/src",
    "loader/src",
    "net/src",
    "host/src",
    TEMPLATES,
    "examples",
];
/// Here every file is a source, for all are part of the program.
const TEMPLATES: &str = "host/templates";

/// Returns the folder of the workspace.
///
/// # Panics
/// Never: the package lies in it.
#[must_use]
pub fn workspace() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("the package is a folder of the workspace")
}

/// Returns the program that was built into the folder where this test lies. If it is missing, or older
/// than its sources, it is built first, once for each test binary.
///
/// # Panics
/// If it cannot be built.
#[must_use]
pub fn program() -> &'static Path {
    static PROGRAM: OnceLock<PathBuf> = OnceLock::new();
    PROGRAM.get_or_init(|| {
        let test = std::env::current_exe().expect("a test has a path");
        let profile = test.parent().and_then(Path::parent).expect("TARGET/PROFILE/deps/TEST");
        let program = profile.join("midge");
        if is_stale(&program) {
            build(profile);
        }
        assert!(program.exists(), "`{}` was built", program.display());
        program
    })
}

fn is_stale(program: &Path) -> bool {
    let Ok(built) = program.metadata().and_then(|metadata| metadata.modified()) else {
        return true;
    };
    SOURCES.iter().any(|folder| built < newest(&workspace().join(folder)))
}

/// Returns when the youngest source file below a folder was changed.
fn newest(folder: &Path) -> SystemTime {
    let entries = std::fs::read_dir(folder).expect("sources can be listed");
    let changed = entries.map(|entry| {
        let path = entry.expect("sources can be listed").path();
        let metadata = path.symlink_metadata().expect("sources can be looked at");
        let is_source = path.extension().is_some_and(|ending| ending == "rs" || ending == "wasm")
            || path.starts_with(workspace().join(TEMPLATES));
        match metadata.is_dir() {
            true if path.ends_with("examples/build") => SystemTime::UNIX_EPOCH,
            true => newest(&path),
            false if is_source => metadata.modified().expect("files have a time of change"),
            false => SystemTime::UNIX_EPOCH,
        }
    });
    changed.max().unwrap_or(SystemTime::UNIX_EPOCH)
}

fn build(profile: &Path) {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let target = profile.parent().expect("TARGET/PROFILE");
    let mut command = Command::new(cargo);
    command.args(["build", "--quiet", "-p", "midge", "-p", "midge-tests", "--target-dir"]);
    command.arg(target).current_dir(workspace());
    if profile.file_name() == Some(OsStr::new("release")) {
        command.arg("--release");
    }
    assert!(command.status().expect("cargo can be run").success(), "midge was built");
}

/// Returns a command of the program, free of settings from this environment.
#[must_use]
pub fn command<A: AsRef<OsStr>>(arguments: impl IntoIterator<Item = A>) -> Command {
    let mut command = Command::new(program());
    command.args(arguments).stdin(Stdio::null());
    without_settings(&mut command);
    command
}

/// Takes everything out of a command's environment that the program would read.
pub fn without_settings(command: &mut Command) {
    let names = [
        "MIDGE_LISTEN",
        "MIDGE_ADMIN",
        "MIDGE_WORKERS",
        "MIDGE_RING_TIER",
        "RUST_BACKTRACE",
        "RUST_LOG",
        "COLUMNS",
    ];
    for name in names {
        command.env_remove(name);
    }
    command.env("NO_COLOR", "1");
    // The whole suite on another way to the kernel.
    if let Some(tier) = std::env::var_os("MIDGE_TEST_RING_TIER") {
        command.env("MIDGE_RING_TIER", tier);
    }
}

/// How a command ended.
#[derive(Debug)]
pub struct Ended {
    /// Its exit status; `None` if a signal ended it.
    pub code: Option<i32>,
    /// What it wrote to stdout.
    pub stdout: String,
    /// What it wrote to stderr.
    pub stderr: String,
}

/// Runs a command of the program in a folder, to its end.
///
/// # Panics
/// If it cannot be run.
#[must_use]
pub fn midge(folder: &Path, arguments: &[&str]) -> Ended {
    command(arguments).current_dir(folder).output().map(Ended::from).expect("midge can be run")
}

impl From<Output> for Ended {
    fn from(output: Output) -> Self {
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        Self {
            code: output.status.code(),
            stdout: text(output.stdout),
            stderr: text(output.stderr),
        }
    }
}
