//! The fault handler: first writes to pages of a slot.
//!
//! The engine's own handler for SIGSEGV runs on its alternate stack; while a call of a store is active on
//! the thread it asks that store's handler first, whatever code faulted. Ours answers true if the address
//! is the first write to a page of one of the slot's memories, which is writable by then, and the faulting
//! instruction runs again. For every other fault it answers false: the engine turns faults of guest code
//! into traps, and hands the rest to the handler that was there before it, so that a bug of the host still
//! ends the process with a core.
//!
//! What the handler touches, all of it async-signal-safe: the atomics of `SlotMemory`, the call mprotect,
//! and `errno`, which is put back. It does not allocate, log or lock. It cannot fault itself: what it
//! reads is memory of the host.
#![expect(unsafe_code, reason = "installs a signal handler; the safe face is `install`")]

use std::sync::Arc;

use wasmtime::Store;
use wasmtime::unix::StoreExt;

use crate::context::GuestContext;
use crate::memory::{SlotMemories, SlotMemory};

/// `si_code` of a fault by protection; the other kind, SEGV_MAPERR, is an address without a mapping.
const SEGV_ACCERR: i32 = 2;

/// Lets a store's calls write to pages of these memories.
pub(crate) fn install(store: &mut Store<GuestContext>, memories: &SlotMemories) {
    let memories = Arc::clone(memories);
    // SAFETY: the handler is async-signal-safe: see the head of this file for all that it touches. `info`
    // is the kernel's, valid while the handler runs, and of a fault, for the signal is SIGSEGV.
    unsafe {
        store.set_signal_handler(move |signal, info, _| {
            signal == libc::SIGSEGV
                && (*info).si_code == SEGV_ACCERR
                && is_first_write(&memories, (*info).si_addr().addr())
        });
    }
}

fn is_first_write(memories: &[Arc<SlotMemory>], address: usize) -> bool {
    memories.iter().any(|memory| memory.first_write(address))
}
