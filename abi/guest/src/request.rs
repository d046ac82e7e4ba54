//! Reading a request block, without copying it.
//!
//! Every accessor slices the block; the header table is walked, not parsed. The host made the block, so a
//! span that does not fit is the host's bug and panics.

use core::mem::offset_of;
use core::net::{IpAddr, Ipv6Addr, SocketAddr};
use core::str;
use core::time::Duration;

use crate::clock;
use crate::error::FunctionError;
use crate::form;
use crate::layout::{BODY_PARTIAL, HTTP_1_0, Method, RequestHead, RequestHeader, Span, VERSION};
use crate::stream::BodyReader;
use crate::trailers::Trailers;

/// A request, lent for the time of the call.
#[derive(Debug, Clone, Copy)]
pub struct Request<'a> {
    // INVARIANT: at least as long as a `RequestHead` (`read` checked it).
    block: &'a [u8],
}

impl<'a> Request<'a> {
    /// Looks at a request block.
    ///
    /// # Errors
    /// If it is shorter than its head says, or of another version of the contract.
    pub fn read(block: &'a [u8]) -> Result<Self, FunctionError> {
        if block.len() < size_of::<RequestHead>() {
            return Err(FunctionError::new("the request block is shorter than its head"));
        }
        let request = Self { block };
        if request.u16_at(offset_of!(RequestHead, version)) != VERSION {
            return Err(FunctionError::new("the request block is of another contract version"));
        }
        if index(request.u32_at(offset_of!(RequestHead, size))) != block.len() {
            return Err(FunctionError::new(
                "the request block has another size than its head says",
            ));
        }
        Ok(request)
    }

    /// Returns the method; for [`Method::Other`] see [`Request::method_name`].
    #[must_use]
    pub fn method(&self) -> Method {
        Method::from_code(self.u16_at(offset_of!(RequestHead, method)))
    }

    /// Returns the method as it was sent.
    #[must_use]
    pub fn method_name(&self) -> &'a [u8] {
        self.part(offset_of!(RequestHead, method_name))
    }

    /// Returns true if the client speaks HTTP/1.0.
    #[must_use]
    pub fn is_http_1_0(&self) -> bool {
        self.u32_at(offset_of!(RequestHead, flags)) & HTTP_1_0 != 0
    }

    /// Returns the request target as it was sent: path and query.
    #[must_use]
    pub fn target(&self) -> &'a [u8] {
        self.part(offset_of!(RequestHead, target))
    }

    /// Returns the path, still percent-encoded.
    #[must_use]
    pub fn path(&self) -> &'a [u8] {
        self.part(offset_of!(RequestHead, path))
    }

    /// Returns what follows `?` in the target, still encoded; empty if there is none.
    #[must_use]
    pub fn query(&self) -> &'a [u8] {
        self.part(offset_of!(RequestHead, query))
    }

    /// Returns the decoded value of the first query parameter of that name.
    #[must_use]
    pub fn parameter(&self, name: &str) -> Option<&'a [u8]> {
        form::parameter(self.query(), name.as_bytes())
    }

    /// Returns [`Request::parameter`] if it is UTF-8.
    #[must_use]
    pub fn parameter_text(&self, name: &str) -> Option<&'a str> {
        str::from_utf8(self.parameter(name)?).ok()
    }

    /// Returns host and port as the client named them.
    #[must_use]
    pub fn authority(&self) -> &'a [u8] {
        self.part(offset_of!(RequestHead, authority))
    }

    /// Returns the value of the first header of that name, given in lower case.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&'a [u8]> {
        self.headers().find(|(found, _)| *found == name.as_bytes()).map(|(_, value)| value)
    }

    /// Returns [`Request::header`] if it is UTF-8.
    #[must_use]
    pub fn header_text(&self, name: &str) -> Option<&'a str> {
        str::from_utf8(self.header(name)?).ok()
    }

    /// Returns names, in lower case, and values of the headers in the order of their arrival.
    pub fn headers(&self) -> impl ExactSizeIterator<Item = (&'a [u8], &'a [u8])> + use<'a> {
        let request = *self;
        let table = index(self.u32_at(offset_of!(RequestHead, headers)));
        let count = index(self.u32_at(offset_of!(RequestHead, header_count)));
        (0..count).map(move |row| {
            let row = table + row * size_of::<RequestHeader>();
            let name = request.part(row + offset_of!(RequestHeader, name));
            (name, request.part(row + offset_of!(RequestHeader, value)))
        })
    }

    /// Returns the value of the first cookie of that name (RFC 6265 4.2.1).
    #[must_use]
    pub fn cookie(&self, name: &str) -> Option<&'a [u8]> {
        let fields = self.headers().filter(|(found, _)| *found == b"cookie");
        let mut pairs = fields.flat_map(|(_, value)| value.split(|&byte| byte == b';'));
        pairs.find_map(|pair| pair.trim_ascii().strip_prefix(name.as_bytes())?.strip_prefix(b"="))
    }

    /// Returns the body, decoded from its transfer coding. In a function that uses
    /// [`Request::body_reader`] it is only what had come when the call began.
    #[must_use]
    pub fn body(&self) -> &'a [u8] {
        self.part(offset_of!(RequestHead, body))
    }

    /// Returns a reader of the whole body, which may still be on its way.
    #[must_use]
    pub fn body_reader(&self) -> BodyReader<'a> {
        let flags = self.u32_at(offset_of!(RequestHead, flags));
        BodyReader::new(self.body(), flags & BODY_PARTIAL != 0)
    }

    /// Returns what the client sent behind the body, once that was read to its end; before, there is nothing. A
    /// function that does not read it piece by piece finds it read. Takes room of the heap.
    ///
    /// # Panics
    /// If the heap has no room for them.
    #[must_use]
    pub fn trailers(&self) -> Trailers<'a> {
        Trailers::read(0).expect("the heap is used up: give the function a larger `heap`")
    }

    /// Returns what identifies the request in logs and problem reports.
    #[must_use]
    pub fn request_id(&self) -> [u8; 16] {
        self.bytes_at(offset_of!(RequestHead, request_id))
    }

    /// Returns the time that the call may take, from its start.
    #[must_use]
    pub fn deadline(&self) -> Duration {
        let bytes = self.bytes_at(offset_of!(RequestHead, deadline_ns));
        Duration::from_nanos(u64::from_le_bytes(bytes))
    }

    /// Returns what is left of the deadline.
    #[must_use]
    pub fn time_left(&self) -> Duration {
        self.deadline().saturating_sub(clock::since_start())
    }

    /// Returns the peer's address and port, if the host knows them.
    #[must_use]
    pub fn peer(&self) -> Option<SocketAddr> {
        let address = Ipv6Addr::from(self.bytes_at(offset_of!(RequestHead, peer_address)));
        let port = self.u16_at(offset_of!(RequestHead, peer_port));
        let is_known = !address.is_unspecified();
        is_known.then(|| SocketAddr::new(IpAddr::V6(address).to_canonical(), port))
    }

    fn part(&self, span: usize) -> &'a [u8] {
        let start = index(self.u32_at(span + offset_of!(Span, offset)));
        let size = index(self.u32_at(span + offset_of!(Span, size)));
        &self.block[start..start + size]
    }

    fn u32_at(&self, offset: usize) -> u32 {
        u32::from_le_bytes(self.bytes_at(offset))
    }

    fn u16_at(&self, offset: usize) -> u16 {
        u16::from_le_bytes(self.bytes_at(offset))
    }

    fn bytes_at<const SIZE: usize>(&self, offset: usize) -> [u8; SIZE] {
        *self.block[offset..].first_chunk().expect("the host wrote whole records")
    }
}

const _: () = assert!(size_of::<usize>() >= size_of::<u32>());

/// Widens a width of the wire to an index.
const fn index(value: u32) -> usize {
    value as usize
}
