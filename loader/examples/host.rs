//! The smallest host: builds a module, then calls it with a pristine instance for each request.
//!
//! `cargo run --release -p midge-loader --example host -- examples/hello/hello.wasm`

use std::sync::Arc;

use midge_abi::imports::Level;
use midge_abi::request::{HeadSpan, Request, block_size, encode};
use midge_abi::response::{Answer, Response};
use midge_loader::artifact::Artifact;
use midge_loader::build::build;
use midge_loader::context::{RequestContext, Services};
use midge_loader::drive::CallEnd;
use midge_loader::engine::Engines;
use midge_loader::function::{Function, FunctionLimits};
use midge_loader::slot::Progress;
use midge_loader::start::{AnyTechnique, StartTechnique, Technique};

/// A guest's clocks stand still, and its chance is not secret: this is an example.
struct Quiet;

impl Services for Quiet {
    fn log(&self, _request_id: &[u8; 16], _level: Level, _line: &[u8]) {}

    fn wall_ns(&self) -> u64 {
        0
    }

    fn monotonic_ns(&self) -> u64 {
        0
    }

    fn seed(&self, _request_id: &[u8; 16]) -> [u8; 32] {
        [0; 32]
    }
}

#[expect(clippy::print_stdout, reason = "an example shows what it does")]
fn main() -> Result<(), Box<dyn std::error::Error>> {
    let path = std::env::args().nth(1).ok_or("name a module")?;
    let engines = Engines::new();
    let built = build(&path, &std::fs::read(&path)?, &engines)?;
    let artifact = Artifact::from_bytes(&built.bytes, &engines)?;
    let limits = FunctionLimits::of_memory(64 << 20);
    let function =
        Function::register(&artifact, Technique::Restore, &engines, Arc::new(Quiet), limits)?;
    let function = Arc::new(function);
    let mut slots = AnyTechnique::new(Arc::clone(&function), 1);

    let head = b"GET /?name=Ada HTTP/1.1\r\n\r\n";
    let span = |offset, size| HeadSpan { offset, size };
    for _ in 0..3 {
        let request = Request {
            head,
            tail: b"",
            method: midge_abi::contract::Method::Get,
            method_name: span(0, 3),
            target: span(4, 10),
            path: span(4, 1),
            query: span(6, 8),
            authority: span(0, 0),
            is_http_1_0: false,
            body: &[],
            request_id: [0; 16],
            deadline_ns: u64::MAX,
            peer_address: [0; 16],
            peer_port: 0,
        };
        let started = slots.take()?;
        let mut pristine = started.pristine;
        let size = block_size(head.len(), 0, 0);
        let area = pristine.area(function.area(), size).ok_or("out of mappings")?;
        encode(area, &request, [].into_iter());
        let context = RequestContext { request_id: [0; 16], began_ns: 0, time_ns: u64::MAX };
        let Progress::Done(used) = pristine.call(context, function.area(), size) else {
            return Err("nobody moves the epoch, so no call is suspended".into());
        };
        let CallEnd::Returned(address) = *used.end() else {
            return Err("the guest trapped".into());
        };
        if let Answer::Response(response) = Response::read(used.memory(), address, 1 << 20)? {
            let body = String::from_utf8_lossy(response.body());
            println!("{} {}: {body}", started.tier.name(), response.status());
        }
        let _kept = slots.give(used);
    }
    Ok(())
}
