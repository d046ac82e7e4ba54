//! A template: what one linear memory holds in a fresh instance.
//!
//! ```text
//!   memory     0 ........ start ................ start + length ....... bytes
//!              zero pages | pages of the artifact's image  | zero pages
//!   file       -          | offset ...                     | -
//! ```
//!
//! Only the pages between the first and the last that hold something are stored. Slots map those pages
//! privately over their memory; the template keeps a view of its own, which restores are copied from.
//!
//! Invariant: the pages of an image never change. They belong to a sealed memory file or to an artifact,
//! which is replaced by renaming.

use std::fs::File;
use std::ops::Range;
use std::sync::Arc;

use midge_abi::manifest::MemoryRow;

use crate::mapping::{FileMapping, PAGE_SIZE};

/// The content of one linear memory of a fresh instance.
#[derive(Debug)]
pub struct MemoryImage {
    file: Arc<File>,
    offset: u64,
    start: usize,
    length: usize,
    bytes: usize,
    view: Arc<FileMapping>,
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
}

impl MemoryImage {
    /// Makes the templates of all memories. Their images lie behind each other in `section`, a range of
    /// the file, all of which `view` maps.
    ///
    /// # Errors
    /// [`ImageError`]; the rows are checked as hostile.
    pub fn all(
        file: &Arc<File>,
        view: &Arc<FileMapping>,
        section: Range<u64>,
        rows: &[MemoryRow],
    ) -> Result<Arc<[Arc<Self>]>, ImageError> {
        let mut images = Vec::with_capacity(rows.len());
        let mut offset = section.start;
        for (index, row) in rows.iter().enumerate() {
            if !is_sound(row) || row.image_bytes > section.end - offset {
                return Err(ImageError::Row { index, row: row.clone() });
            }
            images.push(Arc::new(Self::new(file, view, offset, row)));
            offset += row.image_bytes;
        }
        Ok(images.into())
    }

    fn new(file: &Arc<File>, view: &Arc<FileMapping>, offset: u64, row: &MemoryRow) -> Self {
        let size = |value: u64| usize::try_from(value).expect("at most 4 GiB: is_sound");
        let image = Self {
            file: Arc::clone(file),
            offset,
            start: size(row.image_start),
            length: size(row.image_bytes),
            bytes: size(row.bytes),
            view: Arc::clone(view),
        };
        assert!(image.content().len() == image.length, "the view maps the whole section");
        image
    }

    fn content(&self) -> &[u8] {
        let start = usize::try_from(self.offset).expect("an offset in a mapped file");
        &self.view.bytes()[start..start + self.length]
    }

    /// Returns the size of the memory in a fresh instance.
    #[must_use]
    pub const fn bytes(&self) -> usize {
        self.bytes
    }

    /// Returns the content of one page of a fresh instance; `None` means zeros.
    #[must_use]
    pub fn page(&self, page: usize) -> Option<&[u8; PAGE_SIZE]> {
        let offset = (page * PAGE_SIZE).checked_sub(self.start)?;
        self.content().get(offset..)?.first_chunk()
    }

    /// Returns where the image lies in the memory, and in the file.
    pub(crate) fn placement(&self) -> Placement<'_> {
        Placement { start: self.start, length: self.length, file: &self.file, offset: self.offset }
    }
}

/// Where an image is to be mapped.
pub(crate) struct Placement<'a> {
    /// First byte in the memory.
    pub(crate) start: usize,
    /// Size in bytes; 0 if all pages are zero.
    pub(crate) length: usize,
    /// The file that holds it.
    pub(crate) file: &'a File,
    /// Its first byte in the file.
    pub(crate) offset: u64,
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
        MemoryImage::all(&file, &view, 4096..8192, std::slice::from_ref(row))
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
