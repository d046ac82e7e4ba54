//! The same calls on the same folder by another engine, `wasmtime run --dir`: what both answer is compared byte by byte,
//! but for what a bundle does not keep: times, and the numbers by which a disk knows its files.

use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use midge_tests::host::Setup;

use super::probe::{self, AREA, Gave, Script};
use super::{SHOWN, make};

/// Scripts that are compared, each of so many calls.
const SCRIPTS: u64 = 150;
const CALLS: u64 = 80;

const PATHS: [&[u8]; 44] = [
    b"a.txt",
    b"empty",
    b"deep",
    b"deep/b.txt",
    b"deep/deeper/large",
    b"hollow",
    b"hollow/file-07",
    b"link",
    b"dir",
    b"dir/b.txt",
    b"dir/deeper",
    b"gone",
    b"loop",
    b"deep/up",
    b"dir/up",
    b".",
    b"./",
    b"..",
    b"../data",
    b"deep/..",
    b"deep/../a.txt",
    b"dir/../a.txt",
    b"deep/../../data",
    b"/",
    b"/a.txt",
    b"",
    b"a.txt/",
    b"a.txt/.",
    b"a.txt/..",
    b"a.txt/x",
    b"deep/",
    b"dir/",
    b"link/",
    b"gone/",
    b"loop/x",
    b"nowhere",
    b"nowhere/",
    b"nowhere/..",
    b"deep//b.txt",
    b"up",
    b"b.txt",
    b"file-01",
    b"a\0b",
    b"\xC3\x28",
];

/// A generator of numbers that repeats itself for a seed.
struct Draw(u64);

impl Draw {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % bound
    }

    fn of<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[usize::try_from(self.below(choices.len() as u64)).expect("an index")]
    }
}

fn script(seed: u64) -> Script {
    let mut draw = Draw(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1);
    let mut script = Script::default();
    let area = u64::from(AREA);
    let long = "y".repeat(256);
    for path in ["a.txt", "deep/deeper/large", "hollow"] {
        script.open(3, path, 0);
    }
    for _ in 3..CALLS {
        let fd = draw.of(&[3, 4, 4, 5, 5, 5, 6, 7, 8, 9, 40]);
        let path = match draw.below(40) {
            0 => long.as_bytes(),
            1..10 => draw.of(&PATHS[..16]),
            _ => draw.of(&PATHS),
        };
        let [at, size] = script.put(path);
        let [list, _] = script.vectors(&[(AREA + 8, draw.of(&[0, 1, 7, 300, 1000]))]);
        let number = draw.of(&[0, 1, 4, 5, 6, 1000, 199_999, 1 << 40, u64::MAX, 1 << 63]);
        match draw.below(17) {
            0..=4 => {
                let folder = draw.of(&[3, 3, 3, fd]);
                let flags = draw.of(&[0, 0, 0, 2, 4, 3, 10]);
                let follow = draw.below(2);
                let fd_flags = draw.of(&[0, 0, 0, 1, 4, 2, 16]);
                // Rights to read, to read and look up, and none.
                let rights = draw.of(&[2, 2, 0x0FFF_FFBF, 0]);
                // Nothing that would make or change a file there: the other engine would.
                let flags = if flags == 3 || flags == 10 { flags } else { flags & 6 };
                script.call(
                    "path_open",
                    &[folder, follow, at, size, flags, rights, 0, fd_flags, area],
                )
            }
            5 => script.call("fd_read", &[fd, list, 1, area]),
            6 => script.call("fd_pread", &[fd, list, 1, number, area]),
            7 => script.call("fd_seek", &[fd, number, draw.below(3), area]),
            8 => script.call("fd_tell", &[fd, area]),
            9 => script.call("fd_readdir", &[fd, area + 8, 1016, draw.of(&[0, 0, 1, 1000]), area]),
            10 => script.call("fd_filestat_get", &[fd, area]),
            // The other engine takes no notice of a slash or `/.` at the end where links are not followed; the kernel does.
            11 => {
                let follows =
                    if path.ends_with(b"/") || path.ends_with(b"/.") { 1 } else { draw.below(2) };
                script.call("path_filestat_get", &[3, follows, at, size, area])
            }
            12 => {
                let room = draw.of(&[0, 3, 100]);
                script.call("path_readlink", &[draw.of(&[3, fd]), at, size, area + 8, room, area])
            }
            13 => script.call("fd_fdstat_get", &[fd, area]),
            14 => match draw.below(3) {
                0 => script.call("fd_close", &[fd]),
                1 => script.call("fd_renumber", &[fd, draw.of(&[4, 5, 6, 40])]),
                _ => script.call("fd_fdstat_set_flags", &[fd, draw.of(&[0, 1, 4, 5, 2])]),
            },
            15 => match draw.below(6) {
                0 => script.call("fd_advise", &[fd, 0, 10, draw.below(6)]),
                1 => script.call("fd_allocate", &[fd, 0, 10]),
                2 => script.call("fd_prestat_get", &[fd, area]),
                3 => script.call("fd_prestat_dir_name", &[fd, area, draw.of(&[4, 5, 100])]),
                4 => script.call("fd_sync", &[fd]),
                _ => script.call("fd_write", &[fd, list, 1, area]),
            },
            _ => {
                let mut subscription = vec![0; 48];
                subscription[0] = 77;
                subscription[8] = 1;
                subscription[16] = u8::try_from(fd).expect("small");
                let [at, _] = script.put(&subscription);
                script.call("poll_oneoff", &[at, area + 8, 1, area])
            }
        };
    }
    script
}

/// Paths of few names, so that what is made is met again.
const WRITTEN: [&[u8]; 27] = [
    b"a",
    b"b",
    b"c",
    b"d",
    b"a",
    b"b",
    b"c",
    b"a/a",
    b"a/b",
    b"b/a",
    b"b/b",
    b"a/b/c",
    b"c/a",
    b"d/d",
    b"a/../b",
    b"b/./a",
    b".",
    b"..",
    b"a/",
    b"b/",
    b"c/.",
    b"nowhere/a",
    b"/a",
    b"",
    b"a/..",
    b"a//b",
    b"\xC3\x28",
];

/// As [`script`], of calls that write, in a folder that is empty.
fn writing_script(seed: u64) -> Script {
    let mut draw = Draw(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1);
    let mut script = Script::default();
    let area = u64::from(AREA);
    for folder in ["a", "b"] {
        let [at, size] = script.put(folder.as_bytes());
        script.call("path_create_directory", &[3, at, size]);
    }
    for _ in 2..CALLS * 2 {
        let fd = draw.of(&[3, 3, 4, 4, 4, 5, 5, 6, 7, 8, 40]);
        let folder = draw.of(&[3, 3, 3, 3, fd]);
        // A slash or `/.` at the end is for openings alone: of most others the other engine takes no notice, or refuses
        // them where the kernel does not.
        let call = draw.below(22);
        let names = if call < 6 { &WRITTEN[..] } else { &WRITTEN[..16] };
        let name = draw.of(names);
        let [path, size] = script.put(name);
        let [other, other_size] = script.put(draw.of(names));
        let content: Vec<u8> = (0..draw.of(&[1u8, 9, 200])).map(|byte| byte ^ 0x55).collect();
        let [content, _] = script.put(&content);
        let content = u32::try_from(content).expect("an address");
        let length = draw.of(&[1, 7, 200, 9000]);
        // One buffer: the other engine takes notice of no more.
        let [sources, _] = script.vectors(&[(content, length)]);
        let [targets, _] = script.vectors(&[(AREA + 8, draw.of(&[1, 300, 1000]))]);
        let number = draw.of(&[0, 1, 5, 200, 4095, 4096, 10_000, 5_000_000]);
        match call {
            0..=5 => {
                let is_plain = WRITTEN[..16].contains(&name);
                let flags: &[u64] =
                    if is_plain { &[0, 1, 1, 1, 1, 5, 2, 8, 9] } else { &[0, 2, 8] };
                let flags = draw.of(flags);
                // With the other engine what is made or emptied can be written to, whatever was asked for.
                let is_changing = flags & 9 != 0;
                let rights: &[u64] =
                    if is_changing { &[66, 0x0FFF_FFFF] } else { &[66, 66, 2, 64, 0] };
                let rights = draw.of(rights);
                let fd_flags = draw.of(&[0, 0, 0, 1, 4]);
                let opening = [folder, draw.below(2), path, size, flags, rights, 0, fd_flags, area];
                script.call("path_open", &opening)
            }
            6 | 7 => script.call("fd_write", &[fd, sources, 1, area]),
            8 => script.call("fd_pwrite", &[fd, sources, 1, number, area]),
            9 => script.call("fd_pread", &[fd, targets, 1, number, area]),
            10 => script.call("fd_read", &[fd, targets, 1, area]),
            11 => script.call("fd_seek", &[fd, number, draw.below(3), area]),
            12 => script.call("fd_filestat_set_size", &[fd, number]),
            13 => script.call("path_create_directory", &[folder, path, size]),
            14 => script.call("path_unlink_file", &[folder, path, size]),
            15 => script.call("path_remove_directory", &[folder, path, size]),
            16 => script.call("path_rename", &[folder, path, size, 3, other, other_size]),
            17 => script.call("path_link", &[folder, 0, path, size, 3, other, other_size]),
            18 => script.call("path_symlink", &[other, other_size, folder, path, size]),
            19 => script.call("fd_readdir", &[fd, area + 8, 1016, 0, area]),
            20 => match draw.below(3) {
                0 => script.call("fd_filestat_get", &[fd, area]),
                1 => script.call("path_filestat_get", &[folder, draw.below(2), path, size, area]),
                _ => script.call("path_readlink", &[folder, path, size, area + 8, 100, area]),
            },
            _ => match draw.below(4) {
                0 => script.call("fd_close", &[fd]),
                1 => script.call("fd_fdstat_get", &[fd, area]),
                2 => script.call("fd_fdstat_set_flags", &[fd, draw.below(2)]),
                _ => script.call("fd_tell", &[fd, area]),
            },
        };
    }
    script
}

/// Leaves out of an answer what the engines need not agree on.
fn comparable(function: &str, mut gave: Gave) -> (u32, Vec<u8>) {
    if gave.errno != 0 && matches!(function, "path_link" | "path_rename" | "path_symlink") {
        // Of two paths that are both wrong either may be told.
        return (1, Vec::new());
    }
    if gave.errno != 0 {
        // What lies in the area then is nobody's.
        return (gave.errno, Vec::new());
    }
    match function {
        "fd_filestat_get" | "path_filestat_get" => {
            // File system and inode; names of a folder.
            gave.area[..16].fill(0);
            if gave.area[16] == 3 {
                gave.area[24..32].fill(0);
            }
            gave.area[40..64].fill(0);
            if gave.area[16] == 3 {
                gave.area[32..40].fill(0);
            }
        }
        "fd_readdir" => {
            // Its entries in the order of their names; a full buffer ends with a part of one, by any order.
            let size = usize::try_from(gave.number(0)).expect("small");
            let mut rest = &gave.area[8..8 + size];
            let mut names = Vec::new();
            while rest.len() >= 24 {
                let name = u32::from_le_bytes(rest[16..20].try_into().expect("four bytes"));
                let end = 24 + usize::try_from(name).expect("small");
                if rest.len() < end {
                    break;
                }
                names.push([&rest[20..21], &rest[24..end]].concat());
                rest = &rest[end..];
            }
            let is_full = size == 1016;
            names.sort();
            return (0, if is_full { vec![1] } else { names.join(&0) });
        }
        _ => {}
    }
    (0, gave.area)
}

fn elsewhere(folder: &Path, module: &Path, stdin: &[u8]) -> Vec<u8> {
    let mut command = Command::new("wasmtime");
    command.arg("run").arg("--dir").arg(format!("{}::/data", folder.display())).arg(module);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::inherit());
    let mut child = command.spawn().expect("wasmtime is installed");
    child.stdin.take().expect("piped").write_all(stdin).expect("it reads its stdin");
    let ended = child.wait_with_output().expect("it ends");
    assert!(ended.status.success());
    ended.stdout
}

/// Compares two lists of answers to a script. Returns how many calls did something.
fn compare(seed: u64, script: &Script, ours: Vec<Gave>, theirs: Vec<Gave>) -> u32 {
    let (names, mut succeeded) = (script.names(), 0);
    for (call, (ours, theirs)) in ours.into_iter().zip(theirs).enumerate() {
        let name = names[call];
        let (ours, theirs) = (comparable(name, ours), comparable(name, theirs));
        succeeded += u32::from(ours.0 == 0);
        let shown = |of: &(u32, Vec<u8>)| {
            (of.0, String::from_utf8_lossy(&of.1[..of.1.len().min(64)]).into_owned())
        };
        assert!(
            ours == theirs,
            "script {seed}, {}: {:?}, elsewhere {:?}",
            script.described(call),
            shown(&ours),
            shown(&theirs)
        );
    }
    succeeded
}

/// `CONTRIBUTING.md` has the command.
#[test]
#[ignore = "needs wasmtime on the path"]
fn files_are_what_they_are_elsewhere() {
    let setup = Setup::new().file("probe.wat", probe::module());
    make(&setup.folder().join("data"));
    // The other engine gets a folder of its own: what it would change must not be seen here.
    make(&setup.folder().join("other"));
    let host = setup.serve(
        "[[function]]\nname = \"probe\"\nmodule = \"probe.wat\"\nroute = \"/*\"\n\
         files = [\"data:/data\"]\n",
    );
    let (folder, module) = (host.folder().join("other"), host.folder().join("probe.wat"));
    let mut client = host.client();
    let mut succeeded = 0;
    for seed in 1..=SCRIPTS {
        let script = script(seed);
        let stdin = script.stdin(SHOWN);
        let response = client.post("/", &stdin);
        assert_eq!(response.status, 200, "{}", host.log());
        let ours = script.gave(SHOWN, &response.body);
        let theirs = script.gave(SHOWN, &elsewhere(&folder, &module, &stdin));
        succeeded += compare(seed, &script, ours, theirs);
    }
    assert!(succeeded > 3000, "only {succeeded} calls did something");
}

/// As above, of what is written: the other engine gets a new folder for each script.
#[test]
#[ignore = "needs wasmtime on the path"]
fn files_are_what_they_are_elsewhere_when_they_are_written() {
    let setup = Setup::new().file("probe.wat", probe::module());
    let host = setup.serve(
        "[[function]]\nname = \"probe\"\nmodule = \"probe.wat\"\nroute = \"/*\"\n\
         scratch = \"4 MiB:/data\"\ndeadline = \"5s\"\n",
    );
    let module = host.folder().join("probe.wat");
    let mut client = host.client();
    let mut succeeded = 0;
    for seed in 1..=SCRIPTS {
        let script = writing_script(seed);
        let stdin = script.stdin(SHOWN);
        let response = client.post("/", &stdin);
        assert_eq!(response.status, 200, "{}", host.log());
        let ours = script.gave(SHOWN, &response.body);
        let folder = tempfile::tempdir().expect("a folder");
        let theirs = script.gave(SHOWN, &elsewhere(folder.path(), &module, &stdin));
        succeeded += compare(seed, &script, ours, theirs);
    }
    assert!(succeeded > 5000, "only {succeeded} calls did something");
}
