//! `midge.toml`, environment and flags become [`Settings`].
//!
//! Every value knows what set it: a flag wins over the environment, that over the file, that over the
//! default. All faults of a file are found at once, each with its place and what to write instead; settings
//! that exist are therefore valid, and nobody checks them again.
//!
//! Not here: what the modules hold (the loader looks into them), and which CPUs `workers = "auto"` means.

pub mod complaint; // a fault with place, quote and remedy
pub mod explain; // every effective setting as text
pub mod keys; // the table of settings, and their limits
pub mod listen; // where to listen, and whom to trust
mod methods; // sets of request methods
mod origin; // default, file, environment, flag
pub mod pattern; // routes and host names
mod read; // the walk over the parsed file
pub mod source; // the file's text and places in it
pub mod suggest; // the nearest known word
mod ring; // names of the ways to the kernel
mod scratch; // the folder in memory that a function may write to
mod technique; // names of start techniques
pub mod unit; // durations, sizes, CPU lists

use std::{fmt, net::SocketAddr, path::Path, path::PathBuf, time::Duration};

use midge_abi::manifest::{Isolation, Metering, Traces};
use midge_loader::engine::Processor;
use midge_loader::files::Mapping;

use crate::grant::Grant;
use crate::push::PushUrl;
use crate::syslog::Target;

pub use self::{
    complaint::Complaints,
    listen::{ClientAddress, Listen, ListenAddress, Listens, Trusted},
    methods::Methods,
    origin::{Origin, Setting},
    pattern::Pattern,
    ring::RingChoice,
    scratch::{ScratchFolder, scratch},
    source::{Source, SourceError},
    technique::Technique,
    unit::{ByteSize, Quantity, UnitError, Workers},
};

/// Everything that can be set.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The file that was read, if one was.
    pub file: Option<PathBuf>,
    /// Where functions are served.
    pub listen: Setting<Listens>,
    /// Connections go to the worker on whose CPU their packets arrive.
    pub listen_on_cpu: Setting<bool>,
    /// Whose word on a client's address counts.
    pub trusted_proxies: Setting<Trusted>,
    /// What a client's address is taken from.
    pub client_address: Setting<ClientAddress>,
    /// Where health and metrics are served.
    pub admin: Setting<SocketAddr>,
    /// Worker threads.
    pub workers: Setting<Workers>,
    /// Which way to the kernel workers take.
    pub ring_tier: Setting<RingChoice>,
    /// How long a stop waits for requests in flight.
    pub drain_timeout: Setting<Duration>,
    /// Limits of the network.
    pub limits: Limits,
    /// Whose certificates outgoing requests trust, if not those that the system does.
    pub certificates: Setting<Option<PathBuf>>,
    /// Limits of compiling.
    pub build: BuildLimits,
    /// The log.
    pub log: LogSettings,
    /// Metrics that are pushed.
    pub push: PushSettings,
    /// The functions, in the order of the file: a function's index is its position here.
    pub functions: Vec<Function>,
    /// The folders whose files are served, in the order of the file.
    pub statics: Vec<Static>,
    /// What traps tell of modules that are built when they are served. Not a setting: `midge dev` asks for lines,
    /// other hosts serve what `midge build` made with them.
    pub traces: Traces,
}

/// Limits of the network.
#[derive(Debug, Clone)]
pub struct Limits {
    /// From a request's first byte to the end of its head.
    pub header_deadline: Setting<Duration>,
    /// A connection without a request.
    pub idle: Setting<Duration>,
    /// A peer that takes no bytes of its response.
    pub write_stall: Setting<Duration>,
    /// Reading on after a refusal.
    pub linger: Setting<Duration>,
    /// Open connections.
    pub connections_per_worker: Setting<u32>,
    /// Open connections of one source.
    pub connections_per_source: Setting<u32>,
    /// A connection without a request, when all are taken.
    pub shed_after: Setting<Duration>,
    /// Time before the rate of a body is judged.
    pub body_grace: Setting<Duration>,
    /// Least bytes per second of a body.
    pub body_rate: Setting<ByteSize>,
    /// Bytes of responses that a peer may leave unread.
    pub unsent: Setting<ByteSize>,
    /// Bytes of later requests that are kept while one is answered.
    pub pipelined: Setting<ByteSize>,
    /// Bytes of a streamed body kept ahead of its function.
    pub body_window: Setting<ByteSize>,
    /// Bytes of all request bodies that a worker keeps.
    pub bodies: Setting<ByteSize>,
    /// Request line and headers together.
    pub head_bytes: Setting<ByteSize>,
    /// Requests on one connection.
    pub requests_per_connection: Setting<u32>,
    /// Connections of a worker to other servers.
    pub outgoing_connections: Setting<u32>,
}

/// What compiling one module may take.
#[derive(Debug, Clone)]
pub struct BuildLimits {
    /// Memory.
    pub memory: Setting<ByteSize>,
    /// Time, its start-up included.
    pub time: Setting<Duration>,
    /// The processors that code is for.
    pub processor: Setting<Processor>,
}

/// What is logged, and how.
#[derive(Debug, Clone)]
pub struct LogSettings {
    /// The least grave message that is written.
    pub level: Setting<LogLevel>,
    /// Lines for people, or JSON objects.
    pub format: Setting<LogFormat>,
    /// A line for each request.
    pub access: Setting<bool>,
    /// Who is told all lines, too.
    pub syslog: Setting<Option<Target>>,
    /// What a guest says in several lines, and a trap's functions, are shown so. Not a setting: `midge dev` is
    /// watched by a person, other logs are one record a line.
    pub breaks_lines: bool,
}

/// Metrics that are pushed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PushSettings {
    /// Where to; nowhere, if nobody says.
    pub url: Setting<Option<PushUrl>>,
    /// How often.
    pub every: Setting<Duration>,
}

/// A folder whose files are served.
#[derive(Debug, Clone)]
pub struct Static {
    /// Unique among functions and folders.
    pub name: Setting<String>,
    /// The folder's path, ready to be opened.
    pub folder: Setting<PathBuf>,
    /// At least one; prefixes alone.
    pub routes: Setting<Vec<Pattern>>,
    /// Answers requests for this host alone, in lower case.
    pub host: Setting<Option<String>>,
    /// The file that stands for its folder.
    pub index: Setting<String>,
    /// Variants with `.br`, `.zst` and `.gz` behind their names are served to those who take them.
    pub precompressed: Setting<bool>,
    /// Files are served whose names begin with a dot.
    pub hidden: Setting<bool>,
    /// The value of `Cache-Control`.
    pub cache_control: Setting<Option<String>>,
}

/// One function.
#[derive(Debug, Clone)]
pub struct Function {
    /// Unique among the functions.
    pub name: Setting<String>,
    /// The module's path, ready to be opened.
    pub module: Setting<PathBuf>,
    /// At least one.
    pub routes: Setting<Vec<Pattern>>,
    /// Answers requests for this host alone, in lower case.
    pub host: Setting<Option<String>>,
    /// The methods it answers.
    pub methods: Setting<Methods>,
    /// How instances are made pristine.
    pub technique: Setting<Technique>,
    /// What keeps it inside its memory, at least.
    pub isolation: Setting<Isolation>,
    /// What bounds a call.
    pub metering: Setting<Metering>,
    /// Instructions that a call may run, where those are what bounds it.
    pub fuel: Setting<u32>,
    /// Time for one call.
    pub deadline: Setting<Duration>,
    /// What a call may grow its memory to.
    pub memory: Setting<ByteSize>,
    /// Longest request body.
    pub body: Setting<ByteSize>,
    /// Longest request body, for a function that reads it piece by piece.
    pub stream_body: Setting<ByteSize>,
    /// Longest that a call may last, waiting included.
    pub stream_time: Setting<Duration>,
    /// Longest response body.
    pub response: Setting<ByteSize>,
    /// Calls in flight on one worker.
    pub concurrency: Setting<u32>,
    /// Instances that one worker keeps ready, at most `concurrency`.
    pub slots: Setting<u32>,
    /// A Server-Timing header on responses.
    pub server_timing: Setting<bool>,
    /// Its responses are made smaller for those who take them so.
    pub compress: Setting<bool>,
    /// What a program finds as its arguments.
    pub arguments: Setting<Words>,
    /// What it finds in its environment beside the request: `NAME=value` each.
    pub environment: Setting<Words>,
    /// What it may reach.
    pub grant: Setting<Grant>,
    /// Folders of files for a program or a component.
    pub files: Setting<Mappings>,
    /// Where it may write.
    pub scratch: Setting<ScratchFolder>,
}

/// Folders, ready to be opened, each with its path for the guest.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Mappings(pub Vec<Mapping>);

impl std::fmt::Display for Mappings {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.0.is_empty() {
            return formatter.pad("none");
        }
        let shown = |it: &Mapping| format!("{}:{}", it.folder.display(), it.guest);
        formatter.pad(&self.0.iter().map(shown).collect::<Vec<_>>().join(" "))
    }
}

/// A list of words.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Words(pub Vec<String>);

impl std::fmt::Display for Words {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.0.is_empty() { formatter.pad("none") } else { formatter.pad(&self.0.join(" ")) }
    }
}

/// Settings from the command line and the environment, which win over the file.
#[derive(Debug, Clone, Default)]
pub struct Overrides {
    /// Of `listen`.
    pub listen: Option<Setting<Listens>>,
    /// Of `admin`.
    pub admin: Option<Setting<SocketAddr>>,
    /// Of `workers`.
    pub workers: Option<Setting<Workers>>,
    /// Of `ring_tier`.
    pub ring_tier: Option<Setting<RingChoice>>,
    /// Of `build.memory`.
    pub build_memory: Option<Setting<ByteSize>>,
    /// Of `build.time`.
    pub build_time: Option<Setting<Duration>>,
    /// Of `build.processor`.
    pub build_processor: Option<Setting<Processor>>,
    /// Of `log.level`.
    pub log_level: Option<Setting<LogLevel>>,
    /// Of `log.format`.
    pub log_format: Option<Setting<LogFormat>>,
}

/// How grave a message of the log must be to be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum LogLevel {
    /// Nothing is written.
    Off,
    /// Something failed.
    Error,
    /// Something is odd.
    Warn,
    /// Starts, stops, changes.
    Info,
    /// For whoever looks for a fault.
    Debug,
    /// Everything.
    Trace,
}

/// The form of the log's lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum LogFormat {
    /// Lines for people.
    Text,
    /// One JSON object a line.
    Json,
}

/// Why there are no settings.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// The file could not be read.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// The file has faults.
    #[error("{} in the settings", counted(.0.count(), "fault"))]
    Faults(Complaints),
}

impl Settings {
    /// Reads a file and puts the overrides on top.
    ///
    /// # Errors
    /// [`ConfigError`]: the file cannot be read, or all its faults.
    pub fn load(path: &Path, overrides: &Overrides) -> Result<Self, ConfigError> {
        read::read(Source::read(path)?, overrides).map_err(ConfigError::Faults)
    }

    /// Returns the settings of a host without a file that has this module on every path.
    #[must_use]
    pub fn of_one(module: &Path, overrides: &Overrides) -> Self {
        read::of_one(module, overrides)
    }

    /// Returns host and routes of everything that a request may reach: functions, then folders.
    pub fn targets(&self) -> impl Iterator<Item = (Option<&str>, &[Pattern])> {
        let functions = self.functions.iter().map(|function| (&function.host, &function.routes));
        let statics = self.statics.iter().map(|files| (&files.host, &files.routes));
        functions
            .chain(statics)
            .map(|(host, routes)| (host.value.as_deref(), routes.value.as_slice()))
    }

    /// Returns the names of functions and folders, in the same order.
    pub fn target_names(&self) -> impl Iterator<Item = &str> {
        let functions = self.functions.iter().map(|function| &function.name);
        let statics = self.statics.iter().map(|files| &files.name);
        functions.chain(statics).map(|name| name.value.as_str())
    }

    /// Returns how many routes functions and folders have together.
    #[must_use]
    pub fn route_count(&self) -> usize {
        self.targets().map(|(_, routes)| routes.len()).sum()
    }
}

impl LogLevel {
    /// All of them, from the quietest.
    pub const ALL: [Self; 6] =
        [Self::Off, Self::Error, Self::Warn, Self::Info, Self::Debug, Self::Trace];

    /// Returns the name that settings use.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::Error => "error",
            Self::Warn => "warn",
            Self::Info => "info",
            Self::Debug => "debug",
            Self::Trace => "trace",
        }
    }
}

impl fmt::Display for LogLevel {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name())
    }
}

impl LogFormat {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Text, Self::Json];

    /// Returns the name that settings use.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Text => "text",
            Self::Json => "json",
        }
    }
}

impl fmt::Display for LogFormat {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name())
    }
}

/// Returns `1 fault`, `2 faults`.
#[must_use]
pub fn counted(count: usize, noun: &str) -> String {
    let plural = if count == 1 { "" } else { "s" };
    format!("{count} {noun}{plural}")
}
