//! What the model keeps: named cells, each written whole, in an order that can be cut.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;

use crate::types::{
    Claim, CommitNumber, Key, NamespaceId, NodeId, OpId, Partition, PeerMemory, Record, Stamp, StoreId, Timestamp,
    Token, VersionVector, WallTime,
};

/// Where a record stands: the order of scans.
pub(super) type Place = (Partition, Token, NamespaceId, Bytes);

pub(super) fn place(partition: Partition, key: &Key) -> Place {
    (partition, key.token(), key.namespace(), key.bytes().clone())
}

pub(super) fn key_of(place: &Place) -> Key {
    Key::new(place.2, place.3.clone()).expect("it was a key before")
}

/// One mutation, as a log entry has it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct LogItem {
    pub(super) partition: Partition,
    pub(super) stamp: Stamp,
    pub(super) target: Target,
    pub(super) tombstone: bool,
}

/// What a mutation changed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Target {
    Key(Place),
    Namespace(NamespaceId),
}

/// The end of a group.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub(super) struct Commit {
    pub(super) number: CommitNumber,
    pub(super) clock: Timestamp,
}

/// What was seen in a partition when its oldest log entries were let go of.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub(super) struct Checkpoint {
    pub(super) vector: VersionVector,
    pub(super) horizon: Timestamp,
}

/// Everything that survives.
#[derive(Clone, Default, Debug)]
pub(super) struct Disk {
    pub(super) store: StoreId,
    pub(super) records: BTreeMap<Place, Record>,
    pub(super) truncations: BTreeMap<(Partition, NamespaceId), Stamp>,
    pub(super) log: BTreeMap<CommitNumber, Vec<LogItem>>,
    pub(super) checkpoints: BTreeMap<Partition, Checkpoint>,
    pub(super) expiries: BTreeSet<(Partition, WallTime, Place)>,
    pub(super) claims: BTreeMap<(Partition, OpId), (Claim, WallTime)>,
    pub(super) peers: BTreeMap<NodeId, PeerMemory>,
    pub(super) commit: Commit,
}

/// One write, or what was there before one.
#[derive(Debug)]
pub(super) enum Cell {
    Record(Place, Option<Record>),
    Truncation((Partition, NamespaceId), Option<Stamp>),
    Log(CommitNumber, Option<Vec<LogItem>>),
    Checkpoint(Partition, Option<Checkpoint>),
    Expiry((Partition, WallTime, Place), bool),
    Claim((Partition, OpId), Option<(Claim, WallTime)>),
    Peer(NodeId, Option<PeerMemory>),
    Commit(Commit),
}

fn put<K: Ord + Clone, V>(map: &mut BTreeMap<K, V>, key: &K, value: Option<V>) -> Option<V> {
    match value {
        Some(value) => map.insert(key.clone(), value),
        None => map.remove(key),
    }
}

impl Disk {
    /// Writes a cell; what was there before, to be written back.
    pub(super) fn put(&mut self, cell: Cell) -> Cell {
        match cell {
            Cell::Record(key, value) => {
                let before = put(&mut self.records, &key, value);
                Cell::Record(key, before)
            }
            Cell::Truncation(key, value) => Cell::Truncation(key, put(&mut self.truncations, &key, value)),
            Cell::Log(key, value) => Cell::Log(key, put(&mut self.log, &key, value)),
            Cell::Checkpoint(key, value) => Cell::Checkpoint(key, put(&mut self.checkpoints, &key, value)),
            Cell::Expiry(key, there) => {
                let before = if there { !self.expiries.insert(key.clone()) } else { self.expiries.remove(&key) };
                Cell::Expiry(key, before)
            }
            Cell::Claim(key, value) => Cell::Claim(key, put(&mut self.claims, &key, value)),
            Cell::Peer(key, value) => Cell::Peer(key, put(&mut self.peers, &key, value)),
            Cell::Commit(commit) => Cell::Commit(std::mem::replace(&mut self.commit, commit)),
        }
    }
}
