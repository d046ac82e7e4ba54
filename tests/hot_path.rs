//! Goal: on the way of a request nothing is allocated but what the engine needs for its fiber, and the
//! kernel is not called.
//! Method: an allocator that counts, for each thread, around each step of a call in a restored slot; and a
//! child process that the kernel kills at its first system call.
#![expect(
    unsafe_code,
    reason = "a counting allocator has to be one; a filter of system calls is set"
)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, Stdio};
use std::sync::Arc;

use midge_abi::contract::Method;
use midge_abi::imports::Level;
use midge_abi::request::{HeadSpan, HeaderSpan, Request, block_size, encode};
use midge_abi::response::{Answer, Response};
use midge_loader::artifact::Artifact;
use midge_loader::build::build;
use midge_loader::context::{RequestContext, Services};
use midge_loader::drive::CallEnd;
use midge_loader::engine::Engines;
use midge_loader::function::{Function, FunctionLimits};
use midge_loader::slot::Progress;
use midge_loader::start::{AnyTechnique, StartTechnique, Technique, Tier};
use midge_tests::guests::example;

/// Calls that are measured.
const CALLS: u64 = 10_000;
/// What the engine allocates for a call: the closure that a fiber enters with (`call_async`). Ours is none.
const ENGINE_ALLOCATIONS_PER_CALL: u64 = 1;

thread_local! {
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

struct Counting;

// SAFETY: every method hands its arguments to the system's allocator unchanged, whose contract is the same;
// what is done besides touches a thread-local number that needs no allocation and no destructor.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: the caller's promise about `layout` is the one that `System` asks for.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: `pointer` came from `alloc` or `realloc` above, so from `System`, with this layout.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count();
        // SAFETY: as in `dealloc`; the caller promises that `size` is not zero and does not overflow.
        unsafe { System.realloc(pointer, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn count() {
    ALLOCATIONS.with(|allocations| allocations.set(allocations.get() + 1));
}

/// Allocations of each step, summed up over all calls.
#[derive(Debug, Default, PartialEq, Eq)]
struct Allocations {
    take: u64,
    encode: u64,
    call: u64,
    decode: u64,
    restore: u64,
}

/// Adds what `action` allocates to a sum.
fn counted<R>(sum: &mut u64, action: impl FnOnce() -> R) -> R {
    let before = ALLOCATIONS.get();
    let result = action();
    *sum += ALLOCATIONS.get() - before;
    result
}

struct NoServices;

impl Services for NoServices {
    fn log(&self, _: &[u8; 16], _: Level, _: &[u8]) {}

    fn wall_ns(&self) -> u64 {
        0
    }

    fn monotonic_ns(&self) -> u64 {
        0
    }

    fn seed(&self, _: &[u8; 16]) -> [u8; 32] {
        [0; 32]
    }
}

/// The request; another path of the same length may stand in it.
const HEAD: &[u8] = b"GET /hello?name=path HTTP/1.1\r\nhost: localhost\r\n\r\n";

/// Calls a function again and again.
struct Calls {
    head: Vec<u8>,
    technique: AnyTechnique,
    function: Arc<Function>,
    allocations: Allocations,
}

impl Calls {
    fn new(module: &[u8], path: &[u8; 6]) -> Self {
        let engines = Engines::new();
        let built = build("guest.wasm", module, &engines).expect("the example is sound");
        let artifact = Artifact::from_bytes(&built.bytes, &engines).expect("just built");
        let limits = FunctionLimits::of_memory(64 << 20);
        let services = Arc::new(NoServices);
        let function =
            Function::register(&artifact, Technique::Restore, &engines, services, limits)
                .expect("`restore` suits it");
        let function = Arc::new(function);
        let technique = AnyTechnique::new(Arc::clone(&function), 1);
        let mut head = HEAD.to_vec();
        head[4..10].copy_from_slice(path);
        Self { head, technique, function, allocations: Allocations::default() }
    }

    fn call(&mut self) -> Tier {
        let area = self.function.area();
        let Self { head, technique, allocations, .. } = self;
        let span = |offset, size| HeadSpan { offset, size };
        let request = Request {
            head,
            tail: b"",
            method: Method::Get,
            method_name: span(0, 3),
            target: span(4, 16),
            path: span(4, 6),
            query: span(11, 9),
            authority: span(37, 9),
            is_http_1_0: false,
            body: &[],
            request_id: [1; 16],
            deadline_ns: 1_000_000_000,
            peer_address: [0; 16],
            peer_port: 0,
        };
        let headers = [HeaderSpan { name: span(31, 4), value: span(37, 9) }];
        let size = block_size(HEAD.len(), headers.len(), 0);
        let started =
            counted(&mut allocations.take, || technique.take()).expect("an instance starts");
        let mut pristine = started.pristine;
        counted(&mut allocations.encode, || {
            let block = pristine.area(area, size).expect("there are mappings");
            encode(block, &request, headers.into_iter());
        });
        let context = RequestContext { request_id: [1; 16], began_ns: 0, time_ns: u64::MAX };
        let progress = counted(&mut allocations.call, || pristine.call(context, area, size));
        let Progress::Done(used) = progress else { panic!("nobody moves the epoch") };
        let CallEnd::Returned(address) = *used.end() else { panic!("{:?}", used.end()) };
        counted(&mut allocations.decode, || {
            let answer = Response::read(used.memory(), address, 1 << 20).expect("a sound response");
            let Answer::Response(response) = answer else { panic!("the guest reports an error") };
            assert_eq!(response.status(), 200);
            assert!(response.headers().all(|(name, _)| !name.is_empty()));
        });
        let discard = counted(&mut allocations.restore, || technique.give(used));
        assert_eq!(discard, None);
        started.tier
    }
}

#[test]
fn a_call_in_a_restored_slot_allocates_the_engines_fiber_entry_and_nothing_else() {
    for (name, path) in [("hello", b"/hello"), ("counter", b"/count"), ("notes", b"/notes")] {
        let mut calls = Calls::new(&example(name), path);
        assert_eq!(calls.call(), Tier::T2);
        calls.call();
        calls.allocations = Allocations::default();
        for _ in 0..CALLS {
            assert_eq!(calls.call(), Tier::T3);
        }
        let expected =
            Allocations { call: CALLS * ENGINE_ALLOCATIONS_PER_CALL, ..Allocations::default() };
        assert_eq!(calls.allocations, expected, "{name}");
    }
}

/// Names the guest that a child process calls under the filter.
const CHILD_GUEST: &str = "MIDGE_HOT_PATH_GUEST";

/// A guest that grows its memory: each restore has a mapping to close.
const GROWING: &str = r#"(module
  (memory (export "memory") 2 10)
  (data (i32.const 64) "MDGE\01\00\00\00\00\10\00\00\00\10\00\00")
  (func (export "midge_contract") (result i32) i32.const 64)
  (func (export "midge_handle") (param i32 i32) (result i32)
    (drop (memory.grow (i32.const 1)))
    (i32.store (i32.const 3072) (i32.const 200))
    (i32.const 3072)))"#;

/// Ends the process with SIGSYS at the next system call, its end excepted.
fn forbid_system_calls() {
    const ALLOW: u32 = libc::SECCOMP_RET_ALLOW;
    const KILL: u32 = libc::SECCOMP_RET_KILL_PROCESS;
    let statement = |code: u32, k: u32| libc::sock_filter {
        code: u16::try_from(code).expect("codes of BPF have 16 bits"),
        jt: 0,
        jf: 0,
        k,
    };
    let exit = u32::try_from(libc::SYS_exit_group).expect("a small number");
    let mut program = [
        // The first word of what a filter is shown is the call's number.
        statement(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0),
        libc::sock_filter { jf: 1, ..statement(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, exit) },
        statement(libc::BPF_RET | libc::BPF_K, ALLOW),
        statement(libc::BPF_RET | libc::BPF_K, KILL),
    ];
    let program = libc::sock_fprog { len: 4, filter: program.as_mut_ptr() };
    // SAFETY: both calls restrict this thread; the program lives across the second, and has `len` entries.
    let results = unsafe {
        [
            libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0),
            libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const program),
        ]
    };
    assert_eq!(results, [0, 0], "the kernel takes the filter");
}

/// Runs as a child of the test below, for one guest; does nothing otherwise.
#[test]
fn child_that_may_not_call_the_kernel() {
    let Some(guest) = std::env::var_os(CHILD_GUEST) else { return };
    let mut calls = match guest.to_str() {
        Some("growing") => Calls::new(GROWING.as_bytes(), b"/hello"),
        Some("counter") => Calls::new(&example("counter"), b"/count"),
        _ => Calls::new(&example("hello"), b"/hello"),
    };
    calls.call();
    calls.call();
    forbid_system_calls();
    for _ in 0..CALLS {
        calls.call();
    }
    // SAFETY: ends the process at once, which the filter allows.
    unsafe { libc::_exit(0) };
}

#[test]
fn a_call_in_a_restored_slot_makes_no_system_call_and_raises_no_fault() {
    let child = |guest: &str| {
        let mut command = Command::new(std::env::current_exe().expect("this test"));
        command.args(["child_that_may_not_call_the_kernel", "--exact", "--nocapture"]);
        command.env(CHILD_GUEST, guest).stdout(Stdio::null());
        command.status().expect("it starts")
    };
    for guest in ["hello", "counter"] {
        let status = child(guest);
        assert!(status.success(), "{guest}: {status}");
    }
    assert_eq!(child("growing").signal(), Some(libc::SIGSYS), "the filter filters");
}

#[test]
fn the_counter_counts() {
    let mut sum = 0;
    let list = counted(&mut sum, || vec![Box::new(1), Box::new(2)]);
    assert_eq!((sum, list.len()), (3, 2));
}
