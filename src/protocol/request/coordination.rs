//! Any request under way: which kind it is, and when it ends for lack of time.

use crate::types::{
    ClusterMap, Content, Expiry, Key, Moment, NodeId, Operation, Outcome, Partition, ReadReply, Refusal, Request,
    Response, WallTime,
};

use super::amend::{Amendment, Next, not_applied};
use super::confirm::Confirm;
use super::context::{Answer, Context};
use super::count::Count;
use super::forward::Forward;
use super::read::{Found, Read};
use super::scan::Scan;
use super::write::{Change, Write};

/// A client's request under way.
#[derive(Clone, Debug)]
pub struct Coordination {
    deadline: Moment,
    kind: Kind,
}

#[derive(Clone, Debug)]
enum Kind {
    Read { read: Read },
    Write { write: Write, instead: Option<ReadReply> },
    Amend { key: Key, read: Read, amendment: Amendment, needed: usize },
    Scan(Scan),
    Confirm(Confirm),
    Count(Count),
    Forward(Forward),
}

impl Coordination {
    /// Plans a request and asks the first replicas; none if it ended at once, its answer
    /// being among the effects. `forwarded` requests are never handed on again.
    pub fn begin(
        request: Request,
        deadline: Moment,
        forwarded: bool,
        context: &mut Context<'_>,
    ) -> Option<Coordination> {
        if let Err(refusal) = check(&request, context) {
            context.refuse(refusal);
            return None;
        }
        let kind = match coordinator_elsewhere(&request.operation, context) {
            Some(_) if forwarded => {
                let newest = context.map.epoch;
                context.refuse(Refusal::WrongEpoch { newest });
                return None;
            }
            Some(replicas) => Kind::Forward(Forward::new(request, deadline, &replicas)),
            None => plan(request, context),
        };
        let mut coordination = Coordination { deadline, kind };
        let effects_before = context.effects.len();
        coordination.start(context);
        let over = context.effects[effects_before..].iter().any(|effect| matches!(effect, super::Effect::Finish(_)));
        (!over).then_some(coordination)
    }

    fn start(&mut self, context: &mut Context<'_>) {
        match &mut self.kind {
            Kind::Read { read } | Kind::Amend { read, .. } => {
                if let Some(found) = read.start(context) {
                    self.found(found, context);
                }
            }
            Kind::Write { write, .. } => write.start(context),
            Kind::Scan(scan) => scan.start(context),
            Kind::Confirm(confirm) => confirm.start(context),
            Kind::Count(counting) => counting.start(context),
            Kind::Forward(forward) => forward.start(context),
        }
    }

    /// The map has changed: asks whom the new one names.
    pub fn replan(&mut self, context: &mut Context<'_>) {
        match &mut self.kind {
            Kind::Read { read } | Kind::Amend { read, .. } => {
                if let Some(found) = read.replan(context) {
                    self.found(found, context);
                }
            }
            Kind::Write { write, .. } => write.replan(context),
            Kind::Scan(scan) => scan.replan(context),
            Kind::Confirm(_) | Kind::Count(_) | Kind::Forward(_) => {}
        }
    }

    /// The connection to a peer is gone: whatever it was asked, it may have seen or not.
    pub fn lose(&mut self, peer: NodeId, context: &mut Context<'_>) {
        let phase = match &self.kind {
            Kind::Read { read } | Kind::Amend { read, .. } => read.phase(),
            Kind::Write { write, .. } => write.phase(),
            Kind::Scan(scan) => scan.phase(),
            Kind::Confirm(_) | Kind::Count(_) | Kind::Forward(_) => 0,
        };
        self.answer(peer, phase, Answer::Lost, context);
    }

    /// Takes an answer to a question.
    pub fn answer(&mut self, from: NodeId, phase: u8, answer: Answer, context: &mut Context<'_>) {
        match &mut self.kind {
            Kind::Read { read } | Kind::Amend { read, .. } => {
                if let Some(found) = read.answer(from, phase, answer, context) {
                    self.found(found, context);
                }
            }
            Kind::Write { write, instead } => {
                let effects_before = context.effects.len();
                write.answer(from, phase, answer, context);
                answer_instead(instead, effects_before, context);
            }
            Kind::Scan(scan) => scan.answer(from, phase, answer, context),
            Kind::Confirm(confirm) => confirm.answer(from, answer, context),
            Kind::Count(counting) => counting.answer(from, answer, context),
            Kind::Forward(forward) => forward.answer(from, answer, context),
        }
    }

    fn found(&mut self, found: Found, context: &mut Context<'_>) {
        match &self.kind {
            Kind::Amend { key, amendment, needed, .. } => match amendment.proceed(key, found, *needed, context) {
                Next::Finish(outcome) => context.finish(outcome),
                Next::Write(write, instead) => {
                    self.kind = Kind::Write { write: *write, instead };
                    self.start(context);
                }
            },
            _ => context.finish(outcome_of(found, context.now.wall)),
        }
    }

    /// Does what time asks for.
    pub fn wake(&mut self, context: &mut Context<'_>) {
        if self.deadline <= context.now.moment {
            return self.time_out(context);
        }
        match &mut self.kind {
            Kind::Read { read } | Kind::Amend { read, .. } => read.wake(context),
            Kind::Confirm(confirm) => confirm.wake(context),
            Kind::Forward(forward) => forward.wake(context),
            Kind::Write { .. } | Kind::Scan(_) | Kind::Count(_) => {}
        }
    }

    fn time_out(&mut self, context: &mut Context<'_>) {
        match &mut self.kind {
            Kind::Read { read } => context.finish(Err(read.time_out())),
            Kind::Amend { read, .. } => context.finish(Err(not_applied(read.time_out()))),
            Kind::Write { write, .. } => write.fail(context),
            Kind::Scan(scan) => context.finish(Err(scan.time_out())),
            Kind::Confirm(confirm) => confirm.finish(context),
            Kind::Count(counting) => counting.finish(context),
            Kind::Forward(forward) => context.finish(Err(forward.time_out())),
        }
    }

    /// When [`Coordination::wake`] is due.
    pub fn next_timeout(&self) -> Moment {
        let sooner = match &self.kind {
            Kind::Read { read } | Kind::Amend { read, .. } => read.next_timeout(),
            Kind::Confirm(confirm) => confirm.next_timeout(),
            Kind::Forward(forward) => forward.next_timeout(),
            Kind::Write { .. } | Kind::Scan(_) | Kind::Count(_) => None,
        };
        sooner.map_or(self.deadline, |sooner| sooner.min(self.deadline))
    }
}

/// What can be said against a request before anybody is asked.
fn check(request: &Request, context: &Context<'_>) -> Result<(), Refusal> {
    if !context.map.namespaces.contains_key(&request.operation.namespace()) {
        return Err(Refusal::UnknownNamespace);
    }
    let limit = context.settings.max_value_bytes;
    match &request.operation {
        Operation::Put { value, .. } if value.len() > limit => {
            Err(Refusal::ValueTooLong { bytes: value.len() as u64, limit: limit as u64 })
        }
        _ => Ok(()),
    }
}

/// The replicas one of which must coordinate this, if this node is none of them.
/// Only what issues dots needs a replica; scans and counts can be coordinated anywhere.
fn coordinator_elsewhere(operation: &Operation, context: &Context<'_>) -> Option<Vec<NodeId>> {
    let replicas = match operation {
        Operation::Scan { .. } | Operation::Count { .. } => return None,
        Operation::Truncate { at, .. } => context.map.assignment.replicas(context.map.partitions.partition_of(*at)),
        other => context.map.replicas_of(other.key()?),
    };
    (!replicas.contains(&context.me())).then(|| replicas.to_vec())
}

fn plan(request: Request, context: &mut Context<'_>) -> Kind {
    let Request { operation, consistency, .. } = request;
    let needed_in = |map: &ClusterMap, partition| consistency.required(map.assignment.replicas(partition).len());
    match operation {
        Operation::Get { key } => read(key, true, |partition| needed_in(context.map, partition), context.map),
        Operation::Head { key } => read(key, false, |partition| needed_in(context.map, partition), context.map),
        Operation::Put { key, value, expiry } => {
            let partition = context.map.partition_of(&key);
            let needed = needed_in(context.map, partition);
            if let Some(amendment) = Amendment::of_put(&value, expiry) {
                let read = Read::new(key.clone(), partition, needed, false);
                return Kind::Amend { key, read, amendment, needed };
            }
            let change = Change::Record { key, content: Content::Value(value), expires_at: end_of(expiry) };
            write(partition, change, needed, context)
        }
        Operation::Delete { key } => {
            let partition = context.map.partition_of(&key);
            let change = Change::Record { key, content: Content::Tombstone, expires_at: None };
            write(partition, change, needed_in(context.map, partition), context)
        }
        Operation::SetExpiry { key, expiry: Expiry::Keep } => {
            read(key, true, |partition| needed_in(context.map, partition), context.map)
        }
        Operation::SetExpiry { key, expiry } => {
            let partition = context.map.partition_of(&key);
            let needed = needed_in(context.map, partition);
            let read = Read::new(key.clone(), partition, needed, true);
            Kind::Amend { key, read, amendment: Amendment::SetExpiry(end_of(expiry)), needed }
        }
        Operation::Scan { namespace, from, limit } => {
            let partition = context.map.partitions.partition_of(from);
            Kind::Scan(Scan::new(namespace, from, limit, partition, needed_in(context.map, partition)))
        }
        Operation::Confirm { key, stamp, replicas } => Kind::Confirm(Confirm::new(key, stamp, replicas)),
        Operation::Truncate { namespace, at } => {
            let partition = context.map.partitions.partition_of(at);
            let needed = needed_in(context.map, partition);
            write(partition, Change::Truncation { namespace }, needed, context)
        }
        Operation::Count { .. } => Kind::Count(Count::default()),
    }
}

fn read(key: Key, with_value: bool, needed: impl Fn(Partition) -> usize, map: &ClusterMap) -> Kind {
    let partition = map.partition_of(&key);
    Kind::Read { read: Read::new(key, partition, needed(partition), with_value) }
}

fn write(partition: Partition, change: Change, needed: usize, context: &mut Context<'_>) -> Kind {
    Kind::Write { write: Write::new(partition, change, needed, context), instead: None }
}

fn end_of(expiry: Expiry) -> Option<WallTime> {
    match expiry {
        Expiry::At(wall) => Some(wall),
        Expiry::Never | Expiry::Keep => None,
    }
}

/// A write that succeeded answers with what its request is to return.
fn answer_instead(instead: &Option<ReadReply>, effects_before: usize, context: &mut Context<'_>) {
    let Some(reply) = instead else { return };
    for effect in &mut context.effects[effects_before..] {
        if matches!(effect, super::Effect::Finish(Ok(Response::Written(_)))) {
            *effect = super::Effect::Finish(Ok(Response::Read(Some(reply.clone()))));
        }
    }
}

fn outcome_of(found: Found, wall: WallTime) -> Outcome {
    match found {
        Found::Failed(failure) => Err(failure),
        Found::Summary(summary) => Ok(Response::Head(summary.filter(|summary| summary.is_live(wall)))),
        Found::Version(version) => Ok(Response::Read(version.and_then(|version| {
            let value = version.live_value(wall)?.clone();
            Some(ReadReply { value, stamp: version.stamp, expires_at: version.expires_at })
        }))),
    }
}
