//! The contract, version 1: exported names and the layout of each record.
//!
//! A guest exports
//!
//! ```text
//!   `memory`                                 its linear memory, 32-bit, not shared
//!   `midge_contract: () -> i32`              the address of its [`Contract`]
//!   `midge_handle: (i32, i32) -> i32`        request address, request size -> address of a [`ResponseRecord`]
//!   `_initialize: () -> ()`                  optional: run once when the artifact is built, before the template
//! ```
//!
//! The host writes each request at the start of the guest's area:
//!
//! ```text
//!   area | RequestHead 128 B | header table 16 B each | request head as received | pad | body |
//! ```
//!
//! The body is whole, but for a guest that imports `body_read`: it is called as soon as there is a head, gets
//! what has come of the body, and asks for the rest. A response may be written by imports too, piece by piece
//! (`imports.rs`); `midge_handle` then returns 0.
//!
//! All offsets in a request are relative to the block, so the block means the same wherever it lies. All
//! pointers in a response are addresses in the guest's memory. Everything is little-endian.
//!
//! Invariant: no field is padding; bytes without meaning are named `reserved`, written as zero by whoever
//! writes and checked as zero by the host.

use std::mem::{offset_of, size_of};

/// The version of this contract. A host serves guests of this version alone.
pub const VERSION: u16 = 1;
/// First field of [`Contract`]: the bytes `MDGE`.
pub const MAGIC: u32 = u32::from_le_bytes(*b"MDGE");

/// Name of the exported memory.
pub const EXPORT_MEMORY: &str = "memory";
/// Name of the exported function that returns the address of the [`Contract`].
pub const EXPORT_CONTRACT: &str = "midge_contract";
/// Name of the exported function that answers a request.
pub const EXPORT_HANDLE: &str = "midge_handle";
/// Name of the optional start-up function (a WASI reactor has the same).
pub const EXPORT_INITIALIZE: &str = "_initialize";

/// The smallest area a guest may reserve: a head of the usual size and a little body.
pub const AREA_SIZE_MIN: u32 = 4 * 1024;
/// The largest. A longer body goes to guests that read it piece by piece.
pub const AREA_SIZE_MAX: u32 = 64 * 1024 * 1024;
/// The area starts on this boundary, so that the head's fields are aligned.
pub const AREA_ALIGN: u32 = 16;
/// The body starts on this boundary within the block.
pub const BODY_ALIGN: usize = 16;

/// What a guest says about itself, once, when its artifact is built.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Contract {
    /// [`MAGIC`].
    pub magic: u32,
    /// [`VERSION`] of the contract that the guest was built for.
    pub version: u16,
    /// Zero in version 1.
    pub reserved: u16,
    /// Address of the area for requests, a multiple of [`AREA_ALIGN`].
    pub area: u32,
    /// Its size in bytes, between [`AREA_SIZE_MIN`] and [`AREA_SIZE_MAX`].
    pub area_size: u32,
}

/// A region of the request block: offset from the block's start and size, both in bytes.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Span {
    /// Bytes from the start of the block; 0 where the part is absent.
    pub offset: u32,
    /// Size in bytes.
    pub size: u32,
}

/// One row of the request's header table.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RequestHeader {
    /// Field name, in lower case.
    pub name: Span,
    /// Field value without surrounding white space.
    pub value: Span,
}

/// The fixed start of a request block.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RequestHead {
    /// Size of the whole block in bytes.
    pub size: u32,
    /// [`VERSION`].
    pub version: u16,
    /// A [`Method`] code; 0 for one that is not in the table (see `method_name`).
    pub method: u16,
    /// Bits of [`flags`].
    pub flags: u32,
    /// Rows of the header table.
    pub header_count: u32,
    /// Offset of the header table from the block's start.
    pub headers: u32,
    /// Zero.
    pub reserved: u32,
    /// The method as it was sent.
    pub method_name: Span,
    /// The request target as it was sent.
    pub target: Span,
    /// The path of the target, still percent-encoded.
    pub path: Span,
    /// What follows `?` in the target; size 0 if there is none.
    pub query: Span,
    /// Host and port as the client named them.
    pub authority: Span,
    /// The body, decoded from its transfer coding.
    pub body: Span,
    /// Identifies the request in logs and problem reports.
    pub request_id: [u8; 16],
    /// The time that the call may take, in nanoseconds from its start.
    pub deadline_ns: u64,
    /// The peer's address: IPv6, or IPv4 mapped into it (RFC 4291 2.5.5.2); zero if unknown.
    pub peer_address: [u8; 16],
    /// The peer's port; 0 if unknown.
    pub peer_port: u16,
    /// Zero.
    pub reserved_tail: [u8; 14],
}

/// Bits of [`RequestHead::flags`].
pub mod flags {
    /// The client speaks HTTP/1.0.
    pub const HTTP_1_0: u32 = 1;
    /// The body in the block is the beginning; the import `body_read` gives what follows.
    pub const BODY_PARTIAL: u32 = 2;
}

/// One row of a response's header table: addresses in the guest's memory.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ResponseHeader {
    /// Address of the field name.
    pub name: u32,
    /// Its size in bytes.
    pub name_size: u32,
    /// Address of the field value.
    pub value: u32,
    /// Its size in bytes.
    pub value_size: u32,
}

/// What `midge_handle` returns the address of.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ResponseRecord {
    /// Status code, 200 to 599; unused when [`RESPONSE_ERROR`] is set.
    pub status: u16,
    /// 0, or [`RESPONSE_ERROR`].
    pub flags: u16,
    /// Rows of the header table.
    pub header_count: u32,
    /// Address of the header table, a multiple of 4.
    pub headers: u32,
    /// Address of the body.
    pub body: u32,
    /// Size of the body in bytes.
    pub body_size: u32,
    /// Zero.
    pub reserved: [u32; 3],
}

/// Set in [`ResponseRecord::flags`]: the guest failed. The body is a message for the host's log, not for
/// the client, who gets a 500.
pub const RESPONSE_ERROR: u16 = 1;
/// What `midge_handle` returns in place of an address when it has written its response by imports.
pub const RESPONSE_WRITTEN: u32 = 0;

/// Method codes of [`RequestHead::method`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u16)]
pub enum Method {
    /// Not in this table: read `method_name`.
    Other = 0,
    /// GET.
    Get = 1,
    /// HEAD.
    Head = 2,
    /// POST.
    Post = 3,
    /// PUT.
    Put = 4,
    /// DELETE.
    Delete = 5,
    /// OPTIONS.
    Options = 6,
    /// PATCH.
    Patch = 7,
    /// TRACE.
    Trace = 8,
    /// CONNECT.
    Connect = 9,
}

impl Method {
    /// Returns the code that stands in the request.
    #[must_use]
    pub const fn code(self) -> u16 {
        self as u16
    }
}

/// Size of [`RequestHead`].
pub const REQUEST_HEAD_SIZE: usize = 128;
/// Size of a row of either header table.
pub const HEADER_SIZE: usize = 16;
/// Size of [`ResponseRecord`].
pub const RESPONSE_RECORD_SIZE: usize = 32;
/// Size of [`Contract`].
pub const CONTRACT_SIZE: usize = 16;

const _: () = assert!(size_of::<RequestHead>() == REQUEST_HEAD_SIZE);
const _: () = assert!(size_of::<RequestHeader>() == HEADER_SIZE);
const _: () = assert!(size_of::<ResponseHeader>() == HEADER_SIZE);
const _: () = assert!(size_of::<ResponseRecord>() == RESPONSE_RECORD_SIZE);
const _: () = assert!(size_of::<Contract>() == CONTRACT_SIZE);
const _: () = assert!(offset_of!(RequestHead, method_name) == 24, "part of the contract");
const _: () = assert!(offset_of!(RequestHead, body) == 64, "part of the contract");
const _: () = assert!(offset_of!(RequestHead, deadline_ns) == 88, "part of the contract");
const _: () = assert!(offset_of!(RequestHead, peer_port) == 112, "part of the contract");

/// Why a module's contract record is refused.
#[derive(Debug, thiserror::Error, PartialEq, Eq, Clone)]
#[non_exhaustive]
pub enum ContractError {
    /// The record lies outside the memory.
    #[error("the contract record at {address:#x} lies outside the memory of {memory_bytes} bytes")]
    OutOfBounds {
        /// Where the guest says it is.
        address: u32,
        /// Size of the guest's memory.
        memory_bytes: usize,
    },
    /// No record there.
    #[error(
        "the contract record at {address:#x} starts with {found:#010x}, expected {MAGIC:#010x}"
    )]
    Magic {
        /// Where the guest says it is.
        address: u32,
        /// What stands there.
        found: u32,
    },
    /// Built for another version.
    #[error("guest was built for contract {found}, this host speaks {VERSION}")]
    Version {
        /// The guest's version.
        found: u16,
    },
    /// A reserved field is not zero.
    #[error("a reserved field of the contract record is {found:#x}, expected 0")]
    Reserved {
        /// What stands there.
        found: u16,
    },
    /// The area cannot be used.
    #[error(
        "the request area at {area:#x} of {area_size} bytes is not usable: it must lie inside the memory \
         of {memory_bytes} bytes, start on a multiple of {AREA_ALIGN} and hold {AREA_SIZE_MIN} to \
         {AREA_SIZE_MAX} bytes"
    )]
    Area {
        /// Its address.
        area: u32,
        /// Its size.
        area_size: u32,
        /// Size of the guest's memory.
        memory_bytes: usize,
    },
}

impl Contract {
    /// Reads and checks the record that a guest claims to have at `address`.
    ///
    /// # Errors
    /// [`ContractError`] says which claim does not hold.
    pub fn read(memory: &[u8], address: u32) -> Result<Self, ContractError> {
        let memory_bytes = memory.len();
        let start = crate::width::index(address);
        let record = memory
            .get(start..)
            .and_then(|rest| rest.first_chunk::<CONTRACT_SIZE>())
            .ok_or(ContractError::OutOfBounds { address, memory_bytes })?;
        let contract = Self {
            magic: u32_at(record, offset_of!(Self, magic)),
            version: u16_at(record, offset_of!(Self, version)),
            reserved: u16_at(record, offset_of!(Self, reserved)),
            area: u32_at(record, offset_of!(Self, area)),
            area_size: u32_at(record, offset_of!(Self, area_size)),
        };
        let Self { magic, version, reserved, area, area_size } = contract;
        if magic != MAGIC {
            return Err(ContractError::Magic { address, found: magic });
        }
        if version != VERSION {
            return Err(ContractError::Version { found: version });
        }
        if reserved != 0 {
            return Err(ContractError::Reserved { found: reserved });
        }
        let end = u64::from(area) + u64::from(area_size);
        let is_usable = (AREA_SIZE_MIN..=AREA_SIZE_MAX).contains(&area_size)
            && area.is_multiple_of(AREA_ALIGN)
            && area != 0
            && end <= memory_bytes as u64;
        if !is_usable {
            return Err(ContractError::Area { area, area_size, memory_bytes });
        }
        Ok(contract)
    }
}

pub(crate) fn u32_at(bytes: &[u8], offset: usize) -> u32 {
    let chunk = bytes[offset..].first_chunk().expect("the caller sliced a whole record");
    u32::from_le_bytes(*chunk)
}

pub(crate) fn u64_at(bytes: &[u8], offset: usize) -> u64 {
    let chunk = bytes[offset..].first_chunk().expect("the caller sliced a whole record");
    u64::from_le_bytes(*chunk)
}

pub(crate) fn u16_at(bytes: &[u8], offset: usize) -> u16 {
    let chunk = bytes[offset..].first_chunk().expect("the caller sliced a whole record");
    u16::from_le_bytes(*chunk)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(contract: Contract) -> Vec<u8> {
        let mut memory = vec![0; 65536];
        let Contract { magic, version, reserved, area, area_size } = contract;
        let at = 1024;
        memory[at..at + 4].copy_from_slice(&magic.to_le_bytes());
        memory[at + 4..at + 6].copy_from_slice(&version.to_le_bytes());
        memory[at + 6..at + 8].copy_from_slice(&reserved.to_le_bytes());
        memory[at + 8..at + 12].copy_from_slice(&area.to_le_bytes());
        memory[at + 12..at + 16].copy_from_slice(&area_size.to_le_bytes());
        memory
    }

    const GOOD: Contract =
        Contract { magic: MAGIC, version: VERSION, reserved: 0, area: 4096, area_size: 8192 };

    #[test]
    fn a_good_record_is_read_back() {
        assert_eq!(Contract::read(&record(GOOD), 1024), Ok(GOOD));
    }

    #[test]
    fn false_claims_are_refused() {
        let refused = |contract| Contract::read(&record(contract), 1024).unwrap_err();
        assert!(matches!(refused(Contract { magic: 1, ..GOOD }), ContractError::Magic { .. }));
        assert!(matches!(refused(Contract { version: 2, ..GOOD }), ContractError::Version { .. }));
        assert!(matches!(
            refused(Contract { reserved: 9, ..GOOD }),
            ContractError::Reserved { .. }
        ));
        for (area, area_size) in [
            (0, 8192),
            (4097, 8192),
            (4096, 100),
            (65536, 4096),
            (u32::MAX - 15, 4096),
            (4096, u32::MAX),
        ] {
            assert!(matches!(
                refused(Contract { area, area_size, ..GOOD }),
                ContractError::Area { .. }
            ));
        }
    }

    #[test]
    fn a_record_outside_the_memory_is_refused() {
        for address in [65536 - 15, 65536, u32::MAX] {
            let refused = Contract::read(&record(GOOD), address).unwrap_err();
            assert!(matches!(refused, ContractError::OutOfBounds { .. }), "{address}");
        }
    }
}
