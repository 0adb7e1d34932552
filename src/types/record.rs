//! What a replica holds of a key, and the merge of two such records.
//!
//! Problem: replicas receive writes in different orders and must agree in the end, without
//! losing a value that nothing has replaced.
//! Invariant: [`Record::merge`] is commutative, associative and idempotent, so that every
//! order and every repetition gives the same record. A version goes only if a newer one
//! outranks it (`lww`), or if the other record has known it and no longer holds it (`siblings`).
//! Source: Preguiça et al., "Dotted Version Vectors: Logical Clocks for Optimistic
//! Replication", 2010; the shape is that of Almeida's `dvvset`.

use serde::{Deserialize, Serialize};

use super::bounded::BoundedVec;
use super::{CausalContext, Dot, Stamp, Stamped, Summary, Version, WallTime, limits};

/// Which of two concurrent values of a key is kept.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MergePolicy {
    /// The one with the highest stamp (last writer wins).
    #[default]
    Lww,
    /// Both, until a write that knows them replaces them.
    Siblings,
}

/// What is held of a key: whole versions, or their summaries.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(bound(deserialize = "V: Deserialize<'de> + Stamped"))]
pub enum Record<V = Version> {
    /// Under [`MergePolicy::Lww`]: the newest version.
    Last(V),
    /// Under [`MergePolicy::Siblings`].
    Siblings(Siblings<V>),
}

/// What a digest read returns: a record without its values.
pub type Digest = Record<Summary>;

/// Versions none of which knows another, and all that is known to have been written.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Siblings<V = Version> {
    /// In the order of their dots.
    versions: Vec<V>,
    context: CausalContext,
}

impl<'de, V: Deserialize<'de> + Stamped> Deserialize<'de> for Siblings<V> {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Siblings<V>, D::Error> {
        type Parts<V> = (BoundedVec<V, { limits::RECORD_VERSIONS }>, CausalContext);
        let (BoundedVec(versions), context) = Parts::<V>::deserialize(deserializer)?;
        let in_order = versions.windows(2).all(|pair| pair[0].stamp().dot < pair[1].stamp().dot);
        if !in_order || !versions.iter().all(|version| context.covers(version.stamp().dot)) {
            return Err(serde::de::Error::custom("the siblings contradict their context"));
        }
        Ok(Siblings { versions, context })
    }
}

impl<V: Stamped> Siblings<V> {
    /// These versions, and what else is known.
    pub fn new(mut versions: Vec<V>, mut context: CausalContext) -> Siblings<V> {
        versions.sort_by_key(|version| version.stamp().dot);
        versions.dedup_by_key(|version| version.stamp().dot);
        versions.iter().for_each(|version| context.insert_stamp(version.stamp()));
        Siblings { versions, context }
    }

    /// The versions, in the order of their dots.
    pub fn versions(&self) -> &[V] {
        &self.versions
    }

    /// All that is known to have been written.
    pub fn context(&self) -> &CausalContext {
        &self.context
    }

    /// Takes it apart.
    pub fn into_parts(self) -> (Vec<V>, CausalContext) {
        (self.versions, self.context)
    }

    fn merge(self, other: Siblings<V>) -> Siblings<V> {
        let known = |side: &Siblings<V>, dot: Dot| side.versions.iter().any(|version| version.stamp().dot == dot);
        let mut versions = Vec::with_capacity(self.versions.len() + other.versions.len());
        let mut context = self.context.clone();
        context.join(&other.context);
        let (mine, theirs): (Vec<bool>, Vec<bool>) = (
            self.versions
                .iter()
                .map(|version| version.stamp().dot)
                .map(|dot| known(&other, dot) || !other.context.covers(dot))
                .collect(),
            // What both hold is taken from the first.
            other.versions.iter().map(|version| !self.context.covers(version.stamp().dot)).collect(),
        );
        versions.extend(self.versions.into_iter().zip(mine).filter_map(|(version, keep)| keep.then_some(version)));
        versions.extend(other.versions.into_iter().zip(theirs).filter_map(|(version, keep)| keep.then_some(version)));
        versions.sort_by_key(|version| version.stamp().dot);
        Siblings { versions, context }
    }
}

impl<V: Stamped> Record<V> {
    /// Its versions, in the order of their dots.
    pub fn versions(&self) -> &[V] {
        match self {
            Record::Last(version) => std::slice::from_ref(version),
            Record::Siblings(siblings) => &siblings.versions,
        }
    }

    /// Its versions.
    pub fn into_versions(self) -> Vec<V> {
        match self {
            Record::Last(version) => vec![version],
            Record::Siblings(siblings) => siblings.versions,
        }
    }

    /// The version with the highest stamp; none if all siblings are gone.
    pub fn newest(&self) -> Option<&V> {
        self.versions().iter().max_by_key(|version| version.stamp())
    }

    /// The highest stamp.
    pub fn newest_stamp(&self) -> Option<Stamp> {
        self.newest().map(Stamped::stamp)
    }

    /// What both records together say.
    #[must_use]
    pub fn merge(self, other: Record<V>) -> Record<V> {
        match (self, other) {
            (Record::Last(one), Record::Last(other)) => {
                Record::Last(if one.stamp() >= other.stamp() { one } else { other })
            }
            // A namespace has one policy for life, so the kinds do not really meet.
            (one, other) => Record::Siblings(one.into_siblings().merge(other.into_siblings())),
        }
    }

    fn into_siblings(self) -> Siblings<V> {
        match self {
            Record::Last(version) => Siblings::new(vec![version], CausalContext::default()),
            Record::Siblings(siblings) => siblings,
        }
    }

    /// Whether merging `other` into this would change nothing.
    pub fn dominates<W: Stamped>(&self, other: &Record<W>) -> bool {
        match (self, other) {
            (Record::Last(one), Record::Last(other)) => one.stamp() >= other.stamp(),
            (Record::Siblings(one), Record::Siblings(other)) => {
                let keeps = |version: &V| {
                    let dot = version.stamp().dot;
                    !other.context.covers(dot) || other.versions.iter().any(|other| other.stamp().dot == dot)
                };
                one.context.covers_all(&other.context) && one.versions.iter().all(keeps)
            }
            (one, other) => other.versions().iter().all(|version| {
                let stamp = version.stamp();
                one.versions().iter().any(|own| own.stamp() == stamp)
            }),
        }
    }
}

impl Record {
    /// The record without its values.
    pub fn digest(&self) -> Digest {
        match self {
            Record::Last(version) => Record::Last(version.summary()),
            Record::Siblings(siblings) => Record::Siblings(Siblings {
                versions: siblings.versions.iter().map(Version::summary).collect(),
                context: siblings.context.clone(),
            }),
        }
    }

    /// The bytes of all its values.
    pub fn value_bytes(&self) -> usize {
        self.versions().iter().map(|version| version.summary().value_bytes.unwrap_or(0) as usize).sum()
    }

    /// Whether some version has a value at this time.
    pub fn is_live(&self, wall: WallTime) -> bool {
        self.versions().iter().any(|version| version.live_value(wall).is_some())
    }
}

impl Digest {
    /// Whether some version has a value at this time.
    pub fn has_live(&self, wall: WallTime) -> bool {
        self.versions().iter().any(|summary| summary.is_live(wall))
    }

    /// The newest summary that has a value at this time, else the newest.
    pub fn shown(&self, wall: WallTime) -> Option<Summary> {
        let live = self.versions().iter().filter(|summary| summary.is_live(wall)).max_by_key(|summary| summary.stamp);
        live.or_else(|| self.newest()).copied()
    }
}

#[cfg(test)]
#[path = "record_tests.rs"]
mod tests;
