//! What a client asks, and what was known when it began to ask.

use bytes::Bytes;

use crate::types::{CausalContext, ConsistencyLevel, Expiry, Moment, Stamp, VersionVector};

use super::schedule::HostIndex;

/// The kinds of questions, about one key each, or about where it lies.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Kind {
    Get,
    Head,
    Put {
        value: Bytes,
        expiry: Expiry,
        context: CausalContext,
    },
    Delete {
        context: CausalContext,
    },
    SetExpiry {
        expiry: Expiry,
    },
    Confirm {
        stamp: Stamp,
        replicas: u8,
    },
    /// What became of the write under the operation's op-id.
    Resolve,
    /// The namespace of the key, from the begin of its partition.
    Scan {
        limit: u32,
    },
    /// All of the namespace of the key in its partition.
    Truncate,
    /// What all replicas know of the key.
    History,
}

impl Kind {
    /// Whether it changes something.
    pub(super) fn writes(&self) -> bool {
        match self {
            Kind::Put { .. } | Kind::Delete { .. } | Kind::SetExpiry { .. } | Kind::Resolve | Kind::Truncate => true,
            Kind::Get | Kind::Head | Kind::Confirm { .. } | Kind::Scan { .. } | Kind::History => false,
        }
    }
}

/// One question of one client.
#[derive(Clone, Debug)]
pub(super) struct Operation {
    pub(super) number: u64,
    pub(super) host: HostIndex,
    pub(super) key: usize,
    pub(super) kind: Kind,
    pub(super) level: ConsistencyLevel,
    /// How many replicas the level asks for.
    pub(super) needed: usize,
    pub(super) begun: Moment,
    /// What had been acknowledged for the key by then.
    pub(super) floors: Floors,
    pub(super) stage: Stage,
    /// Which of the named writes it is an attempt at, or asks about.
    pub(super) op: Option<usize>,
    /// What the client's session names in the partition.
    pub(super) session: VersionVector,
    /// What it names of the key.
    pub(super) noted: Vec<Stamp>,
    pub(super) explain: bool,
    /// For a scan: what had been acknowledged for every key.
    pub(super) all_floors: Vec<Floors>,
}

/// In which part of the run an operation began.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Stage {
    /// Anything may fail.
    Faults,
    /// Everything must succeed.
    Live,
    /// The last reads.
    Last,
}

/// The newest version of a key that was acknowledged by 1, 2, … replicas.
#[derive(Clone, Copy, Default, Debug)]
pub(super) struct Floors([Option<Stamp>; 8]);

impl Floors {
    /// A write was acknowledged by this many replicas.
    pub(super) fn raise(&mut self, replicas: usize, stamp: Stamp) {
        let held = &mut self.0[replicas.min(7)];
        *held = (*held).max(Some(stamp));
    }

    /// Some copies are gone: what is left of each promise.
    pub(super) fn recount(&mut self, holders: impl Fn(Stamp) -> usize) {
        for (replicas, stamp) in std::mem::take(&mut self.0).into_iter().enumerate() {
            if let Some(stamp) = stamp {
                self.raise(replicas.min(holders(stamp)), stamp);
            }
        }
    }

    /// The newest version that must be met by whoever asks `needed` of `replicas`: those
    /// acknowledged by so many that the two sets share one.
    pub(super) fn met_by(&self, needed: usize, replicas: usize) -> Option<Stamp> {
        let sharing = (replicas + 1).saturating_sub(needed).max(1);
        self.0.iter().skip(sharing).copied().max().flatten()
    }
}

/// How many of `replicas` a level promises. Written out again, because a checker that
/// asked the code under test what it has to keep would miss a quorum that is too small.
pub(super) fn promised(level: ConsistencyLevel, replicas: usize) -> usize {
    match level {
        ConsistencyLevel::Any => replicas.min(2),
        ConsistencyLevel::One => 1,
        ConsistencyLevel::Two => 2,
        ConsistencyLevel::Three => 3,
        ConsistencyLevel::Quorum => replicas / 2 + 1,
        ConsistencyLevel::All => replicas,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::{Actor, Counter, Dot, Incarnation, NodeId, Timestamp};

    #[test]
    fn only_sets_that_share_a_replica_are_compared() {
        let actor = Actor { node: NodeId::new(1).expect("not zero"), incarnation: Incarnation(1) };
        let stamp = |time| Stamp { timestamp: Timestamp(time), dot: Dot { actor, counter: Counter(time) } };
        let mut floors = Floors::default();
        floors.raise(1, stamp(9));
        floors.raise(2, stamp(5));
        floors.raise(3, stamp(3));
        assert_eq!(floors.met_by(1, 3), Some(stamp(3)));
        assert_eq!(floors.met_by(2, 3), Some(stamp(5)));
        assert_eq!(floors.met_by(3, 3), Some(stamp(9)));
        assert_eq!(Floors::default().met_by(2, 3), None);
    }
}
