//! What the host keeps for one instance while it serves one request, and the imports that read it.
//!
//! Everything here is overwritten by [`GuestContext::begin`], so nothing of a request is left for the next.
//! Which clock, which chance and which log are the embedder's choice ([`Services`]): a run whose services
//! are scripted can be replayed.

use std::future::poll_fn;
use std::sync::Arc;
use std::task::Poll;

use midge_abi::contract::HEADER_SIZE;
use midge_abi::fetch::{WAIT_ROW_SIZE, WAIT_ROWS_MAX};
use midge_abi::imports::{
    self, CLOCK_STEP_NS, LOG_LINE_BYTES_MAX, LOG_LINES_PER_REQUEST_MAX, Level, RANDOM_BYTES_MAX,
    SLEEP_NS_MAX,
};
use midge_abi::response::{GuestRange, HEADER_COUNT_MAX};
use midge_abi::width::wire;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};
use wasmtime::{AsContextMut, Caller, Extern, Linker, ResourceLimiter};

use crate::instance::SLICE_TICKS;
use crate::wait::{Ask, AskCell, AskFault};

/// Clock, chance and log of the guests, as the embedder wants them.
pub trait Services: Send + Sync {
    /// Takes a line that a guest logged, already cut to the contract's limit.
    fn log(&self, request_id: &[u8; 16], level: Level, line: &[u8]);
    /// Returns nanoseconds since 1970-01-01 UTC.
    fn wall_ns(&self) -> u64;
    /// Returns nanoseconds of a clock that never goes back.
    fn monotonic_ns(&self) -> u64;
    /// Returns the seed of a request's random bytes: another one for every request, and secret.
    fn seed(&self, request_id: &[u8; 16]) -> [u8; 32];
    /// Returns the clock of deadlines, asked at the end of a slice: the guests' own, but where that is
    /// scripted and must not notice how often a slice ended.
    fn deadline_clock_ns(&self) -> u64 {
        self.monotonic_ns()
    }
}

/// What the host says of a request before the call.
#[derive(Debug, Clone, Copy)]
pub struct RequestContext {
    /// Names the request in logs; the random bytes depend on it.
    pub request_id: [u8; 16],
    /// When the request began, by [`Services::monotonic_ns`].
    pub began_ns: u64,
    /// How long the call may run. Counted from the first time that it is asked for its slice: the clock is
    /// read then, and not for the many calls that end within one.
    pub time_ns: u64,
}

/// Bounds of an instance that the engine watches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InstanceLimits {
    /// Largest size of each linear memory, in bytes.
    pub memory_bytes_max: usize,
    /// Size of a memory that files lie in, which may be larger than that. 0 without files.
    pub files_memory_bytes: usize,
    /// To which it may grow, for the folder in memory: no other memory of the module has the same largest size.
    pub files_memory_bytes_max: usize,
    /// Most elements of each table.
    pub table_elements_max: usize,
    /// Instructions of a call, where they are counted.
    pub fuel: Option<u64>,
}

impl ResourceLimiter for InstanceLimits {
    fn memory_growing(
        &mut self,
        current: usize,
        desired: usize,
        maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        let is_of_files = current == 0 && desired == self.files_memory_bytes;
        let is_for_folder = maximum == Some(self.files_memory_bytes_max)
            && self.files_memory_bytes <= current
            && desired <= self.files_memory_bytes_max;
        Ok(desired <= self.memory_bytes_max || is_of_files || is_for_folder)
    }

    fn table_growing(
        &mut self,
        _current: usize,
        desired: usize,
        _maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        Ok(desired <= self.table_elements_max)
    }
}

/// Most elements of a table that a guest may grow to.
pub const TABLE_ELEMENTS_MAX: usize = 65_536;

/// The host's data in a guest's store.
pub struct GuestContext {
    services: Arc<dyn Services>,
    request: RequestContext,
    deadline_ns: Option<u64>,
    random: Option<ChaCha8Rng>,
    lines: u32,
    limits: InstanceLimits,
    /// Where a call says what it waits for, if its module may wait.
    asks: Option<Arc<AskCell>>,
    /// False while start-up code runs: there is no client then.
    is_serving: bool,
}

impl std::fmt::Debug for GuestContext {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("GuestContext")
            .field("request", &self.request)
            .finish_non_exhaustive()
    }
}

impl GuestContext {
    /// Makes the context of an instance that serves no request yet.
    #[must_use]
    pub fn new(services: Arc<dyn Services>, limits: InstanceLimits) -> Self {
        let request = RequestContext { request_id: [0; 16], began_ns: 0, time_ns: u64::MAX };
        Self {
            services,
            request,
            deadline_ns: None,
            random: None,
            lines: 0,
            limits,
            asks: None,
            is_serving: false,
        }
    }

    /// Tells whether calls may wait.
    pub(crate) const fn may_wait(&self) -> bool {
        self.asks.is_some()
    }

    /// Lets calls wait.
    pub(crate) fn set_asks(&mut self, asks: Arc<AskCell>) {
        self.asks = Some(asks);
    }

    /// Gives start-up code that runs in the instance so much time.
    pub fn begin_start_up(&mut self, time_ns: u64) {
        let began_ns = self.services.monotonic_ns();
        self.begin(RequestContext { request_id: [0; 16], began_ns, time_ns });
        self.is_serving = false;
    }

    /// Forgets the last request and takes up the next.
    pub fn begin(&mut self, request: RequestContext) {
        self.request = request;
        self.deadline_ns = None;
        self.random = None;
        self.lines = 0;
        self.is_serving = true;
    }

    /// Returns the limits, for the store's limiter.
    pub const fn limits(&mut self) -> &mut InstanceLimits {
        &mut self.limits
    }

    /// Returns the instructions that a call may run, where they are counted.
    pub(crate) const fn fuel(&self) -> Option<u64> {
        self.limits.fuel
    }

    /// True if the request's time is up. The first call for a request sets its deadline.
    pub fn is_past_deadline(&mut self) -> bool {
        let now_ns = self.services.deadline_clock_ns();
        let time_ns = self.request.time_ns;
        *self.deadline_ns.get_or_insert_with(|| now_ns.saturating_add(time_ns)) <= now_ns
    }

    /// Returns what is left of the deadline, where it has been asked for.
    fn left_ns(&self) -> Option<u64> {
        self.deadline_ns.map(|end| end.saturating_sub(self.services.deadline_clock_ns()))
    }

    fn log(&mut self, level: i32, line: &[u8]) {
        self.lines = self.lines.saturating_add(1);
        if self.lines <= LOG_LINES_PER_REQUEST_MAX {
            let line = &line[..line.len().min(LOG_LINE_BYTES_MAX)];
            self.services.log(&self.request.request_id, Level::from_guest(level), line);
        }
    }

    fn fill_random(&mut self, target: &mut [u8]) {
        let Self { services, request, random, .. } = self;
        let seed = || ChaCha8Rng::from_seed(services.seed(&request.request_id));
        random.get_or_insert_with(seed).fill_bytes(target);
    }
}

/// What a guest did wrong in a call of an import: it traps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ImportFault {
    /// A region outside the memory.
    #[error("import `{0}` was given a region outside the memory")]
    OutOfBounds(&'static str),
    /// More than [`RANDOM_BYTES_MAX`].
    #[error("import `random` gives at most {RANDOM_BYTES_MAX} bytes, asked for {0}")]
    RandomTooLong(u32),
    /// The body or the response of a request asked for where there is none.
    #[error("import `{0}` was called while no request is served")]
    NotServing(&'static str),
    /// Chance or time asked for while the template is made, where it would be the same for all requests.
    #[error(
        "import `{0}` was called at start-up: the template would keep its answer for all requests"
    )]
    AtStartUp(&'static str),
}

/// Defines the contract's imports.
///
/// # Errors
/// The engine's, when a name is defined twice.
pub fn define_imports(linker: &mut Linker<GuestContext>) -> wasmtime::Result<()> {
    let module = imports::MODULE;
    linker.func_wrap(
        module,
        imports::LOG,
        |mut caller: Caller<'_, GuestContext>, level, pointer, size| {
            with_region(&mut caller, imports::LOG, region(pointer, size), |context, line| {
                context.log(level, line);
            })
        },
    )?;
    linker.func_wrap(module, imports::CLOCK_WALL_NS, |caller: Caller<'_, GuestContext>| {
        step(caller.data().services.wall_ns())
    })?;
    linker.func_wrap(module, imports::CLOCK_MONOTONIC_NS, |caller: Caller<'_, GuestContext>| {
        let context = caller.data();
        step(context.services.monotonic_ns().saturating_sub(context.request.began_ns))
    })?;
    linker.func_wrap(
        module,
        imports::RANDOM,
        |mut caller: Caller<'_, GuestContext>, pointer, size| {
            let target = region(pointer, size);
            if target.size > RANDOM_BYTES_MAX {
                return Err(ImportFault::RandomTooLong(target.size).into());
            }
            with_region(&mut caller, imports::RANDOM, target, GuestContext::fill_random)
        },
    )?;
    linker.func_wrap(module, imports::EXIT, |caller: Caller<'_, GuestContext>, record: i32| {
        let context = caller.data();
        let refused = || ImportFault::NotServing(imports::EXIT).into();
        let ended = || Exited(record.cast_unsigned()).into();
        Err::<(), wasmtime::Error>(if context.is_serving { ended() } else { refused() })
    })?;
    define_waiting_imports(linker)
}

/// Ends a call with the address of its response, from wherever the guest is.
#[derive(Debug, Clone, Copy, thiserror::Error)]
#[error("the guest ended its call")]
pub(crate) struct Exited(pub(crate) u32);

/// Defines the imports that let a call wait. The engine makes an allocation for each of their calls.
fn define_waiting_imports(linker: &mut Linker<GuestContext>) -> wasmtime::Result<()> {
    let module = imports::MODULE;
    linker.func_wrap_async(module, imports::BODY_READ, |caller, (pointer, size): (i32, i32)| {
        Box::new(async move {
            let region = region(pointer, size);
            if region.size == 0 {
                return Ok(0);
            }
            let size = ask(caller, imports::BODY_READ, Ask::Read(region), Some(region)).await?;
            Ok(size.cast_signed())
        })
    })?;
    linker.func_wrap_async(module, imports::RESPONSE_START, |caller, (record,): (i32,)| {
        Box::new(async move {
            let start = Ask::Start(record.cast_unsigned());
            ask(caller, imports::RESPONSE_START, start, None).await.map(drop)
        })
    })?;
    linker.func_wrap_async(
        module,
        imports::RESPONSE_WRITE,
        |caller, (pointer, size): (i32, i32)| {
            Box::new(async move {
                let region = region(pointer, size);
                let write = Ask::Write(region);
                ask(caller, imports::RESPONSE_WRITE, write, Some(region)).await.map(drop)
            })
        },
    )?;
    linker.func_wrap_async(module, imports::SLEEP_NS, |caller, (time,): (i64,)| {
        Box::new(async move {
            let ns = u64::try_from(time).unwrap_or(0).min(SLEEP_NS_MAX);
            ask(caller, imports::SLEEP_NS, Ask::Sleep(ns), None).await.map(drop)
        })
    })?;
    define_fetching_imports(linker)
}

/// Defines the imports by which a guest makes requests. Only `wait` waits; the others ask for what the embedder has.
fn define_fetching_imports(linker: &mut Linker<GuestContext>) -> wasmtime::Result<()> {
    let module = imports::MODULE;
    linker.func_wrap_async(module, imports::FETCH, |caller, (record,): (i32,)| {
        Box::new(async move {
            let fetch = Ask::Fetch(record.cast_unsigned());
            ask(caller, imports::FETCH, fetch, None).await.map(u32::cast_signed)
        })
    })?;
    type WithRegion = fn(u32, GuestRange) -> Ask;
    let with_region: [(&'static str, WithRegion); 4] = [
        (imports::FETCH_WRITE, Ask::FetchWrite),
        (imports::FETCH_HEAD, Ask::FetchHead),
        (imports::FETCH_READ, Ask::FetchRead),
        (imports::TRAILERS_READ, Ask::TrailersRead),
    ];
    for (name, make) in with_region {
        linker.func_wrap_async(
            module,
            name,
            move |caller, (handle, pointer, size): (i32, i32, i32)| {
                Box::new(async move {
                    let region = region(pointer, size);
                    let made = make(handle.cast_unsigned(), region);
                    ask(caller, name, made, Some(region)).await.map(u32::cast_signed)
                })
            },
        )?;
    }
    linker.func_wrap_async(
        module,
        imports::TRAILERS_WRITE,
        |caller, (handle, rows, count): (i32, i32, i32)| {
            Box::new(async move {
                let count = count.cast_unsigned();
                if count > HEADER_COUNT_MAX {
                    return Err(AskFault::Trailers.into());
                }
                let size = count * wire(HEADER_SIZE);
                let rows = GuestRange { address: rows.cast_unsigned(), size };
                let write = Ask::TrailersWrite(handle.cast_unsigned(), rows);
                let import = imports::TRAILERS_WRITE;
                ask(caller, import, write, Some(rows)).await.map(u32::cast_signed)
            })
        },
    )?;
    linker.func_wrap_async(module, imports::FETCH_FINISH, |caller, (handle,): (i32,)| {
        Box::new(async move {
            let finish = Ask::FetchFinish(handle.cast_unsigned());
            ask(caller, imports::FETCH_FINISH, finish, None).await.map(u32::cast_signed)
        })
    })?;
    linker.func_wrap_async(module, imports::FETCH_CLOSE, |caller, (handle,): (i32,)| {
        Box::new(async move {
            let close = Ask::FetchClose(handle.cast_unsigned());
            ask(caller, imports::FETCH_CLOSE, close, None).await.map(drop)
        })
    })?;
    linker.func_wrap_async(
        module,
        imports::WAIT,
        |caller, (rows, count, time): (i32, i32, i64)| {
            Box::new(async move {
                let count = count.cast_unsigned();
                if count > WAIT_ROWS_MAX {
                    return Err(AskFault::Rows.into());
                }
                let size = count * wire(WAIT_ROW_SIZE);
                let rows = GuestRange { address: rows.cast_unsigned(), size };
                let ns = u64::try_from(time).unwrap_or(u64::MAX).min(SLEEP_NS_MAX);
                let wait = Ask::Wait(rows, ns);
                ask(caller, imports::WAIT, wait, Some(rows)).await.map(u32::cast_signed)
            })
        },
    )?;
    Ok(())
}

/// Leaves an ask and waits for its answer.
///
/// The deadline bounds what the guest computes between two exchanges with its client, so it begins anew with
/// every byte that moved. Time spent waiting is the client's, which has limits of its own.
async fn ask(
    mut caller: Caller<'_, GuestContext>,
    import: &'static str,
    ask: Ask,
    region: Option<GuestRange>,
) -> wasmtime::Result<u32> {
    let Some(Extern::Memory(memory)) = caller.get_export(midge_abi::contract::EXPORT_MEMORY) else {
        return Err(ImportFault::OutOfBounds(import).into());
    };
    let memory_bytes = memory.data_size(&caller);
    if region.is_some_and(|region| region.within(memory_bytes).is_none()) {
        return Err(ImportFault::OutOfBounds(import).into());
    }
    let context = caller.data_mut();
    let asks = context.asks.clone().filter(|_| context.is_serving);
    let asks = asks.ok_or(ImportFault::NotServing(import))?;
    let left_ns = context.left_ns();
    asks.set(ask, memory_bytes);
    let answer = poll_fn(|_| asks.take_answer().map_or(Poll::Pending, Poll::Ready)).await?;
    let has_moved = match ask {
        Ask::Read(_) => answer > 0,
        Ask::Write(region) => region.size > 0,
        Ask::Start(_) => true,
        // A body that goes somewhere else, or comes from there, is an exchange as well.
        Ask::FetchWrite(..) | Ask::FetchRead(..) => answer.cast_signed() > 0,
        Ask::Sleep(_)
        | Ask::Fetch(_)
        | Ask::FetchFinish(_)
        // It may be looked at again and again.
        | Ask::FetchHead(..)
        | Ask::FetchClose(_)
        | Ask::Wait(..)
        | Ask::TrailersRead(..)
        | Ask::TrailersWrite(..) => false,
    };
    if has_moved {
        // The clock of slices went on in the meantime.
        caller.as_context_mut().set_epoch_deadline(SLICE_TICKS);
        caller.data_mut().deadline_ns = None;
    } else if let Some(left_ns) = left_ns {
        let context = caller.data_mut();
        let now_ns = context.services.deadline_clock_ns();
        context.deadline_ns = Some(now_ns.saturating_add(left_ns));
    }
    Ok(answer)
}

/// Defines imports for start-up at build time: logging works, time and chance are refused.
///
/// # Errors
/// As [`define_imports`].
pub fn define_startup_imports(linker: &mut Linker<GuestContext>) -> wasmtime::Result<()> {
    define_imports(linker)?;
    linker.allow_shadowing(true);
    let module = imports::MODULE;
    linker.func_wrap(module, imports::CLOCK_WALL_NS, || refuse::<i64>(imports::CLOCK_WALL_NS))?;
    linker.func_wrap(module, imports::CLOCK_MONOTONIC_NS, || {
        refuse::<i64>(imports::CLOCK_MONOTONIC_NS)
    })?;
    linker.func_wrap(module, imports::RANDOM, |_: i32, _: i32| refuse::<()>(imports::RANDOM))?;
    // Not waiting ones: a module that is started here runs without a fiber.
    let absent = |import| Err::<(), _>(wasmtime::Error::from(ImportFault::NotServing(import)));
    linker.func_wrap(module, imports::BODY_READ, move |_: i32, _: i32| {
        absent(imports::BODY_READ).map(|()| 0i32)
    })?;
    linker.func_wrap(module, imports::RESPONSE_START, move |_: i32| {
        absent(imports::RESPONSE_START)
    })?;
    linker.func_wrap(module, imports::RESPONSE_WRITE, move |_: i32, _: i32| {
        absent(imports::RESPONSE_WRITE)
    })?;
    linker.func_wrap(module, imports::SLEEP_NS, move |_: i64| absent(imports::SLEEP_NS))?;
    linker.func_wrap(module, imports::EXIT, move |_: i32| absent(imports::EXIT))?;
    for name in [imports::FETCH, imports::FETCH_FINISH] {
        linker.func_wrap(module, name, move |_: i32| absent(name).map(|()| 0i32))?;
    }
    for name in [
        imports::FETCH_WRITE,
        imports::FETCH_HEAD,
        imports::FETCH_READ,
        imports::TRAILERS_READ,
        imports::TRAILERS_WRITE,
    ] {
        linker
            .func_wrap(module, name, move |_: i32, _: i32, _: i32| absent(name).map(|()| 0i32))?;
    }
    linker.func_wrap(module, imports::FETCH_CLOSE, move |_: i32| absent(imports::FETCH_CLOSE))?;
    linker.func_wrap(module, imports::WAIT, move |_: i32, _: i32, _: i64| {
        absent(imports::WAIT).map(|()| 0i32)
    })?;
    Ok(())
}

fn refuse<T>(import: &'static str) -> wasmtime::Result<T> {
    Err(ImportFault::AtStartUp(import).into())
}

/// A guest's signed numbers, read as the addresses they are.
const fn region(pointer: i32, size: i32) -> GuestRange {
    GuestRange { address: pointer.cast_unsigned(), size: size.cast_unsigned() }
}

/// Runs `action` on a region of the guest's memory, if the region lies inside.
///
/// A write goes through the same page protection as the guest's own: the fault handler of the store is
/// asked first for every fault while a call is active, so the page is marked (`fault.rs`).
fn with_region(
    caller: &mut Caller<'_, GuestContext>,
    import: &'static str,
    region: GuestRange,
    action: impl FnOnce(&mut GuestContext, &mut [u8]),
) -> wasmtime::Result<()> {
    let Some(Extern::Memory(memory)) = caller.get_export(midge_abi::contract::EXPORT_MEMORY) else {
        return Err(ImportFault::OutOfBounds(import).into());
    };
    let (bytes, context) = memory.data_and_store_mut(caller);
    let range = region.within(bytes.len()).ok_or(ImportFault::OutOfBounds(import))?;
    action(context, &mut bytes[range]);
    Ok(())
}

/// Coarsens a clock to the contract's step, and makes it the guest's signed number.
fn step(ns: u64) -> i64 {
    (ns - ns % CLOCK_STEP_NS).cast_signed()
}
