//! Writes under an op-id, and finding out what became of one.
//!
//! Problem: a client whose write is in doubt sends it again, perhaps to another node, and
//! it must take effect once. Or it asks for the truth, and what it is told must stay true.
//!
//! How: every replica of the key notes for an op-id the first claim that reaches it, for
//! good: a version with its stamp, or a fence. What a majority has noted is decided. If
//! no claim can get a majority any more, the one that is ahead by a fixed rule is decided
//! once all replicas are known. Only what is decided is written, with the stamp that it
//! has there, so writing it again is harmless, whoever does it.
//!
//! Invariant: two nodes that find an op-id decided find the same. Claims never change, so
//! the set of claims that anybody can have seen only grows, and a majority in part of it is
//! one in all of it.
//! Left out: deciding while a replica is down and the others disagree; that is in doubt.
//! Source: the write-once registers of Lamport's "Generalized Consensus and Paxos", 2005,
//! section on fast rounds, without recovery.

use crate::types::{
    Claim, Content, Failure, Key, Moment, NodeId, OpId, Outcome, Partition, Refusal, SeededBug, Stamp, Version,
    WallTime,
};
use crate::wire::{ReplicaRequest, ReplicaResponse};

use super::context::{Answer, Context, count};
use super::write::{Change, RETRY_AFTER, Stamping, Write};

/// Asking for claims; below the phases of a write.
const CLAIMING: u8 = 13;

/// A write under an op-id, until it is decided what that stands for.
#[derive(Clone, Debug)]
pub struct OpWrite {
    op: OpId,
    key: Key,
    partition: Partition,
    /// What it is to stand for; none to resolve it.
    wanted: Option<Wanted>,
    needed: usize,
    replicas: Vec<(NodeId, State)>,
    /// When to look again for a stamp that the store did not allow yet.
    retry_at: Option<Moment>,
}

#[derive(Clone, Debug)]
struct Wanted {
    content: Content,
    expires_at: Option<WallTime>,
}

#[derive(Clone, PartialEq, Eq, Debug)]
enum State {
    Unreachable,
    Asked,
    Noted(Claim),
    /// May have noted it.
    Lost,
    Refused,
}

/// How it goes on.
pub(super) enum Decided {
    /// Not yet.
    Wait,
    /// It is over.
    Finish(Outcome),
    /// It stands for a write, which is sent now.
    Write(Box<Write>),
}

/// What orders claims that have as many replicas: writes by stamp, then the fence.
fn rank(claim: &Claim) -> (bool, Option<Stamp>) {
    match claim {
        Claim::Write { version, .. } => (false, Some(version.stamp)),
        Claim::Fenced => (true, None),
    }
}

impl OpWrite {
    /// Claims an op-id for a new version.
    pub(super) fn new(
        op: OpId,
        key: Key,
        partition: Partition,
        (content, expires_at): (Content, Option<WallTime>),
        needed: usize,
    ) -> OpWrite {
        let wanted = Some(Wanted { content, expires_at });
        OpWrite { op, key, partition, wanted, needed, replicas: Vec::new(), retry_at: None }
    }

    /// Fences an op-id, unless it stands for a write.
    pub(super) fn resolve(op: OpId, key: Key, partition: Partition, needed: usize) -> OpWrite {
        OpWrite { op, key, partition, wanted: None, needed, replicas: Vec::new(), retry_at: None }
    }

    /// Asks all replicas.
    pub(super) fn start(&mut self, context: &mut Context<'_>) -> Decided {
        let replicas = context.map.assignment.replicas(self.partition).to_vec();
        let alive = context.reachable(&replicas);
        let needed = self.needed.max(replicas.len() / 2 + 1);
        if alive < needed {
            let too_few = Refusal::TooFewReplicas { alive: count(alive), needed: count(needed) };
            return Decided::Finish(Err(Failure::NotApplied(too_few)));
        }
        let claim = match self.claim(context) {
            Ok(claim) => claim,
            // The store is being asked for higher timestamps.
            Err(Refusal::Overloaded) => {
                self.retry_at = Some(context.now.moment.plus(RETRY_AFTER));
                return Decided::Wait;
            }
            Err(refusal) => return Decided::Finish(Err(Failure::NotApplied(refusal))),
        };
        let state = |node| if context.is_reachable(node) { State::Asked } else { State::Unreachable };
        self.replicas = replicas.iter().map(|node| (*node, state(*node))).collect();
        let to = replicas.into_iter().filter(|node| context.is_reachable(*node)).collect();
        let until = context.now.wall.checked_plus(context.settings.op_id_horizon).unwrap_or(WallTime(u64::MAX));
        context.ask(to, CLAIMING, ReplicaRequest::Claim { partition: self.partition, op: self.op, claim, until });
        Decided::Wait
    }

    /// What replicas are asked to note. How long they must keep it is told by this node's
    /// clock, so that must be right even where nothing is stamped.
    fn claim(&self, context: &mut Context<'_>) -> Result<Claim, Refusal> {
        let Some(Wanted { content, expires_at }) = &self.wanted else {
            context.watch.check(context.now, context.map.members.len() == 1)?;
            return Ok(Claim::Fenced);
        };
        let stamp = context.new_stamp(self.partition)?;
        let version = Version { stamp, expires_at: *expires_at, content: content.clone() };
        Ok(Claim::Write { key: self.key.clone(), version })
    }

    /// Looks again for a stamp, if it is time to.
    pub(super) fn wake(&mut self, context: &mut Context<'_>) -> Decided {
        match self.retry_at.take_if(|at| *at <= context.now.moment) {
            Some(_) => self.start(context),
            None => Decided::Wait,
        }
    }

    /// When [`OpWrite::wake`] is due.
    pub(super) fn next_timeout(&self) -> Option<Moment> {
        self.retry_at
    }

    /// The phase it is in.
    pub(super) fn phase(&self) -> u8 {
        CLAIMING
    }

    /// Takes an answer.
    pub(super) fn answer(&mut self, from: NodeId, phase: u8, answer: Answer, context: &Context<'_>) -> Decided {
        let Some((_, state)) = self.replicas.iter_mut().find(|(node, _)| *node == from) else { return Decided::Wait };
        if phase != CLAIMING || *state != State::Asked {
            return Decided::Wait;
        }
        *state = match answer {
            Answer::Response(ReplicaResponse::Noted(claim)) => State::Noted(claim),
            Answer::Response(ReplicaResponse::Refused(_) | ReplicaResponse::Unsupported) | Answer::NotSent => {
                State::Refused
            }
            Answer::Response(_) | Answer::Lost => State::Lost,
        };
        match self.decided() {
            Some(claim) => self.act_on(claim, context),
            None if self.replicas.iter().any(|(_, state)| *state == State::Asked) => Decided::Wait,
            None => Decided::Finish(Err(self.time_out())),
        }
    }

    fn decided(&self) -> Option<Claim> {
        let noted: Vec<&Claim> = self
            .replicas
            .iter()
            .filter_map(|(_, state)| if let State::Noted(claim) = state { Some(claim) } else { None })
            .collect();
        let votes = |claim: &Claim| noted.iter().filter(|other| ***other == *claim).count();
        let ahead = noted.iter().max_by_key(|claim| (votes(claim), std::cmp::Reverse(rank(claim))))?;
        if SeededBug::OpIdDecidedByOne.is_planted() {
            return Some((*ahead).clone());
        }
        let majority = votes(ahead) * 2 > self.replicas.len();
        (majority || noted.len() == self.replicas.len()).then(|| (*ahead).clone())
    }

    fn act_on(&self, claim: Claim, context: &Context<'_>) -> Decided {
        let refuse = |refusal| Decided::Finish(Err(Failure::NotApplied(refusal)));
        let (key, version) = match claim {
            Claim::Fenced => return refuse(Refusal::Fenced),
            Claim::Write { key, version } => (key, version),
        };
        let same = |wanted: &Wanted| wanted.content == version.content;
        if key != self.key || self.wanted.as_ref().is_some_and(|wanted| !same(wanted)) {
            return refuse(Refusal::OpIdReused);
        }
        let stamp = version.stamp;
        let partition = context.map.partition_of(&key);
        let Version { expires_at, content, .. } = version;
        let change = Change::Version { key, content, expires_at };
        // It is decided, so somebody else may be writing it.
        Decided::Write(Box::new(Write::new(partition, change, Stamping::Given(stamp), self.needed).tainted()))
    }

    /// The time is over: if some replica may have noted the claim, somebody may write it yet.
    pub(super) fn time_out(&self) -> Failure {
        if self.replicas.is_empty() {
            return Failure::NotApplied(Refusal::Overloaded);
        }
        let nowhere = |state: &State| matches!(state, State::Unreachable | State::Refused);
        let needed = count(self.needed);
        match self.wanted.is_some() && self.replicas.iter().all(|(_, state)| nowhere(state)) {
            true => Failure::NotApplied(Refusal::TooFewReplicas { alive: 0, needed }),
            false => Failure::InDoubt { acknowledged: 0, needed },
        }
    }
}

#[cfg(test)]
#[path = "claim_tests.rs"]
mod tests;
