//! Twenty requests of one turn: each slot restored at once, or all of them when the turn has ended.

use std::time::Duration;

use criterion::{Criterion, criterion_group, criterion_main};
use midge_bench::guests;
use midge_bench::harness::{Harness, artifact};
use midge_loader::engine::Engines;
use midge_loader::start::Technique;

/// Requests of a turn under load.
const TURN: usize = 20;

fn order(criterion: &mut Criterion) {
    let engines = Engines::new();
    let guest = artifact(guests::synthetic(3, 2).as_bytes(), &engines).expect("sound");
    let mut group = criterion.benchmark_group("restore_order");
    group.measurement_time(Duration::from_secs(3)).warm_up_time(Duration::from_millis(500));
    let mut harness = Harness::new(&guest, Technique::Restore, &engines).expect("eligible");
    group.bench_function("at_once_x20", |bencher| {
        bencher.iter(|| {
            for _ in 0..TURN {
                harness.call();
            }
        });
    });
    let mut harness = Harness::new(&guest, Technique::Restore, &engines).expect("eligible");
    let mut turn = Vec::with_capacity(TURN);
    group.bench_function("after_the_turn_x20", |bencher| {
        bencher.iter(|| {
            for _ in 0..TURN {
                turn.push(harness.serve().1);
            }
            for used in turn.drain(..) {
                harness.give(used);
            }
        });
    });
    group.finish();
}

criterion_group!(benches, order);
criterion_main!(benches);
