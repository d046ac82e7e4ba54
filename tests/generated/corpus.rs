//! Goal: what differed once never differs again. Method: each pair of files in `tests/corpus/prove` is
//! replayed under every technique that the module may use.
//!
//! `NAME.wat` or `NAME.wasm` is a function, `NAME.blocks` has its requests, one a line, as the hexadecimal
//! bytes that the guest finds in its area.

use std::path::{Path, PathBuf};

use midge_loader::start::Technique;
use midge_tests::program::workspace;

use crate::drive::Workbench;

/// Times that the requests of a file are sent, one after the other: each after each.
const ROUNDS: usize = 3;

fn functions() -> Vec<PathBuf> {
    let folder = workspace().join("tests/corpus/prove");
    let entries = std::fs::read_dir(folder).expect("the corpus is a part of the repository");
    let files = entries.map(|entry| entry.expect("a folder can be listed").path());
    let is_function =
        |file: &PathBuf| file.extension().is_some_and(|ending| ending == "wat" || ending == "wasm");
    let mut files: Vec<_> = files.filter(is_function).collect();
    files.sort();
    files
}

fn blocks(function: &Path) -> Vec<Vec<u8>> {
    let text = std::fs::read_to_string(function.with_extension("blocks"));
    let text = text.unwrap_or_else(|_| panic!("`{}` has its requests", function.display()));
    text.lines().map(block).collect()
}

fn block(line: &str) -> Vec<u8> {
    let digits = line.as_bytes().chunks(2);
    let byte = |pair: &[u8]| {
        let text = std::str::from_utf8(pair).expect("digits");
        u8::from_str_radix(text, 16).expect("hexadecimal digits")
    };
    digits.map(byte).collect()
}

#[test]
fn the_corpus_is_pristine() {
    let bench = Workbench::new();
    let functions = functions();
    assert!(4 <= functions.len(), "the corpus is there: {functions:?}");
    for function in functions {
        let source = std::fs::read(&function).unwrap();
        let blocks = blocks(&function);
        let all = blocks.iter().cycle().take(ROUNDS * blocks.len());
        let mut techniques = vec![None];
        techniques
            .extend([Technique::Mmap, Technique::Pool, Technique::Restore].into_iter().map(Some));
        for technique in techniques {
            let shown = function.display();
            let allowed = bench.is_allowed(&source, technique).expect("the function is sound");
            if !allowed {
                continue;
            }
            let (tally, found) =
                bench.prove("corpus", &source, technique, all.clone().cloned()).unwrap();
            assert!(found.is_none(), "{shown}: {}", found.map_or_else(String::new, |f| f.text));
            assert_eq!(tally.compared.calls, (ROUNDS * blocks.len()) as u64);
        }
    }
}

/// The judge is no use if it cannot tell: under `reuse` each function of the corpus leaves something.
#[test]
fn the_corpus_differs_where_nothing_is_restored() {
    let bench = Workbench::new();
    let mut differing = 0;
    for function in functions() {
        let source = std::fs::read(&function).unwrap();
        if !bench.is_allowed(&source, Some(Technique::Reuse)).unwrap() {
            continue;
        }
        let blocks = blocks(&function).into_iter().cycle().take(64);
        let (_, found) = bench.prove("corpus", &source, Some(Technique::Reuse), blocks).unwrap();
        assert!(found.is_some(), "{}", function.display());
        differing += 1;
    }
    assert!(3 <= differing);
}
