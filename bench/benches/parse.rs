//! The request parser alone: a small GET and a browser's.

use criterion::{Criterion, criterion_group, criterion_main};
use midge_bench::harness::{BROWSER, HEAD};
use midge_net::http::request::{Head, parse};

fn parsers(criterion: &mut Criterion) {
    for (name, text) in [("small_get", HEAD), ("browser_get", BROWSER)] {
        let mut bytes = text.to_vec();
        let mut head = Head::default();
        criterion.bench_function(&format!("parse_{name}_{}_bytes", text.len()), |bencher| {
            bencher.iter(|| parse(std::hint::black_box(&mut bytes), &mut head));
        });
    }
}

criterion_group!(benches, parsers);
criterion_main!(benches);
