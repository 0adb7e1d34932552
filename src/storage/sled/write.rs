//! How a group is applied and made durable.

use std::fs;
use std::sync::PoisonError;

use crate::types::{
    Applied, CommitNumber, Content, Key, Mutation, NamespaceId, Partition, Stamp, Timestamp, Version, limits,
};

use super::super::StorageError;
use super::schema::{self, Body, CommitEntry, Record, Unfinished};
use super::tally::Group;
use super::{Core, engine};

/// After this many bytes without a sync there is one in the middle of a group. sled
/// reuses a segment once two more were written after the one that replaced it, whether
/// or not they were synced; with this little between syncs, they were.
const UNSYNCED_BYTES: usize = 2 * limits::SLED_SEGMENT_BYTES / 16;
/// Groups with values of this length on are checked not to have made a blob file.
const CHECK_FOR_BLOBS_BYTES: usize = 16 * 1024;

/// What the one thread that applies keeps between groups.
#[derive(Debug, Default)]
pub(super) struct Writer {
    commit: CommitNumber,
    clock: Timestamp,
    key: Vec<u8>,
    value: Vec<u8>,
    unsynced_bytes: usize,
    blobs_possible: bool,
}

/// What a mutation replaces.
struct Present {
    stamp: Stamp,
    is_value: bool,
    chunked_bytes: Option<usize>,
}

impl Writer {
    pub(super) fn new(last: CommitEntry) -> Writer {
        Writer { commit: last.commit, clock: last.clock, ..Writer::default() }
    }

    /// See [`super::super::Storage::apply`].
    pub(super) fn apply(
        &mut self,
        core: &Core,
        group: &[Mutation],
        clock: Timestamp,
    ) -> Result<Vec<Applied>, StorageError> {
        let mut tally = core.tally.begin_group();
        let mut results = Vec::with_capacity(group.len());
        for mutation in group {
            results.push(match mutation {
                Mutation::Record { partition, key, version } => {
                    self.apply_record(core, &mut tally, *partition, key, version)?
                }
                Mutation::Truncate { partition, namespace, stamp } => {
                    self.apply_truncation(core, &mut tally, *partition, *namespace, *stamp)?
                }
                Mutation::Barrier => Applied::Stored,
            });
        }
        // Last, so that a store that has the entry has the whole group.
        self.commit = self.commit.next();
        self.clock = self.clock.max(clock);
        let entry = CommitEntry { commit: self.commit, clock: self.clock, live_keys: tally.total() };
        entry.encode(&mut self.value);
        core.meta.insert(schema::COMMIT_KEY, self.value.as_slice()).map_err(engine)?;
        Ok(results)
    }

    /// See [`super::super::Storage::sync`].
    pub(super) fn sync(&mut self, core: &Core) -> Result<CommitNumber, StorageError> {
        core.flush_and_sync()?;
        self.unsynced_bytes = 0;
        if std::mem::take(&mut self.blobs_possible) {
            core.check_for_blobs()?;
        }
        Ok(self.commit)
    }

    fn apply_record(
        &mut self,
        core: &Core,
        tally: &mut Group<'_>,
        partition: Partition,
        key: &Key,
        version: &Version,
    ) -> Result<Applied, StorageError> {
        schema::record_key(&mut self.key, partition, key);
        let present = match core.records.get(&self.key).map_err(engine)? {
            None => None,
            Some(stored) => {
                let record = Record::decode(&self.key, &stored)?;
                let chunked_bytes = if let Body::Chunked(bytes) = record.body { Some(bytes) } else { None };
                Some(Present { stamp: record.stamp, is_value: record.body != Body::Tombstone, chunked_bytes })
            }
        };
        let truncation = core.truncation(partition, key.namespace());
        if let Some(newest) = present.as_ref().map(|present| present.stamp).max(truncation) {
            if version.stamp < newest || Some(version.stamp) == truncation {
                return Ok(Applied::Superseded { by: newest });
            }
            if version.stamp == newest {
                return Ok(Applied::Stored);
            }
        }

        let chunked = match &version.content {
            Content::Value(value) if schema::is_chunked(key, value.len()) => Some(value),
            _ => None,
        };
        let replaced = present.as_ref().and_then(|present| Some((present.stamp, present.chunked_bytes?)));
        if chunked.is_some() || replaced.is_some() {
            let new = chunked.map(|value| (version.stamp, value.len()));
            let versions = new.into_iter().chain(replaced).collect();
            let unfinished = Unfinished { record_key: self.key.clone(), versions };
            unfinished.encode(&mut self.value);
            core.meta.insert(schema::UNFINISHED_KEY, self.value.as_slice()).map_err(engine)?;
        }
        if let Some(value) = chunked {
            self.insert_chunks(core, &version.stamp, value)?;
        }
        schema::encode_record(&mut self.value, &self.key, key, version);
        self.wrote(core, self.value.len())?;
        core.records.insert(&self.key, self.value.as_slice()).map_err(engine)?;
        if let Some((stamp, bytes)) = replaced {
            core.remove_chunks(&self.key, &stamp, bytes)?;
        }

        let was_live = present.is_some_and(|present| present.is_value && Some(present.stamp) > truncation);
        let is_live = matches!(version.content, Content::Value(_));
        tally.replaced(partition, key.namespace(), version.stamp, was_live, is_live);
        Ok(Applied::Stored)
    }

    fn insert_chunks(&mut self, core: &Core, stamp: &Stamp, value: &[u8]) -> Result<(), StorageError> {
        for (index, piece) in value.chunks(limits::VALUE_CHUNK_BYTES).enumerate() {
            let index = u32::try_from(index).expect("values are far below 4 GiB");
            let chunk_key = schema::chunk_key(&self.key, stamp, index);
            schema::encode_chunk(&mut self.value, &chunk_key, &self.key, piece);
            self.wrote(core, self.value.len())?;
            core.chunks.insert(chunk_key, self.value.as_slice()).map_err(engine)?;
        }
        Ok(())
    }

    /// Keeps account of what sled is given, and syncs when that is much.
    fn wrote(&mut self, core: &Core, bytes: usize) -> Result<(), StorageError> {
        self.blobs_possible |= bytes >= CHECK_FOR_BLOBS_BYTES;
        self.unsynced_bytes += bytes;
        if self.unsynced_bytes > UNSYNCED_BYTES {
            core.flush_and_sync()?;
            self.unsynced_bytes = 0;
        }
        Ok(())
    }

    fn apply_truncation(
        &mut self,
        core: &Core,
        tally: &mut Group<'_>,
        partition: Partition,
        namespace: NamespaceId,
        stamp: Stamp,
    ) -> Result<Applied, StorageError> {
        match core.truncation(partition, namespace) {
            Some(newer) if stamp < newer => return Ok(Applied::Superseded { by: newer }),
            Some(same) if stamp == same => return Ok(Applied::Stored),
            _ => {}
        }
        let key = schema::truncation_key(partition, namespace);
        schema::encode_truncation(&mut self.value, &key, &stamp);
        core.meta.insert(key, self.value.as_slice()).map_err(engine)?;
        let mut truncations = core.truncations.write().unwrap_or_else(PoisonError::into_inner);
        truncations.insert((partition, namespace), stamp);
        drop(truncations);
        tally.truncated(partition, namespace, stamp);
        Ok(Applied::Stored)
    }
}

impl Core {
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
            self.chunks.remove(schema::chunk_key(record_key, stamp, index)).map_err(engine)?;
        }
        Ok(())
    }
}
