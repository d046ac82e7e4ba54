//! A native program by the runtime interface of AWS Lambda, behind hyper: hidden commands of this program.

use std::process::Command;

use super::{Comparison, Need, Row, System};

pub(super) const SYSTEM: System = System {
    name: "lambda",
    needs: &[Need {
        program: "midge-lab",
        npm: &[],
        install: "cargo build --release -p midge-bench",
    }],
    rows: &[Row {
        name: "lambda, one program",
        within: &[Comparison::Request],
        target: "/",
        launch: |place| {
            let mut command = Command::new(place.program());
            command.args(["lambda", &place.address.to_string()]);
            Ok(command.into())
        },
    }],
};
