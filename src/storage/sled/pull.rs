//! What the log is read for: what a peer lacks, and the history of a key.
//!
//! The index says in which entry a dot is; then each entry is read once. Meanwhile the
//! writer may let go of an entry, and what it had counts as lost then, as if it had been
//! asked for a moment later.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use bytes::Bytes;

use crate::types::{
    CommitNumber, Dot, Key, LocalHistory, LogPosition, Partition, Pulled, PulledItem, Stamp, VersionVector, limits,
};

use super::super::StorageError;
use super::super::log::Place;
use super::super::pull_room::PullRoom;
use super::schema::{self, LogReader, RecordKeyParts, Target, Tree};
use super::{Core, engine};

impl Core {
    /// See [`super::super::Storage::pull`].
    pub(super) fn pull(&self, partition: Partition, wanted: &VersionVector) -> Result<Pulled, StorageError> {
        let (found, lost) = self.log().find(partition, wanted, limits::PULL_DOTS);
        let mut logged = self.logged(partition, &found)?;
        let mut pulled = Pulled { items: Vec::new(), lost };
        let mut room = PullRoom::new();
        let mut by_key: HashMap<Bytes, usize> = HashMap::new();
        for (dot, place) in found {
            let Some((stamp, target)) = logged.remove(&dot) else {
                self.check_released(partition, dot, place)?;
                pulled.lost.insert(dot);
                continue;
            };
            let record_key = match target {
                Target::Namespace(namespace) => {
                    if room.takes_truncation() {
                        pulled.items.push(PulledItem::Truncation { namespace, stamp });
                    }
                    continue;
                }
                Target::Record(record_key) => record_key,
            };
            if let Some(at) = by_key.get(&record_key) {
                if let PulledItem::Record { dots, .. } = &mut pulled.items[*at]
                    && room.takes_dot()
                {
                    dots.push(stamp);
                }
                continue;
            }
            if room.is_closed() {
                continue;
            }
            let (key, record) = self.whole(&record_key)?;
            if room.takes_record(&key, record.as_ref()) {
                by_key.insert(record_key, pulled.items.len());
                pulled.items.push(PulledItem::Record { dots: vec![stamp], key, record });
            }
        }
        if !room.takes_lost() {
            pulled.lost = VersionVector::empty();
        }
        Ok(pulled)
    }

    /// What the log says of these dots.
    fn logged(
        &self,
        partition: Partition,
        found: &[(Dot, Place)],
    ) -> Result<HashMap<Dot, (Stamp, Target)>, StorageError> {
        let mut by_entry: BTreeMap<CommitNumber, BTreeSet<Dot>> = BTreeMap::new();
        for (dot, place) in found {
            by_entry.entry(place.commit).or_default().insert(*dot);
        }
        let mut logged = HashMap::with_capacity(found.len());
        for (commit, dots) in by_entry {
            for piece in self.log_pieces(commit) {
                let (key, stored) = piece.map_err(engine)?;
                for item in LogReader::new(&key, &stored)? {
                    let item = item?;
                    if item.partition == partition && dots.contains(&item.stamp.dot) {
                        logged.insert(item.stamp.dot, (item.stamp, item.target()));
                    }
                }
            }
        }
        Ok(logged)
    }

    /// An entry may only be missing once the index has let go of it.
    fn check_released(&self, partition: Partition, dot: Dot, place: Place) -> Result<(), StorageError> {
        let wanted = VersionVector::from_iter([dot]);
        let (found, _) = self.log().find(partition, &wanted, 1);
        match found.is_empty() {
            true => Ok(()),
            false => Err(Tree::Log.corrupt(&schema::log_key(place.commit, 0), "a mutation is missing")),
        }
    }

    /// The key and the record under a record's key. Where a long key's record is gone, what
    /// stands for the key there is returned: it names nothing else, and nothing is written under it.
    fn whole(&self, record_key: &[u8]) -> Result<(Key, Option<crate::types::Record>), StorageError> {
        let parts = RecordKeyParts::decode(record_key)?;
        let (long_key, record) = match self.read_stored(record_key)? {
            Some((long_key, record)) => (long_key, Some(record)),
            None => (None, None),
        };
        let bytes = long_key.unwrap_or_else(|| Bytes::copy_from_slice(parts.rest));
        let key = Key::new(parts.namespace, bytes);
        Ok((key.map_err(|_| Tree::Records.corrupt(record_key, "not a key"))?, record))
    }

    /// See [`super::super::Storage::history`].
    pub(super) fn history(&self, partition: Partition, key: &Key) -> Result<LocalHistory, StorageError> {
        let mut record_key = Vec::with_capacity(schema::RECORD_PREFIX_BYTES + key.bytes().len());
        schema::record_key(&mut record_key, partition, key);
        let target = Target::Record(record_key.into());
        let (places, coverage, commit) = {
            let log = self.log();
            (log.places(partition), log.coverage_of(partition), log.commit())
        };
        let mut positions: Vec<LogPosition> = Vec::new();
        // All that one entry has of the partition at once, the newest entry first.
        for entry in places.chunk_by(|(_, one), (_, other)| one.commit == other.commit) {
            if positions.len() > limits::HISTORY_POSITIONS {
                break;
            }
            let logged = self.logged(partition, entry)?;
            let about = entry.iter().filter_map(|(dot, place)| Some((place, logged.get(dot)?)));
            let about = about.filter(|(_, (_, its_target))| *its_target == target);
            positions.extend(about.map(|(place, (stamp, _))| LogPosition { commit: place.commit, stamp: *stamp }));
        }
        let more = positions.len() > limits::HISTORY_POSITIONS;
        positions.truncate(limits::HISTORY_POSITIONS);
        Ok(LocalHistory { digest: self.head(partition, key)?.what, log: positions, more, coverage, commit })
    }
}
