//! How log entries, tombstones and what has expired are let go of.
//!
//! Problem: a tombstone that goes too early lets the dead come back.
//! Invariant: only what is stable goes, and of that only what is durable here; and before
//! any of it goes, the checkpoint says that its dot was seen and how old what went was.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use bytes::Bytes;

use crate::types::{CommitNumber, Dot, Partition, Record, Stamped, Timestamp, VersionVector, WallTime, limits};

use super::super::StorageError;
use super::super::log::{Log, Place};
use super::super::verdict::without;
use super::plan::{Known, Plan, Planner, Write};
use super::schema::{self, Cell, LogReader, RecordKeyParts, Target};
use super::{Core, engine};

/// The records that one collection looks at, before and after it.
struct Removals<'g> {
    records: HashMap<Bytes, Looked<'g>>,
    /// Those that change, in the order in which that was found.
    changed: Vec<Bytes>,
    newest: Option<Timestamp>,
}

struct Looked<'g> {
    before: Option<Known<'g>>,
    after: Option<Known<'g>>,
    changed: bool,
}

impl<'g> Removals<'g> {
    /// Lets go of versions of a record; the record as it was before the collection.
    fn let_go(
        &mut self,
        core: &Core,
        plan: &Plan<'g>,
        record_key: &Bytes,
        gone: impl Fn(&Cell<'g>) -> bool,
    ) -> Result<Option<&Record<Cell<'g>>>, StorageError> {
        if !self.records.contains_key(record_key) {
            let before = plan.lookup(core, record_key, false)?;
            let looked = Looked { after: before.clone(), before, changed: false };
            self.records.insert(record_key.clone(), looked);
        }
        let looked = self.records.get_mut(record_key).expect("it was just looked at");
        if let Some(Known { long_key, record }) = looked.after.take() {
            match without(record.clone(), gone) {
                None => looked.after = Some(Known { long_key, record }),
                Some((left, newest)) => {
                    looked.after = left.map(|record| Known { long_key, record });
                    self.newest = self.newest.max(Some(newest));
                    if !std::mem::replace(&mut looked.changed, true) {
                        self.changed.push(record_key.clone());
                    }
                }
            }
        }
        Ok(looked.before.as_ref().map(|known| &known.record))
    }
}

impl Planner {
    /// Plans what [`crate::types::Mutation::Collect`] asks for.
    pub(super) fn collect<'g>(
        &mut self,
        core: &Core,
        plan: &mut Plan<'g>,
        partition: Partition,
        stable: &VersionVector,
        expired_before: WallTime,
    ) -> Result<(), StorageError> {
        let mut log = core.log_mut();
        let stable = log.collectable(partition, stable);
        let (released, emptied) = log.release(partition, &stable, limits::RELEASED_DOTS);
        let durable = log.durable(partition).clone();
        drop(log);

        let mut removals = Removals { records: HashMap::new(), changed: Vec::new(), newest: None };
        let anything = !released.is_empty();
        bury_tombstones(core, plan, partition, &released, &mut removals)?;
        let settled = bury_expired(core, plan, partition, &stable, expired_before, &mut removals)?;
        if anything || !removals.changed.is_empty() {
            let horizon = Log::horizon_after(self.horizon(partition), removals.newest);
            self.seen.entry(partition).or_default().horizon = horizon;
            plan.raised.push((partition, horizon));
            plan.writes.push(Write::Checkpoint { partition, vector: durable, horizon });
        }
        for record_key in &removals.changed {
            let Looked { before, after, .. } = removals.records.remove(record_key).expect("it was looked at");
            let namespace = RecordKeyParts::decode(record_key)?.namespace;
            let truncation = self.truncation(partition, namespace);
            plan.replace(record_key, before.as_ref(), after, truncation)?;
        }
        plan.writes.extend(settled.into_iter().map(Write::ExpirySettled));
        plan.writes.extend(emptied.into_iter().map(Write::EntryRemoved));
        forget_claims(core, plan, partition, expired_before)
    }
}

fn bury_tombstones<'g>(
    core: &Core,
    plan: &Plan<'g>,
    partition: Partition,
    released: &[(Dot, Place)],
    removals: &mut Removals<'g>,
) -> Result<(), StorageError> {
    let mut by_entry: BTreeMap<CommitNumber, BTreeSet<Dot>> = BTreeMap::new();
    for (dot, place) in released.iter().filter(|(_, place)| place.tombstone) {
        by_entry.entry(place.commit).or_default().insert(*dot);
    }
    for (commit, dots) in by_entry {
        for piece in core.log_pieces(commit) {
            let (key, stored) = piece.map_err(engine)?;
            for item in LogReader::new(&key, &stored)? {
                let item = item?;
                let dot = item.stamp.dot;
                if item.partition != partition || !dots.contains(&dot) {
                    continue;
                }
                if let Target::Record(record_key) = item.target() {
                    let gone = |cell: &Cell<'g>| cell.stamp.dot == dot && !cell.is_value();
                    removals.let_go(core, plan, &record_key, gone)?;
                }
            }
        }
    }
    Ok(())
}

/// Lets go of what has expired; the expiries that need not be looked at again.
fn bury_expired<'g>(
    core: &Core,
    plan: &Plan<'g>,
    partition: Partition,
    stable: &VersionVector,
    expired_before: WallTime,
    removals: &mut Removals<'g>,
) -> Result<Vec<Vec<u8>>, StorageError> {
    let first = schema::expiry_key(partition, WallTime(0), &[]);
    let after_last = schema::expiry_key(partition, WallTime(expired_before.0.saturating_add(1)), &[]);
    let mut settled = Vec::new();
    for due in core.expiries.range(first..after_last).take(limits::RELEASED_DOTS) {
        let (key, stored) = due.map_err(engine)?;
        let (at, record_key) = schema::decode_expiry(&key, &stored)?;
        let gone = |cell: &Cell<'g>| cell.expires_at == Some(at) && stable.covers(cell.stamp().dot);
        let record = removals.let_go(core, plan, &Bytes::copy_from_slice(record_key), gone)?;
        // While somebody may not have it yet, it has to be looked at again.
        let waits = |cell: &Cell<'g>| cell.expires_at == Some(at) && !stable.covers(cell.stamp().dot);
        if !record.is_some_and(|record| record.versions().iter().any(waits)) {
            settled.push(key.to_vec());
        }
    }
    Ok(settled)
}

fn forget_claims(
    core: &Core,
    plan: &mut Plan<'_>,
    partition: Partition,
    expired_before: WallTime,
) -> Result<(), StorageError> {
    let mut old = BTreeMap::new();
    let zero = crate::types::OpId([0; 16]);
    let first = schema::until_key(partition, WallTime(0), zero);
    let after_last = schema::until_key(partition, expired_before, zero);
    for due in core.claims.range(first..after_last).take(limits::RELEASED_DOTS) {
        let (key, stored) = due.map_err(engine)?;
        let (until, op) = schema::decode_until(&key, &stored)?;
        if !plan.claims.contains_key(&(partition, op)) {
            old.insert(op, until);
        }
    }
    for ((_, op), planned) in plan.claims.range((partition, zero)..).take_while(|((at, _), _)| *at == partition) {
        if let Some((_, until)) = planned.as_ref().filter(|(_, until)| *until < expired_before) {
            old.insert(*op, *until);
        }
    }
    for (op, until) in old {
        plan.claims.insert((partition, op), None);
        plan.writes.push(Write::ClaimRemoved { partition, op, until });
    }
    Ok(())
}
