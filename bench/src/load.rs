//! A closed loop of requests over keep-alive connections, every response checked.
//!
//! Each connection sends a batch of `pipeline` requests and waits for all of their responses. So latencies
//! seen here are those of queueing; the lab takes the server's CPU time and nothing else from it.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use rustix::event::epoll;

/// What to send, and how.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    /// The server.
    pub(crate) address: SocketAddr,
    /// Target of the requests.
    pub(crate) target: String,
    /// Connections.
    pub(crate) connections: usize,
    /// Requests sent at once on a connection.
    pub(crate) pipeline: usize,
}

/// What was received.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Tally {
    /// Responses that were as they should be.
    pub(crate) responses: u64,
    /// Others, and connections that broke.
    pub(crate) errors: u64,
}

/// Connections that are open and warm.
pub(crate) struct Load {
    poll: rustix::fd::OwnedFd,
    peers: Vec<Peer>,
    batch: Vec<u8>,
    /// Size of one response: all are the same, but for the date.
    response_bytes: usize,
    body: Vec<u8>,
}

struct Peer {
    stream: TcpStream,
    received: Vec<u8>,
}

impl Load {
    /// Connects, and learns what a response looks like.
    ///
    /// # Errors
    /// If the server does not answer 200 with a length.
    pub(crate) fn connect(plan: &Plan) -> Result<Self> {
        let request = format!(
            "GET {} HTTP/1.1\r\nhost: {}\r\nuser-agent: midge-lab\r\n\r\n",
            plan.target, plan.address
        );
        let (response_bytes, body) = learn(plan.address, request.as_bytes())?;
        let poll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let mut peers = Vec::with_capacity(plan.connections);
        for index in 0..plan.connections {
            let stream = TcpStream::connect(plan.address).context("cannot connect")?;
            stream.set_nodelay(true)?;
            stream.set_nonblocking(true)?;
            let data = epoll::EventData::new_u64(index as u64);
            epoll::add(&poll, &stream, data, epoll::EventFlags::IN)?;
            peers.push(Peer { stream, received: Vec::with_capacity(64 * 1024) });
        }
        Ok(Self { poll, peers, batch: request.repeat(plan.pipeline).into(), response_bytes, body })
    }

    /// Sends for `duration`, then waits for what is under way.
    ///
    /// # Errors
    /// If polling fails.
    pub(crate) fn run(&mut self, plan: &Plan, duration: Duration) -> Result<Tally> {
        let mut tally = Tally::default();
        let mut waiting = 0usize;
        for peer in &mut self.peers {
            peer.received.clear();
            peer.stream.write_all(&self.batch).context("the server does not read")?;
            waiting += 1;
        }
        let until = Instant::now() + duration;
        let give_up = until + Duration::from_secs(5);
        let mut events = Vec::with_capacity(self.peers.len());
        let mut buffer = vec![0; 256 * 1024];
        let expected = self.response_bytes * plan.pipeline;
        while waiting > 0 && Instant::now() < give_up {
            events.clear();
            let timeout = rustix::event::Timespec { tv_sec: 1, tv_nsec: 0 };
            epoll::wait(&self.poll, rustix::buffer::spare_capacity(&mut events), Some(&timeout))?;
            let is_over = until <= Instant::now();
            for event in &events {
                let index = usize::try_from(event.data.u64())?;
                let peer = &mut self.peers[index];
                match peer.stream.read(&mut buffer) {
                    Ok(size) if size > 0 => peer.received.extend_from_slice(&buffer[..size]),
                    Err(error) if error.kind() == ErrorKind::WouldBlock => continue,
                    _ => anyhow::bail!("the server closed a connection"),
                }
                if peer.received.len() < expected {
                    continue;
                }
                check(&peer.received, self.response_bytes, &self.body, plan.pipeline, &mut tally);
                peer.received.clear();
                if is_over {
                    waiting -= 1;
                } else {
                    peer.stream.write_all(&self.batch).context("the server does not read")?;
                }
            }
        }
        tally.errors += waiting as u64;
        Ok(tally)
    }
}

fn check(received: &[u8], size: usize, body: &[u8], count: usize, tally: &mut Tally) {
    let is_whole = received.len() == size * count;
    let is_sound =
        |response: &[u8]| response.starts_with(b"HTTP/1.1 200 ") && response.ends_with(body);
    let sound = received.chunks(size).filter(|response| is_sound(response)).count();
    let sound = if is_whole { sound } else { 0 };
    tally.responses += sound as u64;
    tally.errors += (count - sound) as u64;
}

/// Sends one request and returns the size of the response and its body.
fn learn(address: SocketAddr, request: &[u8]) -> Result<(usize, Vec<u8>)> {
    let mut stream = TcpStream::connect(address).context("cannot connect")?;
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    stream.write_all(request)?;
    let mut received = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        let size = stream.read(&mut buffer).context("the server does not answer")?;
        anyhow::ensure!(size > 0, "the server closed the first connection");
        received.extend_from_slice(&buffer[..size]);
        let Some(head) = memchr::memmem::find(&received, b"\r\n\r\n") else { continue };
        let text = String::from_utf8_lossy(&received[..head]).to_ascii_lowercase();
        anyhow::ensure!(text.starts_with("http/1.1 200 "), "the server answers: {text}");
        let length = text
            .lines()
            .find_map(|line| line.strip_prefix("content-length:"))
            .context("the response has no length")?;
        let length: usize = length.trim().parse().context("the response has no length")?;
        let whole = head + 4 + length;
        if received.len() >= whole {
            return Ok((whole, received[whole - length..whole].to_vec()));
        }
    }
}
