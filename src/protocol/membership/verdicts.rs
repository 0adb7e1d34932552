//! What the observers of a member say of it, and what follows.
//!
//! Problem: one observer may be wrong or sick; all together hardly.
//! Invariant: a member is down when more of the observers that were heard have judged it down
//! than hold it for alive, at least two of them where there can be two; an opinion counts for one life of its
//! subject, and any later life is alive until somebody says otherwise.
//! Source: DESIGN section 6; SWIM, section 4.2.
//!
//! At rest nothing is kept: a case is opened by the first opinion and closed when the
//! subject lives. Who is down stays known by name and life.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::types::{Health, Life, Moment, NodeId, SeededBug, limits};

/// For how long an opinion counts, and an undecided case stays open.
const OPINION_COUNTS: Duration = Duration::from_secs(30);
/// For how long a life is remembered about which nobody says anything.
const LIFE_KEPT: Duration = Duration::from_secs(60);
/// How long a majority stands before it decides: whoever holds the subject for alive says so
/// when somebody says down, and needs the time of a probe and of a rumour for that.
const DECIDED_AFTER: Duration = Duration::from_millis(400);
/// Cases are looked at together, at multiples of this: where half of all have died there are
/// thousands.
const SWEEP_US: u64 = 100_000;
/// For how long a doubt waits for those who know better, before it is believed.
const DOUBT_LASTS: Duration = Duration::from_secs(3);

#[derive(Clone, Debug)]
struct Case {
    life: Life,
    opinions: BTreeMap<NodeId, (Health, Moment)>,
    down: bool,
    /// Since when a majority says down, if it has not decided yet.
    majority_since: Option<Moment>,
    /// Somebody holds it for down. Until when that may be refuted.
    doubted_until: Option<Moment>,
    changed: Moment,
}

impl Case {
    fn open(now: Moment, life: Life) -> Case {
        Case { life, opinions: BTreeMap::new(), down: false, majority_since: None, doubted_until: None, changed: now }
    }

    /// Counts the votes; what has become of the subject.
    fn count(&mut self, now: Moment, least: usize) -> Turned {
        let said = |wanted: Health| self.opinions.values().filter(|(health, _)| *health == wanted).count();
        // Suspicion is no verdict yet; who holds it for alive says so when it matters.
        let (down, alive) = (said(Health::Down), said(Health::Alive));
        if down < least || down <= alive {
            self.majority_since = None;
            let acquitted = self.down && alive > down;
            if acquitted {
                self.down = false;
                self.doubted_until = None;
            }
            return acquitted.then_some(Health::Alive);
        }
        let since = *self.majority_since.get_or_insert(now);
        if self.down || now < since.plus(DECIDED_AFTER) {
            return None;
        }
        self.down = true;
        Some(Health::Down)
    }

    /// When [`Case::count`] may decide by itself.
    fn decides_at(&self) -> Option<Moment> {
        self.majority_since.filter(|_| !self.down).map(|since| since.plus(DECIDED_AFTER))
    }

    fn is_accused(&self) -> bool {
        self.down || self.opinions.values().any(|(health, _)| *health == Health::Down)
    }
}

/// All members about whose health there is something to know.
#[derive(Debug)]
pub(super) struct Verdicts {
    cases: BTreeMap<NodeId, Case>,
    /// How many observers have to agree at least.
    least: usize,
    sweep_at: Moment,
}

/// What has become of a member.
pub(super) type Turned = Option<Health>;

impl Verdicts {
    pub(super) fn new(members: usize) -> Verdicts {
        let mut verdicts = Verdicts { cases: BTreeMap::new(), least: 1, sweep_at: Moment(u64::MAX) };
        verdicts.set_members(members);
        verdicts
    }

    pub(super) fn set_members(&mut self, members: usize) {
        self.least = if members >= 3 { 2 } else { 1 };
    }

    pub(super) fn retain(&mut self, is_member: impl Fn(NodeId) -> bool) {
        self.cases.retain(|subject, case| {
            case.opinions.retain(|observer, _| is_member(*observer));
            is_member(*subject)
        });
    }

    pub(super) fn entries(&self) -> usize {
        self.cases.values().map(|case| 1 + case.opinions.len()).sum()
    }

    pub(super) fn is_down(&self, subject: NodeId) -> bool {
        self.cases.get(&subject).is_some_and(|case| case.down)
    }

    /// The life in which a member is held for down.
    pub(super) fn down_life(&self, subject: NodeId) -> Option<Life> {
        self.cases.get(&subject).filter(|case| case.down).map(|case| case.life)
    }

    pub(super) fn down(&self) -> impl Iterator<Item = (NodeId, Life)> + '_ {
        self.cases.iter().filter(|(_, case)| case.down).map(|(subject, case)| (*subject, case.life))
    }

    /// Who is down, or would be if more observers were heard.
    pub(super) fn accused(&self) -> impl Iterator<Item = NodeId> + '_ {
        self.cases.iter().filter(|(_, case)| case.is_accused()).map(|(subject, _)| *subject)
    }

    /// The life in which a member is held for down by somebody.
    pub(super) fn accused_life(&self, subject: NodeId) -> Option<Life> {
        self.cases.get(&subject).filter(|case| case.is_accused()).map(|case| case.life)
    }

    /// What is held of a member.
    pub(super) fn health(&self, subject: NodeId) -> Health {
        match self.cases.get(&subject) {
            None => Health::Alive,
            Some(case) if case.down => Health::Down,
            Some(case) => {
                let accused = case.opinions.values().any(|(health, _)| *health != Health::Alive);
                if accused { Health::Suspect } else { Health::Alive }
            }
        }
    }

    /// The newest life that is known of a member about whom there is a case.
    pub(super) fn life(&self, subject: NodeId) -> Option<Life> {
        self.cases.get(&subject).map(|case| case.life)
    }

    pub(super) fn opinion_of(&self, observer: NodeId, subject: NodeId) -> Option<Health> {
        self.cases.get(&subject)?.opinions.get(&observer).map(|(health, _)| *health)
    }

    /// The opinions about a member: how many observers say what.
    pub(super) fn tally(&self, subject: NodeId) -> [usize; 3] {
        let mut tally = [0; 3];
        if let Some(case) = self.cases.get(&subject) {
            case.opinions.values().for_each(|(health, _)| tally[*health as usize] += 1);
        }
        tally
    }

    fn case(&mut self, now: Moment, subject: NodeId, life: Life) -> &mut Case {
        if self.cases.len() >= limits::CASES && !self.cases.contains_key(&subject) {
            let oldest = self.cases.iter().min_by_key(|(_, case)| case.changed).map(|(subject, _)| *subject);
            oldest.map(|oldest| self.cases.remove(&oldest));
        }
        self.sweep_by(now.plus(OPINION_COUNTS));
        self.cases.entry(subject).or_insert_with(|| Case::open(now, life))
    }

    /// An observer speaks.
    pub(super) fn hear(
        &mut self,
        now: Moment,
        observer: NodeId,
        subject: NodeId,
        life: Life,
        health: Health,
    ) -> Turned {
        if health == Health::Alive && !self.cases.contains_key(&subject) {
            return None;
        }
        let least = self.least;
        let case = self.case(now, subject, life);
        if life < case.life {
            return None;
        }
        let was_down = case.down;
        if life > case.life {
            // Somebody has heard of a later life.
            *case = Case::open(now, life);
        }
        case.changed = now;
        if case.opinions.len() < limits::OPINIONS || case.opinions.contains_key(&observer) {
            case.opinions.insert(observer, (health, now));
        }
        let turned = case.count(now, least);
        let decides_at = case.decides_at();
        let is_down = case.down;
        decides_at.into_iter().for_each(|at| self.sweep_by(at));
        if was_down && !is_down { Some(Health::Alive) } else { turned }
    }

    /// A member is known to be in this life, in which nobody has accused it. If that is a
    /// rumour it is remembered for a while: accusations of an earlier life may be on their way.
    pub(super) fn alive(&mut self, now: Moment, subject: NodeId, life: Life, rumour: bool) -> Turned {
        if SeededBug::RefutationIgnored.is_planted() || !(rumour || self.cases.contains_key(&subject)) {
            return None;
        }
        let is_new = !self.cases.contains_key(&subject);
        let case = self.case(now, subject, life);
        if life <= case.life && !is_new {
            return None;
        }
        let was_down = case.down;
        *case = Case::open(now, life);
        was_down.then_some(Health::Alive)
    }

    /// Somebody holds a member for down; whether that is news here.
    pub(super) fn doubt(&mut self, now: Moment, subject: NodeId, life: Life) -> bool {
        let case = self.case(now, subject, life);
        if case.down && life <= case.life || life < case.life {
            return false;
        }
        if life > case.life {
            *case = Case::open(now, life);
        }
        if case.doubted_until.is_some() {
            return false;
        }
        case.changed = now;
        case.doubted_until = Some(now.plus(DOUBT_LASTS));
        self.sweep_by(now.plus(DOUBT_LASTS));
        true
    }

    pub(super) fn next_timeout(&self) -> Moment {
        self.sweep_at
    }

    fn sweep_by(&mut self, at: Moment) {
        self.sweep_at = self.sweep_at.min(Moment(at.0.next_multiple_of(SWEEP_US)));
    }

    /// Decides where a majority has stood for long enough, forgets opinions that do not count
    /// any more, and believes doubts that nobody has refuted. Returns who is down from now on.
    pub(super) fn tick(&mut self, now: Moment) -> Vec<(NodeId, Life)> {
        if now < self.sweep_at {
            return Vec::new();
        }
        let mut believed = Vec::new();
        let mut next = Moment(u64::MAX);
        let least = self.least;
        self.cases.retain(|subject, case| {
            if case.count(now, least) == Some(Health::Down) {
                believed.push((*subject, case.life));
            }
            case.opinions.retain(|_, (_, since)| now < since.plus(OPINION_COUNTS));
            if case.doubted_until.is_some_and(|until| until <= now) {
                case.doubted_until = None;
                if case.opinions.values().all(|(health, _)| *health != Health::Alive) && !case.down {
                    case.down = true;
                    believed.push((*subject, case.life));
                }
            }
            let oldest = case.opinions.values().map(|(_, since)| since.plus(OPINION_COUNTS)).min();
            let forgotten = case.changed.plus(LIFE_KEPT);
            let kept = case.down || oldest.is_some() || case.doubted_until.is_some() || now < forgotten;
            if kept {
                let idle = (!case.down).then_some(forgotten).filter(|at| now < *at);
                let due = [oldest, case.doubted_until, case.decides_at(), idle];
                next = due.into_iter().flatten().fold(next, Moment::min);
            }
            kept
        });
        self.sweep_at = Moment(u64::MAX);
        if next < self.sweep_at {
            self.sweep_by(next);
        }
        believed
    }

    pub(super) fn check_invariants(&self) {
        assert!(self.cases.len() <= limits::CASES);
        for (subject, case) in &self.cases {
            assert!(case.opinions.len() <= limits::OPINIONS, "too many opinions of {subject}");
        }
    }
}

#[cfg(test)]
#[path = "verdicts_tests.rs"]
mod tests;
