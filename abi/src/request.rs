//! Host to guest: a request laid into the guest's area.
//!
//! The head goes over as it was received, in one copy; the table of headers points into it. So encoding
//! costs two copies of bytes (head, body) and sixteen bytes for each header.
//!
//! Hot path: `encode`.

use std::mem::offset_of;

use crate::contract::{
    BODY_ALIGN, HEADER_SIZE, Method, REQUEST_HEAD_SIZE, RequestHead, VERSION, flags,
};
use crate::width::wire;

/// A region of the received head: what the parser found, relative to the head's first byte.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct HeadSpan {
    /// Bytes from the start of the head.
    pub offset: u16,
    /// Size in bytes.
    pub size: u16,
}

/// One received header line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct HeaderSpan {
    /// Its name, in lower case in the head.
    pub name: HeadSpan,
    /// Its value.
    pub value: HeadSpan,
}

/// A request as the host holds it: bytes and where the parts lie in them.
#[derive(Debug, Clone, Copy)]
pub struct Request<'a> {
    /// The received head, from the request line to the empty line.
    pub head: &'a [u8],
    /// What the host itself adds behind the head; rows of headers may lie in it.
    pub tail: &'a [u8],
    /// Its method.
    pub method: Method,
    /// The method as it was sent.
    pub method_name: HeadSpan,
    /// The target as it was sent.
    pub target: HeadSpan,
    /// The path of the target.
    pub path: HeadSpan,
    /// The query of the target without `?`.
    pub query: HeadSpan,
    /// Host and port.
    pub authority: HeadSpan,
    /// True for HTTP/1.0.
    pub is_http_1_0: bool,
    /// The decoded body.
    pub body: &'a [u8],
    /// Names the request in logs.
    pub request_id: [u8; 16],
    /// The call's time budget in nanoseconds.
    pub deadline_ns: u64,
    /// IPv6 address of the peer, or mapped IPv4.
    pub peer_address: [u8; 16],
    /// Port of the peer.
    pub peer_port: u16,
}

/// Returns the size of the block that [`encode`] writes for these parts; head and tail count together.
#[must_use]
pub const fn block_size(head_bytes: usize, header_count: usize, body_bytes: usize) -> usize {
    body_offset(head_bytes, header_count) + body_bytes
}

const fn body_offset(head_bytes: usize, header_count: usize) -> usize {
    (REQUEST_HEAD_SIZE + header_count * HEADER_SIZE + head_bytes).next_multiple_of(BODY_ALIGN)
}

/// Lays the request out in `block`, which has exactly [`block_size`] bytes.
///
/// # Panics
/// If `block` has another size, or a span lies outside the head: both come from the host's own parser.
///
/// # Cost
/// One copy of head and body, 16 bytes written per header (`bench/benches/request.rs`, `encode`).
pub fn encode<H>(block: &mut [u8], request: &Request<'_>, headers: H)
where
    H: ExactSizeIterator<Item = HeaderSpan>,
{
    let header_count = headers.len();
    let head_offset = REQUEST_HEAD_SIZE + header_count * HEADER_SIZE;
    let head_bytes = request.head.len() + request.tail.len();
    let body_offset = body_offset(head_bytes, header_count);
    assert_eq!(block.len(), body_offset + request.body.len(), "the caller asked block_size");

    let base = wire(head_offset);
    let (fixed, rest) = block.split_at_mut(REQUEST_HEAD_SIZE);
    let fixed: &mut [u8; REQUEST_HEAD_SIZE] = fixed.try_into().expect("split at its size");
    let (table, rest) = rest.split_at_mut(header_count * HEADER_SIZE);
    let (head, rest) = rest.split_at_mut(request.head.len());
    let (mut pad, body) = rest.split_at_mut(body_offset - head_offset - request.head.len());

    write_fixed(fixed, request, base, wire(header_count), wire(body_offset));
    let (rows, _) = table.as_chunks_mut::<HEADER_SIZE>();
    for (row, header) in rows.iter_mut().zip(headers) {
        put_span(&mut row[..8], base, header.name);
        put_span(&mut row[8..], base, header.value);
    }
    head.copy_from_slice(request.head);
    if !request.tail.is_empty() {
        let (tail, rest) = pad.split_at_mut(request.tail.len());
        tail.copy_from_slice(request.tail);
        pad = rest;
    }
    pad.fill(0);
    body.copy_from_slice(request.body);
}

/// Says in a block that its body is the beginning of one.
///
/// # Panics
/// If `block` is shorter than a request's head.
pub fn mark_body_partial(block: &mut [u8]) {
    let offset = offset_of!(RequestHead, flags);
    let old = crate::contract::u32_at(block, offset);
    put(block, offset, &(old | flags::BODY_PARTIAL).to_le_bytes());
}

fn write_fixed(
    fixed: &mut [u8; REQUEST_HEAD_SIZE],
    request: &Request<'_>,
    base: u32,
    header_count: u32,
    body_offset: u32,
) {
    let body_size = wire(request.body.len());
    let http_1_0 = if request.is_http_1_0 { flags::HTTP_1_0 } else { 0 };
    fixed.fill(0);
    put_u32(fixed, offset_of!(RequestHead, size), body_offset + body_size);
    put_u16(fixed, offset_of!(RequestHead, version), VERSION);
    put_u16(fixed, offset_of!(RequestHead, method), request.method.code());
    put_u32(fixed, offset_of!(RequestHead, flags), http_1_0);
    put_u32(fixed, offset_of!(RequestHead, header_count), header_count);
    put_u32(fixed, offset_of!(RequestHead, headers), wire(REQUEST_HEAD_SIZE));
    put_span(&mut fixed[offset_of!(RequestHead, method_name)..], base, request.method_name);
    put_span(&mut fixed[offset_of!(RequestHead, target)..], base, request.target);
    put_span(&mut fixed[offset_of!(RequestHead, path)..], base, request.path);
    put_span(&mut fixed[offset_of!(RequestHead, query)..], base, request.query);
    put_span(&mut fixed[offset_of!(RequestHead, authority)..], base, request.authority);
    put_u32(fixed, offset_of!(RequestHead, body), body_offset);
    put_u32(fixed, offset_of!(RequestHead, body) + 4, body_size);
    put(fixed, offset_of!(RequestHead, request_id), &request.request_id);
    put(fixed, offset_of!(RequestHead, deadline_ns), &request.deadline_ns.to_le_bytes());
    put(fixed, offset_of!(RequestHead, peer_address), &request.peer_address);
    put_u16(fixed, offset_of!(RequestHead, peer_port), request.peer_port);
}

/// Absent parts have size 0 and keep offset 0, so that no guest reads a neighbour by mistake.
fn put_span(target: &mut [u8], base: u32, span: HeadSpan) {
    let offset = if span.size == 0 { 0 } else { base + u32::from(span.offset) };
    target[..4].copy_from_slice(&offset.to_le_bytes());
    target[4..8].copy_from_slice(&u32::from(span.size).to_le_bytes());
}

fn put_u32(fixed: &mut [u8], offset: usize, value: u32) {
    put(fixed, offset, &value.to_le_bytes());
}

fn put_u16(fixed: &mut [u8], offset: usize, value: u16) {
    put(fixed, offset, &value.to_le_bytes());
}

fn put(fixed: &mut [u8], offset: usize, bytes: &[u8]) {
    fixed[offset..offset + bytes.len()].copy_from_slice(bytes);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::contract::u32_at;
    use crate::width::index;

    const HEAD: &[u8] = b"POST /a?b=c HTTP/1.1\r\nhost: x.test\r\naccept: */*\r\n\r\n";

    fn span(text: &str) -> HeadSpan {
        let at = HEAD.windows(text.len()).position(|w| w == text.as_bytes()).expect("in the head");
        HeadSpan {
            offset: u16::try_from(at).expect("short"),
            size: u16::try_from(text.len()).expect("short"),
        }
    }

    fn block(body: &[u8]) -> Vec<u8> {
        let request = Request {
            head: HEAD,
            tail: b"",
            method: Method::Post,
            method_name: span("POST"),
            target: span("/a?b=c"),
            path: span("/a"),
            query: span("b=c"),
            authority: span("x.test"),
            is_http_1_0: false,
            body,
            request_id: *b"0123456789abcdef",
            deadline_ns: 50_000_000,
            peer_address: [9; 16],
            peer_port: 4711,
        };
        let headers = [
            HeaderSpan { name: span("host"), value: span("x.test") },
            HeaderSpan { name: span("accept"), value: span("*/*") },
        ];
        let mut block = vec![0xAA; block_size(HEAD.len(), headers.len(), body.len())];
        encode(&mut block, &request, headers.into_iter());
        block
    }

    fn text(block: &[u8], at: usize) -> &[u8] {
        let offset = index(u32_at(block, at));
        &block[offset..offset + index(u32_at(block, at + 4))]
    }

    #[test]
    fn every_part_is_found_where_the_head_says() {
        let block = block(b"payload");
        assert_eq!(index(u32_at(&block, 0)), block.len());
        assert_eq!(text(&block, offset_of!(RequestHead, method_name)), b"POST");
        assert_eq!(text(&block, offset_of!(RequestHead, target)), b"/a?b=c");
        assert_eq!(text(&block, offset_of!(RequestHead, path)), b"/a");
        assert_eq!(text(&block, offset_of!(RequestHead, query)), b"b=c");
        assert_eq!(text(&block, offset_of!(RequestHead, authority)), b"x.test");
        assert_eq!(text(&block, offset_of!(RequestHead, body)), b"payload");
        let table = index(u32_at(&block, offset_of!(RequestHead, headers)));
        assert_eq!(text(&block, table + HEADER_SIZE), b"accept");
        assert_eq!(text(&block, table + HEADER_SIZE + 8), b"*/*");
    }

    #[test]
    fn no_byte_of_the_block_keeps_what_was_there() {
        let block = block(b"");
        assert!(!block.contains(&0xAA), "the area held another request before");
    }

    #[test]
    fn the_body_is_aligned() {
        for length in 0..40 {
            let body = vec![1; length];
            assert!(index(u32_at(&block(&body), offset_of!(RequestHead, body))).is_multiple_of(16));
        }
    }
}
