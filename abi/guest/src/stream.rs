//! Bodies piece by piece: read as they arrive, written as they come to be.
//!
//! ```no_run
//! use midge_guest::{FunctionError, Request, Response};
//!
//! /// Sends back what it gets.
//! fn handle<'a>(request: &Request<'a>) -> Result<Response<'a>, FunctionError> {
//!     let mut body = request.body_reader();
//!     let mut writer = Response::new(200).start();
//!     let mut buffer = [0; 4096];
//!     loop {
//!         let size = body.read(&mut buffer);
//!         if size == 0 {
//!             return Ok(writer.finish());
//!         }
//!         writer.write(&buffer[..size]);
//!     }
//! }
//! ```
//!
//! Outside of wasm a body ends with its block, and what is written goes nowhere.

use crate::bytes::IntoBytes;
use crate::fetch::Wait;
use crate::host;
use crate::response::Response;

/// What stands before the data of an event, and behind it.
const DATA: &[u8] = b"data: ";
const END: &[u8] = b"\n\n";
/// An event up to this size is put together on the stack.
const EVENT_LINE_BYTES: usize = 256;

/// Reads a request's body as it arrives.
#[derive(Debug)]
pub struct BodyReader<'a> {
    first: &'a [u8],
    has_more: bool,
}

impl<'a> BodyReader<'a> {
    pub(crate) const fn new(first: &'a [u8], has_more: bool) -> Self {
        Self { first, has_more }
    }

    /// Waits for bytes and reads as many as fit. Returns how many; 0 at the end, or for an empty target. If
    /// the client goes away, the call ends here.
    pub fn read(&mut self, target: &mut [u8]) -> usize {
        if !self.first.is_empty() {
            let size = self.first.len().min(target.len());
            target[..size].copy_from_slice(&self.first[..size]);
            self.first = &self.first[size..];
            return size;
        }
        if !self.has_more || target.is_empty() {
            return 0;
        }
        let size = host::body_read(target);
        self.has_more = size > 0;
        size
    }

    /// Returns what [`wait`](crate::fetch::wait) takes: that [`BodyReader::read`] would not wait.
    #[must_use]
    pub const fn more(&self) -> Wait<'_> {
        Wait::body(!self.first.is_empty() || !self.has_more)
    }
}

/// Writes the body of a response whose head was sent.
#[derive(Debug)]
#[must_use = "a response that is not finished is cut off"]
pub struct BodyWriter(());

impl BodyWriter {
    pub(crate) fn start(response: &Response<'_>) -> Self {
        #[cfg(target_arch = "wasm32")]
        crate::export::start_response(response);
        #[cfg(not(target_arch = "wasm32"))]
        let _nowhere = response;
        Self(())
    }

    /// Sends a piece. Waits while the client has too much unread.
    pub fn write(&mut self, piece: &[u8]) {
        host::response_write(piece);
    }

    /// Sends an event of [`Response::events`]. `format_args!` takes room of the heap; in a stream without end,
    /// write into a buffer of your own.
    ///
    /// # Panics
    /// If the data has a line end: each line is a `data:` of its own, which this doesn't write.
    pub fn event<'b>(&mut self, data: impl IntoBytes<'b>) {
        let data = data.into_bytes();
        assert!(!data.iter().any(|byte| matches!(byte, b'\r' | b'\n')), "an event has one line");
        // One piece where it fits, for each is a call of the host's and a chunk.
        let mut line = [0; EVENT_LINE_BYTES];
        match line.get_mut(..DATA.len() + data.len() + END.len()) {
            Some(line) => {
                let (start, rest) = line.split_at_mut(DATA.len());
                let (middle, end) = rest.split_at_mut(data.len());
                start.copy_from_slice(DATA);
                middle.copy_from_slice(data);
                end.copy_from_slice(END);
                self.write(line);
            }
            None => [DATA, data, END].into_iter().for_each(|piece| self.write(piece)),
        }
    }

    /// Ends the body; the function returns what this returns.
    #[must_use]
    pub fn finish<'a>(self) -> Response<'a> {
        Response::written()
    }

    /// Ends the body with fields behind it; the function returns what this returns. They go out where the body does in
    /// chunks: not to a client of HTTP/1.0, and not where a `content-length` was told. Those that a head alone may have
    /// are left out; clients may pass over any.
    ///
    /// # Panics
    /// If there are more than [`TRAILERS_MAX`](crate::TRAILERS_MAX).
    #[must_use]
    pub fn finish_with<'a>(self, trailers: &[(&str, &[u8])]) -> Response<'a> {
        // The host knows the response: it has no other answer for that.
        let _done = crate::trailers::write(0, trailers);
        Response::written()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_in_the_block_is_read_in_pieces() {
        let mut reader = BodyReader::new(b"hello", true);
        let mut target = [0; 3];
        assert_eq!((reader.read(&mut target), &target), (3, b"hel"));
        assert_eq!((reader.read(&mut target), &target[..2]), (2, &b"lo"[..]));
        assert_eq!(reader.read(&mut target), 0);
    }

    #[test]
    #[should_panic(expected = "one line")]
    fn an_event_of_two_lines_is_a_mistake() {
        let mut writer = Response::events().start();
        writer.event("a\nb");
    }
}
