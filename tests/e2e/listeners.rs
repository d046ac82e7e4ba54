//! Where connections come from: several addresses, Unix sockets, proxies that speak for clients, and sockets that
//! a service manager made.

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Command, Stdio};

use midge_tests::guests::{HELLO, PEER};
use midge_tests::host::{Host, Setup};
use midge_tests::program::{program, without_settings};
use midge_tests::wait::{PATIENCE, wait_for, wait_for_some};
use rustix::process::Signal;

const LAST_GET: &str = "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n";

fn serve(guest: &str, listen: &str) -> Host {
    let settings =
        format!("{listen}\n[[function]]\nname = \"it\"\nmodule = \"it.wat\"\nroute = \"/*\"\n");
    Setup::new().file("it.wat", guest).serve(&settings)
}

/// Sends bytes and reads until the connection ends; empty if it ended without an answer.
fn exchange(mut stream: impl Read + Write, bytes: &[u8]) -> Vec<u8> {
    // A host that closes early takes no more of it.
    drop(stream.write_all(bytes));
    let mut answer = Vec::new();
    drop(stream.read_to_end(&mut answer));
    answer
}

fn over_tcp(address: SocketAddr, bytes: &[u8]) -> Vec<u8> {
    let stream = TcpStream::connect(address).expect("the test's own sockets work");
    stream.set_read_timeout(Some(PATIENCE)).expect("the test's own sockets work");
    exchange(stream, bytes)
}

fn over_unix(path: &Path, bytes: &[u8]) -> Vec<u8> {
    let stream = UnixStream::connect(path).expect("the test's own sockets work");
    stream.set_read_timeout(Some(PATIENCE)).expect("the test's own sockets work");
    exchange(stream, bytes)
}

/// Returns the client that a function was told.
fn told(answer: &[u8]) -> String {
    assert!(answer.starts_with(b"HTTP/1.1 200 "), "{}", String::from_utf8_lossy(answer));
    let (rest, tail) = answer.split_at(answer.len() - 18);
    assert!(rest.ends_with(b"\r\n\r\n"));
    let address = Ipv6Addr::from(*tail.first_chunk::<16>().expect("18 bytes"));
    let port = u16::from_le_bytes([tail[16], tail[17]]);
    match IpAddr::from(address).to_canonical() {
        address if address.is_unspecified() => "nobody".into(),
        address => SocketAddr::new(address, port).to_string(),
    }
}

fn request(headers: &str) -> Vec<u8> {
    format!("{LAST_GET}{headers}\r\n").into_bytes()
}

#[test]
fn one_host_listens_at_several_places() {
    let mut host = serve(HELLO, "listen = [\"127.0.0.1:0\", \"[::1]:0\", \"unix:http.sock\"]");
    let listeners = host.listeners();
    let [four, six, local] = listeners[..] else { panic!("{listeners:?}") };
    let path = host.folder().join("http.sock");
    assert_eq!(local, "unix:http.sock", "relative to the settings, which are in its folder");
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o660);
    for address in [four, six] {
        let answer = over_tcp(address.parse().unwrap(), &request(""));
        assert!(answer.ends_with(b"hello\n"), "{address}");
    }
    assert!(over_unix(&path, &request("")).ends_with(b"hello\n"));
    let line = host.wait_for_line(&["serving on", four, six, local]);
    assert!(line.contains(&format!("http://{four}")), "{line}");
    host.signal(Signal::TERM);
    assert!(host.wait_for_end().success());
    assert!(!path.exists(), "the socket's file goes with the host");
}

#[test]
fn an_address_of_ipv6_leaves_ipv4_to_its_own() {
    // Below the ports that the kernel gives to others meanwhile (net.ipv4.ip_local_port_range).
    let first = 20_000 + u16::try_from(std::process::id() % 10_000).unwrap();
    let is_free = |port: &u16| TcpListener::bind((Ipv6Addr::UNSPECIFIED, *port)).is_ok();
    let free = (first..32_000).find(is_free).unwrap();
    let host = serve(HELLO, &format!("listen = [\"127.0.0.1:{free}\", \"[::]:{free}\"]"));
    for address in [format!("127.0.0.1:{free}"), format!("[::1]:{free}")] {
        let answer = over_tcp(address.parse().unwrap(), &request(""));
        assert!(answer.ends_with(b"hello\n"), "{address}");
    }
    drop(host);
}

#[test]
fn a_socket_left_behind_by_a_kill_is_taken_over_and_a_live_one_is_not() {
    let setup = Setup::new().file("it.wat", HELLO);
    let path = setup.folder().join("http.sock");
    let settings = format!(
        "listen = \"unix:{}\"\n[[function]]\nname = \"it\"\nmodule = \"it.wat\"\nroute = \"/*\"\n",
        path.display()
    );
    let killed = setup.serve(&settings);
    killed.signal(Signal::KILL);
    wait_for("nobody listens", || UnixStream::connect(&path).is_err());
    assert!(path.exists());
    // Its folder lives as long as it does.
    let host = Setup::new().file("it.wat", HELLO).serve(&settings);
    assert!(over_unix(&path, &request("")).ends_with(b"hello\n"));

    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("it.wat"), HELLO).unwrap();
    let place = format!("unix:{}", path.display());
    let arguments = ["run", "it.wat", "--listen", &place, "--admin", "127.0.0.1:0"];
    let second = midge_tests::program::midge(folder.path(), &arguments);
    assert_eq!(second.code, Some(1));
    assert!(second.stderr.contains(&format!("cannot listen on `{place}`")), "{}", second.stderr);
    assert!(over_unix(&path, &request("")).ends_with(b"hello\n"));
    drop((host, killed));
}

#[test]
fn a_unix_peer_has_no_address() {
    let host = serve(PEER, "listen = [{ address = \"unix:http.sock\", mode = \"0600\" }]");
    let path = host.folder().join("http.sock");
    assert_eq!(told(&over_unix(&path, &request(""))), "nobody");
    assert_eq!(told(&over_unix(&path, &request("X-Forwarded-For: 192.0.2.7\r\n"))), "nobody");
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
}

fn version_two(command: u8, rest: &[u8]) -> Vec<u8> {
    let mut bytes = b"\r\n\r\n\0\r\nQUIT\n".to_vec();
    bytes.extend([command, 0x11]);
    bytes.extend(u16::try_from(rest.len()).expect("short").to_be_bytes());
    bytes.extend(rest);
    bytes
}

const FOUR: [u8; 12] = [192, 0, 2, 7, 192, 0, 2, 1, 0x12, 0x67, 0, 80];

#[test]
fn a_proxy_speaks_for_its_client() {
    let host = serve(
        PEER,
        "trusted_proxies = [\"127.0.0.0/8\"]\n\
         listen = [{ address = \"127.0.0.1:0\", proxy_protocol = true }, \
         { address = \"unix:http.sock\", proxy_protocol = true }]",
    );
    let path = host.folder().join("http.sock");
    let ask = |preface: &[u8]| {
        let bytes = [preface, &request("")].concat();
        let (tcp, unix) = (over_tcp(host.listen, &bytes), over_unix(&path, &bytes));
        (tcp, unix)
    };
    let line = b"PROXY TCP4 192.0.2.7 192.0.2.1 4711 80\r\n";
    for preface in [line.to_vec(), version_two(0x21, &FOUR)] {
        let (tcp, unix) = ask(&preface);
        assert_eq!((told(&tcp), told(&unix)), ("192.0.2.7:4711".into(), "192.0.2.7:4711".into()));
    }
    // The proxy's own: a health check.
    for preface in [b"PROXY UNKNOWN\r\n".to_vec(), version_two(0x20, &[])] {
        let (tcp, unix) = ask(&preface);
        assert!(told(&tcp).starts_with("127.0.0.1:"));
        assert_eq!(told(&unix), "nobody");
    }
    // No guess is made: without a preface, or with a faulty one, there is no answer.
    for preface in [b"".as_slice(), b"PROXY TCP4 192.0.2.7 4711\r\n", &version_two(0x25, &FOUR)] {
        let (tcp, unix) = ask(preface);
        assert!(tcp.is_empty() && unix.is_empty(), "{preface:?}");
    }
    host.wait_for_metrics("refused prefaces are counted", |metrics| {
        metrics.sum("midge_prefaces_refused_total", &[]) == 6
    });
}

#[test]
fn a_preface_in_pieces_is_read_as_a_whole_and_requests_follow_in_line() {
    let host = serve(PEER, "listen = { address = \"unix:http.sock\", proxy_protocol = true }");
    let mut stream = UnixStream::connect(host.folder().join("http.sock")).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let first = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n";
    let bytes = [version_two(0x21, &FOUR), first.to_vec(), request("")].concat();
    for byte in bytes.chunks(1) {
        stream.write_all(byte).unwrap();
    }
    let mut answers = Vec::new();
    stream.read_to_end(&mut answers).unwrap();
    let starts: Vec<_> =
        answers.windows(12).enumerate().filter(|(_, window)| *window == b"HTTP/1.1 200").collect();
    assert_eq!(starts.len(), 2, "{}", String::from_utf8_lossy(&answers));
    assert_eq!(told(&answers[..starts[1].0]), "192.0.2.7:4711");
    assert_eq!(told(&answers[starts[1].0..]), "192.0.2.7:4711");
}

#[test]
fn a_stranger_does_not_speak_for_anybody() {
    let host = serve(
        PEER,
        "trusted_proxies = [\"192.0.2.0/24\"]\n\
         listen = { address = \"127.0.0.1:0\", proxy_protocol = true }",
    );
    let bytes = [b"PROXY TCP4 192.0.2.7 192.0.2.1 4711 80\r\n".as_slice(), &request("")].concat();
    assert!(over_tcp(host.listen, &bytes).is_empty());
}

#[test]
fn one_source_behind_a_proxy_has_its_share_and_no_more() {
    let host = serve(
        PEER,
        "listen = { address = \"unix:http.sock\", proxy_protocol = true }\n\
         [limits]\nconnections_per_source = 1\n",
    );
    let path = host.folder().join("http.sock");
    let open = |last: u8| {
        let mut stream = UnixStream::connect(&path).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let line = format!("PROXY TCP4 192.0.2.{last} 192.0.2.1 4711 80\r\n");
        stream
            .write_all(&[line.as_bytes(), b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"].concat())
            .unwrap();
        let mut answer = [0; 12];
        let is_answered = stream.read_exact(&mut answer).is_ok();
        is_answered.then_some(stream)
    };
    let first = open(7).unwrap();
    assert!(open(7).is_none(), "the source holds one already");
    let other = open(8).unwrap();
    drop(first);
    let again = wait_for_some("the source's place is free again", || open(7));
    drop((other, again));
}

#[test]
fn a_trusted_proxys_header_names_the_client() {
    for (source, header) in [
        (
            "x-forwarded-for",
            "X-Forwarded-For: 1.1.1.1, 192.0.2.7\r\nX-Forwarded-For: 127.0.0.9\r\n",
        ),
        (
            "forwarded",
            "Forwarded: for=1.1.1.1, for=192.0.2.7;proto=https\r\nForwarded: for=\"127.0.0.9\"\r\n",
        ),
    ] {
        let host = serve(
            PEER,
            &format!(
                "client_address = \"{source}\"\ntrusted_proxies = [\"127.0.0.0/8\", \"unix\"]\n\
                 listen = [\"127.0.0.1:0\", \"unix:http.sock\"]"
            ),
        );
        let path = host.folder().join("http.sock");
        assert_eq!(told(&over_tcp(host.listen, &request(header))), "192.0.2.7:0", "{source}");
        assert_eq!(told(&over_unix(&path, &request(header))), "192.0.2.7:0", "{source}");
        let without = told(&over_tcp(host.listen, &request("")));
        assert!(without.starts_with("127.0.0.1:"), "{source}: {without}");
    }
    let host = serve(
        PEER,
        "client_address = \"x-forwarded-for\"\ntrusted_proxies = [\"192.0.2.0/24\"]\n\
         listen = \"127.0.0.1:0\"",
    );
    let answer = over_tcp(host.listen, &request("X-Forwarded-For: 192.0.2.7\r\n"));
    assert!(told(&answer).starts_with("127.0.0.1:"), "a stranger's header says nothing");
}

/// Hands a listening socket over as a service manager does: descriptor 3, and variables that name this process.
fn activated(socket: OwnedFd, place: &str) -> Command {
    let hand_over = "exec 3<&0 0</dev/null; LISTEN_PID=$$ exec \"$@\"";
    let mut command = Command::new("sh");
    command.args(["-c", hand_over, "sh"]).arg(program());
    command.args(["run", "it.wat", "--json", "--workers", "1", "--admin", "127.0.0.1:0"]);
    command.args(["--listen", place]).env("LISTEN_FDS", "1").env("LISTEN_FDNAMES", "web");
    without_settings(&mut command);
    command.stdin(socket).stdout(Stdio::null()).stderr(Stdio::piped());
    command
}

#[test]
fn a_socket_of_the_service_manager_is_served() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("it.wat"), HELLO).unwrap();
    let socket = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = socket.local_addr().unwrap();
    // Waits in the kernel's queue until the host is there: nobody is turned away.
    let early = std::thread::spawn(move || over_tcp(address, &request("")));
    let mut command = activated(socket.try_clone().unwrap().into(), "systemd:web");
    let mut child = command.current_dir(folder.path()).spawn().unwrap();
    assert!(early.join().unwrap().ends_with(b"hello\n"));
    child.kill().unwrap();
    child.wait().unwrap();

    let mut command = activated(socket.into(), "systemd:other");
    let output = command.current_dir(folder.path()).output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    assert!(stderr.contains("cannot listen on `systemd:other`"), "{stderr}");
}

/// Opens connections one after the other, each answered once; returns how many each worker has.
fn spread(host: &Host, count: u64) -> (Vec<u64>, Vec<midge_tests::http::Client>) {
    let clients: Vec<_> = std::iter::repeat_with(|| {
        let mut client = host.client();
        assert_eq!(client.get("/").status, 200);
        client
    })
    .take(usize::try_from(count).expect("few"))
    .collect();
    let of =
        |worker: &str| host.metrics().sum("midge_connections", &[&format!("worker=\"{worker}\"")]);
    wait_for("all are counted", || of("0") + of("1") == count);
    (vec![of("0"), of("1")], clients)
}

#[test]
fn workers_share_new_connections_evenly() {
    const COUNT: u64 = 40;
    if std::thread::available_parallelism().map_or(1, usize::from) < 2 {
        midge_tests::skip("two workers need two CPUs");
        return;
    }
    let setup = Setup::new().file("it.wat", HELLO).argument("--workers").argument("2");
    let host = setup.function("it.wat");
    let (counts, mut clients) = spread(&host, COUNT);
    if host.ready["ring_tier"] == "a" {
        assert!(counts.iter().all(|count| count.abs_diff(COUNT / 2) <= 2), "{counts:?}");
    }
    // Those that were sent to another worker are served as any, and end as any.
    for client in &mut clients {
        assert_eq!(client.get("/").text(), "hello\n");
    }
    drop(clients);
    host.wait_for_metrics("all have ended", |metrics| metrics.sum("midge_connections", &[]) == 0);
}
