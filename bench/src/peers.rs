//! The servers that are compared: ours, and other systems where they are found.
//!
//! A system is a file below `peers/`: the programs that it needs, with the lines that install them, and its rows,
//! each with a function that writes the row's settings into a folder and returns the command that serves by them.
//! All answer a request with the same sixteen bytes. A system that is not found, or does not start, is left out and
//! named with the reason.

mod bun;
mod container;
mod deno;
mod firecracker;
mod hyper;
mod lambda;
mod microvm;
mod midge;
mod nginx;
mod node;
mod program;
mod wasmtime;
mod workerd;
mod yardstick;

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Result, ensure};

use crate::cpus::Cpus;
use crate::machine;
use crate::servers::{Server, find, free_address};

pub(crate) use hyper::start_hyper;
pub(crate) use midge::start_midge;
pub(crate) use nginx::{NGINX, start_nginx};
pub(crate) use program::PROGRAM;
pub(crate) use wasmtime::COMPONENT;
pub(crate) use yardstick::YARDSTICK;

/// Ours: if one of them does not start, the comparison fails.
const OURS: [&System; 2] = [&yardstick::SYSTEM, &midge::SYSTEM];

/// The others. To add one is to write its file and to name it here.
const OTHERS: [&System; 13] = [
    &nginx::SYSTEM,
    &hyper::SYSTEM,
    &lambda::SYSTEM,
    &node::SYSTEM,
    &bun::SYSTEM,
    &deno::SYSTEM,
    &workerd::SYSTEM,
    &wasmtime::SYSTEM,
    &program::SYSTEM,
    &container::RUNC,
    &container::CRUN,
    &microvm::SYSTEM,
    &firecracker::SYSTEM,
];

/// What every server answers.
pub(crate) const BODY: &str = "sixteen bytes ok";

/// How long a server may take until it answers.
const START_MAX: Duration = Duration::from_secs(60);

/// Where rows take part.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Comparison {
    /// `midge-lab request`.
    Request,
    /// `midge-lab tail`: the slowest sets the rate, so slow ones would leave the others nothing to do.
    Tail,
    /// `midge-lab boot`.
    Boot,
}

/// A system.
#[derive(Debug)]
pub(crate) struct System {
    /// What it is called by `--only`.
    name: &'static str,
    /// The programs that it needs, its own first.
    needs: &'static [Need],
    /// What is measured of it.
    rows: &'static [Row],
}

/// A program that a system needs.
#[derive(Debug)]
struct Need {
    /// Its name on the path, or beside this program.
    program: &'static str,
    /// Where npm packages have it, below `node_modules`: the program itself, not a script that starts it.
    npm: &'static [&'static str],
    /// What installs it.
    install: &'static str,
}

/// A row: a system with some settings.
#[derive(Debug)]
pub(crate) struct Row {
    /// Its name.
    pub(crate) name: &'static str,
    /// Where it takes part.
    within: &'static [Comparison],
    /// The target that it answers.
    target: &'static str,
    /// Writes its settings; returns what starts it.
    launch: fn(&Place<'_>) -> Result<Launch>,
}

impl Row {
    /// Returns its name as a word of the command line, where commas part names.
    fn word(&self) -> String {
        self.name.replace(", ", "-").replace(' ', "-").to_lowercase()
    }
}

/// What a row is started with.
#[derive(Debug)]
struct Place<'a> {
    /// The programs, in the order of the system's needs.
    programs: &'a [PathBuf],
    /// Where it shall listen.
    address: SocketAddr,
    /// The CPU that it is pinned to.
    cpu: usize,
    /// A folder of its own.
    folder: &'a Path,
    /// The kernel for a virtual machine, if one was named.
    kernel: Option<&'a Path>,
}

impl Place<'_> {
    fn program(&self) -> &Path {
        &self.programs[0]
    }

    /// Writes a file into the folder; returns where.
    fn write(&self, name: &str, text: &str) -> Result<PathBuf> {
        let file = self.folder.join(name);
        std::fs::write(&file, text)?;
        Ok(file)
    }
}

/// What starts a server, and how it is met and ended.
#[derive(Debug)]
pub(crate) struct Launch {
    /// The command.
    pub(crate) command: Command,
    /// True if it sends a byte when it is ready: its port takes connections before anybody reads from it.
    pub(crate) greets: bool,
    /// True if it is asked to end, for it has to clean up; else it is killed.
    pub(crate) cleans_up: bool,
    /// How long it may take until it answers.
    pub(crate) start_max: Duration,
}

impl From<Command> for Launch {
    fn from(command: Command) -> Self {
        Self { command, greets: false, cleans_up: false, start_max: START_MAX }
    }
}

/// Options of every comparison of servers.
#[derive(Debug, Clone, Default, clap::Args)]
pub(crate) struct Selection {
    /// These systems or rows alone, besides the one that ratios are taken to: `midge`, `deno`, `wasmtime-serve-kept`, ..
    #[arg(long, value_name = "NAME,NAME", value_delimiter = ',')]
    only: Vec<String>,
    /// Where npm installed programs: the folder that holds `node_modules`.
    #[arg(long, value_name = "FOLDER")]
    npm: Option<PathBuf>,
}

impl Selection {
    /// Returns the rows of a comparison with the programs of their systems, and what is left out.
    ///
    /// # Errors
    /// If a name of `--only` is none.
    pub(crate) fn rows(&self, comparison: Comparison) -> Result<(Vec<Found>, Vec<String>)> {
        let systems = || OURS.iter().chain(&OTHERS);
        for name in &self.only {
            let is_known = |system: &System| {
                system.name == name || system.rows.iter().any(|row| row.word() == *name)
            };
            let names: Vec<_> = systems().map(|system| system.name).collect();
            ensure!(
                systems().any(|system| is_known(system)),
                "--only: no `{name}`; there are {}",
                names.join(", ")
            );
        }
        let (mut found, mut left_out) = (Vec::new(), Vec::new());
        for system in systems() {
            let rows: Vec<_> =
                system.rows.iter().filter(|row| self.takes(system, row, comparison)).collect();
            if rows.is_empty() {
                continue;
            }
            match self.programs(system) {
                Ok(programs) => {
                    for (need, program) in system.needs.iter().zip(&programs) {
                        note_version(need, program);
                    }
                    found.extend(rows.into_iter().map(|row| {
                        let is_ours = OURS.iter().any(|ours| ours.name == system.name);
                        Found { row, programs: programs.clone(), is_ours }
                    }));
                }
                Err(install) => left_out.push(format!("{}: {install}", system.name)),
            }
        }
        Ok((found, left_out))
    }

    /// Selects these.
    #[cfg(test)]
    pub(crate) fn only(names: &[&str]) -> Self {
        Self { only: names.iter().map(|name| (*name).to_owned()).collect(), npm: None }
    }

    /// Returns the options that say the same.
    pub(crate) fn words(&self) -> Vec<OsString> {
        let mut words = Vec::new();
        if !self.only.is_empty() {
            words.extend(["--only".into(), self.only.join(",").into()]);
        }
        if let Some(folder) = &self.npm {
            words.extend(["--npm".into(), folder.into()]);
        }
        words
    }

    fn takes(&self, system: &System, row: &Row, comparison: Comparison) -> bool {
        let is_named = self.only.iter().any(|name| name == system.name || *name == row.word());
        let is_within = |comparison| row.within.contains(&comparison);
        let base = match comparison {
            Comparison::Request | Comparison::Tail => YARDSTICK,
            Comparison::Boot => PROGRAM,
        };
        if row.name == base {
            return true;
        }
        if self.only.is_empty() {
            return is_within(comparison);
        }
        // Whoever names a slow row wants its latencies.
        is_named
            && (is_within(comparison)
                || comparison == Comparison::Tail && is_within(Comparison::Request))
    }

    /// Finds what a system needs.
    ///
    /// # Errors
    /// If something is missing, with what installs it.
    fn programs(&self, system: &System) -> Result<Vec<PathBuf>, &'static str> {
        let found = |need: &Need| {
            // Absolute, for a server may have another folder.
            let folder = self.npm.as_ref().and_then(|folder| std::path::absolute(folder).ok());
            let of_npm = folder.and_then(|folder| {
                let folder = folder.join("node_modules");
                need.npm.iter().map(|path| folder.join(path)).find(|program| program.is_file())
            });
            of_npm.or_else(|| find(need.program)).ok_or(need.install)
        };
        system.needs.iter().map(found).collect()
    }
}

/// Says the version of a program beside the result. Ours have the lab's own.
fn note_version(need: &Need, program: &Path) {
    if !need.program.starts_with("midge") {
        machine::note_version(need.program, program);
    }
}

/// A row whose programs are there.
#[derive(Debug)]
pub(crate) struct Found {
    pub(crate) row: &'static Row,
    programs: Vec<PathBuf>,
    /// True if the comparison fails without it.
    pub(crate) is_ours: bool,
}

impl Found {
    /// Writes the row's settings into a folder; returns what starts it.
    ///
    /// # Errors
    /// If something that it needs is missing, or cannot be made.
    pub(crate) fn launch(
        &self,
        folder: &Path,
        address: SocketAddr,
        cpu: usize,
        kernel: Option<&Path>,
    ) -> Result<Launch> {
        let place = Place { programs: &self.programs, address, cpu, folder, kernel };
        (self.row.launch)(&place)
    }

    /// Starts it, pinned, and waits until it accepts.
    fn start(&self, cpu: usize) -> Result<Server> {
        let (address, folder) = (free_address()?, tempfile::tempdir()?);
        let launch = self.launch(folder.path(), address, cpu, None)?;
        Server::start(self.row.name, address, self.row.target, cpu, launch.command, folder)
    }

    pub(crate) fn target(&self) -> &'static str {
        self.row.target
    }
}

/// A server of a comparison.
#[derive(Debug)]
pub(crate) struct Peer {
    pub(crate) server: Server,
    /// False for others: what goes wrong with those is told, and the comparison goes on.
    pub(crate) is_ours: bool,
}

impl Peer {
    /// Runs `action`, unless something went wrong with this server before; what goes wrong with one of somebody
    /// else's is kept in `failure`.
    ///
    /// # Errors
    /// What went wrong with one of ours.
    pub(crate) fn keep<T>(
        &self,
        failure: &mut Option<String>,
        action: impl FnOnce() -> Result<T>,
    ) -> Result<Option<T>> {
        if failure.is_some() {
            return Ok(None);
        }
        match action() {
            Ok(value) => Ok(Some(value)),
            Err(error) if self.is_ours => Err(error),
            Err(error) => {
                *failure = Some(format!("{error:#}"));
                Ok(None)
            }
        }
    }
}

/// Starts all servers of a comparison; returns them, and what was left out.
///
/// # Errors
/// If one of ours cannot be started, or what was selected does not exist.
pub(crate) fn start_all(
    selection: &Selection,
    comparison: Comparison,
    cpus: Cpus,
) -> Result<(Vec<Peer>, Vec<String>)> {
    let (rows, mut left_out) = selection.rows(comparison)?;
    let mut peers = Vec::with_capacity(rows.len());
    for found in rows {
        match found.start(cpus.servers) {
            Ok(server) => peers.push(Peer { server, is_ours: found.is_ours }),
            Err(error) if found.is_ours => return Err(error),
            Err(error) => left_out.push(format!("{}: {error:#}", found.row.name)),
        }
    }
    Ok((peers, left_out))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn systems() -> impl Iterator<Item = &'static System> {
        OURS.into_iter().chain(OTHERS)
    }

    fn names(selection: &Selection, comparison: Comparison) -> Vec<&'static str> {
        let rows = systems().flat_map(|system| system.rows.iter().map(move |row| (system, row)));
        let taken = rows.filter(|(system, row)| selection.takes(system, row, comparison));
        taken.map(|(_, row)| row.name).collect()
    }

    #[test]
    fn every_system_is_told_apart_and_says_what_installs_it() {
        let mut seen = Vec::new();
        for system in systems() {
            let rows = system.rows.iter().map(|row| row.name);
            for name in rows.chain([system.name].into_iter().filter(|name| *name != YARDSTICK)) {
                assert!(!seen.contains(&name), "{name}");
                assert!(name.len() <= 24, "{name} is wider than the tables");
                seen.push(name);
            }
            assert!(!system.needs.is_empty() && !system.rows.is_empty(), "{}", system.name);
            assert!(system.needs.iter().all(|need| !need.install.is_empty()), "{}", system.name);
            assert!(system.rows.iter().all(|row| !row.within.is_empty()), "{}", system.name);
        }
    }

    /// Every driver, without the systems: `true` stands for their programs, and succeeds at whatever it is asked.
    #[test]
    fn every_row_is_started_where_it_shall_listen() {
        let program = |name: &str| find(name).unwrap();
        for (system, row) in
            systems().flat_map(|system| system.rows.iter().map(move |row| (system, row)))
        {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path();
            // What `runc spec` would write.
            std::fs::create_dir(path.join("bundle")).unwrap();
            let spec = r#"{"process": {"args": ["sh"]}, "linux": {"namespaces": []}}"#;
            std::fs::write(path.join("bundle/config.json"), spec).unwrap();
            let of_need = |need: &Need| program(if need.program == "cc" { "cc" } else { "true" });
            let programs: Vec<_> = system.needs.iter().map(of_need).collect();
            let address = "127.0.0.1:54321".parse().unwrap();
            let kernel = Some(Path::new("kernel"));
            let place = Place { programs: &programs, address, cpu: 0, folder: path, kernel };
            let launch = (row.launch)(&place).unwrap();
            let mut text = format!("{:?}", launch.command);
            for file in ["", "bundle"] {
                let files = std::fs::read_dir(path.join(file)).unwrap().flatten();
                text.extend(files.filter_map(|file| std::fs::read_to_string(file.path()).ok()));
            }
            assert!(text.contains("54321"), "{}: {text}", row.name);
        }
    }

    #[test]
    fn names_select_systems_and_rows_and_the_base_stays() {
        let all = names(&Selection::only(&[]), Comparison::Tail);
        assert!(
            all.contains(&"midge restore") && !all.contains(&"wasmtime serve, kept"),
            "{all:?}"
        );
        let named = Selection::only(&["nginx", "wasmtime-serve-kept"]);
        let wanted = [YARDSTICK, NGINX, "wasmtime serve, kept"];
        assert_eq!(names(&named, Comparison::Request), wanted);
        // Whoever names a slow one gets it.
        assert_eq!(names(&named, Comparison::Tail), wanted);
        assert_eq!(names(&named, Comparison::Boot), [NGINX, PROGRAM]);
        assert!(Selection::only(&["engine"]).rows(Comparison::Boot).is_err());
    }

    #[test]
    fn a_selection_goes_on_to_another_command_as_it_is() {
        use clap::Parser;
        #[derive(Parser)]
        struct Words {
            #[command(flatten)]
            selection: Selection,
        }
        let given =
            Selection { npm: Some("some/folder".into()), ..Selection::only(&["nginx", "deno"]) };
        let words = [OsString::from("x")].into_iter().chain(given.words());
        let read = Words::parse_from(words).selection;
        assert_eq!((read.only, read.npm), (given.only, given.npm));
        assert!(Selection::default().words().is_empty());
    }

    #[test]
    fn what_is_missing_is_left_out_with_what_installs_it() {
        const NEEDS: &[Need] = &[
            Need { program: "true", npm: &[], install: "" },
            Need { program: "no-such-program", npm: &["a/b", "c/d"], install: "apt-get this" },
        ];
        const SYSTEM: System = System { name: "some", needs: NEEDS, rows: &[] };
        assert_eq!(Selection::default().programs(&SYSTEM), Err("apt-get this"));
        let folder = tempfile::tempdir().unwrap();
        let program = folder.path().join("node_modules/c/d");
        std::fs::create_dir_all(program.parent().unwrap()).unwrap();
        std::fs::write(&program, "").unwrap();
        let selection = Selection { npm: Some(folder.path().to_owned()), ..Selection::default() };
        assert_eq!(selection.programs(&SYSTEM).unwrap()[1], program);
    }

    #[test]
    fn what_goes_wrong_with_another_system_ends_its_row_alone() {
        let server = || {
            let mut command = Command::new("sleep");
            command.arg("60");
            // Somebody accepts: the test.
            let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
            let address = listener.local_addr().unwrap();
            let folder = tempfile::tempdir().unwrap();
            Server::start_anywhere("sleep", address, "/", command, folder).unwrap()
        };
        let fails = || -> Result<()> { anyhow::bail!("no answer") };
        let mut failure = None;
        let other = Peer { server: server(), is_ours: false };
        assert_eq!(other.keep(&mut failure, || Ok(7)).unwrap(), Some(7));
        assert_eq!(other.keep(&mut failure, fails).unwrap(), None);
        assert_eq!(failure.as_deref(), Some("no answer"));
        assert_eq!(other.keep(&mut failure, || Ok(7)).unwrap(), None);
        let ours = Peer { server: server(), is_ours: true };
        assert!(ours.keep(&mut None, fails).is_err());
    }

    #[test]
    fn the_component_of_wasmtime_is_a_component() {
        let bytes = wat::parse_str(wasmtime::COMPONENT).unwrap();
        wasmparser::Validator::new().validate_all(&bytes).unwrap();
        assert!(wasmparser::Parser::is_component(&bytes));
    }
}
