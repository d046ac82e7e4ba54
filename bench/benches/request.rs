//! The contract's two copies, and a whole call of the hello function in process.

use criterion::{Criterion, criterion_group, criterion_main};
use midge_abi::request::{block_size, encode};
use midge_abi::response::Response;
use midge_bench::guests;
use midge_bench::harness::{HEAD, HEADERS, Harness, artifact, request};
use midge_loader::engine::Engines;
use midge_loader::start::Technique;

fn contract(criterion: &mut Criterion) {
    let request = request([7; 16]);
    let mut block = vec![0; block_size(HEAD.len(), HEADERS.len(), 0)];
    criterion.bench_function("encode", |bencher| {
        bencher.iter(|| encode(&mut block, &request, HEADERS.into_iter()));
    });
    let mut memory = vec![0u8; 65536];
    memory[64] = 200;
    memory[65] = 0;
    criterion.bench_function("decode", |bencher| {
        bencher.iter(|| Response::read(std::hint::black_box(&memory), 64, 1024).is_ok());
    });
}

fn call(criterion: &mut Criterion) {
    let engines = Engines::new();
    let guest = artifact(guests::HELLO, &engines).expect("sound");
    for technique in [Technique::Restore, Technique::Reuse, Technique::Pool] {
        let mut harness = Harness::new(&guest, technique, &engines).expect("eligible");
        criterion.bench_function(&format!("hello_{technique}"), |bencher| {
            bencher.iter(|| harness.call());
        });
    }
}

criterion_group!(benches, contract, call);
criterion_main!(benches);
