//! Builds that are killed, disks that are full, artifacts that are damaged.
//!
//! Goal: at the artifact's path there is nothing, the old file, or the whole new one; and what is not whole is
//! refused with a reason. (That every single byte is checked shows `loader/tests/artifact.rs`.)

use std::io::{Read, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

use midge_tests::guests::{HELLO, example};
use midge_tests::host::Setup;
use midge_tests::program::{Ended, command, midge, program, without_settings};
use midge_tests::wait::look_until;
use tempfile::TempDir;

/// Builds that are killed, spread over the time that one takes.
const KILLS: u32 = 24;

/// A folder with a small and a larger module.
fn folder() -> TempDir {
    let folder = tempfile::tempdir().expect("a temporary folder");
    std::fs::write(folder.path().join("hello.wat"), HELLO).expect("the folder takes files");
    std::fs::write(folder.path().join("notes.wasm"), example("notes"))
        .expect("the folder takes files");
    folder
}

/// Builds a module and returns the artifact.
fn built(folder: &Path, module: &str) -> Vec<u8> {
    let ended = midge(folder, &["build", module, "-o", "out.midge"]);
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    std::fs::read(folder.join("out.midge")).expect("an artifact was built")
}

#[test]
fn a_killed_build_leaves_the_old_artifact_or_the_new_one() {
    let folder = folder();
    let began = Instant::now();
    let new = built(folder.path(), "notes.wasm");
    let whole_time = began.elapsed();
    let old = built(folder.path(), "hello.wat");
    let out = folder.path().join("out.midge");
    for kill in 0..KILLS {
        let is_first = kill % 2 == 0;
        if is_first {
            std::fs::remove_file(&out).unwrap();
        } else {
            std::fs::write(&out, &old).unwrap();
        }
        let mut child = command(["build", "notes.wasm", "-o", "out.midge"])
            .current_dir(folder.path())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let until = Instant::now() + whole_time * kill / (KILLS - 4);
        let _ended = look_until(until, || child.try_wait().unwrap());
        child.kill().unwrap();
        child.wait().unwrap();
        match std::fs::read(&out) {
            Ok(found) => {
                assert!(found == new || (!is_first && found == old), "kill {kill}: a part of one");
            }
            Err(_) => assert!(is_first, "kill {kill}: the old artifact is gone"),
        }
        std::fs::write(&out, &old).unwrap();
    }
    // What a killed build left beside it does not disturb the next one.
    assert!(built(folder.path(), "notes.wasm") == new, "a build is the same each time");
    assert_eq!(midge(folder.path(), &["inspect", "out.midge"]).code, Some(0));
}

#[track_caller]
fn check_failed_build(folder: &Path, ended: &Ended, old: &[u8]) {
    assert_eq!((ended.code, ended.stdout.as_str()), (Some(1), ""), "{}", ended.stderr);
    assert!(ended.stderr.starts_with("midge: "), "{}", ended.stderr);
    assert!(
        std::fs::read(folder.join("out.midge")).expect("it is there") == old,
        "the old artifact is whole"
    );
    let names = std::fs::read_dir(folder).expect("a folder can be listed");
    let names = names.map(|entry| entry.expect("a folder can be listed").file_name());
    let litter: Vec<_> = names.filter(|name| name.to_string_lossy().ends_with(".part")).collect();
    assert!(litter.is_empty(), "{litter:?}");
}

#[test]
fn a_full_disk_is_an_error_and_the_old_artifact_stays() {
    let source = folder();
    let Some(disk) = SmallDisk::mount() else {
        midge_tests::skip("this user cannot mount a small disk");
        return;
    };
    let old = built(source.path(), "hello.wat");
    std::fs::write(disk.path().join("out.midge"), &old).unwrap();
    let out = disk.path().join("out.midge");
    let ended = midge(source.path(), &["build", "notes.wasm", "-o", out.to_str().unwrap()]);
    check_failed_build(disk.path(), &ended, &old);
    assert!(ended.stderr.contains("cannot write `"), "{}", ended.stderr);
    assert!(ended.stderr.contains("No space left on device"), "{}", ended.stderr);
}

#[test]
fn a_limit_of_file_sizes_is_an_error_and_the_old_artifact_stays() {
    let folder = folder();
    let old = built(folder.path(), "hello.wat");
    let mut shell = Command::new("sh");
    // Without the signal the write itself fails, as it does on a full disk.
    let script = "trap '' XFSZ; ulimit -f 16; exec \"$0\" build notes.wasm -o out.midge";
    shell.args(["-c", script]).arg(program()).current_dir(folder.path());
    without_settings(&mut shell);
    let ended = Ended::from(shell.output().unwrap());
    check_failed_build(folder.path(), &ended, &old);
    assert!(ended.stderr.contains("File too large"), "{}", ended.stderr);
}

#[test]
fn a_folder_that_is_not_there_is_an_error() {
    let folder = folder();
    let ended = midge(folder.path(), &["build", "hello.wat", "-o", "missing/out.midge"]);
    assert_eq!(ended.code, Some(1));
    assert!(ended.stderr.contains("cannot write `missing/out.midge`"), "{}", ended.stderr);
}

#[test]
fn damaged_artifacts_are_refused_with_a_reason() {
    let folder = folder();
    let whole = built(folder.path(), "hello.wat");
    let path = folder.path().join("bad.midge");
    let refused = |bytes: &[u8], reason: &str| {
        std::fs::write(&path, bytes).unwrap();
        for command in [
            &["inspect", "bad.midge"][..],
            &["invoke", "bad.midge"],
            &["run", "bad.midge", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"],
        ] {
            let ended = midge(folder.path(), command);
            assert_eq!(ended.code, Some(1), "{command:?}: {}", ended.stderr);
            assert!(ended.stderr.contains(reason), "{command:?}: {reason}: {}", ended.stderr);
        }
    };
    for length in [8, 63] {
        refused(&whole[..length], "artifact");
    }
    for length in [64, 200, 4096, whole.len() - 1] {
        refused(&whole[..length], "artifact is truncated");
    }
    refused(&[&whole[..], b"x"].concat(), "artifact is truncated");
    for (position, reason) in [
        (8, "artifact has format"),
        (20, "artifact is damaged"),
        (70, "artifact"),
        (whole.len() / 2, "artifact is damaged"),
        (whole.len() - 1, "artifact is damaged"),
    ] {
        let mut flipped = whole.clone();
        flipped[position] ^= 1;
        refused(&flipped, reason);
    }
}

#[test]
fn a_damaged_artifact_does_not_stop_a_host_that_reads_it_again() {
    let folder = folder();
    let whole = built(folder.path(), "hello.wat");
    let settings = "[[function]]\nname = \"hello\"\nmodule = \"hello.midge\"\nroute = \"/\"\n";
    let setup = Setup::new().file("hello.midge", &whole);
    let host = setup.serve(settings);
    assert_eq!(host.client().get("/").text(), "hello\n");
    // Replaced by renaming, as `midge build` does: the mapped file stays what it is.
    let damaged = host.folder().join("damaged");
    std::fs::write(&damaged, &whole[..whole.len() - 1]).unwrap();
    std::fs::rename(&damaged, host.folder().join("hello.midge")).unwrap();
    host.signal(rustix::process::Signal::HUP);
    let _line = host.wait_for_line(&["everything stays as it was", "artifact is truncated"]);
    assert_eq!(host.client().get("/").text(), "hello\n");
}

/// What is written into an artifact in place is mapped by who serves it: `docs/SECURITY.md` forbids it. What may
/// then come of it is the end of the process, and no wrong answer.
#[test]
fn an_artifact_cut_while_it_is_served_gives_no_wrong_answer() {
    const PAGE: usize = 4096;
    let folder = folder();
    let whole = built(folder.path(), "notes.wasm");
    for technique in ["mmap", "cow", "restore"] {
        // To a page's end, for the rest of a page in the middle of which a file ends reads as zeros.
        for part in 0..4 {
            let left = whole.len() * part / 4 / PAGE * PAGE;
            let settings = format!(
                "[[function]]\nname = \"notes\"\nmodule = \"notes.midge\"\nroute = \"/\"\ntechnique = \"{technique}\"\n"
            );
            let host = Setup::new().file("notes.midge", &whole).serve(&settings);
            let right = answer(host.listen).expect("the artifact is whole");
            assert!(right.starts_with("HTTP/1.1 200 "), "{right}");
            let file = std::fs::File::options()
                .write(true)
                .open(host.folder().join("notes.midge"))
                .expect("the artifact is there");
            file.set_len(left as u64).expect("it can be cut");
            for _ in 0..20 {
                // None: the process has ended.
                let Some(text) = answer(host.listen) else { break };
                assert_eq!(body(&text), body(&right), "{technique}, cut to {left} bytes");
            }
        }
    }
}

fn body(response: &str) -> &str {
    response.split_once("\r\n\r\n").map_or("", |(_, body)| body)
}

/// Asks once on a connection of its own; `None` if there is nobody any more.
fn answer(address: std::net::SocketAddr) -> Option<String> {
    let mut stream = std::net::TcpStream::connect(address).ok()?;
    stream.write_all(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").ok()?;
    let mut text = String::new();
    stream.read_to_string(&mut text).ok()?;
    (!text.is_empty()).then_some(text)
}

/// A file system of 128 KiB.
struct SmallDisk(TempDir);

impl SmallDisk {
    fn mount() -> Option<Self> {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", "size=128k", "midge-tests"]).arg(folder.path());
        mount.stderr(Stdio::null());
        mount.status().is_ok_and(|status| status.success()).then_some(Self(folder))
    }

    fn path(&self) -> &Path {
        self.0.path()
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let unmounted = Command::new("umount").arg(self.0.path()).status();
        assert!(unmounted.is_ok_and(|status| status.success()), "the disk is unmounted");
    }
}

const _: () = assert!(4 < KILLS, "the last ones come after the end");
