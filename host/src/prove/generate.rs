//! Requests drawn from a seed: made up, or given ones that were changed.
//!
//! Sizes are drawn by their logarithm, so that small ones are frequent and the largest occur.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};

use super::raw::RawRequest;

/// Longest body that is made up, whatever the function's area: more only takes time.
pub const BODY_BYTES_MAX: usize = 128 * 1024;
/// Headers that are made up.
const HEADERS_MAX: usize = 12;
/// Longest segment of a path, value of a query or of a header: short enough for all of them to fit a head.
const WORD_BYTES_MAX: usize = 300;
/// Segments of a path and parameters of a query.
const PARTS_MAX: usize = 5;
/// Changes of a given request.
const CHANGES_MAX: usize = 4;

const METHODS: [&str; 8] = ["GET", "POST", "HEAD", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE"];
const NAMES: [&str; 10] = [
    "accept",
    "accept-language",
    "authorization",
    "content-type",
    "cookie",
    "if-none-match",
    "origin",
    "user-agent",
    "x-forwarded-for",
    "x-request-id",
];
const WORDS: [&str; 14] = [
    "hello", "counter", "items", "name", "id", "width", "text", "select", "index", "theme", "a",
    "notes", "1", "%20",
];
const CHARACTERS: &[u8] = b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-._~";

/// Draws requests.
#[derive(Debug)]
pub struct Generator {
    seed: u64,
    given: Vec<RawRequest>,
    body_bytes_max: usize,
}

impl Generator {
    /// Makes one; half of its requests are given ones, changed, if there are any.
    #[must_use]
    pub fn new(seed: u64, given: Vec<RawRequest>, body_bytes_max: usize) -> Self {
        Self { seed, given, body_bytes_max: body_bytes_max.min(BODY_BYTES_MAX) }
    }

    /// Returns the nth request.
    #[must_use]
    pub fn nth(&self, nth: u64) -> RawRequest {
        let mut chance = Chance::new(self.seed, nth);
        if self.given.is_empty() || chance.below(2) == 0 {
            return self.made_up(&mut chance);
        }
        let mut request = chance.one_of(&self.given).clone();
        for _ in 0..=chance.below(CHANGES_MAX) {
            self.change(&mut request, &mut chance);
        }
        request
    }

    fn made_up(&self, chance: &mut Chance) -> RawRequest {
        let mut headers = vec![(b"host".to_vec(), b"localhost".to_vec())];
        for _ in 0..chance.size_up_to(HEADERS_MAX) {
            headers.push((chance.one_of(&NAMES).as_bytes().to_vec(), word(chance)));
        }
        let method = chance.one_of(&METHODS).as_bytes().to_vec();
        let has_body = chance.below(3) != 0;
        let body = if has_body { self.body(chance) } else { Vec::new() };
        RawRequest { method, target: target(chance), headers, body }
    }

    fn body(&self, chance: &mut Chance) -> Vec<u8> {
        let size = chance.size_up_to(self.body_bytes_max);
        let mut body = vec![0; size];
        match chance.below(5) {
            0 => chance.fill(&mut body),
            1 => body.fill(chance.byte()),
            2 => body.fill_with(|| *chance.one_of(CHARACTERS)),
            3 => body = repeated(&json(chance), size),
            _ => body = repeated(&[&word(chance)[..], b"=", &word(chance), b"&"].concat(), size),
        }
        body
    }

    fn change(&self, request: &mut RawRequest, chance: &mut Chance) {
        match chance.below(8) {
            0 => request.method = chance.one_of(&METHODS).as_bytes().to_vec(),
            1 => request.target = target(chance),
            2 => request.body = self.body(chance),
            3 => request.body.truncate(chance.below(request.body.len() + 1)),
            4 if !request.body.is_empty() => {
                let at = chance.below(request.body.len());
                request.body[at] = chance.byte();
            }
            5 if request.body.len() * 2 <= self.body_bytes_max => {
                request.body.extend_from_within(..);
            }
            // The first header stays: a request without a host is refused.
            6 if 1 < request.headers.len() => {
                let at = 1 + chance.below(request.headers.len() - 1);
                request.headers[at].1 = word(chance);
            }
            _ if request.headers.len() < HEADERS_MAX => {
                let name = chance.one_of(&NAMES).as_bytes().to_vec();
                request.headers.push((name, word(chance)));
            }
            _ => {}
        }
    }
}

fn target(chance: &mut Chance) -> Vec<u8> {
    let mut target = Vec::new();
    for _ in 0..=chance.below(PARTS_MAX) {
        target.push(b'/');
        target.extend_from_slice(&word(chance));
    }
    for nth in 0..chance.below(PARTS_MAX) {
        target.push(if nth == 0 { b'?' } else { b'&' });
        target.extend_from_slice(&word(chance));
        target.push(b'=');
        target.extend_from_slice(&word(chance));
    }
    target
}

fn word(chance: &mut Chance) -> Vec<u8> {
    if chance.below(3) != 0 {
        return chance.one_of(&WORDS).as_bytes().to_vec();
    }
    let size = chance.size_up_to(WORD_BYTES_MAX);
    (0..size).map(|_| *chance.one_of(CHARACTERS)).collect()
}

fn json(chance: &mut Chance) -> Vec<u8> {
    let word = String::from_utf8_lossy(&word(chance)).into_owned();
    let number = chance.below(100_000);
    format!("[{{\"{word}\": {number}, \"items\": [1, 2.5, null, true, \"{word}\"]}}]").into_bytes()
}

fn repeated(part: &[u8], size: usize) -> Vec<u8> {
    part.iter().copied().cycle().take(size).collect()
}

/// Chance that can be had again.
struct Chance(ChaCha8Rng);

impl Chance {
    fn new(seed: u64, nth: u64) -> Self {
        let mut key = [0; 32];
        key[..8].copy_from_slice(&seed.to_le_bytes());
        key[8..16].copy_from_slice(&nth.to_le_bytes());
        Self(ChaCha8Rng::from_seed(key))
    }

    /// Returns a number below `bound`, which is not 0. That the lowest are a little likelier matters to
    /// nobody here.
    fn below(&mut self, bound: usize) -> usize {
        let drawn = usize::try_from(self.0.next_u64()).expect("64 bits");
        drawn % bound
    }

    /// Returns a size up to `max`, each order of magnitude as likely as another.
    fn size_up_to(&mut self, max: usize) -> usize {
        let orders = usize::try_from(max.checked_ilog2().map_or(0, |log| log + 1)).expect("small");
        let bound = 1usize << self.below(orders + 1);
        self.below(bound).min(max)
    }

    fn byte(&mut self) -> u8 {
        let [byte, ..] = self.0.next_u32().to_le_bytes();
        byte
    }

    fn fill(&mut self, target: &mut [u8]) {
        self.0.fill_bytes(target);
    }

    fn one_of<'a, T>(&mut self, choices: &'a [T]) -> &'a T {
        &choices[self.below(choices.len())]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::call::Facts;

    const FACTS: Facts<'_> =
        Facts { request_id: [1; 16], deadline_ns: 5, extras: &crate::extras::NONE };

    #[test]
    fn every_request_is_one_that_the_network_takes() {
        let given = b"POST /a HTTP/1.1\r\nHost: x\r\nAccept: y\r\nContent-Length: 3\r\n\r\nabc";
        let given = vec![RawRequest::read(given).unwrap()];
        let generator = Generator::new(3, given, 5000);
        let mut sizes = std::collections::BTreeSet::new();
        for nth in 0..2000 {
            let request = generator.nth(nth);
            assert!(request.body.len() <= 5000);
            sizes.insert(request.body.len().checked_ilog2());
            request.block(FACTS).unwrap_or_else(|error| panic!("{nth}: {error}: {request:?}"));
        }
        assert!(12 <= sizes.len(), "bodies of many sizes: {sizes:?}");
    }

    #[test]
    fn a_seed_gives_the_same_requests_again() {
        let [once, again, other] = [5, 5, 6].map(|seed| Generator::new(seed, Vec::new(), 1000));
        let requests =
            |generator: &Generator| (0..50).map(|nth| generator.nth(nth)).collect::<Vec<_>>();
        assert_eq!(requests(&once), requests(&again));
        assert_ne!(requests(&once), requests(&other));
    }
}
