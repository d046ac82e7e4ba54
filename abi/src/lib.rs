//! What host and guest agree on.
//!
//! A guest is a core WebAssembly module that exports its memory, a contract record and one function; the
//! host lays a request into the guest's memory, calls, and reads a response record out. No parser and no
//! allocator is needed on the guest's side, and one copy is made in each direction.
//!
//! Invariant: nothing here knows the engine, the network or the host program. Everything that comes out of
//! a guest's memory is a claim until this crate has checked it.
#![forbid(unsafe_code)]

pub mod contract; // the exported names, the contract record, the layouts byte by byte
pub mod request; // host to guest: encode
pub mod response; // guest to host: decode, with every check
pub mod fetch; // requests that a guest makes
pub mod imports; // what a guest may call: names, signatures, limits
pub mod manifest; // what an artifact says about itself
pub mod problem; // refusals on the wire: one table
pub mod width; // lossless conversions between u32 and usize
