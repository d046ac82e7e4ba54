//! Goal: start-up that runs in each instance cannot leave a state that the builder has not checked.
//! Method: a guest that finds out where it runs, by growing a memory beyond what a build allows.

use std::sync::Arc;

use midge_abi::imports::Level;
use midge_loader::artifact::Artifact;
use midge_loader::build::{STARTUP_MEMORY_BYTES_MAX, build};
use midge_loader::context::Services;
use midge_loader::engine::Engines;
use midge_loader::function::{Function, FunctionLimits};
use midge_loader::instance::StartError;
use midge_loader::start::Technique;

/// The area lies at 16 MiB, in memory that is there only if the probe of 1.25 GiB fails.
const GUEST: &str = r#"(module
  (memory (export "memory") 2)
  (memory $probe 0)
  (table 1 funcref)
  (data (i32.const 64) "MDGE\01\00\00\00\00\00\00\01\00\00\01\00")
  (func $start
    (table.set 0 (i32.const 0) (ref.null func))
    (if (i32.eq (memory.grow $probe (i32.const 20000)) (i32.const -1))
      (then (drop (memory.grow 0 (i32.const 512))))))
  (start $start)
  (func (export "midge_contract") (result i32) (i32.const 64))
  (func (export "midge_handle") (param i32 i32) (result i32) (i32.const 0)))"#;

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

#[test]
fn an_area_that_is_not_there_in_an_instance_is_refused() {
    let engines = Engines::new();
    let built = build("probe.wat", GUEST.as_bytes(), &engines).unwrap();
    assert!(!built.manifest.is_preinitialised, "its start-up runs in each instance");
    let artifact = Artifact::from_bytes(&built.bytes, &engines).unwrap();
    let start = |memory_bytes_max| {
        let limits = FunctionLimits::of_memory(memory_bytes_max);
        let services = Arc::new(Silent);
        Function::register(&artifact, Technique::Cow, &engines, services, limits).unwrap().start()
    };
    start(STARTUP_MEMORY_BYTES_MAX).expect("where the limits are a build's, it is as it was built");
    let refused = start(2 * STARTUP_MEMORY_BYTES_MAX).err().expect("its area is not there");
    assert!(matches!(refused, StartError::Area { memory_bytes: 131_072 }), "{refused}");
}
