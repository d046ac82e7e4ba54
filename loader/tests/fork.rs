//! After a fork two processes have the same slots: neither finds in its own what the other wrote, or what was
//! written before. A fork makes every page of a private mapping shared and read-only underneath, which a host
//! that asks the kernel what was written must not take for pristine.
#![expect(unsafe_code, reason = "forks")]

use std::sync::Arc;

use midge_abi::imports::Level;
use midge_loader::artifact::Artifact;
use midge_loader::build::build;
use midge_loader::context::{RequestContext, Services};
use midge_loader::drive::CallEnd;
use midge_loader::engine::Engines;
use midge_loader::function::{Function, FunctionLimits};
use midge_loader::slot::Progress;
use midge_loader::start::choose::{Machine, check};
use midge_loader::start::{AnyTechnique, StartTechnique, Technique};

/// Writes to 40 pages, every other one, to a grown page and to a global, and traps if any of it was written
/// before.
const GUEST: &str = r#"(module
  (memory (export "memory") 8 64)
  (global $count (mut i32) (i32.const 0))
  (data (i32.const 32) "MDGE\01\00\00\00\00\10\00\00\00\10\00\00")
  (func (export "midge_contract") (result i32) i32.const 32)
  (func (export "midge_handle") (param $address i32) (param i32) (result i32)
    (local $page i32)
    (if (global.get $count) (then unreachable))
    (global.set $count (i32.const 1))
    (if (i32.ne (memory.size) (i32.const 8)) (then unreachable))
    (loop $next
      (local.set $address (i32.add (i32.const 16384) (i32.mul (local.get $page) (i32.const 8192))))
      (if (i32.load (local.get $address)) (then unreachable))
      (i32.store (local.get $address) (i32.const 1))
      (local.set $page (i32.add (local.get $page) (i32.const 1)))
      (br_if $next (i32.lt_u (local.get $page) (i32.const 40))))
    (drop (memory.grow (i32.const 1)))
    (if (i32.load (i32.const 524288)) (then unreachable))
    (i32.store (i32.const 524288) (i32.const 1))
    i32.const 0))"#;

/// Calls of each process.
const CALLS: u32 = 50;

struct Silent;

impl Services for Silent {
    fn log(&self, _request_id: &[u8; 16], _level: Level, _line: &[u8]) {}

    fn wall_ns(&self) -> u64 {
        0
    }

    fn monotonic_ns(&self) -> u64 {
        0
    }

    fn seed(&self, _request_id: &[u8; 16]) -> [u8; 32] {
        [0; 32]
    }
}

/// Tells whether every one of so many calls found a fresh instance.
fn are_pristine(technique: &mut AnyTechnique, calls: u32) -> bool {
    (0..calls).all(|_| {
        let started = technique.take().expect("an instance starts");
        let context = RequestContext { request_id: [0; 16], began_ns: 0, time_ns: u64::MAX };
        let Progress::Done(used) = started.pristine.call(context, 4096, 0) else { return false };
        let has_returned = matches!(used.end(), CallEnd::Returned(_));
        technique.give(used);
        has_returned
    })
}

#[test]
fn both_sides_of_a_fork_stay_pristine() {
    let engines = Engines::new();
    let built = build("guest.wat", GUEST.as_bytes(), &engines).expect("the guest is sound");
    let artifact = Artifact::from_bytes(&built.bytes, &engines).expect("just built");
    let machine = Machine { has_swap: false, has_pagemap_scan: true };
    let mut tried = 0;
    for technique in Technique::ALL.into_iter().filter(|other| *other != Technique::Reuse) {
        if check(technique, artifact.manifest(), machine).is_err() {
            continue;
        }
        tried += 1;
        let limits = FunctionLimits::of_memory(1 << 20);
        let function = Function::register(&artifact, technique, &engines, Arc::new(Silent), limits);
        let function = Arc::new(function.expect("checked above"));
        let mut slots = AnyTechnique::new(function, 4);
        assert!(are_pristine(&mut slots, 3), "{technique}: before the fork");
        // SAFETY: the child calls guests, whose instances are this thread's alone, and ends without running
        // destructors; the C library's allocator is usable after a fork.
        let child = unsafe { libc::fork() };
        assert!(0 <= child, "a process can be made");
        if child == 0 {
            let status = i32::from(!are_pristine(&mut slots, CALLS));
            // SAFETY: ends the child here.
            unsafe { libc::_exit(status) };
        }
        let is_parent_pristine = are_pristine(&mut slots, CALLS);
        let mut status = 0;
        // SAFETY: waits for our own child; the status is ours.
        let waited = unsafe { libc::waitpid(child, &raw mut status, 0) };
        assert_eq!((waited, status), (child, 0), "{technique}: in the child");
        assert!(is_parent_pristine, "{technique}: in the parent");
        assert!(are_pristine(&mut slots, CALLS), "{technique}: after the child");
    }
    assert!(5 <= tried, "most techniques suit the guest: {tried}");
}
