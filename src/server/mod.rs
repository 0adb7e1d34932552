//! What clients speak with: RESP and HTTP.
//!
//! Problem: many clients, of which any may be slow, broken or hostile, share one node.
//! Invariant: what a client sends is measured against `types::limits` before memory is
//! taken for it; every request that was begun is answered, in order, with an outcome that
//! says whether it took effect; no client can make another one wait.
//! This layer knows a node only as a [`Backend`].

mod backend;
mod metrics;
mod password;
mod token;
mod seen;
pub mod resp;
pub mod http;

pub use backend::Backend;
pub use metrics::ServerMetrics;

/// Waits until a server is to stop. That nobody is left who could say so is a reason too.
async fn stopped(shutdown: &mut tokio::sync::watch::Receiver<bool>) {
    let _ = shutdown.wait_for(|stop| *stop).await;
}
