//! A record of the data plane as a line of text or a JSON object.
//!
//! A guest's bytes are claims: in text every control character is escaped, so that no guest can forge a line
//! or steer a terminal. Where lines are broken, for `midge dev`, a guest's own are indented: none can be taken for
//! one of the host's.

use std::{
    io::{self, Write},
    time::{Duration, UNIX_EPOCH},
};

use midge_abi::{contract::Method, problem::Hex};
use serde_json::json;

use super::{Access, Event, Line};
use crate::{config::LogFormat, route::FunctionIndex};
use midge_loader::start::Tier;

/// Formats records.
pub(super) struct Formatter {
    /// Text or JSON.
    pub(super) format: LogFormat,
    /// Text of several lines stays so.
    pub(super) breaks_lines: bool,
    /// The functions' names, by index.
    pub(super) names: Box<[String]>,
}

impl Formatter {
    /// Appends an access record.
    pub(super) fn access(&self, out: &mut Vec<u8>, record: &Access) -> io::Result<()> {
        let function = record.function.map(|index| self.name(index));
        let tier = record.tier.map(Tier::name);
        let problem = record.problem.map(|problem| problem.row().slug);
        let (time, method) = (time(record.wall_ns), method_name(record.method));
        let Access { status, body_bytes, service_ns, .. } = record;
        let request = Hex(&record.request_id);
        match self.format {
            LogFormat::Text => {
                let (micros, nanos) = (service_ns / 1000, service_ns % 1000);
                let function = function.unwrap_or("-");
                let tier = tier.unwrap_or("-");
                write!(out, "{time} access {function} {method} {status} {body_bytes}B ")?;
                write!(out, "{micros}.{nanos:03}us {tier} ")?;
                if let Some(problem) = problem {
                    write!(out, "{problem} ")?;
                }
                writeln!(out, "request={request}")
            }
            LogFormat::Json => {
                let object = json!({
                    "time": time.to_string(),
                    "kind": "access",
                    "function": function,
                    "method": method,
                    "status": status,
                    "problem": problem,
                    "tier": tier,
                    "body_bytes": body_bytes,
                    "service_ns": service_ns,
                    "request": request.to_string(),
                });
                writeln!(out, "{object}")
            }
        }
    }

    /// Appends a guest's line or a trap.
    pub(super) fn line(&self, out: &mut Vec<u8>, line: &Line) -> io::Result<()> {
        let (kind, level, text) = match &line.event {
            Event::Guest { level, text } => {
                ("guest", level.name(), String::from_utf8_lossy(text.as_bytes()))
            }
            Event::Trap { text } => ("trap", "trap", text.as_ref().into()),
        };
        let (time, function) = (time(line.wall_ns), self.name(line.function));
        let request = Hex(&line.request_id);
        match self.format {
            LogFormat::Text => {
                write!(out, "{time} {level} {function}: ")?;
                let mut lines = text.trim_end().split('\n').enumerate();
                if self.breaks_lines {
                    let (_, first) = lines.next().unwrap_or_default();
                    write_escaped(out, first)?;
                    writeln!(out, " request={request}")?;
                    let indent = if kind == "trap" { "    in " } else { "    " };
                    return lines.try_for_each(|(_, line)| {
                        out.extend_from_slice(indent.as_bytes());
                        write_escaped(out, line)?;
                        out.push(b'\n');
                        Ok(())
                    });
                }
                if kind == "trap" {
                    for (number, line) in lines {
                        out.extend_from_slice(match number {
                            0 => b"",
                            1 => b" in ",
                            _ => b" < ",
                        });
                        write_escaped(out, line)?;
                    }
                } else {
                    write_escaped(out, &text)?;
                }
                writeln!(out, " request={request}")
            }
            LogFormat::Json => {
                let object = json!({
                    "time": time.to_string(),
                    "kind": kind,
                    "level": if kind == "trap" { "error" } else { level },
                    "function": function,
                    "text": text,
                    "request": request.to_string(),
                });
                writeln!(out, "{object}")
            }
        }
    }

    fn name(&self, index: FunctionIndex) -> &str {
        let position = midge_abi::width::index(index.0);
        self.names.get(position).map_or("-", String::as_str)
    }
}

fn time(wall_ns: u64) -> humantime::Rfc3339Timestamp {
    // The library takes times up to the year 9999; 64 bits of nanoseconds end in 2554.
    humantime::format_rfc3339_micros(UNIX_EPOCH + Duration::from_nanos(wall_ns))
}

fn write_escaped(out: &mut Vec<u8>, text: &str) -> io::Result<()> {
    for letter in text.chars() {
        if letter.is_control() {
            write!(out, "{}", letter.escape_default())?;
        } else {
            write!(out, "{letter}")?;
        }
    }
    Ok(())
}

const fn method_name(method: Method) -> &'static str {
    match method {
        Method::Other => "OTHER",
        Method::Get => "GET",
        Method::Head => "HEAD",
        Method::Post => "POST",
        Method::Put => "PUT",
        Method::Delete => "DELETE",
        Method::Options => "OPTIONS",
        Method::Patch => "PATCH",
        Method::Trace => "TRACE",
        Method::Connect => "CONNECT",
    }
}
