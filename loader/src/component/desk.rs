//! What a component's call wants from its embedder, collected while the component runs.
//!
//! ```text
//!   futures of the guest and of its bodies        drive.rs
//!   ask, wait, until --> Ticket                   takes what is wanted, in one place and one after the other,
//!        ^                                        by the asks that every call has (`wait.rs`)
//!        +---- reply, ready, woken -------------- tells what became of it
//! ```
//!
//! A component's runtime polls many things at once, and an embedder is asked for one at a time. Here the first becomes
//! the second.
//!
//! Invariant: all of it happens on one thread; the lock is there because the engine wants its host's data to be
//! `Send`, and is never contended.

use std::collections::{BTreeMap, VecDeque};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use midge_abi::fetch::{WAIT_ROWS_MAX, WaitFor};
use midge_abi::width::index;

use super::fetch::Asked;
use super::staging::PIECE_BYTES;

/// Something that the embedder does at once.
pub(super) enum Operation {
    /// To send a request to another server. What follows is of one.
    Fetch(Box<Asked>),
    FetchWrite(u32, Bytes),
    /// With what stands behind the body.
    FetchFinish(u32, http::HeaderMap),
    FetchHead(u32),
    FetchRead(u32),
    FetchClose(u32),
    /// To read what came behind a body: of a response, or for 0 of the request.
    Trailers(u32),
}

/// What became of it: the import's answer, and what was read.
#[derive(Debug, Default, Clone)]
pub(super) struct Reply {
    pub(super) code: i32,
    pub(super) bytes: Bytes,
}

/// What a ticket waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Want {
    /// The answer of an operation.
    Answer,
    /// More of the request's body, or its end.
    Body,
    /// Something of a request to another server.
    Row(WaitFor, u32),
    /// A time, by the clock of [`super::clock`].
    Time(u64),
}

/// The response, on its way out.
#[derive(Debug, Default)]
pub(super) struct Output {
    /// Until it is sent.
    pub(super) head: Option<(u16, http::HeaderMap)>,
    /// There is one.
    pub(super) is_set: bool,
    pieces: VecDeque<Bytes>,
    bytes: usize,
    /// What stands behind its body.
    pub(super) trailers: http::HeaderMap,
    /// All of it is there.
    pub(super) is_whole: bool,
    /// It breaks off, or never was one: why.
    pub(super) failure: Option<String>,
    room: Option<Waker>,
}

#[derive(Default)]
struct State {
    last: u64,
    operations: VecDeque<(u64, Operation)>,
    wanted: BTreeMap<u64, (Want, Waker)>,
    replies: BTreeMap<u64, Reply>,
    output: Output,
}

/// The desk, as all who stand at it have it.
#[derive(Clone, Default)]
pub(super) struct Desk(Arc<Mutex<State>>);

/// A place in the queue. Dropped, nothing waits for it any more.
pub(super) struct Ticket {
    desk: Desk,
    number: u64,
    want: Want,
}

impl Desk {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn ticket(&self, want: Want) -> Ticket {
        let mut state = self.state();
        state.last += 1;
        Ticket { desk: self.clone(), number: state.last, want }
    }

    /// Asks for something that is done at once.
    pub(super) fn ask(&self, operation: Operation) -> Ticket {
        let ticket = self.ticket(Want::Answer);
        self.state().operations.push_back((ticket.number, operation));
        ticket
    }

    /// Asks for something whose answer nobody waits for.
    pub(super) fn order(&self, operation: Operation) {
        self.state().operations.push_back((0, operation));
    }

    /// Reads on in the request's body; nothing is its end.
    pub(super) fn body(&self) -> Ticket {
        self.ticket(Want::Body)
    }

    /// Waits for something of a request to another server.
    pub(super) fn wait(&self, what: WaitFor, handle: u32) -> Ticket {
        self.ticket(Want::Row(what, handle))
    }

    /// Waits for a time.
    pub(super) fn until(&self, ns: u64) -> Ticket {
        self.ticket(Want::Time(ns))
    }

    // The response, from the side of the component.

    pub(super) fn begin_output(&self, status: u16, headers: http::HeaderMap) {
        let output = &mut self.state().output;
        output.head = Some((status, headers));
        output.is_set = true;
    }

    /// Waits until there is room for more of the response.
    pub(super) async fn room(&self) {
        std::future::poll_fn(|context| {
            let output = &mut self.state().output;
            if output.has_room() {
                return Poll::Ready(());
            }
            output.room = Some(context.waker().clone());
            Poll::Pending
        })
        .await;
    }

    pub(super) fn push_output(&self, piece: Bytes) {
        let output = &mut self.state().output;
        output.bytes += piece.len();
        output.pieces.push_back(piece);
    }

    pub(super) fn end_output(&self, trailers: http::HeaderMap) {
        let output = &mut self.state().output;
        output.trailers = trailers;
        output.is_whole = true;
    }

    pub(super) fn fail_output(&self, why: String) {
        self.state().output.failure = Some(why);
    }

    // The side of the embedder.

    /// Looks at the response.
    pub(super) fn with_output<R>(&self, look: impl FnOnce(&mut Output) -> R) -> R {
        look(&mut self.state().output)
    }

    /// Takes the next operation, with the number that its answer goes to.
    pub(super) fn next_operation(&self) -> Option<(u64, Operation)> {
        self.state().operations.pop_front()
    }

    /// Answers an operation.
    pub(super) fn reply(&self, number: u64, reply: Reply) {
        let mut state = self.state();
        if let Some((_, waker)) = state.wanted.remove(&number) {
            state.replies.insert(number, reply);
            drop(state);
            waker.wake();
        }
    }

    /// True if somebody reads the request's body.
    pub(super) fn wants_body(&self) -> bool {
        self.state().wanted.values().any(|(want, _)| *want == Want::Body)
    }

    /// Returns what is waited for of requests to other servers, each once, and no more than may be.
    pub(super) fn rows(&self) -> Vec<(WaitFor, u32)> {
        let mut rows = Vec::new();
        for (want, _) in self.state().wanted.values() {
            if let Want::Row(what, handle) = *want
                && !rows.contains(&(what, handle))
                && rows.len() < index(WAIT_ROWS_MAX) - 1
            {
                rows.push((what, handle));
            }
        }
        rows
    }

    /// Returns the earliest time that is waited for.
    pub(super) fn next_time(&self) -> Option<u64> {
        let time = |(want, _): &(Want, Waker)| match *want {
            Want::Time(ns) => Some(ns),
            _ => None,
        };
        self.state().wanted.values().filter_map(time).min()
    }

    /// Hands out a piece of the body: the first who waits for it gets it.
    pub(super) fn body_came(&self, bytes: Bytes) {
        let number = {
            let state = self.state();
            let mut wanted = state.wanted.iter();
            wanted.find(|(_, (want, _))| *want == Want::Body).map(|(number, _)| *number)
        };
        if let Some(number) = number {
            self.reply(number, Reply { code: 0, bytes });
        }
    }

    /// Something has become ready.
    pub(super) fn row_came(&self, what: WaitFor, handle: u32) {
        self.came(|want| want == Want::Row(what, handle));
    }

    /// It is so late now.
    pub(super) fn time_came(&self, now_ns: u64) {
        self.came(|want| matches!(want, Want::Time(ns) if ns <= now_ns));
    }

    fn came(&self, is_meant: impl Fn(Want) -> bool) {
        let meant: Vec<u64> = {
            let state = self.state();
            let wanted = state.wanted.iter().filter(|(_, (want, _))| is_meant(*want));
            wanted.map(|(number, _)| *number).collect()
        };
        for number in meant {
            self.reply(number, Reply::default());
        }
    }
}

impl Output {
    /// Bytes that wait to go out.
    pub(super) const fn bytes(&self) -> usize {
        self.bytes
    }

    /// True if its head is on its way.
    pub(super) const fn is_begun(&self) -> bool {
        self.is_set && self.head.is_none()
    }

    /// True if more of it may be pushed.
    pub(super) const fn has_room(&self) -> bool {
        self.bytes < PIECE_BYTES
    }

    /// Takes as much as one piece holds.
    pub(super) fn take_piece(&mut self) -> Vec<u8> {
        let mut piece = Vec::with_capacity(self.bytes.min(PIECE_BYTES));
        while let Some(front) = self.pieces.front_mut() {
            let size = front.len().min(PIECE_BYTES - piece.len());
            piece.extend_from_slice(&front.split_to(size));
            if !front.is_empty() {
                break;
            }
            self.pieces.pop_front();
        }
        self.bytes -= piece.len();
        if let Some(waker) = self.room.take() {
            waker.wake();
        }
        piece
    }
}

impl Future for Ticket {
    type Output = Reply;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Reply> {
        let mut state = self.desk.state();
        if let Some(reply) = state.replies.remove(&self.number) {
            return Poll::Ready(reply);
        }
        state.wanted.insert(self.number, (self.want, context.waker().clone()));
        Poll::Pending
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        let mut state = self.desk.state();
        state.wanted.remove(&self.number);
        state.replies.remove(&self.number);
        let operation = state.operations.iter().position(|(number, _)| *number == self.number);
        // A request that was not sent yet is not wanted any more. One that was sent is closed with the call.
        if let Some(position) = operation
            && matches!(state.operations[position].1, Operation::Fetch(_))
        {
            state.operations.remove(position);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn poll(ticket: &mut Ticket) -> Poll<Reply> {
        Pin::new(ticket).poll(&mut Context::from_waker(Waker::noop()))
    }

    #[test]
    fn each_answer_goes_to_who_asked() {
        let desk = Desk::default();
        let mut first = desk.ask(Operation::FetchHead(1));
        let mut second = desk.ask(Operation::FetchHead(2));
        assert!(poll(&mut first).is_pending() && poll(&mut second).is_pending());
        for code in [10, 20] {
            let (number, _) = desk.next_operation().unwrap();
            desk.reply(number, Reply { code, ..Reply::default() });
        }
        assert!(matches!(poll(&mut second), Poll::Ready(Reply { code: 20, .. })));
        assert!(matches!(poll(&mut first), Poll::Ready(Reply { code: 10, .. })));
        assert!(desk.state().wanted.is_empty() && desk.state().replies.is_empty());
    }

    #[test]
    fn who_has_gone_is_forgotten() {
        let desk = Desk::default();
        let mut body = desk.body();
        let mut time = desk.until(7);
        assert!(poll(&mut body).is_pending() && poll(&mut time).is_pending());
        assert!(desk.wants_body());
        assert_eq!(desk.next_time(), Some(7));
        drop(body);
        assert!(!desk.wants_body());
        desk.time_came(6);
        assert!(poll(&mut time).is_pending());
        desk.time_came(7);
        drop(time);
        assert!(desk.state().replies.is_empty());
    }

    #[test]
    fn a_response_comes_out_in_pieces() {
        let desk = Desk::default();
        let long = Bytes::from(vec![1; PIECE_BYTES + 5]);
        desk.push_output(long);
        desk.push_output(Bytes::from_static(b"end"));
        let mut room = Box::pin(desk.room());
        let mut context = Context::from_waker(Waker::noop());
        assert!(room.as_mut().poll(&mut context).is_pending());
        assert_eq!(desk.with_output(Output::take_piece).len(), PIECE_BYTES);
        assert!(room.as_mut().poll(&mut context).is_ready());
        assert_eq!(desk.with_output(Output::take_piece), [1, 1, 1, 1, 1, b'e', b'n', b'd']);
        assert_eq!(desk.with_output(|output| output.bytes()), 0);
    }
}
