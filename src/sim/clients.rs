//! Clients in closed loops: each asks one question at a time, of any server that is up.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::protocol::{Input, RequestToken};
use crate::types::{
    self, CausalContext, ConsistencyLevel, NodeId, Outcome, RequestPath, Response, Session, Stamp, WriteReply,
};

use super::checks::Circumstances;
use super::clock::true_wall;
use super::history::{Check, brief_operation};
use super::host::Letter;
use super::operation::{Kind, Operation, Stage};
use super::schedule::{Event, HostIndex};
use super::world::World;

/// A client.
#[derive(Default)]
pub(super) struct Client {
    pub(super) asking: Option<Operation>,
    /// What it wrote last, to have it confirmed.
    pub(super) wrote: Option<(usize, Stamp)>,
    /// What it was given when it last read each key.
    pub(super) contexts: BTreeMap<usize, CausalContext>,
    pub(super) session: Option<Seen>,
    /// What it asks before anything else; used for the last reads.
    pub(super) errands: Vec<(usize, HostIndex)>,
}

/// What a client has seen below quorum and must not see less than.
#[derive(Clone, Default)]
pub(super) struct Seen {
    /// As servers are told.
    pub(super) names: Session,
    /// By key.
    pub(super) noted: BTreeMap<usize, Vec<Stamp>>,
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
                self.draw(client, host)
            }
        };
        self.report.operations += 1;
        self.history.began(&operation);
        let request = self.wire_request(&operation);
        let Operation { number, host, .. } = operation;
        self.clients[client].asking = Some(operation);
        let patience = self.patience();
        self.schedule.after(patience, Event::GiveUp { client, operation: number });
        self.deliver(host, Letter::Input(Input::Request { token: RequestToken(number), request }));
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
        let outcome = &self.unexplained(&operation, outcome.clone());
        self.remember(client, &operation, outcome);
        let key = &self.history.keys[operation.key].key;
        let replicas = self.hosts[operation.host].map.replicas_of(key).to_vec();
        // What a disk that went back in time had acknowledged is not asked for.
        let went_back = self.went_back.map(|host| self.hosts[host].id);
        let gone = replicas.iter().filter(|replica| went_back == Some(**replica)).count();
        let stamp = match (&operation.kind, outcome) {
            (Kind::Confirm { stamp, .. }, _) | (_, Ok(Response::Written(WriteReply { stamp, .. }))) => Some(*stamp),
            _ => None,
        };
        let holds = |replica: &&NodeId| {
            let there = stamp.is_some_and(|stamp| self.hosts[replica.number() as usize - 1].holds(key, stamp));
            went_back != Some(**replica) && there
        };
        let circumstances = Circumstances {
            now: self.schedule.now,
            asked_at: true_wall(operation.begun),
            answered_at: true_wall(self.schedule.now),
            clock_error_ms: u64::try_from(self.plan.furthest_clock().as_millis()).expect("it is small"),
            replicas: replicas.len(),
            holding: replicas.iter().filter(holds).count() + gone,
            gone,
        };
        self.history.answered(&operation, outcome, &circumstances);
        self.answered_broadly(&operation, outcome, &circumstances);
        self.think(client);
    }

    /// The answer itself; the way it took must be told if that was asked for.
    fn unexplained(&mut self, operation: &Operation, outcome: Outcome) -> Outcome {
        let (response, path) = outcome?.unexplained();
        let key = &self.history.keys[operation.key].key;
        let replicas = self.hosts[operation.host].map.replicas_of(key);
        let told = |path: &RequestPath| path.replicas == replicas && !path.steps.is_empty();
        if path.is_some() != operation.explain || !path.as_ref().is_none_or(told) {
            let what = format!("{} was explained as {path:?}", brief_operation(operation));
            self.history.violated(Check::Liveness, self.schedule.now, Some(operation.key), what);
        }
        Ok(response)
    }

    /// What a client keeps of an answer, as a front end would.
    fn remember(&mut self, client: usize, operation: &Operation, outcome: &Outcome) {
        let key = operation.key;
        if let Some(op) = operation.op {
            let again = match outcome {
                Ok(_) => self.schedule.chance(0.1),
                Err(types::Failure::NotApplied(types::Refusal::Fenced)) => self.schedule.chance(0.3),
                Err(_) => true,
            };
            if again {
                self.keep_named(op);
            }
        }
        let partition = self.hosts[operation.host].map.partition_of(&self.history.keys[key].key);
        let majority = self.replicas / 2 + 1;
        let client = &mut self.clients[client];
        let mut seen = Vec::new();
        match outcome {
            Ok(Response::Written(reply)) if operation.kind != Kind::Truncate => {
                client.wrote = Some((key, reply.stamp));
                if usize::from(reply.acknowledged) < majority {
                    seen.push(reply.stamp);
                }
            }
            Ok(Response::Read(Some(reply))) => {
                if operation.kind == Kind::Get {
                    client.contexts.insert(key, reply.context.clone());
                }
                if operation.needed < majority {
                    seen.push(reply.stamp);
                    seen.extend(reply.siblings.iter().map(|sibling| sibling.stamp));
                }
            }
            Ok(Response::Head(Some(summary))) if operation.needed < majority => seen.push(summary.stamp),
            _ => {}
        }
        let Some(session) = &mut client.session else { return };
        for stamp in seen {
            if session.names.note(partition, stamp.dot).is_err() {
                *session = Seen::default();
            } else {
                session.noted.entry(key).or_default().push(stamp);
            }
        }
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
        if let Some(op) = operation.op {
            self.keep_named(op);
        }
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
                let host = (key + host) % hosts;
                if !self.hosts[host].fenced {
                    self.clients[client].errands.push((key, host));
                }
            }
        }
        for client in 0..self.clients.len() {
            self.schedule.after(Duration::ZERO, Event::Ask { client });
        }
    }
}
