//! A call of a component from its request to its response, in slices, waiting by asks as every call does.
//!
//! ```text
//!   turn: the component runs until everything in it waits --+
//!     ^                                                     v
//!     +-- what became of it <-- ask <-- operations, output, body, times (`desk.rs`)
//! ```
//!
//! The engine's crates hand some work to the tasks of a runtime. There is one for each thread, without threads or
//! clocks of its own: its tasks run inside a turn.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::task::{Context, Poll, Wake, Waker};

use bytes::Bytes;
use http::header::CONTENT_LENGTH;
use midge_abi::contract::RESPONSE_WRITTEN;
use midge_abi::fetch::{ERRORS_FROM, WaitFor};
use midge_abi::imports::SLEEP_NS_MAX;
use midge_abi::response::GuestRange;
use midge_abi::width::wire;
use tokio::runtime::{Builder, Runtime};
use wasmtime::{Store, StoreContextMut, UpdateDeadline};

use super::Served;
use super::clock::Clock;
use super::context::ComponentContext;
use super::desk::{Desk, Operation, Output, Reply};
use super::exchange;
use super::fetch::HEADERS_TOO_LONG;
use super::request;
use super::staging::{PIECE_BYTES, Place, Staging};
use crate::context::RequestContext;
use crate::drive::{CallEnd, Trap};
use crate::instance::{DeadlineExceeded, NEXT_SLICE_TICKS, SLICE_TICKS};
use crate::stack::NoStack;
use crate::wait::{Ask, AskCell, AskFault};

/// Turns in which the component was woken by itself, before others have theirs.
const TURNS_MAX: u32 = 16;

thread_local! {
    static RUNTIME: Runtime =
        Builder::new_current_thread().build().expect("a runtime without drivers needs nothing");
}

impl Served {
    /// Makes an instance, gives it the request that lies in the staging memory, and sees to its response.
    pub(crate) async fn call(
        &mut self,
        context: RequestContext,
        address: u32,
        size: u32,
    ) -> CallEnd {
        let desk = Desk::default();
        let block = self.staging.copy(GuestRange { address, size });
        let asked = match request::read(&block, &desk) {
            Ok(asked) => asked,
            Err(unfit) => return self.failed(&unfit.to_string()),
        };
        let clock = Arc::new(Clock::new(Arc::clone(&self.services), context));
        let line = Line { staging: &self.staging, asks: &self.asks, clock: &clock, desk: &desk };
        let data = ComponentContext::new(
            &self.services,
            context.request_id,
            &asked,
            &desk,
            &clock,
            self.limits,
        );
        let mut store = Store::new(&self.engine, data);
        store.limiter(|data| &mut data.limits);
        store.epoch_deadline_callback(slice_ended);
        store.set_epoch_deadline(SLICE_TICKS);
        let mut exchange = Box::pin(exchange::run(&mut store, &self.handler, asked.request, &desk));
        let ended = line.run(exchange.as_mut()).await;
        drop(exchange);
        let ended = match ended {
            Ok(()) => line.finish().await,
            Err(error) => Err(error),
        };
        match ended {
            Ok(record) => CallEnd::Returned(record),
            Err(error) if error.is::<DeadlineExceeded>() => CallEnd::DeadlineExceeded,
            Err(error) if error.is::<NoStack>() => CallEnd::NoStack,
            Err(error) => CallEnd::Trapped(error),
        }
    }

    fn failed(&self, why: &str) -> CallEnd {
        CallEnd::Returned(self.staging.put_failure(why))
    }
}

fn slice_ended(store: StoreContextMut<'_, ComponentContext>) -> wasmtime::Result<UpdateDeadline> {
    if store.data().clock.slice_ended() {
        return Err(DeadlineExceeded.into());
    }
    Ok(UpdateDeadline::Yield(NEXT_SLICE_TICKS))
}

/// Told when something in the component can go on.
#[derive(Default)]
struct Flag(AtomicBool);

impl Wake for Flag {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Relaxed);
    }
}

/// Lets the component run until all of it waits, and then the tasks that it has handed out.
fn turn(
    exchange: &mut Pin<&mut (impl Future<Output = Result<(), Trap>> + ?Sized)>,
    waker: &Waker,
) -> Poll<Result<(), Trap>> {
    let once = async {
        let polled = exchange.as_mut().poll(&mut Context::from_waker(waker));
        if polled.is_pending() {
            tokio::task::yield_now().await;
        }
        polled
    };
    RUNTIME.with(|runtime| runtime.block_on(once))
}

/// Gives the thread to others; the call goes on in its next slice.
async fn give_way() {
    let mut has_given = false;
    poll_fn(
        |_| if std::mem::replace(&mut has_given, true) { Poll::Ready(()) } else { Poll::Pending },
    )
    .await;
}

/// The way from the desk to the embedder.
struct Line<'c> {
    staging: &'c Staging,
    asks: &'c AskCell,
    clock: &'c Clock,
    desk: &'c Desk,
}

impl Line<'_> {
    /// Runs the exchange to its end.
    async fn run(
        &self,
        mut exchange: Pin<&mut (impl Future<Output = Result<(), Trap>> + ?Sized)>,
    ) -> Result<(), Trap> {
        let flag = Arc::new(Flag::default());
        let waker = Waker::from(Arc::clone(&flag));
        let mut turns = 0;
        loop {
            let slices = self.clock.slices();
            if let Poll::Ready(ended) = turn(&mut exchange, &waker) {
                return ended;
            }
            turns += 1;
            let has_used_slice = self.clock.slices() != slices;
            if flag.0.swap(false, Relaxed) {
                if has_used_slice || turns == TURNS_MAX {
                    turns = 0;
                    give_way().await;
                }
                continue;
            }
            turns = 0;
            self.settle().await?;
        }
    }

    /// Everything in the component waits: does what it waits for.
    async fn settle(&self) -> Result<(), Trap> {
        let mut has_done = false;
        while let Some((number, operation)) = self.desk.next_operation() {
            let reply = self.perform(operation).await?;
            self.desk.reply(number, reply);
            has_done = true;
        }
        if has_done {
            return Ok(());
        }
        let (has_head, has_bytes) =
            self.desk.with_output(|output| (output.head.is_some(), output.bytes() > 0));
        if has_head || has_bytes {
            return self.write().await;
        }
        self.wait().await
    }

    async fn wait(&self) -> Result<(), Trap> {
        let mut rows = self.desk.rows();
        let time_ns = self.desk.next_time();
        let wants_body = self.desk.wants_body();
        if wants_body {
            if rows.is_empty() && time_ns.is_none() {
                return self.read_body().await;
            }
            rows.push((WaitFor::Body, 0));
        }
        if rows.is_empty() && time_ns.is_none() {
            wasmtime::bail!("the component waits for something that never comes");
        }
        let ns = time_ns.map_or(SLEEP_NS_MAX, |at| at.saturating_sub(self.clock.now_ns()));
        let region =
            self.staging.put_wait(rows.iter().map(|(what, handle)| (*what as u16, *handle)));
        self.ask(Ask::Wait(region, ns.min(SLEEP_NS_MAX))).await?;
        self.desk.time_came(self.clock.now_ns());
        for ((what, handle), is_ready) in rows.into_iter().zip(self.staging.ready_rows(region)) {
            match what {
                _ if !is_ready => {}
                WaitFor::Body => self.read_body().await?,
                _ => self.desk.row_came(what, handle),
            }
        }
        Ok(())
    }

    async fn read_body(&self) -> Result<(), Trap> {
        let region = GuestRange { size: wire(PIECE_BYTES), ..Staging::piece_room() };
        let size = self.ask(Ask::Read(region)).await?;
        let piece = self.staging.copy(GuestRange { size, ..region });
        self.desk.body_came(Bytes::from(piece));
        Ok(())
    }

    async fn perform(&self, operation: Operation) -> Result<Reply, Trap> {
        let room = Staging::piece_room();
        let (ask, region) = match operation {
            Operation::Fetch(asked) => {
                let Ok(record) = self.staging.put_fetch(&asked) else {
                    let code = ERRORS_FROM - HEADERS_TOO_LONG;
                    return Ok(Reply { code, ..Reply::default() });
                };
                (Ask::Fetch(record), None)
            }
            Operation::FetchWrite(handle, bytes) => {
                (Ask::FetchWrite(handle, self.staging.put_piece(&bytes)), None)
            }
            Operation::FetchFinish(handle, trailers) if trailers.is_empty() => {
                (Ask::FetchFinish(handle), None)
            }
            Operation::FetchFinish(handle, trailers) => {
                (Ask::TrailersWrite(handle, self.staging.put_trailers(&trailers)?), None)
            }
            Operation::Trailers(handle) => (Ask::TrailersRead(handle, room), Some(room)),
            Operation::FetchHead(handle) => (Ask::FetchHead(handle, room), Some(room)),
            Operation::FetchRead(handle) => (Ask::FetchRead(handle, room), Some(room)),
            Operation::FetchClose(handle) => (Ask::FetchClose(handle), None),
        };
        let code = self.ask(ask).await?.cast_signed();
        let read = region.zip(u32::try_from(code).ok());
        let bytes = read.map_or(Bytes::new(), |(region, size)| {
            let size = size.min(region.size);
            self.staging.copy(GuestRange { size, ..region }).into()
        });
        Ok(Reply { code, bytes })
    }

    /// Sends what there is of the response.
    async fn write(&self) -> Result<(), Trap> {
        let piece = self.desk.with_output(Output::take_piece);
        let piece = self.staging.put_piece(&piece);
        if self.desk.with_output(|output| output.is_begun()) {
            return self.ask(Ask::Write(piece)).await.map(drop);
        }
        let record = self.put_response(piece, Place::Start)?;
        self.ask(Ask::Start(record)).await.map(drop)
    }

    /// The handler has ended: sends the rest. Returns what the call returns.
    async fn finish(&self) -> Result<u32, Trap> {
        let is_begun = self.desk.with_output(|output| output.is_begun());
        let (is_whole, failure, bytes) = self
            .desk
            .with_output(|output| (output.is_whole, output.failure.take(), output.bytes()));
        let failure = failure.or_else(|| {
            (!is_whole).then(|| "the component returned without setting a response".to_owned())
        });
        match failure {
            Some(why) if is_begun => return Err(wasmtime::Error::msg(why)),
            Some(why) => return Ok(self.staging.put_failure(&why)),
            None => {}
        }
        let trailers = self.desk.with_output(|output| std::mem::take(&mut output.trailers));
        let is_short = bytes <= PIECE_BYTES && trailers.is_empty();
        if !is_begun && is_short && !self.tells_length_alone(bytes) {
            let piece = self.desk.with_output(Output::take_piece);
            return self.put_response(self.staging.put_piece(&piece), Place::Whole);
        }
        while self.desk.with_output(|output| !output.is_begun() || output.bytes() > 0) {
            self.write().await?;
        }
        if !trailers.is_empty() {
            let rows = self.staging.put_trailers(&trailers)?;
            self.ask(Ask::TrailersWrite(0, rows)).await?;
        }
        Ok(RESPONSE_WRITTEN)
    }

    /// True for the answer to a HEAD request that tells how long another's body would be.
    fn tells_length_alone(&self, bytes: usize) -> bool {
        let has_length =
            |(_, headers): &(u16, http::HeaderMap)| headers.contains_key(CONTENT_LENGTH);
        bytes == 0 && self.desk.with_output(|output| output.head.as_ref().is_some_and(has_length))
    }

    fn put_response(&self, body: GuestRange, place: Place) -> Result<u32, Trap> {
        let head = self.desk.with_output(|output| output.head.take());
        let (status, headers) = head.expect("it has one, and it is sent once");
        Ok(self.staging.put_response(status, &headers, place, body)?)
    }

    /// Leaves an ask and waits for its answer. The deadline stands still meanwhile, and begins anew where bytes have
    /// moved.
    async fn ask(&self, ask: Ask) -> Result<u32, Trap> {
        let left_ns = self.clock.left_ns();
        self.asks.set(ask, self.staging.size());
        let answered: Result<u32, AskFault> =
            poll_fn(|_| self.asks.take_answer().map_or(Poll::Pending, Poll::Ready)).await;
        let answer = answered?;
        let has_moved = match ask {
            Ask::Read(_) => answer > 0,
            Ask::FetchWrite(..) | Ask::FetchRead(..) => answer.cast_signed() > 0,
            Ask::Start(_) | Ask::Write(_) => true,
            _ => false,
        };
        if has_moved {
            self.clock.renew();
        } else {
            self.clock.set_left_ns(left_ns);
        }
        Ok(answer)
    }
}
