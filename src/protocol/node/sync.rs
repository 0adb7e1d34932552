//! Log sync, as this node carries it out: rounds, what is asked of peers apart from
//! clients' requests, and what comes of it.

use std::collections::BTreeMap;

use crate::protocol::io::{Action, LocalRead};
use crate::types::{
    CommitNumber, Coverage, Moment, Mutation, NodeId, Now, Partition, Pulled, PulledItem, Timestamp, WallTime,
};
use crate::wire::{Message, ReplicaRequest, ReplicaResponse, RequestId};

use super::Node;
use super::replica::Served;

/// The ids of questions that no client's request has asked have this bit.
const APART: u64 = 1 << 63;
/// How much older than every clock an end must be for a value to be let go of.
const EXPIRY_MARGIN: std::time::Duration = std::time::Duration::from_secs(2);

/// Questions to peers that belong to no request.
#[derive(Debug, Default)]
pub(super) struct Apart {
    next: u64,
    open: BTreeMap<RequestId, Question>,
}

/// One of them.
#[derive(Clone, Copy, Debug)]
struct Question {
    to: NodeId,
    asked: Moment,
    what: What,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum What {
    Meet,
    Fence,
    Coverage,
    Pull(Partition, Timestamp),
}

impl Apart {
    /// Ids that begin far from those of an earlier life.
    pub(super) fn new(begin: u64) -> Apart {
        Apart { next: begin & !APART, open: BTreeMap::new() }
    }

    pub(super) fn len(&self) -> usize {
        self.open.len()
    }
}

/// Whether an answer belongs to one of these questions.
pub(super) fn is_apart(id: RequestId) -> bool {
    id.0 & APART != 0
}

impl Node {
    /// Asks a peer something that belongs to no client's request.
    pub(super) fn send_apart(&mut self, now: Now, to: NodeId, request: ReplicaRequest, actions: &mut Vec<Action>) {
        let what = match &request {
            ReplicaRequest::Meet { .. } => What::Meet,
            ReplicaRequest::Fence { .. } => What::Fence,
            ReplicaRequest::Coverage { .. } => What::Coverage,
            ReplicaRequest::Pull { partition, .. } => What::Pull(*partition, self.repair.horizon(*partition)),
            other => unreachable!("{other:?} belongs to a request"),
        };
        let id = RequestId(APART | self.apart.next);
        self.apart.next = (self.apart.next + 1) & !APART;
        self.apart.open.insert(id, Question { to, asked: now.moment, what });
        let envelope = self.envelope(Message::Request { id, request });
        actions.push(Action::Send { to: vec![to], envelope });
    }

    /// A question was not sent.
    pub(super) fn apart_not_sent(&mut self, id: RequestId) {
        if let Some(question) = self.apart.open.remove(&id) {
            self.give_up(question);
        }
    }

    /// The connection to a peer is gone.
    pub(super) fn apart_lost(&mut self, peer: NodeId) {
        self.apart.open.retain(|_, question| question.to != peer);
        self.repair.peer_lost(peer);
    }

    fn give_up(&mut self, question: Question) {
        match question.what {
            What::Coverage => self.repair.not_told(question.to),
            What::Pull(partition, _) => self.repair.pulled(partition),
            What::Meet | What::Fence => {}
        }
    }

    /// An answer has come.
    pub(super) fn apart_answered(
        &mut self,
        now: Now,
        from: NodeId,
        id: RequestId,
        response: ReplicaResponse,
        actions: &mut Vec<Action>,
    ) {
        let Some(question) = self.apart.open.remove(&id) else { return };
        if question.to != from {
            self.apart.open.insert(id, question);
            return;
        }
        match (question.what, response) {
            (What::Meet, ReplicaResponse::Met { wall }) => {
                self.watch.compared(from, question.asked, now.moment, wall);
                self.meetings.heard_us.insert(from);
            }
            (What::Coverage, ReplicaResponse::Met { wall }) => {
                self.watch.compared(from, question.asked, now.moment, wall);
                self.repair.told(from);
            }
            (What::Pull(partition, horizon), ReplicaResponse::Pulled(pulled)) if self.peers.is_connected(from) => {
                self.absorb(now, partition, pulled, horizon, actions);
            }
            _ => self.give_up(question),
        }
    }

    fn absorb(
        &mut self,
        now: Now,
        partition: Partition,
        pulled: Pulled,
        horizon: Timestamp,
        actions: &mut Vec<Action>,
    ) {
        self.counters.pulled_lost = self.counters.pulled_lost.saturating_add(pulled.lost.count());
        let latest = Timestamp::at(now.wall).plus(self.settings.max_clock_skew).max(self.clock.last());
        let items = pulled.items.into_iter().filter(|item| newest_of(item) <= latest);
        let pulled = Pulled { items: items.collect(), lost: pulled.lost };
        if pulled.items.is_empty() {
            return self.repair.pulled(partition);
        }
        self.counters.pulled += pulled.items.iter().map(|item| item.stamps().len() as u64).sum::<u64>();
        let mutation = Mutation::Absorb { partition, pulled, horizon };
        self.order_append(Served::absorbing(partition), mutation, actions);
    }

    /// What was pulled is durable, or was not taken.
    pub(super) fn absorbed(&mut self, now: Now, partition: Partition, taken: bool, actions: &mut Vec<Action>) {
        self.repair.pulled(partition);
        if taken {
            // There may be more of it.
            self.begin_round(now, actions);
        }
    }

    /// A peer reports what it covers.
    pub(super) fn take_report(
        &mut self,
        now: Now,
        from: NodeId,
        id: RequestId,
        (commit, changed): (CommitNumber, Vec<Coverage>),
        actions: &mut Vec<Action>,
    ) {
        let Some(memory) = self.meetings.memory.get_mut(&from) else { return };
        memory.commit = memory.commit.max(commit);
        let me = self.settings.actor.node;
        let both = |coverage: &Coverage| {
            let replicas = self.map.assignment.replicas(coverage.partition);
            replicas.contains(&me) && replicas.contains(&from)
        };
        let changed = changed.into_iter().filter(both).collect();
        self.repair.reported(from, changed);
        self.respond(from, id, ReplicaResponse::Met { wall: now.wall }, actions);
    }

    /// When the next round is due.
    pub(super) fn round_due(&self) -> Moment {
        self.repair.next_round
    }

    /// Looks at the own store; the rest of the round follows its answer.
    pub(super) fn begin_round(&mut self, now: Now, actions: &mut Vec<Action>) {
        self.repair.next_round = now.moment.plus(self.settings.sync_interval);
        self.expire_questions(now, actions);
        for peer in self.repair.unremembered() {
            let Some(memory) = self.meetings.memory.get(&peer).copied() else { continue };
            let mutation = Mutation::Remember { node: peer, memory };
            self.order_append(Served::remembering(peer, memory), mutation, actions);
        }
        if !self.repair.looking {
            self.repair.looking = true;
            let since = self.repair.looked_until();
            self.order_fetch(Served::looking(), LocalRead::Coverage { since }, actions);
        }
    }

    fn expire_questions(&mut self, now: Now, actions: &mut Vec<Action>) {
        let patience = self.settings.request_timeout + self.settings.sync_interval;
        let late = self.apart.open.iter().filter(|(_, question)| question.asked.plus(patience) <= now.moment);
        let late: Vec<RequestId> = late.map(|(id, _)| *id).collect();
        for id in late {
            self.apart_not_sent(id);
        }
        let greeting =
            |peer: NodeId| self.apart.open.values().any(|question| question.what == What::Meet && question.to == peer);
        let linked = self.map.members.keys().copied().filter(|peer| self.peers.is_linked(*peer));
        let unheard = linked.filter(|peer| !self.meetings.heard_us.contains(peer) && !greeting(*peer));
        for peer in unheard.collect::<Vec<NodeId>>() {
            self.greet(now, peer, actions);
        }
    }

    /// The own store has said what it covers.
    pub(super) fn look_done(
        &mut self,
        now: Now,
        seen: Option<(CommitNumber, Vec<Coverage>)>,
        actions: &mut Vec<Action>,
    ) {
        let Some((commit, changed)) = seen else {
            self.repair.looking = false;
            return;
        };
        self.repair.looked(commit, changed);
        let me = self.settings.actor.node;
        let peers: Vec<NodeId> = self.peers.connected().collect();
        for peer in peers {
            if let Some((commit, changed)) = self.repair.tell(peer, me, &self.map) {
                self.send_apart(now, peer, ReplicaRequest::Coverage { commit, changed }, actions);
            }
        }
        let peers = &self.peers;
        for wanted in self.repair.pulls(me, &self.map, |peer| peers.is_connected(peer)) {
            let request = ReplicaRequest::Pull { partition: wanted.partition, wanted: wanted.dots };
            self.send_apart(now, wanted.from, request, actions);
        }
        if self.repair.next_collection <= now.moment {
            self.collect(now, actions);
            // Where much is left, the next round goes on with it.
            let pause =
                if self.repair.has_more() { self.settings.sync_interval } else { self.settings.collect_interval };
            self.repair.next_collection = now.moment.plus(pause.min(self.settings.collect_interval));
        }
    }

    fn collect(&mut self, now: Now, actions: &mut Vec<Action>) {
        let earliest = self.watch.earliest(now);
        let margin = EXPIRY_MARGIN + self.settings.max_clock_skew;
        let expired_before = WallTime(earliest.0.saturating_sub(margin.as_millis() as u64));
        for (partition, stable, others) in self.repair.collectable(self.settings.actor.node, &self.map) {
            // What is remembered by now is at least as much as when they reported, and what is
            // kept durably must never become less.
            let memory = &self.meetings.memory;
            let witnesses = others.into_iter().filter_map(|node| Some((node, *memory.get(&node)?))).collect();
            let mutation = Mutation::Collect { partition, stable, expired_before, witnesses };
            self.order_append(Served::unheard(), mutation, actions);
        }
    }
}

fn newest_of(item: &PulledItem) -> Timestamp {
    let own = item.stamps().iter().map(|stamp| stamp.timestamp);
    let held = match item {
        PulledItem::Record { record: Some(record), .. } => record.newest_stamp().map(|stamp| stamp.timestamp),
        _ => None,
    };
    own.chain(held).max().unwrap_or_default()
}

#[cfg(test)]
#[path = "sync_tests.rs"]
mod tests;

#[cfg(test)]
#[path = "collection_tests.rs"]
mod collection_tests;
