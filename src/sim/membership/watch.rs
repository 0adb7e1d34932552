//! Who holds whom for down, who learned what when, and which verdicts were false.
//!
//! A verdict is false if it falls on a host to which nothing is done, nor was for a while
//! before, and whose life it names is not over. Those of hosts to which something is done
//! are counted apart: what a node cannot hear it may take for dead.

use crate::types::{Epoch, Health, Incarnation, Life, Moment};

use super::member::{HostIndex, node_of};

/// For so long after a fault a verdict may still come of it, in microseconds.
const GRACE_US: u64 = 10_000_000;
/// False verdicts that are kept in words.
const TOLD: usize = 8;

/// A set of hosts.
#[derive(Clone, Default)]
struct Hosts {
    bits: Vec<u64>,
    count: usize,
}

impl Hosts {
    /// True if it changes.
    fn set(&mut self, host: HostIndex, member: bool, hosts: usize) -> bool {
        if self.bits.is_empty() {
            if !member {
                return false;
            }
            self.bits = vec![0; hosts.div_ceil(64)];
        }
        let (word, bit) = (&mut self.bits[host as usize / 64], 1 << (host % 64));
        if (*word & bit != 0) == member {
            return false;
        }
        *word ^= bit;
        self.count = if member { self.count + 1 } else { self.count - 1 };
        true
    }

    fn contains(&self, host: HostIndex) -> bool {
        self.bits.get(host as usize / 64).is_some_and(|word| word & (1 << (host % 64)) != 0)
    }
}

/// False verdicts.
#[derive(Clone, Default, Debug)]
pub(super) struct FalseVerdicts {
    /// Times at which a first sound node held a sound one for down, by the judgement of all.
    pub(super) cluster: u64,
    /// Verdicts of sound nodes by their own judgement.
    pub(super) own: u64,
    /// Both, of nodes to which something is done.
    pub(super) by_the_sick: u64,
    /// Suspicions of sound nodes by sound nodes.
    pub(super) suspicions: u64,
    /// The first of them.
    pub(super) told: Vec<String>,
}

/// When each host learned of a change to one.
pub(super) struct Track {
    pub(super) subject: HostIndex,
    pub(super) since: Moment,
    /// Its own verdict that the subject is down.
    pub(super) own_down: Vec<Option<Moment>>,
    /// That it is down for all.
    pub(super) down: Vec<Option<Moment>>,
    /// That it is not, or not any more.
    pub(super) alive: Vec<Option<Moment>>,
}

/// What is seen of all members from outside.
pub(super) struct Watch {
    /// Up and not paused, by index: nothing of it is known to the members.
    alive: Vec<bool>,
    /// Since when nothing is done to each; none while something is.
    sound_since: Vec<Option<Moment>>,
    /// Who holds each for down.
    holders: Vec<Hosts>,
    pub(super) falsely: FalseVerdicts,
    /// What hosts to which something is done have suspected.
    pub(super) suspicions_by_the_sick: u64,
    pub(super) track: Option<Track>,
    epoch: Epoch,
    epoch_begun: Moment,
    epoch_heard: Vec<Option<Moment>>,
}

impl Watch {
    pub(super) fn new(hosts: usize) -> Watch {
        Watch {
            alive: vec![false; hosts],
            sound_since: vec![None; hosts],
            holders: vec![Hosts::default(); hosts],
            falsely: FalseVerdicts::default(),
            suspicions_by_the_sick: 0,
            track: None,
            epoch: Epoch(0),
            epoch_begun: Moment(0),
            epoch_heard: vec![None; hosts],
        }
    }

    pub(super) fn lives(&mut self, host: HostIndex, now: Moment) {
        self.alive[host as usize] = true;
        self.sound_since[host as usize] = Some(now);
    }

    /// What it held is gone with it.
    pub(super) fn dies(&mut self, host: HostIndex) {
        let hosts = self.alive.len();
        self.alive[host as usize] = false;
        self.sound_since[host as usize] = None;
        self.epoch_heard[host as usize] = None;
        self.holders.iter_mut().for_each(|holders| _ = holders.set(host, false, hosts));
    }

    /// Something is done to a host from now on.
    pub(super) fn falls_sick(&mut self, host: HostIndex) {
        self.sound_since[host as usize] = None;
    }

    /// It is over.
    pub(super) fn recovers(&mut self, host: HostIndex, now: Moment) {
        self.sound_since[host as usize] = Some(now);
    }

    fn is_sound(&self, host: HostIndex, now: Moment) -> bool {
        // The start of the world excuses nobody.
        self.sound_since[host as usize].is_some_and(|since| since.0 < GRACE_US || since.0 + GRACE_US <= now.0)
    }

    /// Hosts that hold one for down.
    pub(super) fn holders(&self, subject: HostIndex) -> usize {
        self.holders[subject as usize].count
    }

    pub(super) fn holds_down(&self, by: HostIndex, subject: HostIndex) -> bool {
        self.holders[subject as usize].contains(by)
    }

    fn accuse(&mut self, now: Moment, by: HostIndex, of: HostIndex, what: &str) {
        if self.falsely.told.len() < TOLD {
            let (by, of) = (node_of(by), node_of(of));
            self.falsely.told.push(format!("{:.3} s: {by} holds {of} for {what}", now.0 as f64 / 1e6));
        }
    }

    /// A member has changed its own mind; `life` is what it speaks of, then the present one.
    pub(super) fn own_changed(
        &mut self,
        now: Moment,
        by: HostIndex,
        of: HostIndex,
        life: (Life, Incarnation),
        health: Health,
    ) {
        let over = life.0.incarnation < life.1;
        let is_false = !over && self.is_sound(of, now);
        match health {
            Health::Alive => {}
            Health::Suspect if !is_false => {}
            Health::Suspect if self.is_sound(by, now) => self.falsely.suspicions += 1,
            Health::Suspect => self.suspicions_by_the_sick += 1,
            Health::Down => {
                if let Some(track) = self.track.as_mut().filter(|track| track.subject == of) {
                    track.own_down[by as usize].get_or_insert(now);
                }
                if is_false && self.is_sound(by, now) {
                    self.falsely.own += 1;
                    self.accuse(now, by, of, "down, by itself");
                } else if is_false {
                    self.falsely.by_the_sick += 1;
                }
            }
        }
    }

    /// A member has changed its mind about the judgement of all.
    pub(super) fn cluster_changed(
        &mut self,
        now: Moment,
        by: HostIndex,
        of: HostIndex,
        life: (Life, Incarnation),
        health: Health,
    ) {
        let hosts = self.alive.len();
        let down = health == Health::Down;
        let over = life.0.incarnation < life.1;
        let before = self.holders[of as usize].count;
        self.holders[of as usize].set(by, down, hosts);
        if let Some(track) = self.track.as_mut().filter(|track| track.subject == of) {
            let learned = if down { &mut track.down } else { &mut track.alive };
            // Up and down again: the last time counts for the return, the first for the loss.
            let learned = &mut learned[by as usize];
            *learned = if down { learned.or(Some(now)) } else { Some(now) };
        }
        if !down || over || !self.is_sound(of, now) {
            return;
        }
        if !self.is_sound(by, now) {
            self.falsely.by_the_sick += 1;
            return;
        }
        if before == 0 {
            self.falsely.cluster += 1;
            self.accuse(now, by, of, "down, as all do");
        }
    }

    /// From now on, who learns what of this host.
    pub(super) fn follow(&mut self, subject: HostIndex, now: Moment) {
        let none = vec![None; self.alive.len()];
        let (own_down, down, alive) = (none.clone(), none.clone(), none);
        self.track = Some(Track { subject, since: now, own_down, down, alive });
    }

    pub(super) fn broadcast(&mut self, origin: HostIndex, epoch: Epoch, now: Moment) {
        (self.epoch, self.epoch_begun) = (epoch, now);
        self.epoch_heard.fill(None);
        self.epoch_heard[origin as usize] = Some(now);
    }

    pub(super) fn epoch_heard(&mut self, by: HostIndex, epoch: Epoch, now: Moment) {
        if epoch == self.epoch {
            self.epoch_heard[by as usize].get_or_insert(now);
        }
    }

    /// How long the last broadcast took to each of these, in milliseconds; none if it was missed.
    pub(super) fn epoch_delay_ms(&self, host: HostIndex) -> Option<f64> {
        let heard = self.epoch_heard[host as usize]?;
        Some(heard.since(self.epoch_begun).as_secs_f64() * 1e3)
    }
}
