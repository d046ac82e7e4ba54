//! The folder in memory against a simple one: maps of names and vectors of bytes. Whatever is done at random, both
//! answer alike and hold the same; and when all is removed and closed, every block is free again.
//!
//! Not here: how paths are walked, which is held against the kernel (`loader/tests/files.rs`), and what calls with
//! hostile arguments do (`testing.rs`).

use std::collections::BTreeMap;

use proptest::prelude::*;

use crate::blocks::BLOCK_SIZE;
use crate::body::Source;
use crate::nodes::{Content, FIRST_COOKIE, Opening, Place, open};
use crate::own::Span;
use crate::pack;
use crate::preview1::Errno;
use crate::scratch::{DEPTH_MAX, NAMES_MAX, ROOT, SCRATCH_BYTES_MIN};
use crate::testing::{BLOCKS_MAX, Test, begin, with_fresh};
use crate::walk::Type;
use crate::{Wasi, World, wire};

/// What is done.
#[derive(Debug, Clone)]
enum Do {
    Create(String),
    Folder(String),
    Link(String),
    Unlink(String),
    RemoveFolder(String),
    Rename(String, String),
    Name(String, String),
    Write(String, u32, u32),
    Resize(String, u32),
    Allocate(String, u32, u32),
    Hold(String),
    Release(usize),
}

/// A file, a folder or a link.
#[derive(Debug, Clone)]
enum Thing {
    Folder(BTreeMap<String, usize>),
    File(Vec<u8>),
    Link,
}

/// The simple one: things by number, the folder itself first. Things without a name stay where they are.
#[derive(Debug)]
struct Model(Vec<Thing>);

type Entries = BTreeMap<String, usize>;

impl Model {
    fn new() -> Self {
        Self(vec![Thing::Folder(Entries::new())])
    }

    fn entries(&mut self, folder: usize) -> &mut Entries {
        match &mut self.0[folder] {
            Thing::Folder(entries) => entries,
            other => panic!("{other:?} is no folder"),
        }
    }

    /// Finds folder, name, and what has the name.
    fn find(&mut self, path: &str) -> Result<(usize, String, Option<usize>), Errno> {
        let (folders, name) = path.rsplit_once('/').unwrap_or(("", path));
        let mut folder = 0;
        for part in folders.split('/').filter(|part| !part.is_empty()) {
            folder = *self.entries(folder).get(part).ok_or(Errno::NoEntry)?;
            match self.0[folder] {
                Thing::Folder(_) => {}
                // Links lead nowhere here.
                Thing::Link => return Err(Errno::NoEntry),
                Thing::File(_) => return Err(Errno::NotFolder),
            }
        }
        let found = self.entries(folder).get(name).copied();
        Ok((folder, name.to_owned(), found))
    }

    fn make(&mut self, path: &str, thing: Thing) -> Result<(), Errno> {
        let (folder, name, found) = self.find(path)?;
        if found.is_some() {
            return Err(Errno::Exists);
        }
        let number = self.0.len();
        self.0.push(thing);
        self.entries(folder).insert(name, number);
        Ok(())
    }

    fn file(&mut self, path: &str) -> Result<&mut Vec<u8>, Errno> {
        let found = self.find(path)?.2.ok_or(Errno::NoEntry)?;
        match &mut self.0[found] {
            Thing::File(content) => Ok(content),
            Thing::Folder(_) => Err(Errno::IsFolder),
            Thing::Link => Err(Errno::Loop),
        }
    }

    fn remove(&mut self, path: &str, is_folder: bool) -> Result<(), Errno> {
        let (folder, name, found) = self.find(path)?;
        match (&self.0[found.ok_or(Errno::NoEntry)?], is_folder) {
            (Thing::Folder(_), false) => return Err(Errno::IsFolder),
            (Thing::Folder(entries), true) if !entries.is_empty() => return Err(Errno::NotEmpty),
            (Thing::File(_) | Thing::Link, true) => return Err(Errno::NotFolder),
            _ => {}
        }
        self.entries(folder).remove(&name);
        Ok(())
    }

    fn is_in(&self, thing: usize, folder: usize) -> bool {
        let Thing::Folder(entries) = &self.0[folder] else { return thing == folder };
        thing == folder || entries.values().any(|&entry| self.is_in(thing, entry))
    }

    fn rename(&mut self, from: &str, to: &str) -> Result<(), Errno> {
        let (from_folder, from_name, found) = self.find(from)?;
        let (to_folder, to_name, replaced) = {
            let to = self.find(to);
            found.ok_or(Errno::NoEntry).and(to)?
        };
        let found = found.ok_or(Errno::NoEntry)?;
        let is_folder = matches!(self.0[found], Thing::Folder(_));
        if is_folder && self.is_in(to_folder, found) {
            return Err(Errno::Invalid);
        }
        if replaced == Some(found) {
            return Ok(());
        }
        match replaced.map(|replaced| &self.0[replaced]) {
            Some(Thing::Folder(entries)) if is_folder && !entries.is_empty() => {
                return Err(Errno::NotEmpty);
            }
            Some(Thing::Folder(_)) if !is_folder => return Err(Errno::IsFolder),
            Some(Thing::File(_) | Thing::Link) if is_folder => return Err(Errno::NotFolder),
            _ => {}
        }
        self.entries(from_folder).remove(&from_name);
        self.entries(to_folder).insert(to_name, found);
        Ok(())
    }

    fn name(&mut self, from: &str, to: &str) -> Result<(), Errno> {
        let found = self.find(from)?.2.ok_or(Errno::NoEntry)?;
        let (folder, name, there) = self.find(to)?;
        if there.is_some() {
            return Err(Errno::Exists);
        }
        if matches!(self.0[found], Thing::Folder(_)) {
            return Err(Errno::NotPermitted);
        }
        self.entries(folder).insert(name, found);
        Ok(())
    }

    /// Does one thing. Of a write, `written` is how much the other took.
    fn act(&mut self, act: &Do, written: u32) -> Result<(), Errno> {
        match act {
            Do::Create(path) => match self.make(path, Thing::File(Vec::new())) {
                Err(Errno::Exists) => self.file(path).map(drop),
                made => made,
            },
            Do::Folder(path) => self.make(path, Thing::Folder(Entries::new())),
            Do::Link(path) => self.make(path, Thing::Link),
            Do::Unlink(path) => self.remove(path, false),
            Do::RemoveFolder(path) => self.remove(path, true),
            Do::Rename(from, to) => self.rename(from, to),
            Do::Name(from, to) => self.name(from, to),
            Do::Write(path, offset, _) => {
                let content = self.file(path)?;
                let (start, end) = (*offset as usize, (*offset + written) as usize);
                content.resize(content.len().max(end), 0);
                content[start..end].fill(content_byte(*offset));
                Ok(())
            }
            Do::Resize(path, size) => {
                self.file(path)?.resize(*size as usize, 0);
                Ok(())
            }
            Do::Allocate(path, offset, size) => {
                let content = self.file(path)?;
                let end = (*offset + *size) as usize;
                if content.len() < end {
                    content.resize(end, 0);
                }
                Ok(())
            }
            Do::Hold(path) => self.file(path).map(drop),
            Do::Release(_) => Ok(()),
        }
    }
}

fn content_byte(offset: u32) -> u8 {
    offset.to_le_bytes()[0] | 1
}

/// The folder in memory, and what is held of it.
struct Real<'r, 'a> {
    wasi: &'r mut Wasi<'a, Test>,
    held: Vec<u32>,
}

impl Real<'_, '_> {
    fn path(&mut self, path: &str) -> Span {
        self.wasi.keep(path.as_bytes())
    }

    fn place(&mut self, path: &str) -> Result<Place, Errno> {
        let path = self.path(path);
        self.wasi.resolve_name(ROOT, path, false)
    }

    fn file(&mut self, path: &str) -> Result<u32, Errno> {
        let path = self.path(path);
        let opening = Opening { follows: false, flags: 0, is_written: true };
        self.wasi.open_node(ROOT, path, opening)
    }

    /// Does one thing. Returns how much was written.
    fn act(&mut self, act: &Do) -> Result<u32, Errno> {
        match act {
            Do::Create(path) => {
                let path = self.path(path);
                let opening = Opening { follows: false, flags: open::CREATE, is_written: true };
                self.wasi.open_node(ROOT, path, opening)?;
            }
            Do::Folder(path) => {
                let path = self.path(path);
                self.wasi.make_folder(ROOT, path)?;
            }
            Do::Link(path) => {
                let (place, target) = (self.place(path)?, self.path("nowhere"));
                self.wasi.make_link(&place, target)?;
            }
            Do::Unlink(path) => {
                let path = self.path(path);
                self.wasi.remove_file(ROOT, path)?;
            }
            Do::RemoveFolder(path) => {
                let path = self.path(path);
                self.wasi.remove_folder(ROOT, path)?;
            }
            Do::Rename(from, to) => {
                let (place, to) = (self.place(from)?, self.path(to));
                self.wasi.rename(&place, ROOT, to)?;
            }
            Do::Name(from, to) => {
                let node = self.place(from)?.found.ok_or(Errno::NoEntry)?;
                let to = self.path(to);
                self.wasi.link_node(node, ROOT, to)?;
            }
            Do::Write(path, offset, size) => {
                let node = self.file(path)?;
                // The guest's memory holds what the model writes.
                let bytes = vec![content_byte(*offset); *size as usize];
                self.wasi.world.write(0, &bytes);
                return self.wasi.write_node(node, (*offset).into(), Source::Guest(0), *size);
            }
            Do::Resize(path, size) => {
                let node = self.file(path)?;
                self.wasi.resize(node, (*size).into())?;
            }
            Do::Allocate(path, offset, size) => {
                let node = self.file(path)?;
                self.wasi.allocate_node(node, (*offset).into(), (*size).into())?;
            }
            Do::Hold(path) => {
                let node = self.file(path)?;
                self.wasi.hold(node);
                self.held.push(node);
            }
            Do::Release(place) => {
                if !self.held.is_empty() {
                    let node = self.held.swap_remove(place % self.held.len());
                    self.wasi.release(node);
                }
            }
        }
        Ok(0)
    }

    fn listed(&self, folder: u32) -> Vec<(String, u32)> {
        let (mut all, mut cookie) = (Vec::new(), FIRST_COOKIE);
        while let Some(listed) = self.wasi.listed(folder, cookie).unwrap() {
            all.push((String::from_utf8(listed.name.get().to_vec()).unwrap(), listed.node));
            assert!(cookie < listed.next, "cookies grow");
            cookie = listed.next;
        }
        all
    }

    fn content(&mut self, node: u32) -> Vec<u8> {
        let size = u32::try_from(self.wasi.facts(node).unwrap().size).unwrap();
        let (mut all, content) = (Vec::new(), self.wasi.content(node).unwrap());
        assert!(matches!(content, Content::Scratch(_)));
        loop {
            let at = wire(all.len()).into();
            let given = self.wasi.give_content(&content, at, [0, 5000]);
            if given == 0 {
                break;
            }
            let mut piece = vec![0; given as usize];
            self.wasi.world.read(0, &mut piece);
            all.extend_from_slice(&piece);
        }
        assert_eq!(wire(all.len()), size);
        all
    }

    /// Compares a folder and all in it.
    fn check(&mut self, model: &Model, folder: usize, node: u32) {
        let Thing::Folder(entries) = &model.0[folder] else { panic!("a folder") };
        let mut listed = self.listed(node);
        listed.sort();
        let names: Vec<_> = listed.iter().map(|(name, _)| name).collect();
        assert_eq!(names, entries.keys().collect::<Vec<_>>());
        let facts = self.wasi.facts(node).unwrap();
        let is_folder = |&&entry: &&usize| matches!(model.0[entry], Thing::Folder(_));
        assert_eq!(facts.links, 2 + entries.values().filter(is_folder).count() as u64);
        for ((_, node), &entry) in listed.into_iter().zip(entries.values()) {
            let facts = self.wasi.facts(node).unwrap();
            let names = model.0.iter().filter_map(|thing| match thing {
                Thing::Folder(entries) => Some(entries.values().filter(|&&it| it == entry).count()),
                _ => None,
            });
            let is_of = match &model.0[entry] {
                Thing::Folder(_) => {
                    self.check(model, entry, node);
                    Type::Folder
                }
                Thing::File(content) => {
                    assert_eq!(facts.links, names.sum::<usize>() as u64);
                    assert!(self.content(node) == *content, "another content");
                    Type::File
                }
                Thing::Link => {
                    let text = self.wasi.link_text(node).unwrap();
                    assert_eq!(self.wasi.own(text), b"nowhere");
                    Type::Link
                }
            };
            assert_eq!(facts.kind, is_of);
        }
    }

    /// Removes everything, and lets go of what is held.
    fn clear(&mut self, below: &str, folder: u32) {
        for (name, node) in self.listed(folder) {
            let path = format!("{below}{name}");
            let act = if self.wasi.facts(node).unwrap().kind == Type::Folder {
                self.clear(&format!("{path}/"), node);
                Do::RemoveFolder(path)
            } else {
                Do::Unlink(path)
            };
            self.act(&act).unwrap();
        }
    }
}

fn bundle(bytes: u32) -> &'static [u8] {
    let scratch = pack::Scratch { guest: "/tmp".into(), bytes };
    Vec::leak(pack::pack(&[], Some(&scratch)).unwrap())
}

fn path() -> impl Strategy<Value = String> {
    let name = prop_oneof![
        12 => "[abc]",
        1 => Just("a name that takes more than two cells of its own".to_owned()),
        1 => Just("x".repeat(255)),
    ];
    prop::collection::vec(name, 1..4).prop_map(|parts| parts.join("/"))
}

fn size() -> impl Strategy<Value = u32> {
    prop_oneof![0u32..20, 4090u32..4100, 0u32..30_000, 4_190_000u32..4_200_000]
}

fn act() -> impl Strategy<Value = Do> {
    prop_oneof![
        4 => path().prop_map(Do::Create),
        4 => path().prop_map(Do::Folder),
        1 => path().prop_map(Do::Link),
        2 => path().prop_map(Do::Unlink),
        1 => path().prop_map(Do::RemoveFolder),
        3 => (path(), path()).prop_map(|(from, to)| Do::Rename(from, to)),
        2 => (path(), path()).prop_map(|(from, to)| Do::Name(from, to)),
        4 => (path(), size(), 1u32..20_000).prop_map(|(path, at, size)| Do::Write(path, at, size)),
        2 => (path(), size()).prop_map(|(path, size)| Do::Resize(path, size)),
        1 => (path(), size(), 1u32..20_000).prop_map(|(path, at, size)| Do::Allocate(path, at, size)),
        2 => path().prop_map(Do::Hold),
        1 => (0usize..8).prop_map(Do::Release),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(600))]

    #[test]
    fn it_is_what_a_simple_one_is(
        acts in prop::collection::vec(act(), 0..60),
        bytes in prop_oneof![Just(SCRATCH_BYTES_MIN), Just(BLOCKS_MAX * BLOCK_SIZE)],
    ) {
        with_fresh(&[], bundle(bytes), |wasi| {
            begin(wasi, true);
            let mut real = Real { wasi, held: Vec::new() };
            let mut free = Vec::new();
            // The second time on what the first left: blocks that are not zero, records that were given back.
            for _ in 0..2 {
                let mut model = Model::new();
                for act in &acts {
                    let ended = real.act(act);
                    if ended == Err(Errno::NoSpace) {
                        continue;
                    }
                    let expected = model.act(act, ended.unwrap_or(0));
                    assert_eq!(ended.map(drop), expected, "{act:?}");
                }
                real.check(&model, 0, ROOT);
                real.clear("", ROOT);
                while !real.held.is_empty() {
                    real.act(&Do::Release(0)).unwrap();
                }
                real.check(&Model::new(), 0, ROOT);
                free.push(real.wasi.scratch.room.free_count());
            }
            assert_eq!(free[0], free[1], "blocks that nobody has");
        });
    }
}

/// Does things as long as they go. Returns how many did, and what ended them.
fn until_it_ends(real: &mut Real<'_, '_>, mut next: impl FnMut(u32) -> Do) -> (u32, Errno) {
    for count in 0.. {
        if let Err(errno) = real.act(&next(count)) {
            return (count, errno);
        }
        // What was lifted for it.
        begin_again(real.wasi);
    }
    unreachable!("everything ends")
}

/// Lets the region of the request be used again; the folder stays.
fn begin_again(wasi: &mut Wasi<'_, Test>) {
    wasi.state.own.begin(256);
    wasi.state.descriptors.begin();
}

fn with_real<R>(bytes: u32, action: impl FnOnce(&mut Real<'_, '_>) -> R) -> R {
    with_fresh(&[], bundle(bytes), |wasi| {
        begin(wasi, true);
        action(&mut Real { wasi, held: Vec::new() })
    })
}

#[test]
fn a_full_folder_says_so_and_has_room_again() {
    with_real(SCRATCH_BYTES_MIN, |real| {
        real.act(&Do::Create("a".into())).unwrap();
        let write = |number| Do::Write("a".into(), number * BLOCK_SIZE, BLOCK_SIZE);
        let (count, errno) = until_it_ends(real, write);
        // All but a block of names and one of numbers.
        assert_eq!((count, errno), (SCRATCH_BYTES_MIN / BLOCK_SIZE - 2, Errno::NoSpace));
        // What is there can be written over, and a file made in what the names left.
        real.act(&write(0)).unwrap();
        real.act(&Do::Create("b".into())).unwrap();
        assert_eq!(real.act(&Do::Write("b".into(), 0, 1)), Err(Errno::NoSpace));
        real.act(&Do::Resize("a".into(), 5 * BLOCK_SIZE)).unwrap();
        // A write that finds room for a part takes that.
        let written = real.act(&Do::Write("b".into(), 0, 60_000));
        assert_eq!(written, Ok((count - 5 - 1) * BLOCK_SIZE));
        real.act(&Do::Unlink("b".into())).unwrap();
        assert_eq!(real.act(&Do::Allocate("a".into(), 0, 60_000)), Err(Errno::NoSpace));
        assert_eq!(real.content(real.listed(ROOT)[0].1).len(), 5 * BLOCK_SIZE as usize);
    });
}

#[test]
fn names_and_depth_are_limited() {
    with_real(SCRATCH_BYTES_MIN, |real| {
        real.act(&Do::Create("a".into())).unwrap();
        let (count, errno) =
            until_it_ends(real, |number| Do::Name("a".into(), format!("n{number}")));
        assert_eq!(errno, Errno::NoSpace);
        assert!((800..1100).contains(&count), "{count} names of 64 bytes in 64 KiB");
        real.wasi.scratch.names = NAMES_MAX;
        real.act(&Do::Unlink("n0".into())).unwrap();
        real.act(&Do::Name("a".into(), "again".into())).unwrap();
        assert_eq!(real.act(&Do::Name("a".into(), "more".into())), Err(Errno::NoSpace));
    });

    with_real(BLOCKS_MAX * BLOCK_SIZE, |real| {
        let (mut folders, path) = (vec![ROOT], real.path("d"));
        let errno = loop {
            let base = folders[folders.len() - 1];
            if let Err(errno) = real.wasi.make_folder(base, path) {
                break errno;
            }
            folders.push(real.wasi.resolve(base, path, false).unwrap());
        };
        assert_eq!((folders.len(), errno), (DEPTH_MAX as usize + 1, Errno::NoSpace));
        // Nor can one be moved there, with others in it; but up, and beside itself.
        real.act(&Do::Folder("a".into())).unwrap();
        real.act(&Do::Folder("a/b".into())).unwrap();
        real.act(&Do::Folder("a/b/c".into())).unwrap();
        let (place, name) = (real.place("a").unwrap(), real.path("e"));
        let to = |real: &mut Real<'_, '_>, depth: u32| {
            real.wasi.rename(&place, folders[depth as usize], name)
        };
        assert_eq!(to(real, DEPTH_MAX - 2), Err(Errno::NoSpace));
        assert_eq!(to(real, DEPTH_MAX - 3), Ok(()));
        let path = real.path("e");
        let place = real.wasi.resolve_name(folders[DEPTH_MAX as usize - 3], path, false).unwrap();
        let up = real.path("up");
        assert_eq!(real.wasi.rename(&place, ROOT, up), Ok(()));
        assert_eq!(real.listed(ROOT).len(), 2);
    });
}

#[test]
fn it_is_read_only_until_a_request_begins() {
    with_fresh(&[], bundle(SCRATCH_BYTES_MIN), |wasi| {
        let mut real = Real { wasi, held: Vec::new() };
        real.wasi.state.own.begin(256);
        assert_eq!(real.act(&Do::Create("a".into())), Err(Errno::ReadOnly));
        assert_eq!(real.act(&Do::Folder("a".into())), Err(Errno::ReadOnly));
        assert!(real.listed(ROOT).is_empty());
        // What is open then stays open, and sees what is made.
        real.wasi.hold(ROOT);
        begin(real.wasi, true);
        real.act(&Do::Create("a".into())).unwrap();
        assert_eq!(real.listed(ROOT).len(), 1);
        real.wasi.release(ROOT);
        assert_eq!(real.listed(ROOT).len(), 1);
        // Where an instance is used again as it is, a program begins with an empty one.
        begin(real.wasi, true);
        assert!(real.listed(ROOT).is_empty());
        real.act(&Do::Create("b".into())).unwrap();
        assert_eq!(real.content(real.listed(ROOT)[0].1), b"");
    });
}
