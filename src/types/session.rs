//! What a client has seen, so that it never sees less.
//!
//! Problem: below QUORUM a client may write to one replica and read from another that has
//! not heard of it. Invariant: whoever reads within a session asks replicas until one has
//! had every mutation that the session names in the key's partition, or all were asked.
//! A session names only what fewer replicas than a quorum are known to hold: what a quorum
//! holds, quorum reads see by themselves.
//! A session that has seen much names more than it has seen: the gaps are filled, which asks
//! for more than is needed and never for less.
//! Source: Terry et al., "Session Guarantees for Weakly Consistent Replicated Data", 1994.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{Dot, Partition, VersionVector, bounded, limits};

/// The mutations that a client has written or read, by partition.
#[derive(Clone, Default, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Session {
    #[serde(deserialize_with = "bounded::map::<_, _, _, { limits::SESSION_RANGES }>")]
    seen: BTreeMap<Partition, VersionVector>,
}

/// The bytes are no session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a session token")]
pub struct InvalidSession;

/// The session has seen more than a token may hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the session has grown too large: begin a new one, or read and write at quorum")]
pub struct SessionFull;

impl Session {
    fn ranges(&self) -> usize {
        self.seen.values().map(VersionVector::ranges).sum()
    }

    /// Notes a mutation.
    ///
    /// # Errors
    /// [`SessionFull`]; it is not noted then.
    pub fn note(&mut self, partition: Partition, dot: Dot) -> Result<(), SessionFull> {
        let seen = self.seen.get(&partition);
        if seen.is_some_and(|seen| seen.covers(dot)) {
            return Ok(());
        }
        if self.ranges() >= limits::SESSION_RANGES {
            for seen in self.seen.values_mut() {
                *seen = seen.without_gaps();
            }
            if self.ranges() >= limits::SESSION_RANGES {
                return Err(SessionFull);
            }
        }
        self.seen.entry(partition).or_default().insert(dot);
        Ok(())
    }

    /// What a read in this partition must see.
    pub fn in_partition(&self, partition: Partition) -> VersionVector {
        self.seen.get(&partition).cloned().unwrap_or_default()
    }

    /// Whether it asks for nothing.
    pub fn is_empty(&self) -> bool {
        self.seen.is_empty()
    }

    /// Its bytes, for a token.
    pub fn encode(&self) -> Vec<u8> {
        postcard::to_stdvec(self).expect("our own types serialize into memory")
    }

    /// The session in these bytes.
    ///
    /// # Errors
    /// [`InvalidSession`] if they are something else, or more than a session may hold.
    pub fn decode(bytes: &[u8]) -> Result<Session, InvalidSession> {
        let (session, rest) = postcard::take_from_bytes::<Session>(bytes).map_err(|_| InvalidSession)?;
        if rest.is_empty() && session.ranges() <= limits::SESSION_RANGES { Ok(session) } else { Err(InvalidSession) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::{Actor, Counter, Incarnation, NodeId};

    #[test]
    fn a_session_is_bounded_and_reads_back() {
        let actor = Actor { node: NodeId::new(1).expect("not zero"), incarnation: Incarnation(1) };
        let dot = |counter| Dot { actor, counter: Counter(counter) };
        let mut session = Session::default();
        for counter in 0..limits::SESSION_RANGES as u64 {
            session.note(Partition(3), dot(2 * counter + 1)).expect("there is room");
        }
        assert_eq!(session.note(Partition(3), dot(1)), Ok(()));
        assert!(!session.in_partition(Partition(3)).covers(dot(2)));
        assert_eq!(Session::decode(&session.encode()), Ok(session.clone()));
        assert!(session.in_partition(Partition(3)).covers(dot(5)) && session.in_partition(Partition(4)).is_empty());
        for cut in [0, 1, session.encode().len() - 1] {
            assert_eq!(Session::decode(&session.encode()[..cut]), Err(InvalidSession));
        }
        // More than it can name one by one: it names what lies between, too.
        let before = session.in_partition(Partition(3));
        assert_eq!(session.note(Partition(4), dot(7)), Ok(()));
        assert!(session.in_partition(Partition(3)).covers_all(&before));
        assert_eq!((session.in_partition(Partition(3)).ranges(), session.in_partition(Partition(4)).count()), (1, 1));
        assert!(session.in_partition(Partition(3)).covers(dot(2)));
    }

    #[test]
    fn a_session_in_too_many_partitions_is_full() {
        let actor = Actor { node: NodeId::new(1).expect("not zero"), incarnation: Incarnation(1) };
        let dot = Dot { actor, counter: Counter(1) };
        let mut session = Session::default();
        for number in 0..limits::SESSION_RANGES as u16 {
            session.note(Partition(number), dot).expect("there is room");
        }
        assert_eq!(session.note(Partition(limits::SESSION_RANGES as u16), dot), Err(SessionFull));
        assert_eq!(session.note(Partition(0), dot), Ok(()), "what is noted needs no room");
    }
}
