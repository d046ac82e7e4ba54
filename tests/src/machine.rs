//! The program as the first process of a machine: in namespaces of its own for processes, mounts and the network, as
//! a container has them, so that nothing of this machine is changed.
//!
//! ```text
//!   unshare -> sh: mounts for a container, /proc/sys and /sys read-only, no devices -> chroot -> /init, process 1
//! ```
//!
//! The program that is tested needs this machine's libraries, which lie in the folder read-only. With `MIDGE_STATIC`
//! another one is taken, which needs none, and the folder holds nothing else.

use std::env;
use std::fs::{self, File};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::os::fd::AsFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;

use rustix::process::{Pid, Signal, getuid, kill_process};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use tempfile::TempDir;

use crate::console::Console;
use crate::http::Client;
use crate::program::program;
use crate::wait::{PATIENCE, wait_for_some};

/// Becomes the machine's first process.
const ENTER: &str = include_str!("../../tools/first-process.sh");

/// A machine. It ends with this.
#[derive(Debug)]
pub struct Machine {
    outer: Child,
    first: Pid,
    console: Console,
    _folder: TempDir,
}

/// How a machine ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MachineEnd {
    /// It was switched off.
    Off,
    /// It started anew.
    Restart,
    /// Something else.
    Other(Option<i32>),
}

impl Machine {
    /// Starts one with these files, and words for its boot; `None`, said aloud, where namespaces are not to be had.
    ///
    /// # Panics
    /// If its folder cannot be made.
    #[must_use]
    pub fn start(words: &str, files: &[(&str, &[u8])]) -> Option<Self> {
        if !getuid().is_root() {
            // Others have namespaces of their own, and may not enter those of the machine to talk to it.
            crate::skip("only root may be a machine's peer");
            return None;
        }
        let allowed = namespaces(&["true"]).output().expect("unshare is part of util-linux");
        if !allowed.status.success() {
            let why = String::from_utf8_lossy(&allowed.stderr).into_owned();
            crate::skip(&format!("namespaces are not to be had here: {}", why.trim()));
            return None;
        }
        let folder = tempfile::tempdir().expect("a temporary folder");
        fs::set_permissions(folder.path(), PermissionsExt::from_mode(0o755)).expect("our folder");
        let root = folder.path().join("root");
        let put = |name: &str, content: &[u8]| {
            let path = root.join(name);
            fs::create_dir_all(path.parent().expect("a file lies in a folder")).expect("room");
            fs::write(path, content).expect("room");
        };
        put("etc/midge/boot", words.as_bytes());
        for (name, content) in files {
            put(name, content);
        }
        let own = env::var_os("MIDGE_STATIC").map(PathBuf::from);
        let libraries: &[&str] = if own.is_some() { &[] } else { &["lib", "lib64", "usr"] };
        place(own.as_deref().unwrap_or(program()), &root.join("init"));
        let log = File::create(folder.path().join("console")).expect("room");
        let script = folder.path().join("enter");
        fs::write(&script, ENTER).expect("room");
        let mut command = namespaces(&["sh"]);
        command
            .arg(script)
            .arg(&root)
            .args(libraries)
            .env_clear()
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
        command.stdin(Stdio::null()).stdout(log.try_clone().expect("a second handle")).stderr(log);
        let outer = command.spawn().expect("unshare can be run");
        let first = wait_for_some("the first process", || children(Pid::from_child(&outer)).pop());
        let console = Console::of(folder.path().join("console"));
        Some(Self { outer, first, console, _folder: folder })
    }

    /// Returns what was said on its console so far.
    #[must_use]
    pub fn console(&self) -> String {
        self.console.text()
    }

    /// Waits until a text was said so many times.
    pub fn wait_for_text(&self, text: &str, count: usize) {
        self.console.wait_for(text, count, PATIENCE);
    }

    /// Runs something in its network.
    ///
    /// # Panics
    /// If the network cannot be entered.
    pub fn in_network<T: Send + 'static>(&self, run: impl FnOnce() -> T + Send + 'static) -> T {
        let network = File::open(format!("/proc/{}/ns/net", self.first)).expect("it lives");
        let inside = move || {
            move_into_link_name_space(network.as_fd(), Some(LinkNameSpaceType::Network))
                .expect("its network is ours");
            run()
        };
        thread::spawn(inside).join().expect("what runs there does not panic")
    }

    /// Connects to a port of it.
    #[must_use]
    pub fn client(&self, port: u16) -> Client {
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        Client::over(self.in_network(move || TcpStream::connect(address)).expect("it listens"))
    }

    /// Opens a socket in its network.
    #[must_use]
    pub fn udp(&self, port: u16) -> UdpSocket {
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        self.in_network(move || UdpSocket::bind(address)).expect("the port is free")
    }

    /// Returns its processes that are children of the first, by what they were started with.
    #[must_use]
    pub fn servers(&self) -> Vec<(Pid, String)> {
        let line = |pid: Pid| {
            let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            (pid, String::from_utf8_lossy(&line).replace('\0', " "))
        };
        children(self.first).into_iter().map(line).collect()
    }

    /// Returns its first process.
    #[must_use]
    pub const fn first(&self) -> Pid {
        self.first
    }

    /// Sends its first process a signal.
    ///
    /// # Panics
    /// If it is gone.
    pub fn signal(&self, signal: Signal) {
        kill_process(self.first, signal).expect("it lives");
    }

    /// Waits for its end. The kernel tells who waits for the first process of a namespace how it would have ended a
    /// machine, as a signal (reboot(2)).
    ///
    /// # Panics
    /// If it does not end.
    #[must_use]
    pub fn wait_for_end(&mut self) -> MachineEnd {
        let status = wait_for_some("the machine ends", || {
            self.outer.try_wait().expect("a child can be waited for")
        });
        // Some releases of unshare die of the signal, others turn it into a number.
        let signal = status.signal().or_else(|| Some(status.code()? - 128));
        match signal {
            Some(2) => MachineEnd::Off,
            Some(1) => MachineEnd::Restart,
            other => MachineEnd::Other(other),
        }
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        // With the first process all others of its namespace end, and unshare ends its own with itself.
        drop(self.outer.kill());
        drop(self.outer.wait());
        if thread::panicking() {
            eprintln!("--- the console\n{}---", self.console());
        }
    }
}

fn namespaces(command: &[&str]) -> Command {
    let mut unshare = Command::new("unshare");
    unshare.args(["--pid", "--net", "--mount", "--fork", "--kill-child", "--"]).args(command);
    unshare
}

fn place(program: &Path, target: &Path) {
    fs::create_dir_all(target.parent().expect("it lies in a folder")).expect("room");
    // The same file under another name where the disk is the same.
    if fs::hard_link(program, target).is_err() {
        fs::copy(program, target).expect("room for the program");
    }
}

fn children(parent: Pid) -> Vec<Pid> {
    let processes = fs::read_dir("/proc").expect("/proc is mounted").flatten();
    let numbers = processes.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let is_child = |number: &i32| {
        let stat = fs::read_to_string(format!("/proc/{number}/stat")).unwrap_or_default();
        // The name may hold anything; behind its bracket stand the state and the parent.
        let fields = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
        fields.split_whitespace().nth(1) == Some(&parent.to_string())
    };
    numbers.filter(is_child).filter_map(Pid::from_raw).collect()
}
