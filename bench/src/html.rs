//! `midge-lab report`: several reports as one page, that opens from disk, without a network and without scripts.
//!
//! What a report holds is read from its JSON: rows of things that were set, and figures. Each figure is drawn:
//! over pages, slots or rates where rows differ in those, as lines; else as bars with the range of the rounds.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use midge_load::plot::{Line, Titles, escaped, svg};
use serde_json::Value;

use crate::compare::{Figure, figures, read_json};

/// Options of `midge-lab report`.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// What commands of the lab, or `midge load`, printed with --json.
    #[arg(required = true)]
    reports: Vec<PathBuf>,
    /// The page.
    #[arg(long, value_name = "FILE", default_value = "report.html")]
    out: PathBuf,
    /// Writes all figures as a table for other programs too.
    #[arg(long, value_name = "FILE")]
    csv: Option<PathBuf>,
}

/// What rows may be drawn over: where these differ, figures are lines.
const AXES: [&str; 8] = [
    "pages",
    "dirty_pages",
    "image_kib",
    "globals",
    "table_elements",
    "imports",
    "functions",
    "connections",
];

/// Figures of a report that are drawn.
const FIGURES_MAX: usize = 8;

/// Writes the page.
///
/// # Errors
/// If a file is no report, or the page cannot be written.
pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    write(&arguments.reports, &arguments.out, arguments.csv.as_deref())
}

/// Writes the page of these reports, and their figures as a table.
///
/// # Errors
/// If a file is no report, or the page cannot be written.
pub(crate) fn write(reports: &[PathBuf], out: &Path, table: Option<&Path>) -> Result<()> {
    let mut sections = String::new();
    let mut csv = String::from("report,row,figure,median,low,high\n");
    for file in reports {
        let report = read_json(file)?;
        ensure!(
            report["schema"].as_str().is_some_and(|schema| schema.starts_with("midge")),
            "{} is no report of the lab or of `midge load`",
            file.display()
        );
        let report = with_rows(report);
        let all = figures(&report);
        section(&mut sections, &report, &all);
        for ((row, figure), Figure { median, low, high }) in all {
            let name = file.display();
            push(&mut csv, format_args!("{name},\"{row}\",{figure},{median},{low},{high}"));
        }
    }
    let page = format!("{HEAD}{sections}</main>\n</body>\n</html>\n");
    std::fs::write(out, page).with_context(|| format!("cannot write {}", out.display()))?;
    if let Some(file) = table {
        std::fs::write(file, csv).with_context(|| format!("cannot write {}", file.display()))?;
    }
    Ok(())
}

const HEAD: &str = "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n<title>midge lab</title>\n<style>\n\
:root { color-scheme: light dark; --ink: #1a1a1a; --paper: #fff; --rule: #ccc; --bar: #0072b2; --range: #d55e00; }\n\
@media (prefers-color-scheme: dark) { :root { --ink: #e6e6e6; --paper: #16181c; --rule: #444; --bar: #56b4e9; --range: #e69f00; } }\n\
body { margin: 0; background: var(--paper); color: var(--ink); font: 15px/1.5 system-ui, sans-serif; }\n\
main { max-width: 64rem; margin: 0 auto; padding: 1rem; }\n\
section { margin-bottom: 3rem; break-inside: avoid-page; }\n\
code { font-size: 0.9em; overflow-wrap: anywhere; }\n\
.scroll { overflow-x: auto; }\n\
table { border-collapse: collapse; font-size: 0.85rem; font-variant-numeric: tabular-nums; }\n\
th, td { text-align: right; padding: 0.2rem 0.6rem; border-bottom: 1px solid var(--rule); white-space: nowrap; }\n\
th:first-child, td:first-child { text-align: left; }\n\
figure { margin: 1.5rem 0; }\nfigure svg { max-width: 100%; height: auto; }\n\
 .bars, figure svg { display: block; }\n.bars text { fill: var(--ink); font-size: 12px; } .bars rect { fill: var(--bar); } .bars line { stroke: var(--range); stroke-width: 2; } .bars path { stroke: var(--rule); }\n\
@media print { :root { --ink: #000; --paper: #fff; --rule: #999; --bar: #0072b2; --range: #d55e00; } }\n\
</style>\n</head>\n<body>\n<main>\n<h1>midge lab</h1>\n";

/// Gives what `midge load` measured the form of the lab's reports.
fn with_rows(mut report: Value) -> Value {
    if let Some(runs) = report.get("runs").and_then(Value::as_array) {
        let rows = runs.iter().map(|run| {
            let mut row = serde_json::Map::new();
            row.insert("server".into(), "latency".into());
            if let Some(rate) = run["rate_due"].as_f64() {
                row.insert("rate".into(), format!("{rate:.0} a second").into());
            }
            for name in ["p50", "p99", "p99.9", "max"] {
                let value = run["latency_us"][name].clone();
                let spread = serde_json::json!({"median": value, "low": value, "high": value});
                row.insert(format!("{name}_us"), spread);
            }
            Value::Object(row)
        });
        let rows = Value::Array(rows.collect());
        report["rows"] = rows;
    }
    report
}

fn section(out: &mut String, report: &Value, all: &BTreeMap<(String, String), Figure>) {
    let text = |value: &Value| escaped(value.as_str().unwrap_or_default());
    push(out, format_args!("<section>\n<h2>{}</h2>", text(&report["schema"])));
    let machine = &report["machine"];
    let command = machine.get("command").or(report.get("command")).and_then(Value::as_array);
    if let Some(words) = command {
        let words: Vec<_> = words.iter().map(text).collect();
        push(out, format_args!("<p><code>{}</code></p>", words.join(" ")));
    }
    if machine.is_object() {
        let figure = |key: &str| machine["reference_ms"][key].as_f64().unwrap_or(0.0);
        push(
            out,
            format_args!(
                "<p>{}, {} CPUs, Linux {}, midge {}; reference loop {:.1} ms ({:.1} to {:.1})</p>",
                text(&machine["cpu"]),
                machine["cpus"],
                text(&machine["kernel"]),
                text(&machine["version"]),
                figure("median"),
                figure("low"),
                figure("high")
            ),
        );
        // Reports of older versions have none.
        if let Some(programs) = machine["programs"].as_object().filter(|some| !some.is_empty()) {
            let versions: Vec<_> = programs
                .iter()
                .map(|(name, told)| format!("{}: {}", escaped(name), text(told)))
                .collect();
            push(out, format_args!("<p>{}</p>", versions.join("; ")));
        }
    }
    let mut names: Vec<&String> = Vec::new();
    for (_, name) in all.keys() {
        if !names.contains(&name) {
            names.push(name);
        }
    }
    for name in names.iter().take(FIGURES_MAX) {
        let (mut drawn, within) = lines(report, name);
        // What no line goes through.
        let rest: Vec<_> = all
            .iter()
            .filter(|((row, figure), _)| figure == *name && !within.contains(row))
            .map(|((row, _), figure)| (row.as_str(), *figure))
            .collect();
        if !rest.is_empty() {
            drawn.push_str(&bars(&rest));
        }
        let name = escaped(&name.replace('_', " "));
        push(out, format_args!("<figure>\n<figcaption>{name}</figcaption>\n{drawn}</figure>"));
    }
    table(out, all, &names);
    for line in report["left_out"].as_array().into_iter().flatten() {
        push(out, format_args!("<p>left out: {}</p>", text(line)));
    }
    out.push_str("</section>\n");
}

/// Draws a figure over each thing that its rows differ in, where that makes lines; a plot for each number of slots.
/// Returns the rows that lines go through as well.
fn lines(report: &Value, figure: &str) -> (String, BTreeSet<String>) {
    let (mut drawn, mut within) = (String::new(), BTreeSet::new());
    let rows: Vec<&Value> = report["rows"].as_array().into_iter().flatten().collect();
    for axis in AXES {
        let values: BTreeSet<u64> = rows.iter().filter_map(|row| row[axis].as_u64()).collect();
        if values.len() < 3 {
            continue;
        }
        let slots: BTreeSet<u64> = rows.iter().filter_map(|row| row["slots"].as_u64()).collect();
        // What keeps no slots stands beside those with the fewest.
        let kept: Vec<u64> = slots.into_iter().filter(|slots| *slots > 0).collect();
        for slots in if kept.is_empty() { vec![None] } else { kept.iter().map(Some).collect() } {
            let is_of_plot = |row: &&&Value| match (slots, row["slots"].as_u64()) {
                (Some(wanted), Some(0)) => Some(wanted) == kept.first(),
                (Some(wanted), Some(slots)) => slots == *wanted,
                _ => true,
            };
            let of_plot: Vec<&Value> = rows.iter().filter(is_of_plot).copied().collect();
            let all = lines_of(&of_plot, axis, figure, &mut within);
            if all.is_empty() {
                continue;
            }
            let title = slots.map_or(String::new(), |slots| format!("slots: {slots}"));
            let (x, y) = (axis.replace('_', " "), figure.replace('_', " "));
            drawn.push_str(&svg(&Titles { title: &title, x: &x, y: &y }, &all));
        }
    }
    (drawn, within)
}

/// Returns the lines of rows that differ in nothing else; points alone say more as bars.
fn lines_of(rows: &[&Value], axis: &str, figure: &str, within: &mut BTreeSet<String>) -> Vec<Line> {
    let of_row = |row: &Value| {
        let of_row = figures(&serde_json::json!({"rows": [row]}));
        let found = of_row.into_iter().find(|((_, name), _)| name == figure);
        found.filter(|(_, value)| value.median > 0.0).map(|((label, _), value)| (label, value))
    };
    let mut all: Vec<(Line, Vec<String>)> = Vec::new();
    for row in rows {
        // A logarithmic axis has no place for none.
        let Some(x) = row[axis].as_u64().filter(|x| *x > 0) else { continue };
        let mut without = (*row).clone();
        if let Some(fields) = without.as_object_mut() {
            fields.remove(axis);
            fields.remove("slots");
        }
        let (Some((name, value)), Some((label, _))) = (of_row(&without), of_row(row)) else {
            continue;
        };
        #[expect(clippy::cast_precision_loss, reason = "a count of pages or slots")]
        let point = (x as f64, value.median);
        match all.iter_mut().find(|(line, _)| line.name == name) {
            Some((line, labels)) => {
                line.points.push(point);
                labels.push(label);
            }
            None => all.push((Line { name, points: vec![point] }, vec![label])),
        }
    }
    all.retain(|(line, _)| line.points.len() > 1);
    within.extend(all.iter().flat_map(|(_, labels)| labels.iter().cloned()));
    let mut lines: Vec<Line> = all.into_iter().map(|(line, _)| line).collect();
    shorten(&mut lines);
    lines
}

/// Takes out of the lines' names what all of them share.
fn shorten(lines: &mut [Line]) {
    let parts = |name: &str| -> Vec<String> { name.split(", ").map(str::to_owned).collect() };
    let names: Vec<Vec<String>> = lines.iter().map(|line| parts(&line.name)).collect();
    if names.len() < 2 {
        return;
    }
    let is_shared = |part: &String| names.iter().all(|name| name.contains(part));
    for (line, name) in lines.iter_mut().zip(&names) {
        let own: Vec<&str> =
            name.iter().filter(|part| !is_shared(part)).map(String::as_str).collect();
        if !own.is_empty() {
            line.name = own.join(", ");
        }
    }
}

/// Where values differ by more than this, their bars are drawn on a logarithmic scale: else the short ones are none.
const LINEAR_MAX: f64 = 40.0;

/// How long bars are.
#[derive(Debug, Clone, Copy)]
enum Scale {
    /// From nothing to the highest value.
    Linear(f64),
    /// By the decimal logarithm, from one of a value below the lowest to that of the highest.
    Logarithmic(f64, f64),
}

impl Scale {
    fn of(rows: &[(&str, Figure)]) -> Self {
        let highest = rows.iter().map(|(_, figure)| figure.high).fold(0.0, f64::max);
        let positive = rows.iter().map(|(_, figure)| figure.low).filter(|low| *low > 0.0);
        let lowest = positive.fold(f64::INFINITY, f64::min);
        if lowest * LINEAR_MAX < highest {
            // The shortest bar has a length too.
            Self::Logarithmic((lowest / 2.0).log10(), highest.log10())
        } else {
            Self::Linear(highest.max(f64::MIN_POSITIVE))
        }
    }

    /// Returns the part of the longest bar that a value takes.
    fn part(self, value: f64) -> f64 {
        match self {
            Self::Linear(highest) => value / highest,
            Self::Logarithmic(..) if value <= 0.0 => 0.0,
            Self::Logarithmic(from, to) => ((value.log10() - from) / (to - from)).max(0.0),
        }
    }

    /// Returns the powers of ten that a reader of logarithmic bars needs.
    fn ticks(self) -> Vec<f64> {
        let Self::Logarithmic(from, to) = self else { return Vec::new() };
        let mut ticks = Vec::new();
        let mut power = from.ceil();
        while power <= to {
            ticks.push(10f64.powf(power));
            power += 1.0;
        }
        ticks
    }
}

/// Draws bars with the range of the rounds.
fn bars(rows: &[(&str, Figure)]) -> String {
    const WIDTH: f64 = 900.0;
    const LEFT: f64 = 320.0;
    const ROW: f64 = 24.0;
    let scale = Scale::of(rows);
    let ticks = scale.ticks();
    let at = |value: f64| scale.part(value) * (WIDTH - LEFT - 90.0);
    #[expect(clippy::cast_precision_loss, reason = "some rows")]
    let foot = rows.len() as f64 * ROW;
    let height = foot + if ticks.is_empty() { 4.0 } else { ROW };
    let mut out = format!(
        "<svg class=\"bars\" role=\"img\" xmlns=\"http://www.w3.org/2000/svg\" width=\"{WIDTH}\" height=\"{height}\" viewBox=\"0 0 {WIDTH} {height}\">\n"
    );
    for tick in &ticks {
        let x = LEFT + at(*tick);
        push(
            &mut out,
            format_args!(
                "<path d=\"M{x:.1} 0V{foot}\"/><text x=\"{x:.1}\" y=\"{}\" text-anchor=\"middle\">{tick}</text>",
                foot + ROW / 2.0 + 4.0
            ),
        );
    }
    if !ticks.is_empty() {
        let y = foot + ROW / 2.0 + 4.0;
        push(
            &mut out,
            format_args!(
                "<text x=\"{}\" y=\"{y}\" text-anchor=\"end\">logarithmic</text>",
                LEFT - 24.0
            ),
        );
    }
    for (index, (label, Figure { median, low, high })) in rows.iter().enumerate() {
        #[expect(clippy::cast_precision_loss, reason = "some rows")]
        let y = index as f64 * ROW;
        let middle = y + ROW / 2.0;
        push(
            &mut out,
            format_args!(
                "<text x=\"{}\" y=\"{}\" text-anchor=\"end\">{}</text>\
                 <rect x=\"{LEFT}\" y=\"{}\" width=\"{:.1}\" height=\"14\"/>\
                 <line x1=\"{:.1}\" y1=\"{middle}\" x2=\"{:.1}\" y2=\"{middle}\"/>\
                 <text x=\"{:.1}\" y=\"{}\">{}</text>",
                LEFT - 8.0,
                middle + 4.0,
                escaped(label),
                y + 5.0,
                at(*median),
                LEFT + at(*low),
                LEFT + at(*high),
                LEFT + at(*high).max(at(*median)) + 8.0,
                middle + 4.0,
                short(*median)
            ),
        );
    }
    out.push_str("</svg>\n");
    out
}

fn table(out: &mut String, all: &BTreeMap<(String, String), Figure>, names: &[&String]) {
    let mut rows: Vec<&String> = all.keys().map(|(row, _)| row).collect();
    rows.dedup();
    out.push_str("<div class=\"scroll\"><table>\n<thead><tr><th>row</th>");
    for name in names {
        push(out, format_args!("<th>{}</th>", escaped(&name.replace('_', " "))));
    }
    out.push_str("</tr></thead>\n<tbody>\n");
    for row in rows {
        push(out, format_args!("<tr><td>{}</td>", escaped(row)));
        for name in names {
            match all.get(&(row.clone(), (*name).clone())) {
                Some(Figure { median, low, high }) if low < high => push(
                    out,
                    format_args!("<td>{} ({}..{})</td>", short(*median), short(*low), short(*high)),
                ),
                Some(figure) => push(out, format_args!("<td>{}</td>", short(figure.median))),
                None => out.push_str("<td></td>"),
            }
        }
        out.push_str("</tr>\n");
    }
    out.push_str("</tbody></table></div>\n");
}

fn short(value: f64) -> String {
    match value.abs() {
        10_000.0.. => format!("{value:.0}"),
        100.0.. => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

fn push(out: &mut String, line: std::fmt::Arguments<'_>) {
    writeln!(out, "{line}").expect("a string takes it");
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn drawn(report: &Value) -> String {
        let mut out = String::new();
        section(&mut out, report, &figures(report));
        out
    }

    fn spread(median: f64) -> Value {
        json!({"median": median, "low": median * 0.9, "high": median * 1.2})
    }

    #[test]
    fn rows_become_bars_and_a_table() {
        let report = json!({"schema": "midge-lab/x/1", "rows": [
            {"server": "a<b", "cpu_ns": spread(100.0)},
            {"server": "c", "cpu_ns": spread(50.0)},
        ], "machine": {"command": ["midge-lab", "x"], "cpu": "y", "reference_ms": spread(5.0),
            "programs": {"some <server>": "1.2"}}});
        let page = drawn(&report);
        assert_eq!(page.matches("<rect").count(), 2);
        assert!(page.contains("a&lt;b") && !page.contains("a<b"), "{page}");
        assert!(page.contains("100.0 (90.00..120.0)"), "{page}");
        assert!(page.contains("<code>midge-lab x</code>"));
        assert!(page.contains("some &lt;server&gt;: 1.2"), "{page}");
    }

    #[test]
    fn bars_of_very_different_lengths_are_logarithmic() {
        let figure = |value: f64| Figure { median: value, low: value, high: value };
        let check = |values: &[f64], ticks: &[f64], parts: &[f64]| {
            let rows: Vec<_> = values.iter().map(|value| ("row", figure(*value))).collect();
            let scale = Scale::of(&rows);
            assert_eq!(scale.ticks(), ticks, "{values:?}");
            for (value, part) in values.iter().zip(parts) {
                assert!(
                    (scale.part(*value) - part).abs() < 1e-9,
                    "{value}: {}",
                    scale.part(*value)
                );
            }
        };
        check(&[1.0, 30.0], &[], &[1.0 / 30.0, 1.0]);
        check(&[0.0, 0.0], &[], &[0.0, 0.0]);
        // From 1 to 200, in halves of its logarithm.
        check(&[2.0, 200.0, 0.0], &[1.0, 10.0, 100.0], &[2f64.log(200.0), 1.0, 0.0]);
        let page = bars(&[("a", figure(2.0)), ("b", figure(200.0))]);
        assert!(page.contains(">logarithmic<") && page.contains(">100<"), "{page}");
        assert!(!bars(&[("a", figure(2.0))]).contains("logarithmic"));
    }

    #[test]
    fn rows_over_pages_become_lines() {
        let row = |way: &str, pages: u64| {
            let time = f64::from(u32::try_from(pages).unwrap());
            json!({"way": way, "pages": pages, "cpu_us": spread(time)})
        };
        let rows: Vec<Value> =
            ["p", "q"].iter().flat_map(|way| [0, 1, 3, 16].map(|pages| row(way, pages))).collect();
        let page = drawn(&json!({"schema": "midge-lab/ways/1", "rows": rows}));
        assert_eq!(page.matches("<polyline").count(), 2, "{page}");
    }

    /// Guests of `start` differ from one in one thing each: a plot for each such thing, and bars for the others.
    #[test]
    fn rows_that_differ_in_several_things_become_a_plot_for_each() {
        let row = |technique: &str, guest: &str, pages: Option<u64>, image_kib: Option<u64>| {
            json!({"technique": technique, "guest": guest, "pages": pages, "image_kib": image_kib,
                "cpu_ns": spread(10.0)})
        };
        let mut rows = Vec::new();
        for technique in ["cow", "restore"] {
            rows.push(row(technique, "hello", None, None));
            rows.extend([1, 3, 32].map(|pages| row(technique, "synthetic", Some(pages), Some(0))));
            rows.extend([64, 1024].map(|kib| row(technique, "synthetic", Some(3), Some(kib))));
        }
        let page = drawn(&json!({"schema": "midge-lab/start/2", "rows": rows}));
        let count = |what: &str| page.matches(what).count();
        assert_eq!(count("<polyline"), 4, "two plots of two lines: {page}");
        assert_eq!(count("height=\"14\""), 2, "hello stands in bars: {page}");
        assert!(page.contains("image kib") && page.contains(">restore<"), "{page}");
    }

    #[test]
    fn runs_of_the_generator_are_rows_too() {
        let run = |rate: f64| json!({"rate_due": rate, "latency_us": {"p50": 1.0, "p99": 2.0, "p99.9": 3.0, "max": 4.0}});
        let report = with_rows(json!({"schema": "midge/load/1", "runs": [run(10.0), run(20.0)]}));
        let page = drawn(&report);
        assert!(page.contains("latency, 20 a second"), "{page}");
        assert_eq!(page.matches("<figure>").count(), 4, "{page}");
    }
}
