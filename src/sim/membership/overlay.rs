//! The overlay as a graph: who watches whom, which parts hang together, how wide it is.
//!
//! An edge is a pair of live hosts that watch each other over a connection that stands.

use std::collections::VecDeque;

use super::member::{HostIndex, Member};
use super::world::World;

/// From so many hosts the width is measured, if there are more.
const SOURCES: usize = 64;

/// The overlay at one moment.
pub(super) struct Overlay {
    /// The neighbours of each host; none of those that do not live.
    neighbors: Vec<Vec<HostIndex>>,
    live: Vec<bool>,
    /// Entries of active views that point to live hosts, and those of them that are mutual.
    pub(super) directed: usize,
    pub(super) mutual: usize,
    /// How many active views each live host is in.
    pub(super) in_degrees: Vec<f64>,
    pub(super) out_degrees: Vec<f64>,
}

impl Overlay {
    pub(super) fn of<M: Member>(world: &World<M>) -> Overlay {
        let live: Vec<bool> = world.hosts.iter().map(|host| host.member.is_some()).collect();
        let mut views: Vec<Vec<HostIndex>> = world
            .hosts
            .iter()
            .map(|host| {
                let active = host.member.iter().flat_map(Member::active);
                let reached = |peer: &HostIndex| !M::LINKED || host.link_to(*peer).is_some();
                active.filter(|peer| live[*peer as usize]).filter(reached).collect()
            })
            .collect();
        views.iter_mut().for_each(|view| view.sort_unstable());
        let mut in_degrees = vec![0.0; views.len()];
        views.iter().flatten().for_each(|peer| in_degrees[*peer as usize] += 1.0);
        let directed = views.iter().map(Vec::len).sum();
        let neighbors: Vec<Vec<HostIndex>> = views
            .iter()
            .zip(0..)
            .map(|(view, me)| {
                let mutual = |peer: &HostIndex| views[*peer as usize].binary_search(&me).is_ok();
                view.iter().copied().filter(mutual).collect()
            })
            .collect();
        let mutual = neighbors.iter().map(Vec::len).sum();
        let of_live = |all: Vec<f64>| all.into_iter().zip(&live).filter(|(_, live)| **live).map(|(degree, _)| degree);
        let out_degrees = of_live(views.iter().map(|view| view.len() as f64).collect()).collect();
        let in_degrees = of_live(in_degrees).collect();
        Overlay { neighbors, live, directed, mutual, in_degrees, out_degrees }
    }

    fn live_count(&self) -> usize {
        self.live.iter().filter(|live| **live).count()
    }

    /// The distance of each host from one, and how many are reached.
    fn distances(&self, from: usize, distances: &mut [u32]) -> (usize, u32) {
        distances.fill(u32::MAX);
        distances[from] = 0;
        let mut open = VecDeque::from([from]);
        let (mut reached, mut farthest) = (0, 0);
        while let Some(host) = open.pop_front() {
            reached += 1;
            farthest = distances[host];
            for peer in &self.neighbors[host] {
                let peer = *peer as usize;
                if distances[peer] == u32::MAX {
                    distances[peer] = distances[host] + 1;
                    open.push_back(peer);
                }
            }
        }
        (reached, farthest)
    }

    /// The share of live hosts in the largest part that hangs together.
    pub(super) fn largest_part(&self) -> f64 {
        let mut seen = vec![false; self.live.len()];
        let mut largest = 0;
        let mut open = Vec::new();
        for host in 0..self.live.len() {
            if !self.live[host] || std::mem::replace(&mut seen[host], true) {
                continue;
            }
            open.push(host);
            let mut size = 0;
            while let Some(host) = open.pop() {
                size += 1;
                for peer in &self.neighbors[host] {
                    if !std::mem::replace(&mut seen[*peer as usize], true) {
                        open.push(*peer as usize);
                    }
                }
            }
            largest = largest.max(size);
        }
        largest as f64 / self.live_count().max(1) as f64
    }

    pub(super) fn is_whole(&self) -> bool {
        self.largest_part() == 1.0
    }

    /// The longest way between two hosts, from 64 of them if there are more.
    pub(super) fn diameter(&self) -> u32 {
        let mut distances = vec![u32::MAX; self.live.len()];
        let live: Vec<usize> = (0..self.live.len()).filter(|host| self.live[*host]).collect();
        let step = live.len().div_ceil(SOURCES).max(1);
        live.iter().step_by(step).map(|host| self.distances(*host, &mut distances).1).max().unwrap_or(0)
    }
}
