//! `cargo xtask deb`: a Debian package of the static program, with a unit for systemd and settings to begin with.
//!
//! Made by `dpkg-deb`, without root, and the same each time: files belong to root and have one time.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::{Context, ensure};

use midge_image::program::bare;

use crate::linked;

/// What can be said.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// The program; otherwise it is built, static.
    #[arg(long)]
    binary: Option<PathBuf>,
    /// The folder that the package is written to.
    #[arg(long, default_value = "target")]
    output: PathBuf,
}

const VERSION: &str = env!("CARGO_PKG_VERSION");
/// Source in the tree, place on the machine, permissions.
const FILES: [(&str, &str, u32); 8] = [
    ("tools/deb/midge.service", "lib/systemd/system/midge.service", 0o644),
    ("tools/deb/midge.toml", "etc/midge/midge.toml", 0o644),
    ("examples/hello/hello.wasm", "etc/midge/hello.wasm", 0o644),
    ("tools/deb/README.md", "usr/share/doc/midge/README.md", 0o644),
    ("CHANGELOG.md", "usr/share/doc/midge/CHANGELOG.md", 0o644),
    ("LICENSE-APACHE", "usr/share/doc/midge/LICENSE-APACHE", 0o644),
    ("LICENSE-MIT", "usr/share/doc/midge/LICENSE-MIT", 0o644),
    ("LICENSE-MIT", "usr/share/doc/midge/copyright", 0o644),
];
/// What a package's user may have changed, and an update must not.
const SETTINGS: &str = "/etc/midge/midge.toml\n/etc/midge/hello.wasm\n";

pub(crate) fn run(root: &Path, options: &Options) -> anyhow::Result<ExitCode> {
    let program = match &options.binary {
        Some(program) => program.clone(),
        None => linked::build(root)?,
    };
    let content =
        fs::read(&program).with_context(|| format!("cannot read `{}`", program.display()))?;
    let content = bare(&content).with_context(|| format!("cannot take `{}`", program.display()))?;
    println!("{}", package(root, &content, &options.output)?.display());
    Ok(ExitCode::SUCCESS)
}

fn package(root: &Path, program: &[u8], output: &Path) -> anyhow::Result<PathBuf> {
    let folder = output.join("deb");
    if folder.exists() {
        fs::remove_dir_all(&folder).context("cannot clear the last package")?;
    }
    let put = |source: &str, target: &str, mode: u32| {
        let target = folder.join(target);
        fs::create_dir_all(target.parent().unwrap_or(&folder))?;
        fs::copy(root.join(source), &target).with_context(|| format!("cannot copy `{source}`"))?;
        anyhow::Ok(fs::set_permissions(&target, PermissionsExt::from_mode(mode))?)
    };
    let installed = folder.join("usr/bin/midge");
    fs::create_dir_all(folder.join("usr/bin"))?;
    fs::write(&installed, program)?;
    fs::set_permissions(&installed, PermissionsExt::from_mode(0o755))?;
    for (source, target, mode) in FILES {
        put(source, target, mode)?;
    }
    let control = format!(
        "Package: midge\nVersion: {VERSION}\nArchitecture: amd64\nMaintainer: the midge project\n\
         Section: httpd\nPriority: optional\nRecommends: ca-certificates\n\
         Description: host for WebAssembly functions\n \
         Serves functions over HTTP, each request in an instance whose state is that of a fresh one.\n"
    );
    fs::create_dir_all(folder.join("DEBIAN"))?;
    fs::write(folder.join("DEBIAN/control"), control)?;
    fs::write(folder.join("DEBIAN/conffiles"), SETTINGS)?;
    open_folders(&folder)?;
    let target = output.join(format!("midge_{VERSION}_amd64.deb"));
    let mut command = Command::new("dpkg-deb");
    // The time of all files: the same content gives the same package.
    command.env("SOURCE_DATE_EPOCH", "0").args(["--root-owner-group", "-Zxz", "--build"]);
    let built = command.arg(&folder).arg(&target).output().context("cannot start `dpkg-deb`")?;
    ensure!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
    Ok(target)
}

/// Lets everybody look into the folders, whatever the umask says.
fn open_folders(folder: &Path) -> anyhow::Result<()> {
    fs::set_permissions(folder, PermissionsExt::from_mode(0o755))?;
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            open_folders(&path)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs a tool; none where there is no such tool.
    fn tool(program: &str, arguments: &[&str]) -> Option<(bool, String)> {
        let output = Command::new(program).args(arguments).output().ok()?;
        let said = [output.stdout, output.stderr].concat();
        Some((output.status.success(), String::from_utf8_lossy(&said).into_owned()))
    }

    #[test]
    fn a_package_is_installed_and_the_same_each_time() {
        if tool("dpkg-deb", &["--version"]).is_none() {
            println!("skipped: there is no dpkg-deb");
            return;
        }
        let root = crate::tree_root();
        let folder = tempfile::tempdir().unwrap();
        let program = b"#!/bin/sh\necho installed\n";
        let make = || fs::read(package(&root, program, folder.path()).unwrap()).unwrap();
        let bytes = make();
        assert!(bytes == make());
        let file = folder.path().join(format!("midge_{VERSION}_amd64.deb"));
        let file = file.to_str().unwrap();
        let (_, listed) = tool("dpkg-deb", &["--contents", file]).unwrap();
        assert!(listed.contains("-rwxr-xr-x root/root"), "{listed}");
        // A machine of its own, as far as packages go.
        let machine = folder.path().join("machine");
        for made in ["var/lib/dpkg/info", "var/lib/dpkg/updates"] {
            fs::create_dir_all(machine.join(made)).unwrap();
        }
        fs::write(machine.join("var/lib/dpkg/status"), "").unwrap();
        let target = format!("--root={}", machine.display());
        let log = format!("--log={}", folder.path().join("log").display());
        let install = [&target, &log, "--force-not-root", "--force-script-chrootless", "-i", file];
        let (is_installed, said) = tool("dpkg", &install).unwrap();
        assert!(is_installed, "{said}");
        let (_, status) = tool("dpkg", &[&target, "--status", "midge"]).unwrap();
        assert!(status.contains("install ok installed"), "{status}");
        assert!(status.contains("/etc/midge/midge.toml"), "{status}");
        let installed = machine.join("usr/bin/midge");
        let (_, said) = tool(installed.to_str().unwrap(), &[]).unwrap();
        assert_eq!(said, "installed\n");
    }

    #[test]
    fn systemd_takes_the_unit_for_a_safe_one() {
        let unit = crate::tree_root().join("tools/deb/midge.service");
        // From 0, nothing is exposed, to 10: the threshold is in tenths.
        let arguments = ["security", "--offline=yes", "--threshold=20", "--no-pager"];
        let all = [&arguments[..], &[unit.to_str().unwrap()]].concat();
        let Some((is_safe, said)) = tool("systemd-analyze", &all) else {
            return println!("skipped: there is no systemd-analyze");
        };
        assert!(is_safe, "{said}");
    }
}
