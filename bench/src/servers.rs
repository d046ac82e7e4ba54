//! Servers as child processes: started, pinned, waited for, their CPU time read, ended.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use crate::processes::{CpuTime, field_kib};

/// How long a server may take until it accepts.
const START_MAX: Duration = Duration::from_secs(60);

/// A running server. It ends when this is dropped.
#[derive(Debug)]
pub(crate) struct Server {
    /// Name of its row.
    pub(crate) name: &'static str,
    /// Where it listens.
    pub(crate) address: SocketAddr,
    /// Target that it answers.
    pub(crate) target: &'static str,
    child: Child,
    folder: tempfile::TempDir,
}

impl Server {
    /// Starts `command`, pinned to a CPU, and waits until it accepts.
    ///
    /// # Errors
    /// If it cannot be started or does not accept in time.
    pub(crate) fn start(
        name: &'static str,
        address: SocketAddr,
        target: &'static str,
        cpu: usize,
        command: Command,
        folder: tempfile::TempDir,
    ) -> Result<Self> {
        pinned(cpu, || Self::start_anywhere(name, address, target, command, folder))?
    }

    /// Starts `command` where this process may run, and waits until it accepts.
    ///
    /// # Errors
    /// If it cannot be started or does not accept in time.
    pub(crate) fn start_anywhere(
        name: &'static str,
        address: SocketAddr,
        target: &'static str,
        mut command: Command,
        folder: tempfile::TempDir,
    ) -> Result<Self> {
        let child = spawn(&mut command, folder.path())?;
        let mut server = Self { name, address, target, child, folder };
        server.wait()?;
        Ok(server)
    }

    fn wait(&mut self) -> Result<()> {
        let until = Instant::now() + START_MAX;
        while Instant::now() < until {
            if let Some(status) = self.child.try_wait()? {
                let why = complaint(self.folder.path());
                anyhow::bail!("{} ended at once: {status}{why}", self.name);
            }
            if TcpStream::connect(self.address).is_ok() {
                return Ok(());
            }
            std::thread::park_timeout(Duration::from_millis(20));
        }
        anyhow::bail!("{} does not accept", self.name)
    }

    /// Returns its process.
    pub(crate) fn process(&self) -> u32 {
        self.child.id()
    }

    /// Returns the CPU time of all its threads, and of its children's.
    ///
    /// # Errors
    /// If the process has gone.
    pub(crate) fn cpu_time(&self) -> Result<CpuTime> {
        CpuTime::of_tree(self.child.id()).with_context(|| format!("reading {}", self.name))
    }

    /// Returns the memory that is resident (proc(5), VmRSS), in bytes.
    ///
    /// # Errors
    /// If the process has gone.
    pub(crate) fn resident_bytes(&self) -> Result<u64> {
        let text = std::fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        Ok(field_kib(&text, "VmRSS:").context("the process has no memory left")? * 1024)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended already.
        let _gone = self.child.kill();
        let _gone = self.child.wait();
    }
}

/// Runs `action` on a CPU, which a child that it starts inherits.
///
/// # Errors
/// If this process may not use that CPU.
pub(crate) fn pinned<T>(cpu: usize, action: impl FnOnce() -> T) -> Result<T> {
    let ours = core_affinity::get_core_ids().context("the CPUs of this process are unknown")?;
    let pinned = core_affinity::set_for_current(core_affinity::CoreId { id: cpu });
    ensure!(pinned, "cannot use CPU {cpu} for servers");
    let result = action();
    for core in ours {
        if core.id != cpu {
            core_affinity::set_for_current(core);
        }
    }
    Ok(result)
}

/// What would make programs in Rust walk their stacks for each error that they handle: a tenth to a fifth of a
/// request of some.
const BACKTRACES: [&str; 2] = ["RUST_BACKTRACE", "RUST_LIB_BACKTRACE"];

/// Starts `command` without a terminal; what it complains of goes to a file of the folder.
///
/// # Errors
/// If it cannot be started.
pub(crate) fn spawn(command: &mut Command, folder: &Path) -> Result<Child> {
    let complaints = std::fs::File::create(folder.join(COMPLAINTS))?;
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(complaints);
    for name in BACKTRACES {
        command.env_remove(name);
    }
    let program = Path::new(command.get_program()).display().to_string();
    command.spawn().with_context(|| format!("cannot start {program}"))
}

/// Runs a command to its end; what it complains of is its error.
///
/// # Errors
/// If it cannot be started, or fails.
pub(crate) fn output_of(command: &mut Command) -> Result<Output> {
    let program = command.get_program().to_owned();
    let ended = command.output().with_context(|| format!("cannot start {}", program.display()))?;
    let why = String::from_utf8_lossy(&ended.stderr);
    ensure!(ended.status.success(), "{}: {}", program.display(), why.trim());
    Ok(ended)
}

/// The file.
const COMPLAINTS: &str = "stderr";

/// Bytes of a complaint that are told.
const COMPLAINT_MAX: usize = 200;

/// Returns the last line of it, behind a comma, or nothing.
pub(crate) fn complaint(folder: &Path) -> String {
    let text = std::fs::read(folder.join(COMPLAINTS)).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let line = text.lines().rev().find(|line| !line.trim().is_empty());
    line.map_or(String::new(), |line| {
        format!(", {}", line.trim().chars().take(COMPLAINT_MAX).collect::<String>())
    })
}

/// Returns a free port of the loopback address.
///
/// # Errors
/// If there is none.
pub(crate) fn free_address() -> Result<SocketAddr> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?)
}

/// What is said where nginx was left out.
pub(crate) const NGINX_MISSING: &str = "nginx: apt-get install nginx-light";

/// Writes settings into a folder; returns the command by which one worker, on this CPU, serves them. `sections` is what
/// they have besides addresses, worker and log.
///
/// # Errors
/// If they cannot be written.
pub(crate) fn serving(
    midge: &Path,
    folder: &Path,
    [address, admin]: [SocketAddr; 2],
    cpu: usize,
    sections: &str,
) -> Result<Command> {
    let settings = folder.join("midge.toml");
    let text = format!(
        "listen = \"{address}\"\nadmin = \"{admin}\"\nworkers = \"{cpu}-{cpu}\"\n\n\
         [log]\nlevel = \"error\"\n\n{sections}"
    );
    std::fs::write(&settings, text)?;
    let mut command = Command::new(midge);
    command.arg("serve").arg(settings);
    Ok(command)
}

/// Finds midge.
///
/// # Errors
/// If it is not beside this program, with the line that builds it there.
pub(crate) fn find_midge() -> Result<PathBuf> {
    find("midge").context("midge is not beside this program: cargo build --release")
}

/// Finds another system's program, and notes its version.
pub(crate) fn find_other(name: &str) -> Option<PathBuf> {
    find(name).inspect(|program| crate::machine::note_version(name, program))
}

/// Finds a program beside this one, or on the path.
#[must_use]
pub(crate) fn find(name: &str) -> Option<PathBuf> {
    let beside = std::env::current_exe().ok()?.with_file_name(name);
    if beside.is_file() {
        return Some(beside);
    }
    let path = std::env::var_os("PATH")?;
    let folders = std::env::split_paths(&path).chain([PathBuf::from("/usr/sbin")]);
    folders.map(|folder| folder.join(name)).find(|program| Path::is_file(program))
}
