//! Compiling a module that nobody vouches for, in a child process that is bounded.
//!
//! ```text
//!   midge build, run, serve, ..              midge compile-child
//!      | spawn, files and module as stdin -----> | bounds itself: memory, CPU time, no core dump
//!      | waits until the deadline                | validates, runs start-up, compiles
//!      | <-- length, answer, artifact on stdout -|
//!      | kills it, checks the artifact as any other
//! ```
//!
//! A module of a few kilobytes can make a compiler take minutes or gigabytes (decision 020 has figures), and
//! no limit on the module's form would catch all of those and no honest one. The kernel can: it bounds a
//! process. The child is this very program, so its artifact is for this very engine.
//!
//! Invariants: the child is gone when [`of_file`] returns. What it says is bounded, and its text is escaped.
//! Not here: compiling for techniques with an engine of their own (`loader/src/start/code.rs`), which happens
//! in the host, of modules that were compiled here first and so are known to stay within the limits.

use std::fs::File;
use std::io::{self, Read, Seek, Write};
use std::path::Path;
use std::process::{Child, Command, ExitCode, ExitStatus, Stdio};
use std::sync::mpsc::channel;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};
use midge_abi::imports::{LOG_LINE_BYTES_MAX, LOG_LINES_PER_REQUEST_MAX};
use midge_abi::manifest::{CodeForm, Traces};
use midge_loader::artifact::ARTIFACT_BYTES_MAX;
use midge_loader::build::{BuildError, build_as};
use midge_loader::engine::Engines;
use midge_loader::files::{self, Mapping, Scratch};
use midge_loader::link::attach;
use midge_loader::module::{MODULE_BYTES_MAX, SECTION_COUNT_MAX, SECTION_NAME_BYTES_MAX};
use rustix::fs::{MemfdFlags, memfd_create};
use rustix::process::{
    Resource, Rlimit, Signal, getrlimit, set_parent_process_death_signal, setrlimit,
};
use serde::{Deserialize, Serialize};

use crate::cli::CompileChildArgs;
use crate::config::{BuildLimits, ByteSize, Function, Quantity};
use crate::output::{self, Failure, printable};

/// Longest answer of a child, without the artifact.
pub const ANSWER_BYTES_MAX: u32 = 1 << 20;
/// Longest reason for a refusal; a compiler may quote a whole line of the module.
pub const REASON_BYTES_MAX: usize = 16 * 1024;
/// So much of a child's stderr is kept: it says something only if it dies.
pub const STDERR_BYTES_MAX: u64 = 4 * 1024;

/// Bytes that one may take in JSON, where it is escaped.
const ESCAPED_BYTES: usize = 6;
const _: () = assert!(
    (SECTION_COUNT_MAX * (SECTION_NAME_BYTES_MAX + 32) + 32 * LOG_LINE_BYTES_MAX) * ESCAPED_BYTES
        < ANSWER_BYTES_MAX as usize,
    "an honest answer is never too long"
);
const _: () =
    assert!(LOG_LINES_PER_REQUEST_MAX <= 32 && REASON_BYTES_MAX * ESCAPED_BYTES < 1 << 20);

/// The program that runs now, even if its file was replaced meanwhile.
const THIS_PROGRAM: &str = "/proc/self/exe";

/// A module, compiled.
#[derive(Debug)]
pub struct Compiled {
    /// The artifact's file, still to be checked like any other.
    pub artifact: Vec<u8>,
    /// Size of the module's file.
    pub source_bytes: usize,
    /// Lines that start-up logged.
    pub startup_log: Vec<String>,
    /// Name and size of each section of the module.
    pub sections: Vec<(String, usize)>,
    /// Why it has no lines of its source, if they were asked for.
    pub no_lines: Option<String>,
}

/// Why there is no artifact.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CompileError {
    /// The module is refused, for a reason of its own.
    #[error("{reason}")]
    Refused {
        /// The chain of causes.
        reason: String,
        /// True if its start-up failed.
        at_start_up: bool,
    },
    /// It needs more memory than allowed.
    #[error("compiling it takes more than {} of memory, the limit `build.memory`", .limit.show())]
    Memory {
        /// The limit.
        limit: ByteSize,
    },
    /// It needs more time than allowed.
    #[error("compiling it takes longer than {}, the limit `build.time`", .limit.show())]
    Time {
        /// The limit.
        limit: Duration,
    },
    /// The compiler ended without an answer.
    #[error("the compiler ended without an answer ({status}): {said}")]
    Broken {
        /// How it ended.
        status: ExitStatus,
        /// What it said last.
        said: String,
    },
    /// There is no child.
    #[error("the compiler cannot be started")]
    Start(#[source] io::Error),
}

impl CompileError {
    /// Returns what to do about it.
    #[must_use]
    pub const fn next(&self) -> &'static str {
        match self {
            Self::Refused { at_start_up: true, .. } => {
                "start-up runs once, when the artifact is built: it may log, but not read clocks or \
                 chance"
            }
            Self::Refused { .. } => {
                "docs/manual/contract.md says what a function has to export and may import, \
                 docs/manual/components.md which components are served"
            }
            Self::Memory { .. } => {
                "if you trust the module, allow more: --build-memory, or `memory` in [build]"
            }
            Self::Time { .. } => {
                "if you trust the module, allow more: --build-time, or `time` in [build]"
            }
            Self::Broken { .. } => {
                "do not serve this module: it breaks the compiler; please report it with the module"
            }
            Self::Start(_) => {
                "/proc must be mounted, the program's file executable, and a process left to start"
            }
        }
    }
}

/// What a child says, before the artifact.
#[derive(Debug, Serialize, Deserialize)]
enum Answer {
    Built {
        source_bytes: usize,
        startup_log: Vec<String>,
        sections: Vec<(String, usize)>,
        no_lines: Option<String>,
    },
    Refused {
        reason: String,
        at_start_up: bool,
    },
    OutOfMemory,
}

/// What an artifact is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Recipe<'a> {
    /// The module's file.
    pub module: &'a Path,
    /// How its code is made.
    pub form: CodeForm,
    /// Folders of files for it.
    pub files: &'a [Mapping],
    /// Where it may write.
    pub scratch: Option<&'a Scratch>,
}

impl<'a> Recipe<'a> {
    /// Returns that of a function, whose traps are to tell so much.
    #[must_use]
    pub fn of(function: &'a Function, traces: Traces) -> Self {
        let (isolation, metering) = (function.isolation.value, function.metering.value);
        Self {
            module: &function.module.value,
            form: CodeForm { isolation, metering, traces },
            files: &function.files.value.0,
            scratch: function.scratch.value.0.as_ref(),
        }
    }

    /// Reads the files and packs them.
    ///
    /// # Errors
    /// A [`Failure`] with the path of what cannot be packed.
    pub fn pack(&self) -> Result<Vec<u8>> {
        files::read(self.files, self.scratch).map_err(|error| {
            let what = format!("cannot pack the files for `{}`", self.module.display());
            let next = "a bundle holds files, folders and links that stay inside: docs/manual/components.md#files";
            Failure::new(what, next, error).into()
        })
    }

    /// Refuses files for what is built already.
    ///
    /// # Errors
    /// A [`Failure`], if there are any.
    pub fn refuse_files(&self) -> Result<()> {
        if self.files.is_empty() && self.scratch.is_none() {
            return Ok(());
        }
        let shown = self.module.display();
        Err(Failure {
            what: format!("`{shown}` is an artifact, whose files were chosen when it was built"),
            next: "midge build MODULE --files FOLDER:GUEST-PATH --scratch SIZE, and leave both out here"
                .into(),
            is_usage: true,
            cause: None,
        }
        .into())
    }
}

/// Compiles the module in a file, with its files, within limits.
///
/// # Errors
/// A [`Failure`] with the path, the [`CompileError`] and the next step; or the file cannot be read.
pub fn of_file(recipe: &Recipe<'_>, limits: &BuildLimits) -> Result<Compiled> {
    let shown = recipe.module.display();
    let unread = || format!("cannot read `{shown}`");
    let mut input = File::open(recipe.module).with_context(unread)?;
    let files = recipe.pack()?;
    if !files.is_empty() {
        input = behind(&files, input).with_context(unread)?;
    }
    let name = recipe.module.file_name().unwrap_or_default().to_string_lossy();
    compile(&name, input, files.len(), recipe.form, limits).map_err(|error| {
        let next = error.next();
        Failure::new(format!("cannot build `{shown}`"), next, error).into()
    })
}

/// Returns a file in memory that holds a bundle and a module behind it.
fn behind(files: &[u8], module: File) -> io::Result<File> {
    let mut input = File::from(memfd_create("midge-module", MemfdFlags::CLOEXEC)?);
    input.write_all(files)?;
    io::copy(&mut module.take(MODULE_BYTES_MAX as u64 + 1), &mut input)?;
    input.rewind()?;
    Ok(input)
}

fn compile(
    name: &str,
    input: File,
    files_bytes: usize,
    form: CodeForm,
    limits: &BuildLimits,
) -> Result<Compiled, CompileError> {
    let (memory, time) = (limits.memory.value, limits.time.value);
    let seconds = time.as_secs() + u64::from(time.subsec_nanos() > 0);
    let child = Command::new(THIS_PROGRAM)
        .arg("compile-child")
        .args(["--memory-bytes", &memory.0.to_string()])
        .args(["--cpu-seconds", &seconds.to_string()])
        .args(["--isolation", form.isolation.name()])
        .args(["--metering", form.metering.name()])
        .args(["--processor", limits.processor.value.name()])
        .args(matches!(form.traces, Traces::Lines).then_some("--lines"))
        .args(["--files-bytes", &files_bytes.to_string()])
        .args(["--", name])
        .env_clear()
        .stdin(input)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(CompileError::Start)?;
    let Ended { stdout, stderr, status } = until_deadline(child, time)?;
    let Some(stdout) = stdout else { return Err(CompileError::Time { limit: time }) };
    match read_answer(stdout) {
        Some((Answer::Built { source_bytes, startup_log, sections, no_lines }, artifact)) => {
            Ok(Compiled { artifact, source_bytes, startup_log, sections, no_lines })
        }
        Some((Answer::Refused { reason, at_start_up }, _)) => {
            Err(CompileError::Refused { reason, at_start_up })
        }
        Some((Answer::OutOfMemory, _)) => Err(CompileError::Memory { limit: memory }),
        None => Err(died(status, &stderr, limits)),
    }
}

/// A child that is gone.
struct Ended {
    /// What it wrote, to the end of the stream; `None` if the deadline came first.
    stdout: Option<Vec<u8>>,
    stderr: Vec<u8>,
    status: ExitStatus,
}

fn until_deadline(mut child: Child, time: Duration) -> Result<Ended, CompileError> {
    let stdout = child.stdout.take().expect("it was asked for");
    let stderr = child.stderr.take().expect("it was asked for");
    let most = ARTIFACT_BYTES_MAX + u64::from(ANSWER_BYTES_MAX) + 4;
    let (ended, waited) = channel();
    thread::scope(|scope| {
        scope.spawn(move || {
            // Nobody waits any more once the deadline has passed.
            drop(ended.send(read_all(stdout, most)));
        });
        let stderr = scope.spawn(move || read_all(stderr, STDERR_BYTES_MAX));
        let stdout = waited.recv_timeout(time).ok();
        // It has closed its stdout or is late: either way nothing more is wanted from it, and a process that
        // is ending already keeps the status that it ends with. With it the pipes close, and the threads end.
        child.kill().map_err(CompileError::Start)?;
        let status = child.wait().map_err(CompileError::Start)?;
        Ok(Ended { stdout, stderr: stderr.join().expect("reading does not panic"), status })
    })
}

/// Reads to the end, or to a limit. An error ends it too: what is missing will be noticed.
fn read_all(source: impl Read, limit: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    drop(source.take(limit).read_to_end(&mut bytes));
    bytes
}

fn read_answer(mut stdout: Vec<u8>) -> Option<(Answer, Vec<u8>)> {
    let size = u32::from_le_bytes(*stdout.first_chunk()?);
    if size > ANSWER_BYTES_MAX {
        return None;
    }
    let artifact = 4 + midge_abi::width::index(size);
    let answer = serde_json::from_slice(stdout.get(4..artifact)?).ok()?;
    stdout.drain(..artifact);
    Some((answer, stdout))
}

/// Returns why a child that said nothing has died.
fn died(status: ExitStatus, stderr: &[u8], limits: &BuildLimits) -> CompileError {
    use std::os::unix::process::ExitStatusExt;

    let said = String::from_utf8_lossy(stderr);
    if status.signal() == Some(Signal::XCPU.as_raw()) {
        return CompileError::Time { limit: limits.time.value };
    }
    if is_out_of_memory(&said) {
        return CompileError::Memory { limit: limits.memory.value };
    }
    let said = said.lines().find(|line| !line.trim().is_empty()).unwrap_or("it said nothing");
    CompileError::Broken { status, said: printable(said).into_owned() }
}

/// The words of the standard library and of the kernel when there is no memory. A module can put them into a
/// name, and is refused with another reason then: it is refused either way.
fn is_out_of_memory(text: &str) -> bool {
    let words = ["memory allocation of ", "out of memory", "Cannot allocate memory"];
    words.iter().any(|words| text.contains(words))
}

/// Runs `midge compile-child`: compiles what stands on stdin.
///
/// # Errors
/// The limits cannot be set, stdin not be read, or stdout not be written.
pub fn child(args: &CompileChildArgs) -> Result<ExitCode> {
    bound(args).context("cannot set limits")?;
    let (mut files, mut source) = (Vec::new(), Vec::new());
    let stdin = &mut io::stdin().lock();
    stdin.take(args.files_bytes).read_to_end(&mut files).context("cannot read the files")?;
    let most = MODULE_BYTES_MAX as u64 + 1;
    stdin.take(most).read_to_end(&mut source).context("cannot read the module")?;
    let source_bytes = source.len();
    if !files.is_empty() {
        source = attach(&source, &files);
        drop(files);
    }
    let engines = Engines::of(args.processor);
    let (answer, artifact) = match build_as(&args.name, &source, args.form.form(), &engines) {
        Ok(built) => {
            let answer = Answer::Built {
                source_bytes,
                startup_log: built.startup_log,
                sections: built.facts.sections,
                no_lines: built.no_lines,
            };
            (answer, built.bytes)
        }
        Err(error) => (refusal(error), Vec::new()),
    };
    let answer = serde_json::to_vec(&answer)?;
    let size = u32::try_from(answer.len()).ok().filter(|size| *size <= ANSWER_BYTES_MAX);
    let size = size.context("what is to be said of the module is too long")?;
    for part in [&size.to_le_bytes()[..], &answer, &artifact] {
        output::print_bytes(part)?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Bounds this process. Not by address space: the engine reserves 4 GiB of it for each memory and touches
/// none. `RLIMIT_DATA` counts what is private and writable (since Linux 4.7).
fn bound(args: &CompileChildArgs) -> io::Result<()> {
    set_parent_process_death_signal(Some(Signal::KILL))?;
    for (resource, most) in [
        (Resource::Data, args.memory_bytes),
        (Resource::Cpu, args.cpu_seconds),
        (Resource::Core, 0),
    ] {
        let allowed = getrlimit(resource).maximum.map_or(most, |maximum| maximum.min(most));
        setrlimit(resource, Rlimit { current: Some(allowed), maximum: Some(allowed) })?;
    }
    Ok(())
}

fn refusal(error: BuildError) -> Answer {
    let at_start_up = matches!(error, BuildError::StartUp { .. });
    let causes: Vec<String> = anyhow::Error::new(error).chain().map(ToString::to_string).collect();
    let reason = causes.join(": ");
    if is_out_of_memory(&reason) {
        return Answer::OutOfMemory;
    }
    let end = reason.floor_char_boundary(REASON_BYTES_MAX);
    Answer::Refused { reason: printable(&reason[..end]).into_owned(), at_start_up }
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt;

    use super::*;
    use midge_loader::engine::Processor;

    use crate::config::Setting;

    #[test]
    fn an_answer_is_believed_only_if_it_is_whole() {
        let json = br#"{"Refused":{"reason":"r","at_start_up":true}}"#;
        let framed = |size: u32, rest: &[u8]| [&size.to_le_bytes()[..], rest].concat();
        let size = u32::try_from(json.len()).unwrap();
        let (answer, artifact) = read_answer(framed(size, &[json, &b"art"[..]].concat())).unwrap();
        assert!(matches!(answer, Answer::Refused { at_start_up: true, .. }));
        assert_eq!(artifact, b"art");
        for broken in [
            Vec::new(),
            vec![1, 0, 0],
            framed(size, &json[..json.len() - 1]),
            framed(size - 1, json),
            framed(ANSWER_BYTES_MAX + 1, json),
            framed(u32::MAX, json),
            framed(2, b"{}"),
            framed(0, b""),
        ] {
            assert!(read_answer(broken.clone()).is_none(), "{broken:?}");
        }
    }

    #[test]
    fn a_death_is_told_by_its_cause() {
        let limits = BuildLimits {
            memory: Setting::default(ByteSize(64 << 20)),
            time: Setting::default(Duration::from_secs(1)),
            processor: Setting::default(Processor::Native),
        };
        let told =
            |status, stderr: &[u8]| died(ExitStatus::from_raw(status), stderr, &limits).to_string();
        let time = "compiling it takes longer than 1s, the limit `build.time`";
        assert_eq!(told(Signal::XCPU.as_raw(), b""), time);
        let memory = "compiling it takes more than 64 MiB of memory, the limit `build.memory`";
        assert_eq!(told(Signal::ABORT.as_raw(), b"memory allocation of 64 bytes failed"), memory);
        let broken = told(Signal::SEGV.as_raw(), b"\n\x1b[2Jodd\nmore");
        assert!(broken.ends_with("): \\u{1b}[2Jodd"), "{broken}");
        assert!(told(0, b"").ends_with("it said nothing"));
    }
}
