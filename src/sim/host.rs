//! One server: its machine, its disk, its clock, and what stands between them.

use std::collections::{BTreeMap, VecDeque};

use crate::protocol::{Input, Node, StorageTicket};
use crate::storage::memory::MemoryStorage;
use crate::types::{Applied, ClusterMap, Incarnation, Key, Moment, Mutation, NodeId, Stamp};

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
    pub(super) backlog: VecDeque<Letter>,
    pub(super) tick_at: Option<Moment>,
    /// The newest version of each key that is on the disk for certain.
    pub(super) durable: BTreeMap<Key, Stamp>,
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
            storage: MemoryStorage::new(map.partitions),
            map,
            waiting: Vec::new(),
            group: Vec::new(),
            committing: false,
            paused: false,
            backlog: VecDeque::new(),
            tick_at: None,
            durable: BTreeMap::new(),
        }
    }

    /// The life that others can connect to now.
    pub(super) fn answering(&self) -> Option<Incarnation> {
        (self.machine.is_some() && !self.paused).then_some(self.incarnation)
    }

    /// Notes that what was applied is on the disk.
    pub(super) fn note_durable(&mut self, mutation: &Mutation, applied: Applied) {
        let Mutation::Record { key, version, .. } = mutation else { return };
        let stamp = match applied {
            Applied::Stored => version.stamp,
            Applied::Superseded { by } => by,
        };
        let held = self.durable.entry(key.clone()).or_insert(stamp);
        *held = stamp.max(*held);
    }
}
