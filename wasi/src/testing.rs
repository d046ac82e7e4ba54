//! A guest and a host for tests: memories that are vectors, and calls in any order with any arguments.

use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::LazyLock;

use proptest::prelude::*;

use crate::blocks::{BLOCK_BYTES, Block, Blocks};
use crate::content::Piece;
use crate::descriptors::{DESCRIPTORS_MAX, DESCRIPTORS_NEAR, Descriptor};
use crate::filesystem::{At, OpenFlags};
use crate::handles::{Entry, HANDLES_MAX, Kind, NEAR};
use crate::io::May;
use crate::pack;
use crate::preview1::Which;
use crate::scratch::Head;
use crate::{State, Wasi, World};

const GUEST_BYTES: usize = 64 * 1024;
const OWN_BYTES: usize = 512 * 1024;
const BASE: u32 = 4096;

/// What host and guest keep.
#[derive(Default)]
struct Sides {
    memory: Vec<u8>,
    heap: u32,
    log: Vec<String>,
    now: u64,
    body: Vec<u8>,
    sent: Vec<u8>,
    starts: u32,
    /// Fields that were written behind bodies.
    trailers: u32,
    /// Requests that were sent and not closed: what was asked of each.
    fetches: std::collections::BTreeMap<u32, u32>,
    fetched: u32,
    files: &'static [u8],
}

impl Sides {
    /// Returns how often a request was asked for something before. A handle that names none is a fault.
    fn ask(&mut self, handle: u32) -> u32 {
        let asked = self.fetches.get_mut(&handle).expect("a handle that the host knows");
        *asked += 1;
        *asked
    }
}

thread_local! {
    static SIDES: RefCell<Sides> = RefCell::default();
}

/// Guest and host, and the blocks of the folder in memory.
#[derive(Default)]
pub(crate) struct Test(Vec<Block>);

/// Blocks that there is memory for, whatever the bundles say.
pub(crate) const BLOCKS_MAX: u32 = 40;

impl Blocks for Test {
    fn block(&self, number: u32) -> &Block {
        &self.0[number as usize - 1]
    }

    fn block_mut(&mut self, number: u32) -> &mut Block {
        &mut self.0[number as usize - 1]
    }

    fn reach(&mut self, number: u32) -> bool {
        let can = number <= BLOCKS_MAX;
        if can && self.0.len() < number as usize {
            self.0.resize(number as usize, [0; BLOCK_BYTES]);
        }
        can
    }
}

fn sides<R>(action: impl FnOnce(&mut Sides) -> R) -> R {
    SIDES.with(|sides| action(&mut sides.borrow_mut()))
}

/// Ends a call as a trap does; told from a fault of this module by its text.
fn trapped(reason: &str) -> ! {
    panic!("trap: {reason}")
}

impl World for Test {
    fn memory_size(&self) -> u64 {
        sides(|sides| sides.memory.len() as u64)
    }

    fn read(&self, address: u32, target: &mut [u8]) {
        let start = address as usize;
        let done = sides(|sides| {
            let source = sides.memory.get(start..start + target.len());
            source.map(|source| target.copy_from_slice(source)).is_some()
        });
        if !done {
            trapped("read out of bounds");
        }
    }

    fn write(&mut self, address: u32, bytes: &[u8]) {
        let start = address as usize;
        let done = sides(|sides| {
            let target = sides.memory.get_mut(start..start + bytes.len());
            target.map(|target| target.copy_from_slice(bytes)).is_some()
        });
        if !done {
            trapped("write out of bounds");
        }
    }

    fn read_to_block(&mut self, address: u32, piece: &Piece) {
        let mut bytes = vec![0; piece.range.len()];
        self.read(address, &mut bytes);
        self.block_mut(piece.block)[piece.range.clone()].copy_from_slice(&bytes);
    }

    fn write_from_block(&mut self, address: u32, piece: &Piece) {
        let bytes = self.block(piece.block)[piece.range.clone()].to_vec();
        self.write(address, &bytes);
    }

    fn realloc(&mut self, _: u32, _: u32, align: u32, size: u32) -> u32 {
        sides(|sides| {
            let at = sides.heap.next_multiple_of(align.max(1));
            sides.heap = at.saturating_add(size);
            at
        })
    }

    fn files(&self) -> &'static [u8] {
        sides(|sides| sides.files)
    }

    fn log(&mut self, _: i32, line: &[u8]) {
        sides(|sides| sides.log.push(String::from_utf8_lossy(line).into_owned()));
    }

    fn wall_ns(&self) -> u64 {
        1_700_000_000_000_000_000
    }

    fn monotonic_ns(&self) -> u64 {
        sides(|sides| {
            sides.now += 1000;
            sides.now
        })
    }

    fn random(&mut self, target: &mut [u8]) {
        target.fill(7);
    }

    fn body_read(&mut self, target: &mut [u8]) -> usize {
        sides(|sides| {
            let size = target.len().min(sides.body.len());
            target[..size].copy_from_slice(&sides.body[..size]);
            sides.body.drain(..size);
            size
        })
    }

    fn response_start(&mut self, record: u32) {
        assert!(record >= BASE && record.is_multiple_of(4));
        sides(|sides| sides.starts += 1);
    }

    fn response_write(&mut self, piece: &[u8]) {
        sides(|sides| sides.sent.extend_from_slice(piece));
    }

    fn sleep_ns(&mut self, ns: u64) {
        sides(|sides| sides.now = sides.now.saturating_add(ns));
    }

    fn fetch(&mut self, record: u32) -> i32 {
        assert!(record >= BASE && record.is_multiple_of(8));
        sides(|sides| {
            if sides.fetches.len() == 16 {
                return -2 - 11;
            }
            sides.fetched += 1;
            sides.fetches.insert(sides.fetched, 0);
            i32::try_from(sides.fetched).unwrap()
        })
    }

    fn fetch_write(&mut self, handle: u32, piece: &[u8]) -> i32 {
        assert!(!piece.is_empty());
        let taken = i32::try_from(piece.len().min(1000)).unwrap();
        sides(|sides| if sides.ask(handle) % 3 == 1 { -1 } else { taken })
    }

    fn fetch_finish(&mut self, handle: u32) -> i32 {
        sides(|sides| sides.ask(handle));
        0
    }

    fn fetch_head(&mut self, handle: u32, target: &mut [u8]) -> i32 {
        let asked = sides(|sides| sides.ask(handle));
        match asked % 8 {
            1 => -1,
            3 => -2 - 33,
            _ => {
                // 200, with one header: `a: b`.
                target[..8].copy_from_slice(&[200, 0, 0, 0, 1, 0, 0, 0]);
                for (at, number) in [(8, 24u32), (12, 1), (16, 25), (20, 1)] {
                    target[at..at + 4].copy_from_slice(&number.to_le_bytes());
                }
                target[24..26].copy_from_slice(b"ab");
                26
            }
        }
    }

    fn fetch_read(&mut self, handle: u32, target: &mut [u8]) -> i32 {
        assert!(!target.is_empty());
        let asked = sides(|sides| sides.ask(handle));
        match asked % 5 {
            4 => 0,
            // Whatever it is asked between, a response ends.
            _ if asked > 40 => 0,
            1 | 3 => -1,
            _ => {
                target[0] = b'x';
                1
            }
        }
    }

    fn fetch_close(&mut self, handle: u32) {
        sides(|sides| {
            sides.ask(handle);
            sides.fetches.remove(&handle);
        });
    }

    fn trailers_read(&mut self, handle: u32, target: &mut [u8]) -> i32 {
        let asked = if handle == 0 { 0 } else { sides(|sides| sides.ask(handle)) };
        match asked % 4 {
            // One field: `a: b`.
            0 | 1 => {
                target[..8].copy_from_slice(&[0, 0, 0, 0, 1, 0, 0, 0]);
                for (at, number) in [(8, 24u32), (12, 1), (16, 25), (20, 1)] {
                    target[at..at + 4].copy_from_slice(&number.to_le_bytes());
                }
                target[24..26].copy_from_slice(b"ab");
                26
            }
            2 => 0,
            _ => -2 - 25,
        }
    }

    fn trailers_write(&mut self, handle: u32, rows: u32, count: u32) -> i32 {
        assert!(rows >= BASE && rows.is_multiple_of(4) && 0 < count && count <= 64);
        sides(|sides| {
            if handle == 0 {
                assert!(sides.starts > 0, "a response has begun that is ended");
            } else {
                sides.ask(handle);
            }
            sides.trailers += count;
        });
        0
    }

    fn wait(&mut self, rows: &mut [u8], time: i64) {
        assert!(rows.len().is_multiple_of(8) && !rows.is_empty());
        for row in rows.chunks_exact_mut(8) {
            let handle = u32::from_le_bytes(*row[4..].first_chunk().unwrap());
            if row[0] != crate::fetch::WAIT_BODY {
                sides(|sides| sides.ask(handle));
            }
            row[2..4].copy_from_slice(&[1, 0]);
        }
        sides(|sides| sides.now = sides.now.saturating_add(u64::try_from(time).unwrap_or(0)));
    }

    fn exit(&mut self, _: u32) -> ! {
        trapped("exit")
    }

    fn trap(&mut self, reason: &str) -> ! {
        trapped(reason)
    }
}

/// Lays out a block: `POST /a?b` with two headers and a body of five bytes, of which there is more.
fn block(bytes: &mut [u8]) -> u32 {
    let text = b"POST /a?b HTTP/1.1 a.b:80 x-one 1 cookie c hello";
    let at = 128 + 32;
    bytes[at..at + text.len()].copy_from_slice(text);
    let find = |part: &[u8]| {
        let place = text.windows(part.len()).position(|window| window == part).unwrap();
        (crate::wire(at + place), crate::wire(part.len()))
    };
    let mut put = |at: usize, value: u32| bytes[at..at + 4].copy_from_slice(&value.to_le_bytes());
    let size = crate::wire(at + text.len());
    put(0, size);
    put(4, 1 | 3 << 16);
    put(8, 2);
    put(12, 2);
    put(16, 128);
    let parts: [(usize, &[u8]); 10] = [
        (24, b"POST"),
        (32, b"/a?b"),
        (40, b"/a"),
        (48, b"b"),
        (56, b"a.b:80"),
        (64, b"hello"),
        (128, b"x-one"),
        (136, b"1"),
        (144, b"cookie"),
        (152, b"c"),
    ];
    for (at, part) in parts {
        let (start, size) = find(part);
        put(at, start);
        put(at + 4, size);
    }
    size
}

/// One call of the guest's: which function, and its arguments.
type Call = (u8, u32, u32, u32, u32, u32);

fn call(w: &mut Wasi<'_, Test>, (function, a, b, c, d, e): Call) {
    let kinds = [
        Kind::Fields,
        Kind::Request,
        Kind::OutgoingBody,
        Kind::Output,
        Kind::Pollable,
        Kind::FutureResponse,
        Kind::IncomingResponse,
        Kind::IncomingBody,
        Kind::Input,
        Kind::Trailers,
    ];
    let may = if e & 1 == 0 { May::Wait } else { May::NotWait };
    let text = crate::outgoing::OptionalText { is_some: b & 3, text: [c, d] };
    let (path, at) = ([b, c], At { this: a, path: [b, c] });
    match function % 122 {
        0 => drop(w.fields_new()),
        1 => w.fields_from_list(b, c, d),
        2 => w.fields_get(a, b, c, d),
        3 => drop(w.fields_has(a, b, c)),
        4 => w.fields_set(a, [b, c], [d, e], 64),
        5 => w.fields_delete(a, b, c, d),
        6 => w.fields_append(a, [b, c], [d, e], 64),
        7 => w.fields_entries(a, b),
        8 => drop(w.fields_clone(a)),
        9 => w.request_method(a, b),
        10 => w.request_path(a, b),
        11 => w.request_scheme(a, b),
        12 => w.request_authority(a, b),
        13 => drop(w.request_headers(a)),
        14 => w.request_consume(a, b),
        15 => w.incoming_stream(a, b),
        16 => drop(w.incoming_finish(a)),
        17 => w.trailers_get(a, b),
        18 => drop(w.response_new(a)),
        19 => drop(w.response_set_status(a, b)),
        20 => drop(w.response_headers(a)),
        21 => w.response_body(a, b),
        22 => w.outgoing_write(a, b),
        23 => w.outgoing_finish(a, b & 3, c, d),
        24 => w.outparam_set(a, b & 3, c),
        25 => w.input_read(a, u64::from(b), c, may),
        26 => w.input_skip(a, u64::from(b), c, may),
        27 => drop(w.input_subscribe(a)),
        28 => w.output_check(a, b),
        29 => w.output_write(a, b, c, d),
        30 => w.output_zeros(a, u64::from(b), c),
        31 => w.output_flush(a, b),
        32 => drop(w.output_subscribe(a)),
        33 => w.output_splice(a, b, u64::from(c), d, may),
        34 => w.poll(a, b, c),
        35 => drop(w.subscribe_duration(u64::from(a))),
        36 => w.random_bytes(u64::from(a), b),
        37 => drop(w.line_stream(a & 1)),
        38 => w.drop_resource(a, &kinds),
        39 => w.strings_list(if a & 1 == 0 { Which::Arguments } else { Which::Environment }, b),
        40 => drop(w.fd_write(a & 3, b, c, d)),
        41 => drop(w.fd_read(a & 3, b, c, d)),
        42 => drop(w.poll_oneoff(a, b, c, d)),
        43 => drop(w.strings_get(Which::Environment, a, b)),
        44 => drop(w.outgoing_new(a)),
        45 => drop(w.outgoing_headers(a)),
        46 => w.outgoing_body(a, b),
        47 => w.outgoing_method(a, b),
        48 => drop(w.outgoing_set_method(a, b, [c, d])),
        49 => w.outgoing_path(a, b),
        50 => drop(w.outgoing_set_path(a, text)),
        51 => w.outgoing_scheme(a, b),
        52 => drop(w.outgoing_set_scheme(a, b & 3, c, [d, e])),
        53 => drop(w.outgoing_set_authority(a, text)),
        54 => drop(w.options_new()),
        55 => w.options_get(a, b % 3, c),
        56 => drop(w.options_set(a, b % 3, c & 3, u64::from(d) << 20)),
        57 => w.outgoing_handle(a, b & 3, c, d),
        58 => drop(w.path_open(a, [b & 1, b, b >> 3], [c, d], u64::from(e), 64)),
        59 | 60 => drop(w.path_open(3, [1, b & 3, 0], [c & 31, d % 10], 2, 64)),
        61 => drop(w.fd_read(a, b, c & 7, d)),
        62 => drop(w.fd_pread(a, [b, c & 7], u64::from(d) << (e & 63), 64)),
        63 => drop(w.fd_seek(a, i64::from(b.cast_signed()) << (c & 31), d & 3, 64)),
        64 => drop(w.fd_tell(a, b)),
        65 => drop(w.fd_readdir(a, [b, c], d.into(), 64)),
        66 => drop(w.fd_filestat(a, b)),
        67 => drop(w.path_facts(a, b, [c, d], 64)),
        68 => drop(w.path_readlink(a, path, [d, e], 64)),
        69 => drop(w.fd_stat(a, b)),
        70 => drop((w.fd_set_flags(a, b), w.fd_set_rights(a), w.fd_sync(a))),
        71 => drop(w.fd_renumber(a, b)),
        72 => drop(w.fd_close(a)),
        73 => drop((
            w.fd_advise(a, b),
            w.fd_allocate(a, u64::from(c) << (d & 31), b.into()),
            w.set_size(a, u64::from(b) << (d & 31)),
            w.set_times(a, [c.into(), d.into()], e),
        )),
        74 => drop((w.prestat(a, b), w.prestat_name(a, c, d))),
        75 => drop(w.path_make(a, path)),
        76 => drop((w.path_unlink(a, path), w.path_remove_folder(a, path))),
        77 => drop(w.path_rename((a, path), (d, [b, e]))),
        78 => drop((w.fd_pwrite(a, [b, c & 7], d.into(), 64), w.fd_socket(a))),
        79 => w.directories(a),
        80 => w.open_at(at, OpenFlags { path: d & 1, open: d >> 1, descriptor: e }, 64),
        81 => w.descriptor_read(a, b.into(), u64::from(c) << (d & 63), e),
        82 => w.read_via_stream(a, u64::from(b) << (c & 63), d),
        83 => w.descriptor_stat(a, b),
        84 => w.stat_at(at, d, e),
        85 => w.read_directory(a, b),
        86 => w.read_directory_entry(a, b),
        87 => w.readlink_at(at, d),
        88 => w.metadata_hash_at(at, d, e),
        89 => drop(w.is_same_object(a, b)),
        90 => w.descriptor_write(a, [b, c], d.into(), 64),
        91 => w.make_folder_at(at, d),
        92 => w.remove_folder_at(at, d),
        93 => w.rename_at(at, At { this: d, path: [b, e] }, 64),
        94 => {
            let kinds = [Kind::Descriptor, Kind::Entries, Kind::File, Kind::FileOutput];
            w.drop_resource(a, &kinds);
        }
        95 => drop(w.future_subscribe(a)),
        96 => w.future_get(a, b),
        97 => drop(w.response_in_headers(a)),
        98 => w.response_in_consume(a, b),
        99 => w.output_drain(a),
        100 => drop(w.pollable_ready(a)),
        101 => w.pollable_block(a),
        102 => w.write_via_stream(a, u64::from(b) << (c & 31), d),
        103 => drop(w.fd_write(a, b, c & 7, d)),
        104 | 105 => drop(w.path_open(3, [1, 1 | b & 12, d & 5], [c & 31, d % 10], 66, 64)),
        106 => drop(w.path_link(d, (a, path), (3, [c, e & 7]))),
        107 => drop(w.path_symlink(path, a, [d, e & 7])),
        108 => drop(w.path_times(a, d, path, [d.into(), e.into()], e)),
        109 => drop(w.path_make(3, [b & 31, c % 10])),
        110 => w.append_via_stream(a, b),
        111 => w.descriptor_set_size(a, u64::from(b) << (c & 31), d),
        112 => w.set_times_at(at, d, [(e & 3, e.into(), d), (d & 3, b.into(), e)], 64),
        113 => w.symlink_at(path, At { this: d, path: [b, e & 7] }, 64),
        114 => w.unlink_at(at, d),
        115 => w.link_at(d, at, At { this: 1, path: [c, e & 7] }, 64),
        116 | 117 => {
            let at = At { this: 1, path: [c & 31, d % 10] };
            w.open_at(at, OpenFlags { path: 1, open: 1 | b & 8, descriptor: 3 }, 64);
        }
        118 => w.make_folder_at(At { this: 1, path: [b & 31, c % 10] }, 64),
        119 => w.file_error_code(a, b),
        120 => drop(w.trailers_subscribe(a)),
        _ => w.error_text(a, b),
    }
}

/// Gives a fresh module with guest and host to an action; a request has not begun.
pub(crate) fn with_fresh<R>(
    memory: &[u8],
    files: &'static [u8],
    action: impl FnOnce(&mut Wasi<'_, Test>) -> R,
) -> R {
    sides(|sides| {
        *sides = Sides { memory: vec![0; GUEST_BYTES], heap: 32_768, ..Sides::default() };
        sides.memory[..memory.len()].copy_from_slice(memory);
        sides.body = b"more of the body".to_vec();
        sides.files = files;
    });
    action(&mut Wasi {
        state: &mut State::new(),
        bytes: &mut vec![0; OWN_BYTES],
        more: &mut vec![Entry::FREE; HANDLES_MAX - NEAR],
        descriptors: &mut vec![Descriptor::CLOSED; DESCRIPTORS_MAX - DESCRIPTORS_NEAR],
        scratch: &mut Head::new(),
        base: BASE,
        world: Test::default(),
    })
}

/// Lets a request begin.
pub(crate) fn begin(wasi: &mut Wasi<'_, Test>, is_command: bool) {
    let size = block(wasi.bytes);
    if is_command {
        wasi.begin_command(size);
    } else {
        wasi.begin(size);
    }
}

/// Runs calls until one traps. Returns the text of the trap, or of a fault.
fn run(calls: &[Call], is_command: bool, memory: &[u8], files: &'static [u8]) -> Option<String> {
    let ended = catch_unwind(AssertUnwindSafe(|| {
        with_fresh(memory, files, |wasi| {
            begin(wasi, is_command);
            for one in calls {
                call(wasi, *one);
            }
            let record = if is_command { wasi.end_command(0) } else { wasi.end() };
            assert!(record == 0 || record >= BASE, "a record lies in this module's memory");
        });
    }));
    let panic = ended.err()?;
    let text = panic.downcast_ref::<String>().cloned();
    Some(text.or_else(|| panic.downcast_ref::<&str>().map(ToString::to_string)).unwrap_or_default())
}

fn number() -> impl Strategy<Value = u32> {
    prop_oneof![
        6 => 0u32..10,
        4 => (0u32..64).prop_map(|number| number * 4),
        1 => 65_500u32..65_600,
        1 => any::<u32>(),
    ]
}

/// Bundles: none, a whole one, and some with bytes changed or missing, which no check of the loader's has seen.
fn files() -> impl Strategy<Value = &'static [u8]> {
    static BUNDLES: LazyLock<Vec<Vec<u8>>> = LazyLock::new(bundles);
    (0..BUNDLES.len()).prop_map(|place| BUNDLES[place].as_slice())
}

fn bundles() -> Vec<Vec<u8>> {
    let of = |entries: Vec<(&str, pack::Entry)>| -> pack::Folder {
        entries.into_iter().map(|(name, entry)| (name.to_owned(), entry)).collect()
    };
    let inner =
        of(vec![("a", pack::Entry::File(vec![3; 300])), ("b", pack::Entry::Link("../b".into()))]);
    let outer = of(vec![
        ("a", pack::Entry::Folder(inner)),
        ("b", pack::Entry::File(b"content".to_vec())),
        ("aa", pack::Entry::Link("a/b".into())),
    ]);
    let folders = [("/".to_owned(), outer)];
    let scratch = pack::Scratch { guest: "/tmp".into(), bytes: 1 << 20 };
    let whole = pack::pack(&folders, None).unwrap();
    // The folder in memory alone, which is the first that there is, and behind the other.
    let alone = pack::pack(&[], Some(&scratch)).unwrap();
    let both = pack::pack(&folders, Some(&scratch)).unwrap();
    let mut bundles = vec![Vec::new(), whole.clone(), both];
    bundles.extend(std::iter::repeat_n(alone, 1000));
    for place in 0..whole.len().min(220) {
        for value in [0, 1, 0x7F, 0xFF] {
            let mut broken = whole.clone();
            broken[place] = value;
            bundles.push(broken);
        }
        bundles.push(whole[..place].to_vec());
    }
    bundles
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4000))]

    /// Whatever a guest calls, with whatever arguments: it works, or it traps with a reason. Nothing in this
    /// module panics.
    #[test]
    fn any_calls_work_or_trap(
        calls in proptest::collection::vec(
            (0u8..242, number(), number(), number(), number(), number()),
            0..40,
        ),
        is_command: bool,
        memory in proptest::collection::vec(
            prop_oneof![any::<u8>(), 0u8..9, prop::sample::select(&b"ab/."[..])],
            512,
        ),
        files in files(),
    ) {
        if let Some(text) = run(&calls, is_command, &memory, files) {
            prop_assert!(text.starts_with("trap: "), "{text}");
        }
    }
}

/// A request of the guest's, sent with a body, answered, read to its end, and dropped.
#[test]
fn a_request_is_sent_and_answered() {
    let authority = 512;
    let calls = [
        (0, 0, 0, 0, 0, 0),          // 3: fields
        (44, 3, 0, 0, 0, 0),         // 3: the request
        (53, 3, 1, authority, 3, 0), // its authority
        (46, 3, 256, 0, 0, 0),       // 4: its body
        (57, 3, 0, 0, 264, 0),       // 3: sent
        (22, 4, 256, 0, 0, 0),       // 5: a stream
        (29, 5, 0, 5, 256, 0),       // written
        (99, 5, 0, 0, 0, 0),         // and all of it sent
        (38, 5, 0, 0, 0, 0),
        (23, 4, 0, 0, 272, 0), // the body's end
        (95, 3, 0, 0, 0, 0),   // 4: waited for
        (101, 4, 0, 0, 0, 0),
        (38, 4, 0, 0, 0, 0),
        (96, 3, 304, 0, 0, 0),   // 4: the response
        (98, 4, 256, 0, 0, 0),   // 5: its body
        (15, 5, 256, 0, 0, 0),   // 6: a stream
        (25, 6, 100, 256, 0, 0), // read
        (38, 6, 0, 0, 0, 0),
        (38, 5, 0, 0, 0, 0),
        (38, 4, 0, 0, 0, 0),
        (38, 3, 0, 0, 0, 0),
    ];
    let mut memory = vec![0; 600];
    memory[authority as usize..][..3].copy_from_slice(b"a.b");
    assert_eq!(run(&calls, false, &memory, b""), None);
    sides(|sides| {
        assert_eq!(sides.fetched, 1);
        assert!(sides.fetches.is_empty(), "it was closed");
    });
}

#[test]
fn a_response_is_laid_out_for_the_host() {
    // fields, response, body, set, write, say, drop, finish: handles in the order in which they are made.
    let calls = [
        (0, 0, 0, 0, 0, 0),
        (18, 3, 0, 0, 0, 0),
        (21, 3, 256, 0, 0, 0),
        (24, 2, 0, 3, 0, 0),
        (22, 4, 256, 0, 0, 0),
        (29, 2, 0, 5, 256, 0),
        (38, 2, 0, 0, 0, 0),
        (23, 4, 0, 0, 256, 0),
    ];
    assert_eq!(run(&calls, false, b"hello", &[]), None);
}

/// What came behind the request's body is told once, and what stands behind the response's is handed over.
#[test]
fn trailers_are_read_and_written() {
    let calls = [
        (14, 1, 256, 0, 0, 0), // 3: the request's body, of which nothing is read
        (16, 3, 0, 0, 0, 0),   // 3: its trailers
        (120, 3, 0, 0, 0, 0),  // 4: waited for
        (101, 4, 0, 0, 0, 0),
        (38, 4, 0, 0, 0, 0),
        (17, 3, 320, 0, 0, 0), // 4: found
        (17, 3, 384, 0, 0, 0), // taken once
        (0, 0, 0, 0, 0, 0),    // 5: fields
        (18, 5, 0, 0, 0, 0),   // 5: the response
        (21, 5, 256, 0, 0, 0), // 6: its body
        (24, 2, 0, 5, 0, 0),
        (8, 4, 0, 0, 0, 0), // 2: the trailers, once more
        (23, 6, 1, 2, 448, 0),
    ];
    assert_eq!(run(&calls, false, b"", b""), None);
    sides(|sides| {
        assert!(sides.body.is_empty(), "it was passed over");
        let at = |at: usize| sides.memory[at];
        assert_eq!(
            [at(320), at(328), at(336), at(344), at(348)],
            [1, 0, 0, 1, 4],
            "there are some"
        );
        assert_eq!([at(384), at(392)], [1, 1], "and they were taken");
        assert_eq!(at(448), 0, "the body has ended well");
        assert_eq!((sides.starts, sides.trailers), (1, 1));
    });
}

/// A response of another server is over when its trailers are taken, or given up.
#[test]
fn trailers_of_a_fetch_hold_it() {
    let get = [
        (0, 0, 0, 0, 0, 0),    // 3: fields
        (44, 3, 0, 0, 0, 0),   // 3: the request
        (53, 3, 1, 512, 3, 0), // its authority
        (57, 3, 0, 0, 264, 0), // 3: sent
        (95, 3, 0, 0, 0, 0),   // 4: waited for
        (101, 4, 0, 0, 0, 0),
        (38, 4, 0, 0, 0, 0),
        (96, 3, 304, 0, 0, 0), // 4: the response
        (98, 4, 256, 0, 0, 0), // 5: its body
        (16, 5, 0, 0, 0, 0),   // 5: its trailers
    ];
    let memory = [vec![0; 512], b"a.b".to_vec()].concat();
    assert_eq!(run(&get, false, &memory, b""), None);
    sides(|sides| assert_eq!(sides.fetches.len(), 1, "they may be asked for"));
    let given_up = [&get[..], &[(38, 5, 0, 0, 0, 0)]].concat();
    assert_eq!(run(&given_up, false, &memory, b""), None);
    sides(|sides| assert!(sides.fetches.is_empty(), "nobody will ask"));
    let taken = [
        &get[..],
        &[
            (120, 5, 0, 0, 0, 0), // 6: waited for
            (101, 6, 0, 0, 0, 0),
            (17, 5, 320, 0, 0, 0),
            // The pollable knows the host's handle no more.
            (101, 6, 0, 0, 0, 0),
            (100, 6, 0, 0, 0, 0),
        ],
    ]
    .concat();
    assert_eq!(run(&taken, false, &memory, b""), None);
    sides(|sides| {
        assert!(sides.fetches.is_empty(), "they were taken");
        assert_eq!([sides.memory[320], sides.memory[328]], [1, 0]);
    });
}
