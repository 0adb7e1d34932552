//! What a client has written and read, so that it never sees less: the front ends' half of
//! a session.
//!
//! Problem: at levels that share no replica, a client may write to one and read from another.
//! Invariants: what a client has written, and what it has read, is noted unless every
//! replica has it, and every read of a session names what is noted in the read's partition.
//! A session that names too much even with its gaps filled forgets all of it, and from then
//! on raises its reads to a level that sees it anyway: quorum if a quorum is known to hold everything that was
//! forgotten, else all.
//! Left out: a read that finds nothing notes nothing, nor do scans and changes of expiry.

use crate::types::{ClusterMap, ConsistencyLevel, Dot, Key, Operation, Partition, Request, Response, Session};

use super::token::{self, InvalidToken};

/// What a client has seen.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Seen {
    session: Session,
    raised: Raised,
}

/// To what the reads of a session are raised, and would be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Raised {
    /// The level to which they are raised, if they are.
    pub level: Option<ConsistencyLevel>,
    /// Whether something was noted that fewer than a quorum are known to hold.
    pub weak: bool,
}

/// Where an answer is to be noted.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    partition: Partition,
    replicas: usize,
    /// Whether the request, if it is a read, shares a replica with every other such.
    quorum: bool,
}

impl Place {
    /// Where the answer to a request is noted; none if it is about no single partition.
    pub fn of(map: &ClusterMap, operation: &Operation, level: ConsistencyLevel) -> Option<Place> {
        match operation {
            Operation::Truncate { at, .. } => Some(Place::within(map, map.partitions.partition_of(*at), level)),
            other => Some(Place::of_key(map, other.key()?, level)),
        }
    }

    /// Where what is known of a key is noted.
    pub fn of_key(map: &ClusterMap, key: &Key, level: ConsistencyLevel) -> Place {
        Place::within(map, map.partition_of(key), level)
    }

    fn within(map: &ClusterMap, partition: Partition, level: ConsistencyLevel) -> Place {
        let replicas = map.assignment.replicas(partition).len();
        Place { partition, replicas, quorum: level.is_quorum(replicas) }
    }
}

impl Seen {
    /// What a token stands for; an empty one begins a session.
    ///
    /// # Errors
    /// [`InvalidToken`].
    pub fn of_token(text: &[u8]) -> Result<Seen, InvalidToken> {
        if text.is_empty() {
            return Ok(Seen::default());
        }
        let (session, raised) = token::session(text)?;
        Ok(Seen { session, raised })
    }

    /// The token to hand to the client.
    pub fn token(&self) -> String {
        token::of_session(&self.session, self.raised)
    }

    /// The level to which reads are raised.
    pub fn raised(&self) -> Option<ConsistencyLevel> {
        self.raised.level
    }

    /// Lets a read see all that was seen.
    pub fn guard(&self, request: &mut Request, place: Place) {
        if let Some(raised) = self.raised.level
            && !request.operation.writes()
            && raised.required(place.replicas) > request.consistency.required(place.replicas)
        {
            request.consistency = raised;
        }
        if !self.session.is_empty() {
            request.session = self.session.in_partition(place.partition);
        }
    }

    /// Notes what an answer shows.
    pub fn note(&mut self, place: Place, response: &Response) {
        match response {
            Response::Written(reply) => self.note_write(place, reply.stamp.dot, reply.acknowledged),
            Response::Read(Some(reply)) => {
                self.note_read(place, reply.stamp.dot);
                reply.siblings.iter().for_each(|sibling| self.note_read(place, sibling.stamp.dot));
            }
            Response::Head(Some(summary)) => self.note_read(place, summary.stamp.dot),
            Response::Explained(response, _) => self.note(place, response),
            _ => {}
        }
    }

    /// Notes a write that so many replicas had when it was answered.
    pub fn note_write(&mut self, place: Place, dot: Dot, acknowledged: u8) {
        let acknowledged = usize::from(acknowledged);
        if acknowledged < place.replicas {
            self.note_dot(place.partition, dot, acknowledged * 2 > place.replicas);
        }
    }

    fn note_read(&mut self, place: Place, dot: Dot) {
        if place.replicas > 1 {
            self.note_dot(place.partition, dot, place.quorum);
        }
    }

    fn note_dot(&mut self, partition: Partition, dot: Dot, on_quorum: bool) {
        self.raised.weak |= !on_quorum;
        let raised = if self.raised.weak { ConsistencyLevel::All } else { ConsistencyLevel::Quorum };
        if self.raised.level == Some(raised) {
            // Reads see it by themselves.
            return;
        }
        if self.session.note(partition, dot).is_err() {
            self.session = Session::default();
            self.raised.level = Some(raised);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::{Actor, Counter, Incarnation, NamespaceId, NodeId, VersionVector, limits};

    const PLACE: Place = Place { partition: Partition(3), replicas: 3, quorum: false };

    fn dot(counter: u64) -> Dot {
        let node = NodeId::new(1).expect("not zero");
        Dot { actor: Actor { node, incarnation: Incarnation(7) }, counter: Counter(counter) }
    }

    fn read(level: ConsistencyLevel) -> Request {
        let key = Key::new(NamespaceId::DEFAULT, "k").expect("a key");
        Request::new(Operation::Get { key }, level)
    }

    #[test]
    fn what_not_every_replica_has_is_named_by_the_reads_of_its_partition() {
        let mut seen = Seen::default();
        seen.note_write(PLACE, dot(1), 3);
        assert_eq!(seen, Seen::default(), "every replica has it");
        seen.note_write(PLACE, dot(2), 2);
        seen.note_write(PLACE, dot(5), 1);
        let mut request = read(ConsistencyLevel::One);
        seen.guard(&mut request, PLACE);
        assert_eq!(request.session, VersionVector::from_iter([dot(2), dot(5)]));
        let mut elsewhere = read(ConsistencyLevel::One);
        seen.guard(&mut elsewhere, Place { partition: Partition(4), ..PLACE });
        assert!(elsewhere.session.is_empty());
        assert_eq!(Seen::of_token(seen.token().as_bytes()), Ok(seen));
        assert_eq!(Seen::of_token(b""), Ok(Seen::default()));
    }

    #[test]
    fn a_session_that_is_full_raises_its_reads_instead() {
        for (acknowledged, level) in [(2, ConsistencyLevel::Quorum), (1, ConsistencyLevel::All)] {
            let mut seen = Seen::default();
            for number in 0..=limits::SESSION_RANGES as u16 {
                assert_eq!(seen.raised(), None);
                seen.note_write(Place { partition: Partition(number), ..PLACE }, dot(1), acknowledged);
            }
            assert_eq!(seen.raised(), Some(level));
            assert_eq!(Seen::of_token(seen.token().as_bytes()), Ok(seen.clone()), "a token keeps it");
            let mut request = read(ConsistencyLevel::One);
            seen.guard(&mut request, PLACE);
            assert_eq!((request.consistency, request.session.is_empty()), (level, true));
            // From one that is enough for less to one that is enough for all.
            seen.note_write(PLACE, dot(9_000), 1);
            let mut request = read(ConsistencyLevel::One);
            seen.guard(&mut request, PLACE);
            let all = request.consistency == ConsistencyLevel::All;
            assert!(all || request.session.covers(dot(9_000)), "{acknowledged}");
        }
    }
}
