//! How a store is read, beside the thread that writes it.

use std::fs;
use std::os::unix::fs::MetadataExt;

use bytes::Bytes;

use crate::types::{
    Content, Key, NamespaceId, Partition, ScanEntry, ScanRange, ScanResult, Stamp, Summary, Token, Version, limits,
};

use super::super::{SCAN_EXAMINED_KEYS, StorageError};
use super::schema::{self, Body, Record, RecordKeyParts, Tree};
use super::tally::{Count, Counts};
use super::{Core, engine};

/// After this many keys the count asks whether it shall stop.
const COUNT_STEP: usize = 1_024;

impl Core {
    /// See [`super::super::Storage::read`].
    pub(super) fn read(&self, partition: Partition, key: &Key) -> Result<Option<Version>, StorageError> {
        let mut record_key = Vec::with_capacity(schema::RECORD_PREFIX_BYTES + key.bytes().len());
        schema::record_key(&mut record_key, partition, key);
        loop {
            let Some(stored) = self.records.get(&record_key).map_err(engine)? else { return Ok(None) };
            let record = decode_as(&record_key, key, &stored)?;
            if let Some(stamp) = self.truncation(partition, key.namespace()).filter(|stamp| record.stamp <= *stamp) {
                return Ok(Some(Version { stamp, expires_at: None, content: Content::Tombstone }));
            }
            let content = match record.body {
                Body::Tombstone => Content::Tombstone,
                Body::Inline(value) => Content::Value(Bytes::copy_from_slice(value)),
                Body::Chunked(bytes) => match self.read_chunks(&record_key, &record.stamp, bytes) {
                    Ok(value) => Content::Value(value),
                    // The pieces go when the record is replaced: look again if it was.
                    Err(_) if self.records.get(&record_key).map_err(engine)?.as_ref() != Some(&stored) => continue,
                    Err(error) => return Err(error),
                },
            };
            return Ok(Some(Version { stamp: record.stamp, expires_at: record.expires_at, content }));
        }
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
    pub(super) fn head(&self, partition: Partition, key: &Key) -> Result<Option<Summary>, StorageError> {
        let mut record_key = Vec::with_capacity(schema::RECORD_PREFIX_BYTES + key.bytes().len());
        schema::record_key(&mut record_key, partition, key);
        let Some(stored) = self.records.get(&record_key).map_err(engine)? else { return Ok(None) };
        let summary = decode_as(&record_key, key, &stored)?.summary();
        Ok(Some(outranked(summary, self.truncation(partition, key.namespace()))))
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
            let record = Record::decode(&record_key, &stored)?;
            let key = record.long_key.unwrap_or(parts.rest);
            group.unsorted |= record.long_key.is_some();
            bytes += key.len();
            let summary = outranked(record.summary(), truncation);
            entries.push(ScanEntry { key: Bytes::copy_from_slice(key), summary });
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
            let record = Record::decode(&record_key, &stored)?;
            let truncated = self.truncation(partition, namespace).is_some_and(|stamp| record.stamp <= stamp);
            Count::add(&mut counts, namespace, record.stamp, record.body != Body::Tombstone && !truncated);
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

fn decode_as<'a>(record_key: &[u8], key: &Key, stored: &'a [u8]) -> Result<Record<'a>, StorageError> {
    let record = Record::decode(record_key, stored)?;
    match record.long_key {
        Some(long_key) if long_key != key.bytes() => Err(Tree::Records.corrupt(record_key, "another long key")),
        _ => Ok(record),
    }
}

/// A version, or the truncation that covers it.
fn outranked(summary: Summary, truncation: Option<Stamp>) -> Summary {
    match truncation {
        Some(stamp) if summary.stamp <= stamp => Summary { stamp, expires_at: None, value_bytes: None },
        _ => summary,
    }
}

/// Where a namespace was truncated, as it is kept in memory.
pub(super) type Truncations = std::collections::BTreeMap<(Partition, NamespaceId), Stamp>;
