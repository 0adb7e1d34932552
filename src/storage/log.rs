//! What a replica has seen, and where its log has it: the part that lives in memory.
//!
//! Problem: whether a dot was seen must be known without asking the disk, for each write;
//! and the entry of a dot must be found when a peer lacks it.
//! Invariant: `applied` covers a dot once its group was applied, `durable` once it was
//! synced; the index has exactly the dots of the entries that were not let go of.
//! It is rebuilt from checkpoints and log entries when a store is opened.

use std::collections::{BTreeMap, VecDeque};

use crate::types::{
    Actor, CommitNumber, Counter, Counters, Coverage, Dot, Partition, Timestamp, VersionVector, limits,
};

/// Where a dot is logged.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Place {
    pub(super) commit: CommitNumber,
    /// Whether it wrote a tombstone: then the record is looked at before the entry goes.
    pub(super) tombstone: bool,
}

#[derive(Clone, Default, Debug)]
struct PartitionLog {
    applied: VersionVector,
    durable: VersionVector,
    horizon: Timestamp,
    durable_horizon: Timestamp,
    /// The last group in which what is durable has changed.
    changed: CommitNumber,
    index: BTreeMap<Actor, Places>,
}

/// Where the dots of one actor are logged, in the order of their counters. They nearly
/// always come in that order, and go from the front.
#[derive(Clone, Default, Debug)]
struct Places(VecDeque<(Counter, Place)>);

impl Places {
    /// Whether it was not there before.
    fn insert(&mut self, counter: Counter, place: Place) -> bool {
        if self.0.back().is_none_or(|(last, _)| *last < counter) {
            self.0.push_back((counter, place));
            return true;
        }
        match self.0.binary_search_by_key(&counter, |(counter, _)| *counter) {
            Ok(at) => {
                self.0[at].1 = place;
                false
            }
            Err(at) => {
                self.0.insert(at, (counter, place));
                true
            }
        }
    }

    fn get(&self, counter: Counter) -> Option<Place> {
        let at = self.0.binary_search_by_key(&counter, |(counter, _)| *counter).ok()?;
        Some(self.0[at].1)
    }
}

/// The log of a store, as it is kept in memory.
#[derive(Default, Debug)]
pub(super) struct Log {
    /// By number.
    partitions: Vec<Option<Box<PartitionLog>>>,
    /// How many dots of each entry are not let go of, in the order of commits.
    entries: VecDeque<(CommitNumber, u32)>,
    /// What was applied and is not synced.
    pending: Vec<(Partition, Dot)>,
    pending_horizons: Vec<Partition>,
    commit: CommitNumber,
    length: u64,
}

static NOTHING: VersionVector = VersionVector::empty();

impl Log {
    fn get(&self, partition: Partition) -> Option<&PartitionLog> {
        self.partitions.get(usize::from(partition.0))?.as_deref()
    }

    fn of(&mut self, partition: Partition) -> &mut PartitionLog {
        let index = usize::from(partition.0);
        if self.partitions.len() <= index {
            self.partitions.resize_with(index + 1, || None);
        }
        self.partitions[index].get_or_insert_default()
    }

    fn each(&self) -> impl Iterator<Item = (Partition, &PartitionLog)> {
        let numbered = (0..=u16::MAX).map(Partition).zip(&self.partitions);
        numbered.filter_map(|(partition, log)| Some((partition, log.as_deref()?)))
    }

    fn entry_mut(&mut self, commit: CommitNumber) -> &mut u32 {
        if self.entries.back().is_none_or(|(last, _)| *last < commit) {
            self.entries.push_back((commit, 0));
        }
        let at = match self.entries.back() {
            Some((last, _)) if *last == commit => self.entries.len() - 1,
            _ => match self.entries.binary_search_by_key(&commit, |(commit, _)| *commit) {
                Ok(at) => at,
                Err(at) => {
                    self.entries.insert(at, (commit, 0));
                    at
                }
            },
        };
        &mut self.entries[at].1
    }

    /// What was applied in a partition.
    pub(super) fn applied(&self, partition: Partition) -> &VersionVector {
        self.get(partition).map_or(&NOTHING, |log| &log.applied)
    }

    /// What is durable in a partition.
    pub(super) fn durable(&self, partition: Partition) -> &VersionVector {
        self.get(partition).map_or(&NOTHING, |log| &log.durable)
    }

    /// Up to where tombstones of a partition were let go of.
    pub(super) fn horizon(&self, partition: Partition) -> Timestamp {
        self.get(partition).map_or(Timestamp::default(), |log| log.horizon)
    }

    /// How many dots are in the index.
    pub(super) fn length(&self) -> u64 {
        self.length
    }

    /// The last group that is durable.
    pub(super) fn commit(&self) -> CommitNumber {
        self.commit
    }

    /// Takes in what a checkpoint says, when a store is opened.
    pub(super) fn restore(&mut self, partition: Partition, vector: &VersionVector, horizon: Timestamp) {
        let log = self.of(partition);
        log.applied.join(vector);
        log.horizon = log.horizon.max(horizon);
    }

    /// A dot was applied, and is in this entry.
    pub(super) fn note(&mut self, partition: Partition, dot: Dot, place: Place) {
        let log = self.of(partition);
        let unseen = log.applied.insert(dot);
        let unlogged = log.index.entry(dot.actor).or_default().insert(dot.counter, place);
        if unseen {
            self.pending.push((partition, dot));
        }
        if unlogged {
            self.length += 1;
            *self.entry_mut(place.commit) += 1;
        }
    }

    /// Tombstones of a partition up to here are let go of.
    pub(super) fn raise_horizon(&mut self, partition: Partition, horizon: Timestamp) {
        let log = self.of(partition);
        if horizon > log.horizon {
            log.horizon = horizon;
            self.pending_horizons.push(partition);
        }
    }

    /// What may be collected in a partition: of what is stable elsewhere, the part that is
    /// durable here. Nothing of an actor for whose counters no checkpoint has room, however few of
    /// them are stable: all that is durable goes into it.
    pub(super) fn collectable(&self, partition: Partition, stable: &VersionVector) -> VersionVector {
        let fits = |counters: &Counters| counters.ranges().len() <= limits::CHECKPOINT_RANGES;
        self.durable(partition).clone().only(fits).common(stable)
    }

    /// The horizon after a collection whose newest removal is `removed`.
    ///
    /// It grows with each collection that removes anything, even where it lay above that
    /// already: [`crate::types::Mutation::Absorb`] tells by it that something was removed
    /// since the answer was asked for.
    pub(super) fn horizon_after(horizon: Timestamp, removed: Option<Timestamp>) -> Timestamp {
        removed.map_or(horizon, |removed| removed.max(horizon.next()))
    }

    /// Every partition, with what was applied and the horizon.
    pub(super) fn partitions(&self) -> impl Iterator<Item = (Partition, &VersionVector, Timestamp)> {
        self.each().map(|(partition, log)| (partition, &log.applied, log.horizon))
    }

    /// All that was applied is durable.
    pub(super) fn synced(&mut self, commit: CommitNumber) {
        self.commit = commit;
        for (partition, dot) in std::mem::take(&mut self.pending) {
            let log = self.of(partition);
            log.durable.insert(dot);
            log.changed = commit;
        }
        for partition in std::mem::take(&mut self.pending_horizons) {
            let log = self.of(partition);
            log.durable_horizon = log.horizon;
            log.changed = commit;
        }
    }

    /// After a store was opened: all that was found is durable.
    pub(super) fn opened(&mut self, commit: CommitNumber) {
        self.commit = commit;
        self.pending.clear();
        for log in self.partitions.iter_mut().flatten() {
            log.durable = log.applied.clone();
            log.durable_horizon = log.horizon;
            log.changed = commit;
        }
    }

    /// See [`super::Storage::coverage`].
    pub(super) fn coverage(&self, since: CommitNumber) -> Vec<Coverage> {
        let changed = self.each().filter(|(_, log)| log.changed > since || since == CommitNumber(0));
        changed.map(|(partition, _)| self.coverage_of(partition)).collect()
    }

    /// What is durable in a partition.
    pub(super) fn coverage_of(&self, partition: Partition) -> Coverage {
        let log = self.get(partition);
        Coverage {
            partition,
            vector: self.durable(partition).clone(),
            horizon: log.map_or(Timestamp::default(), |log| log.durable_horizon),
        }
    }

    /// Where dots are logged: those of `wanted` that are covered, up to `limit`; and those
    /// that are covered and no longer logged.
    pub(super) fn find(
        &self,
        partition: Partition,
        wanted: &VersionVector,
        limit: usize,
    ) -> (Vec<(Dot, Place)>, VersionVector) {
        let mut found = Vec::new();
        let mut lost = VersionVector::default();
        let Some(log) = self.get(partition) else { return (found, lost) };
        for dot in log.applied.common(wanted).dots().take(limit) {
            match log.index.get(&dot.actor).and_then(|places| places.get(dot.counter)) {
                Some(place) => found.push((dot, place)),
                None => drop(lost.insert(dot)),
            }
        }
        (found, lost)
    }

    /// Lets go of dots that are stable, up to `limit`: where they were, and the entries of which
    /// nothing is left.
    pub(super) fn release(
        &mut self,
        partition: Partition,
        stable: &VersionVector,
        limit: usize,
    ) -> (Vec<(Dot, Place)>, Vec<CommitNumber>) {
        let mut released = Vec::new();
        let mut emptied = Vec::new();
        let log = self.of(partition);
        for (actor, places) in &mut log.index {
            let Some(stable) = stable.counters(*actor) else { continue };
            places.0.retain(|(counter, place)| {
                let goes = released.len() < limit && stable.contains(*counter);
                if goes {
                    released.push((Dot { actor: *actor, counter: *counter }, *place));
                }
                !goes
            });
        }
        log.index.retain(|_, places| !places.0.is_empty());
        self.length -= released.len() as u64;
        for (_, place) in &released {
            let left = self.entry_mut(place.commit);
            *left -= 1;
            if *left == 0 {
                emptied.push(place.commit);
            }
        }
        if !emptied.is_empty() {
            self.entries.retain(|(_, left)| *left > 0);
        }
        (released, emptied)
    }

    /// Where the dots of a partition are logged, newest entries first.
    pub(super) fn places(&self, partition: Partition) -> Vec<(Dot, Place)> {
        let Some(log) = self.get(partition) else { return Vec::new() };
        let each = log.index.iter().flat_map(|(actor, places)| {
            places.0.iter().map(|(counter, place)| (Dot { actor: *actor, counter: *counter }, *place))
        });
        let mut places: Vec<_> = each.collect();
        places.sort_by_key(|(dot, place)| std::cmp::Reverse((place.commit, *dot)));
        places
    }
}
