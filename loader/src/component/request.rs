//! The request as a component's runtime takes it: read out of the block that the embedder wrote for a guest.

use std::mem::offset_of;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::header::{HOST, HeaderName, HeaderValue};
use http::uri::{PathAndQuery, Scheme, Uri};
use http::{HeaderMap, Method};
use http_body::{Body, Frame, SizeHint};
use midge_abi::contract::{HEADER_SIZE, RequestHead, RequestHeader, Span, flags};
use midge_abi::width::index;
use wasmtime_wasi_http::Error;

use super::desk::{Desk, Operation, Ticket};
use super::fetch::last_frame;

/// Names of the rows that are no headers but the function's own (`host/src/extras.rs`).
const ARGUMENT: &[u8] = b":argument";
const ENVIRONMENT: &[u8] = b":environment";

/// A request, and what the function is given with each.
pub(super) struct Asked {
    pub(super) request: http::Request<RequestBody>,
    pub(super) arguments: Vec<String>,
    pub(super) environment: Vec<(String, String)>,
}

/// A request that the types of the component's runtime do not hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the request's {0} is none that this component's runtime takes")]
pub(super) struct Unfit(&'static str);

/// The embedder's own words: inside the block, or it is a bug.
struct Block<'b>(&'b [u8]);

impl<'b> Block<'b> {
    fn u32(&self, at: usize) -> u32 {
        u32::from_le_bytes(*self.0[at..].first_chunk().expect("a whole block"))
    }

    fn text(&self, at: usize) -> &'b [u8] {
        let offset = index(self.u32(at + offset_of!(Span, offset)));
        &self.0[offset..][..index(self.u32(at + offset_of!(Span, size)))]
    }
}

/// Reads a block. What of its body did not fit is asked for at the desk.
pub(super) fn read(block: &[u8], desk: &Desk) -> Result<Asked, Unfit> {
    let block = Block(block);
    let method = block.text(offset_of!(RequestHead, method_name));
    let method = Method::from_bytes(method).map_err(|_| Unfit("method"))?;
    let (mut headers, mut arguments, mut environment) = (HeaderMap::new(), Vec::new(), Vec::new());
    let rows = index(block.u32(offset_of!(RequestHead, headers)));
    let count = index(block.u32(offset_of!(RequestHead, header_count)));
    for row in (rows..).step_by(HEADER_SIZE).take(count) {
        let name = block.text(row + offset_of!(RequestHeader, name));
        let value = block.text(row + offset_of!(RequestHeader, value));
        let text = || String::from_utf8_lossy(value).into_owned();
        match name {
            ARGUMENT => arguments.push(text()),
            ENVIRONMENT => {
                let text = text();
                let (name, value) = text.split_once('=').unwrap_or((&text, ""));
                environment.push((name.to_owned(), value.to_owned()));
            }
            _ => {
                let name = HeaderName::from_bytes(name).map_err(|_| Unfit("header name"))?;
                let value = HeaderValue::from_bytes(value).map_err(|_| Unfit("header value"))?;
                headers.append(name, value);
            }
        }
    }
    let uri = uri(&block, &mut headers)?;
    let is_partial = block.u32(offset_of!(RequestHead, flags)) & flags::BODY_PARTIAL != 0;
    let first = Bytes::copy_from_slice(block.text(offset_of!(RequestHead, body)));
    let is_chunked = headers.contains_key(http::header::TRANSFER_ENCODING);
    let rest = match (is_partial, is_chunked) {
        (true, _) => Rest::Body,
        (false, true) => Rest::Trailers,
        (false, false) => Rest::Nothing,
    };
    let body = RequestBody { desk: desk.clone(), first, rest, next: None };
    let mut request = http::Request::new(body);
    *request.method_mut() = method;
    *request.uri_mut() = uri;
    *request.headers_mut() = headers;
    Ok(Asked { request, arguments, environment })
}

fn uri(block: &Block<'_>, headers: &mut HeaderMap) -> Result<Uri, Unfit> {
    let path = block.text(offset_of!(RequestHead, path));
    let query = block.text(offset_of!(RequestHead, query));
    let mut target = if path.is_empty() { b"/".to_vec() } else { path.to_vec() };
    if !query.is_empty() {
        target.push(b'?');
        target.extend_from_slice(query);
    }
    let target = PathAndQuery::try_from(target).map_err(|_| Unfit("target"))?;
    let authority = block.text(offset_of!(RequestHead, authority));
    if authority.is_empty() {
        // HTTP/1.0 asks for none; the runtime looks for one, and shows this header to nobody.
        headers.entry(HOST).or_insert(HeaderValue::from_static(""));
        return Ok(Uri::from(target));
    }
    let uri = Uri::builder().scheme(Scheme::HTTP).authority(authority).path_and_query(target);
    uri.build().map_err(|_| Unfit("authority"))
}

/// The body: what came with the head, and then what the embedder has, as it is asked for.
pub(super) struct RequestBody {
    desk: Desk,
    first: Bytes,
    rest: Rest,
    next: Option<Ticket>,
}

/// What may follow the beginning of a body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Rest {
    Body,
    Trailers,
    Nothing,
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        if !self.first.is_empty() {
            return Poll::Ready(Some(Ok(Frame::data(std::mem::take(&mut self.first)))));
        }
        let desk = self.desk.clone();
        if self.rest == Rest::Body {
            let ticket = self.next.get_or_insert_with(|| desk.body());
            let reply = ready!(Pin::new(ticket).poll(context));
            self.next = None;
            if !reply.bytes.is_empty() {
                return Poll::Ready(Some(Ok(Frame::data(reply.bytes))));
            }
            self.rest = Rest::Trailers;
        }
        if self.rest == Rest::Nothing {
            return Poll::Ready(None);
        }
        let ticket = self.next.get_or_insert_with(|| desk.ask(Operation::Trailers(0)));
        let reply = ready!(Pin::new(ticket).poll(context));
        self.next = None;
        self.rest = Rest::Nothing;
        Poll::Ready(last_frame(&reply))
    }

    fn is_end_stream(&self) -> bool {
        self.first.is_empty() && self.rest == Rest::Nothing
    }

    fn size_hint(&self) -> SizeHint {
        if self.rest == Rest::Body {
            return SizeHint::default();
        }
        SizeHint::with_exact(self.first.len() as u64)
    }
}

#[cfg(test)]
mod tests {
    use midge_abi::request::{HeadSpan, HeaderSpan, Request, block_size, encode};

    use super::*;

    fn span(head: &str, text: &str) -> HeadSpan {
        let offset = head.find(text).unwrap();
        HeadSpan { offset: offset.try_into().unwrap(), size: text.len().try_into().unwrap() }
    }

    fn block(
        head: &str,
        target: &str,
        authority: Option<&str>,
        headers: &[(&str, &str)],
    ) -> Vec<u8> {
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let request = Request {
            head: head.as_bytes(),
            tail: b"",
            method: midge_abi::contract::Method::Post,
            method_name: span(head, "POST"),
            target: span(head, target),
            path: span(head, path),
            query: span(head, query),
            authority: authority.map_or(HeadSpan::default(), |text| span(head, text)),
            is_http_1_0: false,
            body: b"body",
            request_id: [0; 16],
            deadline_ns: 0,
            peer_address: [0; 16],
            peer_port: 0,
        };
        let rows: Vec<_> = headers
            .iter()
            .map(|(name, value)| HeaderSpan { name: span(head, name), value: span(head, value) })
            .collect();
        let mut block = vec![0; block_size(head.len(), rows.len(), 4)];
        encode(&mut block, &request, rows.into_iter());
        block
    }

    #[test]
    fn a_request_is_what_was_written() {
        let head = "POST /a?b=c h.example x-a one x-a two :argument first :environment N=v=w";
        let headers =
            [("x-a", "one"), ("x-a", "two"), (":argument", "first"), (":environment", "N=v=w")];
        let block = block(head, "/a?b=c", Some("h.example"), &headers);
        let asked = read(&block, &Desk::default()).unwrap();
        assert_eq!(asked.request.method(), Method::POST);
        assert_eq!(asked.request.uri(), "http://h.example/a?b=c");
        let values: Vec<_> = asked.request.headers().get_all("x-a").iter().collect();
        assert_eq!(values, ["one", "two"]);
        assert_eq!(asked.request.headers().len(), 2);
        assert_eq!(asked.arguments, ["first"]);
        assert_eq!(asked.environment, [("N".to_owned(), "v=w".to_owned())]);
        assert_eq!(asked.request.body().size_hint().exact(), Some(4));
    }

    #[test]
    fn a_request_without_a_host_has_an_empty_one() {
        let block = block("POST /a", "/a", None, &[]);
        let asked = read(&block, &Desk::default()).unwrap();
        assert_eq!(asked.request.uri(), "/a");
        assert_eq!(asked.request.headers()[HOST], "");
    }

    #[test]
    fn a_target_that_is_none_is_refused() {
        let block = block("POST /a\u{1}", "/a\u{1}", None, &[]);
        assert_eq!(read(&block, &Desk::default()).err(), Some(Unfit("target")));
    }
}
