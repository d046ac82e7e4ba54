//! The artifact: one file that is mapped and run, checked before anything of it is executed.
//!
//! ```text
//!   header 64 B | section table 64 B each | hash of both 32 B | section | section | ...
//! ```
//!
//! Sections start on a page (what is mapped by itself: image, code) or on 16 bytes, and reach to the start
//! of the next; each row's hash covers all of that, filling included, so that every byte of a file is under
//! one of the hashes. The hashes find damage, not malice: code of an artifact runs as it is, so an artifact
//! is to be trusted as far as a program is.
//!
//! Sections: `manifest` (midge_abi::manifest), `module` (the whole form of the module, for techniques that
//! compile), `image` (the templates' pages), `code` (the lean form, compiled). The last two are absent where
//! start-up code resists a snapshot.

use std::fs::File;
use std::io::{self, Read, Write};
use std::ops::Range;
use std::path::Path;
use std::ptr::NonNull;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use midge_abi::manifest::{Manifest, ManifestError};
use wasmtime::Module;

use crate::engine::{EngineId, GuestEngine};
use crate::image::{ImageError, MemoryImage};
use crate::mapping::{Access, FileMapping, PAGE_SIZE, sealed_file};

/// First bytes of an artifact. The line ends show a transfer that changed them.
pub const MAGIC: [u8; 8] = *b"midge\r\n\0";
/// Version of this layout. Another number is another layout.
pub const FORMAT: u32 = 2;
/// Size of the header and of a row of the section table.
pub const ROW_SIZE: usize = 64;
/// Most sections: the kinds there are, with room for newer hosts' to be refused by name.
pub const SECTION_COUNT_MAX: usize = 16;
/// Largest artifact that is opened: image and code of the largest module.
pub const ARTIFACT_BYTES_MAX: u64 = 8 << 30;

const HASH_SIZE: usize = 32;

/// What a section holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum SectionKind {
    /// The manifest.
    Manifest = 1,
    /// The whole form of the module.
    Module = 2,
    /// The templates' pages.
    Image = 3,
    /// Compiled code of the lean form.
    Code = 4,
}

impl SectionKind {
    const ALL: [Self; 4] = [Self::Manifest, Self::Module, Self::Image, Self::Code];

    fn from_wire(kind: u32) -> Option<Self> {
        Self::ALL.into_iter().find(|known| *known as u32 == kind)
    }

    /// Returns the section's name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Manifest => "manifest",
            Self::Module => "module",
            Self::Image => "image",
            Self::Code => "code",
        }
    }

    const fn alignment(self) -> usize {
        match self {
            Self::Manifest | Self::Module => 16,
            Self::Image | Self::Code => PAGE_SIZE,
        }
    }
}

/// Where a section lies in its file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Section {
    /// What it holds.
    pub kind: SectionKind,
    /// Its bytes in the file.
    pub range: Range<usize>,
}

/// Why an artifact is refused.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ArtifactError {
    /// The file cannot be opened or mapped.
    #[error("artifact cannot be read")]
    Read(#[source] io::Error),
    /// Other bytes at the start.
    #[error("file is no artifact: it does not start with the magic bytes")]
    Magic,
    /// Another layout.
    #[error(
        "artifact has format {found}, this host reads {FORMAT}; build it with this version of midge"
    )]
    Format {
        /// Its format.
        found: u32,
    },
    /// Shorter or longer than its header says.
    #[error(
        "artifact is truncated: header promises {expected_bytes} bytes, file has {found_bytes}"
    )]
    Truncated {
        /// What the header says.
        expected_bytes: u64,
        /// What is there.
        found_bytes: u64,
    },
    /// A part does not have its hash.
    #[error("artifact is damaged: the hash of its {part} does not match")]
    Damaged {
        /// Which part.
        part: &'static str,
    },
    /// The section table contradicts itself.
    #[error("artifact's section table is not sound: {reason}")]
    Table {
        /// How.
        reason: &'static str,
    },
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

/// The bytes of a section, for the writer.
pub struct SectionBytes {
    /// What it holds.
    pub kind: SectionKind,
    /// Its content.
    pub bytes: Vec<u8>,
}

impl Artifact {
    /// Opens an artifact, and checks every byte of it.
    ///
    /// # Errors
    /// [`ArtifactError`] says why it is refused; nothing of it has been executed then.
    pub fn open(path: &Path, engine: &GuestEngine) -> Result<Arc<Self>, ArtifactError> {
        let file = File::open(path).map_err(ArtifactError::Read)?;
        Self::from_file(file, engine)
    }

    /// Takes an artifact that was just built, from memory.
    ///
    /// # Errors
    /// As [`Artifact::open`]; the bytes are checked in the same way.
    pub fn from_bytes(bytes: &[u8], engine: &GuestEngine) -> Result<Arc<Self>, ArtifactError> {
        let file = sealed_file(bytes).map_err(ArtifactError::Read)?;
        Self::from_file(file, engine)
    }

    fn from_file(file: File, engine: &GuestEngine) -> Result<Arc<Self>, ArtifactError> {
        let found_bytes = file.metadata().map_err(ArtifactError::Read)?.len();
        if !(ROW_SIZE as u64..=ARTIFACT_BYTES_MAX).contains(&found_bytes) {
            return Err(ArtifactError::Magic);
        }
        let length = usize::try_from(found_bytes).expect("bounded above");
        let whole =
            FileMapping::new(&file, 0, length, Access::Read).map_err(ArtifactError::Read)?;
        let (found, sections) = read_table(whole.bytes())?;
        let section = |kind| sections.iter().find(|section| section.kind == kind);
        let manifest = section(SectionKind::Manifest)
            .ok_or(ArtifactError::Table { reason: "there is no manifest" })?;
        let manifest = Manifest::decode(&whole.bytes()[manifest.range.clone()])?;
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
                MemoryImage::all(&file, &whole, range, &manifest.memories)?
            }
            None => MemoryImage::all(&file, &whole, 0..0, &[])?,
        };
        let template_time = began.elapsed();
        let engine = engine.clone();
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

    /// Returns the whole form of the module.
    #[must_use]
    pub fn module(&self) -> &[u8] {
        let section = self.sections.iter().find(|section| section.kind == SectionKind::Module);
        section.map_or(&[], |section| &self.whole.bytes()[section.range.clone()])
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

/// Encodes an artifact.
#[must_use]
pub fn encode(engine: EngineId, sections: &[SectionBytes]) -> Vec<u8> {
    assert!(sections.len() <= SECTION_COUNT_MAX, "the builder knows its sections");
    let head_bytes = ROW_SIZE * (1 + sections.len()) + HASH_SIZE;
    let mut output = vec![0; head_bytes];
    let mut ranges = Vec::with_capacity(sections.len());
    for section in sections {
        output.resize(output.len().next_multiple_of(section.kind.alignment()), 0);
        let start = output.len();
        output.extend_from_slice(&section.bytes);
        ranges.push(start..output.len());
    }
    let file_bytes = output.len();
    for (index, (section, range)) in sections.iter().zip(&ranges).enumerate() {
        let covered = range.start..next_start(&ranges, index, file_bytes);
        let hash = blake3::hash(&output[covered]);
        let row = &mut output[ROW_SIZE * (1 + index)..][..ROW_SIZE];
        row[0..4].copy_from_slice(&(section.kind as u32).to_le_bytes());
        row[8..16].copy_from_slice(&(range.start as u64).to_le_bytes());
        row[16..24].copy_from_slice(&(range.len() as u64).to_le_bytes());
        row[24..56].copy_from_slice(hash.as_bytes());
    }
    output[0..8].copy_from_slice(&MAGIC);
    output[8..12].copy_from_slice(&FORMAT.to_le_bytes());
    output[12..16].copy_from_slice(&midge_abi::width::wire(sections.len()).to_le_bytes());
    output[16..32].copy_from_slice(&engine.0);
    output[32..40].copy_from_slice(&(file_bytes as u64).to_le_bytes());
    let head = output[..head_bytes - HASH_SIZE].to_vec();
    // The gap between the head's hash and the first section lies under the head's hash too.
    let first = ranges.first().map_or(file_bytes, |range| range.start);
    let hash = head_hash(&head, &output[head_bytes..first]);
    output[head_bytes - HASH_SIZE..head_bytes].copy_from_slice(hash.as_bytes());
    output
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

fn head_hash(head: &[u8], gap: &[u8]) -> blake3::Hash {
    let mut hasher = blake3::Hasher::new();
    hasher.update(head).update(gap);
    hasher.finalize()
}

fn next_start(ranges: &[Range<usize>], index: usize, file_bytes: usize) -> usize {
    ranges.get(index + 1).map_or(file_bytes, |next| next.start)
}

fn read_table(bytes: &[u8]) -> Result<(EngineId, Vec<Section>), ArtifactError> {
    let table = |reason| ArtifactError::Table { reason };
    let header = bytes.first_chunk::<ROW_SIZE>().ok_or(ArtifactError::Magic)?;
    if header[0..8] != MAGIC {
        return Err(ArtifactError::Magic);
    }
    let format = u32_at(header, 8);
    if format != FORMAT {
        return Err(ArtifactError::Format { found: format });
    }
    let (expected_bytes, found_bytes) = (u64_at(header, 32), bytes.len() as u64);
    if expected_bytes != found_bytes {
        return Err(ArtifactError::Truncated { expected_bytes, found_bytes });
    }
    let count = midge_abi::width::index(u32_at(header, 12));
    if count > SECTION_COUNT_MAX {
        return Err(table("too many sections"));
    }
    let head_bytes = ROW_SIZE * (1 + count);
    let hash = bytes.get(head_bytes..).and_then(|rest| rest.first_chunk::<HASH_SIZE>());
    let hash = hash.ok_or_else(|| table("it does not fit the file"))?;

    let (rows, _) = bytes[ROW_SIZE..head_bytes].as_chunks::<ROW_SIZE>();
    let mut ranges = Vec::with_capacity(count);
    let mut end = head_bytes + HASH_SIZE;
    for row in rows {
        let start = usize::try_from(u64_at(row, 8)).map_err(|_| table("an offset is too large"))?;
        let size = usize::try_from(u64_at(row, 16)).map_err(|_| table("a size is too large"))?;
        let stop = start.checked_add(size).filter(|stop| *stop <= bytes.len());
        let stop = stop.ok_or_else(|| table("a section ends behind the file"))?;
        if start < end {
            return Err(table("sections overlap"));
        }
        ranges.push(start..stop);
        end = stop;
    }
    let first = ranges.first().map_or(bytes.len(), |range| range.start);
    if head_hash(&bytes[..head_bytes], &bytes[head_bytes + HASH_SIZE..first]) != *hash {
        return Err(ArtifactError::Damaged { part: "header" });
    }
    let mut sections = Vec::with_capacity(count);
    for (index, row) in rows.iter().enumerate() {
        let kind = SectionKind::from_wire(u32_at(row, 0));
        let kind = kind.ok_or_else(|| table("a section of a kind that this host does not know"))?;
        let range = ranges[index].clone();
        if range.start % kind.alignment() != 0 {
            return Err(table("a section is not aligned"));
        }
        if range.is_empty() {
            return Err(table("a section is empty"));
        }
        let covered = range.start..next_start(&ranges, index, bytes.len());
        if blake3::hash(&bytes[covered])
            != row[24..56].first_chunk::<HASH_SIZE>().copied().unwrap_or_default()
        {
            return Err(ArtifactError::Damaged { part: kind.name() });
        }
        sections.push(Section { kind, range });
    }
    let mut engine = [0; 16];
    engine.copy_from_slice(&header[16..32]);
    Ok((EngineId(engine), sections))
}

fn u32_at(row: &[u8; ROW_SIZE], offset: usize) -> u32 {
    u32::from_le_bytes(*row[offset..].first_chunk().expect("inside a row"))
}

fn u64_at(row: &[u8; ROW_SIZE], offset: usize) -> u64 {
    u64::from_le_bytes(*row[offset..].first_chunk().expect("inside a row"))
}
