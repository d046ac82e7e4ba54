//! The contract is written down three times: for the host (`midge_abi`), for guests in Rust
//! (`midge_guest::layout`) and for guests in C (`abi/include/midge.h`). These tests hold them together.
//!
//! Each record's fields are listed once, in `records!`. A field that moves, changes its width, comes or goes
//! on one side breaks either the build of this file or one of its tests.

use std::fmt::Write as _;
use std::mem::{offset_of, size_of};
use std::path::Path;
use std::process::Command;

use midge_abi::{contract, fetch, imports};
use midge_guest::fetch::FetchError;
use midge_guest::layout;

/// All records of the host's.
mod host {
    pub(crate) use midge_abi::contract::*;
    pub(crate) use midge_abi::fetch::{FetchRecord, WaitRow};
}

/// Where a field lies in a record.
#[derive(Debug, PartialEq, Eq)]
struct Field {
    name: &'static str,
    offset: usize,
    size: usize,
}

/// One record, as one side sees it.
#[derive(Debug, PartialEq, Eq)]
struct Record {
    name: &'static str,
    size: usize,
    align: usize,
    fields: Vec<Field>,
}

fn size_by<R, F>(_: fn(&R) -> &F) -> usize {
    size_of::<F>()
}

/// Describes records of one side. The pattern without `..` is what makes the lists complete.
macro_rules! records {
    ($side:ident) => {
        records!($side:
            Contract { magic, version, reserved, area, area_size }
            Span { offset, size }
            RequestHeader { name, value }
            RequestHead {
                size, version, method, flags, header_count, headers, reserved, method_name, target, path,
                query, authority, body, request_id, deadline_ns, peer_address, peer_port, reserved_tail
            }
            ResponseHeader { name, name_size, value, value_size }
            ResponseRecord { status, flags, header_count, headers, body, body_size, reserved }
            FetchRecord {
                flags, method, method_size, authority, authority_size, target, target_size, header_count,
                headers, reserved, body_size, connect_ns, first_byte_ns, between_bytes_ns
            }
            WaitRow { kind, is_ready, handle }
        )
    };
    ($side:ident: $($record:ident { $($field:ident),+ })+) => {
        vec![$({
            let _complete = |$side::$record { $($field: _),+ }: &$side::$record| ();
            Record {
                name: stringify!($record),
                size: size_of::<$side::$record>(),
                align: align_of::<$side::$record>(),
                fields: vec![$(Field {
                    name: stringify!($field),
                    offset: offset_of!($side::$record, $field),
                    size: size_by(|record: &$side::$record| &record.$field),
                }),+],
            }
        }),+]
    };
}

#[test]
fn guests_in_rust_see_the_hosts_records() {
    for (host, guest) in records!(host).into_iter().zip(records!(layout)) {
        assert_eq!(host, guest);
    }
}

#[test]
fn guests_in_rust_know_the_hosts_numbers() {
    assert_eq!(contract::VERSION, layout::VERSION);
    assert_eq!(contract::MAGIC, layout::MAGIC);
    assert_eq!(contract::AREA_SIZE_MIN, layout::AREA_SIZE_MIN);
    assert_eq!(contract::AREA_SIZE_MAX, layout::AREA_SIZE_MAX);
    assert_eq!(contract::AREA_ALIGN, layout::AREA_ALIGN);
    assert_eq!(contract::flags::HTTP_1_0, layout::HTTP_1_0);
    assert_eq!(contract::flags::BODY_PARTIAL, layout::BODY_PARTIAL);
    assert_eq!(contract::RESPONSE_ERROR, layout::RESPONSE_ERROR);
    assert_eq!(imports::LOG_LINE_BYTES_MAX, midge_guest::log::LOG_LINE_BYTES_MAX);
    assert_eq!(imports::RANDOM_BYTES_MAX as usize, midge_guest::random::RANDOM_BYTES_MAX);
    assert_eq!(fetch::LATER, layout::LATER);
    assert_eq!(fetch::ERRORS_FROM, layout::ERRORS_FROM);
    assert_eq!(fetch::FETCHES_PER_CALL_MAX, layout::FETCHES_PER_CALL_MAX);
    assert_eq!(fetch::WAIT_ROWS_MAX as usize, layout::WAIT_ROWS_MAX);
    assert_eq!(fetch::FETCH_TLS, layout::FETCH_TLS);
    assert_eq!(fetch::FETCH_BODY, layout::FETCH_BODY);
    assert_eq!(fetch::BODY_SIZE_UNKNOWN, layout::BODY_SIZE_UNKNOWN);
    let guests = [
        layout::WAIT_BODY,
        layout::WAIT_FETCH_HEAD,
        layout::WAIT_FETCH_BODY,
        layout::WAIT_FETCH_ROOM,
    ];
    assert_eq!(WAITS.map(|(_, code)| code), guests);
    assert!(
        midge_guest::fetch::FETCH_HEADERS_MAX <= midge_abi::response::HEADER_COUNT_MAX as usize
    );
    assert!(midge_guest::TRAILERS_MAX <= midge_abi::response::HEADER_COUNT_MAX as usize);
    assert!(midge_guest::RESPONSE_HEADERS_MAX <= midge_abi::response::HEADER_COUNT_MAX as usize);
}

#[test]
fn guests_in_rust_know_the_hosts_errors() {
    let guests = FetchError::ALL.map(|error| (error as u8, format!("{error:?}")));
    let hosts = fetch::ERRORS.map(|(code, name)| (code, name.to_owned()));
    let (known, own): (Vec<_>, Vec<_>) =
        guests.into_iter().partition(|error| hosts.contains(error));
    assert_eq!(known, hosts);
    assert_eq!(own, [(28, "BodyTooLong".to_owned())], "what the library says by itself");
}

const WAITS: [(&str, u16); 4] = {
    use fetch::WaitFor::{Body, FetchBody, FetchHead, FetchRoom};
    [
        ("BODY", Body as u16),
        ("FETCH_HEAD", FetchHead as u16),
        ("FETCH_BODY", FetchBody as u16),
        ("FETCH_ROOM", FetchRoom as u16),
    ]
};

#[test]
fn guests_in_rust_know_the_hosts_methods_and_levels() {
    use midge_guest::log::Level;
    for (name, code) in METHODS {
        let guest = midge_guest::Method::from_code(code);
        assert_eq!(guest as u16, code);
        assert_eq!(format!("{guest:?}").to_uppercase(), name);
    }
    for level in [Level::Error, Level::Warn, Level::Info, Level::Debug] {
        let host = imports::Level::from_guest(level as i32);
        assert_eq!(format!("{host:?}"), format!("{level:?}"));
    }
}

const METHODS: [(&str, u16); 10] = {
    use contract::Method::{Connect, Delete, Get, Head, Options, Other, Patch, Post, Put, Trace};
    [
        ("OTHER", Other.code()),
        ("GET", Get.code()),
        ("HEAD", Head.code()),
        ("POST", Post.code()),
        ("PUT", Put.code()),
        ("DELETE", Delete.code()),
        ("OPTIONS", Options.code()),
        ("PATCH", Patch.code()),
        ("TRACE", Trace.code()),
        ("CONNECT", Connect.code()),
    ]
};

#[test]
fn guests_in_c_see_the_hosts_records() {
    let mut source = String::from("#include \"midge.h\"\n");
    for record in records!(host) {
        let c_name = c_name(record.name);
        let mut claim = |what: String, value: usize| {
            writeln!(source, "_Static_assert({what} == {value}, \"{what}\");").unwrap();
        };
        claim(format!("sizeof(struct {c_name})"), record.size);
        for Field { name, offset, size } in record.fields {
            claim(format!("offsetof(struct {c_name}, {name})"), offset);
            claim(format!("sizeof(((struct {c_name} *)0)->{name})"), size);
        }
    }
    compile(&["-std=c11"], &source);
}

#[test]
fn guests_in_c_know_the_hosts_numbers() {
    let mut source = String::from("#include \"midge.h\"\n");
    let mut claim = |what: &str, value: u64| {
        writeln!(source, "_Static_assert({what} == {value}u, \"{what}\");").unwrap();
    };
    claim("MIDGE_VERSION", contract::VERSION.into());
    claim("MIDGE_MAGIC", contract::MAGIC.into());
    claim("MIDGE_AREA_SIZE_MIN", contract::AREA_SIZE_MIN.into());
    claim("MIDGE_AREA_SIZE_MAX", contract::AREA_SIZE_MAX.into());
    claim("MIDGE_AREA_ALIGN", contract::AREA_ALIGN.into());
    claim("MIDGE_HTTP_1_0", contract::flags::HTTP_1_0.into());
    claim("MIDGE_BODY_PARTIAL", contract::flags::BODY_PARTIAL.into());
    claim("MIDGE_RESPONSE_ERROR", contract::RESPONSE_ERROR.into());
    claim("MIDGE_RANDOM_BYTES_MAX", imports::RANDOM_BYTES_MAX.into());
    claim("MIDGE_FETCH_TLS", fetch::FETCH_TLS.into());
    claim("MIDGE_FETCH_BODY", fetch::FETCH_BODY.into());
    claim("MIDGE_BODY_SIZE_UNKNOWN", fetch::BODY_SIZE_UNKNOWN);
    claim("MIDGE_FETCHES_PER_CALL_MAX", fetch::FETCHES_PER_CALL_MAX as u64);
    claim("MIDGE_WAIT_ROWS_MAX", fetch::WAIT_ROWS_MAX.into());
    claim("-MIDGE_LATER", fetch::LATER.unsigned_abs().into());
    claim("-MIDGE_ERRORS_FROM", fetch::ERRORS_FROM.unsigned_abs().into());
    for (name, code) in WAITS {
        claim(&format!("MIDGE_WAIT_{name}"), code.into());
    }
    let errors = fetch::ERRORS.into_iter().chain([(28, "BodyTooLong")]);
    for (code, name) in errors.clone() {
        claim(&format!("MIDGE_FETCH_ERROR{}", upper(name)), code.into());
    }
    for (name, code) in METHODS {
        claim(&format!("MIDGE_{name}"), code.into());
    }
    for level in 1..=4 {
        let name = imports::Level::from_guest(level).name().to_uppercase();
        claim(&format!("MIDGE_{name}"), u64::from(level.unsigned_abs()));
    }
    compile(&["-std=c11"], &source);
    // And the header has a text for each.
    let header = include_str!("../include/midge.h");
    assert_eq!(header.matches("case MIDGE_FETCH_ERROR_").count(), errors.count());
}

/// `DnsTimeout` as `_DNS_TIMEOUT`.
fn upper(name: &str) -> String {
    let separated = name.chars().flat_map(|letter| {
        letter.is_uppercase().then_some('_').into_iter().chain(letter.to_uppercase())
    });
    separated.collect()
}

/// The header promises C99, and no warnings in a guest's build.
#[test]
fn a_guest_in_c_compiles_as_c99() {
    let source = "#include \"midge.h\"\n\
        static const struct midge_response *handle(const struct midge_request *request) {\n\
            struct midge_fetch_answer trailers;\n\
            if (midge_trailers(0, &trailers) || midge_fetch_header(&trailers, \"x\").data) return midge_written;\n\
            return midge_respond_text(200, NULL, midge_part(request, request->body));\n\
        }\n\
        MIDGE_FUNCTION(handle, 65536, 0)\n\
        const void *keep(const struct midge_request *request) { return handle(request); }\n";
    compile(&["-std=c99", "-Wpedantic"], source);
}

/// The import names in the header are the host's.
#[test]
fn guests_in_c_import_the_hosts_names() {
    let header = include_str!("../include/midge.h");
    let names = [
        imports::LOG,
        imports::CLOCK_WALL_NS,
        imports::CLOCK_MONOTONIC_NS,
        imports::RANDOM,
        imports::BODY_READ,
        imports::RESPONSE_START,
        imports::RESPONSE_WRITE,
        imports::SLEEP_NS,
        imports::EXIT,
        imports::FETCH,
        imports::FETCH_WRITE,
        imports::FETCH_FINISH,
        imports::FETCH_HEAD,
        imports::FETCH_READ,
        imports::FETCH_CLOSE,
        imports::WAIT,
        imports::TRAILERS_READ,
        imports::TRAILERS_WRITE,
    ];
    for name in names {
        assert!(header.contains(&format!("MIDGE_IMPORT(\"{name}\")")), "{name}");
    }
    assert_eq!(header.matches("MIDGE_IMPORT(\"").count(), names.len());
    assert!(header.contains(&format!("import_module(\"{}\")", imports::MODULE)));
    for name in [contract::EXPORT_CONTRACT, contract::EXPORT_HANDLE] {
        assert!(header.contains(&format!("MIDGE_EXPORT(\"{name}\")")), "{name}");
    }
}

fn c_name(record: &str) -> &str {
    match record {
        "Contract" => "midge_contract",
        "Span" => "midge_span",
        "RequestHeader" => "midge_request_header",
        "RequestHead" => "midge_request",
        "ResponseHeader" => "midge_response_header",
        "ResponseRecord" => "midge_response",
        "FetchRecord" => "midge_fetch_record",
        "WaitRow" => "midge_wait_row",
        other => panic!("no C name for `{other}`"),
    }
}

fn compile(arguments: &[&str], source: &str) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let file = folder.path().join("drift.c");
    std::fs::write(&file, source).expect("the temporary folder is writable");
    let include = Path::new(env!("CARGO_MANIFEST_DIR")).join("include");
    let output = Command::new("cc")
        .args(arguments)
        .args(["-Wall", "-Wextra", "-Werror", "-fsyntax-only", "-I"])
        .args([include.as_path(), file.as_path()])
        .output()
        .expect("a C compiler named `cc` (see .ci/run)");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}
