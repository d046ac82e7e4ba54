//! Lines to a server of logs: each a message of RFC 5424, in a datagram of its own (RFC 5426) or on a connection, its
//! length before it (RFC 6587, 3.4.1).
//!
//! ```text
//!   process 1, the host's log --\
//!                                queue --thread: resolve, connect, send--> UDP or TCP
//!   the log's thread ----------/
//! ```
//!
//! Invariants: whoever says something never waits for the network. Lines wait until the network is there, as many as
//! the queue holds; what finds no room, or no way for [`GIVE_UP_AFTER`], is counted, and told once a line is taken
//! again. No answer is read but the end of the connection.
//!
//! Not here: TLS, and proof that anything arrived: UDP has none, and TCP tells of what the peer's kernel took. Structured
//! data is left out: its names need a number of IANA's, and the line has function and request in it.

use std::fmt;
use std::io::{self, ErrorKind, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, ToSocketAddrs as _, UdpSocket};
use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use rustix::net::{RecvFlags, recv};

use crate::grant::{OriginError, parse_origin};
use crate::output::printable;

/// Lines that wait: those of a boot and of the network's start, many times over.
const LINES_MAX: usize = 4096;
/// Longest message, what receivers should take (RFC 5424, section 6.1).
const MESSAGE_BYTES_MAX: usize = 2048;
/// How long a line waits for the network before it is tried again; each time doubles it.
const AGAIN_AFTER: Duration = Duration::from_millis(500);
/// Longest of these waits: whoever starts the server of logs anew waits for it.
const AGAIN_AFTER_MAX: Duration = Duration::from_secs(8);
/// A line that nobody takes for so long is given up: the others would wait for it for ever.
const GIVE_UP_AFTER: Duration = Duration::from_secs(120);
/// How long the end of the process waits for the last lines.
const LAST_LINES_MAX: Duration = Duration::from_millis(500);
/// How long a connection may take to come about.
const CONNECT_MAX: Duration = Duration::from_secs(5);
/// How long a server may leave its connection unread.
const WRITE_MAX: Duration = Duration::from_secs(10);
/// How often a name is resolved anew, where nothing else tells that it leads elsewhere.
const RESOLVE_EVERY: Duration = Duration::from_secs(300);
/// How often it is said that nothing is taken.
const COMPLAIN_EVERY: Duration = Duration::from_secs(60);
/// Where servers of logs listen, for UDP and by custom for TCP (RFC 5426, section 3.3).
const PORT_DEFAULT: u16 = 514;
/// Most reads of what a server says on its connection, at a time.
const READS_MAX: usize = 16;
/// The source of all messages: daemons (RFC 5424, table 1).
const FACILITY: u8 = 3;
/// Longest name of a machine in a message (RFC 5424, section 6).
const HOST_BYTES_MAX: usize = 255;
/// What stands in a message for what is not known.
pub const NIL: &str = "-";

/// How grave a message is (RFC 5424, table 2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Severity {
    /// Something failed.
    Error = 3,
    /// Something is odd.
    Warning = 4,
    /// What goes on.
    Informational = 6,
    /// For whoever looks for a fault.
    Debug = 7,
}

impl Severity {
    /// Reads it from a line of the server's log, which has its level behind the time.
    #[must_use]
    pub fn of_line(line: &str) -> Self {
        match line.split_whitespace().nth(1) {
            Some("ERROR" | "trap") => Self::Error,
            Some("WARN") => Self::Warning,
            _ => Self::Informational,
        }
    }
}

/// Where a server of logs is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    protocol: Protocol,
    /// Name or address, an address of IPv6 without its brackets.
    host: String,
    port: u16,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Protocol {
    Udp,
    Tcp,
}

/// A text that names no server of logs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TargetError {
    /// Another scheme, or none.
    #[error("it begins with neither `udp://` nor `tcp://`")]
    Scheme,
    /// What follows.
    #[error(transparent)]
    Host(#[from] OriginError),
}

impl FromStr for Target {
    type Err = TargetError;

    fn from_str(text: &str) -> Result<Self, TargetError> {
        let (protocol, rest) = match text.split_once("://") {
            Some(("udp", rest)) => (Protocol::Udp, rest),
            Some(("tcp", rest)) => (Protocol::Tcp, rest),
            _ => return Err(TargetError::Scheme),
        };
        let has_port = rest.rsplit_once(':').is_some_and(|(_, port)| !port.contains(']'));
        let port = if has_port { String::new() } else { format!(":{PORT_DEFAULT}") };
        let origin = parse_origin(false, &format!("{rest}{port}"))?;
        Ok(Self { protocol, host: origin.host, port: origin.port })
    }
}

impl fmt::Display for Target {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { protocol, host, port } = self;
        let scheme = match protocol {
            Protocol::Udp => "udp",
            Protocol::Tcp => "tcp",
        };
        match host.parse::<Ipv6Addr>() {
            Ok(address) => write!(formatter, "{scheme}://[{address}]:{port}"),
            Err(_) => write!(formatter, "{scheme}://{host}:{port}"),
        }
    }
}

impl Target {
    /// One that is told by UDP.
    #[must_use]
    pub fn udp(address: SocketAddr) -> Self {
        let (host, port) = (address.ip().to_string(), address.port());
        Self { protocol: Protocol::Udp, host, port }
    }

    /// Waits for the resolver if the host is a name.
    fn addresses(&self) -> io::Result<Vec<SocketAddr>> {
        Ok((self.host.as_str(), self.port).to_socket_addrs()?.collect())
    }
}

#[derive(Debug)]
enum Item {
    Line(String),
    /// Whoever holds the other end waits for the lines before it.
    Flush(#[expect(dead_code, reason = "its end is the message")] SyncSender<()>),
}

/// The way to the server of logs. Its thread ends when the last clone is dropped, with the
/// lines that wait, or with the first of them that is not taken.
#[derive(Debug, Clone)]
pub struct Syslog {
    items: SyncSender<Item>,
    /// This machine's name.
    host: Arc<str>,
    lost: Arc<Lost>,
    /// Upgrades as long as anybody may still say something.
    _open: Arc<()>,
}

/// Lines that were not sent.
#[derive(Debug, Default)]
struct Lost {
    /// Since the server of logs was told of them.
    untold: AtomicU64,
    /// All, of all servers of logs that this process had.
    total: Arc<AtomicU64>,
}

impl Lost {
    fn one(&self) {
        self.untold.fetch_add(1, Relaxed);
        self.total.fetch_add(1, Relaxed);
    }
}

impl Syslog {
    /// Starts the thread that sends. Messages name this machine by `host`; what is lost is added to `lost`.
    ///
    /// # Errors
    /// No thread.
    pub fn start(target: Target, host: &str, lost: Arc<AtomicU64>) -> io::Result<Self> {
        let (items, source) = sync_channel(LINES_MAX);
        let lost = Arc::new(Lost { total: lost, ..Lost::default() });
        let (host, open): (Arc<str>, _) = (host.into(), Arc::new(()));
        let sender = Sender {
            way: Way::of(target),
            host: Arc::clone(&host),
            lost: Arc::clone(&lost),
            complained: None,
        };
        let is_open = Arc::downgrade(&open);
        let work = move || sender.send_all(&source, || 0 < is_open.strong_count());
        thread::Builder::new().name("midge-syslog".into()).spawn(work)?;
        Ok(Self { items, host, lost, _open: open })
    }

    /// Sends a line of a process.
    pub fn send(&self, severity: Severity, process: u32, line: &str) {
        let line = message(SystemTime::now(), severity, &self.host, process, line);
        if let Err(TrySendError::Full(_)) = self.items.try_send(Item::Line(line)) {
            self.lost.one();
        }
    }

    /// Waits for a moment until all lines before this are sent.
    pub fn flush(&self) {
        let (sender, done) = sync_channel(0);
        if self.items.try_send(Item::Flush(sender)).is_ok() {
            // It ends, for the other end is dropped; or time is up.
            let _ended = done.recv_timeout(LAST_LINES_MAX);
        }
    }
}

/// Takes a message, or says why not. One that was not taken is tried again.
trait Take {
    fn take(&mut self, message: &[u8]) -> io::Result<()>;
    fn target(&self) -> &dyn fmt::Display;
}

/// What the thread holds.
struct Sender<T> {
    way: T,
    host: Arc<str>,
    lost: Arc<Lost>,
    complained: Option<Instant>,
}

impl<T: Take> Sender<T> {
    fn send_all(mut self, source: &Receiver<Item>, is_open: impl Fn() -> bool) {
        for item in source {
            let Item::Line(line) = item else { continue };
            if !self.send(line.as_bytes(), &is_open) {
                self.lost.one();
                if is_open() {
                    continue;
                }
                // Thousands of lines that are tried one by one would keep the thread for hours.
                source
                    .try_iter()
                    .filter(|item| matches!(item, Item::Line(_)))
                    .for_each(|_| self.lost.one());
                return;
            }
            let lost = self.lost.untold.swap(0, Relaxed);
            if 0 < lost {
                let text = format!("{lost} lines before this found no room and were dropped");
                let now = SystemTime::now();
                let process = std::process::id();
                let told = message(now, Severity::Warning, &self.host, process, &text);
                if !self.send(told.as_bytes(), &is_open) {
                    self.lost.untold.fetch_add(lost, Relaxed);
                }
            }
        }
    }

    /// Tries until the message is taken, time is up, or nobody can say anything any more.
    fn send(&mut self, message: &[u8], is_open: impl Fn() -> bool) -> bool {
        let began = Instant::now();
        let mut wait = AGAIN_AFTER;
        loop {
            let Err(error) = self.way.take(message) else { return true };
            if self.complained.is_none_or(|at| COMPLAIN_EVERY <= at.elapsed()) {
                self.complained = Some(Instant::now());
                tracing::warn!("{} takes no lines of the log: {error}", self.way.target());
            }
            if GIVE_UP_AFTER <= began.elapsed() || !is_open() {
                return false;
            }
            thread::park_timeout(wait);
            wait = (wait * 2).min(AGAIN_AFTER_MAX);
        }
    }
}

/// The socket, and where it leads.
struct Way {
    target: Target,
    state: State,
    /// A message behind its length.
    frame: Vec<u8>,
}

enum State {
    None,
    Datagrams(UdpSocket, SocketAddr, Instant),
    Connection(TcpStream),
}

impl Way {
    const fn of(target: Target) -> Self {
        Self { target, state: State::None, frame: Vec::new() }
    }

    fn open(&self) -> io::Result<State> {
        let mut last = io::Error::new(ErrorKind::NotFound, "its name has no address");
        for address in self.target.addresses()? {
            let opened = match self.target.protocol {
                Protocol::Udp => datagrams(address),
                Protocol::Tcp => connection(address),
            };
            match opened {
                Ok(state) => return Ok(state),
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    fn is_stale(&self) -> bool {
        match &self.state {
            State::None => true,
            State::Datagrams(_, address, since) => {
                let is_name = self.target.host.parse::<IpAddr>() != Ok(address.ip());
                is_name && RESOLVE_EVERY <= since.elapsed()
            }
            State::Connection(stream) => has_ended(stream),
        }
    }
}

impl Take for Way {
    fn take(&mut self, message: &[u8]) -> io::Result<()> {
        if self.is_stale() {
            self.state = State::None;
            self.state = self.open()?;
        }
        let taken = match &mut self.state {
            State::None => unreachable!("it was opened above"),
            State::Datagrams(socket, address, _) => socket.send_to(message, *address).map(drop),
            State::Connection(stream) => {
                self.frame.clear();
                write!(self.frame, "{} ", message.len())?;
                self.frame.extend_from_slice(message);
                stream.write_all(&self.frame)
            }
        };
        if taken.is_err() {
            // Half a message may be out: only a new connection begins with a length.
            self.state = State::None;
        }
        taken
    }

    fn target(&self) -> &dyn fmt::Display {
        &self.target
    }
}

fn datagrams(address: SocketAddr) -> io::Result<State> {
    let any: SocketAddr = match address {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    };
    Ok(State::Datagrams(UdpSocket::bind(any)?, address, Instant::now()))
}

fn connection(address: SocketAddr) -> io::Result<State> {
    let stream = TcpStream::connect_timeout(&address, CONNECT_MAX)?;
    stream.set_write_timeout(Some(WRITE_MAX))?;
    Ok(State::Connection(stream))
}

/// True if the server has closed: a write would succeed once more, and its message be lost. What it says is thrown away.
fn has_ended(stream: &TcpStream) -> bool {
    let mut bytes = [0; 256];
    for _ in 0..READS_MAX {
        match recv(stream, &mut bytes[..], RecvFlags::DONTWAIT) {
            Ok((_, 0)) => return true,
            Ok(_) => {}
            Err(error) => return error != rustix::io::Errno::AGAIN,
        }
    }
    // Whoever talks so much is no server of logs.
    true
}

/// Returns this machine's name as messages have it.
#[must_use]
pub fn host_name() -> String {
    let system = rustix::system::uname();
    let name = system.nodename().to_str().unwrap_or_default();
    let is_fit = (1..=HOST_BYTES_MAX).contains(&name.len())
        && name.bytes().all(|byte| byte.is_ascii_graphic())
        && name != "(none)"; // The kernel's word where nobody set one.
    if is_fit { name } else { NIL }.to_owned()
}

/// Returns a message: priority, version, time, the names of host, program, process and message, and no data.
fn message(now: SystemTime, severity: Severity, host: &str, process: u32, line: &str) -> String {
    let priority = FACILITY * 8 + severity as u8;
    let time = humantime::format_rfc3339_millis(now);
    let line = printable(line.trim_end());
    let mut message = format!("<{priority}>1 {time} {host} midge {process} - - {line}");
    message.truncate(message.floor_char_boundary(MESSAGE_BYTES_MAX));
    message
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::io::{BufRead, BufReader};
    use std::net::{Shutdown, TcpListener};
    use std::rc::Rc;
    use std::time::UNIX_EPOCH;

    use super::*;

    #[test]
    fn a_message_is_one_of_rfc_5424() {
        let now = UNIX_EPOCH + Duration::from_millis(1_767_225_600_250);
        let said = message(now, Severity::Warning, "edge-7", 7, "a\u{1b}b\n");
        assert_eq!(said, "<28>1 2026-01-01T00:00:00.250Z edge-7 midge 7 - - a\\u{1b}b");
        let long = message(now, Severity::Error, NIL, 1, &"é".repeat(MESSAGE_BYTES_MAX));
        assert!((MESSAGE_BYTES_MAX - 1..=MESSAGE_BYTES_MAX).contains(&long.len()));
    }

    #[test]
    fn the_level_of_a_line_is_its_severity() {
        for (line, severity) in [
            ("2026-11-29T05:54:41.302530Z  WARN clients may", Severity::Warning),
            ("2026-11-29T05:54:41.302530Z ERROR it", Severity::Error),
            ("2026-11-29T05:54:41.302530Z trap hello", Severity::Error),
            ("WARN", Severity::Informational),
            ("", Severity::Informational),
        ] {
            assert_eq!(Severity::of_line(line), severity, "{line}");
        }
    }

    #[test]
    fn a_target_is_read_back() {
        for (text, shown) in [
            ("udp://10.0.0.9", "udp://10.0.0.9:514"),
            ("udp://Logs.Example:5514", "udp://logs.example:5514"),
            ("tcp://[fd00::9]", "tcp://[fd00::9]:514"),
            ("tcp://[fd00::9]:6514", "tcp://[fd00::9]:6514"),
        ] {
            assert_eq!(text.parse::<Target>().unwrap().to_string(), shown);
        }
        for text in [
            "",
            "logs:514",
            "tls://logs:6514",
            "udp://",
            "udp://:514",
            "udp://logs:0",
            "udp://logs:99999",
            "tcp://me@logs:514",
            "tcp://logs:514/path",
            "udp://fd00::9",
        ] {
            text.parse::<Target>().unwrap_err();
        }
    }

    /// Takes what it is let take, and keeps it.
    struct Kept(Rc<RefCell<Vec<String>>>, Rc<RefCell<Vec<io::Result<()>>>>);

    impl Take for Kept {
        fn take(&mut self, message: &[u8]) -> io::Result<()> {
            self.1.borrow_mut().pop().unwrap_or(Ok(()))?;
            self.0.borrow_mut().push(String::from_utf8(message.to_vec()).unwrap());
            Ok(())
        }

        fn target(&self) -> &dyn fmt::Display {
            &"nowhere"
        }
    }

    fn sender(untold: u64) -> (Sender<Kept>, Rc<RefCell<Vec<String>>>, Arc<Lost>) {
        let (sent, lost) = (Rc::default(), Arc::new(Lost::default()));
        lost.untold.store(untold, Relaxed);
        let way = Kept(Rc::clone(&sent), Rc::default());
        (Sender { way, host: NIL.into(), lost: Arc::clone(&lost), complained: None }, sent, lost)
    }

    #[test]
    fn what_was_dropped_is_told() {
        let (items, source) = sync_channel(8);
        items.send(Item::Line("one".into())).unwrap();
        let (flushed, done) = sync_channel(0);
        items.send(Item::Flush(flushed)).unwrap();
        drop(items);
        let (sender, sent, _) = sender(3);
        sender.send_all(&source, || true);
        assert_eq!(sent.borrow()[0], "one");
        assert!(sent.borrow()[1].ends_with("3 lines before this found no room and were dropped"));
        assert!(done.recv().is_err(), "whoever waits goes on");
    }

    #[test]
    fn once_nobody_speaks_a_line_that_is_not_taken_ends_it_and_all_are_counted() {
        let (items, source) = sync_channel(8);
        for line in ["one", "two"] {
            items.send(Item::Line(line.into())).unwrap();
        }
        drop(items);
        let (sender, sent, lost) = sender(0);
        sender.way.1.borrow_mut().push(Err(ErrorKind::NetworkUnreachable.into()));
        sender.send_all(&source, || false);
        assert_eq!(sent.borrow().len(), 0);
        assert_eq!(lost.total.load(Relaxed), 2);
    }

    /// Reads one message behind its length.
    fn framed(source: &mut impl BufRead) -> String {
        let mut length = Vec::new();
        source.read_until(b' ', &mut length).unwrap();
        let length: usize = String::from_utf8(length).unwrap().trim_end().parse().unwrap();
        let mut message = vec![0; length];
        source.read_exact(&mut message).unwrap();
        String::from_utf8(message).unwrap()
    }

    #[test]
    fn a_connection_that_the_server_closed_is_made_anew_and_no_line_is_lost() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let mut way = Way::of(format!("tcp://{address}").parse().unwrap());
        way.take(b"one").unwrap();
        let (stream, _) = listener.accept().unwrap();
        let mut source = BufReader::new(stream);
        assert_eq!(framed(&mut source), "one");
        source.get_ref().write_all(b"who are you?").unwrap();
        way.take(b"two words").unwrap();
        assert_eq!(framed(&mut source), "two words");
        source.get_ref().shutdown(Shutdown::Write).unwrap();
        way.take(b"three").unwrap();
        let (stream, _) = listener.accept().unwrap();
        assert_eq!(framed(&mut BufReader::new(stream)), "three");
    }
}
