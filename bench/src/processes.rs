//! A process and its children: their CPU time and their memory, as the kernel tells them (proc(5)).

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result};

/// CPU time that the threads of some processes have used so far.
#[derive(Debug, Default)]
pub(crate) struct CpuTime(BTreeMap<u32, u64>);

impl CpuTime {
    /// Reads that of a process and of all its children.
    ///
    /// # Errors
    /// If the process has gone. A child or a thread may go meanwhile.
    pub(crate) fn of_tree(root: u32) -> Result<Self> {
        let mut threads = BTreeMap::new();
        for process in tree(root) {
            let tasks = std::fs::read_dir(format!("/proc/{process}/task"));
            let tasks = match tasks {
                Err(error) if process == root => {
                    return Err(error).context("the process has gone");
                }
                Err(_) => continue,
                Ok(tasks) => tasks,
            };
            for task in tasks.flatten() {
                let text = std::fs::read_to_string(task.path().join("schedstat"));
                let thread = task.file_name().to_string_lossy().parse();
                if let (Ok(text), Ok(thread)) = (text, thread) {
                    threads.insert(thread, on_cpu_ns(&text).context("schedstat has no number")?);
                }
            }
        }
        Ok(Self(threads))
    }

    /// Returns what was used since. What a thread that has ended used after `before` is not known.
    pub(crate) fn since(&self, before: &Self) -> Duration {
        let of_thread =
            |(thread, ns): (&u32, &u64)| ns.saturating_sub(*before.0.get(thread).unwrap_or(&0));
        Duration::from_nanos(self.0.iter().map(of_thread).sum())
    }
}

/// Returns the memory of a process and all its children that is in RAM, in bytes: of a page that several processes
/// share, each has its part (Pss).
///
/// # Errors
/// If the process has gone.
pub(crate) fn proportional_bytes(root: u32) -> Result<u64> {
    // A child may go meanwhile.
    let of_children = tree(root).into_iter().skip(1).filter_map(|child| of_one(child).ok());
    Ok(of_one(root)? + of_children.sum::<u64>())
}

/// Returns that of this process alone.
///
/// # Errors
/// If the kernel does not tell.
pub(crate) fn own_proportional_bytes() -> Result<u64> {
    of_one(std::process::id())
}

fn of_one(process: u32) -> Result<u64> {
    let text = std::fs::read_to_string(format!("/proc/{process}/smaps_rollup"))
        .context("the process has gone")?;
    Ok(field_kib(&text, "Pss:").context("the process has no memory left")? * 1024)
}

/// Returns a number of KiB of a text of lines such as `Pss: 12 kB`.
pub(crate) fn field_kib(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_whitespace().next()?.parse().ok()
}

/// Returns a process and all its children, itself first.
fn tree(root: u32) -> Vec<u32> {
    let parents = parents();
    let mut found = vec![root];
    let mut next = 0;
    while next < found.len() {
        let parent = found[next];
        found.extend(parents.iter().filter(|(_, of)| *of == parent).map(|(process, _)| *process));
        next += 1;
    }
    found
}

/// Returns each process of this machine with its parent.
fn parents() -> Vec<(u32, u32)> {
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let processes = entries.filter_map(|entry| entry.file_name().to_string_lossy().parse().ok());
    let with_parent = processes.filter_map(|process: u32| {
        let file = PathBuf::from(format!("/proc/{process}/stat"));
        Some((process, parent(&std::fs::read_to_string(file).ok()?)?))
    });
    with_parent.collect()
}

/// Reads the parent out of `stat`, whose second field is a name with whatever characters in it.
fn parent(stat: &str) -> Option<u32> {
    let (_, behind_name) = stat.rsplit_once(')')?;
    behind_name.split_whitespace().nth(1)?.parse().ok()
}

/// Reads the time on a CPU out of `schedstat`.
fn on_cpu_ns(schedstat: &str) -> Option<u64> {
    schedstat.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;

    #[test]
    fn a_parent_is_read_whatever_the_name() {
        assert_eq!(parent("7 (midge) S 3 7 7 0"), Some(3));
        assert_eq!(parent("7 (a) b) R 1 (c) S 4 7 7 0"), Some(4));
        assert_eq!(parent("7 midge S"), None);
        assert_eq!(parent(""), None);
    }

    #[test]
    fn numbers_are_read_from_lines() {
        assert_eq!(field_kib("Rss:  12 kB\nPss:   5 kB\n", "Pss:"), Some(5));
        assert_eq!(field_kib("Pss_Anon: 5 kB\n", "Pss:"), None);
        assert_eq!(on_cpu_ns("123 4 5\n"), Some(123));
        assert_eq!(on_cpu_ns(""), None);
    }

    #[test]
    fn time_is_counted_by_threads_and_never_below_none() {
        let time = |threads: &[(u32, u64)]| CpuTime(threads.iter().copied().collect());
        // Thread 1 went on, thread 2 ended, thread 3 began.
        let (before, after) = (time(&[(1, 100), (2, 5000)]), time(&[(1, 150), (3, 7)]));
        assert_eq!(after.since(&before), Duration::from_nanos(57));
    }

    #[test]
    fn a_child_of_a_child_belongs_to_the_tree() {
        // Two processes that wait for a line, and one that has gone.
        let mut shell = Command::new("sh")
            .args(["-c", "sh -c 'read line'; true"])
            .stdin(Stdio::piped())
            .spawn()
            .unwrap();
        let root = std::process::id();
        let seen = |wanted: usize| (0..100_000).any(|_| tree(shell.id()).len() == wanted);
        assert!(seen(2), "{:?}", tree(shell.id()));
        assert!(tree(root).contains(&shell.id()));
        assert!(CpuTime::of_tree(root).unwrap().0.len() > 2);
        assert!(proportional_bytes(shell.id()).unwrap() > 0);
        drop(shell.stdin.take());
        shell.wait().unwrap();
        assert!(CpuTime::of_tree(shell.id()).is_err());
        assert!(proportional_bytes(shell.id()).is_err());
    }
}
