//! A running host: the built program, in a folder of its own, on free ports.

use std::ffi::OsString;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, ExitStatus, Stdio};
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;

use crate::http::Client;
use crate::metrics::Metrics;
use crate::program::command;
use crate::wait::{PATIENCE, wait_for, wait_for_some};

/// What a host is started with.
#[derive(Debug)]
pub struct Setup {
    folder: TempDir,
    arguments: Vec<OsString>,
    environment: Vec<(&'static str, OsString)>,
    patience: Duration,
}

/// A host that has told its addresses. It is killed when it is dropped.
#[derive(Debug)]
pub struct Host {
    child: Child,
    folder: TempDir,
    stderr: Arc<Mutex<String>>,
    /// What it said when it was ready.
    pub ready: Value,
    /// Where functions are served: the first internet address.
    pub listen: SocketAddr,
    /// Where health and metrics are served.
    pub admin: SocketAddr,
}

/// Name of the settings file in a host's folder.
const SETTINGS: &str = "midge.toml";

impl Setup {
    /// Begins with an empty folder, one worker, and addresses of this machine alone.
    ///
    /// # Panics
    /// If there is no room for a folder.
    #[must_use]
    pub fn new() -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let (arguments, environment) = (Vec::new(), Vec::new());
        Self { folder, arguments, environment, patience: PATIENCE }
    }

    /// Adds a file, with the folders that it lies in.
    ///
    /// # Panics
    /// If it cannot be written.
    #[must_use]
    pub fn file(self, name: &str, content: impl AsRef<[u8]>) -> Self {
        let path = self.folder.path().join(name);
        let folder = path.parent().expect("it lies in the host's folder");
        std::fs::create_dir_all(folder).expect("the folder takes folders");
        std::fs::write(path, content).expect("the folder takes files");
        self
    }

    /// Adds an argument.
    #[must_use]
    pub fn argument(mut self, argument: &str) -> Self {
        self.arguments.push(argument.into());
        self
    }

    /// Adds variables to its environment.
    #[must_use]
    pub fn environment(
        mut self,
        variables: impl IntoIterator<Item = (&'static str, OsString)>,
    ) -> Self {
        self.environment.extend(variables);
        self
    }

    /// Waits longer than others until the host is ready: for what it builds first.
    #[must_use]
    pub const fn patience(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }

    /// Returns its folder.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Serves settings, see [`patient`].
    ///
    /// # Panics
    /// If the host does not get ready.
    #[must_use]
    pub fn serve(self, settings: &str) -> Host {
        let setup = self.file(SETTINGS, patient(settings));
        setup.start("serve", SETTINGS)
    }

    /// Serves one of the files on every path, as a function of that name.
    ///
    /// # Panics
    /// If the host does not get ready.
    #[must_use]
    pub fn function(self, file: &str) -> Host {
        let name = file.split('.').next().expect("a split has a first part");
        self.serve(&format!(
            "[[function]]\nname = \"{name}\"\nmodule = \"{file}\"\nroute = \"/*\"\n"
        ))
    }

    /// Serves one of the files with `midge run`.
    ///
    /// # Panics
    /// If the host does not get ready.
    #[must_use]
    pub fn run(self, file: &str) -> Host {
        self.start("run", file)
    }

    /// Serves the folder with `midge dev`.
    ///
    /// # Panics
    /// If the host does not get ready.
    #[must_use]
    pub fn dev(self) -> Host {
        self.dev_in(".")
    }

    /// Serves a folder within it with `midge dev`.
    ///
    /// # Panics
    /// If the host does not get ready.
    #[must_use]
    pub fn dev_in(self, folder: &str) -> Host {
        self.start("dev", folder)
    }

    fn start(self, verb: &str, file: &str) -> Host {
        let Self { folder, arguments, environment, patience } = self;
        let mut command = command([verb, file, "--json", "--admin", "127.0.0.1:0"]);
        let settings = std::fs::read_to_string(folder.path().join(SETTINGS)).unwrap_or_default();
        if !settings.lines().any(|line| line.starts_with("listen =")) {
            command.args(["--listen", "127.0.0.1:0"]);
        }
        if !arguments.iter().any(|argument| argument == "--workers") {
            command.args(["--workers", "1"]);
        }
        command.args(arguments).envs(environment).current_dir(folder.path());
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("midge can be run");

        let stderr = Arc::new(Mutex::new(String::new()));
        let (source, sink) = (child.stderr.take().expect("piped"), Arc::clone(&stderr));
        thread::spawn(move || collect(BufReader::new(source), &sink));
        let stdout = child.stdout.take().expect("piped");
        let (said, ready) = channel();
        thread::spawn(move || {
            let mut values = serde_json::Deserializer::from_reader(stdout).into_iter::<Value>();
            if let Some(Ok(value)) = values.next() {
                // Nobody listens any more once a test has given up.
                let _ignored = said.send(value);
            }
        });
        let Ok(ready) = ready.recv_timeout(patience) else {
            drop(child.kill());
            panic!("the host is not ready; it said\n{}", locked(&stderr));
        };
        let address = |value: &Value| value.as_str().and_then(|text| text.parse().ok());
        let listeners = ready["listeners"].as_array().expect("a list");
        let nowhere = SocketAddr::from(([0; 4], 0));
        let listen = listeners.iter().find_map(address).unwrap_or(nowhere);
        let admin = address(&ready["admin"]).expect("an address");
        Host { child, folder, stderr, ready, listen, admin }
    }
}

impl Default for Setup {
    fn default() -> Self {
        Self::new()
    }
}

impl Host {
    /// Connects to where functions are served.
    #[must_use]
    pub fn client(&self) -> Client {
        Client::connect(self.listen)
    }

    /// Returns the numbers of this moment.
    #[must_use]
    pub fn metrics(&self) -> Metrics {
        let response = Client::connect(self.admin).get("/metrics");
        assert_eq!(response.status, 200);
        Metrics(response.text().to_owned())
    }

    /// Waits until the numbers are as they should be.
    pub fn wait_for_metrics(&self, what: &str, mut holds: impl FnMut(&Metrics) -> bool) {
        wait_for(what, || holds(&self.metrics()));
    }

    /// Returns the addresses that it told, all of them.
    ///
    /// # Panics
    /// If it told none.
    #[must_use]
    pub fn listeners(&self) -> Vec<&str> {
        let all = self.ready["listeners"].as_array().expect("a list");
        all.iter().filter_map(Value::as_str).collect()
    }

    /// Returns its folder.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Replaces its settings file, see [`patient`]; a SIGHUP makes the host read it.
    ///
    /// # Panics
    /// If the file cannot be written.
    pub fn write_settings(&self, settings: &str) {
        std::fs::write(self.folder().join(SETTINGS), patient(settings))
            .expect("the folder takes files");
    }

    /// Sends a signal.
    ///
    /// # Panics
    /// If the host is gone.
    pub fn signal(&self, signal: Signal) {
        let pid = Pid::from_child(&self.child);
        kill_process(pid, signal).expect("the host lives");
    }

    /// Returns the number of its process.
    #[must_use]
    pub fn process(&self) -> u32 {
        self.child.id()
    }

    /// Returns what it wrote to stderr so far.
    #[must_use]
    pub fn log(&self) -> String {
        locked(&self.stderr)
    }

    /// Waits for a line on stderr that has all these words, and returns it.
    #[must_use]
    pub fn wait_for_line(&self, words: &[&str]) -> String {
        wait_for_some(&format!("a line with {words:?}"), || {
            let log = self.log();
            let mut lines = log.lines();
            lines.find(|line| words.iter().all(|word| line.contains(word))).map(str::to_owned)
        })
    }

    /// Waits for its end.
    pub fn wait_for_end(&mut self) -> ExitStatus {
        wait_for_some("the host ends", || self.child.try_wait().expect("a child can be waited for"))
    }

    /// Returns how much memory it has resident, in KiB.
    ///
    /// # Panics
    /// If the host is gone.
    #[must_use]
    pub fn resident_kib(&self) -> u64 {
        let status = self.proc("status");
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let number = line.and_then(|line| line.trim().split(' ').next()?.parse().ok());
        number.expect("the kernel tells VmRSS")
    }

    /// Returns how many descriptors it has open.
    ///
    /// # Panics
    /// If the host is gone.
    #[must_use]
    pub fn descriptor_count(&self) -> usize {
        let folder = format!("/proc/{}/fd", self.child.id());
        std::fs::read_dir(folder).expect("the host lives").count()
    }

    /// Returns what the kernel says of it in one of the files of `/proc/PID`.
    ///
    /// # Panics
    /// If the host is gone.
    #[must_use]
    pub fn proc(&self, file: &str) -> String {
        let path = format!("/proc/{}/{file}", self.child.id());
        std::fs::read_to_string(path).expect("the host lives")
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        // It may have ended by itself.
        drop(self.child.kill());
        drop(self.child.wait());
        if thread::panicking() {
            eprintln!("--- the host's stderr\n{}---", locked(&self.stderr));
        }
    }
}

/// Gives each function that names no deadline a long one: on a busy machine a thread may wait for longer than
/// the default, and that is no failure of what is tested.
fn patient(settings: &str) -> String {
    let mut parts = settings.split("[[function]]");
    let top = parts.next().expect("a split has a first part").to_owned();
    let functions = parts.map(|part| {
        let deadline = if part.contains("deadline") { "" } else { "\ndeadline = \"10s\"" };
        format!("[[function]]{deadline}{part}")
    });
    std::iter::once(top).chain(functions).collect()
}

fn collect(mut source: impl BufRead, sink: &Mutex<String>) {
    let mut line = Vec::new();
    while source.read_until(b'\n', &mut line).is_ok_and(|size| size > 0) {
        let text = String::from_utf8_lossy(&line);
        sink.lock().unwrap_or_else(PoisonError::into_inner).push_str(&text);
        line.clear();
    }
}

fn locked(text: &Mutex<String>) -> String {
    text.lock().unwrap_or_else(PoisonError::into_inner).clone()
}
