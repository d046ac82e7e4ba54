//! `wasmtime serve` with a component of `wasi:http`, compiled before it starts.
//!
//! The component writes to three pages and changes two globals for each request, as the function of midge's rows
//! does; its text is `wasmtime.wat`.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};

use super::{Comparison, Launch, Need, Place, Row, System};

pub(crate) const COMPONENT: &str = include_str!("wasmtime.wat");

/// A warm pool: pages of memories, tables and stacks stay, and are cleared by writing.
const KEPT: [&str; 5] = [
    "pooling-allocator=y",
    "pooling-memory-keep-resident=65536",
    "pooling-table-keep-resident=65536",
    "pooling-async-stack-keep-resident=65536",
    "pooling-max-unused-warm-slots=1000",
];

/// The same, but the kernel is asked which pages were written (Linux 6.7).
const SCANNED: [&str; 6] = [
    "pooling-allocator=y",
    "pooling-pagemap-scan=y",
    "pooling-memory-keep-resident=1048576",
    "pooling-table-keep-resident=65536",
    "pooling-async-stack-keep-resident=65536",
    "pooling-max-unused-warm-slots=1000",
];

/// Requests that an instance serves where instances are reused: all.
const REUSE_COUNT: &str = "1000000000";

pub(super) const SYSTEM: System = System {
    name: "wasmtime",
    needs: &[Need {
        program: "wasmtime",
        npm: &[],
        install: "cargo install wasmtime-cli --version ^48 --locked",
    }],
    rows: &[
        Row {
            name: "wasmtime serve, fresh",
            within: &[Comparison::Request, Comparison::Boot],
            target: "/",
            launch: |place| serve(place, &compiled(place)?, &[]),
        },
        Row {
            name: "wasmtime serve, no pool",
            within: &[Comparison::Request, Comparison::Boot],
            target: "/",
            launch: |place| serve(place, &compiled(place)?, &["-O", "pooling-allocator=n"]),
        },
        Row {
            name: "wasmtime serve, kept",
            within: &[Comparison::Request],
            target: "/",
            launch: |place| serve(place, &compiled(place)?, &options(&KEPT)),
        },
        Row {
            name: "wasmtime serve, scan",
            within: &[Comparison::Request],
            target: "/",
            launch: |place| serve(place, &compiled(place)?, &options(&SCANNED)),
        },
        Row {
            name: "wasmtime serve, reused",
            within: &[Comparison::Request],
            target: "/",
            launch: |place| {
                let reuse = ["--max-instance-reuse-count", REUSE_COUNT];
                serve(place, &compiled(place)?, &reuse)
            },
        },
        Row {
            name: "wasmtime serve, compiles",
            within: &[Comparison::Boot],
            target: "/",
            launch: |place| serve(place, &place.write("guest.wat", COMPONENT)?, &[]),
        },
    ],
};

fn options<'a>(values: &[&'a str]) -> Vec<&'a str> {
    values.iter().flat_map(|value| ["-O", *value]).collect()
}

/// Compiles the component, so that no figure holds that; returns the file.
fn compiled(place: &Place<'_>) -> Result<PathBuf> {
    let component = place.write("guest.wat", COMPONENT)?;
    let compiled = place.folder.join("guest.cwasm");
    let mut command = Command::new(place.program());
    command.arg("compile").arg(&component).arg("-o").arg(&compiled).stdin(Stdio::null());
    let ended = command.output().context("cannot start wasmtime")?;
    let why = String::from_utf8_lossy(&ended.stderr);
    ensure!(ended.status.success(), "wasmtime compile: {}", why.lines().next().unwrap_or(""));
    Ok(compiled)
}

fn serve(place: &Place<'_>, component: &Path, options: &[&str]) -> Result<Launch> {
    let mut command = Command::new(place.program());
    command.arg("serve").args(["--addr", &place.address.to_string()]).args(options);
    if component.extension().is_some_and(|extension| extension == "cwasm") {
        command.arg("--allow-precompiled");
    }
    command.arg(component);
    Ok(command.into())
}
