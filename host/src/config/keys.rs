//! Every setting: its limits, and the table from which the manual's is generated.

use std::{net::Ipv4Addr, net::SocketAddr, time::Duration};

use midge_abi::manifest::{Isolation, Metering};
use midge_loader::files::{SCRATCH_BYTES_MAX, SCRATCH_BYTES_MIN};
use midge_net::settings as network;

use super::{ByteSize, ClientAddress, LogFormat, LogLevel, Quantity, RingChoice, Technique};

/// Default, smallest and largest value of a setting.
#[derive(Debug, Clone, Copy)]
pub struct Bounds<T> {
    /// In force where nobody sets it.
    pub default: T,
    /// The smallest that is taken.
    pub minimum: T,
    /// The largest that is taken.
    pub maximum: T,
}

/// Places to listen at.
pub const LISTENS_MAX: usize = midge_net::settings::LISTENERS_MAX as usize;
/// Folders of files.
pub const STATICS_MAX: usize = 256;
/// Entries of `trusted_proxies`.
pub const TRUSTED_MAX: usize = 64;
/// Where the data plane listens: on this machine alone, until told otherwise.
pub const LISTEN_DEFAULT: SocketAddr = loopback(8080);
/// Where health and metrics are served.
pub const ADMIN_DEFAULT: SocketAddr = loopback(8081);

/// Longer than the longest deadline anyone should need, so that no request is lost on a restart.
pub const DRAIN_TIMEOUT_DEFAULT: Duration = Duration::from_secs(30);
/// No wait at all.
pub const DRAIN_TIMEOUT_MIN: Duration = Duration::ZERO;
/// A supervisor has killed us long before.
pub const DRAIN_TIMEOUT_MAX: Duration = Duration::from_secs(3600);

/// Long for a function that starts in microseconds, short for whoever waits.
pub const DEADLINE_DEFAULT: Duration = Duration::from_millis(100);
/// The epoch's step.
pub const DEADLINE_MIN: Duration = Duration::from_millis(1);
/// Longer work belongs into a queue.
pub const DEADLINE_MAX: Duration = Duration::from_secs(600);

/// Most small functions need less than a tenth of it.
pub const MEMORY_DEFAULT: ByteSize = ByteSize(16 << 20);
/// One WebAssembly page.
pub const MEMORY_MIN: ByteSize = ByteSize(64 << 10);
/// What 32-bit addresses reach.
pub const MEMORY_MAX: ByteSize = ByteSize(4 << 30);

/// Some blocks of names and of content.
pub const SCRATCH_MIN: ByteSize = ByteSize(SCRATCH_BYTES_MIN as u64);
/// Half of what a memory of the engine's pools may have.
pub const SCRATCH_MAX: ByteSize = ByteSize(SCRATCH_BYTES_MAX as u64);

/// Request bodies, read into the guest's memory as a whole.
pub const BODY_DEFAULT: ByteSize = ByteSize(1 << 20);
/// A function that takes no bodies.
pub const BODY_MIN: ByteSize = ByteSize(0);
/// The largest request area of the contract.
pub const BODY_MAX: ByteSize = ByteSize(64 << 20);
const _: () = assert!(BODY_MAX.0 == midge_abi::contract::AREA_SIZE_MAX as u64);

/// Response bodies, copied into the send buffer as a whole.
pub const RESPONSE_DEFAULT: ByteSize = ByteSize(8 << 20);
/// Below it a problem report would not fit either.
pub const RESPONSE_MIN: ByteSize = ByteSize(1 << 10);
/// As for requests.
pub const RESPONSE_MAX: ByteSize = ByteSize(64 << 20);

/// Calls of one function in flight on one worker.
pub const CONCURRENCY_DEFAULT: u32 = 64;
/// One after the other.
pub const CONCURRENCY_MIN: u32 = 1;
/// Each is a slot with a memory mapping, of which a process has few (`vm.max_map_count`).
pub const CONCURRENCY_MAX: u32 = 16_384;

/// Slots that one worker keeps ready for a function; more are made when calls overlap.
pub const SLOTS_DEFAULT: u32 = 8;
/// The same for a function that asks other servers.
pub const SLOTS_OF_WAITING: u32 = CONCURRENCY_DEFAULT;
/// One.
pub const SLOTS_MIN: u32 = 1;
/// No more than calls.
pub const SLOTS_MAX: u32 = CONCURRENCY_MAX;

/// From the first byte of a request to the end of its head.
pub const HEADER_DEADLINE_DEFAULT: Duration = Duration::from_secs(10);
/// Slow networks need a round trip.
pub const HEADER_DEADLINE_MIN: Duration = Duration::from_millis(100);
/// Beyond it a slow peer holds a connection for nothing.
pub const HEADER_DEADLINE_MAX: Duration = Duration::from_secs(300);

/// A connection without a request.
pub const IDLE_DEFAULT: Duration = Duration::from_secs(30);
/// As for heads.
pub const IDLE_MIN: Duration = Duration::from_millis(100);
/// An idle connection is cheap, so it may stay long.
pub const IDLE_MAX: Duration = Duration::from_secs(3600);

/// A peer that takes no bytes of a response.
pub const WRITE_STALL_DEFAULT: Duration = Duration::from_secs(15);
/// As for heads.
pub const WRITE_STALL_MIN: Duration = Duration::from_millis(100);
/// As for heads.
pub const WRITE_STALL_MAX: Duration = Duration::from_secs(300);

/// Reading on after a refusal, so that the peer gets the answer and not a reset (RFC 9112, 9.6).
pub const LINGER_DEFAULT: Duration = Duration::from_secs(2);
/// Close at once.
pub const LINGER_MIN: Duration = Duration::ZERO;
/// A refused peer is owed no more.
pub const LINGER_MAX: Duration = Duration::from_secs(30);

/// Connections of one worker.
pub const CONNECTIONS_PER_WORKER_DEFAULT: u32 = 8_192;
/// One.
pub const CONNECTIONS_PER_WORKER_MIN: u32 = 1;
/// Each has an entry in the worker's tables, reserved at the start.
pub const CONNECTIONS_PER_WORKER_MAX: u32 = 262_144;

/// Request line and headers.
pub const HEAD_BYTES_DEFAULT: ByteSize = ByteSize(16 << 10);
/// Below it browsers' requests are refused.
pub const HEAD_BYTES_MIN: ByteSize = ByteSize(1 << 10);
/// It must fit the guest's request area beside the body.
pub const HEAD_BYTES_MAX: ByteSize = ByteSize(32 << 10);

/// After so many the connection is closed, so that load spreads again over the workers.
pub const REQUESTS_PER_CONNECTION_DEFAULT: u32 = 1_000_000;
/// No connection is kept.
pub const REQUESTS_PER_CONNECTION_MIN: u32 = 1;
/// As good as no limit.
pub const REQUESTS_PER_CONNECTION_MAX: u32 = u32::MAX;

/// What compiling one module may take: the largest example needs less than a thirtieth.
pub const BUILD_MEMORY_DEFAULT: ByteSize = ByteSize(2 << 30);
/// Below it the compiler itself does not start.
pub const BUILD_MEMORY_MIN: ByteSize = ByteSize(64 << 20);
/// Start-up may leave several memories of 1 GiB, and each is copied into the artifact.
pub const BUILD_MEMORY_MAX: ByteSize = ByteSize(64 << 30);

/// The largest example takes 4 s for each MB of code on a slow machine; a reload waits for no more.
pub const BUILD_TIME_DEFAULT: Duration = Duration::from_secs(120);
/// The kernel counts CPU time in seconds.
pub const BUILD_TIME_MIN: Duration = Duration::from_secs(1);
/// Whoever waits longer has a compiler of their own.
pub const BUILD_TIME_MAX: Duration = Duration::from_secs(3600);

/// The most functions of one file.
pub const FUNCTIONS_MAX: usize = 100_000;
/// The most routes of one function.
pub const ROUTES_PER_FUNCTION_MAX: usize = 256;
/// The longest name of a function; it is a label of metrics and a word in every log line.
pub const FUNCTION_NAME_BYTES_MAX: usize = 64;

/// Bounds of `drain_timeout`.
pub const DRAIN_TIMEOUT: Bounds<Duration> =
    bounds(DRAIN_TIMEOUT_DEFAULT, DRAIN_TIMEOUT_MIN, DRAIN_TIMEOUT_MAX);
/// Bounds of `deadline`.
pub const DEADLINE: Bounds<Duration> = bounds(DEADLINE_DEFAULT, DEADLINE_MIN, DEADLINE_MAX);
/// Bounds of `fuel`: by default about as much as `deadline` lets through.
pub const FUEL: Bounds<u32> = bounds(100_000_000, 1_000, u32::MAX);
/// Bounds of `memory`.
pub const MEMORY: Bounds<ByteSize> = bounds(MEMORY_DEFAULT, MEMORY_MIN, MEMORY_MAX);
/// Bounds of `scratch`; the default is what complaints show, for without the setting there is none.
pub const SCRATCH: Bounds<ByteSize> = bounds(ByteSize(64 << 20), SCRATCH_MIN, SCRATCH_MAX);
/// Bounds of `body`.
pub const BODY: Bounds<ByteSize> = bounds(BODY_DEFAULT, BODY_MIN, BODY_MAX);
/// Bounds of `response`.
pub const RESPONSE: Bounds<ByteSize> = bounds(RESPONSE_DEFAULT, RESPONSE_MIN, RESPONSE_MAX);
/// Bounds of `concurrency`.
pub const CONCURRENCY: Bounds<u32> = bounds(CONCURRENCY_DEFAULT, CONCURRENCY_MIN, CONCURRENCY_MAX);
/// Bounds of `slots`.
pub const SLOTS: Bounds<u32> = bounds(SLOTS_DEFAULT, SLOTS_MIN, SLOTS_MAX);
/// Bounds of `header_deadline`.
pub const HEADER_DEADLINE: Bounds<Duration> =
    bounds(HEADER_DEADLINE_DEFAULT, HEADER_DEADLINE_MIN, HEADER_DEADLINE_MAX);
/// Bounds of `idle`.
pub const IDLE: Bounds<Duration> = bounds(IDLE_DEFAULT, IDLE_MIN, IDLE_MAX);
/// Bounds of `write_stall`.
pub const WRITE_STALL: Bounds<Duration> =
    bounds(WRITE_STALL_DEFAULT, WRITE_STALL_MIN, WRITE_STALL_MAX);
/// Bounds of `linger`.
pub const LINGER: Bounds<Duration> = bounds(LINGER_DEFAULT, LINGER_MIN, LINGER_MAX);
/// Bounds of `connections_per_worker`.
pub const CONNECTIONS_PER_WORKER: Bounds<u32> =
    bounds(CONNECTIONS_PER_WORKER_DEFAULT, CONNECTIONS_PER_WORKER_MIN, CONNECTIONS_PER_WORKER_MAX);
/// Bounds of `outgoing_connections`.
pub const OUTGOING_CONNECTIONS: Bounds<u32> = bounds(256, 1, network::OUTGOING_MAX);
/// Bounds of `connections_per_source`; by default a source may have all there are.
pub const CONNECTIONS_PER_SOURCE: Bounds<u32> =
    bounds(CONNECTIONS_PER_WORKER_MAX, CONNECTIONS_PER_WORKER_MIN, CONNECTIONS_PER_WORKER_MAX);
/// Bounds of `shed_after`.
pub const SHED_AFTER: Bounds<Duration> =
    bounds(network::SHED_AFTER_DEFAULT, Duration::from_millis(20), Duration::from_secs(3600));
/// Bounds of `body_grace`.
pub const BODY_GRACE: Bounds<Duration> =
    bounds(network::BODY_GRACE_DEFAULT, Duration::from_millis(100), Duration::from_secs(300));
/// Bounds of `body_rate`.
pub const BODY_RATE: Bounds<ByteSize> =
    bounds(ByteSize(network::BODY_BYTES_PER_SECOND_MIN_DEFAULT), ByteSize(1), ByteSize(1 << 30));
/// Bounds of `unsent`.
pub const UNSENT: Bounds<ByteSize> =
    bounds(ByteSize(network::UNSENT_BYTES_DEFAULT as u64), ByteSize(1 << 12), ByteSize(1 << 30));
/// Bounds of `pipelined`.
pub const PIPELINED: Bounds<ByteSize> =
    bounds(ByteSize(network::PIPELINED_BYTES_DEFAULT as u64), ByteSize(1 << 12), ByteSize(1 << 24));
/// Bounds of `body_window`.
pub const BODY_WINDOW: Bounds<ByteSize> = bounds(
    ByteSize(network::BODY_WINDOW_BYTES_DEFAULT as u64),
    ByteSize(network::BODY_WINDOW_BYTES_MIN as u64),
    ByteSize(1 << 24),
);
/// Bounds of `bodies`; the smallest has room for one body of any function and one stream.
pub const BODIES: Bounds<ByteSize> =
    bounds(ByteSize(network::BODIES_BYTES_DEFAULT), ByteSize(1 << 20), ByteSize(1 << 40));
/// Bounds of `stream_body`.
pub const STREAM_BODY: Bounds<ByteSize> =
    bounds(ByteSize(64 << 30), ByteSize(0), ByteSize(1 << 50));
/// Bounds of `stream_time`.
pub const STREAM_TIME: Bounds<Duration> = bounds(
    Duration::from_secs(3600),
    Duration::from_millis(10),
    Duration::from_secs(30 * 24 * 3600),
);
const _: () = assert!(HEAD_BYTES_MAX.0 == midge_net::http::request::HEAD_BYTES_MAX as u64);
const _: () = assert!(HEAD_BYTES_MIN.0 >= midge_net::settings::HEAD_BYTES_MIN as u64);

/// Bounds of `head_bytes`.
pub const HEAD_BYTES: Bounds<ByteSize> = bounds(HEAD_BYTES_DEFAULT, HEAD_BYTES_MIN, HEAD_BYTES_MAX);
/// Bounds of `requests_per_connection`.
pub const REQUESTS_PER_CONNECTION: Bounds<u32> = bounds(
    REQUESTS_PER_CONNECTION_DEFAULT,
    REQUESTS_PER_CONNECTION_MIN,
    REQUESTS_PER_CONNECTION_MAX,
);

/// Bounds of `build.memory`.
pub const BUILD_MEMORY: Bounds<ByteSize> =
    bounds(BUILD_MEMORY_DEFAULT, BUILD_MEMORY_MIN, BUILD_MEMORY_MAX);
/// Bounds of `build.time`.
pub const BUILD_TIME: Bounds<Duration> = bounds(BUILD_TIME_DEFAULT, BUILD_TIME_MIN, BUILD_TIME_MAX);
/// Bounds of `push.every`: what scrapers ask by, and no more than a thread can do beside the workers.
pub const PUSH_EVERY: Bounds<Duration> =
    bounds(Duration::from_secs(15), Duration::from_secs(1), Duration::from_secs(3600));

/// The part of the file that a setting stands in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// Above all tables.
    Top,
    /// A table in `listen`.
    Listen,
    /// `[limits]`.
    Limits,
    /// `[build]`.
    Build,
    /// `[log]`.
    Log,
    /// `[push]`.
    Push,
    /// Each `[[function]]`.
    Function,
    /// Its `[function.grant]`.
    Grant,
    /// Each `[[static]]`.
    Static,
}

/// One row of the table.
#[derive(Debug, Clone, Copy)]
pub struct Key {
    /// Where it stands.
    pub part: Part,
    /// Its name.
    pub name: &'static str,
    /// What it takes.
    pub takes: Takes,
    /// What it means.
    pub meaning: &'static str,
}

/// What a setting takes.
#[derive(Debug, Clone, Copy)]
pub enum Takes {
    /// An address with a port.
    Address(SocketAddr),
    /// One place to listen at, or a list of them.
    Listens(SocketAddr),
    /// Where a client's address comes from.
    ClientAddress,
    /// `auto`, a count, or a list of CPUs.
    Workers,
    /// A duration.
    Duration(Bounds<Duration>),
    /// A size.
    Size(Bounds<ByteSize>),
    /// A whole number.
    Count(Bounds<u32>),
    /// `true` or `false`.
    Truth(bool),
    /// A technique's name.
    Technique,
    /// The name of a way to the kernel.
    Ring,
    /// The name of an isolation.
    Isolation,
    /// The name of a metering.
    Metering,
    /// A level's name.
    Level,
    /// A format's name.
    Format,
    /// Free text, explained by the meaning; without it the file is refused.
    Required(&'static str),
    /// Free text, explained by the meaning, with what holds where nobody sets it.
    Optional(&'static str, &'static str),
    /// Tables of their own.
    Tables,
}

impl Part {
    /// Returns the line that begins the part.
    #[must_use]
    pub const fn heading(self) -> &'static str {
        match self {
            Self::Top => "",
            Self::Listen => "listen = [{ .. }]",
            Self::Limits => "[limits]",
            Self::Build => "[build]",
            Self::Log => "[log]",
            Self::Push => "[push]",
            Self::Function => "[[function]]",
            Self::Grant => "[function.grant]",
            Self::Static => "[[static]]",
        }
    }

    /// Returns the names that may stand in it.
    pub fn names(self) -> impl Iterator<Item = &'static str> + Clone {
        KEYS.iter().filter(move |key| key.part == self).map(|key| key.name)
    }
}

impl<Q: Quantity> Bounds<Q> {
    /// Reads a value from the command line.
    ///
    /// # Errors
    /// What is wrong with it, or the range that it lies outside of.
    pub fn read(&self, text: &str) -> Result<Q, String> {
        let found = Q::parse(text).map_err(|error| error.to_string())?;
        if self.minimum <= found && found <= self.maximum {
            return Ok(found);
        }
        Err(format!("expected {} to {}", self.minimum.show(), self.maximum.show()))
    }
}

impl Takes {
    /// Returns the columns of the manual: what it takes, and its default.
    #[must_use]
    pub fn columns(self) -> (String, String) {
        match self {
            Self::Address(default) => ("address and port".into(), default.to_string()),
            Self::Listens(default) => ("address, or a list, below".into(), default.to_string()),
            Self::ClientAddress => {
                (names(ClientAddress::ALL.map(ClientAddress::name)), "peer".into())
            }
            Self::Workers => ("`auto`, a count, CPUs `\"1-7,9\"`".into(), "auto".into()),
            Self::Duration(bounds) => quantity("duration", bounds),
            Self::Size(bounds) => quantity("size", bounds),
            Self::Count(Bounds { default, minimum, maximum }) => {
                (format!("count, {minimum} to {maximum}"), default.to_string())
            }
            Self::Truth(default) => ("`true` or `false`".into(), default.to_string()),
            Self::Technique => (names(Technique::ALL.map(Technique::name)), "auto".into()),
            Self::Ring => (names(RingChoice::ALL.map(RingChoice::name)), "auto".into()),
            Self::Isolation => (names(Isolation::ALL.map(Isolation::name)), "guard-pages".into()),
            Self::Metering => (names(Metering::ALL.map(Metering::name)), "epochs".into()),
            Self::Level => (names(LogLevel::ALL.map(LogLevel::name)), "info".into()),
            Self::Format => (names(LogFormat::ALL.map(LogFormat::name)), "text".into()),
            Self::Required(form) => (form.into(), "required".into()),
            Self::Optional(form, default) => (form.into(), default.into()),
            Self::Tables => ("tables".into(), "none".into()),
        }
    }
}

const fn key(part: Part, name: &'static str, takes: Takes, meaning: &'static str) -> Key {
    Key { part, name, takes, meaning }
}

/// All settings, in the order of the manual.
pub const KEYS: &[Key] = &[
    key(Part::Top, "listen", Takes::Listens(LISTEN_DEFAULT), "where functions are served"),
    key(
        Part::Top,
        "listen_on_cpu",
        Takes::Truth(false),
        "connections go to the worker on whose CPU their packets arrive",
    ),
    key(
        Part::Top,
        "trusted_proxies",
        Takes::Optional("list of networks and `unix`, up to 64", "none"),
        "whose PROXY protocol and headers tell a client's address",
    ),
    key(
        Part::Top,
        "client_address",
        Takes::ClientAddress,
        "what a client's address is taken from, of trusted proxies",
    ),
    key(
        Part::Listen,
        "address",
        Takes::Required(
            "`\"0.0.0.0:80\"`, `\"[::]:80\"`, `\"unix:/path\"`, `\"systemd\"`, `\"systemd:NAME\"`",
        ),
        "where, relative to the file for a path",
    ),
    key(
        Part::Listen,
        "proxy_protocol",
        Takes::Truth(false),
        "connections begin with the PROXY protocol, version 1 or 2; others are closed",
    ),
    key(
        Part::Listen,
        "mode",
        Takes::Optional("permissions in octal", "0660"),
        "who may connect to a Unix socket",
    ),
    key(Part::Top, "admin", Takes::Address(ADMIN_DEFAULT), "where health and metrics are served"),
    key(Part::Top, "workers", Takes::Workers, "worker threads, one CPU each"),
    key(Part::Top, "ring_tier", Takes::Ring, "the way to the kernel: docs/manual/tiers.md"),
    key(
        Part::Top,
        "drain_timeout",
        Takes::Duration(DRAIN_TIMEOUT),
        "how long a stop waits for requests in flight",
    ),
    key(
        Part::Top,
        "certificates",
        Takes::Optional("path", "the system's"),
        "authorities that outgoing requests trust, a PEM file; relative to this file",
    ),
    key(Part::Top, "limits", Takes::Tables, "limits of the network, below"),
    key(Part::Top, "build", Takes::Tables, "limits of compiling a module, below"),
    key(Part::Top, "log", Takes::Tables, "the log, below"),
    key(Part::Top, "push", Takes::Tables, "metrics that are pushed, below"),
    key(Part::Top, "function", Takes::Tables, "the functions, one `[[function]]` each, below"),
    key(Part::Top, "static", Takes::Tables, "folders of files, one `[[static]]` each, below"),
    key(
        Part::Limits,
        "header_deadline",
        Takes::Duration(HEADER_DEADLINE),
        "from a request's first byte to the end of its head; then 408",
    ),
    key(Part::Limits, "idle", Takes::Duration(IDLE), "a connection without a request; then closed"),
    key(
        Part::Limits,
        "write_stall",
        Takes::Duration(WRITE_STALL),
        "a peer that takes no bytes of its response; then closed",
    ),
    key(
        Part::Limits,
        "linger",
        Takes::Duration(LINGER),
        "reading on after a refusal, so that the peer sees the answer",
    ),
    key(
        Part::Limits,
        "connections_per_worker",
        Takes::Count(CONNECTIONS_PER_WORKER),
        "open connections; beyond it those that wait longest give way, and accepting pauses",
    ),
    key(
        Part::Limits,
        "connections_per_source",
        Takes::Count(CONNECTIONS_PER_SOURCE),
        "open connections of one IPv4 address or IPv6 /64 on each worker; beyond it closed",
    ),
    key(
        Part::Limits,
        "shed_after",
        Takes::Duration(SHED_AFTER),
        "time without a request after which a connection gives way when all are taken",
    ),
    key(
        Part::Limits,
        "body_grace",
        Takes::Duration(BODY_GRACE),
        "from a body's begin until its rate counts",
    ),
    key(
        Part::Limits,
        "body_rate",
        Takes::Size(BODY_RATE),
        "least of a body in each second after the grace; then 408",
    ),
    key(
        Part::Limits,
        "unsent",
        Takes::Size(UNSENT),
        "responses that a peer has not read; beyond it nothing more is read from it",
    ),
    key(
        Part::Limits,
        "pipelined",
        Takes::Size(PIPELINED),
        "later requests kept while one is answered; beyond it nothing more is read",
    ),
    key(
        Part::Limits,
        "body_window",
        Takes::Size(BODY_WINDOW),
        "a streamed body ahead of its function; beyond it nothing more is read",
    ),
    key(
        Part::Limits,
        "bodies",
        Takes::Size(BODIES),
        "request bodies and streams that a worker keeps at a time; then 503",
    ),
    key(
        Part::Limits,
        "head_bytes",
        Takes::Size(HEAD_BYTES),
        "request line and headers together; then 431",
    ),
    key(
        Part::Limits,
        "requests_per_connection",
        Takes::Count(REQUESTS_PER_CONNECTION),
        "requests on one connection; then closed after the response",
    ),
    key(
        Part::Limits,
        "outgoing_connections",
        Takes::Count(OUTGOING_CONNECTIONS),
        "connections of a worker to other servers; then requests wait for one",
    ),
    key(
        Part::Build,
        "memory",
        Takes::Size(BUILD_MEMORY),
        "for compiling one module and its start-up; then refused",
    ),
    key(
        Part::Build,
        "time",
        Takes::Duration(BUILD_TIME),
        "for compiling one module and its start-up; then refused",
    ),
    key(
        Part::Build,
        "processor",
        Takes::Optional("`native` `x86-64-v2` `x86-64-v3`", "native"),
        "the processors that code is for; artifacts of another one are refused",
    ),
    key(Part::Log, "level", Takes::Level, "the least grave message that is written"),
    key(Part::Log, "format", Takes::Format, "lines for people, or JSON objects"),
    key(Part::Log, "access", Takes::Truth(false), "a line for each request"),
    key(
        Part::Log,
        "syslog",
        Takes::Optional("`\"udp://HOST[:514]\"` or `\"tcp://HOST[:514]\"`", "none"),
        "a server of logs that is told all lines too, RFC 5424",
    ),
    key(
        Part::Push,
        "url",
        Takes::Optional("`\"http://HOST[:PORT]/PATH\"`", "none"),
        "where metrics are pushed to: docs/manual/metrics.md",
    ),
    key(Part::Push, "every", Takes::Duration(PUSH_EVERY), "how often"),
    key(
        Part::Function,
        "name",
        Takes::Required("1 to 64 of `a-z 0-9 - _ .`"),
        "unique; label of metrics and log lines",
    ),
    key(
        Part::Function,
        "module",
        Takes::Required("path"),
        "`.wasm`, `.wat` or artifact; relative to this file",
    ),
    key(
        Part::Function,
        "route",
        Takes::Required("`\"/x\"` or `\"/x/*\"`"),
        "an exact path, or every path that starts with `/x/`; or use `routes`",
    ),
    key(
        Part::Function,
        "routes",
        Takes::Optional("list of routes, 1 to 256", "`route`"),
        "several of them",
    ),
    key(
        Part::Function,
        "host",
        Takes::Optional("host name", "any"),
        "answers requests for this host alone, before functions without one",
    ),
    key(
        Part::Function,
        "methods",
        Takes::Optional("list of methods", "any"),
        "the others get 405 with an Allow header",
    ),
    key(Part::Function, "technique", Takes::Technique, "how instances are made pristine"),
    key(
        Part::Function,
        "isolation",
        Takes::Isolation,
        "what keeps it inside its memory, at least: docs/SECURITY.md",
    ),
    key(Part::Function, "metering", Takes::Metering, "what bounds a call: docs/manual/metering.md"),
    key(
        Part::Function,
        "fuel",
        Takes::Count(FUEL),
        "instructions of one call, if `metering` is `fuel`; then 504",
    ),
    key(Part::Function, "deadline", Takes::Duration(DEADLINE), "time for one call; then 504"),
    key(Part::Function, "memory", Takes::Size(MEMORY), "what a call may grow its memory to"),
    key(Part::Function, "body", Takes::Size(BODY), "request body; longer ones get 413"),
    key(
        Part::Function,
        "stream_body",
        Takes::Size(STREAM_BODY),
        "request body of a function that reads it piece by piece; longer ones get 413",
    ),
    key(
        Part::Function,
        "stream_time",
        Takes::Duration(STREAM_TIME),
        "a call with all its waiting for the client; then 504, or cut off",
    ),
    key(Part::Function, "response", Takes::Size(RESPONSE), "response body; longer ones become 502"),
    key(
        Part::Function,
        "concurrency",
        Takes::Count(CONCURRENCY),
        "calls in flight on one worker; then 503",
    ),
    key(
        Part::Function,
        "slots",
        Takes::Count(SLOTS),
        "instances that one worker keeps ready, at most `concurrency`; 64 with a `grant`",
    ),
    key(
        Part::Function,
        "server_timing",
        Takes::Truth(false),
        "a Server-Timing header with tier and duration",
    ),
    key(
        Part::Function,
        "compress",
        Takes::Truth(false),
        "text of 1 KiB or more is answered as br, zstd or gzip to those who take it",
    ),
    key(
        Part::Function,
        "arguments",
        Takes::Optional("list of texts", "none"),
        "what a program finds as its arguments",
    ),
    key(
        Part::Function,
        "environment",
        Takes::Optional("list of `NAME=value`", "none"),
        "what a program finds in its environment beside the request",
    ),
    key(Part::Function, "grant", Takes::Tables, "what it may reach, below"),
    key(
        Part::Grant,
        "http",
        Takes::Optional("list of `http(s)://HOST[:PORT]`", "none"),
        "servers that it may ask; `*.` in front of a name stands for all names below it",
    ),
    key(
        Part::Grant,
        "networks",
        Takes::Optional("list of networks", "none"),
        "where names of these servers may lead, besides public addresses",
    ),
    key(
        Part::Function,
        "files",
        Takes::Optional("list of `FOLDER:GUEST-PATH`", "none"),
        "folders, relative to this file, that a WASI program or component finds read-only",
    ),
    key(
        Part::Function,
        "scratch",
        Takes::Optional("`SIZE` or `SIZE:GUEST-PATH`, 64 KiB to 512 MiB", "none"),
        "a folder in memory that a WASI program or component may write to, empty for each request; its path is \
         `/tmp` unless another is given",
    ),
    key(
        Part::Static,
        "name",
        Takes::Required("1 to 64 of `a-z 0-9 - _ .`"),
        "unique, for log and metrics",
    ),
    key(Part::Static, "folder", Takes::Required("path"), "the files, relative to this file"),
    key(
        Part::Static,
        "route",
        Takes::Required("`\"/x/*\"`"),
        "the path above the files; the rest is the file's own",
    ),
    key(Part::Static, "routes", Takes::Optional("list of routes, 1 to 256", "`route`"), "several"),
    key(Part::Static, "host", Takes::Optional("host name", "any"), "answers this host alone"),
    key(
        Part::Static,
        "index",
        Takes::Optional("file name", "index.html"),
        "the file that stands for its folder",
    ),
    key(
        Part::Static,
        "precompressed",
        Takes::Truth(false),
        "`x.br`, `x.zst` or `x.gz` is served for `x` to those who take it",
    ),
    key(
        Part::Static,
        "hidden",
        Takes::Truth(false),
        "serves names that begin with a dot; without it only `.well-known`",
    ),
    key(
        Part::Static,
        "cache_control",
        Takes::Optional("a header's value", "none"),
        "what `Cache-Control` says",
    ),
];

/// Returns the manual's tables, one for each part.
#[must_use]
pub fn manual_tables() -> String {
    let mut text = String::new();
    for part in [
        Part::Top,
        Part::Listen,
        Part::Limits,
        Part::Build,
        Part::Log,
        Part::Push,
        Part::Function,
        Part::Grant,
        Part::Static,
    ] {
        if !part.heading().is_empty() {
            text += &format!("\n### `{}`\n\n", part.heading());
        }
        text += "| setting | takes | default | meaning |\n|---|---|---|---|\n";
        for Key { name, takes, meaning, .. } in KEYS.iter().filter(|key| key.part == part) {
            let (takes, default) = takes.columns();
            text += &format!("| `{name}` | {takes} | {default} | {meaning} |\n");
        }
    }
    text
}

fn quantity<Q: Quantity>(noun: &str, bounds: Bounds<Q>) -> (String, String) {
    let Bounds { default, minimum, maximum } = bounds;
    (format!("{noun}, {} to {}", minimum.show(), maximum.show()), default.show())
}

fn names<const COUNT: usize>(names: [&str; COUNT]) -> String {
    names.map(|name| format!("`{name}`")).join(" ")
}

const fn bounds<T: Copy>(default: T, minimum: T, maximum: T) -> Bounds<T> {
    Bounds { default, minimum, maximum }
}

const fn loopback(port: u16) -> SocketAddr {
    SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), port)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn holds<T: PartialOrd>(bounds: &Bounds<T>) -> bool {
        bounds.minimum <= bounds.default && bounds.default <= bounds.maximum
    }

    #[test]
    fn every_default_lies_within_its_bounds() {
        for key in KEYS {
            let is_sound = match &key.takes {
                Takes::Duration(bounds) => holds(bounds),
                Takes::Size(bounds) => holds(bounds),
                Takes::Count(bounds) => holds(bounds),
                _ => true,
            };
            assert!(is_sound, "{}", key.name);
        }
    }

    #[test]
    fn names_are_unique_within_their_part() {
        for (position, key) in KEYS.iter().enumerate() {
            let later = &KEYS[position + 1..];
            assert!(!later.iter().any(|other| other.part == key.part && other.name == key.name));
        }
    }
}
