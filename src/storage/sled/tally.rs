//! How many live keys there are, without asking sled, whose `len` reads everything.
//!
//! Invariant: for a partition that is counted, the count of every namespace is exact;
//! the others are on a list, which one background thread works off after the store was
//! opened. Until the list is empty the total is the one that was stored with the last
//! group, moved by what happened since: about right.
//! A key counts while its newest version is a value that no truncation covers; expiry
//! is not looked at.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use crate::types::{NamespaceId, Partition, Stamp};

use super::super::StorageError;

/// The live keys of one namespace in one partition, and the newest version among all keys.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Count {
    pub(super) live: u64,
    pub(super) newest: Stamp,
}

impl Count {
    /// Counts one more key.
    pub(super) fn add(counts: &mut BTreeMap<NamespaceId, Count>, namespace: NamespaceId, stamp: Stamp, live: bool) {
        let count = counts.entry(namespace).or_insert(Count { live: 0, newest: stamp });
        count.live += u64::from(live);
        count.newest = count.newest.max(stamp);
    }
}

/// What a partition was found to hold.
pub(super) type Counts = BTreeMap<NamespaceId, Count>;

#[derive(Debug)]
pub(super) struct Tally {
    state: Mutex<State>,
    work: Condvar,
    /// A copy of the total, to be read without waiting for a group.
    total: AtomicU64,
    stopped: AtomicBool,
}

#[derive(Debug)]
pub(super) struct State {
    counted: BTreeMap<(Partition, NamespaceId), Count>,
    /// Partitions to be counted, and how often each has changed since it was listed.
    uncounted: BTreeMap<Partition, u64>,
    total: u64,
}

/// Scans of a partition that was written to meanwhile, before writers are held up for one.
const PATIENCE: u32 = 3;

impl Tally {
    /// A tally with these partitions yet to be counted, and the total as it was stored.
    pub(super) fn new(uncounted: impl Iterator<Item = Partition>, total: u64) -> Tally {
        let uncounted = uncounted.map(|partition| (partition, 0)).collect();
        Tally {
            state: Mutex::new(State { counted: BTreeMap::new(), uncounted, total }),
            work: Condvar::new(),
            total: AtomicU64::new(total),
            stopped: AtomicBool::new(false),
        }
    }

    /// The total.
    pub(super) fn total(&self) -> u64 {
        self.total.load(Ordering::Relaxed)
    }

    /// To be held while a group is applied, so that no count is taken of half a group.
    pub(super) fn begin_group(&self) -> Group<'_> {
        Group { tally: self, state: self.lock(), recount: false }
    }

    /// Ends the background thread.
    pub(super) fn stop(&self) {
        self.stopped.store(true, Ordering::Relaxed);
        // Whoever held the lock has seen it, or waits by now and hears this.
        drop(self.lock());
        self.work.notify_all();
    }

    /// Whether the count must not go on.
    pub(super) fn is_stopped(&self) -> bool {
        self.stopped.load(Ordering::Relaxed)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Works off the list until stopped; `scan` reads one partition, or none when stopped.
    pub(super) fn run(
        &self,
        mut scan: impl FnMut(Partition) -> Result<Option<Counts>, StorageError>,
    ) -> Result<(), StorageError> {
        let mut attempts = 0;
        let mut state = self.lock();
        while !self.is_stopped() {
            let Some((&partition, &changes)) = state.uncounted.first_key_value() else {
                state = self.work.wait(state).unwrap_or_else(PoisonError::into_inner);
                continue;
            };
            attempts += 1;
            let found;
            if attempts > PATIENCE {
                found = scan(partition)?;
            } else {
                drop(state);
                found = scan(partition)?;
                state = self.lock();
            }
            let Some(found) = found else { break };
            if attempts > PATIENCE || state.uncounted.get(&partition) == Some(&changes) {
                state.install(partition, found);
                self.total.store(state.total, Ordering::Relaxed);
                attempts = 0;
            }
        }
        Ok(())
    }
}

impl State {
    fn install(&mut self, partition: Partition, found: Counts) {
        self.uncounted.remove(&partition);
        let stale: Vec<_> = self
            .counted
            .range((partition, NamespaceId(0))..=(partition, NamespaceId(u16::MAX)))
            .map(|(place, _)| *place)
            .collect();
        for place in stale {
            self.counted.remove(&place);
        }
        self.counted.extend(found.into_iter().map(|(namespace, count)| ((partition, namespace), count)));
        if self.uncounted.is_empty() {
            self.total = self.counted.values().map(|count| count.live).sum();
        }
    }
}

/// The changes of one group.
pub(super) struct Group<'a> {
    tally: &'a Tally,
    state: MutexGuard<'a, State>,
    recount: bool,
}

impl Group<'_> {
    /// The total, with this group so far.
    pub(super) fn total(&self) -> u64 {
        self.state.total
    }

    /// A key has got another version.
    pub(super) fn replaced(
        &mut self,
        partition: Partition,
        namespace: NamespaceId,
        stamp: Stamp,
        was_live: bool,
        is_live: bool,
    ) {
        let state = &mut *self.state;
        // The stored total may be too low after a crash.
        let moved = |live: u64| (live + u64::from(is_live)).saturating_sub(u64::from(was_live));
        state.total = moved(state.total);
        if let Some(changes) = state.uncounted.get_mut(&partition) {
            *changes += 1;
            return;
        }
        let count = state.counted.entry((partition, namespace)).or_insert(Count { live: 0, newest: stamp });
        count.live = moved(count.live);
        count.newest = count.newest.max(stamp);
    }

    /// A namespace was truncated in a partition.
    pub(super) fn truncated(&mut self, partition: Partition, namespace: NamespaceId, stamp: Stamp) {
        let state = &mut *self.state;
        if let Some(changes) = state.uncounted.get_mut(&partition) {
            *changes += 1;
            return;
        }
        let Some(count) = state.counted.get_mut(&(partition, namespace)) else { return };
        if count.newest <= stamp {
            state.total = state.total.saturating_sub(count.live);
            count.live = 0;
        } else {
            // Some keys survive; which of them, only a scan can tell.
            state.uncounted.insert(partition, 0);
            self.recount = true;
        }
    }
}

impl Drop for Group<'_> {
    fn drop(&mut self) {
        self.tally.total.store(self.state.total, Ordering::Relaxed);
        if self.recount {
            self.tally.work.notify_all();
        }
    }
}
