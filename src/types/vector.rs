//! Which mutations have been seen: version vectors with gaps, and the contexts of keys.
//!
//! Problem: a replica may receive mutations late, twice, out of order or never, and must
//! know for each whether it has had it, in little space.
//! Invariant: the ranges of an actor are sorted, do not touch, and begin above zero; so
//! two vectors that cover the same dots are equal.
//! Source: Gonçalves et al., "Concise Server-Wide Causality Management for Eventually
//! Consistent Data Stores", DAIS 2015, section 4 (node logical clocks); Preguiça et al.,
//! "Dotted Version Vectors", 2010.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use super::bounded::{self, BoundedVec};
use super::{Actor, Counter, Dot, Stamp, Timestamp, limits};

/// The counters of one actor: ranges, both ends included.
#[derive(Clone, Default, PartialEq, Eq, Debug, Serialize)]
#[serde(transparent)]
pub struct Counters(Vec<(u64, u64)>);

impl<'de> Deserialize<'de> for Counters {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Counters, D::Error> {
        let ranges = BoundedVec::<(u64, u64), { limits::VECTOR_RANGES }>::deserialize(deserializer)?.0;
        if ranges.is_empty() {
            return Err(serde::de::Error::custom("an actor of whom nothing was seen"));
        }
        let mut least = 1;
        for (from, to) in &ranges {
            if *from < least || to < from || *to > u64::MAX - 2 {
                return Err(serde::de::Error::custom("ranges are out of order"));
            }
            least = to + 2;
        }
        Ok(Counters(ranges))
    }
}

impl Counters {
    /// How many there are.
    pub fn count(&self) -> u64 {
        self.0.iter().map(|(from, to)| to - from + 1).fold(0, u64::saturating_add)
    }

    /// The highest; zero if there is none.
    pub fn highest(&self) -> Counter {
        Counter(self.0.last().map_or(0, |(_, to)| *to))
    }

    /// The highest below which none is missing.
    pub fn contiguous(&self) -> Counter {
        Counter(self.0.first().filter(|(from, _)| *from == 1).map_or(0, |(_, to)| *to))
    }

    /// The ranges in order, both ends included.
    pub fn ranges(&self) -> &[(u64, u64)] {
        &self.0
    }

    /// Whether a counter is among them.
    pub fn contains(&self, counter: Counter) -> bool {
        let at = self.0.partition_point(|(_, to)| *to < counter.0);
        self.0.get(at).is_some_and(|(from, _)| *from <= counter.0)
    }

    fn insert_range(&mut self, from: u64, to: u64) {
        // The usual case: one more at the end.
        if let Some((_, last)) = self.0.last_mut()
            && *last + 1 == from
        {
            *last = to;
            return;
        }
        let begin = self.0.partition_point(|(_, end)| end.saturating_add(1) < from);
        let end = self.0.partition_point(|(start, _)| *start <= to.saturating_add(1));
        if begin < end {
            let merged = (self.0[begin].0.min(from), self.0[end - 1].1.max(to));
            self.0.splice(begin..end, [merged]);
        } else {
            self.0.insert(begin, (from, to));
        }
    }

    fn minus(&self, other: &Counters) -> Counters {
        let mut left = Vec::new();
        let mut taken = other.0.iter().peekable();
        for (from, to) in &self.0 {
            let mut at = *from;
            while let Some((other_from, other_to)) = taken.peek() {
                if *other_to < at {
                    taken.next();
                    continue;
                }
                if *other_from > *to {
                    break;
                }
                if *other_from > at {
                    left.push((at, other_from - 1));
                }
                at = other_to + 1;
                if at > *to {
                    break;
                }
            }
            if at <= *to {
                left.push((at, *to));
            }
        }
        Counters(left)
    }

    fn common(&self, other: &Counters) -> Counters {
        self.minus(&self.minus(other))
    }
}

/// A set of dots of one partition: for every actor a contiguous counter and what is seen
/// above the gaps.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct VersionVector {
    #[serde(deserialize_with = "bounded::map::<_, _, _, { limits::VECTOR_ACTORS }>")]
    actors: BTreeMap<Actor, Counters>,
}

impl VersionVector {
    /// No dot at all.
    pub const fn empty() -> VersionVector {
        VersionVector { actors: BTreeMap::new() }
    }

    /// Adds a dot; whether it was new.
    pub fn insert(&mut self, dot: Dot) -> bool {
        let counters = self.actors.entry(dot.actor).or_default();
        // The usual case: the one after the last.
        if let Some((_, last)) = counters.0.last_mut()
            && *last + 1 == dot.counter.0
        {
            *last += 1;
            return true;
        }
        let new = !counters.contains(dot.counter);
        if new {
            counters.insert_range(dot.counter.0, dot.counter.0);
        }
        new
    }

    /// Adds every dot of an actor from one counter to another, both included.
    ///
    /// # Panics
    /// If they do not lie in this order above zero, or too near the end of all numbers.
    pub fn insert_range(&mut self, actor: Actor, from: Counter, to: Counter) {
        assert!(0 < from.0 && from <= to && to.0 <= u64::MAX - 2, "a range of counters");
        self.actors.entry(actor).or_default().insert_range(from.0, to.0);
    }

    /// Whether a dot has been seen.
    pub fn covers(&self, dot: Dot) -> bool {
        self.actors.get(&dot.actor).is_some_and(|counters| counters.contains(dot.counter))
    }

    /// Whether every dot of the other has been seen.
    pub fn covers_all(&self, other: &VersionVector) -> bool {
        other.actors.iter().all(|(actor, counters)| match self.actors.get(actor) {
            Some(own) => counters.minus(own).0.is_empty(),
            None => counters.0.is_empty(),
        })
    }

    /// Adds every dot of the other.
    pub fn join(&mut self, other: &VersionVector) {
        for (actor, counters) in &other.actors {
            let own = self.actors.entry(*actor).or_default();
            counters.0.iter().for_each(|(from, to)| own.insert_range(*from, *to));
        }
    }

    /// The dots that the other lacks.
    pub fn minus(&self, other: &VersionVector) -> VersionVector {
        self.each(|actor, counters| match other.actors.get(actor) {
            Some(theirs) => counters.minus(theirs),
            None => counters.clone(),
        })
    }

    /// The dots that both have.
    pub fn common(&self, other: &VersionVector) -> VersionVector {
        self.each(|actor, counters| other.actors.get(actor).map_or_else(Counters::default, |it| counters.common(it)))
    }

    fn each(&self, change: impl Fn(&Actor, &Counters) -> Counters) -> VersionVector {
        let changed = self.actors.iter().map(|(actor, counters)| (*actor, change(actor, counters)));
        VersionVector { actors: changed.filter(|(_, counters)| !counters.0.is_empty()).collect() }
    }

    /// The same with the gaps between the first and the last of each actor filled: one range each.
    pub fn without_gaps(&self) -> VersionVector {
        self.each(|_, counters| match (counters.0.first(), counters.0.last()) {
            (Some((from, _)), Some((_, to))) => Counters(vec![(*from, *to)]),
            _ => Counters::default(),
        })
    }

    /// What it has of those actors whose counters are as wanted.
    pub fn only(mut self, wanted: impl Fn(&Counters) -> bool) -> VersionVector {
        self.actors.retain(|_, counters| wanted(counters));
        self
    }

    /// Whether there is no dot.
    pub fn is_empty(&self) -> bool {
        self.actors.values().all(|counters| counters.0.is_empty())
    }

    /// How many dots there are, or 2⁶⁴ − 1 if there are more.
    pub fn count(&self) -> u64 {
        self.actors.values().map(Counters::count).fold(0, u64::saturating_add)
    }

    /// What has been seen of an actor.
    pub fn counters(&self, actor: Actor) -> Option<&Counters> {
        self.actors.get(&actor)
    }

    /// Every actor with what has been seen of it.
    pub fn actors(&self) -> impl Iterator<Item = (Actor, &Counters)> {
        self.actors.iter().map(|(actor, counters)| (*actor, counters))
    }

    /// Every dot, in order. There may be very many: take what you need.
    pub fn dots(&self) -> impl Iterator<Item = Dot> {
        self.actors.iter().flat_map(|(actor, counters)| {
            let each = counters.0.iter().flat_map(|(from, to)| *from..=*to);
            each.map(|counter| Dot { actor: *actor, counter: Counter(counter) })
        })
    }

    /// How many ranges it is made of: what it costs in memory and on the wire.
    pub fn ranges(&self) -> usize {
        self.actors.values().map(|counters| counters.0.len()).sum()
    }
}

impl fmt::Display for VersionVector {
    /// As in `n1.3[1-14 16] n2.1[1-3]`: node, incarnation, counters.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, (actor, counters)) in self.actors.iter().enumerate() {
            write!(f, "{}{}.{}[", if index == 0 { "" } else { " " }, actor.node, actor.incarnation)?;
            for (index, (from, to)) in counters.0.iter().enumerate() {
                let space = if index == 0 { "" } else { " " };
                if from == to { write!(f, "{space}{from}")? } else { write!(f, "{space}{from}-{to}")? }
            }
            write!(f, "]")?;
        }
        Ok(())
    }
}

impl fmt::Debug for VersionVector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{{{self}}}")
    }
}

impl FromIterator<Dot> for VersionVector {
    fn from_iter<I: IntoIterator<Item = Dot>>(dots: I) -> VersionVector {
        let mut vector = VersionVector::default();
        for dot in dots {
            vector.insert(dot);
        }
        vector
    }
}

/// What a version of a key was written on top of: for every actor the highest counter
/// that it has given to this key.
///
/// Every counter below counts as known, because an actor that issues a dot for a key
/// hands on all that it issued for that key before.
#[derive(Clone, Default, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub struct CausalContext {
    #[serde(deserialize_with = "issued_counters")]
    actors: BTreeMap<Actor, Counter>,
    /// The highest timestamp of what is known: what is written with this context gets a
    /// higher one, so that a tombstone is newer than all that it deletes.
    newest: Timestamp,
}

fn issued_counters<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<BTreeMap<Actor, Counter>, D::Error> {
    let actors = bounded::map::<D, Actor, Counter, { limits::CONTEXT_ACTORS }>(deserializer)?;
    match actors.values().all(|counter| counter.is_issued()) {
        true => Ok(actors),
        false => Err(serde::de::Error::custom("no counter of a dot")),
    }
}

impl CausalContext {
    /// Whether what this dot wrote to the key is known.
    pub fn covers(&self, dot: Dot) -> bool {
        self.actors.get(&dot.actor).is_some_and(|counter| dot.counter <= *counter)
    }

    /// Whether all that the other knows is known.
    pub fn covers_all(&self, other: &CausalContext) -> bool {
        other.actors.iter().all(|(actor, counter)| self.covers(Dot { actor: *actor, counter: *counter }))
    }

    /// Adds a dot and what its actor wrote before.
    pub fn insert(&mut self, dot: Dot) {
        let counter = self.actors.entry(dot.actor).or_default();
        *counter = dot.counter.max(*counter);
    }

    /// Adds a version and what its actor wrote before.
    pub fn insert_stamp(&mut self, stamp: Stamp) {
        self.insert(stamp.dot);
        self.raise(stamp.timestamp);
    }

    /// Something of this timestamp is known.
    pub fn raise(&mut self, timestamp: Timestamp) {
        self.newest = self.newest.max(timestamp);
    }

    /// The highest timestamp of what is known.
    pub fn newest(&self) -> Timestamp {
        self.newest
    }

    /// Adds all that the other knows.
    pub fn join(&mut self, other: &CausalContext) {
        self.newest = self.newest.max(other.newest);
        other.actors.iter().for_each(|(actor, counter)| self.insert(Dot { actor: *actor, counter: *counter }));
    }

    /// Whether nothing is known.
    pub fn is_empty(&self) -> bool {
        self.actors.is_empty()
    }

    /// Every actor with its highest counter.
    pub fn entries(&self) -> impl Iterator<Item = Dot> {
        self.actors.iter().map(|(actor, counter)| Dot { actor: *actor, counter: *counter })
    }
}

impl FromIterator<Dot> for CausalContext {
    fn from_iter<I: IntoIterator<Item = Dot>>(dots: I) -> CausalContext {
        let mut context = CausalContext::default();
        dots.into_iter().for_each(|dot| context.insert(dot));
        context
    }
}

impl FromIterator<Stamp> for CausalContext {
    fn from_iter<I: IntoIterator<Item = Stamp>>(stamps: I) -> CausalContext {
        let mut context = CausalContext::default();
        stamps.into_iter().for_each(|stamp| context.insert_stamp(stamp));
        context
    }
}

#[cfg(test)]
#[path = "vector_tests.rs"]
mod tests;
