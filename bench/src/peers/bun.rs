//! Bun by `Bun.serve`: one isolate for all requests.

use std::process::Command;

use super::{BODY, Comparison, Need, Row, System};

pub(super) const SYSTEM: System = System {
    name: "bun",
    needs: &[Need {
        program: "bun",
        // Behind its install script the program lies in the package itself.
        npm: &[
            "@oven/bun-linux-x64/bin/bun",
            "@oven/bun-linux-x64-baseline/bin/bun",
            "bun/bin/bun.exe",
        ],
        install: "npm install --prefix FOLDER bun, then --npm FOLDER",
    }],
    rows: &[Row {
        name: "bun, one isolate",
        within: &[Comparison::Request, Comparison::Tail, Comparison::Boot],
        target: "/",
        launch: |place| {
            let script = format!(
                "const headers = {{'content-type': 'text/plain'}};\n\
                 Bun.serve({{ hostname: '{host}', port: {port}, development: false,\n\
                 fetch() {{ return new Response('{BODY}', {{ headers }}); }} }});\n",
                host = place.address.ip(),
                port = place.address.port()
            );
            let mut command = Command::new(place.program());
            // Else it looks for packages in all folders above.
            command.arg("--no-install").arg(place.write("server.js", &script)?);
            command.current_dir(place.folder);
            Ok(command.into())
        },
    }],
};
