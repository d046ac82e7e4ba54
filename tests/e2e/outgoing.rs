//! Requests that functions make: granted, forwarded both ways, and what servers may do to them.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, mpsc};
use std::thread;

use midge_loader::build::build_unlinked;
use midge_loader::engine::Engines;
use midge_tests::guests::example;
use midge_tests::host::{Host, Setup};
use midge_tests::http::{Request, Response};
use midge_tests::wait::{PATIENCE, wait_for};

/// A server of the test's: each connection is served by a thread that runs its script.
pub(super) struct Upstream {
    pub(super) address: SocketAddr,
    accepted: Arc<AtomicUsize>,
}

impl Upstream {
    fn new(script: impl Fn(TcpStream, usize) + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("bound");
        let accepted = Arc::new(AtomicUsize::new(0));
        let (script, count) = (Arc::new(script), Arc::clone(&accepted));
        thread::spawn(move || {
            for connection in listener.incoming().flatten() {
                let number = count.fetch_add(1, SeqCst);
                let script = Arc::clone(&script);
                connection.set_read_timeout(Some(PATIENCE)).expect("a time");
                thread::spawn(move || script(connection, number));
            }
        });
        Self { address, accepted }
    }

    /// One that answers each request by `answer`, for as long as the connection lasts.
    pub(super) fn answering(answer: impl Fn(&Asked) -> Vec<u8> + Send + Sync + 'static) -> Self {
        Self::new(move |connection, _| {
            let mut writer = connection.try_clone().expect("a second handle");
            let mut reader = BufReader::new(connection);
            while let Some(asked) = Asked::read(&mut reader) {
                if writer.write_all(&answer(&asked)).is_err() {
                    return;
                }
            }
        })
    }

    /// One that says this to the first request of a connection, and no more.
    pub(super) fn saying(response: &'static [u8]) -> Self {
        Self::new(move |connection, _| {
            let mut writer = connection.try_clone().expect("a second handle");
            let mut reader = BufReader::new(connection);
            if Asked::read(&mut reader).is_some() {
                // A host that has seen enough may be gone.
                let _gone = writer.write_all(response);
            }
        })
    }

    /// One that answers the first request of a connection before its body has come, and gives back each chunk.
    fn echoing() -> Self {
        Self::new(|connection, _| {
            let mut writer = connection.try_clone().expect("a second handle");
            let mut reader = BufReader::new(connection);
            let mut line = String::new();
            while line != "\r\n" {
                line.clear();
                reader.read_line(&mut line).expect("a head");
            }
            let head = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n";
            writer.write_all(head).expect("the host reads");
            loop {
                let mut size = String::new();
                reader.read_line(&mut size).expect("a chunk");
                let count = usize::from_str_radix(size.trim_end(), 16).expect("a size");
                let mut chunk = vec![0; count + 2];
                reader.read_exact(&mut chunk).expect("a chunk");
                writer.write_all(size.as_bytes()).expect("the host reads");
                writer.write_all(&chunk).expect("the host reads");
                if count == 0 {
                    return;
                }
            }
        })
    }

    pub(super) fn origin(&self) -> String {
        format!("http://{}", self.address)
    }

    pub(super) fn accepted(&self) -> usize {
        self.accepted.load(SeqCst)
    }
}

/// A request, as a server reads it.
pub(super) struct Asked {
    pub(super) head: String,
    pub(super) body: Vec<u8>,
    /// The lines behind it.
    pub(super) trailers: String,
}

impl Asked {
    fn read(reader: &mut impl BufRead) -> Option<Self> {
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            if reader.read_line(&mut head).ok()? == 0 {
                return None;
            }
        }
        let head = head.to_ascii_lowercase();
        let (mut body, mut trailers) = (Vec::new(), String::new());
        if let Some((_, rest)) = head.split_once("content-length: ") {
            let size = rest.split("\r\n").next()?.parse().ok()?;
            body.resize(size, 0);
            reader.read_exact(&mut body).ok()?;
        } else if head.contains("transfer-encoding: chunked") {
            loop {
                let mut line = String::new();
                reader.read_line(&mut line).ok()?;
                let size = usize::from_str_radix(line.trim_end(), 16).ok()?;
                if size == 0 {
                    break;
                }
                let start = body.len();
                body.resize(start + size + 2, 0);
                reader.read_exact(&mut body[start..]).ok()?;
                body.truncate(start + size);
            }
            while reader.read_line(&mut trailers).ok()? > 2 {}
            trailers = trailers.replace("\r\n", "\n");
        }
        Some(Self { head, body, trailers })
    }
}

fn plain(body: &[u8]) -> Vec<u8> {
    let response = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", body.len());
    let mut response = response.into_bytes();
    response.extend_from_slice(body);
    response
}

/// A host whose function forwards, with this grant.
fn host(setup: Setup, grant: &str) -> Host {
    serve(setup.file("forward.wasm", example("forward")), "forward.wasm", grant)
}

/// The same, its component run by the engine's own runtime.
fn host_unlinked(setup: Setup, grant: &str) -> Host {
    let built = build_unlinked("forward.wasm", &example("forward"), &Engines::new());
    let artifact = built.expect("it is a component").bytes;
    serve(setup.file("forward.midge", artifact), "forward.midge", grant)
}

fn serve(setup: Setup, module: &str, grant: &str) -> Host {
    setup.serve(&format!(
        "[[function]]\nname = \"forward\"\nmodule = \"{module}\"\nroute = \"/*\"\n\
         deadline = \"5s\"\n[function.grant]\n{grant}\n"
    ))
}

fn granted(upstream: &Upstream) -> Host {
    host(Setup::new(), &format!("http = [\"{}\"]", upstream.origin()))
}

fn ask(host: &Host, target: &str, origin: &str) -> Response {
    host.client().ask(&Request::get(target).with("x-origin", origin))
}

#[test]
fn requests_are_forwarded_by_every_ring_tier() {
    for tier in ["a", "b", "c", "d"] {
        forwards(host, tier, true);
    }
}

#[test]
fn a_component_that_is_not_linked_forwards_too() {
    // For the engine's crates a body that a HEAD request announces is too short.
    forwards(host_unlinked, "a", false);
}

fn forwards(host: fn(Setup, &str) -> Host, tier: &str, knows_head: bool) {
    let upstream = Upstream::answering(|asked| {
        let line = asked.head.split("\r\n").next().unwrap_or_default().to_owned();
        match line.split(' ').nth(1) {
            Some("/chunks") => b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n\
                3\r\none\r\n4;a=b\r\n two\r\n0\r\nx-trailer: y\r\n\r\n"
                .to_vec(),
            Some("/head") => b"HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n".to_vec(),
            Some("/none") => b"HTTP/1.1 204 No Content\r\n\r\n".to_vec(),
            Some("/interim") => b"HTTP/1.1 103 Early Hints\r\nlink: a\r\n\r\n\
                HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"
                .to_vec(),
            Some("/echo") => plain(&asked.body),
            _ => plain(asked.head.as_bytes()),
        }
    });
    let setup = Setup::new().argument("--ring-tier").argument(tier);
    let host = host(setup, &format!("http = [\"{}\"]", upstream.origin()));
    let mut client = host.client();
    let origin = upstream.origin();
    let mut ask = |request: Request| client.ask(&request.with("x-origin", &origin));
    let response = ask(Request::get("/forward/a?b=c").with("x-one", "1").with("te", "trailers"));
    let authority = upstream.address;
    assert_eq!(
        response.text(),
        format!(
            "get /a?b=c http/1.1\r\nhost: {authority}\r\nuser-agent: midge-tests\r\n\
             accept: */*\r\nx-one: 1\r\nte: trailers\r\nconnection: te\r\n\r\n"
        ),
        "{tier}"
    );
    assert_eq!(ask(Request::get("/forward/chunks")).text(), "one two", "{tier}");
    if knows_head {
        let head = ask(Request::of("HEAD /forward/head"));
        assert_eq!(head.header("content-length"), Some("1000"), "{tier}");
    }
    assert_eq!(ask(Request::get("/forward/none")).status, 204, "{tier}");
    assert_eq!(ask(Request::get("/forward/interim")).text(), "ok", "{tier}");
    let body: Vec<u8> = (0..3_000_000u32).map(|number| number.to_le_bytes()[1]).collect();
    assert!(ask(Request::post("/forward/echo", &body)).body == body, "{tier}");
    // All of it on one connection, which rests between two.
    assert_eq!(upstream.accepted(), 1, "{tier}");
    let metrics = host.metrics();
    let count = 5 + u64::from(knows_head);
    assert_eq!(metrics.sum("midge_outgoing_requests_total", &[]), count, "{tier}");
    assert_eq!(metrics.sum("midge_outgoing_reused_total", &[]), count - 1, "{tier}");
    assert_eq!(metrics.sum("midge_outgoing_failed_total", &[]), 0, "{tier}");
}

#[test]
fn nothing_is_granted_until_it_is_named() {
    let upstream = Upstream::answering(|_| plain(b"secret"));
    let host = Setup::new().file("forward.wasm", example("forward")).function("forward.wasm");
    let origin = upstream.origin();
    let response = ask(&host, "/forward/", &origin);
    assert_eq!((response.status, response.text()), (502, "HTTP-request-denied\n"));
    let _line = host.wait_for_line(&[
        "an outgoing request was denied; to allow it, add to its [function.grant]",
        &format!("http = [\"{origin}\"]"),
    ]);
    assert_eq!(host.metrics().sum("midge_outgoing_denied_total", &[]), 1);
    assert_eq!(upstream.accepted(), 0);
}

/// A name that leads to this machine is not what its grant was meant for.
#[test]
fn a_name_that_leads_to_a_private_address_needs_a_network() {
    let upstream = Upstream::answering(|_| plain(b"hello"));
    let origin = format!("http://localhost:{}", upstream.address.port());
    let denied = host(Setup::new(), &format!("http = [\"{origin}\"]"));
    assert_eq!(ask(&denied, "/forward/", &origin).text(), "destination-IP-prohibited\n");
    let _line = denied.wait_for_line(&["localhost leads to", "networks = [\""]);
    assert_eq!(upstream.accepted(), 0);
    let networks = "networks = [\"127.0.0.0/8\", \"::1\"]";
    let allowed = host(Setup::new(), &format!("http = [\"{origin}\"]\n{networks}"));
    assert_eq!(ask(&allowed, "/forward/", &origin).text(), "hello");
}

/// What a connection rests for is looked at anew by each function: one that may not connect there does not get it.
#[test]
fn a_kept_connection_is_not_another_functions() {
    let upstream = Upstream::answering(|_| plain(b"hello"));
    let origin = format!("http://localhost:{}", upstream.address.port());
    let function = |name: &str, grant: &str| {
        format!(
            "[[function]]\nname = \"{name}\"\nmodule = \"forward.wasm\"\nroute = \"/*\"\n\
             host = \"{name}.test\"\n[function.grant]\nhttp = [\"{origin}\"]\n{grant}\n"
        )
    };
    let settings = function("a", "networks = [\"127.0.0.1\", \"::1\"]") + &function("b", "");
    let host = Setup::new().file("forward.wasm", example("forward")).serve(&settings);
    let mut client = host.client();
    for (name, expected) in [("a", "hello"), ("b", "destination-IP-prohibited\n"), ("a", "hello")] {
        let request = Request::get("/forward/")
            .with("host", &format!("{name}.test"))
            .with("x-origin", &origin);
        assert_eq!(client.ask(&request).text(), expected, "{name}");
    }
    assert_eq!(upstream.accepted(), 1);
}

#[test]
fn what_is_no_response_is_named() {
    let long: &'static [u8] = Box::leak(
        format!("HTTP/1.1 200 OK\r\nx: {}\r\n\r\n", "y".repeat(100_000)).into_bytes().into(),
    );
    let interim: &'static [u8] =
        Box::leak("HTTP/1.1 103 x\r\n\r\n".repeat(100).into_bytes().into());
    let cases: [(&'static [u8], &str); 12] = [
        (b"", "connection-terminated\n"),
        (b"HTTP/1.1 200", "HTTP-response-incomplete\n"),
        (b"220 mail.example.com ESMTP\r\n", "HTTP-protocol-error\n"),
        (
            b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\ncontent-length: 6\r\n\r\nhello",
            "HTTP-protocol-error\n",
        ),
        (
            b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ncontent-length: 5\r\n\r\n0\r\n\r\n",
            "HTTP-protocol-error\n",
        ),
        (b"HTTP/1.1 200 OK\r\ntransfer-encoding: gzip\r\n\r\n", "another error\n"),
        (b"HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\n\r\n", "HTTP-protocol-error\n"),
        (b"HTTP/1.1 200 OK\r\nx\0y: z\r\n\r\n", "HTTP-protocol-error\n"),
        (b"HTTP/1.1 99999 OK\r\n\r\n", "HTTP-protocol-error\n"),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", "HTTP-protocol-error\n"),
        (interim, "HTTP-protocol-error\n"),
        (long, "another error\n"),
    ];
    for (said, expected) in cases {
        let upstream = Upstream::saying(said);
        let host = granted(&upstream);
        let response = ask(&host, "/forward/", &upstream.origin());
        let said = String::from_utf8_lossy(&said[..said.len().min(60)]).into_owned();
        assert_eq!((response.status, response.text()), (502, expected), "{said}");
        assert_eq!(host.metrics().sum("midge_outgoing_failed_total", &[]), 1, "{said}");
    }
}

/// A body that breaks off breaks the forwarded one off as well: no client takes a part for the whole.
#[test]
fn a_body_that_breaks_off_is_cut() {
    for said in [
        &b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhello"[..],
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\nxyz\r\n",
    ] {
        let upstream = Upstream::saying(said);
        let host = granted(&upstream);
        let mut client = host.client();
        let origin = upstream.origin();
        let head = format!(
            "GET /forward/ HTTP/1.1\r\nhost: a\r\nconnection: close\r\nx-origin: {origin}\r\n\r\n"
        );
        client.send(head.as_bytes());
        let bytes = client.receive_to_end();
        let text = String::from_utf8_lossy(&bytes);
        let is_cut = text.contains("content-length: 10\r\n") || !text.ends_with("0\r\n\r\n");
        assert!(text.starts_with("HTTP/1.1 502 ") || is_cut, "{text}");
    }
    // One that is longer than what is kept.
    let upstream = Upstream::new(|connection, _| {
        let mut writer = connection.try_clone().expect("a second handle");
        let mut reader = BufReader::new(connection);
        Asked::read(&mut reader).expect("a request");
        let mut said = b"HTTP/1.1 200 OK\r\ncontent-length: 500000\r\n\r\n".to_vec();
        said.resize(300_000, b'x');
        writer.write_all(&said).expect("the host reads");
    });
    let host = granted(&upstream);
    let mut client = host.client();
    let origin = upstream.origin();
    client.send(
        format!("GET /forward/ HTTP/1.1\r\nhost: a\r\nx-origin: {origin}\r\n\r\n").as_bytes(),
    );
    let bytes = client.receive_to_end();
    assert!(bytes.starts_with(b"HTTP/1.1 200 OK\r\n") && bytes.len() < 400_000, "{}", bytes.len());
}

/// Bytes that nobody asked for must not answer the next request.
#[test]
fn what_follows_a_response_answers_nothing() {
    let upstream = Upstream::new(|connection, number| {
        let mut writer = connection.try_clone().expect("a second handle");
        let mut reader = BufReader::new(connection);
        while Asked::read(&mut reader).is_some() {
            let mut said = plain(format!("right {number}").as_bytes());
            said.extend(plain(b"smuggled"));
            if writer.write_all(&said).is_err() {
                return;
            }
        }
    });
    let host = granted(&upstream);
    for number in 0..5 {
        let response = ask(&host, "/forward/", &upstream.origin());
        assert_eq!(response.text(), format!("right {number}"));
    }
    // The same, a moment later: while the connection rests.
    let (go, more) = mpsc::channel::<()>();
    let more = std::sync::Mutex::new(more);
    let upstream = Upstream::new(move |connection, number| {
        let mut writer = connection.try_clone().expect("a second handle");
        let mut reader = BufReader::new(connection);
        while Asked::read(&mut reader).is_some() {
            let right = plain(format!("right {number}").as_bytes());
            if writer.write_all(&right).is_err() {
                return;
            }
            // Not before the test has its answer, and the connection rests.
            more.lock().expect("one").recv_timeout(PATIENCE).expect("it goes on");
            let _gone = writer.write_all(&plain(b"smuggled"));
        }
    });
    let host = granted(&upstream);
    for number in 0..2 {
        let response = ask(&host, "/forward/", &upstream.origin());
        assert_eq!(response.text(), format!("right {number}"));
        go.send(()).expect("the server waits");
        let gone = |host: &Host| host.proc("net/tcp").matches(&hex(upstream.address)).count();
        wait_for("the host to drop it", || gone(&host) <= 1);
    }
}

/// The address as the kernel's table has it, with the state of an established connection behind it.
fn hex(address: SocketAddr) -> String {
    format!("0100007F:{:04X} 01", address.port())
}

/// A server may close a connection while a request is on its way. What may be sent twice is; nothing else.
#[test]
fn a_kept_connection_that_was_closed_is_replaced() {
    let upstream = Upstream::new(|connection, _| {
        let mut writer = connection.try_clone().expect("a second handle");
        let mut reader = BufReader::new(connection);
        if Asked::read(&mut reader).is_some() && writer.write_all(&plain(b"once")).is_ok() {
            // The next one is read and dropped.
            let _dropped = Asked::read(&mut reader);
        }
    });
    let host = granted(&upstream);
    let origin = upstream.origin();
    assert_eq!(ask(&host, "/forward/", &origin).text(), "once");
    assert_eq!(ask(&host, "/forward/", &origin).text(), "once");
    assert_eq!(host.metrics().sum("midge_outgoing_repeated_total", &[]), 1);
    assert_eq!(upstream.accepted(), 2);
    let post = Request::post("/forward/", b"not twice").with("x-origin", &origin);
    let response = host.client().ask(&post);
    assert_eq!((response.status, response.text()), (502, "connection-terminated\n"));
    assert_eq!(upstream.accepted(), 2);
}

/// A guest that waits for an answer or a time gets the time, and what it gave up ends.
#[test]
fn a_silent_server_is_given_up() {
    let (tell, told) = mpsc::channel();
    let upstream = Upstream::new(move |connection, _| {
        let mut reader = BufReader::new(connection);
        let asked = Asked::read(&mut reader).expect("a request");
        assert!(asked.head.starts_with("get /x http"));
        let ended = reader.read(&mut [0; 16]);
        tell.send(matches!(ended, Ok(0) | Err(_))).expect("the test waits");
    });
    let host = granted(&upstream);
    let response = ask(&host, "/within/60/x", &upstream.origin());
    assert_eq!((response.status, response.text()), (504, "too late\n"));
    assert!(told.recv_timeout(PATIENCE).expect("the connection ended"));
}

#[test]
fn a_client_that_goes_takes_its_requests_along() {
    let (tell, told) = mpsc::channel();
    let (ask, asked) = mpsc::channel();
    let upstream = Upstream::new(move |connection, _| {
        let mut reader = BufReader::new(connection);
        Asked::read(&mut reader).expect("a request");
        ask.send(()).expect("the test waits");
        let ended = reader.read(&mut [0; 16]);
        tell.send(matches!(ended, Ok(0) | Err(_))).expect("the test waits");
    });
    let host = granted(&upstream);
    let mut client = host.client();
    let origin = upstream.origin();
    client.send(
        format!("GET /forward/ HTTP/1.1\r\nhost: a\r\nx-origin: {origin}\r\n\r\n").as_bytes(),
    );
    asked.recv_timeout(PATIENCE).expect("it was asked");
    drop(client);
    assert!(told.recv_timeout(PATIENCE).expect("the connection ended"));
    host.wait_for_metrics("the call is over", |metrics| {
        metrics.sum("midge_calls_parked", &[]) == 0
    });
}

/// More requests at once than connections: they wait for one another.
#[test]
fn requests_wait_for_a_connection() {
    let upstream = Upstream::answering(|asked| {
        plain(asked.head.split(' ').nth(1).unwrap_or_default().as_bytes())
    });
    let setup = Setup::new().file("forward.wasm", example("forward"));
    let host = setup.serve(&format!(
        "[limits]\noutgoing_connections = 2\n[[function]]\nname = \"forward\"\n\
         module = \"forward.wasm\"\nroute = \"/*\"\n[function.grant]\nhttp = [\"{}\"]\n",
        upstream.origin()
    ));
    let response = ask(&host, "/gather/8/x", &upstream.origin());
    let expected: String = (0..8).map(|number| format!("200 /x?{number}\n")).collect();
    assert_eq!(response.text(), expected);
    let beyond = ask(&host, "/gather/16/x", &upstream.origin());
    let (good, refused): (Vec<_>, Vec<_>) =
        beyond.text().lines().partition(|line| line.starts_with("200"));
    // Four requests for each connection, then they are refused at once.
    assert_eq!((good.len(), refused.len()), (8, 8), "{}", beyond.text());
}

#[test]
fn nobody_listens_there() {
    let port = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr());
    let origin = format!("http://{}", port.expect("a port that was free"));
    let host = host(Setup::new(), &format!("http = [\"{origin}\"]"));
    assert_eq!(ask(&host, "/forward/", &origin).text(), "connection-refused\n");
    let strange = ask(&host, "/forward/", "http://nobody:1@here");
    assert_eq!(strange.text(), "HTTP-request-URI-invalid\n");
}

/// A response may begin before the request has ended, and a slow reader of one holds up nobody else.
#[test]
fn both_ways_are_moved_at_once() {
    let upstream = Upstream::echoing();
    let host = granted(&upstream);
    let mut client = host.client();
    let origin = upstream.origin();
    let head = format!(
        "POST /forward/ HTTP/1.1\r\nhost: a\r\nx-origin: {origin}\r\ntransfer-encoding: chunked\r\n\r\n"
    );
    client.send(head.as_bytes());
    // Each piece is answered before the next one is sent.
    for number in 0..20 {
        let text = format!("piece {number:04}");
        let chunk = format!("{:x}\r\n{text}\r\n", text.len());
        client.send(chunk.as_bytes());
        if number == 0 {
            assert_eq!(client.receive_head().status, 200);
        }
        client.receive_text(&chunk);
    }
    client.send(b"0\r\n\r\n");
    client.receive_text("0\r\n\r\n");
}

/// A server by TLS, whose certificate says `localhost`.
fn tls_upstream() -> Upstream {
    use rustls::pki_types::pem::PemObject;
    use rustls::pki_types::{CertificateDer, PrivateKeyDer};
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tls");
    let certificate =
        CertificateDer::from_pem_file(folder.join("server.pem")).expect("in the tree");
    let key = PrivateKeyDer::from_pem_file(folder.join("server.key")).expect("in the tree");
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key)
        .expect("a pair");
    let config = Arc::new(config);
    Upstream::new(move |connection, _| {
        let tls = rustls::ServerConnection::new(Arc::clone(&config)).expect("a server");
        let mut reader = BufReader::new(rustls::StreamOwned::new(tls, connection));
        while let Some(asked) = Asked::read(&mut reader) {
            let answer = plain(&asked.body);
            if reader.get_mut().write_all(&answer).and_then(|()| reader.get_mut().flush()).is_err()
            {
                return;
            }
        }
    })
}

#[test]
fn tls_is_spoken_with_servers_that_are_trusted() {
    let upstream = tls_upstream();
    let port = upstream.address.port();
    let names =
        ["localhost", "127.0.0.1", "127.0.0.2"].map(|name| format!("https://{name}:{port}"));
    let grant = format!(
        "http = [\"{}\", \"{}\", \"{}\", \"http://127.0.0.1:{port}\"]\nnetworks = [\"127.0.0.0/8\", \"::1\"]",
        names[0], names[1], names[2]
    );
    let authority = std::fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("tls/ca.pem"));
    let authority = authority.expect("in the tree");
    let setup = Setup::new().file("ca.pem", authority).file("forward.wasm", example("forward"));
    let function = format!(
        "[[function]]\nname = \"forward\"\nmodule = \"forward.wasm\"\nroute = \"/*\"\n\
         deadline = \"5s\"\n[function.grant]\n{grant}\n"
    );
    let host = setup.serve(&format!("certificates = \"ca.pem\"\n{function}"));
    let body: Vec<u8> = (0..1_000_000u32).map(|number| number.to_le_bytes()[1]).collect();
    for _ in 0..2 {
        let post = Request::post("/forward/", &body).with("x-origin", &names[0]);
        assert!(host.client().ask(&post).body == body);
    }
    assert_eq!(upstream.accepted(), 1);
    assert_eq!(ask(&host, "/forward/", &names[1]).status, 200);
    // No HTTP without TLS on its port.
    let response = ask(&host, "/forward/", &format!("http://127.0.0.1:{port}"));
    assert_eq!(response.status, 502);
    // Nobody trusts its authority but who was told to: the system's are others.
    if let Ok(authorities) = std::fs::metadata("/etc/ssl/certs/ca-certificates.crt")
        && authorities.len() > 0
    {
        let setup = Setup::new().file("forward.wasm", example("forward"));
        let host = setup.serve(&function);
        let response = ask(&host, "/forward/", &names[0]);
        assert_eq!(response.text(), "TLS-certificate-error\n");
    }
}

/// Calls that began before a reload keep what they were granted.
#[test]
fn a_reload_takes_nothing_from_calls_under_way() {
    let (tell, told) = mpsc::channel();
    let (go, gone) = mpsc::channel::<()>();
    let gone = std::sync::Mutex::new(gone);
    let upstream = Upstream::new(move |connection, _| {
        let mut writer = connection.try_clone().expect("a second handle");
        let mut reader = BufReader::new(connection);
        Asked::read(&mut reader).expect("a request");
        tell.send(()).expect("the test waits");
        gone.lock().expect("one").recv_timeout(PATIENCE).expect("it goes on");
        writer.write_all(&plain(b"late")).expect("the host reads");
    });
    let host = granted(&upstream);
    let mut client = host.client();
    let origin = upstream.origin();
    client.send(
        format!("GET /forward/ HTTP/1.1\r\nhost: a\r\nx-origin: {origin}\r\n\r\n").as_bytes(),
    );
    told.recv_timeout(PATIENCE).expect("it was asked");
    host.write_settings(
        "[[function]]\nname = \"forward\"\nmodule = \"forward.wasm\"\nroute = \"/*\"\n",
    );
    host.signal(rustix::process::Signal::HUP);
    let _line = host.wait_for_line(&["SIGHUP: serving the settings as they are now"]);
    go.send(()).expect("the server waits");
    assert_eq!(client.receive().text(), "late");
    assert_eq!(ask(&host, "/forward/", &origin).text(), "HTTP-request-denied\n");
}

/// A host of an example that is written against the contract, with this granted.
fn contract_host(name: &str, grant: &str) -> Host {
    let module = format!("{name}.wasm");
    Setup::new().file(&module, example(name)).serve(&format!(
        "[[function]]\nname = \"{name}\"\nmodule = \"{module}\"\nroute = \"/*\"\n\
         deadline = \"5s\"\n[function.grant]\nhttp = [{grant}]\n"
    ))
}

/// A server for functions that are written against the contract.
fn typical() -> Upstream {
    Upstream::answering(|asked| match asked.head.split(' ').nth(1) {
        Some("/typed?x=1") => b"HTTP/1.1 201 Created\r\ncontent-type: text/x-typed\r\nx-a: b\r\n\
            etag: \"1\"\r\ncontent-length: 6\r\n\r\ntyped\n"
            .to_vec(),
        Some("/echo") => plain(&asked.body),
        Some("/long") => plain(&[b'x'; 40_000]),
        Some("/short") => {
            b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n".to_vec()
        }
        Some("/head") => {
            let fields = "x-filler: 0123456789\r\n".repeat(60);
            format!("HTTP/1.1 200 OK\r\n{fields}content-length: 0\r\n\r\n").into_bytes()
        }
        _ => plain(asked.head.as_bytes()),
    })
}

#[test]
fn a_function_in_c_asks_other_servers() {
    let upstream = typical();
    let origin = upstream.origin();
    let host = contract_host("ask", &format!("\"{origin}\""));
    let mut client = host.client();
    let typed = client.get(&format!("/ask?url={origin}/typed?x%3D1%23fragment"));
    assert_eq!((typed.status, typed.text()), (201, "typed\n"));
    assert_eq!(typed.header("content-type"), Some("text/x-typed"));
    assert_eq!((typed.header("etag"), typed.header("x-a")), (Some("\"1\""), None));
    // The request line of a URL without a path, and the headers that were given.
    let authority = upstream.address;
    let told = client.get(&format!("/ask?url={origin}?a"));
    assert_eq!(
        told.text(),
        format!(
            "get /?a http/1.1\r\nhost: {authority}\r\naccept: */*\r\nte: trailers\r\n\
             connection: te\r\n\r\n"
        )
    );
    let body: Vec<u8> = (0..30_000u32).map(|number| number.to_le_bytes()[0]).collect();
    let echoed = client.ask(&Request::post(&format!("/ask?url={origin}/echo"), &body));
    assert!(echoed.body == body, "{echoed:?}");
    assert_eq!(client.get(&format!("/ask?url={origin}/short&size")).text(), "2 bytes\n");
    let long = client.get(&format!("/ask?url={origin}/long&size"));
    let too_long = "the response's body is longer than is taken\n";
    assert_eq!((long.status, long.text()), (502, too_long));
    // The heap has room for a head of many fields.
    assert_eq!(client.get(&format!("/ask?url={origin}/head")).status, 200);
    assert_eq!(client.get("/ask?url=http://b/").text(), "the request is not granted\n");
    let _line = host.wait_for_line(&["add to its [function.grant]: http = [\"http://b\"]"]);
    for bad in ["ftp://a", "http://", "http://a@b/", "http://a%20b/", "http:///", "a", ""] {
        let refused = client.get(&format!("/ask?url={bad}"));
        let expected = (502, "the target cannot be sent\n");
        assert_eq!((refused.status, refused.text()), expected, "{bad}");
    }
    drop(upstream);
    let nobody = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = nobody.local_addr().expect("bound");
    drop(nobody);
    let host = contract_host("ask", &format!("\"http://{address}\""));
    let refused = host.client().get(&format!("/ask?url=http://{address}/"));
    assert_eq!((refused.status, refused.text()), (502, "nobody listens there\n"));
}

#[test]
fn a_function_in_rust_passes_both_bodies_through() {
    let upstream = typical();
    let origin = upstream.origin();
    let host = contract_host("relay", &format!("\"{origin}\""));
    let mut client = host.client();
    let typed = client.get(&format!("/relay/louder?to={origin}/typed?x%3D1"));
    assert_eq!((typed.status, typed.text()), (201, "TYPED\n"));
    assert_eq!(typed.header("content-type"), Some("text/x-typed"));
    assert_eq!(typed.header("x-a"), None);
    // More than any memory on the way, by a server that reads all of it first.
    let body = b"abcdefgh".repeat(300_000);
    let post = Request::post(&format!("/relay/louder?to={origin}/echo"), &body);
    assert!(client.ask(&post).body == body.to_ascii_uppercase());
    let head = client.ask(&Request::of(&format!("HEAD /relay/louder?to={origin}/short")));
    assert_eq!((head.status, head.body.len()), (200, 0));
    assert_eq!(host.metrics().sum("midge_outgoing_failed_total", &[]), 0);
}

/// Each piece comes back before the next one is sent: neither body waits for the other's end.
#[test]
fn a_function_in_rust_may_be_answered_while_it_sends() {
    let upstream = Upstream::echoing();
    let origin = upstream.origin();
    let host = contract_host("relay", &format!("\"{origin}\""));
    let mut client = host.client();
    let head = format!(
        "POST /relay/louder?to={origin}/ HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n"
    );
    client.send(head.as_bytes());
    for number in 0..20 {
        let text = format!("piece {number:04}");
        client.send(format!("{:x}\r\n{text}\r\n", text.len()).as_bytes());
        if number == 0 {
            assert_eq!(client.receive_head().status, 200);
        }
        client.receive_text(&format!("{:x}\r\n{}\r\n", text.len(), text.to_uppercase()));
    }
    client.send(b"0\r\n\r\n");
    client.receive_text("0\r\n\r\n");
}

#[test]
fn the_faster_of_two_servers_is_taken() {
    let upstream = typical();
    // One that never answers, and notices when it is given up.
    let (tell, told) = mpsc::channel();
    let silent = Upstream::new(move |connection, _| {
        let mut reader = BufReader::new(connection);
        Asked::read(&mut reader).expect("a request");
        // A reset is an end as well.
        let _end = reader.read_to_end(&mut Vec::new());
        tell.send(()).expect("the test waits");
    });
    let (quick, slow) = (upstream.origin(), silent.origin());
    let host = contract_host("relay", &format!("\"{quick}\", \"{slow}\""));
    let mut client = host.client();
    for (one, other) in [(&slow, &quick), (&quick, &slow)] {
        let asked = format!("/relay/faster?one={one}/short&other={other}/short");
        let answer = client.get(&asked);
        assert_eq!((answer.status, answer.text()), (200, "ok"), "{asked}");
    }
    let late = format!("/relay/faster?one={slow}/&other={slow}/&within=50");
    let late = client.get(&late);
    assert_eq!((late.status, late.text()), (504, "too late\n"));
    let both = client.get(&format!("/relay/faster?one={slow}/&other=http://b/"));
    assert_eq!((both.status, both.text()), (502, "the request is not granted\n"));
    let hasty = client.get(&format!("/relay/louder?to={slow}/&within=50"));
    assert_eq!((hasty.status, hasty.text()), (502, "no response in time\n"));
    let long = client.get(&format!("/relay/faster?one={quick}/long&other={slow}/"));
    let too_long = "the response's body is longer than is taken\n";
    assert_eq!((long.status, long.text()), (502, too_long));
    // All that were given up are gone: by the function, for calls end long before the host's own times.
    for _ in 0..silent.accepted() {
        told.recv_timeout(PATIENCE).expect("it was given up");
    }
}

/// A body that breaks off behind its head is cut off for the client as well.
#[test]
fn functions_cut_off_what_breaks_off() {
    let upstream = Upstream::saying(b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhello");
    let origin = upstream.origin();
    for (name, path) in [("relay", "/relay/louder?to="), ("ask", "/ask?url=")] {
        let host = contract_host(name, &format!("\"{origin}\""));
        let mut client = host.client();
        let head = format!("GET {path}{origin}/ HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n");
        client.send(head.as_bytes());
        let bytes = client.receive_to_end();
        let text = String::from_utf8_lossy(&bytes);
        assert!(!text.starts_with("HTTP/1.1 200") || !text.ends_with("0\r\n\r\n"), "{text}");
        let _line = host.wait_for_line(&["broke off"]);
    }
}

/// Counters are a deployment's: a call of one that is gone counts nowhere.
#[test]
fn a_call_outlives_its_function() {
    let (tell, told) = mpsc::channel();
    let upstream = Upstream::new(move |connection, _| {
        let mut reader = BufReader::new(connection);
        Asked::read(&mut reader).expect("a request");
        tell.send(()).expect("the test waits");
        let _ended = reader.read(&mut [0; 16]);
    });
    let function = |name: &str| {
        format!(
            "[[function]]\nname = \"{name}\"\nmodule = \"forward.wasm\"\nroute = \"/*\"\n\
             host = \"{name}.test\"\nstream_time = \"1s\"\n[function.grant]\nhttp = [\"{}\"]\n",
            upstream.origin()
        )
    };
    let setup = Setup::new().file("forward.wasm", example("forward"));
    let host = setup.serve(&(function("a") + &function("b")));
    let mut client = host.client();
    let origin = upstream.origin();
    client.send(
        format!("GET /forward/ HTTP/1.1\r\nhost: b.test\r\nx-origin: {origin}\r\n\r\n").as_bytes(),
    );
    told.recv_timeout(PATIENCE).expect("it was asked");
    host.write_settings(&function("a"));
    host.signal(rustix::process::Signal::HUP);
    let _line = host.wait_for_line(&["SIGHUP: serving the settings as they are now"]);
    let _id = client.receive().problem(504, "deadline-exceeded");
    assert_eq!(ask(&host, "/nowhere", &origin).status, 404);
}

/// Asks, waits for 10 ms in vain, then rests for 400 ms, in which the answer comes. Tells how long it rested.
const RESTS: &str = r#"(module
  (import "midge" "fetch" (func $fetch (param i32) (result i32)))
  (import "midge" "wait" (func $wait (param i32 i32 i64) (result i32)))
  (import "midge" "sleep_ns" (func $sleep (param i64)))
  (import "midge" "clock_monotonic_ns" (func $now (result i64)))
  (memory (export "memory") 4)
  (data (i32.const 64) "MDGE\01\00\00\00\00\00\01\00\00\00\01\00")
  (data (i32.const 1024) "GET")
  (data (i32.const 1032) "/late")
  (data (i32.const 1040) "AUTHORITY")
  (func (export "midge_contract") (result i32) i32.const 64)
  (func (export "midge_handle") (param i32 i32) (result i32)
    (local $began i64)
    ;; The request's record.
    (i32.store (i32.const 2052) (i32.const 1024)) (i32.store (i32.const 2056) (i32.const 3))
    (i32.store (i32.const 2060) (i32.const 1040)) (i32.store (i32.const 2064) (i32.const SIZE))
    (i32.store (i32.const 2068) (i32.const 1032)) (i32.store (i32.const 2072) (i32.const 5))
    ;; A row: the head of its response.
    (i32.store (i32.const 3072) (i32.const 2))
    (i32.store (i32.const 3076) (call $fetch (i32.const 2048)))
    (if (call $wait (i32.const 3072) (i32.const 1) (i64.const 10000000)) (then unreachable))
    (local.set $began (call $now))
    (call $sleep (i64.const 400000000))
    (if (i64.lt_u (i64.sub (call $now) (local.get $began)) (i64.const 400000000)) (then unreachable))
    (if (i32.eqz (call $wait (i32.const 3072) (i32.const 1) (i64.const 0))) (then unreachable))
    (i32.store16 (i32.const 4096) (i32.const 204))
    (i32.const 4096)))"#;

#[test]
fn a_rest_is_not_cut_by_what_was_waited_for_before() {
    let upstream = Upstream::new(|connection, _| {
        let mut writer = connection.try_clone().expect("a second handle");
        let mut reader = BufReader::new(connection);
        Asked::read(&mut reader).expect("a request");
        // Within the rest, and after the wait.
        thread::park_timeout(std::time::Duration::from_millis(150));
        let _gone = writer.write_all(&plain(b"late"));
        let _ended = reader.read(&mut [0; 16]);
    });
    let authority = upstream.address.to_string();
    let module =
        RESTS.replace("AUTHORITY", &authority).replace("SIZE", &authority.len().to_string());
    let host = Setup::new().file("rests.wat", module).serve(&format!(
        "[[function]]\nname = \"rests\"\nmodule = \"rests.wat\"\nroute = \"/*\"\n\
         [function.grant]\nhttp = [\"{}\"]\n",
        upstream.origin()
    ));
    assert_eq!(host.client().get("/").status, 204);
}
