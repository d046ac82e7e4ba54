//! A program that makes the calls of preview 1 that it is told to, and tells what each gave.
//!
//! ```text
//!   stdin     bytes shown | calls || call: function, nine arguments, eight bytes each | .. || blob
//!   memory    0 .. | AREA: zeroed before each call | stdin at INPUT | stdout at OUTPUT
//!   stdout    for each call: errno | bytes of the area
//! ```
//!
//! It runs under any engine: what two of them answer to the same stdin can be compared byte by byte.

use std::fmt::Write;

/// Where calls put what they return.
pub(super) const AREA: u32 = 0x1_0000;
/// Where lists that are returned begin: in the area, behind what has a place there.
pub(super) const ROOM: u32 = AREA + 256;
const INPUT: u32 = 0x10_0000;
const OUTPUT: u32 = 0x20_0000;
const HEAD_BYTES: u32 = 16;
const CALL_BYTES: u32 = 80;
/// Most calls of one script.
pub(super) const CALLS_MAX: u32 = 256;
const BLOB: u32 = INPUT + HEAD_BYTES + CALL_BYTES * CALLS_MAX;

const TYPES: &str = "wasi:filesystem/types@0.2.12";
const STREAMS: &str = "wasi:io/streams@0.2.12";
const ERROR: &str = "wasi:io/error@0.2.12";

/// Functions of 0.2, as [`FUNCTIONS`]: interface, name, arguments. They return nothing but what lies in the area,
/// or a number where the arguments end with `=`. A component calls them so, and a core module with their names can too.
const FUNCTIONS_02: [(&str, &str, &str); 38] = [
    ("wasi:filesystem/preopens@0.2.12", "get-directories", "i"),
    (TYPES, "[method]descriptor.open-at", "iiiiiii"),
    (TYPES, "[method]descriptor.read", "iIIi"),
    (TYPES, "[method]descriptor.read-via-stream", "iIi"),
    (TYPES, "[method]descriptor.stat", "ii"),
    (TYPES, "[method]descriptor.stat-at", "iiiii"),
    (TYPES, "[method]descriptor.get-type", "ii"),
    (TYPES, "[method]descriptor.get-flags", "ii"),
    (TYPES, "[method]descriptor.read-directory", "ii"),
    (TYPES, "[method]directory-entry-stream.read-directory-entry", "ii"),
    (TYPES, "[method]descriptor.readlink-at", "iiii"),
    (TYPES, "[method]descriptor.metadata-hash", "ii"),
    (TYPES, "[method]descriptor.metadata-hash-at", "iiiii"),
    (TYPES, "[method]descriptor.is-same-object", "ii="),
    (TYPES, "[method]descriptor.advise", "iIIii"),
    (TYPES, "[method]descriptor.sync", "ii"),
    (TYPES, "[method]descriptor.write", "iiiIi"),
    (TYPES, "[method]descriptor.write-via-stream", "iIi"),
    (TYPES, "[method]descriptor.append-via-stream", "ii"),
    (TYPES, "[method]descriptor.set-size", "iIi"),
    (TYPES, "[method]descriptor.set-times", "iiIiiIii"),
    (TYPES, "[method]descriptor.create-directory-at", "iiii"),
    (TYPES, "[method]descriptor.unlink-file-at", "iiii"),
    (TYPES, "[method]descriptor.remove-directory-at", "iiii"),
    (TYPES, "[method]descriptor.rename-at", "iiiiiii"),
    (STREAMS, "[method]input-stream.blocking-read", "iIi"),
    (STREAMS, "[method]input-stream.skip", "iIi"),
    (STREAMS, "[resource-drop]input-stream", "i"),
    (TYPES, "[resource-drop]descriptor", "i"),
    (TYPES, "[method]descriptor.link-at", "iiiiiiii"),
    (TYPES, "[method]descriptor.symlink-at", "iiiiii"),
    (TYPES, "filesystem-error-code", "ii"),
    (STREAMS, "[method]output-stream.check-write", "ii"),
    (STREAMS, "[method]output-stream.blocking-write-and-flush", "iiii"),
    (STREAMS, "[method]output-stream.splice", "iiIi"),
    (STREAMS, "[resource-drop]output-stream", "i"),
    (ERROR, "[method]error.to-debug-string", "ii"),
    (ERROR, "[resource-drop]error", "i"),
];

/// The functions of preview 1, with a letter for each argument: `i` has 32 bits, `I` 64.
pub(super) const FUNCTIONS: [(&str, &str); 32] = [
    ("fd_prestat_get", "ii"),
    ("fd_prestat_dir_name", "iii"),
    ("path_open", "iiiiiIIii"),
    ("fd_read", "iiii"),
    ("fd_pread", "iiiIi"),
    ("fd_seek", "iIii"),
    ("fd_tell", "ii"),
    ("fd_readdir", "iiiIi"),
    ("fd_filestat_get", "ii"),
    ("path_filestat_get", "iiiii"),
    ("path_readlink", "iiiiii"),
    ("fd_fdstat_get", "ii"),
    ("fd_fdstat_set_flags", "ii"),
    ("fd_renumber", "ii"),
    ("fd_close", "i"),
    ("fd_advise", "iIIi"),
    ("poll_oneoff", "iiii"),
    ("fd_write", "iiii"),
    ("fd_pwrite", "iiiIi"),
    ("fd_allocate", "iII"),
    ("fd_filestat_set_size", "iI"),
    ("fd_filestat_set_times", "iIIi"),
    ("fd_sync", "i"),
    ("fd_datasync", "i"),
    ("path_create_directory", "iii"),
    ("path_link", "iiiiiii"),
    ("path_rename", "iiiiii"),
    ("path_symlink", "iiiii"),
    ("path_unlink_file", "iii"),
    ("path_remove_directory", "iii"),
    ("path_filestat_set_times", "iiiiIIi"),
    ("fd_fdstat_set_rights", "iII"),
];

/// Returns the program in text form.
pub(super) fn module() -> String {
    let functions = FUNCTIONS.map(|(name, arguments)| ("wasi_snapshot_preview1", name, arguments));
    of_functions(functions.into_iter())
}

/// Returns the program with the functions of 0.2, behind those of preview 1.
pub(super) fn module_02() -> String {
    let functions = FUNCTIONS.map(|(name, arguments)| ("wasi_snapshot_preview1", name, arguments));
    of_functions(functions.into_iter().chain(FUNCTIONS_02))
}

fn of_functions(
    functions: impl Iterator<Item = (&'static str, &'static str, &'static str)>,
) -> String {
    let (mut imports, mut cases) = (String::new(), String::new());
    for (number, (interface, name, arguments)) in functions.enumerate() {
        let returns = interface == "wasi_snapshot_preview1" || arguments.ends_with('=');
        let arguments = arguments.trim_end_matches('=');
        let types = arguments.chars().map(|letter| if letter == 'i' { "i32" } else { "i64" });
        let types = types.collect::<Vec<_>>().join(" ");
        let result = if returns { "(result i32)" } else { "" };
        let id = if returns && interface == "wasi_snapshot_preview1" {
            name.to_owned()
        } else {
            format!("f{number}")
        };
        let import =
            format!("(import \"{interface}\" \"{name}\" (func ${id} (param {types}) {result}))\n");
        imports.push_str(&import);
        let mut given = String::new();
        for (place, letter) in arguments.chars().enumerate() {
            let (load, offset) = (if letter == 'i' { "i32" } else { "i64" }, 8 + place * 8);
            write!(given, " ({load}.load offset={offset} (local.get $call))").expect("a text");
        }
        let call = if returns {
            format!("(local.set $errno (call ${id}{given}))")
        } else {
            format!("(call ${id}{given}) (local.set $errno (i32.const 0))")
        };
        let case = format!(
            "(if (i32.eq (i32.load (local.get $call)) (i32.const {number})) (then {call}))\n"
        );
        cases.push_str(&case);
    }
    format!(
        r#"(module
  {imports}
  (memory (export "memory") 64)
  (global $heap (mut i32) (i32.const 0))
  (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32) (local $at i32)
    (local.set $at (global.get $heap))
    (global.set $heap (i32.and (i32.add (i32.add (local.get $at) (local.get 3)) (i32.const 7)) (i32.const -8)))
    (local.get $at))
  (func (export "_start")
    (local $call i32) (local $left i32) (local $errno i32) (local $out i32) (local $shown i32)
    ;; All of stdin.
    (local.set $out (i32.const {INPUT}))
    (loop $more
      (i32.store (i32.const 0) (local.get $out))
      (i32.store (i32.const 4) (i32.const 65536))
      (drop (call $fd_read (i32.const 0) (i32.const 0) (i32.const 1) (i32.const 8)))
      (local.set $out (i32.add (local.get $out) (i32.load (i32.const 8))))
      (br_if $more (i32.load (i32.const 8))))
    (local.set $shown (i32.load (i32.const {INPUT})))
    (local.set $left (i32.load offset=4 (i32.const {INPUT})))
    (local.set $call (i32.const {first}))
    (local.set $out (i32.const {OUTPUT}))
    (loop $next (if (local.get $left) (then
      (memory.fill (i32.const {AREA}) (i32.const 0) (i32.const 65536))
      (global.set $heap (i32.const {ROOM}))
      (local.set $errno (i32.const -1))
      {cases}
      (i32.store (local.get $out) (local.get $errno))
      (memory.copy (i32.add (local.get $out) (i32.const 4)) (i32.const {AREA}) (local.get $shown))
      (local.set $out (i32.add (local.get $out) (i32.add (local.get $shown) (i32.const 4))))
      (local.set $call (i32.add (local.get $call) (i32.const {CALL_BYTES})))
      (local.set $left (i32.sub (local.get $left) (i32.const 1)))
      (br $next))))
    (i32.store (i32.const 0) (i32.const {OUTPUT}))
    (i32.store (i32.const 4) (i32.sub (local.get $out) (i32.const {OUTPUT})))
    (drop (call $fd_write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 8)))))"#,
        first = INPUT + HEAD_BYTES,
    )
}

/// Returns name and arguments of a function by its number.
fn function_of(number: usize) -> Option<(&'static str, &'static str)> {
    let behind = number.checked_sub(FUNCTIONS.len());
    match behind {
        None => Some(FUNCTIONS[number]),
        Some(number) => FUNCTIONS_02.get(number).map(|(_, name, arguments)| (*name, *arguments)),
    }
}

/// The calls that the program is told to make.
#[derive(Debug, Clone, Default)]
pub(super) struct Script {
    calls: Vec<(usize, Vec<u64>)>,
    blob: Vec<u8>,
}

/// What one call gave.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Gave {
    pub(super) errno: u32,
    pub(super) area: Vec<u8>,
}

impl Gave {
    /// Returns a number of the area.
    pub(super) fn number(&self, at: usize) -> u64 {
        u64::from_le_bytes(self.area[at..at + 8].try_into().expect("eight bytes"))
    }

    /// Returns a text of the area, whose address and size stand there.
    pub(super) fn string(&self, at: usize) -> String {
        let number = self.number(at);
        let start = usize::try_from((number & 0xFFFF_FFFF) - u64::from(AREA)).expect("in the area");
        let size = usize::try_from(number >> 32).expect("small");
        String::from_utf8_lossy(&self.area[start..start + size]).into_owned()
    }

    pub(super) fn text(&self, size: usize) -> String {
        String::from_utf8_lossy(&self.area[..size]).into_owned()
    }
}

impl Script {
    /// Adds a call.
    pub(super) fn call(&mut self, function: &str, arguments: &[u64]) -> &mut Self {
        let place = (0..).map_while(function_of).position(|(name, _)| name == function);
        let place = place.expect("a function of the tables");
        let letters = function_of(place).expect("found").1;
        assert_eq!(letters.trim_end_matches('=').len(), arguments.len(), "{function}");
        self.calls.push((place, arguments.to_vec()));
        assert!(self.calls.len() <= usize::try_from(CALLS_MAX).expect("small"));
        self
    }

    /// Puts bytes where the program can point to. Returns their address and size.
    pub(super) fn put(&mut self, bytes: &[u8]) -> [u64; 2] {
        self.blob.resize(self.blob.len().next_multiple_of(8), 0);
        let at = u64::from(BLOB) + self.blob.len() as u64;
        self.blob.extend_from_slice(bytes);
        [at, bytes.len() as u64]
    }

    /// Puts a list of buffers.
    pub(super) fn vectors(&mut self, buffers: &[(u32, u32)]) -> [u64; 2] {
        let numbers = buffers.iter().flat_map(|(at, size)| [*at, *size]);
        let bytes: Vec<u8> = numbers.flat_map(u32::to_le_bytes).collect();
        let [at, _] = self.put(&bytes);
        [at, buffers.len() as u64]
    }

    /// Adds an opening for reading; its number lies at the start of the area.
    pub(super) fn open(&mut self, folder: u64, path: &str, flags: u64) -> &mut Self {
        let [at, size] = self.put(path.as_bytes());
        self.call("path_open", &[folder, 1, at, size, flags, 2, 2, 0, AREA.into()])
    }

    pub(super) fn names(&self) -> Vec<&'static str> {
        self.calls.iter().filter_map(|(function, _)| Some(function_of(*function)?.0)).collect()
    }

    pub(super) fn described(&self, call: usize) -> String {
        let (function, arguments) = &self.calls[call];
        let name = function_of(*function).map_or("", |(name, _)| name);
        // Numbers that point into the blob, as texts.
        let texts = arguments.windows(2).filter_map(|pair| {
            let start = usize::try_from(pair[0].checked_sub(BLOB.into())?).ok()?;
            let end = start.checked_add(usize::try_from(pair[1]).ok()?)?;
            Some(String::from_utf8_lossy(self.blob.get(start..end)?))
        });
        format!("call {call}: {name}{arguments:?} {:?}", texts.collect::<Vec<_>>())
    }

    /// Returns the program's stdin.
    pub(super) fn stdin(&self, shown: u32) -> Vec<u8> {
        let mut bytes = vec![0; usize::try_from(BLOB - INPUT).expect("small")];
        bytes[..4].copy_from_slice(&shown.to_le_bytes());
        bytes[4..8].copy_from_slice(&u32::try_from(self.calls.len()).expect("few").to_le_bytes());
        for (place, (function, arguments)) in self.calls.iter().enumerate() {
            let start = usize::try_from(HEAD_BYTES).expect("small")
                + place * usize::try_from(CALL_BYTES).expect("small");
            let numbers = std::iter::once(*function as u64).chain(arguments.iter().copied());
            for (number, at) in numbers.zip((start..).step_by(8)) {
                bytes[at..at + 8].copy_from_slice(&number.to_le_bytes());
            }
        }
        bytes.extend_from_slice(&self.blob);
        bytes
    }

    /// Reads the program's stdout.
    pub(super) fn gave(&self, shown: u32, stdout: &[u8]) -> Vec<Gave> {
        let size = 4 + usize::try_from(shown).expect("small");
        assert_eq!(stdout.len(), self.calls.len() * size, "each call is told");
        let row = |row: &[u8]| Gave {
            errno: u32::from_le_bytes(row[..4].try_into().expect("four bytes")),
            area: row[4..].to_vec(),
        };
        stdout.chunks_exact(size).map(row).collect()
    }
}
