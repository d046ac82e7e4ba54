//! Requests of a component's to other servers: the embedder makes them, as those of all functions, by its grants and
//! on its connections.
//!
//! ```text
//!   send_request --Fetch--> handle --FetchHead, again when it is there--> response
//!        body: --FetchWrite.., FetchFinish-->        body: <--FetchRead..--   dropped: FetchClose
//! ```

use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, Bytes};
use http::header::{HeaderName, HeaderValue};
use http::uri::Scheme;
use http_body::{Body, Frame};
use http_body_util::BodyExt;
use midge_abi::fetch::{BODY_SIZE_UNKNOWN, ERRORS_FROM, FETCH_BODY, FETCH_TLS, LATER, WaitFor};
use midge_abi::width::index;
use wasmtime_wasi_http::{Error, RequestOptions, WasiBody, WasiHttpHooks};

use super::desk::{Desk, Operation, Reply, Ticket};

/// A request, as the embedder is asked for it.
#[derive(Debug)]
pub(super) struct Asked {
    pub(super) flags: u32,
    pub(super) method: http::Method,
    pub(super) authority: String,
    pub(super) target: String,
    pub(super) headers: http::HeaderMap,
    pub(super) body_size: u64,
    /// Times for connection, head and between pieces; 0 for the embedder's own.
    pub(super) times_ns: [u64; 3],
}

/// The code of `HTTP-request-header-section-size`, which the embedder need not say: it is found out before it is asked.
pub(super) const HEADERS_TOO_LONG: i32 = 21;

/// Where the runtime sends requests.
pub(super) struct Hooks(pub(super) Desk);

type Io = Pin<Box<dyn Future<Output = Result<(), Error>> + Send>>;
type Sent = (http::Response<WasiBody>, Box<dyn Future<Output = Result<(), Error>> + Send>);

impl WasiHttpHooks for Hooks {
    fn send_request(
        &mut self,
        request: http::Request<WasiBody>,
        options: Option<RequestOptions>,
        result: Box<dyn Future<Output = Result<(), Error>> + Send>,
    ) -> Box<dyn Future<Output = Result<Sent, Error>> + Send> {
        // How the guest liked the response is nobody's business here.
        drop(result);
        Box::new(send(self.0.clone(), request, options.unwrap_or_default()))
    }

    /// The embedder writes it, of the authority that it has checked.
    fn set_host_header(&mut self) -> bool {
        false
    }
}

async fn send(
    desk: Desk,
    request: http::Request<WasiBody>,
    options: RequestOptions,
) -> Result<Sent, Error> {
    let (parts, mut body) = request.into_parts();
    let exact = body.size_hint().exact();
    // The runtime does not say of every body that it is none: one that has ended already is.
    let first = poll_fn(|context| Poll::Ready(Pin::new(&mut body).poll_frame(context))).await;
    let has_body = !matches!(first, Poll::Ready(None));
    let asked = asked(&parts, has_body.then_some(exact), options)?;
    let Reply { code, .. } = desk.ask(Operation::Fetch(Box::new(asked))).await;
    let handle = Handle { desk: desk.clone(), number: succeeded(code)? };
    let mut io: Io = if has_body {
        Box::pin(send_body(desk.clone(), handle.number, first, body))
    } else {
        Box::pin(std::future::ready(Ok(())))
    };
    // The body goes out while the head is waited for, and after it.
    let mut is_sent = false;
    let mut head = Box::pin(read_head(desk, handle));
    let response = poll_fn(|context| {
        if !is_sent && let Poll::Ready(sent) = io.as_mut().poll(context) {
            is_sent = true;
            if let Err(error) = sent {
                return Poll::Ready(Err(error));
            }
        }
        head.as_mut().poll(context)
    })
    .await?;
    if is_sent {
        io = Box::pin(std::future::ready(Ok(())));
    }
    Ok((response, Box::new(io)))
}

fn asked(
    parts: &http::request::Parts,
    body: Option<Option<u64>>,
    options: RequestOptions,
) -> Result<Asked, Error> {
    let is_tls = parts.uri.scheme() == Some(&Scheme::HTTPS);
    let authority = parts.uri.authority().ok_or(Error::HttpRequestUriInvalid)?;
    let target = parts.uri.path_and_query().map_or("/", |target| target.as_str());
    let mut headers = parts.headers.clone();
    let length = headers.remove(http::header::CONTENT_LENGTH);
    let length = length.and_then(|length| length.to_str().ok()?.parse().ok());
    let ns = |time: Option<Duration>| {
        time.map_or(0, |time| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX).max(1))
    };
    let asked = Asked {
        flags: if is_tls { FETCH_TLS } else { 0 } | if body.is_some() { FETCH_BODY } else { 0 },
        method: parts.method.clone(),
        authority: authority.to_string(),
        target: if target.starts_with('?') { format!("/{target}") } else { target.to_owned() },
        headers,
        body_size: body.map_or(0, |exact| length.or(exact).unwrap_or(BODY_SIZE_UNKNOWN)),
        times_ns: [
            ns(options.connect_timeout),
            ns(options.first_byte_timeout),
            ns(options.between_bytes_timeout),
        ],
    };
    Ok(asked)
}

type First = Poll<Option<Result<Frame<Bytes>, Error>>>;

async fn send_body(desk: Desk, handle: u32, first: First, mut body: WasiBody) -> Result<(), Error> {
    let mut next = match first {
        Poll::Ready(first) => first,
        Poll::Pending => body.frame().await,
    };
    let mut trailers = http::HeaderMap::new();
    while let Some(frame) = next {
        let mut piece = match frame?.into_data() {
            Ok(piece) => piece,
            Err(frame) => {
                trailers = frame.into_trailers().unwrap_or_default();
                Bytes::new()
            }
        };
        while !piece.is_empty() {
            let write = Operation::FetchWrite(handle, piece.clone());
            match desk.ask(write).await.code {
                LATER => drop(desk.wait(WaitFor::FetchRoom, handle).await),
                code => piece.advance(index(succeeded(code)?).min(piece.len())),
            }
        }
        next = body.frame().await;
    }
    succeeded(desk.ask(Operation::FetchFinish(handle, trailers)).await.code).map(drop)
}

async fn read_head(desk: Desk, handle: Handle) -> Result<http::Response<WasiBody>, Error> {
    loop {
        let Reply { code, bytes } = desk.ask(Operation::FetchHead(handle.number)).await;
        if code == LATER {
            desk.wait(WaitFor::FetchHead, handle.number).await;
            continue;
        }
        let size = index(succeeded(code)?).min(bytes.len());
        return response(&bytes[..size], ResponseBody { handle, step: Step::Read(None) })
            .ok_or(Error::HttpProtocolError);
    }
}

/// Reads a head: status and count, rows of name and value, their bytes.
fn response(head: &[u8], body: ResponseBody) -> Option<http::Response<WasiBody>> {
    let mut response = http::Response::new(body.boxed_unsync());
    *response.status_mut() =
        http::StatusCode::from_u16(u16::try_from(number(head, 0)?).ok()?).ok()?;
    *response.headers_mut() = fields(head)?;
    Some(response)
}

/// Returns what came behind a body, if anything did.
pub(super) fn last_frame(trailers: &Reply) -> Option<Result<Frame<Bytes>, Error>> {
    let trailers = fields(&trailers.bytes).filter(|trailers| !trailers.is_empty());
    trailers.map(|trailers| Ok(Frame::trailers(trailers)))
}

/// Reads the fields of such a head, or of what came behind a body.
fn fields(head: &[u8]) -> Option<http::HeaderMap> {
    let mut fields = http::HeaderMap::new();
    let text = |at: usize| head.get(number(head, at)?..)?.get(..number(head, at + 4)?);
    for row in (8..).step_by(16).take(number(head, 4)?) {
        let name = HeaderName::from_bytes(text(row)?).ok()?;
        fields.append(name, HeaderValue::from_bytes(text(row + 8)?).ok()?);
    }
    Some(fields)
}

fn number(head: &[u8], at: usize) -> Option<usize> {
    Some(index(u32::from_le_bytes(*head.get(at..)?.first_chunk::<4>()?)))
}

/// A request under way; closed when nobody has it any more.
struct Handle {
    desk: Desk,
    number: u32,
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.desk.order(Operation::FetchClose(self.number));
    }
}

/// The body of a response.
struct ResponseBody {
    handle: Handle,
    step: Step,
}

enum Step {
    Read(Option<Ticket>),
    Wait(Ticket),
    Trailers(Ticket),
    Ended,
}

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let (desk, handle) = (self.handle.desk.clone(), self.handle.number);
        loop {
            self.step = match &mut self.step {
                Step::Ended => return Poll::Ready(None),
                Step::Wait(ticket) => {
                    ready!(Pin::new(ticket).poll(context));
                    Step::Read(None)
                }
                Step::Trailers(ticket) => {
                    let reply = ready!(Pin::new(ticket).poll(context));
                    self.step = Step::Ended;
                    return Poll::Ready(last_frame(&reply));
                }
                Step::Read(ticket) => {
                    let ticket =
                        ticket.get_or_insert_with(|| desk.ask(Operation::FetchRead(handle)));
                    let Reply { code, bytes } = ready!(Pin::new(ticket).poll(context));
                    match code {
                        LATER => Step::Wait(desk.wait(WaitFor::FetchBody, handle)),
                        0 => Step::Trailers(desk.ask(Operation::Trailers(handle))),
                        code => {
                            let read = succeeded(code);
                            self.step = if read.is_ok() { Step::Read(None) } else { Step::Ended };
                            return Poll::Ready(Some(read.map(|_| Frame::data(bytes))));
                        }
                    }
                }
            };
        }
    }
}

/// Tells an answer from an error, whose codes are those of `error-code` (`midge_abi::fetch::ERRORS`).
fn succeeded(code: i32) -> Result<u32, Error> {
    if let Ok(number) = u32::try_from(code) {
        return Ok(number);
    }
    let unknown = || Error::InternalError(None);
    Err(match ERRORS_FROM - code {
        0 => Error::DnsTimeout,
        1 => Error::DnsError { rcode: None, info_code: None },
        3 => Error::DestinationUnavailable,
        4 => Error::DestinationIpProhibited,
        5 => Error::DestinationIpUnroutable,
        6 => Error::ConnectionRefused,
        7 => Error::ConnectionTerminated,
        8 => Error::ConnectionTimeout,
        9 => Error::ConnectionReadTimeout,
        10 => Error::ConnectionWriteTimeout,
        11 => Error::ConnectionLimitReached,
        12 => Error::TlsProtocolError,
        13 => Error::TlsCertificateError,
        14 => Error::TlsAlertReceived { alert_id: None, alert_message: None },
        15 => Error::HttpRequestDenied,
        17 => Error::HttpRequestBodySize(None),
        18 => Error::HttpRequestMethodInvalid,
        19 => Error::HttpRequestUriInvalid,
        HEADERS_TOO_LONG => Error::HttpRequestHeaderSectionSize(None),
        25 => Error::HttpResponseIncomplete,
        26 => Error::HttpResponseHeaderSectionSize(None),
        31 => Error::HttpResponseTransferCoding(None),
        33 => Error::HttpResponseTimeout,
        35 => Error::HttpProtocolError,
        _ => unknown(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_error_of_the_contract_has_its_own() {
        for (code, name) in midge_abi::fetch::ERRORS {
            let error = succeeded(ERRORS_FROM - i32::from(code)).unwrap_err();
            let is_internal = matches!(error, Error::InternalError(_));
            assert_eq!(is_internal, name == "Internal", "{code} {name}: {error:?}");
        }
    }
}
