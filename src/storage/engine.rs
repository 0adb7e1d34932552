//! The trait behind which a store lives: sled's for nodes, a model in memory for the
//! simulator. One suite of tests runs on both.

use std::collections::BTreeMap;

use crate::types::{
    Applied, CommitNumber, Coverage, Digest, Key, LocalHistory, Mutation, NodeId, Partition, PeerMemory, Pulled,
    Record, ScanRange, ScanResult, StoreId, Timestamp, VersionVector,
};

use super::StorageError;

/// What a store knew when it was opened.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub struct Recovered {
    /// The store's name.
    pub store: StoreId,
    /// The last group that is there.
    pub commit: CommitNumber,
    /// The highest timestamp that was told to [`Storage::apply`], or that is left of a group
    /// that a crash has cut.
    pub clock: Timestamp,
    /// What it remembers of its peers.
    pub peers: BTreeMap<NodeId, PeerMemory>,
}

/// What was found of a key.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Held<T> {
    /// What is there.
    pub what: Option<T>,
    /// Whether it would survive a power cut: false while the group that wrote it is not synced.
    pub durable: bool,
}

/// A store. One thread applies and syncs; any may read.
///
/// # What is kept
/// Per key a record; per partition the dots that were seen, and a log that says for each
/// which key it wrote to; what op-ids stand for; and what peers' stores were seen to hold.
///
/// # Rules of [`Storage::apply`]
/// - A dot is covered in the same group as the record that it leads to, never before it.
/// - A version whose dot is covered is a duplicate: it is never written again, so nothing
///   that was deleted and collected comes back.
/// - Where there is no record, a version that is not covered and not newer than the
///   partition's horizon is [`Applied::Behind`]: the tombstone that outranks it may have
///   been collected. So is one that would become a sibling of what is there. [`Mutation::Absorb`] is free of this rule, because it brings what a
///   replica holds now, asked for under the present horizon.
/// - The horizon is durable before the tombstone is gone, and higher after each collection
///   that removes anything.
/// - Only what is durable here is collected, whatever is stable elsewhere.
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

    /// The record of a key. Versions that a truncation covers are left out; under `lww`
    /// the truncation is shown in their place, as a tombstone, if there is a record at all.
    ///
    /// # Errors
    /// [`StorageError::Corrupt`] if the stored bytes are not what was written.
    fn read(&self, partition: Partition, key: &Key) -> Result<Held<Record>, StorageError>;

    /// The same without values, and without reading them.
    ///
    /// # Errors
    /// As [`Storage::read`].
    fn head(&self, partition: Partition, key: &Key) -> Result<Held<Digest>, StorageError>;

    /// Keys of a partition in token order, then by bytes. A page may end before the limit,
    /// even without an entry, when many keys of other namespaces lie between.
    ///
    /// # Errors
    /// As [`Storage::read`].
    fn scan(&self, range: ScanRange) -> Result<ScanResult, StorageError>;

    /// Whether all these dots were applied, synced or not.
    fn covers(&self, partition: Partition, dots: &VersionVector) -> bool;

    /// What is durably covered of the partitions in which that has changed after the group
    /// `since`, and the last group that is durable.
    fn coverage(&self, since: CommitNumber) -> (CommitNumber, Vec<Coverage>);

    /// What these dots wrote, as far as the log has them and one answer may be long. Dots
    /// that are not covered are left out. Only durable once a later sync has returned.
    ///
    /// # Errors
    /// As [`Storage::read`].
    fn pull(&self, partition: Partition, wanted: &VersionVector) -> Result<Pulled, StorageError>;

    /// What is held and logged of a key. Reads the log of the partition: for people.
    ///
    /// # Errors
    /// As [`Storage::read`].
    fn history(&self, partition: Partition, key: &Key) -> Result<LocalHistory, StorageError>;

    /// About how many live keys it holds.
    fn live_keys(&self) -> u64;

    /// How many bytes it takes on disk.
    fn disk_bytes(&self) -> u64;

    /// Versions that lost against a newer one without ever having been seen.
    fn discarded(&self) -> u64;

    /// How many mutations the log still has.
    fn log_length(&self) -> u64;

    /// What it knew when it was opened.
    fn recovered(&self) -> Recovered;
}
