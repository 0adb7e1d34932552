//! What is said of members: hearing it, telling it, and refuting it.

use std::collections::BTreeMap;
use std::time::Duration;

use rand::Rng;

use crate::types::{Health, Life, Load, Moment, NodeId, limits};
use crate::wire::{Gossip, Rumour};

use super::verdicts::Turned;
use super::{MemberChange, Membership, MembershipAction};

/// Many may have the same news at the same time: each waits up to so long for another to
/// tell it, and longer the more there is to tell.
const TELL_WITHIN: Duration = Duration::from_millis(300);
/// So much longer for each member that is held for down.
const TELL_WITHIN_MORE: Duration = Duration::from_millis(10);
/// Doubts that wait to be told, at most; the others hear of the rest, or the next time.
const DOUBTS: usize = 16;
/// How often a refutation is said again, at most.
const ASSERT_EVERY: Duration = Duration::from_secs(1);
/// How often this node's load is told to everybody, at most.
const LOAD_EVERY: Duration = Duration::from_secs(10);
/// How often one peer is told how things stand, at most: [`STANDINGS`] times in this time.
const STANDING_EVERY: Duration = Duration::from_secs(1);
/// A few, because two that hold each other for down answer each other.
const STANDINGS: u32 = 4;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Tell {
    /// It is held for down elsewhere.
    Doubt(Life),
    /// It was held for down, but lives.
    Alive(Life),
}

/// What is to be told soon unless somebody else does.
#[derive(Debug, Default)]
pub(super) struct News {
    tells: BTreeMap<NodeId, (Moment, Tell)>,
    /// Who was told lately how things stand: since when, and how often.
    standings: BTreeMap<NodeId, (Moment, u32)>,
    pub(super) load: Load,
    told_load: Load,
    load_at: Moment,
    /// Not before this it is said again that this node is alive.
    asserted_at: Moment,
}

impl News {
    pub(super) fn entries(&self) -> usize {
        self.tells.len() + self.standings.len()
    }

    /// Whether a peer may be told now how things stand.
    fn may_tell(&mut self, now: Moment, peer: NodeId) -> bool {
        self.standings.retain(|_, (since, _)| now < since.plus(STANDING_EVERY));
        let (_, times) = self.standings.entry(peer).or_insert((now, 0));
        *times += 1;
        *times <= STANDINGS
    }

    pub(super) fn next_timeout(&self) -> Moment {
        let tell = self.tells.values().map(|(at, _)| *at).min().unwrap_or(Moment(u64::MAX));
        if self.load == self.told_load { tell } else { tell.min(self.load_at) }
    }

    fn add(&mut self, at: Moment, member: NodeId, tell: Tell) {
        let most = if matches!(tell, Tell::Doubt(_)) { DOUBTS } else { limits::CASES };
        if self.tells.len() < most {
            self.tells.insert(member, (at, tell));
        }
    }
}

impl Membership {
    /// A rumour has come, for the first time.
    pub(super) fn deliver(
        &mut self,
        now: Moment,
        from: NodeId,
        origin: NodeId,
        rumour: Rumour,
        actions: &mut Vec<MembershipAction>,
    ) {
        if !self.is_peer(origin) {
            return;
        }
        match rumour {
            Rumour::Epoch(epoch) => actions.push(MembershipAction::EpochHeard { epoch, from }),
            Rumour::Opinion { subject, life, health } => self.hear_opinion(now, origin, subject, life, health, actions),
            Rumour::Doubt { subject, life } => self.hear_doubt(now, subject, life),
            Rumour::Alive(life) => self.seen_alive(now, origin, life, false, actions),
            Rumour::Load(load) => self.note_load(origin, load),
        }
    }

    fn hear_opinion(
        &mut self,
        now: Moment,
        observer: NodeId,
        subject: NodeId,
        life: Life,
        health: Health,
        actions: &mut Vec<MembershipAction>,
    ) {
        if subject == self.settings.me {
            if health != Health::Alive {
                self.answer_accusation(now, life);
            }
            return;
        }
        if !self.roster.contains(subject) {
            self.counters.ignored += 1;
            return;
        }
        if health == Health::Alive {
            self.seen_alive(now, subject, life, false, actions);
        }
        let turned = self.verdicts.hear(now, observer, subject, life, health);
        self.turned(now, subject, life, turned, actions);
        if health != Health::Alive {
            // Who holds it for alive says so once somebody holds it for down.
            let tell = health == Health::Down;
            self.detector.questioned(now, subject, life, Some(observer), tell);
        }
    }

    fn hear_doubt(&mut self, now: Moment, subject: NodeId, life: Life) {
        if subject == self.settings.me {
            self.answer_accusation(now, life);
        } else if self.roster.contains(subject) {
            self.verdicts.doubt(now, subject, life);
            self.detector.questioned(now, subject, life, None, true);
        } else {
            self.counters.ignored += 1;
        }
    }

    /// Somebody holds this node for suspect or down.
    fn answer_accusation(&mut self, now: Moment, life: Life) {
        if life >= self.life {
            self.refute(now, life);
        } else if self.news.asserted_at <= now {
            // It was refuted, and somebody has missed that.
            self.news.asserted_at = now.plus(ASSERT_EVERY);
            self.begin_rumour(now, Rumour::Alive(self.life));
        }
    }

    /// Says that this node is alive: in a later life than the one that was accused.
    pub(super) fn refute(&mut self, now: Moment, accused: Life) {
        if accused.incarnation > self.life.incarnation {
            // That is not this node, or its record of its starts was lost; a restart mends it.
            self.counters.ignored += 1;
            return;
        }
        let refutation = self.life.refutation.max(accused.refutation);
        if refutation == u32::MAX {
            // Nobody lives that long: it is a lie, and must not end this node.
            self.counters.ignored += 1;
            return;
        }
        self.life = Life { refutation, ..self.life }.refuted();
        self.counters.refutations += 1;
        self.detector.was_accused();
        self.begin_rumour(now, Rumour::Alive(self.life));
    }

    /// A member is in this life. `direct` says that this node has it from the member itself.
    pub(super) fn seen_alive(
        &mut self,
        now: Moment,
        member: NodeId,
        life: Life,
        direct: bool,
        actions: &mut Vec<MembershipAction>,
    ) {
        self.detector.refuted(now, member, life, &mut self.detected);
        let turned = self.verdicts.alive(now, member, life, !direct);
        if !direct && self.news.tells.get(&member).is_some_and(|(_, tell)| *tell <= Tell::Alive(life)) {
            self.news.tells.remove(&member);
        }
        if turned.is_none() {
            return;
        }
        self.turned(now, member, life, turned, actions);
        if direct {
            // Others may not hear it from the member: it may be of an overlay that has lost
            // touch with this one.
            let at = self.tell_at(now);
            self.news.add(at, member, Tell::Alive(life));
            self.view.want(now, member, &mut self.viewed);
        }
    }

    fn tell_at(&mut self, now: Moment) -> Moment {
        let down = u32::try_from(self.verdicts.down().count().min(limits::CASES)).expect("few");
        let within = TELL_WITHIN + TELL_WITHIN_MORE * down;
        now.plus(within.mul_f64(self.view.chance().random_range(0.0..1.0)))
    }

    pub(super) fn turned(
        &mut self,
        now: Moment,
        member: NodeId,
        life: Life,
        turned: Turned,
        actions: &mut Vec<MembershipAction>,
    ) {
        let Some(health) = turned else { return };
        self.loads.remove(&member);
        actions.push(MembershipAction::Changed(MemberChange::Cluster { member, life, health }));
        if health == Health::Down && !self.view.active().contains(&member) {
            self.view.lose(now, member, &mut self.viewed);
        }
    }

    /// Tells a peer how things stand, first of all what is held of itself.
    pub(super) fn tell_standing(&mut self, now: Moment, to: NodeId, actions: &mut Vec<MembershipAction>) {
        self.tell_standing_and(now, to, Vec::new(), actions);
    }

    /// The same, and who is alive in a later life than it thinks.
    fn tell_standing_and(
        &mut self,
        now: Moment,
        to: NodeId,
        alive: Vec<(NodeId, Life)>,
        actions: &mut Vec<MembershipAction>,
    ) {
        if !self.contacts.is_linked(to) {
            // What is true now may not be so any more when there is a connection.
            return self.contacts.call(now, to);
        }
        if !self.news.may_tell(now, to) {
            return;
        }
        let itself = self.verdicts.down_life(to).map(|life| (to, life));
        let others: Vec<(NodeId, Life)> = self.verdicts.down().filter(|(node, _)| *node != to).collect();
        let room = limits::STANDING_DOWN - usize::from(itself.is_some());
        let from = if others.len() > room { self.view.chance().random_range(0..others.len()) } else { 0 };
        let some = others.iter().cycle().skip(from).take(room.min(others.len())).copied();
        let down = itself.into_iter().chain(some).collect();
        let gossip = Gossip::Standing { life: self.life, load: self.news.load, down, alive };
        self.contacts.send(now, to, MembershipAction::Gossip { to, gossip }, actions);
    }

    pub(super) fn hear_standing(
        &mut self,
        now: Moment,
        from: NodeId,
        life: Life,
        load: Load,
        down: Vec<(NodeId, Life)>,
        actions: &mut Vec<MembershipAction>,
    ) {
        self.note_load(from, load);
        let mut is_held_down = false;
        let mut alive = Vec::new();
        for (member, life) in down {
            if member == self.settings.me {
                if life >= self.life {
                    self.refute(now, life);
                }
                is_held_down = true;
            } else if self.roster.contains(member) {
                let later = self.life_of(member).filter(|later| *later > life);
                alive.extend(later.map(|later| (member, later)));
                let known = later.is_some() || self.verdicts.down_life(member) == Some(life);
                if !known && !self.news.tells.contains_key(&member) {
                    let at = self.tell_at(now);
                    self.news.add(at, member, Tell::Doubt(life));
                }
            }
        }
        self.seen_alive(now, from, life, true, actions);
        // It learns of the later life, and that it is held for down itself if it is.
        if is_held_down || !alive.is_empty() || self.verdicts.is_down(from) {
            self.tell_standing_and(now, from, alive, actions);
        }
    }

    /// Tells what is due.
    pub(super) fn tell_news(&mut self, now: Moment) {
        let due: Vec<(NodeId, Tell)> = self
            .news
            .tells
            .iter()
            .filter(|(_, (at, _))| *at <= now)
            .map(|(member, (_, tell))| (*member, *tell))
            .collect();
        for (subject, tell) in due {
            self.news.tells.remove(&subject);
            match tell {
                Tell::Alive(life) => {
                    self.begin_rumour(now, Rumour::Opinion { subject, life, health: Health::Alive });
                }
                Tell::Doubt(life) if self.view.active().is_empty() => {
                    // Nobody would hear it, and nobody could answer.
                    self.news.add(now.plus(TELL_WITHIN), subject, Tell::Doubt(life));
                }
                Tell::Doubt(life) => {
                    if self.verdicts.doubt(now, subject, life) {
                        self.begin_rumour(now, Rumour::Doubt { subject, life });
                        self.detector.questioned(now, subject, life, None, true);
                    }
                }
            }
        }
        if self.news.load != self.news.told_load && self.news.load_at <= now {
            self.news.told_load = self.news.load;
            self.news.load_at = now.plus(LOAD_EVERY);
            self.begin_rumour(now, Rumour::Load(self.news.load));
        }
    }
}

impl PartialOrd for Tell {
    fn partial_cmp(&self, other: &Tell) -> Option<std::cmp::Ordering> {
        let life = |tell: &Tell| match tell {
            Tell::Doubt(life) | Tell::Alive(life) => *life,
        };
        life(self).partial_cmp(&life(other))
    }
}
