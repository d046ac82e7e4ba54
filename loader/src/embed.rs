//! The loader for other programs: bytes in, bytes out, each call in a pristine instance.
//!
//! What a host with a network does by hand, in one type: build, register, keep slots, bound the call in time,
//! read the answer as the claim that it is. Deadlines need a clock that ticks while a guest runs, so there is a
//! thread that moves the engines' epochs.
//!
//! Not here: many functions, sharing between threads (make one [`Embedded`] for each), suspension (a call runs
//! to its end or its deadline).

use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use midge_abi::contract::{Method, RESPONSE_WRITTEN};
use midge_abi::imports::Level;
use midge_abi::request::{HeadSpan, Request, block_size, encode, mark_body_partial};
use midge_abi::response::{Answer, GuestFault, Response};

use crate::artifact::{Artifact, ArtifactError};
use crate::build::{BuildError, build};
use crate::collect::Collector;
use crate::context::{RequestContext, Services};
use crate::drive::{CallEnd, Trap};
use crate::engine::{EngineError, Engines};
use crate::function::{Function, FunctionLimits};
use crate::instance::StartError;
use crate::start::choose::{Machine, choose};
use crate::start::{AnyTechnique, StartTechnique, Technique};

/// Time between two moves of the epoch: what a guest that does not end costs beyond its deadline.
const TICK: Duration = Duration::from_millis(1);
/// Slots that are kept; one call is under way at a time.
const SLOTS: usize = 1;
/// What stands where a received head would: the guest sees `POST /`.
const HEAD: &[u8] = b"POST / HTTP/1.1\r\n\r\n";

/// Bounds of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Largest size of each linear memory, in bytes.
    pub memory_bytes_max: usize,
    /// Longest answer, in bytes.
    pub answer_bytes_max: usize,
    /// Time for one call.
    pub deadline: Duration,
}

impl Default for Limits {
    /// 64 MiB of memory, 1 MiB of answer, a second.
    fn default() -> Self {
        let (memory_bytes_max, answer_bytes_max) = (64 << 20, 1 << 20);
        Self { memory_bytes_max, answer_bytes_max, deadline: Duration::from_secs(1) }
    }
}

/// Why there is no answer. The instance is pristine again after each of them.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EmbedError {
    /// The module is refused.
    #[error(transparent)]
    Build(#[from] BuildError),
    /// The artifact is refused.
    #[error(transparent)]
    Artifact(#[from] ArtifactError),
    /// No engine can be had.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// No instance can be started.
    #[error(transparent)]
    Start(#[from] StartError),
    /// The input does not fit into the guest's area.
    #[error("input has {found} bytes, the guest takes {most}")]
    InputTooLong {
        /// Its size.
        found: usize,
        /// The most that the area holds.
        most: usize,
    },
    /// The guest trapped.
    #[error("guest trapped")]
    Trapped(#[source] Trap),
    /// The guest ran past its deadline.
    #[error("guest was stopped at its deadline")]
    DeadlineExceeded,
    /// The guest says that it failed.
    #[error("guest failed: {0}")]
    Failed(String),
    /// The guest's answer breaks the contract.
    #[error("guest's answer is refused")]
    Answer(#[from] GuestFault),
    /// The machine is out of memory or mappings.
    #[error("machine is out of memory or mappings (vm.max_map_count)")]
    Exhausted,
}

/// What a guest answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Output {
    /// Its status, as of HTTP.
    pub status: u16,
    /// Its bytes.
    pub body: Vec<u8>,
}

/// A guest, ready to be called.
///
/// ```
/// use midge_loader::embed::{Embedded, Limits};
///
/// let guest = r#"(module
///   (memory (export "memory") 2)
///   (data (i32.const 64) "MDGE\01\00\00\00\00\00\01\00\00\00\01\00")
///   (data (i32.const 1024) "\c8\00\00\00\00\00\00\00\00\00\00\00\00\08\00\00\02\00\00\00")
///   (data (i32.const 2048) "hi")
///   (func (export "midge_contract") (result i32) (i32.const 64))
///   (func (export "midge_handle") (param i32 i32) (result i32) (i32.const 1024)))"#;
/// let mut greeter = Embedded::of_module("greeter.wat", guest.as_bytes(), Limits::default())?;
/// let output = greeter.call(b"anything")?;
/// assert_eq!((output.status, output.body.as_slice()), (200, &b"hi"[..]));
/// # Ok::<(), midge_loader::embed::EmbedError>(())
/// ```
pub struct Embedded {
    technique: AnyTechnique,
    function: Arc<Function>,
    limits: Limits,
    began: Instant,
    calls: u64,
    _ticker: Ticker,
}

impl Embedded {
    /// Compiles a module in binary or text form. For modules that nobody vouches for, compile in a process that
    /// is bounded (`midge build`), and open the artifact.
    ///
    /// # Errors
    /// [`EmbedError`] says why the module is refused.
    pub fn of_module(name: &str, source: &[u8], limits: Limits) -> Result<Self, EmbedError> {
        let engines = Arc::new(Engines::new());
        let built = build(name, source, &engines)?;
        let artifact = Artifact::from_bytes(&built.bytes, &engines)?;
        Self::of_artifact(&artifact, &engines, Arc::new(Silent::new()), limits)
    }

    /// Opens an artifact. It is trusted as a program is: it holds machine code.
    ///
    /// # Errors
    /// [`EmbedError`] says why it is refused.
    pub fn open(path: &Path, limits: Limits) -> Result<Self, EmbedError> {
        let engines = Arc::new(Engines::new());
        let artifact = Artifact::open(path, &engines)?;
        Self::of_artifact(&artifact, &engines, Arc::new(Silent::new()), limits)
    }

    /// Takes an artifact of these engines, with services of the embedder's own.
    ///
    /// # Errors
    /// [`EmbedError`] if no instance can be started.
    pub fn of_artifact(
        artifact: &Arc<Artifact>,
        engines: &Arc<Engines>,
        services: Arc<dyn Services>,
        limits: Limits,
    ) -> Result<Self, EmbedError> {
        let technique = choose(artifact.manifest(), Machine::of_this_process()).technique;
        let memory_bytes_max = limits.memory_bytes_max;
        let function = FunctionLimits::of_memory(memory_bytes_max);
        let function = Function::register(artifact, technique, engines, services, function)?;
        let function = Arc::new(function);
        Ok(Self {
            technique: AnyTechnique::new(Arc::clone(&function), SLOTS),
            function,
            limits,
            began: Instant::now(),
            calls: 0,
            _ticker: Ticker::start(Arc::clone(engines)),
        })
    }

    /// Returns the technique by which instances are made pristine.
    #[must_use]
    pub fn technique(&self) -> Technique {
        self.function.technique()
    }

    /// Calls the guest with `input` as its request's body, in a pristine instance.
    ///
    /// # Errors
    /// [`EmbedError`]; the next call finds a pristine instance after each of them.
    pub fn call(&mut self, input: &[u8]) -> Result<Output, EmbedError> {
        self.calls += 1;
        let request_id = u128::from(self.calls).to_le_bytes();
        let time_ns = u64::try_from(self.limits.deadline.as_nanos()).unwrap_or(u64::MAX);
        let most = self.function.area_bytes() - block_size(HEAD.len(), 0, 0);
        let reads_body = self.function.reads_body();
        let (body, unread) =
            input.split_at(if reads_body { input.len().min(most) } else { input.len() });
        let size = block_size(HEAD.len(), 0, body.len());
        if self.function.area_bytes() < size {
            return Err(EmbedError::InputTooLong { found: input.len(), most });
        }
        let mut pristine = self.technique.take()?.pristine;
        let area = pristine.area(self.function.area(), size).ok_or(EmbedError::Exhausted)?;
        encode(area, &request(body, request_id, time_ns), [].into_iter());
        if !unread.is_empty() {
            mark_body_partial(area);
        }
        let began_ns = u64::try_from(self.began.elapsed().as_nanos()).unwrap_or(u64::MAX);
        let context = RequestContext { request_id, began_ns, time_ns };
        let mut collector = Collector::new(unread, self.limits.answer_bytes_max);
        let used = collector.run(pristine.call(context, self.function.area(), size));
        let written = collector.into_written();
        let is_exhausted = used.is_exhausted();
        let output = match used.end() {
            CallEnd::Returned(RESPONSE_WRITTEN) if let Some(written) = written => {
                Ok(Output { status: written.status, body: written.body })
            }
            CallEnd::Returned(address) => output(&used, *address, self.limits.answer_bytes_max),
            CallEnd::DeadlineExceeded | CallEnd::FuelExhausted => Err(EmbedError::DeadlineExceeded),
            CallEnd::NoStack => Err(EmbedError::Exhausted),
            CallEnd::Trapped(_) if is_exhausted => Err(EmbedError::Exhausted),
            // The trap refers to the module's code, which outlives it: `self` holds the artifact.
            CallEnd::Trapped(trap) => Err(EmbedError::Trapped(wasmtime::format_err!("{trap:?}"))),
        };
        let _discarded = self.technique.give(used);
        output
    }
}

fn request(body: &[u8], request_id: [u8; 16], deadline_ns: u64) -> Request<'_> {
    Request {
        head: HEAD,
        tail: b"",
        method: Method::Post,
        method_name: HeadSpan { offset: 0, size: 4 },
        target: HeadSpan { offset: 5, size: 1 },
        path: HeadSpan { offset: 5, size: 1 },
        query: HeadSpan::default(),
        authority: HeadSpan::default(),
        is_http_1_0: false,
        body,
        request_id,
        deadline_ns,
        peer_address: [0; 16],
        peer_port: 0,
    }
}

fn output(used: &crate::slot::Used, address: u32, most: usize) -> Result<Output, EmbedError> {
    match Response::read(used.memory(), address, most)? {
        Answer::Response(response) => {
            Ok(Output { status: response.status(), body: response.body().to_vec() })
        }
        Answer::Error(message) => {
            Err(EmbedError::Failed(String::from_utf8_lossy(message).into_owned()))
        }
    }
}

/// Services for guests that need none: nothing is logged, clocks run, and chance is drawn from a counter, so it
/// is not secret.
#[derive(Debug)]
pub struct Silent(Instant);

impl Silent {
    /// Makes them; the guests' clock begins here.
    #[must_use]
    pub fn new() -> Self {
        Self(Instant::now())
    }
}

impl Default for Silent {
    fn default() -> Self {
        Self::new()
    }
}

impl Services for Silent {
    fn log(&self, _request_id: &[u8; 16], _level: Level, _line: &[u8]) {}

    fn wall_ns(&self) -> u64 {
        let since = std::time::UNIX_EPOCH.elapsed().unwrap_or_default();
        u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
    }

    fn monotonic_ns(&self) -> u64 {
        u64::try_from(self.0.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    fn seed(&self, request_id: &[u8; 16]) -> [u8; 32] {
        let mut seed = [0; 32];
        seed[..16].copy_from_slice(request_id);
        seed
    }
}

/// Moves the epochs until it is dropped.
struct Ticker {
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Ticker {
    fn start(engines: Arc<Engines>) -> Self {
        let (stop, stopped) = channel::<()>();
        let thread = std::thread::spawn(move || {
            while stopped.recv_timeout(TICK) == Err(RecvTimeoutError::Timeout) {
                engines.tick();
            }
        });
        Self { stop: Some(stop), thread: Some(thread) }
    }
}

impl Drop for Ticker {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // It does nothing that could panic; and a drop has nobody to tell.
            drop(thread.join());
        }
    }
}
