//! `midge build`: module in, artifact out.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Context, Result};
use midge_loader::artifact::{self, Artifact};
use midge_loader::engine::Engines;
use midge_loader::start::choose::{Machine, choose};
use serde::Serialize;

use crate::cli::BuildArgs;
use crate::compile;
use crate::output::{self, Cell, Table, Tone, printable};

/// Version of the JSON object.
const SCHEMA: &str = "midge/build/1";
/// Ending of artifacts.
const ENDING: &str = "midge";

#[derive(Debug, Serialize)]
struct Report {
    schema: &'static str,
    source: String,
    artifact: String,
    bytes: usize,
    build_ms: u128,
    technique: &'static str,
    reason: String,
    startup_log: Vec<String>,
    /// Why traps tell no lines, if that was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    no_lines: Option<String>,
}

/// Runs the command.
///
/// # Errors
/// The module is refused, or the artifact cannot be written; a file that was there is unchanged then.
pub fn run(args: &BuildArgs) -> Result<ExitCode> {
    let began = Instant::now();
    let recipe = args.files.recipe(&args.file, args.form.form());
    let compiled = compile::of_file(&recipe, &args.limits.limits())?;
    let engines = Engines::of(args.limits.limits().processor.value);
    // What was built is opened once, so that no artifact is written that this host would refuse.
    let opened = Artifact::from_bytes(&compiled.artifact, &engines)
        .context("the artifact that was just built is refused")?;
    let target = target(args);
    artifact::write(&target, &compiled.artifact)
        .with_context(|| format!("cannot write `{}`", target.display()))?;
    let choice = choose(opened.manifest(), Machine::of_this_process());
    show(
        args,
        Report {
            schema: SCHEMA,
            source: args.file.display().to_string(),
            artifact: target.display().to_string(),
            bytes: compiled.artifact.len(),
            build_ms: began.elapsed().as_millis(),
            technique: choice.technique.name(),
            reason: choice.reason,
            startup_log: compiled.startup_log,
            no_lines: compiled.no_lines,
        },
    )?;
    Ok(ExitCode::SUCCESS)
}

fn target(args: &BuildArgs) -> PathBuf {
    args.output.clone().unwrap_or_else(|| args.file.with_extension(ENDING))
}

fn show(args: &BuildArgs, report: Report) -> Result<()> {
    if args.json {
        return Ok(output::print_json(&report)?);
    }
    let mut table =
        Table::new(&["artifact", "bytes", "built in", "technique"], output::stdout_is_colourful());
    table.push(vec![
        Cell::new(report.artifact, Tone::Good),
        Cell::new(report.bytes.to_string(), Tone::Plain),
        Cell::new(format!("{} ms", report.build_ms), Tone::Plain),
        Cell::new(report.technique, Tone::Plain),
    ]);
    output::print(&format!("{table}{}: {}\n", report.technique, report.reason))?;
    if let Some(reason) = report.no_lines {
        output::print(&format!("no lines: {}\n", printable(&reason)))?;
    }
    for line in report.startup_log {
        output::print(&format!("start-up logged {}\n", printable(&line)))?;
    }
    Ok(())
}
