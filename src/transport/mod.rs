//! How frames get from one node to another.
//!
//! [`Transport`] is what the node sends through; [`TransportEvent`]s are what it hears.
//! Frames between two nodes arrive in order or not at all while a connection lives;
//! across connections any suffix may be lost. Datagrams may be lost at any time.

pub mod certificates;
mod counters;
pub mod quic;
pub mod channel;

use std::net::SocketAddr;

use bytes::Bytes;

use crate::types::{Incarnation, NodeId};

pub use counters::{Counters, CountersSnapshot, HandshakeRefusal};

/// A node to keep a connection to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Peer {
    /// Its name: its certificate must say so.
    pub id: NodeId,
    /// Its address (UDP).
    pub address: SocketAddr,
}

/// The frame was not sent and never will be.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum SendError {
    /// There is no connection to this peer now.
    #[error("not connected")]
    NotConnected,
    /// Too much is waiting for this peer already.
    #[error("the queue to this peer is full")]
    QueueFull,
    /// Longer than a frame or datagram may be.
    #[error("too long to send")]
    TooLong,
}

/// What the network tells the node.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum TransportEvent {
    /// A connection stands and both ends have proved who they are. Comes again, without
    /// a `Down`, when a connection is replaced.
    Up {
        /// Who.
        peer: NodeId,
        /// In which of its lives.
        incarnation: Incarnation,
    },
    /// The connection is gone; frames sent may not have arrived.
    Down {
        /// Who.
        peer: NodeId,
    },
    /// Frames (without their lengths) in the order in which they were sent.
    Frames {
        /// From whom.
        peer: NodeId,
        /// The frames.
        frames: Vec<Bytes>,
    },
    /// A datagram.
    Datagram {
        /// From whom.
        peer: NodeId,
        /// Its content.
        content: Bytes,
    },
}

/// Sends to peers. Never blocks: what cannot be queued is refused.
pub trait Transport: Send + Sync + 'static {
    /// Queues a frame; everything queued for a peer leaves in one write.
    ///
    /// # Errors
    /// [`SendError`]: certainly not sent.
    fn send(&self, to: NodeId, frame: Bytes) -> Result<(), SendError>;

    /// Sends a datagram, if there is room for it just now.
    ///
    /// # Errors
    /// [`SendError`]: certainly not sent.
    fn send_datagram(&self, to: NodeId, content: Bytes) -> Result<(), SendError>;

    /// Ends a connection whose peer broke the protocol. It may connect again.
    fn disconnect(&self, peer: NodeId, reason: &str);

    /// The nodes to keep connections to and to accept connections from, this node left
    /// out. Connections to others are closed.
    fn set_peers(&self, peers: Vec<Peer>);
}
