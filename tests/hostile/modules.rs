//! Modules that must not become artifacts, and the reason that is given.

use std::fs::File;
use std::io::Write;

use midge_tests::guests::HELLO;
use midge_tests::program::{Ended, midge};
use tempfile::TempDir;

/// A sound guest with more in it; the parts are put before its first function.
fn with(parts: &str) -> String {
    HELLO.replacen("(memory (export", &format!("{parts}\n  (memory (export"), 1)
}

/// Builds a module in a folder of its own.
fn build(name: &str, source: impl AsRef<[u8]>) -> (TempDir, Ended) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    std::fs::write(folder.path().join(name), source).expect("the folder takes files");
    let ended = midge(folder.path(), &["build", name, "-o", "out.midge"]);
    (folder, ended)
}

#[track_caller]
fn check_refused(source: impl AsRef<[u8]>, reasons: &[&str]) {
    let (folder, ended) = build("guest.wat", source);
    assert_eq!((ended.code, ended.stdout.as_str()), (Some(1), ""), "{}", ended.stderr);
    for reason in reasons {
        assert!(ended.stderr.contains(reason), "{reason} is named: {}", ended.stderr);
    }
    assert!(ended.stderr.contains("\nnext: "), "{}", ended.stderr);
    assert!(!folder.path().join("out.midge").exists());
}

#[test]
fn a_trap_at_start_up_names_its_function() {
    check_refused(
        with("").replace("(func (export \"midge_contract\")", 
            "(func $spoil (drop (i32.load (i32.const -1))))\n  (start $spoil)\n  (func (export \"midge_contract\")"),
        &["start-up failed in `start`", "spoil"],
    );
    check_refused(
        HELLO.replace("(func (export \"midge_contract\")",
            "(func $spoil unreachable)\n  (func (export \"_initialize\") (call $spoil))\n  (func (export \"midge_contract\")"),
        &["start-up failed in `_initialize`", "spoil"],
    );
    check_refused(
        HELLO.replace("(result i32) (i32.const 64)", "(result i32) unreachable"),
        &["start-up failed in `midge_contract`"],
    );
}

#[test]
fn time_and_chance_are_refused_at_start_up() {
    for (import, call) in [
        (
            "(func $ask (import \"midge\" \"random\") (param i32 i32))",
            "(call $ask (i32.const 0) (i32.const 8))",
        ),
        ("(func $ask (import \"midge\" \"clock_wall_ns\") (result i64))", "(drop (call $ask))"),
        (
            "(func $ask (import \"midge\" \"clock_monotonic_ns\") (result i64))",
            "(drop (call $ask))",
        ),
    ] {
        let name = import.split('"').nth(3).unwrap();
        let initialize =
            format!("(func (export \"_initialize\") {call})\n  (func (export \"midge_contract\")");
        let source = with(import).replace("(func (export \"midge_contract\")", &initialize);
        check_refused(source, &[&format!("import `{name}` was called at start-up")]);
    }
}

#[test]
fn start_up_that_never_ends_is_stopped() {
    let source = HELLO.replace(
        "(func (export \"midge_contract\")",
        "(func (export \"_initialize\") (loop $l (br $l)))\n  (func (export \"midge_contract\")",
    );
    check_refused(source, &["start-up failed in `_initialize`"]);
}

#[test]
fn what_the_host_does_not_offer_is_refused_by_name() {
    check_refused(
        with("(func (import \"wasi_snapshot_preview1\" \"fd_write\") (param i32))"),
        &["`wasi_snapshot_preview1.fd_write`", "midge.log"],
    );
    check_refused(with("(func (import \"midge\" \"log\"))"), &["`midge.log`", "another type"]);
    check_refused(with("(memory (import \"midge\" \"log\") 1)"), &["`midge.log`"]);
    check_refused(
        HELLO.replace("midge_handle", "midge_handel"),
        &["`midge_handle` as a function (i32, i32) -> i32"],
    );
    check_refused(
        HELLO.replace("(memory (export \"memory\") 2)", "(memory (export \"memory\") 2 3 shared)"),
        &["not valid"],
    );
    check_refused(HELLO.replace("MDGE\\01", "MDGE\\02"), &["contract 2, this host speaks 1"]);
    check_refused(
        HELLO.replace("\\00\\00\\01\\00\\00\\00\\01\\00\")", "\\00\\00\\01\\00\\00\\00\\02\\00\")"),
        &["request area at 0x10000"],
    );
    check_refused("(module (func (export", &["does not parse"]);
    check_refused(b"\0asm\x0d\0\x01\0", &["component exports nothing"]);
    check_refused(b"\0asm\x01\0\0\0\x01\xFF", &["not valid at offset"]);
}

/// The guest with another contract record: words of 32 bits, the second of version and reserved.
fn with_record(address: u32, record: [u32; 4]) -> String {
    let bytes = record.into_iter().flat_map(u32::to_le_bytes);
    let bytes: String = bytes.map(|byte| format!("\\{byte:02x}")).collect();
    with(&format!("(data (i32.const 96) \"{bytes}\")"))
        .replace("(result i32) (i32.const 64)", &format!("(result i32) (i32.const {address})"))
}

#[test]
fn no_claim_of_the_contract_record_is_believed() {
    const MAGIC: u32 = u32::from_le_bytes(*b"MDGE");
    /// The memory's size.
    const END: u32 = 131_072;
    let sound = [MAGIC, 1, 0x1_0000, 0x1_0000];
    let (_folder, ended) = build("guest.wat", with_record(96, sound));
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    for (lie, address, record, reason) in [
        ("no record", 0, sound, "starts with 0x00000000"),
        ("at the last address", u32::MAX, sound, "lies outside the memory"),
        ("over the end", END - 15, sound, "lies outside the memory"),
        ("behind the end", END, sound, "lies outside the memory"),
        ("half a record", 100, sound, "starts with 0x00000001"),
        ("version 0", 96, [MAGIC, 0, 0x1_0000, 0x1_0000], "contract 0"),
        ("version 65535", 96, [MAGIC, 0xFFFF, 0x1_0000, 0x1_0000], "contract 65535"),
        ("reserved", 96, [MAGIC, 0x8000_0001, 0x1_0000, 0x1_0000], "a reserved field"),
        ("area at 0", 96, [MAGIC, 1, 0, 0x1_0000], "request area at 0x0 "),
        ("misaligned", 96, [MAGIC, 1, 0x1_0008, 0x1000], "request area at 0x10008"),
        ("no area", 96, [MAGIC, 1, 0x1_0000, 0], "of 0 bytes"),
        ("small area", 96, [MAGIC, 1, 0x1_0000, 4095], "of 4095 bytes"),
        ("huge area", 96, [MAGIC, 1, 0x1_0000, 0x0400_0001], "of 67108865 bytes"),
        ("area over the end", 96, [MAGIC, 1, 0x1_0000, 0x1_0001], "request area at 0x10000"),
        ("area behind the end", 96, [MAGIC, 1, END, 0x1000], "request area at 0x20000"),
        ("area that wraps around", 96, [MAGIC, 1, 0xFFFF_F000, 0x2000], "at 0xfffff000"),
        ("area of 4 GiB", 96, [MAGIC, 1, 16, u32::MAX], "of 4294967295 bytes"),
    ] {
        let (_folder, ended) = build("guest.wat", with_record(address, record));
        assert_eq!(ended.code, Some(1), "{lie}: {}", ended.stderr);
        assert!(ended.stderr.contains(reason), "{lie}: {reason}: {}", ended.stderr);
    }
}

#[test]
fn exports_are_of_their_kind_and_type() {
    const MEMORY: &str = "(memory (export \"memory\") 2)";
    const CONTRACT: &str = "(func (export \"midge_contract\") (result i32) (i32.const 64))";
    let initialize = |what: &str| with(&what.replace("NAME", "(export \"_initialize\")"));
    for (source, reason) in [
        (HELLO.replace(MEMORY, "(memory 2)"), "`memory` as its first memory"),
        (
            HELLO.replace(MEMORY, "(memory 2) (memory (export \"memory\") 2)"),
            "`memory` as its first memory",
        ),
        (
            HELLO.replace(MEMORY, "(memory 2) (table (export \"memory\") 1 funcref)"),
            "`memory` as its first memory",
        ),
        (
            HELLO.replace(CONTRACT, "(global (export \"midge_contract\") i32 (i32.const 64))"),
            "`midge_contract` as a function () -> i32",
        ),
        (HELLO.replace(CONTRACT, "(func (export \"midge_contract\"))"), "`midge_contract` as a"),
        (
            HELLO.replace("(param i32 i32) (result i32) (i32", "(param i64 i32) (result i32) (i32"),
            "`midge_handle` as a function (i32, i32) -> i32",
        ),
        (initialize("(func NAME (param i32))"), "`_initialize` as a function () -> ()"),
        (initialize("(func NAME (result i32) (i32.const 0))"), "`_initialize` as a function"),
        (initialize("(global NAME i32 (i32.const 0))"), "`_initialize` as a function () -> ()"),
        (HELLO.replace(CONTRACT, &CONTRACT.repeat(2)), "duplicate export"),
        (with("(global (export \"midge:global:0\") i32 (i32.const 0))"), "the host's own"),
        (
            HELLO.replace(MEMORY, &format!("{MEMORY} (memory (export \"midge:a\") 64)")),
            "`midge:a`; names that start with `midge:` are the host's own",
        ),
    ] {
        check_refused(source, &[reason]);
    }
}

#[test]
fn memories_and_tables_are_of_their_limits() {
    const MEMORY: &str = "(memory (export \"memory\") 2)";
    for (memory, reason) in [
        ("(memory (export \"memory\") 3 2)", "not valid"),
        ("(memory (export \"memory\") 65537)", "not valid"),
        ("(memory (export \"memory\") 2 65537)", "not valid"),
        ("(memory (export \"memory\") 2 2 shared)", "not valid"),
        ("(memory (export \"memory\") i64 2)", "not valid"),
        ("(memory (export \"memory\") 2 (pagesize 1))", "not valid"),
        ("(memory (export \"memory\") 65536)", "exceeds memory limits"),
        ("(memory (export \"memory\") 2) (table 65537 funcref)", "exceeds table limits"),
        ("(memory (export \"memory\") 2) (table 2 1 funcref)", "not valid"),
        ("(memory (export \"memory\") 2) (table i64 1 funcref)", "not valid"),
        ("(memory (export \"memory\") 2) (data (i32.const 131072) \"x\")", "out of bounds"),
        ("(memory (export \"memory\") 2) (data (i32.const -1) \"x\")", "out of bounds"),
        ("(memory (export \"memory\") 2) (tag)", "not valid"),
        ("(memory (export \"memory\") 2) (type (array i32))", "not valid"),
    ] {
        check_refused(HELLO.replace(MEMORY, memory), &[reason]);
    }
}

#[test]
fn too_much_of_anything_is_refused() {
    let globals = "(global (mut i32) (i32.const 0))\n".repeat(4097);
    check_refused(with(&globals), &["4097 mutable globals"]);
    check_refused(
        HELLO.replace(
            "(data (i32.const 64)",
            &format!("{}(data (i32.const 64)", "(memory 0)".repeat(8)),
        ),
        &["9 ", "memories"],
    );

    let export = |number| format!("(export \"{number}{}\" (func $f))", "x".repeat(60_000));
    let exports: String = (0..20).map(export).collect();
    check_refused(with(&format!("(func $f) {exports}")), &["names and exports", "1048576 are"]);

    let mut sections = wat::parse_str(HELLO).unwrap();
    sections.extend(b"\0\x02\x01x".repeat(1025));
    check_refused(sections, &["1025 sections, at most 1024"]);

    let folder = tempfile::tempdir().unwrap();
    let mut huge = File::create(folder.path().join("huge.wasm")).unwrap();
    huge.write_all(b"\0asm\x01\0\0\0").unwrap();
    huge.set_len((64 << 20) + 1).unwrap();
    let ended = midge(folder.path(), &["build", "huge.wasm"]);
    assert_eq!(ended.code, Some(1));
    assert!(ended.stderr.contains("at most 67108864 are read"), "{}", ended.stderr);
}

#[test]
fn a_memory_above_the_limit_is_refused_when_it_is_served() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("guest.wat"), HELLO).unwrap();
    let settings = "[[function]]\nname = \"guest\"\nmodule = \"guest.wat\"\nroute = \"/\"\n\
                    memory = \"64 KiB\"\n";
    std::fs::write(folder.path().join("midge.toml"), settings).unwrap();
    let ended =
        midge(folder.path(), &["serve", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"]);
    assert_eq!(ended.code, Some(1));
    assert!(ended.stderr.contains("cannot serve function `guest`"), "{}", ended.stderr);
    assert!(ended.stderr.contains("more than its limit of 65536"), "{}", ended.stderr);
}
