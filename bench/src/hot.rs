//! What runs for each request beside the call, repeated, for counts of instructions.
//!
//! In the library, and not in the lab's program, and with input that the compiler does not see: it splits a program into
//! units by all that it holds, and a command more in the program changed what was inlined here, and with that a count by a
//! seventh.

use std::hint::black_box;

use anyhow::{Result, ensure};
use midge_abi::request::{block_size, encode};
use midge_abi::response::Response;
use midge_net::http::chunked::Decoder;
use midge_net::http::request::{Head, parse};
use midge_net::http::response::{self, Circumstances, DateLine};

use crate::harness::{HEAD, HEADERS, request};

/// Parses a request so often.
///
/// # Errors
/// If it is refused.
pub fn parsed(text: &[u8], count: u32) -> Result<()> {
    let mut bytes = text.to_vec();
    let mut head = Head::default();
    for _ in 0..count {
        let result = parse(black_box(&mut bytes), &mut head);
        ensure!(result.is_ok(), "the request is sound");
    }
    Ok(())
}

/// Decodes a body of 1 KiB in 16 chunks so often.
///
/// # Errors
/// If it is refused.
pub fn decoded(count: u32) -> Result<()> {
    let mut text = Vec::new();
    for _ in 0..16 {
        text.extend_from_slice(b"40\r\n");
        text.extend_from_slice(&[b'x'; 64]);
        text.extend_from_slice(b"\r\n");
    }
    text.extend_from_slice(b"0\r\n\r\n");
    let mut bytes = text.clone();
    for _ in 0..count {
        bytes.copy_from_slice(&text);
        let decoded = Decoder::new().decode(black_box(&mut bytes), 0, 0);
        ensure!(decoded.is_ok_and(|decoded| decoded.is_complete), "the body is sound");
    }
    Ok(())
}

/// Encodes a small response so often.
///
/// # Errors
/// If it is refused.
pub fn encoded(count: u32) -> Result<()> {
    let date = DateLine::new(1_700_000_000);
    let circumstances =
        Circumstances { is_head: false, version_minor: 1, keep_alive: true, is_chunked: false };
    let headers: [(&[u8], &[u8]); 2] =
        [(b"content-type", b"text/plain; charset=utf-8"), (b"cache-control", b"no-store")];
    let mut output = Vec::with_capacity(4096);
    for _ in 0..count {
        output.clear();
        // Hidden from the compiler: of lines that it knows it checks nothing when it inlines this.
        let lines = black_box(headers).into_iter();
        let body = black_box(b"Hello, world!\n");
        let sent = response::encode(&mut output, &date, circumstances, 200, lines, body);
        ensure!(sent.is_ok(), "the response is sound");
    }
    Ok(())
}

/// Writes a small request as the contract has it so often.
///
/// # Errors
/// None; it is of the others' form.
pub fn written(count: u32) -> Result<()> {
    let request = request([7; 16]);
    let mut block = vec![0; block_size(HEAD.len(), HEADERS.len(), 0)];
    for _ in 0..count {
        encode(black_box(&mut block), &request, HEADERS.into_iter());
    }
    Ok(())
}

/// Reads a response as the contract has it so often.
///
/// # Errors
/// If it is refused.
pub fn read(count: u32) -> Result<()> {
    let mut memory = vec![0u8; 65536];
    memory[64] = 200;
    for _ in 0..count {
        ensure!(Response::read(black_box(&memory), 64, 1024).is_ok(), "the response is sound");
    }
    Ok(())
}
