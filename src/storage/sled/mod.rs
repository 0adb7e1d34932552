//! The store on disk, behind sled 0.34.7.
//!
//! Problem: sled's `flush` does not survive a power cut, its batches stall every store
//! of the process, and its large values go to files that nothing syncs.
//! Invariant: an operation on a tree is one entry of sled's log, and sled recovers an
//! exact prefix of its log. So order is all that is needed: pieces of a value before the
//! record that names them, the removal of old pieces after it, the group's log entry
//! first and its commit entry last. `flush` and then `fdatasync` on a handle of our own make the prefix
//! durable.
//! Source: EVIDENCE, sled; sled's `pagecache/iobuf.rs` and `segment.rs`.

mod schema;
mod tally;
mod open;
mod restore;
mod self_test;
mod plan;
mod collect;
mod write;
mod read;
mod pull;

use std::fs::File;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::thread::JoinHandle;

use crate::types::{
    Applied, CommitNumber, Coverage, Digest, Key, LocalHistory, Mutation, NamespaceId, Partition, PartitionCount,
    Pulled, Record, ScanRange, ScanResult, Stamp, Timestamp, VersionVector,
};

use super::log::Log;
use super::{Held, Recovered, Storage, StorageError};

use read::Truncations;
use tally::Tally;
use write::{Dirty, Writer};

/// Below the store's directory: where sled's files lie.
pub(super) const DATA_DIRECTORY: &str = "sled";

/// How a store is opened.
#[derive(Clone, Debug)]
pub struct SledOptions {
    /// Where it lies, with its lock and the node's incarnation; made if it is not there.
    pub directory: PathBuf,
    /// Capacity of sled's cache. It takes two to three times as much memory: give it a
    /// quarter of what the node may use.
    pub cache_bytes: u64,
    /// The number of partitions, which cannot change.
    pub partitions: PartitionCount,
}

/// A store on disk.
///
/// Two threads may use it at once and more: one that applies and syncs, and any that
/// read. Dropping it makes durable what was applied, unless it had failed before.
#[derive(Debug)]
pub struct SledStorage {
    core: Arc<Core>,
    /// There until dropped.
    database: Option<::sled::Db>,
    writer: Mutex<Writer>,
    counting: Option<JoinHandle<()>>,
    recovered: Recovered,
    /// Held for as long as sled's files are open, so dropped last.
    lock: File,
}

/// What reading needs, shared with the thread that counts.
#[derive(Debug)]
struct Core {
    records: ::sled::Tree,
    chunks: ::sled::Tree,
    log_entries: ::sled::Tree,
    expiries: ::sled::Tree,
    claims: ::sled::Tree,
    meta: ::sled::Tree,
    truncations: RwLock<Truncations>,
    /// Never held while sled works.
    log: RwLock<Log>,
    /// Looked at after a read, filled before a write and emptied after a sync.
    dirty: Mutex<Dirty>,
    discarded: AtomicU64,
    partitions: PartitionCount,
    tally: Tally,
    /// Our own handle on the file that sled writes to.
    file: File,
    data_directory: PathBuf,
    /// What went wrong, once something did.
    failed: OnceLock<String>,
}

impl Core {
    /// Runs an operation on sled, whose bugs and I/O errors may come as panics.
    fn guarded<T>(&self, operation: impl FnOnce() -> Result<T, StorageError>) -> Result<T, StorageError> {
        if let Some(failure) = self.failed.get() {
            return Err(StorageError::Engine(format!("not used any more after: {failure}")));
        }
        let result = guarded(operation);
        if let Err(error @ StorageError::Engine(_)) = &result {
            self.fail(error);
        }
        result
    }

    /// From now on nothing is applied, synced or read; the first failure is the one told.
    fn fail(&self, error: &StorageError) {
        let _told_already = self.failed.set(error.to_string());
    }

    fn truncation(&self, partition: Partition, namespace: NamespaceId) -> Option<Stamp> {
        let truncations = self.truncations.read().unwrap_or_else(PoisonError::into_inner);
        truncations.get(&(partition, namespace)).copied()
    }
}

impl Core {
    fn log(&self) -> RwLockReadGuard<'_, Log> {
        self.log.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn log_mut(&self) -> RwLockWriteGuard<'_, Log> {
        self.log.write().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Turns a panic into an error.
fn guarded<T>(operation: impl FnOnce() -> Result<T, StorageError>) -> Result<T, StorageError> {
    catch_unwind(AssertUnwindSafe(operation)).unwrap_or_else(|panic| Err(StorageError::panicked(panic.as_ref())))
}

fn engine(error: ::sled::Error) -> StorageError {
    StorageError::Engine(error.to_string())
}

impl SledStorage {
    /// Whether the store lies in memory (tmpfs, ramfs), where nothing survives a power
    /// cut whatever is synced: fit for tests only.
    pub fn is_memory_backed(&self) -> bool {
        const TMPFS: u64 = 0x0102_1994;
        const RAMFS: u64 = 0x8584_58f6;
        rustix::fs::fstatfs(&self.core.file).is_ok_and(|stat| matches!(stat.f_type as u64, TMPFS | RAMFS))
    }
}

impl Storage for SledStorage {
    fn apply(&self, group: &[Mutation], clock: Timestamp) -> Result<Vec<Applied>, StorageError> {
        let mut writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        let result = self.core.guarded(|| writer.apply(&self.core, group, clock));
        result.inspect_err(|error| self.core.fail(error))
    }

    fn sync(&self) -> Result<CommitNumber, StorageError> {
        let mut writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        let result = self.core.guarded(|| writer.sync(&self.core));
        result.inspect_err(|error| self.core.fail(error))
    }

    fn read(&self, partition: Partition, key: &Key) -> Result<Held<Record>, StorageError> {
        self.core.guarded(|| self.core.read(partition, key))
    }

    fn head(&self, partition: Partition, key: &Key) -> Result<Held<Digest>, StorageError> {
        self.core.guarded(|| self.core.head(partition, key))
    }

    fn scan(&self, range: ScanRange) -> Result<ScanResult, StorageError> {
        self.core.guarded(|| self.core.scan(range))
    }

    fn covers(&self, partition: Partition, dots: &VersionVector) -> bool {
        self.core.log().applied(partition).covers_all(dots)
    }

    fn coverage(&self, since: CommitNumber) -> (CommitNumber, Vec<Coverage>) {
        let log = self.core.log();
        (log.commit(), log.coverage(since))
    }

    fn pull(&self, partition: Partition, wanted: &VersionVector) -> Result<Pulled, StorageError> {
        self.core.guarded(|| self.core.pull(partition, wanted))
    }

    fn history(&self, partition: Partition, key: &Key) -> Result<LocalHistory, StorageError> {
        self.core.guarded(|| self.core.history(partition, key))
    }

    /// About, until the keys were counted after the store was opened; exact then.
    fn live_keys(&self) -> u64 {
        self.core.tally.total()
    }

    /// Zero if the directory cannot be read.
    fn disk_bytes(&self) -> u64 {
        self.core.disk_bytes().unwrap_or(0)
    }

    fn discarded(&self) -> u64 {
        self.core.discarded.load(Ordering::Relaxed)
    }

    fn log_length(&self) -> u64 {
        self.core.log().length()
    }

    fn recovered(&self) -> Recovered {
        self.recovered.clone()
    }
}

impl Drop for SledStorage {
    fn drop(&mut self) {
        self.core.tally.stop();
        if let Some(counting) = self.counting.take() {
            counting.join().expect("the count turns panics into errors");
        }
        if self.sync().is_ok() {
            return;
        }
        // sled waits for ever in its own drop after some failures. So its files stay open,
        // and the lock with them, until the process ends, which it is about to.
        std::mem::forget(self.database.take());
        std::mem::forget(Arc::clone(&self.core));
        std::mem::forget(self.lock.try_clone());
    }
}

#[cfg(test)]
#[path = "sled_tests.rs"]
mod tests;

#[cfg(test)]
#[path = "crash_tests.rs"]
mod crash_tests;
