//! A component of wasi:http: answers every request with what was asked.

use std::io::Write;

use wasip2::http::types::{Fields, IncomingRequest, OutgoingBody, OutgoingResponse, ResponseOutparam};

struct Handler;

wasip2::http::proxy::export!(Handler);

impl wasip2::exports::http::incoming_handler::Guest for Handler {
    fn handle(request: IncomingRequest, outparam: ResponseOutparam) {
        let path = request.path_with_query().unwrap_or_default();

        let headers = Fields::new();
        headers.append("content-type", b"text/plain; charset=utf-8").unwrap();
        let response = OutgoingResponse::new(headers);
        let body = response.body().unwrap();
        ResponseOutparam::set(outparam, Ok(response));

        let mut output = body.write().unwrap();
        writeln!(output, "hello from {path}").unwrap();
        drop(output);
        OutgoingBody::finish(body, None).unwrap();
    }
}
