//! The cluster map: who is a member, and who owns what. Numbered by epoch.
//!
//! It is the authority on ownership. A node persists it and refuses requests that
//! were planned with another epoch.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use super::bounded::{self, BoundedVec};
use super::{Epoch, Key, MergePolicy, NamespaceId, NodeId, Partition, PartitionCount, Zone, limits};

/// The name of a cluster: 128 random bits from its creation.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ClusterId(pub [u8; 16]);

impl fmt::Display for ClusterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for ClusterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A member of the cluster.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Member {
    /// Its name.
    pub id: NodeId,
    /// Where its peers reach it (QUIC, UDP).
    pub peer_address: SocketAddr,
    /// Its failure domain.
    pub zone: Zone,
    /// Its share relative to others, from 1 to [`limits::MAX_WEIGHT`].
    pub weight: u32,
}

/// A namespace of keys.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Namespace {
    /// Its number.
    pub id: NamespaceId,
    /// Its name.
    pub name: String,
    /// Which of two concurrent values is kept. Never changes.
    pub policy: MergePolicy,
}

impl Namespace {
    /// The namespace that every cluster has.
    pub fn default_namespace() -> Namespace {
        Namespace { id: NamespaceId::DEFAULT, name: "default".into(), policy: MergePolicy::Lww }
    }

    /// Whether a namespace may be called this.
    ///
    /// # Errors
    /// What is wrong with it, in words.
    pub fn check_name(name: &str) -> Result<(), String> {
        let fits = (1..=limits::MAX_NAMESPACE_NAME_BYTES).contains(&name.len());
        let plain =
            name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-_.".contains(&byte));
        let begins = name.bytes().next().is_some_and(|byte| byte.is_ascii_alphanumeric());
        if fits && plain && begins {
            return Ok(());
        }
        let most = limits::MAX_NAMESPACE_NAME_BYTES;
        Err(format!(
            "'{}' cannot name a namespace: use 1 to {most} of a-z 0-9 - _ . and begin with a letter or digit",
            name.chars().take(most).collect::<String>()
        ))
    }
}

/// For each partition its replicas, primary first.
#[derive(Clone, Default, PartialEq, Eq, Debug, Serialize)]
pub struct Assignment(pub Vec<Vec<NodeId>>);

impl<'de> Deserialize<'de> for Assignment {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Assignment, D::Error> {
        type Replicas = BoundedVec<NodeId, { limits::MAX_REPLICATION_FACTOR as usize }>;
        let partitions = BoundedVec::<Replicas, { limits::MAX_PARTITIONS as usize }>::deserialize(deserializer)?;
        Ok(Assignment(partitions.0.into_iter().map(|replicas| replicas.0).collect()))
    }
}

impl Assignment {
    /// The replicas of a partition, primary first; none if there is no such partition.
    pub fn replicas(&self, partition: Partition) -> &[NodeId] {
        self.0.get(usize::from(partition.0)).map_or(&[], Vec::as_slice)
    }
}

/// The whole map of one epoch.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ClusterMap {
    /// Which cluster.
    pub cluster: ClusterId,
    /// Which state of it.
    pub epoch: Epoch,
    /// Q.
    pub partitions: PartitionCount,
    /// How many replicas a partition has, where there are enough nodes.
    pub replication_factor: u8,
    /// The members by id.
    #[serde(deserialize_with = "bounded::map::<_, _, _, { limits::MAX_MEMBERS }>")]
    pub members: BTreeMap<NodeId, Member>,
    /// The number of the next namespace that is made: none is ever used twice.
    pub next_namespace: u16,
    /// The namespaces by id.
    #[serde(deserialize_with = "bounded::map::<_, _, _, { limits::MAX_NAMESPACES }>")]
    pub namespaces: BTreeMap<NamespaceId, Namespace>,
    /// Who owns what.
    pub assignment: Assignment,
}

/// A map that contradicts itself.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the cluster map is not valid: {0}")]
pub struct MapError(pub String);

impl ClusterMap {
    /// The replicas of a key, primary first.
    pub fn replicas_of(&self, key: &Key) -> &[NodeId] {
        self.assignment.replicas(self.partition_of(key))
    }

    /// The partition of a key.
    pub fn partition_of(&self, key: &Key) -> Partition {
        self.partitions.partition_of(key.token())
    }

    /// The namespace of this name.
    pub fn namespace(&self, name: &str) -> Option<NamespaceId> {
        self.namespaces.values().find(|namespace| namespace.name == name).map(|namespace| namespace.id)
    }

    /// How the values of a namespace are merged.
    pub fn policy(&self, namespace: NamespaceId) -> MergePolicy {
        self.namespaces.get(&namespace).map_or(MergePolicy::Lww, |namespace| namespace.policy)
    }

    /// The map after this one, with a further namespace.
    ///
    /// # Errors
    /// [`MapError`] if the name is taken or cannot be a name, or there are too many.
    pub fn with_namespace(&self, name: &str, policy: MergePolicy) -> Result<ClusterMap, MapError> {
        Namespace::check_name(name).map_err(MapError)?;
        if self.namespace(name).is_some() {
            return Err(MapError(format!("there is a namespace '{name}' already")));
        }
        if self.namespaces.len() >= limits::MAX_NAMESPACES || self.next_namespace == u16::MAX {
            return Err(MapError(format!("there are {} namespaces, the most there may be", self.namespaces.len())));
        }
        let id = NamespaceId(self.next_namespace);
        let mut map = self.clone();
        map.epoch = map.epoch.next();
        map.next_namespace += 1;
        map.namespaces.insert(id, Namespace { id, name: name.to_owned(), policy });
        Ok(map)
    }

    /// The map after this one, without a namespace; its keys can no longer be asked for.
    ///
    /// # Errors
    /// [`MapError`] if there is none of this name, or it is the default one.
    pub fn without_namespace(&self, name: &str) -> Result<ClusterMap, MapError> {
        let Some(id) = self.namespace(name) else { return Err(MapError(format!("there is no namespace '{name}'"))) };
        if id == NamespaceId::DEFAULT {
            return Err(MapError("the namespace 'default' cannot be removed".into()));
        }
        let mut map = self.clone();
        map.epoch = map.epoch.next();
        map.namespaces.remove(&id);
        Ok(map)
    }

    /// Whether the map can be lived by: what arrives from a file or a peer passes here first.
    ///
    /// # Errors
    /// [`MapError`] with the first contradiction found.
    pub fn validate(&self) -> Result<(), MapError> {
        let fail = |what: String| Err(MapError(what));
        if self.members.is_empty() || self.members.len() > limits::MAX_MEMBERS {
            return fail(format!("{} members; from 1 to {} are possible", self.members.len(), limits::MAX_MEMBERS));
        }
        if !(1..=limits::MAX_REPLICATION_FACTOR).contains(&self.replication_factor) {
            return fail(format!("replication factor {} is not from 1 to 7", self.replication_factor));
        }
        for (id, member) in &self.members {
            if *id != member.id || !(1..=limits::MAX_WEIGHT).contains(&member.weight) {
                return fail(format!("member {id} is entered as {} with weight {}", member.id, member.weight));
            }
        }
        let names: BTreeSet<_> = self.namespaces.values().map(|namespace| &namespace.name).collect();
        if names.len() != self.namespaces.len() {
            return fail("two namespaces have one name".into());
        }
        for (id, namespace) in &self.namespaces {
            if *id != namespace.id || id.0 >= self.next_namespace {
                return fail(format!("namespace '{}' is entered under a number that is not its own", namespace.name));
            }
            if let Err(reason) = Namespace::check_name(&namespace.name) {
                return fail(reason);
            }
        }
        if self.assignment.0.len() != self.partitions.get() as usize {
            return fail(format!("{} of {} partitions are assigned", self.assignment.0.len(), self.partitions.get()));
        }
        let expected = self.members.len().min(usize::from(self.replication_factor));
        for (index, replicas) in self.assignment.0.iter().enumerate() {
            let distinct: BTreeSet<_> = replicas.iter().collect();
            if distinct.len() != expected || replicas.len() != expected {
                return fail(format!("partition {index} has replicas {replicas:?}, not {expected} distinct ones"));
            }
            if let Some(stranger) = replicas.iter().find(|id| !self.members.contains_key(id)) {
                return fail(format!("partition {index} is assigned to {stranger}, which is no member"));
            }
        }
        Ok(())
    }
}
