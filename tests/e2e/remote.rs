//! What a host tells others: its log by syslog, its metrics by pushes.

use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering::Relaxed};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::Instant;

use midge_tests::guests::{HARM, HELLO};
use midge_tests::host::{Host, Setup};
use midge_tests::http::Client;
use midge_tests::metrics::Metrics;
use midge_tests::program::command;
use midge_tests::skip;
use midge_tests::wait::{PATIENCE, wait_for};
use rustix::process::Signal;

const FUNCTIONS: &str = "
[[function]]
name = \"hello\"
module = \"hello.wat\"
route = \"/hello\"

[[function]]
name = \"harm\"
module = \"harm.wat\"
route = \"/harm\"
";
const ERROR: &str = "<27>1 ";
const WARNING: &str = "<28>1 ";
const INFORMATIONAL: &str = "<30>1 ";

fn with_syslog(target: &str) -> String {
    format!("[log]\naccess = true\nsyslog = \"{target}\"\n{FUNCTIONS}")
}

fn serve(settings: &str) -> Host {
    Setup::new().file("hello.wat", HELLO).file("harm.wat", HARM).serve(settings)
}

/// Checks a message's form (RFC 5424, section 6), and returns its process and its text.
fn parsed(message: &str) -> (u32, &str) {
    let rest = message.strip_prefix('<').expect(message);
    let (priority, rest) = rest.split_once(">1 ").expect(message);
    let priority: u8 = priority.parse().expect(message);
    assert!(priority <= 191, "{message}");
    let mut fields = rest.splitn(7, ' ');
    let mut field = || fields.next().expect(message);
    let (time, host) = (field(), field());
    assert!(time.len() == 24 && time.ends_with('Z') && time.as_bytes()[10] == b'T', "{message}");
    assert!((1..=255).contains(&host.len()), "{message}");
    assert_eq!(field(), "midge");
    let process = field().parse().expect(message);
    assert_eq!((field(), field()), ("-", "-"), "{message}");
    (process, field())
}

fn udp() -> (UdpSocket, String) {
    let socket = UdpSocket::bind("127.0.0.1:0").expect("a free port");
    socket.set_read_timeout(Some(PATIENCE)).expect("a timeout can be set");
    let target = format!("udp://{}", socket.local_addr().expect("it is bound"));
    (socket, target)
}

/// Waits for a message with all these words.
fn told(mut next: impl FnMut() -> String, words: &[&str]) -> String {
    let until = Instant::now() + PATIENCE;
    loop {
        let message = next();
        parsed(&message);
        if words.iter().all(|word| message.contains(word)) {
            return message;
        }
        assert!(Instant::now() < until, "nobody tells of {words:?}");
    }
}

fn datagram(socket: &UdpSocket) -> String {
    let mut bytes = [0; 4096];
    let size = socket.recv(&mut bytes).expect("a message comes");
    String::from_utf8(bytes[..size].to_vec()).expect("text")
}

/// Reads a message behind its length (RFC 6587, 3.4.1).
fn framed(source: &mut BufReader<TcpStream>) -> String {
    let mut length = Vec::new();
    source.read_until(b' ', &mut length).expect("a message comes");
    let length = String::from_utf8(length).expect("a number");
    let mut message = vec![0; length.trim_end().parse().expect("its length")];
    source.read_exact(&mut message).expect("as long as it said");
    String::from_utf8(message).expect("text")
}

fn accept(listener: &TcpListener) -> BufReader<TcpStream> {
    let (stream, _) = listener.accept().expect("somebody connects");
    stream.set_read_timeout(Some(PATIENCE)).expect("a timeout can be set");
    BufReader::new(stream)
}

#[test]
fn a_server_of_logs_is_told_what_stderr_is_told() {
    let (socket, target) = udp();
    let mut host = serve(&with_syslog(&target));
    let next = || datagram(&socket);
    let serving = told(next, &["serving on http://", INFORMATIONAL]);
    let mut client = host.client();
    assert_eq!(client.get("/harm?i").status, 200);
    let said = told(next, &["warn harm: one line of a guest", WARNING]);
    assert_eq!(parsed(&said).0, parsed(&serving).0, "the same process");
    let id = client.get("/harm?c").problem(502, "trapped");
    // The trap and the access record are told in the order of stderr, whatever that is.
    let mut both = [told(next, &[&id]), told(next, &[&id])];
    both.sort();
    assert!(both[0].starts_with(ERROR) && both[0].contains("trap harm: "), "{both:?}");
    assert!(both[1].starts_with(INFORMATIONAL) && both[1].contains("access harm GET"), "{both:?}");
    // The same line, but for the head.
    let line = host.wait_for_line(&["trap harm: ", &id]);
    assert_eq!(parsed(&both[0]).1, line);
    host.signal(Signal::TERM);
    told(next, &["INFO stopped"]);
    assert!(host.wait_for_end().success());
}

#[test]
fn a_server_of_logs_is_told_why_a_host_does_not_start() {
    let (socket, target) = udp();
    let setup = Setup::new().file("hello.wat", HELLO).file("harm.wat", HARM);
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let admin = taken.local_addr().unwrap().to_string();
    let setup = setup.file("midge.toml", with_syslog(&target));
    let mut host = command(["serve", "midge.toml", "--listen", "127.0.0.1:0", "--admin", &admin]);
    let ended = host.current_dir(setup.folder()).output().unwrap();
    assert_eq!(ended.status.code(), Some(1));
    let said = told(|| datagram(&socket), &["midge: cannot listen on", &admin]);
    assert!(said.starts_with(ERROR), "{said}");
}

#[test]
fn lines_go_on_by_a_new_connection_when_the_server_of_logs_has_closed_one() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let host = serve(&with_syslog(&format!("tcp://{}", listener.local_addr().unwrap())));
    let mut first = accept(&listener);
    told(|| framed(&mut first), &["serving on http://", INFORMATIONAL]);
    first.get_ref().shutdown(Shutdown::Both).unwrap();
    let id = host.client().get("/nowhere").problem(404, "not-found");
    let mut second = accept(&listener);
    let said = told(|| framed(&mut second), &["access - ", " 404 ", &id]);
    assert!(said.starts_with(INFORMATIONAL), "{said}");
    assert_eq!(host.metrics().sum("midge_syslog_dropped_total", &[]), 0);
}

#[test]
fn a_server_of_logs_that_reads_nothing_stops_nobody() {
    // It accepts by its queue alone, and leaves all unread: buffers fill, then the queue, then lines are dropped.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let host = serve(&with_syslog(&format!("tcp://{}", listener.local_addr().unwrap())));
    let mut client = host.client();
    wait_for("lines are dropped, and requests answered", || {
        for _ in 0..1000 {
            assert_eq!(client.get("/hello").status, 200);
        }
        0 < host.metrics().sum("midge_syslog_dropped_total", &[])
    });
    let id = client.get("/harm?c").problem(502, "trapped");
    let _line = host.wait_for_line(&["trap harm:", &id]);
}

#[test]
fn another_server_of_logs_is_told_after_a_hangup() {
    let ((old, old_target), (new, new_target)) = (udp(), udp());
    let host = serve(&with_syslog(&old_target));
    told(|| datagram(&old), &["serving on http://"]);
    host.write_settings(&with_syslog(&new_target));
    host.signal(Signal::HUP);
    told(|| datagram(&new), &["SIGHUP: serving the settings as they are now"]);
    let id = host.client().get("/harm?c").problem(502, "trapped");
    told(|| datagram(&new), &["trap harm:", &id]);
    old.set_nonblocking(true).unwrap();
    let mut bytes = [0; 4096];
    while let Ok(size) = old.recv(&mut bytes) {
        let message = String::from_utf8_lossy(&bytes[..size]).into_owned();
        assert!(!message.contains(&id), "{message}");
    }
}

/// A server that metrics are pushed to: it answers with `status`.
struct Gateway {
    address: SocketAddr,
    status: Arc<AtomicU16>,
    pushes: Receiver<Push>,
}

struct Push {
    head: String,
    metrics: Metrics,
}

impl Gateway {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("it is bound");
        let status = Arc::new(AtomicU16::new(200));
        let (answered, (sender, pushes)) = (Arc::clone(&status), channel());
        thread::spawn(move || {
            for stream in listener.incoming() {
                let mut source = BufReader::new(stream.expect("somebody connects"));
                let mut head = String::new();
                while !head.ends_with("\r\n\r\n") {
                    assert_ne!(source.read_line(&mut head).expect("a head"), 0, "{head}");
                }
                let size = head.lines().find_map(|line| line.strip_prefix("Content-Length: "));
                let mut body = vec![0; size.expect(&head).parse().expect("a number")];
                source.read_exact(&mut body).expect("as long as it said");
                let status = answered.load(Relaxed);
                let answer = format!("HTTP/1.1 {status} -\r\n\r\nas told");
                source.get_mut().write_all(answer.as_bytes()).expect("it is read");
                let metrics = Metrics(String::from_utf8(body).expect("text"));
                // The test may have seen enough.
                drop(sender.send(Push { head, metrics }));
            }
        });
        Self { address, status, pushes }
    }

    fn settings(&self, every: &str) -> String {
        let url = format!("http://{}/metrics/job/midge", self.address);
        format!("[push]\nurl = \"{url}\"\nevery = \"{every}\"\n{FUNCTIONS}")
    }

    fn next(&self) -> Push {
        self.pushes.recv_timeout(PATIENCE).expect("metrics are pushed")
    }
}

#[test]
fn metrics_are_pushed_and_a_last_time_at_the_end() {
    let gateway = Gateway::start();
    let mut host = serve(&gateway.settings("1h"));
    let Push { head, metrics } = gateway.next();
    assert!(head.starts_with("POST /metrics/job/midge HTTP/1.1\r\n"), "{head}");
    assert!(head.contains(&format!("\r\nHost: {}\r\n", gateway.address)), "{head}");
    assert!(head.contains("\r\nContent-Type: text/plain; version=0.0.4; charset=utf-8\r\n"));
    assert_eq!(metrics.sum("midge_draining", &[]), 0);
    let mut client = host.client();
    for _ in 0..3 {
        assert_eq!(client.get("/hello").status, 200);
    }
    drop(client);
    host.signal(Signal::TERM);
    let last = gateway.next().metrics;
    assert_eq!(last.sum("midge_requests_total", &[]), 3);
    assert_eq!(last.sum("midge_draining", &[]), 1);
    assert!(host.wait_for_end().success());
}

#[test]
fn a_push_that_fails_is_said_and_counted_and_the_next_one_tried() {
    let gateway = Gateway::start();
    gateway.status.store(400, Relaxed);
    let host = serve(&gateway.settings("1s"));
    let line = host.wait_for_line(&["WARN metrics were not pushed to http://"]);
    assert!(line.ends_with("/metrics/job/midge: it answered 400: as told"), "{line}");
    host.wait_for_metrics("two failures", |metrics| {
        2 <= metrics.sum("midge_push_failures_total", &[])
    });
    assert_eq!(host.log().matches("were not pushed").count(), 1, "at most once a minute");
    gateway.status.store(204, Relaxed);
    let _line = host.wait_for_line(&["metrics are pushed to", "again"]);
}

#[test]
fn pushes_go_elsewhere_after_a_hangup_and_end_with_their_settings() {
    let (old, new) = (Gateway::start(), Gateway::start());
    let host = serve(&old.settings("1h"));
    old.next();
    host.write_settings(&new.settings("1h"));
    host.signal(Signal::HUP);
    new.next();
    host.write_settings(&format!("log.access = true\n{FUNCTIONS}"));
    host.signal(Signal::HUP);
    wait_for("the thread has ended", || !has_thread(&host, "midge-push"));
    assert!(old.pushes.try_recv().is_err() && new.pushes.try_recv().is_err());
}

fn has_thread(host: &Host, name: &str) -> bool {
    let threads =
        std::fs::read_dir(format!("/proc/{}/task", host.process())).expect("the host lives");
    let names = threads.map(|thread| std::fs::read_to_string(thread?.path().join("comm")));
    // One may end while it is looked at.
    names.filter_map(Result::ok).any(|found| found.trim_end() == name)
}

/// The real one, where it is installed (Debian's `prometheus-pushgateway`).
#[test]
fn the_pushgateway_takes_what_is_pushed() {
    let mut command = Command::new("prometheus-pushgateway");
    command.arg("--web.listen-address=127.0.0.1:0").stderr(Stdio::piped()).stdout(Stdio::null());
    let mut gateway = match command.spawn() {
        Ok(gateway) => gateway,
        Err(error) if error.kind() == ErrorKind::NotFound => {
            return skip("prometheus-pushgateway is not installed");
        }
        Err(error) => panic!("{error}"),
    };
    let mut log = BufReader::new(gateway.stderr.take().unwrap()).lines().map_while(Result::ok);
    let address = log.find_map(|line| {
        let (_, address) = line.split_once("\"Listening on\" address=")?;
        address.split(' ').next()?.parse::<SocketAddr>().ok()
    });
    let address = address.expect("it tells its address");
    let settings = format!(
        "[push]\nurl = \"http://{address}/metrics/job/midge/instance/a\"\nevery = \"1s\"\n{FUNCTIONS}"
    );
    let host = serve(&settings);
    assert_eq!(host.client().get("/hello").status, 200);
    let of_host = ["instance=\"a\"", "job=\"midge\""];
    wait_for("the request is there", || {
        let text = Client::connect(address).get("/metrics").text().to_owned();
        let is_typed = text.contains("# TYPE midge_requests_total counter\n")
            && text.contains("# TYPE midge_service_seconds histogram\n");
        let all = Metrics(text);
        is_typed && all.sum("midge_requests_total", &of_host) == 1
    });
    assert_eq!(host.metrics().sum("midge_push_failures_total", &[]), 0, "{}", host.log());
    drop(host);
    gateway.kill().unwrap();
    gateway.wait().unwrap();
}
