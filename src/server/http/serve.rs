//! Accepting connections.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::body::Body;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::{JoinError, JoinSet};
use tower::ServiceExt;

use super::HttpOptions;
use super::routes::{App, router};
use super::stall::Stalling;
use crate::server::{Backend, stopped};
use crate::types::limits;

/// How long to wait after a connection could not be accepted, for want of descriptors mostly.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
const TOO_MANY: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\nretry-after: 1\r\nconnection: close\r\n\
    content-type: application/problem+json\r\ncontent-length: 107\r\n\r\n\
    {\"type\":\"urn:dogsled:problem:not-applied\",\"title\":\"Too many connections\",\"status\":503,\"detail\":\"try again\"}";

/// Serves HTTP until `shutdown` holds true (or its sender is gone); then no connection is
/// accepted any more, requests under way are finished within the grace period, and the
/// connections are closed. Runs on the runtime of its caller, best a current-thread one.
pub async fn serve(
    listener: TcpListener,
    backend: Arc<dyn Backend>,
    options: HttpOptions,
    mut shutdown: watch::Receiver<bool>,
) {
    let grace = options.shutdown_grace;
    let app =
        Arc::new(App { max_value_bytes: backend.max_value_bytes(), backend, options, bodies: Default::default() });
    let server = Arc::new(Server { router: router(Arc::clone(&app)), app, open: AtomicUsize::new(0) });
    let mut connections = JoinSet::new();
    let stop = shutdown.clone();
    loop {
        tokio::select! {
            biased;
            () = stopped(&mut shutdown) => break,
            Some(ended) = connections.join_next() => report(ended),
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => server.begin(&mut connections, stream, stop.clone()),
                Err(error) => {
                    tracing::warn!(%error, "an HTTP connection could not be accepted");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            },
        }
    }
    drop(listener);
    let finished = async {
        while let Some(ended) = connections.join_next().await {
            report(ended);
        }
    };
    if tokio::time::timeout(grace, finished).await.is_err() {
        tracing::warn!("HTTP connections were cut off, because their requests did not finish in time");
    }
}

/// A panic ends only the connection that it happened in, but must not go unnoticed.
fn report(ended: Result<(), JoinError>) {
    if let Err(error) = ended {
        tracing::error!(%error, "an HTTP connection ended with a panic");
    }
}

struct Server {
    router: axum::Router,
    app: Arc<App>,
    open: AtomicUsize,
}

impl Server {
    fn begin(self: &Arc<Self>, connections: &mut JoinSet<()>, stream: TcpStream, shutdown: watch::Receiver<bool>) {
        let options = &self.app.options;
        if self.open.load(Ordering::Relaxed) >= options.max_connections {
            options.metrics.http_connection_refused();
            // The socket is new: its buffer has room, and if not, nothing is owed.
            let _ = stream.try_write(TOO_MANY);
            return;
        }
        let _ = stream.set_nodelay(true);
        self.open.fetch_add(1, Ordering::Relaxed);
        options.metrics.http_connection_opened();
        let open = Open(Arc::clone(self));
        connections.spawn(async move {
            open.0.connection(stream, shutdown).await;
        });
    }

    async fn connection(&self, stream: TcpStream, mut shutdown: watch::Receiver<bool>) {
        let options = &self.app.options;
        let service = hyper::service::service_fn(|request: hyper::Request<hyper::body::Incoming>| {
            self.router.clone().oneshot(request.map(Body::new))
        });
        let stream = TokioIo::new(Stalling::new(stream, options.write_deadline));
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(options.head_deadline)
            .max_headers(limits::HTTP_HEADERS)
            .max_header_size(limits::HTTP_HEAD_BYTES)
            .max_buf_size(limits::HTTP_HEAD_BYTES + 8 * 1024)
            .serve_connection(stream, service);
        let mut connection = pin!(connection);
        let ended = tokio::select! {
            ended = connection.as_mut() => ended,
            () = stopped(&mut shutdown) => {
                connection.as_mut().graceful_shutdown();
                connection.await
            }
        };
        if let Err(error) = ended {
            tracing::debug!(%error, "an HTTP connection ended early");
        }
    }
}

/// Counts a connection off however its task ends.
struct Open(Arc<Server>);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::Relaxed);
        self.0.app.options.metrics.http_connection_closed();
    }
}
