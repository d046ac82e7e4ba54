//! `midge doctor`: what this machine offers, and the line that would better it.

use std::process::ExitCode;

use anyhow::Context;
use serde::Serialize;

use crate::{
    cli::DoctorArgs,
    config::counted,
    doctor::{self, Finding, Machine, Verdict},
    output::{self, Cell, Failure, Table, Tone},
    tuning::{self, State},
};

/// Version of the JSON object.
const SCHEMA: &str = "midge/doctor/1";

/// The JSON object.
#[derive(Debug, Serialize)]
struct Report<'a> {
    schema: &'static str,
    can_serve: bool,
    findings: Vec<ReportedFinding<'a>>,
    tuning: Vec<ReportedTuning>,
}

/// A row of the list that a machine image applies.
#[derive(Debug, Serialize)]
struct ReportedTuning {
    what: &'static str,
    wanted: &'static str,
    found: Option<String>,
    is_applied: bool,
    why: &'static str,
    effect: &'static str,
    line: String,
}

#[derive(Debug, Serialize)]
struct ReportedFinding<'a> {
    what: &'static str,
    found: &'a str,
    verdict: &'static str,
    why: &'static str,
    better: Option<&'a str>,
}

/// Runs the command. Its status is 1 only if something makes serving impossible.
///
/// # Errors
/// The root is no folder, or stdout cannot be written.
pub fn run(args: &DoctorArgs) -> anyhow::Result<ExitCode> {
    let machine = match &args.root {
        Some(root) => {
            std::fs::read_dir(root).map_err(|cause| {
                let what = format!("cannot read `{}`", root.display());
                Failure::new(what, "name a folder that holds proc and sys", cause)
            })?;
            Machine { root: root.clone(), probe: None }
        }
        None => Machine::this(),
    };
    let findings = doctor::examine(&machine);
    let can_serve = findings.iter().all(|finding| finding.verdict != Verdict::Bad);
    let shown = if args.json {
        output::print_json(&report(&findings, can_serve, tuned(&machine)))
    } else if args.tuning {
        output::print(&tuning_text(&tuned(&machine), output::stdout_is_colourful()))
    } else {
        output::print(&text(&findings, can_serve, output::stdout_is_colourful()))
    };
    shown.context("cannot write to stdout")?;
    Ok(if can_serve { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn report(findings: &[Finding], can_serve: bool, tuning: Vec<ReportedTuning>) -> Report<'_> {
    let findings = findings.iter().map(reported).collect();
    Report { schema: SCHEMA, can_serve, findings, tuning }
}

fn tuned(machine: &Machine) -> Vec<ReportedTuning> {
    let row = |what, wanted, why, effect, line, state: State| {
        let (found, is_applied) = match state {
            State::Absent => (None, false),
            State::Applied(found) => (Some(found), true),
            State::Other(found) => (Some(found), false),
        };
        ReportedTuning { what, wanted, found, is_applied, why, effect, line }
    };
    let settings = tuning::SETTINGS
        .iter()
        .map(|it| row(it.file, it.value, it.why, it.effect, it.line(), it.state(machine)));
    let words = tuning::WORDS
        .iter()
        .map(|it| row(it.name, it.value, it.why, it.effect, it.line(), it.state(machine)));
    settings.chain(words).collect()
}

fn tuning_text(rows: &[ReportedTuning], is_colourful: bool) -> String {
    let mut table = Table::new(&["set", "what", "found", "wanted", "effect"], is_colourful);
    for row in rows {
        let (word, tone) = match (&row.found, row.is_applied) {
            (None, _) => ("absent", Tone::Dim),
            (_, true) => ("yes", Tone::Good),
            (_, false) => ("no", Tone::Odd),
        };
        table.push(vec![
            Cell::new(word, tone),
            Cell::new(row.what, Tone::Plain),
            Cell::new(row.found.as_deref().unwrap_or("-"), Tone::Plain),
            Cell::new(row.wanted, Tone::Plain),
            Cell::new(row.effect, Tone::Plain),
        ]);
    }
    let mut text = table.to_string();
    for row in rows.iter().filter(|row| row.found.is_some() && !row.is_applied) {
        text += &format!("\n{}: {}\n  {}\n", row.what, row.why, row.line);
    }
    text + "\nCPUS are those of the workers; a machine image applies all but the words of the kernel's \
            command line, the last four.\n"
}

fn reported(finding: &Finding) -> ReportedFinding<'_> {
    let Finding { what, found, verdict, why, better } = finding;
    ReportedFinding { what, found, verdict: verdict.name(), why, better: better.as_deref() }
}

fn text(findings: &[Finding], can_serve: bool, is_colourful: bool) -> String {
    let mut table = Table::new(&["verdict", "what", "found"], is_colourful);
    for Finding { what, found, verdict, .. } in findings {
        table.push(vec![
            Cell::new(verdict.name(), tone(*verdict)),
            Cell::new(*what, Tone::Plain),
            Cell::new(found, Tone::Plain),
        ]);
    }
    let mut text = table.to_string();
    for Finding { what, why, better, .. } in findings {
        if let Some(better) = better {
            text += &format!("\n{what}: {why}\n  {better}\n");
        }
    }
    let count = |verdict| findings.iter().filter(|finding| finding.verdict == verdict).count();
    let summary = match (can_serve, count(Verdict::Warn)) {
        (false, _) => {
            format!("serving is impossible: {}", counted(count(Verdict::Bad), "obstacle"))
        }
        (true, 0) => "nothing to better".into(),
        (true, warnings) => format!("can serve; {} to better", counted(warnings, "thing")),
    };
    text + "\n" + &summary + "\n"
}

const fn tone(verdict: Verdict) -> Tone {
    match verdict {
        Verdict::Ok => Tone::Good,
        Verdict::Warn => Tone::Odd,
        Verdict::Bad => Tone::Bad,
    }
}
