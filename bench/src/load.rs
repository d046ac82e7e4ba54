//! Servers under `midge-load`'s client: what a server of the lab is asked for, and by how many.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use midge_load::plan::{Body, Choice, Expected, Pace, Plan, Request};
use midge_load::run::{Outcome, learn};

use crate::servers::Server;

/// Time in which a server must answer.
const TIMEOUT: Duration = Duration::from_secs(10);

/// How connections are used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shape {
    /// They stay, and carry so many requests at a time.
    Kept(usize),
    /// One for each request.
    Close,
}

impl Shape {
    /// Reads a number, or `close`.
    ///
    /// # Errors
    /// If it is neither.
    pub(crate) fn parse(text: &str) -> Result<Self> {
        if text == "close" {
            return Ok(Self::Close);
        }
        let depth = text.parse().ok().filter(|depth| (1..=1024).contains(depth));
        depth.map(Self::Kept).context("a depth of 1 to 1024, or `close`")
    }

    /// Returns its name, as [`Shape::parse`] reads it.
    pub(crate) fn name(self) -> String {
        match self {
            Self::Kept(depth) => depth.to_string(),
            Self::Close => "close".to_owned(),
        }
    }
}

/// Asks a server what it answers; returns a closed loop of requests for it, without a warm-up.
///
/// # Errors
/// If it does not answer 200.
pub(crate) fn plan(server: &Server, connections: usize) -> Result<Plan> {
    plan_with(server, connections, &[])
}

/// The same with further headers, as `name: value`.
///
/// # Errors
/// As [`plan`].
pub(crate) fn plan_with(server: &Server, connections: usize, headers: &[String]) -> Result<Plan> {
    let host = server.address.to_string();
    let request = Request { method: "GET", target: server.target, host: &host, headers, body: b"" };
    let mut target = request.target(Expected { status: Some(200), body: Body::Any });
    let address = SocketAddr::into(server.address);
    target.expected = learn(&address, &target, Some(200), TIMEOUT)?;
    Ok(Plan {
        address,
        targets: vec![target],
        choice: Choice::InTurn,
        pace: Pace::Closed,
        connections,
        depth: 1,
        requests_per_connection: None,
        split: None,
        read_rate: 0,
        write_rate: 0,
        warmup: Duration::ZERO,
        duration: Duration::ZERO,
        timeout: TIMEOUT,
        cpus: vec![None],
        spins: false,
        seed: 1,
    })
}

/// Returns the plan in this shape, for so long.
pub(crate) fn shaped(plan: &Plan, shape: Shape, duration: Duration) -> Plan {
    let (depth, requests_per_connection) = match shape {
        Shape::Kept(depth) => (depth, None),
        Shape::Close => (1, Some(1)),
    };
    Plan { depth, requests_per_connection, duration, ..plan.clone() }
}

/// Runs a plan; every response must be right.
///
/// # Errors
/// If a response was wrong, with the first one.
pub(crate) fn run(server: &Server, plan: &Plan) -> Result<Outcome> {
    let outcome = midge_load::run::run(plan, |_, _| {})
        .with_context(|| format!("load on {}", server.name))?;
    let record = &outcome.record;
    ensure!(
        record.wrong_total() == 0,
        "{} answered wrongly {} times: {}",
        server.name,
        record.wrong_total(),
        record.example.as_deref().unwrap_or("")
    );
    ensure!(record.responses > 0, "{} answered nothing", server.name);
    Ok(outcome)
}

/// As [`run`], with the server's nanoseconds of CPU time for each response.
///
/// # Errors
/// As [`run`].
pub(crate) fn run_timed(server: &Server, plan: &Plan) -> Result<(Outcome, f64)> {
    let before = server.cpu_time()?;
    let outcome = run(server, plan)?;
    let used = server.cpu_time()?.since(&before);
    #[expect(clippy::cast_precision_loss, reason = "a quotient for people")]
    let cpu_ns = used.as_secs_f64() * 1e9 / outcome.record.responses as f64;
    Ok((outcome, cpu_ns))
}
