//! A streamed exchange from memory: for embedders that have the whole body, and want the whole response.
//!
//! Not here: time. A call that sleeps goes on at once.

use midge_abi::contract::HEADER_SIZE;
use midge_abi::fetch::{self, WaitFor};
use midge_abi::response::{GuestRange, Response, Trailers};
use midge_abi::width::index;

use crate::slot::{Progress, Waiting};
use crate::wait::{Ask, AskFault};

/// A response that a guest wrote piece by piece.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Written {
    /// Its status.
    pub status: u16,
    /// Its headers.
    pub headers: Fields,
    /// All pieces of its body.
    pub body: Vec<u8>,
    /// The fields behind it, if the guest ended it with some.
    pub trailers: Option<Fields>,
}

/// Names and values.
pub type Fields = Vec<(Vec<u8>, Vec<u8>)>;

/// Answers what one call waits for.
#[derive(Debug)]
pub struct Collector<'a> {
    unread: &'a [u8],
    trailers: &'a [(Vec<u8>, Vec<u8>)],
    response_bytes_max: usize,
    written: Option<Written>,
    slept_ns: u64,
}

impl<'a> Collector<'a> {
    /// Makes one for a request: `unread` is what its block doesn't have of its body.
    #[must_use]
    pub const fn new(unread: &'a [u8], response_bytes_max: usize) -> Self {
        Self { unread, trailers: &[], response_bytes_max, written: None, slept_ns: 0 }
    }

    /// Puts these fields behind the request's body.
    #[must_use]
    pub fn with_trailers(self, trailers: &'a [(Vec<u8>, Vec<u8>)]) -> Self {
        Self { trailers, ..self }
    }

    /// Answers, and lets the call go on.
    #[must_use]
    pub fn answer(&mut self, mut waiting: Waiting) -> Progress {
        let answer = match waiting.ask() {
            Ask::Read(region) => {
                let size = index(region.size).min(self.unread.len());
                match waiting.region(region, size) {
                    Some(target) => {
                        let (piece, rest) = self.unread.split_at(size);
                        target.copy_from_slice(piece);
                        self.unread = rest;
                        Ok(midge_abi::width::wire(size))
                    }
                    None => Err(AskFault::Exhausted),
                }
            }
            Ask::Start(record) => self.start(waiting.memory(), record),
            Ask::Write(region) => {
                let range = region.within(waiting.memory().len());
                let piece = range.map_or(&[][..], |range| &waiting.memory()[range]);
                self.write(piece)
            }
            Ask::Sleep(ns) => {
                self.slept_ns = self.slept_ns.saturating_add(ns);
                Ok(0)
            }
            // There is no network here: it is as if nothing was granted.
            Ask::Fetch(_) => Ok((fetch::ERRORS_FROM - i32::from(fetch::DENIED)).cast_unsigned()),
            Ask::TrailersRead(0, region) => self.read_trailers(&mut waiting, region),
            Ask::TrailersWrite(0, rows) => self.write_trailers(waiting.memory(), rows),
            Ask::TrailersRead(..)
            | Ask::TrailersWrite(..)
            | Ask::FetchWrite(..)
            | Ask::FetchFinish(_)
            | Ask::FetchHead(..)
            | Ask::FetchRead(..)
            | Ask::FetchClose(_) => Err(AskFault::Handle),
            Ask::Wait(rows, ns) => self.wait(&mut waiting, rows, ns),
        };
        waiting.answer(answer)
    }

    /// Runs a call to its end.
    #[must_use]
    pub fn run(&mut self, mut progress: Progress) -> crate::slot::Used {
        loop {
            progress = match progress {
                Progress::Done(used) => return used,
                Progress::Suspended(running) => running.resume(),
                Progress::Waiting(waiting) => self.answer(waiting),
            };
        }
    }

    /// Returns what was written, if a response was started.
    #[must_use]
    pub fn into_written(self) -> Option<Written> {
        self.written
    }

    /// Returns what was written so far.
    #[must_use]
    pub const fn written(&self) -> Option<&Written> {
        self.written.as_ref()
    }

    /// Returns how long the call wanted to rest.
    #[must_use]
    pub const fn slept_ns(&self) -> u64 {
        self.slept_ns
    }

    /// The body is there, and time goes by at once.
    fn wait(&mut self, waiting: &mut Waiting, rows: GuestRange, ns: u64) -> Result<u32, AskFault> {
        if rows.size == 0 {
            self.slept_ns = self.slept_ns.saturating_add(ns);
            return Ok(0);
        }
        let region = waiting.region(rows, index(rows.size)).ok_or(AskFault::Exhausted)?;
        for row in region.chunks_exact_mut(fetch::WAIT_ROW_SIZE) {
            let kind = u16::from_le_bytes([row[0], row[1]]);
            match WaitFor::from_code(kind) {
                Some(WaitFor::Body) => row[2..4].copy_from_slice(&[1, 0]),
                Some(_) => return Err(AskFault::Handle),
                None => return Err(AskFault::Rows),
            }
        }
        Ok(rows.size / midge_abi::width::wire(fetch::WAIT_ROW_SIZE))
    }

    fn start(&mut self, memory: &[u8], record: u32) -> Result<u32, AskFault> {
        if self.written.is_some() {
            return Err(AskFault::StartedTwice);
        }
        let Ok((response, _)) = Response::read_start(memory, record, self.response_bytes_max)
        else {
            return Err(AskFault::Record);
        };
        let headers = response.headers();
        self.written = Some(Written {
            status: response.status(),
            headers: headers.map(|(name, value)| (name.to_vec(), value.to_vec())).collect(),
            body: response.body().to_vec(),
            trailers: None,
        });
        Ok(0)
    }

    fn read_trailers(&self, waiting: &mut Waiting, region: GuestRange) -> Result<u32, AskFault> {
        if !self.unread.is_empty() {
            return Ok(fetch::LATER.cast_unsigned());
        }
        let fields = self.trailers.iter().map(|(name, value)| (&name[..], &value[..]));
        write_fields(waiting, region, fields)
    }

    fn write_trailers(&mut self, memory: &[u8], rows: GuestRange) -> Result<u32, AskFault> {
        let count = rows.size / midge_abi::width::wire(HEADER_SIZE);
        let trailers =
            Trailers::read(memory, rows.address, count).map_err(|_| AskFault::Trailers)?;
        let written = self.written.as_mut().ok_or(AskFault::NotStarted)?;
        if written.trailers.is_some() {
            return Err(AskFault::Ended);
        }
        // As on the wire: a length that was told leaves no place for them.
        let is_length =
            |(name, _): &(Vec<u8>, Vec<u8>)| name.eq_ignore_ascii_case(b"content-length");
        let is_told = written.headers.iter().any(is_length);
        let trailers = trailers.rows().filter(|_| !is_told);
        let trailers = trailers.map(|(name, value)| (name.to_vec(), value.to_vec()));
        written.trailers = Some(trailers.collect());
        Ok(0)
    }

    fn write(&mut self, piece: &[u8]) -> Result<u32, AskFault> {
        let written = self.written.as_mut().ok_or(AskFault::NotStarted)?;
        if written.trailers.is_some() {
            return Err(AskFault::Ended);
        }
        if self.response_bytes_max - written.body.len().min(self.response_bytes_max) < piece.len() {
            return Err(AskFault::TooLong);
        }
        written.body.extend_from_slice(piece);
        Ok(0)
    }
}

/// Writes fields that came behind a body into a guest's region. Returns what `trailers_read` does.
///
/// # Errors
/// If the machine refuses the region's pages.
pub fn write_fields<'f>(
    waiting: &mut Waiting,
    region: GuestRange,
    fields: impl ExactSizeIterator<Item = (&'f [u8], &'f [u8])> + Clone,
) -> Result<u32, AskFault> {
    if fields.len() == 0 {
        return Ok(0);
    }
    write_head(waiting, region, 0, fields)
}

/// Writes the head of a response into a guest's region. Returns what `fetch_head` does.
///
/// # Errors
/// If the machine refuses the region's pages.
pub fn write_head<'f>(
    waiting: &mut Waiting,
    region: GuestRange,
    status: u16,
    fields: impl ExactSizeIterator<Item = (&'f [u8], &'f [u8])> + Clone,
) -> Result<u32, AskFault> {
    let size = fetch::head_size(fields.clone());
    if size > index(region.size) {
        return Ok((fetch::ERRORS_FROM - i32::from(fetch::HEAD_TOO_LONG)).cast_unsigned());
    }
    let target = waiting.region(region, size).ok_or(AskFault::Exhausted)?;
    let written = fetch::write_head(target, status, fields).expect("it was measured");
    Ok(midge_abi::width::wire(written))
}
