//! System calls and instructions of a call, as other programs count them: strace, and perf where the processor has
//! counters.
//!
//! A process of its own calls a few times, and another one more often: the difference is what the calls took, without the
//! start of either.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Result, ensure};
use midge_loader::start::Technique;

use crate::servers::find;

/// Calls of the two processes.
const CALLS: [u32; 2] = [8, 40];

/// What counts.
pub(super) struct Counters {
    strace: Option<PathBuf>,
    perf: Option<PathBuf>,
    /// What is not counted, and why.
    pub(super) left_out: Vec<String>,
}

impl Counters {
    /// Looks for what counts on this machine.
    pub(super) fn find() -> Self {
        let mut left_out = Vec::new();
        let mut found = |name: &str, what: &str, install: &str| {
            let program = find(name);
            if program.is_none() {
                left_out.push(format!("{what}: {install}"));
            }
            program
        };
        let strace = found("strace", "system calls", "apt-get install strace");
        let perf = found("perf", "instructions", "apt-get install linux-perf");
        Self { strace, perf, left_out }
    }

    /// Counts the system calls of a call.
    ///
    /// # Errors
    /// If a process fails.
    pub(super) fn system_calls(&self, technique: Technique, guest: &Path) -> Result<Option<f64>> {
        let Some(strace) = &self.strace else { return Ok(None) };
        let count = |calls: u32| -> Result<u64> {
            let file = tempfile::NamedTempFile::new()?;
            let mut command = Command::new(strace);
            command.args(["-f", "-qq", "-e", "signal=none", "-o"]).arg(file.path());
            run(&mut command, technique, guest, calls)?;
            Ok(calls_of(&std::fs::read_to_string(file.path())?))
        };
        Ok(Some(each(count(CALLS[0])?, count(CALLS[1])?)))
    }

    /// Counts the instructions of a call, those of the kernel as well.
    ///
    /// # Errors
    /// If a process fails.
    pub(super) fn instructions(
        &mut self,
        technique: Technique,
        guest: &Path,
    ) -> Result<Option<f64>> {
        let Some(perf) = &self.perf else { return Ok(None) };
        let count = |calls: u32| -> Result<Option<u64>> {
            let file = tempfile::NamedTempFile::new()?;
            let mut command = Command::new(perf);
            command.args(["stat", "-x", ",", "-e", "instructions", "-o"]).arg(file.path());
            run(&mut command, technique, guest, calls)?;
            Ok(instructions_of(&std::fs::read_to_string(file.path())?))
        };
        let counted = count(CALLS[0])?.zip(count(CALLS[1])?);
        if counted.is_none() {
            let why = "instructions: this processor shows no counters (perf stat -e instructions)";
            self.left_out.push(why.to_owned());
            self.perf = None;
        }
        Ok(counted.map(|(few, many)| each(few, many)))
    }
}

/// Has the lab call so often under `command`.
fn run(command: &mut Command, technique: Technique, guest: &Path, calls: u32) -> Result<()> {
    command.arg(std::env::current_exe()?).arg("call").arg(technique.name()).arg(guest);
    let ended = command.arg(calls.to_string()).stdin(Stdio::null()).output()?;
    let why = String::from_utf8_lossy(&ended.stderr);
    let name = Path::new(command.get_program()).display().to_string();
    ensure!(ended.status.success(), "{name}: {}", why.lines().last().unwrap_or("it failed"));
    Ok(())
}

fn each(few: u64, many: u64) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "a quotient for people")]
    let more = many.saturating_sub(few) as f64;
    more / f64::from(CALLS[1] - CALLS[0])
}

/// Counts what strace wrote: a line for each call, but two for one that another thread's came between.
fn calls_of(text: &str) -> u64 {
    text.lines().filter(|line| line.contains('(') && !line.contains(" resumed>")).count() as u64
}

/// Reads what perf counted, if it did.
fn instructions_of(text: &str) -> Option<u64> {
    let line = text.lines().find(|line| line.contains(",instructions"))?;
    line.split(',').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_read() {
        let text = "12 mmap(NULL, 4096) = 0x1\n12 read(3, <unfinished ...>\n13 futex(0x1) = 0\n\
            12 <... read resumed>\"\", 1) = 0\n12 +++ exited with 0 +++\n";
        assert_eq!(calls_of(text), 3);
        assert_eq!(instructions_of("# started\n\n1234,,instructions:u,9,100.00,,\n"), Some(1234));
        assert_eq!(instructions_of("<not supported>,,instructions,0,100.00,,\n"), None);
        assert!((each(100, 164) - 2.0).abs() < 1e-9);
    }
}
