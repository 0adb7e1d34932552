//! The trait behind which a store lives: sled's for nodes, a model in memory for the
//! simulator. One suite of tests runs on both.

use crate::types::{
    Applied, CommitNumber, Key, Mutation, Partition, ScanRange, ScanResult, Summary, Timestamp, Version,
};

use super::StorageError;

/// What a store knew when it was opened.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct Recovered {
    /// The last group that is there.
    pub commit: CommitNumber,
    /// The highest timestamp that was told to [`Storage::apply`].
    pub clock: Timestamp,
}

/// A store. One thread applies and syncs; any may read.
///
/// A read sees every mutation that was applied, synced or not: what a reader learns
/// early was never acknowledged, and quorum reads do not rest on one replica.
pub trait Storage: Send + Sync + 'static {
    /// Applies a group in order; `clock` is the highest timestamp that this node has
    /// given or seen and is kept with the group. The results are in the group's order.
    ///
    /// A truncation answers like a record: `Superseded` if a newer one is there.
    ///
    /// # Errors
    /// Any: the group is in doubt, and the store must not be used again.
    fn apply(&self, group: &[Mutation], clock: Timestamp) -> Result<Vec<Applied>, StorageError>;

    /// Makes durable all that was applied.
    ///
    /// # Errors
    /// Any: what was applied since the last sync is in doubt; the store must not be used again.
    fn sync(&self) -> Result<CommitNumber, StorageError>;

    /// The newest version, or the truncation that outranks it (as a tombstone); if there
    /// is no record at all, none even where there was a truncation.
    ///
    /// # Errors
    /// [`StorageError::Corrupt`] if the stored bytes are not what was written.
    fn read(&self, partition: Partition, key: &Key) -> Result<Option<Version>, StorageError>;

    /// The same without the value, and without reading it.
    ///
    /// # Errors
    /// As [`Storage::read`].
    fn head(&self, partition: Partition, key: &Key) -> Result<Option<Summary>, StorageError>;

    /// Keys of a partition in token order, then by bytes. A page may end before the limit,
    /// even without an entry, when many keys of other namespaces lie between.
    ///
    /// # Errors
    /// As [`Storage::read`].
    fn scan(&self, range: ScanRange) -> Result<ScanResult, StorageError>;

    /// About how many live keys it holds.
    fn live_keys(&self) -> u64;

    /// How many bytes it takes on disk.
    fn disk_bytes(&self) -> u64;

    /// What it knew when it was opened.
    fn recovered(&self) -> Recovered;
}
