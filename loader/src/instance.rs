//! An instance in its store: made, called, reset, looked at.
//!
//! Epochs: a call may run for [`SLICE_TICKS`] of the engine's clock, then it yields to the worker and goes
//! on when it is polled again; the callback looks at the real clock then, and stops a call that is past its
//! deadline. Code that counts its instructions gives way in the same manner, and ends where its budget does.

use std::collections::HashMap;
use std::ptr::NonNull;
use std::sync::Arc;

use midge_abi::contract::{EXPORT_CONTRACT, EXPORT_HANDLE, EXPORT_INITIALIZE, EXPORT_MEMORY};
use midge_abi::manifest::{GlobalValue, Manifest};
use midge_abi::response::GuestRange;
use wasmtime::{
    Engine, Func, Global, InstancePre, Memory, Ref, Store, StoreContextMut, Table, Trap, TypedFunc,
    UpdateDeadline, Val,
};

use crate::artifact::{Artifact, MappedCode};
use crate::context::{Exited, GuestContext, InstanceLimits, RequestContext, Services};
use crate::drive::CallEnd;
use crate::fault;
use crate::memory::SlotMemories;
use crate::rewrite::EXPORT_ENTER;
use crate::stack::NoStack;
use crate::wait::AskCell;
use crate::witness::{self, ExportedFunction};

/// Ticks of the epoch that a call may use before it yields. The tick in which it starts is not whole, so
/// two ticks are at least one.
pub const SLICE_TICKS: u64 = 2;
/// Ticks that a call gets each time it goes on.
pub const NEXT_SLICE_TICKS: u64 = 1;
/// Ticks until a start without code of the guest's is preempted: never. The engine's own code, which puts
/// elements of tables in place, looks at the epoch too, and is not on a fiber that could yield.
const START_TICKS: u64 = u64::MAX / 2;
/// Start-up code that runs in every instance has this long: a worker waits for it.
pub const START_DEADLINE_NS: u64 = 10_000_000;

/// Why no instance could be started.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// The engine could not make one: no memory, no address space, no place in the pool.
    #[error("instance cannot be made")]
    Instantiate(#[source] wasmtime::Error),
    /// Start-up code trapped or ran too long.
    #[error("start-up of the instance failed")]
    StartUp(#[source] wasmtime::Error),
    /// The module lacks what the builder saw in it: a foreign artifact.
    #[error("instance has no export `{0}`")]
    Export(String),
    /// Start-up code that runs in each instance did something else than when the artifact was built.
    #[error("start-up left a memory of {memory_bytes} bytes, too small for the request area")]
    Area {
        /// Size of the first memory.
        memory_bytes: usize,
    },
    /// The engine is not to be had.
    #[error(transparent)]
    Engine(#[from] crate::engine::EngineError),
    /// The code could not be loaded.
    #[error("code cannot be loaded")]
    Code(#[source] wasmtime::Error),
}

/// Marks a call that was stopped at its deadline.
#[derive(Debug, thiserror::Error)]
#[error("deadline exceeded")]
pub(crate) struct DeadlineExceeded;

/// All state of an instance that a guest can observe.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct StateSnapshot {
    /// Each memory's bytes, up to its current size.
    pub memories: Vec<Vec<u8>>,
    /// Each mutable global.
    pub globals: Vec<GlobalValue>,
    /// For each mutable global the function that it refers to; null for a number.
    pub global_functions: Vec<FunctionRef>,
    /// Each table's elements.
    pub tables: Vec<Vec<FunctionRef>>,
    /// For each segment that has a probe (`witness.rs`), whether it was dropped.
    pub dropped_segments: Vec<bool>,
}

/// Which function a reference stands for, in a form that two instances can be compared by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FunctionRef {
    /// None.
    Null,
    /// The function of this index, by an export that `witness.rs` added.
    Index(u32),
    /// A function without such an export: the nth one that was met, in the order of tables and globals.
    Nth(u32),
}

/// An instance that lives in a store of its own.
pub(crate) struct Instance {
    store: Store<GuestContext>,
    entry: TypedFunc<(i32, i32), i32>,
    memory: Memory,
    instance: wasmtime::Instance,
    // For a reset: what is reset, and each global's fresh value. Empty where instances are thrown away,
    // whose techniques are not made to pay for looking it up.
    state: StateExports,
    fresh_globals: Vec<Val>,
    // Those of them that the entry does not set (`rewrite.rs`): references.
    references: Vec<(Global, Val)>,
    // Dropped after the store, whose code and pages lie in its mappings.
    _keep: Keep,
}

/// What has to live as long as an instance.
pub(crate) struct Keep {
    /// Holds the template, and the code that functions share.
    pub(crate) artifact: Arc<Artifact>,
    /// Holds code of this instance alone. Read by nobody, it lives and dies with the instance.
    pub(crate) _code: Option<Arc<MappedCode>>,
}

/// What becomes of an instance when its call has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum AfterCall {
    /// It is thrown away.
    Dropped,
    /// It is set back.
    Restored,
    /// It serves again as it is.
    Kept,
}

/// Makes a store for one instance.
pub(crate) fn store(
    engine: &Engine,
    services: Arc<dyn Services>,
    limits: InstanceLimits,
    asks: Option<&Arc<AskCell>>,
) -> Store<GuestContext> {
    let mut context = GuestContext::new(services, limits);
    if let Some(asks) = asks {
        context.set_asks(Arc::clone(asks));
    }
    let mut store = Store::new(engine, context);
    store.limiter(|context| context.limits());
    store.epoch_deadline_callback(slice_ended);
    store.set_epoch_deadline(SLICE_TICKS);
    store
}

fn slice_ended(mut store: StoreContextMut<'_, GuestContext>) -> wasmtime::Result<UpdateDeadline> {
    if store.data().fuel().is_none() && store.data_mut().is_past_deadline() {
        return Err(DeadlineExceeded.into());
    }
    Ok(UpdateDeadline::Yield(NEXT_SLICE_TICKS))
}

/// Makes an instance without start-up code of the guest's.
fn instantiate(
    store: &mut Store<GuestContext>,
    pre: &InstancePre<GuestContext>,
) -> wasmtime::Result<wasmtime::Instance> {
    if !store.data().may_wait() {
        return pre.instantiate(store);
    }
    // The engine refuses the plain way for modules with imports that wait. There is nothing to wait for here:
    // no code of the guest's runs, and the epoch is far away.
    let made = std::pin::pin!(pre.instantiate_async(store));
    match made.poll(&mut std::task::Context::from_waker(std::task::Waker::noop())) {
        std::task::Poll::Ready(made) => made,
        std::task::Poll::Pending => unreachable!("a start without code does not yield"),
    }
}

impl Instance {
    /// Makes an instance over templates, whose start-up has run when the artifact was built.
    pub(crate) fn over_templates(
        mut store: Store<GuestContext>,
        pre: &InstancePre<GuestContext>,
        keep: Keep,
        after_call: AfterCall,
    ) -> Result<(Self, SlotMemories), StartError> {
        store.set_epoch_deadline(START_TICKS);
        let (made, memories) =
            crate::memory::with_templates(keep.artifact.images(), || instantiate(&mut store, pre));
        let instance = made.map_err(StartError::Instantiate)?;
        fault::install(&mut store, &memories);
        let entry = match after_call {
            AfterCall::Restored | AfterCall::Dropped => EXPORT_ENTER,
            // It would set the globals back, which is what `reuse` does not do.
            AfterCall::Kept => EXPORT_HANDLE,
        };
        let mut instance = Self::bind(store, instance, keep, entry)?;
        if after_call == AfterCall::Restored {
            instance.remember();
        }
        Ok((instance, memories))
    }

    /// Makes an instance that the engine allocates. Start-up code that could not be run when the
    /// artifact was built runs here.
    pub(crate) async fn of_engine(
        mut store: Store<GuestContext>,
        pre: InstancePre<GuestContext>,
        keep: Keep,
    ) -> Result<Self, StartError> {
        if keep.artifact.manifest().is_preinitialised {
            // No code of the guest's runs, so no fiber is needed: the engine's own techniques are not made to
            // pay for one.
            store.set_epoch_deadline(START_TICKS);
            let instance = instantiate(&mut store, &pre).map_err(StartError::Instantiate)?;
            return Self::bind(store, instance, keep, EXPORT_ENTER);
        }
        store.data_mut().begin_start_up(START_DEADLINE_NS);
        let instance = pre.instantiate_async(&mut store).await.map_err(StartError::Instantiate)?;
        if let Ok(initialize) = instance.get_typed_func::<(), ()>(&mut store, EXPORT_INITIALIZE) {
            initialize.call_async(&mut store, ()).await.map_err(StartError::StartUp)?;
        }
        // The builder called it too, so that its effects, if any, are part of a fresh state.
        let contract = instance.get_typed_func::<(), i32>(&mut store, EXPORT_CONTRACT);
        let contract = contract.map_err(|_| StartError::Export(EXPORT_CONTRACT.into()))?;
        contract.call_async(&mut store, ()).await.map_err(StartError::StartUp)?;
        Self::bind(store, instance, keep, EXPORT_ENTER)
    }

    fn bind(
        mut store: Store<GuestContext>,
        instance: wasmtime::Instance,
        keep: Keep,
        entry: &str,
    ) -> Result<Self, StartError> {
        let missing = |name: &str| StartError::Export(name.to_owned());
        let entry = instance.get_typed_func(&mut store, entry).map_err(|_| missing(entry))?;
        let memory =
            instance.get_memory(&mut store, EXPORT_MEMORY).ok_or_else(|| missing(EXPORT_MEMORY))?;
        // A guest's memory never shrinks, so this holds for all calls. Start-up can find out where it runs, for
        // `memory.grow` has other limits there, and then leave a memory that nobody has checked.
        let memory_bytes = memory.data_size(&store);
        let &Manifest { area: address, area_size: size, .. } = keep.artifact.manifest();
        let area = GuestRange { address, size };
        if area.within(memory_bytes).is_none() {
            return Err(StartError::Area { memory_bytes });
        }
        let state = StateExports::default();
        let (fresh_globals, references) = (Vec::new(), Vec::new());
        Ok(Self { store, entry, memory, instance, state, fresh_globals, references, _keep: keep })
    }

    /// Notes the fresh state, for resets to come.
    fn remember(&mut self) {
        self.state = StateExports::find(&mut self.store, &self.instance);
        let globals = self.state.globals.iter();
        self.fresh_globals = globals.map(|global| global.get(&mut self.store)).collect();
        let pairs = self.state.globals.iter().zip(&self.fresh_globals);
        let references = pairs.filter(|(_, fresh)| matches!(fresh, Val::FuncRef(_)));
        self.references = references.map(|(global, fresh)| (*global, *fresh)).collect();
    }

    pub(crate) fn memory_base(&self) -> NonNull<u8> {
        NonNull::new(self.memory.data_ptr(&self.store)).expect("a memory has an address")
    }

    pub(crate) fn memory_bytes(&self) -> usize {
        self.memory.data_size(&self.store)
    }

    pub(crate) async fn call(
        &mut self,
        request: RequestContext,
        address: u32,
        size: u32,
    ) -> CallEnd {
        self.store.data_mut().begin(request);
        self.store.set_epoch_deadline(SLICE_TICKS);
        if let Some(fuel) = self.store.data().fuel() {
            self.store.set_fuel(fuel).expect("its engine counts instructions");
        }
        let arguments = (address.cast_signed(), size.cast_signed());
        match self.entry.call_async(&mut self.store, arguments).await {
            Ok(response) => CallEnd::Returned(response.cast_unsigned()),
            Err(error) if error.is::<DeadlineExceeded>() => CallEnd::DeadlineExceeded,
            Err(error) if error.is::<Exited>() => {
                let Exited(response) = error.downcast().expect("it is one");
                CallEnd::Returned(response)
            }
            Err(error) if error.is::<NoStack>() => CallEnd::NoStack,
            Err(error) if error.downcast_ref() == Some(&Trap::OutOfFuel) => CallEnd::FuelExhausted,
            Err(error) => CallEnd::Trapped(error),
        }
    }

    /// True where instructions are counted.
    pub(crate) fn is_fueled(&self) -> bool {
        self.store.data().fuel().is_some()
    }

    /// Returns how many instructions the last call ran, where they are counted.
    pub(crate) fn fuel_used(&self) -> Option<u64> {
        let fuel = self.store.data().fuel()?;
        let left = self.store.get_fuel().expect("its engine counts instructions");
        Some(fuel.saturating_sub(left))
    }

    /// Sets back what the entry does not set by itself.
    #[inline]
    pub(crate) fn reset_for_call(&mut self) {
        for (global, fresh) in &self.references {
            global.set(&mut self.store, *fresh).expect("a value of the global's own");
        }
    }

    /// Sets every global back.
    pub(crate) fn reset_globals(&mut self) {
        for (global, fresh) in self.state.globals.iter().zip(&self.fresh_globals) {
            global.set(&mut self.store, *fresh).expect("a value of the global's own");
        }
    }

    /// Lets the engine read each memory's size again: growing by nothing renews the copy that compiled code
    /// sees.
    #[cold]
    pub(crate) fn read_sizes_again(&mut self) {
        for memory in &self.state.memories {
            memory.grow(&mut self.store, 0).expect("growing by nothing");
        }
    }

    pub(crate) async fn inspect(&mut self) -> StateSnapshot {
        if self.store.data().fuel().is_some() {
            // What looks runs code, whatever the call has left.
            self.store.set_fuel(u64::MAX).expect("its engine counts instructions");
        }
        let state = StateExports::find(&mut self.store, &self.instance);
        let mut snapshot = state.inspect(&mut self.store);
        snapshot.dropped_segments = state.dropped_segments(&mut self.store).await;
        snapshot
    }
}

/// The exports through which all state of an instance is reached (`rewrite.rs` adds them).
#[derive(Default)]
pub(crate) struct StateExports {
    memories: Vec<Memory>,
    globals: Vec<Global>,
    tables: Vec<Table>,
    // What `witness.rs` adds; nothing in an artifact that is served.
    functions: Vec<(u32, Func)>,
    segment_probes: Vec<Func>,
}

impl StateExports {
    pub(crate) fn find(store: &mut Store<GuestContext>, instance: &wasmtime::Instance) -> Self {
        let mut found = Self::default();
        let exports = instance.exports(&mut *store);
        let prefixes = [crate::module::EXPORT_PREFIX, witness::WITNESS_PREFIX];
        let ours = exports
            .filter(|export| prefixes.iter().any(|prefix| export.name().starts_with(prefix)));
        for export in ours {
            let function = witness::exported_function(export.name());
            match export.into_extern() {
                wasmtime::Extern::Memory(memory) => found.memories.push(memory),
                wasmtime::Extern::Table(table) => found.tables.push(table),
                wasmtime::Extern::Global(global) => found.globals.push(global),
                wasmtime::Extern::Func(func) => match function {
                    Some(ExportedFunction::Index(index)) => found.functions.push((index, func)),
                    Some(ExportedFunction::SegmentProbe) => found.segment_probes.push(func),
                    None => {}
                },
                _ => {}
            }
        }
        found
    }

    /// Returns what can be read off without running code of the guest: all but the dropped segments.
    pub(crate) fn inspect(&self, store: &mut Store<GuestContext>) -> StateSnapshot {
        let mut names = FunctionNames::new(&self.functions, store);
        let tables = self.tables.iter().map(|table| names.of_table(table, store)).collect();
        let values: Vec<Val> = self.globals.iter().map(|global| global.get(&mut *store)).collect();
        StateSnapshot {
            memories: self.memories.iter().map(|memory| memory.data(&*store).to_vec()).collect(),
            globals: values.iter().map(value).collect(),
            global_functions: values.iter().map(|value| names.of_value(value, store)).collect(),
            tables,
            dropped_segments: Vec::new(),
        }
    }

    /// A probe traps if its segment was dropped, and has no effect otherwise.
    async fn dropped_segments(&self, store: &mut Store<GuestContext>) -> Vec<bool> {
        let mut dropped = Vec::with_capacity(self.segment_probes.len());
        if !self.segment_probes.is_empty() {
            // A probe is what an export of that name says, which in a foreign artifact may be anything.
            store.data_mut().begin_start_up(START_DEADLINE_NS);
        }
        for probe in &self.segment_probes {
            store.set_epoch_deadline(SLICE_TICKS);
            dropped.push(probe.call_async(&mut *store, &[], &mut []).await.is_err());
        }
        dropped
    }
}

/// Names functions of one instance so that another instance's can be compared with them.
struct FunctionNames {
    // By address, which means nothing outside the instance.
    names: HashMap<usize, FunctionRef>,
    nth: u32,
}

impl FunctionNames {
    fn new(functions: &[(u32, Func)], store: &mut Store<GuestContext>) -> Self {
        let name = |(index, func): &(u32, Func)| {
            (func.to_raw(&mut *store).addr(), FunctionRef::Index(*index))
        };
        Self { names: functions.iter().map(name).collect(), nth: 0 }
    }

    fn of(&mut self, func: Option<&Func>, store: &mut Store<GuestContext>) -> FunctionRef {
        let Some(func) = func else {
            return FunctionRef::Null;
        };
        *self.names.entry(func.to_raw(&mut *store).addr()).or_insert_with(|| {
            self.nth += 1;
            FunctionRef::Nth(self.nth)
        })
    }

    fn of_value(&mut self, value: &Val, store: &mut Store<GuestContext>) -> FunctionRef {
        match value {
            Val::FuncRef(func) => self.of(func.as_ref(), store),
            _ => FunctionRef::Null,
        }
    }

    fn of_table(&mut self, table: &Table, store: &mut Store<GuestContext>) -> Vec<FunctionRef> {
        let mut elements = Vec::new();
        for index in 0..table.size(&*store) {
            let element = table.get(&mut *store, index);
            let func = element.as_ref().and_then(Ref::as_func).flatten();
            elements.push(self.of(func, store));
        }
        elements
    }
}

/// Whether a restore changed the size of a memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sizes {
    /// It did not.
    Kept,
    /// It did.
    Changed,
}

/// Returns a global's value in the form of the manifest.
pub(crate) fn value(value: &Val) -> GlobalValue {
    match value {
        Val::I32(value) => GlobalValue::I32(*value),
        Val::I64(value) => GlobalValue::I64(*value),
        Val::F32(bits) => GlobalValue::F32(*bits),
        Val::F64(bits) => GlobalValue::F64(*bits),
        Val::V128(value) => GlobalValue::V128(value.as_u128()),
        other => GlobalValue::FuncRef { is_null: matches!(other, Val::FuncRef(None)) },
    }
}
