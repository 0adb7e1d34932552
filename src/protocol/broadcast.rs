//! Rumours for everybody, along a tree that mends itself (Plumtree).
//!
//! Problem: what one node says must reach all, once, over links of which each node has a
//! handful, although some break at that moment.
//!
//! Messages: `Rumour` (eager push), `Have` (lazy push), `Graft`, `Prune` of [`Gossip`].
//! A rumour is pushed at once to eager peers and announced a little later to the others.
//! Whoever gets it twice prunes the second way; whoever hears of one that does not come
//! asks for it, and that way is eager from then on. So the eager links become a tree.
//!
//! Invariant: eager and lazy peers are disjoint and together the active view; a rumour is
//! delivered once for as long as it is kept, and what is kept, missing or to be announced
//! is bounded.
//!
//! Source: Leitão, Pereira, Rodrigues, "Epidemic Broadcast Trees", SRDS 2007, section 3.
//!
//! Left out: the optimisation of the tree by distance (section 3.8): hops cost a
//! millisecond here.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use crate::types::{Incarnation, Moment, NodeId, limits};
use crate::wire::{Gossip, Rumour, RumourId};

use super::membership::MembershipCounters;

/// How long announcements gather.
const ANNOUNCE_AFTER: Duration = Duration::from_millis(50);
/// How long an announced rumour is waited for before it is asked for: longer than the
/// tree takes to bring it. Then the next one that has it is asked, after as long again.
const GRAFT_AFTER: Duration = Duration::from_millis(100);
/// How long rumours are kept: far longer than one takes to reach everybody.
const KEPT_FOR: Duration = Duration::from_secs(60);
/// Peers that are known to have a missing rumour, at most.
const SOURCES: usize = 8;
/// A rumour that has come so far goes round in circles.
const MOST_HOPS: u8 = 100;

#[derive(Clone, Copy, Debug)]
struct Kept {
    rumour: Rumour,
    hops: u8,
}

#[derive(Clone, Debug)]
struct Missing {
    sources: VecDeque<NodeId>,
    ask_at: Moment,
}

/// The rumours of one node.
#[derive(Debug)]
pub(super) struct Broadcast {
    me: NodeId,
    incarnation: Incarnation,
    next_number: u64,
    eager: BTreeSet<NodeId>,
    lazy: BTreeSet<NodeId>,
    kept: BTreeMap<RumourId, Kept>,
    order: VecDeque<(Moment, RumourId)>,
    missing: BTreeMap<RumourId, Missing>,
    to_announce: BTreeMap<NodeId, Vec<RumourId>>,
    announce_at: Option<Moment>,
}

/// A message to a peer.
pub(super) type Sent = (NodeId, Gossip);

impl Broadcast {
    pub(super) fn new(me: NodeId, incarnation: Incarnation) -> Broadcast {
        Broadcast {
            me,
            incarnation,
            next_number: 0,
            eager: BTreeSet::new(),
            lazy: BTreeSet::new(),
            kept: BTreeMap::new(),
            order: VecDeque::new(),
            missing: BTreeMap::new(),
            to_announce: BTreeMap::new(),
            announce_at: None,
        }
    }

    /// A peer is in the active view now, or its connection stands anew.
    pub(super) fn add(&mut self, peer: NodeId) {
        self.lazy.remove(&peer);
        self.eager.insert(peer);
    }

    /// A peer is there no more.
    pub(super) fn remove(&mut self, peer: NodeId) {
        self.eager.remove(&peer);
        self.lazy.remove(&peer);
        self.to_announce.remove(&peer);
        self.missing.retain(|_, missing| {
            missing.sources.retain(|source| *source != peer);
            !missing.sources.is_empty()
        });
    }

    pub(super) fn entries(&self) -> usize {
        self.kept.len() + self.missing.len() + self.to_announce.values().map(Vec::len).sum::<usize>()
    }

    /// When [`Broadcast::tick`] has something to do.
    pub(super) fn next_timeout(&self) -> Moment {
        let ask = self.missing.values().map(|missing| missing.ask_at).min();
        let oldest = self.order.front().map(|(since, _)| since.plus(KEPT_FOR));
        [self.announce_at, ask, oldest].into_iter().flatten().min().unwrap_or(Moment(u64::MAX))
    }

    /// Tells everybody.
    pub(super) fn begin(&mut self, now: Moment, rumour: Rumour, out: &mut Vec<Sent>) {
        let id = RumourId { origin: self.me, incarnation: self.incarnation, number: self.next_number };
        self.next_number += 1;
        self.take(now, id, 0, rumour, None, out);
    }

    fn take(&mut self, now: Moment, id: RumourId, hops: u8, rumour: Rumour, from: Option<NodeId>, out: &mut Vec<Sent>) {
        if self.order.len() >= limits::RUMOURS_KEPT
            && let Some((_, oldest)) = self.order.pop_front()
        {
            self.kept.remove(&oldest);
        }
        self.kept.insert(id, Kept { rumour, hops });
        self.order.push_back((now, id));
        self.missing.remove(&id);
        if hops >= MOST_HOPS {
            return;
        }
        let hops = hops + 1;
        let others = self.eager.iter().filter(|peer| Some(**peer) != from);
        out.extend(others.map(|peer| (*peer, Gossip::Rumour { id, hops, rumour })));
        for peer in self.lazy.iter().filter(|peer| Some(**peer) != from) {
            let ids = self.to_announce.entry(*peer).or_default();
            if ids.len() < limits::RUMOURS_KEPT {
                ids.push(id);
            }
            self.announce_at.get_or_insert(now.plus(ANNOUNCE_AFTER));
        }
    }

    /// A neighbour tells; returns the rumour if it is new.
    pub(super) fn hear(
        &mut self,
        now: Moment,
        from: NodeId,
        gossip: Gossip,
        counters: &mut MembershipCounters,
        out: &mut Vec<Sent>,
    ) -> Option<(RumourId, Rumour)> {
        let neighbor = self.eager.contains(&from) || self.lazy.contains(&from);
        match gossip {
            Gossip::Rumour { id, hops, rumour } => {
                if id.origin == self.me || self.kept.contains_key(&id) {
                    counters.rumours_repeated += 1;
                    if self.eager.remove(&from) {
                        self.lazy.insert(from);
                    }
                    if neighbor {
                        out.push((from, Gossip::Prune));
                    }
                    return None;
                }
                counters.rumours_heard += 1;
                if self.lazy.remove(&from) {
                    self.eager.insert(from);
                }
                self.take(now, id, hops, rumour, Some(from), out);
                return Some((id, rumour));
            }
            Gossip::Have { ids } if neighbor => {
                for id in ids {
                    self.announced(now, from, id);
                }
            }
            Gossip::Graft { id } if neighbor => {
                self.add(from);
                if let Some(kept) = self.kept.get(&id) {
                    let hops = kept.hops.saturating_add(1);
                    out.push((from, Gossip::Rumour { id, hops, rumour: kept.rumour }));
                }
            }
            Gossip::Prune if self.eager.remove(&from) => {
                self.lazy.insert(from);
            }
            _ => {}
        }
        None
    }

    fn announced(&mut self, now: Moment, from: NodeId, id: RumourId) {
        if id.origin == self.me || self.kept.contains_key(&id) {
            return;
        }
        let full = self.missing.len() >= limits::RUMOURS_KEPT;
        if full && !self.missing.contains_key(&id) {
            return;
        }
        let ask_at = now.plus(GRAFT_AFTER);
        let missing = self.missing.entry(id).or_insert(Missing { sources: VecDeque::new(), ask_at });
        if missing.sources.len() < SOURCES {
            missing.sources.push_back(from);
        }
    }

    /// Does what is due.
    pub(super) fn tick(&mut self, now: Moment, counters: &mut MembershipCounters, out: &mut Vec<Sent>) {
        if self.announce_at.is_some_and(|at| at <= now) {
            self.announce_at = None;
            for (peer, ids) in std::mem::take(&mut self.to_announce) {
                let pages = ids.chunks(limits::RUMOURS_ANNOUNCED);
                out.extend(pages.map(|page| (peer, Gossip::Have { ids: page.to_vec() })));
            }
        }
        while let Some((since, id)) = self.order.front().copied()
            && since.plus(KEPT_FOR) <= now
        {
            self.order.pop_front();
            self.kept.remove(&id);
        }
        let due: Vec<RumourId> =
            self.missing.iter().filter(|(_, missing)| missing.ask_at <= now).map(|(id, _)| *id).collect();
        for id in due {
            let Some(missing) = self.missing.get_mut(&id) else { continue };
            let Some(source) = missing.sources.pop_front() else {
                self.missing.remove(&id);
                continue;
            };
            missing.ask_at = now.plus(GRAFT_AFTER);
            counters.rumours_grafted += 1;
            self.add(source);
            out.push((source, Gossip::Graft { id }));
        }
    }

    pub(super) fn check_invariants(&self, active: &BTreeSet<NodeId>) {
        assert!(self.eager.is_disjoint(&self.lazy), "a peer is pushed to both ways");
        let all: BTreeSet<NodeId> = self.eager.union(&self.lazy).copied().collect();
        assert_eq!(&all, active, "the tree is not over the active view");
        assert_eq!(self.kept.len(), self.order.len(), "kept rumours and their order differ");
        assert!(self.kept.len() <= limits::RUMOURS_KEPT && self.missing.len() <= limits::RUMOURS_KEPT);
    }
}

#[cfg(test)]
#[path = "broadcast_tests.rs"]
mod tests;
