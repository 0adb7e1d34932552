//! Writes that carry an op-id: what their clients do again, and what must come of it.
//!
//! The rule: however often a write is sent, and to whom, it is one write. All that succeed
//! name the same version; only one version of it ever reaches a store as a record; and once
//! it was told to be fenced no version of it does, before or after.

use crate::types::{Actor, Applied, Claim, Content, Key, Moment, OpId, Partition, Refusal, Stamp, Version, WriteReply};

use super::history::{Check, History, brief, brief_stamp};
use super::operation::{Floors, Kind, Operation};

/// One write with an op-id.
#[derive(Clone, Debug)]
pub(super) struct Named {
    pub(super) key: usize,
    /// The write.
    pub(super) kind: Kind,
    /// How many attempts were begun.
    pub(super) attempts: u32,
    /// What had been acknowledged when the first was.
    pub(super) first_floors: Floors,
    /// What an attempt that succeeded has named.
    told: Option<Stamp>,
    /// Which version of it was handed to a store as a record.
    recorded: Option<Stamp>,
    fenced: bool,
    /// Some of what replicas had noted for it is gone with a disk: nothing is promised.
    unsure: bool,
}

/// The op-id of the write with this number.
pub(super) fn op_id(index: usize) -> OpId {
    OpId((index as u128 + 1).to_be_bytes())
}

impl History {
    /// A client gives a write a name; its number.
    pub(super) fn name(&mut self, key: usize, kind: Kind) -> usize {
        let named = Named {
            key,
            kind,
            attempts: 0,
            first_floors: self.keys[key].floors,
            told: None,
            recorded: None,
            fenced: false,
            unsure: false,
        };
        self.named.push(named);
        self.named.len() - 1
    }

    /// A disk has forgotten: what it had noted may be noted otherwise now.
    pub(super) fn named_are_unsure(&mut self) {
        for named in &mut self.named {
            named.unsure = true;
            named.fenced = false;
            if let Kind::Put { value, .. } = &named.kind
                && let Some(written) = self.keys[named.key].written.get_mut(value)
            {
                written.refused = false;
            }
        }
    }

    /// Whether nothing is promised of it.
    pub(super) fn is_unsure(&self, op: usize) -> bool {
        self.named[op].unsure
    }

    /// Whether it is fenced: it must not be applied.
    pub(super) fn is_fenced(&self, op: usize) -> bool {
        self.named[op].fenced
    }

    /// A node asks replicas to note what an op-id stands for.
    pub(super) fn claims(&mut self, now: Moment, by: Actor, partition: Partition, (op, claim): (OpId, &Claim)) {
        let Claim::Write { key, version } = claim else { return };
        let index = u128::from_be_bytes(op.0).checked_sub(1).and_then(|index| usize::try_from(index).ok());
        let Some(index) = index.filter(|index| *index < self.named.len()) else {
            let what = format!("{} claims the op-id {op}, which no client has named", by.node);
            return self.violated(Check::OpIdsAreOnce, now, None, what);
        };
        if self.claimed.insert(version.stamp, index).is_some() {
            return;
        }
        let written = match &self.named[index].kind {
            Kind::Put { value, .. } => Content::Value(value.clone()),
            _ => Content::Tombstone,
        };
        let at = self.named[index].key;
        if version.content != written || self.index_of(key) != Some(at) {
            let what = format!("{} claims {} for op {index}", by.node, brief(version));
            self.violated(Check::OpIdsAreOnce, now, Some(at), what);
        }
        self.take_dot(now, by, partition, Some(at), version);
    }

    /// A store says what it has noted for an op-id.
    pub(super) fn noted(&mut self, now: Moment, by: Actor, op: OpId, applied: &Applied) {
        let index = u128::from_be_bytes(op.0).wrapping_sub(1) as usize;
        let key = self.named.get(index).map(|named| named.key);
        self.note(key, now, || {
            let noted = match applied {
                Applied::Noted(claim) if let Claim::Write { version, .. } = &**claim => brief(version),
                other => format!("{other:?}"),
            };
            format!("{} has noted for op {index}: {noted}", by.node)
        });
    }

    /// A version was handed to a store, or to a peer for its store.
    pub(super) fn recorded(&mut self, now: Moment, by: Actor, version: &Version) {
        let claimed = self.claimed.get(&version.stamp).copied();
        let Some(op) = claimed.filter(|op| !self.named[*op].unsure) else { return };
        let named = &mut self.named[op];
        let first = *named.recorded.get_or_insert(version.stamp);
        let (key, fenced) = (named.key, named.fenced);
        if first != version.stamp {
            let what = format!("{} applies op {op} as {}, others as {}", by.node, brief(version), brief_stamp(first));
            self.violated(Check::OpIdsAreOnce, now, Some(key), what);
        } else if fenced {
            let what = format!("{} applies {} for op {op}, which was fenced", by.node, brief(version));
            self.violated(Check::OpIdsAreOnce, now, Some(key), what);
        }
    }

    /// An attempt has succeeded, or it was found that one had.
    pub(super) fn named_written(&mut self, now: Moment, operation: &Operation, reply: WriteReply) {
        let Some(op) = operation.op.filter(|op| !self.named[*op].unsure) else { return };
        let named = &mut self.named[op];
        let first = *named.told.get_or_insert(reply.stamp);
        let fenced = named.fenced;
        let number = operation.number;
        if first != reply.stamp {
            let what = format!("#{number} says op {op} is {}, before {}", brief_stamp(reply.stamp), brief_stamp(first));
            self.violated(Check::OpIdsAreOnce, now, Some(operation.key), what);
        }
        if fenced {
            let what = format!("#{number} says that op {op} was written, before that it is fenced");
            self.violated(Check::OpIdsAreOnce, now, Some(operation.key), what);
        }
    }

    /// An attempt was refused.
    pub(super) fn named_refused(&mut self, now: Moment, operation: &Operation, refusal: &Refusal) {
        let Some(op) = operation.op else {
            if matches!(refusal, Refusal::Fenced | Refusal::OpIdReused) {
                let what = format!("#{} carries no op-id and is refused for it: {refusal}", operation.number);
                self.violated(Check::OpIdsAreOnce, now, Some(operation.key), what);
            }
            return;
        };
        let named = &mut self.named[op];
        if named.unsure {
            return;
        }
        match refusal {
            Refusal::Fenced => {
                named.fenced = true;
                if let Some(stamp) = named.told.or(named.recorded) {
                    let what =
                        format!("#{} says op {op} is fenced, but it is {}", operation.number, brief_stamp(stamp));
                    self.violated(Check::OpIdsAreOnce, now, Some(operation.key), what);
                }
                self.refuse_value(now, operation);
            }
            Refusal::OpIdReused => {
                let what = format!("#{} says that op {op} was used for another write", operation.number);
                self.violated(Check::OpIdsAreOnce, now, Some(operation.key), what);
            }
            // Another attempt may have been applied.
            _ if named.attempts == 1 && operation.kind != Kind::Resolve => self.refuse_value(now, operation),
            _ => {}
        }
    }

    /// The value of a write is not to be seen.
    pub(super) fn refuse_value(&mut self, now: Moment, operation: &Operation) {
        let kind = operation.op.map_or(&operation.kind, |op| &self.named[op].kind);
        let Kind::Put { value, .. } = kind else { return };
        let value = value.clone();
        let Some(written) = self.keys[operation.key].written.get_mut(&value) else { return };
        written.refused = true;
        if written.applied {
            let what =
                format!("#{}, {}, was applied and then refused", operation.number, super::history::brief_value(&value));
            self.violated(Check::RefusedIsNotApplied, now, Some(operation.key), what);
        }
    }

    /// The key of a write, as it was asked.
    pub(super) fn key_of(&self, index: usize) -> &Key {
        &self.keys[index].key
    }
}
