//! One server: its machine, its disk, its clock, and what stands between them.

use std::collections::{BTreeMap, VecDeque};

use crate::protocol::{Input, Node, StorageTicket};
use crate::storage::Storage;
use crate::storage::memory::MemoryStorage;
use crate::types::{
    Applied, CausalContext, ClusterMap, CommitNumber, Digest, Dot, Incarnation, Key, MergePolicy, Moment, Mutation,
    NodeId, PulledItem, Stamp, StoreId,
};

use super::clock::Clock;
use super::schedule::{HostEvent, HostIndex};

/// What a host has still to take in.
#[derive(Debug)]
pub(super) enum Letter {
    /// For the machine.
    Input(Input),
    /// For the host around it.
    Own(HostEvent),
}

/// A server.
pub(super) struct Host {
    pub(super) id: NodeId,
    pub(super) incarnation: Incarnation,
    /// Counts starts and deaths: what was scheduled in another life does not happen.
    pub(super) life: u64,
    /// None while the process is dead.
    pub(super) machine: Option<Node>,
    pub(super) map: ClusterMap,
    pub(super) clock: Clock,
    pub(super) storage: MemoryStorage,
    /// What the committer has been given and not taken yet.
    pub(super) waiting: Vec<(StorageTicket, Mutation)>,
    /// What it is syncing.
    pub(super) group: Vec<(StorageTicket, Mutation, Applied)>,
    pub(super) committing: bool,
    pub(super) paused: bool,
    /// Whether it has learned that its disk went back in time: it does not come back.
    pub(super) fenced: bool,
    pub(super) backlog: VecDeque<Letter>,
    pub(super) tick_at: Option<Moment>,
    /// The newest version of each key that is on the disk for certain.
    pub(super) durable: BTreeMap<Key, Stamp>,
    /// For keys that keep concurrent values, what is.
    pub(super) durable_siblings: BTreeMap<Key, CausalContext>,
}

impl Host {
    pub(super) fn new(index: HostIndex, map: ClusterMap, drift_ppm: i64) -> Host {
        let number = u32::try_from(index + 1).expect("there are few hosts");
        Host {
            id: NodeId::new(number).expect("numbers begin at 1"),
            incarnation: Incarnation(0),
            life: 0,
            machine: None,
            clock: Clock::new(drift_ppm),
            storage: MemoryStorage::new(map.partitions, StoreId(u128::from(number))),
            map,
            waiting: Vec::new(),
            group: Vec::new(),
            committing: false,
            paused: false,
            fenced: false,
            backlog: VecDeque::new(),
            tick_at: None,
            durable: BTreeMap::new(),
            durable_siblings: BTreeMap::new(),
        }
    }

    /// The life that others can connect to now.
    pub(super) fn answering(&self) -> Option<Incarnation> {
        (self.machine.is_some() && !self.paused).then_some(self.incarnation)
    }

    /// Notes what the disk certainly holds of these keys.
    pub(super) fn note_durable<'a>(&mut self, keys: impl Iterator<Item = &'a Key>) {
        for key in keys {
            let held = self.storage.head(self.map.partition_of(key), key).expect("the model of a store does not fail");
            if let (true, Some(Digest::Siblings(siblings))) = (held.durable, &held.what) {
                self.durable_siblings.entry(key.clone()).or_default().join(siblings.context());
            }
            if let (true, Some(stamp)) = (held.durable, held.what.and_then(|digest| digest.newest_stamp())) {
                let known = self.durable.entry(key.clone()).or_insert(stamp);
                *known = stamp.max(*known);
            }
        }
    }

    /// Whether its disk shows that it has had a version.
    pub(super) fn knows(&self, key: &Key, dot: Dot) -> bool {
        let covered = self.storage.coverage(CommitNumber(0)).1;
        let partition = self.map.partition_of(key);
        covered.iter().any(|coverage| coverage.partition == partition && coverage.vector.covers(dot))
    }

    /// Whether its disk holds the key without a version.
    pub(super) fn has_let_go(&self, key: &Key, dot: Dot) -> bool {
        let held = self.storage.head(self.map.partition_of(key), key).expect("the model of a store does not fail");
        let there = held.what.is_some_and(|digest| digest.versions().iter().any(|version| version.stamp.dot == dot));
        held.durable && !there
    }

    /// Whether a version, or something that has replaced it, is on the disk for certain.
    pub(super) fn holds(&self, key: &Key, stamp: Stamp) -> bool {
        if self.storage.truncation(self.map.partition_of(key), key.namespace()) >= Some(stamp) {
            return true;
        }
        match self.map.policy(key.namespace()) {
            MergePolicy::Lww => self.durable.get(key) >= Some(&stamp),
            MergePolicy::Siblings => self.durable_siblings.get(key).is_some_and(|held| held.covers(stamp.dot)),
        }
    }
}

/// The keys that a mutation may change.
pub(super) fn keys_of(mutation: &Mutation) -> Vec<&Key> {
    match mutation {
        Mutation::Record { key, .. } => vec![key],
        Mutation::Absorb { pulled, .. } => {
            let keys = pulled.items.iter().filter_map(|item| match item {
                PulledItem::Record { key, .. } => Some(key),
                PulledItem::Truncation { .. } => None,
            });
            keys.collect()
        }
        _ => Vec::new(),
    }
}
