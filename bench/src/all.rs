//! `midge-lab all`: every comparison, one after the other, into a folder, and the page of them.
//!
//! Each is a process of its own, so that one leaves nothing to the next; a report that is there already is kept,
//! so a run that was broken off goes on where it was.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context, Result, ensure};

use crate::html;
use crate::peers::Selection;

/// A comparison: its report, its command, and the words of it, whole and quick.
struct Step {
    name: &'static str,
    command: &'static str,
    whole: &'static [&'static str],
    quick: &'static [&'static str],
    /// True if it compares systems, and takes the options that tell where they are.
    has_systems: bool,
}

const STEPS: [Step; 13] = [
    Step {
        name: "start",
        command: "start",
        // Each of what a guest may have, from next to nothing to as much as there may be.
        whole: &[
            "--rounds",
            "9",
            "--pages",
            "1,3,32,256,4096",
            "--images",
            "64,1024,16384,65536",
            "--globals",
            "16,256",
            "--tables",
            "100,10000",
            "--imports",
            "10,1000",
        ],
        quick: &["--rounds", "3"],
        has_systems: false,
    },
    Step {
        name: "restore",
        command: "restore",
        whole: &[],
        quick: &[
            "--rounds",
            "2",
            "--pages",
            "1,16,64",
            "--slots",
            "1,100",
            "--contended",
            "pool,restore",
        ],
        has_systems: false,
    },
    Step {
        name: "cold",
        command: "restore",
        // From one hot slot to as many cold ones as the machine has mappings for.
        whole: &[
            "--isolation",
            "bounds-checked",
            "--pages",
            "1,3",
            "--slots",
            "1,1000,8000,20000,50000,100000",
            "--contended",
            "restore",
        ],
        quick: &[
            "--isolation",
            "bounds-checked",
            "--rounds",
            "2",
            "--pages",
            "1",
            "--slots",
            "1,1000,8000",
            "--contended",
            "restore",
        ],
        has_systems: false,
    },
    Step {
        name: "functions",
        command: "functions",
        whole: &[],
        quick: &["--functions", "1,100,10000", "--rounds", "3", "--seconds", "0.2"],
        has_systems: false,
    },
    Step {
        name: "density",
        command: "density",
        whole: &[],
        quick: &["--pages", "3", "--most", "5000"],
        has_systems: false,
    },
    Step {
        name: "ways",
        command: "ways",
        whole: &[],
        quick: &["--rounds", "2", "--pages", "1,16,64", "--slots", "1,64"],
        has_systems: false,
    },
    Step {
        name: "request",
        command: "request",
        whole: &[],
        quick: &["--rounds", "3", "--seconds", "0.2"],
        has_systems: true,
    },
    Step {
        name: "tail",
        command: "tail",
        whole: &[],
        quick: &["--rounds", "3", "--seconds", "0.5"],
        has_systems: true,
    },
    Step {
        name: "boot",
        command: "boot",
        whole: &[],
        quick: &["--rounds", "3"],
        has_systems: true,
    },
    Step {
        name: "crowd",
        command: "crowd",
        whole: &[],
        quick: &["--rounds", "1", "--connections", "1000", "--seconds", "0.5"],
        has_systems: false,
    },
    Step {
        name: "stream",
        command: "stream",
        whole: &[],
        quick: &["--mib", "64", "--rounds", "2"],
        has_systems: false,
    },
    Step {
        name: "forward",
        command: "forward",
        whole: &[],
        quick: &["--rounds", "3"],
        has_systems: false,
    },
    Step {
        name: "balance",
        command: "balance",
        whole: &[],
        quick: &["--starts", "3"],
        has_systems: false,
    },
];

/// Options of `midge-lab all`.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// The folder of the reports; those that lie in it are kept.
    #[arg(long, value_name = "FOLDER", default_value = "lab")]
    out: PathBuf,
    /// Few rounds: two minutes in place of half an hour, and wider spreads.
    #[arg(long)]
    quick: bool,
    /// What is compared.
    #[command(flatten)]
    selection: Selection,
    /// The kernel for virtual machines; by default the newest of this machine's.
    #[arg(long, value_name = "FILE")]
    kernel: Option<PathBuf>,
}

/// Runs what is missing, and writes the page.
///
/// # Errors
/// If the folder cannot be written. A comparison that fails is told, and the others go on.
pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let out = &arguments.out;
    std::fs::create_dir_all(out).with_context(|| format!("cannot make {}", out.display()))?;
    let mut reports = Vec::new();
    let mut failed = Vec::new();
    for (number, step) in STEPS.iter().enumerate() {
        let file = out.join(format!("{}.json", step.name));
        let place = format!("{} of {}: {}", number + 1, STEPS.len(), step.name);
        if file.exists() {
            progress(&format!("{place}: there already"));
        } else {
            progress(&place);
            let began = Instant::now();
            match measure(step, arguments, &file) {
                Ok(()) => progress(&format!("{place}: {:.0} s", began.elapsed().as_secs_f64())),
                Err(error) => {
                    progress(&format!("{place}: {error:#}"));
                    failed.push(step.name);
                    continue;
                }
            }
        }
        reports.push(file);
    }
    let page = out.join("report.html");
    html::write(&reports, &page, Some(&out.join("report.csv")))?;
    progress(&format!("the page: {}", page.display()));
    ensure!(failed.is_empty(), "without {}: run it again", failed.join(", "));
    Ok(())
}

/// Runs one comparison; its report appears whole or not at all.
fn measure(step: &Step, arguments: &Arguments, file: &Path) -> Result<()> {
    let part = file.with_extension("part");
    let output =
        std::fs::File::create(&part).with_context(|| format!("cannot write {}", part.display()))?;
    let mut command = Command::new(std::env::current_exe()?);
    command.arg(step.command).args(if arguments.quick { step.quick } else { step.whole });
    if step.has_systems {
        command.args(arguments.selection.words());
    }
    if let Some(kernel) = arguments.kernel.as_ref().filter(|_| step.command == "boot") {
        command.arg("--kernel").arg(kernel);
    }
    command.arg("--json");
    let ended = command.stdin(Stdio::null()).stdout(output).stderr(Stdio::piped()).output()?;
    let why = String::from_utf8_lossy(&ended.stderr);
    ensure!(ended.status.success(), "{}", why.trim().trim_start_matches("midge-lab: "));
    std::fs::rename(&part, file).with_context(|| format!("cannot name {}", file.display()))
}

#[expect(clippy::print_stderr, reason = "progress, and no result")]
fn progress(text: &str) {
    eprintln!("{text}");
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[test]
    fn every_step_is_a_command_that_takes_its_words() {
        for step in &STEPS {
            for words in [step.whole, step.quick] {
                let line = ["midge-lab", step.command].into_iter().chain(words.iter().copied());
                let parsed = crate::Arguments::try_parse_from(line.chain(["--json"]));
                assert!(parsed.is_ok(), "{}: {}", step.name, parsed.unwrap_err());
            }
        }
    }
}
