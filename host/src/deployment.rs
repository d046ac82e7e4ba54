//! What is served: the functions, loaded, and the routes to them. A snapshot that is swapped whole.
//!
//! Everything that can fail or take long (reading, building, compiling) happens here, on the main thread.
//! A worker gets a deployment that is complete, and keeps it until it gets the next.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use anyhow::{Context, Result};
use midge_abi::manifest::{Isolation, Manifest};
use midge_loader::artifact::{Artifact, is_artifact};
use midge_loader::engine::Engines;
use midge_loader::function::{Function, FunctionLimits};
use midge_loader::start::Technique;
use midge_loader::start::choose::{Choice, Machine, check, choose};
use rustls::ClientConfig;

use crate::certificates;
use crate::compile::{self, Recipe};
use crate::config::{self, BuildLimits, Methods, Settings};
use crate::deadline::CoarseClock;
use crate::extras::Extras;
use crate::files::Folder;
use crate::files::pool::Pool;
use crate::forwarded::Clients;
use crate::grant::Grant;
use crate::log::GuestLog;
use crate::output::printable;
use crate::route::{FunctionIndex, RouteTable};
use crate::services::{HostServices, RandomKey};

/// All functions and routes.
#[derive(Debug)]
pub struct Deployment {
    /// The routes.
    pub routes: RouteTable,
    /// The functions; a [`FunctionIndex`] is a position here.
    pub functions: Vec<Deployed>,
    /// Slots that lie idle on one worker at most, of all functions; `None` where all that they ask for fit.
    pub idle_max: Option<usize>,
    /// The folders of files; their indices follow the functions'.
    pub folders: Vec<Arc<Folder>>,
    /// The threads that wait for disks and make responses smaller, where that is asked for.
    pub pool: Option<Pool>,
    /// The threads that wait for name servers, where requests to other servers are granted: of their own, for a
    /// name server that is silent must hold up no file.
    pub names: Option<Pool>,
    /// How a client's address is found, if not by the connection alone.
    pub clients: Option<Clients>,
    /// How outgoing requests are made by TLS, where any is granted.
    pub tls: Option<Arc<ClientConfig>>,
}

/// One function with its limits.
#[derive(Debug)]
pub struct Deployed {
    /// Its name.
    pub name: String,
    /// The function.
    pub function: Arc<Function>,
    /// Why it has its technique.
    pub reason: String,
    /// The methods it answers.
    pub methods: Methods,
    /// Time for one call.
    pub deadline: Duration,
    /// Longest request body.
    pub body_bytes_max: usize,
    /// Longest request body of a function that reads it piece by piece.
    pub stream_bytes_max: u64,
    /// Longest that a call may last, waiting included.
    pub stream_time: Duration,
    /// Longest response body.
    pub response_bytes_max: usize,
    /// Calls in flight on one worker.
    pub concurrency: u32,
    /// Slots that one worker keeps, as long as all of them fit.
    pub slots: u32,
    /// A Server-Timing header on responses.
    pub has_server_timing: bool,
    /// Its responses are made smaller.
    pub compresses: bool,
    /// Its arguments and environment.
    pub extras: Extras,
    /// What it may reach.
    pub grant: Arc<Grant>,
}

impl Deployed {
    /// Returns the size of the longest body that the function takes.
    #[must_use]
    pub fn body_limit(&self) -> u64 {
        if self.function.reads_body() { self.stream_bytes_max } else { self.body_bytes_max as u64 }
    }
}

/// Finds the artifact of a module by its path.
pub type Open<'a> = &'a dyn Fn(&Recipe<'_>, &Engines, &BuildLimits) -> Result<Arc<Artifact>>;

/// What all functions of a host share.
#[derive(Clone)]
pub struct Shared {
    /// The engines.
    pub engines: Arc<Engines>,
    /// The clock.
    pub clock: CoarseClock,
    /// The key of random bytes.
    pub key: RandomKey,
    /// The threads that wait for disks, once there are folders of files.
    pub files: OnceLock<Pool>,
    /// The threads that wait for name servers, once anything is granted.
    pub names: OnceLock<Pool>,
}

impl Shared {
    /// Returns the threads that wait for disks; starts them for the first who asks.
    ///
    /// # Errors
    /// If no thread can be had.
    pub fn pool(&self) -> Result<Pool> {
        started(&self.files, "files")
    }

    /// The same of those that wait for name servers.
    ///
    /// # Errors
    /// If no thread can be had.
    pub fn names(&self) -> Result<Pool> {
        started(&self.names, "names")
    }
}

fn started(pool: &OnceLock<Pool>, name: &str) -> Result<Pool> {
    if let Some(pool) = pool.get() {
        return Ok(pool.clone());
    }
    let made = Pool::start(name).with_context(|| format!("cannot start threads for {name}"))?;
    Ok(pool.get_or_init(|| made).clone())
}

impl Deployment {
    /// Loads every function of the settings; `open` finds their modules.
    ///
    /// # Errors
    /// The first function that cannot be served, by name.
    pub fn load(
        settings: &Settings,
        shared: &Shared,
        log: &GuestLog,
        open: Open<'_>,
    ) -> Result<Self> {
        let mut functions = Vec::with_capacity(settings.functions.len());
        let mut opened = HashMap::new();
        let machine = Machine::of_this_process();
        for (function, index) in settings.functions.iter().zip(0..) {
            let name = &function.name.value;
            let recipe = Recipe::of(function, settings.traces);
            let module = opened_once(&mut opened, recipe, || {
                open(&recipe, &shared.engines, &settings.build)
            });
            let deployed = module
                .and_then(|module| {
                    deploy(function, FunctionIndex(index), module, shared, machine, log)
                })
                .with_context(|| format!("cannot serve function `{name}`"))?;
            functions.push(deployed);
        }
        let folder = |files: &config::Static| {
            let (name, path) = (&files.name.value, files.folder.value.display());
            let opened = Folder::open(files);
            opened.with_context(|| format!("cannot serve `{name}`: folder `{path}`")).map(Arc::new)
        };
        let folders = settings.statics.iter().map(folder).collect::<Result<Vec<_>>>()?;
        let compresses = functions.iter().any(|deployed: &Deployed| deployed.compresses);
        let mut grants = functions.iter().map(|deployed| &deployed.grant);
        let needs_tls = grants.clone().any(|grant| grant.needs_tls());
        let needs_names = grants.any(|grant| !grant.is_empty());
        let needs_pool = compresses || !folders.is_empty();
        let authorities = settings.certificates.value.as_deref();
        let trusted = settings.trusted_proxies.value.clone();
        Ok(Self {
            routes: RouteTable::new(settings.targets()),
            functions,
            idle_max: None,
            pool: needs_pool.then(|| shared.pool()).transpose()?,
            names: needs_names.then(|| shared.names()).transpose()?,
            folders,
            clients: Clients::new(settings.client_address.value, trusted),
            tls: needs_tls.then(|| certificates::config(authorities)).transpose()?,
        })
    }
}

/// A module that functions of the settings name, and what was tried with it.
struct Opened {
    artifact: Arc<Artifact>,
    /// With which technique and memory an instance was started.
    started: Vec<(Technique, usize)>,
}

/// Modules by where they are and how they are isolated. However many functions name one, it is opened, checked and
/// compiled once, and they share its code and its template: each of its own would take a descriptor, six mappings
/// and 50 KiB, so that 20 000 functions were the most.
type Modules<'a> = HashMap<Recipe<'a>, Opened>;

fn opened_once<'a, 'm>(
    modules: &'m mut Modules<'a>,
    recipe: Recipe<'a>,
    open: impl FnOnce() -> Result<Arc<Artifact>>,
) -> Result<&'m mut Opened> {
    match modules.entry(recipe) {
        Entry::Occupied(entry) => Ok(entry.into_mut()),
        Entry::Vacant(entry) => Ok(entry.insert(Opened { artifact: open()?, started: Vec::new() })),
    }
}

fn deploy(
    settings: &config::Function,
    index: FunctionIndex,
    module: &mut Opened,
    shared: &Shared,
    machine: Machine,
    log: &GuestLog,
) -> Result<Deployed> {
    let artifact = &module.artifact;
    let isolation = artifact.manifest().isolation;
    anyhow::ensure!(
        settings.isolation.value == Isolation::GuardPages || isolation == Isolation::BoundsChecked,
        "its artifact is isolated by guard pages alone; build it anew: midge build {} --isolation \
         bounds-checked",
        artifact.manifest().source_name,
    );
    let metering = artifact.manifest().metering;
    anyhow::ensure!(
        settings.metering.value == metering,
        "its artifact is metered by {metering}, and the setting says {}; build it anew: midge build {} \
         --metering {}",
        settings.metering.value,
        artifact.manifest().source_name,
        settings.metering.value,
    );
    let choice = choice(settings.technique.value, artifact, machine)?;
    let services = Arc::new(HostServices {
        function: index,
        clock: shared.clock.clone(),
        key: shared.key.clone(),
        log: log.clone(),
    });
    let limits = FunctionLimits {
        memory_bytes_max: settings.memory.value.bytes(),
        fuel: settings.fuel.value.into(),
    };
    let needed = needed_bytes(artifact.manifest());
    anyhow::ensure!(
        needed <= limits.memory_bytes_max as u64,
        "its memory starts with {needed} bytes, more than its limit of {}; raise `memory`",
        limits.memory_bytes_max,
    );
    let engines = &shared.engines;
    let function = Function::register(artifact, choice.technique, engines, services, limits)?;
    // One instance is started here, so that what cannot start is found before the first request.
    let tried = (choice.technique, limits.memory_bytes_max);
    if !module.started.contains(&tried) {
        drop(function.start().context("no instance can be started")?);
        module.started.push(tried);
    }
    let body = settings.body.value.bytes();
    Ok(Deployed {
        name: settings.name.value.clone(),
        reason: choice.reason,
        methods: settings.methods.value,
        deadline: settings.deadline.value,
        body_bytes_max: body.min(function.area_bytes()),
        stream_bytes_max: settings.stream_body.value.0,
        stream_time: settings.stream_time.value,
        response_bytes_max: settings.response.value.bytes(),
        concurrency: settings.concurrency.value,
        slots: settings.slots.value,
        has_server_timing: settings.server_timing.value,
        compresses: settings.compress.value,
        extras: Extras::new(&settings.arguments.value.0, &settings.environment.value.0)?,
        grant: Arc::new(settings.grant.value.clone()),
        function: Arc::new(function),
    })
}

/// Returns the size of the largest memory at the start. Files do not count: they do not grow, and are shared.
fn needed_bytes(manifest: &Manifest) -> u64 {
    let with_files = manifest.files.as_ref().map(|files| files.start);
    let (first, others) = manifest.memories.split_at(manifest.memories.len().min(1));
    let first = first.iter().map(|memory| with_files.unwrap_or(memory.bytes));
    first.chain(others.iter().map(|memory| memory.bytes)).max().unwrap_or(0)
}

/// Opens an artifact, or builds one in memory from a module, isolated as asked and within limits.
///
/// # Errors
/// What the loader refuses, with the path.
pub fn open(recipe: &Recipe<'_>, engines: &Engines, limits: &BuildLimits) -> Result<Arc<Artifact>> {
    let path = recipe.module;
    let shown = path.display();
    if is_artifact(path).with_context(|| format!("cannot read `{shown}`"))? {
        recipe.refuse_files()?;
        return Artifact::open(path, engines).with_context(|| format!("cannot open `{shown}`"));
    }
    let compiled = compile::of_file(recipe, limits)?;
    if let Some(reason) = compiled.no_lines {
        tracing::info!("traps of `{shown}` tell no lines: {}", printable(&reason));
    }
    Ok(Artifact::from_bytes(&compiled.artifact, engines)?)
}

/// Returns the technique that a module gets.
///
/// # Errors
/// If one was asked for by name that the module may not use.
pub fn choice(asked: config::Technique, artifact: &Artifact, machine: Machine) -> Result<Choice> {
    let Some(technique) = asked.loader() else {
        return Ok(choose(artifact.manifest(), machine));
    };
    check(technique, artifact.manifest(), machine)?;
    let isolation = if technique.is_isolating() { "" } else { ": no isolation between requests" };
    Ok(Choice { technique, reason: format!("asked for by name{isolation}") })
}
