//! Versions of a key's value, and which of two is the newer.
//!
//! Invariant: [`Stamp`] is a total order, and no two mutations share one, because
//! no dot is issued twice. So the merge of any set of versions is their maximum:
//! commutative, associative, idempotent.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::{Actor, Counter, Timestamp, WallTime};

/// The name of one mutation: who issued it and its number there, per partition.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct Dot {
    /// The life of the node that coordinated the write.
    pub actor: Actor,
    /// Its how-manieth mutation in the partition, from 1.
    #[serde(deserialize_with = "issued")]
    pub counter: Counter,
}

fn issued<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Counter, D::Error> {
    let counter = Counter::deserialize(deserializer)?;
    if counter.is_issued() { Ok(counter) } else { Err(serde::de::Error::custom("no counter of a dot")) }
}

/// What decides between versions: the timestamp, then the dot.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct Stamp {
    /// When, by the hybrid clock of the request coordinator.
    pub timestamp: Timestamp,
    /// Which mutation; breaks ties.
    pub dot: Dot,
}

/// What has a place in the order of versions.
pub trait Stamped {
    /// Its place.
    fn stamp(&self) -> Stamp;
}

impl Stamped for Version {
    fn stamp(&self) -> Stamp {
        self.stamp
    }
}

impl Stamped for Summary {
    fn stamp(&self) -> Stamp {
        self.stamp
    }
}

/// What a mutation left behind.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Content {
    /// A value.
    Value(Bytes),
    /// The mark of a deletion.
    Tombstone,
}

/// One version of a key.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Version {
    /// Its place in the order of versions.
    pub stamp: Stamp,
    /// From when on it counts as deleted, if ever.
    pub expires_at: Option<WallTime>,
    /// Value or tombstone.
    pub content: Content,
}

impl Version {
    /// The value, unless deleted or expired at this time.
    pub fn live_value(&self, wall: WallTime) -> Option<&Bytes> {
        match &self.content {
            Content::Value(value) if !is_expired(self.expires_at, wall) => Some(value),
            _ => None,
        }
    }

    /// How a record is shown that was truncated: as deleted by the truncation. The mark is an
    /// end before all time, which no deletion has: whoever lacks this lacks the truncation
    /// itself, and must be given that, not a tombstone of one key under the dot of all.
    pub fn of_truncation(stamp: Stamp) -> Version {
        Version { stamp, expires_at: Some(WallTime(0)), content: Content::Tombstone }
    }

    /// Whether it stands for a truncation.
    pub fn is_truncation(&self) -> bool {
        self.content == Content::Tombstone && self.expires_at == Some(WallTime(0))
    }

    /// Whether it is a value, expired or not.
    pub fn is_value(&self) -> bool {
        matches!(self.content, Content::Value(_))
    }

    /// All but the value itself.
    pub fn summary(&self) -> Summary {
        let value_bytes = match &self.content {
            Content::Value(value) => Some(u32::try_from(value.len()).expect("values are far below 4 GiB")),
            Content::Tombstone => None,
        };
        Summary { stamp: self.stamp, expires_at: self.expires_at, value_bytes }
    }
}

/// A version without its value: what a digest read returns.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Summary {
    /// Its place in the order of versions.
    pub stamp: Stamp,
    /// From when on it counts as deleted, if ever.
    pub expires_at: Option<WallTime>,
    /// The length of the value; none for a tombstone.
    pub value_bytes: Option<u32>,
}

impl Summary {
    /// Whether there is a value at this time.
    pub fn is_live(&self, wall: WallTime) -> bool {
        self.value_bytes.is_some() && !is_expired(self.expires_at, wall)
    }
}

fn is_expired(expires_at: Option<WallTime>, wall: WallTime) -> bool {
    expires_at.is_some_and(|at| at <= wall)
}
