//! `midge serve` and `midge run`: serve until a signal ends it.

use std::process::ExitCode;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use clap::ArgMatches;
use midge_net::Networks;
use serde::Serialize;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use crate::cli::{FormArgs, RunArgs, ServeArgs};
use crate::config::keys::SLOTS_OF_WAITING;
use crate::config::{
    Complaints, ConfigError, Mappings, Origin, ScratchFolder, Setting, Settings, counted,
};
use crate::deployment::open;
use crate::grant::Grant;
use crate::host::Host;
use crate::log::{remote, start_host_log};
use crate::notify::{self, Notify};
use crate::output::{self, Failure};
use crate::syslog::Severity;

/// How often the end of workers is looked at while nothing else happens.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// Version of the JSON object.
const SCHEMA: &str = "midge/serve/1";

#[derive(Debug, Serialize)]
struct Ready<'a> {
    schema: &'static str,
    listen: String,
    listeners: Vec<String>,
    admin: String,
    cpus: Vec<usize>,
    ring_tier: &'a str,
    functions: Vec<ReadyFunction<'a>>,
}

#[derive(Debug, Serialize)]
struct ReadyFunction<'a> {
    name: &'a str,
    technique: &'static str,
    reason: &'a str,
}

/// Runs `midge serve`.
///
/// # Errors
/// The settings cannot be read, the host cannot start, or a worker ended by itself.
pub fn run(args: &ServeArgs, matches: &ArgMatches) -> Result<ExitCode> {
    let overrides = args.host.overrides(matches);
    let load = || Settings::load(&args.file, &overrides).map_err(refused);
    let settings = load()?;
    start_host_log(&settings.log)?;
    serve(&settings, Some(&load), args.json)
}

/// Runs `midge run`.
///
/// # Errors
/// As [`run`].
pub fn run_one(args: &RunArgs, matches: &ArgMatches) -> Result<ExitCode> {
    let mut settings = Settings::of_one(&args.file, &args.host.overrides(matches));
    settings.traces = args.form.form().traces;
    for function in &mut settings.functions {
        function.technique = Setting { value: args.technique, origin: Origin::Flag("--technique") };
        let FormArgs { isolation, metering, .. } = args.form;
        function.isolation = Setting { value: isolation, origin: Origin::Flag("--isolation") };
        function.metering = Setting { value: metering, origin: Origin::Flag("--metering") };
        function.fuel = Setting { value: args.fuel, origin: Origin::Flag("--fuel") };
        let networks = args.grant_network.iter().map(String::as_str);
        let networks = Networks::parse(networks).context("the networks were read before")?;
        let grant = Grant { http: args.grant_http.clone(), networks };
        if !grant.is_empty() {
            function.slots = Setting::default(SLOTS_OF_WAITING.min(function.concurrency.value));
        }
        function.grant = Setting { value: grant, origin: Origin::Flag("--grant-http") };
        function.files =
            Setting { value: Mappings(args.files.files.clone()), origin: Origin::Flag("--files") };
        let scratch = ScratchFolder(args.files.scratch.clone());
        function.scratch = Setting { value: scratch, origin: Origin::Flag("--scratch") };
    }
    start_host_log(&settings.log)?;
    serve(&settings, None, args.json)
}

fn serve(
    settings: &Settings,
    reread: Option<&dyn Fn() -> Result<Settings>>,
    is_json: bool,
) -> Result<ExitCode> {
    let served = serve_all(settings, reread, is_json);
    if let Err(error) = &served {
        remote::tell(Severity::Error, &output::error_text(error));
    }
    remote::flush();
    served
}

fn serve_all(
    settings: &Settings,
    reread: Option<&dyn Fn() -> Result<Settings>>,
    is_json: bool,
) -> Result<ExitCode> {
    let mut host = Host::start(settings, &open)?;
    let signals = catch_signals()?;
    let mut notify = Notify::from_environment().context("cannot speak to NOTIFY_SOCKET")?;
    announce(&host, is_json)?;
    notify.tell(notify::READY);
    let reloaded = |host: &mut Host| {
        let Some(reread) = reread else {
            return tracing::warn!("SIGHUP: there is no settings file to read again");
        };
        match reread().and_then(|settings| host.reload(&settings, &open)) {
            Ok(()) => tracing::info!("SIGHUP: serving the settings as they are now"),
            Err(error) => tracing::error!("SIGHUP: everything stays as it was: {error:#}"),
        }
    };
    until_stopped(&mut host, &signals, settings.drain_timeout.value, reloaded, |_| {
        notify.is_alive();
    })?;
    notify.tell(notify::STOPPING);
    host.stop()?;
    tracing::info!("stopped");
    Ok(ExitCode::SUCCESS)
}

/// Says what is served and where: to the log, or as one JSON object on stdout.
///
/// # Errors
/// Those of stdout.
pub fn announce(host: &Host, is_json: bool) -> Result<()> {
    for deployed in &host.deployment().functions {
        let technique = deployed.function.technique().name();
        tracing::info!(function = deployed.name, technique, "ready: {}", deployed.reason);
    }
    let workers = counted(host.cpus().count(), "worker");
    let (places, admin) = (host.places(), host.admin_address());
    let tier = host.ring_tier();
    tracing::info!(
        "serving on {places} with {workers} on {} (tier {tier}); admin on http://{admin}",
        tier.description()
    );
    if !is_json {
        return Ok(());
    }
    let functions = host.deployment().functions.iter().map(|deployed| ReadyFunction {
        name: &deployed.name,
        technique: deployed.function.technique().name(),
        reason: &deployed.reason,
    });
    output::print_json(&Ready {
        schema: SCHEMA,
        listen: places.addresses().next().unwrap_or_default(),
        listeners: places.addresses().collect(),
        admin: admin.to_string(),
        cpus: host.cpus().collect(),
        ring_tier: host.ring_tier().name(),
        functions: functions.collect(),
    })?;
    Ok(())
}

/// Returns the failure of settings that cannot be served.
#[must_use]
pub fn refused(error: ConfigError) -> anyhow::Error {
    match error {
        ConfigError::Source(error) => super::check::unreadable(error).into(),
        ConfigError::Faults(complaints) => faults(&complaints).into(),
    }
}

fn faults(complaints: &Complaints) -> Failure {
    let count = counted(complaints.count(), "fault");
    Failure {
        what: format!("the settings have {count}"),
        next: "midge check shows each with its place and what to write instead".to_owned(),
        is_usage: false,
        cause: None,
    }
}

/// Waits for signals: the first SIGTERM or SIGINT drains, the second stops, SIGHUP calls `reloaded`. Calls
/// `looked` each time nothing happened for a moment.
///
/// # Errors
/// A worker that ended by itself.
pub fn until_stopped(
    host: &mut Host,
    signals: &mpsc::Receiver<i32>,
    drain_timeout: Duration,
    mut reloaded: impl FnMut(&mut Host),
    mut looked: impl FnMut(&mut Host),
) -> Result<()> {
    let mut drain_until: Option<Instant> = None;
    let mut left = host.cpus().count();
    loop {
        match signals.recv_timeout(LOOK_EVERY) {
            Ok(SIGHUP) => reloaded(host),
            Ok(signal) if drain_until.is_none() => {
                tracing::info!("signal {signal}: draining for at most {drain_timeout:?}");
                host.drain();
                drain_until = Some(Instant::now() + drain_timeout);
            }
            Ok(_) => return Ok(()),
            Err(_) => looked(host),
        }
        while let Ok(ended) = host.ended().try_recv() {
            left -= 1;
            ended.result.with_context(|| format!("worker {} failed", ended.worker))?;
            anyhow::ensure!(drain_until.is_some(), "worker {} ended by itself", ended.worker);
        }
        match drain_until {
            Some(_) if left == 0 => return Ok(()),
            Some(until) if until <= Instant::now() => {
                tracing::warn!("{left} workers have requests left after {drain_timeout:?}");
                return Ok(());
            }
            _ => {}
        }
    }
}

/// Catches the signals of [`until_stopped`] from now on: before anybody is told that the host is ready, for
/// whoever was told may send one at once, and one that is not caught ends the process.
///
/// # Errors
/// Those of the system.
pub fn catch_signals() -> Result<mpsc::Receiver<i32>> {
    let mut signals = Signals::new([SIGINT, SIGTERM, SIGHUP]).context("cannot catch signals")?;
    let (sender, receiver) = mpsc::channel();
    std::thread::Builder::new()
        .name("midge-signal".into())
        .spawn(move || {
            for signal in signals.forever() {
                if sender.send(signal).is_err() {
                    return;
                }
            }
        })
        .context("cannot start the thread for signals")?;
    Ok(receiver)
}
