//! One node from its configuration to its end: the node, its front ends, the signals.
//!
//! The ports of clients are bound before the store is opened, so that a taken port ends
//! the start before anything else has begun; they answer only once the node runs.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::Duration;

use anyhow::{Context, bail};
use tokio::sync::watch;

use super::exit::Exit;
use crate::config::{NodeConfig, Transactions};
use crate::node::{self, NodeHandle, NodeOptions, RunningNode, StopReason};
use crate::server::http::{self, HttpOptions};
use crate::server::resp::{self, RespOptions};
use crate::server::{Backend, ServerMetrics};
use crate::transport::certificates::TlsFiles;

/// How often the main thread looks whether the node has stopped by itself.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// Runs the node until a signal comes or its store fails.
pub(super) fn serve(config: &NodeConfig, signals: &Receiver<()>) -> anyhow::Result<Exit> {
    let resp = bind(config.listen.resp, "listen.resp")?;
    let http = bind(config.listen.http, "listen.http")?;
    let running = node::start(&options_of(config))?;
    let (stop, stopping) = watch::channel(false);
    let clients = FrontEnds { resp, http, handle: running.handle.clone(), stopping };
    let options = front_end_options(config);
    let threads = std::thread::Builder::new()
        .name("clients".into())
        .spawn(move || clients.run(options))
        .context("cannot start the thread for clients")?;
    tracing::info!(
        node = %config.node.id, resp = %config.listen.resp, http = %config.listen.http, peer = %config.listen.peer,
        "the node is up"
    );
    let asked = await_end(&running, signals);
    if asked {
        tracing::info!("stopping: finishing what is under way");
    }
    stop.send_replace(true);
    running.handle.stop();
    let reason = running.join();
    // Front ends end by themselves once told; a panic of theirs was logged where it happened.
    let _ = threads.join();
    match reason {
        StopReason::Asked => {
            tracing::info!("stopped");
            Ok(Exit::Done)
        }
        reason => bail!(reason),
    }
}

fn bind(address: SocketAddr, key: &str) -> anyhow::Result<std::net::TcpListener> {
    let listener = std::net::TcpListener::bind(address).with_context(|| {
        format!("{key}: cannot listen on {address}; is another process using the port? Choose another one")
    })?;
    listener.set_nonblocking(true).with_context(|| format!("{key}: {address}"))?;
    Ok(listener)
}

/// Whether a signal came; otherwise the node has stopped by itself.
fn await_end(running: &RunningNode, signals: &Receiver<()>) -> bool {
    loop {
        match signals.recv_timeout(LOOK_EVERY) {
            Ok(()) | Err(RecvTimeoutError::Disconnected) => return true,
            Err(RecvTimeoutError::Timeout) if running.has_stopped() => return false,
            Err(RecvTimeoutError::Timeout) => {}
        }
    }
}

fn options_of(config: &NodeConfig) -> NodeOptions {
    NodeOptions {
        id: config.node.id,
        data_directory: config.node.data_dir.clone(),
        map_file: config.cluster.map.clone(),
        peer_listen: config.listen.peer,
        tls: TlsFiles {
            ca: config.tls.ca.clone(),
            certificate: config.tls.certificate.clone(),
            key: config.tls.key.clone(),
        },
        request_timeout: config.requests.timeout,
        hedge_after: config.requests.hedge_after,
        max_clock_skew: config.requests.max_clock_skew,
        op_id_horizon: config.requests.op_id_horizon,
        sync_interval: config.sync.interval,
        collect_interval: config.sync.collect_interval,
        k_list: config.gossip.k_list.map(|k_list| k_list.get() as usize),
        max_value_bytes: usize::try_from(config.requests.max_value_bytes.get()).unwrap_or(usize::MAX),
        cache_bytes: config.storage.cache_bytes.get(),
    }
}

fn front_end_options(config: &NodeConfig) -> (RespOptions, HttpOptions) {
    let metrics = Arc::new(ServerMetrics::new());
    let password = config.clients.password.as_ref().map(|secret| secret.0.clone());
    let transactions = match config.clients.transactions {
        Transactions::Refuse => resp::Transactions::Refuse,
        Transactions::Pipeline => resp::Transactions::Pipeline,
    };
    let idle_timeout = config.clients.idle_timeout;
    let resp = RespOptions {
        password: password.clone(),
        allow_flush: config.clients.allow_flush,
        transactions,
        idle_timeout: (!idle_timeout.is_zero()).then_some(idle_timeout),
        request_timeout: config.requests.timeout,
        metrics: Arc::clone(&metrics),
        ..RespOptions::default()
    };
    let http = HttpOptions {
        password,
        request_timeout: config.requests.timeout,
        map_file: Some(config.cluster.map.clone()),
        metrics,
        ..HttpOptions::default()
    };
    (resp, http)
}

/// What clients connect to.
struct FrontEnds {
    resp: std::net::TcpListener,
    http: std::net::TcpListener,
    handle: NodeHandle,
    stopping: watch::Receiver<bool>,
}

impl FrontEnds {
    fn run(self, options: (RespOptions, HttpOptions)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let result = runtime.and_then(|runtime| runtime.block_on(self.serve(options)));
        if let Err(error) = result {
            tracing::error!(%error, "the ports for clients cannot be served");
        }
    }

    async fn serve(self, (resp_options, http_options): (RespOptions, HttpOptions)) -> std::io::Result<()> {
        let backend: Arc<dyn Backend> = Arc::new(self.handle);
        let resp_listener = tokio::net::TcpListener::from_std(self.resp)?;
        let http_listener = tokio::net::TcpListener::from_std(self.http)?;
        tokio::join!(
            resp::serve(resp_listener, Arc::clone(&backend), resp_options, self.stopping.clone()),
            http::serve(http_listener, backend, http_options, self.stopping),
        );
        Ok(())
    }
}
