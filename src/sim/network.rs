//! Connections between hosts, as QUIC gives them: frames arrive in order or not at all
//! while a connection lives, and across connections any suffix may be lost. In some runs
//! the network is worse than QUIC: single frames are lost, come twice, or overtake others.
//!
//! A direction that is blocked holds frames back (they are sent again); once it has been
//! silent for the idle timeout the receiver gives the connection up, and the sender learns
//! of that later, from silence. Until an end has learned that a connection is gone, what
//! it sends vanishes. A new connection may stand before an end has learned that the old
//! one is gone; then it learns of the new one only.

use std::collections::BTreeSet;
use std::time::Duration;

use bytes::Bytes;

use crate::types::{Incarnation, Moment};

use super::plan::Plan;
use super::schedule::{Event, HostIndex, Schedule};

/// One pair of hosts; the end with the lower index is end 0.
#[derive(Debug, Default)]
struct Link {
    generation: u64,
    up: bool,
    dialing: bool,
    /// The connection that each end believes to stand.
    believed: [Option<u64>; 2],
    /// Since when what each end sends is blocked.
    blocked: [Option<Moment>; 2],
    /// What each end has sent meanwhile.
    held: [Vec<Bytes>; 2],
    /// No frame of each end arrives before this.
    not_before: [Moment; 2],
    /// When the receiver of each end's frames knows of the connection.
    told: [Moment; 2],
}

/// All connections.
pub(super) struct Network {
    hosts: usize,
    links: Vec<Link>,
    /// With whom each host wants to be connected.
    wanted: Vec<BTreeSet<HostIndex>>,
    latency: Duration,
    jitter: Duration,
    idle_timeout: Duration,
    loss: f64,
    duplication: f64,
    reordering: f64,
    pub(super) frames: u64,
}

impl Network {
    pub(super) fn new(plan: &Plan) -> Network {
        let links = (0..plan.nodes * plan.nodes).map(|_| Link::default()).collect();
        Network {
            hosts: plan.nodes,
            links,
            wanted: vec![BTreeSet::new(); plan.nodes],
            latency: plan.latency,
            jitter: plan.jitter,
            idle_timeout: plan.idle_timeout,
            loss: plan.loss,
            duplication: plan.duplication,
            reordering: plan.reordering,
            frames: 0,
        }
    }

    /// The link of two hosts, and which end the first of them is.
    fn link(&mut self, one: HostIndex, other: HostIndex) -> (&mut Link, usize) {
        let (a, b) = (one.min(other), one.max(other));
        (&mut self.links[a * self.hosts + b], usize::from(one > other))
    }

    fn travel(&self, schedule: &mut Schedule) -> Duration {
        self.latency + schedule.around(self.jitter)
    }

    /// Sends a frame; false if the sender knows of no connection.
    pub(super) fn send(&mut self, schedule: &mut Schedule, from: HostIndex, to: HostIndex, frame: Bytes) -> bool {
        let arrival = schedule.now.plus(self.travel(schedule));
        let (loss, duplication, reordering) = (self.loss, self.duplication, self.reordering);
        let jitter = self.jitter;
        self.frames += 1;
        let (link, end) = self.link(from, to);
        let Some(generation) = link.believed[end] else { return false };
        if !link.up || link.generation != generation {
            return true;
        }
        if link.blocked[end].is_some() {
            link.held[end].push(frame);
            return true;
        }
        let before = link.not_before[end];
        if schedule.chance(loss) {
            return true;
        }
        if schedule.chance(reordering) {
            // Not before the receiver knows of the connection, but perhaps before others.
            let at = link.told[end].max(arrival).plus(schedule.between(Duration::ZERO, jitter * 8));
            schedule.at(at, Event::Frame { generation, from, to, frame: frame.clone() });
        } else {
            let at = arrival.max(before);
            link.not_before[end] = at;
            schedule.at(at, Event::Frame { generation, from, to, frame: frame.clone() });
        }
        if schedule.chance(duplication) {
            let again = arrival.max(before).plus(schedule.between(Duration::ZERO, jitter * 64));
            schedule.at(again, Event::Frame { generation, from, to, frame });
        }
        true
    }

    /// Sends a datagram. It may be lost, and is if there is no connection.
    pub(super) fn send_datagram(&mut self, schedule: &mut Schedule, from: HostIndex, to: HostIndex, content: Bytes) {
        let at = schedule.now.plus(self.travel(schedule));
        let (loss, duplication) = (self.loss, self.duplication);
        let (link, end) = self.link(from, to);
        let Some(generation) = link.believed[end] else { return };
        if !link.up || link.generation != generation || link.blocked[end].is_some() || schedule.chance(loss) {
            return;
        }
        if schedule.chance(duplication) {
            schedule.at(at, Event::Datagram { generation, from, to, content: content.clone() });
        }
        schedule.at(at, Event::Datagram { generation, from, to, content });
    }

    /// A host wants to be connected with these, and with others only as long as they want it.
    pub(super) fn keep(&mut self, schedule: &mut Schedule, host: HostIndex, wanted: BTreeSet<HostIndex>) {
        self.wanted[host] = wanted;
        for peer in self.wanted[host].clone() {
            if !self.link(host, peer).0.up {
                self.redial(schedule, host, peer);
            }
        }
    }

    /// From now on every frame comes once, in order.
    pub(super) fn be_reliable(&mut self) {
        (self.loss, self.duplication, self.reordering) = (0.0, 0.0, 0.0);
    }

    /// Whether a frame that arrives now is taken.
    pub(super) fn receives(&mut self, generation: u64, from: HostIndex, to: HostIndex) -> bool {
        let (link, end) = self.link(to, from);
        link.up && link.generation == generation && link.believed[end] == Some(generation)
    }

    /// An end is told of a connection; false if it is gone already.
    pub(super) fn connected(&mut self, generation: u64, end: HostIndex, peer: HostIndex) -> bool {
        let (link, end) = self.link(end, peer);
        let stands = link.up && link.generation == generation;
        if stands {
            link.believed[end] = Some(generation);
        }
        stands
    }

    /// An end is told that a connection is gone; false if it knows of a newer one, or knew.
    pub(super) fn disconnected(&mut self, generation: u64, end: HostIndex, peer: HostIndex) -> bool {
        let (link, end) = self.link(end, peer);
        let news = link.believed[end] == Some(generation);
        if news {
            link.believed[end] = None;
        }
        news
    }

    /// Tries to connect two hosts in their present lives; later again if one does not answer.
    pub(super) fn dial(
        &mut self,
        schedule: &mut Schedule,
        (a, incarnation_a): (HostIndex, Option<Incarnation>),
        (b, incarnation_b): (HostIndex, Option<Incarnation>),
    ) {
        let (to_a, to_b) = (self.travel(schedule), self.travel(schedule));
        let (link, end_a) = self.link(a, b);
        link.dialing = false;
        if link.up {
            return;
        }
        let (Some(life_a), Some(life_b), [None, None]) = (incarnation_a, incarnation_b, link.blocked) else {
            for (end, peer, lives) in [(a, b, incarnation_a.is_some()), (b, a, incarnation_b.is_some())] {
                if lives && self.wanted[end].contains(&peer) {
                    schedule.after(Duration::ZERO, Event::Unreachable { end, peer });
                }
            }
            return self.redial(schedule, a, b);
        };
        link.up = true;
        link.generation += 1;
        let generation = link.generation;
        // The side that is told later must not hear frames before that.
        let (told_a, told_b) = (schedule.now.plus(to_a), schedule.now.plus(to_b));
        link.not_before[end_a] = told_b;
        link.not_before[1 - end_a] = told_a;
        link.told = link.not_before;
        schedule.at(told_a, Event::Connected { generation, end: a, peer: b, incarnation: life_b });
        schedule.at(told_b, Event::Connected { generation, end: b, peer: a, incarnation: life_a });
    }

    fn redial(&mut self, schedule: &mut Schedule, a: HostIndex, b: HostIndex) {
        if !self.wanted[a].contains(&b) && !self.wanted[b].contains(&a) {
            return;
        }
        let (link, _) = self.link(a, b);
        if !std::mem::replace(&mut link.dialing, true) {
            let pause = schedule.between(Duration::from_millis(20), Duration::from_millis(300));
            schedule.after(pause, Event::Dial { a, b });
        }
    }

    /// A connection breaks: what is under way is lost, and each end learns of it by and by.
    pub(super) fn reset(&mut self, schedule: &mut Schedule, one: HostIndex, other: HostIndex) {
        self.sever(schedule, one, other);
    }

    fn sever(&mut self, schedule: &mut Schedule, one: HostIndex, other: HostIndex) {
        let idle_timeout = self.idle_timeout;
        let (link, end) = self.link(one, other);
        link.up = false;
        link.held = Default::default();
        for (host, peer, believed) in [(one, other, link.believed[end]), (other, one, link.believed[1 - end])] {
            if let Some(generation) = believed {
                // A reset that arrives, or the silence that stands for one.
                let soon = schedule.chance(0.5);
                let learns =
                    schedule.between(Duration::ZERO, if soon { Duration::from_millis(5) } else { idle_timeout });
                schedule.after(learns, Event::Disconnected { generation, end: host, peer });
            }
        }
        self.redial(schedule, one, other);
    }

    /// A host has died: it knows of no connection any more, its peers will learn.
    pub(super) fn host_died(&mut self, schedule: &mut Schedule, host: HostIndex) {
        self.wanted[host].clear();
        for peer in (0..self.hosts).filter(|peer| *peer != host) {
            let (link, end) = self.link(host, peer);
            link.believed[end] = None;
            self.sever(schedule, host, peer);
        }
    }

    /// Nothing that `from` sends reaches `to` any more.
    pub(super) fn block(&mut self, schedule: &mut Schedule, from: HostIndex, to: HostIndex) {
        let now = schedule.now;
        let idle_timeout = self.idle_timeout;
        let (link, end) = self.link(from, to);
        if link.blocked[end].is_none() {
            link.blocked[end] = Some(now);
            schedule.after(idle_timeout, Event::Silent { from, to, since: now });
        }
    }

    /// The receiver has heard nothing for the idle timeout, if the block still lasts.
    pub(super) fn silent(&mut self, schedule: &mut Schedule, from: HostIndex, to: HostIndex, since: Moment) {
        let (link, end) = self.link(from, to);
        if link.blocked[end] == Some(since) && link.up {
            self.sever(schedule, from, to);
        }
    }

    /// Everything gets through again; what was held back is sent once more.
    pub(super) fn unblock(&mut self, schedule: &mut Schedule, from: HostIndex, to: HostIndex) {
        let (link, end) = self.link(from, to);
        link.blocked[end] = None;
        for frame in std::mem::take(&mut link.held[end]) {
            self.send(schedule, from, to, frame);
        }
    }
}
