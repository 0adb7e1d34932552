//! How a store is read, beside the thread that writes it.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::sync::PoisonError;

use bytes::Bytes;

use crate::types::{
    Content, Digest, Key, NamespaceId, Partition, Record, ScanEntry, ScanRange, ScanResult, Stamp, Token, Version,
    limits,
};

use super::super::verdict::outlived;
use super::super::{Held, SCAN_EXAMINED_KEYS, StorageError};
use super::plan::{counts_as_live, digest};
use super::schema::{self, Body, Cell, RecordKeyParts, StoredRecord, Tree};
use super::tally::{Count, Counts};
use super::{Core, engine};

/// After this many keys the count asks whether it shall stop.
const COUNT_STEP: usize = 1_024;

impl Core {
    /// See [`super::super::Storage::read`].
    pub(super) fn read(&self, partition: Partition, key: &Key) -> Result<Held<Record>, StorageError> {
        let record_key = self.record_key(partition, key);
        let found = self.read_visible(&record_key, true)?;
        if let Some((long_key, _)) = &found {
            check_long_key(&record_key, long_key.as_deref(), key)?;
        }
        // Only now, so that what was read was written before this is looked at.
        let durable = !self.is_dirty(partition, key, &record_key);
        Ok(Held { what: found.map(|(_, record)| record), durable })
    }

    /// The record under a record's key, whatever was truncated, with the key if it is long.
    pub(super) fn read_stored(&self, record_key: &[u8]) -> Result<Option<(Option<Bytes>, Record)>, StorageError> {
        self.read_visible(record_key, false)
    }

    fn read_visible(
        &self,
        record_key: &[u8],
        truncated: bool,
    ) -> Result<Option<(Option<Bytes>, Record)>, StorageError> {
        let parts = RecordKeyParts::decode(record_key)?;
        loop {
            let Some(stored) = self.records.get(record_key).map_err(engine)? else { return Ok(None) };
            let StoredRecord { long_key, record } = StoredRecord::decode(record_key, &stored)?;
            let truncation = if truncated { self.truncation(parts.partition, parts.namespace) } else { None };
            let mut failed = None;
            let record = schema::map_record(outlived(record, truncation, Cell::of_truncation), |cell| {
                let content = match cell.body {
                    Body::Tombstone => Content::Tombstone,
                    Body::Inline(value) => Content::Value(Bytes::copy_from_slice(&value)),
                    Body::Chunked(_) if failed.is_some() => Content::Tombstone,
                    Body::Chunked(bytes) => match self.read_chunks(record_key, &cell.stamp, bytes) {
                        Ok(value) => Content::Value(value),
                        Err(error) => {
                            failed = Some(error);
                            Content::Tombstone
                        }
                    },
                };
                Version { stamp: cell.stamp, expires_at: cell.expires_at, content }
            });
            match failed {
                None => return Ok(Some((long_key.map(Bytes::copy_from_slice), record))),
                // The pieces go when the record is replaced: look again if it was.
                Some(_) if self.records.get(record_key).map_err(engine)?.as_ref() != Some(&stored) => {}
                Some(error) => return Err(error),
            }
        }
    }

    fn record_key(&self, partition: Partition, key: &Key) -> Vec<u8> {
        let mut record_key = Vec::with_capacity(schema::RECORD_PREFIX_BYTES + key.bytes().len());
        schema::record_key(&mut record_key, partition, key);
        record_key
    }

    fn is_dirty(&self, partition: Partition, key: &Key, record_key: &[u8]) -> bool {
        let dirty = self.dirty.lock().unwrap_or_else(PoisonError::into_inner);
        dirty.has_record(record_key) || dirty.has_truncation(partition, key.namespace())
    }

    fn read_chunks(&self, record_key: &[u8], stamp: &Stamp, bytes: usize) -> Result<Bytes, StorageError> {
        let mut value = Vec::with_capacity(bytes);
        for index in 0..schema::chunk_count(bytes) {
            let chunk_key = schema::chunk_key(record_key, stamp, index);
            let stored = self.chunks.get(chunk_key).map_err(engine)?;
            let stored = stored.ok_or_else(|| Tree::Chunks.corrupt(&chunk_key, "piece of a value missing"))?;
            value.extend_from_slice(schema::decode_chunk(&chunk_key, record_key, &stored)?);
        }
        if value.len() != bytes {
            return Err(Tree::Chunks.corrupt(record_key, "value of another length"));
        }
        Ok(value.into())
    }

    /// See [`super::super::Storage::head`].
    pub(super) fn head(&self, partition: Partition, key: &Key) -> Result<Held<Digest>, StorageError> {
        let record_key = self.record_key(partition, key);
        let what = match self.records.get(&record_key).map_err(engine)? {
            None => None,
            Some(stored) => {
                let StoredRecord { long_key, record } = StoredRecord::decode(&record_key, &stored)?;
                check_long_key(&record_key, long_key, key)?;
                let truncation = self.truncation(partition, key.namespace());
                Some(digest(&outlived(record, truncation, Cell::of_truncation)))
            }
        };
        Ok(Held { what, durable: !self.is_dirty(partition, key, &record_key) })
    }

    /// See [`super::super::Storage::scan`].
    pub(super) fn scan(&self, range: ScanRange) -> Result<ScanResult, StorageError> {
        let truncation = self.truncation(range.partition, range.namespace);
        let limit = range.limit.clamp(1, limits::SCAN_PAGE_ENTRIES) as usize;
        let mut entries: Vec<ScanEntry> = Vec::new();
        let mut bytes = 0;
        let mut group = Group { token: Token(0), begin: 0, unsorted: false };
        for (examined, item) in self.records_from(range.partition, range.from).enumerate() {
            let (record_key, stored) = item.map_err(engine)?;
            let parts = RecordKeyParts::decode(&record_key)?;
            if examined > 0 && parts.token != group.token {
                group.close(&mut entries);
                if entries.len() >= limit || bytes >= limits::SCAN_PAGE_BYTES || examined >= SCAN_EXAMINED_KEYS {
                    return Ok(ScanResult { entries, next: Some(parts.token) });
                }
                group.begin = entries.len();
            }
            group.token = parts.token;
            if parts.namespace != range.namespace {
                continue;
            }
            let StoredRecord { long_key, record } = StoredRecord::decode(&record_key, &stored)?;
            let key = long_key.unwrap_or(parts.rest);
            group.unsorted |= long_key.is_some();
            bytes += key.len();
            let digest = digest(&outlived(record, truncation, Cell::of_truncation));
            entries.push(ScanEntry { key: Bytes::copy_from_slice(key), digest });
        }
        group.close(&mut entries);
        Ok(ScanResult { entries, next: None })
    }

    fn records_from(&self, partition: Partition, from: Token) -> ::sled::Iter {
        let first = schema::first_record_key(partition, from.max(self.partitions.first_token(partition)));
        match partition.0.checked_add(1) {
            Some(next) => self.records.range(first.as_slice()..next.to_be_bytes().as_slice()),
            None => self.records.range(first.as_slice()..),
        }
    }

    /// Counts the keys of a partition; none if the store is being closed meanwhile.
    pub(super) fn count(&self, partition: Partition) -> Result<Option<Counts>, StorageError> {
        let mut counts = Counts::new();
        for (index, item) in self.records_from(partition, Token(0)).enumerate() {
            if index % COUNT_STEP == 0 && self.tally.is_stopped() {
                return Ok(None);
            }
            let (record_key, stored) = item.map_err(engine)?;
            let namespace = RecordKeyParts::decode(&record_key)?.namespace;
            let record = StoredRecord::decode(&record_key, &stored)?.record;
            let live = counts_as_live(&record, self.truncation(partition, namespace));
            if let Some(newest) = record.newest_stamp() {
                Count::add(&mut counts, namespace, newest, live);
            }
        }
        Ok(Some(counts))
    }

    /// What the files take, holes not counted.
    pub(super) fn disk_bytes(&self) -> std::io::Result<u64> {
        const BLOCK_BYTES: u64 = 512;
        let mut blocks = 0;
        for entry in fs::read_dir(&self.data_directory)? {
            blocks += entry?.metadata()?.blocks();
        }
        Ok(blocks * BLOCK_BYTES)
    }
}

/// The entries of a page that share a token.
struct Group {
    token: Token,
    begin: usize,
    unsorted: bool,
}

impl Group {
    /// Puts them in the order of their bytes; long keys are stored in another.
    fn close(&mut self, entries: &mut [ScanEntry]) {
        if std::mem::take(&mut self.unsorted) {
            entries[self.begin..].sort_by(|one, other| one.key.cmp(&other.key));
        }
    }
}

fn check_long_key(record_key: &[u8], long_key: Option<&[u8]>, key: &Key) -> Result<(), StorageError> {
    match long_key == schema::long_key(key.bytes()) {
        true => Ok(()),
        false => Err(Tree::Records.corrupt(record_key, "another long key")),
    }
}

/// Where a namespace was truncated, as it is kept in memory.
pub(super) type Truncations = std::collections::BTreeMap<(Partition, NamespaceId), Stamp>;
