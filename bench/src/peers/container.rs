//! A container of the static program by runc, or by crun, which takes the same words: with their default settings, but for
//! the network, which is the machine's.

use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::{Comparison, Launch, Need, Place, Row, System, program};

pub(super) const RUNC: System = System {
    name: "runc",
    needs: &[
        Need { program: "runc", npm: &[], install: "apt-get install runc, and be root" },
        program::COMPILER,
    ],
    rows: &[Row { name: "runc, static program", within: &[Comparison::Boot], target: "/", launch }],
};

pub(super) const CRUN: System = System {
    name: "crun",
    needs: &[
        Need { program: "crun", npm: &[], install: "apt-get install crun, and be root" },
        program::COMPILER,
    ],
    rows: &[Row { name: "crun, static program", within: &[Comparison::Boot], target: "/", launch }],
};

fn launch(place: &Place<'_>) -> Result<Launch> {
    let bundle = place.folder.join("bundle");
    let root = bundle.join("rootfs");
    std::fs::create_dir_all(&root)?;
    let built = program::build(&place.programs[1], place.folder)?;
    std::fs::rename(built, root.join("program"))?;
    let mut spec: Value = serde_json::from_str(&default_spec(place.program(), &bundle)?)?;
    adapt(&mut spec, place.address.port()).context("what `spec` wrote is no settings")?;
    std::fs::write(bundle.join("config.json"), serde_json::to_vec(&spec)?)?;
    let mut command = Command::new(place.program());
    command.arg("--root").arg(place.folder.join("state")).args(["run", "--bundle"]).arg(&bundle);
    command.arg(format!("midge-lab-{}-{}", std::process::id(), place.address.port()));
    // Killed, it would leave the container behind.
    Ok(Launch { cleans_up: true, ..Launch::from(command) })
}

fn default_spec(runtime: &Path, bundle: &Path) -> Result<String> {
    let mut command = Command::new(runtime);
    // crun's `spec` knows no bundle but the folder that it is in.
    command.arg("spec").current_dir(bundle).stdin(Stdio::null());
    let ended = command.output().context("cannot start the container's runtime")?;
    let why = String::from_utf8_lossy(&ended.stderr);
    ensure!(ended.status.success(), "spec: {}", why.lines().next().unwrap_or(""));
    Ok(std::fs::read_to_string(bundle.join("config.json"))?)
}

/// Sets what is run, without a terminal, in the machine's network.
fn adapt(spec: &mut Value, port: u16) -> Option<()> {
    let process = spec.get_mut("process")?.as_object_mut()?;
    process.insert("terminal".into(), json!(false));
    process.insert("args".into(), json!(["/program", port.to_string()]));
    let namespaces = spec.get_mut("linux")?.get_mut("namespaces")?.as_array_mut()?;
    namespaces.retain(|namespace| namespace["type"] != "network");
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_container_runs_the_program_in_the_machines_network() {
        let mut spec = json!({
            "process": {"terminal": true, "args": ["sh"], "cwd": "/"},
            "linux": {"namespaces": [{"type": "pid"}, {"type": "network"}, {"type": "mount"}]},
        });
        adapt(&mut spec, 8080).unwrap();
        let wanted = json!({
            "process": {"terminal": false, "args": ["/program", "8080"], "cwd": "/"},
            "linux": {"namespaces": [{"type": "pid"}, {"type": "mount"}]},
        });
        assert_eq!(spec, wanted);
        assert_eq!(adapt(&mut json!({"process": {}}), 8080), None);
    }
}
