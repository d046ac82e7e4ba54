//! A program that begins with the first connection, and has it as its input and output: this process becomes it.

use std::ffi::OsString;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

use anyhow::{Context, Result};

/// Waits for a connection, and becomes the program.
///
/// # Errors
/// If nothing can be listened at, or the program cannot be started; else it does not return.
pub(crate) fn run(address: SocketAddr, words: &[OsString]) -> Result<()> {
    let (program, arguments) = words.split_first().context("a program is wanted")?;
    let (stream, _) = TcpListener::bind(address)?.accept()?;
    stream.set_nodelay(true)?;
    let input: OwnedFd = stream.try_clone()?.into();
    let output: OwnedFd = stream.into();
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::from(input)).stdout(Stdio::from(output));
    let error = command.exec();
    Err(error).with_context(|| format!("cannot start {}", program.display()))
}
