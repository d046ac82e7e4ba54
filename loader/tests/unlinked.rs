//! Components that the engine's own runtime runs, because linking does not hold them.
//!
//! What linked components do is compared with it in `components.rs`. Here is what cannot be linked: several components
//! in one, resources of their own, and WASI 0.3.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use midge_loader::artifact::Artifact;
use midge_loader::build::{BuildError, Built, build, build_unlinked};
use midge_loader::embed::{EmbedError, Embedded, Limits, Output, Silent};
use midge_loader::engine::Engines;
use midge_loader::start::Technique;
use midge_loader::start::choose::{Machine, check};

#[path = "wit/guests.rs"]
mod guests;
use guests::{COMPOSED, echo, hello, service};

fn built(bytes: &[u8], engines: &Engines) -> Built {
    build("guest.wat", bytes, engines).expect("the engine runs it")
}

fn start(built: &Built, engines: &Arc<Engines>) -> Embedded {
    let artifact = Artifact::from_bytes(&built.bytes, engines).expect("just built");
    let limits = Limits { deadline: Duration::from_millis(300), ..Limits::default() };
    Embedded::of_artifact(&artifact, engines, Arc::new(Silent::new()), limits)
        .expect("an instance can be had")
}

fn of(bytes: &[u8]) -> Embedded {
    let engines = Arc::new(Engines::new());
    let built = built(bytes, &engines);
    assert!(built.manifest.unlinked.is_some());
    start(&built, &engines)
}

fn read(path: &str) -> Vec<u8> {
    std::fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).expect("it is in the tree")
}

#[test]
fn a_component_of_a_compiler_passes_bodies_on() {
    let engines = Arc::new(Engines::new());
    let component = read("../examples/component/component.wasm");
    let built = build_unlinked("component.wasm", &component, &engines).unwrap();
    let mut guest = start(&built, &engines);
    for _ in 0..2 {
        assert_eq!(guest.call(b"").unwrap().status, 200);
    }
}

#[test]
fn components_within_a_component_call_each_other() {
    let engines = Arc::new(Engines::new());
    let built = built(COMPOSED.as_bytes(), &engines);
    let why = built.manifest.unlinked.clone().expect("it is not linked");
    assert!(why.contains("resources of its own"), "{why}");
    let refused = check(Technique::Restore, &built.manifest, Machine::of_this_process());
    assert!(refused.unwrap_err().to_string().contains("resources of its own"));
    let mut guest = start(&built, &engines);
    assert!(matches!(guest.technique(), Technique::Pool | Technique::PoolScan));
    for _ in 0..3 {
        // The component within counts its calls: there is one in each instance.
        let output = guest.call(b"").unwrap();
        assert_eq!(output, Output { status: 200, body: b"AIXTEEN BYTES OK".to_vec() });
    }
}

#[test]
fn a_service_of_wasi_0_3_answers() {
    let mut guest = of(&hello());
    for _ in 0..3 {
        let output = guest.call(b"").unwrap();
        assert_eq!(output, Output { status: 200, body: b"hello1".to_vec() });
    }
}

#[test]
fn a_service_of_wasi_0_3_passes_a_body_on() {
    let mut guest = of(&echo());
    for size in [0, 5, 70_000, 300_000] {
        let body: Vec<u8> = (0..size).map(|place| u8::try_from(place % 251).unwrap()).collect();
        let output = guest.call(&body).unwrap();
        assert_eq!(output.status, 200);
        assert!(output.body == body, "{} of {size}", output.body.len());
    }
}

#[test]
fn what_a_service_does_wrong_is_its_own_loss() {
    let mut guest = of(&service("unreachable", "unreachable"));
    assert!(matches!(guest.call(b""), Err(EmbedError::Trapped(_))));
    let mut guest = of(&service("(loop $more (br $more)) (i32.const 0)", "unreachable"));
    assert!(matches!(guest.call(b""), Err(EmbedError::DeadlineExceeded)));
    // It ends without an answer.
    let mut guest = of(&service("(i32.const 0)", "unreachable"));
    let ended = guest.call(b"");
    assert!(matches!(ended, Err(EmbedError::Trapped(_) | EmbedError::Failed(_))), "{ended:?}");
    // It waits for what never comes.
    let waits = "(i32.or (i32.const 2) (i32.shl (global.get $waits) (i32.const 4)))";
    let ended = of(&service(waits, "unreachable")).call(b"");
    assert!(matches!(ended, Err(EmbedError::Trapped(_))), "{ended:?}");
    // Its answer is an error.
    let error =
        "(call $return (i32.const 1) (i32.const 38) (i32.const 0) (i64.const 0) (i32.const 0)
        (i32.const 0) (i32.const 0) (i32.const 0)) (i32.const 0)";
    let ended = of(&service(error, "unreachable")).call(b"");
    assert!(matches!(ended, Err(EmbedError::Failed(_))), "{ended:?}");
    // It answers and traps after it: the answer had not gone out.
    let late = "(call $answer) unreachable";
    let ended = of(&service(late, "unreachable")).call(b"");
    assert!(matches!(ended, Err(EmbedError::Trapped(_))), "{ended:?}");
}

#[test]
fn what_the_engine_does_not_run_is_refused_with_both_reasons() {
    let refused = |component: &str| {
        let error = build("guest.wat", component.as_bytes(), &Engines::new()).err();
        let error = error.unwrap_or_else(|| panic!("built: {component}"));
        assert!(matches!(error, BuildError::Component { .. }), "{error:?}");
        let source = std::error::Error::source(&error).map(ToString::to_string);
        format!("{error}: {}", source.unwrap_or_default())
    };
    let text = refused("(component (import \"a:b/c\" (instance (export \"f\" (func)))))");
    assert!(text.contains("imports `a:b/c`") && text.contains("nor does the engine"), "{text}");
    let nothing = build("guest.wat", b"(component)", &Engines::new()).err();
    let nothing = nothing.expect("there is nothing to call").to_string();
    assert!(nothing.contains("exports nothing") && !nothing.contains("nor does"), "{nothing}");
}
