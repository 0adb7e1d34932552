//! How an HTTP server is to behave.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::server::ServerMetrics;
use crate::types::limits;

/// How an HTTP server is to behave.
#[derive(Clone, Debug)]
pub struct HttpOptions {
    /// The password: for Basic authentication of the user `default`, or as a Bearer token.
    /// `/healthz` and `/readyz` answer without it. None: everybody may send requests.
    pub password: Option<String>,
    /// Connections at once; more get 503 and are closed.
    pub max_connections: usize,
    /// How long the head of a request may take to arrive, and a connection may be idle.
    pub head_deadline: Duration,
    /// How long a body may take to arrive, and one second more for each 64 KiB of it that has.
    pub body_deadline: Duration,
    /// How long a client may leave a response unread before it is given up.
    pub write_deadline: Duration,
    /// How long a request to the replicas may take unless it says otherwise.
    pub request_timeout: Duration,
    /// How long requests under way may take to finish when the server stops.
    pub shutdown_grace: Duration,
    /// The file of the cluster map that the node begins with, where changes of the namespaces
    /// are written. None: they are refused.
    pub map_file: Option<PathBuf>,
    /// Where connections and requests are counted.
    pub metrics: Arc<ServerMetrics>,
}

impl Default for HttpOptions {
    fn default() -> HttpOptions {
        HttpOptions {
            password: None,
            max_connections: limits::CLIENT_CONNECTIONS,
            head_deadline: Duration::from_secs(30),
            body_deadline: Duration::from_secs(30),
            write_deadline: Duration::from_secs(60),
            request_timeout: Duration::from_millis(500),
            shutdown_grace: Duration::from_secs(5),
            map_file: None,
            metrics: Arc::new(ServerMetrics::new()),
        }
    }
}
