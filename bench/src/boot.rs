//! `midge-lab boot`: from the start of a process to its first response, systems side by side, in rounds that
//! alternate.
//!
//! Everything that may be done before, settings written and modules compiled, is done before. Then the clock runs: the
//! process is started on the servers' CPU, and a client on another asks until it has a whole response. The memory is
//! read, and the system is ended. CPU time is that of its whole life, the processes that it waited for included.

use std::io::{self, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::Child;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use midge_bench::measure::Spread;
use midge_ways::usage::Usage;
use rustix::process::{Pid, Signal, kill_process};
use serde::Serialize;

use crate::answer::{Answer, read};
use crate::cpus::Cpus;
use crate::peers::{Comparison, Found, NGINX, PROGRAM, Selection};
use crate::processes::proportional_bytes;
use crate::servers::{complaint, free_address, pinned, spawn};

/// How often a client tries to connect.
const POLL: Duration = Duration::from_micros(100);

/// What a client sees of a system that takes connections before it answers.
const NOT_READY: [io::ErrorKind; 3] =
    [io::ErrorKind::ConnectionReset, io::ErrorKind::BrokenPipe, io::ErrorKind::UnexpectedEof];

/// What a system on a serial line says when it is ready.
const GREETING: u8 = b'!';

/// How long a system may take to clean up.
const END_MAX: Duration = Duration::from_secs(20);

/// Options of `midge-lab boot`.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Rounds, after one that is not counted; each system is started once in a round.
    #[arg(long, default_value_t = 15)]
    rounds: usize,
    /// What is compared.
    #[command(flatten)]
    selection: Selection,
    /// The kernel for virtual machines; by default the newest of this machine's.
    #[arg(long, value_name = "FILE")]
    kernel: Option<PathBuf>,
    /// The CPUs.
    #[command(flatten)]
    cpus: Cpus,
    /// Prints one JSON object.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Serialize)]
struct Report {
    schema: &'static str,
    rows: Vec<Row>,
    left_out: Vec<String>,
}

#[derive(Debug, Serialize)]
struct Row {
    server: &'static str,
    /// Wall time until a whole response was there.
    first_response_ms: Spread,
    /// That of the static program in the same round is 1.
    ratio_to_program: Option<Spread>,
    ratio_to_nginx: Option<Spread>,
    /// Of its whole life, in programs and in the kernel.
    cpu_ms: Spread,
    faults: Spread,
    /// Behind the response, its part of what processes share.
    pss_mib: Spread,
    /// Wall time from the end's beginning until nothing was left of it.
    teardown_ms: Spread,
}

/// One start.
#[derive(Debug, Clone, Copy)]
struct Start {
    first_response_ms: f64,
    cpu_ms: f64,
    faults: f64,
    pss_mib: f64,
    teardown_ms: f64,
}

struct Lane {
    found: Found,
    starts: Vec<Start>,
    to_program: Vec<f64>,
    to_nginx: Vec<f64>,
}

/// Runs the comparison.
///
/// # Errors
/// If one of ours does not start, or what was selected does not exist.
pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    arguments.cpus.check()?;
    let (rows, mut left_out) = arguments.selection.rows(Comparison::Boot)?;
    let mut lanes = Vec::with_capacity(rows.len());
    // What does not start is known after this round, and files are in memory.
    for found in rows {
        let name = found.row.name;
        match start(arguments, &found) {
            Ok(_) => lanes.push(Lane {
                found,
                starts: Vec::new(),
                to_program: Vec::new(),
                to_nginx: Vec::new(),
            }),
            Err(error) if found.is_ours => return Err(error.context(name)),
            Err(error) => left_out.push(format!("{name}: {error:#}")),
        }
    }
    for _ in 0..arguments.rounds.max(1) {
        round(arguments, &mut lanes, &mut left_out)?;
    }
    let rows = lanes.into_iter().map(row).collect();
    let report = Report { schema: "midge-lab/boot/1", rows, left_out };
    if arguments.json { crate::print_json(&report) } else { print_table(&report) }
}

/// Starts each system once; one of somebody else's that does not start any more is left out.
fn round(arguments: &Arguments, lanes: &mut Vec<Lane>, left_out: &mut Vec<String>) -> Result<()> {
    let mut times = Vec::with_capacity(lanes.len());
    let mut index = 0;
    while let Some(lane) = lanes.get_mut(index) {
        let name = lane.found.row.name;
        match start(arguments, &lane.found) {
            Ok(start) => {
                times.push((name, start.first_response_ms));
                lane.starts.push(start);
                index += 1;
            }
            Err(error) if lane.found.is_ours => return Err(error.context(name)),
            Err(error) => {
                left_out.push(format!("{name}: {error:#}"));
                lanes.remove(index);
            }
        }
    }
    let of = |wanted: &str| times.iter().find(|(name, _)| *name == wanted).map(|(_, ms)| *ms);
    for (lane, (_, ms)) in lanes.iter_mut().zip(&times) {
        lane.to_program.extend(of(PROGRAM).map(|base| ms / base));
        lane.to_nginx.extend(of(NGINX).map(|base| ms / base));
    }
    Ok(())
}

fn row(lane: Lane) -> Row {
    let of = |field: fn(&Start) -> f64| Spread::of(lane.starts.iter().map(field).collect());
    let some = |ratios: Vec<f64>| (!ratios.is_empty()).then(|| Spread::of(ratios));
    Row {
        server: lane.found.row.name,
        first_response_ms: of(|start| start.first_response_ms),
        cpu_ms: of(|start| start.cpu_ms),
        faults: of(|start| start.faults),
        pss_mib: of(|start| start.pss_mib),
        teardown_ms: of(|start| start.teardown_ms),
        ratio_to_program: some(lane.to_program),
        ratio_to_nginx: some(lane.to_nginx),
    }
}

/// Starts a system, waits for its first response, and ends it.
fn start(arguments: &Arguments, found: &Found) -> Result<Start> {
    let (address, folder) = (free_address()?, tempfile::tempdir()?);
    let (cpus, kernel) = (arguments.cpus, arguments.kernel.as_deref());
    let mut launch = found.launch(folder.path(), address, cpus.servers, kernel)?;
    let before = Usage::of_children();
    let began = Instant::now();
    let child = pinned(cpus.servers, || spawn(&mut launch.command, folder.path()))??;
    let mut running = Running { child, cleans_up: launch.cleans_up };
    cpus.take_load()?;
    let client = Client { address, target: found.target(), greets: launch.greets };
    client.meet(&mut running.child, began + launch.start_max).map_err(|error| {
        let why = complaint(folder.path());
        error.context(format!("no response{why}"))
    })?;
    let first_response_ms = began.elapsed().as_secs_f64() * 1e3;
    #[expect(clippy::cast_precision_loss, reason = "a size for people")]
    let pss_mib = proportional_bytes(running.child.id())? as f64 / f64::from(1 << 20);
    let ending = Instant::now();
    running.end()?;
    let teardown_ms = ending.elapsed().as_secs_f64() * 1e3;
    let used = Usage::of_children().since(before);
    let cpu = used.user + used.system;
    Ok(Start {
        first_response_ms,
        cpu_ms: cpu.as_secs_f64() * 1e3,
        #[expect(clippy::cast_precision_loss, reason = "a count for people")]
        faults: used.faults as f64,
        pss_mib,
        teardown_ms,
    })
}

/// A process that is ended when this is dropped.
pub(crate) struct Running {
    pub(crate) child: Child,
    /// True if it is asked to end, for it has to clean up; else it is killed.
    pub(crate) cleans_up: bool,
}

impl Running {
    /// Ends it, and waits until it has gone.
    fn end(&mut self) -> Result<()> {
        if !self.cleans_up {
            self.child.kill()?;
            self.child.wait()?;
            return Ok(());
        }
        kill_process(Pid::from_child(&self.child), Signal::TERM)?;
        let until = Instant::now() + END_MAX;
        while self.child.try_wait()?.is_none() {
            ensure!(Instant::now() < until, "it does not end");
            std::thread::park_timeout(POLL);
        }
        Ok(())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            // What is to clean up is given the time; what does not end is killed.
            let has_ended = self.cleans_up && self.end().is_ok();
            if !has_ended {
                let _gone = self.child.kill();
                let _gone = self.child.wait();
            }
        }
    }
}

/// Who asks.
struct Client {
    address: SocketAddr,
    target: &'static str,
    greets: bool,
}

impl Client {
    /// Asks again and again, until there is a response.
    fn meet(&self, child: &mut Child, until: Instant) -> Result<()> {
        loop {
            let connected = TcpStream::connect(self.address);
            if let Some(status) = child.try_wait()? {
                bail!("it ended at once: {status}");
            }
            if let Ok(stream) = connected {
                match self.ask(&stream, until) {
                    Ok(answer) => return answer.check(),
                    // It took the connection and was not ready.
                    Err(error) if NOT_READY.contains(&error.kind()) => {}
                    Err(error) => return Err(error).context("asking it"),
                }
            }
            ensure!(Instant::now() < until, "not in the time that it has");
            std::thread::park_timeout(POLL);
        }
    }

    fn ask(&self, mut stream: &TcpStream, until: Instant) -> io::Result<Answer> {
        let left = until.saturating_duration_since(Instant::now()).max(POLL);
        stream.set_read_timeout(Some(left))?;
        stream.set_nodelay(true)?;
        let mut greeting = [0];
        // A kernel may have had something to say before.
        while self.greets && greeting[0] != GREETING {
            if read(stream, &mut greeting)? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
        let Self { address, target, .. } = self;
        let request =
            format!("GET {target} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes())?;
        Answer::read(stream)
    }
}

fn print_table(report: &Report) -> Result<()> {
    say!(
        "{:<25} {:>9} {:>16} {:>9} {:>8} {:>8} {:>8} {:>8} {:>8}",
        "system",
        "first ms",
        "low..high",
        "x program",
        "x nginx",
        "CPU ms",
        "faults",
        "Pss MiB",
        "end ms"
    );
    for row in &report.rows {
        let Spread { median, low, high, .. } = row.first_response_ms;
        let ratio = |spread: Option<Spread>| {
            spread.map_or(String::new(), |spread| format!("{:.2}", spread.median))
        };
        say!(
            "{:<25} {median:>9.2} {:>16} {:>9} {:>8} {:>8.2} {:>8.0} {:>8.1} {:>8.2}",
            row.server,
            format!("{low:.2}..{high:.2}"),
            ratio(row.ratio_to_program),
            ratio(row.ratio_to_nginx),
            row.cpu_ms.median,
            row.faults.median,
            row.pss_mib.median,
            row.teardown_ms.median,
        );
    }
    crate::print_left_out(&report.left_out)
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::net::TcpListener;
    use std::process::{Command, Stdio};

    use super::*;

    const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 16\r\n\r\nsixteen bytes ok";

    /// A process that lives until this is dropped.
    struct Idle(Child);

    impl Idle {
        fn start() -> Self {
            let mut command = Command::new("cat");
            Self(command.stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap())
        }
    }

    impl Drop for Idle {
        fn drop(&mut self) {
            self.0.kill().unwrap();
            self.0.wait().unwrap();
        }
    }

    /// Meets a server that answers its connections in turn with these bytes, and closes them.
    fn meet(greets: bool, answers: &'static [&'static [u8]], limit: Duration) -> Result<()> {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let server = std::thread::spawn(move || {
            for answer in answers {
                let (mut stream, _) = listener.accept().unwrap();
                if greets {
                    stream.write_all(b"some words\n!").unwrap();
                }
                let mut request = [0; 1024];
                assert!(stream.read(&mut request).unwrap() > 0);
                stream.write_all(answer).unwrap();
            }
        });
        let client = Client { address, target: "/", greets };
        let result = client.meet(&mut Idle::start().0, Instant::now() + limit);
        if result.is_ok() {
            server.join().unwrap();
        }
        result
    }

    const LONG: Duration = Duration::from_secs(60);

    #[test]
    fn a_response_is_waited_for() {
        meet(false, &[ANSWER], LONG).unwrap();
        // One that says so first.
        meet(true, &[ANSWER], LONG).unwrap();
        // One that takes connections before it is ready.
        meet(false, &[b"", b"HTTP/1.1 200 OK\r\n", ANSWER], LONG).unwrap();
        // One whose body goes to the end of the connection.
        meet(false, &[b"HTTP/1.1 200 OK\r\n\r\nsixteen bytes ok"], LONG).unwrap();
    }

    #[test]
    fn a_wrong_response_is_none() {
        let wrong: [&'static [&'static [u8]]; 3] = [
            &[b"HTTP/1.1 500 No\r\nContent-Length: 16\r\n\r\nsixteen bytes ok"],
            &[b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nno"],
            &[b"SSH-2.0-some\r\n\r\n"],
        ];
        for answers in wrong {
            assert!(meet(false, answers, LONG).is_err());
        }
    }

    #[test]
    fn a_system_that_ends_or_is_too_late_is_told() {
        // Nobody listens there any more.
        let address = free_address().unwrap();
        let client = Client { address, target: "/", greets: false };
        let mut gone = Command::new("false").spawn().unwrap();
        let error = client.meet(&mut gone, Instant::now() + LONG).unwrap_err();
        assert!(error.to_string().contains("ended at once"), "{error}");
        let mut idle = Idle::start();
        let error = client.meet(&mut idle.0, Instant::now()).unwrap_err();
        assert!(error.to_string().contains("not in the time"), "{error}");
    }

    #[test]
    fn the_static_program_is_started_met_and_ended() {
        let selection = Selection::only(&["program"]);
        let (rows, left_out) = selection.rows(Comparison::Boot).unwrap();
        assert!(left_out.is_empty(), "{left_out:?}");
        let (address, folder) = (free_address().unwrap(), tempfile::tempdir().unwrap());
        let mut launch = rows[0].launch(folder.path(), address, 0, None).unwrap();
        let child = spawn(&mut launch.command, folder.path()).unwrap();
        let mut running = Running { child, cleans_up: true };
        let client = Client { address, target: "/", greets: false };
        client.meet(&mut running.child, Instant::now() + LONG).unwrap();
        assert!(proportional_bytes(running.child.id()).unwrap() > 0);
        running.end().unwrap();
        assert!(running.child.try_wait().unwrap().is_some_and(|status| status.success()));
    }
}
