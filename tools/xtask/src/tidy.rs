//! `cargo xtask tidy`: what no lint sees.
//!
//! Reads every file that git knows or would add, and reports: sources without a head comment, leftover
//! markers, paths of somebody's machine, links in docs that lead nowhere, decision numbers used twice, and
//! modules that open unsafe code without standing in docs/ARCHITECTURE.md.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Component, Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::{Context, bail};

/// A file of the tree, by its path from the root.
struct Source {
    path: String,
    text: String,
}

pub(crate) fn run(root: &Path) -> anyhow::Result<ExitCode> {
    let paths = listed(root)?;
    let mut findings = decisions_used_twice(&paths);
    let architecture = fs::read_to_string(root.join("docs/ARCHITECTURE.md")).ok();
    for path in &paths {
        // What is no text (built functions, pictures) has no lines to look at.
        let Ok(text) = fs::read_to_string(root.join(path)) else { continue };
        let source = Source { path: path.clone(), text };
        findings.extend(missing_head(&source));
        findings.extend(leftovers(&source));
        findings.extend(machine_paths(&source));
        findings.extend(broken_links(&source, |target| root.join(target).exists()));
        findings.extend(architecture.as_deref().and_then(|list| unlisted_unsafe(&source, list)));
    }
    for finding in &findings {
        println!("{finding}");
    }
    Ok(if findings.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn listed(root: &Path) -> anyhow::Result<Vec<String>> {
    let arguments = ["ls-files", "-z", "--cached", "--others", "--exclude-standard"];
    let output = Command::new("git").current_dir(root).args(arguments).output();
    let output = output.context("cannot start `git`")?;
    if !output.status.success() {
        bail!("`git ls-files` failed: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    let names = String::from_utf8(output.stdout).context("a file name is not UTF-8")?;
    Ok(names.split_terminator('\0').map(String::from).collect())
}

fn extension(path: &str) -> &str {
    path.rsplit_once('.').map_or("", |(_, extension)| extension)
}

fn missing_head(source: &Source) -> Option<String> {
    let starts: &[&str] = match extension(&source.path) {
        "rs" => &["//!"],
        "c" | "h" => &["/*"],
        "py" => &["\"\"\"", "#"],
        "sh" => &["#"],
        "wat" => &[";;", "(;"],
        _ => return None,
    };
    let has_head = starts.iter().any(|start| source.text.starts_with(start));
    (!has_head).then(|| format!("{}:1: no head comment says what this file is", source.path))
}

fn leftovers(source: &Source) -> Vec<String> {
    // Put together here, so that this file is no finding of its own.
    let markers =
        [["TO", "DO"], ["FIX", "ME"], ["XX", "X"], ["HA", "CK"]].map(|parts| parts.concat());
    let is_code = matches!(extension(&source.path), "rs" | "c" | "h" | "py" | "sh" | "toml" | "md");
    let lines = source.text.lines().enumerate().filter(|_| is_code);
    let is_word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    lines
        .filter(|(_, line)| {
            let words =
                || line.split(|character: char| !character.is_ascii() || !is_word(character as u8));
            markers.iter().any(|marker| words().any(|word| word == marker))
        })
        .map(|(index, _)| format!("{}:{}: a leftover marker", source.path, index + 1))
        .collect()
}

fn machine_paths(source: &Source) -> Vec<String> {
    let folders = ["home", "root", "work", "Users"].map(|folder| format!("/{folder}/"));
    let begins_there = |line: &str, at: usize| {
        let before = line[..at].chars().next_back();
        before.is_none_or(|before| !(before.is_alphanumeric() || "._-/}>".contains(before)))
    };
    let holds_one = |line: &str| {
        folders.iter().any(|folder| {
            line.match_indices(folder.as_str()).any(|(at, _)| {
                // A quoted prefix alone is a pattern, not somebody's path.
                let after = line[at + folder.len()..].chars().next();
                begins_there(line, at) && after.is_some_and(char::is_alphanumeric)
            })
        })
    };
    let lines = source.text.lines().enumerate();
    lines
        .filter(|(_, line)| holds_one(line))
        .map(|(index, _)| format!("{}:{}: a path of somebody's machine", source.path, index + 1))
        .collect()
}

/// Reports links of a Markdown file to files that are not there.
fn broken_links(source: &Source, exists: impl Fn(&Path) -> bool) -> Vec<String> {
    if extension(&source.path) != "md" {
        return Vec::new();
    }
    let folder = Path::new(&source.path).parent().unwrap_or(Path::new(""));
    let mut findings = Vec::new();
    let mut is_code = false;
    for (index, line) in source.text.lines().enumerate() {
        if line.trim_start().starts_with("```") {
            is_code = !is_code;
        }
        if is_code {
            continue;
        }
        for link in line.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            let file = link.split(['#', ' ']).next().unwrap_or_default();
            let is_elsewhere =
                file.is_empty() || file.contains("://") || file.starts_with("mailto:");
            if !is_elsewhere && !exists(&normal(&folder.join(file))) {
                findings.push(format!("{}:{}: `{link}` leads nowhere", source.path, index + 1));
            }
        }
    }
    findings
}

/// Takes `..` out of a path of the tree without asking the disk.
fn normal(path: &Path) -> PathBuf {
    let mut normal = PathBuf::new();
    for component in path.components() {
        match component {
            Component::ParentDir if normal.pop() => {}
            Component::CurDir => {}
            other => normal.push(other),
        }
    }
    normal
}

fn decisions_used_twice(paths: &[String]) -> Vec<String> {
    let mut numbers: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for name in paths.iter().filter_map(|path| path.strip_prefix("docs/decisions/")) {
        let number = name.split('-').next().unwrap_or_default();
        if !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit()) {
            numbers.entry(number).or_default().push(name);
        }
    }
    let twice = numbers.into_iter().filter(|(_, names)| names.len() > 1);
    twice
        .map(|(number, names)| {
            format!("docs/decisions: {number} is used twice: {}", names.join(", "))
        })
        .collect()
}

fn unlisted_unsafe(source: &Source, architecture: &str) -> Option<String> {
    if !source.path.ends_with(".rs") {
        return None;
    }
    // The attribute may be spread over lines, and stand inside a cfg_attr.
    let head: String = source
        .text
        .lines()
        .skip_while(|line| line.starts_with("//!"))
        .take_while(|line| !line.starts_with("use ") && !line.starts_with("mod "))
        .flat_map(|line| line.chars().filter(|char| !char.is_whitespace()))
        .collect();
    let opens = head.contains("#![") && head.contains("expect(unsafe_code");
    let is_finding = opens && !architecture.contains(&source.path);
    is_finding.then(|| {
        format!("{}: opens unsafe code, but docs/ARCHITECTURE.md does not list it", source.path)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(path: &str, text: &str) -> Source {
        Source { path: path.into(), text: text.into() }
    }

    #[test]
    fn a_source_without_head_is_found() {
        assert!(missing_head(&source("a/b.rs", "use std::fs;")).is_some());
        assert!(missing_head(&source("a/b.rs", "//! What it is.\n")).is_none());
        assert!(missing_head(&source("a/b.c", "#include <x.h>")).is_some());
        assert!(missing_head(&source("a/b.txt", "text")).is_none());
    }

    #[test]
    fn a_leftover_marker_is_found_as_a_word() {
        let marker = ["FIX", "ME"].concat();
        assert_eq!(
            leftovers(&source("a.rs", &format!("\n// {marker}: x"))),
            ["a.rs:2: a leftover marker"]
        );
        assert!(leftovers(&source("a.rs", &format!("let {marker}S = 1;"))).is_empty());
        assert!(leftovers(&source("a.txt", &marker)).is_empty());
    }

    #[test]
    fn a_path_of_a_machine_is_found() {
        let finding = |line: &str| !machine_paths(&source("a.md", line)).is_empty();
        assert!(finding(&["see /ho", "me/ada/midge"].concat()));
        assert!(finding(&["`/wo", "rk/tree`"].concat()));
        assert!(!finding("GET /files/work/x"));
        assert!(!finding("https://x.test/home/ada"));
        assert!(!finding("the folder /home/"));
    }

    #[test]
    fn a_link_that_leads_nowhere_is_found() {
        let text = "[a](../b.md#part) [c](gone.md) [d](https://x.test) [e](#here)\n```\n[f](gone.md)\n```\n";
        let findings =
            broken_links(&source("docs/x/a.md", text), |path| path == Path::new("docs/b.md"));
        assert_eq!(findings, ["docs/x/a.md:1: `gone.md` leads nowhere"]);
    }

    #[test]
    fn a_decision_number_used_twice_is_found() {
        let paths =
            ["docs/decisions/001-a.md", "docs/decisions/002-b.md", "docs/decisions/001-c.md"];
        let findings = decisions_used_twice(&paths.map(String::from));
        assert_eq!(findings, ["docs/decisions: 001 is used twice: 001-a.md, 001-c.md"]);
    }

    #[test]
    fn an_unlisted_unsafe_module_is_found() {
        let open = source("x/fenced.rs", "//! A.\n#![expect(unsafe_code, reason = \"b\")]\n");
        assert!(unlisted_unsafe(&open, "nothing").is_some());
        assert!(unlisted_unsafe(&open, "- `x/fenced.rs`").is_none());
        assert!(unlisted_unsafe(&source("x/plain.rs", "//! A.\n"), "nothing").is_none());
    }
}
