//! Node.js by its http server: one isolate for all requests.

use std::process::Command;

use super::{BODY, Comparison, Need, Row, System};

pub(super) const SYSTEM: System = System {
    name: "node",
    needs: &[Need { program: "node", npm: &[], install: "apt-get install nodejs" }],
    rows: &[Row {
        name: "node, one isolate",
        within: &[Comparison::Request, Comparison::Boot],
        target: "/",
        launch: |place| {
            let script = format!(
                "const headers = {{'content-type': 'text/plain', 'content-length': {length}}};\n\
                 require('http').createServer((request, response) => {{\n\
                 response.writeHead(200, headers); response.end('{BODY}'); }})\n\
                 .listen({port}, '{host}');\n",
                length = BODY.len(),
                port = place.address.port(),
                host = place.address.ip()
            );
            let mut command = Command::new(place.program());
            command.arg(place.write("server.js", &script)?);
            Ok(command.into())
        },
    }],
};
