//! How the log comes back into memory when a store is opened.
//!
//! Problem: what was seen must be known for each write without asking the disk, and lies
//! there as checkpoints and log entries.
//! Invariant: a dot is restored if the checkpoint or a log entry has it, and a log entry
//! has it only if what it wrote is there. sled keeps a prefix of the operations, so only
//! the last group can be incomplete; its entry is cut down before it is believed.

use std::sync::PoisonError;

use crate::ambient;
use crate::types::{CommitNumber, Stamp, Timestamp, VersionVector};

use super::super::StorageError;
use super::super::log::Place;
use super::super::verdict::reflects;
use super::schema::{self, CommitEntry, LogItem, LogReader, StoredRecord, Target, Tree};
use super::write::Checkpointed;
use super::{Core, engine};

impl Core {
    /// The pieces of one entry.
    pub(super) fn log_pieces(&self, commit: CommitNumber) -> ::sled::Iter {
        self.log_entries.scan_prefix(commit.0.to_be_bytes())
    }

    /// A group that was cut in the middle keeps in its log entry what is really there.
    pub(super) fn cut_incomplete_group(&self, last: CommitEntry) -> Result<CommitEntry, StorageError> {
        let newest = match self.log_entries.last().map_err(engine)? {
            Some((key, _)) => schema::decode_log_key(&key)?,
            None => return Ok(last),
        };
        if newest <= last.commit {
            return Ok(last);
        }
        if newest != last.commit.next() {
            return Err(Tree::Log.corrupt(&newest.0.to_be_bytes(), "an entry far above the last commit"));
        }
        let mut kept = Vec::new();
        let mut cut = 0;
        for piece in self.log_pieces(newest) {
            let (key, stored) = piece.map_err(engine)?;
            for item in LogReader::new(&key, &stored)? {
                let item = item?.to_item();
                if self.is_there(&item)? {
                    kept.push(item);
                } else {
                    cut += 1;
                }
            }
        }
        tracing::info!(commit = newest.0, kept = kept.len(), cut, "the last group was incomplete");
        // Fewer items take no more pieces, and any of the old ones is only longer: after a
        // crash in between, the entry is cut again.
        let pieces = schema::encode_log_entry(newest, &kept);
        for (key, piece) in &pieces {
            self.log_entries.insert(key, piece.as_slice()).map_err(engine)?;
        }
        for piece in self.log_pieces(newest).keys().skip(pieces.len()) {
            self.log_entries.remove(piece.map_err(engine)?).map_err(engine)?;
        }
        let clock = kept.iter().map(|item| item.stamp.timestamp).max().unwrap_or_default();
        let entry = CommitEntry { commit: newest, clock: last.clock.max(clock), ..last };
        let mut value = Vec::new();
        entry.encode(&mut value);
        self.meta.insert(schema::COMMIT_KEY, value.as_slice()).map_err(engine)?;
        Ok(entry)
    }

    fn is_there(&self, item: &LogItem) -> Result<bool, StorageError> {
        Ok(match &item.target {
            Target::Record(record_key) => match self.records.get(record_key).map_err(engine)? {
                Some(stored) => reflects(&StoredRecord::decode(record_key, &stored)?.record, item.stamp),
                None => false,
            },
            Target::Namespace(namespace) => {
                let truncations = self.truncations.read().unwrap_or_else(PoisonError::into_inner);
                let truncated: Option<&Stamp> = truncations.get(&(item.partition, *namespace));
                truncated.is_some_and(|stamp| *stamp >= item.stamp)
            }
        })
    }

    /// Reads checkpoints and log entries; how many dots each checkpoint has.
    pub(super) fn restore_log(&self, commit: CommitNumber) -> Result<Checkpointed, StorageError> {
        let begun = ambient::moment();
        let mut log = self.log_mut();
        let mut checkpointed = Checkpointed::new();
        for item in self.meta.scan_prefix(schema::COUNTERS_PREFIX) {
            let (key, stored) = item.map_err(engine)?;
            let (partition, actor, ranges) = schema::decode_counters(&key, &stored)?;
            let mut vector = VersionVector::default();
            ranges.into_iter().for_each(|(from, to)| vector.insert_range(actor, from, to));
            checkpointed.insert((partition, actor), vector.count());
            log.restore(partition, &vector, Timestamp::default());
        }
        for item in self.meta.scan_prefix(schema::HORIZON_PREFIX) {
            let (key, stored) = item.map_err(engine)?;
            let (partition, horizon) = schema::decode_horizon(&key, &stored)?;
            log.restore(partition, &VersionVector::empty(), horizon);
        }
        let mut entries = 0u64;
        for item in self.log_entries.iter() {
            let (key, stored) = item.map_err(engine)?;
            let commit = schema::decode_log_key(&key)?;
            entries += 1;
            for item in LogReader::new(&key, &stored)? {
                let item = item?;
                log.note(item.partition, item.stamp.dot, Place { commit, tombstone: item.tombstone });
            }
        }
        log.opened(commit);
        let took_ms = ambient::moment().since(begun).as_millis() as u64;
        tracing::info!(entries, mutations = log.length(), took_ms, "read the write log");
        Ok(checkpointed)
    }
}
