//! A component as the engine's own component runtime runs it: for what linking does not hold (`link.rs`), and for
//! WASI 0.3.
//!
//! ```text
//!   link --refused--> component::build --> artifact with the component, compiled
//!                                            | load: imports bound
//!                                            v
//!   each request: a new store and a new instance, in the engine's pool; its WASI is the engine's crates'
//! ```
//!
//! Slower than a restore by an order of magnitude, and as sound: nothing is kept between requests. To its embedder such
//! a call is like any other: it takes the request out of a memory, waits by the same asks and leaves its response in
//! that memory (`staging.rs`), so deadlines, slices, streaming, grants and limits are the same code.
//!
//! Not here: programs (`wasi:cli/run`), files, and what the engine compiles only with features that we do not build.

mod clock; // deadlines, and clocks that are waited for at the desk
mod context; // what a store has
mod desk; // what a call wants, collected
mod drive; // a call, from its request to its response
mod exchange; // the handler's call, of either version
mod fetch; // requests to other servers
mod request; // the request, read out of its block
mod staging; // the memory that bytes are exchanged in

use std::ptr::NonNull;
use std::sync::Arc;

use midge_abi::contract;
use midge_abi::manifest::{CodeForm, Manifest, StateClasses, Traces};
use wasmparser::{Validator, WasmFeatures};
use wasmtime::Engine;
use wasmtime::component::{Component, InstancePre};
use wasmtime_wasi_http::p2::bindings::ProxyPre;
use wasmtime_wasi_http::p3::bindings::ServicePre;

pub(crate) use context::ComponentContext;

use crate::artifact::Artifact;
use crate::build::{self, BuildError, Built};
use crate::container::{SectionKind, encode};
use crate::context::{InstanceLimits, Services};
use crate::engine::{EngineKind, Engines, GuestEngine};
use crate::instance::StartError;
use crate::module::{FEATURES, ModuleFacts};
use crate::wait::AskCell;

use exchange::Handler;
use staging::Staging;

/// What binds a component's imports.
pub(crate) type Linker = wasmtime::component::Linker<ComponentContext>;

/// Binds everything that is offered, of both versions of WASI.
pub(crate) fn linker(engine: &Engine) -> wasmtime::Result<Linker> {
    let mut linker = Linker::new(engine);
    wasmtime_wasi::p2::add_to_linker_async(&mut linker)?;
    wasmtime_wasi::p3::add_to_linker(&mut linker)?;
    wasmtime_wasi_http::p2::add_only_http_to_linker_async(&mut linker)?;
    wasmtime_wasi_http::p3::add_to_linker(&mut linker)?;
    clock::add_to_linker(&mut linker)?;
    Ok(linker)
}

/// Builds the artifact of a component that was not linked, and says why it was not.
///
/// # Errors
/// [`BuildError::Component`] with both reasons.
pub(crate) fn build(
    source_name: &str,
    source: &[u8],
    form: CodeForm,
    engines: &Engines,
    refused: &str,
) -> Result<Built, BuildError> {
    let by_engine = |source| BuildError::Component { refused: refused.to_owned(), source };
    let (bytes, files) = crate::link::detach(source);
    let binary = wat::parse_bytes(bytes).map_err(|error| by_engine(error.into()))?;
    let features = FEATURES.union(WasmFeatures::COMPONENT_MODEL).union(WasmFeatures::CM_ASYNC);
    let valid = Validator::new_with_features(features).validate_all(&binary);
    valid.map_err(|error| by_engine(error.into()))?;
    if form.needs_template() {
        return Err(BuildError::FormWithoutTemplate);
    }
    if !files.is_empty() {
        return Err(BuildError::ComponentFiles { refused: refused.to_owned() });
    }
    let engine = engines.get(EngineKind::Component, Traces::Functions)?;
    let component = Component::new(&engine.engine, &binary).map_err(by_engine)?;
    handler(&engine, &component).map_err(by_engine)?;
    let code = component.serialize().map_err(by_engine)?;
    let imports = component.component_type();
    let imports = imports.imports(&engine.engine).map(|(name, _)| name.to_owned()).collect();
    let manifest = Manifest {
        source_name: source_name.to_owned(),
        source_hash: *blake3::hash(source).as_bytes(),
        contract: contract::VERSION,
        area: staging::AREA,
        area_size: staging::AREA_BYTES,
        memories: Vec::new(),
        globals: Vec::new(),
        state: StateClasses::default(),
        is_preinitialised: false,
        imports,
        exports: Vec::new(),
        table_count: 0,
        engine_name: build::ENGINE_NAME.to_owned(),
        machine: engines.processor().machine(),
        isolation: form.isolation,
        metering: form.metering,
        files: None,
        scratch: None,
        unlinked: Some(refused.to_owned()),
        traces: Traces::Functions,
    };
    let sections = [
        build::section(SectionKind::Manifest, build::manifest(&manifest)?),
        build::section(SectionKind::Code, code),
    ];
    let bytes = encode(engine.id().0, &sections);
    let facts = ModuleFacts::of_component(binary.len());
    let no_lines = matches!(form.traces, Traces::Lines)
        .then(|| "the engine's component runtime runs it, whose traps tell functions".to_owned());
    Ok(Built { bytes, manifest, facts, startup_log: Vec::new(), no_lines })
}

/// Binds a component's imports, and finds what answers requests.
fn handler(engine: &GuestEngine, component: &Component) -> wasmtime::Result<Handler> {
    let linker = engine.components.as_ref().expect("it is an engine for components");
    let pre: InstancePre<ComponentContext> = linker.instantiate_pre(component)?;
    match ServicePre::new(pre.clone()) {
        Ok(service) => Ok(Handler::Service(service)),
        Err(_) => Ok(Handler::Incoming(ProxyPre::new(pre)?)),
    }
}

/// A component, ready to be called.
pub(crate) struct Loaded {
    handler: Arc<Handler>,
    engine: Engine,
}

impl Loaded {
    /// Loads the component of an artifact.
    pub(crate) fn load(artifact: &Artifact, engine: &GuestEngine) -> Result<Self, StartError> {
        let component = crate::start::load_component(artifact, engine)?;
        let handler = handler(engine, &component).map_err(StartError::Code)?;
        Ok(Self { handler: Arc::new(handler), engine: engine.engine.clone() })
    }

    /// Makes what serves one request. Its instance is made with the call, whose deadline bounds that too.
    pub(crate) fn start(
        &self,
        services: Arc<dyn Services>,
        limits: InstanceLimits,
        asks: Arc<AskCell>,
    ) -> Served {
        let (handler, engine) = (Arc::clone(&self.handler), self.engine.clone());
        Served { staging: Staging::new(), handler, engine, services, limits, asks }
    }
}

/// What serves one request.
pub(crate) struct Served {
    staging: Staging,
    handler: Arc<Handler>,
    engine: Engine,
    services: Arc<dyn Services>,
    limits: InstanceLimits,
    asks: Arc<AskCell>,
}

impl Served {
    /// Returns the address of the memory that requests are written to; it lives as long as `self`, and never moves.
    pub(crate) fn memory_base(&self) -> NonNull<u8> {
        self.staging.base()
    }

    /// Returns its size.
    pub(crate) fn memory_bytes(&self) -> usize {
        self.staging.size()
    }
}
