//! A read: what R replicas together know of a key, made durable on R of them.
//!
//! One replica is asked for the values, the others only for their versions. If one of
//! them knows more, the values are fetched from there. A replica that is late is passed
//! over by asking a further one (a hedge); "not found" is an answer.
//!
//! At QUORUM and above, those among the R that know less are sent what they lack, and the
//! read ends once R replicas durably hold it (blocking read repair). Below, they are sent
//! it and not waited for.
//!
//! Invariants:
//! - What is returned contains the newest version among R distinct replicas that were
//!   asked after the read began.
//! - What a quorum read has returned, every quorum read that begins later returns too, or
//!   something newer; even if the write that it was part of failed.
//! - Within a session, some replica that was asked has had all that the session names; or
//!   all replicas were asked.
//!
//! Source: Attiya, Bar-Noy, Dolev, "Sharing Memory Robustly in Message-Passing Systems",
//! JACM 1995 (a read writes back); Cassandra's blocking read repair.

use std::time::Duration;

use crate::types::{Digest, Failure, Key, Moment, NodeId, Partition, Record, Refusal, SeededBug, VersionVector};
use crate::wire::{ReplicaRequest, ReplicaResponse};

use super::context::{Answer, Context, count};

/// Asking for values and versions.
const ASKING: u8 = 0;
/// The highest phase of a read.
const LAST_PHASE: u8 = super::write::FIRST_PHASE - 1;
/// What a replica may take to write a repair before a further one is asked.
const REPAIR_TIME: Duration = Duration::from_millis(50);

#[derive(Clone, PartialEq, Eq, Debug)]
enum Replica {
    Unasked,
    /// Asked, and late from this moment on.
    Asked {
        late_at: Moment,
    },
    /// Asked and passed over, but its answer still counts.
    Late,
    Answered(Option<Digest>),
    /// Sent what it lacked, and late from this moment on.
    Repairing {
        late_at: Moment,
    },
    /// Sent what it lacked and passed over.
    LateRepair,
    /// Durably holds what is returned.
    Holds,
    Failed,
}

/// How a read ended.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Found {
    /// What is known, tombstones and expired values included; none if no replica knows anything.
    Record(Option<Record>),
    /// As above without the values.
    Digest(Option<Digest>),
    /// Too few replicas.
    Failed(Failure),
}

/// What a read is asked to do.
#[derive(Clone, Debug)]
pub(super) struct ReadOrder {
    pub(super) key: Key,
    pub(super) partition: Partition,
    /// R.
    pub(super) needed: usize,
    pub(super) with_values: bool,
    /// Whether two such reads always share a replica: then it repairs before it answers.
    pub(super) quorum: bool,
    /// What the client's session names in the partition.
    pub(super) session: VersionVector,
}

/// One read under way.
#[derive(Clone, Debug)]
pub struct Read {
    order: ReadOrder,
    phase: u8,
    /// In the order in which they are asked.
    replicas: Vec<(NodeId, Replica)>,
    /// What the values that have arrived make together.
    values: Option<Record>,
    /// Whether some replica has answered with its values, or that it has none.
    values_known: bool,
    /// Who was asked for values and has not given them.
    values_from: Option<NodeId>,
    /// The replicas that have had all that the session names.
    up_to_date: Vec<NodeId>,
    /// What is returned, once that is settled.
    target: Option<Target>,
    refusal: Option<Refusal>,
}

#[derive(Clone, Debug)]
enum Target {
    Record(Record),
    Digest(Digest),
}

impl Read {
    /// A read of a key.
    pub(super) fn new(order: ReadOrder) -> Read {
        Read {
            phase: ASKING,
            replicas: Vec::new(),
            values: None,
            values_known: false,
            values_from: None,
            up_to_date: Vec::new(),
            target: None,
            refusal: None,
            order,
        }
    }

    /// Asks the replicas that promise to answer soonest.
    pub(super) fn start(&mut self, context: &mut Context<'_>) -> Option<Found> {
        let mut replicas = context.map.assignment.replicas(self.order.partition).to_vec();
        let alive = context.reachable(&replicas);
        if alive < self.order.needed {
            let too_few = Refusal::TooFewReplicas { alive: count(alive), needed: count(self.order.needed) };
            return Some(Found::Failed(Failure::NotApplied(too_few)));
        }
        replicas.retain(|replica| context.is_reachable(*replica));
        context.peers.sort_by_promise(context.now.moment, context.me(), &mut replicas);
        self.replicas = replicas.into_iter().map(|replica| (replica, Replica::Unasked)).collect();
        self.values = None;
        self.values_known = false;
        self.up_to_date.clear();
        self.target = None;
        self.ask_further(self.order.needed, context);
        None
    }

    /// Begins anew under a new map.
    pub(super) fn replan(&mut self, context: &mut Context<'_>) -> Option<Found> {
        self.phase = (self.phase + 1).min(LAST_PHASE);
        self.values_from = None;
        self.start(context)
    }

    /// Asks up to `number` replicas that were not asked yet: one for the values if nobody
    /// owes them, the others for their versions.
    fn ask_further(&mut self, number: usize, context: &mut Context<'_>) {
        let mut digests = Vec::new();
        let mut values = None;
        for (node, state) in self.replicas.iter_mut().filter(|(_, state)| *state == Replica::Unasked).take(number) {
            *state = Replica::Asked { late_at: context.late_at(*node) };
            if self.order.with_values && !self.values_known && self.values_from.is_none() {
                self.values_from = Some(*node);
                values = Some(*node);
            } else {
                digests.push(*node);
            }
        }
        let (key, after) = (&self.order.key, &self.order.session);
        if let Some(values) = values {
            let request = ReplicaRequest::Read { key: key.clone(), after: after.clone() };
            context.ask(vec![values], self.phase, request);
        }
        context.ask(digests, self.phase, ReplicaRequest::Digest { key: key.clone(), after: after.clone() });
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
        let (_, state) = self.replicas.iter_mut().find(|(node, _)| *node == from)?;
        if matches!(state, Replica::Repairing { .. } | Replica::LateRepair) {
            *state = match answer {
                Answer::Response(ReplicaResponse::Stored | ReplicaResponse::Superseded { .. }) => Replica::Holds,
                // Values that it still owed; they change nothing any more.
                Answer::Response(ReplicaResponse::Record { .. } | ReplicaResponse::Digest { .. }) => return None,
                _ => Replica::Failed,
            };
            return self.proceed(context);
        }
        // A replica that no longer has what it had is not to be believed, nor are its values.
        let gone_back = match (&*state, told_by(&answer)) {
            (Replica::Answered(Some(before)), Some(known)) => !known.is_some_and(|known| known.dominates(before)),
            _ => false,
        };
        let known = if gone_back { None } else { self.take_in(from, answer) };
        let owed_values = self.values_from == Some(from);
        if owed_values {
            self.values_from = None;
        }
        let (_, state) = self.replicas.iter_mut().find(|(node, _)| *node == from)?;
        let known = known.filter(|known| known.is_some() || !SeededBug::NotFoundIgnored.is_planted());
        match (known, &*state) {
            // It has said all it was asked; that it is gone now takes nothing back.
            (None, Replica::Answered(_) | Replica::Holds) if !owed_values && !gone_back => {}
            // A second answer of the same replica: the values that a digest had promised.
            (Some(known), _) => *state = Replica::Answered(known),
            (None, _) => *state = Replica::Failed,
        }
        self.proceed(context)
    }

    /// What a replica says that it holds; none if it does not say.
    fn take_in(&mut self, from: NodeId, answer: Answer) -> Option<Option<Digest>> {
        match answer {
            Answer::Response(ReplicaResponse::Record { record, behind }) => {
                self.up_to_date.extend((!behind).then_some(from));
                self.values_known = true;
                let digest = record.as_ref().map(Record::digest);
                self.values = match (self.values.take(), record) {
                    (Some(held), Some(record)) => Some(held.merge(record)),
                    (held, record) => held.or(record),
                };
                Some(digest)
            }
            Answer::Response(ReplicaResponse::Digest { digest, behind }) => {
                self.up_to_date.extend((!behind).then_some(from));
                Some(digest)
            }
            Answer::Response(ReplicaResponse::Refused(refusal)) => {
                self.refusal = Some(refusal);
                None
            }
            Answer::Response(_) | Answer::NotSent | Answer::Lost => None,
        }
    }

    fn number(&self, counts: impl Fn(&Replica) -> bool) -> usize {
        self.replicas.iter().filter(|(_, state)| counts(state)).count()
    }

    /// Goes as far as the answers allow.
    fn proceed(&mut self, context: &mut Context<'_>) -> Option<Found> {
        if self.target.is_none() {
            if let Some(found) = self.settle(context) {
                return Some(found);
            }
            self.target.as_ref()?;
        }
        self.repair(context)
    }

    /// Whether some replica whose answer counts has had all that the session names.
    fn session_met(&self) -> bool {
        let counts =
            |(node, state): &(NodeId, Replica)| matches!(state, Replica::Answered(_)) && self.up_to_date.contains(node);
        self.order.session.is_empty() || SeededBug::SessionIgnored.is_planted() || self.replicas.iter().any(counts)
    }

    /// Finds out what is returned: ends the read if nothing is known; fetches the values,
    /// asks further replicas, or waits.
    fn settle(&mut self, context: &mut Context<'_>) -> Option<Found> {
        let answered = self.number(|state| matches!(state, Replica::Answered(_)));
        let everybody = context.map.assignment.replicas(self.order.partition).len();
        let wanted = match self.session_met() || answered == everybody {
            true => self.order.needed,
            false => self.order.needed.max(answered + 1),
        };
        let wanted = if SeededBug::FirstReplyAnswers.is_planted() { 1 } else { wanted };
        if answered < wanted {
            return self.replace_failed(answered, wanted, context);
        }
        let known = self.replicas.iter().filter_map(|(_, state)| match state {
            Replica::Answered(digest) => digest.clone(),
            _ => None,
        });
        let Some(whole) = known.reduce(Digest::merge) else { return Some(self.found_nothing()) };
        let somebody_lacks = self.replicas.iter().any(|(_, state)| lacks(state, &whole));
        if !self.order.with_values && !somebody_lacks {
            self.target = Some(Target::Digest(whole));
            return None;
        }
        // Under `lww` a newer value than any that is vouched for may have come; it is as good,
        // and would hide the other for ever.
        let newer = self.values.as_ref().filter(|values| matches!(values, Record::Last(_)) && values.dominates(&whole));
        if let Some(record) = newer.cloned().or_else(|| filled(&whole, self.values.as_ref())) {
            self.target = Some(Target::Record(record));
            return None;
        }
        self.fetch(&whole, context)
    }

    fn found_nothing(&self) -> Found {
        if self.order.with_values { Found::Record(None) } else { Found::Digest(None) }
    }

    /// Asks a replica that holds something whose values are missing.
    fn fetch(&mut self, whole: &Digest, context: &mut Context<'_>) -> Option<Found> {
        let held = self.values.as_ref().map(Record::digest);
        let missing = |digest: &Digest| {
            let has = |held: &Digest, stamp| held.versions().iter().any(|version| version.stamp == stamp);
            let mut wanted =
                digest.versions().iter().filter(|version| version.value_bytes.is_some() && has(whole, version.stamp));
            wanted.any(|version| held.as_ref().is_none_or(|held| !has(held, version.stamp)))
        };
        let useful = |state: &Replica| matches!(state, Replica::Answered(Some(digest)) if missing(digest));
        let owing = self.values_from;
        if self.replicas.iter().any(|(node, state)| Some(*node) == owing && useful(state)) {
            return None;
        }
        match self.replicas.iter().find(|(_, state)| useful(state)) {
            Some((holder, _)) => {
                self.values_from = Some(*holder);
                let (key, after) = (self.order.key.clone(), self.order.session.clone());
                context.ask(vec![*holder], self.phase, ReplicaRequest::Read { key, after });
                None
            }
            None => Some(Found::Failed(self.too_few())),
        }
    }

    /// Sends what is returned to those that lack it, and ends once enough hold it.
    fn repair(&mut self, context: &mut Context<'_>) -> Option<Found> {
        let target = self.target.take().expect("it is settled");
        let mut lacking = Vec::new();
        for (node, state) in &mut self.replicas {
            let Replica::Answered(digest) = state else { continue };
            let holds = match &target {
                Target::Record(record) => digest.as_ref().is_some_and(|digest| digest.dominates(record)),
                Target::Digest(whole) => digest.as_ref().is_some_and(|digest| digest.dominates(whole)),
            };
            if holds {
                *state = Replica::Holds;
            } else {
                *state = Replica::Repairing { late_at: context.late_at(*node).plus(REPAIR_TIME) };
                lacking.push(*node);
            }
        }
        if let (Target::Record(record), false) = (&target, lacking.is_empty()) {
            context.read_repairs(lacking.len());
            let request = ReplicaRequest::Apply { key: self.order.key.clone(), record: record.clone() };
            context.ask(lacking, self.phase, request);
        }
        let holding = self.number(|state| *state == Replica::Holds);
        if !self.order.quorum || SeededBug::RepairNotAwaited.is_planted() || holding >= self.order.needed {
            return Some(self.end(target));
        }
        self.target = Some(target);
        self.replace_failed(holding, self.order.needed, context)
    }

    fn end(&self, target: Target) -> Found {
        match target {
            Target::Record(record) if self.order.with_values => Found::Record(Some(record)),
            Target::Record(record) => Found::Digest(Some(record.digest())),
            Target::Digest(digest) => Found::Digest(Some(digest)),
        }
    }

    /// Asks as many further replicas as are missing.
    fn replace_failed(&mut self, done: usize, wanted: usize, context: &mut Context<'_>) -> Option<Found> {
        let open = |state: &Replica| {
            matches!(state, Replica::Asked { .. } | Replica::Late | Replica::Repairing { .. } | Replica::LateRepair)
        };
        let waiting = self.number(open);
        let missing = wanted.saturating_sub(done + waiting);
        if missing > self.number(|state| *state == Replica::Unasked) {
            return Some(Found::Failed(self.too_few()));
        }
        if missing > 0 {
            self.ask_further(missing, context);
        }
        None
    }

    /// Fewer are left than the level needs: those that were reachable and then failed count no more.
    fn too_few(&self) -> Failure {
        let left = self.number(|state| *state != Replica::Failed);
        // Where none of them has had what the session names, one more was needed.
        let needed = self.order.needed.max(if self.session_met() { 0 } else { left + 1 });
        let too_few = Refusal::TooFewReplicas { alive: count(left), needed: count(needed) };
        Failure::NotApplied(self.refusal.clone().unwrap_or(too_few))
    }

    /// Passes over what is late.
    pub(super) fn wake(&mut self, context: &mut Context<'_>) {
        let mut late = 0;
        for (node, state) in &mut self.replicas {
            match state {
                Replica::Asked { late_at } if *late_at <= context.now.moment => {
                    *state = Replica::Late;
                    if self.values_from == Some(*node) {
                        self.values_from = None;
                    }
                }
                Replica::Repairing { late_at } if *late_at <= context.now.moment => *state = Replica::LateRepair,
                _ => continue,
            }
            late += 1;
            context.effects.push(super::Effect::Late(*node));
        }
        self.ask_further(late, context);
    }

    /// When [`Read::wake`] is due.
    pub(super) fn next_timeout(&self) -> Option<Moment> {
        let late_at = |state: &Replica| match state {
            Replica::Asked { late_at } | Replica::Repairing { late_at } => Some(*late_at),
            _ => None,
        };
        self.replicas.iter().filter_map(|(_, state)| late_at(state)).min()
    }

    /// The time is over.
    pub(super) fn time_out(&self) -> Failure {
        let answered = match self.target {
            Some(_) => self.number(|state| *state == Replica::Holds),
            None => self.number(|state| matches!(state, Replica::Answered(_))),
        };
        Failure::TimedOut { answered: count(answered), needed: count(self.order.needed) }
    }
}

/// What a replica says that it holds, if that is what it says.
fn told_by(answer: &Answer) -> Option<Option<Digest>> {
    match answer {
        Answer::Response(ReplicaResponse::Record { record, .. }) => Some(record.as_ref().map(Record::digest)),
        Answer::Response(ReplicaResponse::Digest { digest, .. }) => Some(digest.clone()),
        _ => None,
    }
}

fn lacks(state: &Replica, whole: &Digest) -> bool {
    match state {
        Replica::Answered(Some(digest)) => !digest.dominates(whole),
        Replica::Answered(None) => true,
        _ => false,
    }
}

/// The record that a digest stands for, its values taken from what has arrived; none if one
/// of them has not. What has arrived may hold versions that the digest knows to be gone.
fn filled(digest: &Digest, arrived: Option<&Record>) -> Option<Record> {
    use crate::types::{Content, Siblings, Summary, Version};
    let version = |summary: &Summary| {
        let Summary { stamp, expires_at, value_bytes } = *summary;
        if value_bytes.is_none() {
            return Some(Version { stamp, expires_at, content: Content::Tombstone });
        }
        arrived?.versions().iter().find(|version| version.stamp == stamp).cloned()
    };
    Some(match digest {
        Record::Last(summary) => Record::Last(version(summary)?),
        Record::Siblings(siblings) => {
            let versions = siblings.versions().iter().map(version).collect::<Option<Vec<Version>>>()?;
            Record::Siblings(Siblings::new(versions, siblings.context().clone()))
        }
    })
}

#[cfg(test)]
#[path = "read_tests.rs"]
mod tests;
