//! What a restore costs: a call and its restore over the number of dirty pages, beside a call without one.

use std::time::Duration;

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use midge_bench::guests;
use midge_bench::harness::{Harness, artifact};
use midge_loader::engine::Engines;
use midge_loader::start::Technique;

fn restore(criterion: &mut Criterion) {
    let engines = Engines::new();
    let mut group = criterion.benchmark_group("restore");
    group.measurement_time(Duration::from_secs(2)).warm_up_time(Duration::from_millis(500));
    for pages in [1, 3, 8, 32, 128, 256] {
        let guest = artifact(guests::synthetic(pages, 2).as_bytes(), &engines).expect("sound");
        for technique in [Technique::Restore, Technique::Reuse] {
            let mut harness = Harness::new(&guest, technique, &engines).expect("eligible");
            let id = BenchmarkId::new(technique.name(), pages);
            group.bench_function(id, |bencher| bencher.iter(|| harness.call()));
        }
    }
    group.finish();
}

fn globals(criterion: &mut Criterion) {
    let engines = Engines::new();
    let mut group = criterion.benchmark_group("restore_globals");
    group.measurement_time(Duration::from_secs(2)).warm_up_time(Duration::from_millis(500));
    for globals in [0, 2, 16] {
        let guest = artifact(guests::synthetic(3, globals).as_bytes(), &engines).expect("sound");
        let mut harness = Harness::new(&guest, Technique::Restore, &engines).expect("eligible");
        group.bench_function(BenchmarkId::from_parameter(globals), |bencher| {
            bencher.iter(|| harness.call());
        });
    }
    group.finish();
}

criterion_group!(benches, restore, globals);
criterion_main!(benches);
