//! What the exported functions do: the memory that a guest reserves, and the way of one call.
//!
//!   Guest | response record 32 B | header table 256 B | area: request block | heap ... |
//!
//! Invariant: the host calls one export at a time and never from within an import, so that a call has the
//! whole of a `Guest` for itself.
#![expect(unsafe_code, reason = "owns the area that the host writes requests into")]

use core::cell::UnsafeCell;
use core::mem::offset_of;
use core::{ptr, slice};

use crate::error::FunctionError;
use crate::handler::Handler;
use crate::heap::{self, Region};
use crate::layout::{
    AREA_ALIGN, AREA_SIZE_MAX, AREA_SIZE_MIN, Contract, MAGIC, RESPONSE_ERROR, ResponseHeader,
    ResponseRecord, VERSION,
};
use crate::request::Request;
use crate::response::{RESPONSE_HEADERS_MAX, Response};

/// [`Contract`] with a pointer, which a constant can hold where it cannot hold an address.
#[repr(C)]
pub struct ContractRecord {
    magic: u32,
    version: u16,
    reserved: u16,
    area: *const u8,
    area_size: usize,
}

const _: () = assert!(size_of::<ContractRecord>() == size_of::<Contract>());
const _: () = assert!(offset_of!(ContractRecord, area) == offset_of!(Contract, area));
const _: () = assert!(offset_of!(ContractRecord, area_size) == offset_of!(Contract, area_size));

// SAFETY: it is never written, and its pointer is only read as a number, by the host.
unsafe impl Sync for ContractRecord {}

struct Output {
    record: ResponseRecord,
    headers: [ResponseHeader; RESPONSE_HEADERS_MAX],
}

/// The memory of a guest: `BYTES` is the area and the heap beyond it.
#[repr(C, align(16))]
pub struct Guest<const BYTES: usize> {
    output: UnsafeCell<Output>,
    region: UnsafeCell<[u8; BYTES]>,
}

const _: () = assert!(align_of::<Guest<0>>() == AREA_ALIGN as usize);
const _: () = assert!(offset_of!(Guest<16>, region).is_multiple_of(AREA_ALIGN as usize));

// SAFETY: wasm32 without atomics has one thread (heap.rs refuses others).
unsafe impl<const BYTES: usize> Sync for Guest<BYTES> {}

impl<const BYTES: usize> Default for Guest<BYTES> {
    fn default() -> Self {
        Self::new()
    }
}

impl<const BYTES: usize> Guest<BYTES> {
    /// Returns memory that is all zero.
    #[must_use]
    pub const fn new() -> Self {
        let record = ResponseRecord {
            status: 0,
            flags: 0,
            header_count: 0,
            headers: 0,
            body: 0,
            body_size: 0,
            reserved: [0; 3],
        };
        let row = ResponseHeader { name: 0, name_size: 0, value: 0, value_size: 0 };
        Self {
            output: UnsafeCell::new(Output { record, headers: [row; RESPONSE_HEADERS_MAX] }),
            region: UnsafeCell::new([0; BYTES]),
        }
    }

    /// Returns the record for the host. Evaluated by the compiler, so that a wrong size does not build.
    #[must_use]
    pub const fn contract(&'static self, area_size: usize) -> ContractRecord {
        assert!(AREA_SIZE_MIN as usize <= area_size && area_size <= AREA_SIZE_MAX as usize);
        assert!(area_size <= BYTES);
        let area = self.region.get().cast::<u8>();
        ContractRecord { magic: MAGIC, version: VERSION, reserved: 0, area, area_size }
    }

    /// Answers the request that the host wrote at the start of the region.
    pub fn handle<Form>(
        &'static self,
        size: usize,
        handler: impl Handler<Form>,
    ) -> *const ResponseRecord {
        let region = self.heap_behind(size);
        // SAFETY: `heap_behind` found that `size` bytes lie in the region, which is initialised. Nobody
        // writes them during the call: the heap begins behind them, and the host waits for the answer.
        let block = unsafe { slice::from_raw_parts(region.base.cast_const(), size) };
        // SAFETY: the region lives forever, its end is `BYTES`, and `block` ends where the heap begins.
        let answer = unsafe { heap::begin(&region) }
            .and_then(|()| Request::read(block))
            .and_then(|request| handler.answer(&request));

        let output = self.output.get();
        // SAFETY: the call has the whole guest for itself, and this is the only reference to `output`.
        let written = unsafe { &mut *output };
        match answer {
            Ok(response) if response.is_written() => return ptr::null(),
            Ok(response) => write_response(written, &response),
            Err(error) => write_error(written, &error),
        }
        ptr::from_ref(&written.record)
    }

    /// Runs `warm_up` with a heap whose pieces are kept for good.
    pub fn initialize(&'static self, warm_up: fn()) {
        let region = self.heap_behind(0);
        // SAFETY: the region lives forever, its end is `BYTES`, and there is no request yet.
        unsafe { heap::initialize(&region, warm_up) }
    }

    fn heap_behind(&'static self, block_size: usize) -> Region {
        assert!(block_size <= BYTES, "the host wrote a block that does not fit into the area");
        let start = block_size.next_multiple_of(AREA_ALIGN as usize);
        Region { base: self.region.get().cast(), start, end: BYTES }
    }
}

fn write_response(output: &mut Output, response: &Response<'_>) {
    let headers = response.headers();
    let header_count = size(headers.len());
    for (row, (name, value)) in output.headers.iter_mut().zip(headers) {
        *row = header_row(name, value);
    }
    output.record = ResponseRecord {
        status: response.status(),
        flags: 0,
        header_count,
        headers: address(output.headers.as_ptr()),
        body: address(response.body().as_ptr()),
        body_size: size(response.body().len()),
        reserved: [0; 3],
    };
}

/// Sends the head of a response that is written piece by piece.
pub(crate) fn start_response(response: &Response<'_>) {
    let row = ResponseHeader { name: 0, name_size: 0, value: 0, value_size: 0 };
    let record = ResponseRecord::default();
    let mut output = Output { record, headers: [row; RESPONSE_HEADERS_MAX] };
    write_response(&mut output, response);
    crate::host::response_start(&output.record);
}

fn write_error(output: &mut Output, error: &FunctionError) {
    let is_refusal = error.is_refusal();
    output.headers[0] = header_row(b"content-type", b"application/problem+json");
    output.record = ResponseRecord {
        status: if is_refusal { error.status() } else { 0 },
        flags: if is_refusal { 0 } else { RESPONSE_ERROR },
        header_count: u32::from(is_refusal),
        headers: address(output.headers.as_ptr()),
        body: address(error.message().as_ptr()),
        body_size: size(error.message().len()),
        reserved: [0; 3],
    };
}

/// Returns a row of a header table, whose strings must outlive its use by the host.
pub(crate) fn header_row(name: &[u8], value: &[u8]) -> ResponseHeader {
    ResponseHeader {
        name: address(name.as_ptr()),
        name_size: size(name.len()),
        value: address(value.as_ptr()),
        value_size: size(value.len()),
    }
}

pub(crate) fn address<T>(pointer: *const T) -> u32 {
    size(pointer.addr())
}

pub(crate) fn size(bytes: usize) -> u32 {
    u32::try_from(bytes).expect("usize has 32 bits here")
}
