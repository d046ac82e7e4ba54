//! hyper, the library that most HTTP servers in Rust are made of, on one thread: a peer for the comparisons.
//!
//! It answers as conformance wants a target to (docs/manual/conformance.md), so one server is measured and
//! judged.

use std::convert::Infallible;
use std::net::SocketAddr;

use anyhow::{Context, Result};
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::body::{Body, Bytes, Incoming};
use hyper::header::{ALLOW, CONTENT_TYPE, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use midge_net::{ListenOptions, listen};

/// The body of the lab's requests, and that of others.
const BODY: &[u8] = b"sixteen bytes ok";
const HELLO: &[u8] = b"hello\n";
/// The lab's target.
pub(crate) const TARGET: &str = "/sixteen";
/// Largest request body.
const BODY_BYTES_MAX: usize = 16 << 10;

/// Serves until the process is ended.
///
/// # Errors
/// If the address is taken or there is no runtime to be had.
pub(crate) fn serve(address: SocketAddr) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .enable_time()
        .build()
        .context("cannot start tokio")?;
    let tasks = tokio::task::LocalSet::new();
    tasks.block_on(&runtime, accept(address))
}

async fn accept(address: SocketAddr) -> Result<()> {
    let listener = listen::bind(address, &ListenOptions::default())?;
    listener.set_nonblocking(true)?;
    let listener = tokio::net::TcpListener::from_std(listener)?;
    let mut builder = http1::Builder::new();
    // The timer bounds heads, to 30 s. Not `pipeline_flush`, which gathers pipelined answers: with it, the
    // answer that ends a connection was lost (hyper 1.12).
    builder.timer(TokioTimer::new());
    loop {
        let (stream, _) = listener.accept().await?;
        let connection = builder.serve_connection(TokioIo::new(stream), service_fn(answer));
        // A peer that misbehaves ends its connection, and nothing else.
        tokio::task::spawn_local(async move { drop(connection.await) });
    }
}

async fn answer(request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    let (head, body) = request.into_parts();
    if !body.is_end_stream()
        && let Err(error) = Limited::new(body, BODY_BYTES_MAX).collect().await
    {
        let is_long = error.is::<LengthLimitError>();
        let status = if is_long { StatusCode::PAYLOAD_TOO_LARGE } else { StatusCode::BAD_REQUEST };
        return Ok(bare(status));
    }
    Ok(match head.uri.path() {
        "/204" => bare(StatusCode::NO_CONTENT),
        "/304" => bare(StatusCode::NOT_MODIFIED),
        "/get" if head.method != Method::GET && head.method != Method::HEAD => {
            let mut response = bare(StatusCode::METHOD_NOT_ALLOWED);
            response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
            response
        }
        path => {
            let body = if path == TARGET { BODY } else { HELLO };
            let mut response = Response::new(Full::new(Bytes::from_static(body)));
            response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain"));
            response
        }
    })
}

fn bare(status: StatusCode) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::new()));
    *response.status_mut() = status;
    response
}
