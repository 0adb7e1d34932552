//! How many copies each node should hold.
//!
//! Problem: in proportion to its weight, but no node can hold a partition twice and no zone
//! more copies of it than the zone limit, so a heavy node or a small zone is full before
//! the others are.
//!
//! Invariant: shares are the max-min fair ones (water-filling): share(n) = min(Q, level × weight(n))
//! with one level for all zones that are not full and a lower one within each full zone; they
//! sum to copies × Q. Spreading each share evenly over all partitions is then a fractional
//! assignment that keeps every limit, so by the integrality of flows a whole one exists in
//! which each node holds its share rounded down or up.

use super::Problem;

/// A node's share as an exact fraction: rounding a float would give away a whole copy.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Share {
    numerator: u128,
    denominator: u128,
}

impl Share {
    pub(super) fn floor(self) -> u32 {
        u32::try_from(self.numerator / self.denominator).expect("a share is at most 65,536")
    }

    pub(super) fn ceiling(self) -> u32 {
        u32::try_from(self.numerator.div_ceil(self.denominator)).expect("a share is at most 65,536")
    }

    #[cfg(test)]
    pub(super) fn value(self) -> f64 {
        self.numerator as f64 / self.denominator as f64
    }

    /// The fewest copies the node may hold: 5 % below its share, or its share rounded down.
    pub(super) fn least(self) -> u32 {
        let below = (self.numerator * 95).div_ceil(self.denominator * 100);
        u32::try_from(below).expect("a share is at most 65,536").min(self.floor())
    }

    /// The most copies the node may hold: 5 % above its share, or its share rounded up.
    pub(super) fn most(self) -> u32 {
        let above = self.numerator * 105 / (self.denominator * 100);
        u32::try_from(above).expect("a share is at most 68,812").max(self.ceiling())
    }
}

/// The shares of all nodes.
pub(super) fn shares(problem: &Problem) -> Vec<Share> {
    let partitions = u128::from(problem.partitions.get());
    let zone_capacity = problem.zone_limit as u128 * partitions;
    let mut shares = vec![Share { numerator: 0, denominator: 1 }; problem.nodes.len()];
    let mut rest = problem.copies as u128 * partitions;
    let mut open: Vec<Vec<usize>> = vec![Vec::new(); problem.zone_count];
    for (node, zone) in problem.zones.iter().enumerate() {
        open[*zone].push(node);
    }
    loop {
        let nodes: Vec<usize> = open.iter().flatten().copied().collect();
        level(&problem.weights, partitions, rest, &nodes, &mut shares);
        // Closing a full zone leaves more for the others, so a full zone stays full.
        let full = |zone: &Vec<usize>| {
            let sum: (u128, u128) = zone.iter().fold((0, 1), |(n, d), node| {
                // All fractions of one round share their denominator, or have 1.
                let Share { numerator, denominator } = shares[*node];
                if d == denominator { (n + numerator, d) } else { (n * denominator + numerator * d, d * denominator) }
            });
            sum.0 > zone_capacity * sum.1
        };
        let Some(index) = open.iter().position(full) else { return shares };
        let zone = open.swap_remove(index);
        level(&problem.weights, partitions, zone_capacity, &zone, &mut shares);
        rest -= zone_capacity;
    }
}

/// Shares out `total` over `nodes` by weight, at most `most` for each.
fn level(weights: &[u32], most: u128, total: u128, nodes: &[usize], shares: &mut [Share]) {
    let mut rest = total;
    let mut weight: u128 = nodes.iter().map(|node| u128::from(weights[*node])).sum();
    let mut heaviest_first = nodes.to_vec();
    heaviest_first.sort_by_key(|node| std::cmp::Reverse(weights[*node]));
    for node in heaviest_first {
        let own = u128::from(weights[node]);
        if rest * own >= most * weight {
            shares[node] = Share { numerator: most, denominator: 1 };
            rest = rest.saturating_sub(most);
            weight -= own;
        } else {
            // Nodes come by falling weight: from the first that is not full on, none is.
            shares[node] = Share { numerator: rest * own, denominator: weight };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::{NodeId, PartitionCount};

    /// The shares of nodes written as `zone:weight`, each as least..floor..ceiling..most.
    fn shares_of(text: &str, copies: usize, zone_limit: usize) -> String {
        let parsed: Vec<(usize, u32)> = text
            .split_whitespace()
            .map(|node| node.split_once(':').expect("zone:weight"))
            .map(|(zone, weight)| (zone.parse().expect("a zone"), weight.parse().expect("a weight")))
            .collect();
        let problem = Problem {
            nodes: (1..=parsed.len() as u32).filter_map(NodeId::new).collect(),
            weights: parsed.iter().map(|(_, weight)| *weight).collect(),
            zones: parsed.iter().map(|(zone, _)| *zone).collect(),
            zone_count: parsed.iter().map(|(zone, _)| zone + 1).max().unwrap_or(0),
            zone_limit,
            copies,
            partitions: PartitionCount::new(256).expect("a power of two"),
        };
        let written: Vec<String> = problem
            .shares()
            .iter()
            .map(|share| format!("{}..{}..{}..{}", share.least(), share.floor(), share.ceiling(), share.most()))
            .collect();
        written.join(" ")
    }

    #[test]
    fn shares_are_filled_like_water() {
        let cases = [
            ("0:1 0:1 0:1", 3, 3, "244..256..256..268 244..256..256..268 244..256..256..268"),
            ("0:1 0:1 0:1 0:1", 3, 3, "183..192..192..201 183..192..192..201 183..192..192..201 183..192..192..201"),
            (
                "0:1 0:1 0:1 0:1 0:1",
                3,
                3,
                "146..153..154..161 146..153..154..161 146..153..154..161 146..153..154..161 146..153..154..161",
            ),
            // A node that weighs as much as the rest holds everything, once.
            (
                "0:9 0:1 0:1 0:1 0:1",
                3,
                3,
                "244..256..256..268 122..128..128..134 122..128..128..134 122..128..128..134 122..128..128..134",
            ),
            // A zone of one holds a copy of everything where there are three zones.
            (
                "0:1 1:1 1:1 2:1 2:1",
                3,
                1,
                "244..256..256..268 122..128..128..134 122..128..128..134 122..128..128..134 122..128..128..134",
            ),
            // Weights within a full zone.
            ("0:3 0:1 1:1 2:1", 3, 1, "183..192..192..201 61..64..64..67 244..256..256..268 244..256..256..268"),
            // One heavy zone of four: it is full with one copy, the others share two.
            (
                "0:4 0:4 1:1 2:1 3:1",
                3,
                1,
                "122..128..128..134 122..128..128..134 163..170..171..179 163..170..171..179 163..170..171..179",
            ),
        ];
        for (nodes, copies, zone_limit, expected) in cases {
            assert_eq!(shares_of(nodes, copies, zone_limit), expected, "{nodes}");
        }
    }
}
