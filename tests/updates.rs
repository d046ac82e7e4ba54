//! Updates of a machine that boots from a disk, in QEMU: refused, kept, undone. Needs what the boots in `image.rs` need.

use std::env;
use std::fs::{self, File};
use std::net::{SocketAddr, TcpListener};
use std::process::{Child, Command};

use midge_tests::console::Console;
use midge_tests::guests::HELLO;
use midge_tests::http::Client;
use midge_tests::program::{Ended, command, midge, without_settings};
use midge_tests::wait::PATIENCE;
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

/// Times [`PATIENCE`]: a machine that boots by firmware, computed by QEMU, takes ten seconds alone.
const BOOT_PATIENCE: u32 = 12;

fn settings(route: &str, listen: &str) -> String {
    format!(
        "admin = \"0.0.0.0:8081\"\nlisten = [\"0.0.0.0:8080\"{listen}]\n\
         [[function]]\nname = \"hello\"\nmodule = \"hello.wat\"\nroute = \"{route}\"\n"
    )
}

/// A machine that runs, and the folder that it was made in.
struct Machine {
    folder: TempDir,
    parts: Vec<String>,
    ports: [u16; 2],
    console: Console,
    run: Child,
}

impl Drop for Machine {
    fn drop(&mut self) {
        // It may have ended by itself.
        drop(self.run.kill());
        drop(self.run.wait());
    }
}

impl Machine {
    /// Starts one from a disk; `None`, said aloud, where it cannot be.
    fn start() -> Option<Self> {
        let text = |name: &str| env::var_os(name)?.into_string().ok();
        let (Some(program), Some(kernel)) = (text("MIDGE_STATIC"), text("MIDGE_KERNEL")) else {
            midge_tests::skip("MIDGE_STATIC and MIDGE_KERNEL do not say what boots");
            return None;
        };
        let folder = tempfile::tempdir().expect("a temporary folder");
        let put =
            |name: &str, content: &str| fs::write(folder.path().join(name), content).expect("room");
        put("hello.wat", HELLO);
        put("one.toml", &settings("/one", ""));
        put("two.toml", &settings("/two", ""));
        put("three.toml", &settings("/three", ", \"unix:/nowhere/socket\""));
        for arguments in [
            &["genpkey", "-algorithm", "ed25519", "-out", "key"][..],
            &["pkey", "-in", "key", "-pubout", "-out", "key.pub"],
            &["genpkey", "-algorithm", "ed25519", "-out", "other"],
        ] {
            let made = Command::new("openssl").args(arguments).current_dir(folder.path()).output();
            assert!(made.expect("openssl is installed").status.success());
        }
        let parts = ["--binary", &program, "--kernel", &kernel].map(str::to_owned).to_vec();
        let mut image = vec!["image", "one.toml", "--update-key", "key.pub", "-o", "disk"];
        image.extend(parts.iter().map(String::as_str));
        let made = midge(folder.path(), &image);
        assert_eq!(made.code, Some(0), "{}", made.stderr);

        let sockets = [0; 2].map(|_| TcpListener::bind("127.0.0.1:0").expect("a port"));
        let ports = sockets.map(|socket| socket.local_addr().expect("it is bound").port());
        let forwarded = [format!("{}:8080", ports[0]), format!("{}:8081", ports[1])];
        let mut run = command(["image", "run", "--accel", "tcg", "--disk", "disk"]);
        run.args(["--port", &forwarded[0], "--port", &forwarded[1]]).current_dir(folder.path());
        without_settings(&mut run);
        let console = folder.path().join("console");
        let run =
            run.stderr(File::create(&console).expect("room")).spawn().expect("midge can be run");
        Some(Self { folder, parts, ports, console: Console::of(console), run })
    }

    /// Waits until the console has said something so often.
    fn says(&self, text: &str, times: usize) {
        self.console.wait_for(text, times, BOOT_PATIENCE * PATIENCE);
    }

    fn update(&self, settings: &str, key: &str, more: &[&str]) -> Ended {
        let to = format!("http://127.0.0.1:{}", self.ports[1]);
        let mut all = vec!["image", "update", settings, "--to", &to, "--key", key];
        all.extend(self.parts.iter().map(String::as_str).chain(more.iter().copied()));
        midge(self.folder.path(), &all)
    }

    fn refuses(&self, settings: &str, key: &str, more: &[&str], why: &str) {
        let ended = self.update(settings, key, more);
        assert_eq!(ended.code, Some(1), "{}", ended.stderr);
        assert!(ended.stderr.contains(why), "`{why}` in {}", ended.stderr);
    }

    fn status(&self, path: &str) -> u16 {
        let address = SocketAddr::from(([127, 0, 0, 1], self.ports[0]));
        Client::connect(address).get(path).status
    }
}

#[test]
fn an_update_is_kept_if_it_serves_and_undone_if_not() {
    let Some(mut machine) = Machine::start() else { return };
    machine.says("serving, ", 1);
    assert_eq!(machine.status("/one"), 200);
    // Not made smaller, an image is larger than the room that a disk is made with for the next one.
    let large = ["--compress", "none"];
    machine.refuses("two.toml", "other", &large, "(403): the signature");
    machine.refuses("two.toml", "key", &large, "(507): the image has");
    assert_eq!(machine.status("/one"), 200);

    let updated = machine.update("two.toml", "key", &["--release", "2"]);
    assert_eq!(updated.code, Some(0), "{}", updated.stderr);
    assert!(updated.stdout.contains("is installed"), "{}", updated.stdout);
    machine.says("it is kept", 1);
    assert_eq!((machine.status("/one"), machine.status("/two")), (404, 200));
    let older = [&large[..], &["--release", "1"]].concat();
    machine.refuses("three.toml", "key", &older, "an older one is not taken");

    let broken = machine.update("three.toml", "key", &["--release", "3"]);
    assert_eq!(broken.code, Some(0), "{}", broken.stderr);
    machine.says("the image on trial does not serve", 2);
    machine.says("did not serve 2 times", 1);
    machine.says("serving, ", 3);
    assert_eq!((machine.status("/three"), machine.status("/two")), (404, 200));

    let run = Pid::from_child(&machine.run);
    kill_process(run, Signal::INT).expect("it is there");
    machine.says("the power button", 1);
    let status = machine.run.wait().expect("it is a child of this");
    assert!(status.success(), "{status}");
}
