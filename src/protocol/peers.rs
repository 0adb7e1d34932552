//! What this node has seen of its peers itself: connected or not, and how they answer.
//!
//! Problem: a request must choose the replicas that will answer soonest, and know when
//! one is late, without asking anybody. A slow replica is not dead: it is asked last and
//! waited for less, and no verdict follows.
//! Invariant: what gossip says only changes the order; an estimate is never below
//! [`FASTEST`], so that a hedge is never sent at once; what has not been confirmed for
//! `STALE` is forgotten, so that a replica that has recovered is tried again.
//! Source: hedged requests, Dean and Barroso, "The Tail at Scale", CACM 2013; the p95 is a
//! frugal streaming quantile (Ma, Muthukrishnan, Sandler, 2013); Cassandra's dynamic snitch.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::types::{Incarnation, Moment, NodeId};

/// The lowest estimate of a peer's p95.
pub const FASTEST: Duration = Duration::from_millis(2);
/// The highest estimate of a peer's p95.
const SLOWEST: Duration = Duration::from_secs(1);
/// For how long what was seen of a peer counts against it.
const STALE: Duration = Duration::from_secs(10);
/// A peer is slow if its p95 is so many times the usual one ...
const SLOW_TIMES: u64 = 3;
/// ... and exceeds it by so many microseconds: less is noise.
const SLOW_US: u64 = 5_000;
/// Answers missed of a thousand, lately, from which on a peer is slow.
const MISSED_OF_1000: u32 = 300;
/// How often the usual p95 is taken anew, in answers.
const USUAL_EVERY: u32 = 64;

/// The peers met so far.
#[derive(Clone, Debug, Default)]
pub struct PeerTable {
    peers: BTreeMap<NodeId, PeerState>,
    /// Members of whom gossip says that they may be down.
    doubted: BTreeSet<NodeId>,
    /// The median of the peers' p95.
    usual_us: Option<u64>,
    answers: u32,
}

#[derive(Clone, Debug)]
struct PeerState {
    connected: bool,
    /// Whether its store was found to be the one that is remembered.
    admitted: bool,
    incarnation: Incarnation,
    /// Answers that were late since the last one that came.
    missed: u32,
    /// How many of a thousand answers were missed, the last ones counting most.
    missed_of_1000: u32,
    p95_us: Option<u64>,
    seen: Moment,
}

/// How a peer answers, for people.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct PeerScore {
    /// The 95th percentile of the times to an answer, if there were any.
    pub p95: Option<Duration>,
    /// How many of a thousand answers were missed lately.
    pub missed_of_1000: u32,
    /// Whether it is asked last for that.
    pub slow: bool,
}

impl PeerTable {
    /// A connection to a peer stands.
    pub fn up(&mut self, peer: NodeId, incarnation: Incarnation) {
        let state = self.peers.entry(peer).or_insert(PeerState {
            connected: false,
            admitted: false,
            incarnation,
            missed: 0,
            missed_of_1000: 0,
            p95_us: None,
            seen: Moment::default(),
        });
        state.connected = true;
        state.missed = 0;
        if state.incarnation != incarnation {
            state.admitted = false;
            state.incarnation = incarnation;
            state.p95_us = None;
            state.missed_of_1000 = 0;
        }
    }

    /// The connection to a peer is gone.
    pub fn down(&mut self, peer: NodeId) {
        if let Some(state) = self.peers.get_mut(&peer) {
            state.connected = false;
            state.admitted = false;
        }
    }

    /// Its store is the one that is remembered: it may be asked and answered.
    pub fn admit(&mut self, peer: NodeId) {
        if let Some(state) = self.peers.get_mut(&peer) {
            state.admitted = state.connected;
        }
    }

    /// Whether there is a connection to a peer, admitted or not.
    pub fn is_linked(&self, peer: NodeId) -> bool {
        self.peers.get(&peer).is_some_and(|state| state.connected)
    }

    /// Whether there is a connection to a peer, and it may be asked.
    pub fn is_connected(&self, peer: NodeId) -> bool {
        self.peers.get(&peer).is_some_and(|state| state.admitted)
    }

    /// The peers that may be asked.
    pub fn connected(&self) -> impl Iterator<Item = NodeId> + '_ {
        self.peers.iter().filter(|(_, state)| state.admitted).map(|(peer, _)| *peer)
    }

    /// The life a peer was last met in.
    pub fn incarnation(&self, peer: NodeId) -> Option<Incarnation> {
        self.peers.get(&peer).map(|state| state.incarnation)
    }

    /// Gossip says that a member may be down, or that it is well.
    pub fn hint(&mut self, member: NodeId, doubted: bool) {
        if doubted {
            self.doubted.insert(member);
        } else {
            self.doubted.remove(&member);
        }
    }

    /// A peer answered a read after this long.
    pub fn answered(&mut self, now: Moment, peer: NodeId, after: Duration) {
        let Some(state) = self.peers.get_mut(&peer) else { return };
        state.missed = 0;
        state.missed_of_1000 -= state.missed_of_1000.div_ceil(16);
        state.seen = now;
        let sample = u64::try_from(after.as_micros()).unwrap_or(u64::MAX);
        if let Some(p95) = &mut state.p95_us {
            // 19 samples out of 20 should lie below, so one above weighs as much as 19 below.
            let step = (*p95 / 256).max(1);
            if sample > *p95 {
                *p95 = p95.saturating_add(step.saturating_mul(19));
            } else {
                *p95 = p95.saturating_sub(step);
            }
            *p95 = (*p95).clamp(1, SLOWEST.as_micros() as u64);
        } else {
            // The first answer is one of many to come: start with room above it.
            state.p95_us = Some(sample.saturating_mul(2).min(SLOWEST.as_micros() as u64));
        }
        self.answers = self.answers.wrapping_add(1);
        if self.usual_us.is_none() || self.answers.is_multiple_of(USUAL_EVERY) {
            let mut all: Vec<u64> = self.peers.values().filter_map(|state| state.p95_us).collect();
            all.sort_unstable();
            // Of two the faster one: the slower must not make itself usual.
            self.usual_us = all.get(all.len().saturating_sub(1) / 2).copied();
        }
    }

    /// A peer did not answer within its time.
    pub fn missed(&mut self, now: Moment, peer: NodeId) {
        if let Some(state) = self.peers.get_mut(&peer) {
            state.missed = state.missed.saturating_add(1);
            state.missed_of_1000 += (1_000 - state.missed_of_1000) / 8;
            state.seen = now;
        }
    }

    fn is_slow(&self, now: Moment, state: &PeerState) -> bool {
        let usual = self.usual_us.unwrap_or(0);
        let long = state.p95_us.is_some_and(|p95| p95 > usual.saturating_mul(SLOW_TIMES) && p95 > usual + SLOW_US);
        now.since(state.seen) < STALE && (long || state.missed_of_1000 >= MISSED_OF_1000)
    }

    /// After how long an answer of this peer counts as late: its p95, but not much more than
    /// is usual, and no more than that if it is slow.
    pub fn late_after(&self, now: Moment, peer: NodeId, unknown: Duration) -> Duration {
        let Some(state) = self.peers.get(&peer) else { return unknown.max(FASTEST) };
        let Some(p95) = state.p95_us else { return unknown.max(FASTEST) };
        let usual = self.usual_us.unwrap_or(p95);
        let most = if self.is_slow(now, state) { usual } else { usual.saturating_mul(SLOW_TIMES).max(usual + SLOW_US) };
        Duration::from_micros(p95.min(most)).max(FASTEST)
    }

    /// How a peer answers.
    pub fn score(&self, now: Moment, peer: NodeId) -> PeerScore {
        let Some(state) = self.peers.get(&peer) else { return PeerScore::default() };
        let p95 = state.p95_us.map(Duration::from_micros);
        PeerScore { p95, missed_of_1000: state.missed_of_1000, slow: self.is_slow(now, state) }
    }

    /// Sorts replicas by how soon they will answer: `me` first, the doubted, late and slow ones
    /// last. Replicas that are alike stay in the order of the preference list.
    pub fn sort_by_promise(&self, now: Moment, me: NodeId, replicas: &mut [NodeId]) {
        replicas.sort_by_key(|replica| {
            let state = self.peers.get(replica);
            // Differences below a millisecond are noise and must not reorder.
            let p95_ms = state.and_then(|state| state.p95_us).map_or(0, |p95| p95 / 1_000);
            let fresh = state.is_some_and(|state| now.since(state.seen) < STALE);
            (
                *replica != me,
                self.doubted.contains(replica),
                state.is_some_and(|state| state.missed > 0) && fresh,
                state.is_some_and(|state| self.is_slow(now, state)),
                if fresh { p95_ms } else { 0 },
            )
        });
    }
}

#[cfg(test)]
#[path = "peers_tests.rs"]
mod tests;
