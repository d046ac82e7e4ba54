//! The yardstick, and midge's network layer alone: hidden commands of this program.

use std::process::Command;

use super::{Comparison, Need, Row, System};

/// The row that ratios are taken to first.
pub(crate) const YARDSTICK: &str = "yardstick";

pub(super) const SYSTEM: System = System {
    name: YARDSTICK,
    needs: &[Need {
        program: "midge-lab",
        npm: &[],
        install: "cargo build --release -p midge-bench",
    }],
    rows: &[
        Row {
            name: YARDSTICK,
            within: &[Comparison::Request, Comparison::Tail],
            target: "/",
            launch: |place| {
                let mut command = Command::new(place.program());
                command.args(["yardstick", &place.address.to_string()]);
                Ok(command.into())
            },
        },
        Row {
            name: "midge fixed response",
            within: &[Comparison::Request, Comparison::Tail],
            target: "/",
            launch: |place| {
                let mut command = Command::new(place.program());
                command.args(["fixed", &place.address.to_string()]);
                Ok(command.into())
            },
        },
    ],
};
