//! WebAssembly modules in, pristine instances out.
//!
//! A module is built into an [`artifact`] once: validated, its start-up run, its state taken as a snapshot,
//! its code compiled. A host opens the artifact, registers a [`function::Function`] for a technique, and
//! takes instances whose state is that of a new one, for every call.
//!
//! For a program that wants to call an untrusted guest and nothing else, [`embed::Embedded`] is the whole face;
//! `examples/filter.rs` is a small proxy made of it. `examples/host.rs` shows the parts by hand.
//!
//! Versions: as long as the first number is 0, the second changes with every change that can break a caller.
//! The contract with guests and the artifact's format have numbers of their own.
//!
//! Invariant: nothing here knows the network or the host program. A [`slot::Pristine`] comes from a start or
//! from a restore, and from nowhere else.

pub mod module; // what a module is: validation, imports, classes of state
pub mod link; // a component made a core module
mod component; // a component as the engine runs it, where it cannot be linked
pub mod files; // folders of files, read to be linked with it
pub mod rewrite; // the two forms that instances are made from
pub mod witness; // copies of a module that tell more of its state
pub mod lines; // which file and line a place in a module's code came from
pub mod build; // module in, artifact out
pub mod container; // how the parts of an artifact lie in its file
pub mod artifact; // the file: checks, mapping, writing
pub mod engine; // one engine for each family of techniques
pub mod context; // what the host keeps for an instance, and the imports
pub mod wait; // what a call waits for, and its answer
pub mod collect; // a streamed exchange from memory, for embedders without a network
pub mod image; // a template: what a memory holds in a fresh instance
pub mod memory; // a slot's memory: mapped over its template, restored by copying
pub mod function; // an artifact registered for a technique
pub mod slot; // the life of a slot, in types
pub mod start; // the techniques
pub mod instance; // an instance in its store
pub mod drive; // the future that owns an instance
pub mod trace; // what a trap says to a person
pub mod proof; // a technique's instances against truly fresh ones
pub mod embed; // all of it for other programs: bytes in, bytes out
pub mod mapping; // memory maps that unmap themselves
mod stack; // stacks of fibers, kept for the next instance
mod pagemap; // which pages were written, by the kernel's account
mod page; // pages set back to the template's content
mod code; // code pages that are executable already
mod fault; // first writes to pages
