//! `midge invoke`: one call without a network, with the time of each phase.
//!
//! ```text
//!   map       open the artifact and check every byte   (building one from a module is not counted)
//!   register  bind its code and its imports
//!   template  place the memory images
//!   slot      make store, memory and instance, or take a slot
//!   enter     write the request into the guest's memory
//!   guest     the call, on its fiber
//!   restore   make the slot pristine again, or drop the instance
//! ```
//!
//! The phases before the call are repeated too, a bounded number of times; the call as often as asked.

use std::io::Read;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context, Result};
use midge_abi::contract::{Method, RESPONSE_WRITTEN};
use midge_abi::imports::Level;
use midge_abi::request::{HeadSpan, HeaderSpan, Request, block_size, encode, mark_body_partial};
use midge_abi::response::{Answer, Response};
use midge_loader::artifact::{self, Artifact};
use midge_loader::collect::{Collector, Fields, Written};
use midge_loader::context::{RequestContext, Services};
use midge_loader::drive::CallEnd;
use midge_loader::engine::Engines;
use midge_loader::function::{Function, FunctionLimits};
use midge_loader::slot::Used;
use midge_loader::start::choose::Machine;
use midge_loader::start::{AnyTechnique, StartTechnique};
use serde::Serialize;

use crate::cli::{BodySource, InvokeArgs};
use crate::compile::{self, Recipe};
use crate::config::{BuildLimits, counted};
use crate::deadline::{CoarseClock, Ticker};
use crate::deployment::choice;
use crate::extras::Extras;
use crate::output::{self, Cell, Table, Tone};
use crate::services::{RandomKey, wall_ns};
use midge_net::http::request::HEAD_BYTES_MAX;
use midge_net::http::trailers::{TRAILERS_MAX, may_be_trailer};

/// Version of the JSON object.
const SCHEMA: &str = "midge/invoke/1";
/// Repetitions of the phases before the call.
const COLD_ROUNDS_MAX: u32 = 50;
/// Time for one call.
const DEADLINE_NS: u64 = 10_000_000_000;
/// Largest memory of the guest.
const MEMORY_BYTES_MAX: usize = 1 << 30;
/// Largest response body.
const RESPONSE_BYTES_MAX: usize = 64 << 20;
/// Names of the phases, in order.
const PHASES: [&str; 7] = ["map", "register", "template", "slot", "enter", "guest", "restore"];

#[derive(Debug, Serialize)]
struct Report {
    schema: &'static str,
    technique: &'static str,
    tier: &'static str,
    dirty_pages: usize,
    /// Instructions, where they are counted.
    #[serde(skip_serializing_if = "Option::is_none")]
    fuel_used: Option<u64>,
    response: ResponseReport,
    phases_ns: serde_json::Map<String, serde_json::Value>,
    total_ns: Quantiles,
}

#[derive(Debug, Clone, Serialize)]
struct ResponseReport {
    status: u16,
    headers: Vec<(String, String)>,
    body: String,
    /// Fields behind the body.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    trailers: Vec<(String, String)>,
}

#[derive(Debug, Clone, Copy, Serialize)]
struct Quantiles {
    median: u64,
    p99: u64,
}

/// Runs the command.
///
/// # Errors
/// The function cannot be loaded, or the call ends without a response.
pub fn run(args: &InvokeArgs) -> Result<ExitCode> {
    let engines = Arc::new(Engines::of(args.limits.limits().processor.value));
    let clock = CoarseClock::new();
    let _ticker = Ticker::start(Arc::clone(&engines), clock.clone())
        .context("cannot start the ticker's thread")?;
    let services: Arc<dyn Services> = Arc::new(InvokeServices {
        clock: clock.clone(),
        key: RandomKey::draw().context("no random bytes")?,
    });
    let request = RequestText::new(args)?;
    let recipe = args.files.recipe(&args.file, args.form.form());
    let file = ArtifactFile::of(&recipe, &args.limits.limits())?;

    let mut times = Times::default();
    let mut invocation = None;
    for _ in 0..args.repeat.min(COLD_ROUNDS_MAX) {
        invocation = Some(Invocation::open(args, &file, &engines, &services, &clock, &mut times)?);
    }
    let mut invocation = invocation.context("at least one call is made")?;
    let mut called = None;
    for round in 0..args.repeat {
        let request_id = u128::from(round).to_be_bytes();
        called = Some(invocation.call(&request, request_id, &mut times)?);
    }
    let called = called.context("at least one call is made")?;
    let report = Report {
        schema: SCHEMA,
        technique: invocation.function.technique().name(),
        tier: called.tier,
        dirty_pages: called.dirty_pages,
        fuel_used: called.fuel_used,
        response: called.response,
        total_ns: times.total(),
        phases_ns: times.phases()?,
    };
    if args.json {
        output::print_json(&report)?
    } else {
        show(&report, &times)?
    }
    Ok(ExitCode::SUCCESS)
}

/// The artifact as a file: the one that was named, or one built for the occasion.
struct ArtifactFile {
    path: std::path::PathBuf,
    _folder: Option<tempfile::TempDir>,
}

impl ArtifactFile {
    fn of(recipe: &Recipe<'_>, limits: &BuildLimits) -> Result<Self> {
        let path = recipe.module;
        let shown = path.display();
        if artifact::is_artifact(path).with_context(|| format!("cannot read `{shown}`"))? {
            recipe.refuse_files()?;
            return Ok(Self { path: path.to_owned(), _folder: None });
        }
        let compiled = compile::of_file(recipe, limits)?;
        let folder = tempfile::tempdir().context("cannot make a temporary folder")?;
        let path = folder.path().join("built.midge");
        artifact::write(&path, &compiled.artifact).context("cannot write the artifact")?;
        Ok(Self { path, _folder: Some(folder) })
    }
}

/// A function ready to be called.
struct Invocation {
    technique: AnyTechnique,
    function: Arc<Function>,
    clock: CoarseClock,
}

struct Called {
    tier: &'static str,
    dirty_pages: usize,
    fuel_used: Option<u64>,
    response: ResponseReport,
}

impl Invocation {
    fn open(
        args: &InvokeArgs,
        file: &ArtifactFile,
        engines: &Engines,
        services: &Arc<dyn Services>,
        clock: &CoarseClock,
        times: &mut Times,
    ) -> Result<Self> {
        let began = Instant::now();
        let artifact = Artifact::open(&file.path, engines);
        let opened = nanoseconds(began);
        let artifact =
            artifact.with_context(|| format!("cannot open `{}`", args.file.display()))?;
        let template = u64::try_from(artifact.template_time().as_nanos()).unwrap_or(u64::MAX);
        times.push("map", opened.saturating_sub(template));
        times.push("template", template);

        let choice = choice(args.technique, &artifact, Machine::of_this_process())?;
        let began = Instant::now();
        let limits = FunctionLimits { memory_bytes_max: MEMORY_BYTES_MAX, fuel: args.fuel.into() };
        let services = Arc::clone(services);
        let function = Function::register(&artifact, choice.technique, engines, services, limits)?;
        times.push("register", nanoseconds(began));
        let function = Arc::new(function);
        let technique = AnyTechnique::new(Arc::clone(&function), 1);
        Ok(Self { technique, function, clock: clock.clone() })
    }

    fn call(
        &mut self,
        text: &RequestText,
        request_id: [u8; 16],
        times: &mut Times,
    ) -> Result<Called> {
        let began = Instant::now();
        let started = self.technique.take()?;
        times.push("slot", nanoseconds(began));
        let mut pristine = started.pristine;
        let area = self.function.area();
        let bare = block_size(text.bytes(), text.headers.len(), 0);
        let (body, unread) = if self.function.reads_body() {
            let most = self.function.area_bytes().saturating_sub(bare);
            text.body.split_at(text.body.len().min(most))
        } else {
            (text.body.as_slice(), &[][..])
        };
        let size = block_size(text.bytes(), text.headers.len(), body.len());
        anyhow::ensure!(
            size <= self.function.area_bytes(),
            "the request takes {size} bytes, the function's area has {}",
            self.function.area_bytes()
        );
        let entered = Instant::now();
        let block = pristine.area(area, size).context("the machine is out of mappings")?;
        let request = Request { body, ..text.request(request_id) };
        encode(block, &request, text.headers.iter().copied());
        if !unread.is_empty() {
            mark_body_partial(block);
        }
        times.push("enter", nanoseconds(entered));
        let began_ns = self.clock.precise_ns();
        let context = RequestContext { request_id, began_ns, time_ns: DEADLINE_NS };
        let called = Instant::now();
        let collector = Collector::new(unread, RESPONSE_BYTES_MAX);
        let mut collector = collector.with_trailers(&text.trailers);
        let used = collector.run(pristine.call(context, area, size));
        times.push("guest", nanoseconds(called));
        let response = response(&used, collector.into_written(), self.function.artifact())?;
        let dirty_pages = used.dirty_page_count();
        let fuel_used = used.fuel_used();
        let restored = Instant::now();
        let _discard = self.technique.give(used);
        times.push("restore", nanoseconds(restored));
        times.totals.push(nanoseconds(began));
        Ok(Called { tier: started.tier.name(), dirty_pages, fuel_used, response })
    }
}

fn response(used: &Used, written: Option<Written>, artifact: &Artifact) -> Result<ResponseReport> {
    let address = match used.end() {
        CallEnd::Returned(address) => *address,
        CallEnd::Trapped(trap) => {
            let text = midge_loader::trace::describe(trap, artifact);
            anyhow::bail!("the function trapped: {}", text.replace('\n', "\n  in "))
        }
        CallEnd::NoStack => anyhow::bail!("there is no memory or no mapping for a fiber's stack"),
        CallEnd::FuelExhausted => {
            anyhow::bail!("the function used up its instructions; --fuel allows more")
        }
        CallEnd::DeadlineExceeded => anyhow::bail!("the function ran for longer than 10 s"),
    };
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    if let Some(written) = written {
        anyhow::ensure!(
            address == RESPONSE_WRITTEN,
            "the function wrote a response, and returned another or an error"
        );
        let pair = |(name, value): &(Vec<u8>, Vec<u8>)| (text(name), text(value));
        let trailers = written.trailers.iter().flatten();
        return Ok(ResponseReport {
            status: written.status,
            headers: written.headers.iter().map(pair).collect(),
            body: text(&written.body),
            // The others would not be sent either.
            trailers: trailers.filter(|(name, _)| may_be_trailer(name)).map(pair).collect(),
        });
    }
    match Response::read(used.memory(), address, RESPONSE_BYTES_MAX)
        .context("the function's response breaks the contract")?
    {
        Answer::Response(response) => Ok(ResponseReport {
            status: response.status(),
            headers: response.headers().map(|(name, value)| (text(name), text(value))).collect(),
            body: text(response.body()),
            trailers: Vec::new(),
        }),
        Answer::Error(message) => anyhow::bail!("the function reports: {}", text(message)),
    }
}

/// The request, as bytes with their places.
struct RequestText {
    head: Vec<u8>,
    method: Method,
    method_name: HeadSpan,
    target: HeadSpan,
    path: HeadSpan,
    query: HeadSpan,
    authority: HeadSpan,
    headers: Vec<HeaderSpan>,
    extras: Extras,
    body: Vec<u8>,
    trailers: Fields,
}

impl RequestText {
    fn new(args: &InvokeArgs) -> Result<Self> {
        let body = args.data.as_ref().map(read_body).transpose()?;
        let default = if body.is_some() { "POST" } else { "GET" };
        let method_name = args.method.as_deref().unwrap_or(default);
        let mut head = Vec::new();
        let method_span = put(&mut head, method_name)?;
        head.push(b' ');
        let target = put(&mut head, &args.path)?;
        let path_size = args.path.find('?').unwrap_or(args.path.len());
        let path = HeadSpan { offset: target.offset, size: u16::try_from(path_size)? };
        let query_size = args.path.len().saturating_sub(path_size + 1);
        let query = HeadSpan {
            offset: target.offset + path.size + u16::from(query_size > 0),
            size: u16::try_from(query_size)?,
        };
        head.extend_from_slice(b" HTTP/1.1\r\n");
        let mut headers = Vec::new();
        let mut authority = HeadSpan::default();
        let host = ("host".to_owned(), "localhost".to_owned());
        for (name, value) in std::iter::once(&host).chain(&args.header) {
            let name = put(&mut head, name)?;
            head.extend_from_slice(b": ");
            let value = put(&mut head, value)?;
            head.extend_from_slice(b"\r\n");
            if headers.is_empty() {
                authority = value;
            }
            headers.push(HeaderSpan { name, value });
        }
        head.extend_from_slice(b"\r\n");
        let extras = Extras::new(&args.argument, &args.environment)?;
        anyhow::ensure!(
            head.len() <= HEAD_BYTES_MAX,
            "the head is longer than {HEAD_BYTES_MAX} bytes"
        );
        headers.extend(extras.rows(head.len()));
        let method = method(method_name);
        let body = body.unwrap_or_default();
        anyhow::ensure!(
            args.trailer.len() <= usize::from(TRAILERS_MAX),
            "more than {TRAILERS_MAX} fields behind the body"
        );
        let bytes = |(name, value): &(String, String)| {
            (name.clone().into_bytes(), value.clone().into_bytes())
        };
        let trailers = args.trailer.iter().map(bytes).collect();
        let method_name = method_span;
        Ok(Self {
            head,
            method,
            method_name,
            target,
            path,
            query,
            authority,
            headers,
            extras,
            body,
            trailers,
        })
    }

    /// Returns the size of head and extras.
    fn bytes(&self) -> usize {
        self.head.len() + self.extras.text().len()
    }

    fn request(&self, request_id: [u8; 16]) -> Request<'_> {
        Request {
            head: &self.head,
            tail: self.extras.text(),
            method: self.method,
            method_name: self.method_name,
            target: self.target,
            path: self.path,
            query: self.query,
            authority: self.authority,
            is_http_1_0: false,
            body: &self.body,
            request_id,
            deadline_ns: DEADLINE_NS,
            peer_address: [0; 16],
            peer_port: 0,
        }
    }
}

fn put(head: &mut Vec<u8>, text: &str) -> Result<HeadSpan> {
    let offset = u16::try_from(head.len()).context("the head is longer than 64 KiB")?;
    let size = u16::try_from(text.len()).context("the head is longer than 64 KiB")?;
    head.extend_from_slice(text.as_bytes());
    Ok(HeadSpan { offset, size })
}

fn method(name: &str) -> Method {
    match name {
        "GET" => Method::Get,
        "HEAD" => Method::Head,
        "POST" => Method::Post,
        "PUT" => Method::Put,
        "DELETE" => Method::Delete,
        "OPTIONS" => Method::Options,
        "PATCH" => Method::Patch,
        "TRACE" => Method::Trace,
        _ => Method::Other,
    }
}

fn read_body(source: &BodySource) -> Result<Vec<u8>> {
    match source {
        BodySource::Text(text) => Ok(text.clone().into_bytes()),
        BodySource::File(path) => {
            std::fs::read(path).with_context(|| format!("cannot read `{}`", path.display()))
        }
        BodySource::Stdin => {
            let mut body = Vec::new();
            let limit = u64::from(midge_abi::contract::AREA_SIZE_MAX);
            std::io::stdin().take(limit).read_to_end(&mut body).context("cannot read stdin")?;
            Ok(body)
        }
    }
}

/// Times of each phase.
#[derive(Debug, Default)]
struct Times {
    phases: std::collections::HashMap<&'static str, Vec<u64>>,
    totals: Vec<u64>,
}

impl Times {
    fn push(&mut self, phase: &'static str, ns: u64) {
        self.phases.entry(phase).or_default().push(ns);
    }

    fn quantiles(&self, phase: &str) -> Quantiles {
        quantiles(self.phases.get(phase).map_or(&[], Vec::as_slice))
    }

    fn total(&self) -> Quantiles {
        quantiles(&self.totals)
    }

    fn phases(&self) -> Result<serde_json::Map<String, serde_json::Value>> {
        let mut phases = serde_json::Map::new();
        for phase in PHASES {
            phases.insert(phase.to_owned(), serde_json::to_value(self.quantiles(phase))?);
        }
        Ok(phases)
    }
}

fn quantiles(values: &[u64]) -> Quantiles {
    let mut sorted = values.to_vec();
    sorted.sort_unstable();
    let at = |share: usize| sorted.get((sorted.len() * share).div_ceil(100).saturating_sub(1));
    Quantiles { median: at(50).copied().unwrap_or(0), p99: at(99).copied().unwrap_or(0) }
}

fn nanoseconds(since: Instant) -> u64 {
    u64::try_from(since.elapsed().as_nanos()).unwrap_or(u64::MAX)
}

fn show(report: &Report, times: &Times) -> Result<()> {
    let mut text = format!("{}\n", report.response.status);
    for (name, value) in &report.response.headers {
        text += &format!("{name}: {value}\n");
    }
    let end = if report.response.body.ends_with('\n') { "" } else { "\n" };
    text += &format!("\n{}{end}\n", report.response.body);
    for (name, value) in &report.response.trailers {
        text += &format!("{name}: {value}\n");
    }
    if !report.response.trailers.is_empty() {
        text.push('\n');
    }
    text += &format!(
        "technique {}, tier {}, {}, {}\n",
        report.technique,
        report.tier,
        counted(report.dirty_pages, "dirty page"),
        counted(times.totals.len(), "call"),
    );
    let mut table = Table::new(&["phase", "median ns", "p99 ns"], output::stdout_is_colourful());
    let mut row = |name: &str, quantiles: Quantiles| {
        table.push(vec![
            Cell::new(name, Tone::Plain),
            Cell::new(quantiles.median.to_string(), Tone::Plain),
            Cell::new(quantiles.p99.to_string(), Tone::Plain),
        ]);
    };
    for phase in PHASES {
        row(phase, times.quantiles(phase));
    }
    row("total of a call", times.total());
    text += &table.to_string();
    Ok(output::print(&text)?)
}

/// Clocks and chance of the host; what the guest logs goes to stderr.
struct InvokeServices {
    clock: CoarseClock,
    key: RandomKey,
}

impl Services for InvokeServices {
    fn log(&self, _request_id: &[u8; 16], level: Level, line: &[u8]) {
        let line = String::from_utf8_lossy(line);
        output::complain(&format!("{}: {}\n", level.name(), output::printable(&line)));
    }

    fn wall_ns(&self) -> u64 {
        wall_ns()
    }

    fn monotonic_ns(&self) -> u64 {
        self.clock.precise_ns()
    }

    fn seed(&self, request_id: &[u8; 16]) -> [u8; 32] {
        self.key.derive(request_id)
    }
}
