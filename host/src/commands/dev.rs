//! `midge dev`: builds, serves, and does both again when a file has changed.
//!
//! ```text
//!   a file changed --> the build command --done--> the settings are read again, as by SIGHUP
//!                                        --failed--> what was served is served on
//! ```
//!
//! Changes are looked for by polling: that works on every file system, and needs no limit of the kernel's.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::{Instant, SystemTime};

use anyhow::{Context, Result};
use clap::ArgMatches;
use midge_abi::manifest::Traces;

use super::serve::{announce, catch_signals, refused, until_stopped};
use crate::cli::DevArgs;
use crate::config::{Settings, counted};
use crate::deployment::open;
use crate::host::Host;
use crate::log::start_host_log;
use crate::output::{self, Failure};

/// The settings of a folder.
const SETTINGS: &str = "midge.toml";
/// A folder with this file is built by `make` if not told otherwise.
const MAKEFILE: &str = "Makefile";
/// Most files that are watched: beyond them a look takes longer than the time between two.
const FILES_MAX: usize = 20_000;
/// Folders that builds write to, and that are not sources.
const UNWATCHED: [&str; 5] = ["target", "node_modules", "__pycache__", "build", "zig-out"];
/// Endings of what builds make.
const MADE: [&str; 4] = ["wasm", "midge", "o", "part"];

/// Runs the command.
///
/// # Errors
/// The first build failed or its result cannot be served, or a worker ended by itself.
pub fn run(args: &DevArgs, matches: &ArgMatches) -> Result<ExitCode> {
    let folder = args.folder.as_path();
    let file = folder.join(SETTINGS);
    let build =
        args.build.clone().or_else(|| folder.join(MAKEFILE).exists().then(|| "make".to_owned()));
    let overrides = args.host.overrides(matches);
    let load = || -> Result<Settings> {
        let mut settings = Settings::load(&file, &overrides).map_err(refused)?;
        settings.log.breaks_lines = true;
        settings.traces = Traces::Lines;
        Ok(settings)
    };
    make(folder, build.as_deref())?;
    let settings = load()?;
    start_host_log(&settings.log)?;
    // What a build itself writes is no change, so this look comes after it; and before anything is opened, so that
    // whatever changes from there on is seen.
    let mut bundles = bundles(&settings);
    let mut seen = Seen::look(folder, &bundles)?;
    let mut host = Host::start(&settings, &open)?;
    let signals = catch_signals()?;
    announce(&host, args.json)?;
    tracing::info!("watching {} below {}", counted(seen.count, "file"), folder.display());
    let mut is_due = false;
    let look = |host: &mut Host| {
        let Ok(now) = Seen::look(folder, &bundles) else { return };
        if now != seen {
            // Editors write a file in steps: it is built once nothing changes any more.
            (seen, is_due) = (now, true);
            return;
        }
        if !std::mem::take(&mut is_due) {
            return;
        }
        let began = Instant::now();
        let mut looked = None;
        let built = make(folder, build.as_deref()).and_then(|()| load()).and_then(|settings| {
            bundles = self::bundles(&settings);
            looked = Seen::look(folder, &bundles).ok();
            host.reload(&settings, &open)
        });
        match built {
            Ok(()) => tracing::info!("serving the change, made in {:.1?}", began.elapsed()),
            Err(error) => {
                output::complain(&output::error_text(&error));
                tracing::warn!("serving what was there before");
            }
        }
        seen = looked.or_else(|| Seen::look(folder, &bundles).ok()).unwrap_or(now);
    };
    let reread = |_: &mut Host| tracing::warn!("SIGHUP: changes are taken up by themselves");
    until_stopped(&mut host, &signals, settings.drain_timeout.value, reread, look)?;
    host.stop()?;
    Ok(ExitCode::SUCCESS)
}

/// Returns the folders that functions find as files, wherever they lie.
fn bundles(settings: &Settings) -> Vec<PathBuf> {
    let mappings = settings.functions.iter().flat_map(|function| &function.files.value.0);
    mappings.map(|mapping| mapping.folder.clone()).collect()
}

/// Runs the build command in the folder; its output is the user's to read.
fn make(folder: &Path, command: Option<&str>) -> Result<()> {
    let Some(command) = command else { return Ok(()) };
    let mut shell = Command::new("sh");
    // What it prints is no data of this command's.
    shell.args(["-c", &format!("{{ {command}\n}} 1>&2")]).current_dir(folder);
    let status = shell.status().context("cannot start `sh`")?;
    if status.success() {
        return Ok(());
    }
    Err(Failure {
        what: format!("`{command}` failed: {status}"),
        next: "mend what it says above, or name another command with --build".to_owned(),
        is_usage: false,
        cause: None,
    }
    .into())
}

/// What the sources looked like at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Seen {
    newest: SystemTime,
    /// Of all files: removing one changes it, and so does an older one that takes another's place.
    bytes: u64,
    count: usize,
}

impl Seen {
    /// Looks at all files that could be sources, and at all that functions find, whatever they are called.
    ///
    /// # Errors
    /// The folder itself cannot be read.
    fn look(folder: &Path, bundles: &[PathBuf]) -> Result<Self> {
        let mut seen = Self { newest: SystemTime::UNIX_EPOCH, bytes: 0, count: 0 };
        let entries = fs::read_dir(folder);
        let entries = entries.with_context(|| format!("cannot read `{}`", folder.display()))?;
        seen.add(entries, is_watched);
        for bundle in bundles {
            if let Ok(entries) = fs::read_dir(bundle) {
                seen.add(entries, |_, _| true);
            }
        }
        Ok(seen)
    }

    /// Adds what a folder has. What cannot be read, or has just gone, is no source.
    fn add(&mut self, entries: fs::ReadDir, is_watched: fn(&Path, bool) -> bool) {
        for entry in entries.flatten() {
            let (path, Ok(kind)) = (entry.path(), entry.file_type()) else { continue };
            if self.count == FILES_MAX || !is_watched(&path, kind.is_dir()) {
                continue;
            }
            if kind.is_dir() {
                if let Ok(entries) = fs::read_dir(&path) {
                    self.add(entries, is_watched);
                }
            } else if let Ok(facts) = entry.metadata() {
                self.count += 1;
                self.bytes = self.bytes.wrapping_mul(31).wrapping_add(facts.len());
                self.newest = self.newest.max(facts.modified().unwrap_or(SystemTime::UNIX_EPOCH));
            }
        }
    }
}

/// True for what may be a source: neither hidden, nor made by a build.
fn is_watched(path: &Path, is_folder: bool) -> bool {
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let ending = path.extension().and_then(|ending| ending.to_str()).unwrap_or_default();
    !name.starts_with('.')
        && if is_folder { !UNWATCHED.contains(&name) } else { !MADE.contains(&ending) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sources_are_told_from_what_is_made_of_them() {
        let folder = tempfile::tempdir().unwrap();
        let put = |path: &str, text: &str| {
            let path = folder.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        put("main.c", "int");
        put("src/a/b.rs", "fn");
        let look = |bundles: &[PathBuf]| Seen::look(folder.path(), bundles).unwrap();
        let seen = look(&[]);
        assert_eq!(seen.count, 2);
        for made in ["out.wasm", "target/x.rs", ".hidden", "src/node_modules/x.js", "a.midge"] {
            put(made, "made");
        }
        assert_eq!(look(&[]), seen);
        let bundles = [folder.path().join("target"), folder.path().join("gone")];
        assert_eq!(
            look(&bundles).count,
            3,
            "files for a guest are watched, whatever they are called"
        );
        put("src/a/b.rs", "fn b");
        assert_ne!(look(&[]), seen);
    }

    #[test]
    fn a_failed_build_is_told_with_its_command() {
        let folder = tempfile::tempdir().unwrap();
        make(folder.path(), Some("true")).unwrap();
        make(folder.path(), None).unwrap();
        let error = make(folder.path(), Some("exit 3")).unwrap_err().to_string();
        assert!(error.contains("`exit 3` failed") && error.contains('3'), "{error}");
    }
}
