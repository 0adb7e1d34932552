//! What a client asks of a node, and the typed ways in which that ends.
//!
//! Every front end (RESP, HTTP, the simulator's clients) speaks in these values.

use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::bounded::bounded_list;
use super::{
    CausalContext, ConsistencyLevel, Digest, Epoch, Key, LocalHistory, NamespaceId, NodeId, OpId, Partition,
    RequestPath, Stamp, Summary, Timestamp, Token, VersionVector, WallTime, limits,
};

/// One request of a client.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Request {
    /// What is asked.
    pub operation: Operation,
    /// How many replicas must have spoken.
    pub consistency: ConsistencyLevel,
    /// How long the answer may take; the node's default if none.
    pub timeout: Option<Duration>,
    /// The client's name for it, if it is a write of a key that may be sent again.
    pub op_id: Option<OpId>,
    /// Mutations of the key's partition that a read must see: the client's session.
    pub session: VersionVector,
    /// Whether to tell which way it took: the answer is [`Response::Explained`].
    pub explain: bool,
}

impl Request {
    /// A request without any of the finer points.
    pub fn new(operation: Operation, consistency: ConsistencyLevel) -> Request {
        Request {
            operation,
            consistency,
            timeout: None,
            op_id: None,
            session: VersionVector::default(),
            explain: false,
        }
    }
}

/// When a written value ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Expiry {
    /// Never.
    Never,
    /// At this time of day.
    At(WallTime),
    /// When the value that it replaces would have (Redis's `KEEPTTL`).
    Keep,
}

/// What a client may ask for.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Operation {
    /// The newest value. Answered by [`Response::Read`].
    Get {
        /// Which key.
        key: Key,
    },
    /// The newest version without its value. Answered by [`Response::Head`].
    Head {
        /// Which key.
        key: Key,
    },
    /// Writes a value. Answered by [`Response::Written`].
    Put {
        /// Which key.
        key: Key,
        /// The value.
        value: Bytes,
        /// When it ends.
        expiry: Expiry,
        /// Where values are siblings: what the client has seen, and this replaces.
        context: CausalContext,
    },
    /// Writes a tombstone, whether or not there is a value. Answered by [`Response::Written`].
    Delete {
        /// Which key.
        key: Key,
        /// Where values are siblings: what the client has seen, and this deletes.
        context: CausalContext,
    },
    /// Gives the present value another end; a value written meanwhile wins over it.
    /// Answered by [`Response::Read`]: the value that was found, or none and nothing written.
    SetExpiry {
        /// Which key.
        key: Key,
        /// The new end. [`Expiry::Keep`] changes nothing and writes nothing.
        expiry: Expiry,
    },
    /// Live keys of one partition from a token on. Answered by [`Response::Page`].
    Scan {
        /// Which namespace.
        namespace: NamespaceId,
        /// Where to begin; its partition is the one that is scanned.
        from: Token,
        /// About how many keys to return; all keys that share a token come together.
        limit: u32,
    },
    /// Waits until this many replicas durably hold `stamp` or something newer.
    /// Answered by [`Response::Confirmed`], at the latest when the timeout is over.
    Confirm {
        /// Which key.
        key: Key,
        /// What they must hold.
        stamp: Stamp,
        /// How many of them.
        replicas: u8,
    },
    /// Deletes every key of a namespace in the partition of a token, as of now.
    /// Answered by [`Response::Written`].
    Truncate {
        /// Which namespace.
        namespace: NamespaceId,
        /// Any token of the partition.
        at: Token,
    },
    /// About how many live keys the cluster holds. Answered by [`Response::Count`].
    Count {
        /// Which namespace.
        namespace: NamespaceId,
    },
    /// Finds out what became of a write with an op-id. Answered by [`Response::Written`] if
    /// it was applied, or is now; by [`Refusal::Fenced`] if it was not and never will be.
    Resolve {
        /// The key that it was to write.
        key: Key,
        /// Its op-id.
        op: OpId,
    },
    /// What every replica knows of a key. Answered by [`Response::History`].
    History {
        /// Which key.
        key: Key,
    },
}

impl Operation {
    /// Whether doing it may change anything.
    pub fn writes(&self) -> bool {
        match self {
            Operation::Put { .. }
            | Operation::Delete { .. }
            | Operation::SetExpiry { .. }
            | Operation::Resolve { .. }
            | Operation::Truncate { .. } => true,
            Operation::Get { .. }
            | Operation::History { .. }
            | Operation::Head { .. }
            | Operation::Scan { .. }
            | Operation::Confirm { .. }
            | Operation::Count { .. } => false,
        }
    }

    /// The key that decides where it goes, if one does.
    pub fn key(&self) -> Option<&Key> {
        match self {
            Operation::Get { key }
            | Operation::Head { key }
            | Operation::Put { key, .. }
            | Operation::Delete { key, .. }
            | Operation::SetExpiry { key, .. }
            | Operation::Resolve { key, .. }
            | Operation::History { key }
            | Operation::Confirm { key, .. } => Some(key),
            Operation::Scan { .. } | Operation::Truncate { .. } | Operation::Count { .. } => None,
        }
    }

    /// The namespace it is about.
    pub fn namespace(&self) -> NamespaceId {
        match self {
            Operation::Scan { namespace, .. }
            | Operation::Truncate { namespace, .. }
            | Operation::Count { namespace } => *namespace,
            Operation::Get { key }
            | Operation::Head { key }
            | Operation::Put { key, .. }
            | Operation::Delete { key, .. }
            | Operation::SetExpiry { key, .. }
            | Operation::Resolve { key, .. }
            | Operation::History { key }
            | Operation::Confirm { key, .. } => key.namespace(),
        }
    }
}

/// An answer that is not a failure.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Response {
    /// To [`Operation::Get`] and [`Operation::SetExpiry`].
    Read(Option<ReadReply>),
    /// To [`Operation::Head`]: the newest live version.
    Head(Option<Summary>),
    /// To the writes.
    Written(WriteReply),
    /// To [`Operation::Scan`].
    Page(ScanPage),
    /// To [`Operation::Confirm`]: how many replicas hold it.
    Confirmed(u8),
    /// To [`Operation::Count`].
    Count(u64),
    /// To [`Operation::History`].
    History(KeyHistory),
    /// To a request that wanted to be explained: its answer, and the way it took.
    Explained(#[serde(deserialize_with = "unexplained")] Box<Response>, RequestPath),
}

/// All answers but an explained one, in their order: one within another, as deep as a frame
/// is long, would use up the stack of whoever reads it.
#[derive(Deserialize)]
#[serde(remote = "Response")]
enum Unexplained {
    Read(Option<ReadReply>),
    Head(Option<Summary>),
    Written(WriteReply),
    Page(ScanPage),
    Confirmed(u8),
    Count(u64),
    History(KeyHistory),
}

fn unexplained<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Box<Response>, D::Error> {
    Unexplained::deserialize(deserializer).map(Box::new)
}

impl Response {
    /// The answer, and the way it took if that was asked for.
    pub fn unexplained(self) -> (Response, Option<RequestPath>) {
        match self {
            Response::Explained(response, path) => (*response, Some(path)),
            response => (response, None),
        }
    }
}

/// A live value; where values are siblings, the newest of them.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ReadReply {
    /// The value.
    pub value: Bytes,
    /// Which version it is.
    pub stamp: Stamp,
    /// When it ends, if ever.
    pub expires_at: Option<WallTime>,
    /// The values that were written at the same time as this one, newest first.
    #[serde(deserialize_with = "bounded_list::<_, _, { limits::RECORD_VERSIONS }>")]
    pub siblings: Vec<Sibling>,
    /// What to hand in with a write that is to replace all of them; empty under `lww`.
    pub context: CausalContext,
}

/// A value beside the newest one.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Sibling {
    /// The value.
    pub value: Bytes,
    /// Which version it is.
    pub stamp: Stamp,
    /// When it ends, if ever.
    pub expires_at: Option<WallTime>,
}

/// What all replicas know of a key.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct KeyHistory {
    /// The partition of the key.
    pub partition: Partition,
    /// Its place on the ring.
    pub token: Token,
    /// The epoch under which its replicas were found.
    pub epoch: Epoch,
    /// Its replicas, primary first.
    #[serde(deserialize_with = "bounded_list::<_, _, { limits::MAX_REPLICATION_FACTOR as usize }>")]
    pub replicas: Vec<ReplicaHistory>,
}

/// What one replica said of a key.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ReplicaHistory {
    /// Which replica.
    pub node: NodeId,
    /// What it knows; none if it did not answer.
    pub known: Option<LocalHistory>,
}

/// A write that its level acknowledged.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct WriteReply {
    /// The version it made.
    pub stamp: Stamp,
    /// How many replicas had it on disk when this was sent.
    pub acknowledged: u8,
}

/// Live keys of one partition, in token order.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ScanPage {
    /// The keys found.
    #[serde(deserialize_with = "bounded_list::<_, _, { limits::SCAN_PAGE_MOST_ENTRIES }>")]
    pub entries: Vec<ScanEntry>,
    /// Where the next page begins: in this partition or the next one; none at the end of the ring.
    pub next: Option<Token>,
}

/// One key of a page.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ScanEntry {
    /// The key's bytes.
    pub key: Bytes,
    /// What is held of it, without values.
    pub digest: Digest,
}

/// How a request ended.
pub type Outcome = Result<Response, Failure>;

/// A request that did not succeed, and what state that leaves.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, thiserror::Error)]
pub enum Failure {
    /// Refused before any replica saw it: certainly not applied, safe to retry.
    #[error("not applied: {0}")]
    NotApplied(Refusal),
    /// A write of which too few acknowledgements came: it may show now, later or never.
    #[error("in doubt: {acknowledged} of {needed} acknowledgements came in time; the write may still take effect")]
    InDoubt {
        /// How many replicas are known to have it on disk.
        acknowledged: u8,
        /// How many the level asks for.
        needed: u8,
    },
    /// A read that too few replicas answered in time. Reading changes nothing.
    #[error("{answered} of {needed} replicas answered in time")]
    TimedOut {
        /// How many answered.
        answered: u8,
        /// How many the level asks for.
        needed: u8,
    },
}

/// Why nothing was done.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, thiserror::Error)]
pub enum Refusal {
    /// Fewer replicas are reachable than the level asks for.
    #[error("{alive} of {needed} replicas are reachable")]
    TooFewReplicas {
        /// How many are.
        alive: u8,
        /// How many the level asks for.
        needed: u8,
    },
    /// A bounded queue is full.
    #[error("overloaded, not executed")]
    Overloaded,
    /// The node is stopping.
    #[error("the node is shutting down")]
    ShuttingDown,
    /// The value is longer than this cluster allows.
    #[error("value of {bytes} bytes is above the limit of {limit} bytes")]
    ValueTooLong {
        /// Its length.
        bytes: u64,
        /// The limit.
        limit: u64,
    },
    /// This node's clock is off against most of its peers, or was not compared with any yet.
    #[error("this node's clock {}; it takes no writes until the clocks agree (NTP)", describe_offset(*.offset_ms))]
    ClockUnsure {
        /// By how much it is ahead of theirs, in milliseconds, if that is known.
        offset_ms: Option<i64>,
    },
    /// The write is older than what was collected on a replica; sent anew it gets a new stamp.
    #[error("the write was on its way for too long; send it again")]
    Behind {
        /// Up to where tombstones were let go of.
        horizon: Timestamp,
    },
    /// As many concurrent values as there may be are there already.
    #[error("the key has {count} concurrent values: read them and write with their context")]
    TooManySiblings {
        /// How many there are.
        count: u64,
    },
    /// The op-id was resolved as not applied: no write with it is ever applied.
    #[error("the op-id was resolved as not applied; use a new one")]
    Fenced,
    /// The op-id stands for another write.
    #[error("the op-id was used for another write")]
    OpIdReused,
    /// This node's store knows less than its peers remember of it, or its life is over.
    #[error("this node is fenced: {0}")]
    NodeFenced(String),
    /// No such namespace in the cluster map.
    #[error("unknown namespace")]
    UnknownNamespace,
    /// Another node's clock, or this one's, is off by more than is allowed.
    #[error("clocks differ by {ahead_ms} ms, more than max_clock_skew; set them right (NTP)")]
    ClockSkew {
        /// By how much, in milliseconds.
        ahead_ms: u64,
    },
    /// This node's map or the other's is old; it is being fetched.
    #[error("the cluster map has moved on to epoch {newest}")]
    WrongEpoch {
        /// The newest epoch known.
        newest: Epoch,
    },
    /// The request cannot be meant: an own message that breaks a rule.
    #[error("{0}")]
    Invalid(String),
}

fn describe_offset(offset_ms: Option<i64>) -> String {
    match offset_ms {
        None => "was not compared with any peer's yet".into(),
        Some(ahead @ 0..) => format!("is {ahead} ms ahead of most of its peers'"),
        Some(behind) => format!("is {} ms behind most of its peers'", -behind),
    }
}
