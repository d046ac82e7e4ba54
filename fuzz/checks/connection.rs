//! The connection machine: peers, a host and a kernel act out a script, and what each peer reads is what a reader
//! of its whole stream says it must be.
//!
//! ```text
//!   bytes --script--> settings, peers --run--> what was read --compare--> model of the same streams
//!                                     on the simulated kernel
//!                                     on epoll and on a ring, over loopback: the same answers, byte for byte
//! ```
//!
//! Built inside midge-net: `net/src/endpoint.rs` includes it where there are tests or a fuzzer.

use std::sync::OnceLock;
use std::time::Duration;

use crate::clock::Clock;
use crate::epoll::Epoll;
use crate::listen::{self, ListenOptions};
use crate::ring::fake::FakeClock;
use crate::ring::sim::{Random, SimRing};
use crate::tier::{self, RingTier};
use crate::uring::Uring;

#[path = "connection/answers.rs"]
mod answers; // what a peer read, taken apart
#[path = "connection/host.rs"]
mod host; // answers by a request's path, in every way there is
#[path = "connection/model.rs"]
mod model; // what a whole stream must be answered with
#[path = "connection/run.rs"]
mod run; // peers, host and endpoint take turns
#[path = "connection/script.rs"]
mod script; // bytes mean what happens

use answers::Answer;
use model::Model;
use run::{Loopback, Simulated};
use script::Script;

/// A clock whose date stands still: answers of different runs differ in nothing.
#[derive(Debug, Clone)]
struct StillClock(FakeClock);

impl Clock for StillClock {
    fn elapsed(&mut self) -> Duration {
        self.0.elapsed()
    }

    fn unix_seconds(&mut self) -> u64 {
        1_000_000_000
    }
}

/// Whether there are rings here; looked for once, for that takes as long as a run.
static HAS_RING: OnceLock<bool> = OnceLock::new();

/// Runs the script on the simulated kernel.
pub fn check(bytes: &[u8]) {
    let script = Script::read(bytes);
    judge(&script, &simulate(&script), Resets::Never);
}

/// Runs the script on the simulated kernel, on epoll, and on a ring where there is one.
pub fn check_tiers(bytes: &[u8]) {
    let script = Script::read(bytes);
    let simulated = judge(&script, &simulate(&script), Resets::Never);
    let ring = Epoll::new(&script.settings).expect("an epoll instance can be had");
    let by_epoll = judge(&script, &over_loopback(&script, ring), Resets::BehindTheEnd);
    compare(&simulated, &by_epoll);
    if *HAS_RING.get_or_init(|| tier::choose().is_ok_and(|best| best.tier != RingTier::D)) {
        let ring = Uring::new(&script.settings).expect("a ring could be had");
        let by_ring = judge(&script, &over_loopback(&script, ring), Resets::BehindTheEnd);
        compare(&simulated, &by_ring);
    }
}

fn simulate(script: &Script) -> Vec<Vec<u8>> {
    let clock = FakeClock::default();
    let settings = &script.settings;
    let mut ring = SimRing::new(
        script.seed,
        clock.clone(),
        settings.connections_max,
        settings.buffers,
        settings.buffer_bytes,
    );
    ring.may_sleep = false;
    run::run(script, ring, clock, Simulated)
}

fn over_loopback(script: &Script, ring: impl crate::ring::Ring) -> Vec<Vec<u8>> {
    run::run(script, ring, FakeClock::default(), Loopback::default())
}

fn bind() -> std::net::TcpListener {
    let any = std::net::SocketAddr::from(([127, 0, 0, 1], 0));
    listen::bind(any, &ListenOptions::default()).expect("a port is free")
}

/// When a peer may be reset.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Resets {
    /// The simulated kernel has none but those that peers send.
    Never,
    /// Where a peer has asked for the end and sends more, which it must not (RFC 9112, 9.6): a connection that is
    /// closed while that lies unread is reset, and what its peer has not read by then is lost.
    BehindTheEnd,
}

/// Compares what each peer read with what it must have read. Returns the answers of those for whom there is one
/// way alone.
fn judge(script: &Script, read: &[Vec<u8>], resets: Resets) -> Vec<Option<Vec<Answer>>> {
    let pairs = script.peers.iter().zip(read);
    let judged = pairs.map(|(peer, read)| {
        let mut model = Model::of(&peer.stream, &script.settings);
        if resets == Resets::BehindTheEnd {
            model.allow_resets();
        }
        let answers = answers::take_apart(read, |place| model.is_head(place));
        model.judge(&answers, peer.resets);
        (model.is_exact() && !peer.resets).then_some(answers)
    });
    judged.collect()
}

fn compare(ours: &[Option<Vec<Answer>>], theirs: &[Option<Vec<Answer>>]) {
    let both = ours.iter().zip(theirs).filter(|(_, theirs)| theirs.is_some());
    for (ours, theirs) in both {
        assert_eq!(ours, theirs, "the way to the kernel changes no byte");
    }
}

/// Numbers for a run, apart from those of the simulated kernel.
fn random(script: &Script) -> Random {
    Random::new(script.seed ^ 0x5EED)
}
