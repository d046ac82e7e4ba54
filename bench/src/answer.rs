//! One response off a socket that waits: for commands that ask one thing at a time.

use std::io::{self, ErrorKind, Read};
use std::net::TcpStream;

use anyhow::{Result, ensure};
use midge_load::response::{Facts, Reader, Sink, Unexpected};

use crate::peers::BODY;

/// A response.
#[derive(Debug, Default)]
pub(crate) struct Answer {
    status: u16,
    body: Vec<u8>,
    is_whole: bool,
}

impl Answer {
    /// Reads a response to its end, and nothing behind it.
    ///
    /// # Errors
    /// Those of reading, an end that comes before that of the response, and what is none.
    pub(crate) fn read(stream: &TcpStream) -> io::Result<Self> {
        let (mut reader, mut answer) = (Reader::new(), Self::default());
        let mut bytes = [0; 4096];
        while !answer.is_whole {
            let size = read(stream, &mut bytes)?;
            if size == 0 {
                if !reader.finish(&mut answer) {
                    return Err(ErrorKind::UnexpectedEof.into());
                }
                break;
            }
            let read = reader.read(&mut bytes[..size], &mut answer);
            read.map_err(|error| io::Error::other(format!("no response of HTTP/1.1: {error:?}")))?;
        }
        Ok(answer)
    }

    /// Tells whether it is what every server of the lab answers.
    ///
    /// # Errors
    /// What it is instead.
    pub(crate) fn check(&self) -> Result<()> {
        let body = String::from_utf8_lossy(&self.body);
        ensure!(self.status == 200 && body == BODY, "it answers {}: {body}", self.status);
        Ok(())
    }
}

/// Reads; a signal ends a call that has a time limit, and says nothing.
///
/// # Errors
/// Those of reading.
pub(crate) fn read(mut stream: &TcpStream, bytes: &mut [u8]) -> io::Result<usize> {
    loop {
        match stream.read(bytes) {
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            result => return result,
        }
    }
}

impl Sink for Answer {
    fn head(&mut self, facts: Facts) -> Result<bool, Unexpected> {
        self.status = facts.status;
        Ok(true)
    }

    fn body(&mut self, bytes: &[u8]) {
        self.body.extend_from_slice(bytes);
    }

    fn end(&mut self) {
        self.is_whole = true;
    }
}
