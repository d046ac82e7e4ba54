//! Packs files into a bundle, and checks one that somebody else packed. For the loader: no part of the module.
//!
//! The same files give the same bytes, in whatever order they were found.

use std::collections::BTreeMap;

use crate::bundle::{Bundle, HEAD_BYTES, MAGIC, NODE_BYTES, Node, SCRATCH};
use crate::preview1::Errno;
use crate::scratch::{SCRATCH_BYTES_MAX, SCRATCH_BYTES_MIN};
use crate::walk::{NAME_BYTES_MAX, PATH_BYTES_MAX, Type};
use crate::{index, wire};

/// Contents begin on a multiple of this.
const CONTENT_ALIGN: usize = 8;

/// Something in a folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Entry {
    /// A folder.
    Folder(Folder),
    /// A file's content.
    File(Vec<u8>),
    /// Where a link leads, relative to the folder that it lies in.
    Link(String),
}

/// A folder's entries by their names.
pub type Folder = BTreeMap<String, Entry>;

/// A folder in memory, which begins empty with each request.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Scratch {
    /// The path by which the guest knows it.
    pub guest: String,
    /// How many bytes it may take, with all that is kept about what is in it.
    pub bytes: u32,
}

impl Scratch {
    /// True for what a guest may know it by.
    #[must_use]
    pub fn is_guest_path(path: &str) -> bool {
        is_guest_path(path)
    }
}

/// What is in a bundle.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Contents {
    /// Its folders.
    pub folders: Vec<Summary>,
    /// The folder in memory that goes with it.
    pub scratch: Option<Scratch>,
}

/// What is in a folder that is open from the start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Summary {
    /// The path by which the guest knows it.
    pub guest: String,
    /// Folders, files and links in it.
    pub entries: u32,
    /// Bytes of all files.
    pub bytes: u64,
}

/// Why a bundle is refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PackError {
    /// Together larger than what 32 bits address.
    TooLarge,
    /// A link that leads out of its folder.
    LinkLeaves {
        /// The path by which the guest knows the folder.
        guest: String,
        /// The link's path below the folder.
        path: String,
        /// Where it leads.
        target: String,
    },
    /// Bytes that are no bundle.
    Broken {
        /// What is wrong with them.
        reason: &'static str,
    },
}

impl std::fmt::Display for PackError {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::TooLarge => formatter.write_str("the files are larger than 4 GiB together"),
            Self::LinkLeaves { guest, path, target } => {
                write!(formatter, "the link `{path}` leads out of `{guest}`, to `{target}`")
            }
            Self::Broken { reason } => formatter.write_str(reason),
        }
    }
}

impl std::error::Error for PackError {}

/// Packs folders, each with the path by which the guest knows it, and behind them the folder in memory.
///
/// # Errors
/// [`PackError::TooLarge`], or [`PackError::LinkLeaves`] for the first link that does.
pub fn pack(folders: &[(String, Folder)], scratch: Option<&Scratch>) -> Result<Vec<u8>, PackError> {
    let mut packer = Packer::default();
    for (place, (guest, folder)) in folders.iter().enumerate() {
        packer.add(guest, Part::Folder(folder), wire(place));
    }
    if let Some(scratch) = scratch {
        packer.add(&scratch.guest, Part::Scratch(scratch.bytes), wire(folders.len()));
    }
    let folder_count = packer.rows.len();
    // Breadth first: the children of a folder lie together.
    let mut place = 0;
    while let Some(row) = packer.rows.get(place) {
        if let Part::Folder(folder) = row.part {
            packer.rows[place].at = wire(packer.rows.len());
            for (name, entry) in folder {
                let part = match entry {
                    Entry::Folder(folder) => Part::Folder(folder),
                    Entry::File(content) => Part::File(content),
                    Entry::Link(target) => Part::Link(target),
                };
                packer.add(name, part, wire(place));
            }
        }
        place += 1;
    }
    let bytes = packer.write(folder_count)?;
    check_links(Bundle::new(&bytes))?;
    Ok(bytes)
}

#[derive(Default)]
struct Packer<'a> {
    rows: Vec<Row<'a>>,
}

struct Row<'a> {
    name: &'a str,
    part: Part<'a>,
    parent: u32,
    /// A folder's first child.
    at: u32,
}

#[derive(Clone, Copy)]
enum Part<'a> {
    Folder(&'a Folder),
    File(&'a [u8]),
    Link(&'a str),
    Scratch(u32),
}

impl<'a> Packer<'a> {
    fn add(&mut self, name: &'a str, part: Part<'a>, parent: u32) {
        self.rows.push(Row { name, part, parent, at: 0 });
    }

    fn write(&self, folder_count: usize) -> Result<Vec<u8>, PackError> {
        let nodes_end = index(HEAD_BYTES) + self.rows.len() * index(NODE_BYTES);
        let (mut nodes, mut texts) = (Vec::with_capacity(nodes_end), Vec::new());
        let number = |size: usize| u32::try_from(size).map_err(|_| PackError::TooLarge);
        for row in &self.rows {
            let name = nodes_end + texts.len();
            texts.extend_from_slice(row.name.as_bytes());
            let (kind, content): (u32, &[u8]) = match row.part {
                Part::Folder(_) => (0, &[]),
                Part::Scratch(_) => (SCRATCH, &[]),
                Part::File(content) => (1, content),
                Part::Link(target) => (2, target.as_bytes()),
            };
            let (at, size) = match row.part {
                Part::Folder(folder) => (row.at, wire(folder.len())),
                Part::Scratch(bytes) => (0, bytes),
                Part::File(_) | Part::Link(_) => {
                    texts.resize(texts.len().next_multiple_of(CONTENT_ALIGN), 0);
                    let at = nodes_end + texts.len();
                    texts.extend_from_slice(content);
                    (number(at)?, number(content.len())?)
                }
            };
            for number in [kind, number(name)?, wire(row.name.len()), at, size, row.parent] {
                nodes.extend_from_slice(&number.to_le_bytes());
            }
        }
        let mut bytes = Vec::with_capacity(nodes_end + texts.len());
        bytes.extend_from_slice(&MAGIC);
        let size = number(nodes_end + texts.len())?;
        for number in [size, wire(folder_count), wire(self.rows.len())] {
            bytes.extend_from_slice(&number.to_le_bytes());
        }
        bytes.extend_from_slice(&nodes);
        bytes.extend_from_slice(&texts);
        Ok(bytes)
    }
}

fn nodes(bundle: Bundle<'_>) -> impl Iterator<Item = (u32, Node)> {
    (0..).map_while(move |place| Some((place, bundle.node(place).ok()?)))
}

/// Returns a node's path below the folder that is open from the start, and that folder.
fn path_of(bundle: Bundle<'_>, place: u32, node: Node) -> (u32, String) {
    let (mut names, mut place, mut node) = (Vec::new(), place, node);
    // Bounded, for parents come before their children: `check` and `pack` see to that.
    while node.parent != place {
        names.push(String::from_utf8_lossy(bundle.name(node).unwrap_or_default()).into_owned());
        place = node.parent;
        let Ok(parent) = bundle.node(place) else { break };
        node = parent;
    }
    names.reverse();
    (place, names.join("/"))
}

/// Follows each link from the folder that it lies in, by the code that guests will follow it with.
fn check_links(bundle: Bundle<'_>) -> Result<(), PackError> {
    for (place, node) in nodes(bundle).filter(|(_, node)| node.kind == Type::Link) {
        let (start, path) = path_of(bundle, place, node);
        if bundle.resolve(start, path.as_bytes(), true) == Err(Errno::NotPermitted) {
            let target = bundle.content(node).unwrap_or_default();
            let guest = bundle.node(start).and_then(|start| bundle.name(start)).unwrap_or_default();
            return Err(PackError::LinkLeaves {
                guest: String::from_utf8_lossy(guest).into_owned(),
                path,
                target: String::from_utf8_lossy(target).into_owned(),
            });
        }
    }
    Ok(())
}

/// Checks bytes that are said to be a bundle, and tells what is in them.
///
/// # Errors
/// [`PackError::Broken`] with the first rule that does not hold; [`PackError::LinkLeaves`].
pub fn check(bytes: &[u8]) -> Result<Contents, PackError> {
    let ensure =
        |holds: bool, reason| if holds { Ok(()) } else { Err(PackError::Broken { reason }) };
    ensure(bytes.starts_with(&MAGIC), "it does not begin as one")?;
    let number = |at: usize| {
        let bytes = bytes.get(at..).and_then(|rest| rest.first_chunk());
        bytes.map_or(0, |bytes| u32::from_le_bytes(*bytes))
    };
    let (size, folder_count, node_count) = (number(4), number(8), number(12));
    ensure(index(size) == bytes.len(), "it has another size than it says")?;
    let nodes_end = u64::from(node_count) * u64::from(NODE_BYTES) + u64::from(HEAD_BYTES);
    ensure(nodes_end <= u64::from(size), "its nodes reach beyond its end")?;
    ensure(folder_count <= node_count, "it has fewer nodes than folders")?;
    let bundle = Bundle::new(bytes);
    let broken = |_| PackError::Broken { reason: "a node reaches beyond its end" };
    let mut summaries: Vec<Summary> = Vec::new();
    let mut scratch = None;
    let mut starts = Vec::with_capacity(index(node_count));
    // Children follow their folder, and each other without a gap: so every node has one folder, and none is lost.
    let mut next = folder_count;
    for place in 0..node_count {
        let node = bundle.node(place).map_err(broken)?;
        let name = std::str::from_utf8(bundle.name(node).map_err(broken)?);
        let Ok(name) = name else {
            return Err(PackError::Broken { reason: "a name is not UTF-8" });
        };
        if place < folder_count {
            ensure(node.kind == Type::Folder && node.parent == place, "a folder is none")?;
            ensure(is_guest_path(name), "a folder has a path that none may have")?;
            starts.push(place);
            if node.is_scratch {
                ensure(place + 1 == folder_count, "the folder in memory is not the last")?;
                let is_sound = (SCRATCH_BYTES_MIN..=SCRATCH_BYTES_MAX).contains(&node.size);
                ensure(is_sound, "the folder in memory has a size that none may have")?;
                scratch = Some(Scratch { guest: name.to_owned(), bytes: node.size });
                continue;
            }
            summaries.push(Summary { guest: name.to_owned(), entries: 0, bytes: 0 });
        } else {
            ensure(node.parent < place && place < next, "a node lies in no folder")?;
            ensure(!node.is_scratch, "the folder in memory lies in another")?;
            ensure(is_name(name), "a name is none that a file may have")?;
            let parent = bundle.node(node.parent).map_err(broken)?;
            let has_it =
                !parent.is_scratch && parent.at <= place && place - parent.at < parent.size;
            ensure(parent.kind == Type::Folder && has_it, "a node lies in another folder")?;
            if parent.at < place {
                let before = bundle.node(place - 1).map_err(broken)?;
                let before = bundle.name(before).map_err(broken)?;
                ensure(before < name.as_bytes(), "names are not sorted")?;
            }
            starts.push(starts[index(node.parent)]);
            let summary = &mut summaries[index(starts[index(place)])];
            summary.entries += 1;
            if node.kind == Type::File {
                summary.bytes += u64::from(node.size);
            }
        }
        if node.kind == Type::Folder {
            ensure(node.at == next, "a folder's entries lie elsewhere")?;
            next = next.checked_add(node.size).filter(|next| *next <= node_count).ok_or(
                PackError::Broken { reason: "a folder has more entries than there are nodes" },
            )?;
        } else {
            let content = bundle.content(node).map_err(broken)?;
            let is_fit = node.kind == Type::File || is_target(content);
            ensure(is_fit, "a link leads to what is no path")?;
        }
    }
    check_links(bundle)?;
    Ok(Contents { folders: summaries, scratch })
}

/// True for what a file may be called.
#[must_use]
pub fn is_name(name: &str) -> bool {
    (1..=NAME_BYTES_MAX).contains(&name.len())
        && name != "."
        && name != ".."
        && !name.contains(['/', '\0'])
}

/// True for what a guest may know a folder by.
#[must_use]
pub fn is_guest_path(path: &str) -> bool {
    (1..=NAME_BYTES_MAX).contains(&path.len()) && !path.contains(char::is_control)
}

fn is_target(content: &[u8]) -> bool {
    std::str::from_utf8(content).is_ok() && (1..=index(PATH_BYTES_MAX)).contains(&content.len())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn file(text: &str) -> Entry {
        Entry::File(text.into())
    }

    fn link(target: &str) -> Entry {
        Entry::Link(target.into())
    }

    fn folder<const N: usize>(entries: [(&str, Entry); N]) -> Folder {
        entries.into_iter().map(|(name, entry)| (name.to_owned(), entry)).collect()
    }

    fn sample() -> Folder {
        folder([
            ("a.txt", file("first")),
            ("empty", file("")),
            (
                "deep",
                Entry::Folder(folder([
                    ("b.txt", file("second")),
                    ("up", link("../a.txt")),
                    (
                        "deeper",
                        Entry::Folder(folder([("c", file("third")), ("top", link("../.."))])),
                    ),
                ])),
            ),
            ("hollow", Entry::Folder(folder([]))),
            ("link", link("deep/up")),
            ("loop", link("loop")),
            ("gone", link("nowhere/at/all")),
            ("dir", link("deep/")),
        ])
    }

    fn packed() -> Vec<u8> {
        let folders = [("/data".into(), sample()), ("/etc".into(), folder([("x", file("y"))]))];
        pack(&folders, None).unwrap()
    }

    fn found(path: &str) -> Result<String, Errno> {
        let bytes = packed();
        let bundle = Bundle::new(&bytes);
        match bundle.resolve(0, path.as_bytes(), true)? {
            None => Err(Errno::Success),
            Some(node) => {
                let node = bundle.node(node)?;
                let shown = match node.kind {
                    Type::Folder => bundle.name(node)?,
                    _ => bundle.content(node)?,
                };
                Ok(String::from_utf8(shown.to_vec()).unwrap())
            }
        }
    }

    #[test]
    fn paths_lead_where_the_kernel_would_go() {
        for (path, expected) in [
            ("a.txt", Ok("first")),
            ("./a.txt", Ok("first")),
            ("deep//b.txt", Ok("second")),
            ("deep/../a.txt", Ok("first")),
            ("deep/deeper/../b.txt", Ok("second")),
            ("link", Ok("first")),
            ("dir/b.txt", Ok("second")),
            ("dir/../a.txt", Ok("first")),
            ("dir", Ok("deep")),
            ("deep/deeper/top/a.txt", Ok("first")),
            ("deep/deeper/top/deep/deeper/top/a.txt", Ok("first")),
            (".", Ok("/data")),
            ("deep/..", Ok("/data")),
            ("deep/", Ok("deep")),
            ("", Err(Errno::NoEntry)),
            ("/a.txt", Err(Errno::NotPermitted)),
            ("..", Err(Errno::NotPermitted)),
            ("deep/../../data/a.txt", Err(Errno::NotPermitted)),
            ("nowhere/../a.txt", Err(Errno::NoEntry)),
            ("a.txt/", Err(Errno::NotFolder)),
            ("a.txt/.", Err(Errno::NotFolder)),
            ("a.txt/..", Err(Errno::NotFolder)),
            ("link/", Err(Errno::NotFolder)),
            ("loop", Err(Errno::Loop)),
            ("gone", Err(Errno::NoEntry)),
            ("a.txt\0", Err(Errno::Invalid)),
            ("absent", Err(Errno::Success)),
            ("absent/", Err(Errno::Success)),
            ("deep/absent", Err(Errno::Success)),
        ] {
            assert_eq!(found(path), expected.map(str::to_owned), "{path:?}");
        }
        assert_eq!(found(&"x".repeat(256)), Err(Errno::NameTooLong));
        assert_eq!(found(&"./".repeat(3000)), Err(Errno::NameTooLong));
    }

    #[test]
    fn a_folder_is_the_top_for_who_holds_it() {
        let bytes = packed();
        let bundle = Bundle::new(&bytes);
        let Ok(Some(deep)) = bundle.resolve(0, b"deep", true) else { panic!("it is there") };
        assert_eq!(bundle.resolve(deep, b"..", true), Err(Errno::NotPermitted));
        assert_eq!(bundle.resolve(deep, b"up", true), Err(Errno::NotPermitted));
        assert!(matches!(bundle.resolve(deep, b"up", false), Ok(Some(_))));
        assert!(matches!(bundle.resolve(deep, b"deeper/../b.txt", true), Ok(Some(_))));
    }

    #[test]
    fn links_that_leave_are_refused() {
        for target in ["..", "../x", "/etc", "deep/../..", "deep/out"] {
            let out = Entry::Folder(folder([("out", link("../../x"))]));
            let tree = folder([("deep", out), ("link", link(target))]);
            let error = pack(&[("/".into(), tree)], None).unwrap_err();
            assert!(matches!(error, PackError::LinkLeaves { .. }), "{target}");
        }
    }

    #[test]
    fn what_is_packed_passes_the_check() {
        let Contents { folders, scratch } = check(&packed()).unwrap();
        let of = |guest: &str, entries, bytes| Summary { guest: guest.into(), entries, bytes };
        assert_eq!(folders, [of("/data", 13, 16), of("/etc", 1, 1)]);
        assert_eq!(scratch, None);
        let none = Contents { folders: Vec::new(), scratch: None };
        assert_eq!(check(&pack(&[], None).unwrap()), Ok(none));
        let scratch = Scratch { guest: "/tmp".into(), bytes: SCRATCH_BYTES_MIN };
        let bytes = pack(&[("/data".into(), sample())], Some(&scratch)).unwrap();
        let contents = check(&bytes).unwrap();
        assert_eq!((contents.folders.len(), contents.scratch), (1, Some(scratch)));
    }

    #[test]
    fn a_folder_in_memory_is_the_last_and_of_a_size() {
        let of = |bytes| {
            let scratch = Scratch { guest: "/tmp".into(), bytes };
            pack(&[("/data".into(), sample())], Some(&scratch)).unwrap()
        };
        for bytes in [0, SCRATCH_BYTES_MIN - 1, SCRATCH_BYTES_MAX + 1, u32::MAX] {
            assert!(matches!(check(&of(bytes)), Err(PackError::Broken { .. })), "{bytes}");
        }
        // Its number in the place of another node's.
        for place in [0, 2, 5] {
            let mut bytes = of(SCRATCH_BYTES_MIN);
            bytes[index(HEAD_BYTES + place * NODE_BYTES)] = 3;
            assert!(matches!(check(&bytes), Err(PackError::Broken { .. })), "{place}");
        }
    }

    proptest! {
        /// A bundle with some bytes changed is refused, or sound; reading it is safe either way.
        #[test]
        fn broken_bundles_are_read_within_their_bounds(
            changes in prop::collection::vec((0usize..600, any::<u8>()), 1..8),
            cut in 0usize..600,
            path in "[a-z./]{0,30}",
        ) {
            let mut bytes = packed();
            for (at, value) in changes {
                let at = at % bytes.len();
                bytes[at] = value;
            }
            bytes.truncate(bytes.len().saturating_sub(cut / 8));
            let is_sound = check(&bytes).is_ok();
            let bundle = Bundle::new(&bytes);
            let found = bundle.resolve(0, path.as_bytes(), true);
            if is_sound && bundle.folder_count() > 0 {
                prop_assert!(found != Err(Errno::Io), "{found:?}");
            }
            for (_, node) in nodes(bundle) {
                let read = (bundle.name(node), bundle.content_from(node, 3));
                prop_assert!(read.0.map_or(0, <[u8]>::len) <= bytes.len());
            }
        }
    }
}
