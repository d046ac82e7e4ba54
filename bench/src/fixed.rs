//! midge's network layer with a fixed response: parser, limits, deadlines and all, and no function.

use std::net::SocketAddr;

use anyhow::Result;
use midge_net::clock::MonotonicClock;
use midge_net::uring::Uring;
use midge_net::{Endpoint, Event, ListenOptions, Settings, Wait, listen};

/// The body.
const BODY: &[u8] = b"sixteen bytes ok";
/// Largest body that is taken and ignored.
const BODY_BYTES_MAX: u64 = 1 << 20;

/// Serves until the process is ended.
///
/// # Errors
/// If the address is taken or the ring fails.
pub(crate) fn serve(address: SocketAddr) -> Result<()> {
    let settings = Settings::default();
    let listener = listen::bind(address, &ListenOptions::default())?;
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
                Event::Head(id) => endpoint.admit(id, BODY_BYTES_MAX),
                Event::Refused(id, refusal) => {
                    endpoint.respond(id, refusal.status(), std::iter::empty(), b"");
                }
                Event::Gone(_)
                | Event::Body(_)
                | Event::Room(_)
                | Event::Woken
                | Event::Fetch(_) => {}
            }
        }
    }
}
