//! A write in a namespace that keeps concurrent values.
//!
//! Problem: a record tells other replicas which values it has replaced by the highest
//! counter of each actor. That is only true if whatever an actor sends for a key contains
//! all that it sent for that key before.
//! So: the coordinator takes the key's lock on this node, reads its own record, adds the
//! new version under a new dot, makes that durable here, lets go of the lock, and sends
//! the whole record to the other replicas.
//! Invariant: between reading the own record and storing the new one nothing else of this
//! node changes the key on its own account; what the store holds of this actor is all that
//! was ever sent of it.

use std::collections::BTreeSet;

use crate::types::{
    Actor, CausalContext, Content, Dot, Key, Moment, NodeId, Partition, Record, Refusal, Stamp, Version, VersionVector,
    WallTime, limits,
};
use crate::wire::{ReplicaRequest, ReplicaResponse};

use super::context::{Answer, Context, Effect};
use super::write::{Change, FIRST_PHASE, RETRY_AFTER, Stamping, Write, with_sibling};

/// One write of a sibling, until the other replicas are asked.
#[derive(Clone, Debug)]
pub struct SiblingWrite {
    key: Key,
    partition: Partition,
    seen: CausalContext,
    content: Content,
    expires_at: Option<WallTime>,
    needed: usize,
    state: State,
    /// When to look again for a stamp that the store did not allow yet.
    retry_at: Option<Moment>,
}

#[derive(Clone, Debug)]
enum State {
    AwaitingLock,
    Reading,
    Storing { stamp: Stamp, record: Record },
}

/// How it goes on.
pub(super) enum Onward {
    /// As it is.
    Wait,
    /// It is over: nothing was sent to anybody.
    Refuse(Refusal),
    /// This node has it; now the others.
    Send(Box<Write>),
}

/// Reading the own record, and storing it: they lie below the phases of a write.
const READING: u8 = FIRST_PHASE - 2;
const STORING: u8 = FIRST_PHASE - 1;

impl SiblingWrite {
    /// A write of `content` that replaces what `seen` covers.
    pub(super) fn new(
        key: Key,
        partition: Partition,
        seen: CausalContext,
        content: Content,
        expires_at: Option<WallTime>,
        needed: usize,
    ) -> SiblingWrite {
        SiblingWrite { key, partition, seen, content, expires_at, needed, state: State::AwaitingLock, retry_at: None }
    }

    /// Asks for the key's lock.
    pub(super) fn start(&mut self, context: &mut Context<'_>) {
        context.effects.push(Effect::Lock(self.key.clone()));
    }

    /// The lock is there.
    pub(super) fn granted(&mut self, context: &mut Context<'_>) -> Onward {
        let replicas = context.map.assignment.replicas(self.partition);
        let alive = context.reachable(replicas);
        if !replicas.contains(&context.me()) {
            return Onward::Refuse(Refusal::WrongEpoch { newest: context.map.epoch });
        }
        if alive < self.needed {
            let (alive, needed) = (super::context::count(alive), super::context::count(self.needed));
            return Onward::Refuse(Refusal::TooFewReplicas { alive, needed });
        }
        self.read(context);
        Onward::Wait
    }

    fn read(&mut self, context: &mut Context<'_>) {
        self.state = State::Reading;
        let request = ReplicaRequest::Read { key: self.key.clone(), after: VersionVector::default() };
        context.ask(vec![context.me()], READING, request);
    }

    /// Looks again for a stamp, if it is time to. The lock is still held.
    pub(super) fn wake(&mut self, context: &mut Context<'_>) {
        if self.retry_at.take_if(|at| *at <= context.now.moment).is_some() {
            self.read(context);
        }
    }

    /// When [`SiblingWrite::wake`] is due.
    pub(super) fn next_timeout(&self) -> Option<Moment> {
        self.retry_at
    }

    /// The own store has answered.
    pub(super) fn answer(&mut self, from: NodeId, phase: u8, answer: Answer, context: &mut Context<'_>) -> Onward {
        if from != context.me() {
            return Onward::Wait;
        }
        match (&self.state, phase, answer) {
            (State::Reading, READING, Answer::Response(ReplicaResponse::Record { record, .. })) => {
                self.store(record, context)
            }
            (State::Storing { stamp, record }, STORING, Answer::Response(ReplicaResponse::Stored)) => {
                let change = Change::Record { key: self.key.clone(), record: record.clone() };
                let write = Write::new(self.partition, change, Stamping::Given(*stamp), self.needed);
                Onward::Send(Box::new(write.stored_by(context.me())))
            }
            (_, READING | STORING, Answer::Response(ReplicaResponse::Refused(refusal))) => Onward::Refuse(refusal),
            (_, READING | STORING, _) => Onward::Refuse(Refusal::Overloaded),
            _ => Onward::Wait,
        }
    }

    fn store(&mut self, held: Option<Record>, context: &mut Context<'_>) -> Onward {
        let left = held.iter().flat_map(|held| held.versions()).filter(|version| !self.seen.covers(version.stamp.dot));
        let (number, bytes) = left.fold((1, 0), |(number, bytes), version| {
            (number + 1, bytes + version.summary().value_bytes.unwrap_or(0) as usize)
        });
        let own_bytes = if let Content::Value(value) = &self.content { value.len() } else { 0 };
        // What all coordinators let come into being together must fit into one message.
        let replicas = context.map.assignment.replicas(self.partition).len().max(1);
        let most = limits::MAX_VALUE_BYTES / replicas;
        if number > limits::SIBLINGS || (number > 1 && bytes + own_bytes > most) {
            return Onward::Refuse(Refusal::TooManySiblings { count: number as u64 - 1 });
        }
        // What it deletes or replaces must be older than it.
        let held_newest = held.as_ref().and_then(Record::newest_stamp).map(|stamp| stamp.timestamp);
        let newest = held_newest.unwrap_or_default().max(self.seen.newest());
        if let Err(skew) = context.clock.observe(newest, context.now.wall) {
            return Onward::Refuse(Refusal::ClockSkew { ahead_ms: skew.ahead_ms });
        }
        // One more than may be is an error to whoever reads it, here and on every replica.
        let known = held.iter().flat_map(context_of).chain(self.seen.entries()).map(|dot| dot.actor);
        let known: BTreeSet<Actor> = known.chain([context.settings.actor]).collect();
        if known.len() > limits::CONTEXT_ACTORS {
            let text = "the key and the context name more writers than a key may have";
            return Onward::Refuse(Refusal::Invalid(text.into()));
        }
        let stamp = match context.new_stamp(self.partition) {
            Ok(stamp) => stamp,
            // The store is being asked for higher timestamps.
            Err(Refusal::Overloaded) => {
                self.retry_at = Some(context.now.moment.plus(RETRY_AFTER));
                return Onward::Wait;
            }
            Err(refusal) => return Onward::Refuse(refusal),
        };
        let version = Version { stamp, expires_at: self.expires_at, content: self.content.clone() };
        let record = with_sibling(held, &self.seen, version);
        self.state = State::Storing { stamp, record: record.clone() };
        context.effects.push(Effect::AppendLocked { phase: STORING, key: self.key.clone(), record });
        Onward::Wait
    }

    /// Whether the own store may have it by now.
    pub(super) fn may_be_stored(&self) -> bool {
        matches!(self.state, State::Storing { .. })
    }

    /// How many replicas its level asks for.
    pub(super) fn needed(&self) -> usize {
        self.needed
    }

    /// The phase it is in.
    pub(super) fn phase(&self) -> u8 {
        if self.may_be_stored() { STORING } else { READING }
    }
}

/// Everybody who is known to have written, with the highest number.
fn context_of(record: &Record) -> Box<dyn Iterator<Item = Dot> + '_> {
    match record {
        Record::Last(version) => Box::new(std::iter::once(version.stamp.dot)),
        Record::Siblings(siblings) => Box::new(siblings.context().entries()),
    }
}

#[cfg(test)]
#[path = "siblings_tests.rs"]
mod tests;
