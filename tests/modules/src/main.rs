//! Writes modules to stdout, for `tests/generated`: `midge-modules smith FIRST COUNT`, where a module is
//! made from each of so many seeds, or `midge-modules spec`.
//!
//! Each module is its name and its bytes, both behind their size as four bytes, little-endian. A seed that
//! gives no module gives an empty one.

mod smith; // generated modules
mod spec; // the specification's modules

use std::io::{self, BufWriter, Write};
use std::process::ExitCode;

fn main() -> io::Result<ExitCode> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let mut output = BufWriter::new(io::stdout().lock());
    match words[..] {
        ["smith", first, count] => {
            let (Ok(first), Ok(count)) = (first.parse::<u64>(), count.parse::<u64>()) else {
                return usage();
            };
            for seed in first..first.saturating_add(count) {
                let module = smith::module(seed).unwrap_or_default();
                put(&mut output, &format!("seed-{seed}"), &module)?;
            }
        }
        ["spec"] => {
            for (name, module) in spec::modules() {
                put(&mut output, &name, &module)?;
            }
        }
        _ => return usage(),
    }
    output.flush()?;
    Ok(ExitCode::SUCCESS)
}

fn put(output: &mut impl Write, name: &str, module: &[u8]) -> io::Result<()> {
    for part in [name.as_bytes(), module] {
        let size = u32::try_from(part.len()).map_err(io::Error::other)?;
        output.write_all(&size.to_le_bytes())?;
        output.write_all(part)?;
    }
    Ok(())
}

fn usage() -> io::Result<ExitCode> {
    eprintln!("midge-modules smith FIRST COUNT | midge-modules spec");
    Ok(ExitCode::from(2))
}
