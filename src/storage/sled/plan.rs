//! What a group will write, decided before any of it is written.
//!
//! Problem: the log entry of a group goes before its records, so what becomes of each
//! mutation must be known first; and a mutation must see what those before it in the
//! group will have done.
//! Invariant: planning changes nothing on disk. A plan's writes, in their order, are
//! those of the model, so that a crash leaves what a crash of the model leaves.

use std::borrow::Cow;
use std::collections::BTreeMap;

use bytes::Bytes;
use rustc_hash::FxHashMap;

use crate::types::{
    Applied, Claim, CommitNumber, Digest, Key, Mutation, NamespaceId, NodeId, OpId, Partition, PeerMemory, PulledItem,
    Record, Siblings, Stamp, Timestamp, VersionVector, WallTime,
};

use super::super::StorageError;
use super::super::verdict::{Circumstances, Verdict, merged, unseen, verdict};
use super::read::Truncations;
use super::schema::{self, Body, Cell, LogItem, StoredRecord, Target, Tree};
use super::{Core, engine};

/// What was seen of a partition, groups on their way included.
#[derive(Clone, Default, Debug)]
pub(super) struct Seen {
    pub(super) vector: VersionVector,
    pub(super) horizon: Timestamp,
}

/// What the planner knows beside the disk: ahead of what readers see.
#[derive(Default, Debug)]
pub(super) struct Planner {
    pub(super) seen: FxHashMap<Partition, Seen>,
    pub(super) truncations: Truncations,
}

/// A record, with the whole key if its own does not hold it.
#[derive(Clone, Debug)]
pub(super) struct Known<'g> {
    pub(super) long_key: Option<Cow<'g, [u8]>>,
    pub(super) record: Record<Cell<'g>>,
}

/// One step of a group.
#[derive(Debug)]
pub(super) enum Write<'g> {
    Record(RecordWrite<'g>),
    Truncation { partition: Partition, namespace: NamespaceId, stamp: Stamp },
    Peer(NodeId, PeerMemory),
    Claim { partition: Partition, op: OpId, claim: &'g Claim, until: WallTime },
    ClaimRemoved { partition: Partition, op: OpId, until: WallTime },
    Checkpoint { partition: Partition, vector: VersionVector, horizon: Timestamp },
    Expiry(Vec<u8>),
    ExpirySettled(Vec<u8>),
    EntryRemoved(CommitNumber),
}

/// A record that is written or removed, and what that does to pieces of values.
#[derive(Debug)]
pub(super) struct RecordWrite<'g> {
    pub(super) record_key: Bytes,
    /// None if the record goes.
    pub(super) known: Option<Known<'g>>,
    /// Values that are stored in pieces from now on.
    pub(super) chunks: Vec<(Stamp, Cow<'g, [u8]>)>,
    /// Values whose pieces go.
    pub(super) unchunked: Vec<(Stamp, usize)>,
    pub(super) partition: Partition,
    pub(super) namespace: NamespaceId,
    /// The newest version that is there, or was; none if there is only a context.
    pub(super) newest: Option<Stamp>,
    pub(super) was_live: bool,
    pub(super) is_live: bool,
}

/// A group on its way.
#[derive(Debug)]
pub(super) struct Plan<'g> {
    pub(super) commit: CommitNumber,
    pub(super) items: Vec<LogItem>,
    pub(super) writes: Vec<Write<'g>>,
    pub(super) raised: Vec<(Partition, Timestamp)>,
    pub(super) discarded: u64,
    /// What the writes so far make of records and claims; none if they remove it.
    records: FxHashMap<Bytes, Option<Known<'g>>>,
    pub(super) claims: BTreeMap<(Partition, OpId), Option<(Claim, WallTime)>>,
}

impl<'g> Plan<'g> {
    pub(super) fn new(commit: CommitNumber, mutations: usize) -> Plan<'g> {
        Plan {
            commit,
            items: Vec::with_capacity(mutations),
            writes: Vec::with_capacity(mutations),
            raised: Vec::new(),
            discarded: 0,
            records: FxHashMap::with_capacity_and_hasher(mutations, Default::default()),
            claims: BTreeMap::new(),
        }
    }

    /// A record as the writes so far leave it. The value of a lone version is only there
    /// if it was asked for, because nothing is ever merged with it.
    pub(super) fn lookup(
        &self,
        core: &Core,
        record_key: &[u8],
        with_value: bool,
    ) -> Result<Option<Known<'g>>, StorageError> {
        if let Some(planned) = self.records.get(record_key) {
            return Ok(planned.clone());
        }
        let Some(stored) = core.records.get(record_key).map_err(engine)? else { return Ok(None) };
        let StoredRecord { long_key, record } = StoredRecord::decode(record_key, &stored)?;
        let long_key = long_key.map(|key| Cow::Owned(key.to_owned()));
        let record = match record {
            Record::Last(Cell { stamp, expires_at, body: Body::Inline(_) }) if !with_value => {
                Record::Last(Cell { stamp, expires_at, body: Body::Inline(Cow::Borrowed(&[])) })
            }
            record => schema::map_record(record, Cell::into_owned),
        };
        Ok(Some(Known { long_key, record }))
    }

    /// Adds the step that gives a record another content, or removes it.
    pub(super) fn replace(
        &mut self,
        record_key: &Bytes,
        before: Option<&Known<'g>>,
        mut after: Option<Known<'g>>,
        truncation: Option<Stamp>,
    ) -> Result<(), StorageError> {
        let parts = schema::RecordKeyParts::decode(record_key)?;
        let mut chunks = Vec::new();
        if let Some(known) = &mut after {
            let key = known.long_key.as_deref().unwrap_or(parts.rest);
            let limit = schema::inline_limit(key, &known.record);
            let record = known.record.clone();
            known.record = schema::map_record(record, |cell| move_out(cell, limit, &mut chunks));
        }
        let chunked = |known: Option<&Known<'_>>| -> Vec<(Stamp, usize)> {
            let versions = known.map_or(&[][..], |known| known.record.versions());
            versions.iter().filter_map(|cell| Some((cell.stamp, cell.chunked()?))).collect()
        };
        let kept = chunked(after.as_ref());
        let mut unchunked = chunked(before);
        unchunked.retain(|(stamp, _)| !kept.iter().any(|(other, _)| other == stamp));
        let newest = |known: Option<&Known<'_>>| known.and_then(|known| known.record.newest_stamp());
        let write = RecordWrite {
            record_key: record_key.clone(),
            chunks,
            unchunked,
            partition: parts.partition,
            namespace: parts.namespace,
            newest: newest(after.as_ref()).max(newest(before)),
            was_live: is_live(before, truncation),
            is_live: is_live(after.as_ref(), truncation),
            known: after.clone(),
        };
        self.writes.push(Write::Record(write));
        self.records.insert(record_key.clone(), after);
        Ok(())
    }
}

/// A version whose value does not stay in the record, if it is longer than that allows.
fn move_out<'g>(cell: Cell<'g>, limit: usize, chunks: &mut Vec<(Stamp, Cow<'g, [u8]>)>) -> Cell<'g> {
    match cell.body {
        Body::Inline(value) if value.len() > limit => {
            let bytes = value.len();
            chunks.push((cell.stamp, value));
            Cell { body: Body::Chunked(bytes), ..cell }
        }
        body => Cell { body, ..cell },
    }
}

fn is_live(known: Option<&Known<'_>>, truncation: Option<Stamp>) -> bool {
    known.is_some_and(|known| counts_as_live(&known.record, truncation))
}

/// Whether some version is a value that no truncation covers.
pub(super) fn counts_as_live(record: &Record<Cell<'_>>, truncation: Option<Stamp>) -> bool {
    record.versions().iter().any(|cell| cell.is_value() && Some(cell.stamp) > truncation)
}

/// A record without values.
pub(super) fn digest(record: &Record<Cell<'_>>) -> Digest {
    match record {
        Record::Last(cell) => Record::Last(cell.summary()),
        Record::Siblings(siblings) => {
            let summaries = siblings.versions().iter().map(Cell::summary).collect();
            Record::Siblings(Siblings::new(summaries, siblings.context().clone()))
        }
    }
}

fn cells(record: &Record) -> Record<Cell<'_>> {
    match record {
        Record::Last(version) => Record::Last(Cell::of(version)),
        Record::Siblings(siblings) => {
            let versions = siblings.versions().iter().map(Cell::of).collect();
            Record::Siblings(Siblings::new(versions, siblings.context().clone()))
        }
    }
}

static NOTHING: VersionVector = VersionVector::empty();

impl Planner {
    pub(super) fn horizon(&self, partition: Partition) -> Timestamp {
        self.seen.get(&partition).map_or(Timestamp::default(), |seen| seen.horizon)
    }

    pub(super) fn truncation(&self, partition: Partition, namespace: NamespaceId) -> Option<Stamp> {
        self.truncations.get(&(partition, namespace)).copied()
    }

    /// Plans one mutation.
    pub(super) fn plan<'g>(
        &mut self,
        core: &Core,
        plan: &mut Plan<'g>,
        mutation: &'g Mutation,
    ) -> Result<Applied, StorageError> {
        match mutation {
            Mutation::Record { partition, key, record } => {
                let horizon = Some(self.horizon(*partition));
                return self.record(core, plan, *partition, key, record, horizon);
            }
            Mutation::Truncate { partition, namespace, stamp } => {
                return Ok(self.truncate(plan, *partition, *namespace, *stamp));
            }
            Mutation::Absorb { partition, pulled, horizon } => {
                let present = self.horizon(*partition);
                if present != *horizon {
                    return Ok(Applied::Behind { horizon: present });
                }
                for item in &pulled.items {
                    self.absorb(core, plan, *partition, item)?;
                }
            }
            Mutation::Collect { partition, stable, expired_before, witnesses } => {
                plan.writes.extend(witnesses.iter().map(|(node, memory)| Write::Peer(*node, *memory)));
                self.collect(core, plan, *partition, stable, *expired_before)?;
            }
            Mutation::Remember { node, memory } => plan.writes.push(Write::Peer(*node, *memory)),
            Mutation::Claim { partition, op, claim, until } => {
                return claim_once(core, plan, *partition, *op, claim, *until)
                    .map(|claim| Applied::Noted(Box::new(claim)));
            }
            Mutation::Barrier => {}
        }
        Ok(Applied::Stored)
    }

    fn record<'g>(
        &mut self,
        core: &Core,
        plan: &mut Plan<'g>,
        partition: Partition,
        key: &'g Key,
        record: &'g Record,
        horizon: Option<Timestamp>,
    ) -> Result<Applied, StorageError> {
        let record_key = record_key(partition, key);
        let present = plan.lookup(core, &record_key, matches!(record, Record::Siblings(_)))?;
        let long_key = schema::long_key(key.bytes());
        if present.as_ref().is_some_and(|present| present.long_key.as_deref() != long_key) {
            return Err(Tree::Records.corrupt(&record_key, "another long key"));
        }
        let digest = present.as_ref().map(|present| digest(&present.record));
        let vector = self.seen.get(&partition).map_or(&NOTHING, |seen| &seen.vector);
        let truncation = self.truncation(partition, key.namespace());
        let circumstances = Circumstances { vector, horizon, present: digest.as_ref(), truncation };
        let verdict = verdict(record, &circumstances);
        let new: Vec<Stamp> = unseen(vector, record).collect();
        match verdict {
            Verdict::Known => return Ok(Applied::Stored),
            Verdict::Behind(horizon) => return Ok(Applied::Behind { horizon }),
            Verdict::Superseded(_) => plan.discarded += new.len() as u64,
            Verdict::Merge { changes: false } => {}
            Verdict::Merge { changes: true } => {
                let before = present.as_ref().map(|present| present.record.clone());
                let merged = merged(vector, before, cells(record));
                let was_there =
                    |stamp: Stamp| present.iter().any(|it| it.record.versions().iter().any(|cell| cell.stamp == stamp));
                for cell in merged.versions().iter().filter(|cell| !was_there(cell.stamp)) {
                    if let Some(at) = cell.expires_at {
                        plan.writes.push(Write::Expiry(schema::expiry_key(partition, at, &record_key)));
                    }
                }
                let after = Known { long_key: long_key.map(Cow::Borrowed), record: merged };
                plan.replace(&record_key, present.as_ref(), Some(after), truncation)?;
            }
        }
        for stamp in new {
            let version = record.versions().iter().find(|version| version.stamp == stamp);
            let tombstone = version.is_some_and(|version| !version.is_value());
            self.cover(plan, partition, stamp, tombstone, Target::Record(record_key.clone()));
        }
        Ok(match verdict {
            Verdict::Superseded(by) => Applied::Superseded { by },
            _ => Applied::Stored,
        })
    }

    /// A dot is covered from this group on, and this is what it wrote to.
    fn cover(&mut self, plan: &mut Plan<'_>, partition: Partition, stamp: Stamp, tombstone: bool, target: Target) {
        if self.seen.entry(partition).or_default().vector.insert(stamp.dot) {
            plan.items.push(LogItem { partition, stamp, tombstone, target });
        }
    }

    fn truncate(&mut self, plan: &mut Plan<'_>, partition: Partition, namespace: NamespaceId, stamp: Stamp) -> Applied {
        self.cover(plan, partition, stamp, false, Target::Namespace(namespace));
        match self.truncation(partition, namespace) {
            Some(by) if stamp < by => return Applied::Superseded { by },
            Some(same) if stamp == same => {}
            _ => {
                self.truncations.insert((partition, namespace), stamp);
                plan.writes.push(Write::Truncation { partition, namespace, stamp });
            }
        }
        Applied::Stored
    }

    fn absorb<'g>(
        &mut self,
        core: &Core,
        plan: &mut Plan<'g>,
        partition: Partition,
        item: &'g PulledItem,
    ) -> Result<(), StorageError> {
        match item {
            PulledItem::Truncation { namespace, stamp } => {
                self.truncate(plan, partition, *namespace, *stamp);
            }
            PulledItem::Record { dots, key, record } => {
                if let Some(record) = record {
                    self.record(core, plan, partition, key, record, None)?;
                }
                let target = Target::Record(record_key(partition, key));
                dots.iter().for_each(|stamp| self.cover(plan, partition, *stamp, false, target.clone()));
            }
        }
        Ok(())
    }
}

/// Notes what an op-id stands for, unless something is noted; what is noted then.
fn claim_once<'g>(
    core: &Core,
    plan: &mut Plan<'g>,
    partition: Partition,
    op: OpId,
    claim: &'g Claim,
    until: WallTime,
) -> Result<Claim, StorageError> {
    let noted = match plan.claims.get(&(partition, op)) {
        Some(planned) => planned.clone(),
        None => core.claim(partition, op)?,
    };
    if let Some((noted, _)) = noted {
        return Ok(noted);
    }
    plan.claims.insert((partition, op), Some((claim.clone(), until)));
    plan.writes.push(Write::Claim { partition, op, claim, until });
    Ok(claim.clone())
}

fn record_key(partition: Partition, key: &Key) -> Bytes {
    let mut bytes = Vec::with_capacity(schema::RECORD_PREFIX_BYTES + key.bytes().len().min(schema::PLAIN_KEY_BYTES));
    schema::record_key(&mut bytes, partition, key);
    bytes.into()
}
