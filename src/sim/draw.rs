//! What clients ask next.

use std::time::Duration;

use bytes::Bytes;
use rand::Rng;

use crate::types::{self, CausalContext, ConsistencyLevel, Expiry, Request, VersionVector, WallTime};

use super::clock::true_wall;
use super::named::op_id;
use super::operation::{Kind, Operation, Stage, promised};
use super::schedule::HostIndex;
use super::world::World;

/// Named writes that are kept in mind to be sent again, at most.
const OPEN_NAMED: usize = 16;

impl World {
    /// What a client asks next of a host.
    pub(super) fn draw(&mut self, client: usize, host: HostIndex) -> Operation {
        if let Some(op) = self.draw_named() {
            let (key, write) = (self.history.named[op].key, self.history.named[op].kind.clone());
            let kind = if self.schedule.chance(0.25) { Kind::Resolve } else { write };
            let level = self.draw_level(client, true);
            return Operation { op: Some(op), ..self.operation(key, kind, level, host) };
        }
        let (key, kind) = self.draw_kind(client);
        let level = self.draw_level(client, kind.writes());
        let mut operation = self.operation(key, kind, level, host);
        let plain = self.history.keys[key].siblings.is_none();
        let may_be_named = plain && matches!(operation.kind, Kind::Put { .. } | Kind::Delete { .. });
        if may_be_named && self.plan.op_ids > 0.0 && self.schedule.chance(self.plan.op_ids) {
            let op = self.history.name(key, operation.kind.clone());
            operation.op = Some(op);
            // Somebody else sends it too, before it is known what became of it.
            if self.schedule.chance(0.2) {
                self.keep_named(op);
            }
        }
        let explicable = matches!(operation.kind, Kind::Get | Kind::Head | Kind::Put { .. } | Kind::Delete { .. });
        operation.explain = explicable && self.plan.explained > 0.0 && self.schedule.chance(self.plan.explained);
        let reads = matches!(operation.kind, Kind::Get | Kind::Head | Kind::SetExpiry { .. });
        if let (true, Some(session)) = (reads, &self.clients[client].session) {
            let partition = self.hosts[host].map.partition_of(&self.history.keys[key].key);
            operation.session = session.names.in_partition(partition);
            operation.noted = session.noted.get(&key).cloned().unwrap_or_default();
        }
        if matches!(operation.kind, Kind::Scan { .. }) {
            operation.all_floors = self.history.keys.iter().map(|key| key.floors).collect();
        }
        operation
    }

    pub(super) fn operation(&mut self, key: usize, kind: Kind, level: ConsistencyLevel, host: HostIndex) -> Operation {
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
            op: None,
            session: VersionVector::default(),
            noted: Vec::new(),
            explain: false,
            all_floors: Vec::new(),
        }
    }

    /// A write with an op-id whose outcome is not known, or was not at some time.
    fn draw_named(&mut self) -> Option<usize> {
        if self.open_named.is_empty() || !self.schedule.chance(0.3) {
            return None;
        }
        let at = self.schedule.pick(self.open_named.len());
        match self.schedule.chance(0.3) {
            true => Some(self.open_named[at]),
            false => Some(self.open_named.swap_remove(at)),
        }
    }

    /// A named write is to be sent again some time.
    pub(super) fn keep_named(&mut self, op: usize) {
        if !self.open_named.contains(&op) && self.open_named.len() < OPEN_NAMED {
            self.open_named.push(op);
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
        if self.plan.scans > 0.0 && self.schedule.chance(self.plan.scans) {
            let limit = self.schedule.rng.random_range(1..=20);
            return (key, if self.schedule.chance(0.2) { Kind::History } else { Kind::Scan { limit } });
        }
        let truncates = self.plan.truncations > 0.0 && self.stage == Stage::Faults;
        if truncates && self.schedule.chance(self.plan.truncations) {
            return (key, Kind::Truncate);
        }
        if self.schedule.chance(self.plan.reads) {
            return (key, if self.schedule.chance(0.2) { Kind::Head } else { Kind::Get });
        }
        let context = self.draw_context(client, key);
        let kind = match self.schedule.pick(20) {
            0..=3 => Kind::Delete { context },
            4 if self.plan.expiring > 0.0 => Kind::SetExpiry { expiry: self.draw_expiry() },
            _ => Kind::Put { value: self.draw_value(), expiry: self.draw_expiry(), context },
        };
        (key, kind)
    }

    /// What the client hands in: what it was given when it read the key last, or nothing.
    fn draw_context(&mut self, client: usize, key: usize) -> CausalContext {
        match self.clients[client].contexts.get(&key) {
            Some(context) if self.schedule.chance(0.6) => context.clone(),
            _ => CausalContext::default(),
        }
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

    fn draw_level(&mut self, client: usize, writes: bool) -> ConsistencyLevel {
        let possible = |level: &ConsistencyLevel| {
            let meant = writes || *level != ConsistencyLevel::Any;
            meant && level.required(self.replicas) <= self.replicas
        };
        if self.clients[client].session.is_some() && self.schedule.chance(0.8) {
            let low = [ConsistencyLevel::One, ConsistencyLevel::One, ConsistencyLevel::Two, ConsistencyLevel::Any];
            let low: Vec<ConsistencyLevel> = low.into_iter().filter(possible).collect();
            return low[self.schedule.pick(low.len())];
        }
        if !self.plan.mixed_levels || self.schedule.chance(0.5) {
            return ConsistencyLevel::Quorum;
        }
        let possible: Vec<ConsistencyLevel> = ConsistencyLevel::ALL_LEVELS.into_iter().filter(possible).collect();
        possible[self.schedule.pick(possible.len())]
    }

    /// The request that a server is sent for it.
    pub(super) fn wire_request(&self, operation: &Operation) -> Request {
        let key = self.history.key_of(operation.key).clone();
        let partitions = self.plan.partitions;
        let namespace = key.namespace();
        let asked = match operation.kind.clone() {
            Kind::Get => types::Operation::Get { key },
            Kind::Head => types::Operation::Head { key },
            Kind::Put { value, expiry, context } => types::Operation::Put { key, value, expiry, context },
            Kind::Delete { context } => types::Operation::Delete { key, context },
            Kind::SetExpiry { expiry } => types::Operation::SetExpiry { key, expiry },
            Kind::Confirm { stamp, replicas } => types::Operation::Confirm { key, stamp, replicas },
            Kind::History => types::Operation::History { key },
            Kind::Truncate => types::Operation::Truncate { namespace, at: key.token() },
            Kind::Scan { limit } => {
                let from = partitions.first_token(partitions.partition_of(key.token()));
                types::Operation::Scan { namespace, from, limit }
            }
            Kind::Resolve => {
                let op = op_id(operation.op.expect("it is about one"));
                types::Operation::Resolve { key, op }
            }
        };
        let names = matches!(operation.kind, Kind::Put { .. } | Kind::Delete { .. });
        Request {
            op_id: operation.op.filter(|_| names).map(op_id),
            session: operation.session.clone(),
            explain: operation.explain,
            ..Request::new(asked, operation.level)
        }
    }

    /// How long a client waits for an answer.
    pub(super) fn patience(&self) -> Duration {
        self.plan.request_timeout * 2
    }
}
