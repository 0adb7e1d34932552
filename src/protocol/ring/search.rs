//! Shortest augmenting paths: how a partition gets a copy when the nodes it may use are full.
//!
//! A path begins at the partition: it takes a full node, another partition gives that node up
//! and takes the next one, and so on to a node with room. A step costs 1 if it puts a copy
//! where none was before and regains 1 if it takes away such a copy, so the cheapest path is
//! the one with the fewest moves.
//!
//! Invariant: the matching has the fewest moves among those that give each partition as many
//! copies, before and after each path (no cycle of steps has a negative cost). So a
//! label-correcting search ends; and no partition's cheapest path ever becomes cheaper, so
//! once none is free of cost, a path that costs 1 is the cheapest and ends its search.

use std::collections::VecDeque;

use super::matching::{Cap, Matching};

/// What led to a node: the partition that takes it, and the slot whose copy it gives up,
/// if it is not the partition that lacks one.
#[derive(Clone, Copy)]
struct Step {
    partition: usize,
    gives_up: Option<usize>,
}

/// A series of searches under one cap.
pub(super) struct Search {
    cap: Cap,
    /// Nodes from which no node with room can be reached: no later path changes that.
    dead: Vec<bool>,
    cost: Vec<i32>,
    step: Vec<Option<Step>>,
    /// The cheapest way to each copy of each partition, to expand none twice at one price.
    slot_cost: Vec<i32>,
}

const UNREACHED: i32 = i32::MAX;

impl Search {
    pub(super) fn new(matching: &Matching<'_>, cap: Cap) -> Search {
        let nodes = matching.problem.nodes.len();
        let slots = matching.problem.partitions.get() as usize * matching.problem.copies;
        Search {
            cap,
            dead: vec![false; nodes],
            cost: vec![UNREACHED; nodes],
            step: vec![None; nodes],
            slot_cost: vec![UNREACHED; slots],
        }
    }

    /// Gives one of these partitions, which lack copies, one more without a move; false if
    /// that is not possible for any.
    pub(super) fn extend_for_nothing(&mut self, matching: &mut Matching<'_>, lacking: &[usize]) -> bool {
        match self.find(matching, lacking, 0) {
            Some(end) if self.cost[end] <= 0 => {
                self.apply(matching, end);
                true
            }
            _ => false,
        }
    }

    /// Gives the one of these partitions, which lack copies, that needs the fewest moves for
    /// it (and none needs no move) one more; false if there is no way for any.
    pub(super) fn extend(&mut self, matching: &mut Matching<'_>, lacking: &[usize]) -> bool {
        let end = self.find(matching, lacking, 1);
        end.is_some_and(|end| {
            self.apply(matching, end);
            true
        })
    }

    /// Carries out the path that ends at this node, from its end to its beginning.
    fn apply(&self, matching: &mut Matching<'_>, end: usize) {
        let mut node = end;
        loop {
            let Step { partition, gives_up } = self.step[node].expect("a path was found");
            let Some(slot) = gives_up else {
                matching.add(partition, node);
                return;
            };
            let freed = matching.replicas(partition)[slot];
            matching.replace(partition, slot, node);
            node = freed;
        }
    }

    /// The node with room at the end of the cheapest path, or of one that costs no more than `good`.
    fn find(&mut self, matching: &Matching<'_>, roots: &[usize], good: i32) -> Option<usize> {
        self.cost.fill(UNREACHED);
        self.step.fill(None);
        let mut touched: Vec<usize> = Vec::new();
        let mut queue: VecDeque<usize> = VecDeque::new();
        let mut best: Option<usize> = None;
        for partition in roots {
            let step = Step { partition: *partition, gives_up: None };
            self.reach(matching, 0, step, &mut queue, &mut best);
            if best.is_some_and(|node| self.cost[node] <= good) {
                return best;
            }
        }
        while best.is_none_or(|node| self.cost[node] > good) {
            let Some(node) = queue.pop_front() else { break };
            let price = self.cost[node];
            for partition in matching.held(node) {
                let replicas = matching.replicas(*partition);
                let slot = replicas.iter().position(|other| *other == node).expect("it is held");
                let price = price - i32::from(!matching.was_held(*partition, node));
                let index = partition * matching.problem.copies + slot;
                if price < self.slot_cost[index] {
                    touched.push(index);
                    self.slot_cost[index] = price;
                    let step = Step { partition: *partition, gives_up: Some(slot) };
                    self.reach(matching, price, step, &mut queue, &mut best);
                }
            }
        }
        touched.into_iter().for_each(|index| self.slot_cost[index] = UNREACHED);
        if best.is_none() {
            (0..self.dead.len()).for_each(|node| self.dead[node] |= self.cost[node] != UNREACHED);
        }
        best
    }

    /// Notes every node that a step can take more cheaply than known so far.
    fn reach(
        &mut self,
        matching: &Matching<'_>,
        price: i32,
        step: Step,
        queue: &mut VecDeque<usize>,
        best: &mut Option<usize>,
    ) {
        for node in 0..self.cost.len() {
            let held_before = || matching.was_held(step.partition, node);
            if self.dead[node] || self.cost[node] <= price {
                continue;
            }
            let cost = price + i32::from(!held_before());
            let allowed = || match step.gives_up {
                Some(slot) => matching.may_replace(step.partition, slot, node),
                None => matching.may_add(step.partition, node),
            };
            if cost >= self.cost[node] || !allowed() {
                continue;
            }
            self.cost[node] = cost;
            self.step[node] = Some(step);
            // A node with room is passed through too: if it may not fall below its lower bound,
            // handing one of its moved copies on can be cheaper than ending there.
            queue.push_back(node);
            if matching.has_room(node, self.cap) && best.is_none_or(|best| cost < self.cost[best]) {
                *best = Some(node);
            }
        }
    }
}
