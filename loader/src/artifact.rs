//! The artifact: one file that is mapped and run, checked before anything of it is executed.
//!
//! The hashes of its container (`container.rs`) find damage, not malice: code of an artifact runs as it is, so
//! an artifact is to be trusted as far as a program is.
//!
//! Sections: `manifest` (midge_abi::manifest), `module` (the whole form of the module, for techniques that
//! compile; without files), `image` (the templates' pages, and files), `code` (the lean form, compiled), `lines`
//! (`lines.rs`). Image and code are absent where start-up code resists a snapshot, lines where nobody asked for them.

use std::borrow::Cow;
use std::fs::File;
use std::io::{self, Read, Write};
use std::path::Path;
use std::ptr::NonNull;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use midge_abi::manifest::{Manifest, ManifestError};
use wasmtime::Module;

use crate::container::{
    self, ContainerError, MAGIC, ROW_SIZE, SECTION_ALIGN, Section, SectionKind,
};
use crate::engine::{EngineError, EngineId, EngineKind, Engines, GuestEngine};
use crate::image::{ImageError, MemoryImage};
use crate::lines::Lines;
use crate::mapping::{Access, FileMapping, PAGE_SIZE, sealed_file};
use crate::module::ModuleError;
use crate::rewrite::with_files;

/// Largest artifact that is opened: image and code of the largest module.
pub const ARTIFACT_BYTES_MAX: u64 = 8 << 30;

const _: () = assert!(SECTION_ALIGN == PAGE_SIZE, "sections are mapped by themselves");

/// Why an artifact is refused.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ArtifactError {
    /// The file cannot be opened or mapped.
    #[error("artifact cannot be read")]
    Read(#[source] io::Error),
    /// The container is not sound.
    #[error(transparent)]
    Container(#[from] ContainerError),
    /// Made by another engine, or for another kind of machine.
    #[error(
        "artifact was built for engine {found} ({found_name}), this host runs {expected}; build it anew \
         on this machine: midge build {source_name}"
    )]
    EngineMismatch {
        /// The artifact's.
        found: EngineId,
        /// What made it, in words.
        found_name: String,
        /// Ours.
        expected: EngineId,
        /// Name of the module it was built from.
        source_name: String,
    },
    /// The engine that it needs is not to be had.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// The manifest is not readable.
    #[error("artifact's manifest is refused")]
    Manifest(#[from] ManifestError),
    /// The templates do not fit.
    #[error("artifact's template is refused")]
    Image(#[from] ImageError),
}

/// An artifact, mapped and checked.
#[derive(Debug)]
pub struct Artifact {
    manifest: Manifest,
    sections: Vec<Section>,
    images: Arc<[Arc<MemoryImage>]>,
    // Declared before the mappings it may lie in.
    shared: OnceLock<SharedModule>,
    file: Arc<File>,
    whole: Arc<FileMapping>,
    engine: GuestEngine,
    template_time: Duration,
}

/// A module with the mapping that its code lies in.
#[derive(Debug)]
struct SharedModule {
    module: Module,
    _code: Arc<MappedCode>,
}

/// A code section mapped to be executed.
#[derive(Debug)]
pub struct MappedCode {
    mapping: FileMapping,
    engine: GuestEngine,
}

impl MappedCode {
    /// Returns the bytes as the engine takes them.
    #[must_use]
    pub fn code(&self) -> NonNull<[u8]> {
        self.mapping.code()
    }
}

impl Drop for MappedCode {
    fn drop(&mut self) {
        self.engine.published.remove(&self.mapping.range());
    }
}

impl Artifact {
    /// Opens an artifact, and checks every byte of it.
    ///
    /// # Errors
    /// [`ArtifactError`] says why it is refused; nothing of it has been executed then.
    pub fn open(path: &Path, engines: &Engines) -> Result<Arc<Self>, ArtifactError> {
        let file = File::open(path).map_err(ArtifactError::Read)?;
        Self::from_file(file, engines)
    }

    /// Takes an artifact that was just built, from memory.
    ///
    /// # Errors
    /// As [`Artifact::open`]; the bytes are checked in the same way.
    pub fn from_bytes(bytes: &[u8], engines: &Engines) -> Result<Arc<Self>, ArtifactError> {
        let file = sealed_file(bytes).map_err(ArtifactError::Read)?;
        Self::from_file(file, engines)
    }

    fn from_file(file: File, engines: &Engines) -> Result<Arc<Self>, ArtifactError> {
        let found_bytes = file.metadata().map_err(ArtifactError::Read)?.len();
        if !(ROW_SIZE as u64..=ARTIFACT_BYTES_MAX).contains(&found_bytes) {
            return Err(ContainerError::Magic.into());
        }
        let length = usize::try_from(found_bytes).expect("bounded above");
        let whole =
            FileMapping::new(&file, 0, length, Access::Read).map_err(ArtifactError::Read)?;
        let (found, sections) = container::read(whole.bytes())?;
        let found = EngineId(found);
        let section = |kind| sections.iter().find(|section| section.kind == kind);
        let manifest = section(SectionKind::Manifest)
            .ok_or(ContainerError::Table { reason: "there is no manifest" })?;
        let manifest = Manifest::decode(&whole.bytes()[manifest.range.clone()])?;
        let engine = engines.get(EngineKind::of_artifact(&manifest), manifest.traces)?;
        let expected = engine.id();
        if found != expected {
            return Err(ArtifactError::EngineMismatch {
                found,
                found_name: format!("{} on {}", manifest.engine_name, manifest.machine),
                expected,
                source_name: manifest.source_name,
            });
        }
        let (file, whole) = (Arc::new(file), Arc::new(whole));
        let began = Instant::now();
        let images = match section(SectionKind::Image) {
            Some(Section { range, .. }) => {
                let range = range.start as u64..range.end as u64;
                MemoryImage::all(&file, &whole, range, &manifest.memories, manifest.files.as_ref())?
            }
            None => MemoryImage::all(&file, &whole, 0..0, &[], None)?,
        };
        let template_time = began.elapsed();
        let shared = OnceLock::new();
        Ok(Arc::new(Self {
            manifest,
            sections,
            images,
            shared,
            file,
            whole,
            engine,
            template_time,
        }))
    }

    /// Returns what the artifact says about itself.
    #[must_use]
    pub const fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// Returns the sections, in file order.
    #[must_use]
    pub fn sections(&self) -> &[Section] {
        &self.sections
    }

    /// Returns the whole form of the module, with its files.
    ///
    /// # Errors
    /// [`ModuleError`] if there are files and the module does not parse.
    pub fn module(&self) -> Result<Cow<'_, [u8]>, ModuleError> {
        let section = self.sections.iter().find(|section| section.kind == SectionKind::Module);
        let module = section.map_or(&[][..], |section| &self.whole.bytes()[section.range.clone()]);
        let Some((start, files)) = self.images.first().and_then(|image| image.files()) else {
            return Ok(module.into());
        };
        Ok(with_files(module, midge_abi::width::wire(start), files)?.into())
    }

    /// Returns the templates of the memories; empty where start-up resists a snapshot.
    #[must_use]
    pub const fn images(&self) -> &Arc<[Arc<MemoryImage>]> {
        &self.images
    }

    /// Returns the compiled code, to be copied.
    #[must_use]
    pub fn code(&self) -> Option<&[u8]> {
        let section = self.sections.iter().find(|section| section.kind == SectionKind::Code)?;
        Some(&self.whole.bytes()[section.range.clone()])
    }

    /// Returns the lines of its source, if it was built with them.
    #[must_use]
    pub fn lines(&self) -> Option<Lines<'_>> {
        let section = self.sections.iter().find(|section| section.kind == SectionKind::Lines)?;
        Lines::view(&self.whole.bytes()[section.range.clone()])
    }

    /// Maps the compiled code to be executed; `None` if there is none.
    ///
    /// One mapping carries one module of the engine, which knows code by its address.
    ///
    /// # Errors
    /// Those of mmap.
    pub fn map_code(&self) -> io::Result<Option<Arc<MappedCode>>> {
        let section = self.sections.iter().find(|section| section.kind == SectionKind::Code);
        let Some(Section { range, .. }) = section else {
            return Ok(None);
        };
        let offset = range.start as u64;
        let mapping = FileMapping::new(&self.file, offset, range.len(), Access::ReadExecute)?;
        self.engine.published.add(mapping.range());
        Ok(Some(Arc::new(MappedCode { mapping, engine: self.engine.clone() })))
    }

    /// Returns the module that all functions of this artifact share, if one was loaded.
    pub(crate) fn shared_module(&self) -> Option<&Module> {
        self.shared.get().map(|shared| &shared.module)
    }

    /// Keeps a module for all functions of this artifact; the first one stays.
    pub(crate) fn share(&self, module: Module, code: Arc<MappedCode>) -> Module {
        self.shared.get_or_init(|| SharedModule { module, _code: code }).module.clone()
    }

    /// Returns how long it took to place the templates.
    #[must_use]
    pub const fn template_time(&self) -> Duration {
        self.template_time
    }

    /// Returns the size of the file.
    #[must_use]
    pub fn file_bytes(&self) -> usize {
        self.whole.bytes().len()
    }
}

/// True if a file starts like an artifact, whatever follows.
///
/// # Errors
/// Those of reading.
pub fn is_artifact(path: &Path) -> io::Result<bool> {
    let mut start = [0; MAGIC.len()];
    let mut file = File::open(path)?;
    match file.read_exact(&mut start) {
        Ok(()) => Ok(start == MAGIC),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
        Err(error) => Err(error),
    }
}

/// Writes an artifact so that a reader sees the old file or the whole new one: to a temporary file beside
/// it, synced, then renamed.
///
/// # Errors
/// Those of the file system; the temporary file is removed then, if that is still possible.
pub fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    let folder = folder.unwrap_or_else(|| Path::new("."));
    let name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?.to_string_lossy();
    let temporary = folder.join(format!(".{name}.{}.part", std::process::id()));
    let written = write_synced(&temporary, bytes)
        .and_then(|()| std::fs::rename(&temporary, path))
        .and_then(|()| File::open(folder)?.sync_all());
    if written.is_err() {
        // The first error is the one to report; a file that cannot be removed is only litter.
        let _ignored = std::fs::remove_file(&temporary);
    }
    written
}

fn write_synced(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = File::create(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}
