//! What becomes of a record that reaches a replica, decided without touching anything.
//!
//! Problem: the store on disk and its model must decide alike, and a zombie must not be
//! let in by either.
//! Invariant: see the rules of [`super::Storage`]. They rest on this: the timestamp of a
//! version is above those of all versions that it outranks or that its context covers. So
//! whatever a tombstone has deleted is not above the horizon once that is gone. Whoever
//! takes a context from a client must see to it that the clock is above what it covers.

use crate::types::{Digest, Dot, Record, SeededBug, Siblings, Stamp, Stamped, Timestamp, VersionVector};

/// What a replica knows when a record reaches it.
pub(super) struct Circumstances<'a> {
    /// What was seen in the partition.
    pub(super) vector: &'a VersionVector,
    /// Up to where tombstones were let go of; none where that does not matter (a pull).
    pub(super) horizon: Option<Timestamp>,
    /// What is held of the key.
    pub(super) present: Option<&'a Digest>,
    /// Up to where its namespace was truncated in the partition.
    pub(super) truncation: Option<Stamp>,
}

/// What is to be done with a record.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Verdict {
    /// Nothing: it is known already.
    Known,
    /// Nothing may be done.
    Behind(Timestamp),
    /// Something newer is there. Its dots are covered now.
    Superseded(Stamp),
    /// It is merged with what is there ([`merged`]), or it is there already.
    Merge {
        /// Whether the record of the key changes.
        changes: bool,
    },
}

/// The dots of a record that were not seen yet.
pub(super) fn unseen<'a>(vector: &'a VersionVector, record: &'a Record) -> impl Iterator<Item = Stamp> + 'a {
    record.versions().iter().map(Stamped::stamp).filter(|stamp| !vector.covers(stamp.dot))
}

/// Whether something of a record may have been deleted by a tombstone that was let go of.
fn is_behind(record: &Record, at: &Circumstances<'_>, horizon: Timestamp) -> bool {
    let mut old = unseen(at.vector, record).filter(|stamp| stamp.timestamp <= horizon);
    match (record, at.present) {
        // What is there now is newer than any tombstone that was let go of, and outranks
        // all that such a tombstone did.
        (Record::Last(_), Some(_)) => false,
        // What is there now may have been written when nothing was left, and know nothing
        // of what was there before.
        (Record::Siblings(_), Some(Record::Siblings(present))) => old.any(|stamp| !present.context().covers(stamp.dot)),
        _ => old.next().is_some(),
    }
}

/// Decides.
pub(super) fn verdict(record: &Record, at: &Circumstances<'_>) -> Verdict {
    if SeededBug::RepairIgnoresCoverage.is_planted() && (at.horizon.is_some() || !at.vector.is_empty()) {
        let nothing = VersionVector::empty();
        return verdict(record, &Circumstances { vector: &nothing, horizon: None, ..*at });
    }
    if let Some(horizon) = at.horizon.filter(|horizon| is_behind(record, at, *horizon)) {
        return Verdict::Behind(horizon);
    }
    let newest_unseen = unseen(at.vector, record).map(|stamp| stamp.timestamp).max();
    match record {
        Record::Last(version) => {
            let held = at.present.and_then(Record::newest_stamp);
            let stamp = version.stamp;
            if at.truncation.is_some_and(|truncation| stamp <= truncation) {
                return Verdict::Superseded(held.max(at.truncation).expect("a truncation"));
            }
            match held.max(at.truncation) {
                Some(newest) if newest > stamp => Verdict::Superseded(newest),
                Some(newest) if newest == stamp => match newest_unseen {
                    Some(_) => Verdict::Merge { changes: false },
                    None => Verdict::Known,
                },
                // It was seen, and what has outranked it was collected.
                _ if newest_unseen.is_none() && version.is_value() => Verdict::Superseded(Stamp {
                    timestamp: at.horizon.unwrap_or_default().max(stamp.timestamp),
                    ..stamp
                }),
                _ if newest_unseen.is_none() => Verdict::Known,
                _ => Verdict::Merge { changes: true },
            }
        }
        Record::Siblings(_) => {
            let changes = match at.present {
                None => newest_unseen.is_some(),
                Some(present) => !present.dominates(record),
            };
            if newest_unseen.is_none() && !changes { Verdict::Known } else { Verdict::Merge { changes } }
        }
    }
}

/// What is held once `record` was merged with what was there. Versions that were seen and
/// are no longer held stay away.
pub(super) fn merged<V: Stamped + Clone>(
    vector: &VersionVector,
    present: Option<Record<V>>,
    record: Record<V>,
) -> Record<V> {
    let holds = |dot: Dot| {
        present.as_ref().is_some_and(|present| present.versions().iter().any(|version| version.stamp().dot == dot))
    };
    let record = match record {
        Record::Last(version) => Record::Last(version),
        Record::Siblings(siblings) => {
            let (versions, context) = siblings.into_parts();
            let wanted = versions.into_iter().filter(|version| {
                let dot = version.stamp().dot;
                !vector.covers(dot) || holds(dot)
            });
            Record::Siblings(Siblings::new(wanted.collect(), context))
        }
    };
    match present {
        Some(present) => present.merge(record),
        None => record,
    }
}

/// Whether a record shows that this mutation was applied to it.
pub(super) fn reflects<V: Stamped>(record: &Record<V>, stamp: Stamp) -> bool {
    match record {
        Record::Last(version) => version.stamp() >= stamp,
        Record::Siblings(siblings) => siblings.context().covers(stamp.dot),
    }
}

/// A record without the versions that a truncation covers; `tombstone` stands for the
/// truncation where there must be a version.
pub(super) fn outlived<V: Stamped>(
    record: Record<V>,
    truncation: Option<Stamp>,
    tombstone: impl FnOnce(Stamp) -> V,
) -> Record<V> {
    let Some(truncation) = truncation else { return record };
    match record {
        Record::Last(version) if version.stamp() <= truncation => Record::Last(tombstone(truncation)),
        Record::Last(version) => Record::Last(version),
        Record::Siblings(siblings) => {
            let (versions, context) = siblings.into_parts();
            let left = versions.into_iter().filter(|version| version.stamp() > truncation);
            Record::Siblings(Siblings::new(left.collect(), context))
        }
    }
}

/// A record after some versions were let go of, none if nothing is left of it, and the
/// newest time of those that went; none if none of them goes.
pub(super) fn without<V: Stamped>(
    record: Record<V>,
    gone: impl Fn(&V) -> bool,
) -> Option<(Option<Record<V>>, Timestamp)> {
    let leaving = record.versions().iter().filter(|version| gone(version));
    let mut newest = leaving.map(|version| version.stamp().timestamp).max()?;
    let left = match record {
        Record::Last(_) => None,
        Record::Siblings(siblings) => {
            let (versions, context) = siblings.into_parts();
            let left: Vec<V> = versions.into_iter().filter(|version| !gone(version)).collect();
            if left.is_empty() {
                // What it knew to be deleted goes with it, and must not come back either.
                newest = newest.max(context.newest());
            }
            (!left.is_empty()).then(|| Record::Siblings(Siblings::new(left, context)))
        }
    };
    Some((left, newest))
}
