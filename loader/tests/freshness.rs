//! Goal: after a restore, no state that a guest can observe differs from a fresh instance's.
//! Method: a guest whose request body is a little program of state changes; random programs run in a slot
//! that is restored between them, and the whole state is compared with that of a new instance.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use midge_abi::contract::Method;
use midge_abi::imports::Level;
use midge_abi::manifest::{CodeForm, Isolation, Metering};
use midge_abi::request::{HeadSpan, HeaderSpan, Request, block_size, encode};
use midge_abi::response::{Answer, Response};
use midge_loader::artifact::Artifact;
use midge_loader::build::build_as;
use midge_loader::context::{RequestContext, Services};
use midge_loader::drive::CallEnd;
use midge_loader::engine::Engines;
use midge_loader::function::{Function, FunctionLimits};
use midge_loader::instance::StateSnapshot;
use midge_loader::slot::{Pristine, Progress, Used};
use midge_loader::start::choose::{Machine, check, choose};
use midge_loader::start::{AnyTechnique, StartTechnique, Technique, Tier};
use proptest::prelude::*;

/// Bytes of the body, in pairs (operation, argument):
///   0 write argument to page argument | 1 add to an i32 global | 2 change an i64, f64 and v128 global
///   3 grow by one page and write to it | 4 fill 40 pages | 5 write to the second memory
///   6 trap by unreachable | 7 trap by an access outside | 8 recurse without end
const GUEST: &str = r#"(module
  (import "midge" "log" (func $log (param i32 i32 i32)))
  (import "midge" "random" (func $random (param i32 i32)))
  (memory (export "memory") 20 100)
  (memory $second 2)
  (global $counter (mut i32) (i32.const 5))
  (global $wide (mut i64) (i64.const -1))
  (global $real (mut f64) (f64.const nan:0x8000000000001))
  (global $vector (mut v128) (v128.const i64x2 1 2))
  (data (i32.const 64) "MDGE\01\00\00\00\00\00\01\00\00\00\01\00")
  (data (i32.const 1024) "state of the template")
  (data (memory $second) (i32.const 65540) "second")
  (func (export "_initialize")
    (i32.store (i32.const 2048) (i32.const 77))
    (global.set $counter (i32.add (global.get $counter) (i32.const 1))))
  (func (export "midge_contract") (result i32) i32.const 64)
  (func $recurse (param i32) (result i32)
    (i32.add (call $recurse (i32.add (local.get 0) (i32.const 1))) (i32.const 1)))
  (func $step (param $operation i32) (param $argument i32)
    (block $8 (block $7 (block $6 (block $5 (block $4 (block $3 (block $2 (block $1 (block $0
      (br_table $0 $1 $2 $3 $4 $5 $6 $7 $8 (i32.rem_u (local.get $operation) (i32.const 9))))
      (i32.store8 (i32.mul (local.get $argument) (i32.const 4096)) (local.get $argument)) return)
      (global.set $counter (i32.add (global.get $counter) (local.get $argument))) return)
      (global.set $wide (i64.extend_i32_u (local.get $argument)))
      (global.set $real (f64.convert_i32_u (local.get $argument)))
      (global.set $vector (i32x4.splat (local.get $argument))) return)
      (if (i32.ne (memory.grow (i32.const 1)) (i32.const -1))
        (then (i32.store (i32.sub (i32.mul (memory.size) (i32.const 65536)) (i32.const 4)) (i32.const -1))))
      return)
      (memory.fill (i32.const 262144) (local.get $argument) (i32.const 163840)) return)
      (i32.store $second (i32.mul (local.get $argument) (i32.const 500)) (local.get $argument)) return)
      unreachable)
      (drop (i32.load (i32.const 0x7fff0000))) return)
      (drop (call $recurse (local.get $argument))))
  (func (export "midge_handle") (param $request i32) (param $size i32) (result i32)
    (local $at i32) (local $end i32)
    (local.set $at (i32.add (local.get $request) (i32.load offset=64 (local.get $request))))
    (local.set $end (i32.add (local.get $at) (i32.load offset=68 (local.get $request))))
    (block $done (loop $next
      (br_if $done (i32.ge_u (local.get $at) (local.get $end)))
      (call $step (i32.load8_u (local.get $at)) (i32.load8_u offset=1 (local.get $at)))
      (local.set $at (i32.add (local.get $at) (i32.const 2)))
      (br $next)))
    (call $random (i32.const 3000) (i32.const 8))
    (i32.store (i32.const 3072) (i32.const 200))
    (i32.store (i32.const 3084) (i32.const 3000))
    (i32.store (i32.const 3088) (i32.const 8))
    (i32.const 3072)))"#;

const HEAD: &[u8] = b"POST / HTTP/1.1\r\nhost: x\r\n\r\n";

struct TestServices(AtomicU64);

impl Services for TestServices {
    fn log(&self, _: &[u8; 16], _: Level, _: &[u8]) {}
    fn wall_ns(&self) -> u64 {
        0
    }
    fn monotonic_ns(&self) -> u64 {
        self.0.fetch_add(1, Ordering::Relaxed)
    }
    fn seed(&self, request_id: &[u8; 16]) -> [u8; 32] {
        let mut seed = [1; 32];
        seed[..16].copy_from_slice(request_id);
        seed
    }
}

/// All ways in which code is made.
fn forms() -> impl Iterator<Item = CodeForm> {
    let with = |isolation| {
        Metering::ALL.map(|metering| CodeForm { isolation, metering, ..CodeForm::PLAIN })
    };
    Isolation::ALL.into_iter().flat_map(with)
}

struct Lab {
    engines: Engines,
    artifact: Arc<Artifact>,
    calls: u128,
}

impl Lab {
    fn new(text: &str) -> Self {
        Self::of_form(text, CodeForm::PLAIN)
    }

    fn of_form(text: &str, form: CodeForm) -> Self {
        let engines = Engines::new();
        let built =
            build_as("guest.wat", text.as_bytes(), form, &engines).expect("the guest is sound");
        let artifact = Artifact::from_bytes(&built.bytes, &engines).expect("just built");
        Self { engines, artifact, calls: 0 }
    }

    fn function(&self, technique: Technique) -> Arc<Function> {
        self.function_with(technique, u64::MAX)
    }

    fn function_with(&self, technique: Technique, fuel: u64) -> Arc<Function> {
        let services = Arc::new(TestServices(AtomicU64::new(0)));
        let limits = FunctionLimits { memory_bytes_max: 64 << 20, fuel };
        let function =
            Function::register(&self.artifact, technique, &self.engines, services, limits);
        Arc::new(function.expect("the technique suits the guest"))
    }

    fn call(&mut self, mut pristine: Pristine, body: &[u8]) -> Used {
        self.calls += 1;
        let request = Request {
            head: HEAD,
            tail: b"",
            method: Method::Post,
            method_name: HeadSpan { offset: 0, size: 4 },
            target: HeadSpan { offset: 5, size: 1 },
            path: HeadSpan { offset: 5, size: 1 },
            query: HeadSpan::default(),
            authority: HeadSpan { offset: 23, size: 1 },
            is_http_1_0: false,
            body,
            request_id: self.calls.to_le_bytes(),
            deadline_ns: 1_000_000,
            peer_address: [0; 16],
            peer_port: 0,
        };
        let headers: [HeaderSpan; 0] = [];
        let size = block_size(HEAD.len(), 0, body.len());
        let address = self.artifact.manifest().area;
        encode(pristine.area(address, size).expect("mappings"), &request, headers.into_iter());
        let context =
            RequestContext { request_id: self.calls.to_le_bytes(), began_ns: 0, time_ns: u64::MAX };
        let mut progress = pristine.call(context, address, size);
        loop {
            match progress {
                Progress::Done(used) => return used,
                Progress::Suspended(running) => progress = running.resume(),
                Progress::Waiting(_) => panic!("the module has no imports that wait"),
            }
        }
    }
}

fn random_bytes(used: &Used) -> Vec<u8> {
    let CallEnd::Returned(address) = used.end() else { panic!("{:?}", used.end()) };
    match Response::read(used.memory(), *address, 1024).expect("a sound response") {
        Answer::Response(response) => response.body().to_vec(),
        Answer::Error(_) => panic!("not an error"),
    }
}

fn fresh_state(lab: &Lab, technique: Technique) -> StateSnapshot {
    lab.function(technique).start().expect("starts").inspect()
}

#[test]
fn the_template_is_the_state_after_start_up() {
    let lab = Lab::new(GUEST);
    for technique in [Technique::Restore, Technique::Cow, Technique::Jit, Technique::Aot] {
        let state = fresh_state(&lab, technique);
        assert_eq!(state.memories[0].len(), 20 * 65536, "{technique}");
        assert_eq!(state.memories[0][1024..1045], *b"state of the template", "{technique}");
        assert_eq!(state.memories[0][2048], 77, "start-up ran once ({technique})");
        assert_eq!(state.memories[1][65540..65546], *b"second", "{technique}");
        assert_eq!(state, fresh_state(&lab, Technique::Mmap), "{technique}");
    }
}

#[test]
fn each_operation_alone_is_undone() {
    for form in forms() {
        let mut lab = Lab::of_form(GUEST, form);
        let fresh = fresh_state(&lab, Technique::Restore);
        let mut slots = AnyTechnique::new(lab.function(Technique::Restore), 4);
        for operation in 0..9u8 {
            for argument in [1, 19, 255] {
                let pristine = slots.take().unwrap().pristine;
                let mut used = lab.call(pristine, &[operation, argument]);
                if operation < 6 && argument < 20 {
                    assert_ne!(used.inspect(), fresh, "operation {operation} changes something");
                }
                assert_eq!(slots.give(used), None, "operation {operation}");
                let mut again = slots.take().unwrap();
                assert_eq!(again.tier, Tier::T3);
                assert!(again.pristine.inspect() == fresh, "operation {operation}, {argument}");
                let used = lab.call(again.pristine, &[]);
                assert_eq!(slots.give(used), None);
            }
        }
    }
}

#[test]
fn traps_are_what_they_are_and_the_slot_serves_on() {
    for form in forms() {
        let mut lab = Lab::of_form(GUEST, form);
        let mut slots = AnyTechnique::new(lab.function(Technique::Restore), 1);
        for (operation, expected) in
            [(6, "unreachable"), (7, "out of bounds memory access"), (8, "call stack exhausted")]
        {
            let used = {
                let pristine = slots.take().unwrap().pristine;
                lab.call(pristine, &[0, 3, operation, 1])
            };
            let CallEnd::Trapped(error) = used.end() else { panic!("{operation} traps") };
            let text = format!("{error:?}");
            assert!(text.contains(expected), "{text}");
            assert_eq!(slots.give(used), None, "{operation}");
            let used = {
                let pristine = slots.take().unwrap().pristine;
                lab.call(pristine, &[1, 1])
            };
            assert_eq!(random_bytes(&used).len(), 8);
            assert_eq!(slots.give(used), None);
        }
    }
}

#[test]
fn a_trap_is_dropped_before_the_code_that_it_refers_to() {
    let mut lab = Lab::new(GUEST);
    for technique in [Technique::Mmap, Technique::Aot, Technique::Jit, Technique::Cow] {
        let mut slots = AnyTechnique::new(lab.function(technique), 1);
        for operation in [6, 7, 8] {
            let pristine = slots.take().unwrap().pristine;
            let used = lab.call(pristine, &[operation, 1]);
            assert!(matches!(used.end(), CallEnd::Trapped(_)), "{technique}");
            let discard = slots.give(used);
            assert_eq!(discard, Some(midge_loader::slot::Discard::ByTechnique), "{technique}");
        }
    }
}

#[test]
fn no_two_requests_get_the_same_random_bytes() {
    let mut lab = Lab::new(GUEST);
    let mut slots = AnyTechnique::new(lab.function(Technique::Restore), 1);
    let mut seen = std::collections::HashSet::new();
    for _ in 0..200 {
        let pristine = slots.take().unwrap().pristine;
        let used = lab.call(pristine, &[]);
        assert!(seen.insert(random_bytes(&used)));
        assert_eq!(slots.give(used), None);
    }
}

#[test]
fn reuse_keeps_what_the_guest_left() {
    let mut lab = Lab::new(GUEST);
    let mut slots = AnyTechnique::new(lab.function(Technique::Reuse), 1);
    let pristine = slots.take().unwrap().pristine;
    let used = lab.call(pristine, &[1, 1]);
    assert_eq!(slots.give(used), None);
    let mut again = slots.take().unwrap();
    assert_eq!(again.tier, Tier::Reuse);
    assert_ne!(again.pristine.inspect(), fresh_state(&lab, Technique::Restore));
}

#[test]
fn a_slot_with_too_many_dirty_pages_is_given_up() {
    let text = GUEST
        .replace("(memory (export \"memory\") 20 100)", "(memory (export \"memory\") 299 300)")
        .replace("(i32.const 163840)", "(i32.const 18874368)");
    let mut lab = Lab::new(&text);
    let mut slots = AnyTechnique::new(lab.function(Technique::Restore), 1);
    let pristine = slots.take().unwrap().pristine;
    let used = lab.call(pristine, &[4, 9]);
    assert_eq!(slots.give(used), Some(midge_loader::slot::Discard::Heavy));
    assert_eq!(slots.take().unwrap().tier, Tier::T2);
}

#[test]
fn several_workers_fault_at_once() {
    let lab = Lab::new(GUEST);
    let function = lab.function(Technique::Restore);
    let fresh = fresh_state(&lab, Technique::Restore);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            let (function, fresh, artifact) = (Arc::clone(&function), &fresh, &lab.artifact);
            scope.spawn(move || {
                let mut lab =
                    Lab { engines: Engines::new(), artifact: Arc::clone(artifact), calls: 0 };
                // Slots of its own each time, so that first writes keep coming.
                for round in 0..50 {
                    let mut slots = AnyTechnique::new(Arc::clone(&function), 1);
                    let pristine = slots.take().unwrap().pristine;
                    let used = lab.call(pristine, &[4, round, 0, 3, 5, 9]);
                    assert_eq!(slots.give(used), None);
                    assert!(slots.take().unwrap().pristine.inspect() == *fresh);
                }
            });
        }
    });
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    /// Any sequence of programs, restored between: the state before each is a fresh instance's, and the
    /// response is the one that a fresh instance gives.
    #[test]
    fn a_restored_slot_is_a_fresh_instance(
        programs in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..24), 1..8),
    ) {
        thread_local! {
            static LAB: std::cell::RefCell<Lab> = std::cell::RefCell::new(Lab::new(GUEST));
        }
        LAB.with_borrow_mut(|lab| {
            let fresh_function = lab.function(Technique::Cow);
            let mut slots = AnyTechnique::new(lab.function(Technique::Restore), 2);
            for (turn, program) in programs.iter().enumerate() {
                let mut restored = slots.take().unwrap().pristine;
                let mut fresh = fresh_function.start().unwrap();
                // A look sets globals back through the host, a call through the module's entry: each turn
                // has another of both.
                if turn % 2 == 0 {
                    prop_assert!(restored.inspect() == fresh.inspect(), "before {program:?}");
                }
                let mut restored = lab.call(restored, program);
                lab.calls -= 1;
                let mut fresh = lab.call(fresh, program);
                prop_assert!(restored.inspect() == fresh.inspect(), "after {program:?}");
                prop_assert_eq!(format!("{:?}", restored.end()), format!("{:?}", fresh.end()));
                let _given_up = slots.give(restored);
            }
            Ok(())
        })?;
    }
}

#[test]
fn other_forms_are_for_techniques_that_map_a_template() {
    let machine = Machine { has_swap: false, has_pagemap_scan: true };
    for form in forms().filter(|form| *form != CodeForm::PLAIN) {
        let lab = Lab::of_form(GUEST, form);
        for technique in Technique::ALL {
            let allowed = check(technique, lab.artifact.manifest(), machine);
            let has_them = matches!(
                technique,
                Technique::Aot | Technique::Mmap | Technique::Restore | Technique::Reuse
            );
            assert_eq!(allowed.is_ok(), has_them, "{technique}: {allowed:?}");
        }
        assert_eq!(choose(lab.artifact.manifest(), machine).technique, Technique::Restore);
    }
}

/// Counted in instructions a call ends at the same one each time, wherever it was preempted and however its
/// instance came to be.
#[test]
fn fuel_ends_a_call_at_the_same_instruction() {
    let form = CodeForm { metering: Metering::Fuel, ..CodeForm::PLAIN };
    let mut lab = Lab::of_form(GUEST, form);
    // Each fills 160 KiB: the call yields several times.
    let long = [4u8, 7].repeat(400);
    for body in [&b""[..], &[1, 5, 0, 3], &long] {
        let mut slots = AnyTechnique::new(lab.function(Technique::Restore), 1);
        let used = lab.call(slots.take().unwrap().pristine, body);
        let needed = used.fuel_used().expect("it is counted");
        assert!(matches!(used.end(), CallEnd::Returned(_)), "{:?}", used.end());
        assert_eq!(slots.give(used), None);
        // Some of them are enough, for the count is looked at where code branches back or is entered.
        let mut ends = Vec::new();
        for fuel in (0..=8).map(|part| 1 + (needed - 1) * part / 8) {
            let mut seen = Vec::new();
            for technique in [Technique::Restore, Technique::Mmap, Technique::Aot] {
                let mut slots = AnyTechnique::new(lab.function_with(technique, fuel), 1);
                for _ in 0..3 {
                    let used = lab.call(slots.take().unwrap().pristine, body);
                    let has_returned = matches!(used.end(), CallEnd::Returned(_));
                    assert!(has_returned || matches!(used.end(), CallEnd::FuelExhausted));
                    seen.push((has_returned, used.memory().to_vec()));
                    slots.give(used);
                }
            }
            // Random bytes and the request's block, with its id, are the only difference.
            for (_, memory) in &mut seen {
                memory[3000..3008].fill(0);
                memory[65_536..131_072].fill(0);
            }
            assert!(seen.iter().all(|end| *end == seen[0]), "{fuel} of {needed}");
            ends.push(seen[0].0);
        }
        assert_eq!((ends[0], ends[8]), (false, true), "{ends:?}");
        assert!(ends.is_sorted(), "{ends:?}");
    }
}

/// Calls another instance whenever the guest logs, as a host function might.
struct CallsWithin(Mutex<Option<Box<dyn FnMut() + Send>>>);

impl Services for CallsWithin {
    fn log(&self, _: &[u8; 16], _: Level, _: &[u8]) {
        if let Some(call) = &mut *self.0.lock().expect("nobody panics with it") {
            call();
        }
    }
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

#[test]
fn faults_nest_when_a_host_function_calls_another_instance() {
    thread_local! {
        static INNER: std::cell::RefCell<Option<(Lab, AnyTechnique)>> = const { std::cell::RefCell::new(None) };
    }
    let inner = Lab::new(GUEST);
    let slots = AnyTechnique::new(inner.function(Technique::Restore), 1);
    INNER.set(Some((inner, slots)));
    // Writes a page, lets the host call the other guest, and writes another page.
    let outer_text = r#"(module
      (import "midge" "log" (func $log (param i32 i32 i32)))
      (memory (export "memory") 20)
      (data (i32.const 64) "MDGE\01\00\00\00\00\00\01\00\00\00\01\00")
      (func (export "midge_contract") (result i32) i32.const 64)
      (func (export "midge_handle") (param i32 i32) (result i32)
        (i32.store (i32.const 200000) (i32.const -1))
        (call $log (i32.const 0) (i32.const 0) (i32.const 0))
        (i32.store (i32.const 300000) (i32.const -1))
        (i32.store (i32.const 3072) (i32.const 200))
        (i32.const 3072)))"#;
    let mut lab = Lab::new(outer_text);
    let services = Arc::new(CallsWithin(Mutex::new(None)));
    let limits = FunctionLimits::of_memory(64 << 20);
    let given: Arc<dyn Services> = Arc::clone(&services) as _;
    let function =
        Function::register(&lab.artifact, Technique::Restore, &lab.engines, given, limits).unwrap();
    let mut outer = AnyTechnique::new(Arc::new(function), 1);
    let fresh = fresh_state(&lab, Technique::Restore);
    // The first calls of both teach their slots; the later ones write to pages that are watched.
    for page in [3, 4, 5] {
        *services.0.lock().unwrap() = Some(Box::new(move || {
            INNER.with_borrow_mut(|inner| {
                let (lab, slots) = inner.as_mut().unwrap();
                let pristine = slots.take().unwrap().pristine;
                let used = lab.call(pristine, &[0, page, 5, page]);
                assert!(matches!(used.end(), CallEnd::Returned(_)), "{:?}", used.end());
                assert_eq!(slots.give(used), None);
            });
        }));
        let pristine = outer.take().unwrap().pristine;
        let used = lab.call(pristine, &[]);
        assert!(matches!(used.end(), CallEnd::Returned(_)), "{:?}", used.end());
        assert_eq!(used.memory()[200_000..200_004], [255; 4]);
        assert_eq!(used.memory()[300_000..300_004], [255; 4]);
        assert_eq!(outer.give(used), None);
        let mut again = outer.take().unwrap().pristine;
        assert!(again.inspect() == fresh, "the outer one");
        assert_eq!(outer.give(lab.call(again, &[])), None);
    }
    let (lab, mut slots) = INNER.take().unwrap();
    let state = slots.take().unwrap().pristine.inspect();
    assert!(state == fresh_state(&lab, Technique::Restore), "the inner one");
}
