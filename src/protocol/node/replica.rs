//! The node as a replica: what peers ask it to keep and to tell.
//!
//! Invariant: an answer leaves only after the store has said that what it speaks of is
//! durable; what was read and is not durable yet waits for a barrier.

use std::collections::{BTreeSet, VecDeque};

use crate::protocol::io::{Action, LocalRead, LocalReadResult, StorageTicket};
use crate::protocol::membership::MembershipInput;
use crate::protocol::request::Answer;
use crate::types::{
    Applied, Claim, Digest, Key, Mutation, NodeId, Now, Partition, PeerMemory, Record, Refusal, ScanRange, SeededBug,
    Stamp, Timestamp, limits,
};
use crate::wire::{Envelope, Message, ReplicaRequest, ReplicaResponse, RequestId};

use super::{Node, Origin, epochs, sync};

/// Who waits for an order to the store, and for what.
#[derive(Debug)]
pub(super) struct Served {
    to: Waiting,
    /// Up to where timestamps may be given once this is durable.
    ceiling: Timestamp,
    /// What few orders have; apart, because there are very many orders.
    more: Option<Box<More>>,
}

/// What an order may carry besides.
#[derive(Debug, Default)]
struct More {
    confirm: Option<Stamp>,
    /// The answer, if all that is missing is that it is durable.
    answer: Option<ReplicaResponse>,
    /// The lock to be let go of.
    unlock: Option<Key>,
    remember: Option<(NodeId, PeerMemory)>,
}

#[derive(Clone, Copy, Debug)]
enum Waiting {
    /// A request of this node.
    Own(u64, u8),
    /// A peer.
    Peer(NodeId, RequestId),
    /// Nobody.
    Nobody,
    /// Requests that wait for a higher ceiling.
    Held,
    /// The round of log sync.
    Look,
    Absorb(Partition),
    Remember,
}

/// Messages of peers that must not be carried out once more if a copy of them comes later:
/// writes that were refused, because their senders tell the clients that nothing was done;
/// and forwarded writes, because each would be a new write.
#[derive(Debug, Default)]
pub(super) struct RecentMessages {
    known: BTreeSet<(NodeId, RequestId)>,
    order: VecDeque<(NodeId, RequestId)>,
}

/// How many are kept in mind.
const RECENT_MESSAGES: usize = 4 * 1024;

impl RecentMessages {
    /// Keeps one in mind; whether it is new.
    fn note(&mut self, from: NodeId, id: RequestId) -> bool {
        if !self.known.insert((from, id)) {
            return false;
        }
        self.order.push_back((from, id));
        if self.order.len() > RECENT_MESSAGES
            && let Some(oldest) = self.order.pop_front()
        {
            self.known.remove(&oldest);
        }
        true
    }
}

/// Writes of peers that were taken lately, as many as there is room for: cheap, because
/// each write is noted; one that has lost its place is only taken once more, which is harmless
/// unless it is refused then.
#[derive(Debug, Default)]
pub(super) struct TakenWrites(Vec<Option<(NodeId, RequestId)>>);

impl TakenWrites {
    fn place(from: NodeId, id: RequestId) -> usize {
        let mixed = (id.0 ^ u64::from(from.number())).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        (mixed >> 32) as usize % RECENT_MESSAGES
    }

    fn contains(&self, from: NodeId, id: RequestId) -> bool {
        self.0.get(TakenWrites::place(from, id)).is_some_and(|noted| *noted == Some((from, id)))
    }

    fn note(&mut self, from: NodeId, id: RequestId) {
        self.0.resize(RECENT_MESSAGES, None);
        self.0[TakenWrites::place(from, id)] = Some((from, id));
    }
}

impl Served {
    fn new(to: Waiting) -> Served {
        Served { to, ceiling: Timestamp::default(), more: None }
    }

    fn with(to: Waiting, more: More) -> Served {
        Served { more: Some(Box::new(more)), ..Served::new(to) }
    }

    pub(super) fn unheard() -> Served {
        Served::new(Waiting::Nobody)
    }

    pub(super) fn held() -> Served {
        Served::new(Waiting::Held)
    }

    pub(super) fn looking() -> Served {
        Served::new(Waiting::Look)
    }

    pub(super) fn absorbing(partition: Partition) -> Served {
        Served::new(Waiting::Absorb(partition))
    }

    pub(super) fn remembering(peer: NodeId, memory: PeerMemory) -> Served {
        Served::with(Waiting::Remember, More { remember: Some((peer, memory)), ..More::default() })
    }
}

impl Node {
    /// Takes in a message of a peer.
    pub(super) fn hear(&mut self, now: Now, from: NodeId, envelope: Envelope, actions: &mut Vec<Action>) {
        let Envelope { epoch, clock, message } = envelope;
        let skew = self.clock.observe(clock, now.wall).err();
        if skew.is_some() {
            self.counters.clock_skew += 1;
        }
        self.notice_epoch(now, from, epoch, actions);
        let admitted = self.peers.is_connected(from);
        match message {
            Message::Response { id, response } if id == epochs::FETCH => self.take_map(now, from, response, actions),
            Message::Response { id, response } if sync::is_apart(id) => {
                self.apart_answered(now, from, id, response, actions);
            }
            Message::Response { id, response } if admitted => {
                self.answered(now, id, from, Answer::Response(response), actions);
            }
            Message::Response { .. } => {}
            Message::Gossip(gossip) => self.gossip(now, MembershipInput::Gossip { from, gossip }, actions),
            Message::Request { id, request: ReplicaRequest::Meet { store, commit } } => {
                self.meet(now, from, id, (store, commit), actions);
            }
            Message::Request { request: ReplicaRequest::Fence { remembered }, .. } => {
                self.fenced_by(from, remembered, actions);
            }
            Message::Request { id, request: ReplicaRequest::FetchMap } => {
                self.respond(from, id, ReplicaResponse::Map(self.map.clone()), actions);
            }
            Message::Request { id, request } => {
                let writes = changes_something(&request);
                let hands_on =
                    matches!(&request, ReplicaRequest::Forward { request, .. } if request.operation.writes());
                let was_refused = (writes || hands_on) && self.refused.known.contains(&(from, id));
                let was_taken = (hands_on && self.forwarded.known.contains(&(from, id)))
                    || (writes && self.taken.contains(from, id));
                let refusal = if was_refused {
                    Some(Refusal::Overloaded)
                } else if was_taken {
                    // The first one is answered. A refusal of this copy would deny what was done.
                    return;
                } else if !admitted || self.fenced {
                    Some(Refusal::NodeFenced("the two nodes have not met yet".into()))
                } else if let (Some(skew), true) = (skew, writes) {
                    Some(Refusal::ClockSkew { ahead_ms: skew.ahead_ms })
                } else if epoch != self.map.epoch && depends_on_map(&request) {
                    self.counters.wrong_epoch += 1;
                    Some(Refusal::WrongEpoch { newest: epoch.max(self.map.epoch) })
                } else {
                    self.objection(now, &request)
                };
                match refusal {
                    Some(refusal) => {
                        if writes || hands_on {
                            self.refused.note(from, id);
                        }
                        self.respond(from, id, ReplicaResponse::Refused(refusal), actions);
                    }
                    None => {
                        if writes {
                            self.taken.note(from, id);
                        }
                        self.serve(now, from, id, request, actions);
                    }
                }
            }
        }
    }

    /// What speaks against a peer's request, its epoch and clock being right.
    fn objection(&mut self, now: Now, request: &ReplicaRequest) -> Option<Refusal> {
        let partition = self.partition_of(request)?;
        if !self.map.assignment.replicas(partition).contains(&self.settings.actor.node) {
            return Some(Refusal::Invalid(format!("partition {} is not owned here", partition.0)));
        }
        let newest = match request {
            ReplicaRequest::Apply { record, .. } => {
                let limit = self.settings.max_value_bytes as u64;
                let too_long = record.versions().iter().map(|version| version.summary().value_bytes.unwrap_or(0));
                if let Some(bytes) = too_long.map(u64::from).find(|bytes| *bytes > limit) {
                    return Some(Refusal::ValueTooLong { bytes, limit });
                }
                record.newest_stamp()
            }
            ReplicaRequest::Truncate { stamp, .. } => Some(*stamp),
            ReplicaRequest::Claim { claim: Claim::Write { version, .. }, .. } => {
                let (bytes, limit) =
                    (u64::from(version.summary().value_bytes.unwrap_or(0)), limits::OP_VALUE_BYTES as u64);
                if bytes > limit {
                    return Some(Refusal::ValueTooLong { bytes, limit });
                }
                Some(version.stamp)
            }
            _ => None,
        };
        let newest = newest.map_or(Timestamp::default(), |stamp| stamp.timestamp);
        let ahead_ms = newest.wall().0.saturating_sub(now.wall.0);
        let too_far = u128::from(ahead_ms) > self.settings.max_clock_skew.as_millis() && newest > self.clock.last();
        if too_far {
            self.counters.clock_skew += 1;
        }
        too_far.then_some(Refusal::ClockSkew { ahead_ms })
    }

    fn partition_of(&self, request: &ReplicaRequest) -> Option<Partition> {
        match request {
            ReplicaRequest::Apply { key, .. }
            | ReplicaRequest::Read { key, .. }
            | ReplicaRequest::Digest { key, .. }
            | ReplicaRequest::History { key }
            | ReplicaRequest::Confirm { key, .. } => Some(self.map.partition_of(key)),
            ReplicaRequest::Truncate { partition, .. }
            | ReplicaRequest::Scan { partition, .. }
            | ReplicaRequest::Pull { partition, .. }
            | ReplicaRequest::Claim { partition, .. } => Some(*partition),
            ReplicaRequest::Statistics
            | ReplicaRequest::Forward { .. }
            | ReplicaRequest::Meet { .. }
            | ReplicaRequest::Fence { .. }
            | ReplicaRequest::Coverage { .. }
            | ReplicaRequest::FetchMap => None,
        }
    }

    fn serve(&mut self, now: Now, from: NodeId, id: RequestId, request: ReplicaRequest, actions: &mut Vec<Action>) {
        self.counters.served += 1;
        match request {
            ReplicaRequest::Forward { request, .. } if request.operation.writes() && !self.forwarded.note(from, id) => {
            }
            ReplicaRequest::Forward { request, remaining } => {
                self.begin(now, Origin::Peer(from, id), request, remaining, actions);
            }
            ReplicaRequest::Coverage { commit, changed } => self.take_report(now, from, id, (commit, changed), actions),
            request => self.place_order(Served::new(Waiting::Peer(from, id)), request, actions),
        }
    }

    /// Asks this node's own store on behalf of one of its own requests.
    pub(super) fn ask_own_store(&mut self, number: u64, phase: u8, request: ReplicaRequest, actions: &mut Vec<Action>) {
        self.place_order(Served::new(Waiting::Own(number, phase)), request, actions);
    }

    /// Merges a record into this node's own store; the key's lock goes with the answer.
    pub(super) fn append_locked(
        &mut self,
        (number, phase): (u64, u8),
        key: Key,
        record: Record,
        actions: &mut Vec<Action>,
    ) {
        let more = More { unlock: Some(key.clone()), ..More::default() };
        let served = Served::with(Waiting::Own(number, phase), more);
        self.place_order(served, ReplicaRequest::Apply { key, record }, actions);
    }

    fn place_order(&mut self, mut served: Served, request: ReplicaRequest, actions: &mut Vec<Action>) {
        let partition_of = |key: &Key| self.map.partition_of(key);
        match request {
            // Whoever lacks what a truncation did to one key lacks the truncation.
            ReplicaRequest::Apply { key, record: Record::Last(version) } if version.is_truncation() => {
                let (partition, namespace) = (partition_of(&key), key.namespace());
                self.order_append(served, Mutation::Truncate { partition, namespace, stamp: version.stamp }, actions);
            }
            ReplicaRequest::Apply { key, record } => {
                let partition = partition_of(&key);
                self.order_append(served, Mutation::Record { partition, key, record }, actions);
            }
            ReplicaRequest::Truncate { partition, namespace, stamp } => {
                self.order_append(served, Mutation::Truncate { partition, namespace, stamp }, actions);
            }
            ReplicaRequest::Claim { partition, op, claim, until } => {
                self.order_append(served, Mutation::Claim { partition, op, claim, until }, actions);
            }
            ReplicaRequest::Read { key, after } => self.order_fetch(served, LocalRead::Value { key, after }, actions),
            ReplicaRequest::Digest { key, after } => self.order_fetch(served, LocalRead::Head { key, after }, actions),
            ReplicaRequest::Confirm { key, stamp } => {
                served.more = Some(Box::new(More { confirm: Some(stamp), ..More::default() }));
                // If it was let go of since, the log still covers it.
                let after = [stamp.dot].into_iter().collect();
                self.order_fetch(served, LocalRead::Head { key, after }, actions);
            }
            ReplicaRequest::Scan { partition, namespace, from, limit } => {
                self.order_fetch(served, LocalRead::Scan(ScanRange { partition, namespace, from, limit }), actions);
            }
            ReplicaRequest::Pull { partition, wanted } => {
                self.order_fetch(served, LocalRead::Pull { partition, wanted }, actions);
            }
            ReplicaRequest::Statistics => self.order_fetch(served, LocalRead::Statistics, actions),
            ReplicaRequest::History { key } => self.order_fetch(served, LocalRead::History(key), actions),
            ReplicaRequest::Forward { .. }
            | ReplicaRequest::Meet { .. }
            | ReplicaRequest::Fence { .. }
            | ReplicaRequest::Coverage { .. }
            | ReplicaRequest::FetchMap => unreachable!("the store is not asked this"),
        }
    }

    pub(super) fn order_append(&mut self, mut served: Served, mutation: Mutation, actions: &mut Vec<Action>) {
        served.ceiling = self.clock();
        let ticket = self.new_ticket();
        if let (Waiting::Peer(peer, id), true) = (served.to, SeededBug::AcknowledgeBeforeSync.is_planted()) {
            self.respond(peer, id, ReplicaResponse::Stored, actions);
            served.to = Waiting::Nobody;
        }
        self.orders.insert(ticket, served);
        actions.push(Action::Append { ticket, mutation });
    }

    pub(super) fn order_fetch(&mut self, served: Served, read: LocalRead, actions: &mut Vec<Action>) {
        let ticket = self.new_ticket();
        self.orders.insert(ticket, served);
        actions.push(Action::Fetch { ticket, read });
    }

    /// A mutation is durable.
    pub(super) fn committed(&mut self, now: Now, ticket: StorageTicket, applied: Applied, actions: &mut Vec<Action>) {
        let Some(served) = self.orders.remove(&ticket) else { return };
        self.ceiling_raised(now, served.ceiling);
        let mut more = served.more;
        if let Some(key) = more.as_mut().and_then(|more| more.unlock.take()) {
            self.unlock(now, &key, actions);
        }
        let response = match (more.as_mut().and_then(|more| more.answer.take()), applied) {
            (Some(answer), _) => answer,
            (None, Applied::Stored) => ReplicaResponse::Stored,
            (None, Applied::Superseded { by }) => ReplicaResponse::Superseded { by },
            (None, Applied::Noted(claim)) => ReplicaResponse::Noted(*claim),
            (None, Applied::Behind { horizon }) => {
                if let Waiting::Peer(peer, id) = served.to {
                    self.refused.note(peer, id);
                }
                self.counters.behind += 1;
                ReplicaResponse::Refused(Refusal::Behind { horizon })
            }
        };
        if let Some((peer, memory)) = more.and_then(|more| more.remember) {
            return self.remembered(now, peer, memory, true, actions);
        }
        self.tell(now, served.to, true, response, actions);
    }

    /// The store has answered a question.
    pub(super) fn fetched(
        &mut self,
        now: Now,
        ticket: StorageTicket,
        result: LocalReadResult,
        actions: &mut Vec<Action>,
    ) {
        let Some(served) = self.orders.remove(&ticket) else { return };
        let (response, durable) = match result {
            LocalReadResult::Value { record, durable, behind } => (ReplicaResponse::Record { record, behind }, durable),
            LocalReadResult::Head { digest, durable, behind } => {
                match served.more.as_ref().and_then(|more| more.confirm) {
                    Some(stamp) if holds(digest.as_ref(), stamp) => (ReplicaResponse::Stored, durable),
                    Some(_) if !behind => (ReplicaResponse::Stored, false),
                    _ => (ReplicaResponse::Digest { digest, behind }, durable),
                }
            }
            LocalReadResult::Scan(found) => (ReplicaResponse::Page { entries: found.entries, next: found.next }, true),
            LocalReadResult::Statistics(statistics) => (ReplicaResponse::Statistics(statistics), true),
            LocalReadResult::Pulled(pulled) => (ReplicaResponse::Pulled(pulled), false),
            LocalReadResult::History(history) => (ReplicaResponse::History(history), true),
            LocalReadResult::Coverage { commit, changed } => {
                return self.look_done(now, Some((commit, changed)), actions);
            }
        };
        if durable || SeededBug::DirtyRead.is_planted() {
            return self.tell(now, served.to, true, response, actions);
        }
        // All that was read is durable once a barrier is.
        let served = Served::with(served.to, More { answer: Some(response), ..More::default() });
        self.order_append(served, Mutation::Barrier, actions);
    }

    /// The store's queue was full.
    pub(super) fn storage_refused(&mut self, now: Now, ticket: StorageTicket, actions: &mut Vec<Action>) {
        self.counters.overloaded += 1;
        let Some(served) = self.orders.remove(&ticket) else { return };
        if let Some(more) = served.more {
            if let Some(key) = more.unlock {
                self.unlock(now, &key, actions);
            }
            if let Some((peer, memory)) = more.remember {
                return self.remembered(now, peer, memory, false, actions);
            }
        }
        if let Waiting::Peer(peer, id) = served.to {
            self.refused.note(peer, id);
        }
        self.tell(now, served.to, false, ReplicaResponse::Refused(Refusal::Overloaded), actions);
    }

    fn tell(&mut self, now: Now, to: Waiting, done: bool, response: ReplicaResponse, actions: &mut Vec<Action>) {
        match to {
            Waiting::Nobody => {}
            Waiting::Held => self.release_held(now, done, actions),
            Waiting::Look => self.look_done(now, None, actions),
            Waiting::Absorb(partition) => self.absorbed(now, partition, done, actions),
            Waiting::Remember => {}
            Waiting::Peer(peer, id) => self.respond(peer, id, response, actions),
            Waiting::Own(number, phase) => {
                let me = self.settings.actor.node;
                self.note_answer(now, number, me, &response);
                let answer = Answer::Response(response);
                self.step(now, number, actions, |coordination, context| {
                    coordination.answer(me, phase, answer, context);
                });
            }
        }
    }
}

/// Whether a mutation, or something that has replaced it, is held.
fn holds(digest: Option<&Digest>, stamp: Stamp) -> bool {
    match digest {
        None => false,
        Some(Record::Last(summary)) => summary.stamp >= stamp,
        Some(Record::Siblings(siblings)) => siblings.context().covers(stamp.dot),
    }
}

/// Whether a request must not be planned with another map than this node's.
fn depends_on_map(request: &ReplicaRequest) -> bool {
    !matches!(request, ReplicaRequest::FetchMap | ReplicaRequest::Statistics)
}

/// Whether its timestamps would stay.
fn changes_something(request: &ReplicaRequest) -> bool {
    matches!(request, ReplicaRequest::Apply { .. } | ReplicaRequest::Truncate { .. } | ReplicaRequest::Claim { .. })
}

#[cfg(test)]
#[path = "replica_tests.rs"]
mod tests;
