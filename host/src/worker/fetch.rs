//! Requests that functions make of other servers.
//!
//! ```text
//!   fetch --> granted? --> a connection that rests, or: resolve --> addresses allowed? --> connect
//!   then the guest writes, reads and waits: all of it on this worker's ring
//! ```
//!
//! Names are resolved by the threads of the pool and kept for a while; requests that need the same name wait
//! together. A call's requests end with it.
//!
//! Not here: connections (`midge-net`), what is granted (`grant.rs`).

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use midge_abi::fetch::{
    ERRORS_FROM, FETCHES_PER_CALL_MAX, Fetch, LATER, WAIT_ROW_SIZE, WAIT_ROWS_MAX, WaitFor,
};
use midge_abi::imports::Level;
use midge_abi::response::GuestRange;
use midge_abi::width::{index, wire};
use midge_loader::collect;
use midge_loader::slot::Waiting;
use midge_loader::wait::AskFault;
use midge_net::clock::Clock;
use midge_net::ring::{ConnectionId, Ring};
use midge_net::{
    BodyLength, FetchError, FetchId, FetchRequest, Origin, Owner, Piece, Timeouts, Unread, Want,
};

use crate::deployment::{Deployed, Deployment};
use crate::files::pool::Task;
use crate::grant::{self, Grant};
use crate::log::Event as LogEvent;

use super::stream::Satisfied;
use super::{Pending, Worker};

/// How long a name's addresses are kept: what resolves them does not tell how long they hold.
const RESOLVED_NS: u64 = 30_000_000_000;
/// How long it is kept that there is none.
const UNRESOLVED_NS: u64 = 1_000_000_000;
/// Lines about one call's requests that nothing grants.
const WARNINGS_MAX: u32 = 4;
/// Names that are kept.
const NAMES_MAX: usize = 1024;
/// Times that hold where a guest asks for none, as other hosts of `wasi:http` have them but shorter.
const CONNECT_TIME: Duration = Duration::from_secs(10);
/// As [`CONNECT_TIME`].
const ANSWER_TIME: Duration = Duration::from_secs(60);
/// Longest that a guest may ask for.
const TIME_MAX: Duration = Duration::from_secs(3600);
/// Deployments that calls may still be of.
const PREVIOUS_MAX: usize = 4;

/// Fetches of this worker's calls.
#[derive(Debug, Default)]
pub(super) struct Fetches {
    /// Those of a call, by its connection.
    by_call: HashMap<u64, Call>,
    resolving: HashMap<Arc<str>, Vec<Resolving>>,
    resolved: HashMap<Arc<str>, Resolved>,
    /// What was served before, for calls that began then.
    previous: Vec<(u64, Arc<Deployment>)>,
}

/// One call's.
#[derive(Debug, Default)]
struct Call {
    /// A handle is a place here and one more.
    fetches: Vec<Option<FetchId>>,
    /// Lines that were written about what it may not.
    warnings: u32,
}

/// A fetch that waits for addresses.
#[derive(Debug)]
struct Resolving {
    id: FetchId,
    origin: Arc<Origin>,
    grant: Arc<Grant>,
    pending: Pending,
}

#[derive(Debug)]
struct Resolved {
    addresses: Arc<[IpAddr]>,
    until_ns: u64,
}

impl Fetches {
    /// Keeps a deployment for the calls that began under it.
    pub(super) fn keep(&mut self, generation: u64, deployment: Arc<Deployment>) {
        if self.previous.len() == PREVIOUS_MAX {
            self.previous.remove(0);
        }
        self.previous.push((generation, deployment));
    }
}

impl<R: Ring, C: Clock> Worker<R, C> {
    /// Returns the function of a call, of the deployment under which it began.
    fn deployed(&self, pending: &Pending) -> Option<&Deployed> {
        let deployment = if pending.generation == self.generation {
            &self.assignment.deployment
        } else {
            let mut previous = self.fetches.previous.iter();
            &previous.find(|(generation, _)| *generation == pending.generation)?.1
        };
        deployment.functions.get(index(pending.function.0))
    }

    fn fetch_of(&self, pending: &Pending, handle: u32) -> Option<FetchId> {
        let call = self.fetches.by_call.get(&pending.connection.to_u64())?;
        *call.fetches.get(index(handle.checked_sub(1)?))?
    }

    /// Answers `fetch`.
    #[cold]
    pub(super) fn fetch(&mut self, pending: &Pending, waiting: &Waiting, record: u32) -> Satisfied {
        let Ok(fetch) = Fetch::read(waiting.memory(), record) else {
            return Satisfied::Answer(Err(AskFault::FetchRecord));
        };
        Satisfied::Answer(Ok(code(self.try_fetch(pending, &fetch))))
    }

    fn try_fetch(&mut self, pending: &Pending, fetch: &Fetch<'_>) -> Result<u32, FetchError> {
        let authority = str::from_utf8(fetch.authority).map_err(|_| FetchError::Uri)?;
        let origin = grant::parse_origin(fetch.is_tls, authority).map_err(|_| FetchError::Uri)?;
        // A tunnel through a server is another way out.
        if fetch.method == b"CONNECT" {
            return Err(FetchError::Method);
        }
        let grant = self.deployed(pending).map(|deployed| Arc::clone(&deployed.grant));
        let Some(grant) = grant.filter(|grant| grant.allows(&origin)) else {
            self.assignment.stats.fetch_denied();
            self.warn(pending, &denied(&origin));
            return Err(FetchError::Denied);
        };
        let origin = Arc::new(origin);
        let owner = pending.connection.to_u64();
        let all = &self.fetches.by_call.entry(owner).or_default().fetches;
        let place = all.iter().position(Option::is_none).unwrap_or(all.len());
        if place == FETCHES_PER_CALL_MAX {
            return Err(FetchError::Limit);
        }
        let [connect, first_byte, between_bytes] = fetch.times_ns;
        let time = |ns, default| match ns {
            0 => default,
            ns => Duration::from_nanos(ns).min(TIME_MAX),
        };
        let timeouts = Timeouts {
            connect: time(connect, CONNECT_TIME),
            first_byte: time(first_byte, ANSWER_TIME),
            between_bytes: time(between_bytes, ANSWER_TIME),
        };
        let authority = grant::authority(&origin);
        let request = FetchRequest {
            method: fetch.method,
            target: fetch.target,
            authority: authority.as_bytes(),
            headers: fetch.headers(),
            body: match fetch.body {
                None => BodyLength::None,
                Some(Some(size)) => BodyLength::Known(size),
                Some(None) => BodyLength::Unknown,
            },
        };
        let may_use = |address| grant.may_connect(&origin, address);
        // Functions share no connections, whatever they may ask for.
        let group = u64::from(pending.function.0) << 32 | pending.generation & 0xFFFF_FFFF;
        let whose = Owner { call: owner, group };
        let id = self.endpoint.fetch(whose, Arc::clone(&origin), timeouts, request, may_use)?;
        let all = &mut self.fetches.by_call.entry(owner).or_default().fetches;
        if place == all.len() {
            all.push(None);
        }
        all[place] = Some(id);
        if pending.generation == self.generation {
            self.assignment.stats.fetch_begun(pending.function);
        }
        if self.endpoint.fetch_needs_address(id) {
            self.resolve(Resolving { id, origin, grant, pending: *pending });
        }
        Ok(wire(place + 1))
    }

    /// Finds the addresses of a fetch's server.
    fn resolve(&mut self, resolving: Resolving) {
        if let Ok(address) = resolving.origin.host.parse() {
            return self.connect(&resolving, &[address]);
        }
        let now_ns = self.clock.coarse_ns();
        let name: Arc<str> = resolving.origin.host.as_str().into();
        if let Some(Resolved { addresses, .. }) =
            self.fetches.resolved.get(&name).filter(|resolved| now_ns < resolved.until_ns)
        {
            let addresses = Arc::clone(addresses);
            return self.connect(&resolving, &addresses);
        }
        if let Some(others) = self.fetches.resolving.get_mut(&name) {
            return others.push(resolving);
        }
        let pool = self.assignment.deployment.names.as_ref();
        let desk = &self.files.desk;
        let is_asked = pool.is_some_and(|pool| pool.ask(Task::Resolve(Arc::clone(&name)), desk));
        if !is_asked {
            return self.endpoint.fetch_fail(resolving.id, FetchError::Limit);
        }
        self.fetches.resolving.insert(name, vec![resolving]);
    }

    /// A name has been resolved, or could not be.
    pub(super) fn resolved(&mut self, name: &Arc<str>, found: std::io::Result<Vec<IpAddr>>) {
        let now_ns = self.clock.coarse_ns();
        let addresses: Arc<[IpAddr]> = found.unwrap_or_default().into();
        let keep_ns = if addresses.is_empty() { UNRESOLVED_NS } else { RESOLVED_NS };
        let resolved = &mut self.fetches.resolved;
        if resolved.len() == NAMES_MAX {
            resolved.retain(|_, resolved| now_ns < resolved.until_ns);
            if resolved.len() == NAMES_MAX {
                resolved.clear();
            }
        }
        let kept = Resolved { addresses: Arc::clone(&addresses), until_ns: now_ns + keep_ns };
        resolved.insert(Arc::clone(name), kept);
        for waiting in self.fetches.resolving.remove(name).unwrap_or_default() {
            self.connect(&waiting, &addresses);
        }
    }

    /// Connects to the addresses that the grant allows: these, and no others that the name may have later.
    fn connect(&mut self, resolving: &Resolving, addresses: &[IpAddr]) {
        let Resolving { id, origin, grant, pending } = resolving;
        let allowed: Vec<_> = addresses
            .iter()
            .filter(|address| grant.may_connect(origin, **address))
            .map(|address| SocketAddr::new(*address, origin.port))
            .collect();
        match (allowed.is_empty(), addresses.first()) {
            (false, _) => self.endpoint.fetch_connect(*id, &allowed),
            (true, None) => self.endpoint.fetch_fail(*id, FetchError::Dns),
            (true, Some(address)) => {
                self.assignment.stats.fetch_denied();
                let text = format!(
                    "an outgoing request was denied: {} leads to {address}, which is no public \
                     address; to allow it, add to its [function.grant]: networks = [\"{address}\"]",
                    origin.host
                );
                self.warn(pending, &text);
                self.endpoint.fetch_fail(*id, FetchError::Prohibited);
            }
        }
    }

    /// Writes a line about what a call may not, if it has not had its share of them.
    fn warn(&mut self, pending: &Pending, text: &str) {
        let call = self.fetches.by_call.entry(pending.connection.to_u64()).or_default();
        call.warnings += 1;
        if call.warnings > WARNINGS_MAX || pending.generation != self.generation {
            return;
        }
        let event = LogEvent::guest(Level::Warn, text.as_bytes());
        self.log_line(pending.function, &pending.request_id, event);
    }

    /// Answers `fetch_write`.
    #[cold]
    pub(super) fn fetch_write(
        &mut self,
        pending: &Pending,
        waiting: &Waiting,
        handle: u32,
        region: GuestRange,
    ) -> Satisfied {
        let Some(id) = self.fetch_of(pending, handle) else { return unknown() };
        let memory = waiting.memory();
        let range = region.within(memory.len()).expect("checked when it was asked for");
        Satisfied::Answer(Ok(match self.endpoint.fetch_write(id, &memory[range]) {
            Ok(0) if region.size > 0 => LATER.cast_unsigned(),
            written => code(written.map(wire)),
        }))
    }

    /// Answers `fetch_finish`, and `trailers_write` of a request.
    #[cold]
    pub(super) fn fetch_finish<'m>(
        &mut self,
        pending: &Pending,
        handle: u32,
        trailers: impl Iterator<Item = (&'m [u8], &'m [u8])>,
    ) -> Satisfied {
        let Some(id) = self.fetch_of(pending, handle) else { return unknown() };
        Satisfied::Answer(Ok(code(self.endpoint.fetch_finish(id, trailers).map(|()| 0))))
    }

    /// Answers `trailers_read` of a request.
    #[cold]
    pub(super) fn fetch_trailers(
        &mut self,
        pending: &Pending,
        waiting: &mut Waiting,
        handle: u32,
        region: GuestRange,
    ) -> Satisfied {
        let Some(id) = self.fetch_of(pending, handle) else { return unknown() };
        Satisfied::Answer(match self.endpoint.fetch_trailers(id) {
            Ok(Some(trailers)) => collect::write_fields(waiting, region, trailers.iter()),
            Ok(None) => Ok(LATER.cast_unsigned()),
            Err(error) => Ok(code(Err(error))),
        })
    }

    /// Answers `fetch_head`.
    #[cold]
    pub(super) fn fetch_head(
        &mut self,
        pending: &Pending,
        waiting: &mut Waiting,
        handle: u32,
        region: GuestRange,
    ) -> Satisfied {
        let Some(id) = self.fetch_of(pending, handle) else { return unknown() };
        Satisfied::Answer(match self.endpoint.fetch_head(id) {
            Ok(Some(head)) => collect::write_head(waiting, region, head.status(), head.headers()),
            Ok(None) => Ok(LATER.cast_unsigned()),
            Err(error) => Ok(code(Err(error))),
        })
    }

    /// Answers `fetch_read`.
    #[cold]
    pub(super) fn fetch_read(
        &mut self,
        pending: &Pending,
        waiting: &mut Waiting,
        handle: u32,
        region: GuestRange,
    ) -> Satisfied {
        let Some(id) = self.fetch_of(pending, handle) else { return unknown() };
        let answer = match self.endpoint.fetch_piece(id) {
            Ok(Piece::Bytes(size)) => {
                let size = size.min(index(region.size));
                let Some(target) = waiting.region(region, size) else {
                    return Satisfied::Answer(Err(AskFault::Exhausted));
                };
                self.endpoint.fetch_read(id, target);
                wire(size)
            }
            Ok(Piece::End) => 0,
            Ok(Piece::Later) => LATER.cast_unsigned(),
            Err(error) => code(Err(error)),
        };
        Satisfied::Answer(Ok(answer))
    }

    /// Answers `fetch_close`.
    #[cold]
    pub(super) fn fetch_close(&mut self, pending: &Pending, handle: u32) -> Satisfied {
        let Some(id) = self.fetch_of(pending, handle) else { return unknown() };
        self.endpoint.fetch_close(id);
        if let Some(call) = self.fetches.by_call.get_mut(&pending.connection.to_u64()) {
            call.fetches[index(handle) - 1] = None;
        }
        Satisfied::Answer(Ok(0))
    }

    /// Answers `wait`, once one of its rows is there or its time is over.
    #[cold]
    pub(super) fn wait(
        &mut self,
        pending: &mut Pending,
        waiting: &mut Waiting,
        rows: GuestRange,
        ns: u64,
    ) -> Satisfied {
        let now_ns = self.clock.precise_ns();
        let until_ns = *pending.waits_until_ns.get_or_insert_with(|| now_ns.saturating_add(ns));
        let range = rows.within(waiting.memory().len()).expect("checked when it was asked for");
        let mut are_ready = [false; WAIT_ROWS_MAX as usize];
        let mut wakes_ns = until_ns;
        let count = index(rows.size) / WAIT_ROW_SIZE;
        for (place, start) in range.step_by(WAIT_ROW_SIZE).enumerate() {
            let row = &waiting.memory()[start..start + WAIT_ROW_SIZE];
            let kind = WaitFor::from_code(u16::from_le_bytes([row[0], row[1]]));
            let handle = u32::from_le_bytes([row[4], row[5], row[6], row[7]]);
            let want = match kind {
                None => return Satisfied::Answer(Err(AskFault::Rows)),
                Some(WaitFor::Body) => {
                    are_ready[place] = self.endpoint.unread(pending.connection) != Unread::Later;
                    continue;
                }
                Some(WaitFor::FetchHead) => Want::Head,
                Some(WaitFor::FetchBody) => Want::Body,
                Some(WaitFor::FetchRoom) => Want::Room,
            };
            let Some(id) = self.fetch_of(pending, handle) else { return unknown() };
            let mut is_ready = self.endpoint.fetch_is_ready(id, want);
            // One that has no connection in time goes on with its next address, of which there are few.
            while !is_ready && let Some((left, error)) = self.endpoint.fetch_patience(id, want) {
                if left.is_zero() {
                    self.endpoint.fetch_fail(id, error);
                    is_ready = self.endpoint.fetch_is_ready(id, want);
                    continue;
                }
                let left_ns = u64::try_from(left.as_nanos()).unwrap_or(u64::MAX);
                wakes_ns = wakes_ns.min(now_ns.saturating_add(left_ns));
                break;
            }
            are_ready[place] = is_ready;
        }
        let ready_count = are_ready.iter().filter(|&&is_ready| is_ready).count();
        if ready_count == 0 && now_ns < until_ns {
            // No later than the call itself may last.
            return Satisfied::LaterOrAt(wakes_ns.min(pending.ends_ns).max(now_ns + 1));
        }
        let Some(target) = waiting.region(rows, index(rows.size)) else {
            return Satisfied::Answer(Err(AskFault::Exhausted));
        };
        for (row, is_ready) in target.chunks_exact_mut(WAIT_ROW_SIZE).zip(are_ready).take(count) {
            row[2..4].copy_from_slice(&u16::from(is_ready).to_le_bytes());
        }
        Satisfied::Answer(Ok(wire(ready_count)))
    }

    /// Ends what a call has not closed.
    #[inline]
    pub(super) fn end_fetches(&mut self, connection: ConnectionId) {
        if !self.fetches.by_call.is_empty()
            && let Some(call) = self.fetches.by_call.remove(&connection.to_u64())
        {
            for id in call.fetches.into_iter().flatten() {
                self.endpoint.fetch_close(id);
            }
        }
        if !self.fetches.previous.is_empty() && self.parked_count == 0 && self.suspended.is_empty()
        {
            self.fetches.previous.clear();
        }
    }
}

/// Returns what a guest gets: a number, or an error.
fn code(answer: Result<u32, FetchError>) -> u32 {
    answer.unwrap_or_else(|error| (ERRORS_FROM - i32::from(error as u8)).cast_unsigned())
}

fn unknown() -> Satisfied {
    Satisfied::Answer(Err(AskFault::Handle))
}

fn denied(origin: &Origin) -> String {
    format!(
        "an outgoing request was denied; to allow it, add to its [function.grant]: http = [\"{}\"]",
        grant::url(origin)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the network says reaches guests by number: the contract has the same numbers under the same names.
    #[test]
    fn the_contract_has_the_networks_errors() {
        use FetchError::{
            Alert, BodySize, Certificate, ConnectTimeout, Denied, Dns, DnsTimeout, HeadTooLong,
            Incomplete, Internal, Limit, Method, Prohibited, Protocol, ReadTimeout, Refused,
            ResponseTimeout, Terminated, Tls, TransferCoding, Unavailable, Unroutable, Uri,
            WriteTimeout,
        };
        let all = [
            DnsTimeout,
            Dns,
            Unavailable,
            Prohibited,
            Unroutable,
            Refused,
            Terminated,
            ConnectTimeout,
            ReadTimeout,
            WriteTimeout,
            Limit,
            Tls,
            Certificate,
            Alert,
            Denied,
            BodySize,
            Method,
            Uri,
            Incomplete,
            HeadTooLong,
            TransferCoding,
            ResponseTimeout,
            Protocol,
            Internal,
        ];
        // One that is added breaks the build here, and belongs above.
        let is_listed = |error| match error {
            DnsTimeout | Dns | Unavailable | Prohibited | Unroutable | Refused | Terminated
            | ConnectTimeout | ReadTimeout | WriteTimeout | Limit | Tls | Certificate | Alert
            | Denied | BodySize | Method | Uri | Incomplete | HeadTooLong | TransferCoding
            | ResponseTimeout | Protocol | Internal => true,
        };
        assert!(all.into_iter().all(is_listed));
        let said = all.map(|error| (error as u8, format!("{error:?}")));
        assert_eq!(said, midge_abi::fetch::ERRORS.map(|(code, name)| (code, name.to_owned())));
    }
}
