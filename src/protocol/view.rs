//! The partial view: at most K peers, whatever the number of members (HyParView).
//!
//! Problem: everybody must be reachable from everybody over links of which each node
//! keeps a handful, through crashes of half of all nodes and the loss of a zone.
//!
//! Messages: `Join`, `ForwardJoin`, `Neighbor`, `NeighborReply`, `Disconnect`, `Shuffle`,
//! `ShuffleReply` of [`Gossip`].
//!
//! Invariant: |active| + |passive| ≤ K; the two are disjoint and hold members only, never
//! the node itself. Once messages have settled, the active view is symmetric: whoever is
//! in mine has me in its. In words: the active view is whom a node talks with and watches,
//! the passive view is spare parts.
//!
//! How: a joiner is admitted by its contact and by the ends of random walks; a full view
//! drops somebody at random, who finds itself another neighbour. A lost neighbour is
//! replaced from the passive view, several at a time; shuffles along random walks keep that
//! one fresh. Their answers come back the way they went, so that they need no connection
//! of their own. As every node has the cluster map, a node that is out of spare parts
//! draws members from it.
//!
//! Zones: of its active peers a node keeps some in its own zone and some outside of it, as
//! far as there are enough on the other side to do the same; so neither the loss of the
//! zone nor that of all others leaves it alone.
//!
//! Source: Leitão, Pereira, Rodrigues, "HyParView", DSN 2007, sections 4 and 5.
//!
//! Left out: who is alive ([`super::detector`]) and connections (the driver's).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use crate::types::{Moment, NodeId, SeededBug, limits};
use crate::wire::Gossip;

use super::membership::{MembershipSettings, MembershipTimes, Roster};

/// Where on its walk a joiner is put into passive views (HyParView's PRWL).
const PASSIVE_HOPS: u8 = 3;
/// Active peers in a shuffle (HyParView, section 5.1: k_a).
const SHUFFLED_ACTIVE: usize = 3;
/// Passive peers in a shuffle (k_p).
const SHUFFLED_PASSIVE: usize = 4;
/// Wishes for neighbours under way at once.
const ASKED_AT_ONCE: usize = 4;
/// The pause after a wish that was not granted; it doubles.
const PAUSE_LEAST: Duration = Duration::from_millis(100);
/// The longest such pause: where all others are full one node must stay short.
const PAUSE_MOST: Duration = Duration::from_secs(10);
/// Active peers to have in the own zone, and outside of it.
const ZONE_QUOTA: usize = 2;

/// What the view wants done.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum ViewAction {
    Send {
        to: NodeId,
        gossip: Gossip,
    },
    /// A peer is in the active view now.
    Added(NodeId),
    /// A peer is there no more.
    Dropped(NodeId),
}

#[derive(Clone, Copy, Debug)]
struct Asked {
    until: Moment,
    /// Whether somebody is dropped for it.
    makes_room: bool,
    /// Whether it was a spare: somebody had known it to be alive.
    spare: bool,
}

/// How many peers there may be, by K and the members.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
struct Sizes {
    active: usize,
    passive: usize,
    /// Of the active ones, in the own zone and outside of it.
    quota: [usize; 2],
}

impl Sizes {
    fn of(me: NodeId, k_list: usize, roster: &Roster) -> Sizes {
        let others = roster.len().saturating_sub(usize::from(roster.contains(me)));
        let k = k_list.min(others);
        // A third, as 8 of 24; where K is small the overlay needs a larger part to hold.
        let active = k.div_ceil(3).max(k.min(4));
        let at_home = roster.zone(me).map_or(1, |zone| roster.zone_size(zone)).max(1);
        let away = others + 1 - at_home.min(others + 1);
        // No more than those on the other side can return, if all do the same.
        // A quarter each at most: where both are tight, neighbours are fought over for ever.
        let most = (active / 4).clamp(1, ZONE_QUOTA);
        let outside = (active / 2 * away / at_home).min(most);
        let inside = (at_home - 1).min(most).min(active / 4);
        Sizes { active, passive: k - active, quota: [inside, outside] }
    }
}

/// The views of one node.
#[derive(Debug)]
pub(super) struct View {
    me: NodeId,
    k_list: usize,
    times: MembershipTimes,
    roster: Arc<Roster>,
    sizes: Sizes,
    active: BTreeSet<NodeId>,
    /// How many of them are in other zones.
    away: usize,
    passive: Vec<NodeId>,
    asked: BTreeMap<NodeId, Asked>,
    /// What the last shuffle took along: first to go when its answer comes.
    shuffled: Vec<NodeId>,
    shuffle_at: Moment,
    fill_at: Moment,
    pause: Duration,
    chance: SmallRng,
}

impl View {
    pub(super) fn new(now: Moment, settings: &MembershipSettings, roster: Arc<Roster>) -> View {
        let mut chance = SmallRng::seed_from_u64(settings.seed);
        let interval = settings.times.shuffle_interval;
        View {
            me: settings.me,
            k_list: settings.k_list,
            times: settings.times,
            sizes: Sizes::of(settings.me, settings.k_list, &roster),
            roster,
            active: BTreeSet::new(),
            away: 0,
            passive: Vec::new(),
            asked: BTreeMap::new(),
            shuffled: Vec::new(),
            shuffle_at: now.plus(interval.mul_f64(chance.random_range(0.1..1.0))),
            fill_at: now,
            pause: PAUSE_LEAST,
            chance,
        }
    }

    /// The members have changed.
    pub(super) fn set_roster(&mut self, now: Moment, roster: Arc<Roster>, out: &mut Vec<ViewAction>) {
        self.sizes = Sizes::of(self.me, self.k_list, &roster);
        let gone: Vec<NodeId> = self.active.iter().copied().filter(|node| !roster.contains(*node)).collect();
        for node in gone {
            self.lose(now, node, out);
        }
        self.roster = roster;
        self.away = self.active.iter().filter(|node| self.class(**node) == 1).count();
        self.passive.retain(|node| self.roster.contains(*node));
        self.asked.retain(|node, _| self.roster.contains(*node));
        while self.active.len() > self.sizes.active {
            self.drop_somebody(None, out);
        }
        self.passive.truncate(self.sizes.passive);
        self.fill_at = now;
    }

    pub(super) fn active(&self) -> &BTreeSet<NodeId> {
        &self.active
    }

    pub(super) fn passive(&self) -> &[NodeId] {
        &self.passive
    }

    pub(super) fn active_capacity(&self) -> usize {
        self.sizes.active
    }

    pub(super) fn capacity(&self) -> usize {
        self.sizes.active + self.sizes.passive
    }

    pub(super) fn chance(&mut self) -> &mut SmallRng {
        &mut self.chance
    }

    /// When [`View::tick`] has something to do.
    pub(super) fn next_timeout(&self) -> Moment {
        let asked = self.asked.values().map(|asked| asked.until).min().unwrap_or(Moment(u64::MAX));
        let fill = if self.is_short() { self.fill_at } else { Moment(u64::MAX) };
        self.shuffle_at.min(asked).min(fill)
    }

    fn wanted_class(&self) -> Option<usize> {
        let counts = self.counts();
        // The other zones first: they are harder to come by.
        [1, 0].into_iter().find(|class| counts[*class] < self.sizes.quota[*class])
    }

    fn is_short(&self) -> bool {
        let room = self.sizes.active.saturating_sub(self.active.len());
        let missing = room.max(usize::from(self.wanted_class().is_some()));
        missing > self.asked.len() && self.asked.len() < ASKED_AT_ONCE
    }

    /// 0 for the own zone, 1 for all others.
    fn class(&self, node: NodeId) -> usize {
        usize::from(self.roster.zone(node) != self.roster.zone(self.me))
    }

    fn counts(&self) -> [usize; 2] {
        [self.active.len() - self.away, self.away]
    }

    fn insert(&mut self, node: NodeId) {
        if self.active.insert(node) {
            self.away += self.class(node);
        }
    }

    fn remove(&mut self, node: NodeId) -> bool {
        let removed = self.active.remove(&node);
        if removed {
            self.away -= self.class(node);
        }
        removed
    }

    /// Does what is due. `is_down` says of whom nothing can be hoped for.
    pub(super) fn tick(&mut self, now: Moment, is_down: &dyn Fn(NodeId) -> bool, out: &mut Vec<ViewAction>) {
        let late: Vec<NodeId> =
            self.asked.iter().filter(|(_, asked)| asked.until <= now).map(|(node, _)| *node).collect();
        for node in late {
            // The next one, at once: this one has not refused.
            self.asked.remove(&node);
            self.forget(node);
            self.fill_at = self.fill_at.min(now);
        }
        while self.is_short() && self.fill_at <= now {
            if !self.ask_somebody(now, is_down, out) {
                self.not_granted(now);
                break;
            }
        }
        if self.shuffle_at <= now {
            self.shuffle(now, out);
        }
    }

    fn not_granted(&mut self, now: Moment) {
        self.fill_at = self.fill_at.max(now.plus(self.pause.mul_f64(self.chance.random_range(0.75..1.25))));
        self.pause = (self.pause * 2).min(PAUSE_MOST);
    }

    fn fill_soon(&mut self, now: Moment) {
        self.fill_at = now;
        self.pause = PAUSE_LEAST;
    }

    fn ask_somebody(&mut self, now: Moment, is_down: &dyn Fn(NodeId) -> bool, out: &mut Vec<ViewAction>) -> bool {
        let class = self.wanted_class();
        let full = self.active.len() >= self.sizes.active;
        let Some(node) = self.candidate(class, is_down).or_else(|| {
            // Somebody of the wrong zone is better than nobody.
            if full { None } else { self.candidate(None, is_down) }
        }) else {
            return false;
        };
        let alone = self.active.is_empty();
        let served = class.is_some_and(|class| class == self.class(node));
        let gossip =
            if alone && self.passive.is_empty() { Gossip::Join } else { Gossip::Neighbor { urgent: alone || served } };
        self.ask(now, node, served, gossip, out);
        true
    }

    fn ask(&mut self, now: Moment, node: NodeId, makes_room: bool, gossip: Gossip, out: &mut Vec<ViewAction>) {
        let until = now.plus(self.times.neighbor_timeout);
        let spare = self.passive.contains(&node);
        self.asked.insert(node, Asked { until, makes_room, spare });
        out.push(ViewAction::Send { to: node, gossip });
    }

    /// Whether a spare was asked whether it wants to be a neighbour.
    pub(super) fn has_asked_spare(&self, node: NodeId) -> bool {
        self.asked.get(&node).is_some_and(|asked| asked.spare)
    }

    fn candidate(&mut self, class: Option<usize>, is_down: &dyn Fn(NodeId) -> bool) -> Option<NodeId> {
        let fits = |view: &View, node: NodeId| {
            node != view.me
                && class.is_none_or(|class| view.class(node) == class)
                && !view.active.contains(&node)
                && !view.asked.contains_key(&node)
                && !is_down(node)
        };
        let spare: Vec<NodeId> = self.passive.iter().copied().filter(|node| fits(self, *node)).collect();
        if !spare.is_empty() {
            return Some(spare[self.chance.random_range(0..spare.len())]);
        }
        let mut chance = self.chance.clone();
        let drawn = self.roster.draw(&mut chance, |node| fits(self, node));
        self.chance = chance;
        drawn
    }

    /// Wants a node as a neighbour, and makes room for it: it may be of an overlay that has
    /// lost touch with this one.
    pub(super) fn want(&mut self, now: Moment, node: NodeId, out: &mut Vec<ViewAction>) {
        let known = node == self.me || self.active.contains(&node) || self.asked.contains_key(&node);
        if !known && self.roster.contains(node) && self.asked.len() < ASKED_AT_ONCE {
            self.ask(now, node, true, Gossip::Neighbor { urgent: true }, out);
        }
    }

    /// A member speaks of the views.
    pub(super) fn hear(
        &mut self,
        now: Moment,
        from: NodeId,
        gossip: Gossip,
        is_down: &dyn Fn(NodeId) -> bool,
        out: &mut Vec<ViewAction>,
    ) {
        match gossip {
            Gossip::Join => {
                self.add(now, from, out);
                out.push(ViewAction::Send { to: from, gossip: Gossip::NeighborReply { accepted: true } });
                let walk = Gossip::ForwardJoin { joiner: from, hops: limits::WALK_HOPS };
                let others = self.active.iter().filter(|node| **node != from);
                out.extend(others.map(|node| ViewAction::Send { to: *node, gossip: walk.clone() }));
            }
            Gossip::ForwardJoin { joiner, hops } => self.forward_join(now, from, joiner, hops, out),
            Gossip::Neighbor { urgent } => {
                let crossed = self.asked.remove(&from).is_some();
                let room = self.active.len() < self.sizes.active;
                let accepted = self.active.contains(&from) || room || urgent || crossed;
                if accepted {
                    self.add(now, from, out);
                }
                out.push(ViewAction::Send { to: from, gossip: Gossip::NeighborReply { accepted } });
            }
            Gossip::NeighborReply { accepted } => self.answered(now, from, accepted, out),
            Gossip::Disconnect => self.part(now, from, out),
            Gossip::Shuffle { hops, path, nodes } => {
                self.walk(from, hops.min(limits::WALK_HOPS), path, nodes, is_down, out)
            }
            Gossip::ShuffleReply { mut path, nodes } => match path.pop() {
                Some(next) if self.active.contains(&next) => {
                    out.push(ViewAction::Send { to: next, gossip: Gossip::ShuffleReply { path, nodes } });
                }
                Some(_) => {}
                None => {
                    let sent = std::mem::take(&mut self.shuffled);
                    self.integrate(&nodes, &sent, is_down);
                }
            },
            _ => {}
        }
    }

    fn forward_join(&mut self, now: Moment, from: NodeId, joiner: NodeId, hops: u8, out: &mut Vec<ViewAction>) {
        if joiner == self.me || !self.roster.contains(joiner) {
            return;
        }
        let hops = hops.min(limits::WALK_HOPS);
        if hops == PASSIVE_HOPS {
            self.keep_in_mind(joiner, &[]);
        }
        let next = self.some_active(|node| node != from && node != joiner);
        match next {
            Some(next) if hops > 0 => {
                let gossip = Gossip::ForwardJoin { joiner, hops: hops - 1 };
                out.push(ViewAction::Send { to: next, gossip });
            }
            _ => {
                let known = self.active.contains(&joiner) || self.asked.contains_key(&joiner);
                if !known && self.asked.len() < ASKED_AT_ONCE {
                    self.ask(now, joiner, true, Gossip::Neighbor { urgent: false }, out);
                }
            }
        }
    }

    fn answered(&mut self, now: Moment, from: NodeId, accepted: bool, out: &mut Vec<ViewAction>) {
        let asked = self.asked.remove(&from);
        if !accepted {
            if asked.is_some() {
                self.keep_in_mind(from, &[]);
                self.not_granted(now);
            }
            return;
        }
        let room = self.active.len() < self.sizes.active || asked.is_some_and(|asked| asked.makes_room);
        if self.active.contains(&from) || room {
            self.add(now, from, out);
            self.fill_soon(now);
        } else {
            // It comes too late: others were faster.
            out.push(ViewAction::Send { to: from, gossip: Gossip::Disconnect });
        }
    }

    /// Takes a node into the active view; if that is full, somebody has to go.
    pub(super) fn add(&mut self, now: Moment, node: NodeId, out: &mut Vec<ViewAction>) {
        self.asked.remove(&node);
        if node == self.me || !self.roster.contains(node) || self.active.contains(&node) {
            return;
        }
        if self.active.len() >= self.sizes.active && !SeededBug::ViewPastK.is_planted() {
            self.drop_somebody(Some(node), out);
        }
        self.forget(node);
        self.insert(node);
        // Where only few others exist the active view must not push the sum past K.
        self.passive.truncate(self.capacity().saturating_sub(self.active.len()));
        out.push(ViewAction::Added(node));
        if self.active.len() < self.sizes.active {
            self.fill_soon(now);
        }
    }

    /// A peer that has room may become a neighbour without much ado: it thinks that it is one.
    pub(super) fn take_if_room(&mut self, now: Moment, node: NodeId, out: &mut Vec<ViewAction>) -> bool {
        if self.active.len() < self.sizes.active || self.asked.contains_key(&node) {
            self.add(now, node, out);
        }
        self.active.contains(&node)
    }

    fn drop_somebody(&mut self, newcomer: Option<NodeId>, out: &mut Vec<ViewAction>) {
        let counts = self.counts();
        let spared = |node: NodeId| {
            let class = self.class(node);
            counts[class] <= self.sizes.quota[class] && newcomer.is_none_or(|newcomer| self.class(newcomer) != class)
        };
        let dispensable: Vec<NodeId> = self.active.iter().copied().filter(|node| !spared(*node)).collect();
        let from = if dispensable.is_empty() { self.active.iter().copied().collect() } else { dispensable };
        if from.is_empty() {
            return;
        }
        let dropped = from[self.chance.random_range(0..from.len())];
        self.remove(dropped);
        out.push(ViewAction::Send { to: dropped, gossip: Gossip::Disconnect });
        out.push(ViewAction::Dropped(dropped));
        self.keep_in_mind(dropped, &[]);
    }

    /// A neighbour is none any more, but it lives.
    pub(super) fn part(&mut self, now: Moment, node: NodeId, out: &mut Vec<ViewAction>) {
        if self.remove(node) {
            out.push(ViewAction::Dropped(node));
            self.keep_in_mind(node, &[]);
            self.fill_soon(now);
        }
    }

    /// A peer is down or cannot be reached: it is of no use.
    pub(super) fn lose(&mut self, now: Moment, node: NodeId, out: &mut Vec<ViewAction>) {
        self.forget(node);
        if self.asked.remove(&node).is_some() {
            // The next one, at once: this one has not refused.
            self.fill_at = now;
        }
        if self.remove(node) {
            out.push(ViewAction::Dropped(node));
            self.fill_soon(now);
        }
    }

    fn some_active(&mut self, fit: impl Fn(NodeId) -> bool) -> Option<NodeId> {
        let fitting: Vec<NodeId> = self.active.iter().copied().filter(|node| fit(*node)).collect();
        (!fitting.is_empty()).then(|| fitting[self.chance.random_range(0..fitting.len())])
    }

    fn some_passive(&mut self, most: usize) -> Vec<NodeId> {
        // A partial Fisher–Yates shuffle.
        let length = self.passive.len();
        for at in 0..most.min(length) {
            let other = self.chance.random_range(at..length);
            self.passive.swap(at, other);
        }
        self.passive[..most.min(length)].to_vec()
    }

    fn shuffle(&mut self, now: Moment, out: &mut Vec<ViewAction>) {
        self.shuffle_at = now.plus(self.times.shuffle_interval.mul_f64(self.chance.random_range(0.75..1.25)));
        let Some(to) = self.some_active(|_| true) else { return };
        let mut nodes = vec![self.me];
        let mut active: Vec<NodeId> = self.active.iter().copied().filter(|node| *node != to).collect();
        for _ in 0..SHUFFLED_ACTIVE.min(active.len()) {
            let taken = active.swap_remove(self.chance.random_range(0..active.len()));
            nodes.push(taken);
        }
        self.shuffled = self.some_passive(SHUFFLED_PASSIVE);
        nodes.extend(&self.shuffled);
        let gossip = Gossip::Shuffle { hops: limits::WALK_HOPS - 1, path: vec![self.me], nodes };
        out.push(ViewAction::Send { to, gossip });
    }

    fn walk(
        &mut self,
        from: NodeId,
        hops: u8,
        mut path: Vec<NodeId>,
        nodes: Vec<NodeId>,
        is_down: &dyn Fn(NodeId) -> bool,
        out: &mut Vec<ViewAction>,
    ) {
        if path.last() != Some(&from) || path.contains(&self.me) {
            return;
        }
        let room = path.len() <= usize::from(limits::WALK_HOPS);
        let next = self.some_active(|node| !path.contains(&node));
        if let (Some(next), true) = (next, hops > 0 && room) {
            path.push(self.me);
            return out.push(ViewAction::Send { to: next, gossip: Gossip::Shuffle { hops: hops - 1, path, nodes } });
        }
        let back = self.some_passive(nodes.len());
        path.pop();
        let gossip = Gossip::ShuffleReply { path, nodes: back.clone() };
        out.push(ViewAction::Send { to: from, gossip });
        self.integrate(&nodes, &back, is_down);
    }

    /// Takes new peers into the passive view in the place of those that were given away.
    fn integrate(&mut self, nodes: &[NodeId], given: &[NodeId], is_down: &dyn Fn(NodeId) -> bool) {
        if SeededBug::PassiveNotRefilled.is_planted() {
            return;
        }
        let mut given = given.to_vec();
        for node in nodes {
            if !is_down(*node) && self.keep_in_mind(*node, &given) {
                given.retain(|given| self.passive.contains(given));
            }
        }
    }

    /// Puts a node into the passive view; whether it is new there. Those in `rather` go first.
    fn keep_in_mind(&mut self, node: NodeId, rather: &[NodeId]) -> bool {
        let known = node == self.me || self.active.contains(&node) || self.passive.contains(&node);
        let most = self.sizes.passive.min(self.capacity().saturating_sub(self.active.len()));
        if known || most == 0 || !self.roster.contains(node) {
            return false;
        }
        if self.passive.len() >= most {
            let at = self.passive.iter().position(|node| rather.contains(node));
            let at = at.unwrap_or_else(|| self.chance.random_range(0..self.passive.len()));
            self.passive.swap_remove(at);
        }
        self.passive.push(node);
        true
    }

    pub(super) fn forget(&mut self, node: NodeId) {
        self.passive.retain(|other| *other != node);
    }

    pub(super) fn check_invariants(&self) {
        let (active, passive) = (self.active.len(), self.passive.len());
        assert!(
            active + passive <= self.k_list,
            "{active} active and {passive} passive peers exceed K = {}",
            self.k_list
        );
        assert!(active <= self.sizes.active, "{active} active peers where {} have room", self.sizes.active);
        let mut all: BTreeSet<NodeId> = self.active.clone();
        all.extend(&self.passive);
        assert_eq!(all.len(), active + passive, "a peer is in the views twice");
        assert!(!all.contains(&self.me), "a node is its own peer");
        assert!(all.iter().all(|node| self.roster.contains(*node)), "a peer is no member");
        let away = self.active.iter().filter(|node| self.class(**node) == 1).count();
        assert_eq!(away, self.away, "zones are miscounted");
        assert!(self.asked.len() <= ASKED_AT_ONCE, "too many wishes at once");
    }
}

#[cfg(test)]
#[path = "view_tests.rs"]
mod tests;
