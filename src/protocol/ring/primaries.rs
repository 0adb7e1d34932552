//! Which of its replicas a partition names first.
//!
//! Invariant: no node is primary of more than ⌈copies it holds / copies of a partition⌉
//! partitions. Each partition spreading its primary evenly over its replicas is a fractional
//! solution, so a whole one exists and augmenting paths find it.

use std::collections::VecDeque;

use super::Problem;
use super::tokens::Tokens;

/// Orders the replicas of every partition: primary first, then clockwise. A primary stays
/// unless its node is primary too often.
pub(super) fn order(
    problem: &Problem,
    tokens: &Tokens,
    holders: &[Vec<usize>],
    mut replicas: Vec<Vec<usize>>,
) -> Vec<Vec<usize>> {
    for (partition, nodes) in replicas.iter_mut().enumerate() {
        nodes.sort_by_key(|node| (tokens.distance(partition, *node), *node));
    }
    let mut chooser = Chooser::new(problem, &replicas);
    for (partition, before) in holders.iter().enumerate() {
        let stays = before.first().filter(|node| replicas[partition].contains(node));
        if let Some(node) = stays.filter(|node| chooser.has_room(**node)) {
            chooser.choose(partition, *node);
        }
    }
    for partition in 0..replicas.len() {
        chooser.find(partition);
    }
    let primaries = chooser.primary;
    for (nodes, primary) in replicas.iter_mut().zip(primaries) {
        if let Some(slot) = nodes.iter().position(|node| Some(*node) == primary) {
            nodes[..=slot].rotate_right(1);
        }
    }
    replicas
}

struct Chooser<'a> {
    replicas: &'a [Vec<usize>],
    caps: Vec<usize>,
    primary: Vec<Option<usize>>,
    led: Vec<Vec<usize>>,
}

impl Chooser<'_> {
    fn new<'a>(problem: &Problem, replicas: &'a [Vec<usize>]) -> Chooser<'a> {
        let mut loads = vec![0usize; problem.nodes.len()];
        replicas.iter().flatten().for_each(|node| loads[*node] += 1);
        let caps = loads.into_iter().map(|load| load.div_ceil(problem.copies.max(1))).collect();
        Chooser { replicas, caps, primary: vec![None; replicas.len()], led: vec![Vec::new(); problem.nodes.len()] }
    }

    fn has_room(&self, node: usize) -> bool {
        self.led[node].len() < self.caps[node]
    }

    fn choose(&mut self, partition: usize, node: usize) {
        if let Some(before) = self.primary[partition].replace(node) {
            self.led[before].retain(|other| *other != partition);
        }
        self.led[node].push(partition);
    }

    /// Gives a partition a primary, passing others on along the shortest path.
    fn find(&mut self, root: usize) {
        if self.primary[root].is_some() || self.replicas[root].is_empty() {
            return;
        }
        // For each node reached: which partition would take it.
        let mut taken_by: Vec<Option<usize>> = vec![None; self.led.len()];
        let mut queue = VecDeque::from([root]);
        while let Some(partition) = queue.pop_front() {
            for node in &self.replicas[partition] {
                if taken_by[*node].is_some() {
                    continue;
                }
                taken_by[*node] = Some(partition);
                if self.has_room(*node) {
                    self.pass_on(*node, &taken_by);
                    return;
                }
                queue.extend(&self.led[*node]);
            }
        }
        unreachable!("a primary within the bounds exists for every partition");
    }

    fn pass_on(&mut self, end: usize, taken_by: &[Option<usize>]) {
        let mut node = end;
        loop {
            let partition = taken_by[node].expect("it was reached");
            let before = self.primary[partition];
            self.choose(partition, node);
            match before {
                Some(before) => node = before,
                None => return,
            }
        }
    }
}
