//! Two logs on stderr, and to a server of logs if the settings name one: what the host does, and what requests did.
//!
//! The host's own messages go through `tracing`. A worker may not: it must neither wait for stderr nor make
//! a system call. It puts records into channels of its own, and a housekeeping thread looks into them.
//!
//!   worker 0 ── access ──►┐
//!            ── lines ───►│  every DRAIN_EVERY: take, format, write
//!   worker 1 ── access ──►│                     └► stderr, server of logs
//!            ── lines ───►┘
//!
//! Invariants: a worker's channels have one sender; guests' lines go
//! through a channel that all workers share, for a guest's log is not on the fast way; nobody blocks on one, so that sending wakes
//! nobody and needs no system call. A record that finds no room is dropped, counted in the worker's stats, and
//! reported at most once a minute. An access record needs no allocation.
//!
//! Hot path: the methods of [`LogSender`].

mod format; // a record as a line of text or a JSON object
pub mod remote; // the server of logs

use std::{
    io::{self, Write},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use anyhow::Context as _;
use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, TryRecvError, after, bounded};
use midge_abi::{
    contract::Method,
    imports::{LOG_LINE_BYTES_MAX, Level},
    problem::Problem,
};
use midge_loader::start::Tier;
use tracing::Subscriber;
use tracing_subscriber::{
    Layer, filter::LevelFilter, fmt, fmt::MakeWriter, layer::SubscriberExt as _,
    registry::LookupSpan, util::SubscriberInitExt as _,
};

use self::format::Formatter;
use crate::{
    config::{LogFormat, LogLevel, LogSettings},
    output,
    route::FunctionIndex,
    stats::{Stats, StatsWriter},
    syslog::{Severity, Syslog},
};

/// Access records that wait for one worker: 20 ms of more requests than a core serves.
pub const ACCESS_RECORDS_MAX: usize = 32 * 1024;
/// Guests' lines and traps that wait for one worker; each has room for a whole line.
pub const LINES_MAX: usize = 256;
/// How often the channels are looked into.
pub const DRAIN_EVERY: Duration = Duration::from_millis(20);
/// How often dropped records are reported.
pub const DROPPED_REPORT_EVERY: Duration = Duration::from_secs(60);
/// The longest text of a trap; the rest is cut.
pub const TRAP_BYTES_MAX: usize = midge_loader::trace::TEXT_BYTES_MAX;

const _: () = assert!(size_of::<Access>() <= 64, "an access record is one cache line");

/// One request.
#[derive(Debug, Clone, Copy)]
pub struct Access {
    /// Its id.
    pub request_id: [u8; 16],
    /// When it was answered, in nanoseconds since 1970.
    pub wall_ns: u64,
    /// Who answered, if a function was found.
    pub function: Option<FunctionIndex>,
    /// Its method.
    pub method: Method,
    /// The response's status.
    pub status: u16,
    /// The refusal, if it was one.
    pub problem: Option<Problem>,
    /// How its instance came to be, if it got one.
    pub tier: Option<Tier>,
    /// Bytes of the response's body.
    pub body_bytes: u64,
    /// From its last byte to the response's hand-over to the kernel.
    pub service_ns: u64,
}

/// Something that a guest said or that befell it.
#[derive(Debug)]
pub struct Line {
    /// The request in which it happened.
    pub request_id: [u8; 16],
    /// When, in nanoseconds since 1970.
    pub wall_ns: u64,
    /// Whose guest.
    pub function: FunctionIndex,
    /// What.
    pub event: Event,
}

/// What a [`Line`] tells.
#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "a guest's line must need no allocation")]
pub enum Event {
    /// A guest logged a line.
    Guest {
        /// How grave.
        level: Level,
        /// What it said.
        text: GuestText,
    },
    /// A guest trapped.
    Trap {
        /// Its message and backtrace.
        text: Box<str>,
    },
}

/// A guest's line, as bytes that it claims to be text.
#[derive(Debug, Clone, Copy)]
pub struct GuestText {
    bytes: [u8; LOG_LINE_BYTES_MAX],
    length: u16,
}

const _: () = assert!(LOG_LINE_BYTES_MAX <= u16::MAX as usize);

/// A worker's way into the log.
#[derive(Debug)]
pub struct LogSender {
    access: Sender<Access>,
    lines: Sender<Line>,
    has_access: bool,
    level: LogLevel,
}

/// The guests' way into the log, for all workers: lines go through a queue of their own.
#[derive(Debug, Clone)]
pub struct GuestLog {
    lines: Sender<Line>,
    dropped: Arc<AtomicU64>,
    level: LogLevel,
}

/// The housekeeping thread that writes what workers and guests send.
#[derive(Debug)]
pub struct DataLog {
    guests: GuestLog,
    stop: Sender<()>,
    thread: JoinHandle<()>,
}

/// Starts the host's own log on stderr, and tells the server of logs from now on.
///
/// # Errors
/// If the process has one already, or the system has no thread left.
pub fn start_host_log(settings: &LogSettings) -> anyhow::Result<()> {
    let level = match settings.level.value {
        LogLevel::Off => LevelFilter::OFF,
        LogLevel::Error => LevelFilter::ERROR,
        LogLevel::Warn => LevelFilter::WARN,
        LogLevel::Info => LevelFilter::INFO,
        LogLevel::Debug => LevelFilter::DEBUG,
        LogLevel::Trace => LevelFilter::TRACE,
    };
    let format = settings.format.value;
    remote::point(settings.syslog.value.as_ref())
        .context("cannot start the thread that tells the server of logs")?;
    let started = tracing_subscriber::registry()
        .with(level)
        .with(layer(format, output::stderr_is_colourful(), io::stderr))
        .with(layer(format, false, remote::HostLines))
        .try_init();
    started.map_err(|error| anyhow::anyhow!("the log was started before: {error}"))
}

fn layer<S: Subscriber + for<'a> LookupSpan<'a>>(
    format: LogFormat,
    is_colourful: bool,
    out: impl for<'a> MakeWriter<'a> + Send + Sync + 'static,
) -> Box<dyn Layer<S> + Send + Sync> {
    let layer = fmt::layer().with_writer(out);
    match format {
        LogFormat::Text => layer.with_target(false).with_ansi(is_colourful).boxed(),
        LogFormat::Json => layer.json().boxed(),
    }
}

impl DataLog {
    /// Starts the thread that writes to `out`, and makes a sender for each worker of `stats`.
    ///
    /// # Errors
    /// If the system has no thread left.
    pub fn start(
        settings: &LogSettings,
        stats: Arc<Stats>,
        out: Box<dyn Write + Send>,
    ) -> io::Result<(Self, Vec<LogSender>)> {
        let (senders, sources) = stats.workers().iter().map(|_| channels(settings)).unzip();
        let (guests, guest_lines) = guest_channel(settings);
        let formatter = Formatter {
            format: settings.format.value,
            breaks_lines: settings.breaks_lines,
            names: stats.function_names().into(),
        };
        let drain = Drain {
            sources,
            guest_lines,
            guests_dropped: Arc::clone(&guests.dropped),
            formatter,
            stats,
            out,
            reported: 0,
            reported_at: None,
        };
        let (stop, stopped) = bounded(1);
        let thread =
            thread::Builder::new().name("midge-log".into()).spawn(move || drain.run(&stopped))?;
        Ok((Self { guests, stop, thread }, senders))
    }

    /// Returns the guests' way in.
    #[must_use]
    pub const fn guests(&self) -> &GuestLog {
        &self.guests
    }

    /// Lets the thread go on until nobody can send any more.
    pub fn stop_when_unused(self) {
        // The thread ends by itself when its queues are closed; nobody needs to wait for it.
        drop(self);
    }

    /// Writes what was sent before, and ends the thread.
    ///
    /// # Panics
    /// If the thread did.
    pub fn stop(self) {
        // A full queue holds a stop already; a closed one means that the thread has ended.
        let _full_or_closed = self.stop.try_send(());
        self.thread.join().expect("formatting does not panic");
    }
}

fn guest_channel(settings: &LogSettings) -> (GuestLog, Receiver<Line>) {
    let (lines, source) = bounded(LINES_MAX);
    (GuestLog { lines, dropped: Arc::default(), level: settings.level.value }, source)
}

fn channels(settings: &LogSettings) -> (LogSender, Sources) {
    let has_access = settings.access.value;
    // A queue takes its memory, 2 MiB, when it is made.
    let (access, access_source) = bounded(if has_access { ACCESS_RECORDS_MAX } else { 1 });
    let (lines, lines_source) = bounded(LINES_MAX);
    let sender = LogSender { access, lines, has_access, level: settings.level.value };
    (sender, Sources { access: access_source, lines: lines_source })
}

impl LogSender {
    /// Returns true if access records are wanted: the caller need not make them otherwise.
    #[must_use]
    pub const fn has_access(&self) -> bool {
        self.has_access
    }

    /// Sends an access record, or counts that it found no room.
    ///
    /// # Cost
    /// One copy of 64 bytes. No allocation, no system call.
    pub fn access(&self, stats: &StatsWriter, record: Access) {
        if self.has_access && self.access.try_send(record).is_err() {
            stats.log_dropped();
        }
    }

    /// Sends what a guest said, if its level is wanted, or counts that it found no room.
    pub fn line(&self, stats: &StatsWriter, line: Line) {
        if wants(self.level, &line.event) && self.lines.try_send(line).is_err() {
            stats.log_dropped();
        }
    }
}

impl GuestLog {
    /// Sends what a guest said, if its level is wanted, or counts that it found no room.
    pub fn line(&self, line: Line) {
        if wants(self.level, &line.event) && self.lines.try_send(line).is_err() {
            self.dropped.fetch_add(1, Relaxed);
        }
    }
}

fn wants(wanted: LogLevel, event: &Event) -> bool {
    match (wanted, event) {
        (LogLevel::Off, _) => false,
        (_, Event::Trap { .. }) | (LogLevel::Debug | LogLevel::Trace, _) => true,
        (LogLevel::Error, Event::Guest { level, .. }) => *level <= Level::Error,
        (LogLevel::Warn, Event::Guest { level, .. }) => *level <= Level::Warn,
        (LogLevel::Info, Event::Guest { level, .. }) => *level <= Level::Info,
    }
}

impl Event {
    /// Makes a guest's line; what is too long is cut.
    #[must_use]
    pub fn guest(level: Level, text: &[u8]) -> Self {
        let length = text.len().min(LOG_LINE_BYTES_MAX);
        let mut bytes = [0; LOG_LINE_BYTES_MAX];
        bytes[..length].copy_from_slice(&text[..length]);
        let length = u16::try_from(length).expect("bounded by LOG_LINE_BYTES_MAX");
        Self::Guest { level, text: GuestText { bytes, length } }
    }

    /// Makes a trap; what is too long is cut.
    #[must_use]
    pub fn trap(text: &str) -> Self {
        Self::Trap { text: text[..text.floor_char_boundary(TRAP_BYTES_MAX)].into() }
    }
}

impl Event {
    const fn severity(&self) -> Severity {
        match self {
            Self::Trap { .. } | Self::Guest { level: Level::Error, .. } => Severity::Error,
            Self::Guest { level: Level::Warn, .. } => Severity::Warning,
            Self::Guest { level: Level::Info, .. } => Severity::Informational,
            Self::Guest { level: Level::Debug, .. } => Severity::Debug,
        }
    }
}

impl GuestText {
    /// Returns the bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..usize::from(self.length)]
    }
}

/// Where one worker's records come out.
struct Sources {
    access: Receiver<Access>,
    lines: Receiver<Line>,
}

/// What the thread holds.
struct Drain {
    sources: Vec<Sources>,
    guest_lines: Receiver<Line>,
    guests_dropped: Arc<AtomicU64>,
    formatter: Formatter,
    stats: Arc<Stats>,
    out: Box<dyn Write + Send>,
    /// Dropped records that were reported already.
    reported: u64,
    reported_at: Option<Instant>,
}

impl Drain {
    fn run(mut self, stopped: &Receiver<()>) {
        loop {
            let ended = stopped.recv_timeout(DRAIN_EVERY);
            // Nobody is left to be told that stderr is gone; workers go on and count what is dropped.
            drop(self.drain());
            self.report_dropped();
            match ended {
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) if !self.is_unused() => {
                    // Nobody will say stop any more, and the queue no longer paces the loop.
                    let _at = after(DRAIN_EVERY).recv();
                }
                _ => return,
            }
        }
    }

    /// True if nobody can send any more and nothing waits.
    fn is_unused(&self) -> bool {
        let is_closed = |sources: &Sources| {
            let access = sources.access.is_empty() && is_disconnected(&sources.access);
            access && sources.lines.is_empty() && is_disconnected(&sources.lines)
        };
        self.sources.iter().all(is_closed) && is_disconnected(&self.guest_lines)
    }

    /// Writes what waits, at most one channel's fill from each.
    ///
    /// What a guest said before it trapped stands before the trap: the traps are taken out first and written last,
    /// and whatever came before them is there by then.
    fn drain(&mut self) -> io::Result<()> {
        let remote = remote::current();
        let (mut batch, mut ends) = (Batch::default(), Batch::default());
        // Once stderr is gone, the server of logs still hears everything.
        let mut written = Ok(());
        for Sources { access, lines } in &self.sources {
            for record in access.try_iter().take(ACCESS_RECORDS_MAX) {
                self.formatter.access(&mut batch.text, &record)?;
                batch.ended(Severity::Informational);
            }
            for line in lines.try_iter().take(LINES_MAX) {
                self.formatter.line(&mut ends.text, &line)?;
                ends.ended(line.event.severity());
            }
            written = written.and(batch.write(&mut self.out, remote.as_ref()));
        }
        for line in self.guest_lines.try_iter().take(LINES_MAX) {
            self.formatter.line(&mut batch.text, &line)?;
            batch.ended(line.event.severity());
        }
        written = written.and(batch.write(&mut self.out, remote.as_ref()));
        written.and(ends.write(&mut self.out, remote.as_ref()))?;
        self.out.flush()
    }

    fn report_dropped(&mut self) {
        let by_workers: u64 =
            self.stats.workers().iter().map(|worker| worker.log_dropped.get()).sum();
        let dropped = by_workers + self.guests_dropped.load(Relaxed);
        let is_due = self.reported_at.is_none_or(|at| at.elapsed() >= DROPPED_REPORT_EVERY);
        if dropped > self.reported && is_due {
            let count = dropped - self.reported;
            tracing::warn!(count, "records of the log found no room and were dropped");
            self.reported = dropped;
            self.reported_at = Some(Instant::now());
        }
    }
}

/// Records on their way out.
#[derive(Default)]
struct Batch {
    text: Vec<u8>,
    /// Where each ends, and how grave it is.
    ends: Vec<(usize, Severity)>,
}

impl Batch {
    fn ended(&mut self, severity: Severity) {
        self.ends.push((self.text.len(), severity));
    }

    /// Writes all records, and is empty.
    fn write(&mut self, out: &mut dyn Write, remote: Option<&Syslog>) -> io::Result<()> {
        let mut begin = 0;
        for (end, severity) in self.ends.drain(..) {
            if let Some(remote) = remote {
                let record = String::from_utf8_lossy(&self.text[begin..end]);
                remote.send(severity, std::process::id(), &record);
            }
            begin = end;
        }
        let written = out.write_all(&self.text);
        self.text.clear();
        written
    }
}

/// True if no sender is left. To be asked of an empty queue: it takes what is there.
fn is_disconnected<T>(source: &Receiver<T>) -> bool {
    source.try_recv().err() == Some(TryRecvError::Disconnected)
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;
    use crate::config::{Overrides, Setting, Settings};

    /// Keeps what is written.
    #[derive(Clone, Default)]
    struct Kept(Arc<Mutex<Vec<u8>>>);

    impl Write for Kept {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn settings(has_access: bool, format: LogFormat) -> LogSettings {
        let settings = Settings::of_one(std::path::Path::new("a.wasm"), &Overrides::default());
        let access = Setting::default(has_access);
        LogSettings { access, format: Setting::default(format), ..settings.log }
    }

    fn access() -> Access {
        Access {
            request_id: [0xAB; 16],
            wall_ns: 1_700_000_000_123_456_789,
            function: Some(FunctionIndex(0)),
            method: Method::Get,
            status: 200,
            problem: None,
            tier: Some(Tier::T3),
            body_bytes: 12,
            service_ns: 5_300,
        }
    }

    fn line(event: Event) -> Line {
        let Access { request_id, wall_ns, .. } = access();
        Line { request_id, wall_ns, function: FunctionIndex(0), event }
    }

    /// Returns what is written for the records that `send` sends.
    fn written(settings: &LogSettings, send: impl FnOnce(&LogSender, &StatsWriter)) -> String {
        let kept = Kept::default();
        let (stats, writers) = Stats::new(1, &["hello".into()]);
        let (log, senders) = DataLog::start(settings, stats, Box::new(kept.clone())).unwrap();
        send(&senders[0], &writers[0]);
        log.stop();
        let bytes = kept.0.lock().unwrap().clone();
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn records_become_lines_of_text() {
        let text = written(&settings(true, LogFormat::Text), |log, stats| {
            log.access(stats, access());
            let refused = Some(Problem::NotFound);
            let none = Access { function: None, tier: None, problem: refused, ..access() };
            log.access(stats, Access { status: 404, ..none });
            log.line(stats, line(Event::guest(Level::Warn, b"two\nlines \xFF\x1b[31m")));
            log.line(stats, line(Event::trap("unreachable\nf\x1b\ng\nh")));
        });
        let id = "ab".repeat(16);
        assert_eq!(
            text,
            format!(
                "2023-11-14T22:13:20.123456Z access hello GET 200 12B 5.300us T3 request={id}\n\
                 2023-11-14T22:13:20.123456Z access - GET 404 12B 5.300us - not-found request={id}\n\
                 2023-11-14T22:13:20.123456Z warn hello: two\\nlines \u{FFFD}\\u{{1b}}[31m \
                 request={id}\n\
                 2023-11-14T22:13:20.123456Z trap hello: unreachable in f\\u{{1b}} < g < h request={id}\n"
            )
        );
    }

    #[test]
    fn lines_are_broken_for_a_person_and_none_is_forged() {
        let settings = LogSettings { breaks_lines: true, ..settings(true, LogFormat::Text) };
        let text = written(&settings, |log, stats| {
            let said = b"panicked at a.rs:7:\n2023-11-14T22:13:20.123456Z \x1b[31m\r\n";
            log.line(stats, line(Event::guest(Level::Error, said)));
            log.line(stats, line(Event::trap("unreachable\nf\ng")));
        });
        let id = "ab".repeat(16);
        assert_eq!(
            text,
            format!(
                "2023-11-14T22:13:20.123456Z error hello: panicked at a.rs:7: request={id}\n    \
                 2023-11-14T22:13:20.123456Z \\u{{1b}}[31m\n\
                 2023-11-14T22:13:20.123456Z trap hello: unreachable request={id}\n    \
                 in f\n    in g\n"
            )
        );
    }

    #[test]
    fn records_become_json_objects() {
        let text = written(&settings(true, LogFormat::Json), |log, stats| {
            log.access(stats, access());
            log.line(stats, line(Event::guest(Level::Info, b"say \"hi\"\n")));
        });
        let objects: Vec<serde_json::Value> =
            text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(objects[0]["function"], "hello");
        assert_eq!(objects[0]["service_ns"], 5300);
        assert_eq!(objects[0]["tier"], "T3");
        assert_eq!(objects[1]["text"], "say \"hi\"\n");
        assert_eq!(objects[1]["request"], "ab".repeat(16));
    }

    #[test]
    fn access_records_are_written_only_if_asked_for() {
        let text = written(&settings(false, LogFormat::Text), |log, stats| {
            assert!(!log.has_access());
            log.access(stats, access());
        });
        assert_eq!(text, "");
    }

    #[test]
    fn lines_below_the_level_are_not_sent() {
        let text = written(&settings(false, LogFormat::Text), |log, stats| {
            log.line(stats, line(Event::guest(Level::Debug, b"whisper")));
            log.line(stats, line(Event::guest(Level::Info, b"speech")));
        });
        assert!(text.contains("speech") && !text.contains("whisper"), "{text}");
    }

    #[test]
    fn records_without_room_are_counted() {
        let (stats, writers) = Stats::new(1, &["hello".into()]);
        let (sender, _sources) = channels(&settings(true, LogFormat::Text));
        for _ in 0..ACCESS_RECORDS_MAX + 3 {
            sender.access(&writers[0], access());
        }
        assert_eq!(stats.workers()[0].log_dropped.get(), 3);
    }

    #[test]
    fn long_texts_are_cut() {
        let Event::Guest { text, .. } = Event::guest(Level::Info, &[b'x'; 5000]) else { panic!() };
        assert_eq!(text.as_bytes().len(), LOG_LINE_BYTES_MAX);
        let Event::Trap { text } = Event::trap(&"é".repeat(TRAP_BYTES_MAX)) else { panic!() };
        assert_eq!(text.len(), TRAP_BYTES_MAX);
    }
}
