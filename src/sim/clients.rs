//! Clients in closed loops: each asks one question at a time, of any server that is up.

use std::time::Duration;

use bytes::Bytes;
use rand::Rng;

use crate::protocol::{Input, RequestToken};
use crate::types::{self, ConsistencyLevel, Expiry, Outcome, Request, Response, Stamp, WallTime};

use super::checks::Circumstances;
use super::clock::true_wall;
use super::history::{Check, brief_operation};
use super::host::Letter;
use super::operation::{Kind, Operation, Stage, promised};
use super::schedule::{Event, HostIndex};
use super::world::World;

/// A client.
#[derive(Default)]
pub(super) struct Client {
    pub(super) asking: Option<Operation>,
    /// What it wrote last, to have it confirmed.
    wrote: Option<(usize, Stamp)>,
    /// What it asks before anything else; used for the last reads.
    errands: Vec<(usize, HostIndex)>,
}

impl World {
    /// A client asks its next question, if it has one.
    pub(super) fn ask(&mut self, client: usize) {
        if self.clients[client].asking.is_some() {
            return;
        }
        let errand = self.clients[client].errands.pop();
        let operation = match (errand, self.stage) {
            (Some((key, host)), _) => self.operation(key, Kind::Get, ConsistencyLevel::Quorum, host),
            (None, Stage::Last) => return,
            (None, _) => {
                let up: Vec<HostIndex> =
                    (0..self.hosts.len()).filter(|host| self.hosts[*host].machine.is_some()).collect();
                if up.is_empty() {
                    return self.schedule.after(Duration::from_millis(50), Event::Ask { client });
                }
                let host = up[self.schedule.pick(up.len())];
                let (key, kind) = self.draw_kind(client);
                let level = self.draw_level();
                self.operation(key, kind, level, host)
            }
        };
        self.report.operations += 1;
        self.history.began(&operation);
        let request =
            Request { operation: self.wire_operation(&operation), consistency: operation.level, timeout: None };
        let Operation { number, host, .. } = operation;
        self.clients[client].asking = Some(operation);
        let patience = self.plan.request_timeout * 2;
        self.schedule.after(patience, Event::GiveUp { client, operation: number });
        self.deliver(host, Letter::Input(Input::Request { token: RequestToken(number), request }));
    }

    fn operation(&mut self, key: usize, kind: Kind, level: ConsistencyLevel, host: HostIndex) -> Operation {
        self.next_operation += 1;
        Operation {
            number: self.next_operation,
            host,
            key,
            kind,
            level,
            needed: promised(level, self.replicas),
            begun: self.schedule.now,
            floors: self.history.keys[key].floors,
            stage: self.stage,
        }
    }

    fn draw_kind(&mut self, client: usize) -> (usize, Kind) {
        let key = self.schedule.pick(self.plan.keys);
        if let Some((key, stamp)) = self.clients[client].wrote.take()
            && self.schedule.chance(0.1)
        {
            let replicas = self.schedule.rng.random_range(1..=self.replicas);
            return (key, Kind::Confirm { stamp, replicas: u8::try_from(replicas).expect("at most 7") });
        }
        if self.schedule.chance(self.plan.reads) {
            return (key, if self.schedule.chance(0.2) { Kind::Head } else { Kind::Get });
        }
        let kind = match self.schedule.pick(20) {
            0..=3 => Kind::Delete,
            4 if self.plan.expiring > 0.0 => Kind::SetExpiry { expiry: self.draw_expiry() },
            _ => Kind::Put { value: self.draw_value(), expiry: self.draw_expiry() },
        };
        (key, kind)
    }

    fn draw_value(&mut self) -> Bytes {
        let length = self.schedule.rng.random_range(0..=self.plan.value_bytes);
        let mut value = format!("v{}.", self.next_operation + 1).into_bytes();
        value.resize(value.len().max(length), b'-');
        Bytes::from(value)
    }

    fn draw_expiry(&mut self) -> Expiry {
        if !self.schedule.chance(self.plan.expiring) {
            return Expiry::Never;
        }
        if self.schedule.chance(0.2) {
            return Expiry::Keep;
        }
        let lasts = self.schedule.rng.random_range(1..=3_000);
        Expiry::At(WallTime(true_wall(self.schedule.now).0 + lasts))
    }

    fn draw_level(&mut self) -> ConsistencyLevel {
        if !self.plan.mixed_levels || self.schedule.chance(0.5) {
            return ConsistencyLevel::Quorum;
        }
        let possible: Vec<ConsistencyLevel> = ConsistencyLevel::ALL_LEVELS
            .into_iter()
            .filter(|level| level.required(self.replicas) <= self.replicas)
            .collect();
        possible[self.schedule.pick(possible.len())]
    }

    fn wire_operation(&self, operation: &Operation) -> types::Operation {
        let key = self.history.keys[operation.key].key.clone();
        match operation.kind.clone() {
            Kind::Get => types::Operation::Get { key },
            Kind::Head => types::Operation::Head { key },
            Kind::Put { value, expiry } => types::Operation::Put { key, value, expiry },
            Kind::Delete => types::Operation::Delete { key },
            Kind::SetExpiry { expiry } => types::Operation::SetExpiry { key, expiry },
            Kind::Confirm { stamp, replicas } => types::Operation::Confirm { key, stamp, replicas },
        }
    }

    /// A node answers a request.
    pub(super) fn reply(&mut self, token: RequestToken, outcome: &Outcome) {
        let is_asking = |client: &Client| client.asking.as_ref().is_some_and(|asking| asking.number == token.0);
        // A client that has given up does not hear its answer.
        let Some(client) = self.clients.iter().position(is_asking) else { return };
        let operation = self.clients[client].asking.take().expect("it is asking");
        match outcome {
            Ok(_) => self.report.acknowledged += 1,
            Err(types::Failure::NotApplied(_)) => self.report.refused += 1,
            Err(types::Failure::InDoubt { .. }) => self.report.in_doubt += 1,
            Err(types::Failure::TimedOut { .. }) => self.report.timed_out += 1,
        }
        if let Ok(Response::Written(reply)) = outcome {
            self.clients[client].wrote = Some((operation.key, reply.stamp));
        }
        let key = &self.history.keys[operation.key].key;
        let replicas = self.hosts[operation.host].map.replicas_of(key);
        let durable = replicas.iter().map(|id| {
            let holder = self.hosts.iter().find(|host| host.id == *id).expect("replicas are members");
            holder.durable.get(key).copied()
        });
        let circumstances = Circumstances {
            now: self.schedule.now,
            asked_at: true_wall(operation.begun),
            answered_at: true_wall(self.schedule.now),
            clock_error_ms: u64::try_from(self.plan.furthest_clock().as_millis()).expect("it is small"),
            replicas: replicas.len(),
            durable: durable.collect(),
        };
        self.history.answered(&operation, outcome, &circumstances);
        self.think(client);
    }

    fn think(&mut self, client: usize) {
        let pause = self.schedule.around(self.plan.think);
        self.schedule.after(pause, Event::Ask { client });
    }

    /// A client has waited long enough: what it asked is in doubt for ever.
    pub(super) fn give_up(&mut self, client: usize, number: u64) {
        if self.clients[client].asking.as_ref().is_some_and(|asking| asking.number == number) {
            self.lose(client, "no answer");
        }
    }

    /// The server that these clients had asked has died.
    pub(super) fn lose_answers(&mut self, host: HostIndex) {
        for client in 0..self.clients.len() {
            if self.clients[client].asking.as_ref().is_some_and(|asking| asking.host == host) {
                self.lose(client, "connection lost");
            }
        }
    }

    fn lose(&mut self, client: usize, why: &str) {
        let Some(operation) = self.clients[client].asking.take() else { return };
        self.report.unanswered += 1;
        let (now, key) = (self.schedule.now, Some(operation.key));
        self.history.note(key, now, || format!("#{}: {why}", operation.number));
        if operation.stage != Stage::Faults {
            let what = format!("{}: {why}", brief_operation(&operation));
            self.history.violated(Check::Liveness, now, key, what);
        }
        self.think(client);
    }

    /// Every key is read once more, from several servers.
    pub(super) fn last_reads(&mut self) {
        self.stage = Stage::Last;
        let hosts = self.hosts.len();
        for key in 0..self.plan.keys {
            for host in 0..hosts.min(3) {
                let client = self.schedule.pick(self.clients.len());
                self.clients[client].errands.push((key, (key + host) % hosts));
            }
        }
        for client in 0..self.clients.len() {
            self.schedule.after(Duration::ZERO, Event::Ask { client });
        }
    }
}
