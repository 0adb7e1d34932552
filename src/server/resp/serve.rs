//! Accepting connections.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::{JoinError, JoinSet};

use super::clients::{Clients, Stop};
use super::connection::Connection;
use super::{RespOptions, Shared};
use crate::ambient;
use crate::server::{Backend, stopped};

/// How long to wait after a connection could not be accepted, for want of descriptors mostly.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Serves RESP until `shutdown` holds true (or its sender is gone); then no connection is
/// accepted any more, commands under way are finished within the grace period, and the
/// connections are closed. Runs on the runtime of its caller, best a current-thread one.
pub async fn serve(
    listener: TcpListener,
    backend: Arc<dyn Backend>,
    options: RespOptions,
    mut shutdown: watch::Receiver<bool>,
) {
    let grace = options.shutdown_grace;
    let shared = Arc::new(Shared {
        max_value_bytes: backend.max_value_bytes(),
        backend,
        options,
        clients: Clients::default(),
        input_bytes: AtomicUsize::new(0),
        read_bytes: Arc::default(),
    });
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            biased;
            () = stopped(&mut shutdown) => break,
            Some(ended) = connections.join_next() => report(ended),
            accepted = listener.accept() => match accepted {
                Ok((stream, address)) => begin(&shared, &mut connections, stream, address),
                Err(error) => {
                    tracing::warn!(%error, "a RESP connection could not be accepted");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            },
        }
    }
    drop(listener);
    for client in shared.clients.all() {
        client.stop(Stop::ShuttingDown);
    }
    let finished = async {
        while let Some(ended) = connections.join_next().await {
            report(ended);
        }
    };
    if tokio::time::timeout(grace, finished).await.is_err() {
        tracing::warn!("RESP connections were cut off, because their commands did not finish in time");
    }
}

/// A panic ends only the connection that it happened in, but must not go unnoticed.
fn report(ended: Result<(), JoinError>) {
    if let Err(error) = ended {
        tracing::error!(%error, "a RESP connection ended with a panic");
    }
}

fn begin(shared: &Arc<Shared>, connections: &mut JoinSet<()>, stream: TcpStream, address: SocketAddr) {
    let metrics = &shared.options.metrics;
    if shared.clients.count() >= shared.options.max_connections {
        metrics.resp_connection_refused();
        // The socket is new: its buffer has room, and if not, nothing is owed.
        let _ = stream.try_write(b"-ERR max number of clients reached\r\n");
        return;
    }
    // Without it replies wait for the acknowledgement of earlier ones.
    let _ = stream.set_nodelay(true);
    let local = stream.local_addr().unwrap_or(address);
    let (client, stop) = shared.clients.enter(address, local, ambient::moment());
    metrics.resp_connection_opened();
    let entered = Entered { shared: Arc::clone(shared), id: client.id };
    let connection = Connection::new(Arc::clone(shared), stream, client, stop);
    connections.spawn(async move {
        let _entered = entered;
        connection.run().await;
    });
}

/// Strikes a connection off however its task ends.
struct Entered {
    shared: Arc<Shared>,
    id: u64,
}

impl Drop for Entered {
    fn drop(&mut self) {
        self.shared.clients.leave(self.id);
        self.shared.options.metrics.resp_connection_closed();
    }
}
