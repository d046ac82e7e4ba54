//! The records of the contract, version 1, as the guest sees them.
//!
//! The same as in `midge-abi`, which a guest cannot use: it is written for the host's 64 bits and std. The
//! test `abi/tests/drift.rs` compares the two field by field.

/// The version of the contract that this crate speaks.
pub const VERSION: u16 = 1;
/// First field of [`Contract`].
pub const MAGIC: u32 = u32::from_le_bytes(*b"MDGE");
/// The smallest request area.
pub const AREA_SIZE_MIN: u32 = 4 * 1024;
/// The largest request area.
pub const AREA_SIZE_MAX: u32 = 64 * 1024 * 1024;
/// The area's alignment.
pub const AREA_ALIGN: u32 = 16;
/// Bit of [`RequestHead::flags`]: the client speaks HTTP/1.0.
pub const HTTP_1_0: u32 = 1;
/// Bit of [`RequestHead::flags`]: the body goes on beyond the block.
pub const BODY_PARTIAL: u32 = 2;
/// Bit of [`ResponseRecord::flags`]: the function failed, the body is a message for the log.
pub const RESPONSE_ERROR: u16 = 1;

/// What the fetching imports return where something is not there yet.
pub const LATER: i32 = -1;
/// They return this less an error's code.
pub const ERRORS_FROM: i32 = -2;
/// Requests that one call may have under way, or answered and not closed.
pub const FETCHES_PER_CALL_MAX: usize = 16;
/// Most rows of one `wait`.
pub const WAIT_ROWS_MAX: usize = 64;
/// Bit of [`FetchRecord::flags`]: by TLS.
pub const FETCH_TLS: u32 = 1;
/// Bit of [`FetchRecord::flags`]: a body follows.
pub const FETCH_BODY: u32 = 2;
/// [`FetchRecord::body_size`] of a body whose end tells its length.
pub const BODY_SIZE_UNKNOWN: u64 = u64::MAX;
/// [`WaitRow::kind`]: more of the request's body.
pub const WAIT_BODY: u16 = 1;
/// [`WaitRow::kind`]: the head of a fetch's response.
pub const WAIT_FETCH_HEAD: u16 = 2;
/// [`WaitRow::kind`]: more of the body of a fetch's response.
pub const WAIT_FETCH_BODY: u16 = 3;
/// [`WaitRow::kind`]: room for more of a fetch's body.
pub const WAIT_FETCH_ROOM: u16 = 4;

/// What a guest says about itself.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Contract {
    /// [`MAGIC`].
    pub magic: u32,
    /// [`VERSION`].
    pub version: u16,
    /// Zero.
    pub reserved: u16,
    /// Address of the area.
    pub area: u32,
    /// Its size in bytes.
    pub area_size: u32,
}

/// A region of the request block.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Span {
    /// Bytes from the start of the block.
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
    /// Field value.
    pub value: Span,
}

/// The fixed start of a request block.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RequestHead {
    /// Size of the whole block.
    pub size: u32,
    /// [`VERSION`].
    pub version: u16,
    /// Code of a [`Method`].
    pub method: u16,
    /// Bits, see [`HTTP_1_0`].
    pub flags: u32,
    /// Rows of the header table.
    pub header_count: u32,
    /// Offset of the header table.
    pub headers: u32,
    /// Zero.
    pub reserved: u32,
    /// The method as it was sent.
    pub method_name: Span,
    /// The request target as it was sent.
    pub target: Span,
    /// The path of the target.
    pub path: Span,
    /// The query of the target.
    pub query: Span,
    /// Host and port.
    pub authority: Span,
    /// The body.
    pub body: Span,
    /// Identifies the request in logs.
    pub request_id: [u8; 16],
    /// The time that the call may take.
    pub deadline_ns: u64,
    /// The peer's address.
    pub peer_address: [u8; 16],
    /// The peer's port.
    pub peer_port: u16,
    /// Zero.
    pub reserved_tail: [u8; 14],
}

/// One row of a response's header table: addresses.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ResponseHeader {
    /// Address of the field name.
    pub name: u32,
    /// Its size.
    pub name_size: u32,
    /// Address of the field value.
    pub value: u32,
    /// Its size.
    pub value_size: u32,
}

/// What `midge_handle` returns the address of.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ResponseRecord {
    /// Status code.
    pub status: u16,
    /// 0, or [`RESPONSE_ERROR`].
    pub flags: u16,
    /// Rows of the header table.
    pub header_count: u32,
    /// Address of the header table.
    pub headers: u32,
    /// Address of the body.
    pub body: u32,
    /// Its size.
    pub body_size: u32,
    /// Zero.
    pub reserved: [u32; 3],
}

/// What a request of the guest's asks for. Pointers are addresses.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct FetchRecord {
    /// Bits, see [`FETCH_TLS`].
    pub flags: u32,
    /// Address of the method.
    pub method: u32,
    /// Its size.
    pub method_size: u32,
    /// Address of host and port.
    pub authority: u32,
    /// Its size.
    pub authority_size: u32,
    /// Address of path and query.
    pub target: u32,
    /// Its size.
    pub target_size: u32,
    /// Rows of the header table.
    pub header_count: u32,
    /// Address of the header table, rows of which are [`ResponseHeader`]s.
    pub headers: u32,
    /// Zero.
    pub reserved: u32,
    /// Size of the body, or [`BODY_SIZE_UNKNOWN`].
    pub body_size: u64,
    /// Longest time for a connection; 0 for the host's own.
    pub connect_ns: u64,
    /// Longest time for the response's head; 0 for the host's own.
    pub first_byte_ns: u64,
    /// Longest time between two pieces of its body; 0 for the host's own.
    pub between_bytes_ns: u64,
}

/// One thing that is waited for.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct WaitRow {
    /// [`WAIT_BODY`] or one of those that follow it.
    pub kind: u16,
    /// The host writes 1 where it is there, or never will be.
    pub is_ready: u16,
    /// Which fetch; 0 for the request's own body.
    pub handle: u32,
}

/// The method of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u16)]
pub enum Method {
    /// Not in this table: see `Request::method_name`.
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
    /// Returns the method of a code; [`Method::Other`] for unknown ones.
    #[must_use]
    pub const fn from_code(code: u16) -> Self {
        match code {
            1 => Self::Get,
            2 => Self::Head,
            3 => Self::Post,
            4 => Self::Put,
            5 => Self::Delete,
            6 => Self::Options,
            7 => Self::Patch,
            8 => Self::Trace,
            9 => Self::Connect,
            _ => Self::Other,
        }
    }
}
