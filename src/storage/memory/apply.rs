//! How the model applies a group.

use crate::types::{
    Applied, CommitNumber, Key, Mutation, NodeId, Partition, PeerMemory, PulledItem, Record, SeededBug, Stamp,
    Timestamp, Version, VersionVector, WallTime, limits,
};

use super::super::log::Log;
use super::super::log::Place as LogPlace;
use super::super::verdict::{Circumstances, Verdict, merged, unseen, verdict, without};
use super::State;
use super::disk::{Cell, Checkpoint, Commit, LogItem, Place, Target, place};

/// A group on its way.
struct Group {
    commit: CommitNumber,
    items: Vec<LogItem>,
}

impl State {
    /// See [`crate::storage::Storage::apply`].
    pub(super) fn apply(&mut self, group: &[Mutation], clock: Timestamp) -> Vec<Applied> {
        let begin = self.unsynced.len();
        let before = self.disk.commit;
        let mut under_way = Group { commit: before.number.next(), items: Vec::new() };
        let applied = group.iter().map(|mutation| self.apply_one(mutation, &mut under_way)).collect();
        if !under_way.items.is_empty() {
            // The entry is on its way to the disk before any of the records.
            let entry = self.disk.put(Cell::Log(under_way.commit, Some(under_way.items)));
            self.unsynced.insert(begin, entry);
        }
        self.write(Cell::Commit(Commit { number: under_way.commit, clock: before.clock.max(clock) }));
        applied
    }

    fn write(&mut self, cell: Cell) {
        match &cell {
            Cell::Record(place, _) => drop(self.dirty.insert(place.clone())),
            Cell::Truncation(place, _) => drop(self.dirty_truncations.insert(*place)),
            _ => {}
        }
        let before = self.disk.put(cell);
        self.unsynced.push(before);
    }

    fn apply_one(&mut self, mutation: &Mutation, group: &mut Group) -> Applied {
        match mutation {
            Mutation::Record { partition, key, record } => {
                let horizon = Some(self.log.horizon(*partition));
                self.apply_record(*partition, key, record, horizon, group)
            }
            Mutation::Truncate { partition, namespace, stamp } => {
                let place = (*partition, *namespace);
                let held = self.disk.truncations.get(&place).copied();
                self.cover(*partition, *stamp, Target::Namespace(*namespace), false, group);
                match held {
                    Some(by) if *stamp < by => return Applied::Superseded { by },
                    Some(same) if *stamp == same => {}
                    _ => self.write(Cell::Truncation(place, Some(*stamp))),
                }
                Applied::Stored
            }
            Mutation::Absorb { partition, pulled, horizon } => {
                let present = self.log.horizon(*partition);
                if present != *horizon {
                    return Applied::Behind { horizon: present };
                }
                for item in &pulled.items {
                    self.absorb(*partition, item, group);
                }
                Applied::Stored
            }
            Mutation::Collect { partition, stable, expired_before, witnesses } => {
                witnesses.iter().for_each(|(node, memory)| self.remember(*node, *memory));
                self.collect(*partition, stable, *expired_before);
                Applied::Stored
            }
            Mutation::Remember { node, memory } => {
                self.remember(*node, *memory);
                Applied::Stored
            }
            Mutation::Claim { partition, op, claim, until } => {
                let name = (*partition, *op);
                if let Some((noted, _)) = self.disk.claims.get(&name) {
                    return Applied::Noted(Box::new(noted.clone()));
                }
                self.write(Cell::Claim(name, Some((claim.clone(), *until))));
                Applied::Noted(Box::new(claim.clone()))
            }
            Mutation::Barrier => Applied::Stored,
        }
    }

    fn apply_record(
        &mut self,
        partition: Partition,
        key: &Key,
        record: &Record,
        horizon: Option<Timestamp>,
        group: &mut Group,
    ) -> Applied {
        let place = place(partition, key);
        let present = self.disk.records.get(&place).cloned();
        let digest = present.as_ref().map(Record::digest);
        let vector = self.log.applied(partition);
        let verdict = verdict(
            record,
            &Circumstances {
                vector,
                horizon,
                present: digest.as_ref(),
                truncation: self.disk.truncations.get(&(partition, key.namespace())).copied(),
            },
        );
        let new: Vec<(Stamp, bool)> = unseen(vector, record)
            .map(|stamp| {
                let version = record.versions().iter().find(|version| version.stamp == stamp);
                (stamp, version.is_some_and(|version| !version.is_value()))
            })
            .collect();
        match verdict {
            Verdict::Known => return Applied::Stored,
            Verdict::Behind(horizon) => return Applied::Behind { horizon },
            Verdict::Superseded(_) => self.discarded += new.len() as u64,
            Verdict::Merge { changes: false } => {}
            Verdict::Merge { changes: true } => {
                let merged = merged(vector, present, record.clone());
                for version in merged.versions() {
                    if let Some(at) = version.expires_at {
                        self.write(Cell::Expiry((partition, at, place.clone()), true));
                    }
                }
                self.write(Cell::Record(place.clone(), Some(merged)));
            }
        }
        for (stamp, tombstone) in new {
            self.cover(partition, stamp, Target::Key(place.clone()), tombstone, group);
        }
        match verdict {
            Verdict::Superseded(by) => Applied::Superseded { by },
            _ => Applied::Stored,
        }
    }

    fn remember(&mut self, node: NodeId, memory: PeerMemory) {
        let memory = memory.after(self.disk.peers.get(&node).copied());
        self.write(Cell::Peer(node, Some(memory)));
    }

    /// A dot is covered from now on, and this is what it wrote to.
    fn cover(&mut self, partition: Partition, stamp: Stamp, target: Target, tombstone: bool, group: &mut Group) {
        if self.log.applied(partition).covers(stamp.dot) {
            return;
        }
        group.items.push(LogItem { partition, stamp, target, tombstone });
        self.log.note(partition, stamp.dot, LogPlace { commit: group.commit, tombstone });
    }

    fn absorb(&mut self, partition: Partition, item: &PulledItem, group: &mut Group) {
        match item {
            PulledItem::Truncation { namespace, stamp } => {
                self.apply_one(&Mutation::Truncate { partition, namespace: *namespace, stamp: *stamp }, group);
            }
            PulledItem::Record { dots, key, record } => {
                if let Some(record) = record {
                    self.apply_record(partition, key, record, None, group);
                }
                for stamp in dots {
                    self.cover(partition, *stamp, Target::Key(place(partition, key)), false, group);
                }
            }
        }
    }

    fn collect(&mut self, partition: Partition, stable: &VersionVector, expired_before: WallTime) {
        let stable = &self.log.collectable(partition, stable);
        let (released, emptied) = self.log.release(partition, stable, limits::RELEASED_DOTS);
        // Nothing goes before it is certain that it was seen, and up to where.
        let mut removals: Vec<(Place, Option<Record>)> = Vec::new();
        let mut newest = None;
        for (dot, at) in &released {
            if !at.tombstone || SeededBug::LogTruncatedEarly.is_planted() {
                continue;
            }
            let items = self.disk.log.get(&at.commit).expect("the index has only entries that are there");
            let item = items.iter().find(|item| item.partition == partition && item.stamp.dot == *dot);
            let Some(Target::Key(place)) = item.map(|item| &item.target) else { continue };
            let gone = |version: &Version| version.stamp.dot == *dot && !version.is_value();
            self.let_go(place, gone, &mut removals, &mut newest);
        }
        let last = (partition, expired_before, last_place());
        let first = (partition, WallTime(0), first_place());
        let due: Vec<_> = self.disk.expiries.range(first..last).take(limits::RELEASED_DOTS).cloned().collect();
        let mut settled = Vec::new();
        for expiry in due {
            let (_, at, place) = &expiry;
            let gone = |version: &Version| version.expires_at == Some(*at) && stable.covers(version.stamp.dot);
            self.let_go(place, gone, &mut removals, &mut newest);
            // While somebody may not have it yet, it has to be looked at again.
            let waits = |version: &Version| version.expires_at == Some(*at) && !stable.covers(version.stamp.dot);
            let record = self.disk.records.get(place);
            if !record.is_some_and(|record| record.versions().iter().any(waits)) {
                settled.push(expiry);
            }
        }
        if !released.is_empty() || !removals.is_empty() {
            let horizon = Log::horizon_after(self.log.horizon(partition), newest);
            self.log.raise_horizon(partition, horizon);
            let vector = self.log.durable(partition).clone();
            self.write(Cell::Checkpoint(partition, Some(Checkpoint { vector, horizon })));
        }
        removals.into_iter().for_each(|(place, record)| self.write(Cell::Record(place, record)));
        settled.into_iter().for_each(|expiry| self.write(Cell::Expiry(expiry, false)));
        emptied.into_iter().for_each(|commit| self.write(Cell::Log(commit, None)));
        let old = self.disk.claims.range((partition, crate::types::OpId([0; 16]))..);
        let old = old.take_while(|((at, _), _)| *at == partition).filter(|(_, (_, until))| *until < expired_before);
        let old: Vec<_> = old.map(|(name, _)| *name).take(limits::RELEASED_DOTS).collect();
        old.into_iter().for_each(|name| self.write(Cell::Claim(name, None)));
    }

    /// Plans to remove versions of a record.
    fn let_go(
        &self,
        place: &Place,
        gone: impl Fn(&Version) -> bool,
        removals: &mut Vec<(Place, Option<Record>)>,
        newest: &mut Option<Timestamp>,
    ) {
        let planned = removals.iter().position(|(other, _)| other == place);
        let record = match planned {
            Some(at) => removals[at].1.clone(),
            None => self.disk.records.get(place).cloned(),
        };
        let Some((left, leaving)) = record.and_then(|record| without(record, gone)) else { return };
        *newest = (*newest).max(Some(leaving));
        match planned {
            Some(at) => removals[at].1 = left,
            None => removals.push((place.clone(), left)),
        }
    }
}

fn first_place() -> Place {
    (Partition(0), crate::types::Token(0), crate::types::NamespaceId(0), bytes::Bytes::new())
}

fn last_place() -> Place {
    (Partition(u16::MAX), crate::types::Token(u64::MAX), crate::types::NamespaceId(u16::MAX), bytes::Bytes::new())
}
