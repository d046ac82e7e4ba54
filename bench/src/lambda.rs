//! The runtime interface of AWS Lambda, as a peer for the comparisons: a server that hands requests to a program,
//! which asks for them.
//!
//! ```text
//!   client --request--> front --+ queue +--> next      <--GET-- program
//!   client <-response-- front <-+       +--- response  <-POST-- program
//! ```
//!
//! Both sides are hyper on one thread; the program (`program.rs`) is a process of its own. It serves one request at a
//! time and keeps its state between them, as the interface has it: requests of one program are not isolated. A request
//! goes as an event of the payload format 2.0, with what a handler needs of it.
//!
//! Not here: deadlines, errors that a program reports, more than one program.

pub(crate) mod program;

use std::cell::RefCell;
use std::collections::{HashMap, VecDeque};
use std::convert::Infallible;
use std::future::Future;
use std::net::SocketAddr;
use std::process::Stdio;
use std::rc::Rc;

use anyhow::{Context, Result};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::header::{CONTENT_TYPE, HeaderName, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use midge_net::{ListenOptions, listen};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::{Notify, oneshot};

/// The path of the interface, with its version.
const INVOCATION: &str = "/2018-06-01/runtime/invocation/";

/// The header that names an invocation.
const REQUEST_ID: &str = "lambda-runtime-aws-request-id";

/// Largest answer of a program, which the interface names.
const ANSWER_BYTES_MAX: usize = 6 << 20;

/// What waits for a program, and what waits for its answer.
#[derive(Default)]
struct Queue {
    last_id: u64,
    events: VecDeque<(u64, Bytes)>,
    waiting: HashMap<u64, oneshot::Sender<Bytes>>,
}

#[derive(Default)]
struct Shared {
    queue: RefCell<Queue>,
    /// Told when an event was added.
    added: Notify,
}

/// Serves, by a program that it starts.
///
/// # Errors
/// If an address is taken or the program cannot be started.
pub(crate) fn serve(address: SocketAddr) -> Result<()> {
    let api = listen::bind("127.0.0.1:0".parse()?, &ListenOptions::default())?;
    let mut program = std::process::Command::new(std::env::current_exe()?);
    program.args(["lambda-program", &api.local_addr()?.to_string()]);
    // It ends by itself when its connection does.
    let _program = program.stdin(Stdio::null()).spawn().context("cannot start the program")?;
    serve_with(listen::bind(address, &ListenOptions::default())?, api)
}

fn serve_with(clients: std::net::TcpListener, api: std::net::TcpListener) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .enable_time()
        .build()
        .context("cannot start tokio")?;
    let shared = Rc::new(Shared::default());
    let tasks = tokio::task::LocalSet::new();
    tasks.block_on(&runtime, async {
        let of_client = Rc::clone(&shared);
        let invoked = accept(clients, move |request| invoke(Rc::clone(&of_client), request));
        let asked = accept(api, move |request| answer(Rc::clone(&shared), request));
        tokio::try_join!(invoked, asked).map(|_| ())
    })
}

async fn accept<F>(
    listener: std::net::TcpListener,
    serve: impl Fn(Request<Incoming>) -> F + Clone + 'static,
) -> Result<()>
where
    F: Future<Output = Response<Full<Bytes>>> + 'static,
{
    listener.set_nonblocking(true)?;
    let listener = TcpListener::from_std(listener)?;
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        let serve = serve.clone();
        let service = service_fn(move |request| {
            let response = serve(request);
            async move { Ok::<_, Infallible>(response.await) }
        });
        let connection = http1::Builder::new().serve_connection(TokioIo::new(stream), service);
        // A peer that misbehaves ends its connection, and nothing else.
        tokio::task::spawn_local(async move { drop(connection.await) });
    }
}

/// Has a client's request answered by the program.
async fn invoke(shared: Rc<Shared>, request: Request<Incoming>) -> Response<Full<Bytes>> {
    let event = event(&request).to_string();
    let (sender, receiver) = oneshot::channel();
    {
        let mut queue = shared.queue.borrow_mut();
        queue.last_id += 1;
        let id = queue.last_id;
        queue.waiting.insert(id, sender);
        queue.events.push_back((id, event.into()));
    }
    shared.added.notify_one();
    let answer = receiver.await.ok().and_then(|answer| serde_json::from_slice(&answer).ok());
    answer.and_then(|answer| response(&answer)).unwrap_or_else(|| bare(StatusCode::BAD_GATEWAY))
}

/// Makes an event of a request without a body.
fn event(request: &Request<Incoming>) -> Value {
    let text = |value: &HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
    let headers: serde_json::Map<String, Value> = request
        .headers()
        .iter()
        .map(|(name, value)| (name.as_str().to_owned(), text(value).into()))
        .collect();
    let path = request.uri().path();
    json!({
        "version": "2.0",
        "rawPath": path,
        "rawQueryString": request.uri().query().unwrap_or(""),
        "headers": headers,
        "requestContext": {"http": {"method": request.method().as_str(), "path": path}},
        "isBase64Encoded": false,
    })
}

/// Makes a response of an answer, if it is one.
fn response(answer: &Value) -> Option<Response<Full<Bytes>>> {
    let body = answer["body"].as_str()?.to_owned();
    let mut response = Response::new(Full::new(Bytes::from(body)));
    let status = u16::try_from(answer["statusCode"].as_u64()?).ok()?;
    *response.status_mut() = StatusCode::from_u16(status).ok()?;
    for (name, value) in answer["headers"].as_object()? {
        let name = HeaderName::from_bytes(name.as_bytes()).ok()?;
        response.headers_mut().insert(name, HeaderValue::from_str(value.as_str()?).ok()?);
    }
    Some(response)
}

/// Answers the program: with the next event, once there is one, or for its answer.
async fn answer(shared: Rc<Shared>, request: Request<Incoming>) -> Response<Full<Bytes>> {
    let path = request.uri().path().strip_prefix(INVOCATION).unwrap_or("").to_owned();
    if path == "next" && request.method() == Method::GET {
        return next(&shared).await;
    }
    let id = path.strip_suffix("/response").and_then(|id| id.parse::<u64>().ok());
    let Some(id) = id.filter(|_| request.method() == Method::POST) else {
        return bare(StatusCode::NOT_FOUND);
    };
    let Ok(body) = Limited::new(request.into_body(), ANSWER_BYTES_MAX).collect().await else {
        return bare(StatusCode::PAYLOAD_TOO_LARGE);
    };
    let Some(client) = shared.queue.borrow_mut().waiting.remove(&id) else {
        return bare(StatusCode::BAD_REQUEST);
    };
    // A client that has gone needs no answer.
    drop(client.send(body.to_bytes()));
    bare(StatusCode::ACCEPTED)
}

async fn next(shared: &Shared) -> Response<Full<Bytes>> {
    loop {
        let event = shared.queue.borrow_mut().events.pop_front();
        if let Some((id, event)) = event {
            let mut response = Response::new(Full::new(event));
            let headers = response.headers_mut();
            headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
            headers.insert(REQUEST_ID, HeaderValue::from(id));
            return response;
        }
        shared.added.notified().await;
    }
}

fn bare(status: StatusCode) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::new()));
    *response.status_mut() = status;
    response
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::TcpStream;

    use super::*;

    #[test]
    fn answers_of_a_program_become_responses() {
        let good = json!({"statusCode": 201, "headers": {"a": "b"}, "body": "c"});
        let made = response(&good).unwrap();
        assert_eq!(made.status(), StatusCode::CREATED);
        assert_eq!(made.headers()["a"], "b");
        for (key, value) in [
            ("statusCode", json!(99)),
            ("statusCode", json!("200")),
            ("headers", json!({"a\n": "b"})),
            ("headers", json!({"a": "b\n"})),
            ("body", json!(7)),
        ] {
            let mut wrong = good.clone();
            wrong[key] = value;
            assert!(response(&wrong).is_none(), "{wrong}");
        }
    }

    #[test]
    fn requests_are_answered_by_the_program_that_asks_for_them() {
        let bind = || std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let (clients, api) = (bind(), bind());
        let (address, of_api) = (clients.local_addr().unwrap(), api.local_addr().unwrap());
        // Both go on until the test's process ends.
        std::thread::spawn(move || serve_with(clients, api));
        std::thread::spawn(move || program::run(of_api));
        let mut streams: Vec<_> = (0..3).map(|_| TcpStream::connect(address).unwrap()).collect();
        for _ in 0..2 {
            for stream in &mut streams {
                stream.write_all(b"GET /a?b=c HTTP/1.1\r\nHost: d\r\n\r\n").unwrap();
            }
            for stream in &mut streams {
                let mut text = Vec::new();
                while !text.ends_with(crate::peers::BODY.as_bytes()) {
                    let mut bytes = [0; 1024];
                    let size = stream.read(&mut bytes).unwrap();
                    assert!(size > 0, "{}", text.escape_ascii());
                    text.extend_from_slice(&bytes[..size]);
                }
                assert!(text.starts_with(b"HTTP/1.1 200 OK\r\n"), "{}", text.escape_ascii());
            }
        }
    }
}
