//! `cargo xtask guests`: rebuilds the example functions from source.
//!
//!   examples/NAME/NAME.c        C     -> clang; with wasi-libc where it has a `main`
//!   examples/NAME/Cargo.toml    Rust  -> cargo, with the standard library built along
//!   wasi/                       Rust, the module that the loader links with components
//!
//! Each result replaces `examples/NAME/NAME.wasm` (`loader/src/link/wasi.wasm`), or is compared with it
//! (`--check`). A language whose
//! tools are missing is skipped with a word on how to get them. The tools are pinned by version: with
//! others the functions do the same, but their bytes differ.
//!
//! Invariant: no committed function holds a path of the machine that built it (`machine_path`).

mod tools; // which compilers there are, and how they are called

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, bail};

use self::tools::{Clang, Rust};

/// Above this size a function is worth a look: what is in it that need not be?
const GUEST_BYTES_MAX: usize = 64 * 1024;

#[derive(clap::Args)]
pub(crate) struct Options {
    /// Compare with the committed functions instead of replacing them.
    #[arg(long)]
    check: bool,
    /// Folder of a Rust toolchain that brings its library's sources.
    #[arg(long, env = "MIDGE_RUST_WEB", default_value = "target/rustc-web/usr")]
    rust_web: PathBuf,
    /// Only these functions.
    names: Vec<String>,
}

/// An example function: where its source is, and in which language.
#[derive(Debug, PartialEq, Eq)]
struct Guest {
    name: String,
    folder: PathBuf,
    language: Language,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Language {
    C,
    /// A program with its standard library, for WASI preview 1.
    CProgram,
    Rust {
        needs_std: bool,
    },
    /// A component of wasi:http.
    Component,
    /// The WASI module: Rust without std, by a profile of its own.
    Wasi,
}

pub(crate) fn run(root: &Path, options: &Options) -> anyhow::Result<ExitCode> {
    let mut guests = find(&root.join("examples"))?;
    guests.push(Guest { name: "wasi".into(), folder: root.join("wasi"), language: Language::Wasi });
    let guests = chosen(guests, &options.names)?;
    let clang = Clang::find();
    let rust = Rust::find(&root.join(&options.rust_web));
    let build_folder = root.join("target/guests");
    fs::create_dir_all(&build_folder)
        .with_context(|| format!("cannot make {}", build_folder.display()))?;

    let _claim = tools::claim_place()?;
    let (mut differing, mut skipped) = (0, 0);
    for guest in guests {
        let built = match (guest.language, &clang, &rust) {
            (Language::C | Language::CProgram, Some(clang), _) => {
                clang.build(root, &guest, &build_folder)?
            }
            (Language::Rust { needs_std }, _, Some(rust)) => {
                rust.build(root, &guest, needs_std, &build_folder)?
            }
            (Language::Wasi, _, Some(rust)) => rust.build(root, &guest, false, &build_folder)?,
            (Language::Component, _, Some(rust)) => {
                rust.build(root, &guest, true, &build_folder)?
            }
            _ => {
                skipped += 1;
                println!("{:10} skipped", guest.name);
                continue;
            }
        };
        let bytes = fs::read(&built).with_context(|| format!("no {}", built.display()))?;
        report(root, &guest, &bytes)?;
        let committed = match guest.language {
            Language::Wasi => root.join("loader/src/link/wasi.wasm"),
            _ => guest.folder.join(format!("{}.wasm", guest.name)),
        };
        if options.check {
            let is_same = fs::read(&committed).is_ok_and(|committed| committed == bytes);
            if !is_same {
                differing += 1;
                println!("{:10} differs from {}", "", committed.display());
            }
        } else {
            fs::write(&committed, &bytes)
                .with_context(|| format!("cannot write {}", committed.display()))?;
        }
    }
    if skipped > 0 {
        tools::explain_missing(clang.is_none(), rust.is_none());
    }
    let are_pinned =
        clang.is_none_or(|clang| clang.is_pinned) && rust.is_none_or(|rust| rust.is_pinned);
    Ok(verdict(differing, are_pinned))
}

fn verdict(differing: usize, are_pinned: bool) -> ExitCode {
    if differing > 0 && !are_pinned {
        println!("warning: the tools have other versions than the pinned ones: bytes may differ");
        return ExitCode::SUCCESS;
    }
    if differing > 0 { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

/// Finds the examples, in the order of their names.
fn find(examples: &Path) -> anyhow::Result<Vec<Guest>> {
    let entries = fs::read_dir(examples).with_context(|| format!("no {}", examples.display()))?;
    let mut guests = Vec::new();
    for entry in entries {
        let folder = entry?.path();
        let Some(name) = folder.file_name().and_then(|name| name.to_str()).map(String::from) else {
            continue;
        };
        let language = if let Ok(source) = fs::read_to_string(folder.join(format!("{name}.c"))) {
            if source.contains("int main(") { Language::CProgram } else { Language::C }
        } else if let Ok(manifest) = fs::read_to_string(folder.join("Cargo.toml")) {
            if manifest.contains("wasip2") {
                Language::Component
            } else {
                Language::Rust { needs_std: manifest.contains("\"std\"") }
            }
        } else {
            continue;
        };
        guests.push(Guest { name, folder, language });
    }
    guests.sort_by(|left, right| left.name.cmp(&right.name));
    Ok(guests)
}

fn chosen(guests: Vec<Guest>, names: &[String]) -> anyhow::Result<Vec<Guest>> {
    if let Some(unknown) = names.iter().find(|&name| guests.iter().all(|guest| guest.name != *name))
    {
        bail!("there is no example `{unknown}`");
    }
    let is_chosen = |guest: &Guest| names.is_empty() || names.contains(&guest.name);
    Ok(guests.into_iter().filter(is_chosen).collect())
}

fn report(root: &Path, guest: &Guest, bytes: &[u8]) -> anyhow::Result<()> {
    println!("{:10} {:7} {}", guest.name, bytes.len(), blake3::hash(bytes).to_hex());
    if let Some(path) = machine_path(root, bytes) {
        bail!("`{}` holds the path `{path}` of this machine", guest.name);
    }
    if bytes.len() > GUEST_BYTES_MAX {
        println!("{:10} larger than {GUEST_BYTES_MAX} bytes", "");
    }
    Ok(())
}

/// Finds a folder of the builder's in a built function.
fn machine_path(root: &Path, bytes: &[u8]) -> Option<String> {
    let folders = ["home", "root", "Users", "tmp", "usr"].map(|name| format!("/{name}/"));
    let root = root.display().to_string();
    folders.into_iter().chain([root]).find(|folder| contains(bytes, folder.as_bytes()))
}

fn contains(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|window| window == part)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn examples_are_found_by_their_sources() {
        let folder = tempfile::tempdir().unwrap();
        let put = |path: &str, text: &str| {
            let path = folder.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        put("b/Cargo.toml", "features = [\"alloc\"]");
        put("c/Cargo.toml", "features = [\"std\"]");
        put("a/a.c", "");
        put("d/d.c", "int main(void) { return 0; }");
        put("e/Cargo.toml", "wasip2.workspace = true");
        put("hostile/x.wat", "");
        let guests = find(folder.path()).unwrap();
        let found: Vec<_> = guests.iter().map(|g| (g.name.as_str(), g.language)).collect();
        let expected = [
            ("a", Language::C),
            ("b", Language::Rust { needs_std: false }),
            ("c", Language::Rust { needs_std: true }),
            ("d", Language::CProgram),
            ("e", Language::Component),
        ];
        assert_eq!(found, expected);
        assert!(chosen(guests, &["x".into()]).is_err());
    }

    #[test]
    fn a_machine_path_is_found() {
        let root = Path::new("/some/tree");
        assert_eq!(machine_path(root, b"..midge/abi/guest/src/lib.rs.."), None);
        assert_eq!(machine_path(root, b"../some/tree/abi.."), Some("/some/tree".into()));
        assert_eq!(machine_path(root, b"../home/x.."), Some("/home/".into()));
    }

    #[test]
    fn other_bytes_from_other_tools_are_no_failure() {
        assert_eq!(verdict(1, false), ExitCode::SUCCESS);
        assert_eq!(verdict(1, true), ExitCode::FAILURE);
        assert_eq!(verdict(0, true), ExitCode::SUCCESS);
    }
}
