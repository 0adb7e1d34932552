//! What scenarios have in common: a world that everybody joins, figures, promises, waiting.

use std::time::Duration;

use crate::types::Moment;

use super::MembershipOptions;
use super::host::{Running, Traffic};
use super::member::{HostIndex, Member, node_of};
use super::overlay::Overlay;
use super::report::{Figure, Promise};
use super::samples::Samples;
use super::world::World;

/// What a connection that nothing else is sent on costs a second: a PING and its
/// acknowledgement each way, at 40 bytes each. Computed, not simulated.
const KEEP_ALIVE_BYTES: f64 = 80.0;
/// Everybody starts within this time.
const START_US: u64 = 1_000_000;
/// For so long the views mix before anything is measured, in seconds.
const SETTLE: f64 = 30.0;
/// The overlay must be whole by then, in seconds.
const JOINED_WITHIN: f64 = 30.0;
/// How long a broadcast may take, in milliseconds.
const BROADCAST_WITHIN_MS: f64 = 2_000.0;

/// A scenario that is being played.
pub(super) struct Stage<M: Member> {
    pub(super) options: MembershipOptions,
    pub(super) world: World<M>,
    pub(super) figures: Vec<Figure>,
    pub(super) promises: Vec<Promise>,
    /// Of worlds before this one.
    seconds: f64,
    events: u64,
}

/// What every host had sent and counted at some moment.
pub(super) struct Mark {
    at: Moment,
    traffic: Vec<Traffic>,
    probes: Vec<u64>,
}

impl<M: Member> Stage<M> {
    pub(super) fn new(options: MembershipOptions) -> Stage<M> {
        let zones = even_zones(options.nodes);
        let world = World::new(options.seed, &zones, options.k_list, options.check_every);
        Stage { options, world, figures: Vec::new(), promises: Vec::new(), seconds: 0.0, events: 0 }
    }

    /// Another world, of the same seed.
    pub(super) fn renew(&mut self, zones: &[u16]) {
        (self.seconds, self.events) = (self.simulated_seconds(), self.events());
        self.world = World::new(self.options.seed, zones, self.options.k_list, self.options.check_every);
    }

    pub(super) fn simulated_seconds(&self) -> f64 {
        self.seconds + seconds(self.world.now)
    }

    pub(super) fn events(&self) -> u64 {
        self.events + self.world.events()
    }

    pub(super) fn figure(&mut self, name: &str, value: f64) {
        self.figures.push(Figure { name: name.to_owned(), value });
    }

    /// The half, the worst hundredth and the worst of some.
    pub(super) fn spread(&mut self, name: &str, unit: &str, samples: &Samples) {
        self.figure(&format!("{name}, p50, {unit}"), samples.percentile(0.5));
        self.figure(&format!("{name}, p99, {unit}"), samples.percentile(0.99));
        self.figure(&format!("{name}, max, {unit}"), samples.max());
    }

    pub(super) fn promise(&mut self, name: &str, kept: bool, seen: String) {
        self.promises.push(Promise { name: name.to_owned(), kept, seen });
    }

    /// Lets so many seconds pass.
    pub(super) fn pass(&mut self, seconds: f64) {
        let until = self.world.now.plus(Duration::from_secs_f64(seconds));
        self.world.run_until(until);
    }

    /// Waits for something, looking every 50 ms; how many seconds it took.
    pub(super) fn wait(&mut self, most: f64, mut there: impl FnMut(&World<M>) -> bool) -> Option<f64> {
        let begun = self.world.now;
        loop {
            if there(&self.world) {
                return Some(self.world.now.since(begun).as_secs_f64());
            }
            if self.world.now.since(begun).as_secs_f64() >= most {
                return None;
            }
            self.pass(0.05);
        }
    }

    pub(super) fn overlay(&self) -> Overlay {
        Overlay::of(&self.world)
    }

    pub(super) fn live(&self) -> Vec<HostIndex> {
        (0..).zip(&self.world.hosts).filter(|(_, host)| host.running != Running::Dead).map(|(host, _)| host).collect()
    }

    /// One of those that live.
    pub(super) fn pick_live(&mut self) -> HostIndex {
        let live = self.live();
        live[self.world.weather.pick(live.len())]
    }

    /// So many different ones of those that live.
    pub(super) fn pick_some(&mut self, count: usize) -> Vec<HostIndex> {
        let mut live = self.live();
        let count = count.min(live.len());
        for at in 0..count {
            let other = at + self.world.weather.pick(live.len() - at);
            live.swap(at, other);
        }
        live.truncate(count);
        live
    }

    /// Everybody starts, knowing nobody but the names of the members, and finds its place.
    pub(super) fn join(&mut self) {
        let count = self.world.hosts.len() as HostIndex;
        let mut starts: Vec<(u64, HostIndex)> =
            (0..count).map(|host| (self.world.weather.within(START_US), host)).collect();
        starts.sort_unstable();
        for (at, host) in starts {
            self.world.run_until(Moment(at));
            self.world.start(host);
        }
        let took = self.wait(JOINED_WITHIN, |world| Overlay::of(world).is_whole());
        self.figure("whole after the last start, s", took.unwrap_or(f64::NAN));
        let part = self.overlay().largest_part();
        let seen = took.map_or(format!("{:.1} % hang together", part * 100.0), |took| format!("after {took:.2} s"));
        self.promise(&format!("everybody is in one overlay within {JOINED_WITHIN} s"), took.is_some(), seen);
        self.pass(SETTLE);
        // While they start one after the other, each is missed by those before it.
        self.world.watch.falsely.suspicions = 0;
    }

    pub(super) fn mark(&self) -> Mark {
        let probes =
            self.world.hosts.iter().map(|host| host.member.as_ref().map_or(0, |member| member.counters().probes));
        let traffic = self.world.hosts.iter().map(|host| host.traffic).collect();
        Mark { at: self.world.now, traffic, probes: probes.collect() }
    }

    /// What each node has cost a second since then, and what it holds.
    pub(super) fn costs(&mut self, since: &Mark) {
        let elapsed = self.world.now.since(since.at).as_secs_f64();
        let now = self.mark();
        // The dead send nothing, and would make a mean of little worth.
        let lives = |host: &usize| self.world.hosts[*host].member.is_some();
        let live: Vec<usize> = (0..self.world.hosts.len()).filter(lives).collect();
        let of = |figure: fn(&Traffic) -> u64| -> Samples {
            let sent = |host: &usize| figure(&now.traffic[*host]) - figure(&since.traffic[*host]);
            live.iter().map(|host| sent(host) as f64 / elapsed).collect()
        };
        // A process that has started anew meanwhile counts from zero again.
        let probed = |host: &usize| now.probes[*host].saturating_sub(since.probes[*host]) as f64 / elapsed;
        let probes: Samples = live.iter().map(probed).collect();
        let members = || self.world.hosts.iter().filter_map(|host| host.member.as_ref().map(|member| (host, member)));
        let connections: Samples = members()
            .map(|(host, member)| if M::LINKED { host.links.len() } else { member.active().count() } as f64)
            .collect();
        let state: Samples = members().map(|(_, member)| member.state_entries() as f64).collect();
        let keep_alives = if M::LINKED { connections.mean() * KEEP_ALIVE_BYTES } else { 0.0 };
        for (name, samples) in [
            ("probes a second", probes),
            ("datagrams a second", of(|traffic| traffic.datagrams)),
            ("frames a second", of(|traffic| traffic.frames)),
            ("bytes a second", of(|traffic| traffic.bytes)),
            ("connections", connections),
            ("entries of liveness state", state),
        ] {
            self.figure(&format!("{name}, mean"), samples.mean());
            self.figure(&format!("{name}, p99 of nodes"), samples.percentile(0.99));
        }
        if M::LINKED {
            self.figure("bytes a second of keep-alives, computed", keep_alives);
        }
    }

    /// How the views stand.
    pub(super) fn views(&mut self) {
        let overlay = self.overlay();
        let live = self.live().len();
        let in_degrees: Samples = overlay.in_degrees.iter().copied().collect();
        let active: Samples = overlay.out_degrees.iter().copied().collect();
        self.figure("active view, live entries, mean", active.mean());
        self.figure("active view, live entries, min", active.min());
        self.figure("in-degree, min", in_degrees.min());
        self.figure("in-degree, max", in_degrees.max());
        let mutual = overlay.mutual as f64 / overlay.directed.max(1) as f64;
        self.figure("share of links that are symmetric", mutual);
        self.figure("diameter", f64::from(overlay.diameter()));
        let fill = self.passive_fill();
        if let Some(fill) = &fill {
            self.figure("passive view, live entries over what it could hold, mean", fill.mean());
            self.figure("passive view, live entries over what it could hold, min", fill.min());
        }
        self.promise("the overlay is whole", overlay.is_whole(), format!("{live} nodes, symmetric {mutual:.4}"));
        self.promise("links are symmetric", mutual >= 0.98, format!("{:.2} % are", mutual * 100.0));
    }

    /// For each node, how many live peers its passive view has, of as many as it could.
    pub(super) fn passive_fill(&self) -> Option<Samples> {
        let live = self.live().len();
        let hosts = || self.world.hosts.iter().filter_map(|host| host.member.as_ref());
        let fills = hosts().filter_map(|member| {
            let (active_room, most) = member.capacity();
            let others = live - 1 - member.active().count().min(live - 1);
            let room = most.saturating_sub(active_room).min(others);
            let filled = member.passive().filter(|peer| self.world.hosts[*peer as usize].member.is_some()).count();
            (room > 0).then(|| (filled as f64 / room as f64).min(1.0))
        });
        let fills: Samples = fills.collect();
        (fills.len() > 0).then_some(fills)
    }

    /// Spreads epochs from random nodes, one after the other.
    pub(super) fn broadcasts(&mut self, promised: bool) {
        if !M::BROADCASTS {
            return;
        }
        let rounds = self.options.rounds;
        let (mut delays, mut worst, mut missed) = (Samples::default(), Samples::default(), 0);
        let mut frames = 0;
        for _ in 0..rounds {
            let origin = self.pick_live();
            let before: u64 = self.world.hosts.iter().map(|host| host.traffic.spreading).sum();
            self.world.broadcast(origin);
            let live: Vec<HostIndex> =
                self.live().into_iter().filter(|host| self.world.hosts[*host as usize].is_up()).collect();
            let all = |world: &World<M>| live.iter().all(|host| world.watch.epoch_delay_ms(*host).is_some());
            self.wait(10.0, all);
            // Lazy announcements and what they mend come after.
            self.pass(2.0);
            let heard: Vec<Option<f64>> = live.iter().map(|host| self.world.watch.epoch_delay_ms(*host)).collect();
            missed += heard.iter().filter(|delay| delay.is_none()).count();
            heard.iter().flatten().for_each(|delay| delays.push(*delay));
            worst.push(heard.iter().flatten().copied().fold(0.0, f64::max));
            frames += self.world.hosts.iter().map(|host| host.traffic.spreading).sum::<u64>() - before;
        }
        self.spread("broadcast to each node", "ms", &delays);
        self.figure("broadcast to the last node, mean, ms", worst.mean());
        self.figure("broadcasts missed by nodes", missed as f64);
        self.figure("frames a node and broadcast", frames as f64 / (rounds * self.live().len()).max(1) as f64);
        if promised {
            let kept = missed == 0 && worst.max() <= BROADCAST_WITHIN_MS;
            let seen = format!("{missed} missed, the last after {:.0} ms", worst.max());
            self.promise("a broadcast reaches every live node within 2 s", kept, seen);
        }
    }

    /// No sound node was held for down by a sound node.
    pub(super) fn nobody_accused(&mut self, name: &str) {
        let falsely = self.world.watch.falsely.clone();
        self.figure("false verdicts, cluster-wide", falsely.cluster as f64);
        self.figure("false verdicts, a node's own", falsely.own as f64);
        self.figure("false suspicions", falsely.suspicions as f64);
        self.figure("verdicts of nodes that were disturbed themselves", falsely.by_the_sick as f64);
        let mut seen = format!("{} cluster-wide, {} of a node's own", falsely.cluster, falsely.own);
        if let Some(first) = falsely.told.first() {
            seen += &format!("; {first}");
        }
        self.promise(name, falsely.cluster + falsely.own == 0, seen);
    }

    /// What members answer when they are asked is what they have told of themselves.
    pub(super) fn told_and_held_agree(&mut self) {
        let count = self.world.hosts.len();
        // All pairs of a small world, and some of a large one: no common factor, so all rows and columns.
        let step = if count <= 200 { 1 } else { 9_973 };
        let pairs =
            (0..count * count).step_by(step).map(|pair| ((pair / count) as HostIndex, (pair % count) as HostIndex));
        let mut wrong = pairs.filter(|(by, of)| {
            let member = self.world.hosts[*by as usize].member.as_ref();
            let held = member.filter(|_| by != of).is_some_and(|member| member.holds_down(*of));
            by != of && held != self.world.watch.holds_down(*by, *of)
        });
        let first = wrong.next();
        let seen = first.map_or("they agree".into(), |(by, of)| format!("{} on {}", node_of(by), node_of(of)));
        drop(wrong);
        self.promise("members hold what they told", first.is_none(), seen);
    }

    /// Waits until nobody holds anybody that lives for down.
    pub(super) fn all_alive_to_all(&mut self, most: f64) -> Option<f64> {
        let live = self.live();
        self.wait(most, |world| live.iter().all(|subject| world.watch.holders(*subject) == 0))
    }
}

/// Three zones of the same size.
fn even_zones(nodes: usize) -> Vec<u16> {
    (0..nodes).map(|node| (node % 3) as u16).collect()
}

pub(super) fn seconds(moment: Moment) -> f64 {
    moment.0 as f64 / 1e6
}
