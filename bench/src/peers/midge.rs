//! midge with one function, under some techniques.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;

use anyhow::Result;
use midge_bench::guests;

use super::{Comparison, Launch, Need, Place, Row, System};
use crate::servers::{Server, free_address, output_of, serving};

/// Dirty pages and globals of the function.
const DIRTY_PAGES: u32 = 3;
const GLOBALS: u32 = 2;

pub(super) const SYSTEM: System = System {
    name: "midge",
    needs: &[Need {
        program: "midge",
        npm: &[],
        install: "cargo build --release builds it beside this program",
    }],
    rows: &[
        Row {
            name: "midge restore",
            within: &[Comparison::Request, Comparison::Tail, Comparison::Boot],
            target: "/",
            launch: |place| launch(place, "restore"),
        },
        Row {
            name: "midge restore, artifact",
            within: &[Comparison::Boot],
            target: "/",
            launch: launch_artifact,
        },
        Row {
            name: "midge restore, component",
            within: &[Comparison::Request],
            target: "/",
            launch: launch_component,
        },
        Row {
            name: "midge pool",
            within: &[Comparison::Request],
            target: "/",
            launch: |place| launch(place, "pool"),
        },
        Row {
            name: "midge reuse",
            within: &[Comparison::Request, Comparison::Tail],
            target: "/",
            launch: |place| launch(place, "reuse"),
        },
    ],
};

fn launch(place: &Place<'_>, technique: &str) -> Result<Launch> {
    let function = Function { file: "guest.wat", technique, limits: "" };
    function.write_guest(place.folder)?;
    Ok(function.command(place.program(), place.address, place.cpu, place.folder)?.into())
}

/// The component that `wasmtime serve` has.
fn launch_component(place: &Place<'_>) -> Result<Launch> {
    let function = Function { file: "component.wat", technique: "restore", limits: "" };
    place.write(function.file, super::wasmtime::COMPONENT)?;
    Ok(function.command(place.program(), place.address, place.cpu, place.folder)?.into())
}

/// The same from an artifact, so that nothing is compiled at the start.
fn launch_artifact(place: &Place<'_>) -> Result<Launch> {
    let function = Function { file: "guest.midge", technique: "restore", limits: "" };
    function.write_guest(place.folder)?;
    let mut build = Command::new(place.program());
    build.arg("build").arg(place.folder.join("guest.wat"));
    output_of(build.arg("--output").arg(place.folder.join(function.file)))?;
    Ok(function.command(place.program(), place.address, place.cpu, place.folder)?.into())
}

/// Starts midge with one function; `limits` is a part of its settings file.
///
/// # Errors
/// If it does not start.
pub(crate) fn start_midge(
    midge: &Path,
    name: &'static str,
    technique: &str,
    cpu: usize,
    limits: &str,
) -> Result<Server> {
    let (address, folder) = (free_address()?, tempfile::tempdir()?);
    let function = Function { file: "guest.wat", technique, limits };
    function.write_guest(folder.path())?;
    let command = function.command(midge, address, cpu, folder.path())?;
    Server::start(name, address, "/", cpu, command, folder)
}

struct Function<'a> {
    file: &'a str,
    technique: &'a str,
    limits: &'a str,
}

impl Function<'_> {
    fn write_guest(&self, folder: &Path) -> Result<()> {
        std::fs::write(folder.join("guest.wat"), guests::synthetic(DIRTY_PAGES, GLOBALS))?;
        Ok(())
    }

    fn command(
        &self,
        midge: &Path,
        address: SocketAddr,
        cpu: usize,
        folder: &Path,
    ) -> Result<Command> {
        let Self { file, technique, limits } = self;
        let text = format!(
            "{limits}\n[[function]]\nname = \"guest\"\nmodule = \"{file}\"\nroute = \"/\"\n\
             technique = \"{technique}\"\n"
        );
        serving(midge, folder, [address, free_address()?], cpu, &text)
    }
}
