//! A proof: instances that a technique hands out, against truly fresh ones, through the same requests.
//!
//! ```text
//!              tested                                    fresh
//!              take from the technique                   a new instance of the engine's,
//!                 |                                      its start-up run anew
//!   compare all state  <------ before the call ------>      |
//!                 | the same request, the same answers      |
//!                 | of clock and chance (Script)            |
//!   compare all state, how the call ended, the response, what the guest logged and was answered
//!                 | give back: the technique restores it    | drop
//! ```
//!
//! A difference names its place; `writer` finds the function that changed it.
//!
//! Invariant: the two instances share the engine's code and nothing else; what differs between them came
//! from the technique, or from a deadline, which is counted and not compared.

mod difference; // what differs between two snapshots
mod script; // clock, chance and log that can be replayed
mod writer; // the function that changed a place

use std::sync::Arc;

use midge_abi::response::{Answer, GuestFault, Response};
use midge_abi::width::{index, wire};

use self::difference::Found;
pub use self::difference::{Difference, Spot};
pub use self::script::{Record, Script};
pub use self::writer::Writer;
use crate::artifact::{Artifact, ArtifactError};
use crate::build::{BuildError, build, build_unstarted};
use crate::collect::{Collector, Written};
use crate::context::{RequestContext, Services};
use crate::drive::CallEnd;
use crate::engine::{EngineError, Engines};
use crate::function::{Function, FunctionLimits};
use crate::instance::{StartError, StateSnapshot};
use crate::module::{ModuleError, WASM_PAGE_SIZE, binary_form};
use crate::slot::{Pristine, Used};
use crate::start::{AnyTechnique, StartTechnique, Technique};
use crate::witness::{self, Place};

/// Largest response body that is compared; the bytes of any other are compared as memory.
const RESPONSE_BYTES_MAX: usize = 64 << 20;

/// What is proven: an artifact, and what it is compared with.
#[derive(Debug, Clone)]
pub struct Subject {
    artifact: Arc<Artifact>,
    fresh: Arc<Artifact>,
    // The module that writers are looked for in.
    module: Vec<u8>,
    segments: Vec<Place>,
}

/// Why nothing can be proven.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ProofError {
    /// The module is refused.
    #[error(transparent)]
    Build(#[from] BuildError),
    /// The engine's component runtime makes it anew for each request.
    #[error(
        "there is nothing to prove: the engine's component runtime makes it anew for each request: {refused}"
    )]
    Unlinked {
        /// Why it is not linked.
        refused: String,
    },
    /// The module does not parse.
    #[error(transparent)]
    Module(#[from] ModuleError),
    /// What was built is refused.
    #[error(transparent)]
    Artifact(#[from] ArtifactError),
    /// The engine is not to be had.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// No instance can be started.
    #[error(transparent)]
    Start(#[from] StartError),
    /// The request does not fit the function's area.
    #[error("request takes {size} bytes, the function's area has {area_bytes}")]
    RequestTooLarge {
        /// Its size as a block.
        size: usize,
        /// The area's.
        area_bytes: usize,
    },
    /// The machine is out of mappings or memory.
    #[error("machine is out of mappings or memory; raise vm.max_map_count")]
    Exhausted,
}

impl Subject {
    /// Builds a module for a proof. It gets exports by which its functions and the state of its segments
    /// are seen (`witness.rs`), and is built and started as any other; the fresh side runs its start-up in
    /// each instance.
    ///
    /// # Errors
    /// [`ProofError`] if the module is refused.
    pub fn of_module(name: &str, source: &[u8], engines: &Engines) -> Result<Self, ProofError> {
        let wasm = match binary_form(source) {
            Ok(wasm) => wasm,
            Err(ModuleError::Link(refused)) if refused.is_of_component(source) => {
                return Err(ProofError::Unlinked { refused: refused.to_string() });
            }
            Err(error) => return Err(BuildError::from(error).into()),
        };
        // Refused as it is first, for offsets in messages are those of the given file.
        let _facts = crate::module::ModuleFacts::read(&wasm).map_err(BuildError::from)?;
        let observed = witness::observed(&wasm)?;
        let built = build(name, &observed, engines)?;
        let unstarted = build_unstarted(name, &observed, engines)?;
        let segments = witness::droppable_segments(&wasm)?;
        Ok(Self {
            artifact: Artifact::from_bytes(&built.bytes, engines)?,
            fresh: Artifact::from_bytes(&unstarted.bytes, engines)?,
            module: wasm.into_owned(),
            segments: segments.iter().map(|segment| segment.place).collect(),
        })
    }

    /// Takes an artifact as it is: a fresh instance of its own module is the other side. Segments are
    /// compared by what the guest does with them alone, for it has no probes.
    ///
    /// # Errors
    /// [`ProofError`] if its module does not parse.
    pub fn of_artifact(artifact: Arc<Artifact>) -> Result<Self, ProofError> {
        if let Some(refused) = artifact.manifest().unlinked.clone() {
            return Err(ProofError::Unlinked { refused });
        }
        let module = artifact.module().map_err(BuildError::from)?.into_owned();
        let fresh = Arc::clone(&artifact);
        Ok(Self { artifact, fresh, module, segments: Vec::new() })
    }

    /// Returns the artifact whose instances are tested.
    #[must_use]
    pub const fn artifact(&self) -> &Arc<Artifact> {
        &self.artifact
    }
}

/// Bounds and chance of a proof.
#[derive(Debug, Clone, Copy)]
pub struct ProofSettings {
    /// The technique that is tested.
    pub technique: Technique,
    /// Largest size of each memory.
    pub memory_bytes_max: usize,
    /// Slices of about a millisecond that one call may use, if the engines' epochs are moved.
    pub slices_max: u64,
    /// What clock and chance depend on.
    pub seed: u64,
}

/// What was compared so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Compared {
    /// Calls, each made twice.
    pub calls: u64,
    /// Calls that changed more of the state than the host did with its request: what is there to be undone.
    pub changes: u64,
    /// Instances that the technique handed out after they had served.
    pub restores: u64,
    /// Snapshots of the whole state, of both sides.
    pub snapshots: u64,
    /// Bytes of memories in them.
    pub memory_bytes: u64,
    /// Mutable globals.
    pub globals: u64,
    /// Elements of tables.
    pub table_elements: u64,
    /// Segments that can be dropped.
    pub segments: u64,
    /// Lines that guests logged, and answers of clock and chance.
    pub records: u64,
    /// Responses that follow the contract.
    pub responses: u64,
    /// Calls that trapped.
    pub traps: u64,
    /// Calls that ran past their deadline: the state after them depends on time and is not compared.
    pub deadlines: u64,
}

impl Compared {
    /// Adds what another proof compared.
    pub const fn add(&mut self, other: Self) {
        let Self { calls, restores, snapshots, memory_bytes, globals, table_elements, .. } = other;
        let Self { changes, segments, records, responses, traps, deadlines, .. } = other;
        self.calls += calls;
        self.changes += changes;
        self.restores += restores;
        self.snapshots += snapshots;
        self.memory_bytes += memory_bytes;
        self.globals += globals;
        self.table_elements += table_elements;
        self.segments += segments;
        self.records += records;
        self.responses += responses;
        self.traps += traps;
        self.deadlines += deadlines;
    }
}

/// A proof under way.
pub struct Proof {
    subject: Subject,
    settings: ProofSettings,
    tested: AnyTechnique,
    tested_script: Arc<Script>,
    fresh: Side,
    area: u32,
    area_bytes: usize,
    compared: Compared,
    slot_has_served: bool,
}

/// A function whose instances are used once.
struct Side {
    function: Function,
    script: Arc<Script>,
}

/// A request that was sent, for [`Proof::writer`].
#[derive(Debug, Clone)]
pub struct Sent {
    /// Which call it was, counted from 0.
    pub call: u64,
    /// Its block.
    pub block: Vec<u8>,
}

/// How a call ended, as both sides must agree on it.
#[derive(Debug, PartialEq, Eq)]
enum End {
    Returned(u32),
    Trapped(String),
    DeadlineExceeded,
}

impl Proof {
    /// Registers both sides. The caller has found the technique to be allowed.
    ///
    /// # Errors
    /// [`ProofError::Start`] if the code cannot be loaded.
    pub fn new(
        subject: Subject,
        settings: ProofSettings,
        engines: &Engines,
    ) -> Result<Self, ProofError> {
        let tested_script = Arc::new(Script::new(settings.seed));
        let limits = FunctionLimits::of_memory(settings.memory_bytes_max);
        let services: Arc<dyn Services> = Arc::clone(&tested_script) as _;
        let function =
            Function::register(&subject.artifact, settings.technique, engines, services, limits)?;
        let (area, area_bytes) = (function.area(), function.area_bytes());
        Ok(Self {
            fresh: Side::new(&subject.fresh, engines, settings)?,
            subject,
            settings,
            tested: AnyTechnique::new(Arc::new(function), 1),
            tested_script,
            area,
            area_bytes,
            compared: Compared::default(),
            slot_has_served: false,
        })
    }

    /// Returns the size that a request's block may have.
    #[must_use]
    pub const fn area_bytes(&self) -> usize {
        self.area_bytes
    }

    /// Returns what was compared so far.
    #[must_use]
    pub const fn compared(&self) -> Compared {
        self.compared
    }

    /// Says whether a request fits the function's area.
    ///
    /// # Errors
    /// [`ProofError::RequestTooLarge`].
    pub fn fits(&self, block: &[u8]) -> Result<(), ProofError> {
        let (size, area_bytes) = (block.len(), self.area_bytes);
        if size <= area_bytes {
            return Ok(());
        }
        Err(ProofError::RequestTooLarge { size, area_bytes })
    }

    /// Drives both sides through a request, given as the block that a guest finds in its area, and returns
    /// the first difference. The proof ends with one: the sides are no longer alike.
    ///
    /// # Errors
    /// [`ProofError`] if the request does not fit or no instance can be had.
    pub fn call(&mut self, block: &[u8]) -> Result<Option<Difference>, ProofError> {
        self.fits(block)?;
        self.tested_script.begin_start();
        let mut tested = self.tested.take()?.pristine;
        let mut fresh = self.fresh.start()?;
        self.compared.restores += u64::from(self.slot_has_served);
        let before = fresh.inspect();
        if let Some(found) = self.compare(&tested.inspect(), &before) {
            return Ok(Some(found.before()));
        }

        let (mut tested, tested_written) = self.serve(tested, &self.tested_script, block)?;
        let (mut fresh, fresh_written) = self.serve(fresh, &self.fresh.script, block)?;
        self.compared.calls += 1;
        let (tested_records, fresh_records) = (self.tested_script.take(), self.fresh.script.take());
        let (tested_end, fresh_end) = (End::of(&tested), End::of(&fresh));
        if tested_end == End::DeadlineExceeded && fresh_end == End::DeadlineExceeded {
            self.compared.deadlines += 1;
        } else {
            let ends = difference::of_ends(&tested_end, &fresh_end);
            let after = fresh.inspect();
            let found = ends
                .or_else(|| difference::of_records(&tested_records, &fresh_records))
                .or_else(|| difference::of_responses(answer(&tested), answer(&fresh)))
                .or_else(|| difference::of_written(tested_written.as_ref(), fresh_written.as_ref()))
                .or_else(|| self.compare(&tested.inspect(), &after));
            if let Some(found) = found {
                return Ok(Some(found.after()));
            }
            let change = self.difference(&after, &before);
            self.compared.changes += u64::from(change.is_some_and(|it| !it.is_of_area()));
            self.compared.records += tested_records.len() as u64;
            let has_answered = tested_written.is_some() || matches!(answer(&tested), Some(Ok(_)));
            self.compared.responses += u64::from(has_answered);
            self.compared.traps += u64::from(matches!(tested_end, End::Trapped(_)));
        }
        self.slot_has_served = self.tested.give(tested).is_none();
        Ok(None)
    }

    /// Looks for the function that wrote to the place of a difference: the last one among these requests,
    /// which are in the order they were sent, each in a fresh instance of a copy that notes who changes the
    /// place.
    ///
    /// # Errors
    /// [`ProofError`] if that copy cannot be built or started.
    pub fn writer(
        &self,
        difference: &Difference,
        sent: &[Sent],
        engines: &Engines,
    ) -> Result<Option<Writer>, ProofError> {
        let Some(place) = difference.place() else {
            return Ok(None);
        };
        let held = held(&self.fresh.start()?.inspect(), place);
        // A request before which something differed was not served.
        let served = sent.partition_point(|sent| sent.call < self.compared.calls);
        let sent = &sent[..served];
        writer::find(&self.subject.module, place, held, sent, self.settings, engines)
    }

    fn serve(
        &self,
        pristine: Pristine,
        script: &Script,
        block: &[u8],
    ) -> Result<(Used, Option<Written>), ProofError> {
        call(pristine, script, self.compared.calls, self.settings, self.area, block)
    }

    fn compare(&mut self, tested: &StateSnapshot, fresh: &StateSnapshot) -> Option<Found> {
        let compared = &mut self.compared;
        compared.snapshots += 1;
        compared.memory_bytes += fresh.memories.iter().map(Vec::len).sum::<usize>() as u64;
        compared.globals += fresh.globals.len() as u64;
        compared.table_elements += fresh.tables.iter().map(Vec::len).sum::<usize>() as u64;
        compared.segments += fresh.dropped_segments.len() as u64;
        self.difference(tested, fresh)
    }

    fn difference(&self, tested: &StateSnapshot, fresh: &StateSnapshot) -> Option<Found> {
        let globals = &self.subject.artifact.manifest().globals;
        let area = index(self.area)..index(self.area) + self.area_bytes;
        difference::of_states(tested, fresh, globals, &self.subject.segments, area)
    }
}

impl Side {
    fn new(
        artifact: &Arc<Artifact>,
        engines: &Engines,
        settings: ProofSettings,
    ) -> Result<Self, ProofError> {
        let script = Arc::new(Script::new(settings.seed));
        let limits = FunctionLimits::of_memory(settings.memory_bytes_max);
        let services: Arc<dyn Services> = Arc::clone(&script) as _;
        let function = Function::register(artifact, Technique::Cow, engines, services, limits)?;
        Ok(Self { function, script })
    }

    fn start(&self) -> Result<Pristine, ProofError> {
        self.script.begin_start();
        Ok(self.function.start()?)
    }
}

impl End {
    fn of(used: &Used) -> Self {
        match used.end() {
            CallEnd::Returned(address) => Self::Returned(*address),
            // With its backtrace: where a guest trapped is as observable as why.
            CallEnd::Trapped(trap) => Self::Trapped(format!("{trap:?}")),
            // What compares it counts no instructions: it can tell nothing.
            CallEnd::DeadlineExceeded | CallEnd::FuelExhausted => Self::DeadlineExceeded,
            CallEnd::NoStack => unreachable!("told as exhausted by `call`"),
        }
    }
}

/// Returns what a watched place holds in this state, in the form of `witness::watched`.
fn held(state: &StateSnapshot, place: Place) -> u32 {
    let memory = |memory: u32| state.memories.get(index(memory)).map_or(&[][..], Vec::as_slice);
    match place {
        Place::Byte { memory: of, address } => {
            memory(of).get(index(address)).copied().unwrap_or(0).into()
        }
        Place::MemorySize { memory: of } => {
            let page_bytes = usize::try_from(WASM_PAGE_SIZE).expect("64 KiB");
            wire(memory(of).len() / page_bytes)
        }
        _ => 0,
    }
}

/// Serves a request under a script; `nth` names the call.
fn call(
    mut pristine: Pristine,
    script: &Script,
    nth: u64,
    settings: ProofSettings,
    area: u32,
    block: &[u8],
) -> Result<(Used, Option<Written>), ProofError> {
    let target = pristine.area(area, block.len()).ok_or(ProofError::Exhausted)?;
    target.copy_from_slice(block);
    script.begin_call(nth);
    let time_ns = settings.slices_max.saturating_mul(script::SLICE_NS);
    let request_id = u128::from(nth).to_le_bytes();
    let request = RequestContext { request_id, began_ns: 0, time_ns };
    let mut collector = Collector::new(&[], RESPONSE_BYTES_MAX);
    let used = collector.run(pristine.call(request, area, block.len()));
    if used.is_exhausted() || matches!(used.end(), CallEnd::NoStack) {
        return Err(ProofError::Exhausted);
    }
    Ok((used, collector.into_written()))
}

fn answer(used: &Used) -> Option<Result<Answer<'_>, GuestFault>> {
    let CallEnd::Returned(address) = used.end() else {
        return None;
    };
    Some(Response::read(used.memory(), *address, RESPONSE_BYTES_MAX))
}
