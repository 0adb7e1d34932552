//! What breaks, when, and how it is mended again.

use std::time::Duration;

use rand::Rng;

use super::plan::{FaultRates, WILD_JUMP};
use super::schedule::{Event, HostIndex, Schedule};
use super::world::World;

/// A fault, or the end of one.
#[derive(Clone, Debug)]
pub(super) enum Fault {
    /// One of this kind happens now, and the next one some time later.
    Strike(Kind),
    /// Another one just after one: what is rare alone is rarer together.
    Aftershock(Kind),
    /// A host that died starts.
    Start(HostIndex),
    /// A host that stood still goes on.
    Resume(HostIndex),
    /// These directions get through again.
    Unblock(Vec<(HostIndex, HostIndex)>),
}

/// A kind of fault.
#[derive(Clone, Copy, Debug)]
pub(super) enum Kind {
    /// A process dies, and its disk forgets some of what was not synced.
    Crash,
    /// All of them at once.
    PowerCut,
    /// A connection breaks.
    Reset,
    /// Two groups of hosts cannot hear each other.
    Partition,
    /// One host can hear but not be heard, or the other way about, by some.
    OneWay,
    /// A process stands still.
    Pause,
    /// A clock is set.
    Clock,
    /// A host restarts with a newer map than the others have.
    NewMap,
    /// A host dies, and its disk is put back to what it was some time before.
    BackInTime,
}

/// All kinds that happen in a run, with the mean time between two.
pub(super) fn kinds(rates: &FaultRates) -> Vec<(Kind, Duration)> {
    let FaultRates { crash, power_cut, reset, partition, one_way, pause, clock, new_map, back_in_time } = rates;
    [
        (Kind::Crash, crash),
        (Kind::PowerCut, power_cut),
        (Kind::Reset, reset),
        (Kind::Partition, partition),
        (Kind::OneWay, one_way),
        (Kind::Pause, pause),
        (Kind::Clock, clock),
        (Kind::NewMap, new_map),
        (Kind::BackInTime, back_in_time),
    ]
    .into_iter()
    .filter_map(|(kind, rate)| rate.map(|rate| (kind, rate)))
    .collect()
}

const SHORT: Duration = Duration::from_millis(20);
const AFTERSHOCK: Duration = Duration::from_millis(50);

fn outage(schedule: &mut Schedule) -> Duration {
    // Mostly short; now and then longer than every timeout.
    let most = if schedule.chance(0.8) { Duration::from_secs(1) } else { Duration::from_secs(7) };
    schedule.between(SHORT, most)
}

impl World {
    /// Begins with every kind of fault that the plan has.
    pub(super) fn unleash(&mut self) {
        for (kind, mean) in kinds(&self.plan.faults) {
            let first = self.schedule.around(mean);
            self.schedule.after(first, Event::Fault(Fault::Strike(kind)));
        }
    }

    pub(super) fn fault(&mut self, fault: Fault) {
        if self.healed {
            return;
        }
        match fault {
            Fault::Strike(kind) => {
                self.strike(kind);
                let mean = kinds(&self.plan.faults).into_iter().find(|(other, _)| *other as u8 == kind as u8);
                let (_, mean) = mean.expect("only what the plan has strikes");
                let next = self.schedule.around(mean);
                self.schedule.after(next, Event::Fault(Fault::Strike(kind)));
                if self.schedule.chance(0.3) {
                    let present = kinds(&self.plan.faults);
                    let (kind, _) = present[self.schedule.pick(present.len())];
                    let soon = self.schedule.between(Duration::ZERO, AFTERSHOCK);
                    self.schedule.after(soon, Event::Fault(Fault::Aftershock(kind)));
                }
            }
            Fault::Aftershock(kind) => self.strike(kind),
            Fault::Start(host) => self.start(host),
            Fault::Resume(host) => self.resume(host),
            Fault::Unblock(directions) => {
                for (from, to) in directions {
                    self.network.unblock(&mut self.schedule, from, to);
                }
            }
        }
    }

    fn strike(&mut self, kind: Kind) {
        let hosts = self.hosts.len();
        let victim = self.schedule.pick(hosts);
        match kind {
            Kind::Crash => self.crash_and_restart(victim),
            Kind::PowerCut => {
                self.report.power_cuts += 1;
                self.history.note(None, self.schedule.now, || "power cut".into());
                (0..hosts).for_each(|host| self.crash_and_restart(host));
            }
            Kind::NewMap => {
                self.report.new_maps += 1;
                self.newest_epoch = self.newest_epoch.next();
                self.hosts[victim].map.epoch = self.newest_epoch;
                self.history.note(None, self.schedule.now, || {
                    format!("n{} is given the map of epoch {}", victim + 1, self.newest_epoch)
                });
                self.crash_and_restart(victim);
            }
            Kind::Reset => {
                let other = self.schedule.pick(hosts);
                if other != victim {
                    self.report.resets += 1;
                    self.history.note(None, self.schedule.now, || format!("reset n{} n{}", victim + 1, other + 1));
                    self.network.reset(&mut self.schedule, victim, other);
                }
            }
            Kind::Partition => {
                let sides: Vec<bool> = (0..hosts).map(|_| self.schedule.chance(0.5)).collect();
                let apart = |from: usize, to: usize| sides[from] != sides[to];
                self.block_all(apart);
            }
            Kind::OneWay => {
                let deaf = self.schedule.chance(0.5);
                let touched: Vec<bool> = (0..hosts).map(|_| self.schedule.chance(0.7)).collect();
                self.block_all(|from, to| {
                    let (hit, other) = if deaf { (to, from) } else { (from, to) };
                    hit == victim && touched[other]
                });
            }
            Kind::Pause => self.pause(victim),
            Kind::BackInTime => self.back_in_time(victim),
            Kind::Clock => {
                self.report.clock_jumps += 1;
                let wild = self.plan.wild_clocks && self.schedule.chance(0.3);
                self.set_clock(victim, wild);
            }
        }
    }

    fn block_all(&mut self, blocked: impl Fn(HostIndex, HostIndex) -> bool) {
        let hosts = 0..self.hosts.len();
        let pairs = hosts.clone().flat_map(|from| hosts.clone().map(move |to| (from, to)));
        let directions: Vec<_> = pairs.filter(|(from, to)| from != to && blocked(*from, *to)).collect();
        if directions.is_empty() {
            return;
        }
        self.report.partitions += 1;
        self.history.note(None, self.schedule.now, || {
            let named: Vec<_> = directions.iter().map(|(from, to)| format!("n{}>n{}", from + 1, to + 1)).collect();
            format!("blocked {}", named.join(" "))
        });
        for (from, to) in &directions {
            self.network.block(&mut self.schedule, *from, *to);
        }
        let lasts = outage(&mut self.schedule);
        self.schedule.after(lasts, Event::Fault(Fault::Unblock(directions)));
    }

    fn crash_and_restart(&mut self, host: HostIndex) {
        if self.hosts[host].machine.is_none() {
            return;
        }
        self.report.crashes += 1;
        self.crash(host);
        let down = outage(&mut self.schedule);
        self.schedule.after(down, Event::Fault(Fault::Start(host)));
    }

    /// The first time an image is taken, the second time it is put back.
    fn back_in_time(&mut self, victim: HostIndex) {
        let Some((host, image)) = self.image.take() else {
            let storage = &self.hosts[victim].storage;
            if self.went_back.is_none() && storage.unsynced() == 0 {
                self.image = Some((victim, storage.image()));
            }
            return;
        };
        if self.hosts[host].machine.is_none() || self.went_back.is_some() {
            return;
        }
        self.report.crashes += 1;
        self.crash(host);
        self.put_back(host, &image);
        let down = outage(&mut self.schedule);
        self.schedule.after(down, Event::Fault(Fault::Start(host)));
    }

    fn pause(&mut self, host: HostIndex) {
        if self.hosts[host].machine.is_none() || self.hosts[host].paused {
            return;
        }
        self.report.pauses += 1;
        self.history.note(None, self.schedule.now, || format!("n{} stands still", host + 1));
        self.hosts[host].paused = true;
        let lasts = outage(&mut self.schedule);
        self.schedule.after(lasts, Event::Fault(Fault::Resume(host)));
    }

    /// Sets a clock: within what is allowed, or far off.
    pub(super) fn set_clock(&mut self, host: HostIndex, wild: bool) {
        let within = if wild { WILD_JUMP } else { self.plan.clock_error };
        let most = i64::try_from(within.as_micros()).expect("clock errors are small");
        let error_us = self.schedule.rng.random_range(-most..=most);
        self.hosts[host].clock.set(self.schedule.now, error_us);
        self.history.note(None, self.schedule.now, || format!("n{} is {error_us} µs off", host + 1));
    }

    /// Ends all faults.
    pub(super) fn heal(&mut self) {
        self.healed = true;
        self.plan.refusals = 0.0;
        self.network.be_reliable();
        self.plan.stalls = 0.0;
        self.history.note(None, self.schedule.now, || "the faults are over".into());
        for host in 0..self.hosts.len() {
            self.set_clock(host, false);
            for peer in (0..self.hosts.len()).filter(|peer| *peer != host) {
                self.network.unblock(&mut self.schedule, host, peer);
            }
            if self.hosts[host].machine.is_none() {
                self.start(host);
            }
            if self.hosts[host].paused {
                self.resume(host);
            }
        }
    }
}
