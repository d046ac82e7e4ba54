//! The heap: what a request leaves of the area, and what `function!` asks beyond it.
//!
//! Memory is taken by moving a number. Nothing is given back but the piece that was taken last, for the
//! instance is made new after the call. Where the host does not do that (technique `reuse`), the heap
//! begins anew with each call, unless values of the last call are alive: then `begin` refuses.

#[cfg(all(target_arch = "wasm32", feature = "alloc"))]
mod global; // as the global allocator
#[cfg(not(target_arch = "wasm32"))]
mod native; // the stand-in for tests: std's heap
#[cfg(target_arch = "wasm32")]
mod wasm; // the region itself

#[cfg(all(not(target_arch = "wasm32"), feature = "alloc"))]
pub(crate) use native::keep;
#[cfg(not(target_arch = "wasm32"))]
pub(crate) use native::{fill, fill_rest, format};
#[cfg(all(target_arch = "wasm32", feature = "alloc"))]
pub(crate) use wasm::keep;
#[cfg(target_arch = "wasm32")]
pub(crate) use wasm::{Region, begin, fill, fill_rest, format, initialize};
