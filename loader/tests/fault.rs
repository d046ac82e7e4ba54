//! A bug of the host is no fault of a guest: it ends the process by its signal, also while a call is active.
#![expect(unsafe_code, reason = "makes the bug: a read of an address that is not mapped")]

use std::os::unix::process::ExitStatusExt;
use std::process::Command;
use std::sync::Arc;

use midge_abi::imports::Level;
use midge_loader::artifact::Artifact;
use midge_loader::build::build;
use midge_loader::context::{RequestContext, Services};
use midge_loader::engine::Engines;
use midge_loader::function::{Function, FunctionLimits};
use midge_loader::start::Technique;

/// Logs, so that the host's code runs within its call.
const GUEST: &str = r#"(module
  (import "midge" "log" (func $log (param i32 i32 i32)))
  (memory (export "memory") 1)
  (data (i32.const 32) "MDGE\01\00\00\00\00\10\00\00\00\10\00\00")
  (func (export "midge_contract") (result i32) i32.const 32)
  (func (export "midge_handle") (param i32 i32) (result i32)
    (call $log (i32.const 3) (i32.const 64) (i32.const 1)) i32.const 0))"#;

/// Set in the process that is to die.
const CHILD: &str = "MIDGE_TEST_FAULT_CHILD";
const SIGSEGV: i32 = 11;

/// Its log has a bug.
struct Buggy;

impl Services for Buggy {
    fn log(&self, _request_id: &[u8; 16], _level: Level, _line: &[u8]) {
        // SAFETY: there is none: nothing is mapped at the start of the address space. This is the bug.
        unsafe { std::ptr::read_volatile(std::ptr::without_provenance::<u8>(64)) };
    }

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

fn call_with_the_bug() {
    let engines = Engines::new();
    let built = build("guest.wat", GUEST.as_bytes(), &engines).expect("the guest is sound");
    let artifact = Artifact::from_bytes(&built.bytes, &engines).expect("just built");
    let limits = FunctionLimits::of_memory(1 << 20);
    let services = Arc::new(Buggy);
    let function = Function::register(&artifact, Technique::Restore, &engines, services, limits);
    let pristine = function.expect("eligible").start().expect("starts");
    let context = RequestContext { request_id: [0; 16], began_ns: 0, time_ns: u64::MAX };
    drop(pristine.call(context, 4096, 0));
}

#[test]
fn a_bug_of_the_host_ends_the_process_by_its_signal() {
    if std::env::var_os(CHILD).is_some() {
        return call_with_the_bug();
    }
    let program = std::env::current_exe().expect("a test is a program");
    let child = Command::new(program)
        .args(["--exact", "a_bug_of_the_host_ends_the_process_by_its_signal"])
        .env(CHILD, "1")
        .output()
        .expect("the test can be run again");
    assert_eq!(child.status.signal(), Some(SIGSEGV), "{child:?}");
}
