//! Bundles of files: where paths lead, held against the kernel's own resolution beneath a folder.
//!
//! Trees of folders, files and links are made at random, written to the disk, and packed. Then every path must lead to
//! the same in the bundle as `openat2` with `RESOLVE_BENEATH` finds on the disk, or fail alike.

use std::collections::HashMap;
use std::fs;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::Path;

use midge_loader::files::{FilesError, Mapping, read};
use midge_wasi::bundle::Bundle;
use midge_wasi::pack::PackError;
use midge_wasi::preview1::Errno;
use proptest::prelude::*;
use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, openat2};

/// What is made at a path, if its folder is there and the name is free.
#[derive(Debug, Clone)]
enum Make {
    Folder,
    File,
    Link(String),
}

fn name() -> impl Strategy<Value = &'static str> {
    prop_oneof![Just("a"), Just("b"), Just("c")]
}

/// Paths of few names, so that they often lead somewhere.
fn path() -> impl Strategy<Value = String> {
    let part = prop_oneof![
        8 => name().prop_map(str::to_owned),
        2 => Just("..".to_owned()),
        1 => Just(".".to_owned()),
        1 => Just(String::new()),
    ];
    (prop::collection::vec(part, 1..6), prop::bool::weighted(0.1)).prop_map(|(parts, is_folder)| {
        let path = parts.join("/");
        if is_folder { path + "/" } else { path }
    })
}

fn make() -> impl Strategy<Value = (Vec<&'static str>, Make)> {
    let made = prop_oneof![
        3 => Just(Make::Folder),
        2 => Just(Make::File),
        3 => path().prop_filter("links lead somewhere", |path| !path.is_empty()).prop_map(Make::Link),
    ];
    (prop::collection::vec(name(), 1..4), made)
}

/// Makes a tree on the disk and packs it. Links that lead out are taken away, as the packer names them.
fn packed(folder: &Path, makes: &[(Vec<&str>, Make)]) -> Vec<u8> {
    for (parts, made) in makes {
        let path = folder.join(parts.join("/"));
        // Through links too: what is made lies in the folder in any case, or nowhere.
        let is_within = path.parent().and_then(|parent| parent.canonicalize().ok());
        if !is_within.is_some_and(|parent| parent.starts_with(folder)) {
            continue;
        }
        // What is there already stays.
        let _is_there = match made {
            Make::Folder => fs::create_dir(&path),
            Make::File if path.symlink_metadata().is_err() => fs::write(&path, parts.join(" ")),
            Make::File => Ok(()),
            Make::Link(target) => symlink(target, &path),
        };
    }
    loop {
        let mapping = Mapping { folder: folder.to_owned(), guest: "/".into() };
        match read(&[mapping], None) {
            Ok(bytes) => return bytes,
            Err(FilesError::Pack(PackError::LinkLeaves { path, .. })) => {
                fs::remove_file(folder.join(path)).expect("the link that was named");
            }
            Err(error) => panic!("{error}"),
        }
    }
}

/// Returns the path of everything below a folder by its inode.
fn inodes(folder: &Path) -> HashMap<u64, String> {
    let (mut inodes, mut open) = (HashMap::new(), vec![String::new()]);
    while let Some(path) = open.pop() {
        let facts = folder.join(&path).symlink_metadata().expect("it was found");
        inodes.insert(facts.ino(), path.clone());
        if facts.is_dir() {
            for entry in fs::read_dir(folder.join(&path)).expect("a folder of ours") {
                let name = entry.expect("an entry").file_name().into_string().expect("ours");
                open.push(if path.is_empty() { name } else { format!("{path}/{name}") });
            }
        }
    }
    inodes
}

fn path_of(bundle: Bundle<'_>, mut place: u32) -> String {
    let mut names = Vec::new();
    loop {
        let node = bundle.node(place).expect("a node that was found");
        if node.parent == place {
            names.reverse();
            return names.join("/");
        }
        names
            .push(String::from_utf8(bundle.name(node).expect("its name").to_vec()).expect("UTF-8"));
        place = node.parent;
    }
}

fn by_kernel(folder: &Path, path: &str, follows: bool) -> Result<u64, Errno> {
    let beneath = openat2(
        CWD,
        folder,
        OFlags::PATH | OFlags::DIRECTORY,
        Mode::empty(),
        ResolveFlags::empty(),
    );
    let flags = if follows { OFlags::PATH } else { OFlags::PATH | OFlags::NOFOLLOW };
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
    let found = openat2(beneath.expect("the folder"), path, flags, Mode::empty(), resolve);
    match found {
        Ok(found) => Ok(rustix::fs::fstat(found).expect("it is open").st_ino),
        Err(rustix::io::Errno::NOENT) => Err(Errno::NoEntry),
        Err(rustix::io::Errno::NOTDIR) => Err(Errno::NotFolder),
        Err(rustix::io::Errno::XDEV) => Err(Errno::NotPermitted),
        Err(rustix::io::Errno::LOOP) => Err(Errno::Loop),
        Err(rustix::io::Errno::NAMETOOLONG) => Err(Errno::NameTooLong),
        Err(other) => panic!("{other} for {path:?}"),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn paths_lead_where_the_kernel_leads(
        makes in prop::collection::vec(make(), 0..40),
        paths in prop::collection::vec((path(), any::<bool>()), 60),
    ) {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let folder = folder.path().canonicalize().expect("it is there");
        let bytes = packed(&folder, &makes);
        prop_assert!(midge_wasi::pack::check(&bytes).is_ok());
        let (bundle, inodes) = (Bundle::new(&bytes), inodes(&folder));
        for (path, follows) in paths {
            let expected = by_kernel(&folder, &path, follows).map(|inode| inodes[&inode].clone());
            let found = match bundle.resolve(0, path.as_bytes(), follows) {
                Ok(Some(node)) => Ok(path_of(bundle, node)),
                Ok(None) => Err(Errno::NoEntry),
                Err(errno) => Err(errno),
            };
            prop_assert_eq!(found, expected, "{:?}, followed: {}", path, follows);
        }
    }
}

#[test]
fn long_ways_end_as_the_kernel_ends_them() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path().canonicalize().unwrap();
    fs::write(folder.join("end"), "").unwrap();
    for number in 0..50 {
        let target = if number == 0 { "end".to_owned() } else { format!("link{}", number - 1) };
        symlink(target, folder.join(format!("link{number}"))).unwrap();
    }
    fs::create_dir(folder.join("d")).unwrap();
    symlink("../d", folder.join("d/again")).unwrap();
    let bytes = packed(&folder, &[]);
    let bundle = Bundle::new(&bytes);
    let mut paths: Vec<String> = (0..50).map(|number| format!("link{number}")).collect();
    paths.extend((30..50).map(|times| "d/again/".repeat(times)));
    paths.extend((30..50).map(|times| "again/".repeat(times)).map(|path| format!("d/{path}.")));
    paths.extend([255, 256].map(|size| "x".repeat(size)));
    paths.extend([4094, 4095, 4096].map(|size| format!("{}d", "./".repeat(size / 2))));
    for path in paths {
        let expected = by_kernel(&folder, &path, true).map(drop);
        let found = match bundle.resolve(0, path.as_bytes(), true) {
            Ok(None) => Err(Errno::NoEntry),
            found => found.map(drop),
        };
        assert_eq!(found, expected, "{} bytes: {}", path.len(), &path[..path.len().min(60)]);
    }
}
