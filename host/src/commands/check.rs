//! `midge check`: what is wrong with a settings file, or every setting in force.

use std::process::ExitCode;

use anyhow::Context;
use clap::ArgMatches;
use serde::Serialize;

use crate::{
    budget::Budget,
    cli::CheckArgs,
    config::{
        Complaints, ConfigError, Origin, Settings, SourceError, counted,
        explain::{self, Row},
        source::Place,
    },
    output::{self, Cell, Failure, Table, Tone},
};

/// Version of the JSON object.
const SCHEMA: &str = "midge/check/1";

/// The JSON object.
#[derive(Debug, Serialize)]
struct Report<'a> {
    schema: &'static str,
    file: String,
    ok: bool,
    functions: usize,
    routes: usize,
    faults: Vec<Fault<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    settings: Option<Vec<Explained>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    memory: Option<Budget>,
}

#[derive(Debug, Serialize)]
struct Fault<'a> {
    line: usize,
    column: usize,
    text: &'a str,
    what: &'a str,
    instead: &'a str,
}

#[derive(Debug, Serialize)]
struct Explained {
    setting: String,
    value: String,
    origin: ExplainedOrigin,
}

#[derive(Debug, Serialize)]
struct ExplainedOrigin {
    kind: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    line: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    column: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<&'static str>,
}

/// Runs the command.
///
/// # Errors
/// The file cannot be read, or stdout not written. A file with faults is no error: they are the answer.
pub fn run(args: &CheckArgs, matches: &ArgMatches) -> anyhow::Result<ExitCode> {
    match Settings::load(&args.file, &args.host.overrides(matches)) {
        Ok(settings) => {
            show_settings(args, &settings)?;
            Ok(ExitCode::SUCCESS)
        }
        Err(ConfigError::Faults(complaints)) => {
            show_faults(args, &complaints)?;
            Ok(ExitCode::FAILURE)
        }
        Err(ConfigError::Source(error)) => Err(unreadable(error).into()),
    }
}

/// Returns the failure of a file that cannot be read; other commands that take settings use it too.
#[must_use]
pub fn unreadable(error: SourceError) -> Failure {
    let next = match &error {
        SourceError::Read { .. } => "name the settings file: midge check FILE",
        SourceError::TooLarge { .. } => "spread the functions over several files and hosts",
        SourceError::NotText { .. } => "save the file as UTF-8",
    };
    let what = error.to_string();
    let cause = match error {
        SourceError::Read { cause, .. } => Some(cause.into()),
        _ => None,
    };
    Failure { what, next: next.into(), is_usage: false, cause }
}

fn show_settings(args: &CheckArgs, settings: &Settings) -> anyhow::Result<()> {
    let (functions, routes) = (settings.functions.len(), settings.route_count());
    let file = args.file.display().to_string();
    if args.json {
        let explained = || explain::rows(settings).into_iter().map(explained).collect();
        let listeners = settings.listen.value.0.len();
        let memory = args.explain.then(|| Budget::of(settings, listeners));
        let settings = args.explain.then(explained);
        let faults = Vec::new();
        let report =
            Report { schema: SCHEMA, file, ok: true, functions, routes, faults, settings, memory };
        return output::print_json(&report).context("cannot write to stdout");
    }
    let text = if args.explain {
        let budget = Budget::of(settings, settings.listen.value.0.len());
        format!("{}\n{}", table(settings), budget.text())
    } else {
        format!("{file}: ok, {}, {}\n", counted(functions, "function"), counted(routes, "route"))
    };
    output::print(&text).context("cannot write to stdout")
}

fn show_faults(args: &CheckArgs, complaints: &Complaints) -> anyhow::Result<()> {
    let file = args.file.display().to_string();
    if args.json {
        let faults = complaints.placed().map(|(Place { line, column }, complaint)| Fault {
            line,
            column,
            text: complaints.text_of(complaint),
            what: &complaint.what,
            instead: &complaint.instead,
        });
        let report = Report {
            schema: SCHEMA,
            file,
            ok: false,
            functions: 0,
            routes: 0,
            faults: faults.collect(),
            settings: None,
            memory: None,
        };
        return output::print_json(&report).context("cannot write to stdout");
    }
    let text = format!("{complaints}{file}: {}\n", counted(complaints.count(), "fault"));
    output::print(&text).context("cannot write to stdout")
}

fn table(settings: &Settings) -> Table {
    let headings = ["setting", "value", "set by"];
    let mut table = Table::new(&headings, output::stdout_is_colourful());
    for Row { setting, value, origin } in explain::rows(settings) {
        let tone = if origin == Origin::Default { Tone::Dim } else { Tone::Good };
        table.push(vec![
            Cell::new(setting, Tone::Plain),
            Cell::new(value, Tone::Plain),
            Cell::new(origin.to_string(), tone),
        ]);
    }
    table
}

fn explained(row: Row) -> Explained {
    let Row { setting, value, origin } = row;
    let (line, column, name) = match origin {
        Origin::Default => (None, None, None),
        Origin::File(Place { line, column }) => (Some(line), Some(column), None),
        Origin::Environment(name) | Origin::Flag(name) => (None, None, Some(name)),
    };
    Explained {
        setting,
        value,
        origin: ExplainedOrigin { kind: origin.kind(), line, column, name },
    }
}
