//! What a replica is told to keep, and what it is asked for.

use super::{Key, NamespaceId, Partition, ScanEntry, Stamp, Token, Version};

/// A change to what a replica holds.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Mutation {
    /// A version of a key: kept if it is newer than what is there.
    Record {
        /// The partition of the key.
        partition: Partition,
        /// The key.
        key: Key,
        /// The version.
        version: Version,
    },
    /// Everything of a namespace in a partition up to and including `stamp` counts as
    /// deleted at `stamp`.
    Truncate {
        /// Where.
        partition: Partition,
        /// What.
        namespace: NamespaceId,
        /// Up to which version.
        stamp: Stamp,
    },
    /// Changes nothing; once it is durable, so is all that was applied before it.
    Barrier,
}

impl Mutation {
    /// How much of a bounded queue it takes, in bytes.
    pub fn weight(&self) -> usize {
        match self {
            Mutation::Record { key, version, .. } => {
                let value_bytes = version.summary().value_bytes.unwrap_or(0);
                128 + key.bytes().len() + value_bytes as usize
            }
            Mutation::Truncate { .. } | Mutation::Barrier => 128,
        }
    }
}

/// What applying a mutation came to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Applied {
    /// It is what the store now holds (or already held: applying twice is harmless).
    Stored,
    /// The store holds something newer.
    Superseded {
        /// The newer version.
        by: Stamp,
    },
}

/// A piece of a partition, in token order.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ScanRange {
    /// Which partition.
    pub partition: Partition,
    /// Which namespace.
    pub namespace: NamespaceId,
    /// From which token on.
    pub from: Token,
    /// Stop after this many entries, but never between keys that share a token.
    pub limit: u32,
}

/// What a scan found: tombstones included, because they outrank other replicas' values.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ScanResult {
    /// The entries in token order.
    pub entries: Vec<ScanEntry>,
    /// All keys below this token were returned; none if the partition is at its end.
    pub next: Option<Token>,
}
