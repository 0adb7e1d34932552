//! The shapes of what is answered in JSON. The command line prints the same ones.
//!
//! Keys and values are any bytes: they stand as text where they are UTF-8, and else in
//! Base64 in a field of their own. Numbers that may exceed 2⁵³ are strings.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use super::encoding::{base64, base64_decode, etag};
use crate::node::{MembersStatus, NodeStatus};
use crate::server::token;
use crate::types::{
    ClusterMap, Health, InvalidNodeId, Key, MergePolicy, NodeId, ReadReply, ScanEntry, Stamp, WallTime, WriteReply,
};

mod path;
mod history;
mod members;

pub use history::{Actor, Coverage, History, LogEntry, ReplicaHistory, ReplicaVersion};
pub use members::{MemberSeen, Members, Observers};
pub use path::{Explained, Path, Resolved, Step};

/// Bytes as text or Base64; exactly one of the two is there.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bytes {
    /// The bytes, if they are UTF-8.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub text: Option<String>,
    /// The bytes in Base64, if they are not.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub base64: Option<String>,
}

impl Bytes {
    /// These bytes.
    pub fn new(bytes: &[u8]) -> Bytes {
        match std::str::from_utf8(bytes) {
            Ok(text) => Bytes { text: Some(text.to_owned()), base64: None },
            Err(_) => Bytes { text: None, base64: Some(base64(bytes)) },
        }
    }

    /// The bytes again; none if there is neither text nor valid Base64.
    pub fn decode(&self) -> Option<Vec<u8>> {
        match (&self.text, &self.base64) {
            (Some(text), _) => Some(text.clone().into_bytes()),
            (None, Some(encoded)) => base64_decode(encoded),
            (None, None) => None,
        }
    }
}

/// A node, written as everywhere: `n7`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct NodeName(pub NodeId);

impl std::fmt::Display for NodeName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

impl From<NodeName> for String {
    fn from(name: NodeName) -> String {
        name.0.to_string()
    }
}

impl TryFrom<String> for NodeName {
    type Error = InvalidNodeId;

    fn try_from(text: String) -> Result<NodeName, InvalidNodeId> {
        text.parse().map(NodeName)
    }
}

/// Which version of a key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Version {
    /// As the `ETag` has it, without quotes.
    pub etag: String,
    /// The time of the write in milliseconds since 1970, by the hybrid clock of its coordinator.
    pub written_at_ms: u64,
    /// The node that coordinated the write.
    pub node: NodeName,
}

impl From<&Stamp> for Version {
    fn from(stamp: &Stamp) -> Version {
        Version {
            etag: etag(stamp).trim_matches('"').to_owned(),
            written_at_ms: stamp.timestamp.wall().0,
            node: NodeName(stamp.dot.actor.node),
        }
    }
}

/// A value, as `GET ?format=json` answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Value {
    /// The namespace's name.
    pub namespace: String,
    /// The key.
    pub key: Bytes,
    /// The value.
    pub value: Bytes,
    /// Its version.
    pub version: Version,
    /// When it ends, in milliseconds since 1970, if ever.
    pub expires_at_ms: Option<u64>,
    /// What to give as `Dogsled-Context` with a write that is to replace all that is here;
    /// only where siblings are kept.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub context: Option<String>,
    /// The values that were written at the same time, newest first.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub siblings: Vec<Sibling>,
}

/// A value beside the newest one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sibling {
    /// The value.
    pub value: Bytes,
    /// Its version.
    pub version: Version,
    /// When it ends, in milliseconds since 1970, if ever.
    pub expires_at_ms: Option<u64>,
}

impl Value {
    /// What was read of a key.
    pub fn new(namespace: &str, key: &Key, reply: &ReadReply) -> Value {
        Value {
            namespace: namespace.to_owned(),
            key: Bytes::new(key.bytes()),
            value: Bytes::new(&reply.value),
            version: Version::from(&reply.stamp),
            expires_at_ms: reply.expires_at.map(|at| at.0),
            context: (!reply.context.is_empty()).then(|| token::of_context(&reply.context)),
            siblings: reply.siblings.iter().map(Sibling::from).collect(),
        }
    }
}

impl From<&crate::types::Sibling> for Sibling {
    fn from(sibling: &crate::types::Sibling) -> Sibling {
        Sibling {
            value: Bytes::new(&sibling.value),
            version: Version::from(&sibling.stamp),
            expires_at_ms: sibling.expires_at.map(|at| at.0),
        }
    }
}

/// A write that was acknowledged, as `PUT` and `DELETE` with `?format=json` answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Written {
    /// The namespace's name.
    pub namespace: String,
    /// The key.
    pub key: Bytes,
    /// The version that was made.
    pub version: Version,
    /// How many replicas had it on disk when the answer was sent.
    pub acknowledged: u8,
}

impl Written {
    /// What was written to a key.
    pub fn new(namespace: &str, key: &Key, reply: &WriteReply) -> Written {
        Written {
            namespace: namespace.to_owned(),
            key: Bytes::new(key.bytes()),
            version: Version::from(&reply.stamp),
            acknowledged: reply.acknowledged,
        }
    }
}

/// Some keys of a namespace, in ring order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Page {
    /// The keys.
    pub keys: Vec<Entry>,
    /// What to give as `?cursor=` for the next page; none at the end.
    pub cursor: Option<String>,
}

/// One key of a page.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// The key.
    pub key: Bytes,
    /// The length of its value; of the newest, if there are several.
    pub value_bytes: u32,
    /// Its version.
    pub version: Version,
    /// When it ends, in milliseconds since 1970, if ever.
    pub expires_at_ms: Option<u64>,
    /// How many concurrent values there are.
    pub values: u32,
}

impl Entry {
    /// What was found of a key; none if nothing of it lives.
    pub fn new(entry: &ScanEntry, wall: WallTime) -> Option<Entry> {
        let summary = entry.digest.shown(wall).filter(|summary| summary.is_live(wall))?;
        let live = entry.digest.versions().iter().filter(|summary| summary.is_live(wall)).count();
        Some(Entry {
            key: Bytes::new(&entry.key),
            value_bytes: summary.value_bytes.unwrap_or(0),
            version: Version::from(&summary.stamp),
            expires_at_ms: summary.expires_at.map(|at| at.0),
            values: u32::try_from(live).unwrap_or(u32::MAX),
        })
    }
}

/// The cluster as the answering node sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cluster {
    /// The cluster's id, 32 hexadecimal digits.
    pub cluster: String,
    /// The epoch of the map.
    pub epoch: u64,
    /// How many partitions there are.
    pub partitions: u32,
    /// How many replicas each has.
    pub replication_factor: u8,
    /// The namespaces.
    pub namespaces: Vec<Namespace>,
    /// The answering node.
    pub node: Node,
    /// All members.
    pub members: Vec<Member>,
}

/// A namespace.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Namespace {
    /// Its number.
    pub id: u16,
    /// Its name.
    pub name: String,
    /// Which of two concurrent values is kept.
    pub policy: MergePolicy,
}

/// The namespaces of the cluster, as `GET /v1/namespaces` answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Namespaces {
    /// The epoch of the map that the answering node lives by.
    pub epoch: u64,
    /// The epoch of the map that it will begin with when it is restarted.
    pub epoch_after_restart: u64,
    /// The namespaces.
    pub namespaces: Vec<NamespaceState>,
}

/// A namespace, and whether it is in use.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NamespaceState {
    /// The namespace.
    #[serde(flatten)]
    pub namespace: Namespace,
    /// Whether the answering node serves it now.
    pub in_use: bool,
    /// Whether it will serve it when it is restarted.
    pub after_restart: bool,
}

/// A change of the namespaces that was written down, as `PUT` and `DELETE` answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NamespaceChange {
    /// The namespace that was made or removed.
    pub namespace: Namespace,
    /// The epoch of the changed map.
    pub epoch: u64,
    /// When the change takes effect: `now` if there was nothing to change, else `restart`.
    pub takes_effect: String,
}

impl From<&crate::types::Namespace> for Namespace {
    fn from(space: &crate::types::Namespace) -> Namespace {
        Namespace { id: space.id.0, name: space.name.clone(), policy: space.policy }
    }
}

impl Namespaces {
    /// What is so now, and what will be after a restart.
    pub fn new(now: &ClusterMap, then: &ClusterMap) -> Namespaces {
        let all: std::collections::BTreeMap<_, _> = then.namespaces.iter().chain(&now.namespaces).collect();
        let namespaces = all.into_iter().map(|(id, space)| NamespaceState {
            namespace: Namespace::from(space),
            in_use: now.namespaces.contains_key(id),
            after_restart: then.namespaces.contains_key(id),
        });
        Namespaces { epoch: now.epoch.0, epoch_after_restart: then.epoch.0, namespaces: namespaces.collect() }
    }
}

/// The answering node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Node {
    /// Its name.
    pub id: NodeName,
    /// Which of its lives this is.
    pub incarnation: u64,
    /// The version of the program.
    pub version: String,
    /// Whether it reaches a quorum of every partition.
    pub ready: bool,
    /// Partitions of which it reaches no quorum.
    pub partitions_without_quorum: u32,
    /// About how many live keys it holds.
    pub live_keys: u64,
    /// Bytes on its disk.
    pub disk_bytes: u64,
    /// Seconds since its life began.
    pub uptime_s: u64,
}

/// A member as the answering node sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    /// Its name.
    pub id: NodeName,
    /// Where its peers reach it.
    pub peer_address: SocketAddr,
    /// Its failure domain.
    pub zone: String,
    /// Its share relative to others.
    pub weight: u32,
    /// Whether it is the answering node.
    pub this_node: bool,
    /// Whether the answering node has a connection to it (or is it).
    pub connected: bool,
    /// Whether it has one, or needs none and knows of nothing against one.
    pub reachable: bool,
    /// What gossip holds of it.
    pub health: Health,
    /// Which of its lives it is in, if it was met.
    pub incarnation: Option<u64>,
}

impl Cluster {
    /// The cluster by this map and status.
    pub fn new(map: &ClusterMap, status: &NodeStatus, members: &MembersStatus) -> Cluster {
        let standings = members::standings(map, status, members);
        let members = map.members.values().map(|member| {
            let peer = status.peers.iter().find(|peer| peer.id == member.id);
            let this_node = member.id == status.id;
            let standing = standings[&member.id];
            let incarnation = if this_node { Some(status.incarnation) } else { peer.and_then(|peer| peer.incarnation) };
            Member {
                id: NodeName(member.id),
                peer_address: member.peer_address,
                zone: member.zone.0.clone(),
                weight: member.weight,
                this_node,
                connected: standing.connected,
                reachable: standing.reachable,
                health: standing.health,
                incarnation: incarnation.map(|incarnation| incarnation.0),
            }
        });
        let namespaces = map.namespaces.values();
        Cluster {
            cluster: map.cluster.to_string(),
            epoch: map.epoch.0,
            partitions: map.partitions.get(),
            replication_factor: map.replication_factor,
            namespaces: namespaces.map(Namespace::from).collect(),
            node: Node {
                id: NodeName(status.id),
                incarnation: status.incarnation.0,
                version: status.version.to_owned(),
                ready: status.ready,
                partitions_without_quorum: status.partitions_without_quorum,
                live_keys: status.live_keys,
                disk_bytes: status.disk_bytes,
                uptime_s: status.uptime_s,
            },
            members: members.collect(),
        }
    }
}

/// Who owns what.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ring {
    /// The epoch of the map.
    pub epoch: u64,
    /// How many partitions there are.
    pub partitions: u32,
    /// How many replicas each has.
    pub replication_factor: u8,
    /// What each member owns.
    pub owned: Vec<Owned>,
    /// For each partition its replicas, primary first.
    pub assignment: Vec<Vec<NodeName>>,
}

/// What a member owns.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Owned {
    /// The member.
    pub node: NodeName,
    /// Partitions of which it is the primary.
    pub primary: u32,
    /// Partitions of which it is a replica, the former included.
    pub replica: u32,
    /// The share of all replicas that it is, from 0 to 100.
    pub percent: u8,
}

impl From<&ClusterMap> for Ring {
    fn from(map: &ClusterMap) -> Ring {
        let assignment = &map.assignment.0;
        let all: usize = assignment.iter().map(Vec::len).sum();
        let owned = map.members.keys().map(|node| {
            let replica = assignment.iter().filter(|replicas| replicas.contains(node)).count();
            let primary = assignment.iter().filter(|replicas| replicas.first() == Some(node)).count();
            Owned {
                node: NodeName(*node),
                primary: primary as u32,
                replica: replica as u32,
                percent: (replica * 100 / all.max(1)) as u8,
            }
        });
        Ring {
            epoch: map.epoch.0,
            partitions: map.partitions.get(),
            replication_factor: map.replication_factor,
            owned: owned.collect(),
            assignment: assignment.iter().map(|replicas| replicas.iter().copied().map(NodeName).collect()).collect(),
        }
    }
}

/// Where a key lives.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Where {
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
    pub replicas: Vec<Replica>,
}

/// A replica of a key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Replica {
    /// The member.
    pub node: NodeName,
    /// Where its peers reach it.
    pub peer_address: Option<SocketAddr>,
    /// Whether the answering node has a connection to it (or is it).
    pub connected: bool,
    /// Whether it has one, or needs none and knows of nothing against one.
    pub reachable: bool,
}

impl Where {
    /// Where a key lives by this map.
    pub fn new(namespace: &str, key: &Key, map: &ClusterMap, status: &NodeStatus, members: &MembersStatus) -> Where {
        let standings = members::standings(map, status, members);
        let replicas = map.replicas_of(key).iter().map(|node| Replica {
            node: NodeName(*node),
            peer_address: map.members.get(node).map(|member| member.peer_address),
            connected: standings.get(node).is_some_and(|standing| standing.connected),
            reachable: standings.get(node).is_some_and(|standing| standing.reachable),
        });
        Where {
            namespace: namespace.to_owned(),
            key: Bytes::new(key.bytes()),
            token: key.token().0.to_string(),
            partition: map.partition_of(key).0,
            epoch: map.epoch.0,
            replicas: replicas.collect(),
        }
    }
}

/// An error, as `application/problem+json` (RFC 9457) has it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    /// What kind of problem, for programs: `urn:dogsled:problem:` and a word.
    #[serde(rename = "type")]
    pub kind: String,
    /// What kind of problem, for people.
    pub title: String,
    /// The status code.
    pub status: u16,
    /// What happened this time.
    pub detail: String,
    /// Replicas that are known to have a write in doubt.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub acknowledged: Option<u8>,
    /// Replicas that answered a read.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub answered: Option<u8>,
    /// Replicas that are reachable.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub alive: Option<u8>,
    /// Replicas that the level asks for.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub needed: Option<u8>,
}
