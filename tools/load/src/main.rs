//! `midge-load`: loads a server and tells how it fared.
#![forbid(unsafe_code)]

mod options; // the command line becomes a plan
mod report; // for people and for programs
mod search; // the highest rate with a bounded p99

use std::io::{IsTerminal, Write};
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::Parser;
use midge_load::plan::{Pace, Plan};
use midge_load::record::Progress;
use midge_load::run::run;
use midge_load::schedule::{Piece, Spacing};

use crate::options::{Course, Options};
use crate::report::{Report, Run, Verdict};

/// Exit status of a result that says more of the generator than of the server.
const GENERATOR: u8 = 3;

fn main() -> ExitCode {
    let options = Options::parse();
    match load(&options) {
        Ok(Verdict::Right) => ExitCode::SUCCESS,
        Ok(Verdict::Wrong) => ExitCode::FAILURE,
        Ok(Verdict::Generator) => ExitCode::from(GENERATOR),
        Err(error) => {
            complain(&format!("midge-load: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

fn load(options: &Options) -> Result<Verdict> {
    let (mut plan, course) = options.plan()?;
    let shows = !options.quiet && !options.json;
    if shows {
        complain(&report::headline(&plan, &options.urls[0]));
    }
    let one = |plan: &Plan, rate: Option<f64>| -> Result<Run> {
        let mut progress = Line::new(shows);
        let outcome = run(plan, |elapsed, counts| progress.show(plan, rate, elapsed, counts))?;
        progress.clear();
        Ok(Run::new(plan, rate, outcome))
    };
    let mut knee = None;
    let runs = match course {
        Course::One => {
            let rate = planned_rate(&plan);
            vec![one(&plan, rate)?]
        }
        Course::Steps(rates) => {
            let mut runs = Vec::new();
            for rate in rates {
                set_rate(&mut plan, rate, options.spacing()?);
                runs.push(one(&plan, Some(rate))?);
            }
            runs
        }
        Course::Knee(p99_ns) => {
            let closed = one(&plan, None)?;
            let found = search::knee(closed, p99_ns, |rate| {
                set_rate(&mut plan, rate, options.spacing()?);
                one(&plan, Some(rate))
            })?;
            knee = Some((p99_ns, found.rate));
            found.runs
        }
    };
    let report = Report::new(&plan, runs, knee);
    if let Some(file) = &options.hdr {
        let describe = || format!("cannot write {}", file.display());
        std::fs::write(file, report.hdr_log()?).with_context(describe)?;
    }
    if let Some(file) = &options.svg {
        std::fs::write(file, report.svg())
            .with_context(|| format!("cannot write {}", file.display()))?;
    }
    report.print(options.json)?;
    Ok(report.verdict())
}

/// Returns the mean rate of an open loop.
fn planned_rate(plan: &Plan) -> Option<f64> {
    match &plan.pace {
        Pace::Open { pieces, .. } => {
            let area: f64 = pieces.iter().map(Piece::area).sum();
            Some(area / pieces.iter().map(|piece| piece.seconds).sum::<f64>())
        }
        Pace::Closed | Pace::Replay(_) => None,
    }
}

fn set_rate(plan: &mut Plan, rate: f64, spacing: Spacing) {
    let pieces = vec![Piece::level(plan.duration.as_secs_f64(), rate)];
    plan.pace = Pace::Open { pieces, spacing };
}

/// One line of progress on a terminal.
struct Line {
    is_shown: bool,
    last: u64,
}

impl Line {
    fn new(shows: bool) -> Self {
        Self { is_shown: shows && std::io::stderr().is_terminal(), last: 0 }
    }

    fn show(
        &mut self,
        plan: &Plan,
        rate: Option<f64>,
        elapsed: std::time::Duration,
        counts: &Progress,
    ) {
        if !self.is_shown {
            return;
        }
        let (responses, wrong) = counts.read();
        let total = (plan.warmup + plan.duration).as_secs_f64();
        let due = rate.map_or(String::new(), |rate| format!(" of {rate:.0}"));
        let text = format!(
            "\r{:>4.0} of {total:.0} s: {}{due} responses/s, {wrong} wrong ",
            elapsed.as_secs_f64(),
            responses - self.last
        );
        self.last = responses;
        // A terminal that has gone takes no progress.
        drop(std::io::stderr().write_all(text.as_bytes()));
    }

    fn clear(&self) {
        if self.is_shown {
            drop(std::io::stderr().write_all(b"\r\x1b[K"));
        }
    }
}

#[expect(clippy::print_stderr, reason = "the program's one place for what is no result")]
fn complain(text: &str) {
    eprintln!("{text}");
}
