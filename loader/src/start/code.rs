//! How code is loaded: compiled, copied, or bound where it is mapped.
#![expect(
    unsafe_code,
    reason = "the engine trusts precompiled code; the safe faces are `load_module` and `load_component`"
)]

use std::sync::Arc;

use wasmtime::Module;
use wasmtime::component::Component;

use crate::artifact::{Artifact, MappedCode};
use crate::engine::GuestEngine;
use crate::instance::StartError;
use crate::start::Technique;

/// A module, and the mapping that its code lies in if that is its own.
pub(crate) struct LoadedCode {
    /// The module.
    pub(crate) module: Module,
    /// To be kept as long as the module.
    pub(crate) mapping: Option<Arc<MappedCode>>,
}

/// Loads an artifact's code for a technique.
///
/// # Errors
/// [`StartError::Code`]; [`StartError::Export`] names the section that is missing.
pub(crate) fn load_module(
    artifact: &Artifact,
    technique: Technique,
    engine: &GuestEngine,
) -> Result<LoadedCode, StartError> {
    match technique {
        Technique::Jit | Technique::Cow | Technique::Pool | Technique::PoolScan => {
            let module = artifact.module().map_err(wasmtime::Error::from);
            let module = module.and_then(|module| Module::new(&engine.engine, &module));
            Ok(LoadedCode { module: module.map_err(StartError::Code)?, mapping: None })
        }
        Technique::Aot => {
            let code = artifact.code().ok_or_else(no_code)?;
            // SAFETY: the bytes are the engine's own output: `build.rs` made them, `artifact.rs` found
            // every hash to match, and the artifact was built for this very engine. That its author is
            // trusted is the artifact's contract.
            let module = unsafe { Module::deserialize(&engine.engine, code) };
            Ok(LoadedCode { module: module.map_err(StartError::Code)?, mapping: None })
        }
        Technique::Mmap => {
            let (module, mapping) = bind(artifact, engine)?;
            Ok(LoadedCode { module, mapping: Some(mapping) })
        }
        Technique::Restore | Technique::Reuse => {
            if let Some(module) = artifact.shared_module() {
                return Ok(LoadedCode { module: module.clone(), mapping: None });
            }
            let (module, mapping) = bind(artifact, engine)?;
            Ok(LoadedCode { module: artifact.share(module, mapping), mapping: None })
        }
    }
}

/// Loads a component's code, by copying it.
///
/// # Errors
/// As [`load_module`].
pub(crate) fn load_component(
    artifact: &Artifact,
    engine: &GuestEngine,
) -> Result<Component, StartError> {
    let code = artifact.code().ok_or_else(no_code)?;
    // SAFETY: as for `aot`.
    let component = unsafe { Component::deserialize(&engine.engine, code) };
    component.map_err(StartError::Code)
}

fn bind(
    artifact: &Artifact,
    engine: &GuestEngine,
) -> Result<(Module, Arc<MappedCode>), StartError> {
    let mapping = artifact.map_code().map_err(|error| StartError::Code(error.into()))?;
    let mapping = mapping.ok_or_else(no_code)?;
    // SAFETY: as for `aot`; and the mapping is private, never written and new, so it carries this module
    // alone. It lives as long as the module: the artifact keeps both, or the instance does (`Instance`).
    let module = unsafe { Module::deserialize_raw(&engine.engine, mapping.code()) };
    Ok((module.map_err(StartError::Code)?, mapping))
}

fn no_code() -> StartError {
    StartError::Export("section code".to_owned())
}
