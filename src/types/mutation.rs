//! What a replica is told to keep, and what it is asked for.

use serde::{Deserialize, Serialize};

use super::bounded::{BoundedVec, bounded_list};
use super::{
    Claim, CommitNumber, Digest, Dot, Incarnation, Key, NamespaceId, NodeId, OpId, Partition, Record, ScanEntry, Stamp,
    Timestamp, Token, VersionVector, WallTime, limits,
};

/// A change to what a replica holds.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Mutation {
    /// What someone knows of a key: a new write, or a repair. It is merged with what is there.
    Record {
        /// The partition of the key.
        partition: Partition,
        /// The key.
        key: Key,
        /// What is known.
        record: Record,
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
    /// What another replica answered to a pull: records with the dots that they account for.
    Absorb {
        /// Where.
        partition: Partition,
        /// What was answered.
        pulled: Pulled,
        /// The horizon under which it was asked for; with another, nothing is done.
        horizon: Timestamp,
    },
    /// Every replica durably covers these dots: lets go of their log entries, and of the
    /// tombstones and expired values among them.
    Collect {
        /// Where.
        partition: Partition,
        /// What all replicas cover.
        stable: VersionVector,
        /// What expired before this time, by every replica's clock, has expired everywhere.
        expired_before: WallTime,
        /// On whose word this rests; kept, so that nobody goes behind it unnoticed.
        witnesses: Vec<(NodeId, PeerMemory)>,
    },
    /// A peer was met: kept, so that it is known again.
    Remember {
        /// Who.
        node: NodeId,
        /// What to remember.
        memory: PeerMemory,
    },
    /// Notes what an op-id stands for, unless something is noted already.
    Claim {
        /// Where.
        partition: Partition,
        /// Which.
        op: OpId,
        /// What to note.
        claim: Claim,
        /// When this may be forgotten.
        until: WallTime,
    },
    /// Changes nothing; once it is durable, so is all that was applied before it.
    Barrier,
}

impl Mutation {
    /// How much of a bounded queue it takes, in bytes.
    pub fn weight(&self) -> usize {
        let record_bytes = |key: &Key, record: &Record| {
            128 * record.versions().len().max(1) + key.bytes().len() + record.value_bytes()
        };
        match self {
            Mutation::Record { key, record, .. } => record_bytes(key, record),
            Mutation::Absorb { pulled, .. } => {
                let item = |item: &PulledItem| match item {
                    PulledItem::Record { key, record: Some(record), .. } => record_bytes(key, record),
                    PulledItem::Record { key, .. } => 128 + key.bytes().len(),
                    PulledItem::Truncation { .. } => 128,
                };
                128 + pulled.items.iter().map(item).sum::<usize>() + 32 * pulled.lost.ranges()
            }
            Mutation::Claim { claim: Claim::Write { key, version }, .. } => {
                128 + key.bytes().len() + version.summary().value_bytes.unwrap_or(0) as usize
            }
            Mutation::Collect { stable, .. } => 128 + 32 * stable.ranges(),
            Mutation::Truncate { .. } | Mutation::Remember { .. } | Mutation::Claim { .. } | Mutation::Barrier => 128,
        }
    }

    /// About how many bytes of the group's log entry it takes.
    pub fn log_bytes(&self) -> usize {
        match self {
            Mutation::Record { key, record, .. } => record.versions().len() * (40 + key.bytes().len().min(2_200)),
            Mutation::Truncate { .. } => 40,
            Mutation::Absorb { pulled, .. } => {
                let item = |item: &PulledItem| match item {
                    PulledItem::Record { key, dots, .. } => 40 + key.bytes().len().min(2_200) + dots.len() * 30,
                    PulledItem::Truncation { .. } => 40,
                };
                pulled.items.iter().map(item).sum()
            }
            Mutation::Collect { .. } | Mutation::Remember { .. } | Mutation::Claim { .. } | Mutation::Barrier => 0,
        }
    }
}

/// What applying a mutation came to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Applied {
    /// It is part of what the store now holds, or was before: applying twice is harmless.
    Stored,
    /// The store holds something newer.
    Superseded {
        /// The newer version.
        by: Stamp,
    },
    /// Nothing was done: what it says is older than what was collected here, and was never
    /// seen here; a tombstone that outranks it may have been let go of.
    Behind {
        /// Up to where tombstones were let go of.
        horizon: Timestamp,
    },
    /// To a claim: what is noted now.
    Noted(Box<Claim>),
}

/// What a node remembers of a peer's store, durably: it must never be shown less.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct PeerMemory {
    /// The highest life it was met in.
    pub incarnation: Incarnation,
    /// Which store it had.
    pub store: StoreId,
    /// The highest group commit of it that was spoken of.
    pub commit: CommitNumber,
}

impl PeerMemory {
    /// What is to be remembered once this was said of a peer of which something is known: of
    /// the same store never less. Another store's lives and groups are counted anew.
    #[must_use]
    pub fn after(self, known: Option<PeerMemory>) -> PeerMemory {
        match known {
            Some(known) if known.store == self.store => PeerMemory {
                incarnation: self.incarnation.max(known.incarnation),
                store: self.store,
                commit: self.commit.max(known.commit),
            },
            _ => self,
        }
    }
}

/// The name of one store, drawn when it was made: an emptied directory has another.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(transparent)]
pub struct StoreId(pub u128);

/// The answer to a pull.
#[derive(Clone, Default, PartialEq, Eq, Debug, Serialize)]
pub struct Pulled {
    /// What the dots that were asked for wrote.
    pub items: Vec<PulledItem>,
    /// Dots that were asked for and are covered, but of which nothing is known any more.
    pub lost: VersionVector,
}

impl<'de> Deserialize<'de> for Pulled {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Pulled, D::Error> {
        type Parts = (BoundedVec<PulledItem, { limits::PULL_DOTS }>, VersionVector);
        let (BoundedVec(items), lost) = Parts::deserialize(deserializer)?;
        if items.iter().map(|item| item.stamps().len()).sum::<usize>() > limits::PULL_DOTS {
            return Err(serde::de::Error::custom("more dots than a pull brings"));
        }
        Ok(Pulled { items, lost })
    }
}

/// One part of the answer to a pull.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum PulledItem {
    /// These dots wrote to a key, which now is so.
    Record {
        /// The dots, each with its timestamp.
        #[serde(deserialize_with = "bounded_list::<_, _, { limits::PULL_DOTS }>")]
        dots: Vec<Stamp>,
        /// The key.
        key: Key,
        /// What is held of it; none if that was collected.
        record: Option<Record>,
    },
    /// This mutation truncated a namespace.
    Truncation {
        /// Which namespace.
        namespace: NamespaceId,
        /// Up to which version; the mutation's own dot.
        stamp: Stamp,
    },
}

impl PulledItem {
    /// The dots that it accounts for.
    pub fn stamps(&self) -> &[Stamp] {
        match self {
            PulledItem::Record { dots, .. } => dots,
            PulledItem::Truncation { stamp, .. } => std::slice::from_ref(stamp),
        }
    }

    /// The same, without timestamps.
    pub fn dots(&self) -> impl Iterator<Item = Dot> + '_ {
        self.stamps().iter().map(|stamp| stamp.dot)
    }
}

/// What a replica durably covers of a partition.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Coverage {
    /// Which partition.
    pub partition: Partition,
    /// The dots.
    pub vector: VersionVector,
    /// Up to where tombstones were let go of here.
    pub horizon: Timestamp,
}

/// Where a mutation of a key stands in a replica's log.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct LogPosition {
    /// In which group commit.
    pub commit: CommitNumber,
    /// Which mutation.
    pub stamp: Stamp,
}

/// What one replica knows of a key.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct LocalHistory {
    /// What it holds.
    pub digest: Option<Digest>,
    /// The mutations of the key that its log still has, newest first, up to a bound.
    #[serde(deserialize_with = "bounded_list::<_, _, { limits::HISTORY_POSITIONS }>")]
    pub log: Vec<LogPosition>,
    /// Whether there are more.
    pub more: bool,
    /// What it covers of the partition.
    pub coverage: Coverage,
    /// Its last group commit.
    pub commit: CommitNumber,
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
