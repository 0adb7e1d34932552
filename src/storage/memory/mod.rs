//! The model of a store: what the simulator runs on, and what the store on disk is
//! compared with.
//!
//! Invariant: what was synced survives [`MemoryStorage::crash`]; of what was only
//! applied, a prefix does, as long as the caller says. That is all that the store on
//! disk promises, so nothing may be built on more.
//!
//! The order within a group is that of the store on disk: its log entry, the records, and
//! the commit last. A group whose commit is missing is incomplete; when the store is
//! opened, the log entry is cut down to the mutations that are really there.

mod disk;
mod apply;

use std::collections::BTreeSet;
use std::ops::Bound;
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;

use crate::types::{
    Applied, CommitNumber, Coverage, Digest, Key, LocalHistory, LogPosition, Mutation, NamespaceId, Partition,
    PartitionCount, Pulled, PulledItem, Record, ScanEntry, ScanRange, ScanResult, Stamp, StoreId, Timestamp, Version,
    VersionVector, limits,
};

use super::engine::Held;
use super::log::{Log, Place as LogPlace};
use super::pull_room::PullRoom;
use super::verdict::{outlived, reflects};
use super::{Recovered, SCAN_EXAMINED_KEYS, Storage, StorageError};

use disk::{Cell, Commit, Disk, Place, Target, key_of, place};

/// A store in memory that can lose what was not synced.
#[derive(Debug)]
pub struct MemoryStorage {
    partitions: PartitionCount,
    state: Mutex<State>,
}

#[derive(Default, Debug)]
struct State {
    disk: Disk,
    log: Log,
    /// What it knew when it was opened, or came back from a crash.
    recovered: Recovered,
    /// How to take back what was applied since the last sync, in its order.
    unsynced: Vec<Cell>,
    /// Records that were written since the last sync.
    dirty: BTreeSet<Place>,
    dirty_truncations: BTreeSet<(Partition, NamespaceId)>,
    discarded: u64,
}

/// What a disk held at some time.
#[derive(Clone, Debug)]
pub struct DiskImage(Disk);

impl MemoryStorage {
    /// An empty store.
    pub fn new(partitions: PartitionCount, store: StoreId) -> MemoryStorage {
        let disk = Disk { store, ..Disk::default() };
        let mut state = State { disk, ..State::default() };
        state.open();
        MemoryStorage { partitions, state: Mutex::new(state) }
    }

    /// How many steps would be at stake in a crash: each write that was made since the
    /// last sync is one, and so is the commit entry at the end of each group.
    pub fn unsynced(&self) -> usize {
        self.lock().unsynced.len()
    }

    /// Cuts the power: of the unsynced steps the first `keep` survive, the others never
    /// happened. Afterwards the store is as one that was just opened.
    pub fn crash(&self, keep: usize) {
        let mut state = self.lock();
        while state.unsynced.len() > keep {
            let before = state.unsynced.pop().expect("there are more than are kept");
            state.disk.put(before);
        }
        state.open();
    }

    /// What is durable now, to be put back later: a disk that goes back in time.
    pub fn image(&self) -> DiskImage {
        let state = self.lock();
        assert!(state.unsynced.is_empty(), "an image is taken of a disk at rest");
        DiskImage(state.disk.clone())
    }

    /// Puts the disk back to what it was. Afterwards the store is as one that was just opened.
    pub fn restore(&self, image: &DiskImage) {
        let mut state = self.lock();
        state.disk = image.0.clone();
        state.open();
    }

    /// Every record, whatever was truncated: for comparing replicas.
    pub fn records(&self) -> Vec<(Partition, Key, Record)> {
        let state = self.lock();
        let all = state.disk.records.iter();
        all.map(|(place, record)| (place.0, key_of(place), record.clone())).collect()
    }

    /// Where a namespace was truncated, for comparing replicas.
    pub fn truncation(&self, partition: Partition, namespace: NamespaceId) -> Option<Stamp> {
        self.lock().disk.truncations.get(&(partition, namespace)).copied()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Brings what is only in memory in line with the disk.
    fn open(&mut self) {
        self.unsynced.clear();
        self.discarded = 0;
        self.dirty.clear();
        self.dirty_truncations.clear();
        self.cut_incomplete_group();
        self.log = Log::default();
        for (partition, checkpoint) in &self.disk.checkpoints {
            self.log.restore(*partition, &checkpoint.vector, checkpoint.horizon);
        }
        for (commit, items) in &self.disk.log {
            for item in items {
                let place = LogPlace { commit: *commit, tombstone: item.tombstone };
                self.log.note(item.partition, item.stamp.dot, place);
            }
        }
        let Commit { number, clock } = self.disk.commit;
        self.log.opened(number);
        self.recovered = Recovered { store: self.disk.store, commit: number, clock, peers: self.disk.peers.clone() };
    }

    /// A group that was cut in the middle keeps in its log entry what is really there.
    fn cut_incomplete_group(&mut self) {
        let Some((commit, items)) = self.disk.log.last_key_value() else { return };
        if *commit <= self.disk.commit.number {
            return;
        }
        let there = |item: &&disk::LogItem| match &item.target {
            Target::Key(place) => self.disk.records.get(place).is_some_and(|record| reflects(record, item.stamp)),
            Target::Namespace(namespace) => {
                self.disk.truncations.get(&(item.partition, *namespace)).is_some_and(|stamp| *stamp >= item.stamp)
            }
        };
        let (commit, kept) = (*commit, items.iter().filter(there).cloned().collect::<Vec<_>>());
        let kept_newest = kept.iter().map(|item| item.stamp.timestamp).max();
        self.disk.log.remove(&commit);
        if !kept.is_empty() {
            self.disk.log.insert(commit, kept);
        }
        let newest = kept_newest.unwrap_or_default();
        self.disk.commit = Commit { number: commit, clock: self.disk.commit.clock.max(newest) };
    }

    /// What clients may see of a record: what a truncation covers is gone.
    fn visible(&self, partition: Partition, namespace: NamespaceId, record: &Record) -> Record {
        let truncation = self.disk.truncations.get(&(partition, namespace)).copied();
        outlived(record.clone(), truncation, Version::of_truncation)
    }

    fn held(&self, partition: Partition, key: &Key) -> Held<Record> {
        let place = place(partition, key);
        let record = self.disk.records.get(&place);
        Held {
            what: record.map(|record| self.visible(partition, key.namespace(), record)),
            durable: !self.dirty.contains(&place) && !self.dirty_truncations.contains(&(partition, key.namespace())),
        }
    }
}

impl Storage for MemoryStorage {
    fn apply(&self, group: &[Mutation], clock: Timestamp) -> Result<Vec<Applied>, StorageError> {
        Ok(self.lock().apply(group, clock))
    }

    fn sync(&self) -> Result<CommitNumber, StorageError> {
        let mut state = self.lock();
        state.unsynced.clear();
        state.dirty.clear();
        state.dirty_truncations.clear();
        let commit = state.disk.commit.number;
        state.log.synced(commit);
        Ok(commit)
    }

    fn read(&self, partition: Partition, key: &Key) -> Result<Held<Record>, StorageError> {
        Ok(self.lock().held(partition, key))
    }

    fn head(&self, partition: Partition, key: &Key) -> Result<Held<Digest>, StorageError> {
        let held = self.lock().held(partition, key);
        Ok(Held { what: held.what.map(|record| record.digest()), durable: held.durable })
    }

    fn scan(&self, range: ScanRange) -> Result<ScanResult, StorageError> {
        let state = self.lock();
        let limit = range.limit.clamp(1, limits::SCAN_PAGE_ENTRIES) as usize;
        let from = range.from.max(self.partitions.first_token(range.partition));
        let begin = (range.partition, from, NamespaceId(0), Bytes::new());
        let mut entries: Vec<ScanEntry> = Vec::new();
        let mut bytes = 0;
        let mut token = None;
        let from_here = state.disk.records.range((Bound::Included(begin), Bound::Unbounded));
        for (examined, ((partition, at, namespace, key), record)) in from_here.enumerate() {
            if *partition != range.partition {
                break;
            }
            let page_is_full =
                entries.len() >= limit || bytes >= limits::SCAN_PAGE_BYTES || examined >= SCAN_EXAMINED_KEYS;
            if token.is_some_and(|token| token != *at) && page_is_full {
                return Ok(ScanResult { entries, next: Some(*at) });
            }
            token = Some(*at);
            if *namespace == range.namespace {
                bytes += key.len();
                let digest = state.visible(*partition, *namespace, record).digest();
                entries.push(ScanEntry { key: key.clone(), digest });
            }
        }
        Ok(ScanResult { entries, next: None })
    }

    fn covers(&self, partition: Partition, dots: &VersionVector) -> bool {
        self.lock().log.applied(partition).covers_all(dots)
    }

    fn coverage(&self, since: CommitNumber) -> (CommitNumber, Vec<Coverage>) {
        let state = self.lock();
        (state.log.commit(), state.log.coverage(since))
    }

    fn pull(&self, partition: Partition, wanted: &VersionVector) -> Result<Pulled, StorageError> {
        let state = self.lock();
        let (found, lost) = state.log.find(partition, wanted, limits::PULL_DOTS);
        let mut pulled = Pulled { items: Vec::new(), lost };
        let mut room = PullRoom::new();
        let mut by_key: std::collections::BTreeMap<&Place, usize> = std::collections::BTreeMap::new();
        for (dot, at) in found {
            let items = state.disk.log.get(&at.commit).expect("the index has only entries that are there");
            let item = items.iter().find(|item| item.partition == partition && item.stamp.dot == dot);
            let item = item.expect("the index is right");
            match &item.target {
                Target::Namespace(namespace) => {
                    if room.takes_truncation() {
                        pulled.items.push(PulledItem::Truncation { namespace: *namespace, stamp: item.stamp });
                    }
                }
                Target::Key(place) => {
                    if let Some(at) = by_key.get(place) {
                        if let PulledItem::Record { dots, .. } = &mut pulled.items[*at]
                            && room.takes_dot()
                        {
                            dots.push(item.stamp);
                        }
                        continue;
                    }
                    if room.is_closed() {
                        continue;
                    }
                    let (key, record) = (key_of(place), state.disk.records.get(place));
                    if room.takes_record(&key, record) {
                        by_key.insert(place, pulled.items.len());
                        let record = record.cloned();
                        pulled.items.push(PulledItem::Record { dots: vec![item.stamp], key, record });
                    }
                }
            }
        }
        if !room.takes_lost() {
            pulled.lost = VersionVector::empty();
        }
        Ok(pulled)
    }

    fn history(&self, partition: Partition, key: &Key) -> Result<LocalHistory, StorageError> {
        let state = self.lock();
        let place = place(partition, key);
        let mut positions = Vec::new();
        for (dot, at) in state.log.places(partition) {
            let items = state.disk.log.get(&at.commit).expect("the index has only entries that are there");
            let about = |item: &&disk::LogItem| item.stamp.dot == dot && item.target == Target::Key(place.clone());
            if let Some(item) = items.iter().find(about) {
                positions.push(LogPosition { commit: at.commit, stamp: item.stamp });
            }
        }
        let more = positions.len() > limits::HISTORY_POSITIONS;
        positions.truncate(limits::HISTORY_POSITIONS);
        Ok(LocalHistory {
            digest: state.held(partition, key).what.map(|record| record.digest()),
            log: positions,
            more,
            coverage: state.log.coverage_of(partition),
            commit: state.log.commit(),
        })
    }

    fn live_keys(&self) -> u64 {
        let state = self.lock();
        let live = state.disk.records.iter().filter(|((partition, _, namespace, _), record)| {
            state.visible(*partition, *namespace, record).versions().iter().any(Version::is_value)
        });
        live.count() as u64
    }

    fn disk_bytes(&self) -> u64 {
        let state = self.lock();
        let bytes = state.disk.records.iter();
        bytes.map(|((_, _, _, key), record)| (key.len() + record.value_bytes()) as u64).sum()
    }

    fn discarded(&self) -> u64 {
        self.lock().discarded
    }

    fn log_length(&self) -> u64 {
        self.lock().log.length()
    }

    fn recovered(&self) -> Recovered {
        self.lock().recovered.clone()
    }
}
