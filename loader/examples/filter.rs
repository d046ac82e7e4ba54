//! A proxy that lets an untrusted guest judge and change every line that passes, each line in a pristine
//! instance: what one line taught the guest, the next cannot know.
//!
//! ```sh
//! cargo run --release -p midge-loader --example filter -- loader/examples/filter.wat 127.0.0.1:7000 127.0.0.1:7001
//! ```
//!
//! Lines from clients of the first address go to the second as the guest answers them: status 200 passes the
//! guest's bytes on, 204 drops the line; anything else, a trap and a deadline close the connection.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};

use midge_loader::embed::{Embedded, Limits};

/// Longest line; a longer one closes the connection.
const LINE_BYTES_MAX: u64 = 16 * 1024;

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

#[expect(clippy::print_stderr, reason = "an example says what happens")]
fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [module, listen, upstream] = arguments.as_slice() else {
        return Err("usage: filter MODULE LISTEN UPSTREAM".into());
    };
    let mut guest = Embedded::of_module(module, &std::fs::read(module)?, Limits::default())?;
    eprintln!("filtering on {listen}, by `{}`", guest.technique());
    for client in TcpListener::bind(listen)?.incoming() {
        // One after the other: an `Embedded` for each thread would serve them side by side.
        if let Err(error) = TcpStream::connect(upstream)
            .map_err(Into::into)
            .and_then(|upstream| filter(&mut guest, client?, upstream))
        {
            eprintln!("a connection was closed: {error}");
        }
    }
    Ok(())
}

/// Passes lines on until the source ends.
fn filter(guest: &mut Embedded, source: impl Read, mut target: impl Write) -> Result<()> {
    let mut source = BufReader::new(source);
    let mut line = Vec::new();
    loop {
        line.clear();
        source.by_ref().take(LINE_BYTES_MAX).read_until(b'\n', &mut line)?;
        if line.is_empty() {
            return Ok(());
        }
        if line.len() as u64 == LINE_BYTES_MAX && line.last() != Some(&b'\n') {
            return Err("a line is too long".into());
        }
        let output = guest.call(&line)?;
        match output.status {
            200 => target.write_all(&output.body)?,
            204 => {}
            status => return Err(format!("the guest answered {status}").into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GUEST: &str = include_str!("filter.wat");

    fn guest() -> Embedded {
        Embedded::of_module("filter.wat", GUEST.as_bytes(), Limits::default()).expect("it is sound")
    }

    #[test]
    fn lines_are_changed_dropped_and_forgotten() {
        let mut target = Vec::new();
        let source = b"first\n# a comment\nsecond\nlast without an end";
        filter(&mut guest(), source.as_slice(), &mut target).expect("the source ends");
        // The guest counts its lines and puts the number in front: for each line it is the first.
        assert_eq!(target, b"1 first\n1 second\n1 last without an end");
    }

    #[test]
    fn a_guest_that_traps_or_runs_on_costs_its_line_alone() {
        let mut guest = guest();
        let mut target = Vec::new();
        for (line, words) in [("!trap\n", "trapped"), ("!loop\n", "deadline")] {
            let error = filter(&mut guest, line.as_bytes(), &mut target).expect_err("refused");
            assert!(error.to_string().contains(words), "{error}");
        }
        filter(&mut guest, b"next\n".as_slice(), &mut target).expect("pristine again");
        assert_eq!(target, b"1 next\n");
        let long = vec![b'x'; 20_000];
        filter(&mut guest, long.as_slice(), &mut target).expect_err("too long");
    }
}
