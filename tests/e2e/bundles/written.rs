//! The folder in memory: what a request writes is there for it and for no other, by every technique, within its limits.

use midge_tests::host::{Host, Setup};
use midge_tests::program::{Ended, midge};
use serde_json::Value;

use super::probe::{self, AREA, Gave, Script};
use super::*;

/// The first descriptor that a program opens, behind the standard ones, the folder in memory, and no other.
const FIRST: u64 = 4;
const CREATE: u64 = 1;
const EXCLUSIVE: u64 = 4;
const READ_WRITE: u64 = 66;

fn serve_probe(module: String, more: &str) -> Host {
    Setup::new().file("probe.wat", module).serve(&format!(
        "[[function]]\nname = \"probe\"\nmodule = \"probe.wat\"\nroute = \"/*\"\n{more}"
    ))
}

fn serve_written() -> Host {
    serve_probe(probe::module(), "scratch = \"1 MiB\"\n")
}

/// Calls of preview 1 on paths of the folder, and the errors that are expected of them.
#[derive(Default)]
struct Calls {
    script: Script,
    expected: Vec<u32>,
}

impl Calls {
    fn call(&mut self, function: &str, arguments: &[u64], errno: u32) -> usize {
        self.script.call(function, arguments);
        self.expected.push(errno);
        self.expected.len() - 1
    }

    fn path(&mut self, function: &str, path: &[u8], errno: u32) -> usize {
        let [at, size] = self.script.put(path);
        self.call(function, &[3, at, size], errno)
    }

    fn paths(&mut self, function: &str, from: &[u8], to: &[u8], errno: u32) -> usize {
        let ([from, from_size], [to, to_size]) = (self.script.put(from), self.script.put(to));
        match function {
            "path_link" => self.call(function, &[3, 0, from, from_size, 3, to, to_size], errno),
            "path_symlink" => self.call(function, &[from, from_size, 3, to, to_size], errno),
            _ => self.call(function, &[3, from, from_size, 3, to, to_size], errno),
        }
    }

    fn open(&mut self, path: &[u8], flags: u64, fd_flags: u64, errno: u32) -> usize {
        let [at, size] = self.script.put(path);
        let arguments = [3, 1, at, size, flags, READ_WRITE, 0, fd_flags, AREA.into()];
        self.call("path_open", &arguments, errno)
    }

    fn write(&mut self, fd: u64, text: &[u8], errno: u32) -> usize {
        let [at, size] = self.script.put(text);
        let number = |number| u32::try_from(number).expect("an address or a size");
        let (at, size) = (number(at), number(size));
        let [list, count] = self.script.vectors(&[(at, size)]);
        self.call("fd_write", &[fd, list, count, AREA.into()], errno)
    }

    /// Reads at a place: what was read lies behind how much that was.
    fn read(&mut self, fd: u64, offset: u64, errno: u32) -> usize {
        let [list, count] = self.script.vectors(&[(AREA + 8, 200)]);
        self.call("fd_pread", &[fd, list, count, offset, AREA.into()], errno)
    }

    fn run(&self, host: &Host) -> Vec<Gave> {
        errors(host, &self.script, &self.expected)
    }
}

/// Returns what was read.
fn text(gave: &Gave) -> String {
    let size = usize::try_from(gave.number(0)).expect("small");
    String::from_utf8_lossy(&gave.area[8..8 + size]).into_owned()
}

#[test]
fn a_program_writes_files() {
    let host = serve_written();
    let mut calls = Calls::default();
    let area = u64::from(AREA);
    let name = calls.call("fd_prestat_dir_name", &[3, area, 4], SUCCESS);
    calls.open(b"note", CREATE | EXCLUSIVE, 0, SUCCESS);
    calls.write(FIRST, b"first words", SUCCESS);
    calls.call("fd_seek", &[FIRST, 6, 0, area], SUCCESS);
    calls.write(FIRST, b"lines and more", SUCCESS);
    let all = calls.read(FIRST, 0, SUCCESS);
    calls.open(b"note", CREATE | EXCLUSIVE, 0, EXIST);
    // To its end, wherever it stands.
    calls.open(b"note", 0, 1, SUCCESS);
    calls.write(FIRST + 1, b"!", SUCCESS);
    let tell = calls.call("fd_tell", &[FIRST + 1, area], SUCCESS);
    // A hole reads as zeros, and so does what is cut off and added again.
    calls.call("fd_filestat_set_size", &[FIRST, 3], SUCCESS);
    calls.call("fd_filestat_set_size", &[FIRST, 6], SUCCESS);
    let cut = calls.read(FIRST, 0, SUCCESS);
    calls.call("fd_allocate", &[FIRST, 4, 6], SUCCESS);
    let facts = calls.call("fd_filestat_get", &[FIRST, area], SUCCESS);
    calls.call("fd_filestat_set_times", &[FIRST, 1_000, 2_000, 5], SUCCESS);
    let times = calls.call("fd_filestat_get", &[FIRST, area], SUCCESS);
    calls.call("fd_filestat_set_times", &[FIRST, 1_000, 2_000, 3], INVAL);
    calls.call("fd_sync", &[FIRST], SUCCESS);
    // Another name, and none: what is open lives on.
    calls.paths("path_link", b"note", b"same", SUCCESS);
    let linked = calls.call("fd_filestat_get", &[FIRST, area], SUCCESS);
    calls.path("path_unlink_file", b"note", SUCCESS);
    calls.path("path_unlink_file", b"same", SUCCESS);
    calls.open(b"note", CREATE, 0, SUCCESS);
    let other = calls.read(FIRST + 2, 0, SUCCESS);
    let alive = calls.read(FIRST, 0, SUCCESS);
    let unnamed = calls.call("fd_filestat_get", &[FIRST, area], SUCCESS);
    calls.call("fd_renumber", &[FIRST + 2, FIRST], SUCCESS);
    let moved = calls.read(FIRST, 0, SUCCESS);
    calls.call("fd_filestat_set_size", &[FIRST, 1 << 32], 22);
    calls.write(FIRST, &[b'x'; 5000], SUCCESS);
    let long = calls.read(FIRST, 4990, SUCCESS);
    let gave = calls.run(&host);
    assert_eq!(gave[name].text(4), "/tmp");
    assert_eq!(text(&gave[all]), "first lines and more");
    assert_eq!(gave[tell].number(0), 21);
    assert_eq!(text(&gave[cut]), "fir\0\0\0");
    assert_eq!((gave[facts].area[16], gave[facts].number(24), gave[facts].number(32)), (4, 1, 10));
    let year_2020 = 1_577_836_800_000_000_000;
    assert!(gave[facts].number(48) > year_2020, "it was written now");
    assert_eq!((gave[times].number(40), gave[times].number(48)), (1_000, 2_000));
    assert_eq!((gave[linked].number(24), gave[unnamed].number(24)), (2, 0));
    assert_eq!(
        (text(&gave[other]), text(&gave[alive])),
        (String::new(), "fir\0\0\0\0\0\0\0".into())
    );
    assert_eq!((text(&gave[moved]), text(&gave[long])), (String::new(), "x".repeat(10)));
}

#[test]
fn folders_and_links_are_made_moved_and_removed() {
    let host = serve_probe(probe::module(), "scratch = \"1 MiB\"\nfiles = [\".:/data\"]\n");
    // The folders of files come first, so that a program finds those where it found them without the other.
    let mut calls = Calls::default();
    let area = u64::from(AREA);
    calls.call("fd_prestat_dir_name", &[3, area, 100], SUCCESS);
    let scratch = calls.call("fd_prestat_dir_name", &[4, area, 4], SUCCESS);
    calls.call("fd_prestat_get", &[5, area], BADF);
    calls.path("path_create_directory", b"new", ROFS);
    calls.call("fd_renumber", &[3, 100], BADF);
    // From one to the other leads no link and no name.
    let [probe, probe_size] = calls.script.put(b"probe.wat");
    let [new, new_size] = calls.script.put(b"new");
    calls.call("path_rename", &[3, probe, probe_size, 4, new, new_size], XDEV);
    calls.call("path_link", &[3, 0, probe, probe_size, 4, new, new_size], XDEV);
    calls.call("fd_renumber", &[4, 3], SUCCESS);
    calls.path("path_create_directory", b"a", SUCCESS);
    calls.path("path_create_directory", b"a", EXIST);
    calls.path("path_create_directory", b"a/b/", SUCCESS);
    calls.path("path_create_directory", b"x/y", NOENT);
    calls.paths("path_symlink", b"a/b", b"link", SUCCESS);
    calls.open(b"link/file", CREATE, 0, SUCCESS);
    calls.path("path_remove_directory", b"a/b", NOTEMPTY);
    calls.paths("path_rename", b"a", b"a/b/a", INVAL);
    calls.paths("path_rename", b"a/b/file", b"a", ISDIR);
    calls.paths("path_rename", b"a", b"a/b/file", INVAL);
    calls.paths("path_rename", b".", b"c", 10);
    calls.paths("path_rename", b"a/b", b"c", SUCCESS);
    calls.open(b"c/file", 0, 0, SUCCESS);
    calls.open(b"link/file", 0, 0, NOENT);
    calls.path("path_unlink_file", b"c", ISDIR);
    calls.path("path_unlink_file", b"link", SUCCESS);
    calls.paths("path_link", b"a", b"d", PERM);
    calls.paths("path_symlink", b"../../etc", b"out", SUCCESS);
    calls.open(b"out/passwd", 0, 0, PERM);
    calls.paths("path_symlink", b"/etc", b"abs", PERM);
    calls.paths("path_symlink", b"loop", b"loop", SUCCESS);
    calls.open(b"loop", CREATE, 0, LOOP);
    // What a link that leads nowhere names is made where it leads.
    calls.paths("path_symlink", b"a/made", b"to", SUCCESS);
    calls.open(b"to", CREATE, 0, SUCCESS);
    calls.open(b"a/made", EXCLUSIVE | CREATE, 0, EXIST);
    calls.path("path_unlink_file", b"c/file", SUCCESS);
    let listed = calls.call("fd_readdir", &[3, area + 8, 1000, 0, area], SUCCESS);
    calls.path("path_remove_directory", b"c", SUCCESS);
    // The cookie behind `a` is good whatever was removed.
    let rest = calls.call("fd_readdir", &[3, area + 8, 1000, 4, area], SUCCESS);
    let gave = calls.run(&host);
    assert_eq!(gave[scratch].text(4), "/tmp");
    let names = |gave: &Gave| {
        let (mut at, mut names) = (8, Vec::new());
        while at < 8 + usize::try_from(gave.number(0)).unwrap() {
            let size = usize::from(gave.area[at + 16]);
            names.push(String::from_utf8_lossy(&gave.area[at + 24..at + 24 + size]).into_owned());
            at += 24 + size;
        }
        names
    };
    assert_eq!(names(&gave[listed]), [".", "..", "a", "c", "out", "loop", "to"]);
    assert_eq!(names(&gave[rest]), ["out", "loop", "to"]);
}

#[test]
fn hostile_names_and_descriptors_are_refused() {
    let host = serve_written();
    let mut calls = Calls::default();
    let area = u64::from(AREA);
    for (path, errno) in [
        (&b"a\0b"[..], INVAL),
        (b"\xff\xfe", ILSEQ),
        (b"..", PERM),
        (b"a/../..", NOENT),
        (b"/tmp/a", PERM),
        (b"", NOENT),
        (&[b'x'; 256], NAMETOOLONG),
        (&[b'/'; 5000], NAMETOOLONG),
        (b".", EXIST),
    ] {
        calls.path("path_create_directory", path, errno);
        calls.paths("path_symlink", b"a", path, errno);
    }
    for (target, errno) in [(&b"a\0b"[..], INVAL), (b"", NOENT), (b"\xff", ILSEQ)] {
        calls.paths("path_symlink", target, b"link", errno);
    }
    calls.paths("path_symlink", &[b'x'; 4096], b"link", NAMETOOLONG);
    calls.open(b"file", CREATE, 0, SUCCESS);
    for fd in [0, 3, 5, 1 << 31, u64::from(u32::MAX)] {
        calls.call("fd_filestat_set_size", &[fd, 1], BADF);
        calls.call("fd_allocate", &[fd, 0, 1], BADF);
        let [list, count] = calls.script.vectors(&[(AREA, 4)]);
        calls.call("fd_pwrite", &[fd, list, count, 0, area], BADF);
    }
    let [list, count] = calls.script.vectors(&[(AREA, 4)]);
    for (function, arguments, errno) in [
        ("fd_pwrite", &[FIRST, list, count, u64::MAX, area][..], INVAL),
        ("fd_pwrite", &[FIRST, list, count, 1 << 40, area], 22),
        ("fd_pwrite", &[FIRST, list, count, u64::from(u32::MAX), area], 22),
        ("fd_pwrite", &[FIRST, list, 1025, 0, area], INVAL),
        ("fd_filestat_set_size", &[FIRST, u64::MAX], 22),
        ("fd_allocate", &[FIRST, u64::MAX, 2], 22),
        ("fd_allocate", &[FIRST, 0, 0], INVAL),
        ("fd_allocate", &[FIRST, 0, 1 << 30], NOSPC),
        ("fd_filestat_set_size", &[FIRST, u64::from(u32::MAX)], SUCCESS),
        ("fd_seek", &[FIRST, 0, 2, area], SUCCESS),
        ("fd_write", &[FIRST, list, count, area], 22),
        ("fd_filestat_set_size", &[FIRST, 0], SUCCESS),
        // Its end and a little: the numbers above it are made, and there is room for that.
        ("fd_pwrite", &[FIRST, list, count, 0xFFFF_FFF0, area], SUCCESS),
    ] {
        calls.call(function, arguments, errno);
    }
    // A folder that was removed while it is open takes nothing.
    calls.path("path_create_directory", b"gone", SUCCESS);
    calls.open(b"gone", 2, 0, ISDIR);
    calls.script.open(3, "gone", 2);
    calls.expected.push(SUCCESS);
    calls.path("path_remove_directory", b"gone", SUCCESS);
    let [a, size] = calls.script.put(b"a");
    calls.call("path_create_directory", &[FIRST + 1, a, size], NOENT);
    calls.call("path_open", &[FIRST + 1, 0, a, size, 1, READ_WRITE, 0, 0, area], NOENT);
    let listed = calls.call("fd_readdir", &[FIRST + 1, area + 8, 1000, 0, area], SUCCESS);
    let gave = calls.run(&host);
    assert_eq!(gave[listed].number(0), 24 + 1 + 24 + 2);

    // A buffer out of bounds traps, with half of what it writes to made; the next request finds nothing of it.
    let mut script = Calls::default();
    script.open(b"file", CREATE | EXCLUSIVE, 0, SUCCESS);
    let [list, count] = script.script.vectors(&[(AREA, 60_000), (u32::MAX - 3, 100)]);
    script.call("fd_write", &[FIRST, list, count, area], SUCCESS);
    for _ in 0..3 {
        assert_eq!(host.client().post("/", &script.script.stdin(SHOWN)).status, 502);
    }
}

/// Loops over one call until it fails, and tells how often it went and the error; `$i` counts, and the name at 64 is
/// another for each count.
fn looping(call: &str) -> String {
    format!(
        r#"(module
  (import "wasi_snapshot_preview1" "path_open"
    (func $open (param i32 i32 i32 i32 i32 i64 i64 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "path_link" (func $link (param i32 i32 i32 i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "path_create_directory" (func $mkdir (param i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "fd_close" (func $close (param i32) (result i32)))
  (memory (export "memory") 2)
  (data (i32.const 64) "0000d/file")
  (func (export "_start") (local $i i32) (local $errno i32) (local $fd i32)
    (drop (call $open (i32.const 3) (i32.const 0) (i32.const 70) (i32.const 4) (i32.const 5) (i64.const 66)
      (i64.const 66) (i32.const 0) (i32.const 32)))
    ;; What is written: 60 KiB.
    (i32.store (i32.const 40) (i32.const 4096))
    (i32.store (i32.const 44) (i32.const 61440))
    (local.set $fd (i32.const 3))
    (loop $more
      (i32.store8 (i32.const 64) (i32.add (i32.const 48) (i32.and (local.get $i) (i32.const 63))))
      (i32.store8 (i32.const 65)
        (i32.add (i32.const 48) (i32.and (i32.shr_u (local.get $i) (i32.const 6)) (i32.const 63))))
      (i32.store8 (i32.const 66)
        (i32.add (i32.const 48) (i32.and (i32.shr_u (local.get $i) (i32.const 12)) (i32.const 63))))
      (local.set $errno {call})
      (if (i32.eqz (local.get $errno)) (then
        (local.set $i (i32.add (local.get $i) (i32.const 1)))
        (br $more))))
    (i32.store (i32.const 0) (local.get $i))
    (i32.store (i32.const 4) (local.get $errno))
    (i32.store (i32.const 16) (i32.const 0))
    (i32.store (i32.const 20) (i32.const 8))
    (drop (call $write (i32.const 1) (i32.const 16) (i32.const 1) (i32.const 24)))))"#
    )
}

const LINKS: &str = "(call $link (i32.const 3) (i32.const 0) (i32.const 70) (i32.const 4)
    (i32.const 3) (i32.const 64) (i32.const 4))";
const FILLS: &str = "(call $write (i32.const 4) (i32.const 40) (i32.const 1) (i32.const 24))";
/// Each folder in the one before, which is closed.
const NESTS: &str = "(if (result i32) (call $mkdir (local.get $fd) (i32.const 68) (i32.const 1))
    (then (call $mkdir (local.get $fd) (i32.const 68) (i32.const 1)))
    (else
      (drop (call $open (local.get $fd) (i32.const 0) (i32.const 68) (i32.const 1) (i32.const 2) (i64.const 0)
        (i64.const 0) (i32.const 0) (i32.const 32)))
      (if (i32.ne (local.get $fd) (i32.const 3)) (then (drop (call $close (local.get $fd)))))
      (local.set $fd (i32.load (i32.const 32)))
      (i32.const 0)))";

/// A folder that is full, of bytes, of names, of folders in folders: the request is told, and the next begins anew.
#[test]
fn a_full_folder_is_full_for_its_request_alone() {
    for (name, call, scratch, count) in [
        // 8 MiB in pieces of 60 KiB, of which some is for names and numbers.
        ("fills", FILLS, "8 MiB", 137),
        ("links", LINKS, "16 MiB", 65_535),
        ("nests", NESTS, "1 MiB", 1024),
    ] {
        let host = Setup::new().file("loops.wat", looping(call)).serve(&format!(
            "[[function]]\nname = \"{name}\"\nmodule = \"loops.wat\"\nroute = \"/*\"\n\
             scratch = \"{scratch}\"\nmemory = \"5 MiB\"\ndeadline = \"60s\"\n"
        ));
        for _ in 0..3 {
            let response = host.client().get("/");
            let number = |at: usize| {
                let bytes =
                    response.body.get(at..at + 4).unwrap_or_else(|| panic!("{}", host.log()));
                u32::from_le_bytes(bytes.try_into().expect("a number"))
            };
            assert_eq!((number(0), number(4)), (count, NOSPC), "{name}");
        }
    }
}

/// A program that makes a file of its own, which must not be there, writes 300 KiB to it, and prints the last.
const WRITES: &str = r#"(module
  (import "wasi_snapshot_preview1" "path_open"
    (func $open (param i32 i32 i32 i32 i32 i64 i64 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "fd_pread" (func $pread (param i32 i32 i32 i64 i32) (result i32)))
  (memory (export "memory") 2)
  (data (i32.const 64) "file")
  (data (i32.const 4090) "written 61440 bytes")
  (func (export "_start") (local $i i32)
    (if (call $open (i32.const 3) (i32.const 0) (i32.const 64) (i32.const 4) (i32.const 5) (i64.const 66)
      (i64.const 66) (i32.const 0) (i32.const 32)) (then unreachable))
    (i32.store (i32.const 40) (i32.const 4090))
    (i32.store (i32.const 44) (i32.const 61440))
    (loop $more
      (if (call $write (i32.const 4) (i32.const 40) (i32.const 1) (i32.const 24)) (then unreachable))
      (if (i32.ne (i32.load (i32.const 24)) (i32.const 61440)) (then unreachable))
      (local.set $i (i32.add (local.get $i) (i32.const 1)))
      (br_if $more (i32.lt_u (local.get $i) (i32.const 5))))
    (i32.store (i32.const 40) (i32.const 512))
    (i32.store (i32.const 44) (i32.const 19))
    (if (call $pread (i32.const 4) (i32.const 40) (i32.const 1) (i64.const 245760) (i32.const 24))
      (then unreachable))
    (drop (call $write (i32.const 1) (i32.const 40) (i32.const 1) (i32.const 24)))))"#;

fn json(ended: &Ended) -> Value {
    assert_eq!(ended.code, Some(0), "{ended:?}");
    serde_json::from_str(&ended.stdout).expect("one object")
}

#[test]
fn every_technique_begins_with_an_empty_folder() {
    let setup = Setup::new().file("writes.wat", WRITES);
    let folder = setup.folder();
    let built = |isolation: &str, output: &str| {
        let scratch = ["--scratch", "512 KiB", "--isolation", isolation, "-o", output, "--json"];
        json(&midge(folder, &[&["build", "writes.wat"][..], &scratch].concat()));
    };
    built("guard-pages", "writes.midge");
    built("bounds-checked", "checked.midge");
    let techniques = ["restore", "reuse", "mmap", "aot", "jit", "cow", "pool", "pool-scan"];
    for (artifact, techniques) in
        [("writes.midge", &techniques[..]), ("checked.midge", &techniques[..4])]
    {
        for technique in techniques {
            let call = ["invoke", artifact, "--technique", technique, "--repeat", "4", "--json"];
            let ended = midge(folder, &call);
            let report = json(&ended);
            assert_eq!(report["response"]["status"], 200, "{technique}: {report}");
            assert!(ended.stdout.contains("written 61440 bytes"), "{technique}: {report}");
        }
    }
    let report = json(&midge(folder, &["inspect", "writes.midge", "--json"]));
    let expected = serde_json::json!({ "guest_path": "/tmp", "bytes_max": 512 << 10 });
    assert_eq!(report["scratch"], expected);
}

#[test]
fn what_was_written_is_proven_to_be_gone() {
    let setup = Setup::new().file("writes.wat", WRITES);
    let prove = |module: &str, technique: &str| {
        let call = ["prove", module, "--rounds", "20", "--seed", "7", "--technique", technique];
        let more: &[_] = if module == "writes.wat" { &["--scratch", "1MiB"] } else { &[] };
        midge(setup.folder(), &[&call[..], &["--json"], more].concat())
    };
    let report = json(&prove("writes.wat", "restore"));
    assert_eq!(report["verdict"], "pristine", "{report:#}");
    assert_eq!(report["compared"]["restores"], 19, "{report:#}");
    assert_ne!(report["compared"]["changes"], 0, "{report:#}");
    // Where nothing is restored it finds what is left.
    assert_eq!(prove("writes.wat", "reuse").code, Some(3));
}

/// The guest's own memory stays within the function's limit, though it declares the size that the other may have.
#[test]
fn the_room_of_the_folder_is_no_room_for_the_guest() {
    let module = |pages: u64| {
        format!(
            r#"(module
  (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
  (memory (export "memory") 1 {pages})
  (func (export "_start")
    (i32.store (i32.const 0) (i32.const 8))
    (i32.store (i32.const 4) (i32.const 1))
    (i32.store8 (i32.const 8) (select (i32.const 110) (i32.const 121)
      (i32.eq (memory.grow (i32.const 96)) (i32.const -1))))
    (drop (call $write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 16)))))"#
        )
    };
    let sizes = |setup: &Setup| {
        let call = ["build", "grows.wat", "--scratch", "16 MiB", "--json"];
        json(&midge(setup.folder(), &call));
        let report = json(&midge(setup.folder(), &["inspect", "grows.midge", "--json"]));
        [0, 1].map(|memory| report["memories"][memory]["bytes_max"].as_u64().expect("it has one"))
    };
    let setup = Setup::new().file("grows.wat", module(100));
    let [first, _] = sizes(&setup);
    let setup = Setup::new().file("grows.wat", module(first / 65_536));
    let [second, guest] = sizes(&setup);
    assert_eq!((guest, second), (first, first + 65_536));
    let host = setup.serve(
        "[[function]]\nname = \"grows\"\nmodule = \"grows.midge\"\nroute = \"/*\"\nmemory = \"6 MiB\"\n",
    );
    assert_eq!(host.client().get("/").text(), "n");
}

#[test]
fn a_component_writes_files() {
    let host = serve_probe(probe::module_02(), "scratch = \"256 KiB\"\n");
    let mut script = Script::default();
    let area = u64::from(AREA);
    let mut expected: Vec<(usize, u8)> = Vec::new();
    let [name, size] = script.put(b"note");
    let [other, other_size] = script.put(b"other");
    let [text, text_size] = script.put(b"some words");
    let [nowhere, nowhere_size] = script.put(b"nowhere");
    let [absolute, absolute_size] = script.put(b"/etc");
    let method = |name: &str| format!("[method]descriptor.{name}");
    let mut call = |name: &str, arguments: &[u64], payload: usize, end: u8| {
        script.call(name, arguments);
        expected.push((payload, end));
        expected.len() - 1
    };
    // Handles: the folder, the file, a stream that writes.
    let (folder, file, output) = (1, 2, 3);
    call("get-directories", &[area], 0, OK_02);
    let flags = call(&method("get-flags"), &[folder, area], 1, OK_02);
    call(&method("open-at"), &[folder, 1, name, size, 1 | 4, 3, area], 4, OK_02);
    call(&method("write"), &[file, text, text_size, 2, area], 8, OK_02);
    let read = call(&method("read"), &[file, 100, 0, area], 4, OK_02);
    let hash = call(&method("metadata-hash"), &[file, area], 8, OK_02);
    call(&method("write-via-stream"), &[file, 4, area], 4, OK_02);
    let check = call("[method]output-stream.check-write", &[output, area], 8, OK_02);
    let write = "[method]output-stream.blocking-write-and-flush";
    call(write, &[output, name, size, area], 4, OK_02);
    call(write, &[output, text, 1, area], 4, OK_02);
    call("[resource-drop]output-stream", &[output], 1, OK_02);
    let changed = call(&method("metadata-hash"), &[file, area], 8, OK_02);
    call(&method("append-via-stream"), &[file, area], 4, OK_02);
    call(write, &[output, other, other_size, area], 4, OK_02);
    call("[resource-drop]output-stream", &[output], 1, OK_02);
    let all = call(&method("read"), &[file, 100, 0, area], 4, OK_02);
    // Another name for it, a link, and another place.
    call(&method("link-at"), &[folder, 0, name, size, folder, other, other_size, area], 1, OK_02);
    call(
        &method("link-at"),
        &[folder, 0, name, size, folder, other, other_size, area],
        1,
        EXIST_02,
    );
    let stat = call(&method("stat"), &[file, area], 8, OK_02);
    call(
        &method("symlink-at"),
        &[folder, absolute, absolute_size, nowhere, nowhere_size, area],
        1,
        NOT_PERMITTED,
    );
    call(
        &method("symlink-at"),
        &[folder, other, other_size, nowhere, nowhere_size, area],
        1,
        OK_02,
    );
    let link = call(&method("readlink-at"), &[folder, nowhere, nowhere_size, area], 4, OK_02);
    call(&method("unlink-file-at"), &[folder, nowhere, nowhere_size, area], 1, OK_02);
    call(
        &method("rename-at"),
        &[folder, other, other_size, folder, nowhere, nowhere_size, area],
        1,
        OK_02,
    );
    call(&method("unlink-file-at"), &[folder, other, other_size, area], 1, NO_ENTRY);
    call(&method("create-directory-at"), &[folder, other, other_size, area], 1, OK_02);
    call(&method("unlink-file-at"), &[folder, other, other_size, area], 1, IS_DIRECTORY);
    call(&method("remove-directory-at"), &[folder, nowhere, nowhere_size, area], 1, NOT_DIRECTORY);
    call(&method("remove-directory-at"), &[folder, other, other_size, area], 1, OK_02);
    call(&method("open-at"), &[folder, 1, nowhere, nowhere_size, 0, 1, area], 4, OK_02);
    let same = call(&method("is-same-object"), &[file, output], 1, OK_02);
    call(&method("write"), &[output, text, 1, 0, area], 8, BAD_DESCRIPTOR);
    call("[resource-drop]descriptor", &[output], 1, OK_02);
    call(&method("set-times"), &[file, 2, 7, 9, 0, 0, 0, area], 1, OK_02);
    let times = call(&method("stat"), &[file, area], 8, OK_02);
    call(&method("set-size"), &[file, 300_000, area], 1, OK_02);
    // From one file to another, and what does not fit: an error of the stream's, which tells the file's.
    call(&method("open-at"), &[folder, 1, other, other_size, 1, 3, area], 4, OK_02);
    call(&method("read-via-stream"), &[file, 2, area], 4, OK_02);
    call(&method("append-via-stream"), &[3, area], 4, OK_02);
    let (input, output, error) = (4, 5, 6);
    let spliced = call("[method]output-stream.splice", &[output, input, 5, area], 8, OK_02);
    let skipped = call("[method]input-stream.skip", &[input, 2, area], 8, OK_02);
    let rest = call("[method]input-stream.blocking-read", &[input, 4, area], 4, OK_02);
    let copied = call(&method("read"), &[3, 100, 0, area], 4, OK_02);
    for _ in 0..4 {
        // Zeros of memory that nobody uses.
        call(write, &[output, 0x30_0000, 50_000, area], 4, OK_02);
    }
    let full = call(write, &[output, 0x30_0000, 50_000, area], 4, 1);
    let code = call("filesystem-error-code", &[error, area], 1, OK_02);
    let said = call("[method]error.to-debug-string", &[error, area], 1, OK_02);
    call("[resource-drop]error", &[error], 1, OK_02);
    // Without a name and closed, its content stays as long as the stream has it: there is room for nothing but what the
    // other file has.
    call(&method("unlink-file-at"), &[folder, other, other_size, area], 1, OK_02);
    call("[resource-drop]descriptor", &[3], 1, OK_02);
    let held = call(&method("write"), &[file, 0x30_0000, 200_000, 0, area], 8, OK_02);
    call("[resource-drop]output-stream", &[output], 1, OK_02);
    let again = call(&method("write"), &[file, 0x30_0000, 200_000, 0, area], 8, OK_02);
    let gave = ran(&host, &script);
    let not_results = ["is-same", "error-code", "to-debug", "get-directories"];
    for (place, (gave, (payload, end))) in gave.iter().zip(&expected).enumerate() {
        if !not_results.iter().any(|name| script.names()[place].contains(name)) {
            assert_eq!(ended(gave, *payload), *end, "{}", script.described(place));
        }
    }
    assert_eq!(gave[flags].area[1], 1 | 32, "it may be changed");
    assert_eq!(gave[read].string(4), "\0\0some words");
    assert_ne!(gave[hash].area[..24], gave[changed].area[..24]);
    assert_eq!(gave[check].number(8), 65_536);
    assert_eq!(gave[all].string(4), "\0\0sonotesrdsother");
    assert_eq!((gave[stat].area[8], gave[stat].number(16), gave[stat].number(24)), (6, 2, 17));
    assert_eq!(gave[link].string(4), "other");
    assert_eq!(gave[same].errno, 1);
    assert_eq!((gave[times].number(40), gave[times].area[48]), (7, 9));
    assert_eq!((gave[spliced].number(8), gave[skipped].number(8)), (5, 2));
    assert_eq!((gave[rest].string(4), gave[copied].string(4)), ("rdso".into(), "sonot".into()));
    assert_eq!(gave[full].area[4], 0, "last-operation-failed");
    assert_eq!(gave[code].area[..2], [1, 23]);
    assert_eq!(gave[said].string(0), "insufficient-space");
    assert_eq!((gave[held].number(8), gave[again].number(8)), (4096, 200_000));
}

#[test]
fn a_folder_is_refused_where_there_can_be_none() {
    let setup =
        Setup::new().file("writes.wat", WRITES).file("hello.wat", midge_tests::guests::HELLO);
    let refused = |arguments: &[&str], code: i32, expected: &str| {
        let ended = midge(setup.folder(), arguments);
        let said = format!("{}{}", ended.stdout, ended.stderr);
        assert_eq!(ended.code, Some(code), "{arguments:?}: {said}");
        assert!(said.contains(expected), "{arguments:?}: {said}");
    };
    refused(&["build", "hello.wat", "--scratch", "1MiB"], 1, "follows the contract");
    refused(&["build", "writes.wat", "--scratch", "1KiB"], 2, "64 KiB to 512 MiB");
    refused(&["build", "writes.wat", "--scratch", "1MiB:"], 2, "the path has 1 to 255 bytes");
    let twice = ["build", "writes.wat", "--scratch", "1MiB:/a", "--files", ".:/a"];
    refused(&twice, 1, "two folders are `/a` for the guest");
    json(&midge(setup.folder(), &["build", "writes.wat", "--json"]));
    refused(
        &["invoke", "writes.midge", "--scratch", "1MiB"],
        2,
        "--scratch SIZE, and leave both out",
    );
    for (value, expected) in [
        ("7", "a text"),
        ("\"1 GiB\"", "scratch: `1 GiB`: expected 64 KiB to 512 MiB"),
        ("\"1 MiB:\"", "the path has 1 to 255 bytes"),
    ] {
        let settings = format!(
            "[[function]]\nname = \"w\"\nmodule = \"writes.wat\"\nroute = \"/\"\nscratch = {value}\n"
        );
        std::fs::write(setup.folder().join("midge.toml"), settings).unwrap();
        refused(&["check"], 1, expected);
    }
}
