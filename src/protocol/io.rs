//! What goes into the machine of a node and what comes out of it.
//!
//! The order of actions is part of the contract: the driver carries them out as they
//! come. A `Send` that answers a peer is only emitted once what it acknowledges is durable.

use std::time::Duration;

use std::collections::{BTreeMap, BTreeSet};

use crate::types::{
    Actor, Applied, ClusterMap, CommitNumber, Coverage, Digest, Incarnation, Key, LocalHistory, Mutation, NodeId,
    Outcome, Partition, PeerMemory, Pulled, Record, Request, ScanRange, ScanResult, StoreId, Timestamp, VersionVector,
};
use crate::wire::{Datagram, Envelope, Statistics};

use super::membership::{MemberChange, MembershipTimes};

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
    /// For how long an op-id is recognised.
    pub op_id_horizon: Duration,
    /// How often replicas tell each other what they cover, at least.
    pub sync_interval: Duration,
    /// How often tombstones and log entries that every replica covers are let go of.
    pub collect_interval: Duration,
    /// K: how many peers it knows and watches at most.
    pub k_list: usize,
    /// The times of membership.
    pub membership: MembershipTimes,
    /// What choices that need not be secret are drawn from.
    pub seed: u64,
    /// The store's name.
    pub store: StoreId,
    /// The last group that was there when the store was opened.
    pub recovered_commit: CommitNumber,
    /// Up to where an earlier life may have given timestamps.
    pub recovered_clock: Timestamp,
    /// What the store remembers of the peers' stores.
    pub remembered: BTreeMap<NodeId, PeerMemory>,
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
        /// Whether it was closed in good order, not lost.
        parted: bool,
    },
    /// A peer that is to be connected ([`Action::KeepConnected`]) could not be reached.
    Unreachable {
        /// Who.
        peer: NodeId,
    },
    /// A datagram of a peer.
    Datagram {
        /// Who.
        from: NodeId,
        /// What.
        datagram: Datagram,
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
    /// A record.
    Value {
        /// Of which key.
        key: Key,
        /// What the reader has seen of the partition.
        after: VersionVector,
    },
    /// A record without values.
    Head {
        /// Of which key.
        key: Key,
        /// What the reader has seen of the partition.
        after: VersionVector,
    },
    /// Keys.
    Scan(ScanRange),
    /// What the store knows of itself.
    Statistics,
    /// What is durably covered, where that has changed.
    Coverage {
        /// Since which group.
        since: CommitNumber,
    },
    /// What these dots wrote.
    Pull {
        /// Where.
        partition: Partition,
        /// Which dots.
        wanted: VersionVector,
    },
    /// All that is known of a key.
    History(Key),
}

/// What the local store answers.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum LocalReadResult {
    /// To [`LocalRead::Value`].
    Value {
        /// What is held.
        record: Option<Record>,
        /// Whether it would survive a power cut.
        durable: bool,
        /// Whether some of what the reader has seen is missing.
        behind: bool,
    },
    /// To [`LocalRead::Head`].
    Head {
        /// What is held.
        digest: Option<Digest>,
        /// Whether it would survive a power cut.
        durable: bool,
        /// Whether some of what the reader has seen is missing.
        behind: bool,
    },
    /// To [`LocalRead::Scan`].
    Scan(ScanResult),
    /// To [`LocalRead::Statistics`].
    Statistics(Statistics),
    /// To [`LocalRead::Coverage`].
    Coverage {
        /// The last durable group.
        commit: CommitNumber,
        /// What has changed.
        changed: Vec<Coverage>,
    },
    /// To [`LocalRead::Pull`].
    Pulled(Pulled),
    /// To [`LocalRead::History`].
    History(LocalHistory),
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
    /// Send a datagram; it may be lost.
    SendDatagram {
        /// To whom; never this node.
        to: NodeId,
        /// What.
        datagram: Datagram,
    },
    /// Keep connections to these members, and make those that are missing. Others may be
    /// closed once they are idle.
    KeepConnected(BTreeSet<NodeId>),
    /// What is held of a member has changed: for people.
    MemberChanged(MemberChange),
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
    /// Stop serving, for good: a peer remembers more of this node than its store knows.
    Fence {
        /// Which peer.
        by: NodeId,
        /// What it remembers.
        remembered: PeerMemory,
    },
}
