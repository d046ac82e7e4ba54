//! Folders of files, read from the disk to be linked with a program or a component.
//!
//! What is read becomes a bundle (`midge_wasi::pack`), which is attached to the module ([`crate::link::attach`]). The
//! same names and contents make the same bytes: times, owners and permissions are left out.
//!
//! A guest finds nothing that is not below the folder: links are kept as links, and one that leads out is refused. So
//! are sockets, devices and the like, for there is nothing in them that could be kept.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::str::FromStr;

pub use midge_wasi::pack::Scratch;
use midge_wasi::pack::{Entry, Folder, PackError, is_guest_path, is_name, pack};
pub use midge_wasi::scratch::{SCRATCH_BYTES_MAX, SCRATCH_BYTES_MIN};

use crate::module::FILES_BYTES_MAX;

/// Most folders of one function.
pub const FOLDERS_MAX: usize = 16;
/// Most folders, files and links in them.
pub const ENTRIES_MAX: usize = 65_536;
/// How deep folders lie in one another at the most.
pub const DEPTH_MAX: usize = 64;
/// Where a guest finds a folder if nothing else is said.
pub const GUEST_PATH_DEFAULT: &str = "/";
/// Where a guest finds the folder in memory if nothing else is said: what programs take for what they need for a while.
pub const SCRATCH_PATH_DEFAULT: &str = "/tmp";

/// A folder, and the path by which the guest knows it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Mapping {
    /// The folder.
    pub folder: PathBuf,
    /// The guest's path.
    pub guest: String,
}

/// Why a text names no folder for a guest.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is no FOLDER or FOLDER:GUEST-PATH, with a path of at most 255 bytes")]
pub struct MappingError {
    text: String,
}

impl FromStr for Mapping {
    type Err = MappingError;

    /// Reads `FOLDER` or `FOLDER:GUEST-PATH`.
    fn from_str(text: &str) -> Result<Self, MappingError> {
        let (folder, guest) = text.rsplit_once(':').unwrap_or((text, GUEST_PATH_DEFAULT));
        if folder.is_empty() || text.contains('\0') || !is_guest_path(guest) {
            return Err(MappingError { text: text.to_owned() });
        }
        Ok(Self { folder: folder.into(), guest: guest.to_owned() })
    }
}

/// Why files cannot be packed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FilesError {
    /// Something cannot be read.
    #[error("cannot read `{}`", .path.display())]
    Read {
        /// What.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Neither a file nor a folder nor a link.
    #[error("`{}` is neither a file nor a folder nor a link", .path.display())]
    Special {
        /// What.
        path: PathBuf,
    },
    /// A name or the target of a link that guests cannot be shown.
    #[error("`{}` has a name or a target that is not UTF-8, or too long", .path.display())]
    Name {
        /// What.
        path: PathBuf,
    },
    /// More than is packed.
    #[error("`{}` is beyond the limit of {limit} {what}", .path.display())]
    TooMany {
        /// Where the limit was reached.
        path: PathBuf,
        /// Of what.
        what: &'static str,
        /// The limit.
        limit: usize,
    },
    /// Two folders under one path of the guest's.
    #[error(
        "two folders are `{guest}` for the guest; name another path for one: FOLDER:GUEST-PATH"
    )]
    Twice {
        /// The path.
        guest: String,
    },
    /// What was read cannot be packed.
    #[error(transparent)]
    Pack(#[from] PackError),
}

/// Reads folders and packs them, with the folder in memory; nothing of either is no bytes.
///
/// # Errors
/// [`FilesError`] with the path that it is about.
pub fn read(mappings: &[Mapping], scratch: Option<&Scratch>) -> Result<Vec<u8>, FilesError> {
    if mappings.is_empty() && scratch.is_none() {
        return Ok(Vec::new());
    }
    let (mut reader, mut folders) = (Reader::default(), Vec::new());
    for mapping in mappings {
        if folders.len() == FOLDERS_MAX {
            return Err(too_many(&mapping.folder, "folders", FOLDERS_MAX));
        }
        let is_scratch = scratch.is_some_and(|scratch| scratch.guest == mapping.guest);
        if is_scratch || folders.iter().any(|(guest, _)| *guest == mapping.guest) {
            return Err(FilesError::Twice { guest: mapping.guest.clone() });
        }
        folders.push((mapping.guest.clone(), reader.folder(&mapping.folder, DEPTH_MAX)?));
    }
    let bytes = pack(&folders, scratch)?;
    if let Some(first) = mappings.first().filter(|_| bytes.len() > FILES_BYTES_MAX) {
        return Err(too_many(&first.folder, "bytes with all names", FILES_BYTES_MAX));
    }
    Ok(bytes)
}

/// Packs texts as the files of one folder.
///
/// # Errors
/// [`FilesError::Pack`], if they are too large.
pub fn of_texts(guest: &str, texts: &[(&str, &str)]) -> Result<Vec<u8>, FilesError> {
    let file = |(name, text): &(&str, &str)| ((*name).to_owned(), Entry::File((*text).into()));
    Ok(pack(&[(guest.to_owned(), texts.iter().map(file).collect())], None)?)
}

fn too_many(path: &Path, what: &'static str, limit: usize) -> FilesError {
    FilesError::TooMany { path: path.to_owned(), what, limit }
}

/// What was read so far.
#[derive(Default)]
struct Reader {
    entries: usize,
    bytes: usize,
}

impl Reader {
    fn folder(&mut self, path: &Path, depth: usize) -> Result<Folder, FilesError> {
        let failed = |source| FilesError::Read { path: path.to_owned(), source };
        let mut folder = Folder::new();
        if depth == 0 {
            return Err(too_many(path, "folders in one another", DEPTH_MAX));
        }
        for entry in fs::read_dir(path).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let path = entry.path();
            self.entries += 1;
            if self.entries > ENTRIES_MAX {
                return Err(too_many(&path, "files", ENTRIES_MAX));
            }
            let name = entry.file_name().into_string().ok().filter(|name| is_name(name));
            let name = name.ok_or_else(|| FilesError::Name { path: path.clone() })?;
            let kind = entry.file_type().map_err(failed)?;
            let entry = if kind.is_dir() {
                Entry::Folder(self.folder(&path, depth - 1)?)
            } else if kind.is_file() {
                Entry::File(self.file(&path)?)
            } else if kind.is_symlink() {
                let target = fs::read_link(&path).map_err(failed)?.into_os_string().into_string();
                Entry::Link(target.map_err(|_| FilesError::Name { path })?)
            } else {
                return Err(FilesError::Special { path });
            };
            folder.insert(name, entry);
        }
        Ok(folder)
    }

    fn file(&mut self, path: &Path) -> Result<Vec<u8>, FilesError> {
        let left = FILES_BYTES_MAX - self.bytes;
        let mut content = Vec::new();
        // A file that grows meanwhile is bounded as well.
        File::open(path)
            .and_then(|file| file.take(left as u64 + 1).read_to_end(&mut content))
            .map_err(|source| FilesError::Read { path: path.to_owned(), source })?;
        if content.len() > left {
            return Err(too_many(path, "bytes of files", FILES_BYTES_MAX));
        }
        self.bytes += content.len();
        Ok(content)
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn mapping(folder: &Path) -> Mapping {
        Mapping { folder: folder.to_owned(), guest: "/".into() }
    }

    fn refused(folder: &Path) -> String {
        read(&[mapping(folder)], None).unwrap_err().to_string()
    }

    #[test]
    fn mappings_are_read_as_they_are_written() {
        let of = |text: &str| {
            text.parse::<Mapping>().map(|it| (it.folder.display().to_string(), it.guest)).ok()
        };
        let pair = |folder: &str, guest: &str| Some((folder.to_owned(), guest.to_owned()));
        assert_eq!(of("data"), pair("data", "/"));
        assert_eq!(of("data:/srv/data"), pair("data", "/srv/data"));
        assert_eq!(of("a:b:/c"), pair("a:b", "/c"));
        for wrong in ["", ":/data", "data:", "data:\n", "da\0ta", &format!("d:{}", "x".repeat(256))]
        {
            assert_eq!(of(wrong), None, "{wrong:?}");
        }
    }

    #[test]
    fn the_same_files_are_the_same_bytes() {
        let (one, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        for (folder, names) in [(&one, ["a", "b", "c"]), (&other, ["c", "b", "a"])] {
            for name in names {
                fs::create_dir(folder.path().join(name)).unwrap();
                fs::write(folder.path().join(name).join("file"), name).unwrap();
            }
            symlink("a/file", folder.path().join("link")).unwrap();
        }
        let packed = |folder: &tempfile::TempDir| read(&[mapping(folder.path())], None).unwrap();
        assert_eq!(packed(&one), packed(&other));
        fs::write(other.path().join("a/file"), "x").unwrap();
        assert_ne!(packed(&one), packed(&other));
    }

    #[test]
    fn what_cannot_be_kept_is_refused_by_its_path() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path();
        let link = path.join("link");
        symlink("../elsewhere", &link).unwrap();
        assert_eq!(refused(path), "the link `link` leads out of `/`, to `../elsewhere`");
        fs::remove_file(&link).unwrap();
        let _listener = std::os::unix::net::UnixListener::bind(path.join("socket")).unwrap();
        assert!(refused(path).ends_with("/socket` is neither a file nor a folder nor a link"));
        assert!(refused(&path.join("gone")).starts_with("cannot read `"));
        let twice = read(&[mapping(&link), mapping(&link)], None).unwrap_err();
        assert!(twice.to_string().starts_with("cannot read"), "{twice}");
    }

    #[test]
    fn limits_are_limits() {
        let folder = tempfile::tempdir().unwrap();
        let mut deep = folder.path().to_owned();
        for _ in 0..DEPTH_MAX {
            deep.push("d");
        }
        fs::create_dir_all(&deep).unwrap();
        assert!(
            refused(folder.path()).ends_with("is beyond the limit of 64 folders in one another")
        );
        fs::remove_dir(&deep).unwrap();
        assert!(read(&[mapping(folder.path())], None).is_ok());
        let sparse = File::create(folder.path().join("large")).unwrap();
        sparse.set_len(FILES_BYTES_MAX as u64 + 1).unwrap();
        assert!(refused(folder.path()).ends_with("is beyond the limit of 67108864 bytes of files"));
        let many = vec![mapping(deep.parent().unwrap()); 2];
        assert!(matches!(read(&many, None), Err(FilesError::Twice { .. })));
        let scratch = Scratch { guest: "/".into(), bytes: SCRATCH_BYTES_MIN };
        let refused = read(&many[..1], Some(&scratch));
        assert!(matches!(refused, Err(FilesError::Twice { .. })));
    }
}
