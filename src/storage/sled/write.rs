//! How a group is applied and made durable.
//!
//! Invariant: of a group, the log entry comes first and the commit entry last; a store
//! that has the log entry and not the commit entry cuts it down to what is there.

use std::collections::BTreeMap;
use std::fs;
use std::hash::{Hash, Hasher};
use std::sync::PoisonError;
use std::sync::atomic::Ordering;

use crate::types::{
    Actor, Applied, Claim, CommitNumber, Mutation, NamespaceId, OpId, Partition, Stamp, Timestamp, VersionVector,
    WallTime, limits,
};

use super::super::StorageError;
use super::super::log::Place;
use super::plan::{Plan, Planner, RecordWrite, Write};
use super::schema::{self, CommitEntry, Tree, Unfinished};
use super::tally::Group;
use super::{Core, engine};

/// After this many bytes without a sync there is one in the middle of a group. sled
/// reuses a segment once two more were written after the one that replaced it, whether
/// or not they were synced; with this little between syncs, they were.
const UNSYNCED_BYTES: usize = 2 * limits::SLED_SEGMENT_BYTES / 16;
/// Groups with values of this length on are checked not to have made a blob file.
const CHECK_FOR_BLOBS_BYTES: usize = 16 * 1024;

#[cfg(test)]
thread_local! {
    /// How many more operations of this thread sled gets to see.
    pub(super) static OPERATIONS_LEFT: std::cell::Cell<usize> = const { std::cell::Cell::new(usize::MAX) };
}

/// Comes before every operation that changes a tree, so that tests can cut a group short.
fn operation() -> Result<(), StorageError> {
    #[cfg(test)]
    OPERATIONS_LEFT.with(|left| match left.get().checked_sub(1) {
        Some(fewer) => {
            left.set(fewer);
            Ok(())
        }
        None => Err(StorageError::Engine("cut short by a test".to_owned())),
    })?;
    Ok(())
}

fn remove(tree: &::sled::Tree, key: &[u8]) -> Result<(), StorageError> {
    operation()?;
    tree.remove(key).map_err(engine)?;
    Ok(())
}

/// How many dots of each actor the checkpoint of a partition has: it is written when it
/// has grown.
pub(super) type Checkpointed = BTreeMap<(Partition, Actor), u64>;

/// What the one thread that applies keeps between groups.
#[derive(Debug, Default)]
pub(super) struct Writer {
    commit: CommitNumber,
    clock: Timestamp,
    planner: Planner,
    checkpointed: Checkpointed,
    value: Vec<u8>,
    unsynced_bytes: usize,
    blobs_possible: bool,
}

/// What was written and is not synced, as hashes: one that is there by chance only means
/// that a read waits for a sync.
#[derive(Default, Debug)]
pub(super) struct Dirty {
    hashes: rustc_hash::FxHashSet<u64>,
}

impl Dirty {
    pub(super) fn has_record(&self, record_key: &[u8]) -> bool {
        self.hashes.contains(&hash(record_key))
    }

    pub(super) fn has_truncation(&self, partition: Partition, namespace: NamespaceId) -> bool {
        self.hashes.contains(&hash(&schema::truncation_key(partition, namespace)))
    }
}

fn hash(key: &[u8]) -> u64 {
    let mut hasher = rustc_hash::FxHasher::default();
    key.hash(&mut hasher);
    hasher.finish()
}

impl Writer {
    pub(super) fn new(last: CommitEntry, planner: Planner, checkpointed: Checkpointed) -> Writer {
        Writer { commit: last.commit, clock: last.clock, planner, checkpointed, ..Writer::default() }
    }

    /// See [`super::super::Storage::apply`].
    pub(super) fn apply(
        &mut self,
        core: &Core,
        group: &[Mutation],
        clock: Timestamp,
    ) -> Result<Vec<Applied>, StorageError> {
        let mut plan = Plan::new(self.commit.next(), group.len());
        let mut results = Vec::with_capacity(group.len());
        for mutation in group {
            results.push(self.planner.plan(core, &mut plan, mutation)?);
        }
        let Plan { commit, items, writes, raised, discarded, .. } = plan;
        // From before the first write on, so that nobody takes for durable what is not.
        core.soil(&writes);
        for (key, piece) in schema::encode_log_entry(commit, &items) {
            self.insert_bytes(core, &core.log_entries, &key, &piece)?;
        }
        let mut tally = core.tally.begin_group();
        for write in writes {
            self.write(core, &mut tally, write)?;
        }
        // Last, so that a store that has the entry has the whole group.
        self.commit = commit;
        self.clock = self.clock.max(clock);
        let entry = CommitEntry { commit: self.commit, clock: self.clock, live_keys: tally.total() };
        drop(tally);
        entry.encode(&mut self.value);
        operation()?;
        core.meta.insert(schema::COMMIT_KEY, self.value.as_slice()).map_err(engine)?;

        core.discarded.fetch_add(discarded, Ordering::Relaxed);
        // A dot is covered once what it wrote can be read.
        let mut log = core.log_mut();
        for item in items {
            log.note(item.partition, item.stamp.dot, Place { commit, tombstone: item.tombstone });
        }
        raised.into_iter().for_each(|(partition, horizon)| log.raise_horizon(partition, horizon));
        Ok(results)
    }

    /// See [`super::super::Storage::sync`].
    pub(super) fn sync(&mut self, core: &Core) -> Result<CommitNumber, StorageError> {
        core.flush_and_sync()?;
        self.unsynced_bytes = 0;
        if std::mem::take(&mut self.blobs_possible) {
            core.check_for_blobs()?;
        }
        core.log_mut().synced(self.commit);
        core.dirty.lock().unwrap_or_else(PoisonError::into_inner).hashes.clear();
        Ok(self.commit)
    }

    fn write(&mut self, core: &Core, tally: &mut Group<'_>, write: Write<'_>) -> Result<(), StorageError> {
        match write {
            Write::Record(record) => return self.write_record(core, tally, &record),
            Write::Truncation { partition, namespace, stamp } => {
                let key = schema::truncation_key(partition, namespace);
                schema::encode_truncation(&mut self.value, &key, &stamp);
                self.insert(core, &core.meta, &key)?;
                let mut truncations = core.truncations.write().unwrap_or_else(PoisonError::into_inner);
                truncations.insert((partition, namespace), stamp);
                drop(truncations);
                tally.truncated(partition, namespace, stamp);
            }
            Write::Peer(node, memory) => {
                let key = schema::peer_key(node);
                let known = match core.meta.get(key).map_err(engine)? {
                    Some(stored) => Some(schema::decode_peer(&key, &stored)?.1),
                    None => None,
                };
                schema::encode_peer(&mut self.value, &key, &memory.after(known));
                self.insert(core, &core.meta, &key)?;
            }
            Write::Claim { partition, op, claim, until } => self.write_claim(core, partition, op, claim, until)?,
            Write::ClaimRemoved { partition, op, until } => {
                core.remove_claim(partition, op)?;
                remove(&core.claims, &schema::until_key(partition, until, op))?;
            }
            Write::Checkpoint { partition, vector, horizon } => self.checkpoint(core, partition, &vector, horizon)?,
            Write::Expiry(key) => {
                schema::encode_mark(&mut self.value, Tree::Expiries, &key);
                self.insert(core, &core.expiries, &key)?;
            }
            Write::ExpirySettled(key) => remove(&core.expiries, &key)?,
            Write::EntryRemoved(commit) => core.remove_log_entry(commit)?,
        }
        Ok(())
    }

    fn write_record(
        &mut self,
        core: &Core,
        tally: &mut Group<'_>,
        write: &RecordWrite<'_>,
    ) -> Result<(), StorageError> {
        if !write.chunks.is_empty() || !write.unchunked.is_empty() {
            let new = write.chunks.iter().map(|(stamp, value)| (*stamp, value.len()));
            let versions = new.chain(write.unchunked.iter().copied()).collect();
            let unfinished = Unfinished { record_key: write.record_key.to_vec(), versions };
            unfinished.encode(&mut self.value);
            self.insert(core, &core.meta, schema::UNFINISHED_KEY)?;
        }
        for (stamp, value) in &write.chunks {
            self.insert_chunks(core, &write.record_key, stamp, value)?;
        }
        match &write.known {
            Some(known) => {
                let long_key = known.long_key.as_deref();
                schema::encode_record(&mut self.value, &write.record_key, long_key, &known.record);
                self.insert(core, &core.records, &write.record_key)?;
            }
            None => remove(&core.records, &write.record_key)?,
        }
        for (stamp, bytes) in &write.unchunked {
            core.remove_chunks(&write.record_key, stamp, *bytes)?;
        }
        if let Some(newest) = write.newest {
            tally.replaced(write.partition, write.namespace, newest, write.was_live, write.is_live);
        }
        Ok(())
    }

    fn insert_chunks(
        &mut self,
        core: &Core,
        record_key: &[u8],
        stamp: &Stamp,
        value: &[u8],
    ) -> Result<(), StorageError> {
        for (index, piece) in value.chunks(limits::VALUE_CHUNK_BYTES).enumerate() {
            let index = u32::try_from(index).expect("values are far below 4 GiB");
            let chunk_key = schema::chunk_key(record_key, stamp, index);
            schema::encode_chunk(&mut self.value, &chunk_key, record_key, piece);
            self.insert(core, &core.chunks, &chunk_key)?;
        }
        Ok(())
    }

    /// When it may be forgotten first, the first piece last: without that there is no claim.
    fn write_claim(
        &mut self,
        core: &Core,
        partition: Partition,
        op: OpId,
        claim: &Claim,
        until: WallTime,
    ) -> Result<(), StorageError> {
        let key = schema::until_key(partition, until, op);
        schema::encode_mark(&mut self.value, Tree::Claims, &key);
        self.insert(core, &core.claims, &key)?;
        let bytes = schema::claim_bytes(claim, until);
        let pieces = schema::claim_pieces(bytes.len());
        for (index, piece) in (0..pieces).zip(bytes.chunks(limits::VALUE_CHUNK_BYTES)).rev() {
            let key = schema::claim_key(partition, op, index);
            schema::encode_claim_piece(&mut self.value, &key, pieces, piece);
            self.insert(core, &core.claims, &key)?;
        }
        Ok(())
    }

    fn checkpoint(
        &mut self,
        core: &Core,
        partition: Partition,
        vector: &VersionVector,
        horizon: Timestamp,
    ) -> Result<(), StorageError> {
        for (actor, counters) in vector.actors() {
            // So many that they do not fit into one value: its log entries are kept instead.
            if counters.ranges().len() > limits::CHECKPOINT_RANGES {
                continue;
            }
            let count = counters.count();
            // Dots are only ever added, so as many are the same.
            if self.checkpointed.insert((partition, actor), count) != Some(count) {
                let key = schema::counters_key(partition, actor);
                schema::encode_counters(&mut self.value, &key, counters);
                self.insert(core, &core.meta, &key)?;
            }
        }
        let key = schema::horizon_key(partition);
        schema::encode_horizon(&mut self.value, &key, horizon);
        self.insert(core, &core.meta, &key)
    }

    /// Writes what was just encoded.
    fn insert(&mut self, core: &Core, tree: &::sled::Tree, key: &[u8]) -> Result<(), StorageError> {
        let value = std::mem::take(&mut self.value);
        let inserted = self.insert_bytes(core, tree, key, &value);
        self.value = value;
        inserted
    }

    /// Keeps account of what sled is given, and syncs when that is much.
    fn insert_bytes(&mut self, core: &Core, tree: &::sled::Tree, key: &[u8], value: &[u8]) -> Result<(), StorageError> {
        self.blobs_possible |= value.len() >= CHECK_FOR_BLOBS_BYTES;
        self.unsynced_bytes += value.len();
        if self.unsynced_bytes > UNSYNCED_BYTES {
            core.flush_and_sync()?;
            self.unsynced_bytes = 0;
        }
        operation()?;
        tree.insert(key, value).map_err(engine)?;
        Ok(())
    }
}

impl Core {
    /// Notes what is about to be written.
    fn soil(&self, writes: &[Write<'_>]) {
        let mut dirty = self.dirty.lock().unwrap_or_else(PoisonError::into_inner);
        for write in writes {
            match write {
                Write::Record(write) => drop(dirty.hashes.insert(hash(&write.record_key))),
                Write::Truncation { partition, namespace, .. } => {
                    dirty.hashes.insert(hash(&schema::truncation_key(*partition, *namespace)));
                }
                _ => {}
            }
        }
    }

    /// Both halves of a sync: sled's buffers into the file, and the file onto the disk.
    pub(super) fn flush_and_sync(&self) -> Result<(), StorageError> {
        self.records.flush().map_err(engine)?;
        // A raw system call, so that no preloaded library can turn it into nothing.
        rustix::fs::fdatasync(&self.file)
            .map_err(|error| StorageError::file(&self.data_directory.join("db"), "fdatasync")(error.into()))
    }

    /// sled's files for large values are never synced, so there must be none.
    pub(super) fn check_for_blobs(&self) -> Result<(), StorageError> {
        let blobs = self.data_directory.join("blobs");
        let mut entries = fs::read_dir(&blobs).map_err(StorageError::file(&blobs, "list"))?;
        match entries.next() {
            None => Ok(()),
            Some(_) => {
                Err(StorageError::Engine(format!("{} is not empty: those files are not synced", blobs.display())))
            }
        }
    }

    /// Removes the pieces of a value.
    pub(super) fn remove_chunks(&self, record_key: &[u8], stamp: &Stamp, bytes: usize) -> Result<(), StorageError> {
        for index in 0..schema::chunk_count(bytes) {
            remove(&self.chunks, &schema::chunk_key(record_key, stamp, index))?;
        }
        Ok(())
    }

    /// Removes every piece of a log entry.
    pub(super) fn remove_log_entry(&self, commit: CommitNumber) -> Result<(), StorageError> {
        remove_all(&self.log_entries, self.log_pieces(commit))
    }

    /// What an op-id stands for and until when, if anything.
    pub(super) fn claim(&self, partition: Partition, op: OpId) -> Result<Option<(Claim, WallTime)>, StorageError> {
        let first_key = schema::claim_key(partition, op, 0);
        let Some(stored) = self.claims.get(first_key).map_err(engine)? else { return Ok(None) };
        let (pieces, first) = schema::decode_claim_piece(&first_key, &stored)?;
        let mut bytes = first.to_vec();
        for index in 1..pieces {
            let key = schema::claim_key(partition, op, index);
            let stored = self.claims.get(key).map_err(engine)?;
            let stored = stored.ok_or_else(|| Tree::Claims.corrupt(&key, "piece of a claim missing"))?;
            bytes.extend_from_slice(schema::decode_claim_piece(&key, &stored)?.1);
        }
        schema::claim_from_bytes(&first_key, &bytes).map(Some)
    }

    fn remove_claim(&self, partition: Partition, op: OpId) -> Result<(), StorageError> {
        let first_key = schema::claim_key(partition, op, 0);
        let without_piece = &first_key[..first_key.len() - 2];
        remove_all(&self.claims, self.claims.scan_prefix(without_piece))
    }
}

fn remove_all(tree: &::sled::Tree, items: ::sled::Iter) -> Result<(), StorageError> {
    for key in items.keys() {
        remove(tree, &key.map_err(engine)?)?;
    }
    Ok(())
}
