//! The command line becomes a plan.

use std::net::ToSocketAddrs;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use midge_load::plan::{
    Body, CONNECTIONS_MAX, Choice, DEPTH_MAX, Expected, Numbered, Pace, Plan, Request, Target,
};
use midge_load::run::learn;
use midge_load::schedule::{Piece, Spacing};
use midge_load::trace::{self, CALLS_MAX, Durations, Extras, Heaps, Scale, Shape, Wanted};
use socket2::SockAddr;

/// Targets of a run.
const TARGETS_MAX: usize = 1 << 20;

/// Size of a request's body, or of a file with targets or times.
const FILE_BYTES_MAX: u64 = 1 << 30;

/// Part of a request where it is written slowly.
const WRITE_PART_BYTES: usize = 1024;

/// Loads a server of HTTP/1.1 and tells its latencies and what was wrong with its answers.
///
/// Without a rate it is a closed loop: each connection sends when its last response has come. With one it is an
/// open loop: requests are due by a schedule that the server cannot delay, and latency counts from when a
/// request was due, so the time it waited for a connection is a part of it.
///
/// Before it begins it asks for each target twice, and expects from then on what both answers had in common.
/// `{number}` in a target or a body stands for the number of the request, in 16 digits: where the answer repeats it,
/// each response is known to belong to its request. `{us}`, `{kib}` and `{pages}` stand for what a call of a trace takes,
/// in 10 digits: its duration, its heap, the pages of 4 KiB that it writes to.
#[derive(Debug, clap::Parser)]
#[command(name = "midge-load", version, about, after_help = AFTER_HELP, args_override_self = true)]
pub(crate) struct Options {
    /// What is asked for: http://HOST[:PORT]/PATH; several are asked for in turn.
    #[arg(required = true, value_name = "URL")]
    pub(crate) urls: Vec<String>,
    /// Connects to a Unix socket instead of the address in the URL.
    #[arg(long, value_name = "PATH")]
    unix: Option<PathBuf>,
    /// Connections, of all threads together.
    #[arg(short, long, value_name = "COUNT", default_value_t = 64)]
    connections: usize,
    /// Time that counts.
    #[arg(short, long, value_name = "SECONDS", default_value_t = 10.0)]
    duration: f64,
    /// Time before it.
    #[arg(long, value_name = "SECONDS", default_value_t = 1.0)]
    warmup: f64,
    /// Requests per second: an open loop.
    #[arg(short, long, value_name = "PER_SECOND", group = "pace")]
    rate: Option<f64>,
    /// One run for each of these rates.
    #[arg(long, value_name = "RATE,RATE", value_delimiter = ',', group = "pace")]
    steps: Vec<f64>,
    /// A rate that rises, or falls, evenly.
    #[arg(long, value_name = "FROM:TO", group = "pace", value_parser = pair)]
    ramp: Option<(f64, f64)>,
    /// Searches the highest rate whose p99 stays below so many milliseconds.
    #[arg(long, value_name = "MS", group = "pace")]
    pub(crate) knee: Option<f64>,
    /// A file of calls: `SECONDS,FUNCTION,US,KIB,PAGES` on each line, of which all but the first may be left out, or a
    /// file of the Azure Functions traces of 2019 or 2021, or of Huawei's of 2023 or 2025; functions are the targets, in
    /// order.
    #[arg(long, value_name = "FILE", group = "pace")]
    replay: Option<PathBuf>,
    /// Divides the times of --replay by this; only what is due within --duration then is asked for.
    #[arg(long, value_name = "FACTOR", default_value_t = 1.0, requires = "replay")]
    speed: f64,
    /// Durations for the counts of the Azure trace of 2019: function_durations_percentiles.
    #[arg(long, value_name = "FILE", requires = "replay")]
    durations: Option<PathBuf>,
    /// Heaps for them: app_memory_percentiles.
    #[arg(long, value_name = "FILE", requires = "replay")]
    memory: Option<PathBuf>,
    /// Divides the durations of calls by this, where a target has `{us}`: 1000 makes milliseconds of seconds.
    #[arg(long, value_name = "FACTOR", default_value_t = 1.0)]
    duration_scale: f64,
    /// Divides the heaps of calls by this, where a target has `{kib}`; none is above 64 MiB.
    #[arg(long, value_name = "FACTOR", default_value_t = 1.0)]
    heap_scale: f64,
    /// How requests are spaced: fixed, poisson, gamma:CV (bursts, for a coefficient of variation above 1), or
    /// azure-2019, azure-2021, huawei-2023, huawei-2025: targets are functions as those clouds have them, called at --rate
    /// in all.
    #[arg(long, value_name = "SPACING", default_value = "poisson", value_parser = arrivals)]
    arrivals: Arrivals,
    /// Requests under way on a connection.
    #[arg(short, long, value_name = "COUNT", default_value_t = 1)]
    pipeline: usize,
    /// A connection for each request.
    #[arg(long, conflicts_with = "requests_per_connection")]
    close: bool,
    /// Requests after which a connection is closed and another made.
    #[arg(long, value_name = "COUNT")]
    requests_per_connection: Option<u32>,
    /// Sends requests in parts of so many bytes.
    #[arg(long, value_name = "BYTES")]
    split: Option<usize>,
    /// Reads each connection at so many bytes per second.
    #[arg(long, value_name = "BYTES", default_value_t = 0)]
    read_rate: u64,
    /// Writes each connection at so many bytes per second, in parts of --split, 1024 if that is not given.
    #[arg(long, value_name = "BYTES", default_value_t = 0)]
    write_rate: u64,
    /// Method.
    #[arg(short, long, default_value = "GET")]
    method: String,
    /// A header, as `name: value`.
    #[arg(short = 'H', long = "header", value_name = "HEADER")]
    headers: Vec<String>,
    /// The request's body.
    #[arg(long, value_name = "TEXT", group = "content")]
    body: Option<String>,
    /// The request's body, from a file.
    #[arg(long, value_name = "FILE", group = "content")]
    body_file: Option<PathBuf>,
    /// A body of so many bytes.
    #[arg(long, value_name = "BYTES", group = "content")]
    body_bytes: Option<u64>,
    /// The status that is expected, in place of the one that is learned.
    #[arg(long, value_name = "CODE")]
    status: Option<u16>,
    /// The body that is expected, in place of the one that is learned.
    #[arg(long, value_name = "TEXT", group = "wanted")]
    expect: Option<String>,
    /// The body that is expected, from a file.
    #[arg(long, value_name = "FILE", group = "wanted")]
    expect_file: Option<PathBuf>,
    /// Expects nothing of the body.
    #[arg(long, group = "wanted")]
    expect_any: bool,
    /// More targets: a file of paths, a line each, on the host of the first URL.
    #[arg(long, value_name = "FILE")]
    targets: Option<PathBuf>,
    /// Asks for the k-th target as often as k to the power of minus this, in place of all in turn.
    #[arg(long, value_name = "EXPONENT")]
    zipf: Option<f64>,
    /// Time after which a request counts as unanswered.
    #[arg(long, value_name = "SECONDS", default_value_t = 10.0)]
    timeout: f64,
    /// CPUs of the generator's threads, as `2` or `2,3`; by default one thread, wherever the system puts it.
    #[arg(long, value_name = "LIST", value_delimiter = ',')]
    cpus: Vec<usize>,
    /// Never sleeps: less lag, and a whole CPU for each thread.
    #[arg(long)]
    spin: bool,
    /// Seed of arrivals and of the choice of targets.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Prints one JSON object.
    #[arg(long)]
    pub(crate) json: bool,
    /// Writes the histogram of latencies as an HdrHistogram log.
    #[arg(long, value_name = "FILE")]
    pub(crate) hdr: Option<PathBuf>,
    /// Draws latency over percentile, or over the rate where there are several runs.
    #[arg(long, value_name = "FILE")]
    pub(crate) svg: Option<PathBuf>,
    /// Shows no progress.
    #[arg(short, long)]
    pub(crate) quiet: bool,
}

const AFTER_HELP: &str = "\
Exit status:
  0  every response was right, and the server was the limit
  1  a response was wrong or missing, or nothing could be measured
  2  wrong usage
  3  the generator itself was the limit: the figures say nothing of the server

Examples:
  midge-load -c 64 -d 10 http://127.0.0.1:8080/hello
  midge-load --rate 20000 --cpus 1 --spin http://127.0.0.1:8080/hello
  midge-load --steps 1000,2000,4000 --svg curve.svg http://127.0.0.1:8080/hello
  midge-load --knee 1 --cpus 1 http://127.0.0.1:8080/hello";

/// What the rate is found by.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Course {
    /// One run, as planned.
    One,
    /// A run for each rate.
    Steps(Vec<f64>),
    /// A search for the highest rate with this p99, in nanoseconds.
    Knee(u64),
}

impl Options {
    /// Makes the plan: resolves, reads files, asks for each target twice.
    ///
    /// # Errors
    /// If an option makes no sense, a file cannot be read, or the server does not answer.
    pub(crate) fn plan(&self) -> Result<(Plan, Course)> {
        self.check()?;
        let first = Url::parse(&self.urls[0])?;
        let address = match &self.unix {
            Some(path) => SockAddr::unix(path).context("the path of the socket is too long")?,
            None => first.resolve()?.into(),
        };
        let mut paths = Vec::new();
        for text in &self.urls {
            let url = Url::parse(text)?;
            ensure!(
                url.authority == first.authority,
                "all URLs must be of one server: {} and {} are two",
                first.authority,
                url.authority
            );
            paths.push(url.path.to_owned());
        }
        if let Some(file) = &self.targets {
            let text = read(file)?;
            let text = String::from_utf8(text).context("targets are text, a path on each line")?;
            let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
            paths.extend(lines.map(str::to_owned));
        }
        ensure!(paths.len() <= TARGETS_MAX, "at most {TARGETS_MAX} targets");
        let body = self.content()?;
        let timeout = seconds("--timeout", self.timeout)?;
        let mut targets = Vec::with_capacity(paths.len());
        for path in &paths {
            let request = Request {
                method: &self.method,
                target: path,
                host: first.authority,
                headers: &self.headers,
                body: &body,
            };
            targets.push(self.expected(&address, &request, timeout)?);
        }
        let (pace, course) = self.pace(targets.len())?;
        let tells_work = targets.iter().any(|target: &Target| target.request.tells_work());
        ensure!(
            !tells_work || matches!(pace, Pace::Replay(_)),
            "a target holds {{us}}, {{kib}} or {{pages}}: calls of traces alone tell them, those of --replay or of \
             --rate with --arrivals azure-2019, azure-2021, huawei-2023 or huawei-2025"
        );
        let warmup = match &pace {
            Pace::Replay(_) => Duration::ZERO,
            _ => seconds("--warmup", self.warmup)?,
        };
        let plan = Plan {
            address,
            targets,
            choice: self.zipf.map_or(Choice::InTurn, Choice::Zipf),
            pace,
            connections: self.connections,
            depth: self.pipeline,
            requests_per_connection: if self.close {
                Some(1)
            } else {
                self.requests_per_connection
            },
            split: self.split.or((self.write_rate > 0).then_some(WRITE_PART_BYTES)),
            read_rate: self.read_rate,
            write_rate: self.write_rate,
            warmup,
            duration: self.duration()?,
            timeout,
            cpus: match self.cpus.as_slice() {
                [] => vec![None],
                list => list.iter().copied().map(Some).collect(),
            },
            spins: self.spin,
            seed: self.seed,
        };
        Ok((plan, course))
    }

    fn check(&self) -> Result<()> {
        ensure!(
            (1..=CONNECTIONS_MAX).contains(&self.connections),
            "--connections: 1 to {CONNECTIONS_MAX}"
        );
        ensure!((1..=DEPTH_MAX).contains(&self.pipeline), "--pipeline: 1 to {DEPTH_MAX}");
        ensure!(self.split != Some(0), "--split: 1 or more");
        ensure!(self.requests_per_connection != Some(0), "--requests-per-connection: 1 or more");
        for (name, factor) in [
            ("--speed", self.speed),
            ("--duration-scale", self.duration_scale),
            ("--heap-scale", self.heap_scale),
        ] {
            ensure!(factor.is_finite() && factor > 0.0, "{name}: above 0");
        }
        ensure!(
            self.zipf.is_none_or(|exponent| (0.0..=10.0).contains(&exponent)),
            "--zipf: 0 to 10"
        );
        ensure!(
            self.cpus.len() <= self.connections,
            "a thread needs a connection: --cpus names more than --connections"
        );
        let is_token =
            |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic());
        ensure!(is_token(&self.method), "--method: a word");
        for header in &self.headers {
            let is_line = header.contains(':') && !header.contains(['\r', '\n']);
            ensure!(is_line, "--header: `name: value`, not `{}`", header.escape_debug());
        }
        Ok(())
    }

    /// Returns how requests are spaced where a run has one process for all.
    pub(crate) fn spacing(&self) -> Result<Spacing> {
        match self.arrivals {
            Arrivals::Spaced(spacing) => Ok(spacing),
            Arrivals::Shape(shape) => bail!("--arrivals {} goes with --rate", shape.name()),
        }
    }

    /// Returns what of a trace is wanted.
    fn wanted(&self, seconds: f64) -> Wanted {
        let scale = Scale { duration: self.duration_scale, heap: self.heap_scale };
        Wanted { seconds, speed: self.speed, scale, seed: self.seed }
    }

    /// Reads the files beside the counts of the Azure trace of 2019.
    fn extras(&self) -> Result<Extras> {
        let text = |file: &PathBuf| {
            let text = String::from_utf8(read(file)?);
            text.with_context(|| format!("{} is no text", file.display()))
        };
        let of = |file: &PathBuf| format!("{} cannot be read", file.display());
        let mut extras = Extras::default();
        if let Some(file) = &self.durations {
            extras.durations = Some(Durations::read(&text(file)?).with_context(|| of(file))?);
        }
        if let Some(file) = &self.memory {
            extras.heaps = Some(Heaps::read(&text(file)?).with_context(|| of(file))?);
        }
        Ok(extras)
    }

    fn duration(&self) -> Result<Duration> {
        let duration = seconds("--duration", self.duration)?;
        ensure!(!duration.is_zero(), "--duration: above 0");
        Ok(duration)
    }

    fn pace(&self, functions: usize) -> Result<(Pace, Course)> {
        let duration = self.duration()?.as_secs_f64();
        let open = |from: f64, to: f64| -> Result<Pace> {
            ensure!(
                from >= 0.0 && to >= 0.0 && (1e-6..1e9).contains(&from.max(to)),
                "a rate is above 0 and below 10^9"
            );
            let pieces = vec![Piece { seconds: duration, from, to }];
            match self.arrivals {
                Arrivals::Spaced(spacing) => Ok(Pace::Open { pieces, spacing }),
                Arrivals::Shape(shape) if self.rate.is_some() => {
                    #[expect(clippy::cast_precision_loss, reason = "a bound, with room")]
                    let has_room = from * duration < CALLS_MAX as f64 / 2.0;
                    ensure!(has_room, "a trace holds fewer than {} calls", CALLS_MAX / 2);
                    let calls = shape.calls(functions, from, &self.wanted(duration));
                    ensure!(
                        !calls.is_empty(),
                        "of a few functions with bursts no call is due within --duration: take a longer one, or \
                         another --seed"
                    );
                    Ok(Pace::Replay(calls))
                }
                Arrivals::Shape(shape) => bail!("--arrivals {} goes with --rate", shape.name()),
            }
        };
        if let Some(rate) = self.rate {
            return Ok((open(rate, rate)?, Course::One));
        }
        if let Some((from, to)) = self.ramp {
            return Ok((open(from, to)?, Course::One));
        }
        if let Some(&first) = self.steps.first() {
            for rate in &self.steps {
                open(*rate, *rate)?;
            }
            return Ok((open(first, first)?, Course::Steps(self.steps.clone())));
        }
        if let Some(ms) = self.knee {
            ensure!((1e-3..1e6).contains(&ms), "--knee: milliseconds, above 0");
            self.spacing()?;
            #[expect(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "checked above"
            )]
            return Ok((Pace::Closed, Course::Knee((ms * 1e6) as u64)));
        }
        if let Some(file) = &self.replay {
            let text = String::from_utf8(read(file)?).context("a trace is text")?;
            let calls = trace::read(&text, &self.extras()?, &self.wanted(duration))
                .with_context(|| format!("{} is no trace", file.display()))?;
            return Ok((Pace::Replay(calls), Course::One));
        }
        Ok((Pace::Closed, Course::One))
    }

    fn content(&self) -> Result<Vec<u8>> {
        if let Some(text) = &self.body {
            return Ok(text.clone().into_bytes());
        }
        if let Some(file) = &self.body_file {
            return read(file);
        }
        let size = self.body_bytes.unwrap_or(0);
        ensure!(size <= FILE_BYTES_MAX, "--body-bytes: at most {FILE_BYTES_MAX}");
        // Bytes that differ from place to place, so that a piece that is lost or moved shows.
        #[expect(clippy::cast_possible_truncation, reason = "a byte of a mixed number")]
        Ok((0..size).map(|at| b'a' + (at.wrapping_mul(0x9e37_79b9) >> 16) as u8 % 26).collect())
    }

    fn expected(
        &self,
        address: &SockAddr,
        request: &Request<'_>,
        timeout: Duration,
    ) -> Result<Target> {
        let any = Expected { status: self.status, body: Body::Any };
        let mut target = request.target(any);
        let is_told = self.expect_any || self.expect.is_some() || self.expect_file.is_some();
        if self.status.is_none() || !is_told {
            target.expected = learn(address, &target, self.status, timeout)?;
        }
        if self.expect_any {
            target.expected.body = Body::Any;
        }
        let wanted = match (&self.expect, &self.expect_file) {
            (Some(text), _) => Some(text.clone().into_bytes()),
            (_, Some(file)) => Some(read(file)?),
            _ => None,
        };
        if let Some(wanted) = wanted {
            target.expected.body = Body::Bytes(Numbered::new(&wanted));
        }
        Ok(target)
    }
}

/// The parts of `http://AUTHORITY/PATH`.
#[derive(Debug, PartialEq, Eq)]
struct Url<'a> {
    authority: &'a str,
    path: &'a str,
}

impl<'a> Url<'a> {
    fn parse(text: &'a str) -> Result<Self> {
        let rest = match text.split_once("://") {
            Some(("http", rest)) => rest,
            Some(("https", _)) => bail!(
                "`{text}`: TLS is not spoken here; ask the server behind whatever ends it, by http://"
            ),
            Some((scheme, _)) => {
                bail!("`{text}`: `{}` is not spoken here, http:// alone", scheme.escape_debug())
            }
            None => {
                bail!("`{}` is no URL of the form http://HOST[:PORT]/PATH", text.escape_debug())
            }
        };
        let end = rest.find(['/', '?']).unwrap_or(rest.len());
        let (authority, path) = rest.split_at(end);
        ensure!(!authority.is_empty(), "`{text}` names no host");
        ensure!(!authority.contains('@'), "`{text}`: a user in a URL is not sent; use --header");
        ensure!(!path.starts_with('?'), "`{text}`: a path begins with a slash");
        let is_visible = path.bytes().all(|byte| byte.is_ascii_graphic());
        ensure!(
            is_visible,
            "`{}`: a path has neither blanks nor control characters",
            text.escape_debug()
        );
        let path = path.split('#').next().unwrap_or(path);
        Ok(Self { authority, path: if path.is_empty() { "/" } else { path } })
    }

    fn resolve(&self) -> Result<std::net::SocketAddr> {
        let has_port = match self.authority.rfind(':') {
            Some(colon) => !self.authority[colon..].contains(']'),
            None => false,
        };
        let with_port =
            if has_port { self.authority.to_owned() } else { format!("{}:80", self.authority) };
        let mut found = with_port
            .to_socket_addrs()
            .with_context(|| format!("cannot find the address of {}", self.authority))?;
        found.next().with_context(|| format!("{} has no address", self.authority))
    }
}

fn read(file: &PathBuf) -> Result<Vec<u8>> {
    let describe = || format!("cannot read {}", file.display());
    let size = std::fs::metadata(file).with_context(describe)?.len();
    ensure!(size <= FILE_BYTES_MAX, "{} is larger than {FILE_BYTES_MAX} bytes", file.display());
    std::fs::read(file).with_context(describe)
}

fn seconds(name: &str, value: f64) -> Result<Duration> {
    ensure!((0.0..1e7).contains(&value), "{name}: seconds, 0 or more");
    Ok(Duration::from_secs_f64(value))
}

fn pair(text: &str) -> Result<(f64, f64)> {
    let (from, to) = text.split_once(':').context("FROM:TO, as 100:5000")?;
    Ok((from.trim().parse()?, to.trim().parse()?))
}

/// How requests are spaced.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Arrivals {
    /// One process, whatever the target.
    Spaced(Spacing),
    /// Functions as a cloud has them.
    Shape(Shape),
}

fn arrivals(text: &str) -> Result<Arrivals> {
    if let Some(shape) = Shape::from_name(text) {
        return Ok(Arrivals::Shape(shape));
    }
    Ok(Arrivals::Spaced(match text {
        "fixed" => Spacing::Fixed,
        "poisson" => Spacing::Poisson,
        _ => match text.strip_prefix("gamma:").map(str::parse::<f64>) {
            Some(Ok(variation)) if (0.01..=100.0).contains(&variation) => Spacing::Gamma(variation),
            _ => {
                let shapes = Shape::ALL.map(Shape::name).join(", ");
                bail!("fixed, poisson, gamma:CV with a CV of 0.01 to 100, {shapes}")
            }
        },
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_taken_apart() {
        let cases = [
            ("http://a", "a", "/"),
            ("http://a:81/b?c=d#e", "a:81", "/b?c=d"),
            ("http://[::1]:81/b", "[::1]:81", "/b"),
        ];
        for (text, authority, path) in cases {
            assert_eq!(Url::parse(text).unwrap(), Url { authority, path }, "{text}");
        }
        for text in ["https://a/", "a/b", "http:///b", "http://u@a/", "http://a/b c", "http://a?b"]
        {
            assert!(Url::parse(text).is_err(), "{text}");
        }
        let address = Url::parse("http://[::1]/").unwrap().resolve().unwrap();
        assert_eq!(address.to_string(), "[::1]:80");
    }

    #[test]
    fn spacings_have_names() {
        assert_eq!(arrivals("gamma:4").unwrap(), Arrivals::Spaced(Spacing::Gamma(4.0)));
        assert_eq!(arrivals("huawei-2025").unwrap(), Arrivals::Shape(Shape::Huawei2025));
        assert!(arrivals("gamma:0").is_err() && arrivals("uniform").is_err());
    }

    #[test]
    fn the_command_line_is_sound() {
        use clap::CommandFactory;
        Options::command().debug_assert();
    }
}
