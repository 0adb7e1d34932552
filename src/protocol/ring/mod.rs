//! Placement: which nodes hold which partition (DESIGN section 3).
//!
//! Problem: spread RF copies of every partition over the members so that no node holds
//! more than its share, no two copies share a failure domain without need, and a join or
//! a leave moves hardly more than it must.
//!
//! Messages: none; [`place`] is a pure function of the previous assignment and the members.
//!
//! Invariant: every partition has min(RF, N) distinct nodes and no zone holds more of them
//! than the limit of its zone; every node holds between min(⌊share⌋, ⌈0.95 × share⌉) and
//! max(⌈share⌉, ⌊1.05 × share⌋) copies, where the share is in proportion to the weight
//! (see `shares`); and no other assignment that keeps these bounds moves fewer copies. The
//! lower bound is there because without it a cluster that was filled to its upper bounds
//! would leave a new node empty.
//!
//! How: the nodes stand on the ring at their tokens, and a partition takes the first nodes
//! clockwise that still have room (consistent hashing with bounded loads). Taking what is
//! next can leave a partition for which only full nodes remain; a shortest augmenting path
//! then passes copies along a chain of partitions (`search`). With costs of 0 for a copy
//! that stays and 1 for one that moves, that is the successive-shortest-path algorithm for
//! minimum-cost flow, first with the lower bounds as capacities, then with the upper ones:
//! paths end at nodes and never take from one what it has, so what the first part filled
//! stays filled.
//!
//! Source: DeCandia et al., "Dynamo", 2007, section 6.2 (strategy 3, equal partitions);
//! Mirrokni, Thorup, Zadimoghaddam, "Consistent Hashing with Bounded Loads", 2018;
//! Ahuja, Magnanti, Orlin, "Network Flows", 1993, section 9.7.
//!
//! Left out: moving data. Who owns a partition while it moves is the topology's matter.

mod shares;
mod tokens;
mod matching;
mod search;
mod primaries;

use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;

use crate::types::{Assignment, Member, NodeId, PartitionCount};

use matching::{Cap, Matching};
use shares::Share;
use tokens::Tokens;

/// What is to be solved, with nodes as small numbers in the order of their ids.
struct Problem {
    nodes: Vec<NodeId>,
    weights: Vec<u32>,
    /// For each node the number of its zone.
    zones: Vec<usize>,
    zone_count: usize,
    /// How many copies of one partition a zone may hold: the least number with which every
    /// partition finds its copies. 1 where there are as many zones as copies.
    zone_limit: usize,
    /// Copies of a partition: RF, or all nodes if they are fewer.
    copies: usize,
    partitions: PartitionCount,
}

impl Problem {
    fn new(members: &BTreeMap<NodeId, Member>, replication_factor: u8, partitions: PartitionCount) -> Problem {
        let names: BTreeSet<_> = members.values().map(|member| &member.zone).collect();
        let names: Vec<_> = names.into_iter().collect();
        let zone_of = |member: &Member| names.binary_search(&&member.zone).expect("every zone was listed");
        let zones: Vec<usize> = members.values().map(zone_of).collect();
        let copies = members.len().min(usize::from(replication_factor));
        let mut sizes = vec![0usize; names.len()];
        zones.iter().for_each(|zone| sizes[*zone] += 1);
        let reach = |limit: usize| sizes.iter().map(|size| limit.min(*size)).sum::<usize>();
        let zone_limit = (1..=copies).find(|limit| reach(*limit) >= copies).unwrap_or(copies);
        Problem {
            nodes: members.keys().copied().collect(),
            weights: members.values().map(|member| member.weight.max(1)).collect(),
            zones,
            zone_count: names.len(),
            zone_limit,
            copies,
            partitions,
        }
    }

    /// The copies of `previous` that are on members, as node numbers.
    fn holders(&self, previous: Option<&Assignment>) -> Vec<Vec<usize>> {
        let number = |id: &NodeId| self.nodes.binary_search(id).ok();
        let holders = |partition| {
            let mut holders: Vec<usize> = Vec::with_capacity(self.copies);
            for node in previous.map_or(&[][..], |previous| previous.replicas(partition)).iter().filter_map(number) {
                if !holders.contains(&node) {
                    holders.push(node);
                }
            }
            holders
        };
        self.partitions.all().map(holders).collect()
    }

    fn shares(&self) -> Vec<Share> {
        shares::shares(self)
    }
}

/// The replicas of every partition, primary first.
///
/// Without `previous` it is a fresh placement, in which every node holds its share rounded
/// down or up. With it, copies stay where they are unless their node has left, holds more
/// than its bound, or is in one zone with another copy where there are zones enough, or
/// unless another node holds less than its bound. The moves are the least possible.
///
/// The result depends on the arguments alone. Without members every partition has no replicas.
pub fn place(
    previous: Option<&Assignment>,
    members: &BTreeMap<NodeId, Member>,
    replication_factor: u8,
    partitions: PartitionCount,
) -> Assignment {
    let problem = Problem::new(members, replication_factor, partitions);
    let tokens = Tokens::new(&problem);
    let holders = problem.holders(previous);
    let matching = solve(&problem, &tokens, &holders);
    matching.check();
    let named = |replicas: Vec<usize>| replicas.into_iter().map(|node| problem.nodes[node]).collect();
    Assignment(primaries::order(&problem, &tokens, &holders, matching.into_replicas()).into_iter().map(named).collect())
}

/// The least number of copies that must be made on nodes that did not hold them before, so
/// that every partition has its replicas and no node more than its bound.
pub fn least_moves(
    previous: &Assignment,
    members: &BTreeMap<NodeId, Member>,
    replication_factor: u8,
    partitions: PartitionCount,
) -> usize {
    let problem = Problem::new(members, replication_factor, partitions);
    let holders = problem.holders(Some(previous));
    solve(&problem, &Tokens::new(&problem), &holders).moves()
}

/// How many copies `next` has on nodes that do not hold them in `previous`.
pub fn moves(previous: &Assignment, next: &Assignment) -> usize {
    let moved = |(index, replicas): (usize, &Vec<NodeId>)| {
        let before = previous.0.get(index).map_or(&[][..], Vec::as_slice);
        replicas.iter().filter(|node| !before.contains(node)).count()
    };
    next.0.iter().enumerate().map(moved).sum()
}

/// The fewest and the most copies that each member may hold under [`place`].
pub fn bounds(
    members: &BTreeMap<NodeId, Member>,
    replication_factor: u8,
    partitions: PartitionCount,
) -> BTreeMap<NodeId, RangeInclusive<u32>> {
    let problem = Problem::new(members, replication_factor, partitions);
    let bounds = problem.shares().into_iter().map(|share| share.least()..=share.most());
    problem.nodes.iter().copied().zip(bounds).collect()
}

/// A whole assignment with the least moves.
fn solve<'a>(problem: &'a Problem, tokens: &'a Tokens, holders: &'a [Vec<usize>]) -> Matching<'a> {
    let mut matching = Matching::new(problem, holders);
    if holders.iter().all(Vec::is_empty) {
        matching.complete(tokens, &[Cap::Floor]);
        matching.complete(tokens, &[Cap::Ceiling]);
    } else {
        matching.keep(Cap::Least);
        matching.complete(tokens, &[Cap::Least]);
        // Of all that moves as little, what is nearer to the shares is the better.
        matching.complete(tokens, &[Cap::Floor, Cap::Ceiling, Cap::Most]);
    }
    matching
}

#[cfg(test)]
#[path = "ring_tests.rs"]
mod tests;
