//! Write midge functions in Rust.
//!
//! ```
//! use midge_guest::{FunctionError, Request, Response};
//!
//! #[midge_guest::function(area = 65536)]
//! fn handle<'a>(request: &Request<'a>) -> Result<Response<'a>, FunctionError> {
//!     let name = request.parameter_text("name").unwrap_or("world");
//!     Ok(Response::text(format_args!("Hello, {name}!\n")))
//! }
//! ```
//!
//! Built as a `cdylib` for `wasm32-unknown-unknown`, this exports the contract's names. Built for the
//! developer's own machine, the same handler can be tested: lay out a block with `midge_abi::request`, read
//! it with [`Request::read`], look at the [`Response`].
//!
//! Memory, when linked with `-zstack-size=` some pages and 2 KiB (see `examples/.cargo/config.toml`):
//!
//!   0       | stack, grows down                | an overflow runs below address 0 and traps
//!           | constants, statics               |
//!   `Guest` | response | request block | heap -> ...
//!
//! Invariants: the heap begins anew with each call and nothing in it is freed before; what a request lends
//! out lives as long as the call.
//! Not here: the host's side (`midge-abi`), growing the memory.
#![no_std]

#[cfg(feature = "alloc")]
extern crate alloc;
#[cfg(any(test, feature = "std", not(target_arch = "wasm32")))]
extern crate std;

pub mod layout; // the records, byte by byte

mod request; // reading the block
mod response; // building an answer
mod handler; // what can be exported
#[cfg(feature = "json")]
mod json; // requests and answers by serde

mod stream; // bodies piece by piece
mod trailers; // fields behind a body

pub mod fetch; // requests to other servers

mod bytes; // what can be a body or a header value
mod error; // what becomes an error record, or a refusal
mod fields; // fields as the host lays them out
mod form; // undoing percent and form encoding

pub mod clock; // import: time
pub mod log; // import: lines for the host's log
pub mod random; // import: chance

mod heap; // the heap behind the request, fenced
mod host; // the imports themselves, fenced

#[cfg(any(test, target_arch = "wasm32"))]
mod bump; // arithmetic of the heap

#[cfg(target_arch = "wasm32")]
#[doc(hidden)]
pub mod export; // what `export!` expands to, fenced

#[cfg(all(target_arch = "wasm32", not(feature = "std")))]
mod panic; // a panic logs its message and traps

pub use bytes::IntoBytes;
pub use error::FunctionError;
pub use handler::Handler;
#[doc(hidden)]
pub use handler::checked;
#[cfg(feature = "json")]
pub use json::Json;
pub use layout::Method;
pub use midge_guest_macros::function;
pub use request::Request;
pub use response::{RESPONSE_HEADERS_MAX, Response};
pub use stream::{BodyReader, BodyWriter};
pub use trailers::{TRAILERS_MAX, Trailers};

/// Exports a function to the host: `export!(handle, area = 65536, heap = 65536, initialize = warm_up)`. The attribute
/// [`function`] before the function itself does the same; this is for one that stands elsewhere.
///
/// `handle` is a [`Handler`], most often a `fn<'a>(&Request<'a>) -> Result<Response<'a>, FunctionError>`. All but it
/// may be left out:
///
/// - `area`: bytes for head, headers and body of a request (65536);
/// - `heap`: bytes beyond the area; what a request leaves of the area is heap too (65536);
/// - `initialize`: a `fn()` that runs once, when the artifact is built. What it allocates stays.
#[macro_export]
macro_rules! export {
    ($handler:path $(, area = $area:expr)? $(, heap = $heap:expr)? $(, initialize = $initialize:path)? $(,)?) => {
        #[cfg(target_arch = "wasm32")]
        #[allow(unsafe_code, reason = "exports the contract's names; the proofs stand in midge_guest::export")]
        const _: () = {
            const AREA: usize = [$($area,)? 65536][0];
            const HEAP: usize = [$($heap,)? 65536][0];
            static GUEST: $crate::export::Guest<{ AREA + HEAP }> = $crate::export::Guest::new();
            static CONTRACT: $crate::export::ContractRecord = GUEST.contract(AREA);

            #[unsafe(no_mangle)]
            extern "C" fn midge_contract() -> &'static $crate::export::ContractRecord {
                &CONTRACT
            }

            #[unsafe(no_mangle)]
            extern "C" fn midge_handle(_request: usize, size: usize) -> *const $crate::layout::ResponseRecord {
                GUEST.handle(size, $handler)
            }

            $(
                #[unsafe(no_mangle)]
                extern "C" fn _initialize() {
                    GUEST.initialize($initialize);
                }
            )?
        };
        // Elsewhere what is exported is only checked, so that the crate's own tests can call it.
        #[cfg(not(target_arch = "wasm32"))]
        const _: () = {
            $(const _: usize = $area;)?
            $(const _: usize = $heap;)?
            $(const _: fn() = $initialize;)?
            $crate::checked(&$handler);
        };
    };
}

/// The attribute says what it cannot take.
///
/// ```
/// # use midge_guest::{FunctionError, Request, Response};
/// #[midge_guest::function(heap = 4096, area = 4096,)]
/// pub(crate) fn handle<'a>(_: &Request<'a>) -> Result<Response<'a>, FunctionError> { unimplemented!() }
/// ```
/// ```compile_fail
/// # use midge_guest::{FunctionError, Request, Response};
/// #[midge_guest::function(haep = 4096)]
/// fn handle<'a>(_: &Request<'a>) -> Result<Response<'a>, FunctionError> { unimplemented!() }
/// ```
/// ```compile_fail
/// # use midge_guest::{FunctionError, Request, Response};
/// #[midge_guest::function(heap = 4096, heap = 4096)]
/// fn handle<'a>(_: &Request<'a>) -> Result<Response<'a>, FunctionError> { unimplemented!() }
/// ```
/// ```compile_fail
/// # use midge_guest::{FunctionError, Request, Response};
/// #[midge_guest::function(heap)]
/// fn handle<'a>(_: &Request<'a>) -> Result<Response<'a>, FunctionError> { unimplemented!() }
/// ```
/// ```compile_fail
/// #[midge_guest::function]
/// fn handle() -> u32 { 5 }
/// ```
/// ```compile_fail
/// #[midge_guest::function]
/// struct Handle;
/// ```
#[cfg(doctest)]
struct Attribute;
