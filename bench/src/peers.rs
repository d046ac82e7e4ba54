//! The servers that are compared: ours, and others where they are found.

use std::process::Command;

use anyhow::Result;
use midge_bench::guests;

use crate::cpus::Cpus;
use crate::servers::{Server, find, free_address};

/// The row that ratios are taken to first.
pub(crate) const YARDSTICK: &str = "yardstick";

/// The row that ratios are taken to besides.
pub(crate) const NGINX: &str = "nginx return 200";

/// The row of Node.js.
pub(crate) const NODE: &str = "node, one isolate";

/// Connections that nginx has room for.
const NGINX_CONNECTIONS: usize = 4096;

/// Starts all servers of a comparison; returns them, and what was left out.
///
/// # Errors
/// If one of ours cannot be started.
pub(crate) fn start_all(cpus: Cpus) -> Result<(Vec<Server>, Vec<String>)> {
    let cpu = cpus.servers;
    let mut servers = Vec::new();
    let mut left_out = Vec::new();
    for (name, command) in [(YARDSTICK, "yardstick"), ("midge fixed response", "fixed")] {
        let address = free_address()?;
        let mut own = Command::new(std::env::current_exe()?);
        own.args([command, &address.to_string()]);
        servers.push(Server::start(name, address, "/", cpu, own, tempfile::tempdir()?)?);
    }
    match find("midge") {
        Some(midge) => {
            for (name, technique) in
                [("midge restore", "restore"), ("midge pool", "pool"), ("midge reuse", "reuse")]
            {
                servers.push(start_midge(&midge, name, technique, cpu, "")?);
            }
        }
        None => left_out.push("midge: cargo build --release builds it beside this program".into()),
    }
    for (name, install, start) in OTHERS {
        match start(cpu)? {
            Some(server) => servers.push(server),
            None => left_out.push(format!("{name}: {install}")),
        }
    }
    Ok((servers, left_out))
}

/// A system that is measured where it is found: its name, how it is installed, and what starts it.
type Other = (&'static str, &'static str, fn(usize) -> Result<Option<Server>>);

/// The others. To add one is to write a function that starts it with a fixed answer of sixteen bytes.
const OTHERS: [Other; 3] = [
    ("nginx", "apt-get install nginx-light", |cpu| {
        find("nginx").map(|nginx| start_nginx(&nginx, cpu, NGINX_CONNECTIONS)).transpose()
    }),
    ("hyper", "", |cpu| start_hyper(cpu).map(Some)),
    ("node", "apt-get install nodejs", |cpu| {
        find("node").map(|node| start_node(&node, cpu)).transpose()
    }),
];

/// Starts Node.js with a fixed response: one isolate for all requests.
fn start_node(node: &std::path::Path, cpu: usize) -> Result<Server> {
    let address = free_address()?;
    let folder = tempfile::tempdir()?;
    let script = format!(
        "const headers = {{'content-type': 'text/plain', 'content-length': 16}};\n\
         require('http').createServer((request, response) => {{\n\
         response.writeHead(200, headers); response.end('sixteen bytes ok'); }})\n\
         .listen({}, '127.0.0.1');\n",
        address.port()
    );
    std::fs::write(folder.path().join("server.js"), script)?;
    let mut command = Command::new(node);
    command.arg(folder.path().join("server.js"));
    Server::start(NODE, address, "/", cpu, command, folder)
}

/// Starts midge with one function; `limits` is a part of its settings file.
pub(crate) fn start_midge(
    midge: &std::path::Path,
    name: &'static str,
    technique: &str,
    cpu: usize,
    limits: &str,
) -> Result<Server> {
    let (address, admin) = (free_address()?, free_address()?);
    let folder = tempfile::tempdir()?;
    let guest = folder.path().join("guest.wat");
    std::fs::write(&guest, guests::synthetic(3, 2))?;
    let settings = folder.path().join("midge.toml");
    let text = format!(
        "listen = \"{address}\"\nadmin = \"{admin}\"\nworkers = \"{cpu}-{cpu}\"\n\n[log]\nlevel = \"error\"\n\n{limits}\n\
         [[function]]\nname = \"guest\"\nmodule = \"guest.wat\"\nroute = \"/\"\ntechnique = \"{technique}\"\n"
    );
    std::fs::write(&settings, text)?;
    let mut command = Command::new(midge);
    command.arg("serve").arg(&settings);
    Server::start(name, address, "/", cpu, command, folder)
}

/// Starts hyper with a fixed response.
pub(crate) fn start_hyper(cpu: usize) -> Result<Server> {
    let address = free_address()?;
    let mut own = Command::new(std::env::current_exe()?);
    own.args(["hyper", &address.to_string()]);
    Server::start(
        "hyper, one thread",
        address,
        crate::hyper::TARGET,
        cpu,
        own,
        tempfile::tempdir()?,
    )
}

/// Starts nginx with a fixed response.
pub(crate) fn start_nginx(
    nginx: &std::path::Path,
    cpu: usize,
    connections: usize,
) -> Result<Server> {
    let address = free_address()?;
    let folder = tempfile::tempdir()?;
    let settings = folder.path().join("nginx.conf");
    let text = format!(
        "daemon off; master_process off; pid nginx.pid; error_log stderr crit;\n\
         events {{ worker_connections {connections}; }}\n\
         http {{ access_log off; keepalive_requests 100000000;\n\
         server {{ listen {address} reuseport; location / {{ default_type text/plain; \
         return 200 \"sixteen bytes ok\"; }} }} }}\n"
    );
    std::fs::write(&settings, text)?;
    let mut command = Command::new(nginx);
    command.arg("-p").arg(folder.path()).arg("-c").arg(&settings);
    Server::start(NGINX, address, "/", cpu, command, folder)
}
