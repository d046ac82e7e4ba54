//! A program by the runtime interface: it asks for an event, answers it, and asks again, on one connection.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::{INVOCATION, REQUEST_ID};
use crate::peers::BODY;

/// Size of a response of the interface, head and event.
const RESPONSE_BYTES_MAX: usize = 8 << 20;

/// Serves until the other side ends.
///
/// # Errors
/// When the other side ends, or does not keep to the interface.
pub(crate) fn run(api: SocketAddr) -> Result<()> {
    let stream = TcpStream::connect(api).context("nobody offers requests")?;
    stream.set_nodelay(true)?;
    let mut connection = Connection { stream, bytes: Vec::new() };
    loop {
        let next = format!("GET {INVOCATION}next HTTP/1.1\r\nHost: {api}\r\n\r\n");
        connection.stream.write_all(next.as_bytes())?;
        let (id, event) = connection.receive()?;
        let id = id.context("an event has no name")?;
        let answer = handle(&serde_json::from_slice(&event)?).to_string();
        let length = answer.len();
        let post = format!(
            "POST {INVOCATION}{id}/response HTTP/1.1\r\nHost: {api}\r\n\
             Content-Length: {length}\r\n\r\n{answer}"
        );
        connection.stream.write_all(post.as_bytes())?;
        connection.receive()?;
    }
}

/// The handler.
fn handle(event: &Value) -> Value {
    let is_request = event["requestContext"]["http"]["method"].is_string();
    json!({
        "statusCode": if is_request { 200 } else { 400 },
        "headers": {"content-type": "text/plain"},
        "body": BODY,
    })
}

struct Connection {
    stream: TcpStream,
    /// What was read and belongs to no response yet.
    bytes: Vec<u8>,
}

impl Connection {
    /// Reads a response; returns the name of the event, and the body.
    fn receive(&mut self) -> Result<(Option<String>, Vec<u8>)> {
        loop {
            if let Some(head) = Head::find(&self.bytes)? {
                let end = head.bytes + head.length;
                if end <= self.bytes.len() {
                    let body = self.bytes[head.bytes..end].to_vec();
                    self.bytes.drain(..end);
                    return Ok((head.id, body));
                }
            }
            ensure!(self.bytes.len() < RESPONSE_BYTES_MAX, "a response is too large");
            let mut piece = [0; 16 << 10];
            let size = self.stream.read(&mut piece)?;
            ensure!(size > 0, "nobody offers requests any more");
            self.bytes.extend_from_slice(&piece[..size]);
        }
    }
}

/// What is needed of a head.
#[derive(Debug, PartialEq)]
struct Head {
    bytes: usize,
    length: usize,
    id: Option<String>,
}

impl Head {
    /// Finds a head at the beginning, if it is whole.
    fn find(bytes: &[u8]) -> Result<Option<Self>> {
        let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") else {
            return Ok(None);
        };
        let text = std::str::from_utf8(&bytes[..end])?;
        let (first, fields) = text.split_once("\r\n").unwrap_or((text, ""));
        ensure!(first.starts_with("HTTP/1.1 2"), "the interface answers: {first}");
        let mut head = Self { bytes: end + 4, length: 0, id: None };
        for (name, value) in fields.lines().filter_map(|field| field.split_once(':')) {
            if name.eq_ignore_ascii_case("content-length") {
                head.length = value.trim().parse()?;
            } else if name.eq_ignore_ascii_case(REQUEST_ID) {
                head.id = Some(value.trim().to_owned());
            }
        }
        ensure!(head.length < RESPONSE_BYTES_MAX, "a response is too large");
        Ok(Some(head))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heads_are_read_when_they_are_whole() {
        let find = |text: &str| Head::find(text.as_bytes());
        assert_eq!(find("HTTP/1.1 200 OK\r\nContent-Length: 7\r\n").unwrap(), None);
        let text = "HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\
                    Lambda-Runtime-Aws-Request-Id: 12\r\n\r\n{";
        let wanted = Head { bytes: text.len() - 1, length: 7, id: Some("12".into()) };
        assert_eq!(find(text).unwrap(), Some(wanted));
        assert_eq!(
            find("HTTP/1.1 202 Accepted\r\n\r\n").unwrap(),
            Some(Head { bytes: 25, length: 0, id: None })
        );
        for wrong in [
            "HTTP/1.1 404 Not Found\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 99999999\r\n\r\n",
        ] {
            assert!(find(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn an_event_that_is_no_request_is_refused() {
        assert_eq!(handle(&json!({}))["statusCode"], 400);
        let event = json!({"requestContext": {"http": {"method": "GET"}}});
        assert_eq!(handle(&event)["statusCode"], 200);
    }
}
