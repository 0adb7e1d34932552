//! What every replica knows of a key, as JSON.

use serde::{Deserialize, Serialize};

use super::{Bytes, NodeName, Version};
use crate::types::{self, KeyHistory, LocalHistory, limits};

/// What all replicas know of a key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct History {
    /// The namespace's name.
    pub namespace: String,
    /// The key.
    pub key: Bytes,
    /// Its place on the ring, a 64-bit number in decimal.
    pub token: String,
    /// Its partition.
    pub partition: u16,
    /// The epoch of the map that says so.
    pub epoch: u64,
    /// Its replicas, primary first.
    pub replicas: Vec<ReplicaHistory>,
}

/// What one replica knows of a key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReplicaHistory {
    /// The replica.
    pub node: NodeName,
    /// Whether it answered; if not, nothing is known of what it holds.
    pub answered: bool,
    /// The versions that it holds, newest first; tombstones and expired ones included.
    pub versions: Vec<ReplicaVersion>,
    /// The mutations of the key that its log still has, newest first.
    pub log: Vec<LogEntry>,
    /// Whether its log has more of them.
    pub more: bool,
    /// Its last group commit.
    pub commit: Option<u64>,
    /// What it has seen of the whole partition.
    pub coverage: Option<Coverage>,
}

/// A version that a replica holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReplicaVersion {
    /// Which.
    pub version: Version,
    /// The length of its value; none for the mark of a deletion.
    pub value_bytes: Option<u32>,
    /// When it ends, in milliseconds since 1970, if ever.
    pub expires_at_ms: Option<u64>,
}

/// A mutation in a replica's log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogEntry {
    /// In which group commit.
    pub commit: u64,
    /// Which version it made.
    pub version: Version,
}

/// What a replica has seen of a partition.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Coverage {
    /// Up to which time marks of deletions were let go of, in milliseconds since 1970.
    pub horizon_ms: u64,
    /// By the lives of nodes that wrote to it.
    pub actors: Vec<Actor>,
    /// Whether there are more of them than are shown.
    pub more: bool,
}

/// What a replica has seen of one life of a node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Actor {
    /// The node.
    pub node: NodeName,
    /// Which of its lives.
    pub incarnation: u64,
    /// All its mutations up to this one were seen.
    pub contiguous: u64,
    /// The last one that was seen.
    pub highest: u64,
    /// How many between those two are missing.
    pub missing: u64,
}

impl History {
    /// What was answered of a key.
    pub fn new(namespace: &str, key: &types::Key, history: &KeyHistory) -> History {
        let replicas = history.replicas.iter();
        History {
            namespace: namespace.to_owned(),
            key: Bytes::new(key.bytes()),
            token: history.token.0.to_string(),
            partition: history.partition.0,
            epoch: history.epoch.0,
            replicas: replicas.map(|replica| ReplicaHistory::new(replica.node, replica.known.as_ref())).collect(),
        }
    }
}

impl ReplicaHistory {
    fn new(node: types::NodeId, known: Option<&LocalHistory>) -> ReplicaHistory {
        let mut held: Vec<_> = known.and_then(|known| known.digest.as_ref()).map_or(&[][..], |d| d.versions()).to_vec();
        held.sort_by_key(|summary| std::cmp::Reverse(summary.stamp));
        let version = |summary: &types::Summary| ReplicaVersion {
            version: Version::from(&summary.stamp),
            value_bytes: summary.value_bytes,
            expires_at_ms: summary.expires_at.map(|at| at.0),
        };
        let entry = |at: &types::LogPosition| LogEntry { commit: at.commit.0, version: Version::from(&at.stamp) };
        ReplicaHistory {
            node: NodeName(node),
            answered: known.is_some(),
            versions: held.iter().map(version).collect(),
            log: known.map_or(&[][..], |known| &known.log).iter().map(entry).collect(),
            more: known.is_some_and(|known| known.more),
            commit: known.map(|known| known.commit.0),
            coverage: known.map(|known| Coverage::from(&known.coverage)),
        }
    }
}

impl From<&types::Coverage> for Coverage {
    fn from(coverage: &types::Coverage) -> Coverage {
        let actors = coverage.vector.actors().take(limits::HISTORY_POSITIONS).map(|(actor, counters)| {
            let (contiguous, highest) = (counters.contiguous().0, counters.highest().0);
            Actor {
                node: NodeName(actor.node),
                incarnation: actor.incarnation.0,
                contiguous,
                highest,
                missing: highest.saturating_sub(counters.count()),
            }
        });
        Coverage {
            horizon_ms: coverage.horizon.wall().0,
            actors: actors.collect(),
            more: coverage.vector.actors().nth(limits::HISTORY_POSITIONS).is_some(),
        }
    }
}
