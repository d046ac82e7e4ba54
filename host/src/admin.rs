//! Health and metrics over HTTP, on a housekeeping thread with a runtime of its own.
//!
//!   GET /          what there is
//!   GET /healthz   200 `ok`, or 503 `draining` while the host is about to stop
//!   GET /metrics   the counters as OpenMetrics text
//!   PUT /update    an image that replaces this machine's, on machines of an image
//!
//! Invariant: nothing here waits for a worker or makes one wait; it reads what they count.

pub mod metrics; // the counters as OpenMetrics text
mod update; // images on their way to the first process

use std::{
    io,
    net::{SocketAddr, TcpListener},
    sync::{Arc, Mutex, PoisonError, atomic::Ordering::Relaxed},
    thread::{self, JoinHandle},
    time::Duration,
};

use axum::{
    Router,
    extract::State,
    http::{StatusCode, header::CONTENT_TYPE},
    response::IntoResponse,
    routing::{get, put},
};
use tokio::{runtime, sync::oneshot, time};

use midge_net::RingTier;

use self::metrics::Metrics;
use crate::stats::{HostStats, Stats};

/// How long a stop waits for requests in flight; a scrape takes milliseconds.
pub const ADMIN_STOP_MAX: Duration = Duration::from_secs(2);

/// What `/` answers.
const LISTING: &str = "midge\n\n/healthz  200 ok, or 503 while draining\n/metrics  OpenMetrics text\n/update   takes an image (midge image update)\n";

/// The admin listener, running until it is stopped or dropped.
#[derive(Debug)]
pub struct Admin {
    address: SocketAddr,
    shared: Arc<Shared>,
    stop: oneshot::Sender<()>,
    thread: JoinHandle<io::Result<()>>,
}

/// Why the admin listener does not run.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AdminError {
    /// The address cannot be listened on.
    #[error("cannot listen on `{address}` for health and metrics")]
    Listen {
        /// Which address.
        address: SocketAddr,
        /// Why.
        #[source]
        cause: io::Error,
    },
    /// No thread or no runtime.
    #[error("cannot start the admin thread")]
    Start(#[source] io::Error),
    /// It ended by itself.
    #[error("the admin listener failed")]
    Serve(#[source] io::Error),
}

#[derive(Debug)]
struct Shared {
    // Replaced with every reload; locked by the admin thread and a reload alone.
    metrics: Mutex<Metrics>,
    host: Arc<HostStats>,
    ring_tier: RingTier,
}

impl Admin {
    /// Listens and serves. Port 0 takes a free one, see [`Admin::address`].
    ///
    /// # Errors
    /// [`AdminError`]: the address is taken, or the system has no thread left.
    pub fn start(
        address: SocketAddr,
        stats: Arc<Stats>,
        host: Arc<HostStats>,
        ring_tier: RingTier,
    ) -> Result<Self, AdminError> {
        let listen = |cause| AdminError::Listen { address, cause };
        let listener = TcpListener::bind(address).map_err(listen)?;
        listener.set_nonblocking(true).map_err(listen)?;
        let address = listener.local_addr().map_err(listen)?;
        let metrics = Mutex::new(Metrics::new(stats, Arc::clone(&host), ring_tier));
        let shared = Arc::new(Shared { metrics, host, ring_tier });
        let runtime = runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(AdminError::Start)?;
        let (stop, stopped) = oneshot::channel();
        let routes = router(Arc::clone(&shared));
        let thread = thread::Builder::new()
            .name("midge-admin".into())
            .spawn(move || runtime.block_on(serve(listener, routes, stopped)))
            .map_err(AdminError::Start)?;
        Ok(Self { address, shared, stop, thread })
    }

    /// Returns the address that it listens on.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Shows these counters from now on.
    pub fn serve(&self, stats: Arc<Stats>) {
        let shared = &self.shared;
        let metrics = Metrics::new(stats, Arc::clone(&shared.host), shared.ring_tier);
        *self.shared.metrics.lock().unwrap_or_else(PoisonError::into_inner) = metrics;
    }

    /// Returns what gives the counters of the moment in the format that is pushed.
    pub fn pushed(&self) -> impl Fn() -> String + Send + 'static {
        let shared = Arc::clone(&self.shared);
        move || shared.metrics.lock().unwrap_or_else(PoisonError::into_inner).classic_text()
    }

    /// Answers what is in flight, for at most [`ADMIN_STOP_MAX`], and ends the thread.
    ///
    /// # Errors
    /// [`AdminError::Serve`] if it had ended by itself.
    ///
    /// # Panics
    /// If the thread did.
    pub fn stop(self) -> Result<(), AdminError> {
        drop(self.stop);
        self.thread.join().expect("handlers do not panic").map_err(AdminError::Serve)
    }
}

fn router(shared: Arc<Shared>) -> Router {
    Router::new()
        .route("/", get(async || LISTING))
        .route("/healthz", get(healthz))
        .route("/metrics", get(metrics_text))
        .route(crate::update::PATH, put(update::take))
        .with_state(shared)
}

async fn serve(
    listener: TcpListener,
    router: Router,
    stopped: oneshot::Receiver<()>,
) -> io::Result<()> {
    let listener = tokio::net::TcpListener::from_std(listener)?;
    let (stop, mut stopping) = tokio::sync::watch::channel(false);
    let mut stopping_too = stopping.clone();
    // A closed channel means the same as a message: whoever held the other end is gone.
    tokio::spawn(async move {
        drop(stopped.await);
        stop.send_replace(true);
    });
    let serving = axum::serve(listener, router)
        .with_graceful_shutdown(async move { drop(stopping.wait_for(|stop| *stop).await) });
    let patience = async move {
        drop(stopping_too.wait_for(|stop| *stop).await);
        time::sleep(ADMIN_STOP_MAX).await;
    };
    tokio::select! {
        ended = serving => ended,
        () = patience => Ok(()),
    }
}

async fn healthz(State(shared): State<Arc<Shared>>) -> (StatusCode, &'static str) {
    if shared.host.is_draining.load(Relaxed) {
        (StatusCode::SERVICE_UNAVAILABLE, "draining\n")
    } else {
        (StatusCode::OK, "ok\n")
    }
}

async fn metrics_text(State(shared): State<Arc<Shared>>) -> impl IntoResponse {
    (
        [(CONTENT_TYPE, metrics::CONTENT_TYPE)],
        shared.metrics.lock().unwrap_or_else(PoisonError::into_inner).text(),
    )
}

#[cfg(test)]
mod tests {
    use std::{
        io::{Read, Write},
        net::TcpStream,
    };

    use super::*;
    use crate::admin::metrics::tests::check_open_metrics;

    fn start() -> (Admin, Arc<HostStats>) {
        let (stats, _) = Stats::new(2, &["hello".into()]);
        let host = Arc::new(HostStats::default());
        let address = SocketAddr::from(([127, 0, 0, 1], 0));
        (Admin::start(address, stats, Arc::clone(&host), RingTier::A).unwrap(), host)
    }

    /// Returns head and body.
    fn get(address: SocketAddr, path: &str) -> (String, String) {
        let mut stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        write!(stream, "GET {path} HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n").unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        (head.to_owned(), body.to_owned())
    }

    #[test]
    fn health_follows_the_draining_flag() {
        let (admin, host) = start();
        let (head, body) = get(admin.address(), "/healthz");
        assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
        assert_eq!(body, "ok\n");
        host.is_draining.store(true, Relaxed);
        let (head, body) = get(admin.address(), "/healthz");
        assert!(head.starts_with("HTTP/1.1 503 "), "{head}");
        assert_eq!(body, "draining\n");
        admin.stop().unwrap();
    }

    #[test]
    fn metrics_are_served_as_open_metrics() {
        let (admin, _) = start();
        let (head, body) = get(admin.address(), "/metrics");
        assert!(head.contains(&format!("content-type: {}", metrics::CONTENT_TYPE)), "{head}");
        check_open_metrics(&body);
        assert!(get(admin.address(), "/").1.contains("/metrics"));
        assert!(get(admin.address(), "/nothing").0.starts_with("HTTP/1.1 404 "));
        admin.stop().unwrap();
    }

    #[test]
    fn a_silent_client_does_not_hold_up_the_stop() {
        let (admin, _) = start();
        let mut client = TcpStream::connect(admin.address()).unwrap();
        client.write_all(b"GET /met").unwrap();
        get(admin.address(), "/"); // by now the first connection was accepted too
        admin.stop().unwrap();
    }

    #[test]
    fn a_taken_address_is_named() {
        let (admin, _) = start();
        let (stats, _) = Stats::new(1, &[]);
        let error = Admin::start(admin.address(), stats, Arc::default(), RingTier::A).unwrap_err();
        assert!(error.to_string().contains(&admin.address().to_string()), "{error}");
        admin.stop().unwrap();
    }
}
