//! Where the facts are read: a root folder with `proc` and `sys`, so that a copy of another machine's can be
//! looked at too.

use std::{fs, io::Read, path::PathBuf};

use midge_net::tier::{Chosen, choose};
use midge_net::uring::UringError;

/// The most that is read of one file; those of interest are short.
pub const FACT_BYTES_MAX: u64 = 64 * 1024;

/// A machine to look at.
#[derive(Debug)]
pub struct Machine {
    /// The folder that holds `proc` and `sys`.
    pub root: PathBuf,
    /// Finds the best way to the kernel, if the machine is this one.
    pub probe: Option<fn() -> Result<Chosen, UringError>>,
}

impl Machine {
    /// Returns the machine that this runs on.
    #[must_use]
    pub fn this() -> Self {
        Self { root: "/".into(), probe: Some(choose) }
    }

    /// Returns a file's text without surrounding white space, if it can be read.
    #[must_use]
    pub fn text(&self, path: &str) -> Option<String> {
        let mut bytes = Vec::new();
        let file = fs::File::open(self.root.join(path)).ok()?;
        file.take(FACT_BYTES_MAX).read_to_end(&mut bytes).ok()?;
        Some(String::from_utf8_lossy(&bytes).trim().to_owned())
    }

    /// Returns a file's number.
    #[must_use]
    pub fn number(&self, path: &str) -> Option<u64> {
        self.text(path)?.parse().ok()
    }

    /// Returns the names in a folder, sorted.
    #[must_use]
    pub fn names(&self, path: &str) -> Vec<String> {
        let entries = fs::read_dir(self.root.join(path)).into_iter().flatten();
        let mut names: Vec<_> =
            entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok()).collect();
        names.sort_unstable();
        names
    }

    /// Returns the value behind a `Name:` of a file of such lines.
    #[must_use]
    pub fn field(&self, path: &str, name: &str) -> Option<String> {
        let text = self.text(path)?;
        let mut lines = text.lines().filter_map(|line| line.split_once(':'));
        lines.find(|(key, _)| *key == name).map(|(_, value)| value.trim().to_owned())
    }

    /// Returns a line of what the kernel counts of memory.
    #[must_use]
    pub fn memory_bytes(&self, name: &str) -> Option<u64> {
        let text = self.field("proc/meminfo", name)?;
        Some(text.split(' ').next()?.parse::<u64>().ok()? << 10)
    }

    /// Returns the path of the process's cgroup (version 2) and of those above it, below `root`.
    #[must_use]
    pub fn cgroups(&self) -> Vec<String> {
        let text = self.text("proc/self/cgroup").unwrap_or_default();
        let own = text.lines().find_map(|line| line.strip_prefix("0::/")).unwrap_or("");
        let parts: Vec<_> =
            own.split('/').filter(|part| !part.is_empty() && *part != "..").collect();
        (0..=parts.len())
            .rev()
            .map(|depth| {
                let path: String = parts[..depth].iter().map(|part| format!("/{part}")).collect();
                format!("sys/fs/cgroup{path}")
            })
            .collect()
    }

    /// Returns the memory limit of the tightest of them, in bytes, if one has a limit.
    #[must_use]
    pub fn memory_limit(&self) -> Option<u64> {
        let groups = self.cgroups();
        groups.iter().filter_map(|group| self.number(&format!("{group}/memory.max"))).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::tests::tree;

    #[test]
    fn cgroups_are_listed_from_the_innermost() {
        let folder = tree(&[("proc/self/cgroup", "1:cpu:/x\n0::/a/b\n")]);
        let machine = Machine { root: folder.path().into(), probe: None };
        assert_eq!(machine.cgroups(), ["sys/fs/cgroup/a/b", "sys/fs/cgroup/a", "sys/fs/cgroup"]);
    }
}
