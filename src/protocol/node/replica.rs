//! The node as a replica: what peers ask it to keep and to tell.
//!
//! Invariant: `Stored` and `Superseded` leave only after the store has said that what
//! they speak of is durable.

use crate::protocol::io::{Action, LocalRead, StorageTicket};
use crate::protocol::request::Answer;
use crate::types::{Key, Mutation, NodeId, Now, Partition, Refusal, ScanRange, Stamp};
use crate::wire::{Envelope, Message, ReplicaRequest, ReplicaResponse, RequestId};

use super::{Node, Origin, epochs};

/// Who waits for an order to the store, and for what.
#[derive(Clone, Copy, Debug)]
pub(super) struct Served {
    to: Waiting,
    confirm: Option<Stamp>,
}

#[derive(Clone, Copy, Debug)]
enum Waiting {
    /// A request of this node.
    Own(u64, u8),
    /// A peer.
    Peer(NodeId, RequestId),
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
        match message {
            Message::Response { id, response } if id == epochs::FETCH => self.take_map(now, from, response, actions),
            Message::Response { id, response } => {
                self.answered(now, id, from, Answer::Response(response), actions);
            }
            Message::Request { id, request } => {
                let refusal = if let (Some(skew), true) = (skew, changes_something(&request)) {
                    Some(Refusal::ClockSkew { ahead_ms: skew.ahead_ms })
                } else if epoch != self.map.epoch && depends_on_map(&request) {
                    self.counters.wrong_epoch += 1;
                    Some(Refusal::WrongEpoch { newest: epoch.max(self.map.epoch) })
                } else {
                    self.objection(&request)
                };
                match refusal {
                    Some(refusal) => self.respond(from, id, ReplicaResponse::Refused(refusal), actions),
                    None => self.serve(now, from, id, request, actions),
                }
            }
        }
    }

    /// What speaks against a peer's request, its epoch and clock being right.
    fn objection(&mut self, request: &ReplicaRequest) -> Option<Refusal> {
        let partition = self.partition_of(request)?;
        if !self.map.assignment.replicas(partition).contains(&self.settings.actor.node) {
            return Some(Refusal::Invalid(format!("partition {} is not owned here", partition.0)));
        }
        let ReplicaRequest::Apply { version, .. } = request else { return None };
        let bytes = u64::from(version.summary().value_bytes.unwrap_or(0));
        let limit = self.settings.max_value_bytes as u64;
        (bytes > limit).then_some(Refusal::ValueTooLong { bytes, limit })
    }

    fn partition_of(&self, request: &ReplicaRequest) -> Option<Partition> {
        match request {
            ReplicaRequest::Apply { key, .. }
            | ReplicaRequest::Read { key }
            | ReplicaRequest::Digest { key }
            | ReplicaRequest::Confirm { key, .. } => Some(self.map.partition_of(key)),
            ReplicaRequest::Truncate { partition, .. } | ReplicaRequest::Scan { partition, .. } => Some(*partition),
            ReplicaRequest::Statistics | ReplicaRequest::Forward { .. } | ReplicaRequest::FetchMap => None,
        }
    }

    fn serve(&mut self, now: Now, from: NodeId, id: RequestId, request: ReplicaRequest, actions: &mut Vec<Action>) {
        self.counters.served += 1;
        match request {
            ReplicaRequest::Forward { request, remaining } => {
                self.begin(now, Origin::Peer(from, id), request, remaining, actions);
            }
            ReplicaRequest::FetchMap => {
                let map = ReplicaResponse::Map(self.map.clone());
                self.respond(from, id, map, actions);
            }
            request => self.place_order(Waiting::Peer(from, id), request, actions),
        }
    }

    /// Asks this node's own store on behalf of one of its own requests.
    pub(super) fn ask_own_store(&mut self, number: u64, phase: u8, request: ReplicaRequest, actions: &mut Vec<Action>) {
        self.place_order(Waiting::Own(number, phase), request, actions);
    }

    fn place_order(&mut self, to: Waiting, request: ReplicaRequest, actions: &mut Vec<Action>) {
        let confirm = match &request {
            ReplicaRequest::Confirm { stamp, .. } => Some(*stamp),
            _ => None,
        };
        let ticket = self.new_ticket();
        self.orders.insert(ticket, Served { to, confirm });
        actions.push(self.order(ticket, request));
    }

    fn order(&self, ticket: StorageTicket, request: ReplicaRequest) -> Action {
        let append = |mutation| Action::Append { ticket, mutation };
        let fetch = |read| Action::Fetch { ticket, read };
        let partition_of = |key: &Key| self.map.partition_of(key);
        match request {
            ReplicaRequest::Apply { key, version } => {
                append(Mutation::Record { partition: partition_of(&key), key, version })
            }
            ReplicaRequest::Truncate { partition, namespace, stamp } => {
                append(Mutation::Truncate { partition, namespace, stamp })
            }
            ReplicaRequest::Read { key } => fetch(LocalRead::Value(key)),
            ReplicaRequest::Digest { key } | ReplicaRequest::Confirm { key, .. } => fetch(LocalRead::Head(key)),
            ReplicaRequest::Scan { partition, namespace, from, limit } => {
                fetch(LocalRead::Scan(ScanRange { partition, namespace, from, limit }))
            }
            ReplicaRequest::Statistics => fetch(LocalRead::Statistics),
            ReplicaRequest::Forward { .. } | ReplicaRequest::FetchMap => unreachable!("the store is not asked this"),
        }
    }

    /// The store has answered.
    pub(super) fn local_answer(
        &mut self,
        now: Now,
        ticket: StorageTicket,
        response: ReplicaResponse,
        actions: &mut Vec<Action>,
    ) {
        let Some(served) = self.orders.remove(&ticket) else { return };
        if let (Some(stamp), ReplicaResponse::Digest(Some(known))) = (served.confirm, &response)
            && known.stamp >= stamp
        {
            // What was read may not be durable yet; all of it is once a barrier is.
            let ticket = self.new_ticket();
            self.orders.insert(ticket, Served { to: served.to, confirm: None });
            return actions.push(Action::Append { ticket, mutation: Mutation::Barrier });
        }
        match served.to {
            Waiting::Peer(peer, id) => self.respond(peer, id, response, actions),
            Waiting::Own(number, phase) => {
                let me = self.settings.actor.node;
                let answer = Answer::Response(response);
                self.step(now, number, actions, |coordination, context| {
                    coordination.answer(me, phase, answer, context);
                });
            }
        }
    }
}

/// Whether a request must not be planned with another map than this node's.
fn depends_on_map(request: &ReplicaRequest) -> bool {
    !matches!(request, ReplicaRequest::FetchMap | ReplicaRequest::Statistics)
}

/// Whether its timestamps would stay.
fn changes_something(request: &ReplicaRequest) -> bool {
    match request {
        ReplicaRequest::Apply { .. } | ReplicaRequest::Truncate { .. } => true,
        ReplicaRequest::Forward { .. }
        | ReplicaRequest::Read { .. }
        | ReplicaRequest::Digest { .. }
        | ReplicaRequest::Confirm { .. }
        | ReplicaRequest::Scan { .. }
        | ReplicaRequest::Statistics
        | ReplicaRequest::FetchMap => false,
    }
}
