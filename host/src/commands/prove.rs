//! `midge prove`: a technique's instances against truly fresh ones, through the same requests.
//!
//! The loader judges (`midge_loader::proof`); here are the requests, the way to say a difference, and the
//! command that shows it again.

use std::collections::VecDeque;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context, Result};
use midge_abi::manifest::CodeForm;
use midge_loader::artifact::{Artifact, is_artifact};
use midge_loader::engine::Engines;
use midge_loader::link::attach;
use midge_loader::module::MODULE_BYTES_MAX;
use midge_loader::proof::{
    Compared, Difference, Proof, ProofSettings, Sent, Spot, Subject, Writer,
};
use midge_loader::start::choose::Machine;
use serde::Serialize;

use crate::call::Facts;
use crate::cli::ProveArgs;
use crate::compile::{self, Recipe};
use crate::config::BuildLimits;
use crate::config::counted;
use crate::deadline::{CoarseClock, TICK, Ticker};
use crate::deployment::choice;
use crate::output::{self, Cell, Failure, Table, Tone};
use crate::prove::generate::Generator;
use crate::prove::raw::RawRequest;
use crate::services::RandomKey;

/// Version of the JSON object.
const SCHEMA: &str = "midge/prove/1";
/// Exit status of a difference.
const DIFFERS: u8 = 3;
/// Time for one call, in slices: as they end, not as a clock goes, so that a busy machine changes nothing.
const SLICES_MAX: u64 = 2000;
/// Largest memory of the guest.
const MEMORY_BYTES_MAX: usize = 1 << 30;
/// Files of a folder of requests.
const FILES_MAX: usize = 10_000;
/// Size of one of them: a head and the largest area.
const FILE_BYTES_MAX: u64 = 65 << 20;
/// Requests in which the writer of a difference is looked for.
const HISTORY_MAX: usize = 64;
/// Of the area a generated body takes up to all but one part in so many, so that a head finds room.
const HEAD_SHARE: usize = 8;

#[derive(Debug, Serialize)]
struct Report {
    schema: &'static str,
    verdict: &'static str,
    technique: &'static str,
    reason: String,
    seed: u64,
    requests: u64,
    compared: ComparedReport,
    difference: Option<DifferenceReport>,
}

#[derive(Debug, Serialize)]
struct ComparedReport {
    changes: u64,
    restores: u64,
    snapshots: u64,
    memory_bytes: u64,
    globals: u64,
    table_elements: u64,
    segments: u64,
    records: u64,
    responses: u64,
    traps: u64,
    deadlines: u64,
}

#[derive(Debug, Serialize)]
struct DifferenceReport {
    request: u64,
    request_name: String,
    found: &'static str,
    kind: &'static str,
    spot: String,
    address: Option<u32>,
    tested: String,
    fresh: String,
    writer: Option<WriterReport>,
    reproduce: String,
}

#[derive(Debug, Serialize)]
struct WriterReport {
    function: Option<u32>,
    name: Option<String>,
    request: u64,
}

/// Runs the command.
///
/// # Errors
/// The function cannot be loaded, or a request cannot be read or sent.
pub fn run(args: &ProveArgs) -> Result<ExitCode> {
    let engines = Arc::new(Engines::of(args.limits.limits().processor.value));
    let _ticker = Ticker::start(Arc::clone(&engines), CoarseClock::new())
        .context("cannot start the ticker's thread")?;
    let seed = match args.seed {
        Some(seed) => seed,
        None => draw_seed()?,
    };
    let given = args.requests.as_deref().map(read_folder).transpose()?.unwrap_or_default();
    let recipe = args.files.recipe(&args.file, CodeForm::PLAIN);
    let subject = subject(&recipe, &engines, &args.limits.limits())?;
    let choice = choice(args.technique, subject.artifact(), Machine::of_this_process())?;
    let settings = ProofSettings {
        technique: choice.technique,
        memory_bytes_max: MEMORY_BYTES_MAX,
        slices_max: SLICES_MAX,
        seed,
    };
    let proof = Proof::new(subject, settings, &engines)?;
    let mut trial = Trial::new(proof, given, args, seed, choice.technique.name());
    let difference = trial.run(&engines)?;
    let compared = trial.proof.compared();
    let verdict = if difference.is_some() { "differs" } else { "pristine" };
    let exit = if difference.is_some() { ExitCode::from(DIFFERS) } else { ExitCode::SUCCESS };
    let report = Report {
        schema: SCHEMA,
        verdict,
        technique: choice.technique.name(),
        reason: choice.reason,
        seed,
        requests: compared.calls,
        compared: compared.into(),
        difference,
    };
    if args.json {
        output::print_json(&report)?;
    } else {
        output::print(&text(&report))?;
    }
    Ok(exit)
}

fn draw_seed() -> Result<u64> {
    let key = RandomKey::draw().context("no random bytes")?.derive(b"prove");
    let [a, b, c, d, ..] = key;
    // Short enough to be typed.
    Ok(u32::from_le_bytes([a, b, c, d]).into())
}

fn subject(recipe: &Recipe<'_>, engines: &Engines, limits: &BuildLimits) -> Result<Subject> {
    let file = recipe.module;
    let shown = file.display();
    if is_artifact(file).with_context(|| format!("cannot read `{shown}`"))? {
        recipe.refuse_files()?;
        let artifact =
            Artifact::open(file, engines).with_context(|| format!("cannot open `{shown}`"))?;
        return Ok(Subject::of_artifact(artifact)?);
    }
    // Compiled within limits first, so that the forms which are compiled here are known to stay near them.
    drop(compile::of_file(recipe, limits)?);
    let mut source = Vec::new();
    File::open(file)
        .and_then(|file| file.take(MODULE_BYTES_MAX as u64 + 1).read_to_end(&mut source))
        .with_context(|| format!("cannot read `{shown}`"))?;
    let files = recipe.pack()?;
    if !files.is_empty() {
        source = attach(&source, &files);
    }
    let name = file.file_name().unwrap_or_default().to_string_lossy();
    Subject::of_module(&name, &source, engines).with_context(|| format!("cannot prove `{shown}`"))
}

/// A request from a file.
struct Given {
    name: String,
    request: RawRequest,
}

fn read_folder(folder: &Path) -> Result<Vec<Given>> {
    let shown = folder.display();
    let entries =
        std::fs::read_dir(folder).with_context(|| format!("cannot read the folder `{shown}`"))?;
    let mut files = Vec::new();
    for entry in entries.take(FILES_MAX + 1) {
        let path = entry.with_context(|| format!("cannot read the folder `{shown}`"))?.path();
        if path.is_file() {
            files.push(path);
        }
    }
    anyhow::ensure!(files.len() <= FILES_MAX, "`{shown}` has more than {FILES_MAX} files");
    anyhow::ensure!(!files.is_empty(), "`{shown}` has no files: put one request into each");
    files.sort();
    files.iter().map(read_file).collect()
}

fn read_file(path: &PathBuf) -> Result<Given> {
    use std::io::Read;

    let shown = path.display();
    let file = std::fs::File::open(path).with_context(|| format!("cannot read `{shown}`"))?;
    let mut bytes = Vec::new();
    file.take(FILE_BYTES_MAX + 1)
        .read_to_end(&mut bytes)
        .with_context(|| format!("cannot read `{shown}`"))?;
    let request = if bytes.len() as u64 <= FILE_BYTES_MAX {
        RawRequest::read(&bytes)
    } else {
        Err(format!("longer than {FILE_BYTES_MAX} bytes"))
    };
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    match request {
        Ok(request) => Ok(Given { name, request }),
        Err(reason) => Err(Failure::new(
            format!("cannot use `{shown}`"),
            "a file holds one request as it goes over the wire: request line, headers, an empty line, body",
            reason,
        )
        .into()),
    }
}

/// A proof with its requests.
struct Trial<'a> {
    proof: Proof,
    given: Vec<Given>,
    generator: Generator,
    args: &'a ProveArgs,
    seed: u64,
    technique: &'static str,
    history: VecDeque<Sent>,
}

impl<'a> Trial<'a> {
    fn new(
        proof: Proof,
        given: Vec<Given>,
        args: &'a ProveArgs,
        seed: u64,
        technique: &'static str,
    ) -> Self {
        let requests = given.iter().map(|given| given.request.clone()).collect();
        let body_bytes_max = proof.area_bytes() - proof.area_bytes() / HEAD_SHARE;
        let generator = Generator::new(seed, requests, body_bytes_max);
        let history = VecDeque::with_capacity(HISTORY_MAX);
        Self { proof, given, generator, args, seed, technique, history }
    }

    fn run(&mut self, engines: &Engines) -> Result<Option<DifferenceReport>> {
        for at in 0..self.given.len() {
            let name = self.given[at].name.clone();
            let block = self.block(&self.given[at].request);
            let block = block.with_context(|| format!("cannot send `{name}`"))?;
            self.proof.fits(&block).with_context(|| format!("cannot send `{name}`"))?;
            if let Some(found) = self.send(block, name, 0, engines)? {
                return Ok(Some(found));
            }
        }
        for nth in 0..self.args.rounds {
            let request = self.generator.nth(nth);
            let mut block = self.block(&request)?;
            if self.proof.fits(&block).is_err() {
                // What a small area has no room for: it holds any head without made-up headers.
                block = self.block(&request.without_its_length())?;
            }
            let name = format!("generated {}", line(&request));
            if let Some(found) = self.send(block, name, nth + 1, engines)? {
                return Ok(Some(found));
            }
        }
        Ok(None)
    }

    fn block(&self, request: &RawRequest) -> Result<Vec<u8>> {
        let call = self.proof.compared().calls;
        let deadline_ns = SLICES_MAX * u64::try_from(TICK.as_nanos()).unwrap_or(0);
        let facts = Facts {
            request_id: u128::from(call).to_le_bytes(),
            deadline_ns,
            extras: &crate::extras::NONE,
        };
        request.block(facts).map_err(anyhow::Error::msg)
    }

    /// Sends a request; `rounds` generated ones are needed to come to it again.
    fn send(
        &mut self,
        block: Vec<u8>,
        name: String,
        rounds: u64,
        engines: &Engines,
    ) -> Result<Option<DifferenceReport>> {
        let call = self.proof.compared().calls;
        let difference = self.proof.call(&block)?;
        if self.history.len() == HISTORY_MAX {
            self.history.pop_front();
        }
        self.history.push_back(Sent { call, block });
        let Some(difference) = difference else {
            return Ok(None);
        };
        let writer = self.proof.writer(&difference, self.history.make_contiguous(), engines);
        let writer = writer.context("cannot look for the writer of a difference")?;
        Ok(Some(self.report(&difference, writer, call, name, rounds)))
    }

    fn report(
        &self,
        difference: &Difference,
        writer: Option<Writer>,
        call: u64,
        request_name: String,
        rounds: u64,
    ) -> DifferenceReport {
        let address = match difference.spot {
            Spot::Byte { address, .. } => Some(address),
            _ => None,
        };
        DifferenceReport {
            request: call,
            request_name,
            found: if difference.is_before_call { "before" } else { "after" },
            kind: difference.spot.kind(),
            spot: difference.spot.to_string(),
            address,
            tested: difference.tested.clone(),
            fresh: difference.fresh.clone(),
            writer: writer.map(|writer| WriterReport {
                function: writer.function,
                name: writer.name,
                request: writer.call,
            }),
            reproduce: self.reproduce(rounds),
        }
    }

    fn reproduce(&self, rounds: u64) -> String {
        let mut command = format!("midge prove {}", quoted(&self.args.file));
        if let Some(folder) = &self.args.requests {
            command += &format!(" --requests {}", quoted(folder));
        }
        command + &format!(" --rounds {rounds} --technique {} --seed {}", self.technique, self.seed)
    }
}

/// Returns method and target of a request, cut to what a line takes.
fn line(request: &RawRequest) -> String {
    const SHOWN_BYTES_MAX: usize = 60;
    let target = &request.target[..request.target.len().min(SHOWN_BYTES_MAX)];
    let cut = if target.len() < request.target.len() { "..." } else { "" };
    let (method, target) =
        (String::from_utf8_lossy(&request.method), String::from_utf8_lossy(target));
    format!("{method} {target}{cut}")
}

/// Quotes a path for a shell if it needs it.
fn quoted(path: &Path) -> String {
    let text = path.display().to_string();
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"/._-".contains(&byte);
    if text.bytes().all(is_plain) { text } else { format!("'{}'", text.replace('\'', "'\\''")) }
}

impl From<Compared> for ComparedReport {
    fn from(compared: Compared) -> Self {
        Self {
            changes: compared.changes,
            restores: compared.restores,
            snapshots: compared.snapshots,
            memory_bytes: compared.memory_bytes,
            globals: compared.globals,
            table_elements: compared.table_elements,
            segments: compared.segments,
            records: compared.records,
            responses: compared.responses,
            traps: compared.traps,
            deadlines: compared.deadlines,
        }
    }
}

fn text(report: &Report) -> String {
    let requests = counted(usize::try_from(report.requests).unwrap_or(usize::MAX), "request");
    let mut text = match &report.difference {
        None => format!("pristine: {requests} under {}", report.technique),
        Some(difference) => format!(
            "differs {} request {} ({}) under {}",
            difference.found, difference.request, difference.request_name, report.technique
        ),
    };
    text += &format!(", seed {}\n{}\n\n", report.seed, report.reason);
    if let Some(difference) = &report.difference {
        text += &difference_text(difference, report.technique);
    }
    let mut table = Table::new(&["compared", "count"], output::stdout_is_colourful());
    let compared = &report.compared;
    for (what, count) in [
        ("calls that changed state", compared.changes),
        ("instances that had served", compared.restores),
        ("snapshots of all state", compared.snapshots),
        ("bytes of memory", compared.memory_bytes),
        ("mutable globals", compared.globals),
        ("elements of tables", compared.table_elements),
        ("segments that can be dropped", compared.segments),
        ("log lines, answers of clock and chance", compared.records),
        ("responses", compared.responses),
        ("traps", compared.traps),
        ("calls stopped at their deadline (not compared)", compared.deadlines),
    ] {
        table.push(vec![Cell::new(what, Tone::Plain), Cell::new(count.to_string(), Tone::Plain)]);
    }
    text + &table.to_string()
}

fn difference_text(difference: &DifferenceReport, technique: &str) -> String {
    let DifferenceReport { spot, tested, fresh, reproduce, .. } = difference;
    let mut text = format!("{spot}\n  {technique}: {tested}\n  fresh: {fresh}\n");
    if let Some(writer) = &difference.writer {
        let name = match (&writer.name, writer.function) {
            (Some(name), Some(index)) => format!("`{name}` (function {index})"),
            (None, Some(index)) => format!("function {index}"),
            (_, None) => "the host, which wrote the request".to_owned(),
        };
        text += &format!("  written by {name}, in request {}\n", writer.request);
    }
    text + &format!("again: {reproduce}\n\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_quoted_where_a_shell_needs_it() {
        assert_eq!(quoted(Path::new("a/b-c.wasm")), "a/b-c.wasm");
        assert_eq!(quoted(Path::new("a b'c")), "'a b'\\''c'");
    }

    #[test]
    fn a_long_target_is_cut() {
        let request = RawRequest {
            method: b"GET".to_vec(),
            target: vec![b'a'; 100],
            headers: Vec::new(),
            body: Vec::new(),
        };
        assert_eq!(line(&request), format!("GET {}...", "a".repeat(60)));
    }
}
