//! All hosts, the network between them, and time.
//!
//! Invariant: everything that is drawn comes from one generator, and events of one moment
//! happen in the order of their scheduling; the same options give the same run. No event
//! costs more because there are more hosts.

use std::sync::Arc;

use rand::{RngCore, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::protocol::membership::Roster;
use crate::types::{Epoch, Incarnation, Moment};

use super::host::{Host, Running};
use super::links::{HANDSHAKE_US, KEEP_ALIVE_US, LONGEST_BACKOFF_US, LinkName, Links};
use super::member::{HostIndex, Input, InputOf, Member, Output, OutputOf, Setup, node_of};
use super::queue::Queue;
use super::watch::Watch;
use super::weather::Weather;

/// What carries a datagram: IP (20), UDP (8), a short QUIC header (about 9), the head of the
/// DATAGRAM frame (3); the tag of the cipher is not counted.
const DATAGRAM_OVERHEAD: usize = 40;
/// What carries a frame: the same, less what frames of one packet share.
const FRAME_OVERHEAD: usize = 30;
/// A frame that could not be delivered for so long is not any more: its connection is gone.
const FRAME_PATIENCE_US: u64 = 10_000_000;

/// So many events of one host in a second can only be members that answer each other without
/// end.
const STORM_EVENTS: u64 = 100_000;

/// Something that is going to happen.
#[derive(Debug)]
pub(super) enum Event<D, F> {
    Tick {
        host: HostIndex,
        number: u32,
    },
    Datagram {
        from: HostIndex,
        to: HostIndex,
        link: Option<LinkName>,
        datagram: D,
    },
    Frame {
        from: HostIndex,
        to: HostIndex,
        link: LinkName,
        frame: F,
    },
    /// A handshake is over.
    Met {
        host: HostIndex,
        stamp: u32,
        dial: u32,
        peer: HostIndex,
        peer_stamp: u32,
    },
    /// A handshake has taken too long.
    Failed {
        host: HostIndex,
        stamp: u32,
        dial: u32,
    },
    Redial {
        host: HostIndex,
        stamp: u32,
        dial: u32,
    },
    /// A second of keep-alives on a connection that is watched.
    Check(LinkName),
    /// Nobody wanted this connection a while ago.
    Unused(LinkName),
    /// The other end has said that it knows nothing of this connection, or closed it.
    Gone {
        link: LinkName,
        end: u8,
        parted: bool,
    },
}

/// The simulated world.
pub(super) struct World<M: Member> {
    pub(super) now: Moment,
    pub(super) hosts: Vec<Host<M>>,
    pub(super) weather: Weather,
    pub(super) watch: Watch,
    pub(super) roster: Arc<Roster>,
    pub(super) links: Links,
    pub(super) k_list: usize,
    queue: Queue<Event<M::Datagram, M::Frame>>,
    outputs: Vec<OutputOf<M>>,
    epoch: Epoch,
    check_every: u64,
    handled: u64,
    /// The second, and how many events it has had.
    this_second: (u64, u64),
    /// The most events of a host within a second, as a mean over the hosts.
    pub(super) busiest_second: u64,
}

impl<M: Member> World<M> {
    /// Hosts of these zones; none of them runs yet.
    pub(super) fn new(seed: u64, zones: &[u16], k_list: usize, check_every: u64) -> World<M> {
        let count = HostIndex::try_from(zones.len()).expect("few enough to simulate");
        let roster = Roster::new((0..count).zip(zones).map(|(host, zone)| (node_of(host), *zone)));
        World {
            now: Moment(0),
            hosts: zones.iter().map(|_| Host::new()).collect(),
            weather: Weather::new(ChaCha8Rng::seed_from_u64(seed), zones.len()),
            watch: Watch::new(zones.len()),
            roster: Arc::new(roster),
            links: Links::default(),
            k_list: k_list.min(zones.len() - 1),
            queue: Queue::new(),
            outputs: Vec::new(),
            epoch: Epoch(1),
            check_every: check_every.max(1),
            handled: 0,
            this_second: (0, 0),
            busiest_second: 0,
        }
    }

    /// How many events there have been, or are waiting.
    pub(super) fn events(&self) -> u64 {
        self.queue.scheduled()
    }

    /// Lets time pass.
    pub(super) fn run_until(&mut self, until: Moment) {
        while let Some((at, event)) = self.queue.pop(until) {
            self.now = at;
            self.watch_for_storms();
            self.happen(event);
        }
        self.now = until;
    }

    /// # Panics
    /// If members answer each other without end.
    fn watch_for_storms(&mut self) {
        let second = self.now.0 / 1_000_000;
        self.this_second = if self.this_second.0 == second { (second, self.this_second.1 + 1) } else { (second, 1) };
        // Members without links speak with everybody.
        let most = STORM_EVENTS * if M::LINKED { 1 } else { self.hosts.len() as u64 };
        let events = self.this_second.1 / self.hosts.len() as u64;
        self.busiest_second = self.busiest_second.max(events);
        assert!(events < most, "a storm of messages: {events} events a host within a second");
    }

    fn after(&mut self, micros: u64, event: Event<M::Datagram, M::Frame>) {
        self.queue.push(Moment(self.now.0 + micros), event);
    }

    fn is_current(&self, host: HostIndex, stamp: u32) -> bool {
        let host = &self.hosts[host as usize];
        host.stamp == stamp && host.is_up()
    }

    fn happen(&mut self, event: Event<M::Datagram, M::Frame>) {
        match event {
            Event::Tick { host, number } => self.tick(host, number),
            Event::Datagram { .. } | Event::Frame { .. } => self.arrive(event),
            Event::Met { host, stamp, dial, peer, peer_stamp } if self.is_current(host, stamp) => {
                if self.is_current(peer, peer_stamp) {
                    self.met(host, peer);
                } else {
                    self.after(HANDSHAKE_US, Event::Failed { host, stamp, dial });
                }
            }
            Event::Failed { host, stamp, dial } if self.is_current(host, stamp) => self.dial_failed(host, dial),
            Event::Redial { host, stamp, dial } if self.is_current(host, stamp) => {
                if let Some(peer) = self.hosts[host as usize].dial(dial).map(|dial| dial.peer) {
                    self.dial(host, dial, peer);
                }
            }
            Event::Check(link) => self.check_link(link),
            Event::Unused(link) => self.unused(link),
            Event::Gone { link, end, parted } => {
                let end = usize::from(end);
                if self.links.get(link).is_some_and(|link| link.up[end]) {
                    self.lose_link(link.slot, end, parted);
                }
            }
            Event::Met { .. } | Event::Failed { .. } | Event::Redial { .. } => {}
        }
    }

    fn tick(&mut self, index: HostIndex, number: u32) {
        let host = &mut self.hosts[index as usize];
        // One that was scheduled later stands for it, or the process does not run.
        if !host.is_up() || host.tick_number != number {
            return;
        }
        host.tick_at = u64::MAX;
        if host.member.as_ref().is_some_and(|member| member.next_timeout() <= self.now) {
            host.count_tick(self.now.0);
            self.tell(index, Input::Tick);
        } else {
            self.plan_tick(index);
        }
    }

    fn plan_tick(&mut self, index: HostIndex) {
        let host = &mut self.hosts[index as usize];
        let Some(member) = host.member.as_ref().filter(|_| host.running == Running::Up) else { return };
        let due = member.next_timeout().max(self.now);
        // One that is due earlier looks again how things stand.
        if due.0 < host.tick_at && due.0 < u64::MAX {
            (host.tick_at, host.tick_number) = (due.0, host.tick_number + 1);
            let number = host.tick_number;
            self.queue.push(due, Event::Tick { host: index, number });
        }
    }

    /// Something happens to a member, and it does what it will.
    pub(super) fn tell(&mut self, index: HostIndex, input: InputOf<M>) {
        let host = &mut self.hosts[index as usize];
        let Some(member) = host.member.as_mut() else { return };
        let mut outputs = std::mem::take(&mut self.outputs);
        member.handle(self.now, input, &mut outputs);

        self.handled += 1;
        if self.handled.is_multiple_of(self.check_every) {
            member.check_invariants();
            let known = member.active().count() + member.passive().count();
            let (_, most) = member.capacity();
            assert!(known <= most, "{} knows {known} peers, and K is {most}", node_of(index));
        }
        for output in outputs.drain(..) {
            self.carry_out(index, output);
        }
        self.outputs = outputs;
        self.plan_tick(index);
    }

    fn carry_out(&mut self, index: HostIndex, output: OutputOf<M>) {
        match output {
            Output::Datagram { to, datagram } => self.send_datagram(index, to, datagram),
            Output::Frame { to, frame } => self.send_frame(index, to, frame),
            Output::Links(wanted) => {
                let before = std::mem::replace(&mut self.hosts[index as usize].wanted, wanted);
                self.connect(index);
                for peer in before {
                    if let Some(slot) = self.hosts[index as usize].link_to(peer) {
                        self.perhaps_unused(slot);
                    }
                }
            }
            Output::EpochHeard(epoch) => self.watch.epoch_heard(index, epoch, self.now),
            Output::Own { member, life, health } => {
                let current = self.hosts[member as usize].incarnation;
                self.watch.own_changed(self.now, index, member, (life, current), health);
            }
            Output::Cluster { member, life, health } => {
                let current = self.hosts[member as usize].incarnation;
                self.watch.cluster_changed(self.now, index, member, (life, current), health);
            }
        }
    }

    fn send_datagram(&mut self, from: HostIndex, to: HostIndex, datagram: M::Datagram) {
        let slot = self.hosts[from as usize].link_to(to);
        if M::LINKED && slot.is_none() {
            return;
        }
        let traffic = &mut self.hosts[from as usize].traffic;
        traffic.datagrams += 1;
        traffic.bytes += (M::datagram_bytes(&datagram) + DATAGRAM_OVERHEAD) as u64;
        let link = slot.map(|slot| {
            self.links.at(slot).used = self.now.0;
            self.links.name(slot)
        });
        if self.weather.arrives(from, to) {
            let travel = self.weather.travel();
            self.after(travel, Event::Datagram { from, to, link, datagram });
        }
    }

    fn send_frame(&mut self, from: HostIndex, to: HostIndex, frame: M::Frame) {
        let Some(slot) = self.hosts[from as usize].link_to(to) else { return };
        let (frame, bytes) = M::measured(frame);
        let delivery = self.weather.reliably(from, to, FRAME_PATIENCE_US);
        let sent = delivery.map_or(1, |(_, sent)| sent);
        let traffic = &mut self.hosts[from as usize].traffic;
        traffic.frames += 1;
        traffic.spreading += u64::from(M::spreads(&frame));
        traffic.bytes += (bytes + FRAME_OVERHEAD) as u64 * sent;
        let name = self.links.name(slot);
        let link = self.links.at(slot);
        link.used = self.now.0;
        let end = link.end_of(to);
        // One that never arrives holds up those behind it.
        let arrival = delivery.map_or(u64::MAX, |(after, _)| self.now.0 + after).max(link.arrival[end]);
        link.arrival[end] = arrival;
        if arrival < u64::MAX {
            self.queue.push(Moment(arrival), Event::Frame { from, to, link: name, frame });
        }
    }

    /// A datagram or a frame is there.
    pub(super) fn arrive(&mut self, event: Event<M::Datagram, M::Frame>) {
        let (from, to, link) = match &event {
            Event::Datagram { from, to, link, .. } => (*from, *to, *link),
            Event::Frame { from, to, link, .. } => (*from, *to, Some(*link)),
            _ => unreachable!("nothing else arrives"),
        };
        match self.hosts[to as usize].running {
            Running::Dead => return,
            Running::Paused => return self.hosts[to as usize].keep(event),
            Running::Up => {}
        }
        if let Some(name) = link {
            let Some(link) = self.links.get(name) else { return };
            let end = link.end_of(to);
            if !link.up[end] {
                return self.reset(name, 1 - end, to, from);
            }
            link.heard[end] = self.now.0;
        }
        let input = match event {
            Event::Datagram { datagram, .. } => Input::Datagram { from, datagram },
            Event::Frame { frame, .. } => Input::Frame { from, frame },
            _ => unreachable!("nothing else arrives"),
        };
        self.tell(to, input);
    }

    /// A host that knows nothing of a connection says so to the one that does.
    pub(super) fn reset(&mut self, link: LinkName, end: usize, from: HostIndex, to: HostIndex) {
        if self.weather.arrives(from, to) {
            let travel = self.weather.travel();
            self.after(travel, Event::Gone { link, end: end as u8, parted: false });
        }
    }

    /// Starts to connect with whomever a host wants and is not connected with.
    pub(super) fn connect(&mut self, index: HostIndex) {
        if !self.hosts[index as usize].is_up() {
            return;
        }
        let host = &mut self.hosts[index as usize];
        host.dials.retain(|dial| host.wanted.binary_search(&dial.peer).is_ok());
        for at in 0..self.hosts[index as usize].wanted.len() {
            let host = &mut self.hosts[index as usize];
            let peer = host.wanted[at];
            let known = host.link_to(peer).is_some() || host.dials.iter().any(|dial| dial.peer == peer);
            if !known && peer != index {
                let number = host.begin_dial(peer);
                self.dial(index, number, peer);
            }
        }
    }

    fn dial_failed(&mut self, index: HostIndex, number: u32) {
        // One that is not wanted any more has ended without a word.
        let Some(dial) = self.hosts[index as usize].dial(number) else { return };
        dial.backoff = (dial.backoff * 2).clamp(50_000, LONGEST_BACKOFF_US);
        let (peer, backoff) = (dial.peer, dial.backoff);
        let pause = backoff / 2 + self.weather.within(backoff / 2);
        let stamp = self.hosts[index as usize].stamp;
        self.after(pause, Event::Redial { host: index, stamp, dial: number });
        self.tell(index, Input::Unreachable { peer });
    }

    /// A handshake: one and a half round trips, each leg sent again until it arrives.
    fn dial(&mut self, index: HostIndex, dial: u32, peer: HostIndex) {
        let stamp = self.hosts[index as usize].stamp;
        let mut legs = || {
            let mut took = 0;
            for (from, to) in [(index, peer), (peer, index), (index, peer)] {
                took += self.weather.reliably(from, to, HANDSHAKE_US)?.0;
            }
            (took <= HANDSHAKE_US).then_some(took)
        };
        let took = if self.hosts[peer as usize].is_up() { legs() } else { None };
        match took {
            Some(took) => {
                let peer_stamp = self.hosts[peer as usize].stamp;
                self.after(took, Event::Met { host: index, stamp, dial, peer, peer_stamp });
            }
            None => self.after(HANDSHAKE_US, Event::Failed { host: index, stamp, dial }),
        }
    }

    /// A handshake has succeeded.
    fn met(&mut self, one: HostIndex, other: HostIndex) {
        self.hosts[one as usize].dials.retain(|dial| dial.peer != other);
        let (here, there) = (self.hosts[one as usize].link_to(other), self.hosts[other as usize].link_to(one));
        if here.is_some() && here == there {
            return;
        }
        // A connection of which one end does not know any more is replaced.
        for (host, slot) in [(one, here), (other, there)] {
            if let Some(slot) = slot {
                let end = self.links.at(slot).end_of(host);
                self.hosts[host as usize].forget_link(slot);
                self.links.leave(slot, end);
            }
        }
        let link = self.links.open([one, other], self.now.0);
        self.hosts[one as usize].links.push((other, link.slot));
        self.hosts[other as usize].links.push((one, link.slot));
        self.hosts[other as usize].dials.retain(|dial| dial.peer != one);
        self.watch_link(link.slot);
        self.perhaps_unused(link.slot);
        for (host, peer) in [(one, other), (other, one)] {
            let incarnation = self.hosts[peer as usize].incarnation;
            self.tell(host, Input::LinkUp { peer, incarnation });
        }
    }

    /// Schedules a second of keep-alives, if anything can happen to them.
    pub(super) fn plan_check(&mut self, link: LinkName, first: bool) {
        let at = if first { self.weather.within(KEEP_ALIVE_US) } else { KEEP_ALIVE_US };
        let until = self.deadline(link).unwrap_or(u64::MAX);
        let at = Moment((self.now.0 + at).min(until.max(self.now.0)));
        self.queue.push(at, Event::Check(link));
    }

    /// Schedules the end of a connection that nobody wants.
    pub(super) fn plan_unused(&mut self, link: LinkName, at: u64) {
        self.queue.push(Moment(at), Event::Unused(link));
    }

    /// The other end learns that a connection was closed, if it gets to hear of it.
    pub(super) fn say_closed(&mut self, link: LinkName, end: usize, from: HostIndex, to: HostIndex) {
        if self.weather.arrives(from, to) {
            let travel = self.weather.travel();
            self.after(travel, Event::Gone { link, end: end as u8, parted: true });
        }
    }

    /// A host's process starts, again or for the first time.
    pub(super) fn start(&mut self, index: HostIndex) {
        let seed = self.weather.chance.next_u64();
        let host = &mut self.hosts[index as usize];
        assert_eq!(host.running, Running::Dead, "only a dead process is started");
        host.incarnation = Incarnation(host.incarnation.0 + 1);
        host.turn(Running::Up);
        let setup =
            Setup { me: index, incarnation: host.incarnation, k_list: self.k_list, seed, roster: self.roster.clone() };
        host.member = Some(M::start(self.now, &setup));
        self.watch.lives(index, self.now);
        self.plan_tick(index);
    }

    /// A live node begins to spread an epoch that nobody has heard of.
    pub(super) fn broadcast(&mut self, origin: HostIndex) {
        self.epoch = self.epoch.next();
        self.watch.broadcast(origin, self.epoch, self.now);
        self.tell(origin, Input::Epoch(self.epoch));
    }
}
