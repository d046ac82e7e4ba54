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
//! What cannot be held so is refused with a reason, and run by the engine's component runtime (`component.rs`):
//! resources of a component's own that others call, calls between components, asynchronous functions, WASI 0.3,
//! strings that are not UTF-8, more than one memory.

#[path = "link/component.rs"] // said, for the fuzzer includes this file from elsewhere
mod component; // what a component is made of
#[path = "link/merge.rs"]
mod merge; // many modules made one

use std::ops::Range;

use midge_abi::manifest::{FilesRow, FolderRow, ScratchRow};
use midge_wasi::pack::{self, Contents, PackError, Summary};
use wasm_encoder::{ComponentSection, CustomSection};
use wasmparser::{BinaryReader, Parser, Validator, WasmFeatures};

use self::component::CoreInstance;
use self::merge::Merged;
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
        "component imports `{name}`, which linking does not offer; it offers wasi:http, wasi:io, wasi:cli, \
             wasi:clocks, wasi:random and wasi:filesystem in version 0.2"
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
        "component exports {exports}; to be served it must export `wasi:http/incoming-handler@0.2`, \
             `wasi:http/handler@0.3` or `wasi:cli/run@0.2`"
    )]
    NoHandler {
        /// What it exports.
        exports: String,
    },
    /// Something that linking does not hold.
    #[error("component has {what}, which cannot be linked")]
    Unsupported {
        /// What it has.
        what: String,
    },
    /// Files for it that are no bundle.
    #[error("its files are no bundle of this version of midge: {reason}")]
    Files {
        /// What is wrong with them.
        reason: String,
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

impl LinkError {
    /// True if there is nothing in it that requests could be given to.
    pub(crate) const fn has_no_handler(&self) -> bool {
        matches!(self, Self::NoHandler { .. })
    }

    /// True if it is a component that was refused: what the engine runs as a whole.
    pub(crate) fn is_of_component(&self, source: &[u8]) -> bool {
        let (bytes, _) = detach(source);
        wat::parse_bytes(bytes).is_ok_and(|binary| Parser::is_component(&binary))
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

/// Name of the custom section that carries files.
const FILES_SECTION: &str = "midge:files";

/// Adds a bundle of files to a module or a component, in either form, as its last section.
#[must_use]
pub fn attach(module: &[u8], files: &[u8]) -> Vec<u8> {
    // What is no text stays as it is, and is refused later with the reason that belongs to it.
    let mut bytes = wat::parse_bytes(module).unwrap_or_else(|_| module.into()).into_owned();
    let section = CustomSection { name: FILES_SECTION.into(), data: files.into() };
    section.append_to_component(&mut bytes);
    bytes
}

/// Takes the files off that were attached; none where there are none.
#[must_use]
pub fn detach(bytes: &[u8]) -> (&[u8], &[u8]) {
    files_section(bytes).unwrap_or((bytes, &[]))
}

fn files_section(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let mut reader = BinaryReader::new(bytes, 0);
    // Magic and version, which modules and components have alike.
    reader.read_bytes(8).ok().filter(|head| head.starts_with(b"\0asm"))?;
    loop {
        let start = reader.current_position();
        let kind = reader.read_u8().ok()?;
        let size = reader.read_var_u32().ok()?;
        let content = reader.read_bytes(midge_abi::width::index(size)).ok()?;
        if kind == 0 && reader.eof() {
            let mut content = BinaryReader::new(content, 0);
            content.read_string().ok().filter(|name| *name == FILES_SECTION)?;
            let files = content.read_bytes(content.bytes_remaining()).ok()?;
            return Some((&bytes[..start], files));
        }
    }
}

/// What linking makes.
#[derive(Debug)]
pub struct Linked {
    /// The core module.
    pub wasm: Vec<u8>,
    /// Where its files lie in its first memory, if it has any.
    pub files: Option<FilesRow>,
    /// The folder in memory, if it has one.
    pub scratch: Option<ScratchRow>,
    /// The modules that were linked with the WASI module.
    pub parts: Vec<LinkedPart>,
}

/// A module that was linked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LinkedPart {
    /// Where it lies in the bytes that were linked.
    pub range: Range<usize>,
    /// The index of the first of its own functions in the linked module.
    pub first_function: u32,
}

/// Links a component or a program into a core module that follows the contract, with a bundle of files for it, or none
/// ([`midge_wasi::pack`]).
///
/// # Errors
/// [`LinkError`] says what cannot be held; [`ModuleError::TooLarge`] for too large a file.
pub fn link(bytes: &[u8], files: &[u8]) -> Result<Linked, ModuleError> {
    if bytes.len() > MODULE_BYTES_MAX {
        return Err(ModuleError::TooLarge { found_bytes: bytes.len() });
    }
    Ok(link_checked(bytes, files)?)
}

fn link_checked(bytes: &[u8], files: &[u8]) -> Result<Linked, LinkError> {
    // What is asynchronous is refused for being that, and not for being no component.
    let features = FEATURES.union(WasmFeatures::COMPONENT_MODEL).union(WasmFeatures::CM_ASYNC);
    Validator::new_with_features(features).validate_all(bytes)?;
    let component = match component::entry_of_module(bytes) {
        Some(entry) if !Parser::is_component(bytes) => component::read_module(bytes, entry)?,
        _ => component::read(bytes)?,
    };
    let broken = |error: PackError| LinkError::Files { reason: error.to_string() };
    let contents = if files.is_empty() { None } else { Some(pack::check(files).map_err(broken)?) };
    let scratch = contents.as_ref().and_then(|contents| contents.scratch.as_ref());
    let behind = merge::Behind { files, scratch_bytes: scratch.map_or(0, |scratch| scratch.bytes) };
    let Merged { wasm, files_at: start, first_functions } = merge::merge(WASI, &component, behind)?;
    let part = |(instance, first_function): (&CoreInstance<'_>, u32)| {
        // Each module is a part of these bytes, however deep it lies.
        let start = instance.module.as_ptr().addr() - bytes.as_ptr().addr();
        LinkedPart { range: start..start + instance.module.len(), first_function }
    };
    let parts = component.instances.iter().zip(first_functions).map(part).collect();
    let Some(Contents { folders, scratch }) = contents else {
        return Ok(Linked { wasm, files: None, scratch: None, parts });
    };
    let folder = |folder: Summary| FolderRow {
        guest: folder.guest,
        entries: folder.entries,
        bytes: folder.bytes,
    };
    let folders = folders.into_iter().map(folder).collect();
    let scratch = scratch.map(|row| ScratchRow { guest: row.guest, bytes: row.bytes.into() });
    let files = FilesRow { start, bytes: files.len() as u64, folders };
    Ok(Linked { wasm, files: Some(files), scratch, parts })
}
