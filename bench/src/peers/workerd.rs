//! workerd with one worker, a module of JavaScript: one isolate for all requests.

use std::process::Command;

use super::{BODY, Comparison, Need, Row, System};

/// What the runtime promises to behave like.
const COMPATIBILITY_DATE: &str = "2025-01-01";

pub(super) const SYSTEM: System = System {
    name: "workerd",
    needs: &[Need {
        program: "workerd",
        npm: &["@cloudflare/workerd-linux-64/bin/workerd"],
        install: "npm install --prefix FOLDER workerd, then --npm FOLDER",
    }],
    rows: &[Row {
        name: "workerd, one isolate",
        within: &[Comparison::Request, Comparison::Boot],
        target: "/",
        launch: |place| {
            let script = format!(
                "const headers = {{'content-type': 'text/plain'}};\n\
                 export default {{ fetch() {{ return new Response('{BODY}', {{ headers }}); }} }};\n"
            );
            place.write("worker.js", &script)?;
            let settings = format!(
                "using Workerd = import \"/workerd/workerd.capnp\";\n\
                 const config :Workerd.Config = (\n\
                 services = [(name = \"main\", worker = .worker)],\n\
                 sockets = [(name = \"http\", address = \"{address}\", http = (), service = \"main\")]);\n\
                 const worker :Workerd.Worker = (\n\
                 modules = [(name = \"worker\", esModule = embed \"worker.js\")],\n\
                 compatibilityDate = \"{COMPATIBILITY_DATE}\");\n",
                address = place.address
            );
            let mut command = Command::new(place.program());
            command.arg("serve").arg(place.write("config.capnp", &settings)?);
            Ok(command.into())
        },
    }],
};
