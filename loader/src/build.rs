//! Builds an artifact: reads a module, runs its start-up once, takes the snapshot, compiles.

use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use midge_abi::contract::{self, Contract, ContractError, EXPORT_CONTRACT, EXPORT_INITIALIZE};
use midge_abi::imports::Level;
use midge_abi::manifest::{
    CodeForm, FilesRow, GlobalRow, GlobalValue, MANIFEST_BYTES_MAX, Manifest, MemoryRow, Traces,
};
use wasmtime::{Linker, Module, Store};

use crate::component;
use crate::container::{SectionBytes, SectionKind, encode};
use crate::context::{
    InstanceLimits, RequestContext, Services, TABLE_ELEMENTS_MAX, define_startup_imports,
};
use crate::engine::{EngineError, EngineKind, Engines, GuestEngine};
use crate::image::{files_length, occupied};
use crate::instance::{self, StateExports, StateSnapshot};
use crate::lines::{self, NoLines, Origin};
use crate::link::LinkedPart;
use crate::module::{Linked, ModuleError, ModuleFacts, linked_form};
use crate::rewrite::{self, Snapshot};

/// Start-up code has this long when an artifact is built: an interpreter reads its library in it.
pub const STARTUP_DEADLINE: Duration = Duration::from_secs(10);
/// Memories may have this size at the end of start-up.
pub const STARTUP_MEMORY_BYTES_MAX: usize = 1 << 30;
/// The engine, for people.
pub(crate) const ENGINE_NAME: &str = "wasmtime 48";
const TICK: Duration = Duration::from_millis(10);

/// An artifact in memory, and what was found on the way.
#[derive(Debug)]
pub struct Built {
    /// The artifact's file.
    pub bytes: Vec<u8>,
    /// What it says about itself.
    pub manifest: Manifest,
    /// The module as it was given.
    pub facts: ModuleFacts,
    /// Lines that start-up code logged.
    pub startup_log: Vec<String>,
    /// Why it has no lines of its source, if they were asked for.
    pub no_lines: Option<String>,
}

/// Why a module cannot be built.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BuildError {
    /// The module is refused.
    #[error(transparent)]
    Module(#[from] ModuleError),
    /// The contract's record is refused.
    #[error(transparent)]
    Contract(#[from] ContractError),
    /// Start-up code failed.
    #[error("start-up failed in `{function}`")]
    StartUp {
        /// The exported function, or `start`.
        function: &'static str,
        /// The trap.
        #[source]
        source: wasmtime::Error,
    },
    /// The compiler refused the module.
    #[error("module cannot be compiled")]
    Compile(#[source] wasmtime::Error),
    /// The engine is not to be had.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// The techniques that compare addresses or count instructions need a template.
    #[error(
        "start-up changes tables, segments or references, which a template cannot hold: such a module is \
         isolated by guard pages and metered by epochs alone"
    )]
    FormWithoutTemplate,
    /// It cannot be linked, and the engine's component runtime does not run it either.
    #[error("{refused}; nor does the engine's component runtime run it")]
    Component {
        /// Why it is not linked.
        refused: String,
        /// Why it is not run.
        #[source]
        source: wasmtime::Error,
    },
    /// Files are linked, and this is not.
    #[error(
        "its files or its folder in memory have no place, for the engine's component runtime runs it, without any: {refused}"
    )]
    ComponentFiles {
        /// Why it is not linked.
        refused: String,
    },
    /// The imports cannot be bound.
    #[error("imports cannot be bound")]
    Imports(#[source] wasmtime::Error),
}

/// Builds an artifact from a module in binary or text form, to be isolated by guard pages.
///
/// # Errors
/// [`BuildError`] says what is wrong with the module.
pub fn build(source_name: &str, source: &[u8], engines: &Engines) -> Result<Built, BuildError> {
    build_as(source_name, source, CodeForm::PLAIN, engines)
}

/// Builds an artifact whose code is made in a given form.
///
/// # Errors
/// [`BuildError`] says what is wrong with the module.
pub fn build_as(
    source_name: &str,
    source: &[u8],
    form: CodeForm,
    engines: &Engines,
) -> Result<Built, BuildError> {
    build_with(source_name, source, form, engines, StartUp::AtBuild)
}

/// Builds an artifact whose start-up runs anew in each instance, whatever the module is: the oracle that
/// proofs compare with. Only techniques without templates may be used for it.
///
/// # Errors
/// As [`build`].
pub fn build_unstarted(
    source_name: &str,
    source: &[u8],
    engines: &Engines,
) -> Result<Built, BuildError> {
    build_with(source_name, source, CodeForm::PLAIN, engines, StartUp::InEachInstance)
}

/// Builds an artifact of a component that the engine's component runtime runs, though it might be linked: the oracle
/// that linked ones are compared with.
///
/// # Errors
/// [`BuildError::Component`] if it does not.
pub fn build_unlinked(
    source_name: &str,
    source: &[u8],
    engines: &Engines,
) -> Result<Built, BuildError> {
    component::build(source_name, source, CodeForm::PLAIN, engines, "it was asked for")
}

/// When start-up runs; the first only where the module allows it.
#[derive(Clone, Copy, PartialEq, Eq)]
enum StartUp {
    AtBuild,
    InEachInstance,
}

fn build_with(
    source_name: &str,
    source: &[u8],
    form: CodeForm,
    engines: &Engines,
    start_up_runs: StartUp,
) -> Result<Built, BuildError> {
    let linked = match linked_form(source) {
        Ok(linked) => linked,
        Err(ModuleError::Link(refused)) if refused.is_of_component(source) => {
            let why = refused.to_string();
            return match component::build(source_name, source, form, engines, &why) {
                // The engine found nothing to call either, which it says in other words.
                Err(BuildError::Component { .. }) if refused.has_no_handler() => {
                    Err(ModuleError::Link(refused).into())
                }
                built => built,
            };
        }
        Err(error) => return Err(error.into()),
    };
    let wasm = &linked.wasm;
    let facts = ModuleFacts::read(wasm)?;
    let (lines, no_lines) = match (form.traces == Traces::Lines).then(|| lines(&linked, &facts)) {
        Some(Ok(lines)) => (Some(lines), None),
        Some(Err(reason)) => (None, Some(reason.to_string())),
        None => (None, None),
    };
    // Without lines a map to the module's code has no use.
    let traces = lines.as_ref().map_or(Traces::Functions, |_| Traces::Lines);
    let mapped = engines.get(EngineKind::of_form(form), traces)?;
    let on_demand = engines.get(EngineKind::OnDemand, Traces::Functions)?;

    let files = linked.files.as_ref();
    let instrumented = rewrite::instrument(wasm, &facts)?;
    let started = start_up(&on_demand, &instrumented)?;
    let is_preinitialised = start_up_runs == StartUp::AtBuild && !facts.startup_resists_snapshot();
    if form.needs_template() && !is_preinitialised {
        return Err(BuildError::FormWithoutTemplate);
    }
    let manifest = Manifest {
        source_name: source_name.to_owned(),
        source_hash: *blake3::hash(source).as_bytes(),
        contract: contract::VERSION,
        area: started.contract.area,
        area_size: started.contract.area_size,
        memories: memory_rows(&facts, &started.state.memories, files),
        globals: global_rows(&facts, &started.state.globals),
        state: facts.state.clone(),
        is_preinitialised,
        imports: facts.imports.iter().map(|(module, name)| format!("{module}.{name}")).collect(),
        exports: facts.exports.clone(),
        table_count: facts.table_count,
        engine_name: ENGINE_NAME.to_owned(),
        machine: engines.processor().machine(),
        isolation: form.isolation,
        metering: form.metering,
        files: files.cloned(),
        scratch: linked.scratch.clone(),
        unlinked: None,
        traces,
    };
    let mut sections = vec![section(SectionKind::Manifest, self::manifest(&manifest)?)];
    if is_preinitialised {
        let snapshot = Snapshot {
            memories: &started.state.memories,
            files_start: manifest.files.as_ref().map(|files| index(files.start)),
            globals: &started.state.globals,
        };
        let lean = rewrite::lean(wasm, &facts, snapshot)?;
        let code = mapped.engine.precompile_module(&lean).map_err(BuildError::Compile)?;
        sections.push(section(SectionKind::Module, rewrite::whole(wasm, &facts, snapshot)?));
        let image = image(&started.state.memories, &manifest);
        if !image.is_empty() {
            sections.push(section(SectionKind::Image, image));
        }
        sections.push(section(SectionKind::Code, code));
    } else {
        sections.push(section(SectionKind::Module, instrumented));
    }
    sections.extend(lines.map(|lines| section(SectionKind::Lines, lines)));
    let bytes = encode(mapped.id().0, &sections);
    Ok(Built { bytes, manifest, facts, startup_log: started.log, no_lines })
}

/// Reads the lines of what a module was made of.
fn lines(linked: &Linked<'_>, facts: &ModuleFacts) -> Result<Vec<u8>, NoLines> {
    let part = |part: &LinkedPart| Origin {
        module: &linked.given[part.range.clone()],
        first_function: part.first_function,
    };
    let mut origins: Vec<_> = linked.parts.iter().map(part).collect();
    if origins.is_empty() {
        let first_function = midge_abi::width::wire(facts.imports.len());
        origins.push(Origin { module: &linked.wasm, first_function });
    }
    lines::read(&linked.wasm, &origins)
}

/// Encodes a manifest that is not too long to be read.
pub(crate) fn manifest(manifest: &Manifest) -> Result<Vec<u8>, ModuleError> {
    let encoded = manifest.encode();
    if encoded.len() > MANIFEST_BYTES_MAX {
        let (found, limit) = (encoded.len(), MANIFEST_BYTES_MAX);
        let what = "bytes of names and exports for its manifest";
        return Err(ModuleError::TooMany { what, found, limit });
    }
    Ok(encoded)
}

pub(crate) fn section(kind: SectionKind, bytes: Vec<u8>) -> SectionBytes {
    SectionBytes { kind, bytes }
}

struct Started {
    state: StateSnapshot,
    contract: Contract,
    log: Vec<String>,
}

/// Runs start-up in an instance of its own and takes the snapshot of a fresh state.
fn start_up(engine: &GuestEngine, instrumented: &[u8]) -> Result<Started, BuildError> {
    let module = Module::new(&engine.engine, instrumented).map_err(BuildError::Compile)?;
    let mut linker = Linker::new(&engine.engine);
    define_startup_imports(&mut linker).map_err(BuildError::Imports)?;
    let services = Arc::new(StartUpServices::new());
    let limits = InstanceLimits {
        memory_bytes_max: STARTUP_MEMORY_BYTES_MAX,
        files_memory_bytes: 0,
        files_memory_bytes_max: 0,
        table_elements_max: TABLE_ELEMENTS_MAX,
        fuel: None,
    };
    let mut store = instance::store(&engine.engine, Arc::clone(&services) as _, limits, None);
    let time_ns = u64::try_from(STARTUP_DEADLINE.as_nanos()).expect("seconds fit");
    store.data_mut().begin(RequestContext { request_id: [0; 16], began_ns: 0, time_ns });

    let (contract_address, instance) =
        with_ticks(engine, || run_startup(&mut store, &linker, &module))?;
    let state = StateExports::find(&mut store, &instance).inspect(&mut store);
    let memory = state.memories.first().map_or(&[][..], Vec::as_slice);
    let contract = Contract::read(memory, contract_address.cast_unsigned())?;
    Ok(Started { state, contract, log: services.take() })
}

fn run_startup(
    store: &mut Store<crate::context::GuestContext>,
    linker: &Linker<crate::context::GuestContext>,
    module: &Module,
) -> Result<(i32, wasmtime::Instance), BuildError> {
    let failed = |function| move |source| BuildError::StartUp { function, source };
    let instance =
        block_on(linker.instantiate_async(&mut *store, module)).map_err(failed("start"))?;
    if let Ok(initialize) = instance.get_typed_func::<(), ()>(&mut *store, EXPORT_INITIALIZE) {
        block_on(initialize.call_async(&mut *store, ())).map_err(failed(EXPORT_INITIALIZE))?;
    }
    let contract = instance.get_typed_func::<(), i32>(&mut *store, EXPORT_CONTRACT);
    let contract = contract.map_err(failed(EXPORT_CONTRACT))?;
    let address =
        block_on(contract.call_async(&mut *store, ())).map_err(failed(EXPORT_CONTRACT))?;
    Ok((address, instance))
}

/// Polls a future that is never pending for anything but the end of a slice.
fn block_on<F: Future>(future: F) -> F::Output {
    let mut future = std::pin::pin!(future);
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    loop {
        if let std::task::Poll::Ready(output) = future.as_mut().poll(&mut context) {
            return output;
        }
    }
}

/// Moves the engine's epoch while `action` runs.
fn with_ticks<R>(engine: &GuestEngine, action: impl FnOnce() -> R) -> R {
    let (done, wait) = channel::<()>();
    std::thread::scope(|scope| {
        scope.spawn(move || {
            while wait.recv_timeout(TICK) == Err(RecvTimeoutError::Timeout) {
                engine.engine.increment_epoch();
            }
        });
        let result = action();
        drop(done);
        result
    })
}

fn memory_rows(
    facts: &ModuleFacts,
    memories: &[Vec<u8>],
    files: Option<&FilesRow>,
) -> Vec<MemoryRow> {
    let mut files = files.map(|files| index(files.start));
    let mut row = |(fact, content): (&crate::module::MemoryFacts, &Vec<u8>)| {
        // The files, behind the first memory's own bytes, are stored by themselves.
        let (start, length) = occupied(&content[..files.take().unwrap_or(content.len())]);
        MemoryRow {
            bytes: content.len() as u64,
            bytes_max: fact.bytes_max,
            image_start: start as u64,
            image_bytes: length as u64,
        }
    };
    facts.memories.iter().zip(memories).map(&mut row).collect()
}

fn global_rows(facts: &ModuleFacts, values: &[GlobalValue]) -> Vec<GlobalRow> {
    let row = |(fact, value): (&crate::module::GlobalFacts, &GlobalValue)| GlobalRow {
        index: fact.index,
        name: fact.name.clone(),
        value: *value,
    };
    facts.globals.iter().zip(values).map(row).collect()
}

fn image(memories: &[Vec<u8>], manifest: &Manifest) -> Vec<u8> {
    let mut image = Vec::new();
    for (content, row) in memories.iter().zip(&manifest.memories) {
        let start = index(row.image_start);
        image.extend_from_slice(&content[start..start + index(row.image_bytes)]);
    }
    if let (Some(files), Some(content)) = (&manifest.files, memories.first()) {
        let length = files_length(files, &manifest.memories[0]).expect("they were linked so");
        let start = index(files.start);
        image.extend_from_slice(&content[start..start + index(length)]);
    }
    image
}

/// Returns a place in a memory's content as an index.
fn index(place: u64) -> usize {
    usize::try_from(place).expect("an index of a memory's content")
}

/// Keeps what start-up logs; time begins with it.
struct StartUpServices {
    began: Instant,
    lines: std::sync::Mutex<Vec<String>>,
}

impl StartUpServices {
    fn new() -> Self {
        Self { began: Instant::now(), lines: std::sync::Mutex::default() }
    }

    fn take(&self) -> Vec<String> {
        let mut lines = self.lines.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        std::mem::take(&mut *lines)
    }
}

impl Services for StartUpServices {
    fn log(&self, _request_id: &[u8; 16], level: Level, line: &[u8]) {
        let line = format!("{}: {}", level.name(), String::from_utf8_lossy(line));
        self.lines.lock().unwrap_or_else(std::sync::PoisonError::into_inner).push(line);
    }

    fn wall_ns(&self) -> u64 {
        unreachable!("clocks are refused at start-up")
    }

    fn monotonic_ns(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    fn seed(&self, _request_id: &[u8; 16]) -> [u8; 32] {
        unreachable!("chance is refused at start-up")
    }
}
