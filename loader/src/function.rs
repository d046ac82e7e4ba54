//! A function that is ready to be started: an artifact, its code on one engine, and its bounds.

use std::sync::Arc;

use midge_abi::imports;
use midge_abi::manifest::{Manifest, Metering};
use midge_abi::width::index;
use wasmtime::InstancePre;

use crate::artifact::{Artifact, MappedCode};
use crate::component;
use crate::context::{GuestContext, InstanceLimits, Services, TABLE_ELEMENTS_MAX};
use crate::drive::Driver;
use crate::engine::{Engines, GuestEngine};
use crate::instance::{Instance, Keep, StartError, store};
use crate::slot::Pristine;
use crate::start::{LoadedCode, Technique};
use crate::wait::AskCell;

/// What one function may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FunctionLimits {
    /// Largest size of each linear memory, in bytes.
    pub memory_bytes_max: usize,
    /// Instructions that a call may run, where its code counts them.
    pub fuel: u64,
}

impl FunctionLimits {
    /// Limits memory, and no instructions.
    #[must_use]
    pub const fn of_memory(memory_bytes_max: usize) -> Self {
        Self { memory_bytes_max, fuel: u64::MAX }
    }
}

/// A registered function. Workers share it; slots are their own.
pub struct Function {
    // Declared before the artifact: the module's code lies in its mapping.
    code: Code,
    artifact: Arc<Artifact>,
    engine: GuestEngine,
    technique: Technique,
    services: Arc<dyn Services>,
    limits: InstanceLimits,
    may_wait: bool,
    reads_body: bool,
}

/// Where an instance's code comes from.
enum Code {
    /// It was loaded when the function was registered.
    Ready(Box<Loaded>),
    /// It is loaded for each start: that is what the technique measures.
    AtStart,
    /// A component that the engine runs.
    Component(component::Loaded),
}

impl std::fmt::Debug for Function {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let source = &self.artifact.manifest().source_name;
        formatter
            .debug_struct("Function")
            .field("source", source)
            .field("technique", &self.technique)
            .finish_non_exhaustive()
    }
}

impl Function {
    /// Registers a function for a technique, which the caller has found to be allowed.
    ///
    /// # Errors
    /// [`StartError::Code`] if its code cannot be loaded.
    pub fn register(
        artifact: &Arc<Artifact>,
        technique: Technique,
        engines: &Engines,
        services: Arc<dyn Services>,
        limits: FunctionLimits,
    ) -> Result<Self, StartError> {
        let manifest = artifact.manifest();
        let engine = engines.get(technique.engine_kind_of(manifest), manifest.traces)?;
        let (files_memory_bytes, files_memory_bytes_max) = files_memory_bytes(manifest);
        let limits = InstanceLimits {
            memory_bytes_max: limits.memory_bytes_max,
            files_memory_bytes,
            files_memory_bytes_max,
            table_elements_max: TABLE_ELEMENTS_MAX,
            fuel: (artifact.manifest().metering == Metering::Fuel).then_some(limits.fuel),
        };
        let is_component = artifact.manifest().unlinked.is_some();
        let code = if is_component {
            Code::Component(component::Loaded::load(artifact, &engine)?)
        } else if technique.loads_code_at_start() {
            Code::AtStart
        } else {
            Code::Ready(Box::new(load(artifact, technique, &engine)?))
        };
        let imports = || {
            let prefix = |name: &'_ String| name.strip_prefix(imports::MODULE).map(str::to_owned);
            artifact.manifest().imports.iter().filter_map(prefix)
        };
        let may_wait =
            is_component || imports().any(|name| imports::may_wait(name.trim_start_matches('.')));
        let reads_body = is_component
            || imports().any(|name| name.trim_start_matches('.') == imports::BODY_READ);
        let artifact = Arc::clone(artifact);
        Ok(Self { code, artifact, engine, technique, services, limits, may_wait, reads_body })
    }

    /// Starts a new instance.
    ///
    /// # Errors
    /// [`StartError`] says what failed.
    pub fn start(&self) -> Result<Pristine, StartError> {
        let at_start;
        let loaded = match &self.code {
            Code::Ready(loaded) => loaded,
            Code::Component(component) => {
                let asks = Arc::new(AskCell::default());
                let services = Arc::clone(&self.services);
                let served = component.start(services, self.limits, Arc::clone(&asks));
                return Ok(Pristine::new(Driver::of_component(served, asks)));
            }
            Code::AtStart => {
                at_start = load(&self.artifact, self.technique, &self.engine)?;
                &at_start
            }
        };
        let asks = self.may_wait().then(|| Arc::new(AskCell::default()));
        let services = Arc::clone(&self.services);
        let store = store(&self.engine.engine, services, self.limits, asks.as_ref());
        let keep = Keep { artifact: Arc::clone(&self.artifact), _code: loaded.mapping.clone() };
        let driver = if self.technique.uses_templates() {
            let (instance, memories) =
                Instance::over_templates(store, &loaded.pre, keep, self.technique.after_call())?;
            Driver::start(memories, asks, std::future::ready(Ok(instance)))
        } else {
            let start = Instance::of_engine(store, loaded.pre.clone(), keep);
            Driver::start(Arc::new([]), asks, start)
        };
        Ok(Pristine::new(driver?))
    }

    /// Returns the artifact.
    #[must_use]
    pub const fn artifact(&self) -> &Arc<Artifact> {
        &self.artifact
    }

    /// True if its calls may wait: it imports what reads a body, writes a response or sleeps.
    #[must_use]
    pub const fn may_wait(&self) -> bool {
        self.may_wait
    }

    /// True if it is called before its request's body has arrived, and reads it.
    #[must_use]
    pub const fn reads_body(&self) -> bool {
        self.reads_body
    }

    /// Returns the technique.
    #[must_use]
    pub const fn technique(&self) -> Technique {
        self.technique
    }

    /// Returns the address of the request area.
    #[must_use]
    pub fn area(&self) -> u32 {
        self.artifact.manifest().area
    }

    /// Returns the size of the request area in bytes.
    #[must_use]
    pub fn area_bytes(&self) -> usize {
        index(self.artifact.manifest().area_size)
    }
}

/// Code on an engine, its imports bound.
struct Loaded {
    pre: InstancePre<GuestContext>,
    // Declared after the code that lies in it.
    mapping: Option<Arc<MappedCode>>,
}

/// Returns the size of the memory that files lie in, and to which it may grow; 0 without files.
fn files_memory_bytes(manifest: &Manifest) -> (usize, usize) {
    let memory = manifest.files.as_ref().and(manifest.memories.first());
    let size = |bytes: u64| usize::try_from(bytes).expect("checked: at most 4 GiB");
    memory.map_or((0, 0), |memory| {
        (size(memory.bytes), size(memory.bytes_max.unwrap_or(memory.bytes)))
    })
}

fn load(
    artifact: &Artifact,
    technique: Technique,
    engine: &GuestEngine,
) -> Result<Loaded, StartError> {
    let LoadedCode { module, mapping } = crate::start::load_module(artifact, technique, engine)?;
    let pre = engine.linker.instantiate_pre(&module).map_err(StartError::Code)?;
    Ok(Loaded { pre, mapping })
}
