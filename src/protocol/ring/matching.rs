//! Partitions and the nodes that hold their copies, while they are being matched.

use std::collections::BTreeSet;

use super::Problem;
use super::search::Search;
use super::shares::Share;
use super::tokens::Tokens;

/// Up to what a node is filled.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Cap {
    /// The fewest copies it may hold.
    Least,
    /// Its share rounded down.
    Floor,
    /// Its share rounded up.
    Ceiling,
    /// The most copies it may hold.
    Most,
}

/// Copies on nodes: partial while it is worked on, whole at the end.
pub(super) struct Matching<'a> {
    pub(super) problem: &'a Problem,
    /// Who held a copy of each partition before.
    holders: &'a [Vec<usize>],
    shares: Vec<Share>,
    replicas: Vec<Vec<usize>>,
    /// For each node the partitions it holds.
    held: Vec<BTreeSet<usize>>,
}

impl<'a> Matching<'a> {
    pub(super) fn new(problem: &'a Problem, holders: &'a [Vec<usize>]) -> Matching<'a> {
        Matching {
            problem,
            holders,
            shares: problem.shares(),
            replicas: vec![Vec::with_capacity(problem.copies); holders.len()],
            held: vec![BTreeSet::new(); problem.nodes.len()],
        }
    }

    pub(super) fn into_replicas(self) -> Vec<Vec<usize>> {
        self.replicas
    }

    pub(super) fn replicas(&self, partition: usize) -> &[usize] {
        &self.replicas[partition]
    }

    pub(super) fn held(&self, node: usize) -> &BTreeSet<usize> {
        &self.held[node]
    }

    pub(super) fn has_room(&self, node: usize, cap: Cap) -> bool {
        self.load(node) < self.cap(node, cap)
    }

    pub(super) fn was_held(&self, partition: usize, node: usize) -> bool {
        self.holders[partition].contains(&node)
    }

    /// How many copies are where they were not before.
    pub(super) fn moves(&self) -> usize {
        let moved = |(partition, replicas): (usize, &Vec<usize>)| {
            replicas.iter().filter(|node| !self.was_held(partition, **node)).count()
        };
        self.replicas.iter().enumerate().map(moved).sum()
    }

    fn load(&self, node: usize) -> usize {
        self.held[node].len()
    }

    fn cap(&self, node: usize, cap: Cap) -> usize {
        let share = self.shares[node];
        let most = match cap {
            Cap::Least => share.least(),
            Cap::Floor => share.floor(),
            Cap::Ceiling => share.ceiling(),
            Cap::Most => share.most(),
        };
        most as usize
    }

    fn zone_has_room(&self, partition: usize, zone: usize) -> bool {
        let zones = &self.problem.zones;
        self.replicas[partition].iter().filter(|node| zones[**node] == zone).count() < self.problem.zone_limit
    }

    /// Whether the partition may get one more copy, on this node; the node's load apart.
    pub(super) fn may_add(&self, partition: usize, node: usize) -> bool {
        let replicas = &self.replicas[partition];
        replicas.len() < self.problem.copies
            && !replicas.contains(&node)
            && self.zone_has_room(partition, self.problem.zones[node])
    }

    /// Whether the copy at `slot` may go to this node instead; the node's load apart.
    pub(super) fn may_replace(&self, partition: usize, slot: usize, node: usize) -> bool {
        let replicas = &self.replicas[partition];
        let zones = &self.problem.zones;
        !replicas.contains(&node)
            && (zones[replicas[slot]] == zones[node] || self.zone_has_room(partition, zones[node]))
    }

    pub(super) fn add(&mut self, partition: usize, node: usize) {
        self.replicas[partition].push(node);
        self.held[node].insert(partition);
    }

    /// Puts another node in the place of the one at `slot`.
    pub(super) fn replace(&mut self, partition: usize, slot: usize, node: usize) {
        let before = std::mem::replace(&mut self.replicas[partition][slot], node);
        self.held[before].remove(&partition);
        self.held[node].insert(partition);
    }

    /// Takes over previous copies, up to the cap of their nodes.
    pub(super) fn keep(&mut self, cap: Cap) {
        let holders = self.holders;
        for (partition, nodes) in holders.iter().enumerate() {
            for node in nodes {
                if self.may_add(partition, *node) {
                    self.add(partition, *node);
                }
            }
        }
        for node in 0..self.held.len() {
            self.shed(node, cap);
        }
    }

    /// Drops what a node holds above the cap.
    fn shed(&mut self, node: usize, cap: Cap) {
        let Some(excess) = self.load(node).checked_sub(self.cap(node, cap)) else { return };
        let below: Vec<usize> = (0..self.held.len()).filter(|other| self.has_room(*other, cap)).collect();
        // First where nothing else is missing and a node with room can step in: two copies
        // gone from one partition could not both go to the one new node.
        let eased = |matching: &Matching<'_>, partition: usize| {
            let replicas = &matching.replicas[partition];
            let slot = replicas.iter().position(|other| *other == node).expect("it is held");
            let whole = replicas.len() == matching.problem.copies;
            whole && below.iter().any(|other| matching.may_replace(partition, slot, *other))
        };
        let (first, then): (Vec<usize>, Vec<usize>) =
            self.held[node].iter().copied().partition(|partition| eased(self, *partition));
        for partition in first.into_iter().chain(then).take(excess) {
            self.replicas[partition].retain(|other| *other != node);
            self.held[node].remove(&partition);
        }
    }

    /// Adds copies by the fewest moves until every partition is whole or all nodes are full
    /// up to the last cap. Among nodes that cost the same, those with room under an earlier
    /// cap come first.
    ///
    /// The order is that of rising costs, as the algorithm demands: copies put back where
    /// they were, then paths that cost nothing, then single moves, then longer paths.
    pub(super) fn complete(&mut self, tokens: &Tokens, caps: &[Cap]) {
        let Some(cap) = caps.last().copied() else { return };
        let mut search = Search::new(self, cap);
        if self.holders.iter().any(|nodes| !nodes.is_empty()) {
            self.put_back(cap);
            while search.extend_for_nothing(self, &self.lacking()) {}
        }
        caps.iter().for_each(|cap| self.fill(tokens, *cap));
        if cap == Cap::Least {
            // The copies run out before the partitions do, so the cheapest path of all is
            // next, whichever partition it serves: a dearer one would be paid back later.
            while search.extend(self, &self.lacking()) {}
        } else {
            for partition in self.lacking() {
                while self.replicas[partition].len() < self.problem.copies && search.extend(self, &[partition]) {}
            }
        }
    }

    fn lacking(&self) -> Vec<usize> {
        (0..self.replicas.len()).filter(|partition| self.replicas[*partition].len() < self.problem.copies).collect()
    }

    fn put_back(&mut self, cap: Cap) {
        let holders = self.holders;
        for partition in self.lacking() {
            for node in &holders[partition] {
                if self.has_room(*node, cap) && self.may_add(partition, *node) {
                    self.add(partition, *node);
                }
            }
        }
    }

    /// Gives partitions that lack copies the first nodes clockwise that have room.
    fn fill(&mut self, tokens: &Tokens, cap: Cap) {
        for partition in self.lacking() {
            for node in tokens.clockwise(partition) {
                if self.has_room(node, cap) && self.may_add(partition, node) {
                    self.add(partition, node);
                }
            }
        }
    }

    /// # Panics
    /// If the assignment is not what the module promises: a fault of this module, which
    /// must not become a cluster map.
    pub(super) fn check(&self) {
        for (partition, replicas) in self.replicas.iter().enumerate() {
            assert_eq!(replicas.len(), self.problem.copies, "copies of partition {partition}");
            for (slot, node) in replicas.iter().enumerate() {
                assert!(!replicas[..slot].contains(node), "partition {partition} is twice on one node");
                let zone = self.problem.zones[*node];
                let shared = replicas.iter().filter(|other| self.problem.zones[**other] == zone).count();
                assert!(shared <= self.problem.zone_limit, "partition {partition} is crowded into one zone");
            }
        }
        for node in 0..self.held.len() {
            let bounds = self.cap(node, Cap::Least)..=self.cap(node, Cap::Most);
            assert!(bounds.contains(&self.load(node)), "{} is outside its bounds", self.problem.nodes[node]);
        }
    }
}
