//! What a fuzzer does, in small: inputs of a corpus, mutated for a number of rounds. For every test run, without a
//! nightly compiler; a fuzzer sees which inputs reach new code and this does not.

use std::path::Path;

/// Checks every input of a target's corpus, then so many mutated ones. The same each time: a failure is found again
/// by its round.
pub(crate) fn rounds(target: &str, count: u32, check: fn(&[u8])) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus").join(target);
    let mut paths: Vec<_> = std::fs::read_dir(folder)
        .expect("a target has a corpus")
        .map(|entry| entry.expect("a corpus can be listed").path())
        .filter(|path| is_kept(path))
        .collect();
    paths.sort();
    let corpus: Vec<_> =
        paths.iter().map(|path| std::fs::read(path).expect("an input can be read")).collect();
    assert!(!corpus.is_empty(), "`{target}` has inputs to begin with");
    corpus.iter().for_each(|input| check(input));

    let mut numbers = Numbers(0x9E37_79B9_7F4A_7C15);
    for round in 0..count {
        let mut input = corpus[numbers.below(corpus.len())].clone();
        for _ in 0..=numbers.below(4) {
            mutate(&mut input, &mut numbers);
        }
        let checked = std::panic::catch_unwind(|| check(&input));
        assert!(checked.is_ok(), "`{target}`, round {round}: {input:?}");
    }
}

/// Seeds, and what a fuzzer found; what else lies there is a fuzzer's own.
fn is_kept(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    name.starts_with("seed-") || name.starts_with("found-")
}

/// Numbers that lie at the edges of something.
const EDGES: [u32; 10] =
    [0, 1, 15, 64, 0xFFFF, 0x1_0000, 0x7FFF_FFFF, 0x8000_0000, u32::MAX - 15, u32::MAX];

fn mutate(input: &mut Vec<u8>, numbers: &mut Numbers) {
    if input.is_empty() {
        input.push(0);
    }
    let at = numbers.below(input.len());
    match numbers.below(6) {
        0 => input[at] ^= 1 << numbers.below(8),
        1 => input[at] = u8::try_from(numbers.below(256)).expect("below 256"),
        2 => input.truncate(at),
        3 => input.insert(at, 0),
        4 => {
            let from = numbers.below(input.len());
            input[at] = input[from];
        }
        _ => {
            let edge = EDGES[numbers.below(EDGES.len())].to_le_bytes();
            let end = input.len().min(at + edge.len());
            input[at..end].copy_from_slice(&edge[..end - at]);
        }
    }
}

/// Xorshift (Marsaglia, 2003): chance that is the same each time.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        let limit = u64::try_from(limit).expect("64-bit targets alone");
        usize::try_from(self.0 % limit).expect("below a `usize`")
    }
}
