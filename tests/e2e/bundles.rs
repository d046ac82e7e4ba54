//! Files that programs and components find: what the calls of both interfaces give, by every technique, and beside
//! another engine with the same folder.

mod beside; // another engine
mod commands; // techniques, artifacts, refusals
mod written; // the folder in memory
mod probe; // a program that makes the calls that it is told to

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use midge_tests::host::{Host, Setup};

use self::probe::{AREA, Gave, Script};

const SUCCESS: u32 = 0;
const BADF: u32 = 8;
const EXIST: u32 = 20;
const ILSEQ: u32 = 25;
const INVAL: u32 = 28;
const ISDIR: u32 = 31;
const LOOP: u32 = 32;
const MFILE: u32 = 33;
const NAMETOOLONG: u32 = 37;
const NOENT: u32 = 44;
const NOTDIR: u32 = 54;
const NOTSUP: u32 = 58;
const NOSPC: u32 = 51;
const NOTEMPTY: u32 = 55;
const PERM: u32 = 63;
const ROFS: u32 = 69;
const SPIPE: u32 = 70;
const XDEV: u32 = 75;
/// The first descriptor that a program opens, behind the standard ones and one folder.
const FIRST: u64 = 4;
/// Bytes of the area that are told of each call.
const SHOWN: u32 = 1024;

/// Makes the folder that these tests look into.
fn make(folder: &Path) {
    fs::create_dir_all(folder.join("deep/deeper")).expect("a folder of ours");
    fs::create_dir(folder.join("hollow")).expect("a folder of ours");
    fs::write(folder.join("a.txt"), "first").expect("a file");
    fs::write(folder.join("deep/b.txt"), "second").expect("a file");
    let large: Vec<u8> = (0..200_000u32).map(|number| number.to_le_bytes()[1]).collect();
    fs::write(folder.join("deep/deeper/large"), large).expect("a file");
    fs::write(folder.join("empty"), "").expect("a file");
    for (link, target) in [
        ("link", "deep/b.txt"),
        ("dir", "deep"),
        ("gone", "nowhere"),
        ("deep/up", "../a.txt"),
        ("loop", "loop"),
    ] {
        symlink(target, folder.join(link)).expect("a link");
    }
    for number in 0..40 {
        fs::write(folder.join(format!("hollow/file-{number:02}")), [number]).expect("a file");
    }
}

/// Serves the probe with that folder as `/data`.
fn serve() -> Host {
    let setup = Setup::new().file("probe.wat", probe::module());
    make(&setup.folder().join("data"));
    setup.serve(
        "[[function]]\nname = \"probe\"\nmodule = \"probe.wat\"\nroute = \"/*\"\n\
         files = [\"data:/data\"]\n",
    )
}

/// Runs a script twice in one slot: the second call must not see what the first left open.
fn ran(host: &Host, script: &Script) -> Vec<Gave> {
    let mut client = host.client();
    let mut call = || {
        let response = client.post("/", &script.stdin(SHOWN));
        assert_eq!(response.status, 200, "{}", host.log());
        script.gave(SHOWN, &response.body)
    };
    let (first, second) = (call(), call());
    let names = script.names();
    let seen = |gave: &[Gave]| {
        gave.iter().zip(&names).map(|(gave, name)| without_times(name, gave)).collect::<Vec<_>>()
    };
    let is_same = seen(&first) == seen(&second);
    assert!(is_same, "the second call sees nothing of the first");
    first
}

/// Leaves out of an answer what is another for each call: when something was written.
fn without_times(function: &str, gave: &Gave) -> Gave {
    let mut gave = gave.clone();
    let times = match function {
        "fd_filestat_get" | "path_filestat_get" => 40..64,
        "[method]descriptor.stat" | "[method]descriptor.stat-at" => 40..104,
        _ => 0..0,
    };
    gave.area[times].fill(0);
    gave
}

/// Runs a script and compares the errors with what is expected of each call.
fn errors(host: &Host, script: &Script, expected: &[u32]) -> Vec<Gave> {
    let gave = ran(host, script);
    let names = script.names();
    assert_eq!(names.len(), expected.len());
    for (place, (gave, expected)) in gave.iter().zip(expected).enumerate() {
        assert_eq!(gave.errno, *expected, "{}", script.described(place));
    }
    gave
}

#[test]
fn a_program_reads_its_files() {
    let host = serve();
    let mut script = Script::default();
    let area = u64::from(AREA);
    script.call("fd_prestat_get", &[3, area]);
    script.call("fd_prestat_dir_name", &[3, area, 5]);
    script.call("fd_prestat_dir_name", &[3, area, 4]);
    script.open(3, "a.txt", 0);
    let [list, count] = script.vectors(&[(AREA + 8, 2), (AREA + 16, 0), (AREA + 24, 100)]);
    script.call("fd_read", &[FIRST, list, count, area]);
    script.call("fd_read", &[FIRST, list, count, area]);
    script.call("fd_seek", &[FIRST, 1, 0, area]);
    let [one, _] = script.vectors(&[(AREA + 8, 3)]);
    script.call("fd_read", &[FIRST, one, 1, area]);
    script.call("fd_tell", &[FIRST, area]);
    script.call("fd_pread", &[FIRST, one, 1, 3, area]);
    script.call("fd_tell", &[FIRST, area]);
    script.call("fd_seek", &[FIRST, 0, 2, area]);
    script.call("fd_filestat_get", &[FIRST, area]);
    script.call("fd_fdstat_get", &[FIRST, area]);
    script.open(3, "deep", 2);
    script.open(FIRST + 1, "b.txt", 0);
    script.call("fd_filestat_get", &[FIRST + 2, area]);
    let [link, size] = script.put(b"link");
    script.call("path_readlink", &[3, link, size, area + 8, 100, area]);
    script.call("path_readlink", &[3, link, size, area + 8, 4, area]);
    script.call("path_filestat_get", &[3, 0, link, size, area]);
    script.call("path_filestat_get", &[3, 1, link, size, area]);
    let mut expected = [SUCCESS; 21];
    expected[2] = NAMETOOLONG;
    let gave = errors(&host, &script, &expected);
    assert_eq!(gave[0].number(0), 5 << 32);
    assert_eq!(gave[1].text(5), "/data");
    assert_eq!(gave[3].number(0), FIRST);
    assert_eq!(
        (gave[4].number(0), &gave[4].area[8..10], &gave[4].area[24..27]),
        (5, &b"fi"[..], &b"rst"[..])
    );
    assert_eq!(gave[5].number(0), 0, "the end");
    assert_eq!((gave[7].number(0), &gave[7].area[8..11]), (3, &b"irs"[..]));
    assert_eq!(gave[8].number(0), 4);
    assert_eq!((gave[9].number(0), &gave[9].area[8..10]), (2, &b"st"[..]));
    assert_eq!(gave[10].number(0), 4, "a read at a place moves nothing");
    assert_eq!(gave[11].number(0), 5);
    assert_eq!(
        (gave[12].area[16], gave[12].number(32), gave[12].number(48)),
        (4, 5, 315_532_800_000_000_000)
    );
    assert_eq!(gave[13].area[0], 4);
    assert_eq!(gave[14].number(0), FIRST + 1);
    assert_eq!(gave[16].number(32), 6);
    assert_eq!((gave[17].number(0), gave[17].area[8..18].to_vec()), (10, b"deep/b.txt".to_vec()));
    assert_eq!((gave[18].number(0), gave[18].area[8..13].to_vec()), (4, b"deep\0".to_vec()));
    assert_eq!((gave[19].area[16], gave[19].number(32)), (7, 10), "of the link itself");
    assert_eq!((gave[20].area[16], gave[20].number(32)), (4, 6), "of what it leads to");
}

#[test]
fn folders_are_listed_in_pieces() {
    let host = serve();
    let mut script = Script::default();
    let area = u64::from(AREA);
    script.open(3, "hollow", 2);
    script.call("fd_readdir", &[FIRST, area + 8, 1000, 0, area]);
    // A name that is cut: the buffer is full, and the next look begins at the entry's own place.
    script.call("fd_readdir", &[FIRST, area + 8, 24 + 1 + 24 + 1, 0, area]);
    script.call("fd_readdir", &[FIRST, area + 8, 1000, 41, area]);
    script.call("fd_readdir", &[FIRST, area + 8, 1000, 42, area]);
    script.call("fd_readdir", &[FIRST, area + 8, 1000, u64::MAX, area]);
    script.call("fd_readdir", &[FIRST, area + 8, 0, 0, area]);
    script.open(3, "a.txt", 0);
    script.call("fd_readdir", &[FIRST + 1, area + 8, 1000, 0, area]);
    let gave = errors(&host, &script, &[0, 0, 0, 0, 0, 0, 0, 0, BADF]);
    assert_eq!(gave[1].number(0), 1000);
    let row = |gave: &Gave, at: usize| {
        let name = gave.area[at + 16..at + 20].try_into().map(u32::from_le_bytes).unwrap();
        let end = at + 24 + usize::try_from(name).unwrap();
        (
            gave.number(at),
            gave.area[at + 20],
            String::from_utf8_lossy(&gave.area[at + 24..end]).into_owned(),
        )
    };
    assert_eq!(row(&gave[1], 8), (1, 3, ".".into()));
    assert_eq!(row(&gave[1], 8 + 25), (2, 3, "..".into()));
    assert_eq!(row(&gave[1], 8 + 25 + 26), (3, 4, "file-00".into()));
    assert_eq!(row(&gave[1], 8 + 25 + 26 + 31), (4, 4, "file-01".into()));
    assert_eq!(gave[2].number(0), 50);
    assert_eq!((gave[3].number(0), row(&gave[3], 8)), (31, (42, 4, "file-39".into())));
    assert_eq!(
        (gave[4].number(0), gave[5].number(0), gave[6].number(0)),
        (0, 0, 0),
        "behind the last"
    );
}

#[test]
fn what_would_write_is_refused() {
    let host = serve();
    let mut script = Script::default();
    let area = u64::from(AREA);
    let [new, new_size] = script.put(b"new");
    let [file, file_size] = script.put(b"a.txt");
    let [deep, deep_size] = script.put(b"deep");
    let (mut expected, open) =
        (Vec::new(), |script: &mut Script, path: [u64; 2], flags, rights| {
            script.call("path_open", &[3, 1, path[0], path[1], flags, rights, 0, 0, area]);
        });
    for (path, flags, rights, errno) in [
        ([new, new_size], 1, 2, ROFS),
        ([new, new_size], 0, 2, NOENT),
        ([file, file_size], 0, 64, ROFS),
        ([file, file_size], 1, 2, SUCCESS),
        ([file, file_size], 1 | 4, 2, EXIST),
        ([file, file_size], 8, 2, ROFS),
        ([file, file_size], 2, 2, NOTDIR),
        ([deep, deep_size], 2 | 1, 2, INVAL),
        ([deep, deep_size], 0, 64, ISDIR),
        ([deep, deep_size], 1, 2, ISDIR),
    ] {
        open(&mut script, path, flags, rights);
        expected.push(errno);
    }
    let [list, count] = script.vectors(&[(AREA, 4)]);
    for (function, arguments, errno) in [
        ("fd_write", &[FIRST, list, count, area][..], BADF),
        ("fd_pwrite", &[FIRST, list, count, 0, area], BADF),
        ("fd_allocate", &[FIRST, 0, 10], NOTSUP),
        ("fd_filestat_set_size", &[FIRST, 0], INVAL),
        ("fd_filestat_set_times", &[FIRST, 0, 0, 0], ROFS),
        ("fd_sync", &[FIRST], SUCCESS),
        ("fd_datasync", &[FIRST], SUCCESS),
        ("path_create_directory", &[3, new, new_size], ROFS),
        ("path_create_directory", &[3, deep, deep_size], EXIST),
        ("path_link", &[3, 0, file, file_size, 3, new, new_size], ROFS),
        ("path_link", &[3, 0, new, new_size, 3, new, new_size], NOENT),
        ("path_rename", &[3, file, file_size, 3, new, new_size], ROFS),
        ("path_symlink", &[file, file_size, 3, new, new_size], ROFS),
        ("path_symlink", &[file, file_size, 3, file, file_size], EXIST),
        ("path_unlink_file", &[3, file, file_size], ROFS),
        ("path_unlink_file", &[3, new, new_size], NOENT),
        ("path_unlink_file", &[3, deep, deep_size], ISDIR),
        ("path_remove_directory", &[3, deep, deep_size], ROFS),
        ("path_remove_directory", &[3, file, file_size], NOTDIR),
        ("path_filestat_set_times", &[3, 1, file, file_size, 0, 0, 0], ROFS),
        ("fd_fdstat_set_rights", &[FIRST, 0, 0], NOTSUP),
    ] {
        script.call(function, arguments);
        expected.push(errno);
    }
    // And the file is as it was.
    script.call("fd_pread", &[FIRST, list, count, 0, area + 8]);
    expected.push(SUCCESS);
    let gave = errors(&host, &script, &expected);
    assert_eq!(gave.last().map(|gave| gave.text(4)).as_deref(), Some("firs"));
}

#[test]
fn hostile_calls_are_refused() {
    let host = serve();
    let area = u64::from(AREA);
    let mut script = Script::default();
    let mut expected = Vec::new();
    let long = "x".repeat(256);
    let deep = "./".repeat(3000);
    let open = |script: &mut Script, path: &[u8], flags: u64, folder: u64| {
        let [at, size] = script.put(path);
        script.call("path_open", &[folder, 1, at, size, flags, 2, 2, 0, area]);
    };
    for (path, errno) in [
        (&b".."[..], PERM),
        (b"deep/../../data/a.txt", PERM),
        (b"/data/a.txt", PERM),
        (b"", NOENT),
        (b"a.txt\0", INVAL),
        (b"\xff\xfe", ILSEQ),
        (b"a.txt/", NOTDIR),
        (b"a.txt/..", NOTDIR),
        (b"loop", LOOP),
        (b"gone", NOENT),
        (long.as_bytes(), NAMETOOLONG),
        (deep.as_bytes(), NAMETOOLONG),
    ] {
        open(&mut script, path, 0, 3);
        expected.push(errno);
    }
    for (folder, errno) in
        [(0, BADF), (2, BADF), (4, BADF), (1 << 31, BADF), (u64::from(u32::MAX), BADF)]
    {
        open(&mut script, b"a.txt", 0, folder);
        expected.push(errno);
    }
    script.open(3, "a.txt", 0);
    open(&mut script, b"x", 0, FIRST);
    expected.extend([SUCCESS, NOTDIR]);
    let [list, count] = script.vectors(&[(AREA, 4)]);
    let big = i64::MAX.cast_unsigned();
    for (function, arguments, errno) in [
        ("fd_pread", &[FIRST, list, count, u64::MAX, area][..], INVAL),
        ("fd_pread", &[FIRST, list, count, big, area], SUCCESS),
        ("fd_pread", &[FIRST, list, 1025, 0, area], INVAL),
        ("fd_pread", &[0, list, count, 0, area], SPIPE),
        ("fd_seek", &[FIRST, u64::MAX, 0, area], INVAL),
        ("fd_seek", &[FIRST, u64::MAX, 1, area], INVAL),
        ("fd_seek", &[FIRST, big, 0, area], SUCCESS),
        ("fd_seek", &[FIRST, big, 1, area], SUCCESS),
        ("fd_seek", &[FIRST, big, 1, area], INVAL),
        ("fd_read", &[FIRST, list, count, area], INVAL),
        ("fd_seek", &[FIRST, 0, 7, area], INVAL),
        ("fd_seek", &[3, 0, 0, area], BADF),
        ("fd_seek", &[1, 0, 0, area], SPIPE),
        ("fd_read", &[3, list, count, area], BADF),
        ("fd_read", &[77, list, count, area], BADF),
        ("fd_close", &[77], BADF),
        ("fd_renumber", &[FIRST, 77], BADF),
        ("fd_renumber", &[77, FIRST], BADF),
        ("fd_advise", &[FIRST, u64::MAX, u64::MAX, 6], INVAL),
        ("fd_advise", &[3, 0, 0, 0], BADF),
        ("fd_prestat_get", &[FIRST, area], BADF),
        ("fd_fdstat_set_flags", &[FIRST, 2], INVAL),
        ("fd_fdstat_set_flags", &[FIRST, 5], SUCCESS),
        ("fd_fdstat_get", &[FIRST, area], SUCCESS),
        ("fd_close", &[FIRST], SUCCESS),
        ("fd_close", &[FIRST], BADF),
        ("fd_read", &[FIRST, list, count, area], BADF),
    ] {
        script.call(function, arguments);
        expected.push(errno);
    }
    let gave = errors(&host, &script, &expected);
    assert_eq!(gave[expected.len() - 4].area[2], 5, "flags are kept");

    // Pointers out of bounds trap, as the interface has it, and harm nobody.
    let out = u64::from(u32::MAX) - 7;
    for (function, arguments) in [
        ("fd_read", vec![0, out, 1, area]),
        ("fd_prestat_get", vec![3, out]),
        ("fd_prestat_get", vec![3, area + 1]),
        ("path_filestat_get", vec![3, 0, out, 1 << 20, area]),
        ("path_filestat_get", vec![3, 0, 0, 1 << 30, area]),
        ("fd_readdir", vec![3, area, 1 << 30, 0, area]),
        ("path_open", vec![3, 0, area, u64::from(u32::MAX), 0, 0, 0, 0, area]),
    ] {
        let mut script = Script::default();
        script.call(function, &arguments);
        let response = host.client().post("/", &script.stdin(SHOWN));
        assert_eq!(response.status, 502, "{function}{arguments:?}");
    }
    // A buffer that reaches beyond memory is seen when it is its turn.
    let mut script = Script::default();
    script.open(3, "a.txt", 0);
    let [list, count] = script.vectors(&[(AREA, 2), (u32::MAX - 3, 100)]);
    script.call("fd_read", &[FIRST, list, count, area]);
    assert_eq!(host.client().post("/", &script.stdin(SHOWN)).status, 502);
    // A path of a mebibyte that lies in memory is too long.
    let mut script = Script::default();
    script.call("path_filestat_get", &[3, 0, 0, 1 << 20, area]);
    errors(&host, &script, &[NAMETOOLONG]);
}

#[test]
fn numbers_are_given_again_and_are_limited() {
    let host = serve();
    let mut script = Script::default();
    let area = u64::from(AREA);
    for _ in 0..4 {
        script.open(3, "a.txt", 0);
    }
    script.call("fd_close", &[FIRST]);
    script.call("fd_close", &[FIRST + 2]);
    for _ in 0..3 {
        script.open(3, "empty", 0);
    }
    script.call("fd_renumber", &[FIRST, FIRST + 1]);
    script.call("fd_filestat_get", &[FIRST + 1, area]);
    script.open(3, "empty", 0);
    // A standard stream too.
    script.call("fd_close", &[0]);
    script.open(3, "a.txt", 0);
    script.call("fd_close", &[3]);
    script.open(3, "a.txt", 0);
    let mut expected = [SUCCESS; 16];
    expected[15] = BADF;
    let gave = errors(&host, &script, &expected);
    let numbers = [6, 7, 8, 11, 13].map(|call| gave[call].number(0));
    assert_eq!(numbers, [FIRST + 2, FIRST, FIRST + 4, FIRST, 0]);
    assert_eq!(gave[10].number(32), 0, "the empty file");

    // 1024 are open at once at the most: the standard ones, the folder, and 1020.
    let setup = Setup::new().file("opens.wat", OPENS);
    make(&setup.folder().join("data"));
    let host = setup.serve(
        "[[function]]\nname = \"opens\"\nmodule = \"opens.wat\"\nroute = \"/*\"\nfiles = [\"data:/data\"]\n",
    );
    for _ in 0..2 {
        let response = host.client().get("/");
        let body = response.body;
        let number = |at: usize| u32::from_le_bytes(body[at..at + 4].try_into().expect("a number"));
        assert_eq!((number(0), number(4)), (1020, MFILE));
    }
}

/// A program that opens a file until it cannot, and tells how often it could, and the error.
const OPENS: &str = r#"(module
  (import "wasi_snapshot_preview1" "path_open"
    (func $open (param i32 i32 i32 i32 i32 i64 i64 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
  (memory (export "memory") 1)
  (data (i32.const 64) "a.txt")
  (func (export "_start")
    (loop $more
      (i32.store (i32.const 4) (call $open (i32.const 3) (i32.const 0) (i32.const 64) (i32.const 5)
        (i32.const 0) (i64.const 2) (i64.const 0) (i32.const 0) (i32.const 32)))
      (if (i32.eqz (i32.load (i32.const 4))) (then
        (i32.store (i32.const 0) (i32.add (i32.load (i32.const 0)) (i32.const 1)))
        (br $more))))
    (i32.store (i32.const 16) (i32.const 0))
    (i32.store (i32.const 20) (i32.const 8))
    (drop (call $write (i32.const 1) (i32.const 16) (i32.const 1) (i32.const 24)))))"#;

// `error-code` of 0.2, and one more: 0 is success.
const OK_02: u8 = 0;
const BAD_DESCRIPTOR: u8 = 4;
const EXIST_02: u8 = 8;
const IS_DIRECTORY: u8 = 15;
const NO_ENTRY: u8 = 21;
const NOT_DIRECTORY: u8 = 25;
const NOT_PERMITTED: u8 = 32;
const READ_ONLY: u8 = 34;

/// Returns how a result of 0.2 ended whose payload lies at an offset.
fn ended(gave: &Gave, offset: usize) -> u8 {
    if gave.area[0] == 0 { OK_02 } else { gave.area[offset] + 1 }
}

#[test]
fn a_component_reads_its_files() {
    let setup = Setup::new().file("probe.wat", probe::module_02());
    make(&setup.folder().join("data"));
    let host = setup.serve(
        "[[function]]\nname = \"probe\"\nmodule = \"probe.wat\"\nroute = \"/*\"\n\
         files = [\"data:/data\", \"data/hollow:/hollow\"]\n",
    );
    let mut script = Script::default();
    let area = u64::from(AREA);
    // Handles are given from 1: both folders, then what is opened.
    let (data, other, file, inner, stream, entries) = (1, 2, 3, 4, 5, 6);
    let [text, text_size] = script.put(b"a.txt");
    let [folder, folder_size] = script.put(b"deep");
    let [link, link_size] = script.put(b"link");
    let [up, up_size] = script.put(b"up");
    let [gone, gone_size] = script.put(b"gone");
    let method = |name: &str| format!("[method]descriptor.{name}");
    let mut expected: Vec<(usize, u8)> = Vec::new();
    let mut call = |name: &str, arguments: &[u64], payload: usize, end: u8| {
        script.call(name, arguments);
        expected.push((payload, end));
    };
    call("get-directories", &[area], 0, OK_02);
    call(&method("open-at"), &[data, 1, text, text_size, 0, 1, area], 4, OK_02);
    call(&method("open-at"), &[data, 1, folder, folder_size, 2, 1, area], 4, OK_02);
    call(&method("read"), &[file, 3, 1, area], 4, OK_02);
    call(&method("read"), &[file, 3, 5, area], 4, OK_02);
    call(&method("read-via-stream"), &[file, 1, area], 4, OK_02);
    call("[method]input-stream.skip", &[stream, 1, area], 8, OK_02);
    call("[method]input-stream.blocking-read", &[stream, 100, area], 4, OK_02);
    call("[method]input-stream.blocking-read", &[stream, 100, area], 4, 2);
    call(&method("read-directory"), &[inner, area], 4, OK_02);
    let entry = "[method]directory-entry-stream.read-directory-entry";
    for _ in 0..4 {
        call(entry, &[entries, area], 4, OK_02);
    }
    call(&method("stat"), &[file, area], 8, OK_02);
    call(&method("stat-at"), &[data, 0, link, link_size, area], 8, OK_02);
    call(&method("stat-at"), &[data, 1, gone, gone_size, area], 8, NO_ENTRY);
    call(&method("get-type"), &[inner, area], 1, OK_02);
    call(&method("get-flags"), &[file, area], 1, OK_02);
    call(&method("readlink-at"), &[data, link, link_size, area], 4, OK_02);
    call(&method("metadata-hash"), &[file, area], 8, OK_02);
    call(&method("metadata-hash-at"), &[data, 1, text, text_size, area], 8, OK_02);
    call(&method("is-same-object"), &[inner, other], 1, OK_02);
    call(&method("is-same-object"), &[file, file], 1, OK_02);
    call(&method("advise"), &[file, 0, 9, 3, area], 1, OK_02);
    call(&method("advise"), &[inner, 0, 9, 3, area], 1, BAD_DESCRIPTOR);
    call(&method("sync"), &[file, area], 1, OK_02);
    // What a path may not do, and a descriptor.
    call(&method("open-at"), &[inner, 1, up, up_size, 0, 1, area], 4, NOT_PERMITTED);
    call(&method("open-at"), &[file, 1, up, up_size, 0, 1, area], 4, NOT_DIRECTORY);
    call(&method("read-via-stream"), &[inner, 0, area], 4, IS_DIRECTORY);
    call(&method("read"), &[inner, 1, 0, area], 4, BAD_DESCRIPTOR);
    // What would write.
    call(&method("open-at"), &[data, 1, text, text_size, 0, 3, area], 4, READ_ONLY);
    call(&method("open-at"), &[data, 1, up, up_size, 1, 1, area], 4, READ_ONLY);
    call(&method("write"), &[file, text, text_size, 0, area], 8, READ_ONLY);
    call(&method("write-via-stream"), &[file, 0, area], 4, READ_ONLY);
    call(&method("append-via-stream"), &[file, area], 4, READ_ONLY);
    call(&method("set-size"), &[file, 0, area], 1, READ_ONLY);
    call(&method("set-times"), &[file, 0, 0, 0, 0, 0, 0, area], 1, READ_ONLY);
    call(&method("create-directory-at"), &[data, up, up_size, area], 1, READ_ONLY);
    call(&method("create-directory-at"), &[data, folder, folder_size, area], 1, EXIST_02);
    call(&method("unlink-file-at"), &[data, text, text_size, area], 1, READ_ONLY);
    call(&method("remove-directory-at"), &[data, folder, folder_size, area], 1, READ_ONLY);
    call(&method("rename-at"), &[data, text, text_size, data, up, up_size, area], 1, READ_ONLY);
    call("[resource-drop]input-stream", &[stream], 1, OK_02);
    call("[resource-drop]descriptor", &[file], 1, OK_02);
    let gave = ran(&host, &script);
    for (place, (gave, (payload, end))) in gave.iter().zip(&expected).enumerate() {
        // Lists are told by where they are; the call that gives folders has no error.
        if place > 0 && !script.names()[place].contains("is-same") {
            assert_eq!(ended(gave, *payload), *end, "{}", script.described(place));
        }
    }
    assert_eq!(gave[0].number(0), 2 << 32 | u64::from(probe::ROOM), "two folders");
    let row = usize::try_from(probe::ROOM - AREA).expect("small");
    assert_eq!((gave[0].area[row], gave[0].string(row + 4)), (1, "/data".into()));
    assert_eq!((gave[0].area[row + 12], gave[0].string(row + 16)), (2, "/hollow".into()));
    assert_eq!((gave[1].area[4], gave[2].area[4]), (3, 4));
    assert_eq!((gave[3].string(4), gave[3].area[12]), ("irs".into(), 0));
    assert_eq!((gave[4].string(4), gave[4].area[12]), (String::new(), 1), "the end");
    assert_eq!((gave[6].number(8), gave[7].string(4)), (1, "rst".into()));
    let listed = [10, 11, 12].map(|call: usize| (gave[call].area[8], gave[call].string(12)));
    assert_eq!(listed, [(6, "b.txt".into()), (3, "deeper".into()), (5, "up".into())]);
    assert_eq!(gave[13].area[4], 0, "the end");
    assert_eq!((gave[14].area[8], gave[14].number(16), gave[14].number(24)), (6, 1, 5));
    assert_eq!((gave[14].area[32], gave[14].number(64)), (1, 315_532_800));
    assert_eq!((gave[15].area[8], gave[15].number(24)), (5, 10), "the link itself");
    assert_eq!((gave[17].area[1], gave[18].area[1]), (3, 1));
    assert_eq!(gave[19].string(4), "deep/b.txt");
    assert_eq!(gave[20].area[..24], gave[21].area[..24]);
    assert_eq!((gave[22].errno, gave[23].errno), (0, 1));
}
