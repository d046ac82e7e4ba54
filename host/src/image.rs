//! What lies in an image of a machine: this program, the settings, their functions compiled, their folders, and a
//! kernel's modules.
//!
//! ```text
//!   midge.toml --Settings::load--> every fault is found before anything is written
//!      module = "a.wasm"  -> functions/NAME.midge, compiled, with its files
//!      folder = "public"  -> static/NAME/..
//!      certificates = ..  -> certificates.pem
//! ```
//!
//! The settings in the image are those of the file, but for the paths, which are the image's, and `listen`, which
//! is every address where the file says nothing: nobody could reach a machine that listens to itself alone.
//!
//! Invariant: the same inputs give the same tree. Nothing outside of the settings' folders is taken, and no
//! symbolic link is followed.

use std::collections::HashMap;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use midge_abi::manifest::Traces;
use midge_image::modules::Module;
use midge_image::tree::{Entry, Tree};
use midge_loader::artifact::{Artifact, is_artifact};
use midge_loader::engine::{Engines, Processor};
use toml::{Table, Value};

use crate::boot::places;
use crate::compile::{self, Recipe};
use crate::config::{Origin, Overrides, Settings};
use crate::output::Failure;

/// What servers have since 2013, and emulators offer.
const PROCESSOR: Processor = Processor::V3;
/// Where a machine listens whose settings do not say.
const LISTEN: &str = "0.0.0.0:8080";
/// Bytes of all files in an image: they lie in the machine's memory.
pub const IMAGE_BYTES_MAX: usize = 1 << 30;
/// Most folders within each other.
const DEPTH_MAX: usize = 64;
/// The authorities that a Debian machine trusts.
const SYSTEM_CERTIFICATES: &str = "/etc/ssl/certs/ca-certificates.crt";
const OWN_CERTIFICATES: &str = "certificates.pem";

/// A tree for an image, in the making.
#[derive(Debug, Default)]
pub struct Content {
    tree: Tree,
    bytes: usize,
}

impl Content {
    /// Puts the settings of a file and all that they name into it.
    ///
    /// # Errors
    /// Faults of the settings, modules that are refused, files that cannot be read.
    pub fn of_settings(file: &Path, processor: Option<Processor>) -> Result<Self> {
        let mut settings =
            Settings::load(file, &Overrides::default()).map_err(crate::commands::serve::refused)?;
        let own = &mut settings.build.processor;
        own.value = match (processor, &own.origin) {
            (Some(processor), _) => processor,
            (None, Origin::Default) => PROCESSOR,
            (None, _) => own.value,
        };
        let processor = own.value;
        let text = fs::read_to_string(file).with_context(|| unread(file))?;
        let mut table: Table = text.parse().context("the settings were read before")?;
        let mut content = Self::default();
        content.add_functions(&settings, &mut table)?;
        for (files, entry) in settings.statics.iter().zip(tables(&mut table, "static")) {
            let name = format!("static/{}", plain(&files.name.value));
            content.add_folder(&files.folder.value, &in_folder(&name), 0)?;
            entry.insert("folder".into(), name.into());
        }
        if let Some(path) = &settings.certificates.value {
            content.add_file(path, &in_folder(OWN_CERTIFICATES))?;
            table.insert("certificates".into(), OWN_CERTIFICATES.into());
        } else if settings.functions.iter().any(|function| function.grant.value.needs_tls()) {
            let system = Path::new(SYSTEM_CERTIFICATES);
            let next = "name a file with authorities by `certificates`, or install ca-certificates";
            content.add_file(system, places::CERTIFICATES).map_err(|error| {
                Failure::new("a function asks by TLS, and there is nobody to trust", next, error)
            })?;
        }
        let build = table.entry("build").or_insert_with(|| Table::new().into());
        if let Some(build) = build.as_table_mut() {
            build.insert("processor".into(), processor.name().into());
        }
        table.entry("listen").or_insert_with(|| LISTEN.into());
        content.add(places::SETTINGS, Entry::File(table.to_string().into_bytes()))?;
        content.add("etc/hosts", Entry::File(b"127.0.0.1 localhost\n::1 localhost\n".to_vec()))?;
        Ok(content)
    }

    fn add_functions(&mut self, settings: &Settings, table: &mut Table) -> Result<()> {
        let engines = Engines::of(settings.build.processor.value);
        let mut names: HashMap<Recipe<'_>, String> = HashMap::new();
        let entries = tables(table, "function");
        for ((function, entry), index) in settings.functions.iter().zip(entries).zip(0_usize..) {
            let recipe = Recipe::of(function, Traces::Functions);
            let name = match names.get(&recipe) {
                Some(name) => name.clone(),
                None => {
                    let name = format!("functions/{index}-{}.midge", plain(&function.name.value));
                    let artifact = artifact(&recipe, settings, &engines).with_context(|| {
                        format!("cannot take function `{}`", function.name.value)
                    })?;
                    self.add(&in_folder(&name), Entry::File(artifact))?;
                    names.insert(recipe, name.clone());
                    name
                }
            };
            entry.insert("module".into(), name.into());
            // They are part of the artifact now.
            entry.remove("files");
            entry.remove("scratch");
        }
        Ok(())
    }

    /// Puts what a machine needs to boot into it: the program, devices until `/dev` is mounted, modules, words.
    ///
    /// # Errors
    /// More than [`IMAGE_BYTES_MAX`].
    pub fn add_boot(&mut self, program: Vec<u8>, modules: Vec<Module>, words: &str) -> Result<()> {
        self.add(places::PROGRAM, Entry::Program(program))?;
        for folder in ["proc", "sys", "dev", "run", "tmp"] {
            self.add(folder, Entry::Folder)?;
        }
        // Before the program's first line its standard streams are opened: the kernel takes the console, the
        // standard library the other where there is none.
        self.add("dev/console", Entry::Device { major: 5, minor: 1 })?;
        self.add("dev/null", Entry::Device { major: 1, minor: 3 })?;
        if !words.is_empty() {
            self.add(places::WORDS, Entry::File(format!("{words}\n").into_bytes()))?;
        }
        if modules.is_empty() {
            return Ok(());
        }
        let order: String = modules.iter().map(|module| format!("{}\n", module.name)).collect();
        self.add(places::MODULES_ORDER, Entry::File(order.into_bytes()))?;
        for Module { name, content } in modules {
            self.add(&format!("{}/{name}.ko", places::MODULES), Entry::File(content))?;
        }
        Ok(())
    }

    /// Adds an entry.
    ///
    /// # Errors
    /// More than [`IMAGE_BYTES_MAX`], or a path that cannot be.
    pub fn add(&mut self, path: &str, entry: Entry) -> Result<()> {
        self.bytes += entry.content().len();
        ensure!(
            self.bytes <= IMAGE_BYTES_MAX,
            "an image holds {IMAGE_BYTES_MAX} bytes at the most, for it lies in the machine's memory; `{path}` is \
             too much"
        );
        Ok(self.tree.add(path, entry)?)
    }

    /// Returns the tree.
    #[must_use]
    pub fn into_tree(self) -> Tree {
        self.tree
    }

    fn add_file(&mut self, path: &Path, target: &str) -> Result<()> {
        let content = fs::read(path).with_context(|| unread(path))?;
        self.add(target, Entry::File(content))
    }

    fn add_folder(&mut self, folder: &Path, target: &str, depth: usize) -> Result<()> {
        ensure!(
            depth <= DEPTH_MAX,
            "`{}` lies more than {DEPTH_MAX} folders deep",
            folder.display()
        );
        self.add(target, Entry::Folder)?;
        for entry in fs::read_dir(folder).with_context(|| unread(folder))? {
            let entry = entry.with_context(|| unread(folder))?;
            let path = entry.path();
            let name = entry.file_name().into_string();
            let name = name.map_err(|_| anyhow::anyhow!("`{}` is no text", path.display()))?;
            let target = format!("{target}/{name}");
            let kind = entry.file_type().with_context(|| unread(&path))?;
            if kind.is_dir() {
                self.add_folder(&path, &target, depth + 1)?;
            } else if kind.is_file() {
                self.add_file(&path, &target)?;
            } else {
                let next = "an image takes files and folders; replace the link by what it leads to";
                let what = format!("`{}` is neither a file nor a folder", path.display());
                return Err(
                    Failure { what, next: next.into(), is_usage: false, cause: None }.into()
                );
            }
        }
        Ok(())
    }
}

fn artifact(recipe: &Recipe<'_>, settings: &Settings, engines: &Engines) -> Result<Vec<u8>> {
    let path = recipe.module;
    let artifact = if is_artifact(path).with_context(|| unread(path))? {
        recipe.refuse_files()?;
        fs::read(path).with_context(|| unread(path))?
    } else {
        compile::of_file(recipe, &settings.build)?.artifact
    };
    // What the machine would refuse is found before it boots.
    Artifact::from_bytes(&artifact, engines).with_context(|| {
        let processor = engines.processor();
        format!("`{}` does not run where the image does, on {processor}", path.display())
    })?;
    Ok(artifact)
}

/// Returns the tables of a list, in their order: as many as the settings have, for they were read of it.
fn tables<'a>(table: &'a mut Table, name: &str) -> impl Iterator<Item = &'a mut Table> {
    let list = table.get_mut(name).and_then(Value::as_array_mut);
    list.into_iter().flatten().filter_map(Value::as_table_mut)
}

fn in_folder(name: &str) -> String {
    format!("{}/{name}", places::FOLDER)
}

/// Returns a name as part of a path.
fn plain(name: &str) -> String {
    let is_plain = |letter: char| letter.is_ascii_alphanumeric() || matches!(letter, '-' | '_');
    name.chars().map(|letter| if is_plain(letter) { letter } else { '_' }).collect()
}

fn unread(path: &Path) -> String {
    format!("cannot read `{}`", path.display())
}
