//! A component, or a program of WASI preview 1, becomes one core module that follows the contract. So does a core
//! module with the names of the canonical ABI, which the tools would make a component of.
//!
//! ```text
//!   component --component::read--> core modules, in order, and where each import comes from
//!                                     | merge::merge, with the WASI module (`wasi/`)
//!                                     v
//!   one core module: memory 0 "memory" is the WASI module's, memory 1 the guest's
//! ```
//!
//! From there on it is a module like any other: its start-up is run once, its state taken as a snapshot, each
//! instance restored. Handles, streams and buffers lie in memory 0, which the guest cannot reach; what the
//! canonical ABI asks for is checked by code inside the sandbox ([decision 028](../../docs/decisions)).
//!
//! What cannot be held so is refused with a reason: resources of a component's own that others call, calls
//! between components, asynchronous lifts, strings that are not UTF-8, more than one memory.

#[path = "link/component.rs"] // said, for the fuzzer includes this file from elsewhere
mod component; // what a component is made of
#[path = "link/merge.rs"]
mod merge; // many modules made one

use wasmparser::{Parser, Validator, WasmFeatures};

use crate::module::{FEATURES, MODULE_BYTES_MAX, ModuleError};

/// The module that offers WASI, made of `wasi/` by `cargo xtask guests wasi`.
const WASI: &[u8] = include_bytes!("link/wasi.wasm");

/// Why a component cannot be linked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LinkError {
    /// Not valid.
    #[error("component is not valid at offset {offset:#x}: {message}")]
    Invalid {
        /// Byte offset of the first fault.
        offset: usize,
        /// What the validator says.
        message: String,
    },
    /// An import that is not WASI 0.2.
    #[error(
        "component imports `{name}`, which this host does not offer; it offers wasi:http, wasi:io, wasi:cli, \
             wasi:clocks and wasi:random in version 0.2"
    )]
    UnknownImport {
        /// The import.
        name: String,
    },
    /// A function with another type than WASI's.
    #[error("component imports `{name}` with another type than WASI 0.2 has")]
    ImportType {
        /// The import.
        name: String,
    },
    /// Nothing that a request could be given to.
    #[error(
        "component exports {exports}; to be served it must export `wasi:http/incoming-handler@0.2` or \
             `wasi:cli/run@0.2`"
    )]
    NoHandler {
        /// What it exports.
        exports: String,
    },
    /// Something that linking does not hold.
    #[error("component has {what}, which this host does not run")]
    Unsupported {
        /// What it has.
        what: String,
    },
    /// More than is read.
    #[error("component has more than {limit} {what}")]
    TooMany {
        /// Of what.
        what: &'static str,
        /// The limit.
        limit: usize,
    },
}

impl From<wasmparser::BinaryReaderError> for LinkError {
    fn from(error: wasmparser::BinaryReaderError) -> Self {
        Self::Invalid { offset: error.offset(), message: error.message().to_owned() }
    }
}

fn unsupported(what: impl Into<String>) -> LinkError {
    LinkError::Unsupported { what: what.into() }
}

/// True if the bytes are to be linked: a component, a program of WASI preview 1, or a core module that a
/// component would be made of.
#[must_use]
pub fn is_linked(bytes: &[u8]) -> bool {
    Parser::is_component(bytes) || component::entry_of_module(bytes).is_some()
}

/// Links a component or a program into a core module that follows the contract.
///
/// # Errors
/// [`LinkError`] says what cannot be held; [`ModuleError::TooLarge`] for too large a file.
pub fn link(bytes: &[u8]) -> Result<Vec<u8>, ModuleError> {
    if bytes.len() > MODULE_BYTES_MAX {
        return Err(ModuleError::TooLarge { found_bytes: bytes.len() });
    }
    Ok(link_checked(bytes)?)
}

fn link_checked(bytes: &[u8]) -> Result<Vec<u8>, LinkError> {
    let features = FEATURES.union(WasmFeatures::COMPONENT_MODEL);
    Validator::new_with_features(features).validate_all(bytes)?;
    let component = match component::entry_of_module(bytes) {
        Some(entry) if !Parser::is_component(bytes) => component::read_module(bytes, entry)?,
        _ => component::read(bytes)?,
    };
    merge::merge(WASI, &component)
}
