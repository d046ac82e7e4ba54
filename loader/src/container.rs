//! The container: how the parts of an artifact lie in its file, and the hashes that cover every byte.
//!
//! ```text
//!   header 64 B | section table 64 B each | hash of both 32 B | section | section | ...
//! ```
//!
//! Sections start on a page (what is mapped by itself: image, code) or on 16 bytes, and reach to the start
//! of the next; each row's hash covers all of that, filling included, so that every byte of a file is under
//! one of the hashes.
//!
//! Not here: files, the engine, what a section means. Bytes in, ranges out, so that `fuzz/` can build this
//! file without the engine.

use std::ops::Range;

/// First bytes of an artifact. The line ends show a transfer that changed them.
pub const MAGIC: [u8; 8] = *b"midge\r\n\0";
/// Version of this layout. Another number is another layout.
pub const FORMAT: u32 = 2;
/// Size of the header and of a row of the section table.
pub const ROW_SIZE: usize = 64;
/// Most sections: the kinds there are, with room for newer hosts' to be refused by name.
pub const SECTION_COUNT_MAX: usize = 16;
/// Sections that are mapped by themselves start on a multiple of it: a page of the machine.
pub const SECTION_ALIGN: usize = 4096;

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
    /// Lines of the source, for traps.
    Lines = 5,
}

impl SectionKind {
    const ALL: [Self; 5] = [Self::Manifest, Self::Module, Self::Image, Self::Code, Self::Lines];

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
            Self::Lines => "lines",
        }
    }

    const fn alignment(self) -> usize {
        match self {
            Self::Manifest | Self::Module | Self::Lines => 16,
            Self::Image | Self::Code => SECTION_ALIGN,
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

/// Why bytes are no container.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ContainerError {
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
}

/// The bytes of a section, for the writer.
pub struct SectionBytes {
    /// What it holds.
    pub kind: SectionKind,
    /// Its content.
    pub bytes: Vec<u8>,
}

/// Encodes an artifact.
#[must_use]
pub fn encode(engine: [u8; 16], sections: &[SectionBytes]) -> Vec<u8> {
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
    output[16..32].copy_from_slice(&engine);
    output[32..40].copy_from_slice(&(file_bytes as u64).to_le_bytes());
    let head = output[..head_bytes - HASH_SIZE].to_vec();
    // The gap between the head's hash and the first section lies under the head's hash too.
    let first = ranges.first().map_or(file_bytes, |range| range.start);
    let hash = head_hash(&head, &output[head_bytes..first]);
    output[head_bytes - HASH_SIZE..head_bytes].copy_from_slice(hash.as_bytes());
    output
}

/// Reads the header and the section table, and checks every byte against its hash.
///
/// # Errors
/// [`ContainerError`] says what does not hold.
pub fn read(bytes: &[u8]) -> Result<([u8; 16], Vec<Section>), ContainerError> {
    let table = |reason| ContainerError::Table { reason };
    let header = bytes.first_chunk::<ROW_SIZE>().ok_or(ContainerError::Magic)?;
    if header[0..8] != MAGIC {
        return Err(ContainerError::Magic);
    }
    let format = u32_at(header, 8);
    if format != FORMAT {
        return Err(ContainerError::Format { found: format });
    }
    let (expected_bytes, found_bytes) = (u64_at(header, 32), bytes.len() as u64);
    if expected_bytes != found_bytes {
        return Err(ContainerError::Truncated { expected_bytes, found_bytes });
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
        return Err(ContainerError::Damaged { part: "header" });
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
            return Err(ContainerError::Damaged { part: kind.name() });
        }
        sections.push(Section { kind, range });
    }
    let mut engine = [0; 16];
    engine.copy_from_slice(&header[16..32]);
    Ok((engine, sections))
}

fn head_hash(head: &[u8], gap: &[u8]) -> blake3::Hash {
    let mut hasher = blake3::Hasher::new();
    hasher.update(head).update(gap);
    hasher.finalize()
}

fn next_start(ranges: &[Range<usize>], index: usize, file_bytes: usize) -> usize {
    ranges.get(index + 1).map_or(file_bytes, |next| next.start)
}

fn u32_at(row: &[u8; ROW_SIZE], offset: usize) -> u32 {
    u32::from_le_bytes(*row[offset..].first_chunk().expect("inside a row"))
}

fn u64_at(row: &[u8; ROW_SIZE], offset: usize) -> u64 {
    u64::from_le_bytes(*row[offset..].first_chunk().expect("inside a row"))
}
