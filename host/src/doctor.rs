//! What this machine offers to midge: facts from `/proc` and `/sys`, each with a verdict, the reason, and the
//! line that would better it.
//!
//! Invariant: an examination reads and judges, it changes nothing. What cannot be read is said to be unknown,
//! never guessed.

mod kernel; // version, io_uring, limits of the process, sockets
pub mod machine; // where the facts are read
mod memory; // mappings, swap, huge pages, the cgroup's limit
mod processor; // clocks, mitigations, isolation, quota, nodes

pub use self::machine::Machine;

/// How a fact bears on midge.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verdict {
    /// As it should be, or of no consequence.
    Ok,
    /// Works, but costs something.
    Warn,
    /// Serving is impossible.
    Bad,
}

/// One fact.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// What was looked at.
    pub what: &'static str,
    /// What was found.
    pub found: String,
    /// What that means.
    pub verdict: Verdict,
    /// Why it matters to midge.
    pub why: &'static str,
    /// The line that would better it, unless it is as it should be.
    pub better: Option<String>,
}

impl Verdict {
    /// Returns the verdict as one word.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warn => "warn",
            Self::Bad => "bad",
        }
    }
}

impl Finding {
    fn ok(what: &'static str, found: impl Into<String>, why: &'static str) -> Self {
        Self { what, found: found.into(), verdict: Verdict::Ok, why, better: None }
    }

    fn warn(
        what: &'static str,
        found: impl Into<String>,
        why: &'static str,
        better: impl Into<String>,
    ) -> Self {
        let better = Some(better.into());
        Self { what, found: found.into(), verdict: Verdict::Warn, why, better }
    }

    fn bad(
        what: &'static str,
        found: impl Into<String>,
        why: &'static str,
        better: impl Into<String>,
    ) -> Self {
        Self { verdict: Verdict::Bad, ..Self::warn(what, found, why, better) }
    }

    /// Returns what is said where a fact cannot be read.
    fn unknown(what: &'static str, why: &'static str) -> Self {
        Self::ok(what, "unknown", why)
    }
}

/// Looks at everything.
#[must_use]
pub fn examine(machine: &Machine) -> Vec<Finding> {
    let mut findings = kernel::examine(machine);
    findings.extend(memory::examine(machine));
    findings.extend(processor::examine(machine));
    findings
}

#[cfg(test)]
pub(crate) mod tests {
    use std::{fs, io};

    use midge_net::RingTier;
    use midge_net::tier::Chosen;
    use midge_net::uring::UringError;

    use super::*;

    /// A tree of files that stands for a machine.
    pub(crate) fn tree(files: &[(&str, &str)]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = folder.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        folder
    }

    /// Examines a machine with these files and expects `verdict found` for one of the facts.
    #[track_caller]
    pub(super) fn check(files: &[(&str, &str)], what: &str, expected: &str) -> Finding {
        let folder = tree(files);
        let findings = examine(&Machine { root: folder.path().into(), probe: None });
        let finding = findings.into_iter().find(|finding| finding.what == what).expect(what);
        assert_eq!(format!("{} {}", finding.verdict.name(), finding.found), expected);
        assert_eq!(finding.better.is_some(), finding.verdict != Verdict::Ok);
        finding
    }

    #[test]
    fn a_machine_without_facts_is_unknown_and_not_bad() {
        let folder = tree(&[]);
        let findings = examine(&Machine { root: folder.path().into(), probe: None });
        assert!(findings.iter().all(|finding| finding.verdict == Verdict::Ok), "{findings:?}");
    }

    #[test]
    fn each_fact_is_named_once() {
        let folder = tree(&[]);
        let findings = examine(&Machine { root: folder.path().into(), probe: None });
        let mut names: Vec<_> = findings.iter().map(|finding| finding.what).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), findings.len());
    }

    #[test]
    fn a_ring_that_is_forbidden_leaves_epoll_and_one_without_memory_nothing() {
        let folder = tree(&[]);
        let of = |probe| {
            let findings = examine(&Machine { root: folder.path().into(), probe: Some(probe) });
            let ring = findings.into_iter().find(|finding| finding.what == "io_uring").unwrap();
            (ring.verdict, ring.found)
        };
        let forbidden = of(|| {
            let hindrance = UringError::Forbidden(io::ErrorKind::PermissionDenied.into());
            Ok(Chosen { tier: RingTier::D, hindrance: Some(hindrance) })
        });
        assert_eq!(forbidden, (Verdict::Warn, "forbidden or missing: tier d".into()));
        let (verdict, found) = of(|| Err(UringError::Memory(io::ErrorKind::OutOfMemory.into())));
        assert_eq!(verdict, Verdict::Bad);
        assert!(found.contains("RLIMIT_MEMLOCK"), "{found}");
    }
}
