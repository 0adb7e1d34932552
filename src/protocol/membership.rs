//! Membership by gossip: who is alive, seen through a partial list of fixed size.
//!
//! Problem: of thousands of members a node can watch a handful; yet the death of any must
//! be known to all in seconds, and no living one be held for dead.
//!
//! How: three machines, joined here and unaware of each other. `view` says who
//! the neighbours are; `detector` watches them; `broadcast` carries what
//! one has to say to all. An observer's judgement is an opinion; a member is down for the
//! cluster when a majority of the observers that were heard says so (`verdicts`).
//!
//! Messages: [`Gossip`] over connections, [`Probe`] in datagrams.
//!
//! Invariant ([`Membership::check_invariants`]): the sum of both views is at most K; the
//! active view is what is watched and what the broadcast tree spans. What a node holds
//! beyond that is bounded and, at rest, nothing.
//!
//! Who comes back: a node that learns that it is held for down takes a later life, which
//! everybody prefers. It learns that from whoever hears of it first: over a new connection
//! both ends say whom they hold for down, and members that are down are called now and
//! then, about twice a second by all nodes together. So two sides of a partition find each
//! other again.
//!
//! Source: DESIGN section 6, and the papers that the three machines name.

mod contacts;
mod io;
mod news;
mod roster;
mod verdicts;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use rand::Rng;

use crate::types::{Health, Life, Load, Moment, NodeId, limits};
use crate::wire::{Gossip, Probe, Rumour};

use super::broadcast::{Broadcast, Sent};
use super::detector::{CONFIRMATIONS, Detector, DetectorAction};
use super::view::{View, ViewAction};
use contacts::Contacts;
use news::News;
use verdicts::Verdicts;

pub use io::{
    MemberChange, MembershipAction, MembershipCounters, MembershipInput, MembershipSettings, MembershipTimes,
};
pub use roster::Roster;

/// A timer that is late by more shows that this node has stood still.
const STALL: Duration = Duration::from_secs(1);
/// How often somebody who is down may be called.
const CALL_EVERY: Duration = Duration::from_secs(1);
/// Calls a second to one that is down, by all nodes together.
const CALLS: f64 = 2.0;
/// How often a node that holds somebody for down compares that with a neighbour: it may have
/// missed a refutation.
const COMPARE_EVERY: Duration = Duration::from_secs(10);

/// The machine of one node.
#[derive(Debug)]
pub struct Membership {
    settings: MembershipSettings,
    roster: Arc<Roster>,
    life: Life,
    view: View,
    detector: Detector,
    broadcast: Broadcast,
    verdicts: Verdicts,
    contacts: Contacts,
    news: News,
    /// Neighbours that said in their last answer that they are none.
    strangers: BTreeSet<NodeId>,
    /// Members that are busy.
    loads: BTreeMap<NodeId, Load>,
    links: BTreeSet<NodeId>,
    /// How often the active view had changed when the links were last looked at.
    linked_at: u64,
    call_at: Moment,
    compare_at: Moment,
    /// When it has to be called at the latest.
    due: Moment,
    counters: MembershipCounters,
    viewed: Vec<ViewAction>,
    detected: Vec<DetectorAction>,
    sent: Vec<Sent>,
}

impl Membership {
    /// A machine that knows no peer yet; it joins by itself through some member of the roster.
    pub fn new(now: Moment, settings: MembershipSettings, roster: Arc<Roster>) -> Membership {
        let mut view = View::new(now, &settings, roster.clone());
        let call_at = now.plus(CALL_EVERY.mul_f64(view.chance().random_range(0.0..1.0)));
        Membership {
            life: Life::begun(settings.incarnation),
            detector: Detector::new(now, &settings, roster.len()),
            broadcast: Broadcast::new(settings.me, settings.incarnation),
            verdicts: Verdicts::new(roster.len()),
            contacts: Contacts::default(),
            news: News::default(),
            strangers: BTreeSet::new(),
            loads: BTreeMap::new(),
            links: BTreeSet::new(),
            linked_at: 0,
            call_at,
            compare_at: now,
            due: now,
            counters: MembershipCounters::default(),
            viewed: Vec::new(),
            detected: Vec::new(),
            sent: Vec::new(),
            view,
            roster,
            settings,
        }
    }

    /// Takes in what happened and appends what must be done, in order.
    pub fn handle(&mut self, now: Moment, input: MembershipInput, actions: &mut Vec<MembershipAction>) {
        self.notice_stall(now, actions);
        match input {
            MembershipInput::Gossip { from, gossip } => {
                if self.is_peer(from) {
                    self.hear_gossip(now, from, gossip, actions);
                }
            }
            MembershipInput::Probe { from, probe } => {
                if self.is_peer(from) {
                    self.hear_probe(now, from, probe, actions);
                }
            }
            MembershipInput::LinkUp { peer, incarnation } => {
                if self.is_peer(peer) {
                    self.contacts.up(peer, actions);
                    self.seen_alive(now, peer, Life::begun(incarnation), true, actions);
                    let neighbor = self.view.active().contains(&peer);
                    if neighbor {
                        self.broadcast.add(peer);
                        self.detector.look_at(now, peer);
                    }
                    if neighbor || self.verdicts.is_down(peer) || self.contacts.contains(peer) {
                        self.tell_standing(now, peer, actions);
                    }
                }
            }
            MembershipInput::LinkDown { peer, parted: _ } => {
                self.contacts.down(peer);
                // In good order or not: a neighbour's connection is made again if it lives.
                self.detector.look_at(now, peer);
            }
            MembershipInput::Unreachable { peer } => self.not_reached(now, peer, actions),
            MembershipInput::Epoch(epoch) => self.begin_rumour(now, Rumour::Epoch(epoch)),
            MembershipInput::Load(load) => self.news.load = load,
            MembershipInput::Tick => self.tick(now, actions),
        }
        self.settle(now, actions);
    }

    /// The members have changed.
    pub fn set_roster(&mut self, now: Moment, roster: Arc<Roster>, actions: &mut Vec<MembershipAction>) {
        self.roster = roster.clone();
        self.detector.set_members(roster.len());
        self.verdicts.set_members(roster.len());
        self.verdicts.retain(|node| roster.contains(node));
        self.contacts.retain(|node| roster.contains(node));
        self.view.set_roster(now, roster, &mut self.viewed);
        self.settle(now, actions);
    }

    /// When [`MembershipInput::Tick`] is due.
    pub fn next_timeout(&self) -> Moment {
        self.due
    }

    fn first_timeout(&self) -> Moment {
        let machines = self.view.next_timeout().min(self.detector.next_timeout()).min(self.broadcast.next_timeout());
        let own = self.contacts.next_timeout().min(self.verdicts.next_timeout()).min(self.news.next_timeout());
        machines.min(own).min(self.call_at)
    }

    fn is_peer(&mut self, node: NodeId) -> bool {
        let member = node != self.settings.me && self.roster.contains(node);
        self.counters.ignored += u64::from(!member);
        member
    }

    fn notice_stall(&mut self, now: Moment, actions: &mut Vec<MembershipAction>) {
        let gap = now.since(self.due);
        if gap < STALL {
            return;
        }
        self.counters.stalls += 1;
        self.detector.stalled(now, gap);
        if gap >= self.settings.times.suspicion_least && !self.view.active().is_empty() {
            // Others have noticed, too: better to speak before being asked.
            self.refute(now, self.life);
        }
        // What was due is done before what has come meanwhile is heard.
        self.tick(now, actions);
        self.settle(now, actions);
    }

    fn hear_gossip(&mut self, now: Moment, from: NodeId, gossip: Gossip, actions: &mut Vec<MembershipAction>) {
        match gossip {
            Gossip::Rumour { .. } | Gossip::Have { .. } | Gossip::Graft { .. } | Gossip::Prune => {
                let heard = self.broadcast.hear(now, from, gossip, &mut self.counters, &mut self.sent);
                if let Some((id, rumour)) = heard {
                    self.deliver(now, from, id.origin, rumour, actions);
                }
            }
            Gossip::Standing { life, load, down, alive } => {
                for (member, life) in alive {
                    if member != self.settings.me && self.roster.contains(member) {
                        self.seen_alive(now, member, life, false, actions);
                    }
                }
                self.hear_standing(now, from, life, load, down, actions);
            }
            _ => {
                let (verdicts, me) = (&self.verdicts, self.settings.me);
                let is_down = |node| verdicts.is_down(node) || verdicts.opinion_of(me, node) == Some(Health::Down);
                self.view.hear(now, from, gossip, &is_down, &mut self.viewed);
            }
        }
    }

    fn hear_probe(&mut self, now: Moment, from: NodeId, probe: Probe, actions: &mut Vec<MembershipAction>) {
        match probe {
            Probe::Ping { id, life, accused, neighbor } => {
                if accused.is_some_and(|accused| accused >= self.life) {
                    self.refute(now, accused.unwrap_or(self.life));
                }
                if neighbor {
                    self.view.take_if_room(now, from, &mut self.viewed);
                }
                let neighbor = self.view.active().contains(&from);
                let probe = Probe::Ack { id, life: self.life, load: self.news.load, neighbor };
                actions.push(MembershipAction::Probe { to: from, probe });
                self.seen_alive(now, from, life, true, actions);
                if self.verdicts.is_down(from) {
                    self.tell_standing(now, from, actions);
                }
            }
            Probe::Ack { life, load, neighbor, .. } => {
                self.seen_alive(now, from, life, true, actions);
                self.note_load(from, load);
                if neighbor || !self.view.active().contains(&from) {
                    self.strangers.remove(&from);
                } else if !self.strangers.insert(from) {
                    // Twice: it was no message that was still on its way.
                    self.view.part(now, from, &mut self.viewed);
                }
                self.detector.hear(now, from, probe, self.life, &mut self.counters, &mut self.detected);
            }
            Probe::AckFor { subject, life, .. } => {
                if self.roster.contains(subject) {
                    self.seen_alive(now, subject, life, true, actions);
                    self.detector.hear(now, from, probe, self.life, &mut self.counters, &mut self.detected);
                }
            }
            Probe::PingFor { subject, .. } | Probe::NackFor { subject, .. } => {
                if subject != self.settings.me && self.roster.contains(subject) {
                    self.detector.hear(now, from, probe, self.life, &mut self.counters, &mut self.detected);
                }
            }
        }
    }

    fn note_load(&mut self, peer: NodeId, load: Load) {
        if load == Load::Normal {
            self.loads.remove(&peer);
        } else if self.loads.len() < limits::CASES {
            self.loads.insert(peer, load);
        }
    }

    fn tick(&mut self, now: Moment, actions: &mut Vec<MembershipAction>) {
        let (verdicts, me) = (&self.verdicts, self.settings.me);
        let is_down = |node| verdicts.is_down(node) || verdicts.opinion_of(me, node) == Some(Health::Down);
        self.view.tick(now, &is_down, &mut self.viewed);
        self.detector.tick(now, self.life, &mut self.counters, &mut self.detected);
        self.broadcast.tick(now, &mut self.counters, &mut self.sent);
        self.contacts.tick(now);
        for (member, life) in self.verdicts.tick(now) {
            self.turned(now, member, life, Some(Health::Down), actions);
        }
        self.tell_news(now);
        if self.call_at <= now {
            self.call_at = now.plus(CALL_EVERY);
            self.call_somebody(now, actions);
        }
    }

    /// Calls a member that is down, now and then: it may be back, or a whole side with it.
    /// One that only one observer can accuse gets its second opinion that way.
    fn call_somebody(&mut self, now: Moment, actions: &mut Vec<MembershipAction>) {
        let accused: Vec<NodeId> = self.verdicts.accused().collect();
        let neighbors = self.view.active().len();
        if !accused.is_empty() && neighbors > 0 && self.compare_at <= now {
            self.compare_at = now.plus(COMPARE_EVERY);
            let at = self.view.chance().random_range(0..neighbors);
            let neighbor = self.view.active().iter().nth(at).copied();
            neighbor.into_iter().for_each(|neighbor| self.tell_standing(now, neighbor, actions));
        }
        let rate = CALLS * accused.len() as f64 / self.roster.len().max(1) as f64;
        if accused.is_empty() || !self.view.chance().random_bool(rate.min(1.0)) {
            return;
        }
        let node = accused[self.view.chance().random_range(0..accused.len())];
        self.tell_standing(now, node, actions);
    }

    /// A peer that was called does not answer: whoever is accused is judged by that.
    fn not_reached(&mut self, now: Moment, peer: NodeId, actions: &mut Vec<MembershipAction>) {
        self.contacts.give_up(peer);
        if self.view.active().contains(&peer) {
            return self.detector.not_reached(now, peer, &mut self.counters, &mut self.detected);
        }
        // Nobody may watch it: then whoever knew it to be alive is its first accuser.
        let was_alive = self.view.has_asked_spare(peer).then(|| self.life_of(peer).unwrap_or_default());
        self.view.lose(now, peer, &mut self.viewed);
        let me = self.settings.me;
        if let Some(life) = self.verdicts.accused_life(peer).or(was_alive)
            && !self.verdicts.is_down(peer)
            && self.verdicts.opinion_of(me, peer) != Some(Health::Down)
        {
            self.judged(now, peer, life, Health::Down, actions);
        }
    }

    /// This node has an opinion, and says so.
    fn judged(&mut self, now: Moment, peer: NodeId, life: Life, health: Health, actions: &mut Vec<MembershipAction>) {
        actions.push(MembershipAction::Changed(MemberChange::Own { member: peer, life, health }));
        if health == Health::Down {
            self.view.lose(now, peer, &mut self.viewed);
        }
        // What is clear without this node's word, others need not hear.
        let [alive, suspect, down] = self.verdicts.tally(peer);
        let clear = match health {
            Health::Alive => false,
            Health::Suspect => suspect + down > CONFIRMATIONS,
            Health::Down => alive == 0 && down > CONFIRMATIONS,
        };
        let turned = self.verdicts.hear(now, self.settings.me, peer, life, health);
        self.turned(now, peer, life, turned, actions);
        if !clear {
            self.begin_rumour(now, Rumour::Opinion { subject: peer, life, health });
        }
    }

    /// Carries out what the machines want until nothing is left.
    fn settle(&mut self, now: Moment, actions: &mut Vec<MembershipAction>) {
        loop {
            let viewed = std::mem::take(&mut self.viewed);
            let detected = std::mem::take(&mut self.detected);
            if viewed.is_empty() && detected.is_empty() {
                break;
            }
            for action in viewed {
                self.carry_out_view(now, action, actions);
            }
            for action in detected {
                self.carry_out_detector(now, action, actions);
            }
        }
        for (to, gossip) in std::mem::take(&mut self.sent) {
            self.contacts.send(now, to, MembershipAction::Gossip { to, gossip }, actions);
        }
        if self.contacts.have_changed() || self.counters.view_changes != self.linked_at {
            self.linked_at = self.counters.view_changes;
            let links: BTreeSet<NodeId> = self.view.active().iter().copied().chain(self.contacts.peers()).collect();
            if links != self.links {
                self.links = links;
                actions.push(MembershipAction::Links(self.links.clone()));
            }
        }
        self.due = self.first_timeout();
    }

    fn carry_out_view(&mut self, now: Moment, action: ViewAction, actions: &mut Vec<MembershipAction>) {
        match action {
            ViewAction::Send { to, gossip } => {
                self.contacts.send(now, to, MembershipAction::Gossip { to, gossip }, actions);
            }
            ViewAction::Added(peer) => {
                self.counters.view_changes += 1;
                let life = self.verdicts.life(peer).unwrap_or_default();
                self.detector.watch(now, peer, life);
                self.broadcast.add(peer);
                if self.contacts.is_linked(peer) {
                    self.tell_standing(now, peer, actions);
                }
            }
            ViewAction::Dropped(peer) => {
                self.counters.view_changes += 1;
                self.detector.unwatch(peer);
                self.broadcast.remove(peer);
                self.strangers.remove(&peer);
            }
        }
    }

    fn carry_out_detector(&mut self, now: Moment, action: DetectorAction, actions: &mut Vec<MembershipAction>) {
        match action {
            DetectorAction::Send { to, probe } => {
                let message = MembershipAction::Probe { to, probe };
                match probe {
                    // A neighbour without a connection is one that does not answer.
                    Probe::Ping { neighbor: true, .. } if !self.contacts.is_linked(to) => {}
                    _ => self.contacts.send(now, to, message, actions),
                }
            }
            DetectorAction::Judged { peer, life, health } => self.judged(now, peer, life, health, actions),
        }
    }

    fn begin_rumour(&mut self, now: Moment, rumour: Rumour) {
        self.counters.rumours_begun += 1;
        self.broadcast.begin(now, rumour, &mut self.sent);
    }

    /// This node.
    pub fn me(&self) -> NodeId {
        self.settings.me
    }

    /// This node's life.
    pub fn life(&self) -> Life {
        self.life
    }

    /// The active view: who is watched.
    pub fn active(&self) -> impl Iterator<Item = NodeId> + '_ {
        self.view.active().iter().copied()
    }

    /// The passive view: who could be.
    pub fn passive(&self) -> impl Iterator<Item = NodeId> + '_ {
        self.view.passive().iter().copied()
    }

    /// K, as far as there are so many others.
    pub fn k_list(&self) -> usize {
        self.view.capacity()
    }

    /// How many peers the active view has room for.
    pub fn active_capacity(&self) -> usize {
        self.view.active_capacity()
    }

    /// The connections that are wanted now.
    pub fn links(&self) -> &BTreeSet<NodeId> {
        &self.links
    }

    /// What this node itself thinks of a peer: while it watches it, and for a while after it
    /// has judged it.
    pub fn own_opinion(&self, member: NodeId) -> Option<Health> {
        self.detector.health(member).or_else(|| self.verdicts.opinion_of(self.settings.me, member))
    }

    /// What is held of a member: down if the majority of its observers says so, suspect if
    /// one of them has doubts.
    pub fn health(&self, member: NodeId) -> Health {
        let own = self.detector.health(member).unwrap_or(Health::Alive);
        self.verdicts.health(member).max(own)
    }

    /// The opinions about a member: how many observers hold it for alive, suspect, down.
    pub fn tally(&self, member: NodeId) -> [usize; 3] {
        self.verdicts.tally(member)
    }

    /// The newest life of a member that is known here.
    pub fn life_of(&self, member: NodeId) -> Option<Life> {
        self.detector.life(member).max(self.verdicts.life(member))
    }

    /// The usual time from a ping to its answer, for a watched peer.
    pub fn round_trip(&self, member: NodeId) -> Option<Duration> {
        self.detector.round_trip(member)
    }

    /// Probes of a watched peer that have failed lately, less those that have not.
    pub fn strikes(&self, member: NodeId) -> u32 {
        self.detector.strikes(member)
    }

    /// How busy a member says it is.
    pub fn load_of(&self, member: NodeId) -> Load {
        self.loads.get(&member).copied().unwrap_or_default()
    }

    /// How ill this node thinks it is itself: 0 is well, 8 is worst. Its patience with
    /// others grows with that.
    pub fn ill_health(&self) -> u32 {
        self.detector.ill_health()
    }

    /// Members that are held for down, and in which life.
    pub fn down(&self) -> impl Iterator<Item = (NodeId, Life)> + '_ {
        self.verdicts.down()
    }

    /// What it has counted.
    pub fn counters(&self) -> MembershipCounters {
        self.counters
    }

    /// How many entries of liveness state it holds: peers, probes, cases, opinions, rumours.
    pub fn state_entries(&self) -> usize {
        let views = self.view.active().len() + self.view.passive().len();
        let machines = self.detector.entries() + self.broadcast.entries() + self.verdicts.entries();
        views + machines + self.contacts.entries() + self.news.entries() + self.loads.len() + self.strangers.len()
    }

    /// # Panics
    /// If an invariant is broken. For the simulator, after each step.
    pub fn check_invariants(&self) {
        self.view.check_invariants();
        self.detector.check_invariants();
        self.broadcast.check_invariants(self.view.active());
        self.verdicts.check_invariants();
        self.contacts.check_invariants();
        let watched = |peer: &NodeId| self.detector.health(*peer).is_some();
        assert!(self.view.active().iter().all(watched), "a neighbour is not watched");
        assert!(
            self.viewed.is_empty() && self.detected.is_empty() && self.sent.is_empty(),
            "something was left undone"
        );
        assert!(self.links.len() <= self.settings.k_list + limits::CONTACTS, "too many connections");
    }
}

#[cfg(test)]
#[path = "membership_tests.rs"]
mod tests;
