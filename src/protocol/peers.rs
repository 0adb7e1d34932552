//! What this node has seen of its peers itself: connected or not, and how fast they answer.
//!
//! Problem: a request must choose the replicas that will answer soonest, and know when
//! one is late, without asking anybody.
//! Invariant: a peer that answers is not suspected; an estimate is never below
//! [`FASTEST`], so that a hedge is never sent at once.
//! Source: hedged requests, Dean and Barroso, "The Tail at Scale", CACM 2013; the p95 is a
//! frugal streaming quantile (Ma, Muthukrishnan, Sandler, 2013).

use std::collections::BTreeMap;
use std::time::Duration;

use crate::types::{Incarnation, NodeId};

/// The lowest estimate of a peer's p95.
pub const FASTEST: Duration = Duration::from_millis(2);
/// The highest estimate of a peer's p95.
const SLOWEST: Duration = Duration::from_secs(1);

/// The peers met so far.
#[derive(Clone, Debug, Default)]
pub struct PeerTable {
    peers: BTreeMap<NodeId, PeerState>,
}

#[derive(Clone, Debug)]
struct PeerState {
    connected: bool,
    /// Whether its store was found to be the one that is remembered.
    admitted: bool,
    incarnation: Incarnation,
    /// Answers that were late since the last one that came.
    missed: u32,
    p95_us: Option<u64>,
}

impl PeerTable {
    /// A connection to a peer stands.
    pub fn up(&mut self, peer: NodeId, incarnation: Incarnation) {
        let state = self.peers.entry(peer).or_insert(PeerState {
            connected: false,
            admitted: false,
            incarnation,
            missed: 0,
            p95_us: None,
        });
        state.connected = true;
        state.missed = 0;
        if state.incarnation != incarnation {
            state.admitted = false;
            state.incarnation = incarnation;
            state.p95_us = None;
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

    /// A peer answered a read after this long.
    pub fn answered(&mut self, peer: NodeId, after: Duration) {
        let Some(state) = self.peers.get_mut(&peer) else { return };
        state.missed = 0;
        let sample = u64::try_from(after.as_micros()).unwrap_or(u64::MAX);
        let Some(p95) = &mut state.p95_us else {
            // The first answer is one of many to come: start with room above it.
            state.p95_us = Some(sample.saturating_mul(2));
            return;
        };
        // 19 samples out of 20 should lie below, so one above weighs as much as 19 below.
        let step = (*p95 / 256).max(1);
        if sample > *p95 {
            *p95 = p95.saturating_add(step.saturating_mul(19));
        } else {
            *p95 = p95.saturating_sub(step);
        }
        *p95 = (*p95).clamp(1, SLOWEST.as_micros() as u64);
    }

    /// A peer did not answer within its p95.
    pub fn missed(&mut self, peer: NodeId) {
        if let Some(state) = self.peers.get_mut(&peer) {
            state.missed = state.missed.saturating_add(1);
        }
    }

    /// When an answer of this peer counts as late.
    pub fn p95(&self, peer: NodeId, unknown: Duration) -> Duration {
        let known = self.peers.get(&peer).and_then(|state| state.p95_us).map(Duration::from_micros);
        known.unwrap_or(unknown).max(FASTEST)
    }

    /// Sorts replicas by how soon they will answer: `me` first, the late ones last.
    /// Replicas that are alike stay in the order of the preference list.
    pub fn sort_by_promise(&self, me: NodeId, replicas: &mut [NodeId]) {
        replicas.sort_by_key(|replica| {
            let state = self.peers.get(replica);
            // Differences below a millisecond are noise and must not reorder.
            let p95_ms = state.and_then(|state| state.p95_us).map_or(0, |p95| p95 / 1_000);
            (*replica != me, state.is_some_and(|state| state.missed > 0), p95_ms)
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(number: u32) -> NodeId {
        NodeId::new(number).expect("not zero")
    }

    #[test]
    fn the_estimate_settles_near_the_95th_percentile() {
        let mut peers = PeerTable::default();
        peers.up(node(1), Incarnation(1));
        for round in 0..20_000u64 {
            // 1 to 100 ms, evenly: the 95th percentile is 95 ms.
            peers.answered(node(1), Duration::from_millis(round * 37 % 100 + 1));
        }
        let p95 = peers.p95(node(1), Duration::ZERO).as_millis();
        assert!((80..=100).contains(&p95), "p95 was estimated as {p95} ms");
    }

    #[test]
    fn late_and_slow_replicas_are_asked_last() {
        let mut peers = PeerTable::default();
        for id in 1..=4 {
            peers.up(node(id), Incarnation(1));
        }
        peers.answered(node(2), Duration::from_millis(30));
        peers.answered(node(3), Duration::from_millis(3));
        peers.missed(node(4));
        let mut order = [node(2), node(4), node(3), node(1)];
        peers.sort_by_promise(node(1), &mut order);
        assert_eq!(order, [node(1), node(3), node(2), node(4)]);
        peers.answered(node(4), Duration::from_millis(1));
        peers.sort_by_promise(node(1), &mut order);
        assert_eq!(order, [node(1), node(4), node(3), node(2)]);
    }

    #[test]
    fn a_peer_that_was_never_met_is_not_connected() {
        let mut peers = PeerTable::default();
        assert!(!peers.is_connected(node(1)));
        peers.down(node(1));
        peers.up(node(1), Incarnation(3));
        assert!(peers.is_linked(node(1)) && !peers.is_connected(node(1)));
        peers.admit(node(1));
        assert!(peers.is_connected(node(1)));
        peers.down(node(1));
        assert!(!peers.is_connected(node(1)));
        assert_eq!(peers.incarnation(node(1)), Some(Incarnation(3)));
    }
}
