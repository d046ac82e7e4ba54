//! The command line as a user meets it: the built program's stdout, stderr and exit status.
//!
//! Each case runs in a folder of its own, without the environment of whoever runs the tests. A changed snapshot is
//! accepted by `INSTA_UPDATE=always cargo test -p midge --test cli`, and read in the diff.

use std::{
    fs,
    io::Read,
    os::unix::fs::PermissionsExt,
    path::Path,
    process::{Command, Stdio},
};

use clap::Args;
use insta::assert_snapshot;
use midge_host::cli;

const PROGRAM: &str = env!("CARGO_BIN_EXE_midge");

const SETTINGS: &str = "\
workers = \"1-2\"

[log]
level = \"warn\"

[[function]]
name = \"hello\"
module = \"hello.wasm\"
route = \"/hello\"
deadline = \"50ms\"

[[function]]
name = \"files\"
module = \"hello.wasm\"
routes = [\"/files/*\", \"/f\"]
host = \"Files.Example.org\"
methods = [\"GET\", \"HEAD\"]
";

const FAULTY: &str = "\
listen = \"localhost:80\"
lissten = \"x\"

[[function]]
name = \"hello\"
module = \"helo.wasm\"
route = \"/hello*\"
technique = \"restor\"
deadline = \"100\"

[[function]]
name = \"hello\"
module = \"hello.wasm\"
route = \"/a\"
memory = \"8 GiB\"
concurrency = \"many\"

[[function]]
name = \"second\"
module = \"hello.wasm\"
routes = [\"/b\", \"/a\"]
";

/// A folder with a module and this settings file.
fn folder(settings: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a folder can be made");
    fs::write(folder.path().join("hello.wasm"), b"").expect("a file can be written");
    fs::write(folder.path().join("midge.toml"), settings).expect("a file can be written");
    folder
}

fn midge(folder: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(PROGRAM);
    command.args(arguments).current_dir(folder).env_clear();
    command
}

/// Runs and shows status, stdout and stderr.
fn shown(mut command: Command) -> String {
    let output = command.output().expect("the program runs");
    let mut text = match output.status.code() {
        Some(code) => format!("status {code}\n"),
        None => "ended by a signal\n".into(),
    };
    for (name, bytes) in [("stdout", output.stdout), ("stderr", output.stderr)] {
        if !bytes.is_empty() {
            text += &format!(
                "--- {name}\n{}",
                String::from_utf8(bytes).expect("the program writes UTF-8")
            );
        }
    }
    text
}

fn run(settings: &str, arguments: &[&str]) -> String {
    let folder = folder(settings);
    shown(midge(folder.path(), arguments))
}

/// Returns the long help of arguments whose command is not wired yet.
fn help_of<T: Args>(name: &'static str) -> String {
    let command = T::augment_args(clap::Command::new(name).bin_name(format!("midge {name}")));
    command.term_width(100).render_long_help().to_string()
}

#[test]
fn every_help_is_as_it_was() {
    for name in ["--help", "-h"] {
        assert_snapshot!(format!("help_midge_{}", name.trim_matches('-')), run("", &[name]));
    }
    for name in ["check", "doctor"] {
        assert_snapshot!(format!("help_{name}"), run("", &[name, "--help"]));
    }
    assert_snapshot!("help_demo", help_of::<cli::DemoArgs>("demo"));
    assert_snapshot!("help_run", help_of::<cli::RunArgs>("run"));
    assert_snapshot!("help_serve", help_of::<cli::ServeArgs>("serve"));
    assert_snapshot!("help_build", help_of::<cli::BuildArgs>("build"));
    assert_snapshot!("help_inspect", help_of::<cli::InspectArgs>("inspect"));
    assert_snapshot!("help_invoke", help_of::<cli::InvokeArgs>("invoke"));
    assert_snapshot!("help_prove", help_of::<cli::ProveArgs>("prove"));
    assert_snapshot!("help_image", help_of::<cli::ImageArgs>("image"));
    assert_snapshot!("help_image_kexec", help_of::<cli::ImageKexecArgs>("kexec"));
    assert_snapshot!("help_image_run", help_of::<cli::ImageRunArgs>("run"));
}

#[test]
fn sound_settings_are_ok() {
    assert_snapshot!(run(SETTINGS, &["check"]));
}

#[test]
fn settings_are_explained_with_their_origins() {
    let folder = folder(SETTINGS);
    let arguments = ["check", "--explain", "--log-format", "json"];
    let mut command = midge(folder.path(), &arguments);
    command.env("MIDGE_LISTEN", "0.0.0.0:80");
    assert_snapshot!(shown(command));
}

#[test]
fn settings_are_explained_as_json() {
    let folder = folder(SETTINGS);
    let mut command = midge(folder.path(), &["check", "--explain", "--json"]);
    command.env("MIDGE_WORKERS", "3");
    let output = command.output().unwrap();
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report["schema"], "midge/check/1");
    assert_eq!((&report["functions"], &report["routes"]), (&2.into(), &3.into()));
    let settings = report["settings"].as_array().unwrap();
    let workers = settings.iter().find(|row| row["setting"] == "workers").unwrap();
    assert_eq!(
        workers["origin"],
        serde_json::json!({"kind": "environment", "name": "MIDGE_WORKERS"})
    );
    let level = settings.iter().find(|row| row["setting"] == "log.level").unwrap();
    assert_eq!(level["origin"], serde_json::json!({"kind": "file", "line": 4, "column": 9}));
}

#[test]
fn all_faults_are_reported_at_once() {
    assert_snapshot!(run(FAULTY, &["check"]));
}

#[test]
fn faults_are_reported_as_json() {
    assert_snapshot!(run("listen = 1\n", &["check", "--json"]));
}

#[test]
fn broken_text_is_reported_with_its_place() {
    assert_snapshot!(run("listen = \n[[function]\n", &["check"]));
}

#[test]
fn a_missing_file_is_an_error_with_a_next_step() {
    assert_snapshot!(run("", &["check", "nothing.toml"]));
}

#[test]
fn wrong_usage_has_status_2() {
    assert_snapshot!("usage_no_command", run("", &["chek"]));
    assert_snapshot!("usage_wrong_value", run("", &["check", "--workers", "many"]));
    assert_snapshot!("usage_unknown_flag", run("", &["check", "--explian"]));
}

#[test]
fn another_machine_can_be_looked_at() {
    let folder = folder("");
    let status = "Name:\tmidge\nCpus_allowed_list:\t0-7\n";
    let limits = "Max open files            1024                 4096                 files\n";
    for (path, text) in [
        ("proc/sys/kernel/osrelease", "6.12.0\n"),
        ("proc/sys/kernel/io_uring_disabled", "2\n"),
        ("proc/sys/vm/max_map_count", "65530\n"),
        ("proc/self/status", status),
        ("proc/self/limits", limits),
    ] {
        let path = folder.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    assert_snapshot!("doctor_text", shown(midge(folder.path(), &["doctor", "--root", "."])));
    let json = shown(midge(folder.path(), &["doctor", "--root", ".", "--json"]));
    assert_snapshot!("doctor_json", json);
    assert_snapshot!("doctor_no_root", shown(midge(folder.path(), &["doctor", "--root", "none"])));
}

#[test]
fn this_machine_can_be_looked_at() {
    let folder = folder("");
    let output = midge(folder.path(), &["doctor", "--json"]).output().unwrap();
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report["schema"], "midge/doctor/1");
    assert_eq!(output.status.code(), Some(if report["can_serve"] == true { 0 } else { 1 }));
}

#[test]
fn another_program_is_a_command_with_its_own_status() {
    let folder = folder("");
    let program = folder.path().join("midge-nap");
    fs::write(&program, "#!/bin/sh\necho nap \"$@\"\nexit 7\n").unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    let mut command = midge(folder.path(), &["nap", "--long", "x y"]);
    command.env("PATH", folder.path());
    assert_eq!(shown(command), "status 7\n--- stdout\nnap --long x y\n");
}

#[test]
fn a_reader_that_leaves_is_no_error() {
    // Far more text than a pipe holds, to a reader that closes it at once.
    let functions: String = (0..2000)
        .map(|index| {
            format!(
                "[[function]]\nname = \"f{index}\"\nmodule = \"hello.wasm\"\nroute = \"/{index}\"\n"
            )
        })
        .collect();
    let folder = folder(&functions);
    let mut command = midge(folder.path(), &["check", "--explain"]);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    let mut complaints = String::new();
    child.stderr.take().unwrap().read_to_string(&mut complaints).unwrap();
    assert_eq!((child.wait().unwrap().code(), complaints.as_str()), (Some(0), ""));
}
