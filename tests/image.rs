//! `midge image`: what lies in an image, that it is the same each time, what is refused; and boots by QEMU.
//!
//! The boots need a static program, kernels and QEMU, and are skipped, aloud, where variables do not name them. Those
//! that take long, or a kernel that takes long to build, run on request:
//!
//! ```text
//! MIDGE_STATIC=..  MIDGE_KERNEL=DIR/boot/vmlinuz-VERSION  MIDGE_KERNEL_MICROVM=DIR/vmlinux  MIDGE_KERNEL_OWN=DIR
//! cargo test -p midge-tests --test image -- --include-ignored
//! ```

use std::env;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use midge_tests::console::Console;
use midge_tests::guests::HELLO;
use midge_tests::program::{Ended, command, midge, without_settings};
use midge_tests::wait::PATIENCE;
use serde_json::Value;
use tempfile::TempDir;

const SETTINGS: &str = "\
[[function]]
name = \"hello\"
module = \"hello.wat\"
route = \"/hello\"

[[function]]
name = \"twice\"
module = \"hello.wat\"
route = \"/*\"

[[function]]
name = \"writer\"
module = \"writer.wat\"
route = \"/writer\"
files = [\"data:/data\"]
scratch = \"1 MiB\"

[[static]]
name = \"site\"
folder = \"public\"
route = \"/files/*\"
";

/// A folder with settings, a static program and what passes for a kernel.
fn folder() -> TempDir {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let put = |name: &str, content: &[u8]| {
        let path = folder.path().join(name);
        fs::create_dir_all(path.parent().expect("a file lies in a folder")).expect("room");
        fs::write(path, content).expect("room");
    };
    put("midge.toml", SETTINGS.as_bytes());
    put("hello.wat", HELLO.as_bytes());
    put("writer.wat", b"(module (memory (export \"memory\") 1) (func (export \"_start\")))");
    put("data/c.txt", b"more");
    put("public/a/b.txt", b"text");
    put("program.rs", b"fn main() {}");
    let mut kernel = vec![0; 4096];
    kernel[0x202..0x206].copy_from_slice(b"HdrS");
    put("kernel", &kernel);
    let mut rustc = Command::new("rustc");
    rustc.args(["-C", "target-feature=+crt-static", "-o", "program", "program.rs"]);
    let built = rustc.current_dir(folder.path()).status().expect("tests are run by cargo");
    assert!(built.success(), "a static program was built");
    folder
}

fn image(folder: &Path, arguments: &[&str]) -> Ended {
    let all = [&["image", "--binary", "program", "--kernel", "kernel"], arguments].concat();
    midge(folder, &all)
}

#[test]
fn an_image_is_the_same_each_time() {
    let folder = folder();
    for format in ["initrd", "oci"] {
        let bytes = ["one", "two"].map(|name| {
            let ended = image(folder.path(), &["--format", format, "-o", name]);
            assert_eq!(ended.code, Some(0), "{}", ended.stderr);
            fs::read(folder.path().join(name)).expect("it was written")
        });
        assert!(bytes[0] == bytes[1], "{format}");
    }
}

#[test]
fn settings_in_an_image_name_what_lies_in_it() {
    let folder = folder();
    let arguments =
        ["--format", "initrd", "--compress", "none", "-o", "initrd", "--append", "midge.ip=none"];
    let ended = image(folder.path(), &arguments);
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    let root = folder.path().join("root");
    fs::create_dir(&root).expect("room");
    let archive = fs::File::open(folder.path().join("initrd")).expect("it was written");
    let mut cpio = Command::new("cpio");
    // Without root there are no devices; what lies in files is looked at.
    cpio.args(["-i", "--quiet", "--nonmatching", "dev/*"]).current_dir(&root);
    let Ok(status) = cpio.stdin(archive).status() else {
        return midge_tests::skip("there is no cpio to unpack an image");
    };
    assert!(status.success());
    let read = |name: &str| fs::read_to_string(root.join(name)).expect("it is in the image");
    assert_eq!(read("etc/midge/boot"), "midge.ip=none\n");
    assert_eq!(read("etc/midge/static/site/a/b.txt"), "text");
    let checked = midge(&root.join("etc/midge"), &["check", "midge.toml", "--explain"]);
    assert_eq!(checked.code, Some(0), "{}", checked.stdout);
    for line in ["0.0.0.0:8080", "functions/0-hello.midge", "static/site", "x86-64-v3"] {
        assert!(checked.stdout.contains(line), "`{line}` in {}", checked.stdout);
    }
    let functions = fs::read_dir(root.join("etc/midge/functions")).expect("it is there");
    assert_eq!(functions.count(), 2, "one module that two functions name is in it once");
    // What an artifact has is not given to it a second time, which it would refuse.
    let settings = read("etc/midge/midge.toml");
    assert!(!settings.contains("scratch") && !settings.contains("files = ["), "{settings}");
    let artifact = fs::read(root.join("etc/midge/functions/2-writer.midge")).expect("it is there");
    for folder in [&b"/tmp"[..], b"/data"] {
        assert!(artifact.windows(folder.len()).any(|bytes| bytes == folder), "its manifest says");
    }
}

#[test]
fn a_microvm_is_a_folder_of_what_others_start() {
    let folder = folder();
    let ended =
        image(folder.path(), &["--format", "microvm", "--append", "midge.ip=none", "--json"]);
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    let report: Value = serde_json::from_str(&ended.stdout).expect("one object");
    assert_eq!(report["schema"], "midge/image/1");
    let made = folder.path().join("midge.microvm");
    let line = fs::read_to_string(made.join("cmdline")).expect("it is there");
    assert!(line.starts_with("console=ttyS0") && line.ends_with("midge.ip=none"), "{line}");
    let settings = fs::read(made.join("firecracker.json")).expect("it is there");
    let settings: Value = serde_json::from_slice(&settings).expect("JSON");
    let named = settings["boot-source"]["initrd_path"].as_str().expect("a path");
    assert!(made.join(named).exists());
}

#[test]
fn what_cannot_boot_is_refused_with_a_next_step() {
    let folder = folder();
    let check = |arguments: &[&str], words: &[&str]| {
        let all = [&["image"], arguments].concat();
        let ended = midge(folder.path(), &all);
        assert!(matches!(ended.code, Some(1 | 2)), "{arguments:?}: {}", ended.stderr);
        for word in words {
            assert!(ended.stderr.contains(word), "{arguments:?}: `{word}` in {}", ended.stderr);
        }
    };
    check(&[], &["there is no kernel", "next: name one by --kernel"]);
    check(&["--kernel", "hello.wat"], &["cannot take `hello.wat`", "no kernel"]);
    check(&["--kernel", "kernel", "--binary", "hello.wat"], &["no program for 64-bit Linux"]);
    check(
        &["--kernel", "kernel"],
        &["is linked with shared libraries", "next: cargo xtask static"],
    );
    let program = ["--kernel", "kernel", "--binary", "program"];
    let with = |more: &[&'static str]| [&program[..], more].concat();
    check(&with(&["--module", "tg3"]), &["no folder of modules to take `tg3` from"]);
    check(&with(&["--stub", "gone"]), &["cannot read the stub `gone`", "next: it comes with"]);
    check(&with(&["--stub", "hello.wat", "--format", "uki"]), &["cannot be started by firmware"]);
    fs::write(folder.path().join("midge.toml"), SETTINGS.replace("route", "rout")).expect("room");
    check(&with(&["--format", "initrd"]), &["the settings have", "midge check"]);
    fs::write(folder.path().join("midge.toml"), SETTINGS).expect("room");
    std::os::unix::fs::symlink("/etc/passwd", folder.path().join("public/out")).expect("room");
    check(&with(&["--format", "initrd"]), &["`public/out` is neither a file nor a folder"]);
    assert!(!folder.path().join("midge.initrd").exists(), "nothing is left of what failed");
}

#[test]
fn a_change_of_system_is_said_and_not_made() {
    let folder = folder();
    let arguments = ["image", "kexec", "--binary", "program", "--kernel", "kernel"];
    let ended = midge(folder.path(), &[&arguments[..], &["--append", "midge.ip=none"]].concat());
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    for said in ["nothing else", "command line  console=tty0", "midge.ip=none", "Nothing was done"]
    {
        assert!(ended.stdout.contains(said), "`{said}` in {}", ended.stdout);
    }
}

/// A folder with settings, and the arguments that name what boots them; `None`, said aloud, where there is nothing.
fn bootable(variable: &str, file: &str) -> Option<(TempDir, Vec<String>)> {
    let path = |name: &str| env::var_os(name).map(PathBuf::from);
    let (Some(program), Some(kernel)) = (path("MIDGE_STATIC"), path(variable)) else {
        midge_tests::skip(&format!("MIDGE_STATIC and {variable} do not say what boots"));
        return None;
    };
    let kernel = if file.is_empty() { kernel } else { kernel.join(file) };
    let text = |path: &Path| path.display().to_string();
    let arguments = vec!["--binary".into(), text(&program), "--kernel".into(), text(&kernel)];
    Some((folder(), arguments))
}

/// Boots, and returns what was said and the report.
fn boot((folder, parts): &(TempDir, Vec<String>), more: &[&str]) -> (String, Value) {
    let port =
        TcpListener::bind("127.0.0.1:0").and_then(|it| it.local_addr()).expect("a port").port();
    let port = format!("{port}:8080");
    let mut run = command(["image", "run", "--accel", "tcg", "--once", "--json", "--port", &port]);
    run.args(parts).args(more).current_dir(folder.path());
    without_settings(&mut run);
    let output = run.stdout(Stdio::piped()).output().expect("midge can be run");
    let Ended { code, stdout, stderr } = output.into();
    assert_eq!(code, Some(0), "{stderr}");
    let report: Value = serde_json::from_str(&stdout).expect("one object");
    midge_tests::tell(&format!("{more:?}: {report}"));
    assert_eq!(report["accelerator"], "tcg");
    // A microVM is ended with its first response, and may not have said that it serves.
    assert!(more.contains(&"microvm") || stderr.contains("serving, "), "{stderr}");
    (stderr, report)
}

fn boots(variable: &str, file: &str, more: &[&str], said: &[&str]) {
    let Some(bootable) = bootable(variable, file) else { return };
    let (console, report) = boot(&bootable, more);
    let patience = PATIENCE.as_millis() * 6;
    assert!(report["first_response_ms"].as_u64().is_some_and(|ms| u128::from(ms) < patience));
    for text in said {
        assert!(console.contains(text), "`{text}` in {console}");
    }
}

const SWITCHED_OFF: [&str; 2] = ["the power button: the server ends first", "exit status 0"];

#[test]
#[ignore = "boots a kernel: see the head of this file"]
fn a_pc_with_the_distributions_kernel_boots_and_switches_itself_off() {
    boots("MIDGE_KERNEL", "", &[], &SWITCHED_OFF);
}

#[test]
#[ignore = "boots a kernel: see the head of this file"]
fn an_iso_boots_by_its_firmware() {
    boots("MIDGE_KERNEL", "", &["--format", "iso"], &SWITCHED_OFF);
}

#[test]
fn a_microvm_boots_with_our_own_kernel() {
    boots("MIDGE_KERNEL_MICROVM", "", &["--format", "microvm"], &["by DHCP"]);
}

/// Tells QEMU something (QMP), and waits until it is done.
fn tell_qemu(socket: &Path, command: &str) {
    let stream = UnixStream::connect(socket).expect("QEMU listens");
    let mut answers = BufReader::new(&stream).lines();
    let mut next = || answers.next().expect("QEMU answers").expect("a line");
    assert!(next().contains("QMP"));
    for command in [r#"{"execute":"qmp_capabilities"}"#, command] {
        (&stream).write_all(format!("{command}\n").as_bytes()).expect("QEMU reads");
        while !next().contains("\"return\"") {}
    }
}

/// The kernel ends the server, for its process is the largest, when the magic key `f` is sent to the serial line.
#[test]
fn a_machine_without_a_network_survives_the_death_of_its_server() {
    let Some((folder, parts)) = bootable("MIDGE_KERNEL", "") else { return };
    let path = |name: &str| folder.path().join(name);
    let image = ["image", "--format", "initrd", "--compress", "none", "-o", "initrd"];
    let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
    let made = midge(folder.path(), &[&image[..], &parts].concat());
    assert_eq!(made.code, Some(0), "{}", made.stderr);
    let mut qemu = Command::new("qemu-system-x86_64");
    qemu.args(
        "-accel tcg -cpu max -M q35 -m 512 -nodefaults -no-user-config -display none".split(' '),
    );
    qemu.args("-no-reboot -nic none -initrd initrd -kernel".split(' ')).arg(parts[3]);
    qemu.args(["-append", "console=ttyS0 quiet panic=10 sysrq_always_enabled=1"]);
    qemu.args(["-chardev", "socket,id=line,path=line,server=on,wait=off,logfile=console"]);
    qemu.args(["-serial", "chardev:line", "-qmp", "unix:qmp,server=on,wait=off"]);
    let mut qemu = Running(qemu.current_dir(folder.path()).spawn().expect("QEMU is installed"));
    let console = Console::of(path("console"));
    let says = |text: &str, times: usize| console.wait_for(text, times, 6 * PATIENCE);
    says("serving, ", 1);
    says("no network interface has a carrier yet", 1);
    let mut line = UnixStream::connect(path("line")).expect("QEMU listens");
    tell_qemu(&path("qmp"), r#"{"execute":"chardev-send-break","arguments":{"id":"line"}}"#);
    line.write_all(b"f").expect("QEMU reads");
    // QEMU waits for whoever holds the line to read what the machine says.
    drop(line);
    says("signal 9; starting it again", 1);
    says("serving, ", 2);
    tell_qemu(&path("qmp"), r#"{"execute":"system_powerdown"}"#);
    says(SWITCHED_OFF[0], 1);
    says(SWITCHED_OFF[1], 1);
    let status = qemu.0.wait().expect("it is a child of this");
    assert!(status.success(), "{status}: {}", console.text());
}

/// A program that ends with this.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended by itself.
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

#[test]
#[ignore = "boots a kernel: see the head of this file"]
fn a_pc_with_our_own_kernel_boots_and_switches_itself_off() {
    boots("MIDGE_KERNEL_OWN", "bzImage", &[], &SWITCHED_OFF);
}

/// Settings on the partition for data win if they are in order, and are shown if not.
#[test]
fn settings_on_the_partition_for_data_are_served_if_they_are_in_order() {
    let Some((folder, mut parts)) = bootable("MIDGE_KERNEL", "") else { return };
    let all = [&["image", "-o", "disk"][..], &parts.iter().map(String::as_str).collect::<Vec<_>>()]
        .concat();
    let made = midge(folder.path(), &all);
    assert_eq!(made.code, Some(0), "{}", made.stderr);
    let disk = fs::read(folder.path().join("disk")).expect("it was written");
    // The first sector of the second entry of the table.
    let first = disk[2 * 512 + 128 + 32..].first_chunk().map(|bytes| u64::from_le_bytes(*bytes));
    let offset = first.expect("a table of partitions") * 512;
    let good = "listen = \"0.0.0.0:8080\"\n[[function]]\nname = \"newer\"\nroute = \"/*\"\n\
                module = \"newer.midge\"\n[build]\nprocessor = \"x86-64-v3\"\n";
    let artifact = ["build", "hello.wat", "-o", "artifact", "--build-processor", "x86-64-v3"];
    let built = Command::new(&parts[1]).args(artifact).current_dir(folder.path()).status();
    assert!(built.expect("the static program runs here").success());
    parts = vec!["--disk".into(), "disk".into()];
    let bootable = (folder, parts);
    for (settings, said) in [
        (good, "function=\"newer\""),
        ("listen = 5\n", "/data/midge.toml has faults: the image's own are served"),
    ] {
        fs::write(bootable.0.path().join("new"), settings).expect("room");
        for (file, target) in [("new", "::/midge.toml"), ("artifact", "::/newer.midge")] {
            let mut mcopy = Command::new("mcopy");
            mcopy.args(["-o", "-i", &format!("disk@@{offset}"), file, target]);
            let copied = mcopy.current_dir(bootable.0.path()).status();
            assert!(copied.expect("mtools are installed").success());
        }
        let (console, _) = boot(&bootable, &[]);
        assert!(console.contains(said), "`{said}` in {console}");
    }
}

#[test]
#[ignore = "boots a kernel: see the head of this file"]
fn an_address_can_be_fixed() {
    let words = ["--append", "midge.ip=10.0.2.15/24,10.0.2.2 midge.off=acpi"];
    boots("MIDGE_KERNEL", "", &words, &["eth0: 10.0.2.15/24\r\n"]);
}
