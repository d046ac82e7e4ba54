//! A component of wasi:http that asks other servers, for any host of those. The header `x-origin` says which, as
//! `http://host:port`.
//!
//! - `/forward/..` passes the request on, and the response back, each as it comes, with the fields behind them.
//! - `/gather/N/..` asks for the same N times at once, and tells what came.
//! - `/within/MS/..` gives up after so many milliseconds.

use std::fmt::Write as _;

use wasip2::clocks::monotonic_clock;
use wasip2::exports::http::incoming_handler::Guest;
use wasip2::http::outgoing_handler;
use wasip2::http::types::{
    ErrorCode, Fields, FutureIncomingResponse, IncomingBody, IncomingRequest, IncomingResponse,
    Method, OutgoingBody, OutgoingRequest, OutgoingResponse, RequestOptions, ResponseOutparam,
    Scheme,
};
use wasip2::io::poll::poll;
use wasip2::io::streams::{InputStream, OutputStream, StreamError};

struct Handler;

wasip2::http::proxy::export!(Handler);

const PIECE_BYTES: u64 = 16 * 1024;
const GATHERED_MAX: usize = 16;

impl Guest for Handler {
    fn handle(request: IncomingRequest, outparam: ResponseOutparam) {
        let path = request.path_with_query().unwrap_or_default();
        let parts: Vec<&str> = path.splitn(4, '/').collect();
        match parts[..] {
            ["", "forward", ..] => forward(&request, &path["/forward".len()..], outparam),
            ["", "gather", count, rest] => {
                let count = count.parse().unwrap_or(1).min(GATHERED_MAX);
                answer(outparam, 200, &gather(&request, count, rest));
            }
            ["", "within", time, rest] => {
                let (status, text) = within(&request, time.parse().unwrap_or(0), rest);
                answer(outparam, status, &text);
            }
            _ => answer(outparam, 404, "ask for /forward/.., /gather/N/.. or /within/MS/..\n"),
        }
    }
}

/// Makes a request of the same method for a path of the origin.
fn request_for(request: &IncomingRequest, path: &str, headers: Fields) -> OutgoingRequest {
    let origin = request.headers().get("x-origin").into_iter().next().unwrap_or_default();
    let origin = String::from_utf8_lossy(&origin).into_owned();
    let (scheme, authority) = match origin.split_once("://") {
        Some(("http", rest)) => (Scheme::Http, rest),
        Some(("https", rest)) => (Scheme::Https, rest),
        Some((other, rest)) => (Scheme::Other(other.to_owned()), rest),
        None => (Scheme::Http, origin.as_str()),
    };
    let made = OutgoingRequest::new(headers);
    made.set_method(&request.method()).expect("it came like this");
    made.set_scheme(Some(&scheme)).expect("a scheme");
    made.set_authority(Some(authority)).expect("visible characters");
    made.set_path_with_query(Some(path)).expect("it came like this");
    made
}

/// Waits for a response.
fn wait(future: &FutureIncomingResponse) -> Result<IncomingResponse, ErrorCode> {
    future.subscribe().block();
    future.get().expect("it was waited for").expect("taken once")
}

fn forward(request: &IncomingRequest, path: &str, outparam: ResponseOutparam) {
    let headers = Fields::new();
    for (name, value) in request.headers().entries() {
        if !["host", "content-length", "x-origin"].contains(&name.as_str()) {
            headers.append(&name, &value).expect("it came like this");
        }
    }
    let made = request_for(request, path, headers);
    let has_body = !matches!(request.method(), Method::Get | Method::Head);
    let body = has_body.then(|| made.body().expect("taken once"));
    let future = match outgoing_handler::handle(made, None) {
        Ok(future) => future,
        Err(error) => return answer(outparam, 502, &format!("{}\n", name(&error))),
    };
    let upward = body.map(|body| {
        let output = body.write().expect("taken once");
        let source = request.consume().expect("taken once");
        let input = source.stream().expect("taken once");
        (Pipe { input, output }, body, source)
    });
    let (mut pipe, mut ends) = match upward {
        Some((pipe, body, source)) => (Some(pipe), Some((body, source))),
        None => (None, None),
    };
    // The response may begin before the request has ended: both ways are looked after.
    let ready = future.subscribe();
    while let Some(up) = &pipe {
        let pollable = up.wait_for();
        let found = poll(&[&ready, &pollable]);
        drop(pollable);
        if found.contains(&1) && !up.go_on() {
            pipe = None;
            finish(&mut ends);
        }
        if found.contains(&0) {
            break;
        }
    }
    ready.block();
    drop(ready);
    let response = match future.get().expect("it was waited for").expect("taken once") {
        Ok(response) => response,
        Err(error) => return answer(outparam, 502, &format!("{}\n", name(&error))),
    };
    let headers = Fields::new();
    for (name, value) in response.headers().entries() {
        headers.append(&name, &value).expect("it came like this");
    }
    let made = OutgoingResponse::new(headers);
    made.set_status_code(response.status()).expect("it came like this");
    let body = made.body().expect("taken once");
    ResponseOutparam::set(outparam, Ok(made));
    let source = response.consume().expect("taken once");
    let input = source.stream().expect("taken once");
    let down = Pipe { input, output: body.write().expect("taken once") };
    loop {
        let pollable = down.wait_for();
        let upward = pipe.as_ref().map(Pipe::wait_for);
        let found = match &upward {
            Some(upward) => poll(&[&pollable, upward]),
            None => poll(&[&pollable]),
        };
        drop((pollable, upward));
        if found.contains(&1) && pipe.as_ref().is_some_and(|pipe| !pipe.go_on()) {
            pipe = None;
            finish(&mut ends);
        }
        if found.contains(&0) && !down.go_on() {
            break;
        }
    }
    drop(pipe);
    drop(down);
    OutgoingBody::finish(body, behind(source)).expect("as long as it was there");
}

fn finish(ends: &mut Option<(OutgoingBody, IncomingBody)>) {
    if let Some((body, source)) = ends.take() {
        OutgoingBody::finish(body, behind(source)).expect("no length was promised");
    }
}

/// Returns the fields behind a body that was read to its end.
fn behind(source: IncomingBody) -> Option<Fields> {
    let trailers = IncomingBody::finish(source);
    trailers.subscribe().block();
    let found = trailers.get().expect("it was waited for").expect("taken once");
    found.expect("the body came to its end").map(|fields| fields.clone())
}

/// Bytes from one to the other, none of which waits for more than it has to.
struct Pipe {
    input: InputStream,
    output: OutputStream,
}

impl Pipe {
    /// Returns what has to be ready for it to go on.
    fn wait_for(&self) -> wasip2::io::poll::Pollable {
        let has_room = self.output.check_write().is_ok_and(|room| room > 0);
        if has_room { self.input.subscribe() } else { self.output.subscribe() }
    }

    /// Moves what there is; false at the end.
    fn go_on(&self) -> bool {
        let Ok(room) = self.output.check_write() else { return false };
        if room == 0 {
            return true;
        }
        match self.input.read(room.min(PIECE_BYTES)) {
            Ok(piece) => self.output.write(&piece).is_ok(),
            Err(StreamError::Closed) => false,
            Err(StreamError::LastOperationFailed(error)) => panic!("{}", error.to_debug_string()),
        }
    }
}

/// Returns what most errors are called; the interface has more.
fn name(error: &ErrorCode) -> &'static str {
    match error {
        ErrorCode::DnsTimeout => "DNS-timeout",
        ErrorCode::DnsError(_) => "DNS-error",
        ErrorCode::DestinationIpProhibited => "destination-IP-prohibited",
        ErrorCode::ConnectionRefused => "connection-refused",
        ErrorCode::ConnectionTerminated => "connection-terminated",
        ErrorCode::ConnectionTimeout => "connection-timeout",
        ErrorCode::ConnectionReadTimeout => "connection-read-timeout",
        ErrorCode::TlsProtocolError => "TLS-protocol-error",
        ErrorCode::TlsCertificateError => "TLS-certificate-error",
        ErrorCode::TlsAlertReceived(_) => "TLS-alert-received",
        ErrorCode::HttpRequestDenied => "HTTP-request-denied",
        ErrorCode::HttpRequestUriInvalid => "HTTP-request-URI-invalid",
        ErrorCode::HttpResponseIncomplete => "HTTP-response-incomplete",
        ErrorCode::HttpResponseTimeout => "HTTP-response-timeout",
        ErrorCode::HttpProtocolError => "HTTP-protocol-error",
        _ => "another error",
    }
}

fn gather(request: &IncomingRequest, count: usize, path: &str) -> String {
    let mut text = String::new();
    let futures: Vec<_> = (0..count)
        .map(|number| {
            let path = format!("/{path}?{number}");
            outgoing_handler::handle(request_for(request, &path, Fields::new()), None)
        })
        .collect();
    for future in futures {
        let response = future.and_then(|future| wait(&future));
        // A string has room for all of it.
        let _infallible = match response {
            Ok(response) => {
                writeln!(text, "{} {}", response.status(), read_all(&response).trim_end())
            }
            Err(error) => writeln!(text, "{}", name(&error)),
        };
    }
    text
}

fn read_all(response: &IncomingResponse) -> String {
    let body = response.consume().expect("taken once");
    let input = body.stream().expect("taken once");
    let mut bytes = Vec::new();
    loop {
        match input.blocking_read(PIECE_BYTES) {
            Ok(piece) => bytes.extend(piece),
            Err(StreamError::Closed) => break,
            Err(StreamError::LastOperationFailed(error)) => return error.to_debug_string(),
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

fn within(request: &IncomingRequest, milliseconds: u64, path: &str) -> (u16, String) {
    let options = RequestOptions::new();
    options.set_connect_timeout(Some(2_000_000_000)).expect("a time");
    let made = request_for(request, &format!("/{path}"), Fields::new());
    let future = match outgoing_handler::handle(made, Some(options)) {
        Ok(future) => future,
        Err(error) => return (502, format!("{}\n", name(&error))),
    };
    let time = monotonic_clock::subscribe_duration(milliseconds * 1_000_000);
    let found = {
        let ready = future.subscribe();
        poll(&[&ready, &time])
    };
    if !found.contains(&0) {
        return (504, "too late\n".to_owned());
    }
    match future.get().expect("it was waited for").expect("taken once") {
        Ok(response) => (response.status(), read_all(&response)),
        Err(error) => (502, format!("{}\n", name(&error))),
    }
}

fn answer(outparam: ResponseOutparam, status: u16, text: &str) {
    let response = OutgoingResponse::new(Fields::new());
    response.set_status_code(status).expect("a status");
    let body = response.body().expect("taken once");
    ResponseOutparam::set(outparam, Ok(response));
    let output = body.write().expect("taken once");
    output.blocking_write_and_flush(text.as_bytes()).expect("a text of one piece");
    drop(output);
    OutgoingBody::finish(body, None).expect("no length was promised");
}
