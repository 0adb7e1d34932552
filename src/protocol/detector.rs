//! The failure detector: SWIM over the active view, with Lifeguard.
//!
//! Problem: the dead must be found in seconds and the living not accused, by nodes that
//! are not all well themselves, over a network that loses datagrams.
//!
//! Messages: the [`Probe`]s. A ping that is not answered in time is repeated through
//! three others (`PingFor`); when nothing has come back at the end of the probe's time, the
//! peer is looked at harder, twice and through others at once, and then it is suspect. It has a while to be heard of; the more observers confirm the
//! suspicion, the shorter that is. Suspects are probed all the time.
//!
//! Invariant: each watched peer is alive or suspect here, and its suspicion has an end;
//! an answer ends a suspicion, and so does a later life of the peer; only watched peers are
//! judged. In words: nobody is judged on hearsay, and nobody stays suspect for ever.
//!
//! Strikes: a refutation proves that a peer can be heard by somebody, not that it can be
//! used. A peer whose probes keep failing is judged although it refutes ([`STRIKES`]).
//!
//! Lifeguard: all times grow with this node's own ill health, which it reads from probes
//! that fail, from relays that do not even say that they failed (nacks), from accusations
//! against itself, and from noticing that it has stood still.
//!
//! Source: Das, Gupta, Motivala, "SWIM", DSN 2002, sections 3 and 4; Dadgar, Phillips,
//! Currey, "Lifeguard", DSN-W 2018, section IV.
//!
//! Left out: what others think ([`super::membership`]).

mod state;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use crate::types::{Health, Life, Moment, NodeId, SeededBug};
use crate::wire::{Probe, ProbeId};

use super::membership::{MembershipCounters, MembershipSettings, MembershipTimes};
use state::{Pinged, Relayed, Suspicion, Watched};

/// Others that are asked to probe (SWIM, section 5: k = 3).
const RELAYS: usize = 3;
/// Confirmations that shorten a suspicion to the least (Lifeguard, section IV-B: K = 3).
pub(super) const CONFIRMATIONS: usize = 3;
/// The worst local health (Lifeguard, section V: S = 8).
const WORST: u32 = 8;
/// How often the time of a suspicion is multiplied at most for this node's ill health.
const MOST_PATIENCE: u32 = 3;
/// A failed probe is a strike, an answer takes one back. With 20 % of all datagrams lost
/// one first probe in 14 fails and one further probe in 180, so that 8 strikes never come
/// together; with 80 % lost on the way to one peer three further probes in four fail, and it
/// takes about ten seconds.
const STRIKES: u32 = 8;
/// Strikes that make a peer suspect.
const SUSPECT_AFTER: u32 = 2;
/// How often a connection that could not be made counts, at most.
const NOT_REACHED_EVERY: Duration = Duration::from_secs(1);
/// For how long an answer that comes too late is still recognised.
const LATE: Duration = Duration::from_secs(5);
/// Pings for others under way at once.
const RELAYED: usize = 64;

/// What the detector wants done.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum DetectorAction {
    Send {
        to: NodeId,
        probe: Probe,
    },
    /// What is thought of a watched peer; also said again when others ask.
    Judged {
        peer: NodeId,
        life: Life,
        health: Health,
    },
}

/// The detector of one node.
#[derive(Debug)]
pub(super) struct Detector {
    times: MembershipTimes,
    watched: BTreeMap<NodeId, Watched>,
    /// Who is still to be probed in this round, in random order.
    round: Vec<NodeId>,
    turn_at: Moment,
    pinged: BTreeMap<ProbeId, Pinged>,
    relayed: BTreeMap<ProbeId, Relayed>,
    next_id: ProbeId,
    /// 0 is well, [`WORST`] is worst.
    ill_health: u32,
    /// How many observers beside this one a peer may have.
    others: usize,
    chance: SmallRng,
}

impl Detector {
    pub(super) fn new(now: Moment, settings: &MembershipSettings, members: usize) -> Detector {
        let mut chance = SmallRng::seed_from_u64(settings.seed ^ 0x6465_7465_6374_6f72);
        let first = settings.times.probe_interval.mul_f64(chance.random_range(0.0..1.0));
        Detector {
            times: settings.times,
            watched: BTreeMap::new(),
            round: Vec::new(),
            turn_at: now.plus(first),
            pinged: BTreeMap::new(),
            relayed: BTreeMap::new(),
            next_id: ProbeId(chance.random()),
            ill_health: 0,
            others: members.saturating_sub(2),
            chance,
        }
    }

    pub(super) fn set_members(&mut self, members: usize) {
        self.others = members.saturating_sub(2);
    }

    /// Watches a peer from now on.
    pub(super) fn watch(&mut self, now: Moment, peer: NodeId, life: Life) {
        // The first time soon, to know how far away it is; not all at once.
        let soon = now.plus(self.times.probe_interval.mul_f64(self.chance.random_range(0.0..1.0)));
        let watched = Watched {
            life,
            suspected: None,
            strikes: 0,
            probe_at: Some(soon),
            accused: false,
            asked: false,
            round_trip: None,
            not_reached_at: None,
        };
        self.watched.entry(peer).or_insert(watched);
    }

    pub(super) fn unwatch(&mut self, peer: NodeId) {
        self.watched.remove(&peer);
        self.round.retain(|node| *node != peer);
        self.pinged.retain(|_, pinged| pinged.peer != peer);
    }

    pub(super) fn health(&self, peer: NodeId) -> Option<Health> {
        let watched = self.watched.get(&peer)?;
        Some(if watched.suspected.is_some() { Health::Suspect } else { Health::Alive })
    }

    /// The life in which a peer is suspect here.
    pub(super) fn accused(&self, peer: NodeId) -> Option<Life> {
        self.watched.get(&peer).filter(|watched| watched.suspected.is_some()).map(|watched| watched.life)
    }

    pub(super) fn life(&self, peer: NodeId) -> Option<Life> {
        self.watched.get(&peer).map(|watched| watched.life)
    }

    pub(super) fn round_trip(&self, peer: NodeId) -> Option<Duration> {
        self.watched.get(&peer)?.round_trip
    }

    pub(super) fn strikes(&self, peer: NodeId) -> u32 {
        self.watched.get(&peer).map_or(0, |watched| watched.strikes)
    }

    pub(super) fn ill_health(&self) -> u32 {
        self.ill_health
    }

    pub(super) fn entries(&self) -> usize {
        self.watched.len() + self.pinged.len() + self.relayed.len()
    }

    fn scaled(&self, time: Duration) -> Duration {
        if SeededBug::LocalHealthOff.is_planted() { time } else { time * (1 + self.ill_health) }
    }

    fn sicker(&mut self) {
        self.ill_health = (self.ill_health + 1).min(WORST);
    }

    /// When [`Detector::tick`] has something to do.
    pub(super) fn next_timeout(&self) -> Moment {
        let mut next = self.turn_at;
        for pinged in self.pinged.values() {
            next =
                next.min(if pinged.failed { pinged.ends.plus(LATE) } else { pinged.relays_at.unwrap_or(pinged.ends) });
        }
        for relayed in self.relayed.values() {
            next = next.min(if relayed.nacked { relayed.ends.plus(LATE) } else { relayed.ends });
        }
        for watched in self.watched.values() {
            next = next.min(watched.probe_at.unwrap_or(next));
            next = next.min(watched.suspected.as_ref().map_or(next, |suspicion| suspicion.until));
        }
        next
    }

    /// Does what is due. `me` is this node's life.
    pub(super) fn tick(
        &mut self,
        now: Moment,
        me: Life,
        counters: &mut MembershipCounters,
        out: &mut Vec<DetectorAction>,
    ) {
        self.end_pings(now, me, counters, out);
        self.nack(now, out);
        let over: Vec<NodeId> = self
            .watched
            .iter()
            .filter(|(_, watched)| watched.suspected.as_ref().is_some_and(|suspicion| suspicion.until <= now))
            .map(|(peer, _)| *peer)
            .collect();
        for peer in over {
            self.judge_down(peer, counters, out);
        }
        let due: Vec<NodeId> = self
            .watched
            .iter()
            .filter(|(_, watched)| watched.probe_at.is_some_and(|at| at <= now))
            .map(|(peer, _)| *peer)
            .collect();
        for peer in due {
            self.ping(now, peer, me, counters, out);
        }
        if self.turn_at <= now {
            self.turn_at = now.plus(self.scaled(self.times.probe_interval));
            if let Some(peer) = self.next_in_turn() {
                self.ping(now, peer, me, counters, out);
            }
        }
    }

    fn next_in_turn(&mut self) -> Option<NodeId> {
        if self.round.is_empty() {
            self.round = self.watched.keys().copied().collect();
            for at in 1..self.round.len() {
                let other = self.chance.random_range(0..=at);
                self.round.swap(at, other);
            }
        }
        self.round.pop()
    }

    fn ping(
        &mut self,
        now: Moment,
        peer: NodeId,
        me: Life,
        counters: &mut MembershipCounters,
        out: &mut Vec<DetectorAction>,
    ) {
        let (timeout, interval) = (self.scaled(self.times.probe_timeout), self.scaled(self.times.probe_interval));
        let hard = self.watched.get(&peer).is_some_and(|watched| watched.strikes > 0);
        let under_way = self.pinged.values().any(|pinged| pinged.peer == peer && !pinged.failed);
        let Some(watched) = self.watched.get_mut(&peer) else { return };
        watched.probe_at = None;
        if under_way {
            return;
        }
        let accused = watched.suspected.as_ref().map(|_| watched.life);
        let id = self.next_id;
        self.next_id = ProbeId(id.0.wrapping_add(1));
        counters.probes += 1;
        out.push(DetectorAction::Send { to: peer, probe: Probe::Ping { id, life: me, accused, neighbor: true } });
        let relays = if hard { self.ask_relays(id, peer, out) } else { 0 };
        counters.indirect_probes += u64::from(relays);
        let (relays_at, ends) = (Some(now.plus(timeout)), now.plus(interval));
        self.pinged.insert(id, Pinged { peer, at: now, relays_at, ends, relays, nacks: 0, failed: false });
    }

    fn end_pings(&mut self, now: Moment, me: Life, counters: &mut MembershipCounters, out: &mut Vec<DetectorAction>) {
        let ids: Vec<ProbeId> = self.pinged.keys().copied().collect();
        for id in ids {
            let Some(pinged) = self.pinged.get(&id).copied() else { continue };
            if pinged.failed {
                if pinged.ends.plus(LATE) <= now {
                    self.pinged.remove(&id);
                }
            } else if pinged.ends <= now {
                self.fail(now, id, pinged, counters, out);
            } else if pinged.relays_at.is_some_and(|at| at <= now) {
                if pinged.relays > 0 {
                    // The harder look: once more, too.
                    let accused = self.accused(pinged.peer);
                    let probe = Probe::Ping { id, life: me, accused, neighbor: true };
                    out.push(DetectorAction::Send { to: pinged.peer, probe });
                }
                let relays = self.ask_relays(id, pinged.peer, out);
                counters.indirect_probes += u64::from(relays);
                if let Some(pinged) = self.pinged.get_mut(&id) {
                    pinged.relays_at = None;
                    pinged.relays += relays;
                }
            }
        }
    }

    fn ask_relays(&mut self, id: ProbeId, subject: NodeId, out: &mut Vec<DetectorAction>) -> u32 {
        let sound = self.watched.iter().filter(|(peer, watched)| **peer != subject && watched.suspected.is_none());
        let mut sound: Vec<NodeId> = sound.map(|(peer, _)| *peer).collect();
        let accused = self.accused(subject);
        let relays = RELAYS.min(sound.len());
        for _ in 0..relays {
            let to = sound.swap_remove(self.chance.random_range(0..sound.len()));
            out.push(DetectorAction::Send { to, probe: Probe::PingFor { id, subject, accused } });
        }
        relays as u32
    }

    fn fail(
        &mut self,
        now: Moment,
        id: ProbeId,
        pinged: Pinged,
        counters: &mut MembershipCounters,
        out: &mut Vec<DetectorAction>,
    ) {
        if let Some(pinged) = self.pinged.get_mut(&id) {
            pinged.failed = true;
        }
        counters.probes_failed += 1;
        // Relays that say that they failed show that it is not this node's fault.
        if pinged.relays == 0 || pinged.nacks < pinged.relays {
            self.sicker();
        }
        self.strike(now, pinged.peer, 1, counters, out);
    }

    /// A connection with a peer could not be made: that says as much as two probes, and no ill
    /// health of this node slows it down. A node without any neighbour left finds others so.
    pub(super) fn not_reached(
        &mut self,
        now: Moment,
        peer: NodeId,
        counters: &mut MembershipCounters,
        out: &mut Vec<DetectorAction>,
    ) {
        let Some(watched) = self.watched.get_mut(&peer) else { return };
        // Some refusals come at once, and so does the next attempt.
        if watched.not_reached_at.is_none_or(|at| now.since(at) >= NOT_REACHED_EVERY) {
            watched.not_reached_at = Some(now);
            self.strike(now, peer, 2, counters, out);
        }
    }

    fn strike(
        &mut self,
        now: Moment,
        peer: NodeId,
        strikes: u32,
        counters: &mut MembershipCounters,
        out: &mut Vec<DetectorAction>,
    ) {
        let (least, most) = self.patience();
        let again = now.plus(self.scaled(self.times.probe_interval).mul_f64(self.chance.random_range(0.0..0.5)));
        let Some(watched) = self.watched.get_mut(&peer) else { return };
        watched.strikes += strikes;
        let (life, strikes) = (watched.life, watched.strikes);
        // Everybody hears of a suspicion, so one lost probe is not enough for it, unless
        // others have failed, too.
        let sure = strikes >= SUSPECT_AFTER || watched.accused;
        watched.probe_at = Some(if sure { again } else { now });
        if watched.suspected.is_none() && sure {
            let until = now.plus(if self.others == 0 { least * 2 } else { most });
            watched.suspected = Some(Suspicion { since: now, confirmed_by: BTreeSet::new(), until });
            watched.asked = false;
            counters.suspicions += 1;
            out.push(DetectorAction::Judged { peer, life, health: Health::Suspect });
        }
        if strikes >= STRIKES && !SeededBug::SuspicionNotConfirmed.is_planted() {
            self.judge_down(peer, counters, out);
        }
    }

    fn patience(&self) -> (Duration, Duration) {
        // Less than its probes: a side that is cut off must come to a verdict, too.
        let factor = if SeededBug::LocalHealthOff.is_planted() { 1 } else { (1 + self.ill_health).min(MOST_PATIENCE) };
        (self.times.suspicion_least * factor, self.times.suspicion_most * factor)
    }

    fn judge_down(&mut self, peer: NodeId, counters: &mut MembershipCounters, out: &mut Vec<DetectorAction>) {
        let Some(watched) = self.watched.get(&peer) else { return };
        let life = watched.life;
        self.unwatch(peer);
        counters.verdicts_down += 1;
        out.push(DetectorAction::Judged { peer, life, health: Health::Down });
    }

    fn nack(&mut self, now: Moment, out: &mut Vec<DetectorAction>) {
        for relayed in self.relayed.values_mut().filter(|relayed| !relayed.nacked && relayed.ends <= now) {
            relayed.nacked = true;
            let probe = Probe::NackFor { id: relayed.id, subject: relayed.subject };
            out.push(DetectorAction::Send { to: relayed.asker, probe });
        }
        self.relayed.retain(|_, relayed| now < relayed.ends.plus(LATE));
    }

    /// A peer answers a ping or says how one went.
    pub(super) fn hear(
        &mut self,
        now: Moment,
        from: NodeId,
        probe: Probe,
        me: Life,
        counters: &mut MembershipCounters,
        out: &mut Vec<DetectorAction>,
    ) {
        match probe {
            Probe::Ping { .. } => {}
            Probe::Ack { id, life, .. } => {
                if let Some(relayed) = self.relayed.get(&id).copied().filter(|relayed| relayed.subject == from) {
                    self.relayed.remove(&id);
                    let probe = Probe::AckFor { id: relayed.id, subject: from, life };
                    out.push(DetectorAction::Send { to: relayed.asker, probe });
                } else if self.pinged.get(&id).is_some_and(|pinged| pinged.peer == from) {
                    self.succeed(now, id, life, true, counters, out);
                } else {
                    counters.ignored += 1;
                }
            }
            Probe::PingFor { id, subject, accused } => {
                if let Some(id) = self.relay(now, from, id, subject) {
                    let probe = Probe::Ping { id, life: me, accused, neighbor: false };
                    out.push(DetectorAction::Send { to: subject, probe });
                }
            }
            Probe::AckFor { id, subject, life } => {
                if self.pinged.get(&id).is_some_and(|pinged| pinged.peer == subject && pinged.relays > 0) {
                    self.succeed(now, id, life, false, counters, out);
                } else {
                    counters.ignored += 1;
                }
            }
            Probe::NackFor { id, subject } => {
                if let Some(pinged) = self.pinged.get_mut(&id).filter(|pinged| pinged.peer == subject) {
                    pinged.nacks = (pinged.nacks + 1).min(pinged.relays);
                } else {
                    counters.ignored += 1;
                }
            }
        }
    }

    /// Takes note of a ping for another; its name, if there is room for it.
    fn relay(&mut self, now: Moment, asker: NodeId, id: ProbeId, subject: NodeId) -> Option<ProbeId> {
        if self.relayed.len() >= RELAYED {
            return None;
        }
        let own = self.next_id;
        self.next_id = ProbeId(own.0.wrapping_add(1));
        // Early enough for the asker to hear of the failure before its probe ends.
        let ends = now.plus(self.times.probe_interval.saturating_sub(self.times.probe_timeout) * 4 / 5);
        self.relayed.insert(own, Relayed { asker, id, subject, ends, nacked: false });
        Some(own)
    }

    fn succeed(
        &mut self,
        now: Moment,
        id: ProbeId,
        life: Life,
        direct: bool,
        counters: &mut MembershipCounters,
        out: &mut Vec<DetectorAction>,
    ) {
        let Some(pinged) = self.pinged.remove(&id) else { return };
        if pinged.failed {
            // It lives, and was given too little time.
            self.sicker();
        } else {
            self.ill_health = self.ill_health.saturating_sub(1);
        }
        let Some(watched) = self.watched.get_mut(&pinged.peer) else { return };
        watched.life = watched.life.max(life);
        watched.accused = false;
        watched.strikes = watched.strikes.saturating_sub(1);
        if direct {
            let sample = now.since(pinged.at);
            watched.round_trip = Some(watched.round_trip.map_or(sample, |known| (known * 7 + sample) / 8));
        }
        // One that has failed lately is looked at more often than in its turn.
        watched.probe_at = (watched.strikes > 0).then(|| now.plus(self.times.probe_interval));
        let was_suspect = watched.suspected.take().is_some();
        counters.suspicions_refuted += u64::from(was_suspect);
        if was_suspect || std::mem::take(&mut watched.asked) {
            let (peer, life) = (pinged.peer, watched.life);
            out.push(DetectorAction::Judged { peer, life, health: Health::Alive });
        }
    }

    /// Another observer accuses a peer, or somebody wants to know what is thought of it:
    /// it is probed at once, and if `tell`, what comes of that is said.
    pub(super) fn questioned(&mut self, now: Moment, peer: NodeId, life: Life, accuser: Option<NodeId>, tell: bool) {
        let (least, most) = self.patience();
        let others = self.others.min(CONFIRMATIONS);
        let Some(watched) = self.watched.get_mut(&peer).filter(|watched| watched.life <= life) else { return };
        watched.asked |= tell;
        watched.accused |= accuser.is_some();
        watched.probe_at = Some(now);
        let (Some(suspicion), Some(accuser)) = (&mut watched.suspected, accuser) else { return };
        if suspicion.confirmed_by.len() >= others || SeededBug::SuspicionNotConfirmed.is_planted() {
            return;
        }
        suspicion.confirmed_by.insert(accuser);
        // Lifeguard, section IV-B: from most to least with the logarithm of the confirmations.
        let confirmed = suspicion.confirmed_by.len() as f64;
        let part = (confirmed + 1.0).ln() / (others as f64 + 1.0).ln();
        let time = most.saturating_sub((most - least).mul_f64(part.min(1.0)));
        suspicion.until = suspicion.until.min(suspicion.since.plus(time));
    }

    /// A peer is known to be in this life: what was said of an earlier one is void.
    pub(super) fn refuted(&mut self, now: Moment, peer: NodeId, life: Life, out: &mut Vec<DetectorAction>) {
        if SeededBug::RefutationIgnored.is_planted() {
            return;
        }
        let Some(watched) = self.watched.get_mut(&peer).filter(|watched| watched.life < life) else { return };
        let restarted = watched.life.incarnation < life.incarnation;
        watched.life = life;
        if restarted {
            watched.strikes = 0;
        }
        if watched.suspected.take().is_some() {
            watched.probe_at = Some(now);
            out.push(DetectorAction::Judged { peer, life, health: Health::Alive });
        }
    }

    /// The connection to a peer is lost, or stands anew: it is probed at once.
    pub(super) fn look_at(&mut self, now: Moment, peer: NodeId) {
        if let Some(watched) = self.watched.get_mut(&peer) {
            watched.probe_at = Some(now);
        }
    }

    /// This node was accused: perhaps it is not well.
    pub(super) fn was_accused(&mut self) {
        self.sicker();
    }

    /// This node has stood still for so long: nothing follows from answers that did not come.
    pub(super) fn stalled(&mut self, now: Moment, gap: Duration) {
        self.ill_health = WORST;
        self.pinged.clear();
        self.relayed.clear();
        self.turn_at = now;
        for watched in self.watched.values_mut() {
            watched.probe_at = Some(now);
            if let Some(suspicion) = &mut watched.suspected {
                suspicion.since = suspicion.since.plus(gap);
                suspicion.until = suspicion.until.plus(gap);
            }
        }
    }

    pub(super) fn check_invariants(&self) {
        let own = self.pinged.values().filter(|pinged| !pinged.failed);
        assert!(own.clone().all(|pinged| self.watched.contains_key(&pinged.peer)), "a peer is probed but not watched");
        assert!(own.count() <= self.watched.len(), "a peer is probed twice at once");
        assert!(self.relayed.len() <= RELAYED, "too many pings for others");
        assert!(self.ill_health <= WORST);
        for (peer, watched) in &self.watched {
            let lasting = SeededBug::SuspicionNotConfirmed.is_planted();
            assert!(watched.strikes < STRIKES || lasting, "{peer} should have been judged");
            if let Some(suspicion) = &watched.suspected {
                assert!(suspicion.since <= suspicion.until);
                assert!(
                    watched.probe_at.is_some()
                        || self.pinged.values().any(|pinged| pinged.peer == *peer && !pinged.failed),
                    "the suspect {peer} is not probed"
                );
            }
        }
    }
}

#[cfg(test)]
#[path = "detector_tests.rs"]
mod tests;
