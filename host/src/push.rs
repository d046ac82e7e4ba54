//! Metrics that are pushed, for those who cannot ask a host for them: every so often one POST, by a thread of its own.
//!
//! ```text
//!   start --> push --every--> push --every--> ..  --stop--> the last push --> end
//!                \--failed: counted, and said once a minute
//! ```
//!
//! What is sent is the text format of Prometheus, version 0.0.4: the Pushgateway reads no other text, and
//! VictoriaMetrics reads it as well. POST, for the latter takes nothing else; the Pushgateway then replaces what has
//! the same names.
//!
//! A client of its own of a hundred lines: one request on a connection of its own, and of the answer the status alone.
//! The libraries at hand are asynchronous, and bring pools and redirects that nobody wants here.
//!
//! Invariants: a push takes no longer than its bounds, and no more of an answer is kept than [`ANSWER_BYTES_MAX`].
//!
//! Not here: TLS and passwords, which a proxy nearby can have.

use std::fmt;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream, ToSocketAddrs as _};
use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::thread;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};
use midge_net::Origin;

use crate::config::PushSettings;
use crate::grant::{OriginError, authority, parse_origin, url};
use crate::output::printable;
use crate::stats::HostStats;

/// How long a connection may take to come about.
const CONNECT_MAX: Duration = Duration::from_secs(3);
/// How long request and answer may take.
const EXCHANGE_MAX: Duration = Duration::from_secs(10);
/// How long the end of the host waits for the last push.
const LAST_PUSH_MAX: Duration = Duration::from_secs(3);
/// How often it is said that pushing fails.
const COMPLAIN_EVERY: Duration = Duration::from_secs(60);
/// Bytes of an answer that are read: its status, and why it is not 200.
const ANSWER_BYTES_MAX: usize = 4096;
/// Letters of an answer that are said.
const REASON_CHARS_MAX: usize = 200;
/// Longest path of a URL.
const PATH_BYTES_MAX: usize = 2048;
/// Version 0.0.4 of the text format.
const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Where metrics are pushed to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PushUrl {
    origin: Origin,
    /// With its query.
    path: String,
}

/// A text that names no place to push to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PushUrlError {
    /// TLS.
    #[error("nothing is pushed over TLS: name a proxy nearby that speaks it, by http")]
    Tls,
    /// Another scheme, or none.
    #[error("it does not begin with `http://`")]
    Scheme,
    /// A user, a password.
    #[error("no user and no password may stand in it: name a proxy nearby that adds them")]
    User,
    /// Host and port.
    #[error(transparent)]
    Host(#[from] OriginError),
    /// What follows.
    #[error(
        "its path has more than {PATH_BYTES_MAX} bytes, or spaces, a `#` or letters that are not ASCII"
    )]
    Path,
}

impl FromStr for PushUrl {
    type Err = PushUrlError;

    fn from_str(text: &str) -> Result<Self, PushUrlError> {
        let rest = match text.split_once("://") {
            Some(("http", rest)) => rest,
            Some(("https", _)) => return Err(PushUrlError::Tls),
            _ => return Err(PushUrlError::Scheme),
        };
        let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
        let (place, path) = rest.split_at(end);
        if place.contains('@') {
            return Err(PushUrlError::User);
        }
        let path = if path.starts_with('/') { path.to_owned() } else { format!("/{path}") };
        let is_fit = path.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'#');
        if !is_fit || PATH_BYTES_MAX < path.len() {
            return Err(PushUrlError::Path);
        }
        Ok(Self { origin: parse_origin(false, place)?, path })
    }
}

impl fmt::Display for PushUrl {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}{}", url(&self.origin), self.path)
    }
}

/// The thread that pushes. It ends when this is dropped, without another push.
#[derive(Debug)]
pub struct Pusher {
    stop: Sender<()>,
    ended: Receiver<()>,
}

impl Pusher {
    /// Pushes what `text` returns, now and from now on; nothing, if the settings name no place.
    ///
    /// # Errors
    /// The system has no thread left.
    pub fn start(
        settings: &PushSettings,
        text: impl Fn() -> String + Send + 'static,
        stats: Arc<HostStats>,
    ) -> io::Result<Option<Self>> {
        let Some(url) = settings.url.value.clone() else { return Ok(None) };
        let every = settings.every.value;
        let (stop, stopped) = bounded(1);
        let (end, ended) = bounded(0);
        let work = move || {
            Pushing { url, stats, complained: None, failed: false }.run(every, &stopped, text);
            drop(end);
        };
        thread::Builder::new().name("midge-push".into()).spawn(work)?;
        Ok(Some(Self { stop, ended }))
    }

    /// Pushes a last time, and waits for that for a moment.
    pub fn stop(self) {
        // A thread that is gone pushes nothing more.
        let _gone = self.stop.try_send(());
        // It ends, for the other end is dropped; or time is up.
        let _ended = self.ended.recv_timeout(LAST_PUSH_MAX);
    }
}

struct Pushing {
    url: PushUrl,
    stats: Arc<HostStats>,
    complained: Option<Instant>,
    failed: bool,
}

impl Pushing {
    fn run(mut self, every: Duration, stopped: &Receiver<()>, text: impl Fn() -> String) {
        loop {
            self.push(&text());
            match stopped.recv_timeout(every) {
                Err(RecvTimeoutError::Timeout) => {}
                Ok(()) => return self.push(&text()),
                Err(RecvTimeoutError::Disconnected) => return,
            }
        }
    }

    fn push(&mut self, text: &str) {
        let url = &self.url;
        match push(url, text) {
            Ok(()) => {
                if std::mem::take(&mut self.failed) {
                    tracing::info!("metrics are pushed to {url} again");
                }
            }
            Err(cause) => {
                self.failed = true;
                self.stats.pushes_failed.fetch_add(1, Relaxed);
                if self.complained.is_none_or(|at| COMPLAIN_EVERY <= at.elapsed()) {
                    self.complained = Some(Instant::now());
                    tracing::warn!("metrics were not pushed to {url}: {cause}");
                }
            }
        }
    }
}

fn push(url: &PushUrl, text: &str) -> io::Result<()> {
    let Origin { host, port, .. } = &url.origin;
    let mut exchange = Exchange::begin((host.as_str(), *port).to_socket_addrs()?)?;
    let (path, place, size) = (&url.path, authority(&url.origin), text.len());
    write!(
        exchange,
        "POST {path} HTTP/1.1\r\nHost: {place}\r\nContent-Type: {CONTENT_TYPE}\r\n\
         Content-Length: {size}\r\nConnection: close\r\n\r\n"
    )?;
    exchange.write_all(text.as_bytes())?;
    let mut answer = Vec::new();
    let mut bytes = [0; 1024];
    while answer.len() < ANSWER_BYTES_MAX {
        if status(&answer).is_some_and(|status| (200..300).contains(&status)) {
            return Ok(());
        }
        match exchange.read(&mut bytes) {
            Ok(0) => break,
            Ok(size) => answer.extend_from_slice(&bytes[..size]),
            // A status that is there is the better cause.
            Err(_) if status(&answer).is_some() => break,
            Err(error) => return Err(error),
        }
    }
    match status(&answer) {
        Some(200..300) => Ok(()),
        Some(status) => Err(io::Error::other(format!("it answered {status}{}", reason(&answer)))),
        None => Err(io::Error::new(ErrorKind::InvalidData, "it answered no HTTP/1")),
    }
}

/// Reads the status, once its line is there (RFC 9112, section 4).
fn status(answer: &[u8]) -> Option<u16> {
    let end = answer.iter().position(|&byte| byte == b'\n')?;
    let line = std::str::from_utf8(&answer[..end]).ok()?;
    let (version, rest) = line.split_once(' ')?;
    version.strip_prefix("HTTP/1.")?;
    rest.trim_end().split(' ').next()?.parse().ok().filter(|status| (100..1000).contains(status))
}

/// Returns what the body of an answer begins with.
fn reason(answer: &[u8]) -> String {
    let text = String::from_utf8_lossy(answer);
    let body = text.split_once("\r\n\r\n").map_or("", |(_, body)| body.trim());
    let body: String = body.chars().take(REASON_CHARS_MAX).collect();
    let body = printable(&body).replace('\n', " ");
    if body.is_empty() { body } else { format!(": {body}") }
}

/// A connection whose reads and writes end together.
struct Exchange {
    stream: TcpStream,
    until: Instant,
}

impl Exchange {
    fn begin(addresses: impl Iterator<Item = SocketAddr>) -> io::Result<Self> {
        let mut last = io::Error::new(ErrorKind::NotFound, "its name has no address");
        for address in addresses {
            match TcpStream::connect_timeout(&address, CONNECT_MAX) {
                Ok(stream) => return Ok(Self { stream, until: Instant::now() + EXCHANGE_MAX }),
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    fn left(&self) -> io::Result<Option<Duration>> {
        let left = self.until.saturating_duration_since(Instant::now());
        let late = || io::Error::new(ErrorKind::TimedOut, "it took too long");
        if left.is_zero() { Err(late()) } else { Ok(Some(left)) }
    }
}

impl Read for Exchange {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        self.stream.set_read_timeout(self.left()?)?;
        self.stream.read(bytes)
    }
}

impl Write for Exchange {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.stream.set_write_timeout(self.left()?)?;
        self.stream.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.stream.flush()
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn a_url_is_read_back() {
        for (text, shown) in [
            ("http://Gateway:9091/metrics/job/midge", "http://gateway:9091/metrics/job/midge"),
            ("http://10.0.0.9", "http://10.0.0.9/"),
            ("http://[fd00::9]:8428?a=b", "http://[fd00::9]:8428/?a=b"),
        ] {
            assert_eq!(text.parse::<PushUrl>().unwrap().to_string(), shown);
        }
        let long = format!("http://a/{}", "x".repeat(PATH_BYTES_MAX));
        for (text, error) in [
            ("https://gateway/", PushUrlError::Tls),
            ("gateway:9091", PushUrlError::Scheme),
            ("unix://a", PushUrlError::Scheme),
            ("http://me:secret@gateway/", PushUrlError::User),
            ("http://gateway/a b", PushUrlError::Path),
            ("http://gateway/a\r\nX: y", PushUrlError::Path),
            ("http://gateway/#a", PushUrlError::Path),
            (long.as_str(), PushUrlError::Path),
            ("http://:9091/", PushUrlError::Host(OriginError::Host)),
            ("http://gateway:0/", PushUrlError::Host(OriginError::Port)),
        ] {
            assert_eq!(text.parse::<PushUrl>(), Err(error), "{text}");
        }
    }

    /// Pushes to a server that gives this answer and closes, and returns the cause of the failure.
    fn pushed(answer: &'static [u8]) -> Result<(), String> {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/", listener.local_addr().unwrap()).parse().unwrap();
        let server = thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut request = Vec::new();
            while !request.ends_with(b"\r\n\r\nx 1\n") {
                let mut byte = [0];
                stream.read_exact(&mut byte).unwrap();
                request.push(byte[0]);
            }
            // Whoever knows enough reads no further.
            drop(stream.write_all(answer));
        });
        let pushed = push(&url, "x 1\n").map_err(|error| error.to_string());
        server.join().unwrap();
        pushed
    }

    #[test]
    fn an_answer_is_its_status() {
        assert_eq!(pushed(b"HTTP/1.1 200 OK\r\n\r\n"), Ok(()));
        assert_eq!(pushed(b"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n"), Ok(()));
        for (answer, said) in [
            (&b"HTTP/1.0 400 Bad\r\n\r\nline\x1b 2\n"[..], "it answered 400: line\\u{1b} 2"),
            (b"HTTP/1.1 302 Found\r\nLocation: /\r\n\r\n", "it answered 302"),
            (b"HTTP/1.1 2000 OK\r\n\r\n", "it answered no HTTP/1"),
            (b"HTTP/2 200\r\n\r\n", "it answered no HTTP/1"),
            (b"HTTP/1.1 200 OK", "it answered no HTTP/1"),
            (b"", "it answered no HTTP/1"),
            (b"\xff\xff\n", "it answered no HTTP/1"),
        ] {
            assert_eq!(pushed(answer), Err(said.to_owned()));
        }
        let endless: &'static [u8] = Box::leak(vec![b'x'; 4 * ANSWER_BYTES_MAX].into());
        pushed(endless).unwrap_err();
    }
}
