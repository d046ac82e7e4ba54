//! Traps with lines of the source: of functions in the contract, of programs and of components, by every technique.
//!
//! The guests are the sources in `tests/guests/lines`, compiled (`fuzz/README.md` says how), each of which divides by
//! zero in a function that the compiler has put into another.

use std::sync::Arc;

use midge_abi::manifest::{CodeForm, Isolation, Manifest, Metering, Traces};
use midge_abi::request::{HeadSpan, Request, block_size, encode};
use midge_loader::artifact::{Artifact, ArtifactError};
use midge_loader::build::{Built, build_as};
use midge_loader::collect::Collector;
use midge_loader::container::{self, SectionBytes, SectionKind};
use midge_loader::context::RequestContext;
use midge_loader::drive::CallEnd;
use midge_loader::embed::Silent;
use midge_loader::engine::Engines;
use midge_loader::function::{Function, FunctionLimits};
use midge_loader::start::choose::{Machine, check};
use midge_loader::start::{AnyTechnique, StartTechnique, Technique};
use midge_loader::trace::describe;
use wasm_encoder::{CustomSection, Section};

#[path = "wit/guests.rs"]
mod guests;

const CONTRACT: &[u8] = include_bytes!("../../fuzz/corpus/lines/seed-contract");
const PROGRAM: &[u8] = include_bytes!("../../fuzz/corpus/lines/seed-program");
const COMPONENT: &[u8] = include_bytes!("../../fuzz/corpus/lines/seed-component");
const WITH_LINES: CodeForm = CodeForm { traces: Traces::Lines, ..CodeForm::PLAIN };

const OF_CONTRACT: &str = "wasm trap: integer divide by zero
half at contract.c:5:18
price at contract.c:10:12
handle at contract.c:16:9
midge_handle at contract.c:20:1";
const OF_PROGRAM: &str = "wasm trap: integer divide by zero
divided at program.c:5:18
share at program.c:9:12
start at program.c:16:13
guest.run
command";
const OF_COMPONENT: &str = "wasm trap: integer divide by zero
divided at component.c:5:18
share at component.c:9:12
handle at component.c:18:13
guest.handle
midge_handle";

fn built(module: &[u8], form: CodeForm) -> (Engines, Built) {
    let engines = Engines::new();
    let built = build_as("guest.wasm", module, form, &engines).expect("it is sound");
    (engines, built)
}

fn opened(module: &[u8], form: CodeForm) -> (Engines, Arc<Artifact>) {
    let (engines, built) = built(module, form);
    let artifact = Artifact::from_bytes(&built.bytes, &engines).expect("just built");
    (engines, artifact)
}

/// Calls a guest, which traps, and returns what is told of it.
fn told(engines: &Engines, artifact: &Arc<Artifact>, technique: Technique) -> String {
    let limits = FunctionLimits { memory_bytes_max: 16 << 20, fuel: 1_000_000 };
    let function =
        Function::register(artifact, technique, engines, Arc::new(Silent::new()), limits);
    let function = Arc::new(function.expect("its code is loaded"));
    let mut slots = AnyTechnique::new(Arc::clone(&function), 1);
    let head = b"GET / HTTP/1.1\r\n\r\n";
    let span = |offset, size| HeadSpan { offset, size };
    let request = Request {
        head,
        tail: b"",
        method: midge_abi::contract::Method::Get,
        method_name: span(0, 3),
        target: span(4, 1),
        path: span(4, 1),
        query: span(0, 0),
        authority: span(0, 0),
        is_http_1_0: false,
        body: &[],
        request_id: [0; 16],
        deadline_ns: u64::MAX,
        peer_address: [0; 16],
        peer_port: 0,
    };
    let mut pristine = slots.take().expect("an instance starts").pristine;
    let size = block_size(head.len(), 0, 0);
    encode(pristine.area(function.area(), size).expect("mappings"), &request, [].into_iter());
    let context = RequestContext { request_id: [0; 16], began_ns: 0, time_ns: u64::MAX };
    let used = Collector::new(&[], 1 << 20).run(pristine.call(context, function.area(), size));
    let CallEnd::Trapped(trap) = used.end() else { panic!("it traps") };
    describe(trap, function.artifact())
}

fn allowed(artifact: &Artifact) -> impl Iterator<Item = Technique> {
    let machine = Machine::of_this_process();
    Technique::ALL.into_iter().filter(move |it| check(*it, artifact.manifest(), machine).is_ok())
}

#[test]
fn traps_tell_lines_by_every_technique() {
    let component = guests::handler_of(COMPONENT);
    for (module, expected) in [
        (CONTRACT, OF_CONTRACT),
        (PROGRAM, OF_PROGRAM),
        (COMPONENT, OF_COMPONENT),
        (&component, OF_COMPONENT),
    ] {
        let (engines, artifact) = opened(module, WITH_LINES);
        assert!(3 <= allowed(&artifact).count());
        for technique in allowed(&artifact) {
            assert_eq!(told(&engines, &artifact, technique), expected, "{technique}");
        }
    }
}

#[test]
fn traps_tell_lines_in_every_form_of_code() {
    for isolation in Isolation::ALL {
        for metering in Metering::ALL {
            let form = CodeForm { isolation, metering, ..WITH_LINES };
            let (engines, artifact) = opened(PROGRAM, form);
            assert_eq!(artifact.manifest().form(), form);
            assert_eq!(told(&engines, &artifact, Technique::Restore), OF_PROGRAM);
        }
    }
}

#[test]
fn without_asking_traps_tell_functions_and_nothing_is_kept() {
    let (engines, artifact) = opened(CONTRACT, CodeForm::PLAIN);
    assert!(artifact.lines().is_none());
    assert!(artifact.sections().iter().all(|section| section.kind != SectionKind::Lines));
    let functions = "wasm trap: integer divide by zero\nprice\nmidge_handle";
    assert_eq!(told(&engines, &artifact, Technique::Restore), functions);
}

#[test]
fn a_module_without_lines_is_built_as_if_nobody_had_asked() {
    let text = include_str!("../../tests/guests/hello.wat");
    let (_, plain) = built(text.as_bytes(), CodeForm::PLAIN);
    assert_eq!(plain.no_lines, None);
    let (_, asked) = built(text.as_bytes(), WITH_LINES);
    assert!(asked.no_lines.is_some_and(|reason| reason.contains("no DWARF")));
    assert_eq!(asked.manifest.traces, Traces::Functions);
    assert_eq!(asked.bytes, plain.bytes);
}

#[test]
fn debug_information_that_cannot_be_read_is_told_and_left_out() {
    let plain =
        wat::parse_bytes(include_bytes!("../../tests/guests/hello.wat")).expect("it is sound");
    for (sections, expected) in [
        (&[("external_debug_info", &b"\x05a.dbg"[..])][..], "in another file"),
        (&[(".debug_info", &b"garbage"[..]), (".debug_line", b"garbage")], "cannot be read"),
        (&[(".debug_info", &b""[..]), (".debug_line", b"")], "no line of its code"),
        (&[(".debug_line", &b""[..])], "no DWARF"),
    ] {
        let mut module = plain.to_vec();
        for (name, data) in sections {
            CustomSection { name: (*name).into(), data: (*data).into() }.append_to(&mut module);
        }
        let (_, built) = built(&module, WITH_LINES);
        let reason = built.no_lines.expect("there are none");
        assert!(reason.contains(expected), "{reason}");
        assert_eq!(built.manifest.traces, Traces::Functions);
    }
}

#[test]
fn a_component_that_the_engine_runs_has_none_and_is_told() {
    let text = guests::COMPOSED;
    let (_, built) = built(text.as_bytes(), WITH_LINES);
    assert!(built.manifest.unlinked.is_some());
    assert!(built.no_lines.is_some_and(|reason| reason.contains("component runtime")));
}

/// Code with a map and code without are another engine's each: whatever a manifest says.
#[test]
fn code_of_the_other_kind_is_refused() {
    for form in [WITH_LINES, CodeForm::PLAIN] {
        let (engines, built) = built(CONTRACT, form);
        let (engine, sections) = container::read(&built.bytes).expect("just built");
        let changed = |section: container::Section| {
            let bytes = built.bytes[section.range].to_vec();
            let SectionKind::Manifest = section.kind else {
                return SectionBytes { kind: section.kind, bytes };
            };
            let mut manifest = Manifest::decode(&bytes).expect("just built");
            manifest.traces = match manifest.traces {
                Traces::Functions => Traces::Lines,
                Traces::Lines => Traces::Functions,
            };
            SectionBytes { kind: section.kind, bytes: manifest.encode() }
        };
        let sections: Vec<_> = sections.into_iter().map(changed).collect();
        let refused = Artifact::from_bytes(&container::encode(engine, &sections), &engines);
        assert!(matches!(refused, Err(ArtifactError::EngineMismatch { .. })), "{refused:?}");
    }
}

/// DWARF by which each byte of the code is a line of its own: the one at `address` is line `address + 1`.
fn line_of_each_byte(code_bytes: u32) -> [(&'static str, Vec<u8>); 3] {
    // One kind of entry: a unit with its lines, its first address and its size.
    let abbreviations = vec![1, 0x11, 0, 0x10, 0x17, 0x11, 0x01, 0x12, 0x06, 0, 0, 0];
    let entry = [&[1, 0, 0, 0, 0, 0, 0, 0, 0][..], &code_bytes.to_le_bytes()].concat();
    // DWARF 4, abbreviations at 0, addresses of four bytes.
    let unit = [&[4, 0, 0, 0, 0, 0, 4][..], &entry].concat();
    // Instructions of one byte; 13 is the first special opcode. No folders, one file.
    let lengths = [0, 1, 1, 1, 1, 0, 0, 0, 1, 0, 0, 1];
    let header = [&[1, 1, 1, 0, 1, 13][..], &lengths, &[0], b"code\0\0\0\0\0"].concat();
    let header_bytes = u32::try_from(header.len()).expect("a few bytes");
    let mut lines = [&4u16.to_le_bytes()[..], &header_bytes.to_le_bytes(), &header].concat();
    lines.extend([0, 5, 2, 0, 0, 0, 0, 1]);
    for _ in 1..code_bytes {
        // The address and the line go on by one.
        lines.extend([2, 1, 3, 1, 1]);
    }
    lines.extend([2, 1, 0, 1, 1]);
    let sized = |bytes: Vec<u8>| {
        [&u32::try_from(bytes.len()).expect("a few KiB").to_le_bytes()[..], &bytes].concat()
    };
    [(".debug_abbrev", abbreviations), (".debug_info", sized(unit)), (".debug_line", sized(lines))]
}

/// A program whose `chosen`th place traps, behind calls that linking encodes longer than they were.
fn trapping_at(chosen: usize) -> String {
    use std::fmt::Write;
    let mut code = String::new();
    for place in 0..40 {
        write!(
            code,
            "(drop (call $random (i32.const 0) (i32.const 8)))
             (global.set $calls (i32.add (global.get $calls) (i32.const 1)))
             (drop (i32.div_u (i32.const 1) (i32.ne (global.get $chosen) (i32.const {place}))))"
        )
        .expect("a string takes it");
    }
    format!(
        "(module (import \"wasi_snapshot_preview1\" \"random_get\" (func $random (param i32 i32) (result i32)))
           (memory (export \"memory\") 1)
           (global $calls (mut i32) (i32.const 0)) (global $chosen (mut i32) (i32.const {chosen}))
           (func $first (result i64) (local i32 f64) (i64.const 5))
           (func $inner (param i64) {code})
           (func $outer (export \"_start\") (call $inner (call $first))))"
    )
}

/// What a trap tells of a place is what the module itself has there, however far linking has moved it.
#[test]
fn places_are_those_of_the_module_as_it_was_given() {
    for chosen in [0, 1, 17, 39] {
        let mut module = wat::parse_str(trapping_at(chosen)).expect("it is sound");
        let (mut start, mut traps, mut calls, mut code_bytes) = (0, Vec::new(), Vec::new(), 0);
        for payload in wasmparser::Parser::new(0).parse_all(&module) {
            match payload.expect("it is sound") {
                wasmparser::Payload::CodeSectionStart { range, size, .. } => {
                    (start, code_bytes) = (range.start, size);
                }
                wasmparser::Payload::CodeSectionEntry(body) => {
                    let operators = body.get_operators_reader().expect("it is sound");
                    for operator in operators.into_iter_with_offsets() {
                        match operator.expect("it is sound") {
                            (wasmparser::Operator::I32DivU, at) => traps.push(at),
                            (wasmparser::Operator::Call { .. }, at) => calls.push(at),
                            _ => {}
                        }
                    }
                }
                _ => {}
            }
        }
        for (name, data) in line_of_each_byte(code_bytes) {
            CustomSection { name: name.into(), data: data.into() }.append_to(&mut module);
        }
        let (engines, artifact) = opened(&module, WITH_LINES);
        let line = |at: usize| format!("code:{}", at - start + 1);
        let [.., outer] = calls[..] else { panic!("it has calls") };
        let expected = format!("inner at {}\nouter at {}\n", line(traps[chosen]), line(outer));
        for technique in [Technique::Restore, Technique::Cow] {
            let told = told(&engines, &artifact, technique);
            assert!(told.contains(&expected), "{chosen}, {technique}: {told}\n{expected}");
        }
    }
}
