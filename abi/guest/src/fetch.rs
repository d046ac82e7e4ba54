//! Requests to other servers, which a function may make where its grant names them.
//!
//! ```
//! use midge_guest::fetch::Fetch;
//! use midge_guest::{FunctionError, Request, Response};
//!
//! /// Passes on what another server says.
//! fn handle<'a>(request: &Request<'a>) -> Result<Response<'a>, FunctionError> {
//!     let mut answer = Fetch::get(request, "https://api.example.com/rates")
//!         .with_header("accept", "application/json")
//!         .send()?;
//!     let body = answer.body(64 * 1024)?;
//!     Ok(Response::json(body).with_status(answer.status()))
//! }
//! ```
//!
//! ```text
//!   Fetch --start--> Pending --answer--> Answer --read--> bytes
//!                       |  write, finish    |  write, finish: a body may be sent while the response comes
//!                       +---- wait: until something can be done with any of several ---+
//! ```
//!
//! All of it happens within a call: what a response lends out lives as long as the request does, and lies in the
//! heap. A request is given up when its `Pending` or `Answer` is dropped.
//!
//! Outside of wasm nothing is granted: each fetch ends in [`FetchError::Denied`].

mod error; // why there is no response
mod url; // scheme, authority, target
mod wait; // for any of several

pub use error::FetchError;
pub use wait::{Wait, wait};

use core::marker::PhantomData;
use core::str;
use core::time::Duration;

use crate::bytes::IntoBytes;
use crate::fields::Fields;
use crate::heap;
use crate::host::{self, Asked};
use crate::layout::{
    BODY_SIZE_UNKNOWN, FETCH_BODY, FETCH_TLS, LATER, WAIT_FETCH_BODY, WAIT_FETCH_HEAD,
    WAIT_FETCH_ROOM,
};
use crate::request::Request;
use crate::trailers::{self, Trailers};

/// The most header lines that a [`Fetch`] holds.
pub const FETCH_HEADERS_MAX: usize = 16;

/// A request to another server, as it is put together.
#[derive(Debug, Clone)]
#[must_use = "nothing is sent before `send` or `start`"]
pub struct Fetch<'a> {
    method: &'a [u8],
    url: &'a [u8],
    header_count: usize,
    headers: [(&'a [u8], &'a [u8]); FETCH_HEADERS_MAX],
    body: Body<'a>,
    times_ns: [u64; 3],
    stays_in_its_call: PhantomData<*const ()>,
}

#[derive(Debug, Clone, Copy)]
enum Body<'a> {
    None,
    Whole(&'a [u8]),
    /// By `write`, of this size.
    Pieces(u64),
}

impl<'a> Fetch<'a> {
    /// Returns a request by any method. The URL is absolute: `https://host/path?query`.
    pub fn new(
        _request: &Request<'a>,
        method: impl IntoBytes<'a>,
        url: impl IntoBytes<'a>,
    ) -> Self {
        Self {
            method: method.into_bytes(),
            url: url.into_bytes(),
            header_count: 0,
            headers: [(&[], &[]); FETCH_HEADERS_MAX],
            body: Body::None,
            times_ns: [0; 3],
            stays_in_its_call: PhantomData,
        }
    }

    /// Returns a GET.
    pub fn get(request: &Request<'a>, url: impl IntoBytes<'a>) -> Self {
        Self::new(request, "GET", url)
    }

    /// Returns a POST of this body.
    pub fn post(request: &Request<'a>, url: impl IntoBytes<'a>, body: impl IntoBytes<'a>) -> Self {
        Self::new(request, "POST", url).with_body(body)
    }

    /// Adds a header. The host writes framing, connection and `host` itself: it traps where one of them, or a
    /// line end in a value, comes from here. `te: trailers`, and `trailer` for names of one's own, it takes.
    ///
    /// # Panics
    /// If there are [`FETCH_HEADERS_MAX`] already.
    pub fn with_header(mut self, name: &'a str, value: impl IntoBytes<'a>) -> Self {
        assert!(self.header_count < FETCH_HEADERS_MAX, "no room for header `{name}`");
        self.headers[self.header_count] = (name.as_bytes(), value.into_bytes());
        self.header_count += 1;
        self
    }

    /// Sets the body.
    pub fn with_body(mut self, body: impl IntoBytes<'a>) -> Self {
        self.body = Body::Whole(body.into_bytes());
        self
    }

    /// Announces a body that is written piece by piece, to what [`Fetch::start`] returns. Where its size is not
    /// known its end has to be told by [`Pending::finish`].
    pub const fn with_body_in_pieces(mut self, size: Option<u64>) -> Self {
        self.body = Body::Pieces(match size {
            Some(size) => size,
            None => BODY_SIZE_UNKNOWN,
        });
        self
    }

    /// Sets the longest time for a connection, with its TLS. Without it the host's own holds; so with the next.
    pub fn with_connect_time(self, time: Duration) -> Self {
        self.with_time(0, time)
    }

    /// Sets the longest time from the request to the head of its response.
    pub fn with_answer_time(self, time: Duration) -> Self {
        self.with_time(1, time)
    }

    /// Sets the longest time between two pieces of the response's body.
    pub fn with_piece_time(self, time: Duration) -> Self {
        self.with_time(2, time)
    }

    fn with_time(mut self, which: usize, time: Duration) -> Self {
        // 0 would be the host's own.
        self.times_ns[which] = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX).max(1);
        self
    }

    /// Sends the request with its body, and waits for the head of the response.
    ///
    /// # Errors
    /// Why there is no response. A status such as 404 is one.
    pub fn send(self) -> Result<Answer<'a>, FetchError> {
        self.start()?.answer()
    }

    /// Sends the request, with its body if that is whole, and waits for nothing but room for the body.
    ///
    /// # Errors
    /// As [`Fetch::send`], as far as that is known at once.
    pub fn start(self) -> Result<Pending<'a>, FetchError> {
        let url = url::parse(self.url).ok_or(FetchError::Uri)?;
        let (flag, body_size) = match self.body {
            Body::None => (0, 0),
            Body::Whole(body) => (FETCH_BODY, body.len() as u64),
            Body::Pieces(size) => (FETCH_BODY, size),
        };
        let asked = Asked {
            flags: flag | if url.is_tls { FETCH_TLS } else { 0 },
            method: self.method,
            authority: url.authority,
            target: url.target,
            headers: &self.headers[..self.header_count],
            body_size,
            times_ns: self.times_ns,
        };
        let handle = Handle(there(host::fetch(&asked))?);
        let mut pending = Pending { handle, call: PhantomData };
        if let Body::Whole(body) = self.body {
            pending.write(body)?;
            pending.finish()?;
        }
        Ok(pending)
    }
}

/// A handle of the host's, given back when it is dropped.
#[derive(Debug)]
struct Handle(u32);

impl Drop for Handle {
    fn drop(&mut self) {
        host::fetch_close(self.0);
    }
}

impl Handle {
    fn row(&self, kind: u16) -> Wait<'_> {
        Wait::fetch(kind, self.0)
    }

    fn write(&self, mut piece: &[u8]) -> Result<(), FetchError> {
        while !piece.is_empty() {
            let taken = self.until_there(WAIT_FETCH_ROOM, || host::fetch_write(self.0, piece))?;
            piece = &piece[taken..];
        }
        Ok(())
    }

    fn finish(&self) -> Result<(), FetchError> {
        there(host::fetch_finish(self.0)).map(drop)
    }

    fn finish_with(&self, trailers: &[(&str, &[u8])]) -> Result<(), FetchError> {
        there(trailers::write(self.0, trailers)).map(drop)
    }

    /// Asks until the host has it, and rests in between.
    fn until_there(&self, kind: u16, mut ask: impl FnMut() -> i32) -> Result<usize, FetchError> {
        loop {
            let answer = ask();
            if answer != LATER {
                return there(answer).map(index);
            }
            wait(&mut [self.row(kind)], None);
        }
    }
}

/// A request under way. Dropping it gives it up.
#[derive(Debug)]
#[must_use = "dropping it gives the request up"]
pub struct Pending<'a> {
    handle: Handle,
    call: PhantomData<(&'a (), *const ())>,
}

impl<'a> Pending<'a> {
    /// Sends a piece of the body. Waits while the server has too much of it unread.
    ///
    /// # Errors
    /// Why there will be no response; also for more than was announced.
    pub fn write(&mut self, piece: &[u8]) -> Result<(), FetchError> {
        self.handle.write(piece)
    }

    /// Ends the body.
    ///
    /// # Errors
    /// As [`Pending::write`]; also for less than was announced.
    pub fn finish(&mut self) -> Result<(), FetchError> {
        self.handle.finish()
    }

    /// Ends a body of unknown size with fields behind it; one whose size was told has no place for them. Those that a
    /// head alone may have are left out.
    ///
    /// # Errors
    /// As [`Pending::finish`].
    ///
    /// # Panics
    /// If there are more than [`TRAILERS_MAX`](crate::TRAILERS_MAX).
    pub fn finish_with(&mut self, trailers: &[(&str, &[u8])]) -> Result<(), FetchError> {
        self.handle.finish_with(trailers)
    }

    /// Returns what [`wait`] takes: that [`Pending::answer`] would not wait.
    #[must_use]
    pub fn head(&self) -> Wait<'_> {
        self.handle.row(WAIT_FETCH_HEAD)
    }

    /// Returns what [`wait`] takes: that there is room for a piece of the body.
    #[must_use]
    pub fn room(&self) -> Wait<'_> {
        self.handle.row(WAIT_FETCH_ROOM)
    }

    /// Waits for the head of the response, which is read into the heap.
    ///
    /// # Errors
    /// Why there is none.
    pub fn answer(self) -> Result<Answer<'a>, FetchError> {
        let handle = self.handle;
        let mut end = Ok(0);
        let head = heap::fill_rest(usize::MAX, |target| {
            end = handle.until_there(WAIT_FETCH_HEAD, || host::fetch_head(handle.0, target));
            end.unwrap_or(0)
        });
        end?;
        Ok(Answer { handle, head: Fields::new(head), call: PhantomData })
    }
}

/// A response of another server, whose body is still to be read. Dropping it gives up what is unread.
#[derive(Debug)]
pub struct Answer<'a> {
    handle: Handle,
    head: Fields<'a>,
    call: PhantomData<*const ()>,
}

impl<'a> Answer<'a> {
    /// Returns the status.
    #[must_use]
    pub fn status(&self) -> u16 {
        self.head.status()
    }

    /// Returns names, in lower case, and values of the headers in the order of their arrival.
    pub fn headers(&self) -> impl ExactSizeIterator<Item = (&'a [u8], &'a [u8])> + use<'_, 'a> {
        self.head.rows()
    }

    /// Returns the value of the first header of that name, given in lower case.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&'a [u8]> {
        self.head.get(name)
    }

    /// Returns [`Answer::header`] if it is UTF-8.
    #[must_use]
    pub fn header_text(&self, name: &str) -> Option<&'a str> {
        str::from_utf8(self.header(name)?).ok()
    }

    /// Waits for bytes of the body and reads as many as fit. Returns how many; 0 at the end, or for an empty
    /// target.
    ///
    /// # Errors
    /// Why it ends before its end.
    pub fn read(&mut self, target: &mut [u8]) -> Result<usize, FetchError> {
        if target.is_empty() {
            return Ok(0);
        }
        self.handle.until_there(WAIT_FETCH_BODY, || host::fetch_read(self.handle.0, target))
    }

    /// Reads what there is of the body now, and waits for nothing: `None` where more is to come.
    ///
    /// # Errors
    /// As [`Answer::read`].
    pub fn read_now(&mut self, target: &mut [u8]) -> Result<Option<usize>, FetchError> {
        match host::fetch_read(self.handle.0, target) {
            LATER => Ok(None),
            answer => there(answer).map(|size| Some(index(size))),
        }
    }

    /// Reads the rest of the body into the heap.
    ///
    /// # Errors
    /// As [`Answer::read`]; [`FetchError::BodyTooLong`] for one that is longer than `size_max`, or than what is
    /// free of the heap.
    pub fn body(&mut self, size_max: usize) -> Result<&'a [u8], FetchError> {
        let mut end = Ok(());
        let body = heap::fill_rest(size_max, |target| {
            let mut size = 0;
            end = loop {
                // Whether a full target has all of it, one byte more tells.
                let mut beyond = [0];
                let is_full = size == target.len();
                let free = if is_full { &mut beyond[..] } else { &mut target[size..] };
                match self.read(free) {
                    Ok(0) => break Ok(()),
                    Ok(_) if is_full => break Err(FetchError::BodyTooLong),
                    Ok(read) => size += read,
                    Err(error) => break Err(error),
                }
            };
            if end.is_ok() { size } else { 0 }
        });
        end.map(|()| body)
    }

    /// Sends a piece of the request's body, which may still be under way.
    ///
    /// # Errors
    /// As [`Pending::write`].
    pub fn write(&mut self, piece: &[u8]) -> Result<(), FetchError> {
        self.handle.write(piece)
    }

    /// Ends the request's body.
    ///
    /// # Errors
    /// As [`Pending::finish`].
    pub fn finish(&mut self) -> Result<(), FetchError> {
        self.handle.finish()
    }

    /// Ends the request's body with fields behind it.
    ///
    /// # Errors
    /// As [`Pending::finish_with`].
    ///
    /// # Panics
    /// As [`Pending::finish_with`].
    pub fn finish_with(&mut self, trailers: &[(&str, &[u8])]) -> Result<(), FetchError> {
        self.handle.finish_with(trailers)
    }

    /// Returns what the server sent behind the body, into the heap; what was not read of the body is passed over. A
    /// server may want to be asked for it: `with_header("te", "trailers")`.
    ///
    /// # Errors
    /// As [`Answer::read`].
    pub fn trailers(&mut self) -> Result<Trailers<'a>, FetchError> {
        let mut passed_over = [0; 256];
        while self.read(&mut passed_over)? > 0 {}
        Trailers::read(self.handle.0).map_err(FetchError::from_answer)
    }

    /// Returns what [`wait`] takes: that [`Answer::read`] would not wait.
    #[must_use]
    pub fn more(&self) -> Wait<'_> {
        self.handle.row(WAIT_FETCH_BODY)
    }

    /// Returns what [`wait`] takes: that there is room for a piece of the request's body.
    #[must_use]
    pub fn room(&self) -> Wait<'_> {
        self.handle.row(WAIT_FETCH_ROOM)
    }
}

/// Tells an answer of the host's from an error.
fn there(answer: i32) -> Result<u32, FetchError> {
    u32::try_from(answer).map_err(|_| FetchError::from_answer(answer))
}

/// Widens a width of the wire to an index.
const fn index(value: u32) -> usize {
    value as usize
}

#[cfg(test)]
mod tests {
    use std::vec::Vec;

    use super::*;
    use crate::layout::RequestHead;

    /// A request block without parts.
    fn request() -> Request<'static> {
        let mut block = Vec::from([0; size_of::<RequestHead>()]);
        assert_eq!(block.len(), 128);
        block[..4].copy_from_slice(&128_u32.to_le_bytes());
        block[4] = 1;
        Request::read(block.leak()).unwrap()
    }

    #[test]
    fn nothing_is_granted_outside_of_a_host() {
        let request = request();
        for url in ["http://a", "https://a:8443/b?c"] {
            assert_eq!(Fetch::get(&request, url).send().unwrap_err(), FetchError::Denied, "{url}");
        }
        let post = Fetch::post(&request, "http://a/", "body").with_header("x", "y");
        assert_eq!(post.start().unwrap_err(), FetchError::Denied);
        assert_eq!(Fetch::get(&request, "a/b").send().unwrap_err(), FetchError::Uri);
    }

    #[test]
    #[should_panic(expected = "no room for header `x`")]
    fn a_full_table_takes_no_header() {
        let request = request();
        let _never = (0..=FETCH_HEADERS_MAX)
            .fold(Fetch::get(&request, "http://a"), |fetch, _| fetch.with_header("x", "y"));
    }
}
