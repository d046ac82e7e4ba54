//! `midge-lab compare`: two reports of the same command, and which differences are more than noise.
//!
//! A figure is a median with the lowest and the highest round. Two figures are apart when no round of one lies
//! within the rounds of the other; then the difference is named, better or worse. Everything else is noise, however
//! far the medians lie from each other: more rounds, or a quieter machine, would tell.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use serde::Serialize;
use serde_json::Value;

/// Size of a report.
const REPORT_BYTES_MAX: u64 = 64 << 20;

/// Options of `midge-lab compare`.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// The report before: what a command of the lab printed with --json.
    before: PathBuf,
    /// The report after.
    after: PathBuf,
    /// Per cent that a median must differ by, besides being apart.
    #[arg(long, value_name = "PERCENT", default_value_t = 2.0)]
    least: f64,
    /// Shows figures that are the same within their noise too.
    #[arg(long)]
    all: bool,
    /// Prints one JSON object.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Serialize)]
struct Report {
    schema: &'static str,
    of: String,
    rows: Vec<Row>,
    /// Rows that only one of the reports has.
    unmatched: Vec<String>,
    worse: usize,
    better: usize,
    noise: usize,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
struct Row {
    row: String,
    figure: String,
    before: Figure,
    after: Figure,
    /// Median after over median before.
    ratio: f64,
    verdict: Verdict,
}

#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(crate) struct Figure {
    pub(crate) median: f64,
    pub(crate) low: f64,
    pub(crate) high: f64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Verdict {
    Better,
    Worse,
    Noise,
}

/// Compares; fails if a figure is worse.
///
/// # Errors
/// If a file is no report of the lab, the two are of different commands, or a figure is worse.
pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let (before, after) = (read(&arguments.before)?, read(&arguments.after)?);
    let kind = |report: &Value| report["schema"].as_str().unwrap_or_default().to_owned();
    ensure!(
        kind(&before) == kind(&after),
        "reports of two commands: {} and {}",
        kind(&before),
        kind(&after)
    );
    let report = compare(&before, &after, arguments.least);
    if arguments.json {
        crate::print_json(&report)?;
    } else {
        print_table(&report, arguments.all)?;
    }
    if report.worse > 0 {
        bail!("{} of {} figures are worse", report.worse, report.rows.len());
    }
    Ok(())
}

/// Reads a text of the size of a report.
///
/// # Errors
/// If it cannot be read, or is larger.
pub(crate) fn read_text(path: &Path) -> Result<String> {
    let describe = || format!("cannot read {}", path.display());
    let size = std::fs::metadata(path).with_context(describe)?.len();
    ensure!(size <= REPORT_BYTES_MAX, "{} is too large for a report", path.display());
    std::fs::read_to_string(path).with_context(describe)
}

/// Reads a report of whatever command.
///
/// # Errors
/// If it cannot be read, or is no JSON.
pub(crate) fn read_json(path: &Path) -> Result<Value> {
    serde_json::from_str(&read_text(path)?)
        .with_context(|| format!("{} is no JSON: was it printed with --json?", path.display()))
}

fn read(path: &Path) -> Result<Value> {
    let report = read_json(path)?;
    ensure!(
        report["schema"].as_str().is_some_and(|schema| schema.starts_with("midge-lab/"))
            && report["rows"].is_array(),
        "{} is no report of midge-lab with rows",
        path.display()
    );
    Ok(report)
}

fn compare(before: &Value, after: &Value, least: f64) -> Report {
    let (old, new) = (figures(before), figures(after));
    let mut rows = Vec::new();
    for ((row, figure), before) in &old {
        if let Some(after) = new.get(&(row.clone(), figure.clone())) {
            let verdict = verdict(figure, *before, *after, least);
            let ratio = after.median / before.median;
            let (row, figure) = (row.clone(), figure.clone());
            rows.push(Row { row, figure, before: *before, after: *after, ratio, verdict });
        }
    }
    let names = |figures: &BTreeMap<(String, String), Figure>, others: &BTreeMap<_, _>| {
        let missing = figures.keys().filter(|key| !others.contains_key(*key));
        missing.map(|(row, figure)| format!("{row}: {figure}")).collect::<Vec<_>>()
    };
    let unmatched = [names(&old, &new), names(&new, &old)].concat();
    let count = |wanted| rows.iter().filter(|row| row.verdict == wanted).count();
    Report {
        schema: "midge-lab/compare/1",
        of: before["schema"].as_str().unwrap_or_default().to_owned(),
        worse: count(Verdict::Worse),
        better: count(Verdict::Better),
        noise: count(Verdict::Noise),
        unmatched,
        rows,
    }
}

/// Returns all figures, by what their row is and by their own name.
pub(crate) fn figures(report: &Value) -> BTreeMap<(String, String), Figure> {
    let mut all = BTreeMap::new();
    for row in report["rows"].as_array().into_iter().flatten() {
        let Some(fields) = row.as_object() else { continue };
        let mut label = Vec::new();
        for (name, value) in fields {
            match value {
                Value::String(text) => label.insert(0, text.clone()),
                Value::Bool(true) => label.push(name.clone()),
                // Whole numbers are what was set; what was measured has a fraction, or is a figure.
                Value::Number(number) if number.is_u64() && !COUNTS.contains(&name.as_str()) => {
                    label.push(format!("{number} {}", name.replace('_', " ")));
                }
                _ => {}
            }
        }
        collect(&label.join(", "), "", row, &mut all);
    }
    all
}

/// Whole numbers that were measured all the same.
const COUNTS: [&str; 4] = ["closed", "bytes_per_connection", "resident_bytes", "refused"];

fn collect(row: &str, name: &str, value: &Value, all: &mut BTreeMap<(String, String), Figure>) {
    let number = |key: &str| value.get(key).and_then(Value::as_f64);
    if let (Some(median), Some(low), Some(high)) = (number("median"), number("low"), number("high"))
    {
        all.insert((row.to_owned(), name.to_owned()), Figure { median, low, high });
        return;
    }
    for (key, inner) in value.as_object().into_iter().flatten() {
        let name = if name.is_empty() { key.clone() } else { format!("{name} {key}") };
        collect(row, &name, inner, all);
    }
}

fn verdict(figure: &str, before: Figure, after: Figure, least: f64) -> Verdict {
    let is_apart = before.high < after.low || after.high < before.low;
    let change = (after.median / before.median - 1.0).abs() * 100.0;
    // NaN, of a median of 0, is no change that could be told.
    if !is_apart || change.is_nan() || change < least {
        return Verdict::Noise;
    }
    let is_more = before.median < after.median;
    let more_is_better = figure.contains("per_second") || figure.starts_with("rate");
    if is_more == more_is_better { Verdict::Better } else { Verdict::Worse }
}

fn print_table(report: &Report, all: bool) -> Result<()> {
    say!("{}: {} better, {} worse, {} noise", report.of, report.better, report.worse, report.noise);
    let figure = |Figure { median, low, high }: Figure| {
        format!("{} ({}..{})", short(median), short(low), short(high))
    };
    for row in report.rows.iter().filter(|row| all || row.verdict != Verdict::Noise) {
        say!(
            "{:<7} {:>7}  {}, {}: {} -> {}",
            match row.verdict {
                Verdict::Better => "better",
                Verdict::Worse => "worse",
                Verdict::Noise => "noise",
            },
            format!("x{:.3}", row.ratio),
            row.row,
            row.figure,
            figure(row.before),
            figure(row.after)
        );
    }
    for name in &report.unmatched {
        say!("in one report only: {name}");
    }
    Ok(())
}

fn short(value: f64) -> String {
    if value.abs() < 100.0 { format!("{value:.2}") } else { format!("{value:.0}") }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn report(restore: [f64; 3], rate: [f64; 3]) -> Value {
        let spread =
            |[median, low, high]: [f64; 3]| json!({"median": median, "low": low, "high": high});
        json!({"schema": "midge-lab/x/1", "rows": [
            {"server": "midge", "pipeline": 1, "closed": 7, "cpu_ns": spread(restore)},
            {"server": "midge", "pipeline": 16, "closes": true, "mib_per_second": spread(rate), "share": 0.5},
        ]})
    }

    #[test]
    fn what_is_apart_is_named_and_the_rest_is_noise() {
        let before = report([100.0, 90.0, 110.0], [100.0, 90.0, 110.0]);
        let check = |restore, rate, wanted: [Verdict; 2]| {
            let report = compare(&before, &report(restore, rate), 2.0);
            let verdicts: Vec<_> = report.rows.iter().map(|row| row.verdict).collect();
            assert_eq!(verdicts, wanted, "{report:?}");
            assert!(report.unmatched.is_empty());
        };
        use Verdict::{Better, Noise, Worse};
        let same = [100.0, 90.0, 110.0];
        check(same, same, [Noise, Noise]);
        check([130.0, 109.0, 140.0], same, [Noise, Noise]);
        check([130.0, 111.0, 140.0], same, [Worse, Noise]);
        check([80.0, 70.0, 89.0], same, [Better, Noise]);
        check(same, [80.0, 70.0, 89.0], [Noise, Worse]);
        check(same, [130.0, 111.0, 140.0], [Noise, Better]);
    }

    #[test]
    fn a_small_change_counts_as_noise_however_quiet_the_machine() {
        let before = report([100.0, 99.9, 100.1], [1.0, 1.0, 1.0]);
        let after = report([101.0, 100.9, 101.1], [1.0, 1.0, 1.0]);
        assert_eq!(compare(&before, &after, 2.0).worse, 0);
        assert_eq!(compare(&before, &after, 0.5).worse, 1);
    }

    #[test]
    fn rows_are_told_apart_by_what_was_set() {
        let all = figures(&report([1.0; 3], [1.0; 3]));
        let rows: Vec<_> = all.keys().map(|(row, figure)| format!("{row}: {figure}")).collect();
        assert_eq!(
            rows,
            ["midge, 1 pipeline: cpu_ns", "midge, closes, 16 pipeline: mib_per_second"]
        );
    }

    #[test]
    fn a_row_that_one_report_lacks_is_named() {
        let before = report([1.0; 3], [1.0; 3]);
        let mut after = before.clone();
        after["rows"].as_array_mut().unwrap().pop();
        assert_eq!(compare(&before, &after, 2.0).unmatched.len(), 1);
    }
}
