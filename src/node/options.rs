//! What a node needs to be told, and why it may refuse to start.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use crate::storage::StorageError;
use crate::transport::certificates::TlsFiles;
use crate::transport::quic::TransportError;
use crate::types::{MapError, NodeId};

use super::map_file::MapFileError;

/// What a node is told when it starts.
#[derive(Clone, Debug)]
pub struct NodeOptions {
    /// Which member of the map it is.
    pub id: NodeId,
    /// Where its store, its incarnation, its map and its keys for resets live.
    pub data_directory: PathBuf,
    /// The map to begin with. A newer one of the same cluster in `data_directory` is preferred.
    pub map_file: PathBuf,
    /// Where it listens for peers (UDP); the address in the map is where they look for it.
    pub peer_listen: SocketAddr,
    /// Its certificate, its key, and the certificate authority of the cluster.
    pub tls: TlsFiles,
    /// How long a request may take unless it says otherwise.
    pub request_timeout: Duration,
    /// When a read asks a further replica, until the peer's own p95 is known.
    pub hedge_after: Duration,
    /// How far ahead another's clock may be.
    pub max_clock_skew: Duration,
    /// For how long a write with an op-id is recognised.
    pub op_id_horizon: Duration,
    /// How often replicas tell each other what they have.
    pub sync_interval: Duration,
    /// How often what every replica has is let go of.
    pub collect_interval: Duration,
    /// K: how many peers it knows and watches at most, if that is to be other than usual.
    pub k_list: Option<usize>,
    /// The longest value taken, in bytes.
    pub max_value_bytes: usize,
    /// The cache of the store, in bytes; sled takes up to three times as much.
    pub cache_bytes: u64,
}

/// A node that did not start. Nothing is left running; files that were made stay.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The store.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// The network, or the certificates.
    #[error(transparent)]
    Transport(#[from] TransportError),
    /// The map's file.
    #[error(transparent)]
    MapFile(#[from] MapFileError),
    /// The map's content.
    #[error(transparent)]
    Map(#[from] MapError),
    /// The map does not know this node.
    #[error("{id} is not a member of the cluster map in {map_file}; check `node.id`")]
    NotAMember {
        /// Who.
        id: NodeId,
        /// Where.
        map_file: PathBuf,
    },
    /// K is not less than N.
    #[error(
        "gossip.k_list is {k_list}, and there are {members} members: it must be less than their number; \
         lower it, or leave it out"
    )]
    KListTooLarge {
        /// K.
        k_list: usize,
        /// N.
        members: usize,
    },
    /// The data directory belongs to another cluster.
    #[error(
        "{directory} holds data of cluster {found}, but the map is of cluster {expected}; \
         choose another data directory or the right map"
    )]
    OtherCluster {
        /// Where.
        directory: PathBuf,
        /// Whose data.
        found: crate::types::ClusterId,
        /// Whose map.
        expected: crate::types::ClusterId,
    },
    /// A thread could not be started.
    #[error("cannot start a thread: {0}")]
    Thread(std::io::Error),
}
