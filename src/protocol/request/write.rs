//! A write: one record, to every replica, acknowledged when W have it on disk.
//!
//! Invariant: a write whose level is a quorum and which is acknowledged is newer than
//! every version that was acknowledged at a quorum before it began. A coordinator's
//! clock may be slow; then a replica of every quorum answers `Superseded`, and the write
//! goes out once more with a stamp above all that was reported. What supersedes that one
//! was written at the same time, and has won fairly.

use std::time::Duration;

use crate::types::{
    CausalContext, Content, Failure, Key, Moment, NamespaceId, NodeId, Partition, Record, Refusal, Response, Siblings,
    Stamp, Timestamp, Version, WallTime, WriteReply,
};
use crate::wire::{ReplicaRequest, ReplicaResponse};

use super::context::{Answer, Context, count};

/// The phases of a write; they lie above those of a read, because a request may be both.
pub(super) const FIRST_PHASE: u8 = 16;
/// After what time a stamp is looked for again that the store did not allow yet.
pub(super) const RETRY_AFTER: Duration = Duration::from_millis(2);

/// What is written.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Change {
    /// A version of a key, which replaces what is older.
    Version { key: Key, content: Content, expires_at: Option<WallTime> },
    /// A record that is merged with what is there; its stamps are given already.
    Record { key: Key, record: Record },
    /// The end of all that a namespace holds in a partition.
    Truncation { namespace: NamespaceId },
}

/// Which stamp a write gets.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Stamping {
    /// A new one; and once more a new one if something newer is met.
    New,
    /// One directly after the version that it was derived from.
    After(Timestamp),
    /// It has one.
    Given(Stamp),
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Replica {
    /// Could not be asked.
    Unreachable,
    Asked,
    Stored,
    Superseded,
    /// Said that it did nothing, or never saw the question.
    Refused,
    /// May or may not have it.
    Lost,
}

/// One write under way.
#[derive(Clone, Debug)]
pub struct Write {
    partition: Partition,
    change: Change,
    stamping: Stamping,
    /// None until it is sent for the first time.
    stamp: Option<Stamp>,
    needed: usize,
    phase: u8,
    replicas: Vec<(NodeId, Replica)>,
    /// Replicas that have it before it is sent to the others.
    stored_before: Vec<NodeId>,
    newest_seen: Option<Stamp>,
    refusal: Option<Refusal>,
    /// Set once some replica may have applied an earlier attempt.
    tainted: bool,
    /// When to look again for a stamp that lies above what was met.
    retry_at: Option<Moment>,
}

impl Write {
    /// A write, to be sent by [`Write::start`].
    pub(super) fn new(partition: Partition, change: Change, stamping: Stamping, needed: usize) -> Write {
        Write {
            partition,
            change,
            stamping,
            stamp: None,
            needed,
            phase: FIRST_PHASE,
            replicas: Vec::new(),
            stored_before: Vec::new(),
            newest_seen: None,
            refusal: None,
            tainted: false,
            retry_at: None,
        }
    }

    /// This replica has it on disk already; if it ends badly it is in doubt.
    pub(super) fn stored_by(mut self, node: NodeId) -> Write {
        self.stored_before.push(node);
        self.tainted = true;
        self
    }

    /// Something of it may be somewhere before it is sent: if it ends badly it is in doubt.
    pub(super) fn tainted(mut self) -> Write {
        self.tainted = true;
        self
    }

    /// Sends it out, or refuses it before anybody has seen it.
    pub(super) fn start(&mut self, context: &mut Context<'_>) {
        let replicas = context.map.assignment.replicas(self.partition);
        let alive = context.reachable(replicas);
        if alive < self.needed {
            self.refusal = Some(Refusal::TooFewReplicas { alive: count(alive), needed: count(self.needed) });
            if !self.tainted {
                return self.fail(context);
            }
        }
        if self.stamp.is_none() {
            match self.give_stamp(context) {
                Ok(stamp) => self.stamp = Some(stamp),
                // The store is being asked for higher timestamps.
                Err(Refusal::Overloaded) => {
                    self.refusal = Some(Refusal::Overloaded);
                    self.retry_at = Some(context.now.moment.plus(RETRY_AFTER));
                    return;
                }
                Err(refusal) => {
                    self.refusal = Some(refusal);
                    return self.fail(context);
                }
            }
        }
        self.send(context);
    }

    fn give_stamp(&self, context: &mut Context<'_>) -> Result<Stamp, Refusal> {
        match self.stamping {
            Stamping::New => context.new_stamp(self.partition),
            Stamping::After(base) => Ok(context.stamp_at(self.partition, base.next())),
            Stamping::Given(stamp) => Ok(stamp),
        }
    }

    /// Sends it out once more under a new map. The stamp stays: replicas that have it
    /// already answer so.
    pub(super) fn replan(&mut self, context: &mut Context<'_>) {
        self.tainted |= self.may_be_somewhere();
        self.phase = self.phase.wrapping_add(1).max(FIRST_PHASE);
        self.start(context);
    }

    fn send(&mut self, context: &mut Context<'_>) {
        let replicas = context.map.assignment.replicas(self.partition).to_vec();
        let stored_before = std::mem::take(&mut self.stored_before);
        let state = |node: NodeId| match () {
            () if stored_before.contains(&node) => Replica::Stored,
            () if context.is_reachable(node) => Replica::Asked,
            () => Replica::Unreachable,
        };
        self.replicas = replicas.iter().map(|node| (*node, state(*node))).collect();
        let asked = self.replicas.iter().filter(|(_, state)| *state == Replica::Asked);
        let to = asked.map(|(node, _)| *node).collect();
        context.ask(to, self.phase, self.request());
        // Where nobody can be asked any more (a replan), the end is known at once.
        self.conclude(context);
    }

    fn given(&self) -> Stamp {
        self.stamp.expect("it is sent only once it has a stamp")
    }

    fn request(&self) -> ReplicaRequest {
        let stamp = self.given();
        match &self.change {
            Change::Version { key, content, expires_at } => ReplicaRequest::Apply {
                key: key.clone(),
                record: Record::Last(Version { stamp, expires_at: *expires_at, content: content.clone() }),
            },
            Change::Record { key, record } => ReplicaRequest::Apply { key: key.clone(), record: record.clone() },
            Change::Truncation { namespace } => {
                ReplicaRequest::Truncate { partition: self.partition, namespace: *namespace, stamp }
            }
        }
    }

    /// The phase it is in.
    pub(super) fn phase(&self) -> u8 {
        self.phase
    }

    /// Takes an answer.
    pub(super) fn answer(&mut self, from: NodeId, phase: u8, answer: Answer, context: &mut Context<'_>) {
        let Some((_, state)) = self.replicas.iter_mut().find(|(node, _)| *node == from) else { return };
        if phase != self.phase || *state != Replica::Asked {
            return;
        }
        *state = match answer {
            Answer::Response(ReplicaResponse::Stored) => Replica::Stored,
            Answer::Response(ReplicaResponse::Superseded { by }) => {
                self.newest_seen = self.newest_seen.max(Some(by));
                Replica::Superseded
            }
            Answer::Response(ReplicaResponse::Refused(refusal)) => {
                self.refusal = Some(refusal);
                Replica::Refused
            }
            Answer::Response(ReplicaResponse::Unsupported) => {
                self.refusal = Some(Refusal::Invalid("a replica runs a version without this operation".into()));
                Replica::Refused
            }
            Answer::NotSent => {
                self.refusal.get_or_insert(Refusal::Overloaded);
                Replica::Refused
            }
            // An answer to some other question leaves this one open.
            Answer::Response(_) | Answer::Lost => Replica::Lost,
        };
        self.conclude(context);
    }

    /// Ends it if its end is known.
    fn conclude(&mut self, context: &mut Context<'_>) {
        let superseded = self.number(Replica::Superseded);
        let settled = self.number(Replica::Stored) + superseded;
        if settled >= self.needed {
            if superseded > 0 && self.stamping == Stamping::New {
                return if self.retry_at.is_none() {
                    self.try_once_more(context)
                };
            }
            let reply = WriteReply { stamp: self.given(), acknowledged: count(settled) };
            return context.finish(Ok(Response::Written(reply)));
        }
        let open = self.number(Replica::Asked);
        if settled + open >= self.needed {
            return;
        }
        // The level cannot be met. If nobody is known to have applied it, what is still
        // open decides between "not applied" and "in doubt": worth waiting for.
        let doubtful = self.tainted || self.number(Replica::Stored) + self.number(Replica::Lost) > 0;
        if open == 0 || doubtful {
            self.fail(context);
        }
    }

    fn try_once_more(&mut self, context: &mut Context<'_>) {
        let newest = self.newest_seen.expect("something superseded it");
        self.tainted |= self.may_be_somewhere();
        let observed = context.clock.observe(newest.timestamp, context.now.wall);
        let observed = observed.map_err(|skew| Refusal::ClockSkew { ahead_ms: skew.ahead_ms });
        match observed.and_then(|()| context.new_stamp(self.partition)) {
            Ok(stamp) => {
                self.stamp = Some(stamp);
                // Once is enough.
                self.stamping = Stamping::Given(stamp);
                self.phase = self.phase.wrapping_add(1).max(FIRST_PHASE);
                self.send(context);
            }
            // The store is being asked for higher timestamps.
            Err(Refusal::Overloaded) => self.retry_at = Some(context.now.moment.plus(RETRY_AFTER)),
            Err(refusal) => {
                self.refusal = Some(refusal);
                self.fail(context);
            }
        }
    }

    /// Looks again for a stamp, if it is time to.
    pub(super) fn wake(&mut self, context: &mut Context<'_>) {
        if self.retry_at.is_some_and(|at| at <= context.now.moment) {
            self.retry_at = None;
            match self.stamp {
                None => self.start(context),
                Some(_) => self.try_once_more(context),
            }
        }
    }

    /// When [`Write::wake`] is due.
    pub(super) fn next_timeout(&self) -> Option<Moment> {
        self.retry_at
    }

    /// The time is over, or the level can no longer be met.
    pub(super) fn fail(&mut self, context: &mut Context<'_>) {
        if self.tainted || self.may_be_somewhere() {
            let acknowledged = count(self.number(Replica::Stored));
            return context.finish(Err(Failure::InDoubt { acknowledged, needed: count(self.needed) }));
        }
        let alive = count(context.reachable(context.map.assignment.replicas(self.partition)));
        let too_few = Refusal::TooFewReplicas { alive, needed: count(self.needed) };
        context.refuse(self.refusal.clone().unwrap_or(too_few));
    }

    fn may_be_somewhere(&self) -> bool {
        // One that was superseded may have been there before: it may have come twice.
        let known_nowhere = |state| matches!(state, Replica::Unreachable | Replica::Refused);
        !self.replicas.iter().all(|(_, state)| known_nowhere(*state))
    }

    fn number(&self, state: Replica) -> usize {
        self.replicas.iter().filter(|(_, other)| *other == state).count()
    }
}

/// The record that a write to a key with siblings makes of what its coordinator holds.
pub(super) fn with_sibling(held: Option<Record>, seen: &CausalContext, version: Version) -> Record {
    let (versions, mut context) = match held {
        Some(Record::Siblings(siblings)) => siblings.into_parts(),
        Some(Record::Last(version)) => (vec![version], CausalContext::default()),
        None => (Vec::new(), CausalContext::default()),
    };
    let kept = versions.into_iter().filter(|version| !seen.covers(version.stamp.dot));
    context.join(seen);
    Record::Siblings(Siblings::new(kept.chain([version]).collect(), context))
}

#[cfg(test)]
#[path = "write_tests.rs"]
mod tests;
