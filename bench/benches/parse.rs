//! The request parser alone: a small GET and a browser's.

use criterion::{Criterion, criterion_group, criterion_main};
use midge_bench::harness::HEAD;
use midge_net::http::request::{Head, parse};

/// A request as a browser sends it.
const BROWSER: &[u8] = b"GET /notes/42?sort=title&page=2 HTTP/1.1\r\nhost: localhost:8080\r\n\
connection: keep-alive\r\nsec-ch-ua: \"Chromium\";v=\"130\", \"Not?A_Brand\";v=\"99\"\r\n\
sec-ch-ua-mobile: ?0\r\nsec-ch-ua-platform: \"Linux\"\r\nupgrade-insecure-requests: 1\r\n\
user-agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/130.0.0.0 Safari/537.36\r\n\
accept: text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8\r\n\
sec-fetch-site: none\r\nsec-fetch-mode: navigate\r\nsec-fetch-dest: document\r\n\
accept-encoding: gzip, deflate, br, zstd\r\naccept-language: en-US,en;q=0.9\r\n\r\n";

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
