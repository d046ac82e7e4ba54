//! The manual's reference pages agree with the code: their tables are generated from it, their examples are loaded.
//!
//! `MIDGE_BLESS=1 cargo test -p midge --test manual` writes the tables anew.

use std::{env, fs, path::Path, path::PathBuf};

use midge_host::{
    admin::metrics,
    config::{Overrides, Settings, keys},
};

const BEGIN: &str = "<!-- generated from the code: begin -->\n";
const END: &str = "<!-- generated from the code: end -->\n";

fn page(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/manual").join(name)
}

/// Compares the generated part of a page with what the code says, or writes it.
#[track_caller]
fn check(name: &str, generated: &str) {
    let path = page(name);
    let text = fs::read_to_string(&path).expect("the page can be read");
    let (before, rest) = text.split_once(BEGIN).expect("the page has a generated part");
    let (found, after) = rest.split_once(END).expect("the generated part ends");
    if env::var_os("MIDGE_BLESS").is_some() {
        fs::write(&path, [before, BEGIN, generated, END, after].concat())
            .expect("the page can be written");
    } else {
        assert_eq!(found, generated, "stale: MIDGE_BLESS=1 cargo test -p midge --test manual");
    }
}

#[test]
fn the_table_of_settings_is_fresh() {
    check("configuration.md", &format!("\n{}\n", keys::manual_tables()));
}

#[test]
fn the_table_of_metrics_is_fresh() {
    check("metrics.md", &format!("\n{}\n", metrics::manual_table()));
}

#[test]
fn the_examples_of_settings_are_sound() {
    let texts = ["configuration.md", "files.md", "listeners.md", "metrics.md"]
        .map(|name| fs::read_to_string(page(name)).unwrap());
    let examples: Vec<_> = texts.iter().flat_map(|text| text.split("```toml\n").skip(1)).collect();
    assert!(texts.len() <= examples.len());
    for example in examples {
        let (example, _) = example.split_once("```").unwrap();
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("public")).unwrap();
        for module in ["hello.wasm", "files.wat"] {
            fs::write(folder.path().join(module), b"").unwrap();
        }
        let path = folder.path().join("midge.toml");
        fs::write(&path, example).unwrap();
        if let Err(error) = Settings::load(&path, &Overrides::default()) {
            panic!("{error:?}");
        }
    }
}
