//! `midge demo`: serves the examples and shows what is going on.
//!
//! The examples' modules are in the program, so that the demo runs from any folder.

use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use clap::ArgMatches;
use midge_loader::artifact::Artifact;
use midge_loader::build::build_as;
use midge_loader::engine::Engines;
use midge_loader::files;
use midge_loader::link::attach;
use midge_loader::start::Tier;

use crate::cli::DemoArgs;
use crate::commands::serve::{announce, catch_signals, until_stopped};
use crate::compile::Recipe;
use crate::config::{BuildLimits, ByteSize, Origin, Overrides, Pattern, Setting, Settings};
use crate::host::Host;
use crate::log::start_host_log;
use crate::output::{self, Cell, Table, Tone};
use crate::stats::Stats;
use crate::stats::histogram::HistogramSnapshot;

/// How often a line of figures is printed while there is traffic.
const LINE_EVERY: Duration = Duration::from_secs(1);

/// Largest memory of an example: the thumbnail's starts with 32 MiB.
const MEMORY: ByteSize = ByteSize(64 << 20);

/// One example.
struct Example {
    name: &'static str,
    module: &'static [u8],
    routes: &'static [&'static str],
    /// What it finds in `/data`: names and contents.
    files: &'static [(&'static str, &'static str)],
    /// What comes behind `curl` and before the address.
    options: &'static str,
    /// What comes behind the address.
    target: &'static str,
    shows: &'static str,
}

const EXAMPLES: [Example; 14] = [
    Example {
        name: "hello",
        module: include_bytes!("../../../examples/hello/hello.wasm"),
        routes: &["/hello"],
        files: &[],
        options: "",
        target: "/hello?name=Ada",
        shows: "a greeting: the smallest function, in C",
    },
    Example {
        name: "counter",
        module: include_bytes!("../../../examples/counter/counter.wasm"),
        routes: &["/counter"],
        files: &[],
        options: "",
        target: "/counter",
        shows: "a global that every request counts up: always 1, for each instance is pristine",
    },
    Example {
        name: "json",
        module: include_bytes!("../../../examples/json/json.wasm"),
        routes: &["/json"],
        files: &[],
        options: r#"-d '[{"name":"bolt","price":0.25},{"name":"nut","price":1.5}]' "#,
        target: "/json?select=name,price&rename=price:cost&sum=price",
        shows: "a JSON array, its fields chosen, renamed and added up, in Rust",
    },
    Example {
        name: "markdown",
        module: include_bytes!("../../../examples/markdown/markdown.wasm"),
        routes: &["/markdown"],
        files: &[],
        options: "-d '# It *works*' ",
        target: "/markdown",
        shows: "Markdown to HTML",
    },
    Example {
        name: "thumbnail",
        module: include_bytes!("../../../examples/thumbnail/thumbnail.wasm"),
        routes: &["/thumbnail"],
        files: &[],
        options: "--data-binary @examples/thumbnail/expected/picture.png -o small.png ",
        target: "/thumbnail?width=32",
        shows: "a PNG made smaller: real work in a few milliseconds",
    },
    Example {
        name: "hmac",
        module: include_bytes!("../../../examples/hmac/hmac.wasm"),
        routes: &["/hmac"],
        files: &[],
        options: concat!(
            "-d hello -H 'x-signature: sha256=",
            "1ff29d10b18627c3bf450a2124f8160410bc9801c2fe8ce0572f0db9926dbeac' "
        ),
        target: "/hmac",
        shows: "a webhook's signature checked; change a digit of it, and the answer is 401",
    },
    Example {
        name: "notes",
        module: include_bytes!("../../../examples/notes/notes.wasm"),
        routes: &["/notes", "/notes/*"],
        files: &[],
        options: "",
        target: "/notes",
        shows: "a small application with several paths, HTML and JSON",
    },
    Example {
        name: "pass",
        module: include_bytes!("../../../examples/pass/pass.wasm"),
        routes: &["/pass"],
        files: &[],
        options: "-T README.md ",
        target: "/pass",
        shows: "a body of any size, sent back as it comes",
    },
    Example {
        name: "digest",
        module: include_bytes!("../../../examples/digest/digest.wasm"),
        routes: &["/digest"],
        files: &[],
        options: "-T README.md -X POST ",
        target: "/digest",
        shows: "a body of any size, hashed as it comes; a GET with ?bytes=N writes one",
    },
    Example {
        name: "events",
        module: include_bytes!("../../../examples/events/events.wasm"),
        routes: &["/events"],
        files: &[],
        options: "-N ",
        target: "/events?count=5&every=500",
        shows: "server-sent events, each sent when it is written",
    },
    Example {
        name: "component",
        module: include_bytes!("../../../examples/component/component.wasm"),
        routes: &["/component", "/component/*"],
        files: &[],
        options: "",
        target: "/component?a=b",
        shows: "a component of wasi:http, which knows no midge",
    },
    Example {
        name: "cgi",
        module: include_bytes!("../../../examples/cgi/cgi.wasm"),
        routes: &["/cgi", "/cgi/*"],
        files: &[],
        options: "-T README.md -X POST ",
        target: "/cgi",
        shows: "a program of WASI preview 1, with stdin and stdout, in the way of CGI",
    },
    Example {
        name: "lookup",
        module: include_bytes!("../../../examples/lookup/lookup.wasm"),
        routes: &["/lookup"],
        files: &[("ports.tsv", include_str!("../../../examples/lookup/data/ports.tsv"))],
        options: "",
        target: "/lookup?https",
        shows: "a program that reads a file of its own, packed with it",
    },
    Example {
        name: "work",
        module: include_bytes!("../../../examples/work/work.wasm"),
        routes: &["/work"],
        files: &[],
        options: "",
        target: "/work?us=1000&kib=256&pages=3",
        shows: "as much time and memory as it is told to take: a call of a trace",
    },
];

/// Runs the command.
///
/// # Errors
/// What keeps the host from starting, with what to do about it.
pub fn run(args: &DemoArgs, matches: &ArgMatches) -> Result<ExitCode> {
    let mut overrides = args.host.overrides(matches);
    // The demo prints for itself; its log is for what goes wrong.
    let quiet = Setting::default(crate::config::LogLevel::Warn);
    overrides.log_level.get_or_insert(quiet);
    let settings = settings(&overrides);
    start_host_log(&settings.log)?;
    if !args.json {
        output::complain("building the examples (once; an artifact would be mapped)\n");
    }
    let mut host = Host::start(&settings, &open)?;
    let signals = catch_signals()?;
    announce(&host, args.json)?;
    if !args.json {
        introduce(&host)?;
    }
    let mut meter = Meter::new(&host);
    until_stopped(
        &mut host,
        &signals,
        settings.drain_timeout.value,
        |_| (),
        |host| {
            if !args.json {
                meter.look(host);
            }
        },
    )?;
    if !args.json {
        meter.summary(&host)?;
    }
    host.stop()?;
    Ok(ExitCode::SUCCESS)
}

fn settings(overrides: &Overrides) -> Settings {
    let mut all: Option<Settings> = None;
    for example in &EXAMPLES {
        let mut one = Settings::of_one(Path::new(example.name), overrides);
        for function in &mut one.functions {
            let routes = example.routes.iter().map(|route| {
                Pattern::parse(route).expect("the examples' routes are well-formed: tested")
            });
            function.routes = Setting { value: routes.collect(), origin: Origin::Default };
            function.server_timing = Setting::default(true);
            function.memory = Setting::default(MEMORY);
        }
        match &mut all {
            Some(all) => all.functions.append(&mut one.functions),
            None => all = Some(one),
        }
    }
    all.expect("there are examples")
}

/// Builds an example by its name, which stands where a module's path would. Without a child process and its
/// limits: the examples are part of this program.
fn open(recipe: &Recipe<'_>, engines: &Engines, _limits: &BuildLimits) -> Result<Arc<Artifact>> {
    let example = EXAMPLES.iter().find(|example| Path::new(example.name) == recipe.module);
    let example = example.context("the demo's settings name its examples")?;
    let module = if example.files.is_empty() {
        example.module.into()
    } else {
        attach(example.module, &files::of_texts("/data", example.files)?)
    };
    let built = build_as(example.name, &module, recipe.form, engines)?;
    Ok(Artifact::from_bytes(&built.bytes, engines)?)
}

fn introduce(host: &Host) -> Result<()> {
    let address = host.places().internet().map_or_else(|| "localhost".into(), |at| at.to_string());
    let mut text = String::from("\n");
    for (example, deployed) in EXAMPLES.iter().zip(&host.deployment().functions) {
        let technique = deployed.function.technique();
        text += &format!("{} ({technique}): {}\n", example.name, example.shows);
        let Example { options, target, .. } = example;
        text += &format!("  curl {options}'http://{address}{target}'\n");
    }
    text += &format!(
        "\nEach response carries a Server-Timing header (curl -i). Health and metrics: http://{}/metrics\n",
        host.admin_address()
    );
    text += "A load to look at: wrk -c 64 -d 10 'http://ADDRESS/hello'. Ctrl-C ends the demo.\n\n";
    Ok(output::print(&text.replace("ADDRESS", &address))?)
}

/// Reads the counters from time to time.
struct Meter {
    at: Instant,
    last: Reading,
    first: Reading,
    /// The last reading while the workers lived: their CPU time goes with them.
    seen: Reading,
}

/// The counters at one moment.
#[derive(Clone)]
struct Reading {
    requests: u64,
    cpu: Duration,
    starts: [u64; Tier::ALL.len()],
    service: HistogramSnapshot,
}

impl Meter {
    fn new(host: &Host) -> Self {
        let reading = Reading::of(host);
        Self { at: Instant::now(), first: reading.clone(), seen: reading.clone(), last: reading }
    }

    fn look(&mut self, host: &Host) {
        let elapsed = self.at.elapsed();
        let now = Reading::of(host);
        if self.seen.cpu <= now.cpu {
            self.seen = now.clone();
        }
        if elapsed < LINE_EVERY {
            return;
        }
        if now.requests > self.last.requests {
            // Nobody reads any more: the demo goes on all the same.
            drop(output::print(&line(&now, &self.last, elapsed)));
        }
        self.at = Instant::now();
        self.last = now;
    }

    fn summary(&self, host: &Host) -> Result<()> {
        let now = Reading::of(host);
        let requests = now.requests - self.first.requests;
        let mut table = Table::new(&["tier", "starts"], output::stdout_is_colourful());
        for (tier, starts) in Tier::ALL.iter().zip(now.starts) {
            table.push(vec![
                Cell::new(tier.name(), Tone::Plain),
                Cell::new(starts.to_string(), Tone::Plain),
            ]);
        }
        let cpu = cpu_per_request(&self.seen, &self.first);
        output::print(&format!(
            "\n{requests} requests, {cpu:.2} us CPU each, service time p50 {:.1} us, p99 {:.1} us\n{table}",
            microseconds(now.service.quantile_ns(500)),
            microseconds(now.service.quantile_ns(990)),
        ))?;
        Ok(())
    }
}

impl Reading {
    fn of(host: &Host) -> Self {
        let stats: &Stats = host.stats();
        let mut service: Option<HistogramSnapshot> = None;
        for worker in stats.workers() {
            let own = worker.service_ns.snapshot();
            match &mut service {
                Some(sum) => sum.add(&own),
                None => service = Some(own),
            }
        }
        let count = stats.function_names().len();
        let starts = std::array::from_fn(|tier| {
            let sum = |function| stats.function_sum(function, |one| &one.starts[tier]);
            (0..count).map(sum).sum()
        });
        Self {
            requests: stats.workers().iter().map(|worker| worker.requests.get()).sum(),
            cpu: host.cpu_time(),
            starts,
            service: service.expect("a host has a worker"),
        }
    }
}

fn line(now: &Reading, last: &Reading, elapsed: Duration) -> String {
    let requests = now.requests - last.requests;
    let starts: Vec<String> = Tier::ALL
        .iter()
        .zip(now.starts.iter().zip(&last.starts))
        .filter(|(_, (now, last))| now > last)
        .map(|(tier, (now, last))| format!("{} {}", tier.name(), now - last))
        .collect();
    #[expect(clippy::cast_precision_loss, reason = "a rate for people")]
    let rate = requests as f64 / elapsed.as_secs_f64();
    format!(
        "{rate:>9.0} requests/s  {:>6.2} us CPU each  starts {}  service p50 {:.1} us, p99 {:.1} us\n",
        cpu_per_request(now, last),
        starts.join(", "),
        microseconds(now.service.quantile_ns(500)),
        microseconds(now.service.quantile_ns(990)),
    )
}

#[expect(clippy::cast_precision_loss, reason = "a quotient for people")]
fn cpu_per_request(now: &Reading, last: &Reading) -> f64 {
    let requests = (now.requests - last.requests).max(1);
    now.cpu.saturating_sub(last.cpu).as_secs_f64() * 1e6 / requests as f64
}

fn microseconds(ns: u64) -> f64 {
    Duration::from_nanos(ns).as_secs_f64() * 1e6
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_examples_have_settings() {
        let settings = settings(&Overrides::default());
        assert_eq!(settings.functions.len(), EXAMPLES.len());
        assert_eq!(settings.functions[6].routes.value.len(), 2);
    }
}
