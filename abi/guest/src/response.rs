//! Building an answer.

use core::marker::PhantomData;

use crate::bytes::IntoBytes;
use crate::stream::BodyWriter;

/// The most header lines that a [`Response`] holds.
pub const RESPONSE_HEADERS_MAX: usize = 16;

/// An answer: status, headers, body.
///
/// It belongs to one call. That it cannot be sent elsewhere keeps it out of statics, for the heap that its
/// parts lie in begins anew with the next call.
#[derive(Debug, Clone)]
pub struct Response<'a> {
    status: u16,
    header_count: usize,
    headers: [(&'a [u8], &'a [u8]); RESPONSE_HEADERS_MAX],
    body: &'a [u8],
    is_written: bool,
    stays_in_its_call: PhantomData<*const ()>,
}

impl<'a> Response<'a> {
    /// Returns an answer without headers and body; the host refuses a status outside 200 to 599.
    #[must_use]
    pub const fn new(status: u16) -> Self {
        Self {
            status,
            header_count: 0,
            headers: [(&[], &[]); RESPONSE_HEADERS_MAX],
            body: &[],
            is_written: false,
            stays_in_its_call: PhantomData,
        }
    }

    /// Returns a 200 with plain text.
    #[must_use]
    pub fn text(body: impl IntoBytes<'a>) -> Self {
        Self::new(200).with_header("content-type", "text/plain; charset=utf-8").with_body(body)
    }

    /// Returns a 200 with HTML.
    #[must_use]
    pub fn html(body: impl IntoBytes<'a>) -> Self {
        Self::new(200).with_header("content-type", "text/html; charset=utf-8").with_body(body)
    }

    /// Returns a 200 with JSON.
    #[must_use]
    pub fn json(body: impl IntoBytes<'a>) -> Self {
        Self::new(200).with_header("content-type", "application/json").with_body(body)
    }

    /// Sets the status.
    #[must_use]
    pub const fn with_status(mut self, status: u16) -> Self {
        self.status = status;
        self
    }

    /// Adds a header. The host writes framing, connection and date itself and refuses them here.
    ///
    /// # Panics
    /// If there are [`RESPONSE_HEADERS_MAX`] already.
    #[must_use]
    pub fn with_header(mut self, name: &'a str, value: impl IntoBytes<'a>) -> Self {
        assert!(self.header_count < RESPONSE_HEADERS_MAX, "no room for header `{name}`");
        self.headers[self.header_count] = (name.as_bytes(), value.into_bytes());
        self.header_count += 1;
        self
    }

    /// Sets the body.
    #[must_use]
    pub fn with_body(mut self, body: impl IntoBytes<'a>) -> Self {
        self.body = body.into_bytes();
        self
    }

    /// Sends status, headers and what there is of a body now, and returns a writer of the rest. A
    /// `content-length` among the headers is the length of the whole, and binds; without it the host sends
    /// chunks.
    pub fn start(self) -> BodyWriter {
        BodyWriter::start(&self)
    }

    /// Returns the head of a stream of events (HTML, 9.2 Server-sent events), to be started.
    #[must_use]
    pub fn events() -> Self {
        Self::new(200)
            .with_header("content-type", "text/event-stream")
            .with_header("cache-control", "no-store")
    }

    /// Returns what stands for a response that was written.
    pub(crate) const fn written() -> Self {
        let mut response = Self::new(200);
        response.is_written = true;
        response
    }

    /// True for what [`BodyWriter::finish`] returns.
    #[must_use]
    pub const fn is_written(&self) -> bool {
        self.is_written
    }

    /// Returns the status.
    #[must_use]
    pub const fn status(&self) -> u16 {
        self.status
    }

    /// Returns names and values of the headers.
    pub fn headers(&self) -> impl ExactSizeIterator<Item = (&[u8], &[u8])> {
        self.headers[..self.header_count].iter().copied()
    }

    /// Returns the body.
    #[must_use]
    pub const fn body(&self) -> &[u8] {
        self.body
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_holds_what_was_put_into_it() {
        let answer = Response::text("a")
            .with_status(404)
            .with_header("x-b", format_args!("{}", 7))
            .with_body(b"c");
        assert_eq!(answer.status(), 404);
        assert_eq!(answer.body(), b"c");
        assert!(answer.headers().eq([
            (&b"content-type"[..], &b"text/plain; charset=utf-8"[..]),
            (&b"x-b"[..], &b"7"[..]),
        ]));
    }

    #[test]
    #[should_panic(expected = "no room for header `x`")]
    fn a_full_table_takes_no_header() {
        let _never = (0..=RESPONSE_HEADERS_MAX)
            .fold(Response::new(200), |answer, _| answer.with_header("x", "y"));
    }
}
