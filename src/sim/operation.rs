//! What a client asks, and what was known when it began to ask.

use bytes::Bytes;

use crate::types::{ConsistencyLevel, Expiry, Moment, Stamp};

use super::schedule::HostIndex;

/// The kinds of questions, about one key each.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Kind {
    Get,
    Head,
    Put { value: Bytes, expiry: Expiry },
    Delete,
    SetExpiry { expiry: Expiry },
    Confirm { stamp: Stamp, replicas: u8 },
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
