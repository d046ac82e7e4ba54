//! The compilers: which are there, whether they are the pinned ones, and how they are called.
//!
//! Rust guests need the target's library. Two ways to it: a toolchain with the library's sources (the
//! pinned one: Debian's `rustc-web`), or a toolchain that has the target (`rustup target add`). Both
//! build the library along or link the ready one; the flags of the functions are the same.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, bail};

use super::{Guest, Language};

const TARGET: &str = "wasm32-unknown-unknown";
const CLANG_VERSION: &str = "22.1.8";
const RUST_VERSION: &str = "1.96.0";
/// Where the tree seems to be while Rust guests are built: a link to it. Cargo takes the folder of a
/// package outside of the workspace (the SDK) into the names of its symbols, so that without this a tree
/// in another folder gives other bytes.
const SAME_PLACE: &str = "/tmp/midge-guests";
/// Two pages, and one KiB that shares a page with statics and request (see abi/include/midge.h).
const C_STACK_SIZE: u32 = 9216;

/// Few small frames; what a request uses of it is one page.
const WASI_STACK_SIZE: u32 = 16 * 1024;

/// clang with its linker.
pub(crate) struct Clang {
    program: &'static str,
    pub(crate) is_pinned: bool,
}

impl Clang {
    pub(crate) fn find() -> Option<Self> {
        ["clang-22", "clang"].into_iter().find_map(|program| {
            let version = version(program.as_ref())?;
            Some(Self { program, is_pinned: version.contains(CLANG_VERSION) })
        })
    }

    pub(super) fn build(
        &self,
        root: &Path,
        guest: &Guest,
        folder: &Path,
    ) -> anyhow::Result<PathBuf> {
        let output = folder.join(format!("{}.wasm", guest.name));
        let mut clang = Command::new(self.program);
        clang.current_dir(root);
        if guest.language == Language::CProgram {
            // Debian's wasi-libc has its folders under this older name of the target.
            clang.args(["--target=wasm32-wasi", "-Wno-deprecated", "-std=c99", "-Wall", "-Wextra"]);
            clang.args(["-Werror", "-O2", "-Wl,--strip-debug"]);
            clang.arg(guest.folder.join(format!("{}.c", guest.name))).arg("-o").arg(&output);
            succeed(&mut clang)?;
            return Ok(output);
        }
        clang.arg(format!("--target={TARGET}"));
        clang.args(["-std=c99", "-Wall", "-Wextra", "-Wpedantic", "-Werror", "-O2"]);
        clang.args(["-ffreestanding", "-nostdlib", "-mbulk-memory", "-I", "abi/include"]);
        clang.args(["-Wl,--no-entry", "-Wl,--stack-first", "-Wl,--strip-debug"]);
        clang.arg(format!("-Wl,-z,stack-size={C_STACK_SIZE}"));
        clang.arg(guest.folder.join(format!("{}.c", guest.name))).arg("-o").arg(&output);
        succeed(&mut clang)?;
        Ok(output)
    }
}

/// A Rust toolchain that can build for the target.
pub(crate) struct Rust {
    library: Library,
    pub(crate) is_pinned: bool,
}

enum Library {
    /// Built along, by the toolchain in this folder.
    Sources(PathBuf),
    /// Part of the toolchain in use.
    Ready,
}

impl Rust {
    pub(crate) fn find(rust_web: &Path) -> Option<Self> {
        let rustc = rust_web.join("bin/rustc");
        if rustc.exists() && linker().is_some() {
            let mut command = Command::new(&rustc);
            let version = output(with_libraries(command.arg("--version"), rust_web))?;
            let is_pinned = version.contains(RUST_VERSION);
            return Some(Self { library: Library::Sources(rust_web.to_path_buf()), is_pinned });
        }
        let sysroot = output(Command::new("rustc").args(["--print", "sysroot"]))?;
        let ready = Path::new(sysroot.trim()).join("lib/rustlib").join(TARGET);
        ready.exists().then_some(Self { library: Library::Ready, is_pinned: false })
    }

    pub(super) fn build(
        &self,
        root: &Path,
        guest: &Guest,
        needs_std: bool,
        folder: &Path,
    ) -> anyhow::Result<PathBuf> {
        let mut cargo = match &self.library {
            Library::Sources(rust_web) => {
                let mut cargo = Command::new(rust_web.join("bin/cargo"));
                with_libraries(&mut cargo, rust_web).env("RUSTC", rust_web.join("bin/rustc"));
                let parts = if needs_std { "std,panic_abort" } else { "core,alloc,panic_abort" };
                cargo.arg(format!("-Zbuild-std={parts}"));
                cargo.arg("-Zbuild-std-features=optimize_for_size");
                cargo
            }
            Library::Ready => Command::new("cargo"),
        };
        let is_wasi = guest.language == Language::Wasi;
        for inherited in ["RUSTFLAGS", "CARGO_ENCODED_RUSTFLAGS", "RUSTUP_TOOLCHAIN", "CARGO"] {
            cargo.env_remove(inherited);
        }
        // The -Z flags are kept for nightly compilers; this lets a stable one take them.
        cargo.env("RUSTC_BOOTSTRAP", "1").current_dir(&guest.folder);
        let build: &[&str] = if is_wasi {
            &["rustc", "--profile", "wasi", "--crate-type", "cdylib"]
        } else {
            &["build", "--release"]
        };
        cargo.args(build).args(["--locked", "--target", TARGET, "--target-dir"]).arg(folder);
        let seeming_root = link_to(root)?;
        let in_tree = guest.folder.strip_prefix(root).context("the example lies in the tree")?;
        cargo.arg("--manifest-path").arg(seeming_root.join(in_tree).join("Cargo.toml"));
        cargo.arg("--config").arg(self.flags(&seeming_root, guest.language)?);
        if guest.language == Language::Component {
            let tools = component_tools()?;
            let linker = tools.join("wasm-component-ld");
            cargo.arg("--config").arg(format!("target.{TARGET}.linker='{}'", linker.display()));
        } else if let (Library::Sources(_), Some(linker)) = (&self.library, linker()) {
            cargo.arg("--config").arg(format!("target.{TARGET}.linker='{linker}'"));
        }
        succeed(&mut cargo)?;
        let profile = if is_wasi { "wasi/midge_" } else { "release/" };
        Ok(folder.join(TARGET).join(format!("{profile}{}.wasm", guest.name)))
    }

    /// Beside the stack's size (`examples/.cargo/config.toml`): nothing that only says where on the
    /// builder's disk a line stood. A trap's backtrace has function names without it.
    fn flags(&self, root: &Path, language: Language) -> anyhow::Result<String> {
        let cargo_home = std::env::home_dir().context("no home folder")?.join(".cargo");
        let mut flags = vec!["-Zlocation-detail=none".into(), "-Zfmt-debug=none".into()];
        match language {
            Language::Wasi => flags.push(format!("-Clink-arg=-zstack-size={WASI_STACK_SIZE}")),
            Language::Component => {
                let linker = component_tools()?.join("gcc-ld/wasm-ld");
                flags.push("-Clinker-flavor=wasm-ld".into());
                flags.push("-Clink-arg=--wasm-ld-path".into());
                flags.push(format!("-Clink-arg={}", linker.display()));
            }
            _ => {}
        }
        let mut remap = |folder: &Path, name| {
            flags.push(format!("--remap-path-prefix={}={name}", folder.display()));
        };
        remap(root, "midge");
        remap(&cargo_home, "cargo");
        if let Library::Sources(rust_web) = &self.library {
            remap(rust_web, "rust");
        }
        let quoted: Vec<String> = flags.iter().map(|flag| format!("'{flag}'")).collect();
        Ok(format!("target.{TARGET}.rustflags=[{}]", quoted.join(",")))
    }
}

/// Waits until no other tree is built under [`SAME_PLACE`]: the link is one for the whole machine, and a build whose
/// sources change under it makes something of both. Others wait until what this returns is dropped.
pub(super) fn claim_place() -> anyhow::Result<fs::File> {
    let path = format!("{SAME_PLACE}.lock");
    let options = fs::OpenOptions::new().create(true).truncate(false).write(true).open(&path);
    let file = options.with_context(|| format!("cannot make {path}"))?;
    file.lock().with_context(|| format!("cannot lock {path}"))?;
    Ok(file)
}

/// Makes the tree reachable at [`SAME_PLACE`].
fn link_to(root: &Path) -> anyhow::Result<PathBuf> {
    let link = PathBuf::from(SAME_PLACE);
    if fs::read_link(&link).is_ok_and(|target| target == root) {
        return Ok(link);
    }
    if link.is_symlink() {
        fs::remove_file(&link).with_context(|| format!("cannot replace {SAME_PLACE}"))?;
    }
    symlink(root, &link).with_context(|| format!("cannot make {SAME_PLACE}"))?;
    Ok(link)
}

/// Says how to get what is missing.
pub(crate) fn explain_missing(needs_clang: bool, needs_rust: bool) {
    if needs_clang {
        eprintln!(
            "for C, on Debian: apt-get install --no-install-recommends clang-22 lld-22 \
             wasi-libc libclang-rt-22-dev-wasm32"
        );
    }
    if needs_rust {
        eprintln!(
            "for Rust: rustup target add {TARGET}\n\
             or, for the committed bytes, Debian's Rust {RUST_VERSION} beside your own, and lld-22:\n  \
             mkdir -p target/rustc-web && cd target/rustc-web && apt-get download rustc-web cargo-web \
             rust-web-src libstd-rust-web-1.96 libstd-rust-web-dev libllvm22 libgit2-1.5 \
             libhttp-parser2.9 libmbedcrypto7 libmbedtls14 libmbedx509-1 && \
             for package in *.deb; do dpkg -x \"$package\" .; done"
        );
    }
}

/// Where rustup's toolchain has its linkers, one of which makes components.
fn component_tools() -> anyhow::Result<PathBuf> {
    let sysroot = output(Command::new("rustc").args(["--print", "sysroot"]));
    let sysroot = sysroot.context("no `rustc`, whose linker makes components")?;
    let host = output(Command::new("rustc").args(["--print", "host-tuple"]));
    let host = host.context("`rustc` does not say what it runs on")?;
    Ok(Path::new(sysroot.trim()).join("lib/rustlib").join(host.trim()).join("bin"))
}

fn linker() -> Option<&'static str> {
    ["wasm-ld-22", "wasm-ld"].into_iter().find(|program| version(program.as_ref()).is_some())
}

/// The unpacked toolchain is not installed, so the loader must be told where its libraries are.
fn with_libraries<'a>(command: &'a mut Command, rust_web: &Path) -> &'a mut Command {
    let libraries = rust_web.join("lib");
    let machine_libraries = libraries.join("x86_64-linux-gnu");
    let path = format!("{}:{}", machine_libraries.display(), libraries.display());
    command.env("LD_LIBRARY_PATH", path)
}

fn version(program: &OsStr) -> Option<String> {
    output(Command::new(program).arg("--version"))
}

fn output(command: &mut Command) -> Option<String> {
    let output = command.output().ok().filter(|output| output.status.success())?;
    String::from_utf8(output.stdout).ok()
}

fn succeed(command: &mut Command) -> anyhow::Result<()> {
    let program = command.get_program().to_string_lossy().into_owned();
    let output = command.output().with_context(|| format!("cannot start `{program}`"))?;
    if !output.status.success() {
        bail!("`{program}` failed:\n{}", String::from_utf8_lossy(&output.stderr));
    }
    Ok(())
}
