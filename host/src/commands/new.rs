//! `midge new`: a folder with a function in a language of the user's, and the one command that builds it.
//!
//! The files lie in `host/templates`, a folder for each language. `NAME` in them becomes the function's name.

use std::fs;
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context, Result};
use serde::Serialize;

use crate::cli::{Language, NewArgs};
use crate::output::{self, Failure};

/// Version of the JSON object.
const SCHEMA: &str = "midge/new/1";
/// Longest name of a function, as the settings have it.
const NAME_BYTES_MAX: usize = 64;
/// What stands for the name in templates.
const PLACE: &str = "NAME";
/// The interfaces of `wasi:http` that handlers in Python are made for.
const WIT: &str = include_str!("../../templates/wit/world.wit");

#[derive(Debug, Serialize)]
struct Report<'a> {
    schema: &'static str,
    folder: String,
    files: Vec<&'a str>,
    next: [String; 2],
}

/// Path and content of each file of a template.
type Files = &'static [(&'static str, &'static str)];

const fn files(language: Language) -> Files {
    match language {
        Language::Rust => &[
            ("Cargo.toml", include_str!("../../templates/rust/Cargo.toml.in")),
            ("src/lib.rs", include_str!("../../templates/rust/lib.rs")),
            ("Makefile", include_str!("../../templates/rust/Makefile")),
            (".gitignore", "/target\n*.wasm\n*.midge\n"),
        ],
        Language::C => &[
            ("main.c", include_str!("../../templates/c/main.c")),
            ("midge.h", include_str!("../../../abi/include/midge.h")),
            ("Makefile", include_str!("../../templates/c/Makefile")),
            (".gitignore", "*.wasm\n*.midge\n"),
        ],
        Language::Zig => &[
            ("main.zig", include_str!("../../templates/zig/main.zig")),
            ("Makefile", include_str!("../../templates/zig/Makefile")),
            (".gitignore", ".zig-cache\n*.o\n*.wasm\n*.midge\n"),
        ],
        Language::Go => &[
            ("main.go", include_str!("../../templates/go/main.go")),
            ("go.mod", include_str!("../../templates/go/go.mod")),
            ("Makefile", include_str!("../../templates/go/Makefile")),
            (".gitignore", "*.wasm\n*.midge\n"),
        ],
        Language::Js => &[
            ("app.js", include_str!("../../templates/js/app.js")),
            ("build.mjs", include_str!("../../templates/js/build.mjs")),
            ("package.json", include_str!("../../templates/js/package.json.in")),
            ("Makefile", include_str!("../../templates/js/Makefile")),
            (".gitignore", "node_modules\n*.wasm\n*.midge\n"),
        ],
        Language::Python => &[
            ("app.py", include_str!("../../templates/python/app.py")),
            ("wit/world.wit", WIT),
            ("Makefile", include_str!("../../templates/python/Makefile")),
            (".gitignore", ".venv\n__pycache__\n*.wasm\n*.midge\n"),
        ],
        Language::Assemblyscript => &[
            ("index.ts", include_str!("../../templates/assemblyscript/index.ts")),
            ("package.json", include_str!("../../templates/assemblyscript/package.json.in")),
            ("Makefile", include_str!("../../templates/assemblyscript/Makefile")),
            (".gitignore", "node_modules\n*.wasm\n*.midge\n"),
        ],
    }
}

/// What `midge.toml` of a template says.
const SETTINGS: &str = "\
# midge dev builds and serves this, and again with each change; midge serve serves it as it is.
listen = \"127.0.0.1:8080\"

[[function]]
name   = \"NAME\"
module = \"NAME.wasm\"
route  = \"/*\"
";

/// Runtimes of tens of megabytes take longer to compile than others may.
const SETTINGS_LARGE: &str = "
[build]
memory = \"4 GiB\"
time   = \"5m\"
";

/// Runs the command.
///
/// # Errors
/// The folder is there already, its name is none of a function, or it cannot be written.
pub fn run(args: &NewArgs) -> Result<ExitCode> {
    let folder = args.folder.as_path();
    let shown = folder.display();
    let name = name_of(folder)?;
    let mut written = Vec::new();
    match folder.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => fs::create_dir_all(parent),
        _ => Ok(()),
    }
    .with_context(|| format!("cannot make the folder of `{shown}`"))?;
    fs::create_dir(folder).map_err(|error| {
        let next = "choose another name, or remove it";
        Failure::new(format!("cannot make the folder `{shown}`"), next, error)
    })?;
    let is_large = matches!(args.lang, Language::Js | Language::Python);
    let settings = format!("{SETTINGS}{}", if is_large { SETTINGS_LARGE } else { "" });
    let all = files(args.lang).iter().copied().chain([("midge.toml", settings.as_str())]);
    for (path, content) in all {
        let target = folder.join(path);
        let parent = target.parent().unwrap_or(folder);
        // Names in a header of ours are no places.
        let is_ours = path == "midge.h";
        let content = if is_ours { content.to_owned() } else { content.replace(PLACE, name) };
        fs::create_dir_all(parent)
            .and_then(|()| fs::write(&target, content))
            .with_context(|| format!("cannot write `{}`", target.display()))?;
        written.push(path);
    }
    let next = [format!("cd {shown}"), "midge dev".to_owned()];
    if args.json {
        let folder = shown.to_string();
        output::print_json(&Report { schema: SCHEMA, folder, files: written, next })?;
        return Ok(ExitCode::SUCCESS);
    }
    let files = written.join(", ");
    output::print(&format!(
        "{shown}: {files}\n\n  cd {shown}\n  make         # makes {name}.wasm\n  midge dev    # makes and \
         serves it, and again with each change\n"
    ))?;
    Ok(ExitCode::SUCCESS)
}

/// Returns the function's name: the folder's.
fn name_of(folder: &Path) -> Result<&str> {
    let name = folder.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let is_first = name.starts_with(|first: char| first.is_ascii_lowercase());
    let is_rest = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    if is_first && name.bytes().all(is_rest) && name.len() <= NAME_BYTES_MAX {
        return Ok(name);
    }
    Err(Failure {
        what: format!("`{}` is no name for a function", output::printable(name)),
        next: "lower-case letters, digits and hyphens, a letter first: midge new --lang rust hello"
            .into(),
        is_usage: true,
        cause: None,
    }
    .into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_packages_everywhere() {
        for name in ["hello", "a1", "my-function"] {
            assert_eq!(name_of(&Path::new("x").join(name)).unwrap(), name);
        }
        for name in ["", "1a", "A", "a b", "a/..", "ä", "-a", &"a".repeat(65)] {
            assert!(name_of(Path::new(name)).is_err(), "{name}");
        }
    }

    #[test]
    fn every_language_has_a_makefile_for_its_module() {
        for &language in <Language as clap::ValueEnum>::value_variants() {
            let files = files(language);
            let makefile = files.iter().find(|(path, _)| *path == "Makefile").unwrap().1;
            assert!(makefile.contains("\nNAME.wasm:"), "{language:?}");
            assert!(files.iter().any(|(path, _)| *path == ".gitignore"));
        }
    }
}
