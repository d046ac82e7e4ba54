//! From a parsed request to a guest's memory, and from there to the answer: what lies between the network
//! and a slot, without either's state.
//!
//! Hot path: `write`, `answer`.

use std::net::{IpAddr, SocketAddr};

use crate::extras::Extras;
use midge_abi::contract::Method;
use midge_abi::problem::Problem;
use midge_abi::request::{HeadSpan, HeaderSpan, Request, block_size, encode, mark_body_partial};
use midge_abi::response::{Answer, GuestFault, Response};
use midge_loader::drive::CallEnd;
use midge_loader::slot::{Pristine, Used};
use midge_net::endpoint::RequestView;
use midge_net::http::refusal::Refusal;
use midge_net::http::request::{self as http, Span};

/// What a request says of itself beyond its bytes.
#[derive(Debug, Clone, Copy)]
pub struct Facts<'a> {
    /// Its id.
    pub request_id: [u8; 16],
    /// The call's time.
    pub deadline_ns: u64,
    /// What the function is given with each request.
    pub extras: &'a Extras,
}

/// Why a request could not be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WriteError {
    /// It does not fit the guest's area.
    TooLarge,
    /// The machine refused to make the area writable.
    Exhausted,
}

/// Writes a request to a slot's area. Returns the block's size.
///
/// # Errors
/// [`WriteError`]; the slot is pristine still.
pub fn write(
    pristine: &mut Pristine,
    area: Area,
    view: &RequestView<'_>,
    facts: Facts<'_>,
) -> Result<usize, WriteError> {
    let size = block_bytes(view, facts.extras);
    if area.bytes < size {
        return Err(WriteError::TooLarge);
    }
    let block = pristine.area(area.address, size).ok_or(WriteError::Exhausted)?;
    lay_out(block, view, facts);
    Ok(size)
}

/// Writes a request's head to a slot's area, and as much of its body as fits, for a guest that reads the rest.
/// Returns the block's size and how much of the body is in it.
///
/// # Errors
/// As [`write`].
pub fn write_start(
    pristine: &mut Pristine,
    area: Area,
    view: &RequestView<'_>,
    facts: Facts<'_>,
) -> Result<(usize, usize), WriteError> {
    let bare = block_bytes(&RequestView { body: &[], ..*view }, facts.extras);
    let room = area.bytes.checked_sub(bare).ok_or(WriteError::TooLarge)?;
    let taken = room.min(view.body.len());
    let view = RequestView { body: &view.body[..taken], ..*view };
    let size = write(pristine, area, &view, facts)?;
    mark_body_partial(pristine.area(area.address, size).ok_or(WriteError::Exhausted)?);
    Ok((size, taken))
}

/// Returns the size of the block that a request takes.
#[must_use]
pub fn block_bytes(view: &RequestView<'_>, extras: &Extras) -> usize {
    let head_bytes = view.bytes.len() + extras.text().len();
    block_size(head_bytes, view.head.headers().len() + extras.count(), view.body.len())
}

/// Lays a request out in a block, which has [`block_bytes`].
pub fn lay_out(block: &mut [u8], view: &RequestView<'_>, facts: Facts<'_>) {
    let head = view.head;
    let (peer_address, peer_port) = peer(view.peer);
    let request = Request {
        head: view.bytes,
        tail: facts.extras.text(),
        method: method(head.method),
        method_name: span(head.method_name),
        target: span(head.target),
        path: span(head.path),
        query: span(head.query),
        authority: span(head.authority),
        is_http_1_0: head.version_minor == 0,
        body: view.body,
        request_id: facts.request_id,
        deadline_ns: facts.deadline_ns,
        peer_address,
        peer_port,
    };
    let rows = head
        .headers()
        .iter()
        .map(|line| HeaderSpan { name: span(line.name), value: span(line.value) });
    if facts.extras.count() == 0 {
        return encode(block, &request, rows);
    }
    let count = rows.len() + facts.extras.count();
    let rows = rows.chain(facts.extras.rows(view.bytes.len()));
    encode(block, &request, Counted { rows, left: count });
}

/// Rows of which it is known how many there are: a chain does not tell.
struct Counted<I> {
    rows: I,
    left: usize,
}

impl<I: Iterator> Iterator for Counted<I> {
    type Item = I::Item;

    fn next(&mut self) -> Option<I::Item> {
        self.left = self.left.saturating_sub(1);
        self.rows.next()
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.left, Some(self.left))
    }
}

impl<I: Iterator> ExactSizeIterator for Counted<I> {}

/// Where a guest wants its requests.
#[derive(Debug, Clone, Copy)]
pub struct Area {
    /// Address.
    pub address: u32,
    /// Size in bytes.
    pub bytes: usize,
}

/// How a call is answered.
pub enum Outcome<'a> {
    /// With the guest's response.
    Response(Response<'a>),
    /// With a problem, for a reason that the log gets.
    Problem(Problem, Reason<'a>),
}

/// Why a call ended in a problem.
pub enum Reason<'a> {
    /// The guest trapped.
    Trap(&'a midge_loader::drive::Trap),
    /// The guest's response breaks the contract.
    Fault(GuestFault),
    /// The guest says what failed.
    Message(&'a [u8]),
    /// Its time was up.
    Deadline,
    /// It used up its instructions.
    Fuel,
    /// The machine was out of mappings or memory.
    Exhausted,
}

/// Reads how a call ended.
#[must_use]
pub fn outcome(used: &Used, response_bytes_max: usize) -> Outcome<'_> {
    match used.end() {
        CallEnd::Returned(address) => {
            match Response::read(used.memory(), *address, response_bytes_max) {
                Ok(Answer::Response(response)) => Outcome::Response(response),
                Ok(Answer::Error(message)) => {
                    Outcome::Problem(Problem::FunctionFailed, Reason::Message(message))
                }
                Err(fault) => Outcome::Problem(Problem::BadResponse, Reason::Fault(fault)),
            }
        }
        CallEnd::DeadlineExceeded => Outcome::Problem(Problem::DeadlineExceeded, Reason::Deadline),
        CallEnd::FuelExhausted => Outcome::Problem(Problem::DeadlineExceeded, Reason::Fuel),
        CallEnd::NoStack => Outcome::Problem(Problem::StartFailed, Reason::Exhausted),
        CallEnd::Trapped(_) if used.is_exhausted() => {
            Outcome::Problem(Problem::StartFailed, Reason::Exhausted)
        }
        CallEnd::Trapped(trap) => Outcome::Problem(Problem::Trapped, Reason::Trap(trap)),
    }
}

/// Returns the problem that a refusal of the network layer is.
#[must_use]
pub const fn problem(refusal: Refusal) -> Problem {
    match refusal {
        Refusal::RequestTimeout => Problem::RequestTimeout,
        Refusal::BodyTooLarge => Problem::BodyTooLarge,
        Refusal::TargetTooLong => Problem::TargetTooLong,
        Refusal::Expectation => Problem::ExpectationFailed,
        Refusal::HeadTooLarge | Refusal::HeadersTooMany => Problem::HeadersTooLarge,
        Refusal::MethodUnknown | Refusal::CodingUnknown => Problem::NotImplemented,
        Refusal::BodiesFull => Problem::Overloaded,
        Refusal::VersionUnsupported => Problem::VersionNotSupported,
        _ => Problem::BadRequest,
    }
}

/// Returns the contract's code of a method.
#[must_use]
pub const fn method(method: http::Method) -> Method {
    match method {
        http::Method::Get => Method::Get,
        http::Method::Head => Method::Head,
        http::Method::Post => Method::Post,
        http::Method::Put => Method::Put,
        http::Method::Delete => Method::Delete,
        http::Method::Options => Method::Options,
        http::Method::Patch => Method::Patch,
        http::Method::Trace => Method::Trace,
    }
}

const fn span(span: Span) -> HeadSpan {
    HeadSpan { offset: span.offset, size: span.size }
}

/// Returns address and port as the contract has them: IPv4 mapped into IPv6.
fn peer(peer: Option<SocketAddr>) -> ([u8; 16], u16) {
    let Some(peer) = peer else {
        return ([0; 16], 0);
    };
    let address = match peer.ip() {
        IpAddr::V4(address) => address.to_ipv6_mapped(),
        IpAddr::V6(address) => address,
    };
    (address.octets(), peer.port())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_refusal_answers_with_its_own_status() {
        for refusal in Refusal::ALL {
            assert_eq!(problem(refusal).row().status, refusal.status(), "{refusal:?}");
        }
    }

    #[test]
    fn peers_are_ipv6_on_the_wire() {
        let (address, port) = peer(Some("127.0.0.1:80".parse().unwrap()));
        assert_eq!(address, [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xFF, 0xFF, 127, 0, 0, 1]);
        assert_eq!(port, 80);
        assert_eq!(peer(None), ([0; 16], 0));
    }
}
