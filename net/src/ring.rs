//! What the endpoint asks of a ring, and the ids that travel through it.
//!
//! A ring owns all memory that the kernel may touch: receive buffers are lent out by id and given back;
//! bytes to send are moved in and come back when their completion has arrived. So the endpoint needs no
//! unsafe code, and a ring without a kernel can take the real one's place in tests.

use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::time::Duration;

#[cfg(any(test, fuzzing))]
#[cfg_attr(not(test), expect(dead_code, reason = "a fuzzer uses a part of it"))]
pub(crate) mod fake; // completions by hand
#[cfg(any(test, fuzzing))]
#[cfg_attr(not(test), expect(dead_code, reason = "a fuzzer uses a part of it"))]
pub(crate) mod sim; // a kernel from a seed

/// Names a connection of one endpoint. A slot that is used again gets another generation, so an id that was
/// kept too long names nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ConnectionId {
    slot: u32,
    generation: u32,
}

/// Bits of a generation: what a completion's user data has left besides slot and operation. A slot must be
/// reused 16 million times before an id repeats.
const GENERATION_BITS: u32 = 24;

const GENERATION_MASK: u32 = (1 << GENERATION_BITS) - 1;

impl ConnectionId {
    pub(crate) const fn new(slot: u32, generation: u32) -> Self {
        Self { slot, generation: generation & GENERATION_MASK }
    }

    /// Returns the id of this slot's next connection.
    #[must_use]
    pub const fn next(self) -> Self {
        Self::new(self.slot, self.generation.wrapping_add(1))
    }

    /// Returns the slot, below the number of connections.
    #[inline]
    #[must_use]
    pub const fn slot(self) -> u32 {
        self.slot
    }

    pub(crate) const fn generation(self) -> u32 {
        self.generation
    }

    /// Packs the id into 56 bits.
    #[inline]
    #[must_use]
    pub const fn to_u64(self) -> u64 {
        ((self.generation as u64) << 32) | self.slot as u64
    }

    /// Unpacks what [`ConnectionId::to_u64`] packed.
    #[inline]
    #[must_use]
    pub const fn from_u64(packed: u64) -> Self {
        Self::new(crate::width::low(packed), crate::width::low(packed >> 32))
    }
}

/// Names a receive buffer while it is lent out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BufferId(pub(crate) u16);

/// Whether a turn may sleep.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wait {
    /// Come back at once: there is other work.
    Poll,
    /// Sleep until something completes or a deadline is due.
    Block,
}

/// What a ring is asked to do.
#[derive(Debug, PartialEq, Eq)]
pub enum Operation {
    /// Accept one socket from the listener of this number; the result is a slot.
    Accept(u8),
    /// Stop all accepts of this listener; their completions tell when.
    CancelAccepts(u8),
    /// Make a plain descriptor of the connection's socket, to ask for the peer of one that arrived.
    Install(ConnectionId),
    /// Send the socket to the ring of another worker, where it arrives as if its listener of that number had
    /// accepted it; the result is an error, or none.
    Pass {
        /// Connection.
        id: ConnectionId,
        /// Which of the rings of [`Ring::join`].
        to: u8,
        /// Number of the listener.
        listener: u8,
    },
    /// Receive into lent buffers, one completion each.
    Receive(ConnectionId),
    /// Send `output` from `offset` on. The bytes stay with the ring until [`Ring::reclaim`].
    Send {
        /// Connection.
        id: ConnectionId,
        /// Bytes.
        output: Vec<u8>,
        /// How many of them were sent already.
        offset: usize,
        /// True if its completion is waited for: the connection ends with it.
        is_last: bool,
    },
    /// Tell the peer that nothing more comes.
    Shutdown(ConnectionId),
    /// Stop receiving; the receive's last completion tells when.
    CancelReceive(ConnectionId),
    /// Stop sending; the send's completion tells when.
    CancelSend(ConnectionId),
    /// Close the socket and free its slot.
    Close(ConnectionId),
    /// Wait for the event of [`Ring::watch`], once.
    Wake,
}

/// The operation that a completion belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Completed {
    /// Something unknown, or of no interest.
    Nothing = 0,
    /// [`Operation::Accept`].
    Accept = 1,
    /// [`Operation::Install`].
    Install = 2,
    /// [`Operation::Receive`].
    Receive = 3,
    /// [`Operation::Send`].
    Send = 4,
    /// [`Operation::Shutdown`].
    Shutdown = 5,
    /// [`Operation::Close`].
    Close = 6,
    /// [`Operation::Wake`].
    Wake = 7,
    /// [`Operation::Pass`].
    Pass = 8,
    /// [`Operation::Pass`] of another worker: a slot, as of an accept.
    Arrive = 9,
}

impl Completed {
    /// Packs operation and connection into a completion's user data.
    #[inline]
    pub(crate) const fn user_data(self, id: ConnectionId) -> u64 {
        ((self as u64) << 56) | id.to_u64()
    }

    /// Unpacks what [`Completed::user_data`] packed.
    #[inline]
    pub(crate) const fn from_user_data(user_data: u64) -> (Self, ConnectionId) {
        let completed = match user_data >> 56 {
            1 => Self::Accept,
            2 => Self::Install,
            3 => Self::Receive,
            4 => Self::Send,
            5 => Self::Shutdown,
            6 => Self::Close,
            7 => Self::Wake,
            8 => Self::Pass,
            9 => Self::Arrive,
            _ => Self::Nothing,
        };
        (completed, ConnectionId::from_u64(user_data))
    }
}

/// What a ring did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Completion {
    /// Which operation.
    pub completed: Completed,
    /// Of which connection; of an accept its slot is the listener's number, and its generation the ring's own;
    /// without meaning for wake.
    pub id: ConnectionId,
    /// A size, a slot or a descriptor; or a negative error number.
    pub result: i32,
    /// The buffer that was filled; it must be recycled.
    pub buffer: Option<BufferId>,
    /// True if this operation will complete again.
    pub has_more: bool,
}

/// A queue of operations and a queue of completions.
pub trait Ring {
    /// Takes a listener that [`Operation::Accept`] accepts from; they are numbered as they come, from 0.
    fn listen(&mut self, listener: socket2::Socket);

    /// Closes the listeners; accepting has ended before.
    fn unlisten(&mut self);

    /// Takes the event that [`Operation::Wake`] waits for.
    fn watch(&mut self, event: OwnedFd);

    /// Queues an operation; it starts with the next [`Ring::enter`] at the latest.
    fn push(&mut self, operation: Operation);

    /// Submits what was queued and, if asked to, sleeps until a completion arrives or `timeout` is over.
    ///
    /// # Errors
    /// If the ring itself fails. Running out of time and being interrupted are no failures.
    fn enter(&mut self, wait: Wait, timeout: Option<Duration>) -> io::Result<()>;

    /// Returns the next completion that has arrived.
    fn next_completion(&mut self) -> Option<Completion>;

    /// Tells whether [`Ring::next_completion`] would return one.
    fn has_completion(&mut self) -> bool;

    /// Returns the bytes of a lent buffer.
    fn bytes(&self, buffer: BufferId) -> &[u8];

    /// Returns the bytes of a lent buffer, to be changed in place.
    fn bytes_mut(&mut self, buffer: BufferId) -> &mut [u8];

    /// Gives a lent buffer back.
    fn recycle(&mut self, buffer: BufferId);

    /// Offers buffers to the kernel that were kept back so far, for a receive found none. Returns how many.
    fn offer_more(&mut self) -> u32 {
        0
    }

    /// Returns the bytes of a send that has completed.
    fn reclaim(&mut self, id: ConnectionId) -> Vec<u8>;

    /// Returns the peer of a socket: by the completion of the [`Operation::Accept`] that took it, or of an
    /// [`Operation::Install`], whose descriptor is closed. It must be asked before the next [`Ring::push`].
    fn peer(&mut self, completion: Completion) -> Option<SocketAddr>;

    /// Returns a descriptor by which other rings may send sockets here; `None` if they can't.
    fn descriptor(&self) -> Option<OwnedFd> {
        None
    }

    /// Takes the rings that [`Operation::Pass`] sends to.
    fn join(&mut self, rings: Vec<OwnedFd>) {
        drop(rings);
    }

    /// Puts a socket of ours, connected or connecting, into the slot of `id`, which lies behind those that accepts
    /// fill, and is free.
    ///
    /// # Errors
    /// If the ring can't, or has no such slot.
    fn adopt(&mut self, id: ConnectionId, socket: OwnedFd) -> io::Result<()> {
        let _nobody = (id, socket);
        Err(io::ErrorKind::Unsupported.into())
    }

    /// Returns how often the kernel was entered.
    fn enters(&self) -> u64;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_survives_packing() {
        for (slot, generation) in [(0, 0), (1, 2), (u32::MAX, GENERATION_MASK)] {
            let id = ConnectionId::new(slot, generation);
            assert_eq!(ConnectionId::from_u64(id.to_u64()), id);
            for completed in [Completed::Accept, Completed::Send, Completed::Wake] {
                assert_eq!(Completed::from_user_data(completed.user_data(id)), (completed, id));
            }
        }
    }

    #[test]
    fn a_slot_used_again_has_another_id() {
        let last = ConnectionId::new(7, GENERATION_MASK);
        assert_eq!(last.next(), ConnectionId::new(7, 0));
        assert_ne!(last.next(), last);
    }
}
