//! A baseline: SWIM as its paper has it (Das, Gupta, Motivala 2002), without Lifeguard.
//!
//! Everybody knows everybody. Each period one member, in the order of a list that is
//! shuffled after each pass (section 4.3), is pinged, through three others if it does not
//! answer, and suspected if that fails too. A suspect that does not refute within a fixed
//! time is down (section 4.2). News travels on pings and acks, a bounded number of times
//! each (section 4.1). There is no local health, no time that shrinks with confirmations,
//! and a suspect learns of its suspicion by gossip only.
//!
//! Beyond the paper: a member that is held for down and speaks is told so, or else nobody
//! who was away would ever come back; a restarted process announces itself.

use std::time::Duration;

use rand::seq::{IndexedRandom, SliceRandom};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::protocol::membership::MembershipCounters;
use crate::types::{Epoch, Health, Incarnation, Life, Load, Moment};
use crate::wire::{Datagram, Probe, ProbeId};

use super::member::{HostIndex, Input, InputOf, Member, Output, OutputOf, Setup, node_of};

const PERIOD: Duration = Duration::from_millis(500);
const TIMEOUT: Duration = Duration::from_millis(200);
/// Members that are asked to ping in the place of this one.
const PROXIES: usize = 3;
/// A suspect has this many periods, times the decimal logarithm of the members.
const SUSPICION_FACTOR: f64 = 5.0;
/// News is told this many times, times the decimal logarithm of the members.
const TELL_FACTOR: f64 = 4.0;
/// Pieces of news on one datagram.
const CARRIED: usize = 16;
/// What a piece of news adds to a datagram: a node, its life, its health.
const NEWS_BYTES: usize = 7;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct News {
    member: HostIndex,
    life: Life,
    health: Health,
}

/// A probe with the news that it carries.
#[derive(Debug)]
pub(super) struct Carrier {
    probe: Probe,
    news: Vec<News>,
}

#[derive(Clone, Copy)]
struct Known {
    life: Life,
    health: Health,
}

/// A ping on behalf of another.
struct Relay {
    id: ProbeId,
    asker: HostIndex,
    asked: ProbeId,
    until: Moment,
}

struct Ping {
    id: ProbeId,
    member: HostIndex,
    answered: bool,
    /// When others are asked; none once they were.
    proxies_at: Option<Moment>,
}

/// One member of the group.
pub(super) struct PlainSwim {
    me: HostIndex,
    life: Life,
    known: Vec<Known>,
    order: Vec<HostIndex>,
    at: usize,
    ping: Option<Ping>,
    period_ends: Moment,
    suspects: Vec<(HostIndex, Moment)>,
    relays: Vec<Relay>,
    /// With how often each is told still.
    news: Vec<(News, u32)>,
    next_id: u32,
    chance: ChaCha8Rng,
    counters: MembershipCounters,
}

type Outputs = Vec<OutputOf<PlainSwim>>;

impl PlainSwim {
    fn members(&self) -> f64 {
        self.known.len() as f64
    }

    fn suspicion(&self) -> Duration {
        PERIOD.mul_f64(SUSPICION_FACTOR * self.members().log10().max(1.0))
    }

    fn tell(&mut self, news: News) {
        let times = (TELL_FACTOR * (self.members() + 1.0).log10()).ceil() as u32;
        self.news.retain(|(other, _)| other.member != news.member);
        self.news.push((news, times));
    }

    /// Sends a probe with the news that was told least.
    fn send(&mut self, to: HostIndex, probe: Probe, outputs: &mut Outputs) {
        let mut news = Vec::new();
        // Whoever is held for down and yet speaks must hear of it, to come back.
        let known = self.known[to as usize];
        if known.health == Health::Down {
            news.push(News { member: to, life: known.life, health: known.health });
        }
        self.news.sort_by_key(|(_, left)| std::cmp::Reverse(*left));
        for (told, left) in self.news.iter_mut().take(CARRIED) {
            news.push(*told);
            *left -= 1;
        }
        self.news.retain(|(_, left)| *left > 0);
        outputs.push(Output::Datagram { to, datagram: Carrier { probe, news } });
    }

    fn ping_of(&mut self) -> (ProbeId, Probe) {
        self.next_id += 1;
        let id = ProbeId(self.next_id);
        (id, Probe::Ping { id, life: self.life, accused: None, neighbor: true })
    }

    fn begin_period(&mut self, now: Moment, outputs: &mut Outputs) {
        self.period_ends = now.plus(PERIOD);
        if let Some(ping) = self.ping.take().filter(|ping| !ping.answered) {
            self.counters.probes_failed += 1;
            let known = self.known[ping.member as usize];
            if known.health == Health::Alive {
                self.counters.suspicions += 1;
                self.learn(now, News { member: ping.member, life: known.life, health: Health::Suspect }, outputs);
            }
        }
        for _ in 0..self.order.len() {
            if self.at == self.order.len() {
                self.order.shuffle(&mut self.chance);
                self.at = 0;
            }
            let member = self.order[self.at];
            self.at += 1;
            if self.known[member as usize].health != Health::Down {
                let (id, ping) = self.ping_of();
                self.ping = Some(Ping { id, member, answered: false, proxies_at: Some(now.plus(TIMEOUT)) });
                self.counters.probes += 1;
                return self.send(member, ping, outputs);
            }
        }
    }

    fn ask_proxies(&mut self, outputs: &mut Outputs) {
        let Some(ping) = self.ping.as_mut() else { return };
        ping.proxies_at = None;
        if ping.answered {
            return;
        }
        let (id, member) = (ping.id, ping.member);
        let fit = |host: &&HostIndex| **host != member && self.known[**host as usize].health != Health::Down;
        let fitting: Vec<HostIndex> = self.order.iter().filter(fit).copied().collect();
        let proxies: Vec<HostIndex> = fitting.choose_multiple(&mut self.chance, PROXIES).copied().collect();
        for proxy in proxies {
            self.counters.indirect_probes += 1;
            self.send(proxy, Probe::PingFor { id, subject: node_of(member), accused: None }, outputs);
        }
    }

    /// Takes in news, and tells it on if it is some (section 4.2).
    fn learn(&mut self, now: Moment, news: News, outputs: &mut Outputs) {
        if news.member == self.me {
            if news.health != Health::Alive {
                if news.life >= self.life {
                    self.life = news.life.refuted();
                }
                self.counters.refutations += 1;
                self.tell(News { member: self.me, life: self.life, health: Health::Alive });
            }
            return;
        }
        let known = self.known[news.member as usize];
        let is_news = match (news.health, known.health) {
            (Health::Alive, _) => news.life > known.life,
            (Health::Suspect, Health::Alive) => news.life >= known.life,
            (Health::Suspect, _) => news.life > known.life,
            (Health::Down, Health::Down) => news.life > known.life,
            // What is said of a life before this one is over.
            (Health::Down, _) => news.life >= known.life,
        };
        if !is_news {
            return;
        }
        self.known[news.member as usize] = Known { life: news.life, health: news.health };
        self.suspects.retain(|(suspect, _)| *suspect != news.member);
        if news.health == Health::Suspect {
            self.suspects.push((news.member, now.plus(self.suspicion())));
        }
        if known.health == Health::Suspect && news.health == Health::Alive {
            self.counters.suspicions_refuted += 1;
        }
        self.tell(news);
        let down = news.health == Health::Down;
        outputs.push(Output::Own { member: news.member, life: news.life, health: news.health });
        if down != (known.health == Health::Down) {
            let health = if down { Health::Down } else { Health::Alive };
            outputs.push(Output::Cluster { member: news.member, life: news.life, health });
        }
    }

    fn take(&mut self, now: Moment, from: HostIndex, carrier: Carrier, outputs: &mut Outputs) {
        for news in carrier.news {
            self.learn(now, news, outputs);
        }
        match carrier.probe {
            Probe::Ping { id, .. } => {
                let ack = Probe::Ack { id, life: self.life, load: Load::Normal, neighbor: true };
                self.send(from, ack, outputs);
            }
            Probe::Ack { id, life, .. } => {
                if let Some(ping) = self.ping.as_mut().filter(|ping| ping.id == id) {
                    ping.answered = true;
                }
                if let Some(at) = self.relays.iter().position(|relay| relay.id == id) {
                    let relay = self.relays.swap_remove(at);
                    let answer = Probe::AckFor { id: relay.asked, subject: node_of(from), life };
                    self.send(relay.asker, answer, outputs);
                }
            }
            Probe::PingFor { id: asked, subject, .. } => {
                let (id, ping) = self.ping_of();
                self.relays.push(Relay { id, asker: from, asked, until: now.plus(PERIOD) });
                self.send(super::member::host_of(subject), ping, outputs);
            }
            Probe::AckFor { id, .. } => {
                if let Some(ping) = self.ping.as_mut().filter(|ping| ping.id == id) {
                    ping.answered = true;
                }
            }
            Probe::NackFor { .. } => {}
        }
    }

    fn tick(&mut self, now: Moment, outputs: &mut Outputs) {
        self.relays.retain(|relay| relay.until > now);
        while let Some(at) = self.suspects.iter().position(|(_, until)| *until <= now) {
            let member = self.suspects.swap_remove(at).0;
            self.counters.verdicts_down += 1;
            let life = self.known[member as usize].life;
            self.learn(now, News { member, life, health: Health::Down }, outputs);
        }
        if self.ping.as_ref().and_then(|ping| ping.proxies_at).is_some_and(|at| at <= now) {
            self.ask_proxies(outputs);
        }
        if self.period_ends <= now {
            self.begin_period(now, outputs);
        }
    }
}

impl Member for PlainSwim {
    type Datagram = Carrier;
    type Frame = std::convert::Infallible;

    const LINKED: bool = false;
    const BROADCASTS: bool = false;

    fn start(now: Moment, setup: &Setup) -> PlainSwim {
        let mut chance = ChaCha8Rng::seed_from_u64(setup.seed);
        let count = u32::try_from(setup.roster.len()).expect("few enough to simulate");
        let mut order: Vec<HostIndex> = (0..count).filter(|host| *host != setup.me).collect();
        order.shuffle(&mut chance);
        let unheard = Known { life: Life::begun(Incarnation(1)), health: Health::Alive };
        let mut swim = PlainSwim {
            me: setup.me,
            life: Life::begun(setup.incarnation),
            known: vec![unheard; setup.roster.len()],
            order,
            at: 0,
            ping: None,
            period_ends: now.plus(Duration::from_micros(chance.random_range(0..500_000))),
            suspects: Vec::new(),
            relays: Vec::new(),
            news: Vec::new(),
            next_id: 0,
            chance,
            counters: MembershipCounters::default(),
        };
        if setup.incarnation > Incarnation(1) {
            swim.tell(News { member: swim.me, life: swim.life, health: Health::Alive });
        }
        swim
    }

    fn handle(&mut self, now: Moment, input: InputOf<PlainSwim>, outputs: &mut Outputs) {
        match input {
            Input::Datagram { from, datagram } => self.take(now, from, datagram, outputs),
            Input::Tick => self.tick(now, outputs),
            _ => {}
        }
    }

    fn next_timeout(&self) -> Moment {
        let proxies = self.ping.as_ref().and_then(|ping| ping.proxies_at);
        let suspects = self.suspects.iter().map(|(_, until)| *until);
        suspects.chain(proxies).chain([self.period_ends]).min().expect("a period always ends")
    }

    fn datagram_bytes(carrier: &Carrier) -> usize {
        Datagram { epoch: Epoch(1), probe: carrier.probe }.encode().len() + 1 + carrier.news.len() * NEWS_BYTES
    }

    fn measured(frame: Self::Frame) -> (Self::Frame, usize) {
        match frame {}
    }

    fn spreads(frame: &Self::Frame) -> bool {
        match *frame {}
    }

    fn active(&self) -> impl Iterator<Item = HostIndex> + '_ {
        self.order.iter().copied()
    }

    fn passive(&self) -> impl Iterator<Item = HostIndex> + '_ {
        std::iter::empty()
    }

    fn capacity(&self) -> (usize, usize) {
        (self.order.len(), self.order.len())
    }

    fn holds_down(&self, member: HostIndex) -> bool {
        self.known[member as usize].health == Health::Down
    }

    fn counters(&self) -> MembershipCounters {
        self.counters
    }

    fn state_entries(&self) -> usize {
        self.order.len() + self.suspects.len() + self.relays.len() + self.news.len()
    }

    fn check_invariants(&self) {
        let suspects = self.known.iter().filter(|known| known.health == Health::Suspect).count();
        assert_eq!(suspects, self.suspects.len(), "each suspect has its time");
    }
}
