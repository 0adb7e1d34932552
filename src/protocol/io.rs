//! What goes into the machine of a node and what comes out of it.
//!
//! The order of actions is part of the contract: the driver carries them out as they
//! come. A `Send` that answers a peer is only emitted once what it acknowledges is durable.

use std::time::Duration;

use crate::types::{
    Actor, Applied, ClusterMap, Incarnation, Key, Mutation, NodeId, Outcome, Request, ScanRange, ScanResult, Summary,
    Timestamp, Version,
};
use crate::wire::{Envelope, Statistics};

/// Names a client's request between the driver and the machine.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct RequestToken(pub u64);

/// Names an order to the local store between the driver and the machine.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct StorageTicket(pub u64);

/// What the machine is told once.
#[derive(Clone, Debug)]
pub struct NodeSettings {
    /// This life of this node.
    pub actor: Actor,
    /// How long a request may take unless it says otherwise.
    pub request_timeout: Duration,
    /// How far ahead another's clock may be.
    pub max_clock_skew: Duration,
    /// When a read asks a further replica, until the peer's own p95 is known.
    pub hedge_after: Duration,
    /// The longest value taken, in bytes.
    pub max_value_bytes: usize,
    /// The highest timestamp that the store knew when it was opened.
    pub recovered_clock: Timestamp,
}

/// What happens to the machine.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Input {
    /// A client asks.
    Request {
        /// The driver's name for it.
        token: RequestToken,
        /// What is asked.
        request: Request,
    },
    /// A peer speaks.
    Message {
        /// Who.
        from: NodeId,
        /// What.
        envelope: Envelope,
    },
    /// A connection to a peer stands.
    PeerUp {
        /// Who.
        peer: NodeId,
        /// In which of its lives.
        incarnation: Incarnation,
    },
    /// The connection to a peer is gone.
    PeerDown {
        /// Who.
        peer: NodeId,
    },
    /// A mutation is durable.
    Committed {
        /// Of which [`Action::Append`].
        ticket: StorageTicket,
        /// What it came to.
        applied: Applied,
    },
    /// The local store answered.
    Fetched {
        /// To which [`Action::Fetch`].
        ticket: StorageTicket,
        /// What.
        result: LocalReadResult,
    },
    /// The local store's queue was full: the order was not carried out and never will be.
    StorageRefused {
        /// Which order.
        ticket: StorageTicket,
    },
    /// A frame could not be sent and never will be.
    SendFailed {
        /// To whom.
        to: NodeId,
        /// What.
        envelope: Envelope,
    },
    /// Time has passed: [`super::Node::next_timeout`] may have been reached.
    Tick,
}

/// What the machine reads from the local store.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum LocalRead {
    /// A version with its value.
    Value(Key),
    /// A version without its value.
    Head(Key),
    /// Keys.
    Scan(ScanRange),
    /// What the store knows of itself.
    Statistics,
}

/// What the local store answers.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum LocalReadResult {
    /// To [`LocalRead::Value`].
    Value(Option<Version>),
    /// To [`LocalRead::Head`].
    Head(Option<Summary>),
    /// To [`LocalRead::Scan`].
    Scan(ScanResult),
    /// To [`LocalRead::Statistics`].
    Statistics(Statistics),
}

/// What the driver must do, in this order.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Action {
    /// Send a message to these peers.
    Send {
        /// To whom; never this node.
        to: Vec<NodeId>,
        /// What.
        envelope: Envelope,
    },
    /// Make a mutation durable, then tell the machine ([`Input::Committed`]).
    Append {
        /// The machine's name for it.
        ticket: StorageTicket,
        /// What.
        mutation: Mutation,
    },
    /// Read from the local store, then tell the machine ([`Input::Fetched`]).
    Fetch {
        /// The machine's name for it.
        ticket: StorageTicket,
        /// What.
        read: LocalRead,
    },
    /// Answer a client.
    Reply {
        /// Which request.
        token: RequestToken,
        /// How it ended.
        outcome: Outcome,
    },
    /// Make a newer map durable, then connect to its members. The machine already lives by it.
    InstallMap(ClusterMap),
}
