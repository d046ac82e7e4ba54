//! The child that serves: started, listened to, started again when it ends, and ended with the machine.
//!
//! ```text
//!   starting --READY=1--> serving --it ends--> waiting --delay--> starting
//!       \--it ends, bad settings: `midge check` shows them--^
//!   any --SIGTERM--> stopping: the child drains, or is killed after a while --> end
//!   on trial (`update.rs`): serving for a while --> kept;  it ends, or is late --> restart
//! ```
//!
//! One thread decides; others wait for signals, messages and buttons, and hand them over.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixDatagram;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, WaitOptions, WaitStatus, kill_process, wait};
use signal_hook::consts::{SIGCHLD, SIGHUP, SIGINT, SIGTERM, SIGUSR2};
use signal_hook::iterator::Signals;

use super::console::Console;
use super::places::SETTINGS;
use super::power::{End, FEED_EVERY, Watchdog, watch_buttons};
use super::update::{self, Images};
use super::words::Words;
use crate::doctor::Machine;
use crate::notify::{ALIVE, READY, SOCKET, WATCHDOG};

/// Settings on the partition for data, which win if they are in order.
const DATA_SETTINGS: &str = "midge.toml";
const PAGE_BYTES: u64 = 4096;
/// The program that runs now, wherever it lies.
const THIS_PROGRAM: &str = "/proc/self/exe";
/// What a power supply that fails, or a machine's manager, sends; signal-hook has no name for it.
const SIGPWR: i32 = Signal::POWER.as_raw();
/// Where the child tells what it does.
const NOTICES: &str = "/run/midge-notify";
/// Longest message that is read.
const NOTICE_BYTES_MAX: usize = 1024;
/// A child that gave no sign of life for so long is ended.
const SILENCE_MAX: Duration = Duration::from_secs(30);
/// How long a child may take to end: the longest `drain_timeout` that makes sense here, and a little more.
const STOP_MAX: Duration = Duration::from_secs(60);
/// Delay before the first start again; each one doubles it.
const DELAY_MIN: Duration = Duration::from_millis(100);
/// Longest delay: whoever repairs settings on the partition for data waits for it.
const DELAY_MAX: Duration = Duration::from_secs(10);
/// An image on trial is kept once it has served for so long.
const TRIAL_SERVED: Duration = Duration::from_secs(10);
/// An image on trial that does not serve by then has failed.
const TRIAL_MAX: Duration = Duration::from_secs(120);
/// A child that lived for so long ended for another reason than the one before it.
const LIVED_LONG: Duration = Duration::from_secs(60);

/// What the first process hears.
#[derive(Debug)]
pub(super) enum Event {
    /// A signal.
    Signal(i32),
    /// What the child tells.
    Notice(String),
    /// The power button.
    Button,
    /// The image that runs is on trial.
    Trial(Arc<Images>),
    /// Another image was installed.
    Updated,
}

/// A child that was started.
struct Child {
    pid: Pid,
    began: Instant,
    ready: Option<Instant>,
    heard: Instant,
}

struct Supervisor<'a> {
    console: &'a Arc<Console>,
    words: &'a Words,
    data: Option<&'a Path>,
    /// When this process did.
    began: Instant,
    child: Option<Child>,
    /// When the next child is started, if there is none.
    next: Instant,
    delay: Duration,
    /// The faults of the settings were shown since something was ready.
    has_shown_faults: bool,
    /// A child has ended by itself.
    has_failed: bool,
    /// Who keeps the image that runs, as long as it is on trial, and until when it must serve.
    trial: Option<(Arc<Images>, Instant)>,
    stopping: Option<(End, Instant)>,
}

/// Serves until the machine is to end, and says how.
pub(super) fn run(
    console: &Arc<Console>,
    words: &Words,
    data: Option<&Path>,
    began: Instant,
) -> End {
    let (sender, events) = channel();
    if let Err(error) = hear_signals(sender.clone()).and_then(|()| hear_notices(sender.clone())) {
        console.say(&format!("signals or messages are not heard: {error}"));
    }
    watch_buttons(console, &sender);
    update::start(console, words, sender.clone());
    // Ctrl-Alt-Del becomes a signal. In a namespace that is not ours to say.
    let _ignored = rustix::system::reboot(rustix::system::RebootCommand::CadOff);
    let mut watchdog = Watchdog::open(console);
    let now = Instant::now();
    let mut supervisor = Supervisor {
        console,
        words,
        data,
        began,
        child: None,
        next: now,
        delay: DELAY_MIN,
        has_shown_faults: false,
        has_failed: false,
        trial: None,
        stopping: None,
    };
    let end = supervisor.run(&events, &mut watchdog);
    watchdog.close();
    end
}

impl Supervisor<'_> {
    fn run(&mut self, events: &Receiver<Event>, watchdog: &mut Watchdog) -> End {
        loop {
            watchdog.feed();
            let now = Instant::now();
            self.judge(now);
            match (self.stopping, &self.child) {
                (Some((end, _)), None) => return end,
                (Some((_, until)), Some(child)) if until <= now => {
                    self.console.say("the server does not end: killed");
                    kill(child.pid, Signal::KILL);
                }
                (None, None) if self.next <= now => self.start(),
                (None, Some(child))
                    if child.ready.is_some() && SILENCE_MAX <= now - child.heard =>
                {
                    self.console.say("the server gives no sign of life: killed");
                    kill(child.pid, Signal::KILL);
                }
                _ => {}
            }
            let wait = match self.child {
                None => self.next.saturating_duration_since(now).min(FEED_EVERY),
                Some(_) => FEED_EVERY,
            };
            match events.recv_timeout(wait) {
                Ok(Event::Signal(signal)) => self.on_signal(signal),
                Ok(Event::Notice(notice)) => self.on_notice(&notice),
                Ok(Event::Button) => self.stop(End::Off, "the power button"),
                Ok(Event::Trial(images)) => self.trial = Some((images, Instant::now() + TRIAL_MAX)),
                Ok(Event::Updated) => self.stop(End::Restart, "another image is installed"),
                Err(RecvTimeoutError::Timeout) => {}
                // All who could tell something are gone: time still passes.
                Err(RecvTimeoutError::Disconnected) => thread::park_timeout(wait),
            }
            self.reap();
        }
    }

    /// Decides on an image that is on trial.
    fn judge(&mut self, now: Instant) {
        let (Some((images, until)), None) = (&self.trial, self.stopping) else { return };
        let ready = self.child.as_ref().and_then(|child| child.ready);
        if self.has_failed || (ready.is_none() && *until <= now) {
            self.trial = None;
            self.stop(End::Restart, "the image on trial does not serve");
        } else if ready.is_some_and(|ready| TRIAL_SERVED <= now - ready) {
            images.keep(self.console);
            self.trial = None;
        }
    }

    fn start(&mut self) {
        let settings = self.settings();
        let mut command = this_program(&["serve", &settings.display().to_string()]);
        let words = self.words;
        command.env(SOCKET, NOTICES).env(WATCHDOG, SILENCE_MAX.as_micros().to_string());
        command.envs(words.environment.iter().map(|(name, value)| (*name, value.as_str())));
        if words.user != 0 {
            command.uid(words.user).gid(words.user);
        }
        if self.console.has_remote() {
            command.stderr(Stdio::piped());
        }
        let began = Instant::now();
        match command.spawn() {
            Ok(mut child) => {
                let pid = Pid::from_child(&child);
                let passed = child.stderr.take().map(|log| self.console.pass_on(child.id(), log));
                if let Some(Err(error)) = passed {
                    self.console.say(&format!("the server's log is lost: {error}"));
                }
                self.child = Some(Child { pid, began, ready: None, heard: began });
            }
            Err(error) => self.again(&format!("the server cannot be started: {error}"), began),
        }
    }

    /// Returns the settings to serve: those of the partition for data, unless they have a fault.
    fn settings(&self) -> PathBuf {
        let own = Path::new("/").join(SETTINGS);
        let Some(newer) =
            self.data.map(|data| data.join(DATA_SETTINGS)).filter(|file| file.exists())
        else {
            return own;
        };
        if self.check(&newer) {
            return newer;
        }
        self.console.say(&format!("{} has faults: the image's own are served", newer.display()));
        own
    }

    /// Shows the faults of settings on the console; true if there are none.
    fn check(&self, settings: &Path) -> bool {
        let mut command = this_program(&["check", &settings.display().to_string()]);
        let shown = command.output();
        match shown {
            Ok(shown) if shown.status.success() => true,
            Ok(shown) => {
                let text = [shown.stdout, shown.stderr].concat();
                for line in String::from_utf8_lossy(&text).lines() {
                    self.console.say(line);
                }
                false
            }
            Err(error) => {
                self.console.say(&format!("the settings cannot be looked at: {error}"));
                true
            }
        }
    }

    fn on_signal(&mut self, signal: i32) {
        match signal {
            SIGTERM | SIGPWR | SIGUSR2 => self.stop(End::Off, "told to switch off"),
            SIGINT => self.stop(End::Restart, "told to start anew"),
            SIGHUP => {
                if let Some(child) = &self.child {
                    kill(child.pid, Signal::HUP);
                }
            }
            // SIGCHLD: the loop reaps after every event.
            _ => {}
        }
    }

    fn on_notice(&mut self, notice: &str) {
        let Some(child) = &mut self.child else { return };
        for line in notice.lines() {
            match line {
                READY => {
                    child.heard = Instant::now();
                    child.ready = Some(child.heard);
                    self.has_shown_faults = false;
                    let took = child.began.elapsed().as_micros();
                    let all = self.began.elapsed().as_micros();
                    let used = memory_used_mib();
                    self.console.say(&format!(
                        "serving, {took} us after the server's start and {all} us after that of this process; \
                         {used} MiB of memory in use"
                    ));
                }
                ALIVE => child.heard = Instant::now(),
                _ => {}
            }
        }
    }

    fn stop(&mut self, end: End, why: &str) {
        let now = Instant::now();
        // Who asks twice does not want to wait.
        let until = if self.stopping.is_some() { now } else { now + STOP_MAX };
        self.stopping = Some((end, until));
        self.console.say(&format!("{why}: the server ends first"));
        if let Some(child) = &self.child {
            kill(child.pid, Signal::TERM);
        }
    }

    /// Takes note of every process that has ended: orphans become this process's children.
    fn reap(&mut self) {
        while let Ok(Some((pid, status))) = wait(WaitOptions::NOHANG) {
            let Some(child) = self.child.take_if(|child| child.pid == pid) else { continue };
            let lived = child.began.elapsed();
            let how = told(status);
            if self.stopping.is_some() {
                self.console.say(&format!("the server has ended: {how}"));
                continue;
            }
            let failed_by_itself = child.ready.is_none() && status.exit_status().is_some();
            if failed_by_itself && !self.has_shown_faults {
                self.has_shown_faults = true;
                self.check(&Path::new("/").join(SETTINGS));
            }
            let what = format!("the server ended after {} ms: {how}", lived.as_millis());
            self.again(&what, child.began);
        }
    }

    fn again(&mut self, what: &str, began: Instant) {
        if LIVED_LONG <= began.elapsed() {
            self.delay = DELAY_MIN;
        }
        self.has_failed = true;
        self.console.say(&format!("{what}; starting it again in {} ms", self.delay.as_millis()));
        self.next = Instant::now() + self.delay;
        self.delay = next_delay(self.delay);
    }
}

/// Returns what cannot be given to anybody else: without pages of files, which can be read again, and without free
/// pages that CPUs hold for themselves, which the kernel does not count as free (those of the initramfs, once it was
/// unpacked, most of all).
fn memory_used_mib() -> u64 {
    let machine = Machine::this();
    let count = |name| machine.memory_bytes(name).unwrap_or(0);
    let held = held_pages(&machine.text("proc/zoneinfo").unwrap_or_default()) * PAGE_BYTES;
    let free = ["MemFree", "Active(file)", "Inactive(file)", "SReclaimable"].map(count);
    count("MemTotal").saturating_sub(free.iter().sum::<u64>() + held) >> 20
}

/// Adds the free pages of all CPUs' lists up (Linux, `/proc/zoneinfo`).
fn held_pages(zones: &str) -> u64 {
    let counts = zones.lines().filter_map(|line| line.trim().strip_prefix("count:"));
    counts.filter_map(|count| count.trim().parse::<u64>().ok()).sum()
}

fn next_delay(delay: Duration) -> Duration {
    (delay * 2).min(DELAY_MAX)
}

fn this_program(arguments: &[&str]) -> Command {
    let mut command = Command::new(THIS_PROGRAM);
    command.arg0("midge").args(arguments).env_clear().env("NO_COLOR", "1").stdin(Stdio::null());
    command
}

fn told(status: WaitStatus) -> String {
    match (status.exit_status(), status.terminating_signal()) {
        (Some(code), _) => format!("exit status {code}"),
        (None, Some(signal)) => format!("signal {signal}"),
        (None, None) => format!("{status:?}"),
    }
}

fn kill(pid: Pid, signal: Signal) {
    // It may have ended meanwhile; until it is reaped its number is nobody else's.
    let _ignored = kill_process(pid, signal);
}

fn hear_signals(events: Sender<Event>) -> io::Result<()> {
    let mut signals = Signals::new([SIGTERM, SIGINT, SIGHUP, SIGPWR, SIGUSR2, SIGCHLD])?;
    let wait = move || {
        for signal in signals.forever() {
            if events.send(Event::Signal(signal)).is_err() {
                return;
            }
        }
    };
    thread::Builder::new().name("midge-signal".into()).spawn(wait).map(drop)
}

/// Opens a socket that others may speak to: whoever serves is not root.
pub(super) fn socket_for_others<'a, T>(
    path: &'a Path,
    bind: impl FnOnce(&'a Path) -> io::Result<T>,
) -> io::Result<T> {
    // Of an earlier run, where this is no machine of its own.
    drop(fs::remove_file(path));
    let socket = bind(path)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o622))?;
    Ok(socket)
}

fn hear_notices(events: Sender<Event>) -> io::Result<()> {
    let socket = socket_for_others(Path::new(NOTICES), UnixDatagram::bind)?;
    let wait = move || {
        let mut bytes = [0; NOTICE_BYTES_MAX];
        while let Ok(size) = socket.recv(&mut bytes) {
            let notice = String::from_utf8_lossy(&bytes[..size]).into_owned();
            if events.send(Event::Notice(notice)).is_err() {
                return;
            }
        }
    };
    thread::Builder::new().name("midge-notices".into()).spawn(wait).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn free_pages_of_all_cpus_are_added_up() {
        let zones = "  pagesets\n    cpu: 0\n              count:    245\n              high:     4\n    \
                     cpu: 1\n              count:    7\n   count: many\n";
        assert_eq!(held_pages(zones), 252);
    }

    #[test]
    fn delays_grow_to_their_limit() {
        let delays: Vec<_> =
            std::iter::successors(Some(DELAY_MIN), |&delay| Some(next_delay(delay)))
                .take(9)
                .collect();
        assert_eq!(delays[..3], [100, 200, 400].map(Duration::from_millis));
        assert_eq!(delays[8], DELAY_MAX);
    }
}
