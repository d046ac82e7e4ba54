//! The engines: one configuration for each family of techniques, and their identity.
//!
//! All engines compile the same guests with the same checks (epochs on, the same features), so techniques
//! differ in how an instance comes to be and in nothing else. An engine is made on first use; code of one
//! cannot run on another, which the identity in an artifact's header guards.

mod processor; // whose instructions code may use

use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};
use std::sync::{Arc, OnceLock};

use midge_abi::manifest::{CodeForm, Isolation, Manifest, Metering, Traces};
use wasmtime::{
    Config, Enabled, Engine, InstanceAllocationStrategy, Linker, OptLevel, PoolingAllocationConfig,
};

pub use self::processor::Processor;
use crate::code::PublishedCode;
use crate::component;
use crate::context::{GuestContext, define_imports};
use crate::memory::SlotMemoryCreator;
use crate::stack::Stacks;

/// Address space kept for each linear memory: any 32-bit address stays inside, so that compiled code needs
/// no bounds check.
pub const MEMORY_RESERVATION_BYTES: u64 = 4 << 30;
/// Inaccessible bytes behind it, for the constant offset of an access.
pub const MEMORY_GUARD_BYTES: u64 = 32 << 20;
/// Address space of a memory whose accesses are compared with its size: as far as it may grow.
pub const CHECKED_RESERVATION_BYTES: u64 = 256 << 20;
/// Inaccessible bytes behind it: one page, so that nothing of another slot is next to it.
pub const CHECKED_GUARD_BYTES: u64 = 4096;
/// Stack that a guest's own code may use before it traps.
pub const GUEST_STACK_BYTES: usize = 256 * 1024;
/// Stack of a fiber: the guest's and what host functions need on top.
pub const FIBER_STACK_BYTES: usize = GUEST_STACK_BYTES + 256 * 1024;
/// The same for components that the engine runs: its own host functions are deep.
pub const COMPONENT_STACK_BYTES: usize = GUEST_STACK_BYTES + 1024 * 1024;
/// Instances that a pool of the engine holds at the most; `pool` answers 503 beyond.
pub const POOL_INSTANCES_MAX: u32 = 1000;
/// Core instances of a component, on the average of a full pool: those of `componentize-py` have two dozen.
const POOL_CORE_INSTANCES: u32 = 16;
/// Memories of an instance in a pool: what links a component makes two (`link.rs`).
pub const POOL_MEMORIES_MAX: u32 = 2;
/// Tables of an instance in a pool: a component has those of its modules.
pub const POOL_TABLES_MAX: u32 = 4;
/// Memory that a pool keeps resident for each slot, by default technique: the engine's documentation
/// suggests to keep what an ordinary request dirties.
pub const POOL_RESIDENT_BYTES: usize = 64 * 1024;
/// The same where dirty pages are scanned: everything may stay, the scan finds what changed.
pub const POOL_SCAN_RESIDENT_BYTES: usize = 2 * 1024 * 1024;
/// Largest memory of a slot in a pool.
pub const POOL_MEMORY_BYTES_MAX: usize = 1 << 30;

const _: () = assert!(GUEST_STACK_BYTES < FIBER_STACK_BYTES);

/// How instances get their memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum EngineKind {
    /// From our own creator, mapped over a template (`restore`, `reuse`, `aot`, `mmap`).
    Mapped,
    /// On demand, from the engine's copy-on-write images (`cow`, `jit`).
    OnDemand,
    /// From the engine's pool (`pool`).
    Pool,
    /// From the engine's pool, with PAGEMAP_SCAN (`pool-scan`).
    PoolScan,
    /// As `Mapped`, with code that compares every address.
    Checked,
    /// As `Mapped`, with code that counts what it runs.
    Fueled,
    /// As both.
    FueledChecked,
    /// As `OnDemand`, for components that are not linked.
    Component,
    /// As `Pool`, for those.
    ComponentPool,
    /// As `PoolScan`, for those.
    ComponentPoolScan,
}

impl EngineKind {
    /// All kinds.
    pub const ALL: [Self; 10] = [
        Self::Mapped,
        Self::OnDemand,
        Self::Pool,
        Self::PoolScan,
        Self::Checked,
        Self::Fueled,
        Self::FueledChecked,
        Self::Component,
        Self::ComponentPool,
        Self::ComponentPoolScan,
    ];

    /// Returns the kind whose code an artifact holds.
    #[must_use]
    pub const fn of_artifact(manifest: &Manifest) -> Self {
        if manifest.unlinked.is_some() { Self::Component } else { Self::of_form(manifest.form()) }
    }

    /// Returns the kind whose code an artifact of a core module has in this form.
    #[must_use]
    pub const fn of_form(form: CodeForm) -> Self {
        match (form.isolation, form.metering) {
            (Isolation::GuardPages, Metering::Epochs) => Self::Mapped,
            (Isolation::BoundsChecked, Metering::Epochs) => Self::Checked,
            (Isolation::GuardPages, Metering::Fuel) => Self::Fueled,
            (Isolation::BoundsChecked, Metering::Fuel) => Self::FueledChecked,
        }
    }
}

/// Identifies an engine's version and configuration: code made by one runs on no other.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct EngineId(pub [u8; 16]);

impl std::fmt::Debug for EngineId {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        std::fmt::Display::fmt(self, formatter)
    }
}

impl std::fmt::Display for EngineId {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "{}", midge_abi::problem::Hex(&self.0))
    }
}

/// An engine with what every function on it shares.
#[derive(Clone)]
pub struct GuestEngine {
    /// The engine.
    pub engine: Engine,
    /// The contract's imports.
    pub linker: Arc<Linker<GuestContext>>,
    /// What components import, on an engine that runs them.
    pub(crate) components: Option<Arc<component::Linker>>,
    /// The code regions that are executable already.
    pub published: PublishedCode,
    /// What its instances are.
    pub kind: EngineKind,
}

impl std::fmt::Debug for GuestEngine {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("GuestEngine").field("kind", &self.kind).finish_non_exhaustive()
    }
}

/// An engine cannot be had: a pool finds no address space, or the CPU lacks what code needs.
#[derive(Debug, thiserror::Error)]
#[error("engine cannot be made")]
pub struct EngineError(#[source] wasmtime::Error);

/// The engines of this process, each made when it is first asked for.
#[derive(Debug, Default)]
pub struct Engines {
    processor: Processor,
    engines: OfEachKind,
    /// Those whose code has a map to the module's, for traps with lines.
    for_lines: OfEachKind,
}

type OfEachKind = [OnceLock<GuestEngine>; EngineKind::ALL.len()];

impl Engines {
    /// Makes an empty set.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Makes an empty set whose code is for these processors.
    #[must_use]
    pub fn of(processor: Processor) -> Self {
        Self { processor, ..Self::default() }
    }

    /// Returns whom code is for.
    #[must_use]
    pub const fn processor(&self) -> Processor {
        self.processor
    }

    /// Returns the engine of a kind, making it if need be.
    ///
    /// # Errors
    /// [`EngineError`]: for a pool, when the address space has no room for it.
    pub fn get(&self, kind: EngineKind, traces: Traces) -> Result<GuestEngine, EngineError> {
        let engines = match traces {
            Traces::Functions => &self.engines,
            Traces::Lines => &self.for_lines,
        };
        let cell = &engines[kind as usize];
        if let Some(engine) = cell.get() {
            return Ok(engine.clone());
        }
        let made = GuestEngine::new(kind, self.processor, traces).map_err(EngineError)?;
        Ok(cell.get_or_init(|| made).clone())
    }

    /// Moves the epoch of every engine: each call that has used up its slice yields.
    pub fn tick(&self) {
        for engine in self.engines.iter().chain(&self.for_lines).filter_map(OnceLock::get) {
            engine.engine.increment_epoch();
        }
    }
}

impl GuestEngine {
    /// Makes an engine.
    ///
    /// # Errors
    /// The engine's, for a configuration that this machine cannot have.
    pub fn new(kind: EngineKind, processor: Processor, traces: Traces) -> wasmtime::Result<Self> {
        let published = PublishedCode::default();
        let mut config = common();
        processor.tell(&mut config);
        // A section of each artifact that traps with lines alone need.
        config.generate_address_map(matches!(traces, Traces::Lines));
        match kind {
            EngineKind::Mapped
            | EngineKind::Checked
            | EngineKind::Fueled
            | EngineKind::FueledChecked => {
                if matches!(kind, EngineKind::Fueled | EngineKind::FueledChecked) {
                    // Epochs stay on: what the host does for a call burns nothing, and must give way as well.
                    config.consume_fuel(true);
                }
                if matches!(kind, EngineKind::Checked | EngineKind::FueledChecked) {
                    // A reservation that a 32-bit address can leave makes the compiler compare; that a
                    // mispredicted comparison reads address 0 is its default.
                    config
                        .memory_reservation(CHECKED_RESERVATION_BYTES)
                        .memory_guard_size(CHECKED_GUARD_BYTES);
                }
                config
                    .memory_init_cow(false)
                    .with_host_memory(Arc::new(SlotMemoryCreator))
                    .with_custom_code_memory(Some(Arc::new(published.clone())));
            }
            EngineKind::OnDemand | EngineKind::Component => {}
            EngineKind::Pool | EngineKind::ComponentPool => {
                config.allocation_strategy(pool(POOL_RESIDENT_BYTES, Enabled::No));
            }
            EngineKind::PoolScan | EngineKind::ComponentPoolScan => {
                config.allocation_strategy(pool(POOL_SCAN_RESIDENT_BYTES, Enabled::Yes));
            }
        }
        let runs_components = matches!(
            kind,
            EngineKind::Component | EngineKind::ComponentPool | EngineKind::ComponentPoolScan
        );
        // What many calls in one instance need costs each call of those that never have more than one.
        config.concurrency_support(runs_components).wasm_component_model_async(runs_components);
        if runs_components {
            config.async_stack_size(COMPONENT_STACK_BYTES);
        }
        let engine = Engine::new(&config)?;
        let mut linker = Linker::new(&engine);
        define_imports(&mut linker)?;
        let components = runs_components.then(|| component::linker(&engine)).transpose()?;
        let (linker, components) = (Arc::new(linker), components.map(Arc::new));
        Ok(Self { engine, linker, components, published, kind })
    }

    /// Returns the engine's identity: its version, its configuration and the features of this CPU that
    /// its code uses.
    #[must_use]
    pub fn id(&self) -> EngineId {
        // Two differently primed runs of the standard hasher: it is stable for one build of midge, and an
        // artifact of another build is refused, which is the safe side.
        let half = |salt: u8| {
            let mut hasher = DefaultHasher::new();
            salt.hash(&mut hasher);
            self.engine.precompile_compatibility_hash().hash(&mut hasher);
            env!("CARGO_PKG_VERSION").hash(&mut hasher);
            hasher.finish().to_le_bytes()
        };
        let mut id = [0; 16];
        id[..8].copy_from_slice(&half(1));
        id[8..].copy_from_slice(&half(2));
        EngineId(id)
    }
}

fn common() -> Config {
    let mut config = Config::new();
    config
        .cranelift_opt_level(OptLevel::Speed)
        .epoch_interruption(true)
        .max_wasm_stack(GUEST_STACK_BYTES)
        .async_stack_size(FIBER_STACK_BYTES)
        .with_host_stack(Arc::new(Stacks))
        .memory_reservation(MEMORY_RESERVATION_BYTES)
        .memory_guard_size(MEMORY_GUARD_BYTES)
        .memory_may_move(false)
        // A section that nothing needs: frames are walked by pointer.
        .native_unwind_info(false)
        // Features beyond crate::module::FEATURES are refused by the validator before code is made.
        .wasm_multi_memory(true)
        .wasm_extended_const(true)
        .wasm_tail_call(true)
        .wasm_relaxed_simd(false);
    config
}

fn pool(resident_bytes: usize, scan: Enabled) -> InstanceAllocationStrategy {
    let mut pool = PoolingAllocationConfig::default();
    pool.total_component_instances(POOL_INSTANCES_MAX)
        .total_core_instances(POOL_INSTANCES_MAX * POOL_CORE_INSTANCES)
        .total_memories(POOL_INSTANCES_MAX * POOL_MEMORIES_MAX)
        .total_tables(POOL_INSTANCES_MAX * POOL_TABLES_MAX)
        .total_stacks(POOL_INSTANCES_MAX)
        .max_memories_per_module(POOL_MEMORIES_MAX)
        .max_tables_per_module(POOL_TABLES_MAX)
        .table_elements(crate::context::TABLE_ELEMENTS_MAX)
        .max_memory_size(POOL_MEMORY_BYTES_MAX)
        .max_unused_warm_slots(POOL_INSTANCES_MAX * POOL_TABLES_MAX)
        .linear_memory_keep_resident(resident_bytes)
        .table_keep_resident(resident_bytes)
        .async_stack_keep_resident(resident_bytes)
        .pagemap_scan(scan);
    InstanceAllocationStrategy::Pooling(pool)
}
