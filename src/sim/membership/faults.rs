//! What is done to hosts, and what becomes of their connections.

use super::host::Running;
use super::links::{IDLE_TIMEOUT_US, LinkName, UNUSED_US};
use super::member::{HostIndex, Input, Member};
use super::weather::attempts;
use super::world::World;

impl<M: Member> World<M> {
    /// A process dies without a word.
    pub(super) fn crash(&mut self, index: HostIndex) {
        let host = &mut self.hosts[index as usize];
        host.turn(Running::Dead);
        host.member = None;
        host.wanted.clear();
        host.dials.clear();
        drop(host.take_backlog());
        for (_, slot) in std::mem::take(&mut host.links) {
            let end = self.links.at(slot).end_of(index);
            if self.links.leave(slot, end) {
                self.watch_link(slot);
            }
        }
        self.watch.dies(index);
    }

    /// A process stands still.
    pub(super) fn pause(&mut self, index: HostIndex) {
        let host = &mut self.hosts[index as usize];
        assert!(host.is_up(), "only a running process is paused");
        host.turn(Running::Paused);
        host.dials.clear();
        for at in 0..self.hosts[index as usize].links.len() {
            let slot = self.hosts[index as usize].links[at].1;
            self.watch_link(slot);
        }
    }

    /// A process that stood still goes on: what has come meanwhile is there at once, and
    /// whether its timers or its sockets are looked at first is chance.
    pub(super) fn resume(&mut self, index: HostIndex) {
        let host = &mut self.hosts[index as usize];
        assert_eq!(host.running, Running::Paused, "only a paused process goes on");
        host.turn(Running::Up);
        let backlog = host.take_backlog();
        let links: Vec<LinkName> = host.links.iter().map(|(_, slot)| self.links.name(*slot)).collect();
        let late: Vec<(LinkName, usize)> = links
            .iter()
            .filter_map(|name| {
                let link = self.links.get(*name)?;
                let end = link.end_of(index);
                (self.now.0 - link.heard[end] >= IDLE_TIMEOUT_US).then_some((*name, end))
            })
            .collect();
        if self.weather.draw(0.5) {
            self.tell(index, Input::Tick);
        }
        for event in backlog {
            self.arrive(event);
        }
        for (name, end) in late {
            if self.links.get(name).is_some_and(|link| link.up[end]) {
                self.lose_link(name.slot, end, false);
            }
        }
        self.tell(index, Input::Tick);
        self.connect(index);
    }

    /// The loss has changed: whoever's connections that concerns watches them.
    pub(super) fn watch_links(&mut self) {
        for index in 0..self.hosts.len() {
            for at in 0..self.hosts[index].links.len() {
                let slot = self.hosts[index].links[at].1;
                self.watch_link(slot);
            }
        }
    }

    /// Whether keep-alives might not arrive.
    fn is_disturbed(&mut self, slot: u32) -> bool {
        let link = self.links.at(slot);
        let [a, b] = link.hosts;
        let stands = link.up == [true, true];
        let run = self.hosts[a as usize].is_up() && self.hosts[b as usize].is_up();
        !stands || !run || self.weather.passes(a, b) < 1.0 || self.weather.passes(b, a) < 1.0
    }

    /// Begins to watch a connection, if there is a reason to.
    pub(super) fn watch_link(&mut self, slot: u32) {
        if self.links.at(slot).watched || !self.is_disturbed(slot) {
            return;
        }
        // Up to now both were heard twice a second: keep-alives and their acknowledgements.
        let now = self.now.0;
        let heard = [now - self.weather.within(500_000).min(now), now - self.weather.within(500_000).min(now)];
        let link = self.links.at(slot);
        (link.watched, link.silent) = (true, [0; 2]);
        link.heard = [heard[0].max(link.heard[0]), heard[1].max(link.heard[1])];
        let name = self.links.name(slot);
        self.plan_check(name, true);
    }

    /// When the first end gives up, if it hears nothing more.
    pub(super) fn deadline(&mut self, name: LinkName) -> Option<u64> {
        let link = self.links.get(name)?.clone();
        let ends = (0..2).filter(|end| link.up[*end] && self.hosts[link.hosts[*end] as usize].is_up());
        ends.map(|end| link.heard[end] + IDLE_TIMEOUT_US).min()
    }

    /// What the keep-alives of the last second have come to.
    pub(super) fn check_link(&mut self, name: LinkName) {
        let Some(link) = self.links.get(name) else { return };
        let mut link = link.clone();
        if !self.is_disturbed(name.slot) {
            self.links.at(name.slot).watched = false;
            return;
        }
        let now = self.now.0;
        let mut gives_up = None;
        for end in 0..2 {
            let (me, peer) = (link.hosts[end], link.hosts[1 - end]);
            if !link.up[end] || !self.hosts[me as usize].is_up() {
                continue;
            }
            if self.hosts[peer as usize].is_up() {
                let (there, back) = (self.weather.passes(me, peer), self.weather.passes(peer, me));
                let lost_round = (1.0 - there * back).powi(attempts(link.silent[end]));
                if !link.up[1 - end] {
                    if self.weather.draw(1.0 - lost_round) {
                        gives_up = Some(end);
                    }
                } else {
                    // It hears the other's keep-alives, and what acknowledges its own.
                    let lost = (1.0 - back).powi(attempts(link.silent[1 - end]));
                    let acknowledged = self.weather.draw(1.0 - lost_round);
                    if acknowledged || self.weather.draw(1.0 - lost) {
                        let ago = if back < 1.0 { self.weather.within(1_000_000) } else { 0 };
                        link.heard[end] = link.heard[end].max(now.saturating_sub(ago));
                    }
                    link.silent[end] = if acknowledged { 0 } else { link.silent[end].saturating_add(1) };
                }
            }
            if now - link.heard[end] >= IDLE_TIMEOUT_US {
                gives_up = Some(end);
            }
        }
        let stored = self.links.at(name.slot);
        (stored.heard, stored.silent) = (link.heard, link.silent);
        if let Some(end) = gives_up {
            self.lose_link(name.slot, end, false);
        }
        if self.links.get(name).is_some() {
            self.plan_check(name, false);
        }
    }

    /// An end learns that a connection is gone.
    pub(super) fn lose_link(&mut self, slot: u32, end: usize, parted: bool) {
        let link = self.links.at(slot);
        let (me, peer) = (link.hosts[end], link.hosts[1 - end]);
        self.hosts[me as usize].forget_link(slot);
        if self.links.leave(slot, end) {
            self.watch_link(slot);
        }
        self.tell(me, Input::LinkDown { peer, parted });
        self.connect(me);
    }

    /// Closes a connection some time later, if neither end wants it.
    pub(super) fn perhaps_unused(&mut self, slot: u32) {
        let link = self.links.at(slot);
        let [a, b] = link.hosts;
        if link.closing || self.hosts[a as usize].wants(b) || self.hosts[b as usize].wants(a) {
            return;
        }
        link.closing = true;
        let at = link.used + UNUSED_US;
        let name = self.links.name(slot);
        self.plan_unused(name, at.max(self.now.0));
    }

    /// Nobody wanted a connection a while ago.
    pub(super) fn unused(&mut self, name: LinkName) {
        let Some(link) = self.links.get(name) else { return };
        link.closing = false;
        let (hosts, up, used) = (link.hosts, link.up, link.used);
        let wanted = |me: usize| self.hosts[hosts[me] as usize].wants(hosts[1 - me]);
        if wanted(0) || wanted(1) || up != [true, true] {
            return;
        }
        if self.now.0 < used + UNUSED_US {
            self.links.at(name.slot).closing = true;
            return self.plan_unused(name, used + UNUSED_US);
        }
        let closer = if self.hosts[hosts[0] as usize].is_up() { 0 } else { 1 };
        if self.hosts[hosts[closer] as usize].is_up() {
            self.say_closed(name, 1 - closer, hosts[closer], hosts[1 - closer]);
            self.lose_link(name.slot, closer, true);
        }
    }
}
