//! The text of a settings file, and places in it.

use std::{fs, io, io::Read, ops::Range, path::Path, path::PathBuf};

/// The largest settings file that is read: 100 000 functions with room to spare.
pub const CONFIG_BYTES_MAX: u64 = 64 * 1024 * 1024;
/// The longest part of a line that is quoted in a message.
pub const QUOTE_CHARS_MAX: usize = 120;

/// A settings file as it was read.
#[derive(Debug)]
pub struct Source {
    /// Its path as the user gave it.
    pub path: PathBuf,
    /// Its text.
    pub text: String,
    /// Offset of each line's first byte.
    line_starts: Vec<usize>,
}

/// A place in the text, both counted from 1; columns count characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// The line.
    pub line: usize,
    /// The column.
    pub column: usize,
}

/// Why a settings file could not be read at all.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SourceError {
    /// The operating system refused.
    #[error("cannot read `{path}`")]
    Read {
        /// Which file.
        path: PathBuf,
        /// Why.
        #[source]
        cause: io::Error,
    },
    /// Larger than [`CONFIG_BYTES_MAX`].
    #[error("`{path}` has more than {CONFIG_BYTES_MAX} bytes")]
    TooLarge {
        /// Which file.
        path: PathBuf,
    },
    /// Not a text.
    #[error("`{path}` is not UTF-8: the first wrong byte is at offset {offset}")]
    NotText {
        /// Which file.
        path: PathBuf,
        /// Where.
        offset: usize,
    },
}

impl Source {
    /// Reads a file, up to [`CONFIG_BYTES_MAX`].
    ///
    /// # Errors
    /// [`SourceError`] says why not.
    pub fn read(path: &Path) -> Result<Self, SourceError> {
        let mut bytes = Vec::new();
        fs::File::open(path)
            .and_then(|file| file.take(CONFIG_BYTES_MAX + 1).read_to_end(&mut bytes))
            .map_err(|cause| SourceError::Read { path: path.into(), cause })?;
        if u64::try_from(bytes.len()).is_ok_and(|size| size > CONFIG_BYTES_MAX) {
            return Err(SourceError::TooLarge { path: path.into() });
        }
        match String::from_utf8(bytes) {
            Ok(text) => Ok(Self::new(path, text)),
            Err(error) => {
                let offset = error.utf8_error().valid_up_to();
                Err(SourceError::NotText { path: path.into(), offset })
            }
        }
    }

    /// Takes a text that is at hand.
    #[must_use]
    pub fn new(path: &Path, text: String) -> Self {
        let newlines = text.bytes().enumerate().filter(|(_, byte)| *byte == b'\n');
        let line_starts = std::iter::once(0).chain(newlines.map(|(at, _)| at + 1)).collect();
        Self { path: path.into(), text, line_starts }
    }

    /// Returns the folder that paths in the file are relative to.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.path.parent().unwrap_or(Path::new(""))
    }

    /// Returns line and column of an offset; one behind the end counts as the end.
    #[must_use]
    pub fn place(&self, offset: usize) -> Place {
        let offset = self.text.floor_char_boundary(offset);
        let line = self.line_starts.partition_point(|start| *start <= offset);
        let column = self.text[self.line_starts[line - 1]..offset].chars().count() + 1;
        Place { line, column }
    }

    /// Returns the text of a line without its end, counted from 1.
    #[must_use]
    pub fn line(&self, line: usize) -> &str {
        let start = self.line_starts[line - 1];
        let end = self.line_starts.get(line).map_or(self.text.len(), |next| next - 1);
        self.text[start..end].trim_end_matches('\r')
    }

    /// Returns the part of a span that lies on its first line.
    #[must_use]
    pub fn first_line_of(&self, span: &Range<usize>) -> &str {
        let start = self.text.floor_char_boundary(span.start);
        let end = self.text.ceil_char_boundary(span.end).max(start);
        self.text[start..end].lines().next().unwrap_or("")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(text: &str) -> Source {
        Source::new(Path::new("folder/midge.toml"), text.into())
    }

    #[test]
    fn places_count_lines_and_characters_from_one() {
        let source = source("a = 1\r\nbé = 2\n");
        for (offset, line, column) in [(0, 1, 1), (4, 1, 5), (7, 2, 1), (10, 2, 3), (99, 3, 1)] {
            assert_eq!(source.place(offset), Place { line, column }, "offset {offset}");
        }
        assert_eq!(source.line(1), "a = 1");
        assert_eq!(source.line(2), "bé = 2");
        assert_eq!(source.line(3), "");
    }

    #[test]
    fn paths_are_relative_to_the_files_folder() {
        assert_eq!(source("").folder(), Path::new("folder"));
    }

    #[test]
    fn a_file_that_is_no_text_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("midge.toml");
        fs::write(&path, b"a = \xFF").unwrap();
        let error = Source::read(&path).unwrap_err();
        assert!(matches!(error, SourceError::NotText { offset: 4, .. }), "{error}");
    }

    #[test]
    fn an_endless_file_is_refused() {
        let error = Source::read(Path::new("/dev/zero")).unwrap_err();
        assert!(matches!(error, SourceError::TooLarge { .. }), "{error}");
    }
}
