//! How a RESP server is to behave.

use std::sync::Arc;
use std::time::Duration;

use crate::server::ServerMetrics;
use crate::types::limits;

/// What EXEC does.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Transactions {
    /// Answers EXECABORT and runs nothing. Nobody is then deceived about atomicity.
    #[default]
    Refuse,
    /// Runs the queued commands in order, each for itself: no atomicity, no isolation.
    Pipeline,
}

/// How a RESP server is to behave.
#[derive(Clone, Debug)]
pub struct RespOptions {
    /// The password of the user `default`. None: everybody may send commands.
    pub password: Option<String>,
    /// Whether FLUSHALL and FLUSHDB are allowed. They delete every key of the cluster.
    pub allow_flush: bool,
    /// What EXEC does.
    pub transactions: Transactions,
    /// Connections at once; more are told so and closed.
    pub max_connections: usize,
    /// How long a connection may stay silent. None: for ever, as in Redis.
    pub idle_timeout: Option<Duration>,
    /// How long a command may be under way to us, and one second more for each 64 KiB of
    /// it that has arrived. Raise it for clients on very slow lines.
    pub command_deadline: Duration,
    /// How long a client may leave replies unread before it is given up.
    pub write_deadline: Duration,
    /// How long a request to the replicas may take unless a command says otherwise. Stay
    /// well below the 5 s after which redis-py gives up, so that clients get an answer.
    pub request_timeout: Duration,
    /// How long commands under way may take to finish when the server stops.
    pub shutdown_grace: Duration,
    /// Where connections and commands are counted.
    pub metrics: Arc<ServerMetrics>,
}

impl Default for RespOptions {
    fn default() -> RespOptions {
        RespOptions {
            password: None,
            allow_flush: false,
            transactions: Transactions::default(),
            max_connections: limits::CLIENT_CONNECTIONS,
            idle_timeout: None,
            command_deadline: Duration::from_secs(30),
            write_deadline: Duration::from_secs(60),
            request_timeout: Duration::from_millis(500),
            shutdown_grace: Duration::from_secs(5),
            metrics: Arc::new(ServerMetrics::new()),
        }
    }
}
