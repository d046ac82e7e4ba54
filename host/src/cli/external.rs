//! `midge NAME` for a name that is no command: the program `midge-NAME`, beside this one or on the path.

use std::{env, ffi::OsString, os::unix::process::CommandExt, path::Path, path::PathBuf, process};

use clap::CommandFactory;

use super::Cli;
use crate::{config::suggest, output::Failure};

/// Programs of this project that are commands when they are installed.
const KNOWN: [&str; 2] = ["lab", "load"];

/// A program found for a command.
#[derive(Debug)]
pub struct External {
    program: PathBuf,
    arguments: Vec<OsString>,
}

impl External {
    /// Looks for the program; `words` are the command's name and its arguments.
    ///
    /// # Errors
    /// A usage failure, with the nearest command, if there is none.
    pub fn find(words: &[OsString]) -> Result<Self, Failure> {
        let (name, arguments) = words.split_first().expect("clap gives the name at least");
        let name = name.to_string_lossy();
        let found = if is_name(&name) { search(&format!("midge-{name}")) } else { None };
        match found {
            Some(program) => Ok(Self { program, arguments: arguments.to_vec() }),
            None => Err(unknown(&name)),
        }
    }

    /// Becomes the program: its exit status and signals are ours.
    ///
    /// # Errors
    /// Returns only if the system refused.
    pub fn become_it(self) -> Result<std::convert::Infallible, Failure> {
        let cause = process::Command::new(&self.program).args(&self.arguments).exec();
        let what = format!("cannot run `{}`", self.program.display());
        Err(Failure::new(what, "check that it is a program for this machine", cause))
    }
}

/// Returns true for a plain name: one that cannot leave the folders that are searched.
fn is_name(name: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    !name.is_empty() && name.bytes().all(plain)
}

fn search(file: &str) -> Option<PathBuf> {
    let own = env::current_exe().ok();
    let beside = own.as_deref().and_then(Path::parent).map(Path::to_path_buf);
    let path = env::var_os("PATH").unwrap_or_default();
    let folders = beside.into_iter().chain(env::split_paths(&path));
    folders.map(|folder| folder.join(file)).find(|program| program.is_file())
}

fn unknown(name: &str) -> Failure {
    let command = Cli::command();
    let own: Vec<_> = command.get_subcommands().map(clap::Command::get_name).collect();
    let next = match suggest::nearest(name, own.iter().copied().chain(KNOWN)) {
        Some(near) if own.contains(&near) => format!("midge {near}"),
        Some(near) => format!("install midge-{near}"),
        None => "midge --help".into(),
    };
    let shown = name.escape_debug();
    let what =
        format!("no command `{shown}`, and no program `midge-{shown}` beside it or on the path");
    Failure { what, next, is_usage: true, cause: None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_command_is_told_with_the_nearest() {
        for (name, next) in
            [("chek", "midge check"), ("lob", "install midge-lab"), ("xyzzy", "midge --help")]
        {
            let failure = External::find(&[name.into()]).unwrap_err();
            assert!(failure.is_usage);
            assert_eq!(failure.next, next, "{name}");
        }
    }

    #[test]
    fn names_cannot_leave_the_folders() {
        for name in ["", "../x", "a/b", "A", "a b"] {
            assert!(!is_name(name), "{name}");
        }
    }
}
