//! Components that the engine's own runtime runs, because linking does not hold them.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use midge_loader::artifact::Artifact;
use midge_loader::build::build_unlinked;
use midge_loader::embed::{Embedded, Limits, Output, Silent};
use midge_loader::engine::Engines;

fn of(bytes: &[u8]) -> Embedded {
    let engines = Arc::new(Engines::new());
    let built = build_unlinked("guest.wat", bytes, &engines).expect("the engine runs it");
    let artifact = Artifact::from_bytes(&built.bytes, &engines).expect("just built");
    let limits = Limits { deadline: Duration::from_secs(5), ..Limits::default() };
    Embedded::of_artifact(&artifact, &engines, Arc::new(Silent::new()), limits)
        .expect("an instance can be had")
}

fn read(path: &str) -> Vec<u8> {
    std::fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).expect("it is in the tree")
}

#[test]
fn a_component_answers() {
    let mut guest = of(&read("../bench/src/peers/wasmtime.wat"));
    for _ in 0..2 {
        let output = guest.call(b"").unwrap();
        assert_eq!(output, Output { status: 200, body: b"sixteen bytes ok".to_vec() });
    }
}

#[test]
fn a_component_of_a_compiler_answers() {
    let mut guest = of(&read("../examples/component/component.wasm"));
    for _ in 0..2 {
        let output = guest.call(b"").unwrap();
        assert_eq!(output.status, 200);
        println!("{}", String::from_utf8_lossy(&output.body));
    }
}
