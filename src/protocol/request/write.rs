//! A write: one version, to every replica, acknowledged when W have it on disk.
//!
//! Invariant: a write whose level is a quorum and which is acknowledged is newer than
//! every version that was acknowledged at a quorum before it began. A coordinator's
//! clock may be slow; then a replica of every quorum answers `Superseded`, and the write
//! goes out once more with a stamp above all that was reported. What supersedes that one
//! was written at the same time, and has won fairly.

use crate::types::{
    Content, Failure, Key, NamespaceId, NodeId, Partition, Refusal, Response, Stamp, Version, WallTime, WriteReply,
};
use crate::wire::{ReplicaRequest, ReplicaResponse};

use super::context::{Answer, Context, count};

/// The phases of a write; they lie above those of a read, because a request may be both.
pub(super) const FIRST_PHASE: u8 = 16;

/// What is written.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Change {
    /// A version of a key.
    Record { key: Key, content: Content, expires_at: Option<WallTime> },
    /// The end of all that a namespace holds in a partition.
    Truncation { namespace: NamespaceId },
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
    stamp: Stamp,
    needed: usize,
    /// Whether losing against something newer is a reason to try once more.
    reissue: bool,
    phase: u8,
    replicas: Vec<(NodeId, Replica)>,
    newest_seen: Option<Stamp>,
    refusal: Option<Refusal>,
    /// Set once some replica may have applied an earlier attempt.
    tainted: bool,
}

impl Write {
    /// A write with a new stamp.
    pub(super) fn new(partition: Partition, change: Change, needed: usize, context: &mut Context<'_>) -> Write {
        let stamp = context.new_stamp(partition);
        Write::with_stamp(partition, change, stamp, needed, true)
    }

    /// A write that takes its place directly after the version it was derived from.
    pub(super) fn after(
        partition: Partition,
        change: Change,
        base: Stamp,
        needed: usize,
        context: &mut Context<'_>,
    ) -> Write {
        let stamp = context.stamp_at(partition, base.timestamp.next());
        Write::with_stamp(partition, change, stamp, needed, false)
    }

    fn with_stamp(partition: Partition, change: Change, stamp: Stamp, needed: usize, reissue: bool) -> Write {
        Write {
            partition,
            change,
            stamp,
            needed,
            reissue,
            phase: FIRST_PHASE,
            replicas: Vec::new(),
            newest_seen: None,
            refusal: None,
            tainted: false,
        }
    }

    /// Sends it out, or refuses it before anybody has seen it.
    pub(super) fn start(&mut self, context: &mut Context<'_>) {
        let replicas = context.map.assignment.replicas(self.partition);
        let alive = context.reachable(replicas);
        if alive < self.needed && !self.tainted {
            return context.refuse(Refusal::TooFewReplicas { alive: count(alive), needed: count(self.needed) });
        }
        self.send(context);
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
        let state = |node| if context.is_reachable(node) { Replica::Asked } else { Replica::Unreachable };
        self.replicas = replicas.iter().map(|node| (*node, state(*node))).collect();
        let to = replicas.into_iter().filter(|node| context.is_reachable(*node)).collect();
        context.ask(to, self.phase, self.request());
        // Where nobody can be asked any more (a replan), the end is known at once.
        self.conclude(context);
    }

    fn request(&self) -> ReplicaRequest {
        match &self.change {
            Change::Record { key, content, expires_at } => ReplicaRequest::Apply {
                key: key.clone(),
                version: Version { stamp: self.stamp, expires_at: *expires_at, content: content.clone() },
            },
            Change::Truncation { namespace } => {
                ReplicaRequest::Truncate { partition: self.partition, namespace: *namespace, stamp: self.stamp }
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
            if superseded > 0 && self.reissue {
                return self.try_once_more(context);
            }
            let reply = WriteReply { stamp: self.stamp, acknowledged: count(settled) };
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
        self.reissue = false;
        self.tainted |= self.may_be_somewhere();
        match context.clock.observe(newest.timestamp, context.now.wall) {
            Ok(()) => {
                self.stamp = context.new_stamp(self.partition);
                self.phase = self.phase.wrapping_add(1).max(FIRST_PHASE);
                self.send(context);
            }
            Err(skew) => {
                self.refusal = Some(Refusal::ClockSkew { ahead_ms: skew.ahead_ms });
                self.fail(context);
            }
        }
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
        let known_nowhere = |state| matches!(state, Replica::Unreachable | Replica::Refused | Replica::Superseded);
        !self.replicas.iter().all(|(_, state)| known_nowhere(*state))
    }

    fn number(&self, state: Replica) -> usize {
        self.replicas.iter().filter(|(_, other)| *other == state).count()
    }
}

#[cfg(test)]
#[path = "write_tests.rs"]
mod tests;
