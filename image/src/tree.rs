//! What is to be in an image: folders, files and devices by their paths, in the order of their names.
//!
//! Invariants: every entry's folder is there, and stands before it. A path is relative, has no empty part,
//! no `.` and no `..`, and is a text without NUL.

use std::collections::BTreeMap;

/// Longest path, the kernel's `PATH_MAX` with its NUL.
pub const PATH_BYTES_MAX: usize = 4095;
/// Most entries: far above what an image has, and below the 32 bits that name one in an archive.
pub const ENTRIES_MAX: usize = 1 << 20;

/// Folders, files and devices.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tree {
    entries: BTreeMap<String, Entry>,
}

/// One of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Entry {
    /// A folder.
    Folder,
    /// A file that everybody may read.
    File(Vec<u8>),
    /// A file that everybody may run.
    Program(Vec<u8>),
    /// A character device.
    Device {
        /// The driver.
        major: u32,
        /// Which of its devices.
        minor: u32,
    },
}

/// An entry cannot be in a tree.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TreeError {
    /// Its path.
    #[error(
        "`{path}` is no path in an image: it must be relative, at most {PATH_BYTES_MAX} bytes, without empty parts, `.` and `..`"
    )]
    Path {
        /// What was asked for.
        path: String,
    },
    /// Something is there already.
    #[error("`{path}` is in the image already")]
    Taken {
        /// Where.
        path: String,
    },
    /// More than [`ENTRIES_MAX`].
    #[error("an image has {ENTRIES_MAX} entries at the most")]
    TooMany,
}

impl Tree {
    /// Makes an empty one.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds an entry, with the folders that it lies in. A folder may be added again.
    ///
    /// # Errors
    /// [`TreeError`] says why it cannot be there.
    pub fn add(&mut self, path: &str, entry: Entry) -> Result<(), TreeError> {
        check(path)?;
        if self.entries.len() + path.split('/').count() > ENTRIES_MAX {
            return Err(TreeError::TooMany);
        }
        for (at, _) in path.match_indices('/') {
            self.put(&path[..at], Entry::Folder)?;
        }
        self.put(path, entry)
    }

    fn put(&mut self, path: &str, entry: Entry) -> Result<(), TreeError> {
        match self.entries.get(path) {
            None => drop(self.entries.insert(path.to_owned(), entry)),
            Some(Entry::Folder) if entry == Entry::Folder => {}
            Some(_) => return Err(TreeError::Taken { path: path.to_owned() }),
        }
        Ok(())
    }

    /// Returns the entry at a path.
    #[must_use]
    pub fn get(&self, path: &str) -> Option<&Entry> {
        self.entries.get(path)
    }

    /// Returns all entries, in the order of their paths.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Entry)> {
        self.entries.iter().map(|(path, entry)| (path.as_str(), entry))
    }
}

impl Entry {
    /// Returns what it holds; nothing but for files.
    #[must_use]
    pub fn content(&self) -> &[u8] {
        match self {
            Self::File(content) | Self::Program(content) => content,
            Self::Folder | Self::Device { .. } => &[],
        }
    }

    /// Returns who may do what.
    #[must_use]
    pub const fn permissions(&self) -> u32 {
        match self {
            Self::Folder | Self::Program(_) => 0o755,
            Self::File(_) => 0o644,
            Self::Device { .. } => 0o666,
        }
    }
}

fn check(path: &str) -> Result<(), TreeError> {
    let is_part = |part: &str| !matches!(part, "" | "." | "..") && !part.contains('\0');
    if path.len() <= PATH_BYTES_MAX && path.split('/').all(is_part) {
        return Ok(());
    }
    Err(TreeError::Path { path: path.chars().take(100).collect() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_come_with_what_lies_in_them_and_before_it() {
        let mut tree = Tree::new();
        tree.add("b/c/d", Entry::File(vec![1])).unwrap();
        tree.add("b/a", Entry::Program(vec![2])).unwrap();
        tree.add("b", Entry::Folder).unwrap();
        let paths: Vec<_> = tree.iter().map(|(path, _)| path).collect();
        assert_eq!(paths, ["b", "b/a", "b/c", "b/c/d"]);
        assert_eq!(tree.get("b/a").unwrap().content(), [2]);
    }

    #[test]
    fn nothing_leads_out_or_lies_on_something_else() {
        let mut tree = Tree::new();
        let long = "x".repeat(PATH_BYTES_MAX + 1);
        for path in ["", "/a", "a//b", "a/", ".", "../a", "a/../b", "a\0b", &long] {
            let refused = tree.add(path, Entry::Folder);
            assert!(matches!(refused, Err(TreeError::Path { .. })), "`{path}`");
        }
        tree.add("a", Entry::File(Vec::new())).unwrap();
        for path in ["a", "a/b"] {
            let refused = tree.add(path, Entry::File(Vec::new()));
            assert_eq!(refused, Err(TreeError::Taken { path: "a".into() }));
        }
    }
}
