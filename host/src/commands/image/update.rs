//! `midge image update`: the image, signed, to a machine that runs one.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result};
use midge_abi::problem::Hex;
use serde_json::Value;

use super::{Machine, Purpose};
use crate::cli::ImageUpdateArgs;
use crate::output::{self, Failure};
use crate::update::{PATH, Private, SIGNATURE_FIELD};

/// How long the machine may take to look at the image and to write it.
const ANSWER_MAX: Duration = Duration::from_secs(180);
/// Bytes of its answer that are read.
const ANSWER_BYTES_MAX: u64 = 16 * 1024;

/// Runs the command.
///
/// # Errors
/// The image cannot be made, or the machine does not take it: it runs on as it is.
pub(super) fn run(args: &ImageUpdateArgs) -> Result<ExitCode> {
    let key = Private::read(&args.key)?;
    // Unless another key is named, the same one is for the update after this.
    let machine = Machine::updatable(&args.parts, Purpose::Disk, Some(key.public()))?;
    let image = machine.firmware_program(&args.parts.stub)?;
    let id = &machine.id;
    let signature = Hex(&key.sign(&image)).to_string();
    let host = args.to.strip_prefix("http://").unwrap_or(&args.to).trim_end_matches('/');
    output::complain(&format!(
        "{}: image {id}, {} bytes, to {host}\n",
        output::PROGRAM,
        image.len()
    ));
    let (status, text) =
        send(host, &image, &signature).with_context(|| format!("cannot reach `{host}`"))?;
    if status == 200 {
        output::print(&format!("{text}\n"))?;
        return Ok(ExitCode::SUCCESS);
    }
    Err(Failure {
        what: format!("the machine does not take image {id} ({status}): {text}"),
        next: "it runs on as it is; its console says the same".into(),
        is_usage: false,
        cause: None,
    }
    .into())
}

/// Sends it, and returns the status and what it says.
fn send(host: &str, image: &[u8], signature: &str) -> Result<(u16, String)> {
    let mut stream = TcpStream::connect(host)?;
    stream.set_read_timeout(Some(ANSWER_MAX))?;
    stream.set_write_timeout(Some(ANSWER_MAX))?;
    let head = format!(
        "PUT {PATH} HTTP/1.1\r\nHost: {host}\r\nContent-Length: {}\r\n{SIGNATURE_FIELD}: {signature}\r\n\
         Connection: close\r\n\r\n",
        image.len()
    );
    // A machine that refuses answers before it has read everything.
    let sent = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(image));
    let mut answer = Vec::new();
    let read = stream.take(ANSWER_BYTES_MAX).read_to_end(&mut answer);
    let answer = String::from_utf8_lossy(&answer);
    let Some((status, body)) = parse(&answer) else {
        sent?;
        read?;
        anyhow::bail!("that is no answer of a machine of midge");
    };
    let problem: Option<Value> = serde_json::from_str(body).ok();
    let detail = problem.as_ref().and_then(|problem| problem["detail"].as_str());
    Ok((status, output::printable(detail.unwrap_or(body).trim()).into_owned()))
}

fn parse(answer: &str) -> Option<(u16, &str)> {
    let (head, body) = answer.split_once("\r\n\r\n")?;
    let status = head.strip_prefix("HTTP/1.1 ")?.get(..3)?.parse().ok()?;
    Some((status, body))
}
