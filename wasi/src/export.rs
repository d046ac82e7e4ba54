//! The exported functions, and the memory that they work on. Names are `interface#function`, as in WIT, without
//! versions; the loader finds them by these.
//!
//! The guest's own functions are imported from `guest`: the loader makes the ones that reach its memory.
#![expect(unsafe_code, reason = "owns this module's memory; calls imports")]

use core::cell::{Cell, UnsafeCell};

use crate::blocks::{BLOCK_BYTES, Block, Blocks};
use crate::content::Piece;
use crate::descriptors::{DESCRIPTORS_MAX, DESCRIPTORS_NEAR, Descriptor};
use crate::filesystem::{At, OpenFlags};
use crate::handles::{Entry, HANDLES_MAX, Kind, NEAR};
use crate::io::May;
use crate::outgoing::OptionalText;
use crate::preview1::{Errno, Which};
use crate::scratch::Head;
use crate::{State, Wasi, World};

/// Requests of this size fit with what the guest reads of a body at once.
const AREA_BYTES: usize = 64 * 1024;
/// The area, and what is made for one request.
const REGION_BYTES: usize = 4 * 1024 * 1024;

/// Blocks in this module's memory as it is at the start.
const NEAR_BLOCKS: usize = 15;
/// Blocks of a page of WebAssembly, by which a memory grows.
const WASM_PAGE_BLOCKS: usize = 16;

#[repr(C, align(16))]
struct Region([u8; REGION_BYTES]);

/// All memory of this module but its stack. What each request touches lies together, on one page if it is small.
#[repr(C, align(4096))]
struct Store {
    state: UnsafeCell<State>,
    is_entered: Cell<bool>,
    region: UnsafeCell<Region>,
    more: UnsafeCell<[Entry; HANDLES_MAX - NEAR]>,
    descriptors: UnsafeCell<[Descriptor; DESCRIPTORS_MAX - DESCRIPTORS_NEAR]>,
    scratch: UnsafeCell<Head>,
    blocks: UnsafeCell<Near>,
}

/// The first blocks of the folder that may be written to; others lie behind the files, where the memory grows. A
/// request that writes little grows nothing.
#[repr(C, align(4096))]
struct Near([Block; NEAR_BLOCKS]);

// SAFETY: wasm32 without atomics has one thread.
unsafe impl Sync for Store {}

static STORE: Store = Store {
    state: UnsafeCell::new(State::new()),
    is_entered: Cell::new(false),
    region: UnsafeCell::new(Region([0; REGION_BYTES])),
    more: UnsafeCell::new([Entry::FREE; HANDLES_MAX - NEAR]),
    descriptors: UnsafeCell::new([Descriptor::CLOSED; DESCRIPTORS_MAX - DESCRIPTORS_NEAR]),
    scratch: UnsafeCell::new(Head::new()),
    blocks: UnsafeCell::new(Near([[0; BLOCK_BYTES]; NEAR_BLOCKS])),
};

#[repr(C)]
struct Contract {
    magic: u32,
    version: u32,
    area: *const UnsafeCell<Region>,
    area_size: usize,
}

// SAFETY: it is never written, and its pointer is only read as a number, by the host.
unsafe impl Sync for Contract {}

static CONTRACT: Contract = Contract {
    magic: u32::from_le_bytes(*b"MDGE"),
    version: 1,
    area: &raw const STORE.region,
    area_size: AREA_BYTES,
};

mod guest {
    #[link(wasm_import_module = "guest")]
    unsafe extern "C" {
        pub(super) safe fn memory_size() -> u32;
        pub(super) fn read(target: *mut u8, address: u32, size: usize);
        pub(super) fn write(address: u32, source: *const u8, size: usize);
        pub(super) safe fn read_u32(address: u32) -> u32;
        pub(super) safe fn write_u8(address: u32, value: u32);
        pub(super) safe fn write_u32(address: u32, value: u32);
        pub(super) safe fn write_u64(address: u32, value: u64);
        pub(super) safe fn realloc(old: u32, old_size: u32, align: u32, size: u32) -> u32;
        pub(super) safe fn files() -> u32;
        pub(super) safe fn files_size() -> u32;
        pub(super) safe fn handle(request: u32, outparam: u32);
        pub(super) safe fn run() -> u32;
    }
}

mod host {
    #[link(wasm_import_module = "midge")]
    unsafe extern "C" {
        pub(super) fn log(level: i32, line: *const u8, size: usize);
        pub(super) safe fn clock_wall_ns() -> u64;
        pub(super) safe fn clock_monotonic_ns() -> u64;
        pub(super) fn random(target: *mut u8, size: usize);
        pub(super) fn body_read(target: *mut u8, size: usize) -> usize;
        pub(super) safe fn response_start(record: u32);
        pub(super) fn response_write(piece: *const u8, size: usize);
        pub(super) safe fn sleep_ns(time: u64);
        pub(super) safe fn fetch(record: u32) -> i32;
        pub(super) fn fetch_write(handle: u32, piece: *const u8, size: usize) -> i32;
        pub(super) safe fn fetch_finish(handle: u32) -> i32;
        pub(super) fn fetch_head(handle: u32, target: *mut u8, size: usize) -> i32;
        pub(super) fn fetch_read(handle: u32, target: *mut u8, size: usize) -> i32;
        pub(super) safe fn fetch_close(handle: u32);
        pub(super) fn trailers_read(handle: u32, target: *mut u8, size: usize) -> i32;
        pub(super) safe fn trailers_write(handle: u32, rows: u32, count: u32) -> i32;
        pub(super) fn wait(rows: *mut u8, count: usize, time: i64) -> u32;
        pub(super) safe fn exit(record: u32);
    }
}

/// Guest and host as this module's imports.
struct Imports;

impl Imports {
    /// Returns where a block lies.
    fn place(number: u32) -> *mut Block {
        let place = crate::index(number).wrapping_sub(1);
        match place.checked_sub(NEAR_BLOCKS) {
            None => STORE.blocks.get().cast::<Block>().wrapping_add(place),
            Some(far) => {
                assert!(far < Self::grown(), "a block that was made accessible");
                core::ptr::with_exposed_provenance_mut::<Block>(Self::end()).wrapping_add(far)
            }
        }
    }

    /// Returns the end of this module's memory as it was at the start, with the files.
    fn end() -> usize {
        let files = crate::index(guest::files()) + crate::index(guest::files_size());
        files.next_multiple_of(WASM_PAGE_BLOCKS * BLOCK_BYTES)
    }

    /// Returns how many blocks lie behind it.
    fn grown() -> usize {
        core::arch::wasm32::memory_size(0) * WASM_PAGE_BLOCKS - Self::end() / BLOCK_BYTES
    }
}

impl Blocks for Imports {
    fn block(&self, number: u32) -> &Block {
        // SAFETY: the block lies in the memory: in this module's own part of it, or behind the files, where `place`
        // asserts that the memory has grown. Nothing else here has references to either, and block 0, which would lie
        // before the first, is not asked for: it wraps to one that is not there. The memory does not shrink, and
        // `&self` keeps `block_mut` away, for one `Imports` is asked for blocks, that of `with`.
        unsafe { &*Self::place(number) }
    }

    fn block_mut(&mut self, number: u32) -> &mut Block {
        // SAFETY: as above, with `&mut self`.
        unsafe { &mut *Self::place(number) }
    }

    fn reach(&mut self, number: u32) -> bool {
        let Some(wanted) = crate::index(number).checked_sub(NEAR_BLOCKS) else { return true };
        let grown = Self::grown();
        let Some(lacking) = wanted.checked_sub(grown).filter(|&lacking| lacking > 0) else {
            return true;
        };
        // By as much as there was: few calls for much, and little for little. What is not written is not touched.
        let least = lacking.div_ceil(WASM_PAGE_BLOCKS);
        let mut pages = least.max(grown / WASM_PAGE_BLOCKS);
        while core::arch::wasm32::memory_grow(0, pages) == usize::MAX {
            if pages == least {
                return false;
            }
            pages = least.max(pages / 2);
        }
        true
    }
}

impl World for Imports {
    fn read_to_block(&mut self, address: u32, piece: &Piece) {
        let target = &mut self.block_mut(piece.block)[piece.range.clone()];
        // SAFETY: the function fills exactly the slice, or traps.
        unsafe { guest::read(target.as_mut_ptr(), address, target.len()) }
    }

    fn write_from_block(&mut self, address: u32, piece: &Piece) {
        let bytes = &self.block(piece.block)[piece.range.clone()];
        // SAFETY: the function reads exactly the slice, or traps.
        unsafe { guest::write(address, bytes.as_ptr(), bytes.len()) }
    }

    fn memory_size(&self) -> u64 {
        u64::from(guest::memory_size()) << 16
    }

    fn read(&self, address: u32, target: &mut [u8]) {
        // SAFETY: the function fills exactly the slice, or traps.
        unsafe { guest::read(target.as_mut_ptr(), address, target.len()) }
    }

    fn write(&mut self, address: u32, bytes: &[u8]) {
        // SAFETY: the function reads exactly the slice, or traps.
        unsafe { guest::write(address, bytes.as_ptr(), bytes.len()) }
    }

    fn read_u32(&self, address: u32) -> u32 {
        guest::read_u32(address)
    }

    fn write_u8(&mut self, address: u32, value: u8) {
        guest::write_u8(address, u32::from(value));
    }

    fn write_u32(&mut self, address: u32, value: u32) {
        guest::write_u32(address, value);
    }

    fn write_u64(&mut self, address: u32, value: u64) {
        guest::write_u64(address, value);
    }

    fn realloc(&mut self, old: u32, old_size: u32, align: u32, size: u32) -> u32 {
        guest::realloc(old, old_size, align, size)
    }

    fn files(&self) -> &'static [u8] {
        let size = crate::index(guest::files_size());
        if size == 0 {
            return &[];
        }
        let start = core::ptr::with_exposed_provenance(crate::index(guest::files()));
        // SAFETY: the loader puts the bundle at this place, in this size, behind all that this module knows as its
        // memory, so nothing here has a reference to it that could write; the guest cannot reach it. Its memory
        // does not shrink.
        unsafe { core::slice::from_raw_parts(start, size) }
    }

    fn log(&mut self, level: i32, line: &[u8]) {
        // SAFETY: the import reads exactly the slice, during the call alone.
        unsafe { host::log(level, line.as_ptr(), line.len()) }
    }

    fn wall_ns(&self) -> u64 {
        host::clock_wall_ns()
    }

    fn monotonic_ns(&self) -> u64 {
        host::clock_monotonic_ns()
    }

    fn random(&mut self, target: &mut [u8]) {
        // SAFETY: the import fills exactly the slice.
        unsafe { host::random(target.as_mut_ptr(), target.len()) }
    }

    fn body_read(&mut self, target: &mut [u8]) -> usize {
        // SAFETY: the import writes at most the slice.
        unsafe { host::body_read(target.as_mut_ptr(), target.len()) }
    }

    fn response_start(&mut self, record: u32) {
        host::response_start(record);
    }

    fn response_write(&mut self, piece: &[u8]) {
        // SAFETY: the import reads exactly the slice, during the call alone.
        unsafe { host::response_write(piece.as_ptr(), piece.len()) }
    }

    fn sleep_ns(&mut self, ns: u64) {
        host::sleep_ns(ns);
    }

    fn fetch(&mut self, record: u32) -> i32 {
        host::fetch(record)
    }

    fn fetch_write(&mut self, handle: u32, piece: &[u8]) -> i32 {
        // SAFETY: the import reads exactly the slice, during the call alone.
        unsafe { host::fetch_write(handle, piece.as_ptr(), piece.len()) }
    }

    fn fetch_finish(&mut self, handle: u32) -> i32 {
        host::fetch_finish(handle)
    }

    fn fetch_head(&mut self, handle: u32, target: &mut [u8]) -> i32 {
        // SAFETY: the import writes at most the slice.
        unsafe { host::fetch_head(handle, target.as_mut_ptr(), target.len()) }
    }

    fn fetch_read(&mut self, handle: u32, target: &mut [u8]) -> i32 {
        // SAFETY: the import writes at most the slice.
        unsafe { host::fetch_read(handle, target.as_mut_ptr(), target.len()) }
    }

    fn fetch_close(&mut self, handle: u32) {
        host::fetch_close(handle);
    }

    fn trailers_read(&mut self, handle: u32, target: &mut [u8]) -> i32 {
        // SAFETY: the import writes at most the slice.
        unsafe { host::trailers_read(handle, target.as_mut_ptr(), target.len()) }
    }

    fn trailers_write(&mut self, handle: u32, rows: u32, count: u32) -> i32 {
        host::trailers_write(handle, rows, count)
    }

    fn wait(&mut self, rows: &mut [u8], time: i64) {
        // SAFETY: the import reads and writes rows of eight bytes, as many as the slice holds.
        unsafe { host::wait(rows.as_mut_ptr(), rows.len() / 8, time) };
    }

    fn exit(&mut self, record: u32) -> ! {
        host::exit(record);
        core::arch::wasm32::unreachable()
    }

    fn trap(&mut self, reason: &str) -> ! {
        self.log(1, reason.as_bytes());
        core::arch::wasm32::unreachable()
    }
}

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    Imports.trap("wasi: a fault of the host's own module")
}

/// Runs an action on the store, which nobody else has meanwhile.
#[inline]
fn with<R>(action: impl FnOnce(&mut Wasi<'_, Imports>) -> R) -> R {
    if STORE.is_entered.replace(true) {
        // Canonical ABI: `may_leave` is false while `cabi_realloc` runs.
        Imports.trap("wasi: cannot leave the component while its cabi_realloc runs");
    }
    let base = STORE.region.get();
    // SAFETY: `is_entered` was false, so no other reference to the store is alive: `with` makes the only ones,
    // and the guest, which `action` may call, traps above. The references end before it is false again.
    let (state, region, more, descriptors, scratch) = unsafe {
        (
            &mut *STORE.state.get(),
            &mut *base,
            &mut *STORE.more.get(),
            &mut *STORE.descriptors.get(),
            &mut *STORE.scratch.get(),
        )
    };
    let base = u32::try_from(base.addr()).unwrap_or(0);
    let bytes = &mut region.0;
    let mut wasi = Wasi { state, bytes, more, descriptors, scratch, base, world: Imports };
    let result = action(&mut wasi);
    STORE.is_entered.set(false);
    result
}

#[unsafe(export_name = "midge_contract")]
extern "C" fn contract() -> *const Contract {
    &raw const CONTRACT
}

#[unsafe(export_name = "midge_handle")]
extern "C" fn handle(_area: u32, size: u32) -> u32 {
    // True where an instance is not restored (`reuse`) and its last call trapped.
    STORE.is_entered.set(false);
    let (request, outparam) = with(|wasi| wasi.begin(size));
    guest::handle(request, outparam);
    with(|wasi| wasi.end())
}

/// The entry of programs. The loader exports it as `midge_handle`.
#[unsafe(export_name = "command")]
extern "C" fn command(_area: u32, size: u32) -> u32 {
    STORE.is_entered.set(false);
    with(|wasi| wasi.begin_command(size));
    let code = guest::run();
    with(|wasi| wasi.end_command(if code == 0 { 0 } else { 1 }))
}

macro_rules! exports {
    ($($name:literal $function:ident ($($argument:ident: $type:ty),*) $(-> $result:ty)? = |$wasi:ident| $body:expr;)*) => {
        $(
            #[unsafe(export_name = $name)]
            extern "C" fn $function($($argument: $type),*) $(-> $result)? {
                with(|$wasi| $body)
            }
        )*
    };
}

exports! {
    "wasi:http/types#[constructor]fields" fields_new() -> u32 = |w| w.fields_new();
    "wasi:http/types#[static]fields.from-list" fields_from_list(list: u32, count: u32, ret: u32) =
        |w| w.fields_from_list(list, count, ret);
    "wasi:http/types#[method]fields.get" fields_get(this: u32, name: u32, size: u32, ret: u32) =
        |w| w.fields_get(this, name, size, ret);
    "wasi:http/types#[method]fields.has" fields_has(this: u32, name: u32, size: u32) -> u32 =
        |w| w.fields_has(this, name, size);
    "wasi:http/types#[method]fields.set"
        fields_set(this: u32, name: u32, size: u32, list: u32, count: u32, ret: u32) =
        |w| w.fields_set(this, [name, size], [list, count], ret);
    "wasi:http/types#[method]fields.delete" fields_delete(this: u32, name: u32, size: u32, ret: u32) =
        |w| w.fields_delete(this, name, size, ret);
    "wasi:http/types#[method]fields.append"
        fields_append(this: u32, name: u32, size: u32, value: u32, value_size: u32, ret: u32) =
        |w| w.fields_append(this, [name, size], [value, value_size], ret);
    "wasi:http/types#[method]fields.entries" fields_entries(this: u32, ret: u32) =
        |w| w.fields_entries(this, ret);
    "wasi:http/types#[method]fields.clone" fields_clone(this: u32) -> u32 = |w| w.fields_clone(this);

    "wasi:http/types#[method]incoming-request.method" request_method(this: u32, ret: u32) =
        |w| w.request_method(this, ret);
    "wasi:http/types#[method]incoming-request.path-with-query" request_path(this: u32, ret: u32) =
        |w| w.request_path(this, ret);
    "wasi:http/types#[method]incoming-request.scheme" request_scheme(this: u32, ret: u32) =
        |w| w.request_scheme(this, ret);
    "wasi:http/types#[method]incoming-request.authority" request_authority(this: u32, ret: u32) =
        |w| w.request_authority(this, ret);
    "wasi:http/types#[method]incoming-request.headers" request_headers(this: u32) -> u32 =
        |w| w.request_headers(this);
    "wasi:http/types#[method]incoming-request.consume" request_consume(this: u32, ret: u32) =
        |w| w.request_consume(this, ret);
    "wasi:http/types#[method]incoming-body.stream" incoming_stream(this: u32, ret: u32) =
        |w| w.incoming_stream(this, ret);
    "wasi:http/types#[static]incoming-body.finish" incoming_finish(this: u32) -> u32 =
        |w| w.incoming_finish(this);
    "wasi:http/types#[method]future-trailers.subscribe" trailers_subscribe(this: u32) -> u32 =
        |w| w.trailers_subscribe(this);
    "wasi:http/types#[method]future-trailers.get" trailers_get(this: u32, ret: u32) =
        |w| w.trailers_get(this, ret);

    "wasi:http/types#[constructor]outgoing-response" response_new(headers: u32) -> u32 =
        |w| w.response_new(headers);
    "wasi:http/types#[method]outgoing-response.status-code" response_status(this: u32) -> u32 =
        |w| w.response_status(this);
    "wasi:http/types#[method]outgoing-response.set-status-code"
        response_set_status(this: u32, status: u32) -> u32 = |w| w.response_set_status(this, status);
    "wasi:http/types#[method]outgoing-response.headers" response_headers(this: u32) -> u32 =
        |w| w.response_headers(this);
    "wasi:http/types#[method]outgoing-response.body" response_body(this: u32, ret: u32) =
        |w| w.response_body(this, ret);
    "wasi:http/types#[method]outgoing-body.write" outgoing_write(this: u32, ret: u32) =
        |w| w.outgoing_write(this, ret);
    "wasi:http/types#[static]outgoing-body.finish"
        outgoing_finish(this: u32, has_trailers: u32, trailers: u32, ret: u32) =
        |w| w.outgoing_finish(this, has_trailers, trailers, ret);
    "wasi:http/types#[static]response-outparam.set"
        outparam_set(this: u32, is_error: u32, value: u32, _a: u32, _b: u64, _c: u32, _d: u32, _e: u32, _f: u32) =
        |w| w.outparam_set(this, is_error, value);
    "wasi:http/types#http-error-code" error_code(error: u32, ret: u32) = |w| w.error_code(error, ret);

    "wasi:http/types#[constructor]outgoing-request" outgoing_new(headers: u32) -> u32 =
        |w| w.outgoing_new(headers);
    "wasi:http/types#[method]outgoing-request.headers" outgoing_headers(this: u32) -> u32 =
        |w| w.outgoing_headers(this);
    "wasi:http/types#[method]outgoing-request.body" outgoing_body(this: u32, ret: u32) =
        |w| w.outgoing_body(this, ret);
    "wasi:http/types#[method]outgoing-request.method" outgoing_method(this: u32, ret: u32) =
        |w| w.outgoing_method(this, ret);
    "wasi:http/types#[method]outgoing-request.set-method"
        outgoing_set_method(this: u32, case: u32, name: u32, size: u32) -> u32 =
        |w| w.outgoing_set_method(this, case, [name, size]);
    "wasi:http/types#[method]outgoing-request.path-with-query" outgoing_path(this: u32, ret: u32) =
        |w| w.outgoing_path(this, ret);
    "wasi:http/types#[method]outgoing-request.set-path-with-query"
        outgoing_set_path(this: u32, is_some: u32, text: u32, size: u32) -> u32 =
        |w| w.outgoing_set_path(this, OptionalText { is_some, text: [text, size] });
    "wasi:http/types#[method]outgoing-request.scheme" outgoing_scheme(this: u32, ret: u32) =
        |w| w.outgoing_scheme(this, ret);
    "wasi:http/types#[method]outgoing-request.set-scheme"
        outgoing_set_scheme(this: u32, is_some: u32, case: u32, name: u32, size: u32) -> u32 =
        |w| w.outgoing_set_scheme(this, is_some, case, [name, size]);
    "wasi:http/types#[method]outgoing-request.authority" outgoing_authority(this: u32, ret: u32) =
        |w| w.outgoing_authority(this, ret);
    "wasi:http/types#[method]outgoing-request.set-authority"
        outgoing_set_authority(this: u32, is_some: u32, text: u32, size: u32) -> u32 =
        |w| w.outgoing_set_authority(this, OptionalText { is_some, text: [text, size] });
    "wasi:http/types#[constructor]request-options" options_new() -> u32 = |w| w.options_new();
    "wasi:http/types#[method]request-options.connect-timeout" options_connect(this: u32, ret: u32) =
        |w| w.options_get(this, 0, ret);
    "wasi:http/types#[method]request-options.set-connect-timeout"
        options_set_connect(this: u32, is_some: u32, time: u64) -> u32 = |w| w.options_set(this, 0, is_some, time);
    "wasi:http/types#[method]request-options.first-byte-timeout" options_first(this: u32, ret: u32) =
        |w| w.options_get(this, 1, ret);
    "wasi:http/types#[method]request-options.set-first-byte-timeout"
        options_set_first(this: u32, is_some: u32, time: u64) -> u32 = |w| w.options_set(this, 1, is_some, time);
    "wasi:http/types#[method]request-options.between-bytes-timeout" options_between(this: u32, ret: u32) =
        |w| w.options_get(this, 2, ret);
    "wasi:http/types#[method]request-options.set-between-bytes-timeout"
        options_set_between(this: u32, is_some: u32, time: u64) -> u32 = |w| w.options_set(this, 2, is_some, time);
    "wasi:http/outgoing-handler#handle" outgoing_handle(request: u32, has_options: u32, options: u32, ret: u32) =
        |w| w.outgoing_handle(request, has_options, options, ret);
    "wasi:http/types#[method]future-incoming-response.subscribe" future_subscribe(this: u32) -> u32 =
        |w| w.future_subscribe(this);
    "wasi:http/types#[method]future-incoming-response.get" future_get(this: u32, ret: u32) =
        |w| w.future_get(this, ret);
    "wasi:http/types#[method]incoming-response.status" response_in_status(this: u32) -> u32 =
        |w| w.response_in_status(this);
    "wasi:http/types#[method]incoming-response.headers" response_in_headers(this: u32) -> u32 =
        |w| w.response_in_headers(this);
    "wasi:http/types#[method]incoming-response.consume" response_in_consume(this: u32, ret: u32) =
        |w| w.response_in_consume(this, ret);
    "wasi:http/types#[resource-drop]future-incoming-response" drop_future(this: u32) =
        |w| w.drop_resource(this, &[Kind::FutureResponse]);
    "wasi:http/types#[resource-drop]incoming-response" drop_response_in(this: u32) =
        |w| w.drop_resource(this, &[Kind::IncomingResponse]);
    "wasi:http/types#[resource-drop]outgoing-request" drop_outgoing_request(this: u32) =
        |w| w.drop_resource(this, &[Kind::OutgoingRequest]);
    "wasi:http/types#[resource-drop]request-options" drop_options(this: u32) =
        |w| w.drop_resource(this, &[Kind::Options]);

    "wasi:io/streams#[method]input-stream.read" input_read(this: u32, size: u64, ret: u32) =
        |w| w.input_read(this, size, ret, May::NotWait);
    "wasi:io/streams#[method]input-stream.blocking-read" input_blocking_read(this: u32, size: u64, ret: u32) =
        |w| w.input_read(this, size, ret, May::Wait);
    "wasi:io/streams#[method]input-stream.skip" input_skip(this: u32, size: u64, ret: u32) =
        |w| w.input_skip(this, size, ret, May::NotWait);
    "wasi:io/streams#[method]input-stream.blocking-skip" input_blocking_skip(this: u32, size: u64, ret: u32) =
        |w| w.input_skip(this, size, ret, May::Wait);
    "wasi:io/streams#[method]input-stream.subscribe" input_subscribe(this: u32) -> u32 =
        |w| w.input_subscribe(this);
    "wasi:io/streams#[method]output-stream.check-write" output_check(this: u32, ret: u32) =
        |w| w.output_check(this, ret);
    "wasi:io/streams#[method]output-stream.write"
        output_write(this: u32, address: u32, size: u32, ret: u32) = |w| w.output_write(this, address, size, ret);
    "wasi:io/streams#[method]output-stream.blocking-write-and-flush"
        output_blocking_write(this: u32, address: u32, size: u32, ret: u32) =
        |w| {
            w.output_write(this, address, size, ret);
            w.output_drain(this);
        };
    "wasi:io/streams#[method]output-stream.flush" output_flush(this: u32, ret: u32) =
        |w| w.output_flush(this, ret);
    "wasi:io/streams#[method]output-stream.blocking-flush" output_blocking_flush(this: u32, ret: u32) =
        |w| {
            w.output_flush(this, ret);
            w.output_drain(this);
        };
    "wasi:io/streams#[method]output-stream.subscribe" output_subscribe(this: u32) -> u32 =
        |w| w.output_subscribe(this);
    "wasi:io/streams#[method]output-stream.write-zeroes" output_zeros(this: u32, size: u64, ret: u32) =
        |w| w.output_zeros(this, size, ret);
    "wasi:io/streams#[method]output-stream.blocking-write-zeroes-and-flush"
        output_blocking_zeros(this: u32, size: u64, ret: u32) = |w| {
            w.output_zeros(this, size, ret);
            w.output_drain(this);
        };
    "wasi:io/streams#[method]output-stream.splice"
        output_splice(this: u32, source: u32, size: u64, ret: u32) =
        |w| w.output_splice(this, source, size, ret, May::NotWait);
    "wasi:io/streams#[method]output-stream.blocking-splice"
        output_blocking_splice(this: u32, source: u32, size: u64, ret: u32) =
        |w| w.output_splice(this, source, size, ret, May::Wait);
    "wasi:io/poll#[method]pollable.ready" pollable_ready(this: u32) -> u32 = |w| w.pollable_ready(this);
    "wasi:io/poll#[method]pollable.block" pollable_block(this: u32) = |w| w.pollable_block(this);
    "wasi:io/poll#poll" poll(list: u32, count: u32, ret: u32) = |w| w.poll(list, count, ret);
    "wasi:io/error#[method]error.to-debug-string" error_text(this: u32, ret: u32) = |w| w.error_text(this, ret);

    "wasi:clocks/wall-clock#now" wall_now(ret: u32) = |w| w.wall_now(ret);
    "wasi:clocks/wall-clock#resolution" wall_resolution(ret: u32) = |w| w.wall_resolution(ret);
    "wasi:clocks/monotonic-clock#now" monotonic_now() -> u64 = |w| w.monotonic_now();
    "wasi:clocks/monotonic-clock#resolution" monotonic_resolution() -> u64 = |w| w.monotonic_resolution();
    "wasi:clocks/monotonic-clock#subscribe-instant" subscribe_instant(time: u64) -> u32 =
        |w| w.pollable_at(time);
    "wasi:clocks/monotonic-clock#subscribe-duration" subscribe_duration(time: u64) -> u32 =
        |w| w.subscribe_duration(time);
    "wasi:random/random#get-random-bytes" random_bytes(size: u64, ret: u32) = |w| w.random_bytes(size, ret);
    "wasi:random/random#get-random-u64" random_u64() -> u64 = |w| w.random_u64();
    "wasi:random/insecure#get-insecure-random-bytes" insecure_bytes(size: u64, ret: u32) =
        |w| w.random_bytes(size, ret);
    "wasi:random/insecure#get-insecure-random-u64" insecure_u64() -> u64 = |w| w.random_u64();
    "wasi:random/insecure-seed#insecure-seed" insecure_seed(ret: u32) = |w| w.insecure_seed(ret);
    "wasi:cli/environment#get-environment" environment(ret: u32) = |w| w.strings_list(Which::Environment, ret);
    "wasi:cli/environment#get-arguments" arguments(ret: u32) = |w| w.strings_list(Which::Arguments, ret);
    "wasi:cli/exit#exit" exit(is_error: u32) = |w| w.exit(is_error);
    "wasi:cli/exit#exit-with-code" exit_with_code(code: u32) = |w| w.exit(code & 0xFF);
    "wasi:cli/environment#initial-cwd" initial_cwd(ret: u32) = |w| w.none(ret, 12, 4);
    "wasi:cli/stdin#get-stdin" stdin() -> u32 = |w| w.stdin();
    "wasi:cli/stdout#get-stdout" stdout() -> u32 = |w| w.line_stream(0);
    "wasi:cli/stderr#get-stderr" stderr() -> u32 = |w| w.line_stream(1);
    "wasi:cli/terminal-stdin#get-terminal-stdin" terminal_stdin(ret: u32) = |w| w.none(ret, 8, 4);
    "wasi:cli/terminal-stdout#get-terminal-stdout" terminal_stdout(ret: u32) = |w| w.none(ret, 8, 4);
    "wasi:cli/terminal-stderr#get-terminal-stderr" terminal_stderr(ret: u32) = |w| w.none(ret, 8, 4);
    "wasi:filesystem/preopens#get-directories" directories(ret: u32) = |w| w.directories(ret);
    "wasi:filesystem/types#[method]descriptor.read-via-stream" file_read_stream(this: u32, offset: u64, ret: u32) =
        |w| w.read_via_stream(this, offset, ret);
    "wasi:filesystem/types#[method]descriptor.write-via-stream"
        file_write_stream(this: u32, offset: u64, ret: u32) = |w| w.write_via_stream(this, offset, ret);
    "wasi:filesystem/types#[method]descriptor.append-via-stream" file_append_stream(this: u32, ret: u32) =
        |w| w.append_via_stream(this, ret);
    "wasi:filesystem/types#[method]descriptor.advise"
        file_advise(this: u32, _offset: u64, _size: u64, _advice: u32, ret: u32) =
        |w| w.descriptor_advise(this, ret);
    "wasi:filesystem/types#[method]descriptor.sync-data" file_sync_data(this: u32, ret: u32) =
        |w| w.descriptor_sync(this, ret);
    "wasi:filesystem/types#[method]descriptor.sync" file_sync(this: u32, ret: u32) =
        |w| w.descriptor_sync(this, ret);
    "wasi:filesystem/types#[method]descriptor.get-flags" file_flags(this: u32, ret: u32) =
        |w| w.descriptor_flags(this, ret);
    "wasi:filesystem/types#[method]descriptor.get-type" file_type(this: u32, ret: u32) =
        |w| w.descriptor_type(this, ret);
    "wasi:filesystem/types#[method]descriptor.set-size" file_set_size(this: u32, size: u64, ret: u32) =
        |w| w.descriptor_set_size(this, size, ret);
    "wasi:filesystem/types#[method]descriptor.set-times"
        file_set_times(this: u32, a: u32, a_s: u64, a_ns: u32, m: u32, m_s: u64, m_ns: u32, ret: u32) =
        |w| w.descriptor_set_times(this, [(a, a_s, a_ns), (m, m_s, m_ns)], ret);
    "wasi:filesystem/types#[method]descriptor.read" file_read(this: u32, size: u64, offset: u64, ret: u32) =
        |w| w.descriptor_read(this, size, offset, ret);
    "wasi:filesystem/types#[method]descriptor.write"
        file_write(this: u32, address: u32, size: u32, offset: u64, ret: u32) =
        |w| w.descriptor_write(this, [address, size], offset, ret);
    "wasi:filesystem/types#[method]descriptor.read-directory" file_entries(this: u32, ret: u32) =
        |w| w.read_directory(this, ret);
    "wasi:filesystem/types#[method]directory-entry-stream.read-directory-entry"
        file_entry(this: u32, ret: u32) = |w| w.read_directory_entry(this, ret);
    "wasi:filesystem/types#[method]descriptor.create-directory-at"
        file_mkdir(this: u32, path: u32, size: u32, ret: u32) = |w| {
            w.make_folder_at(At { this, path: [path, size] }, ret);
        };
    "wasi:filesystem/types#[method]descriptor.stat" file_stat(this: u32, ret: u32) =
        |w| w.descriptor_stat(this, ret);
    "wasi:filesystem/types#[method]descriptor.stat-at"
        file_stat_at(this: u32, flags: u32, path: u32, size: u32, ret: u32) =
        |w| w.stat_at(At { this, path: [path, size] }, flags, ret);
    "wasi:filesystem/types#[method]descriptor.set-times-at"
        file_set_times_at(this: u32, flags: u32, path: u32, size: u32, a: u32, a_s: u64, a_ns: u32,
                          m: u32, m_s: u64, m_ns: u32, ret: u32) =
        |w| w.set_times_at(At { this, path: [path, size] }, flags, [(a, a_s, a_ns), (m, m_s, m_ns)], ret);
    "wasi:filesystem/types#[method]descriptor.link-at"
        file_link(this: u32, flags: u32, path: u32, size: u32, other: u32, to: u32, to_size: u32, ret: u32) =
        |w| w.link_at(flags, At { this, path: [path, size] }, At { this: other, path: [to, to_size] }, ret);
    "wasi:filesystem/types#[method]descriptor.open-at"
        file_open(this: u32, path_flags: u32, path: u32, size: u32, open: u32, flags: u32, ret: u32) =
        |w| w.open_at(At { this, path: [path, size] }, OpenFlags { path: path_flags, open, descriptor: flags }, ret);
    "wasi:filesystem/types#[method]descriptor.readlink-at"
        file_readlink(this: u32, path: u32, size: u32, ret: u32) =
        |w| w.readlink_at(At { this, path: [path, size] }, ret);
    "wasi:filesystem/types#[method]descriptor.remove-directory-at"
        file_rmdir(this: u32, path: u32, size: u32, ret: u32) =
        |w| w.remove_folder_at(At { this, path: [path, size] }, ret);
    "wasi:filesystem/types#[method]descriptor.rename-at"
        file_rename(this: u32, path: u32, size: u32, other: u32, to: u32, to_size: u32, ret: u32) =
        |w| w.rename_at(At { this, path: [path, size] }, At { this: other, path: [to, to_size] }, ret);
    "wasi:filesystem/types#[method]descriptor.symlink-at"
        file_symlink(this: u32, target: u32, target_size: u32, path: u32, size: u32, ret: u32) =
        |w| w.symlink_at([target, target_size], At { this, path: [path, size] }, ret);
    "wasi:filesystem/types#[method]descriptor.unlink-file-at"
        file_unlink(this: u32, path: u32, size: u32, ret: u32) =
        |w| w.unlink_at(At { this, path: [path, size] }, ret);
    "wasi:filesystem/types#[method]descriptor.is-same-object" file_is_same(this: u32, other: u32) -> u32 =
        |w| w.is_same_object(this, other);
    "wasi:filesystem/types#[method]descriptor.metadata-hash" file_hash(this: u32, ret: u32) =
        |w| w.metadata_hash(this, ret);
    "wasi:filesystem/types#[method]descriptor.metadata-hash-at"
        file_hash_at(this: u32, flags: u32, path: u32, size: u32, ret: u32) =
        |w| w.metadata_hash_at(At { this, path: [path, size] }, flags, ret);
    "wasi:filesystem/types#filesystem-error-code" file_error(error: u32, ret: u32) =
        |w| w.file_error_code(error, ret);
    "wasi:filesystem/types#[resource-drop]descriptor" drop_descriptor(this: u32) =
        |w| w.drop_resource(this, &[Kind::Descriptor]);
    "wasi:filesystem/types#[resource-drop]directory-entry-stream" drop_entries(this: u32) =
        |w| w.drop_resource(this, &[Kind::Entries]);
    "absent" absent() = |w| w.absent();

    "wasi:http/types#[resource-drop]fields" drop_fields(this: u32) = |w| w.drop_resource(this, &[Kind::Fields]);
    "wasi:http/types#[resource-drop]incoming-request" drop_request(this: u32) =
        |w| w.drop_resource(this, &[Kind::Request]);
    "wasi:http/types#[resource-drop]response-outparam" drop_outparam(this: u32) =
        |w| w.drop_resource(this, &[Kind::Outparam]);
    "wasi:http/types#[resource-drop]incoming-body" drop_incoming_body(this: u32) =
        |w| w.drop_resource(this, &[Kind::IncomingBody]);
    "wasi:http/types#[resource-drop]future-trailers" drop_trailers(this: u32) =
        |w| w.drop_resource(this, &[Kind::Trailers]);
    "wasi:http/types#[resource-drop]outgoing-response" drop_response(this: u32) =
        |w| w.drop_resource(this, &[Kind::Response]);
    "wasi:http/types#[resource-drop]outgoing-body" drop_outgoing_body(this: u32) =
        |w| w.drop_resource(this, &[Kind::OutgoingBody]);
    "wasi:io/streams#[resource-drop]input-stream" drop_input(this: u32) =
        |w| w.drop_resource(this, &[Kind::Input, Kind::Nothing, Kind::File]);
    "wasi:io/streams#[resource-drop]output-stream" drop_output(this: u32) =
        |w| w.drop_resource(this, &[Kind::Output, Kind::Line, Kind::FileOutput]);
    "wasi:io/poll#[resource-drop]pollable" drop_pollable(this: u32) = |w| w.drop_resource(this, &[Kind::Pollable]);
    "wasi:io/error#[resource-drop]error" drop_error(this: u32) = |w| w.drop_resource(this, &[Kind::Error]);
}

/// As `exports`, for functions whose result is an `errno`.
macro_rules! preview1 {
    ($($name:literal $function:ident ($($argument:ident: $type:ty),*) = |$wasi:ident| $body:expr;)*) => {
        $(
            #[unsafe(export_name = concat!("wasi_snapshot_preview1#", $name))]
            extern "C" fn $function($($argument: $type),*) -> u32 {
                let errno: Errno = with(|$wasi| $body);
                errno as u32
            }
        )*
    };
}

preview1! {
    "args_sizes_get" p1_args_sizes(count: u32, size: u32) = |w| w.strings_sizes(Which::Arguments, count, size);
    "args_get" p1_args(list: u32, text: u32) = |w| w.strings_get(Which::Arguments, list, text);
    "environ_sizes_get" p1_environ_sizes(count: u32, size: u32) =
        |w| w.strings_sizes(Which::Environment, count, size);
    "environ_get" p1_environ(list: u32, text: u32) = |w| w.strings_get(Which::Environment, list, text);
    "clock_res_get" p1_clock_res(clock: u32, ret: u32) = |w| w.clock_resolution(clock, ret);
    "clock_time_get" p1_clock_time(clock: u32, _precision: u64, ret: u32) = |w| w.clock_time(clock, ret);
    "random_get" p1_random(address: u32, size: u32) = |w| w.random_get(address, size);
    "poll_oneoff" p1_poll(list: u32, events: u32, count: u32, ret: u32) =
        |w| w.poll_oneoff(list, events, count, ret);
    "sched_yield" p1_yield() = |_w| Errno::Success;
    "proc_raise" p1_raise(_signal: u32) = |_w| Errno::NotSupported;

    "fd_write" p1_fd_write(fd: u32, list: u32, count: u32, ret: u32) = |w| w.fd_write(fd, list, count, ret);
    "fd_read" p1_fd_read(fd: u32, list: u32, count: u32, ret: u32) = |w| w.fd_read(fd, list, count, ret);
    "fd_fdstat_get" p1_fd_stat(fd: u32, ret: u32) = |w| w.fd_stat(fd, ret);
    "fd_filestat_get" p1_fd_filestat(fd: u32, ret: u32) = |w| w.fd_filestat(fd, ret);
    "fd_close" p1_fd_close(fd: u32) = |w| w.fd_close(fd);
    "fd_sync" p1_fd_sync(fd: u32) = |w| w.fd_sync(fd);
    "fd_datasync" p1_fd_datasync(fd: u32) = |w| w.fd_sync(fd);
    "fd_fdstat_set_flags" p1_fd_set_flags(fd: u32, flags: u32) = |w| w.fd_set_flags(fd, flags);
    "fd_fdstat_set_rights" p1_fd_set_rights(fd: u32, _base: u64, _inheriting: u64) = |w| w.fd_set_rights(fd);
    "fd_advise" p1_fd_advise(fd: u32, _offset: u64, _size: u64, advice: u32) = |w| w.fd_advise(fd, advice);
    "fd_allocate" p1_fd_allocate(fd: u32, offset: u64, size: u64) = |w| w.fd_allocate(fd, offset, size);
    "fd_filestat_set_size" p1_fd_set_size(fd: u32, size: u64) = |w| w.set_size(fd, size);
    "fd_filestat_set_times" p1_fd_set_times(fd: u32, a: u64, m: u64, flags: u32) = |w| w.set_times(fd, [a, m], flags);
    "fd_pread" p1_fd_pread(fd: u32, list: u32, count: u32, offset: u64, ret: u32) =
        |w| w.fd_pread(fd, [list, count], offset, ret);
    "fd_pwrite" p1_fd_pwrite(fd: u32, list: u32, count: u32, offset: u64, ret: u32) =
        |w| w.fd_pwrite(fd, [list, count], offset, ret);
    "fd_seek" p1_fd_seek(fd: u32, offset: i64, whence: u32, ret: u32) = |w| w.fd_seek(fd, offset, whence, ret);
    "fd_tell" p1_fd_tell(fd: u32, ret: u32) = |w| w.fd_tell(fd, ret);
    "fd_renumber" p1_fd_renumber(fd: u32, to: u32) = |w| w.fd_renumber(fd, to);
    "fd_readdir" p1_fd_readdir(fd: u32, buffer: u32, size: u32, cookie: u64, ret: u32) =
        |w| w.fd_readdir(fd, [buffer, size], cookie, ret);
    "fd_prestat_get" p1_prestat(fd: u32, ret: u32) = |w| w.prestat(fd, ret);
    "fd_prestat_dir_name" p1_prestat_name(fd: u32, path: u32, size: u32) = |w| w.prestat_name(fd, path, size);
    "path_create_directory" p1_mkdir(fd: u32, path: u32, size: u32) = |w| w.path_make(fd, [path, size]);
    "path_filestat_get" p1_path_stat(fd: u32, flags: u32, path: u32, size: u32, ret: u32) =
        |w| w.path_facts(fd, flags, [path, size], ret);
    "path_filestat_set_times"
        p1_path_times(fd: u32, flags: u32, path: u32, size: u32, a: u64, m: u64, which: u32) =
        |w| w.path_times(fd, flags, [path, size], [a, m], which);
    "path_link"
        p1_link(fd: u32, flags: u32, path: u32, size: u32, new: u32, to: u32, to_size: u32) =
        |w| w.path_link(flags, (fd, [path, size]), (new, [to, to_size]));
    "path_open"
        p1_open(fd: u32, dir_flags: u32, path: u32, size: u32, flags: u32, base: u64, _inheriting: u64,
                fd_flags: u32, ret: u32) =
        |w| w.path_open(fd, [dir_flags, flags, fd_flags], [path, size], base, ret);
    "path_readlink"
        p1_readlink(fd: u32, path: u32, size: u32, buffer: u32, room: u32, ret: u32) =
        |w| w.path_readlink(fd, [path, size], [buffer, room], ret);
    "path_remove_directory" p1_rmdir(fd: u32, path: u32, size: u32) =
        |w| w.path_remove_folder(fd, [path, size]);
    "path_rename" p1_rename(fd: u32, path: u32, size: u32, new: u32, to: u32, to_size: u32) =
        |w| w.path_rename((fd, [path, size]), (new, [to, to_size]));
    "path_symlink" p1_symlink(path: u32, size: u32, fd: u32, to: u32, to_size: u32) =
        |w| w.path_symlink([path, size], fd, [to, to_size]);
    "path_unlink_file" p1_unlink(fd: u32, path: u32, size: u32) =
        |w| w.path_unlink(fd, [path, size]);
    "sock_accept" p1_accept(fd: u32, _flags: u32, _ret: u32) = |w| w.fd_socket(fd);
    "sock_recv" p1_recv(fd: u32, _list: u32, _count: u32, _flags: u32, _ret: u32, _ret_flags: u32) =
        |w| w.fd_socket(fd);
    "sock_send" p1_send(fd: u32, _list: u32, _count: u32, _flags: u32, _ret: u32) = |w| w.fd_socket(fd);
    "sock_shutdown" p1_shutdown(fd: u32, _how: u32) = |w| w.fd_socket(fd);
}

#[unsafe(export_name = "wasi_snapshot_preview1#proc_exit")]
extern "C" fn p1_exit(code: u32) {
    with(|wasi| wasi.exit(code))
}
