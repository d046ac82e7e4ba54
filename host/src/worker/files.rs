//! Files of a folder on their way to a client.
//!
//! ```text
//!   found --> conditions --> head --> small: sent as a whole
//!                              |
//!                              +--> in pieces, as there is room --(Room)--> on
//!                                     | not in memory
//!                                     +--> a thread reads --(Woken)--> on
//! ```
//!
//! Not here: opening, conditions, and the threads (`files.rs`).

use std::fs::File;
use std::io;
use std::sync::Arc;

use crossbeam_channel::Receiver;
use midge_abi::contract::Method;
use midge_abi::imports::Level;
use midge_abi::problem::Problem;
use midge_abi::width::index;
use midge_net::clock::Clock;
use midge_net::ring::{ConnectionId, Ring};
use midge_net::wake::Waker;
use midge_net::{RequestView, Written};

use super::{Hint, Refused, Worker, wall_ns};
use crate::call;
use crate::compress::Compressing;
use crate::config::Methods;
use crate::files::conditions::Verdict;
use crate::files::pool::{Desk, Done, Looking, Pool, READ_BYTES, Task};
use crate::files::{Folder, Found, May, Opened, read_at_hand};
use crate::log::{Access, Event as LogEvent};
use crate::route::FunctionIndex;

/// The files that a worker sends, and its desk at the threads that wait for disks.
pub(super) struct Files {
    pub(super) desk: Arc<Desk>,
    done: Receiver<Done>,
    /// By the connection's slot.
    sending: Vec<Option<Box<Sending>>>,
}

/// A file on its way.
struct Sending {
    connection: ConnectionId,
    file: Arc<File>,
    offset: u64,
    end: u64,
    /// What a thread has read and there was no room for yet.
    read: Vec<u8>,
    /// A thread reads.
    is_reading: bool,
}

impl Files {
    pub(super) fn new(waker: Waker) -> Self {
        let (desk, done) = Desk::new(waker);
        Self { desk, done, sending: Vec::new() }
    }

    /// Hands a response to the threads, to be made smaller; false if too many wait.
    pub(super) fn compress(&self, pool: &Pool, response: Compressing) -> bool {
        pool.ask(Task::Compress(Box::new(response)), &self.desk)
    }

    pub(super) fn is_sending(&self, connection: ConnectionId) -> bool {
        let place = self.sending.get(index(connection.slot()));
        place.and_then(Option::as_ref).is_some_and(|sending| sending.connection == connection)
    }

    fn sending(&mut self, connection: ConnectionId) -> Option<&mut Sending> {
        let place = self.sending.get_mut(index(connection.slot()))?;
        place.as_deref_mut().filter(|sending| sending.connection == connection)
    }

    pub(super) fn drop_sending(&mut self, connection: ConnectionId) {
        if self.is_sending(connection) {
            self.sending[index(connection.slot())] = None;
        }
    }
}

/// Checks what can be refused before a file is looked for.
pub(super) fn check(
    target: FunctionIndex,
    view: &RequestView<'_>,
    body_bytes: u64,
) -> Result<FunctionIndex, Refused> {
    if !Methods::READING.allows(call::method(view.head.method)) {
        let refused = Refused::by(target, Problem::MethodNotAllowed);
        return Err(refused.with(Hint::Allow(Methods::READING)));
    }
    if body_bytes > 0 {
        return Err(Refused::by(target, Problem::BodyTooLarge));
    }
    Ok(target)
}

impl<R: Ring, C: Clock> Worker<R, C> {
    /// The way of a request for a file.
    pub(super) fn serve_file(
        &mut self,
        connection: ConnectionId,
        target: FunctionIndex,
        request_id: [u8; 16],
    ) {
        let deployment = &self.assignment.deployment;
        let folder = Arc::clone(&deployment.folders[index(target.0) - deployment.functions.len()]);
        let view = self.endpoint.request(connection);
        let is_head = call::method(view.head.method) == Method::Head;
        let wanted = folder.wanted(&view, is_head);
        self.endpoint.defer(connection);
        let Some(wanted) = wanted else {
            return self.refuse(connection, &request_id, Refused::by(target, Problem::NotFound));
        };
        let opened = folder.find(&wanted, May::NotWait);
        let generation = self.generation;
        let target = Some(target);
        let looking = Looking { connection, target, generation, folder, request_id, wanted };
        match opened {
            Ok(Opened::Waits) => {
                self.assignment.stats.file_waits();
                let pool = self.assignment.deployment.pool.as_ref();
                let pool = pool.expect("there is one where there are folders");
                if !pool.ask(Task::Open(Box::new(looking)), &self.files.desk) {
                    self.refuse(connection, &request_id, Refused::by(target, Problem::Overloaded));
                }
            }
            opened => self.answer_file(&looking, opened),
        }
    }

    /// Takes what the threads have done.
    pub(super) fn read_files(&mut self) {
        while let Ok(done) = self.files.done.try_recv() {
            match done {
                Done::Opened(mut looking, opened) => {
                    // Counters of other targets are not its own.
                    let is_current = looking.generation == self.generation;
                    looking.target = looking.target.filter(|_| is_current);
                    self.answer_file(&looking, opened);
                }
                Done::Resolved(name, found) => self.resolved(&name, found),
                Done::Compressed(response) => {
                    let (connection, status) = (response.connection, response.status);
                    self.endpoint.respond(connection, status, response.lines(), &response.body);
                }
                Done::Read(connection, read) => {
                    let Some(sending) = self.files.sending(connection) else { continue };
                    sending.is_reading = false;
                    match read {
                        Ok(bytes) if !bytes.is_empty() => {
                            sending.read = bytes;
                            self.send_file(connection);
                        }
                        // It has become shorter, or cannot be read: what was told cannot be kept.
                        _ => self.cut_file(connection),
                    }
                }
            }
        }
    }

    fn answer_file(&mut self, looking: &Looking, opened: io::Result<Opened>) {
        let Looking { connection, target, request_id, .. } = looking;
        let problem = match opened {
            Ok(Opened::File(found)) => return self.answer_found(looking, *found),
            Ok(Opened::Folder) => return self.redirect(looking),
            Ok(Opened::Nothing) => Problem::NotFound,
            Ok(Opened::Waits) => unreachable!("a thread waits for the disk"),
            Err(error) => {
                let text = format!("a file could not be opened: {error}");
                if let Some(target) = *target {
                    let event = LogEvent::guest(Level::Error, text.as_bytes());
                    self.log_line(target, request_id, event);
                }
                Problem::FileFailed
            }
        };
        self.refuse(*connection, request_id, Refused::by(*target, problem));
    }

    /// A folder without the slash: links in its index would lead elsewhere.
    fn redirect(&mut self, looking: &Looking) {
        let (path, query) = &looking.wanted.target;
        let mut location = path.clone();
        location.push(b'/');
        if !query.is_empty() {
            location.push(b'?');
            location.extend_from_slice(query);
        }
        let headers = std::iter::once((&b"location"[..], &location[..]));
        self.endpoint.respond(looking.connection, 301, headers, b"");
        self.log_file(looking, 301, 0);
    }

    fn answer_found(&mut self, looking: &Looking, found: Found) {
        let connection = looking.connection;
        let refused = |problem| Refused::by(looking.target, problem);
        let verdict = looking.wanted.conditions.judge(&found.validators, found.bytes);
        let (status, start, end) = match verdict {
            Verdict::Whole => (200, 0, found.bytes),
            Verdict::Part(start, end) => (206, start, end),
            Verdict::NotModified => (304, 0, 0),
            Verdict::Failed => {
                let refused = refused(Problem::PreconditionFailed);
                return self.refuse(connection, &looking.request_id, refused);
            }
            Verdict::NoSuchPart => {
                let refused = refused(Problem::RangeNotSatisfiable).with(Hint::Size(found.bytes));
                return self.refuse(connection, &looking.request_id, refused);
            }
        };
        let size = end - start;
        let is_head = looking.wanted.is_head;
        let lines = lines(&looking.folder, &found, status, start, end, is_head);
        let headers = lines.iter().map(|(name, value)| (*name, value.as_bytes()));
        if is_head || size == 0 {
            self.endpoint.respond(connection, status, headers, b"");
            return self.log_file(looking, status, 0);
        }
        let file = Arc::new(found.file);
        if let Ok(size) = usize::try_from(size)
            && size <= READ_BYTES
        {
            let mut body = vec![0; size];
            if matches!(read_at_hand(&file, start, &mut body), Ok(Some(read)) if read == size) {
                self.endpoint.respond(connection, status, headers, &body);
                return self.log_file(looking, status, size as u64);
            }
        }
        if !self.endpoint.can_stream() {
            return self.refuse(connection, &looking.request_id, refused(Problem::Overloaded));
        }
        if self.endpoint.begin_response(connection, status, headers, Some(size)).is_err() {
            return self.refuse(connection, &looking.request_id, refused(Problem::FileFailed));
        }
        self.log_file(looking, status, size);
        let slot = index(connection.slot());
        if self.files.sending.len() <= slot {
            self.files.sending.resize_with(slot + 1, || None);
        }
        let (read, is_reading) = (Vec::new(), false);
        let sending = Sending { connection, file, offset: start, end, read, is_reading };
        self.files.sending[slot] = Some(Box::new(sending));
        self.send_file(connection);
    }

    /// Sends as much of a file as there is room for.
    pub(super) fn send_file(&mut self, connection: ConnectionId) {
        loop {
            let Some(sending) = self.files.sending(connection) else { return };
            if sending.is_reading {
                return;
            }
            if sending.offset == sending.end {
                self.files.drop_sending(connection);
                self.endpoint.end_response(connection);
                return;
            }
            if !sending.read.is_empty() {
                match self.endpoint.write_response(connection, &sending.read) {
                    Written::Bytes(size) => {
                        sending.read.drain(..size);
                        sending.offset += size as u64;
                        self.assignment.stats.response_written(size as u64);
                        continue;
                    }
                    Written::Later => return,
                    Written::TooLong => return self.cut_file(connection),
                }
            }
            let (file, offset) = (&sending.file, sending.offset);
            let mut is_at_hand = true;
            let filled = self.endpoint.fill_response(connection, READ_BYTES, |room| {
                let read = read_at_hand(file, offset, room)?;
                is_at_hand = read.is_some();
                io::Result::Ok(read.unwrap_or(0))
            });
            match filled {
                Ok(Written::Later) => return,
                Ok(Written::Bytes(size)) if size > 0 => {
                    sending.offset += size as u64;
                    self.assignment.stats.response_written(size as u64);
                }
                Ok(_) if !is_at_hand => return self.read_by_thread(connection),
                // The file has become shorter, or cannot be read.
                _ => return self.cut_file(connection),
            }
        }
    }

    fn read_by_thread(&mut self, connection: ConnectionId) {
        let desk = Arc::clone(&self.files.desk);
        let Some(sending) = self.files.sending(connection) else { return };
        let left = usize::try_from(sending.end - sending.offset).unwrap_or(usize::MAX);
        let size = left.min(READ_BYTES);
        let task = Task::Read(connection, Arc::clone(&sending.file), sending.offset, size);
        sending.is_reading = true;
        self.assignment.stats.file_waits();
        // The deployment may have been replaced by one without folders; then nobody reads.
        let pool = self.assignment.deployment.pool.as_ref();
        if !pool.is_some_and(|pool| pool.ask(task, &desk)) {
            self.cut_file(connection);
        }
    }

    fn cut_file(&mut self, connection: ConnectionId) {
        self.files.drop_sending(connection);
        self.endpoint.abort(connection);
    }

    fn log_file(&self, looking: &Looking, status: u16, body_bytes: u64) {
        if !self.assignment.log.has_access() {
            return;
        }
        let access = Access {
            request_id: looking.request_id,
            wall_ns: wall_ns(),
            function: looking.target,
            method: if looking.wanted.is_head { Method::Head } else { Method::Get },
            status,
            problem: None,
            tier: None,
            body_bytes,
            service_ns: 0,
        };
        self.assignment.log.access(&self.assignment.stats, access);
    }
}

/// Returns the header lines of a file, or of a part of it; their length is the endpoint's to tell where there is
/// a body.
fn lines(
    folder: &Folder,
    found: &Found,
    status: u16,
    start: u64,
    end: u64,
    is_head: bool,
) -> Vec<(&'static [u8], String)> {
    let mut lines: Vec<(&'static [u8], String)> = Vec::with_capacity(9);
    lines.push((b"etag", found.validators.tag.clone()));
    lines.push((b"last-modified", httpdate::fmt_http_date(found.validators.modified)));
    if let Some(value) = &folder.cache_control {
        lines.push((b"cache-control", value.clone()));
    }
    if folder.varies() {
        lines.push((b"vary", "accept-encoding".into()));
    }
    if status == 304 {
        return lines;
    }
    lines.push((b"accept-ranges", "bytes".into()));
    lines.push((b"content-type", found.content_type.clone()));
    if let Some(encoding) = found.encoding {
        lines.push((b"content-encoding", encoding.name().into()));
    }
    if status == 206 {
        lines.push((b"content-range", format!("bytes {start}-{}/{}", end - 1, found.bytes)));
    }
    if is_head {
        lines.push((b"content-length", (end - start).to_string()));
    }
    lines
}
