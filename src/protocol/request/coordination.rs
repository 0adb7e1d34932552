//! Any request under way: which kind it is, and when it ends for lack of time.

use crate::types::{
    CausalContext, Content, Expiry, Failure, Key, MergePolicy, Moment, NodeId, Operation, Outcome, Partition,
    ReadReply, Record, Refusal, Request, Response, Sibling, VersionVector, WallTime,
};

use super::amend::{Amendment, Next, not_applied};
use super::claim::{Decided, OpWrite};
use super::confirm::Confirm;
use super::context::{Answer, Context};
use super::count::Count;
use super::forward::Forward;
use super::history::History;
use super::read::{Found, Read, ReadOrder};
use super::scan::Scan;
use super::siblings::{Onward, SiblingWrite};
use super::write::{Change, Stamping, Write};

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
    Sibling { write: SiblingWrite, instead: Option<ReadReply> },
    Op(OpWrite),
    Amend { key: Key, read: Read, amendment: Amendment, needed: usize },
    History(History),
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
            Kind::Sibling { write, .. } => write.start(context),
            Kind::Op(op) => {
                let decided = op.start(context);
                self.decided(decided, context);
            }
            Kind::History(history) => history.start(context),
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
            // They ask again by themselves, or end with what they have.
            Kind::Sibling { .. }
            | Kind::Op(_)
            | Kind::History(_)
            | Kind::Confirm(_)
            | Kind::Count(_)
            | Kind::Forward(_) => {}
        }
    }

    /// Whether another node coordinates it.
    pub fn is_forwarded(&self) -> bool {
        matches!(self.kind, Kind::Forward(_))
    }

    /// The lock that it asked for is there.
    pub fn granted(&mut self, context: &mut Context<'_>) {
        if let Kind::Sibling { write, .. } = &mut self.kind {
            let onward = write.granted(context);
            self.onward(onward, context);
        }
    }

    /// The connection to a peer is gone: whatever it was asked, it may have seen or not.
    pub fn lose(&mut self, peer: NodeId, context: &mut Context<'_>) {
        let phase = match &self.kind {
            Kind::Read { read } | Kind::Amend { read, .. } => read.phase(),
            Kind::Write { write, .. } => write.phase(),
            Kind::Sibling { write, .. } => write.phase(),
            Kind::Op(op) => op.phase(),
            Kind::Scan(scan) => scan.phase(),
            Kind::History(_) | Kind::Confirm(_) | Kind::Count(_) | Kind::Forward(_) => 0,
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
            Kind::Sibling { write, .. } => {
                let onward = write.answer(from, phase, answer, context);
                self.onward(onward, context);
            }
            Kind::Op(op) => {
                let decided = op.answer(from, phase, answer, context);
                self.decided(decided, context);
            }
            Kind::History(history) => history.answer(from, answer, context),
            Kind::Scan(scan) => scan.answer(from, phase, answer, context),
            Kind::Confirm(confirm) => confirm.answer(from, answer, context),
            Kind::Count(counting) => counting.answer(from, answer, context),
            Kind::Forward(forward) => forward.answer(from, answer, context),
        }
    }

    fn found(&mut self, found: Found, context: &mut Context<'_>) {
        let Kind::Amend { key, amendment, needed, .. } = &self.kind else {
            return context.finish(outcome_of(found, context.now.wall));
        };
        self.kind = match amendment.proceed(key, found, *needed, context) {
            Next::Finish(outcome) => return context.finish(outcome),
            Next::Write(write, instead) => Kind::Write { write: *write, instead },
            Next::Sibling(write, instead) => Kind::Sibling { write: *write, instead },
            Next::Op(op) => Kind::Op(*op),
        };
        self.start(context);
    }

    fn onward(&mut self, onward: Onward, context: &mut Context<'_>) {
        let Kind::Sibling { instead, .. } = &mut self.kind else { return };
        match onward {
            Onward::Wait => {}
            Onward::Refuse(refusal) => context.refuse(refusal),
            Onward::Send(write) => {
                self.kind = Kind::Write { write: *write, instead: instead.take() };
                self.start_write(context);
            }
        }
    }

    fn decided(&mut self, decided: Decided, context: &mut Context<'_>) {
        match decided {
            Decided::Wait => {}
            Decided::Finish(outcome) => context.finish(outcome),
            Decided::Write(write) => {
                self.kind = Kind::Write { write: *write, instead: None };
                self.start_write(context);
            }
        }
    }

    /// Starts a write that may end at once.
    fn start_write(&mut self, context: &mut Context<'_>) {
        let effects_before = context.effects.len();
        if let Kind::Write { write, instead } = &mut self.kind {
            write.start(context);
            answer_instead(instead, effects_before, context);
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
            Kind::Write { write, instead } => {
                let effects_before = context.effects.len();
                write.wake(context);
                answer_instead(instead, effects_before, context);
            }
            Kind::Sibling { write, .. } => write.wake(context),
            Kind::Op(op) => {
                let decided = op.wake(context);
                self.decided(decided, context);
            }
            Kind::History(_) | Kind::Scan(_) | Kind::Count(_) => {}
        }
    }

    fn time_out(&mut self, context: &mut Context<'_>) {
        match &mut self.kind {
            Kind::Read { read } => context.finish(Err(read.time_out())),
            Kind::Amend { read, .. } => context.finish(Err(not_applied(read.time_out()))),
            Kind::Write { write, .. } => write.fail(context),
            Kind::Sibling { write, .. } => context.finish(Err(match write.may_be_stored() {
                true => Failure::InDoubt { acknowledged: 0, needed: super::context::count(write.needed()) },
                false => Failure::NotApplied(Refusal::Overloaded),
            })),
            Kind::Op(op) => context.finish(Err(op.time_out())),
            Kind::History(history) => history.finish(context),
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
            Kind::Write { write, .. } => write.next_timeout(),
            Kind::Sibling { write, .. } => write.next_timeout(),
            Kind::Op(op) => op.next_timeout(),
            Kind::History(_) | Kind::Scan(_) | Kind::Count(_) => None,
        };
        sooner.map_or(self.deadline, |sooner| sooner.min(self.deadline))
    }
}

/// What can be said against a request before anybody is asked.
fn check(request: &Request, context: &Context<'_>) -> Result<(), Refusal> {
    let invalid = |text: &str| Err(Refusal::Invalid(text.into()));
    let operation = &request.operation;
    let Some(namespace) = context.map.namespaces.get(&operation.namespace()) else {
        return Err(Refusal::UnknownNamespace);
    };
    let limit = context.settings.max_value_bytes;
    if let Operation::Put { value, .. } = operation
        && value.len() > limit
    {
        return Err(Refusal::ValueTooLong { bytes: value.len() as u64, limit: limit as u64 });
    }
    if request.consistency == crate::types::ConsistencyLevel::Any && !operation.writes() {
        return invalid("the level 'any' is for writes; read at one, two, three, quorum or all");
    }
    let siblings = namespace.policy == MergePolicy::Siblings;
    match operation {
        Operation::Put { context: seen, .. } | Operation::Delete { context: seen, .. }
            if !siblings && !seen.is_empty() =>
        {
            return invalid("a context goes with a namespace that keeps siblings");
        }
        _ => {}
    }
    if request.op_id.is_none() {
        return Ok(());
    }
    match operation {
        _ if siblings => invalid("op-ids are not offered where siblings are kept: write with a context instead"),
        Operation::Put { value, .. } if value.len() > crate::types::limits::OP_VALUE_BYTES => {
            let limit = crate::types::limits::OP_VALUE_BYTES as u64;
            Err(Refusal::ValueTooLong { bytes: value.len() as u64, limit })
        }
        Operation::Put { .. } | Operation::Delete { .. } => Ok(()),
        _ => invalid("an op-id goes with a write or a deletion of one key"),
    }
}

/// The replicas one of which must coordinate this, if this node is none of them.
/// Only what issues dots needs a replica; scans, counts and histories can be coordinated anywhere.
fn coordinator_elsewhere(operation: &Operation, context: &Context<'_>) -> Option<Vec<NodeId>> {
    let replicas = match operation {
        Operation::Scan { .. } | Operation::Count { .. } | Operation::History { .. } => return None,
        Operation::Truncate { at, .. } => context.map.assignment.replicas(context.map.partitions.partition_of(*at)),
        other => context.map.replicas_of(other.key()?),
    };
    (!replicas.contains(&context.me())).then(|| replicas.to_vec())
}

fn plan(request: Request, context: &Context<'_>) -> Kind {
    let Request { operation, consistency, op_id, session, .. } = request;
    let partition = partition_of(&operation, context);
    let replicas = context.map.assignment.replicas(partition).len();
    let needed = consistency.required(replicas);
    let order = |key: Key, with_values: bool, needed: usize| {
        let (quorum, session) = (needed * 2 > replicas, session.clone());
        ReadOrder { key, partition, needed, with_values, quorum, session }
    };
    let amend = |key: Key, with_values: bool, amendment: Amendment| {
        let read = Read::new(order(key.clone(), with_values, needed));
        Kind::Amend { key, read, amendment, needed }
    };
    match operation {
        Operation::Get { key } | Operation::SetExpiry { key, expiry: Expiry::Keep } => {
            Kind::Read { read: Read::new(order(key, true, needed)) }
        }
        Operation::Head { key } => Kind::Read { read: Read::new(order(key, false, needed)) },
        Operation::Put { key, value, expiry, context: seen } => {
            let content = Content::Value(value);
            match (op_id, expiry) {
                (Some(op), expiry) => {
                    under_op_id(order(key, false, needed.max(replicas / 2 + 1)), op, content, expiry, needed)
                }
                (None, Expiry::Keep) => amend(key, false, Amendment::KeepExpiry { content, context: seen }),
                (None, expiry) => write_of(key, partition, content, end_of(expiry), seen, needed, context),
            }
        }
        Operation::Delete { key, context: seen } => match op_id {
            Some(op) => {
                let order = order(key, false, needed.max(replicas / 2 + 1));
                under_op_id(order, op, Content::Tombstone, Expiry::Never, needed)
            }
            None => write_of(key, partition, Content::Tombstone, None, seen, needed, context),
        },
        Operation::SetExpiry { key, expiry } => amend(key, true, Amendment::SetExpiry(end_of(expiry))),
        Operation::Resolve { key, op } => Kind::Op(OpWrite::resolve(op, key, partition, needed.max(replicas / 2 + 1))),
        Operation::History { key } => Kind::History(History::new(key, partition)),
        Operation::Scan { namespace, from, limit } => Kind::Scan(Scan::new(namespace, from, limit, partition, needed)),
        Operation::Confirm { key, stamp, replicas } => Kind::Confirm(Confirm::new(key, stamp, replicas)),
        Operation::Truncate { namespace, .. } => {
            let write = Write::new(partition, Change::Truncation { namespace }, Stamping::New, needed);
            Kind::Write { write, instead: None }
        }
        Operation::Count { .. } => Kind::Count(Count::default()),
    }
}

/// The partition that it is about; for a count, which is about all, any.
fn partition_of(operation: &Operation, context: &Context<'_>) -> Partition {
    match operation {
        Operation::Scan { from, .. } => context.map.partitions.partition_of(*from),
        Operation::Truncate { at, .. } => context.map.partitions.partition_of(*at),
        other => other.key().map_or(Partition(0), |key| context.map.partition_of(key)),
    }
}

fn under_op_id(order: ReadOrder, op: crate::types::OpId, content: Content, expiry: Expiry, needed: usize) -> Kind {
    let key = order.key.clone();
    let read = Read::new(ReadOrder { quorum: false, session: VersionVector::default(), ..order });
    Kind::Amend { key, read, amendment: Amendment::UnderOpId { op, content, expiry }, needed }
}

fn write_of(
    key: Key,
    partition: Partition,
    content: Content,
    expires_at: Option<WallTime>,
    seen: CausalContext,
    needed: usize,
    context: &Context<'_>,
) -> Kind {
    if context.map.policy(key.namespace()) == MergePolicy::Siblings {
        let write = SiblingWrite::new(key, partition, seen, content, expires_at, needed);
        return Kind::Sibling { write, instead: None };
    }
    let change = Change::Version { key, content, expires_at };
    Kind::Write { write: Write::new(partition, change, Stamping::New, needed), instead: None }
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
        Found::Digest(digest) => {
            let shown = digest.and_then(|digest| digest.shown(wall));
            Ok(Response::Head(shown.filter(|summary| summary.is_live(wall))))
        }
        Found::Record(record) => Ok(Response::Read(record.and_then(|record| reply_of(&record, wall)))),
    }
}

/// What a client is shown of a record; none if nothing in it is live.
pub(super) fn reply_of(record: &Record, wall: WallTime) -> Option<ReadReply> {
    let live = record.versions().iter().filter_map(|version| {
        let value = version.live_value(wall)?.clone();
        Some(Sibling { value, stamp: version.stamp, expires_at: version.expires_at })
    });
    let mut live: Vec<Sibling> = live.collect();
    live.sort_by_key(|sibling| std::cmp::Reverse(sibling.stamp));
    let mut live = live.into_iter();
    let Sibling { value, stamp, expires_at } = live.next()?;
    let context = match record {
        Record::Last(_) => CausalContext::default(),
        Record::Siblings(siblings) => siblings.context().clone(),
    };
    Some(ReadReply { value, stamp, expires_at, siblings: live.collect(), context })
}
