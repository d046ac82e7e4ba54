//! A component of wasi:http, for any host of those: `/echo` sends the body back piece by piece, and the fields behind
//! it; any other path is
//! answered with what was asked. `/probe` uses the interface in odd ways, and tells what came of it: the same on
//! any host.

mod probe; // odd uses of the interface

use std::fmt::Write as _;
use std::io::Write as _;

use wasip2::exports::http::incoming_handler::Guest;
use wasip2::http::types::{
    Fields, IncomingBody, IncomingRequest, Method, OutgoingBody, OutgoingResponse, ResponseOutparam,
};
use wasip2::io::streams::{OutputStream, StreamError};

struct Handler;

wasip2::http::proxy::export!(Handler);

impl Guest for Handler {
    fn handle(request: IncomingRequest, outparam: ResponseOutparam) {
        let path = request.path_with_query().unwrap_or_default();
        if path.ends_with("/probe") {
            return probe::answer(&request, outparam);
        }
        let headers = Fields::new();
        headers
            .append("content-type", b"text/plain; charset=utf-8")
            .expect("a header like any other");
        let is_echo = path.ends_with("/echo");
        // Some hosts send what was announced, and no more.
        if is_echo {
            for names in request.headers().get("trailer") {
                headers.append("trailer", &names).expect("a header like any other");
            }
        }
        let response = OutgoingResponse::new(headers);
        let body = response.body().expect("taken once");
        ResponseOutparam::set(outparam, Ok(response));
        let mut output = body.write().expect("taken once");
        let mut trailers = None;
        if is_echo {
            trailers = echo(&request, &output);
        } else {
            output.write_all(tell(&request, &path).as_bytes()).expect("the response was set");
        }
        drop(output);
        OutgoingBody::finish(body, trailers).expect("no length was promised");
    }
}

/// Sends each piece before the next one is read: a body of any size needs the memory of one piece.
/// Returns what came behind the last of them.
fn echo(request: &IncomingRequest, output: &OutputStream) -> Option<Fields> {
    let body = request.consume().expect("taken once");
    let input = body.stream().expect("taken once");
    loop {
        match input.blocking_read(16 * 1024) {
            Ok(piece) => {
                for part in piece.chunks(4096) {
                    output.blocking_write_and_flush(part).expect("the response was set");
                }
            }
            Err(StreamError::Closed) => break,
            Err(StreamError::LastOperationFailed(error)) => panic!("{}", error.to_debug_string()),
        }
    }
    drop(input);
    let trailers = IncomingBody::finish(body);
    trailers.subscribe().block();
    let found = trailers.get().expect("it was waited for").expect("taken once");
    // Fields of a request cannot be given away.
    found.expect("the body came to its end").map(|fields| fields.clone())
}

fn tell(request: &IncomingRequest, path: &str) -> String {
    let authority = request.authority().unwrap_or_default();
    let mut text = format!("{} {path} of {authority}\n", name(&request.method()));
    for (name, value) in request.headers().entries() {
        // A string has room for all of it.
        let _infallible = writeln!(text, "{name}: {}", String::from_utf8_lossy(&value));
    }
    text
}

fn name(method: &Method) -> &str {
    match method {
        Method::Get => "GET",
        Method::Head => "HEAD",
        Method::Post => "POST",
        Method::Put => "PUT",
        Method::Delete => "DELETE",
        Method::Connect => "CONNECT",
        Method::Options => "OPTIONS",
        Method::Trace => "TRACE",
        Method::Patch => "PATCH",
        Method::Other(name) => name,
    }
}
