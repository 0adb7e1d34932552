//! What can go wrong, and what that leaves behind.

use std::time::Duration;

use super::{ProtocolError, ServerError};

/// What became of a command that did not succeed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fate {
    /// Certainly nothing happened: safe to send again.
    NotApplied,
    /// It may have been applied, or be applied later: only an idempotent command may be repeated.
    InDoubt,
}

/// A command that did not succeed. [`ClientError::fate`] says whether it may have been applied.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// No connection came about: no command was sent.
    #[error("cannot connect to {address}: {source}")]
    Connect {
        /// Where to.
        address: String,
        /// Why not.
        source: std::io::Error,
    },
    /// The server refused the credentials or the database: no command was sent.
    #[error("{address} refused the connection: {source}")]
    Refused {
        /// Who refused.
        address: String,
        /// Its words.
        source: ServerError,
    },
    /// The connection broke: commands without a reply are in doubt.
    #[error("connection broken: {0}")]
    Broken(#[from] std::io::Error),
    /// The server closed the connection: commands without a reply are in doubt.
    #[error("the server closed the connection")]
    Closed,
    /// No reply came in time: the command is in doubt and the connection of no further use.
    #[error("no reply within {0:?}")]
    TimedOut(Duration),
    /// What came is not RESP: commands without a reply are in doubt.
    #[error("protocol error: {0}")]
    Protocol(#[from] ProtocolError),
    /// The server answered with an error; its prefix says what that means.
    #[error(transparent)]
    Server(#[from] ServerError),
}

impl ClientError {
    /// Whether the command may have been applied.
    pub fn fate(&self) -> Fate {
        match self {
            ClientError::Connect { .. } | ClientError::Refused { .. } => Fate::NotApplied,
            ClientError::Server(error) => error.fate(),
            ClientError::Broken(_) | ClientError::Closed | ClientError::TimedOut(_) | ClientError::Protocol(_) => {
                Fate::InDoubt
            }
        }
    }

    /// The server's error code, if it was the server that said no.
    pub fn prefix(&self) -> Option<&str> {
        match self {
            ClientError::Server(error) | ClientError::Refused { source: error, .. } => Some(error.prefix()),
            _ => None,
        }
    }
}
