//! Goal: no bytes of a peer make a parser panic, or mean one thing whole and another in pieces.
//! Method: the checks of the fuzz targets (`fuzz/README.md`), on mutated inputs of their corpora and on pieces of
//! heads, right and wrong. The connection's is in `src/endpoint/mutation.rs`.

use proptest::prelude::{prop, proptest};
use proptest::sample::select;

#[path = "../../fuzz/checks/chunked.rs"]
mod chunked;
#[path = "../../fuzz/checks/cuts.rs"]
mod cuts;
#[path = "../../fuzz/checks/head.rs"]
mod head;
#[path = "../../fuzz/checks/mutate.rs"]
mod mutate;

/// Mutated inputs for each parser: a second or two.
const ROUNDS: u32 = 50_000;

#[test]
fn mutated_heads_are_read_or_refused() {
    mutate::rounds("head", ROUNDS, head::check);
}

#[test]
fn mutated_chunks_are_decoded_or_refused() {
    mutate::rounds("chunked", ROUNDS, chunked::check);
}

/// Pieces of heads, right and wrong, from which a property draws.
const PIECES: &[&str] = &[
    "GET",
    "POST",
    "get",
    " ",
    " ",
    "/",
    "/a?b",
    "*",
    "http://a/",
    "HTTP/1.1",
    "HTTP/1.0",
    "\r\n",
    "\r\n",
    "\r\n\r\n",
    "\n",
    "\r",
    "Host: a\r\n",
    "host:b",
    ": ",
    "Content-Length: 3\r\n",
    "\0",
    "Transfer-Encoding: chunked\r\n",
    "x: y\r\n",
    "Connection: close\r\n",
    "\u{e9}",
    "#",
    "\t",
    "GET / HTTP/1.1\r\nHost: a\r\n",
    "Expect: 100-continue\r\n",
    "X-Long: aaaaaaaaaaaaaaaaaaaaaa\r\n",
];

proptest! {
    #[test]
    fn heads_of_any_pieces_are_read_or_refused(
        pieces in prop::collection::vec(select(PIECES), 0..14),
    ) {
        head::check(pieces.concat().as_bytes());
    }
}
