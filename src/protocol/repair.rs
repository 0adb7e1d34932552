//! Log sync: replicas tell each other what they durably cover, fetch what they lack, and
//! let go of what all of them have.
//!
//! Problem: a replica misses mutations while it is down or cut off, and must get them
//! without anybody comparing all data; and what was deleted may be forgotten only when
//! nobody can bring it back.
//!
//! Messages: `Coverage` carries the version vectors that have changed since the last one
//! that was answered; `Pull` asks for what some dots wrote; the answer is absorbed under
//! the horizon that held when it was asked for.
//!
//! Invariants:
//! - A report is of what the peer's disk holds, and the peer's store is remembered durably
//!   with whatever rests on it ([`Mutation::Collect`]).
//! - Dots are let go of only if every replica of the partition in the present epoch has
//!   reported them, and this node covers all that any of them has reported: so no older
//!   mutation of the key can be unknown here, and one that nobody had is turned away as
//!   behind the horizon.
//! - At most one pull is under way for a partition.
//!
//! Source: Gonçalves et al., "DottedDB: Anti-Entropy without Merkle Trees, Deletes without
//! Tombstones", SRDS 2017.

use std::collections::{BTreeMap, BTreeSet};

use crate::types::{
    ClusterMap, CommitNumber, Coverage, Moment, NodeId, Partition, SeededBug, Timestamp, VersionVector, limits,
};

/// Partitions that one `Coverage` message speaks of, at most.
const PARTITIONS_AT_ONCE: usize = 2_048;
/// Pulls under way at once, at most.
const PULLS: usize = 8;
/// Dots that a store lets go of at once, at least.
const RELEASED_AT_ONCE: u64 = limits::RELEASED_DOTS as u64;
/// Partitions that are collected in one round, at most.
const COLLECTED_AT_ONCE: usize = 64;

#[derive(Clone, Debug, Default)]
struct Shared {
    own: VersionVector,
    horizon: Timestamp,
    /// In which group the own coverage has changed, as far as is known.
    changed: CommitNumber,
    /// What the other replicas have reported.
    reports: BTreeMap<NodeId, VersionVector>,
    /// What was let go of last, and how often the store has to be told for all of it to go.
    collected: VersionVector,
    rest: u64,
}

/// The state of log sync.
#[derive(Debug, Default)]
pub(super) struct Repair {
    partitions: BTreeMap<Partition, Shared>,
    own_commit: CommitNumber,
    /// Up to which group a peer has answered to know our coverage.
    told: BTreeMap<NodeId, CommitNumber>,
    /// What was sent to a peer and is not answered.
    telling: BTreeMap<NodeId, CommitNumber>,
    pulling: BTreeMap<Partition, NodeId>,
    /// Whether a look at the own store is under way.
    pub(super) looking: bool,
    /// Whether the own store has ever said what it covers.
    has_looked: bool,
    /// Where the next collection begins, so that every partition has its turn.
    collect_from: Partition,
    /// Whether the last collection left something for the next.
    left_over: bool,
    pub(super) next_round: Moment,
    pub(super) next_collection: Moment,
    /// Partitions with values that end by themselves are looked at in turn.
    sweep: Partition,
    unremembered: BTreeSet<NodeId>,
}

/// A pull to be sent.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Wanted {
    pub(super) from: NodeId,
    pub(super) partition: Partition,
    pub(super) dots: VersionVector,
}

/// Dots of a partition that may be let go of, and on whose word.
pub(super) type Collectable = (Partition, VersionVector, Vec<NodeId>);

/// What this node and all others cover.
fn stable_of(own: &VersionVector, reports: &[&VersionVector]) -> VersionVector {
    reports.iter().fold(own.clone(), |stable, report| stable.common(report))
}

impl Repair {
    /// Begins with what the store knew.
    pub(super) fn new(own_commit: CommitNumber) -> Repair {
        Repair { own_commit, ..Repair::default() }
    }

    /// The last group of the own store that is known to be durable.
    pub(super) fn own_commit(&self) -> CommitNumber {
        self.own_commit
    }

    /// Up to where tombstones of a partition were let go of here, as far as is known.
    pub(super) fn horizon(&self, partition: Partition) -> Timestamp {
        self.partitions.get(&partition).map_or(Timestamp::default(), |shared| shared.horizon)
    }

    /// Since which group the own store is to be asked what has changed.
    pub(super) fn looked_until(&self) -> CommitNumber {
        if self.has_looked { self.own_commit } else { CommitNumber(0) }
    }

    /// A peer has to be told everything.
    pub(super) fn peer_admitted(&mut self, peer: NodeId) {
        self.told.remove(&peer);
        self.telling.remove(&peer);
    }

    /// The connection to a peer is gone: what it was asked, it will not answer.
    pub(super) fn peer_lost(&mut self, peer: NodeId) {
        self.telling.remove(&peer);
        self.pulling.retain(|_, from| *from != peer);
    }

    /// The store had no room; it is asked again with the next round.
    pub(super) fn remember_later(&mut self, peer: NodeId) {
        self.unremembered.insert(peer);
    }

    /// What is still to be remembered.
    pub(super) fn unremembered(&mut self) -> BTreeSet<NodeId> {
        std::mem::take(&mut self.unremembered)
    }

    /// The own store was looked at.
    pub(super) fn looked(&mut self, commit: CommitNumber, changed: Vec<Coverage>) {
        self.looking = false;
        self.has_looked = true;
        self.own_commit = self.own_commit.max(commit);
        for Coverage { partition, vector, horizon } in changed {
            let shared = self.partitions.entry(partition).or_default();
            shared.own = vector;
            shared.horizon = horizon;
            shared.changed = commit;
        }
    }

    /// What a peer is to be told now; none if the last was not answered yet.
    pub(super) fn tell(&mut self, peer: NodeId, me: NodeId, map: &ClusterMap) -> Option<(CommitNumber, Vec<Coverage>)> {
        if self.telling.contains_key(&peer) {
            return None;
        }
        let told = self.told.get(&peer).copied();
        let shares = |partition: Partition| {
            let replicas = map.assignment.replicas(partition);
            replicas.contains(&me) && replicas.contains(&peer)
        };
        let news = self.partitions.iter().filter(|(partition, shared)| {
            told.is_none_or(|told| shared.changed > told) && !shared.own.is_empty() && shares(**partition)
        });
        let mut news: Vec<(&Partition, &Shared)> = news.collect();
        // Oldest changes first, so that what is cut off comes with the next message.
        news.sort_by_key(|(partition, shared)| (shared.changed, **partition));
        let mut until = self.own_commit;
        if news.len() > PARTITIONS_AT_ONCE {
            let last = news[PARTITIONS_AT_ONCE - 1].1.changed;
            news.retain(|(_, shared)| shared.changed <= last);
            until = last;
        }
        let coverage = |(partition, shared): (&Partition, &Shared)| Coverage {
            partition: *partition,
            vector: shared.own.clone(),
            horizon: shared.horizon,
        };
        let changed = news.into_iter().map(coverage).collect();
        self.telling.insert(peer, until);
        Some((self.own_commit, changed))
    }

    /// A peer has taken in what it was told.
    pub(super) fn told(&mut self, peer: NodeId) {
        if let Some(until) = self.telling.remove(&peer) {
            self.told.insert(peer, until);
        }
    }

    /// A peer did not take in what it was told.
    pub(super) fn not_told(&mut self, peer: NodeId) {
        self.telling.remove(&peer);
    }

    /// A peer reports what it covers.
    pub(super) fn reported(&mut self, peer: NodeId, changed: Vec<Coverage>) {
        for Coverage { partition, vector, .. } in changed {
            self.partitions.entry(partition).or_default().reports.insert(peer, vector);
        }
    }

    /// What to pull now.
    pub(super) fn pulls(&mut self, me: NodeId, map: &ClusterMap, reachable: impl Fn(NodeId) -> bool) -> Vec<Wanted> {
        let mut wanted = Vec::new();
        for (partition, shared) in &self.partitions {
            if self.pulling.len() + wanted.len() >= PULLS {
                break;
            }
            if self.pulling.contains_key(partition) || !map.assignment.replicas(*partition).contains(&me) {
                continue;
            }
            let lacking = shared.reports.iter().filter(|(peer, _)| reachable(**peer)).find_map(|(peer, report)| {
                let dots = report.minus(&shared.own);
                (!dots.is_empty()).then_some((*peer, dots))
            });
            if let Some((from, dots)) = lacking {
                wanted.push(Wanted { from, partition: *partition, dots });
            }
        }
        for wanted in &wanted {
            self.pulling.insert(wanted.partition, wanted.from);
        }
        wanted
    }

    /// A pull has ended, one way or another.
    pub(super) fn pulled(&mut self, partition: Partition) {
        self.pulling.remove(&partition);
    }

    /// What may be let go of now: partitions with the dots that all replicas cover, and on
    /// whose word.
    pub(super) fn collectable(&mut self, me: NodeId, map: &ClusterMap) -> Vec<Collectable> {
        let mut found = Vec::new();
        let swept: BTreeSet<Partition> = self.swept();
        self.left_over = false;
        let (from, mut next) = (self.collect_from, Partition(0));
        let mut turn: Vec<(&Partition, &mut Shared)> = self.partitions.iter_mut().collect();
        let begins = turn.partition_point(|(partition, _)| **partition < from);
        turn.rotate_left(begins);
        for (partition, shared) in turn {
            if found.len() >= COLLECTED_AT_ONCE {
                next = *partition;
                self.left_over = true;
                break;
            }
            let replicas = map.assignment.replicas(*partition);
            let others: Vec<NodeId> = replicas.iter().copied().filter(|node| *node != me).collect();
            if others.len() == replicas.len() {
                continue;
            }
            let reports: Option<Vec<&VersionVector>> = others.iter().map(|node| shared.reports.get(node)).collect();
            let Some(reports) = reports else { continue };
            if !reports.iter().all(|report| shared.own.covers_all(report)) {
                continue;
            }
            let early = SeededBug::TombstoneCollectedEarly.is_planted() || SeededBug::LogTruncatedEarly.is_planted();
            let stable = if early { shared.own.clone() } else { stable_of(&shared.own, &reports) };
            if stable != shared.collected {
                shared.rest += 1 + stable.minus(&shared.collected).count() / RELEASED_AT_ONCE;
            } else if shared.rest == 0 && !swept.contains(partition) {
                continue;
            }
            shared.rest = shared.rest.saturating_sub(1);
            self.left_over |= shared.rest > 0;
            shared.collected = stable.clone();
            found.push((*partition, stable, others));
        }
        self.collect_from = next;
        found
    }

    /// Whether the last collection left something for the next.
    pub(super) fn has_more(&self) -> bool {
        self.left_over
    }

    /// Some partitions, others each time, so that what expires without a further write is
    /// let go of too.
    fn swept(&mut self) -> BTreeSet<Partition> {
        let from_here = self.partitions.range(self.sweep..).map(|(partition, _)| *partition);
        let swept: BTreeSet<Partition> = from_here.take(COLLECTED_AT_ONCE / 4).collect();
        self.sweep = match swept.last() {
            Some(last) if swept.len() == COLLECTED_AT_ONCE / 4 => Partition(last.0.saturating_add(1)),
            _ => Partition(0),
        };
        swept
    }
}
