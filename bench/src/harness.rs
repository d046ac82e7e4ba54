//! One function under one technique, called in process: what the host does between the network's two ends.

use std::sync::Arc;

use anyhow::{Context, Result, bail};
use midge_abi::contract::Method;
use midge_abi::imports::Level;
use midge_abi::manifest::{CodeForm, Isolation};
use midge_abi::request::{HeadSpan, HeaderSpan, Request, block_size, encode};
use midge_abi::response::{Answer, Response};
use midge_loader::artifact::Artifact;
use midge_loader::build::build_as;
use midge_loader::container::MAGIC;
use midge_loader::context::{RequestContext, Services};
use midge_loader::drive::CallEnd;
use midge_loader::engine::Engines;
use midge_loader::function::{Function, FunctionLimits};
use midge_loader::slot::{Discard, Progress, Used};
use midge_loader::start::{AnyTechnique, StartTechnique, Technique, Tier};

/// A small request, as a browserless client sends it.
pub const HEAD: &[u8] =
    b"GET /hello?name=lab HTTP/1.1\r\nhost: localhost:8080\r\nuser-agent: midge-lab\r\naccept: */*\r\n\r\n";

/// A request as a browser sends it.
pub const BROWSER: &[u8] = b"GET /notes/42?sort=title&page=2 HTTP/1.1\r\nhost: localhost:8080\r\n\
connection: keep-alive\r\nsec-ch-ua: \"Chromium\";v=\"130\", \"Not?A_Brand\";v=\"99\"\r\n\
sec-ch-ua-mobile: ?0\r\nsec-ch-ua-platform: \"Linux\"\r\nupgrade-insecure-requests: 1\r\n\
user-agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/130.0.0.0 Safari/537.36\r\n\
accept: text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8\r\n\
sec-fetch-site: none\r\nsec-fetch-mode: navigate\r\nsec-fetch-dest: document\r\n\
accept-encoding: gzip, deflate, br, zstd\r\naccept-language: en-US,en;q=0.9\r\n\r\n";

/// Silent services.
struct LabServices;

impl Services for LabServices {
    fn log(&self, _request_id: &[u8; 16], _level: Level, _line: &[u8]) {}

    fn wall_ns(&self) -> u64 {
        0
    }

    fn monotonic_ns(&self) -> u64 {
        0
    }

    fn seed(&self, request_id: &[u8; 16]) -> [u8; 32] {
        let mut seed = [0; 32];
        seed[..16].copy_from_slice(request_id);
        seed
    }
}

/// Builds an artifact in memory.
///
/// # Errors
/// If the guest is refused.
pub fn artifact(source: &[u8], engines: &Engines) -> Result<Arc<Artifact>> {
    artifact_isolated(source, Isolation::GuardPages, engines)
}

/// The same with this isolation.
///
/// # Errors
/// If the guest is refused.
pub fn artifact_isolated(
    source: &[u8],
    isolation: Isolation,
    engines: &Engines,
) -> Result<Arc<Artifact>> {
    // Built already: a large runtime takes as long to compile as all its rounds.
    if source.starts_with(&MAGIC) {
        return Ok(Artifact::from_bytes(source, engines)?);
    }
    let built = build_as("guest", source, CodeForm { isolation, ..CodeForm::PLAIN }, engines)?;
    Ok(Artifact::from_bytes(&built.bytes, engines)?)
}

/// Registers a function.
///
/// # Errors
/// If the technique cannot be had.
pub fn function(
    artifact: &Arc<Artifact>,
    technique: Technique,
    engines: &Engines,
) -> Result<Arc<Function>> {
    let limits = FunctionLimits::of_memory(256 << 20);
    let services = Arc::new(LabServices);
    let function = Function::register(artifact, technique, engines, services, limits)
        .with_context(|| format!("technique {technique}"))?;
    Ok(Arc::new(function))
}

/// A function ready to be called.
pub struct Harness {
    technique: AnyTechnique,
    function: Arc<Function>,
    calls: u64,
}

/// What one call was.
#[derive(Debug, Clone, Copy)]
pub struct Called {
    /// Where its instance came from.
    pub tier: Tier,
    /// Pages on the slot's dirty lists.
    pub dirty_pages: usize,
    /// Status of the response.
    pub status: u16,
    /// Why the slot was given up, if it was.
    pub discard: Option<Discard>,
}

impl Harness {
    /// Registers a function.
    ///
    /// # Errors
    /// If the technique cannot be had.
    pub fn new(artifact: &Arc<Artifact>, technique: Technique, engines: &Engines) -> Result<Self> {
        Ok(Self::of(&function(artifact, technique, engines)?, 1024))
    }

    /// Calls a function that is registered, keeping up to `slots_max` slots.
    #[must_use]
    pub fn of(function: &Arc<Function>, slots_max: usize) -> Self {
        let technique = AnyTechnique::new(Arc::clone(function), slots_max);
        Self { technique, function: Arc::clone(function), calls: 0 }
    }

    /// Takes an instance, writes a request, calls, reads the response, gives the instance back.
    ///
    /// # Panics
    /// If the guest fails: the lab's guests do not.
    pub fn call(&mut self) -> Called {
        let ((tier, status), used) = self.serve();
        let dirty_pages = used.dirty_page_count();
        Called { tier, dirty_pages, status, discard: self.give(used) }
    }

    /// Gives a slot back that [`Harness::serve`] returned.
    pub fn give(&mut self, used: Used) -> Option<Discard> {
        self.technique.give(used)
    }

    /// As [`Harness::call`], without giving the instance back. Returns tier and status too.
    ///
    /// # Panics
    /// If the guest fails.
    pub fn serve(&mut self) -> ((Tier, u16), Used) {
        self.try_serve().expect("the guest answers")
    }

    /// Tells whether the guest answers some calls in a row: one in a file may not, as that of a runtime whose
    /// instance is used again.
    ///
    /// # Errors
    /// What it did instead.
    pub fn check(&mut self) -> Result<()> {
        for _ in 0..3 {
            let (_, used) = self.try_serve()?;
            self.give(used);
        }
        Ok(())
    }

    /// As [`Harness::serve`].
    ///
    /// # Errors
    /// If no instance can be had, or the guest does not answer.
    pub fn try_serve(&mut self) -> Result<((Tier, u16), Used)> {
        self.calls += 1;
        let mut request_id = [0; 16];
        request_id[..8].copy_from_slice(&self.calls.to_le_bytes());
        let request = request(request_id);
        let size = block_size(HEAD.len(), HEADERS.len(), 0);
        let started = self.technique.take()?;
        let mut pristine = started.pristine;
        let area =
            pristine.area(self.function.area(), size).context("a page cannot be made writable")?;
        encode(area, &request, HEADERS.into_iter());
        let context = RequestContext { request_id, began_ns: 0, time_ns: u64::MAX };
        let used = match pristine.call(context, self.function.area(), size) {
            Progress::Done(used) => used,
            Progress::Suspended(_) | Progress::Waiting(_) => bail!("the guest waits for something"),
        };
        let CallEnd::Returned(address) = *used.end() else { bail!("{:?}", used.end()) };
        let answer = Response::read(used.memory(), address, 1 << 20)?;
        let Answer::Response(response) = answer else { bail!("the guest reports an error") };
        let status = response.status();
        std::hint::black_box(response.body());
        Ok(((started.tier, status), used))
    }
}

/// Returns the request of [`HEAD`].
#[must_use]
pub const fn request(request_id: [u8; 16]) -> Request<'static> {
    Request {
        head: HEAD,
        tail: b"",
        method: Method::Get,
        method_name: HeadSpan { offset: 0, size: 3 },
        target: HeadSpan { offset: 4, size: 15 },
        path: HeadSpan { offset: 4, size: 6 },
        query: HeadSpan { offset: 11, size: 8 },
        authority: HeadSpan { offset: 36, size: 14 },
        is_http_1_0: false,
        body: &[],
        request_id,
        deadline_ns: 1_000_000_000,
        peer_address: [0; 16],
        peer_port: 0,
    }
}

/// The headers of [`HEAD`].
pub const HEADERS: [HeaderSpan; 3] =
    [header(30, 4, 36, 14), header(52, 10, 64, 9), header(75, 6, 83, 3)];

const fn header(name: u16, name_size: u16, value: u16, value_size: u16) -> HeaderSpan {
    HeaderSpan {
        name: HeadSpan { offset: name, size: name_size },
        value: HeadSpan { offset: value, size: value_size },
    }
}
