//! nginx with a fixed response, in one process.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;

use anyhow::Result;

use super::{BODY, Comparison, Need, Row, System};
use crate::servers::{Server, free_address};

/// The row that ratios are taken to besides.
pub(crate) const NGINX: &str = "nginx return 200";

/// Connections that it has room for.
const CONNECTIONS: usize = 4096;

pub(super) const SYSTEM: System = System {
    name: "nginx",
    needs: &[Need { program: "nginx", npm: &[], install: "apt-get install nginx-light" }],
    rows: &[Row {
        name: NGINX,
        within: &[Comparison::Request, Comparison::Tail, Comparison::Boot],
        target: "/",
        launch: |place| {
            Ok(command(place.program(), place.address, place.folder, CONNECTIONS)?.into())
        },
    }],
};

/// Starts nginx with room for so many connections.
///
/// # Errors
/// If it does not start.
pub(crate) fn start_nginx(nginx: &Path, cpu: usize, connections: usize) -> Result<Server> {
    let (address, folder) = (free_address()?, tempfile::tempdir()?);
    let command = command(nginx, address, folder.path(), connections)?;
    Server::start(NGINX, address, "/", cpu, command, folder)
}

fn command(
    nginx: &Path,
    address: SocketAddr,
    folder: &Path,
    connections: usize,
) -> Result<Command> {
    let settings = folder.join("nginx.conf");
    let text = format!(
        "daemon off; master_process off; pid nginx.pid; error_log stderr crit;\n\
         events {{ worker_connections {connections}; }}\n\
         http {{ access_log off; keepalive_requests 100000000;\n\
         server {{ listen {address} reuseport; location / {{ default_type text/plain; \
         return 200 \"{BODY}\"; }} }} }}\n"
    );
    std::fs::write(&settings, text)?;
    let mut command = Command::new(nginx);
    command.arg("-p").arg(folder).arg("-c").arg(&settings);
    Ok(command)
}
