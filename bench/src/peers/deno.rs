//! Deno by `deno serve`: one isolate for all requests.

use std::process::Command;

use super::{BODY, Comparison, Need, Row, System};

pub(super) const SYSTEM: System = System {
    name: "deno",
    needs: &[Need {
        program: "deno",
        npm: &["@deno/linux-x64-glibc/deno"],
        install: "npm install --prefix FOLDER deno, then --npm FOLDER",
    }],
    rows: &[Row {
        name: "deno, one isolate",
        within: &[Comparison::Request, Comparison::Tail, Comparison::Boot],
        target: "/",
        launch: |place| {
            let script = format!(
                "const headers = {{'content-type': 'text/plain'}};\n\
                 export default {{ fetch() {{ return new Response('{BODY}', {{ headers }}); }} }};\n"
            );
            let mut command = Command::new(place.program());
            command.args(["serve", "--no-config", "--host", &place.address.ip().to_string()]);
            command.args(["--port", &place.address.port().to_string()]);
            command.arg(place.write("server.js", &script)?);
            // Its cache, and no question for a newer version.
            command.env("DENO_DIR", place.folder.join("cache"));
            command.env("DENO_NO_UPDATE_CHECK", "1").current_dir(place.folder);
            Ok(command.into())
        },
    }],
};
