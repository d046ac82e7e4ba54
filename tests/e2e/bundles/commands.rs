//! What the commands do with files: every technique, artifacts, refusals, and changes that are followed.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use midge_tests::guests::{HELLO, example, example_folder};
use midge_tests::host::Setup;
use midge_tests::program::{Ended, midge};
use midge_tests::wait::wait_for;
use serde_json::Value;

const TECHNIQUES: [&str; 8] =
    ["restore", "reuse", "mmap", "aot", "jit", "cow", "pool", "pool-scan"];
const SETTINGS: &str = "[[function]]\nname = \"lookup\"\nmodule = \"lookup.wasm\"\nroute = \"/*\"\n\
                        files = [\"data:/data\"]\n";

/// Returns the arguments by which the example finds its files.
fn files() -> String {
    format!("{}:/data", example_folder("lookup").join("data").display())
}

/// A setup with the example and its folder.
fn setup() -> Setup {
    let ports = fs::read(example_folder("lookup").join("data/ports.tsv")).expect("it is there");
    Setup::new().file("lookup.wasm", example("lookup")).file("data/ports.tsv", ports)
}

fn json(ended: &Ended) -> Value {
    assert_eq!(ended.code, Some(0), "{ended:?}");
    serde_json::from_str(&ended.stdout).expect("one object")
}

#[test]
fn every_technique_has_the_files() {
    let folder = tempfile::tempdir().unwrap();
    let module = example_folder("lookup").join("lookup.wasm").display().to_string();
    let files = files();
    let build = ["build", &module, "--files", &files];
    let built = |isolation: &str, output: &str| {
        let more = ["--isolation", isolation, "-o", output, "--json"];
        json(&midge(folder.path(), &[&build[..], &more].concat()));
    };
    built("guard-pages", "lookup.midge");
    built("bounds-checked", "checked.midge");
    for (artifact, techniques) in
        [("lookup.midge", &TECHNIQUES[..]), ("checked.midge", &TECHNIQUES[..4])]
    {
        for technique in techniques {
            let call = ["invoke", artifact, "--technique", technique, "--repeat", "3"];
            let more = ["--path", "/lookup?imaps", "--json"];
            let ended = midge(folder.path(), &[&call[..], &more].concat());
            let report = json(&ended);
            assert_eq!(report["response"]["status"], 200, "{technique}: {report}");
            assert!(ended.stdout.contains("imaps\\t993\\ttcp"), "{technique}: {report}");
        }
    }
}

#[test]
fn an_artifact_holds_its_files_once_and_the_same_each_time() {
    let setup = setup();
    let folder = setup.folder();
    let large: Vec<u8> = (0..1_000_000u32).map(|number| number.to_le_bytes()[1] | 1).collect();
    fs::write(folder.join("data/large"), &large).unwrap();
    symlink("large", folder.join("data/link")).unwrap();
    let build = |output: &str| {
        let arguments = ["build", "lookup.wasm", "--files", "data:/data", "-o", output, "--json"];
        json(&midge(folder, &arguments));
        fs::read(folder.join(output)).unwrap()
    };
    let first = build("first.midge");
    // Made anew: other times, other inodes, another order on the disk.
    fs::remove_dir_all(folder.join("data")).unwrap();
    fs::create_dir(folder.join("data")).unwrap();
    symlink("large", folder.join("data/link")).unwrap();
    fs::write(folder.join("data/large"), &large).unwrap();
    let ports = example_folder("lookup").join("data/ports.tsv");
    fs::copy(ports, folder.join("data/ports.tsv")).unwrap();
    assert!(first == build("second.midge"), "the same files are the same artifact");
    assert!((1_000_000..1_600_000).contains(&first.len()), "{} bytes", first.len());
    let report = json(&midge(folder, &["inspect", "first.midge", "--json"]));
    let ports = fs::metadata(folder.join("data/ports.tsv")).unwrap().len();
    let expected = serde_json::json!([
        { "guest_path": "/data", "entries": 3, "bytes": 1_000_000 + ports }
    ]);
    assert_eq!(report["files"], expected);
    fs::write(folder.join("data/ports.tsv"), "other\t1\ttcp\n").unwrap();
    assert!(first != build("third.midge"));
}

#[test]
fn what_cannot_have_files_is_told_what_to_do() {
    let setup = setup().file("hello.wat", HELLO);
    let folder = setup.folder();
    symlink("../lookup.wasm", folder.join("data/out")).unwrap();
    let refused = |arguments: &[&str], code: i32, expected: &[&str]| {
        let ended = midge(folder, arguments);
        assert_eq!(ended.code, Some(code), "{arguments:?}: {ended:?}");
        let said = format!("{}{}", ended.stdout, ended.stderr);
        for expected in expected {
            assert!(said.contains(expected), "{arguments:?}: {said}");
        }
    };
    let leaves = ["the link `out` leads out of `/data`, to `../lookup.wasm`", "next: "];
    refused(&["invoke", "lookup.wasm", "--files", "data:/data"], 1, &leaves);
    refused(&["prove", "lookup.wasm", "--files", "data:/data"], 1, &leaves);
    fs::remove_file(folder.join("data/out")).unwrap();
    refused(&["build", "lookup.wasm", "--files", "gone:/data"], 1, &["cannot read `gone`"]);
    refused(&["build", "lookup.wasm", "--files", "data:"], 2, &["`data:` is no FOLDER"]);
    let twice = ["build", "lookup.wasm", "--files", "data", "--files", "data"];
    refused(&twice, 1, &["two folders are `/` for the guest"]);
    refused(&["build", "hello.wat", "--files", "data:/data"], 1, &["follows the contract"]);
    json(&midge(folder, &["build", "lookup.wasm", "--json"]));
    let built = ["invoke", "lookup.midge", "--files", "data:/data"];
    refused(&built, 2, &["is an artifact, whose files were chosen", "midge build MODULE --files"]);
    let settings = SETTINGS.replace("lookup.wasm", "lookup.midge");
    fs::write(folder.join("midge.toml"), settings).unwrap();
    refused(&["serve"], 2, &["is an artifact, whose files were chosen"]);
    for (files, expected) in [
        ("\"data:/data\"", "a list of texts"),
        ("[\"gone:/data\"]", "folder `gone`: no such folder"),
        ("[\"lookup.wasm:/data\"]", "`lookup.wasm` is not a folder"),
        ("[\":/data\"]", "`:/data` names no folder and path"),
        ("[\"data:/d\", \"data:/d\"]", "two folders are `/d` for the guest"),
    ] {
        fs::write(folder.join("midge.toml"), SETTINGS.replace("[\"data:/data\"]", files)).unwrap();
        refused(&["check"], 1, &[expected]);
    }
}

#[test]
fn run_serves_with_files() {
    let setup = setup();
    let data = setup.folder().join("data").display().to_string();
    let host = setup.argument("--files").argument(&format!("{data}:/data")).run("lookup.wasm");
    let mut client = host.client();
    for _ in 0..3 {
        assert_eq!(client.get("/x?ssh").text(), "ssh\t22\ttcp\n");
        assert_eq!(client.get("/x?telnet").status, 404);
    }
}

#[test]
fn a_change_in_the_files_is_followed() {
    let host = setup().file("midge.toml", SETTINGS).dev();
    let mut client = host.client();
    assert_eq!(client.get("/?gopher").status, 404);
    let ports = host.folder().join("data/ports.tsv");
    fs::write(&ports, "gopher\t70\ttcp\n").expect("the folder is there");
    wait_for("the change is served", || client.get("/?gopher").text() == "gopher\t70\ttcp\n");
    // What can no longer be packed changes nothing.
    symlink("/etc", host.folder().join("data/out")).expect("the folder is there");
    fs::write(&ports, "other\t1\ttcp\n").expect("the folder is there");
    wait_for("the failure is told", || host.log().contains("the link `out` leads out of `/data`"));
    assert_eq!(client.get("/?gopher").status, 200);
}

/// A function's limit of memory is for what it may grow to: its files do not count.
#[test]
fn files_are_no_part_of_the_memory_limit() {
    let setup = setup();
    write_large(&setup.folder().join("data/large"));
    let host = setup.serve(&format!("{SETTINGS}memory = \"8 MiB\"\n"));
    assert_eq!(host.client().get("/?ftp").text(), "ftp\t21\ttcp\n");
}

fn write_large(path: &Path) {
    fs::write(path, vec![7; 20 << 20]).expect("the folder takes files");
}
