//! What a store has for a component that the engine runs: WASI as the engine's crates offer it, with our clocks, our
//! chance, our log, and nothing of the machine's.
//!
//! Files and sockets are linked and empty: there is no folder to open, and every address is refused. Requests to other
//! servers go where those of all functions go (`fetch.rs`).

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use bytes::Bytes;
use midge_abi::imports::{LOG_LINE_BYTES_MAX, LOG_LINES_PER_REQUEST_MAX, Level};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};
use rand_core::TryRng;
use tokio::io::AsyncWrite;
use wasmtime_wasi::cli::{IsTerminal, StdoutStream};
use wasmtime_wasi::p2::{OutputStream, Pollable, StreamResult};
use wasmtime_wasi::{ResourceTable, WasiCtx, WasiCtxView, WasiView};
use wasmtime_wasi_http::{WasiHttpCtx, WasiHttpCtxView, WasiHttpView};

use super::clock::{Clock, Seen};
use super::desk::Desk;
use super::fetch::Hooks;
use super::request::Asked;
use crate::context::{InstanceLimits, Services};

/// Most handles that are alive at once, as in components that are linked.
const HANDLES_MAX: usize = 16_384;
/// Most random bytes of one call.
const RANDOM_BYTES_MAX: u64 = 64 * 1024;
/// Bytes that the log takes at once.
const LOG_PERMIT_BYTES: usize = 64 * 1024;

/// A store's data.
pub(crate) struct ComponentContext {
    wasi: WasiCtx,
    http: WasiHttpCtx,
    hooks: Hooks,
    pub(super) table: ResourceTable,
    pub(super) desk: Desk,
    pub(super) clock: Arc<Clock>,
    pub(super) limits: InstanceLimits,
}

impl ComponentContext {
    /// Makes the data of one call.
    pub(super) fn new(
        services: &Arc<dyn Services>,
        request_id: [u8; 16],
        asked: &Asked,
        desk: &Desk,
        clock: &Arc<Clock>,
        limits: InstanceLimits,
    ) -> Self {
        let mut random = ChaCha8Rng::from_seed(services.seed(&request_id));
        let mut insecure = ChaCha8Rng::seed_from_u64(random.next_u64());
        let seed = u128::from(insecure.next_u64()) << 64 | u128::from(insecure.next_u64());
        let log = |level| {
            let services = Arc::clone(services);
            let lines = Lines { services, request_id, level, unfinished: Vec::new(), count: 0 };
            Log(Arc::new(Mutex::new(lines)))
        };
        let mut wasi = WasiCtx::builder();
        wasi.stdout(log(Level::Info))
            .stderr(log(Level::Warn))
            .args(&asked.arguments)
            .envs(&asked.environment)
            .secure_random(Chance(random))
            .insecure_random(Chance(insecure))
            .insecure_random_seed(seed)
            .max_random_size(RANDOM_BYTES_MAX)
            .wall_clock(Seen(Arc::clone(clock)))
            .monotonic_clock(Seen(Arc::clone(clock)))
            .allow_tcp(false)
            .allow_udp(false)
            .allow_ip_name_lookup(false);
        let mut table = ResourceTable::new();
        table.set_max_capacity(HANDLES_MAX);
        Self {
            wasi: wasi.build(),
            http: WasiHttpCtx::new(),
            hooks: Hooks(desk.clone()),
            table,
            desk: desk.clone(),
            clock: Arc::clone(clock),
            limits,
        }
    }
}

impl WasiView for ComponentContext {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        WasiCtxView { ctx: &mut self.wasi, table: &mut self.table }
    }
}

impl WasiHttpView for ComponentContext {
    fn http(&mut self) -> WasiHttpCtxView<'_> {
        WasiHttpCtxView { hooks: &mut self.hooks, table: &mut self.table, ctx: &mut self.http }
    }
}

/// Our generator, as the engine's crates want one.
struct Chance(ChaCha8Rng);

impl TryRng for Chance {
    type Error = Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        Ok(self.0.next_u32())
    }

    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        Ok(self.0.next_u64())
    }

    fn try_fill_bytes(&mut self, target: &mut [u8]) -> Result<(), Infallible> {
        self.0.fill_bytes(target);
        Ok(())
    }
}

/// A standard stream: its lines go to the log.
#[derive(Clone)]
struct Log(Arc<Mutex<Lines>>);

struct Lines {
    services: Arc<dyn Services>,
    request_id: [u8; 16],
    level: Level,
    unfinished: Vec<u8>,
    count: u32,
}

impl Lines {
    fn write(&mut self, bytes: &[u8]) {
        for piece in bytes.split_inclusive(|&byte| byte == b'\n') {
            let (line, is_whole) = match piece.strip_suffix(b"\n") {
                Some(line) => (line, true),
                None => (piece, false),
            };
            let room = LOG_LINE_BYTES_MAX.saturating_sub(self.unfinished.len());
            self.unfinished.extend_from_slice(&line[..line.len().min(room)]);
            if is_whole {
                self.end_line();
            }
        }
    }

    fn end_line(&mut self) {
        self.count = self.count.saturating_add(1);
        if self.count <= LOG_LINES_PER_REQUEST_MAX {
            self.services.log(&self.request_id, self.level, &self.unfinished);
        }
        self.unfinished.clear();
    }
}

impl Drop for Lines {
    fn drop(&mut self) {
        if !self.unfinished.is_empty() {
            self.end_line();
        }
    }
}

impl Log {
    fn write_lines(&self, bytes: &[u8]) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).write(bytes);
    }
}

impl IsTerminal for Log {
    fn is_terminal(&self) -> bool {
        false
    }
}

impl StdoutStream for Log {
    fn async_stream(&self) -> Box<dyn AsyncWrite + Send + Sync> {
        Box::new(self.clone())
    }

    fn p2_stream(&self) -> Box<dyn OutputStream> {
        Box::new(self.clone())
    }
}

impl AsyncWrite for Log {
    fn poll_write(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        self.write_lines(bytes);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

#[wasmtime_wasi::async_trait]
impl Pollable for Log {
    async fn ready(&mut self) {}
}

impl OutputStream for Log {
    fn write(&mut self, bytes: Bytes) -> StreamResult<()> {
        self.write_lines(&bytes);
        Ok(())
    }

    fn flush(&mut self) -> StreamResult<()> {
        Ok(())
    }

    fn check_write(&mut self) -> StreamResult<usize> {
        Ok(LOG_PERMIT_BYTES)
    }
}
