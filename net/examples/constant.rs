//! Serves a fixed body through an endpoint: the cost of the network layer alone.
//!
//! `taskset -c 0 target/release/examples/constant 127.0.0.1:8080`

use std::error::Error;

use midge_net::clock::MonotonicClock;
use midge_net::uring::Uring;
use midge_net::{Endpoint, Event, ListenOptions, Settings, Wait, listen};

const BODY: &[u8] = b"sixteen bytes ok";

fn main() -> Result<(), Box<dyn Error>> {
    let address = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:0".into()).parse()?;
    let settings = Settings::default();
    let listener = listen::bind(address, &ListenOptions::default())?;
    #[expect(clippy::print_stderr, reason = "the one line of output")]
    {
        eprintln!("listening on {}", listener.local_addr()?);
    }
    let ring = Uring::new(&settings)?;
    let mut endpoint = Endpoint::new(ring, MonotonicClock::new(), listener, settings)?;
    loop {
        endpoint.turn(Wait::Block)?;
        while let Some(event) = endpoint.next_event() {
            match event {
                Event::Request(id) => {
                    let headers = [(&b"content-type"[..], &b"text/plain"[..])];
                    endpoint.respond(id, 200, headers.into_iter(), BODY);
                }
                Event::Head(id) => endpoint.admit(id, 1 << 20),
                Event::Refused(id, refusal) => {
                    endpoint.respond(id, refusal.status(), std::iter::empty(), b"");
                }
                Event::Gone(_) | Event::Woken => {}
            }
        }
    }
}
