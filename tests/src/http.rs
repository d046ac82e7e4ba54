//! HTTP as bytes: a client that sends what it is told, and reads one response after the other.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};

use crate::wait::PATIENCE;

/// A connection.
#[derive(Debug)]
pub struct Client {
    stream: TcpStream,
    received: Vec<u8>,
}

/// A response.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Response {
    /// Its status.
    pub status: u16,
    /// Its header lines, names in lower case.
    pub headers: Vec<(String, String)>,
    /// Its body.
    pub body: Vec<u8>,
    /// The lines behind it, names in lower case.
    pub trailers: Vec<(String, String)>,
}

/// A request, put together by its parts.
#[derive(Debug, Clone, Default)]
pub struct Request {
    /// Method and target.
    pub line: String,
    /// Header lines.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: Vec<u8>,
}

impl Client {
    /// Connects.
    ///
    /// # Panics
    /// If nobody accepts.
    #[must_use]
    pub fn connect(address: SocketAddr) -> Self {
        Self::over(TcpStream::connect(address).expect("somebody listens"))
    }

    /// Takes a connection that was made elsewhere.
    ///
    /// # Panics
    /// If it does not take its options.
    #[must_use]
    pub fn over(stream: TcpStream) -> Self {
        stream.set_read_timeout(Some(PATIENCE)).expect("a timeout can be set");
        stream.set_write_timeout(Some(PATIENCE)).expect("a timeout can be set");
        stream.set_nodelay(true).expect("a socket takes its options");
        Self { stream, received: Vec::new() }
    }

    /// Sends bytes.
    ///
    /// # Panics
    /// If the peer does not take them.
    pub fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).expect("the peer takes what is sent");
    }

    /// Asks, if the connection still takes a request; `None` if it ended without a byte of an answer.
    ///
    /// # Panics
    /// If it ends in the middle of one.
    pub fn try_get(&mut self, target: &str) -> Option<Response> {
        self.stream.write_all(&Request::get(target).bytes()).ok()?;
        let head = self.try_receive_head()?;
        Some(self.receive_body(head))
    }

    /// Sends a request without a body.
    pub fn send_get(&mut self, target: &str) {
        self.send(&Request::get(target).bytes());
    }

    /// Asks, and reads the answer.
    pub fn get(&mut self, target: &str) -> Response {
        self.send_get(target);
        self.receive()
    }

    /// Sends a request with a body, and reads the answer.
    pub fn post(&mut self, target: &str, body: &[u8]) -> Response {
        self.ask(&Request::post(target, body))
    }

    /// Sends a request, and reads the answer.
    pub fn ask(&mut self, request: &Request) -> Response {
        self.send(&request.bytes());
        if request.line.starts_with("HEAD ") { self.receive_head() } else { self.receive() }
    }

    /// Reads one response.
    ///
    /// # Panics
    /// If there is none.
    pub fn receive(&mut self) -> Response {
        let head = self.receive_head();
        self.receive_body(head)
    }

    /// Reads one response that has no body, whatever its length says: that of a HEAD.
    ///
    /// # Panics
    /// If there is none.
    pub fn receive_head(&mut self) -> Response {
        self.try_receive_head().expect("a response, not the end of the connection")
    }

    /// Reads the head of one response; `None` if the connection ended instead.
    ///
    /// # Panics
    /// If what comes is no response.
    pub fn try_receive_head(&mut self) -> Option<Response> {
        let end = loop {
            let end = self.received.windows(4).position(|window| window == b"\r\n\r\n");
            if let Some(end) = end {
                break end;
            }
            if self.read_more() == 0 {
                assert!(self.received.is_empty(), "the connection ended in a head");
                return None;
            }
        };
        let head: Vec<u8> = self.received.drain(..end + 4).collect();
        let head = String::from_utf8(head).expect("heads of these tests are text");
        let mut lines = head.trim_end().split("\r\n");
        let status = lines.next().and_then(|line| line.split(' ').nth(1));
        let status = status.and_then(|status| status.parse().ok()).expect("a status line");
        let headers = lines.map(|line| {
            let (name, value) = line.split_once(':').expect("a header line has a colon");
            (name.to_ascii_lowercase(), value.trim().to_owned())
        });
        let (body, trailers) = (Vec::new(), Vec::new());
        Some(Response { status, headers: headers.collect(), body, trailers })
    }

    /// Ends the own half of the connection.
    ///
    /// # Panics
    /// If the connection is gone.
    pub fn end_sending(&self) {
        self.stream.shutdown(std::net::Shutdown::Write).expect("the connection is there");
    }

    /// Reads until the end of a response's head, and returns its bytes with what came behind them: for a head
    /// that need not be text.
    ///
    /// # Panics
    /// If the connection ends before.
    pub fn receive_bytes_of_head(&mut self) -> Vec<u8> {
        while !self.received.windows(4).any(|window| window == b"\r\n\r\n") {
            assert!(self.read_more() > 0, "the connection ended in a head");
        }
        std::mem::take(&mut self.received)
    }

    /// Waits until a response has come, and leaves without reading it: the peer gets a reset, not the polite
    /// end after which a client may still wait for its answer.
    ///
    /// # Panics
    /// If nothing comes.
    pub fn leave_unread(self) {
        let size = self.stream.peek(&mut [0]).expect("the peer sends something");
        assert_eq!(size, 1, "the peer sends something");
    }

    /// Waits for the peer's end of the connection; true if nothing came before it.
    ///
    /// # Panics
    /// If the peer does not end it.
    pub fn is_ended(&mut self) -> bool {
        while self.read_more() > 0 {}
        self.received.is_empty()
    }

    /// Reads all that comes until the peer ends the connection.
    ///
    /// # Panics
    /// If it does not.
    pub fn receive_to_end(&mut self) -> Vec<u8> {
        while self.read_more() > 0 {}
        std::mem::take(&mut self.received)
    }

    /// Reads this text, without waiting for more.
    ///
    /// # Panics
    /// If something else comes.
    pub fn receive_text(&mut self, text: &str) {
        while self.received.len() < text.len() {
            assert!(self.read_more() > 0, "the connection ended before `{text}`");
        }
        let found: Vec<u8> = self.received.drain(..text.len()).collect();
        assert_eq!(String::from_utf8_lossy(&found), text);
    }

    /// Reads a body in chunks, and what stands behind it.
    fn receive_chunks(&mut self) -> (Vec<u8>, Vec<(String, String)>) {
        let mut body = Vec::new();
        loop {
            let line = loop {
                let line = self.received.windows(2).position(|window| window == b"\r\n");
                if let Some(line) = line {
                    break line;
                }
                assert!(self.read_more() > 0, "the connection ended in a body");
            };
            let size = String::from_utf8_lossy(&self.received[..line]).into_owned();
            let size = usize::from_str_radix(&size, 16).expect("the size of a chunk");
            if size == 0 {
                self.received.drain(..line + 2);
                return (body, self.receive_trailers());
            }
            while self.received.len() < line + size + 4 {
                assert!(self.read_more() > 0, "the connection ended in a body");
            }
            let chunk: Vec<u8> = self.received.drain(..line + size + 4).collect();
            assert!(chunk.ends_with(b"\r\n"), "a chunk of another size");
            body.extend_from_slice(&chunk[line + 2..line + 2 + size]);
        }
    }

    /// Reads the lines behind a body, up to the empty one.
    fn receive_trailers(&mut self) -> Vec<(String, String)> {
        let mut trailers = Vec::new();
        loop {
            while !self.received.contains(&b'\n') {
                assert!(self.read_more() > 0, "the connection ended behind a body");
            }
            let end = self.received.iter().position(|&byte| byte == b'\n').expect("just found");
            let line: Vec<u8> = self.received.drain(..=end).collect();
            let line = String::from_utf8(line).expect("lines of the host's are text");
            let line = line.strip_suffix("\r\n").expect("a line ends in CRLF");
            let Some((name, value)) = line.split_once(": ") else {
                assert_eq!(line, "", "a line behind a body has a name");
                return trailers;
            };
            trailers.push((name.to_ascii_lowercase(), value.to_owned()));
        }
    }

    fn receive_body(&mut self, mut response: Response) -> Response {
        if response.header("transfer-encoding") == Some("chunked") {
            (response.body, response.trailers) = self.receive_chunks();
            return response;
        }
        let length = response
            .header("content-length")
            .map_or(0, |length| length.parse().expect("a length is a number"));
        while self.received.len() < length {
            assert!(self.read_more() > 0, "the connection ended in a body");
        }
        response.body = self.received.drain(..length).collect();
        response
    }

    fn read_more(&mut self) -> usize {
        let mut piece = [0; 16 * 1024];
        let read = loop {
            match self.stream.read(&mut piece) {
                // A read with a timeout ends like this when the process was stopped and goes on.
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                read => break read,
            }
        };
        match read {
            Ok(size) => {
                self.received.extend_from_slice(&piece[..size]);
                size
            }
            Err(error) if error.kind() == ErrorKind::ConnectionReset => 0,
            Err(error) => panic!("no bytes from the peer: {error}"),
        }
    }
}

impl Request {
    /// Makes a GET.
    #[must_use]
    pub fn get(target: &str) -> Self {
        Self { line: format!("GET {target}"), ..Self::default() }
    }

    /// Makes a POST.
    #[must_use]
    pub fn post(target: &str, body: &[u8]) -> Self {
        Self { line: format!("POST {target}"), body: body.to_vec(), ..Self::default() }
    }

    /// Makes a request of another method.
    #[must_use]
    pub fn of(line: &str) -> Self {
        Self { line: line.to_owned(), ..Self::default() }
    }

    /// Adds a header line.
    #[must_use]
    pub fn with(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Returns the bytes, with the lines that every client sends where they were not given.
    #[must_use]
    pub fn bytes(&self) -> Vec<u8> {
        let mut bytes = format!("{} HTTP/1.1\r\n", self.line).into_bytes();
        let length = self.body.len().to_string();
        let is_given = |wanted: &str| self.headers.iter().any(|(name, _)| name == wanted);
        let usual =
            [("host", "localhost"), ("user-agent", "midge-tests"), ("accept", "*/*")].into_iter();
        let length = (!self.body.is_empty()).then_some(("content-length", length.as_str()));
        let usual = usual.chain(length).filter(|(name, _)| !is_given(name));
        let given = self.headers.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        for (name, value) in usual.chain(given) {
            bytes.extend_from_slice(format!("{name}: {value}\r\n").as_bytes());
        }
        bytes.extend_from_slice(b"\r\n");
        bytes.extend_from_slice(&self.body);
        bytes
    }
}

impl Response {
    /// Returns the value of a header.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(found, _)| found == name).map(|(_, value)| value.as_str())
    }

    /// Returns the lines behind the body, each as `name: value` and a line feed.
    #[must_use]
    pub fn trailer_text(&self) -> String {
        self.trailers.iter().map(|(name, value)| format!("{name}: {value}\n")).collect()
    }

    /// Returns the body as text.
    ///
    /// # Panics
    /// If it is none.
    #[must_use]
    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).expect("the body is text")
    }

    /// Checks that this is a problem report of RFC 9457, and returns the id of its request.
    ///
    /// # Panics
    /// If it is not, or another one.
    #[must_use]
    #[track_caller]
    pub fn problem(&self, status: u16, slug: &str) -> String {
        assert_eq!(self.status, status, "{self:?}");
        assert_eq!(self.header("content-type"), Some("application/problem+json"));
        let object: serde_json::Value = serde_json::from_slice(&self.body).expect("JSON");
        assert_eq!(object["type"], format!("urn:midge:problem:{slug}"));
        assert_eq!(object["status"], status);
        assert!(object["title"].is_string() && object["detail"].is_string());
        let instance = object["instance"].as_str().expect("a problem names its request");
        let id = instance.strip_prefix("urn:midge:request:").expect("the name of a request");
        assert!(id.len() == 32 && id.bytes().all(|byte| byte.is_ascii_hexdigit()), "{id}");
        id.to_owned()
    }
}
