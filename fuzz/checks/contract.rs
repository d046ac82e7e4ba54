//! A guest's contract record. Input: where the guest says it is, then the start of its memory.

use std::cell::RefCell;

use midge_abi::contract::{AREA_ALIGN, AREA_SIZE_MAX, AREA_SIZE_MIN, Contract};

const MEMORY_BYTES: usize = 65_536;

thread_local! {
    /// Kept, for a new memory costs more than the rest of an execution.
    static MEMORY: RefCell<Vec<u8>> = RefCell::new(vec![0; MEMORY_BYTES]);
}

/// Reads the record.
pub(crate) fn check(bytes: &[u8]) {
    let Some((address, rest)) = bytes.split_first_chunk() else { return };
    let rest = &rest[..rest.len().min(MEMORY_BYTES)];
    MEMORY.with_borrow_mut(|memory| {
        memory[..rest.len()].copy_from_slice(rest);
        if let Ok(contract) = Contract::read(memory, u32::from_le_bytes(*address)) {
            let end = u64::from(contract.area) + u64::from(contract.area_size);
            assert!(end <= MEMORY_BYTES as u64 && contract.area % AREA_ALIGN == 0);
            assert!((AREA_SIZE_MIN..=AREA_SIZE_MAX).contains(&contract.area_size));
        }
        memory[..rest.len()].fill(0);
    });
}
