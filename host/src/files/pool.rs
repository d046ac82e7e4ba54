//! Threads that may wait for a disk or a name server, and compute for long, so that workers need not.

use std::fs::File;
use std::io;
use std::net::{IpAddr, ToSocketAddrs};
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use crossbeam_channel::{Receiver, Sender, bounded};
use midge_net::ConnectionId;
use midge_net::wake::Waker;

use super::{Folder, May, Opened, Wanted};
use crate::compress::Compressing;
use crate::route::FunctionIndex;

/// Threads: a disk serves several readers at once, and a request waits for one read at a time.
const THREADS: usize = 4;
/// Jobs that wait for a thread; beyond them requests get 503.
const JOBS_MAX: usize = 1024;
/// Addresses of one name that are tried.
const ADDRESSES_MAX: usize = 16;
/// Bytes read at once.
pub const READ_BYTES: usize = 64 * 1024;

/// The pool; its threads end when the last of these is dropped.
#[derive(Debug, Clone)]
pub struct Pool {
    jobs: Sender<Job>,
}

/// A request whose file is being looked for.
#[derive(Debug)]
pub struct Looking {
    /// Its connection.
    pub connection: ConnectionId,
    /// The folder's index among the targets of routes; none once those were replaced.
    pub target: Option<FunctionIndex>,
    /// The assignment under which it began.
    pub generation: u64,
    /// The folder.
    pub folder: Arc<Folder>,
    /// The request's id.
    pub request_id: [u8; 16],
    /// What it asks for.
    pub wanted: Wanted,
}

/// What a worker asks for.
#[derive(Debug)]
pub enum Task {
    /// Open what is wanted.
    Open(Box<Looking>),
    /// Read from this place, so many bytes at most.
    Read(ConnectionId, Arc<File>, u64, usize),
    /// Make a response smaller.
    Compress(Box<Compressing>),
    /// Find the addresses of a name.
    Resolve(Arc<str>),
}

/// What became of it.
#[derive(Debug)]
pub enum Done {
    /// What was found.
    Opened(Box<Looking>, io::Result<Opened>),
    /// The bytes; fewer only at the end of the file.
    Read(ConnectionId, io::Result<Vec<u8>>),
    /// The response, as it is to be sent.
    Compressed(Box<Compressing>),
    /// The addresses, in the order in which they should be tried.
    Resolved(Arc<str>, io::Result<Vec<IpAddr>>),
}

/// The way back to a worker.
#[derive(Debug)]
pub struct Desk {
    results: Sender<Done>,
    waker: Waker,
}

#[derive(Debug)]
struct Job {
    task: Task,
    desk: Arc<Desk>,
}

impl Pool {
    /// Starts the threads.
    ///
    /// # Errors
    /// If there is none to be had.
    pub fn start(name: &str) -> io::Result<Self> {
        let (jobs, inbox) = bounded(JOBS_MAX);
        for number in 0..THREADS {
            let inbox = inbox.clone();
            std::thread::Builder::new()
                .name(format!("midge-{name}-{number}"))
                .spawn(move || work(&inbox))?;
        }
        Ok(Self { jobs })
    }

    /// Hands a task over; false if too many wait.
    #[must_use]
    pub fn ask(&self, task: Task, desk: &Arc<Desk>) -> bool {
        self.jobs.try_send(Job { task, desk: Arc::clone(desk) }).is_ok()
    }
}

impl Desk {
    /// Makes a worker's desk; the results come out of the other end, and the worker is woken for each.
    #[must_use]
    pub fn new(waker: Waker) -> (Arc<Self>, Receiver<Done>) {
        // A connection waits for one task at a time, and so does a name: the bounds of the two pools are this one's.
        let (results, inbox) = bounded(2 * (JOBS_MAX + THREADS));
        (Arc::new(Self { results, waker }), inbox)
    }
}

fn work(inbox: &Receiver<Job>) {
    while let Ok(Job { task, desk }) = inbox.recv() {
        let done = match task {
            Task::Open(looking) => {
                let opened = looking.folder.find(&looking.wanted, May::Wait);
                Done::Opened(looking, opened)
            }
            Task::Read(connection, file, offset, size) => {
                Done::Read(connection, read(&file, offset, size))
            }
            Task::Compress(mut response) => {
                response.run();
                Done::Compressed(response)
            }
            Task::Resolve(name) => {
                let found = resolve(&name);
                Done::Resolved(name, found)
            }
        };
        // A worker that has ended needs it no more.
        let _ignored = desk.results.send(done);
        desk.waker.wake();
    }
}

/// Asks the system: its files, its name servers, in its order (RFC 6724).
fn resolve(name: &str) -> io::Result<Vec<IpAddr>> {
    let found = (name, 0).to_socket_addrs()?;
    Ok(found.map(|address| address.ip()).take(ADDRESSES_MAX).collect())
}

fn read(file: &File, offset: u64, size: usize) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; size.min(READ_BYTES)];
    let mut filled = 0;
    while filled < bytes.len() {
        match file.read_at(&mut bytes[filled..], offset + filled as u64) {
            Ok(0) => break,
            Ok(size) => filled += size,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    bytes.truncate(filled);
    Ok(bytes)
}
