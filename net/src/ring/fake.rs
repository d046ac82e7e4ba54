//! A ring without a kernel: tests say what the kernel would have done, in any order it could have.
//!
//! Operations are noted; completions are what a test put in. Checks what the real ring asserts: one send of a
//! connection at a time, buffers used only while lent and given back once, nothing pushed for a closed slot.

use std::cell::Cell;
use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::time::Duration;

use super::{BufferId, Completed, Completion, ConnectionId, Operation, Ring, Wait};
use crate::clock::Clock;

const BUFFER_SIZE: usize = 256;

/// See the file's head.
#[derive(Debug)]
pub(crate) struct FakeRing {
    /// What was pushed and not looked at by the test yet.
    pub(crate) pushed: Vec<Operation>,
    completions: VecDeque<Completion>,
    buffers: Vec<Option<[u8; BUFFER_SIZE]>>,
    outputs: Vec<Option<Vec<u8>>>,
    timeout: Option<Duration>,
    is_polled: bool,
}

impl FakeRing {
    pub(crate) fn new(buffers: usize, slots: usize) -> Self {
        Self {
            pushed: Vec::new(),
            completions: VecDeque::new(),
            buffers: vec![None; buffers],
            outputs: vec![None; slots],
            timeout: None,
            is_polled: false,
        }
    }

    /// Completes an operation.
    pub(crate) fn complete(
        &mut self,
        completed: Completed,
        id: ConnectionId,
        result: i32,
        more: More,
    ) {
        let has_more = more == More::Follows;
        self.completions.push_back(Completion { completed, id, result, buffer: None, has_more });
    }

    /// Completes a receive with bytes; false if no buffer is free.
    pub(crate) fn deliver(&mut self, id: ConnectionId, bytes: &[u8], more: More) -> bool {
        let Some(free) = self.buffers.iter().position(Option::is_none) else { return false };
        let mut buffer = [0; BUFFER_SIZE];
        buffer[..bytes.len()].copy_from_slice(bytes);
        self.buffers[free] = Some(buffer);
        self.completions.push_back(Completion {
            completed: Completed::Receive,
            id,
            result: i32::try_from(bytes.len()).expect("pieces are small"),
            buffer: Some(BufferId(u16::try_from(free).expect("buffers are few"))),
            has_more: more == More::Follows,
        });
        true
    }

    /// Buffers that the endpoint holds, or that wait in completions.
    pub(crate) fn lent_count(&self) -> usize {
        self.buffers.iter().flatten().count()
    }

    /// What is being sent on a slot.
    pub(crate) fn sending(&self, id: ConnectionId) -> Option<&[u8]> {
        self.outputs[id.slot() as usize].as_deref()
    }

    /// Takes what was pushed.
    pub(crate) fn take_pushed(&mut self) -> Vec<Operation> {
        std::mem::take(&mut self.pushed)
    }

    /// How long the last turn would have slept.
    pub(crate) fn timeout(&self) -> Option<Duration> {
        self.timeout
    }

    /// Whether the last turn would not have slept at all.
    pub(crate) fn is_polled(&self) -> bool {
        self.is_polled
    }
}

/// Whether an operation completes again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum More {
    Follows,
    Last,
}

impl Ring for FakeRing {
    fn listen(&mut self, _listener: socket2::Socket) {}

    fn unlisten(&mut self) {}

    fn watch(&mut self, _event: OwnedFd) {}

    fn push(&mut self, operation: Operation) {
        if let Operation::Send { id, output, offset, is_last } = operation {
            let place = &mut self.outputs[id.slot() as usize];
            assert!(place.is_none(), "one send of a connection is under way at a time");
            assert!(offset < output.len(), "there is something to send");
            *place = Some(output.clone());
            self.pushed.push(Operation::Send { id, output, offset, is_last });
        } else {
            self.pushed.push(operation);
        }
    }

    fn enter(&mut self, wait: Wait, timeout: Option<Duration>) -> io::Result<()> {
        self.timeout = timeout;
        self.is_polled = wait == Wait::Poll;
        Ok(())
    }

    fn next_completion(&mut self) -> Option<Completion> {
        self.completions.pop_front()
    }

    fn has_completion(&mut self) -> bool {
        !self.completions.is_empty()
    }

    fn bytes(&self, buffer: BufferId) -> &[u8] {
        self.buffers[usize::from(buffer.0)].as_ref().expect("a buffer is read while it is lent")
    }

    fn bytes_mut(&mut self, buffer: BufferId) -> &mut [u8] {
        self.buffers[usize::from(buffer.0)].as_mut().expect("a buffer is read while it is lent")
    }

    fn recycle(&mut self, buffer: BufferId) {
        let place = &mut self.buffers[usize::from(buffer.0)];
        assert!(place.take().is_some(), "a buffer is given back once");
    }

    fn reclaim(&mut self, id: ConnectionId) -> Vec<u8> {
        self.outputs[id.slot() as usize].take().expect("a send was under way")
    }

    fn peer(&mut self, _completion: Completion) -> Option<SocketAddr> {
        None
    }

    fn adopt(&mut self, _id: ConnectionId, _socket: OwnedFd) -> io::Result<()> {
        Ok(())
    }

    fn enters(&self) -> u64 {
        0
    }
}

/// A clock that a test sets.
#[derive(Debug, Clone, Default)]
pub(crate) struct FakeClock(Rc<Cell<Duration>>);

impl FakeClock {
    pub(crate) fn pass(&self, time: Duration) {
        self.0.set(self.0.get() + time);
    }
}

impl Clock for FakeClock {
    fn elapsed(&mut self) -> Duration {
        self.0.get()
    }

    fn unix_seconds(&mut self) -> u64 {
        self.0.get().as_secs()
    }
}
