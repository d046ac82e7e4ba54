//! Files of a folder, as they lie there.
//!
//! ```text
//!   request --> Wanted --> open: what the kernel has at hand --> Found --> conditions --> response
//!                            | would wait for a disk
//!                            +--> pool: a thread that may wait --> the worker, woken
//! ```
//!
//! No path leads out of the folder: names are checked here, and the kernel resolves them beneath it
//! (`RESOLVE_BENEATH`, openat2(2)), symbolic links included. A worker never waits for a disk: it opens with
//! `RESOLVE_CACHED` and reads with `RWF_NOWAIT`, and what that cannot do a thread does.
//!
//! Not here: sending (`worker/files.rs`).

pub mod conditions; // If-None-Match and its like, and ranges
pub mod encoding; // which encodings a client takes
pub mod pool; // threads that may wait for a disk

use std::fs::File;
use std::io::{self, IoSliceMut};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::Duration;

use midge_net::RequestView;
use rustix::fs::{FileType, Mode, OFlags, ResolveFlags};
use rustix::io::{Errno, ReadWriteFlags};

use self::conditions::{Conditions, Validators};
use self::encoding::{Accepted, Encoding};
use crate::compress;
use crate::config::{self, Pattern};

/// A folder that is served.
#[derive(Debug)]
pub struct Folder {
    root: OwnedFd,
    prefixes: Vec<Box<[u8]>>,
    index: String,
    is_precompressed: bool,
    shows_hidden: bool,
    /// The value of `Cache-Control`.
    pub cache_control: Option<String>,
}

/// What a request asks of a folder.
#[derive(Debug)]
pub struct Wanted {
    /// Path beneath the folder, decoded; empty for the folder itself.
    path: Vec<u8>,
    /// Path and query of the request, for a redirection.
    pub target: (Vec<u8>, Vec<u8>),
    accepted: Accepted,
    /// Under which conditions, and which part.
    pub conditions: Conditions,
    /// Only the head is asked for.
    pub is_head: bool,
}

/// An open file.
#[derive(Debug)]
pub struct Found {
    /// The file.
    pub file: File,
    /// Its size when it was opened.
    pub bytes: u64,
    /// What tells this content from another.
    pub validators: Validators,
    /// How it is encoded, if a precompressed variant was found.
    pub encoding: Option<Encoding>,
    /// The value of `Content-Type`.
    pub content_type: String,
}

/// What lies at a path.
#[derive(Debug)]
pub enum Opened {
    /// A file.
    File(Box<Found>),
    /// A folder, asked for without the slash at the end.
    Folder,
    /// Nothing that may be served.
    Nothing,
    /// To find out, the disk has to be asked.
    Waits,
}

/// Whether an open may wait for a disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum May {
    /// Only what the kernel has at hand.
    NotWait,
    /// As long as it takes.
    Wait,
}

impl Folder {
    /// Opens a folder.
    ///
    /// # Errors
    /// If it cannot be opened, or the kernel has no `openat2` (Linux 5.6).
    pub fn open(settings: &config::Static) -> io::Result<Self> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = rustix::fs::open(&settings.folder.value, flags, Mode::empty())?;
        // A file that cannot be, to learn whether the kernel knows the call.
        match resolve(&root, Path::new("."), OFlags::PATH, May::Wait) {
            Ok(_) => {}
            Err(Errno::NOSYS) => {
                return Err(io::Error::new(io::ErrorKind::Unsupported, "Linux 5.6 is needed"));
            }
            Err(error) => return Err(error.into()),
        }
        let prefix = |pattern: &Pattern| match pattern {
            Pattern::Exact(path) | Pattern::Prefix(path) => path.as_bytes().into(),
        };
        Ok(Self {
            root,
            prefixes: settings.routes.value.iter().map(prefix).collect(),
            index: settings.index.value.clone(),
            is_precompressed: settings.precompressed.value,
            shows_hidden: settings.hidden.value,
            cache_control: settings.cache_control.value.clone(),
        })
    }

    /// Reads what a request asks for; `None` if no file has such a path.
    #[must_use]
    pub fn wanted(&self, view: &RequestView<'_>, is_head: bool) -> Option<Wanted> {
        let path = view.head.path.of(view.bytes);
        let prefixes = self.prefixes.iter();
        let rest = prefixes
            .filter_map(|prefix| path.strip_prefix(&**prefix))
            .min_by_key(|rest| rest.len())?;
        let accepted = match self.is_precompressed {
            true => compress::accepted(view),
            false => Accepted::default(),
        };
        Some(Wanted {
            path: decode(rest, self.shows_hidden)?,
            target: (path.to_vec(), view.head.query.of(view.bytes).to_vec()),
            accepted,
            conditions: Conditions::of(|name| view.values(name)),
            is_head,
        })
    }

    /// Tells whether responses depend on what the client accepts.
    #[must_use]
    pub const fn varies(&self) -> bool {
        self.is_precompressed
    }

    /// Looks for what is wanted.
    ///
    /// # Errors
    /// What the system says, but for what it says of files that are not there or may not be read.
    pub fn find(&self, wanted: &Wanted, may: May) -> io::Result<Opened> {
        let mut path = wanted.path.clone();
        if path.is_empty() || path.ends_with(b"/") {
            path.extend_from_slice(self.index.as_bytes());
        }
        // Variants first, the file as it is last.
        for encoding in wanted.accepted.in_order().map(Some).chain([None]) {
            let ending = encoding.map_or("", Encoding::ending);
            match self.find_one(&[path.as_slice(), ending.as_bytes()].concat(), may)? {
                One::File(file, bytes, validators) => {
                    let validators = validators.of_variant(encoding);
                    let content_type = content_type(&path);
                    let found = Found { file, bytes, validators, encoding, content_type };
                    return Ok(Opened::File(Box::new(found)));
                }
                One::Waits => return Ok(Opened::Waits),
                One::Folder if encoding.is_none() && !wanted.path.ends_with(b"/") => {
                    return Ok(Opened::Folder);
                }
                One::Folder | One::Nothing => {}
            }
        }
        Ok(Opened::Nothing)
    }

    fn find_one(&self, path: &[u8], may: May) -> io::Result<One> {
        use std::os::unix::ffi::OsStrExt;
        let path = Path::new(std::ffi::OsStr::from_bytes(path));
        // A pipe is not waited for, and a terminal is not taken over.
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
        let file = match resolve(&self.root, path, flags, may) {
            Ok(file) => file,
            // What is not there, what leads out of the folder, and what its owner keeps to himself.
            Err(
                Errno::NOENT
                | Errno::NOTDIR
                | Errno::XDEV
                | Errno::LOOP
                | Errno::ACCESS
                | Errno::PERM
                | Errno::NAMETOOLONG
                | Errno::NXIO
                | Errno::NODEV,
            ) => return Ok(One::Nothing),
            // Not at hand, or a kernel below 5.12, which does not know the flag.
            Err(Errno::AGAIN | Errno::INVAL) if may == May::NotWait => return Ok(One::Waits),
            Err(error) => return Err(error.into()),
        };
        let facts = rustix::fs::fstat(&file)?;
        match FileType::from_raw_mode(facts.st_mode) {
            FileType::RegularFile => {}
            FileType::Directory => return Ok(One::Folder),
            _ => return Ok(One::Nothing),
        }
        let bytes = u64::try_from(facts.st_size).unwrap_or(0);
        let seconds = u64::try_from(facts.st_mtime).unwrap_or(0);
        let modified = Duration::new(seconds, u32::try_from(facts.st_mtime_nsec).unwrap_or(0));
        let validators = Validators::of(bytes, modified, facts.st_ino);
        Ok(One::File(File::from(file), bytes, validators))
    }
}

enum One {
    File(File, u64, Validators),
    Folder,
    Nothing,
    Waits,
}

fn resolve(root: &OwnedFd, path: &Path, flags: OFlags, may: May) -> Result<OwnedFd, Errno> {
    let beneath = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
    let cached = if may == May::NotWait { ResolveFlags::CACHED } else { ResolveFlags::empty() };
    rustix::fs::openat2(root, path, flags, Mode::empty(), beneath | cached)
}

/// Reads from a place in a file into `target`, without waiting for a disk. `None` if that is not possible.
///
/// # Errors
/// What the system says.
pub fn read_at_hand(file: &File, offset: u64, target: &mut [u8]) -> io::Result<Option<usize>> {
    let mut targets = [IoSliceMut::new(target)];
    match rustix::io::preadv2(file, &mut targets, offset, ReadWriteFlags::NOWAIT) {
        Ok(size) => Ok(Some(size)),
        // Not in memory; or a file system that cannot tell.
        Err(Errno::AGAIN | Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL) => Ok(None),
        Err(Errno::INTR) => Ok(Some(0)),
        Err(error) => Err(error.into()),
    }
}

/// Decodes a path beneath a folder (RFC 3986, 2.1); `None` for one that no file can have, or may not have: with
/// `.` and `..`, a slash or NUL that was encoded, an empty segment, or a name with a dot in front, which hides it.
fn decode(path: &[u8], shows_hidden: bool) -> Option<Vec<u8>> {
    let mut decoded = Vec::with_capacity(path.len());
    let mut bytes = path.iter();
    while let Some(&byte) = bytes.next() {
        if byte != b'%' {
            decoded.push(byte);
            continue;
        }
        let mut digit = || char::from(*bytes.next()?).to_digit(16);
        let byte = u8::try_from(digit()? << 4 | digit()?).ok()?;
        if matches!(byte, b'/' | 0) {
            return None;
        }
        decoded.push(byte);
    }
    let segments = decoded.split(|byte| *byte == b'/').count();
    for (place, segment) in decoded.split(|byte| *byte == b'/').enumerate() {
        let is_last = place + 1 == segments;
        let is_allowed = match segment {
            b"" => is_last,
            b"." | b".." => false,
            // RFC 8615: names meant for everybody.
            b".well-known" => place == 0,
            [b'.', ..] => shows_hidden,
            _ => true,
        };
        if !is_allowed {
            return None;
        }
    }
    Some(decoded)
}

/// Returns the media type that a name's ending stands for.
fn content_type(path: &[u8]) -> String {
    use std::os::unix::ffi::OsStrExt;
    let path = Path::new(std::ffi::OsStr::from_bytes(path));
    let guess = mime_guess::from_path(path).first_raw().unwrap_or("application/octet-stream");
    // Text that says nothing of its letters is taken for UTF-8, which web pages are today.
    let is_text = guess.starts_with("text/") || guess == "application/javascript";
    if is_text { format!("{guess}; charset=utf-8") } else { guess.to_owned() }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn paths_are_decoded_once_and_stay_beneath() {
        for (path, expected) in [
            ("", Some("")),
            ("a/b.txt", Some("a/b.txt")),
            ("a%20b/%C3%A9", Some("a b/\u{e9}")),
            ("a/", Some("a/")),
            ("%2541", Some("%41")),
            (".well-known/acme", Some(".well-known/acme")),
            ("..", None),
            ("a/../b", None),
            ("a/./b", None),
            ("%2e%2e/x", None),
            ("a%2f..%2fb", None),
            ("a%00b", None),
            ("a//b", None),
            ("/a", None),
            (".git/config", None),
            ("a/.env", None),
            ("a/.well-known/x", None),
            ("%", None),
            ("%4", None),
            ("%zz", None),
            ("%+4", None),
        ] {
            let decoded = decode(path.as_bytes(), false);
            let decoded = decoded.map(|bytes| String::from_utf8(bytes).unwrap());
            assert_eq!(decoded.as_deref(), expected, "{path}");
        }
        assert!(decode(b".env", true).is_some());
    }

    #[test]
    fn types_follow_the_ending() {
        for (name, expected) in [
            ("index.html", "text/html; charset=utf-8"),
            ("a/app.js", "text/javascript; charset=utf-8"),
            ("module.wasm", "application/wasm"),
            ("picture.svg", "image/svg+xml"),
            ("noending", "application/octet-stream"),
        ] {
            assert_eq!(content_type(name.as_bytes()), expected, "{name}");
        }
    }

    proptest! {
        #[test]
        fn no_path_leads_out(path in "[a-c./%20efEF]{0,24}", shows_hidden: bool) {
            if let Some(decoded) = decode(path.as_bytes(), shows_hidden) {
                prop_assert!(!decoded.starts_with(b"/"));
                prop_assert!(!decoded.contains(&0));
                prop_assert!(decoded.split(|byte| *byte == b'/').all(|name| name != b".." && name != b"."));
            }
        }
    }
}
