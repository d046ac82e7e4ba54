//! What a call waits for: a word between an import and whoever drives the instance.
//!
//! ```text
//!   guest          import                  driver                    embedder
//!   body_read -->  ask, pending  ------->  Progress::Waiting  ---->  looks at the ask, copies bytes to or
//!             <--  value         <-------  polls             <----  from the guest's memory, answers
//! ```
//!
//! The bytes go from the embedder's buffer to the guest's memory and back without a stop between: the guest
//! stands still while it waits, so its memory may be looked at and written.
//!
//! Invariant: an ask is set by an import alone and taken by its answer alone; both happen on one thread. The
//! atomics are there because the engine wants its host's data to be `Send`; none is ever contended.

use std::sync::atomic::{
    AtomicI64, AtomicU8, AtomicU32, AtomicU64, AtomicUsize, Ordering::Relaxed,
};

use midge_abi::response::GuestRange;

/// What a call waits for. Regions lie inside the memory: that was checked.
#[derive(Debug, Clone, Copy)]
pub enum Ask {
    /// More of the request's body, into this region. Answered by its size, 0 for the end.
    Read(GuestRange),
    /// The head of its response, described by the record at this address, is to be sent.
    Start(u32),
    /// This piece of its response is to be sent.
    Write(GuestRange),
    /// So many nanoseconds to pass.
    Sleep(u64),
    /// A request of its own, described by the record at this address. Those that follow are of a handle; answers
    /// are those of the imports (`midge_abi::fetch`).
    Fetch(u32),
    /// A piece of its body to be sent.
    FetchWrite(u32, GuestRange),
    /// Its body to be ended.
    FetchFinish(u32),
    /// The head of its response, into this region.
    FetchHead(u32, GuestRange),
    /// More of the body of its response, into this region.
    FetchRead(u32, GuestRange),
    /// To have no more to do with it.
    FetchClose(u32),
    /// One of the rows in this region, or so many nanoseconds to pass.
    Wait(GuestRange, u64),
    /// What came behind the body of a response, or for 0 of the request, into this region.
    TrailersRead(u32, GuestRange),
    /// The body of a request, or for 0 of the response, to be ended with these rows behind it.
    TrailersWrite(u32, GuestRange),
}

/// Why an ask is refused: the guest traps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[repr(u8)]
pub enum AskFault {
    /// A second start.
    #[error("`response_start` was called twice for one request")]
    StartedTwice = 1,
    /// A record that breaks the contract.
    #[error("`response_start` was given a record that breaks the contract")]
    Record = 2,
    /// A piece without a head.
    #[error("`response_write` or `trailers_write` was called before `response_start`")]
    NotStarted = 3,
    /// More bytes than the head announced.
    #[error("`response_write` was given more than the response's `content-length`")]
    TooLong = 4,
    /// The machine is out of mappings or memory.
    #[error("the machine refused to make a page writable")]
    Exhausted = 5,
    /// A record of a request that breaks the contract.
    #[error("`fetch` was given a record that breaks the contract")]
    FetchRecord = 6,
    /// A handle that names no request of this call.
    #[error("an import was given the handle of no request")]
    Handle = 7,
    /// Rows that break the contract.
    #[error("`wait` was given rows that break the contract")]
    Rows = 8,
    /// Rows of fields that break the contract.
    #[error("`trailers_write` was given rows that break the contract")]
    Trailers = 9,
    /// More of a response whose body was ended.
    #[error("the response was written to after `trailers_write` had ended it")]
    Ended = 10,
}

impl AskFault {
    const ALL: [Self; 10] = [
        Self::StartedTwice,
        Self::Record,
        Self::NotStarted,
        Self::TooLong,
        Self::Exhausted,
        Self::FetchRecord,
        Self::Handle,
        Self::Rows,
        Self::Trailers,
        Self::Ended,
    ];

    fn from_code(code: i64) -> Option<Self> {
        Self::ALL.into_iter().find(|fault| -i64::from(*fault as u8) == code)
    }
}

const NOTHING: u8 = 0;
const READ: u8 = 1;
const START: u8 = 2;
const WRITE: u8 = 3;
const SLEEP: u8 = 4;
const FETCH: u8 = 5;
const FETCH_WRITE: u8 = 6;
const FETCH_FINISH: u8 = 7;
const FETCH_HEAD: u8 = 8;
const FETCH_READ: u8 = 9;
const FETCH_CLOSE: u8 = 10;
const WAIT: u8 = 11;
const TRAILERS_READ: u8 = 12;
const TRAILERS_WRITE: u8 = 13;

/// No answer yet.
const UNANSWERED: i64 = i64::MIN;

/// Where an ask and its answer lie. Made for instances whose module may wait.
#[derive(Debug, Default)]
pub(crate) struct AskCell {
    kind: AtomicU8,
    address: AtomicU32,
    size: AtomicU32,
    /// A time, or a handle.
    number: AtomicU64,
    /// Size of the first memory when the ask was made.
    memory_bytes: AtomicUsize,
    answer: AtomicI64,
}

impl AskCell {
    /// Leaves an ask.
    pub(crate) fn set(&self, ask: Ask, memory_bytes: usize) {
        let none = GuestRange { address: 0, size: 0 };
        let at = |address| GuestRange { address, size: 0 };
        let (kind, region, number) = match ask {
            Ask::Read(region) => (READ, region, 0),
            Ask::Start(record) => (START, at(record), 0),
            Ask::Write(region) => (WRITE, region, 0),
            Ask::Sleep(ns) => (SLEEP, none, ns),
            Ask::Fetch(record) => (FETCH, at(record), 0),
            Ask::FetchWrite(handle, region) => (FETCH_WRITE, region, handle.into()),
            Ask::FetchFinish(handle) => (FETCH_FINISH, none, handle.into()),
            Ask::FetchHead(handle, region) => (FETCH_HEAD, region, handle.into()),
            Ask::FetchRead(handle, region) => (FETCH_READ, region, handle.into()),
            Ask::FetchClose(handle) => (FETCH_CLOSE, none, handle.into()),
            Ask::Wait(rows, ns) => (WAIT, rows, ns),
            Ask::TrailersRead(handle, region) => (TRAILERS_READ, region, handle.into()),
            Ask::TrailersWrite(handle, rows) => (TRAILERS_WRITE, rows, handle.into()),
        };
        self.address.store(region.address, Relaxed);
        self.size.store(region.size, Relaxed);
        self.number.store(number, Relaxed);
        self.memory_bytes.store(memory_bytes, Relaxed);
        self.answer.store(UNANSWERED, Relaxed);
        self.kind.store(kind, Relaxed);
    }

    /// Returns the ask that waits for its answer, and the size of the first memory.
    pub(crate) fn get(&self) -> Option<(Ask, usize)> {
        let region =
            GuestRange { address: self.address.load(Relaxed), size: self.size.load(Relaxed) };
        let number = self.number.load(Relaxed);
        let handle = u32::try_from(number).unwrap_or(u32::MAX);
        let ask = match self.kind.load(Relaxed) {
            READ => Ask::Read(region),
            START => Ask::Start(region.address),
            WRITE => Ask::Write(region),
            SLEEP => Ask::Sleep(number),
            FETCH => Ask::Fetch(region.address),
            FETCH_WRITE => Ask::FetchWrite(handle, region),
            FETCH_FINISH => Ask::FetchFinish(handle),
            FETCH_HEAD => Ask::FetchHead(handle, region),
            FETCH_READ => Ask::FetchRead(handle, region),
            FETCH_CLOSE => Ask::FetchClose(handle),
            WAIT => Ask::Wait(region, number),
            TRAILERS_READ => Ask::TrailersRead(handle, region),
            TRAILERS_WRITE => Ask::TrailersWrite(handle, region),
            _ => return None,
        };
        Some((ask, self.memory_bytes.load(Relaxed)))
    }

    /// Answers the ask.
    pub(crate) fn answer(&self, answer: Result<u32, AskFault>) {
        let code = match answer {
            Ok(value) => i64::from(value),
            Err(fault) => -i64::from(fault as u8),
        };
        self.kind.store(NOTHING, Relaxed);
        self.answer.store(code, Relaxed);
    }

    /// Returns the answer, once.
    pub(crate) fn take_answer(&self) -> Option<Result<u32, AskFault>> {
        let code = self.answer.load(Relaxed);
        if code == UNANSWERED || self.kind.load(Relaxed) != NOTHING {
            return None;
        }
        self.answer.store(UNANSWERED, Relaxed);
        match u32::try_from(code) {
            Ok(value) => Some(Ok(value)),
            Err(_) => AskFault::from_code(code).map(Err),
        }
    }

    /// Forgets what an earlier call left.
    pub(crate) fn clear(&self) {
        self.kind.store(NOTHING, Relaxed);
        self.answer.store(UNANSWERED, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ask_is_answered_once() {
        let cell = AskCell::default();
        cell.clear();
        assert!(cell.get().is_none());
        cell.set(Ask::Read(GuestRange { address: 16, size: 4 }), 65536);
        assert!(matches!(
            cell.get(),
            Some((Ask::Read(GuestRange { address: 16, size: 4 }), 65536))
        ));
        assert!(cell.take_answer().is_none());
        cell.answer(Ok(3));
        assert!(cell.get().is_none());
        assert_eq!(cell.take_answer(), Some(Ok(3)));
        assert!(cell.take_answer().is_none());
    }

    #[test]
    fn every_fault_reaches_the_guest() {
        let cell = AskCell::default();
        for fault in AskFault::ALL {
            cell.set(Ask::Start(1), 0);
            cell.answer(Err(fault));
            assert_eq!(cell.take_answer(), Some(Err(fault)));
        }
    }
}
