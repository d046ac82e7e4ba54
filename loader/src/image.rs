//! A template: what one linear memory holds in a fresh instance.
//!
//! ```text
//!   memory     0 ........ start ................ start + length ....... files ............... bytes
//!              zero pages | pages of the artifact's image  | zero pages | the guest's files, if any
//!   file       -          | offset ...                     | -          | offset ..
//! ```
//!
//! Only the pages between the first and the last that hold something are stored, and a bundle of files by itself, for
//! there are megabytes of zeros before it. Slots map those pages privately over their memory; the template keeps a view
//! of its own, which restores are copied from.
//!
//! Invariant: the pages of an image never change. They belong to a sealed memory file or to an artifact,
//! which is replaced by renaming.

use std::fs::File;
use std::ops::Range;
use std::sync::Arc;

use midge_abi::manifest::{FilesRow, MemoryRow};

use crate::mapping::{FileMapping, PAGE_SIZE};

/// The content of one linear memory of a fresh instance.
#[derive(Debug)]
pub struct MemoryImage {
    file: Arc<File>,
    image: Run,
    files: Run,
    bytes: usize,
    view: Arc<FileMapping>,
}

/// Pages of a memory that are stored.
#[derive(Debug, Clone, Copy)]
struct Run {
    /// First byte in the memory; behind all of it for files that there are none of.
    start: usize,
    length: usize,
    /// First byte in the file.
    offset: u64,
}

impl Run {
    const NONE: Self = Self { start: usize::MAX, length: 0, offset: 0 };
}

/// Why a template cannot be made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ImageError {
    /// The manifest's row contradicts itself or the image section.
    #[error("memory {index} of the manifest does not fit its image: {row:?}")]
    Row {
        /// Index of the memory.
        index: usize,
        /// What the manifest says.
        row: MemoryRow,
    },
    /// As [`ImageError::Row`], of the files.
    #[error(
        "the files of the manifest do not fit their memory or their image: {start:#x}, {bytes} bytes"
    )]
    Files {
        /// Where they begin.
        start: u64,
        /// How large they are.
        bytes: u64,
    },
}

impl MemoryImage {
    /// Makes the templates of all memories. Their images lie behind each other in `section`, a range of
    /// the file, all of which `view` maps; behind all of them lie the files, which belong to the first memory.
    ///
    /// # Errors
    /// [`ImageError`]; the rows are checked as hostile.
    pub fn all(
        file: &Arc<File>,
        view: &Arc<FileMapping>,
        section: Range<u64>,
        rows: &[MemoryRow],
        files: Option<&FilesRow>,
    ) -> Result<Arc<[Arc<Self>]>, ImageError> {
        let size = |value: u64| usize::try_from(value).expect("at most 4 GiB: is_sound");
        let mut images = Vec::with_capacity(rows.len());
        let mut offset = section.start;
        for (index, row) in rows.iter().enumerate() {
            if !is_sound(row) || row.image_bytes > section.end - offset {
                return Err(ImageError::Row { index, row: row.clone() });
            }
            images.push(Self {
                file: Arc::clone(file),
                image: Run { start: size(row.image_start), length: size(row.image_bytes), offset },
                files: Run::NONE,
                bytes: size(row.bytes),
                view: Arc::clone(view),
            });
            offset += row.image_bytes;
        }
        if let (Some(files), Some(first), Some(row)) = (files, images.first_mut(), rows.first()) {
            let length = files_length(files, row).filter(|length| *length <= section.end - offset);
            let refused = ImageError::Files { start: files.start, bytes: files.bytes };
            let length = size(length.ok_or(refused)?);
            first.files = Run { start: size(files.start), length, offset };
        }
        for image in &images {
            for run in [image.image, image.files] {
                assert!(image.content(run).len() == run.length, "the view maps the whole section");
            }
        }
        Ok(images.into_iter().map(Arc::new).collect())
    }

    fn content(&self, run: Run) -> &[u8] {
        let start = usize::try_from(run.offset).expect("an offset in a mapped file");
        &self.view.bytes()[start..start + run.length]
    }

    /// Returns the size of the memory in a fresh instance.
    #[must_use]
    pub const fn bytes(&self) -> usize {
        self.bytes
    }

    /// Returns how much of the memory a guest may write: all of it, or what lies before the files.
    #[must_use]
    pub fn writable_bytes(&self) -> usize {
        self.bytes.min(self.files.start)
    }

    /// Returns the content of one page of a fresh instance, of those that a guest may write; `None` means zeros.
    #[must_use]
    pub fn page(&self, page: usize) -> Option<&[u8; PAGE_SIZE]> {
        debug_assert!(page * PAGE_SIZE < self.writable_bytes(), "files are never set back");
        let offset = (page * PAGE_SIZE).checked_sub(self.image.start)?;
        self.content(self.image).get(offset..)?.first_chunk()
    }

    /// Returns where the files begin, and their pages; `None` without files.
    #[must_use]
    pub fn files(&self) -> Option<(usize, &[u8])> {
        (self.files.length > 0).then(|| (self.files.start, self.content(self.files)))
    }

    /// Returns where the image and the files lie in the memory, and in the file.
    pub(crate) fn placements(&self) -> impl Iterator<Item = Placement<'_>> {
        [self.image, self.files].into_iter().filter(|run| run.length > 0).map(|run| Placement {
            start: run.start,
            length: run.length,
            file: &self.file,
            offset: run.offset,
        })
    }
}

/// Where an image is to be mapped.
pub(crate) struct Placement<'a> {
    /// First byte in the memory.
    pub(crate) start: usize,
    /// Size in bytes; not 0.
    pub(crate) length: usize,
    /// The file that holds it.
    pub(crate) file: &'a File,
    /// Its first byte in the file.
    pub(crate) offset: u64,
}

/// Returns the size of the pages that files take in their memory, if they fit behind its image.
pub(crate) fn files_length(files: &FilesRow, row: &MemoryRow) -> Option<u64> {
    let page = PAGE_SIZE as u64;
    let length = files.bytes.checked_next_multiple_of(page)?;
    let fits = files.start.is_multiple_of(page)
        && row.image_start + row.image_bytes <= files.start
        && files.start <= row.bytes
        && length <= row.bytes - files.start;
    fits.then_some(length)
}

fn is_sound(row: &MemoryRow) -> bool {
    let page = PAGE_SIZE as u64;
    row.bytes <= crate::engine::MEMORY_RESERVATION_BYTES
        && row.bytes.is_multiple_of(crate::module::WASM_PAGE_SIZE)
        && row.image_start.is_multiple_of(page)
        && row.image_bytes.is_multiple_of(page)
        && row.image_start <= row.bytes
        && row.image_bytes <= row.bytes - row.image_start
}

/// Returns first byte and size of the pages that hold something.
#[must_use]
pub fn occupied(content: &[u8]) -> (usize, usize) {
    let is_used = |page: &[u8]| page.iter().any(|&byte| byte != 0);
    let pages = || content.chunks(PAGE_SIZE).map(is_used);
    let Some(first) = pages().position(|used| used) else {
        return (0, 0);
    };
    let last = pages().rposition(|used| used).expect("there is a first one");
    (first * PAGE_SIZE, (last + 1 - first) * PAGE_SIZE)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mapping::{Access, sealed_file};

    fn row() -> MemoryRow {
        MemoryRow { bytes: 65536, bytes_max: None, image_start: 8192, image_bytes: 4096 }
    }

    fn image(row: &MemoryRow) -> Result<Arc<[Arc<MemoryImage>]>, ImageError> {
        let file = Arc::new(sealed_file(&[7; 8192]).unwrap());
        let view = Arc::new(FileMapping::new(&file, 0, 8192, Access::Read).unwrap());
        MemoryImage::all(&file, &view, 4096..8192, std::slice::from_ref(row), None)
    }

    #[test]
    fn files_lie_behind_the_image() {
        let file = Arc::new(sealed_file(&[[7; 8192], [9; 8192]].concat()).unwrap());
        let view = Arc::new(FileMapping::new(&file, 0, 16384, Access::Read).unwrap());
        let with = |start, bytes| {
            let files = FilesRow { start, bytes, folders: Vec::new() };
            MemoryImage::all(&file, &view, 4096..16384, &[row()], Some(&files))
        };
        let image = &with(32768, 4097).unwrap()[0];
        assert_eq!(image.page(2).unwrap()[0], 7);
        assert!(image.page(3).is_none() && image.page(7).is_none());
        assert_eq!(image.writable_bytes(), 32768);
        assert_eq!(
            image.files().map(|(start, pages)| (start, pages.to_vec())),
            Some((32768, vec![9; 8192]))
        );
        let places: Vec<_> =
            image.placements().map(|it| (it.start, it.length, it.offset)).collect();
        assert_eq!(places, [(8192, 4096, 4096), (32768, 8192, 8192)]);
        for (start, bytes) in [
            (8192, 4096),
            (32769, 4096),
            (65536, 1),
            (61440, 4097),
            (32768, 8193),
            (1 << 63, 4096),
            (32768, u64::MAX),
        ] {
            assert!(matches!(with(start, bytes), Err(ImageError::Files { .. })), "{start} {bytes}");
        }
        assert!(with(12288, 0).is_ok());
    }

    #[test]
    fn pages_outside_the_image_are_zero() {
        let image = &image(&row()).unwrap()[0];
        assert_eq!(image.page(2).unwrap()[0], 7);
        assert!(image.page(0).is_none() && image.page(1).is_none());
        assert!(image.page(3).is_none() && image.page(15).is_none());
    }

    #[test]
    fn a_row_that_contradicts_itself_is_refused() {
        let refused = |row: MemoryRow| matches!(image(&row), Err(ImageError::Row { .. }));
        assert!(refused(MemoryRow { image_bytes: 8192, ..row() }), "longer than the section");
        assert!(refused(MemoryRow { image_start: 65536, ..row() }), "behind the memory");
        assert!(refused(MemoryRow { image_start: !4095, ..row() }), "would overflow");
        assert!(refused(MemoryRow { bytes: 1, ..row() }), "no whole pages");
        assert!(refused(MemoryRow { bytes: 1 << 40, ..row() }), "beyond 32 bits");
    }

    #[test]
    fn occupied_pages_are_found() {
        let mut content = vec![0; 65536];
        assert_eq!(occupied(&content), (0, 0));
        content[5000] = 1;
        content[12_287] = 1;
        assert_eq!(occupied(&content), (4096, 8192));
    }
}
