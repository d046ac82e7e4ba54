//! The kernel's ring: set up as well as the kernel allows, entered through its registered descriptor.
//!
//! ```text
//!   push ---> submission queue ---+
//!                                 | one io_uring_enter: submit, sleep, run deferred completions
//!   next_completion <-- completion queue <--+
//! ```
//!
//! Invariants: used by the thread that made it (`SINGLE_ISSUER`); memory given to the kernel lives until its
//! completion was seen, or until `drop` has cancelled everything.
//! Not here: what an operation means for a connection.
//! Hot path: `push`, `enter`, `next_completion`.
#![expect(unsafe_code, reason = "speaks to the kernel; the safe face is the Ring trait")]

use std::collections::VecDeque;
use std::io;
use std::mem::ManuallyDrop;
use std::net::{SocketAddr, TcpStream};
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::ptr::{self, NonNull};
use std::time::Duration;

use io_uring::types::{CancelBuilder, DestinationSlot, Fd, Fixed, SubmitArgs, Timespec};
use io_uring::{
    Builder, CompletionQueue, EnterFlags, IoUring, Probe, SubmissionQueue, Submitter, cqueue,
    opcode, squeue,
};

use crate::buffers::{self, Buffers};
use crate::peer::PeerAddress;
use crate::ring::{BufferId, Completed, Completion, ConnectionId, Operation, Ring, Wait};
use crate::settings::{ACCEPTS_MAX, Settings, SettingsError};
use crate::tier::RingTier;
use crate::width::{index, narrow};

/// Completions that may wait for each submission entry: a multishot operation completes many times.
const COMPLETIONS_PER_ENTRY: u32 = 4;

/// Size of one send, which the kernel counts in 31 bits; the rest follows, as after any short send.
const SEND_BYTES_MAX: usize = 1 << 30;

/// Time that `drop` gives the kernel to cancel what is under way.
const CANCEL_SECONDS_MAX: u64 = 5;

/// Why a ring could not be made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum UringError {
    /// A setting is out of bounds.
    #[error(transparent)]
    Settings(#[from] SettingsError),
    /// The kernel or a container forbids it.
    #[error(
        "io_uring is forbidden here: set `sysctl kernel.io_uring_disabled=0`, and allow io_uring_setup, \
         io_uring_enter and io_uring_register in the container's seccomp profile"
    )]
    Forbidden(#[source] io::Error),
    /// The kernel has none.
    #[error(
        "this kernel has no io_uring, or a seccomp profile hides it; Linux 5.19 or later is needed"
    )]
    Missing(#[source] io::Error),
    /// Memory could not be locked.
    #[error(
        "no memory for the ring: raise `ulimit -l` (RLIMIT_MEMLOCK), or lower entries and buffers"
    )]
    Memory(#[source] io::Error),
    /// The descriptor limit is too low for the table of sockets.
    #[error("{connections} connections need `ulimit -n` (RLIMIT_NOFILE) of as much and some more")]
    Descriptors {
        /// Connections asked for.
        connections: u32,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// Something else.
    #[error("cannot {step}")]
    System {
        /// What was being done.
        step: &'static str,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
}

impl UringError {
    fn at(step: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |source| match source.raw_os_error() {
            Some(libc::EPERM | libc::EACCES) => Self::Forbidden(source),
            Some(libc::ENOSYS) => Self::Missing(source),
            Some(libc::ENOMEM) => Self::Memory(source),
            _ => Self::System { step, source },
        }
    }
}

/// A set of setup flags, from best to worst.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tier {
    /// Linux 6.6: completions run in our own enter alone, and no index array.
    DeferredDirect,
    /// Linux 6.1: completions run in our own enter alone.
    Deferred,
    /// Linux 6.0: completions run when we are in the kernel anyway.
    Cooperative,
    /// Linux 5.19: the same, and each receive is for one piece.
    Single,
}

impl Tier {
    const ALL: [Self; 4] = [Self::DeferredDirect, Self::Deferred, Self::Cooperative, Self::Single];

    /// Returns the tier under which people know it.
    #[must_use]
    pub const fn ring_tier(self) -> RingTier {
        match self {
            Self::DeferredDirect | Self::Deferred => RingTier::A,
            Self::Cooperative => RingTier::B,
            Self::Single => RingTier::C,
        }
    }

    fn set_up(self, builder: &mut Builder) {
        builder.setup_submit_all().setup_coop_taskrun().setup_taskrun_flag();
        if self != Self::Single {
            builder.setup_single_issuer();
        }
        if matches!(self, Self::DeferredDirect | Self::Deferred) {
            builder.setup_defer_taskrun();
        }
        if self == Self::DeferredDirect {
            builder.setup_no_sqarray();
        }
    }
}

/// Sends up to this size find room in the socket's buffer, as a rule, and complete while they are submitted.
const SEND_BYTES_INLINE_MAX: usize = 16 * 1024;
/// How long the wait for the completions of such sends may hold other events up, in microseconds.
const GATHER_US_MAX: u32 = 100;

/// The kernel's ring, with the memory that it works on.
pub struct Uring {
    // Borrows from `ring`; dropped by hand, before it.
    parts: ManuallyDrop<Parts>,
    // INVARIANT: from `Box::leak`; nobody else refers to it while `parts` lives.
    ring: NonNull<IoUring>,
    /// `None` only while being dropped.
    memory: Option<Box<Memory>>,
    /// Entries that found the submission queue full.
    backlog: VecDeque<squeue::Entry>,
    listeners: Vec<socket2::Socket>,
    /// The ring's, for other workers: a duplicate, so that nothing but its parts refers to the ring itself.
    descriptor: Option<OwnedFd>,
    /// Other workers' rings.
    rings: Vec<OwnedFd>,
    event: Option<OwnedFd>,
    /// Places for addresses that no accept under way has.
    accepts_free: Vec<u32>,
    enters: u64,
    /// Sends since the last enter that complete within the next one, as a rule.
    sends_inline: u32,
    /// A send since the last enter whose completion is waited for.
    is_send_urgent: bool,
    /// The kernel waits for several completions and gives up early (Linux 6.12).
    can_gather: bool,
    tier: Tier,
    buffer_bytes: u32,
    /// A socket that arrived can be asked for its peer (Linux 6.8).
    can_install: bool,
    /// Accepts leave the slots behind theirs alone (Linux 6.0).
    can_adopt: bool,
    is_registered: bool,
}

/// The ring in pieces, kept for its life: only the `Submitter` that registered the ring's descriptor knows the
/// number to enter with, and the queues keep their positions in registers' reach.
struct Parts {
    submitter: Submitter<'static>,
    submissions: SubmissionQueue<'static>,
    completions: CompletionQueue<'static>,
}

/// What the kernel reads and writes on its own time.
struct Memory {
    buffers: Buffers,
    /// Bytes being sent, by slot, of those that have sent.
    outputs: Vec<Vec<u8>>,
    event: u64,
    /// Where accepts under way put their peers' addresses.
    peers: Box<[PeerAddress]>,
}

impl Uring {
    /// Makes a ring for the calling thread, which must be the one that uses it.
    ///
    /// # Errors
    /// [`UringError`], which says what to change.
    pub fn new(settings: &Settings) -> Result<Self, UringError> {
        Self::of_tiers(settings, &Tier::ALL)
    }

    /// Makes a ring of a tier, even if the kernel has a better one.
    ///
    /// # Errors
    /// [`UringError`], which says what to change.
    ///
    /// # Panics
    /// If the tier is epoll's.
    pub fn of_tier(settings: &Settings, tier: RingTier) -> Result<Self, UringError> {
        let tiers: &[Tier] = match tier {
            RingTier::A => &[Tier::DeferredDirect, Tier::Deferred],
            RingTier::B => &[Tier::Cooperative],
            RingTier::C => &[Tier::Single],
            RingTier::D => unreachable!("epoll is no ring"),
        };
        Self::of_tiers(settings, tiers)
    }

    fn of_tiers(settings: &Settings, tiers: &[Tier]) -> Result<Self, UringError> {
        settings.check()?;
        // Nothing may fail between leaking the ring and making the value whose drop frees it.
        let buffers = Buffers::new(settings.buffers, settings.buffer_bytes)
            .map_err(UringError::at("map the receive buffers"))?;
        let (ring, tier) = set_up(settings, tiers)?;
        // Not for the older ways, which are to be as they are where the kernel is old.
        let can_gather = tier.ring_tier() == RingTier::A && ring.params().is_feature_min_timeout();
        // Sockets are sent by rings of Linux 6.0; this way is for those that the newer tiers have. Without a
        // descriptor left, none are.
        let is_new = tier.ring_tier() == RingTier::A;
        let descriptor = is_new.then(|| ring.as_fd().try_clone_to_owned().ok()).flatten();
        let number = ring.as_raw_fd();
        let ring = NonNull::from(Box::leak(Box::new(ring)));
        // SAFETY: `ring` was just leaked, so it lives until `drop` frees it, and this is the one reference
        // to it until then: its parts stand for it.
        let (submitter, submissions, completions) = unsafe { &mut *ring.as_ptr() }.split();
        let accepts_max = index(settings.listeners * ACCEPTS_MAX);
        let memory = Memory {
            buffers,
            outputs: Vec::with_capacity(index(settings.table_size())),
            event: 0,
            peers: vec![PeerAddress::new(); accepts_max].into(),
        };
        let mut uring = Self {
            parts: ManuallyDrop::new(Parts { submitter, submissions, completions }),
            ring,
            memory: Some(Box::new(memory)),
            backlog: VecDeque::with_capacity(index(settings.entries)),
            listeners: Vec::new(),
            descriptor,
            rings: Vec::new(),
            event: None,
            accepts_free: (0..narrow(accepts_max)).collect(),
            enters: 0,
            sends_inline: 0,
            is_send_urgent: false,
            can_gather,
            tier,
            buffer_bytes: settings.buffer_bytes,
            can_install: false,
            can_adopt: false,
            is_registered: false,
        };
        uring.register(settings, number)?;
        Ok(uring)
    }

    /// Returns the set of flags that the kernel took.
    #[must_use]
    pub fn tier(&self) -> Tier {
        self.tier
    }

    /// Tells whether enters go through the registered descriptor (Linux 5.18).
    #[must_use]
    pub fn is_registered(&self) -> bool {
        self.is_registered
    }

    fn register(&mut self, settings: &Settings, number: RawFd) -> Result<(), UringError> {
        let mut probe = Probe::new();
        if self.parts.submitter.register_probe(&mut probe).is_ok() {
            self.can_install = probe.is_supported(opcode::FixedFdInstall::CODE);
        }
        self.parts.submitter.register_files_sparse(settings.table_size()).map_err(|source| {
            match source.raw_os_error() {
                Some(libc::EMFILE) => {
                    let connections = settings.table_size();
                    UringError::Descriptors { connections, source }
                }
                _ => UringError::at("register the table of sockets")(source),
            }
        })?;
        self.can_adopt =
            settings.outgoing_max == 0 || Self::keep_accepts_within(number, settings.slots());
        let memory = self.memory.as_ref().expect("memory is there until drop");
        // SAFETY: `drop` frees the memory after all that was under way has been cancelled, or leaks it. Another
        // worker's descriptor may keep the ring open for longer; nothing is armed on it then.
        unsafe { memory.buffers.register(&self.parts.submitter) }
            .map_err(UringError::at("register the receive buffers"))?;
        // Only this `Submitter` knows the number: it is kept for the ring's life.
        self.is_registered = self.parts.submitter.register_ring_fd().is_ok();
        Ok(())
    }

    /// Lets the kernel give accepts the first `slots` places of the table alone. Returns whether it can.
    fn keep_accepts_within(descriptor: RawFd, slots: u32) -> bool {
        /// `IORING_REGISTER_FILE_ALLOC_RANGE`, and `struct io_uring_file_index_range`.
        const FILE_ALLOC_RANGE: libc::c_uint = 25;
        #[repr(C)]
        struct Range {
            offset: u32,
            length: u32,
            reserved: u64,
        }
        let range = Range { offset: 0, length: slots, reserved: 0 };
        // SAFETY: the operation reads a range of this layout during the call; a kernel that does not know it
        // fails.
        let result = unsafe {
            libc::syscall(
                libc::SYS_io_uring_register,
                descriptor,
                FILE_ALLOC_RANGE,
                &raw const range,
                0,
            )
        };
        result == 0
    }

    fn memory(&mut self) -> &mut Memory {
        self.memory.as_mut().expect("memory is there until drop")
    }

    /// Makes the entry of an operation; memory of its own stays in `self.memory`.
    #[inline]
    fn entry(&mut self, operation: Operation) -> squeue::Entry {
        let none = ConnectionId::new(0, 0);
        let socket = |id: ConnectionId| Fixed(id.slot());
        let (entry, completed, id) = match operation {
            Operation::Accept(number) => {
                let listener = self.listeners[usize::from(number)].as_raw_fd();
                let place = self.accepts_free.pop().expect("accepts of a listener are bounded");
                let peer = &mut self.memory().peers[index(place)];
                *peer = PeerAddress::new();
                let address = peer.bytes.as_mut_ptr().cast();
                let entry = opcode::Accept::new(Fd(listener), address, &raw mut peer.size)
                    .file_index(Some(DestinationSlot::auto_target()));
                (entry.build(), Completed::Accept, ConnectionId::new(number.into(), place))
            }
            Operation::CancelAccepts(number) => {
                let listener = self.listeners[usize::from(number)].as_raw_fd();
                let target = CancelBuilder::fd(Fd(listener)).all();
                (opcode::AsyncCancel2::new(target).build(), Completed::Nothing, none)
            }
            Operation::Install(id) => {
                let entry = opcode::FixedFdInstall::new(socket(id), 0).build();
                (entry, Completed::Install, id)
            }
            Operation::Pass { id, to, listener } => {
                let ring = Fd(self.rings[usize::from(to)].as_raw_fd());
                let arrival = Completed::Arrive.user_data(ConnectionId::new(listener.into(), 0));
                let target = DestinationSlot::auto_target();
                let entry = opcode::MsgRingSendFd::new(ring, socket(id), target, arrival).build();
                (entry, Completed::Pass, id)
            }
            Operation::Receive(id) => {
                let entry = if self.tier == Tier::Single {
                    let size = self.buffer_bytes;
                    opcode::Recv::new(socket(id), ptr::null_mut(), size)
                        .buf_group(buffers::GROUP)
                        .build()
                        .flags(squeue::Flags::BUFFER_SELECT)
                } else {
                    opcode::RecvMulti::new(socket(id), buffers::GROUP).build()
                };
                (entry, Completed::Receive, id)
            }
            Operation::Send { id, output, offset, is_last } => {
                let rest = &output[offset..];
                if is_last || SEND_BYTES_INLINE_MAX < rest.len() {
                    self.is_send_urgent = true;
                } else {
                    self.sends_inline += 1;
                }
                let size = narrow(rest.len().min(SEND_BYTES_MAX));
                let entry = opcode::Send::new(socket(id), rest.as_ptr(), size);
                let slot = index(id.slot());
                let outputs = &mut self.memory().outputs;
                if outputs.len() <= slot {
                    outputs.resize_with(slot + 1, Vec::new);
                }
                let place = &mut outputs[slot];
                assert!(place.capacity() == 0, "one send of a connection is under way at a time");
                // Moving the `Vec` leaves its bytes, which `entry` points to, where they are.
                *place = output;
                (entry.build(), Completed::Send, id)
            }
            Operation::Shutdown(id) => {
                let entry = opcode::Shutdown::new(socket(id), libc::SHUT_WR).build();
                (entry, Completed::Shutdown, id)
            }
            Operation::CancelReceive(id) => {
                let target = Completed::Receive.user_data(id);
                (opcode::AsyncCancel::new(target).build(), Completed::Nothing, none)
            }
            Operation::CancelSend(id) => {
                let target = Completed::Send.user_data(id);
                (opcode::AsyncCancel::new(target).build(), Completed::Nothing, none)
            }
            Operation::Close(id) => (opcode::Close::new(socket(id)).build(), Completed::Close, id),
            Operation::Wake => {
                let event = self.event.as_ref().expect("an event was given").as_raw_fd();
                let target = ptr::from_mut(&mut self.memory().event).cast::<u8>();
                let entry = opcode::Read::new(Fd(event), target, narrow(size_of::<u64>()));
                (entry.build(), Completed::Wake, none)
            }
        };
        entry.user_data(completed.user_data(id))
    }

    /// Moves entries that had no room into the submission queue.
    #[cold]
    fn push_backlog(&mut self) {
        while let Some(entry) = self.backlog.front() {
            // SAFETY: as in `push`: these are entries that it made.
            if unsafe { self.parts.submissions.push(entry) }.is_err() {
                break;
            }
            self.backlog.pop_front();
        }
    }

    /// Enters the kernel once.
    fn enter_once(&mut self, wait: Wait, timeout: Option<Duration>) -> io::Result<()> {
        let submitted = narrow(self.parts.submissions.len());
        let mut args = SubmitArgs::new();
        let timespec = Timespec::from(timeout.unwrap_or_default());
        if timeout.is_some() {
            args = args.timespec(&timespec);
        }
        // A small send completes while it is submitted. Its completion would end the wait at once, and the
        // batch would enter twice; so they are waited for together with one event more. A send that does
        // not complete holds the others up for `GATHER_US_MAX` at the most.
        let inline = std::mem::take(&mut self.sends_inline);
        let is_urgent = std::mem::take(&mut self.is_send_urgent);
        let wanted = match wait {
            Wait::Poll => 0,
            Wait::Block if self.can_gather && !is_urgent && 0 < inline => {
                args = args.min_wait_usec(GATHER_US_MAX);
                inline + 1
            }
            Wait::Block => 1,
        };
        let flags = (EnterFlags::GETEVENTS | EnterFlags::EXT_ARG).bits();
        self.enters += 1;
        // SAFETY: with EXT_ARG the kernel reads an `io_uring_getevents_arg`, which `SubmitArgs` is (the crate
        // passes it the same way); it and the timespec it points to live until the call returns. The
        // entries submitted point to memory of `self.memory`, which outlives their completions.
        let result = unsafe { self.parts.submitter.enter(submitted, wanted, flags, Some(&args)) };
        match result.map_err(|error| (error.raw_os_error(), error)) {
            Ok(_) => Ok(()),
            // Out of time, interrupted, or completions must be taken first: the caller comes again.
            Err((Some(libc::ETIME | libc::EINTR | libc::EBUSY | libc::EAGAIN), _)) => Ok(()),
            Err((_, error)) => Err(error),
        }
    }
}

/// Makes the ring with the first of these sets of flags that the kernel takes.
fn set_up(settings: &Settings, tiers: &[Tier]) -> Result<(IoUring, Tier), UringError> {
    let completions = settings
        .entries
        .max(settings.slots().next_power_of_two() / COMPLETIONS_PER_ENTRY)
        .max(u32::from(settings.buffers))
        .saturating_mul(COMPLETIONS_PER_ENTRY);
    let mut last = io::Error::from_raw_os_error(libc::EINVAL);
    for &tier in tiers {
        let mut builder = IoUring::builder();
        builder.dontfork().setup_clamp().setup_cqsize(completions);
        tier.set_up(&mut builder);
        match builder.build(settings.entries) {
            Ok(ring) => return Ok((ring, tier)),
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => last = error,
            Err(error) => return Err(UringError::at("set up a ring")(error)),
        }
    }
    Err(UringError::Missing(last))
}

impl Ring for Uring {
    fn listen(&mut self, listener: socket2::Socket) {
        self.listeners.push(listener);
    }

    fn unlisten(&mut self) {
        self.listeners.clear();
    }

    fn watch(&mut self, event: OwnedFd) {
        assert!(self.event.is_none(), "a ring watches one event");
        self.event = Some(event);
    }

    #[inline]
    fn push(&mut self, operation: Operation) {
        let entry = self.entry(operation);
        // SAFETY: `entry` made it: its descriptors are the ring's own slots, or are owned by `self`; its memory
        // is in `self.memory` and is kept until the completion (`reclaim`) or the end of the ring.
        if !self.backlog.is_empty() || unsafe { self.parts.submissions.push(&entry) }.is_err() {
            self.backlog.push_back(entry);
        }
    }

    fn enter(&mut self, wait: Wait, timeout: Option<Duration>) -> io::Result<()> {
        self.memory().buffers.publish();
        self.parts.submissions.sync();
        // A queue that overflowed is emptied in steps, without sleeping in between.
        while !self.backlog.is_empty() {
            self.enter_once(Wait::Poll, None)?;
            self.parts.submissions.sync();
            let left = self.backlog.len();
            self.push_backlog();
            self.parts.submissions.sync();
            if self.backlog.len() == left {
                // The kernel takes nothing until completions were taken.
                return Ok(());
            }
        }
        let has_work = !self.parts.submissions.is_empty()
            || self.parts.submissions.taskrun()
            || self.parts.submissions.cq_overflow();
        if wait == Wait::Poll && !has_work {
            return Ok(());
        }
        self.enter_once(wait, timeout)?;
        self.parts.submissions.sync();
        Ok(())
    }

    #[inline]
    fn next_completion(&mut self) -> Option<Completion> {
        if self.parts.completions.is_empty() {
            self.parts.completions.sync();
        }
        let entry = self.parts.completions.next()?;
        let (completed, id) = Completed::from_user_data(entry.user_data());
        let buffer = cqueue::buffer_select(entry.flags()).map(BufferId);
        if let Some(buffer) = buffer {
            self.memory().buffers.lend(buffer);
        }
        if completed == Completed::Accept {
            self.accepts_free.push(id.generation());
        }
        Some(Completion {
            completed,
            id,
            result: entry.result(),
            buffer,
            has_more: cqueue::more(entry.flags()),
        })
    }

    #[inline]
    fn has_completion(&mut self) -> bool {
        self.parts.completions.sync();
        !self.parts.completions.is_empty()
    }

    #[inline]
    fn bytes(&self, buffer: BufferId) -> &[u8] {
        self.memory.as_ref().expect("memory is there until drop").buffers.bytes(buffer)
    }

    #[inline]
    fn bytes_mut(&mut self, buffer: BufferId) -> &mut [u8] {
        self.memory().buffers.bytes_mut(buffer)
    }

    #[inline]
    fn recycle(&mut self, buffer: BufferId) {
        self.memory().buffers.recycle(buffer);
    }

    #[cold]
    fn offer_more(&mut self) -> u32 {
        self.memory().buffers.offer_more()
    }

    #[inline]
    fn reclaim(&mut self, id: ConnectionId) -> Vec<u8> {
        std::mem::take(&mut self.memory().outputs[index(id.slot())])
    }

    fn peer(&mut self, completion: Completion) -> Option<SocketAddr> {
        if completion.result < 0 {
            return None;
        }
        if completion.completed == Completed::Accept {
            return self.memory().peers[index(completion.id.generation())].read();
        }
        assert!(completion.completed == Completed::Install, "others know no peer");
        // SAFETY: the descriptor is the result of an install operation: new, open, and ours alone.
        let socket = unsafe { OwnedFd::from_raw_fd(completion.result) };
        TcpStream::from(socket).peer_addr().ok()
    }

    fn descriptor(&self) -> Option<OwnedFd> {
        if !self.can_install {
            return None;
        }
        self.descriptor.as_ref()?.try_clone().ok()
    }

    fn join(&mut self, rings: Vec<OwnedFd>) {
        self.rings = rings;
    }

    fn adopt(&mut self, id: ConnectionId, socket: OwnedFd) -> io::Result<()> {
        if !self.can_adopt {
            return Err(io::ErrorKind::Unsupported.into());
        }
        // The table keeps a reference of its own; this one may go.
        let taken = self.parts.submitter.register_files_update(id.slot(), &[socket.as_raw_fd()])?;
        if taken == 1 { Ok(()) } else { Err(io::ErrorKind::InvalidInput.into()) }
    }

    fn enters(&self) -> u64 {
        self.enters
    }
}

impl Drop for Uring {
    fn drop(&mut self) {
        // What is still queued must not start; what has started must end before its memory goes.
        let timeout = Timespec::new().sec(CANCEL_SECONDS_MAX);
        let cancelled =
            self.parts.submitter.register_sync_cancel(Some(timeout), CancelBuilder::any());
        let is_quiet = match cancelled {
            Ok(()) => true,
            Err(error) => error.raw_os_error() == Some(libc::ENOENT),
        };
        if self.is_registered {
            let unregistered = self.parts.submitter.unregister_ring_fd();
            debug_assert!(unregistered.is_ok(), "the descriptor was registered");
        }
        // SAFETY: `parts` is not used again: this is the end of `self`, whose fields don't touch it.
        unsafe { ManuallyDrop::drop(&mut self.parts) };
        // SAFETY: `ring` came from `Box::leak`, and `parts`, the one borrow of it, is gone.
        drop(unsafe { Box::from_raw(self.ring.as_ptr()) });
        if let Some(memory) = self.memory.take()
            && !is_quiet
        {
            // The kernel may still write here: the memory stays for the life of the process.
            Box::leak(memory);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ring_is_made_with_a_registered_descriptor() {
        let uring = Uring::new(&Settings::default()).unwrap();
        assert!(uring.is_registered());
    }

    #[test]
    fn a_wake_completes() {
        let mut uring = Uring::new(&Settings::default()).unwrap();
        let waker = crate::wake::Waker::new().unwrap();
        uring.watch(waker.descriptor().unwrap());
        uring.push(Operation::Wake);
        uring.enter(Wait::Poll, None).unwrap();
        assert!(!uring.has_completion());
        waker.wake();
        uring.enter(Wait::Block, Some(Duration::from_secs(10))).unwrap();
        let completion = uring.next_completion().unwrap();
        assert_eq!((completion.completed, completion.result), (Completed::Wake, 8));
    }

    #[test]
    fn more_entries_than_the_queue_holds_are_all_submitted() {
        let settings = Settings { entries: 8, ..Settings::default() };
        let mut uring = Uring::new(&settings).unwrap();
        for slot in 0..40 {
            uring.push(Operation::Close(ConnectionId::new(slot, 0)));
        }
        uring.enter(Wait::Poll, None).unwrap();
        let mut count = 0;
        while uring.next_completion().is_some() {
            count += 1;
        }
        assert_eq!(count, 40);
    }

    #[test]
    fn errors_say_what_to_set() {
        let text = |code| UringError::at("x")(io::Error::from_raw_os_error(code)).to_string();
        assert!(text(libc::EPERM).contains("kernel.io_uring_disabled"));
        assert!(text(libc::EPERM).contains("seccomp"));
        assert!(text(libc::ENOSYS).contains("Linux 5.19"));
        assert!(text(libc::ENOMEM).contains("RLIMIT_MEMLOCK"));
    }
}
