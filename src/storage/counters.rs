//! What the committer and the readers count, for whoever shows it.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Counts since the process began; one thread of each kind writes, any reads.
#[derive(Default, Debug)]
pub struct Counters {
    groups: AtomicU64,
    mutations: AtomicU64,
    bytes: AtomicU64,
    apply_micros: AtomicU64,
    sync_micros: AtomicU64,
    sync_micros_max: AtomicU64,
    commit_queue: AtomicU64,
    commit_refused: AtomicU64,
    reads: AtomicU64,
    read_micros: AtomicU64,
    read_queue: AtomicU64,
    read_refused: AtomicU64,
}

/// All counts, read one after the other.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct CountersSnapshot {
    /// Groups that were made durable; each was synced once.
    pub groups: u64,
    /// Mutations in them.
    pub mutations: u64,
    /// Bytes in them, as [`crate::types::Mutation::weight`] has it.
    pub bytes: u64,
    /// Time spent in applying them, in microseconds.
    pub apply_micros: u64,
    /// Time spent in syncing them, in microseconds.
    pub sync_micros: u64,
    /// The longest sync, in microseconds.
    pub sync_micros_max: u64,
    /// Mutations that were handed over and are not durable yet.
    pub commit_queue: u64,
    /// Mutations that were refused.
    pub commit_refused: u64,
    /// Reads that were answered.
    pub reads: u64,
    /// Time spent in them, in microseconds.
    pub read_micros: u64,
    /// Reads that were handed over and are not answered yet.
    pub read_queue: u64,
    /// Reads that were refused.
    pub read_refused: u64,
}

impl Counters {
    /// All counts as they are now.
    pub fn snapshot(&self) -> CountersSnapshot {
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        CountersSnapshot {
            groups: get(&self.groups),
            mutations: get(&self.mutations),
            bytes: get(&self.bytes),
            apply_micros: get(&self.apply_micros),
            sync_micros: get(&self.sync_micros),
            sync_micros_max: get(&self.sync_micros_max),
            commit_queue: get(&self.commit_queue),
            commit_refused: get(&self.commit_refused),
            reads: get(&self.reads),
            read_micros: get(&self.read_micros),
            read_queue: get(&self.read_queue),
            read_refused: get(&self.read_refused),
        }
    }

    pub(super) fn group(&self, mutations: usize, bytes: usize, apply: Duration, sync: Duration) {
        let sync_micros = micros(sync);
        self.groups.fetch_add(1, Ordering::Relaxed);
        self.mutations.fetch_add(mutations as u64, Ordering::Relaxed);
        self.bytes.fetch_add(bytes as u64, Ordering::Relaxed);
        self.apply_micros.fetch_add(micros(apply), Ordering::Relaxed);
        self.sync_micros.fetch_add(sync_micros, Ordering::Relaxed);
        self.sync_micros_max.fetch_max(sync_micros, Ordering::Relaxed);
    }

    pub(super) fn commit_queue(&self, depth: usize) {
        self.commit_queue.store(depth as u64, Ordering::Relaxed);
    }

    pub(super) fn commit_refused(&self) {
        self.commit_refused.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn reads(&self, count: usize, took: Duration) {
        self.reads.fetch_add(count as u64, Ordering::Relaxed);
        self.read_micros.fetch_add(micros(took), Ordering::Relaxed);
    }

    pub(super) fn read_queue(&self, depth: usize) {
        self.read_queue.store(depth as u64, Ordering::Relaxed);
    }

    pub(super) fn read_refused(&self) {
        self.read_refused.fetch_add(1, Ordering::Relaxed);
    }
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}
