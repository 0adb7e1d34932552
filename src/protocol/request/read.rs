//! A read: the newest version that R replicas know.
//!
//! One replica is asked for the value, the others only for their version. If one of
//! them knows a newer version, the value is fetched from there. A replica that is late
//! is passed over by asking a further one (a hedge); "not found" is an answer.
//!
//! Invariant: what is returned is at least as new as the newest version among R
//! distinct replicas that were asked after the read began.

use crate::types::{Content, Failure, Key, Moment, NodeId, Partition, Refusal, Stamp, Summary, Version};
use crate::wire::{ReplicaRequest, ReplicaResponse};

use super::context::{Answer, Context, count};

/// Asking for values and versions.
const ASKING: u8 = 0;
/// The highest phase of a read.
const LAST_PHASE: u8 = super::write::FIRST_PHASE - 1;

#[derive(Clone, PartialEq, Eq, Debug)]
enum Replica {
    Unasked,
    /// Asked, and late from this moment on.
    Asked {
        late_at: Moment,
    },
    /// Asked and passed over, but its answer still counts.
    Late,
    Answered(Option<Summary>),
    Failed,
}

fn stamp_of(summary: Option<Summary>) -> Option<Stamp> {
    summary.map(|summary| summary.stamp)
}

/// How a read ended.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Found {
    /// The newest version with its value, tombstones and expired values included; none if
    /// no replica knows of any.
    Version(Option<Version>),
    /// As above without the value.
    Summary(Option<Summary>),
    /// Too few replicas.
    Failed(Failure),
}

/// One read under way.
#[derive(Clone, Debug)]
pub struct Read {
    key: Key,
    partition: Partition,
    needed: usize,
    with_value: bool,
    phase: u8,
    /// In the order in which they are asked.
    replicas: Vec<(NodeId, Replica)>,
    /// The newest version whose value has arrived (or which has none).
    value: Option<Version>,
    /// Whether some replica has answered with its value, or that it has none.
    value_known: bool,
    /// Who was asked for a value and has not given it.
    value_from: Option<NodeId>,
    /// The newest version that R replicas know, once they have spoken.
    newest: Option<Summary>,
    refusal: Option<Refusal>,
}

impl Read {
    /// A read of a key.
    pub(super) fn new(key: Key, partition: Partition, needed: usize, with_value: bool) -> Read {
        Read {
            key,
            partition,
            needed,
            with_value,
            phase: ASKING,
            replicas: Vec::new(),
            value: None,
            value_known: false,
            value_from: None,
            newest: None,
            refusal: None,
        }
    }

    /// Asks the replicas that promise to answer soonest.
    pub(super) fn start(&mut self, context: &mut Context<'_>) -> Option<Found> {
        let mut replicas = context.map.assignment.replicas(self.partition).to_vec();
        let alive = context.reachable(&replicas);
        if alive < self.needed {
            let too_few = Refusal::TooFewReplicas { alive: count(alive), needed: count(self.needed) };
            return Some(Found::Failed(Failure::NotApplied(too_few)));
        }
        replicas.retain(|replica| context.is_reachable(*replica));
        context.peers.sort_by_promise(context.me(), &mut replicas);
        self.replicas = replicas.into_iter().map(|replica| (replica, Replica::Unasked)).collect();
        self.value = None;
        self.value_known = false;
        self.newest = None;
        self.ask_further(self.needed, context);
        None
    }

    /// Begins anew under a new map.
    pub(super) fn replan(&mut self, context: &mut Context<'_>) -> Option<Found> {
        self.phase = (self.phase + 1).min(LAST_PHASE);
        self.value_from = None;
        self.start(context)
    }

    /// Asks up to `number` replicas that were not asked yet: one for the value if nobody
    /// owes it, the others for their versions.
    fn ask_further(&mut self, number: usize, context: &mut Context<'_>) {
        let mut digests = Vec::new();
        let mut value = None;
        for (node, state) in self.replicas.iter_mut().filter(|(_, state)| *state == Replica::Unasked).take(number) {
            *state = Replica::Asked { late_at: context.late_at(*node) };
            if self.with_value && !self.value_known && self.value_from.is_none() {
                self.value_from = Some(*node);
                value = Some(*node);
            } else {
                digests.push(*node);
            }
        }
        context.ask(value.into_iter().collect(), self.phase, ReplicaRequest::Read { key: self.key.clone() });
        context.ask(digests, self.phase, ReplicaRequest::Digest { key: self.key.clone() });
    }

    /// The phase it is in.
    pub(super) fn phase(&self) -> u8 {
        self.phase
    }

    /// Takes an answer.
    pub(super) fn answer(
        &mut self,
        from: NodeId,
        phase: u8,
        answer: Answer,
        context: &mut Context<'_>,
    ) -> Option<Found> {
        if phase != self.phase {
            return None;
        }
        let known = match answer {
            Answer::Response(ReplicaResponse::Version(version)) => {
                let known = version.as_ref().map(Version::summary);
                self.take_value(version);
                Some(known)
            }
            Answer::Response(ReplicaResponse::Digest(summary)) => Some(summary),
            Answer::Response(ReplicaResponse::Refused(refusal)) => {
                self.refusal = Some(refusal);
                None
            }
            Answer::Response(_) | Answer::NotSent | Answer::Lost => None,
        };
        let owed_value = self.value_from == Some(from);
        if owed_value {
            self.value_from = None;
        }
        let (_, state) = self.replicas.iter_mut().find(|(node, _)| *node == from)?;
        match (known, &*state) {
            // It has said all it was asked; that it is gone now takes nothing back.
            (None, Replica::Answered(_)) if !owed_value => {}
            // A replica that no longer has what it had is not to be believed.
            (Some(known), Replica::Answered(before)) if stamp_of(known) < stamp_of(*before) => *state = Replica::Failed,
            // A second answer of the same replica: the value that a digest had promised.
            (Some(_), Replica::Answered(_)) => {}
            (Some(known), _) => *state = Replica::Answered(known),
            (None, _) => *state = Replica::Failed,
        }
        self.proceed(context)
    }

    fn take_value(&mut self, version: Option<Version>) {
        self.value_known = true;
        if let Some(version) = version
            && self.value.as_ref().is_none_or(|held| held.stamp < version.stamp)
        {
            self.value = Some(version);
        }
    }

    /// Ends it, fetches the value, asks further replicas, or waits.
    fn proceed(&mut self, context: &mut Context<'_>) -> Option<Found> {
        let answered = self.replicas.iter().filter(|(_, state)| matches!(state, Replica::Answered(_))).count();
        if answered < self.needed {
            return self.replace_failed(answered, context);
        }
        let known = self.replicas.iter().filter_map(|(_, state)| match state {
            Replica::Answered(summary) => *summary,
            _ => None,
        });
        self.newest = known.max_by_key(|summary| summary.stamp);
        let Some(newest) = self.newest else { return Some(self.found(None)) };
        if !self.with_value {
            return Some(Found::Summary(Some(newest)));
        }
        match &self.value {
            Some(value) if value.stamp >= newest.stamp => Some(Found::Version(self.value.take())),
            _ if newest.value_bytes.is_none() => Some(self.found(Some(newest))),
            _ => self.fetch(newest, context),
        }
    }

    /// Something whose value nobody needs to send: nothing, or a tombstone.
    fn found(&self, summary: Option<Summary>) -> Found {
        if !self.with_value {
            return Found::Summary(summary);
        }
        Found::Version(summary.map(|summary| Version {
            stamp: summary.stamp,
            expires_at: summary.expires_at,
            content: Content::Tombstone,
        }))
    }

    /// Asks a replica that knows the newest version for its value.
    fn fetch(&mut self, newest: Summary, context: &mut Context<'_>) -> Option<Found> {
        if let Some(owing) = self.value_from
            && self.holds(owing, newest)
        {
            return None;
        }
        let holder = self.replicas.iter().map(|(node, _)| *node).find(|node| self.holds(*node, newest));
        match holder {
            Some(holder) => {
                self.value_from = Some(holder);
                context.ask(vec![holder], self.phase, ReplicaRequest::Read { key: self.key.clone() });
                None
            }
            None => Some(Found::Failed(self.too_few())),
        }
    }

    fn holds(&self, node: NodeId, newest: Summary) -> bool {
        self.replicas.iter().any(|(other, state)| {
            *other == node && matches!(state, Replica::Answered(Some(known)) if known.stamp >= newest.stamp)
        })
    }

    /// Asks as many further replicas as are missing.
    fn replace_failed(&mut self, answered: usize, context: &mut Context<'_>) -> Option<Found> {
        let open = |state: &Replica| matches!(state, Replica::Asked { .. } | Replica::Late);
        let waiting = self.replicas.iter().filter(|(_, state)| open(state)).count();
        let missing = self.needed.saturating_sub(answered + waiting);
        let unasked = self.replicas.iter().filter(|(_, state)| *state == Replica::Unasked).count();
        if missing > unasked {
            return Some(Found::Failed(self.too_few()));
        }
        if missing > 0 {
            self.ask_further(missing, context);
        }
        None
    }

    /// Fewer are left than the level needs: those that were reachable and then failed count no more.
    fn too_few(&self) -> Failure {
        let left = self.replicas.iter().filter(|(_, state)| *state != Replica::Failed).count();
        let too_few = Refusal::TooFewReplicas { alive: count(left), needed: count(self.needed) };
        Failure::NotApplied(self.refusal.clone().unwrap_or(too_few))
    }

    /// Passes over what is late.
    pub(super) fn wake(&mut self, context: &mut Context<'_>) {
        let mut late = 0;
        for (node, state) in &mut self.replicas {
            if matches!(state, Replica::Asked { late_at } if *late_at <= context.now.moment) {
                *state = Replica::Late;
                late += 1;
                context.effects.push(super::Effect::Late(*node));
                if self.value_from == Some(*node) {
                    self.value_from = None;
                }
            }
        }
        self.ask_further(late, context);
    }

    /// When [`Read::wake`] is due.
    pub(super) fn next_timeout(&self) -> Option<Moment> {
        let late_at = |state: &Replica| match state {
            Replica::Asked { late_at } => Some(*late_at),
            _ => None,
        };
        self.replicas.iter().filter_map(|(_, state)| late_at(state)).min()
    }

    /// The time is over.
    pub(super) fn time_out(&self) -> Failure {
        let answered = self.replicas.iter().filter(|(_, state)| matches!(state, Replica::Answered(_))).count();
        Failure::TimedOut { answered: count(answered), needed: count(self.needed) }
    }
}

#[cfg(test)]
#[path = "read_tests.rs"]
mod tests;
