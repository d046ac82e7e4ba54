//! The guests of these tests, in text form, and the examples as they are committed.

use std::path::PathBuf;

use crate::program::workspace;

/// Answers `hello`.
pub const HELLO: &str = include_str!("../guests/hello.wat");
/// Answers a body with itself, and nothing with `hello`.
pub const ECHO: &str = include_str!("../guests/echo.wat");
/// Answers with the bytes of its peer's address and port.
pub const PEER: &str = include_str!("../guests/peer.wat");
/// Answers what the body tells it to, true or not.
pub const CLAIMS: &str = include_str!("../guests/claims.wat");
/// Does the harm that the query's first letter names.
pub const HARM: &str = include_str!("../guests/harm.wat");

/// Reads and writes piece by piece, well or badly, as the query's first letter says.
pub const STREAMS: &str = include_str!("../guests/streams.wat");

/// Changes every state that it can, and answers `1` if it found that of a fresh instance.
pub const STATEFUL: &str = include_str!("../guests/stateful.wat");
/// Recurses as deep as the body says, then does what it says.
pub const EDGE: &str = include_str!("../guests/edge.wat");

/// Returns the committed module of an example.
///
/// # Panics
/// If there is none.
#[must_use]
pub fn example(name: &str) -> Vec<u8> {
    let path = example_folder(name).join(format!("{name}.wasm"));
    std::fs::read(path).expect("examples are committed with their modules")
}

/// Returns the folder of an example.
#[must_use]
pub fn example_folder(name: &str) -> PathBuf {
    workspace().join("examples").join(name)
}
