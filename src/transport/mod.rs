//! How frames get from one node to another.
//!
//! [`Transport`] is what the node sends through; [`TransportEvent`]s are what it hears.
//!
//! **Who is connected.** The members ([`Transport::set_peers`]) may be connected with;
//! nobody else is let in. Each node dials the members that it keeps
//! ([`Transport::keep`]), again and again if need be, and takes the connections that other
//! members dial. Over any connection that stands both ends may send. Between two nodes at
//! most one connection is in use: if both dial at once the one dialled by the lower id
//! stands, without `Down` and without loss, and the other is never seen. A node closes a
//! connection that it does not keep once neither a frame nor a datagram has travelled on it
//! for a time that is set; if the other end keeps it, that dials again at once.
//!
//! **What is promised of frames.** Between `Up` and `Down` they arrive in the order in
//! which they were sent, each once, none left out. A connection that is closed as idle
//! delivers all that was accepted for sending; when a node stops, it delivers what it has
//! accepted, and what was on its way to it may be lost; of any other connection that ends
//! any suffix may be lost. Datagrams may be lost at any time, and are while many events
//! wait.

pub mod certificates;
mod counters;
pub mod quic;
pub mod channel;

use std::collections::BTreeSet;
use std::net::SocketAddr;

use bytes::Bytes;

use crate::types::{Incarnation, NodeId};

pub use counters::{Counters, CountersSnapshot, HandshakeRefusal};

/// A node that may be connected with.
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
    /// The connection is gone.
    Down {
        /// Who.
        peer: NodeId,
        /// It was closed in good order: as idle, or because an end stops or does not list
        /// the other any more. Otherwise it was lost, or closed for a breach of the
        /// protocol, or the peer has begun another life; frames sent may not have arrived.
        parted: bool,
    },
    /// An attempt to connect to a peer that is kept has failed. The next one follows after
    /// a wait, as long as the peer is kept.
    Unreachable {
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

    /// The members: who may be connected with, and where they are; this node is left out.
    /// Connections with others are closed. This alone makes no connection.
    fn set_peers(&self, peers: Vec<Peer>);

    /// The members to which this node sees to it that a connection stands, in place of
    /// those named before. Whoever is named and no member is dialled once it is one.
    /// A connection that is not kept any more stays until it is idle, counted from here on.
    fn keep(&self, peers: BTreeSet<NodeId>);
}
