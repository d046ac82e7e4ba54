//! Goal: a proof finds every kind of state that a technique leaves behind, and says who wrote it.
//! Method: a guest whose requests each change one kind of state, driven under `reuse`, which undoes
//! nothing; and the same under techniques that isolate, where nothing may be found.

use midge_loader::engine::Engines;
use midge_loader::proof::{Difference, Proof, ProofSettings, Sent, Subject};
use midge_loader::start::Technique;

/// Byte 0 of the request says what is done: see `check` below.
const GUEST: &str = r#"(module
  (import "midge" "log" (func $log (param i32 i32 i32)))
  (import "midge" "clock_wall_ns" (func $wall (result i64)))
  (import "midge" "random" (func $random (param i32 i32)))
  (memory (export "memory") 2 9)
  (memory $second 1)
  (table $table 3 9 funcref)
  (global $count (mut i32) (i32.const 5))
  (global $reference (mut funcref) (ref.func $one))
  (data (i32.const 64) "MDGE\01\00\00\00\00\00\01\00\00\00\01\00")
  (data $segment "passive")
  (elem (i32.const 0) func $one $two)
  (elem $elements func $two $one)
  (func $one) (func $two)
  (func (export "midge_contract") (result i32) i32.const 64)
  (func $store (i32.store8 $second (i32.const 0x1234) (i32.const 7)))
  (func $grow (drop (memory.grow (i32.const 1))))
  (func $step (param $what i32)
    (block $9 (block $8 (block $7 (block $6 (block $5 (block $4 (block $3 (block $2 (block $1 (block $0
      (br_table $0 $1 $2 $3 $4 $5 $6 $7 $8 $9 (local.get $what)))
      (global.set $count (i32.add (global.get $count) (i32.const 1))) return)
      (call $store) return)
      (call $grow) return)
      (table.set $table (i32.const 0) (ref.func $two)) return)
      (drop (table.grow $table (ref.null func) (i32.const 1))) return)
      (data.drop $segment) return)
      (elem.drop $elements) return)
      (global.set $reference (ref.func $two)) return)
      (call $random (i32.const 2048) (i32.const 8)) return)
    (call $log (i32.const 1) (i32.const 0) (i32.const 8))
    (i64.store (i32.const 1024) (call $wall)))
  (func (export "midge_handle") (param $request i32) (param i32) (result i32)
    (call $step (i32.load8_u (local.get $request)))
    (i32.store (i32.const 3072) (i32.const 200))
    (i32.const 3072)))"#;

const SLICES_MAX: u64 = 50;

fn proof(text: &str, technique: Technique, engines: &Engines) -> Proof {
    let subject = Subject::of_module("guest.wat", text.as_bytes(), engines).expect("sound");
    let settings =
        ProofSettings { technique, memory_bytes_max: 1 << 20, slices_max: SLICES_MAX, seed: 1 };
    Proof::new(subject, settings, engines).expect("it can be registered")
}

/// Sends requests until something differs, and returns it with what was sent.
fn drive(proof: &mut Proof, whats: &[u8]) -> (Option<Difference>, Vec<Sent>) {
    let mut sent = Vec::new();
    for (&what, call) in whats.iter().zip(0..) {
        let block = vec![what; 200];
        sent.push(Sent { call, block: block.clone() });
        let difference = proof.call(&block).expect("it fits");
        if difference.is_some() {
            return (difference, sent);
        }
    }
    (None, sent)
}

/// The guest without the stores that each request makes.
fn quiet() -> String {
    GUEST
        .replace("(i64.store (i32.const 1024) (call $wall))", "(drop (call $wall))")
        .replace("(i32.store (i32.const 3072) (i32.const 200))", "")
}

#[test]
fn reuse_differs_in_every_kind_of_state_and_the_writer_is_named() {
    let engines = Engines::new();
    for (what, spot, writer) in [
        (0, "global 0 `count`", "step"),
        (1, "memory 1 at 0x1234", "store"),
        (2, "size of memory 0", "grow"),
        (3, "table 0, element 0", "step"),
        (4, "size of table 0", "step"),
        (5, "data segment 1", "step"),
        (6, "element segment 1", "step"),
        (7, "global 1 `reference`", "step"),
        (8, "memory 0 at 0x800", "midge.random"),
    ] {
        let mut proof = proof(&quiet(), Technique::Reuse, &engines);
        let (difference, sent) = drive(&mut proof, &[what, what]);
        let difference = difference.expect("something was left");
        assert_eq!(difference.spot.to_string(), spot, "{difference:?}");
        assert!(difference.is_before_call);
        let found = proof.writer(&difference, &sent, &engines).unwrap().expect("a writer");
        assert_eq!((found.name.as_deref(), found.call), (Some(writer), 0), "{spot}");
    }
}

#[test]
fn a_request_that_was_left_is_the_hosts_writing() {
    let engines = Engines::new();
    let mut proof = proof(&quiet(), Technique::Reuse, &engines);
    let (difference, sent) = drive(&mut proof, &[99, 99]);
    let difference = difference.expect("the request lies in the memory");
    assert_eq!(difference.spot.to_string(), "memory 0 at 0x10000");
    let writer = proof.writer(&difference, &sent, &engines).unwrap().expect("a writer");
    assert_eq!(writer.function, None);
}

#[test]
fn techniques_that_isolate_are_pristine() {
    let engines = Engines::new();
    let all: Vec<u8> = (0..10).chain(0..10).collect();
    // Tables and segments that change are not for `restore`: what it takes is what is left without them.
    let held = GUEST
        .replace("(table.set $table (i32.const 0) (ref.func $two))", "")
        .replace("(drop (table.grow $table (ref.null func) (i32.const 1)))", "")
        .replace("(data.drop $segment)", "")
        .replace("(elem.drop $elements)", "");
    for (technique, guest) in [
        (Technique::Restore, held.as_str()),
        (Technique::Mmap, GUEST),
        (Technique::Aot, GUEST),
        (Technique::Cow, GUEST),
        (Technique::Jit, GUEST),
    ] {
        let mut proof = proof(guest, technique, &engines);
        let (difference, _) = drive(&mut proof, &all);
        assert_eq!(difference, None, "{technique}");
        let compared = proof.compared();
        assert_eq!((compared.calls, compared.snapshots), (20, 40), "{technique}");
        assert_eq!(compared.restores, if technique == Technique::Restore { 19 } else { 0 });
        assert!(0 < compared.records && 0 < compared.responses && 0 < compared.table_elements);
    }
}

#[test]
fn start_up_is_run_anew_on_the_fresh_side() {
    let engines = Engines::new();
    let guest = GUEST.replace(
        "(func $one)",
        "(func $start (i32.store (i32.const 4000) (i32.const 1)) (global.set $count (i32.const 9)))
         (start $start) (func $one)",
    );
    // With its start function it resists a snapshot, so techniques with templates are not for it.
    let (difference, _) = drive(&mut proof(&guest, Technique::Jit, &engines), &[0, 1, 2]);
    assert_eq!(difference, None);
}

#[test]
fn endless_requests_are_stopped_and_not_compared() {
    let engines = std::sync::Arc::new(Engines::new());
    let guest =
        GUEST.replace("(call $random (i32.const 2048) (i32.const 8)) return)", "(loop (br 0)))");
    let mut proof = proof(&guest, Technique::Mmap, &engines);
    let (done, wait) = std::sync::mpsc::channel::<()>();
    std::thread::scope(|scope| {
        let engines = std::sync::Arc::clone(&engines);
        scope.spawn(move || {
            let tick = std::time::Duration::from_millis(1);
            while wait.recv_timeout(tick) == Err(std::sync::mpsc::RecvTimeoutError::Timeout) {
                engines.tick();
            }
        });
        let (difference, _) = drive(&mut proof, &[8, 0]);
        assert_eq!(difference, None);
        assert_eq!((proof.compared().deadlines, proof.compared().calls), (1, 2));
        drop(done);
    });
}

#[test]
fn a_request_that_does_not_fit_is_refused() {
    let engines = Engines::new();
    let mut proof = proof(GUEST, Technique::Cow, &engines);
    let refused = proof.call(&vec![0; 65537]).unwrap_err();
    assert!(refused.to_string().contains("65537 bytes"), "{refused}");
}

#[test]
fn a_start_outlasts_its_slice() {
    let engines = std::sync::Arc::new(Engines::new());
    // Elements of tables are put in place by code of the engine's making, which looks at the epoch too.
    let techniques = [Technique::Mmap, Technique::Cow];
    let mut proofs = techniques.map(|technique| proof(GUEST, technique, &engines));
    let (done, wait) = std::sync::mpsc::channel::<()>();
    std::thread::scope(|scope| {
        let engines = std::sync::Arc::clone(&engines);
        scope.spawn(move || {
            // As if slices were over at once: a worker that is preempted meets the same.
            while wait.try_recv() == Err(std::sync::mpsc::TryRecvError::Empty) {
                engines.tick();
            }
        });
        for proof in &mut proofs {
            assert_eq!(drive(proof, &[1; 200]).0, None);
        }
        drop(done);
    });
}
