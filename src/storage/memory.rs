//! The model of a store: what the simulator runs on, and what the store on disk is
//! compared with.
//!
//! Invariant: what was synced survives [`MemoryStorage::crash`]; of what was only
//! applied, a prefix does, as long as the caller says. That is all that the store on
//! disk promises, so nothing may be built on more.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;

use crate::types::{
    Applied, CommitNumber, Content, Key, Mutation, NamespaceId, Partition, PartitionCount, ScanEntry, ScanRange,
    ScanResult, Stamp, Summary, Timestamp, Token, Version, limits,
};

use super::{Recovered, SCAN_EXAMINED_KEYS, Storage, StorageError};

/// Where a record stands: the order of scans.
type Place = (Partition, Token, NamespaceId, Bytes);

/// A store in memory that can lose what was not synced.
#[derive(Debug)]
pub struct MemoryStorage {
    partitions: PartitionCount,
    state: Mutex<State>,
}

#[derive(Default, Debug)]
struct State {
    records: BTreeMap<Place, Version>,
    truncations: BTreeMap<(Partition, NamespaceId), Stamp>,
    commit: Recovered,
    /// What it knew when it was opened, or came back from a crash.
    recovered: Recovered,
    /// How to take back what was applied since the last sync, in its order.
    unsynced: Vec<Undo>,
}

/// What was there before a step.
#[derive(Debug)]
enum Undo {
    Record(Place, Option<Version>),
    Truncation((Partition, NamespaceId), Option<Stamp>),
    /// A mutation that changed nothing.
    Nothing,
    Commit(Recovered),
}

impl MemoryStorage {
    /// An empty store.
    pub fn new(partitions: PartitionCount) -> MemoryStorage {
        MemoryStorage { partitions, state: Mutex::default() }
    }

    /// How many steps would be at stake in a crash: each mutation that was applied since
    /// the last sync is one, and so is the commit entry at the end of each group.
    pub fn unsynced(&self) -> usize {
        self.lock().unsynced.len()
    }

    /// Cuts the power: of the unsynced steps the first `keep` survive, the others never
    /// happened. Afterwards the store is as one that was just opened.
    pub fn crash(&self, keep: usize) {
        let mut state = self.lock();
        while state.unsynced.len() > keep {
            let step = state.unsynced.pop().expect("there are more than are kept");
            state.undo(step);
        }
        state.unsynced.clear();
        state.recovered = state.commit;
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn place(partition: Partition, key: &Key) -> Place {
    (partition, key.token(), key.namespace(), key.bytes().clone())
}

impl State {
    fn undo(&mut self, step: Undo) {
        match step {
            Undo::Record(place, Some(version)) => drop(self.records.insert(place, version)),
            Undo::Record(place, None) => drop(self.records.remove(&place)),
            Undo::Truncation(place, Some(stamp)) => drop(self.truncations.insert(place, stamp)),
            Undo::Truncation(place, None) => drop(self.truncations.remove(&place)),
            Undo::Nothing => {}
            Undo::Commit(commit) => self.commit = commit,
        }
    }

    fn apply(&mut self, mutation: &Mutation) -> (Applied, Undo) {
        match mutation {
            Mutation::Record { partition, key, version } => {
                let place = place(*partition, key);
                let truncation = self.truncations.get(&(*partition, key.namespace())).copied();
                let newest = self.records.get(&place).map(|version| version.stamp).max(truncation);
                match newest {
                    Some(by) if version.stamp < by || Some(version.stamp) == truncation => {
                        (Applied::Superseded { by }, Undo::Nothing)
                    }
                    Some(same) if version.stamp == same => (Applied::Stored, Undo::Nothing),
                    _ => {
                        let before = self.records.insert(place.clone(), version.clone());
                        (Applied::Stored, Undo::Record(place, before))
                    }
                }
            }
            Mutation::Truncate { partition, namespace, stamp } => {
                let place = (*partition, *namespace);
                match self.truncations.get(&place) {
                    Some(by) if stamp < by => (Applied::Superseded { by: *by }, Undo::Nothing),
                    Some(same) if stamp == same => (Applied::Stored, Undo::Nothing),
                    _ => (Applied::Stored, Undo::Truncation(place, self.truncations.insert(place, *stamp))),
                }
            }
            Mutation::Barrier => (Applied::Stored, Undo::Nothing),
        }
    }

    /// The truncation that covers a version, if any.
    fn covering(&self, partition: Partition, namespace: NamespaceId, version: &Version) -> Option<Stamp> {
        self.truncations.get(&(partition, namespace)).copied().filter(|stamp| version.stamp <= *stamp)
    }

    fn read(&self, partition: Partition, key: &Key) -> Option<Version> {
        let version = self.records.get(&place(partition, key))?;
        Some(match self.covering(partition, key.namespace(), version) {
            Some(stamp) => Version { stamp, expires_at: None, content: Content::Tombstone },
            None => version.clone(),
        })
    }

    fn head(&self, partition: Partition, namespace: NamespaceId, version: &Version) -> Summary {
        match self.covering(partition, namespace, version) {
            Some(stamp) => Summary { stamp, expires_at: None, value_bytes: None },
            None => version.summary(),
        }
    }
}

impl Storage for MemoryStorage {
    fn apply(&self, group: &[Mutation], clock: Timestamp) -> Result<Vec<Applied>, StorageError> {
        let mut state = self.lock();
        let mut results = Vec::with_capacity(group.len());
        for mutation in group {
            let (applied, undo) = state.apply(mutation);
            state.unsynced.push(undo);
            results.push(applied);
        }
        let before = state.commit;
        state.commit = Recovered { commit: before.commit.next(), clock: before.clock.max(clock) };
        state.unsynced.push(Undo::Commit(before));
        Ok(results)
    }

    fn sync(&self) -> Result<CommitNumber, StorageError> {
        let mut state = self.lock();
        state.unsynced.clear();
        Ok(state.commit.commit)
    }

    fn read(&self, partition: Partition, key: &Key) -> Result<Option<Version>, StorageError> {
        Ok(self.lock().read(partition, key))
    }

    fn head(&self, partition: Partition, key: &Key) -> Result<Option<Summary>, StorageError> {
        let state = self.lock();
        let version = state.records.get(&place(partition, key));
        Ok(version.map(|version| state.head(partition, key.namespace(), version)))
    }

    fn scan(&self, range: ScanRange) -> Result<ScanResult, StorageError> {
        let state = self.lock();
        let limit = range.limit.clamp(1, limits::SCAN_PAGE_ENTRIES) as usize;
        let from = range.from.max(self.partitions.first_token(range.partition));
        let begin = (range.partition, from, NamespaceId(0), Bytes::new());
        let mut entries: Vec<ScanEntry> = Vec::new();
        let mut bytes = 0;
        let mut token = None;
        let from_here = state.records.range((Bound::Included(begin), Bound::Unbounded));
        for (examined, ((partition, at, namespace, key), version)) in from_here.enumerate() {
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
                let summary = state.head(*partition, *namespace, version);
                entries.push(ScanEntry { key: key.clone(), summary });
            }
        }
        Ok(ScanResult { entries, next: None })
    }

    fn live_keys(&self) -> u64 {
        let state = self.lock();
        let live = state.records.iter().filter(|((partition, _, namespace, _), version)| {
            let is_value = matches!(version.content, Content::Value(_));
            is_value && state.covering(*partition, *namespace, version).is_none()
        });
        live.count() as u64
    }

    fn disk_bytes(&self) -> u64 {
        let state = self.lock();
        let bytes = state
            .records
            .iter()
            .map(|((_, _, _, key), version)| key.len() as u64 + version.summary().value_bytes.map_or(0, u64::from));
        bytes.sum()
    }

    fn recovered(&self) -> Recovered {
        self.lock().recovered
    }
}
