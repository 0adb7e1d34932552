//! Meeting a peer: is this the store that it had when we met last?
//!
//! Problem: a node whose disk was put back to an earlier state, or emptied, has forgotten
//! what it has acknowledged. If it served as before, acknowledged writes would vanish from
//! quorum reads, and what was deleted and collected everywhere would come back.
//! Invariant: a peer is asked and answered only after it has named its store and the last
//! group in it, and neither contradicts what this node durably remembers; and before the
//! first word of its life is relied on, that life is remembered durably.
//! Source: riak_kv issue 679; EVIDENCE, "a disk wiped under the old id".

use std::collections::{BTreeMap, BTreeSet};

use crate::protocol::io::Action;
use crate::types::{CommitNumber, Mutation, NodeId, Now, PeerMemory, SeededBug, StoreId};
use crate::wire::{ReplicaRequest, ReplicaResponse, RequestId};

use super::Node;
use super::replica::Served;

/// What is known of the peers' stores.
#[derive(Debug, Default)]
pub(super) struct Meetings {
    /// What is remembered, durable or on the way to be.
    pub(super) memory: BTreeMap<NodeId, PeerMemory>,
    /// Peers that have named their store over the present connection: what they say again,
    /// perhaps late and out of order, is not compared any more.
    named: BTreeSet<NodeId>,
    /// Peers whose present life is on its way to be remembered.
    not_durable: BTreeSet<NodeId>,
    /// What was remembered when the present connection began: what is said over it may
    /// overtake its first words.
    at_first: BTreeMap<NodeId, CommitNumber>,
    /// Peers that have answered our own first words over the present connection.
    pub(super) heard_us: BTreeSet<NodeId>,
}

impl Meetings {
    pub(super) fn new(memory: BTreeMap<NodeId, PeerMemory>) -> Meetings {
        Meetings { memory, ..Meetings::default() }
    }

    /// A connection begins or ends.
    pub(super) fn begin_anew(&mut self, peer: NodeId) {
        self.named.remove(&peer);
        self.heard_us.remove(&peer);
        if let Some(known) = self.memory.get(&peer) {
            self.at_first.insert(peer, known.commit);
        }
    }
}

impl Node {
    /// A connection stands: says who we are.
    pub(super) fn greet(&mut self, now: Now, peer: NodeId, actions: &mut Vec<Action>) {
        let request = ReplicaRequest::Meet { store: self.settings.store, commit: self.repair.own_commit() };
        self.send_apart(now, peer, request, actions);
    }

    /// A peer has said who it is.
    pub(super) fn meet(
        &mut self,
        now: Now,
        peer: NodeId,
        id: RequestId,
        (store, commit): (StoreId, CommitNumber),
        actions: &mut Vec<Action>,
    ) {
        let Some(incarnation) = self.peers.incarnation(peer).filter(|_| self.peers.is_linked(peer)) else { return };
        let met = PeerMemory { incarnation, store, commit };
        if self.meetings.named.contains(&peer) {
            return self.respond(peer, id, ReplicaResponse::Met { wall: now.wall }, actions);
        }
        let least = self.meetings.at_first.get(&peer).copied().unwrap_or_default();
        match self.meetings.memory.get(&peer).copied() {
            Some(known) if SeededBug::WentBackAdmitted.is_planted() && known.store == store => {
                self.meetings.memory.insert(peer, met);
                self.respond(peer, id, ReplicaResponse::Met { wall: now.wall }, actions);
                self.admit(now, peer, actions);
            }
            Some(known) if known.store != store || least > commit || known.incarnation > incarnation => {
                self.counters.fenced_peers += 1;
                self.send_apart(now, peer, ReplicaRequest::Fence { remembered: known }, actions);
            }
            Some(known) if known.incarnation == incarnation => {
                self.meetings.named.insert(peer);
                // What was said over this connection meanwhile may have spoken of later groups.
                let met = PeerMemory { commit: commit.max(known.commit), ..met };
                self.meetings.memory.insert(peer, met);
                self.respond(peer, id, ReplicaResponse::Met { wall: now.wall }, actions);
                if !self.meetings.not_durable.contains(&peer) {
                    self.admit(now, peer, actions);
                }
            }
            _ => {
                self.meetings.named.insert(peer);
                self.meetings.not_durable.insert(peer);
                self.meetings.memory.insert(peer, met);
                self.respond(peer, id, ReplicaResponse::Met { wall: now.wall }, actions);
                let mutation = Mutation::Remember { node: peer, memory: met };
                self.order_append(Served::remembering(peer, met), mutation, actions);
            }
        }
    }

    /// A peer is durably remembered, or the store had no room to remember it.
    pub(super) fn remembered(
        &mut self,
        now: Now,
        peer: NodeId,
        memory: PeerMemory,
        durable: bool,
        actions: &mut Vec<Action>,
    ) {
        // Lives are counted anew on a disk that was emptied, so a new connection has to name its store too.
        let current = self.peers.incarnation(peer) == Some(memory.incarnation)
            && self.peers.is_linked(peer)
            && self.meetings.named.contains(&peer);
        if !durable {
            return self.repair.remember_later(peer);
        }
        if self.meetings.memory.get(&peer).is_some_and(|known| known.incarnation == memory.incarnation) {
            self.meetings.not_durable.remove(&peer);
        }
        if current {
            self.admit(now, peer, actions);
        }
    }

    fn admit(&mut self, now: Now, peer: NodeId, actions: &mut Vec<Action>) {
        if !self.peers.is_connected(peer) {
            self.peers.admit(peer);
            self.repair.peer_admitted(peer);
            self.begin_round(now, actions);
            self.may_be_asked(now, peer, actions);
        }
    }

    /// A peer says that this node's store knows less than it remembers of it.
    pub(super) fn fenced_by(&mut self, by: NodeId, remembered: PeerMemory, actions: &mut Vec<Action>) {
        let PeerMemory { incarnation, store, commit } = remembered;
        let own = self.settings.actor.incarnation;
        // What it says must be true of this life; an old message may be about an earlier one.
        let contradicts = store != self.settings.store || commit > self.settings.recovered_commit || incarnation > own;
        if contradicts && !self.fenced {
            self.fenced = true;
            actions.push(Action::Fence { by, remembered });
        }
    }
}

#[cfg(test)]
#[path = "meeting_tests.rs"]
mod tests;
